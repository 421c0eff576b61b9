/*
 * Dirty bitmaps: their life, their state, and recording.
 *
 * A node has a list of bitmaps under its bitmap_lock, and a word that counts
 * those that are enabled, dirty_recording.  The write path reads the word and
 * nothing else when it is 0.  Otherwise who has done a write, a worker or the
 * completion of a submitted request, marks it: under the lock, in memory.
 *
 * When does a bitmap record?  Enabling it drains: requests on their way have
 * decided by the word whether to mark, and none may come between.  Disabling
 * needs no drain: what marks too much does no harm, and marking looks at each
 * bitmap again.
 *
 *   enabled       ◀──enable, disable──▶  disabled
 *   busy          a job has it; with a successor, that records
 *   readonly      loaded from an image that cannot be written
 *   inconsistent  (and disabled) loaded from an image that was not closed
 *   persistent    stored by the driver when the node is closed
 *
 * A node that grows by a write does not look for its bitmaps (they may be
 * disabled, and the word 0): each grows when it is next looked at.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/options.h"
#include "dirty-bitmap-int.h"

void bdrv_dirty_bitmap_init_node(BlockDriverState *bs)
{
    bitmap_init(&bs->bitmap_lock);
    list_init(&bs->dirty_bitmaps);
}

void bdrv_dirty_bitmap_destroy_node(BlockDriverState *bs)
{
    BdrvDirtyBitmap *b;

    /* What is busy belongs to somebody who needs the node open. */
    while ((b = bdrv_dirty_bitmap_next(bs, NULL))) {
        bdrv_release_dirty_bitmap(b);
    }
    bitmap_destroy(&bs->bitmap_lock);
}

/* ---- Size ---- */

void bdrv_dirty_bitmap_resize_locked(BdrvDirtyBitmap *b, int64_t size)
{
    hbitmap_truncate(b->bits, size);
    if (b->successor) {
        hbitmap_truncate(b->successor, size);
    }
}

static void grow_locked(BdrvDirtyBitmap *b, int64_t size)
    REQUIRES(bitmap_class)
{
    if (size > hbitmap_size(b->bits)) {
        bdrv_dirty_bitmap_resize_locked(b, size);
    }
}

void bdrv_dirty_bitmap_lock(BdrvDirtyBitmap *b)
{
    bitmap_lock(&b->bs->bitmap_lock);
    grow_locked(b, qatomic_read(&b->bs->total_bytes));
}

void bdrv_dirty_bitmap_unlock(BdrvDirtyBitmap *b)
{
    bitmap_unlock(&b->bs->bitmap_lock);
}

void bdrv_dirty_bitmaps_truncate(BlockDriverState *bs)
{
    int64_t size = qatomic_read(&bs->total_bytes);
    BdrvDirtyBitmap *b;

    if (size < 0) {
        return;                         /* unknown: keep what there is */
    }
    bitmap_lock(&bs->bitmap_lock);
    list_for_each(b, &bs->dirty_bitmaps, node) {
        bdrv_dirty_bitmap_resize_locked(b, size);
    }
    bitmap_unlock(&bs->bitmap_lock);
}

/* ---- Recording: any thread ---- */

void bdrv_mark_dirty(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     int ret)
{
    /* A write that has succeeded may have made the node longer. */
    int64_t size = MAX(qatomic_read(&bs->total_bytes),
                       ret < 0 ? 0 : QEMU_ALIGN_UP(offset + bytes,
                                                   BDRV_SECTOR_SIZE));
    BdrvDirtyBitmap *b;

    bitmap_lock(&bs->bitmap_lock);
    list_for_each(b, &bs->dirty_bitmaps, node) {
        if (b->enabled) {
            grow_locked(b, size);
            hbitmap_set(b->successor ? b->successor : b->bits, offset, bytes);
        }
    }
    bitmap_unlock(&bs->bitmap_lock);
}

/* ---- Life: control thread ---- */

static bool check_new(BlockDriverState *bs, const char *name, Error **errp)
{
    if (bdrv_find_dirty_bitmap(bs, name)) {
        error_setg(errp, "Bitmap already exists: %s", name);
        return false;
    }
    if (strlen(name) > BDRV_BITMAP_MAX_NAME_SIZE) {
        error_setg(errp, "Bitmap name too long: %s", name);
        return false;
    }
    return true;
}

BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs,
                                          uint32_t granularity,
                                          const char *name, Error **errp)
{
    BdrvDirtyBitmap *b;
    int64_t size;

    if (name && !check_new(bs, name, errp)) {
        return NULL;
    }
    if (!bs->is_open) {
        bdrv_refresh_total_bytes(bs);   /* the driver's open calls this */
    }
    size = bdrv_getlength(bs);
    if (size < 0) {
        error_setg_errno(errp, -size, "could not get length of device");
        return NULL;
    }
    b = g_new0(BdrvDirtyBitmap, 1);
    b->bs = bs;
    b->name = g_strdup(name);
    b->granularity = granularity;
    bitmap_lock(&bs->bitmap_lock);
    b->bits = hbitmap_new(size, granularity);
    list_push_front(&bs->dirty_bitmaps, &b->node);
    bitmap_unlock(&bs->bitmap_lock);
    bdrv_enable_dirty_bitmap(b);
    return b;
}

static void set_enabled_locked(BdrvDirtyBitmap *b, bool enabled)
    REQUIRES(bitmap_class)
{
    int *recording = &b->bs->dirty_recording;

    qatomic_set(recording, *recording - b->enabled + enabled);
    b->enabled = enabled;
}

void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *b)
{
    if (!b) {
        return;
    }
    bitmap_lock(&b->bs->bitmap_lock);
    assert(!b->busy && !b->successor);
    set_enabled_locked(b, false);
    list_remove(&b->node);
    hbitmap_free(b->bits);
    bitmap_unlock(&b->bs->bitmap_lock);
    g_free(b->name);
    g_free(b);
}

void bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *b)
{
    bdrv_drained_begin(b->bs);
    bitmap_lock(&b->bs->bitmap_lock);
    set_enabled_locked(b, !b->inconsistent);
    bitmap_unlock(&b->bs->bitmap_lock);
    bdrv_drained_end(b->bs);
}

void bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *b)
{
    bitmap_lock(&b->bs->bitmap_lock);
    set_enabled_locked(b, false);
    bitmap_unlock(&b->bs->bitmap_lock);
}

BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs, const char *name)
{
    BdrvDirtyBitmap *b, *found = NULL;

    bitmap_lock(&bs->bitmap_lock);
    list_for_each(b, &bs->dirty_bitmaps, node) {
        if (b->name && g_str_equal(b->name, name)) {
            found = b;
            break;
        }
    }
    bitmap_unlock(&bs->bitmap_lock);
    return found;
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs,
                                        BdrvDirtyBitmap *b)
{
    BdrvDirtyBitmap *next;

    bitmap_lock(&bs->bitmap_lock);
    next = b ? list_next(&bs->dirty_bitmaps, b, node) :
           list_first(&bs->dirty_bitmaps, BdrvDirtyBitmap, node);
    bitmap_unlock(&bs->bitmap_lock);
    return next;
}

/* ---- State ---- */

const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *b)
{
    return b->name;
}

uint32_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *b)
{
    return b->granularity;
}

BlockDriverState *bdrv_dirty_bitmap_bs(const BdrvDirtyBitmap *b)
{
    return b->bs;
}

/* A function that reads, one that sets a flag. */
#define GETTER(function, field)                                             \
    bool function(BdrvDirtyBitmap *b)                                       \
    {                                                                       \
        bool value;                                                         \
                                                                            \
        bitmap_lock(&b->bs->bitmap_lock);                                   \
        value = b->field;                                                   \
        bitmap_unlock(&b->bs->bitmap_lock);                                 \
        return value;                                                       \
    }

#define SETTER(function, field)                                             \
    void function(BdrvDirtyBitmap *b, bool value)                           \
    {                                                                       \
        bitmap_lock(&b->bs->bitmap_lock);                                   \
        b->field = value;                                                   \
        bitmap_unlock(&b->bs->bitmap_lock);                                 \
    }

GETTER(bdrv_dirty_bitmap_enabled, enabled)
GETTER(bdrv_dirty_bitmap_busy, busy)
GETTER(bdrv_dirty_bitmap_readonly, readonly)
GETTER(bdrv_dirty_bitmap_get_persistence, persistent)
GETTER(bdrv_dirty_bitmap_skip_store, skip_store)
GETTER(bdrv_dirty_bitmap_inconsistent, inconsistent)
GETTER(bdrv_dirty_bitmap_has_successor, successor)
SETTER(bdrv_dirty_bitmap_set_busy, busy)
SETTER(bdrv_dirty_bitmap_set_readonly, readonly)
SETTER(bdrv_dirty_bitmap_set_persistence, persistent)
SETTER(bdrv_dirty_bitmap_set_skip_store, skip_store)

void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *b)
{
    bitmap_lock(&b->bs->bitmap_lock);
    b->inconsistent = true;
    set_enabled_locked(b, false);
    bitmap_unlock(&b->bs->bitmap_lock);
}

bool bdrv_has_readonly_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *b;
    bool found = false;

    bitmap_lock(&bs->bitmap_lock);
    list_for_each(b, &bs->dirty_bitmaps, node) {
        found |= b->readonly;
    }
    bitmap_unlock(&bs->bitmap_lock);
    return found;
}

static uint32_t flags_of(BdrvDirtyBitmap *b)
{
    uint32_t flags;

    bitmap_lock(&b->bs->bitmap_lock);
    flags = (b->busy ? BDRV_BITMAP_BUSY : 0) |
            (b->readonly ? BDRV_BITMAP_RO : 0) |
            (b->inconsistent ? BDRV_BITMAP_INCONSISTENT : 0);
    bitmap_unlock(&b->bs->bitmap_lock);
    return flags;
}

bool bdrv_dirty_bitmap_check(BdrvDirtyBitmap *b, uint32_t flags, Error **errp)
{
    ERRP_GUARD();
    const char *name = b->name ? b->name : "";

    flags &= flags_of(b);
    if (flags & BDRV_BITMAP_BUSY) {
        error_setg(errp, "Bitmap '%s' is currently in use by another "
                   "operation and cannot be used", name);
    } else if (flags & BDRV_BITMAP_RO) {
        error_setg(errp, "Bitmap '%s' is readonly and cannot be modified",
                   name);
    } else if (flags & BDRV_BITMAP_INCONSISTENT) {
        error_setg(errp, "Bitmap '%s' is inconsistent and cannot be used",
                   name);
        error_append_hint(errp, "Try block-dirty-bitmap-remove to delete "
                          "this bitmap from disk\n");
    }
    return !flags;
}

/* ---- Query ---- */

static json_t *query_locked(BdrvDirtyBitmap *b) REQUIRES(bitmap_class)
{
    json_t *info = json_object();

    if (b->name) {
        g_autofree char *valid = g_utf8_make_valid(b->name, -1);

        opt_set_str(info, "name", valid);
    }
    json_object_set_new(info, "count", json_integer(hbitmap_count(b->bits)));
    json_object_set_new(info, "granularity", json_integer(b->granularity));
    opt_set_bool(info, "recording", b->enabled);
    opt_set_bool(info, "busy", b->busy);
    opt_set_bool(info, "persistent", b->persistent);
    if (b->inconsistent) {
        opt_set_bool(info, "inconsistent", true);
    }
    return info;
}

json_t *bdrv_query_dirty_bitmaps(BlockDriverState *bs)
{
    json_t *list = NULL;
    BdrvDirtyBitmap *b;

    bitmap_lock(&bs->bitmap_lock);
    list_for_each(b, &bs->dirty_bitmaps, node) {
        list = list ? list : json_array();
        json_array_append_new(list, query_locked(b));
    }
    bitmap_unlock(&bs->bitmap_lock);
    return list;
}
