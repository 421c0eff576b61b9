/*
 * qemu-img info: what there is to know of an image, and of those below it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/qapi.h"
#include "qemu/qjson.h"

static const char synopsis[] =
    "[-f FMT | --image-opts] [-b] [-U] [--object OBJDEF]\n"
    "        [--output human|json] FILENAME";

static const char arguments[] =
    "  -f, --format FMT\n"
    "     specify FILENAME image format explicitly\n"
    "  --image-opts\n"
    "     indicates that FILENAME is a complete image specification\n"
    "     instead of a file name (incompatible with --format)\n"
    "  -b, --backing-chain\n"
    "     display information about backing chaing\n"
    "  (in case the image is stacked\n"
    "  -U, --force-share\n"
    "     open image in shared mode for concurrent access\n"
    "  --object OBJDEF\n"
    "     QEMU user-creatable object (eg encryption key)\n"
    "  --output human|json\n"
    "     specify output format name (default human)\n"
    "  FILENAME\n"
    "     image file name (or specification with --image-opts)\n";

typedef struct InfoArgs {
    ImgOpen image;
    bool chain;
    OutputFormat output;
} InfoArgs;

/* The infos of the image and, if asked, of its backing files; NULL after a
 * message. */
static json_t *collect_chain(const InfoArgs *args)
{
    g_autoptr(json_t) list = json_array();
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal,
                                                       g_free, NULL);
    ImgOpen image = args->image;

    while (image.filename) {
        BlockBackend *blk;
        Error *err = NULL;
        json_t *info;

        if (!g_hash_table_add(seen, g_strdup(image.filename))) {
            error_report("Backing file '%s' creates an infinite loop.",
                         image.filename);
            return NULL;
        }
        blk = img_open(&image);
        if (!blk) {
            return NULL;
        }
        info = bdrv_query_graph_info(blk_bs(blk), &err);
        blk_unref(blk);
        if (!info) {
            error_report_err(err);
            return NULL;
        }
        json_array_append_new(list, info);
        if (!args->chain) {
            break;
        }
        image.image_opts = false;
        image.filename = opt_peek_str(info, "full-backing-filename");
        image.fmt = opt_peek_str(info, "backing-filename-format");
    }
    return g_steal_pointer(&list);
}

static void print_human(const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        g_autofree char *text = bdrv_graph_info_to_text(
            json_array_get(list, i));

        printf("%s%s", i ? "\n" : "", text);
    }
}

static void print_json(const json_t *value)
{
    g_autofree char *text = qobject_to_json(value, true);

    printf("%s\n", text);
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       InfoArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "backing-chain", no_argument, NULL, 'b' },
        { "force-share", no_argument, NULL, 'U' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { "output", required_argument, NULL, OPTION_OUTPUT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hf:bU", long_options, NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 'b':
            args->chain = true;
            break;
        case OPTION_OUTPUT:
            args->output = img_parse_output_format(argv[0], optarg);
            break;
        default:
            img_take_option(argv[0], c, &args->image, NULL);
        }
    }
    args->image.filename = img_take_filename(argc, argv);
}

int img_info(const ImgCommand *cmd, int argc, char **argv)
{
    InfoArgs args = {
        .image.flags = BDRV_O_NO_BACKING | BDRV_O_NO_IO,
    };
    g_autoptr(json_t) list = NULL;

    parse_args(cmd, argc, argv, &args);
    list = collect_chain(&args);
    if (!list) {
        return EXIT_FAILURE;
    }
    if (args.output == OFORMAT_HUMAN) {
        print_human(list);
    } else {
        print_json(args.chain ? list : json_array_get(list, 0));
    }
    return EXIT_SUCCESS;
}
