/*
 * Opening an image: from a file name and options to a node with its children.
 *
 *   bdrv_open        "json:{…}" names become options; a reference finds a node
 *   open_node        which driver, and with which of the options
 *   open_file_first  a format with a file name: its file is opened, and probed
 *                    for the format if nobody names it
 *   make_node        the node, the driver's open, limits and length
 *
 * A child that is described inline inherits from its parent how it is opened;
 * what its own options say wins.  A child that is named exists already.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error.h"
#include "block-internal.h"
#include "qemu/trace.h"

TRACE_EVENT(bdrv_open);
TRACE_EVENT(bdrv_open_failed);

static BlockDriverState *open_node(BlockGraph *graph, const char *filename,
                                   json_t *options, int flags, Error **errp);

/* ---- Drivers ---- */

BlockDriver *bdrv_find_format(const char *format_name)
{
    BlockDriver *const *drv;

    for (drv = bdrv_all_drivers(); *drv; drv++) {
        if (g_str_equal((*drv)->format_name, format_name)) {
            return *drv;
        }
    }
    return NULL;
}

size_t bdrv_protocol_length(const char *filename)
{
    size_t n = strcspn(filename, ":/");

    return filename[n] == ':' ? n : 0;
}

static BlockDriver *device_driver(const char *filename)
{
    BlockDriver *best = NULL;
    int best_score = 0;
    BlockDriver *const *drv;

    for (drv = bdrv_all_drivers(); *drv; drv++) {
        int score = (*drv)->probe_device ? (*drv)->probe_device(filename) : 0;

        if (score > best_score) {
            best_score = score;
            best = *drv;
        }
    }
    return best;
}

BlockDriver *bdrv_find_protocol(const char *filename, Error **errp)
{
    size_t n = bdrv_protocol_length(filename);
    g_autofree char *protocol = g_strndup(filename, n);
    BlockDriver *const *drv;

    if (n == 0) {
        BlockDriver *device = device_driver(filename);

        return device ? device : bdrv_find_format("file");
    }
    for (drv = bdrv_all_drivers(); *drv; drv++) {
        if ((*drv)->protocol_name &&
            g_str_equal((*drv)->protocol_name, protocol)) {
            return *drv;
        }
    }
    error_setg(errp, "Unknown protocol '%s'", protocol);
    return NULL;
}

static BlockDriver *probe(const uint8_t *buf, int size, const char *filename)
{
    BlockDriver *best = bdrv_find_format("raw");
    int best_score = 0;
    BlockDriver *const *drv;

    for (drv = bdrv_all_drivers(); *drv; drv++) {
        int score = (*drv)->probe ? (*drv)->probe(buf, size, filename) : 0;

        if (score > best_score) {
            best_score = score;
            best = *drv;
        }
    }
    return best;
}

static BlockDriver *probe_node(BlockDriverState *bs, Error **errp)
{
    uint8_t buf[BLOCK_PROBE_BUF_SIZE] = { 0 };
    int64_t len = bdrv_getlength(bs);
    QEMUIOVector qiov;
    int ret = len;

    if (len > 0) {
        qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
        ret = bdrv_do_preadv(bs, 0, sizeof(buf), &qiov, 0, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read image for determining "
                         "its format");
        return NULL;
    }
    return probe(buf, CLAMP(len, 0, BLOCK_PROBE_BUF_SIZE),
                 bdrv_get_filename(bs));
}

/* ---- Options that every node has ---- */

static bool take_flag(json_t *options, const char *key, int flag, int *flags,
                      Error **errp)
{
    bool on = *flags & flag;

    if (!opt_take_bool(options, key, &on, errp)) {
        return false;
    }
    *flags = on ? *flags | flag : *flags & ~flag;
    return true;
}

static bool take_cache(json_t *options, int *flags, Error **errp)
{
    json_t *cache = opt_take_object(options, "cache");
    const char *left;
    json_t *value;
    bool ok = true;

    if (cache) {
        static const struct {
            const char *key;
            int flag;
        } keys[] = { { "direct", BDRV_O_NOCACHE },
                     { "no-flush", BDRV_O_NO_FLUSH } };
        size_t i;

        for (i = 0; ok && i < ARRAY_SIZE(keys); i++) {
            g_autofree char *dotted = g_strdup_printf("cache.%s", keys[i].key);

            value = json_object_get(cache, keys[i].key);
            /* Under its full name, for the message. */
            if (value) {
                json_object_set(options, dotted, value);
                json_object_del(cache, keys[i].key);
            }
            ok = take_flag(options, dotted, keys[i].flag, flags, errp);
        }
        json_object_foreach(cache, left, value) {
            g_autofree char *dotted = g_strdup_printf("cache.%s", left);

            json_object_set(options, dotted, value);    /* nobody takes it */
        }
        json_decref(cache);
    }
    return ok;
}

bool bdrv_parse_discard_flags(const char *mode, int *flags)
{
    if (g_str_equal(mode, "ignore") || g_str_equal(mode, "off")) {
        *flags &= ~BDRV_O_UNMAP;
    } else if (g_str_equal(mode, "unmap") || g_str_equal(mode, "on")) {
        *flags |= BDRV_O_UNMAP;
    } else {
        return false;
    }
    return true;
}

bool bdrv_parse_cache_mode(const char *mode, int *flags, bool *writethrough)
{
    static const struct {
        const char *mode;
        int flags;
        bool writethrough;
    } modes[] = {
        { "none", BDRV_O_NOCACHE, false },
        { "off", BDRV_O_NOCACHE, false },
        { "directsync", BDRV_O_NOCACHE, true },
        { "writeback", 0, false },
        { "unsafe", BDRV_O_NO_FLUSH, false },
        { "writethrough", 0, true },
    };
    size_t i;

    for (i = 0; i < ARRAY_SIZE(modes); i++) {
        if (g_str_equal(mode, modes[i].mode)) {
            *flags &= ~(BDRV_O_NOCACHE | BDRV_O_NO_FLUSH);
            *flags |= modes[i].flags;
            *writethrough = modes[i].writethrough;
            return true;
        }
    }
    return false;
}

static bool take_discard(json_t *options, int *flags, Error **errp)
{
    g_autofree char *mode = opt_take_str(options, "discard");

    if (mode && !bdrv_parse_discard_flags(mode, flags)) {
        error_setg(errp, "Invalid discard option");
        return false;
    }
    return true;
}

static bool take_detect_zeroes(json_t *options, BdrvCommonOptions *common,
                               Error **errp)
{
    g_autofree char *mode = opt_take_str(options, "detect-zeroes");

    if (!mode) {
        return true;
    }
    common->detect_zeroes_unmap = g_str_equal(mode, "unmap");
    common->detect_zeroes = common->detect_zeroes_unmap ||
                            g_str_equal(mode, "on");
    if (!common->detect_zeroes && !g_str_equal(mode, "off")) {
        error_setg(errp, "invalid parameter value: %s", mode);
        return false;
    }
    if (common->detect_zeroes_unmap && !(common->flags & BDRV_O_UNMAP)) {
        error_setg(errp, "setting detect-zeroes to unmap is not allowed "
                   "without setting discard operation to unmap");
        return false;
    }
    return true;
}

bool bdrv_take_common_options(json_t *options, BdrvCommonOptions *common,
                              Error **errp)
{
    bool read_only = !(common->flags & BDRV_O_RDWR);
    bool active = !(common->flags & BDRV_O_INACTIVE);

    if (!opt_take_bool(options, "read-only", &read_only, errp) ||
        !opt_take_bool(options, "active", &active, errp)) {
        return false;
    }
    common->flags &= ~(BDRV_O_RDWR | BDRV_O_INACTIVE);
    common->flags |= (read_only ? 0 : BDRV_O_RDWR) |
                     (active ? 0 : BDRV_O_INACTIVE);
    if (!take_flag(options, "auto-read-only", BDRV_O_AUTO_RDONLY,
                   &common->flags, errp) ||
        !take_flag(options, "force-share", BDRV_O_FORCE_SHARE,
                   &common->flags, errp)) {
        return false;
    }
    if ((common->flags & BDRV_O_FORCE_SHARE) && !read_only) {
        error_setg(errp, "force-share=on can only be used with read-only "
                   "images");
        return false;
    }
    return take_cache(options, &common->flags, errp) &&
           take_discard(options, &common->flags, errp) &&
           take_detect_zeroes(options, common, errp);
}

/* ---- Making the node ---- */

static bool refuse_leftovers(BlockDriver *drv, json_t *options, Error **errp)
{
    const char *key = opt_first_unused(options);

    if (!key) {
        return true;
    }
    if (drv->protocol_name) {
        error_setg(errp, "Block protocol '%s' doesn't support the option '%s'",
                   drv->format_name, key);
    } else {
        error_setg(errp, "Block format '%s' does not support the option '%s'",
                   drv->format_name, key);
    }
    return false;
}

static bool open_driver(BlockDriverState *bs, json_t *options, Error **errp)
{
    g_autoptr(json_t) backing = NULL;

    if ((bs->open_flags & BDRV_O_INACTIVE) && !bs->drv->supports_handover) {
        error_setg(errp, "Driver '%s' cannot be opened inactive",
                   bs->drv->format_name);
        return false;
    }
    if (bs->drv->supports_backing ||
        bdrv_is_no_backing(json_object_get(options, "backing"))) {
        /* Also a null, which is not the same as nothing. */
        backing = json_incref(json_object_get(options, "backing"));
        json_object_del(options, "backing");
    }
    bs->opaque = g_malloc0(MAX(bs->drv->instance_size, 1));
    if (!bs->drv->open(bs, options, bs->open_flags, errp)) {
        return false;
    }
    bs->is_open = true;
    if (!bs->filename && bs->file) {
        bs->filename = g_strdup(bdrv_get_filename(bs->file->bs));
    }
    if (!refuse_leftovers(bs->drv, options, errp) ||
        !bdrv_open_backing(bs, backing, errp)) {
        return false;
    }
    if (bs->read_only) {
        bs->open_flags &= ~BDRV_O_RDWR;     /* auto-read-only */
    }
    bdrv_refresh_total_bytes(bs);
    if (bs->total_bytes < 0) {
        error_setg_errno(errp, -bs->total_bytes,
                         "Could not refresh total sector count");
        return false;
    }
    bdrv_refresh_limits(bs);
    return bdrv_refresh_perms(bs, errp);
}

static BlockDriverState *make_node(BlockGraph *graph, BlockDriver *drv,
                                   const char *filename, json_t *options,
                                   int flags, bool probed, Error **errp)
{
    g_autofree char *node_name = opt_take_str(options, "node-name");
    BdrvCommonOptions common = { .flags = flags };
    BlockDriverState *bs;

    if (!bdrv_take_common_options(options, &common, errp)) {
        return NULL;
    }
    bs = bdrv_new_node(graph, node_name, errp);
    if (!bs) {
        return NULL;
    }
    bs->drv = drv;
    bs->probed = probed;
    bs->open_flags = common.flags;
    bs->read_only = !(common.flags & BDRV_O_RDWR);
    bs->detect_zeroes = common.detect_zeroes;
    bs->detect_zeroes_unmap = common.detect_zeroes_unmap;
    bs->filename = g_strdup(filename);
    bs->options = json_deep_copy(options);
    json_object_set_new(bs->options, "driver", json_string(drv->format_name));
    bs->is_opening = true;
    trace(bdrv_open, "node '%s' driver %s flags %#x file '%s'", bs->node_name,
          drv->format_name, (unsigned)bs->open_flags, filename ?: "");
    if (!open_driver(bs, options, errp)) {
        trace(bdrv_open_failed, "node '%s'", bs->node_name);
        bdrv_unref(bs);
        return NULL;
    }
    bs->is_opening = false;
    return bs;
}

/* ---- Protocols ---- */

/* Does the driver open a file by name, rather than sit on a "file" child? */
static bool is_protocol(const BlockDriver *drv)
{
    return drv->protocol_name;
}

/* What a node is called that was opened as @filename: a path, if it is "file:"
 * that says so, in a way that is not taken for another protocol. */
static char *plain_name(const char *filename)
{
    const char *path;

    if (!strstart(filename, "file:", &path) || !*path) {
        return g_strdup(filename);
    }
    return g_strconcat(bdrv_protocol_length(path) ? "./" : "", path, NULL);
}

static BlockDriverState *open_protocol(BlockGraph *graph, BlockDriver *drv,
                                       const char *filename, json_t *options,
                                       int flags, Error **errp)
{
    /* "filename" may belong to the options, which open uses up. */
    g_autofree char *name = NULL;

    if (filename && json_object_get(options, "filename")) {
        error_setg(errp, "Can't specify 'file' and 'filename' options at the "
                   "same time");
        return NULL;
    }
    if (!drv) {
        const char *literal = opt_peek_str(options, "filename");

        if (!filename && !literal) {
            error_setg(errp, "Must specify either driver or file");
            return NULL;
        }
        /* A name among the options is never taken for "protocol:…". */
        drv = filename ? bdrv_find_protocol(filename, errp) :
              device_driver(literal) ? device_driver(literal) :
              bdrv_find_format("file");
        if (!drv) {
            return NULL;
        }
    }
    if (filename) {
        if (drv->parse_filename) {
            if (!drv->parse_filename(filename, options, errp)) {
                return NULL;
            }
        } else {
            opt_set_str(options, "filename", filename);
        }
        name = plain_name(filename);
    } else {
        name = g_strdup(opt_peek_str(options, "filename"));
    }
    return make_node(graph, drv, name, options, flags, false, errp);
}

/* ---- Formats ---- */

/* How the file below a format is opened, unless its own options say. */
static int file_flags(int flags)
{
    /* Formats see to it that only what should be is flushed and discarded. */
    return (flags & ~(BDRV_O_COPY_ON_READ | BDRV_O_NO_BACKING)) |
           BDRV_O_PROTOCOL | BDRV_O_UNMAP | BDRV_O_AUTO_RDONLY;
}

int bdrv_backing_flags(int flags)
{
    return flags & ~(BDRV_O_RDWR | BDRV_O_COPY_ON_READ | BDRV_O_RESIZE |
                     BDRV_O_PROTOCOL);
}

/*
 * The flags that the inline options of a format say for itself hold for its
 * file as well; looked at here without taking them.
 */
static bool flags_for_file(json_t *options, int flags, int *result,
                           Error **errp)
{
    json_t *copy = json_deep_copy(options);
    BdrvCommonOptions common = { .flags = flags };
    bool ok;

    json_object_del(copy, "detect-zeroes");
    json_object_del(copy, "auto-read-only");
    ok = bdrv_take_common_options(copy, &common, errp);
    json_decref(copy);
    *result = file_flags(common.flags);
    return ok;
}

/* A child is described by an object, or named. */
static bool check_child_value(const json_t *value, const char *name,
                              Error **errp)
{
    if (json_is_string(value) || json_is_object(value)) {
        return true;
    }
    error_setg(errp, "A block device must be specified for \"%s\"", name);
    return false;
}

static BlockDriverState *open_file_first(BlockGraph *graph,
                                         const char *filename, json_t *options,
                                         int flags, Error **errp)
{
    json_t *value = opt_take_any(options, "file");
    BlockDriverState *file = NULL;
    int child_flags;

    if ((value && !check_child_value(value, "file", errp)) ||
        !flags_for_file(options, flags, &child_flags, errp)) {
        json_decref(value);
        return NULL;
    }
    if (json_is_string(value)) {
        file = bdrv_open(graph, NULL, json_string_value(value), NULL, 0, errp);
        json_decref(value);
    } else {
        json_t *child = value ? json_copy(value) : json_object();

        json_decref(value);
        file = open_node(graph, filename, child, child_flags, errp);
        json_decref(child);
    }
    return file;
}

static BlockDriverState *open_format(BlockGraph *graph, BlockDriver *drv,
                                     const char *filename, json_t *options,
                                     int flags, Error **errp)
{
    BlockDriverState *file = NULL;
    BlockDriverState *bs = NULL;
    bool probed = false;

    if (!filename && !drv && !json_object_get(options, "file")) {
        error_setg(errp, "Must specify either driver or file");
        return NULL;
    }
    if (filename || !drv) {
        file = open_file_first(graph, filename, options, flags, errp);
        if (!file) {
            return NULL;
        }
        opt_set_str(options, "file", bdrv_get_node_name(file));
    }
    if (!drv) {
        drv = probe_node(file, errp);
        probed = true;
    }
    if (drv) {
        bs = make_node(graph, drv, filename ? bdrv_get_filename(file) : NULL,
                       options, flags, probed, errp);
    }
    bdrv_unref(file);
    return bs;
}

/* @options is modified, not used up. */
static BlockDriverState *open_node(BlockGraph *graph, const char *filename,
                                   json_t *options, int flags, Error **errp)
{
    g_autofree char *name = opt_take_str(options, "driver");
    const char *backing = opt_peek_str(options, "backing");
    BlockDriver *drv = NULL;

    if (backing && !*backing) {
        warn_report("Use of \"backing\": \"\" is deprecated; use \"backing\": "
                    "null instead");
    }
    if (name) {
        drv = bdrv_find_format(name);
        if (!drv) {
            error_setg(errp, "Unknown driver '%s'", name);
            return NULL;
        }
    }
    if ((flags & BDRV_O_PROTOCOL && !(drv && !is_protocol(drv))) ||
        (drv && is_protocol(drv))) {
        return open_protocol(graph, drv, filename, options, flags, errp);
    }
    return open_format(graph, drv, filename, options, flags, errp);
}

/* ---- The way in ---- */

json_t *bdrv_crumple_copy(const json_t *options, Error **errp)
{
    json_t *crumpled = options_crumple(options, errp);
    json_t *copy = json_deep_copy(crumpled);

    json_decref(crumpled);
    return copy;
}

/* "json:{…}": its keys, under those of @options.  NULL with @errp. */
static json_t *merge_json_filename(const char *filename, json_t *options,
                                   Error **errp)
{
    ERRP_GUARD();
    const char *text = filename + strlen("json:");
    json_t *flat = json_parse_qemu(text, strlen(text), errp);
    json_t *nested;

    if (!flat) {
        error_prepend(errp, "Could not parse the JSON options: ");
        return NULL;
    }
    if (!json_is_object(flat)) {
        error_setg(errp, "Invalid JSON object given");
        json_decref(flat);
        return NULL;
    }
    nested = bdrv_crumple_copy(flat, errp);
    json_decref(flat);
    if (nested) {
        json_object_update_recursive(nested, options);
    }
    return nested;
}

BlockDriverState *bdrv_open(BlockGraph *graph, const char *filename,
                            const char *reference, json_t *options, int flags,
                            Error **errp)
{
    BlockDriverState *bs;
    json_t *nested;

    if (reference) {
        assert(!filename && !options);
        bs = bdrv_find_node(graph, reference);
        /* One that is being opened cannot be its own child. */
        if (!bs || bs->is_opening) {
            error_setg(errp, "Cannot find device='%s' nor node-name='%s'",
                       reference, reference);
            return NULL;
        }
        bdrv_ref(bs);
        return bs;
    }
    options = options ? options : json_object();
    nested = bdrv_crumple_copy(options, errp);
    json_decref(options);
    if (nested && filename && strstart(filename, "json:", NULL)) {
        json_t *merged = merge_json_filename(filename, nested, errp);

        json_decref(nested);
        nested = merged;
        filename = NULL;
    }
    if (!nested) {
        return NULL;
    }
    bs = open_node(graph, filename, nested, flags, errp);
    json_decref(nested);
    return bs;
}

/* ---- Children ---- */

static BlockDriverState *open_child_node(BlockDriverState *parent,
                                         json_t *value, int role,
                                         Error **errp)
{
    int flags = role & BDRV_CHILD_COW ? bdrv_backing_flags(parent->open_flags) :
                file_flags(parent->open_flags);
    BlockDriverState *bs;
    json_t *options;

    if (json_is_string(value)) {
        return bdrv_open(parent->graph, NULL, json_string_value(value), NULL,
                         0, errp);
    }
    options = json_copy(value);
    bs = open_node(parent->graph, NULL, options, flags, errp);
    json_decref(options);
    return bs;
}

bool bdrv_open_child(BlockDriverState *parent, json_t *options,
                     const char *name, int role, bool allow_none,
                     BdrvChild **child, Error **errp)
{
    json_t *value = opt_take_any(options, name);
    BlockDriverState *bs;

    *child = NULL;
    if (!value && allow_none) {
        return true;
    }
    if (!check_child_value(value, name, errp)) {
        json_decref(value);
        return false;
    }
    bs = open_child_node(parent, value, role, errp);
    json_decref(value);
    if (!bs) {
        return false;
    }
    *child = bdrv_attach_child(parent, NULL, bs, name, role, 0, BLK_PERM_ALL,
                               errp);
    if (!*child) {
        return false;
    }
    if (!bdrv_refresh_perms(parent, errp)) {
        bdrv_detach_child(*child);
        *child = NULL;
        return false;
    }
    return true;
}

bool bdrv_open_file_child(BlockDriverState *bs, json_t *options, Error **errp)
{
    int role = BDRV_CHILD_PRIMARY | (bs->drv->is_filter ? BDRV_CHILD_FILTERED :
                                     BDRV_CHILD_IMAGE);

    return bdrv_open_child(bs, options, "file", role, false, &bs->file, errp);
}
