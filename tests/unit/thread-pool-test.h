/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests of the thread pool share: items that count, and a barrier that
 * they wait at.  The bounds are those of aio-test.h.
 */
#ifndef THREAD_POOL_TEST_H
#define THREAD_POOL_TEST_H

#include "aio-test.h"
#include "thread-pool-internal.h"

#define DEFAULT_IDLE_NS (10000 * NS_PER_MS)

typedef struct Task {
    ThreadPoolItem item;
    void (*fn)(struct Task *task);      /* in the worker; may free it */
    void *opaque;
    int run;
    int done;
    int order;
} Task;

static inline void task_run(ThreadPoolItem *item)
{
    Task *task = container_of(item, Task, item);

    task->run++;
    if (task->fn) {
        task->fn(task);
    }
}

static inline void task_done(ThreadPoolItem *item)
{
    Task *task = container_of(item, Task, item);

    g_assert_true(aio_context_current() == item->home);
    task->done++;
}

/* Without @home, nobody is told that it is done. */
static inline void task_init(Task *task, AioContext *home,
                             void (*fn)(Task *task))
{
    *task = (Task){ .item = { .run = task_run, .home = home,
                              .done = home ? task_done : NULL }, .fn = fn };
}

typedef struct Barrier {
    QemuMutex mutex;
    QemuCond cond;
    int arrived;
    bool open;
} Barrier;

static inline void barrier_init(Barrier *barrier)
{
    *barrier = (Barrier){ .open = false };
    qemu_mutex_init(&barrier->mutex);
    qemu_cond_init(&barrier->cond);
}

static inline void barrier_destroy(Barrier *barrier)
{
    qemu_cond_destroy(&barrier->cond);
    qemu_mutex_destroy(&barrier->mutex);
}

static inline void barrier_pass(Barrier *barrier)
{
    qemu_mutex_lock(&barrier->mutex);
    barrier->arrived++;
    qemu_cond_broadcast(&barrier->cond);
    while (!barrier->open) {
        qemu_cond_wait(&barrier->cond, &barrier->mutex);
    }
    qemu_mutex_unlock(&barrier->mutex);
}

static inline void wait_at_barrier(Task *task)
{
    barrier_pass(task->opaque);
}

static inline void barrier_open(Barrier *barrier)
{
    qemu_mutex_lock(&barrier->mutex);
    barrier->open = true;
    qemu_cond_broadcast(&barrier->cond);
    qemu_mutex_unlock(&barrier->mutex);
}

/* Wait until @n have come to the barrier since it was made. */
static inline void barrier_await(Barrier *barrier, int n)
{
    bool in_time = true;

    qemu_mutex_lock(&barrier->mutex);
    while (barrier->arrived < n && in_time) {
        in_time = qemu_cond_timedwait(&barrier->cond, &barrier->mutex, LONG_NS);
    }
    g_assert_cmpint(barrier->arrived, >=, n);
    qemu_mutex_unlock(&barrier->mutex);
}

/* Wait until @pool has exactly @threads threads, of which @idle (any: -1). */
static inline void await_pool(ThreadPool *pool, int threads, int idle)
{
    int64_t end = qemu_clock_ns() + LONG_NS;
    ThreadPoolStats stats;

    do {
        thread_pool_get_stats(pool, &stats);
        g_assert_cmpint(qemu_clock_ns(), <, end);
        g_thread_yield();
    } while ((threads >= 0 && stats.threads != threads) ||
             (idle >= 0 && stats.idle != idle));
}

static inline void await_threads(ThreadPool *pool, int threads)
{
    await_pool(pool, threads, -1);
}

static inline void await_idle(ThreadPool *pool, int idle)
{
    await_pool(pool, -1, idle);
}

#endif
