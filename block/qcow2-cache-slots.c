/*
 * qcow2: which table is in which slot of a cache.
 *
 * A slot is found by the chain of its hash bucket.  The memory of slots comes
 * when they are used for the first time; then they are reused, when they are
 * clean and a clock hand passes them for the second time since somebody looked.
 * What nobody looked at for some time is dropped, and its memory given back, if
 * the user asks for that (qcow2-clean.c).
 *
 * Readers follow chains while they change: see qcow2-cache.c.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#ifdef __linux__
#include <sys/mman.h>
#endif
#include "qcow2-cache-int.h"

/* Cached bytes, at least; a power of two, as tables are. */
#define LARGE_PAGES_FROM (2 * MiB)

/* ---- Chains ---- */

static uint32_t number_of(const Qcow2Table *t)
{
    return 1 + (t - t->cache->tables);
}

void qcow2_table_link(Qcow2Table *t, int64_t offset)
{
    uint32_t *bucket = qcow2_cache_bucket(t->cache, offset);

    qatomic_store_release(&t->offset, offset);
    qatomic_store_release(&t->next, qatomic_read(bucket));
    qatomic_store_release(bucket, number_of(t));
}

static void unlink_table(Qcow2Table *t)
{
    Qcow2Cache *c = t->cache;
    uint32_t *link = qcow2_cache_bucket(c, t->offset);

    while (*link != number_of(t)) {
        link = &c->tables[*link - 1].next;
    }
    qatomic_store_release(link, t->next);
    qatomic_store_release(&t->offset, 0);
}

void qcow2_table_drop(Qcow2Table *t)
{
    qcow2_table_begin_change(t);
    unlink_table(t);
    qcow2_table_set_dirty(t, false);
    qcow2_table_set_writing(t, false);
    qatomic_set(&t->used, 0);
}

/* ---- A slot for a table ---- */

/*
 * The memory of slots comes when they are touched, a page at a time, which
 * costs more than reading the tables from the host's cache.  An image that
 * needs so much of its cache will need more: from here on in large pages.
 */
static void use_large_pages(Qcow2Cache *c)
{
#ifdef __linux__
    size_t used = c->n_touched * c->table_size;

    if (used == LARGE_PAGES_FROM) {
        /* Advice: if it is refused, nothing is lost but time. */
        (void)madvise(c->data + used, c->n_tables * c->table_size - used,
                      MADV_HUGEPAGE);
    }
#endif
}

static Qcow2Table *fresh_slot(Qcow2Cache *c)
{
    Qcow2Table *t = &c->tables[c->n_touched];

    use_large_pages(c);
    memset(t, 0, sizeof(*t));
    t->cache = c;
    t->words = (uint64_t *)(c->data + c->n_touched * c->table_size);
    t->seq = 1;
    c->n_touched++;
    return t;
}

/* In the second round what is clean goes, however often readers look at it. */
Qcow2Table *qcow2_cache_take_slot(Qcow2Cache *c)
{
    if (c->n_touched < c->n_tables) {
        return fresh_slot(c);
    }
    for (uint64_t i = 0; i < 2 * (uint64_t)c->n_tables; i++) {
        Qcow2Table *t = &c->tables[c->hand];
        uint32_t used = qatomic_read(&t->used);

        c->hand = c->hand + 1 == c->n_tables ? 0 : c->hand + 1;
        if (t->loading || t->dirty || t->writing) {
            continue;
        }
        if ((used & USED_CLOCK) && i < c->n_tables) {
            qatomic_set(&t->used, used & ~USED_CLOCK);
            continue;
        }
        if (t->offset) {
            qcow2_table_drop(t);
        }
        return t;
    }
    return NULL;
}

/* ---- Forgetting ---- */

static void forget_table(Qcow2Table *t)
{
    if (t->loading) {
        t->stale = true;
    } else {
        qcow2_table_drop(t);
    }
}

void qcow2_cache_forget(Qcow2Cache *c, int64_t offset, int64_t bytes)
{
    int64_t end = offset + bytes;
    int64_t i;

    if ((end - offset) / (int64_t)c->table_size > c->n_touched) {
        for (unsigned n = 0; n < c->n_touched; n++) {
            Qcow2Table *t = &c->tables[n];

            if (t->offset && t->offset >= offset && t->offset < end) {
                forget_table(t);
            }
        }
        return;
    }
    for (i = QEMU_ALIGN_DOWN(offset, (int64_t)c->table_size); i < end;
         i += c->table_size) {
        Qcow2Table *t = qcow2_cache_find(c, i, INT_MAX);

        if (t && i >= offset) {
            forget_table(t);
        }
    }
}

/* ---- Giving memory back ---- */

/* Give the memory of slots @from … @end - 1, which are empty, back. */
static void release_memory(Qcow2Cache *c, unsigned from, unsigned end)
{
#ifdef __linux__
    if (end > from && QEMU_IS_ALIGNED(c->table_size, 4096)) {
        /* Advice: if it is refused, nothing is lost but memory. */
        (void)madvise(c->data + from * c->table_size,
                      (end - from) * c->table_size, MADV_DONTNEED);
    }
#endif
}

void qcow2_cache_clean_unused(Qcow2Cache *c)
{
    unsigned from = 0;

    for (unsigned n = 0; n < c->n_touched; n++) {
        Qcow2Table *t = &c->tables[n];
        uint32_t used = qatomic_read(&t->used);

        if (!t->loading && !t->dirty && !t->writing &&
            !(used & USED_CLEAN)) {
            if (t->offset) {
                qcow2_table_drop(t);
            }
            continue;
        }
        qatomic_set(&t->used, used & ~USED_CLEAN);
        release_memory(c, from, n);
        from = n + 1;
    }
    release_memory(c, from, c->n_touched);
}
