/*
 * qcow2's internal snapshots: create, apply, delete, list, load.
 *
 * A snapshot is a copy of the L1 table.  Everything that it refers to is then
 * referred to twice, so the active tables lose their COPIED flags, and writes
 * allocate.
 *
 * The order of each change keeps references on the disk counted: refcounts go
 * up before the table that needs them can be found, and down after it no longer
 * can.  What makes it found is one write of the header's sector, to a new
 * snapshot table or a new active L1 table; so a crash leaves the image as it
 * was before or as it is after, with leaks at most.
 *
 * COPIED flags and refcounts are not changed in one go, and other programs
 * call it corruption if they disagree: the dirty bit is set meanwhile, where
 * the image's version has one.  (Version 2 has none; there a crash can leave
 * flags that are too cautious, and with them nothing that is wrong is written.)
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-snapshot.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"

/* ---- Before and after ---- */

/* All tables on the disk, and the dirty bit set. */
static int REQUIRES(driver_class) begin_change(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = qcow2_flush_metadata(bs);

    if (ret >= 0 && s->qcow_version >= 3) {
        ret = qcow2_mark_dirty(bs);
    }
    return ret;
}

/* If it fails, closing the image tries again; until then it stays dirty. */
static int REQUIRES(driver_class) end_change(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    s->copied_stale = true;
    ret = qcow2_flush_metadata(bs);
    ret = ret < 0 ? ret : qcow2_process_frees(bs);
    ret = ret < 0 ? ret : qcow2_update_copied_flags(bs);
    ret = ret < 0 ? ret : qcow2_flush_metadata(bs);
    if (ret >= 0 && s->qcow_version >= 3 && !s->use_lazy_refcounts) {
        ret = qcow2_mark_clean(bs);
    }
    return ret;
}

static bool check_image(BlockDriverState *bs, const char *doing, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    bool ok = s->data_file == bs->file;

    if (!ok) {
        error_setg_errno(errp, ENOTSUP, "%s", doing);
    }
    return ok;
}

static int find(const BDRVQcow2State *s, const char *id)
{
    for (uint32_t i = 0; i < s->nb_snapshots; i++) {
        if (g_str_equal(s->snapshots[i].id_str, id)) {
            return i;
        }
    }
    return -1;
}

/* ---- L1 tables ---- */

/*
 * Write @tree as an L1 table to new clusters, durably and with its references
 * counted.  Its offset or -errno.  An empty one takes no cluster and is at 0,
 * which is no reason to free the cluster there.
 */
static int64_t REQUIRES(driver_class) write_l1(BlockDriverState *bs,
                                               const Qcow2Tree *tree)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t bytes = tree->size * (int64_t)sizeof(uint64_t);
    g_autofree uint64_t *table = g_try_malloc0(MAX(bytes, 1));
    int64_t offset = !table ? -ENOMEM :
                     bytes ? qcow2_alloc_clusters(bs, bytes) : 0;
    int ret;

    if (offset <= 0) {
        return offset;
    }
    for (uint32_t i = 0; i < tree->size; i++) {
        table[i] = GUINT64_TO_BE(tree->entries[i] & ~QCOW2_OFLAG_COPIED);
    }
    ret = qcow2_check_overlap_locked(bs, 0, offset, bytes);
    if (ret < 0) {
        return ret;
    }
    driver_unlock(&s->lock);
    ret = bdrv_pwrite(bs->file, offset, bytes, table, 0);
    driver_lock(&s->lock);
    ret = ret < 0 ? ret : qcow2_flush_metadata(bs);
    if (ret < 0) {
        qcow2_free_later(bs, offset, bytes, QCOW2_DISCARD_ALWAYS);
        return ret;
    }
    return offset;
}

static void REQUIRES(driver_class) free_l1(BlockDriverState *bs,
                                           int64_t offset, uint32_t size)
{
    /* It stays listed until it is free: another snapshot may lie about it. */
    qcow2_free_later(bs, offset, size * (int64_t)sizeof(uint64_t),
                     QCOW2_DISCARD_SNAPSHOT);
}

/* ---- Create ---- */

static void new_id(const BDRVQcow2State *s, char *id, size_t size)
{
    unsigned long max = 0;

    for (uint32_t i = 0; i < s->nb_snapshots; i++) {
        max = MAX(max, strtoul(s->snapshots[i].id_str, NULL, 10));
    }
    snprintf(id, size, "%lu", max + 1);
}

static void fill_in(const BDRVQcow2State *s, const QEMUSnapshotInfo *info,
                    Qcow2Snapshot *sn)
{
    sn->l1_size = s->l1->size;
    sn->id_str = g_strdup(info->id_str);
    sn->name = g_strdup(info->name);
    sn->disk_size = s->disk_size;
    sn->vm_state_size = info->vm_state_size;
    sn->date_sec = info->date_sec;
    sn->date_nsec = info->date_nsec;
    sn->vm_clock_nsec = info->vm_clock_nsec;
    sn->icount = info->icount;
}

/* Put @sn at the end of the list and write that; takes over its contents. */
static int REQUIRES(driver_class) append_snapshot(BlockDriverState *bs,
                                                  const Qcow2Snapshot *sn)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    s->snapshots = g_renew(Qcow2Snapshot, s->snapshots, s->nb_snapshots + 1);
    s->snapshots[s->nb_snapshots++] = *sn;
    ret = qcow2_write_snapshots(bs);
    if (ret < 0) {
        qcow2_snapshot_clear(&s->snapshots[--s->nb_snapshots]);
    }
    return ret;
}

/* With the tree's references counted: flags, list and table. */
static int REQUIRES(driver_class) enter_snapshot(BlockDriverState *bs,
                                                 const QEMUSnapshotInfo *info,
                                                 int64_t l1_offset)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Snapshot sn = { .l1_table_offset = l1_offset };
    int ret = qcow2_metadata_add(s, l1_offset, s->l1->size * sizeof(uint64_t),
                                 QCOW2_OL_INACTIVE_L1);

    ret = ret < 0 ? ret : qcow2_update_copied_flags(bs);
    if (ret < 0) {
        return ret;
    }
    fill_in(s, info, &sn);
    return append_snapshot(bs, &sn);
}

static int REQUIRES(driver_class) add_tree(BlockDriverState *bs,
                                           const QEMUSnapshotInfo *info,
                                           const Qcow2Tree *tree)
{
    int64_t l1_offset = write_l1(bs, tree);
    int ret = l1_offset < 0 ? l1_offset : qcow2_tree_ref(bs, tree);

    if (ret >= 0) {
        ret = enter_snapshot(bs, info, l1_offset);
        if (ret < 0) {
            qcow2_tree_unref(bs, tree);
        }
    }
    if (ret < 0 && l1_offset >= 0) {
        free_l1(bs, l1_offset, tree->size);
    }
    return ret;
}

static int REQUIRES(driver_class) create_locked(BlockDriverState *bs,
                                                const QEMUSnapshotInfo *info)
{
    Qcow2Tree tree;
    int ret = begin_change(bs), ret2;

    if (ret < 0) {
        return ret;
    }
    qcow2_tree_of_active(bs->opaque, &tree);
    ret = add_tree(bs, info, &tree);
    g_free(tree.entries);
    ret2 = end_change(bs);
    return ret < 0 ? ret : ret2;
}

bool qcow2_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *info,
                           Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree char *doing = g_strdup_printf("Could not create snapshot '%s'",
                                             info->name);
    int ret;

    if (!check_image(bs, doing, errp)) {
        return false;
    }
    if (s->nb_snapshots >= QCOW2_MAX_SNAPSHOTS) {
        error_setg_errno(errp, EFBIG, "%s", doing);
        return false;
    }
    new_id(s, info->id_str, sizeof(info->id_str));
    driver_lock(&s->lock);
    ret = create_locked(bs, info);
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "%s", doing);
    }
    return ret >= 0;
}

/* ---- Delete ---- */

/* Out of the list and off the disk; *gone takes over its contents. */
static int REQUIRES(driver_class) remove_snapshot(BlockDriverState *bs, int i,
                                                  Qcow2Snapshot *gone)
{
    BDRVQcow2State *s = bs->opaque;
    uint32_t after = s->nb_snapshots - i - 1;
    int ret;

    *gone = s->snapshots[i];
    memmove(&s->snapshots[i], &s->snapshots[i + 1], after * sizeof(*gone));
    s->nb_snapshots--;
    ret = qcow2_write_snapshots(bs);
    if (ret < 0) {
        memmove(&s->snapshots[i + 1], &s->snapshots[i],
                after * sizeof(*gone));
        s->snapshots[i] = *gone;
        s->nb_snapshots++;
    }
    return ret;
}

static int REQUIRES(driver_class) delete_locked(BlockDriverState *bs, int i,
                                                const Qcow2Tree *tree)
{
    Qcow2Snapshot gone;
    int ret = begin_change(bs), ret2;

    if (ret < 0) {
        return ret;
    }
    ret = remove_snapshot(bs, i, &gone);
    if (ret == 0) {
        ret = qcow2_tree_unref(bs, tree);
        free_l1(bs, gone.l1_table_offset, gone.l1_size);
        qcow2_snapshot_clear(&gone);
    }
    ret2 = end_change(bs);
    return ret < 0 ? ret : ret2;
}

bool qcow2_snapshot_delete(BlockDriverState *bs, const char *id, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int i = find(s, id);
    Qcow2Tree tree;
    int ret;

    if (!check_image(bs, "Failed to delete snapshot", errp)) {
        return false;
    }
    if (i < 0) {
        error_setg(errp, "Can't find the snapshot");
        return false;
    }
    ret = qcow2_tree_read(bs, s->snapshots[i].l1_table_offset,
                          s->snapshots[i].l1_size, &tree);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the L1 table of the "
                         "snapshot");
        return false;
    }
    driver_lock(&s->lock);
    ret = delete_locked(bs, i, &tree);
    driver_unlock(&s->lock);
    g_free(tree.entries);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to delete snapshot");
    }
    return ret >= 0;
}

/* ---- Apply ---- */

/* An active table in memory with @tree's entries, and its dirty bits. */
static Qcow2L1 *l1_of_tree(const Qcow2Tree *tree, int64_t offset)
{
    Qcow2L1 *l1 = g_malloc(sizeof(*l1) + tree->size * sizeof(uint64_t));

    l1->offset = offset;
    l1->size = tree->size;
    for (uint32_t i = 0; i < tree->size; i++) {
        l1->entries[i] = tree->entries[i] & ~QCOW2_OFLAG_COPIED;
    }
    return l1;
}

/* Make the table at @offset, with @tree's entries, the active one, durably. */
static int REQUIRES(driver_class) switch_l1(BlockDriverState *bs,
                                            const Qcow2Tree *tree,
                                            int64_t offset, int64_t disk_size)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2L1 *old = s->l1, *l1 = l1_of_tree(tree, offset);
    int64_t old_size = s->disk_size;
    int ret;

    s->disk_size = disk_size;
    ret = qcow2_l1_switch(bs, l1);
    if (ret < 0) {
        s->disk_size = old_size;
        g_free(l1);
        return ret;
    }
    qcow2_metadata_remove(s, old->offset, old->size * sizeof(uint64_t),
                          QCOW2_OL_ACTIVE_L1);
    qcow2_free_later(bs, old->offset, old->size * sizeof(uint64_t),
                     QCOW2_DISCARD_OTHER);
    g_free(old);
    return ret;
}

/* Now that @tree is active, and no longer @before: its tables, among those that
 * data must not hit. */
static int REQUIRES(driver_class) list_tree(BlockDriverState *bs,
                                            const Qcow2Tree *before,
                                            const Qcow2Tree *tree,
                                            int64_t offset)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = qcow2_metadata_add(s, offset, tree->size * sizeof(uint64_t),
                                 QCOW2_OL_ACTIVE_L1);

    for (uint32_t i = 0; ret >= 0 && i < before->size; i++) {
        qcow2_metadata_remove(s, before->entries[i] & QCOW2_L1_OFFSET_MASK,
                              s->cluster_size, QCOW2_OL_ACTIVE_L2);
    }
    for (uint32_t i = 0; ret >= 0 && i < tree->size; i++) {
        int64_t l2_offset = tree->entries[i] & QCOW2_L1_OFFSET_MASK;

        if (l2_offset) {
            s->l2_shared |= qcow2_metadata_overlap(s, QCOW2_OL_ACTIVE_L2,
                                                   l2_offset, 1);
            ret = qcow2_metadata_add(s, l2_offset, s->cluster_size,
                                     QCOW2_OL_ACTIVE_L2);
        }
    }
    return ret;
}

/* A table with room for @size entries. */
static void grow_tree(Qcow2Tree *tree, uint32_t size)
{
    if (tree->size < size) {
        tree->entries = g_renew(uint64_t, tree->entries, size);
        memset(tree->entries + tree->size, 0,
               (size - tree->size) * sizeof(uint64_t));
        tree->size = size;
    }
}

/* The tree is counted: switch over, then drop what was active until now. */
static int REQUIRES(driver_class) activate(BlockDriverState *bs,
                                           const Qcow2Tree *tree,
                                           int64_t offset, int64_t disk_size)
{
    Qcow2Tree before;
    int ret = qcow2_flush_metadata(bs);

    qcow2_tree_of_active(bs->opaque, &before);
    if (ret == 0) {
        ret = switch_l1(bs, tree, offset, disk_size);
        if (ret == 0) {
            ret = list_tree(bs, &before, tree, offset);
        }
        if (ret == 0) {
            ret = qcow2_tree_unref(bs, &before);
        }
    }
    g_free(before.entries);
    return ret;
}

/* With the table of @tree written at @offset. */
static int REQUIRES(driver_class) apply_tree(BlockDriverState *bs,
                                             const Qcow2Tree *tree,
                                             int64_t offset, int64_t disk_size)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = qcow2_tree_ref(bs, tree);
    bool counted = ret == 0;

    if (ret == 0) {
        ret = activate(bs, tree, offset, disk_size);
    }
    if (ret < 0 && s->l1->offset != offset) {
        if (counted) {
            qcow2_tree_unref(bs, tree);
        }
        free_l1(bs, offset, tree->size);
    }
    return ret;
}

static int REQUIRES(driver_class) goto_locked(BlockDriverState *bs,
                                              const Qcow2Tree *tree,
                                              int64_t disk_size)
{
    int64_t offset;
    int ret = begin_change(bs), ret2;

    if (ret < 0) {
        return ret;
    }
    offset = write_l1(bs, tree);
    ret = offset < 0 ? offset : apply_tree(bs, tree, offset, disk_size);
    ret2 = end_change(bs);
    return ret < 0 ? ret : ret2;
}

/* The snapshot's tree, with an entry for each piece of its disk. */
static bool read_tree(BlockDriverState *bs, const Qcow2Snapshot *sn,
                      Qcow2Tree *tree, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t size = sn->disk_size;
    int64_t coverage = qcow2_l1_coverage(s);
    int ret;

    /* The entry may say anything. */
    if (size < 0 || size & (BDRV_SECTOR_SIZE - 1) ||
        size > QCOW2_MAX_L1_SIZE / 8 * coverage) {
        error_setg(errp, "Snapshot has an invalid disk size");
        return false;
    }
    ret = qcow2_tree_read(bs, sn->l1_table_offset, sn->l1_size, tree);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the L1 table of the "
                         "snapshot");
        return false;
    }
    grow_tree(tree, DIV_ROUND_UP(size, coverage));
    return true;
}

bool qcow2_snapshot_goto(BlockDriverState *bs, const char *id, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int i = find(s, id);
    Qcow2Tree tree;
    int64_t size;
    int ret;

    if (!check_image(bs, "Failed to load snapshot", errp)) {
        return false;
    }
    if (i < 0) {
        error_setg_errno(errp, ENOENT, "Failed to load snapshot");
        return false;
    }
    size = s->snapshots[i].disk_size;
    if (!read_tree(bs, &s->snapshots[i], &tree, errp)) {
        return false;
    }
    driver_lock(&s->lock);
    ret = goto_locked(bs, &tree, size);
    driver_unlock(&s->lock);
    g_free(tree.entries);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to load snapshot");
    }
    return ret >= 0;
}

/* ---- Look ---- */

bool qcow2_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **list,
                         size_t *n, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    /* An image that was opened to be checked has none loaded. */
    uint32_t nb = s->snapshots ? s->nb_snapshots : 0;
    QEMUSnapshotInfo *out = g_new0(QEMUSnapshotInfo, MAX(nb, 1));

    for (uint32_t i = 0; i < nb; i++) {
        const Qcow2Snapshot *sn = &s->snapshots[i];

        g_strlcpy(out[i].id_str, sn->id_str, sizeof(out[i].id_str));
        g_strlcpy(out[i].name, sn->name, sizeof(out[i].name));
        out[i].vm_state_size = sn->vm_state_size;
        out[i].date_sec = sn->date_sec;
        out[i].date_nsec = sn->date_nsec;
        out[i].vm_clock_nsec = sn->vm_clock_nsec;
        out[i].icount = sn->icount;
        out[i].disk_size = sn->disk_size;
    }
    *list = out;
    *n = nb;
    return true;
}

bool qcow2_snapshot_load_tmp(BlockDriverState *bs, const char *id,
                             Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int i = find(s, id);
    Qcow2Tree tree;

    if (i < 0) {
        error_setg(errp, "Can't find snapshot");
        return false;
    }
    if (!read_tree(bs, &s->snapshots[i], &tree, errp)) {
        return false;
    }
    driver_lock(&s->lock);
    g_free(s->l1);
    s->l1 = l1_of_tree(&tree, s->snapshots[i].l1_table_offset);
    s->disk_size = s->snapshots[i].disk_size;
    s->shows_snapshot = true;
    driver_unlock(&s->lock);
    g_free(tree.entries);
    return true;
}
