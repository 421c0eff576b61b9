/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --blockdev, and --x-drive for our launcher: the nodes of the graph.
 *
 * A node belongs to the command line, or to the monitor: it stays until
 * blockdev-del, or the end.
 */
#include "qemu/osdep.h"
#include "daemon.h"
#include "qemu/options.h"

static json_t *parse_node(const char *arg, const char *implied_key,
                          Error **errp)
{
    bool help = false;
    g_autoptr(json_t) opts = options_parse(arg, implied_key, &help, errp);

    if (help) {
        error_setg(opts ? errp : NULL,
                   "Help is not available for this option");
        return NULL;
    }
    return g_steal_pointer(&opts);
}

/* Uses @opts up. */
static bool open_node(Daemon *d, const char *filename, json_t *opts,
                      Error **errp)
{
    int flags = BDRV_O_RDWR | (d->incoming ? BDRV_O_INACTIVE : 0);
    BlockDriverState *bs;

    if (!opt_peek_str(opts, "node-name")) {
        error_setg(errp, "'node-name' must be specified for the root node");
        json_decref(opts);
        return false;
    }
    bs = bdrv_open(d->graph, filename, NULL, opts, flags, errp);
    if (!bs) {
        return false;
    }
    g_ptr_array_add(d->nodes, bs);
    return true;
}

/*
 * Every node that is described must say its driver, inline children too:
 * nothing is probed here.  @path: where @opts stands, with a dot, or "".
 */
static bool check_drivers(const json_t *opts, const char *path, Error **errp)
{
    static const char *const child_keys[] = {
        "backing", "data-file", "file", "image", "log", "raw", "target",
        "test", NULL
    };
    const char *driver = opt_peek_str(opts, "driver");
    const char *key;
    json_t *value;

    if (!driver) {
        error_setg(errp, "Parameter '%sdriver' is missing", path);
        return false;
    }
    if (!bdrv_find_format(driver)) {
        error_setg(errp, "Parameter 'driver' does not accept value '%s'",
                   driver);
        return false;
    }
    json_object_foreach((json_t *)opts, key, value) {
        g_autofree char *below = g_strdup_printf("%s%s.", path, key);

        if (json_is_object(value) && g_strv_contains(child_keys, key) &&
            !check_drivers(value, below, errp)) {
            return false;
        }
    }
    return true;
}

bool daemon_blockdev_add(Daemon *d, json_t *opts, Error **errp)
{
    if (!check_drivers(opts, "", errp)) {
        json_decref(opts);
        return false;
    }
    return open_node(d, NULL, opts, errp);
}

bool daemon_add_blockdev(Daemon *d, const char *arg, Error **errp)
{
    json_t *opts = parse_node(arg, "driver", errp);

    return opts && daemon_blockdev_add(d, opts, errp);
}

bool daemon_blockdev_del(Daemon *d, const char *node_name, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(d->graph, node_name);
    guint i;

    if (!bs) {
        error_setg(errp, "Failed to find node with node-name='%s'", node_name);
    } else if (!g_ptr_array_find(d->nodes, bs, &i)) {
        error_setg(errp, "Node %s is not owned by the monitor", node_name);
    } else if (bdrv_has_parents(bs)) {
        error_setg(errp, "Block device %s is in use", node_name);
    } else {
        g_ptr_array_remove_index(d->nodes, i);
        bdrv_unref(bs);
        return true;
    }
    return false;
}

bool daemon_add_drive(Daemon *d, const char *arg, Error **errp)
{
    g_autoptr(json_t) opts = parse_node(arg, NULL, errp);
    g_autofree char *filename = NULL;

    if (!opts) {
        return false;
    }
    filename = opt_take_str(opts, "filename");
    return open_node(d, filename, g_steal_pointer(&opts), errp);
}

void daemon_free_nodes(Daemon *d)
{
    for (int i = d->nodes->len - 1; i >= 0; i--) {
        bdrv_unref(g_ptr_array_index(d->nodes, i));
    }
    g_ptr_array_unref(d->nodes);
}
