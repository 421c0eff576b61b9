/*
 * Fuzz target: check, repair, check again.
 *
 * A check does not write, even where it could.  It finds nothing wrong with
 * what a checker that shares nothing with the driver finds sound.
 *
 * A repair that says that nothing is left leaves an image that opens, nothing
 * for the next check, nor for that checker, and nothing to write for the next
 * repair; one of leaks only makes no corruption.
 *
 * Data that could be read, of the disk and of snapshots, can be read after a
 * repair, and is the same, unless a table lies on it; if nothing was corrupt,
 * without exception, and bitmaps are as they were.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "fuzz.h"
#include "block/dirty-bitmap.h"

/* Of which contents are compared. */
#define MAX_SNAPSHOTS 2
#define FIX_ALL (BDRV_FIX_LEAKS | BDRV_FIX_ERRORS)

typedef struct Outcome {
    int ret;
    BdrvCheckResult res;
} Outcome;

static bool is_done(const Outcome *o)
{
    return o->ret == 0 && !o->res.check_errors;
}

static bool is_sound(const Outcome *o)
{
    return is_done(o) && !o->res.corruptions;
}

static bool is_clean(const Outcome *o)
{
    return is_sound(o) && !o->res.leaks;
}

/* How to open @img in order to check it. */
static int flags_of(const FuzzImage *img, bool writable)
{
    return BDRV_O_CHECK | (writable ? BDRV_O_RDWR : 0) |
           (fuzz_image_is_locked(img) ? BDRV_O_NO_IO : 0);
}

/* False: it cannot be opened. */
static bool check(FuzzImage *img, BdrvCheckMode fix, Outcome *o)
{
    BlockBackend *blk = fuzz_image_open(img, flags_of(img, fix));

    if (!blk) {
        return false;
    }
    *o = (Outcome){ 0 };
    o->ret = bdrv_check(blk_bs(blk), &o->res, fix);
    blk_unref(blk);
    return true;
}

static void G_GNUC_NORETURN fail(const char *what, const Outcome *o)
{
    fuzz_fail("%s: %d, %" PRId64 " corruptions, %" PRId64 " leaks, %" PRId64
              " errors", what, o->ret, o->res.corruptions, o->res.leaks,
              o->res.check_errors);
}

/* ---- What is in an image ---- */

typedef struct Contents {
    GArray *disk;
    unsigned n;
    char ids[MAX_SNAPSHOTS][128];
    GArray *snapshots[MAX_SNAPSHOTS];   /* NULL: cannot be read */
    json_t *bitmaps;
} Contents;

static void contents_free(Contents *c)
{
    g_array_unref(c->disk);
    for (unsigned i = 0; i < c->n; i++) {
        g_clear_pointer(&c->snapshots[i], g_array_unref);
    }
    json_decref(c->bitmaps);
    g_free(c);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Contents, contents_free)

static void list_snapshots(BlockBackend *blk, Contents *c)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    size_t n = 0;

    if (bdrv_snapshot_list(blk_bs(blk), &list, &n, NULL)) {
        c->n = MIN(n, MAX_SNAPSHOTS);
    }
    for (unsigned i = 0; i < c->n; i++) {
        g_strlcpy(c->ids[i], list[i].id_str, sizeof(c->ids[i]));
    }
}

static GArray *read_snapshot(FuzzImage *img, const char *id)
{
    BlockBackend *blk = fuzz_image_open(img, 0);
    GArray *chunks = NULL;

    if (blk && bdrv_snapshot_load_tmp(blk_bs(blk), id, NULL, NULL)) {
        chunks = fuzz_contents(blk);
    }
    if (blk) {
        blk_unref(blk);
    }
    return chunks;
}

/* NULL: it cannot be opened. */
static Contents *read_all(FuzzImage *img)
{
    BlockBackend *blk = fuzz_image_open(img, 0);
    Contents *c;

    if (!blk) {
        return NULL;
    }
    c = g_new0(Contents, 1);
    c->disk = fuzz_contents(blk);
    c->bitmaps = bdrv_query_dirty_bitmaps(blk_bs(blk)) ?: json_null();
    list_snapshots(blk, c);
    blk_unref(blk);
    for (unsigned i = 0; i < c->n; i++) {
        c->snapshots[i] = read_snapshot(img, c->ids[i]);
    }
    return c;
}

/* ---- The same data? ---- */

typedef struct Before {
    const uint8_t *data;
    size_t size;
    Outcome check;
    Contents *contents;         /* NULL: none that can be read */
    FuzzLayout *layout;
    bool tables_overlap;
} Before;

/* May the repair have changed what it reads as? */
static bool may_change(const Before *b, const FuzzImage *img,
                       const FuzzChunk *c)
{
    if (is_sound(&b->check)) {
        return false;
    }
    if (c->is_compressed || fuzz_image_is_encrypted(img)) {
        return true;            /* nobody says where it is */
    }
    return c->host >= 0 && !img->data &&
           (c->host + c->bytes > (int64_t)b->size ||
            fuzz_layout_is_table(b->layout, c->host, c->bytes));
}

static void compare(const Before *b, const FuzzImage *img, const char *what,
                    const GArray *old, const GArray *now)
{
    for (guint i = 0; i < MIN(old->len, now->len); i++) {
        const FuzzChunk *x = &g_array_index(old, FuzzChunk, i);
        const FuzzChunk *y = &g_array_index(now, FuzzChunk, i);

        if (x->offset != y->offset || x->bytes != y->bytes) {
            return;             /* something is readable that was not */
        }
        if (x->ret == 0 && !may_change(b, img, x) &&
            (y->ret != 0 || x->sum != y->sum)) {
            fuzz_fail("a repair changed the data of %s at %" PRId64, what,
                      x->offset);
        }
    }
}

static void compare_snapshots(const Before *b, const FuzzImage *img,
                              const Contents *now)
{
    const Contents *old = b->contents;

    for (unsigned i = 0; i < MIN(old->n, now->n); i++) {
        if (!old->snapshots[i] || strcmp(old->ids[i], now->ids[i])) {
            continue;
        }
        if (!now->snapshots[i]) {
            fuzz_fail("a repair lost snapshot %s", old->ids[i]);
        }
        compare(b, img, old->ids[i], old->snapshots[i], now->snapshots[i]);
    }
}

static void check_contents(const Before *b, FuzzImage *repaired)
{
    g_autoptr(Contents) now = b->contents ? read_all(repaired) : NULL;

    if (!b->contents) {
        return;
    }
    if (!now) {
        fuzz_fail("what could be opened cannot be opened after a repair");
    }
    if (!b->tables_overlap || is_sound(&b->check)) {
        compare(b, repaired, "the disk", b->contents->disk, now->disk);
        compare_snapshots(b, repaired, now);
    }
    if (is_sound(&b->check) &&
        (now->n != b->contents->n ||
         !json_equal(now->bitmaps, b->contents->bitmaps))) {
        fuzz_fail("a repair changed what snapshots or bitmaps there are");
    }
}

/* ---- Checks ---- */

/* Of an image that opens, without snapshots, whose file does not end early: the
 * checker does not mind what else there is. */
static void check_alarm(FuzzImage *img)
{
    g_autoptr(FuzzImage) copy = fuzz_image_clone(img);
    g_autoptr(GString) why = g_string_new("");
    Outcome o;

    if (!fuzz_image_is_sound(copy, FUZZ_PRISTINE, why)) {
        return;
    }
    fuzz_image_lengthen(copy);
    if (check(copy, 0, &o) && !is_clean(&o)) {
        fail("nothing is wrong, but", &o);
    }
}

/* On a node that can be written to: it finds the same, and still writes
 * nothing. */
static void check_writable(FuzzImage *img, const Outcome *before)
{
    g_autoptr(FuzzImage) copy = fuzz_image_clone(img);
    BlockBackend *blk = fuzz_image_open(copy, flags_of(img, true));
    unsigned changes = fuzz_image_changes(copy);
    Outcome o = { 0 };

    if (!blk) {
        return;
    }
    o.ret = bdrv_check(blk_bs(blk), &o.res, 0);
    if (fuzz_image_changes(copy) != changes) {
        fuzz_fail("a check wrote to the image");
    }
    blk_unref(blk);
    if (memcmp(&o.res, &before->res, sizeof(o.res))) {
        fail("a check of a node that can be written to finds", &o);
    }
}

/* ---- Repairs ---- */

/* The next one has nothing to do. */
static void check_idle(FuzzImage *img)
{
    g_autoptr(FuzzImage) copy = fuzz_image_clone(img);
    Outcome again;

    if (!check(copy, FIX_ALL, &again) || !is_clean(&again)) {
        fuzz_fail("repaired, but not the second time");
    }
    if (fuzz_image_changes(copy)) {
        fuzz_fail("repaired, but a second repair writes");
    }
}

static void check_opens(FuzzImage *img)
{
    BlockBackend *blk = fuzz_image_is_locked(img) ? NULL :
                        fuzz_image_open(img, 0);

    if (blk) {
        blk_unref(blk);
    } else if (!fuzz_image_is_locked(img)) {
        fuzz_fail("repaired, but it does not open");
    }
}

static void check_repaired(FuzzImage *img)
{
    g_autoptr(GString) why = g_string_new("");
    Outcome after;

    if (!check(img, 0, &after)) {
        fuzz_fail("cannot be checked after a repair");
    }
    if (!is_clean(&after)) {
        fail("repaired, but", &after);
    }
    if (!fuzz_image_is_sound(img, FUZZ_REPAIRED, why)) {
        fuzz_fail("repaired, but: %s", why->str);
    }
    check_idle(img);
    check_opens(img);
}

static void repair_all(FuzzImage *img, const Before *b)
{
    g_autoptr(FuzzImage) copy = fuzz_image_clone(img);
    Outcome repair, after;

    if (!check(copy, FIX_ALL, &repair)) {
        return;
    }
    fuzz_image_keep(copy);
    if (is_clean(&repair)) {
        check_repaired(copy);
    } else if (is_clean(&b->check)) {
        fail("a repair of what was clean finds", &repair);
    } else if (!check(copy, 0, &after)) {
        fuzz_fail("cannot be checked after a repair");
    }
    check_contents(b, copy);
}

static void repair_leaks(FuzzImage *img, const Before *b)
{
    g_autoptr(FuzzImage) copy = fuzz_image_clone(img);
    Outcome repair, after;

    if (!is_sound(&b->check) || !check(copy, BDRV_FIX_LEAKS, &repair)) {
        return;
    }
    if (!check(copy, 0, &after) || !is_sound(&after) ||
        (is_clean(&repair) && !is_clean(&after))) {
        fail("leaks are repaired, but", &after);
    }
    check_contents(b, copy);
}

void fuzz_check(const uint8_t *data, size_t size)
{
    g_autoptr(FuzzImage) img = fuzz_image_new(data, size);
    Before b = { .data = data, .size = size };

    if (!check(img, 0, &b.check)) {
        return;
    }
    b.contents = read_all(img);
    b.layout = fuzz_layout_new(data, size);
    b.tables_overlap = fuzz_layout_tables_overlap(b.layout);
    fuzz_image_assert_unchanged(img);
    if (b.contents && !fuzz_image_has_snapshots(img)) {
        check_alarm(img);
    }
    check_writable(img, &b.check);
    repair_all(img, &b);
    repair_leaks(img, &b);
    fuzz_layout_free(b.layout);
    if (b.contents) {
        contents_free(b.contents);
    }
}
