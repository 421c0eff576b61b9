/*
 * Tracked requests: which requests of a node overlap, and who waits for whom.
 *
 * Two requests conflict if their ranges overlap and one of them is serialising:
 * the read-modify-write of an unaligned write, copy-on-read, a resize.  A node
 * has a list of admitted requests and a list of waiting ones, both under
 * reqs_lock.  A request is admitted if it conflicts with none of the first and
 * with none of the second that came earlier: first come, first served.
 *
 * What waits is either *parked* (submitted asynchronously: no thread waits for
 * it, and it is resumed in its home context) or a thread with a condition
 * variable (blocking calls, and requests nested inside others).  Ending a
 * request admits what it held up.
 *
 * A request that was submitted asynchronously has no thread until a worker of
 * its home's pool takes it, and all of those may be waiting in here, for the
 * sake of what is nested.  So *a thread waits only for requests that have one*:
 * it overtakes those that are parked, or admitted and queued.  Nothing of them
 * has been done yet, so being admitted is only a promise to them, which is kept
 * when their worker begins: if one that overtook is still running, the worker
 * waits for it, before all others.  And who is overtaken while it is parked is
 * sent to a worker, to wait there; otherwise it could be overtaken for ever.
 *
 * No cycle can arise: waiters of one node wait for earlier ones only (or, if
 * they were overtaken, for running ones only), and a request that waits at one
 * node while it is admitted at another came down from there.  A thread that
 * waits at a node where it is admitted itself is caught by an assertion.
 *
 * Tracking costs a lock per request, so it is off (bs->tracking is 0) unless
 * something needs it; that changes only while the node is drained.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

/* The innermost admitted request that the calling thread runs. */
static __thread BdrvTrackedRequest *current_request;

void bdrv_tracked_init_node(BlockDriverState *bs)
{
    reqs_init(&bs->reqs_lock);
    list_init(&bs->tracked_requests);
    list_init(&bs->waiting_requests);
}

void bdrv_tracked_destroy_node(BlockDriverState *bs)
{
    reqs_destroy(&bs->reqs_lock);
}

static bool is_write(BdrvRequestType type)
{
    return type == BDRV_REQ_WRITE || type == BDRV_REQ_WRITE_ZEROES;
}

void bdrv_tracked_prepare(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    int64_t align = bs->bl.request_alignment;
    bool unaligned = !QEMU_IS_ALIGNED(req->offset | req->bytes, align);

    req->tracked_bs = NULL;
    req->waiter = NULL;
    req->copies_on_read = bdrv_copies_on_read(bs, req);
    if (req->copies_on_read) {
        align = bdrv_copy_alignment(bs);
    }
    req->serialising = req->type == BDRV_REQ_TRUNCATE || req->copies_on_read ||
                       (req->flags & BDRV_REQ_SERIALISING) ||
                       (is_write(req->type) && unaligned);
    req->overlap_offset = QEMU_ALIGN_DOWN(req->offset, align);
    req->overlap_bytes = QEMU_ALIGN_UP(req->offset + req->bytes, align) -
                         req->overlap_offset;
}

static bool conflict(const BdrvTrackedRequest *a, const BdrvTrackedRequest *b)
{
    return (a->serialising || b->serialising) &&
           a->overlap_offset < b->overlap_offset + b->overlap_bytes &&
           b->overlap_offset < a->overlap_offset + a->overlap_bytes;
}

/* Does @other, which came before @req, hold it up? */
static bool holds_up(const BdrvTrackedRequest *other,
                     const BdrvTrackedRequest *req)
{
    return (other->has_thread || !req->has_thread) && conflict(other, req);
}

/* Does anything that came before @req hold it up? */
static bool must_wait_locked(BlockDriverState *bs,
                             const BdrvTrackedRequest *req)
    REQUIRES(reqs_class)
{
    BdrvTrackedRequest *other;

    list_for_each(other, &bs->tracked_requests, tracked_node) {
        if (holds_up(other, req)) {
            return true;
        }
    }
    list_for_each(other, &bs->waiting_requests, waiting_node) {
        if (other == req) {
            return false;
        }
        if (holds_up(other, req)) {
            return true;
        }
    }
    return false;
}

static void admit_locked(BlockDriverState *bs, BdrvTrackedRequest *req)
    REQUIRES(reqs_class)
{
    req->tracked_bs = bs;
    list_push_back(&bs->tracked_requests, &req->tracked_node);
}

int bdrv_tracked_admit(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    int admitted;

    bdrv_tracked_prepare(bs, req);
    req->has_thread = false;
    reqs_lock(&bs->reqs_lock);
    admitted = !must_wait_locked(bs, req);
    if (admitted) {
        admit_locked(bs, req);
    } else if (req->flags & BDRV_REQ_NO_WAIT) {
        admitted = -EBUSY;
    } else {
        req->state = BDRV_REQ_STATE_PARKED;
        list_push_back(&bs->waiting_requests, &req->waiting_node);
    }
    reqs_unlock(&bs->reqs_lock);
    return admitted;
}

static void assert_not_admitted_here(BlockDriverState *bs)
{
    BdrvTrackedRequest *r;

    for (r = current_request; r; r = r->outer) {
        assert(r->tracked_bs != bs);
    }
}

/* @req is on the waiting list. */
static void wait_locked(BlockDriverState *bs, BdrvTrackedRequest *req)
    REQUIRES(reqs_class)
{
    QemuCond cond;

    assert_not_admitted_here(bs);
    qemu_cond_init(&cond);
    req->waiter = &cond;
    thread_pool_block_begin();
    while (!req->tracked_bs) {
        reqs_wait(&cond, &bs->reqs_lock);
    }
    thread_pool_block_end();
    req->waiter = NULL;
    qemu_cond_destroy(&cond);
}

static void enter(BdrvTrackedRequest *req)
{
    req->outer = current_request;
    current_request = req;
}

/* Send those that are parked, and in the way of @req, to wait with a thread. */
static void overtake_locked(BlockDriverState *bs, const BdrvTrackedRequest *req)
    REQUIRES(reqs_class)
{
    BdrvTrackedRequest *other, *next;

    list_for_each_safe(other, next, &bs->waiting_requests, waiting_node) {
        if (!other->has_thread && conflict(other, req)) {
            list_remove(&other->waiting_node);
            admit_locked(bs, other);
            bdrv_request_resume(other);
        }
    }
}

int bdrv_tracked_begin(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    bool must_wait;
    int ret = 0;

    bdrv_tracked_prepare(bs, req);
    req->has_thread = true;
    reqs_lock(&bs->reqs_lock);
    must_wait = must_wait_locked(bs, req);
    if (must_wait && (req->flags & BDRV_REQ_NO_WAIT)) {
        ret = -EBUSY;
    } else {
        overtake_locked(bs, req);
        if (must_wait) {
            list_push_back(&bs->waiting_requests, &req->waiting_node);
            wait_locked(bs, req);
        } else {
            admit_locked(bs, req);
        }
    }
    reqs_unlock(&bs->reqs_lock);
    if (ret == 0) {
        enter(req);
    }
    return ret;
}

void bdrv_tracked_run(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = req->tracked_bs;

    reqs_lock(&bs->reqs_lock);
    req->has_thread = true;
    list_remove(&req->tracked_node);
    req->tracked_bs = NULL;
    /* Its turn had come, so it is in front of all that wait. */
    list_push_front(&bs->waiting_requests, &req->waiting_node);
    if (must_wait_locked(bs, req)) {
        wait_locked(bs, req);
    } else {
        list_remove(&req->waiting_node);
        admit_locked(bs, req);
    }
    reqs_unlock(&bs->reqs_lock);
    enter(req);
}

void bdrv_tracked_leave(BdrvTrackedRequest *req)
{
    assert(current_request == req);
    current_request = req->outer;
}

/*
 * Admit what can go on, in order.  Parked requests are put on @resume: they
 * are resumed without the lock.
 */
static void admit_waiters_locked(BlockDriverState *bs, List *resume)
    REQUIRES(reqs_class)
{
    BdrvTrackedRequest *req, *next;

    list_for_each_safe(req, next, &bs->waiting_requests, waiting_node) {
        if (must_wait_locked(bs, req)) {
            continue;
        }
        list_remove(&req->waiting_node);
        admit_locked(bs, req);
        if (req->waiter) {
            qemu_cond_signal(req->waiter);
        } else {
            list_push_back(resume, &req->waiting_node);
        }
    }
}

static void resume_all(List *resume)
{
    BdrvTrackedRequest *req;

    while ((req = list_pop_front(resume, BdrvTrackedRequest, waiting_node))) {
        bdrv_request_resume(req);
    }
}

void bdrv_tracked_end(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = req->tracked_bs;
    List resume;

    list_init(&resume);
    reqs_lock(&bs->reqs_lock);
    list_remove(&req->tracked_node);
    req->tracked_bs = NULL;
    admit_waiters_locked(bs, &resume);
    reqs_unlock(&bs->reqs_lock);
    resume_all(&resume);
}

bool bdrv_tracked_cancel(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = req->bs;
    List resume;
    bool waited;

    list_init(&resume);
    reqs_lock(&bs->reqs_lock);
    waited = !req->tracked_bs && list_node_linked(&req->waiting_node);
    if (waited) {
        list_remove(&req->waiting_node);
        admit_waiters_locked(bs, &resume);
    }
    reqs_unlock(&bs->reqs_lock);
    resume_all(&resume);
    return waited;
}

/*
 * ---- Turning it on and off: drained ----
 *
 * A request that is under way untracked is seen by nobody; one that comes then
 * and reads, modifies and writes could undo it.
 */

void bdrv_tracking_begin(BlockDriverState *bs)
{
    qatomic_set(&bs->tracking, bs->tracking + 1);
}

void bdrv_tracking_end(BlockDriverState *bs)
{
    assert(bs->tracking > 0);
    qatomic_set(&bs->tracking, bs->tracking - 1);
}

/* Filters align what they pass on by themselves; a format sends what it likes
 * (block/limits.c). */
static bool parent_sends_unaligned(const BdrvChild *c)
{
    uint32_t align = c->bs->bl.request_alignment;

    if (c->parent_blk) {
        return c->parent_blk->user_block_size < align;
    }
    return !c->parent_bs->drv->is_filter && !c->parent_bs->drv->sends_aligned;
}

/* Is all that comes to @bs from above, to be written, aligned to @align? */
static bool users_write_aligned(BlockDriverState *bs, uint32_t align)
{
    BdrvChild *c;

    list_for_each(c, &bs->parents, parent_node) {
        BlockDriverState *parent = c->parent_bs;

        if (c->role & BDRV_CHILD_COW) {
            continue;                   /* an overlay only reads */
        }
        if (c->parent_blk ? c->parent_blk->user_block_size < align :
            !parent->drv->is_filter ||
            (parent->bl.request_alignment < align &&
             !users_write_aligned(parent, align))) {
            return false;
        }
    }
    return true;
}

static void update_edge(BdrvChild *c)
{
    bool aligned = c->parent_bs &&
                   users_write_aligned(c->parent_bs,
                                       c->bs->bl.request_alignment);

    if (aligned != c->users_aligned) {
        bdrv_drained_begin(c->bs);
        c->users_aligned = aligned;
        bdrv_drained_end(c->bs);
    }
}

static void update_node(BlockDriverState *bs)
{
    bool needed = false;
    BdrvChild *c;

    if (bs->bl.request_alignment > 1) {
        list_for_each(c, &bs->parents, parent_node) {
            needed |= parent_sends_unaligned(c);
        }
    }
    if (needed == bs->tracking_for_alignment) {
        return;
    }
    bdrv_drained_begin(bs);
    if (needed) {
        bdrv_tracking_begin(bs);
    } else {
        bdrv_tracking_end(bs);
    }
    bs->tracking_for_alignment = needed;
    bdrv_drained_end(bs);
}

void bdrv_update_alignment_tracking(BlockDriverState *bs)
{
    BdrvChild *c;

    update_node(bs);
    list_for_each(c, &bs->parents, parent_node) {
        update_edge(c);
    }
    list_for_each(c, &bs->children, child_node) {
        update_edge(c);
        if (bs->drv->is_filter) {
            bdrv_update_alignment_tracking(c->bs);  /* the same users */
        }
    }
}
