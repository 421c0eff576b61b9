/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-blk: a running queue, in the thread of its AioContext.
 *
 * The kick of the guest is an event notifier's handler.  One turn of it:
 *
 *   kick ──▶ pop all there is, submit each ──▶ (deferred) end of iteration
 *                 ▲                                 │
 *                 │            publish what completed, interrupt once
 *                 │                                 │
 *                 └── more to pop ◀── look again ◀──┘
 *                                        │ no
 *                          ask for kicks, look once more, sleep
 *
 * While the turn goes round, the guest is told that it need not kick.  Every
 * completion brings another turn, so requests that come meanwhile wait for
 * neither a kick nor an interrupt.
 *
 * A turn is bounded: no more can be popped than the ring holds before what is
 * done, some of it at once, has been published.
 */
#include "qemu/osdep.h"
#include "virtio-blk-internal.h"

/* How often a queue is looked at whose driver does not kick. */
#define NO_KICK_POLL_NS (100 * 1000)

/*
 * Popped before the first of them is handled, so that the waits for what the
 * guest wrote overlap.
 */
#define POP_BATCH 16

/* ---- Turns ---- */

static VirtIOBlockReq *virtio_blk_queue_get(VirtIOBlockQueue *q)
{
    VirtIOBlockReq *r = q->free_reqs;

    q->free_reqs = r->next_free;
    q->in_flight++;
    return r;
}

static void virtio_blk_queue_free_req(VirtIOBlockReq *r)
{
    r->next_free = r->q->free_reqs;
    r->q->free_reqs = r;
    r->q->in_flight--;
}

void virtio_blk_queue_put(VirtIOBlockReq *r)
{
    virtio_blk_queue_free_req(r);
    aio_defer(r->q->ctx, &r->q->deferred);
}

/* Pop up to @max requests; how many. */
static unsigned virtio_blk_queue_pop(VirtIOBlockQueue *q,
                                     VirtIOBlockReq **reqs, unsigned max)
{
    unsigned n = 0;

    while (n < max && q->free_reqs) {
        VirtIOBlockReq *r = virtio_blk_queue_get(q);

        if (virtqueue_pop(q->vq, &r->elem) <= 0) {
            virtio_blk_queue_free_req(r);
            break;
        }
        virtio_blk_prefetch_request(r);
        reqs[n++] = r;
    }
    return n;
}

/* Pop and submit all there is; true if there was anything. */
static bool virtio_blk_queue_pop_all(VirtIOBlockQueue *q)
{
    VirtIOBlockReq *reqs[POP_BATCH];
    unsigned n, total = 0;

    do {
        n = virtio_blk_queue_pop(q, reqs, POP_BATCH);
        for (unsigned i = 0; i < n; i++) {
            virtio_blk_handle_request(reqs[i]);
        }
        total += n;
    } while (n == POP_BATCH);
    virtio_blk_merge_submit(q);
    if (total) {
        virtio_blk_count(&q->batches);
        qatomic_set(&q->requests, q->requests + total);
    }
    return total > 0;
}

void virtio_blk_queue_publish(VirtIOBlockQueue *q)
{
    if (virtqueue_flush(q->vq)) {
        virtqueue_notify(q->vq);
        virtio_blk_count(&q->interrupts);
    }
}

/* The end of an iteration in which something was popped or completed. */
static void virtio_blk_queue_deferred(AioDeferred *d)
{
    VirtIOBlockQueue *q = container_of(d, VirtIOBlockQueue, deferred);

    virtio_blk_queue_publish(q);
    if (!q->attached) {
        virtio_blk_queue_check_stopped(q);
        return;
    }
    do {
        if (virtio_blk_queue_pop_all(q)) {
            aio_defer(q->ctx, &q->deferred);    /* another round */
            return;
        }
        /* Out of requests: the completion of one brings us back here. */
    } while (q->free_reqs && !q->polling &&
             virtqueue_enable_notification(q->vq));
}

static void virtio_blk_queue_kick(void *opaque)
{
    VirtIOBlockQueue *q = opaque;

    virtio_blk_count(&q->kicks);
    virtqueue_disable_notification(q->vq);
    virtio_blk_queue_pop_all(q);
    aio_defer(q->ctx, &q->deferred);
}

static bool virtio_blk_queue_poll(void *opaque)
{
    VirtIOBlockQueue *q = opaque;

    return q->free_reqs && virtqueue_has_work(q->vq);
}

static void virtio_blk_queue_poll_begin(void *opaque)
{
    VirtIOBlockQueue *q = opaque;

    q->polling = true;
    virtqueue_disable_notification(q->vq);
}

static void virtio_blk_queue_poll_end(void *opaque)
{
    VirtIOBlockQueue *q = opaque;

    q->polling = false;
    virtqueue_enable_notification(q->vq);
}

static const AioHandlerOps virtio_blk_kick_ops = {
    .read = virtio_blk_queue_kick,
    .poll = virtio_blk_queue_poll,
    .poll_begin = virtio_blk_queue_poll_begin,
    .poll_end = virtio_blk_queue_poll_end,
};

static void virtio_blk_queue_timer(void *opaque)
{
    VirtIOBlockQueue *q = opaque;

    aio_defer(q->ctx, &q->deferred);
    timer_mod_ns(&q->poll_timer, qemu_clock_ns() + NO_KICK_POLL_NS);
}

/* ---- Listening to the kick, in the queue's thread ---- */

void virtio_blk_queue_attach(VirtIOBlockQueue *q)
{
    if (!q->vq || q->stopping || q->drained || q->attached) {
        return;
    }
    q->attached = true;
    if (q->vq->kick) {
        aio_set_event_notifier(q->ctx, q->vq->kick, &virtio_blk_kick_ops, q);
    } else {
        timer_mod_ns(&q->poll_timer, qemu_clock_ns() + NO_KICK_POLL_NS);
    }
    /* A kick may have been missed. */
    aio_defer(q->ctx, &q->deferred);
}

void virtio_blk_queue_detach(VirtIOBlockQueue *q)
{
    if (!q->attached) {
        return;
    }
    q->attached = false;
    if (q->vq->kick) {
        aio_set_event_notifier(q->ctx, q->vq->kick, NULL, NULL);
    } else {
        timer_del(&q->poll_timer);
    }
}

void virtio_blk_queue_init_handlers(VirtIOBlockQueue *q)
{
    aio_deferred_init(&q->deferred, virtio_blk_queue_deferred);
    timer_init_ns(&q->poll_timer, q->ctx, virtio_blk_queue_timer, q);
}
