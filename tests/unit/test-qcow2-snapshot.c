/*
 * Internal snapshots of qcow2: versions of a disk against copies in memory, and
 * failures at each request to the file.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/blkdebug.h"
#include "block/block-backend.h"
#include "block/qcow2-snapshot.h"
#include "block/snapshot.h"
#include "qemu/bswap.h"

#define DISK_SIZE (512 * KiB)

typedef struct Image {
    char *dir, *path;
    BlockGraph *graph;
    BlockBackend *blk;
    uint8_t model[DISK_SIZE];
} Image;

static const char *const layouts[] = {
    "{'size':524288,'cluster_size':512}",
    "{'size':524288,'cluster_size':4096,'compat':'0.10'}",
    "{'size':524288,'cluster_size':16384,'extended_l2':'on'}",
    "{'size':524288,'cluster_size':4096,'lazy_refcounts':'on'}",
    "{'size':524288,'cluster_size':4096,'refcount_bits':4}",
};

static void image_open(Image *img, int flags)
{
    json_t *o = json_pack("{s:s, s:{s:s, s:{s:s, s:s}}}", "driver", "qcow2",
                          "file", "driver", "blkdebug", "image", "driver",
                          "file", "filename", img->path);

    img->blk = blk_new_open(img->graph, NULL, NULL, o,
                            flags | BDRV_O_UNMAP, &error_abort);
}

static void image_create(Image *img, const char *layout)
{
    img->dir = g_dir_make_tmp("snapshot-XXXXXX", NULL);
    img->path = g_build_filename(img->dir, "image", NULL);
    img->graph = block_graph_new();
    memset(img->model, 0, DISK_SIZE);
    g_assert_true(bdrv_create(img->graph, "qcow2", img->path,
                              options_from_json(layout, &error_abort),
                              &error_abort));
    image_open(img, BDRV_O_RDWR);
}

static void image_close(Image *img)
{
    blk_unref(img->blk);
    img->blk = NULL;
}

static void image_destroy(Image *img)
{
    if (img->blk) {
        image_close(img);
    }
    block_graph_free(img->graph);
    g_unlink(img->path);
    g_rmdir(img->dir);
    g_free(img->path);
    g_free(img->dir);
}

static void image_write(Image *img, int64_t offset, int64_t bytes, int value)
{
    memset(img->model + offset, value, bytes);
    g_assert_cmpint(blk_pwrite(img->blk, offset, bytes, img->model + offset,
                               0), ==, 0);
}

static void assert_contents(BlockBackend *blk, const uint8_t *expected)
{
    g_autofree uint8_t *buf = g_malloc(DISK_SIZE);

    g_assert_cmpint(blk_pread(blk, 0, DISK_SIZE, buf, 0), ==, 0);
    g_assert_cmpmem(buf, DISK_SIZE, expected, DISK_SIZE);
}

static bool take(Image *img, const char *name, Error **errp)
{
    QEMUSnapshotInfo sn = { .date_sec = 1, .disk_size = -1 };

    g_strlcpy(sn.name, name, sizeof(sn.name));
    return bdrv_snapshot_create(blk_bs(img->blk), &sn, errp);
}

/* What a foreign tool says of the closed image: 0 clean, 3 leaks. */
static int foreign_check(Image *img)
{
    const char *argv[] = { "qemu-img", "check", "-q", "-f", "qcow2",
                           img->path, NULL };
    int status;

    if (!g_spawn_sync(NULL, (char **)argv, NULL,
                      G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL,
                      NULL, NULL, NULL, &status, NULL)) {
        return 0;                   /* not installed */
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- Versions ---- */

static void check_versions(const char *layout)
{
    Image img = { 0 };
    g_autofree uint8_t *one = g_malloc(DISK_SIZE);
    g_autofree uint8_t *two = g_malloc(DISK_SIZE);
    BlockDriverState *bs;

    image_create(&img, layout);
    bs = blk_bs(img.blk);
    image_write(&img, 0, 300 * KiB, 1);
    g_assert_true(take(&img, "one", &error_abort));
    memcpy(one, img.model, DISK_SIZE);
    image_write(&img, 100 * KiB + 512, 200 * KiB, 2);
    g_assert_true(take(&img, "two", &error_abort));
    memcpy(two, img.model, DISK_SIZE);
    image_write(&img, 50 * KiB, 400 * KiB, 3);
    assert_contents(img.blk, img.model);

    g_assert_true(bdrv_snapshot_goto(bs, "one", &error_abort));
    assert_contents(img.blk, one);
    memcpy(img.model, one, DISK_SIZE);
    image_write(&img, 10 * KiB, 100 * KiB, 4);
    g_assert_true(bdrv_snapshot_goto(bs, "2", &error_abort));
    assert_contents(img.blk, two);
    g_assert_true(bdrv_snapshot_delete(bs, "one", &error_abort));
    assert_contents(img.blk, two);

    image_close(&img);
    g_assert_cmpint(foreign_check(&img), ==, 0);
    image_open(&img, BDRV_O_RDWR);
    assert_contents(img.blk, two);
    g_assert_true(bdrv_snapshot_delete(blk_bs(img.blk), "two", &error_abort));
    memcpy(img.model, two, DISK_SIZE);
    image_write(&img, 0, DISK_SIZE, 5);
    assert_contents(img.blk, img.model);
    image_close(&img);
    g_assert_cmpint(foreign_check(&img), ==, 0);
    image_destroy(&img);
}

static void test_versions(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
        g_test_message("%s", layouts[i]);
        check_versions(layouts[i]);
    }
}

/* What is loaded is not what the image's tables are. */
static void test_loaded_is_read_only(void)
{
    Image img = { 0 };
    g_autofree uint8_t *old = g_malloc(DISK_SIZE);
    g_autoptr(Error) err = NULL;
    BlockDriverState *bs;

    image_create(&img, layouts[0]);
    image_write(&img, 0, 100 * KiB, 1);
    g_assert_true(take(&img, "a", &error_abort));
    memcpy(old, img.model, DISK_SIZE);
    image_write(&img, 50 * KiB, 100 * KiB, 2);
    image_close(&img);
    image_open(&img, 0);
    bs = blk_bs(img.blk);
    g_assert_true(bdrv_snapshot_load_tmp(bs, "1", "a", &error_abort));
    assert_contents(img.blk, old);
    g_assert_false(bdrv_reopen(bs, json_pack("{s:b}", "read-only", 0), &err));
    g_assert_nonnull(err);
    assert_contents(img.blk, old);
    image_close(&img);
    image_open(&img, 0);
    assert_contents(img.blk, img.model);
    image_destroy(&img);
}

/* The tables of snapshots are protected in an image that becomes writable. */
static void test_reopened_knows_tables(void)
{
    Image img = { 0 };
    BDRVQcow2State *s;

    image_create(&img, layouts[0]);
    image_write(&img, 0, 100 * KiB, 1);
    g_assert_true(take(&img, "a", &error_abort));
    image_close(&img);
    image_open(&img, 0);
    g_assert_true(bdrv_reopen(blk_bs(img.blk),
                              json_pack("{s:b}", "read-only", 0),
                              &error_abort));
    s = blk_bs(img.blk)->opaque;
    g_assert_cmpint(qcow2_metadata_overlap(s, QCOW2_OL_INACTIVE_L1,
                                           s->snapshots[0].l1_table_offset, 1),
                    ==, QCOW2_OL_INACTIVE_L1);
    image_destroy(&img);
}

/* ---- Limits ---- */

/* Clusters with all references that their width can count. */
static void test_refcount_limit(void)
{
    Image img = { 0 };
    g_autoptr(Error) err = NULL;

    image_create(&img, "{'size':524288,'cluster_size':4096,"
                 "'refcount_bits':2}");
    image_write(&img, 0, 64 * KiB, 1);
    g_assert_true(take(&img, "a", &error_abort));
    g_assert_true(take(&img, "b", &error_abort));
    g_assert_false(take(&img, "c", &err));
    assert_contents(img.blk, img.model);
    image_close(&img);
    g_assert_cmpint(foreign_check(&img), ==, 0);
    image_destroy(&img);
}

static void test_no_references_to_spare(void)
{
    Image img = { 0 };
    g_autoptr(Error) err = NULL;

    image_create(&img, "{'size':524288,'cluster_size':4096,"
                 "'refcount_bits':1}");
    image_write(&img, 0, 64 * KiB, 1);
    g_assert_false(take(&img, "a", &err));
    image_write(&img, 0, 128 * KiB, 2);
    image_close(&img);
    g_assert_cmpint(foreign_check(&img), ==, 0);
    image_destroy(&img);
}

/* ---- Entries of the table ---- */

enum { EXTRA_SIZE = 36, EXTRA = 40, DISK_SIZE_FIELD = 48, STRINGS = 64 };

/* The file of the closed image, and in it the first entry. */
static uint8_t *load_table(Image *img, gsize *length, uint8_t **entry)
{
    char *file;

    g_assert_true(g_file_get_contents(img->path, &file, length, NULL));
    *entry = (uint8_t *)file + ldq_be_p(file + 64);
    g_assert_cmpint(ldl_be_p(*entry + EXTRA_SIZE), ==, 24);
    return (uint8_t *)file;
}

static void store_table(Image *img, const uint8_t *file, gsize length)
{
    g_assert_true(g_file_set_contents(img->path, (const char *)file, length,
                                      NULL));
}

static void image_with_snapshot(Image *img, const char *layout)
{
    image_create(img, layout);
    image_write(img, 0, 100 * KiB, 1);
    g_assert_true(take(img, "a", &error_abort));
    image_close(img);
}

/* An entry of old, which does not say how large the disk was, does when it has
 * been written again. */
static void test_without_disk_size(void)
{
    Image img = { 0 };
    g_autofree uint8_t *file = NULL;
    uint8_t *entry;
    gsize length;

    image_with_snapshot(&img, layouts[1]);
    file = load_table(&img, &length, &entry);
    stl_be_p(entry + EXTRA_SIZE, 0);
    memmove(entry + EXTRA, entry + STRINGS, 2);         /* "1", "a" */
    store_table(&img, file, length);
    g_free(g_steal_pointer(&file));

    image_open(&img, BDRV_O_RDWR);
    g_assert_true(take(&img, "b", &error_abort));
    image_close(&img);
    file = load_table(&img, &length, &entry);
    g_assert_cmpint(ldq_be_p(entry + DISK_SIZE_FIELD), ==, DISK_SIZE);
    image_open(&img, BDRV_O_RDWR);
    g_assert_true(bdrv_snapshot_goto(blk_bs(img.blk), "a", &error_abort));
    assert_contents(img.blk, img.model);
    image_destroy(&img);
}

static void test_bad_disk_size(void)
{
    static const int64_t bad[] = { INT64_MAX & ~INT64_C(511), INT64_MIN, -512,
                                   1, INT64_C(1) << 52 };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        Image img = { 0 };
        g_autofree uint8_t *file = NULL;
        g_autoptr(Error) err = NULL;
        uint8_t *entry;
        gsize length;

        image_with_snapshot(&img, layouts[0]);
        file = load_table(&img, &length, &entry);
        stq_be_p(entry + DISK_SIZE_FIELD, bad[i]);
        store_table(&img, file, length);
        image_open(&img, BDRV_O_RDWR);
        g_assert_false(bdrv_snapshot_goto(blk_bs(img.blk), "a", &err));
        g_assert_cmpstr(error_get_pretty(err), ==,
                        "Snapshot has an invalid disk size");
        assert_contents(img.blk, img.model);
        image_destroy(&img);
    }
}

/* ---- Images that lie ---- */

static void patch(const char *path, size_t offset, uint32_t value)
{
    g_autofree char *data = NULL;
    gsize size;
    uint32_t be = GUINT32_TO_BE(value);

    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    g_assert_cmpuint(offset + sizeof(be), <=, size);
    memcpy(data + offset, &be, sizeof(be));
    g_assert_true(g_file_set_contents(path, data, size, NULL));
}

/* A snapshot's L1 table that is longer than the whole file is no table. */
static void test_l1_longer_than_file(void)
{
    Image img = { 0 };
    g_autofree char *data = NULL;
    g_autoptr(Error) err = NULL;
    uint64_t table;

    image_create(&img, layouts[0]);
    image_write(&img, 0, 4 * KiB, 1);
    g_assert_true(take(&img, "a", &error_abort));
    image_close(&img);
    g_assert_true(g_file_get_contents(img.path, &data, NULL, NULL));
    memcpy(&table, data + 64, sizeof(table));
    patch(img.path, GUINT64_FROM_BE(table) + 8, 1000000);
    image_open(&img, BDRV_O_RDWR);
    g_assert_false(bdrv_snapshot_goto(blk_bs(img.blk), "a", &err));
    g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                   "Could not read the L1 table"));
    assert_contents(img.blk, img.model);
    image_destroy(&img);
}

static BlockBackend *try_open(const Image *img, int flags, Error **errp)
{
    return blk_new_open(img->graph, img->path, NULL,
                        json_pack("{s:s}", "driver", "qcow2"), flags, errp);
}

/* A table that is not in the file: others take it for zeroes, and so do we as
 * long as nobody writes. */
static void test_table_behind_the_file(void)
{
    static const char beyond[] =
        "The snapshot table lies beyond the end of the file";
    Image img = { 0 };
    g_autoptr(Error) err = NULL;
    g_autoptr(Error) reopen_err = NULL;
    QEMUSnapshotInfo *list = NULL;
    size_t n = 0;

    image_create(&img, layouts[0]);
    image_write(&img, 0, 4 * KiB, 1);
    g_assert_true(take(&img, "a", &error_abort));
    image_close(&img);
    patch(img.path, 64, 1);                     /* its upper half */
    g_assert_null(try_open(&img, BDRV_O_RDWR, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, beyond);

    image_open(&img, 0);
    assert_contents(img.blk, img.model);
    g_assert_true(bdrv_snapshot_list(blk_bs(img.blk), &list, &n,
                                     &error_abort));
    g_assert_cmpint(n, ==, 1);
    g_assert_cmpstr(list->name, ==, "");
    g_free(list);
    g_assert_false(bdrv_reopen(blk_bs(img.blk),
                               json_pack("{s:b}", "read-only", 0),
                               &reopen_err));
    g_assert_cmpstr(error_get_pretty(reopen_err), ==, beyond);
    image_destroy(&img);
}

/* ---- Nothing ---- */

static void check_closed(Image *img)
{
    image_close(img);
    g_assert_cmpint(foreign_check(img), ==, 0);
    image_open(img, BDRV_O_RDWR | BDRV_O_RESIZE);
}

static void resize(Image *img, int64_t size)
{
    g_assert_true(blk_truncate(img->blk, size, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
}

/* An L1 table without entries is nowhere, and nothing is freed with it: least
 * of all the header, which is at the same offset. */
static void test_empty_disk(void)
{
    Image img = { 0 };
    uint8_t *buf = img.model;

    image_create(&img, "{'size':0,'cluster_size':512}");
    g_assert_true(take(&img, "empty", &error_abort));
    check_closed(&img);
    resize(&img, 4096);
    memset(buf, 0x11, 4096);
    g_assert_cmpint(blk_pwrite(img.blk, 0, 4096, buf, 0), ==, 0);
    g_assert_true(take(&img, "full", &error_abort));
    check_closed(&img);
    g_assert_true(bdrv_snapshot_goto(blk_bs(img.blk), "empty", &error_abort));
    g_assert_cmpint(blk_getlength(img.blk), ==, 0);
    check_closed(&img);
    g_assert_true(bdrv_snapshot_goto(blk_bs(img.blk), "full", &error_abort));
    check_closed(&img);
    g_assert_true(bdrv_snapshot_delete(blk_bs(img.blk), "empty",
                                       &error_abort));
    check_closed(&img);
    memset(buf, 0, 4096);
    g_assert_cmpint(blk_pread(img.blk, 0, 4096, buf, 0), ==, 0);
    for (int i = 0; i < 4096; i++) {
        g_assert_cmpint(buf[i], ==, 0x11);
    }
    image_destroy(&img);
}

/* With the tables of snapshots to be looked out for: those that the active disk
 * shares are written all the same, when their flags change. */
static void test_shared_tables(gconstpointer opaque)
{
    bool (*change)(BlockDriverState *bs, const char *name,
                   Error **errp) = opaque;
    Image img = { 0 };
    json_t *o;

    image_create(&img, layouts[0]);
    image_write(&img, 0, 64 * KiB, 1);
    g_assert_true(take(&img, "a", &error_abort));
    g_assert_true(take(&img, "b", &error_abort));
    image_close(&img);
    o = json_pack("{s:s, s:s, s:{s:s, s:s}}", "driver", "qcow2",
                  "overlap-check", "all", "file", "driver", "file",
                  "filename", img.path);
    img.blk = blk_new_open(img.graph, NULL, NULL, o, BDRV_O_RDWR,
                           &error_abort);
    g_assert_true(change(blk_bs(img.blk), "a", &error_abort));
    g_assert_true(change(blk_bs(img.blk), "b", &error_abort));
    image_write(&img, 32 * KiB, 4 * KiB, 2);
    image_close(&img);
    g_assert_cmpint(foreign_check(&img), ==, 0);
    image_open(&img, 0);
    assert_contents(img.blk, img.model);
    image_destroy(&img);
}

/* ---- Failures ---- */

typedef bool Change(Image *img, Error **errp);

static bool change_create(Image *img, Error **errp)
{
    return take(img, "new", errp);
}

static bool change_goto(Image *img, Error **errp)
{
    return bdrv_snapshot_goto(blk_bs(img->blk), "old", errp);
}

static bool change_delete(Image *img, Error **errp)
{
    return bdrv_snapshot_delete(blk_bs(img->blk), "old", errp);
}

/* The nth request to the file fails; afterwards the image is one of the two
 * versions, and has leaks at most. */
static bool fail_nth(const char *layout, Change *change, int nth)
{
    Image img = { 0 };
    g_autofree uint8_t *old = g_malloc(DISK_SIZE);
    g_autofree uint8_t *now = g_malloc(DISK_SIZE);
    g_autofree uint8_t *found = g_malloc(DISK_SIZE);
    BlockDriverState *file;
    bool ok, fired;
    int status;

    image_create(&img, layout);
    image_write(&img, 0, 200 * KiB, 1);
    g_assert_true(take(&img, "old", &error_abort));
    memcpy(old, img.model, DISK_SIZE);
    image_write(&img, 100 * KiB, 200 * KiB, 2);
    memcpy(now, img.model, DISK_SIZE);
    g_assert_cmpint(blk_flush(img.blk), ==, 0);

    file = bdrv_primary_bs(blk_bs(img.blk));
    blkdebug_arm(file, nth, EIO);
    ok = change(&img, NULL);
    fired = blkdebug_fired(file);
    g_assert_true(ok || fired);
    image_close(&img);
    status = foreign_check(&img);
    g_assert_true(status == 0 || status == 3);

    image_open(&img, 0);
    g_assert_cmpint(blk_pread(img.blk, 0, DISK_SIZE, found, 0), ==, 0);
    g_assert_true(!memcmp(found, now, DISK_SIZE) ||
                  (change == change_goto && !memcmp(found, old, DISK_SIZE)));
    image_destroy(&img);
    return fired;
}

static void test_fail_nth(gconstpointer change)
{
    for (size_t i = 0; i < 3; i++) {
        int nth = 1;

        g_test_message("%s", layouts[i]);
        while (fail_nth(layouts[i], (Change *)change, nth)) {
            nth++;
        }
        g_assert_cmpint(nth, >, 5);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-snapshot/versions", test_versions);
    g_test_add_func("/qcow2-snapshot/reopen/loaded-is-read-only",
                    test_loaded_is_read_only);
    g_test_add_func("/qcow2-snapshot/reopen/knows-tables",
                    test_reopened_knows_tables);
    g_test_add_func("/qcow2-snapshot/limits/refcount-is-full",
                    test_refcount_limit);
    g_test_add_func("/qcow2-snapshot/limits/one-bit",
                    test_no_references_to_spare);
    g_test_add_func("/qcow2-snapshot/entry/without-disk-size",
                    test_without_disk_size);
    g_test_add_func("/qcow2-snapshot/entry/bad-disk-size", test_bad_disk_size);
    g_test_add_func("/qcow2-snapshot/lies/table-behind-the-file",
                    test_table_behind_the_file);
    g_test_add_func("/qcow2-snapshot/lies/l1-longer-than-file",
                    test_l1_longer_than_file);
    g_test_add_func("/qcow2-snapshot/empty-disk", test_empty_disk);
    g_test_add_data_func("/qcow2-snapshot/overlap-check/delete",
                         bdrv_snapshot_delete, test_shared_tables);
    g_test_add_data_func("/qcow2-snapshot/overlap-check/goto",
                         bdrv_snapshot_goto, test_shared_tables);
    g_test_add_data_func("/qcow2-snapshot/fail-nth/create", change_create,
                         test_fail_nth);
    g_test_add_data_func("/qcow2-snapshot/fail-nth/goto", change_goto,
                         test_fail_nth);
    g_test_add_data_func("/qcow2-snapshot/fail-nth/delete", change_delete,
                         test_fail_nth);
    return g_test_run();
}
