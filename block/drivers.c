/*
 * The one table of all drivers, in the order in which formats are probed.
 *
 * A plain array: a constructor in a static library silently registers nothing
 * when no other symbol of its object is used.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-driver.h"

extern BlockDriver bdrv_blkdebug;
extern BlockDriver bdrv_copy_on_read;
extern BlockDriver bdrv_file;
extern BlockDriver bdrv_host_cdrom;
extern BlockDriver bdrv_host_device;
extern BlockDriver bdrv_luks;
extern BlockDriver bdrv_null_aio;
extern BlockDriver bdrv_null_co;
extern BlockDriver bdrv_qcow2;
extern BlockDriver bdrv_raw;

BlockDriver *const bdrv_drivers[] = {
    &bdrv_blkdebug,
    &bdrv_copy_on_read,
    &bdrv_file,
    &bdrv_host_cdrom,
    &bdrv_host_device,
    &bdrv_luks,
    &bdrv_null_aio,
    &bdrv_null_co,
    &bdrv_qcow2,
    &bdrv_raw,
    NULL,
};
