/*
 * Mutexes, condition variables, semaphores, events and threads.
 *
 * Thin and typed: no allocation, no failure that a caller could handle (a
 * misuse that the system reports aborts with the name of the call).  Shared
 * state of the block layer uses lock classes (block/lock-order.h), which are
 * made of these; a bare QemuMutex is for leaves that take no other lock.
 *
 * Signal a condition variable while holding its mutex: afterwards, the waiter
 * may already have freed both.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef QEMU_THREAD_H
#define QEMU_THREAD_H

#include <stdbool.h>
#include <stdint.h>

#include "qemu/compiler.h"
#include "qemu/thread-safety.h"

#ifdef _WIN32
#include "qemu/thread-win32.h"
#else
#include "qemu/thread-posix.h"
#endif

typedef struct QemuMutex QemuMutex;
typedef struct QemuCond QemuCond;
typedef struct QemuSemaphore QemuSemaphore;
typedef struct QemuEvent QemuEvent;
typedef struct QemuThread QemuThread;

void qemu_mutex_init(QemuMutex *mutex);
void qemu_mutex_destroy(QemuMutex *mutex);
void qemu_mutex_lock(QemuMutex *mutex) ACQUIRES(*mutex);
/* True if the mutex was free and is now held. */
bool qemu_mutex_trylock(QemuMutex *mutex) TRY_ACQUIRES(true, *mutex);
void qemu_mutex_unlock(QemuMutex *mutex) RELEASES(*mutex);

void qemu_cond_init(QemuCond *cond);
void qemu_cond_destroy(QemuCond *cond);
/* May wake without reason: call it in a loop that tests the predicate. */
void qemu_cond_wait(QemuCond *cond, QemuMutex *mutex) REQUIRES(*mutex);
/* False once @timeout_ns nanoseconds (monotonic clock) have passed. */
bool qemu_cond_timedwait(QemuCond *cond, QemuMutex *mutex, int64_t timeout_ns)
    REQUIRES(*mutex);
void qemu_cond_signal(QemuCond *cond);
void qemu_cond_broadcast(QemuCond *cond);

void qemu_sem_init(QemuSemaphore *sem, unsigned value);
void qemu_sem_destroy(QemuSemaphore *sem);
void qemu_sem_post(QemuSemaphore *sem);
void qemu_sem_wait(QemuSemaphore *sem);
/* False once @timeout_ns nanoseconds have passed without a post. */
bool qemu_sem_timedwait(QemuSemaphore *sem, int64_t timeout_ns);

/* A flag that can be waited for; it stays set until it is reset. */
void qemu_event_init(QemuEvent *event, bool set);
void qemu_event_destroy(QemuEvent *event);
void qemu_event_set(QemuEvent *event);
void qemu_event_reset(QemuEvent *event);
void qemu_event_wait(QemuEvent *event);
bool qemu_event_timedwait(QemuEvent *event, int64_t timeout_ns);

/*
 * Start @fn(@arg) in a joinable thread.  @name (copied, cut to 15 bytes) shows
 * in debuggers.  Threads start with all signals blocked, except those that
 * report a fault of the thread itself, so that signals reach the main thread.
 * Returns 0, or -errno when the system is out of threads.
 */
int qemu_thread_create(QemuThread *thread, const char *name,
                       void *(*fn)(void *), void *arg);
/* Wait for the thread to end; returns what its function returned. */
void *qemu_thread_join(QemuThread *thread);
bool qemu_thread_is_self(const QemuThread *thread);
void qemu_thread_set_name(const char *name);

/* Monotonic time in nanoseconds. */
int64_t qemu_clock_ns(void);

#endif
