/*
 * The state of a machine in a qcow2 image: what is written is there, the disk
 * is as it was, and others find the image whole.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-image.h"
#include "block/block-driver.h"
#include "block/snapshot.h"

#define SIZE (1 * MiB)

static int save(Qcow2Image *img, int64_t pos, int64_t bytes, int byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes + 1);
    QEMUIOVector qiov;

    memset(buf, byte, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    return bdrv_save_vmstate(blk_bs(img->blk), pos, &qiov);
}

static int load(Qcow2Image *img, int64_t pos, int64_t bytes, uint8_t *buf)
{
    QEMUIOVector qiov;

    memset(buf, 0xee, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    return bdrv_load_vmstate(blk_bs(img->blk), pos, &qiov);
}

static void assert_state(Qcow2Image *img, int64_t pos, int64_t bytes, int byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    g_assert_cmpint(load(img, pos, bytes, buf), ==, 0);
    for (int64_t i = 0; i < bytes; i++) {
        g_assert_cmpint(buf[i], ==, byte);
    }
}

static const char *const options[] = {
    "cluster_size=512", "cluster_size=65536", "compat=0.10,cluster_size=4096",
    "cluster_size=16384,extended_l2=on", "lazy_refcounts=on,refcount_bits=1",
};

static void test_stays(const void *opaque)
{
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new(opaque, SIZE, true);
    qcow2_image_open(img, NULL);
    qcow2_image_write(img, 100000, 200000, 1, 0);
    g_assert_cmpint(save(img, 0, 100000, 7), ==, 0);
    g_assert_cmpint(save(img, 99000, 70000, 8), ==, 0);
    g_assert_cmpint(save(img, 40 * MiB, 1, 9), ==, 0);
    qcow2_image_write(img, 900000, 100000, 2, 0);
    assert_state(img, 0, 99000, 7);
    assert_state(img, 99000, 70000, 8);
    assert_state(img, 169000, 100000, 0);
    assert_state(img, 40 * MiB, 1, 9);
    assert_state(img, 1 * TiB, 10, 0);      /* beyond the L1 table */
    qcow2_image_verify(img, 0, SIZE);
    qcow2_image_close(img);

    qcow2_image_assert_good(img);
    qcow2_image_open(img, NULL);
    assert_state(img, 0, 99000, 7);
    assert_state(img, 40 * MiB, 1, 9);
    assert_state(img, 40 * MiB + 1, 5000, 0);
    qcow2_image_verify(img, 0, SIZE);
}

/* A guest must never see it. */
static void test_disk_grows_over_it(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree uint8_t *buf = g_malloc(64 * KiB);

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=512", SIZE, false);
    qcow2_image_open(img, NULL);
    g_assert_cmpint(save(img, 0, 64 * KiB, 7), ==, 0);
    g_assert_true(blk_set_perm(img->blk, BLK_PERM_ALL, BLK_PERM_ALL,
                               &error_abort));
    g_assert_true(blk_truncate(img->blk, 2 * SIZE, false, PREALLOC_MODE_OFF,
                               0, &error_abort));
    g_assert_cmpint(blk_pread(img->blk, SIZE, 64 * KiB, buf, 0), ==, 0);
    for (int i = 0; i < 64 * KiB; i++) {
        g_assert_cmpint(buf[i], ==, 0);
    }
    assert_state(img, 0, 64 * KiB, 0);
    qcow2_image_close(img);
    g_assert_cmpint(qcow2_image_check(img), ==, 0);
}

/* A snapshot keeps it, whatever is written later. */
static void test_snapshot(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    QEMUSnapshotInfo sn = { .name = "s", .vm_state_size = 64 * KiB };

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=512", SIZE, false);
    qcow2_image_open(img, NULL);
    qcow2_image_write(img, 0, SIZE, 1, 0);
    g_assert_cmpint(save(img, 0, 64 * KiB, 7), ==, 0);
    g_assert_true(bdrv_snapshot_create(blk_bs(img->blk), &sn, &error_abort));
    g_assert_cmpint(save(img, 1000, 128 * KiB, 8), ==, 0);
    assert_state(img, 0, 1000, 7);
    assert_state(img, 1000, 128 * KiB, 8);
    g_assert_true(bdrv_snapshot_goto(blk_bs(img->blk), "s", &error_abort));
    assert_state(img, 0, 64 * KiB, 7);
    assert_state(img, 64 * KiB, 64 * KiB, 0);
    qcow2_image_verify(img, 0, SIZE);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

/* A backing file that goes on where the state is, is not the state. */
static void test_longer_backing_file(void)
{
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    /* An L1 entry maps 32 KiB. */
    img = qcow2_image_new("cluster_size=512", SIZE, true);
    qcow2_image_open(img, NULL);
    g_assert_true(blk_set_perm(img->blk, BLK_PERM_ALL, BLK_PERM_ALL,
                               &error_abort));
    g_assert_true(blk_truncate(img->blk, 64 * KiB, true, PREALLOC_MODE_OFF,
                               0, &error_abort));
    assert_state(img, 0, SIZE - 64 * KiB, 0);
    g_assert_cmpint(save(img, 1000, 10, 7), ==, 0);
    assert_state(img, 0, 1000, 0);
    assert_state(img, 1010, 10000, 0);
}

static void test_refused(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    json_t *read_only = json_pack("{s:b}", "read-only", 1);
    uint8_t buf[8];

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=65536", SIZE, false);
    qcow2_image_open(img, NULL);
    g_assert_cmpint(save(img, -1, 1, 7), ==, -EINVAL);
    g_assert_cmpint(save(img, INT64_MAX - 10, 8, 7), ==, -EIO);
    g_assert_cmpint(load(img, INT64_MAX - 10, 8, buf), ==, -EIO);
    g_assert_cmpint(save(img, INT64_C(2) << 50, 8, 7), ==, -EFBIG);
    g_assert_cmpint(save(img, INT64_C(7) << 60, 8, 7), ==, -EFBIG);
    g_assert_cmpint(load(img, INT64_C(7) << 60, 8, buf), ==, 0);
    g_assert_cmpint(save(img, 0, 0, 7), ==, 0);
    g_assert_true(blk_set_perm(img->blk, BLK_PERM_CONSISTENT_READ,
                               BLK_PERM_ALL, &error_abort));
    g_assert_true(bdrv_reopen(blk_bs(img->blk), read_only, &error_abort));
    g_assert_cmpint(save(img, 0, 8, 7), ==, -EPERM);
    assert_state(img, 0, 8, 0);
    qcow2_image_close(img);
    g_assert_cmpint(qcow2_image_check(img), ==, 0);
}

/* There is a disk's data, and no place beside it. */
static void test_data_file(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    uint8_t buf[8];

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("data_file", SIZE, false);
    qcow2_image_open(img, NULL);
    g_assert_cmpint(save(img, 0, 8, 7), ==, -ENOTSUP);
    g_assert_cmpint(load(img, 0, 8, buf), ==, -ENOTSUP);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        g_autofree char *name = g_strdup_printf("/qcow2-vmstate/stays/%s",
                                                options[i]);

        g_test_add_data_func(name, options[i], test_stays);
    }
    g_test_add_func("/qcow2-vmstate/disk-grows-over-it",
                    test_disk_grows_over_it);
    g_test_add_func("/qcow2-vmstate/snapshot", test_snapshot);
    g_test_add_func("/qcow2-vmstate/longer-backing-file",
                    test_longer_backing_file);
    g_test_add_func("/qcow2-vmstate/refused", test_refused);
    g_test_add_func("/qcow2-vmstate/data-file", test_data_file);
    return g_test_run();
}
