/*
 * BlockBackend: coming and going of the disk, properties, settings, counters.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "test-driver.h"

static void test_empty(void)
{
    g_auto(TestEnv) e = { 0 };
    BlockBackend *blk;
    uint32_t logical, physical;
    Error *err = NULL;
    void *p;

    test_env_init(&e);
    blk = blk_new(e.graph, BLK_PERM_ALL, BLK_PERM_ALL);
    g_assert_null(blk_bs(blk));
    g_assert_cmpstr(blk_name(blk), ==, "");
    blk_set_name(blk, "name");
    g_assert_cmpstr(blk_name(blk), ==, "name");
    g_assert_false(blk_is_writable(blk));
    g_assert_cmpint(blk_get_request_alignment(blk), ==, 512);
    g_assert_cmpint(blk_get_max_transfer(blk), ==, 0);
    blk_get_block_sizes(blk, &logical, &physical);
    g_assert_cmpint(logical | physical, ==, 0);
    p = blk_try_blockalign(blk, 100);
    g_assert_true(QEMU_PTR_IS_ALIGNED(p, 4096));
    qemu_vfree(p);
    g_assert_false(blk_truncate(blk, 0, false, PREALLOC_MODE_OFF, 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "No medium inserted");
    error_free(err);
    blk_drain(blk);
    blk_remove_bs(blk);
    blk_ref(blk);
    blk_unref(blk);
    blk_unref(blk);
    blk_unref(NULL);
}

static void test_limits(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    uint32_t logical, physical;
    BlockBackend *blk;

    test_env_init(&e);
    d->limits = (BlockLimits){
        .request_alignment = 512, .max_transfer = 1 * MiB, .max_iov = 7,
        .mapping_unit = 32 * KiB, .opt_mem_alignment = 8192,
        .pdiscard_alignment = 2048,
        .logical_block_size = 512, .physical_block_size = 4096,
    };
    blk = test_open(e.graph, "{'driver':'test-filter','file':"
                    "{'driver':'test-filter','file':"
                    "{'driver':'test','disk':'d'}}}");
    g_assert_cmpint(blk_get_request_alignment(blk), ==, 512);
    g_assert_cmpint(blk_get_max_transfer(blk), ==, 1 * MiB);
    g_assert_cmpint(blk_get_mapping_unit(blk), ==, 32 * KiB);
    g_assert_cmpint(blk_get_max_iov(blk), ==, 7);
    g_assert_cmpint(blk_get_opt_mem_alignment(blk), ==, 8192);
    g_assert_cmpint(blk_get_pdiscard_alignment(blk), ==, 2048);
    blk_get_block_sizes(blk, &logical, &physical);
    g_assert_cmpint(logical, ==, 512);
    g_assert_cmpint(physical, ==, 4096);
    blk_unref(blk);
}

/* The disk changes under a backend that is being used. */
static void test_change_medium(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    TestRequest r[4];
    BlockDriverState *bs;
    BlockBackend *blk;
    char buf[4][512];
    int i;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    bs = blk_bs(blk);
    bdrv_ref(bs);
    test_disk_hold(d, TEST_IO);
    for (i = 0; i < 4; i++) {
        test_request_init(&r[i], e.ctx, blk, BDRV_REQ_READ, 0, 512, buf[i]);
    }
    test_request_submit(&r[0]);
    test_disk_wait_held(d, 1);
    test_disk_hold(d, 0);
    blk_remove_bs(blk);                 /* waits for the first */
    test_request_submit(&r[1]);
    g_assert_cmpint(test_request_wait(&r[1]), ==, -ENOMEDIUM);
    blk_drain_begin(blk);
    test_request_submit(&r[2]);         /* parks, and finds a disk */
    blk_insert_bs(blk, bs, &error_abort);
    blk_drain_end(blk);
    test_request_submit(&r[3]);
    g_assert_cmpint(test_request_wait(&r[0]), ==, 0);
    g_assert_cmpint(test_request_wait(&r[2]), ==, 0);
    g_assert_cmpint(test_request_wait(&r[3]), ==, 0);
    for (i = 0; i < 4; i++) {
        test_request_destroy(&r[i]);
    }
    bdrv_unref(bs);
    blk_unref(blk);
}

static void test_counters(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    TestRequest r;
    BlkPathStats s;
    BlockBackend *blk;
    char buf[512];
    int i;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < 3; i++) {
        g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, 0);
    }
    g_assert_cmpint(blk_flush(blk), ==, 0);
    test_request_init(&r, e.ctx, blk, BDRV_REQ_READ, 0, 512, buf);
    blk_drain_begin(blk);
    test_request_submit(&r);
    blk_drain_end(blk);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    test_request_destroy(&r);
    blk_get_path_stats(blk, &s);
    g_assert_cmpint(s.blocking, ==, 4);
    g_assert_cmpint(s.worker, ==, 1);
    g_assert_cmpint(s.parked, ==, 1);
    g_assert_cmpint(s.inline_done + s.submitted, ==, 0);
    blk_unref(blk);
}

static void test_open_errors(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    json_t *options = test_options("{'driver':'test','disk':'d'}");
    BlockDriverState *bs;
    BlockBackend *blk;
    Error *err = NULL;

    test_env_init(&e);
    /* The node is there, but somebody keeps its writers away. */
    bs = bdrv_open(e.graph, NULL, NULL, test_options("{'driver':'test',"
                   "'disk':'d','node-name':'n'}"), BDRV_O_RDWR, &error_abort);
    blk = blk_new(e.graph, BLK_PERM_CONSISTENT_READ, BLK_PERM_CONSISTENT_READ);
    blk_insert_bs(blk, bs, &error_abort);
    g_assert_null(blk_new_open(e.graph, NULL, "n", NULL, BDRV_O_RDWR, &err));
    g_assert_nonnull(err);
    error_free(err);
    g_assert_cmpint(bs->refcnt, ==, 2);
    blk_unref(blk);
    bdrv_unref(bs);

    test_disk_fail(d, 1u << TEST_CHECK_PERM, 2, EAGAIN);
    json_incref(options);
    err = NULL;
    g_assert_null(blk_new_open(e.graph, NULL, NULL, options, BDRV_O_RDWR,
                               &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Failed to lock 'd': Resource "
                    "temporarily unavailable");
    error_free(err);
    g_assert_cmpint(options->refcount, ==, 1);
    g_assert_cmpint(d->open_nodes, ==, 0);
    json_decref(options);
}

/* Parked behind a gate, twice, and on a conflict: once. */
static void test_parked_once(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    TestRequest first, second;
    BlkPathStats s;
    BlockBackend *blk;
    char buf[512] = { 0 };

    test_env_init(&e);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    test_request_init(&first, e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf);
    test_request_init(&second, e.ctx, blk, BDRV_REQ_WRITE, 512, 512, buf);
    blk_drain_begin(blk);
    test_request_submit(&first);
    test_request_submit(&second);
    test_disk_hold(d, TEST_IO);
    blk_drain_end(blk);
    test_disk_wait_held(d, 1);
    test_disk_hold(d, 0);
    g_assert_cmpint(test_request_wait(&first), ==, 0);
    g_assert_cmpint(test_request_wait(&second), ==, 0);
    blk_get_path_stats(blk, &s);
    g_assert_cmpint(s.parked, ==, 2);
    g_assert_cmpint(s.worker, ==, 2);

    /* A conflict alone counts, too. */
    test_request_destroy(&first);
    test_request_destroy(&second);
    test_request_init(&first, e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf);
    test_request_init(&second, e.ctx, blk, BDRV_REQ_WRITE, 512, 512, buf);
    test_disk_hold(d, TEST_IO);
    test_request_submit(&first);
    test_request_submit(&second);
    test_disk_hold(d, 0);
    g_assert_cmpint(test_request_wait(&first), ==, 0);
    g_assert_cmpint(test_request_wait(&second), ==, 0);
    blk_get_path_stats(blk, &s);
    g_assert_cmpint(s.parked, ==, 3);
    test_request_destroy(&first);
    test_request_destroy(&second);
    blk_unref(blk);
}

/* ---- Settings while requests run ---- */

typedef struct Load {
    BlockBackend *blk;
    bool stop;                  /* atomic */
} Load;

static void load_main(void *opaque)
{
    Load *l = opaque;
    char buf[512] = { 0 };

    while (!qatomic_read(&l->stop)) {
        g_assert_cmpint(blk_pwrite(l->blk, 512, 512, buf, 0), ==, 0);
        g_assert_cmpint(blk_pread(l->blk, 0, 512, buf, 0), ==, 0);
    }
}

static void test_settings_under_load(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    Load l = { 0 };
    TestThread *t[2];
    int i;

    test_env_init(&e);
    d->limits.request_alignment = 4096;
    l.blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < 2; i++) {
        t[i] = test_thread_start(load_main, &l);
    }
    for (i = 0; i < 200; i++) {
        blk_set_user_block_size(l.blk, i % 2 ? 512 : 4096);
        blk_set_enable_write_cache(l.blk, i % 3);
        if (i % 20 == 0) {
            bdrv_reopen(blk_bs(l.blk), test_options("{'cache.direct':%s}",
                        i % 40 ? "true" : "false"), &error_abort);
        }
    }
    qatomic_set(&l.stop, true);
    for (i = 0; i < 2; i++) {
        test_thread_join(t[i]);
    }
    blk_unref(l.blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/backend/" name, fn)
    T("without-disk", test_empty);
    T("limits", test_limits);
    T("disk-comes-and-goes", test_change_medium);
    T("counters", test_counters);
    T("parked-counts-once", test_parked_once);
    T("open-errors", test_open_errors);
    T("settings-under-load", test_settings_under_load);
    return g_test_run();
}
