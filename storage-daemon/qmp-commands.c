/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands of the daemon's monitor.
 */
#include "qemu/osdep.h"
#include "daemon.h"
#include "qemu/options.h"
#include "qmp.h"

#define NAMES(...) ((const char *const[]){ __VA_ARGS__ __VA_OPT__(,) NULL })

static json_t *empty_if(bool ok)
{
    return ok ? json_object() : NULL;
}

/* ---- Nodes ---- */

static json_t *blockdev_add(void *opaque, json_t *args, Error **errp)
{
    return empty_if(daemon_blockdev_add(opaque, json_deep_copy(args), errp));
}

static json_t *blockdev_del(void *opaque, json_t *args, Error **errp)
{
    g_autofree char *name = opt_take_str(args, "node-name");

    if (!name) {
        error_setg(errp, "Invalid parameter type for 'node-name', expected: "
                   "string");
        return NULL;
    }
    return empty_if(daemon_blockdev_del(opaque, name, errp));
}

/* ---- Jobs ---- */

static json_t *blockdev_create(void *opaque, json_t *args, Error **errp)
{
    const char *id = json_string_value(json_object_get(args, "job-id"));
    json_t *options = json_object_get(args, "options");

    if (!id || !json_is_object(options)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: %s",
                   id ? "options" : "job-id", id ? "object" : "string");
        return NULL;
    }
    return empty_if(daemon_create_job(opaque, id, options, errp));
}

static json_t *query_jobs(void *opaque, json_t *args, Error **errp)
{
    return daemon_query_jobs(opaque);
}

static json_t *job_dismiss(void *opaque, json_t *args, Error **errp)
{
    const char *id = json_string_value(json_object_get(args, "id"));

    if (!id) {
        error_setg(errp, "Invalid parameter type for 'id', expected: string");
        return NULL;
    }
    return empty_if(daemon_dismiss_job(opaque, id, errp));
}

/* ---- Exports and objects ---- */

static json_t *export_add(void *opaque, json_t *args, Error **errp)
{
    Daemon *d = opaque;

    return empty_if(block_export_add(d->exports, json_deep_copy(args), errp));
}

static json_t *query_exports(void *opaque, json_t *args, Error **errp)
{
    Daemon *d = opaque;

    return block_export_query_all(d->exports);
}

static json_t *object_add(void *opaque, json_t *args, Error **errp)
{
    return empty_if(daemon_object_add(json_deep_copy(args), errp));
}

/* ---- The daemon ---- */

static json_t *quit(void *opaque, json_t *args, Error **errp)
{
    Daemon *d = opaque;

    d->stop = true;
    return json_object();
}

const QmpCommand daemon_qmp_commands[] = {
    { "block-export-add", NULL, export_add },
    { "blockdev-add", NULL, blockdev_add },
    { "blockdev-create", NAMES("!job-id", "!options"), blockdev_create },
    { "blockdev-del", NAMES("!node-name"), blockdev_del },
    { "job-dismiss", NAMES("!id"), job_dismiss },
    { "object-add", NULL, object_add },
    { "query-block-exports", NAMES(), query_exports },
    { "query-jobs", NAMES(), query_jobs },
    { "quit", NAMES(), quit },
    { NULL }
};
