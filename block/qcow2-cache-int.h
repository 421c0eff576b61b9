/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: what the files of the cache of tables share; qcow2-cache.c says how it
 * works.
 *
 *   qcow2-cache.c        what is in a table: readers, who take no lock, changes
 *   qcow2-cache-load.c   how a table gets into a slot
 *   qcow2-cache-slots.c  which table is in which slot
 *   qcow2-cache-write.c  how what is dirty reaches the disk
 *
 * All but the look-up and "used" need the lock.
 */
#ifndef BLOCK_QCOW2_CACHE_INT_H
#define BLOCK_QCOW2_CACHE_INT_H

#include "qcow2.h"
#include "qemu/atomic.h"

/* What "used" holds: not passed by the hand, not by clean_unused, since. */
enum {
    USED_CLOCK = 1 << 0,
    USED_CLEAN = 1 << 1,
    USED_BOTH  = USED_CLOCK | USED_CLEAN,
};

struct Qcow2Table {
    /* Atomic.  Words of their own: compilers join neighbouring flags. */
    uint64_t seq;                   /* odd: do not believe what you see */
    int64_t offset;                 /* 0: none */
    uint32_t next;                  /* of the bucket: 1 + its number */
    uint32_t used;
    /* Constant. */
    Qcow2Cache *cache;
    uint64_t *words;                /* atomic; big-endian */
    /* Under the lock. */
    ListNode dirty_node;            /* c->dirty */
    bool loading;
    bool stale;                     /* forgotten while it was loaded */
    bool dirty;
    bool writing;                   /* a copy is to be written */
} __attribute__((aligned(64)));

struct Qcow2Cache {
    /* Constant. */
    size_t table_size;              /* bytes */
    unsigned table_shift;
    unsigned n_tables;
    unsigned bucket_bits;
    uint32_t *buckets;              /* atomic: 1 + number of the first */
    Qcow2Table *tables;
    uint8_t *data;
    /* Under the lock. */
    unsigned n_touched;             /* slots from here on are still fresh */
    unsigned hand;
    List dirty;
    unsigned n_dirty;
    unsigned n_writing;
};

/* ---- Finding ---- */

static inline uint32_t *qcow2_cache_bucket(const Qcow2Cache *c, int64_t offset)
{
    uint64_t h = ((uint64_t)offset >> c->table_shift) * 0x9e3779b97f4a7c15u;

    return &c->buckets[h >> (64 - c->bucket_bits)];
}

/* Under the lock a chain is whole, however long. */
static inline Qcow2Table *qcow2_cache_find(const Qcow2Cache *c, int64_t offset,
                                           int max_steps)
{
    uint32_t i = qatomic_load_acquire(qcow2_cache_bucket(c, offset));

    while (i && max_steps--) {
        Qcow2Table *t = &c->tables[i - 1];

        if (qatomic_read(&t->offset) == offset) {
            return t;
        }
        i = qatomic_load_acquire(&t->next);
    }
    return NULL;
}

static inline void qcow2_table_mark_used(Qcow2Table *t)
{
    if (qatomic_read(&t->used) != USED_BOTH) {
        qatomic_set(&t->used, USED_BOTH);
    }
}

/* ---- Changing a slot, under the lock ---- */

static inline void qcow2_table_begin_change(Qcow2Table *t)
{
    qatomic_set(&t->seq, t->seq | 1);
}

static inline void qcow2_table_end_change(Qcow2Table *t)
{
    qatomic_store_release(&t->seq, t->seq + 1);
}

static inline void qcow2_table_set_dirty(Qcow2Table *t, bool dirty)
{
    if (t->dirty == dirty) {
        return;
    }
    t->dirty = dirty;
    if (dirty) {
        list_push_back(&t->cache->dirty, &t->dirty_node);
        t->cache->n_dirty++;
    } else {
        list_remove(&t->dirty_node);
        t->cache->n_dirty--;
    }
}

static inline void qcow2_table_set_writing(Qcow2Table *t, bool writing)
{
    t->cache->n_writing += writing - t->writing;
    t->writing = writing;
}

/* ---- qcow2-cache-slots.c ---- */

/* From now on the slot is that of the table at @offset. */
void qcow2_table_link(Qcow2Table *t, int64_t offset);
/* The slot holds nothing any more.  Its count stays odd. */
void qcow2_table_drop(Qcow2Table *t);
/* A slot that is empty, or NULL: all are loading or to be written first. */
Qcow2Table *qcow2_cache_take_slot(Qcow2Cache *c);

#endif
