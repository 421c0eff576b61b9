/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Macros that need nothing but the language: no system header beyond the
 * freestanding ones, no glib.  The files that a Windows build shares can use
 * this header alone.
 */
#ifndef QEMU_COMPILER_H
#define QEMU_COMPILER_H

#include <stddef.h>
#include <stdint.h>

/* Tell the compiler which way a condition nearly always goes. */
#ifndef likely
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

/* printf-style checking with C99 formats, also where libc has its own idea. */
#if defined(__MINGW32__) && !defined(__clang__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(gnu_printf, fmt, args)))
#else
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#endif

/*
 * Have the line of @p in the cache, and for writing, by the time it is written.
 * Never faults.  (Without -mprfchw the builtin asks for a copy to read, which
 * is of no use here; processors that lack the instruction ignore it.)
 */
static inline void prefetch_write(const void *p)
{
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
    __builtin_prefetch(p, 1);
#endif
}

#define NORETURN __attribute__((noreturn))

/* Built for the address or the thread sanitizer?  gcc and clang say it in
 * different ways. */
#ifdef __has_feature
#define QEMU_ASAN __has_feature(address_sanitizer)
#define QEMU_TSAN __has_feature(thread_sanitizer)
#else
#ifdef __SANITIZE_ADDRESS__
#define QEMU_ASAN 1
#else
#define QEMU_ASAN 0
#endif
#ifdef __SANITIZE_THREAD__
#define QEMU_TSAN 1
#else
#define QEMU_TSAN 0
#endif
#endif

/*
 * The struct of @type whose @member @ptr points at.  Refuses to compile when
 * @ptr does not point to what @member is (const and volatile aside).
 */
#define container_of(ptr, type, member) ({                                   \
    _Static_assert(                                                          \
        __builtin_types_compatible_p(__typeof__(*(ptr)),                     \
                                     __typeof__(((type *)0)->member)),       \
        "container_of: the pointer is not to that member");                  \
    (type *)((char *)(uintptr_t)(ptr) - offsetof(type, member)); })

/* Number of elements of an array; a pointer does not compile. */
#define ARRAY_SIZE(a)                                                        \
    (sizeof(a) / sizeof((a)[0]) +                                            \
     0 * sizeof(struct { int not_a_pointer :                                 \
         __builtin_types_compatible_p(__typeof__(a),                         \
                                      __typeof__(&(a)[0])) ? -1 : 1; }))

/* The quotient rounded up; @n + @d must not overflow. */
#define DIV_ROUND_UP(n, d) (((n) + ((d) - 1)) / (d))

/*
 * Round @n down or up to a multiple of @m, which need not be a power of two.
 * The type is that of the usual conversions between @n and @m.  Rounding up
 * overflows where the multiple does not fit.
 */
#define QEMU_ALIGN_DOWN(n, m) ((n) / (m) * (m))
#define QEMU_ALIGN_UP(n, m)   QEMU_ALIGN_DOWN((n) + ((m) - 1), (m))
#define QEMU_IS_ALIGNED(n, m) (((n) % (m)) == 0)

/* The same for pointers; @m in bytes. */
#define QEMU_ALIGN_PTR_DOWN(p, m) \
    ((__typeof__(p))QEMU_ALIGN_DOWN((uintptr_t)(p), (uintptr_t)(m)))
#define QEMU_ALIGN_PTR_UP(p, m) \
    ((__typeof__(p))QEMU_ALIGN_UP((uintptr_t)(p), (uintptr_t)(m)))
#define QEMU_PTR_IS_ALIGNED(p, m) QEMU_IS_ALIGNED((uintptr_t)(p), (m))

/* Fast forms for @m a power of two (not checked), of @n's own type. */
#define ROUND_DOWN(n, m) ((n) & -(0 ? (n) : (m)))
#define ROUND_UP(n, m)   ROUND_DOWN((n) + ((m) - 1), (m))

/* Binary units of bytes, 64 bits signed. */
#define KiB (INT64_C(1) << 10)
#define MiB (INT64_C(1) << 20)
#define GiB (INT64_C(1) << 30)
#define TiB (INT64_C(1) << 40)
#define PiB (INT64_C(1) << 50)
#define EiB (INT64_C(1) << 60)

/* Whether @n is a power of two; zero is not. */
static inline int is_power_of_2(uint64_t n)
{
    return n && !(n & (n - 1));
}

/* Zero bits below the lowest and above the highest one; 64 for zero. */
static inline int ctz64(uint64_t n)
{
    return n ? __builtin_ctzll(n) : 64;
}

static inline int clz64(uint64_t n)
{
    return n ? __builtin_clzll(n) : 64;
}

/* Largest power of two not above @n; 0 for 0. */
static inline uint64_t pow2floor(uint64_t n)
{
    return n ? UINT64_C(1) << (63 - clz64(n)) : 0;
}

#endif
