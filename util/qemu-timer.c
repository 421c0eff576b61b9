/*
 * Timers of an AioContext: a list, earliest first, under the timer lock.
 *
 * The loop reads the earliest time without the lock (next_timer_ns), so an
 * iteration with nothing due costs one load.  Whoever arms a timer that becomes
 * the earliest notifies the loop, which may be asleep until a later one.
 *
 * What is due is moved to a list of its own before the first callback runs, so
 * that a timer which arms itself for the past waits for the next round.
 *
 * Deleting a timer whose callback runs waits for it on a condition variable,
 * with "this timer is not the running one" as its predicate.  Meanwhile the
 * timer cannot be armed: a callback that does so each time would otherwise run
 * again, and again, before the waiting thread gets its turn.  The callback
 * itself may delete and free its timer.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "aio-internal.h"

void timer_init_ns(QEMUTimer *t, AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    *t = (QEMUTimer){ .ctx = ctx, .cb = cb, .opaque = opaque };
}

static void update_next_locked(AioContext *ctx) REQUIRES(timer_class)
{
    QEMUTimer *first = list_first(&ctx->timers, QEMUTimer, node);

    qatomic_set(&ctx->next_timer_ns, first ? first->expire_ns : INT64_MAX);
}

static void disarm_locked(QEMUTimer *t) REQUIRES(timer_class)
{
    if (t->armed) {
        t->armed = false;
        list_remove(&t->node);
    }
}

static void arm_locked(QEMUTimer *t, int64_t expire_ns) REQUIRES(timer_class)
{
    AioContext *ctx = t->ctx;
    ListNode *after = ctx->timers.head.prev;

    /* From the back: most timers are armed for later than those there are. */
    while (after != &ctx->timers.head &&
           list_entry(after, QEMUTimer, node)->expire_ns > expire_ns) {
        after = after->prev;
    }
    t->expire_ns = expire_ns;
    t->armed = true;
    list_insert_after(after, &t->node);
}

void timer_mod_ns(QEMUTimer *t, int64_t expire_ns)
{
    AioContext *ctx = t->ctx;
    bool is_first;

    timer_lock(&ctx->timer_lock);
    disarm_locked(t);
    if (!t->deleters) {
        arm_locked(t, expire_ns);
    }
    update_next_locked(ctx);
    is_first = ctx->timers.head.next == &t->node;
    timer_unlock(&ctx->timer_lock);

    if (is_first && aio_context_current() != ctx) {
        aio_notify(ctx);
    }
}

void timer_del(QEMUTimer *t)
{
    AioContext *ctx = t->ctx;

    timer_lock(&ctx->timer_lock);
    disarm_locked(t);
    update_next_locked(ctx);
    if (aio_context_current() != ctx) {
        t->deleters++;
        while (ctx->running_timer == t) {
            timer_wait(&ctx->timer_cond, &ctx->timer_lock);
        }
        t->deleters--;
    }
    timer_unlock(&ctx->timer_lock);
}

bool timer_pending(QEMUTimer *t)
{
    bool armed;

    timer_lock(&t->ctx->timer_lock);
    armed = t->armed;
    timer_unlock(&t->ctx->timer_lock);
    return armed;
}

int64_t aio_timer_timeout_ns(AioContext *ctx)
{
    int64_t next = qatomic_read(&ctx->next_timer_ns);
    int64_t now;

    if (next == INT64_MAX) {
        return -1;
    }
    now = qemu_clock_ns();
    return next > now ? next - now : 0;
}

static void take_due_locked(AioContext *ctx, List *due) REQUIRES(timer_class)
{
    int64_t now = qemu_clock_ns();
    QEMUTimer *t;

    while ((t = list_first(&ctx->timers, QEMUTimer, node)) &&
           t->expire_ns <= now) {
        list_remove(&t->node);
        list_push_back(due, &t->node);
    }
    update_next_locked(ctx);
}

bool aio_run_timers(AioContext *ctx)
{
    List due = LIST_INITIALIZER(due);
    bool progress = false;
    QEMUTimer *t;

    if (likely(aio_timer_timeout_ns(ctx) != 0)) {
        return false;
    }
    timer_lock(&ctx->timer_lock);
    take_due_locked(ctx, &due);
    while ((t = list_first(&due, QEMUTimer, node))) {
        QEMUBHFunc *cb = t->cb;
        void *opaque = t->opaque;

        disarm_locked(t);
        ctx->running_timer = t;
        timer_unlock(&ctx->timer_lock);
        cb(opaque);
        timer_lock(&ctx->timer_lock);
        ctx->running_timer = NULL;
        qemu_cond_broadcast(&ctx->timer_cond);
        progress = true;
    }
    timer_unlock(&ctx->timer_lock);
    return progress;
}
