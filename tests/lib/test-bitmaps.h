/*
 * "test-bitmaps": a format that keeps dirty bitmaps, in a store in memory
 * instead of its file, to test what the core promises to such a format.
 *
 * The store is made first; option "store" names it.  Everything here is used on
 * the control thread.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TEST_BITMAPS_H
#define TEST_BITMAPS_H

#include "block/dirty-bitmap.h"

/* How much of the data a piece has. */
#define TEST_BITMAPS_PIECE 512

typedef struct TestStoredBitmap {
    char *name;
    uint32_t granularity;
    bool is_auto;               /* enabled when it is loaded */
    bool in_use;                /* not stored since it was loaded */
    int64_t size;               /* of the image */
    GArray *kinds;              /* HBitmapPiece, of each piece … */
    GByteArray *data;           /* … and its bits, if mixed */
} TestStoredBitmap;

typedef struct TestBitmaps {
    char *id;
    GPtrArray *stored;          /* of TestStoredBitmap */
    int max;                    /* so many can be stored */
    bool fail_store;
    bool fail_remove;
    int stores;                 /* calls of store_dirty_bitmaps */
} TestBitmaps;

/* After test_drivers_register(). */
void test_bitmaps_register(void);
TestBitmaps *test_bitmaps_new(const char *id);
void test_bitmaps_free(TestBitmaps *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TestBitmaps, test_bitmaps_free)
/* NULL: not stored. */
TestStoredBitmap *test_bitmaps_find(TestBitmaps *t, const char *name);

#endif
