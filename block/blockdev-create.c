/*
 * blockdev-create: images that are made in nodes.
 *
 * "qemu-img create" is told a file name, and makes the file, too.  A monitor's
 * user has opened the file as a node before, on whatever protocol, and says
 * what is to be in it; so one image may be made of several nodes.  What a
 * driver takes is a nested object, in QAPI's spelling.
 *
 * Control thread; blocks.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

static BlockDriver *find_driver(const json_t *options, Error **errp)
{
    const json_t *value = json_object_get(options, "driver");
    const char *name = json_string_value(value);
    BlockDriver *drv = name ? bdrv_find_format(name) : NULL;

    if (value && !name) {
        error_setg(errp, "Invalid parameter type for 'options.driver', "
                   "expected: string");
    } else if (!name) {
        error_setg(errp, "Parameter 'options.driver' is missing");
    } else if (!drv) {
        error_setg(errp, "Parameter 'driver' does not accept value '%s'", name);
    } else if (!drv->blockdev_create) {
        error_setg(errp, "Driver does not support blockdev-create");
        drv = NULL;
    }
    return drv;
}

bool bdrv_blockdev_create_check(const json_t *options, Error **errp)
{
    BlockDriver *drv = find_driver(options, errp);

    return drv && bdrv_create_check_params(options, drv->blockdev_create_params,
                                           errp);
}

bool bdrv_blockdev_create(BlockGraph *graph, json_t *options, Error **errp)
{
    BlockDriver *drv;
    bool ok = bdrv_blockdev_create_check(options, errp);

    if (ok) {
        drv = find_driver(options, &error_abort);
        json_object_del(options, "driver");
        ok = drv->blockdev_create(graph, options, errp) &&
             opt_check_unused(options, errp);
    }
    json_decref(options);
    return ok;
}

/* ---- For drivers ---- */

static BlockDriverState *open_reference(BlockGraph *graph, const char *key,
                                        const json_t *ref, Error **errp)
{
    if (json_is_string(ref)) {
        return bdrv_open(graph, NULL, json_string_value(ref), NULL, 0, errp);
    }
    if (json_is_object(ref)) {
        return bdrv_open(graph, NULL, NULL, json_deep_copy(ref),
                         BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_PROTOCOL, errp);
    }
    error_setg(errp, "Parameter '%s' does not name a node", key);
    return NULL;
}

BlockBackend *bdrv_create_take_node(BlockGraph *graph, json_t *options,
                                    const char *key, Error **errp)
{
    g_autoptr(json_t) ref = opt_take_any(options, key);
    BlockDriverState *bs = open_reference(graph, key, ref, errp);
    BlockBackend *blk;

    if (!bs) {
        return NULL;
    }
    /* As a format does that opens it: one node, or one file, is not two parts
     * of an image, and nobody else changes it meanwhile. */
    blk = blk_new(graph, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                  BLK_PERM_RESIZE,
                  BLK_PERM_ALL & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE));
    if (!blk_insert_bs(blk, bs, errp)) {
        blk_unref(blk);
        blk = NULL;
    }
    bdrv_unref(bs);
    return blk;
}
