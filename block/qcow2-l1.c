/*
 * qcow2: the L1 table, changed: new L2 tables, write-back, growing.
 *
 * Source: "L1 table entry" of the specification.
 *
 * Entries change in memory, under the lock, by one atomic store each, and a
 * bit a sector says what the disk lacks.  An L2 table that a snapshot shares
 * is copied before it is changed; a table that is not there is made.  One
 * thread at a time does that (s->l2_alloc_busy): it is rare, and takes
 * allocations and slices one after the other, for each of which the lock may
 * be dropped.  The others wait, then find the table.  The L1 entry is set
 * last, when all slices of the new table are in the cache (or, evicted, on the
 * disk).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-copies.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"

#define SECTOR_ENTRIES (BDRV_SECTOR_SIZE / sizeof(uint64_t))

/* ---- Entries ---- */

static size_t n_sectors(const Qcow2L1 *l1)
{
    return DIV_ROUND_UP(l1->size, SECTOR_ENTRIES);
}

/* Words of the bitmap of dirty sectors. */
static size_t dirty_words(const Qcow2L1 *l1)
{
    return DIV_ROUND_UP(n_sectors(l1), 64);
}

static void REQUIRES(driver_class) mark_sector(BDRVQcow2State *s, size_t sector)
{
    s->l1_dirty[sector / 64] |= UINT64_C(1) << (sector % 64);
    qatomic_store_release(&s->metadata_dirty, true);
}

void qcow2_l1_set(BDRVQcow2State *s, unsigned index, uint64_t entry)
{
    assert(index < s->l1->size);
    mark_sector(s, index / SECTOR_ENTRIES);
    qatomic_store_release(&s->l1->entries[index], entry);
}

/* ---- L2 tables for writing ---- */

/* Slice @n of a new table at @new: as that of the one at @old; 0: empty. */
static int REQUIRES(driver_class)
copy_slice(BlockDriverState *bs, int64_t old, int64_t new, uint64_t *words,
           size_t n_words)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    int ret;

    if (old) {
        ret = qcow2_cache_get(bs, s->l2_cache, old, &t);
        if (ret < 0) {
            return ret;
        }
        for (size_t i = 0; i < n_words; i++) {
            words[i] = qcow2_table_get64(t, i);
        }
    }
    ret = qcow2_cache_get_empty(bs, s->l2_cache, new, &t);
    for (size_t i = 0; old && ret == 0 && i < n_words; i++) {
        if (words[i]) {
            qcow2_table_set64(s, t, i, words[i]);
        }
    }
    return ret;
}

static int REQUIRES(driver_class)
copy_table(BlockDriverState *bs, int64_t old, int64_t new)
{
    BDRVQcow2State *s = bs->opaque;
    size_t n_words = (size_t)s->l2_entry_words << s->l2_slice_bits;
    int64_t slice = n_words * sizeof(uint64_t);
    g_autofree uint64_t *words = NULL;
    int ret = 0;

    if (old) {
        driver_unlock(&s->lock);
        words = g_try_new(uint64_t, n_words);
        driver_lock(&s->lock);
        if (!words) {
            return -ENOMEM;
        }
    }
    for (int64_t at = 0; at < s->cluster_size && ret == 0; at += slice) {
        ret = copy_slice(bs, old ? old + at : 0, new + at, words, n_words);
    }
    return ret;
}

/* A cluster for a table, in the set of metadata. */
static int64_t REQUIRES(driver_class) alloc_table(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset = qcow2_alloc_clusters(bs, s->cluster_size);
    int ret;

    if (offset < 0) {
        return offset;
    }
    ret = qcow2_check_overlap_locked(bs, 0, offset, s->cluster_size);
    if (ret < 0) {
        return ret;         /* the cluster is somebody else's: leave it */
    }
    ret = qcow2_metadata_add(s, offset, s->cluster_size, QCOW2_OL_ACTIVE_L2);
    if (ret < 0) {
        qcow2_free_later(bs, offset, s->cluster_size, QCOW2_DISCARD_NEVER);
        return ret;
    }
    return offset;
}

void qcow2_l2_unlist(BDRVQcow2State *s, int64_t offset)
{
    /* The free looks whether another entry refers to it, too. */
    if (!s->l2_shared) {
        qcow2_metadata_remove(s, offset, s->cluster_size, QCOW2_OL_ACTIVE_L2);
    }
}

/* What is left of a table that nothing active refers to any more.  If it is
 * still in use, it is by a snapshot. */
static void REQUIRES(driver_class)
drop_table(BlockDriverState *bs, int64_t offset, Qcow2DiscardType type)
{
    BDRVQcow2State *s = bs->opaque;

    qcow2_l2_unlist(s, offset);
    qcow2_free_later(bs, offset, s->cluster_size, type);
}

/* A table of its own for L1 entry @index, which has none, or a shared one. */
static int REQUIRES(driver_class)
make_table(BlockDriverState *bs, unsigned index)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t old = s->l1->entries[index] & QCOW2_L1_OFFSET_MASK;
    int64_t new = alloc_table(bs);
    int ret;

    if (new < 0) {
        return new;
    }
    ret = copy_table(bs, old, new);
    if (ret < 0) {
        qcow2_cache_forget(s->l2_cache, new, s->cluster_size);
        drop_table(bs, new, QCOW2_DISCARD_NEVER);
        return ret;
    }
    qcow2_l1_set(s, index, new | QCOW2_OFLAG_COPIED);
    if (old) {
        drop_table(bs, old, QCOW2_DISCARD_OTHER);
    }
    return 0;
}

static bool is_own_table(uint64_t l1_entry)
{
    return (l1_entry & QCOW2_OFLAG_COPIED) &&
           (l1_entry & QCOW2_L1_OFFSET_MASK);
}

/* The same if need be, with others kept out.  May drop the lock. */
static int REQUIRES(driver_class)
own_table(BlockDriverState *bs, unsigned index)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    while (s->l2_alloc_busy) {
        driver_wait(&s->cond, &s->lock);
    }
    if (!is_own_table(s->l1->entries[index])) {
        s->l2_alloc_busy = true;
        ret = make_table(bs, index);
        s->l2_alloc_busy = false;
        qemu_cond_broadcast(&s->cond);
    }
    return ret;
}

int qcow2_l2_get_for_write(BlockDriverState *bs, int64_t offset,
                           Qcow2Table **t, unsigned *index)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t i = offset / qcow2_l1_coverage(s);
    uint64_t entry;

    if (i >= s->l1->size) {
        return -EIO;
    }
    entry = s->l1->entries[i];
    /* One that is no multiple of a cluster is refused below. */
    if (!is_own_table(entry) &&
        !(entry & QCOW2_L1_OFFSET_MASK & (s->cluster_size - 1))) {
        int ret = own_table(bs, i);

        if (ret < 0) {
            return ret;
        }
    }
    return qcow2_l2_get(bs, offset, t, index);
}

/* ---- Write-back ---- */

static unsigned REQUIRES(driver_class) count_dirty(const BDRVQcow2State *s)
{
    unsigned n = 0;

    for (size_t i = 0; i < dirty_words(s->l1); i++) {
        n += __builtin_popcountll(s->l1_dirty[i]);
    }
    return n;
}

bool qcow2_l1_is_dirty(BDRVQcow2State *s)
{
    return count_dirty(s) > 0;
}

static void REQUIRES(driver_class)
copy_sector(BDRVQcow2State *s, Qcow2TableCopies *copies, size_t sector)
{
    const Qcow2L1 *l1 = s->l1;
    uint8_t buf[BDRV_SECTOR_SIZE] = { 0 };
    size_t first = sector * SECTOR_ENTRIES;

    for (size_t i = 0; i < SECTOR_ENTRIES && first + i < l1->size; i++) {
        stq_be_p(buf + i * sizeof(uint64_t), l1->entries[first + i]);
    }
    qcow2_copies_add(copies, l1->offset + sector * BDRV_SECTOR_SIZE, buf);
}

int qcow2_l1_copy_dirty(BlockDriverState *bs, Qcow2TableCopies **copies)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned n, room = 0;

    *copies = NULL;
    while ((n = count_dirty(s)) > room) {
        room = n + 8;
        driver_unlock(&s->lock);
        qcow2_copies_free(*copies);
        *copies = qcow2_copies_new(bs, BDRV_SECTOR_SIZE, room);
        driver_lock(&s->lock);
        if (!*copies) {
            return -ENOMEM;
        }
    }
    if (!n) {
        qcow2_copies_free(*copies);
        *copies = NULL;
        return 0;
    }
    for (size_t i = 0; i < dirty_words(s->l1); i++) {
        while (s->l1_dirty[i]) {
            copy_sector(s, *copies, i * 64 + ctz64(s->l1_dirty[i]));
            s->l1_dirty[i] &= s->l1_dirty[i] - 1;
        }
    }
    return 0;
}

void qcow2_l1_drop_copies(BDRVQcow2State *s, Qcow2TableCopies *copies)
{
    for (unsigned i = 0; i < copies->n; i++) {
        if (!copies->items[i].written) {
            mark_sector(s, (copies->items[i].offset - s->l1->offset) /
                           BDRV_SECTOR_SIZE);
        }
    }
    qcow2_copies_free(copies);
}

int qcow2_l1_write_copies(BlockDriverState *bs, Qcow2TableCopies *copies)
{
    int ret = qcow2_copies_write(bs, copies, QCOW2_OL_ACTIVE_L1);

    qcow2_l1_drop_copies(bs->opaque, copies);
    return ret;
}

/* ---- Growing ---- */

static Qcow2L1 *l1_new(const Qcow2L1 *old, uint32_t entries, int64_t offset)
{
    size_t old_bytes = old->size * sizeof(uint64_t);
    size_t bytes = entries * sizeof(uint64_t);
    Qcow2L1 *l1 = g_try_malloc(sizeof(*l1) + bytes);

    if (l1) {
        l1->offset = offset;
        l1->size = entries;
        memcpy(l1->entries, old->entries, old_bytes);
        memset(&l1->entries[old->size], 0, bytes - old_bytes);
    }
    return l1;
}

static int write_whole(BlockDriverState *bs, const Qcow2L1 *l1)
{
    size_t bytes = ROUND_UP(l1->size * sizeof(uint64_t),
                            (size_t)BDRV_SECTOR_SIZE);
    uint8_t *buf = qemu_try_memalign(bs->file->bs->bl.opt_mem_alignment, bytes);
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, bytes);
    for (uint32_t i = 0; i < l1->size; i++) {
        stq_be_p(buf + i * sizeof(uint64_t), l1->entries[i]);
    }
    ret = bdrv_pwrite_sync(bs->file, l1->offset, bytes, buf, 0);
    qemu_vfree(buf);
    return ret;
}

int qcow2_l1_switch(BlockDriverState *bs, Qcow2L1 *l1)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2L1 *old = s->l1;
    uint64_t *old_dirty = s->l1_dirty;
    int ret;

    s->l1_dirty = g_new0(uint64_t, dirty_words(l1));
    qatomic_store_release(&s->l1, l1);
    ret = qcow2_update_header(bs);
    if (ret < 0) {
        qatomic_store_release(&s->l1, old);
        g_free(s->l1_dirty);
        s->l1_dirty = old_dirty;
        return ret;
    }
    g_free(old_dirty);
    return 0;
}

static void REQUIRES(driver_class)
release_l1(BlockDriverState *bs, Qcow2L1 *l1)
{
    int64_t bytes = l1->size * sizeof(uint64_t);

    qcow2_metadata_remove(bs->opaque, l1->offset, bytes, QCOW2_OL_ACTIVE_L1);
    qcow2_free_later(bs, l1->offset, bytes, QCOW2_DISCARD_OTHER);
    g_free(l1);
}

/* The new table, complete on the disk with all that it refers to. */
static int REQUIRES(driver_class) prepare_l1(BlockDriverState *bs, Qcow2L1 *l1)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t bytes = l1->size * sizeof(uint64_t);
    int ret = qcow2_check_overlap_locked(bs, 0, l1->offset, bytes);

    if (ret == 0) {
        ret = qcow2_metadata_add(s, l1->offset, bytes, QCOW2_OL_ACTIVE_L1);
    }
    if (ret == 0) {
        ret = qcow2_flush_metadata(bs);
    }
    if (ret == 0) {
        driver_unlock(&s->lock);
        ret = write_whole(bs, l1);
        driver_lock(&s->lock);
    }
    return ret;
}

int qcow2_grow_l1(BlockDriverState *bs, uint32_t entries)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2L1 *old = s->l1, *new;
    int64_t offset;
    int ret;

    if (entries <= old->size) {
        return 0;
    }
    if (entries > QCOW2_MAX_L1_SIZE / sizeof(uint64_t)) {
        return -EFBIG;
    }
    offset = qcow2_alloc_clusters(bs, entries * sizeof(uint64_t));
    if (offset < 0) {
        return offset;
    }
    new = l1_new(old, entries, offset);
    if (!new) {
        qcow2_free_later(bs, offset, entries * sizeof(uint64_t),
                         QCOW2_DISCARD_NEVER);
        return -ENOMEM;
    }
    ret = prepare_l1(bs, new);
    if (ret == 0) {
        ret = qcow2_l1_switch(bs, new);
    }
    release_l1(bs, ret == 0 ? old : new);
    return ret;
}
