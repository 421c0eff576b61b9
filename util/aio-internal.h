/*
 * What the files of AioContext share: async.c (work from any thread, the
 * iteration), aio-posix.c or aio-win32.c (waiting and handlers), qemu-timer.c.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef AIO_INTERNAL_H
#define AIO_INTERNAL_H

#include "block/aio.h"
#include "block/lock-order.h"

typedef struct AioWaiter AioWaiter;   /* handlers and how to wait for them */

typedef struct AioSlotObject {
    void *object;
    void (*destroy)(void *object);
} AioSlotObject;

struct AioContext {
    int refcnt;                 /* atomic */
    AioWaiter *waiter;          /* constant; its contents: owner thread */
    EventNotifier notifier;     /* constant */

    /* Any thread, atomic: see the essay of async.c. */
    AioWork *inbox;             /* pushed in front: newest first */
    int notify_me;
    int notified;
    bool has_owner;

    /* Owner thread. */
    AioWork *local_first;       /* work in the order of running */
    AioWork **local_last;
    List deferred;
    bool in_poll;
    AioSlotObject slots[AIO_SLOT__MAX];
    int64_t poll_max_ns;        /* these three atomic: set by any thread */
    int64_t poll_grow;
    int64_t poll_shrink;
    int64_t poll_ns;            /* current estimate */
    int polls_in_a_row;         /* that found something */
    unsigned poll_penalty;      /* of late, those that did not */
    unsigned poll_skip;         /* so many waits go without a poll */

    /* Any thread. */
    ContextLock lock;
    ThreadPool *pool;           /* set once under the lock, read atomically */
    int pool_min GUARDED_BY(context_class);
    int pool_max GUARDED_BY(context_class);

    TimerLock timer_lock;
    QemuCond timer_cond;        /* running_timer has changed */
    List timers GUARDED_BY(timer_class);      /* earliest first */
    QEMUTimer *running_timer GUARDED_BY(timer_class);
    int64_t next_timer_ns;      /* atomic; INT64_MAX: none */
};

/* util/aio-posix.c, aio-win32.c; all in the owner thread. */
AioWaiter *aio_waiter_new(AioContext *ctx, Error **errp);
void aio_waiter_free(AioWaiter *w);
/*
 * Wait up to @timeout_ns (0: look only, negative: for ever) and call the
 * handlers of what is ready.  True if one was called.  To sleep, end polling
 * first.
 */
bool aio_waiter_wait(AioContext *ctx, int64_t timeout_ns);
/* Look for work without sleeping for up to @ns; true if some was found. */
bool aio_waiter_busy_poll(AioContext *ctx, int64_t ns);
/* After it, everything notifies again; true if a handler was called. */
bool aio_waiter_end_polling(AioContext *ctx);

/* util/async.c: would the loop find work that needs no system call? */
bool aio_has_pending_work(AioContext *ctx);

/* util/qemu-timer.c, owner thread: run what is due; true if any was. */
bool aio_run_timers(AioContext *ctx);
/* Nanoseconds to the next timer; 0: due, -1: there is none. */
int64_t aio_timer_timeout_ns(AioContext *ctx);

#endif
