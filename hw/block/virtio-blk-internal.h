/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the virtio-blk device, for each other.
 *
 * Who touches what: a VirtIOBlockQueue belongs to the thread of its context
 * (q->ctx), all of it, except for the fields that say otherwise.  Others reach
 * it by aio_run_sync().  So neither the request path nor starting, stopping
 * and draining need a lock.
 */
#ifndef HW_BLOCK_VIRTIO_BLK_INTERNAL_H
#define HW_BLOCK_VIRTIO_BLK_INTERNAL_H

#include "block/lock-order.h"
#include "hw/virtio/virtio-blk.h"
#include <linux/virtio_blk.h>

/* Limits that the driver is told, in sectors and ranges a request. */
#define VIRTIO_BLK_MAX_RANGE_SECTORS 32768
#define VIRTIO_BLK_MAX_RANGES        32
#define VIRTIO_BLK_SEG_MAX           126

typedef struct VirtIOBlockQueue VirtIOBlockQueue;

typedef struct VirtIOBlockRange {
    int64_t offset;
    int64_t bytes;
    int flags;
} VirtIOBlockRange;

typedef struct VirtIOBlockReq VirtIOBlockReq;
struct VirtIOBlockReq {
    VirtIOBlockQueue *q;            /* constant */
    VirtIOBlockReq *next_free;
    uint8_t *status;                /* in guest memory */
    struct iovec *trimmed;          /* lacks the status byte at its end */
    uint32_t written;               /* what the used ring says, in the end */
    uint16_t n_ranges;              /* discard and write zeroes */
    uint16_t next_range;
    VirtIOBlockRange *ranges;       /* room for the maximum; constant */
    VirtQueueElement elem;
    QEMUIOVector qiov;
    VirtIOBlockReq *merged_next;    /* virtio-blk-merge.c, as is the next */
    QEMUIOVector merged_qiov;
    BdrvTrackedRequest req;
};

struct VirtIOBlockQueue {
    VirtIOBlock *s;                 /* constant, as the next two */
    AioContext *ctx;
    unsigned index;

    VirtQueue *vq;                  /* NULL: not running */
    VirtIOBlockReq *free_reqs;
    VirtIOBlockReq *pending;        /* may be merged with what comes next … */
    VirtIOBlockReq *pending_last;   /* … as these were */
    unsigned in_flight;             /* popped, not pushed */
    int drained;                    /* how many times */
    bool attached;                  /* the kick is listened to */
    bool polling;                   /* between poll_begin and poll_end */
    bool stopping;                  /* somebody waits for "stopped" */
    AioDeferred deferred;
    QEMUTimer poll_timer;           /* of a queue without kick */

    /* The transport's thread: made before the queue runs, freed after. */
    bool running;
    VirtIOBlockReq *reqs;
    void *arena;
    size_t arena_size;
    unsigned max_iov;               /* room in each element's big list */

    /* What virtio_blk_queue_stop() waits for. */
    LeafLock lock;
    QemuCond stopped_cond;
    bool stopped GUARDED_BY(leaf_class);

    /* Counters: atomic, written by the queue's thread. */
    uint64_t kicks;
    uint64_t batches;
    uint64_t requests;
    uint64_t errors;
    uint64_t interrupts;
    uint64_t merged;                /* were added to another request */
};

struct VirtIOBlock {
    VirtIODevice dev;
    BlockBackend *blk;              /* the rest is constant, too */
    char *name;
    char serial[VIRTIO_BLK_ID_BYTES + 1];
    bool writable;
    bool initial_write_cache;
    bool wants_writethrough;        /* front end's thread: said a driver */
    uint32_t block_size;
    uint16_t queue_size;            /* 0: not limited */
    int rw_flags;                   /* of all reads and writes */
    bool request_merging;
    void (*resized)(void *opaque);
    void *resized_opaque;
    VirtIOBlockQueue *queues;
};

/* ---- virtio-blk-config.c ---- */
uint64_t virtio_blk_get_features(VirtIODevice *dev);
void virtio_blk_set_features(VirtIODevice *dev, uint64_t features);
void virtio_blk_get_config(VirtIODevice *dev, uint8_t *config, size_t len);
int virtio_blk_set_config(VirtIODevice *dev, size_t offset,
                          const uint8_t *data, size_t len);

/* ---- virtio-blk-request.c ---- */
/* Fetch what virtio_blk_handle_request() will want from guest memory. */
void virtio_blk_prefetch_request(const VirtIOBlockReq *r);
/* Do the request whose element was popped; it is back on the free list, in
 * the end, by virtio_blk_queue_put(). */
void virtio_blk_handle_request(VirtIOBlockReq *r);
/* A read or write has ended: the callback of its request. */
void virtio_blk_rw_done(BdrvTrackedRequest *req);

/* ---- virtio-blk-merge.c: in the queue's thread ---- */
/* Submit a read or write, now or with those that follow it. */
void virtio_blk_merge_add(VirtIOBlockReq *r);
/* Nothing follows: submit what waits for that. */
void virtio_blk_merge_submit(VirtIOBlockQueue *q);

/* ---- virtio-blk-queue.c: all in the queue's thread, but the first ---- */
void virtio_blk_queue_init_handlers(VirtIOBlockQueue *q);
/* Listen to the kick, unless there is a reason not to; or do not. */
void virtio_blk_queue_attach(VirtIOBlockQueue *q);
void virtio_blk_queue_detach(VirtIOBlockQueue *q);
/* Publish what was pushed, and interrupt the guest if it wants that. */
void virtio_blk_queue_publish(VirtIOBlockQueue *q);
/* @r is done: it was pushed, or the queue is broken. */
void virtio_blk_queue_put(VirtIOBlockReq *r);

/* ---- virtio-blk.c ---- */
/* Detached: tell the thread that stops us, if there is nothing left to do. */
void virtio_blk_queue_check_stopped(VirtIOBlockQueue *q);

static inline void virtio_blk_count(uint64_t *counter)
{
    qatomic_set(counter, *counter + 1);   /* one writer */
}

#endif
