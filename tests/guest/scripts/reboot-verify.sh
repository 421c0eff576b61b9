# shellcheck shell=sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# mkfs-write, a reboot of the same emulator (so the device is reset and set up
# anew, and a vhost-user back end sees its rings stop and start), fs-verify.
# Which half it is stands on the disk: the volume label.  Use with --reboots.
if [ "$(dd if="$D" bs=1 skip=1144 count=5 2> /dev/null)" = guest ]; then
    . /scripts/fs-verify.sh
else
    . /scripts/mkfs-write.sh
    exit 194
fi
