/*
 * Reopening: changing how an open image is accessed, all or nothing.
 *
 * Drained, in four steps, of which any but the last can be undone:
 *
 *   prepare   the node and the files below it (not its backing file), bottom
 *             up: what is to change, and the drivers' consent
 *   flags     of all of them, as they will be
 *   perms     recomputed with those flags, down to the locks on the host
 *   commit    drivers and limits, bottom up
 *
 * The files of a node follow in what changes; what their own options say wins.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error.h"
#include "block-internal.h"
#include "qemu/trace.h"

TRACE_EVENT(bdrv_reopen);

#define REOPEN_FLAGS (BDRV_O_RDWR | BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | \
                      BDRV_O_UNMAP | BDRV_O_AUTO_RDONLY)
/* Of these, what a file takes over from its parent. */
#define INHERITED_FLAGS (BDRV_O_RDWR | BDRV_O_NOCACHE | BDRV_O_NO_FLUSH)

typedef struct ReopenNode {
    BlockDriverState *bs;
    BdrvCommonOptions common;
    int old_flags;
    bool old_read_only;
    json_t *options;            /* of the driver, that it took */
    void *state;                /* the driver's */
} ReopenNode;

/* ---- Prepare ---- */

static bool is_unchanged(BlockDriverState *bs, const char *key,
                         const json_t *value)
{
    const char *string = json_string_value(value);

    if (g_str_equal(key, "node-name")) {
        return string && g_str_equal(string, bs->node_name);
    }
    return json_equal(json_object_get(bs->options, key), value);
}

/* Whether the host has locks for it is decided when an image is opened. */
static bool keeps_sharing(const BlockDriverState *bs, const json_t *options,
                          Error **errp)
{
    bool before = bs->open_flags & BDRV_O_FORCE_SHARE, after = before;
    json_t *value = json_object_get(options, "force-share");
    g_autoptr(json_t) copy = json_object();

    if (!value) {
        return true;
    }
    json_object_set(copy, "force-share", value);
    if (!opt_take_bool(copy, "force-share", &after, errp)) {
        return false;
    }
    if (after != before) {
        error_setg(errp, "Cannot change the option 'force-share'");
        return false;
    }
    return true;
}

/* What the driver did not take must be as it was. */
static bool check_leftovers(BlockDriverState *bs, json_t *options,
                            Error **errp)
{
    const char *key;
    json_t *value;

    json_object_foreach(options, key, value) {
        if (!is_unchanged(bs, key, value)) {
            error_setg(errp, "Cannot change the option '%s'", key);
            return false;
        }
    }
    return true;
}

static void abort_node(ReopenNode *node)
{
    BlockDriver *drv = node->bs->drv;

    if (drv->reopen_abort) {
        drv->reopen_abort(node->bs, node->state);
    }
}

static bool prepare_node(ReopenNode *node, json_t *options, Error **errp)
{
    BlockDriverState *bs = node->bs;

    node->options = json_deep_copy(options);
    if (bs->drv->reopen_prepare &&
        !bs->drv->reopen_prepare(bs, options, node->common.flags,
                                 &node->state, errp)) {
        return false;
    }
    if (!check_leftovers(bs, options, errp)) {
        abort_node(node);
        return false;
    }
    return true;
}

static bool prepare(GArray *nodes, BlockDriverState *bs, json_t *options,
                    int flags, Error **errp);

static bool prepare_child(GArray *nodes, BdrvChild *c, int parent_flags,
                          json_t *options, Error **errp)
{
    BlockDriverState *bs = c->bs, *parent = c->parent_bs;
    int changed = (parent_flags ^ parent->open_flags) & INHERITED_FLAGS;
    json_t *own = opt_take_object(options, c == parent->file ? "file" :
                                  c->name);
    bool ok;

    own = own ? own : json_object();
    ok = prepare(nodes, bs, own, (bs->open_flags & ~changed) |
                 (parent_flags & changed), errp);
    json_decref(own);
    return ok;
}

/* All that an image consists of; what it is on top of stays as it is. */
static bool prepare_children(GArray *nodes, BlockDriverState *bs, int flags,
                             json_t *options, Error **errp)
{
    BdrvChild *c;

    list_for_each(c, &bs->children, child_node) {
        if (!(c->role & BDRV_CHILD_COW) &&
            !prepare_child(nodes, c, flags, options, errp)) {
            return false;
        }
    }
    return true;
}

static bool prepare(GArray *nodes, BlockDriverState *bs, json_t *options,
                    int flags, Error **errp)
{
    ReopenNode node = { .bs = bs,
                        .old_flags = bs->open_flags,
                        .old_read_only = bs->read_only,
                        .common = { .flags = flags,
                                    .detect_zeroes = bs->detect_zeroes,
                                    .detect_zeroes_unmap =
                                        bs->detect_zeroes_unmap } };

    if (!keeps_sharing(bs, options, errp) ||
        !bdrv_take_common_options(options, &node.common, errp)) {
        return false;
    }
    if ((node.common.flags ^ bs->open_flags) & BDRV_O_INACTIVE) {
        error_setg(errp, "Cannot change the option 'active'");
        return false;
    }
    if (!prepare_children(nodes, bs, node.common.flags, options, errp)) {
        return false;
    }
    if (!prepare_node(&node, options, errp)) {
        json_decref(node.options);
        return false;
    }
    g_array_append_val(nodes, node);
    return true;
}

/* ---- Flags and permissions ---- */

static void set_flags(GArray *nodes)
{
    guint i;

    for (i = 0; i < nodes->len; i++) {
        ReopenNode *node = &g_array_index(nodes, ReopenNode, i);
        BlockDriverState *bs = node->bs;

        bs->open_flags = (bs->open_flags & ~REOPEN_FLAGS) |
                         (node->common.flags & REOPEN_FLAGS);
        bs->read_only = !(bs->open_flags & BDRV_O_RDWR);
    }
}

static void undo(GArray *nodes)
{
    guint i;

    for (i = nodes->len; i-- > 0; ) {
        ReopenNode *node = &g_array_index(nodes, ReopenNode, i);

        node->bs->open_flags = node->old_flags;
        node->bs->read_only = node->old_read_only;
        abort_node(node);
    }
}

/* ---- Commit ---- */

static void commit_node(ReopenNode *node)
{
    BlockDriverState *bs = node->bs;

    if (bs->drv->reopen_commit) {
        bs->drv->reopen_commit(bs, node->state);
    }
    bs->detect_zeroes = node->common.detect_zeroes;
    bs->detect_zeroes_unmap = node->common.detect_zeroes_unmap;
    json_object_update(bs->options, node->options);
    bdrv_refresh_limits(bs);
}

/* What the parents need must not be lost. */
static bool parents_allow(BlockDriverState *bs, json_t *options, Error **errp)
{
    BdrvCommonOptions common = { .flags = bs->open_flags };
    json_t *copy = json_deep_copy(options);
    bool ok = keeps_sharing(bs, options, errp) &&
              bdrv_take_common_options(copy, &common, errp);
    BdrvChild *c;

    json_decref(copy);
    if (!ok || (common.flags & BDRV_O_RDWR)) {
        return ok;
    }
    if (bs->copy_on_read) {
        error_setg(errp, "Can't set node '%s' to r/o with copy-on-read "
                   "enabled", bs->node_name);
        return false;
    }
    list_for_each(c, &bs->parents, parent_node) {
        if (c->perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) {
            error_setg(errp, "Read-only block node '%s' cannot support "
                       "read-write users", bs->node_name);
            return false;
        }
    }
    return true;
}

static bool flush_before(BlockDriverState *bs, Error **errp)
{
    int ret = bs->read_only ? 0 : bdrv_flush(bs);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Error flushing drive");
    }
    return ret == 0;
}

static bool reopen_drained(BlockDriverState *bs, json_t *options, Error **errp)
{
    GArray *nodes;
    bool ok;
    guint i;

    if (!parents_allow(bs, options, errp) || !flush_before(bs, errp)) {
        return false;
    }
    nodes = g_array_new(FALSE, FALSE, sizeof(ReopenNode));
    ok = prepare(nodes, bs, options, bs->open_flags, errp);
    if (ok) {
        set_flags(nodes);
        ok = bdrv_refresh_perms(bs, errp);
    }
    if (!ok) {
        undo(nodes);
    }
    for (i = 0; i < nodes->len; i++) {
        ReopenNode *node = &g_array_index(nodes, ReopenNode, i);

        if (ok) {
            commit_node(node);
        }
        json_decref(node->options);
    }
    g_array_free(nodes, TRUE);
    return ok;
}

bool bdrv_reopen(BlockDriverState *bs, json_t *options, Error **errp)
{
    json_t *nested = bdrv_crumple_copy(options, errp);
    bool ok = false;

    json_decref(options);
    if (nested) {
        bdrv_drained_begin(bs);
        ok = reopen_drained(bs, nested, errp);
        bdrv_drained_end(bs);
    }
    json_decref(nested);
    trace(bdrv_reopen, "node '%s' flags %#x ok %d", bs->node_name,
          (unsigned)bs->open_flags, ok);
    return ok;
}
