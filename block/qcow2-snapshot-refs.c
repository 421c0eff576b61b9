/*
 * The references of a whole tree of tables: what a snapshot adds and removes.
 *
 * A tree is an L1 table, the L2 tables that it names, and the clusters that
 * those name.  Each tree of an image, the active one and one a snapshot, counts
 * once in the refcount of everything in it, also where trees share L2 tables.
 *
 * An L2 table is gone through a slice at a time: the slice is copied, since
 * changing refcounts may drop the lock and with it the table.  Nothing else
 * changes tables meanwhile: the node is drained.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-snapshot.h"
#include "qemu/bswap.h"

/* What is done to one reference; 0 or -errno. */
typedef int RefFn(BlockDriverState *bs, int64_t offset, int64_t bytes);

typedef struct TreeWalk {
    BlockDriverState *bs;
    RefFn *fn;
    uint64_t done;                  /* calls of fn that succeeded */
    uint64_t limit;                 /* stop after so many */
    int64_t run_offset, run_bytes;  /* contiguous clusters, not done yet */
    uint64_t *slice;
} TreeWalk;

static size_t slice_words(const BDRVQcow2State *s)
{
    return (size_t)s->l2_entry_words << s->l2_slice_bits;
}

/* ---- L1 tables ---- */

int qcow2_tree_read(BlockDriverState *bs, uint64_t offset, uint32_t size,
                    Qcow2Tree *tree)
{
    BDRVQcow2State *s = bs->opaque;
    size_t bytes = (size_t)size * sizeof(uint64_t);
    int64_t length = bdrv_getlength(bs->file->bs);
    int ret;

    tree->size = 0;
    tree->entries = NULL;
    if (length < 0) {
        return length;
    }
    if (bytes > QCOW2_MAX_L1_SIZE || offset & (s->cluster_size - 1) ||
        bytes > (uint64_t)length || offset > (uint64_t)length - bytes) {
        return -EFBIG;
    }
    tree->entries = g_try_malloc(MAX(bytes, 1));
    if (!tree->entries) {
        return -ENOMEM;
    }
    ret = bdrv_pread(bs->file, offset, bytes, tree->entries, 0);
    if (ret < 0) {
        g_clear_pointer(&tree->entries, g_free);
        return ret;
    }
    tree->size = size;
    for (uint32_t i = 0; i < size; i++) {
        tree->entries[i] = GUINT64_FROM_BE(tree->entries[i]);
    }
    return 0;
}

void qcow2_tree_of_active(BDRVQcow2State *s, Qcow2Tree *tree)
{
    tree->size = s->l1->size;
    tree->entries = g_new(uint64_t, MAX(tree->size, 1));
    for (uint32_t i = 0; i < tree->size; i++) {
        tree->entries[i] = s->l1->entries[i];
    }
}

static int REQUIRES(driver_class) list_l2_tables(BDRVQcow2State *s,
                                                 const Qcow2Tree *tree)
{
    int ret = 0;

    for (uint32_t i = 0; ret >= 0 && i < tree->size; i++) {
        int64_t offset = tree->entries[i] & QCOW2_L1_OFFSET_MASK;

        if (offset) {
            ret = qcow2_metadata_add(s, offset, s->cluster_size,
                                     QCOW2_OL_INACTIVE_L2);
        }
    }
    return ret;
}

/* The tables of snapshot @sn; what cannot be read is for a check to report. */
static int list_snapshot(BlockDriverState *bs, const Qcow2Snapshot *sn)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Tree tree;
    int ret;

    driver_lock(&s->lock);
    ret = sn->l1_size > QCOW2_MAX_L1_SIZE / sizeof(uint64_t) ? 0 :
          qcow2_metadata_add(s, sn->l1_table_offset & INT64_MAX,
                             sn->l1_size * sizeof(uint64_t),
                             QCOW2_OL_INACTIVE_L1);
    driver_unlock(&s->lock);
    /* The L2 tables only if they are to be looked out for: that takes I/O. */
    if (ret < 0 || !(s->overlap_check & QCOW2_OL_INACTIVE_L2) ||
        qcow2_tree_read(bs, sn->l1_table_offset, sn->l1_size, &tree) < 0) {
        return ret;
    }
    driver_lock(&s->lock);
    ret = list_l2_tables(s, &tree);
    driver_unlock(&s->lock);
    g_free(tree.entries);
    return ret;
}

bool qcow2_list_snapshot_metadata(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    for (uint32_t i = 0; ret >= 0 && i < s->nb_snapshots; i++) {
        ret = list_snapshot(bs, &s->snapshots[i]);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not list the tables of snapshots");
    }
    return ret >= 0;
}

/* ---- Walking ---- */

static int REQUIRES(driver_class) call(TreeWalk *w, int64_t offset,
                                       int64_t bytes)
{
    int ret = 0;

    if (w->done < w->limit) {
        ret = w->fn(w->bs, offset, bytes);
        w->done += ret >= 0;
    }
    return ret;
}

static int REQUIRES(driver_class) end_run(TreeWalk *w)
{
    int64_t bytes = w->run_bytes;

    w->run_bytes = 0;
    return bytes ? call(w, w->run_offset, bytes) : 0;
}

static int REQUIRES(driver_class) add_cluster(TreeWalk *w, int64_t offset)
{
    const BDRVQcow2State *s = w->bs->opaque;
    int ret = 0;

    if (!w->run_bytes || w->run_offset + w->run_bytes != offset) {
        ret = end_run(w);
        w->run_offset = offset;
    }
    w->run_bytes += s->cluster_size;
    return ret;
}

static int REQUIRES(driver_class) walk_entry(TreeWalk *w, uint64_t entry)
{
    const BDRVQcow2State *s = w->bs->opaque;
    int64_t offset = entry & QCOW2_L2_OFFSET_MASK;
    int ret;

    if (entry & QCOW2_OFLAG_COMPRESSED) {
        int bytes;

        /* Neighbours share clusters: each counts by itself. */
        ret = end_run(w);
        qcow2_parse_compressed(s, entry, &offset, &bytes);
        return ret < 0 ? ret : call(w, offset, bytes);
    }
    if (!offset) {
        return 0;
    }
    if (offset & (s->cluster_size - 1)) {
        qcow2_signal_corruption_locked(w->bs, true, offset, s->cluster_size,
                                       "Cluster allocation offset %#" PRIx64
                                       " unaligned", offset);
        return -EIO;
    }
    return add_cluster(w, offset);
}

/* A copy of the slice at @offset, in host byte order. */
static int REQUIRES(driver_class) copy_slice(BlockDriverState *bs,
                                             int64_t offset, uint64_t *words)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    int ret = qcow2_cache_get(bs, s->l2_cache, offset, &t);

    for (size_t i = 0; ret >= 0 && i < slice_words(s); i++) {
        words[i] = qcow2_table_get64(t, i);
    }
    return ret;
}

static int REQUIRES(driver_class) walk_l2(TreeWalk *w, int64_t l2_offset)
{
    const BDRVQcow2State *s = w->bs->opaque;
    size_t n = slice_words(s), bytes = n * sizeof(uint64_t);
    int64_t pos;
    int ret = 0;

    for (pos = 0; ret >= 0 && pos < s->cluster_size; pos += bytes) {
        ret = copy_slice(w->bs, l2_offset + pos, w->slice);
        for (size_t i = 0; ret >= 0 && i < n; i += s->l2_entry_words) {
            ret = walk_entry(w, w->slice[i]);
        }
    }
    return ret < 0 ? ret : end_run(w);
}

static int REQUIRES(driver_class) check_l2_offset(BlockDriverState *bs,
                                                  int64_t offset)
{
    BDRVQcow2State *s = bs->opaque;

    if (offset & (s->cluster_size - 1)) {
        qcow2_signal_corruption_locked(bs, true, offset, s->cluster_size,
                                       "L2 table offset %#" PRIx64
                                       " unaligned", offset);
        return -EIO;
    }
    return 0;
}

static int REQUIRES(driver_class) walk_tree(TreeWalk *w,
                                            const Qcow2Tree *tree)
{
    const BDRVQcow2State *s = w->bs->opaque;
    g_autofree uint64_t *slice = g_new(uint64_t, slice_words(s));
    int ret = 0;

    w->slice = slice;
    for (uint32_t i = 0; ret >= 0 && i < tree->size && w->done < w->limit;
         i++) {
        int64_t l2_offset = tree->entries[i] & QCOW2_L1_OFFSET_MASK;

        if (!l2_offset) {
            continue;
        }
        ret = check_l2_offset(w->bs, l2_offset);
        ret = ret < 0 ? ret : walk_l2(w, l2_offset);
        ret = ret < 0 ? ret : call(w, l2_offset, s->cluster_size);
    }
    return ret;
}

/* ---- References ---- */

static int REQUIRES(driver_class) add_reference(BlockDriverState *bs,
                                                int64_t offset, int64_t bytes)
{
    return qcow2_update_refcount(bs, offset, bytes, 1);
}

static int REQUIRES(driver_class) drop_reference(BlockDriverState *bs,
                                                 int64_t offset, int64_t bytes)
{
    qcow2_free_later(bs, offset, bytes, QCOW2_DISCARD_SNAPSHOT);
    return 0;
}

int qcow2_tree_unref(BlockDriverState *bs, const Qcow2Tree *tree)
{
    TreeWalk w = { .bs = bs, .fn = drop_reference, .limit = UINT64_MAX };

    return walk_tree(&w, tree);
}

int qcow2_tree_ref(BlockDriverState *bs, const Qcow2Tree *tree)
{
    TreeWalk w = { .bs = bs, .fn = add_reference, .limit = UINT64_MAX };
    int ret = walk_tree(&w, tree);

    if (ret < 0) {
        /* The same way again, as far as it went. */
        TreeWalk undo = { .bs = bs, .fn = drop_reference, .limit = w.done };

        walk_tree(&undo, tree);
    }
    return ret;
}

/* ---- COPIED flags ---- */

static int REQUIRES(driver_class) flag_for(BlockDriverState *bs,
                                           int64_t offset, uint64_t *flag)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t refcount;
    int ret = qcow2_get_refcount(bs, offset >> s->cluster_bits, &refcount);

    *flag = ret >= 0 && refcount == 1 ? QCOW2_OFLAG_COPIED : 0;
    return ret;
}

/* Set the flags in a copy of a slice; *@changed: one is another now. */
static int REQUIRES(driver_class) flag_copy(BlockDriverState *bs,
                                            uint64_t *words, bool *changed)
{
    BDRVQcow2State *s = bs->opaque;

    *changed = false;
    for (size_t i = 0; i < slice_words(s); i += s->l2_entry_words) {
        int64_t offset = words[i] & QCOW2_L2_OFFSET_MASK;
        uint64_t flag;
        int ret;

        if (words[i] & QCOW2_OFLAG_COMPRESSED || !offset) {
            continue;
        }
        ret = flag_for(bs, offset, &flag);
        if (ret < 0) {
            return ret;
        }
        *changed |= (words[i] & QCOW2_OFLAG_COPIED) != flag;
        words[i] = (words[i] & ~QCOW2_OFLAG_COPIED) | flag;
    }
    return 0;
}

static int REQUIRES(driver_class) flag_slice(BlockDriverState *bs,
                                             int64_t offset, uint64_t *words)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    bool changed;
    int ret = copy_slice(bs, offset, words);

    ret = ret < 0 ? ret : flag_copy(bs, words, &changed);
    if (ret < 0 || !changed) {
        return ret;
    }
    ret = qcow2_cache_get(bs, s->l2_cache, offset, &t);
    for (size_t i = 0; ret >= 0 && i < slice_words(s);
         i += s->l2_entry_words) {
        if (qcow2_table_get64(t, i) != words[i]) {
            qcow2_table_set64(s, t, i, words[i]);
        }
    }
    return ret;
}

static int REQUIRES(driver_class) flag_table(BlockDriverState *bs,
                                             int64_t l2_offset,
                                             uint64_t *words)
{
    BDRVQcow2State *s = bs->opaque;
    size_t bytes = slice_words(s) * sizeof(uint64_t);
    int64_t pos;
    int ret = 0;

    for (pos = 0; ret >= 0 && pos < s->cluster_size; pos += bytes) {
        ret = flag_slice(bs, l2_offset + pos, words);
    }
    return ret;
}

int qcow2_update_copied_flags(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *words = g_new(uint64_t, slice_words(s));
    int ret = 0;

    for (uint32_t i = 0; ret >= 0 && i < s->l1->size; i++) {
        uint64_t entry = s->l1->entries[i];
        int64_t l2_offset = entry & QCOW2_L1_OFFSET_MASK;
        uint64_t flag;

        if (!l2_offset) {
            continue;
        }
        /* Also the entries of a shared table: what they say is believed
         * without a look at the table's own flag. */
        ret = flag_table(bs, l2_offset, words);
        ret = ret < 0 ? ret : flag_for(bs, l2_offset, &flag);
        if (ret >= 0 && (entry & QCOW2_OFLAG_COPIED) != flag) {
            qcow2_l1_set(s, i, l2_offset | flag);
        }
    }
    s->copied_stale &= ret < 0;
    return ret;
}
