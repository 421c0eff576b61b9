/*
 * Tests of the linux-aio engine.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <libaio.h>
#include "engine-tests.h"

static const EngineTest laio_test = {
    .name = "native",
    .available = laio_available,
    .get_stats = laio_get_stats,
};

/* ---- An io_submit() that misbehaves ---- */

#define BLOCK 4096

/* What the first calls return; 0: the real thing, n: that of so many. */
static const int *script;
static int script_left;

static int scripted_io_submit(struct io_context *io, long n,
                              struct iocb **iocbs)
{
    int what = 0;

    if (script_left > 0) {
        script_left--;
        what = *script++;
    }
    return what < 0 ? what :
           file_posix_system_ops.io_submit(io, what ? MIN(n, what) : n, iocbs);
}

/* Submit @n reads under the script; how many a worker did in the end. */
static int run_script(const char *name, const int *what, int len, int n)
{
    BlockDriverState *bs = engine_open(&laio_test, name, 64 * BLOCK);
    g_autofree FakeRequest *frs = g_new(FakeRequest, n);
    FilePosixOps ops = file_posix_system_ops;
    FileEngineStats stats;
    AioContext *ctx;
    char *buf;

    if (!bs) {
        return -1;
    }
    /* Let the script alone decide what goes to workers. */
    file_set_lacks(fake_state(bs), FILE_NO_NOWAIT_READ);
    ops.io_submit = scripted_io_submit;
    file_posix_ops = &ops;
    script = what;
    script_left = len;
    ctx = engine_enter();
    buf = fake_buf(n * BLOCK, 0);
    for (int i = 0; i < n; i++) {
        fake_submit(bs, ctx, &frs[i], BDRV_REQ_READ, 0, i % 64 * BLOCK,
                    buf + i * BLOCK, BLOCK);
    }
    for (int i = 0; i < n; i++) {
        g_assert_cmpint(fake_wait(&frs[i]), ==, 0);
    }
    g_assert_true(fake_is_filled(buf, 0x5a, n * BLOCK));
    g_assert_cmpint(script_left, ==, 0);
    file_posix_ops = &file_posix_system_ops;
    laio_get_stats(ctx, &stats);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
    return stats.retried;
}

static void test_short_submit(void)
{
    static const int what[] = { 3, 1, -EINTR, 2 };
    int retried = run_script("short", what, ARRAY_SIZE(what), 10);

    g_assert_cmpint(retried, <=, 0);
}

static void test_no_room(void)
{
    /* With something in flight, wait for it; with nothing, do without. */
    static const int in_flight[] = { 4, -EAGAIN };
    static const int nothing[] = { -EAGAIN };
    int retried = run_script("room", in_flight, 2, 10);

    g_assert_cmpint(retried, <=, 0);
    retried = run_script("room", nothing, 1, 10);
    g_assert_cmpint(retried, ==, retried < 0 ? retried : 1);
}

static void test_refused(void)
{
    static const int what[] = { -EINVAL, -ENOSYS, 2, -EBADF };
    int retried = run_script("refused", what, ARRAY_SIZE(what), 10);

    g_assert_cmpint(retried, ==, retried < 0 ? retried : 3);
}

/* The start of the ring that the kernel shares with us. */
typedef struct AioRing {
    unsigned id, nr, head, tail, magic, compat, incompat, header_length;
    struct io_event events[];
} AioRing;

/* Accepts, and says by the ring that a signal came in between. */
static int interrupted_io_submit(struct io_context *io, long n,
                                 struct iocb **iocbs)
{
    AioRing *ring = (AioRing *)io;

    g_assert_cmpint(n, ==, 1);
    ring->events[ring->tail] = (struct io_event){
        .data = iocbs[0]->data, .obj = iocbs[0], .res = -EINTR,
    };
    qatomic_store_release(&ring->tail, ring->tail + 1);
    return 1;
}

static void test_interrupted_flush(void)
{
    BlockDriverState *bs = engine_open(&laio_test, "eintr", 64 * BLOCK);
    FilePosixOps ops = file_posix_system_ops;
    AioContext *ctx;
    FakeRequest fr;

    if (!bs) {
        return;
    }
    ops.io_submit = interrupted_io_submit;
    file_posix_ops = &ops;
    ctx = engine_enter();
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_FLUSH, 0, 0, NULL, 0), ==,
                    0);
    g_assert_true(fr.was_worker);
    g_assert_cmpint(bs->drv->flush(bs), ==, 0);
    file_posix_ops = &file_posix_system_ops;
    fake_close(bs);
    engine_leave(ctx);
}

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
    engine_add_tests(&laio_test);
    g_test_add_func("/native/io_submit/takes-only-some", test_short_submit);
    g_test_add_func("/native/io_submit/has-no-room", test_no_room);
    g_test_add_func("/native/io_submit/refuses-one", test_refused);
    g_test_add_func("/native/flush/interrupted-is-no-failure",
                    test_interrupted_flush);
    return fake_finish();
}
