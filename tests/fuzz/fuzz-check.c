/*
 * Fuzz target: check, repair, check again.
 *
 * A check does not write.  A repair that says that nothing is left leaves
 * nothing for the next check, nor for a checker that shares nothing with the
 * driver; one of leaks only makes no corruption.  Data that could be read can
 * be read afterwards, and is the same, unless a table lies on it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "fuzz.h"

typedef struct Outcome {
    int ret;
    BdrvCheckResult res;
} Outcome;

static bool is_done(const Outcome *o)
{
    return o->ret == 0 && !o->res.check_errors;
}

static bool is_clean(const Outcome *o)
{
    return is_done(o) && !o->res.corruptions && !o->res.leaks;
}

/* False: it cannot be opened. */
static bool check(FuzzImage *img, BdrvCheckMode fix, Outcome *o)
{
    BlockBackend *blk = fuzz_image_open(img, BDRV_O_CHECK |
                                        (fix ? BDRV_O_RDWR : 0));

    if (!blk) {
        return false;
    }
    *o = (Outcome){ 0 };
    o->ret = bdrv_check(blk_bs(blk), &o->res, fix);
    blk_unref(blk);
    return true;
}

static GArray *read_all(FuzzImage *img)
{
    BlockBackend *blk = fuzz_image_open(img, 0);
    GArray *chunks = blk ? fuzz_contents(blk) : NULL;

    if (blk) {
        blk_unref(blk);
    }
    return chunks;
}

/* ---- The same data? ---- */

/* May the repair have changed what it reads as? */
static bool may_change(const FuzzLayout *l, const Outcome *before,
                       const FuzzChunk *c)
{
    if (c->is_compressed) {
        return before->res.corruptions > 0;
    }
    return c->host >= 0 &&
           (c->host + c->bytes > (int64_t)l->size ||
            fuzz_layout_is_table(l, c->host, c->bytes));
}

static void compare(const FuzzLayout *l, const Outcome *before,
                    const GArray *a, const GArray *b)
{
    for (guint i = 0; i < MIN(a->len, b->len); i++) {
        const FuzzChunk *x = &g_array_index(a, FuzzChunk, i);
        const FuzzChunk *y = &g_array_index(b, FuzzChunk, i);

        if (x->offset != y->offset || x->bytes != y->bytes) {
            return;             /* something is readable that was not */
        }
        if (x->ret == 0 && !may_change(l, before, x) &&
            (y->ret != 0 || x->sum != y->sum)) {
            fuzz_fail("a repair changed the data at %" PRId64, x->offset);
        }
    }
}

static void check_contents(const uint8_t *data, size_t size,
                           const Outcome *before, const GArray *contents,
                           FuzzImage *repaired)
{
    g_autoptr(FuzzLayout) l = fuzz_layout_new(data, size);
    GArray *now = contents ? read_all(repaired) : NULL;

    if (contents && !now) {
        fuzz_fail("what could be opened cannot be opened after a repair");
    }
    if (now && !fuzz_layout_tables_overlap(l)) {
        compare(l, before, contents, now);
    }
    if (now) {
        g_array_unref(now);
    }
}

/* ---- Repairs ---- */

static void repair_all(const uint8_t *data, size_t size, FuzzImage *img,
                       const Outcome *before, const GArray *contents)
{
    g_autoptr(FuzzImage) copy = fuzz_image_clone(img);
    g_autoptr(GString) why = g_string_new("");
    Outcome repair, after = { 0 };

    if (!check(copy, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, &repair)) {
        return;
    }
    if (!check(copy, 0, &after)) {
        fuzz_fail("cannot be checked after a repair");
    }
    fuzz_image_keep(copy);
    if (is_clean(&repair)) {
        if (!is_clean(&after)) {
            fuzz_fail("repaired, but: %d, %" PRId64 " corruptions, %" PRId64
                      " leaks, %" PRId64 " errors", after.ret,
                      after.res.corruptions, after.res.leaks,
                      after.res.check_errors);
        }
        if (!fuzz_image_is_sound(copy, FUZZ_REPAIRED, why)) {
            fuzz_fail("repaired, but: %s", why->str);
        }
    }
    check_contents(data, size, before, contents, copy);
}

static void repair_leaks(FuzzImage *img, const Outcome *before)
{
    g_autoptr(FuzzImage) copy = fuzz_image_clone(img);
    Outcome repair, after;

    if (check(copy, BDRV_FIX_LEAKS, &repair) && check(copy, 0, &after) &&
        is_done(before) && !before->res.corruptions &&
        (!is_done(&after) || after.res.corruptions)) {
        fuzz_fail("repairing leaks made %" PRId64 " corruptions",
                  after.res.corruptions);
    }
}

void fuzz_check(const uint8_t *data, size_t size)
{
    g_autoptr(FuzzImage) img = fuzz_image_new(data, size);
    Outcome before;
    GArray *contents;

    if (!check(img, 0, &before)) {
        return;
    }
    contents = read_all(img);
    fuzz_image_assert_unchanged(img);
    repair_all(data, size, img, &before, contents);
    repair_leaks(img, &before);
    if (contents) {
        g_array_unref(contents);
    }
}
