/*
 * Tests of creating qcow2 images.  What was made is walked here, table by
 * table: every cluster must be referred to as often as its refcount says.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/stat.h>
#include "block/block-backend.h"
#include "block/block-driver.h"
#include "qemu/bswap.h"

static char *dir;
static BlockGraph *graph;

static char *path_of(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static bool create(const char *name, const char *options, Error **errp)
{
    g_autofree char *path = path_of(name);
    json_t *o = qemu_opts_parse_legacy(options, NULL, false, NULL,
                                       &error_abort);

    return bdrv_create(graph, "qcow2", path, o, errp);
}

/* ---- Walking an image ---- */

typedef struct Image {
    FILE *f;
    int64_t cluster, length, clusters;
    int order;
    bool extl2, external;
    uint64_t *refs;             /* counted by us */
    int64_t mapped;             /* guest clusters */
    uint8_t header[112];
} Image;

static void read_at(Image *im, int64_t offset, void *buf, size_t bytes)
{
    memset(buf, 0, bytes);
    g_assert_cmpint(fseeko(im->f, offset, SEEK_SET), ==, 0);
    g_assert_cmpint(fread(buf, 1, bytes, im->f), <=, bytes);
}

static void refer(Image *im, int64_t offset, int64_t bytes)
{
    g_assert_cmpint(offset % im->cluster, ==, 0);
    for (int64_t c = offset / im->cluster;
         c < DIV_ROUND_UP(offset + bytes, im->cluster); c++) {
        g_assert_cmpint(c, <, im->clusters);
        im->refs[c]++;
    }
}

static uint64_t stored_refcount(Image *im, int64_t cluster)
{
    int64_t per_block = im->cluster * 8 >> im->order;
    int64_t table = ldq_be_p(im->header + 48);
    int64_t in_block = cluster % per_block;
    int bits = 1 << im->order;
    uint8_t buf[8];
    int64_t block;

    read_at(im, table + cluster / per_block * 8, buf, 8);
    block = ldq_be_p(buf);
    if (!block) {
        return 0;
    }
    if (bits < 8) {
        read_at(im, block + in_block * bits / 8, buf, 1);
        return buf[0] >> in_block * bits % 8 & ((1 << bits) - 1);
    }
    memset(buf, 0, 8);
    {
        uint8_t entry[8];

        read_at(im, block + in_block * bits / 8, entry, bits / 8);
        memcpy(buf + 8 - bits / 8, entry, bits / 8);
    }
    return ldq_be_p(buf);
}

static void walk_l2(Image *im, int64_t offset)
{
    g_autofree uint8_t *l2 = g_malloc(im->cluster);
    int words = im->extl2 ? 2 : 1;

    read_at(im, offset, l2, im->cluster);
    for (int64_t i = 0; i < im->cluster / 8; i += words) {
        uint64_t entry = ldq_be_p(l2 + i * 8);

        if (entry) {
            g_assert_cmphex(entry & ~0x80fffffffffffe00ULL, ==, 0);
            g_assert_true(entry >> 63);
            if (im->external) {
                g_assert_cmpint(entry & 0xfffffffffffe00ULL, ==,
                                im->mapped * im->cluster);
            } else {
                refer(im, entry & 0xfffffffffffe00ULL, im->cluster);
            }
            im->mapped++;
        }
    }
}

static void walk_tables(Image *im)
{
    int64_t l1 = ldq_be_p(im->header + 40), n = ldl_be_p(im->header + 36);
    int64_t rt = ldq_be_p(im->header + 48);
    int64_t rt_bytes = ldl_be_p(im->header + 56) * im->cluster;
    uint8_t buf[8];

    refer(im, 0, im->cluster);
    refer(im, rt, rt_bytes);
    for (int64_t i = 0; i < rt_bytes; i += 8) {
        read_at(im, rt + i, buf, 8);
        if (ldq_be_p(buf)) {
            refer(im, ldq_be_p(buf), im->cluster);
        }
    }
    refer(im, l1, n * 8);
    for (int64_t i = 0; i < n; i++) {
        read_at(im, l1 + i * 8, buf, 8);
        if (ldq_be_p(buf)) {
            g_assert_true(buf[0] >> 7);
            refer(im, ldq_be_p(buf) & 0xfffffffffffe00ULL, im->cluster);
            walk_l2(im, ldq_be_p(buf) & 0xfffffffffffe00ULL);
        }
    }
}

/* The image is right; how many guest clusters it maps. */
static int64_t check_image(const char *name)
{
    g_autofree char *path = path_of(name);
    Image im = { .f = fopen(path, "rb") };
    struct stat st;

    g_assert_nonnull(im.f);
    g_assert_cmpint(fstat(fileno(im.f), &st), ==, 0);
    read_at(&im, 0, im.header, sizeof(im.header));
    im.cluster = INT64_C(1) << ldl_be_p(im.header + 20);
    im.clusters = DIV_ROUND_UP(st.st_size, im.cluster);
    im.order = im.header[7] < 3 ? 4 : ldl_be_p(im.header + 96);
    if (im.header[7] >= 3) {
        im.extl2 = im.header[79] & 16;
        im.external = im.header[79] & 4;
    }
    im.refs = g_new0(uint64_t, im.clusters);
    walk_tables(&im);
    for (int64_t i = 0; i < im.clusters; i++) {
        g_assert_cmpint(im.refs[i], ==, stored_refcount(&im, i));
    }
    for (int64_t i = 0; i < 1000; i++) {
        g_assert_cmpint(stored_refcount(&im, im.clusters + i), ==, 0);
    }
    g_free(im.refs);
    fclose(im.f);
    return im.mapped;
}

/* ---- Images ---- */

static void test_sizes(void)
{
    static const char *const sizes[] = { "0", "1", "512", "1M", "10G", "1T",
                                         "2P" };

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_autofree char *options = g_strdup_printf("size=%s", sizes[i]);

        g_assert_true(create("sizes", options, &error_abort));
        g_assert_cmpint(check_image("sizes"), ==, 0);
    }
}

static void test_geometries(void)
{
    for (int cluster_bits = 9; cluster_bits <= 21; cluster_bits += 3) {
        for (int refcount_bits = 1; refcount_bits <= 64; refcount_bits *= 2) {
            for (int prealloc = 0; prealloc < 2; prealloc++) {
                int64_t cluster = INT64_C(1) << cluster_bits;
                int64_t size = 700 * cluster - 512;
                g_autofree char *o = g_strdup_printf(
                    "cluster_size=%" PRId64 ",refcount_bits=%d,size=%" PRId64
                    ",preallocation=%s,extended_l2=%s", cluster,
                    refcount_bits, size, PreallocMode_names[prealloc],
                    cluster_bits >= 14 ? "on" : "off");

                g_assert_true(create("geometry", o, &error_abort));
                g_assert_cmpint(check_image("geometry"), ==,
                                prealloc ? DIV_ROUND_UP(size, cluster) : 0);
            }
        }
    }
}

static void check_disk_size(const char *name, int64_t size)
{
    g_autofree char *path = path_of(name);
    json_t *o = json_pack("{s:s}", "driver", "qcow2");
    BlockBackend *blk = blk_new_open(graph, path, NULL, o, BDRV_O_NO_IO,
                                     &error_abort);

    g_assert_cmpint(blk_getlength(blk), ==, size);
    blk_unref(blk);
}

static void test_preallocated(void)
{
    static const char *const modes[] = { "metadata", "falloc", "full" };
    g_autofree char *path = path_of("prealloc");
    struct stat st;

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        g_autofree char *o = g_strdup_printf("size=1M,preallocation=%s",
                                             modes[i]);

        g_assert_true(create("prealloc", o, &error_abort));
        g_assert_cmpint(check_image("prealloc"), ==, 16);
        check_disk_size("prealloc", 1 * MiB);
        g_assert_cmpint(stat(path, &st), ==, 0);
        g_assert_cmpint(st.st_size, ==, (5 + 16) * 65536);
        if (i > 0) {
            g_assert_cmpint(st.st_blocks * 512, >=, 1 * MiB);
        }
    }
}

static void test_data_file(void)
{
    g_autofree char *data = path_of("data");
    g_autofree char *plain = g_strdup_printf("size=1M,data_file=%s", data);
    g_autofree char *raw = g_strdup_printf("%s,data_file_raw=on", plain);
    struct stat st;

    g_assert_true(create("with-data", plain, &error_abort));
    g_assert_cmpint(check_image("with-data"), ==, 0);
    g_assert_cmpint(stat(data, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 1 * MiB);
    g_assert_true(create("with-data", raw, &error_abort));
    g_assert_cmpint(check_image("with-data"), ==, 16);
}

/* An image cannot be its own data file, and is not made then: nor is a file
 * left, but what is no regular file stays. */
static void test_own_data_file(void)
{
    g_autofree char *path = path_of("own");
    g_autofree char *link = path_of("link");
    g_autofree char *o = g_strdup_printf("size=1M,data_file=%s", path);

    g_assert_false(create("own", o, NULL));
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_cmpint(symlink(path, link), ==, 0);
    g_assert_false(create("link", o, NULL));
    g_assert_true(g_file_test(link, G_FILE_TEST_IS_SYMLINK));
    g_assert_cmpint(unlink(link), ==, 0);
}

static void test_refused(void)
{
    static const char *const cases[][2] = {
        { "compat=2", "Parameter 'version' does not accept value '2'" },
        { "cluster_size=256", "Cluster size must be a power of two between "
                              "512 and 2048k" },
        { "cluster_size=4M", "Cluster size must be a power of two between 512 "
                             "and 2048k" },
        { "cluster_size=1000", "Cluster size must be a power of two between "
                               "512 and 2048k" },
        { "refcount_bits=0", "Refcount width must be a power of two and may "
                             "not exceed 64 bits" },
        { "refcount_bits=128", "Refcount width must be a power of two and may "
                               "not exceed 64 bits" },
        { "compat=0.10,lazy_refcounts=on",
          "Lazy refcounts only supported with compatibility level 1.1 and "
          "above (use version=v3 or greater)" },
        { "compat=0.10,refcount_bits=8",
          "Different refcount widths than 16 bits require compatibility level "
          "1.1 or above (use version=v3 or greater)" },
        { "compat=0.10,extended_l2=on",
          "Extended L2 entries are only supported with compatibility level "
          "1.1 and above (use version=v3 or greater)" },
        { "compat=0.10,data_file=x",
          "External data files are only supported with compatibility level "
          "1.1 and above (use version=v3 or greater)" },
        { "compat=0.10,compression_type=zstd",
          "Non-zlib compression type is only supported with compatibility "
          "level 1.1 and above (use version=v3 or greater)" },
        { "compression_type=lz4",
          "Parameter 'compression-type' does not accept value 'lz4'" },
        { "preallocation=some",
          "Parameter 'preallocation' does not accept value 'some'" },
        { "extended_l2=on,cluster_size=8k",
          "Extended L2 entries are only supported with cluster sizes of at "
          "least 16384 bytes" },
        { "data_file_raw=on", "data-file-raw requires data-file" },
        { "backing_fmt=raw",
          "Backing format cannot be used without backing file" },
        { "backing_file=x,backing_fmt=raw,preallocation=metadata",
          "Backing file and preallocation can only be used at the same time "
          "if extended_l2 is on" },
        { "backing_file=x,data_file=y,data_file_raw=on",
          "Backing file and data-file-raw cannot be used at the same time" },
        { "encryption=on",
          "Parameter 'encrypt.key-secret' is required for cipher" },
        { "size=3P", "Image size is too large: File too large" },
        { "size=7E", "Image size is too large: File too large" },
        { "size=16P,cluster_size=512",
          "Image size is too large: File too large" },
    };
    g_autofree char *path = path_of("refused");

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autoptr(Error) err = NULL;

        g_assert_false(create("refused", cases[i][0], &err));
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i][1]);
        /* Nothing was touched. */
        g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    }
}

/* What a cluster of 512 bytes has room for, exactly. */
static void test_long_backing_name(void)
{
    int room = 512 - 112 - 16 - 8;
    g_autofree char *name = g_strnfill(room + 1, 'a');
    g_autofree char *too_long = g_strdup_printf(
        "size=1M,cluster_size=512,backing_fmt=raw,backing_file=%s", name);
    g_autofree char *fits = NULL;
    g_autoptr(Error) err = NULL;

    g_assert_false(create("name", too_long, &err));
    g_assert_nonnull(strstr(error_get_pretty(err),
                            "with format 'raw': No space left on device"));
    fits = g_strndup(too_long, strlen(too_long) - 1);
    g_assert_true(create("name", fits, &error_abort));
    g_assert_cmpint(check_image("name"), ==, 0);
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
    g_test_add_func("/qcow2/create/sizes", test_sizes);
    g_test_add_func("/qcow2/create/geometries", test_geometries);
    g_test_add_func("/qcow2/create/preallocated", test_preallocated);
    g_test_add_func("/qcow2/create/data-file", test_data_file);
    g_test_add_func("/qcow2/create/not-its-own-data-file",
                    test_own_data_file);
    g_test_add_func("/qcow2/create/refused", test_refused);
    g_test_add_func("/qcow2/create/name-fits-or-not", test_long_backing_name);
    ret = g_test_run();
    block_graph_free(graph);
    remove_dir();
    return ret;
}
