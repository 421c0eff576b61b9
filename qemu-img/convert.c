/*
 * qemu-img convert: copy images into a new one, perhaps of another format.
 *
 * This file opens and creates what is copied; the command line is in
 * convert-args.c, the copying in convert-copy.c.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "convert.h"
#include "block/block-driver.h"
#include "block/dirty-bitmap.h"
#include "qemu/cutils.h"

/* ---- Sources ---- */

/* While it is copied, nobody may write to a source, the target least of all. */
static bool keep_from_writers(BlockBackend *blk, const char *filename)
{
    Error *err = NULL;

    if (!blk_set_perm(blk, BLK_PERM_CONSISTENT_READ,
                      BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED,
                      &err)) {
        error_reportf_err(err, "Could not open '%s': ", filename);
        return false;
    }
    return true;
}

static bool open_sources(ConvertArgs *args, ConvertJob *job)
{
    if (!bdrv_parse_cache_mode(args->src_cache, &args->src.flags,
                               &args->src.writethrough)) {
        error_report("Invalid source cache option: %s", args->src_cache);
        return false;
    }
    job->sources = g_new0(ConvertSource, args->num_src);
    for (int i = 0; i < args->num_src; i++) {
        ConvertSource *src = &job->sources[i];
        ImgOpen how = args->src;

        how.filename = args->src_names[i];
        src->blk = img_open(&how);
        if (!src->blk) {
            return false;
        }
        job->num_sources++;
        if (!how.force_share && !keep_from_writers(src->blk, how.filename)) {
            return false;
        }
        if (args->snapshot &&
            !img_load_snapshot(src->blk, args->snapshot)) {
            return false;
        }
        src->length = img_length(src->blk, how.filename);
        if (src->length < 0) {
            return false;
        }
        src->start = job->total;
        if (__builtin_add_overflow(job->total, src->length, &job->total)) {
            error_report("The input images are too large together");
            return false;
        }
    }
    return true;
}

/* ---- Target ---- */

static bool set_backing(const ConvertArgs *args, CreateOptions *o,
                        const char *fmt)
{
    if (args->backing) {
        if (!create_options_known(o, "backing_file")) {
            error_report("Backing file not supported for file format '%s'",
                         fmt);
            return false;
        }
        create_options_set(o, "backing_file", args->backing);
    }
    if (args->backing_fmt) {
        if (!create_options_known(o, "backing_fmt")) {
            error_report("Backing file format not supported for file format "
                         "'%s'", fmt);
            return false;
        }
        create_options_set(o, "backing_fmt", args->backing_fmt);
    }
    return true;
}

/* What the target will be created with, checked as far as that is possible
 * before anything is written; NULL after a message. */
static CreateOptions *plan_target(const ConvertArgs *args, const char *fmt,
                                  int64_t total)
{
    g_autoptr(CreateOptions) o = NULL;
    const BlockDriver *drv, *proto;
    Error *err = NULL;

    if (!create_find_drivers(fmt, args->target, &drv, &proto, &err)) {
        error_report_err(err);
        return NULL;
    }
    o = create_options_new(drv, proto);
    if (args->options && !create_options_parse(o, args->options, &err)) {
        error_report_err(err);
        return NULL;
    }
    create_options_set_size(o, total);
    if (!set_backing(args, o, fmt)) {
        return NULL;
    }
    return g_steal_pointer(&o);
}

static bool check_backing(const CreateOptions *o)
{
    if (o && create_options_get(o, "backing_file") &&
        !create_options_get(o, "backing_fmt")) {
        error_report("Use of backing file requires explicit backing format");
        return false;
    }
    return true;
}

static bool is_encrypted(const CreateOptions *o)
{
    const char *old = create_options_known(o, "encryption") ?
                      create_options_get(o, "encryption") : NULL;

    return (old && g_str_equal(old, "on")) ||
           (create_options_known(o, "encrypt.format") &&
            create_options_get(o, "encrypt.format"));
}

static bool check_compression(const ConvertArgs *args, const char *fmt,
                              const CreateOptions *o)
{
    const BlockDriver *drv = bdrv_find_format(fmt);
    const char *preallocation = o && create_options_known(o, "preallocation") ?
                                create_options_get(o, "preallocation") : NULL;

    if (!args->compress) {
        return true;
    }
    if (drv && !(drv->supported_write_flags & BDRV_REQ_WRITE_COMPRESSED)) {
        error_report("Compression not supported for this file format");
        return false;
    }
    if (o && is_encrypted(o)) {
        error_report("Compression and encryption not supported at the same "
                     "time");
        return false;
    }
    if (preallocation && !g_str_equal(preallocation, "off")) {
        error_report("Compression and preallocation not supported at the "
                     "same time");
        return false;
    }
    return true;
}

/* The job's compress_unit, from the open target. */
static bool set_compress_unit(const ConvertArgs *args, ConvertJob *job)
{
    BlockDriverInfo info = { 0 };
    int ret = args->compress ? bdrv_get_info(blk_bs(job->target), &info) : 0;

    if (ret < 0 || (args->compress && !info.cluster_size)) {
        error_report("could not get block driver info");
        return false;
    }
    job->compress_unit = info.cluster_size;
    return true;
}

/* ---- Bitmaps ---- */

/* Before anything is written. */
static bool check_bitmaps(const ConvertArgs *args, const ConvertJob *job)
{
    BlockDriverState *bs = blk_bs(job->sources[0].blk);
    BdrvDirtyBitmap *b = NULL;

    if (!args->bitmaps) {
        return true;
    }
    if (job->num_sources > 1) {
        error_report("Copying bitmaps only possible with single source");
        return false;
    }
    if (!bdrv_supports_persistent_dirty_bitmap(bs)) {
        error_report("Source lacks bitmap support");
        return false;
    }
    while (!args->skip_broken_bitmaps && (b = bdrv_dirty_bitmap_next(bs, b))) {
        if (bdrv_dirty_bitmap_inconsistent(b)) {
            error_report("Cannot copy inconsistent bitmap '%s'",
                         bdrv_dirty_bitmap_name(b));
            error_printf("Try --skip-broken-bitmaps, or use 'qemu-img bitmap "
                         "--remove' to delete it\n");
            return false;
        }
    }
    return true;
}

/* The target's has the same granularity, so it gets the same bits. */
static bool copy_bitmap(BlockDriverState *dst, BdrvDirtyBitmap *b)
{
    const char *name = bdrv_dirty_bitmap_name(b);
    Error *err = NULL;

    if (!bdrv_dirty_bitmap_cmd_add(dst, name, bdrv_dirty_bitmap_granularity(b),
                                   true, true, &err)) {
        error_reportf_err(err, "Failed to create bitmap %s: ", name);
        return false;
    }
    if (!bdrv_dirty_bitmap_cmd_merge(dst, name, bdrv_dirty_bitmap_bs(b), name,
                                     &err)) {
        error_reportf_err(err, "Failed to populate bitmap %s: ", name);
        bdrv_dirty_bitmap_cmd_remove(dst, name, NULL);
        return false;
    }
    if (bdrv_dirty_bitmap_enabled(b)) {
        bdrv_enable_dirty_bitmap(bdrv_find_dirty_bitmap(dst, name));
    }
    return true;
}

/* Closing would store them, too, but could not fail. */
static bool copy_bitmaps(const ConvertJob *job)
{
    BlockDriverState *src = blk_bs(job->sources[0].blk);
    BlockDriverState *dst = blk_bs(job->target);
    BdrvDirtyBitmap *b = NULL;
    Error *err = NULL;

    while ((b = bdrv_dirty_bitmap_next(src, b))) {
        if (!bdrv_dirty_bitmap_get_persistence(b)) {
            continue;
        }
        if (bdrv_dirty_bitmap_inconsistent(b)) {
            warn_report("Skipping inconsistent bitmap '%s'",
                        bdrv_dirty_bitmap_name(b));
        } else if (!copy_bitmap(dst, b)) {
            return false;
        }
    }
    if (!bdrv_store_dirty_bitmaps(dst, true, &err)) {
        error_report_err(err);
        return false;
    }
    return true;
}

/* ---- Target, opened ---- */

/* Of the options of create, those that opening needs as well. */
static json_t *key_secrets(const json_t *options)
{
    json_t *secrets = json_object();
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)options, key, value) {
        if (g_str_has_suffix(key, "key-secret")) {
            json_object_set(secrets, key, value);
        }
    }
    return secrets;
}

/* *@secrets is what the new target cannot be opened without. */
static bool create_target(const ConvertArgs *args, ConvertJob *job,
                          json_t **secrets)
{
    const char *fmt = args->target_fmt ? args->target_fmt : "raw";
    g_autoptr(CreateOptions) o = NULL;
    Error *err = NULL;

    if (!args->skip_create) {
        o = plan_target(args, fmt, job->total);
        if (!o) {
            return false;
        }
    }
    if (args->backing && args->num_src > 1) {
        error_report("Having a backing file for the target makes no sense "
                     "when concatenating multiple input images");
        return false;
    }
    if (!check_backing(o) || !check_compression(args, fmt, o)) {
        return false;
    }
    if (!check_bitmaps(args, job)) {
        return false;
    }
    if (o) {
        json_t *options = create_options_to_json(o);

        *secrets = key_secrets(options);
        if (!bdrv_create(img_graph(), fmt, args->target, options, &err)) {
            error_reportf_err(err, "%s: error while converting %s: ",
                              args->target, fmt);
            g_clear_pointer(secrets, json_decref);
            return false;
        }
    }
    return true;
}

static bool open_target(const ConvertArgs *args, ConvertJob *job)
{
    ImgOpen how = {
        .filename = args->target,
        .fmt = args->target_image_opts ? args->target_fmt :
               args->target_fmt ? args->target_fmt : "raw",
        .flags = BDRV_O_RDWR,
        .image_opts = args->target_image_opts,
    };
    int64_t length;

    if (!bdrv_parse_cache_mode(args->target_cache, &how.flags,
                               &how.writethrough)) {
        error_report("Invalid cache option: %s", args->target_cache);
        return false;
    }
    if (job->sparse_size) {
        how.flags |= BDRV_O_UNMAP;
    }
    if (!create_target(args, job, &how.options)) {
        return false;
    }
    job->target = img_open(&how);
    if (!job->target) {
        return false;
    }
    if (args->bitmaps &&
        !bdrv_supports_persistent_dirty_bitmap(blk_bs(job->target))) {
        error_report("Format driver '%s' does not support bitmaps",
                     bdrv_get_format_name(blk_bs(job->target)));
        return false;
    }
    length = img_length(job->target, args->target);
    if (length < 0) {
        return false;
    }
    if (length < job->total) {
        error_report("output file is smaller than input file");
        return false;
    }
    job->target_has_backing = args->backing ||
                              bdrv_backing_bs(blk_bs(job->target));
    job->target_is_zero = args->target_is_zero ||
        (!args->skip_create && !job->target_has_backing &&
         bdrv_has_zero_init(blk_bs(job->target)));
    return set_compress_unit(args, job);
}

/* ---- All of it ---- */

/* Done means on stable storage, unless the cache mode is "unsafe" (which is the
 * default); then it means written to the host. */
static bool flush_target(const ConvertArgs *args, const ConvertJob *job)
{
    int ret = blk_flush(job->target);

    if (ret < 0) {
        error_report("error while flushing '%s': %s", args->target,
                     g_strerror(-ret));
    }
    return ret >= 0;
}

/* How much of each image the host may keep in its page cache: an eighth of
 * memory, so that copying a large one leaves others what is theirs. */
static int64_t cache_budget(void)
{
    const char *text = getenv("THREADBLOCK_CONVERT_CACHE");     /* for tests */
    int64_t memory = (int64_t)sysconf(_SC_PHYS_PAGES) *
                     sysconf(_SC_PAGESIZE);
    uint64_t bytes;

    if (text && qemu_strtosz(text, NULL, &bytes) == 0 && bytes <= INT64_MAX) {
        return bytes;
    }
    return MAX(memory / 8, 256 * MiB);
}

static void drop_behind(const ConvertJob *job)
{
    int64_t keep = cache_budget();

    for (int i = 0; i < job->num_sources; i++) {
        bdrv_drop_behind(blk_bs(job->sources[i].blk), keep);
    }
    bdrv_drop_behind(blk_bs(job->target), keep);
}

static bool convert(ConvertArgs *args, ConvertJob *job)
{
    if (!open_sources(args, job)) {
        return false;
    }
    if (args->backing && args->target_is_zero) {
        error_report("Cannot use --target-is-zero when the destination image "
                     "has a backing file");
        return false;
    }
    if (!open_target(args, job)) {
        return false;
    }
    drop_behind(job);
    return convert_copy(job) == 0 &&
           (!args->bitmaps || copy_bitmaps(job)) && flush_target(args, job);
}

int img_convert(const ImgCommand *cmd, int argc, char **argv)
{
    ConvertArgs args;
    ConvertJob job = { 0 };
    bool ok;

    convert_parse_args(cmd, argc, argv, &args);
    job.sparse_size = args.sparse_size;
    job.out_of_order = args.out_of_order;
    job.salvage = args.salvage;
    job.quiet = args.quiet;
    job.rate = args.rate;
    job.num_workers = args.num_workers;

    img_progress_init(args.progress && !args.quiet, 1);
    ok = convert(&args, &job);
    if (ok) {
        img_progress_set(1);
    }
    img_progress_end();
    if (job.target) {
        blk_unref(job.target);
    }
    for (int i = 0; i < job.num_sources; i++) {
        blk_unref(job.sources[i].blk);
    }
    g_free(job.sources);
    g_free(args.options);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
