/*
 * qcow2: freeing clusters, later.
 *
 * A cluster that a table no longer refers to may still be looked at: by
 * requests that found it before (pins), and by whoever opens the image after a
 * crash (the table on the disk).  So it goes through these stages:
 *
 *   queued       in the open batch.  The caller has changed the table already,
 *                under the lock that it holds.
 *   waiting      a flush has begun after that: it closes the batch, and starts
 *                its grace period.
 *   durable      that flush, or one after it, has succeeded, last sync and all.
 *   taken        the grace period is over, too, and a thread has taken the
 *                batch: it punches what nobody else refers to, forgets what is
 *                cached of it, and only then counts the reference down.
 *
 * Until that last step the refcount is what it was: nobody can allocate the
 * cluster, so no punch can hit anything new, however late it comes.
 *
 * A cluster with more references (of snapshots, of compressed data beside it)
 * is just counted down.  The last reference to a table that is in use can only
 * be dropped by an image that lies: that is refused.
 *
 * Compressed data could add a reference while we punch: it is kept from that by
 * resetting free_byte_offset first.
 *
 * Tables that are freed may be about to be written by a flush that is under
 * way; they wait for its end.
 *
 * After an error the rest of a batch is queued again; after corruption nothing
 * is freed any more.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"

/* More than this that waits is worth a flush. */
#define MAX_RUNS 4096
#define MAX_BYTES (256 * MiB)

typedef struct FreeRun {
    int64_t offset, bytes;          /* whole clusters */
    Qcow2DiscardType type;
} FreeRun;

typedef struct FreeBatch {
    ListNode node;
    GArray *runs;                   /* of FreeRun */
    uint64_t flush;                 /* that has to succeed */
    bool durable;
    Qcow2Grace grace;
} FreeBatch;

struct Qcow2Frees {
    FreeBatch *open;                /* NULL: nothing queued */
    List closed;                    /* of FreeBatch, oldest first */
    uint64_t n_runs;                /* all together, with those taken */
    int64_t bytes;
};

/* ---- Queueing ---- */

static Qcow2Frees *REQUIRES(driver_class) frees_get(BDRVQcow2State *s)
{
    if (!s->frees) {
        s->frees = g_new0(Qcow2Frees, 1);
        list_init(&s->frees->closed);
    }
    return s->frees;
}

static FreeBatch *REQUIRES(driver_class) open_batch(Qcow2Frees *frees)
{
    if (!frees->open) {
        frees->open = g_new0(FreeBatch, 1);
        frees->open->runs = g_array_new(false, false, sizeof(FreeRun));
    }
    return frees->open;
}

static void REQUIRES(driver_class)
queue_run(Qcow2Frees *frees, const FreeRun *run)
{
    GArray *runs = open_batch(frees)->runs;
    FreeRun *last = runs->len ?
                    &g_array_index(runs, FreeRun, runs->len - 1) : NULL;

    frees->bytes += run->bytes;
    if (last && last->type == run->type &&
        last->offset + last->bytes == run->offset) {
        last->bytes += run->bytes;
    } else {
        g_array_append_val(runs, *run);
        frees->n_runs++;
    }
}

void qcow2_free_later(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      Qcow2DiscardType type)
{
    BDRVQcow2State *s = bs->opaque;
    FreeRun run = { .type = type };

    if (bytes <= 0) {
        return;
    }
    run.offset = QEMU_ALIGN_DOWN(offset, s->cluster_size);
    run.bytes = QEMU_ALIGN_UP(offset + bytes, s->cluster_size) - run.offset;
    queue_run(frees_get(s), &run);
    /* There is something for a flush to do. */
    qatomic_set(&s->metadata_dirty, true);
}

void qcow2_free_entry_later(BlockDriverState *bs, uint64_t l2_entry,
                            Qcow2DiscardType type)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset;

    if (l2_entry & QCOW2_OFLAG_COMPRESSED) {
        int bytes;

        qcow2_parse_compressed(s, l2_entry, &offset, &bytes);
        qcow2_free_later(bs, offset, bytes, type);
        return;
    }
    offset = l2_entry & QCOW2_L2_OFFSET_MASK;
    /* An external data file has no refcounts. */
    if (offset && !s->has_data_file) {
        qcow2_free_later(bs, offset, s->cluster_size, type);
    }
}

/* ---- Stages ---- */

void qcow2_frees_flush_begins(BDRVQcow2State *s, uint64_t flush)
{
    Qcow2Frees *frees = s->frees;

    if (frees && frees->open) {
        FreeBatch *batch = g_steal_pointer(&frees->open);

        batch->flush = flush;
        qcow2_grace_start(s, &batch->grace);
        list_push_back(&frees->closed, &batch->node);
    }
}

void qcow2_frees_flush_done(BDRVQcow2State *s, uint64_t flush)
{
    FreeBatch *batch;

    if (s->frees) {
        list_for_each(batch, &s->frees->closed, node) {
            batch->durable |= batch->flush <= flush;
        }
    }
}

/* The oldest batch that nothing stands in the way of, taken off the list. */
static FreeBatch *REQUIRES(driver_class) take_ready(BDRVQcow2State *s)
{
    FreeBatch *batch;

    if (!s->frees) {
        return NULL;
    }
    list_for_each(batch, &s->frees->closed, node) {
        if (batch->durable && qcow2_grace_over(s, &batch->grace)) {
            list_remove(&batch->node);
            return batch;
        }
    }
    return NULL;
}

bool qcow2_frees_pending(const BDRVQcow2State *s)
{
    return s->frees && s->frees->n_runs > 0;
}

/* ---- Freeing ---- */

/*
 * How many clusters from @offset on are alike: only we refer to them, or others
 * do as well?  Ends with the refcount block, at the latest.
 */
static int REQUIRES(driver_class)
count_alike(BlockDriverState *bs, int64_t offset, int64_t bytes,
            int64_t *alike, bool *only_ours)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t first = offset >> s->cluster_bits;
    uint64_t end = MIN(first + (bytes >> s->cluster_bits),
                       qcow2_refblock_end(s, first));
    uint64_t c = first;
    Qcow2Table *t;
    int ret = qcow2_refblock_get(bs, first, &t);

    if (ret < 0) {
        return ret;
    }
    /* Without a block: qcow2_update_refcount() will complain. */
    *only_ours = t && qcow2_refblock_read(s, t, first) == 1;
    while (t && c < end &&
           (qcow2_refblock_read(s, t, c) == 1) == *only_ours) {
        c++;
    }
    *alike = (t ? c - first : end - first) << s->cluster_bits;
    if (*only_ours && s->free_byte_offset >= offset &&
        s->free_byte_offset < offset + *alike) {
        s->free_byte_offset = 0;
    }
    return 0;
}

static void REQUIRES(driver_class)
forget_tables(BDRVQcow2State *s, int64_t offset, int64_t bytes)
{
    while (s->flush_running) {
        driver_wait(&s->cond, &s->lock);
    }
    qcow2_cache_forget(s->l2_cache, offset, bytes);
    qcow2_cache_forget(s->refcount_cache, offset, bytes);
    qcow2_metadata_remove(s, offset, bytes, QCOW2_OL_ALL);
}

static void REQUIRES(driver_class)
punch(BlockDriverState *bs, int64_t offset, int64_t bytes,
      Qcow2DiscardType type)
{
    BDRVQcow2State *s = bs->opaque;
    bool pass = s->discard_passthrough[type];

    driver_unlock(&s->lock);
    bdrv_debug_event(bs->file->bs, "cluster_free");
    if (pass) {
        /* Advice: what cannot be punched is free all the same. */
        (void)bdrv_pdiscard(bs->file, offset, bytes);
    }
    driver_lock(&s->lock);
}

/* Part of a run; *done: how much of it there is no need to try again. */
static int REQUIRES(driver_class)
free_part(BlockDriverState *bs, const FreeRun *run, int64_t *done)
{
    BDRVQcow2State *s = bs->opaque;
    bool only_ours;
    int ret;

    *done = 0;
    ret = count_alike(bs, run->offset, run->bytes, done, &only_ours);
    if (ret < 0) {
        return ret;
    }
    if (qcow2_metadata_overlap(s, QCOW2_OL_MAIN_HEADER, run->offset, *done) ||
        (only_ours && qcow2_kinds_in_use(s, run->offset, *done))) {
        /* It was not allocated, or is two things at once: a table lies. */
        qcow2_signal_corruption_locked(bs, true, run->offset, *done,
            "Preventing metadata in use from being freed at offset %#" PRIx64,
            run->offset);
        return -EIO;
    }
    if (only_ours) {
        if (qcow2_metadata_overlap(s, QCOW2_OL_ALL, run->offset, *done)) {
            forget_tables(s, run->offset, *done);
        }
        punch(bs, run->offset, *done, run->type);
    }
    ret = qcow2_update_refcount(bs, run->offset, *done, -1);
    if (ret < 0) {
        *done = 0;
    }
    return ret;
}

static int REQUIRES(driver_class)
free_run(BlockDriverState *bs, FreeRun *run)
{
    BDRVQcow2State *s = bs->opaque;

    while (run->bytes > 0) {
        int64_t done;
        int ret = qatomic_read(&s->corrupt) ? -EIO : free_part(bs, run, &done);

        if (ret < 0) {
            return ret;
        }
        run->offset += done;
        run->bytes -= done;
        s->frees->bytes -= done;
    }
    s->frees->n_runs--;
    return 0;
}

static int REQUIRES(driver_class)
free_batch(BlockDriverState *bs, FreeBatch *batch)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    for (guint i = 0; i < batch->runs->len; i++) {
        FreeRun *run = &g_array_index(batch->runs, FreeRun, i);

        if (ret == 0) {
            ret = free_run(bs, run);
        }
        if (ret < 0) {
            s->frees->n_runs--;
            s->frees->bytes -= run->bytes;
            queue_run(s->frees, run);
        }
    }
    g_array_free(batch->runs, true);
    g_free(batch);
    return ret;
}

int qcow2_process_frees(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    FreeBatch *batch;
    int ret = 0;

    if (qatomic_read(&s->corrupt)) {
        return qcow2_frees_pending(s) ? -EIO : 0;
    }
    while (ret == 0 && (batch = take_ready(s))) {
        ret = free_batch(bs, batch);
        qemu_cond_broadcast(&s->cond);
    }
    if (ret < 0) {
        qatomic_set(&s->metadata_dirty, true);
    }
    return ret;
}

void qcow2_frees_relieve(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->frees && (s->frees->n_runs > MAX_RUNS ||
                     s->frees->bytes > MAX_BYTES) && s->frees->open) {
        /* If this fails, those who flush themselves will be told. */
        if (qcow2_flush_metadata(bs) == 0) {
            (void)qcow2_process_frees(bs);
        }
    }
}

static void batch_free(FreeBatch *batch)
{
    if (batch) {
        g_array_free(batch->runs, true);
        g_free(batch);
    }
}

void qcow2_frees_destroy(BDRVQcow2State *s)
{
    FreeBatch *batch, *next;

    if (!s->frees) {
        return;
    }
    list_for_each_safe(batch, next, &s->frees->closed, node) {
        list_remove(&batch->node);
        batch_free(batch);
    }
    batch_free(s->frees->open);
    g_clear_pointer(&s->frees, g_free);
}
