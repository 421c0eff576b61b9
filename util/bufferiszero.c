/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zero detection with the widest vectors that the processor has.
 *
 * Most buffers that are not zero show it in their first or last bytes, so
 * these are looked at before anything else.  What is left runs over aligned
 * blocks of four vectors, or-ed together and tested once a block; the ragged
 * ends are covered by unaligned vectors that overlap what else is read, so
 * there is no loop over bytes for anything as long as one vector.
 *
 * The implementations are made from one template, an inline function a vector
 * type.  gcc's and clang's generic vectors do not know "test for zero" on AVX,
 * so the intrinsics are spelled out.  Which to use is decided before main.
 */
#include "qemu/osdep.h"
#include "qemu/zero.h"

#ifdef __x86_64__
#include <immintrin.h>
/* The C library knows what the processor has since it chose its own functions.
 * To ask the processor again, as the compiler's constructor does, takes tens of
 * microseconds in a virtual machine, where each question leaves the guest. */
#if __has_include(<sys/platform/x86.h>)
#include <sys/platform/x86.h>
#define CPU_HAS(GLIBC_NAME, name) CPU_FEATURE_ACTIVE(GLIBC_NAME)
#else
#define CPU_HAS(GLIBC_NAME, name) \
    (__builtin_cpu_init(), __builtin_cpu_supports(name))
#endif
#endif

/* A load of 8 bytes from anywhere. */
static inline uint64_t load64(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* Up to 16 bytes, without vectors. */
static inline bool is_zero_short(const char *p, size_t len)
{
    unsigned char bits = 0;

    if (len >= 8) {
        return !(load64(p) | load64(p + len - 8));
    }
    for (size_t i = 0; i < len; i++) {
        bits |= p[i];
    }
    return !bits;
}

static bool is_zero_scalar(const void *buf, size_t len)
{
    const char *p = buf, *last;

    if (len <= 16) {
        return is_zero_short(p, len);
    }
    if (load64(p) | load64(p + len - 8)) {
        return false;
    }
    for (last = p + len - 32; p < last; p += 32) {
        if (load64(p) | load64(p + 8) | load64(p + 16) | load64(p + 24)) {
            return false;
        }
    }
    for (last += 32 - 8; p < last; p += 8) {
        if (load64(p)) {
            return false;
        }
    }
    return true;        /* the last 8 bytes were seen first */
}

#ifdef __x86_64__
/*
 * The template.  @TYPE is a vector, LOADU loads one from anywhere, OR merges
 * two, ZERO tests one.  Lengths below one vector go to SMALLER.
 */
#define IS_ZERO_VECTOR(NAME, TARGET, TYPE, LOADU, OR, ZERO, SMALLER)         \
static bool __attribute__((target(TARGET)))                                  \
NAME(const void *buf, size_t len)                                            \
{                                                                            \
    const size_t w = sizeof(TYPE);                                           \
    const char *p = buf, *end = p + len;                                     \
    TYPE v;                                                                  \
                                                                             \
    if (len < w) {                                                           \
        return SMALLER(buf, len);                                            \
    }                                                                        \
    v = OR(LOADU((const void *)p), LOADU((const void *)(end - w)));          \
    if (!ZERO(v)) {                                                          \
        return false;                                                        \
    }                                                                        \
    /* The first vector is done: go on from the next aligned address. */     \
    p = QEMU_ALIGN_PTR_DOWN(p + w, w);                                       \
    for (; p + 4 * w <= end; p += 4 * w) {                                   \
        v = OR(OR(LOADU((const void *)p), LOADU((const void *)(p + w))),     \
               OR(LOADU((const void *)(p + 2 * w)),                          \
                  LOADU((const void *)(p + 3 * w))));                        \
        if (!ZERO(v)) {                                                      \
            return false;                                                    \
        }                                                                    \
    }                                                                        \
    /* The last vector is done as well. */                                   \
    for (; p + w < end; p += w) {                                            \
        v = LOADU((const void *)p);                                          \
        if (!ZERO(v)) {                                                      \
            return false;                                                    \
        }                                                                    \
    }                                                                        \
    return true;                                                             \
}

#define SSE2_ZERO(v) \
    (_mm_movemask_epi8(_mm_cmpeq_epi8((v), _mm_setzero_si128())) == 0xffff)
#define AVX2_ZERO(v)   _mm256_testz_si256((v), (v))
#define AVX512_ZERO(v) (_mm512_test_epi64_mask((v), (v)) == 0)

IS_ZERO_VECTOR(is_zero_sse2, "sse2", __m128i, _mm_loadu_si128,
               _mm_or_si128, SSE2_ZERO, is_zero_short)
IS_ZERO_VECTOR(is_zero_avx2, "avx2", __m256i, _mm256_loadu_si256,
               _mm256_or_si256, AVX2_ZERO, is_zero_sse2)
IS_ZERO_VECTOR(is_zero_avx512, "avx512f", __m512i, _mm512_loadu_si512,
               _mm512_or_si512, AVX512_ZERO, is_zero_avx2)
#endif

static const struct {
    const char *name;
    BufferIsZeroFn *fn;
} impls[] = {
#ifdef __x86_64__
    { "avx512", is_zero_avx512 },
    { "avx2", is_zero_avx2 },
    { "sse2", is_zero_sse2 },
#endif
    { "scalar", is_zero_scalar },
};

static bool cpu_runs(BufferIsZeroFn *fn)
{
#ifdef __x86_64__
    if (fn == is_zero_avx512) {
        return CPU_HAS(AVX512F, "avx512f");
    }
    if (fn == is_zero_avx2) {
        return CPU_HAS(AVX2, "avx2");
    }
#endif
    return true;
}

BufferIsZeroFn *buffer_is_zero_impl(unsigned int n, const char **name)
{
    for (size_t i = 0; i < ARRAY_SIZE(impls); i++) {
        if (cpu_runs(impls[i].fn) && n-- == 0) {
            *name = impls[i].name;
            return impls[i].fn;
        }
    }
    return NULL;
}

/* Written before main and never again, so it needs no lock. */
static BufferIsZeroFn *best = is_zero_scalar;

static void __attribute__((constructor)) choose_best(void)
{
    const char *name;

    best = buffer_is_zero_impl(0, &name);
}

bool buffer_is_zero(const void *buf, size_t len)
{
    const char *p = buf;

    if (len == 0) {
        return true;
    }
    /* Data usually shows at once: no call through a pointer for that. */
    if (p[0] | p[len - 1] | p[len / 2]) {
        return false;
    }
    return best(buf, len);
}
