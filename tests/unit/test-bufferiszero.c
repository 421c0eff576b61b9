/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every implementation of zero detection that this processor runs, at every
 * alignment and every length around a block boundary, with one stray byte at
 * every place.  Guard bytes on both sides catch reads that count what is not
 * theirs.
 */
#include "qemu/osdep.h"
#include "qemu/zero.h"

#define MAX_LEN 700
#define MAX_ALIGN 64

static char area[MAX_LEN + 3 * MAX_ALIGN] __attribute__((aligned(MAX_ALIGN)));

static void check_one(BufferIsZeroFn *fn, char *buf, size_t len)
{
    buf[-1] = buf[len] = 1;
    g_assert_true(fn(buf, len));
    for (size_t i = 0; i < len; i++) {
        buf[i] = 0x80;
        g_assert_false(fn(buf, len));
        buf[i] = 0;
    }
    buf[-1] = buf[len] = 0;
}

static bool near_boundary(size_t len)
{
    size_t mod = len % 16;

    return len <= 150 || mod <= 1 || mod == 15;
}

static void check_impl(BufferIsZeroFn *fn)
{
    for (size_t align = 0; align < MAX_ALIGN; align++) {
        size_t step = align % 8 <= 1 || align % 16 == 15 ? 1 : 7;

        for (size_t len = 0; len <= MAX_LEN; len += step) {
            if (near_boundary(len)) {
                check_one(fn, area + MAX_ALIGN + align, len);
            }
        }
    }
}

static void test_all_implementations(void)
{
    BufferIsZeroFn *fn;
    const char *name;
    unsigned int n;

    for (n = 0; (fn = buffer_is_zero_impl(n, &name)); n++) {
        g_test_message("%s", name);
        check_impl(fn);
    }
    g_assert_cmpuint(n, >, 0);
    g_assert_cmpstr(name, ==, "scalar");
}

/* The compiler asks the processor itself. */
static void test_widest_first(void)
{
    const char *name, *widest = "scalar";

#ifdef __x86_64__
    __builtin_cpu_init();
    widest = __builtin_cpu_supports("avx512f") ? "avx512" :
             __builtin_cpu_supports("avx2") ? "avx2" : "sse2";
#endif
    g_assert_nonnull(buffer_is_zero_impl(0, &name));
    g_assert_cmpstr(name, ==, widest);
}

static void test_public(void)
{
    check_impl(buffer_is_zero);
    g_assert_true(buffer_is_zero(NULL, 0));
}

static void test_large(void)
{
    size_t len = 4 * MiB + 3;
    g_autofree char *buf = g_malloc0(len);

    g_assert_true(buffer_is_zero(buf, len));
    for (size_t i = 0; i < len; i += 65521) {
        buf[i] = 1;
        g_assert_false(buffer_is_zero(buf, len));
        buf[i] = 0;
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/bufferiszero/implementations/agree",
                    test_all_implementations);
    g_test_add_func("/bufferiszero/implementations/widest-first",
                    test_widest_first);
    g_test_add_func("/bufferiszero/public/small", test_public);
    g_test_add_func("/bufferiszero/public/large", test_large);
    return g_test_run();
}
