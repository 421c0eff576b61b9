/*
 * qemu-img commit: write what an image has over its backing file into that.
 *
 * The target is taken from below its overlay first: then nobody reads it while
 * it is written, and what the images above it do not hold is not in question.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "walk.h"
#include "block/block-driver.h"
#include "block/snapshot.h"

static const char synopsis[] =
    "[-f FMT | --image-opts] [-t CACHE_MODE] [-b BASE_IMG] [-d]\n"
    "        [-r RATE] [--object OBJDEF] FILENAME";

static const char arguments[] =
    "  -q, --quiet\n"
    "     quiet operations\n"
    "  -p, --progress\n"
    "     show operation progress\n"
    "  -f, --format FMT\n"
    "     specify FILENAME image format explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --format)\n"
    "  -t, --cache CACHE_MODE image cache mode (writeback)\n"
    "  -d, --drop\n"
    "     skip emptying FILENAME on completion\n"
    "  -b, --base BASE_IMG\n"
    "     image in the backing chain to which to commit changes\n"
    "     instead of the previous one (implies --drop)\n"
    "  -r, --rate RATE\n"
    "     I/O rate limit\n"
    "  --object OBJDEF\n"
    "     QEMU user-creatable object (eg encryption key)\n"
    "  FILENAME\n"
    "     name of the image file to operate on\n";

typedef struct CommitArgs {
    ImgOpen image;
    const char *cache;
    const char *base;
    int64_t rate;
    bool drop;
    bool progress;
    bool quiet;
} CommitArgs;

typedef struct Commit {
    BlockBackend *top;
    BlockBackend *target;
} Commit;

/* ---- Copying ---- */

enum { COMMIT_DATA = 1, COMMIT_ZEROES };

static int classify(void *opaque, int64_t offset, int64_t *bytes)
{
    Commit *c = opaque;
    int ret = bdrv_block_status_above(blk_bs(c->top), NULL, offset, *bytes,
                                      bytes, NULL, NULL);

    if (ret < 0 || !(ret & BDRV_BLOCK_ALLOCATED)) {
        return MIN(ret, 0);
    }
    return ret & BDRV_BLOCK_ZERO ? COMMIT_ZEROES : COMMIT_DATA;
}

static int copy(void *opaque, int64_t offset, int64_t bytes, int kind,
                uint8_t *buf)
{
    Commit *c = opaque;
    int ret;

    if (kind == COMMIT_ZEROES) {
        return blk_pwrite_zeroes(c->target, offset, bytes,
                                 BDRV_REQ_MAY_UNMAP);
    }
    ret = blk_pread(c->top, offset, bytes, buf, 0);
    return ret < 0 ? ret : blk_pwrite(c->target, offset, bytes, buf, 0);
}

static bool copy_all(const CommitArgs *args, Commit *c, int64_t length,
                     Error **errp)
{
    ImgWalk walk = {
        .length = length, .rate = args->rate, .buffers = 1, .opaque = c,
        .classify = classify, .work = copy,
    };
    int64_t error_at;
    int ret = img_walk(&walk, &error_at);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not commit the data at offset %"
                         PRId64, error_at);
        return false;
    }
    ret = blk_flush(c->target);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush the backing file");
    }
    return ret >= 0;
}

/* ---- The target ---- */

/* Does @name mean the backing file @below of @bs?  The name that is in the
 * header, one relative to where @bs is, or another way to the same file. */
static bool is_named(BlockDriverState *bs, BlockDriverState *below,
                     const char *name)
{
    g_autofree char *full = bdrv_get_full_backing_filename(bs, NULL);
    g_autofree char *meant = bdrv_get_full_backing_filename_from_filename(
        bdrv_get_filename(bs), name, NULL);
    const char *filename = bdrv_get_filename(below);

    return g_str_equal(name, filename) ||
           g_str_equal(name, bs->backing_file ? bs->backing_file : "") ||
           (full && g_str_equal(name, full)) ||
           (meant && img_is_same_file(meant, filename));
}

/* The image of the chain that @name names; *@above is its overlay. */
static BlockDriverState *find_base(BlockDriverState *top, const char *name,
                                   BlockDriverState **above)
{
    BlockDriverState *bs;

    for (bs = top; bdrv_backing_bs(bs); bs = bdrv_backing_bs(bs)) {
        BlockDriverState *below = bdrv_backing_bs(bs);

        *above = bs;
        if (!name || is_named(bs, below, name)) {
            return below;
        }
    }
    return NULL;
}

static bool make_writable(BlockDriverState *base, BlockBackend *target,
                          Error **errp)
{
    json_t *options = json_pack("{s:b}", "read-only", 0);

    return bdrv_reopen(base, options, errp) &&
           blk_insert_bs(target, base, errp);
}

/* As long as the top, at least. */
static bool grow_target(Commit *c, int64_t *length, Error **errp)
{
    int64_t target_length = blk_getlength(c->target);

    *length = blk_getlength(c->top);
    if (*length < 0 || target_length < 0) {
        error_setg_errno(errp, -MIN(*length, target_length),
                         "Could not get image size");
        return false;
    }
    return target_length >= *length ||
           blk_truncate(c->target, *length, false, PREALLOC_MODE_OFF, 0, errp);
}

static bool commit_to(const CommitArgs *args, Commit *c,
                      BlockDriverState *above, BlockDriverState *base,
                      Error **errp)
{
    int64_t length;

    return bdrv_set_backing_hd(above, NULL, errp) &&
           make_writable(base, c->target, errp) &&
           grow_target(c, &length, errp) &&
           copy_all(args, c, length, errp) &&
           (args->drop || args->base || bdrv_make_empty(above, errp));
}

static bool commit(const CommitArgs *args, BlockBackend *blk, Error **errp)
{
    Commit c = { .top = blk };
    BlockDriverState *above = NULL, *base;
    bool ok;

    base = find_base(blk_bs(blk), args->base, &above);
    if (!base && args->base) {
        error_setg(errp, "Did not find '%s' in the backing chain of '%s'",
                   args->base, args->image.filename);
        return false;
    }
    if (!base) {
        error_setg(errp, "Image does not have a backing file");
        return false;
    }
    bdrv_ref(base);
    c.target = blk_new(img_graph(), BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                       BLK_PERM_RESIZE, BLK_PERM_CONSISTENT_READ);
    blk_set_enable_write_cache(c.target, !args->image.writethrough);
    ok = commit_to(args, &c, above, base, errp);
    blk_unref(c.target);
    bdrv_unref(base);
    return ok;
}

/* ---- Command line ---- */

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       CommitArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "progress", no_argument, NULL, 'p' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "cache", required_argument, NULL, 't' },
        { "drop", no_argument, NULL, 'd' },
        { "base", required_argument, NULL, 'b' },
        { "rate", required_argument, NULL, 'r' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hqpf:t:db:r:", long_options,
                            NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 'p':
            args->progress = true;
            break;
        case 't':
            args->cache = optarg;
            break;
        case 'd':
            args->drop = true;
            break;
        case 'b':
            args->base = optarg;
            break;
        case 'r':
            args->rate = img_take_number("rate limit", optarg, true, 0,
                                         INT64_MAX);
            break;
        default:
            img_take_option(argv[0], c, &args->image, &args->quiet);
        }
    }
    args->image.filename = img_take_filename(argc, argv);
}

int img_commit(const ImgCommand *cmd, int argc, char **argv)
{
    CommitArgs args = {
        .image.flags = BDRV_O_RDWR | BDRV_O_UNMAP,
        .cache = "writeback",
    };
    BlockBackend *blk;
    Error *err = NULL;
    bool ok;

    parse_args(cmd, argc, argv, &args);
    blk = img_parse_cache(args.cache, &args.image) ? img_open(&args.image) :
                                                     NULL;
    if (!blk) {
        return EXIT_FAILURE;
    }
    img_progress_init(args.progress && !args.quiet, 1);
    ok = commit(&args, blk, &err);
    img_progress_finish(ok);
    blk_unref(blk);
    if (!ok) {
        error_report_err(err);
    }
    if (ok && !args.quiet) {
        printf("Image committed.\n");
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
