/*
 * A qcow2 image that two "processes" (two graphs: the host's locks tell them
 * apart) hand to each other, as in a live migration: at no time have both the
 * right to write, and each sees what the other did.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-image.h"
#include "block/dirty-bitmap.h"
#include "block/snapshot.h"
#include "qemu/error.h"

typedef struct Side {
    BlockGraph *graph;
    BlockBackend *blk;
} Side;

static void side_open(Side *side, Qcow2Image *img, bool incoming,
                      const char *more)
{
    json_t *o = options_from_json(more, &error_abort);
    uint64_t perm = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
    BlockDriverState *bs;

    json_object_set_new(o, "driver", json_string("qcow2"));
    json_object_set_new(o, "discard", json_string("unmap"));
    side->graph = block_graph_new();
    side->blk = blk_new(side->graph, incoming ? 0 : perm,
                        BLK_PERM_ALL & ~(incoming ? 0 : BLK_PERM_WRITE));
    bs = bdrv_open(side->graph, img->path, NULL, o,
                   BDRV_O_RDWR | (incoming ? BDRV_O_INACTIVE : 0),
                   &error_abort);
    blk_insert_bs(side->blk, bs, &error_abort);
    bdrv_unref(bs);
}

static void side_close(Side *side)
{
    blk_unref(side->blk);
    block_graph_free(side->graph);
}

static bool take(Side *side, Error **errp)
{
    return blk_set_perm(side->blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                        BLK_PERM_ALL & ~BLK_PERM_WRITE, errp) &&
           bdrv_activate(blk_bs(side->blk), errp);
}

static void give(Side *side)
{
    blk_set_perm(side->blk, 0, BLK_PERM_ALL, &error_abort);
    bdrv_inactivate(blk_bs(side->blk), &error_abort);
}

/* The model is one for both sides. */
static void use(Qcow2Image *img, Side *side)
{
    img->blk = side->blk;
}

static void unuse(Qcow2Image *img)
{
    img->blk = NULL;
}

static void work(Qcow2Image *img, Side *side, unsigned seed)
{
    use(img, side);
    qcow2_image_verify(img, 0, img->size);
    for (int i = 0; i < 8; i++) {
        int64_t offset = g_test_rand_int_range(0, img->size / 512 - 600) *
                         INT64_C(512);

        g_assert_cmpint(qcow2_image_write(img, offset, 512 * (1 + 70 * i),
                                          seed + i, 0), ==, 0);
    }
    g_assert_cmpint(qcow2_image_zero(img, 3 * img->cluster_size,
                                     2 * img->cluster_size, 0), ==, 0);
    g_assert_cmpint(qcow2_image_write(img, 3 * img->cluster_size + 512, 1024,
                                      seed + 9, 0), ==, 0);
    g_assert_cmpint(qcow2_image_discard(img, 7 * img->cluster_size,
                                        img->cluster_size), ==, 0);
    qcow2_image_verify(img, 0, img->size);
    unuse(img);
}

static void test_there_and_back(const void *options)
{
    g_autoptr(Qcow2Image) img = NULL;
    Side a, b;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new(options, 8 * MiB, strstr(options, "4k"));
    side_open(&a, img, false, "{}");
    work(img, &a, 1);
    side_open(&b, img, true, "{}");
    for (unsigned round = 0; round < 6; round++) {
        Side *from = round & 1 ? &b : &a;
        Side *to = round & 1 ? &a : &b;
        Error *err = NULL;

        g_assert_false(take(to, &err));
        g_assert_nonnull(strstr(error_get_pretty(err), "lock"));
        error_free(err);
        blk_set_perm(to->blk, 0, BLK_PERM_ALL, &error_abort);
        give(from);
        /* What it is now is all on the disk, and clean. */
        g_assert_cmpint(qcow2_image_check(img), ==, 0);
        g_assert_true(take(to, &error_abort));
        work(img, to, 100 * round);
    }
    side_close(&b);
    side_close(&a);
    qcow2_image_assert_good(img);
}

/* Length, snapshots and tables may all be others than when it was opened. */
static void test_all_is_read_anew(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree QEMUSnapshotInfo *list = NULL;
    QEMUSnapshotInfo sn = { .name = "one" };
    char buf[512];
    size_t n;
    Side a, b;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=512", 4 * MiB, false);
    side_open(&a, img, false, "{}");
    side_open(&b, img, true, "{}");
    memset(buf, 1, sizeof(buf));
    g_assert_cmpint(blk_pwrite(a.blk, 0, 512, buf, 0), ==, 0);
    bdrv_snapshot_create(blk_bs(a.blk), &sn, &error_abort);
    memset(buf, 2, sizeof(buf));
    g_assert_cmpint(blk_pwrite(a.blk, 0, 512, buf, 0), ==, 0);
    blk_set_perm(a.blk, BLK_PERM_ALL, BLK_PERM_ALL & ~BLK_PERM_WRITE,
                 &error_abort);
    blk_truncate(a.blk, 256 * MiB, true, PREALLOC_MODE_OFF, 0, &error_abort);
    for (int64_t at = 4 * MiB; at < 256 * MiB; at += 8 * MiB) {
        g_assert_cmpint(blk_pwrite(a.blk, at, 512, buf, 0), ==, 0);
    }
    g_assert_cmpint(blk_getlength(b.blk), ==, 4 * MiB);
    give(&a);
    take(&b, &error_abort);
    g_assert_cmpint(blk_getlength(b.blk), ==, 256 * MiB);
    for (int64_t at = 4 * MiB; at < 256 * MiB; at += 8 * MiB) {
        char in[512];

        g_assert_cmpint(blk_pread(b.blk, at, 512, in, 0), ==, 0);
        g_assert_cmpmem(in, 512, buf, 512);
    }
    bdrv_snapshot_list(blk_bs(b.blk), &list, &n, &error_abort);
    g_assert_cmpuint(n, ==, 1);
    g_assert_cmpstr(list[0].name, ==, "one");
    side_close(&b);
    side_close(&a);
    g_assert_cmpint(qcow2_image_check(img), ==, 0);
}

static BdrvDirtyBitmap *find_bitmap(Side *side)
{
    BdrvDirtyBitmap *b = bdrv_find_dirty_bitmap(blk_bs(side->blk), "b");

    g_assert_nonnull(b);
    return b;
}

/* A bitmap that the image keeps goes with it, also when the disk has grown. */
static void test_bitmaps(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    char buf[512] = { 1 };
    BdrvDirtyBitmap *b;
    Side sides[2];

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=64k", 8 * MiB, false);
    side_open(&sides[0], img, false, "{}");
    b = bdrv_create_dirty_bitmap(blk_bs(sides[0].blk), 65536, "b",
                                 &error_abort);
    bdrv_dirty_bitmap_set_persistence(b, true);
    side_open(&sides[1], img, true, "{}");
    for (int round = 1; round <= 6; round++) {
        Side *from = &sides[round & 1 ? 0 : 1], *to = &sides[round & 1];

        g_assert_cmpint(blk_pwrite(from->blk, round * MiB, 512, buf, 0), ==,
                        0);
        blk_set_perm(from->blk, BLK_PERM_ALL, BLK_PERM_ALL & ~BLK_PERM_WRITE,
                     &error_abort);
        blk_truncate(from->blk, (8 + round) * MiB, true, PREALLOC_MODE_OFF, 0,
                     &error_abort);
        give(from);
        g_assert_null(bdrv_find_dirty_bitmap(blk_bs(from->blk), "b"));
        g_assert_cmpint(qcow2_image_check(img), ==, 0);
        take(to, &error_abort);
        b = find_bitmap(to);
        g_assert_true(bdrv_dirty_bitmap_enabled(b));
        g_assert_cmpint(bdrv_dirty_bitmap_size(b), ==, (8 + round) * MiB);
        g_assert_cmpint(bdrv_get_dirty_count(b), >=, round * 65536);
    }
    side_close(&sides[1]);
    side_close(&sides[0]);
    g_assert_cmpint(qcow2_image_check(img), ==, 0);
}

/* Nothing is lost if the one who gets it cannot read it. */
static void test_failed_activation(void)
{
    static const uint8_t bad[4], good[4] = { 0, 0, 0, 1 };
    g_autoptr(Qcow2Image) img = NULL;
    Error *err = NULL;
    Side a, b;
    FILE *f;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=64k", 8 * MiB, true);
    side_open(&a, img, false, "{}");
    side_open(&b, img, true, "{\"l2-cache-size\": \"64k\"}");
    work(img, &a, 1);
    give(&a);
    f = fopen(img->path, "r+b");
    fseek(f, 36, SEEK_SET);             /* L1 entries: none for this disk */
    g_assert_cmpint(fwrite(bad, 1, 4, f), ==, 4);
    fflush(f);
    g_assert_false(take(&b, &err));
    error_free(err);
    blk_set_perm(b.blk, 0, BLK_PERM_ALL, &error_abort);
    fseek(f, 36, SEEK_SET);
    g_assert_cmpint(fwrite(good, 1, 4, f), ==, 4);
    fclose(f);
    g_assert_true(take(&a, &error_abort));
    work(img, &a, 2);
    give(&a);
    g_assert_true(take(&b, &error_abort));
    work(img, &b, 3);
    side_close(&b);
    side_close(&a);
    qcow2_image_assert_good(img);
}

/* Who never gets it writes nothing, not even when it is closed. */
static void test_inactive_writes_nothing(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    Side a, b;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("lazy_refcounts=on", 8 * MiB, false);
    side_open(&a, img, false, "{}");
    use(img, &a);
    g_assert_cmpint(qcow2_image_write(img, 0, MiB, 1, 0), ==, 0);
    /* Dirty, which is no reason not to open it. */
    side_open(&b, img, true, "{}");
    g_assert_cmpint(qcow2_image_write(img, MiB, MiB, 2, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(b.blk, 0, 512, img->model, 0), ==, -EPERM);
    unuse(img);
    side_close(&b);
    work(img, &a, 3);
    side_close(&a);
    qcow2_image_assert_good(img);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/qcow2-handover/there-and-back/64k",
                         "cluster_size=64k", test_there_and_back);
    g_test_add_data_func("/qcow2-handover/there-and-back/overlay",
                         "cluster_size=4k", test_there_and_back);
    g_test_add_data_func("/qcow2-handover/there-and-back/lazy",
                         "cluster_size=64k,lazy_refcounts=on",
                         test_there_and_back);
    g_test_add_data_func("/qcow2-handover/there-and-back/extended-l2",
                         "extended_l2=on,cluster_size=16k",
                         test_there_and_back);
    g_test_add_data_func("/qcow2-handover/there-and-back/data-file",
                         "data_file", test_there_and_back);
    g_test_add_data_func("/qcow2-handover/there-and-back/raw-data-file",
                         "data_file_raw=on,data_file", test_there_and_back);
    g_test_add_func("/qcow2-handover/activate/reads all anew",
                    test_all_is_read_anew);
    g_test_add_func("/qcow2-handover/activate/loads bitmaps", test_bitmaps);
    g_test_add_func("/qcow2-handover/activate/may fail",
                    test_failed_activation);
    g_test_add_func("/qcow2-handover/inactive/writes nothing",
                    test_inactive_writes_nothing);
    return g_test_run();
}
