/*
 * Compressed clusters: there and back, what other programs make of them, and
 * data that lies.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <zlib.h>
#include "block/qcow2.h"

#define CLUSTER 65536

static BDRVQcow2State state(Qcow2CompressionType type)
{
    return (BDRVQcow2State){
        .cluster_size = CLUSTER,
        .compression_type = type,
    };
}

static bool has_type(Qcow2CompressionType type)
{
#ifndef CONFIG_LIBZSTD
    if (type == QCOW2_COMPRESSION_ZSTD) {
        g_test_skip("built without libzstd");
        return false;
    }
#endif
    return true;
}

/* ---- Libraries ---- */

static bool is_loaded(const char *library)
{
    g_autofree char *maps = NULL;

    g_assert_true(g_file_get_contents("/proc/self/maps", &maps, NULL, NULL));
    return strstr(maps, library);
}

static const struct {
    Qcow2CompressionType type;
    const char *name;
    bool writes;
} libraries[] = {
#ifdef CONFIG_LIBDEFLATE
    { QCOW2_COMPRESSION_ZLIB, "/libdeflate.so" },
#endif
#ifdef CONFIG_LIBISAL
    { QCOW2_COMPRESSION_ZLIB, "/libisal.so", .writes = true },
#endif
#ifdef CONFIG_LIBZSTD
    { QCOW2_COMPRESSION_ZSTD, "/libzstd.so", .writes = true },
#endif
    { .name = NULL }
};

/* Comes first: what is loaded stays. */
static void test_libraries(void)
{
    g_autofree uint8_t *src = g_malloc0(CLUSTER), *packed = g_malloc0(CLUSTER);

    for (int i = 0; libraries[i].name; i++) {
        BDRVQcow2State s = state(libraries[i].type);

        g_assert_false(is_loaded(libraries[i].name));
        if (libraries[i].writes) {
            g_assert_cmpint(qcow2_compress(&s, packed, CLUSTER, src), >, 0);
        } else {
            g_assert_cmpint(qcow2_decompress(&s, src, packed, 1), ==, -EIO);
        }
        g_assert_true(is_loaded(libraries[i].name));
    }
}

/* ---- There and back ---- */

/* Compresses well, and has matches further away than 4 KiB. */
static void fill_text(uint8_t *buf)
{
    for (int i = 0; i < CLUSTER; i++) {
        buf[i] = i < 8192 ? g_test_rand_int_range('a', 'q') : buf[i - 8192];
    }
}

/* Inflate as a reader with a window of 12 bits does. */
static bool inflates_with_4k(const uint8_t *in, size_t size,
                             const uint8_t *expected)
{
    g_autofree uint8_t *out = g_malloc(CLUSTER);
    z_stream z = {
        .next_in = (uint8_t *)in, .avail_in = size,
        .next_out = out, .avail_out = CLUSTER,
    };
    int ret;

    g_assert_cmpint(inflateInit2(&z, -12), ==, Z_OK);
    ret = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return ret == Z_STREAM_END && z.avail_out == 0 &&
           !memcmp(out, expected, CLUSTER);
}

static void test_round(const void *opaque)
{
    BDRVQcow2State s = state(GPOINTER_TO_INT(opaque));
    g_autofree uint8_t *src = g_malloc(CLUSTER), *back = g_malloc(CLUSTER);
    g_autofree uint8_t *packed = g_malloc(2 * CLUSTER);

    if (!has_type(s.compression_type)) {
        return;
    }
    for (int i = 0; i < 20; i++) {
        ssize_t n;

        fill_text(src);
        memset(src + g_test_rand_int_range(0, CLUSTER / 2), i, 5000);
        n = qcow2_compress(&s, packed, 2 * CLUSTER, src);
        g_assert_cmpint(n, >, 0);
        g_assert_cmpint(n, <, CLUSTER);
        if (s.compression_type == QCOW2_COMPRESSION_ZLIB) {
            g_assert_true(inflates_with_4k(packed, n, src));
        }
        /* What follows in the last sector is not part of it. */
        memset(packed + n, i * 37, 512);
        g_assert_cmpint(qcow2_decompress(&s, back, packed, n + 512), ==, 0);
        g_assert_true(!memcmp(back, src, CLUSTER));
        g_assert_cmpint(qcow2_decompress(&s, back, packed, n), ==, 0);
        g_assert_cmpint(qcow2_decompress(&s, back, packed, n - 1), ==, -EIO);
        g_assert_cmpint(qcow2_compress(&s, packed, n - 1, src), ==, -ENOSPC);
    }
}

static void test_noise(const void *opaque)
{
    BDRVQcow2State s = state(GPOINTER_TO_INT(opaque));
    g_autofree uint8_t *src = g_malloc(CLUSTER);
    g_autofree uint8_t *packed = g_malloc(2 * CLUSTER);

    if (!has_type(s.compression_type)) {
        return;
    }
    for (int i = 0; i < CLUSTER; i++) {
        src[i] = g_test_rand_int_range(0, 256);
    }
    g_assert_cmpint(qcow2_compress(&s, packed, 2 * CLUSTER, src), ==, -ENOSPC);
}

/* Of a cluster that is larger, or smaller, than the image's. */
static void test_wrong_length(const void *opaque)
{
    BDRVQcow2State s = state(GPOINTER_TO_INT(opaque));
    g_autofree uint8_t *src = g_malloc0(4 * CLUSTER);
    g_autofree uint8_t *packed = g_malloc(CLUSTER), *back = g_malloc(CLUSTER);
    ssize_t n;

    if (!has_type(s.compression_type)) {
        return;
    }
    s.cluster_size = 4 * CLUSTER;
    n = qcow2_compress(&s, packed, CLUSTER, src);
    g_assert_cmpint(n, >, 0);
    s.cluster_size = CLUSTER;
    g_assert_cmpint(qcow2_decompress(&s, back, packed, n), ==, -EIO);

    s.cluster_size = CLUSTER / 2;
    n = qcow2_compress(&s, packed, CLUSTER, src);
    g_assert_cmpint(n, >, 0);
    s.cluster_size = CLUSTER;
    g_assert_cmpint(qcow2_decompress(&s, back, packed, n), ==, -EIO);
}

/* Anything but a crash; damage is often found, but need not be. */
static void test_damage(const void *opaque)
{
    BDRVQcow2State s = state(GPOINTER_TO_INT(opaque));
    g_autofree uint8_t *src = g_malloc(CLUSTER), *back = g_malloc(CLUSTER);
    g_autofree uint8_t *packed = g_malloc(CLUSTER);
    ssize_t n;
    int refused = 0;

    if (!has_type(s.compression_type)) {
        return;
    }
    fill_text(src);
    n = qcow2_compress(&s, packed, CLUSTER, src);
    g_assert_cmpint(n, >, 0);
    for (int i = 0; i < 2000; i++) {
        int at = g_test_rand_int_range(0, n);
        uint8_t old = packed[at];
        int ret;

        packed[at] ^= 1 << (i % 8);
        ret = qcow2_decompress(&s, back, packed, n);
        g_assert_true(ret == 0 || ret == -EIO);
        refused += ret < 0;
        packed[at] = old;
    }
    g_assert_cmpint(refused, >, 0);
    g_assert_cmpint(qcow2_decompress(&s, back, packed, 0), ==, -EIO);
}

static void *round_thread(void *opaque)
{
    for (int i = 0; i < 5; i++) {
        test_round(opaque);
    }
    return NULL;
}

static void test_threads(const void *opaque)
{
    QemuThread t[4];

    if (!has_type(GPOINTER_TO_INT(opaque))) {
        return;
    }
    for (int i = 0; i < 4; i++) {
        g_assert_cmpint(qemu_thread_create(&t[i], "codec", round_thread,
                                           (void *)opaque), ==, 0);
    }
    for (int i = 0; i < 4; i++) {
        qemu_thread_join(&t[i]);
    }
}

/* ---- The same data, the same image ---- */

#define SAMPLE (512 * KiB)

typedef struct Repeat {
    BDRVQcow2State s;
    const uint8_t *sample;
    size_t offset;                  /* of the clusters in their buffers */
    char *sum;                      /* of what came out */
} Repeat;

/* Like machine code: the same few bytes again and again, before others.  What
 * follows the last of them is not in the buffer. */
static void fill_code(uint8_t *buf, size_t size)
{
    static const uint8_t same[] = { 0x05, 0x48, 0x8b };

    for (size_t i = 0; i < size; i++) {
        buf[i] = i % 4 ? same[(i - i / 512) % 3] :
                 g_test_rand_int_range(0, 256);
    }
}

/* A thread has contexts of its own, at some place in memory. */
static void *repeat_thread(void *opaque)
{
    Repeat *r = opaque;
    size_t size = r->s.cluster_size;
    g_autofree uint8_t *in = g_malloc(size + 64), *out = g_malloc(size);
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA1);

    for (size_t at = 0; at < SAMPLE; at += size) {
        ssize_t n;

        memset(in, at / size, size + 64);
        memcpy(in + r->offset, r->sample + at, size);
        n = qcow2_compress(&r->s, out, size, in + r->offset);
        g_assert_true(n > 0 || n == -ENOSPC);
        g_checksum_update(sum, out, MAX(n, 0));
    }
    r->sum = g_strdup(g_checksum_get_string(sum));
    return NULL;
}

static void test_repeat(const void *opaque)
{
    g_autofree uint8_t *sample = g_malloc(SAMPLE);
    Repeat r[32];
    QemuThread t[ARRAY_SIZE(r)];

    if (!has_type(GPOINTER_TO_INT(opaque))) {
        return;
    }
    fill_code(sample, SAMPLE);
    for (int64_t size = 512; size <= CLUSTER; size *= 8) {
        for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
            r[i] = (Repeat){ state(GPOINTER_TO_INT(opaque)), sample, i };
            r[i].s.cluster_size = size;
            g_assert_cmpint(qemu_thread_create(&t[i], "codec", repeat_thread,
                                               &r[i]), ==, 0);
        }
        for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
            qemu_thread_join(&t[i]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
            g_assert_cmpstr(r[i].sum, ==, r[0].sum);
        }
        for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
            g_free(r[i].sum);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(const void *opaque);
    } tests[] = {
        { "comes back", test_round },
        { "noise does not shrink", test_noise },
        { "wrong length is refused", test_wrong_length },
        { "damage does not crash", test_damage },
        { "threads do not mix", test_threads },
        { "the data alone decides", test_repeat },
    };

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-compress/libraries/loaded-when-needed",
                    test_libraries);
    for (int type = QCOW2_COMPRESSION_ZLIB; type <= QCOW2_COMPRESSION_ZSTD;
         type++) {
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
            g_autofree char *path = g_strdup_printf(
                "/qcow2-compress/%s/%s", type ? "zstd" : "zlib",
                tests[i].name);

            g_test_add_data_func(path, GINT_TO_POINTER(type), tests[i].fn);
        }
    }
    return g_test_run();
}
