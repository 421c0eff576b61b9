/*
 * Creating and resizing images.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error.h"
#include "block-internal.h"

const char *const PreallocMode_names[] = { "off", "metadata", "falloc", "full",
                                           NULL };

static bool create(BlockDriver *drv, BlockGraph *graph, const char *filename,
                   json_t *options, Error **errp)
{
    const char *left;

    if (!drv->create) {
        error_setg(errp, "Driver '%s' does not support image creation",
                   drv->format_name);
        return false;
    }
    if (!drv->create(graph, filename, options, errp)) {
        return false;
    }
    left = opt_first_unused(options);
    if (left) {
        error_setg(errp, "Invalid parameter '%s'", left);
    }
    return !left;
}

bool bdrv_create(BlockGraph *graph, const char *format, const char *filename,
                 json_t *options, Error **errp)
{
    BlockDriver *drv = bdrv_find_format(format);
    bool ok = false;

    if (!drv) {
        error_setg(errp, "Unknown file format '%s'", format);
    } else {
        ok = create(drv, graph, filename, options, errp);
    }
    json_decref(options);
    return ok;
}

bool bdrv_create_file(BlockGraph *graph, const char *filename, json_t *options,
                      Error **errp)
{
    BlockDriver *drv = bdrv_find_protocol(filename, errp);

    return drv && create(drv, graph, filename, options, errp);
}

void bdrv_delete_created_file(const char *filename)
{
    BlockDriver *drv = bdrv_find_protocol(filename, NULL);
    Error *err = NULL;

    if (drv && drv->delete_file && !drv->delete_file(filename, &err)) {
        warn_report_err(err);
    }
}

/* ---- Resizing ---- */

static bool may_truncate(BlockDriverState *bs, int64_t offset, Error **errp)
{
    if (offset < 0) {
        error_setg(errp, "Image size cannot be negative");
        return false;
    }
    if (offset > BDRV_MAX_END) {
        error_setg(errp, "offset(%" PRId64 ") exceeds maximum(%" PRId64 ")",
                   offset, (int64_t)BDRV_MAX_END);
        return false;
    }
    if (bs->read_only) {
        error_setg(errp, "Image is read-only");
        return false;
    }
    if (!bs->drv->truncate && !(bs->drv->is_filter && bs->file)) {
        error_setg(errp, "Image format driver does not support resize");
        return false;
    }
    return true;
}

bool bdrv_truncate(BdrvChild *child, int64_t offset, bool exact,
                   PreallocMode prealloc, int flags, Error **errp)
{
    BlockDriverState *bs = child->bs;
    BdrvTrackedRequest req = { .type = BDRV_REQ_TRUNCATE };
    bool tracked = bdrv_is_tracking(bs);
    bool ok;

    if (!may_truncate(bs, offset, errp)) {
        return false;
    }
    req.offset = CLAMP(bdrv_getlength(bs), 0, MIN(offset, BDRV_MAX_END));
    req.bytes = BDRV_MAX_END - req.offset;
    if (tracked) {
        bdrv_tracked_begin(bs, &req);
    }
    if (bs->drv->truncate) {
        ok = bs->drv->truncate(bs, offset, exact, prealloc, flags, errp);
    } else {
        ok = bdrv_truncate(bs->file, offset, exact, prealloc, flags, errp);
    }
    bdrv_refresh_total_bytes(bs);
    bdrv_dirty_bitmaps_truncate(bs);
    if (ok && bs->total_bytes < 0) {
        error_setg_errno(errp, -bs->total_bytes,
                         "Could not refresh total sector count");
        ok = false;
    }
    if (tracked) {
        bdrv_tracked_leave(&req);
        bdrv_tracked_end(&req);
    }
    return ok;
}
