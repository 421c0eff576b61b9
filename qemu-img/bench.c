/*
 * qemu-img bench: send many requests, several at a time, and say how long
 * that took.
 *
 * All in the main thread, which runs an AioContext: a request that completes
 * makes room for the next.  A flush (--flush-interval) waits until the
 * requests before it are done, unless --no-drain says otherwise.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "qemu/thread.h"

static const char synopsis[] =
    "[-f FMT | --image-opts] [-t CACHE] [-c COUNT] [-d DEPTH]\n"
    "        [-o OFFSET] [-s BUFFER_SIZE] [-S STEP_SIZE] [-i AIO] [-n]\n"
    "        [-w [--pattern PATTERN] [--flush-interval INTERVAL "
    "[--no-drain]]]";

static const char arguments[] =
    "  -q, --quiet\n"
    "     quiet operations\n"
    "  -f, --format FMT\n"
    "     specify FILENAME format explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --format)\n"
    "  -t, --cache CACHE\n"
    "     cache mode for FILENAME (writeback)\n"
    "  -c, --count COUNT\n"
    "     number of I/O requests to perform\n"
    "  -s, --buffer-size BUFFER_SIZE\n"
    "     size of each I/O request\n"
    "  -d, --depth DEPTH\n"
    "     number of requests to perform in parallel\n"
    "  -o, --offset OFFSET\n"
    "     start first request at this OFFSET\n"
    "  -S, --step-size STEP_SIZE\n"
    "     each next request offset increment\n"
    "  -i, --aio AIO\n"
    "     async-io backend (threads, native, io_uring)\n"
    "  -n, --native\n"
    "     use native AIO backend if possible\n"
    "  -w, --write\n"
    "     perform write test (default is read)\n"
    "  --pattern PATTERN\n"
    "     write this pattern byte instead of zero\n"
    "  --flush-interval FLUSH_INTERVAL\n"
    "     issue flush after this number of requests\n"
    "  --no-drain\n"
    "     do not wait when flushing pending requests\n"
    "  -U, --force-share\n"
    "     open images in shared mode for concurrent access\n";

typedef struct BenchArgs {
    ImgOpen image;
    const char *aio;
    int count;
    int depth;
    int64_t offset;
    int64_t bufsize;
    int64_t step;
    int pattern;
    int flush_interval;
    bool write;
    bool drain;
} BenchArgs;

typedef struct Bench Bench;

typedef struct BenchRequest {
    BdrvTrackedRequest req;
    QEMUIOVector qiov;
    Bench *bench;
    struct BenchRequest *next_free;
} BenchRequest;

struct Bench {
    const BenchArgs *args;
    BlockBackend *blk;
    int64_t image_size;
    int64_t offset;            /* of the next request */
    int to_submit;
    int since_flush;           /* requests submitted since the last flush */
    int in_flight;             /* without flushes */
    int flushes;               /* in flight */
    int ret;                   /* the first error */
    BenchRequest *free;
    BenchRequest flush;        /* draining: one at a time */
};

static void bench_fill(Bench *b);

static void bench_failed(Bench *b, const char *what, int ret)
{
    if (!b->ret) {
        b->ret = ret;
        error_report("Failed %s: %s", what, g_strerror(-ret));
    }
}

static void request_done(BdrvTrackedRequest *req)
{
    BenchRequest *r = container_of(req, BenchRequest, req);
    Bench *b = r->bench;

    if (req->ret < 0) {
        bench_failed(b, "request", req->ret);
    }
    b->in_flight--;
    r->next_free = b->free;
    b->free = r;
    bench_fill(b);
}

static void flush_done(BdrvTrackedRequest *req)
{
    BenchRequest *r = container_of(req, BenchRequest, req);
    Bench *b = r->bench;

    if (req->ret < 0) {
        bench_failed(b, "flush", req->ret);
    }
    b->flushes--;
    if (r != &b->flush) {
        g_free(r);
    }
    bench_fill(b);
}

static void submit_flush(Bench *b)
{
    /* Without draining there may be several: each has memory of its own. */
    BenchRequest *r = b->args->drain ? &b->flush : g_new0(BenchRequest, 1);

    r->bench = b;
    r->req.type = BDRV_REQ_FLUSH;
    r->req.cb = flush_done;
    b->since_flush = 0;
    b->flushes++;
    blk_aio_submit(b->blk, &r->req);
}

static void submit_request(Bench *b)
{
    BenchRequest *r = b->free;

    b->free = r->next_free;
    r->req.type = b->args->write ? BDRV_REQ_WRITE : BDRV_REQ_READ;
    r->req.offset = b->offset;
    r->req.bytes = b->args->bufsize;
    r->req.qiov = &r->qiov;
    r->req.cb = request_done;
    b->offset += b->args->step;
    if (b->image_size > 0) {
        b->offset %= b->image_size;
    }
    b->to_submit--;
    b->in_flight++;
    b->since_flush++;
    blk_aio_submit(b->blk, &r->req);
}

/* Submit what may be under way now. */
static void bench_fill(Bench *b)
{
    while (!b->ret) {
        if (b->args->flush_interval &&
            b->since_flush == b->args->flush_interval) {
            if (b->args->drain && b->in_flight > 0) {
                return;
            }
            submit_flush(b);
        }
        if (!b->to_submit || !b->free || (b->args->drain && b->flushes)) {
            return;
        }
        submit_request(b);
    }
}

/* Requests and their buffers, on the list of the free ones. */
static BenchRequest *make_requests(Bench *b, void **buf)
{
    int n = MIN(b->args->depth, b->args->count);
    size_t bytes;
    BenchRequest *all = NULL;

    *buf = NULL;
    if (!__builtin_mul_overflow((size_t)n, (size_t)b->args->bufsize,
                                &bytes)) {
        *buf = blk_try_blockalign(b->blk, bytes);
        all = g_try_new0(BenchRequest, n);
    }
    if (!*buf || !all) {
        error_report("Could not allocate buffers for %d requests", n);
        g_free(all);
        return NULL;
    }
    memset(*buf, b->args->pattern, bytes);
    for (int i = 0; i < n; i++) {
        BenchRequest *r = &all[i];

        r->bench = b;
        qemu_iovec_init_buf(&r->qiov,
                            (char *)*buf + (size_t)i * b->args->bufsize,
                            b->args->bufsize);
        r->next_free = b->free;
        b->free = r;
    }
    return all;
}

static void print_plan(const BenchArgs *args)
{
    printf("Sending %d %s requests, %" PRId64 " bytes each, %d in parallel "
           "(starting at offset %" PRId64 ", step size %" PRId64 ")\n",
           args->count, args->write ? "write" : "read", args->bufsize,
           args->depth, args->offset, args->step);
    if (args->flush_interval) {
        printf("Sending flush every %d requests\n", args->flush_interval);
    }
}

static int run_bench(const BenchArgs *args, BlockBackend *blk,
                     AioContext *ctx)
{
    Bench b = {
        .args = args,
        .blk = blk,
        .image_size = img_length(blk, args->image.filename),
        .offset = args->offset,
        .to_submit = args->count,
    };
    g_autofree BenchRequest *requests = NULL;
    int64_t start;
    void *buf;

    if (b.image_size < 0) {
        return EXIT_FAILURE;
    }
    print_plan(args);
    requests = make_requests(&b, &buf);
    if (requests) {
        start = qemu_clock_ns();
        bench_fill(&b);
        while (b.in_flight || b.flushes) {
            aio_poll(ctx, true);
        }
        if (!b.ret) {
            printf("Run completed in %3.3f seconds.\n",
                   (qemu_clock_ns() - start) / 1e9);
        }
    }
    qemu_vfree(buf);
    return requests && !b.ret ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The options with numbers; false if @c is none of them. */
static bool parse_number_option(BenchArgs *args, int c)
{
    switch (c) {
    case 'c':
        args->count = img_take_number("request count", optarg, false, 1,
                                      INT_MAX);
        return true;
    case 'd':
        args->depth = img_take_number("queue depth", optarg, false, 1,
                                      INT_MAX);
        return true;
    case 'o':
        args->offset = img_take_number("offset", optarg, true, 0, INT64_MAX);
        return true;
    case 's':
        args->bufsize = img_take_number("buffer size", optarg, true, 1,
                                        INT_MAX);
        return true;
    case 'S':
        args->step = img_take_number("step size", optarg, true, 0, INT_MAX);
        return true;
    case OPTION_PATTERN:
        args->pattern = img_take_number("pattern byte", optarg, false, 0,
                                        0xff);
        return true;
    case OPTION_FLUSH_INTERVAL:
        args->flush_interval = img_take_number("flush interval", optarg, false,
                                               0, INT_MAX);
        return true;
    default:
        return false;
    }
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       BenchArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "cache", required_argument, NULL, 't' },
        { "count", required_argument, NULL, 'c' },
        { "depth", required_argument, NULL, 'd' },
        { "offset", required_argument, NULL, 'o' },
        { "buffer-size", required_argument, NULL, 's' },
        { "step-size", required_argument, NULL, 'S' },
        { "aio", required_argument, NULL, 'i' },
        { "native", no_argument, NULL, 'n' },
        { "write", no_argument, NULL, 'w' },
        { "pattern", required_argument, NULL, OPTION_PATTERN },
        { "flush-interval", required_argument, NULL, OPTION_FLUSH_INTERVAL },
        { "no-drain", no_argument, NULL, OPTION_NO_DRAIN },
        { "force-share", no_argument, NULL, 'U' },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hqf:t:c:d:o:s:S:i:nwU", long_options,
                            NULL)) != -1) {
        if (parse_number_option(args, c)) {
            continue;
        }
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 't':
            if (!bdrv_parse_cache_mode(optarg, &args->image.flags,
                                       &args->image.writethrough)) {
                error_report("Invalid cache mode");
                exit(EXIT_FAILURE);
            }
            break;
        case 'i':
            args->aio = optarg;
            break;
        case 'n':
            args->aio = "native";
            break;
        case 'w':
            args->write = true;
            break;
        case OPTION_NO_DRAIN:
            args->drain = false;
            break;
        default:
            img_take_option(argv[0], c, &args->image, NULL);
        }
    }
    args->image.filename = img_take_filename(argc, argv);
}

/* What options demand of each other; false after a message. */
static bool check_args(BenchArgs *args)
{
    if (!args->write && args->flush_interval) {
        error_report("--flush-interval is only available in write tests");
        return false;
    }
    if (args->flush_interval && args->flush_interval < args->depth) {
        error_report("Flush interval can't be smaller than depth");
        return false;
    }
    if (args->aio) {
        args->image.options = json_object();
        if (!img_parse_aio(args->aio, args->image.fmt, args->image.options)) {
            error_report("Invalid aio option: %s", args->aio);
            json_decref(args->image.options);
            return false;
        }
    }
    if (!args->step) {
        args->step = args->bufsize;
    }
    if (args->write) {
        args->image.flags |= BDRV_O_RDWR;
    }
    return true;
}

int img_bench(const ImgCommand *cmd, int argc, char **argv)
{
    BenchArgs args = {
        .count = 75000,
        .depth = 64,
        .bufsize = 4096,
        .drain = true,
    };
    Error *err = NULL;
    BlockBackend *blk;
    AioContext *ctx;
    int ret;

    parse_args(cmd, argc, argv, &args);
    if (!check_args(&args)) {
        return EXIT_FAILURE;
    }
    blk = img_open(&args.image);
    if (!blk) {
        return EXIT_FAILURE;
    }
    ctx = aio_context_new(&err);
    if (!ctx) {
        error_report_err(err);
        blk_unref(blk);
        return EXIT_FAILURE;
    }
    aio_context_enter(ctx);
    ret = run_bench(&args, blk, ctx);
    blk_unref(blk);
    aio_context_leave(ctx);
    aio_context_unref(ctx);
    return ret;
}
