/*
 * AioContext: an event loop that one thread runs.
 *
 * The owner thread calls aio_poll() in a loop; each call handles what is ready
 * (file descriptors, event notifiers, timers, bottom halves and completions),
 * then runs what was deferred to the end of the iteration (submitting a batch,
 * interrupting a guest once), and sleeps if nothing was ready.
 *
 * What other threads may call says so: scheduling a bottom half, completing,
 * aio_notify().  All of it is lock-free.  The rest belongs to the owner thread,
 * or to the thread that sets up a context before its owner starts.
 *
 * A handler never runs a loop: there are no nested event loops.  To wait, use a
 * thread that may block.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_AIO_H
#define BLOCK_AIO_H

#include "qemu/osdep.h"
#include "qemu/error.h"
#include "qemu/event_notifier.h"
#include "qemu/list.h"

typedef struct AioContext AioContext;
typedef struct ThreadPool ThreadPool;

/* A new context, or NULL with @errp.  The caller owns the one reference. */
AioContext *aio_context_new(Error **errp);
AioContext *aio_context_ref(AioContext *ctx);
/*
 * The last reference is dropped when no thread runs it, nor can call anything
 * on it: runs, in the calling thread, all work that is scheduled and what that
 * schedules in turn, waits for its pool, and frees what it holds.
 */
void aio_context_unref(AioContext *ctx);

/* Any thread: the context that this thread runs, or NULL. */
AioContext *aio_context_current(void);
/* The calling thread becomes (or stops being) the one that runs @ctx. */
void aio_context_enter(AioContext *ctx);
void aio_context_leave(AioContext *ctx);
/* Any thread: does some thread run @ctx, between enter and leave?  A hint: it
 * may change at any time. */
bool aio_context_has_owner(AioContext *ctx);

/*
 * Owner thread, not inside a handler: one iteration.  With @blocking, sleep
 * until there was something to do.  Returns true if anything was done.
 */
bool aio_poll(AioContext *ctx, bool blocking);

/* Any thread, lock-free: make a sleeping or about to sleep aio_poll return. */
void aio_notify(AioContext *ctx);

/*
 * Adaptive polling: before it sleeps, the loop looks for work for up to a
 * while that grows (by @grow, a factor; 0: 2) while that pays off and shrinks
 * (by @shrink; 0: to nothing) while it does not, within @max_ns.  @max_ns 0
 * turns it off, which is the default.  A loop that has been idle for longer
 * than @max_ns does not poll: it uses no CPU.  Nor does, mostly, one whose work
 * never comes while it polls (its maker waits for the same processor, say).
 */
void aio_context_set_poll_params(AioContext *ctx, int64_t max_ns, int64_t grow,
                                 int64_t shrink);

/* ---- File descriptors and event notifiers (owner thread) ---- */

typedef void AioHandlerFn(void *opaque);
/* True if the handler would find something to do: no system call, no side
 * effect that matters. */
typedef bool AioPollFn(void *opaque);

typedef struct AioHandlerOps {
    AioHandlerFn *read;    /* readable, or the notifier is raised */
    AioHandlerFn *write;   /* writable; file descriptors only */
    /* The next three for adaptive polling; all or none. */
    AioPollFn *poll;
    AioHandlerFn *poll_begin;   /* notifications may be turned off … */
    AioHandlerFn *poll_end;    /* … and must be on again, then poll once more */
} AioHandlerOps;

/*
 * Call @ops' functions when @fd is ready (level-triggered).  @ops is not copied
 * and must live until the handler is removed with @ops NULL, which comes before
 * @fd is closed.  Handlers may set and remove handlers, themselves included.
 */
void aio_set_fd_handler(AioContext *ctx, int fd, const AioHandlerOps *ops,
                        void *opaque);
/* The same for @e; the loop clears the notifier before it calls read. */
void aio_set_event_notifier(AioContext *ctx, EventNotifier *e,
                            const AioHandlerOps *ops, void *opaque);
/* False: @fd is a file, or a device like /dev/null, which is always ready, and
 * for which there can be no handler. */
bool aio_can_watch_fd(AioContext *ctx, int fd);

/* ---- Work from any thread ---- */

/*
 * Something to run in a context: a completion.  Embedded in its owner, on at
 * most one context at a time; @fn may free it.
 */
typedef struct AioWork {
    void (*fn)(struct AioWork *work);
    struct AioWork *next;
} AioWork;

/*
 * Any thread, lock-free: run @work->fn in @ctx's thread, soon and once, not
 * from inside this call.  FIFO for one caller.  Wakes the loop only if it
 * sleeps and nobody has woken it.  The caller makes sure that @ctx lives until
 * this returns, even if @work has run by then.
 */
void aio_schedule(AioContext *ctx, AioWork *work);

typedef void QEMUBHFunc(void *opaque);
typedef struct QEMUBH QEMUBH;

/* Any thread.  @name shows in traces; not copied. */
QEMUBH *aio_bh_new(AioContext *ctx, QEMUBHFunc *cb, void *opaque,
                   const char *name);
/* Any thread, lock-free.  Several calls before it runs make it run once. */
void qemu_bh_schedule(QEMUBH *bh);
/* Owner thread (or any, if a last run is harmless): do not run if scheduled. */
void qemu_bh_cancel(QEMUBH *bh);
/* Any thread: never run again after a run that is under way; freed later. */
void qemu_bh_delete(QEMUBH *bh);
/* Any thread: run @cb(@opaque) once. */
void aio_bh_schedule_oneshot(AioContext *ctx, QEMUBHFunc *cb, void *opaque);

/*
 * Any thread but one that holds a lock @cb needs: run @cb(@opaque) in @ctx's
 * thread and wait until it has returned; at once if this is that thread.  The
 * context must have an owner that runs it.
 */
void aio_run_sync(AioContext *ctx, QEMUBHFunc *cb, void *opaque);

/* ---- The end of an iteration (owner thread) ---- */

/*
 * Run @fn once at the end of this iteration, after all handlers and
 * completions and before the loop can sleep: where a batch is submitted or a
 * guest is interrupted.  Deferring what is deferred already is free.
 */
typedef struct AioDeferred {
    void (*fn)(struct AioDeferred *d);
    ListNode node;
} AioDeferred;

void aio_deferred_init(AioDeferred *d, void (*fn)(AioDeferred *d));
void aio_defer(AioContext *ctx, AioDeferred *d);
void aio_defer_cancel(AioDeferred *d);

/* ---- What belongs to a context ---- */

/* The context's thread pool; created on first use.  Any thread. */
ThreadPool *aio_get_thread_pool(AioContext *ctx);
/* Limits for the pool (see thread-pool.h); any thread. */
void aio_context_set_pool_limits(AioContext *ctx, int min, int max);

/*
 * One object a slot, for those that keep state per context (submission
 * engines).  Owner thread.  @destroy runs in aio_context_unref().
 */
typedef enum AioSlot {
    AIO_SLOT_LINUX_AIO,
    AIO_SLOT_IO_URING,
    AIO_SLOT__MAX,
} AioSlot;

void *aio_context_get_slot(AioContext *ctx, AioSlot slot);
void aio_context_set_slot(AioContext *ctx, AioSlot slot, void *object,
                          void (*destroy)(void *object));

/* ---- Timers ---- */

/*
 * A timer fires once, in its context's thread, at or after its time on the
 * monotonic clock (qemu_clock_ns()).
 */
typedef struct QEMUTimer {
    AioContext *ctx;
    QEMUBHFunc *cb;
    void *opaque;
    int64_t expire_ns;     /* the next four under the context's timer lock */
    ListNode node;
    bool armed;
    int deleters;          /* threads that wait for its callback */
} QEMUTimer;

void timer_init_ns(QEMUTimer *t, AioContext *ctx, QEMUBHFunc *cb, void *opaque);
/* Any thread: fire at @expire_ns, instead of when it was to fire before. */
void timer_mod_ns(QEMUTimer *t, int64_t expire_ns);
/*
 * Any thread: do not fire.  If the callback is running, wait until it has
 * returned, unless this is called from inside it; that it arms its timer has no
 * effect then.
 */
void timer_del(QEMUTimer *t);
bool timer_pending(QEMUTimer *t);

/* ---- IOThread: a thread that runs an AioContext ---- */

typedef struct IOThread IOThread;

/* Start a thread called @name; NULL with @errp. */
IOThread *iothread_new(const char *name, Error **errp);
AioContext *iothread_get_aio_context(IOThread *iothread);
const char *iothread_get_id(const IOThread *iothread);
/* Stop the thread, wait for it, free it.  Its context must be unused. */
void iothread_free(IOThread *iothread);

#endif
