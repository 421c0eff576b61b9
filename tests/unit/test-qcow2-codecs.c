/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Libraries that are gone, or not what they were, when a program that was built
 * with them runs.  So it is built with names that are wrong.
 */
#include "qemu/osdep.h"

#undef SONAME_LIBZSTD
#undef SONAME_LIBDEFLATE
#define SONAME_LIBZSTD "libnobody-has-this.so.1"
#define SONAME_LIBDEFLATE "libc.so.6"
#include "block/qcow2-codecs.c"

/* In a process of its own: the first call in one decides. */
static void in_subprocess(const char *message)
{
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr(message);
}

static void test_missing(void)
{
#ifdef CONFIG_LIBZSTD
    if (g_test_subprocess()) {
        g_assert_null(qcow2_libzstd());
        g_assert_null(qcow2_libzstd());     /* says nothing again */
        return;
    }
    in_subprocess("*: qcow2: cannot load a library: libnobody-has-this.so.1: "
                  "cannot open*\n");
    g_test_trap_assert_stderr_unmatched("*cannot load*cannot load*");
#else
    g_test_skip("built without libzstd");
#endif
}

static void test_other_functions(void)
{
#ifdef CONFIG_LIBDEFLATE
    if (g_test_subprocess()) {
        g_assert_null(qcow2_libdeflate());
        return;
    }
    in_subprocess("*: qcow2: libc.so.6 lacks a function: "
                  "*libdeflate_alloc_decompressor*\n");
#else
    g_test_skip("built without libdeflate");
#endif
}

static void test_right(void)
{
#ifdef CONFIG_LIBISAL
    const LibIsal *lib = qcow2_libisal();

    g_assert_nonnull(lib);
    g_assert_nonnull(lib->isal_deflate);
    g_assert_nonnull(lib->isal_deflate_init);
    g_assert_true(qcow2_libisal() == lib);
#else
    g_test_skip("built without ISA-L");
#endif
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-codecs/missing/one-message", test_missing);
    g_test_add_func("/qcow2-codecs/other-functions/named",
                    test_other_functions);
    g_test_add_func("/qcow2-codecs/right/has-its-functions", test_right);
    return g_test_run();
}
