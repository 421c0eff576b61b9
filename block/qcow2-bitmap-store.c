/*
 * qcow2: bitmaps, from memory into the image.
 *
 * Source: "QEMU QCOW Image Format", "Bitmap table", "Bitmap data".
 *
 * Each persistent bitmap gets new clusters for its bits (only where clean and
 * dirty granules are mixed) and a new table; then the directory is switched
 * (qcow2-bitmap-directory.c).  A crash before that leaves the old bitmaps,
 * marked as in use.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-bitmap.h"
#include "qemu/bswap.h"

static bool is_stored(BdrvDirtyBitmap *b)
{
    return bdrv_dirty_bitmap_get_persistence(b) &&
           !bdrv_dirty_bitmap_inconsistent(b) &&
           !bdrv_dirty_bitmap_skip_store(b);
}

/* ---- Limits ---- */

bool qcow2_bitmaps_may_resize(BlockDriverState *bs, Error **errp)
{
    BdrvDirtyBitmap *b = NULL;

    while ((b = bdrv_dirty_bitmap_next(bs, b))) {
        if (bdrv_dirty_bitmap_get_persistence(b) &&
            !bdrv_dirty_bitmap_check(b, BDRV_BITMAP_DEFAULT, errp)) {
            return false;
        }
    }
    return true;
}

bool qcow2_supports_persistent_dirty_bitmap(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    return s->qcow_version >= 3;
}

static bool check_shape(BlockDriverState *bs, const char *name, int64_t size,
                        uint32_t granularity, Error **errp)
{
    if (strlen(name) > BDRV_BITMAP_MAX_NAME_SIZE) {
        error_setg(errp, "Name length exceeds maximum (%u characters)",
                   BDRV_BITMAP_MAX_NAME_SIZE);
    } else if (size < 0) {
        error_setg_errno(errp, -size, "Failed to get size of '%s'",
                         bdrv_get_filename(bs));
    } else if (size == 0) {
        error_setg(errp, "An image of no length has no room for bitmaps");
    } else if (hbitmap_data_size(size, granularity) > QCOW2_BITMAP_MAX_BYTES) {
        error_setg(errp, "Too much space will be occupied by the bitmap. "
                   "Use larger granularity");
    } else {
        return true;
    }
    return false;
}

/* With all that are persistent, but only in memory so far. */
static bool check_number(BlockDriverState *bs, const char *name, Error **errp)
{
    g_autoptr(GPtrArray) bitmaps = qcow2_bitmaps_read(bs, errp);
    BdrvDirtyBitmap *b = NULL;

    if (!bitmaps) {
        return false;
    }
    qcow2_bitmaps_add(bitmaps, name);
    while ((b = bdrv_dirty_bitmap_next(bs, b))) {
        const char *other = bdrv_dirty_bitmap_name(b);

        if (bdrv_dirty_bitmap_get_persistence(b) &&
            !qcow2_bitmaps_find(bitmaps, other)) {
            qcow2_bitmaps_add(bitmaps, other);
        }
    }
    if (bitmaps->len > QCOW2_MAX_BITMAPS) {
        error_setg(errp, "Maximum number of persistent bitmaps is already "
                   "reached");
        return false;
    }
    if (qcow2_bitmaps_size(bitmaps) > QCOW2_MAX_BITMAPS * UINT64_C(1024)) {
        error_setg(errp, "Not enough space in the bitmap directory");
        return false;
    }
    return true;
}

bool qcow2_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                      uint32_t granularity, Error **errp)
{
    ERRP_GUARD();
    BDRVQcow2State *s = bs->opaque;
    bool ok = false;

    if (s->qcow_version < 3) {
        error_setg(errp, "Cannot store dirty bitmaps in qcow2 v2 files");
    } else {
        ok = check_shape(bs, name, bdrv_getlength(bs), granularity, errp) &&
             check_number(bs, name, errp);
    }
    if (!ok) {
        error_prepend(errp, "Can't make bitmap '%s' persistent in '%s': ",
                      name, bdrv_get_node_name(bs));
    }
    return ok;
}

/* ---- Bits ---- */

/* What the table says of the piece at @pos; its bits are written if need be. */
static int store_piece(BlockDriverState *bs, Qcow2BitmapUpdate *u,
                       BdrvDirtyBitmap *b, int64_t pos, uint8_t *buf,
                       uint64_t *entry)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset;

    switch (bdrv_dirty_bitmap_serialize(b, pos, s->cluster_size, buf)) {
    case HBITMAP_PIECE_ZEROES:
        return 0;
    case HBITMAP_PIECE_ONES:
        stq_be_p(entry, QCOW2_BITMAP_ALL_ONES);
        return 0;
    case HBITMAP_PIECE_MIXED:
    default:
        offset = qcow2_bitmap_update_write(bs, u, buf, s->cluster_size);
        if (offset > 0) {
            stq_be_p(entry, offset);
        }
        return MIN(offset, 0);
    }
}

/* New clusters for all of it; then @e refers to them. */
static int store_bits(BlockDriverState *bs, Qcow2BitmapUpdate *u,
                      BdrvDirtyBitmap *b, Qcow2Bitmap *e)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t size = bdrv_dirty_bitmap_data_size(b);
    int64_t n = DIV_ROUND_UP(size, s->cluster_size);
    int64_t table_bytes = ROUND_UP(n * sizeof(uint64_t), s->cluster_size);
    g_autofree uint64_t *table = g_try_malloc0(table_bytes);
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_size);
    int64_t offset;

    if (!table || !buf) {
        return -ENOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        int ret = store_piece(bs, u, b, i * s->cluster_size, buf, &table[i]);

        if (ret < 0) {
            return ret;
        }
    }
    offset = qcow2_bitmap_update_write(bs, u, table, table_bytes);
    if (offset < 0) {
        return offset;
    }
    e->table_offset = offset;
    e->table_size = n;
    return 0;
}

static bool store_bitmap(BlockDriverState *bs, Qcow2BitmapUpdate *u,
                         BdrvDirtyBitmap *b, Error **errp)
{
    ERRP_GUARD();
    const char *name = bdrv_dirty_bitmap_name(b);
    uint32_t granularity = bdrv_dirty_bitmap_granularity(b);
    Qcow2Bitmap *e = qcow2_bitmaps_find(u->bitmaps, name);
    int ret;

    if (!check_shape(bs, name, bdrv_dirty_bitmap_size(b), granularity, errp)) {
        error_prepend(errp, "Failed to store bitmap '%s': ", name);
        return false;
    }
    if (e) {
        qcow2_bitmap_update_drop(bs, u, e);
    } else {
        e = qcow2_bitmaps_add(u->bitmaps, name);
    }
    e->granularity_bits = ctz64(granularity);
    e->flags &= QCOW2_BITMAP_EXTRA_COMPAT;
    if (bdrv_dirty_bitmap_enabled(b)) {
        e->flags |= QCOW2_BITMAP_AUTO;
    }
    ret = store_bits(bs, u, b, e);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to store bitmap '%s'", name);
    }
    return ret == 0;
}

/* ---- All of them ---- */

/* Those that are to be stored, the newest first: with stock, too, those that
 * the image does not have yet get into it in this order. */
static GPtrArray *list_stored(BlockDriverState *bs)
{
    GPtrArray *list = g_ptr_array_new();
    BdrvDirtyBitmap *b = NULL;

    while ((b = bdrv_dirty_bitmap_next(bs, b))) {
        if (is_stored(b)) {
            g_ptr_array_add(list, b);
        }
    }
    return list;
}

static bool store_list(BlockDriverState *bs, const GPtrArray *list,
                       Error **errp)
{
    Qcow2BitmapUpdate u;
    int ret;

    if (!qcow2_bitmap_update_begin(bs, &u, errp)) {
        return false;
    }
    for (guint i = 0; i < list->len; i++) {
        if (!store_bitmap(bs, &u, list->pdata[i], errp)) {
            qcow2_bitmap_update_abort(bs, &u);
            return false;
        }
    }
    ret = qcow2_bitmap_update_commit(bs, &u);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to update bitmap extension");
    }
    return ret == 0;
}

bool qcow2_store_dirty_bitmaps(BlockDriverState *bs, bool release_stored,
                               Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(GPtrArray) list = list_stored(bs);

    if (list->len == 0) {
        return true;
    }
    if (s->qcow_version < 3) {
        error_setg(errp, "Cannot store dirty bitmaps in qcow2 v2 files");
        return false;
    }
    if (!store_list(bs, list, errp)) {
        return false;
    }
    for (guint i = 0; release_stored && i < list->len; i++) {
        bdrv_release_dirty_bitmap(list->pdata[i]);
    }
    return true;
}

bool qcow2_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                          const char *name, Error **errp)
{
    Qcow2BitmapUpdate u;
    Qcow2Bitmap *e;
    int ret;

    if (!qcow2_bitmap_update_begin(bs, &u, errp)) {
        return false;
    }
    e = qcow2_bitmaps_find(u.bitmaps, name);
    if (!e) {
        qcow2_bitmap_update_abort(bs, &u);      /* nothing to do */
        return true;
    }
    qcow2_bitmap_update_drop(bs, &u, e);
    g_ptr_array_remove(u.bitmaps, e);
    ret = qcow2_bitmap_update_commit(bs, &u);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to update bitmap extension");
    }
    return ret == 0;
}
