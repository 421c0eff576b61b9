/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread pool, seen from an item: cancelling it in each of its states,
 * yield and enter, blocking brackets, and what an item must not do.
 */
#include "thread-pool-test.h"

#define MANY 2000

/* ---- Cancelling ---- */

static void test_cancel_queued(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 1);
    Task busy, told, untold;
    Barrier barrier;

    barrier_init(&barrier);
    task_init(&busy, ctx, wait_at_barrier);
    busy.opaque = &barrier;
    task_init(&told, ctx, NULL);
    task_init(&untold, NULL, NULL);
    thread_pool_submit(pool, &busy.item);
    thread_pool_submit(pool, &told.item);
    thread_pool_submit(pool, &untold.item);
    barrier_await(&barrier, 1);

    g_assert_true(thread_pool_cancel(pool, &told.item));
    g_assert_cmpint(told.done, ==, 0);          /* not from inside */
    g_assert_false(thread_pool_cancel(pool, &told.item));
    g_assert_true(thread_pool_cancel(pool, &untold.item));
    g_assert_cmpint(untold.item.state, ==, THREAD_POOL_IDLE);
    test_poll_until(ctx, &told.done, 1);
    g_assert_true(told.item.cancelled);

    barrier_open(&barrier);
    test_poll_until(ctx, &busy.done, 1);
    thread_pool_submit(pool, &told.item);       /* as good as new */
    test_poll_until(ctx, &told.done, 2);
    g_assert_false(told.item.cancelled);
    g_assert_cmpint(told.run, ==, 1);
    thread_pool_free(pool);
    g_assert_cmpint(untold.run, ==, 0);
    barrier_destroy(&barrier);
    test_loop_free(ctx);
}

static void test_cancel_too_late(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 1);
    Barrier barrier;
    Task task;

    barrier_init(&barrier);
    task_init(&task, ctx, wait_at_barrier);
    task.opaque = &barrier;
    g_assert_false(thread_pool_cancel(pool, &task.item));   /* idle */
    thread_pool_submit(pool, &task.item);
    barrier_await(&barrier, 1);
    g_assert_false(thread_pool_cancel(pool, &task.item));   /* running */
    barrier_open(&barrier);
    await_idle(pool, 1);
    g_assert_false(thread_pool_cancel(pool, &task.item));   /* done is due */
    test_poll_until(ctx, &task.done, 1);
    g_assert_false(thread_pool_cancel(pool, &task.item));
    g_assert_false(task.item.cancelled);
    thread_pool_free(pool);
    barrier_destroy(&barrier);
    test_loop_free(ctx);
}

/* Exactly one of: it ran, it was cancelled. */
static void test_cancel_races_with_run(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 2);
    int cancelled = 0;
    Task task;

    task_init(&task, ctx, NULL);
    for (int i = 1; i <= MANY; i++) {
        thread_pool_submit(pool, &task.item);
        for (int n = i % 100; n; n--) {
            cpu_relax();
        }
        cancelled += thread_pool_cancel(pool, &task.item);
        test_poll_until(ctx, &task.done, i);
        g_assert_cmpint(task.run, ==, i - cancelled);
    }
    thread_pool_free(pool);
    test_loop_free(ctx);
}

/* ---- Yield and enter ---- */

static void yield_often(Task *task)
{
    QemuSemaphore *sem = task->opaque;

    g_assert_true(thread_pool_self() == &task->item);
    for (int i = 0; i < MANY; i++) {
        if (sem) {
            qemu_sem_post(sem);
        }
        thread_pool_yield();
    }
}

/* The post comes before the yield: often enough, so does the enter. */
static void test_enter_before_yield(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 1);
    QemuSemaphore sem;
    Task task;

    g_assert_null(thread_pool_self());
    qemu_sem_init(&sem, 0);
    task_init(&task, ctx, yield_often);
    task.opaque = &sem;
    thread_pool_submit(pool, &task.item);
    for (int i = 0; i < MANY; i++) {
        g_assert_true(qemu_sem_timedwait(&sem, LONG_NS));
        thread_pool_enter(&task.item);
    }
    test_poll_until(ctx, &task.done, 1);
    thread_pool_free(pool);
    qemu_sem_destroy(&sem);
    test_loop_free(ctx);
}

static void yield_once(Task *task)
{
    thread_pool_yield();
}

static void test_enter_while_queued(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 1);
    Barrier barrier;
    Task busy, task;

    barrier_init(&barrier);
    task_init(&busy, ctx, wait_at_barrier);
    busy.opaque = &barrier;
    task_init(&task, ctx, yield_once);
    thread_pool_submit(pool, &busy.item);
    thread_pool_submit(pool, &task.item);
    thread_pool_enter(&task.item);
    barrier_open(&barrier);
    test_poll_until(ctx, &task.done, 1);
    test_poll_until(ctx, &busy.done, 1);
    thread_pool_free(pool);
    barrier_destroy(&barrier);
    test_loop_free(ctx);
}

typedef struct Pair {
    Barrier between;
    Barrier after;
} Pair;

static void yield_at_barriers(Task *task)
{
    Pair *pair = task->opaque;

    barrier_pass(&pair->between);
    thread_pool_yield();                /* entered twice: one permit */
    barrier_pass(&pair->after);
    thread_pool_yield();                /* not by these */
}

static void test_permits_do_not_add_up(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 1);
    Pair pair;
    Task task;

    barrier_init(&pair.between);
    barrier_init(&pair.after);
    task_init(&task, ctx, yield_at_barriers);
    task.opaque = &pair;
    thread_pool_submit(pool, &task.item);
    barrier_await(&pair.between, 1);
    thread_pool_enter(&task.item);
    thread_pool_enter(&task.item);
    barrier_open(&pair.between);
    barrier_await(&pair.after, 1);
    g_assert_false(task.item.permit);   /* its thread waits for us */
    barrier_open(&pair.after);
    thread_pool_enter(&task.item);
    test_poll_until(ctx, &task.done, 1);
    thread_pool_free(pool);
    barrier_destroy(&pair.between);
    barrier_destroy(&pair.after);
    test_loop_free(ctx);
}

typedef struct Turns {
    Task task;
    int wanted;
    int turns;                  /* atomic */
} Turns;

static void take_turns(Task *task)
{
    Turns *t = container_of(task, Turns, task);

    while (qatomic_load_acquire(&t->turns) < t->wanted) {
        thread_pool_yield();
    }
}

static void *give_turns(void *opaque)
{
    Turns *t = opaque;

    for (int i = 0; i < MANY; i++) {
        qatomic_fetch_inc(&t->turns);
        thread_pool_enter(&t->task.item);
    }
    return NULL;
}

/* The last enter, whoever makes it, must get through. */
static void test_enter_by_many_threads(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 1);
    Turns t = { .wanted = 3 * MANY + 1 };
    QemuThread threads[3];

    task_init(&t.task, ctx, take_turns);
    thread_pool_submit(pool, &t.task.item);
    for (int i = 0; i < 3; i++) {
        qemu_thread_create(&threads[i], "enter", give_turns, &t);
    }
    for (int i = 0; i < 3; i++) {
        qemu_thread_join(&threads[i]);
    }
    g_assert_cmpint(t.task.done, ==, 0);
    qatomic_fetch_inc(&t.turns);
    thread_pool_enter(&t.task.item);
    test_poll_until(ctx, &t.task.done, 1);
    thread_pool_free(pool);
    test_loop_free(ctx);
}

/* ---- Blocking brackets ---- */

static void wait_in_brackets(Task *task)
{
    Pair *pair = task->opaque;

    thread_pool_block_begin();
    barrier_pass(&pair->between);
    thread_pool_block_end();
    barrier_pass(&pair->after);
}

/* A pool of one: the item waits for another, which is queued behind it. */
static void test_block_lets_another_in(void)
{
    AioContext *ctx = test_loop_new();
    ThreadPool *pool = thread_pool_new(0, 1);
    ThreadPoolStats stats;
    Task task, other;
    Pair pair;

    barrier_init(&pair.between);
    barrier_init(&pair.after);
    task_init(&task, ctx, wait_in_brackets);
    task.opaque = &pair;
    task_init(&other, ctx, NULL);
    thread_pool_submit(pool, &task.item);
    thread_pool_submit(pool, &other.item);
    test_poll_until(ctx, &other.done, 1);
    barrier_await(&pair.between, 1);
    await_idle(pool, 1);
    thread_pool_get_stats(pool, &stats);
    g_assert_cmpint(stats.threads, ==, 2);
    g_assert_cmpint(stats.blocked, ==, 1);

    /* Back inside, it counts again: the other thread is one too many. */
    barrier_open(&pair.between);
    barrier_await(&pair.after, 1);
    thread_pool_submit(pool, &other.item);
    thread_pool_get_stats(pool, &stats);
    g_assert_cmpint(stats.blocked, ==, 0);
    g_assert_cmpint(stats.idle, ==, 1);
    barrier_open(&pair.after);
    test_poll_until(ctx, &other.done, 2);
    test_poll_until(ctx, &task.done, 1);
    thread_pool_free(pool);
    barrier_destroy(&pair.between);
    barrier_destroy(&pair.after);
    test_loop_free(ctx);
}

static void pass_in_brackets(Task *task)
{
    thread_pool_block_begin();
    barrier_pass(task->opaque);
    thread_pool_block_end();
}

/* All of them blocked: no more than the cap of 64 in place of others. */
static void test_block_has_a_cap(void)
{
    ThreadPool *pool = thread_pool_new(0, 1);
    ThreadPoolStats stats;
    Task tasks[70];
    Barrier barrier;

    thread_pool_block_begin();          /* outside of a worker: nothing */
    thread_pool_block_end();
    barrier_init(&barrier);
    for (int i = 0; i < 70; i++) {
        task_init(&tasks[i], NULL, pass_in_brackets);
        tasks[i].opaque = &barrier;
        thread_pool_submit(pool, &tasks[i].item);
    }
    barrier_await(&barrier, 65);
    thread_pool_get_stats(pool, &stats);
    g_assert_cmpint(stats.threads, ==, 65);
    g_assert_cmpint(stats.blocked, ==, 65);
    barrier_open(&barrier);
    thread_pool_free(pool);
    g_assert_cmpint(barrier.arrived, ==, 70);
    barrier_destroy(&barrier);
}

/* ---- What must not be ---- */

static void submit_to_own_pool(Task *task)
{
    static Task nested;

    task_init(&nested, NULL, NULL);
    thread_pool_submit(task->item.pool, &nested.item);
}

static void free_own_pool(Task *task)
{
    thread_pool_free(task->item.pool);
}

static void forget_block_end(Task *task)
{
    thread_pool_block_begin();
}

static void dies(void (*fn)(Task *), const char *pattern)
{
    ThreadPool *pool;
    Task task;

    if (!g_test_subprocess()) {
        test_expect_abort(pattern);
        return;
    }
    pool = thread_pool_new(0, 1);
    task_init(&task, NULL, fn);
    thread_pool_submit(pool, &task.item);
    thread_pool_free(pool);
}

static void test_submit_to_own_pool(void)
{
    dies(submit_to_own_pool, "*current_worker->pool != pool*");
}

static void test_free_own_pool(void)
{
    dies(free_own_pool, "*current_worker->pool != pool*");
}

static void test_forget_block_end(void)
{
    dies(forget_block_end, "*!worker->blocked*");
}

static void test_yield_outside(void)
{
    if (g_test_subprocess()) {
        thread_pool_yield();
    } else {
        test_expect_abort("*worker*");
    }
}

static void test_submit_twice(void)
{
    ThreadPool *pool;
    Barrier barrier;
    Task task;

    if (!g_test_subprocess()) {
        test_expect_abort("*THREAD_POOL_IDLE*");
        return;
    }
    pool = thread_pool_new(0, 1);
    barrier_init(&barrier);
    task_init(&task, NULL, wait_at_barrier);
    task.opaque = &barrier;
    thread_pool_submit(pool, &task.item);
    thread_pool_submit(pool, &task.item);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/thread-pool-item/cancel/queued", test_cancel_queued);
    g_test_add_func("/thread-pool-item/cancel/too-late", test_cancel_too_late);
    g_test_add_func("/thread-pool-item/cancel/races-with-run",
                    test_cancel_races_with_run);
    g_test_add_func("/thread-pool-item/enter/before-yield",
                    test_enter_before_yield);
    g_test_add_func("/thread-pool-item/enter/while-queued",
                    test_enter_while_queued);
    g_test_add_func("/thread-pool-item/enter/permits-do-not-add-up",
                    test_permits_do_not_add_up);
    g_test_add_func("/thread-pool-item/enter/by-many-threads",
                    test_enter_by_many_threads);
    g_test_add_func("/thread-pool-item/block/lets-another-in",
                    test_block_lets_another_in);
    g_test_add_func("/thread-pool-item/block/has-a-cap", test_block_has_a_cap);
    g_test_add_func("/thread-pool-item/misuse/submit-to-own-pool-asserts",
                    test_submit_to_own_pool);
    g_test_add_func("/thread-pool-item/misuse/free-own-pool-asserts",
                    test_free_own_pool);
    g_test_add_func("/thread-pool-item/misuse/forget-block-end-asserts",
                    test_forget_block_end);
    g_test_add_func("/thread-pool-item/misuse/yield-outside-asserts",
                    test_yield_outside);
    g_test_add_func("/thread-pool-item/misuse/submit-twice-asserts",
                    test_submit_twice);
    return g_test_run();
}
