/*
 * qemu-img bitmap: change the persistent dirty bitmaps of an image.
 *
 * The actions are done in the order in which they are given, all on the same
 * bitmap.  The first that fails ends it; those before it have been done.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/dirty-bitmap.h"

static const char synopsis[] =
    "( --merge SOURCE | --add | --remove | --clear |\n"
    "                --enable | --disable ).. [-f FMT | --image-opts]\n"
    "        [ -b SRC_FILENAME [-F SOURCE_FMT]] [-g SIZE[KMGTPE]] "
    "[--object OBJDEF]\n"
    "        FILENAME BITMAP";

static const char arguments[] =
    "  -f, --format FMT\n"
    "     specify FILENAME format explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --format)\n"
    "  --add\n"
    "     creates BITMAP, enables to record future edits\n"
    "   -g, --granularity SIZE[KMGTPE]\n"
    "     sets non-default bitmap granularity for --add to this size\n"
    "  --remove\n"
    "     removes BITMAP\n"
    "  --clear\n"
    "     clears BITMAP\n"
    "  --enable, --disable\n"
    "     starts and stops recording future edits to BITMAP\n"
    "  --merge SRC_FILENAME\n"
    "     merges contents of SRC_FILENAME bitmap into BITMAP\n"
    "   -b, --source-file SRC_FILENAME\n"
    "     select alternative source file for --merge\n"
    "   -F, --source-format SRC_FMT\n"
    "     specify format for SRC_FILENAME explicitly\n";

/* Values of long options that have no letter. */
enum {
    OPTION_ADD = 512,
    OPTION_REMOVE,
    OPTION_CLEAR,
    OPTION_ENABLE,
    OPTION_DISABLE,
    OPTION_MERGE,
};

typedef struct Action {
    int option;                 /* OPTION_… */
    const char *source;         /* of OPTION_MERGE */
} Action;

typedef struct BitmapArgs {
    ImgOpen image;
    ImgOpen source;             /* of merges; no filename: the image */
    const char *bitmap;
    int64_t granularity;        /* 0: the default */
    GArray *actions;
    bool add, merge;            /* are among them */
} BitmapArgs;

/* ---- Arguments ---- */

static void add_action(BitmapArgs *args, int option)
{
    Action action = { option, option == OPTION_MERGE ? optarg : NULL };

    g_array_append_val(args->actions, action);
    args->add |= option == OPTION_ADD;
    args->merge |= option == OPTION_MERGE;
}

static void parse_granularity(BitmapArgs *args)
{
    args->granularity = img_take_number("granularity", optarg, true, 0,
                                        INT64_MAX);
}

static void parse_option(const ImgCommand *cmd, char **argv, BitmapArgs *args,
                         int c)
{
    switch (c) {
    case 'h':
        img_cmd_help(cmd, synopsis, arguments);
    case 'b':
        args->source.filename = optarg;
        break;
    case 'f':
        args->image.fmt = optarg;
        break;
    case 'F':
        args->source.fmt = optarg;
        break;
    case 'g':
        parse_granularity(args);
        break;
    case OPTION_IMAGE_OPTS:
        args->image.image_opts = true;
        break;
    case OPTION_OBJECT:
        img_process_object(optarg, EXIT_FAILURE);
        break;
    case OPTION_ADD ... OPTION_MERGE:
        add_action(args, c);
        break;
    default:
        img_bad_option(argv[0]);
    }
}

static void complain(const char *message)
{
    error_report("%s", message);
    exit(EXIT_FAILURE);
}

/* What is required, and what goes with what. */
static void check_args(BitmapArgs *args, int argc, char **argv)
{
    if (args->actions->len == 0) {
        complain("Need at least one of --add, --remove, --clear, --enable, "
                 "--disable, or --merge");
    }
    if (optind != argc - 2) {
        complain("Expecting filename and bitmap name");
    }
    if (args->granularity && !args->add) {
        complain("granularity only supported with --add");
    }
    if (args->source.fmt && !args->source.filename) {
        complain("-F only supported with -b");
    }
    if (args->source.filename && !args->merge) {
        complain("Merge bitmap source file only supported with --merge");
    }
    args->image.filename = argv[optind];
    args->bitmap = argv[optind + 1];
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       BitmapArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "add", no_argument, NULL, OPTION_ADD },
        { "granularity", required_argument, NULL, 'g' },
        { "remove", no_argument, NULL, OPTION_REMOVE },
        { "clear", no_argument, NULL, OPTION_CLEAR },
        { "enable", no_argument, NULL, OPTION_ENABLE },
        { "disable", no_argument, NULL, OPTION_DISABLE },
        { "merge", required_argument, NULL, OPTION_MERGE },
        { "source-file", required_argument, NULL, 'b' },
        { "source-format", required_argument, NULL, 'F' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hf:g:b:F:", long_options, NULL)) !=
           -1) {
        parse_option(cmd, argv, args, c);
    }
    check_args(args, argc, argv);
}

/* ---- Actions ---- */

static const char *action_name(int option)
{
    static const char *const names[] = { "add", "remove", "clear", "enable",
                                         "disable", "merge" };

    return names[option - OPTION_ADD];
}

static bool run_action(const BitmapArgs *args, const Action *action,
                       BlockDriverState *bs, BlockDriverState *src,
                       Error **errp)
{
    const char *name = args->bitmap;

    switch (action->option) {
    case OPTION_ADD:
        return bdrv_dirty_bitmap_cmd_add(bs, name, args->granularity, true,
                                         false, errp);
    case OPTION_REMOVE:
        return bdrv_dirty_bitmap_cmd_remove(bs, name, errp);
    case OPTION_CLEAR:
        return bdrv_dirty_bitmap_cmd_clear(bs, name, errp);
    case OPTION_ENABLE:
        return bdrv_dirty_bitmap_cmd_enable(bs, name, errp);
    case OPTION_DISABLE:
        return bdrv_dirty_bitmap_cmd_disable(bs, name, errp);
    default:
        return bdrv_dirty_bitmap_cmd_merge(bs, name, src, action->source,
                                           errp);
    }
}

static bool run_actions(const BitmapArgs *args, BlockDriverState *bs,
                        BlockDriverState *src)
{
    for (guint i = 0; i < args->actions->len; i++) {
        const Action *action = &g_array_index(args->actions, Action, i);
        Error *err = NULL;

        if (!run_action(args, action, bs, src, &err)) {
            error_reportf_err(err, "Operation %s on bitmap %s failed: ",
                              action_name(action->option), args->bitmap);
            return false;
        }
    }
    return true;
}

/* Closing would do that too, but what it loses does not fail the command. */
static bool store(BlockBackend *blk)
{
    Error *err = NULL;
    int ret;

    if (!bdrv_store_dirty_bitmaps(blk_bs(blk), true, &err)) {
        error_report_err(err);
        return false;
    }
    ret = blk_flush(blk);
    if (ret < 0) {
        error_report("Could not flush the image: %s", g_strerror(-ret));
    }
    return ret == 0;
}

static int change_bitmap(const BitmapArgs *args)
{
    BlockBackend *blk, *src = NULL;
    bool ok;

    blk = img_open(&args->image);
    if (!blk) {
        return EXIT_FAILURE;
    }
    if (args->source.filename) {
        src = img_open(&args->source);
    }
    ok = (src || !args->source.filename) &&
         run_actions(args, blk_bs(blk), blk_bs(src ? src : blk));
    /* What was done before a failure stays done. */
    ok &= store(blk);
    if (src) {
        blk_unref(src);
    }
    blk_unref(blk);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

int img_bitmap(const ImgCommand *cmd, int argc, char **argv)
{
    BitmapArgs args = {
        .image.flags = BDRV_O_RDWR,
        .actions = g_array_new(FALSE, FALSE, sizeof(Action)),
    };
    int ret;

    parse_args(cmd, argc, argv, &args);
    ret = change_bitmap(&args);
    g_array_unref(args.actions);
    return ret;
}
