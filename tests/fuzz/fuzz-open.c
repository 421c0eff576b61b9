/*
 * Fuzz targets that look only: open in each way that tools do, say what is
 * known of the image, list and load what it lists, read the disk.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "fuzz.h"
#include "block/dirty-bitmap.h"
#include "block/qapi.h"

#define MAX_LOADED 4

/* As "info" does; all that it says is text for somebody. */
static void say_all(BlockBackend *blk)
{
    g_autoptr(json_t) info = bdrv_query_graph_info(blk_bs(blk), NULL);
    BlockDriverInfo bdi;

    if (info) {
        g_free(bdrv_graph_info_to_text(info));
    }
    g_free(bdrv_specific_info_to_text(blk_bs(blk), NULL));
    (void)bdrv_get_info(blk_bs(blk), &bdi);
    (void)bdrv_get_allocated_file_size(blk_bs(blk));
}

static void open_with(FuzzImage *img, int flags)
{
    BlockBackend *blk = fuzz_image_open(img, flags);

    if (blk) {
        say_all(blk);
        blk_unref(blk);
    }
}

void fuzz_open(const uint8_t *data, size_t size)
{
    g_autoptr(FuzzImage) img = fuzz_image_new(data, size);
    g_autoptr(FuzzImage) scratch = fuzz_image_clone(img);

    open_with(img, BDRV_O_NO_IO);
    open_with(img, BDRV_O_CHECK);
    open_with(img, 0);
    fuzz_image_assert_unchanged(img);
    /* A dirty image is repaired now, an old autoclear bit goes … */
    open_with(scratch, BDRV_O_RDWR);
    open_with(scratch, BDRV_O_RDWR);
}

/* ---- list ---- */

static void load_snapshot(FuzzImage *img, const QEMUSnapshotInfo *sn)
{
    BlockBackend *blk = fuzz_image_open(img, 0);

    if (blk && bdrv_snapshot_load_tmp(blk_bs(blk), sn->id_str, NULL, NULL)) {
        g_array_unref(fuzz_contents(blk));
    }
    if (blk) {
        blk_unref(blk);
    }
}

static void list_snapshots(FuzzImage *img, BlockBackend *blk)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    size_t n = 0;

    if (!bdrv_snapshot_list(blk_bs(blk), &list, &n, NULL)) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        g_free(bdrv_snapshot_to_text(&list[i]));
        if (i < MAX_LOADED) {
            load_snapshot(img, &list[i]);
        }
    }
}

void fuzz_list(const uint8_t *data, size_t size)
{
    g_autoptr(FuzzImage) img = fuzz_image_new(data, size);
    const int flags[] = { BDRV_O_NO_IO, 0 };

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        BlockBackend *blk = fuzz_image_open(img, flags[i]);

        if (blk) {
            json_t *bitmaps = bdrv_query_dirty_bitmaps(blk_bs(blk));

            json_decref(bitmaps);
            list_snapshots(img, blk);
            blk_unref(blk);
        }
    }
    fuzz_image_assert_unchanged(img);
}

/* ---- read ---- */

static bool same(const GArray *a, const GArray *b)
{
    for (guint i = 0; i < MIN(a->len, b->len); i++) {
        const FuzzChunk *x = &g_array_index(a, FuzzChunk, i);
        const FuzzChunk *y = &g_array_index(b, FuzzChunk, i);

        if (x->offset != y->offset || x->bytes != y->bytes ||
            x->ret != y->ret || x->sum != y->sum) {
            return false;
        }
    }
    return a->len == b->len;
}

void fuzz_read(const uint8_t *data, size_t size)
{
    g_autoptr(FuzzImage) img = fuzz_image_new(data, size);
    BlockBackend *blk = fuzz_image_open(img, 0);

    if (blk) {
        g_autoptr(GArray) first = fuzz_contents(blk);
        g_autoptr(GArray) again = fuzz_contents(blk);

        if (!same(first, again)) {
            fuzz_fail("the same disk reads differently");
        }
        blk_unref(blk);
    }
    fuzz_image_assert_unchanged(img);
}
