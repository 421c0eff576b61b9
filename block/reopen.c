/*
 * Reopening: changing how an open image is accessed, all or nothing.
 *
 * The node and the chain of "file" children below it are asked to prepare, from
 * the bottom up; if all agree, all commit.  Requests are drained meanwhile.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error.h"
#include "block-internal.h"

#define REOPEN_FLAGS (BDRV_O_RDWR | BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | \
                      BDRV_O_UNMAP | BDRV_O_AUTO_RDONLY | BDRV_O_FORCE_SHARE)

typedef struct ReopenNode {
    BlockDriverState *bs;
    BdrvCommonOptions common;
    void *state;
} ReopenNode;

static bool prepare_node(ReopenNode *node, json_t *options, Error **errp)
{
    BlockDriverState *bs = node->bs;
    const char *left;

    if (bs->drv->reopen_prepare) {
        if (!bs->drv->reopen_prepare(bs, options, node->common.flags,
                                     &node->state, errp)) {
            return false;
        }
    }
    left = opt_first_unused(options);
    if (left) {
        error_setg(errp, "Cannot change the option '%s'", left);
        if (bs->drv->reopen_abort) {
            bs->drv->reopen_abort(bs, node->state);
        }
    }
    return !left;
}

/* @options are those of node->bs; its file follows what is common to both. */
static bool prepare(GArray *nodes, BlockDriverState *bs, json_t *options,
                    int flags, Error **errp)
{
    ReopenNode node = { .bs = bs,
                        .common = { .flags = flags,
                                    .detect_zeroes = bs->detect_zeroes,
                                    .detect_zeroes_unmap =
                                        bs->detect_zeroes_unmap } };
    json_t *file_options;
    bool ok;

    if (!bdrv_take_common_options(options, &node.common, errp)) {
        return false;
    }
    file_options = opt_take_object(options, "file");
    if (bs->file) {
        const int own = BDRV_O_UNMAP | BDRV_O_AUTO_RDONLY | BDRV_O_PROTOCOL;
        int below = (node.common.flags & ~own) |
                    (bs->file->bs->open_flags & own);

        file_options = file_options ? file_options : json_object();
        ok = prepare(nodes, bs->file->bs, file_options, below, errp);
        json_decref(file_options);
        if (!ok) {
            return false;
        }
    }
    if (!prepare_node(&node, options, errp)) {
        return false;
    }
    g_array_append_val(nodes, node);
    return true;
}

static void commit_node(ReopenNode *node)
{
    BlockDriverState *bs = node->bs;

    if (bs->drv->reopen_commit) {
        bs->drv->reopen_commit(bs, node->state);
    }
    bs->open_flags = (bs->open_flags & ~REOPEN_FLAGS) |
                     (node->common.flags & REOPEN_FLAGS);
    bs->read_only = !(bs->open_flags & BDRV_O_RDWR);
    bs->detect_zeroes = node->common.detect_zeroes;
    bs->detect_zeroes_unmap = node->common.detect_zeroes_unmap;
    bdrv_refresh_limits(bs);
}

static bool prepare_all(GArray *nodes, BlockDriverState *bs, json_t *options,
                        Error **errp)
{
    guint i;

    if (prepare(nodes, bs, options, bs->open_flags, errp)) {
        return true;
    }
    for (i = nodes->len; i-- > 0; ) {
        ReopenNode *node = &g_array_index(nodes, ReopenNode, i);

        if (node->bs->drv->reopen_abort) {
            node->bs->drv->reopen_abort(node->bs, node->state);
        }
    }
    return false;
}

/* What the parents need must not be lost. */
static bool parents_allow(BlockDriverState *bs, json_t *options, Error **errp)
{
    BdrvCommonOptions common = { .flags = bs->open_flags };
    json_t *copy = json_deep_copy(options);
    bool ok = bdrv_take_common_options(copy, &common, errp);
    BdrvChild *c;

    json_decref(copy);
    if (!ok || (common.flags & BDRV_O_RDWR)) {
        return ok;
    }
    list_for_each(c, &bs->parents, parent_node) {
        if (c->perm & BLK_PERM_WRITE) {
            error_setg(errp, "Cannot make block node read-only, there is a "
                       "writer on it");
            return false;
        }
    }
    return true;
}

bool bdrv_reopen(BlockDriverState *bs, json_t *options, Error **errp)
{
    GArray *nodes = g_array_new(FALSE, FALSE, sizeof(ReopenNode));
    json_t *nested = options_crumple(options, errp);
    bool ok = false;
    guint i;

    json_decref(options);
    bdrv_drained_begin(bs);
    if (nested && parents_allow(bs, nested, errp) &&
        (bs->read_only || bdrv_flush(bs) == 0)) {
        ok = prepare_all(nodes, bs, nested, errp);
    }
    if (ok) {
        for (i = 0; i < nodes->len; i++) {
            commit_node(&g_array_index(nodes, ReopenNode, i));
        }
        bdrv_refresh_perms(bs, NULL);
    }
    bdrv_drained_end(bs);
    json_decref(nested);
    g_array_free(nodes, TRUE);
    return ok;
}
