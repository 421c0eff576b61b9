/*
 * qemu-img dd: copy part of an image into a new one.
 *
 * Blocks are of the size that bs= says only where that shows (count=, skip=);
 * they are read and written several at once.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/block-driver.h"

static const char synopsis[] =
    "[-f FMT|--image-opts] [-O OUTPUT_FMT] [-U]\n"
    "        [bs=BLOCK_SIZE] [count=BLOCKS] if=INPUT of=OUTPUT";

static const char arguments[] =
    "  -f, --format FMT\n"
    "     specify format for INPUT explicitly\n"
    "  --image-opts\n"
    "     indicates that INPUT is a complete image specification\n"
    "     instead of a file name (incompatible with --format)\n"
    "  -O, --output-format OUTPUT_FMT\n"
    "     format of the OUTPUT (default raw)\n"
    "  -U, --force-share\n"
    "     open images in shared mode for concurrent access\n"
    "  bs=BLOCK_SIZE[kKMGTP]\n"
    "     size of I/O block (default 512)\n"
    "  count=COUNT\n"
    "     number of blocks to convert (default whole INPUT)\n"
    "  if=INPUT\n"
    "     input file name (or image specification with --image-opts)\n"
    "  of=OUTPUT\n"
    "     output file name to create\n";

#define DD_BUFFER_SIZE (2 * MiB)

typedef struct DdArgs {
    ImgOpen in;
    const char *out;
    const char *out_fmt;
    int64_t bs;
    int64_t count;             /* -1: all */
    int64_t skip;
} DdArgs;

static void parse_operand(DdArgs *args, const char *operand)
{
    const char *equals = strchr(operand, '=');
    g_autofree char *name = g_strndup(operand, equals ? equals - operand :
                                      (ptrdiff_t)strlen(operand));
    const char *value = equals ? equals + 1 : NULL;

    if (value && g_str_equal(name, "if")) {
        args->in.filename = value;
    } else if (value && g_str_equal(name, "of")) {
        args->out = value;
    } else if (value && g_str_equal(name, "bs")) {
        args->bs = img_take_number("bs", value, true, 1, INT_MAX);
    } else if (value && g_str_equal(name, "count")) {
        args->count = img_take_number("count", value, false, 0, INT64_MAX);
    } else if (value && g_str_equal(name, "skip")) {
        args->skip = img_take_number("skip", value, false, 0, INT64_MAX);
    } else {
        error_report("unrecognized operand %s", name);
        exit(EXIT_FAILURE);
    }
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       DdArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "output-format", required_argument, NULL, 'O' },
        { "force-share", no_argument, NULL, 'U' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hf:O:U", long_options, NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 'O':
            args->out_fmt = optarg;
            break;
        default:
            img_take_option(argv[0], c, &args->in, NULL);
        }
    }
    for (; optind < argc; optind++) {
        parse_operand(args, argv[optind]);
    }
    if (!args->in.filename || !args->out) {
        error_report("Must specify both input and output files");
        exit(EXIT_FAILURE);
    }
}

/* Where to begin, and how much there is to copy from there. */
static int64_t range_to_copy(const DdArgs *args, int64_t length,
                             int64_t *start)
{
    int64_t end;

    /* As QEMU has it, what is skipped counts. */
    if (args->count >= 0 &&
        !__builtin_mul_overflow(args->count, args->bs, &end)) {
        length = MIN(length, end);
    }
    if (__builtin_mul_overflow(args->skip, args->bs, start) ||
        *start > length) {
        error_report("%s: cannot skip to specified offset",
                     args->in.filename);
        *start = length;
    }
    return length - *start;
}

static BlockBackend *create_output(const DdArgs *args, int64_t length)
{
    g_autoptr(CreateOptions) o = NULL;
    const BlockDriver *drv, *proto;
    Error *err = NULL;
    ImgOpen out = {
        .filename = args->out,
        .fmt = args->out_fmt,
        .flags = BDRV_O_RDWR | BDRV_O_RESIZE,
    };

    if (!bdrv_find_format(args->out_fmt)) {
        error_report("Unknown file format");
        return NULL;
    }
    if (!create_find_drivers(args->out_fmt, args->out, &drv, &proto, &err)) {
        error_report_err(err);
        return NULL;
    }
    o = create_options_new(drv, proto);
    create_options_set_size(o, length);
    if (!bdrv_create(img_graph(), args->out_fmt, args->out,
                     create_options_to_json(o), &err)) {
        error_reportf_err(err, "%s: error while creating output image: ",
                          args->out);
        return NULL;
    }
    return img_open(&out);
}

static bool copy(BlockBackend *in, int64_t start, BlockBackend *out,
                 int64_t length)
{
    void *buf = blk_try_blockalign(in, DD_BUFFER_SIZE);
    int64_t done = 0, n;
    int ret = 0;

    if (!buf) {
        error_report("Could not allocate a buffer");
        return false;
    }
    for (; done < length && ret >= 0; done += n) {
        n = MIN(length - done, DD_BUFFER_SIZE);
        ret = blk_pread(in, start + done, n, buf, 0);
        if (ret < 0) {
            error_report("error while reading from input image file: %s",
                         g_strerror(-ret));
            break;
        }
        ret = blk_pwrite(out, done, n, buf, 0);
        if (ret < 0) {
            error_report("error while writing to output image file: %s",
                         g_strerror(-ret));
        }
    }
    qemu_vfree(buf);
    return ret >= 0;
}

/* Closing would do it, too, but has nobody to tell that it failed. */
static bool flush_output(BlockBackend *out)
{
    int ret = blk_flush(out);

    if (ret < 0) {
        error_report("error while flushing output image file: %s",
                     g_strerror(-ret));
    }
    return ret >= 0;
}

int img_dd(const ImgCommand *cmd, int argc, char **argv)
{
    DdArgs args = { .out_fmt = "raw", .bs = 512, .count = -1 };
    BlockBackend *in, *out = NULL;
    int64_t length, start;
    bool ok = false;

    parse_args(cmd, argc, argv, &args);
    in = img_open(&args.in);
    if (!in) {
        return EXIT_FAILURE;
    }
    length = img_length(in, args.in.filename);
    if (length >= 0) {
        length = range_to_copy(&args, length, &start);
        out = create_output(&args, length);
    }
    if (out) {
        ok = copy(in, start, out, length) && flush_output(out);
        blk_unref(out);
    }
    blk_unref(in);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
