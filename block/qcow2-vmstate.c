/*
 * qcow2: the state of a machine, which is kept where a disk would go on.
 *
 * Source: "Snapshots" of the specification: it begins behind all that the L1
 * entries of the disk can map, and is read and written as data is.  The header
 * says nothing of it; a snapshot says how much it has.  What was not written
 * reads as zeroes: it is no concern of the backing file, however long that is.
 *
 * Writing makes the L1 table longer, durably, before anything is mapped there.
 * A disk that grows drops what is beyond its end first (qcow2-resize.c), so
 * that a guest never sees any of it.
 *
 * An external data file has a disk's clusters where the guest has them, and
 * perhaps no room behind them; internal snapshots have nothing to do with it
 * either.  So there is no such state there.
 *
 * Control thread, drained, as for snapshots.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"

/* Where @pos of the state is on the disk, or -errno. */
static int64_t place_of(BlockDriverState *bs, int64_t pos, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t start = qcow2_vm_state_offset(s);

    if (s->has_data_file) {
        return -ENOTSUP;
    }
    if (bytes > INT64_MAX - start || pos > INT64_MAX - start - bytes) {
        return -EIO;
    }
    return start + pos;
}

/* Room in the L1 table for what ends at @end. */
static int reserve(BlockDriverState *bs, int64_t end)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t coverage = qcow2_l1_coverage(s);
    int64_t entries = end / coverage + (end % coverage != 0);
    int ret;

    if (entries > (int64_t)(QCOW2_MAX_L1_SIZE / sizeof(uint64_t))) {
        return -EFBIG;
    }
    driver_lock(&s->lock);
    ret = qcow2_grow_l1(bs, entries);
    driver_unlock(&s->lock);
    return ret;
}

int qcow2_save_vmstate(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t bytes = qiov->size;
    int64_t offset = place_of(bs, pos, bytes);
    int ret;

    if (offset < 0) {
        return offset;
    }
    if (!s->writable) {
        return -EPERM;
    }
    if (qatomic_read(&s->corrupt)) {
        return -EIO;
    }
    if (bytes == 0) {
        return 0;
    }
    ret = reserve(bs, offset + bytes);
    return ret < 0 ? ret : qcow2_write_normal(bs, offset, bytes, qiov, 0, 0);
}

int qcow2_load_vmstate(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov)
{
    int64_t offset = place_of(bs, pos, qiov->size);

    return offset < 0 ? offset :
           qcow2_preadv(bs, offset, qiov->size, qiov, 0, 0);
}
