/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A BlockBackend for tests: see the header.
 *
 * Requests are carried out when they complete, in the submitting thread, so a
 * held one has no effect yet.
 */
#include "qemu/osdep.h"
#include "fake-blk.h"
#include "qemu/atomic.h"
#include <sys/mman.h>

#define WAIT_NS (10 * INT64_C(1000000000))

struct BlockBackend {
    uint8_t *data;
    int64_t mapped;
    int64_t length;             /* atomic */
    int error;                  /* atomic */
    int64_t bad_offset, bad_bytes;      /* atomic */
    int64_t max_transfer;       /* atomic, as the next three */
    int64_t mapping_unit;
    int max_iov;
    bool detects_zeroes;
    bool write_cache;           /* atomic */
    const BlockDevOps *ops;
    void *opaque;
    unsigned counts[BDRV_REQ_TRUNCATE + 1];     /* atomic */
    int last_flags;             /* atomic */

    LeafLock lock;
    QemuCond cond;
    bool hold GUARDED_BY(leaf_class);
    unsigned n_held GUARDED_BY(leaf_class);
    List held GUARDED_BY(leaf_class);   /* of req->parked_node */
};

BlockBackend *fake_blk_new(int64_t length)
{
    BlockBackend *blk = g_new0(BlockBackend, 1);

    blk->length = blk->mapped = length;
    blk->write_cache = true;
    blk->max_iov = IOV_MAX;
    blk->data = mmap(NULL, length, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g_assert(blk->data != MAP_FAILED);
    leaf_init(&blk->lock);
    qemu_cond_init(&blk->cond);
    leaf_lock(&blk->lock);
    list_init(&blk->held);
    leaf_unlock(&blk->lock);
    return blk;
}

void fake_blk_free(BlockBackend *blk)
{
    qemu_cond_destroy(&blk->cond);
    leaf_destroy(&blk->lock);
    munmap(blk->data, blk->mapped);
    g_free(blk);
}

void fake_blk_get(BlockBackend *blk, int64_t offset, void *buf, size_t len)
{
    leaf_lock(&blk->lock);
    memcpy(buf, blk->data + offset, len);
    leaf_unlock(&blk->lock);
}

void fake_blk_put(BlockBackend *blk, int64_t offset, const void *buf,
                  size_t len)
{
    leaf_lock(&blk->lock);
    memcpy(blk->data + offset, buf, len);
    leaf_unlock(&blk->lock);
}

void fake_blk_set_error(BlockBackend *blk, int error)
{
    qatomic_set(&blk->error, error);
}

void fake_blk_set_bad(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    qatomic_set(&blk->bad_offset, offset);
    qatomic_set(&blk->bad_bytes, bytes);
}

void fake_blk_set_max_transfer(BlockBackend *blk, int64_t bytes)
{
    qatomic_set(&blk->max_transfer, bytes);
}

void fake_blk_set_mapping_unit(BlockBackend *blk, int64_t bytes)
{
    qatomic_set(&blk->mapping_unit, bytes);
}

void fake_blk_set_max_iov(BlockBackend *blk, int entries)
{
    qatomic_set(&blk->max_iov, entries);
}

void fake_blk_set_detects_zeroes(BlockBackend *blk, bool detects)
{
    qatomic_set(&blk->detects_zeroes, detects);
}

unsigned fake_blk_count(BlockBackend *blk, BdrvRequestType type)
{
    return qatomic_read(&blk->counts[type]);
}

int fake_blk_last_flags(BlockBackend *blk)
{
    return qatomic_read(&blk->last_flags);
}

/* ---- Buffers ---- */

static unsigned registered_bufs;    /* atomic */

static void check_is_mapped(const void *host, size_t size)
{
    const size_t page = getpagesize();
    uintptr_t start = ROUND_DOWN((uintptr_t)host, page);
    size_t len = ROUND_UP((uintptr_t)host + size, page) - start;
    g_autofree unsigned char *vec = g_malloc(len / page);

    g_assert_cmpint(mincore((void *)start, len, vec), ==, 0);
}

void bdrv_register_buf(void *host, size_t size)
{
    check_is_mapped(host, size);
    qatomic_inc(&registered_bufs);
}

void bdrv_unregister_buf(void *host, size_t size)
{
    check_is_mapped(host, size);
    g_assert_cmpuint(qatomic_fetch_dec(&registered_bufs), >, 0);
}

unsigned fake_registered_bufs(void)
{
    return qatomic_read(&registered_bufs);
}

/* ---- Requests ---- */

static bool touches_bad(BlockBackend *blk, const BdrvTrackedRequest *req)
{
    int64_t offset = qatomic_read(&blk->bad_offset);
    int64_t bytes = qatomic_read(&blk->bad_bytes);

    return req->offset < offset + bytes && offset < req->offset + req->bytes;
}

static int fake_blk_do(BlockBackend *blk, BdrvTrackedRequest *req)
{
    int error = qatomic_read(&blk->error);

    if (error) {
        return error;
    }
    if (touches_bad(blk, req)) {
        return -EIO;
    }
    switch (req->type) {
    case BDRV_REQ_READ:
        qemu_iovec_from_buf(req->qiov, req->qiov_offset,
                            blk->data + req->offset, req->bytes);
        break;
    case BDRV_REQ_WRITE:
        qemu_iovec_to_buf(req->qiov, req->qiov_offset,
                          blk->data + req->offset, req->bytes);
        break;
    case BDRV_REQ_WRITE_ZEROES:
    case BDRV_REQ_DISCARD:
        memset(blk->data + req->offset, 0, req->bytes);
        break;
    default:
        break;
    }
    return 0;
}

static void fake_blk_complete(AioWork *work)
{
    BdrvTrackedRequest *req = container_of(work, BdrvTrackedRequest,
                                           completion);

    leaf_lock(&req->blk->lock);
    req->ret = fake_blk_do(req->blk, req);
    leaf_unlock(&req->blk->lock);
    req->cb(req);
}

void blk_aio_submit(BlockBackend *blk, BdrvTrackedRequest *req)
{
    bool held;

    req->blk = blk;
    req->ctx = aio_context_current();
    req->completion.fn = fake_blk_complete;
    qatomic_inc(&blk->counts[req->type]);
    qatomic_set(&blk->last_flags, req->flags);
    leaf_lock(&blk->lock);
    held = blk->hold;
    if (held) {
        list_push_back(&blk->held, &req->parked_node);
        blk->n_held++;
        qemu_cond_broadcast(&blk->cond);
    }
    leaf_unlock(&blk->lock);
    if (!held) {
        aio_schedule(req->ctx, &req->completion);
    }
}

void fake_blk_hold(BlockBackend *blk, bool hold)
{
    BdrvTrackedRequest *req;
    List ready;

    list_init(&ready);
    leaf_lock(&blk->lock);
    blk->hold = hold;
    if (!hold) {
        list_splice_back(&ready, &blk->held);
        blk->n_held = 0;
    }
    leaf_unlock(&blk->lock);
    while ((req = list_pop_front(&ready, BdrvTrackedRequest, parked_node))) {
        aio_schedule(req->ctx, &req->completion);
    }
}

void fake_blk_wait_held(BlockBackend *blk, unsigned n)
{
    leaf_lock(&blk->lock);
    while (blk->n_held < n) {
        g_assert(leaf_timedwait(&blk->cond, &blk->lock, WAIT_NS));
    }
    leaf_unlock(&blk->lock);
}

BdrvRequestType fake_blk_held_type(BlockBackend *blk, unsigned n)
{
    BdrvRequestType type = BDRV_REQ_TRUNCATE;
    BdrvTrackedRequest *req;

    leaf_lock(&blk->lock);
    list_for_each(req, &blk->held, parked_node) {
        if (n-- == 0) {
            type = req->type;
            break;
        }
    }
    leaf_unlock(&blk->lock);
    return type;
}

/* ---- What the device calls and is called by ---- */

void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque)
{
    blk->ops = ops;
    blk->opaque = opaque;
}

void fake_blk_drain_begin(BlockBackend *blk)
{
    blk->ops->drained_begin(blk->opaque);
}

void fake_blk_drain_end(BlockBackend *blk)
{
    blk->ops->drained_end(blk->opaque);
}

void fake_blk_resize(BlockBackend *blk, int64_t length)
{
    g_assert(length <= blk->mapped);
    qatomic_set(&blk->length, length);
    blk->ops->resize_cb(blk->opaque);
}

int64_t blk_get_max_transfer(BlockBackend *blk)
{
    return qatomic_read(&blk->max_transfer);
}

int64_t blk_get_mapping_unit(BlockBackend *blk)
{
    return qatomic_read(&blk->mapping_unit);
}

int blk_get_max_iov(BlockBackend *blk)
{
    return qatomic_read(&blk->max_iov);
}

bool blk_detects_zeroes(BlockBackend *blk)
{
    return qatomic_read(&blk->detects_zeroes);
}

int blk_flush(BlockBackend *blk)
{
    qatomic_inc(&blk->counts[BDRV_REQ_FLUSH]);
    return qatomic_read(&blk->error);
}

int64_t blk_getlength(BlockBackend *blk)
{
    return qatomic_read(&blk->length);
}

void blk_set_user_block_size(BlockBackend *blk, int bytes)
{
}

void blk_set_enable_write_cache(BlockBackend *blk, bool enable)
{
    qatomic_set(&blk->write_cache, enable);
}

bool blk_enable_write_cache(const BlockBackend *blk)
{
    return qatomic_read(&blk->write_cache);
}

void blk_get_block_sizes(BlockBackend *blk, uint32_t *logical,
                         uint32_t *physical)
{
    *logical = 512;
    *physical = 4096;
}

void blk_get_path_stats(BlockBackend *blk, BlkPathStats *stats)
{
    memset(stats, 0, sizeof(*stats));
}
