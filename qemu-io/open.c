/*
 * open, close and reopen.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

/* @nested is used up. */
static BlockBackend *open_backend(QemuIo *io, const IoOpen *how,
                                  json_t *nested, Error **errp)
{
    BlockBackend *blk = how->snapshot ?
        io_open_overlay(io->graph, how->filename, nested, how->flags, errp) :
        blk_new_open(io->graph, how->filename, NULL, nested, how->flags, errp);

    if (blk && (how->flags & BDRV_O_COPY_ON_READ) &&
        !bdrv_enable_copy_on_read(blk_bs(blk), errp)) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

bool io_open_image(QemuIo *io, const IoOpen *how)
{
    g_autoptr(json_t) flat = how->options ? how->options : json_object();
    Error *err = NULL;
    json_t *nested = NULL;

    if (io->blk) {
        error_report("file open already, try 'help close'");
        return false;
    }
    if (how->force_share) {
        bool value = true;

        if (!opt_take_bool(flat, "force-share", &value, &err)) {
            error_report_err(err);
            return false;
        }
        if (!value) {
            error_report("-U conflicts with image options");
            return false;
        }
        opt_set_bool(flat, "force-share", true);
    }
    nested = options_crumple(flat, &err);
    if (nested) {
        io->blk = open_backend(io, how, nested, &err);
    }
    if (!io->blk) {
        if (how->filename) {
            error_reportf_err(err, "can't open device %s: ", how->filename);
        } else {
            error_reportf_err(err, "can't open: ");
        }
        return false;
    }
    blk_set_enable_write_cache(io->blk, !how->writethrough);
    return true;
}

void io_close_image(QemuIo *io)
{
    if (io->blk) {
        io_drain(io);
        blk_unref(io->blk);
        io->blk = NULL;
    }
}

bool io_set_aio(json_t *options, const char *mode)
{
    const char *driver = opt_peek_str(options, "driver");

    if (!g_str_equal(mode, "threads") && !g_str_equal(mode, "native") &&
        !g_str_equal(mode, "io_uring")) {
        error_report("Invalid aio option: %s", mode);
        return false;
    }
    /* The option belongs to the file, which is the top node only if asked. */
    opt_set_str(options, driver && (g_str_equal(driver, "file") ||
                                    g_str_equal(driver, "host_device")) ?
                "aio" : "file.aio", mode);
    return true;
}

/* ---- open ---- */

typedef struct OpenArgs {
    IoOpen how;
    const char *aio;
} OpenArgs;

/* 0, or -errno after a message. */
static int parse_open_options(const IoCommand *cmd, int argc, char **argv,
                              OpenArgs *args)
{
    Error *err = NULL;
    int c;

    while ((c = getopt(argc, argv, "snCro:ki:t:d:U")) != -1) {
        switch (c) {
        case 's':
            args->how.snapshot = true;
            break;
        case 'n':
            args->how.flags |= BDRV_O_NOCACHE;
            args->how.writethrough = false;
            break;
        case 'C':
            args->how.flags |= BDRV_O_COPY_ON_READ;
            break;
        case 'r':
            args->how.flags &= ~BDRV_O_RDWR;
            break;
        case 'k':
            args->aio = "native";
            break;
        case 'i':
            args->aio = optarg;
            break;
        case 't':
            if (!bdrv_parse_cache_mode(optarg, &args->how.flags,
                                       &args->how.writethrough)) {
                error_report("Invalid cache option: %s", optarg);
                return -EINVAL;
            }
            break;
        case 'd':
            if (!bdrv_parse_discard_flags(optarg, &args->how.flags)) {
                error_report("Invalid discard option: %s", optarg);
                return -EINVAL;
            }
            break;
        case 'o':
            if (!qemu_opts_merge_legacy(args->how.options, optarg, NULL, true,
                                        NULL, &err)) {
                error_report_err(err);
                return -EINVAL;
            }
            break;
        case 'U':
            args->how.force_share = true;
            break;
        default:
            return io_usage(cmd);
        }
    }
    return 0;
}

static int cmd_open(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    g_autoptr(json_t) options = json_object();
    OpenArgs args = {
        .how.flags = BDRV_O_RDWR | BDRV_O_UNMAP,
        .how.writethrough = true,
        .how.options = options,
    };
    int ret = parse_open_options(cmd, argc, argv, &args);

    if (ret < 0) {
        return ret;
    }
    if (optind < argc - 1) {
        return io_usage(cmd);
    }
    if (args.aio && !io_set_aio(options, args.aio)) {
        return -EINVAL;
    }
    args.how.filename = argv[optind];
    json_incref(options);
    return io_open_image(io, &args.how) ? 0 : -EINVAL;
}

static int cmd_close(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    io_close_image(io);
    return 0;
}

/* ---- reopen ---- */

typedef struct ReopenArgs {
    json_t *options;           /* flat */
    bool access_given;         /* -r or -w */
    bool read_only;
    bool cache_given;
    bool writethrough;
    int flags;                 /* of the cache mode */
} ReopenArgs;

static int parse_reopen_options(const IoCommand *cmd, int argc, char **argv,
                                ReopenArgs *args)
{
    Error *err = NULL;
    int c;

    while ((c = getopt(argc, argv, "c:o:rw")) != -1) {
        switch (c) {
        case 'c':
            if (!bdrv_parse_cache_mode(optarg, &args->flags,
                                       &args->writethrough)) {
                error_report("Invalid cache option: %s", optarg);
                return -EINVAL;
            }
            args->cache_given = true;
            break;
        case 'o':
            if (!qemu_opts_merge_legacy(args->options, optarg, NULL, true,
                                        NULL, &err)) {
                error_report_err(err);
                return -EINVAL;
            }
            break;
        case 'r':
        case 'w':
            if (args->access_given) {
                error_report("Only one -r/-w option may be given");
                return -EINVAL;
            }
            args->access_given = true;
            args->read_only = c == 'r';
            break;
        default:
            return io_usage(cmd);
        }
    }
    return optind == argc ? 0 : io_usage(cmd);
}

/* -c, -r and -w as options, unless those say it, too. */
static bool add_options(ReopenArgs *args)
{
    if (args->access_given) {
        if (json_object_get(args->options, "read-only")) {
            error_report("Cannot set both -r/-w and 'read-only'");
            return false;
        }
        opt_set_bool(args->options, "read-only", args->read_only);
    }
    if (args->cache_given) {
        if (json_object_get(args->options, "cache.direct") ||
            json_object_get(args->options, "cache.no-flush")) {
            error_report("Cannot set both -c and the cache options");
            return false;
        }
        opt_set_bool(args->options, "cache.direct",
                     args->flags & BDRV_O_NOCACHE);
        opt_set_bool(args->options, "cache.no-flush",
                     args->flags & BDRV_O_NO_FLUSH);
    }
    return true;
}

static bool reopen(QemuIo *io, const ReopenArgs *args, Error **errp)
{
    json_t *nested = options_crumple(args->options, errp);

    if (!nested) {
        return false;
    }
    /* Who may still write cannot become a reader. */
    if (args->access_given && args->read_only &&
        !blk_set_perm(io->blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                      errp)) {
        json_decref(nested);
        return false;
    }
    return bdrv_reopen(blk_bs(io->blk), nested, errp);
}

static int cmd_reopen(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    g_autoptr(json_t) options = json_object();
    ReopenArgs args = { .options = options };
    Error *err = NULL;
    int ret = parse_reopen_options(cmd, argc, argv, &args);

    if (ret < 0) {
        return ret;
    }
    if (!add_options(&args)) {
        return -EINVAL;
    }
    io_drain(io);
    if (!reopen(io, &args, &err)) {
        error_report_err(err);
        return -EINVAL;
    }
    if (args.cache_given) {
        blk_set_enable_write_cache(io->blk, !args.writethrough);
    }
    return 0;
}

static const IoCommand open_command = {
    .name = "open",
    .alias = "o",
    .run = cmd_open,
    .min_args = 1,
    .max_args = -1,
    .args = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
    .oneline = "open the file specified by path",
    .help =
"\n"
" opens a new file in the requested mode\n"
"\n"
" Example:\n"
" 'open -n -o driver=raw /tmp/data' - opens raw data file read-write, "
"uncached\n"
"\n"
" Opens a file for subsequent use by all of the other qemu-io commands.\n"
" -r, -- open file read-only\n"
" -s, -- use snapshot file\n"
" -C, -- use copy-on-read\n"
" -n, -- disable host cache, short for -t none\n"
" -U, -- force shared permissions\n"
" -k, -- use kernel AIO implementation (Linux only, prefer use of -i)\n"
" -i, -- use AIO mode (threads, native or io_uring)\n"
" -t, -- use the given cache mode for the image\n"
" -d, -- use the given discard mode for the image\n"
" -o, -- options to be given to the block driver\n",
};

static const IoCommand close_command = {
    .name = "close",
    .alias = "c",
    .run = cmd_close,
    .needs_file = true,
    .oneline = "close the current open file",
};

static const IoCommand reopen_command = {
    .name = "reopen",
    .run = cmd_reopen,
    .max_args = -1,
    .needs_file = true,
    .args = "[(-r|-w)] [-c cache] [-o options]",
    .oneline = "reopens an image with new options",
    .help =
"\n"
" Changes the open options of an already opened image\n"
"\n"
" Example:\n"
" 'reopen -o lazy-refcounts=on' - activates lazy refcount writeback on a "
"qcow2 image\n"
"\n"
" -r, -- Reopen the image read-only\n"
" -w, -- Reopen the image read-write\n"
" -c, -- Change the cache mode to the given value\n"
" -o, -- Changes block driver options (cf. 'open' command)\n"
"\n",
};

const IoCommand *const io_open_commands[] = {
    &open_command,
    &close_command,
    &reopen_command,
    NULL,
};
