/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread pool: items, how it grows and shrinks, cancelling.  What happens
 * inside an item is in test-thread-pool-item.c.
 */
#include "aio-test.h"
#include "thread-pool-test.h"

/* ---- Items ---- */

static void test_item_runs_and_completes(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 0);
    ThreadPoolStats stats;
    Task task;

    thread_pool_get_stats(pool, &stats);
    g_assert_cmpint(stats.threads, ==, 0);      /* none before there is work */
    task_init(&task, ctx, NULL);
    for (int i = 1; i <= 100; i++) {
        thread_pool_submit(pool, &task.item);
        test_poll_until(ctx, &task.done, i);
        g_assert_cmpint(task.run, ==, i);
        g_assert_false(task.item.cancelled);
        g_assert_cmpint(task.item.state, ==, THREAD_POOL_IDLE);
    }
    thread_pool_get_stats(pool, &stats);
    g_assert_cmpuint(stats.items, ==, 100);
    thread_pool_free(pool);
    test_loop_free(ctx);
}

static void free_task(Task *task)
{
    QemuSemaphore *sem = task->opaque;

    g_free(task);
    qemu_sem_post(sem);
}

static void test_item_without_done_frees_itself(void)
{
    ThreadPool *pool = thread_pool_new(0, 4);
    QemuSemaphore sem;

    qemu_sem_init(&sem, 0);
    for (int i = 0; i < 200; i++) {
        Task *task = g_new(Task, 1);

        task_init(task, NULL, free_task);
        task->opaque = &sem;
        thread_pool_submit(pool, &task->item);
    }
    for (int i = 0; i < 200; i++) {
        g_assert_true(qemu_sem_timedwait(&sem, LONG_NS));
    }
    thread_pool_free(pool);
    qemu_sem_destroy(&sem);
}

static void note_order(Task *task)
{
    int *next = task->opaque;

    task->order = (*next)++;            /* there is one thread only */
}

static void test_one_thread_runs_in_order(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 1);
    Task tasks[50];
    int next = 0, done;

    for (int i = 0; i < 50; i++) {
        task_init(&tasks[i], ctx, note_order);
        tasks[i].opaque = &next;
        thread_pool_submit(pool, &tasks[i].item);
    }
    do {
        aio_poll(ctx, true);
        done = 0;
        for (int i = 0; i < 50; i++) {
            done += tasks[i].done;
        }
    } while (done < 50);
    for (int i = 0; i < 50; i++) {
        g_assert_cmpint(tasks[i].order, ==, i);
    }
    thread_pool_free(pool);
    test_loop_free(ctx);
}

/* ---- Growing and shrinking ---- */

/* Tasks that wait at a barrier show how many threads there are. */
static void test_grows_by_backlog(void)
{
    ThreadPool *pool = thread_pool_new(0, 3);
    ThreadPoolStats stats;
    Barrier barrier;
    Task tasks[5];

    barrier_init(&barrier);
    for (int i = 0; i < 5; i++) {
        task_init(&tasks[i], NULL, wait_at_barrier);
        tasks[i].opaque = &barrier;
        thread_pool_submit(pool, &tasks[i].item);
        barrier_await(&barrier, MIN(i + 1, 3));
        thread_pool_get_stats(pool, &stats);
        g_assert_cmpint(stats.threads, ==, MIN(i + 1, 3));
    }
    barrier_open(&barrier);
    thread_pool_free(pool);
    g_assert_cmpint(barrier.arrived, ==, 5);
    barrier_destroy(&barrier);
}

static void test_raised_limit_serves_backlog(void)
{
    ThreadPool *pool = thread_pool_new(0, 1);
    Barrier barrier;
    Task tasks[4];

    barrier_init(&barrier);
    for (int i = 0; i < 4; i++) {
        task_init(&tasks[i], NULL, wait_at_barrier);
        tasks[i].opaque = &barrier;
        thread_pool_submit(pool, &tasks[i].item);
    }
    barrier_await(&barrier, 1);
    thread_pool_set_limits(pool, 0, 4);
    barrier_await(&barrier, 4);
    barrier_open(&barrier);
    thread_pool_free(pool);
    barrier_destroy(&barrier);
}

static void test_lowered_limit_sends_away(void)
{
    ThreadPool *pool = thread_pool_new(0, 4);
    Barrier barrier;
    Task tasks[4];

    barrier_init(&barrier);
    for (int i = 0; i < 4; i++) {
        task_init(&tasks[i], NULL, wait_at_barrier);
        tasks[i].opaque = &barrier;
        thread_pool_submit(pool, &tasks[i].item);
    }
    barrier_await(&barrier, 4);
    thread_pool_set_limits(pool, 0, 2);
    barrier_open(&barrier);
    await_threads(pool, 2);
    thread_pool_set_limits(pool, 0, 1);         /* now they are idle */
    await_threads(pool, 1);
    thread_pool_free(pool);
    barrier_destroy(&barrier);
}

static void test_idle_threads_leave(void)
{
    ThreadPool *pool = thread_pool_new(1, 4);
    Barrier barrier;
    Task tasks[4];

    qatomic_set(&thread_pool_idle_ns, 2 * NS_PER_MS);
    barrier_init(&barrier);
    for (int i = 0; i < 4; i++) {
        task_init(&tasks[i], NULL, wait_at_barrier);
        tasks[i].opaque = &barrier;
        thread_pool_submit(pool, &tasks[i].item);
    }
    barrier_await(&barrier, 4);
    barrier_open(&barrier);
    await_threads(pool, 1);             /* min */
    thread_pool_set_limits(pool, 0, 4);
    await_threads(pool, 0);
    thread_pool_free(pool);
    barrier_destroy(&barrier);
    qatomic_set(&thread_pool_idle_ns, DEFAULT_IDLE_NS);
}

static void note_thread(Task *task)
{
    *(pthread_t *)task->opaque = pthread_self();
}

/* Two idle threads: the same one, which is warm, gets all the work. */
static void test_wakes_most_recently_idle(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 2);
    Task gated[2], task;
    pthread_t first, next;
    Barrier barrier;

    barrier_init(&barrier);
    for (int i = 0; i < 2; i++) {
        task_init(&gated[i], ctx, wait_at_barrier);
        gated[i].opaque = &barrier;
        thread_pool_submit(pool, &gated[i].item);
    }
    barrier_await(&barrier, 2);
    barrier_open(&barrier);
    test_poll_until(ctx, &gated[0].done, 1);
    test_poll_until(ctx, &gated[1].done, 1);
    task_init(&task, ctx, note_thread);
    for (int i = 1; i <= 50; i++) {
        await_idle(pool, 2);
        task.opaque = i == 1 ? &first : &next;
        thread_pool_submit(pool, &task.item);
        test_poll_until(ctx, &task.done, i);
        g_assert_true(i == 1 || pthread_equal(first, next));
    }
    thread_pool_free(pool);
    barrier_destroy(&barrier);
    test_loop_free(ctx);
}

static void raise_flag(Task *task)
{
    qatomic_store_release((int *)task->opaque, 1);
}

/* ---- When the system is out of threads ---- */

static void test_no_thread_runs_in_caller(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 4);
    pthread_t ran_in;
    Task task;

    task_init(&task, ctx, note_thread);
    task.opaque = &ran_in;
    qatomic_set(&thread_pool_failing_starts, 1);
    thread_pool_submit(pool, &task.item);
    g_assert_cmpint(task.run, ==, 1);
    g_assert_true(pthread_equal(ran_in, pthread_self()));
    g_assert_cmpint(task.done, ==, 0);
    g_assert_null(thread_pool_self());
    test_poll_until(ctx, &task.done, 1);

    thread_pool_submit(pool, &task.item);       /* there are threads again */
    test_poll_until(ctx, &task.done, 2);
    g_assert_false(pthread_equal(ran_in, pthread_self()));
    thread_pool_free(pool);
    test_loop_free(ctx);
}

static void test_no_second_thread_waits_for_first(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 4);
    Task busy, task;
    Barrier barrier;

    barrier_init(&barrier);
    task_init(&busy, ctx, wait_at_barrier);
    busy.opaque = &barrier;
    task_init(&task, ctx, NULL);
    thread_pool_submit(pool, &busy.item);
    barrier_await(&barrier, 1);
    qatomic_set(&thread_pool_failing_starts, 1);
    thread_pool_submit(pool, &task.item);
    g_assert_cmpint(qatomic_read(&thread_pool_failing_starts), ==, 0);
    barrier_open(&barrier);
    test_poll_until(ctx, &task.done, 1);
    test_poll_until(ctx, &busy.done, 1);
    thread_pool_free(pool);
    barrier_destroy(&barrier);
    test_loop_free(ctx);
}

typedef struct Submission {
    ThreadPool *pool;
    Task *task;
} Submission;

static void *submit(void *opaque)
{
    Submission *s = opaque;

    thread_pool_submit(s->pool, &s->task->item);
    return NULL;
}

/* A caller that works counts as a thread: free waits, others rely on it. */
static void test_working_caller_is_a_thread(void)
{
    ThreadPool *pool = thread_pool_new(0, 4);
    Task busy, task;
    Submission s = { pool, &busy };
    ThreadPoolStats stats;
    QemuThread thread;
    Barrier barrier;

    barrier_init(&barrier);
    task_init(&busy, NULL, wait_at_barrier);
    busy.opaque = &barrier;
    task_init(&task, NULL, NULL);
    qatomic_set(&thread_pool_failing_starts, 2);
    qemu_thread_create(&thread, "submit", submit, &s);
    barrier_await(&barrier, 1);
    thread_pool_submit(pool, &task.item);       /* does not run it here */
    thread_pool_get_stats(pool, &stats);
    g_assert_cmpint(stats.threads, ==, 1);
    barrier_open(&barrier);
    thread_pool_free(pool);
    g_assert_cmpint(task.run, ==, 1);
    qemu_thread_join(&thread);
    barrier_destroy(&barrier);
}

static void test_free_runs_what_is_queued(void)
{
    ThreadPool *pool = thread_pool_new(0, 1);
    Task tasks[20];
    int next = 0;

    for (int i = 0; i < 20; i++) {
        task_init(&tasks[i], NULL, note_order);
        tasks[i].opaque = &next;
        thread_pool_submit(pool, &tasks[i].item);
    }
    thread_pool_free(pool);
    g_assert_cmpint(next, ==, 20);
    thread_pool_free(thread_pool_new(2, 4));    /* never used */
}

/* ---- Leaving ---- */

typedef struct Crowd {
    ThreadPool *pool;
    int stop;                   /* atomic */
} Crowd;

static void *crowd_the_lock(void *opaque)
{
    Crowd *crowd = opaque;
    ThreadPoolStats stats;

    while (!qatomic_read(&crowd->stop)) {
        thread_pool_get_stats(crowd->pool, &stats);
    }
    return NULL;
}

/*
 * Each thread leaves as soon as it can.  Work that comes at that moment, which
 * the varying pause aims at, must not stay behind.
 */
static void test_leaving_loses_no_work(void)
{
    ThreadPool *pool = thread_pool_new(0, 1);
    Crowd crowd = { .pool = pool };
    QemuThread thread;

    alarm(MAX_SECONDS);
    qatomic_set(&thread_pool_idle_ns, 0);
    qemu_thread_create(&thread, "crowd", crowd_the_lock, &crowd);
    for (int i = 0; i < 2000; i++) {
        int flag = 0;
        Task task;

        task_init(&task, NULL, raise_flag);
        task.opaque = &flag;
        thread_pool_submit(pool, &task.item);
        while (!qatomic_load_acquire(&flag)) {
            g_thread_yield();
        }
        for (int n = i * 7 % 2000; n; n--) {
            cpu_relax();
        }
    }
    qatomic_set(&crowd.stop, 1);
    qemu_thread_join(&thread);
    thread_pool_free(pool);
    qatomic_set(&thread_pool_idle_ns, DEFAULT_IDLE_NS);
    alarm(0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/thread-pool/item/runs-and-completes",
                    test_item_runs_and_completes);
    g_test_add_func("/thread-pool/item/without-done-frees-itself",
                    test_item_without_done_frees_itself);
    g_test_add_func("/thread-pool/item/one-thread-runs-in-order",
                    test_one_thread_runs_in_order);
    g_test_add_func("/thread-pool/size/grows-by-backlog",
                    test_grows_by_backlog);
    g_test_add_func("/thread-pool/size/raised-limit-serves-backlog",
                    test_raised_limit_serves_backlog);
    g_test_add_func("/thread-pool/size/lowered-limit-sends-away",
                    test_lowered_limit_sends_away);
    g_test_add_func("/thread-pool/size/idle-threads-leave",
                    test_idle_threads_leave);
    g_test_add_func("/thread-pool/size/wakes-most-recently-idle",
                    test_wakes_most_recently_idle);
    g_test_add_func("/thread-pool/size/leaving-loses-no-work",
                    test_leaving_loses_no_work);
    g_test_add_func("/thread-pool/no-thread/runs-in-caller",
                    test_no_thread_runs_in_caller);
    g_test_add_func("/thread-pool/no-thread/second-waits-for-first",
                    test_no_second_thread_waits_for_first);
    g_test_add_func("/thread-pool/no-thread/working-caller-is-a-thread",
                    test_working_caller_is_a_thread);
    g_test_add_func("/thread-pool/free/runs-what-is-queued",
                    test_free_runs_what_is_queued);
    return g_test_run();
}
