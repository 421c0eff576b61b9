/*
 * qemu-img measure: how large the file of a new image would be.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/block-driver.h"
#include "qemu/qjson.h"

static const char synopsis[] =
    "[-f FMT|--image-opts] [-o OPTIONS] [-O OUTPUT_FMT]\n"
    "       [--output OFMT] [--object OBJDEF] [-l SNAPSHOT_PARAM]\n"
    "       (--size SIZE | FILENAME)";

static const char arguments[] =
    "  -O, --target-format FMT\n"
    "     desired target/output image format (default raw)\n"
    "  -s, --size SIZE\n"
    "     measure file size for given image size\n"
    "  FILENAME\n"
    "     measure file size required to convert from FILENAME\n"
    "  -f, --format\n"
    "     specify format of FILENAME explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --format)\n"
    "  -l, --snapshot SNAPSHOT\n"
    "     use this snapshot in FILENAME as source\n"
    "  --output human|json\n"
    "     output format\n"
    "  -U, --force-share\n"
    "     open images in shared mode for concurrent access\n";

typedef struct MeasureArgs {
    ImgOpen image;
    const char *out_fmt;
    const char *snapshot;
    char *options;
    int64_t size;              /* -1: not given */
    OutputFormat output;
} MeasureArgs;

static void print_human(const json_t *result)
{
    static const char *const lines[][2] = {
        { "required", "required size" },
        { "fully-allocated", "fully allocated size" },
        { "bitmaps", "bitmaps size" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        const json_t *n = json_object_get(result, lines[i][0]);

        if (n) {
            printf("%s: %" JSON_INTEGER_FORMAT "\n", lines[i][1],
                   json_integer_value(n));
        }
    }
}

static bool measure(const MeasureArgs *args, BlockDriverState *in_bs)
{
    g_autoptr(CreateOptions) o = NULL;
    g_autoptr(json_t) options = NULL, result = NULL;
    g_autofree char *text = NULL;
    BlockDriver *drv = bdrv_find_format(args->out_fmt);
    Error *err = NULL;

    if (!drv) {
        error_report("Unknown file format '%s'", args->out_fmt);
        return false;
    }
    if (!drv->create_opts) {
        error_report("Format driver '%s' does not support image creation",
                     args->out_fmt);
        return false;
    }
    o = create_options_new(drv, bdrv_find_format("file"));
    if (args->options && !create_options_parse(o, args->options, &err)) {
        error_report_err(err);
        error_report("Invalid options for file format '%s'", args->out_fmt);
        return false;
    }
    if (args->size >= 0) {
        create_options_set_size(o, args->size);
    }
    if (!drv->measure) {
        error_report("Block driver '%s' does not support size measurement",
                     args->out_fmt);
        return false;
    }
    options = create_options_to_json(o);
    result = drv->measure(options, in_bs, &err);
    if (!result) {
        error_report_err(err);
        return false;
    }
    if (args->output == OFORMAT_HUMAN) {
        print_human(result);
    } else {
        text = qobject_to_json(result, true);
        printf("%s\n", text);
    }
    return true;
}

static int64_t parse_size(const char *text)
{
    int64_t size = img_parse_number("image size", text, true, 0, INT64_MAX);

    if (size < 0) {
        exit(EXIT_FAILURE);
    }
    return size;
}

static void check_operands(int argc, char **argv, MeasureArgs *args)
{
    const char *problem = NULL;

    if (argc - optind > 1) {
        problem = "At most one filename argument is allowed.";
    } else if (argc - optind == 1) {
        args->image.filename = argv[optind];
    }
    if (!problem && !args->image.filename &&
        (args->image.image_opts || args->image.fmt || args->snapshot)) {
        problem = "--image-opts, -f, and -l require a filename argument.";
    }
    if (!problem && !args->image.filename && args->size < 0) {
        problem = "Either --size N or one filename must be specified.";
    }
    if (!problem && args->image.filename && args->size >= 0) {
        problem = "--size N cannot be used together with a filename.";
    }
    if (problem) {
        error_report("%s", problem);
        exit(EXIT_FAILURE);
    }
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       MeasureArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "target-format", required_argument, NULL, 'O' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "options", required_argument, NULL, 'o' },
        { "snapshot", required_argument, NULL, 'l' },
        { "force-share", no_argument, NULL, 'U' },
        { "size", required_argument, NULL, OPTION_SIZE },
        { "output", required_argument, NULL, OPTION_OUTPUT },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hO:f:o:l:U", long_options,
                            NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 'O':
            args->out_fmt = optarg;
            break;
        case 'o':
            if (!img_accumulate_options(&args->options, optarg)) {
                exit(EXIT_FAILURE);
            }
            break;
        case 'l':
            args->snapshot = optarg;
            break;
        case OPTION_SIZE:
            args->size = parse_size(optarg);
            break;
        case OPTION_OUTPUT:
            args->output = img_parse_output_format(argv[0], optarg);
            break;
        default:
            img_take_option(argv[0], c, &args->image, NULL);
        }
    }
    check_operands(argc, argv, args);
}

int img_measure(const ImgCommand *cmd, int argc, char **argv)
{
    MeasureArgs args = {
        .image.flags = BDRV_O_ONE_PASS,
        .out_fmt = "raw",
        .size = -1,
    };
    g_autofree char *options = NULL;
    BlockBackend *blk = NULL;
    bool ok;

    parse_args(cmd, argc, argv, &args);
    options = args.options;
    if (args.image.filename) {
        blk = img_open(&args.image);
        if (!blk) {
            return EXIT_FAILURE;
        }
    }
    if (args.snapshot && !img_load_snapshot(blk, args.snapshot)) {
        blk_unref(blk);
        return EXIT_FAILURE;
    }
    ok = measure(&args, blk ? blk_bs(blk) : NULL);
    if (blk) {
        blk_unref(blk);
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
