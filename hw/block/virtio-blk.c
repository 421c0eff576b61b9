/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The virtio-blk device: what a transport and the backend see of it.
 *
 * Draining detaches the kick handlers.  Stopping a queue does so, too, and then
 * waits, in the thread that stops it, for a condition variable that the
 * queue's thread signals when the last request is done.  All that both change
 * belongs to the queue's thread and is changed there (aio_run_sync()), so it
 * does not matter that they are called by different threads.
 */
#include "qemu/osdep.h"
#include "virtio-blk-internal.h"
#include <sys/mman.h>

/* ---- Start and stop ---- */

typedef struct VirtIOBlockStart {
    VirtIOBlockQueue *q;
    VirtQueue *vq;
} VirtIOBlockStart;

static void virtio_blk_queue_start_bh(void *opaque)
{
    VirtIOBlockStart *start = opaque;

    start->q->vq = start->vq;
    virtio_blk_queue_attach(start->q);
}

/*
 * Requests and the memory that their longest chains need.  The latter is
 * reserved, not used: pages come into being for those that are long.
 */
static bool virtio_blk_queue_alloc(VirtIOBlockQueue *q, unsigned num,
                                   unsigned max_iov)
{
    size_t iov_size = max_iov * sizeof(struct iovec);
    size_t stride = iov_size +
                    VIRTIO_BLK_MAX_RANGES * sizeof(VirtIOBlockRange);
    uint8_t *arena;

    q->max_iov = max_iov;
    q->arena_size = num * stride;
    arena = mmap(NULL, q->arena_size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) {
        return false;
    }
    q->arena = arena;
    q->reqs = g_new0(VirtIOBlockReq, num);
    q->free_reqs = NULL;
    for (unsigned i = num; i-- > 0; ) {
        VirtIOBlockReq *r = &q->reqs[i];

        r->q = q;
        r->elem.big = (struct iovec *)(arena + i * stride);
        r->ranges = (VirtIOBlockRange *)(arena + i * stride + iov_size);
        r->next_free = q->free_reqs;
        q->free_reqs = r;
    }
    return true;
}

static bool virtio_blk_queue_start(VirtIODevice *dev, unsigned index,
                                   VirtQueue *vq)
{
    VirtIOBlock *s = container_of(dev, VirtIOBlock, dev);
    VirtIOBlockQueue *q = &s->queues[index];
    VirtIOBlockStart start = { q, vq };

    assert(!q->running);
    if (!virtio_blk_queue_alloc(q, vq->num, virtqueue_max_iov(vq))) {
        return false;
    }
    leaf_lock(&q->lock);
    q->stopped = false;
    leaf_unlock(&q->lock);
    q->running = true;
    aio_run_sync(q->ctx, virtio_blk_queue_start_bh, &start);
    return true;
}

void virtio_blk_queue_check_stopped(VirtIOBlockQueue *q)
{
    if (q->in_flight || !q->stopping) {
        return;
    }
    aio_defer_cancel(&q->deferred);
    q->vq = NULL;
    q->stopping = false;
    leaf_lock(&q->lock);
    q->stopped = true;
    qemu_cond_signal(&q->stopped_cond);
    leaf_unlock(&q->lock);
}

static void virtio_blk_queue_stop_bh(void *opaque)
{
    VirtIOBlockQueue *q = opaque;

    q->stopping = true;
    virtio_blk_queue_detach(q);
    virtio_blk_queue_publish(q);
    virtio_blk_queue_check_stopped(q);
}

static void virtio_blk_queue_stop(VirtIODevice *dev, unsigned index)
{
    VirtIOBlock *s = container_of(dev, VirtIOBlock, dev);
    VirtIOBlockQueue *q = &s->queues[index];

    if (!q->running) {
        return;
    }
    aio_run_sync(q->ctx, virtio_blk_queue_stop_bh, q);
    leaf_lock(&q->lock);
    while (!q->stopped) {
        leaf_wait(&q->stopped_cond, &q->lock);
    }
    leaf_unlock(&q->lock);

    q->running = false;
    g_free(q->reqs);
    q->reqs = q->free_reqs = NULL;
    munmap(q->arena, q->arena_size);
}

static void virtio_blk_queue_run(VirtIODevice *dev, unsigned index,
                                 void (*fn)(void *opaque), void *opaque)
{
    VirtIOBlock *s = container_of(dev, VirtIOBlock, dev);

    aio_run_sync(s->queues[index].ctx, fn, opaque);
}

/* ---- The guest's memory, if it is to be registered ---- */

static void virtio_blk_memory_add(VirtIODevice *dev, void *host, size_t size)
{
    VirtIOBlock *s = container_of(dev, VirtIOBlock, dev);

    if (s->rw_flags & BDRV_REQ_REGISTERED_BUF) {
        bdrv_register_buf(host, size);
    }
}

static void virtio_blk_memory_del(VirtIODevice *dev, void *host, size_t size)
{
    VirtIOBlock *s = container_of(dev, VirtIOBlock, dev);

    if (s->rw_flags & BDRV_REQ_REGISTERED_BUF) {
        bdrv_unregister_buf(host, size);
    }
}

/* ---- What the backend tells us, on the control thread ---- */

static void virtio_blk_queue_drain_bh(void *opaque)
{
    VirtIOBlockQueue *q = opaque;

    q->drained++;
    virtio_blk_queue_detach(q);
}

static void virtio_blk_queue_undrain_bh(void *opaque)
{
    VirtIOBlockQueue *q = opaque;

    q->drained--;
    virtio_blk_queue_attach(q);
}

static void virtio_blk_for_queues(VirtIOBlock *s, QEMUBHFunc *fn)
{
    for (unsigned i = 0; i < s->dev.num_queues; i++) {
        aio_run_sync(s->queues[i].ctx, fn, &s->queues[i]);
    }
}

static void virtio_blk_drained_begin(void *opaque)
{
    virtio_blk_for_queues(opaque, virtio_blk_queue_drain_bh);
}

static void virtio_blk_drained_end(void *opaque)
{
    virtio_blk_for_queues(opaque, virtio_blk_queue_undrain_bh);
}

static void virtio_blk_resize(void *opaque)
{
    VirtIOBlock *s = opaque;

    s->resized(s->resized_opaque);
}

static const BlockDevOps virtio_blk_dev_ops = {
    .drained_begin = virtio_blk_drained_begin,
    .drained_end = virtio_blk_drained_end,
    .resize_cb = virtio_blk_resize,
};

/* ---- The device ---- */

static const VirtIODeviceOps virtio_blk_ops = {
    .get_features = virtio_blk_get_features,
    .set_features = virtio_blk_set_features,
    .get_config = virtio_blk_get_config,
    .set_config = virtio_blk_set_config,
    .queue_start = virtio_blk_queue_start,
    .queue_stop = virtio_blk_queue_stop,
    .queue_run = virtio_blk_queue_run,
    .memory_add = virtio_blk_memory_add,
    .memory_del = virtio_blk_memory_del,
};

static void virtio_blk_queue_init(VirtIOBlock *s, unsigned index,
                                  AioContext *ctx)
{
    VirtIOBlockQueue *q = &s->queues[index];

    q->s = s;
    q->index = index;
    q->ctx = aio_context_ref(ctx);
    virtio_blk_queue_init_handlers(q);
    leaf_init(&q->lock);
    qemu_cond_init(&q->stopped_cond);
}

VirtIOBlock *virtio_blk_new(const VirtIOBlockConf *conf,
                            void (*resized)(void *opaque), void *opaque)
{
    VirtIOBlock *s = g_new0(VirtIOBlock, 1);

    s->blk = conf->blk;
    s->name = g_strdup(conf->name);
    s->writable = conf->writable;
    s->block_size = conf->logical_block_size;
    s->queue_size = conf->queue_size;
    s->request_merging = conf->request_merging;
    s->rw_flags = conf->register_buffers ? BDRV_REQ_REGISTERED_BUF : 0;
    s->initial_write_cache = blk_enable_write_cache(s->blk);
    s->resized = resized;
    s->resized_opaque = opaque;
    g_strlcpy(s->serial, conf->serial ? conf->serial : "vhost_user_blk",
              sizeof(s->serial));
    s->dev.ops = &virtio_blk_ops;
    s->dev.name = s->name;
    s->dev.num_queues = conf->num_queues;
    s->dev.max_queue_size = conf->queue_size ? conf->queue_size :
                                               VIRTQUEUE_MAX_SIZE;
    s->queues = g_new0(VirtIOBlockQueue, conf->num_queues);
    for (unsigned i = 0; i < conf->num_queues; i++) {
        virtio_blk_queue_init(s, i, conf->contexts[i % conf->n_contexts]);
    }
    blk_set_user_block_size(s->blk, s->block_size);
    blk_set_dev_ops(s->blk, &virtio_blk_dev_ops, s);
    return s;
}

void virtio_blk_free(VirtIOBlock *s)
{
    blk_set_dev_ops(s->blk, NULL, NULL);
    for (unsigned i = 0; i < s->dev.num_queues; i++) {
        VirtIOBlockQueue *q = &s->queues[i];

        assert(!q->running);
        qemu_cond_destroy(&q->stopped_cond);
        leaf_destroy(&q->lock);
        aio_context_unref(q->ctx);
    }
    g_free(s->queues);
    g_free(s->name);
    g_free(s);
}

VirtIODevice *virtio_blk_device(VirtIOBlock *s)
{
    return &s->dev;
}

json_t *virtio_blk_query_stats(VirtIOBlock *s)
{
    json_int_t kicks = 0, batches = 0, requests = 0, errors = 0, irqs = 0;
    json_int_t merged = 0;
    BlkPathStats path;

    for (unsigned i = 0; i < s->dev.num_queues; i++) {
        VirtIOBlockQueue *q = &s->queues[i];

        kicks += qatomic_read(&q->kicks);
        batches += qatomic_read(&q->batches);
        requests += qatomic_read(&q->requests);
        errors += qatomic_read(&q->errors);
        irqs += qatomic_read(&q->interrupts);
        merged += qatomic_read(&q->merged);
    }
    blk_get_path_stats(s->blk, &path);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
                     "s:I}",
                     "requests", requests, "errors", errors, "kicks", kicks,
                     "batches", batches, "interrupts", irqs,
                     "merged", merged,
                     "inline", (json_int_t)path.inline_done,
                     "submitted", (json_int_t)path.submitted,
                     "worker", (json_int_t)path.worker,
                     "parked", (json_int_t)path.parked,
                     "registered", (json_int_t)path.registered);
}
