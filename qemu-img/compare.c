/*
 * qemu-img compare: do two images have the same contents?
 *
 * Several threads take the next extent each: block status says what is zeroes
 * in both images and need not be read; the rest is read and compared outside
 * the lock.  What they find can come out of order, so the finding with the
 * lowest offset counts, as if one thread had gone from start to end: nobody
 * takes an extent beyond the lowest finding so far.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/lock-order.h"
#include "qemu/zero.h"

static const char synopsis[] =
    "[--image-opts | [-f FMT] [-F FMT]] [-s]\n"
    "        [-T CACHE] [-U] [--object OBJDEF] FILENAME1 FILENAME2";

static const char arguments[] =
    "  -q, --quiet\n"
    "     quiet operation\n"
    "  -p, --progress\n"
    "     show operation progress\n"
    "  -f, --a-format FMT\n"
    "     specify FILENAME1 image format explicitly\n"
    "  -F, --b-format FMT\n"
    "     specify FILENAME2 image format explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAMEs are complete image specifications\n"
    "     instead of file names (incompatible with --a-format and "
    "--b-format)\n"
    "  -s, --strict\n"
    "     strict mode, also check if sizes are equal\n"
    "  -T, --cache CACHE_MODE\n"
    "     images caching mode (writeback)\n"
    "  -U, --force-share\n"
    "     open images in shared mode for concurrent access\n"
    "  --object OBJDEF\n"
    "     QEMU user-creatable object (eg encryption key)\n"
    "  FILENAME1, FILENAME2\n"
    "     image files (or specifications) to compare\n";

/* What a thread takes at a time, and what it reads of both and compares at a
 * time: small enough to stay in a processor's cache meanwhile. */
#define CHUNK_SIZE (2 * MiB)
#define PIECE_SIZE (256 * KiB)
#define MAX_WORKERS 8
/* What strict mode compares of the status of an extent. */
#define STATUS_FLAGS (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | \
                      BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_EOF)

/* Exit statuses; smaller ones are no errors. */
enum {
    COMPARE_SAME = 0,
    COMPARE_DIFFERENT = 1,
    COMPARE_OPEN_ERROR = 2,
    COMPARE_STATUS_ERROR = 3,
    COMPARE_READ_ERROR = 4,
};

typedef struct CompareImage {
    /* Constant while workers run. */
    BlockBackend *blk;             /* NULL: past its end, reads as zeroes */
    const char *filename;
    /* Under the lock: the extent at Compare.next, asked for once, since that
     * can be slow (a file system looks for its end page by page). */
    int64_t status_end;
    int status;
} CompareImage;

typedef struct Compare {
    /* Constant while workers run. */
    CompareImage img[2];
    int64_t end;                   /* of the range to compare */
    int64_t total;                 /* for progress: both ranges */
    bool strict;

    JobLock lock;
    int64_t next GUARDED_BY(job_class);
    int64_t done GUARDED_BY(job_class);
    /* The finding with the lowest offset; offset INT64_MAX: none. */
    int64_t found_at GUARDED_BY(job_class);
    int found GUARDED_BY(job_class);
    char *found_text GUARDED_BY(job_class);
} Compare;

/* A piece that both images have in one state each. */
typedef struct Chunk {
    int64_t offset;
    int64_t bytes;
    bool is_data[2];
} Chunk;

static void REQUIRES(job_class) note_finding_locked(Compare *c, int64_t offset,
                                                    int what, char *text)
{
    if (offset >= c->found_at) {
        g_free(text);
        return;
    }
    c->found_at = offset;
    c->found = what;
    g_free(c->found_text);
    c->found_text = text;
}

static void note_finding(Compare *c, int64_t offset, int what, char *text)
{
    job_lock(&c->lock);
    note_finding_locked(c, offset, what, text);
    job_unlock(&c->lock);
}

/* Learn about the extent of image @i at @offset; false after a finding. */
static bool REQUIRES(job_class) refresh_status_locked(Compare *c, int i,
                                                      int64_t offset)
{
    CompareImage *img = &c->img[i];
    int64_t pnum = c->end - offset;

    if (!img->blk) {
        img->status = 0;
        img->status_end = c->end;
        return true;
    }
    if (img->status_end > offset) {
        return true;
    }
    img->status = bdrv_block_status_above(blk_bs(img->blk), NULL, offset,
                                          pnum, &pnum, NULL, NULL);
    if (img->status < 0) {
        note_finding_locked(c, offset, COMPARE_STATUS_ERROR,
                            g_strdup_printf("Sector allocation test failed "
                                            "for %s", img->filename));
        return false;
    }
    img->status_end = offset + pnum;
    if (img->status_end >= c->end) {
        img->status |= BDRV_BLOCK_EOF;
    }
    img->status &= STATUS_FLAGS;
    return true;
}

/* Ask both images; false after a finding. */
static bool REQUIRES(job_class) chunk_status_locked(Compare *c, Chunk *chunk)
{
    for (int i = 0; i < 2; i++) {
        if (!refresh_status_locked(c, i, chunk->offset)) {
            return false;
        }
        chunk->bytes = MIN(chunk->bytes,
                           c->img[i].status_end - chunk->offset);
        chunk->is_data[i] = (c->img[i].status & BDRV_BLOCK_DATA) &&
                            !(c->img[i].status & BDRV_BLOCK_ZERO);
    }
    if (c->strict && c->img[0].status != c->img[1].status) {
        note_finding_locked(c, chunk->offset, COMPARE_DIFFERENT,
                            g_strdup_printf("Strict mode: Offset %" PRId64
                                            " block status mismatch!",
                                            chunk->offset));
        return false;
    }
    return true;
}

/* Take the next piece; false: there is none, or a finding makes it idle. */
static bool next_chunk(Compare *c, Chunk *chunk)
{
    bool ok = false;

    job_lock(&c->lock);
    if (c->next < MIN(c->end, c->found_at)) {
        chunk->offset = c->next;
        chunk->bytes = c->end - c->next;
        ok = chunk_status_locked(c, chunk);
        if (ok && (chunk->is_data[0] || chunk->is_data[1])) {
            chunk->bytes = MIN(chunk->bytes, CHUNK_SIZE);
        }
        c->next += chunk->bytes;
    }
    job_unlock(&c->lock);
    return ok;
}

static bool sector_differs(const uint8_t *a, const uint8_t *b, int64_t bytes)
{
    if (a && b) {
        return memcmp(a, b, bytes) != 0;
    }
    return !buffer_is_zero(a ? a : b, bytes);
}

/* The first sector that differs (a NULL buffer is zeroes), or -1. */
static int64_t find_difference(const uint8_t *a, const uint8_t *b,
                               int64_t bytes)
{
    static const int64_t steps[] = { 64 * KiB, BDRV_SECTOR_SIZE };
    int64_t pos = 0;

    /* Narrow it down: a large step that differs holds a small one. */
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        while (pos < bytes &&
               !sector_differs(a ? a + pos : NULL, b ? b + pos : NULL,
                               MIN(steps[i], bytes - pos))) {
            pos += steps[i];
        }
        if (pos >= bytes) {
            return -1;
        }
    }
    return pos;
}

/* False after a finding. */
static bool compare_piece(Compare *c, const Chunk *chunk, int64_t offset,
                          int64_t bytes, uint8_t *buf[2])
{
    uint8_t *data[2] = { NULL, NULL };
    int64_t differs;

    for (int i = 0; i < 2; i++) {
        int ret;

        if (!chunk->is_data[i]) {
            continue;
        }
        data[i] = buf[i];
        ret = blk_pread(c->img[i].blk, offset, bytes, buf[i], 0);
        if (ret < 0) {
            note_finding(c, offset, COMPARE_READ_ERROR,
                         g_strdup_printf("Error while reading offset %" PRId64
                                         " of %s: %s", offset,
                                         c->img[i].filename,
                                         g_strerror(-ret)));
            return false;
        }
    }
    differs = find_difference(data[0], data[1], bytes);
    if (differs >= 0) {
        note_finding(c, offset + differs, COMPARE_DIFFERENT,
                     g_strdup_printf("Content mismatch at offset %" PRId64
                                     "!", offset + differs));
    }
    return differs < 0;
}

static void compare_chunk(Compare *c, const Chunk *chunk, uint8_t *buf[2])
{
    int64_t end = chunk->offset + chunk->bytes, bytes;

    if (!chunk->is_data[0] && !chunk->is_data[1]) {
        return;
    }
    for (int64_t offset = chunk->offset; offset < end; offset += bytes) {
        bytes = MIN(PIECE_SIZE - offset % PIECE_SIZE, end - offset);
        if (!compare_piece(c, chunk, offset, bytes, buf)) {
            return;
        }
    }
}

static void compare_worker(void *opaque)
{
    Compare *c = opaque;
    uint8_t *buf[2] = { NULL, NULL };
    Chunk chunk;

    for (int i = 0; i < 2; i++) {
        if (!c->img[i].blk) {
            continue;
        }
        buf[i] = blk_try_blockalign(c->img[i].blk, PIECE_SIZE);
        if (!buf[i]) {
            note_finding(c, 0, COMPARE_READ_ERROR,
                         g_strdup("Could not allocate a buffer"));
        }
    }
    while (next_chunk(c, &chunk)) {
        double fraction;

        compare_chunk(c, &chunk, buf);
        job_lock(&c->lock);
        c->done += chunk.bytes;
        fraction = (double)c->done / c->total;
        job_unlock(&c->lock);
        img_progress_set(fraction);
    }
    qemu_vfree(buf[0]);
    qemu_vfree(buf[1]);
}

/* Compare up to @end; the exit status. */
static int compare_range(Compare *c, int64_t end, bool quiet)
{
    int64_t chunks;
    int found;

    job_lock(&c->lock);
    c->end = end;
    c->img[0].status_end = c->img[1].status_end = 0;
    chunks = (end - c->next) / CHUNK_SIZE + 1;
    job_unlock(&c->lock);
    img_run_workers(MIN(chunks, MAX_WORKERS), compare_worker, c);

    job_lock(&c->lock);
    found = c->found;
    if (found > COMPARE_DIFFERENT) {
        error_report("%s", c->found_text);
    } else if (found && !quiet) {
        printf("%s\n", c->found_text);
    }
    job_unlock(&c->lock);
    return found;
}

typedef struct CompareArgs {
    ImgOpen image[2];
    const char *cache;
    bool strict;
    bool quiet;
    bool progress;
} CompareArgs;

/* Both are open: compare what they share, then what only one has. */
static int compare_images(const CompareArgs *args, Compare *c,
                          const int64_t length[2])
{
    int longer = length[1] > length[0];
    int ret;

    c->total = MAX(length[longer], 1);
    if (c->strict && length[0] != length[1]) {
        if (!args->quiet) {
            printf("Strict mode: Image size mismatch!\n");
        }
        return COMPARE_DIFFERENT;
    }
    ret = compare_range(c, length[!longer], args->quiet);
    if (ret == COMPARE_SAME && length[0] != length[1]) {
        if (!args->quiet) {
            printf("Warning: Image size mismatch!\n");
        }
        c->img[!longer].blk = NULL;
        ret = compare_range(c, length[longer], args->quiet);
    }
    if (ret == COMPARE_SAME && !args->quiet) {
        printf("Images are identical.\n");
    }
    return ret;
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       CompareArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "progress", no_argument, NULL, 'p' },
        { "a-format", required_argument, NULL, 'f' },
        { "b-format", required_argument, NULL, 'F' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "strict", no_argument, NULL, 's' },
        { "cache", required_argument, NULL, 'T' },
        { "force-share", no_argument, NULL, 'U' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hqpf:F:sT:U", long_options,
                            NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 'q':
            args->quiet = true;
            break;
        case 'p':
            args->progress = true;
            break;
        case 'f':
            args->image[0].fmt = optarg;
            break;
        case 'F':
            args->image[1].fmt = optarg;
            break;
        case OPTION_IMAGE_OPTS:
            args->image[0].image_opts = args->image[1].image_opts = true;
            break;
        case 's':
            args->strict = true;
            break;
        case 'T':
            args->cache = optarg;
            break;
        case 'U':
            args->image[0].force_share = args->image[1].force_share = true;
            break;
        case OPTION_OBJECT:
            img_process_object(optarg, COMPARE_OPEN_ERROR);
            break;
        default:
            img_bad_option(argv[0]);
        }
    }
    if (optind != argc - 2) {
        img_try_help(argv[0], "Expecting two image file names");
    }
    args->image[0].filename = argv[optind];
    args->image[1].filename = argv[optind + 1];
}

/* Open both; the exit status if that fails. */
static int open_images(CompareArgs *args, BlockBackend *blk[2],
                       int64_t length[2])
{
    for (int i = 0; i < 2; i++) {
        if (!bdrv_parse_cache_mode(args->cache, &args->image[i].flags,
                                   &args->image[i].writethrough)) {
            error_report("Invalid source cache option: %s", args->cache);
            return COMPARE_OPEN_ERROR;
        }
    }
    for (int i = 0; i < 2; i++) {
        blk[i] = img_open(&args->image[i]);
        if (!blk[i]) {
            return COMPARE_OPEN_ERROR;
        }
    }
    for (int i = 0; i < 2; i++) {
        length[i] = img_length(blk[i], args->image[i].filename);
        if (length[i] < 0) {
            return COMPARE_READ_ERROR;
        }
    }
    return COMPARE_SAME;
}

int img_compare(const ImgCommand *cmd, int argc, char **argv)
{
    CompareArgs args = { .cache = "writeback" };
    BlockBackend *blk[2] = { NULL, NULL };
    Compare c = { .found_at = INT64_MAX };
    int64_t length[2];
    int ret;

    parse_args(cmd, argc, argv, &args);
    img_progress_init(args.progress && !args.quiet, 2);
    ret = open_images(&args, blk, length);
    if (ret == COMPARE_SAME) {
        job_init(&c.lock);
        c.strict = args.strict;
        for (int i = 0; i < 2; i++) {
            c.img[i].blk = blk[i];
            c.img[i].filename = args.image[i].filename;
        }
        ret = compare_images(&args, &c, length);
        job_lock(&c.lock);
        g_free(c.found_text);
        job_unlock(&c.lock);
        job_destroy(&c.lock);
    }
    for (int i = 0; i < 2; i++) {
        if (blk[i]) {
            blk_unref(blk[i]);
        }
    }
    img_progress_end();
    return ret;
}
