/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Intrusive lists, the small macros under them, and atomics. */
#include "qemu/osdep.h"
#include <pthread.h>
#include <sched.h>
#include "qemu/atomic.h"
#include "qemu/list.h"

typedef struct Item {
    int value;
    ListNode link;
} Item;

/* The values on @l as text, first to last, and the same backwards. */
static void check(List *l, const char *expected)
{
    g_autoptr(GString) fwd = g_string_new(NULL);
    g_autoptr(GString) back = g_string_new(NULL);
    Item *i;

    list_for_each(i, l, link) {
        g_string_append_printf(fwd, "%d", i->value);
    }
    for (ListNode *n = l->head.prev; n != &l->head; n = n->prev) {
        g_string_prepend_c(back, '0' + list_entry(n, Item, link)->value);
    }
    g_assert_cmpstr(fwd->str, ==, expected);
    g_assert_cmpstr(back->str, ==, expected);
    g_assert_cmpint(list_is_empty(l), ==, !*expected);
}

static void test_push_remove(void)
{
    List l = LIST_INITIALIZER(l);
    Item a = { 1 }, b = { 2 }, c = { 3 };

    g_assert_false(list_node_linked(&a.link));
    list_remove(&a.link);       /* on none, zeroed: harmless */
    g_assert_false(list_node_linked(&a.link));

    check(&l, "");
    list_push_back(&l, &b.link);
    list_push_back(&l, &c.link);
    list_push_front(&l, &a.link);
    check(&l, "123");
    g_assert_true(list_node_linked(&b.link));
    g_assert_true(list_first(&l, Item, link) == &a);
    g_assert_true(list_last(&l, Item, link) == &c);
    g_assert_true(list_next(&l, &a, link) == &b);
    g_assert_null(list_next(&l, &c, link));

    list_remove(&b.link);
    g_assert_false(list_node_linked(&b.link));
    list_remove(&b.link);
    check(&l, "13");
    list_insert_after(&a.link, &b.link);
    check(&l, "123");
}

static void test_pop(void)
{
    Item items[3] = { { 1 }, { 2 }, { 3 } };
    List l;

    list_init(&l);
    for (int i = 0; i < 3; i++) {
        list_push_back(&l, &items[i].link);
    }
    for (int i = 0; i < 3; i++) {
        g_assert_true(list_pop_front(&l, Item, link) == &items[i]);
        g_assert_false(list_node_linked(&items[i].link));
    }
    g_assert_null(list_pop_front(&l, Item, link));
    g_assert_null(list_first(&l, Item, link));
    g_assert_null(list_last(&l, Item, link));
}

static void test_remove_in_loop(void)
{
    Item items[5] = { { 1 }, { 2 }, { 3 }, { 4 }, { 5 } };
    List l = LIST_INITIALIZER(l);
    Item *i, *tmp;

    for (int n = 0; n < 5; n++) {
        list_push_back(&l, &items[n].link);
    }
    list_for_each_safe(i, tmp, &l, link) {
        if (i->value % 2) {
            list_remove(&i->link);
        }
    }
    check(&l, "24");
}

static void test_splice(void)
{
    Item items[4] = { { 1 }, { 2 }, { 3 }, { 4 } };
    List a = LIST_INITIALIZER(a), b = LIST_INITIALIZER(b);

    list_splice_back(&a, &b);
    check(&a, "");
    list_push_back(&b, &items[0].link);
    list_push_back(&b, &items[1].link);
    list_splice_back(&a, &b);
    check(&a, "12");
    check(&b, "");
    list_push_back(&b, &items[2].link);
    list_push_back(&b, &items[3].link);
    list_splice_back(&a, &b);
    check(&a, "1234");
    check(&b, "");
}

static void test_macros(void)
{
    int array[7];

    g_assert_cmpuint(ARRAY_SIZE(array), ==, 7);
    g_assert_cmpint(DIV_ROUND_UP(7, 2), ==, 4);
    g_assert_cmpint(DIV_ROUND_UP(8, 2), ==, 4);
    g_assert_cmpint(QEMU_ALIGN_UP(10, 3), ==, 12);
    g_assert_cmpint(QEMU_ALIGN_DOWN(10, 3), ==, 9);
    g_assert_true(QEMU_IS_ALIGNED(12, 3));
    /* a 32-bit mask would cut the upper half off */
    g_assert_cmpint(ROUND_DOWN(5 * TiB + 5, 4096), ==, 5 * TiB);
    g_assert_cmpint(ROUND_UP(5 * TiB + 5, 4096), ==, 5 * TiB + 4096);
    g_assert_cmpint(QEMU_ALIGN_UP(5 * TiB + 5, 4096), ==, 5 * TiB + 4096);
    g_assert_cmpuint(ROUND_DOWN(UINT64_MAX, 512U), ==, UINT64_MAX - 511);
    g_assert_true(is_power_of_2(1) && is_power_of_2(UINT64_C(1) << 63));
    g_assert_false(is_power_of_2(0) || is_power_of_2(3));
    g_assert_cmpint(ctz64(0), ==, 64);
    g_assert_cmpint(clz64(0), ==, 64);
    g_assert_cmpint(ctz64(8), ==, 3);
    g_assert_cmpint(clz64(1), ==, 63);
    g_assert_cmpuint(pow2floor(0), ==, 0);
    g_assert_cmpuint(pow2floor(4097), ==, 4096);
    g_assert_cmpint(MIN_NON_ZERO(0, 5), ==, 5);
    g_assert_cmpint(MIN_NON_ZERO(7, 0), ==, 7);
    g_assert_cmpint(MIN_NON_ZERO(7, 5), ==, 5);
    g_assert_true(QEMU_ALIGN_PTR_DOWN((char *)0x1234, 16) == (char *)0x1230);
    g_assert_true(QEMU_PTR_IS_ALIGNED((char *)0x1230, 16));
}

static void test_atomic_values(void)
{
    uint8_t byte = 200;
    volatile int i = 5;
    int x = 0, *p = NULL;
    bool b = false;

    g_assert_cmpint(qatomic_fetch_add(&i, 3), ==, 5);
    g_assert_cmpint(qatomic_fetch_sub(&i, 1), ==, 8);
    g_assert_cmpint(qatomic_fetch_or(&i, 8), ==, 7);
    g_assert_cmpint(qatomic_fetch_and(&i, 9), ==, 15);
    g_assert_cmpint(qatomic_xchg(&i, 1), ==, 9);
    g_assert_cmpint(qatomic_cmpxchg(&i, 2, 3), ==, 1);
    g_assert_cmpint(qatomic_read(&i), ==, 1);
    g_assert_cmpint(qatomic_cmpxchg(&i, 1, 3), ==, 1);
    g_assert_cmpint(qatomic_read(&i), ==, 3);
    g_assert_cmpint(qatomic_fetch_inc(&byte), ==, 200);
    qatomic_add(&byte, 55);
    g_assert_cmpint(byte, ==, 0);
    g_assert_false(qatomic_xchg(&b, true));
    g_assert_true(qatomic_cmpxchg(&b, true, false));
    g_assert_null(qatomic_cmpxchg(&p, NULL, &x));
    g_assert_true(qatomic_load_acquire(&p) == &x);
    qatomic_store_release(&p, NULL);
    g_assert_null(qatomic_load_sc(&p));
}

/* Two threads that count, and one word that publishes. */
typedef struct Shared {
    int count;
    int payload;
    bool ready;
} Shared;

static void *counter(void *opaque)
{
    Shared *s = opaque;

    for (int i = 0; i < 20000; i++) {
        qatomic_inc(&s->count);
    }
    return NULL;
}

static void *publisher(void *opaque)
{
    Shared *s = opaque;

    s->payload = 42;
    qatomic_store_release(&s->ready, true);
    return NULL;
}

static void test_atomic_threads(void)
{
    Shared s = { 0 };
    pthread_t t[3];

    g_assert_cmpint(pthread_create(&t[0], NULL, counter, &s), ==, 0);
    g_assert_cmpint(pthread_create(&t[1], NULL, counter, &s), ==, 0);
    g_assert_cmpint(pthread_create(&t[2], NULL, publisher, &s), ==, 0);
    while (!qatomic_load_acquire(&s.ready)) {
        sched_yield();
    }
    g_assert_cmpint(s.payload, ==, 42);
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
    }
    g_assert_cmpint(qatomic_read(&s.count), ==, 40000);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/list/push/keeps-order", test_push_remove);
    g_test_add_func("/list/pop/first-in-first-out", test_pop);
    g_test_add_func("/list/for_each/may-remove", test_remove_in_loop);
    g_test_add_func("/list/splice/appends-all", test_splice);
    g_test_add_func("/compiler/macros/values", test_macros);
    g_test_add_func("/atomic/operations/values", test_atomic_values);
    g_test_add_func("/atomic/threads/no-race", test_atomic_threads);
    return g_test_run();
}
