/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disks of a command line.
 *
 * Two ways to say the same: "-drive if=virtio" makes its device itself;
 * "-device virtio-blk*,drive=X" names a -drive with if=none, or a node that
 * -blockdev defines.  Nodes refer to others by name, so what a disk stands on
 * is a graph.  All of a disk's graph moves to the daemon; a node in it that
 * somebody in the emulator uses, too, is an error, since two processes cannot
 * share a writable image.
 *
 * -drive and -device of other kinds are looked at only for what they refer to.
 */
#include "drives.h"
#include "qemu/cutils.h"

/* Drives may have longer names than nodes. */
#define MAX_NODE_NAME 31

bool is_virtio_blk(const char *driver, const char **suffix)
{
    const char *rest;

    if (!driver || !strstart(driver, "virtio-blk", &rest)) {
        return false;
    }
    if (suffix) {
        *suffix = rest;
    }
    return !*rest || !strcmp(rest, "-device") || !strcmp(rest, "-pci") ||
           !strcmp(rest, "-pci-transitional") ||
           !strcmp(rest, "-pci-non-transitional");
}

static void disk_free(gpointer p)
{
    Disk *disk = p;

    json_decref(disk->props);
    g_free(disk->node_name);
    g_free(disk->id);
    g_free(disk);
}

static void node_free(gpointer p)
{
    Node *node = p;

    json_decref(node->opts);
    g_free(node->name);
    g_free(node);
}

void drives_free(Drives *drives)
{
    if (drives) {
        g_ptr_array_unref(drives->disks);
        g_ptr_array_unref(drives->nodes);
        g_free(drives);
    }
}

/* ---- The node graph ---- */

static Node *find_node(const Drives *drives, const char *name)
{
    for (int i = 0; name && i < drives->nodes->len; i++) {
        Node *node = g_ptr_array_index(drives->nodes, i);

        if (!strcmp(node->name, name)) {
            return node;
        }
    }
    return NULL;
}

static void add_node(Drives *drives, CmdOption *opt, const char *name,
                     const json_t *opts)
{
    Node *node = g_new0(Node, 1);

    node->opt = opt;
    node->name = g_strdup(name);
    node->opts = json_incref((json_t *)opts);
    g_ptr_array_add(drives->nodes, node);
}

/* The node itself, and those that it defines inline and names. */
static void add_named_nodes(Drives *drives, CmdOption *opt, json_t *opts)
{
    const char *name = opt_peek_str(opts, "node-name");
    const char *key;
    json_t *value;

    if (name) {
        add_node(drives, opt, name, opts);
    }
    json_object_foreach(opts, key, value) {
        if (json_is_object(value)) {
            add_named_nodes(drives, opt, value);
        }
    }
}

typedef bool ReferenceFn(Node *node, void *opaque, Error **errp);

static bool for_each_reference(const Drives *drives, const json_t *value,
                               const char *key, ReferenceFn *fn, void *opaque,
                               Error **errp);

/* For all references in @opts, an object or a list, at any depth. */
static bool for_each_reference_in(const Drives *drives, const json_t *opts,
                                  ReferenceFn *fn, void *opaque, Error **errp)
{
    const char *key;
    json_t *value;
    size_t i;

    if (json_is_array(opts)) {
        json_array_foreach((json_t *)opts, i, value) {
            if (!for_each_reference(drives, value, NULL, fn, opaque, errp)) {
                return false;
            }
        }
        return true;
    }
    json_object_foreach((json_t *)opts, key, value) {
        if (!for_each_reference(drives, value, key, fn, opaque, errp)) {
            return false;
        }
    }
    return true;
}

/* Call @fn for the nodes that @value, a driver's option @key (NULL: an element
 * of a list), refers to by name. */
static bool for_each_reference(const Drives *drives, const json_t *value,
                               const char *key, ReferenceFn *fn, void *opaque,
                               Error **errp)
{
    static const char *const child_keys[] = {
        "backing", "bottom", "data-file", "file", "image", "log", "raw",
        "target", "test", NULL
    };
    Node *node;

    if (!json_is_string(value)) {
        return for_each_reference_in(drives, value, fn, opaque, errp);
    }
    if (key && !g_strv_contains(child_keys, key)) {
        return true;
    }
    node = find_node(drives, json_string_value(value));
    return !node || fn(node, opaque, errp);
}

typedef struct Claim {
    const Drives *drives;
    Disk *disk;
} Claim;

/* @node and all below it belong to the disk. */
static bool claim_node(Node *node, void *opaque, Error **errp)
{
    Claim *claim = opaque;

    if (node->disk == claim->disk) {
        return true;
    }
    node->disk = claim->disk;
    node->opt->removed = true;
    return for_each_reference_in(claim->drives, node->opts, claim_node, claim,
                                 errp);
}

static bool refuse_claimed(Node *node, void *opaque, Error **errp)
{
    const CmdOption *user = opaque;

    if (!node->disk) {
        return true;
    }
    error_setg(errp, "Node '%s' belongs to virtio disk '%s', which the storage "
               "daemon serves; nothing else can use it",
               node->name, node->disk->id);
    cmd_option_prepend(user, errp);
    return false;
}

/* ---- Devices and drives ---- */

static CmdOption *find_drive(const CmdLine *cmd, const char *id)
{
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (id && cmd_option_is(opt, "drive") &&
            !g_strcmp0(opt_peek_str(opt->opts, "id"), id)) {
            return opt;
        }
    }
    return NULL;
}

/* A -drive's options as a node has them, but for file=, which names no node. */
static json_t *drive_children(const json_t *opts, Error **errp)
{
    g_autoptr(json_t) flat = json_copy((json_t *)opts);

    json_object_del(flat, "file");
    return options_crumple(flat, errp);
}

static bool disk_claim_drive(Drives *drives, Disk *disk, CmdOption *drive,
                             Error **errp)
{
    const char *name = opt_peek_str(drive->opts, "node-name");
    Claim claim = { drives, disk };
    g_autoptr(json_t) nested = drive_children(drive->opts, errp);

    if (!nested) {
        return false;
    }
    disk->drive = drive;
    if (!name && strlen(disk->id) > MAX_NODE_NAME) {
        disk->node_name = g_strdup_printf("threadblock-%u",
                                          drives->disks->len);
    } else {
        disk->node_name = g_strdup(name ?: disk->id);
    }
    drive->removed = true;
    return for_each_reference_in(drives, nested, claim_node, &claim, errp);
}

/* Two devices may share a node if both say so; as QEMU, in other words. */
static bool disk_claim_node(Drives *drives, Disk *disk, Node *node,
                            Error **errp)
{
    Claim claim = { drives, disk };

    for (int i = 0; i < drives->disks->len; i++) {
        Disk *other = g_ptr_array_index(drives->disks, i);

        if (!g_strcmp0(other->node_name, node->name) &&
            !(json_is_on(json_object_get(disk->props, "share-rw"), false) &&
              json_is_on(json_object_get(other->props, "share-rw"), false))) {
            error_setg(errp, "Node '%s' is used by two devices without "
                       "share-rw=on", node->name);
            return false;
        }
    }
    disk->node_name = g_strdup(node->name);
    return claim_node(node, &claim, errp);
}

static bool add_device_disk(Drives *drives, CmdLine *cmd, CmdOption *device,
                            Error **errp)
{
    Disk *disk = g_new0(Disk, 1);
    const char *name = opt_peek_str(device->opts, "drive");
    CmdOption *drive;
    Node *node;

    g_ptr_array_add(drives->disks, disk);
    disk->device = device;
    disk->props = json_deep_copy(device->opts);
    disk->id = g_strdup(name);
    device->removed = true;
    if (!name || !*name) {
        error_setg(errp, "drive property not set");
        return false;
    }
    drive = find_drive(cmd, name);
    if (drive) {
        if (drive->removed) {
            error_setg(errp, "Drive '%s' is used by two devices", name);
            return false;
        }
        return disk_claim_drive(drives, disk, drive, errp);
    }
    node = find_node(drives, name);
    if (!node) {
        error_setg(errp, "Property 'virtio-blk-device.drive' can't find value "
                   "'%s'", name);
        return false;
    }
    return disk_claim_node(drives, disk, node, errp);
}

/* The number of a -drive if=virtio: as given, or the first that is free. */
static bool drive_index(const json_t *opts, GHashTable *taken, uint64_t *index,
                        Error **errp)
{
    g_autoptr(json_t) copy = json_copy((json_t *)opts);
    uint64_t bus = 0;
    bool given = json_object_get(copy, "index") ||
                 json_object_get(copy, "unit");

    *index = 0;
    if (!opt_take_range(copy, "index", 0, INT_MAX, index, errp) ||
        !opt_take_range(copy, "unit", 0, INT_MAX, index, errp) ||
        !opt_take_range(copy, "bus", 0, 0, &bus, errp)) {
        return false;
    }
    while (g_hash_table_contains(taken, GUINT_TO_POINTER(*index))) {
        if (given) {
            error_setg(errp, "drive with bus=0, unit=%" PRIu64 " (index=%"
                       PRIu64 ") exists", *index, *index);
            return false;
        }
        ++*index;
    }
    g_hash_table_add(taken, GUINT_TO_POINTER(*index));
    return true;
}

static bool add_drive_disk(Drives *drives, CmdOption *drive, GHashTable *taken,
                           Error **errp)
{
    Disk *disk = g_new0(Disk, 1);
    const char *id = opt_peek_str(drive->opts, "id");
    uint64_t index;

    g_ptr_array_add(drives->disks, disk);
    if (!drive_index(drive->opts, taken, &index, errp)) {
        return false;
    }
    disk->props = json_pack("{s:s}", "driver", "virtio-blk");
    disk->id = id ? g_strdup(id) : g_strdup_printf("virtio%" PRIu64, index);
    return disk_claim_drive(drives, disk, drive, errp);
}

/* ---- The whole ---- */

static void add_nodes(Drives *drives, const CmdLine *cmd)
{
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (cmd_option_is(opt, "blockdev")) {
            add_named_nodes(drives, opt, opt->opts);
        }
    }
}

static bool is_disk_device(const CmdOption *opt)
{
    return cmd_option_is(opt, "device") &&
           is_virtio_blk(opt_peek_str(opt->opts, "driver"), NULL);
}

static bool is_disk_drive(const CmdOption *opt)
{
    return cmd_option_is(opt, "drive") &&
           !g_strcmp0(opt_peek_str(opt->opts, "if"), "virtio");
}

bool cmdline_has_virtio_disk(const CmdLine *cmd)
{
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (is_disk_device(opt) || is_disk_drive(opt)) {
            return true;
        }
    }
    return false;
}

/* Devices first: the emulator creates those of -drive if=virtio last. */
static bool add_disks(Drives *drives, CmdLine *cmd, Error **errp)
{
    g_autoptr(GHashTable) taken = g_hash_table_new(NULL, NULL);
    int n = cmd->options->len;

    for (int i = 0; i < n; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (is_disk_device(opt) &&
            !add_device_disk(drives, cmd, opt, errp)) {
            cmd_option_prepend(opt, errp);
            return false;
        }
    }
    for (int i = 0; i < n; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (is_disk_drive(opt) &&
            !add_drive_disk(drives, opt, taken, errp)) {
            cmd_option_prepend(opt, errp);
            return false;
        }
    }
    return true;
}

/* Nothing that stays with the emulator may use what has moved. */
static bool check_rest(const Drives *drives, const CmdLine *cmd, Error **errp)
{
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);
        g_autoptr(json_t) nested = NULL;
        Node *node = NULL;
        CmdOption *drive = NULL;

        if (opt->removed) {
            continue;
        }
        if (cmd_option_is(opt, "device")) {
            node = find_node(drives, opt_peek_str(opt->opts, "drive"));
            drive = find_drive(cmd, opt_peek_str(opt->opts, "drive"));
        } else if (cmd_option_is(opt, "drive")) {
            nested = drive_children(opt->opts, NULL);
        } else if (cmd_option_is(opt, "blockdev")) {
            nested = json_incref(opt->opts);
        }
        if (drive && drive->removed) {
            error_setg(errp, "Drive '%s' belongs to a virtio disk, which the "
                       "storage daemon serves; nothing else can use it",
                       opt_peek_str(opt->opts, "drive"));
            cmd_option_prepend(opt, errp);
            return false;
        }
        if ((node && !refuse_claimed(node, opt, errp)) ||
            (nested && !for_each_reference_in(drives, nested, refuse_claimed,
                                              opt, errp))) {
            return false;
        }
    }
    return true;
}

Drives *drives_new(CmdLine *cmd, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(Drives) drives = g_new0(Drives, 1);

    drives->disks = g_ptr_array_new_with_free_func(disk_free);
    drives->nodes = g_ptr_array_new_with_free_func(node_free);
    add_nodes(drives, cmd);
    if (!add_disks(drives, cmd, errp) || !check_rest(drives, cmd, errp)) {
        return NULL;
    }
    return g_steal_pointer(&drives);
}
