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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iov/copy/equals-flat", test_copy_random);
    g_test_add_func("/iov/discard/equals-flat", test_discard_random);
    return g_test_run();
}
