/*
 * Tests of the io_uring engine.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "engine-tests.h"

static const EngineTest uring_test = {
    .name = "io_uring",
    .available = uring_available,
    .get_stats = uring_get_stats,
};

/* A context that another thread runs from now on. */
static void *second_owner(void *opaque)
{
    FakeRequest *fr = opaque;
    AioContext *ctx = fr->req.ctx;
    char *buf = fake_buf(4096, 0);

    aio_context_enter(ctx);
    g_assert_cmpint(fake_run(fr->req.bs, ctx, fr, BDRV_REQ_READ, 0, 0, buf,
                             4096), ==, 0);
    g_assert_false(fr->was_worker);
    g_assert_true(fake_is_filled(buf, 0x5a, 4096));
    aio_context_leave(ctx);
    free(buf);
    return NULL;
}

static void test_context_changes_hands(void)
{
    BlockDriverState *bs = engine_open(&uring_test, "hands", 65536);
    QemuThread thread;
    AioContext *ctx;
    FakeRequest fr;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf(4096, 0);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 0, buf, 4096), ==,
                    0);
    aio_context_leave(ctx);
    g_assert_cmpint(qemu_thread_create(&thread, "second", second_owner, &fr),
                    ==, 0);
    qemu_thread_join(&thread);
    aio_context_unref(ctx);
    fake_close(bs);
    free(buf);
}

static void test_discard_and_zeroes(void)
{
    BlockDriverState *bs = engine_open(&uring_test, "zeroes", 1 * MiB);
    FileEngineStats stats;
    AioContext *ctx;
    FakeRequest fr;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf(128 * KiB, 1);
    fr.qiov = (QEMUIOVector){ .size = 64 * KiB };
    fake_submit_qiov(bs, ctx, &fr, BDRV_REQ_DISCARD, 0, 0);
    g_assert_cmpint(fake_wait(&fr), ==, 0);
    fr.qiov = (QEMUIOVector){ .size = 64 * KiB };
    fake_submit_qiov(bs, ctx, &fr, BDRV_REQ_WRITE_ZEROES, 0, 64 * KiB);
    g_assert_cmpint(fake_wait(&fr), ==, 0);
    uring_get_stats(ctx, &stats);
    g_assert_cmpint(stats.requests, ==, 2);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 0, buf,
                             128 * KiB), ==, 0);
    g_assert_true(fake_is_filled(buf, 0, 128 * KiB));
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

/* ---- An io_uring_enter() that misbehaves ---- */

static int enter_errors[4];
static int enter_left;

static int scripted_enter(struct io_uring *ring)
{
    return enter_left > 0 ? enter_errors[--enter_left]
                          : file_posix_system_ops.uring_enter(ring);
}

/* Two rounds of reads, of which workers do so many; the first enter fails. */
static void run_with_error(const char *name, int err, int workers_first,
                           int workers_later)
{
    enum { N = 8 };
    BlockDriverState *bs = engine_open(&uring_test, name, 65536);
    FilePosixOps ops = file_posix_system_ops;
    FakeRequest frs[N];
    AioContext *ctx;
    char *buf;

    if (!bs) {
        return;
    }
    ops.uring_enter = scripted_enter;
    file_posix_ops = &ops;
    enter_errors[0] = err;
    enter_left = 1;
    ctx = engine_enter();
    buf = fake_buf(N * 4096, 0);
    for (int round = 0; round < 2; round++) {
        int workers = 0;

        memset(buf, 0, N * 4096);
        for (int i = 0; i < N; i++) {
            fake_submit(bs, ctx, &frs[i], BDRV_REQ_READ, 0, i * 4096,
                        buf + i * 4096, 4096);
        }
        for (int i = 0; i < N; i++) {
            g_assert_cmpint(fake_wait(&frs[i]), ==, 0);
            workers += frs[i].was_worker;
        }
        g_assert_true(fake_is_filled(buf, 0x5a, N * 4096));
        g_assert_cmpint(workers, ==, round ? workers_later : workers_first);
    }
    g_assert_cmpint(enter_left, ==, 0);
    file_posix_ops = &file_posix_system_ops;
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

static void test_enter_interrupted(void)
{
    run_with_error("eintr", -EINTR, 0, 0);
}

static void test_enter_without_memory(void)
{
    run_with_error("eagain", -EAGAIN, 8, 0);
    run_with_error("ebusy", -EBUSY, 8, 0);
}

static void test_enter_refused(void)
{
    run_with_error("eperm", -EPERM, 8, 8);
}

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
    engine_add_tests(&uring_test);
    g_test_add_func("/io_uring/context/changes-hands",
                    test_context_changes_hands);
    g_test_add_func("/io_uring/zero/discard-and-write-zeroes",
                    test_discard_and_zeroes);
    g_test_add_func("/io_uring/enter/interrupted", test_enter_interrupted);
    g_test_add_func("/io_uring/enter/short-of-memory",
                    test_enter_without_memory);
    g_test_add_func("/io_uring/enter/refused-for-good", test_enter_refused);
    return fake_finish();
}
