/*
 * qcow2 when it is not known whether a write of the header has reached the
 * disk: it failed, or the sync after it did.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/qcow2.h"
#include "block/snapshot.h"
#include "qemu/bswap.h"
#include "test-driver.h"

#define DISK_SIZE (16 * MiB)

static TestEnv env;

/* A new image on a disk in memory. */
static TestDisk *make_image(const char *options)
{
    g_autofree char *dir = g_dir_make_tmp("qcow2-header-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "image", NULL);
    g_autofree char *contents = NULL;
    TestDisk *d = test_disk_new("d", DISK_SIZE);
    gsize length;

    g_assert_true(bdrv_create(env.graph, "qcow2", path,
                              qemu_opts_parse_legacy(options, NULL, false,
                                                     NULL, &error_abort),
                              &error_abort));
    g_assert_true(g_file_get_contents(path, &contents, &length, NULL));
    g_assert_cmpint(length, <=, DISK_SIZE);
    memcpy(d->data, contents, length);
    g_unlink(path);
    g_rmdir(dir);
    return d;
}

static BlockBackend *open_image(void)
{
    return test_open(env.graph, "{'driver':'qcow2','file':"
                     "{'driver':'test','disk':'d'}}");
}

/* The header was written again after write number @failed of it. */
static void assert_header_is_known(TestDisk *d, int failed)
{
    int last = -1;

    if (test_disk_call(d, TEST_WRITE, failed).offset != 0) {
        return;
    }
    for (int i = 0; i < test_disk_count(d, TEST_WRITE); i++) {
        if (test_disk_call(d, TEST_WRITE, i).offset == 0) {
            last = i;
        }
    }
    g_assert_cmpint(last, >, failed);
}

typedef bool Change(BlockBackend *blk);

static bool change_grow(BlockBackend *blk)
{
    BDRVQcow2State *s = blk_bs(blk)->opaque;
    int ret;

    driver_lock(&s->lock);
    ret = qcow2_grow_l1(blk_bs(blk), 1000);
    driver_unlock(&s->lock);
    return ret == 0;
}

static bool change_shrink(BlockBackend *blk)
{
    return blk_truncate(blk, 64 * KiB, true, PREALLOC_MODE_OFF, 0, NULL);
}

static bool change_goto(BlockBackend *blk)
{
    return bdrv_snapshot_goto(blk_bs(blk), "s", NULL);
}

static bool change_delete(BlockBackend *blk)
{
    return bdrv_snapshot_delete(blk_bs(blk), "s", NULL);
}

static bool change_upgrade(BlockBackend *blk)
{
    g_autoptr(json_t) o = json_pack("{s:s}", "compat", "1.1");
    BlockDriverState *bs = blk_bs(blk);
    bool ok;

    bdrv_drained_begin(bs);
    ok = bs->drv->amend(bs, o, false, NULL, NULL, NULL);
    bdrv_drained_end(bs);
    return ok;
}

static BlockBackend *open_with_snapshot(void)
{
    BlockBackend *blk = open_image();
    QEMUSnapshotInfo sn = { .name = "s" };
    uint8_t byte = 1;

    g_assert_true(bdrv_snapshot_create(blk_bs(blk), &sn, &error_abort));
    g_assert_cmpint(blk_pwrite(blk, 512, 1, &byte, 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    return blk;
}

/* False: there were not so many writes. */
static bool fail_write(Change *change, int nth)
{
    g_autoptr(TestDisk) d = make_image("size=1M,cluster_size=512");
    BlockBackend *blk = open_with_snapshot();
    bool failed, ok;
    uint8_t byte = 2;

    test_disk_clear_log(d);
    test_disk_fail(d, 1 << TEST_WRITE, nth, EIO);
    ok = change(blk);
    failed = test_disk_failed(d);
    test_disk_fail(d, 0, 0, 0);
    g_assert_true(ok || failed);
    if (!ok) {
        assert_header_is_known(d, nth - 1);
    }
    g_assert_cmpint(blk_pwrite(blk, 512, 1, &byte, 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);

    blk = open_image();
    g_assert_cmpint(blk_pread(blk, 512, 1, &byte, 0), ==, 0);
    g_assert_cmpint(byte, ==, 2);
    blk_unref(blk);
    return failed;
}

static void test_fail_write(gconstpointer change)
{
    for (int nth = 1; fail_write((Change *)change, nth); nth++) {
    }
}

/*
 * False: there were not so many syncs.  What the disk is after the change, or
 * after the attempt, is what the header says; and what is written then is where
 * the header finds it.
 */
static bool fail_sync(Change *change, const char *options, int nth)
{
    g_autoptr(TestDisk) d = make_image(options);
    BlockBackend *blk = open_with_snapshot();
    BDRVQcow2State *s = blk_bs(blk)->opaque;
    bool failed, ok;
    uint8_t byte = 2;

    test_disk_fail(d, 1 << TEST_FLUSH, nth, EIO);
    ok = change(blk);
    failed = test_disk_failed(d);
    test_disk_fail(d, 0, 0, 0);
    g_assert_true(ok || failed);
    g_assert_cmpint(ldl_be_p(d->data + 4), ==, s->qcow_version);
    g_assert_cmpint(ldq_be_p(d->data + 24), ==, blk_getlength(blk));
    g_assert_cmpint(ldq_be_p(d->data + 40), ==, s->l1->offset);
    g_assert_cmpint(ldl_be_p(d->data + 60), ==, s->nb_snapshots);
    g_assert_cmpint(ldq_be_p(d->data + 64), ==, s->snapshots_offset);
    g_assert_cmpint(blk_pwrite(blk, 512, 1, &byte, 0), ==, 0);
    blk_unref(blk);

    blk = open_image();
    g_assert_cmpint(blk_pread(blk, 512, 1, &byte, 0), ==, 0);
    g_assert_cmpint(byte, ==, 2);
    blk_unref(blk);
    return failed;
}

static void test_fail_sync(gconstpointer change)
{
    const char *options = (Change *)change == change_upgrade ?
                          "size=1M,cluster_size=512,compat=0.10" :
                          "size=1M,cluster_size=512";

    for (int nth = 1; fail_sync((Change *)change, options, nth); nth++) {
    }
}

/* If the header cannot be written again either, nothing else is written. */
static void test_fail_for_good(gconstpointer change)
{
    g_autoptr(TestDisk) d = make_image("size=1M,cluster_size=512");
    BlockBackend *blk = open_with_snapshot();
    int64_t header = -1;
    uint8_t byte = 2;

    /* Which of the writes is it? */
    test_disk_clear_log(d);
    g_assert_true(((Change *)change)(blk));
    for (int i = 0; header < 0; i++) {
        if (test_disk_call(d, TEST_WRITE, i).offset == 0) {
            header = i;
        }
    }
    blk_unref(blk);
    test_disk_free(g_steal_pointer(&d));

    d = make_image("size=1M,cluster_size=512");
    blk = open_with_snapshot();
    test_disk_clear_log(d);
    test_disk_fail_from(d, 1 << TEST_WRITE, header + 1, EIO);
    g_assert_false(((Change *)change)(blk));
    test_disk_fail(d, 0, 0, 0);
    g_assert_cmpint(blk_pwrite(blk, 512, 1, &byte, 0), ==, -EIO);
    blk_unref(blk);
}

static uint64_t features_on_disk(TestDisk *d)
{
    return ldq_be_p(d->data + 72);
}

/* The dirty bit is gone from the disk, but that may not be durable: then an
 * allocation sets it again. */
static void test_fail_clear_dirty(void)
{
    g_autoptr(TestDisk) d = make_image("size=1M,lazy_refcounts=on");
    BlockBackend *blk = open_image();
    BDRVQcow2State *s = blk_bs(blk)->opaque;
    uint8_t byte = 1;
    int ret;

    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(features_on_disk(d), ==, QCOW2_INCOMPAT_DIRTY);
    for (int nth = 1; features_on_disk(d); nth++) {
        test_disk_fail(d, 1 << TEST_FLUSH, nth, EIO);
        driver_lock(&s->lock);
        ret = qcow2_mark_clean(blk_bs(blk));
        driver_unlock(&s->lock);
        g_assert_cmpint(ret, ==, -EIO);
        g_assert_cmpint(nth, <, 10);
    }
    g_assert_cmpint(blk_pwrite(blk, 128 * KiB, 1, &byte, 0), ==, 0);
    g_assert_cmpint(features_on_disk(d), ==, QCOW2_INCOMPAT_DIRTY);
    blk_unref(blk);
    g_assert_cmpint(features_on_disk(d), ==, 0);
}

/* It may be there, although setting it has failed: then closing clears it. */
static void test_fail_set_dirty(void)
{
    g_autoptr(TestDisk) d = make_image("size=1M,lazy_refcounts=on");
    BlockBackend *blk = open_image();
    uint8_t byte = 1;

    test_disk_fail(d, 1 << TEST_FLUSH, 1, EIO);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, -EIO);
    g_assert_cmpint(features_on_disk(d), ==, QCOW2_INCOMPAT_DIRTY);
    blk_unref(blk);
    g_assert_cmpint(features_on_disk(d), ==, 0);
}

/* ---- A header that can be torn ---- */

/* The next write of the header, from call *@n on. */
static TestCall next_write(TestDisk *d, int *n)
{
    g_assert_cmpint(*n, <, test_disk_count(d, TEST_WRITE));
    return test_disk_call(d, TEST_WRITE, (*n)++);
}

/* The writes are @parts, of which 'h' is the first sector, 'r' the rest of the
 * cluster, 'a' both; and a sync follows each. */
static void rename_backing(BlockBackend *blk, TestDisk *d, size_t length,
                           const char *parts)
{
    g_autofree char *name = g_strnfill(length, 'n');
    int n = 0;

    test_disk_clear_log(d);
    g_assert_true(bdrv_change_backing_file(blk_bs(blk), name, "raw",
                                           &error_abort));
    for (; *parts; parts++) {
        TestCall c = next_write(d, &n);

        g_assert_cmpint(c.offset, ==, *parts == 'r' ? 512 : 0);
        g_assert_cmpint(c.bytes, ==, *parts == 'h' ? 512 :
                        64 * KiB - c.offset);
    }
    g_assert_cmpint(n, ==, test_disk_count(d, TEST_WRITE));
    g_assert_cmpint(n, ==, test_disk_count(d, TEST_FLUSH));
}

/* A short name is in the first sector; one of 600 bytes is not. */
static void test_order_of_sectors(void)
{
    g_autoptr(TestDisk) d = make_image("size=1M");
    BlockBackend *blk = open_image();

    rename_backing(blk, d, 10, "h");
    rename_backing(blk, d, 300, "h");
    rename_backing(blk, d, 600, "rh");
    rename_backing(blk, d, 20, "hr");
    rename_backing(blk, d, 600, "rh");
    rename_backing(blk, d, 700, "a");
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
    test_env_init(&env);
    g_test_add_data_func("/qcow2-header/fail/grow", change_grow,
                         test_fail_write);
    g_test_add_data_func("/qcow2-header/fail/goto", change_goto,
                         test_fail_write);
    g_test_add_data_func("/qcow2-header/fail/shrink", change_shrink,
                         test_fail_write);
    g_test_add_data_func("/qcow2-header/fail-sync/grow", change_grow,
                         test_fail_sync);
    g_test_add_data_func("/qcow2-header/fail-sync/goto", change_goto,
                         test_fail_sync);
    g_test_add_data_func("/qcow2-header/fail-sync/delete", change_delete,
                         test_fail_sync);
    g_test_add_data_func("/qcow2-header/fail-sync/shrink", change_shrink,
                         test_fail_sync);
    g_test_add_data_func("/qcow2-header/fail-sync/upgrade", change_upgrade,
                         test_fail_sync);
    g_test_add_data_func("/qcow2-header/fail-for-good/grow", change_grow,
                         test_fail_for_good);
    g_test_add_data_func("/qcow2-header/fail-for-good/goto", change_goto,
                         test_fail_for_good);
    g_test_add_func("/qcow2-header/fail/clear-dirty-bit",
                    test_fail_clear_dirty);
    g_test_add_func("/qcow2-header/fail/set-dirty-bit", test_fail_set_dirty);
    g_test_add_func("/qcow2-header/torn/order-of-sectors",
                    test_order_of_sectors);
    ret = g_test_run();
    test_env_destroy(&env);
    return ret;
}
