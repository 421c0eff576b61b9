/*
 * AioContext: the iteration of the loop, and work that any thread hands to it.
 *
 * Other threads push work (completions, bottom halves) on ctx->inbox, a
 * lock-free stack.  The owner takes the whole stack at once, turns it round and
 * appends it to its local list, so work runs in the order in which one thread
 * scheduled it.  What the owner schedules itself goes to the local list without
 * an atomic operation.
 *
 * Waking.  The notifier costs a system call at both ends, so it is rung only
 * for a loop that sleeps or is about to:
 *
 *     any thread                        owner
 *     push on inbox (or notified = 1)   notify_me = 1
 *     full barrier                      full barrier
 *     if notify_me: take it, ring       if inbox or notified: do not sleep
 *                                       sleep; notify_me = 0; clear notifier
 *
 * Whichever of the two barriers comes second sees the other side's store, so
 * either the owner stays awake or the notifier is rung.  The notifier is only
 * cleared by an owner that is awake and will look at everything before it
 * announces the next sleep.  tests/spin/aio-notify.pml is a model of this.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error.h"
#include "block/thread-pool.h"
#include "aio-internal.h"

/* Rounds of work in one iteration before file descriptors get a look-in. */
#define MAX_ROUNDS 16

/* Successful busy polls in a row, before the same. */
#define MAX_POLLS 16

/* Polls in vain that are remembered, and how many cost the next wait its. */
#define MAX_POLL_PENALTY 256
#define POLL_PENALTY_UNIT 4

static __thread AioContext *current_context;

AioContext *aio_context_current(void)
{
    return current_context;
}

void aio_context_enter(AioContext *ctx)
{
    assert(!current_context);
    current_context = ctx;
    qatomic_set(&ctx->has_owner, true);
}

void aio_context_leave(AioContext *ctx)
{
    assert(current_context == ctx);
    qatomic_set(&ctx->has_owner, false);
    current_context = NULL;
}

bool aio_context_has_owner(AioContext *ctx)
{
    return qatomic_read(&ctx->has_owner);
}

AioContext *aio_context_new(Error **errp)
{
    AioContext *ctx = g_new0(AioContext, 1);
    int ret = event_notifier_init(&ctx->notifier, false);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not create an event notifier");
        g_free(ctx);
        return NULL;
    }
    ctx->waiter = aio_waiter_new(ctx, errp);
    if (!ctx->waiter) {
        event_notifier_cleanup(&ctx->notifier);
        g_free(ctx);
        return NULL;
    }
    ctx->refcnt = 1;
    ctx->local_last = &ctx->local_first;
    ctx->next_timer_ns = INT64_MAX;
    list_init(&ctx->deferred);
    context_init(&ctx->lock);
    timer_init(&ctx->timer_lock);
    qemu_cond_init(&ctx->timer_cond);
    list_init(&ctx->timers);
    return ctx;
}

AioContext *aio_context_ref(AioContext *ctx)
{
    qatomic_fetch_inc(&ctx->refcnt);
    return ctx;
}

/* ---- Waking ---- */

static void wake(AioContext *ctx)
{
    smp_mb();
    if (qatomic_read(&ctx->notify_me) && qatomic_xchg(&ctx->notify_me, 0)) {
        event_notifier_set(&ctx->notifier);
    }
}

void aio_notify(AioContext *ctx)
{
    qatomic_store_release(&ctx->notified, 1);
    wake(ctx);
}

/* ---- Work ---- */

static void local_append(AioContext *ctx, AioWork *work)
{
    work->next = NULL;
    *ctx->local_last = work;
    ctx->local_last = &work->next;
}

static void inbox_push(AioContext *ctx, AioWork *work)
{
    AioWork *old = qatomic_read(&ctx->inbox);
    AioWork *seen;

    for (;;) {
        work->next = old;
        seen = qatomic_cmpxchg(&ctx->inbox, old, work);
        if (seen == old) {
            return;
        }
        old = seen;
    }
}

void aio_schedule(AioContext *ctx, AioWork *work)
{
    if (ctx == current_context) {
        local_append(ctx, work);
        return;
    }
    inbox_push(ctx, work);
    wake(ctx);
}

static void take_inbox(AioContext *ctx)
{
    AioWork *newest, *oldest = NULL;

    if (!qatomic_read(&ctx->inbox)) {
        return;
    }
    newest = qatomic_xchg(&ctx->inbox, NULL);
    while (newest) {
        AioWork *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        AioWork *next = oldest->next;

        local_append(ctx, oldest);
        oldest = next;
    }
}

/* Run what is there now; what it schedules in turn waits for the next round. */
static bool run_work(AioContext *ctx)
{
    AioWork *work;

    take_inbox(ctx);
    work = ctx->local_first;
    if (!work) {
        return false;
    }
    ctx->local_first = NULL;
    ctx->local_last = &ctx->local_first;
    while (work) {
        AioWork *next = work->next;

        work->fn(work);
        work = next;
    }
    return true;
}

/* ---- The end of an iteration ---- */

void aio_deferred_init(AioDeferred *d, void (*fn)(AioDeferred *d))
{
    d->fn = fn;
    list_node_init(&d->node);
}

void aio_defer(AioContext *ctx, AioDeferred *d)
{
    assert(ctx == current_context);
    if (!list_node_linked(&d->node)) {
        list_push_back(&ctx->deferred, &d->node);
    }
}

void aio_defer_cancel(AioDeferred *d)
{
    list_remove(&d->node);
}

static bool run_deferred(AioContext *ctx)
{
    List now;
    AioDeferred *d;

    if (list_is_empty(&ctx->deferred)) {
        return false;
    }
    list_init(&now);
    list_splice_back(&now, &ctx->deferred);
    while ((d = list_pop_front(&now, AioDeferred, node))) {
        d->fn(d);
    }
    return true;
}

/* ---- The iteration ---- */

bool aio_has_pending_work(AioContext *ctx)
{
    return ctx->local_first || qatomic_read(&ctx->inbox) ||
           !list_is_empty(&ctx->deferred);
}

static bool run_pending(AioContext *ctx)
{
    bool progress = false;
    int i;

    for (i = 0; i < MAX_ROUNDS; i++) {
        bool some = run_work(ctx);

        some |= aio_run_timers(ctx);
        /* Deferred last, when the work it waits for has run; but it does not
         * wait for work without end. */
        if (!ctx->local_first || i == MAX_ROUNDS - 1) {
            some |= run_deferred(ctx);
        }
        if (!some) {
            break;
        }
        progress = true;
    }
    return progress;
}

/* Announce the sleep, then look once more: the right side of the essay. */
static int64_t prepare_to_sleep(AioContext *ctx)
{
    qatomic_set(&ctx->notify_me, 1);
    smp_mb();
    if (aio_has_pending_work(ctx) || qatomic_read(&ctx->notified)) {
        return 0;
    }
    return aio_timer_timeout_ns(ctx);
}

static int64_t grown_poll_time(AioContext *ctx, int64_t max)
{
    int64_t grow = qatomic_read(&ctx->poll_grow);

    grow = grow > 0 ? grow : 2;
    if (!ctx->poll_ns) {
        return MIN(max, 4000);
    }
    return ctx->poll_ns > max / grow ? max : ctx->poll_ns * grow;
}

static void adapt_poll_time(AioContext *ctx, int64_t waited_ns, int64_t max)
{
    int64_t shrink = qatomic_read(&ctx->poll_shrink);

    if (waited_ns <= ctx->poll_ns) {
        return;                         /* it paid off */
    }
    if (waited_ns > max) {              /* nothing comes soon enough */
        ctx->poll_ns = shrink > 0 ? ctx->poll_ns / shrink : 0;
    } else {                            /* a little more would have done */
        ctx->poll_ns = grown_poll_time(ctx, max);
    }
}

/*
 * Work may come soon after every sleep, but never while we poll: if whoever
 * makes it runs on our processor, say.  Then a longer time is of no use.  So
 * polls in vain are counted, and after the next one as many waits go without as
 * a part of that count; each poll that finds something halves it.  One that
 * finds something every now and then is still worth it, as sleeping and being
 * woken costs several polls.
 */
static bool poll_in_vain(AioContext *ctx)
{
    ctx->poll_penalty = MIN(ctx->poll_penalty + 1, MAX_POLL_PENALTY);
    ctx->poll_skip = ctx->poll_penalty / POLL_PENALTY_UNIT;
    return false;
}

/* True if there was something, so that there is no need to sleep. */
static bool busy_poll(AioContext *ctx, int64_t max)
{
    ctx->poll_ns = MIN(ctx->poll_ns, max);
    if (!ctx->poll_ns) {
        return false;
    }
    if (ctx->poll_skip) {
        ctx->poll_skip--;
        return false;
    }
    if (!aio_waiter_busy_poll(ctx, ctx->poll_ns)) {
        return poll_in_vain(ctx);
    }
    ctx->poll_penalty /= 2;
    if (++ctx->polls_in_a_row >= MAX_POLLS) {
        ctx->polls_in_a_row = 0;
        aio_waiter_wait(ctx, 0);
    }
    return true;
}

static bool wait_for_work(AioContext *ctx)
{
    int64_t max = qatomic_read(&ctx->poll_max_ns);
    int64_t start = max > 0 ? qemu_clock_ns() : 0;
    bool progress;

    if (max > 0 && busy_poll(ctx, max)) {
        return true;
    }
    ctx->polls_in_a_row = 0;
    progress = aio_waiter_end_polling(ctx);
    progress |= aio_waiter_wait(ctx, progress ? 0 : prepare_to_sleep(ctx));
    if (max > 0) {
        adapt_poll_time(ctx, qemu_clock_ns() - start, max);
    }
    return progress;
}

bool aio_poll(AioContext *ctx, bool blocking)
{
    bool progress;

    assert(ctx == current_context);
    assert(!ctx->in_poll);
    ctx->in_poll = true;

    progress = run_pending(ctx);
    if (blocking && !progress && !aio_has_pending_work(ctx)) {
        progress = wait_for_work(ctx);
    } else {
        progress |= aio_waiter_wait(ctx, 0);
    }
    if (qatomic_read(&ctx->notified)) {
        qatomic_xchg(&ctx->notified, 0);
    }
    progress |= run_pending(ctx);

    ctx->in_poll = false;
    return progress;
}

void aio_context_set_poll_params(AioContext *ctx, int64_t max_ns, int64_t grow,
                                 int64_t shrink)
{
    qatomic_set(&ctx->poll_grow, grow);
    qatomic_set(&ctx->poll_shrink, shrink);
    qatomic_set(&ctx->poll_max_ns, max_ns);
    aio_notify(ctx);
}

/* ---- What belongs to a context ---- */

ThreadPool *aio_get_thread_pool(AioContext *ctx)
{
    ThreadPool *pool = qatomic_load_acquire(&ctx->pool);

    if (pool) {
        return pool;
    }
    context_lock(&ctx->lock);
    pool = ctx->pool;
    if (!pool) {
        pool = thread_pool_new(ctx->pool_min, ctx->pool_max);
        qatomic_store_release(&ctx->pool, pool);
    }
    context_unlock(&ctx->lock);
    return pool;
}

void aio_context_set_pool_limits(AioContext *ctx, int min, int max)
{
    ThreadPool *pool;

    context_lock(&ctx->lock);
    ctx->pool_min = min;
    ctx->pool_max = max;
    pool = ctx->pool;
    context_unlock(&ctx->lock);
    if (pool) {
        thread_pool_set_limits(pool, min, max);
    }
}

void *aio_context_get_slot(AioContext *ctx, AioSlot slot)
{
    return ctx->slots[slot].object;
}

void aio_context_set_slot(AioContext *ctx, AioSlot slot, void *object,
                          void (*destroy)(void *object))
{
    assert(!object || !ctx->slots[slot].object);
    ctx->slots[slot] = (AioSlotObject){ object, destroy };
}

/* Everything that was asked for, and what that asks for in turn. */
static void finish_work(AioContext *ctx)
{
    ThreadPool *pool;

    do {
        pool = ctx->pool;
        ctx->pool = NULL;               /* a completion may want a new one */
        if (pool) {
            thread_pool_free(pool);
        }
    } while (run_pending(ctx) || pool || ctx->pool);
}

void aio_context_unref(AioContext *ctx)
{
    AioContext *previous = current_context;
    int i;

    if (qatomic_fetch_dec(&ctx->refcnt) > 1) {
        return;
    }
    current_context = ctx;              /* the last of its work runs here */
    finish_work(ctx);
    for (i = 0; i < AIO_SLOT__MAX; i++) {
        if (ctx->slots[i].object) {
            ctx->slots[i].destroy(ctx->slots[i].object);
        }
    }
    finish_work(ctx);
    current_context = previous == ctx ? NULL : previous;

    aio_waiter_free(ctx->waiter);
    event_notifier_cleanup(&ctx->notifier);
    qemu_cond_destroy(&ctx->timer_cond);
    timer_destroy(&ctx->timer_lock);
    context_destroy(&ctx->lock);
    g_free(ctx);
}
