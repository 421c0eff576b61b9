/*
 * Dirty bitmaps as the user's commands and closing images treat them: the
 * checks and words that qemu-img and the monitor share, and the driver's hooks.
 *
 * All on the control thread.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "dirty-bitmap-int.h"

/* ---- The driver's hooks ---- */

uint32_t bdrv_get_default_bitmap_granularity(BlockDriverState *bs)
{
    BlockDriverInfo info;

    if (bdrv_get_info(bs, &info) == 0 && info.cluster_size > 0) {
        return CLAMP(info.cluster_size, 4 * KiB, 64 * KiB);
    }
    return 64 * KiB;
}

bool bdrv_supports_persistent_dirty_bitmap(BlockDriverState *bs)
{
    return bs->drv->can_store_new_dirty_bitmap &&
           (!bs->drv->supports_persistent_dirty_bitmap ||
            bs->drv->supports_persistent_dirty_bitmap(bs));
}

bool bdrv_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                     uint32_t granularity, Error **errp)
{
    if (!bs->drv->can_store_new_dirty_bitmap) {
        error_setg_errno(errp, ENOTSUP, "Can't store persistent bitmaps to %s",
                         bs->node_name);
        return false;
    }
    return bs->drv->can_store_new_dirty_bitmap(bs, name, granularity, errp);
}

bool bdrv_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                         const char *name, Error **errp)
{
    if (!bs->drv->remove_persistent_dirty_bitmap) {
        error_setg_errno(errp, ENOTSUP, "Can't remove persistent bitmaps from "
                         "%s", bs->node_name);
        return false;
    }
    return bs->drv->remove_persistent_dirty_bitmap(bs, name, errp);
}

bool bdrv_store_dirty_bitmaps(BlockDriverState *bs, bool release_stored,
                              Error **errp)
{
    ERRP_GUARD();

    if (!bs->drv->store_dirty_bitmaps || bs->read_only) {
        return true;
    }
    if (!bs->drv->store_dirty_bitmaps(bs, release_stored, errp)) {
        error_prepend(errp, "Lost persistent bitmaps during inactivation of "
                      "node '%s': ", bs->node_name);
        return false;
    }
    return true;
}

/* ---- Commands ---- */

static BdrvDirtyBitmap *lookup(BlockDriverState *bs, const char *name,
                               Error **errp)
{
    BdrvDirtyBitmap *b = bdrv_find_dirty_bitmap(bs, name);

    if (!b) {
        error_setg(errp, "Dirty bitmap '%s' not found", name);
    }
    return b;
}

/* It exists, and nothing of @flags forbids to use it. */
static BdrvDirtyBitmap *usable(BlockDriverState *bs, const char *name,
                               uint32_t flags, Error **errp)
{
    BdrvDirtyBitmap *b = lookup(bs, name, errp);

    return b && bdrv_dirty_bitmap_check(b, flags, errp) ? b : NULL;
}

static bool check_add(BlockDriverState *bs, const char *name,
                      uint64_t granularity, Error **errp)
{
    if (!*name) {
        error_setg(errp, "Bitmap name cannot be empty");
        return false;
    }
    if (!hbitmap_granularity_is_valid(granularity)) {
        error_setg(errp, "Granularity must be power of 2 and at least 512");
        return false;
    }
    if (bdrv_find_dirty_bitmap(bs, name)) {
        error_setg(errp, "Bitmap already exists: %s", name);
        return false;
    }
    return true;
}

bool bdrv_dirty_bitmap_cmd_add(BlockDriverState *bs, const char *name,
                               uint64_t granularity, bool persistent,
                               bool disabled, Error **errp)
{
    BdrvDirtyBitmap *b;

    if (!granularity) {
        granularity = bdrv_get_default_bitmap_granularity(bs);
    }
    if (!check_add(bs, name, granularity, errp) ||
        (persistent &&
         !bdrv_can_store_new_dirty_bitmap(bs, name, granularity, errp))) {
        return false;
    }
    b = bdrv_create_dirty_bitmap(bs, granularity, name, errp);
    if (!b) {
        return false;
    }
    if (disabled) {
        bdrv_disable_dirty_bitmap(b);
    }
    bdrv_dirty_bitmap_set_persistence(b, persistent);
    return true;
}

bool bdrv_dirty_bitmap_cmd_remove(BlockDriverState *bs, const char *name,
                                  Error **errp)
{
    BdrvDirtyBitmap *b = usable(bs, name, BDRV_BITMAP_BUSY | BDRV_BITMAP_RO,
                                errp);

    if (!b || (bdrv_dirty_bitmap_get_persistence(b) &&
               !bdrv_remove_persistent_dirty_bitmap(bs, name, errp))) {
        return false;
    }
    bdrv_release_dirty_bitmap(b);
    return true;
}

bool bdrv_dirty_bitmap_cmd_clear(BlockDriverState *bs, const char *name,
                                 Error **errp)
{
    BdrvDirtyBitmap *b = usable(bs, name, BDRV_BITMAP_DEFAULT, errp);

    if (b) {
        bdrv_clear_dirty_bitmap(b, NULL);
    }
    return b;
}

bool bdrv_dirty_bitmap_cmd_enable(BlockDriverState *bs, const char *name,
                                  Error **errp)
{
    BdrvDirtyBitmap *b = usable(bs, name, BDRV_BITMAP_ALLOW_RO, errp);

    if (b) {
        bdrv_enable_dirty_bitmap(b);
    }
    return b;
}

bool bdrv_dirty_bitmap_cmd_disable(BlockDriverState *bs, const char *name,
                                   Error **errp)
{
    BdrvDirtyBitmap *b = usable(bs, name, BDRV_BITMAP_ALLOW_RO, errp);

    if (b) {
        bdrv_disable_dirty_bitmap(b);
    }
    return b;
}

bool bdrv_dirty_bitmap_cmd_merge(BlockDriverState *bs, const char *name,
                                 BlockDriverState *src_bs,
                                 const char *src_name, Error **errp)
{
    BdrvDirtyBitmap *dest = lookup(bs, name, errp);
    BdrvDirtyBitmap *src = dest ? lookup(src_bs, src_name, errp) : NULL;

    return src && bdrv_merge_dirty_bitmap(dest, src, NULL, errp);
}
