/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bitmap over a range of bytes, one bit for each *granule* of a power of two
 * bytes, that takes memory only where clean and dirty granules are mixed.
 *
 * Offsets and lengths are bytes; they may be anywhere inside the bitmap, and
 * what of a range lies past its end is ignored.  Setting takes every granule
 * that the range touches; resetting only those that lie in it whole (the last
 * one counts as whole if the range reaches the bitmap's end): so a bitmap errs
 * towards dirty.
 *
 * Not locked: like any plain data, one thread may change it while no other
 * looks.  Nothing blocks.  A small allocation that fails aborts, as with all of
 * glib; a bitmap never takes more than its bits and a thousandth more.
 */
#ifndef QEMU_HBITMAP_H
#define QEMU_HBITMAP_H

#include "qemu/osdep.h"

typedef struct HBitmap HBitmap;

#define HBITMAP_MIN_GRANULARITY 512u
#define HBITMAP_MAX_GRANULARITY (1u << 31)

/* Whether hbitmap_new() takes @granularity. */
bool hbitmap_granularity_is_valid(uint64_t granularity);

/*
 * A clean bitmap of @size >= 0 bytes; @granularity is valid.  For
 * hbitmap_free(), which takes NULL.
 */
HBitmap *hbitmap_new(int64_t size, uint32_t granularity);
HBitmap *hbitmap_copy(const HBitmap *hb);
void hbitmap_free(HBitmap *hb);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HBitmap, hbitmap_free)

int64_t hbitmap_size(const HBitmap *hb);
uint32_t hbitmap_granularity(const HBitmap *hb);
/* Bytes of the dirty granules, each counted whole: may exceed the size. */
int64_t hbitmap_count(const HBitmap *hb);
/* Bytes of memory that it takes. */
size_t hbitmap_memory(const HBitmap *hb);

void hbitmap_set(HBitmap *hb, int64_t offset, int64_t bytes);
void hbitmap_reset(HBitmap *hb, int64_t offset, int64_t bytes);
void hbitmap_reset_all(HBitmap *hb);
/* @offset is inside. */
bool hbitmap_get(const HBitmap *hb, int64_t offset);

/* The first dirty (clean) byte of the range; -1: there is none. */
int64_t hbitmap_next_dirty(const HBitmap *hb, int64_t offset, int64_t bytes);
int64_t hbitmap_next_zero(const HBitmap *hb, int64_t offset, int64_t bytes);
/*
 * The first dirty area of the range, cut to the range and to @max_bytes > 0
 * bytes; false: there is none.
 */
bool hbitmap_next_dirty_area(const HBitmap *hb, int64_t offset, int64_t bytes,
                             int64_t max_bytes, int64_t *area_offset,
                             int64_t *area_bytes);

/* Make dirty what is dirty in @src, of the same size and any granularity. */
void hbitmap_merge(HBitmap *hb, const HBitmap *src);
/* Change the size; what is new is clean. */
void hbitmap_truncate(HBitmap *hb, int64_t size);

/*
 * ---- Bitmap data ----
 *
 * The bits as qcow2 stores them (its specification, "Bitmap data"): a bit for
 * each granule, the lowest bit of a byte first, what is left of the last byte
 * zero.  It is read and written in pieces: @pos and @len are in bytes of data,
 * multiples of 8 (a piece may reach past the end of the data).
 */

typedef enum HBitmapPiece {
    HBITMAP_PIECE_ZEROES,      /* no granule is dirty */
    HBITMAP_PIECE_ONES,        /* all are (those that exist) */
    HBITMAP_PIECE_MIXED,
} HBitmapPiece;

/* Bytes of data of a bitmap of that shape. */
int64_t hbitmap_data_size(int64_t size, uint32_t granularity);
HBitmapPiece hbitmap_piece(const HBitmap *hb, int64_t pos, int64_t len);
/* Past the end of the data come zeroes. */
void hbitmap_serialize(const HBitmap *hb, int64_t pos, int64_t len,
                       uint8_t *buf);
/* Replace the piece's bits; those past the end are ignored. */
void hbitmap_deserialize(HBitmap *hb, int64_t pos, int64_t len,
                         const uint8_t *buf);
void hbitmap_deserialize_zeroes(HBitmap *hb, int64_t pos, int64_t len);
void hbitmap_deserialize_ones(HBitmap *hb, int64_t pos, int64_t len);

#endif
