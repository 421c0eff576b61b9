/*
 * The format "raw": the disk is what the file holds, from "offset" on, "size"
 * bytes of it (by default, all).
 *
 * A request is the same request at another offset of the file, so mapping it
 * succeeds and nothing has state to protect.  But a format above us may want to
 * grow: with a "size", what follows in the file is not ours, and what does not
 * fit is refused.  (Reads end there anyway, as that is our length.)
 *
 * The exception is an image that is raw only because probing found nothing
 * better.  A guest that could write another format's header into its first
 * sector would, the next time, have that format's driver open files of the
 * guest's choosing.  So the first sector of such an image takes only what
 * still looks raw; it is copied first, so that what was checked is what is
 * written.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/snapshot.h"

typedef struct RawState {
    /* Constant while undrained. */
    int64_t offset;
    int64_t size;
    bool has_size;
    bool tracks_file;           /* see raw_refresh_limits() */
} RawState;

static int raw_probe(const uint8_t *buf, int size, const char *filename)
{
    /* Anything can be raw; any other format's claim is better. */
    return 1;
}

/* Take the options that concern us out of @options, into @s. */
static bool raw_take_options(json_t *options, RawState *s, Error **errp)
{
    *s = (RawState){ .has_size = json_object_get(options, "size") };
    return opt_take_offset(options, "offset", &s->offset, errp) &&
           opt_take_offset(options, "size", &s->size, errp);
}

/* Do they fit the file? */
static bool raw_check_range(const RawState *s, BlockDriverState *file,
                            Error **errp)
{
    int64_t length = bdrv_getlength(file);

    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get image size");
        return false;
    }
    if (length < s->offset) {
        error_setg(errp, "Offset (%" PRId64 ") cannot be greater than size of "
                   "the containing file (%" PRId64 ")", s->offset, length);
        return false;
    }
    if (s->has_size && length - s->offset < s->size) {
        error_setg(errp, "The sum of offset (%" PRId64 ") and size (%" PRId64
                   ") has to be smaller or equal to the  actual size of the "
                   "containing file (%" PRId64 ")", s->offset, s->size,
                   length);
        return false;
    }
    if (s->has_size && !QEMU_IS_ALIGNED(s->size, BDRV_SECTOR_SIZE)) {
        error_setg(errp, "Specified size is not multiple of %d",
                   BDRV_SECTOR_SIZE);
        return false;
    }
    return true;
}

static bool raw_open(BlockDriverState *bs, json_t *options, int flags,
                     Error **errp)
{
    RawState *s = bs->opaque;

    if (!raw_take_options(options, s, errp) ||
        !bdrv_open_child(bs, options, "file",
                         BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, false,
                         &bs->file, errp) ||
        !raw_check_range(s, bs->file->bs, errp)) {
        return false;
    }
    if (bs->probed && !bs->read_only) {
        error_printf(
            "WARNING: Image format was not specified for '%s' and probing "
            "guessed raw.\n"
            "         Automatically detecting the format is dangerous for raw "
            "images, write operations on block 0 will be restricted.\n"
            "         Specify the 'raw' format explicitly to remove the "
            "restrictions.\n", bdrv_get_filename(bs->file->bs));
    }
    return true;
}

static bool raw_reopen_prepare(BlockDriverState *bs, json_t *options,
                               int flags, void **state, Error **errp)
{
    g_autofree RawState *s = g_new0(RawState, 1);

    if (!raw_take_options(options, s, errp) ||
        !raw_check_range(s, bs->file->bs, errp)) {
        return false;
    }
    *state = g_steal_pointer(&s);
    return true;
}

static void raw_reopen_commit(BlockDriverState *bs, void *state)
{
    RawState *s = bs->opaque;
    g_autofree RawState *n = state;

    s->offset = n->offset;
    s->size = n->size;
    s->has_size = n->has_size;
}

static void raw_reopen_abort(BlockDriverState *bs, void *state)
{
    g_free(state);
}

/* An offset that is not a multiple of what the file wants makes aligned
 * requests unaligned ones, and has them tracked there. */
static void raw_update_tracking(BlockDriverState *bs, bool needed)
{
    RawState *s = bs->opaque;

    if (needed && !s->tracks_file) {
        bdrv_tracking_begin(bs->file->bs);
    } else if (!needed && s->tracks_file) {
        bdrv_tracking_end(bs->file->bs);
    }
    s->tracks_file = needed;
}

static void raw_refresh_limits(BlockDriverState *bs)
{
    RawState *s = bs->opaque;
    const BlockLimits *file = &bs->file->bs->bl;

    bs->bl.max_pdiscard = file->max_pdiscard;
    bs->bl.pdiscard_alignment = file->pdiscard_alignment;
    bs->bl.max_pwrite_zeroes = file->max_pwrite_zeroes;
    bs->bl.pwrite_zeroes_alignment = file->pwrite_zeroes_alignment;
    bs->bl.logical_block_size = file->logical_block_size;
    bs->bl.physical_block_size = file->physical_block_size;
    if (bs->probed) {
        /* The protected sector is written whole or not at all. */
        bs->bl.request_alignment = MAX(bs->bl.request_alignment,
                                       BLOCK_PROBE_BUF_SIZE);
    }
    raw_update_tracking(bs, s->offset & (file->request_alignment - 1));
}

static void raw_close(BlockDriverState *bs)
{
    raw_update_tracking(bs, false);
}

static bool raw_create(BlockGraph *graph, const char *filename,
                       json_t *options, Error **errp)
{
    return bdrv_create_file(graph, filename, options, errp);
}

/* ---- Requests ---- */

static bool raw_has_room(const RawState *s, int64_t offset, int64_t bytes)
{
    return !s->has_size || (bytes <= s->size && offset <= s->size - bytes);
}

static bool raw_is_protected(BlockDriverState *bs, int64_t offset)
{
    return bs->probed && offset < BLOCK_PROBE_BUF_SIZE;
}

static int raw_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    RawState *s = bs->opaque;

    bdrv_debug_event(bs->file->bs, "read_aio");
    return bdrv_preadv(bs->file, offset + s->offset, bytes, qiov, qiov_offset,
                       flags);
}

/*
 * How images of other formats begin.  Programs that have those formats, later
 * versions of this one among them, would obey such a header when they probe.
 */
static const struct {
    unsigned offset;
    const char *magic;
    unsigned size;
} raw_foreign_magics[] = {
    { 0, "QFI\xfb", 4 },                    /* qcow, qcow2 */
    { 0, "QED\0", 4 },
    { 0, "KDMV", 4 },                       /* vmdk */
    { 0, "COWD", 4 },
    { 0, "# Disk DescriptorFile", 21 },
    { 0, "vhdxfile", 8 },
    { 0, "conectix", 8 },                   /* vpc */
    { 0, "WithoutFreeSpace", 16 },          /* parallels */
    { 0, "WithouFreSpacExt", 16 },
    { 0, "LUKS\xba\xbe", 6 },
    { 0, "Bochs Virtual HD Image", 22 },
    { 0, "#!/bin/sh\n#V2.0 Format", 22 },   /* cloop */
    { 0x40, "\x7f\x10\xda\xbe", 4 },        /* vdi */
};

static bool raw_has_foreign_magic(const uint8_t *buf)
{
    for (size_t i = 0; i < ARRAY_SIZE(raw_foreign_magics); i++) {
        if (!memcmp(buf + raw_foreign_magics[i].offset,
                    raw_foreign_magics[i].magic,
                    raw_foreign_magics[i].size)) {
            return true;
        }
    }
    return false;
}

/* Would probing an image that begins with @buf still say that it is raw? */
static bool raw_stays_raw(BlockDriverState *bs, const uint8_t *buf)
{
    BlockDriver *const *drv;

    if (raw_has_foreign_magic(buf)) {
        return false;
    }
    for (drv = bdrv_all_drivers(); *drv; drv++) {
        if (*drv != bs->drv && (*drv)->probe &&
            (*drv)->probe(buf, BLOCK_PROBE_BUF_SIZE, "") > 1) {
            return false;
        }
    }
    return true;
}

static int raw_pwritev_protected(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, QEMUIOVector *qiov,
                                 size_t qiov_offset, int flags)
{
    RawState *s = bs->opaque;
    uint8_t buf[BLOCK_PROBE_BUF_SIZE];
    QEMUIOVector checked;
    int ret;

    if (offset != 0 || bytes < BLOCK_PROBE_BUF_SIZE) {
        return -EINVAL;
    }
    qemu_iovec_to_buf(qiov, qiov_offset, buf, BLOCK_PROBE_BUF_SIZE);
    if (!raw_stays_raw(bs, buf)) {
        return -EPERM;
    }
    qemu_iovec_init(&checked, qiov->niov + 1);
    qemu_iovec_add(&checked, buf, BLOCK_PROBE_BUF_SIZE);
    qemu_iovec_concat(&checked, qiov, qiov_offset + BLOCK_PROBE_BUF_SIZE,
                      bytes - BLOCK_PROBE_BUF_SIZE);
    ret = bdrv_pwritev(bs->file, offset + s->offset, bytes, &checked, 0,
                       flags & ~BDRV_REQ_REGISTERED_BUF);
    qemu_iovec_destroy(&checked);
    return ret;
}

static int raw_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    RawState *s = bs->opaque;

    if (!raw_has_room(s, offset, bytes)) {
        return -ENOSPC;
    }
    if (bytes && raw_is_protected(bs, offset)) {
        return raw_pwritev_protected(bs, offset, bytes, qiov, qiov_offset,
                                     flags);
    }
    bdrv_debug_event(bs->file->bs, "write_aio");
    return bdrv_pwritev(bs->file, offset + s->offset, bytes, qiov, qiov_offset,
                        flags);
}

static int raw_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                             int64_t bytes, int flags)
{
    RawState *s = bs->opaque;

    return raw_has_room(s, offset, bytes) ?
           bdrv_pwrite_zeroes(bs->file, offset + s->offset, bytes, flags) :
           -ENOSPC;
}

static int raw_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    RawState *s = bs->opaque;

    return raw_has_room(s, offset, bytes) ?
           bdrv_pdiscard(bs->file, offset + s->offset, bytes) : -ENOSPC;
}

static int raw_block_status(BlockDriverState *bs, bool want_zero,
                            int64_t offset, int64_t bytes, int64_t *pnum,
                            int64_t *map, BlockDriverState **file)
{
    RawState *s = bs->opaque;

    *pnum = bytes;
    *map = offset + s->offset;
    *file = bs->file->bs;
    return BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_RECURSE;
}

static BdrvMapResult raw_map_nowait(BlockDriverState *bs,
                                    BdrvTrackedRequest *req,
                                    BdrvMapping *mapping)
{
    RawState *s = bs->opaque;

    if (unlikely(!raw_has_room(s, req->map_offset, req->bytes) ||
                 (req->type == BDRV_REQ_WRITE &&
                  raw_is_protected(bs, req->map_offset)))) {
        return BDRV_MAP_WORKER;
    }
    mapping->child = bs->file;
    mapping->offset = req->map_offset + s->offset;
    return BDRV_MAP_CHILD;
}

/* ---- Length ---- */

static int64_t raw_getlength(BlockDriverState *bs)
{
    RawState *s = bs->opaque;
    int64_t length;

    if (s->has_size) {
        return s->size;
    }
    length = bdrv_getlength(bs->file->bs);
    /* Somebody may have cut the file below our start. */
    return length < 0 ? length : MAX(length - s->offset, 0);
}

static bool raw_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                         PreallocMode prealloc, int flags, Error **errp)
{
    RawState *s = bs->opaque;

    if (s->has_size) {
        error_setg(errp, "Cannot resize fixed-size raw disks");
        return false;
    }
    if (INT64_MAX - offset < s->offset) {
        error_setg(errp, "Disk size too large for the chosen offset");
        return false;
    }
    return bdrv_truncate(bs->file, offset + s->offset, exact, prealloc, flags,
                         errp);
}

static int64_t raw_get_allocated_file_size(BlockDriverState *bs)
{
    return bdrv_get_allocated_file_size(bs->file->bs);
}

static int raw_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    return bdrv_get_info(bs->file->bs, info);
}

/* It is beside the disk: no part of what this node shows. */
static int raw_save_vmstate(BlockDriverState *bs, int64_t pos,
                            QEMUIOVector *qiov)
{
    return bdrv_save_vmstate(bs->file->bs, pos, qiov);
}

static int raw_load_vmstate(BlockDriverState *bs, int64_t pos,
                            QEMUIOVector *qiov)
{
    return bdrv_load_vmstate(bs->file->bs, pos, qiov);
}

static bool raw_has_zero_init(BlockDriverState *bs)
{
    return bdrv_has_zero_init(bs->file->bs);
}

static json_t *raw_measure(json_t *options, BlockDriverState *in_bs,
                           Error **errp)
{
    int64_t size = 0;

    if (in_bs) {
        size = bdrv_getlength(in_bs);
        if (size < 0) {
            error_setg_errno(errp, -size, "Unable to get image size");
            return NULL;
        }
    } else if (!opt_take_offset(options, "size", &size, errp)) {
        return NULL;
    }
    if (size > INT64_MAX - (BDRV_SECTOR_SIZE - 1)) {
        error_setg(errp, "Image size is too large");
        return NULL;
    }
    size = ROUND_UP(size, BDRV_SECTOR_SIZE);
    return json_pack("{s:I, s:I}", "required", (json_int_t)size,
                     "fully-allocated", (json_int_t)size);
}

static const BlockCreateOption raw_create_opts[] = {
    { "size", BLOCK_OPT_SIZE, "Virtual disk size", NULL },
    { NULL },
};

BlockDriver bdrv_raw = {
    .format_name = "raw",
    .supports_handover = true,
    .instance_size = sizeof(RawState),
    .sends_aligned = true,
    .create_opts = raw_create_opts,
    .probe = raw_probe,
    .open = raw_open,
    .close = raw_close,
    .reopen_prepare = raw_reopen_prepare,
    .reopen_commit = raw_reopen_commit,
    .reopen_abort = raw_reopen_abort,
    .refresh_limits = raw_refresh_limits,
    .create = raw_create,
    .preadv = raw_preadv,
    .pwritev = raw_pwritev,
    .pwrite_zeroes = raw_pwrite_zeroes,
    .pdiscard = raw_pdiscard,
    .block_status = raw_block_status,
    .truncate = raw_truncate,
    .getlength = raw_getlength,
    .get_allocated_file_size = raw_get_allocated_file_size,
    .get_info = raw_get_info,
    .has_zero_init = raw_has_zero_init,
    .save_vmstate = raw_save_vmstate,
    .load_vmstate = raw_load_vmstate,
    .measure = raw_measure,
    .supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_REGISTERED_BUF,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP |
                            BDRV_REQ_NO_FALLBACK,
    .map_nowait = raw_map_nowait,
};
