/*
 * Draining: the gate of a BlockBackend, and closing the gates above a node.
 *
 * One word, gate_state, counts the requests inside and says whether the gate is
 * closed.  One compare-and-swap enters or leaves an open gate:
 *
 *   enter   CLOSED: park instead, without having been counted; else state++
 *   leave   CLOSED: under the gate lock, state--, 0 inside: wake the drainer;
 *           else state--
 *   close   under the gate lock, state |= CLOSED
 *
 * While the gate is closed the count changes only under the lock, and only
 * downwards.  So what the drainer, who holds the lock, reads is true for as
 * long as it keeps the gate closed, and whoever has counted himself out has
 * nothing left to do but to let go of the lock: the backend may then be freed.
 *
 * Requests that find the gate closed are parked on the backend.  They are not
 * counted, and no thread waits on their behalf; opening the gate hands each of
 * them to its home context, where it tries again.
 *
 * A drain of a node closes the gates of all backends above it, first all, then
 * waits for all, and applies to parents that are attached while it lasts.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

#define BLK_GATE_CLOSED (1u << 31)

void blk_gate_init(BlockBackend *blk)
{
    gate_init(&blk->gate);
    qemu_cond_init(&blk->gate_cond);
    list_init(&blk->parked);
}

void blk_gate_destroy(BlockBackend *blk)
{
    /* A user waits for its callbacks before it lets go of the backend. */
    assert(qatomic_read(&blk->gate_state) == 0);
    assert(list_is_empty(&blk->parked));
    qemu_cond_destroy(&blk->gate_cond);
    gate_destroy(&blk->gate);
}

/* ---- Who would wait for itself ---- */

/*
 * A request ends in its home thread.  If that thread drains the backend
 * instead, both wait for ever.  Debug builds count what is under way by thread
 * and backend, and say so at once.
 */
#ifdef CONFIG_LOCK_DEBUG
static GPrivate home_counts = G_PRIVATE_INIT((GDestroyNotify)
                                             g_hash_table_unref);

static uintptr_t home_count(BlockBackend *blk)
{
    GHashTable *counts = g_private_get(&home_counts);

    return counts ? (uintptr_t)g_hash_table_lookup(counts, blk) : 0;
}

void blk_debug_count_home(BlockBackend *blk, int n)
{
    uintptr_t count = home_count(blk) + n;
    GHashTable *counts = g_private_get(&home_counts);

    if (!counts) {
        counts = g_hash_table_new(NULL, NULL);
        g_private_set(&home_counts, counts);
    }
    if (count) {
        g_hash_table_insert(counts, blk, (void *)count);
    } else {
        g_hash_table_remove(counts, blk);
    }
}

static void assert_not_home(BlockBackend *blk)
{
    assert(home_count(blk) == 0);
}
#else
static void assert_not_home(BlockBackend *blk)
{
}
#endif

/* ---- Requests ---- */

static void leave_closed(BlockBackend *blk)
{
    gate_lock(&blk->gate);
    if ((qatomic_fetch_dec(&blk->gate_state) & ~BLK_GATE_CLOSED) == 1) {
        qemu_cond_broadcast(&blk->gate_cond);
    }
    gate_unlock(&blk->gate);
}

void blk_gate_leave(BlockBackend *blk)
{
    unsigned old = qatomic_read(&blk->gate_state);

    while (likely(!(old & BLK_GATE_CLOSED))) {
        unsigned seen = qatomic_cmpxchg(&blk->gate_state, old, old - 1);

        if (likely(seen == old)) {
            return;
        }
        old = seen;
    }
    leave_closed(blk);
}

bool blk_gate_try_enter(BlockBackend *blk)
{
    unsigned old = qatomic_read(&blk->gate_state);

    while (likely(!(old & BLK_GATE_CLOSED))) {
        unsigned seen = qatomic_cmpxchg(&blk->gate_state, old, old + 1);

        if (likely(seen == old)) {
            return true;
        }
        old = seen;
    }
    return false;
}

void blk_gate_enter_wait(BlockBackend *blk)
{
    while (!blk_gate_try_enter(blk)) {
        thread_pool_block_begin();
        gate_lock(&blk->gate);
        while (blk->quiesce_counter > 0) {
            gate_wait(&blk->gate_cond, &blk->gate);
        }
        gate_unlock(&blk->gate);
        thread_pool_block_end();
    }
}

bool blk_gate_park(BlockBackend *blk, BdrvTrackedRequest *req)
{
    bool closed;

    gate_lock(&blk->gate);
    closed = blk->quiesce_counter > 0;
    if (closed) {
        req->state = BDRV_REQ_STATE_PARKED;
        list_push_back(&blk->parked, &req->parked_node);
    }
    gate_unlock(&blk->gate);
    return closed;
}

bool blk_gate_unpark(BlockBackend *blk, BdrvTrackedRequest *req)
{
    bool parked;

    gate_lock(&blk->gate);
    parked = list_node_linked(&req->parked_node);
    list_remove(&req->parked_node);
    gate_unlock(&blk->gate);
    return parked;
}

/* ---- The drainer: control thread ---- */

void blk_gate_close(BlockBackend *blk)
{
    bool first;

    gate_lock(&blk->gate);
    first = blk->quiesce_counter++ == 0;
    if (first) {
        qatomic_or(&blk->gate_state, BLK_GATE_CLOSED);
    }
    gate_unlock(&blk->gate);
    if (first) {
        blk_notify_drained(blk, true);
    }
}

void blk_gate_wait(BlockBackend *blk)
{
    assert_not_home(blk);
    gate_lock(&blk->gate);
    while (qatomic_load_acquire(&blk->gate_state) != BLK_GATE_CLOSED) {
        gate_wait(&blk->gate_cond, &blk->gate);
    }
    gate_unlock(&blk->gate);
}

/* Hand what is parked to its home contexts, in order. */
static void resume_parked_locked(BlockBackend *blk) REQUIRES(gate_class)
{
    BdrvTrackedRequest *req;

    while ((req = list_pop_front(&blk->parked, BdrvTrackedRequest,
                                 parked_node))) {
        bdrv_request_resume(req);
    }
}

void blk_gate_open(BlockBackend *blk)
{
    bool last;

    gate_lock(&blk->gate);
    assert(blk->quiesce_counter > 0);
    last = --blk->quiesce_counter == 0;
    if (last) {
        qatomic_fetch_and(&blk->gate_state, ~BLK_GATE_CLOSED);
        resume_parked_locked(blk);
        qemu_cond_broadcast(&blk->gate_cond);
    }
    gate_unlock(&blk->gate);
    if (last) {
        blk_notify_drained(blk, false);
    }
}

void blk_drain_begin(BlockBackend *blk)
{
    blk_gate_close(blk);
    blk_gate_wait(blk);
}

void blk_drain_end(BlockBackend *blk)
{
    blk_gate_open(blk);
}

void blk_drain(BlockBackend *blk)
{
    blk_drain_begin(blk);
    blk_drain_end(blk);
}

/* ---- Above a node ---- */

typedef void GateFn(BlockBackend *blk);

static void for_each_backend_above(BlockDriverState *bs, GateFn *fn)
{
    BdrvChild *c;

    list_for_each(c, &bs->parents, parent_node) {
        if (c->parent_blk) {
            fn(c->parent_blk);
        } else {
            for_each_backend_above(c->parent_bs, fn);
        }
    }
}

void bdrv_drained_begin(BlockDriverState *bs)
{
    assert(!thread_pool_self());
    bs->quiesce_counter++;
    for_each_backend_above(bs, blk_gate_close);
    for_each_backend_above(bs, blk_gate_wait);
}

void bdrv_drained_end(BlockDriverState *bs)
{
    assert(bs->quiesce_counter > 0);
    bs->quiesce_counter--;
    for_each_backend_above(bs, blk_gate_open);
}

/* How many drains of nodes at or below @bs reach a parent of it. */
static int drains_below(BlockDriverState *bs)
{
    int n = bs->quiesce_counter;
    BdrvChild *c;

    list_for_each(c, &bs->children, child_node) {
        n += drains_below(c->bs);
    }
    return n;
}

static void apply_drains(BdrvChild *child, GateFn *fn)
{
    int n = drains_below(child->bs);

    while (n-- > 0) {
        if (child->parent_blk) {
            fn(child->parent_blk);
        } else {
            for_each_backend_above(child->parent_bs, fn);
        }
    }
}

static void close_and_wait(BlockBackend *blk)
{
    blk_gate_close(blk);
    blk_gate_wait(blk);
}

void bdrv_drain_attach(BdrvChild *child)
{
    apply_drains(child, close_and_wait);
}

void bdrv_drain_detach(BdrvChild *child)
{
    apply_drains(child, blk_gate_open);
}
