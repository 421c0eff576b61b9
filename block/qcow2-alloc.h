/*
 * qcow2: what the files that allocate, free and write share among themselves.
 * The rest of the driver sees block/qcow2.h only.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_ALLOC_H
#define BLOCK_QCOW2_ALLOC_H

#include "qcow2.h"

typedef struct Qcow2ReftableCopy Qcow2ReftableCopy;

/* ---- qcow2-refcount.c ---- */

/* The block that counts cluster number @cluster, NULL if there is none (then
 * the cluster is free).  May drop the lock. */
int qcow2_refblock_get(BlockDriverState *bs, uint64_t cluster, Qcow2Table **t)
    REQUIRES(driver_class);
/* The refcounts of @n clusters from @cluster on, which are in block @t. */
uint64_t qcow2_refblock_read(const BDRVQcow2State *s, Qcow2Table *t,
                             uint64_t cluster) REQUIRES(driver_class);
void qcow2_refblock_fill(BDRVQcow2State *s, Qcow2Table *t, uint64_t cluster,
                         uint64_t n, uint64_t refcount) REQUIRES(driver_class);
/* The number of the first cluster after those of the block of @cluster. */
uint64_t qcow2_refblock_end(const BDRVQcow2State *s, uint64_t cluster);
/* The number of the first cluster that can never be allocated. */
uint64_t qcow2_max_clusters(const BDRVQcow2State *s);

/* The block that entry @index of the table points at. */
void qcow2_reftable_set(BDRVQcow2State *s, uint64_t index, int64_t offset)
    REQUIRES(driver_class);
/* Write-back of the refcount table; as those of caches. */
bool qcow2_reftable_is_dirty(const BDRVQcow2State *s) REQUIRES(driver_class);
int qcow2_reftable_copy_dirty(BlockDriverState *bs, Qcow2ReftableCopy **copy)
    REQUIRES(driver_class);
int qcow2_reftable_write_copy(BlockDriverState *bs, Qcow2ReftableCopy *copy)
    REQUIRES(driver_class);
void qcow2_reftable_drop_copy(BDRVQcow2State *s, Qcow2ReftableCopy *copy)
    REQUIRES(driver_class);

/* ---- qcow2-refblock.c ---- */

/*
 * Make the missing block of @cluster (or wait while others make one: look
 * again).  It will not be in the way of @left clusters from @cluster on, which
 * is what an allocation of @want still needs; if that cannot be, it leaves room
 * for all @want of them behind it.  May drop the lock.
 */
int qcow2_refblock_make(BlockDriverState *bs, uint64_t cluster, uint64_t left,
                        uint64_t want) REQUIRES(driver_class);

/* ---- qcow2-alloc.c ---- */

/* Note that these clusters are, or may be, written from now on.  True: nothing
 * ever was there, so the file reads as zeroes. */
bool qcow2_note_used(BlockDriverState *bs, uint64_t first, uint64_t n)
    REQUIRES(driver_class);

/* As qcow2_alloc_clusters(); *@fresh: the file was never written there, so it
 * reads as zeroes. */
int64_t qcow2_alloc_data(BlockDriverState *bs, int64_t bytes, bool *fresh)
    REQUIRES(driver_class);

/* ---- qcow2-free.c ---- */

/* A full flush, number @flush, is about to copy the tables: it is the one that
 * what was freed so far waits for. */
void qcow2_frees_flush_begins(BDRVQcow2State *s, uint64_t flush)
    REQUIRES(driver_class);
/* All that flush @flush was to write is durable. */
void qcow2_frees_flush_done(BDRVQcow2State *s, uint64_t flush)
    REQUIRES(driver_class);
/* If much is waiting to be freed: flush, free.  The caller holds no pin.  May
 * drop the lock. */
void qcow2_frees_relieve(BlockDriverState *bs) REQUIRES(driver_class);
/* Is anything waiting at all? */
bool qcow2_frees_pending(const BDRVQcow2State *s) REQUIRES(driver_class);

/* ---- qcow2-inflight.c ---- */

/* If a guest cluster of the range is in flight, wait until one is not any more;
 * whether it did: then the lock was dropped. */
bool qcow2_inflight_wait(BDRVQcow2State *s, int64_t offset, int64_t bytes)
    REQUIRES(driver_class);
/* Wait until no guest cluster of the range is in flight, then register it;
 * @f is the caller's.  May drop the lock. */
void qcow2_inflight_begin(BDRVQcow2State *s, Qcow2Inflight *f, int64_t offset,
                          int64_t bytes) REQUIRES(driver_class);
/* Only the first @bytes after all. */
void qcow2_inflight_shrink(BDRVQcow2State *s, Qcow2Inflight *f, int64_t bytes)
    REQUIRES(driver_class);
void qcow2_inflight_end(BDRVQcow2State *s, Qcow2Inflight *f)
    REQUIRES(driver_class);

/* The guest clusters that the range touches, cut where their L2 slice ends;
 * returns the bytes of the range that are in it. */
int64_t qcow2_slice_part(const BDRVQcow2State *s, int64_t offset, int64_t bytes,
                         int64_t *start, int64_t *length);

/* ---- Entries of L2 tables ---- */

typedef struct Qcow2Entry {
    uint64_t l2, bitmap;            /* bitmap: 0 without extended entries */
} Qcow2Entry;

static inline Qcow2Entry REQUIRES(driver_class)
qcow2_entry_get(const BDRVQcow2State *s, const Qcow2Table *t, unsigned index)
{
    unsigned word = index * s->l2_entry_words;
    Qcow2Entry e = { .l2 = qcow2_table_get64(t, word) };

    if (s->l2_entry_words > 1) {
        e.bitmap = qcow2_table_get64(t, word + 1);
    }
    return e;
}

static inline void REQUIRES(driver_class)
qcow2_entry_set(BDRVQcow2State *s, Qcow2Table *t, unsigned index, Qcow2Entry e)
{
    unsigned word = index * s->l2_entry_words;

    if (s->l2_entry_words > 1) {
        qcow2_table_set_pair(s, t, word, e.l2, e.bitmap);
    } else {
        qcow2_table_set64(s, t, word, e.l2);
    }
}

/* ---- qcow2-place.c ---- */

/* Whether clusters were set aside for all of these guest clusters, no more and
 * no fewer; they are the caller's then. */
bool qcow2_place_take(BDRVQcow2State *s, int64_t start, int64_t length,
                      int64_t *host, bool *fresh) REQUIRES(driver_class);

/* ---- qcow2-write.c ---- */

/* Uncompressed. */
int qcow2_write_normal(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags);

/* ---- qcow2-write-compressed.c ---- */

/* Whole clusters, but for the end of the disk.  -EINVAL for others. */
int qcow2_write_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                           QEMUIOVector *qiov, size_t qiov_offset);
/* One cluster; the vector holds what qcow2_compress_cluster() made of it, in
 * one entry, from @qiov_offset to its end.  -EINVAL: it does not. */
int qcow2_write_compressed_data(BlockDriverState *bs, int64_t offset,
                                int64_t bytes, QEMUIOVector *qiov,
                                size_t qiov_offset);

#endif
