/*
 * qcow2: new refcount blocks, and a larger refcount table.
 *
 * A block lies among the clusters that it counts itself, whose refcounts are
 * all 0 while it is missing.  So making one needs no other allocation.  It lies
 * at their start, unless an allocation is growing over them: then behind that.
 * For one that would not fit, as many blocks as it needs are put in a row
 * before it.
 *
 * A table that is full is replaced by one half as large again: in the clusters
 * behind those that the old one can count, blocks for these, and then the
 * table.  The order on the disk: the blocks that the old table points at, the
 * new blocks and table, a sync, then the header, at one blow.  Whatever becomes
 * of the header's write, one of the two tables is in force, and both are right
 * until the first change after it.  If its failure leaves that open, the header
 * is written once more with the old values; if that fails, too, nothing may be
 * changed any more.
 *
 * One thread at a time does any of this (reftable_busy); the refcounts of other
 * blocks may change meanwhile, the table's entries do not.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"

/* "Header": refcount_table_offset, refcount_table_clusters. */
#define HEADER_REFTABLE 48
#define HEADER_REFTABLE_LENGTH 12

static uint64_t block_start(const BDRVQcow2State *s, uint64_t block)
{
    return block << s->refcount_block_bits;
}

/* How many blocks count that many clusters and themselves? */
static uint64_t blocks_for(const BDRVQcow2State *s, uint64_t clusters)
{
    uint64_t per = UINT64_C(1) << s->refcount_block_bits;

    return DIV_ROUND_UP(clusters, per - 1);
}

/* ---- Missing blocks ---- */

/* Are clusters whose refcount is 0 used as metadata all the same? */
static int REQUIRES(driver_class)
check_free_area(BlockDriverState *bs, uint64_t cluster, uint64_t n)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset = cluster << s->cluster_bits;
    int64_t bytes = n << s->cluster_bits;

    if (cluster > 0 &&
        !qcow2_metadata_overlap(s, s->overlap_check, offset, bytes)) {
        return 0;
    }
    qcow2_signal_corruption_locked(bs, true, offset, bytes,
        "Preventing invalid allocation of refcount blocks at offset %#" PRIx64,
        (uint64_t)offset);
    return -EIO;
}

/* Number @block, in @cluster; of its clusters, [used, used_end) are in use. */
static int REQUIRES(driver_class)
make_block(BlockDriverState *bs, uint64_t block, uint64_t cluster,
           uint64_t used, uint64_t used_end)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset = cluster << s->cluster_bits;
    uint64_t start = MAX(used, block_start(s, block));
    uint64_t end = MIN(used_end, block_start(s, block + 1));
    Qcow2Table *t;
    int ret = qcow2_cache_get_empty(bs, s->refcount_cache, offset, &t);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_metadata_add(s, offset, s->cluster_size,
                             QCOW2_OL_REFCOUNT_BLOCK);
    if (ret < 0) {
        qcow2_cache_forget(s->refcount_cache, offset, s->cluster_size);
        return ret;
    }
    if (start < end) {
        qcow2_refblock_fill(s, t, start, end - start, 1);
    }
    qcow2_reftable_set(s, block, offset);
    qcow2_note_used(bs, cluster, 1);
    return 0;
}

/* @n blocks from @block on, in a row at @cluster. */
static int REQUIRES(driver_class)
make_blocks(BlockDriverState *bs, uint64_t block, uint64_t n, uint64_t cluster)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t i;
    int ret = check_free_area(bs, cluster, n);

    for (i = 0; i < n && ret == 0; i++) {
        ret = make_block(bs, block + i, cluster + i, cluster, cluster + n);
    }
    if (ret < 0 && i > 1 && !qatomic_read(&s->corrupt)) {
        /* Those made count clusters of those not made, as far as they reach.
         * What cannot be undone is a leak. */
        uint64_t end = MIN(cluster + n, block_start(s, block + i - 1));
        uint64_t start = cluster + i - 1;

        if (start < end) {
            (void)qcow2_update_refcount(bs, start << s->cluster_bits,
                                        (end - start) << s->cluster_bits, -1);
        }
    }
    return ret;
}

static bool REQUIRES(driver_class)
blocks_missing(const BDRVQcow2State *s, uint64_t block, uint64_t n)
{
    for (uint64_t i = block; i < block + n && i < s->reftable_size; i++) {
        if (s->reftable[i]) {
            return false;
        }
    }
    return true;
}

/* ---- A larger table ---- */

/* The area of a new table: blocks, then the table; numbers of clusters. */
typedef struct NewTable {
    uint64_t start;
    uint64_t old_entries, entries;
    uint64_t n_blocks, n_table;
    uint64_t *table;            /* host order; @entries */
} NewTable;

static int REQUIRES(driver_class)
plan_table(const BDRVQcow2State *s, uint64_t min_entries, NewTable *nt)
{
    uint64_t max = QCOW2_MAX_REFTABLE_SIZE / 8;
    uint64_t per_cluster = s->cluster_size / 8;

    nt->old_entries = s->reftable_size;
    nt->start = block_start(s, s->reftable_size);
    nt->entries = MAX(min_entries, nt->old_entries + nt->old_entries / 2);
    nt->entries = MIN(nt->entries, max);
    do {
        nt->n_table = DIV_ROUND_UP(nt->entries, per_cluster);
        nt->entries = nt->n_table * per_cluster;
        nt->n_blocks = blocks_for(s, nt->n_table);
    } while (nt->old_entries + nt->n_blocks > nt->entries &&
             (nt->entries = nt->old_entries + nt->n_blocks));
    if (nt->entries > max || nt->entries < min_entries ||
        nt->start + nt->n_blocks + nt->n_table > qcow2_max_clusters(s)) {
        return -EFBIG;
    }
    return 0;
}

/* Without the lock: nobody knows of the area yet. */
static int write_new_blocks(BlockDriverState *bs, const NewTable *nt)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t per = UINT64_C(1) << s->refcount_block_bits;
    uint64_t left = nt->n_blocks + nt->n_table;
    g_autofree uint8_t *block = g_try_malloc(s->cluster_size);
    int ret = block ? 0 : -ENOMEM;

    bdrv_debug_event(bs->file->bs, "refblock_alloc_write_blocks");
    for (uint64_t i = 0; i < nt->n_blocks && ret == 0; i++) {
        uint64_t n = MIN(left, per);

        memset(block, 0, s->cluster_size);
        for (uint64_t k = 0; k < n; k++) {
            qcow2_refcount_write(block, s->refcount_order, k, 1);
        }
        left -= n;
        ret = bdrv_pwrite(bs->file, (nt->start + i) << s->cluster_bits,
                          s->cluster_size, block, 0);
    }
    return ret;
}

static int write_new_table(BlockDriverState *bs, const NewTable *nt)
{
    BDRVQcow2State *s = bs->opaque;
    size_t bytes = nt->n_table << s->cluster_bits;
    g_autofree uint64_t *be = g_try_malloc(bytes);
    int ret;

    if (!be) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < nt->entries; i++) {
        be[i] = GUINT64_TO_BE(nt->table[i]);
    }
    bdrv_debug_event(bs->file->bs, "refblock_alloc_write_table");
    ret = bdrv_pwrite(bs->file,
                      (nt->start + nt->n_blocks) << s->cluster_bits, bytes, be,
                      0);
    return ret < 0 ? ret : bdrv_flush(bs->file->bs);
}

static int write_header_fields(BlockDriverState *bs, uint64_t offset,
                               uint32_t clusters)
{
    uint8_t fields[HEADER_REFTABLE_LENGTH];

    stq_be_p(fields, offset);
    stl_be_p(fields + 8, clusters);
    return bdrv_pwrite_sync(bs->file, HEADER_REFTABLE, sizeof(fields), fields,
                            0);
}

/* Make the header point at the new table, or see that it points at the old. */
static int REQUIRES(driver_class)
switch_header(BlockDriverState *bs, const NewTable *nt)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t old_offset = s->reftable_offset;
    uint32_t old_clusters = DIV_ROUND_UP((uint64_t)s->reftable_size * 8,
                                         s->cluster_size);
    int ret, undo = 0;

    while (s->header_busy) {
        driver_wait(&s->cond, &s->lock);
    }
    s->header_busy = true;
    driver_unlock(&s->lock);
    bdrv_debug_event(bs->file->bs, "refblock_alloc_switch_table");
    ret = write_header_fields(bs,
                              (nt->start + nt->n_blocks) << s->cluster_bits,
                              nt->n_table);
    if (ret < 0) {
        undo = write_header_fields(bs, old_offset, old_clusters);
    }
    driver_lock(&s->lock);
    if (ret == 0) {
        s->reftable_offset = (nt->start + nt->n_blocks) << s->cluster_bits;
    }
    s->header_busy = false;
    qemu_cond_broadcast(&s->cond);
    if (undo < 0) {
        qcow2_signal_corruption_locked(bs, true, -1, -1,
            "It is not known which refcount table is in force");
    }
    return ret;
}

static int REQUIRES(driver_class)
note_new_area(BDRVQcow2State *s, const NewTable *nt)
{
    int64_t offset = nt->start << s->cluster_bits;
    int64_t blocks = nt->n_blocks << s->cluster_bits;
    int64_t table = nt->n_table << s->cluster_bits;
    int ret = qcow2_metadata_add(s, offset, blocks, QCOW2_OL_REFCOUNT_BLOCK);

    if (ret == 0) {
        ret = qcow2_metadata_add(s, offset + blocks, table,
                                 QCOW2_OL_REFCOUNT_TABLE);
        if (ret < 0) {
            qcow2_metadata_remove(s, offset, blocks,
                                  QCOW2_OL_REFCOUNT_BLOCK);
        }
    }
    return ret;
}

/* The header says so; now so do we. */
static void REQUIRES(driver_class)
adopt_table(BlockDriverState *bs, NewTable *nt, uint8_t *dirty,
            int64_t old_offset)
{
    BDRVQcow2State *s = bs->opaque;

    g_free(s->reftable);
    g_free(s->reftable_dirty);
    s->reftable = g_steal_pointer(&nt->table);
    s->reftable_dirty = dirty;
    s->reftable_size = nt->entries;
    qcow2_free_later(bs, old_offset, (int64_t)nt->old_entries * 8,
                     QCOW2_DISCARD_OTHER);
}

static int REQUIRES(driver_class)
write_and_switch(BlockDriverState *bs, NewTable *nt)
{
    BDRVQcow2State *s = bs->opaque;
    size_t dirty_bytes = DIV_ROUND_UP(nt->entries * 8, BDRV_SECTOR_SIZE * 8);
    int64_t old_offset = s->reftable_offset;
    uint8_t *dirty;
    int ret;

    driver_unlock(&s->lock);
    nt->table = g_try_new0(uint64_t, nt->entries);
    dirty = g_try_malloc0(dirty_bytes);
    ret = nt->table && dirty ? write_new_blocks(bs, nt) : -ENOMEM;
    driver_lock(&s->lock);
    if (ret == 0) {
        /* Its entries do not change while we are at it. */
        memcpy(nt->table, s->reftable, nt->old_entries * 8);
        for (uint64_t i = 0; i < nt->n_blocks; i++) {
            nt->table[nt->old_entries + i] = (nt->start + i)
                                             << s->cluster_bits;
        }
        driver_unlock(&s->lock);
        ret = write_new_table(bs, nt);
        driver_lock(&s->lock);
    }
    if (ret == 0) {
        ret = switch_header(bs, nt);
    }
    if (ret == 0) {
        adopt_table(bs, nt, dirty, old_offset);
    } else {
        g_free(nt->table);
        g_free(dirty);
    }
    return ret;
}

static int REQUIRES(driver_class)
grow_table(BlockDriverState *bs, uint64_t min_entries)
{
    BDRVQcow2State *s = bs->opaque;
    NewTable nt;
    int ret = plan_table(s, min_entries, &nt);

    if (ret == 0) {
        ret = check_free_area(bs, nt.start, nt.n_blocks + nt.n_table);
    }
    /* What the old table's entries refer to, they will do in the new one. */
    if (ret == 0) {
        ret = qcow2_write_back_metadata(bs);
    }
    if (ret == 0) {
        ret = note_new_area(s, &nt);
    }
    if (ret < 0) {
        return ret;
    }
    qcow2_note_used(bs, nt.start, nt.n_blocks + nt.n_table);
    ret = write_and_switch(bs, &nt);
    if (ret < 0) {
        qcow2_metadata_remove(s, nt.start << s->cluster_bits,
                              (nt.n_blocks + nt.n_table) << s->cluster_bits,
                              QCOW2_OL_REFCOUNT_BLOCK |
                              QCOW2_OL_REFCOUNT_TABLE);
    }
    return ret;
}

/* ---- */

static int REQUIRES(driver_class)
make_missing(BlockDriverState *bs, uint64_t cluster, uint64_t left,
             uint64_t want)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t block = cluster >> s->refcount_block_bits;
    uint64_t per = UINT64_C(1) << s->refcount_block_bits;
    uint64_t start = block_start(s, block);
    uint64_t n;

    if (start < cluster) {
        return make_blocks(bs, block, 1, start);
    }
    if (left < per) {
        return make_blocks(bs, block, 1, start + left);
    }
    n = blocks_for(s, want);
    if (block + n > s->reftable_size) {
        return grow_table(bs, block + n);
    }
    return make_blocks(bs, block, blocks_missing(s, block, n) ? n : 1, start);
}

int qcow2_refblock_make(BlockDriverState *bs, uint64_t cluster, uint64_t left,
                        uint64_t want)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t block = cluster >> s->refcount_block_bits;
    int ret;

    if (s->reftable_busy) {
        /* Perhaps it is this one that is made. */
        driver_wait(&s->cond, &s->lock);
        return 0;
    }
    if (cluster >= qcow2_max_clusters(s)) {
        return -EFBIG;
    }
    s->reftable_busy = true;
    if (block >= s->reftable_size) {
        ret = grow_table(bs, block + 1);
    } else {
        ret = make_missing(bs, cluster, left, want);
    }
    s->reftable_busy = false;
    qemu_cond_broadcast(&s->cond);
    return ret;
}
