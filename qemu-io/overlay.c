/*
 * -s: what is written goes to a temporary qcow2 image over the one that was
 * named, which is opened read-only.
 *
 * The temporary file is in $TMPDIR or else in /var/tmp, and has no name any
 * more when this returns, so it goes with the program whatever its end.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"
#include <glib/gstdio.h>

/* A new, empty file; NULL with @errp. */
static char *make_file(Error **errp)
{
    const char *dir = g_getenv("TMPDIR");
    g_autofree char *name = g_build_filename(dir ? dir : "/var/tmp",
                                             "vl.XXXXXX", NULL);
    int fd = g_mkstemp(name);

    if (fd < 0) {
        error_setg_errno(errp, errno, "Could not open temporary file '%s'",
                         name);
        return NULL;
    }
    close(fd);
    return g_steal_pointer(&name);
}

static bool format_file(BlockGraph *graph, const char *name, int64_t length,
                        Error **errp)
{
    json_t *options = json_object();

    opt_set_u64(options, "size", length);
    return bdrv_create(graph, "qcow2", name, options, errp);
}

/* Nobody will ask for it after a crash: it is never flushed, whatever the
 * cache mode, which is for the image below. */
static BlockBackend *open_over(BlockGraph *graph, BlockDriverState *base,
                               const char *name, int flags, Error **errp)
{
    json_t *options = json_pack("{s:s, s:{s:s, s:s}, s:s}",
                                "driver", "qcow2",
                                "file", "driver", "file", "filename", name,
                                "backing", bdrv_get_node_name(base));

    return blk_new_open(graph, NULL, NULL, options,
                        (flags & ~BDRV_O_NOCACHE) | BDRV_O_NO_FLUSH, errp);
}

static BlockBackend *make_overlay(BlockGraph *graph, BlockDriverState *base,
                                  int flags, Error **errp)
{
    int64_t length = bdrv_getlength(base);
    g_autofree char *name = NULL;
    BlockBackend *blk = NULL;

    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get image size");
        return NULL;
    }
    name = make_file(errp);
    if (!name) {
        return NULL;
    }
    if (format_file(graph, name, length, errp)) {
        blk = open_over(graph, base, name, flags, errp);
    }
    if (g_unlink(name) < 0) {
        warn_report("Could not remove temporary file '%s': %s", name,
                    g_strerror(errno));
    }
    return blk;
}

BlockBackend *io_open_overlay(BlockGraph *graph, const char *filename,
                              json_t *options, int flags, Error **errp)
{
    BlockDriverState *base = bdrv_open(graph, filename, NULL, options,
                                       flags & ~BDRV_O_RDWR, errp);
    BlockBackend *blk;

    if (!base) {
        return NULL;
    }
    blk = make_overlay(graph, base, flags, errp);
    bdrv_unref(base);
    return blk;
}
