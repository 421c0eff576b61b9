/*
 * The thread pool: a queue of items, and workers that take them in order.
 *
 * One lock guards all of it.  A worker without work waits on its own condition
 * variable and stands on a stack of idle workers, from which the most recently
 * idle one (whose cache is warm) is woken first; the others reach the end of
 * their idle time and leave.  One that leaves stops counting as a thread in the
 * critical section in which it found nothing to do, so that work which comes
 * now is not left to it; it is joined by the next one that leaves, or by
 * thread_pool_free().
 *
 * Whether to wake or start a thread is decided by the backlog: more items are
 * queued than workers are on their way (woken or starting, and not at the queue
 * yet), and the limit is not reached.  Workers between block_begin and
 * block_end do not count against the limit, up to a hard cap, so that a pool of
 * one can make progress while its one item waits for another request.
 *
 * Yield and enter are a flag and the worker's condition variable: enter sets
 * the flag, yield waits for it and takes it.
 *
 * tests/spin/thread-pool.pml models workers that idle, leave and are woken,
 * tests/spin/permit.pml yield and enter.
 *
 * An item belongs to the pool from submit until its done function is called;
 * run may free an item that has no done function, so nothing touches it later.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "qemu/error.h"
#include "block/lock-order.h"
#include "thread-pool-internal.h"

#define DEFAULT_MAX_THREADS 64
#define MAX_EXTRA_THREADS   64     /* in place of blocked ones */

struct ThreadPoolWorker {
    ThreadPool *pool;
    QemuThread thread;
    QemuCond cond;              /* woken, or permit given, or stopping */
    ThreadPoolItem *item;       /* the one it runs; its own thread */
    bool blocked;               /* its own thread */
    bool idle;                  /* pool lock: on pool->idle */
    ListNode node;
};

struct ThreadPool {
    PoolLock lock;
    QemuCond gone_cond;         /* threads and leaving have become 0 */
    int min GUARDED_BY(pool_class);
    int max GUARDED_BY(pool_class);
    bool stopping GUARDED_BY(pool_class);
    List queue GUARDED_BY(pool_class);
    int queued GUARDED_BY(pool_class);
    List idle GUARDED_BY(pool_class);        /* most recently idle first */
    int n_idle GUARDED_BY(pool_class);
    int threads GUARDED_BY(pool_class);
    int blocked GUARDED_BY(pool_class);
    int coming GUARDED_BY(pool_class);       /* not at the queue yet */
    int leaving GUARDED_BY(pool_class);      /* not among threads any more */
    ThreadPoolWorker *zombie GUARDED_BY(pool_class);
    int max_threads_seen GUARDED_BY(pool_class);
    uint64_t items GUARDED_BY(pool_class);
};

int64_t thread_pool_idle_ns = INT64_C(10) * 1000 * 1000 * 1000;
int thread_pool_failing_starts;

static __thread ThreadPoolWorker *current_worker;

static void *worker_main(void *opaque);

/*
 * What nobody has set otherwise.  The environment can set it for a whole
 * process: the suite also runs with a limit of one, where whoever waits for
 * what is queued behind him hangs.
 */
static int default_max(void)
{
    const char *text = g_getenv("THREADBLOCK_POOL_MAX");
    int max;

    if (text && qemu_strtoi(text, NULL, 10, &max) == 0 && max > 0) {
        return max;
    }
    return DEFAULT_MAX_THREADS;
}

static void set_limits_locked(ThreadPool *pool, int min, int max)
    REQUIRES(pool_class)
{
    pool->max = max > 0 ? max : default_max();
    pool->min = CLAMP(min, 0, pool->max);
}

/* Nobody else knows the pool yet, so this takes no lock: a caller may hold
 * one of a higher rank. */
ThreadPool *NO_TSA thread_pool_new(int min, int max)
{
    ThreadPool *pool = g_new0(ThreadPool, 1);

    pool_init(&pool->lock);
    qemu_cond_init(&pool->gone_cond);
    list_init(&pool->queue);
    list_init(&pool->idle);
    set_limits_locked(pool, min, max);
    return pool;
}

/* ---- Starting and waking workers ---- */

/* Working, or on their way to it. */
static bool limit_reached_locked(ThreadPool *pool) REQUIRES(pool_class)
{
    return pool->threads - pool->blocked - pool->n_idle >= pool->max;
}

static int create_thread(ThreadPoolWorker *worker)
{
    if (qatomic_read(&thread_pool_failing_starts) > 0) {
        qatomic_dec(&thread_pool_failing_starts);
        return -EAGAIN;
    }
    return qemu_thread_create(&worker->thread, "worker", worker_main, worker);
}

static int start_worker_locked(ThreadPool *pool) REQUIRES(pool_class)
{
    ThreadPoolWorker *worker = g_new0(ThreadPoolWorker, 1);
    int ret;

    worker->pool = pool;
    qemu_cond_init(&worker->cond);
    pool->threads++;
    pool->coming++;
    ret = create_thread(worker);
    if (ret < 0) {
        pool->threads--;
        pool->coming--;
        qemu_cond_destroy(&worker->cond);
        g_free(worker);
        return ret;
    }
    pool->max_threads_seen = MAX(pool->max_threads_seen, pool->threads);
    return 0;
}

static void wake_idle_locked(ThreadPool *pool, ThreadPoolWorker *worker)
    REQUIRES(pool_class)
{
    list_remove(&worker->node);
    worker->idle = false;
    pool->n_idle--;
    pool->coming++;
    qemu_cond_signal(&worker->cond);
}

/*
 * See to it that enough workers are on their way.  False: there is no worker
 * at all, and the system gives us no thread.
 */
static bool serve_backlog_locked(ThreadPool *pool) REQUIRES(pool_class)
{
    while (pool->queued > pool->coming && !limit_reached_locked(pool)) {
        ThreadPoolWorker *worker = list_first(&pool->idle, ThreadPoolWorker,
                                              node);

        if (worker) {
            wake_idle_locked(pool, worker);
        } else if (pool->threads >= pool->max + MAX_EXTRA_THREADS) {
            break;
        } else if (start_worker_locked(pool) < 0) {
            return pool->threads > 0;
        }
    }
    return true;
}

/* ---- Items ---- */

static void item_completed(AioWork *work)
{
    ThreadPoolItem *item = container_of(work, ThreadPoolItem, completion);

    /* Somebody may be trying to cancel it, too late. */
    qatomic_set(&item->state, THREAD_POOL_IDLE);
    item->done(item);
}

static void complete(ThreadPoolItem *item)
{
    item->completion.fn = item_completed;
    aio_schedule(item->home, &item->completion);
}

static void run_item(ThreadPoolWorker *worker, ThreadPoolItem *item)
{
    ThreadPool *pool = worker->pool;
    bool has_done = item->done;

    worker->item = item;
    item->run(item);
    assert(!worker->blocked);
    worker->item = NULL;
    if (has_done) {
        pool_lock(&pool->lock);
        item->state = THREAD_POOL_DONE;
        item->worker = NULL;
        pool_unlock(&pool->lock);
        complete(item);
    }
}

static ThreadPoolItem *take_item_locked(ThreadPool *pool,
                                        ThreadPoolWorker *worker)
    REQUIRES(pool_class)
{
    ThreadPoolItem *item = list_pop_front(&pool->queue, ThreadPoolItem, node);

    if (item) {
        pool->queued--;
        pool->items++;
        item->state = THREAD_POOL_RUNNING;
        item->worker = worker;
    }
    return item;
}

static void count_off_locked(ThreadPool *pool) REQUIRES(pool_class)
{
    if (pool->threads + pool->leaving == 0) {
        qemu_cond_broadcast(&pool->gone_cond);
    }
}

/*
 * Better slow than never: the submitter does the work itself.  It counts as one
 * of the threads, so that others may leave their work to it, too, and that
 * thread_pool_free() waits for it.
 */
static void run_without_threads(ThreadPool *pool)
{
    ThreadPoolWorker self = { .pool = pool };
    ThreadPoolWorker *outer = current_worker;
    ThreadPoolItem *item;

    warn_report_once("no thread to be had; running requests in the event loop");
    qemu_cond_init(&self.cond);
    current_worker = &self;
    pool_lock(&pool->lock);
    while ((item = take_item_locked(pool, &self))) {
        pool_unlock(&pool->lock);
        run_item(&self, item);
        pool_lock(&pool->lock);
    }
    pool->threads--;
    count_off_locked(pool);
    pool_unlock(&pool->lock);
    current_worker = outer;
    qemu_cond_destroy(&self.cond);
}

void thread_pool_submit(ThreadPool *pool, ThreadPoolItem *item)
{
    bool served;

    /* Waiting for it could be waiting for oneself: nested ones run inline. */
    assert(!current_worker || current_worker->pool != pool);
    assert(item->state == THREAD_POOL_IDLE);
    item->pool = pool;
    item->worker = NULL;
    item->permit = false;
    item->cancelled = false;

    pool_lock(&pool->lock);
    item->state = THREAD_POOL_QUEUED;
    list_push_back(&pool->queue, &item->node);
    pool->queued++;
    served = serve_backlog_locked(pool);
    pool->threads += !served;           /* ourselves */
    pool_unlock(&pool->lock);
    if (!served) {
        run_without_threads(pool);
    }
}

bool thread_pool_cancel(ThreadPool *pool, ThreadPoolItem *item)
{
    bool taken;

    pool_lock(&pool->lock);
    taken = qatomic_read(&item->state) == THREAD_POOL_QUEUED;
    if (taken) {
        assert(item->pool == pool);
        list_remove(&item->node);
        pool->queued--;
        item->cancelled = true;
        item->state = item->done ? THREAD_POOL_DONE : THREAD_POOL_IDLE;
    }
    pool_unlock(&pool->lock);
    if (taken && item->done) {
        complete(item);
    }
    return taken;
}

/* ---- Workers ---- */

/* Wait for work; false: it is time to leave. */
static bool wait_for_item_locked(ThreadPool *pool, ThreadPoolWorker *worker)
    REQUIRES(pool_class)
{
    int64_t idle_ns = qatomic_read(&thread_pool_idle_ns);
    bool in_time = true;

    if (pool->stopping || pool->threads - pool->blocked > pool->max) {
        return false;
    }
    worker->idle = true;
    pool->n_idle++;
    list_push_front(&pool->idle, &worker->node);
    while (worker->idle && in_time) {
        in_time = pool_timedwait(&worker->cond, &pool->lock, idle_ns);
        if (!in_time && worker->idle && pool->threads <= pool->min) {
            in_time = true;             /* one of those that stay */
        }
    }
    if (worker->idle) {
        worker->idle = false;
        pool->n_idle--;
        list_remove(&worker->node);
        return false;
    }
    pool->coming--;
    return true;
}

static void join_worker(ThreadPoolWorker *worker)
{
    if (worker) {
        qemu_thread_join(&worker->thread);
        qemu_cond_destroy(&worker->cond);
        g_free(worker);
    }
}

static ThreadPoolWorker *begin_leaving_locked(ThreadPool *pool,
                                              ThreadPoolWorker *worker)
    REQUIRES(pool_class)
{
    ThreadPoolWorker *previous = pool->zombie;

    pool->zombie = worker;
    pool->threads--;
    pool->leaving++;
    return previous;
}

static void end_leaving(ThreadPool *pool)
{
    pool_lock(&pool->lock);
    pool->leaving--;
    count_off_locked(pool);
    pool_unlock(&pool->lock);
}

static void *worker_main(void *opaque)
{
    ThreadPoolWorker *worker = opaque;
    ThreadPool *pool = worker->pool;
    ThreadPoolWorker *previous;
    ThreadPoolItem *item;

    current_worker = worker;
    pool_lock(&pool->lock);
    pool->coming--;
    for (;;) {
        item = take_item_locked(pool, worker);
        if (item) {
            /* One that was woken or started for this may find nothing. */
            pool_unlock(&pool->lock);
            run_item(worker, item);
            pool_lock(&pool->lock);
        } else if (!wait_for_item_locked(pool, worker)) {
            break;
        }
    }
    previous = begin_leaving_locked(pool, worker);
    pool_unlock(&pool->lock);
    join_worker(previous);
    end_leaving(pool);
    return NULL;
}

/* ---- Inside an item ---- */

ThreadPoolItem *thread_pool_self(void)
{
    return current_worker ? current_worker->item : NULL;
}

void thread_pool_yield(void)
{
    ThreadPoolWorker *worker = current_worker;
    ThreadPoolItem *item = thread_pool_self();
    ThreadPool *pool;

    assert(worker);
    pool = worker->pool;
    pool_lock(&pool->lock);
    while (!item->permit) {
        pool_wait(&worker->cond, &pool->lock);
    }
    item->permit = false;
    pool_unlock(&pool->lock);
}

void thread_pool_enter(ThreadPoolItem *item)
{
    ThreadPool *pool = item->pool;

    pool_lock(&pool->lock);
    item->permit = true;
    if (item->worker) {
        qemu_cond_signal(&item->worker->cond);
    }
    pool_unlock(&pool->lock);
}

void thread_pool_block_begin(void)
{
    ThreadPoolWorker *worker = current_worker;
    ThreadPool *pool;

    if (!worker) {
        return;
    }
    assert(!worker->blocked);
    worker->blocked = true;
    pool = worker->pool;
    pool_lock(&pool->lock);
    pool->blocked++;
    serve_backlog_locked(pool);
    pool_unlock(&pool->lock);
}

void thread_pool_block_end(void)
{
    ThreadPoolWorker *worker = current_worker;
    ThreadPool *pool;

    if (!worker) {
        return;
    }
    assert(worker->blocked);
    worker->blocked = false;
    pool = worker->pool;
    pool_lock(&pool->lock);
    pool->blocked--;
    pool_unlock(&pool->lock);
}

/* ---- The pool as a whole ---- */

static void wake_all_idle_locked(ThreadPool *pool) REQUIRES(pool_class)
{
    ThreadPoolWorker *worker;

    while ((worker = list_first(&pool->idle, ThreadPoolWorker, node))) {
        wake_idle_locked(pool, worker);
    }
}

void thread_pool_set_limits(ThreadPool *pool, int min, int max)
{
    pool_lock(&pool->lock);
    set_limits_locked(pool, min, max);
    wake_all_idle_locked(pool);
    serve_backlog_locked(pool);
    pool_unlock(&pool->lock);
}

void thread_pool_get_stats(ThreadPool *pool, ThreadPoolStats *stats)
{
    pool_lock(&pool->lock);
    *stats = (ThreadPoolStats){
        .threads = pool->threads,
        .idle = pool->n_idle,
        .blocked = pool->blocked,
        .max_threads_seen = pool->max_threads_seen,
        .items = pool->items,
    };
    pool_unlock(&pool->lock);
}

void thread_pool_free(ThreadPool *pool)
{
    ThreadPoolWorker *zombie;

    assert(!current_worker || current_worker->pool != pool);
    pool_lock(&pool->lock);
    pool->stopping = true;
    wake_all_idle_locked(pool);
    while (pool->threads + pool->leaving > 0) {
        pool_wait(&pool->gone_cond, &pool->lock);
    }
    zombie = pool->zombie;
    pool_unlock(&pool->lock);

    join_worker(zombie);
    qemu_cond_destroy(&pool->gone_cond);
    pool_destroy(&pool->lock);
    g_free(pool);
}
