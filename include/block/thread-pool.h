/*
 * A pool of threads that run work items; it knows nothing of block devices.
 *
 * An item's run function is plain blocking code.  It may use any mutex and
 * condition variable; the pair thread_pool_yield()/thread_pool_enter(), which
 * stands where coroutine code yields and enters, is a condition variable with
 * a *permit*: an enter that comes before its yield is remembered, so no
 * wake-up is lost.
 *
 * An item never submits to its own pool and waits for the result (with a pool
 * of one thread that is a deadlock, and it is asserted): what is nested runs
 * inline.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_THREAD_POOL_H
#define BLOCK_THREAD_POOL_H

#include "block/aio.h"

typedef struct ThreadPoolItem ThreadPoolItem;
typedef struct ThreadPoolWorker ThreadPoolWorker;

typedef enum ThreadPoolItemState {
    THREAD_POOL_IDLE,      /* not submitted, or its done function was called */
    THREAD_POOL_QUEUED,
    THREAD_POOL_RUNNING,
    THREAD_POOL_DONE,      /* ran or was cancelled; done is yet to be called */
} ThreadPoolItemState;

/* Embedded by its user, which sets the first three. */
struct ThreadPoolItem {
    void (*run)(ThreadPoolItem *item);    /* in a worker; may block */
    /*
     * In @home's thread after run (or instead of it, when @cancelled); NULL:
     * nobody is told, and the item may free itself at the end of run.
     */
    void (*done)(ThreadPoolItem *item);
    AioContext *home;
    bool cancelled;        /* for done: run was never called */

    /* Private to the pool. */
    ThreadPool *pool;
    ThreadPoolItemState state;
    ThreadPoolWorker *worker;
    AioWork completion;
    ListNode node;
    bool permit;
};

/*
 * A pool that keeps @min threads and grows to @max as work backs up (at least
 * 1; @max 0: the default, $THREADBLOCK_POOL_MAX or 64).  No thread is created
 * before there is work.
 */
ThreadPool *thread_pool_new(int min, int max);
/* Any thread but a worker: wait until every item has run, then free. */
void thread_pool_free(ThreadPool *pool);
/* Any thread: change the limits; running threads above @max leave when idle. */
void thread_pool_set_limits(ThreadPool *pool, int min, int max);

/*
 * Any thread, never blocks: queue @item, first come first served.  Only when
 * the pool has no thread and the system gives it none, the caller runs what is
 * queued; so it holds no lock that an item takes.  An item without done is
 * zeroed by its user before it is submitted again.
 */
void thread_pool_submit(ThreadPool *pool, ThreadPoolItem *item);

/*
 * Any thread: take @item out of the queue.  True: it will not run, and its done
 * function is called with @cancelled set (if it has none, the item is the
 * caller's again).  False: too late, it runs or ran.
 */
bool thread_pool_cancel(ThreadPool *pool, ThreadPoolItem *item);

/* The item that the calling thread runs, or NULL. */
ThreadPoolItem *thread_pool_self(void);

/*
 * In a worker: sleep until somebody calls thread_pool_enter() on the current
 * item; return at once, using it up, if somebody has since the last yield.
 */
void thread_pool_yield(void);
/*
 * Any thread: let @item's current or next thread_pool_yield() return.  The
 * caller makes sure that the item has not finished.
 */
void thread_pool_enter(ThreadPoolItem *item);

/*
 * In a worker, round a wait that may be long: the pool may start another
 * thread in this one's place meanwhile, up to a hard cap.  Elsewhere they do
 * nothing.  They do not nest.
 */
void thread_pool_block_begin(void);
void thread_pool_block_end(void);

typedef struct ThreadPoolStats {
    int threads;           /* alive now */
    int idle;              /* of these, waiting for work */
    int blocked;           /* of these, between block_begin and block_end */
    int max_threads_seen;
    uint64_t items;        /* run so far */
} ThreadPoolStats;

void thread_pool_get_stats(ThreadPool *pool, ThreadPoolStats *stats);

#endif
