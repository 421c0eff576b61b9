/*
 * qemu-img map: where the data of an image is.
 *
 * The human form lists what holds data in files; the JSON form every extent,
 * with neighbours of one kind merged.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/qapi.h"

static const char synopsis[] =
    "[-f FMT | --image-opts] [--object OBJDEF] [--output human|json]\n"
    "        [--start-offset OFFSET] [--max-length LENGTH] [-U] FILENAME";

static const char arguments[] =
    "  -f, --format FMT\n"
    "     specify FILENAME image format explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --format)\n"
    "  --start-offset OFFSET\n"
    "  --max-length LENGTH\n"
    "  --output human|json\n"
    "     specify output format name (default human)\n"
    "  -U, --force-share\n"
    "     open image in shared mode for concurrent access\n"
    "  --object OBJDEF\n"
    "     QEMU user-creatable object (eg encryption key)\n"
    "  FILENAME\n"
    "     image file name (or specification with --image-opts)\n";

typedef struct MapArgs {
    ImgOpen image;
    OutputFormat output;
    int64_t start;
    int64_t max_length;
} MapArgs;

static const char *bool_text(bool b)
{
    return b ? "true" : "false";
}

static bool print_human(const MapEntry *e)
{
    if (!e->data || e->zero) {
        return true;
    }
    if (!e->has_offset || !e->filename) {
        error_report("File contains external, encrypted or compressed "
                     "clusters.");
        return false;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n",
           (uint64_t)e->start, (uint64_t)e->length, (uint64_t)e->offset,
           e->filename);
    return true;
}

static void print_json(const MapEntry *e, bool last)
{
    printf("{ \"start\": %" PRId64 ", \"length\": %" PRId64 ","
           " \"depth\": %d, \"present\": %s, \"zero\": %s, \"data\": %s,"
           " \"compressed\": %s",
           e->start, e->length, e->depth, bool_text(e->present),
           bool_text(e->zero), bool_text(e->data), bool_text(e->compressed));
    if (e->has_offset) {
        printf(", \"offset\": %" PRId64, e->offset);
    }
    printf("}%s\n", last ? "]" : ",");
}

static bool print_entry(const MapArgs *args, const MapEntry *e, bool last)
{
    if (args->output == OFORMAT_HUMAN) {
        return print_human(e);
    }
    print_json(e, last);
    return true;
}

/* Whether @next goes on where @e ends, with the same properties. */
static bool continues(const MapEntry *e, const MapEntry *next)
{
    return e->length && e->zero == next->zero && e->data == next->data &&
           e->present == next->present && e->depth == next->depth &&
           e->compressed == next->compressed &&
           e->has_offset == next->has_offset &&
           (!e->has_offset || e->offset + e->length == next->offset) &&
           g_strcmp0(e->filename, next->filename) == 0;
}

static int print_map(const MapArgs *args, BlockBackend *blk, int64_t length)
{
    MapEntry e = { .start = args->start };

    if (args->max_length >= 0 && args->max_length < length - args->start) {
        length = args->start + args->max_length;
    }
    printf("%s", args->output == OFORMAT_HUMAN ?
           "Offset          Length          Mapped to       File\n" : "[");
    while (e.start + e.length < length) {
        int64_t offset = e.start + e.length;
        MapEntry next;
        int ret = bdrv_query_map_entry(blk_bs(blk), offset, length - offset,
                                       &next);

        if (ret < 0) {
            error_report("Could not read file metadata: %s",
                         g_strerror(-ret));
            return EXIT_FAILURE;
        }
        if (continues(&e, &next)) {
            e.length += next.length;
            continue;
        }
        if (e.length && !print_entry(args, &e, false)) {
            return EXIT_FAILURE;
        }
        e = next;
    }
    return print_entry(args, &e, true) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       MapArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "start-offset", required_argument, NULL, 's' },
        { "max-length", required_argument, NULL, 'l' },
        { "output", required_argument, NULL, OPTION_OUTPUT },
        { "force-share", no_argument, NULL, 'U' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hf:s:l:U", long_options,
                            NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 's':
            args->start = img_parse_number("start offset", optarg, true, 0,
                                           INT64_MAX);
            if (args->start < 0) {
                exit(EXIT_FAILURE);
            }
            break;
        case 'l':
            args->max_length = img_parse_number("max length", optarg, true, 0,
                                                INT64_MAX);
            if (args->max_length < 0) {
                exit(EXIT_FAILURE);
            }
            break;
        case OPTION_OUTPUT:
            args->output = img_parse_output_format(argv[0], optarg);
            break;
        default:
            img_take_option(argv[0], c, &args->image, NULL);
        }
    }
    if (optind != argc - 1) {
        img_try_help(argv[0], "Expecting one image file name");
    }
    args->image.filename = argv[optind];
}

int img_map(const ImgCommand *cmd, int argc, char **argv)
{
    MapArgs args = { .image.flags = BDRV_O_ONE_PASS, .max_length = -1 };
    BlockBackend *blk;
    int64_t length;
    int ret = EXIT_FAILURE;

    parse_args(cmd, argc, argv, &args);
    blk = img_open(&args.image);
    if (!blk) {
        return EXIT_FAILURE;
    }
    length = img_length(blk, args.image.filename);
    if (length >= 0) {
        ret = print_map(&args, blk, length);
    }
    blk_unref(blk);
    return ret;
}
