/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the load generator that its figures rest on: the histogram and
 * the stamps.
 */
#include "bench-stamp.h"
#include "histogram.h"

#include <glib.h>
#include <string.h>

/* Percentiles of 1..n are known; the error is that of a bucket. */
static void test_percentiles(void)
{
    static const double fractions[] = { 0.01, 0.5, 0.9, 0.99, 0.999 };
    g_autofree Histogram *h = g_new0(Histogram, 1);
    g_autofree Histogram *sum = g_new0(Histogram, 1);
    const uint64_t n = 1000000;
    uint64_t i;
    size_t k;

    g_assert_cmpuint(histogram_percentile(h, 0.5), ==, 0);
    for (i = 1; i <= n; i++) {
        histogram_record(h, i);
    }
    histogram_merge(sum, h);
    histogram_merge(sum, h);
    g_assert_cmpuint(sum->count, ==, 2 * n);
    for (k = 0; k < G_N_ELEMENTS(fractions); k++) {
        double exact = fractions[k] * n;

        g_assert_cmpfloat(histogram_percentile(h, fractions[k]), >=, exact);
        g_assert_cmpfloat(histogram_percentile(h, fractions[k]), <=,
                          exact * 1.04);
        g_assert_cmpuint(histogram_percentile(sum, fractions[k]), ==,
                         histogram_percentile(h, fractions[k]));
    }
    g_assert_cmpuint(histogram_percentile(h, 1.0), ==, n);
}

/* Every value finds a bucket that ends at or above it, up to the largest. */
static void test_buckets(void)
{
    unsigned bit;

    for (bit = 0; bit < 64; bit++) {
        g_autofree Histogram *h = g_new0(Histogram, 1);
        uint64_t v = UINT64_C(1) << bit;

        histogram_record(h, v - 1);
        histogram_record(h, v);
        g_assert_cmpuint(histogram_percentile(h, 1.0), ==, v);
        g_assert_cmpuint(histogram_percentile(h, 0.5), >=, v - 1);
        g_assert_cmpuint(histogram_percentile(h, 0.5), <=, v);
    }
    {
        g_autofree Histogram *h = g_new0(Histogram, 1);

        histogram_record(h, UINT64_MAX);
        g_assert_cmpuint(histogram_percentile(h, 1.0), ==, UINT64_MAX);
    }
}

/* Each way in which a block can be wrong is noticed. */
static void test_stamps(void)
{
    static uint64_t a[2 * STAMP_BLOCK / 8], b[2 * STAMP_BLOCK / 8];
    const size_t words = STAMP_BLOCK / 8;
    uint64_t checked = 0;
    StampMap m;

    stamp_map_init(&m, 16 * STAMP_BLOCK, 42);
    /* Unknown contents are not judged. */
    g_assert_cmpuint(stamp_check(&m, 0, a, sizeof(a), true, &checked), ==, 0);
    g_assert_cmpuint(checked, ==, 0);
    g_assert_false(stamp_was_written(&m, 0, sizeof(a)));

    stamp_fill(&m, 2 * STAMP_BLOCK, a, sizeof(a));
    g_assert_true(stamp_was_written(&m, 0, 3 * STAMP_BLOCK));
    g_assert_cmpuint(stamp_check(&m, 2 * STAMP_BLOCK, a, sizeof(a), true,
                                 &checked), ==, 0);
    g_assert_cmpuint(checked, ==, 2);
    /* Zeroed, misplaced, one bit off, stale, of another run. */
    g_assert_cmpuint(stamp_check(&m, 2 * STAMP_BLOCK, b, sizeof(b), true,
                                 &checked), ==, 2);
    memcpy(b, a + words, STAMP_BLOCK);
    memcpy(b + words, a, STAMP_BLOCK);
    g_assert_cmpuint(stamp_check(&m, 2 * STAMP_BLOCK, b, sizeof(b), true,
                                 &checked), ==, 2);
    memcpy(b, a, sizeof(a));
    b[2 * words - 1] ^= 1;
    g_assert_cmpuint(stamp_check(&m, 2 * STAMP_BLOCK, b, sizeof(b), true,
                                 &checked), ==, 1);
    stamp_fill(&m, 3 * STAMP_BLOCK, b, STAMP_BLOCK);
    g_assert_cmpuint(stamp_check(&m, 2 * STAMP_BLOCK, a, sizeof(a), true,
                                 &checked), ==, 1);
    m.seed = 43;
    g_assert_cmpuint(stamp_check(&m, 2 * STAMP_BLOCK, a, STAMP_BLOCK, true,
                                 &checked), ==, 1);
    stamp_map_destroy(&m);
}

static void test_claims(void)
{
    StampMap m;

    stamp_map_init(&m, 8 * STAMP_BLOCK, 1);
    g_assert_true(stamp_claim(&m, 2 * STAMP_BLOCK, 3 * STAMP_BLOCK));
    g_assert_false(stamp_claim(&m, 4 * STAMP_BLOCK, STAMP_BLOCK));
    g_assert_false(stamp_claim(&m, 0, 3 * STAMP_BLOCK));
    /* A refused claim leaves nothing behind. */
    g_assert_true(stamp_claim(&m, 0, 2 * STAMP_BLOCK));
    stamp_release(&m, 2 * STAMP_BLOCK, 3 * STAMP_BLOCK);
    g_assert_true(stamp_claim(&m, 4 * STAMP_BLOCK, STAMP_BLOCK));
    stamp_map_destroy(&m);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/histogram/percentile/within-a-bucket", test_percentiles);
    g_test_add_func("/histogram/bucket/holds-any-value", test_buckets);
    g_test_add_func("/stamp/check/finds-each-fault", test_stamps);
    g_test_add_func("/stamp/claim/excludes-overlaps", test_claims);
    return g_test_run();
}
