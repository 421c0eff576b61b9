/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Adaptive polling, and that a loop without work uses no CPU.
 *
 * The device of these tests suppresses its kicks while it is polled, as a
 * virtqueue does: the producer counts up and rings only if it may be needed.
 */
#include "aio-test.h"

#define MANY 20000

typedef struct Device {
    AioContext *ctx;
    EventNotifier kick;
    int produced;               /* atomic */
    int suppressed;             /* atomic: between begin and end */
    int consumed;
    int begins;
    int ends;
    int wanted;                 /* of what was produced, for the producer */
} Device;

static void device_read(void *opaque)
{
    Device *d = opaque;

    d->consumed = qatomic_load_sc(&d->produced);
}

static bool device_poll(void *opaque)
{
    Device *d = opaque;

    g_assert_true(d->suppressed || d->ends > 0);
    return qatomic_load_sc(&d->produced) != d->consumed;
}

static void device_poll_begin(void *opaque)
{
    Device *d = opaque;

    g_assert_cmpint(d->begins++, ==, d->ends);
    qatomic_set_mb(&d->suppressed, 1);
}

static void device_poll_end(void *opaque)
{
    Device *d = opaque;

    g_assert_cmpint(d->begins, ==, ++d->ends);
    qatomic_set_mb(&d->suppressed, 0);
}

static const AioHandlerOps device_ops = {
    .read = device_read,
    .poll = device_poll,
    .poll_begin = device_poll_begin,
    .poll_end = device_poll_end,
};

static void device_init(Device *d, AioContext *ctx)
{
    *d = (Device){ .ctx = ctx };
    g_assert_cmpint(event_notifier_init(&d->kick, false), ==, 0);
    aio_set_event_notifier(ctx, &d->kick, &device_ops, d);
}

static void device_destroy(Device *d)
{
    aio_set_event_notifier(d->ctx, &d->kick, NULL, NULL);
    g_assert_cmpint(d->begins, ==, d->ends);
    event_notifier_cleanup(&d->kick);
}

static void device_produce(Device *d)
{
    qatomic_fetch_inc(&d->produced);
    if (!qatomic_load_sc(&d->suppressed)) {
        event_notifier_set(&d->kick);
    }
}

static void *device_producer(void *opaque)
{
    Device *d = opaque;
    unsigned random = 1;

    for (int i = 0; i < d->wanted; i++) {
        random = random * 1103515245 + 12345;
        for (unsigned n = (random >> 16) % 400; n; n--) {
            cpu_relax();
        }
        device_produce(d);
    }
    return NULL;
}

/* A kick that gets lost between poll_end and the sleep would hang this. */
static void run_device(int64_t max_ns, int wanted)
{
    AioContext *ctx = test_loop_new();
    QemuThread thread;
    Device d;

    device_init(&d, ctx);
    d.wanted = wanted;
    aio_context_set_poll_params(ctx, max_ns, 0, 0);
    qemu_thread_create(&thread, "producer", device_producer, &d);
    test_poll_until(ctx, &d.consumed, wanted);
    qemu_thread_join(&thread);
    if (max_ns == 0) {
        g_assert_cmpint(d.begins, ==, 0);
    }
    device_destroy(&d);
    test_loop_free(ctx);
}

static void test_off(void)
{
    run_device(0, MANY);
}

static void test_short(void)
{
    run_device(2000, MANY);
}

static void test_long(void)
{
    run_device(NS_PER_MS, MANY);
}

/* Ends polling by parameters; what was not announced must be found. */
static void stop_polling(AioContext *ctx)
{
    aio_context_set_poll_params(ctx, 0, 0, 0);
    ctx->notified = 0;                  /* as if it had come long ago */
}

/* A loop that will poll for long. */
static AioContext *polling_loop(void)
{
    AioContext *ctx = test_loop_new();

    aio_context_set_poll_params(ctx, LONG_NS, 0, 0);
    aio_poll(ctx, true);                /* for the new parameters */
    ctx->poll_ns = LONG_NS;             /* as if it had paid off */
    return ctx;
}

/* Make it poll @d, whose notifier was never raised. */
static void start_polling(Device *d)
{
    d->produced++;
    g_assert_true(aio_poll(d->ctx, true));
    g_assert_cmpint(d->consumed, ==, 1);
    g_assert_true(d->suppressed);
}

/* Works without system calls in either direction while it pays off. */
static void test_polls_before_it_sleeps(void)
{
    AioContext *ctx = polling_loop();
    Device d;

    device_init(&d, ctx);
    start_polling(&d);
    g_assert_cmpint(d.begins, ==, 1);
    g_assert_cmpint(d.ends, ==, 0);     /* still polling */
    device_produce(&d);
    stop_polling(ctx);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(d.consumed, ==, 2);
    g_assert_cmpint(d.ends, ==, 1);
    device_destroy(&d);
    test_loop_free(ctx);
}

/* Both have work that nobody announces: none may be left when it sleeps. */
static void test_end_looks_at_all(void)
{
    AioContext *ctx = polling_loop();
    Device a, b;

    device_init(&a, ctx);
    device_init(&b, ctx);
    start_polling(&a);
    g_assert_true(b.suppressed);
    device_produce(&a);
    device_produce(&b);
    stop_polling(ctx);
    while (a.consumed < 2 || b.consumed < 1) {
        g_assert_true(aio_poll(ctx, true));
    }
    device_destroy(&a);
    device_destroy(&b);
    test_loop_free(ctx);
}

static void test_nonblocking_polls(void)
{
    AioContext *ctx = polling_loop();
    Device d;

    device_init(&d, ctx);
    start_polling(&d);
    device_produce(&d);
    g_assert_true(aio_poll(ctx, false));
    g_assert_cmpint(d.consumed, ==, 2);
    device_destroy(&d);
    test_loop_free(ctx);
}

/* ---- Fairness ---- */

static bool always(void *opaque)
{
    return true;
}

static void do_nothing(void *opaque)
{
}

static const AioHandlerOps busy_ops = {
    .read = do_nothing,
    .poll = always,
    .poll_begin = do_nothing,
    .poll_end = do_nothing,
};

static void count_call(void *opaque)
{
    ++*(int *)opaque;
}

static const AioHandlerOps count_call_ops = { .read = count_call };

/* A busy queue must not keep the loop from its sockets. */
static void test_busy_starves_no_descriptor(void)
{
    AioContext *ctx = polling_loop();
    EventNotifier busy, plain;
    int calls = 0;

    event_notifier_init(&busy, false);
    event_notifier_init(&plain, true);
    aio_set_event_notifier(ctx, &busy, &busy_ops, NULL);
    aio_set_event_notifier(ctx, &plain, &count_call_ops, &calls);
    for (int i = 0; i < 100 && !calls; i++) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(calls, ==, 1);
    aio_set_event_notifier(ctx, &busy, NULL, NULL);
    aio_set_event_notifier(ctx, &plain, NULL, NULL);
    event_notifier_cleanup(&busy);
    event_notifier_cleanup(&plain);
    test_loop_free(ctx);
}

static void schedule_self(void *opaque)
{
    qemu_bh_schedule(*(QEMUBH **)opaque);
}

/* Nor must work without end keep it from queues that do not notify. */
static void test_work_starves_no_device(void)
{
    AioContext *ctx = polling_loop();
    QEMUBH *bh;
    Device d;

    device_init(&d, ctx);
    start_polling(&d);
    bh = aio_bh_new(ctx, schedule_self, &bh, "endless");
    qemu_bh_schedule(bh);
    device_produce(&d);
    for (int i = 0; i < 100 && d.consumed < 2; i++) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(d.consumed, ==, 2);
    qemu_bh_delete(bh);
    device_destroy(&d);
    test_loop_free(ctx);
}

/* ---- Callbacks that change what is being walked ---- */

typedef struct Meddler {
    AioContext *ctx;
    EventNotifier e[3];
    int begins;
    int ends;
} Meddler;

static void meddle_begin(void *opaque);
static void meddle_end(void *opaque);

static bool never(void *opaque)
{
    return false;
}

static const AioHandlerOps meddler_ops = {
    .read = do_nothing,
    .poll = never,
    .poll_begin = meddle_begin,
    .poll_end = meddle_end,
};

/* The first one to be told removes itself and a plain one, and adds one. */
static void meddle_begin(void *opaque)
{
    Meddler *m = opaque;

    if (m->begins++ == 0) {
        aio_set_event_notifier(m->ctx, &m->e[0], NULL, NULL);
        aio_set_event_notifier(m->ctx, &m->e[1], NULL, NULL);
        aio_set_event_notifier(m->ctx, &m->e[2], &meddler_ops, m);
    }
}

static void meddle_end(void *opaque)
{
    Meddler *m = opaque;

    m->ends++;
    aio_set_event_notifier(m->ctx, &m->e[2], NULL, NULL);
}

static void test_change_in_begin_and_end(void)
{
    AioContext *ctx = test_loop_new();
    Meddler m = { .ctx = ctx };

    for (int i = 0; i < 3; i++) {
        event_notifier_init(&m.e[i], false);
    }
    aio_set_event_notifier(ctx, &m.e[0], &meddler_ops, &m);
    aio_set_event_notifier(ctx, &m.e[1], &busy_ops, &m);
    aio_context_set_poll_params(ctx, NS_PER_MS, 0, 0);
    aio_poll(ctx, true);
    ctx->poll_ns = NS_PER_MS;
    for (int i = 0; i < 20; i++) {
        aio_notify(ctx);
        aio_poll(ctx, true);
        stop_polling(ctx);
        aio_notify(ctx);
        aio_poll(ctx, true);
        aio_context_set_poll_params(ctx, NS_PER_MS, 0, 0);
        ctx->poll_ns = NS_PER_MS;
    }
    for (int i = 0; i < 3; i++) {
        aio_set_event_notifier(ctx, &m.e[i], NULL, NULL);
        event_notifier_cleanup(&m.e[i]);
    }
    g_assert_cmpint(m.begins, ==, m.ends);
    g_assert_cmpint(m.begins, >=, 2);
    test_loop_free(ctx);
}

/* ---- The time to poll ---- */

static void test_time_stays_below_max(void)
{
    AioContext *ctx = polling_loop();
    Device d;

    device_init(&d, ctx);
    aio_context_set_poll_params(ctx, 1000, INT64_MAX, 0);
    device_produce(&d);
    aio_poll(ctx, true);
    g_assert_cmpint(ctx->poll_ns, <=, 1000);
    ctx->poll_ns = 10;
    for (int i = 0; i < 1000; i++) {    /* grows, by far too much */
        aio_notify(ctx);
        aio_poll(ctx, true);
        g_assert_cmpint(ctx->poll_ns, >=, 0);
        g_assert_cmpint(ctx->poll_ns, <=, 1000);
    }
    device_destroy(&d);
    test_loop_free(ctx);
}

static bool blind_poll(void *opaque)
{
    return false;
}

/* Its kicks come soon after each sleep, but polling does not find them. */
static const AioHandlerOps blind_ops = {
    .read = device_read,
    .poll = blind_poll,
    .poll_begin = device_poll_begin,
    .poll_end = device_poll_end,
};

static void test_vain_polls_get_rare(void)
{
    AioContext *ctx = test_loop_new();
    Device d;

    device_init(&d, ctx);
    aio_set_event_notifier(ctx, &d.kick, &blind_ops, &d);
    aio_context_set_poll_params(ctx, 200 * 1000, 0, 0);
    aio_poll(ctx, true);
    for (int i = 0; i < 2000; i++) {
        event_notifier_set(&d.kick);
        aio_poll(ctx, true);
    }
    g_assert_cmpint(d.begins, >, 0);
    g_assert_cmpint(d.begins, <, 400);

    /* Once polls do find something, there are more of them again. */
    aio_set_event_notifier(ctx, &d.kick, &device_ops, &d);
    d.begins = d.ends = 0;
    for (int i = 0; i < 2000; i++) {
        ctx->poll_ns = 200 * 1000;
        device_produce(&d);
        aio_poll(ctx, true);
    }
    g_assert_cmpint(d.begins, >, 0);
    g_assert_cmpuint(ctx->poll_penalty, ==, 0);
    device_destroy(&d);
    test_loop_free(ctx);
}

/* ---- The idle loop ---- */

static void get_thread_cpu_ns(void *opaque)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    *(int64_t *)opaque = ts.tv_sec * 1000 * NS_PER_MS + ts.tv_nsec;
}

static void set_up_device(void *opaque)
{
    Device *d = opaque;

    device_init(d, aio_context_current());
}

static void tear_down_device(void *opaque)
{
    device_destroy(opaque);
}

static void check_idle(int64_t poll_max_ns)
{
    const int64_t interval = 200 * NS_PER_MS;
    IOThread *iothread = iothread_new("idle", &error_abort);
    AioContext *ctx = iothread_get_aio_context(iothread);
    int64_t before, after;
    QemuEvent never;
    Device d;

    qemu_event_init(&never, false);
    aio_run_sync(ctx, set_up_device, &d);
    aio_context_set_poll_params(ctx, poll_max_ns, 0, 0);
    aio_run_sync(ctx, get_thread_cpu_ns, &before);
    g_assert_false(qemu_event_timedwait(&never, interval));
    aio_run_sync(ctx, get_thread_cpu_ns, &after);
    g_assert_cmpint(after - before, <, interval / 10);
    aio_run_sync(ctx, tear_down_device, &d);
    iothread_free(iothread);
    qemu_event_destroy(&never);
}

static void test_idle(void)
{
    check_idle(0);
}

static void test_idle_with_polling(void)
{
    check_idle(NS_PER_MS);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/aio-poll/device/off", test_off);
    g_test_add_func("/aio-poll/device/short", test_short);
    g_test_add_func("/aio-poll/device/long", test_long);
    g_test_add_func("/aio-poll/device/polls-before-it-sleeps",
                    test_polls_before_it_sleeps);
    g_test_add_func("/aio-poll/device/end-looks-at-all",
                    test_end_looks_at_all);
    g_test_add_func("/aio-poll/device/nonblocking-polls",
                    test_nonblocking_polls);
    g_test_add_func("/aio-poll/fair/busy-starves-no-descriptor",
                    test_busy_starves_no_descriptor);
    g_test_add_func("/aio-poll/fair/work-starves-no-device",
                    test_work_starves_no_device);
    g_test_add_func("/aio-poll/handlers/change-in-begin-and-end",
                    test_change_in_begin_and_end);
    g_test_add_func("/aio-poll/time/stays-below-max",
                    test_time_stays_below_max);
    g_test_add_func("/aio-poll/time/vain-polls-get-rare",
                    test_vain_polls_get_rare);
    g_test_add_func("/aio-poll/idle/no-cpu", test_idle);
    g_test_add_func("/aio-poll/idle/no-cpu-with-polling",
                    test_idle_with_polling);
    return g_test_run();
}
