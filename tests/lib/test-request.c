/*
 * Opening images and running requests in tests.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "test-driver.h"

void test_env_init(TestEnv *e)
{
    e->graph = block_graph_new();
    e->io = iothread_new("test-io", &error_abort);
    /* Tests hold several requests in the driver at once, a thread each. */
    aio_context_set_pool_limits(iothread_get_aio_context(e->io), 0, 64);
    e->ctx = iothread_get_aio_context(e->io);
}

void test_env_destroy(TestEnv *e)
{
    iothread_free(e->io);
    block_graph_free(e->graph);
}

/* ---- Images ---- */

static json_t *parse_options(const char *format, va_list ap)
    G_GNUC_PRINTF(1, 0);

static json_t *parse_options(const char *format, va_list ap)
{
    g_autofree char *text = g_strdup_vprintf(format, ap);

    return options_from_json(text, &error_abort);
}

json_t *test_options(const char *format, ...)
{
    va_list ap;
    json_t *options;

    va_start(ap, format);
    options = parse_options(format, ap);
    va_end(ap);
    return options;
}

BlockBackend *test_open(BlockGraph *graph, const char *format, ...)
{
    va_list ap;
    json_t *options;

    va_start(ap, format);
    options = parse_options(format, ap);
    va_end(ap);
    return blk_new_open(graph, NULL, NULL, options,
                        BDRV_O_RDWR | BDRV_O_UNMAP, &error_abort);
}

/* ---- Requests ---- */

static void request_cb(BdrvTrackedRequest *req)
{
    TestRequest *r = container_of(req, TestRequest, req);

    g_assert_true(aio_context_current() == r->ctx);
    qatomic_inc(&r->calls);
    qemu_event_set(&r->done);
}

void test_request_init(TestRequest *r, AioContext *ctx, BlockBackend *blk,
                       BdrvRequestType type, int64_t offset, int64_t bytes,
                       void *buf)
{
    memset(r, 0, sizeof(*r));
    qemu_event_init(&r->done, false);
    r->ctx = ctx;
    r->blk = blk;
    r->req.type = type;
    r->req.offset = offset;
    r->req.bytes = bytes;
    r->req.cb = request_cb;
    if (buf) {
        qemu_iovec_init_buf(&r->qiov, buf, bytes);
        r->req.qiov = &r->qiov;
    }
}

static void submit_in_home(void *opaque)
{
    TestRequest *r = opaque;
    int before = qatomic_read(&r->calls);

    blk_aio_submit(r->blk, &r->req);
    g_assert_cmpint(qatomic_read(&r->calls), ==, before);
}

void test_request_submit(TestRequest *r)
{
    aio_run_sync(r->ctx, submit_in_home, r);
}

static void cancel_in_home(void *opaque)
{
    TestRequest *r = opaque;

    /* After the callback the request is not the block layer's. */
    if (qatomic_read(&r->calls) == 0) {
        blk_aio_cancel(&r->req);
    }
}

void test_request_cancel(TestRequest *r)
{
    aio_run_sync(r->ctx, cancel_in_home, r);
}

bool test_request_is_done(TestRequest *r)
{
    return qatomic_read(&r->calls) > 0;
}

static void nothing(void *opaque)
{
}

int test_request_wait(TestRequest *r)
{
    g_assert_true(qemu_event_timedwait(&r->done, TEST_TIMEOUT_NS));
    /* The callback has returned, and the request has left the gate. */
    aio_run_sync(r->ctx, nothing, NULL);
    g_assert_cmpint(qatomic_read(&r->calls), ==, 1);
    return r->req.ret;
}

void test_request_destroy(TestRequest *r)
{
    qemu_event_destroy(&r->done);
}

void test_step_start(TestStep *s, AioContext *ctx, BlockBackend *blk,
                     BdrvRequestType type, int64_t offset, int64_t bytes)
{
    memset(s->buf, 'X', sizeof(s->buf));
    test_request_init(&s->r, ctx, blk, type, offset, bytes, s->buf);
    test_request_submit(&s->r);
}

void test_step_finish(TestStep *s)
{
    g_assert_cmpint(test_request_wait(&s->r), ==, 0);
    test_request_destroy(&s->r);
}

int test_request_run(AioContext *ctx, BlockBackend *blk, BdrvRequestType type,
                     int64_t offset, int64_t bytes, void *buf, int flags)
{
    TestRequest r;
    int ret;

    test_request_init(&r, ctx, blk, type, offset, bytes, buf);
    r.req.flags = flags;
    test_request_submit(&r);
    ret = test_request_wait(&r);
    test_request_destroy(&r);
    return ret;
}

/* ---- Threads ---- */

struct TestThread {
    QemuThread thread;
    QemuEvent done;
    void (*fn)(void *opaque);
    void *opaque;
};

static void *thread_main(void *arg)
{
    TestThread *t = arg;

    t->fn(t->opaque);
    qemu_event_set(&t->done);
    return NULL;
}

TestThread *test_thread_start(void (*fn)(void *opaque), void *opaque)
{
    TestThread *t = g_new0(TestThread, 1);

    qemu_event_init(&t->done, false);
    t->fn = fn;
    t->opaque = opaque;
    g_assert_cmpint(qemu_thread_create(&t->thread, "test", thread_main, t),
                    ==, 0);
    return t;
}

void test_thread_join(TestThread *t)
{
    g_assert_true(qemu_event_timedwait(&t->done, TEST_TIMEOUT_NS));
    qemu_thread_join(&t->thread);
    qemu_event_destroy(&t->done);
    g_free(t);
}
