/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scatter-gather lists against the obvious model: the same bytes in one flat
 * buffer.
 */
#include "qemu/osdep.h"
#include "qemu/iov.h"

#define TOTAL 64

/* A list over @mem (TOTAL bytes, in order) with random cuts, some empty. */
static unsigned int random_iov(struct iovec *iov, unsigned int max, char *mem)
{
    unsigned int n = 0;
    size_t at = 0;

    while (n < max - 1 && at < TOTAL) {
        size_t len = g_test_rand_int_range(0, 20);

        len = MIN(len, TOTAL - at);
        iov[n++] = (struct iovec) { mem + at, len };
        at += len;
    }
    iov[n++] = (struct iovec) { mem + at, TOTAL - at };
    return n;
}

static void fill(char *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        buf[i] = g_test_rand_int();
    }
}

static void test_copy_random(void)
{
    for (int round = 0; round < 2000; round++) {
        char mem[TOTAL], model[TOTAL], buf[TOTAL + 8];
        struct iovec iov[16], part[16];
        unsigned int n = random_iov(iov, ARRAY_SIZE(iov), mem), np;
        size_t off = g_test_rand_int_range(0, TOTAL + 4);
        size_t len = g_test_rand_int_range(0, TOTAL + 4);
        size_t real = off > TOTAL ? 0 : MIN(len, TOTAL - off);

        fill(mem, TOTAL);
        memcpy(model, mem, TOTAL);
        g_assert_cmpuint(iov_size(iov, n), ==, TOTAL);

        g_assert_cmpuint(iov_to_buf(iov, n, off, buf, len), ==, real);
        if (real) {
            g_assert_cmpmem(buf, real, model + off, real);
        }

        fill(buf, sizeof(buf));
        g_assert_cmpuint(iov_from_buf(iov, n, off, buf, len), ==, real);
        if (real) {
            memcpy(model + off, buf, real);
        }
        g_assert_cmpmem(mem, TOTAL, model, TOTAL);

        np = iov_copy(part, ARRAY_SIZE(part), iov, n, off, len);
        g_assert_cmpuint(iov_size(part, np), ==, real);
        if (real) {
            g_assert_true(part[0].iov_base == mem + off);
        }

        g_assert_cmpuint(iov_memset(iov, n, off, 'x', len), ==, real);
        if (real) {
            memset(model + off, 'x', real);
        }
        g_assert_cmpmem(mem, TOTAL, model, TOTAL);
    }
}

static void test_discard_random(void)
{
    for (int round = 0; round < 2000; round++) {
        char mem[TOTAL];
        struct iovec iov[16], *p = iov;
        unsigned int n = random_iov(iov, ARRAY_SIZE(iov), mem);
        size_t front = g_test_rand_int_range(0, TOTAL + 10);
        size_t back = g_test_rand_int_range(0, TOTAL + 10);
        size_t left = TOTAL - MIN(front, TOTAL);

        g_assert_cmpuint(iov_discard_front(&p, &n, front), ==,
                         MIN(front, TOTAL));
        g_assert_cmpuint(iov_size(p, n), ==, left);
        if (left) {
            g_assert_true(p[0].iov_base == mem + front);
        }
        g_assert_cmpuint(iov_discard_back(p, &n, back), ==, MIN(back, left));
        g_assert_cmpuint(iov_size(p, n), ==, left - MIN(back, left));
    }
}

static void test_buf(void)
{
    char buf[16], out[16];
    QEMUIOVector q;
    QEMUIOVector s = QEMU_IOVEC_INIT_BUF(s, buf, sizeof(buf));

    qemu_iovec_init_buf(&q, buf, sizeof(buf));
    g_assert_cmpint(q.niov, ==, 1);
    g_assert_cmpuint(q.size, ==, 16);
    g_assert_true(q.iov == q.local);
    g_assert_cmpint(qemu_iovec_compare(&q, &s), ==, -1);
    qemu_iovec_memset(&q, 0, 7, 16);
    qemu_iovec_to_buf(&s, 4, out, 12);
    g_assert_cmpmem(out, 12, buf + 4, 12);
    g_assert_true(qemu_iovec_contiguous(&q, 3, 13) == buf + 3);
}

static void test_add_grows(void)
{
    char mem[100];
    QEMUIOVector q, all;

    qemu_iovec_init(&q, 1);
    for (int i = 0; i < 100; i++) {
        qemu_iovec_add(&q, mem + i, 1);
    }
    g_assert_cmpint(q.niov, ==, 100);
    g_assert_cmpuint(q.size, ==, 100);
    for (int i = 0; i < 100; i++) {
        g_assert_true(q.iov[i].iov_base == mem + i);
    }

    qemu_iovec_init(&all, 0);
    qemu_iovec_concat(&all, &q, 10, 50);
    qemu_iovec_concat(&all, &q, 0, 0);
    g_assert_cmpuint(all.size, ==, 50);
    g_assert_cmpint(all.niov, ==, 50);
    g_assert_true(all.iov[0].iov_base == mem + 10);

    qemu_iovec_reset(&q);
    g_assert_cmpuint(q.size, ==, 0);
    g_assert_cmpint(q.niov, ==, 0);
    qemu_iovec_add(&q, mem, 100);
    g_assert_cmpuint(q.size, ==, 100);
    qemu_iovec_destroy(&q);
    qemu_iovec_destroy(&all);
    g_assert_cmpint(all.niov, ==, 0);
}

static void test_slice_random(void)
{
    int borrowed = 0, local = 0, allocated = 0;

    for (int round = 0; round < 3000; round++) {
        char mem[TOTAL], buf[TOTAL];
        struct iovec iov[16];
        unsigned int n = random_iov(iov, ARRAY_SIZE(iov), mem);
        size_t off = g_test_rand_int_range(0, TOTAL + 1);
        size_t len = g_test_rand_int_range(0, TOTAL - off + 1);
        QEMUIOVector q, s;

        if (round % 4 == 0) {
            off = 0, len = TOTAL;
        }
        fill(mem, TOTAL);
        qemu_iovec_init_external(&q, iov, n);
        qemu_iovec_init_slice(&s, &q, off, len);
        g_assert_cmpuint(s.size, ==, len);
        g_assert_cmpuint(iov_size(s.iov, s.niov), ==, len);
        qemu_iovec_to_buf(&s, 0, buf, len);
        g_assert_cmpmem(buf, len, mem + off, len);
        if (s.iov == s.local) {
            local++;
        } else if (s.nalloc) {
            allocated++;
        } else {
            borrowed++;
        }
        qemu_iovec_destroy(&s);
    }
    g_assert_cmpint(borrowed, >, 0);
    g_assert_cmpint(local, >, 0);
    g_assert_cmpint(allocated, >, 0);
}

static void test_compare_random(void)
{
    for (int round = 0; round < 2000; round++) {
        char a[TOTAL], b[TOTAL];
        struct iovec ia[16], ib[16];
        QEMUIOVector qa, qb;
        int at = g_test_rand_int_range(0, TOTAL);

        fill(a, TOTAL);
        memcpy(b, a, TOTAL);
        qemu_iovec_init_external(&qa, ia,
                                 random_iov(ia, ARRAY_SIZE(ia), a));
        qemu_iovec_init_external(&qb, ib,
                                 random_iov(ib, ARRAY_SIZE(ib), b));
        g_assert_cmpint(qemu_iovec_compare(&qa, &qb), ==, -1);
        b[at] ^= 1;
        g_assert_cmpint(qemu_iovec_compare(&qa, &qb), ==, at);
    }
}

static void test_compare_long(void)
{
    g_autofree char *a = g_malloc0(5000);
    g_autofree char *b = g_malloc0(5000);
    QEMUIOVector qa, qb;

    qemu_iovec_init_buf(&qa, a, 5000);
    qemu_iovec_init_buf(&qb, b, 5000);
    for (int at = 0; at < 5000; at += 51) {
        b[at] = 1;
        g_assert_cmpint(qemu_iovec_compare(&qa, &qb), ==, at);
        b[at] = 0;
    }
    g_assert_cmpint(qemu_iovec_compare(&qa, &qb), ==, -1);
}

static void test_is_zero(void)
{
    char mem[TOTAL] = { 0 };
    struct iovec iov[16];
    QEMUIOVector q;

    qemu_iovec_init_external(&q, iov, random_iov(iov, ARRAY_SIZE(iov), mem));
    g_assert_true(qemu_iovec_is_zero(&q, 0, TOTAL));
    for (size_t i = 0; i < TOTAL; i++) {
        mem[i] = 1;
        g_assert_false(qemu_iovec_is_zero(&q, 0, TOTAL));
        g_assert_false(qemu_iovec_is_zero(&q, i, 1));
        g_assert_true(qemu_iovec_is_zero(&q, 0, i));
        g_assert_true(qemu_iovec_is_zero(&q, i + 1, TOTAL - i - 1));
        mem[i] = 0;
    }
}

static void test_contiguous_and_aligned(void)
{
    static char mem[4096] __attribute__((aligned(512)));
    struct iovec iov[] = {
        { mem, 512 }, { mem, 0 }, { mem + 1024, 1024 },
    };
    QEMUIOVector q;

    qemu_iovec_init_external(&q, iov, 3);
    g_assert_true(qemu_iovec_contiguous(&q, 0, 512) == mem);
    g_assert_true(qemu_iovec_contiguous(&q, 512, 1024) == mem + 1024);
    g_assert_null(qemu_iovec_contiguous(&q, 511, 2));
    g_assert_true(qemu_iovec_is_aligned(&q, 512));
    g_assert_false(qemu_iovec_is_aligned(&q, 1024));
    iov[2].iov_base = mem + 1025;
    g_assert_false(qemu_iovec_is_aligned(&q, 2));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iov/copy/equals-flat", test_copy_random);
    g_test_add_func("/iov/discard/equals-flat", test_discard_random);
    g_test_add_func("/iov/buf/no-allocation", test_buf);
    g_test_add_func("/iov/add/grows", test_add_grows);
    g_test_add_func("/iov/slice/equals-flat", test_slice_random);
    g_test_add_func("/iov/compare/finds-first", test_compare_random);
    g_test_add_func("/iov/compare/finds-far", test_compare_long);
    g_test_add_func("/iov/is_zero/any-range", test_is_zero);
    g_test_add_func("/iov/contiguous/and-aligned", test_contiguous_and_aligned);
    return g_test_run();
}
