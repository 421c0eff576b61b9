/*
 * Writing zeroes and discarding: like block/io.c, for requests without data.
 *
 * Both take ranges that no limit fits.  Zeroes are written whatever the driver
 * can do: what its pwrite_zeroes does not take goes out as buffers.  A discard
 * is advice: what does not fit is left alone, and "cannot" counts as done.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

#define MAX_BOUNCE (1 * MiB)
#define MAX_PIECE  (INT64_C(1) << 30)

/* ---- Zeroes as data ---- */

static int write_zero_buffers(BlockDriverState *bs, int64_t offset,
                              int64_t bytes, int flags)
{
    int64_t max = MIN_NON_ZERO(bs->bl.max_transfer, MAX_BOUNCE);
    int64_t size = MIN(bytes, max);
    void *buf;
    int ret = 0;

    if (!bs->drv->pwritev) {
        return -ENOTSUP;
    }
    buf = qemu_try_memalign(bs->bl.opt_mem_alignment, size);
    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, size);
    while (ret == 0 && bytes > 0) {
        int64_t n = MIN(bytes, size);
        QEMUIOVector qiov;

        qemu_iovec_init_buf(&qiov, buf, n);
        ret = bs->drv->pwritev(bs, offset, n, &qiov, 0,
                               flags & bs->drv->supported_write_flags);
        offset += n;
        bytes -= n;
    }
    qemu_vfree(buf);
    return ret;
}

/* One piece, aligned; by the driver, or as buffers. */
static int zero_piece(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      int flags)
{
    int ret = -ENOTSUP;

    if (bs->drv->pwrite_zeroes) {
        ret = bs->drv->pwrite_zeroes(bs, offset, bytes,
                                     flags & (bs->drv->supported_zero_flags |
                                              BDRV_REQ_NO_FALLBACK));
    }
    if (ret == -ENOTSUP && !(flags & BDRV_REQ_NO_FALLBACK)) {
        ret = write_zero_buffers(bs, offset, bytes, flags & ~BDRV_REQ_FUA);
        if (ret == 0) {
            /* The driver would have, had it written the zeroes. */
            flags &= bs->drv->supported_zero_flags;
            ret = bdrv_finish_fua(bs, flags, 0);
        }
    }
    return ret;
}

static int zero_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        int flags)
{
    int64_t align = MAX(bs->bl.pwrite_zeroes_alignment,
                        (int64_t)bs->bl.request_alignment);
    int64_t max = MIN_NON_ZERO(bs->bl.max_pwrite_zeroes, MAX_PIECE);

    max = MAX(QEMU_ALIGN_DOWN(max, align), align);
    while (bytes > 0) {
        int64_t head = offset % align;
        int64_t n = MIN(bytes, max);
        int ret;

        if (head) {                     /* up to the next boundary */
            n = MIN(bytes, align - head);
        } else if (n > align) {         /* whole units, then the rest */
            n = QEMU_ALIGN_DOWN(n, align);
        }
        ret = zero_piece(bs, offset, n, flags);
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return 0;
}

/* The part of a block at one end of the range: read, modify, write. */
static int zero_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     int flags)
{
    int64_t align = bs->bl.request_alignment;
    uint8_t *buf = qemu_try_memalign(bs->bl.opt_mem_alignment, align);
    int64_t start = QEMU_ALIGN_DOWN(offset, align);
    QEMUIOVector qiov;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    qemu_iovec_init_buf(&qiov, buf, align);
    ret = bdrv_do_preadv(bs, start, align, &qiov, 0, 0);
    if (ret == 0) {
        memset(buf + (offset - start), 0, bytes);
        ret = bs->drv->pwritev ?
              bs->drv->pwritev(bs, start, align, &qiov, 0,
                               flags & bs->drv->supported_write_flags &
                               ~BDRV_REQ_FUA) : -ENOTSUP;
    }
    qemu_vfree(buf);
    return ret;
}

static int zero_unaligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          int flags)
{
    int64_t align = bs->bl.request_alignment;
    int64_t head = offset % align;
    int64_t n;
    int ret;

    if (flags & BDRV_REQ_NO_FALLBACK) {
        return -ENOTSUP;
    }
    if (head) {
        n = MIN(bytes, align - head);
        ret = zero_part(bs, offset, n, flags);
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    n = QEMU_ALIGN_DOWN(bytes, align);
    ret = zero_aligned(bs, offset, n, flags & ~BDRV_REQ_FUA);
    if (ret == 0 && bytes > n) {
        ret = zero_part(bs, offset + n, bytes - n, flags);
    }
    return ret;
}

/* Blocks at the ends were read, modified and written. */
static void note_zeroed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        int ret)
{
    int64_t align = bs->bl.request_alignment;
    int64_t start = QEMU_ALIGN_DOWN(offset, align);

    bdrv_note_written(bs, start, QEMU_ALIGN_UP(offset + bytes, align) - start,
                      ret);
}

int bdrv_do_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          int flags)
{
    int supported = bs->drv->supported_zero_flags;
    int ret;

    if (bs->read_only) {
        return -EPERM;
    }
    if (bs->open_flags & BDRV_O_NO_FLUSH) {
        flags &= ~BDRV_REQ_FUA;
    }
    if (!(bs->open_flags & BDRV_O_UNMAP)) {
        flags &= ~BDRV_REQ_MAY_UNMAP;
    }
    bdrv_debug_event(bs, "pwritev_zero");
    if ((offset | bytes) & (bs->bl.request_alignment - 1)) {
        ret = zero_unaligned(bs, offset, bytes, flags);
        supported = 0;
    } else {
        ret = zero_aligned(bs, offset, bytes, flags);
    }
    note_zeroed(bs, offset, bytes, ret);
    if (ret < 0) {
        return ret;
    }
    bdrv_note_extent(bs, offset + bytes);
    return bdrv_finish_fua(bs, flags, supported);
}

int bdrv_zero_unchanged(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return zero_aligned(bs, offset, bytes, 0);
}

/* ---- Discard ---- */

int bdrv_do_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t align = MAX(bs->bl.pdiscard_alignment,
                        (int64_t)bs->bl.request_alignment);
    int64_t max = MIN_NON_ZERO(bs->bl.max_pdiscard, MAX_PIECE);
    int64_t skip;

    if (bs->read_only) {
        return -EPERM;
    }
    if (!(bs->open_flags & BDRV_O_UNMAP) || !bs->drv->pdiscard) {
        return 0;
    }
    /* Parts of a unit cannot be deallocated. */
    skip = MIN(QEMU_ALIGN_UP(offset, align) - offset, bytes);
    offset += skip;
    bytes = QEMU_ALIGN_DOWN(bytes - skip, align);
    max = MAX(QEMU_ALIGN_DOWN(max, align), align);
    while (bytes > 0) {
        int64_t n = MIN(bytes, max);
        int ret = bs->drv->pdiscard(bs, offset, n);

        bdrv_note_written(bs, offset, n, ret);
        if (ret < 0 && ret != -ENOTSUP) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return 0;
}
