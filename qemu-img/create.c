/*
 * qemu-img create: make a new image.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/block-driver.h"

static const char synopsis[] =
    "[-f FMT] [-o FMT_OPTS] [-b BACKING_FILENAME [-F BACKING_FMT]]\n"
    "        [--object OBJDEF] [-u] FILENAME [SIZE[bkKMGTPE]]";

static const char arguments[] =
    "  -q, --quiet\n"
    "     quiet operations\n"
    "  -f, --format FMT\n"
    "     specifies format of the new image, default is raw\n"
    "  -o, --options FMT_OPTS\n"
    "     format-specific options ('-o list' for list)\n"
    "  -b, --backing BACKING_FILENAME\n"
    "     stack new image on top of BACKING_FILENAME\n"
    "     (for formats which support stacking)\n"
    "  -F, --backing-format BACKING_FMT\n"
    "     specify format of BACKING_FILENAME\n"
    "  -u, --backing-unsafe\n"
    "     do not fail if BACKING_FMT can not be read\n"
    "  --object OBJDEF\n"
    "     QEMU user-creatable object (eg encryption key)\n"
    "  FILENAME\n"
    "     image file to create.  It will be overridden if exists\n"
    "  SIZE\n"
    "     image size with optional suffix (multiplies in 1024)\n"
    "     SIZE is required unless BACKING_IMG is specified,\n"
    "     in which case it will be the same as size of BACKING_IMG\n";

typedef struct CreateArgs {
    const char *filename;
    const char *fmt;
    const char *backing;
    const char *backing_fmt;
    char *options;
    int64_t size;              /* -1: not given */
    bool unsafe;
    bool quiet;
} CreateArgs;

/* -b and -F into the options, where the format has such. */
static bool set_backing(const CreateArgs *args, CreateOptions *o, Error **errp)
{
    if (args->backing) {
        if (!create_options_known(o, "backing_file")) {
            error_setg(errp, "Backing file not supported for file format "
                       "'%s'", args->fmt);
            return false;
        }
        create_options_set(o, "backing_file", args->backing);
    }
    if (args->backing_fmt) {
        if (!create_options_known(o, "backing_fmt")) {
            error_setg(errp, "Backing file format not supported for file "
                       "format '%s'", args->fmt);
            return false;
        }
        create_options_set(o, "backing_fmt", args->backing_fmt);
    }
    return true;
}

/* What the options say of the backing file, before anybody looks at it. */
static bool check_backing(const CreateArgs *args, const CreateOptions *o,
                          Error **errp)
{
    const char *backing = create_options_get(o, "backing_file");
    const char *fmt = create_options_get(o, "backing_fmt");
    g_autofree char *full = NULL;

    if (!backing) {
        return true;
    }
    if (!*backing) {
        error_setg(errp, "Expected backing file name, got empty string");
        return false;
    }
    /* If it cannot be told what it is relative to, opening will say so. */
    full = bdrv_get_full_backing_filename_from_filename(args->filename,
                                                        backing, NULL);
    if (g_str_equal(args->filename, backing) ||
        (full && img_is_same_file(args->filename, full))) {
        error_setg(errp, "Error: Trying to create an image with the same "
                   "filename as the backing file");
        return false;
    }
    if (args->unsafe && !fmt) {
        error_setg(errp, "Backing file specified without backing format");
        return false;
    }
    if (args->unsafe && !*fmt) {
        error_setg(errp, "Parameter 'backing-fmt' does not accept value ''");
        return false;
    }
    return true;
}

/* Open the backing file to see that it is there, and for its length. */
static int64_t backing_length(const char *filename, const CreateOptions *o,
                              Error **errp)
{
    const char *fmt = create_options_get(o, "backing_fmt");
    g_autofree char *full = bdrv_get_full_backing_filename_from_filename(
        filename, create_options_get(o, "backing_file"), errp);
    json_t *options;
    BlockBackend *blk;
    int64_t length;

    ERRP_GUARD();
    if (!full) {
        return -1;
    }
    options = json_object();
    opt_set_str(options, "driver", fmt);
    blk = blk_new_open(img_graph(), full, NULL, options, BDRV_O_NO_IO, errp);
    if (!blk) {
        error_append_hint(errp, "Could not open backing image.\n");
        return -1;
    }
    length = blk_getlength(blk);
    if (length >= 0 && !fmt) {
        /* What is probed may be what a guest has written. */
        error_setg(errp, "Backing file specified without backing format");
        error_append_hint(errp, "Detected format of %s.\n",
                          bdrv_get_format_name(blk_bs(blk)));
        blk_unref(blk);
        return -1;
    }
    blk_unref(blk);
    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get size of '%s'", full);
        return -1;
    }
    return length;
}

/* The length of the image, whichever way it was given. */
static bool set_size(const CreateArgs *args, CreateOptions *o, Error **errp)
{
    if (args->size >= 0) {
        if (create_options_get(o, "size")) {
            error_setg(errp, "The image size must be specified only once");
            return false;
        }
        create_options_set_size(o, args->size);
    }
    if (create_options_get(o, "backing_file") &&
        !(args->unsafe && create_options_get(o, "size"))) {
        int64_t length = backing_length(args->filename, o, errp);

        if (length < 0) {
            return false;
        }
        if (!create_options_get(o, "size")) {
            create_options_set_size(o, length);
        }
    }
    if (!create_options_get(o, "size")) {
        error_setg(errp, "Image creation needs a size parameter");
        return false;
    }
    return true;
}

static bool create_image(const CreateArgs *args, Error **errp)
{
    g_autoptr(CreateOptions) o = NULL;
    const BlockDriver *drv, *proto;
    Error *err = NULL;

    if (!create_find_drivers(args->fmt, args->filename, &drv, &proto, errp)) {
        return false;
    }
    o = create_options_new(drv, proto);
    if ((args->options && !create_options_parse(o, args->options, errp)) ||
        !set_backing(args, o, errp) || !check_backing(args, o, errp) ||
        !set_size(args, o, errp)) {
        return false;
    }
    if (!args->quiet) {
        g_autofree char *text = create_options_to_text(o);

        printf("Formatting '%s', fmt=%s%s\n", args->filename, args->fmt,
               text);
        fflush(stdout);
    }
    if (!bdrv_create(img_graph(), args->fmt, args->filename,
                     create_options_to_json(o), &err)) {
        if (error_get_errno(err) == EFBIG) {
            error_free(err);
            error_setg(errp, "The image size is too large for file format "
                       "'%s'%s", args->fmt,
                       create_options_known(o, "cluster_size") ?
                       " (try using a larger cluster size)" : "");
        } else {
            error_propagate(errp, err);
        }
        return false;
    }
    return true;
}

static void parse_operands(int argc, char **argv, CreateArgs *args)
{
    if (optind >= argc) {
        img_try_help(argv[0], "Expecting image file name");
    }
    args->filename = argv[optind++];
    if (optind < argc) {
        args->size = img_take_number("image size", argv[optind++], true, 0,
                                     INT64_MAX);
    }
    if (optind < argc) {
        img_try_help(argv[0], "Unexpected argument: %s", argv[optind]);
    }
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       CreateArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "format", required_argument, NULL, 'f' },
        { "options", required_argument, NULL, 'o' },
        { "backing", required_argument, NULL, 'b' },
        { "backing-format", required_argument, NULL, 'F' },
        { "backing-unsafe", no_argument, NULL, 'u' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hqf:o:b:F:u", long_options,
                            NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 'q':
            args->quiet = true;
            break;
        case 'f':
            args->fmt = optarg;
            break;
        case 'o':
            if (!img_accumulate_options(&args->options, optarg)) {
                exit(EXIT_FAILURE);
            }
            break;
        case 'b':
            args->backing = optarg;
            break;
        case 'F':
            args->backing_fmt = optarg;
            break;
        case 'u':
            args->unsafe = true;
            break;
        case OPTION_OBJECT:
            img_process_object(optarg, EXIT_FAILURE);
            break;
        default:
            img_bad_option(argv[0]);
        }
    }
}

int img_create(const ImgCommand *cmd, int argc, char **argv)
{
    CreateArgs args = { .fmt = "raw", .size = -1 };
    g_autofree char *options = NULL;
    Error *err = NULL;

    parse_args(cmd, argc, argv, &args);
    options = args.options;
    if (options && create_options_want_help(options)) {
        if (!create_options_help(args.fmt, optind < argc ? argv[optind] : NULL,
                                 &err)) {
            error_report_err(err);
            return EXIT_FAILURE;
        }
        return EXIT_SUCCESS;
    }
    parse_operands(argc, argv, &args);
    if (!create_image(&args, &err)) {
        error_reportf_err(err, "%s: ", args.filename);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
