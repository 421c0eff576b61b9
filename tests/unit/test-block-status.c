/*
 * Block status: one layer, children that answer for it, backing chains with
 * layers of different length.
 *
 * A layer is drawn with a character a cluster: "D" data, "0" zeroes, "." not
 * allocated.  So are answers: "z" for zeroes that are allocated nowhere.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "test-driver.h"

static TestDisk *draw(const char *id, const char *picture)
{
    size_t n = strlen(picture);
    TestDisk *d = test_disk_new(id, n * TEST_CLUSTER);
    size_t i;

    for (i = 0; i < n; i++) {
        d->allocated[i] = picture[i] == 'D' ? 1 : picture[i] == '0' ? 2 : 0;
    }
    return d;
}

static char letter(int status)
{
    if (status & BDRV_BLOCK_ALLOCATED) {
        return status & BDRV_BLOCK_ZERO ? '0' : 'D';
    }
    return status & BDRV_BLOCK_ZERO ? 'z' : '.';
}

/* As the answers of bdrv_block_status_above() say, from any start. */
static void assert_status(BlockDriverState *bs, BlockDriverState *base,
                          const char *picture)
{
    int64_t size = strlen(picture) * TEST_CLUSTER;
    int64_t offset;

    g_assert_cmpint(bdrv_getlength(bs), ==, size);
    for (offset = 0; offset < size; offset += 512) {
        int64_t n, i;
        int ret = bdrv_block_status_above(bs, base, offset, size - offset, &n,
                                          NULL, NULL);

        g_assert_cmpint(ret, >=, 0);
        g_assert_cmpint(n, >, 0);
        g_assert_cmpint(n, <=, size - offset);
        for (i = 0; i < n; i += 512) {
            g_assert_cmpint(letter(ret), ==,
                            picture[(offset + i) / TEST_CLUSTER]);
        }
        g_assert_cmpint(!!(ret & BDRV_BLOCK_EOF), ==, offset + n == size);
    }
}

/* The same of bdrv_is_allocated_above(): "D" or ".". */
static void assert_allocated(BlockDriverState *top, BlockDriverState *base,
                             bool include_base, const char *picture)
{
    int64_t size = strlen(picture) * TEST_CLUSTER;
    int64_t offset;

    for (offset = 0; offset < size; offset += 512) {
        int64_t n, i;
        int ret = bdrv_is_allocated_above(top, base, include_base, offset,
                                          size - offset, &n);

        g_assert_true(ret == 0 || ret == 1);
        g_assert_cmpint(n, >, 0);
        for (i = 0; i < n; i += 512) {
            g_assert_cmpint(ret ? 'D' : '.', ==,
                            picture[(offset + i) / TEST_CLUSTER]);
        }
    }
}

static void test_one_layer(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = draw("d", "DD00.D..D");
    BlockBackend *blk;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-cow','disk':'d',"
                    "'read-only':true}");
    assert_status(blk_bs(blk), NULL, "DD00zDzzD");
    assert_allocated(blk_bs(blk), NULL, false, "DDDD.D..D");
    blk_unref(blk);
}

static void test_range(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = draw("d", "DD");
    BlockDriverState *file;
    BlockBackend *blk;
    int64_t n, map;
    int ret;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    ret = bdrv_block_status(blk_bs(blk), 512, 1024, &n, &map, &file);
    g_assert_cmpint(ret, ==, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED |
                    BDRV_BLOCK_OFFSET_VALID);
    g_assert_cmpint(n, ==, 1024);
    g_assert_cmpint(map, ==, 512);
    g_assert_true(file == blk_bs(blk));
    /* At and past the end. */
    ret = bdrv_block_status(blk_bs(blk), 8192, 512, &n, NULL, NULL);
    g_assert_cmpint(ret, ==, BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 0);
    ret = bdrv_block_status(blk_bs(blk), 4096, 1 * GiB, &n, NULL, NULL);
    g_assert_true(ret & BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 4096);
    test_disk_fail(d, 1u << TEST_STATUS, 1, EIO);
    g_assert_cmpint(bdrv_block_status(blk_bs(blk), 0, 512, &n, NULL, NULL), ==,
                    -EIO);
    blk_unref(blk);
}

/* Alignment coarser than the question: the answer is still for the question. */
static void test_unaligned(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = draw("d", "D0D0");
    BlockBackend *blk;
    int64_t n, map;

    test_env_init(&e);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    g_assert_true(bdrv_block_status(blk_bs(blk), 5000, 100, &n, &map, NULL) &
                  BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 100);
    g_assert_cmpint(map, ==, 5000);
    bdrv_block_status(blk_bs(blk), 5000, 10000, &n, &map, NULL);
    g_assert_cmpint(n, ==, 8192 - 5000);
    assert_status(blk_bs(blk), NULL, "D0D0");
    blk_unref(blk);
}

/* A filter is what its child is, and says where it is. */
static void test_filter(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = draw("d", "D00D");
    BlockDriverState *file;
    BlockBackend *blk;
    int64_t n, map;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-filter','file':"
                    "{'driver':'test-filter','file':"
                    "{'driver':'test','disk':'d'}}}");
    assert_status(blk_bs(blk), NULL, "D00D");
    g_assert_true(bdrv_block_status(blk_bs(blk), 4096, 8192, &n, &map, &file) &
                  BDRV_BLOCK_OFFSET_VALID);
    g_assert_cmpint(map, ==, 4096);
    g_assert_cmpstr(bdrv_get_format_name(file), ==, "test");
    test_disk_fail(d, 1u << TEST_STATUS, 1, EIO);
    g_assert_cmpint(bdrv_block_status(blk_bs(blk), 0, 512, &n, NULL, NULL), ==,
                    -EIO);
    blk_unref(blk);
}

static void test_chain(void)
{
    static const struct {
        const char *top, *mid, *base;
        const char *whole;          /* status of all, */
        const char *above_base;     /* of what is above base, */
        const char *alloc_above;    /* allocation above base, */
        const char *alloc_with;     /* and with it */
    } cases[] = {
        { "D...", ".D..", "..D.", "DDDz", "DD..", "DD..", "DDD." },
        { "0...", "D0..", "DDD0", "00D0", "00..", "DD..", "DDDD" },
        { "....", "....", "....", "zzzz", "....", "....", "...." },
        /* The last layer ends early: the zeroes after its end are its own. */
        { "D...", "....", "DD", "DD00", "D.zz", "D...", "DDDD" },
        /* A layer between ends early: it hides what is longer below. */
        { "D...", "D.", "DDDD", "DD00", "D.00", "D.DD", "DDDD" },
        { ".....", ".", "DDD", "D0000", ".0000", ".DDDD", "DDDDD" },
    };
    g_auto(TestEnv) e = { 0 };
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        TestDisk *t = draw("t", cases[i].top);
        TestDisk *m = draw("m", cases[i].mid);
        TestDisk *b = draw("b", cases[i].base);
        BlockDriverState *top, *base;
        BlockBackend *blk;

        g_test_message("case %zu", i);
        blk = test_open(e.graph, "{'driver':'test-cow','disk':'t',"
                        "'read-only':true,'backing':"
                        "{'driver':'test-cow','disk':'m','backing':"
                        "{'driver':'test-cow','disk':'b'}}}");
        top = blk_bs(blk);
        base = bdrv_backing_bs(bdrv_backing_bs(top));
        assert_status(top, NULL, cases[i].whole);
        if (cases[i].above_base) {
            assert_status(top, base, cases[i].above_base);
        }
        assert_allocated(top, base, false, cases[i].alloc_above);
        if (cases[i].alloc_with) {
            assert_allocated(top, base, true, cases[i].alloc_with);
        }
        blk_unref(blk);
        test_disk_free(t);
        test_disk_free(m);
        test_disk_free(b);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/status/" name, fn)
    T("one-layer", test_one_layer);
    T("range", test_range);
    T("unaligned", test_unaligned);
    T("filter", test_filter);
    T("chain", test_chain);
    return g_test_run();
}
