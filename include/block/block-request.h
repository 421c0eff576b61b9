/*
 * BdrvTrackedRequest: the one object that follows a request from the virtqueue
 * (or an NBD client, a job, a tool) to the kernel and back.
 *
 * Its user embeds it, or keeps it on the stack of a blocking call; the hot path
 * allocates nothing.  States, and who moves a request from one to the next:
 *
 *   IDLE ──submit──▶ ADMITTING ─┬─ gate closed, or conflict ─▶ PARKED ─┐
 *                      ▲        │                                      │
 *                      └────────│──── gate opens, conflict ends ───────┘
 *                               ├─ mapped to a node that submits ─▶ SUBMITTED
 *                               ├─ needs a thread ─▶ QUEUED ─▶ RUNNING
 *                               └─ done while mapping ────────┐
 *          SUBMITTED, RUNNING, cancelled PARKED or QUEUED ────┴─▶ COMPLETED
 *   COMPLETED ──callback returns──▶ IDLE (or freed by the callback)
 *
 * The callback is called exactly once, in the home context's thread, with no
 * lock held, never from inside the submitting call.  Between submission and
 * callback the request and all that it points at belong to the block layer.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_REQUEST_H
#define BLOCK_REQUEST_H

#include "block/aio.h"
#include "block/lock-order.h"
#include "block/thread-pool.h"
#include "qemu/iov.h"

typedef struct BlockBackend BlockBackend;
typedef struct BlockDriverState BlockDriverState;
typedef struct BdrvChild BdrvChild;
typedef struct BdrvTrackedRequest BdrvTrackedRequest;

typedef enum BdrvRequestType {
    BDRV_REQ_READ,
    BDRV_REQ_WRITE,
    BDRV_REQ_WRITE_ZEROES,
    BDRV_REQ_DISCARD,
    BDRV_REQ_FLUSH,
    BDRV_REQ_TRUNCATE,      /* tracked like a write of all that changes */
} BdrvRequestType;

typedef enum BdrvRequestFlags {
    /* The data is on stable storage when the request completes. */
    BDRV_REQ_FUA            = 1 << 0,
    /* WRITE_ZEROES may deallocate. */
    BDRV_REQ_MAY_UNMAP      = 1 << 1,
    /* WRITE_ZEROES: -ENOTSUP rather than writing buffers of zeroes. */
    BDRV_REQ_NO_FALLBACK    = 1 << 2,
    /* No other request may overlap this one while it runs. */
    BDRV_REQ_SERIALISING    = 1 << 3,
    /* Read: what this node has to get from its backing file is written to it.
     * From a node's parent, between bdrv_copy_on_read_begin() and _end(). */
    BDRV_REQ_COPY_ON_READ   = 1 << 4,
    /* Write: compress the cluster, where the format can. */
    BDRV_REQ_WRITE_COMPRESSED = 1 << 5,
    /* The buffers lie in memory that bdrv_register_buf() announced. */
    BDRV_REQ_REGISTERED_BUF = 1 << 6,
    /* Conflict with nothing: fail with -EBUSY rather than wait. */
    BDRV_REQ_NO_WAIT        = 1 << 7,
    /* With WRITE_COMPRESSED, for one unit: what is left of the I/O vector is
     * what the driver's compress() made of the data, not the data. */
    BDRV_REQ_COMPRESSED_DATA = 1 << 8,
} BdrvRequestFlags;

typedef enum BdrvRequestState {
    BDRV_REQ_STATE_IDLE,
    BDRV_REQ_STATE_ADMITTING,
    BDRV_REQ_STATE_PARKED,
    BDRV_REQ_STATE_SUBMITTED,
    BDRV_REQ_STATE_QUEUED,
    BDRV_REQ_STATE_RUNNING,
    BDRV_REQ_STATE_COMPLETED,
} BdrvRequestState;

/* Which way it went; for the counters. */
typedef enum BdrvRequestPath {
    BDRV_PATH_INLINE,
    BDRV_PATH_SUBMITTED,
    BDRV_PATH_WORKER,
} BdrvRequestPath;

/* What the engine that a request was submitted to keeps in it. */
#define BDRV_REQ_ENGINE_WORDS 12

typedef void BdrvRequestCallback(BdrvTrackedRequest *req);

struct BdrvTrackedRequest {
    /* Set by the user before it submits; all but the flags are left alone. */
    BdrvRequestType type;
    int flags;                      /* BdrvRequestFlags; FUA may be added … */
    int64_t offset;                 /* bytes */
    int64_t bytes;
    QEMUIOVector *qiov;             /* READ, WRITE: the data, at qiov_offset */
    size_t qiov_offset;
    BdrvRequestCallback *cb;        /* in the home context, see above */

    /* For the callback: 0 or -errno. */
    int ret;

    /* The rest is the block layer's. */
    BdrvRequestState state;         /* moved by whoever owns the request then */
    BdrvRequestPath path;
    BlockBackend *blk;
    AioContext *ctx;                /* home: where cb runs */
    bool was_parked;                /* home: and counted */
    bool cancel_requested;          /* home: while it was parked, or on its
                                     * way from there */

    /* Where mapping has got to: this node, at this offset, is to serve it. */
    BlockDriverState *bs;
    int64_t map_offset;
    /* Called before completion: lets go of what the mapping pinned. */
    void (*unpin)(BdrvTrackedRequest *req);
    void *pin;

    /* The node on the way of a submitted write that records it in its dirty
     * bitmaps, where the request is at dirty_offset; or NULL. */
    BlockDriverState *dirty_bs;
    int64_t dirty_offset;

    /* Tracking (block/tracked-request.c), under the node's reqs_lock. */
    BlockDriverState *tracked_bs;   /* NULL: not tracked */
    bool has_thread;                /* which runs it, or waits until it may */
    bool serialising;
    bool copies_on_read;
    int64_t overlap_offset;         /* what it conflicts on: aligned */
    int64_t overlap_bytes;
    QemuCond *waiter;               /* a thread waits; NULL: it is parked */
    BdrvTrackedRequest *outer;      /* its thread's; the request round it */
    ListNode tracked_node;          /* bs->tracked_requests */
    ListNode waiting_node;          /* bs->waiting_requests */

    ListNode parked_node;           /* blk->parked */
    ThreadPoolItem work;            /* the way through a worker */
    AioWork completion;             /* the way home */
    uint64_t engine[BDRV_REQ_ENGINE_WORDS];
};

#endif
