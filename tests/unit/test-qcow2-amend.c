/*
 * Tests of changing existing qcow2 images.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/block-backend.h"
#include "block/block-driver.h"
#include "block/snapshot.h"
#include "qemu/bswap.h"

static char *dir;
static BlockGraph *graph;

static char *path_of(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static json_t *options_of(const char *text)
{
    return qemu_opts_parse_legacy(text, NULL, false, NULL, &error_abort);
}

static BlockBackend *open_image(const char *name, int flags)
{
    g_autofree char *path = path_of(name);

    return blk_new_open(graph, path, NULL,
                        json_pack("{s:s}", "driver", "qcow2"), flags,
                        &error_abort);
}

static BlockBackend *create(const char *name, const char *options)
{
    g_autofree char *path = path_of(name);

    g_assert_true(bdrv_create(graph, "qcow2", path, options_of(options),
                              &error_abort));
    return open_image(name, BDRV_O_RDWR | BDRV_O_RESIZE);
}

static bool amend(BlockBackend *blk, const char *options, Error **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    g_autoptr(json_t) o = options_of(options);
    bool ok;

    bdrv_drained_begin(bs);
    ok = bs->drv->amend(bs, o, false, NULL, NULL, errp);
    bdrv_drained_end(bs);
    return ok;
}

static void check_info(BlockBackend *blk, const char *key, const char *text)
{
    json_t *info = bdrv_get_specific_info(blk_bs(blk), &error_abort);
    json_t *value = json_object_get(json_object_get(info, "data"), key);
    g_autofree char *is = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;

    g_assert_cmpstr(is, ==, text);
    json_decref(info);
}

static void write_pattern(BlockBackend *blk, int64_t offset, int64_t bytes,
                          uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf, 0), ==, 0);
}

static void check_pattern(BlockBackend *blk, int64_t offset, int64_t end,
                          uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(end - offset);

    g_assert_cmpint(blk_pread(blk, offset, end - offset, buf, 0), ==, 0);
    for (int64_t i = 0; i < end - offset; i++) {
        g_assert_cmphex(buf[i], ==, byte);
    }
}

static char *make_base(void)
{
    char *path = path_of("base");
    g_autofree char *data = g_malloc(4 * MiB);

    memset(data, 0xbb, 4 * MiB);
    g_assert_true(g_file_set_contents(path, data, 4 * MiB, NULL));
    return path;
}

/* Version 2 cannot say "zeroes"; they are there all the same. */
static void test_versions(void)
{
    g_autofree char *base = make_base();
    g_autofree char *over = g_strdup_printf(
        "size=4M,lazy_refcounts=on,backing_file=%s,backing_fmt=raw", base);
    const char *const options[] = { "size=4M", over };

    for (int i = 0; i < 2; i++) {
        BlockBackend *blk = create("version", options[i]);
        uint8_t rest = i ? 0xbb : 0;

        write_pattern(blk, 0, 1 * MiB, 0x11);
        g_assert_cmpint(blk_pwrite_zeroes(blk, 512 * KiB, 1 * MiB, 0), ==, 0);
        g_assert_true(amend(blk, "compat=0.10", &error_abort));
        check_info(blk, "compat", "\"0.10\"");
        blk_unref(blk);

        blk = open_image("version", BDRV_O_RDWR);
        check_info(blk, "compat", "\"0.10\"");
        check_info(blk, "lazy-refcounts", NULL);
        check_pattern(blk, 0, 512 * KiB, 0x11);
        check_pattern(blk, 512 * KiB, 1536 * KiB, 0);
        check_pattern(blk, 1536 * KiB, 4 * MiB, rest);
        g_assert_true(amend(blk, "compat=v3,lazy_refcounts=on",
                            &error_abort));
        write_pattern(blk, 2 * MiB, 1 * MiB, 0x22);
        blk_unref(blk);

        blk = open_image("version", BDRV_O_RDWR);
        check_info(blk, "compat", "\"1.1\"");
        check_info(blk, "lazy-refcounts", "true");
        check_pattern(blk, 0, 512 * KiB, 0x11);
        check_pattern(blk, 512 * KiB, 1536 * KiB, 0);
        check_pattern(blk, 2 * MiB, 3 * MiB, 0x22);
        check_pattern(blk, 3 * MiB, 4 * MiB, rest);
        g_assert_true(amend(blk, "lazy_refcounts=off,size=8M", &error_abort));
        check_info(blk, "lazy-refcounts", "false");
        g_assert_cmpint(blk_getlength(blk), >=, 4 * MiB);
        blk_unref(blk);

        blk = open_image("version", 0);
        g_assert_cmpint(blk_getlength(blk), ==, 8 * MiB);
        check_pattern(blk, 4 * MiB, 8 * MiB, 0);
        blk_unref(blk);
    }
}

/* Of the closed image, and nothing else changes. */
static void set_disk_size(const char *name, uint64_t size)
{
    g_autofree char *path = path_of(name);
    g_autofree char *image = NULL;
    gsize length;

    g_assert_true(g_file_get_contents(path, &image, &length, NULL));
    stq_be_p((uint8_t *)image + 24, size);
    g_assert_true(g_file_set_contents(path, image, length, NULL));
}

/* Nor may version 2 say so where the disk does not reach: in the table that its
 * end is in, and in others. */
static void test_zeroes_beyond_the_end(void)
{
    g_autofree char *base = make_base();
    g_autofree char *over = g_strdup_printf(
        "size=128k,cluster_size=512,backing_file=%s,backing_fmt=raw", base);
    const char *const options[] = { "size=128k,cluster_size=512", over };

    for (int i = 0; i < 2; i++) {
        BlockBackend *blk = create("beyond", options[i]);
        BdrvCheckResult res = { 0 };

        write_pattern(blk, 0, 48 * KiB, 0x11);
        g_assert_cmpint(blk_pwrite_zeroes(blk, 8 * KiB, 120 * KiB, 0), ==, 0);
        blk_unref(blk);
        set_disk_size("beyond", 12 * KiB);
        blk = open_image("beyond", BDRV_O_RDWR);
        g_assert_true(amend(blk, "compat=0.10", &error_abort));
        blk_unref(blk);

        set_disk_size("beyond", 128 * KiB);
        blk = open_image("beyond", 0);
        check_pattern(blk, 0, 8 * KiB, 0x11);
        check_pattern(blk, 8 * KiB, 12 * KiB, 0);
        check_pattern(blk, 12 * KiB, 128 * KiB, i ? 0xbb : 0);
        g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
        g_assert_cmpint(res.corruptions + res.leaks + res.check_errors, ==, 0);
        blk_unref(blk);
    }
}

/* The snapshot table of the closed image: its only entry. */
static uint8_t *snapshot_entry(uint8_t *image)
{
    g_assert_cmpint(ldl_be_p(image + 60), ==, 1);
    return image + ldq_be_p(image + 64);
}

/* As old programs have written it: without extra data.  The id and the name
 * have a byte each. */
static void cut_snapshot_entry(const char *path)
{
    g_autofree char *image = NULL;
    uint8_t *entry;
    gsize length;

    g_assert_true(g_file_get_contents(path, &image, &length, NULL));
    entry = snapshot_entry((uint8_t *)image);
    memmove(entry + 40, entry + 40 + ldl_be_p(entry + 36), 2);
    stl_be_p(entry + 36, 0);
    g_assert_true(g_file_set_contents(path, image, length, NULL));
}

/* Version 3 wants to know the size of the disk in each snapshot. */
static void test_old_snapshots(void)
{
    g_autofree char *path = path_of("old");
    g_autofree char *image = NULL;
    BlockBackend *blk = create("old", "size=4M,compat=0.10");
    QEMUSnapshotInfo sn = { .name = "s", .date_sec = 5 };
    BdrvCheckResult res = { 0 };
    uint8_t *entry;

    write_pattern(blk, 0, 1 * MiB, 0x11);
    g_assert_true(bdrv_snapshot_create(blk_bs(blk), &sn, &error_abort));
    write_pattern(blk, 0, 1 * MiB, 0x22);
    blk_unref(blk);
    cut_snapshot_entry(path);

    blk = open_image("old", BDRV_O_RDWR | BDRV_O_RESIZE);
    g_assert_true(amend(blk, "compat=1.1", &error_abort));
    blk_unref(blk);
    g_assert_true(g_file_get_contents(path, &image, NULL, NULL));
    entry = snapshot_entry((uint8_t *)image);
    g_assert_cmpint(ldl_be_p((uint8_t *)image + 4), ==, 3);
    g_assert_cmpint(ldl_be_p(entry + 36), >=, 16);
    g_assert_cmpint(ldq_be_p(entry + 48), ==, 4 * MiB);
    g_assert_cmpint(ldl_be_p(entry + 16), ==, 5);

    blk = open_image("old", BDRV_O_RDWR | BDRV_O_RESIZE);
    g_assert_true(blk_truncate(blk, 8 * MiB, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_true(bdrv_snapshot_goto(blk_bs(blk), "s", &error_abort));
    blk_unref(blk);
    blk = open_image("old", 0);
    g_assert_cmpint(blk_getlength(blk), ==, 4 * MiB);
    check_pattern(blk, 0, 1 * MiB, 0x11);
    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions + res.leaks, ==, 0);
    blk_unref(blk);
}

/* A copy of the disk in a snapshot, and an image with the changes since. */
static BlockBackend *create_with_snapshot(bool zeroes_before)
{
    BlockBackend *blk = create("down", "size=4M");
    QEMUSnapshotInfo sn = { .name = "s" };

    write_pattern(blk, 0, 1 * MiB, 0x11);
    if (zeroes_before) {
        g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 64 * KiB, 0), ==, 0);
    }
    g_assert_true(bdrv_snapshot_create(blk_bs(blk), &sn, &error_abort));
    /* A flag in what the snapshot has data for. */
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 128 * KiB, 0), ==, 0);
    return blk;
}

static void test_down_with_snapshots(void)
{
    BlockBackend *blk = create_with_snapshot(false);
    BdrvCheckResult res = { 0 };

    g_assert_true(amend(blk, "compat=0.10", &error_abort));
    blk_unref(blk);
    blk = open_image("down", BDRV_O_RDWR | BDRV_O_RESIZE);
    check_info(blk, "compat", "\"0.10\"");
    check_pattern(blk, 0, 128 * KiB, 0);
    check_pattern(blk, 128 * KiB, 1 * MiB, 0x11);
    g_assert_true(bdrv_snapshot_goto(blk_bs(blk), "s", &error_abort));
    check_pattern(blk, 0, 1 * MiB, 0x11);
    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions + res.leaks + res.check_errors, ==, 0);
    blk_unref(blk);
}

static void test_down_refused_by_snapshots(void)
{
    static const struct {
        bool zeroes;
        const char *options, *message;
    } cases[] = {
        { true, "compat=0.10",
          "Cannot downgrade an image with zero clusters in snapshots" },
        { false, "compat=0.10,size=8M",
          "Internal snapshots prevent downgrade of image" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        BlockBackend *blk = create_with_snapshot(cases[i].zeroes);
        g_autoptr(Error) err = NULL;

        g_assert_false(amend(blk, cases[i].options, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i].message);
        check_info(blk, "compat", "\"1.1\"");
        g_assert_cmpint(blk_getlength(blk), ==, 4 * MiB);
        blk_unref(blk);
    }
}

static void test_refused(void)
{
    static const char *const cases[][3] = {
        { "", "compat=foo", "Unknown compatibility level foo" },
        { "", "compat=0.10,lazy_refcounts=on",
          "Lazy refcounts only supported with compatibility level 1.1 and "
          "above (use compat=1.1 or greater)" },
        { ",compat=0.10", "lazy_refcounts=on",
          "Lazy refcounts only supported with compatibility level 1.1 and "
          "above (use compat=1.1 or greater)" },
        { "", "refcount_bits=3", "Refcount width must be a power of two and "
                                 "may not exceed 64 bits" },
        { ",refcount_bits=64", "compat=0.10",
          "compat=0.10 requires refcount_bits=16" },
        { ",compat=0.10", "refcount_bits=8",
          "Refcount widths other than 16 bits require compatibility level 1.1 "
          "or above (use compat=1.1 or greater)" },
        { "", "size=5", "The new size must be a multiple of 512" },
        { "", "backing_file=x", "Cannot amend the backing file" },
        { "", "data_file=x", "data-file can only be set for images that use "
                             "an external data file" },
        { "", "data_file_raw=on",
          "data-file-raw cannot be set on existing images" },
        { ",extended_l2=on", "compat=0.10",
          "Cannot downgrade an image with incompatible features 0x10 set" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *o = g_strdup_printf("size=1M%s", cases[i][0]);
        BlockBackend *blk = create("refused", o);
        g_autoptr(Error) err = NULL;

        g_assert_false(amend(blk, cases[i][1], &err));
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i][2]);
        blk_unref(blk);
        blk_unref(open_image("refused", BDRV_O_RDWR));
    }
}

static void test_backing_file(void)
{
    g_autofree char *base = make_base();
    g_autofree char *too_long = g_strnfill(1024, 'a');
    BlockBackend *blk = create("backing", "size=4M");
    BlockDriverState *bs = blk_bs(blk);

    g_assert_false(bdrv_change_backing_file(bs, too_long, "raw", NULL));
    g_assert_false(bdrv_change_backing_file(bs, base, "a-very-long-format",
                                            NULL));
    g_assert_null(bs->backing_file);
    g_assert_true(bdrv_change_backing_file(bs, base, "raw", &error_abort));
    blk_unref(blk);
    blk = open_image("backing", BDRV_O_RDWR);
    check_pattern(blk, 0, 4 * MiB, 0xbb);
    g_assert_true(bdrv_change_backing_file(blk_bs(blk), NULL, NULL,
                                           &error_abort));
    blk_unref(blk);
    blk = open_image("backing", 0);
    check_pattern(blk, 0, 4 * MiB, 0);
    blk_unref(blk);
}

static void test_make_empty(void)
{
    g_autofree char *base = make_base();
    g_autofree char *o = g_strdup_printf(
        "size=4M,backing_file=%s,backing_fmt=raw", base);
    BlockBackend *blk = create("empty", o);
    BlockDriverState *bs = blk_bs(blk);

    write_pattern(blk, 0, 3 * MiB, 0x33);
    bdrv_drained_begin(bs);
    g_assert_true(bs->drv->make_empty(bs, &error_abort));
    bdrv_drained_end(bs);
    check_pattern(blk, 0, 4 * MiB, 0xbb);
    write_pattern(blk, 1 * MiB, 1 * MiB, 0x44);
    blk_unref(blk);
    blk = open_image("empty", 0);
    check_pattern(blk, 0, 1 * MiB, 0xbb);
    check_pattern(blk, 1 * MiB, 2 * MiB, 0x44);
    g_assert_cmpint(bdrv_getlength(bdrv_primary_bs(blk_bs(blk))), <, 2 * MiB);
    blk_unref(blk);
}

static void remove_dir(void)
{
    GDir *d = g_dir_open(dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(d))) {
        g_autofree char *path = path_of(name);

        g_unlink(path);
    }
    g_dir_close(d);
    g_rmdir(dir);
    g_free(dir);
}

/* ---- Refcounts ---- */

static void test_refcount_bits(void)
{
    static const int widths[] = { 64, 1, 32, 2, 8, 4, 16 };
    BlockBackend *blk = create("widths", "size=64M,cluster_size=512");
    Error *err = NULL;

    write_pattern(blk, 0, 8 * MiB, 0x11);
    write_pattern(blk, 60 * MiB, 1 * MiB, 0x22);
    for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
        g_autofree char *options = g_strdup_printf("refcount_bits=%d",
                                                   widths[i]);
        g_autofree char *text = g_strdup_printf("%d", widths[i]);
        int64_t pos = 10 * MiB + (int64_t)i * MiB;

        g_assert_true(amend(blk, options, &error_abort));
        check_info(blk, "refcount-bits", text);
        /* It is in use at once … */
        write_pattern(blk, pos, 100000, 0x33);
        blk_unref(blk);
        blk = open_image("widths", BDRV_O_RDWR | BDRV_O_RESIZE);
        /* … and there is no other. */
        check_info(blk, "refcount-bits", text);
        check_pattern(blk, 0, 8 * MiB, 0x11);
        check_pattern(blk, 60 * MiB, 61 * MiB, 0x22);
        check_pattern(blk, pos, pos + 100000, 0x33);
    }
    /* Two compressed clusters in one of the file. */
    {
        g_autofree uint8_t *buf = g_malloc0(1 * KiB);

        g_assert_cmpint(blk_pwrite(blk, 40 * MiB, 512, buf,
                                   BDRV_REQ_WRITE_COMPRESSED), ==, 0);
        g_assert_cmpint(blk_pwrite(blk, 41 * MiB, 512, buf,
                                   BDRV_REQ_WRITE_COMPRESSED), ==, 0);
    }
    g_assert_false(amend(blk, "refcount_bits=1", &err));
    g_assert_true(g_str_has_prefix(error_get_pretty(err), "Cannot decrease "
                                   "refcount entry width to 1 bits: Cluster at "
                                   "offset 0x"));
    g_assert_true(g_str_has_suffix(error_get_pretty(err),
                                   " has a refcount of 2"));
    error_free(err);
    check_info(blk, "refcount-bits", "16");
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("test-qcow2-XXXXXX", NULL);
    g_assert_nonnull(dir);
    graph = block_graph_new();
    g_test_add_func("/qcow2/amend/versions", test_versions);
    g_test_add_func("/qcow2/amend/zeroes-beyond-the-end",
                    test_zeroes_beyond_the_end);
    g_test_add_func("/qcow2/amend/old-snapshots", test_old_snapshots);
    g_test_add_func("/qcow2/amend/down-with-snapshots",
                    test_down_with_snapshots);
    g_test_add_func("/qcow2/amend/down-refused-by-snapshots",
                    test_down_refused_by_snapshots);
    g_test_add_func("/qcow2/amend/refused", test_refused);
    g_test_add_func("/qcow2/amend/refcount-bits", test_refcount_bits);
    g_test_add_func("/qcow2/amend/backing-file", test_backing_file);
    g_test_add_func("/qcow2/amend/make-empty", test_make_empty);
    ret = g_test_run();
    block_graph_free(graph);
    remove_dir();
    return ret;
}
