/*
 * What the files of dirty bitmaps share.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef DIRTY_BITMAP_INT_H
#define DIRTY_BITMAP_INT_H

#include "block-internal.h"
#include "block/dirty-bitmap.h"

struct BdrvDirtyBitmap {
    /* Constant. */
    BlockDriverState *bs;
    char *name;                 /* NULL: none */
    uint32_t granularity;

    /* bs->bitmap_lock. */
    HBitmap *bits GUARDED_BY(bitmap_class);
    HBitmap *successor GUARDED_BY(bitmap_class);    /* records instead */
    bool enabled GUARDED_BY(bitmap_class);
    bool busy GUARDED_BY(bitmap_class);
    bool readonly GUARDED_BY(bitmap_class);
    bool persistent GUARDED_BY(bitmap_class);
    bool skip_store GUARDED_BY(bitmap_class);
    bool inconsistent GUARDED_BY(bitmap_class);
    ListNode node GUARDED_BY(bitmap_class);         /* bs->dirty_bitmaps */
};

/*
 * Take the bitmap's lock.  A growing write extends a node without asking its
 * bitmaps: they follow here, before anybody looks at them.
 */
void bdrv_dirty_bitmap_lock(BdrvDirtyBitmap *b) ACQUIRES(bitmap_class);
void bdrv_dirty_bitmap_unlock(BdrvDirtyBitmap *b) RELEASES(bitmap_class);
/* The bits, and those of the successor, have the size @size. */
void bdrv_dirty_bitmap_resize_locked(BdrvDirtyBitmap *b, int64_t size)
    REQUIRES(bitmap_class);

#endif
