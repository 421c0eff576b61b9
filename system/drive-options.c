/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * -drive, in terms of --blockdev.
 *
 * What -drive adds to the options of a node: names of its own (file, format,
 * readonly, cache, aio), and things that belong to the device or to a filter.
 * Those that the daemon cannot do are refused by name.
 *
 * With a format and the path of a file, the result is a --blockdev as anybody
 * would write it.  Without a format the image is probed, and with a file name
 * in another syntax ("nbd://…", "json:…") a protocol has to be found: that is
 * the block layer's business, so the name goes to the daemon as it is, by the
 * option --x-drive.
 */
#include <sys/stat.h>
#include "translate.h"
#include "qemu/cutils.h"
#include "qemu/error.h"

void drive_facts_clear(DriveFacts *facts)
{
    g_free(facts->blockdev);
    g_free(facts->serial);
}

/* ---- What cannot be done ---- */

static bool refuse(const char *key, Error **errp)
{
    error_setg(errp, "Option '%s' is not supported for virtio disks here", key);
    return false;
}

/* Throttling, by its old names and its new one. */
static bool is_throttling(const char *key)
{
    static const char *const old[] = {
        "bps", "bps_max", "bps_rd", "bps_rd_max", "bps_wr", "bps_wr_max",
        "group", "iops", "iops_max", "iops_rd", "iops_rd_max", "iops_size",
        "iops_wr", "iops_wr_max", NULL
    };

    return strstart(key, "throttling.", NULL) || g_strv_contains(old, key);
}

/* The daemon reports errors to the guest; it cannot stop the guest. */
static bool take_error_policy(json_t *o, const char *key, const char *what,
                              Error **errp)
{
    static const char *const known[] = {
        "enospc", "ignore", "report", "stop", NULL
    };
    g_autofree char *value = opt_take_str(o, key);

    if (!value || !strcmp(value, "report")) {
        return true;
    }
    if (!g_strv_contains(known, value)) {
        error_setg(errp, "'%s' invalid %s error action", value, what);
        return false;
    }
    error_setg(errp, "Option '%s=%s' is not supported for virtio disks here, "
               "only '%s=report'", key, value, key);
    return false;
}

/* Options that must be off, if they are there at all. */
static bool take_off(json_t *o, const char *key, Error **errp)
{
    bool value = false;

    if (!opt_take_bool(o, key, &value, errp)) {
        return false;
    }
    return !value || refuse(key, errp);
}

static bool check_refused(json_t *o, Error **errp)
{
    const char *key;
    json_t *value;

    json_object_foreach(o, key, value) {
        if (is_throttling(key) || strstart(key, "stats-", NULL)) {
            return refuse(key, errp);
        }
    }
    return take_error_policy(o, "werror", "write", errp) &&
           take_error_policy(o, "rerror", "read", errp) &&
           take_off(o, "snapshot", errp);
}

/* ---- What becomes something else ---- */

static bool take_cache(json_t *o, bool *writethrough, Error **errp)
{
    g_autofree char *mode = opt_take_str(o, "cache");
    bool direct = false, no_flush = false, writeback = true;

    if (!mode || !strcmp(mode, "writeback")) {
        /* the default */
    } else if (!strcmp(mode, "none") || !strcmp(mode, "off")) {
        direct = true;
    } else if (!strcmp(mode, "writethrough")) {
        writeback = false;
    } else if (!strcmp(mode, "directsync")) {
        direct = true;
        writeback = false;
    } else if (!strcmp(mode, "unsafe")) {
        no_flush = true;
    } else {
        error_setg(errp, "invalid cache option");
        return false;
    }
    if (!opt_take_bool(o, "cache.direct", &direct, errp) ||
        !opt_take_bool(o, "cache.no-flush", &no_flush, errp) ||
        !opt_take_bool(o, "cache.writeback", &writeback, errp)) {
        return false;
    }
    if (direct) {
        opt_set_str(o, "cache.direct", "on");
    }
    if (no_flush) {
        opt_set_str(o, "cache.no-flush", "on");
    }
    *writethrough = !writeback;
    return true;
}

static bool take_read_only(json_t *o, bool *read_only, Error **errp)
{
    g_autofree char *media = opt_take_str(o, "media");

    *read_only = false;
    if (media && !strcmp(media, "cdrom")) {
        *read_only = true;
    } else if (media && strcmp(media, "disk")) {
        error_setg(errp, "'%s' invalid media", media);
        return false;
    }
    if (!opt_take_bool(o, "readonly", read_only, errp) ||
        !opt_take_bool(o, "read-only", read_only, errp)) {
        return false;
    }
    if (*read_only) {
        opt_set_str(o, "read-only", "on");
    }
    return true;
}

/* Aliases that -drive takes and --blockdev does not. */
static bool take_discard(json_t *o, Error **errp)
{
    g_autofree char *discard = opt_take_str(o, "discard");

    if (!discard) {
        return true;
    }
    if (!strcmp(discard, "on") || !strcmp(discard, "unmap")) {
        opt_set_str(o, "discard", "unmap");
    } else if (strcmp(discard, "off") && strcmp(discard, "ignore")) {
        error_setg(errp, "Invalid discard option");
        return false;
    }
    return true;
}

static bool take_aio(json_t *o, char **aio, Error **errp)
{
    static const char *const known[] = {
        "threads", "native", "io_uring", NULL
    };

    *aio = opt_take_str(o, "aio");
    if (*aio && !g_strv_contains(known, *aio)) {
        error_setg(errp, "invalid aio option");
        return false;
    }
    return true;
}

/* ---- The file ---- */

/* A name without "protocol:", or with "file:": the path; NULL otherwise. */
static const char *plain_path(const char *name)
{
    const char *rest;

    if (strstart(name, "file:", &rest)) {
        return rest;
    }
    return name[strcspn(name, ":/")] == ':' ? NULL : name;
}

static const char *protocol_of_path(const char *path)
{
    struct stat st;

    if (stat(path, &st) == 0 && (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode))) {
        return "host_device";
    }
    return "file";
}

static bool is_file_protocol(const char *driver)
{
    return !g_strcmp0(driver, "file") || !g_strcmp0(driver, "host_device") ||
           !g_strcmp0(driver, "host_cdrom");
}

/*
 * Fill in the "file" child's driver where its options or @filename tell.
 * True if they do, and the node can be opened as --blockdev.
 */
static bool complete_file(json_t *node, const char *filename)
{
    json_t *file = json_object_get(node, "file");
    const char *path;

    if (filename) {
        path = plain_path(filename);
        if (!path || (file && !json_is_object(file)) ||
            is_file_protocol(opt_peek_str(node, "driver"))) {
            return false;
        }
        if (!file) {
            file = json_object();
            json_object_set_new(node, "file", file);
        }
        opt_set_str(file, "filename", path);
        opt_default_str(file, "driver", protocol_of_path(path));
        return true;
    }
    if (!json_is_object(file) || json_object_get(file, "driver")) {
        return true;
    }
    path = opt_peek_str(file, "filename");
    path = path ? plain_path(path) : NULL;
    if (path) {
        opt_set_str(file, "filename", path);
        opt_set_str(file, "driver", protocol_of_path(path));
    }
    return path;
}

/* Does a node that is described in place name its driver, and so below it? */
static bool names_drivers(const json_t *node)
{
    static const char *const children[] = {
        "backing", "data-file", "file", "header", "image", NULL
    };

    if (!json_object_get(node, "driver")) {
        return false;
    }
    for (int i = 0; children[i]; i++) {
        const json_t *child = json_object_get(node, children[i]);

        if (json_is_object(child) && !names_drivers(child)) {
            return false;
        }
    }
    return true;
}

/* What -drive says of other layers than the file itself. */
static bool other_layers_name_drivers(const json_t *node)
{
    static const char *const children[] = {
        "backing", "data-file", "header", NULL
    };

    for (int i = 0; children[i]; i++) {
        const json_t *child = json_object_get(node, children[i]);

        if (json_is_object(child) && !names_drivers(child)) {
            return false;
        }
    }
    return true;
}

/* aio= is for files; other protocols have always ignored it. */
static void place_aio(json_t *node, const char *filename, const char *aio)
{
    json_t *file = json_object_get(node, "file");

    if (!aio) {
        return;
    }
    if (is_file_protocol(opt_peek_str(node, "driver"))) {
        opt_default_str(node, "aio", aio);
    } else if (json_is_object(file) &&
               is_file_protocol(opt_peek_str(file, "driver"))) {
        opt_default_str(file, "aio", aio);
    } else if (!file && filename && plain_path(filename)) {
        json_object_set_new(node, "file", json_pack("{s:s}", "aio", aio));
    }
}

/* ---- Copy-on-read ---- */

/* As the emulator does: nothing can be copied into what is not written. */
static bool take_copy_on_read(json_t *o, bool read_only, bool *on,
                              Error **errp)
{
    *on = false;
    if (!opt_take_bool(o, "copy-on-read", on, errp)) {
        return false;
    }
    if (*on && read_only) {
        warn_report("disabling copy-on-read on read-only drive");
        *on = false;
    }
    return true;
}

/*
 * The filter above @disk, which it takes over.  Discards get to the disk if the
 * filter lets them through; a node inside of another would take them anyway.
 */
static json_t *put_filter_above(json_t *disk)
{
    json_t *filter = json_pack("{s:s}", "driver", "copy-on-read");

    opt_default_str(filter, "discard", opt_peek_str(disk, "discard"));
    opt_default_str(disk, "discard", "ignore");
    json_object_set_new(filter, "file", disk);
    return filter;
}

/* ---- The whole ---- */

static char *make_node(json_t *o, const char *filename, const char *aio,
                       bool copy_on_read, const char *node_name,
                       const char **option, Error **errp)
{
    g_autoptr(json_t) node = options_crumple(o, errp);
    bool complete;

    if (!node) {
        return NULL;
    }
    if (!filename && !json_object_size(node)) {
        error_setg(errp, "Device needs media, but drive is empty");
        return NULL;
    }
    complete = json_object_get(node, "driver") &&
               other_layers_name_drivers(node) &&
               complete_file(node, filename);
    if (!complete && filename) {
        opt_set_str(node, "filename", filename);
    }
    place_aio(node, filename, aio);
    if (copy_on_read && !complete) {
        /* The filter would sit on the file, and nobody look what is in it. */
        error_setg(errp, "Option 'copy-on-read' needs the option 'format' and "
                   "the path of a file here");
        return NULL;
    }
    if (copy_on_read) {
        node = put_filter_above(node);
    }
    opt_set_str(node, "node-name", node_name);
    *option = complete ? "--blockdev" : "--x-drive";
    return keyval_format(node, complete ? "driver" : NULL);
}

bool drive_to_blockdev(const json_t *drive_opts, const char *node_name,
                       DriveFacts *facts, Error **errp)
{
    static const char *const handled[] = {
        "if", "id", "index", "bus", "unit", "node-name", NULL
    };
    g_autoptr(json_t) o = json_deep_copy(drive_opts);
    g_autofree char *filename = NULL;
    g_autofree char *format = NULL;
    g_autofree char *aio = NULL;
    bool copy_on_read;

    for (int i = 0; handled[i]; i++) {
        json_object_del(o, handled[i]);
    }
    if (!check_refused(o, errp) ||
        !take_cache(o, &facts->writethrough, errp) ||
        !take_read_only(o, &facts->read_only, errp) ||
        !take_copy_on_read(o, facts->read_only, &copy_on_read, errp) ||
        !take_discard(o, errp) || !take_aio(o, &aio, errp)) {
        return false;
    }
    facts->serial = opt_take_str(o, "serial");
    filename = opt_take_str(o, "file");
    format = opt_take_str(o, "format");
    if (format) {
        opt_set_str(o, "driver", format);
    }
    facts->blockdev = make_node(o, filename, aio, copy_on_read, node_name,
                                &facts->option, errp);
    return facts->blockdev;
}
