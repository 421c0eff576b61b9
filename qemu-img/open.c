/*
 * Opening images, as every subcommand does it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/snapshot.h"

BlockGraph *img_graph(void)
{
    static BlockGraph *graph;

    if (!graph) {
        graph = block_graph_new();
    }
    return graph;
}

/* The options in the words of --image-opts; NULL with @errp. */
static json_t *parse_image_opts(const ImgOpen *how, Error **errp)
{
    json_t *flat;

    if (how->fmt) {
        error_setg(errp, "--image-opts and --format are mutually exclusive");
        return NULL;
    }
    flat = qemu_opts_parse_legacy(how->filename, "file", true, NULL, errp);
    if (!flat) {
        return NULL;
    }
    if (how->force_share && json_object_get(flat, "force-share")) {
        bool value = false;

        if (!opt_take_bool(flat, "force-share", &value, errp) || !value) {
            if (!errp || !*errp) {
                error_setg(errp, "--force-share/-U conflicts with image "
                           "options");
            }
            json_decref(flat);
            return NULL;
        }
    }
    return flat;
}

static json_t *open_options(const ImgOpen *how, Error **errp)
{
    g_autoptr(json_t) flat = how->options ? how->options : json_object();

    if (how->image_opts) {
        g_autoptr(json_t) given = parse_image_opts(how, errp);

        if (!given) {
            return NULL;
        }
        json_object_update(flat, given);
    } else if (how->fmt) {
        opt_set_str(flat, "driver", how->fmt);
    }
    if (how->force_share) {
        opt_set_bool(flat, "force-share", true);
    }
    return options_crumple(flat, errp);
}

BlockBackend *img_open(const ImgOpen *how)
{
    BlockGraph *graph = how->graph ? how->graph : img_graph();
    BlockBackend *blk = NULL;
    Error *err = NULL;
    json_t *options = open_options(how, &err);

    if (!options) {
        error_report_err(err);
        return NULL;
    }
    blk = blk_new_open(graph, how->image_opts ? NULL : how->filename, NULL,
                       options, how->flags, &err);
    if (!blk) {
        error_reportf_err(err, "Could not open '%s': ", how->filename);
        return NULL;
    }
    /* "read-only=on" among the options has the last word. */
    if ((how->flags & BDRV_O_RDWR) && bdrv_is_read_only(blk_bs(blk))) {
        error_report("Could not open '%s': Block node is read-only",
                     how->filename);
        blk_unref(blk);
        return NULL;
    }
    blk_set_enable_write_cache(blk, !how->writethrough);
    return blk;
}

int64_t img_length(BlockBackend *blk, const char *filename)
{
    int64_t length = blk_getlength(blk);

    if (length < 0) {
        error_report("Can't get size of %s: %s", filename,
                     g_strerror(-length));
    }
    return length;
}

bool img_load_snapshot(BlockBackend *blk, const char *param)
{
    g_autoptr(json_t) opts = NULL;
    g_autofree char *id = NULL, *name = NULL;
    Error *err = NULL;
    bool ok;

    /* Either options, or the id or name itself. */
    if (g_str_has_prefix(param, "snapshot.")) {
        opts = qemu_opts_parse_legacy(param, NULL, true, NULL, &err);
        if (opts) {
            id = opt_take_str(opts, "snapshot.id");
            name = opt_take_str(opts, "snapshot.name");
        }
        if (!opts || !opt_check_unused(opts, &err)) {
            error_report_err(err);
            error_report("Failed in parsing snapshot param '%s'", param);
            return false;
        }
    }
    if (!id && !name) {
        /* A name, or else an id. */
        ok = bdrv_snapshot_load_tmp(blk_bs(blk), NULL, param, NULL) ||
             bdrv_snapshot_load_tmp(blk_bs(blk), param, NULL, &err);
    } else {
        ok = bdrv_snapshot_load_tmp(blk_bs(blk), id, name, &err);
    }
    if (!ok) {
        error_reportf_err(err, "Failed to load snapshot: ");
    }
    return ok;
}

bool img_parse_aio(const char *mode, const char *fmt, json_t *options)
{
    /* The option belongs to the file, which is the top node only if asked. */
    const char *key = "file.aio";

    if (!g_str_equal(mode, "threads") && !g_str_equal(mode, "native") &&
        !g_str_equal(mode, "io_uring")) {
        return false;
    }
    if (fmt && (g_str_equal(fmt, "file") || g_str_equal(fmt, "host_device"))) {
        key = "aio";
    }
    opt_set_str(options, key, mode);
    return true;
}
