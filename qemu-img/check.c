/*
 * qemu-img check: look for damage in an image, and repair it if asked.
 *
 * After a repair the image is checked again, and what is reported then is what
 * the second look found.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/snapshot.h"
#include "qemu/qjson.h"

static const char synopsis[] =
    "[-f FMT | --image-opts] [-T CACHE_MODE] [-r] [-u]\n"
    "        [--output human|json] [--object OBJDEF] FILENAME";

static const char arguments[] =
    "  -q, --quiet\n"
    "     quiet operations\n"
    "  -f, --format FMT\n"
    "     specifies format of the image explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --format)\n"
    "  -T, --cache CACHE_MODE\n"
    "     image cache mode (writeback)\n"
    "  -U, --force-share\n"
    "     open image in shared mode for concurrent access\n"
    "  --output human|json\n"
    "     output format\n"
    "  -r, --repair leaks|all\n"
    "     repair particular aspect of the image\n"
    "     (image will be open in read-write mode, incompatible with "
    "--force-share)\n"
    "  --object OBJDEF\n"
    "     QEMU user-creatable object (eg encryption key)\n"
    "  FILENAME\n"
    "     the image file (or image specification) to operate on\n";

enum {
    CHECK_CLEAN = 0,
    CHECK_NOT_COMPLETED = 1,
    CHECK_CORRUPT = 2,
    CHECK_LEAKS = 3,
    CHECK_UNSUPPORTED = 63,
};

typedef struct CheckArgs {
    ImgOpen image;
    const char *cache;
    OutputFormat output;
    BdrvCheckMode fix;
    bool quiet;
} CheckArgs;

/* ---- Report ---- */

static void print_summary(const BdrvCheckResult *r)
{
    if (!r->corruptions && !r->leaks && !r->check_errors) {
        printf("No errors were found on the image.\n");
    }
    if (r->corruptions) {
        printf("\n%" PRId64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may "
               "corrupt it.\n", r->corruptions);
    }
    if (r->leaks) {
        printf("\n%" PRId64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               r->leaks);
    }
    if (r->check_errors) {
        printf("\n%" PRId64 " internal errors have occurred during the "
               "check.\n", r->check_errors);
    }
}

static void print_human(const BdrvCheckResult *r)
{
    print_summary(r);
    if (r->total_clusters && r->allocated_clusters) {
        printf("%" PRId64 "/%" PRId64 " = %.2f%% allocated, "
               "%.2f%% fragmented, %.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters,
               r->allocated_clusters * 100.0 / r->total_clusters,
               r->fragmented_clusters * 100.0 / r->allocated_clusters,
               r->compressed_clusters * 100.0 / r->allocated_clusters);
    }
    if (r->image_end_offset) {
        printf("Image end offset: %" PRId64 "\n", r->image_end_offset);
    }
}

static void print_json(const CheckArgs *args, const char *format,
                       const BdrvCheckResult *r)
{
    const struct {
        const char *key;
        int64_t value;
    } optional[] = {
        { "image-end-offset", r->image_end_offset },
        { "corruptions", r->corruptions },
        { "leaks", r->leaks },
        { "corruptions-fixed", r->corruptions_fixed },
        { "leaks-fixed", r->leaks_fixed },
        { "total-clusters", r->total_clusters },
        { "allocated-clusters", r->allocated_clusters },
        { "fragmented-clusters", r->fragmented_clusters },
        { "compressed-clusters", r->compressed_clusters },
    };
    g_autofree char *name = g_utf8_make_valid(args->image.filename, -1);
    g_autoptr(json_t) o = json_object();
    g_autofree char *text = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(optional); i++) {
        if (optional[i].value) {
            json_object_set_new(o, optional[i].key,
                                json_integer(optional[i].value));
        }
    }
    json_object_set_new(o, "check-errors", json_integer(r->check_errors));
    opt_set_str(o, "filename", name);
    opt_set_str(o, "format", format);
    text = qobject_to_json(o, true);
    printf("%s\n", text);
}

static int exit_status(const BdrvCheckResult *r)
{
    return r->check_errors ? CHECK_NOT_COMPLETED :
           r->corruptions ? CHECK_CORRUPT :
           r->leaks ? CHECK_LEAKS : CHECK_CLEAN;
}

/* ---- Work ---- */

static int complain(int ret)
{
    if (ret == -ENOTSUP) {
        error_report("This image format does not support checks");
        return CHECK_UNSUPPORTED;
    }
    error_report("Check failed: %s", g_strerror(-ret));
    return CHECK_NOT_COMPLETED;
}

static bool is_human(const CheckArgs *args)
{
    return args->output == OFORMAT_HUMAN && !args->quiet;
}

/* Look again, and keep what was repaired.  0 or -errno. */
static int double_check(const CheckArgs *args, BlockBackend *blk,
                        BdrvCheckResult *r)
{
    int64_t leaks_fixed = r->leaks_fixed, fixed = r->corruptions_fixed;
    int ret;

    if (is_human(args)) {
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" PRId64 " leaked clusters\n"
               "    %" PRId64 " corruptions\n\n"
               "Double checking the fixed image now...\n", leaks_fixed,
               fixed);
        fflush(stdout);
    }
    ret = bdrv_check(blk_bs(blk), r, 0);
    r->leaks_fixed = leaks_fixed;
    r->corruptions_fixed = fixed;
    return ret;
}

static int check(const CheckArgs *args, BlockBackend *blk)
{
    BdrvCheckResult r;
    int ret = bdrv_check(blk_bs(blk), &r, args->fix);

    if (ret >= 0 && (r.corruptions_fixed || r.leaks_fixed)) {
        ret = double_check(args, blk, &r);
    }
    if (ret < 0) {
        return complain(ret);
    }
    if (is_human(args)) {
        print_human(&r);
    } else if (!args->quiet) {
        print_json(args, bdrv_get_format_name(blk_bs(blk)), &r);
    }
    if (r.check_errors) {
        error_report("Check failed");
    }
    return exit_status(&r);
}

static BdrvCheckMode parse_fix(const char *argv0, const char *text)
{
    if (g_str_equal(text, "leaks")) {
        return BDRV_FIX_LEAKS;
    }
    if (!g_str_equal(text, "all")) {
        img_try_help(argv0, "--repair (-r) expects 'leaks' or 'all' not '%s'",
                     text);
    }
    return BDRV_FIX_LEAKS | BDRV_FIX_ERRORS;
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       CheckArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "cache", required_argument, NULL, 'T' },
        { "repair", required_argument, NULL, 'r' },
        { "force-share", no_argument, NULL, 'U' },
        { "output", required_argument, NULL, OPTION_OUTPUT },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hqf:T:r:U", long_options,
                            NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 'T':
            args->cache = optarg;
            break;
        case 'r':
            args->fix = parse_fix(argv[0], optarg);
            args->image.flags |= BDRV_O_RDWR;
            break;
        case OPTION_OUTPUT:
            args->output = img_parse_output_format(argv[0], optarg);
            break;
        default:
            img_take_option(argv[0], c, &args->image, &args->quiet);
        }
    }
    args->image.filename = img_take_filename(argc, argv);
}

int img_check(const ImgCommand *cmd, int argc, char **argv)
{
    CheckArgs args = {
        .image.flags = BDRV_O_CHECK,
        .cache = "writeback",
    };
    BlockBackend *blk;
    int ret;

    parse_args(cmd, argc, argv, &args);
    if (!bdrv_parse_cache_mode(args.cache, &args.image.flags,
                               &args.image.writethrough)) {
        error_report("Invalid source cache option: %s", args.cache);
        return CHECK_NOT_COMPLETED;
    }
    blk = img_open(&args.image);
    if (!blk) {
        return CHECK_NOT_COMPLETED;
    }
    ret = check(&args, blk);
    blk_unref(blk);
    return ret;
}
