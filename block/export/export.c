/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Exports: what all kinds have in common.
 *
 * An export holds a BlockBackend on the node that it serves, and the IOThreads
 * that serve it: those it was given by name, or one of its own.  Everything
 * here runs on the control thread; serving is the affair of the drivers.
 */
#include "qemu/osdep.h"
#include "block/export.h"
#include "qemu/options.h"
#include "qemu/trace.h"

TRACE_EVENT(block_export_add);
TRACE_EVENT(block_export_del);

struct BlockExportList {
    BlockGraph *graph;              /* constant, as the next two */
    BlockExportFindIOThread *find;
    void *find_opaque;
    List exports;                   /* of BlockExport.node */
};

BlockExportList *block_export_list_new(BlockGraph *graph,
                                       BlockExportFindIOThread *find,
                                       void *opaque)
{
    BlockExportList *list = g_new0(BlockExportList, 1);

    list->graph = graph;
    list->find = find;
    list->find_opaque = opaque;
    list_init(&list->exports);
    return list;
}

void block_export_list_free(BlockExportList *list)
{
    BlockExport *exp;

    if (!list) {
        return;
    }
    while ((exp = list_first(&list->exports, BlockExport, node))) {
        block_export_del(exp);
    }
    g_free(list);
}

BlockExport *block_export_find(BlockExportList *list, const char *id)
{
    BlockExport *exp;

    list_for_each(exp, &list->exports, node) {
        if (!strcmp(exp->id, id)) {
            return exp;
        }
    }
    return NULL;
}

/* ---- Options ---- */

/* A letter, and then letters, digits and "-._". */
static bool id_is_well_formed(const char *id)
{
    if (!g_ascii_isalpha(id[0])) {
        return false;
    }
    for (; *id; id++) {
        if (!g_ascii_isalnum(*id) && !strchr("-._", *id)) {
            return false;
        }
    }
    return true;
}

static const BlockExportDriver *find_driver(const char *type, Error **errp)
{
    for (int i = 0; block_export_drivers[i]; i++) {
        if (!strcmp(block_export_drivers[i]->type, type)) {
            return block_export_drivers[i];
        }
    }
    error_setg(errp, "Parameter 'type' does not accept value '%s'", type);
    return NULL;
}

static bool take_names(BlockExport *exp, json_t *options, Error **errp)
{
    exp->id = opt_take_str_required(options, "id", errp);
    if (!exp->id) {
        return false;
    }
    if (!id_is_well_formed(exp->id)) {
        error_setg(errp, "Invalid block export id");
        return false;
    }
    if (block_export_find(exp->list, exp->id)) {
        error_setg(errp, "Block export id '%s' is already in use", exp->id);
        return false;
    }
    exp->node_name = opt_take_str_required(options, "node-name", errp);
    return exp->node_name &&
           opt_take_bool(options, "writable", &exp->writable, errp) &&
           opt_take_bool(options, "writethrough", &exp->writethrough, errp) &&
           opt_take_bool(options, "x-share-rw", &exp->share_rw, errp) &&
           opt_take_bool(options, "x-incoming", &exp->incoming, errp);
}

uint64_t block_export_perm(const BlockExport *exp)
{
    return BLK_PERM_CONSISTENT_READ | (exp->writable ? BLK_PERM_WRITE : 0);
}

uint64_t block_export_shared_perm(const BlockExport *exp)
{
    return exp->share_rw ? BLK_PERM_ALL : BLK_PERM_ALL & ~BLK_PERM_WRITE;
}

static bool open_backend(BlockExport *exp, Error **errp)
{
    BlockGraph *graph = exp->list->graph;
    BlockDriverState *bs = bdrv_find_node(graph, exp->node_name);

    if (!bs) {
        error_setg(errp, "Cannot find device='' nor node-name='%s'",
                   exp->node_name);
        return false;
    }
    if (exp->writable && bdrv_is_read_only(bs)) {
        error_setg(errp, "Cannot export read-only node as writable");
        return false;
    }
    if (exp->incoming && !bdrv_can_hand_over(bs, errp)) {
        return false;
    }
    exp->blk = blk_new(graph, exp->incoming ? 0 : block_export_perm(exp),
                       exp->incoming ? BLK_PERM_ALL :
                                       block_export_shared_perm(exp));
    blk_set_name(exp->blk, exp->id);
    blk_set_enable_write_cache(exp->blk, !exp->writethrough);
    return blk_insert_bs(exp->blk, bs, errp) &&
           (exp->incoming ? bdrv_inactivate(bs, errp) :
                            bdrv_activate(bs, errp));
}

/* ---- IOThreads ---- */

static bool add_named_iothread(BlockExport *exp, const char *name,
                               Error **errp)
{
    BlockExportList *list = exp->list;
    IOThread *iothread = NULL;

    if (list->find) {
        iothread = list->find(list->find_opaque, name);
    }
    if (!iothread) {
        error_setg(errp, "iothread \"%s\" not found", name);
        return false;
    }
    exp->iothreads = g_renew(IOThread *, exp->iothreads,
                             exp->n_iothreads + 1);
    exp->iothreads[exp->n_iothreads++] = iothread;
    return true;
}

static bool add_own_iothread(BlockExport *exp, Error **errp)
{
    IOThread *iothread = iothread_new(exp->id, errp);

    if (!iothread) {
        return false;
    }
    exp->iothreads = g_new(IOThread *, 1);
    exp->iothreads[0] = iothread;
    exp->n_iothreads = 1;
    exp->own_iothread = true;
    return true;
}

static bool add_iothread_list(BlockExport *exp, const json_t *names,
                              Error **errp)
{
    size_t i;
    json_t *name;

    json_array_foreach(names, i, name) {
        if (!json_is_string(name)) {
            error_setg(errp, "Parameter 'iothread' expects a name, or a list "
                       "of names");
            return false;
        }
        if (!add_named_iothread(exp, json_string_value(name), errp)) {
            return false;
        }
    }
    return true;
}

static bool take_iothreads(BlockExport *exp, json_t *options, Error **errp)
{
    g_autoptr(json_t) names = opt_take_array(options, "iothread");
    g_autofree char *name = NULL;
    bool fixed = false;

    /* They stay the same in any case; the node has none of its own. */
    if (!opt_take_bool(options, "fixed-iothread", &fixed, errp)) {
        return false;
    }
    if (names && !add_iothread_list(exp, names, errp)) {
        return false;
    }
    name = opt_take_str(options, "iothread");
    if (name && !add_named_iothread(exp, name, errp)) {
        return false;
    }
    return exp->n_iothreads || add_own_iothread(exp, errp);
}

/* ---- Adding, deleting ---- */

static void block_export_free(BlockExport *exp)
{
    if (exp->blk) {
        blk_unref(exp->blk);
    }
    if (exp->own_iothread) {
        iothread_free(exp->iothreads[0]);
    }
    g_free(exp->iothreads);
    g_free(exp->node_name);
    g_free(exp->id);
    g_free(exp);
}

static bool block_export_start(BlockExport *exp, json_t *options,
                               Error **errp)
{
    const char *unused;

    if (!take_names(exp, options, errp) || !open_backend(exp, errp) ||
        !take_iothreads(exp, options, errp) ||
        !exp->drv->create(exp, options, errp)) {
        return false;
    }
    unused = opt_first_unused(options);
    if (unused) {
        error_setg(errp, "Parameter '%s' is unexpected", unused);
        exp->drv->delete(exp);
        return false;
    }
    return true;
}

BlockExport *block_export_add(BlockExportList *list, json_t *options_,
                              Error **errp)
{
    g_autoptr(json_t) options = options_;
    g_autofree char *type = opt_take_str_required(options, "type", errp);
    const BlockExportDriver *drv = type ? find_driver(type, errp) : NULL;
    BlockExport *exp;

    if (!drv) {
        return NULL;
    }
    exp = g_malloc0(drv->instance_size);
    exp->drv = drv;
    exp->list = list;
    exp->share_rw = true;
    if (!block_export_start(exp, options, errp)) {
        block_export_free(exp);
        return NULL;
    }
    list_push_back(&list->exports, &exp->node);
    trace(block_export_add, "export '%s' node '%s' writable %d incoming %d",
          exp->id, exp->node_name, exp->writable, exp->incoming);
    return exp;
}

void block_export_del(BlockExport *exp)
{
    trace(block_export_del, "export '%s'", exp->id);
    list_remove(&exp->node);
    exp->drv->delete(exp);
    block_export_free(exp);
}

json_t *block_export_query_all(BlockExportList *list)
{
    json_t *all = json_array();
    BlockExport *exp;

    list_for_each(exp, &list->exports, node) {
        json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:b, s:o}",
                                             "id", exp->id,
                                             "type", exp->drv->type,
                                             "node-name", exp->node_name,
                                             "shutting-down", 0,
                                             "stats", exp->drv->query(exp)));
    }
    return all;
}
