/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A histogram of durations with a constant relative error.
 *
 * Each power of two is cut into 32 equal buckets, so any percentile is right
 * to about 3 %, from 1 ns to hours, in 15 KB and a few instructions a sample.
 * No locks: one thread records; merge when it has finished.
 */
#ifndef TESTS_BENCH_HISTOGRAM_H
#define TESTS_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

typedef struct Histogram {
    uint64_t count, sum, max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
} Histogram;

void histogram_record(Histogram *h, uint64_t value);

/* Adds all samples of @from to @to. */
void histogram_merge(Histogram *to, const Histogram *from);

/*
 * The value that @fraction (0 to 1) of the samples do not exceed, rounded up to
 * the end of its bucket; 0 without samples.
 */
uint64_t histogram_percentile(const Histogram *h, double fraction);

#endif
