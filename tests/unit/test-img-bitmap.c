/*
 * qemu-img bitmap on an image that keeps bitmaps: what is in it afterwards, and
 * the status.  Its words are compared with stock's in tests/interop.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img/qemu-img.h"
#include "test-bitmaps.h"
#include "test-driver.h"

#define IMAGE(store, size) "json:{'driver':'test-bitmaps','store':'" store   \
                           "','file':{'driver':'null-co','size':" size "}}"
#define A     IMAGE("a", "1048576")
#define B     IMAGE("b", "1048576")
#define SMALL IMAGE("small", "65536")

static const ImgCommand command = { "bitmap", img_bitmap, "" };

/* Run it with these arguments, the last NULL. */
static int bitmap(const char *first, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    va_list ap;

    g_ptr_array_add(argv, (gpointer)"qemu-img bitmap");
    va_start(ap, first);
    for (const char *s = first; s; s = va_arg(ap, const char *)) {
        g_ptr_array_add(argv, (gpointer)s);
    }
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    optind = 0;
    return img_bitmap(&command, argv->len - 1, (char **)argv->pdata);
}

static int kind(TestBitmaps *t, const char *name, int piece)
{
    TestStoredBitmap *sb = test_bitmaps_find(t, name);

    g_assert_nonnull(sb);
    g_assert_false(sb->in_use);
    return g_array_index(sb->kinds, HBitmapPiece, piece);
}

/* Dirty the first granule of a stored bitmap. */
static void dirty(TestBitmaps *t, const char *name)
{
    TestStoredBitmap *sb = test_bitmaps_find(t, name);

    g_array_index(sb->kinds, HBitmapPiece, 0) = HBITMAP_PIECE_MIXED;
    sb->data->data[0] = 1;
}

static void test_add_and_remove(void)
{
    g_autoptr(TestBitmaps) a = test_bitmaps_new("a");
    TestStoredBitmap *sb;

    g_assert_cmpint(bitmap("--add", A, "one", NULL), ==, 0);
    sb = test_bitmaps_find(a, "one");
    g_assert_nonnull(sb);
    g_assert_cmpint(sb->granularity, ==, 8192);
    g_assert_true(sb->is_auto);
    g_assert_cmpint(bitmap(A, "two", "--add", "-g", "1M", "--disable", NULL),
                    ==, 0);
    sb = test_bitmaps_find(a, "two");
    g_assert_cmpint(sb->granularity, ==, 1 << 20);
    g_assert_false(sb->is_auto);
    g_assert_cmpint(bitmap("--enable", A, "two", NULL), ==, 0);
    g_assert_true(test_bitmaps_find(a, "two")->is_auto);
    g_assert_cmpint(bitmap("--remove", A, "one", NULL), ==, 0);
    g_assert_null(test_bitmaps_find(a, "one"));
    g_assert_cmpint(bitmap("--remove", A, "one", NULL), ==, 1);
}

static void test_clear_and_merge(void)
{
    g_autoptr(TestBitmaps) a = test_bitmaps_new("a");

    g_assert_cmpint(bitmap("--add", A, "one", NULL), ==, 0);
    g_assert_cmpint(bitmap("--add", "-g", "512", A, "two", NULL), ==, 0);
    dirty(a, "one");
    g_assert_cmpint(bitmap("--merge", "one", A, "two", NULL), ==, 0);
    g_assert_cmpint(kind(a, "one", 0), ==, HBITMAP_PIECE_MIXED);
    g_assert_cmpint(kind(a, "two", 0), ==, HBITMAP_PIECE_MIXED);
    g_assert_cmpint(test_bitmaps_find(a, "two")->data->data[1], ==, 0xff);
    g_assert_cmpint(bitmap("--clear", A, "one", NULL), ==, 0);
    g_assert_cmpint(kind(a, "one", 0), ==, HBITMAP_PIECE_ZEROES);
    /* In their order. */
    g_assert_cmpint(bitmap("--clear", "--merge", "two", A, "two", NULL), ==,
                    0);
    g_assert_cmpint(kind(a, "two", 0), ==, HBITMAP_PIECE_ZEROES);
}

static void test_merge_from_another_image(void)
{
    g_autoptr(TestBitmaps) a = test_bitmaps_new("a");
    g_autoptr(TestBitmaps) b = test_bitmaps_new("b");
    g_autoptr(TestBitmaps) small G_GNUC_UNUSED = test_bitmaps_new("small");

    g_assert_cmpint(bitmap("--add", A, "x", NULL), ==, 0);
    g_assert_cmpint(bitmap("--add", B, "y", NULL), ==, 0);
    g_assert_cmpint(bitmap("--add", SMALL, "y", NULL), ==, 0);
    dirty(b, "y");
    g_assert_cmpint(bitmap("--merge", "y", "-b", B, A, "x", NULL), ==, 0);
    g_assert_cmpint(kind(a, "x", 0), ==, HBITMAP_PIECE_MIXED);
    g_assert_cmpint(kind(b, "y", 0), ==, HBITMAP_PIECE_MIXED);
    g_assert_cmpint(bitmap("--merge", "y", "-b", SMALL, A, "x", NULL), ==, 1);
    g_assert_cmpint(bitmap("--merge", "x", "-b", B, A, "x", NULL), ==, 1);
}

/* What comes before a failure is done, and stored. */
static void test_stops_at_a_failure(void)
{
    g_autoptr(TestBitmaps) a = test_bitmaps_new("a");

    g_assert_cmpint(bitmap("--add", "--merge", "nope", "--disable", A, "one",
                           NULL), ==, 1);
    g_assert_true(test_bitmaps_find(a, "one")->is_auto);
}

static void test_not_stored_is_a_failure(void)
{
    g_autoptr(TestBitmaps) a = test_bitmaps_new("a");

    a->fail_store = true;
    g_assert_cmpint(bitmap("--add", A, "one", NULL), ==, 1);
    g_assert_null(test_bitmaps_find(a, "one"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
    test_bitmaps_register();
    g_test_add_func("/img-bitmap/add-and-remove", test_add_and_remove);
    g_test_add_func("/img-bitmap/clear-and-merge", test_clear_and_merge);
    g_test_add_func("/img-bitmap/merge-from-another-image",
                    test_merge_from_another_image);
    g_test_add_func("/img-bitmap/stops-at-a-failure", test_stops_at_a_failure);
    g_test_add_func("/img-bitmap/not-stored-is-a-failure",
                    test_not_stored_is_a_failure);
    return g_test_run();
}
