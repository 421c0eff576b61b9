/*
 * qemu-img amend: change options of an image that exists.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/snapshot.h"

static const char synopsis[] =
    "[-f FMT | --image-opts] [t CACHE] [--force] [-p] [-q]\n"
    "        [--object OBJDEF -o OPTIONS FILENAME";

static const char arguments[] =
    "  -q, --quiet\n"
    "     quiet operation\n"
    "  -p, --progres\n"
    "     show progress\n"
    "  -f, --format FMT\n"
    "     specify FILENAME format explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "   instead of a file name (incompatible with --format)\n"
    "  -t, --cache CACHE\n"
    "     cache mode for FILENAME (writeback)\n"
    "  --force\n"
    "     allow certain unsafe operations\n";

typedef struct AmendArgs {
    ImgOpen image;
    const char *cache;
    char *options;
    bool force;
    bool progress;
    bool quiet;
} AmendArgs;

static void report_progress(void *opaque, int64_t done, int64_t total)
{
    img_progress_set(total ? (double)done / total : 1);
}

/* What cannot be amended, but could be created, is said to be so. */
static CreateOptions *parse_options(const BlockDriver *drv, const char *text,
                                    Error **errp)
{
    ERRP_GUARD();
    g_autoptr(CreateOptions) o = create_options_new_amend(drv);

    if (!create_options_parse(o, text, errp)) {
        g_autoptr(CreateOptions) c = create_options_new(drv, NULL);

        if (create_options_parse(c, text, NULL)) {
            error_append_hint(errp, "This option is only supported for image "
                              "creation\n");
        }
        return NULL;
    }
    return g_steal_pointer(&o);
}

static bool amend(const AmendArgs *args, BlockBackend *blk, Error **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    const BlockDriver *drv = bdrv_find_format(bdrv_get_format_name(bs));
    g_autoptr(CreateOptions) o = NULL;

    if (!drv->amend_opts) {
        error_setg(errp, "Format driver '%s' does not support option "
                   "amendment", drv->format_name);
        return false;
    }
    o = parse_options(drv, args->options, errp);
    return o && bdrv_amend(bs, create_options_to_json(o), args->force,
                           report_progress, NULL, errp);
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       AmendArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "progress", no_argument, NULL, 'p' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "cache", required_argument, NULL, 't' },
        { "force", no_argument, NULL, OPTION_FORCE },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { "options", required_argument, NULL, 'o' },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hqpf:t:o:", long_options,
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
        case 'o':
            if (!img_accumulate_options(&args->options, optarg)) {
                exit(EXIT_FAILURE);
            }
            break;
        case OPTION_FORCE:
            args->force = true;
            break;
        default:
            img_take_option(argv[0], c, &args->image, &args->quiet);
        }
    }
    if (!args->options) {
        img_try_help(argv[0], "Must specify options (-o)");
    }
    args->image.filename = optind == argc - 1 ? argv[optind] : NULL;
    if (args->image.fmt && create_options_want_help(args->options)) {
        exit(create_options_help_amend(args->image.fmt) ? EXIT_SUCCESS :
             EXIT_FAILURE);
    }
    if (!args->image.filename) {
        /* QEMU's points to no help here. */
        error_report("Expecting one image file name");
        exit(EXIT_FAILURE);
    }
}

static int amend_image(AmendArgs *args)
{
    BlockBackend *blk = img_open(&args->image);
    Error *err = NULL;
    bool ok = blk;

    if (!blk) {
        return EXIT_FAILURE;
    }
    if (create_options_want_help(args->options)) {
        ok = create_options_help_amend(bdrv_get_format_name(blk_bs(blk)));
    } else {
        img_progress_init(args->progress && !args->quiet, 1);
        ok = amend(args, blk, &err);
        img_progress_finish(ok);
    }
    if (err) {
        error_report_err(err);
    }
    blk_unref(blk);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

int img_amend(const ImgCommand *cmd, int argc, char **argv)
{
    AmendArgs args = {
        .image.flags = BDRV_O_RDWR | BDRV_O_RESIZE,
        .cache = "writeback",
    };
    int ret = EXIT_FAILURE;

    parse_args(cmd, argc, argv, &args);
    if (img_parse_cache(args.cache, &args.image)) {
        ret = amend_image(&args);
    }
    g_free(args.options);
    return ret;
}
