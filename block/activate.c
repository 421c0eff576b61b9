/*
 * Handing an image over between two processes: live migration.
 *
 * A node may be inactive (BDRV_O_INACTIVE): another process writes to the image
 * meanwhile, or may.  It is open, but it writes nothing, what it knows of the
 * image may be wrong, and it needs no permissions on its children, so there are
 * no locks on the host.
 *
 * To become active, a node and what is below it take permissions, which fails
 * while the other process has them, and only then forget what they know of the
 * image: cached data, the length, metadata.  To become inactive, they write
 * all that is only in memory, and then give the permissions up.  A driver that
 * can do neither does not say that it supports this, and is refused.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"
#include "block/dirty-bitmap.h"
#include "qemu/error.h"

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

static bool is_inactive(const BlockDriverState *bs)
{
    return bs->open_flags & BDRV_O_INACTIVE;
}

/* What the image keeps is read again when it becomes ours. */
static void forget_persistent_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *b = bdrv_dirty_bitmap_next(bs, NULL);

    while (b) {
        BdrvDirtyBitmap *next = bdrv_dirty_bitmap_next(bs, b);

        if (bdrv_dirty_bitmap_get_persistence(b)) {
            bdrv_release_dirty_bitmap(b);
        }
        b = next;
    }
}

/* ---- Activate ---- */

/* Mark all inactive nodes active; they come to be in @nodes, children first. */
static void take_inactive(BlockDriverState *bs, GPtrArray *nodes)
{
    BdrvChild *c;

    list_for_each(c, &bs->children, child_node) {
        take_inactive(c->bs, nodes);
    }
    if (is_inactive(bs)) {
        bs->open_flags &= ~BDRV_O_INACTIVE;
        g_ptr_array_add(nodes, bs);
    }
}

/* The first @done of @nodes have been activated: put everything back. */
static void give_back(BlockDriverState *bs, GPtrArray *nodes, guint done)
{
    Error *err = NULL;

    for (guint i = nodes->len; i-- > 0; ) {
        BlockDriverState *node = nodes->pdata[i];

        if (i < done && node->drv->inactivate &&
            !node->drv->inactivate(node, &err)) {
            warn_report_err(g_steal_pointer(&err));
        }
        forget_persistent_bitmaps(node);
        node->open_flags |= BDRV_O_INACTIVE;
    }
    if (!bdrv_refresh_perms(bs, &err)) {
        warn_report_err(err);
    }
}

static bool activate_node(BlockDriverState *bs, Error **errp)
{
    bool ok;

    /* As in its open, the driver is asked for the length, which may be
     * another one than before. */
    bs->is_open = false;
    ok = !bs->drv->activate || bs->drv->activate(bs, errp);
    bs->is_open = true;
    bdrv_refresh_total_bytes(bs);
    return ok;
}

static bool activate_nodes(BlockDriverState *bs, GPtrArray *nodes,
                           Error **errp)
{
    guint done = 0;
    bool ok = bdrv_refresh_perms(bs, errp);

    while (ok && done < nodes->len) {
        ok = activate_node(nodes->pdata[done], errp);
        if (ok) {
            done++;
        }
    }
    if (!ok) {
        give_back(bs, nodes, done);
    }
    return ok;
}

bool bdrv_activate(BlockDriverState *bs, Error **errp)
{
    GPtrArray *nodes = g_ptr_array_new();
    int64_t before;
    bool ok;

    bdrv_drained_begin(bs);
    before = bdrv_getlength(bs);
    take_inactive(bs, nodes);
    ok = nodes->len == 0 || activate_nodes(bs, nodes, errp);
    if (bdrv_getlength(bs) != before) {
        bdrv_parents_resized(bs);
    }
    bdrv_drained_end(bs);
    g_ptr_array_free(nodes, TRUE);
    return ok;
}

/* ---- Inactivate ---- */

static bool is_in_use(const BlockDriverState *bs)
{
    BdrvChild *c;

    list_for_each(c, &bs->parents, parent_node) {
        if (c->perm) {
            return true;
        }
    }
    return false;
}

/*
 * False: the node goes on as it was; or it is inactive, but not all that was
 * written is known to be durable.  Bitmaps stay until it cannot go on.
 */
static bool write_all(BlockDriverState *bs, Error **errp)
{
    int ret;

    if (!bdrv_store_dirty_bitmaps(bs, false, errp) ||
        (bs->drv->inactivate && !bs->drv->inactivate(bs, errp))) {
        return false;
    }
    ret = bs->read_only ? 0 : bdrv_flush(bs);
    bs->open_flags |= BDRV_O_INACTIVE;
    forget_persistent_bitmaps(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush node '%s'",
                         bs->node_name);
    }
    return ret == 0;
}

/* Parents first: what they write goes through their children. */
static bool inactivate_below(BlockDriverState *bs, Error **errp)
{
    BdrvChild *c;

    if (is_inactive(bs) || is_in_use(bs)) {
        return true;
    }
    if (!write_all(bs, errp) || !bdrv_refresh_perms(bs, errp)) {
        return false;
    }
    list_for_each(c, &bs->children, child_node) {
        if (!inactivate_below(c->bs, errp)) {
            return false;
        }
    }
    return true;
}

bool bdrv_inactivate(BlockDriverState *bs, Error **errp)
{
    bool ok;

    if (!bdrv_can_hand_over(bs, errp)) {
        return false;
    }
    bdrv_drained_begin(bs);
    ok = inactivate_below(bs, errp);
    bdrv_drained_end(bs);
    return ok;
}
