/*
 * Mutexes, condition variables, semaphores, events and threads on pthreads.
 *
 * Nothing here fails in a way that a caller could handle: a pthread call that
 * returns an error was misused, and the program ends, naming the call.  The
 * exception is creating a thread.  Condition variables use the monotonic clock,
 * so that setting the system's clock ends no time-out.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/thread.h"

#include <signal.h>

#define NS_PER_S INT64_C(1000000000)

static void check(int err, const char *what)
{
    if (unlikely(err)) {
        fprintf(stderr, "%s: %s\n", what, strerror(err));
        abort();
    }
}

int64_t qemu_clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static struct timespec deadline(int64_t timeout_ns)
{
    int64_t at = qemu_clock_ns();

    if (timeout_ns > 0) {
        at = at > INT64_MAX - timeout_ns ? INT64_MAX : at + timeout_ns;
    }
    return (struct timespec){ .tv_sec = at / NS_PER_S,
                              .tv_nsec = at % NS_PER_S };
}

void qemu_mutex_init(QemuMutex *mutex)
{
    check(pthread_mutex_init(&mutex->m, NULL), "pthread_mutex_init");
}

void qemu_mutex_destroy(QemuMutex *mutex)
{
    check(pthread_mutex_destroy(&mutex->m), "pthread_mutex_destroy");
}

void NO_TSA qemu_mutex_lock(QemuMutex *mutex)
{
    check(pthread_mutex_lock(&mutex->m), "pthread_mutex_lock");
}

bool NO_TSA qemu_mutex_trylock(QemuMutex *mutex)
{
    int err = pthread_mutex_trylock(&mutex->m);

    if (err == EBUSY) {
        return false;
    }
    check(err, "pthread_mutex_trylock");
    return true;
}

void NO_TSA qemu_mutex_unlock(QemuMutex *mutex)
{
    check(pthread_mutex_unlock(&mutex->m), "pthread_mutex_unlock");
}

static void cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;

    check(pthread_condattr_init(&attr), "pthread_condattr_init");
    check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC),
          "pthread_condattr_setclock");
    check(pthread_cond_init(c, &attr), "pthread_cond_init");
    check(pthread_condattr_destroy(&attr), "pthread_condattr_destroy");
}

static bool cond_wait_until(pthread_cond_t *c, pthread_mutex_t *m,
                            const struct timespec *until)
{
    int err = pthread_cond_timedwait(c, m, until);

    if (err == ETIMEDOUT) {
        return false;
    }
    check(err, "pthread_cond_timedwait");
    return true;
}

void qemu_cond_init(QemuCond *cond)
{
    cond_init(&cond->c);
}

void qemu_cond_destroy(QemuCond *cond)
{
    check(pthread_cond_destroy(&cond->c), "pthread_cond_destroy");
}

void qemu_cond_wait(QemuCond *cond, QemuMutex *mutex)
{
    check(pthread_cond_wait(&cond->c, &mutex->m), "pthread_cond_wait");
}

bool qemu_cond_timedwait(QemuCond *cond, QemuMutex *mutex, int64_t timeout_ns)
{
    struct timespec until = deadline(timeout_ns);

    return cond_wait_until(&cond->c, &mutex->m, &until);
}

void qemu_cond_signal(QemuCond *cond)
{
    check(pthread_cond_signal(&cond->c), "pthread_cond_signal");
}

void qemu_cond_broadcast(QemuCond *cond)
{
    check(pthread_cond_broadcast(&cond->c), "pthread_cond_broadcast");
}

void qemu_sem_init(QemuSemaphore *sem, unsigned value)
{
    check(pthread_mutex_init(&sem->m, NULL), "pthread_mutex_init");
    cond_init(&sem->c);
    sem->count = value;
}

void qemu_sem_destroy(QemuSemaphore *sem)
{
    check(pthread_cond_destroy(&sem->c), "pthread_cond_destroy");
    check(pthread_mutex_destroy(&sem->m), "pthread_mutex_destroy");
}

void qemu_sem_post(QemuSemaphore *sem)
{
    check(pthread_mutex_lock(&sem->m), "pthread_mutex_lock");
    sem->count++;
    check(pthread_cond_signal(&sem->c), "pthread_cond_signal");
    check(pthread_mutex_unlock(&sem->m), "pthread_mutex_unlock");
}

void qemu_sem_wait(QemuSemaphore *sem)
{
    check(pthread_mutex_lock(&sem->m), "pthread_mutex_lock");
    while (sem->count == 0) {
        check(pthread_cond_wait(&sem->c, &sem->m), "pthread_cond_wait");
    }
    sem->count--;
    check(pthread_mutex_unlock(&sem->m), "pthread_mutex_unlock");
}

bool qemu_sem_timedwait(QemuSemaphore *sem, int64_t timeout_ns)
{
    struct timespec until = deadline(timeout_ns);
    bool got;

    check(pthread_mutex_lock(&sem->m), "pthread_mutex_lock");
    while (sem->count == 0 && cond_wait_until(&sem->c, &sem->m, &until)) {
        /* woken: look again */
    }
    got = sem->count > 0;
    sem->count -= got;
    check(pthread_mutex_unlock(&sem->m), "pthread_mutex_unlock");
    return got;
}

void qemu_event_init(QemuEvent *event, bool set)
{
    check(pthread_mutex_init(&event->m, NULL), "pthread_mutex_init");
    cond_init(&event->c);
    event->is_set = set;
}

void qemu_event_destroy(QemuEvent *event)
{
    /* Whoever set it may not have let go of the mutex yet. */
    check(pthread_mutex_lock(&event->m), "pthread_mutex_lock");
    check(pthread_mutex_unlock(&event->m), "pthread_mutex_unlock");
    check(pthread_cond_destroy(&event->c), "pthread_cond_destroy");
    check(pthread_mutex_destroy(&event->m), "pthread_mutex_destroy");
}

void qemu_event_set(QemuEvent *event)
{
    check(pthread_mutex_lock(&event->m), "pthread_mutex_lock");
    event->is_set = true;
    check(pthread_cond_broadcast(&event->c), "pthread_cond_broadcast");
    check(pthread_mutex_unlock(&event->m), "pthread_mutex_unlock");
}

void qemu_event_reset(QemuEvent *event)
{
    check(pthread_mutex_lock(&event->m), "pthread_mutex_lock");
    event->is_set = false;
    check(pthread_mutex_unlock(&event->m), "pthread_mutex_unlock");
}

void qemu_event_wait(QemuEvent *event)
{
    check(pthread_mutex_lock(&event->m), "pthread_mutex_lock");
    while (!event->is_set) {
        check(pthread_cond_wait(&event->c, &event->m), "pthread_cond_wait");
    }
    check(pthread_mutex_unlock(&event->m), "pthread_mutex_unlock");
}

bool qemu_event_timedwait(QemuEvent *event, int64_t timeout_ns)
{
    struct timespec until = deadline(timeout_ns);
    bool set;

    check(pthread_mutex_lock(&event->m), "pthread_mutex_lock");
    while (!event->is_set && cond_wait_until(&event->c, &event->m, &until)) {
        /* woken: look again */
    }
    set = event->is_set;
    check(pthread_mutex_unlock(&event->m), "pthread_mutex_unlock");
    return set;
}

typedef struct ThreadStart {
    void *(*fn)(void *);
    void *arg;
    char name[16];
} ThreadStart;

void qemu_thread_set_name(const char *name)
{
    char cut[16];

    g_strlcpy(cut, name, sizeof(cut));
    pthread_setname_np(pthread_self(), cut);
}

static void *thread_start(void *opaque)
{
    ThreadStart start = *(ThreadStart *)opaque;

    g_free(opaque);
    qemu_thread_set_name(start.name);
    return start.fn(start.arg);
}

/* All signals but those that a thread raises by its own fault. */
static void block_signals(sigset_t *old)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT,
                                  SIGTRAP };
    sigset_t set;
    size_t i;

    sigfillset(&set);
    for (i = 0; i < ARRAY_SIZE(faults); i++) {
        sigdelset(&set, faults[i]);
    }
    check(pthread_sigmask(SIG_SETMASK, &set, old), "pthread_sigmask");
}

int qemu_thread_create(QemuThread *thread, const char *name,
                       void *(*fn)(void *), void *arg)
{
    ThreadStart *start = g_new(ThreadStart, 1);
    sigset_t old;
    int err;

    *start = (ThreadStart){ .fn = fn, .arg = arg };
    g_strlcpy(start->name, name, sizeof(start->name));
    block_signals(&old);
    err = pthread_create(&thread->t, NULL, thread_start, start);
    check(pthread_sigmask(SIG_SETMASK, &old, NULL), "pthread_sigmask");
    if (err) {
        g_free(start);
    }
    return -err;
}

void *qemu_thread_join(QemuThread *thread)
{
    void *ret;

    check(pthread_join(thread->t, &ret), "pthread_join");
    return ret;
}

bool qemu_thread_is_self(const QemuThread *thread)
{
    return pthread_equal(thread->t, pthread_self());
}
