/*
 * See engine-tests.h.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "engine-tests.h"

#define BLOCK 4096

AioContext *engine_enter(void)
{
    AioContext *ctx = aio_context_new(&error_abort);

    aio_context_enter(ctx);
    return ctx;
}

void engine_leave(AioContext *ctx)
{
    aio_context_leave(ctx);
    aio_context_unref(ctx);
}

static BlockDriverState *engine_open_file(const EngineTest *t,
                                          const char *path)
{
    g_autofree char *options = g_strdup_printf("{'aio':'%s'}", t->name);

    if (!t->available()) {
        g_test_skip("the system does not have this engine");
        return NULL;
    }
    if (fake_skip_without_direct(fake_dir_on_disk())) {
        return NULL;
    }
    return fake_open(path, options, BDRV_O_RDWR | BDRV_O_NOCACHE,
                     &error_abort);
}

BlockDriverState *engine_open(const EngineTest *t, const char *name,
                              int64_t size)
{
    g_autofree char *path = fake_file_uncached(fake_dir_on_disk(), name, size);

    return fake_skip_without_disk() ? NULL : engine_open_file(t, path);
}

/* ---- Data ---- */

static void test_data(gconstpointer data)
{
    const EngineTest *t = data;
    BlockDriverState *bs = engine_open(t, "data", 1 * MiB);
    AioContext *ctx;
    FakeRequest fr;
    char *buf, *back;
    FileEngineStats before_reads, stats;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf(64 * KiB, 0);
    back = fake_buf(64 * KiB, 1);
    for (int i = 0; i < 64 * KiB; i++) {
        buf[i] = i * 31 >> 3;
    }
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_WRITE, 0, 128 * KiB, buf,
                             64 * KiB), ==, 0);
    /* A write and a sync: by a worker, whom a ring need not tell. */
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_WRITE, BDRV_REQ_FUA,
                             256 * KiB, buf, 64 * KiB), ==, 0);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_FLUSH, 0, 0, NULL, 0), ==,
                    0);
    t->get_stats(ctx, &before_reads);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 256 * KiB, back,
                             64 * KiB), ==, 0);
    g_assert_cmpmem(buf, 64 * KiB, back, 64 * KiB);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 0, back,
                             64 * KiB), ==, 0);
    g_assert_true(fake_is_filled(back, 0x5a, 64 * KiB));
    t->get_stats(ctx, &stats);
    g_assert_cmpint(stats.requests, ==, 4);
    /* Not by a worker after all, if the file system can do without waiting. */
    if (!file_lacks(fake_state(bs), FILE_NO_NOWAIT_READ)) {
        g_assert_cmpint(stats.retried, ==, before_reads.retried);
    }
    free(buf);
    free(back);
    fake_close(bs);
    engine_leave(ctx);
}

static void test_vector(gconstpointer data)
{
    BlockDriverState *bs = engine_open(data, "vector", 1 * MiB);
    AioContext *ctx;
    FakeRequest fr;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf(64 * KiB, 0);
    qemu_iovec_init(&fr.qiov, 8);
    for (int i = 0; i < 8; i++) {
        qemu_iovec_add(&fr.qiov, buf + (7 - i) * 8192, 4096);
    }
    fake_submit_qiov(bs, ctx, &fr, BDRV_REQ_READ, 0, 4096);
    g_assert_cmpint(fake_wait(&fr), ==, 0);
    for (int i = 0; i < 8; i++) {
        g_assert_true(fake_is_filled(buf + i * 8192, 0x5a, 4096));
        g_assert_true(fake_is_filled(buf + i * 8192 + 4096, 0, 4096));
    }
    qemu_iovec_destroy(&fr.qiov);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

/* ---- Batches and bounds ---- */

static void submit_many(BlockDriverState *bs, AioContext *ctx,
                        FakeRequest *frs, int n, char *buf)
{
    for (int i = 0; i < n; i++) {
        fake_submit(bs, ctx, &frs[i], BDRV_REQ_READ, 0, i % 64 * BLOCK,
                    buf + (int64_t)i * BLOCK, BLOCK);
    }
}

static void wait_many(FakeRequest *frs, int n, const char *buf)
{
    for (int i = 0; i < n; i++) {
        g_assert_cmpint(fake_wait(&frs[i]), ==, 0);
        g_assert_true(fake_is_filled(buf + (int64_t)i * BLOCK, 0x5a, BLOCK));
    }
}

static void test_batch_is_one_call(gconstpointer data)
{
    enum { N = 32 };
    const EngineTest *t = data;
    BlockDriverState *bs = engine_open(t, "batch", 64 * BLOCK);
    g_autofree FakeRequest *frs = g_new(FakeRequest, N);
    FileEngineStats before, after;
    AioContext *ctx;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf(N * BLOCK, 0);
    submit_many(bs, ctx, frs, N, buf);
    t->get_stats(ctx, &before);
    g_assert_cmpint(before.submits, ==, 0);
    g_assert_cmpint(before.requests, ==, N);
    /* One iteration submits all of them, with one call. */
    aio_poll(ctx, false);
    t->get_stats(ctx, &after);
    g_assert_cmpint(after.submits, ==, 1);
    g_assert_cmpint(after.max_in_flight, ==, N);
    wait_many(frs, N, buf);
    t->get_stats(ctx, &after);
    g_assert_cmpint(after.submits, ==, 1);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

static void test_max_batch(gconstpointer data)
{
    const EngineTest *t = data;
    BlockDriverState *bs = engine_open(t, "max-batch", 64 * BLOCK);
    FakeRequest frs[10];
    FileEngineStats stats;
    AioContext *ctx;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    fake_state(bs)->max_batch = 4;
    buf = fake_buf(10 * BLOCK, 0);
    submit_many(bs, ctx, frs, 10, buf);
    t->get_stats(ctx, &stats);
    g_assert_cmpint(stats.submits, ==, 2);
    g_assert_cmpint(stats.max_in_flight, ==, 8);
    wait_many(frs, 10, buf);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

static void test_more_than_the_ring(gconstpointer data)
{
    enum { N = 3000 };
    const EngineTest *t = data;
    BlockDriverState *bs = engine_open(t, "many", 64 * BLOCK);
    g_autofree FakeRequest *frs = g_new(FakeRequest, N);
    FileEngineStats stats;
    AioContext *ctx;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf((size_t)N * BLOCK, 0);
    submit_many(bs, ctx, frs, N, buf);
    wait_many(frs, N, buf);
    t->get_stats(ctx, &stats);
    g_assert_cmpint(stats.requests, ==, N);
    g_assert_cmpint(stats.max_in_flight, <=, stats.capacity);
    g_assert_cmpint(stats.capacity, <, N);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

/* ---- What an engine hands over ---- */

static void test_misaligned_goes_to_worker(gconstpointer data)
{
    const EngineTest *t = data;
    BlockDriverState *bs = engine_open(t, "misaligned", 64 * BLOCK);
    FileEngineStats stats;
    AioContext *ctx;
    FakeRequest fr;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf(2 * BLOCK, 0);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 0, buf + 1,
                             BLOCK), ==, 0);
    g_assert_true(fr.was_worker);
    g_assert_true(fake_is_filled(buf + 1, 0x5a, BLOCK));
    t->get_stats(ctx, &stats);
    g_assert_cmpint(stats.requests, ==, 0);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

static void test_end_of_file(gconstpointer data)
{
    const EngineTest *t = data;
    BlockDriverState *bs = engine_open(t, "end", 64 * BLOCK);
    FileEngineStats stats;
    AioContext *ctx;
    FakeRequest fr;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf(2 * BLOCK, 0);
    g_assert_cmpint(truncate(bs->filename, 3 * BLOCK), ==, 0);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 2 * BLOCK, buf,
                             2 * BLOCK), ==, -EIO);
    g_assert_true(fr.was_worker);
    t->get_stats(ctx, &stats);
    g_assert_cmpint(stats.retried, ==, 1);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

/* One bad request in a batch of good ones fails, and it alone. */
static void test_error_is_of_one(gconstpointer data)
{
    BlockDriverState *bs = engine_open(data, "one-error", 64 * BLOCK);
    BlockDriverState *ro;
    FakeRequest good[4], bad;
    AioContext *ctx;
    char *buf;

    if (!bs) {
        return;
    }
    ro = engine_open_file(data, bs->filename);
    g_assert_true(fake_reopen(ro, BDRV_O_NOCACHE, &error_abort));
    ctx = engine_enter();
    buf = fake_buf(5 * BLOCK, 0);
    submit_many(bs, ctx, good, 2, buf);
    fake_submit(ro, ctx, &bad, BDRV_REQ_WRITE, 0, 0, buf + 4 * BLOCK, BLOCK);
    submit_many(bs, ctx, good + 2, 2, buf + 2 * BLOCK);
    g_assert_cmpint(fake_wait(&bad), ==, -EBADF);
    wait_many(good, 4, buf);
    free(buf);
    fake_close(ro);
    fake_close(bs);
    engine_leave(ctx);
}

static void test_sync_error_sticks(gconstpointer data)
{
    BlockDriverState *bs = engine_open(data, "sync-error", 64 * BLOCK);
    AioContext *ctx;
    FakeRequest fr;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf(BLOCK, 0);
    file_latch_sync_error(fake_state(bs), -EIO);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_FLUSH, 0, 0, NULL, 0), ==,
                    -EIO);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_WRITE, BDRV_REQ_FUA, 0,
                             buf, BLOCK), ==, -EIO);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_WRITE, 0, 0, buf, BLOCK),
                    ==, 0);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

/* ---- Syncs side by side ---- */

static QemuEvent sync_entered, sync_released;

static int held_fdatasync(int fd)
{
    qemu_event_set(&sync_entered);
    qemu_event_wait(&sync_released);
    errno = EIO;
    return -1;
}

static void *flush_thread(void *opaque)
{
    BlockDriverState *bs = opaque;

    g_assert_cmpint(bs->drv->flush(bs), ==, -EIO);
    return NULL;
}

static bool has_waiting_sync(FileState *s)
{
    bool yes;

    leaf_lock(&s->sync_lock);
    yes = !list_is_empty(&s->sync_waiting);
    leaf_unlock(&s->sync_lock);
    return yes;
}

/* The kernel told the thread, which has not told us yet, that data is lost. */
static void test_sync_beside_failure(gconstpointer data)
{
    BlockDriverState *bs = engine_open(data, "sync-beside", 64 * BLOCK);
    FilePosixOps ops = file_posix_system_ops;
    QemuThread thread;
    AioContext *ctx;
    FakeRequest fr;

    if (!bs) {
        return;
    }
    ops.fdatasync = held_fdatasync;
    file_posix_ops = &ops;
    qemu_event_init(&sync_entered, false);
    qemu_event_init(&sync_released, false);
    ctx = engine_enter();
    g_assert_cmpint(qemu_thread_create(&thread, "flush", flush_thread, bs), ==,
                    0);
    qemu_event_wait(&sync_entered);
    fake_submit(bs, ctx, &fr, BDRV_REQ_FLUSH, 0, 0, NULL, 0);
    while (!fr.done && !has_waiting_sync(fake_state(bs))) {
        aio_poll(ctx, true);
    }
    qemu_event_set(&sync_released);
    g_assert_cmpint(fake_wait(&fr), ==, -EIO);
    g_assert_false(fr.was_worker);
    qemu_thread_join(&thread);
    file_posix_ops = &file_posix_system_ops;
    qemu_event_destroy(&sync_entered);
    qemu_event_destroy(&sync_released);
    fake_close(bs);
    engine_leave(ctx);
}

/* A thread cannot wait for what only its own loop can end. */
static void test_sync_beside_own(gconstpointer data)
{
    BlockDriverState *bs = engine_open(data, "sync-own", 64 * BLOCK);
    AioContext *ctx;
    FakeRequest fr;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    fake_submit(bs, ctx, &fr, BDRV_REQ_FLUSH, 0, 0, NULL, 0);
    g_assert_cmpint(bs->drv->flush(bs), ==, 0);
    g_assert_cmpint(fake_wait(&fr), ==, 0);
    fake_submit(bs, ctx, &fr, BDRV_REQ_FLUSH, 0, 0, NULL, 0);
    bs->drv->cancel(bs, &fr.req);
    g_assert_cmpint(fake_wait(&fr), ==, -ECANCELED);
    g_assert_cmpint(bs->drv->flush(bs), ==, 0);
    fake_close(bs);
    engine_leave(ctx);
}

/* What waits in the batch is cancelled; what runs completes, some way. */
static void test_cancel(gconstpointer data)
{
    enum { N = 600 };
    BlockDriverState *bs = engine_open(data, "cancel", 64 * BLOCK);
    g_autofree FakeRequest *frs = g_new(FakeRequest, N);
    int cancelled = 0;
    AioContext *ctx;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    buf = fake_buf((size_t)N * BLOCK, 0);
    submit_many(bs, ctx, frs, N, buf);
    for (int i = 0; i < N; i += 3) {
        bs->drv->cancel(bs, &frs[i].req);
    }
    for (int i = 0; i < N; i++) {
        int ret = fake_wait(&frs[i]);

        if (ret == -ECANCELED) {
            g_assert_cmpint(i % 3, ==, 0);
            cancelled++;
        } else {
            g_assert_cmpint(ret, ==, 0);
        }
    }
    g_assert_cmpint(cancelled, >, 0);
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

/* ---- Several contexts ---- */

typedef struct EngineThread {
    QemuThread thread;
    BlockDriverState *bs;
    int id;
} EngineThread;

static void *engine_thread(void *opaque)
{
    enum { N = 64, ROUNDS = 50 };
    EngineThread *et = opaque;
    AioContext *ctx = engine_enter();
    g_autofree FakeRequest *frs = g_new(FakeRequest, N);
    char *buf = fake_buf(N * BLOCK, 0);

    for (int round = 0; round < ROUNDS; round++) {
        bool write = round % 2 == 0;
        int pattern = et->id + round / 2;

        memset(buf, write ? pattern : 0, N * BLOCK);
        for (int i = 0; i < N; i++) {
            fake_submit(et->bs, ctx, &frs[i],
                        write ? BDRV_REQ_WRITE : BDRV_REQ_READ, 0,
                        ((int64_t)et->id * N + i) * BLOCK, buf + i * BLOCK,
                        BLOCK);
        }
        for (int i = 0; i < N; i++) {
            g_assert_cmpint(fake_wait(&frs[i]), ==, 0);
        }
        g_assert_true(fake_is_filled(buf, pattern, N * BLOCK));
    }
    free(buf);
    engine_leave(ctx);
    return NULL;
}

static void test_several_contexts(gconstpointer data)
{
    enum { THREADS = 4 };
    BlockDriverState *bs = engine_open(data, "contexts",
                                       THREADS * 64 * BLOCK);
    EngineThread threads[THREADS];

    if (!bs) {
        return;
    }
    for (int i = 0; i < THREADS; i++) {
        threads[i] = (EngineThread){ .bs = bs, .id = i };
        g_assert_cmpint(qemu_thread_create(&threads[i].thread, "engine",
                                           engine_thread, &threads[i]), ==, 0);
    }
    for (int i = 0; i < THREADS; i++) {
        qemu_thread_join(&threads[i].thread);
    }
    fake_close(bs);
}

/* Completions are found by busy polling, too. */
static void test_polling(gconstpointer data)
{
    BlockDriverState *bs = engine_open(data, "polling", 64 * BLOCK);
    FakeRequest frs[16];
    AioContext *ctx;
    char *buf;

    if (!bs) {
        return;
    }
    ctx = engine_enter();
    aio_context_set_poll_params(ctx, 1000000, 0, 0);
    buf = fake_buf(16 * BLOCK, 0);
    for (int round = 0; round < 20; round++) {
        memset(buf, 0, 16 * BLOCK);
        submit_many(bs, ctx, frs, 16, buf);
        wait_many(frs, 16, buf);
    }
    free(buf);
    fake_close(bs);
    engine_leave(ctx);
}

/* ---- In memory ---- */

enum { IN_MEMORY_N = 8 };

/* Requests for tmpfs wait for nothing: they are done when they are submitted,
 * by the thread that submits. */
static void check_done_at_once(BlockDriverState *bs, AioContext *ctx,
                               BdrvRequestType type)
{
    FakeRequest frs[IN_MEMORY_N];
    char *buf = fake_buf(IN_MEMORY_N * 4096, 0x5a);

    for (int i = 0; i < IN_MEMORY_N; i++) {
        fake_submit(bs, ctx, &frs[i], type, 0, i * 4096, buf + i * 4096, 4096);
    }
    aio_poll(ctx, false);
    for (int i = 0; i < IN_MEMORY_N; i++) {
        g_assert_true(frs[i].done);
        g_assert_false(frs[i].was_worker);
        g_assert_cmpint(frs[i].req.ret, ==, 0);
    }
    g_assert_true(fake_is_filled(buf, 0x5a, IN_MEMORY_N * 4096));
    free(buf);
}

static void test_in_memory(gconstpointer data)
{
    const EngineTest *t = data;
    const char *dir = fake_dir_in_memory();
    g_autofree char *path = NULL;
    BlockDriverState *bs;
    AioContext *ctx;
    FakeRequest fr;

    if (!dir) {
        g_test_skip("no tmpfs at /dev/shm");
        return;
    }
    path = fake_file(dir, "in-memory", 1 * MiB);
    if (fake_skip_without_direct(dir)) {
        return;
    }
    bs = engine_open_file(t, path);
    if (!bs) {
        return;
    }
    ctx = engine_enter();
    for (int round = 0; round < 2; round++) {
        check_done_at_once(bs, ctx, BDRV_REQ_WRITE);
        check_done_at_once(bs, ctx, BDRV_REQ_READ);
        g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_FLUSH, 0, 0, NULL, 0),
                        ==, 0);
        g_assert_true(fake_reopen(bs, BDRV_O_RDWR | BDRV_O_NOCACHE,
                                  &error_abort));
    }
    fake_close(bs);
    engine_leave(ctx);
}

void engine_add_tests(const EngineTest *t)
{
    static const struct {
        const char *path;
        void (*fn)(gconstpointer data);
    } tests[] = {
        { "rw/data-is-right", test_data },
        { "rw/vectors", test_vector },
        { "batch/is-one-call", test_batch_is_one_call },
        { "batch/as-large-as-the-file-wants", test_max_batch },
        { "batch/more-than-the-ring-holds", test_more_than_the_ring },
        { "worker/misaligned-memory", test_misaligned_goes_to_worker },
        { "worker/short-read", test_end_of_file },
        { "error/of-one-request-only", test_error_is_of_one },
        { "flush/failed-sync-sticks", test_sync_error_sticks },
        { "flush/beside-one-that-fails", test_sync_beside_failure },
        { "flush/beside-the-thread's-own", test_sync_beside_own },
        { "cancel/what-waits", test_cancel },
        { "contexts/several-at-once", test_several_contexts },
        { "poll/finds-completions", test_polling },
        { "memory/done-when-submitted", test_in_memory },
    };

    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/%s/%s", t->name,
                                                tests[i].path);

        g_test_add_data_func(path, t, tests[i].fn);
    }
}
