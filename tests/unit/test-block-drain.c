/*
 * Draining: requests in each state of a drain, drains in each state of a
 * request, nested and several drains, parents that come and go meanwhile.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sched.h>
#include "qemu/atomic.h"
#include "test-driver.h"
#include "block/block-internal.h"

/* ---- Drain against threads that hammer the gate ---- */

typedef struct Hammer {
    BlockBackend *blk;
    TestDisk *disk;
    bool stop;                  /* atomic */
    int inside;                 /* atomic */
} Hammer;

static void hammer_main(void *opaque)
{
    Hammer *h = opaque;
    char buf[512];

    while (!qatomic_read(&h->stop)) {
        g_assert_cmpint(blk_pread(h->blk, 0, sizeof(buf), buf, 0), ==, 0);
    }
}

static void test_hammered(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    Hammer h = { .disk = d };
    TestThread *threads[4];
    int i;

    d->latency_ns = 10 * 1000;
    test_env_init(&e);
    h.blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        threads[i] = test_thread_start(hammer_main, &h);
    }
    for (i = 0; i < 2000; i++) {
        int before;

        while (test_disk_count(d, TEST_READ) == 0) {
            sched_yield();
        }
        blk_drain_begin(h.blk);
        before = test_disk_count(d, TEST_READ);
        g_assert_cmpint(test_disk_running(d), ==, 0);
        if (i % 16 == 0) {
            sched_yield();
        }
        g_assert_cmpint(test_disk_count(d, TEST_READ), ==, before);
        test_disk_clear_log(d);
        blk_drain_end(h.blk);
    }
    qatomic_set(&h.stop, true);
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        test_thread_join(threads[i]);
    }
    blk_unref(h.blk);
}

/*
 * The gate alone: those who find it closed come and go while it is closed,
 * opened and closed again, and must not be taken for the last one out.
 */
static void gate_main(void *opaque)
{
    Hammer *h = opaque;

    while (!qatomic_read(&h->stop)) {
        if (blk_gate_try_enter(h->blk)) {
            qatomic_inc(&h->inside);
            sched_yield();
            qatomic_dec(&h->inside);
            blk_gate_leave(h->blk);
        }
    }
}

static void test_gate(void)
{
    g_auto(TestEnv) e = { 0 };
    Hammer h = { 0 };
    TestThread *threads[3];
    int i;

    test_env_init(&e);
    h.blk = blk_new(e.graph, 0, BLK_PERM_ALL);
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        threads[i] = test_thread_start(gate_main, &h);
    }
    for (i = 0; i < 3000; i++) {
        blk_drain_begin(h.blk);
        g_assert_cmpint(qatomic_read(&h.inside), ==, 0);
        blk_drain_end(h.blk);
        while (qatomic_read(&h.inside) == 0) {
            sched_yield();
        }
    }
    qatomic_set(&h.stop, true);
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        test_thread_join(threads[i]);
    }
    blk_unref(h.blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
    g_test_add_func("/block/drain/nobody-inside-while-drained", test_hammered);
    g_test_add_func("/block/drain/gate-counts-only-who-is-inside", test_gate);
    return g_test_run();
}
