/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps of a node: which parts of it have been written.
 *
 * An enabled bitmap *records*: each write, write of zeroes and discard that
 * reaches the node marks what it touched after it is done and before its
 * completion is reported, also if it failed (a part may have been written).  So
 * who clears a range and then reads it sees all that completed before, and what
 * comes later is marked again.
 *
 * Named bitmaps are the user's; those without a name belong to who made them.
 * Offsets and lengths are bytes.  Nothing here blocks but for the functions
 * that say so: all state is behind the node's bitmap_lock, which is held only
 * for work in memory.
 *
 * Threads: "control" functions run on the control thread; all others on any
 * thread, while the caller makes sure that the bitmap is not released (a named
 * one: by making it busy).
 */
#ifndef BLOCK_DIRTY_BITMAP_H
#define BLOCK_DIRTY_BITMAP_H

#include "block/block.h"
#include "qemu/hbitmap.h"

typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;

/* Bytes of a name; as much as qcow2 can store. */
#define BDRV_BITMAP_MAX_NAME_SIZE 1023

/* ---- Control ---- */

/*
 * A new bitmap of @bs, enabled and clean; drains.  @granularity is valid
 * (hbitmap_granularity_is_valid()); @name NULL: none, otherwise not taken and
 * not too long, or NULL is returned with @errp.  May be called by a driver's
 * open, once its getlength can answer.
 */
BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs,
                                          uint32_t granularity,
                                          const char *name, Error **errp);
/* Forget @bitmap, which is not busy; in memory only.  Without a name: any
 * thread.  NULL is fine. */
void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *bitmap);
/* NULL: there is none. */
BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs,
                                        const char *name);
/* The one after @bitmap, the newest for NULL; NULL: no more. */
BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs,
                                        BdrvDirtyBitmap *bitmap);
/* Record from now on (drains), or not any more. */
void bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *bitmap);
void bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *bitmap);

/* ---- What it is ---- */

/* Constant; the name belongs to the bitmap, NULL: none. */
const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap);
uint32_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap);
BlockDriverState *bdrv_dirty_bitmap_bs(const BdrvDirtyBitmap *bitmap);

int64_t bdrv_dirty_bitmap_size(BdrvDirtyBitmap *bitmap);
bool bdrv_dirty_bitmap_enabled(BdrvDirtyBitmap *bitmap);
/* A job uses it: nobody else may. */
bool bdrv_dirty_bitmap_busy(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy);
/* Its image is read-only: it may be read.  Set by drivers. */
bool bdrv_dirty_bitmap_readonly(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_readonly(BdrvDirtyBitmap *bitmap, bool readonly);
bool bdrv_has_readonly_bitmaps(BlockDriverState *bs);
/* The image keeps it: drivers write it in store_dirty_bitmaps. */
bool bdrv_dirty_bitmap_get_persistence(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_persistence(BdrvDirtyBitmap *bitmap,
                                       bool persistent);
/* Persistent, but not to be written this time. */
bool bdrv_dirty_bitmap_skip_store(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_skip_store(BdrvDirtyBitmap *bitmap, bool skip);
/* The image was not closed properly: its bits mean nothing, it is disabled, and
 * all that can be done is to remove it.  For good; set on loading. */
bool bdrv_dirty_bitmap_inconsistent(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap);

/* What bdrv_dirty_bitmap_check() refuses. */
enum {
    BDRV_BITMAP_BUSY         = 1 << 0,
    BDRV_BITMAP_RO           = 1 << 1,
    BDRV_BITMAP_INCONSISTENT = 1 << 2,

    BDRV_BITMAP_ALLOW_RO = BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT,
    BDRV_BITMAP_DEFAULT  = BDRV_BITMAP_ALLOW_RO | BDRV_BITMAP_RO,
};
/* False with @errp, in words for users, if one of @flags is true of it. */
bool bdrv_dirty_bitmap_check(BdrvDirtyBitmap *bitmap, uint32_t flags,
                             Error **errp);

/* QAPI's BlockDirtyInfo of each, as "dirty-bitmaps" of the queries: a new
 * array, or NULL if @bs has none.  Control. */
json_t *bdrv_query_dirty_bitmaps(BlockDriverState *bs);

/* ---- Bits: as the functions of qemu/hbitmap.h ---- */

void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset,
                           int64_t bytes);
/* What the range has in whole. */
void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset,
                             int64_t bytes);
/* All of it; *@out, unless @out is NULL, gets what was (for hbitmap_free() or
 * bdrv_restore_dirty_bitmap()). */
void bdrv_clear_dirty_bitmap(BdrvDirtyBitmap *bitmap, HBitmap **out);
/* Back to @backup, which is used up; drained, for what has been marked since is
 * forgotten. */
void bdrv_restore_dirty_bitmap(BdrvDirtyBitmap *bitmap, HBitmap *backup);
bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *bitmap, int64_t offset);
/* Bytes of the dirty granules; the last counts whole. */
int64_t bdrv_get_dirty_count(BdrvDirtyBitmap *bitmap);
int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *bitmap, int64_t offset,
                                     int64_t bytes);
int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *bitmap, int64_t offset,
                                    int64_t bytes);
bool bdrv_dirty_bitmap_next_dirty_area(BdrvDirtyBitmap *bitmap, int64_t offset,
                                       int64_t bytes, int64_t max_bytes,
                                       int64_t *area_offset,
                                       int64_t *area_bytes);
/*
 * The same, and clears it: of several threads that take areas in order to copy
 * them, each gets its own.  Ranges are widened to whole granules, and
 * @max_bytes is at least one.  To be put back with bdrv_set_dirty_bitmap() if
 * the copy fails.
 */
bool bdrv_dirty_bitmap_take(BdrvDirtyBitmap *bitmap, int64_t offset,
                            int64_t bytes, int64_t max_bytes,
                            int64_t *area_offset, int64_t *area_bytes);
/* A copy of the bits, for hbitmap_free(). */
HBitmap *bdrv_dirty_bitmap_copy(BdrvDirtyBitmap *bitmap);
/*
 * Mark in @dest what is dirty in @src, of any node and granularity.  False with
 * @errp: the sizes differ, or one of them cannot be used.  *@backup, unless
 * @backup is NULL, gets what was in @dest, for bdrv_restore_dirty_bitmap().
 */
bool bdrv_merge_dirty_bitmap(BdrvDirtyBitmap *dest, BdrvDirtyBitmap *src,
                             HBitmap **backup, Error **errp);

/* ---- Successors: what a backup job does with the user's bitmap ---- */

/*
 * Split @bitmap at this moment (with the node drained, at this point in time):
 * its bits stay as they are, and writes go to a successor until one of the next
 * two.  It is busy meanwhile.  False with @errp: it is busy already.
 */
bool bdrv_dirty_bitmap_create_successor(BdrvDirtyBitmap *bitmap, Error **errp);
/* The job has succeeded: what was written since is all that is dirty. */
void bdrv_dirty_bitmap_abdicate(BdrvDirtyBitmap *bitmap);
/* The job has failed: what was written since is dirty as well. */
void bdrv_reclaim_dirty_bitmap(BdrvDirtyBitmap *bitmap);
bool bdrv_dirty_bitmap_has_successor(BdrvDirtyBitmap *bitmap);

/* ---- Images that keep bitmaps: control; these block ---- */

/* Default granularity: a cluster, but 4 KiB to 64 KiB; 64 KiB without. */
uint32_t bdrv_get_default_bitmap_granularity(BlockDriverState *bs);
/* Does the image keep bitmaps?  (Not that it has some.) */
bool bdrv_supports_persistent_dirty_bitmap(BlockDriverState *bs);
/* Could such a persistent bitmap be stored? */
bool bdrv_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                     uint32_t granularity, Error **errp);
/* Remove it from the image; not from memory. */
bool bdrv_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                         const char *name, Error **errp);
/*
 * Have the driver write the persistent bitmaps, with @release_stored letting go
 * of them.  Closing a node does that, but cannot fail: call it before, drained,
 * if a failure should be known.  True if the driver has nothing to store.
 */
bool bdrv_store_dirty_bitmaps(BlockDriverState *bs, bool release_stored,
                              Error **errp);

/*
 * For store_dirty_bitmaps and for loading: a piece of the bitmap data (see
 * qemu/hbitmap.h; @pos and @len multiples of 8).  What it is like is returned;
 * only what is HBITMAP_PIECE_MIXED is put into @buf.
 */
int64_t bdrv_dirty_bitmap_data_size(BdrvDirtyBitmap *bitmap);
HBitmapPiece bdrv_dirty_bitmap_serialize(BdrvDirtyBitmap *bitmap, int64_t pos,
                                         int64_t len, uint8_t *buf);
/* @buf is looked at only for HBITMAP_PIECE_MIXED. */
void bdrv_dirty_bitmap_deserialize(BdrvDirtyBitmap *bitmap, HBitmapPiece kind,
                                   int64_t pos, int64_t len,
                                   const uint8_t *buf);

/*
 * ---- The user's commands: block-dirty-bitmap-add …, qemu-img bitmap ----
 *
 * Control; block.  False with @errp in words for users, and nothing changed.
 */

/* @granularity 0: the default. */
bool bdrv_dirty_bitmap_cmd_add(BlockDriverState *bs, const char *name,
                               uint64_t granularity, bool persistent,
                               bool disabled, Error **errp);
bool bdrv_dirty_bitmap_cmd_remove(BlockDriverState *bs, const char *name,
                                  Error **errp);
bool bdrv_dirty_bitmap_cmd_clear(BlockDriverState *bs, const char *name,
                                 Error **errp);
bool bdrv_dirty_bitmap_cmd_enable(BlockDriverState *bs, const char *name,
                                  Error **errp);
bool bdrv_dirty_bitmap_cmd_disable(BlockDriverState *bs, const char *name,
                                   Error **errp);
/* @src_name of @src_bs into @name of @bs. */
bool bdrv_dirty_bitmap_cmd_merge(BlockDriverState *bs, const char *name,
                                 BlockDriverState *src_bs,
                                 const char *src_name, Error **errp);

#endif
