/*
 * Draining: requests in each state of a drain, drains in each state of a
 * request, nested and several drains, parents that come and go meanwhile.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sched.h>
#include "qemu/atomic.h"
#include "test-driver.h"
#include "block/block-internal.h"

/* ---- Drain against threads that hammer the gate ---- */

typedef struct Hammer {
    BlockBackend *blk;
    TestDisk *disk;
    bool stop;                  /* atomic */
    int inside;                 /* atomic */
} Hammer;

static void hammer_main(void *opaque)
{
    Hammer *h = opaque;
    char buf[512];

    while (!qatomic_read(&h->stop)) {
        g_assert_cmpint(blk_pread(h->blk, 0, sizeof(buf), buf, 0), ==, 0);
    }
}

static void test_hammered(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    Hammer h = { .disk = d };
    TestThread *threads[4];
    int i;

    d->latency_ns = 10 * 1000;
    test_env_init(&e);
    h.blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        threads[i] = test_thread_start(hammer_main, &h);
    }
    for (i = 0; i < 1000; i++) {
        int before;

        while (test_disk_count(d, TEST_READ) == 0) {
            sched_yield();
        }
        blk_drain_begin(h.blk);
        before = test_disk_count(d, TEST_READ);
        g_assert_cmpint(test_disk_running(d), ==, 0);
        if (i % 16 == 0) {
            sched_yield();
        }
        g_assert_cmpint(test_disk_count(d, TEST_READ), ==, before);
        test_disk_clear_log(d);
        blk_drain_end(h.blk);
    }
    qatomic_set(&h.stop, true);
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        test_thread_join(threads[i]);
    }
    blk_unref(h.blk);
}

/*
 * The gate alone: those who find it closed come and go while it is closed,
 * opened and closed again, and must not be taken for the last one out.
 */
static void gate_main(void *opaque)
{
    Hammer *h = opaque;

    while (!qatomic_read(&h->stop)) {
        if (blk_gate_try_enter(h->blk)) {
            qatomic_inc(&h->inside);
            sched_yield();
            qatomic_dec(&h->inside);
            blk_gate_leave(h->blk);
        }
    }
}

static void test_gate(void)
{
    g_auto(TestEnv) e = { 0 };
    Hammer h = { 0 };
    TestThread *threads[3];
    int i;

    test_env_init(&e);
    h.blk = blk_new(e.graph, 0, BLK_PERM_ALL);
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        threads[i] = test_thread_start(gate_main, &h);
    }
    for (i = 0; i < 1000; i++) {
        blk_drain_begin(h.blk);
        g_assert_cmpint(qatomic_read(&h.inside), ==, 0);
        blk_drain_end(h.blk);
        while (qatomic_read(&h.inside) == 0) {
            sched_yield();
        }
    }
    qatomic_set(&h.stop, true);
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        test_thread_join(threads[i]);
    }
    blk_unref(h.blk);
}

/* ---- A drain that waits, in a thread of its own ---- */

typedef struct Drain {
    BlockDriverState *bs;
    TestThread *thread;
    QemuEvent closed;           /* by drained_begin of the backend */
    bool over;                  /* atomic: nobody is inside */
    int begun, ended;
} Drain;

static void note_begin(void *opaque)
{
    Drain *drain = opaque;

    drain->begun++;
    qemu_event_set(&drain->closed);
}

static void note_end(void *opaque)
{
    Drain *drain = opaque;

    drain->ended++;
}

static const BlockDevOps note_ops = { .drained_begin = note_begin,
                                      .drained_end = note_end };

static void drain_main(void *opaque)
{
    Drain *drain = opaque;

    bdrv_drained_begin(drain->bs);
    qatomic_set(&drain->over, true);
}

/* Returns when the gate of @blk is closed, and the drain waits. */
static void drain_start(Drain *drain, BlockBackend *blk)
{
    *drain = (Drain){ .bs = blk_bs(blk) };
    qemu_event_init(&drain->closed, false);
    blk_set_dev_ops(blk, &note_ops, drain);
    drain->thread = test_thread_start(drain_main, drain);
    g_assert_true(qemu_event_timedwait(&drain->closed, TEST_TIMEOUT_NS));
}

/* Waits for the drain to be over; then opens the gate again. */
static void drain_finish(Drain *drain, BlockBackend *blk)
{
    test_thread_join(drain->thread);
    g_assert_true(drain->over);
    bdrv_drained_end(drain->bs);
    blk_set_dev_ops(blk, NULL, NULL);
    g_assert_cmpint(drain->begun, ==, 1);
    g_assert_cmpint(drain->ended, ==, 1);
    qemu_event_destroy(&drain->closed);
}

static uint64_t parked(BlockBackend *blk)
{
    BlkPathStats stats;

    blk_get_path_stats(blk, &stats);
    return stats.parked;
}

/* A drain begins while @type is in the driver; another request comes then. */
static void drain_while_running(const char *driver, TestSubmitMode mode,
                                bool reverse)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    TestRequest first, second;
    BlockBackend *blk;
    char buf[2][512];
    Drain drain;

    test_env_init(&e);
    test_disk_set_submit_mode(d, mode);
    test_disk_hold(d, TEST_IO);
    blk = test_open(e.graph, "{'driver':'%s','disk':'d'}", driver);
    test_request_init(&first, e.ctx, blk, BDRV_REQ_READ, 0, 512, buf[0]);
    test_request_init(&second, e.ctx, blk, BDRV_REQ_READ, 512, 512, buf[1]);
    test_request_submit(&first);
    test_disk_wait_held(d, 1);

    drain_start(&drain, blk);
    test_request_submit(&second);
    g_assert_cmpint(parked(blk), ==, 1);
    g_assert_false(qatomic_read(&drain.over));
    if (reverse) {
        test_request_cancel(&second);
        g_assert_cmpint(test_request_wait(&second), ==, -ECANCELED);
    }
    g_assert_false(qatomic_read(&drain.over));
    test_disk_hold(d, 0);
    test_disk_complete_held(d);
    g_assert_cmpint(test_request_wait(&first), ==, 0);
    test_disk_set_submit_mode(d, TEST_SUBMIT_INLINE);
    if (!reverse) {
        g_assert_false(test_request_is_done(&second));
    }
    drain_finish(&drain, blk);
    if (!reverse) {
        g_assert_cmpint(test_request_wait(&second), ==, 0);
    }
    g_assert_cmpint(test_disk_count(d, TEST_READ), ==, reverse ? 1 : 2);
    test_request_destroy(&first);
    test_request_destroy(&second);
    blk_unref(blk);
}

static void test_worker(void)
{
    drain_while_running("test", TEST_SUBMIT_INLINE, false);
}

static void test_submitted(void)
{
    drain_while_running("test-aio", TEST_SUBMIT_LATER, false);
}

static void test_cancel_parked(void)
{
    drain_while_running("test", TEST_SUBMIT_INLINE, true);
}

/* One worker, held; the drain must see to it that the queued ones run, too. */
static void test_queued(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    TestRequest r[4];
    BlockBackend *blk;
    char buf[4][512];
    Drain drain;
    int i;

    test_env_init(&e);
    aio_context_set_pool_limits(e.ctx, 0, 1);
    test_disk_hold(d, TEST_IO);
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < 4; i++) {
        test_request_init(&r[i], e.ctx, blk, BDRV_REQ_READ, 512 * i, 512,
                          buf[i]);
        test_request_submit(&r[i]);
    }
    test_disk_wait_held(d, 1);
    drain_start(&drain, blk);
    test_request_cancel(&r[2]);
    g_assert_cmpint(test_request_wait(&r[2]), ==, -ECANCELED);
    g_assert_false(qatomic_read(&drain.over));
    test_disk_hold(d, 0);
    drain_finish(&drain, blk);
    for (i = 0; i < 4; i++) {
        g_assert_cmpint(test_request_wait(&r[i]), ==, i == 2 ? -ECANCELED : 0);
        test_request_destroy(&r[i]);
    }
    g_assert_cmpint(test_disk_count(d, TEST_READ), ==, 3);
    blk_unref(blk);
}

/*
 * One request runs, one is parked because it conflicts; the drain lets both go
 * on.  With @cancel, the parked one ends early.
 */
static void drain_with_conflict(bool cancel)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    TestRequest first, second;
    BlockBackend *blk;
    char buf[2][512] = { { 0 } };
    Drain drain;

    test_env_init(&e);
    d->limits.request_alignment = 4096;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    test_disk_hold(d, TEST_IO);
    test_request_init(&first, e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf[0]);
    test_request_init(&second, e.ctx, blk, BDRV_REQ_WRITE, 512, 512, buf[1]);
    test_request_submit(&first);
    test_request_submit(&second);
    test_disk_wait_held(d, 1);
    drain_start(&drain, blk);
    if (cancel) {
        test_request_cancel(&second);
        g_assert_cmpint(test_request_wait(&second), ==, -ECANCELED);
    }
    g_assert_false(qatomic_read(&drain.over));
    test_disk_hold(d, 0);
    drain_finish(&drain, blk);
    g_assert_cmpint(test_request_wait(&first), ==, 0);
    g_assert_cmpint(test_request_wait(&second), ==, cancel ? -ECANCELED : 0);
    g_assert_cmpint(test_disk_count(d, TEST_WRITE), ==, cancel ? 1 : 2);
    test_request_destroy(&first);
    test_request_destroy(&second);
    blk_unref(blk);
}

static void test_conflict(void)
{
    drain_with_conflict(false);
}

static void test_conflict_cancelled(void)
{
    drain_with_conflict(true);
}

/* A blocking call waits at the gate, and goes on. */
static void blocking_read(void *opaque)
{
    Hammer *h = opaque;
    char buf[512];

    g_assert_cmpint(blk_pread(h->blk, 0, 512, buf, 0), ==, 0);
    qatomic_set(&h->stop, true);
}

static void test_blocking_call(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    Hammer h = { 0 };
    TestThread *t;

    test_env_init(&e);
    h.blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    blk_drain_begin(h.blk);
    blk_drain_begin(h.blk);
    t = test_thread_start(blocking_read, &h);
    blk_drain_end(h.blk);
    g_assert_cmpint(test_disk_count(d, TEST_READ), ==, 0);
    g_assert_false(qatomic_read(&h.stop));
    blk_drain_end(h.blk);
    test_thread_join(t);
    g_assert_cmpint(test_disk_count(d, TEST_READ), ==, 1);
    blk_unref(h.blk);
}

/* ---- Several drains, and parents that come and go ---- */

static bool is_closed(BlockBackend *blk)
{
    if (blk_gate_try_enter(blk)) {
        blk_gate_leave(blk);
        return false;
    }
    return true;
}

static void test_nested(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    BlockBackend *blk;
    BlockDriverState *top, *bottom;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-filter',"
                    "'file':{'driver':'test','disk':'d'}}");
    top = blk_bs(blk);
    bottom = bdrv_primary_bs(top);
    bdrv_drained_begin(top);
    bdrv_drained_begin(bottom);
    blk_drain_begin(blk);
    bdrv_drained_end(top);
    g_assert_true(is_closed(blk));
    blk_drain_end(blk);
    g_assert_true(is_closed(blk));
    bdrv_drained_end(bottom);
    g_assert_false(is_closed(blk));
    blk_unref(blk);
}

static void test_attach_detach(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    BlockBackend *blk, *other;
    BlockDriverState *bottom;
    TestRequest r;
    char buf[512];

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-filter',"
                    "'file':{'driver':'test','disk':'d'}}");
    other = blk_new(e.graph, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    bottom = bdrv_primary_bs(blk_bs(blk));
    bdrv_drained_begin(bottom);
    bdrv_drained_begin(bottom);

    /* A parent that comes is drained, too: what it asks for waits. */
    g_assert_false(is_closed(other));
    blk_insert_bs(other, blk_bs(blk), &error_abort);
    g_assert_true(is_closed(other));
    test_request_init(&r, e.ctx, other, BDRV_REQ_READ, 0, 512, buf);
    test_request_submit(&r);
    bdrv_drained_end(bottom);
    g_assert_true(is_closed(other));
    g_assert_false(test_request_is_done(&r));

    /* A parent that goes is not: there is nothing to wait for. */
    blk_remove_bs(other);
    g_assert_false(is_closed(other));
    g_assert_cmpint(test_request_wait(&r), ==, -ENOMEDIUM);
    g_assert_true(is_closed(blk));
    bdrv_drained_end(bottom);
    g_assert_false(is_closed(blk));
    test_request_destroy(&r);
    blk_unref(other);
    blk_unref(blk);
}

static void test_attach_refused(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    BlockBackend *blk, *other;
    Error *err = NULL;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    other = blk_new(e.graph, BLK_PERM_CONSISTENT_READ,
                    BLK_PERM_CONSISTENT_READ);
    bdrv_drained_begin(blk_bs(blk));
    g_assert_false(blk_insert_bs(other, blk_bs(blk), &err));
    error_free(err);
    g_assert_false(is_closed(other));
    g_assert_true(is_closed(blk));
    bdrv_drained_end(blk_bs(blk));
    g_assert_false(is_closed(blk));
    blk_unref(other);
    blk_unref(blk);
}

/* Ops that arrive while the gate is closed hear of it, once. */
static void test_ops_while_closed(void)
{
    g_auto(TestEnv) e = { 0 };
    Drain drain = { 0 };
    BlockBackend *blk;

    test_env_init(&e);
    qemu_event_init(&drain.closed, false);
    blk = blk_new(e.graph, 0, BLK_PERM_ALL);
    blk_drain_begin(blk);
    blk_set_dev_ops(blk, &note_ops, &drain);
    g_assert_cmpint(drain.begun, ==, 1);
    blk_drain_begin(blk);
    blk_drain_end(blk);
    g_assert_cmpint(drain.ended, ==, 0);
    blk_drain_end(blk);
    g_assert_cmpint(drain.begun, ==, 1);
    g_assert_cmpint(drain.ended, ==, 1);
    blk_set_dev_ops(blk, NULL, NULL);
    qemu_event_destroy(&drain.closed);
    blk_unref(blk);
}

/* ---- The last one out, and the backend that goes away then ---- */

static void read_once(void *opaque)
{
    Hammer *h = opaque;
    char buf[512];

    g_assert_cmpint(blk_pread(h->blk, 0, 512, buf, 0), ==, 0);
}

static void test_unref(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    int i;

    test_env_init(&e);
    for (i = 0; i < 100; i++) {
        BlockBackend *blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
        Hammer h = { .blk = blk };
        TestThread *t;

        test_disk_hold(d, 1u << TEST_READ);
        t = test_thread_start(read_once, &h);
        test_disk_wait_held(d, 1);
        test_disk_hold(d, 0);
        /* The reader is on its way out, here or there. */
        blk_unref(h.blk);
        test_thread_join(t);
    }
}

#ifdef CONFIG_LOCK_DEBUG
/* The thread that would have to end the request waits for its end instead. */
static void submit_and_drain(void *opaque)
{
    TestRequest *r = opaque;

    test_request_submit(r);
    blk_drain(r->blk);
}

static void wait_for_itself(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    TestRequest r;
    BlockBackend *blk;
    char buf[512];

    g_assert_nonnull(d);
    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    test_request_init(&r, e.ctx, blk, BDRV_REQ_READ, 0, 512, buf);
    test_request_submit(&r);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    blk_drain(blk);
    alarm(10);
    aio_run_sync(e.ctx, submit_and_drain, &r);
}

static void test_waits_for_itself(void)
{
    if (g_test_subprocess()) {
        wait_for_itself();
    } else {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_failed();
        g_test_trap_assert_stderr("*home_count*");
    }
}
#endif

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/drain/" name, fn)
    T("nobody-inside-while-drained", test_hammered);
    T("gate-counts-only-who-is-inside", test_gate);
    T("waits-for-worker", test_worker);
    T("waits-for-submitted", test_submitted);
    T("waits-for-queued", test_queued);
    T("waits-for-conflicting", test_conflict);
    T("parked-request-can-be-cancelled", test_cancel_parked);
    T("conflicting-request-can-be-cancelled", test_conflict_cancelled);
    T("blocking-call-waits", test_blocking_call);
    T("nests", test_nested);
    T("follows-parents", test_attach_detach);
    T("refused-parent-is-left-open", test_attach_refused);
    T("device-added-meanwhile-is-told", test_ops_while_closed);
    T("backend-outlives-last-one-out", test_unref);
#ifdef CONFIG_LOCK_DEBUG
    T("of-a-thread's-own-requests-is-noticed", test_waits_for_itself);
#endif
    return g_test_run();
}
