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

/* Works without system calls in either direction while it pays off. */
static void test_polls_before_it_sleeps(void)
{
    AioContext *ctx = test_loop_new();
    Device d;

    device_init(&d, ctx);
    aio_context_set_poll_params(ctx, LONG_NS, 0, 0);
    aio_poll(ctx, true);                /* for the new parameters */
    ctx->poll_ns = LONG_NS;             /* as if it had paid off */
    d.produced = 1;                     /* without a kick */
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(d.consumed, ==, 1);
    g_assert_cmpint(d.begins, ==, 1);
    g_assert_cmpint(d.ends, ==, 0);     /* still polling */
    aio_context_set_poll_params(ctx, 0, 0, 0);
    aio_poll(ctx, true);
    device_destroy(&d);
    test_loop_free(ctx);
}

/* Ends polling by parameters; what was not announced must be found. */
static void stop_polling(AioContext *ctx)
{
    aio_context_set_poll_params(ctx, 0, 0, 0);
    ctx->notified = 0;                  /* as if it had come long ago */
}

/* ---- Callbacks that change what is being walked ---- */

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
    g_test_add_func("/aio-poll/handlers/change-in-begin-and-end",
                    test_change_in_begin_and_end);
    g_test_add_func("/aio-poll/idle/no-cpu", test_idle);
    g_test_add_func("/aio-poll/idle/no-cpu-with-polling",
                    test_idle_with_polling);
    return g_test_run();
}
