# shellcheck shell=sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Small requests on what is allocated already: the ones that an image format
# answers from its tables, without a worker.
#
# 4 MiB are written first, in large pieces; then COUNT (400) blocks of 4 KiB in
# the middle are overwritten, and read back, each directly.  "SHA256" as in
# basic.sh.
: "${COUNT:=400}"
dd if=/dev/urandom of=/tmp/data bs=65536 count=64 2> /dev/null
dd if=/tmp/data of="$D" bs=1048576 seek=1 oflag=direct conv=fsync 2> /dev/null

dd if=/dev/urandom of=/tmp/new bs=4096 count="$COUNT" 2> /dev/null
dd if=/tmp/new of="$D" bs=4096 seek=384 oflag=direct conv=fsync 2> /dev/null
dd if=/tmp/new of=/tmp/data bs=4096 seek=128 conv=notrunc 2> /dev/null

dd if="$D" of=/tmp/back bs=4096 skip=384 count="$COUNT" iflag=direct \
    2> /dev/null
cmp /tmp/new /tmp/back
echo "SHA256 1048576 4194304 $(sha256sum /tmp/data | cut -d' ' -f1)"
