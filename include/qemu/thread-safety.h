/*
 * Names for clang's thread-safety attributes, nothing under other compilers.
 *
 * C has no way to say "guarded by my sibling member" (clang 14), so a lock is
 * named by its *class*: see block/lock-order.h.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef QEMU_THREAD_SAFETY_H
#define QEMU_THREAD_SAFETY_H

#if defined(__clang__)
#define TSA(x) __attribute__((x))
#else
#define TSA(x)
#endif

#define CAPABILITY(name)    TSA(capability(name))
#define GUARDED_BY(x)       TSA(guarded_by(x))
#define PT_GUARDED_BY(x)    TSA(pt_guarded_by(x))
#define REQUIRES(...)       TSA(requires_capability(__VA_ARGS__))
#define EXCLUDES(...)       TSA(locks_excluded(__VA_ARGS__))
#define ACQUIRES(...)       TSA(acquire_capability(__VA_ARGS__))
#define RELEASES(...)       TSA(release_capability(__VA_ARGS__))
#define TRY_ACQUIRES(...)   TSA(try_acquire_capability(__VA_ARGS__))
#define ACQUIRED_AFTER(...) TSA(acquired_after(__VA_ARGS__))
#define NO_TSA              TSA(no_thread_safety_analysis)

#endif
