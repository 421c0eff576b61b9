/*
 * The node graph: nodes, their names, and the edges between them.
 *
 * A node is made by opening an image (block/open.c) and lives as long as
 * somebody holds a reference: a parent (each edge holds one) or a user.  Only
 * the control thread changes the graph; it does so with everything that it
 * touches drained, so requests follow edges without a lock.  The graph mutex
 * guards the list of nodes and their names.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error.h"
#include "block/block-internal.h"
#include "block/dirty-bitmap.h"
#include "qemu/trace.h"

TRACE_EVENT(bdrv_close);

#define MAX_NODE_NAME 31

BlockGraph *block_graph_new(void)
{
    BlockGraph *graph = g_new0(BlockGraph, 1);

    bdrv_drivers_in_use();
    graph_init(&graph->lock);
    list_init(&graph->nodes);
    return graph;
}

void block_graph_free(BlockGraph *graph)
{
    graph_lock(&graph->lock);
    assert(list_is_empty(&graph->nodes));
    graph_unlock(&graph->lock);
    graph_destroy(&graph->lock);
    g_free(graph);
}

/* ---- Nodes ---- */

static BlockDriverState *find_node_locked(BlockGraph *graph, const char *name)
    REQUIRES(graph_class)
{
    BlockDriverState *bs;

    list_for_each(bs, &graph->nodes, graph_node) {
        if (g_str_equal(bs->node_name, name)) {
            return bs;
        }
    }
    return NULL;
}

BlockDriverState *bdrv_find_node(BlockGraph *graph, const char *node_name)
{
    BlockDriverState *bs;

    graph_lock(&graph->lock);
    bs = find_node_locked(graph, node_name);
    graph_unlock(&graph->lock);
    return bs;
}

BlockDriverState *bdrv_next_node(BlockGraph *graph, BlockDriverState *bs)
{
    BlockDriverState *next;

    graph_lock(&graph->lock);
    next = bs ? list_next(&graph->nodes, bs, graph_node) :
           list_first(&graph->nodes, BlockDriverState, graph_node);
    graph_unlock(&graph->lock);
    return next;
}

static bool name_node_locked(BlockGraph *graph, BlockDriverState *bs,
                             const char *node_name, Error **errp)
    REQUIRES(graph_class)
{
    if (!node_name) {
        bs->node_name = g_strdup_printf("#block%03" PRIu64,
                                        graph->next_auto_name++);
        return true;
    }
    if (!id_wellformed(node_name)) {
        error_setg(errp, "Invalid node-name: '%s'", node_name);
        return false;
    }
    if (strlen(node_name) > MAX_NODE_NAME) {
        error_setg(errp, "Node name too long");
        return false;
    }
    if (find_node_locked(graph, node_name)) {
        error_setg(errp, "Duplicate nodes with node-name='%s'", node_name);
        return false;
    }
    bs->node_name = g_strdup(node_name);
    return true;
}

BlockDriverState *bdrv_new_node(BlockGraph *graph, const char *node_name,
                                Error **errp)
{
    BlockDriverState *bs = g_new0(BlockDriverState, 1);
    bool ok;

    bs->graph = graph;
    bs->refcnt = 1;
    bs->bl.request_alignment = 1;
    bs->bl.cut_alignment = 1;
    list_init(&bs->children);
    list_init(&bs->parents);
    bdrv_tracked_init_node(bs);
    bdrv_dirty_bitmap_init_node(bs);

    graph_lock(&graph->lock);
    ok = name_node_locked(graph, bs, node_name, errp);
    if (ok) {
        list_push_back(&graph->nodes, &bs->graph_node);
    }
    graph_unlock(&graph->lock);
    if (!ok) {
        bdrv_dirty_bitmap_destroy_node(bs);
        bdrv_tracked_destroy_node(bs);
        g_free(bs);
        return NULL;
    }
    return bs;
}

/* While the node can still be written; bitmaps that are lost are reported. */
static void store_bitmaps(BlockDriverState *bs)
{
    Error *err = NULL;

    if (!bdrv_store_dirty_bitmaps(bs, true, &err)) {
        error_report_err(err);
    }
}

static void close_node(BlockDriverState *bs)
{
    BlockGraph *graph = bs->graph;
    BdrvChild *c;

    trace(bdrv_close, "node '%s'", bs->node_name);
    if (bs->is_open) {
        if (!bs->read_only && !(bs->open_flags & BDRV_O_INACTIVE)) {
            int ret;

            store_bitmaps(bs);
            ret = bdrv_flush(bs);

            if (ret < 0) {
                error_report("node '%s': flush on close failed: %s",
                             bs->node_name, strerror(-ret));
            }
        }
        if (bs->drv->close) {
            bs->drv->close(bs);
        }
    }
    while ((c = list_first(&bs->children, BdrvChild, child_node))) {
        bdrv_detach_child(c);
    }
    graph_lock(&graph->lock);
    list_remove(&bs->graph_node);
    graph_unlock(&graph->lock);
    bdrv_dirty_bitmap_destroy_node(bs);
    bdrv_tracked_destroy_node(bs);
    json_decref(bs->options);
    g_free(bs->opaque);
    g_free(bs->node_name);
    g_free(bs->filename);
    g_free(bs->backing_file);
    g_free(bs->backing_format);
    g_free(bs);
}

bool bdrv_has_parents(const BlockDriverState *bs)
{
    return !list_is_empty(&bs->parents);
}

void bdrv_ref(BlockDriverState *bs)
{
    bs->refcnt++;
}

void bdrv_unref(BlockDriverState *bs)
{
    if (bs && --bs->refcnt == 0) {
        assert(list_is_empty(&bs->parents));
        close_node(bs);
    }
}

/* ---- Edges ---- */

static void link_child(BdrvChild *c)
{
    list_push_back(&c->bs->parents, &c->parent_node);
    if (c->parent_bs) {
        list_push_back(&c->parent_bs->children, &c->child_node);
    }
}

BdrvChild *bdrv_attach_child(BlockDriverState *parent_bs,
                             BlockBackend *parent_blk, BlockDriverState *bs,
                             const char *name, int role, uint64_t perm,
                             uint64_t shared_perm, Error **errp)
{
    BdrvChild *c = g_new0(BdrvChild, 1);

    c->bs = bs;
    c->name = g_strdup(name);
    c->role = role;
    c->parent_bs = parent_bs;
    c->parent_blk = parent_blk;
    c->perm = perm;
    c->shared_perm = shared_perm;
    link_child(c);
    bdrv_drain_attach(c);
    if (!bdrv_refresh_perms(bs, errp)) {
        c->perm = 0;
        c->shared_perm = BLK_PERM_ALL;
        bdrv_detach_child(c);
        return NULL;
    }
    bdrv_update_alignment_tracking(bs);
    return c;
}

void bdrv_detach_child(BdrvChild *c)
{
    BlockDriverState *bs = c->bs;

    if (c->parent_bs) {
        BlockDriverState *parent = c->parent_bs;

        parent->file = parent->file == c ? NULL : parent->file;
        parent->backing = parent->backing == c ? NULL : parent->backing;
    }
    list_remove(&c->parent_node);
    list_remove(&c->child_node);
    /* Last: what was parked above may run as soon as this opens a gate. */
    bdrv_drain_detach(c);
    /* Fewer parents need less: that is never refused. */
    if (bs->is_open && bs->refcnt > 1) {
        bdrv_refresh_perms(bs, NULL);
        bdrv_update_alignment_tracking(bs);
    }
    g_free(c->name);
    g_free(c);
    bdrv_unref(bs);
}

void bdrv_parents_resized(BlockDriverState *bs)
{
    BdrvChild *c;

    list_for_each(c, &bs->parents, parent_node) {
        if (c->parent_blk) {
            const BlockDevOps *ops = c->parent_blk->dev_ops;

            if (ops && ops->resize_cb) {
                ops->resize_cb(c->parent_blk->dev_opaque);
            }
        } else {
            bdrv_parents_resized(c->parent_bs);
        }
    }
}

/* ---- Properties ---- */

const char *bdrv_get_node_name(const BlockDriverState *bs)
{
    return bs->node_name;
}

const char *bdrv_get_format_name(const BlockDriverState *bs)
{
    return bs->drv->format_name;
}

const char *bdrv_get_filename(const BlockDriverState *bs)
{
    return bs->filename ? bs->filename : "";
}

BlockGraph *bdrv_get_graph(const BlockDriverState *bs)
{
    return bs->graph;
}

bool bdrv_is_read_only(const BlockDriverState *bs)
{
    return bs->read_only;
}

BlockDriverState *bdrv_primary_bs(BlockDriverState *bs)
{
    return bs->file ? bs->file->bs : NULL;
}

BlockDriverState *bdrv_backing_bs(BlockDriverState *bs)
{
    return bs->backing ? bs->backing->bs : NULL;
}

BlockDriverState *bdrv_filter_or_cow_bs(BlockDriverState *bs)
{
    return bs->drv->is_filter ? bdrv_primary_bs(bs) : bdrv_backing_bs(bs);
}

int64_t bdrv_get_allocated_file_size(BlockDriverState *bs)
{
    int64_t sum = 0;
    BdrvChild *c;

    if (bs->drv->get_allocated_file_size) {
        return bs->drv->get_allocated_file_size(bs);
    }
    if (list_is_empty(&bs->children)) {
        return -ENOTSUP;
    }
    list_for_each(c, &bs->children, child_node) {
        if (c->role & (BDRV_CHILD_DATA | BDRV_CHILD_METADATA |
                       BDRV_CHILD_FILTERED)) {
            int64_t n = bdrv_get_allocated_file_size(c->bs);

            if (n < 0) {
                return n;
            }
            sum += n;
        }
    }
    return sum;
}

int bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    *info = (BlockDriverInfo){ 0 };
    if (bs->drv->get_info) {
        return bs->drv->get_info(bs, info);
    }
    return bs->drv->is_filter && bs->file ? bdrv_get_info(bs->file->bs, info) :
           -ENOTSUP;
}

bool bdrv_has_zero_init(BlockDriverState *bs)
{
    if (bs->backing) {
        return false;
    }
    if (bs->drv->has_zero_init) {
        return bs->drv->has_zero_init(bs);
    }
    return bs->drv->is_filter && bs->file && bdrv_has_zero_init(bs->file->bs);
}

json_t *bdrv_get_specific_info(BlockDriverState *bs, Error **errp)
{
    return bs->drv->get_specific_info ? bs->drv->get_specific_info(bs, errp) :
           NULL;
}

json_t *bdrv_get_options(BlockDriverState *bs)
{
    return json_incref(bs->options);
}

void bdrv_debug_event(BlockDriverState *bs, const char *event)
{
    if (unlikely(bs->drv->debug_event)) {
        bs->drv->debug_event(bs, event);
    }
}

/* ---- Advice ---- */

void bdrv_drop_behind(BlockDriverState *bs, int64_t keep)
{
    BdrvChild *c;

    if (bs->drv->drop_behind) {
        bs->drv->drop_behind(bs, keep);
    }
    list_for_each(c, &bs->children, child_node) {
        bdrv_drop_behind(c->bs, keep);
    }
}
