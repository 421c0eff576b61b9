/*
 * qcow2: the dirty bitmaps that an image keeps.
 *
 * Source: "QEMU QCOW Image Format", "Bitmaps extension" to "Dirty tracking
 * bitmaps".
 *
 * All of it is for the control thread, drained, and blocks; the lock is taken
 * inside.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_BITMAP_H
#define BLOCK_QCOW2_BITMAP_H

#include "block/dirty-bitmap.h"
#include "qcow2.h"

/* "Bitmap directory entry": flags. */
enum {
    QCOW2_BITMAP_IN_USE       = 1 << 0,
    QCOW2_BITMAP_AUTO         = 1 << 1,
    QCOW2_BITMAP_EXTRA_COMPAT = 1 << 2,
    QCOW2_BITMAP_FLAGS        = 0x7,
};

#define QCOW2_BITMAP_MIN_GRANULARITY_BITS 9
#define QCOW2_BITMAP_MAX_GRANULARITY_BITS 31
/* What all the bits of one may take, as with stock. */
#define QCOW2_BITMAP_MAX_BYTES (512 * MiB)

/* "Bitmap table": an entry without an offset says what all bits are. */
#define QCOW2_BITMAP_OFFSET_MASK   0x00fffffffffffe00ULL
#define QCOW2_BITMAP_RESERVED_MASK 0xff000000000001feULL
#define QCOW2_BITMAP_ALL_ONES      1ULL

/* An entry of the directory. */
typedef struct Qcow2Bitmap {
    uint64_t table_offset;
    uint32_t table_size;            /* entries */
    uint32_t flags;
    uint8_t granularity_bits;
    char *name;
    uint8_t *extra;                 /* of whoever knows it: kept as it is */
    uint32_t extra_size;
} Qcow2Bitmap;

/* ---- qcow2-bitmap-directory.c ---- */

/*
 * The directory of the image, checked: entries of Qcow2Bitmap, none if there
 * are no bitmaps; for g_ptr_array_unref().  What the tables hold is not looked
 * at.  NULL with @errp.
 */
GPtrArray *qcow2_bitmaps_read(BlockDriverState *bs, Error **errp);
/* A new entry at the end of @bitmaps, whose @name is copied. */
Qcow2Bitmap *qcow2_bitmaps_add(GPtrArray *bitmaps, const char *name);
Qcow2Bitmap *qcow2_bitmaps_find(const GPtrArray *bitmaps, const char *name);
/* Bytes of an entry, of all of them. */
uint64_t qcow2_bitmap_entry_size(const char *name, uint32_t extra_size);
uint64_t qcow2_bitmaps_size(const GPtrArray *bitmaps);
/* Write what was read, with other flags, where it is; durably.  0, -errno. */
int qcow2_bitmaps_write_flags(BlockDriverState *bs, const GPtrArray *bitmaps);

/*
 * A change of the directory: what is new is written elsewhere first, and what
 * is old is freed when the header refers to the new one.
 */
typedef struct Qcow2BitmapUpdate {
    GPtrArray *bitmaps;             /* as they will be */
    GArray *added, *dropped;        /* clusters: offsets and lengths */
} Qcow2BitmapUpdate;

/* Of the directory as it is; false with @errp. */
bool qcow2_bitmap_update_begin(BlockDriverState *bs, Qcow2BitmapUpdate *u,
                               Error **errp);
/* New clusters with @bytes of @buf, in which there is room for whole ones (what
 * is past @bytes is zero).  Their offset, or -errno. */
int64_t qcow2_bitmap_update_write(BlockDriverState *bs, Qcow2BitmapUpdate *u,
                                  const void *buf, int64_t bytes);
/* The table of @bitmap, and all that it refers to, will not be needed. */
void qcow2_bitmap_update_drop(BlockDriverState *bs, Qcow2BitmapUpdate *u,
                              const Qcow2Bitmap *bitmap);
/* Durably; 0 or -errno (then nothing has changed).  Either this or _abort is
 * the end of it. */
int qcow2_bitmap_update_commit(BlockDriverState *bs, Qcow2BitmapUpdate *u);
void qcow2_bitmap_update_abort(BlockDriverState *bs, Qcow2BitmapUpdate *u);

/* ---- qcow2-bitmap-load.c ---- */

/* What is wrong with the entry of a table?  0 or -EINVAL. */
int qcow2_bitmap_check_entry(const BDRVQcow2State *s, uint64_t entry);

/* At open, when the rest is done: a BdrvDirtyBitmap for each; if the image is
 * writable they are marked as in use.  False with @errp. */
bool qcow2_load_bitmaps(BlockDriverState *bs, Error **errp);
/* The image is written from now on, or after all: its bitmaps are in use,
 * durably.  If that cannot be said, it is not written to any more. */
void qcow2_use_bitmaps(BlockDriverState *bs);
void qcow2_set_bitmaps_readonly(BlockDriverState *bs, bool readonly);

/* ---- qcow2-bitmap-store.c ---- */

/* Could the disk's length be changed, as far as bitmaps are concerned? */
bool qcow2_bitmaps_may_resize(BlockDriverState *bs, Error **errp);
bool qcow2_supports_persistent_dirty_bitmap(BlockDriverState *bs);
bool qcow2_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                      uint32_t granularity, Error **errp);
bool qcow2_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                          const char *name, Error **errp);
bool qcow2_store_dirty_bitmaps(BlockDriverState *bs, bool release_stored,
                               Error **errp);

/* ---- qcow2-bitmap-info.c ---- */

/* QAPI's Qcow2BitmapInfo of each: a new array, NULL without @errp: none. */
json_t *qcow2_query_bitmaps(BlockDriverState *bs, Error **errp);
/* Bytes that the persistent bitmaps of @bs would take in another image. */
int64_t qcow2_measure_bitmaps(BlockDriverState *bs, int64_t cluster_size);

#endif
