/*
 * qcow2: clusters that are set aside for data that is about to come, so that it
 * can be written in any order and lies in that of the guest.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-driver.h"
#include "block/snapshot.h"
#include "qcow2-image.h"
#include "qemu/thread.h"

/* Clusters. */
static int place(Qcow2Image *img, int64_t first, int64_t n)
{
    BlockDriverState *bs = qcow2_image_bs(img);

    return bs->drv->place(bs, first * img->cluster_size,
                          n * img->cluster_size);
}

static void write_clusters(Qcow2Image *img, int64_t first, int64_t n)
{
    int ret = qcow2_image_write(img, first * img->cluster_size,
                                n * img->cluster_size, 7, 0);

    g_assert_cmpint(ret, ==, 0);
}

/* Where the guest's cluster lies in the file, in clusters; -1: nowhere. */
static int64_t host_of(Qcow2Image *img, int64_t cluster)
{
    BlockDriverState *file;
    int64_t pnum, map = -1;
    int ret = bdrv_block_status(qcow2_image_bs(img),
                                cluster * img->cluster_size,
                                img->cluster_size, &pnum, &map, &file);

    return ret & BDRV_BLOCK_OFFSET_VALID ? map / img->cluster_size : -1;
}

/* NULL: there is no qemu-img.  What is freed keeps its data. */
static Qcow2Image *open_new(const char *options, int64_t size, bool backing)
{
    Qcow2Image *img;

    if (!qcow2_image_can_run()) {
        return NULL;
    }
    img = qcow2_image_new(options, size, backing);
    qcow2_image_open(img, "{'pass-discard-request':false}");
    return img;
}

/* Nothing is lost, and nothing leaked. */
static void finish(Qcow2Image *img)
{
    qcow2_image_verify(img, 0, img->size);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

/* Written last to first, it lies first to last. */
static void test_order(const void *options)
{
    g_autoptr(Qcow2Image) img = open_new(options, 1 * MiB, true);
    enum { CLUSTERS = 20 };

    if (!img) {
        return;
    }
    for (int i = 0; i < CLUSTERS; i++) {
        g_assert_cmpint(place(img, i, 1), ==, 0);
    }
    /* Nobody sees it. */
    g_assert_cmpint(host_of(img, 0), ==, -1);
    qcow2_image_verify(img, 0, img->size);
    for (int i = CLUSTERS - 1; i >= 0; i--) {
        write_clusters(img, i, 1);
    }
    for (int i = 0; i < CLUSTERS; i++) {
        g_assert_cmpint(host_of(img, i), ==, host_of(img, 0) + i);
    }
    finish(img);
}

/* A piece that reaches over the end of an L2 slice is two. */
static void test_slices(void)
{
    g_autoptr(Qcow2Image) img = open_new("cluster_size=512", 1 * MiB, false);
    const int entries = 512 / 8;

    if (!img) {
        return;
    }
    g_assert_cmpint(place(img, entries - 3, 6), ==, 0);
    write_clusters(img, entries + 10, 1);
    write_clusters(img, entries - 3, 6);
    g_assert_cmpint(host_of(img, entries + 2), <, host_of(img, entries + 10));
    finish(img);
}

/* A host cluster with old data: of the new one a part is written. */
static void test_old_data(void)
{
    g_autoptr(Qcow2Image) img = open_new("cluster_size=4096", 1 * MiB, false);
    int64_t host;

    if (!img) {
        return;
    }
    write_clusters(img, 0, 8);
    host = host_of(img, 0);
    g_assert_cmpint(qcow2_image_discard(img, 0, 8 * 4096), ==, 0);
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
    g_assert_cmpint(place(img, 20, 1), ==, 0);
    qcow2_image_write(img, 20 * 4096 + 512, 1024, 8, 0);
    g_assert_cmpint(host_of(img, 20), ==, host);
    finish(img);
}

/* The disk's last cluster may be cut. */
static void test_end(void)
{
    int64_t size = 3 * 4096 + 512;
    g_autoptr(Qcow2Image) img = open_new("cluster_size=4096", size, false);
    BlockDriverState *bs;

    if (!img) {
        return;
    }
    bs = qcow2_image_bs(img);
    g_assert_cmpint(bs->drv->place(bs, 4096, size - 4096), ==, 0);
    write_clusters(img, 0, 1);
    qcow2_image_write(img, 4096, size - 4096, 9, 0);
    g_assert_cmpint(host_of(img, 3), <, host_of(img, 0));
    finish(img);
}

static void test_forgotten(void)
{
    g_autoptr(Qcow2Image) img = open_new("cluster_size=4096", 1 * MiB, true);

    if (!img) {
        return;
    }
    g_assert_cmpint(place(img, 0, 4), ==, 0);
    finish(img);
}

/* Others come, or for something else. */
static void test_not_taken(void)
{
    g_autoptr(Qcow2Image) img = open_new("cluster_size=4096", 1 * MiB, true);

    if (!img) {
        return;
    }
    g_assert_cmpint(place(img, 0, 4), ==, 0);
    g_assert_cmpint(place(img, 8, 4), ==, 0);
    g_assert_cmpint(place(img, 16, 4), ==, 0);
    g_assert_cmpint(place(img, 24, 4), ==, 0);
    write_clusters(img, 1, 2);
    write_clusters(img, 24, 2);
    qcow2_image_zero(img, 8 * 4096, 4 * 4096, 0);
    qcow2_image_write(img, 16 * 4096, 4 * 4096, 3, BDRV_REQ_WRITE_COMPRESSED);
    finish(img);
}

/* After a flush, or what begins with one, nothing is set aside. */
static void test_flushed(void)
{
    g_autoptr(Qcow2Image) img = open_new("cluster_size=4096", 1 * MiB, true);
    QEMUSnapshotInfo sn = { .name = "s" };
    int64_t first;

    if (!img) {
        return;
    }
    write_clusters(img, 30, 1);
    first = host_of(img, 30) + 1;
    g_assert_cmpint(place(img, 0, 4), ==, 0);
    write_clusters(img, 31, 1);
    g_assert_cmpint(host_of(img, 31), ==, first + 4);
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
    write_clusters(img, 32, 4);
    g_assert_cmpint(host_of(img, 32), ==, first);
    g_assert_cmpint(place(img, 0, 4), ==, 0);
    g_assert_true(bdrv_snapshot_create(qcow2_image_bs(img), &sn, NULL));
    write_clusters(img, 0, 4);
    finish(img);
}

/* Where there is something, in part of a cluster, and twice. */
static void test_refused(void)
{
    g_autoptr(Qcow2Image) img = open_new("cluster_size=4096", 1 * MiB, true);
    BlockDriverState *bs;

    if (!img) {
        return;
    }
    bs = qcow2_image_bs(img);
    write_clusters(img, 2, 1);
    qcow2_image_write(img, 5 * 4096, 4096, 3, BDRV_REQ_WRITE_COMPRESSED);
    g_assert_cmpint(place(img, 0, 3), ==, -ENOTSUP);
    g_assert_cmpint(place(img, 5, 1), ==, -ENOTSUP);
    g_assert_cmpint(bs->drv->place(bs, 8 * 4096 + 512, 4096 - 512), ==,
                    -ENOTSUP);
    g_assert_cmpint(bs->drv->place(bs, 8 * 4096, 512), ==, -ENOTSUP);
    g_assert_cmpint(place(img, 9, 2), ==, 0);
    g_assert_cmpint(place(img, 10, 2), ==, -ENOTSUP);
    finish(img);
}

static void test_data_file(void)
{
    g_autoptr(Qcow2Image) img = open_new("data_file", 1 * MiB, false);

    if (!img) {
        return;
    }
    g_assert_cmpint(place(img, 0, 1), ==, -ENOTSUP);
    finish(img);
}

/* ---- Threads ---- */

#define WRITERS 4
#define CLUSTERS 240

typedef struct Writer {
    Qcow2Image *img;
    int first;
    QemuThread thread;
} Writer;

static void *writer_main(void *opaque)
{
    Writer *w = opaque;

    for (int i = w->first; i < CLUSTERS; i += WRITERS) {
        int ret = place(w->img, i, 1);

        g_assert_true(ret == 0 || ret == -ENOTSUP);
        write_clusters(w->img, i, 1);
        if (i % 16 == w->first) {
            g_assert_cmpint(blk_flush(w->img->blk), ==, 0);
        }
    }
    return NULL;
}

/* Threads place, write and flush beside each other, then write over it. */
static void test_threads(void)
{
    g_autoptr(Qcow2Image) img = open_new("cluster_size=4096", 1 * MiB, false);
    Writer w[WRITERS];

    if (!img) {
        return;
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < WRITERS; i++) {
            w[i] = (Writer){ img, i };
            g_assert_cmpint(qemu_thread_create(&w[i].thread, "writer",
                                               writer_main, &w[i]), ==, 0);
        }
        for (int i = 0; i < WRITERS; i++) {
            qemu_thread_join(&w[i].thread);
        }
    }
    finish(img);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define T(name, fn) g_test_add_func("/qcow2-place/" name, fn)
#define D(name, data, fn) g_test_add_data_func("/qcow2-place/" name, data, fn)
    D("order/plain", "cluster_size=4096", test_order);
    D("order/subclusters", "cluster_size=16384,extended_l2=on", test_order);
    D("order/lazy", "cluster_size=4096,lazy_refcounts=on", test_order);
    D("order/version-2", "cluster_size=4096,compat=0.10", test_order);
    T("slices", test_slices);
    T("old-data", test_old_data);
    T("end", test_end);
    T("forgotten", test_forgotten);
    T("not-taken", test_not_taken);
    T("flushed", test_flushed);
    T("refused", test_refused);
    T("data-file", test_data_file);
    T("threads", test_threads);
    return g_test_run();
}
