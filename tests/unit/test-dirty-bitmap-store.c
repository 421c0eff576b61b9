/*
 * Dirty bitmaps that an image keeps: loading, storing, the user's commands.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "test-bitmaps.h"
#include "test-driver.h"

#define SIZE (64 * MiB)
#define IMAGE "{'driver':'test-bitmaps','store':'s','file':" \
              "{'driver':'null-co','size':67108864}}"

typedef struct Fixture {
    BlockGraph *graph;
    TestBitmaps *store;
    BlockBackend *blk;
    BlockDriverState *bs;
} Fixture;

static void image_open(Fixture *f, int flags)
{
    f->blk = blk_new_open(f->graph, NULL, NULL, test_options(IMAGE), flags,
                          &error_abort);
    f->bs = blk_bs(f->blk);
}

static void image_close(Fixture *f)
{
    g_clear_pointer(&f->blk, blk_unref);
    f->bs = NULL;
}

static void image_reopen(Fixture *f, int flags)
{
    image_close(f);
    image_open(f, flags);
}

static void fixture_init(Fixture *f)
{
    f->graph = block_graph_new();
    f->store = test_bitmaps_new("s");
    image_open(f, BDRV_O_RDWR);
}

static void fixture_destroy(Fixture *f)
{
    image_close(f);
    test_bitmaps_free(f->store);
    block_graph_free(f->graph);
}

static void add(Fixture *f, const char *name, uint64_t granularity)
{
    g_assert_true(bdrv_dirty_bitmap_cmd_add(f->bs, name, granularity, true,
                                            false, &error_abort));
}

static BdrvDirtyBitmap *find(Fixture *f, const char *name)
{
    BdrvDirtyBitmap *b = bdrv_find_dirty_bitmap(f->bs, name);

    g_assert_nonnull(b);
    return b;
}

#define assert_fails(call, message) do {                                    \
    Error *err = NULL;                                                      \
                                                                            \
    g_assert_false(call);                                                   \
    g_assert_cmpstr(error_get_pretty(err), ==, message);                    \
    error_free(err);                                                        \
} while (0)

/* ---- Storing ---- */

/* What is written is dirty when the image is opened again. */
static void test_kept(void)
{
    Fixture f = { 0 };
    uint8_t buf[512] = { 0 };
    BdrvDirtyBitmap *b;

    fixture_init(&f);
    add(&f, "fine", 512);
    add(&f, "coarse", 1 << 20);
    g_assert_true(bdrv_dirty_bitmap_cmd_add(f.bs, "mine", 0, false, false,
                                            &error_abort));
    g_assert_true(bdrv_dirty_bitmap_cmd_disable(f.bs, "coarse", &error_abort));
    g_assert_cmpint(blk_pwrite(f.blk, 40 * MiB, 512, buf, 0), ==, 0);
    image_reopen(&f, BDRV_O_RDWR);
    g_assert_null(bdrv_find_dirty_bitmap(f.bs, "mine"));
    b = find(&f, "coarse");
    g_assert_false(bdrv_dirty_bitmap_enabled(b));
    g_assert_cmpint(bdrv_dirty_bitmap_granularity(b), ==, 1 << 20);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, 0);
    b = find(&f, "fine");
    g_assert_true(bdrv_dirty_bitmap_enabled(b));
    g_assert_true(bdrv_dirty_bitmap_get_persistence(b));
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, 512);
    g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(b, 0, SIZE), ==, 40 * MiB);
    /* It goes on recording. */
    g_assert_cmpint(blk_pwrite(f.blk, 0, 512, buf, 0), ==, 0);
    image_reopen(&f, BDRV_O_RDWR);
    g_assert_cmpint(bdrv_get_dirty_count(find(&f, "fine")), ==, 1024);
    fixture_destroy(&f);
}

/* Uniform pieces are said to be so; the others have the right bits. */
static void test_pieces(void)
{
    Fixture f = { 0 };
    TestStoredBitmap *sb;
    int64_t piece = TEST_BITMAPS_PIECE * 8 * 512;
    static const HBitmapPiece want[] = { HBITMAP_PIECE_ZEROES,
        HBITMAP_PIECE_ONES, HBITMAP_PIECE_MIXED, HBITMAP_PIECE_ZEROES };

    fixture_init(&f);
    add(&f, "b", 512);
    bdrv_set_dirty_bitmap(find(&f, "b"), piece, piece + 512);
    image_close(&f);
    sb = test_bitmaps_find(f.store, "b");
    g_assert_cmpint(sb->kinds->len, ==, SIZE / piece);
    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        g_assert_cmpint(g_array_index(sb->kinds, HBitmapPiece, i), ==,
                        want[i]);
    }
    g_assert_cmpint(sb->data->data[2 * TEST_BITMAPS_PIECE], ==, 1);
    g_assert_cmpint(sb->data->data[2 * TEST_BITMAPS_PIECE + 1], ==, 0);
    image_open(&f, 0);
    g_assert_cmpint(bdrv_get_dirty_count(find(&f, "b")), ==, piece + 512);
    g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(find(&f, "b"), 0, SIZE), ==,
                    piece);
    fixture_destroy(&f);
}

static void test_read_only(void)
{
    Fixture f = { 0 };
    int stores;

    fixture_init(&f);
    add(&f, "b", 0);
    image_reopen(&f, 0);
    stores = f.store->stores;
    g_assert_true(bdrv_has_readonly_bitmaps(f.bs));
    assert_fails(bdrv_dirty_bitmap_cmd_clear(f.bs, "b", &err),
                 "Bitmap 'b' is readonly and cannot be modified");
    assert_fails(bdrv_dirty_bitmap_cmd_remove(f.bs, "b", &err),
                 "Bitmap 'b' is readonly and cannot be modified");
    image_close(&f);
    g_assert_cmpint(f.store->stores, ==, stores);
    image_open(&f, 0);
    fixture_destroy(&f);
}

/* What is in use when it is loaded has been left by a crash. */
static void test_inconsistent(void)
{
    Fixture f = { 0 };

    fixture_init(&f);
    add(&f, "b", 0);
    image_close(&f);
    test_bitmaps_find(f.store, "b")->in_use = true;
    image_open(&f, BDRV_O_RDWR);
    assert_fails(bdrv_dirty_bitmap_cmd_enable(f.bs, "b", &err),
                 "Bitmap 'b' is inconsistent and cannot be used");
    image_reopen(&f, BDRV_O_RDWR);
    g_assert_true(bdrv_dirty_bitmap_inconsistent(find(&f, "b")));
    g_assert_true(bdrv_dirty_bitmap_cmd_remove(f.bs, "b", &error_abort));
    g_assert_null(test_bitmaps_find(f.store, "b"));
    fixture_destroy(&f);
}

static void test_skipped(void)
{
    Fixture f = { 0 };

    fixture_init(&f);
    add(&f, "b", 0);
    bdrv_dirty_bitmap_set_skip_store(find(&f, "b"), true);
    g_assert_true(bdrv_dirty_bitmap_skip_store(find(&f, "b")));
    image_close(&f);
    g_assert_null(test_bitmaps_find(f.store, "b"));
    image_open(&f, 0);
    fixture_destroy(&f);
}

static void test_store_fails(void)
{
    Fixture f = { 0 };
    Error *err = NULL;
    g_autofree char *want = NULL;

    fixture_init(&f);
    add(&f, "b", 0);
    f.store->fail_store = true;
    want = g_strdup_printf("Lost persistent bitmaps during inactivation of "
                           "node '%s': Failed to write bitmaps",
                           bdrv_get_node_name(f.bs));
    g_assert_false(bdrv_store_dirty_bitmaps(f.bs, true, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, want);
    error_free(err);
    /* It is there still, to try again. */
    f.store->fail_store = false;
    g_assert_true(bdrv_store_dirty_bitmaps(f.bs, true, &error_abort));
    g_assert_null(bdrv_find_dirty_bitmap(f.bs, "b"));
    g_assert_nonnull(test_bitmaps_find(f.store, "b"));
    fixture_destroy(&f);
}

/* Closing cannot fail, so it says what is lost. */
static void test_close_reports(void)
{
    Fixture f = { 0 };

    if (g_test_subprocess()) {
        fixture_init(&f);
        add(&f, "b", 0);
        f.store->fail_store = true;
        fixture_destroy(&f);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*Lost persistent bitmaps during inactivation "
                              "of node*: Failed to write bitmaps*");
}

/* ---- Commands ---- */

static void test_add(void)
{
    Fixture f = { 0 };
    g_autofree char *name = g_strnfill(BDRV_BITMAP_MAX_NAME_SIZE + 1, 'x');
    g_autofree char *too_long = g_strconcat("Bitmap name too long: ", name,
                                            NULL);
    g_autofree char *full = NULL;

    fixture_init(&f);
    g_assert_true(bdrv_dirty_bitmap_cmd_add(f.bs, "b", 0, true, true,
                                            &error_abort));
    g_assert_cmpint(bdrv_dirty_bitmap_granularity(find(&f, "b")), ==, 8192);
    g_assert_false(bdrv_dirty_bitmap_enabled(find(&f, "b")));
    assert_fails(bdrv_dirty_bitmap_cmd_add(f.bs, "", 0, true, false, &err),
                 "Bitmap name cannot be empty");
    assert_fails(bdrv_dirty_bitmap_cmd_add(f.bs, "b", 0, true, false, &err),
                 "Bitmap already exists: b");
    assert_fails(bdrv_dirty_bitmap_cmd_add(f.bs, name, 0, false, false, &err),
                 too_long);
    assert_fails(bdrv_dirty_bitmap_cmd_add(f.bs, "c", 513, true, false, &err),
                 "Granularity must be power of 2 and at least 512");
    assert_fails(bdrv_dirty_bitmap_cmd_add(f.bs, "c", UINT64_C(1) << 32, true,
                                           false, &err),
                 "Granularity must be power of 2 and at least 512");
    f.store->max = 0;
    full = g_strdup_printf("Can't make bitmap 'c' persistent in '%s': full",
                           bdrv_get_node_name(f.bs));
    assert_fails(bdrv_dirty_bitmap_cmd_add(f.bs, "c", 0, true, false, &err),
                 full);
    g_assert_null(bdrv_find_dirty_bitmap(f.bs, "c"));
    fixture_destroy(&f);
}

static void test_remove(void)
{
    Fixture f = { 0 };

    fixture_init(&f);
    add(&f, "b", 0);
    image_reopen(&f, BDRV_O_RDWR);
    f.store->fail_remove = true;
    assert_fails(bdrv_dirty_bitmap_cmd_remove(f.bs, "b", &err),
                 "Cannot forget 'b'");
    g_assert_nonnull(bdrv_find_dirty_bitmap(f.bs, "b"));
    f.store->fail_remove = false;
    bdrv_dirty_bitmap_set_busy(find(&f, "b"), true);
    assert_fails(bdrv_dirty_bitmap_cmd_remove(f.bs, "b", &err),
                 "Bitmap 'b' is currently in use by another operation and "
                 "cannot be used");
    bdrv_dirty_bitmap_set_busy(find(&f, "b"), false);
    g_assert_true(bdrv_dirty_bitmap_cmd_remove(f.bs, "b", &error_abort));
    assert_fails(bdrv_dirty_bitmap_cmd_remove(f.bs, "b", &err),
                 "Dirty bitmap 'b' not found");
    g_assert_null(test_bitmaps_find(f.store, "b"));
    fixture_destroy(&f);
}

static void test_merge(void)
{
    Fixture f = { 0 };

    fixture_init(&f);
    add(&f, "a", 512);
    add(&f, "b", 4096);
    bdrv_set_dirty_bitmap(find(&f, "b"), 4096, 1);
    assert_fails(bdrv_dirty_bitmap_cmd_merge(f.bs, "x", f.bs, "b", &err),
                 "Dirty bitmap 'x' not found");
    assert_fails(bdrv_dirty_bitmap_cmd_merge(f.bs, "a", f.bs, "y", &err),
                 "Dirty bitmap 'y' not found");
    g_assert_true(bdrv_dirty_bitmap_cmd_merge(f.bs, "a", f.bs, "b",
                                              &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(find(&f, "a")), ==, 4096);
    g_assert_true(bdrv_dirty_bitmap_cmd_clear(f.bs, "a", &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(find(&f, "a")), ==, 0);
    g_assert_cmpint(bdrv_get_dirty_count(find(&f, "b")), ==, 4096);
    fixture_destroy(&f);
}

/* A node whose format keeps none. */
static void test_not_supported(void)
{
    Fixture f = { 0 };
    BlockDriverState *file;
    g_autofree char *want = NULL;

    fixture_init(&f);
    file = bdrv_primary_bs(f.bs);
    want = g_strdup_printf("Can't store persistent bitmaps to %s: Operation "
                           "not supported", bdrv_get_node_name(file));
    assert_fails(bdrv_dirty_bitmap_cmd_add(file, "b", 0, true, false, &err),
                 want);
    g_assert_true(bdrv_dirty_bitmap_cmd_add(file, "b", 0, false, false,
                                            &error_abort));
    g_assert_cmpint(bdrv_dirty_bitmap_granularity(
                        bdrv_find_dirty_bitmap(file, "b")), ==, 65536);
    g_assert_true(bdrv_store_dirty_bitmaps(file, true, &error_abort));
    g_assert_true(bdrv_dirty_bitmap_cmd_remove(file, "b", &error_abort));
    fixture_destroy(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
    test_bitmaps_register();
    g_test_add_func("/dirty-bitmap-store/kept", test_kept);
    g_test_add_func("/dirty-bitmap-store/pieces", test_pieces);
    g_test_add_func("/dirty-bitmap-store/read-only", test_read_only);
    g_test_add_func("/dirty-bitmap-store/inconsistent", test_inconsistent);
    g_test_add_func("/dirty-bitmap-store/skipped", test_skipped);
    g_test_add_func("/dirty-bitmap-store/store-fails", test_store_fails);
    g_test_add_func("/dirty-bitmap-store/close-reports", test_close_reports);
    g_test_add_func("/dirty-bitmap-store/command/add", test_add);
    g_test_add_func("/dirty-bitmap-store/command/remove", test_remove);
    g_test_add_func("/dirty-bitmap-store/command/merge", test_merge);
    g_test_add_func("/dirty-bitmap-store/command/not-supported",
                    test_not_supported);
    return g_test_run();
}
