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
#
# FRESH=1: 64 KiB are written in each pass as well, from 52 MiB on where nothing
# was before, and in the end all of it is read again.
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

# Number n of what is fresh, to or from a file.
fresh_at=832
fresh_max=150
write_fresh() {
    dd if=/dev/urandom of=/tmp/fresh bs=65536 count=1 2> /dev/null
    dd if=/tmp/fresh of="$D" bs=65536 seek=$((fresh_at + $1)) conv=notrunc,fsync \
        2> /dev/null
    md5sum < /tmp/fresh >> /tmp/sums
}

check_fresh() {
    echo 3 > /proc/sys/vm/drop_caches
    n=0
    while read -r want; do
        sum=$(dd if="$D" bs=65536 skip=$((fresh_at + n)) count=1 2> /dev/null |
            md5sum)
        [ "$sum" = "$want" ] || {
            echo "MIGRATE fresh piece $n is $sum, not $want"
            return 1
        }
        n=$((n + 1))
    done < /tmp/sums
    echo "MIGRATE $n fresh pieces"
}

pass=0
echo "MIGRATE ready"
while :; do
    r=$((pass % REGIONS))
    echo 3 > /proc/sys/vm/drop_caches
    region $r > /dev/null
    check $r
    check $r
    if [ -n "${FRESH:-}" ] && [ $pass -lt $fresh_max ]; then
        write_fresh $pass
    fi
    pass=$((pass + 1))
    word=$(dd if="$D" bs=4096 skip=$((REGIONS * pages)) count=1 iflag=direct \
        2> /dev/null | head -c 4)
    [ "$word" != stop ] || break
done
echo "MIGRATE $pass passes"
[ -z "${FRESH:-}" ] || check_fresh
dd if=/dev/zero of="$D" bs=4096 seek=$(((REGIONS - 1) * pages)) count=$pages \
    conv=notrunc,fsync 2> /dev/null
