/*
 * qcow2: bitmaps, from the image into memory.
 *
 * Source: "QEMU QCOW Image Format", "Bitmap table", "Bitmap data".
 *
 * A bitmap that is loaded for writing is marked as in use in the directory,
 * durably, before the image can be written: whoever finds it so after a crash
 * knows that its bits mean nothing.  One that was found in use is inconsistent:
 * it is there to be removed.
 *
 * All clusters of all bitmaps are different ones in an image that is meant
 * well, so together they are not larger than the file; what refers to more is
 * refused, before it takes the memory.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-bitmap.h"
#include "qemu/atomic.h"
#include "qemu/error.h"

int qcow2_bitmap_check_entry(const BDRVQcow2State *s, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_BITMAP_OFFSET_MASK;

    if ((entry & QCOW2_BITMAP_RESERVED_MASK) ||
        (offset && (entry & QCOW2_BITMAP_ALL_ONES)) ||
        !QEMU_IS_ALIGNED(offset, s->cluster_size)) {
        return -EINVAL;
    }
    return 0;
}

/* ---- Bits ---- */

typedef struct Loader {
    BlockDriverState *bs;
    const Qcow2Bitmap *entry;
    BdrvDirtyBitmap *bitmap;
    int64_t *budget;                /* bytes of bits that there may still be */
    uint8_t *buf;                   /* a cluster */
} Loader;

static bool bad_table(const Loader *l, int ret, Error **errp)
{
    error_setg_errno(errp, -ret, "Could not read bitmap_table table from image "
                     "for bitmap '%s'", l->entry->name);
    return false;
}

static bool bad_bits(const Loader *l, int ret, Error **errp)
{
    error_setg_errno(errp, -ret, "Could not read bitmap '%s' from image",
                     l->entry->name);
    return false;
}

/* A new bitmap has no bits set. */
static bool load_cluster(const Loader *l, uint64_t entry, int64_t index,
                         Error **errp)
{
    BDRVQcow2State *s = l->bs->opaque;
    uint64_t offset = entry & QCOW2_BITMAP_OFFSET_MASK;
    HBitmapPiece kind = HBITMAP_PIECE_ONES;

    if (entry == 0) {
        return true;
    }
    if (qcow2_bitmap_check_entry(s, entry) < 0) {
        return bad_table(l, -EINVAL, errp);
    }
    if (offset) {
        int ret = -EINVAL;

        *l->budget -= s->cluster_size;
        if (*l->budget >= 0) {
            ret = bdrv_pread(l->bs->file, offset, s->cluster_size, l->buf, 0);
        }
        if (ret < 0) {
            return bad_bits(l, ret, errp);
        }
        kind = HBITMAP_PIECE_MIXED;
    }
    bdrv_dirty_bitmap_deserialize(l->bitmap, kind, index * s->cluster_size,
                                  s->cluster_size, l->buf);
    return true;
}

static bool load_bits(const Loader *l, Error **errp)
{
    BDRVQcow2State *s = l->bs->opaque;
    uint32_t per_cluster = s->cluster_size / sizeof(uint64_t);
    g_autofree uint64_t *table = g_malloc(s->cluster_size);
    int64_t size = bdrv_dirty_bitmap_data_size(l->bitmap);

    if (DIV_ROUND_UP(size, s->cluster_size) != l->entry->table_size) {
        return bad_bits(l, -EINVAL, errp);
    }
    for (uint32_t i = 0; i < l->entry->table_size; i++) {
        uint32_t k = i % per_cluster;

        if (k == 0) {
            uint32_t n = MIN(l->entry->table_size - i, per_cluster);
            int ret = bdrv_pread(l->bs->file, l->entry->table_offset +
                                 i * sizeof(uint64_t), n * sizeof(uint64_t),
                                 table, 0);

            if (ret < 0) {
                return bad_table(l, ret, errp);
            }
        }
        if (!load_cluster(l, GUINT64_FROM_BE(table[k]), i, errp)) {
            return false;
        }
    }
    return true;
}

/* ---- Bitmaps ---- */

static bool load(Loader *l, Error **errp)
{
    const Qcow2Bitmap *e = l->entry;

    l->bitmap = bdrv_create_dirty_bitmap(l->bs, 1u << e->granularity_bits,
                                         e->name, errp);
    if (!l->bitmap) {
        return false;
    }
    bdrv_dirty_bitmap_set_persistence(l->bitmap, true);
    if (e->flags & QCOW2_BITMAP_IN_USE) {
        bdrv_dirty_bitmap_set_inconsistent(l->bitmap);
    } else if (!load_bits(l, errp)) {
        return false;
    }
    if (!(e->flags & QCOW2_BITMAP_AUTO)) {
        bdrv_disable_dirty_bitmap(l->bitmap);
    }
    return true;
}

static bool load_all(BlockDriverState *bs, const GPtrArray *bitmaps,
                     Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t budget = bdrv_getlength(bs->file->bs);
    g_autofree uint8_t *buf = g_malloc(s->cluster_size);
    /* From before the image was handed over, and came back. */
    g_autofree bool *is_known = g_new0(bool, bitmaps->len);

    if (budget < 0) {
        error_setg_errno(errp, -budget, "Could not read bitmaps");
        return false;
    }
    budget += s->cluster_size;      /* the last one need not be there whole */
    for (guint i = 0; i < bitmaps->len; i++) {
        const Qcow2Bitmap *e = bitmaps->pdata[i];

        is_known[i] = bdrv_find_dirty_bitmap(bs, e->name);
    }
    for (guint i = 0; i < bitmaps->len; i++) {
        Loader l = { .bs = bs, .entry = bitmaps->pdata[i],
                     .budget = &budget, .buf = buf };

        if (!is_known[i] && !load(&l, errp)) {
            return false;
        }
    }
    return true;
}

static bool mark_in_use(BlockDriverState *bs, GPtrArray *bitmaps, Error **errp)
{
    bool changes = false;
    int ret = 0;

    for (guint i = 0; i < bitmaps->len; i++) {
        Qcow2Bitmap *e = bitmaps->pdata[i];

        changes |= !(e->flags & QCOW2_BITMAP_IN_USE);
        e->flags |= QCOW2_BITMAP_IN_USE;
    }
    if (changes) {
        ret = qcow2_bitmaps_write_flags(bs, bitmaps);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not mark the image's bitmaps as "
                         "in use");
    }
    return ret == 0;
}

void qcow2_use_bitmaps(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Error *err = NULL;
    g_autoptr(GPtrArray) bitmaps = qcow2_bitmaps_read(bs, &err);

    if (!bitmaps || !mark_in_use(bs, bitmaps, &err)) {
        error_reportf_err(err, "qcow2: '%s' cannot be written: ",
                          bdrv_get_filename(bs));
        qatomic_set(&s->corrupt, true);
    }
}

void qcow2_set_bitmaps_readonly(BlockDriverState *bs, bool readonly)
{
    BdrvDirtyBitmap *b = NULL;

    while ((b = bdrv_dirty_bitmap_next(bs, b))) {
        if (bdrv_dirty_bitmap_get_persistence(b)) {
            bdrv_dirty_bitmap_set_readonly(b, readonly);
        }
    }
}

bool qcow2_load_bitmaps(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(GPtrArray) bitmaps = qcow2_bitmaps_read(bs, errp);

    if (!bitmaps || !load_all(bs, bitmaps, errp)) {
        return false;
    }
    qcow2_set_bitmaps_readonly(bs, !s->writable);
    return !s->writable || mark_in_use(bs, bitmaps, errp);
}
