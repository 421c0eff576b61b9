/*
 * Tests of the file driver: requests, and faults of the system.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "file-faults.h"

/* ---- Reads and writes ---- */

static void test_read_goes_on(void)
{
    static const Fault faults[] = {
        { .err = EINTR }, { .at_most = 100 }, { .err = EINTR },
        { .at_most = 1 },
    };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "goes-on", 4096);
    char buf[4096] = "";

    faults_begin(faults, ARRAY_SIZE(faults));
    g_assert_cmpint(fake_pread(bs, 0, buf, sizeof(buf)), ==, 0);
    g_assert_cmpint(fault_calls, ==, 5);
    faults_end();
    g_assert_true(fake_is_filled(buf, 0x5a, sizeof(buf)));
    fake_close(bs);
}

static void test_write_goes_on(void)
{
    static const Fault faults[] = {
        { .at_most = 7 }, { .err = EINTR }, { .at_most = 600 },
    };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "goes-on", 4096);
    g_autofree char *buf = g_malloc(4096), *back = g_malloc(4096);

    for (int i = 0; i < 4096; i++) {
        buf[i] = i * 7;
    }
    faults_begin(faults, ARRAY_SIZE(faults));
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 4096, 0), ==, 0);
    faults_end();
    g_assert_cmpint(fake_pread(bs, 0, back, 4096), ==, 0);
    g_assert_cmpmem(buf, 4096, back, 4096);
    fake_close(bs);
}

static void test_errors_come_through(void)
{
    static const int errors[] = { EIO, ENOSPC, EDQUOT, EFBIG };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "errors", 4096);
    char buf[512] = "";

    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        /* Half of it is written before it fails: no success. */
        const Fault faults[] = { { .at_most = 256 }, { .err = errors[i] } };

        faults_begin(faults, ARRAY_SIZE(faults));
        g_assert_cmpint(fake_pwrite(bs, 0, buf, sizeof(buf), 0), ==,
                        -errors[i]);
        faults_end();
        faults_begin(faults, ARRAY_SIZE(faults));
        g_assert_cmpint(fake_pread(bs, 0, buf, sizeof(buf)), ==, -errors[i]);
        faults_end();
    }
    fake_close(bs);
}

/* A vector of more entries than one call takes. */
static void test_long_vector(void)
{
    int n = IOV_MAX + 200;
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "long", 4 * n);
    g_autofree char *buf = g_malloc0(4 * n);
    QEMUIOVector qiov;

    qemu_iovec_init(&qiov, n);
    for (int i = 0; i < n; i++) {
        qemu_iovec_add(&qiov, buf + 4 * i, 4);
    }
    g_assert_cmpint(bs->drv->preadv(bs, 0, 4 * n, &qiov, 0, 0), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 4 * n));
    qemu_iovec_destroy(&qiov);
    fake_close(bs);
}

static void test_partial_sector_reads_as_zero(void)
{
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "tail", 700);
    char buf[1024];

    memset(buf, 1, sizeof(buf));
    g_assert_cmpint(fake_pread(bs, 0, buf, 1024), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 700));
    g_assert_true(fake_is_filled(buf + 700, 0, 324));
    fake_close(bs);
}

/* A read that ends where the file ended then; by now it is longer. */
static void test_grown_file(void)
{
    static const Fault faults[] = { { .at_most = 700 }, { .at_most = 0 } };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "grown", 4096);
    char buf[4096] = "";

    faults_begin(faults, ARRAY_SIZE(faults));
    g_assert_cmpint(fake_pread(bs, 0, buf, sizeof(buf)), ==, 0);
    g_assert_cmpint(fault_calls, ==, 3);
    faults_end();
    g_assert_true(fake_is_filled(buf, 0x5a, sizeof(buf)));
    fake_close(bs);
}

static void test_shrunk_file_fails(void)
{
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "shrink", 64 * KiB);
    g_autofree char *buf = g_malloc(64 * KiB);

    g_assert_cmpint(truncate(bs->filename, 4096), ==, 0);
    g_assert_cmpint(fake_pread(bs, 0, buf, 4096), ==, 0);
    g_assert_cmpint(fake_pread(bs, 0, buf, 4608), ==, -EIO);
    g_assert_cmpint(fake_pread(bs, 32 * KiB, buf, 512), ==, -EIO);
    fake_close(bs);
}

static void test_direct_bounce(void)
{
    g_autofree char *path = NULL, *back = NULL;
    char *buf, *mem;
    BlockDriverState *bs;
    int64_t size = 3 * MiB;

    if (fake_skip_without_direct(fake_dir_on_disk())) {
        return;
    }
    path = fake_file(fake_dir_on_disk(), "bounce", size);
    bs = fake_open(path, NULL, BDRV_O_RDWR | BDRV_O_NOCACHE, &error_abort);
    g_assert_cmpint(bs->bl.request_alignment, >=, 1);
    mem = fake_buf(size + 4096, 0);
    buf = mem + 1;
    g_assert_cmpint(fake_pread(bs, 0, buf, size), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, size));
    for (int64_t i = 0; i < size; i++) {
        buf[i] = i * 13 >> 4;
    }
    g_assert_cmpint(fake_pwrite(bs, 0, buf, size, 0), ==, 0);
    g_assert_true(g_file_get_contents(path, &back, NULL, NULL));
    g_assert_cmpmem(back, size, buf, size);
    free(mem);
    fake_close(bs);
}

static void test_direct_tail(void)
{
    g_autofree char *path = NULL;
    BlockDriverState *bs;
    char *buf;

    if (fake_skip_without_direct(fake_dir_on_disk())) {
        return;
    }
    path = fake_file(fake_dir_on_disk(), "direct-tail", 4096 + 700);
    bs = fake_open(path, NULL, BDRV_O_NOCACHE, &error_abort);
    buf = fake_buf(8192, 1);
    g_assert_cmpint(fake_pread(bs, 0, buf, 4096 + 1024), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 4096 + 700));
    g_assert_true(fake_is_filled(buf + 4096 + 700, 0, 324));

    g_assert_cmpint(truncate(path, 512), ==, 0);
    g_assert_cmpint(fake_pread(bs, 0, buf, 4096), ==, -EIO);
    free(buf);
    fake_close(bs);
}

/* ---- The fast path ---- */

static AioContext *enter_context(void)
{
    AioContext *ctx = aio_context_new(&error_abort);

    aio_context_enter(ctx);
    return ctx;
}

static void leave_context(AioContext *ctx)
{
    aio_context_leave(ctx);
    aio_context_unref(ctx);
}

static void test_cached_read_is_inline(void)
{
    AioContext *ctx = enter_context();
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "cached", 64 * KiB);
    g_autofree char *buf = g_malloc0(64 * KiB);
    FakeRequest fr;

    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 4096, buf,
                             32 * KiB), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 32 * KiB));
    if (file_lacks(fake_state(bs), FILE_NO_NOWAIT_READ)) {
        g_assert_true(fr.was_worker);
    } else {
        g_assert_true(fr.was_inline);
        g_assert_false(fr.was_worker);
    }
    /* Past the end of data: a worker finds out what that means. */
    g_assert_cmpint(truncate(bs->filename, 8192), ==, 0);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 4096, buf,
                             32 * KiB), ==, -EIO);
    g_assert_true(fr.was_worker);
    fake_close(bs);
    leave_context(ctx);
}

static void test_memory_is_inline(void)
{
    AioContext *ctx;
    BlockDriverState *bs;
    char buf[4096] = "", back[4096] = "";
    FakeRequest fr;

    if (!fake_dir_in_memory()) {
        g_test_skip("no tmpfs at /dev/shm");
        return;
    }
    ctx = enter_context();
    bs = open_rw(fake_dir_in_memory(), "inline", 64 * KiB);
    memset(buf, 0x11, sizeof(buf));
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_WRITE, 0, 4096, buf,
                             sizeof(buf)), ==, 0);
    g_assert_true(fr.was_inline);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 4096, back,
                             sizeof(back)), ==, 0);
    g_assert_true(fr.was_inline);
    g_assert_cmpmem(buf, sizeof(buf), back, sizeof(back));
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_FLUSH, 0, 0, NULL, 0),
                    ==, 0);
    g_assert_true(fr.was_inline);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_WRITE, BDRV_REQ_FUA, 0,
                             buf, sizeof(buf)), ==, 0);
    g_assert_true(fr.was_inline);
    /* May take long: not in the loop's thread. */
    fake_submit(bs, ctx, &fr, BDRV_REQ_DISCARD, 0, 0, NULL, 4096);
    g_assert_cmpint(fake_wait(&fr), ==, 0);
    g_assert_true(fr.was_worker);
    fake_close(bs);
    leave_context(ctx);
}

static void test_part_of_vector(void)
{
    AioContext *ctx = enter_context();
    const char *dir = fake_dir_in_memory() ?: fake_dir_on_disk();
    BlockDriverState *bs = open_rw(dir, "part", 64 * KiB);
    char buf[3][1024];
    FakeRequest fr;

    for (size_t offset = 0; offset < 2048; offset += 512) {
        memset(buf, 0, sizeof(buf));
        qemu_iovec_init(&fr.qiov, 3);
        for (int i = 0; i < 3; i++) {
            qemu_iovec_add(&fr.qiov, buf[i], sizeof(buf[i]));
        }
        fr.req = (BdrvTrackedRequest){
            .type = BDRV_REQ_READ, .bytes = 1024, .qiov = &fr.qiov,
            .qiov_offset = offset, .ctx = ctx, .bs = bs,
        };
        {
            const struct iovec *iov;
            struct iovec one;
            int n = file_request_iov(&fr.req, &iov, &one);

            /* In one entry, or a worker's. */
            g_assert_cmpint(n, ==, offset % 1024 == 0 ? 1 : 0);
            if (n) {
                g_assert_true(iov->iov_base == (char *)buf + offset);
                g_assert_cmpint(iov->iov_len, ==, 1024);
            }
        }
        g_assert_cmpint(bs->drv->preadv(bs, 0, 1024, &fr.qiov, offset, 0), ==,
                        0);
        g_assert_true(fake_is_filled((char *)buf + offset, 0x5a, 1024));
        g_assert_true(fake_is_filled(buf, 0, offset));
        qemu_iovec_destroy(&fr.qiov);
    }
    fake_close(bs);
    leave_context(ctx);
}

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
    g_test_add_func("/file/read/goes-on-after-eintr-and-short",
                    test_read_goes_on);
    g_test_add_func("/file/write/goes-on-after-eintr-and-short",
                    test_write_goes_on);
    g_test_add_func("/file/rw/errors-come-through", test_errors_come_through);
    g_test_add_func("/file/read/vector-beyond-iov-max", test_long_vector);
    g_test_add_func("/file/read/partial-sector-is-zero-filled",
                    test_partial_sector_reads_as_zero);
    g_test_add_func("/file/read/grown-meanwhile-is-read-again",
                    test_grown_file);
    g_test_add_func("/file/read/shrunk-file-is-an-error",
                    test_shrunk_file_fails);
    g_test_add_func("/file/direct/bounces-misaligned-memory",
                    test_direct_bounce);
    g_test_add_func("/file/direct/tail-and-shrunk-file", test_direct_tail);
    g_test_add_func("/file/submit/cached-read-is-inline",
                    test_cached_read_is_inline);
    g_test_add_func("/file/submit/tmpfs-is-inline", test_memory_is_inline);
    g_test_add_func("/file/submit/part-of-a-vector", test_part_of_vector);
    return fake_finish();
}
