# shellcheck shell=sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Every request type once, on the bare disk: write, flush, read back, compare,
# write zeroes, discard, get-id.  Each "SHA256 offset bytes sum" line claims
# what the image must hold afterwards; the host's verify-image checks them.
#
# Needs 16 MiB.  DISCARD=zero: a discarded range must read as zeroes.
q=/sys/block/${D##*/}
set -- "$q"/mq/*
echo "disk $(cat "$q/size") sectors, $# queue(s)," \
    "cache $(cat "$q/queue/write_cache"), serial '$(cat "$q/serial")'," \
    "block $(cat "$q/queue/logical_block_size")/$(cat \
    "$q/queue/physical_block_size"), discard $(cat \
    "$q/queue/discard_max_bytes"), zeroes $(cat \
    "$q/queue/write_zeroes_max_bytes")"

sum_of() {
    sha256sum "$1" | cut -d' ' -f1
}

# read_back OFFSET BYTES FILE: both multiples of 64 KiB, past the page cache
read_back() {
    dd if="$D" of="$3" bs=65536 skip=$(($1 / 65536)) count=$(($2 / 65536)) \
        iflag=direct 2> /dev/null
}

# Two writes: through the page cache with a flush, and direct ones of 4 KiB.
dd if=/dev/urandom of=/tmp/data bs=65536 count=32 2> /dev/null
dd if=/tmp/data of="$D" bs=65536 seek=16 conv=fsync 2> /dev/null
dd if=/tmp/data of="$D" bs=4096 seek=1024 count=64 oflag=direct 2> /dev/null
echo 3 > /proc/sys/vm/drop_caches
read_back 1048576 2097152 /tmp/back
cmp /tmp/data /tmp/back
read_back 4194304 262144 /tmp/back
head -c 262144 /tmp/data > /tmp/head
cmp /tmp/head /tmp/back
echo "SHA256 1048576 2097152 $(sum_of /tmp/data)"
echo "SHA256 4194304 262144 $(sum_of /tmp/head)"

# Zeroes over the middle of something, which must leave both ends alone.
dd if=/tmp/data of="$D" bs=65536 seek=96 conv=fsync 2> /dev/null
if [ "$(cat "$q/queue/write_zeroes_max_bytes")" -gt 0 ]; then
    /sbin/blkdiscard -z -o 6815744 -l 1048576 "$D"
else
    dd if=/dev/zero of="$D" bs=65536 seek=104 count=16 conv=fsync 2> /dev/null
fi
dd if=/dev/zero of=/tmp/data bs=65536 seek=8 count=16 conv=notrunc 2> /dev/null
read_back 6291456 2097152 /tmp/back
cmp /tmp/data /tmp/back
echo "SHA256 6291456 2097152 $(sum_of /tmp/data)"

# Discard likewise.
dd if=/dev/urandom of=/tmp/data bs=65536 count=32 2> /dev/null
dd if=/tmp/data of="$D" bs=65536 seek=160 conv=fsync 2> /dev/null
if [ "$(cat "$q/queue/discard_max_bytes")" -gt 0 ]; then
    /sbin/blkdiscard -o 11010048 -l 1048576 "$D"
    if [ "${DISCARD:-}" = zero ]; then
        dd if=/dev/zero of=/tmp/data bs=65536 seek=8 count=16 \
            conv=notrunc 2> /dev/null
        read_back 10485760 2097152 /tmp/back
        cmp /tmp/data /tmp/back
        echo "SHA256 10485760 2097152 $(sum_of /tmp/data)"
    fi
    read_back 10485760 524288 /tmp/back
    head -c 524288 /tmp/data > /tmp/head
    cmp /tmp/head /tmp/back
elif [ "${DISCARD:-}" = zero ]; then
    echo "the disk offers no discard"
    exit 1
fi
