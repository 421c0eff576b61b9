/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-blk: one request, from its descriptors to its status byte.
 *
 * A request is a header of 16 bytes that the device reads, data, and a status
 * byte that it writes: the last byte of what is writable.  How the driver cuts
 * this into descriptors is its own affair (2.7.4), down to one byte each.
 *
 * The header and the ranges of a discard are copied out of guest memory before
 * they are looked at.  Without a whole header, or without a status byte, there
 * is no way to answer: that breaks the queue.  All else gets a status:
 *
 *   OK      it was done
 *   IOERR   outside the disk, not whole blocks, too large, or it failed
 *   UNSUPP  a type or flag that this device does not know
 */
#include "qemu/osdep.h"
#include "virtio-blk-internal.h"

/* ---- The end of a request ---- */

static void virtio_blk_finish(VirtIOBlockReq *r, uint8_t status)
{
    VirtIOBlockQueue *q = r->q;

    if (unlikely(status != VIRTIO_BLK_S_OK)) {
        virtio_blk_count(&q->errors);
        r->written = 1;     /* data is not to be relied on */
    }
    qatomic_set(r->status, status);
    if (unlikely(r->trimmed)) {
        r->trimmed->iov_len++;   /* the dirty log wants all of it */
    }
    virtqueue_push(q->vq, &r->elem, r->written);
    virtio_blk_queue_put(r);
}

static uint8_t virtio_blk_status(int ret)
{
    if (likely(ret >= 0)) {
        return VIRTIO_BLK_S_OK;
    }
    return ret == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

void virtio_blk_rw_done(BdrvTrackedRequest *req)
{
    VirtIOBlockReq *r = container_of(req, VirtIOBlockReq, req);

    virtio_blk_finish(r, likely(req->ret >= 0) ? VIRTIO_BLK_S_OK :
                                                 VIRTIO_BLK_S_IOERR);
}

/* ---- Read and write ---- */

/* Whether the driver may use these sectors. */
static bool virtio_blk_range_ok(VirtIOBlock *s, uint64_t sector,
                                uint64_t bytes)
{
    int64_t length = blk_getlength(s->blk);

    return sector <= INT64_MAX / BDRV_SECTOR_SIZE && length >= 0 &&
           bytes <= (uint64_t)length &&
           sector * BDRV_SECTOR_SIZE <= (uint64_t)length - bytes &&
           ((sector * BDRV_SECTOR_SIZE) | bytes) % s->block_size == 0;
}

static void virtio_blk_rw(VirtIOBlockReq *r, BdrvRequestType type,
                          uint64_t sector, struct iovec *iov, unsigned niov,
                          size_t bytes)
{
    VirtIOBlock *s = r->q->s;

    if (unlikely(bytes == 0 || bytes > INT_MAX ||
                 (type == BDRV_REQ_WRITE && !s->writable) ||
                 !virtio_blk_range_ok(s, sector, bytes))) {
        virtio_blk_finish(r, VIRTIO_BLK_S_IOERR);
        return;
    }
    qemu_iovec_init_external(&r->qiov, iov, niov);
    r->req.type = type;
    r->req.flags = s->rw_flags;
    r->req.offset = sector * BDRV_SECTOR_SIZE;
    r->req.bytes = bytes;
    r->req.qiov = &r->qiov;
    r->req.qiov_offset = 0;
    r->req.cb = virtio_blk_rw_done;
    virtio_blk_merge_add(r);
}

/* ---- Flush ---- */

static void virtio_blk_flush(VirtIOBlockReq *r)
{
    r->req.type = BDRV_REQ_FLUSH;
    r->req.flags = 0;
    r->req.offset = r->req.bytes = 0;
    r->req.qiov = NULL;
    r->req.cb = virtio_blk_rw_done;
    blk_aio_submit(r->q->s->blk, &r->req);
}

/* ---- Discard and write zeroes ---- */

static void virtio_blk_next_range(VirtIOBlockReq *r);

static void virtio_blk_range_done(BdrvTrackedRequest *req)
{
    VirtIOBlockReq *r = container_of(req, VirtIOBlockReq, req);

    if (req->ret < 0) {
        virtio_blk_finish(r, virtio_blk_status(req->ret));
    } else {
        virtio_blk_next_range(r);
    }
}

/* One range after the other; the first that fails ends the request. */
static void virtio_blk_next_range(VirtIOBlockReq *r)
{
    const VirtIOBlockRange *range;

    if (r->next_range == r->n_ranges) {
        virtio_blk_finish(r, VIRTIO_BLK_S_OK);
        return;
    }
    range = &r->ranges[r->next_range++];
    r->req.flags = range->flags;
    r->req.offset = range->offset;
    r->req.bytes = range->bytes;
    blk_aio_submit(r->q->s->blk, &r->req);
}

/* Check a range as the driver gave it and keep it; a status. */
static uint8_t
virtio_blk_add_range(VirtIOBlockReq *r, bool discard,
                     const struct virtio_blk_discard_write_zeroes *d)
{
    uint64_t sector = GUINT64_FROM_LE(d->sector);
    uint32_t num = GUINT32_FROM_LE(d->num_sectors);
    uint32_t flags = GUINT32_FROM_LE(d->flags);
    uint64_t bytes = (uint64_t)num * BDRV_SECTOR_SIZE;

    if (flags & ~(discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)) {
        return VIRTIO_BLK_S_UNSUPP;
    }
    if (num > VIRTIO_BLK_MAX_RANGE_SECTORS ||
        !virtio_blk_range_ok(r->q->s, sector, bytes)) {
        return VIRTIO_BLK_S_IOERR;
    }
    if (num) {
        r->ranges[r->n_ranges++] = (VirtIOBlockRange) {
            .offset = sector * BDRV_SECTOR_SIZE,
            .bytes = bytes,
            .flags = flags ? BDRV_REQ_MAY_UNMAP : 0,
        };
    }
    return VIRTIO_BLK_S_OK;
}

/* Nothing is done unless all ranges are good. */
static void virtio_blk_ranges(VirtIOBlockReq *r, bool discard,
                              const struct iovec *iov, unsigned niov,
                              size_t bytes)
{
    struct virtio_blk_discard_write_zeroes d;
    uint8_t status = VIRTIO_BLK_S_OK;
    size_t pos;

    if (!r->q->s->writable || bytes == 0 || bytes % sizeof(d) ||
        bytes / sizeof(d) > VIRTIO_BLK_MAX_RANGES) {
        virtio_blk_finish(r, VIRTIO_BLK_S_IOERR);
        return;
    }
    r->n_ranges = r->next_range = 0;
    for (pos = 0; pos < bytes && status == VIRTIO_BLK_S_OK;
         pos += sizeof(d)) {
        iov_to_buf(iov, niov, pos, &d, sizeof(d));
        status = virtio_blk_add_range(r, discard, &d);
    }
    if (status != VIRTIO_BLK_S_OK) {
        virtio_blk_finish(r, status);
        return;
    }
    r->req.type = discard ? BDRV_REQ_DISCARD : BDRV_REQ_WRITE_ZEROES;
    r->req.qiov = NULL;
    r->req.cb = virtio_blk_range_done;
    virtio_blk_next_range(r);
}

/* ---- Get ID ---- */

static void virtio_blk_get_id(VirtIOBlockReq *r, const struct iovec *iov,
                              unsigned niov)
{
    /* Not terminated if it takes all of the 20 bytes (5.2.6). */
    iov_from_buf(iov, niov, 0, r->q->s->serial, VIRTIO_BLK_ID_BYTES);
    virtio_blk_finish(r, VIRTIO_BLK_S_OK);
}

/* ---- Any request ---- */

/* Copy the header and take it off the list of what is readable. */
static bool virtio_blk_take_header(VirtQueueElement *elem,
                                   struct iovec **out, unsigned *out_num,
                                   struct virtio_blk_outhdr *hdr)
{
    *out = elem->iov;
    *out_num = elem->out_num;
    if (unlikely(elem->out_bytes < sizeof(*hdr))) {
        return false;
    }
    iov_to_buf(*out, *out_num, 0, hdr, sizeof(*hdr));
    if (likely((*out)->iov_len == sizeof(*hdr))) {
        (*out)++;
        (*out_num)--;
    } else {
        iov_discard_front(out, out_num, sizeof(*hdr));
    }
    return true;
}

/* Take the status byte off what is writable. */
static bool virtio_blk_take_status(VirtIOBlockReq *r, unsigned *in_num)
{
    VirtQueueElement *elem = &r->elem;
    struct iovec *last;

    if (unlikely(elem->in_num == 0)) {
        return false;
    }
    last = &elem->iov[elem->out_num + elem->in_num - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    *in_num = elem->in_num;
    r->trimmed = NULL;
    if (likely(last->iov_len == 1)) {
        *in_num -= 1;
    } else {
        last->iov_len--;
        r->trimmed = last;
    }
    return true;
}

void virtio_blk_prefetch_request(const VirtIOBlockReq *r)
{
    const VirtQueueElement *elem = &r->elem;
    const struct iovec *last;

    __builtin_prefetch(elem->iov[0].iov_base);
    if (likely(elem->in_num)) {
        last = &elem->iov[elem->out_num + elem->in_num - 1];
        prefetch_write((char *)last->iov_base + last->iov_len - 1);
    }
}

void virtio_blk_handle_request(VirtIOBlockReq *r)
{
    VirtQueueElement *elem = &r->elem;
    struct iovec *in = elem->iov + elem->out_num;
    struct virtio_blk_outhdr hdr;
    unsigned out_num, in_num;
    struct iovec *out;
    size_t in_bytes;
    uint32_t type;

    if (!virtio_blk_take_header(elem, &out, &out_num, &hdr) ||
        !virtio_blk_take_status(r, &in_num)) {
        virtqueue_set_broken(r->q->vq, "a request of %zu + %zu bytes",
                             elem->out_bytes, elem->in_bytes);
        virtio_blk_queue_put(r);
        return;
    }
    in_bytes = elem->in_bytes - 1;
    r->written = 1;

    type = GUINT32_FROM_LE(hdr.type);
    if (type != VIRTIO_BLK_T_IN && type != VIRTIO_BLK_T_OUT) {
        virtio_blk_merge_submit(r->q);
    }
    switch (type) {
    case VIRTIO_BLK_T_IN:
        r->written = elem->in_bytes;
        virtio_blk_rw(r, BDRV_REQ_READ, GUINT64_FROM_LE(hdr.sector), in,
                      in_num, in_bytes);
        break;
    case VIRTIO_BLK_T_OUT:
        virtio_blk_rw(r, BDRV_REQ_WRITE, GUINT64_FROM_LE(hdr.sector), out,
                      out_num, elem->out_bytes - sizeof(hdr));
        break;
    case VIRTIO_BLK_T_FLUSH:
        virtio_blk_flush(r);
        break;
    case VIRTIO_BLK_T_GET_ID:
        r->written = 1 + MIN(in_bytes, VIRTIO_BLK_ID_BYTES);
        virtio_blk_get_id(r, in, in_num);
        break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        virtio_blk_ranges(r, type == VIRTIO_BLK_T_DISCARD, out, out_num,
                          elem->out_bytes - sizeof(hdr));
        break;
    default:
        virtio_blk_finish(r, VIRTIO_BLK_S_UNSUPP);
    }
}
