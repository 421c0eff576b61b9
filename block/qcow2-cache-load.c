/*
 * qcow2: how a table gets into a cache.
 *
 * The lock (s->lock) is not held over I/O: a slot that is being read into is
 * "loading", and who wants the same table waits for s->cond.  The file's bytes
 * arrive in a buffer of their own, since a reader may still be looking at the
 * slot.  Who goes from table to table in the order of the file gets several at
 * once, to the end of the cluster: what is behind it may be no table.
 *
 * If no slot is clean, the one who needs one has everything written back, or
 * waits for whoever writes.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-cache-int.h"

/* Tables that are read at once: 64 KiB of L2 slices as they are by default. */
#define MAX_BATCH 16

/* ---- A slot for a table ---- */

/* Wait until qcow2_cache_take_slot() may find something.  Drops the lock. */
static int REQUIRES(driver_class) make_room(BlockDriverState *bs, Qcow2Cache *c)
{
    BDRVQcow2State *s = bs->opaque;

    if (qcow2_cache_is_dirty(c)) {
        return qcow2_write_back_metadata(bs);
    }
    driver_wait(&s->cond, &s->lock);
    return 0;
}

/*
 * The slot of the table at @offset: complete, and then *found; or empty and
 * unlinked.  The lock was not dropped since it was looked for.
 */
static int REQUIRES(driver_class)
find_or_take(BlockDriverState *bs, Qcow2Cache *c, int64_t offset,
             Qcow2Table **t, bool *found)
{
    BDRVQcow2State *s = bs->opaque;

    for (;;) {
        int ret;

        *t = qcow2_cache_find(c, offset, INT_MAX);
        if (*t && (*t)->loading) {
            driver_wait(&s->cond, &s->lock);
            continue;
        }
        *found = *t;
        if (*t) {
            qcow2_table_mark_used(*t);
            return 0;
        }
        *t = qcow2_cache_take_slot(c);
        if (*t) {
            /* Not for the clock: one that is used just once goes first. */
            qatomic_set(&(*t)->used, USED_CLEAN);
            return 0;
        }
        ret = make_room(bs, c);
        if (ret < 0) {
            return ret;
        }
    }
}

/* ---- Loading ---- */

/* Fill the slot from @buf, NULL for zeroes, and let readers see it. */
static void fill(Qcow2Table *t, const uint64_t *buf)
{
    size_t n = t->cache->table_size / sizeof(uint64_t);
    uint64_t *words = t->words;

    qcow2_table_begin_change(t);
    for (size_t i = 0; i < n; i++) {
        qatomic_store_release(&words[i], buf ? buf[i] : 0);
    }
    qcow2_table_end_change(t);
}

/* Tables that lie one behind the other in the file, loading. */
typedef struct Batch {
    Qcow2Table *tables[MAX_BATCH];
    unsigned n;
} Batch;

static void batch_add(Batch *b, Qcow2Table *t, int64_t offset)
{
    t->loading = true;
    t->stale = false;
    qcow2_table_link(t, offset);
    b->tables[b->n++] = t;
}

/* The tables that follow those in @b, if the one before them is cached. */
static void read_ahead(const BDRVQcow2State *s, Qcow2Cache *c, Batch *b)
{
    int64_t size = c->table_size;
    int64_t next = b->tables[0]->offset + size;

    if (!qcow2_cache_find(c, next - 2 * size, INT_MAX)) {
        return;
    }
    while (b->n < MIN(MAX_BATCH, c->n_tables / 4) &&
           (next & (s->cluster_size - 1)) &&
           !qcow2_cache_find(c, next, INT_MAX)) {
        Qcow2Table *t = qcow2_cache_take_slot(c);

        if (!t) {
            return;
        }
        qatomic_set(&t->used, USED_CLEAN);
        batch_add(b, t, next);
        next += size;
    }
}

/* *@n tables; if that does not go, one. */
static int read_tables(BlockDriverState *bs, int64_t offset, size_t size,
                       unsigned *n, uint64_t **buf)
{
    int ret = -ENOMEM;

    *buf = qemu_try_memalign(bs->file->bs->bl.opt_mem_alignment, *n * size);
    if (*buf) {
        ret = bdrv_pread(bs->file, offset, *n * size, *buf, 0);
        if (ret < 0 && *n > 1) {
            *n = 1;
            ret = bdrv_pread(bs->file, offset, size, *buf, 0);
        }
    }
    return ret;
}

/* Read the tables, which are linked and loading.  Drops the lock.  1: the first
 * one was forgotten meanwhile. */
static int REQUIRES(driver_class) load(BlockDriverState *bs, const Batch *b)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *first = b->tables[0];
    size_t size = first->cache->table_size;
    int64_t offset = first->offset;
    unsigned n = b->n;
    uint64_t *buf;
    int ret;

    driver_unlock(&s->lock);
    ret = read_tables(bs, offset, size, &n, &buf);
    driver_lock(&s->lock);
    for (unsigned i = 0; i < b->n; i++) {
        Qcow2Table *t = b->tables[i];

        t->loading = false;
        if (ret < 0 || i >= n || t->stale) {
            qcow2_table_drop(t);
        } else {
            fill(t, buf + i * (size / sizeof(*buf)));
        }
    }
    qemu_cond_broadcast(&s->cond);
    qemu_vfree(buf);
    return ret < 0 ? ret : first->stale;
}

static bool is_valid_offset(const Qcow2Cache *c, int64_t offset)
{
    return offset > 0 && QEMU_IS_ALIGNED(offset, (int64_t)c->table_size) &&
           offset <= INT64_MAX - (int64_t)c->table_size;
}

int qcow2_cache_get(BlockDriverState *bs, Qcow2Cache *c, int64_t offset,
                    Qcow2Table **t)
{
    bool found;
    int ret;

    if (!is_valid_offset(c, offset)) {
        return -EIO;
    }
    do {
        Batch batch = { .n = 0 };

        ret = find_or_take(bs, c, offset, t, &found);
        if (ret < 0 || found) {
            return ret;
        }
        batch_add(&batch, *t, offset);
        read_ahead(bs->opaque, c, &batch);
        ret = load(bs, &batch);
    } while (ret > 0);
    return ret;
}

int qcow2_cache_get_empty(BlockDriverState *bs, Qcow2Cache *c, int64_t offset,
                          Qcow2Table **t)
{
    BDRVQcow2State *s = bs->opaque;
    bool found;
    int ret;

    if (!is_valid_offset(c, offset)) {
        return -EIO;
    }
    ret = find_or_take(bs, c, offset, t, &found);
    if (ret < 0) {
        return ret;
    }
    if (!found) {
        qcow2_table_link(*t, offset);
    }
    qcow2_table_mark_dirty(s, *t);
    fill(*t, NULL);
    return 0;
}
