/*
 * The bits of dirty bitmaps: each function is one critical section round a
 * function of HBitmap.
 *
 * A thread holds one bitmap_lock at a time, so merging copies first: the copy
 * is of one moment, and what is marked in the source later is not in it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "dirty-bitmap-int.h"

/* ---- Looking and changing ---- */

int64_t bdrv_dirty_bitmap_size(BdrvDirtyBitmap *b)
{
    int64_t size;

    bdrv_dirty_bitmap_lock(b);
    size = hbitmap_size(b->bits);
    bdrv_dirty_bitmap_unlock(b);
    return size;
}

void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *b, int64_t offset, int64_t bytes)
{
    bdrv_dirty_bitmap_lock(b);
    hbitmap_set(b->bits, offset, bytes);
    bdrv_dirty_bitmap_unlock(b);
}

void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *b, int64_t offset, int64_t bytes)
{
    bdrv_dirty_bitmap_lock(b);
    hbitmap_reset(b->bits, offset, bytes);
    bdrv_dirty_bitmap_unlock(b);
}

void bdrv_clear_dirty_bitmap(BdrvDirtyBitmap *b, HBitmap **out)
{
    HBitmap *old;

    bdrv_dirty_bitmap_lock(b);
    old = b->bits;
    b->bits = hbitmap_new(hbitmap_size(old), b->granularity);
    bdrv_dirty_bitmap_unlock(b);
    if (out) {
        *out = old;
    } else {
        hbitmap_free(old);
    }
}

void bdrv_restore_dirty_bitmap(BdrvDirtyBitmap *b, HBitmap *backup)
{
    HBitmap *old;

    assert(hbitmap_granularity(backup) == b->granularity);
    bdrv_dirty_bitmap_lock(b);
    old = b->bits;
    hbitmap_truncate(backup, hbitmap_size(old));
    b->bits = backup;
    bdrv_dirty_bitmap_unlock(b);
    hbitmap_free(old);
}

bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *b, int64_t offset)
{
    bool dirty;

    bdrv_dirty_bitmap_lock(b);
    dirty = offset < hbitmap_size(b->bits) && hbitmap_get(b->bits, offset);
    bdrv_dirty_bitmap_unlock(b);
    return dirty;
}

int64_t bdrv_get_dirty_count(BdrvDirtyBitmap *b)
{
    int64_t count;

    bdrv_dirty_bitmap_lock(b);
    count = hbitmap_count(b->bits);
    bdrv_dirty_bitmap_unlock(b);
    return count;
}

int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *b, int64_t offset,
                                     int64_t bytes)
{
    int64_t found;

    bdrv_dirty_bitmap_lock(b);
    found = hbitmap_next_dirty(b->bits, offset, bytes);
    bdrv_dirty_bitmap_unlock(b);
    return found;
}

int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *b, int64_t offset,
                                    int64_t bytes)
{
    int64_t found;

    bdrv_dirty_bitmap_lock(b);
    found = hbitmap_next_zero(b->bits, offset, bytes);
    bdrv_dirty_bitmap_unlock(b);
    return found;
}

bool bdrv_dirty_bitmap_next_dirty_area(BdrvDirtyBitmap *b, int64_t offset,
                                       int64_t bytes, int64_t max_bytes,
                                       int64_t *area_offset,
                                       int64_t *area_bytes)
{
    bool found;

    bdrv_dirty_bitmap_lock(b);
    found = hbitmap_next_dirty_area(b->bits, offset, bytes, max_bytes,
                                    area_offset, area_bytes);
    bdrv_dirty_bitmap_unlock(b);
    return found;
}

bool bdrv_dirty_bitmap_take(BdrvDirtyBitmap *b, int64_t offset, int64_t bytes,
                            int64_t max_bytes, int64_t *area_offset,
                            int64_t *area_bytes)
{
    int64_t gran = b->granularity, start = QEMU_ALIGN_DOWN(offset, gran);
    int64_t size, end;
    bool found;

    max_bytes = MAX(QEMU_ALIGN_DOWN(max_bytes, gran), gran);
    bdrv_dirty_bitmap_lock(b);
    size = hbitmap_size(b->bits);
    /* Both are at most BDRV_MAX_END: no overflow. */
    end = bytes >= size - offset ? size : QEMU_ALIGN_UP(offset + bytes, gran);
    found = end > start &&
            hbitmap_next_dirty_area(b->bits, start, end - start, max_bytes,
                                    area_offset, area_bytes);
    if (found) {
        hbitmap_reset(b->bits, *area_offset, *area_bytes);
    }
    bdrv_dirty_bitmap_unlock(b);
    return found;
}

/* ---- Merging ---- */

HBitmap *bdrv_dirty_bitmap_copy(BdrvDirtyBitmap *b)
{
    HBitmap *copy;

    bdrv_dirty_bitmap_lock(b);
    copy = hbitmap_copy(b->bits);
    bdrv_dirty_bitmap_unlock(b);
    return copy;
}

bool bdrv_merge_dirty_bitmap(BdrvDirtyBitmap *dest, BdrvDirtyBitmap *src,
                             HBitmap **backup, Error **errp)
{
    g_autoptr(HBitmap) from = NULL;
    int64_t size;

    if (!bdrv_dirty_bitmap_check(dest, BDRV_BITMAP_DEFAULT, errp) ||
        !bdrv_dirty_bitmap_check(src, BDRV_BITMAP_ALLOW_RO, errp)) {
        return false;
    }
    from = bdrv_dirty_bitmap_copy(src);
    bdrv_dirty_bitmap_lock(dest);
    size = hbitmap_size(dest->bits);
    if (size == hbitmap_size(from)) {
        if (backup) {
            *backup = hbitmap_copy(dest->bits);
        }
        hbitmap_merge(dest->bits, from);
    }
    bdrv_dirty_bitmap_unlock(dest);
    if (size != hbitmap_size(from)) {
        error_setg(errp, "Bitmaps are of different sizes (destination size is "
                   "%" PRId64 ", source size is %" PRId64 ") and can't be "
                   "merged", size, hbitmap_size(from));
        return false;
    }
    return true;
}

/* ---- Successors ---- */

bool bdrv_dirty_bitmap_create_successor(BdrvDirtyBitmap *b, Error **errp)
{
    bool busy;

    bdrv_dirty_bitmap_lock(b);
    busy = b->busy;
    if (!busy) {
        b->busy = true;
        b->successor = hbitmap_new(hbitmap_size(b->bits), b->granularity);
    }
    bdrv_dirty_bitmap_unlock(b);
    return !busy || bdrv_dirty_bitmap_check(b, BDRV_BITMAP_BUSY, errp);
}

void bdrv_dirty_bitmap_abdicate(BdrvDirtyBitmap *b)
{
    bdrv_dirty_bitmap_lock(b);
    assert(b->successor);
    hbitmap_free(b->bits);
    b->bits = b->successor;
    b->successor = NULL;
    b->busy = false;
    bdrv_dirty_bitmap_unlock(b);
}

void bdrv_reclaim_dirty_bitmap(BdrvDirtyBitmap *b)
{
    bdrv_dirty_bitmap_lock(b);
    assert(b->successor);
    hbitmap_merge(b->bits, b->successor);
    hbitmap_free(b->successor);
    b->successor = NULL;
    b->busy = false;
    bdrv_dirty_bitmap_unlock(b);
}

/* ---- For images ---- */

int64_t bdrv_dirty_bitmap_data_size(BdrvDirtyBitmap *b)
{
    return hbitmap_data_size(bdrv_dirty_bitmap_size(b), b->granularity);
}

HBitmapPiece bdrv_dirty_bitmap_serialize(BdrvDirtyBitmap *b, int64_t pos,
                                         int64_t len, uint8_t *buf)
{
    HBitmapPiece kind;

    bdrv_dirty_bitmap_lock(b);
    kind = hbitmap_piece(b->bits, pos, len);
    if (kind == HBITMAP_PIECE_MIXED) {
        hbitmap_serialize(b->bits, pos, len, buf);
    }
    bdrv_dirty_bitmap_unlock(b);
    return kind;
}

void bdrv_dirty_bitmap_deserialize(BdrvDirtyBitmap *b, HBitmapPiece kind,
                                   int64_t pos, int64_t len,
                                   const uint8_t *buf)
{
    bdrv_dirty_bitmap_lock(b);
    switch (kind) {
    case HBITMAP_PIECE_ZEROES:
        hbitmap_deserialize_zeroes(b->bits, pos, len);
        break;
    case HBITMAP_PIECE_ONES:
        hbitmap_deserialize_ones(b->bits, pos, len);
        break;
    case HBITMAP_PIECE_MIXED:
        hbitmap_deserialize(b->bits, pos, len, buf);
        break;
    }
    bdrv_dirty_bitmap_unlock(b);
}
