/*
 * HBitmap: random operations against a model with a byte a granule, shapes at
 * the edges, and the data as images have it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/hbitmap.h"

#define TiB (INT64_C(1) << 40)

/* ---- Model ---- */

typedef struct Model {
    HBitmap *hb;
    int64_t size, gran, n;
    uint8_t *dirty;             /* a granule each */
    int64_t room;               /* granules allocated */
} Model;

static void model_init(Model *m, int64_t size, int64_t gran, int64_t room)
{
    m->hb = hbitmap_new(size, gran);
    m->size = size;
    m->gran = gran;
    m->n = DIV_ROUND_UP(size, gran);
    m->room = room;
    m->dirty = g_malloc0(room);
}

static void model_destroy(Model *m)
{
    hbitmap_free(m->hb);
    g_free(m->dirty);
}

static void model_set(Model *m, int64_t offset, int64_t bytes)
{
    int64_t end = MIN(offset + bytes, m->size);

    for (int64_t i = offset / m->gran; offset < end && i * m->gran < end; i++) {
        m->dirty[i] = 1;
    }
    hbitmap_set(m->hb, offset, bytes);
}

static void model_reset(Model *m, int64_t offset, int64_t bytes)
{
    int64_t end = MIN(offset + bytes, m->size);

    for (int64_t i = 0; offset < end && i < m->n; i++) {
        if (i * m->gran >= offset && MIN((i + 1) * m->gran, m->size) <= end) {
            m->dirty[i] = 0;
        }
    }
    hbitmap_reset(m->hb, offset, bytes);
}

static void model_truncate(Model *m, int64_t size)
{
    int64_t n = DIV_ROUND_UP(size, m->gran);

    g_assert_cmpint(n, <=, m->room);
    memset(m->dirty + n, 0, m->room - n);
    m->size = size;
    m->n = n;
    hbitmap_truncate(m->hb, size);
}

static int64_t model_next(const Model *m, int64_t offset, int64_t bytes,
                          int dirty)
{
    int64_t end = MIN(offset + bytes, m->size);

    while (offset < end && m->dirty[offset / m->gran] != dirty) {
        offset = (offset / m->gran + 1) * m->gran;
    }
    return offset < end ? offset : -1;
}

static void check_searches(const Model *m, int64_t offset, int64_t bytes)
{
    int64_t dirty = model_next(m, offset, bytes, 1);
    int64_t max = g_test_rand_int_range(1, INT32_MAX);
    int64_t start, len;

    g_assert_cmpint(hbitmap_next_dirty(m->hb, offset, bytes), ==, dirty);
    g_assert_cmpint(hbitmap_next_zero(m->hb, offset, bytes), ==,
                    model_next(m, offset, bytes, 0));
    if (!hbitmap_next_dirty_area(m->hb, offset, bytes, max, &start, &len)) {
        g_assert_cmpint(dirty, ==, -1);
        return;
    }
    g_assert_cmpint(start, ==, dirty);
    g_assert_cmpint(len, >, 0);
    g_assert_cmpint(len, <=, max);
    g_assert_cmpint(model_next(m, start, len, 0), ==, -1);
    /* As long as it can be. */
    g_assert_true(len == max || start + len == MIN(offset + bytes, m->size) ||
                  model_next(m, start + len, 1, 1) == -1);
}

static void check_all(const Model *m)
{
    int64_t count = 0;

    for (int64_t i = 0; i < m->n; i++) {
        count += m->dirty[i];
        g_assert_cmpint(hbitmap_get(m->hb, i * m->gran), ==, m->dirty[i]);
    }
    g_assert_cmpint(hbitmap_count(m->hb), ==, count * m->gran);
    g_assert_cmpint(hbitmap_size(m->hb), ==, m->size);
}

/* ---- Data ---- */

/* The data, bit by bit, as the specification says. */
static uint8_t *model_data(const Model *m, int64_t len)
{
    uint8_t *data = g_malloc0(len);

    for (int64_t i = 0; i < m->n; i++) {
        data[i / 8] |= m->dirty[i] << i % 8;
    }
    return data;
}

static HBitmapPiece model_piece(const Model *m, int64_t pos, int64_t len)
{
    int64_t end = MIN((pos + len) * 8, m->n);
    int64_t dirty = 0;

    for (int64_t i = pos * 8; i < end; i++) {
        dirty += m->dirty[i];
    }
    return dirty == 0 ? HBITMAP_PIECE_ZEROES :
           dirty == end - pos * 8 ? HBITMAP_PIECE_ONES : HBITMAP_PIECE_MIXED;
}

/* Through data in pieces of @piece into another one that is dirty at random. */
static void check_data(const Model *m, int64_t piece)
{
    int64_t size = hbitmap_data_size(m->size, m->gran);
    int64_t len = QEMU_ALIGN_UP(MAX(size, 1), piece);
    g_autofree uint8_t *want = model_data(m, len);
    g_autofree uint8_t *got = g_malloc(piece);
    g_autoptr(HBitmap) other = hbitmap_new(m->size, m->gran);

    g_assert_cmpint(size, ==, (m->n + 7) / 8);
    hbitmap_set(other, m->size / 3, m->size / 2);
    for (int64_t pos = 0; pos < len; pos += piece) {
        HBitmapPiece kind = hbitmap_piece(m->hb, pos, piece);

        g_assert_cmpint(kind, ==, model_piece(m, pos, piece));
        hbitmap_serialize(m->hb, pos, piece, got);
        g_assert_cmpmem(got, piece, want + pos, piece);
        if (kind == HBITMAP_PIECE_ZEROES) {
            hbitmap_deserialize_zeroes(other, pos, piece);
        } else if (kind == HBITMAP_PIECE_ONES) {
            hbitmap_deserialize_ones(other, pos, piece);
        } else {
            if (pos + piece >= size && m->n % 8) {
                /* Bits past the end may be anything. */
                got[size - 1 - pos] |= 0xff << m->n % 8;
            }
            hbitmap_deserialize(other, pos, piece, got);
        }
    }
    for (int64_t i = 0; i < m->n; i++) {
        g_assert_cmpint(hbitmap_get(other, i * m->gran), ==, m->dirty[i]);
    }
    g_assert_cmpint(hbitmap_count(other), ==, hbitmap_count(m->hb));
    /* The same tree, so in the same memory. */
    g_assert_cmpint(hbitmap_memory(other), ==, hbitmap_memory(m->hb));
}

/* ---- Random operations ---- */

static int64_t random_upto(int64_t max)
{
    return g_test_rand_double_range(0, (double)max + 0.99);
}

/* Sometimes long, sometimes whole leaves. */
static int64_t random_length(const Model *m)
{
    int64_t leaf = 32768 * m->gran;

    switch (g_test_rand_int_range(0, 4)) {
    case 0:
        return random_upto(m->size);
    case 1:
        return QEMU_ALIGN_DOWN(random_upto(m->size), leaf);
    default:
        return random_upto(m->gran * 70);
    }
}

static int64_t random_offset(const Model *m)
{
    int64_t offset = random_upto(m->size);

    return g_test_rand_int_range(0, 4) ? offset :
           QEMU_ALIGN_DOWN(offset, 32768 * m->gran);
}

static void random_step(Model *m, int64_t max_size)
{
    int64_t offset = random_offset(m), bytes = random_length(m);

    switch (g_test_rand_int_range(0, 40)) {
    case 0:
        model_truncate(m, random_upto(max_size));
        break;
    case 1:
        hbitmap_reset_all(m->hb);
        memset(m->dirty, 0, m->room);
        break;
    case 2 ... 20:
        model_set(m, offset, bytes);
        break;
    default:
        model_reset(m, offset, bytes);
        break;
    }
    check_searches(m, random_offset(m), random_length(m));
}

static void run_random(int64_t gran, int64_t granules, int steps)
{
    int64_t max_size = gran * granules;
    Model m;

    model_init(&m, max_size - gran / 2, gran, granules);
    for (int i = 0; i < steps; i++) {
        random_step(&m, max_size);
        if (i % 50 == 0) {
            check_all(&m);
            check_data(&m, 512 << g_test_rand_int_range(0, 8));
        }
    }
    model_destroy(&m);
}

static void test_random_small(void)
{
    run_random(512, 300, 3000);
}

static void test_random_leaves(void)
{
    run_random(65536, 5 * 32768 + 77, 400);
}

static void test_random_two_levels(void)
{
    /* Just over what one inner node has: 16 Mi granules. */
    run_random(1 << 20, (16 << 20) + 40000, 60);
}

/* ---- Shapes ---- */

static void test_granularities(void)
{
    static const uint64_t wrong[] = { 0, 1, 256, 513, 3 << 10,
                                      UINT64_C(1) << 32 };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_assert_false(hbitmap_granularity_is_valid(wrong[i]));
    }
    for (int shift = 9; shift <= 31; shift++) {
        int64_t gran = INT64_C(1) << shift;
        g_autoptr(HBitmap) hb = hbitmap_new(3 * gran + 1, gran);

        g_assert_true(hbitmap_granularity_is_valid(gran));
        g_assert_cmpint(hbitmap_granularity(hb), ==, gran);
        hbitmap_set(hb, gran - 1, 2);
        g_assert_cmpint(hbitmap_count(hb), ==, 2 * gran);
        g_assert_true(hbitmap_get(hb, 0));
        g_assert_false(hbitmap_get(hb, 2 * gran));
        /* The last granule is of one byte. */
        hbitmap_set(hb, 3 * gran, 1);
        g_assert_true(hbitmap_get(hb, 3 * gran));
        hbitmap_reset(hb, 3 * gran, 1);
        g_assert_false(hbitmap_get(hb, 3 * gran));
        /* Half of one stays. */
        hbitmap_reset(hb, 1, gran);
        g_assert_cmpint(hbitmap_count(hb), ==, 2 * gran);
    }
}

static void test_empty(void)
{
    g_autoptr(HBitmap) hb = hbitmap_new(0, 512);
    uint8_t buf[8] = { 1 };
    int64_t a, b;

    hbitmap_set(hb, 0, 512);
    g_assert_cmpint(hbitmap_count(hb), ==, 0);
    g_assert_cmpint(hbitmap_next_dirty(hb, 0, INT64_MAX), ==, -1);
    g_assert_cmpint(hbitmap_next_zero(hb, 0, INT64_MAX), ==, -1);
    g_assert_false(hbitmap_next_dirty_area(hb, 0, 1, 1, &a, &b));
    hbitmap_serialize(hb, 0, 8, buf);
    g_assert_cmpint(buf[0], ==, 0);
    hbitmap_truncate(hb, 1);
    hbitmap_set(hb, 0, 1);
    g_assert_cmpint(hbitmap_count(hb), ==, 512);
}

/* The largest image there is, at both ends of the granularities. */
static void test_huge(void)
{
    static const uint32_t grans[] = { 512, 65536, 1u << 31 };
    int64_t size = INT64_MAX - 511;

    for (size_t i = 0; i < ARRAY_SIZE(grans); i++) {
        g_autoptr(HBitmap) hb = hbitmap_new(size, grans[i]);
        g_autoptr(HBitmap) copy = NULL;
        int64_t offset, bytes;

        hbitmap_set(hb, size - 1, 1);
        hbitmap_set(hb, 64 * TiB, 1);
        g_assert_cmpint(hbitmap_next_dirty(hb, 0, INT64_MAX), ==, 64 * TiB);
        g_assert_true(hbitmap_next_dirty_area(hb, 64 * TiB + grans[i],
                                              INT64_MAX - 64 * TiB - grans[i],
                                              INT64_MAX, &offset, &bytes));
        g_assert_cmpint(offset + bytes, ==, size);
        hbitmap_set(hb, 0, INT64_MAX);
        g_assert_cmpint(hbitmap_next_zero(hb, 0, INT64_MAX), ==, -1);
        g_assert_cmpint(hbitmap_count(hb), >=, size);
        copy = hbitmap_copy(hb);
        hbitmap_reset(hb, 0, INT64_MAX);
        g_assert_cmpint(hbitmap_count(hb), ==, 0);
        g_assert_cmpint(hbitmap_next_zero(copy, 0, INT64_MAX), ==, -1);
        g_assert_cmpint(hbitmap_piece(copy, 0, INT64_MAX - 7), ==,
                        HBITMAP_PIECE_ONES);
        g_assert_cmpint(hbitmap_memory(copy), <, 64 * KiB);
    }
}

static void test_memory_is_sparse(void)
{
    g_autoptr(HBitmap) hb = hbitmap_new(64 * TiB, 512);
    size_t empty = hbitmap_memory(hb);

    g_assert_cmpint(empty, <, 256);
    for (int i = 0; i < 64; i++) {
        hbitmap_set(hb, i * TiB, 4096);
    }
    g_assert_cmpint(hbitmap_memory(hb), <, 1024 * KiB);
    /* Long dirty runs take their ends. */
    hbitmap_set(hb, TiB, 62 * TiB);
    g_assert_cmpint(hbitmap_memory(hb), <, 64 * KiB);
    hbitmap_reset(hb, 0, 64 * TiB);
    g_assert_cmpint(hbitmap_memory(hb), ==, empty);
}

static void test_merge(int64_t gran_a, int64_t gran_b)
{
    int64_t size = 40000 * gran_a + 100, n = DIV_ROUND_UP(size, 512);
    g_autoptr(HBitmap) a = hbitmap_new(size, gran_a);
    g_autoptr(HBitmap) b = hbitmap_new(size, gran_b);
    g_autoptr(HBitmap) merged = NULL, want = NULL;

    for (int i = 0; i < 40; i++) {
        hbitmap_set(a, random_upto(size), random_upto(size / 60));
        hbitmap_set(b, random_upto(size), random_upto(size / 60));
        hbitmap_reset(b, random_upto(size), random_upto(size / 60));
    }
    merged = hbitmap_copy(a);
    want = hbitmap_copy(a);
    hbitmap_merge(merged, b);
    for (int64_t i = 0; i < n; i++) {
        if (hbitmap_get(b, i * 512)) {
            hbitmap_set(want, i * 512, MIN(512, size - i * 512));
        }
    }
    for (int64_t i = 0; i < n; i++) {
        g_assert_cmpint(hbitmap_get(merged, i * 512), ==,
                        hbitmap_get(want, i * 512));
    }
    g_assert_cmpint(hbitmap_count(merged), ==, hbitmap_count(want));
    g_assert_cmpint(hbitmap_memory(merged), ==, hbitmap_memory(want));
    /* With all dirty and all clean ones. */
    hbitmap_reset_all(b);
    hbitmap_merge(merged, b);
    g_assert_cmpint(hbitmap_count(merged), ==, hbitmap_count(want));
    hbitmap_set(b, 0, size);
    hbitmap_merge(merged, b);
    g_assert_cmpint(hbitmap_next_zero(merged, 0, size), ==, -1);
}

static void test_merge_same(void)
{
    test_merge(512, 512);
    test_merge(4096, 4096);
}

static void test_merge_coarser(void)
{
    test_merge(512, 65536);
}

static void test_merge_finer(void)
{
    test_merge(16384, 512);
}

/* Bits 0, 9 and 17: bytes 01 02 02. */
static void test_data_order(void)
{
    g_autoptr(HBitmap) hb = hbitmap_new(20 * 512, 512);
    uint8_t buf[16];

    memset(buf, 0xee, sizeof(buf));
    hbitmap_set(hb, 0, 1);
    hbitmap_set(hb, 9 * 512, 512);
    hbitmap_set(hb, 17 * 512 + 511, 1);
    g_assert_cmpint(hbitmap_data_size(20 * 512, 512), ==, 3);
    hbitmap_serialize(hb, 0, sizeof(buf), buf);
    g_assert_cmpmem(buf, 4, "\1\2\2\0", 4);
    for (size_t i = 4; i < sizeof(buf); i++) {
        g_assert_cmpint(buf[i], ==, 0);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hbitmap/random/small", test_random_small);
    g_test_add_func("/hbitmap/random/leaves", test_random_leaves);
    g_test_add_func("/hbitmap/random/two-levels", test_random_two_levels);
    g_test_add_func("/hbitmap/shape/granularities", test_granularities);
    g_test_add_func("/hbitmap/shape/empty", test_empty);
    g_test_add_func("/hbitmap/shape/huge", test_huge);
    g_test_add_func("/hbitmap/memory/is-sparse", test_memory_is_sparse);
    g_test_add_func("/hbitmap/merge/same-granularity", test_merge_same);
    g_test_add_func("/hbitmap/merge/coarser", test_merge_coarser);
    g_test_add_func("/hbitmap/merge/finer", test_merge_finer);
    g_test_add_func("/hbitmap/data/bit-order", test_data_order);
    return g_test_run();
}
