# shellcheck shell=sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Make ext4 and put files on it whose checksums fs-verify finds beside them.
# Needs 32 MiB.  What is deleted is trimmed, so discards meet live data.
[ ! -e /mod/ext4.load ] || . /mod/ext4.load
mkfs.ext4 -q -F -L guest "$D"
mount -t ext4 "$D" /mnt
cd /mnt || exit
for i in 1 2 3 4; do
    dd if=/dev/urandom of="big$i" bs=65536 count=24 2> /dev/null
done
mkdir small
i=0
while [ $i -lt 40 ]; do
    echo "small file $i of 40" > "small/$i"
    i=$((i + 1))
done
sha256sum big* small/* > SUMS
sync
# Holes, an overwrite in place, a rename, and space given back.
dd if=/dev/urandom of=hole bs=4096 seek=100 count=3 2> /dev/null
dd if=/dev/urandom of=big2 bs=4096 seek=7 count=5 conv=notrunc,fsync \
    2> /dev/null
mv big3 moved
rm big4
sha256sum big1 big2 moved hole small/* > SUMS
sync
cd /
fstrim -v /mnt
umount /mnt
echo "FS made and filled"
