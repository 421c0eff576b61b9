/*
 * Blocking requests on a node: any alignment, length and vector against a
 * model; limits (which the test driver checks itself), the end of the disk,
 * flushes and FUA in each cache mode, and errors at every call.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "test-driver.h"

/* ---- Against a model ---- */

#define SIZE (64 * KiB)

typedef struct Model {
    BlockBackend *blk;
    TestDisk *disk;
    GRand *rand;
    uint8_t data[SIZE];
    int unit;                   /* offsets and lengths are multiples of it */
} Model;

/* The range, cut into a random number of buffers of a linear one. */
static void random_vector(Model *m, QEMUIOVector *qiov, uint8_t *buf,
                          int64_t bytes)
{
    int64_t done = 0;

    qemu_iovec_init(qiov, 4);
    while (done < bytes) {
        int64_t n = g_rand_int_range(m->rand, 1, bytes - done + 1);

        n = g_rand_boolean(m->rand) ? n : MIN(n, 600);
        qemu_iovec_add(qiov, buf + done, n);
        done += n;
    }
}

static void random_request(Model *m)
{
    int64_t offset = g_rand_int_range(m->rand, 0, SIZE / m->unit) * m->unit;
    int64_t bytes = g_rand_int_range(m->rand, 1, (SIZE - offset) / m->unit + 1)
                    * m->unit;
    g_autofree uint8_t *buf = g_malloc(bytes);
    int kind = g_rand_int_range(m->rand, 0, 8);
    QEMUIOVector qiov;
    int64_t i;

    bytes = g_rand_boolean(m->rand) ? MIN(bytes, 10 * m->unit) : bytes;
    random_vector(m, &qiov, buf, bytes);
    if (kind < 3) {
        for (i = 0; i < bytes; i++) {
            buf[i] = g_rand_int(m->rand);
        }
        g_assert_cmpint(blk_pwritev(m->blk, offset, bytes, &qiov, 0,
                                    kind ? 0 : BDRV_REQ_FUA), ==, 0);
        memcpy(m->data + offset, buf, bytes);
    } else if (kind < 5) {
        g_assert_cmpint(blk_pwrite_zeroes(m->blk, offset, bytes,
                                          kind == 3 ? BDRV_REQ_MAY_UNMAP :
                                          BDRV_REQ_FUA), ==, 0);
        memset(m->data + offset, 0, bytes);
    } else {
        memset(buf, 0x5a, bytes);
        g_assert_cmpint(blk_preadv(m->blk, offset, bytes, &qiov, 0, 0), ==, 0);
        g_assert_cmpmem(buf, bytes, m->data + offset, bytes);
    }
    qemu_iovec_destroy(&qiov);
}

static void against_model(const char *options, int unit, BlockLimits limits,
                          bool can_zero)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    g_autofree Model *m = g_new0(Model, 1);
    int i;

    test_env_init(&e);
    d->limits = limits;
    d->can_zero = can_zero;
    m->unit = unit;
    m->disk = d;
    m->rand = g_rand_new_with_seed(unit + limits.max_transfer);
    m->blk = test_open(e.graph, "%s", options);
    for (i = 0; i < 300; i++) {
        random_request(m);
    }
    g_assert_cmpmem(d->data, SIZE, m->data, SIZE);
    g_rand_free(m->rand);
    blk_unref(m->blk);
}

#define PLAIN "{'driver':'test','disk':'d'}"
#define FUA   "{'driver':'test-fua','discard':'unmap','disk':'d'}"
#define UNDER "{'driver':'test-filter','detect-zeroes':'on'," \
              "'file':{'driver':'test','disk':'d'}}"

static void test_model_bytes(void)
{
    against_model(PLAIN, 1, (BlockLimits){ .request_alignment = 1 }, true);
    against_model(PLAIN, 1, (BlockLimits){ .request_alignment = 1,
                  .max_transfer = 1000, .max_iov = 3 }, false);
}

static void test_model_512_on_4k(void)
{
    against_model(PLAIN, 512, (BlockLimits){ .request_alignment = 4096 }, true);
    against_model(FUA, 512, (BlockLimits){ .request_alignment = 4096 }, false);
    against_model(UNDER, 512, (BlockLimits){ .request_alignment = 4096 },
                  true);
}

static void test_model_odd_on_512(void)
{
    against_model(PLAIN, 7, (BlockLimits){ .request_alignment = 512 }, true);
    against_model(FUA, 7, (BlockLimits){ .request_alignment = 512 }, true);
    against_model(UNDER, 7, (BlockLimits){ .request_alignment = 512 }, false);
}

static void test_model_limits(void)
{
    against_model(PLAIN, 512, (BlockLimits){ .request_alignment = 512,
                  .max_transfer = 4096, .max_pwrite_zeroes = 8192,
                  .pwrite_zeroes_alignment = 1024, .max_iov = 2 }, true);
    /* Limits that are no multiples of anything. */
    against_model(PLAIN, 512, (BlockLimits){ .request_alignment = 1024,
                  .max_transfer = 5000, .max_pwrite_zeroes = 7000,
                  .pwrite_zeroes_alignment = 3072, .max_iov = 1 }, true);
    against_model(FUA, 64, (BlockLimits){ .request_alignment = 512,
                  .max_transfer = 1536, .max_pwrite_zeroes = 1000,
                  .max_iov = 1 }, false);
}

/* ---- The end ---- */

static void test_range(void)
{
    static const struct {
        int64_t offset, bytes;
        int ret;
    } cases[] = {
        { 0, SIZE, 0 }, { SIZE, 0, 0 }, { SIZE - 1, 1, 0 },
        { SIZE, 1, -EIO }, { SIZE - 1, 2, -EIO }, { SIZE + 1, 0, -EIO },
        { -1, 1, -EIO }, { 0, -1, -EIO }, { INT64_MAX, 1, -EIO },
        { 512, INT64_MAX, -EIO }, { INT64_MIN, 512, -EIO },
        { INT64_MAX - 511, 512, -EIO },
    };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", SIZE);
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_test_message("case %zu", i);
        g_assert_cmpint(blk_pwrite_zeroes(blk, cases[i].offset, cases[i].bytes,
                                          0), ==, cases[i].ret);
        g_assert_cmpint(blk_pdiscard(blk, cases[i].offset, cases[i].bytes), ==,
                        cases[i].ret);
    }
    blk_unref(blk);
}

/* With a user who may go past the end: nothing there overflows. */
static void test_beyond_end(void)
{
    static const int64_t offsets[] = { SIZE, SIZE + 100, INT64_MAX - 1024,
                                       INT64_MAX - 512 };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    uint8_t buf[512];
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    blk_set_allow_write_beyond_eof(blk, true);
    for (i = 0; i < ARRAY_SIZE(offsets); i++) {
        bool absurd = offsets[i] > INT64_MAX / 2;

        memset(buf, 1, sizeof(buf));
        g_assert_cmpint(blk_pread(blk, offsets[i], 512, buf, 0), ==,
                        absurd ? -EIO : 0);
        g_assert_cmpint(buf[0], ==, absurd);
        g_assert_cmpint(blk_pwrite(blk, offsets[i], 512, buf, 0), ==,
                        absurd ? -EIO : -ENOSPC);
        g_assert_cmpint(blk_pwrite_zeroes(blk, offsets[i], 512, 0), ==,
                        absurd ? -EIO : -ENOSPC);
        g_assert_cmpint(blk_pdiscard(blk, offsets[i], 512), ==,
                        absurd ? -EIO : 0);
    }
    blk_unref(blk);
}

static void test_grows(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    uint8_t buf[1024] = { 1 };
    BlockBackend *blk;

    test_env_init(&e);
    d->growable = true;
    blk = test_open(e.graph, "{'driver':'test-filter',"
                    "'file':{'driver':'test','disk':'d'}}");
    blk_set_allow_write_beyond_eof(blk, true);
    g_assert_cmpint(blk_pwrite(blk, SIZE - 512, 1024, buf, 0), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, SIZE + 512);
    g_assert_cmpint(blk_pwrite_zeroes(blk, SIZE + 1024, 100, 0), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, SIZE + 1536);
    blk_unref(blk);
}

/* Lengths are whole sectors; what a last one lacks reads as zeroes. */
static void test_odd_length(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 1000);
    uint8_t buf[1024];
    BlockBackend *blk;

    test_env_init(&e);
    memset(d->data, 1, 1000);
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    g_assert_cmpint(blk_getlength(blk), ==, 1024);
    memset(buf, 2, sizeof(buf));
    g_assert_cmpint(blk_pread(blk, 0, 1024, buf, 0), ==, 0);
    g_assert_cmpint(buf[999], ==, 1);
    g_assert_cmpint(buf[1000], ==, 0);
    g_assert_cmpint(buf[1023], ==, 0);
    blk_unref(blk);
}

/* ---- Who may write ---- */

static void test_read_only(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", SIZE);
    BlockBackend *blk, *reader;
    uint8_t buf[512] = { 0 };

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test','disk':'d','read-only':true}");
    g_assert_false(blk_is_writable(blk));
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, -EPERM);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 512, 0), ==, -EPERM);
    g_assert_cmpint(blk_pdiscard(blk, 0, 512), ==, -EPERM);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);

    /* The node may be written, but not by this user. */
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    reader = blk_new(e.graph, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    blk_insert_bs(reader, blk_bs(blk), &error_abort);
    g_assert_false(blk_is_writable(reader));
    g_assert_cmpint(blk_pwrite(reader, 0, 512, buf, 0), ==, -EPERM);
    g_assert_cmpint(test_request_run(e.ctx, reader, BDRV_REQ_WRITE, 0, 512,
                                     buf, 0), ==, -EPERM);
    g_assert_cmpint(blk_pread(reader, 0, 512, buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);
    blk_unref(reader);
    blk_unref(blk);
}

static void test_no_medium(void)
{
    g_auto(TestEnv) e = { 0 };
    uint8_t buf[512] = { 0 };
    BlockBackend *blk;

    test_env_init(&e);
    blk = blk_new(e.graph, BLK_PERM_ALL, BLK_PERM_ALL);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, -ENOMEDIUM);
    g_assert_cmpint(blk_flush(blk), ==, -ENOMEDIUM);
    g_assert_cmpint(blk_getlength(blk), ==, -ENOMEDIUM);
    g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_FLUSH, 0, 0, NULL,
                                     0), ==, -ENOMEDIUM);
    blk_unref(blk);
}

/* ---- Flush and FUA ---- */

typedef int WriteFn(TestEnv *e, BlockBackend *blk, int flags);

static int write_data(TestEnv *e, BlockBackend *blk, int flags)
{
    uint8_t buf[512] = { 1 };

    return blk_pwrite(blk, 512, 512, buf, flags);
}

static int write_data_async(TestEnv *e, BlockBackend *blk, int flags)
{
    uint8_t buf[512] = { 1 };

    return test_request_run(e->ctx, blk, BDRV_REQ_WRITE, 512, 512, buf, flags);
}

static int write_zeroes(TestEnv *e, BlockBackend *blk, int flags)
{
    return blk_pwrite_zeroes(blk, 512, 512, flags);
}

static int write_zeroes_async(TestEnv *e, BlockBackend *blk, int flags)
{
    return test_request_run(e->ctx, blk, BDRV_REQ_WRITE_ZEROES, 512, 512, NULL,
                            flags);
}

static WriteFn *const writes[] = { write_data, write_data_async, write_zeroes,
                                   write_zeroes_async };

/* Is a write stable when it completes: by FUA, or by a flush after it? */
static bool is_stable(TestEnv *e, TestDisk *d, BlockBackend *blk, WriteFn *fn,
                      int flags)
{
    int written, flushes;

    test_disk_clear_log(d);
    g_assert_cmpint(fn(e, blk, flags), ==, 0);
    flushes = test_disk_count(d, TEST_FLUSH);
    written = test_disk_count(d, TEST_WRITE) + test_disk_count(d, TEST_ZEROES);
    g_assert_cmpint(written, ==, 1);
    if (test_disk_count(d, TEST_WRITE) &&
        (test_disk_call(d, TEST_WRITE, 0).flags & BDRV_REQ_FUA)) {
        g_assert_cmpint(flushes, ==, 0);        /* once is enough */
        return true;
    }
    if (test_disk_count(d, TEST_ZEROES) &&
        (test_disk_call(d, TEST_ZEROES, 0).flags & BDRV_REQ_FUA)) {
        g_assert_cmpint(flushes, ==, 0);
        return true;
    }
    g_assert_cmpint(flushes, <=, 1);
    return flushes;
}

#define SHIFTED "{'driver':'test-format','offset':512," \
                "'file':{'driver':'test-aio','disk':'d'}}"

static void check_fua(const char *options, int align, bool can_zero)
{
    g_auto(TestEnv) e = { 0 };
    /* The format's data begin at 512, and are whole blocks. */
    bool shifted = strstr(options, "'offset':512");
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE + (shifted ? 512 : 0));
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    d->limits.request_alignment = align;
    d->can_zero = can_zero;
    for (i = 0; i < ARRAY_SIZE(writes); i++) {
        g_test_message("%s, alignment %d, write %zu", options, align, i);
        blk = test_open(e.graph, "%s", options);
        g_assert_false(is_stable(&e, d, blk, writes[i], 0));
        g_assert_true(is_stable(&e, d, blk, writes[i], BDRV_REQ_FUA));
        blk_set_enable_write_cache(blk, false);
        g_assert_true(is_stable(&e, d, blk, writes[i], 0));
        blk_set_enable_write_cache(blk, true);
        g_assert_false(is_stable(&e, d, blk, writes[i], 0));
        blk_unref(blk);
    }
}

static void test_fua(void)
{
    static const char *const drivers[] = {
        "{'driver':'test','disk':'d'}",
        "{'driver':'test-fua','disk':'d'}",
        "{'driver':'test-aio','disk':'d'}",
        "{'driver':'test-filter','file':{'driver':'test','disk':'d'}}",
        "{'driver':'test-filter','file':{'driver':'test-fua','disk':'d'}}",
        "{'driver':'test-filter','file':{'driver':'test-aio','disk':'d'}}",
        SHIFTED,
    };
    size_t i;

    for (i = 0; i < ARRAY_SIZE(drivers); i++) {
        check_fua(drivers[i], 512, true);
        check_fua(drivers[i], 512, false);
        check_fua(drivers[i], 4096, true);
    }
}

/* cache=unsafe: nothing is flushed, however it is asked for. */
static void test_no_flush(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-filter',"
                    "'cache':{'no-flush':true},"
                    "'file':{'driver':'test-aio','disk':'d'}}");
    blk_set_enable_write_cache(blk, false);
    for (i = 0; i < ARRAY_SIZE(writes); i++) {
        g_assert_false(is_stable(&e, d, blk, writes[i], BDRV_REQ_FUA));
    }
    test_disk_clear_log(d);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_FLUSH, 0, 0, NULL,
                                     0), ==, 0);
    g_assert_cmpint(test_disk_count(d, TEST_FLUSH), ==, 0);
    blk_unref(blk);
    g_assert_cmpint(test_disk_count(d, TEST_FLUSH), ==, 0);
}

/* A flush that fails is told to everybody who asks for what it was to do. */
static void test_flush_fails(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-filter',"
                    "'file':{'driver':'test','disk':'d'}}");
    test_disk_fail_all(d, 1u << TEST_FLUSH, EIO);
    g_assert_cmpint(blk_flush(blk), ==, -EIO);
    g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_FLUSH, 0, 0, NULL,
                                     0), ==, -EIO);
    for (i = 0; i < ARRAY_SIZE(writes); i++) {
        g_assert_cmpint(writes[i](&e, blk, 0), ==, 0);
        g_assert_cmpint(writes[i](&e, blk, BDRV_REQ_FUA), ==, -EIO);
    }
    blk_set_enable_write_cache(blk, false);
    for (i = 0; i < ARRAY_SIZE(writes); i++) {
        g_assert_cmpint(writes[i](&e, blk, 0), ==, -EIO);
    }
    test_disk_fail(d, 0, 0, 0);
    blk_unref(blk);
}

/* ---- Errors ---- */

typedef int RequestFn(BlockBackend *blk, void *buf);

static int unaligned_read(BlockBackend *blk, void *buf)
{
    return blk_pread(blk, 100, 20000, buf, 0);
}

static int unaligned_write(BlockBackend *blk, void *buf)
{
    return blk_pwrite(blk, 100, 20000, buf, BDRV_REQ_FUA);
}

static int unaligned_zeroes(BlockBackend *blk, void *buf)
{
    return blk_pwrite_zeroes(blk, 100, 20000, BDRV_REQ_FUA);
}

static int unaligned_discard(BlockBackend *blk, void *buf)
{
    return blk_pdiscard(blk, 100, 20000);
}

static void test_nth_call_fails(void)
{
    static RequestFn *const fns[] = { unaligned_read, unaligned_write,
                                      unaligned_zeroes, unaligned_discard };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    g_autofree uint8_t *buf = g_malloc0(SIZE);
    BlockBackend *blk;
    size_t i;
    int n;

    test_env_init(&e);
    d->limits = (BlockLimits){ .request_alignment = 512, .max_transfer = 4096,
                               .max_pdiscard = 4096,
                               .max_pwrite_zeroes = 4096 };
    blk = test_open(e.graph, "{'driver':'test-filter','discard':'unmap',"
                    "'file':{'driver':'test','disk':'d'}}");
    for (i = 0; i < ARRAY_SIZE(fns); i++) {
        for (n = 1; ; n++) {
            int ret;

            test_disk_fail(d, TEST_IO, n, ENOSPC);
            ret = fns[i](blk, buf);
            if (!test_disk_failed(d)) {
                g_assert_cmpint(ret, ==, 0);
                break;
            }
            g_assert_cmpint(ret, ==, -ENOSPC);
        }
        g_assert_cmpint(n, >, 4);
    }
    test_disk_fail(d, 0, 0, 0);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/io/" name, fn)
    T("any-bytes", test_model_bytes);
    T("512-byte-blocks-on-4k", test_model_512_on_4k);
    T("odd-bytes-on-512", test_model_odd_on_512);
    T("within-limits", test_model_limits);
    T("range-is-checked", test_range);
    T("beyond-the-end", test_beyond_end);
    T("writes-may-grow-it", test_grows);
    T("length-is-whole-sectors", test_odd_length);
    T("read-only", test_read_only);
    T("no-medium", test_no_medium);
    T("fua-is-stable", test_fua);
    T("no-flush-drops-flushes", test_no_flush);
    T("failed-flush-fails-who-asked", test_flush_fails);
    T("nth-call-fails", test_nth_call_fails);
    return g_test_run();
}
