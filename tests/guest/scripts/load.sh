# shellcheck shell=sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Writes without a pause, and says on the console what was acknowledged, so
# that a host which kills the storage daemon (or the emulator) at any moment
# can tell whether something acknowledged was lost: verify-image.
#
#   WRITERS (4)  loops in parallel      RECORDS (200)  records of each
#   SLOTS (64)   of each writer, used in turn
#
# Record n of writer w is 4 KiB: 64 lines of 64 bytes "REC w n", right padded,
# at slot w * SLOTS + n % SLOTS.  Even records are written directly, odd ones
# through the page cache; each is flushed (fsync) and then acknowledged by one
# line "ACK w n slot" in a single write, which the console does not tear.
: "${WRITERS:=4}" "${RECORDS:=200}" "${SLOTS:=64}"
sync_to_disk="conv=notrunc,fsync"

writer() {
    w=$1
    n=1
    while [ "$n" -le "$RECORDS" ]; do
        slot=$((w * SLOTS + n % SLOTS))
        flags=
        [ $((n % 2)) -eq 1 ] || flags=oflag=direct
        r="REC $w $n"
        set -- "$r" "$r" "$r" "$r" "$r" "$r" "$r" "$r"
        printf '%-63s\n' "$@" "$@" "$@" "$@" "$@" "$@" "$@" "$@" |
            dd of="$D" bs=4096 seek=$slot $sync_to_disk $flags \
            iflag=fullblock 2> "/tmp/dd$w" ||
            { echo "LOAD writer $w record $n: $(cat /tmp/dd*)"; return 1; }
        echo "ACK $w $n $slot"
        n=$((n + 1))
    done
}

echo "LOAD writers=$WRITERS slots=$SLOTS records=$RECORDS"
pids=
w=0
while [ $w -lt "$WRITERS" ]; do
    writer $w &
    pids="$pids $!"
    w=$((w + 1))
done
for pid in $pids; do
    wait "$pid"
done
echo "LOAD finished"
