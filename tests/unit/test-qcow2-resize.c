/*
 * Tests of changing the length of qcow2 images: the data against a model.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/stat.h>
#include "block/blkdebug.h"
#include "block/block-backend.h"
#include "block/block-driver.h"
#include "qemu/bswap.h"

#define BASE_SIZE (4 * MiB)

static char *dir;
static BlockGraph *graph;

static char *path_of(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static BlockBackend *open_image(const char *name)
{
    g_autofree char *path = path_of(name);

    return blk_new_open(graph, path, NULL, json_pack("{s:s}", "driver",
                                                     "qcow2"),
                        BDRV_O_RDWR | BDRV_O_RESIZE, &error_abort);
}

static BlockBackend *create(const char *name, const char *options)
{
    g_autofree char *path = path_of(name);
    json_t *o = qemu_opts_parse_legacy(options, NULL, false, NULL,
                                       &error_abort);

    g_assert_true(bdrv_create(graph, "qcow2", path, o, &error_abort));
    return open_image(name);
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
    g_autofree uint8_t *buf = g_malloc(end - offset + 1);

    g_assert_cmpint(blk_pread(blk, offset, end - offset, buf, 0), ==, 0);
    for (int64_t i = 0; i < end - offset; i++) {
        if (buf[i] != byte) {
            g_error("%02x instead of %02x at %" PRId64, buf[i], byte,
                    offset + i);
        }
    }
}

static void resize(BlockBackend *blk, int64_t size, PreallocMode mode)
{
    g_assert_true(blk_truncate(blk, size, true, mode, 0, &error_abort));
    g_assert_cmpint(blk_getlength(blk), ==, size);
}

/* A file of 0xbb that the image is an overlay of. */
static char *make_base(void)
{
    char *path = path_of("base");
    g_autofree char *data = g_malloc(BASE_SIZE);

    memset(data, 0xbb, BASE_SIZE);
    g_assert_true(g_file_set_contents(path, data, BASE_SIZE, NULL));
    return path;
}

/* ---- Growing ---- */

/* From one L1 entry to many, and over the end of a cluster of the table. */
static void test_grow(void)
{
    BlockBackend *blk = create("grow", "size=1M,cluster_size=512");

    write_pattern(blk, 0, 1 * MiB, 0x11);
    resize(blk, 3 * MiB, PREALLOC_MODE_OFF);
    write_pattern(blk, 2 * MiB, 1 * MiB, 0x22);
    resize(blk, 100 * GiB, PREALLOC_MODE_OFF);
    write_pattern(blk, 100 * GiB - 512, 512, 0x33);
    blk_unref(blk);

    blk = open_image("grow");
    g_assert_cmpint(blk_getlength(blk), ==, 100 * GiB);
    check_pattern(blk, 0, 1 * MiB, 0x11);
    check_pattern(blk, 1 * MiB, 2 * MiB, 0);
    check_pattern(blk, 2 * MiB, 3 * MiB, 0x22);
    check_pattern(blk, 3 * MiB, 4 * MiB, 0);
    check_pattern(blk, 100 * GiB - 512, 100 * GiB, 0x33);
    blk_unref(blk);
}

/* What a backing file has beyond the old end does not show. */
static void test_grow_over_backing(void)
{
    static const char *const more[] = { "", ",extended_l2=on",
                                        ",compat=0.10" };
    g_autofree char *base = make_base();

    for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
        for (int mode = 0; mode <= PREALLOC_MODE_FULL; mode++) {
            g_autofree char *o = g_strdup_printf(
                "size=1000k,backing_file=%s,backing_fmt=raw%s", base, more[i]);
            BlockBackend *blk = create("over", o);

            write_pattern(blk, 990 * KiB, 10 * KiB, 0x44);
            resize(blk, 6 * MiB, mode);
            check_pattern(blk, 0, 990 * KiB, 0xbb);
            check_pattern(blk, 990 * KiB, 1000 * KiB, 0x44);
            check_pattern(blk, 1000 * KiB, 6 * MiB, 0);
            write_pattern(blk, 5 * MiB + 512, 512, 0x55);
            blk_unref(blk);
            blk = open_image("over");
            check_pattern(blk, 0, 990 * KiB, 0xbb);
            check_pattern(blk, 1000 * KiB, 5 * MiB + 512, 0);
            check_pattern(blk, 5 * MiB + 512, 5 * MiB + 1024, 0x55);
            check_pattern(blk, 5 * MiB + 1024, 6 * MiB, 0);
            blk_unref(blk);
        }
    }
}

static void test_grow_preallocated(void)
{
    g_autofree char *path = path_of("prealloc");

    for (int mode = PREALLOC_MODE_METADATA; mode <= PREALLOC_MODE_FULL;
         mode++) {
        BlockBackend *blk = create("prealloc", "size=1M");
        int64_t pnum, map;
        struct stat st;

        write_pattern(blk, 0, 1 * MiB, 0x66);
        resize(blk, 4 * MiB, mode);
        check_pattern(blk, 0, 1 * MiB, 0x66);
        check_pattern(blk, 1 * MiB, 4 * MiB, 0);
        g_assert_cmpint(bdrv_block_status(blk_bs(blk), 3 * MiB, 1 * MiB,
                                          &pnum, &map, NULL) &
                        BDRV_BLOCK_OFFSET_VALID, !=, 0);
        blk_unref(blk);
        g_assert_cmpint(stat(path, &st), ==, 0);
        g_assert_cmpint(st.st_size, >=, 4 * MiB);
        if (mode != PREALLOC_MODE_METADATA) {
            g_assert_cmpint(st.st_blocks * 512, >=, 4 * MiB);
        }
    }
}

/* ---- Shrinking ---- */

typedef struct Reftable {
    char *image;
    gsize bytes;
    uint8_t *entries;               /* in image */
    uint32_t n;
    int64_t covers;                 /* bytes of the file, an entry */
} Reftable;

static void reftable_read(Reftable *t, const char *path)
{
    const uint8_t *h;
    uint32_t bits, order;

    g_assert_true(g_file_get_contents(path, &t->image, &t->bytes, NULL));
    h = (uint8_t *)t->image;
    bits = ldl_be_p(h + 20);
    order = ldl_be_p(h + 4) < 3 ? 4 : ldl_be_p(h + 96);
    t->entries = (uint8_t *)t->image + ldq_be_p(h + 48);
    t->n = (ldl_be_p(h + 56) << bits) / 8;
    t->covers = (INT64_C(8) << bits >> order) << bits;
}

/* Nor has it refcount blocks for what is behind its end. */
static void check_no_blocks_behind(const char *path)
{
    Reftable t;

    reftable_read(&t, path);
    for (uint32_t i = DIV_ROUND_UP(t.bytes, t.covers); i < t.n; i++) {
        g_assert_cmphex(ldq_be_p(t.entries + i * 8), ==, 0);
    }
    g_free(t.image);
}

/* The file gets shorter, and what was cut off does not come back. */
static void test_shrink(void)
{
    static const char *const more[] = { "", ",extended_l2=on",
                                        ",cluster_size=512",
                                        ",compat=0.10",
                                        ",lazy_refcounts=on" };
    g_autofree char *path = path_of("shrink");

    for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
        g_autofree char *o = g_strdup_printf("size=10M%s", more[i]);
        BlockBackend *blk = create("shrink", o);
        int64_t end = 1000 * KiB + 512;
        struct stat st;

        write_pattern(blk, 0, 10 * MiB, 0x77);
        resize(blk, end, PREALLOC_MODE_OFF);
        check_pattern(blk, 0, end, 0x77);
        g_assert_cmpint(blk_pwrite(blk, end, 512, &i, 0), <, 0);
        g_assert_cmpint(stat(path, &st), ==, 0);
        /* Between small clusters there was a table that stays where it is. */
        g_assert_cmpint(st.st_size, <, strstr(o, "cluster_size") ? 9 * MiB :
                                                                   2 * MiB);
        check_no_blocks_behind(path);
        resize(blk, 10 * MiB, PREALLOC_MODE_OFF);
        check_pattern(blk, 0, end, 0x77);
        check_pattern(blk, end, 10 * MiB, 0);
        write_pattern(blk, 9 * MiB, 1 * MiB, 0x88);
        blk_unref(blk);
        blk = open_image("shrink");
        check_pattern(blk, 0, end, 0x77);
        check_pattern(blk, end, 9 * MiB, 0);
        check_pattern(blk, 9 * MiB, 10 * MiB, 0x88);
        resize(blk, 0, PREALLOC_MODE_OFF);
        resize(blk, 1 * MiB, PREALLOC_MODE_OFF);
        check_pattern(blk, 0, 1 * MiB, 0);
        blk_unref(blk);
    }
}

/* Blocks that another one counts go, too, and then that one. */
static void test_shrink_preallocated(void)
{
    g_autofree char *path = path_of("blocks");
    BlockBackend *blk = create("blocks", "size=4M,cluster_size=512,"
                                         "preallocation=falloc");
    struct stat st;

    write_pattern(blk, 0, 64 * KiB, 1);
    for (int64_t size = 2 * MiB; size >= 64 * KiB; size /= 2) {
        resize(blk, size, PREALLOC_MODE_OFF);
        check_no_blocks_behind(path);
    }
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, <, 256 * KiB);
    resize(blk, 4 * MiB, PREALLOC_MODE_FALLOC);
    check_pattern(blk, 0, 64 * KiB, 1);
    check_pattern(blk, 64 * KiB, 4 * MiB, 0);
    blk_unref(blk);
}

/* A block that counts itself alone goes, but not if it is in the table twice:
 * then what becomes of its cluster is not known. */
static void shrink_with_block(bool twice)
{
    enum { CLUSTER = 512, FIRST = 5 * 256, OWN = FIRST + 7 };
    g_autofree char *path = path_of("self");
    BlockBackend *blk = create("self", "size=4M,cluster_size=512");
    g_autofree char *image = g_malloc0((OWN + 1) * CLUSTER);
    uint64_t offset = OWN * CLUSTER;
    struct stat st;
    Reftable t;

    write_pattern(blk, 0, 4 * KiB, 1);
    blk_unref(blk);
    reftable_read(&t, path);
    g_assert_cmpint(t.covers, ==, 256 * CLUSTER);
    stq_be_p(t.entries + 5 * 8, offset);
    if (twice) {
        stq_be_p(t.entries + 3 * 8, offset);
    }
    memcpy(image, t.image, t.bytes);
    stw_be_p(image + offset + (OWN - FIRST) * 2, 1);
    g_assert_true(g_file_set_contents(path, image, (OWN + 1) * CLUSTER, NULL));
    g_free(t.image);

    blk = open_image("self");
    resize(blk, 2 * MiB, PREALLOC_MODE_OFF);
    check_pattern(blk, 0, 4 * KiB, 1);
    blk_unref(blk);
    reftable_read(&t, path);
    g_assert_cmphex(ldq_be_p(t.entries + 5 * 8), ==, twice ? offset : 0);
    g_assert_cmphex(ldq_be_p(t.entries + 3 * 8), ==, twice ? offset : 0);
    g_free(t.image);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size > offset, ==, twice);
}

/* Each block of a chain is counted by the one before it: to drop one takes a
 * sync, which is not done for thousands. */
static void test_shrink_chain(void)
{
    enum { CLUSTER = 512, PER = 256, FIRST = 3, LAST = 22 };
    g_autofree char *path = path_of("chain");
    BlockBackend *blk = create("chain", "size=4M,cluster_size=512");
    const size_t bytes = LAST * PER * CLUSTER;
    g_autofree char *image = g_malloc0(bytes);
    Reftable t;

    write_pattern(blk, 0, 4 * KiB, 1);
    blk_unref(blk);
    reftable_read(&t, path);
    for (int i = FIRST; i <= LAST; i++) {
        uint64_t offset = i == FIRST ? (FIRST * PER + 6) * CLUSTER :
                                       ((i - 1) * PER + 7) * CLUSTER;

        stq_be_p(t.entries + i * 8, offset);
        stw_be_p(image + offset + 6 * 2, i == FIRST);
        stw_be_p(image + offset + 7 * 2, i < LAST);
    }
    memcpy(image, t.image, t.bytes);
    g_assert_true(g_file_set_contents(path, image, bytes, NULL));
    g_free(t.image);

    blk = open_image("chain");
    resize(blk, 2 * MiB, PREALLOC_MODE_OFF);
    check_pattern(blk, 0, 4 * KiB, 1);
    blk_unref(blk);
    reftable_read(&t, path);
    g_assert_cmphex(ldq_be_p(t.entries + (LAST - 1) * 8), ==, 0);
    g_assert_cmphex(ldq_be_p(t.entries + (LAST - 9) * 8), !=, 0);
    g_free(t.image);
}

static void test_shrink_block_of_its_own(void)
{
    shrink_with_block(false);
}

static void test_shrink_block_twice(void)
{
    shrink_with_block(true);
}

/* Nor what a later subcluster of the last cluster held. */
static void test_shrink_subclusters(void)
{
    BlockBackend *blk = create("subclusters", "size=1M,extended_l2=on");

    write_pattern(blk, 68 * KiB, 60 * KiB, 0x77);
    resize(blk, 64 * KiB + 512, PREALLOC_MODE_OFF);
    resize(blk, 1 * MiB, PREALLOC_MODE_OFF);
    check_pattern(blk, 0, 1 * MiB, 0);
    blk_unref(blk);
}

static void test_data_file(void)
{
    g_autofree char *data = path_of("data");
    g_autofree char *o = g_strdup_printf("size=1M,data_file=%s,"
                                         "data_file_raw=on", data);
    BlockBackend *blk = create("with-data", o);
    g_autofree char *contents = NULL;
    gsize length;

    write_pattern(blk, 0, 1 * MiB, 0x99);
    resize(blk, 2 * MiB, PREALLOC_MODE_OFF);
    write_pattern(blk, 2 * MiB - 512, 512, 0xaa);
    resize(blk, 512 * KiB, PREALLOC_MODE_OFF);
    resize(blk, 1 * MiB, PREALLOC_MODE_OFF);
    check_pattern(blk, 0, 512 * KiB, 0x99);
    check_pattern(blk, 512 * KiB, 1 * MiB, 0);
    blk_unref(blk);
    g_assert_true(g_file_get_contents(data, &contents, &length, NULL));
    g_assert_cmpint(length, ==, 1 * MiB);
    g_assert_cmphex((uint8_t)contents[0], ==, 0x99);
    g_assert_cmphex((uint8_t)contents[512 * KiB], ==, 0);
}

/* As after a crash between the two steps of shrinking: the file was not cut. */
static void test_data_file_longer(void)
{
    g_autofree char *data = path_of("longer");
    g_autofree char *o = g_strdup_printf("size=1M,data_file=%s,"
                                         "data_file_raw=on", data);
    BlockBackend *blk = create("with-longer", o);
    g_autofree uint8_t *stale = g_malloc(512 * KiB);
    FILE *f = fopen(data, "a");

    blk_unref(blk);
    memset(stale, 0x55, 512 * KiB);
    g_assert_cmpint(fwrite(stale, 1, 512 * KiB, f), ==, 512 * KiB);
    fclose(f);
    blk = open_image("with-longer");
    resize(blk, 2 * MiB, PREALLOC_MODE_OFF);
    check_pattern(blk, 0, 2 * MiB, 0);
    blk_unref(blk);
}

/* It is not known which length the header says: that fails, and so does putting
 * the old one back.  The file stays as long as the longer of the two. */
static void test_data_file_header_unknown(void)
{
    g_autofree char *path = path_of("unknown");
    g_autofree char *data = path_of("unknown-data");
    g_autofree char *o = g_strdup_printf("size=1049088,data_file=%s,"
                                         "data_file_raw=on", data);
    BlockBackend *blk = create("unknown", o);
    struct stat st;

    blk_unref(blk);
    blk = blk_new_open(graph, NULL, NULL,
                       json_pack("{s:s, s:{s:s, s:[{s:s, s:s}],"
                                 " s:{s:s, s:s}}}", "driver", "qcow2",
                                 "file", "driver", "blkdebug",
                                 "inject-error", "event", "none", "iotype",
                                 "write", "image", "driver", "file",
                                 "filename", path),
                       BDRV_O_RDWR | BDRV_O_RESIZE, &error_abort);
    g_assert_false(blk_truncate(blk, 1 * MiB + 4096, true, PREALLOC_MODE_OFF,
                                0, NULL));
    g_assert_false(blk_truncate(blk, 1 * MiB + 1024, true, PREALLOC_MODE_OFF,
                                0, NULL));
    blk_unref(blk);
    g_assert_cmpint(stat(data, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 1 * MiB + 4096);
}

/* Nothing is written behind the end of the disk, where a raw image ends. */
static void test_data_file_end(void)
{
    static const char *const more[] = { "", ",data_file_raw=on",
                                        ",extended_l2=on" };
    g_autofree char *data = path_of("data");

    for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
        g_autofree char *o = g_strdup_printf("size=66k,data_file=%s%s", data,
                                             more[i]);
        BlockBackend *blk;
        struct stat st;

        g_unlink(data);
        blk = create("with-data", o);
        write_pattern(blk, 65 * KiB, 512, 0x99);
        check_pattern(blk, 0, 65 * KiB, 0);
        check_pattern(blk, 65 * KiB, 65 * KiB + 512, 0x99);
        check_pattern(blk, 65 * KiB + 512, 66 * KiB, 0);
        resize(blk, 1 * MiB, PREALLOC_MODE_OFF);
        resize(blk, 66 * KiB, PREALLOC_MODE_OFF);
        blk_unref(blk);
        g_assert_cmpint(stat(data, &st), ==, 0);
        g_assert_cmpint(st.st_size, ==, 66 * KiB);
        blk = open_image("with-data");
        write_pattern(blk, 65 * KiB + 512, 512, 0x9a);
        resize(blk, 1 * MiB, PREALLOC_MODE_OFF);
        check_pattern(blk, 66 * KiB, 1 * MiB, 0);
        blk_unref(blk);
    }
}

static void test_data_file_stays(void)
{
    g_autofree char *data = path_of("data");
    g_autofree char *o = g_strdup_printf("size=66k,data_file=%s", data);
    BlockBackend *blk;
    struct stat st;

    g_unlink(data);
    blk = create("with-data", o);
    write_pattern(blk, 65 * KiB, 512, 0x99);
    blk_unref(blk);
    g_assert_cmpint(stat(data, &st), ==, 0);
    g_assert_cmpint(st.st_size, <=, 66 * KiB);
}

/* ---- Refused ---- */

static void check_refused(BlockBackend *blk, int64_t size, PreallocMode mode,
                          const char *expected)
{
    g_autoptr(Error) err = NULL;

    g_assert_false(blk_truncate(blk, size, true, mode, 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
    g_assert_cmpint(blk_getlength(blk), ==, 1 * MiB);
}

static void test_refused(void)
{
    BlockBackend *blk = create("refused", "size=1M");

    check_refused(blk, 1 * MiB + 1, PREALLOC_MODE_OFF,
                  "The new size must be a multiple of 512");
    check_refused(blk, 4 * PiB, PREALLOC_MODE_OFF,
                  "Failed to grow the L1 table: File too large");
    check_refused(blk, BDRV_MAX_END, PREALLOC_MODE_OFF,
                  "Failed to grow the L1 table: File too large");
    check_refused(blk, INT64_MAX & ~INT64_C(511), PREALLOC_MODE_OFF,
                  "offset(9223372036854775296) exceeds maximum("
                  "9223372035781033984)");
    check_refused(blk, 512, PREALLOC_MODE_FULL,
                  "Preallocation can't be used for shrinking an image");
    blk_unref(blk);
}

/* ---- Files that fail ---- */

/*
 * What a resize that failed says the length is, it is: what is written at the
 * end then, and flushed, is there afterwards.  False: nothing failed.
 */
static bool resize_with_failure(int64_t from, int64_t to, int n)
{
    g_autofree char *path = path_of("fails");
    BlockBackend *blk = create("fails", from == MiB ?
                               "size=1M,cluster_size=4096" :
                               "size=8M,cluster_size=4096");
    bool fired, kept;
    int64_t length;

    write_pattern(blk, 0, from, 1);
    blk_unref(blk);
    blk = blk_new_open(graph, NULL, NULL,
                       json_pack("{s:s, s:{s:s, s:{s:s, s:s}}}",
                                 "driver", "qcow2", "file",
                                 "driver", "blkdebug", "image",
                                 "driver", "file", "filename", path),
                       BDRV_O_RDWR | BDRV_O_RESIZE, &error_abort);
    g_assert_cmpint(blkdebug_arm(blk_bs(blk), n, EIO), ==, 0);
    blk_truncate(blk, to, true, PREALLOC_MODE_OFF, 0, NULL);
    fired = blkdebug_fired(blk_bs(blk));
    blkdebug_arm(blk_bs(blk), 0, 0);
    length = blk_getlength(blk);
    kept = blk_pwrite_zeroes(blk, length - 512, 512, 0) == 0 &&
           blk_flush(blk) == 0;
    blk_unref(blk);
    blk = open_image("fails");
    if (kept) {
        g_assert_cmpint(blk_getlength(blk), ==, length);
        check_pattern(blk, length - 512, length, 0);
    }
    check_pattern(blk, 0, MIN(from, to) - 512, 1);
    blk_unref(blk);
    return fired;
}

static void test_fails(void)
{
    int64_t sizes[][2] = { { 1 * MiB, 8 * MiB }, { 8 * MiB, 1 * MiB } };

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        int n = 1;

        while (resize_with_failure(sizes[i][0], sizes[i][1], n)) {
            n++;
        }
        g_assert_cmpint(n, >, 5);
    }
}

/* What it takes does not depend on how long a file says that it is. */
static void test_shrink_endless_file(void)
{
    g_autofree char *path = path_of("endless");
    BlockBackend *blk = create("endless", "size=64k,cluster_size=512");
    struct stat st;

    write_pattern(blk, 0, 64 * KiB, 1);
    blk_unref(blk);
    if (truncate(path, INT64_C(1) << 43) < 0) {
        g_test_skip("no files of 8 TiB here");
        return;
    }
    blk = open_image("endless");
    resize(blk, 4 * KiB, PREALLOC_MODE_OFF);
    check_pattern(blk, 0, 4 * KiB, 1);
    blk_unref(blk);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, <, 128 * KiB);
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

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("test-qcow2-XXXXXX", NULL);
    g_assert_nonnull(dir);
    graph = block_graph_new();
    g_test_add_func("/qcow2/resize/grow", test_grow);
    g_test_add_func("/qcow2/resize/grow-over-a-longer-backing-file",
                    test_grow_over_backing);
    g_test_add_func("/qcow2/resize/grow-preallocated",
                    test_grow_preallocated);
    g_test_add_func("/qcow2/resize/shrink", test_shrink);
    g_test_add_func("/qcow2/resize/shrink-preallocated",
                    test_shrink_preallocated);
    g_test_add_func("/qcow2/resize/shrink-chain", test_shrink_chain);
    g_test_add_func("/qcow2/resize/shrink-block-of-its-own",
                    test_shrink_block_of_its_own);
    g_test_add_func("/qcow2/resize/shrink-block-twice",
                    test_shrink_block_twice);
    g_test_add_func("/qcow2/resize/shrink-within-subclusters",
                    test_shrink_subclusters);
    g_test_add_func("/qcow2/resize/data-file-longer-than-disk",
                    test_data_file_longer);
    g_test_add_func("/qcow2/resize/data-file-header-unknown",
                    test_data_file_header_unknown);
    g_test_add_func("/qcow2/resize/data-file-follows", test_data_file);
    g_test_add_func("/qcow2/resize/data-file-ends-where-the-disk-does",
                    test_data_file_end);
    g_test_add_func("/qcow2/resize/data-file-does-not-grow",
                    test_data_file_stays);
    g_test_add_func("/qcow2/resize/fails", test_fails);
    g_test_add_func("/qcow2/resize/shrink-a-file-without-end",
                    test_shrink_endless_file);
    g_test_add_func("/qcow2/resize/refused", test_refused);
    ret = g_test_run();
    block_graph_free(graph);
    remove_dir();
    return ret;
}
