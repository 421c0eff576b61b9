/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-blk: requests that follow each other on the disk, made one.
 *
 * Who streams often asks in small pieces, many of which come with one kick.
 * Each would cost a system call, or a worker; and of those that qcow2 has to
 * allocate one cluster for, one allocates and the others wait.  So the last
 * request of a kick is *pending* until the next one is known:
 *
 *   the next continues it      it becomes longer: a list of requests, of which
 *                              the first (the head) is submitted for all
 *   it does not, or is none    it is submitted
 *
 * Only neighbours in the ring are compared, which costs next to nothing where
 * there is nothing to merge, and keeps the order.
 *
 * The merged list of buffers is where the head's own would be if its chain was
 * a long one, so nothing is allocated; a head with a long chain stays as it is.
 * If a merged request fails, each one is done again on its own: the driver is
 * told what happened to which, and a bad sector costs it no others.
 */
#include "qemu/osdep.h"
#include "virtio-blk-internal.h"

/* More than that gains little, and is better served by several threads. */
#define MAX_MERGED_BYTES (256 * KiB)
/* One that takes a worker, being in two places, is still cheaper than many. */
#define MIN_UNIT (64 * KiB)

void virtio_blk_merge_submit(VirtIOBlockQueue *q)
{
    VirtIOBlockReq *head = q->pending;

    if (head) {
        q->pending = NULL;
        blk_aio_submit(q->s->blk, &head->req);
    }
}

/* ---- One request for many ---- */

static void end_all(VirtIOBlockReq *head)
{
    VirtIOBlockReq *next;

    for (VirtIOBlockReq *r = head; r; r = next) {
        next = r->merged_next;
        r->req.ret = head->req.ret;
        virtio_blk_rw_done(&r->req);
    }
}

/* Each as it came. */
static void retry_each(VirtIOBlockReq *head)
{
    VirtIOBlock *s = head->q->s;
    VirtIOBlockReq *next;

    head->req.flags = s->rw_flags;
    head->req.bytes = head->qiov.size;
    head->req.qiov = &head->qiov;
    head->req.cb = virtio_blk_rw_done;
    for (VirtIOBlockReq *r = head; r; r = next) {
        next = r->merged_next;
        blk_aio_submit(s->blk, &r->req);
    }
}

static void merged_done(BdrvTrackedRequest *req)
{
    VirtIOBlockReq *head = container_of(req, VirtIOBlockReq, req);

    if (likely(req->ret >= 0)) {
        end_all(head);
    } else {
        retry_each(head);
    }
}

/* ---- Joining ---- */

static int max_iov(const VirtIOBlockQueue *q)
{
    int max = blk_get_max_iov(q->s->blk);

    return MIN(max, (int)q->max_iov);
}

static int64_t max_bytes(const VirtIOBlockQueue *q)
{
    int64_t max = blk_get_max_transfer(q->s->blk);

    return MIN_NON_ZERO(max, MAX_MERGED_BYTES);
}

/*
 * The fast path takes what is in one place.  Where clusters lie about, it would
 * not take what crosses from one to the next, while it does take its parts.
 */
static int64_t max_end(const VirtIOBlockReq *head)
{
    int64_t unit = blk_get_mapping_unit(head->q->s->blk);

    if (unit == 0) {
        return INT64_MAX;
    }
    unit = MAX(unit, MIN_UNIT);
    return head->req.offset / unit * unit + unit;
}

/* Zeroes that are part of more than zeroes would not be seen. */
static bool may_grow(const VirtIOBlockReq *head)
{
    return head->elem.iov != head->elem.big &&
           !(head->req.type == BDRV_REQ_WRITE &&
             blk_detects_zeroes(head->q->s->blk));
}

static bool continues(const VirtIOBlockReq *head, const VirtIOBlockReq *r)
{
    return r->req.offset == head->req.offset + head->req.bytes &&
           r->req.type == head->req.type;
}

static bool fits(const VirtIOBlockReq *head, const VirtIOBlockReq *r)
{
    return r->req.offset + r->req.bytes <= max_end(head) &&
           head->req.bytes + r->req.bytes <= max_bytes(head->q) &&
           head->req.qiov->niov + r->qiov.niov <= max_iov(head->q);
}

/* The head is to be more than itself. */
static void begin_merging(VirtIOBlockReq *head)
{
    struct iovec *iov = head->elem.big;

    memcpy(iov, head->qiov.iov, head->qiov.niov * sizeof(*iov));
    qemu_iovec_init_external(&head->merged_qiov, iov, head->qiov.niov);
    head->req.qiov = &head->merged_qiov;
    head->req.cb = merged_done;
}

/* Buffers that are neighbours as well become one. */
static void append_buffers(QEMUIOVector *to, const QEMUIOVector *from)
{
    struct iovec *last = &to->iov[to->niov - 1];

    for (int i = 0; i < from->niov; i++) {
        if ((char *)last->iov_base + last->iov_len == from->iov[i].iov_base) {
            last->iov_len += from->iov[i].iov_len;
        } else {
            *++last = from->iov[i];
        }
    }
    to->niov = last - to->iov + 1;
    to->size += from->size;
}

static void append(VirtIOBlockReq *head, VirtIOBlockReq *r)
{
    VirtIOBlockQueue *q = head->q;

    if (q->pending_last == head) {
        begin_merging(head);
    }
    append_buffers(&head->merged_qiov, &r->qiov);
    head->req.bytes += r->req.bytes;
    q->pending_last->merged_next = r;
    q->pending_last = r;
    virtio_blk_count(&q->merged);
}

void virtio_blk_merge_add(VirtIOBlockReq *r)
{
    VirtIOBlockQueue *q = r->q;

    r->merged_next = NULL;
    if (q->pending && continues(q->pending, r) && may_grow(q->pending) &&
        fits(q->pending, r)) {
        append(q->pending, r);
        return;
    }
    virtio_blk_merge_submit(q);
    q->pending = q->pending_last = r;
    if (!q->s->request_merging) {
        virtio_blk_merge_submit(q);
    }
}
