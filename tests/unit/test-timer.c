/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Timers: when they fire, and what deleting one promises.
 */
#include "aio-test.h"

#define MANY 500

typedef struct Alarm {
    QEMUTimer timer;
    AioContext *ctx;
    int64_t period_ns;          /* to arm it again from its callback */
    int fired;                  /* atomic */
    int64_t fired_at;
    int order;
} Alarm;

static int next_order;

static void alarm_fire(void *opaque)
{
    Alarm *a = opaque;

    g_assert_true(aio_context_current() == a->ctx);
    g_assert_false(timer_pending(&a->timer));
    a->fired_at = qemu_clock_ns();
    a->order = next_order++;
    qatomic_inc(&a->fired);
    if (a->period_ns) {
        timer_mod_ns(&a->timer, a->fired_at + a->period_ns);
    }
}

static void alarm_init(Alarm *a, AioContext *ctx)
{
    *a = (Alarm){ .ctx = ctx };
    timer_init_ns(&a->timer, ctx, alarm_fire, a);
}

static void test_fires_at_its_time(void)
{
    AioContext *ctx = test_loop_new();
    Alarm a;

    alarm_init(&a, ctx);
    g_assert_false(timer_pending(&a.timer));
    for (int i = 1; i <= 5; i++) {
        int64_t at = qemu_clock_ns() + i * NS_PER_MS / 3;

        timer_mod_ns(&a.timer, at);
        g_assert_true(timer_pending(&a.timer));
        test_poll_until(ctx, &a.fired, i);
        g_assert_cmpint(a.fired_at, >=, at);
        g_assert_false(timer_pending(&a.timer));
    }
    g_assert_false(aio_poll(ctx, false));       /* once only */
    test_loop_free(ctx);
}

static void test_fires_in_order(void)
{
    static const int order[] = { 2, 0, 3, 1 };
    AioContext *ctx = test_loop_new();
    int64_t start = qemu_clock_ns();
    Alarm a[4];

    next_order = 0;
    for (int i = 0; i < 4; i++) {
        alarm_init(&a[i], ctx);
        timer_mod_ns(&a[i].timer, start + order[i] * NS_PER_MS / 2);
    }
    while (next_order < 4) {
        aio_poll(ctx, true);
    }
    for (int i = 0; i < 4; i++) {
        g_assert_cmpint(a[i].order, ==, order[i]);
    }
    test_loop_free(ctx);
}

static void test_past_fires_at_once(void)
{
    static const int64_t past[] = { 0, 1, -1, INT64_MIN };
    AioContext *ctx = test_loop_new();
    Alarm a;

    alarm_init(&a, ctx);
    for (int i = 0; i < 4; i++) {
        timer_mod_ns(&a.timer, past[i]);
        g_assert_cmpint(aio_timer_timeout_ns(ctx), ==, 0);
        g_assert_true(aio_poll(ctx, false));
        g_assert_cmpint(a.fired, ==, i + 1);
    }
    test_loop_free(ctx);
}

static void test_mod_replaces(void)
{
    AioContext *ctx = test_loop_new();
    int64_t now = qemu_clock_ns();
    Alarm a, b;

    alarm_init(&a, ctx);
    alarm_init(&b, ctx);
    timer_mod_ns(&a.timer, now);
    timer_mod_ns(&b.timer, now + LONG_NS);
    timer_mod_ns(&a.timer, now + 2 * LONG_NS);  /* later, behind b */
    g_assert_false(aio_poll(ctx, false));
    timer_mod_ns(&b.timer, now);                /* sooner */
    test_poll_until(ctx, &b.fired, 1);
    g_assert_cmpint(a.fired, ==, 0);
    timer_del(&a.timer);
    g_assert_cmpint(aio_timer_timeout_ns(ctx), ==, -1);
    test_loop_free(ctx);
}

static void test_del_before(void)
{
    AioContext *ctx = test_loop_new();
    Alarm a;

    alarm_init(&a, ctx);
    timer_del(&a.timer);                        /* nothing to do */
    timer_mod_ns(&a.timer, 0);
    timer_del(&a.timer);
    g_assert_false(timer_pending(&a.timer));
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(a.fired, ==, 0);
    test_loop_free(ctx);
}

static void free_alarm(void *opaque)
{
    Alarm *a = opaque;

    timer_del(&a->timer);
    qatomic_inc((int *)a->ctx->slots[0].object);
    g_free(a);
}

static void keep_object(void *object)
{
}

static void test_callback_may_free(void)
{
    AioContext *ctx = test_loop_new();
    Alarm *a = g_new0(Alarm, 1);
    int freed = 0;

    aio_context_set_slot(ctx, 0, &freed, keep_object);
    a->ctx = ctx;
    timer_init_ns(&a->timer, ctx, free_alarm, a);
    timer_mod_ns(&a->timer, 0);
    test_poll_until(ctx, &freed, 1);
    test_loop_free(ctx);
}

/* ---- From other threads ---- */

/* The loop sleeps without end, or until a later timer. */
static void test_mod_wakes_loop(void)
{
    IOThread *iothread = iothread_new("timer", &error_abort);
    AioContext *ctx = iothread_get_aio_context(iothread);
    Alarm later, a;

    alarm(MAX_SECONDS);
    alarm_init(&later, ctx);
    alarm_init(&a, ctx);
    for (int i = 1; i <= MANY; i++) {
        if (i == MANY / 2) {
            timer_mod_ns(&later.timer, qemu_clock_ns() + LONG_NS);
        }
        timer_mod_ns(&a.timer, qemu_clock_ns());
        while (qatomic_read(&a.fired) < i) {
            g_thread_yield();
        }
    }
    timer_del(&later.timer);
    timer_del(&a.timer);
    iothread_free(iothread);
    alarm(0);
}

typedef struct Slow {
    QEMUTimer timer;
    QemuEvent entered;
    int returned;               /* atomic */
} Slow;

static void slow_fire(void *opaque)
{
    Slow *slow = opaque;
    QemuEvent never;

    qemu_event_init(&never, false);
    qemu_event_set(&slow->entered);
    qemu_event_timedwait(&never, 5 * NS_PER_MS);
    qemu_event_destroy(&never);
    qatomic_set(&slow->returned, 1);
}

static void test_del_waits_for_callback(void)
{
    IOThread *iothread = iothread_new("timer", &error_abort);
    AioContext *ctx = iothread_get_aio_context(iothread);

    alarm(MAX_SECONDS);
    for (int i = 0; i < 5; i++) {
        Slow slow = { .returned = 0 };

        qemu_event_init(&slow.entered, false);
        timer_init_ns(&slow.timer, ctx, slow_fire, &slow);
        timer_mod_ns(&slow.timer, 0);
        qemu_event_wait(&slow.entered);
        timer_del(&slow.timer);
        g_assert_cmpint(qatomic_read(&slow.returned), ==, 1);
        qemu_event_destroy(&slow.entered);
    }
    iothread_free(iothread);
    alarm(0);
}

/* A periodic timer arms itself while somebody waits to delete it. */
static void test_del_of_periodic(void)
{
    IOThread *iothread = iothread_new("timer", &error_abort);
    AioContext *ctx = iothread_get_aio_context(iothread);

    alarm(MAX_SECONDS);
    for (int i = 0; i < MANY; i++) {
        Alarm *a = g_new(Alarm, 1);
        int seen;

        alarm_init(a, ctx);
        a->period_ns = 1;
        timer_mod_ns(&a->timer, 0);
        while (qatomic_read(&a->fired) < 1 + i % 3) {
            cpu_relax();
        }
        timer_del(&a->timer);
        seen = qatomic_read(&a->fired);
        g_assert_false(timer_pending(&a->timer));
        g_assert_cmpint(qatomic_read(&a->fired), ==, seen);
        g_free(a);
    }
    iothread_free(iothread);
    alarm(0);
}

static void arm_for_the_past(void *opaque)
{
    Alarm *a = opaque;

    qatomic_inc(&a->fired);
    timer_mod_ns(&a->timer, 0);
}

static void set_flag(void *opaque)
{
    *(int *)opaque = 1;
}

static const AioHandlerOps set_flag_ops = { .read = set_flag };

/* A timer that is always late must not keep the loop from all else. */
static void test_late_timer_starves_nobody(void)
{
    AioContext *ctx = test_loop_new();
    EventNotifier e;
    int called = 0;
    Alarm a, b;

    alarm_init(&b, ctx);
    a = (Alarm){ .ctx = ctx };
    timer_init_ns(&a.timer, ctx, arm_for_the_past, &a);
    timer_mod_ns(&a.timer, 0);
    timer_mod_ns(&b.timer, 1);          /* behind it, whenever it is armed */
    event_notifier_init(&e, true);
    aio_set_event_notifier(ctx, &e, &set_flag_ops, &called);
    for (int i = 0; i < 3; i++) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(called, ==, 1);
    g_assert_cmpint(b.fired, ==, 1);
    g_assert_cmpint(a.fired, >=, 3);
    timer_del(&a.timer);
    aio_set_event_notifier(ctx, &e, NULL, NULL);
    event_notifier_cleanup(&e);
    test_loop_free(ctx);
}

static void delete_other(void *opaque)
{
    Alarm *a = opaque;

    qatomic_inc(&a->fired);
    timer_del(&(a + 1)->timer);
}

/* Both are due: the first one to fire deletes the second. */
static void test_del_of_one_that_is_due(void)
{
    AioContext *ctx = test_loop_new();
    Alarm a[2];

    alarm_init(&a[1], ctx);
    a[0] = (Alarm){ .ctx = ctx };
    timer_init_ns(&a[0].timer, ctx, delete_other, &a[0]);
    timer_mod_ns(&a[0].timer, 1);
    timer_mod_ns(&a[1].timer, 2);
    g_assert_true(aio_poll(ctx, false));
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(a[0].fired, ==, 1);
    g_assert_cmpint(a[1].fired, ==, 0);
    test_loop_free(ctx);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/timer/mod/fires-at-its-time", test_fires_at_its_time);
    g_test_add_func("/timer/mod/fires-in-order", test_fires_in_order);
    g_test_add_func("/timer/mod/past-fires-at-once", test_past_fires_at_once);
    g_test_add_func("/timer/mod/replaces", test_mod_replaces);
    g_test_add_func("/timer/mod/wakes-loop", test_mod_wakes_loop);
    g_test_add_func("/timer/del/before", test_del_before);
    g_test_add_func("/timer/del/waits-for-callback",
                    test_del_waits_for_callback);
    g_test_add_func("/timer/del/of-periodic", test_del_of_periodic);
    g_test_add_func("/timer/del/of-one-that-is-due",
                    test_del_of_one_that_is_due);
    g_test_add_func("/timer/callback/late-starves-nobody",
                    test_late_timer_starves_nobody);
    g_test_add_func("/timer/callback/may-free", test_callback_may_free);
    return g_test_run();
}
