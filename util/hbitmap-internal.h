/*
 * What the files of HBitmap share: the tree, and how it is walked.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef UTIL_HBITMAP_INTERNAL_H
#define UTIL_HBITMAP_INTERNAL_H

#include "qemu/hbitmap.h"

#define LEAF_SHIFT  15
#define LEAF_BITS   (UINT64_C(1) << LEAF_SHIFT)
#define LEAF_WORDS  (LEAF_BITS / 64)
#define FAN_SHIFT   9
#define FAN         (1 << FAN_SHIFT)

typedef struct HBitmapNode Node;

struct HBitmapNode {
    uint64_t count;             /* dirty bits below */
    union {
        uint64_t words[LEAF_WORDS];
        Node *child[FAN];
    };
};

struct HBitmap {
    int64_t size;               /* bytes */
    uint64_t bits;
    unsigned shift;             /* log2 of the granularity */
    int top;                    /* level of the root */
    Node *root;
    size_t nodes;
};

/* Stands for a node whose bits are all dirty; NULL, all clean. */
extern Node hbitmap_all_dirty;
#define ALL_DIRTY (&hbitmap_all_dirty)

static inline bool is_uniform(const Node *n)
{
    return !n || n == ALL_DIRTY;
}

/* Bits @first to @last of a word. */
static inline uint64_t word_mask(unsigned first, unsigned last)
{
    return (UINT64_MAX << first) & (UINT64_MAX >> (63 - last));
}

static inline uint64_t bits_for(int64_t size, unsigned shift)
{
    return ((uint64_t)size + (UINT64_C(1) << shift) - 1) >> shift;
}

/* Bits [@first, @end), cut to those that exist. */
void hbitmap_fill_bits(HBitmap *hb, uint64_t first, uint64_t end, bool dirty);
/* The first such bit in [@from, @end), which is inside; @end: none. */
uint64_t hbitmap_find_bit(const HBitmap *hb, uint64_t from, uint64_t end,
                          bool dirty);
/* The leaf that has @bit, or what stands for it. */
const Node *hbitmap_leaf_of(const HBitmap *hb, uint64_t bit);
/* Replace @n bits of one leaf, from @bit (a multiple of 64), by those of the
 * little-endian words at @data. */
void hbitmap_put_bits(HBitmap *hb, uint64_t bit, uint64_t n,
                      const uint8_t *data);

#endif
