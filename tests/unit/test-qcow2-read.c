/*
 * Reading qcow2: images that stock qemu-img and qemu-io made, with everything
 * that the format has, read by us and compared with stock's conversion to raw;
 * images that lie; and which requests need a thread.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/stat.h>
#include "block/qcow2.h"
#include "qemu/bswap.h"
#include "test-driver.h"

#define IMG "/usr/bin/qemu-img"
#define IO "/usr/bin/qemu-io"

static char *dir;
static TestEnv env;

/* ---- Stock tools ---- */

static char *path_of(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

/* Run a command in the directory; it must succeed.  What it wrote. */
static char *G_GNUC_PRINTF(1, 2) run(const char *fmt, ...)
{
    const char *argv[] = { "/bin/sh", "-ec", NULL, NULL };
    g_autofree char *command = NULL, *err = NULL;
    char *out;
    int status;
    va_list ap;

    va_start(ap, fmt);
    command = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    argv[2] = command;
    g_assert_true(g_spawn_sync(dir, (char **)argv, NULL, 0, NULL, NULL, &out,
                               &err, &status, NULL));
    if (status) {
        g_error("%s: %s%s", command, out, err);
    }
    return out;
}

static bool has_stock(void)
{
    if (!g_file_test(IMG, G_FILE_TEST_IS_EXECUTABLE) ||
        !g_file_test(IO, G_FILE_TEST_IS_EXECUTABLE)) {
        g_test_skip("no stock qemu-img and qemu-io in /usr/bin");
        return false;
    }
    return true;
}

/* Random requests to @name, as qemu-io reads them.  Some may fail: compressing
 * what is allocated is not possible everywhere. */
static void scribble(const char *name, int64_t size, int64_t cluster,
                     bool compress, int n)
{
    g_autoptr(GString) s = g_string_new("");
    g_autofree char *script = path_of("script");

    for (int i = 0; i < n; i++) {
        int64_t bytes = 512 * g_test_rand_int_range(1, 4 * cluster / 512 + 1);
        int64_t offset = 512 * ((uint32_t)g_test_rand_int() % (size / 512));
        int what = g_test_rand_int_range(0, 8);

        bytes = MIN(bytes, size - offset);
        if (what == 0) {
            g_string_append_printf(s, "write -z %" PRId64 " %" PRId64 "\n",
                                   offset, bytes);
        } else if (what == 1) {
            g_string_append_printf(s, "discard %" PRId64 " %" PRId64 "\n",
                                   offset, bytes);
        } else if (what < 5 && compress) {
            offset = QEMU_ALIGN_DOWN(offset, cluster);
            g_string_append_printf(s, "write -c -P %d %" PRId64 " %" PRId64
                                   "\n", i % 250 + 1, offset,
                                   MIN(cluster, size - offset));
        } else {
            g_string_append_printf(s, "write -P %d %" PRId64 " %" PRId64 "\n",
                                   i % 250 + 1, offset, bytes);
        }
    }
    g_assert_true(g_file_set_contents(script, s->str, s->len, NULL));
    g_free(run(IO " -t unsafe -f qcow2 %s <script >/dev/null || true", name));
}

typedef struct Recipe {
    const char *name;
    const char *options;            /* of create */
    int64_t size, cluster;
    bool compress;
    const char *backing;            /* options of its create; or NULL */
    int64_t backing_size;
    bool snapshot;                  /* half of it before a snapshot */
} Recipe;

static void try_image(const Recipe *r)
{
    g_autofree char *backing = g_strdup("");

    if (r->backing) {
        g_free(run("rm -f base; " IMG " create -q -f qcow2 -o %s base %" PRId64,
                   r->backing, r->backing_size));
        scribble("base", r->backing_size, 65536, false, 60);
        g_free(backing);
        backing = g_strdup("-b base -F qcow2");
    }
    g_free(run("rm -f image data; " IMG " create -q -f qcow2 -o %s %s image %"
               PRId64, r->options, backing, r->size));
    scribble("image", r->size, r->cluster, r->compress, 40);
    if (r->snapshot) {
        g_free(run(IMG " snapshot -c one image"));
        scribble("image", r->size, r->cluster, r->compress, 40);
    }
}

/* Once in hundreds of times QEMU 7.2 damages what it compresses anew, and
 * cannot read it itself: then there is nothing to compare with. */
static void make_image(const Recipe *r)
{
    for (int i = 0; i < 20; i++) {
        g_autofree char *verdict = NULL;

        try_image(r);
        verdict = run(IMG " check -q image > check 2>&1 || "
                      "test $? = 3 || echo damaged");
        if (!*verdict) {
            return;
        }
        g_assert_true(r->compress);
    }
    g_assert_not_reached();
}

static char *load_raw(int64_t size)
{
    g_autofree char *path = path_of("raw");
    char *data;
    gsize len;

    g_free(run("rm -f raw; " IMG " convert -f qcow2 -O raw image raw"));
    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    g_assert_cmpint(len, ==, size);
    return data;
}

/* ---- Ours ---- */

static BlockBackend *open_image(const char *more, int flags)
{
    g_autofree char *path = path_of("image");
    json_t *o = options_from_json(more, &error_abort);

    json_object_set_new(o, "driver", json_string("qcow2"));
    return blk_new_open(env.graph, path, NULL, o, flags, &error_abort);
}

static void check_read(BlockBackend *blk, const char *raw, int64_t offset,
                       int64_t bytes)
{
    g_autofree char *buf = g_malloc(bytes);

    memset(buf, 0xaa, bytes);
    g_assert_cmpint(blk_pread(blk, offset, bytes, buf, 0), ==, 0);
    g_assert_true(!memcmp(buf, raw + offset, bytes));
}

static void check_whole(BlockBackend *blk, const char *raw, int64_t size)
{
    g_assert_cmpint(blk_getlength(blk), ==, size);
    for (int64_t done = 0, n; done < size; done += n) {
        n = MIN(3 * MiB + 7, size - done);
        check_read(blk, raw, done, n);
    }
}

static void check_random(BlockBackend *blk, const char *raw, int64_t size)
{
    for (int i = 0; i < 300; i++) {
        int64_t offset = (uint32_t)g_test_rand_int() % size;
        int64_t bytes = g_test_rand_int_range(1, 200000);

        check_read(blk, raw, offset, MIN(bytes, size - offset));
    }
}

/* Zero is zero, and data is where it is said to be. */
static void check_status(BlockBackend *blk, const char *raw, int64_t size)
{
    g_autofree char *zeroes = g_malloc0(size);

    for (int64_t at = 0, n; at < size; at += n) {
        BlockDriverState *file;
        int64_t map;
        int st = bdrv_block_status_above(blk_bs(blk), NULL, at, size - at, &n,
                                         &map, &file);

        g_assert_cmpint(st, >=, 0);
        g_assert_cmpint(n, >, 0);
        g_assert_cmpint(!!(st & BDRV_BLOCK_EOF), ==, at + n == size);
        if (st & BDRV_BLOCK_ZERO) {
            g_assert_true(!memcmp(raw + at, zeroes, n));
        } else if (st & BDRV_BLOCK_OFFSET_VALID) {
            g_autofree char *buf = g_malloc(n);
            FILE *f = fopen(bdrv_get_filename(file), "r");

            memset(buf, 0, n);
            g_assert_nonnull(f);
            g_assert_cmpint(fseeko(f, map, SEEK_SET), ==, 0);
            g_assert_cmpint(fread(buf, 1, n, f), <=, n);
            fclose(f);
            g_assert_true(!memcmp(buf, raw + at, n));
        }
    }
}

/* From an AioContext, twice: the second time no read of what is neither
 * compressed nor in two places needs a thread. */
static void check_async(BlockBackend *blk, const char *raw, int64_t size)
{
    char buf[512];

    for (int i = 0; i < 600; i++) {
        int64_t offset = 512 * ((uint32_t)g_test_rand_int() % (size / 512));

        memset(buf, 0xaa, sizeof(buf));
        g_assert_cmpint(test_request_run(env.ctx, blk, BDRV_REQ_READ, offset,
                                         512, buf, 0), ==, 0);
        g_assert_true(!memcmp(buf, raw + offset, 512));
    }
}

static void test_image(const void *opaque)
{
    const Recipe *r = opaque;
    static const char *const caches[] = {
        "{}", "{\"l2-cache-size\": 1024, \"l2-cache-entry-size\": 512}",
    };
    g_autofree char *raw = NULL;

    if (!has_stock()) {
        return;
    }
    make_image(r);
    raw = load_raw(r->size);
    for (size_t i = 0; i < ARRAY_SIZE(caches); i++) {
        BlockBackend *blk = open_image(caches[i], 0);
        BlkPathStats before, after;

        check_random(blk, raw, r->size);
        check_whole(blk, raw, r->size);
        check_status(blk, raw, r->size);
        blk_get_path_stats(blk, &before);
        check_async(blk, raw, r->size);
        blk_get_path_stats(blk, &after);
        if (i == 0 && !r->compress && !r->backing) {
            g_assert_cmpint(after.worker, ==, before.worker);
        }
        blk_unref(blk);
    }
}

static const Recipe recipes[] = {
    { "512", "cluster_size=512", 4 * MiB + 512, 512 },
    { "4k", "cluster_size=4k", 32 * MiB, 4096 },
    { "64k", "cluster_size=64k", 64 * MiB + 1536, 65536 },
    { "2M", "cluster_size=2M", 64 * MiB, 2 * MiB },
    { "v2", "compat=0.10", 64 * MiB, 65536 },
    { "extended L2", "extended_l2=on,cluster_size=64k", 32 * MiB, 65536 },
    { "extended L2, 16k", "extended_l2=on,cluster_size=16k", 8 * MiB, 16384 },
    { "extended L2, 2M", "extended_l2=on,cluster_size=2M", 64 * MiB, 2 * MiB },
    { "zlib", "cluster_size=64k", 32 * MiB, 65536, true },
    { "zlib, 512", "cluster_size=512", 2 * MiB, 512, true },
    { "zlib, 2M", "cluster_size=2M", 64 * MiB, 2 * MiB, true },
    { "zlib, v2", "compat=0.10", 32 * MiB, 65536, true },
    { "zstd", "compression_type=zstd", 32 * MiB, 65536, true },
    { "zstd, extended L2", "compression_type=zstd,extended_l2=on", 32 * MiB,
      65536, true },
    { "data file", "data_file=$PWD/data", 32 * MiB, 65536 },
    { "raw data file", "data_file=$PWD/data,data_file_raw=on", 32 * MiB,
      65536 },
    { "preallocated", "preallocation=metadata", 32 * MiB, 65536 },
    { "snapshot", "cluster_size=64k", 32 * MiB, 65536, .snapshot = true },
    { "backing", "cluster_size=64k", 32 * MiB, 65536, false,
      "cluster_size=64k", 32 * MiB },
    { "shorter backing", "cluster_size=64k", 32 * MiB, 65536, true,
      "cluster_size=4k", 7 * MiB + 1024 },
    { "longer backing", "extended_l2=on", 7 * MiB + 512, 65536, false,
      "cluster_size=512", 8 * MiB },
};

/* ---- Images that lie ---- */

typedef struct Lie {
    const char *name;
    const char *options;            /* of create */
    /* 64 KiB at 0 were written; then the L1 entry (word -1) or a word of the
     * L2 table becomes: */
    int word;
    uint64_t clear, set;
    int expected;                   /* of reading; 0: zeroes */
} Lie;

#define NO_BITS UINT64_C(0)
#define ALL_BITS UINT64_MAX
#define COMPRESSED_AT(offset, sectors, bits)                                 \
    (UINT64_C(1) << 62 | (uint64_t)((sectors) - 1) << (62 - ((bits) - 8)) |  \
     (offset))

static const Lie lies[] = {
    { "L2 table unaligned", "cluster_size=64k", -1, NO_BITS, 0x200, -EIO },
    { "L2 table past the end", "cluster_size=64k", -1, ALL_BITS,
      QCOW2_OFLAG_COPIED | UINT64_C(0x00f0000000000000), 0 },
    { "L2 table past all ends", "cluster_size=64k", -1, ALL_BITS,
      QCOW2_OFLAG_COPIED | UINT64_C(0x00ffffffffff0000), 0 },
    { "cluster unaligned", "cluster_size=64k", 0, NO_BITS, 0x600, -EIO },
    { "cluster past the end", "cluster_size=64k", 0, ALL_BITS,
      QCOW2_OFLAG_COPIED | UINT64_C(0x00fffffffff00000), 0 },
    { "zero cluster in version 2", "compat=0.10", 0, NO_BITS, 1, -EIO },
    { "zero cluster unaligned", "cluster_size=64k", 0, NO_BITS, 0x201, -EIO },
    { "compressed past the end", "cluster_size=64k", 0, ALL_BITS,
      COMPRESSED_AT(UINT64_C(0x1000000000), 256, 16), -EIO },
    { "compressed is the header", "cluster_size=64k", 0, ALL_BITS,
      COMPRESSED_AT(0, 1, 16), -EIO },
    { "zstd is the header", "compression_type=zstd", 0, ALL_BITS,
      COMPRESSED_AT(0, 256, 16), -EIO },
    { "compressed with a data file", "data_file=$PWD/data", 0, ALL_BITS,
      COMPRESSED_AT(0, 1, 16), -EIO },
    { "data file, elsewhere", "data_file=$PWD/data", 0, QCOW2_L2_OFFSET_MASK,
      0x10000, -EIO },
    { "raw data file, elsewhere", "data_file=$PWD/data,data_file_raw=on", 0,
      QCOW2_L2_OFFSET_MASK, 0x10000, -EIO },
    { "subcluster both allocated and zero", "extended_l2=on", 1, NO_BITS,
      UINT64_C(1) << 32, -EIO },
    { "subcluster without cluster", "extended_l2=on", 0, ALL_BITS, 0, -EIO },
};

static uint64_t read_word(FILE *f, int64_t offset)
{
    uint8_t b[8];

    g_assert_cmpint(fseeko(f, offset, SEEK_SET), ==, 0);
    g_assert_cmpint(fread(b, 1, 8, f), ==, 8);
    return ldq_be_p(b);
}

static void write_word(FILE *f, int64_t offset, uint64_t v)
{
    uint8_t b[8];

    stq_be_p(b, v);
    g_assert_cmpint(fseeko(f, offset, SEEK_SET), ==, 0);
    g_assert_cmpint(fwrite(b, 1, 8, f), ==, 8);
}

static int64_t l2_table(FILE *f, int64_t *l1)
{
    *l1 = read_word(f, 40);
    return read_word(f, *l1) & QCOW2_L1_OFFSET_MASK;
}

static void tell(const Lie *lie)
{
    g_autofree char *path = path_of("image");
    FILE *f = fopen(path, "r+");
    int64_t l1, l2, at;

    g_assert_nonnull(f);
    l2 = l2_table(f, &l1);
    at = lie->word < 0 ? l1 : l2 + lie->word * 8;
    write_word(f, at, (read_word(f, at) & ~lie->clear) | lie->set);
    g_assert_cmpint(fclose(f), ==, 0);
}

static void test_lie(const void *opaque)
{
    const Lie *lie = opaque;
    g_autofree char *buf = g_malloc(65536);
    BlockBackend *blk;
    int64_t n, map;
    BlockDriverState *file;

    if (!has_stock()) {
        return;
    }
    g_free(run("rm -f image data; " IMG " create -q -f qcow2 -o %s image 16M; "
               IO " -f qcow2 -c 'write -P 1 0 64k' -c 'write -P 2 1M 64k' "
               "image", lie->options));
    tell(lie);
    blk = open_image("{}", 0);
    memset(buf, 0xaa, 65536);
    g_assert_cmpint(blk_pread(blk, 0, 65536, buf, 0), ==, lie->expected);
    for (int i = 0; lie->expected == 0 && i < 65536; i++) {
        g_assert_cmpint(buf[i], ==, 0);
    }
    g_assert_cmpint(test_request_run(env.ctx, blk, BDRV_REQ_READ, 0, 512, buf,
                                     0), ==, lie->expected);
    /* Must not crash; an error is fine. */
    (void)bdrv_block_status_above(blk_bs(blk), NULL, 0, 16 * MiB, &n, &map,
                                  &file);
    if (lie->word >= 0) {           /* the rest can be read */
        g_assert_cmpint(blk_pread(blk, 1 * MiB, 65536, buf, 0), ==, 0);
        g_assert_cmpint(buf[0], ==, 2);
    }
    blk_unref(blk);
}

static void test_lie_message(void)
{
    BlockBackend *blk;
    char buf[512];

    if (!has_stock()) {
        return;
    }
    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_passed();
        g_test_trap_assert_stderr(
            "qcow2: Image is corrupt: Cluster allocation offset 0x50600 "
            "unaligned (L2 offset: 0x40000, L2 index: 0); further non-fatal "
            "corruption events will be suppressed\n");
        return;
    }
    g_free(run("rm -f image; " IMG " create -q -f qcow2 image 16M; "
               IO " -f qcow2 -c 'write -P 1 0 64k' image"));
    tell(&(Lie){ .word = 0, .set = 0x600 });
    blk = open_image("{}", 0);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pread(blk, 512, 512, buf, 0), ==, -EIO);
    blk_unref(blk);
}

/* ---- Which way ---- */

static BlkPathStats stats_of(BlockBackend *blk)
{
    BlkPathStats st;

    blk_get_path_stats(blk, &st);
    return st;
}

/* One request; did it need a worker? */
static bool needs_worker(BlockBackend *blk, BdrvRequestType type,
                         int64_t offset, int64_t bytes, void *buf, int flags,
                         int *ret)
{
    BlkPathStats before = stats_of(blk), after;

    *ret = test_request_run(env.ctx, blk, type, offset, bytes, buf, flags);
    after = stats_of(blk);
    return after.worker != before.worker;
}

static bool read_needs_worker(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree char *buf = g_malloc(bytes);
    int ret;
    bool worker = needs_worker(blk, BDRV_REQ_READ, offset, bytes, buf, 0, &ret);

    g_assert_cmpint(ret, ==, 0);
    return worker;
}

static void test_fast_reads(void)
{
    BlockBackend *blk;

    if (!has_stock()) {
        return;
    }
    g_free(run("rm -f image; " IMG " create -q -f qcow2 image 2G; " IO
               " -f qcow2 -c 'write -P 1 0 1M' -c 'write -c 600M 64k' "
               "-c 'write -z 1M 64k' -c 'write -P 2 3M 64k' "
               "-c 'write -P 2 2M 64k' image"));
    blk = open_image("{}", 0);
    g_assert_true(read_needs_worker(blk, 4096, 4096));      /* loads tables */
    g_assert_false(read_needs_worker(blk, 4096, 4096));
    g_assert_false(read_needs_worker(blk, 512, MiB - 512));
    g_assert_false(read_needs_worker(blk, MiB + 512, 4096));    /* zero */
    g_assert_false(read_needs_worker(blk, 2 * MiB, 65536));
    g_assert_false(read_needs_worker(blk, 4 * MiB, 4096));  /* unallocated */
    g_assert_true(read_needs_worker(blk, MiB - 512, 1024)); /* two kinds */
    g_assert_false(read_needs_worker(blk, 1536 * MiB, 4096));   /* no table */
    g_assert_true(read_needs_worker(blk, 600 * MiB, 4096)); /* inflates */
    g_assert_false(read_needs_worker(blk, 600 * MiB, 65536));
    g_assert_false(read_needs_worker(blk, 600 * MiB + 512, 4096));
    blk_unref(blk);
}

static void test_fast_backing(void)
{
    BlockBackend *blk;

    if (!has_stock()) {
        return;
    }
    g_free(run("rm -f image base; " IMG " create -q -f qcow2 base 8M; " IO
               " -f qcow2 -c 'write -P 1 0 8M' base; " IMG
               " create -q -f qcow2 -b base -F qcow2 image 16M; " IO
               " -f qcow2 -c 'write -P 2 64k 64k' image"));
    blk = open_image("{}", 0);
    g_assert_true(read_needs_worker(blk, 0, 4096));
    g_assert_false(read_needs_worker(blk, 0, 4096));
    g_assert_false(read_needs_worker(blk, 65536, 4096));
    g_assert_true(read_needs_worker(blk, 8 * MiB - 512, 1024));
    blk_unref(blk);
}

static bool write_needs_worker(BlockBackend *blk, int64_t offset, int flags,
                               int *ret)
{
    char buf[4096];

    memset(buf, 0x77, sizeof(buf));
    return needs_worker(blk, BDRV_REQ_WRITE, offset, 4096, buf, flags, ret);
}

static void test_fast_writes(void)
{
    BlockBackend *blk;
    char buf[4096];
    int ret;

    if (!has_stock()) {
        return;
    }
    g_free(run("rm -f image; " IMG " create -q -f qcow2 image 16M; " IO
               " -f qcow2 -c 'write -P 1 0 1M' image; " IMG
               " snapshot -c one image; " IO
               " -f qcow2 -c 'write -P 2 128k 128k' image"));
    blk = open_image("{}", BDRV_O_RDWR);
    g_assert_cmpint(blk_pread(blk, 0, 4096, buf, 0), ==, 0);
    g_assert_false(write_needs_worker(blk, 128 * KiB, 0, &ret));
    g_assert_cmpint(ret, ==, 0);
    g_assert_cmpint(blk_pread(blk, 128 * KiB, 4096, buf, 0), ==, 0);
    g_assert_cmpint(buf[4095], ==, 0x77);
    g_assert_false(needs_worker(blk, BDRV_REQ_FLUSH, 0, 0, NULL, 0, &ret));
    g_assert_cmpint(ret, ==, 0);
    /* Shared with the snapshot, or not there: needs one. */
    g_assert_true(write_needs_worker(blk, 0, 0, &ret));
    g_assert_true(write_needs_worker(blk, 2 * MiB, 0, &ret));
    blk_unref(blk);
}

/* The file has blocks, which unaligned writes share, but not with our data. */
static void test_fast_direct(void)
{
    g_autofree char *path = path_of("image");
    json_t *o = options_from_json("{\"driver\": \"qcow2\", \"cache\": "
                                  "{\"direct\": true}, \"file\": {\"driver\": "
                                  "\"file\", \"aio\": \"native\"}}",
                                  &error_abort);
    g_autoptr(Error) err = NULL;
    BlockBackend *blk;
    char *buf;
    int ret;

    if (!has_stock()) {
        json_decref(o);
        return;
    }
    g_free(run("rm -f image; " IMG " create -q -f qcow2 image 16M; " IO
               " -f qcow2 -c 'write -P 1 0 1M' image"));
    json_object_set_new(json_object_get(o, "file"), "filename",
                        json_string(path));
    blk = blk_new_open(env.graph, NULL, NULL, o, BDRV_O_RDWR, &err);
    if (!blk) {
        g_test_skip(error_get_pretty(err));
        return;
    }
    blk_set_user_block_size(blk, 4096);
    buf = qemu_try_memalign(4096, 4096);
    memset(buf, 0x77, 4096);
    g_assert_cmpint(blk_pread(blk, 0, 4096, buf, 0), ==, 0);
    g_assert_false(needs_worker(blk, BDRV_REQ_READ, 8192, 4096, buf, 0, &ret));
    g_assert_cmpint(ret, ==, 0);
    /* The first one meets what qemu-io left in the page cache: then the kernel
     * wants a worker. */
    needs_worker(blk, BDRV_REQ_WRITE, 8192, 4096, buf, 0, &ret);
    g_assert_cmpint(ret, ==, 0);
    g_assert_false(needs_worker(blk, BDRV_REQ_WRITE, 8192, 4096, buf, 0,
                                &ret));
    g_assert_cmpint(ret, ==, 0);
    g_assert_false(needs_worker(blk, BDRV_REQ_FLUSH, 0, 0, NULL, 0, &ret));
    g_assert_cmpint(ret, ==, 0);
    qemu_vfree(buf);
    blk_unref(blk);
}

/* A data cluster that the L2 table says is the L1 table. */
static void test_write_on_metadata(void)
{
    g_autofree char *path = path_of("image");
    BlockBackend *blk;
    char buf[4096];
    int64_t l1;
    FILE *f;
    int ret;

    if (!has_stock()) {
        return;
    }
    g_free(run("rm -f image; " IMG " create -q -f qcow2 image 16M; " IO
               " -f qcow2 -c 'write -P 1 0 64k' image"));
    f = fopen(path, "r");
    l2_table(f, &l1);
    fclose(f);
    tell(&(Lie){ .word = 0, .clear = QCOW2_L2_OFFSET_MASK, .set = l1 });
    blk = open_image("{}", BDRV_O_RDWR);
    g_assert_cmpint(blk_pread(blk, 0, 4096, buf, 0), ==, 0);
    g_assert_true(write_needs_worker(blk, 0, 0, &ret));
    g_assert_cmpint(ret, <, 0);
    blk_unref(blk);
}

/* ---- Several threads ---- */

typedef struct ReaderArgs {
    BlockBackend *blk;
    const char *raw;
    int64_t size;
} ReaderArgs;

static void read_randomly(void *opaque)
{
    ReaderArgs *a = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(3);
    g_autofree char *buf = g_malloc(128 * KiB);

    for (int i = 0; i < 300; i++) {
        int64_t offset = g_rand_int(rand) % (a->size - 128 * KiB);
        int64_t bytes = g_rand_int_range(rand, 1, 128 * KiB);

        g_assert_cmpint(blk_pread(a->blk, offset, bytes, buf, 0), ==, 0);
        g_assert_true(!memcmp(buf, a->raw + offset, bytes));
    }
}

static void test_threads(void)
{
    Recipe r = { "threads", "cluster_size=4k", 32 * MiB, 4096, true };
    TestThread *t[4];
    ReaderArgs a = { .size = r.size };
    g_autofree char *raw = NULL;

    if (!has_stock()) {
        return;
    }
    make_image(&r);
    raw = load_raw(r.size);
    a.raw = raw;
    a.blk = open_image("{\"l2-cache-size\": 1024, \"l2-cache-entry-size\": "
                       "512}", 0);
    for (int i = 0; i < 4; i++) {
        t[i] = test_thread_start(read_randomly, &a);
    }
    for (int i = 0; i < 4; i++) {
        test_thread_join(t[i]);
    }
    blk_unref(a.blk);
}

/* ---- Status of a file with holes ---- */

/* Returns how many answers it took. */
static int count_answers(BlockBackend *blk, int64_t size, int64_t *data)
{
    int n = 0;

    *data = 0;
    for (int64_t at = 0, bytes; at < size; at += bytes, n++) {
        int st = bdrv_block_status(blk_bs(blk), at, size - at, &bytes, NULL,
                                   NULL);

        g_assert_cmpint(st, >=, 0);
        g_assert_cmpint(bytes, >, 0);
        *data += st & BDRV_BLOCK_ZERO ? 0 : bytes;
    }
    return n;
}

/* Of 524288 clusters, of which each 8192 lie in one hole; and with data
 * between. */
static void test_few_answers(void)
{
    const int64_t size = 32 * GiB;
    BlockBackend *blk;
    int64_t data;

    if (!has_stock()) {
        return;
    }
    g_free(run("rm -f image; " IMG " create -q -f qcow2 -o "
               "preallocation=metadata image 32G"));
    blk = open_image("{}", 0);
    g_assert_cmpint(count_answers(blk, size, &data), <, 100);
    g_assert_cmpint(data, ==, 0);
    /* Once more: it does not begin where the last answer ended. */
    g_assert_cmpint(count_answers(blk, size, &data), <, 100);
    blk_unref(blk);

    g_free(run("for i in 0 1 2 3 4 5 6 7; do echo \"write -q $((i * 3))G "
               "64k\"; done | " IO " -f qcow2 image >/dev/null"));
    blk = open_image("{}", 0);
    g_assert_cmpint(count_answers(blk, size, &data), <, 200);
    g_assert_cmpint(data, ==, 8 * 64 * KiB);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("qcow2-read-XXXXXX", NULL);
    g_assert_nonnull(dir);
    test_env_init(&env);

    for (size_t i = 0; i < ARRAY_SIZE(recipes); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2-read/as stock/%s",
                                                recipes[i].name);

        g_test_add_data_func(path, &recipes[i], test_image);
    }
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2-read/lie/%s",
                                                lies[i].name);

        g_test_add_data_func(path, &lies[i], test_lie);
    }
    g_test_add_func("/qcow2-read/lie/is reported once", test_lie_message);
    g_test_add_func("/qcow2-read/path/reads of cached tables are fast",
                    test_fast_reads);
    g_test_add_func("/qcow2-read/path/so are those of a backing file",
                    test_fast_backing);
    g_test_add_func("/qcow2-read/path/and writes in place", test_fast_writes);
    g_test_add_func("/qcow2-read/path/and past the page cache",
                    test_fast_direct);
    g_test_add_func("/qcow2-read/path/but not on metadata",
                    test_write_on_metadata);
    g_test_add_func("/qcow2-read/threads/read the same", test_threads);
    g_test_add_func("/qcow2-read/status/few answers about holes",
                    test_few_answers);
    ret = g_test_run();
    test_env_destroy(&env);
    g_free(run("rm -rf %s", dir));
    g_free(dir);
    return ret;
}
