/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two command lines.
 *
 * Each virtio disk becomes an export of the daemon and, in the place where its
 * device was, a chardev and a vhost-user-blk device.  The daemon gets the
 * objects that disks refer to, then nodes, then exports: the order in which
 * they need each other.
 *
 * A device finds the daemon by a socket that it connects to again when the
 * daemon had to be restarted.
 */
#include "translate.h"
#include "qemu/cutils.h"

static void plan_export_free(gpointer p)
{
    PlanExport *export = p;

    g_free(export->id);
    g_free(export->socket_path);
    json_decref(export->opts);
    g_free(export);
}

void plan_free(Plan *plan)
{
    if (plan) {
        g_ptr_array_unref(plan->daemon_args);
        g_ptr_array_unref(plan->exports);
        g_ptr_array_unref(plan->emulator_args);
        g_free(plan);
    }
}

static void add_arg(GPtrArray *args, const char *option, char *value)
{
    g_ptr_array_add(args, g_strdup(option));
    g_ptr_array_add(args, value);
}

char *plan_export_arg(const Plan *plan, int i, int fd, bool again)
{
    PlanExport *export = g_ptr_array_index(plan->exports, i);
    g_autoptr(json_t) opts = json_deep_copy(export->opts);
    g_autofree char *fd_text = g_strdup_printf("%d", fd);
    json_t *addr = json_object();

    if (fd >= 0) {
        opt_set_str(addr, "type", "fd");
        opt_set_str(addr, "str", fd_text);
    } else {
        opt_set_str(addr, "type", "unix");
        opt_set_str(addr, "path", export->socket_path);
    }
    json_object_set_new(opts, "addr", addr);
    if (again) {
        opt_set_str(opts, "writethrough", "on");
    }
    return keyval_format(opts, "type");
}

/* ---- Objects ---- */

/* Options of nodes and exports whose value is the id of an object. */
static bool is_object_key(const char *key)
{
    const char *last = strrchr(key, '.');

    key = last ? last + 1 : key;
    return g_str_has_suffix(key, "-secret") || !strcmp(key, "iothread") ||
           !strcmp(key, "tls-creds") || !strcmp(key, "pr-manager") ||
           !strcmp(key, "throttle-group");
}

static bool refers_to(const json_t *value, const char *id)
{
    const char *key;
    json_t *sub;
    size_t i;

    if (json_is_string(value)) {
        return !strcmp(json_string_value(value), id);
    }
    json_array_foreach((json_t *)value, i, sub) {
        if (refers_to(sub, id)) {
            return true;
        }
    }
    json_object_foreach((json_t *)value, key, sub) {
        if ((!json_is_string(sub) || is_object_key(key)) &&
            refers_to(sub, id)) {
            return true;
        }
    }
    return false;
}

static bool is_needed(const Drives *drives, const Plan *plan, const char *id)
{
    for (int i = 0; i < plan->exports->len; i++) {
        PlanExport *export = g_ptr_array_index(plan->exports, i);
        Disk *disk = g_ptr_array_index(drives->disks, i);

        if (refers_to(export->opts, id) ||
            (disk->drive && refers_to(disk->drive->opts, id))) {
            return true;
        }
    }
    for (int i = 0; i < drives->nodes->len; i++) {
        Node *node = g_ptr_array_index(drives->nodes, i);

        if (node->disk && refers_to(node->opts, id)) {
            return true;
        }
    }
    return false;
}

/* They also stay with the emulator, where others may use them. */
static void add_objects(Plan *plan, const CmdLine *cmd, const Drives *drives)
{
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (cmd_option_is(opt, "object") &&
            is_needed(drives, plan, opt_peek_str(opt->opts, "id") ?: "")) {
            add_arg(plan->daemon_args, "--object", g_strdup(opt->value));
        }
    }
}

/* ---- Nodes ---- */

static void add_nodes(Plan *plan, const Drives *drives)
{
    CmdOption *last = NULL;

    for (int i = 0; i < drives->nodes->len; i++) {
        Node *node = g_ptr_array_index(drives->nodes, i);

        if (node->disk && node->opt != last) {
            last = node->opt;
            add_arg(plan->daemon_args, "--blockdev", g_strdup(last->value));
        }
    }
}

/* The root node: whether it is read-only, and -drive's side of the export. */
static bool add_root(Plan *plan, const Drives *drives, const Disk *disk,
                     json_t *export_opts, GPtrArray *drive_args, Error **errp)
{
    g_auto(DriveFacts) facts = { 0 };

    if (!disk->drive) {
        for (int i = 0; i < drives->nodes->len; i++) {
            Node *node = g_ptr_array_index(drives->nodes, i);

            if (!strcmp(node->name, disk->node_name)) {
                facts.read_only = json_is_on(
                    json_object_get(node->opts, "read-only"), false);
            }
        }
    } else {
        if (!drive_to_blockdev(disk->drive->opts, disk->node_name, &facts,
                               errp)) {
            cmd_option_prepend(disk->drive, errp);
            return false;
        }
        add_arg(drive_args, facts.option, g_steal_pointer(&facts.blockdev));
        opt_default_str(export_opts, "serial", facts.serial);
        opt_default_str(export_opts, "writethrough",
                        facts.writethrough ? "on" : NULL);
    }
    opt_set_bool(export_opts, "writable", !facts.read_only);
    return true;
}

/* ---- Devices ---- */

static char *device_arg(const Disk *disk, const json_t *props)
{
    if (disk->device && disk->device->is_json) {
        return options_to_json(props);
    }
    return keyval_format(props, "driver");
}

static void add_device(Plan *plan, const Disk *disk, const PlanHost *host,
                       const PlanExport *export, json_t *props)
{
    g_autofree char *chardev = g_strdup_printf("threadblock-%u",
                                               plan->exports->len - 1);
    g_autoptr(json_t) socket = json_pack("{s:s, s:s, s:s}", "backend", "socket",
                                         "id", chardev,
                                         "path", export->socket_path);

    if (host->has_reconnect_ms) {
        opt_set_u64(socket, "reconnect-ms", 100);
    } else {
        opt_set_u64(socket, "reconnect", 1);
    }
    add_arg(plan->emulator_args, "-chardev", keyval_format(socket, "backend"));
    opt_set_str(props, "chardev", chardev);
    if (disk->device) {
        disk->device->removed = false;
        disk->device->new_value = device_arg(disk, props);
    } else {
        add_arg(plan->emulator_args, "-device", device_arg(disk, props));
    }
}

/* Two devices may stand on one node; their exports have different names. */
static char *unique_id(const Plan *plan, const char *id)
{
    for (int i = 0; i < plan->exports->len; i++) {
        PlanExport *other = g_ptr_array_index(plan->exports, i);

        if (!strcmp(other->id, id)) {
            return g_strdup_printf("%s-%u", id, plan->exports->len);
        }
    }
    return g_strdup(id);
}

static bool add_disk(Plan *plan, const CmdLine *cmd, const Drives *drives,
                     const Disk *disk, const PlanHost *host,
                     GPtrArray *drive_args, Error **errp)
{
    g_autoptr(json_t) props = json_deep_copy(disk->props);
    PlanExport *export = g_new0(PlanExport, 1);

    export->id = unique_id(plan, disk->id);
    export->socket_path = g_strdup_printf("%s/%u", host->socket_dir,
                                          plan->exports->len);
    export->opts = json_pack("{s:s, s:s, s:s}", "type", "vhost-user-blk",
                             "id", export->id, "node-name", disk->node_name);
    g_ptr_array_add(plan->exports, export);
    if (!device_to_export(cmd, props, export->opts, errp)) {
        if (disk->device) {
            cmd_option_prepend(disk->device, errp);
        }
        return false;
    }
    if (!add_root(plan, drives, disk, export->opts, drive_args, errp)) {
        return false;
    }
    if (cmdline_has(cmd, "incoming")) {
        /* Another host's until the machine runs here. */
        opt_set_bool(export->opts, "x-incoming", true);
    }
    add_device(plan, disk, host, export, props);
    return true;
}

/* ---- The rest of the command line ---- */

/* Options that would silently miss their target. */
static bool check_others(CmdLine *cmd, Error **errp)
{
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);
        const char *key;
        json_t *value;

        if (!g_strcmp0(opt->name, "snapshot")) {
            error_setg(errp, "-snapshot is not supported with virtio disks");
            return false;
        }
        if (!cmd_option_is(opt, "set")) {
            continue;
        }
        json_object_foreach(opt->opts, key, value) {
            if (strstart(key, "drive.", NULL) ||
                strstart(key, "device.", NULL)) {
                error_setg(errp, "Not supported with virtio disks; write the "
                           "value into the option itself");
                cmd_option_prepend(opt, errp);
                return false;
            }
        }
    }
    return true;
}

/* The emulator would warn that nothing uses them. */
static void remove_globals(CmdLine *cmd)
{
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);
        g_autofree char *driver = NULL;

        if (!cmd_option_is(opt, "global")) {
            continue;
        }
        driver = opt_take_str(opt->opts, "driver");
        if (!driver) {
            driver = g_strndup(opt->value, strcspn(opt->value, "."));
        }
        opt->removed = is_virtio_blk(driver, NULL);
    }
}

static void append_all(GPtrArray *to, GPtrArray *from)
{
    for (int i = 0; i < from->len; i++) {
        g_ptr_array_add(to, g_strdup(g_ptr_array_index(from, i)));
    }
}

static bool plan_disks(Plan *plan, CmdLine *cmd, const Drives *drives,
                       const PlanHost *host, Error **errp)
{
    g_autoptr(GPtrArray) drive_args = g_ptr_array_new_with_free_func(g_free);

    for (int i = 0; i < drives->disks->len; i++) {
        if (!add_disk(plan, cmd, drives, g_ptr_array_index(drives->disks, i),
                      host, drive_args, errp)) {
            return false;
        }
    }
    if (cmdline_has(cmd, "incoming")) {
        g_ptr_array_add(plan->daemon_args, g_strdup("--x-incoming"));
    }
    add_objects(plan, cmd, drives);
    add_nodes(plan, drives);
    append_all(plan->daemon_args, drive_args);
    return true;
}

Plan *plan_new(CmdLine *cmd, const PlanHost *host, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(Plan) plan = g_new0(Plan, 1);
    g_autoptr(Drives) drives = drives_new(cmd, errp);
    g_autoptr(GPtrArray) added = NULL;

    plan->daemon_args = g_ptr_array_new_with_free_func(g_free);
    plan->exports = g_ptr_array_new_with_free_func(plan_export_free);
    plan->emulator_args = g_ptr_array_new_with_free_func(g_free);
    if (!drives) {
        return NULL;
    }
    if (!drives->disks->len) {
        return g_steal_pointer(&plan);
    }
    if (!check_others(cmd, errp) ||
        !plan_disks(plan, cmd, drives, host, errp) ||
        !memory_make_shared(cmd, plan->emulator_args, errp)) {
        return NULL;
    }
    remove_globals(cmd);
    plan->daemonize = cmdline_has(cmd, "daemonize");
    added = g_steal_pointer(&plan->emulator_args);
    plan->emulator_args = g_ptr_array_new_with_free_func(g_free);
    cmdline_append_args(cmd, plan->emulator_args);
    append_all(plan->emulator_args, added);
    return g_steal_pointer(&plan);
}
