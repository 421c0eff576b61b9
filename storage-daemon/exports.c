/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --export, and the counters of exports.
 */
#include "qemu/osdep.h"
#include "daemon.h"
#include "qemu/options.h"

bool daemon_add_export(Daemon *d, const char *arg, Error **errp)
{
    bool help = false;
    json_t *opts = options_parse(arg, "type", &help, errp);

    if (!opts) {
        return false;
    }
    if (help) {
        error_setg(errp, "Help is not available for this option");
        json_decref(opts);
        return false;
    }
    return block_export_add(d->exports, opts, errp);
}

/* How the requests of one export went through. */
static json_t *export_counters(const BlockExport *exp)
{
    BlkPathStats stats;

    blk_get_path_stats(exp->blk, &stats);
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}",
                     "id", exp->id, "type", exp->drv->type,
                     "node-name", exp->node_name,
                     "fast", (json_int_t)stats.submitted,
                     "inline", (json_int_t)stats.inline_done,
                     "worker", (json_int_t)stats.worker,
                     "parked", (json_int_t)stats.parked,
                     "registered", (json_int_t)stats.registered);
}

json_t *daemon_counters(Daemon *d)
{
    g_autoptr(json_t) all = block_export_query_all(d->exports);
    json_t *list = json_array();
    size_t i;
    json_t *info;

    json_array_foreach(all, i, info) {
        BlockExport *exp = block_export_find(d->exports,
                                             opt_peek_str(info, "id"));

        if (exp) {
            json_array_append_new(list, export_counters(exp));
        }
    }
    return json_pack("{s:o}", "exports", list);
}

void daemon_write_counters(Daemon *d)
{
    const char *path = g_getenv("THREADBLOCK_STATS");
    g_autoptr(json_t) counters = NULL;

    if (!path || !*path) {
        return;
    }
    counters = daemon_counters(d);
    if (json_dump_file(counters, path, JSON_INDENT(2)) < 0) {
        error_report("Could not write counters to '%s': %s", path,
                     strerror(errno));
    }
}
