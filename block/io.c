/*
 * Blocking requests on a node: alignment, limits, what drivers cannot do.
 *
 * Three layers, each plain code that returns when it is done:
 *
 *   bdrv_preadv …      admitted among overlapping requests, if the node tracks
 *   bdrv_do_preadv …   any offset and length: unaligned reads bounce, unaligned
 *                      writes read, modify and write (serialising, which their
 *                      admission has seen to); past the end reads as zeroes
 *   driver_preadv …    one driver call per piece within the node's limits
 *
 * The asynchronous path (block/request.c) ends in the same code, in a worker.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

/* What one call of a driver is given at most. */
#define MAX_PIECE (INT64_C(1) << 30)

/* ---- Length ---- */

/* A started sector counts; drivers read zeroes where it is not all there. */
static int64_t driver_length(BlockDriverState *bs)
{
    int64_t len = bs->drv->getlength(bs);

    return len < 0 ? len : len > BDRV_MAX_END ? -EFBIG :
           QEMU_ALIGN_UP(len, BDRV_SECTOR_SIZE);
}

void bdrv_refresh_total_bytes(BlockDriverState *bs)
{
    int64_t len = -ENOTSUP;

    if (bs->drv->getlength) {
        len = driver_length(bs);
    } else if (bs->file) {
        len = bdrv_getlength(bs->file->bs);
    }
    qatomic_set(&bs->total_bytes, len);
}

int64_t bdrv_getlength(BlockDriverState *bs)
{
    if (bs->drv->has_variable_length) {
        return driver_length(bs);
    }
    return qatomic_read(&bs->total_bytes);
}

void bdrv_note_extent(BlockDriverState *bs, int64_t end)
{
    int64_t old = qatomic_read(&bs->total_bytes);

    end = QEMU_ALIGN_UP(end, BDRV_SECTOR_SIZE);
    while (end > old) {
        int64_t seen = qatomic_cmpxchg(&bs->total_bytes, old, end);

        if (seen == old) {
            break;
        }
        old = seen;
    }
}

/* ---- Pieces within limits ---- */

/* How many bytes from @offset do the first @max entries cover? */
static int64_t bytes_in_entries(const QEMUIOVector *qiov, size_t offset,
                                int64_t bytes, int max)
{
    int64_t covered = 0;
    int i;

    for (i = 0; i < qiov->niov && max > 0 && covered < bytes; i++) {
        size_t len = qiov->iov[i].iov_len;

        if (offset >= len) {
            offset -= len;
            continue;
        }
        covered += len - offset;
        offset = 0;
        max--;
    }
    return MIN(covered, bytes);
}

/* The length of the next piece; 0: the vector is too fragmented for one. */
static int64_t piece_length(const BlockDriverState *bs,
                            const QEMUIOVector *qiov, size_t qiov_offset,
                            int64_t bytes)
{
    const BlockLimits *bl = &bs->bl;
    int64_t n = MIN(bytes, MIN_NON_ZERO(bl->max_transfer, MAX_PIECE));
    int64_t covered;

    if (qiov->niov <= bl->max_iov) {
        return n;
    }
    covered = bytes_in_entries(qiov, qiov_offset, n, bl->max_iov);
    return covered == bytes ? n :
           QEMU_ALIGN_DOWN(covered, (int64_t)bl->cut_alignment);
}

/* A piece of so many small buffers that even one block exceeds max_iov. */
static int bounce_piece(BlockDriverState *bs, bool write, int64_t offset,
                        int64_t *bytes, QEMUIOVector *qiov, size_t qiov_offset,
                        int flags)
{
    int64_t max = MIN_NON_ZERO(bs->bl.max_transfer, 64 * KiB);
    int64_t n = MIN(*bytes, MAX(bs->bl.cut_alignment, max));
    void *buf = qemu_try_memalign(bs->bl.opt_mem_alignment, n);
    QEMUIOVector bounce;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    *bytes = n;
    flags &= ~BDRV_REQ_REGISTERED_BUF;
    qemu_iovec_init_buf(&bounce, buf, n);
    if (write) {
        qemu_iovec_to_buf(qiov, qiov_offset, buf, n);
        ret = bs->drv->pwritev(bs, offset, n, &bounce, 0, flags);
    } else {
        ret = bs->drv->preadv(bs, offset, n, &bounce, 0, flags);
        if (ret == 0) {
            qemu_iovec_from_buf(qiov, qiov_offset, buf, n);
        }
    }
    qemu_vfree(buf);
    return ret;
}

static int driver_rw(BlockDriverState *bs, bool write, int64_t offset,
                     int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset,
                     int flags)
{
    while (bytes > 0) {
        int64_t n = piece_length(bs, qiov, qiov_offset, bytes);
        int ret;

        if (n == 0) {
            n = bytes;
            ret = bounce_piece(bs, write, offset, &n, qiov, qiov_offset, flags);
        } else if (write) {
            ret = bs->drv->pwritev(bs, offset, n, qiov, qiov_offset, flags);
        } else {
            ret = bs->drv->preadv(bs, offset, n, qiov, qiov_offset, flags);
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return 0;
}

static int driver_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    if (!bs->drv->preadv) {
        return -ENOTSUP;
    }
    return driver_rw(bs, false, offset, bytes, qiov, qiov_offset, flags);
}

int bdrv_finish_fua(BlockDriverState *bs, int flags, int supported)
{
    return flags & BDRV_REQ_FUA & ~supported ? bdrv_flush(bs) : 0;
}

static int driver_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    int supported = bs->drv->supported_write_flags;
    int ret;

    if (!bs->drv->pwritev) {
        return -ENOTSUP;
    }
    if (flags & (BDRV_REQ_WRITE_COMPRESSED | BDRV_REQ_COMPRESSED_DATA) &
        ~supported) {
        return -ENOTSUP;
    }
    bdrv_debug_event(bs, "pwritev");
    ret = driver_rw(bs, true, offset, bytes, qiov, qiov_offset,
                    flags & (supported | BDRV_REQ_REGISTERED_BUF));
    bdrv_note_written(bs, offset, bytes, ret);
    bdrv_debug_event(bs, "pwritev_done");
    if (ret < 0) {
        return ret;
    }
    bdrv_note_extent(bs, offset + bytes);
    return bdrv_finish_fua(bs, flags, supported);
}

/* ---- Unaligned requests ---- */

/*
 * A request, padded to whole blocks: the user's buffers with a head and a tail
 * of our own round them, which lie in one buffer of two blocks.
 */
typedef struct Padding {
    int64_t offset;             /* aligned */
    int64_t bytes;
    int64_t head;               /* bytes before the user's data … */
    int64_t tail;               /* … and after it */
    uint8_t *buf;
    QEMUIOVector qiov;
} Padding;

static bool is_aligned(const BlockDriverState *bs, int64_t offset,
                       int64_t bytes)
{
    return !((offset | bytes) & (bs->bl.request_alignment - 1));
}

static int padding_init(Padding *pad, BlockDriverState *bs, int64_t offset,
                        int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset)
{
    int64_t align = bs->bl.request_alignment;

    pad->offset = QEMU_ALIGN_DOWN(offset, align);
    pad->head = offset - pad->offset;
    pad->bytes = QEMU_ALIGN_UP(pad->head + bytes, align);
    pad->tail = pad->bytes - pad->head - bytes;
    pad->buf = qemu_try_memalign(MAX(bs->bl.opt_mem_alignment, align),
                                 2 * align);
    if (!pad->buf) {
        return -ENOMEM;
    }
    qemu_iovec_init(&pad->qiov, qiov->niov + 2);
    if (pad->head) {
        qemu_iovec_add(&pad->qiov, pad->buf, pad->head);
    }
    qemu_iovec_concat(&pad->qiov, qiov, qiov_offset, bytes);
    if (pad->tail) {
        qemu_iovec_add(&pad->qiov, pad->buf + 2 * align - pad->tail,
                       pad->tail);
    }
    return 0;
}

static void padding_destroy(Padding *pad)
{
    qemu_iovec_destroy(&pad->qiov);
    qemu_vfree(pad->buf);
}

/* Read what an unaligned write leaves of its first and last block. */
static int padding_fill(Padding *pad, BlockDriverState *bs)
{
    int64_t align = bs->bl.request_alignment;
    QEMUIOVector block;
    int ret;

    if (pad->head || (pad->tail && pad->bytes == align)) {
        qemu_iovec_init_buf(&block, pad->buf, align);
        ret = bdrv_do_preadv(bs, pad->offset, align, &block, 0, 0);
        if (ret < 0) {
            return ret;
        }
    }
    if (!pad->tail) {
        return 0;
    }
    if (pad->bytes == align) {
        memcpy(pad->buf + 2 * align - pad->tail,
               pad->buf + align - pad->tail, pad->tail);
        return 0;
    }
    qemu_iovec_init_buf(&block, pad->buf + align, align);
    return bdrv_do_preadv(bs, pad->offset + pad->bytes - align, align, &block,
                          0, 0);
}

/* ---- Read ---- */

/* Aligned, and inside the node but for part of its last block. */
static int read_inside(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    Padding pad;
    int ret;

    if (is_aligned(bs, offset, bytes)) {
        return driver_preadv(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    ret = padding_init(&pad, bs, offset, bytes, qiov, qiov_offset);
    if (ret < 0) {
        return ret;
    }
    ret = driver_preadv(bs, pad.offset, pad.bytes, &pad.qiov, 0,
                        flags & ~BDRV_REQ_REGISTERED_BUF);
    padding_destroy(&pad);
    return ret;
}

int bdrv_do_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    int64_t total = bdrv_getlength(bs);
    int64_t inside;
    int ret = 0;

    if (total < 0) {
        return total;
    }
    inside = CLAMP(total - offset, 0, bytes);
    if (inside > 0) {
        ret = read_inside(bs, offset, inside, qiov, qiov_offset, flags);
    }
    if (ret == 0 && inside < bytes) {
        qemu_iovec_memset(qiov, qiov_offset + inside, 0, bytes - inside);
    }
    return ret;
}

/* ---- Write ---- */

static int write_unaligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                           QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    Padding pad;
    int ret = padding_init(&pad, bs, offset, bytes, qiov, qiov_offset);

    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(bs, "pwritev_rmw_head");
    ret = padding_fill(&pad, bs);
    bdrv_debug_event(bs, "pwritev_rmw_after_tail");
    if (ret == 0) {
        ret = driver_pwritev(bs, pad.offset, pad.bytes, &pad.qiov, 0,
                             flags & ~BDRV_REQ_REGISTERED_BUF);
    }
    padding_destroy(&pad);
    return ret;
}

int bdrv_do_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    if (bs->read_only) {
        return -EPERM;
    }
    if (bs->open_flags & BDRV_O_NO_FLUSH) {
        flags &= ~BDRV_REQ_FUA;
    }
    if (bs->detect_zeroes && bytes > 0 &&
        !(flags & BDRV_REQ_WRITE_COMPRESSED) &&
        qemu_iovec_is_zero(qiov, qiov_offset, bytes)) {
        flags |= bs->detect_zeroes_unmap ? BDRV_REQ_MAY_UNMAP : 0;
        return bdrv_do_pwrite_zeroes(bs, offset, bytes,
                                     flags & ~BDRV_REQ_REGISTERED_BUF);
    }
    if (!is_aligned(bs, offset, bytes)) {
        return write_unaligned(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    return driver_pwritev(bs, offset, bytes, qiov, qiov_offset, flags);
}

int bdrv_pwrite_unchanged(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          QEMUIOVector *qiov)
{
    if (!bs->drv->pwritev) {
        return -ENOTSUP;
    }
    return driver_rw(bs, true, offset, bytes, qiov, 0, 0);
}

/* ---- Flush ---- */

static bool child_is_written(const BdrvChild *c)
{
    return qatomic_read(&c->perm) & (BLK_PERM_WRITE | BLK_PERM_RESIZE |
                                     BLK_PERM_WRITE_UNCHANGED);
}

/* For a blkdebug that stands in for the file of @bs. */
static void file_debug_event(BlockDriverState *bs, const char *event)
{
    if (bs->file) {
        bdrv_debug_event(bs->file->bs, event);
    }
}

int bdrv_flush(BlockDriverState *bs)
{
    bool leaf = list_is_empty(&bs->children);
    BdrvChild *c;
    int ret;

    if (leaf && (bs->open_flags & BDRV_O_NO_FLUSH)) {
        return 0;
    }
    file_debug_event(bs, "flush_to_os");
    if (bs->drv->flush) {
        ret = bs->drv->flush(bs);
        if (ret < 0) {
            return ret;
        }
    }
    if (bs->drv->flushes_children) {
        return 0;
    }
    file_debug_event(bs, "flush_to_disk");
    list_for_each(c, &bs->children, child_node) {
        if (child_is_written(c)) {
            ret = bdrv_flush(c->bs);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

/* ---- Admission ---- */

static int do_read(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    int flags = req->flags & ~BDRV_REQ_COPY_ON_READ;    /* this node's */

    if (req->tracked_bs && req->copies_on_read) {
        return bdrv_do_copy_on_read(bs, req->offset, req->bytes, req->qiov,
                                    req->qiov_offset, flags);
    }
    return bdrv_do_preadv(bs, req->offset, req->bytes, req->qiov,
                          req->qiov_offset, flags);
}

int bdrv_do_request(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    switch (req->type) {
    case BDRV_REQ_READ:
        return do_read(bs, req);
    case BDRV_REQ_WRITE:
        return bdrv_do_pwritev(bs, req->offset, req->bytes, req->qiov,
                               req->qiov_offset, req->flags);
    case BDRV_REQ_WRITE_ZEROES:
        return bdrv_do_pwrite_zeroes(bs, req->offset, req->bytes, req->flags);
    case BDRV_REQ_DISCARD:
        return bdrv_do_pdiscard(bs, req->offset, req->bytes);
    case BDRV_REQ_FLUSH:
        return bdrv_flush(bs);
    default:
        return -EINVAL;
    }
}

static bool range_is_valid(const BdrvTrackedRequest *req)
{
    return req->offset >= 0 && req->bytes >= 0 &&
           req->offset <= BDRV_MAX_END &&
           req->bytes <= BDRV_MAX_END - req->offset;
}

int bdrv_run_request(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    int ret;

    if (!range_is_valid(req)) {
        return -EIO;
    }
    if (!bdrv_is_tracking(bs) || req->type == BDRV_REQ_FLUSH) {
        return bdrv_do_request(bs, req);
    }
    ret = bdrv_tracked_begin(bs, req);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_do_request(bs, req);
    bdrv_tracked_leave(req);
    bdrv_tracked_end(req);
    return ret;
}

/* ---- For drivers ---- */

static int child_request(BdrvChild *child, BdrvRequestType type,
                         int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                         size_t qiov_offset, int flags)
{
    BdrvTrackedRequest req;

    if (bytes == 0) {
        return 0;
    }
    /* Only what is read is set: the struct is large, and calls are many. */
    req.type = type;
    req.flags = flags;
    req.offset = offset;
    req.bytes = bytes;
    req.qiov = qiov;
    req.qiov_offset = qiov_offset;
    req.tracked_bs = NULL;
    list_node_init(&req.tracked_node);
    list_node_init(&req.waiting_node);
    return bdrv_run_request(child->bs, &req);
}

int bdrv_preadv(BdrvChild *child, int64_t offset, int64_t bytes,
                QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return child_request(child, BDRV_REQ_READ, offset, bytes, qiov,
                         qiov_offset, flags);
}

int bdrv_pwritev(BdrvChild *child, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return child_request(child, BDRV_REQ_WRITE, offset, bytes, qiov,
                         qiov_offset, flags);
}

int bdrv_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                       int flags)
{
    return child_request(child, BDRV_REQ_WRITE_ZEROES, offset, bytes, NULL, 0,
                         flags);
}

int bdrv_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes)
{
    return child_request(child, BDRV_REQ_DISCARD, offset, bytes, NULL, 0, 0);
}

int bdrv_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
               int flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    return bdrv_preadv(child, offset, bytes, &qiov, 0, flags);
}

int bdrv_pwrite(BdrvChild *child, int64_t offset, int64_t bytes,
                const void *buf, int flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, (void *)buf, bytes);
    return bdrv_pwritev(child, offset, bytes, &qiov, 0, flags);
}

int bdrv_pwrite_sync(BdrvChild *child, int64_t offset, int64_t bytes,
                     const void *buf, int flags)
{
    int ret = bdrv_pwrite(child, offset, bytes, buf, flags);

    return ret < 0 ? ret : bdrv_flush(child->bs);
}
