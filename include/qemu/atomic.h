/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Atomic operations on plain variables: thin names over the compiler's
 * __atomic builtins, so that ThreadSanitizer sees every one of them.
 *
 * _read and _set are relaxed: no tearing, no ordering.  What publishes data
 * uses _store_release and _load_acquire.  The read-modify-write operations are
 * sequentially consistent and return the value from before.
 *
 * Fences (smp_*) order plain atomics around them, but ThreadSanitizer does not
 * model fences: do not rely on one to publish non-atomic data, say so with
 * acquire and release instead.
 */
#ifndef QEMU_ATOMIC_H
#define QEMU_ATOMIC_H

#include <stdbool.h>

/* The type of *@ptr without const, volatile and the like. */
#define qatomic_type_(ptr) __typeof__((void)0, *(ptr))

#define qatomic_read(ptr)       __atomic_load_n((ptr), __ATOMIC_RELAXED)
#define qatomic_set(ptr, val)   __atomic_store_n((ptr), (val), __ATOMIC_RELAXED)

#define qatomic_load_acquire(ptr) __atomic_load_n((ptr), __ATOMIC_ACQUIRE)
#define qatomic_store_release(ptr, val) \
    __atomic_store_n((ptr), (val), __ATOMIC_RELEASE)

/*
 * Sequentially consistent load and store: in one total order with each other
 * and with the operations below.  "Set my flag, then look at yours" wants
 * qatomic_set_mb and qatomic_load_sc on both sides.
 */
#define qatomic_load_sc(ptr)     __atomic_load_n((ptr), __ATOMIC_SEQ_CST)
#define qatomic_set_mb(ptr, val) \
    __atomic_store_n((ptr), (val), __ATOMIC_SEQ_CST)

/* Read-modify-write, value from before. */
#define qatomic_xchg(ptr, val) \
    __atomic_exchange_n((ptr), (val), __ATOMIC_SEQ_CST)
#define qatomic_fetch_add(ptr, n) \
    __atomic_fetch_add((ptr), (n), __ATOMIC_SEQ_CST)
#define qatomic_fetch_sub(ptr, n) \
    __atomic_fetch_sub((ptr), (n), __ATOMIC_SEQ_CST)
#define qatomic_fetch_and(ptr, n) \
    __atomic_fetch_and((ptr), (n), __ATOMIC_SEQ_CST)
#define qatomic_fetch_or(ptr, n) \
    __atomic_fetch_or((ptr), (n), __ATOMIC_SEQ_CST)
#define qatomic_fetch_inc(ptr)  qatomic_fetch_add((ptr), 1)
#define qatomic_fetch_dec(ptr)  qatomic_fetch_sub((ptr), 1)

/* The same, result unused. */
#define qatomic_add(ptr, n)     ((void)qatomic_fetch_add((ptr), (n)))
#define qatomic_sub(ptr, n)     ((void)qatomic_fetch_sub((ptr), (n)))
#define qatomic_and(ptr, n)     ((void)qatomic_fetch_and((ptr), (n)))
#define qatomic_or(ptr, n)      ((void)qatomic_fetch_or((ptr), (n)))
#define qatomic_inc(ptr)        ((void)qatomic_fetch_add((ptr), 1))
#define qatomic_dec(ptr)        ((void)qatomic_fetch_sub((ptr), 1))

/* A statistics counter: atomic, but orders nothing. */
#define qatomic_count(ptr, n) \
    ((void)__atomic_fetch_add((ptr), (n), __ATOMIC_RELAXED))

/*
 * If *@ptr is @old, make it @val.  Returns what *@ptr was: the exchange was
 * made if that is @old.
 */
#define qatomic_cmpxchg(ptr, old, val) ({                                    \
    qatomic_type_(ptr) qatomic_old_ = (old);                                 \
    (void)__atomic_compare_exchange_n((ptr), &qatomic_old_, (val), false,    \
                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);   \
    qatomic_old_; })

#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
/* gcc warns that TSan ignores fences; see the top of this file. */
#define qatomic_fence_(order) do {                                           \
    _Pragma("GCC diagnostic push")                                           \
    _Pragma("GCC diagnostic ignored \"-Wtsan\"")                             \
    __atomic_thread_fence(order);                                            \
    _Pragma("GCC diagnostic pop")                                            \
} while (0)
#else
#define qatomic_fence_(order) __atomic_thread_fence(order)
#endif

#define barrier()  __asm__ volatile("" ::: "memory")
#define smp_mb()   qatomic_fence_(__ATOMIC_SEQ_CST)
#define smp_rmb()  qatomic_fence_(__ATOMIC_ACQUIRE)
#define smp_wmb()  qatomic_fence_(__ATOMIC_RELEASE)

/* Be kind to the sibling hyperthread inside a short spin. */
#if defined(__x86_64__) || defined(__i386__)
#define cpu_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define cpu_relax() __asm__ volatile("yield" ::: "memory")
#else
#define cpu_relax() barrier()
#endif

#endif
