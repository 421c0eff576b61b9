/*
 * qcow2 check: how often each cluster is referred to.
 *
 * A count is a byte, which is enough for nearly all clusters of all images; the
 * few that need more are in a hash table, and their byte says MANY.  The bytes
 * are one anonymous mapping, so what is never counted takes no memory, and a
 * bitmap of its pages says where there is anything to look at: a file may be
 * much larger than what is in it.
 *
 * Several threads may count.  A run of clusters is counted eight at a time by a
 * compare and swap of a word; bytes that are about to become MANY are counted
 * one by one, and the hash table has a lock.  A byte that is MANY stays so.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/atomic.h"
#include "qcow2-check.h"

#define ONES UINT64_C(0x0101010101010101)
#define TOPS (ONES << 7)
/* 64 GiB of bytes, of which only those that count something take memory. */
#define MAX_CLUSTERS (INT64_C(1) << 36)

struct Qcow2RefMap {
    int64_t n;                      /* a multiple of QCOW2_REFS_PAGE */
    uint8_t *bytes;                 /* atomic, also as words */
    uint64_t *pages;                /* atomic: a bit a page, may be not 0 */
    LeafLock lock;
    GHashTable *many GUARDED_BY(leaf_class);
    uint64_t max GUARDED_BY(leaf_class);
};

static gpointer key_of(int64_t cluster)
{
    return (gpointer)(uintptr_t)cluster;
}

Qcow2RefMap *qcow2_refs_new(int64_t clusters)
{
    Qcow2RefMap *m;
    void *bytes;

    if (clusters > MAX_CLUSTERS) {
        return NULL;
    }
    clusters = QEMU_ALIGN_UP(MAX(clusters, 1), QCOW2_REFS_PAGE);
    bytes = mmap(NULL, clusters, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED) {
        return NULL;
    }
    m = g_new0(Qcow2RefMap, 1);
    m->n = clusters;
    m->bytes = bytes;
    m->pages = g_new0(uint64_t, DIV_ROUND_UP(clusters / QCOW2_REFS_PAGE, 64));
    leaf_init(&m->lock);
    leaf_lock(&m->lock);
    m->many = g_hash_table_new(NULL, NULL);
    leaf_unlock(&m->lock);
    return m;
}

void qcow2_refs_free(Qcow2RefMap *m)
{
    if (m) {
        munmap(m->bytes, m->n);
        g_free(m->pages);
        leaf_lock(&m->lock);
        g_hash_table_destroy(m->many);
        leaf_unlock(&m->lock);
        leaf_destroy(&m->lock);
        g_free(m);
    }
}

/* ---- Counting ---- */

/* The memory of a page comes with a write: reading first, as counting does,
 * would map zeroes, which all processors have to forget again. */
static void touch(Qcow2RefMap *m, int64_t first, int64_t last)
{
    for (int64_t p = first / QCOW2_REFS_PAGE; p <= last / QCOW2_REFS_PAGE;
         p++) {
        uint64_t bit = UINT64_C(1) << p % 64;

        if (!(qatomic_read(&m->pages[p / 64]) & bit)) {
            qatomic_or(&m->bytes[p * QCOW2_REFS_PAGE], 0);
            qatomic_or(&m->pages[p / 64], bit);
        }
    }
}

static void REQUIRES(leaf_class)
put_many(Qcow2RefMap *m, int64_t cluster, uint64_t refs)
{
    g_hash_table_insert(m->many, key_of(cluster), key_of(refs));
    m->max = MAX(m->max, refs);
}

/* A byte becomes MANY only here, under the lock. */
static void add_many(Qcow2RefMap *m, int64_t cluster)
{
    uint8_t *byte = &m->bytes[cluster];
    uint8_t old;

    leaf_lock(&m->lock);
    do {
        old = qatomic_read(byte);
        if (old == QCOW2_REFS_BYTE_MANY) {
            put_many(m, cluster, 1 + (uintptr_t)
                     g_hash_table_lookup(m->many, key_of(cluster)));
            break;
        }
        if (old + 1 == QCOW2_REFS_BYTE_MANY) {
            put_many(m, cluster, QCOW2_REFS_BYTE_MANY);
        }
    } while (qatomic_cmpxchg(byte, old, old + 1) != old);
    leaf_unlock(&m->lock);
}

static void add_one(Qcow2RefMap *m, int64_t cluster)
{
    uint8_t *byte = &m->bytes[cluster];
    uint8_t old = qatomic_read(byte);

    while (old < QCOW2_REFS_BYTE_MANY - 1) {
        uint8_t seen = qatomic_cmpxchg(byte, old, old + 1);

        if (seen == old) {
            return;
        }
        old = seen;
    }
    add_many(m, cluster);
}

/* Is one of the bytes 253 or more, so that it must not just be added to? */
static bool word_is_full(uint64_t w)
{
    return (((w & ~TOPS) + 3 * ONES) & w & TOPS) != 0;
}

static void add_word(Qcow2RefMap *m, int64_t cluster)
{
    uint64_t *word = (uint64_t *)(m->bytes + cluster);
    uint64_t old = qatomic_read(word);

    while (!word_is_full(old)) {
        uint64_t seen = qatomic_cmpxchg(word, old, old + ONES);

        if (seen == old) {
            return;
        }
        old = seen;
    }
    for (unsigned i = 0; i < 8; i++) {
        add_one(m, cluster + i);
    }
}

void qcow2_refs_add(Qcow2RefMap *m, int64_t first, int64_t n)
{
    int64_t c = first, end = first + n;

    assert(first >= 0 && n > 0 && n <= m->n - first);
    touch(m, first, end - 1);
    for (; c < end && c % 8; c++) {
        add_one(m, c);
    }
    for (; c + 8 <= end; c += 8) {
        add_word(m, c);
    }
    for (; c < end; c++) {
        add_one(m, c);
    }
}

static void REQUIRES(leaf_class)
add_times_locked(Qcow2RefMap *m, int64_t cluster, uint32_t times)
{
    uint8_t *byte = &m->bytes[cluster];
    uint64_t refs;
    uint8_t old;

    do {
        old = qatomic_read(byte);
        refs = times + (old != QCOW2_REFS_BYTE_MANY ? old : (uintptr_t)
                        g_hash_table_lookup(m->many, key_of(cluster)));
        if (refs >= QCOW2_REFS_BYTE_MANY) {
            put_many(m, cluster, refs);
        }
    } while (qatomic_cmpxchg(byte, old, MIN(refs, QCOW2_REFS_BYTE_MANY)) !=
             old);
}

void qcow2_refs_add_times(Qcow2RefMap *m, int64_t first, int64_t n,
                          uint32_t times)
{
    if (times == 1) {
        qcow2_refs_add(m, first, n);
        return;
    }
    assert(first >= 0 && n > 0 && n <= m->n - first);
    touch(m, first, first + n - 1);
    leaf_lock(&m->lock);
    for (int64_t c = first; c < first + n; c++) {
        add_times_locked(m, c, times);
    }
    leaf_unlock(&m->lock);
}

/* ---- One thread ---- */

uint64_t qcow2_refs_get(const Qcow2RefMap *m, int64_t cluster)
{
    Qcow2RefMap *mutable = (Qcow2RefMap *)m;
    uint8_t byte = m->bytes[cluster];
    uint64_t refs;

    if (byte == QCOW2_REFS_BYTE_LOST) {
        return QCOW2_REFS_UNKNOWN;
    }
    if (byte != QCOW2_REFS_BYTE_MANY) {
        return byte;
    }
    leaf_lock(&mutable->lock);
    refs = (uintptr_t)g_hash_table_lookup(m->many, key_of(cluster));
    leaf_unlock(&mutable->lock);
    return refs ? refs : QCOW2_REFS_AS_STORED;
}

void qcow2_refs_set(Qcow2RefMap *m, int64_t cluster, uint64_t refs)
{
    touch(m, cluster, cluster);
    leaf_lock(&m->lock);
    if (m->bytes[cluster] == QCOW2_REFS_BYTE_MANY) {
        g_hash_table_remove(m->many, key_of(cluster));
    }
    if (refs == QCOW2_REFS_UNKNOWN) {
        m->bytes[cluster] = QCOW2_REFS_BYTE_LOST;
    } else if (refs < QCOW2_REFS_BYTE_MANY) {
        m->bytes[cluster] = refs;
    } else {
        m->bytes[cluster] = QCOW2_REFS_BYTE_MANY;
        if (refs != QCOW2_REFS_AS_STORED) {
            put_many(m, cluster, refs);
        }
    }
    leaf_unlock(&m->lock);
}

uint64_t qcow2_refs_max(const Qcow2RefMap *m)
{
    Qcow2RefMap *mutable = (Qcow2RefMap *)m;
    uint64_t max;

    leaf_lock(&mutable->lock);
    max = m->max;
    leaf_unlock(&mutable->lock);
    return max;
}

const uint8_t *qcow2_refs_page(const Qcow2RefMap *m, int64_t page)
{
    return m->pages[page / 64] >> page % 64 & 1 ?
           m->bytes + page * QCOW2_REFS_PAGE : NULL;
}

uint8_t qcow2_refs_byte(const Qcow2RefMap *m, int64_t cluster)
{
    return m->bytes[cluster];
}

bool qcow2_refs_are_alike(const Qcow2RefMap *m, int64_t first, int64_t n)
{
    const uint8_t *bytes = m->bytes + first;

    /* Each is as the one before it. */
    return !memcmp(bytes, bytes + 1, n - 1);
}
