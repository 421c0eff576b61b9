/*
 * Asynchronous requests: which way they go, counted in both directions; that
 * each comes home once; cancelling in each state.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "test-driver.h"

#define SIZE (64 * KiB)

static BlkPathStats stats(BlockBackend *blk)
{
    BlkPathStats s;

    blk_get_path_stats(blk, &s);
    return s;
}

/* ---- The fast path: taken, and not taken ---- */

typedef enum Way { INLINE, SUBMITTED, WORKER } Way;

static void assert_way(const BlkPathStats *before, const BlkPathStats *after,
                       Way way)
{
    g_assert_cmpint(after->inline_done - before->inline_done, ==,
                    way == INLINE);
    g_assert_cmpint(after->submitted - before->submitted, ==,
                    way == SUBMITTED);
    g_assert_cmpint(after->worker - before->worker, ==, way == WORKER);
    g_assert_cmpint(after->blocking, ==, before->blocking);
}

/* Run @type; it goes that way, and succeeds. */
static void goes(TestEnv *e, BlockBackend *blk, BdrvRequestType type,
                 int64_t offset, int64_t bytes, int flags, Way way)
{
    g_autofree uint8_t *buf = g_malloc0(bytes + 1);
    BlkPathStats before = stats(blk), after;

    g_test_message("type %d offset %" PRId64 " bytes %" PRId64, type, offset,
                   bytes);
    buf[0] = 1;
    g_assert_cmpint(test_request_run(e->ctx, blk, type, offset, bytes, buf,
                                     flags), ==, 0);
    after = stats(blk);
    assert_way(&before, &after, way);
}

#define PLAIN "{'driver':'test-aio','disk':'d'}"

static const char *const plain_graphs[] = {
    PLAIN,
    "{'driver':'test-filter','file':" PLAIN "}",
    "{'driver':'test-format','file':" PLAIN "}",
    "{'driver':'test-filter','file':{'driver':'test-format','file':"
    "{'driver':'test-filter','file':" PLAIN "}}}",
};

static void test_taken(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", SIZE);
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(plain_graphs); i++) {
        bool format = strstr(plain_graphs[i], "test-format");

        blk = test_open(e.graph, "%s", plain_graphs[i]);
        g_test_message("%s", plain_graphs[i]);
        goes(&e, blk, BDRV_REQ_READ, 512, 8192, 0, INLINE);
        goes(&e, blk, BDRV_REQ_WRITE, 512, 8192, 0, INLINE);
        goes(&e, blk, BDRV_REQ_WRITE, 512, 8192, BDRV_REQ_FUA, INLINE);
        goes(&e, blk, BDRV_REQ_WRITE_ZEROES, 512, 8192, 0,
             format ? WORKER : INLINE);
        goes(&e, blk, BDRV_REQ_DISCARD, 512, 8192, 0, INLINE);
        goes(&e, blk, BDRV_REQ_FLUSH, 0, 0, 0, INLINE);
        goes(&e, blk, BDRV_REQ_READ, 512, 0, 0, INLINE);
        blk_set_enable_write_cache(blk, false);
        goes(&e, blk, BDRV_REQ_WRITE, 0, 512, 0, INLINE);
        blk_unref(blk);
    }
}

/* Where the data went: an offset that is mapped wrongly shows. */
static void test_mapped_offset(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-format','offset':8192,"
                    "'file':" PLAIN "}");
    goes(&e, blk, BDRV_REQ_WRITE, 1024, 512, 0, INLINE);
    g_assert_cmpint(d->data[8192 + 1024], ==, 1);
    g_assert_cmpint(test_disk_call(d, TEST_WRITE, 0).offset, ==, 8192 + 1024);
    blk_unref(blk);
}

static void test_submit_modes(void)
{
    static const struct {
        TestSubmitMode mode;
        Way way;
    } cases[] = {
        { TEST_SUBMIT_INLINE, INLINE },
        { TEST_SUBMIT_REFUSE, WORKER },
        { TEST_SUBMIT_WORKER, WORKER },
    };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlkPathStats before, after;
    BlockBackend *blk;
    TestRequest r;
    char buf[512];
    size_t i;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-format','file':" PLAIN "}");
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        test_disk_set_submit_mode(d, cases[i].mode);
        goes(&e, blk, BDRV_REQ_READ, 0, 512, 0, cases[i].way);
        goes(&e, blk, BDRV_REQ_FLUSH, 0, 0, 0, cases[i].way);
        g_assert_cmpint(qatomic_read(&d->pins), ==, 0);
    }
    test_disk_set_submit_mode(d, TEST_SUBMIT_LATER);
    before = stats(blk);
    test_request_init(&r, e.ctx, blk, BDRV_REQ_READ, 0, 512, buf);
    test_request_submit(&r);
    g_assert_cmpint(qatomic_read(&d->pins), ==, 1);
    g_assert_false(test_request_is_done(&r));
    test_disk_complete_held(d);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    after = stats(blk);
    assert_way(&before, &after, SUBMITTED);
    test_request_destroy(&r);
    blk_unref(blk);
}

static void test_not_taken(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", SIZE);
    BlockBackend *blk;

    test_env_init(&e);
    /* A driver without it. */
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    goes(&e, blk, BDRV_REQ_READ, 0, 512, 0, WORKER);
    goes(&e, blk, BDRV_REQ_FLUSH, 0, 0, 0, WORKER);
    blk_unref(blk);

    /* Tracking, here or below. */
    blk = test_open(e.graph, "{'driver':'test-filter','file':" PLAIN "}");
    bdrv_drained_begin(blk_bs(blk));
    bdrv_tracking_begin(bdrv_primary_bs(blk_bs(blk)));
    bdrv_drained_end(blk_bs(blk));
    goes(&e, blk, BDRV_REQ_READ, 0, 512, 0, WORKER);
    goes(&e, blk, BDRV_REQ_WRITE, 0, 512, 0, WORKER);
    bdrv_drained_begin(blk_bs(blk));
    bdrv_tracking_end(bdrv_primary_bs(blk_bs(blk)));
    bdrv_tracking_begin(blk_bs(blk));
    bdrv_drained_end(blk_bs(blk));
    goes(&e, blk, BDRV_REQ_READ, 0, 512, 0, WORKER);
    bdrv_drained_begin(blk_bs(blk));
    bdrv_tracking_end(blk_bs(blk));
    bdrv_drained_end(blk_bs(blk));
    goes(&e, blk, BDRV_REQ_READ, 0, 512, 0, INLINE);
    blk_unref(blk);

    /* Zeroes are looked for. */
    blk = test_open(e.graph, "{'driver':'test-aio','disk':'d',"
                    "'detect-zeroes':'on'}");
    goes(&e, blk, BDRV_REQ_WRITE, 0, 512, 0, WORKER);
    goes(&e, blk, BDRV_REQ_READ, 0, 512, 0, INLINE);
    blk_unref(blk);

    /* A user whose errors past the end are the driver's. */
    blk = test_open(e.graph, PLAIN);
    blk_set_allow_write_beyond_eof(blk, true);
    goes(&e, blk, BDRV_REQ_READ, 0, 512, 0, WORKER);
    blk_unref(blk);
}

static void test_limits(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    g_autofree uint8_t *buf = g_malloc0(4096);
    BlkPathStats before, after;
    BlockBackend *blk;
    TestRequest r;
    int i;

    test_env_init(&e);
    d->limits = (BlockLimits){
        .request_alignment = 512, .max_transfer = 8192, .max_iov = 2,
        .max_pdiscard = 16384, .pdiscard_alignment = 4096,
        .max_pwrite_zeroes = 16384, .pwrite_zeroes_alignment = 4096,
    };
    blk = test_open(e.graph, "{'driver':'test-filter','file':" PLAIN "}");
    blk_set_user_block_size(blk, 512);
    goes(&e, blk, BDRV_REQ_READ, 0, 8192, 0, INLINE);
    goes(&e, blk, BDRV_REQ_READ, 0, 8704, 0, WORKER);
    goes(&e, blk, BDRV_REQ_WRITE, 512, 8704, 0, WORKER);
    goes(&e, blk, BDRV_REQ_READ, 1, 512, 0, WORKER);
    goes(&e, blk, BDRV_REQ_DISCARD, 4096, 16384, 0, INLINE);
    goes(&e, blk, BDRV_REQ_DISCARD, 4096, 20480, 0, WORKER);
    goes(&e, blk, BDRV_REQ_DISCARD, 512, 8192, 0, WORKER);
    goes(&e, blk, BDRV_REQ_WRITE_ZEROES, 4096, 16384, 0, INLINE);
    goes(&e, blk, BDRV_REQ_WRITE_ZEROES, 4096, 20480, 0, WORKER);
    goes(&e, blk, BDRV_REQ_WRITE_ZEROES, 512, 4096, 0, WORKER);

    /* Too many buffers. */
    test_request_init(&r, e.ctx, blk, BDRV_REQ_READ, 0, 1536, NULL);
    qemu_iovec_init(&r.qiov, 3);
    for (i = 0; i < 3; i++) {
        qemu_iovec_add(&r.qiov, buf + 1024 * i, 512);
    }
    r.req.qiov = &r.qiov;
    before = stats(blk);
    test_request_submit(&r);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    after = stats(blk);
    assert_way(&before, &after, WORKER);
    qemu_iovec_destroy(&r.qiov);
    test_request_destroy(&r);
    blk_unref(blk);
}

/* What no driver on the way down can do is not forgotten on the fast one. */
static void test_flags(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    TestRequest r;
    char buf[512];

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-filter','file':" PLAIN "}");
    g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf,
                                     BDRV_REQ_WRITE_COMPRESSED), ==, -ENOTSUP);
    blk_unref(blk);

    /* A lower node does not unmap: the upper ones still may. */
    blk = test_open(e.graph, "{'driver':'test-filter','discard':'unmap',"
                    "'file':{'driver':'test-aio','disk':'d',"
                    "'discard':'ignore'}}");
    test_disk_set_submit_mode(d, TEST_SUBMIT_REFUSE);
    test_request_init(&r, e.ctx, blk, BDRV_REQ_WRITE_ZEROES, 0, 512, NULL);
    r.req.flags = BDRV_REQ_MAY_UNMAP;
    test_request_submit(&r);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    g_assert_cmpint(r.req.flags, ==, BDRV_REQ_MAY_UNMAP);
    g_assert_cmpint(test_disk_call(d, TEST_ZEROES, 0).flags &
                    BDRV_REQ_MAY_UNMAP, ==, 0);
    test_request_destroy(&r);
    test_disk_clear_log(d);
    g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_DISCARD, 0, 512,
                                     NULL, 0), ==, 0);
    g_assert_cmpint(test_disk_count(d, TEST_DISCARD), ==, 0);
    blk_unref(blk);
}

static void test_errors(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    char buf[1024];
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(plain_graphs); i++) {
        blk = test_open(e.graph, "%s", plain_graphs[i]);
        g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_READ, SIZE - 512,
                                         1024, buf, 0), ==, -EIO);
        g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_READ, -512, 512,
                                         buf, 0), ==, -EIO);
        test_disk_fail_all(d, TEST_IO, ENOSPC);
        g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_WRITE, 0, 1024,
                                         buf, 0), ==, -ENOSPC);
        g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_FLUSH, 0, 0,
                                         NULL, 0), ==, -ENOSPC);
        test_disk_fail(d, 0, 0, 0);
        blk_unref(blk);
    }
}

/* ---- Coming home ---- */

typedef struct Chain {
    BdrvTrackedRequest req;
    QEMUIOVector qiov;
    char buf[512];
    BlockBackend *blk;
    int left;
    QemuEvent *done;
} Chain;

/* Use the request again, at last free it, from inside the callback. */
static void chain_cb(BdrvTrackedRequest *req)
{
    Chain *c = container_of(req, Chain, req);

    g_assert_cmpint(req->ret, ==, 0);
    if (--c->left > 0) {
        blk_aio_submit(c->blk, req);
        return;
    }
    qemu_event_set(c->done);
    g_free(c);
}

static void chain_start(void *opaque)
{
    Chain *c = opaque;

    blk_aio_submit(c->blk, &c->req);
}

static void test_reuse(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    static const char *const drivers[] = { "test", "test-aio" };
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(drivers); i++) {
        BlockBackend *blk = test_open(e.graph, "{'driver':'%s','disk':'d'}",
                                      drivers[i]);
        Chain *c = g_new0(Chain, 1);
        QemuEvent done;

        qemu_event_init(&done, false);
        c->blk = blk;
        c->left = 200;
        c->done = &done;
        c->req.type = BDRV_REQ_READ;
        c->req.bytes = 512;
        c->req.cb = chain_cb;
        c->req.qiov = &c->qiov;
        qemu_iovec_init_buf(&c->qiov, c->buf, 512);
        test_disk_clear_log(d);
        aio_run_sync(e.ctx, chain_start, c);
        g_assert_true(qemu_event_timedwait(&done, TEST_TIMEOUT_NS));
        g_assert_cmpint(test_disk_count(d, TEST_READ), ==, 200);
        blk_unref(blk);
        qemu_event_destroy(&done);
    }
}

/* Requests of several homes at one node, each called back at its own. */
static void test_several_homes(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    IOThread *other;
    TestRequest r[64];
    char buf[64][512];
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    other = iothread_new("other", &error_abort);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < ARRAY_SIZE(r); i++) {
        memset(buf[i], i + 1, 512);
        test_request_init(&r[i], i % 2 ? e.ctx :
                          iothread_get_aio_context(other), blk, BDRV_REQ_WRITE,
                          i * 512, 512, buf[i]);
        test_request_submit(&r[i]);
    }
    for (i = 0; i < ARRAY_SIZE(r); i++) {
        g_assert_cmpint(test_request_wait(&r[i]), ==, 0);
        test_request_destroy(&r[i]);
    }
    /* Only now: a write to the rest of a block writes the whole of it. */
    for (i = 0; i < ARRAY_SIZE(r); i++) {
        g_assert_cmpint(d->data[i * 512], ==, i + 1);
    }
    blk_unref(blk);
    iothread_free(other);
}

/*
 * A worker of one home resumes a request of another one, which may be gone
 * before the worker has finished telling it.
 */
static void test_home_goes(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    char buf[512] = { 0 };
    int i;

    test_env_init(&e);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < 100; i++) {
        IOThread *other = iothread_new("other", &error_abort);
        TestRequest first, second;

        test_disk_hold(d, TEST_IO);
        test_request_init(&first, e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf);
        test_request_init(&second, iothread_get_aio_context(other), blk,
                          BDRV_REQ_WRITE, 512, 512, buf);
        test_request_submit(&first);
        test_disk_wait_held(d, 1);
        test_request_submit(&second);
        test_disk_hold(d, 0);
        g_assert_cmpint(test_request_wait(&second), ==, 0);
        iothread_free(other);
        g_assert_cmpint(test_request_wait(&first), ==, 0);
        test_request_destroy(&first);
        test_request_destroy(&second);
    }
    blk_unref(blk);
}

/* ---- Cancelling ---- */

static void test_cancel_queued(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    TestRequest running, queued;
    BlockBackend *blk;
    char buf[2][512];

    test_env_init(&e);
    aio_context_set_pool_limits(e.ctx, 0, 1);
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    test_disk_hold(d, TEST_IO);
    test_request_init(&running, e.ctx, blk, BDRV_REQ_READ, 0, 512, buf[0]);
    test_request_init(&queued, e.ctx, blk, BDRV_REQ_READ, 0, 512, buf[1]);
    test_request_submit(&running);
    test_disk_wait_held(d, 1);
    test_request_submit(&queued);
    test_request_cancel(&running);              /* too late: no effect */
    test_request_cancel(&queued);
    g_assert_cmpint(test_request_wait(&queued), ==, -ECANCELED);
    g_assert_false(test_request_is_done(&running));
    test_disk_hold(d, 0);
    g_assert_cmpint(test_request_wait(&running), ==, 0);
    g_assert_cmpint(test_disk_count(d, TEST_READ), ==, 1);
    test_request_destroy(&running);
    test_request_destroy(&queued);
    blk_unref(blk);
}

/* Queued, and admitted before: what waits for it goes on. */
static void test_cancel_queued_tracked(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    TestRequest running, queued, waiting;
    BlockBackend *blk;
    char buf[512] = { 0 };

    test_env_init(&e);
    aio_context_set_pool_limits(e.ctx, 0, 1);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    test_disk_hold(d, 1u << TEST_READ);
    test_request_init(&running, e.ctx, blk, BDRV_REQ_READ, 8192, 512, buf);
    test_request_init(&queued, e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf);
    test_request_init(&waiting, e.ctx, blk, BDRV_REQ_WRITE, 512, 512, buf);
    test_request_submit(&running);
    test_disk_wait_held(d, 1);
    test_request_submit(&queued);
    test_request_submit(&waiting);
    g_assert_cmpint(waiting.req.state, ==, BDRV_REQ_STATE_PARKED);
    test_request_cancel(&queued);
    g_assert_cmpint(test_request_wait(&queued), ==, -ECANCELED);
    test_disk_hold(d, 0);
    g_assert_cmpint(test_request_wait(&running), ==, 0);
    g_assert_cmpint(test_request_wait(&waiting), ==, 0);
    g_assert_cmpint(test_disk_count(d, TEST_WRITE), ==, 1);
    test_request_destroy(&running);
    test_request_destroy(&queued);
    test_request_destroy(&waiting);
    blk_unref(blk);
}

/* Cancelled when it is on its way again, but not there yet. */
typedef struct Late {
    TestRequest r;
    QemuEvent entered, opened;
} Late;

static void cancel_late(void *opaque)
{
    Late *l = opaque;

    qemu_event_set(&l->entered);
    g_assert_true(qemu_event_timedwait(&l->opened, TEST_TIMEOUT_NS));
    blk_aio_cancel(&l->r.req);
}

static void cancel_resumed(bool conflict)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    TestRequest first;
    BlockBackend *blk;
    IOThread *other;
    char buf[512] = { 0 };
    Late l;

    test_env_init(&e);
    other = iothread_new("other", &error_abort);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    qemu_event_init(&l.entered, false);
    qemu_event_init(&l.opened, false);
    test_request_init(&l.r, e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf);
    test_request_init(&first, iothread_get_aio_context(other), blk,
                      BDRV_REQ_WRITE, 512, 512, buf);
    if (conflict) {
        test_disk_hold(d, TEST_IO);
        test_request_submit(&first);
        test_disk_wait_held(d, 1);
    } else {
        blk_drain_begin(blk);
    }
    test_request_submit(&l.r);
    g_assert_cmpint(l.r.req.state, ==, BDRV_REQ_STATE_PARKED);
    aio_bh_schedule_oneshot(e.ctx, cancel_late, &l);
    g_assert_true(qemu_event_timedwait(&l.entered, TEST_TIMEOUT_NS));
    if (conflict) {
        test_disk_hold(d, 0);
        g_assert_cmpint(test_request_wait(&first), ==, 0);
    } else {
        blk_drain_end(blk);
    }
    qemu_event_set(&l.opened);
    g_assert_cmpint(test_request_wait(&l.r), ==, -ECANCELED);
    g_assert_cmpint(test_disk_count(d, TEST_WRITE), ==, conflict);
    /* Nothing is held up by it, and the gate can still be closed. */
    g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf,
                                     0), ==, 0);
    blk_drain(blk);
    test_request_destroy(&first);
    test_request_destroy(&l.r);
    qemu_event_destroy(&l.entered);
    qemu_event_destroy(&l.opened);
    blk_unref(blk);
    iothread_free(other);
}

static void test_cancel_after_gate(void)
{
    cancel_resumed(false);
}

static void test_cancel_after_conflict(void)
{
    cancel_resumed(true);
}

static void complete_main(void *opaque)
{
    test_disk_complete_held(opaque);
}

/* In the driver, while another thread completes it: one of them wins. */
static void test_cancel_submitted(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    char buf[512];
    int i;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-format','file':" PLAIN "}");
    test_disk_set_submit_mode(d, TEST_SUBMIT_LATER);
    for (i = 0; i < 200; i++) {
        TestThread *t = NULL;
        TestRequest r;
        int ret;

        test_request_init(&r, e.ctx, blk, BDRV_REQ_READ, 0, 512, buf);
        test_request_submit(&r);
        if (i > 0) {
            t = test_thread_start(complete_main, d);
        }
        test_request_cancel(&r);
        ret = test_request_wait(&r);
        if (t) {
            test_thread_join(t);
            g_assert_true(ret == 0 || ret == -ECANCELED);
        } else {
            g_assert_cmpint(ret, ==, -ECANCELED);
        }
        g_assert_cmpint(qatomic_read(&d->pins), ==, 0);
        test_request_destroy(&r);
    }
    test_disk_set_submit_mode(d, TEST_SUBMIT_INLINE);
    blk_unref(blk);
}

/* At any moment of a request's way through a worker. */
static void test_cancel_racing(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SIZE);
    BlockBackend *blk;
    TestRequest r[8];
    char buf[512] = { 0 };
    int i, n;

    test_env_init(&e);
    aio_context_set_pool_limits(e.ctx, 0, 2);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (n = 0; n < 100; n++) {
        for (i = 0; i < 8; i++) {
            test_request_init(&r[i], e.ctx, blk, i % 4 ? BDRV_REQ_WRITE :
                              BDRV_REQ_READ, i % 3 * 512, 512, buf);
            test_request_submit(&r[i]);
        }
        for (i = 0; i < 8; i += 1 + n % 2) {
            test_request_cancel(&r[i]);
        }
        for (i = 0; i < 8; i++) {
            int ret = test_request_wait(&r[i]);

            g_assert_true(ret == 0 || ret == -ECANCELED);
            test_request_destroy(&r[i]);
        }
    }
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/request/" name, fn)
    T("fast-path-taken", test_taken);
    T("fast-path-maps-offset", test_mapped_offset);
    T("fast-path-as-driver-answers", test_submit_modes);
    T("fast-path-not-taken", test_not_taken);
    T("fast-path-not-taken-beyond-limits", test_limits);
    T("flags-are-honoured", test_flags);
    T("errors", test_errors);
    T("reused-and-freed-in-callback", test_reuse);
    T("called-back-at-home", test_several_homes);
    T("home-goes-at-once", test_home_goes);
    T("cancel-queued", test_cancel_queued);
    T("cancel-queued-lets-waiting-go", test_cancel_queued_tracked);
    T("cancel-after-gate-opened", test_cancel_after_gate);
    T("cancel-after-conflict-ended", test_cancel_after_conflict);
    T("cancel-submitted", test_cancel_submitted);
    T("cancel-races-with-completion", test_cancel_racing);
    return g_test_run();
}
