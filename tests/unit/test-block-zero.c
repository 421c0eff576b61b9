/*
 * Zeroes and discards: what reaches the driver, and what is done instead.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "test-driver.h"

#define SIZE (64 * KiB)

static void fill(TestDisk *d)
{
    memset(d->data, 0xff, SIZE);
    test_disk_clear_log(d);
}

/* Exactly this range is zero. */
static void assert_zeroed(TestDisk *d, int64_t offset, int64_t bytes)
{
    int64_t i;

    for (i = 0; i < SIZE; i++) {
        g_assert_cmpint(d->data[i], ==,
                        i >= offset && i < offset + bytes ? 0 : 0xff);
    }
}

/* ---- Zeroes ---- */

static void test_by_driver(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;

    test_env_init(&e);
    d->limits.pwrite_zeroes_alignment = 4096;
    d->limits.max_pwrite_zeroes = 8192;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    fill(d);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 1024, 20000, 0), ==, 0);
    assert_zeroed(d, 1024, 20000);
    /* Up to a unit, units as long as allowed, the rest. */
    g_assert_cmpint(test_disk_count(d, TEST_WRITE), ==, 0);
    g_assert_cmpint(test_disk_call(d, TEST_ZEROES, 0).bytes, ==, 3072);
    g_assert_cmpint(test_disk_call(d, TEST_ZEROES, 1).offset, ==, 4096);
    g_assert_cmpint(test_disk_call(d, TEST_ZEROES, 1).bytes, ==, 8192);
    g_assert_cmpint(test_disk_call(d, TEST_ZEROES, 2).bytes, ==, 8192);
    g_assert_cmpint(test_disk_call(d, TEST_ZEROES, 3).bytes, ==,
                    1024 + 20000 - 20480);
    g_assert_cmpint(test_disk_count(d, TEST_ZEROES), ==, 4);
    blk_unref(blk);
}

static void test_by_buffers(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;

    test_env_init(&e);
    d->can_zero = false;
    d->limits.max_transfer = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    fill(d);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 1024, 20000, 0), ==, 0);
    assert_zeroed(d, 1024, 20000);
    g_assert_cmpint(test_disk_count(d, TEST_WRITE), ==, 5);
    /* No way round: the caller has another plan. */
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 4096, BDRV_REQ_NO_FALLBACK), ==,
                    -ENOTSUP);
    blk_unref(blk);
}

static void test_unaligned(void)
{
    static const struct {
        int64_t offset, bytes;
        int zeroes, writes;
    } cases[] = {
        { 4096, 8192, 1, 0 },
        { 4096, 512, 0, 1 },            /* part of a block */
        { 5000, 100, 0, 1 },
        { 5000, 8192 - 5000, 0, 1 },    /* up to a boundary */
        { 5000, 8193 - 5000, 0, 2 },    /* parts of two */
        { 5000, 10000, 1, 2 },
        { 8192, 4097, 1, 1 },
        { 8191, 4097, 1, 1 },
    };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_test_message("case %zu", i);
        fill(d);
        g_assert_cmpint(blk_pwrite_zeroes(blk, cases[i].offset, cases[i].bytes,
                                          0), ==, 0);
        assert_zeroed(d, cases[i].offset, cases[i].bytes);
        g_assert_cmpint(test_disk_count(d, TEST_ZEROES), ==, cases[i].zeroes);
        g_assert_cmpint(test_disk_count(d, TEST_WRITE), ==, cases[i].writes);
    }
    g_assert_cmpint(blk_pwrite_zeroes(blk, 1, 512, BDRV_REQ_NO_FALLBACK), ==,
                    -ENOTSUP);
    blk_unref(blk);
}

/* MAY_UNMAP goes down only where unmapping is allowed. */
static void test_may_unmap(void)
{
    static const struct {
        const char *top, *file;
        bool unmaps;
    } cases[] = {
        { "unmap", "unmap", true },
        { "ignore", "unmap", false },
        { "unmap", "ignore", false },
    };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        blk = test_open(e.graph, "{'driver':'test-filter','discard':'%s',"
                        "'file':{'driver':'test-fua','disk':'d',"
                        "'discard':'%s'}}", cases[i].top, cases[i].file);
        fill(d);
        g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 4096, BDRV_REQ_MAY_UNMAP),
                        ==, 0);
        g_assert_cmpint(!!(test_disk_call(d, TEST_ZEROES, 0).flags &
                           BDRV_REQ_MAY_UNMAP), ==, cases[i].unmaps);
        g_assert_cmpint(blk_pdiscard(blk, 0, 4096), ==, 0);
        g_assert_cmpint(test_disk_count(d, TEST_DISCARD), ==, cases[i].unmaps);
        blk_unref(blk);
    }
}

static void test_detect_zeroes(void)
{
    static const struct {
        const char *mode;
        bool zeroes, unmaps;
    } cases[] = {
        { "off", false, false }, { "on", true, false }, { "unmap", true, true },
    };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    g_autofree uint8_t *buf = g_malloc0(4096);
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        blk = test_open(e.graph, "{'driver':'test-fua','disk':'d',"
                        "'discard':'unmap','detect-zeroes':'%s'}",
                        cases[i].mode);
        fill(d);
        buf[4095] = 0;
        g_assert_cmpint(blk_pwrite(blk, 100, 4096, buf, 0), ==, 0);
        assert_zeroed(d, 100, 4096);
        g_assert_cmpint(test_disk_count(d, TEST_ZEROES), ==, cases[i].zeroes);
        if (cases[i].zeroes) {
            g_assert_cmpint(!!(test_disk_call(d, TEST_ZEROES, 0).flags &
                               BDRV_REQ_MAY_UNMAP), ==, cases[i].unmaps);
        }
        buf[4095] = 1;
        g_assert_cmpint(blk_pwrite(blk, 100, 4096, buf, 0), ==, 0);
        g_assert_cmpint(d->data[100 + 4095], ==, 1);
        g_assert_cmpint(test_disk_count(d, TEST_ZEROES), ==, cases[i].zeroes);
        blk_unref(blk);
    }
}

/* ---- Discards ---- */

static void test_discard(void)
{
    static const struct {
        int64_t offset, bytes;
        int64_t expected, length;       /* what reaches the driver */
        int calls;
    } cases[] = {
        { 4096, 8192, 4096, 8192, 1 },
        { 4095, 8192, 4096, 4096, 1 },
        { 1, 8190, 0, 0, 0 },           /* no whole unit */
        { 4096, 4095, 0, 0, 0 },
        { 100, 20000, 4096, 12288, 2 },
        { 0, SIZE, 0, 8192, 8 },
    };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    size_t i;
    int n;

    test_env_init(&e);
    d->limits.pdiscard_alignment = 4096;
    d->limits.max_pdiscard = 9000;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        int64_t sum = 0;

        g_test_message("case %zu", i);
        fill(d);
        g_assert_cmpint(blk_pdiscard(blk, cases[i].offset, cases[i].bytes), ==,
                        0);
        g_assert_cmpint(test_disk_count(d, TEST_DISCARD), ==, cases[i].calls);
        for (n = 0; n < cases[i].calls; n++) {
            TestCall call = test_disk_call(d, TEST_DISCARD, n);

            g_assert_cmpint(call.offset, ==, cases[i].expected + sum);
            sum += call.bytes;
        }
        if (cases[i].calls == 1) {
            g_assert_cmpint(sum, ==, cases[i].length);
        }
    }
    blk_unref(blk);
}

/* It is advice: "cannot" is no error, a failure is one. */
static void test_discard_fails(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;

    test_env_init(&e);
    d->can_discard = false;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    g_assert_cmpint(blk_pdiscard(blk, 0, 4096), ==, 0);
    d->can_discard = true;
    test_disk_fail(d, 1u << TEST_DISCARD, 1, EIO);
    g_assert_cmpint(blk_pdiscard(blk, 0, 4096), ==, -EIO);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/zero/" name, fn)
    T("by-driver", test_by_driver);
    T("by-buffers", test_by_buffers);
    T("unaligned", test_unaligned);
    T("may-unmap", test_may_unmap);
    T("detect-zeroes", test_detect_zeroes);
    T("discard-whole-units", test_discard);
    T("discard-is-advice", test_discard_fails);
    return g_test_run();
}
