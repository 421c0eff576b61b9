/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log-linear histogram: see histogram.h.
 *
 * Values below 32 have a bucket each.  A larger value with its highest bit at
 * position e goes by that bit and the five below it.
 */
#include "histogram.h"

#define SUB (1u << HISTOGRAM_SUB_BITS)

static unsigned bucket_of(uint64_t value)
{
    unsigned shift;

    if (value < SUB) {
        return value;
    }
    shift = 63 - __builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (shift + 1) * SUB + (unsigned)(value >> shift) - SUB;
}

/* The largest value that goes to bucket @b. */
static uint64_t bucket_end(unsigned b)
{
    unsigned shift;

    if (b < SUB) {
        return b;
    }
    shift = b / SUB - 1;
    return (((uint64_t)(SUB + b % SUB) + 1) << shift) - 1;
}

void histogram_record(Histogram *h, uint64_t value)
{
    h->count++;
    h->sum += value;
    h->max = value > h->max ? value : h->max;
    h->buckets[bucket_of(value)]++;
}

void histogram_merge(Histogram *to, const Histogram *from)
{
    unsigned i;

    to->count += from->count;
    to->sum += from->sum;
    to->max = from->max > to->max ? from->max : to->max;
    for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
        to->buckets[i] += from->buckets[i];
    }
}

uint64_t histogram_percentile(const Histogram *h, double fraction)
{
    uint64_t want = (uint64_t)(fraction * h->count + 0.5);
    uint64_t seen = 0;
    unsigned i;

    for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= want && seen > 0) {
            uint64_t end = bucket_end(i);

            return end < h->max ? end : h->max;
        }
    }
    return h->max;
}
