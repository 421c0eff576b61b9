/*
 * qemu-img rebase: give an image another backing file.
 *
 * The safe way keeps the contents: where the image itself says nothing, and the
 * old and the new backing file differ, it takes what the old one has.  Both are
 * read by several threads; where neither can differ (both zero, or the new
 * chain is the lower part of the old one and the upper part says nothing) they
 * are not read.  The unsafe way changes the name and nothing else.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "walk.h"
#include "block/block-driver.h"

static const char synopsis[] =
    "[-f FMT | --image-opts] [-t CACHE] [-q] [-U] [-p]\n"
    "        [-b BACKING_FILENAME [-F BACKING_FMT] [-T BACKING_CACHE]] [-u]\n"
    "        [--object OBJDEF] [-c] FILENAME\n"
    "Rebases FILENAME on top of BACKING_FILENAME or no backing file";

static const char arguments[] =
    "  -q, --quiet\n"
    "     quiet operation\n"
    "  -p, --progress\n"
    "     show progress indicator\n"
    "  -f, --format FMT\n"
    "     specify FILENAME format explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --format)\n"
    "  -t, --cache CACHE\n"
    "     cache mode for FILENAME (writeback)\n"
    "  -b, --backing BACKING_FILENAME|\"\"\n"
    "     rebase onto this file (or no backing file)\n"
    "  -F, --backing-format BACKING_FMT\n"
    "     specify format for BACKING_FILENAME\n"
    "  -T, --backing-cache CACHE\n"
    "     BACKING_FILENAME cache mode (writeback)\n"
    "  -u, --backing-unsafe\n"
    "     do not fail if BACKING_FILENAME can not be read\n"
    "  -c, --compress\n"
    "     compress image (when image supports this)\n"
    "  -U, --force-share\n"
    "     open image in shared mode for concurrent access\n"
    "  --object OBJDEF\n"
    "     QEMU user-creatable object (eg encryption key)\n"
    "  FILENAME\n"
    "     image file name (or specification with --image-opts)\n";

typedef struct RebaseArgs {
    ImgOpen image;
    const char *cache;
    const char *backing_cache;
    const char *backing;           /* NULL: not given */
    const char *backing_fmt;
    bool share_backing;
    bool unsafe;
    bool compress;
    bool progress;
    bool quiet;
} RebaseArgs;

/* Each thread holds a piece of both backing files; all together, not more than
 * a single one would need for the largest clusters. */
#define MIN_PIECE (1 * MiB)
#define BUFFER_MEMORY (2 * IMG_WALK_PIECE)

/* One of the two backing files; blk NULL: none, all zeroes. */
typedef struct Side {
    BlockBackend *blk;
    int64_t length;
} Side;

typedef struct Rebase {
    BlockBackend *image;
    Side old, new;
    int64_t unit;                  /* what is written starts and ends at
                                    * multiples of it; the image has all or
                                    * nothing of one */
    int64_t cluster_size;          /* what is compressed */
    int64_t length;                /* of the image */
    int64_t piece;                 /* what is compared at a time, whole units */
    bool compress;
} Rebase;

/* ---- Comparing and copying ---- */

/* 1: reads as zeroes; 0: it may not; or -errno.  Shortens *@bytes. */
static int side_is_zero(const Side *side, int64_t offset, int64_t *bytes)
{
    int64_t n;
    int ret;

    if (offset >= side->length) {
        return 1;
    }
    n = MIN(*bytes, side->length - offset);
    ret = bdrv_block_status_above(blk_bs(side->blk), NULL, offset, n, bytes,
                                  NULL, NULL);
    return ret < 0 ? ret : !!(ret & BDRV_BLOCK_ZERO) ||
                           !(ret & BDRV_BLOCK_DATA);
}

static int side_read(const Side *side, int64_t offset, int64_t bytes,
                     uint8_t *buf)
{
    int64_t n = CLAMP(side->length - offset, 0, bytes);

    memset(buf + n, 0, bytes - n);
    return n ? blk_pread(side->blk, offset, n, buf, 0) : 0;
}

static int classify(void *opaque, int64_t offset, int64_t *bytes)
{
    Rebase *r = opaque;
    int64_t total = *bytes;
    int ret = bdrv_is_allocated(blk_bs(r->image), offset, *bytes, bytes);
    int old_zero, new_zero;

    if (ret) {
        return MIN(ret, 0);
    }
    old_zero = side_is_zero(&r->old, offset, bytes);
    if (old_zero < 0) {
        return old_zero;
    }
    new_zero = side_is_zero(&r->new, offset, bytes);
    if (new_zero < 0) {
        return new_zero;
    }
    if (*bytes < total) {
        /* Whole units; what the rest of one holds is looked at by reading. */
        int64_t end = QEMU_ALIGN_DOWN(offset + *bytes, r->unit);

        if (end <= offset) {
            *bytes = MIN(total, QEMU_ALIGN_DOWN(offset, r->unit) + r->unit -
                                offset);
            return 1;
        }
        *bytes = end - offset;
    }
    return !(old_zero && new_zero);
}

/* What becomes of a unit; the values of a run of them. */
enum {
    KEEP,                          /* the same below, or the image has it */
    COPY,
    ZERO,                          /* there was no backing file */
};

/* -errno on errors. */
static int judge_unit(Rebase *r, int64_t offset, int64_t bytes,
                      const uint8_t *old, const uint8_t *new)
{
    int64_t allocated;
    int ret = bdrv_is_allocated(blk_bs(r->image), offset, bytes, &allocated);

    if (ret) {
        return MIN(ret, KEEP);
    }
    return !memcmp(old, new, bytes) ? KEEP : r->old.blk ? COPY : ZERO;
}

/* Clusters that the run covers are compressed, what is left of others is not:
 * the rest of those is the image's own. */
static int write_compressed(Rebase *r, int64_t offset, int64_t bytes,
                            const uint8_t *buf)
{
    int64_t end = offset + bytes;
    int64_t first = MIN(ROUND_UP(offset, r->cluster_size), end);
    int64_t last = end == r->length ? end :
                   MAX(QEMU_ALIGN_DOWN(end, r->cluster_size), first);
    int ret = 0;

    if (offset < first) {
        ret = blk_pwrite(r->image, offset, first - offset, buf, 0);
    }
    if (ret >= 0 && first < last) {
        ret = blk_pwrite(r->image, first, last - first, buf + (first - offset),
                         BDRV_REQ_WRITE_COMPRESSED);
    }
    if (ret >= 0 && last < end) {
        ret = blk_pwrite(r->image, last, end - last, buf + (last - offset), 0);
    }
    return ret;
}

static int write_back(Rebase *r, int what, int64_t offset, int64_t bytes,
                      const uint8_t *buf)
{
    if (what == KEEP) {
        return 0;
    }
    if (what == ZERO) {
        return blk_pwrite_zeroes(r->image, offset, bytes, 0);
    }
    return r->compress ? write_compressed(r, offset, bytes, buf) :
                         blk_pwrite(r->image, offset, bytes, buf, 0);
}

/* Write the runs of units that differ, unless the image has them. */
static int work(void *opaque, int64_t offset, int64_t bytes, int kind,
                uint8_t *buf)
{
    Rebase *r = opaque;
    uint8_t *new = buf + r->piece;
    int64_t start = 0, pos, n = 0;
    int what = KEEP, next;
    int ret = side_read(&r->old, offset, bytes, buf);

    ret = ret < 0 ? ret : side_read(&r->new, offset, bytes, new);
    for (pos = 0; ret >= 0 && pos < bytes; pos += n) {
        n = MIN(r->unit, bytes - pos);
        next = judge_unit(r, offset + pos, n, buf + pos, new + pos);
        if (next < 0) {
            return next;
        }
        if (next != what) {
            ret = write_back(r, what, offset + start, pos - start,
                             buf + start);
            start = pos;
            what = next;
        }
    }
    return ret < 0 ? ret : write_back(r, what, offset + start, bytes - start,
                                      buf + start);
}

static bool copy_differences(Rebase *r, Error **errp)
{
    BlockDriverInfo info = { 0 };
    ImgWalk walk = {
        .buffers = 2, .opaque = r, .classify = classify, .work = work,
    };
    int64_t error_at;
    int ret;

    walk.length = blk_getlength(r->image);
    if (walk.length < 0) {
        error_setg_errno(errp, -walk.length, "Could not get image size");
        return false;
    }
    r->length = walk.length;
    bdrv_get_info(blk_bs(r->image), &info);
    r->cluster_size = CLAMP(info.cluster_size, BDRV_SECTOR_SIZE,
                            IMG_WALK_PIECE);
    r->unit = info.subcluster_size ?
              MAX(info.subcluster_size, BDRV_SECTOR_SIZE) : r->cluster_size;
    r->piece = MAX(r->cluster_size, MIN_PIECE);
    walk.piece = r->piece;
    walk.max_workers = BUFFER_MEMORY / (walk.buffers * r->piece);
    ret = img_walk(&walk, &error_at);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "error while rebasing at offset %"
                         PRId64, error_at);
        return false;
    }
    /* Before the name changes, the contents must be there. */
    ret = blk_flush(r->image);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush the image");
    }
    return ret >= 0;
}

/* ---- Backing files ---- */

static bool open_new(const RebaseArgs *args, Rebase *r, int flags,
                     Error **errp)
{
    ERRP_GUARD();
    g_autofree char *full = NULL;
    json_t *options;

    if (!*args->backing) {
        return true;
    }
    full = bdrv_get_full_backing_filename_from_filename(
        bdrv_get_filename(blk_bs(r->image)), args->backing, errp);
    if (!full) {
        return false;
    }
    options = json_object();
    if (args->backing_fmt) {
        opt_set_str(options, "driver", args->backing_fmt);
    }
    if (args->share_backing) {
        opt_set_bool(options, "force-share", true);
    }
    r->new.blk = blk_new_open(img_graph(), full, NULL, options, flags, errp);
    if (!r->new.blk) {
        error_prepend(errp, "Could not open new backing file '%s': ",
                      args->backing);
        return false;
    }
    r->new.length = blk_getlength(r->new.blk);
    if (r->new.length < 0) {
        error_setg_errno(errp, -r->new.length, "Could not get size of '%s'",
                         args->backing);
    }
    return r->new.length >= 0;
}

/* What is below the image now, as it is. */
static bool take_old(Rebase *r, Error **errp)
{
    BlockDriverState *bs = bdrv_backing_bs(blk_bs(r->image));

    if (!bs) {
        return true;
    }
    r->old.blk = blk_new(img_graph(), BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    if (!blk_insert_bs(r->old.blk, bs, errp)) {
        return false;
    }
    r->old.length = blk_getlength(r->old.blk);
    if (r->old.length < 0) {
        error_setg_errno(errp, -r->old.length, "Could not get size of the "
                         "backing file");
    }
    return r->old.length >= 0;
}

static bool change_name(const RebaseArgs *args, BlockBackend *blk,
                        Error **errp)
{
    ERRP_GUARD();
    bool none = !*args->backing;

    if (!bdrv_change_backing_file(blk_bs(blk), none ? NULL : args->backing,
                                  none ? NULL : args->backing_fmt, errp)) {
        error_prepend(errp, "Could not change the backing file to '%s': ",
                      args->backing);
        return false;
    }
    return true;
}

static bool rebase(const RebaseArgs *args, BlockBackend *blk, int flags,
                   Error **errp)
{
    Rebase r = { .image = blk, .compress = args->compress };
    bool ok = args->unsafe ||
              (take_old(&r, errp) && open_new(args, &r, flags, errp) &&
               copy_differences(&r, errp));

    blk_unref(r.old.blk);
    blk_unref(r.new.blk);
    return ok && change_name(args, blk, errp);
}

/* ---- Command line ---- */

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       RebaseArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "progress", no_argument, NULL, 'p' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "cache", required_argument, NULL, 't' },
        { "compress", no_argument, NULL, 'c' },
        { "backing", required_argument, NULL, 'b' },
        { "backing-format", required_argument, NULL, 'F' },
        { "backing-cache", required_argument, NULL, 'T' },
        { "backing-unsafe", no_argument, NULL, 'u' },
        { "force-share", no_argument, NULL, 'U' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hqpf:t:cb:F:T:uU", long_options,
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
        case 'c':
            args->compress = true;
            break;
        case 'b':
            args->backing = optarg;
            break;
        case 'F':
            args->backing_fmt = optarg;
            break;
        case 'T':
            args->backing_cache = optarg;
            break;
        case 'u':
            args->unsafe = true;
            break;
        case 'U':
            /* The image itself is written to, which nobody may share. */
            args->share_backing = true;
            break;
        default:
            img_take_option(argv[0], c, &args->image, &args->quiet);
        }
    }
    args->image.filename = img_take_filename(argc, argv);
    if (!args->unsafe && !args->backing) {
        img_try_help(argv[0],
                     "Must specify backing file (-b) or use unsafe mode (-u)");
    }
}

static bool parse_cache_modes(RebaseArgs *args, int *backing_flags)
{
    bool writethrough;

    if (!img_parse_cache(args->cache, &args->image)) {
        return false;
    }
    if (!bdrv_parse_cache_mode(args->backing_cache, backing_flags,
                               &writethrough)) {
        error_report("Invalid source cache option: %s", args->backing_cache);
        return false;
    }
    if (args->backing_fmt && !bdrv_find_format(args->backing_fmt)) {
        error_report("Invalid format name: '%s'", args->backing_fmt);
        return false;
    }
    return true;
}

int img_rebase(const ImgCommand *cmd, int argc, char **argv)
{
    RebaseArgs args = {
        .image.flags = BDRV_O_RDWR,
        .cache = "writeback",
        .backing_cache = "writeback",
    };
    int backing_flags = 0;
    BlockBackend *blk;
    Error *err = NULL;
    bool ok;

    parse_args(cmd, argc, argv, &args);
    if (!parse_cache_modes(&args, &backing_flags)) {
        return EXIT_FAILURE;
    }
    args.image.flags |= args.unsafe ? BDRV_O_NO_BACKING : 0;
    args.backing = args.backing ? args.backing : "";
    blk = img_open(&args.image);
    if (!blk) {
        return EXIT_FAILURE;
    }
    img_progress_init(args.progress && !args.quiet, 1);
    ok = rebase(&args, blk, backing_flags, &err);
    img_progress_finish(ok);
    blk_unref(blk);
    if (!ok) {
        error_report_err(err);
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
