/*
 * qcow2: make the refcount structures anew, and go on with a repaired image.
 *
 * New blocks and a new table are written where nothing is: into clusters that
 * have no reference, and are no part of the old structures either, however
 * broken those are.  When all that is durable, one write of a sector makes the
 * header point at it.  Until then the image is as it was; after it, the old
 * structures are leaked clusters.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block.h"
#include "block/block-backend.h"
#include "qcow2-check.h"
#include "qcow2-snapshot.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/error.h"

/* Where the header says it: offset and clusters of the refcount table. */
#define HEADER_REFTABLE 48

typedef struct Rebuild {
    Qcow2Check *chk;
    GHashTable *avoid;              /* clusters that look unused, but are not */
    int64_t cursor;                 /* nothing is free below it */
    uint64_t *table;                /* offsets of new blocks */
    uint32_t n;                     /* entries: up to the last that is used */
    int64_t table_cluster;          /* -1: none yet */
    int64_t table_clusters;
} Rebuild;

static int64_t per_block(const Qcow2Check *chk)
{
    return INT64_C(1) << chk->s->refcount_block_bits;
}

static gpointer key_of(int64_t cluster)
{
    return (gpointer)(uintptr_t)cluster;
}

/* ---- Space ---- */

static void avoid_old_blocks(Rebuild *r)
{
    Qcow2Check *chk = r->chk;

    for (uint32_t i = 0; i < chk->reftable_size; i++) {
        uint64_t offset = chk->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;
        int64_t cluster = offset >> chk->s->cluster_bits;

        if (chk->reftable[i] && cluster < chk->n_counted) {
            g_hash_table_add(r->avoid, key_of(cluster));
            if (offset & (chk->s->cluster_size - 1)) {
                g_hash_table_add(r->avoid, key_of(cluster + 1));
            }
        }
    }
}

static bool is_free(const Rebuild *r, int64_t cluster)
{
    return (cluster >= r->chk->n_counted ||
            qcow2_refs_get(r->chk->refs, cluster) == 0) &&
           !g_hash_table_contains(r->avoid, key_of(cluster)) &&
           !qcow2_metadata_overlap(r->chk->s, QCOW2_OL_ALL,
                                   cluster << r->chk->s->cluster_bits,
                                   r->chk->s->cluster_size);
}

/* @n clusters in a row, which now have a reference. */
static int64_t take_clusters(Rebuild *r, int64_t n)
{
    Qcow2Check *chk = r->chk;
    int64_t first = r->cursor, run = 0;

    while (run < n) {
        if (is_free(r, first + run)) {
            run++;
        } else {
            first += run + 1;
            run = 0;
        }
    }
    if (first + n > chk->room) {
        return -EFBIG;
    }
    if (n == 1) {
        r->cursor = first;
    }
    chk->n_counted = MAX(chk->n_counted, first + n);
    qcow2_refs_add(chk->refs, first, n);
    return first;
}

/* Does anything refer to one of @n clusters? */
static bool any_refs(const Qcow2Check *chk, int64_t first, int64_t n)
{
    int64_t end = MIN(first + n, chk->n_counted), piece;

    for (int64_t c = first; c < end; c += piece) {
        const uint8_t *refs = qcow2_refs_page(chk->refs, c / QCOW2_REFS_PAGE);
        int64_t at = c % QCOW2_REFS_PAGE;

        piece = MIN(end - c, QCOW2_REFS_PAGE - at);
        for (int64_t i = 0; refs && i < piece; i++) {
            if (refs[at + i]) {
                return true;
            }
        }
    }
    return false;
}

/* Blocks for all that has a reference.  1: some were added, 0: none. */
static int plan_blocks(Rebuild *r)
{
    Qcow2Check *chk = r->chk;
    uint32_t max = QCOW2_MAX_REFTABLE_SIZE / sizeof(uint64_t);
    int added = 0;

    for (int64_t i = 0; i * per_block(chk) < chk->n_counted; i++) {
        int64_t cluster;

        if ((i < max && r->table[i]) ||
            !any_refs(chk, i * per_block(chk), per_block(chk))) {
            continue;
        }
        cluster = i < max ? take_clusters(r, 1) : -EFBIG;
        if (cluster < 0) {
            return cluster;
        }
        r->table[i] = cluster << chk->s->cluster_bits;
        r->n = MAX(r->n, i + 1);
        added = 1;
    }
    return added;
}

/* A table for the blocks.  1: it had to be made, or made longer. */
static int plan_table(Rebuild *r)
{
    Qcow2Check *chk = r->chk;
    int64_t n = DIV_ROUND_UP((uint64_t)r->n * sizeof(uint64_t),
                             (uint64_t)chk->s->cluster_size);

    if (n <= r->table_clusters) {
        return 0;
    }
    for (int64_t i = 0; i < r->table_clusters; i++) {
        qcow2_refs_set(chk->refs, r->table_cluster + i, 0);
    }
    r->table_cluster = take_clusters(r, n);
    r->table_clusters = n;
    return r->table_cluster < 0 ? r->table_cluster : 1;
}

/* What is planned needs refcounts itself: until nothing is added. */
static int plan(Rebuild *r)
{
    int blocks, table;

    do {
        blocks = plan_blocks(r);
        table = blocks < 0 ? blocks : plan_table(r);
    } while (blocks > 0 || table > 0);
    return table;
}

/* ---- Writing ---- */

static int write_new(const Qcow2Check *chk, int64_t offset, int64_t bytes,
                     const void *buf)
{
    int ret = bdrv_pwrite(chk->bs->file, offset, bytes, buf, 0);

    if (ret < 0) {
        error_report("ERROR writing refblock: %s", g_strerror(-ret));
    }
    return ret;
}

static int write_blocks(Rebuild *r)
{
    Qcow2Check *chk = r->chk;
    BDRVQcow2State *s = chk->s;
    int ret = 0;

    chk->block_index = -1;
    for (uint32_t i = 0; i < r->n && ret == 0; i++) {
        int64_t first = i * per_block(chk);

        if (!r->table[i]) {
            continue;
        }
        memset(chk->block, 0, s->cluster_size);
        for (int64_t c = first; c < MIN(first + per_block(chk),
                                        chk->n_counted); c++) {
            qcow2_refcount_write(chk->block, s->refcount_order, c - first,
                                 qcow2_refs_get(chk->refs, c));
        }
        ret = write_new(chk, r->table[i], s->cluster_size, chk->block);
    }
    return ret;
}

static int write_table(Rebuild *r)
{
    BDRVQcow2State *s = r->chk->s;
    int64_t bytes = r->table_clusters << s->cluster_bits;
    g_autofree uint8_t *buf = g_try_malloc0(bytes);

    if (!buf) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < r->n; i++) {
        stq_be_p(buf + i * sizeof(uint64_t), r->table[i]);
    }
    return write_new(r->chk, r->table_cluster << s->cluster_bits, bytes, buf);
}

static int switch_header(Rebuild *r)
{
    BDRVQcow2State *s = r->chk->s;
    uint8_t buf[12];
    int ret;

    stq_be_p(buf, r->table_cluster << s->cluster_bits);
    stl_be_p(buf + 8, r->table_clusters);
    ret = bdrv_pwrite_sync(r->chk->bs->file, HEADER_REFTABLE, sizeof(buf), buf,
                           0);
    if (ret == 0) {
        driver_lock(&s->lock);
        s->reftable_offset = r->table_cluster << s->cluster_bits;
        s->reftable_size = (r->table_clusters << s->cluster_bits) /
                           sizeof(uint64_t);
        driver_unlock(&s->lock);
    }
    return ret;
}

static int write_all(Rebuild *r)
{
    int ret = write_blocks(r);

    if (ret == 0) {
        ret = write_table(r);
    }
    if (ret == 0) {
        ret = bdrv_flush(r->chk->bs->file->bs);
    }
    return ret < 0 ? ret : switch_header(r);
}

/* Go on with the new structures; everything is to be counted again. */
static int go_on(Qcow2Check *chk)
{
    int64_t length;
    int ret;

    ret = qcow2_repair_reload(chk->bs);
    if (ret == 0) {
        ret = qcow2_check_load_reftable(chk);
    }
    length = bdrv_getlength(chk->bs->file->bs);
    if (ret < 0 || length < 0) {
        return ret < 0 ? ret : length;
    }
    chk->file_bytes = length;
    chk->n_clusters = MAX(chk->n_clusters, chk->n_counted);
    chk->need_rebuild = false;
    qcow2_refs_free(chk->refs);
    chk->refs = qcow2_refs_new(chk->room);
    return chk->refs ? 0 : -ENOMEM;
}

int qcow2_repair_rebuild(Qcow2Check *chk)
{
    Rebuild r = { .chk = chk, .table_cluster = -1 };
    int ret = -ENOMEM;

    r.avoid = g_hash_table_new(NULL, NULL);
    r.table = g_try_malloc0(QCOW2_MAX_REFTABLE_SIZE);
    if (r.table) {
        avoid_old_blocks(&r);
        ret = plan(&r);
    }
    if (ret == 0) {
        ret = write_all(&r);
    }
    if (ret == 0) {
        ret = go_on(chk);
    }
    g_hash_table_destroy(r.avoid);
    g_free(r.table);
    return ret;
}

/* ---- Tables in memory ---- */

static int read_words(BlockDriverState *bs, int64_t offset, uint64_t *words,
                      uint32_t n)
{
    int ret = bdrv_pread(bs->file, offset, n * sizeof(uint64_t), words, 0);

    for (uint32_t i = 0; i < n && ret == 0; i++) {
        words[i] = GUINT64_FROM_BE(words[i]);
    }
    return ret;
}

static int reload_l1(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2L1 *l1 = s->l1;
    g_autofree uint64_t *words = g_try_new(uint64_t, MAX(l1->size, 1));
    int ret = words ? read_words(bs, l1->offset, words, l1->size) : -ENOMEM;

    for (uint32_t i = 0; i < l1->size && ret == 0; i++) {
        qatomic_set(&l1->entries[i], words[i]);
    }
    return ret;
}

static int reload_reftable(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t *words;
    int64_t offset;
    uint32_t n;
    int ret;

    driver_lock(&s->lock);
    offset = s->reftable_offset;
    n = s->reftable_size;
    driver_unlock(&s->lock);
    words = g_try_new(uint64_t, MAX(n, 1));
    ret = words ? read_words(bs, offset, words, n) : -ENOMEM;
    if (ret < 0) {
        g_free(words);
        return ret;
    }
    driver_lock(&s->lock);
    g_free(s->reftable);
    g_free(s->reftable_dirty);
    s->reftable = words;
    s->reftable_dirty = g_malloc0(DIV_ROUND_UP(n * sizeof(uint64_t),
                                               8 * BDRV_SECTOR_SIZE) + 8);
    driver_unlock(&s->lock);
    return 0;
}

static int relist_metadata(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2MetadataSet *set = qcow2_metadata_new();
    int ret;

    if (!set) {
        return -ENOMEM;
    }
    /* No reader is about: the node is drained. */
    qcow2_metadata_free(s->metadata);
    s->metadata = set;
    driver_lock(&s->lock);
    ret = s->writable ? qcow2_metadata_add_active(s) : 0;
    driver_unlock(&s->lock);
    if (ret == 0 && s->writable && s->snapshots) {
        ret = qcow2_list_snapshot_metadata(bs, NULL) ? 0 : -EIO;
    }
    return ret;
}

int qcow2_repair_reload(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    driver_lock(&s->lock);
    qcow2_cache_forget(s->l2_cache, 0, INT64_MAX);
    qcow2_cache_forget(s->refcount_cache, 0, INT64_MAX);
    s->free_cluster_index = 0;
    s->free_run_index = 0;
    s->high_cluster = 0;
    s->free_byte_offset = 0;
    qcow2_inflated_forget(s, 0, INT64_MAX);
    driver_unlock(&s->lock);
    ret = reload_l1(bs);
    if (ret == 0) {
        ret = reload_reftable(bs);
    }
    return ret < 0 ? ret : relist_metadata(bs);
}

int qcow2_repair_dirty(BlockDriverState *bs, Error **errp)
{
    BdrvCheckResult res = { 0 };
    int ret = qcow2_check(bs, &res, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);

    if (ret == 0 && (res.corruptions || res.check_errors)) {
        ret = -EIO;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not repair dirty image");
    }
    return ret;
}
