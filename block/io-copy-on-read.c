/*
 * Copy-on-read: what a read finds not to be allocated in a node (so that it
 * comes from the backing file) is written into the node as well.
 *
 * A copy is older than what any write puts there meanwhile, so it must not
 * land on top of one.  Hence a read that copies is tracked as a serialising
 * request over whole clusters (tracked-request.c): no write, discard or other
 * copy in them runs from the moment at which the allocation is looked up until
 * the copy has been written, and what is copied lies within that range.
 * Clusters are a matter of economy: that the format need not copy again what
 * is round the data.  It is being alone that keeps the data right.
 *
 * The copy goes through a buffer of ours.  The reader's belongs to a guest,
 * who could change what would be written.
 *
 * A copy that cannot be written fails the read, as in QEMU: who wants the
 * image to be complete has to know.
 *
 * Nothing that the node shows changes, so dirty bitmaps record nothing, and
 * nobody has to flush.
 *
 * A read of what is allocated copies nothing, so it need not be alone, nor keep
 * away from copies, which leave what is allocated as it is.  If the driver can
 * map it to the node's own data, it takes the fast path as if there were no
 * copy-on-read (request.c); in all other cases a worker decides.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error.h"
#include "qemu/zero.h"
#include "block-internal.h"

/* A buffer, unless a cluster is larger; and zeroes are found by the buffer. */
#define MAX_COPY (16 * MiB)

/* ---- Turning it on: drained, like all tracking ---- */

void bdrv_copy_on_read_begin(BlockDriverState *bs)
{
    BlockDriverInfo info;
    int64_t unit = 0;

    if (bdrv_get_info(bs, &info) == 0) {
        unit = info.subcluster_size ? info.subcluster_size : info.cluster_size;
    }
    bs->copy_alignment = MAX(unit, 1);
    bs->tracking_for_copies++;
    bdrv_tracking_begin(bs);
}

void bdrv_copy_on_read_end(BlockDriverState *bs)
{
    bs->tracking_for_copies--;
    bdrv_tracking_end(bs);
}

bool bdrv_enable_copy_on_read(BlockDriverState *bs, Error **errp)
{
    bool ok;

    if (bs->read_only) {
        error_setg(errp, "Can't use copy-on-read on read-only device");
        return false;
    }
    if (bs->copy_on_read) {
        return true;
    }
    bdrv_drained_begin(bs);
    bs->copy_on_read = true;
    ok = bdrv_refresh_perms(bs, errp);
    if (ok) {
        bdrv_copy_on_read_begin(bs);
    } else {
        bs->copy_on_read = false;
    }
    bdrv_drained_end(bs);
    return ok;
}

/* ---- Requests ---- */

bool bdrv_copies_on_read(const BlockDriverState *bs,
                         const BdrvTrackedRequest *req)
{
    return req->type == BDRV_REQ_READ && bs->copy_alignment > 0 &&
           (bs->copy_on_read || (req->flags & BDRV_REQ_COPY_ON_READ)) &&
           !bs->read_only && !(bs->open_flags & BDRV_O_INACTIVE);
}

int64_t bdrv_copy_alignment(const BlockDriverState *bs)
{
    return MAX(bs->copy_alignment, (int64_t)bs->bl.request_alignment);
}

static int write_copy(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      void *buf)
{
    QEMUIOVector qiov;

    bdrv_debug_event(bs, "cor_write");
    if (buffer_is_zero(buf, bytes)) {
        return bdrv_zero_unchanged(bs, offset, bytes);
    }
    qemu_iovec_init_buf(&qiov, buf, bytes);
    return bdrv_pwrite_unchanged(bs, offset, bytes, &qiov);
}

/* The range @start, @n is read and written; what of it the reader wants is
 * from @offset on. */
static int copy_piece(BlockDriverState *bs, int64_t start, int64_t n,
                      int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                      size_t qiov_offset)
{
    uint8_t *buf = qemu_try_memalign(bs->bl.opt_mem_alignment, n);
    QEMUIOVector whole;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    qemu_iovec_init_buf(&whole, buf, n);
    ret = bdrv_do_preadv(bs, start, n, &whole, 0, 0);
    if (ret == 0) {
        ret = write_copy(bs, start, n, buf);
    }
    if (ret == 0) {
        qemu_iovec_from_buf(qiov, qiov_offset, buf + (offset - start), bytes);
    }
    qemu_vfree(buf);
    return ret;
}

/* Nothing of the range is allocated.  *@done of it have been read. */
static int read_and_copy(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset, int flags,
                         int64_t *done)
{
    int64_t align = bdrv_copy_alignment(bs);
    int64_t start = QEMU_ALIGN_DOWN(offset, align);
    int64_t end = QEMU_ALIGN_UP(offset + bytes, align);
    int64_t n;

    /* Never longer than the node, whose last block may not be all there. */
    end = MIN(end, QEMU_ALIGN_DOWN(bdrv_getlength(bs),
                                   (int64_t)bs->bl.request_alignment));
    n = MIN(end - start, MAX(MAX_COPY, align));
    if (start + n <= offset) {
        *done = bytes;
        return bdrv_do_preadv(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    *done = MIN(bytes, start + n - offset);
    return copy_piece(bs, start, n, offset, *done, qiov, qiov_offset);
}

int bdrv_do_copy_on_read(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        int64_t n;
        int allocated = bdrv_is_allocated(bs, offset, bytes, &n);

        if (allocated == 0 && n > 0) {
            ret = read_and_copy(bs, offset, n, qiov, qiov_offset, flags, &n);
        } else {
            /* Where nobody knows, or past the end: as if without copying. */
            n = allocated > 0 ? n : bytes;
            ret = bdrv_do_preadv(bs, offset, n, qiov, qiov_offset, flags);
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return ret;
}
