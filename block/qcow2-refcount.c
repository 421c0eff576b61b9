/*
 * qcow2: refcounts ("Host cluster management").
 *
 * The refcount table, in memory as a whole, points at refcount blocks, which
 * are cached.  A block that is not there stands for clusters that are free; one
 * is made when the first of them is allocated (qcow2-refblock.c).
 *
 * A block is loaded by qcow2_cache_get(), which may drop the lock, and is worth
 * looking at until the lock is dropped again.  So what concerns the clusters of
 * one block is checked and changed at one moment; what concerns several blocks
 * is done block by block and undone if a later one fails.
 *
 * Refcounts change in memory here.  When they, and the table, reach the disk is
 * decided by qcow2-flush.c.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"

/* ---- "refcount block entry" ---- */

uint64_t qcow2_refcount_read(const uint8_t *block, int order, uint64_t index)
{
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned bits = 1u << order;
        unsigned shift = (index << order) & 7;

        return (block[(index << order) >> 3] >> shift) & ((1u << bits) - 1);
    }
    case 3:
        return block[index];
    case 4:
        return lduw_be_p(block + 2 * index);
    case 5:
        return ldl_be_p(block + 4 * index);
    default:
        return ldq_be_p(block + 8 * index);
    }
}

void qcow2_refcount_write(uint8_t *block, int order, uint64_t index,
                          uint64_t value)
{
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned bits = 1u << order;
        unsigned shift = (index << order) & 7;
        uint8_t mask = ((1u << bits) - 1) << shift;
        uint8_t *byte = &block[(index << order) >> 3];

        *byte = (*byte & ~mask) | (value << shift & mask);
        break;
    }
    case 3:
        block[index] = value;
        break;
    case 4:
        stw_be_p(block + 2 * index, value);
        break;
    case 5:
        stl_be_p(block + 4 * index, value);
        break;
    default:
        stq_be_p(block + 8 * index, value);
        break;
    }
}

/* ---- Blocks ---- */

uint64_t qcow2_max_clusters(const BDRVQcow2State *s)
{
    uint64_t table = (uint64_t)(QCOW2_MAX_REFTABLE_SIZE / 8)
                     << s->refcount_block_bits;
    /* What an L2 entry can say. */
    uint64_t offsets = (UINT64_C(1) << 56) >> s->cluster_bits;

    return MIN(table, offsets);
}

uint64_t qcow2_refblock_end(const BDRVQcow2State *s, uint64_t cluster)
{
    return ((cluster >> s->refcount_block_bits) + 1) << s->refcount_block_bits;
}

int qcow2_refblock_get(BlockDriverState *bs, uint64_t cluster, Qcow2Table **t)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t index = cluster >> s->refcount_block_bits;
    uint64_t offset = 0;

    if (index < s->reftable_size) {
        offset = s->reftable[index] & QCOW2_REFTABLE_OFFSET_MASK;
    }
    *t = NULL;
    if (!offset) {
        return 0;
    }
    if (offset & (s->cluster_size - 1) ||
        offset > (uint64_t)INT64_MAX - s->cluster_size) {
        qcow2_signal_corruption_locked(bs, true, -1, -1,
            "Refblock offset %#" PRIx64 " unaligned (reftable index: %#"
            PRIx64 ")", offset, index);
        return -EIO;
    }
    return qcow2_cache_get(bs, s->refcount_cache, offset, t);
}

static uint64_t index_in_block(const BDRVQcow2State *s, uint64_t cluster)
{
    return cluster & ((UINT64_C(1) << s->refcount_block_bits) - 1);
}

uint64_t qcow2_refblock_read(const BDRVQcow2State *s, Qcow2Table *t,
                             uint64_t cluster)
{
    return qcow2_refcount_read(qcow2_table_bytes(t), s->refcount_order,
                               index_in_block(s, cluster));
}

void qcow2_refblock_fill(BDRVQcow2State *s, Qcow2Table *t, uint64_t cluster,
                         uint64_t n, uint64_t refcount)
{
    uint8_t *block = qcow2_table_bytes(t);

    for (uint64_t i = 0; i < n; i++) {
        qcow2_refcount_write(block, s->refcount_order,
                             index_in_block(s, cluster + i), refcount);
    }
    qcow2_table_mark_dirty(s, t);
}

int qcow2_get_refcount(BlockDriverState *bs, int64_t cluster_index,
                       uint64_t *refcount)
{
    Qcow2Table *t;
    int ret = qcow2_refblock_get(bs, cluster_index, &t);

    if (ret == 0) {
        *refcount = t ? qcow2_refblock_read(bs->opaque, t, cluster_index) : 0;
    }
    return ret;
}

/* ---- Changing them ---- */

static void REQUIRES(driver_class)
note_freed(BlockDriverState *bs, uint64_t cluster, uint64_t n)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t start = cluster << s->cluster_bits;
    int64_t bytes = n << s->cluster_bits;

    s->free_cluster_index = MIN(s->free_cluster_index, (int64_t)cluster);
    s->free_run_index = MIN(s->free_run_index, (int64_t)cluster);
    s->freed_count++;
    if (s->free_byte_offset >= start && s->free_byte_offset < start + bytes) {
        s->free_byte_offset = 0;
    }
    qcow2_inflated_forget(s, start, bytes);
    /* It may have been written, even if it lay behind the end of the file. */
    qcow2_note_used(bs, cluster, n);
}

/* Can all @n of them, in block @t, be changed? */
static int REQUIRES(driver_class)
check_delta(BDRVQcow2State *s, Qcow2Table *t, uint64_t cluster, uint64_t n,
            int64_t delta)
{
    uint64_t amount = delta < 0 ? -(uint64_t)delta : (uint64_t)delta;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t old = qcow2_refblock_read(s, t, cluster + i);

        if (delta < 0 && old < amount) {
            return -EIO;
        }
        if (delta > 0 && s->refcount_max - MIN(old, s->refcount_max) < amount) {
            return -EINVAL;
        }
    }
    return 0;
}

static void REQUIRES(driver_class)
apply_delta(BlockDriverState *bs, Qcow2Table *t, uint64_t cluster, uint64_t n,
            int64_t delta)
{
    BDRVQcow2State *s = bs->opaque;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t value = qcow2_refblock_read(s, t, cluster + i) +
                         (uint64_t)delta;

        qcow2_refblock_fill(s, t, cluster + i, 1, value);
        if (value == 0) {
            note_freed(bs, cluster + i, 1);
        }
    }
}

/* The block of @cluster; if there is none, one is made, or *t is NULL. */
static int REQUIRES(driver_class)
block_for_update(BlockDriverState *bs, uint64_t cluster, uint64_t n, bool make,
                 Qcow2Table **t)
{
    for (;;) {
        int ret = qcow2_refblock_get(bs, cluster, t);

        if (ret < 0 || *t || !make) {
            return ret;
        }
        ret = qcow2_refblock_make(bs, cluster, n, n);
        if (ret < 0) {
            return ret;
        }
    }
}

/* Clusters of one block: all or nothing. */
static int REQUIRES(driver_class)
update_in_block(BlockDriverState *bs, uint64_t cluster, uint64_t n,
                int64_t delta)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    int ret = block_for_update(bs, cluster, n, delta > 0, &t);

    if (ret < 0) {
        return ret;
    }
    ret = t ? check_delta(s, t, cluster, n, delta) : -EIO;
    if (ret == 0) {
        apply_delta(bs, t, cluster, n, delta);
    } else if (delta < 0) {
        qcow2_signal_corruption_locked(bs, true,
            (int64_t)(cluster << s->cluster_bits),
            (int64_t)(n << s->cluster_bits),
            "Refcount of a cluster that is in use is too small");
    }
    return ret;
}

int qcow2_update_refcount(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          int64_t delta)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t first = (uint64_t)offset >> s->cluster_bits;
    uint64_t end, c;
    int ret = 0;

    if (bytes == 0 || delta == 0) {
        return 0;
    }
    end = ((uint64_t)(offset + bytes - 1) >> s->cluster_bits) + 1;
    if (end > qcow2_max_clusters(s)) {
        if (delta > 0) {
            return -EFBIG;
        }
        /* Nothing there was ever counted: a table lies. */
        qcow2_signal_corruption_locked(bs, true, offset, bytes,
            "Reference to offset %#" PRIx64 " beyond what refcounts can count",
            offset);
        return -EIO;
    }
    for (c = first; c < end && ret == 0; ) {
        uint64_t n = MIN(end, qcow2_refblock_end(s, c)) - c;

        ret = update_in_block(bs, c, n, delta);
        c += ret == 0 ? n : 0;
    }
    if (ret < 0 && c > first && !qatomic_read(&s->corrupt) &&
        qcow2_update_refcount(bs, first << s->cluster_bits,
                              (c - first) << s->cluster_bits, -delta) < 0 &&
        delta < 0) {
        /* Too large would be a leak; too small must not be used. */
        qcow2_signal_corruption_locked(bs, true, offset, bytes,
            "Refcounts could not be restored after an error");
    }
    return ret;
}

/* ---- Write-back of the table ---- */

#define SECTOR_ENTRIES (BDRV_SECTOR_SIZE / 8)

/* The part of the table from the first changed sector to the last. */
struct Qcow2ReftableCopy {
    int64_t offset;             /* in the file */
    uint32_t first, n;          /* sectors of the table */
    uint64_t *entries;          /* big-endian */
};

static uint32_t REQUIRES(driver_class)
reftable_sectors(const BDRVQcow2State *s)
{
    return DIV_ROUND_UP(s->reftable_size, SECTOR_ENTRIES);
}

static void REQUIRES(driver_class)
reftable_mark(BDRVQcow2State *s, uint32_t sector, bool dirty)
{
    if (dirty) {
        s->reftable_dirty[sector / 8] |= 1 << sector % 8;
        qatomic_set(&s->metadata_dirty, true);
    } else {
        s->reftable_dirty[sector / 8] &= ~(1 << sector % 8);
    }
}

static bool REQUIRES(driver_class)
reftable_range(const BDRVQcow2State *s, uint32_t *first, uint32_t *n)
{
    uint32_t end = 0;

    *first = 0;
    for (uint32_t i = 0; i < reftable_sectors(s); i++) {
        if (s->reftable_dirty[i / 8] & 1 << i % 8) {
            *first = end ? *first : i;
            end = i + 1;
        }
    }
    *n = end - *first;
    return end > 0;
}

void qcow2_reftable_set(BDRVQcow2State *s, uint64_t index, int64_t offset)
{
    s->reftable[index] = offset;
    reftable_mark(s, index / SECTOR_ENTRIES, true);
}

bool qcow2_reftable_is_dirty(const BDRVQcow2State *s)
{
    uint32_t first, n;

    return reftable_range(s, &first, &n);
}

int qcow2_reftable_copy_dirty(BlockDriverState *bs, Qcow2ReftableCopy **copy)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2ReftableCopy *c;
    uint32_t first, n, room = 0;
    uint64_t *entries = NULL;

    *copy = NULL;
    /* Memory is taken without the lock; the table may change meanwhile. */
    while (reftable_range(s, &first, &n) && n > room) {
        driver_unlock(&s->lock);
        room = n;
        g_free(entries);
        entries = g_try_malloc((size_t)room * BDRV_SECTOR_SIZE);
        driver_lock(&s->lock);
        if (!entries) {
            return -ENOMEM;
        }
    }
    if (n == 0) {
        g_free(entries);
        return 0;
    }
    memset(entries, 0, (size_t)n * BDRV_SECTOR_SIZE);
    for (uint32_t i = 0; i < n * SECTOR_ENTRIES; i++) {
        uint64_t index = (uint64_t)first * SECTOR_ENTRIES + i;

        if (index < s->reftable_size) {
            entries[i] = GUINT64_TO_BE(s->reftable[index]);
        }
    }
    for (uint32_t i = first; i < first + n; i++) {
        reftable_mark(s, i, false);
    }
    c = g_new(Qcow2ReftableCopy, 1);
    *c = (Qcow2ReftableCopy){ s->reftable_offset, first, n, entries };
    *copy = c;
    return 0;
}

static void REQUIRES(driver_class)
reftable_free_copy(BDRVQcow2State *s, Qcow2ReftableCopy *copy, bool dirty)
{
    for (uint32_t i = copy->first; dirty && i < copy->first + copy->n; i++) {
        reftable_mark(s, i, true);
    }
    g_free(copy->entries);
    g_free(copy);
}

int qcow2_reftable_write_copy(BlockDriverState *bs, Qcow2ReftableCopy *copy)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t bytes = (int64_t)copy->n * BDRV_SECTOR_SIZE;
    int64_t offset = copy->offset + (int64_t)copy->first * BDRV_SECTOR_SIZE;
    int ret;

    driver_unlock(&s->lock);
    bdrv_debug_event(bs->file->bs, "refblock_alloc_hookup");
    ret = bdrv_pwrite(bs->file, offset, bytes, copy->entries, 0);
    driver_lock(&s->lock);
    reftable_free_copy(s, copy, ret < 0);
    return ret;
}

void qcow2_reftable_drop_copy(BDRVQcow2State *s, Qcow2ReftableCopy *copy)
{
    reftable_free_copy(s, copy, true);
}
