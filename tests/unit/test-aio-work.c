/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioContext: work from other threads, bottom halves and what is deferred to
 * the end of an iteration.
 */
#include "aio-test.h"
#include "block/thread-pool.h"

#define PRODUCERS 3
#define MANY      3000

/* ---- aio_schedule ---- */

typedef struct Sequence {
    AioContext *ctx;
    int next[PRODUCERS];
    int total;
} Sequence;

typedef struct Step {
    AioWork work;
    Sequence *seq;
    int producer;
    int number;
} Step;

static void run_step(AioWork *work)
{
    Step *step = container_of(work, Step, work);
    Sequence *seq = step->seq;

    g_assert_true(aio_context_current() == seq->ctx);
    g_assert_cmpint(step->number, ==, seq->next[step->producer]++);
    seq->total++;
    g_free(step);
}

static void produce(Sequence *seq, int producer)
{
    for (int i = 0; i < MANY; i++) {
        Step *step = g_new0(Step, 1);

        *step = (Step){ .work.fn = run_step, .seq = seq,
                        .producer = producer, .number = i };
        aio_schedule(seq->ctx, &step->work);
    }
}

typedef struct Producer {
    QemuThread thread;
    Sequence *seq;
    int number;
} Producer;

static void *producer_main(void *opaque)
{
    Producer *p = opaque;

    produce(p->seq, p->number);
    return NULL;
}

/* The last "producer" is the owner itself. */
static void test_schedule_fifo(void)
{
    Sequence seq = { .ctx = test_loop_new() };
    Producer p[PRODUCERS - 1];

    for (int i = 0; i < PRODUCERS - 1; i++) {
        p[i] = (Producer){ .seq = &seq, .number = i };
        qemu_thread_create(&p[i].thread, "producer", producer_main, &p[i]);
    }
    produce(&seq, PRODUCERS - 1);
    test_poll_until(seq.ctx, &seq.total, PRODUCERS * MANY);
    for (int i = 0; i < PRODUCERS - 1; i++) {
        qemu_thread_join(&p[i].thread);
    }
    test_loop_free(seq.ctx);
}

/* One at a time, so that every one of them finds the loop (nearly) asleep. */
typedef struct Volley {
    AioContext *ctx;
    AioWork work;
    QemuSemaphore again;
    int hits;
} Volley;

static void volley_hit(AioWork *work)
{
    Volley *v = container_of(work, Volley, work);

    v->hits++;
    qemu_sem_post(&v->again);
}

static void *volley_serve(void *opaque)
{
    Volley *v = opaque;

    for (int i = 0; i < MANY; i++) {
        qemu_sem_wait(&v->again);
        aio_schedule(v->ctx, &v->work);
    }
    return NULL;
}

static void test_schedule_no_lost_wakeup(void)
{
    Volley v = { .ctx = test_loop_new(), .work.fn = volley_hit };
    QemuThread thread;

    qemu_sem_init(&v.again, 1);
    qemu_thread_create(&thread, "serve", volley_serve, &v);
    test_poll_until(v.ctx, &v.hits, MANY);
    qemu_thread_join(&thread);
    qemu_sem_destroy(&v.again);
    test_loop_free(v.ctx);
}

static uint64_t rings(AioContext *ctx)
{
    uint64_t n = 0;
    int fd = event_notifier_get_fd(&ctx->notifier);

    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void *produce_first(void *opaque)
{
    produce(opaque, 0);
    return NULL;
}

/* What prepares to sleep is rung once, what is awake not at all. */
static void test_schedule_one_ring_a_batch(void)
{
    Sequence seq = { .ctx = test_loop_new() };

    test_in_thread(produce_first, &seq);
    g_assert_cmpuint(rings(seq.ctx), ==, 0);
    test_poll_until(seq.ctx, &seq.total, MANY);

    seq.next[0] = 0;
    qatomic_set_mb(&seq.ctx->notify_me, 1);
    test_in_thread(produce_first, &seq);
    g_assert_cmpuint(rings(seq.ctx), ==, 1);
    test_poll_until(seq.ctx, &seq.total, 2 * MANY);
    test_loop_free(seq.ctx);
}

/* Work that comes while the loop sleeps in earnest ends the sleep. */
static void test_schedule_wakes_iothread(void)
{
    IOThread *iothread = iothread_new("wakes", &error_abort);
    Volley v = { .ctx = iothread_get_aio_context(iothread),
                 .work.fn = volley_hit };

    g_assert_cmpstr(iothread_get_id(iothread), ==, "wakes");
    qemu_sem_init(&v.again, 0);
    for (int i = 0; i < MANY / 10; i++) {
        aio_schedule(v.ctx, &v.work);
        g_assert_true(qemu_sem_timedwait(&v.again, LONG_NS));
    }
    iothread_free(iothread);
    g_assert_cmpint(v.hits, ==, MANY / 10);
    qemu_sem_destroy(&v.again);
}

/* ---- Bottom halves ---- */

typedef struct Half {
    QEMUBH *bh;
    AioContext *ctx;
    int runs;
} Half;

static void count_half(void *opaque)
{
    Half *half = opaque;

    half->runs++;
}

static void half_new(Half *half, AioContext *ctx, QEMUBHFunc *cb)
{
    *half = (Half){ .ctx = ctx, .bh = aio_bh_new(ctx, cb, half, "half") };
}

static void test_bh_runs_once(void)
{
    Half half;
    AioContext *ctx = test_loop_new();

    half_new(&half, ctx, count_half);
    g_assert_false(aio_poll(ctx, false));
    qemu_bh_schedule(half.bh);
    qemu_bh_schedule(half.bh);
    g_assert_cmpint(half.runs, ==, 0);
    g_assert_true(aio_poll(ctx, false));
    g_assert_cmpint(half.runs, ==, 1);
    g_assert_false(aio_poll(ctx, false));
    qemu_bh_schedule(half.bh);
    aio_poll(ctx, true);
    g_assert_cmpint(half.runs, ==, 2);
    qemu_bh_delete(half.bh);
    test_loop_free(ctx);
    g_assert_cmpint(half.runs, ==, 2);
}

static void test_bh_cancel(void)
{
    Half half;
    AioContext *ctx = test_loop_new();

    half_new(&half, ctx, count_half);
    qemu_bh_schedule(half.bh);
    qemu_bh_cancel(half.bh);
    aio_poll(ctx, false);
    g_assert_cmpint(half.runs, ==, 0);

    qemu_bh_schedule(half.bh);
    qemu_bh_cancel(half.bh);
    qemu_bh_schedule(half.bh);          /* wanted after all */
    aio_poll(ctx, false);
    g_assert_cmpint(half.runs, ==, 1);
    qemu_bh_delete(half.bh);
    test_loop_free(ctx);
}

static void test_bh_delete_scheduled(void)
{
    Half half;
    AioContext *ctx = test_loop_new();

    half_new(&half, ctx, count_half);
    qemu_bh_schedule(half.bh);
    qemu_bh_delete(half.bh);
    aio_poll(ctx, false);
    g_assert_cmpint(half.runs, ==, 0);
    test_loop_free(ctx);
}

static void delete_half(void *opaque)
{
    Half *half = opaque;

    half->runs++;
    qemu_bh_delete(half->bh);
}

static void test_bh_delete_self(void)
{
    Half half;
    AioContext *ctx = test_loop_new();

    half_new(&half, ctx, delete_half);
    qemu_bh_schedule(half.bh);
    test_poll_until(ctx, &half.runs, 1);
    aio_poll(ctx, false);
    g_assert_cmpint(half.runs, ==, 1);
    test_loop_free(ctx);
}

static void again_ten_times(void *opaque)
{
    Half *half = opaque;

    if (++half->runs < 10) {
        qemu_bh_schedule(half->bh);
    }
}

static void test_bh_reschedule_self(void)
{
    Half half;
    AioContext *ctx = test_loop_new();

    half_new(&half, ctx, again_ten_times);
    qemu_bh_schedule(half.bh);
    test_poll_until(ctx, &half.runs, 10);
    g_assert_false(aio_poll(ctx, false));
    qemu_bh_delete(half.bh);
    test_loop_free(ctx);
}

static void *schedule_many(void *opaque)
{
    Half *half = opaque;

    for (int i = 0; i < MANY; i++) {
        qemu_bh_schedule(half->bh);
    }
    return NULL;
}

/* At least one run after the last call, at most one for each. */
static void test_bh_scheduled_by_thread(void)
{
    Half half;
    AioContext *ctx = test_loop_new();
    QemuThread thread;
    int before;

    half_new(&half, ctx, count_half);
    qemu_thread_create(&thread, "schedule", schedule_many, &half);
    while (half.runs < 3) {
        aio_poll(ctx, true);
        qemu_bh_schedule(half.bh);
    }
    before = half.runs;
    qemu_thread_join(&thread);
    qemu_bh_schedule(half.bh);
    aio_poll(ctx, true);
    g_assert_cmpint(half.runs, >, before);
    qemu_bh_delete(half.bh);
    test_loop_free(ctx);
}

static void *oneshot_many(void *opaque)
{
    Half *half = opaque;

    for (int i = 0; i < MANY; i++) {
        aio_bh_schedule_oneshot(half->ctx, count_half, half);
    }
    return NULL;
}

static void test_bh_oneshot(void)
{
    Half half = { .ctx = test_loop_new() };
    QemuThread thread;

    qemu_thread_create(&thread, "oneshot", oneshot_many, &half);
    test_poll_until(half.ctx, &half.runs, MANY);
    qemu_thread_join(&thread);
    test_loop_free(half.ctx);
}

/* ---- aio_run_sync ---- */

static void note_context(void *opaque)
{
    *(AioContext **)opaque = aio_context_current();
}

static void test_run_sync(void)
{
    IOThread *iothread = iothread_new("sync", &error_abort);
    AioContext *other = iothread_get_aio_context(iothread);
    AioContext *ctx = test_loop_new();

    for (int i = 0; i < 200; i++) {
        AioContext *seen = NULL;

        aio_run_sync(other, note_context, &seen);
        g_assert_true(seen == other);
        aio_run_sync(ctx, note_context, &seen);     /* at once */
        g_assert_true(seen == ctx);
    }
    iothread_free(iothread);
    test_loop_free(ctx);
}

/* ---- The end of an iteration ---- */

typedef struct Ender {
    AioDeferred deferred;
    AioContext *ctx;
    Half *half;
    int runs;
    int half_runs_seen;
    int again;
} Ender;

static void note_end(AioDeferred *d)
{
    Ender *e = container_of(d, Ender, deferred);

    e->runs++;
    e->half_runs_seen = e->half ? e->half->runs : 0;
    if (e->again-- > 0) {
        aio_defer(e->ctx, d);
    }
}

static void test_defer_runs_once_and_last(void)
{
    AioContext *ctx = test_loop_new();
    Half half;
    Ender e = { .ctx = ctx, .half = &half };

    half_new(&half, ctx, again_ten_times);
    aio_deferred_init(&e.deferred, note_end);
    aio_defer(ctx, &e.deferred);
    aio_defer(ctx, &e.deferred);
    qemu_bh_schedule(half.bh);
    g_assert_true(aio_poll(ctx, false));
    g_assert_cmpint(e.runs, ==, 1);
    g_assert_cmpint(e.half_runs_seen, ==, 10);
    g_assert_false(aio_poll(ctx, false));
    qemu_bh_delete(half.bh);
    test_loop_free(ctx);
}

static void test_defer_cancel(void)
{
    AioContext *ctx = test_loop_new();
    Ender e = { .ctx = ctx };

    aio_deferred_init(&e.deferred, note_end);
    aio_defer_cancel(&e.deferred);                  /* nothing to cancel */
    aio_defer(ctx, &e.deferred);
    aio_defer_cancel(&e.deferred);
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(e.runs, ==, 0);
    test_loop_free(ctx);
}

static void test_defer_again_inside(void)
{
    AioContext *ctx = test_loop_new();
    Ender e = { .ctx = ctx, .again = 3 };

    aio_deferred_init(&e.deferred, note_end);
    aio_defer(ctx, &e.deferred);
    test_poll_until(ctx, &e.runs, 4);
    g_assert_false(aio_poll(ctx, false));
    test_loop_free(ctx);
}

static void again_for_ever(void *opaque)
{
    Half *half = opaque;

    half->runs++;
    qemu_bh_schedule(half->bh);
}

/* A bottom half without end must not put off a guest's interrupt. */
static void test_defer_not_starved(void)
{
    AioContext *ctx = test_loop_new();
    Half half;
    Ender e = { .ctx = ctx };

    half_new(&half, ctx, again_for_ever);
    aio_deferred_init(&e.deferred, note_end);
    qemu_bh_schedule(half.bh);
    aio_defer(ctx, &e.deferred);
    aio_poll(ctx, true);
    g_assert_cmpint(e.runs, ==, 1);
    qemu_bh_delete(half.bh);
    test_loop_free(ctx);
}

/* ---- What belongs to a context ---- */

static void test_pool_made_on_first_use(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool;

    aio_context_set_pool_limits(ctx, 0, 3);
    pool = aio_get_thread_pool(ctx);
    g_assert_nonnull(pool);
    g_assert_true(aio_get_thread_pool(ctx) == pool);
    aio_context_set_pool_limits(ctx, 1, 2);
    test_loop_free(ctx);
}

/* ---- The end of a context ---- */

typedef struct Chain {
    ThreadPoolItem item;
    QEMUBH *bh;
    int left;
} Chain;

static void chain_next(void *opaque)
{
    Chain *chain = opaque;

    if (--chain->left > 0) {
        qemu_bh_schedule(chain->bh);
    } else {
        qemu_bh_delete(chain->bh);
    }
}

/* However long it is; a bottom half that is left over would leak. */
static void test_unref_runs_all_work(void)
{
    AioContext *ctx = test_loop_new();
    Chain chain = { .left = 100 };

    chain.bh = aio_bh_new(ctx, chain_next, &chain, "chain");
    qemu_bh_schedule(chain.bh);
    test_loop_free(ctx);
    g_assert_cmpint(chain.left, ==, 0);
}

static void item_run(ThreadPoolItem *item)
{
}

static void item_done(ThreadPoolItem *item)
{
    Chain *chain = container_of(item, Chain, item);

    if (--chain->left > 0) {
        thread_pool_submit(aio_get_thread_pool(aio_context_current()), item);
    }
}

/* A completion that asks for more finds a pool, not a freed one. */
static void test_unref_completion_submits(void)
{
    AioContext *ctx = test_loop_new();
    Chain chain = { .item = { .run = item_run, .done = item_done,
                              .home = ctx }, .left = 3 };

    thread_pool_submit(aio_get_thread_pool(ctx), &chain.item);
    test_loop_free(ctx);
    g_assert_cmpint(chain.left, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/aio-work/schedule/fifo", test_schedule_fifo);
    g_test_add_func("/aio-work/schedule/no-lost-wakeup",
                    test_schedule_no_lost_wakeup);
    g_test_add_func("/aio-work/schedule/one-ring-a-batch",
                    test_schedule_one_ring_a_batch);
    g_test_add_func("/aio-work/schedule/wakes-iothread",
                    test_schedule_wakes_iothread);
    g_test_add_func("/aio-work/bh/runs-once", test_bh_runs_once);
    g_test_add_func("/aio-work/bh/cancel", test_bh_cancel);
    g_test_add_func("/aio-work/bh/delete-scheduled", test_bh_delete_scheduled);
    g_test_add_func("/aio-work/bh/delete-self", test_bh_delete_self);
    g_test_add_func("/aio-work/bh/reschedule-self", test_bh_reschedule_self);
    g_test_add_func("/aio-work/bh/scheduled-by-thread",
                    test_bh_scheduled_by_thread);
    g_test_add_func("/aio-work/bh/oneshot", test_bh_oneshot);
    g_test_add_func("/aio-work/run-sync/in-its-thread", test_run_sync);
    g_test_add_func("/aio-work/defer/once-and-last",
                    test_defer_runs_once_and_last);
    g_test_add_func("/aio-work/defer/cancel", test_defer_cancel);
    g_test_add_func("/aio-work/defer/again-inside", test_defer_again_inside);
    g_test_add_func("/aio-work/pool/made-on-first-use",
                    test_pool_made_on_first_use);
    g_test_add_func("/aio-work/defer/not-starved", test_defer_not_starved);
    g_test_add_func("/aio-work/unref/runs-all-work", test_unref_runs_all_work);
    g_test_add_func("/aio-work/unref/completion-submits",
                    test_unref_completion_submits);
    return g_test_run();
}
