/*
 * The lock hierarchy, whole.  A thread takes locks in the order of this list:
 *
 *   monitor    one QMP command at a time
 *   graph      nodes, their names, parents and children
 *   job        the state of one job
 *   gate       a backend's drain gate and what is parked behind it
 *   driver     the state of a format or filter
 *   protocol   the state of a driver that talks to the outside (file, nbd …)
 *   reqs       a node's list of tracked requests
 *   throttle   a throttle group
 *   pool       a thread pool's queue and workers
 *   context    lists of an AioContext that several threads use
 *   timer      timer lists
 *   bitmap     a node's dirty bitmaps: only ever held for work in memory, so
 *              that it may be taken under any of the above
 *   leaf       takes nothing else, holds nothing across a call
 *
 * Each line is a lock *class*: a typed mutex, of which there may be many
 * instances, but of which a thread holds one at a time.  Clang checks at
 * compile time that fields GUARDED_BY(name_class) are used under the lock, that
 * no path leaks it, and the order; with CONFIG_LOCK_DEBUG a per-thread stack of
 * ranks checks the order at run time too, where clang cannot see (behind
 * function pointers).
 *
 * No callback, no submission and no sleep happens below "driver"; a pool
 * worker never takes "monitor".
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_LOCK_ORDER_H
#define BLOCK_LOCK_ORDER_H

#include "qemu/thread.h"

typedef enum LockRank {
    RANK_NONE,
    RANK_MONITOR,
    RANK_GRAPH,
    RANK_JOB,
    RANK_GATE,
    RANK_DRIVER,
    RANK_PROTOCOL,
    RANK_REQS,
    RANK_THROTTLE,
    RANK_POOL,
    RANK_CONTEXT,
    RANK_TIMER,
    RANK_BITMAP,
    RANK_LEAF,
} LockRank;

#ifdef CONFIG_LOCK_DEBUG
/* Abort, naming both ranks, unless @rank is above all that the thread holds. */
void lock_rank_push(LockRank rank);
void lock_rank_pop(LockRank rank);
/* Abort if the thread holds any lock of @rank or a higher one. */
void lock_rank_assert_below(LockRank rank);
#else
static inline void lock_rank_push(LockRank rank)
{
}
static inline void lock_rank_pop(LockRank rank)
{
}
static inline void lock_rank_assert_below(LockRank rank)
{
}
#endif

/* Only its address means something, and only to the analysis. */
typedef struct CAPABILITY("mutex") LockClass {
    char unused;
} LockClass;

/*
 * LOCK_CLASS(Type, name, rank, attributes…) makes:
 *
 *   Type                          a mutex of this class
 *   name_class                    what GUARDED_BY and REQUIRES name
 *   name_init, name_destroy
 *   name_lock, name_trylock, name_unlock
 *   name_wait(cond, lock)         wait on a condition variable
 *   name_timedwait(cond, lock, ns)
 */
#define LOCK_CLASS(Type, name, rank, ...)                                   \
    extern LockClass name##_class __VA_ARGS__;                              \
    typedef struct Type {                                                   \
        QemuMutex mutex;                                                    \
    } Type;                                                                 \
    static inline void name##_init(Type *l)                                 \
    {                                                                       \
        qemu_mutex_init(&l->mutex);                                         \
    }                                                                       \
    static inline void name##_destroy(Type *l)                              \
    {                                                                       \
        qemu_mutex_destroy(&l->mutex);                                      \
    }                                                                       \
    static inline void ACQUIRES(name##_class) NO_TSA name##_lock(Type *l)   \
    {                                                                       \
        lock_rank_push(rank);                                               \
        qemu_mutex_lock(&l->mutex);                                         \
    }                                                                       \
    static inline bool TRY_ACQUIRES(true, name##_class) NO_TSA              \
        name##_trylock(Type *l)                                             \
    {                                                                       \
        if (!qemu_mutex_trylock(&l->mutex)) {                               \
            return false;                                                   \
        }                                                                   \
        lock_rank_push(rank);                                               \
        return true;                                                        \
    }                                                                       \
    static inline void RELEASES(name##_class) NO_TSA name##_unlock(Type *l) \
    {                                                                       \
        qemu_mutex_unlock(&l->mutex);                                       \
        lock_rank_pop(rank);                                                \
    }                                                                       \
    static inline void REQUIRES(name##_class) NO_TSA                        \
        name##_wait(QemuCond *c, Type *l)                                   \
    {                                                                       \
        qemu_cond_wait(c, &l->mutex);                                       \
    }                                                                       \
    static inline bool REQUIRES(name##_class) NO_TSA                        \
        name##_timedwait(QemuCond *c, Type *l, int64_t timeout_ns)          \
    {                                                                       \
        return qemu_cond_timedwait(c, &l->mutex, timeout_ns);               \
    }                                                                       \
    typedef Type Type##IsALockClass

LOCK_CLASS(MonitorLock, monitor, RANK_MONITOR);
LOCK_CLASS(GraphLock, graph, RANK_GRAPH, ACQUIRED_AFTER(monitor_class));
LOCK_CLASS(JobLock, job, RANK_JOB, ACQUIRED_AFTER(graph_class));
LOCK_CLASS(GateLock, gate, RANK_GATE, ACQUIRED_AFTER(job_class));
LOCK_CLASS(DriverLock, driver, RANK_DRIVER, ACQUIRED_AFTER(gate_class));
LOCK_CLASS(ProtocolLock, protocol, RANK_PROTOCOL, ACQUIRED_AFTER(driver_class));
LOCK_CLASS(ReqsLock, reqs, RANK_REQS, ACQUIRED_AFTER(protocol_class));
LOCK_CLASS(ThrottleLock, throttle, RANK_THROTTLE, ACQUIRED_AFTER(reqs_class));
LOCK_CLASS(PoolLock, pool, RANK_POOL, ACQUIRED_AFTER(throttle_class));
LOCK_CLASS(ContextLock, context, RANK_CONTEXT, ACQUIRED_AFTER(pool_class));
LOCK_CLASS(TimerLock, timer, RANK_TIMER, ACQUIRED_AFTER(context_class));
LOCK_CLASS(BitmapLock, bitmap, RANK_BITMAP, ACQUIRED_AFTER(timer_class));
LOCK_CLASS(LeafLock, leaf, RANK_LEAF, ACQUIRED_AFTER(bitmap_class));

#endif
