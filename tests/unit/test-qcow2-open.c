/*
 * Tests of opening qcow2 images: what the header may say, and what becomes of
 * it when it is rewritten.  Images are made here, byte by byte.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/block-backend.h"
#include "block/block-driver.h"
#include "block/qcow2.h"
#include "block/qcow2-options.h"
#include "qemu/bswap.h"
#include "qemu/zero.h"

#define CLUSTER 65536
#define IMAGE_SIZE (4 * CLUSTER)
#define DISK_SIZE (64 * MiB)

static char *dir;
static BlockGraph *graph;

/* ---- Images ---- */

/* Header, refcount table, refcount block, L1 table: a cluster each. */
static uint8_t *make_image(uint32_t version)
{
    uint8_t *b = g_malloc0(IMAGE_SIZE);

    memcpy(b, "QFI\xfb", 4);
    stl_be_p(b + 4, version);
    stl_be_p(b + 20, 16);
    stq_be_p(b + 24, DISK_SIZE);
    stl_be_p(b + 36, 1);
    stq_be_p(b + 40, 3 * CLUSTER);
    stq_be_p(b + 48, 1 * CLUSTER);
    stl_be_p(b + 56, 1);
    if (version >= 3) {
        stl_be_p(b + 96, 4);
        stl_be_p(b + 100, 112);
    }
    stq_be_p(b + CLUSTER, 2 * CLUSTER);
    for (int i = 0; i < 4; i++) {
        stw_be_p(b + 2 * CLUSTER + 2 * i, 1);
    }
    return b;
}

static uint8_t *put_extension(uint8_t *p, uint32_t type, const void *data,
                              uint32_t length)
{
    stl_be_p(p, type);
    stl_be_p(p + 4, length);
    memcpy(p + 8, data, length);
    return p + 8 + ROUND_UP(length, 8);
}

static char *path_of(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void store(const char *name, const uint8_t *image)
{
    g_autofree char *path = path_of(name);

    g_assert_true(g_file_set_contents(path, (const char *)image, IMAGE_SIZE,
                                      NULL));
}

static uint8_t *load(const char *name)
{
    g_autofree char *path = path_of(name);
    gsize size;
    char *data;

    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    g_assert_cmpint(size, ==, IMAGE_SIZE);
    return (uint8_t *)data;
}

/* Open it with more options (JSON; may be NULL). */
static BlockBackend *open_image(const char *name, const char *more, int flags,
                                Error **errp)
{
    g_autofree char *path = path_of(name);
    json_t *o = more ? options_from_json(more, &error_abort) : json_object();

    json_object_set_new(o, "driver", json_string("qcow2"));
    json_object_set_new(o, "file", json_pack("{s:s, s:s}", "driver", "file",
                                             "filename", path));
    return blk_new_open(graph, NULL, NULL, o, flags | BDRV_O_NO_BACKING, errp);
}

static void check_error(const char *name, const char *more, int flags,
                        const char *expected)
{
    g_autoptr(Error) err = NULL;

    g_assert_null(open_image(name, more, flags, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
}

static void open_and_close(const char *name, const char *more, int flags)
{
    blk_unref(open_image(name, more, flags, &error_abort));
}

static json_t *info_of(const char *name)
{
    BlockBackend *blk = open_image(name, NULL, BDRV_O_NO_IO, &error_abort);
    json_t *info = bdrv_get_specific_info(blk_bs(blk), &error_abort);
    json_t *data = json_incref(json_object_get(info, "data"));

    json_decref(info);
    blk_unref(blk);
    return data;
}

/* ---- What is valid ---- */

static void test_plain(void)
{
    g_autofree uint8_t *image = make_image(3);
    g_autoptr(json_t) info = NULL;
    g_autoptr(json_t) expected = json_pack(
        "{s:s, s:s, s:b, s:i, s:b, s:b}", "compat", "1.1", "compression-type",
        "zlib", "lazy-refcounts", 0, "refcount-bits", 16, "corrupt", 0,
        "extended-l2", 0);
    BlockDriverInfo bdi = { 0 };
    BlockBackend *blk;

    store("plain", image);
    blk = open_image("plain", NULL, BDRV_O_RDWR, &error_abort);
    g_assert_cmpint(blk_getlength(blk), ==, DISK_SIZE);
    g_assert_cmpint(bdrv_get_info(blk_bs(blk), &bdi), ==, 0);
    g_assert_cmpint(bdi.cluster_size, ==, CLUSTER);
    g_assert_cmpint(blk_get_mapping_unit(blk), ==, CLUSTER);
    g_assert_false(bdi.is_dirty);
    g_assert_false(bdi.is_encrypted);
    g_assert_true(bdrv_has_zero_init(blk_bs(blk)));
    blk_unref(blk);
    info = info_of("plain");
    g_assert_true(json_equal(info, expected));
}

static void test_version_2(void)
{
    g_autofree uint8_t *image = make_image(2);
    g_autoptr(json_t) info = NULL;
    g_autoptr(json_t) expected = json_pack(
        "{s:s, s:s, s:i}", "compat", "0.10", "compression-type", "zlib",
        "refcount-bits", 16);

    store("v2", image);
    info = info_of("v2");
    g_assert_true(json_equal(info, expected));
}

static void test_probed(void)
{
    g_autofree uint8_t *image = make_image(3);
    g_autofree char *path = path_of("probed");
    BlockBackend *blk;

    store("probed", image);
    blk = blk_new_open(graph, path, NULL, NULL, 0, &error_abort);
    g_assert_cmpstr(bdrv_get_format_name(blk_bs(blk)), ==, "qcow2");
    blk_unref(blk);
}

static void test_backing_name(void)
{
    g_autofree uint8_t *image = make_image(3);
    BlockBackend *blk;

    put_extension(image + 112, 0xe2792aca, "raw", 3);
    stq_be_p(image + 8, 1000);
    stl_be_p(image + 16, 4);
    memcpy(image + 1000, "base, and more", 14);
    store("backing", image);
    blk = open_image("backing", NULL, BDRV_O_NO_IO, &error_abort);
    g_assert_cmpstr(blk_bs(blk)->backing_file, ==, "base");
    g_assert_cmpstr(blk_bs(blk)->backing_format, ==, "raw");
    blk_unref(blk);
}

/* ---- What is not ---- */

typedef struct BadField {
    unsigned offset, width;
    uint64_t value;
    const char *message;
} BadField;

static const BadField bad_fields[] = {
    { 0, 4, 0x514649fa, "Image is not in qcow2 format" },
    { 4, 4, 1, "Unsupported qcow2 version 1" },
    { 4, 4, 4, "Unsupported qcow2 version 4" },
    { 8, 8, CLUSTER + 1, "Invalid backing file offset" },
    { 8, 8, UINT64_C(1) << 63, "Invalid backing file offset" },
    { 20, 4, 0, "Unsupported cluster size: 2^0" },
    { 20, 4, 8, "Unsupported cluster size: 2^8" },
    { 20, 4, 22, "Unsupported cluster size: 2^22" },
    { 20, 4, 63, "Unsupported cluster size: 2^63" },
    { 20, 4, UINT32_MAX, "Unsupported cluster size: 2^4294967295" },
    { 24, 8, UINT64_C(1) << 63, "Image is too big" },
    { 24, 8, UINT64_MAX, "Image is too big" },
    { 24, 8, INT64_MAX, "Image is too big" },
    { 24, 8, UINT64_C(1) << 40, "L1 table is too small" },
    { 32, 4, 3, "Unsupported encryption method 3" },
    { 32, 4, UINT32_MAX, "Unsupported encryption method -1" },
    { 32, 4, 2, "Missing CRYPTO header for crypt method 2" },
    { 36, 4, 0, "L1 table is too small" },
    { 36, 4, 4 * MiB + 1, "Active L1 table too large" },
    { 36, 4, UINT32_MAX, "Active L1 table too large" },
    { 40, 8, 3 * CLUSTER + 512, "Active L1 table offset invalid" },
    { 40, 8, UINT64_C(1) << 63, "Active L1 table offset invalid" },
    { 40, 8, -(uint64_t)CLUSTER, "Active L1 table offset invalid" },
    { 48, 8, CLUSTER + 8, "Reference count table offset invalid" },
    { 48, 8, -(uint64_t)CLUSTER, "Reference count table offset invalid" },
    { 56, 4, 0, "Image does not contain a reference count table" },
    { 56, 4, 129, "Reference count table too large" },
    { 56, 4, UINT32_MAX, "Reference count table too large" },
    { 60, 4, 65537, "Snapshot table too large" },
    { 64, 8, 8, "Snapshot table offset invalid" },
    { 64, 8, UINT64_C(1) << 63, "Snapshot table offset invalid" },
    { 72, 8, 1 << 5, "Unsupported qcow2 feature(s): Unknown incompatible "
                     "feature: 20" },
    { 72, 8, 1 << 3, "qcow2: Compression type incompatible feature bit must "
                     "not be set" },
    { 96, 4, 7, "Reference count entry width too large; may not exceed 64 "
                "bits" },
    { 96, 4, UINT32_MAX, "Reference count entry width too large; may not "
                         "exceed 64 bits" },
    { 100, 4, 0, "qcow2 header too short" },
    { 100, 4, 103, "qcow2 header too short" },
    { 100, 4, CLUSTER + 8, "qcow2 header exceeds cluster size" },
    { 100, 4, UINT32_MAX, "qcow2 header exceeds cluster size" },
    { 104, 1, 1, "qcow2: Compression type incompatible feature bit must be "
                 "set" },
    { 104, 1, 255, "qcow2: unknown compression type: 255" },
    { 116, 4, UINT32_MAX, "Header extension too large" },
    { 116, 4, CLUSTER - 119, "Header extension too large" },
};

static void test_bad_fields(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad_fields); i++) {
        const BadField *f = &bad_fields[i];
        g_autofree uint8_t *image = make_image(3);

        put_extension(image + 112, 0x12345678, "x", 1);
        if (f->width == 8) {
            stq_be_p(image + f->offset, f->value);
        } else if (f->width == 4) {
            stl_be_p(image + f->offset, f->value);
        } else {
            image[f->offset] = f->value;
        }
        store("bad", image);
        check_error("bad", NULL, 0, f->message);
        check_error("bad", NULL, BDRV_O_RDWR, f->message);
        check_error("bad", NULL, BDRV_O_NO_IO, f->message);
    }
}

static void test_feature_names(void)
{
    g_autofree uint8_t *image = make_image(3);
    uint8_t table[3 * 48] = { 0 };

    table[1] = 7;
    memcpy(table + 2, "seventh", 8);
    table[48] = 1;                          /* a compatible one */
    table[48 + 1] = 9;
    memcpy(table + 48 + 2, "no", 3);
    table[96 + 1] = 200;
    put_extension(image + 112, 0x6803f857, table, sizeof(table));
    stq_be_p(image + 72, 1 << 7 | 1 << 9);
    store("features", image);
    check_error("features", NULL, BDRV_O_NO_IO, "Unsupported qcow2 feature(s): "
                "seventh, Unknown incompatible feature: 200");
}

static void test_backing_too_long(void)
{
    g_autofree uint8_t *image = make_image(3);

    stq_be_p(image + 8, 200);
    stl_be_p(image + 16, 1024);
    store("toolong", image);
    check_error("toolong", NULL, 0, "Backing file name too long");
    stq_be_p(image + 8, CLUSTER - 3);
    stl_be_p(image + 16, 4);
    store("toolong", image);
    check_error("toolong", NULL, 0, "Backing file name too long");
}

static void test_shrunk_file(void)
{
    g_autofree char *path = path_of("short");

    g_assert_true(g_file_set_contents(path, "QFI\xfb\0\0\0\3", 8, NULL));
    check_error("short", NULL, 0, "Unsupported cluster size: 2^0");
    g_assert_true(g_file_set_contents(path, "QFI\xfb", 4, NULL));
    check_error("short", NULL, 0, "Unsupported qcow2 version 0");
}

/* ---- Writing ---- */

static void test_corrupt_is_read_only(void)
{
    g_autofree uint8_t *image = make_image(3);

    stq_be_p(image + 72, 2);
    store("corrupt", image);
    open_and_close("corrupt", NULL, 0);
    open_and_close("corrupt", NULL, BDRV_O_RDWR | BDRV_O_CHECK);
    check_error("corrupt", NULL, BDRV_O_RDWR,
                "qcow2: Image is corrupt; cannot be opened read/write");
}

/* Unknown autoclear bits go, what else we do not know stays. */
static void test_rewritten(void)
{
    g_autofree uint8_t *image = make_image(3);
    g_autofree uint8_t *back = NULL;
    uint8_t *p;

    stl_be_p(image + 100, 128);
    memcpy(image + 112, "unknown fields!!", 16);
    stq_be_p(image + 80, UINT64_C(1) << 40);
    stq_be_p(image + 88, UINT64_C(1) << 50);
    p = put_extension(image + 128, 0x12345678, "hello", 5);
    stq_be_p(image + 8, p + 8 - image);
    stl_be_p(image + 16, 4);
    memcpy(p + 8, "base", 4);
    store("rewritten", image);

    open_and_close("rewritten", NULL, 0);
    back = load("rewritten");
    g_assert_cmpmem(back, IMAGE_SIZE, image, IMAGE_SIZE);
    g_free(back);

    open_and_close("rewritten", NULL, BDRV_O_RDWR);
    back = load("rewritten");
    g_assert_cmpint(ldq_be_p(back + 80), ==, UINT64_C(1) << 40);
    g_assert_cmpint(ldq_be_p(back + 88), ==, 0);
    g_assert_cmpint(ldl_be_p(back + 100), ==, 128);
    g_assert_cmpmem(back + 112, 16, "unknown fields!!", 16);
    /* The names of features would not fit the first sector. */
    p = back + 128;
    g_assert_cmpint(ldl_be_p(p), ==, 0x12345678);
    g_assert_cmpmem(p + 4, 9, "\0\0\0\5hello", 9);
    g_assert_cmpmem(p + 16, 8, "\0\0\0\0\0\0\0\0", 8);
    g_assert_cmpint(ldq_be_p(back + 8), ==, p + 24 - back);
    g_assert_cmpint(ldl_be_p(back + 16), ==, 4);
    g_assert_cmpmem(p + 24, 5, "base", 5);
    g_assert_true(buffer_is_zero(back + 512, CLUSTER - 512));
    g_assert_cmpmem(back + CLUSTER, IMAGE_SIZE - CLUSTER, image + CLUSTER,
                    IMAGE_SIZE - CLUSTER);
    open_and_close("rewritten", NULL, 0);
}

/* ---- Data file ---- */

static void store_data_file_image(const char *name, const char *data_file)
{
    g_autofree uint8_t *image = make_image(3);

    stq_be_p(image + 72, 4);
    if (data_file) {
        put_extension(image + 112, 0x44415441, data_file, strlen(data_file));
    }
    store(name, image);
}

static void test_data_file(void)
{
    g_autofree char *path = path_of("data");
    BlockBackend *blk;

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    store_data_file_image("with-data", path);
    blk = open_image("with-data", NULL, BDRV_O_RDWR, &error_abort);
    g_assert_cmpint(blk_getlength(blk), ==, DISK_SIZE);
    blk_unref(blk);
    g_assert_cmpint(g_unlink(path), ==, 0);

    /* Who only asks does not open it. */
    json_decref(info_of("with-data"));
    g_assert_null(open_image("with-data", NULL, 0, NULL));
}

/* The name in a header is never anything but a file's. */
static void test_data_file_name_is_a_file(void)
{
    static const char *const names[] = {
        "json:{\"driver\":\"null-co\"}", "null-co://", "nbd://127.0.0.1/x",
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *message = g_strdup_printf(
            "Could not open '%s': No such file or directory", names[i]);

        store_data_file_image("named", names[i]);
        check_error("named", NULL, 0, message);
    }
    store_data_file_image("named", NULL);
    check_error("named", NULL, 0, "'data-file' is required for this image");
    open_and_close("named", "{'data-file':{'driver':'null-co'}}", 0);
}

static void test_data_file_not_wanted(void)
{
    g_autofree uint8_t *image = make_image(3);

    store("no-data", image);
    check_error("no-data", "{'data-file':{'driver':'null-co'}}", 0,
                "'data-file' can only be set for images with an external data "
                "file");
    stq_be_p(image + 88, 2);
    store("no-data", image);
    check_error("no-data", NULL, 0, "data-file-raw requires a data file");
}

/* ---- Options ---- */

static void test_options(void)
{
    static const char *const good[] = {
        "{'lazy-refcounts':true}", "{'overlap-check':'none'}",
        "{'overlap-check':{'template':'all','main-header':false}}",
        "{'l2-cache-size':0}", "{'l2-cache-size':'3T'}",
        "{'l2-cache-entry-size':512}", "{'cache-size':1}",
        "{'cache-size':'1M','refcount-cache-size':'64k'}",
        "{'cache-clean-interval':0}", "{'discard-no-unref':true}",
        "{'pass-discard-snapshot':false,'pass-discard-other':true}",
        "{'pass-discard-request':true}",
    };
    static const char *const bad[][2] = {
        { "{'lazy-refcounts':'x'}",
          "Parameter 'lazy-refcounts' expects 'on' or 'off'" },
        { "{'overlap-check':'x'}",
          "Unsupported value 'x' for qcow2 option 'overlap-check'. Allowed are "
          "any of the following: none, constant, cached, all" },
        { "{'overlap-check':{'x':true}}",
          "Block format 'qcow2' does not support the option "
          "'overlap-check.x'" },
        { "{'l2-cache-entry-size':100}",
          "L2 cache entry size must be a power of two between 512 and the "
          "cluster size (65536)" },
        { "{'l2-cache-entry-size':'128k'}",
          "L2 cache entry size must be a power of two between 512 and the "
          "cluster size (65536)" },
        { "{'cache-size':1,'l2-cache-size':1,'refcount-cache-size':1}",
          "cache-size, l2-cache-size and refcount-cache-size may not be set at "
          "the same time" },
        { "{'cache-size':1,'l2-cache-size':2}",
          "l2-cache-size may not exceed cache-size" },
        { "{'cache-size':1,'refcount-cache-size':2}",
          "refcount-cache-size may not exceed cache-size" },
        { "{'refcount-cache-size':'4E'}", "Refcount cache size too big" },
        { "{'cache-clean-interval':4294967296}",
          "Cache clean interval too big" },
        { "{'encrypt':{'format':'luks'}}",
          "No encryption in image header, but options specified format "
          "'luks'" },
    };
    g_autofree uint8_t *image = make_image(3);
    g_autofree uint8_t *v2 = make_image(2);

    store("options", image);
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        open_and_close("options", good[i], BDRV_O_RDWR);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        check_error("options", bad[i][0], 0, bad[i][1]);
    }
    store("options", v2);
    check_error("options", "{'lazy-refcounts':true}", 0,
                "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
                "compatibility level");
    check_error("options", "{'discard-no-unref':true}", 0,
                "discard-no-unref is only supported since qcow2 version 3");
}

static uint64_t l2_cache_bytes(BlockDriverState *bs, const char *options,
                               int flags)
{
    g_autoptr(json_t) o = options_from_json(options, &error_abort);
    Qcow2Options taken;

    g_assert_true(qcow2_options_take(bs, o, flags, &taken, &error_abort));
    qcow2_options_clear(&taken);
    return taken.l2_slice_size * taken.l2_tables;
}

static void test_one_pass(void)
{
    g_autofree uint8_t *image = make_image(3);
    BlockDriverState *bs;
    BlockBackend *blk;

    stq_be_p(image + 24, UINT64_C(1) << 40);
    stl_be_p(image + 36, (UINT64_C(1) << 40) / (512 * MiB));
    store("one-pass", image);
    blk = open_image("one-pass", NULL, 0, &error_abort);
    bs = blk_bs(blk);
    g_assert_cmpuint(l2_cache_bytes(bs, "{}", 0), ==, 32 * MiB);
    g_assert_cmpuint(l2_cache_bytes(bs, "{}", BDRV_O_ONE_PASS), ==, 512 * KiB);
    g_assert_cmpuint(l2_cache_bytes(bs, "{'l2-cache-size':'2M'}",
                                    BDRV_O_ONE_PASS), ==, 2 * MiB);
    g_assert_cmpuint(l2_cache_bytes(bs, "{'cache-size':'64M',"
                                    "'refcount-cache-size':'1M'}",
                                    BDRV_O_ONE_PASS), ==, 63 * MiB);
    blk_unref(blk);
}

/* ---- Reopening ---- */

static void test_reopen(void)
{
    g_autofree uint8_t *image = make_image(3);
    g_autofree uint8_t *back = NULL;
    g_autoptr(Error) err = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;
    uint8_t byte = 0x5a;

    stq_be_p(image + 88, UINT64_C(1) << 50);
    store("reopen", image);
    blk = open_image("reopen", "{'l2-cache-size':65536}", 0, &error_abort);
    bs = blk_bs(blk);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), <, 0);
    back = load("reopen");
    g_assert_cmpint(ldq_be_p(back + 88), ==, UINT64_C(1) << 50);
    g_free(back);

    g_assert_true(bdrv_reopen(bs, json_pack("{s:b, s:b}", "read-only", 0,
                                            "lazy-refcounts", 1),
                              &error_abort));
    back = load("reopen");
    g_assert_cmpint(ldq_be_p(back + 88), ==, 0);
    g_assert_false(bdrv_reopen(bs, json_pack("{s:i}", "l2-cache-size", 512),
                               &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Cannot change the option 'l2-cache-size'");
    g_assert_true(bdrv_reopen(bs, json_pack("{s:b}", "read-only", 1),
                              &error_abort));
    blk_unref(blk);
}

static BlockBackend *open_marked(uint64_t features)
{
    g_autofree uint8_t *image = make_image(3);

    stq_be_p(image + 72, features);
    store("marked", image);
    return open_image("marked", NULL, 0, &error_abort);
}

static void test_reopen_corrupt(void)
{
    BlockBackend *blk = open_marked(QCOW2_INCOMPAT_CORRUPT);

    g_assert_false(bdrv_reopen(blk_bs(blk), json_pack("{s:b}", "read-only", 0),
                               NULL));
    g_assert_true(bdrv_is_read_only(blk_bs(blk)));
    blk_unref(blk);
}

/* It is repaired, as it would have been if it had been opened so. */
static void test_reopen_dirty(void)
{
    BlockBackend *blk = open_marked(QCOW2_INCOMPAT_DIRTY);
    g_autofree uint8_t *back = NULL;
    uint8_t byte = 0x5a;

    g_assert_true(bdrv_reopen(blk_bs(blk), json_pack("{s:b}", "read-only", 0),
                              &error_abort));
    back = load("marked");
    g_assert_cmpint(ldq_be_p(back + 72), ==, 0);
    g_assert_true(blk_set_perm(blk, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort));
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
    blk_unref(blk);
}

/* Tables that it had when it could be written before are not there twice. */
static void test_reopen_again(void)
{
    g_autofree uint8_t *image = make_image(3);
    BlockBackend *blk;
    BDRVQcow2State *s;
    uint8_t byte = 0x5a;

    store("again", image);
    blk = open_image("again", NULL, BDRV_O_RDWR, &error_abort);
    s = blk_bs(blk)->opaque;
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_true(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                               &error_abort));
    for (int i = 0; i < 2; i++) {
        g_assert_true(bdrv_reopen(blk_bs(blk), json_pack("{s:b}", "read-only",
                                                         i == 0),
                                  &error_abort));
    }
    driver_lock(&s->lock);
    g_assert_false(s->l2_shared);
    g_assert_cmphex(qcow2_metadata_overlap(s, QCOW2_OL_ALL,
                                           s->l1->entries[0] &
                                           QCOW2_L1_OFFSET_MASK, CLUSTER),
                    ==, QCOW2_OL_ACTIVE_L2);
    driver_unlock(&s->lock);
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

/* ---- Caches that are cleaned ---- */

/* Pages of this process that are in memory. */
static int64_t resident_pages(void)
{
    g_autofree char *text = NULL;
    long size, resident;

    g_assert_true(g_file_get_contents("/proc/self/statm", &text, NULL, NULL));
    g_assert_cmpint(sscanf(text, "%ld %ld", &size, &resident), ==, 2);
    return resident;
}

/* Touch all L2 tables of 64 GiB: 8 MiB of them. */
static BlockBackend *open_and_touch(const char *path, int interval)
{
    BlockBackend *blk = blk_new_open(graph, path, NULL,
                                     json_pack("{s:s, s:s, s:i}", "driver",
                                               "qcow2", "l2-cache-size", "16M",
                                               "cache-clean-interval",
                                               interval), 0, &error_abort);
    uint8_t sector[512];

    for (int64_t pos = 0; pos < 64 * GiB; pos += 32 * MiB) {
        g_assert_cmpint(blk_pread(blk, pos, 512, sector, 0), ==, 0);
    }
    return blk;
}

static void test_clean_interval(void)
{
    g_autofree char *path = path_of("clean");
    BlockBackend *blk;
    int64_t pages = 8 * MiB / sysconf(_SC_PAGESIZE);
    int64_t before, after;
    uint8_t sector[512];

    if (QEMU_ASAN || QEMU_TSAN) {
        /* It keeps memory that was freed, and shadows of it. */
        g_test_skip("a sanitizer decides what stays in memory");
        return;
    }
    g_assert_true(bdrv_create(graph, "qcow2", path,
                              json_pack("{s:s, s:s}", "size", "64G",
                                        "preallocation", "metadata"),
                              &error_abort));
    /* Nobody cleans: they stay.  (Somebody may be done before we look.) */
    before = resident_pages();
    blk = open_and_touch(path, 0);
    g_assert_cmpint(resident_pages(), >, before + pages * 3 / 4);
    blk_unref(blk);
    before = resident_pages();
    blk = open_and_touch(path, 1);
    /* Twice the interval; and half a minute, if the machine is busy. */
    for (int i = 0; i < 300; i++) {
        after = resident_pages();
        if (after < before + pages / 4) {
            break;
        }
        g_usleep(100 * 1000);
    }
    g_assert_cmpint(after, <, before + pages / 4);
    /* They come back. */
    g_assert_cmpint(blk_pread(blk, 0, 512, sector, 0), ==, 0);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("test-qcow2-XXXXXX", NULL);
    g_assert_nonnull(dir);
    graph = block_graph_new();
    g_test_add_func("/qcow2/open/plain", test_plain);
    g_test_add_func("/qcow2/open/version-2", test_version_2);
    g_test_add_func("/qcow2/open/is-probed", test_probed);
    g_test_add_func("/qcow2/open/names-its-backing-file", test_backing_name);
    g_test_add_func("/qcow2/open/bad-fields-are-refused", test_bad_fields);
    g_test_add_func("/qcow2/open/unknown-features-have-names",
                    test_feature_names);
    g_test_add_func("/qcow2/open/backing-name-too-long",
                    test_backing_too_long);
    g_test_add_func("/qcow2/open/file-that-ends-early", test_shrunk_file);
    g_test_add_func("/qcow2/open/corrupt-is-read-only",
                    test_corrupt_is_read_only);
    g_test_add_func("/qcow2/header/unknown-parts-survive", test_rewritten);
    g_test_add_func("/qcow2/data-file/opened-unless-only-asked",
                    test_data_file);
    g_test_add_func("/qcow2/data-file/header-names-files-only",
                    test_data_file_name_is_a_file);
    g_test_add_func("/qcow2/data-file/refused-where-there-is-none",
                    test_data_file_not_wanted);
    g_test_add_func("/qcow2/options/checked", test_options);
    g_test_add_func("/qcow2/options/one-pass-needs-little", test_one_pass);
    g_test_add_func("/qcow2/options/cache-clean-interval",
                    test_clean_interval);
    g_test_add_func("/qcow2/reopen/read-only-and-back", test_reopen);
    g_test_add_func("/qcow2/reopen/corrupt-stays-read-only",
                    test_reopen_corrupt);
    g_test_add_func("/qcow2/reopen/dirty-is-repaired", test_reopen_dirty);
    g_test_add_func("/qcow2/reopen/writable-again", test_reopen_again);
    ret = g_test_run();
    block_graph_free(graph);
    remove_dir();
    return ret;
}
