/*
 * What is to be known of a node: gathered into json objects with QAPI's
 * names, and printed from those as text.  The text is made of the object
 * alone, so that what is shown by qemu-img info and by the monitor cannot
 * differ.
 *
 * Nothing here keeps state.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "block/qapi.h"
#include "block/snapshot.h"
#include "qemu/cutils.h"
#include "qemu/options.h"
#include "qemu/qjson.h"

/* ---- Queries ---- */

/* File names are bytes; JSON wants UTF-8. */
static void set_filename(json_t *o, const char *key, const char *name)
{
    g_autofree char *valid = g_utf8_make_valid(name, -1);

    opt_set_str(o, key, valid);
}

static void add_driver_info(BlockDriverState *bs, json_t *info)
{
    BlockDriverInfo bdi = { 0 };

    if (bdrv_get_info(bs, &bdi) < 0) {
        return;
    }
    if (bdi.cluster_size) {
        json_object_set_new(info, "cluster-size",
                            json_integer(bdi.cluster_size));
    }
    json_object_set_new(info, "dirty-flag", json_boolean(bdi.is_dirty));
}

/* What the header says; a name that is relative to nothing has no full one. */
static void add_backing(BlockDriverState *bs, json_t *info)
{
    g_autofree char *full = bdrv_get_full_backing_filename(bs, NULL);

    if (!bs->backing_file || !*bs->backing_file) {
        return;
    }
    set_filename(info, "backing-filename", bs->backing_file);
    if (full) {
        set_filename(info, "full-backing-filename", full);
    }
    if (bs->backing_format && *bs->backing_format) {
        set_filename(info, "backing-filename-format", bs->backing_format);
    }
}

/* A format with encryption shows it here, or is nothing else. */
static bool is_encrypted(const json_t *specific)
{
    return json_object_get(json_object_get(specific, "data"), "encrypt") ||
           g_strcmp0(opt_peek_str(specific, "type"), "luks") == 0;
}

static json_t *snapshot_to_json(const QEMUSnapshotInfo *sn)
{
    json_t *o = json_object();

    set_filename(o, "id", sn->id_str);
    set_filename(o, "name", sn->name);
    json_object_set_new(o, "vm-state-size", json_integer(sn->vm_state_size));
    json_object_set_new(o, "date-sec", json_integer(sn->date_sec));
    json_object_set_new(o, "date-nsec", json_integer(sn->date_nsec));
    json_object_set_new(o, "vm-clock-sec",
                        json_integer(sn->vm_clock_nsec / 1000000000));
    json_object_set_new(o, "vm-clock-nsec",
                        json_integer(sn->vm_clock_nsec % 1000000000));
    if (sn->icount != UINT64_MAX) {
        json_object_set_new(o, "icount", json_integer(sn->icount));
    }
    return o;
}

static bool add_snapshots(BlockDriverState *bs, json_t *info, Error **errp)
{
    g_autofree QEMUSnapshotInfo *sn = NULL;
    json_t *list;
    size_t n;

    if (bs->drv->is_filter) {
        return true;                /* they are its child's */
    }
    if (!bdrv_snapshot_list(bs, &sn, &n, errp)) {
        return false;
    }
    if (n) {
        list = json_array();
        for (size_t i = 0; i < n; i++) {
            json_array_append_new(list, snapshot_to_json(&sn[i]));
        }
        json_object_set_new(info, "snapshots", list);
    }
    return true;
}

json_t *bdrv_query_image_info(BlockDriverState *bs, Error **errp)
{
    g_autoptr(json_t) info = json_object();
    int64_t size = bdrv_getlength(bs);
    int64_t allocated;
    json_t *specific;
    Error *err = NULL;

    if (size < 0) {
        error_setg_errno(errp, -size, "Can't get image size '%s'",
                         bdrv_get_filename(bs));
        return NULL;
    }
    set_filename(info, "filename", bdrv_get_filename(bs));
    json_object_set_new(info, "format",
                        json_string(bdrv_get_format_name(bs)));
    json_object_set_new(info, "virtual-size", json_integer(size));
    allocated = bdrv_get_allocated_file_size(bs);
    if (allocated >= 0) {
        json_object_set_new(info, "actual-size", json_integer(allocated));
    }
    add_driver_info(bs, info);
    add_backing(bs, info);
    if (!add_snapshots(bs, info, errp)) {
        return NULL;
    }
    specific = bdrv_get_specific_info(bs, &err);
    if (err) {
        error_propagate(errp, err);
        return NULL;
    }
    if (specific) {
        if (is_encrypted(specific)) {
            json_object_set_new(info, "encrypted", json_true());
        }
        json_object_set_new(info, "format-specific", specific);
    }
    return g_steal_pointer(&info);
}

json_t *bdrv_query_graph_info(BlockDriverState *bs, Error **errp)
{
    g_autoptr(json_t) info = bdrv_query_image_info(bs, errp);
    json_t *children;
    BdrvChild *c;

    if (!info) {
        return NULL;
    }
    children = json_array();
    json_object_set_new(info, "children", children);
    list_for_each(c, &bs->children, child_node) {
        json_t *child_info, *entry;

        if (c == bs->backing) {
            continue;
        }
        child_info = bdrv_query_graph_info(c->bs, errp);
        if (!child_info) {
            return NULL;
        }
        entry = json_object();
        json_object_set_new(entry, "name", json_string(c->name));
        json_object_set_new(entry, "info", child_info);
        json_array_append_new(children, entry);
    }
    return g_steal_pointer(&info);
}

int bdrv_query_map_entry(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         MapEntry *e)
{
    BlockDriverState *file = NULL;
    int64_t map = 0, pnum = bytes;
    int depth = 0, ret;

    /* The first layer that decides the contents; each may shorten the rest. */
    for (;;) {
        ret = bdrv_block_status(bs, offset, bytes, &pnum, &map, &file);
        if (ret < 0) {
            return ret;
        }
        if (ret & (BDRV_BLOCK_ZERO | BDRV_BLOCK_DATA)) {
            break;
        }
        bs = bdrv_filter_or_cow_bs(bs);
        if (!bs) {
            ret = 0;
            break;
        }
        bytes = pnum;
        depth++;
    }
    *e = (MapEntry) {
        .start = offset,
        .length = pnum,
        .present = ret & BDRV_BLOCK_ALLOCATED,
        .data = ret & BDRV_BLOCK_DATA,
        .zero = ret & BDRV_BLOCK_ZERO,
        .compressed = ret & BDRV_BLOCK_COMPRESSED,
        .depth = depth,
        .has_offset = ret & BDRV_BLOCK_OFFSET_VALID,
        .offset = map,
    };
    if (file && e->has_offset) {
        e->filename = bdrv_get_filename(file);
    }
    return 0;
}

/* ---- Text ---- */

static int64_t int_of(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void G_GNUC_PRINTF(3, 4) put_line(GString *out, unsigned indent,
                                         const char *fmt, ...)
{
    va_list ap;

    g_string_append_printf(out, "%*s", (int)indent, "");
    va_start(ap, fmt);
    g_string_append_vprintf(out, fmt, ap);
    va_end(ap);
    g_string_append_c(out, '\n');
}

static void put_size(GString *out, unsigned indent, const char *what,
                     int64_t bytes)
{
    g_autofree char *text = size_to_str(bytes);

    put_line(out, indent, "%s: %s (%" PRId64 " bytes)", what, text, bytes);
}

static void put_specific(GString *out, unsigned indent, const json_t *v);

/* "label: scalar", or the label and what it holds below it. */
static void put_field(GString *out, unsigned indent, const char *label,
                      const json_t *v)
{
    g_autofree char *json = NULL;

    if (json_is_object(v) || json_is_array(v)) {
        put_line(out, indent, "%s:", label);
        put_specific(out, indent + 4, v);
    } else if (json_is_string(v)) {
        put_line(out, indent, "%s: %s", label, json_string_value(v));
    } else {
        json = qobject_to_json(v, false);
        put_line(out, indent, "%s: %s", label, json);
    }
}

static void put_specific(GString *out, unsigned indent, const json_t *v)
{
    g_autofree const char **keys = NULL;

    for (size_t i = 0; i < json_array_size(v); i++) {
        g_autofree char *label = g_strdup_printf("[%zu]", i);

        put_field(out, indent, label, json_array_get(v, i));
    }
    keys = json_is_object(v) ? qjson_sorted_keys(v) : NULL;
    for (size_t i = 0; keys && keys[i]; i++) {
        g_autofree char *label = g_strdelimit(g_strdup(keys[i]), "-", ' ');

        put_field(out, indent, label, json_object_get(v, keys[i]));
    }
}

static void put_specific_section(GString *out, unsigned indent,
                                 const json_t *specific)
{
    const json_t *data = json_object_get(specific, "data");

    if (json_object_size(data)) {
        put_line(out, indent, "Format specific information:");
        put_specific(out, indent + 4, data);
    }
}

static void put_backing(GString *out, unsigned indent, const json_t *info)
{
    const char *name = opt_peek_str(info, "backing-filename");
    const char *full = opt_peek_str(info, "full-backing-filename");
    const char *format = opt_peek_str(info, "backing-filename-format");

    if (!name) {
        return;
    }
    if (!full) {
        put_line(out, indent, "backing file: %s (cannot determine actual "
                 "path)", name);
    } else if (!g_str_equal(name, full)) {
        put_line(out, indent, "backing file: %s (actual path: %s)", name,
                 full);
    } else {
        put_line(out, indent, "backing file: %s", name);
    }
    if (format) {
        put_line(out, indent, "backing file format: %s", format);
    }
}

static void put_snapshots(GString *out, unsigned indent, const json_t *list)
{
    g_autofree char *heading = bdrv_snapshot_to_text(NULL);

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        QEMUSnapshotInfo sn = {
            .vm_state_size = int_of(o, "vm-state-size"),
            .date_sec = int_of(o, "date-sec"),
            /* The image may say any 64 bits. */
            .vm_clock_nsec = (uint64_t)int_of(o, "vm-clock-sec") * 1000000000 +
                             int_of(o, "vm-clock-nsec"),
            .icount = json_object_get(o, "icount") ? int_of(o, "icount") :
                      UINT64_MAX,
        };
        g_autofree char *line = NULL;

        g_strlcpy(sn.id_str, opt_peek_str(o, "id"), sizeof(sn.id_str));
        g_strlcpy(sn.name, opt_peek_str(o, "name"), sizeof(sn.name));
        line = bdrv_snapshot_to_text(&sn);
        if (i == 0) {
            put_line(out, indent, "Snapshot list:");
            put_line(out, indent, "%s", heading);
        }
        put_line(out, indent, "%s", line);
    }
}

/* @leaf: below the image itself, and nothing is below it: a file. */
static void put_node(GString *out, unsigned indent, const json_t *info,
                     bool leaf)
{
    const json_t *allocated = json_object_get(info, "actual-size");
    g_autofree char *disk = allocated ?
        size_to_str(json_integer_value(allocated)) : NULL;

    put_line(out, indent, "%s: %s", leaf ? "filename" : "image",
             opt_peek_str(info, "filename"));
    put_line(out, indent, "%s: %s", leaf ? "protocol type" : "file format",
             opt_peek_str(info, "format"));
    put_size(out, indent, leaf ? "file length" : "virtual size",
             int_of(info, "virtual-size"));
    put_line(out, indent, "disk size: %s", disk ? disk : "unavailable");
    if (json_is_true(json_object_get(info, "encrypted"))) {
        put_line(out, indent, "encrypted: yes");
    }
    if (json_object_get(info, "cluster-size")) {
        put_line(out, indent, "cluster_size: %" PRId64,
                 int_of(info, "cluster-size"));
    }
    if (json_is_true(json_object_get(info, "dirty-flag"))) {
        put_line(out, indent, "cleanly shut down: no");
    }
    put_backing(out, indent, info);
    put_snapshots(out, indent, json_object_get(info, "snapshots"));
    put_specific_section(out, indent, json_object_get(info,
                                                      "format-specific"));
}

static void put_graph(GString *out, unsigned indent, const json_t *info,
                      const char *path)
{
    const json_t *children = json_object_get(info, "children");

    put_node(out, indent, info, *path && !json_array_size(children));
    for (size_t i = 0; i < json_array_size(children); i++) {
        const json_t *child = json_array_get(children, i);
        g_autofree char *child_path = g_strdup_printf(
            "%s/%s", path, opt_peek_str(child, "name"));

        put_line(out, indent, "Child node '%s':", child_path);
        put_graph(out, indent + 4, json_object_get(child, "info"),
                  child_path);
    }
}

char *bdrv_graph_info_to_text(const json_t *info)
{
    GString *out = g_string_new(NULL);

    put_graph(out, 0, info, "");
    return g_string_free(out, FALSE);
}

char *bdrv_specific_info_to_text(BlockDriverState *bs, Error **errp)
{
    GString *out;
    json_t *specific;
    Error *err = NULL;

    specific = bdrv_get_specific_info(bs, &err);
    if (err) {
        error_propagate(errp, err);
        return NULL;
    }
    out = g_string_new(NULL);
    put_specific_section(out, 0, specific);
    json_decref(specific);
    return g_string_free(out, FALSE);
}
