/*
 * qcow2: refcounts of another width.
 *
 * The whole refcount structure is made anew, in clusters behind all that are in
 * use: the old one calls these free, so a crash leaves nothing.  The new one
 * counts itself, and the old one, which is freed like any cluster when the
 * header refers to the new one.  Where the table is and how wide refcounts are
 * is in the header's first sector: one write that cannot be torn.
 *
 * Only blocks that count something are made, so a few clusters far away in an
 * image that lies cost no more than they do now.
 *
 * Control thread, drained: nothing else changes refcounts, so what was looked
 * at stays true while the lock is dropped.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qcow2-amend.h"
#include "qemu/bswap.h"

/* The structure that is made; numbers of clusters. */
typedef struct NewRefcounts {
    int order;
    int block_bits;                 /* log2 of refcounts a block */
    uint64_t start, n;              /* the new area: blocks, then the table */
    uint64_t n_table;
    uint64_t entries;               /* of the table */
    GArray *blocks;                 /* the indices of those there are, uint64_t,
                                     * ascending */
    uint64_t *table;                /* host order */
} NewRefcounts;

/* ---- Planning ---- */

static void need_block(NewRefcounts *r, uint64_t cluster)
{
    uint64_t index = cluster >> r->block_bits;

    if (r->blocks->len == 0 ||
        g_array_index(r->blocks, uint64_t, r->blocks->len - 1) != index) {
        g_array_append_val(r->blocks, index);
    }
}

static bool too_large(const NewRefcounts *r, uint64_t cluster,
                      const BDRVQcow2State *s, uint64_t refcount, Error **errp)
{
    error_setg(errp, "Cannot decrease refcount entry width to %d bits: Cluster "
               "at offset %#" PRIx64 " has a refcount of %" PRIu64,
               1 << r->order, cluster << s->cluster_bits, refcount);
    return false;
}

/* All clusters of one block of the old structure. */
static bool REQUIRES(driver_class)
scan_block(BlockDriverState *bs, NewRefcounts *r, uint64_t first, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t max = UINT64_MAX >> (64 - (1 << r->order));
    uint64_t end = qcow2_refblock_end(s, first);
    Qcow2Table *t;
    int ret = qcow2_refblock_get(bs, first, &t);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to read refcounts");
        return false;
    }
    for (uint64_t c = first; t && c < end; c++) {
        uint64_t refcount = qcow2_refblock_read(s, t, c);

        if (refcount > max) {
            return too_large(r, c, s, refcount, errp);
        }
        if (refcount) {
            need_block(r, c);
            r->start = c + 1;
        }
    }
    return true;
}

static bool REQUIRES(driver_class)
scan(BlockDriverState *bs, NewRefcounts *r, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    for (uint32_t i = 0; i < s->reftable_size; i++) {
        if (!scan_block(bs, r, (uint64_t)i << s->refcount_block_bits, errp)) {
            return false;
        }
    }
    return true;
}

/* How large the area is depends on the blocks that count it. */
static bool REQUIRES(driver_class)
plan_area(BDRVQcow2State *s, NewRefcounts *r, Error **errp)
{
    guint n_scanned = r->blocks->len;
    uint64_t max = MIN((uint64_t)(QCOW2_MAX_REFTABLE_SIZE / 8)
                       << r->block_bits,
                       (UINT64_C(1) << 56) >> s->cluster_bits);
    uint64_t n;

    do {
        n = r->n;
        g_array_set_size(r->blocks, n_scanned);
        for (uint64_t c = r->start; c < r->start + n; c++) {
            need_block(r, c);
        }
        r->entries = ((r->start + n) >> r->block_bits) + 1;
        r->n_table = DIV_ROUND_UP(r->entries * 8, s->cluster_size);
        r->n = r->blocks->len + r->n_table;
    } while (r->n != n && r->start + r->n <= max);
    r->entries = r->n_table * (s->cluster_size / 8);
    if (r->start + r->n > max || r->entries * 8 > QCOW2_MAX_REFTABLE_SIZE) {
        error_setg_errno(errp, EFBIG, "The image is too large for refcounts of "
                         "%d bits", 1 << r->order);
        return false;
    }
    return true;
}

/* ---- Writing ---- */

static int REQUIRES(driver_class)
fill_block(BlockDriverState *bs, const NewRefcounts *r, uint64_t index,
           uint8_t *buf)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t first = index << r->block_bits;
    uint64_t end = MIN((index + 1) << r->block_bits, r->start + r->n);

    memset(buf, 0, s->cluster_size);
    for (uint64_t c = first; c < end; c++) {
        uint64_t refcount = 1;
        int ret = c < r->start ? qcow2_get_refcount(bs, c, &refcount) : 0;

        if (ret < 0) {
            return ret;
        }
        qcow2_refcount_write(buf, r->order, c - first, refcount);
    }
    return 0;
}

static int REQUIRES(driver_class)
write_blocks(BlockDriverState *bs, NewRefcounts *r)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint8_t *buf = g_malloc(s->cluster_size);
    int ret = 0;

    for (guint i = 0; i < r->blocks->len && ret == 0; i++) {
        uint64_t index = g_array_index(r->blocks, uint64_t, i);
        int64_t offset = (r->start + i) << s->cluster_bits;

        r->table[index] = offset;
        ret = fill_block(bs, r, index, buf);
        if (ret == 0) {
            driver_unlock(&s->lock);
            ret = bdrv_pwrite(bs->file, offset, s->cluster_size, buf, 0);
            driver_lock(&s->lock);
        }
    }
    return ret;
}

static int64_t table_offset(const BDRVQcow2State *s, const NewRefcounts *r)
{
    return (r->start + r->blocks->len) << s->cluster_bits;
}

static int REQUIRES(driver_class)
write_table(BlockDriverState *bs, const NewRefcounts *r)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *be = g_try_new(uint64_t, r->entries);
    int ret;

    if (!be) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < r->entries; i++) {
        be[i] = GUINT64_TO_BE(r->table[i]);
    }
    driver_unlock(&s->lock);
    ret = bdrv_pwrite(bs->file, table_offset(s, r), r->entries * 8, be, 0);
    if (ret == 0) {
        ret = bdrv_flush(bs->file->bs);
    }
    driver_lock(&s->lock);
    return ret;
}

static int REQUIRES(driver_class)
note_area(BDRVQcow2State *s, const NewRefcounts *r)
{
    int64_t offset = r->start << s->cluster_bits;
    int ret = qcow2_metadata_add(s, offset, table_offset(s, r) - offset,
                                 QCOW2_OL_REFCOUNT_BLOCK);

    return ret < 0 ? ret :
           qcow2_metadata_add(s, table_offset(s, r),
                              r->n_table << s->cluster_bits,
                              QCOW2_OL_REFCOUNT_TABLE);
}

/* ---- Switching ---- */

/* What the header says of refcounts, and what follows from it. */
typedef struct Force {
    int order;
    uint64_t *table;
    uint8_t *dirty;
    uint32_t size;
    int64_t offset;
} Force;

static Force REQUIRES(driver_class) put_in_force(BDRVQcow2State *s, Force new)
{
    Force old = { s->refcount_order, s->reftable, s->reftable_dirty,
                  s->reftable_size, s->reftable_offset };

    s->refcount_order = new.order;
    s->refcount_bits = 1 << new.order;
    s->refcount_block_bits = s->cluster_bits + 3 - new.order;
    s->refcount_max = UINT64_MAX >> (64 - s->refcount_bits);
    s->reftable = new.table;
    s->reftable_dirty = new.dirty;
    s->reftable_size = new.size;
    s->reftable_offset = new.offset;
    return old;
}

static void REQUIRES(driver_class)
free_old(BlockDriverState *bs, const Force *old)
{
    BDRVQcow2State *s = bs->opaque;

    for (uint32_t i = 0; i < old->size; i++) {
        int64_t offset = old->table[i] & QCOW2_REFTABLE_OFFSET_MASK;

        if (offset) {
            qcow2_cache_forget(s->refcount_cache, offset, s->cluster_size);
            qcow2_metadata_remove(s, offset, s->cluster_size,
                                  QCOW2_OL_REFCOUNT_BLOCK);
            qcow2_free_later(bs, offset, s->cluster_size,
                             QCOW2_DISCARD_OTHER);
        }
    }
    qcow2_free_later(bs, old->offset, (int64_t)old->size * 8,
                     QCOW2_DISCARD_OTHER);
}

/* Nothing is dirty, so the cache has nothing that the old blocks lack. */
static int REQUIRES(driver_class)
switch_over(BlockDriverState *bs, NewRefcounts *r)
{
    BDRVQcow2State *s = bs->opaque;
    Force old, new = {
        .order = r->order,
        .table = r->table,
        .dirty = g_malloc0(ROUND_UP(r->entries * 8 / BDRV_SECTOR_SIZE, 64) / 8),
        .size = r->entries,
        .offset = table_offset(s, r),
    };
    int ret;

    old = put_in_force(s, new);
    ret = qcow2_update_header(bs);
    if (ret < 0) {
        put_in_force(s, old);
        g_free(new.dirty);
        return ret;
    }
    r->table = NULL;                /* the state has it */
    free_old(bs, &old);
    g_free(old.table);
    g_free(old.dirty);
    return 0;
}

static int REQUIRES(driver_class)
build(BlockDriverState *bs, NewRefcounts *r)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset = r->start << s->cluster_bits;
    int64_t bytes = r->n << s->cluster_bits;
    int ret = qcow2_check_overlap_locked(bs, 0, offset, bytes);

    r->table = g_try_new0(uint64_t, r->entries);
    if (ret == 0 && !r->table) {
        ret = -ENOMEM;
    }
    if (ret == 0) {
        qcow2_note_used(bs, r->start, r->n);
        ret = write_blocks(bs, r);
    }
    if (ret == 0) {
        ret = write_table(bs, r);
    }
    if (ret < 0) {
        return ret;
    }
    ret = note_area(s, r);
    if (ret == 0) {
        ret = switch_over(bs, r);
    }
    if (ret < 0) {
        qcow2_metadata_remove(s, offset, bytes, QCOW2_OL_REFCOUNT_BLOCK |
                              QCOW2_OL_REFCOUNT_TABLE);
    }
    return ret;
}

static bool REQUIRES(driver_class)
convert(BlockDriverState *bs, NewRefcounts *r, Error **errp)
{
    int ret = qcow2_settle(bs);     /* nothing dirty, nothing to be freed */

    if (ret == 0) {
        if (!scan(bs, r, errp) || !plan_area(bs->opaque, r, errp)) {
            return false;
        }
        ret = build(bs, r);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to change the refcount width");
    }
    return ret == 0;
}

bool qcow2_change_refcount_order(BlockDriverState *bs, int order, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    NewRefcounts r = {
        .order = order,
        .block_bits = s->cluster_bits + 3 - order,
        .blocks = g_array_new(FALSE, FALSE, sizeof(uint64_t)),
    };
    bool ok;

    driver_lock(&s->lock);
    ok = convert(bs, &r, errp);
    driver_unlock(&s->lock);
    g_array_unref(r.blocks);
    g_free(r.table);
    return ok;
}
