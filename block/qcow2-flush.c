/*
 * qcow2: writing tables back.
 *
 * The one place where tables reach the disk, in the one order that survives a
 * crash at any point (docs/devel/qcow2.md, "Order on the disk").
 *
 * A round begins with copies of all dirty tables.  What is written is what the
 * tables were at one moment, however long the syncs take, and it is consistent:
 *
 *   - L1 is copied before L2, L2 before the refcount table, that before the
 *     refcount blocks.  The lock may be dropped in between (memory is
 *     allocated), so later copies may be newer.  That is the harmless
 *     direction: nothing that is copied refers to something that is not.
 *   - The data of the clusters that a copied L2 entry refers to was written
 *     before the entry was set, so the sync that follows covers it.
 *   - A refcount that went down did so after the tables that no longer refer to
 *     the cluster were durable (qcow2-free.c).
 *
 * One round at a time.  Who wants one while it runs waits, and all who waited
 * share the next: its result is that of each of them.  A round that fails
 * leaves dirty what it did not write, and the next one tries again.
 *
 * Two sorts: a flush ends with a sync, and frees clusters that it no longer
 * needs; a write-back, which makes room in a cache, does not.  A round that
 * both wait for is a flush.
 *
 * Syncs are of the image file and of an external data file: L2 entries refer to
 * both.
 *
 * With lazy refcounts a flush leaves the refcounts as they are on the disk,
 * if the dirty bit says that these are to be rebuilt.  (It does not if there
 * was no allocation yet since lazy refcounts were chosen.)  A write-back writes
 * them all the same, also if a flush is joined to it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"

/* Who waits for a round; on the stack of the waiter. */
typedef struct FlushWaiter {
    ListNode node;                  /* s->flush_waiters, then the round's */
    bool full;                      /* with a last sync */
    bool done;
    int ret;
} FlushWaiter;

/* What one round writes. */
typedef struct Round {
    Qcow2TableCopies *l1, *l2, *refblocks;
    Qcow2ReftableCopy *reftable;
} Round;

/* ---- Syncs ---- */

static int sync_files(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    bdrv_debug_event(bs->file->bs, "flush_to_disk");
    if (s->has_data_file) {
        ret = bdrv_flush(s->data_file->bs);
    }
    return ret < 0 ? ret : bdrv_flush(bs->file->bs);
}

static int REQUIRES(driver_class) sync_unlocked(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    driver_unlock(&s->lock);
    ret = sync_files(bs);
    driver_lock(&s->lock);
    return ret;
}

/* ---- A round ---- */

static int REQUIRES(driver_class)
round_copy(BlockDriverState *bs, Round *r, bool refcounts)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = qcow2_l1_copy_dirty(bs, &r->l1);

    if (ret == 0) {
        ret = qcow2_cache_copy_dirty(bs, s->l2_cache, &r->l2);
    }
    if (ret == 0 && refcounts) {
        ret = qcow2_reftable_copy_dirty(bs, &r->reftable);
    }
    if (ret == 0 && refcounts) {
        ret = qcow2_cache_copy_dirty(bs, s->refcount_cache, &r->refblocks);
    }
    return ret;
}

/* What was not written is dirty again. */
static void REQUIRES(driver_class)
round_drop(BDRVQcow2State *s, Round *r)
{
    if (r->l1) {
        qcow2_l1_drop_copies(s, r->l1);
    }
    if (r->l2) {
        qcow2_cache_drop_copies(s->l2_cache, r->l2);
    }
    if (r->reftable) {
        qcow2_reftable_drop_copy(s, r->reftable);
    }
    if (r->refblocks) {
        qcow2_cache_drop_copies(s->refcount_cache, r->refblocks);
    }
}

static int REQUIRES(driver_class)
round_write_refcounts(BlockDriverState *bs, Round *r)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    if (r->refblocks) {
        ret = qcow2_cache_write_copies(bs, s->refcount_cache,
                                       g_steal_pointer(&r->refblocks));
    }
    if (ret == 0 && r->reftable) {
        /* The table must not point at a block that is not there. */
        ret = sync_unlocked(bs);
        if (ret == 0) {
            ret = qcow2_reftable_write_copy(bs, g_steal_pointer(&r->reftable));
        }
    }
    return ret;
}

static int REQUIRES(driver_class)
round_write_mappings(BlockDriverState *bs, Round *r)
{
    BDRVQcow2State *s = bs->opaque;
    bool has_l2 = r->l2;
    int ret;

    if (!r->l1 && !r->l2) {
        return 0;
    }
    /* Data, copies and refcounts, before an entry refers to them. */
    ret = sync_unlocked(bs);
    if (ret == 0 && r->l2) {
        ret = qcow2_cache_write_copies(bs, s->l2_cache,
                                       g_steal_pointer(&r->l2));
    }
    if (ret == 0 && r->l1) {
        /* An L2 table, before an L1 entry refers to it. */
        ret = has_l2 ? sync_unlocked(bs) : 0;
        if (ret == 0) {
            ret = qcow2_l1_write_copies(bs, g_steal_pointer(&r->l1));
        }
    }
    return ret;
}

static bool REQUIRES(driver_class) is_dirty(BDRVQcow2State *s)
{
    return qcow2_l1_is_dirty(s) || qcow2_cache_is_dirty(s->l2_cache) ||
           qcow2_reftable_is_dirty(s) ||
           qcow2_cache_is_dirty(s->refcount_cache) || qcow2_frees_pending(s);
}

static int REQUIRES(driver_class)
run_round(BlockDriverState *bs, bool full, bool refcounts)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t number = ++s->flush_number;
    Round r = { 0 };
    int ret;

    if (qatomic_read(&s->corrupt)) {
        return -EIO;
    }
    if (full) {
        qcow2_places_drop(bs);
        qcow2_frees_flush_begins(s, number);
    }
    ret = round_copy(bs, &r, refcounts);
    if (ret == 0) {
        ret = round_write_refcounts(bs, &r);
    }
    if (ret == 0) {
        ret = round_write_mappings(bs, &r);
    }
    if (ret == 0 && full) {
        ret = sync_unlocked(bs);
    }
    round_drop(s, &r);
    if (ret == 0 && full) {
        qcow2_frees_flush_done(s, number);
    }
    qatomic_set(&s->metadata_dirty, is_dirty(s));
    return ret;
}

/* ---- Who waits ---- */

/* Does the disk say that its refcounts are not to be believed? */
static bool REQUIRES(driver_class) may_leave_refcounts(BDRVQcow2State *s)
{
    return s->use_lazy_refcounts &&
           (s->incompatible_features & QCOW2_INCOMPAT_DIRTY);
}

/* A round for all who wait now. */
static void REQUIRES(driver_class) serve_waiters(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    List served = LIST_INITIALIZER(served);
    FlushWaiter *w;
    bool full = false, refcounts = !may_leave_refcounts(s);
    int ret;

    s->flush_running = true;
    list_splice_back(&served, &s->flush_waiters);
    list_for_each(w, &served, node) {
        full |= w->full;
        refcounts |= !w->full;
    }
    ret = run_round(bs, full, refcounts);
    while ((w = list_pop_front(&served, FlushWaiter, node))) {
        w->ret = ret;
        w->done = true;
    }
    s->flush_running = false;
    qemu_cond_broadcast(&s->cond);
}

static int REQUIRES(driver_class) join_round(BlockDriverState *bs, bool full)
{
    BDRVQcow2State *s = bs->opaque;
    FlushWaiter me = { .full = full };

    list_push_back(&s->flush_waiters, &me.node);
    while (!me.done) {
        if (s->flush_running) {
            driver_wait(&s->cond, &s->lock);
        } else {
            serve_waiters(bs);
        }
    }
    return me.ret;
}

int qcow2_write_back_metadata(BlockDriverState *bs)
{
    return join_round(bs, false);
}

int qcow2_flush_metadata(BlockDriverState *bs)
{
    return join_round(bs, true);
}

int qcow2_flush(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (!qatomic_load_acquire(&s->metadata_dirty)) {
        return sync_files(bs);
    }
    driver_lock(&s->lock);
    ret = qcow2_flush_metadata(bs);
    if (ret == 0) {
        /* What cannot be freed now stays queued; the guest's data is safe. */
        (void)qcow2_process_frees(bs);
    }
    driver_unlock(&s->lock);
    return ret;
}

/* ---- At the end ---- */

/* Until nothing is queued.  Nothing is pinned, so each flush gets rid of all
 * that was queued before it. */
static int REQUIRES(driver_class) free_all(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    qcow2_places_drop(bs);
    while (ret == 0 && qcow2_frees_pending(s)) {
        ret = qcow2_flush_metadata(bs);
        if (ret == 0) {
            ret = qcow2_process_frees(bs);
        }
    }
    return ret;
}

int qcow2_settle(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = free_all(bs);

    if (ret == 0 && s->copied_stale) {
        ret = qcow2_update_copied_flags(bs);
    }
    /* A flush has left lazy refcounts: those are written, too. */
    return ret < 0 ? ret : qcow2_mark_clean(bs);
}
