/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A virtio-blk device's properties: to the vhost-user-blk device, to the
 * export, or refused.
 *
 * Three kinds.  Those of the transport and of the ring (addr, packed,
 * disable-legacy …) are the emulator's own and stay.  Those that describe the
 * disk (serial, block size, cache, threads) are the export's now.  The rest
 * belongs to the emulator's block layer, which is not used any more: such a
 * property may be given with its default value, and is refused otherwise.
 */
#include "translate.h"
#include "qemu/cutils.h"

/* As many as the daemon's exports have. */
#define MAX_QUEUES 256
#define DEFAULT_QUEUE_SIZE 256

/* Properties that vhost-user-blk lacks, and the values that change nothing. */
typedef struct NeutralProperty {
    const char *name;
    const char *neutral[3];
} NeutralProperty;

static const NeutralProperty neutral_props[] = {
    { "account-failed", { "auto" } },
    { "account-invalid", { "auto" } },
    { "backend_defaults", { "auto" } },
    { "cyls", { "0" } },
    { "discard_granularity", { "4294967295" } },
    { "heads", { "0" } },
    { "ioeventfd", { "on", "true" } },
    { "lcyls", { "0" } },
    { "lheads", { "0" } },
    { "lsecs", { "0" } },
    { "max-discard-sectors", { "4194303" } },
    { "max-write-zeroes-sectors", { "4194303" } },
    { "min_io_size", { "0" } },
    { "opt_io_size", { "0" } },
    { "physical_block_size", { "0" } },
    { "report-discard-granularity", { "on", "true" } },
    { "rerror", { "auto", "report" } },
    { "scsi", { "off", "false" } },
    { "secs", { "0" } },
    { "seg-max-adjust", { "on", "true" } },
    { "werror", { "auto", "report" } },
    { "x-enable-wce-if-config-wce", { "on", "true" } },
};

static bool check_neutral(json_t *props, Error **errp)
{
    for (size_t i = 0; i < ARRAY_SIZE(neutral_props); i++) {
        const NeutralProperty *p = &neutral_props[i];
        g_autofree char *value = opt_take_str(props, p->name);

        if (value && g_strcmp0(value, p->neutral[0]) &&
            g_strcmp0(value, p->neutral[1])) {
            error_setg(errp, "Property '%s=%s' is not supported for virtio "
                       "disks here", p->name, value);
            return false;
        }
    }
    return true;
}

/* -global's for virtio-blk devices, where the device does not say itself. */
static void apply_globals(const CmdLine *cmd, json_t *props)
{
    for (int i = 0; i < cmd->options->len; i++) {
        const CmdOption *opt = cmdline_option(cmd, i);
        const char *driver, *key;
        json_t *value;

        if (!cmd_option_is(opt, "global")) {
            continue;
        }
        driver = opt_peek_str(opt->opts, "driver");
        if (is_virtio_blk(driver, NULL)) {
            opt_default_str(props, opt_peek_str(opt->opts, "property") ?: "",
                            opt_peek_str(opt->opts, "value"));
            continue;
        }
        json_object_foreach(opt->opts, key, value) {
            g_auto(GStrv) parts = g_strsplit(key, ".", 2);

            if (parts[0] && parts[1] && is_virtio_blk(parts[0], NULL)) {
                opt_default_str(props, parts[1], json_string_value(value));
            }
        }
    }
}

/* ---- Queues and their threads ---- */

static bool take_queues(const CmdLine *cmd, json_t *props, json_t *export_opts,
                        Error **errp)
{
    uint64_t queues = UINT16_MAX, size = DEFAULT_QUEUE_SIZE;

    if (!opt_take_range(props, "num-queues", 1, UINT16_MAX, &queues, errp) ||
        !opt_take_range(props, "queue-size", 2, 1024, &size, errp)) {
        return false;
    }
    if (!is_power_of_2(size)) {
        error_setg(errp, "invalid queue-size property (%" PRIu64
                   "), must be a power of 2", size);
        return false;
    }
    if (queues == UINT16_MAX) {
        queues = MIN(cmdline_cpus(cmd), MAX_QUEUES);
    } else if (queues > MAX_QUEUES) {
        error_setg(errp, "invalid num-queues property (%" PRIu64
                   "), at most %d", queues, MAX_QUEUES);
        return false;
    }
    opt_set_u64(props, "num-queues", queues);
    opt_set_u64(props, "queue-size", size);
    opt_set_u64(export_opts, "num-queues", queues);
    opt_set_u64(export_opts, "queue-size", size);
    return true;
}

/* Put @name in the places of the list that "vqs" says. */
static bool map_queues(json_t *threads, const char *name, const json_t *vqs)
{
    size_t i;
    json_t *vq;

    json_array_foreach((json_t *)vqs, i, vq) {
        json_int_t n = json_integer_value(vq);

        if (!json_is_integer(vq) || n < 0 || n >= json_array_size(threads) ||
            !json_is_null(json_array_get(threads, n))) {
            return false;
        }
        json_array_set_new(threads, n, json_string(name));
    }
    return true;
}

/* iothread-vq-mapping: a list of one name a queue, or to be dealt round. */
static json_t *mapping_to_list(const json_t *mapping, uint64_t queues,
                               Error **errp)
{
    g_autoptr(json_t) dealt = json_array();
    g_autoptr(json_t) placed = json_array();
    size_t i;
    json_t *entry;

    for (i = 0; i < queues; i++) {
        json_array_append_new(placed, json_null());
    }
    json_array_foreach((json_t *)mapping, i, entry) {
        const char *name = opt_peek_str(entry, "iothread");
        json_t *vqs = json_object_get(entry, "vqs");

        if (!name || (vqs && !map_queues(placed, name, vqs))) {
            error_setg(errp, "Invalid iothread-vq-mapping");
            return NULL;
        }
        if (!vqs) {
            json_array_append_new(dealt, json_string(name));
        }
    }
    if (json_array_size(dealt) == json_array_size(mapping)) {
        return g_steal_pointer(&dealt);
    }
    json_array_foreach(placed, i, entry) {
        if (json_is_null(entry) || json_array_size(dealt)) {
            error_setg(errp, "iothread-vq-mapping must give each queue "
                       "a thread, or none of them");
            return NULL;
        }
    }
    return g_steal_pointer(&placed);
}

static bool take_iothreads(json_t *props, json_t *export_opts, Error **errp)
{
    g_autofree char *name = opt_take_str(props, "iothread");
    g_autoptr(json_t) mapping = opt_take_any(props, "iothread-vq-mapping");
    json_t *list;

    if (name && mapping) {
        error_setg(errp, "iothread and iothread-vq-mapping properties cannot "
                   "be set at the same time");
        return false;
    }
    if (name) {
        opt_set_str(export_opts, "iothread", name);
    }
    if (!mapping) {
        return true;
    }
    if (!json_is_array(mapping) || !json_array_size(mapping)) {
        error_setg(errp, "Invalid iothread-vq-mapping");
        return false;
    }
    list = mapping_to_list(mapping, json_integer_value(
                               json_object_get(export_opts, "num-queues")),
                           errp);
    if (!list) {
        return false;
    }
    json_object_set_new(export_opts, "iothread", list);
    return true;
}

/* ---- The disk ---- */

static bool take_disk(json_t *props, json_t *export_opts, Error **errp)
{
    g_autofree char *serial = opt_take_str(props, "serial");
    OnOffAuto write_cache = ON_OFF_AUTO_AUTO;
    uint64_t block_size = 0;
    bool share_rw = false, merging = true;

    if (!opt_take_on_off_auto(props, "write-cache", &write_cache, errp) ||
        !opt_take_size(props, "logical_block_size", &block_size, errp) ||
        !opt_take_bool(props, "share-rw", &share_rw, errp) ||
        !opt_take_bool(props, "request-merging", &merging, errp)) {
        return false;
    }
    if (!share_rw) {
        /* An export shares by default, a device does not. */
        opt_set_bool(export_opts, "x-share-rw", false);
    }
    if (!merging) {
        opt_set_bool(export_opts, "x-request-merging", false);
    }
    if (serial) {
        opt_set_str(export_opts, "serial", serial);
    }
    if (write_cache != ON_OFF_AUTO_AUTO) {
        opt_set_bool(export_opts, "writethrough",
                     write_cache == ON_OFF_AUTO_OFF);
    }
    if (block_size) {
        opt_set_u64(export_opts, "logical-block-size", block_size);
    }
    return true;
}

bool device_to_export(const CmdLine *cmd, json_t *props, json_t *export_opts,
                      Error **errp)
{
    g_autofree char *driver = opt_take_str(props, "driver");
    g_autofree char *vhost_driver = NULL;
    const char *suffix;

    json_object_del(props, "drive");
    apply_globals(cmd, props);
    if (!check_neutral(props, errp) || !take_disk(props, export_opts, errp) ||
        !take_queues(cmd, props, export_opts, errp) ||
        !take_iothreads(props, export_opts, errp)) {
        return false;
    }
    g_assert(is_virtio_blk(driver, &suffix));
    if (!*suffix) {
        suffix = "-pci";
    } else if (!strcmp(suffix, "-device")) {
        suffix = "";
    }
    vhost_driver = g_strdup_printf("vhost-user-blk%s", suffix);
    opt_set_str(props, "driver", vhost_driver);
    return true;
}
