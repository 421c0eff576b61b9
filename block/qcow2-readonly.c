/*
 * qcow2: write-back while nothing is written: no table is ever dirty, so the
 * cache has no reason to call this.  Goes when writing comes (qcow2-flush.c).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2.h"

int qcow2_write_back_metadata(BlockDriverState *bs)
{
    return -EROFS;
}
