/*
 * Do the bounds of fuzz-memory.c hold?
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "fuzz.h"

/* No compiler may leave the allocations out. */
static void *volatile kept[8];

static void take(size_t bytes, int times)
{
    fuzz_memory_begin();
    for (int i = 0; i < times; i++) {
        kept[i % 8] = g_try_malloc(bytes);
    }
    fuzz_memory_end();
}

static void fails(const char *what)
{
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(what);
}

static void test_at_once(void)
{
    if (g_test_subprocess()) {
        take(FUZZ_MAX_ALLOCATION + 1, 1);
        return;
    }
    fails("*bytes are allocated at once*");
}

static void test_in_all(void)
{
    if (g_test_subprocess()) {
        take(FUZZ_MAX_MEMORY / 5, 6);
        return;
    }
    fails("*bytes are in use*");
}

/* As often as one likes, if it is given back. */
static void test_given_back(void)
{
    fuzz_memory_begin();
    for (int i = 0; i < 10; i++) {
        kept[0] = g_malloc(FUZZ_MAX_ALLOCATION / 2);
        kept[0] = g_realloc(kept[0], FUZZ_MAX_ALLOCATION);
        g_free(kept[0]);
        kept[0] = g_malloc0_n(FUZZ_MAX_ALLOCATION / 16, 16);
        g_free(kept[0]);
        kept[0] = qemu_try_memalign(4096, FUZZ_MAX_ALLOCATION);
        qemu_vfree(kept[0]);
    }
    fuzz_memory_end();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fuzz_memory_init();
    g_test_add_func("/fuzz-memory/at-once", test_at_once);
    g_test_add_func("/fuzz-memory/in-all", test_in_all);
    g_test_add_func("/fuzz-memory/given-back", test_given_back);
    return g_test_run();
}
