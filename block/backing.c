/*
 * Backing files: an image's header names one, and the core opens it.
 *
 * A driver's open leaves what its header says in bs->backing_file and
 * bs->backing_format.  What the user said in the option "backing" wins: a
 * node name, null or "" for none, or an object with options of its own, which
 * the header's name and format complete.
 *
 * A relative name is relative to the folder of the image that says it.  A name
 * with a protocol ("nbd://…", "json:{…}") is used as it is: that is what the
 * format promises, and why a tool that only looks at one image (info) opens it
 * with BDRV_O_NO_BACKING.
 *
 * A chain has a bound, so that an image which is its own backing file is an
 * error and not the end of the stack.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error.h"
#include "block-internal.h"

/* Longer than anybody's; a level takes a few KiB of stack to open. */
#define MAX_CHAIN 400

/* ---- Names ---- */

/* @name, seen from the folder of @base. */
static char *path_combine(const char *base, const char *name)
{
    const char *slash = strrchr(base, '/');
    size_t protocol = bdrv_protocol_length(base);
    size_t keep = slash ? slash + 1 - base : protocol ? protocol + 1 : 0;

    return g_strdup_printf("%.*s%s", (int)keep, base, name);
}

char *bdrv_get_full_backing_filename_from_filename(const char *image,
                                                   const char *name,
                                                   Error **errp)
{
    if (*name == '/' || bdrv_protocol_length(name)) {
        return g_strdup(name);
    }
    if (!*image || strstart(image, "json:", NULL)) {
        error_setg(errp, "Cannot use relative backing file names for '%s'",
                   image);
        return NULL;
    }
    return path_combine(image, name);
}

char *bdrv_get_full_backing_filename(BlockDriverState *bs, Error **errp)
{
    if (!bs->backing_file || !*bs->backing_file) {
        return NULL;
    }
    return bdrv_get_full_backing_filename_from_filename(
        bdrv_get_filename(bs), bs->backing_file, errp);
}

/* ---- Opening ---- */

static BlockDriverState *open_described(BlockDriverState *bs, json_t *options,
                                        Error **errp)
{
    ERRP_GUARD();
    g_autofree char *filename = NULL;

    if (!json_object_get(options, "file")) {
        filename = bdrv_get_full_backing_filename(bs, errp);
        if (*errp) {
            return NULL;
        }
        if (bs->backing_format && !json_object_get(options, "driver")) {
            json_object_set_new(options, "driver",
                                json_string(bs->backing_format));
        }
    }
    return bdrv_open(bs->graph, filename, NULL, json_incref(options),
                     bdrv_backing_flags(bs->open_flags), errp);
}

static BlockDriverState *open_backing_node(BlockDriverState *bs,
                                           const json_t *value, Error **errp)
{
    g_autoptr(json_t) options = NULL;
    BlockDriverState *backing;

    if (json_is_string(value)) {
        return bdrv_open(bs->graph, NULL, json_string_value(value), NULL, 0,
                         errp);
    }
    if (bs->graph->backing_depth == MAX_CHAIN) {
        error_setg(errp, "Backing chain is longer than %d images", MAX_CHAIN);
        return NULL;
    }
    options = value ? json_deep_copy(value) : json_object();
    bs->graph->backing_depth++;
    backing = open_described(bs, options, errp);
    bs->graph->backing_depth--;
    return backing;
}

bool bdrv_is_no_backing(const json_t *value)
{
    return json_is_null(value) ||
           (json_is_string(value) && !*json_string_value(value));
}

static bool is_none(BlockDriverState *bs, const json_t *value)
{
    if (!value) {
        return !bs->backing_file || !*bs->backing_file ||
               (bs->open_flags & BDRV_O_NO_BACKING);
    }
    return bdrv_is_no_backing(value);
}

static bool attach_backing(BlockDriverState *bs, BlockDriverState *backing,
                           Error **errp)
{
    bs->backing = bdrv_attach_child(bs, NULL, backing, "backing",
                                    BDRV_CHILD_COW, 0, BLK_PERM_ALL, errp);
    if (bs->backing && !bdrv_refresh_perms(bs, errp)) {
        bdrv_detach_child(bs->backing);
    }
    return bs->backing;
}

bool bdrv_open_backing(BlockDriverState *bs, const json_t *value, Error **errp)
{
    ERRP_GUARD();
    BlockDriverState *backing;

    if (is_none(bs, value)) {
        return true;
    }
    if (value && !json_is_string(value) && !json_is_object(value)) {
        error_setg(errp, "A block device must be specified for \"backing\"");
        return false;
    }
    backing = open_backing_node(bs, value, errp);
    if (!backing) {
        if (!json_is_string(value)) {
            error_prepend(errp, "Could not open backing file: ");
        }
        return false;
    }
    return attach_backing(bs, backing, errp);
}

/* ---- Changing ---- */

bool bdrv_set_backing_hd(BlockDriverState *bs, BlockDriverState *backing,
                         Error **errp)
{
    BlockDriverState *old = bdrv_backing_bs(bs);
    bool ok = true;

    bdrv_drained_begin(bs);
    if (old) {
        bdrv_ref(old);
        bdrv_detach_child(bs->backing);
    }
    if (backing) {
        bdrv_ref(backing);
        ok = attach_backing(bs, backing, errp);
    }
    if (ok && old) {
        bdrv_unref(old);
    } else if (old) {
        /* Without it, bs would read, and copy on writes, zeroes for its data.
         * What it was granted a moment ago is not refused. */
        attach_backing(bs, old, &error_abort);
    }
    bdrv_refresh_limits(bs);
    bdrv_drained_end(bs);
    return ok;
}

bool bdrv_change_backing_file(BlockDriverState *bs, const char *file,
                              const char *format, Error **errp)
{
    bool ok;

    if (!bs->drv->change_backing_file) {
        error_setg(errp, "%s", g_strerror(ENOTSUP));
        return false;
    }
    if (file && !format) {
        error_setg(errp, "backing format must be specified");
        return false;
    }
    bdrv_drained_begin(bs);
    ok = bs->drv->change_backing_file(bs, file, format, errp);
    if (ok) {
        g_free(bs->backing_file);
        g_free(bs->backing_format);
        bs->backing_file = g_strdup(file);
        bs->backing_format = g_strdup(file ? format : NULL);
    }
    bdrv_drained_end(bs);
    return ok;
}
