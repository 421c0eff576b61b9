/*
 * qcow2: writing, zeroing, discarding: against a model, in every geometry; and
 * the installed qemu-img must find nothing wrong, and nothing different.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/stat.h>
#include "qcow2-image.h"
#include "test-driver.h"

/* ---- Random requests ---- */

static int64_t random_length(GRand *rnd, int64_t cluster)
{
    switch (g_rand_int_range(rnd, 0, 4)) {
    case 0:
        return g_rand_int_range(rnd, 1, 4096);
    case 1:
        return cluster * g_rand_int_range(rnd, 1, 4);
    case 2:
        return 512 * g_rand_int_range(rnd, 1, 128);
    default:
        return g_rand_int_range(rnd, 1, 3 * cluster);
    }
}

static void random_range(GRand *rnd, const Qcow2Image *img, int64_t *offset,
                         int64_t *bytes)
{
    static const int units[] = { 1, 512, 4096 };
    int64_t unit = units[g_rand_int_range(rnd, 0, 3)];
    int64_t length = random_length(rnd, img->cluster_size);

    *offset = g_rand_int_range(rnd, 0, img->size);
    if (g_rand_boolean(rnd)) {
        unit = img->cluster_size;
    }
    *offset = QEMU_ALIGN_DOWN(*offset, unit);
    *bytes = MIN(length, img->size - *offset);
}

/* The write may come, or another one, or none. */
static void random_place(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    BlockDriverState *bs = qcow2_image_bs(img);
    int ret;

    offset = QEMU_ALIGN_DOWN(offset, img->cluster_size);
    ret = bs->drv->place(bs, offset, bytes);
    g_assert_true(ret == 0 || ret == -ENOTSUP);
}

static void random_request(GRand *rnd, Qcow2Image *img, unsigned seed)
{
    int64_t offset, bytes;

    random_range(rnd, img, &offset, &bytes);
    switch (g_rand_int_range(rnd, 0, 13)) {
    case 0:
        qcow2_image_zero(img, offset, bytes, 0);
        break;
    case 1:
        qcow2_image_zero(img, offset, bytes, BDRV_REQ_MAY_UNMAP);
        break;
    case 2:
        random_place(img, offset, bytes);
        break;
    case 3:
    case 12:
        qcow2_image_discard(img, offset, bytes);
        break;
    case 4:
        g_assert_cmpint(blk_flush(img->blk), ==, 0);
        break;
    case 5:
        if (img->data_file) {
            qcow2_image_verify(img, offset, bytes);
            break;
        }
        offset = QEMU_ALIGN_DOWN(offset, img->cluster_size);
        bytes = MIN(QEMU_ALIGN_UP(bytes, img->cluster_size),
                    img->size - offset);
        qcow2_image_write(img, offset, bytes, seed, BDRV_REQ_WRITE_COMPRESSED);
        break;
    case 6:
    case 7:
        qcow2_image_verify(img, offset, bytes);
        break;
    default:
        qcow2_image_write(img, offset, bytes, seed, 0);
        break;
    }
}

static int64_t file_size(const char *path)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_size;
}

/* Data in a part of the last cluster only: the rest is not written, but in the
 * end the file has it all. */
static void test_whole_clusters(void)
{
    static const char *const options[] = {
        "cluster_size=65536", "cluster_size=2097152", "cluster_size=4096",
        "cluster_size=65536,extended_l2=on", "cluster_size=512,compat=0.10",
    };

    for (size_t i = 0; i < 2 * ARRAY_SIZE(options); i++) {
        g_autoptr(Qcow2Image) img = NULL;

        if (!qcow2_image_can_run()) {
            return;
        }
        img = qcow2_image_new(options[i / 2], 8 * MiB, false);
        qcow2_image_open(img, NULL);
        g_assert_cmpint(qcow2_image_write(img, 100, 100, 1, 0), ==, 0);
        g_assert_cmpint(qcow2_image_write(img, 4 * MiB, 5000, 2, 0), ==, 0);
        if (i % 2) {
            g_assert_true(blk_set_perm(img->blk, BLK_PERM_CONSISTENT_READ,
                                       BLK_PERM_ALL, &error_abort));
            g_assert_true(bdrv_reopen(blk_bs(img->blk),
                                      json_pack("{s:b}", "read-only", 1),
                                      &error_abort));
            g_assert_cmpint(file_size(img->path) % img->cluster_size, ==, 0);
        }
        qcow2_image_close(img);
        g_assert_cmpint(file_size(img->path) % img->cluster_size, ==, 0);
        qcow2_image_assert_good(img);
    }
}

/* Compressed by one call, written by another, in an order of our own. */
static int write_in_two_steps(Qcow2Image *img, int64_t offset, unsigned seed)
{
    BlockDriverState *bs = qcow2_image_bs(img);
    int64_t bytes = MIN(img->cluster_size, img->size - offset);
    g_autofree uint8_t *data = g_malloc0(img->cluster_size);
    g_autofree uint8_t *packed = g_malloc(img->cluster_size);
    QEMUIOVector qiov;
    ssize_t size;
    int ret;

    for (int64_t i = 0; i < bytes; i++) {
        data[i] = qcow2_image_pattern(offset + i, seed);
    }
    size = bs->drv->compress(bs, packed, data);
    g_assert_cmpint(size, >, 0);
    g_assert_cmpint(size, <, img->cluster_size);
    qemu_iovec_init_buf(&qiov, packed, size);
    ret = blk_pwritev(img->blk, offset, bytes, &qiov, 0,
                      BDRV_REQ_WRITE_COMPRESSED | BDRV_REQ_COMPRESSED_DATA);
    if (ret == 0) {
        memcpy(img->model + offset, data, bytes);
    }
    return ret;
}

static void test_two_steps(void)
{
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=65536", 3 * MiB + 4096, false);
    qcow2_image_open(img, NULL);
    g_assert_cmpint(write_in_two_steps(img, MiB, 1), ==, 0);
    g_assert_cmpint(write_in_two_steps(img, 0, 2), ==, 0);
    g_assert_cmpint(write_in_two_steps(img, 3 * MiB, 3), ==, 0);
    g_assert_cmpint(write_in_two_steps(img, MiB, 4), ==, 0);
    qcow2_image_verify(img, 0, img->size);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

/* What compress() cannot have made, or does not. */
static void test_two_steps_errors(void)
{
    int flags = BDRV_REQ_WRITE_COMPRESSED | BDRV_REQ_COMPRESSED_DATA;
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree uint8_t *noise = g_malloc(128 * KiB);
    g_autofree uint8_t *packed = g_malloc(128 * KiB);
    BlockDriverState *bs;
    QEMUIOVector qiov;

    if (!qcow2_image_can_run()) {
        return;
    }
    for (int i = 0; i < 128 * KiB; i++) {
        noise[i] = g_test_rand_int();
    }
    img = qcow2_image_new("cluster_size=65536", 3 * MiB, false);
    qcow2_image_open(img, NULL);
    bs = qcow2_image_bs(img);
    g_assert_cmpint(bs->drv->compress(bs, packed, noise), ==, -ENOSPC);
    qemu_iovec_init_buf(&qiov, noise, 64 * KiB);
    g_assert_cmpint(blk_pwritev(img->blk, 0, 64 * KiB, &qiov, 0, flags), ==,
                    -EINVAL);
    qemu_iovec_init_buf(&qiov, noise, 100);
    g_assert_cmpint(blk_pwritev(img->blk, 0, 128 * KiB, &qiov, 0, flags), ==,
                    -EINVAL);
    g_assert_cmpint(blk_pwritev(img->blk, 4096, 64 * KiB, &qiov, 0, flags),
                    ==, -EINVAL);
    g_assert_cmpint(blk_pwritev(img->blk, 0, 64 * KiB, &qiov, 100, flags), ==,
                    -EINVAL);
    qcow2_image_verify(img, 0, img->size);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

typedef struct Geometry {
    const char *options;
    int64_t size;
    bool backing;
    const char *open;
    bool snapshot;
} Geometry;

static void test_random(const void *opaque)
{
    const Geometry *g = opaque;
    g_autoptr(Qcow2Image) img = NULL;
    GRand *rnd = g_rand_new_with_seed(g_test_rand_int());
    unsigned seed = 0;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new(g->options, g->size, g->backing);
    for (int round = 0; round < (g_test_slow() ? 30 : 3); round++) {
        qcow2_image_open(img, g->open);
        for (int i = 0; i < 120; i++) {
            random_request(rnd, img, seed++);
        }
        qcow2_image_verify(img, 0, img->size);
        qcow2_image_close(img);
        qcow2_image_assert_good(img);
        if (g->snapshot && round == 0) {
            qcow2_image_snapshot(img);
        }
    }
    g_rand_free(rnd);
}

static void append_garbage(const char *path)
{
    static uint8_t garbage[64 * KiB];
    int fd = open(path, O_WRONLY | O_APPEND);

    memset(garbage, 0xee, sizeof(garbage));
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, garbage, sizeof(garbage)), ==, sizeof(garbage));
    close(fd);
}

/* What a crash left behind the last cluster does not read as zeroes, whatever
 * is allocated there first: data, or (for some @n) a refcount block. */
static void test_behind_the_end(void)
{
    if (!qcow2_image_can_run()) {
        return;
    }
    for (int n = 112; n < 128; n++) {
        g_autoptr(Qcow2Image) img =
            qcow2_image_new("cluster_size=1024,refcount_bits=64", 1 * MiB,
                            false);

        qcow2_image_open(img, NULL);
        qcow2_image_write(img, 0, n * 1024, 1, 0);
        qcow2_image_close(img);
        append_garbage(img->path);
        qcow2_image_open(img, NULL);
        for (int i = 0; i < 16; i++) {
            qcow2_image_write(img, 512 * KiB + i * 1024 + 100, 100, i, 0);
        }
        qcow2_image_verify(img, 0, img->size);
        qcow2_image_close(img);
        qcow2_image_assert_good(img);
    }
}

static const Geometry geometries[] = {
    { "cluster_size=512", 1 * MiB },
    { "cluster_size=512,refcount_bits=64", 1 * MiB + 512, true },
    { "cluster_size=512,refcount_bits=1", 1 * MiB },
    { "cluster_size=1024,refcount_bits=2", 1 * MiB, true },
    { "cluster_size=4096,refcount_bits=4", 4 * MiB },
    { "cluster_size=4096,compat=0.10", 4 * MiB, true },
    { "cluster_size=4096,compat=0.10,refcount_bits=16", 4 * MiB },
    { "cluster_size=16384,refcount_bits=8", 4 * MiB, true },
    { "cluster_size=65536", 8 * MiB + 1536 },
    { "cluster_size=65536,refcount_bits=32", 8 * MiB + 512, true },
    { "cluster_size=65536,lazy_refcounts=on", 8 * MiB, true },
    { "cluster_size=2097152", 16 * MiB + 512 },
    { "cluster_size=16384,extended_l2=on", 4 * MiB },
    { "cluster_size=65536,extended_l2=on", 8 * MiB + 512, true },
    { "cluster_size=131072,extended_l2=on", 8 * MiB, true },
    { "cluster_size=65536,data_file", 8 * MiB },
    { "cluster_size=65536,extended_l2=on,data_file", 8 * MiB },
    { "cluster_size=65536,data_file_raw=on,data_file", 8 * MiB },
    { "cluster_size=512,refcount_bits=16", 1 * MiB, true,
      "{'l2-cache-size':512,'refcount-cache-size':2048,"
      "'l2-cache-entry-size':512}" },
    { "cluster_size=4096", 4 * MiB, false, "{'discard-no-unref':true}" },
    { "cluster_size=4096,lazy_refcounts=on", 4 * MiB, false,
      "{'pass-discard-other':true}" },
    { "cluster_size=512", 1 * MiB, false, NULL, true },
    { "cluster_size=4096,refcount_bits=8", 4 * MiB, true, NULL, true },
    { "cluster_size=65536,compat=0.10", 8 * MiB, true, NULL, true },
    { "cluster_size=65536,extended_l2=on", 8 * MiB, true, NULL, true },
    { "cluster_size=65536,lazy_refcounts=on", 8 * MiB, false,
      "{'discard-no-unref':true}", true },
};

/* Zeroes are in the file, and nothing else changes that a power cut could leave
 * behind: not a byte of the tables. */
static void test_raw_file_zeroed(const void *options)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree char *before = NULL, *after = NULL;
    gsize length, length_after;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new(options, 1 * MiB, false);
    qcow2_image_open(img, NULL);
    qcow2_image_write(img, 0, img->size, 1, 0);
    qcow2_image_close(img);
    g_file_get_contents(img->path, &before, &length, NULL);
    qcow2_image_open(img, NULL);
    qcow2_image_zero(img, 0, 64 * KiB, 0);
    qcow2_image_zero(img, 100 * KiB + 512, 200 * KiB, BDRV_REQ_MAY_UNMAP);
    qcow2_image_discard(img, 512 * KiB, 192 * KiB);
    qcow2_image_close(img);
    g_file_get_contents(img->path, &after, &length_after, NULL);
    g_assert_cmpmem(before, length, after, length_after);
    qcow2_image_assert_good(img);
}

/* All its files can be written then, and not only the one with the tables. */
static void test_reopened(void)
{
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("data_file", 1 * MiB, false);
    img->blk = blk_new_open(img->graph, img->path, NULL,
                            json_pack("{s:s}", "driver", "qcow2"), 0,
                            &error_abort);
    bdrv_reopen(qcow2_image_bs(img), json_pack("{s:b}", "read-only", false),
                &error_abort);
    blk_set_perm(img->blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                 BLK_PERM_ALL, &error_abort);
    g_assert_cmpint(qcow2_image_write(img, 0, 100 * KiB, 1, 0), ==, 0);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(geometries); i++) {
        g_autofree char *name =
            g_strdup_printf("/qcow2-write/random/%zu:%s%s%s", i,
                            geometries[i].options,
                            geometries[i].backing ? ",backing" : "",
                            geometries[i].snapshot ? ",snapshot" : "");

        g_test_add_data_func(name, &geometries[i], test_random);
    }
    g_test_add_func("/qcow2-write/file-ends-with-a-cluster",
                    test_whole_clusters);
    g_test_add_data_func("/qcow2-write/raw-data-file/zeroed",
                         "data_file_raw=on,data_file", test_raw_file_zeroed);
    g_test_add_data_func("/qcow2-write/raw-data-file/zeroed-subclusters",
                         "extended_l2=on,data_file_raw=on,data_file",
                         test_raw_file_zeroed);
    g_test_add_func("/qcow2-write/compressed/in-two-steps", test_two_steps);
    g_test_add_func("/qcow2-write/compressed/in-two-steps-errors",
                    test_two_steps_errors);
    g_test_add_func("/qcow2-write/reopened/data-file", test_reopened);
    g_test_add_func("/qcow2-write/garbage-behind-the-end",
                    test_behind_the_end);
    return g_test_run();
}
