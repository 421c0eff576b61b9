/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sparse images in memory: like an array, and copies do not see each other.
 */
#include "mem-image.h"

static void test_image_model(void)
{
    enum { SIZE = 100000 };
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    g_autoptr(MemImage) img = mem_image_new(0);
    g_autofree uint8_t *model = g_malloc0(SIZE);
    g_autofree uint8_t *got = g_malloc0(SIZE);
    int64_t size = 0;
    int i;

    for (i = 0; i < 2000; i++) {
        int64_t from = g_rand_int_range(rand, 0, SIZE);
        int64_t n = g_rand_int_range(rand, 0, SIZE - from + 1);
        uint8_t value = g_rand_int_range(rand, 0, 4);
        MemImage *copy = mem_image_clone(img);

        memset(got, 9, SIZE);
        switch (g_rand_int_range(rand, 0, 4)) {
        case 0:
            memset(model + from, 9, n);
            mem_image_write(img, from, got, n);
            size = MAX(size, from + n);
            break;
        case 1:
            memset(model + from, value, n);
            mem_image_fill(img, from, value, n);
            size = MAX(size, from + n);
            break;
        case 2:
            memset(model + from, 0, SIZE - from);
            mem_image_truncate(img, from);
            size = from;
            break;
        default:
            /* The copy goes on, the other is gone, changed. */
            mem_image_fill(img, 0, 0xff, SIZE);
            mem_image_truncate(img, 5);
            mem_image_free(img);
            img = g_steal_pointer(&copy);
            break;
        }
        g_clear_pointer(&copy, mem_image_free);
        g_assert_cmpint(mem_image_size(img), ==, size);
        mem_image_read(img, 0, got, SIZE);
        g_assert_cmpint(memcmp(got, model, SIZE), ==, 0);
    }
}

static void test_image_save(void)
{
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "image-XXXXXX",
                                             NULL);
    g_autofree char *text = NULL;
    g_autoptr(MemImage) img = mem_image_new(100001);
    gsize length;
    int fd = g_mkstemp(path);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    mem_image_write(img, 99990, "0123456789", 10);
    g_assert_true(mem_image_is_hole(img, 0, 4096));
    g_assert_false(mem_image_is_hole(img, 0, 99991));
    g_assert_cmpint(mem_image_save(img, path), ==, 0);
    g_assert_true(g_file_get_contents(path, &text, &length, NULL));
    g_assert_cmpuint(length, ==, 100001);
    g_assert_cmpmem(text + 99990, 10, "0123456789", 10);
    g_assert_cmpint(text[5], ==, 0);
    unlink(path);
    g_assert_cmpint(mem_image_save(img, "/nonexistent/image"), ==, -ENOENT);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mem-image/is-like-an-array", test_image_model);
    g_test_add_func("/mem-image/save", test_image_save);
    return g_test_run();
}
