/*
 * Pins and grace periods: what a grace period waits for, that it ends under
 * load, and the thread that read "current" long ago.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/qcow2.h"
#include "qemu/atomic.h"

#define TIMEOUT_NS (INT64_C(30) * 1000 * 1000 * 1000)

static BDRVQcow2State *state_new(void)
{
    BDRVQcow2State *s = g_new0(BDRVQcow2State, 1);

    driver_init(&s->lock);
    s->pins = qcow2_pins_new();
    g_assert_nonnull(s->pins);
    return s;
}

static void state_free(BDRVQcow2State *s)
{
    qcow2_pins_free(s->pins);
    driver_destroy(&s->lock);
    g_free(s);
}

static bool over(BDRVQcow2State *s, Qcow2Grace *g)
{
    bool ret;

    driver_lock(&s->lock);
    ret = qcow2_grace_over(s, g);
    driver_unlock(&s->lock);
    return ret;
}

static void test_idle(void)
{
    BDRVQcow2State *s = state_new();
    Qcow2Grace g;

    qcow2_grace_start(s, &g);
    g_assert_true(over(s, &g));
    g_assert_true(over(s, &g));
    state_free(s);
}

static void test_waits(void)
{
    BDRVQcow2State *s = state_new();
    uintptr_t a = qcow2_pin(s), b = qcow2_pin(s), later[64];
    Qcow2Grace g;

    g_assert_cmpuint(a, !=, 0);
    qcow2_grace_start(s, &g);
    for (int i = 0; i < 64; i++) {
        g_assert_false(over(s, &g));
        later[i] = qcow2_pin(s);
    }
    qcow2_unpin(s, a);
    g_assert_false(over(s, &g));
    g_assert_false(over(s, &g));
    qcow2_unpin(s, b);
    g_assert_true(over(s, &g));                 /* later ones do not matter */
    for (int i = 0; i < 64; i++) {
        qcow2_unpin(s, later[i]);
        g_assert_true(over(s, &g));
    }
    state_free(s);
}

/* Pins that follow each other without a gap do not hold it up. */
static void test_no_gap(void)
{
    BDRVQcow2State *s = state_new();
    uintptr_t pin = qcow2_pin(s);

    for (int n = 0; n < 100; n++) {
        Qcow2Grace g;
        int tries = 0;

        qcow2_grace_start(s, &g);
        while (!over(s, &g)) {
            uintptr_t next = qcow2_pin(s);

            qcow2_unpin(s, pin);
            pin = next;
            g_assert_cmpint(++tries, <, 10);
        }
        g_assert_cmpint(tries, >, 0);
    }
    qcow2_unpin(s, pin);
    state_free(s);
}

/* A pin is the address of one of two neighbours. */
static unsigned counter_of(uintptr_t pin)
{
    return pin / sizeof(unsigned) % 2;
}

static void *pin_here(void *opaque)
{
    return (void *)qcow2_pin(opaque);
}

static uintptr_t pin_elsewhere(BDRVQcow2State *s)
{
    QemuThread t;

    g_assert_cmpint(qemu_thread_create(&t, "pin", pin_here, s), ==, 0);
    return (uintptr_t)qemu_thread_join(&t);
}

/*
 * A pin in the counter that is not current, as of a thread that read "current"
 * before it changed: acted out by making the change round a pin that stays.
 * Both it and the ones in the current counter have to be waited for.
 */
static void test_stale_index(void)
{
    BDRVQcow2State *s = state_new();
    uintptr_t stale = pin_elsewhere(s), now;
    Qcow2Grace flip, g;

    qcow2_grace_start(s, &flip);
    g_assert_false(over(s, &flip));             /* has changed "current" */
    now = pin_elsewhere(s);
    g_assert_cmpuint(counter_of(stale), !=, counter_of(now));
    qcow2_grace_start(s, &g);
    g_assert_false(over(s, &g));
    qcow2_unpin(s, now);                        /* the current one is at zero */
    g_assert_false(over(s, &g));
    g_assert_false(over(s, &g));
    qcow2_unpin(s, stale);
    g_assert_true(over(s, &g));
    g_assert_true(over(s, &flip));

    /* And the other way round. */
    stale = pin_elsewhere(s);
    qcow2_grace_start(s, &flip);
    g_assert_false(over(s, &flip));
    now = pin_elsewhere(s);
    qcow2_grace_start(s, &g);
    qcow2_unpin(s, stale);
    g_assert_true(over(s, &flip));
    g_assert_false(over(s, &g));
    qcow2_unpin(s, now);
    g_assert_true(over(s, &g));
    state_free(s);
}

/*
 * What pins are for.  One thread publishes objects in a slot and wipes the old
 * one when its grace period is over; readers take what is in the slot under a
 * pin and look at it twice.  Two pins each, overlapping, so that there is no
 * moment without one.
 */
typedef struct Stress {
    BDRVQcow2State *s;
    unsigned *slot;             /* atomic: an element of objects */
    unsigned objects[2];        /* atomic; 0: wiped */
    bool stop;                  /* atomic */
    int64_t reads;              /* atomic */
} Stress;

static void *reader(void *opaque)
{
    Stress *st = opaque;
    uintptr_t pin = qcow2_pin(st->s);

    while (!qatomic_read(&st->stop)) {
        uintptr_t next = qcow2_pin(st->s);
        unsigned *object = qatomic_load_acquire(&st->slot);

        g_assert_cmpuint(qatomic_read(object), !=, 0);
        qcow2_unpin(st->s, pin);
        g_assert_cmpuint(qatomic_read(object), !=, 0);
        pin = next;
        qatomic_inc(&st->reads);
    }
    qcow2_unpin(st->s, pin);
    return NULL;
}

static void test_load(void)
{
    Stress st = { .s = state_new(), .objects = { 1, 0 } };
    int64_t deadline = qemu_clock_ns() + TIMEOUT_NS;
    QemuThread t[4];

    st.slot = &st.objects[0];
    for (int i = 0; i < 4; i++) {
        g_assert_cmpint(qemu_thread_create(&t[i], "reader", reader, &st), ==,
                        0);
    }
    for (unsigned n = 1; n <= 200 || qatomic_read(&st.reads) < 1000; n++) {
        Qcow2Grace g;

        qatomic_set(&st.objects[n % 2], n);
        qatomic_store_release(&st.slot, &st.objects[n % 2]);
        qcow2_grace_start(st.s, &g);
        while (!over(st.s, &g)) {
            g_assert_cmpint(qemu_clock_ns(), <, deadline);
        }
        qatomic_set(&st.objects[!(n % 2)], 0);
    }
    qatomic_set(&st.stop, true);
    for (int i = 0; i < 4; i++) {
        qemu_thread_join(&t[i]);
    }
    state_free(st.s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-pin/grace/is over at once without pins", test_idle);
    g_test_add_func("/qcow2-pin/grace/waits for those before it", test_waits);
    g_test_add_func("/qcow2-pin/grace/ends though pins never do", test_no_gap);
    g_test_add_func("/qcow2-pin/grace/waits for both counters",
                    test_stale_index);
    g_test_add_func("/qcow2-pin/load/nothing is wiped under a pin", test_load);
    return g_test_run();
}
