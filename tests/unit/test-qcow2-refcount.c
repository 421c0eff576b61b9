/*
 * qcow2: refcounts of every width, blocks and tables that have to be made, what
 * happens at the limits, and that a table grows whatever request fails.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/qcow2.h"
#include "qcow2-image.h"
#include "qemu/atomic.h"

/* ---- Entries of blocks ---- */

static void test_widths(void)
{
    for (int order = 0; order <= 6; order++) {
        unsigned n = 512 * 8 >> order;
        uint64_t max = order == 6 ? UINT64_MAX :
                       (UINT64_C(1) << (1 << order)) - 1;
        g_autofree uint64_t *want = g_new0(uint64_t, n);
        uint8_t block[512] = { 0 };

        for (int i = 0; i < 20000; i++) {
            unsigned k = g_test_rand_int_range(0, n);

            want[k] = (((uint64_t)g_test_rand_int() << 32) |
                       (uint32_t)g_test_rand_int()) & max;
            qcow2_refcount_write(block, order, k, want[k]);
            g_assert_cmpuint(qcow2_refcount_read(block, order, k), ==,
                             want[k]);
        }
        for (unsigned k = 0; k < n; k++) {
            g_assert_cmpuint(qcow2_refcount_read(block, order, k), ==,
                             want[k]);
        }
    }
}

/* "bit 0 means the least significant bit"; wider ones are big-endian. */
static void test_layout(void)
{
    uint8_t block[16] = { 0 };

    qcow2_refcount_write(block, 0, 9, 1);
    g_assert_cmphex(block[1], ==, 0x02);
    qcow2_refcount_write(block, 1, 5, 3);
    g_assert_cmphex(block[1], ==, 0x0e);
    qcow2_refcount_write(block, 2, 5, 0xa);
    g_assert_cmphex(block[2], ==, 0xa0);
    qcow2_refcount_write(block, 4, 2, 0x1234);
    g_assert_cmphex(block[4], ==, 0x12);
    qcow2_refcount_write(block, 5, 2, 0x12345678);
    g_assert_cmphex(block[11], ==, 0x78);
}

/* ---- Ranges ---- */

static Qcow2Image *open_new(const char *options, int64_t size)
{
    Qcow2Image *img = qcow2_image_new(options, size, false);

    qcow2_image_open(img, NULL);
    return img;
}

static BDRVQcow2State *state(Qcow2Image *img)
{
    return qcow2_image_bs(img)->opaque;
}

static int update(Qcow2Image *img, int64_t offset, int64_t bytes,
                  int64_t delta)
{
    int ret;

    driver_lock(&state(img)->lock);
    ret = qcow2_update_refcount(qcow2_image_bs(img), offset, bytes, delta);
    driver_unlock(&state(img)->lock);
    return ret;
}

static uint32_t table_size(Qcow2Image *img)
{
    uint32_t size;

    driver_lock(&state(img)->lock);
    size = state(img)->reftable_size;
    driver_unlock(&state(img)->lock);
    return size;
}

static uint64_t get(Qcow2Image *img, int64_t cluster)
{
    uint64_t refcount = 0;
    int ret;

    driver_lock(&state(img)->lock);
    ret = qcow2_get_refcount(qcow2_image_bs(img), cluster, &refcount);
    driver_unlock(&state(img)->lock);
    g_assert_cmpint(ret, ==, 0);
    return refcount;
}

static int64_t alloc(Qcow2Image *img, int64_t bytes)
{
    int64_t ret;

    driver_lock(&state(img)->lock);
    ret = qcow2_alloc_clusters(qcow2_image_bs(img), bytes);
    driver_unlock(&state(img)->lock);
    return ret;
}

static void free_now(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    driver_lock(&state(img)->lock);
    qcow2_free_later(qcow2_image_bs(img), offset, bytes, QCOW2_DISCARD_NEVER);
    driver_unlock(&state(img)->lock);
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
}

/* Beyond the largest refcount: all or nothing, over several blocks. */
static void test_all_or_nothing(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    int64_t offset, n = 10000;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new("cluster_size=512,refcount_bits=2", 1 * MiB);
    offset = alloc(img, n * 512);
    g_assert_cmpint(offset, >, 0);
    g_assert_cmpint(update(img, offset, n * 512, 1), ==, 0);
    g_assert_cmpint(update(img, offset + (n - 1) * 512, 1, 1), ==, 0);
    g_assert_cmpint(update(img, offset, n * 512, 1), ==, -EINVAL);
    for (int64_t i = 0; i < n; i++) {
        g_assert_cmpuint(get(img, offset / 512 + i), ==, i == n - 1 ? 3 : 2);
    }
    g_assert_cmpint(update(img, offset, n * 512, -1), ==, 0);
    g_assert_cmpint(update(img, offset + (n - 1) * 512, 512, -1), ==, 0);
    free_now(img, offset, n * 512);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

/* ---- Large runs, growing tables ---- */

/* Runs of all lengths, larger than a block counts, and than the table can. */
static void test_long_runs(void)
{
    static const int lengths[] = { 1, 2, 63, 64, 65, 200, 1000, 5000, 9000 };
    g_autoptr(Qcow2Image) img = NULL;
    int64_t offsets[G_N_ELEMENTS(lengths)];

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new("cluster_size=512,refcount_bits=64", 64 * KiB);
    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        offsets[i] = alloc(img, lengths[i] * 512);
        g_assert_cmpint(offsets[i], >, 0);
        for (int k = 0; k < lengths[i]; k++) {
            g_assert_cmpuint(get(img, offsets[i] / 512 + k), ==, 1);
        }
    }
    qcow2_image_write(img, 0, img->size, 1, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        free_now(img, offsets[i], lengths[i] * 512);
    }
    /* What was freed is found again. */
    offsets[0] = alloc(img, 9000 * 512);
    g_assert_cmpint(offsets[0], >, 0);
    g_assert_cmpint(offsets[0], <=, offsets[8]);
    free_now(img, offsets[0], 9000 * 512);
    qcow2_image_verify(img, 0, img->size);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

/* Table and blocks from 2 MiB on: everything is written, checked, and kept. */
static void test_grow(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    int64_t step = 31 * KiB;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new("cluster_size=512,refcount_bits=64", 12 * MiB);
    for (int64_t at = 0; at < img->size; at += step) {
        qcow2_image_write(img, at, MIN(step, img->size - at), at / step, 0);
    }
    g_assert_cmpuint(table_size(img), >, 64);
    qcow2_image_verify(img, 0, img->size);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

/* The same, where one of the requests that growing takes fails. */
static void test_grow_fails(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree char *template = NULL;
    g_autofree uint8_t *model = NULL;
    gsize length;
    bool fired = true;

    if (!qcow2_image_can_run()) {
        return;
    }
    /* To where the table is nearly full. */
    img = open_new("cluster_size=512,refcount_bits=64", 2 * MiB);
    qcow2_image_write(img, 0, 1900 * KiB, 1, 0);
    g_assert_cmpuint(table_size(img), ==, 64);
    qcow2_image_close(img);
    g_assert_true(g_file_get_contents(img->path, &template, &length, NULL));
    model = g_memdup2(img->model, img->size);
    img->has_errors = true;
    for (int n = 1; fired; n++) {
        int ret;

        g_test_message("request %d", n);
        g_assert_true(g_file_set_contents(img->path, template, length, NULL));
        memcpy(img->model, model, img->size);
        qcow2_image_open(img, NULL);
        g_assert_cmpint(blkdebug_arm(qcow2_image_bs(img), n, EIO), ==, 0);
        ret = qcow2_image_write(img, 1900 * KiB, 148 * KiB, 2, 0);
        fired = blkdebug_fired(qcow2_image_bs(img));
        blkdebug_arm(qcow2_image_bs(img), 0, 0);
        g_assert_cmpint(ret, ==, fired ? -EIO : 0);
        g_assert_cmpint(qcow2_image_write(img, 1900 * KiB, 148 * KiB, 3, 0),
                        ==, 0);
        g_assert_cmpuint(table_size(img), >, 64);
        qcow2_image_close(img);
        qcow2_image_assert_good(img);
    }
}

/* ---- References that no refcount can count ---- */

/* Make the L2 entry of the first cluster say that it is at @offset. */
static void move_first_cluster(Qcow2Image *img, uint64_t offset)
{
    g_autofree char *data = NULL;
    gsize size;
    uint64_t l1, l2, entry = GUINT64_TO_BE(offset | QCOW2_OFLAG_COPIED);

    g_assert_true(g_file_get_contents(img->path, &data, &size, NULL));
    memcpy(&l1, data + 40, sizeof(l1));
    memcpy(&l2, data + GUINT64_FROM_BE(l1), sizeof(l2));
    l2 = GUINT64_FROM_BE(l2) & QCOW2_L1_OFFSET_MASK;
    g_assert_cmpuint(l2 + sizeof(entry), <=, size);
    memcpy(data + l2, &entry, sizeof(entry));
    g_assert_true(g_file_set_contents(img->path, data, size, NULL));
}

/* It cannot be freed; that must not keep others from being freed for ever. */
static void test_free_beyond_the_format(void)
{
    Qcow2Image *img;
    BDRVQcow2State *s;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new("cluster_size=512", 64 * KiB);
    g_assert_cmpint(qcow2_image_write(img, 0, 512, 1, 0), ==, 0);
    qcow2_image_close(img);
    move_first_cluster(img, INT64_C(1) << 45);
    qcow2_image_open(img, NULL);
    img->has_errors = true;
    s = qcow2_image_bs(img)->opaque;
    qcow2_image_discard(img, 0, 512);
    blk_flush(img->blk);
    blk_flush(img->blk);
    g_assert_true(qatomic_read(&s->corrupt));
    g_assert_cmpint(qcow2_image_write(img, 1024, 512, 2, 0), ==, -EIO);
    qcow2_image_free(img);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-refcount/entry/every-width", test_widths);
    g_test_add_func("/qcow2-refcount/entry/layout", test_layout);
    g_test_add_func("/qcow2-refcount/update/all-or-nothing",
                    test_all_or_nothing);
    g_test_add_func("/qcow2-refcount/alloc/long-runs", test_long_runs);
    g_test_add_func("/qcow2-refcount/table/grows", test_grow);
    g_test_add_func("/qcow2-refcount/table/growing-fails", test_grow_fails);
    g_test_add_func("/qcow2-refcount/free/beyond-the-format",
                    test_free_beyond_the_format);
    return g_test_run();
}
