/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The contents of repair-contents.h.
 */
#include "proof-int.h"
#include "repair-contents.h"
#include "block/dirty-bitmap.h"
#include "block/snapshot.h"

BlockBackend *contents_open(Contents *c, const char *id, int flags)
{
    json_t *o = options_from_json(c->open ?: "{}", &error_abort);
    Error *err = NULL;
    BlockBackend *blk;

    json_object_set_new(o, "driver", json_string("qcow2"));
    json_object_set_new(o, "file", json_pack("{s:s, s:s}", "driver",
                                             "write-log", "disk", id));
    blk = blk_new_open(c->graph, NULL, NULL, o, flags, &err);
    if (!blk) {
        g_string_append_printf(c->why, "does not open: %s",
                               error_get_pretty(err));
        error_free(err);
    }
    return blk;
}

/* The disk, or snapshot number @i - 1 of it. */
static uint8_t *read_one(Contents *c, const char *id, int i)
{
    g_autofree char *name = g_strdup_printf("s%d", i - 1);
    BlockBackend *blk = contents_open(c, id, 0);
    g_autofree uint8_t *buf = g_malloc(c->size);
    bool ok = blk;

    if (ok && i) {
        ok = bdrv_snapshot_load_tmp(blk_bs(blk), NULL, name, NULL);
    }
    ok = ok && blk_pread(blk, 0, c->size, buf, 0) == 0;
    if (blk) {
        blk_unref(blk);
    }
    if (!ok) {
        g_string_append_printf(c->why, ", %s cannot be read", i ? name : "it");
    }
    return ok ? g_steal_pointer(&buf) : NULL;
}

/* ---- Bitmaps ---- */

static int64_t n_bits(const Contents *c)
{
    return c->size / BITMAP_GRANULARITY;
}

/* False, and why: it is not there, or was in use.  *@bits: NULL if so. */
static bool read_bitmap(Contents *c, BlockBackend *blk, int i, uint8_t **bits)
{
    g_autofree char *name = g_strdup_printf("b%d", i);
    BdrvDirtyBitmap *b = bdrv_find_dirty_bitmap(blk_bs(blk), name);

    *bits = NULL;
    if (!b || (bdrv_dirty_bitmap_inconsistent(b) && !c->may_be_in_use)) {
        g_string_append_printf(c->why, "bitmap %s %s", name,
                               b ? "was in use" : "is lost");
        return false;
    }
    if (bdrv_dirty_bitmap_inconsistent(b)) {
        return true;
    }
    *bits = g_malloc(n_bits(c));
    for (int64_t k = 0; k < n_bits(c); k++) {
        (*bits)[k] = bdrv_dirty_bitmap_get(b, k * BITMAP_GRANULARITY);
    }
    return true;
}

static bool bitmaps_are_in(Contents *c, const char *id)
{
    BlockBackend *blk = c->n_bitmaps ? contents_open(c, id, 0) : NULL;
    bool ok = blk || !c->n_bitmaps;

    for (int i = 0; ok && i < c->n_bitmaps; i++) {
        g_autofree uint8_t *now = NULL;

        ok = read_bitmap(c, blk, i, &now);
        if (ok && now && memcmp(now, c->bits[i], n_bits(c))) {
            g_string_append_printf(c->why, "bitmap b%d is another", i);
            ok = false;
        }
    }
    if (blk) {
        blk_unref(blk);
    }
    return ok;
}

static void take_bitmaps(Contents *c, const char *id)
{
    BlockBackend *blk = contents_open(c, id, 0);

    for (int i = 0; i < c->n_bitmaps; i++) {
        g_assert_true(read_bitmap(c, blk, i, &c->bits[i]));
    }
    blk_unref(blk);
}

/* ---- All of it ---- */

void contents_take(Contents *c, const char *id)
{
    for (int i = 0; i < c->n; i++) {
        c->data[i] = read_one(c, id, i);
        g_assert_nonnull(c->data[i]);
    }
    take_bitmaps(c, id);
}

bool contents_are_in(Contents *c, const char *id)
{
    for (int i = 0; i < c->n; i++) {
        g_autofree uint8_t *now = read_one(c, id, i);

        if (!now) {
            return false;
        }
        if (memcmp(now, c->data[i], c->size)) {
            g_string_append_printf(c->why, "%s is not what it was",
                                   i ? "a snapshot" : "the disk");
            return false;
        }
    }
    return bitmaps_are_in(c, id);
}

/* What is written to the disk. */
static int write_and_note(Contents *c, BlockBackend *blk, int64_t at,
                          int64_t bytes, uint8_t value)
{
    memset(c->data[0] + at, value, bytes);
    for (int i = 1; i < c->n_bitmaps; i++) {
        memset(c->bits[i] + at / BITMAP_GRANULARITY, 1,
               bytes / BITMAP_GRANULARITY);
    }
    return blk_pwrite(blk, at, bytes, c->data[0] + at, 0);
}

static void copy_back(Contents *c, const Contents *saved)
{
    memcpy(c->data[0], saved->data[0], c->size);
    for (int i = 0; i < c->n_bitmaps; i++) {
        memcpy(c->bits[i], saved->bits[i], n_bits(c));
    }
}

static Contents copy_of(const Contents *c)
{
    Contents copy = { .data[0] = g_memdup2(c->data[0], c->size), .n = 1,
                      .n_bitmaps = c->n_bitmaps };

    for (int i = 0; i < c->n_bitmaps; i++) {
        copy.bits[i] = g_memdup2(c->bits[i], n_bits(c));
    }
    return copy;
}

bool contents_can_be_written(Contents *c, const char *id, uint32_t seed)
{
    BlockBackend *blk = contents_open(c, id, BDRV_O_RDWR);
    Contents saved = copy_of(c);
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    bool ok = blk;

    for (int i = 0; ok && i < 8; i++) {
        int64_t at = g_rand_int_range(rand, 0, c->size / 512) * 512;
        int64_t bytes = MIN(20 * 512, c->size - at);

        ok = write_and_note(c, blk, at, bytes, 1 + i) == 0;
    }
    if (blk) {
        blk_unref(blk);
    }
    if (!ok) {
        g_string_append(c->why, "what was repaired cannot be written");
    }
    ok = ok && contents_are_in(c, id);
    copy_back(c, &saved);
    contents_clear(&saved);
    return ok;
}

void contents_clear(Contents *c)
{
    for (int i = 0; i < c->n; i++) {
        g_free(c->data[i]);
    }
    for (int i = 0; i < c->n_bitmaps; i++) {
        g_free(c->bits[i]);
    }
}
