/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads, mutexes, condition variables, semaphores and events.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/thread.h"

#include <pthread.h>
#include <signal.h>

#define NS_PER_MS INT64_C(1000000)
#define LONG_NS   (INT64_C(30) * 1000 * NS_PER_MS)   /* "for ever" */
#define ROUNDS    2000

/* ---- Threads ---- */

static void *return_argument(void *opaque)
{
    return opaque;
}

static void test_join_returns_value(void)
{
    QemuThread thread;
    int token;

    g_assert_cmpint(qemu_thread_create(&thread, "t", return_argument, &token),
                    ==, 0);
    g_assert_true(qemu_thread_join(&thread) == &token);
}

static void *get_name(void *opaque)
{
    g_assert_cmpint(pthread_getname_np(pthread_self(), opaque, 16), ==, 0);
    return NULL;
}

static void test_name_is_cut(void)
{
    QemuThread thread;
    char name[16] = "";

    qemu_thread_create(&thread, "a-name-of-20-letters", get_name, name);
    qemu_thread_join(&thread);
    g_assert_cmpstr(name, ==, "a-name-of-20-le");
}

typedef struct SelfCheck {
    QemuThread thread;
    QemuEvent go;
    bool is_self;
} SelfCheck;

static void *check_self(void *opaque)
{
    SelfCheck *c = opaque;

    qemu_event_wait(&c->go);            /* thread is written by then */
    c->is_self = qemu_thread_is_self(&c->thread);
    return NULL;
}

static void test_is_self(void)
{
    SelfCheck c = { .is_self = false };

    qemu_event_init(&c.go, false);
    qemu_thread_create(&c.thread, "t", check_self, &c);
    g_assert_false(qemu_thread_is_self(&c.thread));
    qemu_event_set(&c.go);
    qemu_thread_join(&c.thread);
    g_assert_true(c.is_self);
    qemu_event_destroy(&c.go);
}

static void *get_signal_mask(void *opaque)
{
    pthread_sigmask(SIG_SETMASK, NULL, opaque);
    return NULL;
}

static void test_signals_go_to_main(void)
{
    QemuThread thread;
    sigset_t before, inside, after;

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    qemu_thread_create(&thread, "t", get_signal_mask, &inside);
    qemu_thread_join(&thread);
    pthread_sigmask(SIG_SETMASK, NULL, &after);

    g_assert_cmpint(sigismember(&inside, SIGTERM), ==, 1);
    g_assert_cmpint(sigismember(&inside, SIGUSR1), ==, 1);
    g_assert_cmpint(sigismember(&inside, SIGSEGV), ==, 0);
    g_assert_cmpint(sigismember(&inside, SIGBUS), ==, 0);
    g_assert_cmpint(sigismember(&after, SIGTERM), ==,
                    sigismember(&before, SIGTERM));
}

/* ---- Mutexes ---- */

typedef struct Counter {
    QemuMutex mutex;
    int value;
} Counter;

static void *count_up(void *opaque)
{
    Counter *c = opaque;

    for (int i = 0; i < ROUNDS; i++) {
        qemu_mutex_lock(&c->mutex);
        c->value++;
        qemu_mutex_unlock(&c->mutex);
    }
    return NULL;
}

static void test_mutex_excludes(void)
{
    QemuThread threads[4];
    Counter c = { .value = 0 };

    qemu_mutex_init(&c.mutex);
    for (int i = 0; i < 4; i++) {
        qemu_thread_create(&threads[i], "count", count_up, &c);
    }
    for (int i = 0; i < 4; i++) {
        qemu_thread_join(&threads[i]);
    }
    g_assert_cmpint(c.value, ==, 4 * ROUNDS);
    qemu_mutex_destroy(&c.mutex);
}

static void *NO_TSA try_lock(void *opaque)
{
    QemuMutex *mutex = opaque;

    if (!qemu_mutex_trylock(mutex)) {
        return NULL;
    }
    qemu_mutex_unlock(mutex);
    return mutex;
}

static void *in_thread(void *(*fn)(void *), void *arg)
{
    QemuThread thread;

    g_assert_cmpint(qemu_thread_create(&thread, "t", fn, arg), ==, 0);
    return qemu_thread_join(&thread);
}

static void test_mutex_trylock(void)
{
    QemuMutex mutex;

    qemu_mutex_init(&mutex);
    g_assert_nonnull(in_thread(try_lock, &mutex));
    qemu_mutex_lock(&mutex);
    g_assert_null(in_thread(try_lock, &mutex));
    qemu_mutex_unlock(&mutex);
    g_assert_nonnull(in_thread(try_lock, &mutex));
    qemu_mutex_destroy(&mutex);
}

/* ---- Condition variables ---- */

typedef struct PingPong {
    QemuMutex mutex;
    QemuCond cond;
    int turn;
} PingPong;

static void play(PingPong *p, int me)
{
    for (int i = 0; i < ROUNDS; i++) {
        qemu_mutex_lock(&p->mutex);
        while (p->turn != me) {
            qemu_cond_wait(&p->cond, &p->mutex);
        }
        p->turn = !me;
        qemu_cond_signal(&p->cond);
        qemu_mutex_unlock(&p->mutex);
    }
}

static void *play_second(void *opaque)
{
    play(opaque, 1);
    return NULL;
}

static void test_cond_hands_over(void)
{
    PingPong p = { .turn = 0 };
    QemuThread thread;

    qemu_mutex_init(&p.mutex);
    qemu_cond_init(&p.cond);
    qemu_thread_create(&thread, "second", play_second, &p);
    play(&p, 0);
    qemu_thread_join(&thread);
    g_assert_cmpint(p.turn, ==, 0);
    qemu_cond_destroy(&p.cond);
    qemu_mutex_destroy(&p.mutex);
}

static void test_cond_times_out(void)
{
    QemuMutex mutex;
    QemuCond cond;
    int64_t start = qemu_clock_ns();

    qemu_mutex_init(&mutex);
    qemu_cond_init(&cond);
    qemu_mutex_lock(&mutex);
    while (qemu_cond_timedwait(&cond, &mutex, 2 * NS_PER_MS)) {
        /* woken without reason */
    }
    g_assert_cmpint(qemu_clock_ns() - start, >=, 2 * NS_PER_MS);
    g_assert_false(qemu_cond_timedwait(&cond, &mutex, 0));
    g_assert_false(qemu_cond_timedwait(&cond, &mutex, -1));
    qemu_mutex_unlock(&mutex);
    qemu_cond_destroy(&cond);
    qemu_mutex_destroy(&mutex);
}

typedef struct Herd {
    QemuMutex mutex;
    QemuCond cond;
    QemuSemaphore arrived;
    bool open;
} Herd;

static void *wait_for_gate(void *opaque)
{
    Herd *h = opaque;

    qemu_mutex_lock(&h->mutex);
    qemu_sem_post(&h->arrived);
    while (!h->open) {
        qemu_cond_wait(&h->cond, &h->mutex);
    }
    qemu_mutex_unlock(&h->mutex);
    return NULL;
}

static void test_cond_broadcast_wakes_all(void)
{
    Herd h = { .open = false };
    QemuThread threads[4];

    qemu_mutex_init(&h.mutex);
    qemu_cond_init(&h.cond);
    qemu_sem_init(&h.arrived, 0);
    for (int i = 0; i < 4; i++) {
        qemu_thread_create(&threads[i], "herd", wait_for_gate, &h);
    }
    for (int i = 0; i < 4; i++) {
        qemu_sem_wait(&h.arrived);
    }
    qemu_mutex_lock(&h.mutex);          /* so all of them wait */
    h.open = true;
    qemu_cond_broadcast(&h.cond);
    qemu_mutex_unlock(&h.mutex);
    for (int i = 0; i < 4; i++) {
        qemu_thread_join(&threads[i]);
    }
    qemu_sem_destroy(&h.arrived);
    qemu_cond_destroy(&h.cond);
    qemu_mutex_destroy(&h.mutex);
}

/* ---- Semaphores ---- */

static void test_sem_counts(void)
{
    QemuSemaphore sem;

    qemu_sem_init(&sem, 2);
    qemu_sem_wait(&sem);
    g_assert_true(qemu_sem_timedwait(&sem, LONG_NS));
    g_assert_false(qemu_sem_timedwait(&sem, 0));
    g_assert_false(qemu_sem_timedwait(&sem, NS_PER_MS));
    qemu_sem_post(&sem);
    g_assert_true(qemu_sem_timedwait(&sem, 0));
    qemu_sem_destroy(&sem);
}

typedef struct SemPair {
    QemuSemaphore ping;
    QemuSemaphore pong;
} SemPair;

static void *answer(void *opaque)
{
    SemPair *s = opaque;

    for (int i = 0; i < ROUNDS; i++) {
        qemu_sem_wait(&s->ping);
        qemu_sem_post(&s->pong);
    }
    return NULL;
}

static void test_sem_wakes(void)
{
    SemPair s;
    QemuThread thread;

    qemu_sem_init(&s.ping, 0);
    qemu_sem_init(&s.pong, 0);
    qemu_thread_create(&thread, "answer", answer, &s);
    for (int i = 0; i < ROUNDS; i++) {
        qemu_sem_post(&s.ping);
        g_assert_true(qemu_sem_timedwait(&s.pong, LONG_NS));
    }
    qemu_thread_join(&thread);
    qemu_sem_destroy(&s.pong);
    qemu_sem_destroy(&s.ping);
}

/* ---- Events ---- */

static void test_event_stays_set(void)
{
    QemuEvent event;

    qemu_event_init(&event, true);
    qemu_event_wait(&event);
    qemu_event_wait(&event);
    qemu_event_reset(&event);
    g_assert_false(qemu_event_timedwait(&event, NS_PER_MS));
    qemu_event_set(&event);
    qemu_event_set(&event);
    g_assert_true(qemu_event_timedwait(&event, LONG_NS));
    qemu_event_destroy(&event);
}

/* The waiter frees the event while the setter may still be inside of set. */
static void *set_event(void *opaque)
{
    qemu_event_set(opaque);
    return NULL;
}

static void test_event_waiter_may_free(void)
{
    for (int i = 0; i < 200; i++) {
        QemuEvent *event = g_new(QemuEvent, 1);
        QemuThread thread;

        qemu_event_init(event, false);
        qemu_thread_create(&thread, "set", set_event, event);
        g_assert_true(qemu_event_timedwait(event, LONG_NS));
        qemu_event_destroy(event);
        memset(event, 0xff, sizeof(*event));
        g_free(event);
        qemu_thread_join(&thread);
    }
}

static void test_clock_is_monotonic(void)
{
    int64_t last = qemu_clock_ns();

    for (int i = 0; i < ROUNDS; i++) {
        int64_t now = qemu_clock_ns();

        g_assert_cmpint(now, >=, last);
        last = now;
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/thread/join/returns-value", test_join_returns_value);
    g_test_add_func("/thread/name/is-cut", test_name_is_cut);
    g_test_add_func("/thread/is-self", test_is_self);
    g_test_add_func("/thread/signals/go-to-main", test_signals_go_to_main);
    g_test_add_func("/thread/mutex/excludes", test_mutex_excludes);
    g_test_add_func("/thread/mutex/trylock", test_mutex_trylock);
    g_test_add_func("/thread/cond/hands-over", test_cond_hands_over);
    g_test_add_func("/thread/cond/times-out", test_cond_times_out);
    g_test_add_func("/thread/cond/broadcast-wakes-all",
                    test_cond_broadcast_wakes_all);
    g_test_add_func("/thread/sem/counts", test_sem_counts);
    g_test_add_func("/thread/sem/wakes", test_sem_wakes);
    g_test_add_func("/thread/event/stays-set", test_event_stays_set);
    g_test_add_func("/thread/event/waiter-may-free",
                    test_event_waiter_may_free);
    g_test_add_func("/thread/clock/is-monotonic", test_clock_is_monotonic);
    return g_test_run();
}
