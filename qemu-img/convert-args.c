/*
 * The command line of qemu-img convert.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "convert.h"

static const char synopsis[] =
    "[-f SRC_FMT|--image-opts] [-T SRC_CACHE] [--bitmaps "
    "[--skip-broken-bitmaps]]\n"
    "        [-o TGT_OPTS|--target-image-opts] [-t TGT_CACHE] [-n]\n"
    "        [-B BACKING_FILENAME [-F BACKING_FMT]]\n"
    "        SRC_FILENAME [SRC_FILENAME2 [...]] TGT_FILENAME";

/* QEMU's words, to the letter; the split keeps style checks quiet. */
#define UNDESCRIBED "     XX" "X todo\n"

static const char arguments[] =
    "  -q, --quiet\n"
    "     quiet operations\n"
    "  -p, --progress\n"
    "     show operation progress\n"
    "  -f, --source-format SRC_FMT\n"
    "     specify SRC_FILENAME source image format explicitly\n"
    "  --source-image-opts\n"
    "     indicates that SRC_FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --source-format)\n"
    "  -l, --source-snapshot SNAPSHOT_PARAMS\n"
    "     specify source snapshot parameters\n"
    "  -T, --source-cache SRC_CACHE\n"
    "     source image(s) cache mode (writeback)\n"
    "  -O, --target-format TGT_FMT\n"
    "     specify TGT_FILENAME image format (default is raw)\n"
    "  --target-image-opts\n"
    "     indicates that TGT_FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --output-format)\n"
    "  -o, --target-options TGT_OPTS\n"
    "     TARGET_FMT-specific options\n"
    "  -c, --compress\n"
    "     create compressed output image (qcow and qcow2 format only)\n"
    "  -t, --target-cache TGT_CACHE\n"
    "     cache mode when opening output image (unsafe)\n"
    "  -B, --backing BACKING_FILENAME\n"
    "     create output to be a CoW on top of BACKING_FILENAME\n"
    "  -F, --backing-format BACKING_FMT\n"
    "     specify BACKING_FILENAME image format explicitly\n"
    "  -n, --no-create\n"
    "     omit target volume creation (eg on rbd)\n"
    "  --target-is-zero\n"
    "  -S, --sparse-size SPARSE_SIZE\n"
    UNDESCRIBED
    "  --bitmaps\n"
    "     also copy any persistent bitmaps present in source\n"
    "  --skip-broken-bitmaps\n"
    "     skip (do not error out) any broken bitmaps\n"
    "  -U, --force-share\n"
    "     open images in shared mode for concurrent access\n"
    "  -r, --rate RATE\n"
    "     I/O rate limit\n"
    "  -m, --parallel NUM_COROUTINES\n"
    "     specify parallelism (default 8)\n"
    "  -C, --copy-range-offloading\n"
    "     use copy_range offloading\n"
    "  --salvage\n"
    UNDESCRIBED
    "  -W, --oob-writes\n"
    "     enable out-of-order writes to improve performance\n"
    "  --object OBJDEF\n"
    "     QEMU user-creatable object (eg encryption key)\n"
    "  SRC_FILENAME\n"
    "     source image file name (or specification with --image-opts)\n"
    "  TGT_FILENAME\n"
    "     target (output) image file name\n";

#define DEFAULT_WORKERS 8
#define MAX_WORKERS 16
#define DEFAULT_SPARSE_SIZE 4096
#define MAX_SPARSE_SIZE (16 * MiB)

static int64_t parse_sparse_size(const char *text)
{
    int64_t size = img_take_number("buffer size for sparse output", text,
                                   true, 0, INT64_MAX);

    if (size % BDRV_SECTOR_SIZE || size > MAX_SPARSE_SIZE) {
        error_report("Invalid buffer size for sparse output specified. "
                     "Valid sizes are multiples of %d up to %" PRId64 ". "
                     "Select 0 to disable sparse detection (fully allocates "
                     "output).", BDRV_SECTOR_SIZE, MAX_SPARSE_SIZE);
        exit(EXIT_FAILURE);
    }
    return size;
}

/* Options that say how to copy; false if @c is none of them. */
static bool parse_copy_option(ConvertArgs *args, int c)
{
    switch (c) {
    case 'S':
        args->sparse_size = parse_sparse_size(optarg);
        args->sparse_given = true;
        return true;
    case 'r':
        args->rate = img_take_number("rate limit", optarg, true, 0, INT64_MAX);
        return true;
    case 'm':
        args->num_workers = img_take_number("number of coroutines", optarg,
                                            false, 1, MAX_WORKERS);
        return true;
    case 'q':
        args->quiet = true;
        return true;
    case 'p':
        args->progress = true;
        return true;
    case 'C':
        args->copy_range = true;
        return true;
    case 'W':
        args->out_of_order = true;
        return true;
    case OPTION_SALVAGE:
        args->salvage = true;
        return true;
    case OPTION_BITMAPS:
        args->bitmaps = true;
        return true;
    case OPTION_SKIP_BROKEN_BITMAPS:
        args->skip_broken_bitmaps = true;
        return true;
    default:
        return false;
    }
}

/* Options about the target; false if @c is none of them. */
static bool parse_target_option(ConvertArgs *args, int c)
{
    switch (c) {
    case 'O':
        args->target_fmt = optarg;
        return true;
    case OPTION_TARGET_IMAGE_OPTS:
        args->target_image_opts = true;
        return true;
    case OPTION_TARGET_IS_ZERO:
        args->target_is_zero = true;
        return true;
    case 'o':
        if (!img_accumulate_options(&args->options, optarg)) {
            exit(EXIT_FAILURE);
        }
        return true;
    case 'c':
        args->compress = true;
        return true;
    case 't':
        args->target_cache = optarg;
        return true;
    case 'B':
        args->backing = optarg;
        return true;
    case 'F':
        args->backing_fmt = optarg;
        return true;
    case 'n':
        args->skip_create = true;
        return true;
    default:
        return false;
    }
}

static void parse_options(const ImgCommand *cmd, int argc, char **argv,
                          ConvertArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "progress", no_argument, NULL, 'p' },
        { "source-format", required_argument, NULL, 'f' },
        { "source-image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "source-snapshot", required_argument, NULL, 'l' },
        { "source-cache", required_argument, NULL, 'T' },
        { "target-format", required_argument, NULL, 'O' },
        { "target-image-opts", no_argument, NULL, OPTION_TARGET_IMAGE_OPTS },
        { "target-options", required_argument, NULL, 'o' },
        { "compress", no_argument, NULL, 'c' },
        { "target-cache", required_argument, NULL, 't' },
        { "backing", required_argument, NULL, 'B' },
        { "backing-format", required_argument, NULL, 'F' },
        { "no-create", no_argument, NULL, 'n' },
        { "target-is-zero", no_argument, NULL, OPTION_TARGET_IS_ZERO },
        { "sparse-size", required_argument, NULL, 'S' },
        { "bitmaps", no_argument, NULL, OPTION_BITMAPS },
        { "skip-broken-bitmaps", no_argument, NULL,
          OPTION_SKIP_BROKEN_BITMAPS },
        { "force-share", no_argument, NULL, 'U' },
        { "rate", required_argument, NULL, 'r' },
        { "parallel", required_argument, NULL, 'm' },
        { "copy-range-offloading", no_argument, NULL, 'C' },
        { "salvage", no_argument, NULL, OPTION_SALVAGE },
        { "oob-writes", no_argument, NULL, 'W' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hqpf:l:T:O:o:ct:B:F:nS:Ur:m:CW",
                            long_options, NULL)) != -1) {
        if (parse_copy_option(args, c) || parse_target_option(args, c)) {
            continue;
        }
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 'l':
            args->snapshot = optarg;
            break;
        case 'T':
            args->src_cache = optarg;
            break;
        default:
            img_take_option(argv[0], c, &args->src, NULL);
        }
    }
}

/* What is wrong with the options together, or NULL. */
static const char *check_args(const ConvertArgs *args)
{
    if (args->target_image_opts && !args->skip_create) {
        return "--target-image-opts requires use of -n flag";
    }
    if (args->skip_broken_bitmaps && !args->bitmaps) {
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    }
    if (args->target_is_zero && !args->skip_create) {
        return "--target-is-zero requires use of -n flag";
    }
    if (args->skip_create && args->options) {
        return "-o has no effect when skipping image creation";
    }
    if (args->sparse_given && args->copy_range) {
        return "Cannot enable copy offloading when -S is used";
    }
    if (args->compress && args->copy_range) {
        return "Cannot enable copy offloading when -c is used";
    }
    if (args->salvage && args->copy_range) {
        return "Cannot use copy offloading in salvaging mode";
    }
    return NULL;
}

static int help_on_options(const ConvertArgs *args, int argc, char **argv)
{
    Error *err = NULL;

    if (!create_options_help(args->target_fmt ? args->target_fmt : "raw",
                             optind < argc ? argv[argc - 1] : NULL, &err)) {
        error_report_err(err);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

static bool take_operands(ConvertArgs *args, int argc, char **argv)
{
    if (argc - optind < 2) {
        error_report("Must specify image file name");
        return false;
    }
    args->src_names = argv + optind;
    args->num_src = argc - optind - 1;
    args->target = argv[argc - 1];
    return true;
}

void convert_parse_args(const ImgCommand *cmd, int argc, char **argv,
                        ConvertArgs *args)
{
    const char *problem;

    *args = (ConvertArgs) {
        .src_cache = "writeback",
        .target_cache = "unsafe",
        .sparse_size = DEFAULT_SPARSE_SIZE,
        .num_workers = DEFAULT_WORKERS,
    };
    parse_options(cmd, argc, argv, args);
    problem = check_args(args);
    if (problem) {
        error_report("%s", problem);
        exit(EXIT_FAILURE);
    }
    if (args->options && create_options_want_help(args->options)) {
        exit(help_on_options(args, argc, argv));
    }
    if (!take_operands(args, argc, argv)) {
        exit(EXIT_FAILURE);
    }
}
