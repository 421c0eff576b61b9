# shellcheck shell=sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Reads while the machine is being migrated (test-migrate).
#
# The disk has REGIONS regions of REGION bytes, whose MD5 sums are SUM_0, SUM_1 …
# Each in turn is read into the page cache, where the device puts it and no
# processor touches it, and then checked there, twice, without reading again.
# A page that came to the new machine as it was before the device wrote to it
# has another region's contents, or none.
#
# Ends when the host says so in the sector after the regions, which is read
# directly.  The last region is then written anew, for the host to see.
: "${REGIONS:?}" "${REGION:?}"
pages=$((REGION / 4096))

region() {
    dd if="$D" bs=4096 skip=$(($1 * pages)) count=$pages 2> /dev/null
}

check() {
    sum=$(region "$1" | md5sum | cut -d' ' -f1)
    want=
    eval "want=\$SUM_$1"
    [ "$sum" = "$want" ] || {
        echo "MIGRATE pass $pass: region $1 is $sum, not $want"
        return 1
    }
}

pass=0
echo "MIGRATE ready"
while :; do
    r=$((pass % REGIONS))
    echo 3 > /proc/sys/vm/drop_caches
    region $r > /dev/null
    check $r
    check $r
    pass=$((pass + 1))
    word=$(dd if="$D" bs=4096 skip=$((REGIONS * pages)) count=1 iflag=direct \
        2> /dev/null | head -c 4)
    [ "$word" != stop ] || break
done
echo "MIGRATE $pass passes"
dd if=/dev/zero of="$D" bs=4096 seek=$(((REGIONS - 1) * pages)) count=$pages \
    conv=notrunc,fsync 2> /dev/null
