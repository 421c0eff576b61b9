/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The contents of repair-contents.h.
 */
#include "proof-int.h"
#include "repair-contents.h"
#include "block/dirty-bitmap.h"
#include "block/snapshot.h"

#define SECTOR 512

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

static bool opens(Contents *c, const char *id)
{
    size_t length = c->why->len;
    BlockBackend *blk = contents_open(c, id, 0);

    if (!blk) {
        g_string_truncate(c->why, length);
        return false;
    }
    blk_unref(blk);
    return true;
}

/* The disk, or snapshot number @i - 1 of it; NULL, and why. */
static BlockBackend *open_one(Contents *c, const char *id, int i)
{
    g_autofree char *name = g_strdup_printf("s%d", i - 1);
    BlockBackend *blk = contents_open(c, id, 0);

    if (blk && i && !bdrv_snapshot_load_tmp(blk_bs(blk), NULL, name, NULL)) {
        g_string_append_printf(c->why, ", %s cannot be loaded", name);
        blk_unref(blk);
        blk = NULL;
    }
    return blk;
}

/* How many sectors from @first on are known, or are not, as it is? */
static int run_of(const Contents *c, int i, int first)
{
    int n = 1, end = c->size / SECTOR;

    if (!c->known[i]) {
        return end - first;
    }
    while (first + n < end && c->known[i][first + n] == c->known[i][first]) {
        n++;
    }
    return n;
}

static bool is_known(const Contents *c, int i, int sector)
{
    return !c->known[i] || c->known[i][sector];
}

static bool is_as_before(const Contents *c, BlockBackend *blk, int i,
                         int sector, int n)
{
    g_autofree uint8_t *buf = g_malloc(n * SECTOR);

    return blk_pread(blk, (int64_t)sector * SECTOR, n * SECTOR, buf, 0) == 0 &&
           !memcmp(buf, c->data[i] + sector * SECTOR, n * SECTOR);
}

static bool one_is_in(Contents *c, const char *id, int i)
{
    int first = 0, end = c->size / SECTOR, n = run_of(c, i, 0);
    BlockBackend *blk;
    bool ok = true;

    if (n == end && !is_known(c, i, 0)) {
        return true;                /* nothing of it is */
    }
    blk = open_one(c, id, i);
    for (; blk && ok && first < end; first += n) {
        n = run_of(c, i, first);
        ok = !is_known(c, i, first) || is_as_before(c, blk, i, first, n);
    }
    if (blk) {
        blk_unref(blk);
    }
    if (!ok) {
        g_string_append_printf(c->why, "%s is not what it was, in the %d "
                               "sectors before %d",
                               i ? "a snapshot" : "the disk", n, first);
    }
    return blk && ok;
}

static int keep_one(Contents *c, const char *id, int i, bool is_lost)
{
    BlockBackend *blk = is_lost ? NULL : open_one(c, id, i);
    int left = 0;

    for (int k = 0; k < c->size / SECTOR; k++) {
        c->known[i][k] &= blk && is_as_before(c, blk, i, k, 1);
        left += c->known[i][k];
    }
    if (blk) {
        blk_unref(blk);
    }
    return left;
}

static void forget(uint8_t *known, int64_t size, uint64_t offset,
                   uint64_t bytes)
{
    if (offset < (uint64_t)size) {
        bytes = MIN(bytes, size - offset);
        memset(known + offset / SECTOR, 0, DIV_ROUND_UP(bytes, SECTOR));
    }
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
    BlockBackend *blk = contents_open(c, id, 0);
    bool ok = blk;

    for (int i = 0; ok && i < c->n_bitmaps; i++) {
        g_autofree uint8_t *now = NULL;

        if (!c->bits[i]) {
            continue;
        }
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

static void keep_bitmaps(Contents *c, const char *id)
{
    BlockBackend *blk = c->may_not_open ? NULL : contents_open(c, id, 0);

    for (int i = 0; i < c->n_bitmaps; i++) {
        g_autofree uint8_t *now = NULL;

        if (!blk || !read_bitmap(c, blk, i, &now) ||
            memcmp(now, c->bits[i], n_bits(c))) {
            g_clear_pointer(&c->bits[i], g_free);
        }
    }
    if (blk) {
        blk_unref(blk);
    }
}

static void take_bitmaps(Contents *c, const char *id)
{
    BlockBackend *blk = contents_open(c, id, 0);

    for (int i = 0; i < c->n_bitmaps; i++) {
        g_assert_true(read_bitmap(c, blk, i, &c->bits[i]));
    }
    blk_unref(blk);
}

/* ---- The list of snapshots ---- */

/* NULL: it does not open. */
static char *list_snapshots(Contents *c, const char *id)
{
    BlockBackend *blk = contents_open(c, id, 0);
    GString *text = blk ? g_string_new(NULL) : NULL;
    g_autofree QEMUSnapshotInfo *list = NULL;
    size_t n = 0;

    if (!blk) {
        return NULL;
    }
    bdrv_snapshot_list(blk_bs(blk), &list, &n, &error_abort);
    for (size_t i = 0; i < n; i++) {
        g_string_append_printf(text, "%s:%s:%" PRIu64 ":%u ", list[i].id_str,
                               list[i].name, list[i].vm_state_size,
                               list[i].date_sec);
    }
    blk_unref(blk);
    return g_string_free(text, FALSE);
}

static bool list_is_in(Contents *c, const char *id)
{
    g_autofree char *now = c->list ? list_snapshots(c, id) : NULL;

    if (g_strcmp0(now, c->list) == 0) {
        return true;
    }
    g_string_append(c->why, "the list of snapshots is another");
    return false;
}

/* ---- All of it ---- */

int contents_keep(Contents *c, const char *id, const Qcow2Lost *lost)
{
    int left = 0;

    c->may_not_open = !opens(c, id);
    c->list = lost->snapshots == ~0u ? NULL : list_snapshots(c, id);
    keep_bitmaps(c, id);
    g_string_truncate(c->why, 0);
    for (int i = 0; i < c->n; i++) {
        c->known[i] = g_malloc(c->size / SECTOR);
        memset(c->known[i], 1, c->size / SECTOR);
        for (unsigned k = 0; k < lost->n; k++) {
            if (lost->ranges[k].user < 0 || lost->ranges[k].user == i) {
                forget(c->known[i], c->size, lost->ranges[k].offset,
                       lost->ranges[k].bytes);
            }
        }
        left += keep_one(c, id, i, i && lost->snapshots >> (i - 1) & 1);
    }
    return left;
}

void contents_take(Contents *c, const char *id)
{
    for (int i = 0; i < c->n; i++) {
        BlockBackend *blk = open_one(c, id, i);

        c->data[i] = g_malloc(c->size);
        g_assert_cmpint(blk_pread(blk, 0, c->size, c->data[i], 0), ==, 0);
        blk_unref(blk);
    }
    take_bitmaps(c, id);
}

bool contents_are_in(Contents *c, const char *id)
{
    if (c->may_not_open && !opens(c, id)) {
        return true;
    }
    for (int i = 0; i < c->n; i++) {
        if (!one_is_in(c, id, i)) {
            return false;
        }
    }
    return list_is_in(c, id) && bitmaps_are_in(c, id);
}

/* What is written to the disk.  False: it fails, and must not. */
static bool write_and_note(Contents *c, BlockBackend *blk, int64_t at,
                           int64_t bytes, uint8_t value)
{
    memset(c->data[0] + at, value, bytes);
    for (int i = 1; i < c->n_bitmaps; i++) {
        if (c->bits[i]) {
            memset(c->bits[i] + at / BITMAP_GRANULARITY, 1,
                   bytes / BITMAP_GRANULARITY);
        }
    }
    if (blk_pwrite(blk, at, bytes, c->data[0] + at, 0) == 0) {
        return true;
    }
    if (c->known[0]) {
        forget(c->known[0], c->size, at, bytes);
    }
    return c->known[0];
}

static void copy_back(Contents *c, const Contents *saved)
{
    memcpy(c->data[0], saved->data[0], c->size);
    c->may_be_in_use = saved->may_be_in_use;
    if (c->known[0]) {
        memcpy(c->known[0], saved->known[0], c->size / SECTOR);
    }
    for (int i = 0; i < c->n_bitmaps; i++) {
        if (c->bits[i]) {
            memcpy(c->bits[i], saved->bits[i], n_bits(c));
        }
    }
}

static Contents copy_of(const Contents *c)
{
    Contents copy = { .data[0] = g_memdup2(c->data[0], c->size), .n = 1,
                      .n_bitmaps = c->n_bitmaps,
                      .may_be_in_use = c->may_be_in_use };

    copy.known[0] = c->known[0] ? g_memdup2(c->known[0], c->size / SECTOR) :
                    NULL;
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
    bool ok = blk || c->known[0];

    for (int i = 0; blk && ok && i < 8; i++) {
        int64_t at = g_rand_int_range(rand, 0, c->size / 512) * 512;
        int64_t bytes = MIN(20 * 512, c->size - at);

        ok = write_and_note(c, blk, at, bytes, 1 + i);
    }
    if (blk) {
        blk_unref(blk);
    }
    if (!ok) {
        g_string_append(c->why, "what was repaired cannot be written");
    }
    /* An image that turns out to be corrupt stores nothing. */
    c->may_be_in_use |= c->known[0] != NULL;
    if (ok && !contents_are_in(c, id)) {
        g_string_append(c->why, ", when it was written");
        ok = false;
    }
    copy_back(c, &saved);
    contents_clear(&saved);
    return ok;
}

void contents_clear(Contents *c)
{
    g_free(c->list);
    for (int i = 0; i < c->n; i++) {
        g_free(c->data[i]);
        g_free(c->known[i]);
    }
    for (int i = 0; i < MAX_BITMAPS; i++) {
        g_free(c->bits[i]);
    }
}
