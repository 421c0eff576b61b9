/*
 * copy-on-read: a filter whose reads copy what they get from a backing file
 * into the node below it, "file".
 *
 * The copying is the core's (io-copy-on-read.c): this asks for it with each
 * read.  With "bottom", the name of an image in the backing chain, only what
 * is in the images above "file" but none below the bottom one is copied.
 * Everything else passes through.
 *
 * Whether data comes from above the bottom is looked up before the core takes
 * the range for itself, so it may have been overtaken by a write or discard
 * when it is used.  Then a copy is asked for, or not, that would not be now;
 * either is right, as the core looks up again what is to be copied.
 *
 * Without a worker, a read is passed on as one that copies, too: the core lets
 * it through if "file" has the data itself, whatever the bottom is.  The rest
 * needs a worker anyway, to be tracked.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error.h"
#include "block/block-backend.h"
#include "block/block-driver.h"

typedef struct BDRVCopyOnReadState {
    /* Constant after open; the state holds a reference. */
    BlockDriverState *bottom;
    bool copies;                /* "file" has been told */
} BDRVCopyOnReadState;

/* ---- Open and close ---- */

static bool is_in_chain(BlockDriverState *bs, const BlockDriverState *bottom)
{
    while (bs && bs != bottom) {
        bs = bdrv_filter_or_cow_bs(bs);
    }
    return bs;
}

static bool take_bottom(BlockDriverState *bs, json_t *options, Error **errp)
{
    BDRVCopyOnReadState *s = bs->opaque;
    g_autofree char *name = opt_take_str(options, "bottom");
    BlockDriverState *bottom;

    if (!name) {
        return true;
    }
    bottom = bdrv_find_node(bs->graph, name);
    if (!bottom) {
        error_setg(errp, "Bottom node '%s' not found", name);
        return false;
    }
    if (bottom->drv->is_filter) {
        error_setg(errp, "Bottom node '%s' is a filter", name);
        return false;
    }
    if (!is_in_chain(bs->file->bs, bottom)) {
        error_setg(errp, "Bottom node '%s' is not in the backing chain of "
                   "node '%s'", name, bdrv_get_node_name(bs->file->bs));
        return false;
    }
    bdrv_ref(bottom);
    s->bottom = bottom;
    return true;
}

static void set_copying(BlockDriverState *bs, bool on)
{
    BDRVCopyOnReadState *s = bs->opaque;
    BlockDriverState *file = bs->file->bs;

    if (s->copies == on) {
        return;
    }
    bdrv_drained_begin(file);
    if (on) {
        bdrv_copy_on_read_begin(file);
    } else {
        bdrv_copy_on_read_end(file);
    }
    bdrv_drained_end(file);
    s->copies = on;
}

static bool cor_open(BlockDriverState *bs, json_t *options, int flags,
                     Error **errp)
{
    if (!bdrv_open_child(bs, options, "file",
                         BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, false,
                         &bs->file, errp) ||
        !take_bottom(bs, options, errp)) {
        return false;
    }
    set_copying(bs, true);
    return true;
}

static void cor_close(BlockDriverState *bs)
{
    BDRVCopyOnReadState *s = bs->opaque;

    set_copying(bs, false);
    bdrv_unref(s->bottom);
}

static bool cor_reopen_prepare(BlockDriverState *bs, json_t *options,
                               int flags, void **state, Error **errp)
{
    error_setg(errp, "Block format '%s' used by node '%s' does not support "
               "reopening files", bs->drv->format_name,
               bdrv_get_node_name(bs));
    return false;
}

/* Reads write, but nothing that anybody could see. */
static void cor_child_perm(BlockDriverState *bs, BdrvChild *child, int role,
                           uint64_t perm, uint64_t shared,
                           uint64_t *nperm, uint64_t *nshared)
{
    bdrv_default_perms(bs, child, role, perm, shared, nperm, nshared);
    if (!(bs->open_flags & BDRV_O_INACTIVE)) {
        *nperm |= BLK_PERM_WRITE_UNCHANGED;
    }
}

/* ---- Requests ---- */

/*
 * Does the beginning of the range, *@pnum bytes of it, come from an image that
 * is no lower than the bottom?  Past the end of an image it comes from none.
 */
static bool is_above_bottom(BlockDriverState *bs, int64_t offset,
                            int64_t bytes, int64_t *pnum)
{
    BDRVCopyOnReadState *s = bs->opaque;
    BlockDriverState *layer = bs->file->bs;

    *pnum = bytes;
    while (layer && layer != s->bottom) {
        int64_t n;
        int allocated;

        layer = bdrv_filter_or_cow_bs(layer);
        if (!layer) {
            return false;               /* the chain has changed */
        }
        allocated = bdrv_is_allocated(layer, offset, *pnum, &n);
        if (allocated < 0 || n == 0) {
            return false;
        }
        *pnum = n;
        if (allocated) {
            return true;
        }
    }
    return false;
}

static int cor_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    BDRVCopyOnReadState *s = bs->opaque;
    int ret = 0;

    if (!s->bottom) {
        return bdrv_preadv(bs->file, offset, bytes, qiov, qiov_offset,
                           flags | BDRV_REQ_COPY_ON_READ);
    }
    while (ret == 0 && bytes > 0) {
        int64_t n;
        int copy = is_above_bottom(bs, offset, bytes, &n) ?
                   BDRV_REQ_COPY_ON_READ : 0;

        ret = bdrv_preadv(bs->file, offset, n, qiov, qiov_offset,
                          flags | copy);
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return ret;
}

static BdrvMapResult cor_map_nowait(BlockDriverState *bs,
                                    BdrvTrackedRequest *req,
                                    BdrvMapping *mapping)
{
    if (req->type != BDRV_REQ_READ) {
        return BDRV_MAP_WORKER;
    }
    req->flags |= BDRV_REQ_COPY_ON_READ;
    mapping->child = bs->file;
    mapping->offset = req->map_offset;
    return BDRV_MAP_CHILD;
}

static int cor_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return bdrv_pwritev(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int cor_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                             int64_t bytes, int flags)
{
    return bdrv_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int cor_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return bdrv_pdiscard(bs->file, offset, bytes);
}

static bool cor_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                         PreallocMode prealloc, int flags, Error **errp)
{
    return bdrv_truncate(bs->file, offset, exact, prealloc, flags, errp);
}

/* Flush, status, length and the rest: the core asks "file". */
BlockDriver bdrv_copy_on_read = {
    .format_name = "copy-on-read",
    .supports_handover = true,
    .instance_size = sizeof(BDRVCopyOnReadState),
    .is_filter = true,
    .open = cor_open,
    .close = cor_close,
    .reopen_prepare = cor_reopen_prepare,
    .child_perm = cor_child_perm,
    .preadv = cor_preadv,
    .pwritev = cor_pwritev,
    .pwrite_zeroes = cor_pwrite_zeroes,
    .pdiscard = cor_pdiscard,
    .truncate = cor_truncate,
    .map_nowait = cor_map_nowait,
    .supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_REGISTERED_BUF |
                             BDRV_REQ_WRITE_COMPRESSED,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP |
                            BDRV_REQ_NO_FALLBACK,
};
