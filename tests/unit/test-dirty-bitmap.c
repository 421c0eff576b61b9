/*
 * Dirty bitmaps of a node.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "block/dirty-bitmap.h"
#include "test-driver.h"

#define SIZE (256 * KiB)
#define GRAN 4096

#define PLAIN "{'driver':'test','disk':'d'}"

typedef struct Fixture {
    TestEnv e;
    TestDisk *d;
    BlockBackend *blk;
    BlockDriverState *bs;
    BdrvDirtyBitmap *b;
} Fixture;

static void fixture_open(Fixture *f, const char *options)
{
    f->blk = test_open(f->e.graph, "%s", options);
    f->bs = blk_bs(f->blk);
    f->b = bdrv_create_dirty_bitmap(f->bs, GRAN, "b", &error_abort);
}

static void fixture_init(Fixture *f, const char *options)
{
    test_env_init(&f->e);
    f->d = test_disk_new("d", SIZE);
    if (options) {
        fixture_open(f, options);
    }
}

static void fixture_destroy(Fixture *f)
{
    blk_unref(f->blk);
    test_env_destroy(&f->e);
    test_disk_free(f->d);
}

/* This is dirty, to whole granules, and nothing else; it is cleared. */
static void assert_dirty(BdrvDirtyBitmap *b, int64_t offset, int64_t bytes)
{
    int64_t gran = bdrv_dirty_bitmap_granularity(b);
    int64_t end = QEMU_ALIGN_UP(offset + bytes, gran);

    offset = QEMU_ALIGN_DOWN(offset, gran);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, bytes ? end - offset : 0);
    if (bytes) {
        int64_t size = bdrv_dirty_bitmap_size(b);

        g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(b, 0, size), ==, offset);
        g_assert_cmpint(bdrv_dirty_bitmap_next_zero(b, offset, size - offset),
                        ==, end >= size ? -1 : end);
    }
    bdrv_clear_dirty_bitmap(b, NULL);
}

/* ---- Life and state ---- */

static void test_life(void)
{
    Fixture f = { 0 };
    Error *err = NULL;
    BdrvDirtyBitmap *anonymous, *second;
    g_autofree char *name = g_strnfill(BDRV_BITMAP_MAX_NAME_SIZE + 1, 'x');

    fixture_init(&f, PLAIN);
    g_assert_true(bdrv_find_dirty_bitmap(f.bs, "b") == f.b);
    g_assert_null(bdrv_find_dirty_bitmap(f.bs, "c"));
    g_assert_null(bdrv_create_dirty_bitmap(f.bs, GRAN, "b", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Bitmap already exists: b");
    g_clear_pointer(&err, error_free);
    g_assert_null(bdrv_create_dirty_bitmap(f.bs, GRAN, name, &err));
    g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                   "Bitmap name too long: x"));
    g_clear_pointer(&err, error_free);
    name[BDRV_BITMAP_MAX_NAME_SIZE] = '\0';
    second = bdrv_create_dirty_bitmap(f.bs, 512, name, &error_abort);
    anonymous = bdrv_create_dirty_bitmap(f.bs, 512, NULL, &error_abort);
    g_assert_true(bdrv_dirty_bitmap_next(f.bs, NULL) == anonymous);
    g_assert_true(bdrv_dirty_bitmap_next(f.bs, anonymous) == second);
    g_assert_true(bdrv_dirty_bitmap_next(f.bs, second) == f.b);
    g_assert_null(bdrv_dirty_bitmap_next(f.bs, f.b));
    bdrv_release_dirty_bitmap(anonymous);
    g_assert_true(bdrv_dirty_bitmap_next(f.bs, NULL) == second);
    bdrv_release_dirty_bitmap(NULL);
    fixture_destroy(&f);            /* what is left goes with the node */
}

static void assert_refused(BdrvDirtyBitmap *b, uint32_t flags,
                           const char *message, const char *hint)
{
    Error *err = NULL;

    g_assert_false(bdrv_dirty_bitmap_check(b, flags, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    g_assert_cmpstr(error_get_hint(err), ==, hint);
    error_free(err);
}

static void test_check(void)
{
    Fixture f = { 0 };

    fixture_init(&f, PLAIN);
    g_assert_true(bdrv_dirty_bitmap_check(f.b, BDRV_BITMAP_DEFAULT,
                                          &error_abort));
    bdrv_dirty_bitmap_set_inconsistent(f.b);
    g_assert_false(bdrv_dirty_bitmap_enabled(f.b));
    bdrv_enable_dirty_bitmap(f.b);
    g_assert_false(bdrv_dirty_bitmap_enabled(f.b));
    assert_refused(f.b, BDRV_BITMAP_ALLOW_RO,
                   "Bitmap 'b' is inconsistent and cannot be used",
                   "Try block-dirty-bitmap-remove to delete this bitmap from "
                   "disk\n");
    g_assert_false(bdrv_has_readonly_bitmaps(f.bs));
    bdrv_dirty_bitmap_set_readonly(f.b, true);
    g_assert_true(bdrv_has_readonly_bitmaps(f.bs));
    assert_refused(f.b, BDRV_BITMAP_DEFAULT,
                   "Bitmap 'b' is readonly and cannot be modified", "");
    bdrv_dirty_bitmap_set_busy(f.b, true);
    assert_refused(f.b, BDRV_BITMAP_DEFAULT,
                   "Bitmap 'b' is currently in use by another operation and "
                   "cannot be used", "");
    bdrv_dirty_bitmap_set_busy(f.b, false);
    fixture_destroy(&f);
}

static void test_query(void)
{
    Fixture f = { 0 };
    g_autoptr(json_t) list = NULL;
    g_autoptr(json_t) want = test_options(
        "{'l':[{'name':'c','count':512,'granularity':512,'recording':false,"
        "'busy':true,'persistent':true,'inconsistent':true},"
        "{'count':0,'granularity':512,'recording':true,'busy':false,"
        "'persistent':false},"
        "{'name':'b','count':8192,'granularity':4096,'recording':true,"
        "'busy':false,'persistent':false}]}");
    BdrvDirtyBitmap *c;

    fixture_init(&f, PLAIN);
    bdrv_set_dirty_bitmap(f.b, 4095, 2);
    bdrv_create_dirty_bitmap(f.bs, 512, NULL, &error_abort);
    c = bdrv_create_dirty_bitmap(f.bs, 512, "c", &error_abort);
    bdrv_set_dirty_bitmap(c, 0, 1);
    bdrv_dirty_bitmap_set_inconsistent(c);
    bdrv_dirty_bitmap_set_persistence(c, true);
    bdrv_dirty_bitmap_set_busy(c, true);
    list = bdrv_query_dirty_bitmaps(f.bs);
    g_assert_true(json_equal(list, json_object_get(want, "l")));
    bdrv_dirty_bitmap_set_busy(c, false);
    bdrv_release_dirty_bitmap(c);
    fixture_destroy(&f);
}

static void test_query_none(void)
{
    Fixture f = { 0 };

    fixture_init(&f, PLAIN);
    bdrv_release_dirty_bitmap(f.b);
    g_assert_null(bdrv_query_dirty_bitmaps(f.bs));
    fixture_destroy(&f);
}

/* ---- Size ---- */

static void test_truncate(void)
{
    Fixture f = { 0 };

    fixture_init(&f, PLAIN);
    bdrv_set_dirty_bitmap(f.b, SIZE - 8192, 8192);
    g_assert_true(blk_truncate(f.blk, SIZE - 4096, false, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(bdrv_dirty_bitmap_size(f.b), ==, SIZE - 4096);
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 4096);
    g_assert_true(blk_truncate(f.blk, SIZE, false, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(bdrv_dirty_bitmap_size(f.b), ==, SIZE);
    assert_dirty(f.b, SIZE - 8192, 4096);
    fixture_destroy(&f);
}

/* ---- Bits ---- */

static void test_clear_and_restore(void)
{
    Fixture f = { 0 };
    HBitmap *backup;

    fixture_init(&f, PLAIN);
    bdrv_set_dirty_bitmap(f.b, 4096, 1);
    bdrv_clear_dirty_bitmap(f.b, &backup);
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 0);
    bdrv_set_dirty_bitmap(f.b, 0, 1);
    bdrv_restore_dirty_bitmap(f.b, backup);
    g_assert_false(bdrv_dirty_bitmap_get(f.b, 0));
    g_assert_true(bdrv_dirty_bitmap_get(f.b, 4096));
    g_assert_false(bdrv_dirty_bitmap_get(f.b, 2 * SIZE));
    bdrv_reset_dirty_bitmap(f.b, 4097, 4096);
    g_assert_true(bdrv_dirty_bitmap_get(f.b, 4096));
    bdrv_reset_dirty_bitmap(f.b, 4096, 4096);
    assert_dirty(f.b, 0, 0);
    fixture_destroy(&f);
}

static void test_take(void)
{
    Fixture f = { 0 };
    int64_t offset, bytes;

    fixture_init(&f, PLAIN);
    bdrv_set_dirty_bitmap(f.b, 8192, 5 * 4096);
    g_assert_true(bdrv_dirty_bitmap_take(f.b, 9000, 100, 4096, &offset,
                                         &bytes));
    g_assert_cmpint(offset, ==, 8192);
    g_assert_cmpint(bytes, ==, 4096);
    g_assert_true(bdrv_dirty_bitmap_take(f.b, 0, SIZE, 9000, &offset, &bytes));
    g_assert_cmpint(offset, ==, 12288);
    g_assert_cmpint(bytes, ==, 8192);
    g_assert_true(bdrv_dirty_bitmap_take(f.b, 0, INT64_MAX, INT64_MAX, &offset,
                                         &bytes));
    g_assert_cmpint(offset, ==, 20480);
    g_assert_cmpint(bytes, ==, 8192);
    g_assert_false(bdrv_dirty_bitmap_take(f.b, 0, SIZE, 4096, &offset,
                                          &bytes));
    g_assert_false(bdrv_dirty_bitmap_take(f.b, 2 * SIZE, 1, 4096, &offset,
                                          &bytes));
    fixture_destroy(&f);
}

static void test_merge(void)
{
    Fixture f = { 0 };
    g_autoptr(TestDisk) small G_GNUC_UNUSED = test_disk_new("s", 4096);
    BlockBackend *other;
    BdrvDirtyBitmap *fine, *wrong;
    HBitmap *backup;
    Error *err = NULL;

    fixture_init(&f, PLAIN);
    fine = bdrv_create_dirty_bitmap(f.bs, 512, "fine", &error_abort);
    bdrv_set_dirty_bitmap(fine, 4096 + 512, 512);
    bdrv_set_dirty_bitmap(f.b, 0, 1);
    g_assert_true(bdrv_merge_dirty_bitmap(f.b, fine, &backup, &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 8192);
    bdrv_restore_dirty_bitmap(f.b, backup);
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 4096);
    g_assert_true(bdrv_merge_dirty_bitmap(fine, f.b, NULL, &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(fine), ==, 4096 + 512);
    g_assert_true(bdrv_merge_dirty_bitmap(fine, fine, NULL, &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(fine), ==, 4096 + 512);

    other = test_open(f.e.graph, "{'driver':'test','disk':'s'}");
    wrong = bdrv_create_dirty_bitmap(blk_bs(other), 512, "w", &error_abort);
    g_assert_false(bdrv_merge_dirty_bitmap(f.b, wrong, &backup, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Bitmaps are of different sizes (destination size is "
                    "262144, source size is 4096) and can't be merged");
    error_free(err);
    bdrv_dirty_bitmap_set_readonly(f.b, true);
    g_assert_false(bdrv_merge_dirty_bitmap(f.b, fine, NULL, NULL));
    g_assert_true(bdrv_merge_dirty_bitmap(fine, f.b, NULL, &error_abort));
    blk_unref(other);
    fixture_destroy(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
    g_test_add_func("/dirty-bitmap/life", test_life);
    g_test_add_func("/dirty-bitmap/check", test_check);
    g_test_add_func("/dirty-bitmap/query/all", test_query);
    g_test_add_func("/dirty-bitmap/query/none", test_query_none);
    g_test_add_func("/dirty-bitmap/size/truncate", test_truncate);
    g_test_add_func("/dirty-bitmap/bits/clear-and-restore",
                    test_clear_and_restore);
    g_test_add_func("/dirty-bitmap/bits/take", test_take);
    g_test_add_func("/dirty-bitmap/bits/merge", test_merge);
    return g_test_run();
}
