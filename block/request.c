/*
 * The asynchronous path of a request: submitted in a device's thread, completed
 * there; this is the picture of docs/devel/request.md as code.
 *
 *   blk_aio_submit   through the gate, or park
 *   admit            range and permission checks; overlaps, if the node tracks
 *   try_fast         map down the graph without blocking, as far as drivers
 *                    answer "this is bytes X of child C"
 *     submit         a node that can: AIO from this thread
 *     to_worker      anything else: the blocking code of block/io.c in a thread
 *                    of the pool, from the top of the graph
 *   complete         from any thread: let go of pins and overlaps, go home
 *   finish           at home: the callback, then out of the gate
 *
 * The fast path takes no lock, allocates nothing, and reads of the graph only
 * what changes while it is drained.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/trace.h"
#include "block-internal.h"

TRACE_EVENT(blk_aio_submit);
TRACE_EVENT(blk_aio_worker);
TRACE_EVENT(blk_aio_finish);

/* Written by whoever owns the request just then, read when cancelling. */
static void set_state(BdrvTrackedRequest *req, BdrvRequestState state)
{
    qatomic_set(&req->state, state);
}

/* ---- Counting ---- */

static BlkPathStats *my_stats(BlockBackend *blk)
{
    static __thread unsigned shard;
    static unsigned next_shard;

    if (!shard) {
        shard = 1 + qatomic_fetch_inc(&next_shard) % BLK_STATS_SHARDS;
    }
    return &blk->stats[shard - 1].s;
}

void blk_count_blocking(BlockBackend *blk)
{
    qatomic_count(&my_stats(blk)->blocking, 1);
}

void blk_get_path_stats(BlockBackend *blk, BlkPathStats *stats)
{
    int i;

    *stats = (BlkPathStats){ 0 };
    for (i = 0; i < BLK_STATS_SHARDS; i++) {
        BlkPathStats *s = &blk->stats[i].s;

        stats->inline_done += qatomic_read(&s->inline_done);
        stats->submitted += qatomic_read(&s->submitted);
        stats->worker += qatomic_read(&s->worker);
        stats->parked += qatomic_read(&s->parked);
        stats->blocking += qatomic_read(&s->blocking);
        stats->registered += qatomic_read(&s->registered);
    }
}

/* ---- The way home ---- */

static void count_path(BdrvTrackedRequest *req)
{
    BlkPathStats *s = my_stats(req->blk);

    switch (req->path) {
    case BDRV_PATH_INLINE:
        qatomic_count(&s->inline_done, 1);
        break;
    case BDRV_PATH_SUBMITTED:
        qatomic_count(&s->submitted, 1);
        break;
    case BDRV_PATH_WORKER:
        qatomic_count(&s->worker, 1);
        break;
    }
}

static void finish_uncounted(BdrvTrackedRequest *req)
{
    trace(blk_aio_finish, "req %p type %d ret %d", req, req->type, req->ret);
    set_state(req, BDRV_REQ_STATE_IDLE);
    req->cb(req);
}

/* In the home context; the callback may free or reuse the request. */
static void finish(BdrvTrackedRequest *req)
{
    BlockBackend *blk = req->blk;

    count_path(req);
    finish_uncounted(req);
    blk_debug_count_home(blk, -1);
    blk_gate_leave(blk);
}

static void finish_work(AioWork *work)
{
    finish(container_of(work, BdrvTrackedRequest, completion));
}

static void finish_uncounted_work(AioWork *work)
{
    finish_uncounted(container_of(work, BdrvTrackedRequest, completion));
}

/* What the request holds in the block layer ends here, whatever the thread. */
static void release(BdrvTrackedRequest *req)
{
    if (req->unpin) {
        void (*unpin)(BdrvTrackedRequest *) = req->unpin;

        req->unpin = NULL;
        unpin(req);
    }
    if (req->tracked_bs) {
        bdrv_tracked_end(req);
    }
}

/*
 * Send @req home.  As soon as it is there, everything may be over, the home
 * included: from another thread, hold on to the context until the call is done
 * with it.
 */
static void send_home(BdrvTrackedRequest *req, void (*fn)(AioWork *work))
{
    AioContext *ctx = req->ctx;
    bool from_afar = aio_context_current() != ctx;

    if (from_afar) {
        aio_context_ref(ctx);
    }
    req->completion.fn = fn;
    aio_schedule(ctx, &req->completion);
    if (from_afar) {
        aio_context_unref(ctx);
    }
}

/* ---- Dirty bitmaps on the fast path ---- */

/* @req passes through @bs, which records.  False: it needs a worker. */
static bool note_recording(BdrvTrackedRequest *req, BlockDriverState *bs)
{
    switch (req->type) {
    case BDRV_REQ_WRITE:
    case BDRV_REQ_WRITE_ZEROES:
    case BDRV_REQ_DISCARD:
        break;
    default:
        return true;
    }
    if (req->dirty_bs) {
        return false;                   /* there is room for one node */
    }
    req->dirty_bs = bs;
    req->dirty_offset = req->map_offset;
    return true;
}

/* Whatever came of it: a part may have been written. */
static void mark_submitted(BdrvTrackedRequest *req, int ret)
{
    bdrv_mark_dirty(req->dirty_bs, req->dirty_offset, req->bytes, ret);
    req->dirty_bs = NULL;
}

void bdrv_request_complete(BdrvTrackedRequest *req, int ret)
{
    req->ret = ret;
    if (unlikely(req->dirty_bs)) {
        mark_submitted(req, ret);
    }
    release(req);
    set_state(req, BDRV_REQ_STATE_COMPLETED);
    send_home(req, finish_work);
}

void bdrv_request_is_inline(BdrvTrackedRequest *req)
{
    req->path = BDRV_PATH_INLINE;
}

void bdrv_request_is_registered(BdrvTrackedRequest *req)
{
    qatomic_count(&my_stats(req->blk)->registered, 1);
}

static void complete_inline(BdrvTrackedRequest *req, int ret)
{
    req->path = BDRV_PATH_INLINE;
    bdrv_request_complete(req, ret);
}

/* ---- The way through a worker ---- */

static void worker_run(ThreadPoolItem *item)
{
    BdrvTrackedRequest *req = container_of(item, BdrvTrackedRequest, work);
    BlockDriverState *bs = blk_bs(req->blk);

    set_state(req, BDRV_REQ_STATE_RUNNING);
    if (req->tracked_bs) {
        bdrv_tracked_run(req);
        req->ret = bdrv_do_request(bs, req);
        bdrv_tracked_leave(req);
        bdrv_tracked_end(req);
    } else {
        req->ret = bdrv_do_request(bs, req);
    }
    set_state(req, BDRV_REQ_STATE_COMPLETED);
}

static void worker_done(ThreadPoolItem *item)
{
    BdrvTrackedRequest *req = container_of(item, BdrvTrackedRequest, work);

    if (item->cancelled) {
        req->ret = -ECANCELED;
        release(req);
    }
    finish(req);
}

static void to_worker(BdrvTrackedRequest *req)
{
    trace(blk_aio_worker, "req %p type %d offset %" PRId64 " bytes %" PRId64,
          req, req->type, req->offset, req->bytes);
    req->path = BDRV_PATH_WORKER;
    set_state(req, BDRV_REQ_STATE_QUEUED);
    req->work.run = worker_run;
    req->work.done = worker_done;
    req->work.home = req->ctx;
    thread_pool_submit(aio_get_thread_pool(req->ctx), &req->work);
}

/* ---- Mapping ---- */

/* Whole units, and not too many? */
static bool fits_units(const BdrvTrackedRequest *req, int64_t max, int64_t unit)
{
    return (!max || req->bytes <= max) &&
           (unit <= 1 || ((req->map_offset % unit == 0) &&
                          (req->bytes % unit == 0)));
}

/* Is there anything in a node's limits that only block/io.c knows about? */
static bool fits(const BlockDriverState *bs, const BdrvTrackedRequest *req)
{
    const BlockLimits *bl = &bs->bl;

    if ((req->map_offset | req->bytes) & (bl->request_alignment - 1)) {
        return false;
    }
    switch (req->type) {
    case BDRV_REQ_READ:
        return (!bl->max_transfer || req->bytes <= bl->max_transfer) &&
               req->qiov->niov <= bl->max_iov;
    case BDRV_REQ_WRITE:
        return (!bl->max_transfer || req->bytes <= bl->max_transfer) &&
               req->qiov->niov <= bl->max_iov && !bs->detect_zeroes &&
               !(req->flags & (BDRV_REQ_FUA | BDRV_REQ_WRITE_COMPRESSED) &
                 ~bs->drv->supported_write_flags);
    case BDRV_REQ_WRITE_ZEROES:
        return fits_units(req, bl->max_pwrite_zeroes,
                          bl->pwrite_zeroes_alignment) &&
               !(req->flags & BDRV_REQ_FUA & ~bs->drv->supported_zero_flags);
    case BDRV_REQ_DISCARD:
        return fits_units(req, bl->max_pdiscard, bl->pdiscard_alignment);
    case BDRV_REQ_FLUSH:
        return true;
    default:
        return false;
    }
}

/* As the node was opened, is there nothing to do? */
static bool nothing_to_do(const BlockDriverState *bs,
                          const BdrvTrackedRequest *req)
{
    switch (req->type) {
    case BDRV_REQ_DISCARD:
        return !(bs->open_flags & BDRV_O_UNMAP);
    case BDRV_REQ_FLUSH:
        /* A format may have something to write back all the same. */
        return (bs->open_flags & BDRV_O_NO_FLUSH) &&
               list_is_empty(&bs->children);
    default:
        return false;
    }
}

/* Must @req be tracked at @bs?  Not just for unaligned writers, if it is @apart
 * from them (BdrvMapping), nor for copies, if it reads and makes none. */
static bool must_be_tracked(const BlockDriverState *bs,
                            const BdrvTrackedRequest *req, bool apart)
{
    int reasons = qatomic_read(&bs->tracking);

    if (likely(!reasons)) {
        return false;
    }
    if (apart && bs->tracking_for_alignment) {
        reasons--;
    }
    if (req->type == BDRV_REQ_READ && !(req->flags & BDRV_REQ_SERIALISING)) {
        reasons -= bs->tracking_for_copies;
    }
    return reasons > 0;
}

/* Is it a read, not to be mapped to @child (NULL: to be done at once), since
 * what it reads is to be copied?  Not if it comes from @bs itself. */
static bool has_to_copy(const BlockDriverState *bs,
                        const BdrvTrackedRequest *req, const BdrvChild *child)
{
    return unlikely(bs->tracking_for_copies > 0) &&
           bdrv_copies_on_read(bs, req) &&
           (!bs->backing || child == bs->backing);
}

/* One step down.  CHILD: req->bs has become the child. */
static BdrvMapResult map_step(BlockDriverState *bs, BdrvTrackedRequest *req,
                              bool *apart, int *ret)
{
    BdrvMapping m = { 0 };
    BdrvMapResult result = bs->drv->map_nowait(bs, req, &m);

    if (has_to_copy(bs, req, m.child)) {
        return BDRV_MAP_WORKER;
    }
    if (result == BDRV_MAP_CHILD) {
        req->bs = m.child->bs;
        req->map_offset = m.offset;
        *apart = m.apart;
    } else if (result == BDRV_MAP_DONE) {
        *ret = m.ret;
    }
    return result;
}

/* Once the driver has it, the request may be gone: all is set before. */
static bool submit(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    set_state(req, BDRV_REQ_STATE_SUBMITTED);
    req->path = BDRV_PATH_SUBMITTED;
    return bs->drv->submit(bs, req);
}

/* True: it is on its way (or done); false: it needs a worker. */
static bool map_down(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = blk_bs(req->blk);
    bool apart = false;
    int ret = 0;

    req->map_offset = req->offset;
    for (;; bs = req->bs) {
        req->bs = bs;
        if (!(bs->open_flags & BDRV_O_UNMAP)) {
            req->flags &= ~BDRV_REQ_MAY_UNMAP;
        }
        if (nothing_to_do(bs, req)) {
            complete_inline(req, 0);
            return true;
        }
        if (must_be_tracked(bs, req, apart) || !fits(bs, req)) {
            return false;
        }
        if (unlikely(bdrv_is_recording(bs)) && !note_recording(req, bs)) {
            return false;
        }
        if (bs->drv->submit) {
            return !has_to_copy(bs, req, bs->backing) && submit(bs, req);
        }
        if (!bs->drv->map_nowait) {
            return false;
        }
        switch (map_step(bs, req, &apart, &ret)) {
        case BDRV_MAP_CHILD:
            break;
        case BDRV_MAP_DONE:
            complete_inline(req, ret);
            return true;
        case BDRV_MAP_WORKER:
            return false;
        }
    }
}

/* The way through a worker begins at the top of the graph. */
static void forget_mapping(BdrvTrackedRequest *req)
{
    if (req->unpin) {
        req->unpin(req);
        req->unpin = NULL;
    }
    req->dirty_bs = NULL;
}

static bool try_fast(BdrvTrackedRequest *req)
{
    int flags = req->flags;

    if (map_down(req)) {
        return true;
    }
    /* What a lower node said or took away does not hold for the upper ones. */
    req->flags = flags;
    forget_mapping(req);
    return false;
}

/* ---- Admission ---- */

/* Write-through and cache=unsafe change what is asked of the disk. */
static int effective_flags(BlockBackend *blk, const BdrvTrackedRequest *req)
{
    bool writes = req->type == BDRV_REQ_WRITE ||
                  req->type == BDRV_REQ_WRITE_ZEROES;

    if (blk_bs(blk)->open_flags & BDRV_O_NO_FLUSH) {
        return req->flags & ~BDRV_REQ_FUA;
    }
    if (writes && !blk_enable_write_cache(blk)) {
        return req->flags | BDRV_REQ_FUA;
    }
    return req->flags;
}

/* Once a request, however often and wherever it parks. */
static void count_parked(BdrvTrackedRequest *req)
{
    if (!req->was_parked) {
        req->was_parked = true;
        qatomic_count(&my_stats(req->blk)->parked, 1);
    }
}

static void admit_tracked(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    int admitted;

    req->bs = bs;
    admitted = bdrv_tracked_admit(bs, req);
    if (admitted > 0) {
        to_worker(req);
    } else if (admitted < 0) {
        complete_inline(req, admitted);
    } else {
        count_parked(req);
    }
}

/* To a worker, as soon as no other request is in the way. */
static void go_slow(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = blk_bs(req->blk);

    if (unlikely(bdrv_is_tracking(bs)) && req->type != BDRV_REQ_FLUSH) {
        admit_tracked(bs, req);
    } else {
        to_worker(req);
    }
}

void bdrv_request_to_worker(BdrvTrackedRequest *req)
{
    /* A part may have been written, and the worker be cancelled. */
    if (unlikely(req->dirty_bs)) {
        mark_submitted(req, -EAGAIN);
    }
    forget_mapping(req);
    go_slow(req);
}

static void admit(BdrvTrackedRequest *req)
{
    BlockBackend *blk = req->blk;
    int ret = blk_check_request(blk, req->type, req->offset, req->bytes);

    if (unlikely(ret < 0)) {
        complete_inline(req, ret);
        return;
    }
    if (req->bytes == 0 && req->type != BDRV_REQ_FLUSH) {
        complete_inline(req, 0);
        return;
    }
    req->flags = effective_flags(blk, req);
    if (blk->allow_write_beyond_eof || !try_fast(req)) {
        go_slow(req);
    }
}

static void enter_gate(BdrvTrackedRequest *req)
{
    BlockBackend *blk = req->blk;

    while (unlikely(!blk_gate_try_enter(blk))) {
        if (blk_gate_park(blk, req)) {
            count_parked(req);
            return;
        }
    }
    blk_debug_count_home(blk, 1);
    set_state(req, BDRV_REQ_STATE_ADMITTING);
    admit(req);
}

void blk_aio_submit(BlockBackend *blk, BdrvTrackedRequest *req)
{
    assert(qatomic_read(&req->state) == BDRV_REQ_STATE_IDLE);
    trace(blk_aio_submit, "blk %p req %p type %d offset %" PRId64 " bytes %"
          PRId64, blk, req, req->type, req->offset, req->bytes);
    req->blk = blk;
    req->ctx = aio_context_current();
    assert(req->ctx);
    req->bs = NULL;
    req->unpin = NULL;
    req->dirty_bs = NULL;
    req->tracked_bs = NULL;
    req->was_parked = false;
    req->cancel_requested = false;
    req->ret = 0;
    enter_gate(req);
}

/* ---- Parked requests ---- */

/* Cancelled after it was resumed, and before it got here. */
static void finish_resumed(BdrvTrackedRequest *req)
{
    bool is_inside = req->tracked_bs;

    req->ret = -ECANCELED;
    release(req);
    if (is_inside) {
        finish(req);
    } else {
        finish_uncounted(req);
    }
}

static void resume_work(AioWork *work)
{
    BdrvTrackedRequest *req = container_of(work, BdrvTrackedRequest,
                                           completion);

    if (req->cancel_requested) {
        finish_resumed(req);
    } else if (req->tracked_bs) {
        to_worker(req);                 /* a conflict has ended */
    } else {
        enter_gate(req);                /* the gate has opened */
    }
}

/* Any thread; locks of rank gate and reqs may be held. */
void bdrv_request_resume(BdrvTrackedRequest *req)
{
    send_home(req, resume_work);
}

static void complete_cancelled(BdrvTrackedRequest *req,
                               void (*fn)(AioWork *work))
{
    req->ret = -ECANCELED;
    set_state(req, BDRV_REQ_STATE_COMPLETED);
    send_home(req, fn);
}

static void cancel_parked(BdrvTrackedRequest *req)
{
    if (blk_gate_unpark(req->blk, req)) {
        complete_cancelled(req, finish_uncounted_work);
    } else if (req->bs && bdrv_tracked_cancel(req)) {
        complete_cancelled(req, finish_work);
    } else {
        req->cancel_requested = true;       /* for resume_work() to see */
    }
}

void blk_aio_cancel(BdrvTrackedRequest *req)
{
    assert(aio_context_current() == req->ctx);
    switch (qatomic_read(&req->state)) {
    case BDRV_REQ_STATE_PARKED:
        cancel_parked(req);
        break;
    case BDRV_REQ_STATE_QUEUED:
    case BDRV_REQ_STATE_RUNNING:
        thread_pool_cancel(aio_get_thread_pool(req->ctx), &req->work);
        break;
    case BDRV_REQ_STATE_SUBMITTED:
        if (req->bs->drv->cancel) {
            req->bs->drv->cancel(req->bs, req);
        }
        break;
    default:
        break;
    }
}
