/*
 * Internal snapshots, the state of a machine that goes with them, and other
 * work on a whole image that some formats do.
 *
 * The node is drained round each call of a driver: what they change (tables,
 * headers) has no other user then.  A filter has no data of its own, so what is
 * asked of it is asked of its child.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "block/dirty-bitmap.h"
#include "block/snapshot.h"
#include "block-internal.h"

/* The node that the work is for. */
static BlockDriverState *below_filters(BlockDriverState *bs)
{
    while (bs->drv->is_filter && bs->file) {
        bs = bs->file->bs;
    }
    return bs;
}

/* ---- Snapshots ---- */

bool bdrv_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **list,
                        size_t *n, Error **errp)
{
    bs = below_filters(bs);
    *list = NULL;
    *n = 0;
    return !bs->drv->snapshot_list ||
           bs->drv->snapshot_list(bs, list, n, errp);
}

bool bdrv_snapshot_find(BlockDriverState *bs, const char *id, const char *name,
                        QEMUSnapshotInfo *sn)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    size_t n;

    if (!bdrv_snapshot_list(bs, &list, &n, NULL)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((!id || g_str_equal(id, list[i].id_str)) &&
            (!name || g_str_equal(name, list[i].name))) {
            *sn = list[i];
            return true;
        }
    }
    return false;
}

bool bdrv_snapshot_find_either(BlockDriverState *bs, const char *id_or_name,
                               QEMUSnapshotInfo *sn)
{
    return bdrv_snapshot_find(bs, NULL, id_or_name, sn) ||
           bdrv_snapshot_find(bs, id_or_name, NULL, sn);
}

bool bdrv_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn,
                          Error **errp)
{
    bool ok;

    bs = below_filters(bs);
    if (!bs->drv->snapshot_create) {
        error_setg_errno(errp, ENOTSUP, "Could not create snapshot '%s'",
                         sn->name);
        return false;
    }
    bdrv_drained_begin(bs);
    ok = bs->drv->snapshot_create(bs, sn, errp);
    bdrv_drained_end(bs);
    return ok;
}

bool bdrv_snapshot_goto(BlockDriverState *bs, const char *id_or_name,
                        Error **errp)
{
    QEMUSnapshotInfo sn;
    bool ok;

    bs = below_filters(bs);
    if (!bs->drv->snapshot_goto) {
        error_setg(errp, "Block driver does not support snapshots");
        return false;
    }
    if (bdrv_dirty_bitmap_next(bs, NULL)) {
        /* They would have to say what differs between the two states. */
        error_setg(errp, "Device has active dirty bitmaps");
        return false;
    }
    if (!bdrv_snapshot_find_either(bs, id_or_name, &sn)) {
        /* The driver says what is wrong, if something else is first. */
        g_strlcpy(sn.id_str, id_or_name, sizeof(sn.id_str));
    }
    bdrv_drained_begin(bs);
    ok = bs->drv->snapshot_goto(bs, sn.id_str, errp);
    bdrv_refresh_total_bytes(bs);
    bdrv_drained_end(bs);
    bdrv_parents_resized(bs);
    return ok;
}

bool bdrv_snapshot_delete(BlockDriverState *bs, const char *name,
                          Error **errp)
{
    QEMUSnapshotInfo sn;
    bool ok;

    bs = below_filters(bs);
    if (!bdrv_snapshot_find(bs, NULL, name, &sn)) {
        error_setg(errp, "snapshot not found");
        return false;
    }
    bdrv_drained_begin(bs);
    ok = bs->drv->snapshot_delete(bs, sn.id_str, errp);
    bdrv_drained_end(bs);
    return ok;
}

bool bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *id,
                            const char *name, Error **errp)
{
    QEMUSnapshotInfo sn;
    bool ok;

    bs = below_filters(bs);
    if (!bs->drv->snapshot_load_tmp) {
        error_setg(errp, "Block format '%s' used by device '%s' does not "
                   "support temporarily loading internal snapshots",
                   bs->drv->format_name, "");
        return false;
    }
    if (!bs->read_only) {
        error_setg(errp, "Device is not readonly");
        return false;
    }
    if (!bdrv_snapshot_find(bs, id, name, &sn)) {
        error_setg(errp, "Can't find snapshot");
        return false;
    }
    bdrv_drained_begin(bs);
    ok = bs->drv->snapshot_load_tmp(bs, sn.id_str, errp);
    bdrv_refresh_total_bytes(bs);
    bdrv_drained_end(bs);
    return ok;
}

static char *date_to_text(uint32_t seconds)
{
    time_t t = seconds;
    struct tm tm;
    char text[64];

    localtime_r(&t, &tm);
    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
    return g_strdup(text);
}

static char *clock_to_text(uint64_t ns)
{
    uint64_t s = ns / 1000000000;

    return g_strdup_printf("%04u:%02u:%02u.%03u", (unsigned)(s / 3600),
                           (unsigned)(s / 60 % 60), (unsigned)(s % 60),
                           (unsigned)(ns / 1000000 % 1000));
}

char *bdrv_snapshot_to_text(const QEMUSnapshotInfo *sn)
{
    g_autofree char *size = NULL, *date = NULL, *clock = NULL, *icount = NULL;

    if (!sn) {
        return g_strdup_printf("%-7s %-16s %8s %19s %15s %10s", "ID", "TAG",
                               "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
    }
    size = size_to_str(sn->vm_state_size);
    date = date_to_text(sn->date_sec);
    clock = clock_to_text(sn->vm_clock_nsec);
    icount = sn->icount == UINT64_MAX ? g_strdup("--") :
             g_strdup_printf("%" PRIu64, sn->icount);
    return g_strdup_printf("%-7s %-16s %8s %19s %15s %10s", sn->id_str,
                           sn->name, size, date, clock, icount);
}

/* ---- The state of a machine ---- */

static bool may_transfer(const BlockDriverState *bs, int64_t pos,
                         const QEMUIOVector *qiov)
{
    return pos >= 0 && qiov->size <= INT64_MAX &&
           QEMU_IS_ALIGNED(pos | (int64_t)qiov->size,
                           bs->bl.request_alignment);
}

int bdrv_save_vmstate(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov)
{
    int ret;

    bs = below_filters(bs);
    if (!bs->drv->save_vmstate) {
        return -ENOTSUP;
    }
    if (bs->read_only) {
        return -EPERM;
    }
    if (!may_transfer(bs, pos, qiov)) {
        return -EINVAL;
    }
    bdrv_drained_begin(bs);
    ret = bs->drv->save_vmstate(bs, pos, qiov);
    bdrv_drained_end(bs);
    return ret;
}

int bdrv_load_vmstate(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov)
{
    int ret;

    bs = below_filters(bs);
    if (!bs->drv->load_vmstate) {
        return -ENOTSUP;
    }
    if (!may_transfer(bs, pos, qiov)) {
        return -EINVAL;
    }
    bdrv_drained_begin(bs);
    ret = bs->drv->load_vmstate(bs, pos, qiov);
    bdrv_drained_end(bs);
    return ret;
}

/* ---- Whole images ---- */

int bdrv_check(BlockDriverState *bs, BdrvCheckResult *res, BdrvCheckMode fix)
{
    int ret;

    bs = below_filters(bs);
    *res = (BdrvCheckResult){ 0 };
    if (!bs->drv->check) {
        return -ENOTSUP;
    }
    bdrv_drained_begin(bs);
    ret = bs->drv->check(bs, res, fix);
    bdrv_drained_end(bs);
    return ret;
}

bool bdrv_amend(BlockDriverState *bs, json_t *options, bool force,
                BdrvProgressFunc *progress, void *opaque, Error **errp)
{
    const char *left;
    bool ok = false;

    bs = below_filters(bs);
    if (!bs->drv->amend) {
        error_setg(errp, "Format driver '%s' does not support option "
                   "amendment", bs->drv->format_name);
    } else {
        bdrv_drained_begin(bs);
        ok = bs->drv->amend(bs, options, force, progress, opaque, errp);
        bdrv_refresh_total_bytes(bs);
        bdrv_drained_end(bs);
        left = ok ? opt_first_unused(options) : NULL;
        if (left) {
            error_setg(errp, "Invalid parameter '%s'", left);
            ok = false;
        }
    }
    json_decref(options);
    return ok;
}

bool bdrv_make_empty(BlockDriverState *bs, Error **errp)
{
    bool ok;

    if (!bs->drv->make_empty) {
        error_setg_errno(errp, ENOTSUP, "Could not empty %s",
                         bdrv_get_filename(bs));
        return false;
    }
    bdrv_drained_begin(bs);
    ok = bs->drv->make_empty(bs, errp);
    bdrv_drained_end(bs);
    return ok;
}
