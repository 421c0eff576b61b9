/*
 * qemu-img resize: set, grow or shrink the length of an image.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"

static const char synopsis[] =
    "[-f FMT | --image-opts] [--preallocation PREALLOC] [--shrink]\n"
    "        [--object OBJECTDEF] [-q] FILENAME [+-]SIZE[bkKMGTPE]";

static const char arguments[] =
    "  -q, --quiet\n"
    "     quiet operation\n"
    "  -f, --format FMT\n"
    "     specify FILENAME format explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "   instead of a file name (incompatible with --format)\n"
    "  --shrink\n"
    "     allow operation when new size is smaller than original\n"
    "  --preallocation PREALLOC\n"
    "     specify preallocation type for the new areas\n"
    "  --object OBJDEF\n"
    "     QEMU user-creatable object (eg encryption key)\n"
    "  FILENAME\n"
    "     image file (specification) to resize\n"
    "  [+-]SIZE[bkKMGTPE]\n"
    "     new image size or amount by which to shrink/grow,\n"
    "     with optional suffix (1024-based multiplies)\n";

typedef struct ResizeArgs {
    ImgOpen image;
    const char *size;
    bool quiet;
    bool shrink;
    PreallocMode prealloc;
} ResizeArgs;

static PreallocMode parse_prealloc(const char *text)
{
    for (int i = 0; PreallocMode_names[i]; i++) {
        if (g_str_equal(PreallocMode_names[i], text)) {
            return i;
        }
    }
    error_report("Invalid preallocation mode '%s'", text);
    exit(EXIT_FAILURE);
}

/* A name or a size; "-1M" right after the name is a size, no option. */
static void take_operand(ResizeArgs *args, char *operand, int argc,
                         char **argv)
{
    if (!args->image.filename) {
        args->image.filename = operand;
        if (optind < argc && argv[optind][0] == '-' &&
            g_ascii_isdigit(argv[optind][1])) {
            args->size = argv[optind++];
        }
    } else if (!args->size) {
        args->size = operand;
    } else {
        img_try_help(argv[0], "Extra argument(s) in command line");
    }
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       ResizeArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "shrink", no_argument, NULL, OPTION_SHRINK },
        { "preallocation", required_argument, NULL, OPTION_PREALLOCATION },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    /* "-": operands come in their place, as the value 1. */
    while ((c = getopt_long(argc, argv, "-hqf:", long_options, NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case OPTION_SHRINK:
            args->shrink = true;
            break;
        case OPTION_PREALLOCATION:
            args->prealloc = parse_prealloc(optarg);
            break;
        case 1:
            take_operand(args, optarg, argc, argv);
            break;
        default:
            img_take_option(argv[0], c, &args->image, &args->quiet);
        }
    }
    while (optind < argc) {
        char *operand = argv[optind++];

        take_operand(args, operand, argc, argv);
    }
    if (!args->size) {
        img_try_help(argv[0], "Expecting image file name and size");
    }
}

/* What the size argument says, its sign in *@relative. */
static bool parse_size(const char *text, int *relative, uint64_t *size)
{
    g_autoptr(json_t) o = json_object();
    Error *err = NULL;

    *relative = *text == '+' ? 1 : *text == '-' ? -1 : 0;
    opt_set_str(o, "size", text + (*relative != 0));
    *size = 0;
    if (!opt_take_size(o, "size", size, &err)) {
        error_report_err(err);
        return false;
    }
    return true;
}

/* The new length, or -1 after a message. */
static int64_t new_length(int64_t current, int relative, uint64_t size)
{
    int64_t total = 0;
    bool overflow = size > INT64_MAX;

    if (!overflow && relative > 0) {
        overflow = __builtin_add_overflow(current, (int64_t)size, &total);
    } else if (!overflow) {
        total = relative ? current - (int64_t)size : (int64_t)size;
    }
    if (overflow || total <= 0) {
        error_report("New image size must be positive");
        return -1;
    }
    return total;
}

static bool check_resize(const ResizeArgs *args, int64_t current,
                         int64_t total)
{
    if (total <= current && args->prealloc != PREALLOC_MODE_OFF) {
        error_report("Preallocation can only be used for growing images");
        return false;
    }
    if (total < current && !args->shrink) {
        error_report("Use the --shrink option to perform a shrink "
                     "operation.");
        warn_report("Shrinking an image will delete all data beyond the "
                    "shrunken image's end. Before performing such an "
                    "operation, make sure there is no important data "
                    "there.");
        return false;
    }
    return true;
}

static int resize(const ResizeArgs *args, int relative, uint64_t size,
                  BlockBackend *blk)
{
    int64_t current = img_length(blk, args->image.filename);
    int64_t total;
    Error *err = NULL;

    if (current < 0) {
        return EXIT_FAILURE;
    }
    total = new_length(current, relative, size);
    if (total < 0 || !check_resize(args, current, total)) {
        return EXIT_FAILURE;
    }
    if (!blk_truncate(blk, total, false, args->prealloc, 0, &err)) {
        error_report_err(err);
        return EXIT_FAILURE;
    }
    if (!args->quiet) {
        printf("Image resized.\n");
    }
    return EXIT_SUCCESS;
}

int img_resize(const ImgCommand *cmd, int argc, char **argv)
{
    ResizeArgs args = {
        .image.flags = BDRV_O_RDWR | BDRV_O_RESIZE,
    };
    BlockBackend *blk;
    uint64_t size;
    int relative, ret;

    parse_args(cmd, argc, argv, &args);
    if (!parse_size(args.size, &relative, &size)) {
        return EXIT_FAILURE;
    }
    blk = img_open(&args.image);
    if (!blk) {
        return EXIT_FAILURE;
    }
    ret = resize(&args, relative, size, blk);
    blk_unref(blk);
    return ret;
}
