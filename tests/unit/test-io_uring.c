/*
 * Tests of the io_uring engine.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/block-backend.h"
#include "engine-tests.h"

static const EngineTest uring_test = {
    .name = "io_uring",
    .available = uring_available,
    .get_stats = uring_get_stats,
};

static void test_files_are_registered(void)
{
    BlockDriverState *bs = engine_open(&uring_test, "registered", 65536);
    AioContext *ctx;
    FakeRequest fr;
    FileEngineStats stats;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf(4096, 0);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 0, buf, 4096),
                        ==, 0);
    }
    uring_get_stats(ctx, &stats);
    g_assert_cmpint(stats.fixed_file, ==, 3);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

/* Does this process still have @path open, somewhere? */
static bool is_write_leased(const char *path)
{
    /* A lease is given only for a file that nobody else has open. */
    int fd = open(path, O_RDWR | O_CLOEXEC);
    bool alone = fcntl(fd, F_SETLEASE, F_WRLCK) == 0;

    close(fd);
    return alone;
}

static void test_closed_file_is_let_go(void)
{
    BlockDriverState *bs = engine_open(&uring_test, "let-go", 65536);
    g_autofree char *path = NULL;
    AioContext *ctx;
    FakeRequest fr;
    char *buf;

    if (!bs) {
        return;
    }
    path = g_strdup(bs->filename);
    ctx = engine_enter();
    buf = fake_buf(4096, 0);
    for (int round = 0; round < 200; round++) {
        /* More files one after the other than the ring has slots for. */
        FileEngineStats stats;

        g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 0, buf, 4096),
                        ==, 0);
        fake_close(bs);
        uring_get_stats(ctx, &stats);
        g_assert_cmpint(stats.fixed_file, ==, round + 1);
        bs = fake_open(path, "{'aio':'io_uring'}",
                       BDRV_O_RDWR | BDRV_O_NOCACHE, &error_abort);
    }
    fake_close(bs);
    g_assert_true(is_write_leased(path));
    free(buf);
    engine_leave(ctx);
}

typedef struct OtherThread {
    IOThread *iothread;
    BlockDriverState *bs;
    char *buf;
    FakeRequest fr;
    QemuSemaphore done;
} OtherThread;

static void other_done(BdrvTrackedRequest *req)
{
    OtherThread *o = container_of(container_of(req, FakeRequest, req),
                                  OtherThread, fr);

    qemu_sem_post(&o->done);
}

static void other_submit(void *opaque)
{
    OtherThread *o = opaque;

    fake_submit(o->bs, iothread_get_aio_context(o->iothread), &o->fr,
                BDRV_REQ_READ, 0, 0, o->buf, 4096);
    o->fr.req.cb = other_done;
}

/* Closing by one thread what another thread's ring has registered. */
static void test_closed_by_another_thread(void)
{
    OtherThread o = { .bs = engine_open(&uring_test, "other", 65536) };
    g_autofree char *path = NULL;

    if (!o.bs) {
        return;
    }
    path = g_strdup(o.bs->filename);
    o.buf = fake_buf(4096, 0);
    qemu_sem_init(&o.done, 0);
    o.iothread = iothread_new("ring", &error_abort);
    aio_bh_schedule_oneshot(iothread_get_aio_context(o.iothread), other_submit,
                            &o);
    qemu_sem_wait(&o.done);
    g_assert_cmpint(o.fr.req.ret, ==, 0);
    fake_close(o.bs);
    g_assert_true(is_write_leased(path));
    iothread_free(o.iothread);
    qemu_sem_destroy(&o.done);
    free(o.buf);
}

/* A context that nobody runs cannot answer: closing ends all the same. */
static void test_closed_while_nobody_runs(void)
{
    BlockDriverState *bs = engine_open(&uring_test, "nobody", 65536);
    g_autofree char *path = NULL;
    AioContext *ctx;
    FakeRequest fr;
    char *buf;

    if (!bs) {
        return;
    }
    path = g_strdup(bs->filename);
    ctx = engine_enter();
    buf = fake_buf(4096, 0);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 0, buf, 4096), ==,
                    0);
    aio_context_leave(ctx);
    fake_close(bs);
    aio_context_unref(ctx);
    g_assert_true(is_write_leased(path));
    free(buf);
}

static void test_registered_buffer(void)
{
    BlockDriverState *bs = engine_open(&uring_test, "buffers", 65536);
    FileEngineStats stats;
    AioContext *ctx;
    FakeRequest fr;
    char *guest, *other;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    guest = fake_buf(65536, 0);
    other = fake_buf(4096, 0);
    bdrv_register_buf(guest, 65536);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ,
                             BDRV_REQ_REGISTERED_BUF, 0, guest + 4096, 8192),
                    ==, 0);
    g_assert_true(fake_is_filled(guest + 4096, 0x5a, 8192));
    uring_get_stats(ctx, &stats);
    if (stats.fixed_buf == 0) {
        g_test_skip("no memory may be locked");
    } else {
        /* Without the flag, and outside the region: not by it. */
        g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 0, guest,
                                 4096), ==, 0);
        g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ,
                                 BDRV_REQ_REGISTERED_BUF, 0, other, 4096), ==,
                        0);
        uring_get_stats(ctx, &stats);
        g_assert_cmpint(stats.fixed_buf, ==, 1);
        memset(guest, 0x77, 4096);
        g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_WRITE,
                                 BDRV_REQ_REGISTERED_BUF, 0, guest, 4096), ==,
                        0);
        g_assert_cmpint(fake_pread(bs, 0, other, 4096), ==, 0);
        g_assert_true(fake_is_filled(other, 0x77, 4096));
        uring_get_stats(ctx, &stats);
        g_assert_cmpint(stats.fixed_buf, ==, 2);
    }
    bdrv_unregister_buf(guest, 65536);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ,
                             BDRV_REQ_REGISTERED_BUF, 0, guest, 4096), ==, 0);
    uring_get_stats(ctx, &stats);
    g_assert_cmpint(stats.fixed_buf, <=, 2);
    free(guest);
    free(other);
    fake_close(bs);
    engine_leave(ctx);
}

/* A context that another thread runs from now on; two files, and memory. */
typedef struct Hands {
    AioContext *ctx;
    BlockDriverState *bs[2];
    char *buf;
} Hands;

static void read_both(Hands *h)
{
    FakeRequest fr;

    for (int i = 0; i < 2; i++) {
        memset(h->buf, 0, 4096);
        g_assert_cmpint(fake_run(h->bs[i], h->ctx, &fr, BDRV_REQ_READ,
                                 BDRV_REQ_REGISTERED_BUF, 0, h->buf, 4096),
                        ==, 0);
        g_assert_false(fr.was_worker);
        g_assert_true(fake_is_filled(h->buf, 0x5a, 4096));
    }
}

static void *second_owner(void *opaque)
{
    Hands *h = opaque;

    aio_context_enter(h->ctx);
    read_both(h);
    aio_context_leave(h->ctx);
    return NULL;
}

static void test_context_changes_hands(void)
{
    Hands h = { .bs[0] = engine_open(&uring_test, "hands", 65536) };
    QemuThread thread;

    if (!h.bs[0]) {
        return;
    }
    h.bs[1] = engine_open(&uring_test, "hands2", 65536);
    h.ctx = engine_enter();
    h.buf = fake_buf(4096, 0);
    bdrv_register_buf(h.buf, 4096);
    read_both(&h);
    aio_context_leave(h.ctx);
    g_assert_cmpint(qemu_thread_create(&thread, "second", second_owner, &h),
                    ==, 0);
    qemu_thread_join(&thread);
    aio_context_unref(h.ctx);
    bdrv_unregister_buf(h.buf, 4096);
    fake_close(h.bs[0]);
    fake_close(h.bs[1]);
    free(h.buf);
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
    g_test_add_func("/io_uring/files/are-registered",
                    test_files_are_registered);
    g_test_add_func("/io_uring/files/are-let-go-when-closed",
                    test_closed_file_is_let_go);
    g_test_add_func("/io_uring/files/closed-by-another-thread",
                    test_closed_by_another_thread);
    g_test_add_func("/io_uring/files/closed-while-nobody-runs-the-context",
                    test_closed_while_nobody_runs);
    g_test_add_func("/io_uring/buffers/registered-ones-are-used",
                    test_registered_buffer);
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
