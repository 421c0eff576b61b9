# shellcheck shell=sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# After mkfs-write and a new start of the guest: e2fsck has nothing to say,
# before and after the file system was in use, and every checksum holds.
[ ! -e /mod/ext4.load ] || . /mod/ext4.load
e2fsck -fn "$D"
mount -t ext4 "$D" /mnt
cd /mnt || exit
test "$(wc -l < SUMS)" -eq 44
sha256sum -c SUMS > /tmp/result || { grep -v ': OK' /tmp/result; exit 1; }
echo "FS $(grep -c ': OK' /tmp/result) files intact"
echo "seen again" >> small/0
sha256sum big1 big2 moved hole small/* > SUMS
cd /
umount /mnt
e2fsck -fn "$D" > /tmp/result || { cat /tmp/result; exit 1; }
