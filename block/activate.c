/*
 * Handing an image over between two processes: live migration.
 *
 * An image that is open without any permission is inactive: another process
 * may write to it.  Before it is used, what is known of it has to be forgotten:
 * cached data, the length, metadata.  A driver that keeps metadata in memory
 * and has no activate function cannot do so: it does not say that it supports
 * this, and is refused.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

bool bdrv_can_hand_over(BlockDriverState *bs, Error **errp)
{
    BdrvChild *c;

    if (!bs->drv->supports_handover) {
        error_setg(errp, "Node '%s': the driver '%s' does not support live "
                   "migration", bs->node_name, bs->drv->format_name);
        return false;
    }
    list_for_each(c, &bs->children, child_node) {
        if (!bdrv_can_hand_over(c->bs, errp)) {
            return false;
        }
    }
    return true;
}

static bool activate_below(BlockDriverState *bs, Error **errp)
{
    BdrvChild *c;

    list_for_each(c, &bs->children, child_node) {
        if (!activate_below(c->bs, errp)) {
            return false;
        }
    }
    if (bs->drv->activate && !bs->drv->activate(bs, errp)) {
        return false;
    }
    bdrv_refresh_total_bytes(bs);
    return true;
}

bool bdrv_activate(BlockDriverState *bs, Error **errp)
{
    int64_t before;
    bool ok;

    if (!bdrv_can_hand_over(bs, errp)) {
        return false;
    }
    bdrv_drained_begin(bs);
    before = bdrv_getlength(bs);
    ok = activate_below(bs, errp);
    if (bdrv_getlength(bs) != before) {
        bdrv_parents_resized(bs);
    }
    bdrv_drained_end(bs);
    return ok;
}
