/*
 * qcow2: a cache of metadata tables: L2 slices, or refcount blocks.
 *
 * Any table can be in any slot (qcow2-cache-slots.c).  It gets there when it is
 * wanted (qcow2-cache-load.c), changes here, and is written back when a flush
 * says so, or when there is no clean slot (qcow2-cache-write.c).
 *
 * Readers of L2 slices take no lock (qcow2_cache_peek()).  Buckets, chains,
 * offsets and the words of tables are atomic; a slot has a sequence count, odd
 * while it changes or belongs to no table that is complete.  A reader takes
 * the count, the words, and the count again.  Words are stored with release
 * and loaded with acquire: whoever sees a new word sees that the count has
 * moved, so there is no fence, and a race detector can follow it.  A chain
 * that changes under a reader may lead it astray: it gives up after a few
 * steps, and its caller takes the lock.  Slots and their memory are never
 * freed while the cache exists.  Tables are kept as on disk, big-endian; a
 * word is swapped when read.
 *
 * The lock (s->lock) guards the rest, and is not held over I/O.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-cache-int.h"

/* Steps along a chain that a reader believes in; under the lock it is whole. */
#define MAX_STEPS 16
#define MAX_TRIES 4

/* ---- New, free ---- */

Qcow2Cache *qcow2_cache_new(size_t table_size, unsigned n_tables)
{
    Qcow2Cache *c = g_new0(Qcow2Cache, 1);

    assert(is_power_of_2(table_size) && table_size >= 512 && n_tables > 0);
    c->table_size = table_size;
    c->table_shift = ctz64(table_size);
    c->n_tables = n_tables;
    list_init(&c->dirty);
    c->bucket_bits = n_tables == 1 ? 1 : 64 - clz64(n_tables - 1);
    c->buckets = g_try_new0(uint32_t, (size_t)1 << c->bucket_bits);
    if (n_tables <= SIZE_MAX / MAX(table_size, sizeof(Qcow2Table))) {
        c->tables = qemu_try_memalign(64, n_tables * sizeof(Qcow2Table));
        c->data = qemu_try_memalign(4096, n_tables * table_size);
    }
    if (!c->buckets || !c->tables || !c->data) {
        qcow2_cache_free(c);
        return NULL;
    }
    return c;
}

void qcow2_cache_free(Qcow2Cache *c)
{
    if (c) {
        g_free(c->buckets);
        qemu_vfree(c->tables);
        qemu_vfree(c->data);
        g_free(c);
    }
}

/* ---- Finding ---- */

/* False: the slot has changed meanwhile. */
static bool try_peek(Qcow2Table *t, int64_t offset, unsigned index,
                     unsigned n, uint64_t *words)
{
    uint64_t seq = qatomic_load_acquire(&t->seq);
    const uint64_t *from = t->words + index;

    if ((seq & 1) || qatomic_load_acquire(&t->offset) != offset) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        words[i] = GUINT64_FROM_BE(qatomic_load_acquire(&from[i]));
    }
    return qatomic_read(&t->seq) == seq;
}

bool qcow2_cache_peek(Qcow2Cache *c, int64_t offset, unsigned index,
                      unsigned n, uint64_t *words)
{
    for (int tries = 0; tries < MAX_TRIES; tries++) {
        Qcow2Table *t = qcow2_cache_find(c, offset, MAX_STEPS);

        if (!t) {
            return false;
        }
        if (likely(try_peek(t, offset, index, n, words))) {
            qcow2_table_mark_used(t);
            return true;
        }
        cpu_relax();
    }
    return false;
}

/* ---- Contents, under the lock ---- */

uint64_t qcow2_table_get64(const Qcow2Table *t, unsigned index)
{
    return GUINT64_FROM_BE(qatomic_read(&t->words[index]));
}

static void store_word(Qcow2Table *t, unsigned index, uint64_t be)
{
    qatomic_store_release(&t->words[index], be);
}

/* Marked first: who sees a new word sees that the image is dirty. */
void qcow2_table_set64(BDRVQcow2State *s, Qcow2Table *t, unsigned index,
                       uint64_t value)
{
    qcow2_table_mark_dirty(s, t);
    qcow2_table_begin_change(t);
    store_word(t, index, GUINT64_TO_BE(value));
    qcow2_table_end_change(t);
}

void qcow2_table_set_pair(BDRVQcow2State *s, Qcow2Table *t, unsigned index,
                          uint64_t first, uint64_t second)
{
    qcow2_table_mark_dirty(s, t);
    qcow2_table_begin_change(t);
    store_word(t, index, GUINT64_TO_BE(first));
    store_word(t, index + 1, GUINT64_TO_BE(second));
    qcow2_table_end_change(t);
}

uint8_t *qcow2_table_bytes(Qcow2Table *t)
{
    return (uint8_t *)t->words;
}

void qcow2_table_mark_dirty(BDRVQcow2State *s, Qcow2Table *t)
{
    qcow2_table_set_dirty(t, true);
    qatomic_store_release(&s->metadata_dirty, true);
}
