/*
 * Mutexes, condition variables, semaphores, events and threads on Windows.
 *
 * Slim locks and condition variables neither fail nor need destroying, and all
 * time-outs are relative, so this is shorter than its POSIX twin.  A wait is in
 * milliseconds, rounded up; one that Windows cannot express ends early, as a
 * wake-up without reason.  Needs nothing but Windows' own headers.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/thread.h"

#include <errno.h>
#include <process.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S  INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

static void check(bool ok, const char *what)
{
    if (unlikely(!ok)) {
        fprintf(stderr, "%s: error %lu\n", what, GetLastError());
        abort();
    }
}

int64_t qemu_clock_ns(void)
{
    LARGE_INTEGER frequency, now;

    check(QueryPerformanceFrequency(&frequency), "QueryPerformanceFrequency");
    check(QueryPerformanceCounter(&now), "QueryPerformanceCounter");
    return now.QuadPart / frequency.QuadPart * NS_PER_S +
           now.QuadPart % frequency.QuadPart * NS_PER_S / frequency.QuadPart;
}

static int64_t deadline(int64_t timeout_ns)
{
    int64_t now = qemu_clock_ns();

    if (timeout_ns <= 0) {
        return now;
    }
    return now > INT64_MAX - timeout_ns ? INT64_MAX : now + timeout_ns;
}

/* False once it is @until; true when woken, perhaps without reason. */
static bool wait_until(CONDITION_VARIABLE *c, SRWLOCK *m, int64_t until)
{
    int64_t left = until - qemu_clock_ns();
    int64_t ms = left <= 0 ? 0 : left / NS_PER_MS + (left % NS_PER_MS != 0);

    if (SleepConditionVariableSRW(c, m, ms < INFINITE ? ms : INFINITE - 1, 0)) {
        return true;
    }
    check(GetLastError() == ERROR_TIMEOUT, "SleepConditionVariableSRW");
    return qemu_clock_ns() < until;
}

static void wait(CONDITION_VARIABLE *c, SRWLOCK *m)
{
    check(SleepConditionVariableSRW(c, m, INFINITE, 0),
          "SleepConditionVariableSRW");
}

/* ---- Mutexes and condition variables ---- */

void qemu_mutex_init(QemuMutex *mutex)
{
    InitializeSRWLock(&mutex->m);
}

void qemu_mutex_destroy(QemuMutex *mutex)
{
}

void NO_TSA qemu_mutex_lock(QemuMutex *mutex)
{
    AcquireSRWLockExclusive(&mutex->m);
}

bool NO_TSA qemu_mutex_trylock(QemuMutex *mutex)
{
    return TryAcquireSRWLockExclusive(&mutex->m);
}

void NO_TSA qemu_mutex_unlock(QemuMutex *mutex)
{
    ReleaseSRWLockExclusive(&mutex->m);
}

void qemu_cond_init(QemuCond *cond)
{
    InitializeConditionVariable(&cond->c);
}

void qemu_cond_destroy(QemuCond *cond)
{
}

void qemu_cond_wait(QemuCond *cond, QemuMutex *mutex)
{
    wait(&cond->c, &mutex->m);
}

bool qemu_cond_timedwait(QemuCond *cond, QemuMutex *mutex, int64_t timeout_ns)
{
    return wait_until(&cond->c, &mutex->m, deadline(timeout_ns));
}

void qemu_cond_signal(QemuCond *cond)
{
    WakeConditionVariable(&cond->c);
}

void qemu_cond_broadcast(QemuCond *cond)
{
    WakeAllConditionVariable(&cond->c);
}

/* ---- Semaphores ---- */

void qemu_sem_init(QemuSemaphore *sem, unsigned value)
{
    InitializeSRWLock(&sem->m);
    InitializeConditionVariable(&sem->c);
    sem->count = value;
}

void qemu_sem_destroy(QemuSemaphore *sem)
{
}

void qemu_sem_post(QemuSemaphore *sem)
{
    AcquireSRWLockExclusive(&sem->m);
    sem->count++;
    WakeConditionVariable(&sem->c);
    ReleaseSRWLockExclusive(&sem->m);
}

void qemu_sem_wait(QemuSemaphore *sem)
{
    AcquireSRWLockExclusive(&sem->m);
    while (sem->count == 0) {
        wait(&sem->c, &sem->m);
    }
    sem->count--;
    ReleaseSRWLockExclusive(&sem->m);
}

bool qemu_sem_timedwait(QemuSemaphore *sem, int64_t timeout_ns)
{
    int64_t until = deadline(timeout_ns);
    bool got;

    AcquireSRWLockExclusive(&sem->m);
    while (sem->count == 0 && wait_until(&sem->c, &sem->m, until)) {
        /* woken: look again */
    }
    got = sem->count > 0;
    sem->count -= got;
    ReleaseSRWLockExclusive(&sem->m);
    return got;
}

/* ---- Events ---- */

void qemu_event_init(QemuEvent *event, bool set)
{
    InitializeSRWLock(&event->m);
    InitializeConditionVariable(&event->c);
    event->is_set = set;
}

void qemu_event_destroy(QemuEvent *event)
{
    /* Whoever set it may not have let go of the lock yet. */
    AcquireSRWLockExclusive(&event->m);
    ReleaseSRWLockExclusive(&event->m);
}

void qemu_event_set(QemuEvent *event)
{
    AcquireSRWLockExclusive(&event->m);
    event->is_set = true;
    WakeAllConditionVariable(&event->c);
    ReleaseSRWLockExclusive(&event->m);
}

void qemu_event_reset(QemuEvent *event)
{
    AcquireSRWLockExclusive(&event->m);
    event->is_set = false;
    ReleaseSRWLockExclusive(&event->m);
}

void qemu_event_wait(QemuEvent *event)
{
    AcquireSRWLockExclusive(&event->m);
    while (!event->is_set) {
        wait(&event->c, &event->m);
    }
    ReleaseSRWLockExclusive(&event->m);
}

bool qemu_event_timedwait(QemuEvent *event, int64_t timeout_ns)
{
    int64_t until = deadline(timeout_ns);
    bool set;

    AcquireSRWLockExclusive(&event->m);
    while (!event->is_set && wait_until(&event->c, &event->m, until)) {
        /* woken: look again */
    }
    set = event->is_set;
    ReleaseSRWLockExclusive(&event->m);
    return set;
}

/* ---- Threads ---- */

typedef struct QemuThreadStart {
    void *(*fn)(void *);
    void *arg;
    void *ret;
    char name[16];
} QemuThreadStart;

static __thread QemuThreadStart *current_start;

/* Windows 10 can; before, threads have no names. */
void qemu_thread_set_name(const char *name)
{
    typedef HRESULT WINAPI SetDescription(HANDLE, PCWSTR);
    HMODULE kernel = GetModuleHandleA("kernel32.dll");
    FARPROC proc = kernel ? GetProcAddress(kernel, "SetThreadDescription")
                          : NULL;
    wchar_t wide[16];
    char cut[16];

    if (!proc) {
        return;
    }
    snprintf(cut, sizeof(cut), "%.15s", name);
    if (MultiByteToWideChar(CP_UTF8, 0, cut, -1, wide, ARRAY_SIZE(wide)) > 0) {
        ((SetDescription *)(void *)proc)(GetCurrentThread(), wide);
    }
}

static unsigned WINAPI thread_start(void *opaque)
{
    QemuThreadStart *start = opaque;

    current_start = start;
    qemu_thread_set_name(start->name);
    start->ret = start->fn(start->arg);
    return 0;
}

int qemu_thread_create(QemuThread *thread, const char *name,
                       void *(*fn)(void *), void *arg)
{
    QemuThreadStart *start = calloc(1, sizeof(*start));
    uintptr_t handle;

    if (!start) {
        return -ENOMEM;
    }
    start->fn = fn;
    start->arg = arg;
    snprintf(start->name, sizeof(start->name), "%.15s", name);
    thread->start = start;              /* for is_self, before it runs */
    handle = _beginthreadex(NULL, 0, thread_start, start, 0, NULL);
    if (!handle) {
        int ret = -errno;

        free(start);
        return ret;
    }
    thread->handle = (HANDLE)handle;
    return 0;
}

void *qemu_thread_join(QemuThread *thread)
{
    void *ret;

    check(!qemu_thread_is_self(thread), "a thread joins itself");
    check(WaitForSingleObject(thread->handle, INFINITE) == WAIT_OBJECT_0,
          "WaitForSingleObject");
    check(CloseHandle(thread->handle), "CloseHandle");
    ret = thread->start->ret;
    free(thread->start);
    return ret;
}

bool qemu_thread_is_self(const QemuThread *thread)
{
    return thread->start == current_start;
}
