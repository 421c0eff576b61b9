/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The run-time half of the lock order: ranks that go up are fine, a rank that
 * does not ends the program and says which two.  Needs -Dlock_debug=enabled.
 */
#include "qemu/osdep.h"
#include "block/lock-order.h"

static GateLock gate;
static DriverLock driver, other_driver;
static LeafLock leaf;

/* True in a child, which must then die with a message like @pattern. */
static bool expect_abort(const char *pattern)
{
#ifdef CONFIG_LOCK_DEBUG
    if (g_test_subprocess()) {
        return true;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(pattern);
#else
    g_test_skip("built without lock_debug");
#endif
    return false;
}

static void test_rising(void)
{
    gate_lock(&gate);
    driver_lock(&driver);
    leaf_lock(&leaf);
    leaf_unlock(&leaf);
    lock_rank_assert_below(RANK_LEAF);
    driver_unlock(&driver);
    gate_unlock(&gate);
    lock_rank_assert_below(RANK_MONITOR);
}

static void test_released_in_any_order(void)
{
    gate_lock(&gate);
    driver_lock(&driver);
    gate_unlock(&gate);
    leaf_lock(&leaf);
    driver_unlock(&driver);
    leaf_unlock(&leaf);
    gate_lock(&gate);
    gate_unlock(&gate);
}

static void NO_TSA test_failed_trylock_holds_nothing(void)
{
    gate_lock(&gate);
    qemu_mutex_lock(&driver.mutex);         /* busy, but not by rank */
    g_assert_false(driver_trylock(&driver));
    lock_rank_assert_below(RANK_DRIVER);
    qemu_mutex_unlock(&driver.mutex);
    g_assert_true(driver_trylock(&driver));
    driver_unlock(&driver);
    gate_unlock(&gate);
}

static void NO_TSA test_falling_aborts(void)
{
    if (expect_abort("*\"gate\" wanted while \"driver\" is held*")) {
        driver_lock(&driver);
        gate_lock(&gate);
    }
}

static void NO_TSA test_same_class_twice_aborts(void)
{
    if (expect_abort("*\"driver\" wanted while \"driver\" is held*")) {
        driver_lock(&driver);
        driver_lock(&other_driver);
    }
}

static void NO_TSA test_trylock_falling_aborts(void)
{
    if (expect_abort("*\"gate\" wanted while \"leaf\" is held*")) {
        leaf_lock(&leaf);
        if (gate_trylock(&gate)) {
            gate_unlock(&gate);
        }
    }
}

/* What was released in the middle must not hide what is still held. */
static void NO_TSA test_highest_counts(void)
{
    if (expect_abort("*\"driver\" wanted while \"leaf\" is held*")) {
        gate_lock(&gate);
        leaf_lock(&leaf);
        gate_unlock(&gate);
        driver_lock(&driver);
    }
}

static void NO_TSA test_release_of_nothing_aborts(void)
{
    if (expect_abort("*\"leaf\" released but not held*")) {
        qemu_mutex_lock(&leaf.mutex);
        leaf_unlock(&leaf);
    }
}

static void test_assert_below_aborts(void)
{
    if (expect_abort("*\"driver\" wanted while \"driver\" is held*")) {
        driver_lock(&driver);
        lock_rank_assert_below(RANK_DRIVER);
        driver_unlock(&driver);
    }
}

/* Ranks belong to a thread: another one's locks do not count. */
static void *take_gate(void *opaque)
{
    gate_lock(&gate);
    gate_unlock(&gate);
    return NULL;
}

static void test_threads_are_apart(void)
{
    QemuThread thread;

    driver_lock(&driver);
    qemu_thread_create(&thread, "gate", take_gate, NULL);
    qemu_thread_join(&thread);
    driver_unlock(&driver);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    gate_init(&gate);
    driver_init(&driver);
    driver_init(&other_driver);
    leaf_init(&leaf);
    g_test_add_func("/lock-order/lock/rising", test_rising);
    g_test_add_func("/lock-order/unlock/any-order",
                    test_released_in_any_order);
    g_test_add_func("/lock-order/trylock/failed-holds-nothing",
                    test_failed_trylock_holds_nothing);
    g_test_add_func("/lock-order/lock/falling-aborts", test_falling_aborts);
    g_test_add_func("/lock-order/lock/same-class-twice-aborts",
                    test_same_class_twice_aborts);
    g_test_add_func("/lock-order/trylock/falling-aborts",
                    test_trylock_falling_aborts);
    g_test_add_func("/lock-order/lock/highest-counts", test_highest_counts);
    g_test_add_func("/lock-order/unlock/of-nothing-aborts",
                    test_release_of_nothing_aborts);
    g_test_add_func("/lock-order/assert-below/aborts",
                    test_assert_below_aborts);
    g_test_add_func("/lock-order/threads/are-apart", test_threads_are_apart);
    return g_test_run();
}
