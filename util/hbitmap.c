/*
 * HBitmap: a sparse bitmap as a radix tree.
 *
 * A leaf holds 2^15 bits, an inner node 512 children.  Where a child would be
 * all clean there is NULL, where it would be all dirty there is ALL_DIRTY; both
 * are found by each node's count of dirty bits, which makes them canonical: a
 * node that exists is mixed.  So a search skips uniform regions in one step,
 * and a uniform bitmap takes no memory, whatever its size.
 *
 *   level 0   32 Ki bits     (at 64 KiB a bit: 2 GiB)
 *   level 1   16 Mi bits     (1 TiB)
 *   level 2    8 Gi bits     (512 TiB) …
 *
 * The tree is as high as the number of bits needs.  Bits past the end are
 * always clean, so truncating and searching need no special case; the price is
 * that the right edge of an all dirty bitmap is made of nodes.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "hbitmap-internal.h"

#define NOT_FOUND UINT64_MAX

Node hbitmap_all_dirty;

/* log2 of the bits below a node of @level. */
static unsigned level_shift(int level)
{
    return LEAF_SHIFT + level * FAN_SHIFT;
}

static uint64_t level_bits(int level)
{
    return UINT64_C(1) << level_shift(level);
}

static uint64_t node_count(const Node *n, int level)
{
    return !n ? 0 : n == ALL_DIRTY ? level_bits(level) : n->count;
}

/* ---- Making and dropping nodes ---- */

static void drop(HBitmap *hb, Node *n, int level)
{
    if (is_uniform(n)) {
        return;
    }
    for (int i = 0; level > 0 && i < FAN; i++) {
        drop(hb, n->child[i], level - 1);
    }
    g_free(n);
    hb->nodes--;
}

static void materialise(HBitmap *hb, Node **slot, int level)
{
    Node *n = *slot;

    if (!is_uniform(n)) {
        return;
    }
    *slot = g_new0(Node, 1);
    hb->nodes++;
    if (n == ALL_DIRTY) {
        (*slot)->count = level_bits(level);
        if (level == 0) {
            memset((*slot)->words, 0xff, sizeof((*slot)->words));
        }
        for (int i = 0; level > 0 && i < FAN; i++) {
            (*slot)->child[i] = ALL_DIRTY;
        }
    }
}

/* A node that has become uniform goes. */
static void collapse(HBitmap *hb, Node **slot, int level)
{
    uint64_t count = (*slot)->count;

    if (count == 0 || count == level_bits(level)) {
        drop(hb, *slot, level);
        *slot = count ? ALL_DIRTY : NULL;
    }
}

static Node *clone_node(HBitmap *hb, const Node *n, int level)
{
    Node *copy;

    if (is_uniform(n)) {
        return (Node *)n;
    }
    copy = g_memdup2(n, sizeof(*n));
    hb->nodes++;
    for (int i = 0; level > 0 && i < FAN; i++) {
        copy->child[i] = clone_node(hb, n->child[i], level - 1);
    }
    return copy;
}

/* ---- Changing bits ---- */

static int64_t fill_leaf(Node *n, uint64_t first, uint64_t last, bool dirty)
{
    int64_t change = 0;

    for (uint64_t w = first / 64; w <= last / 64; w++) {
        uint64_t mask = word_mask(w == first / 64 ? first % 64 : 0,
                                  w == last / 64 ? last % 64 : 63);
        uint64_t old = n->words[w];

        n->words[w] = dirty ? old | mask : old & ~mask;
        change += __builtin_popcountll(n->words[w]) -
                  __builtin_popcountll(old);
    }
    return change;
}

/* Bits @first to @last of the node in @slot; by how much its count changes. */
static int64_t fill(HBitmap *hb, Node **slot, int level, uint64_t first,
                    uint64_t last, bool dirty)
{
    Node *uniform = dirty ? ALL_DIRTY : NULL;
    int64_t old = node_count(*slot, level), change = 0;
    unsigned shift;

    if (*slot == uniform) {
        return 0;
    }
    if (first == 0 && last == level_bits(level) - 1) {
        drop(hb, *slot, level);
        *slot = uniform;
        return (int64_t)node_count(uniform, level) - old;
    }
    materialise(hb, slot, level);
    if (level == 0) {
        change = fill_leaf(*slot, first, last, dirty);
    } else {
        shift = level_shift(level - 1);
        for (uint64_t i = first >> shift; i <= last >> shift; i++) {
            uint64_t base = i << shift;
            uint64_t end = base + level_bits(level - 1) - 1;

            change += fill(hb, &(*slot)->child[i], level - 1,
                           MAX(first, base) - base, MIN(last, end) - base,
                           dirty);
        }
    }
    (*slot)->count += change;
    collapse(hb, slot, level);
    return change;
}

void hbitmap_fill_bits(HBitmap *hb, uint64_t first, uint64_t end, bool dirty)
{
    end = MIN(end, hb->bits);
    if (first < end) {
        fill(hb, &hb->root, hb->top, first, end - 1, dirty);
    }
}

/* The same for hbitmap_put_bits(), in the node in @slot. */
static int64_t put(HBitmap *hb, Node **slot, int level, uint64_t bit,
                   uint64_t n, const uint8_t *data)
{
    int64_t change = 0;

    materialise(hb, slot, level);
    if (level == 0) {
        for (uint64_t i = 0; i < n; i += 64) {
            uint64_t *word = &(*slot)->words[(bit + i) / 64];
            uint64_t mask = word_mask(0, MIN(n - i, 64) - 1);
            uint64_t new, old = *word;

            memcpy(&new, data + i / 8, sizeof(new));
            *word = (old & ~mask) | (GUINT64_FROM_LE(new) & mask);
            change += __builtin_popcountll(*word) - __builtin_popcountll(old);
        }
    } else {
        unsigned shift = level_shift(level - 1);

        change = put(hb, &(*slot)->child[bit >> shift], level - 1,
                     bit & (level_bits(level - 1) - 1), n, data);
    }
    (*slot)->count += change;
    collapse(hb, slot, level);
    return change;
}

void hbitmap_put_bits(HBitmap *hb, uint64_t bit, uint64_t n,
                      const uint8_t *data)
{
    assert(n > 0 && bit % 64 == 0 && bit + n <= hb->bits &&
           bit / LEAF_BITS == (bit + n - 1) / LEAF_BITS);
    put(hb, &hb->root, hb->top, bit, n, data);
}

/* ---- Looking for bits ---- */

static uint64_t find_in_leaf(const Node *n, uint64_t from, bool dirty)
{
    uint64_t skip = UINT64_MAX << from % 64;

    for (uint64_t w = from / 64; w < LEAF_WORDS; w++) {
        uint64_t word = (dirty ? n->words[w] : ~n->words[w]) & skip;

        if (word) {
            return w * 64 + __builtin_ctzll(word);
        }
        skip = UINT64_MAX;
    }
    return NOT_FOUND;
}

/* The first bit at or after @from of the node that is @dirty. */
static uint64_t find(const Node *n, int level, uint64_t from, bool dirty)
{
    unsigned shift;

    if (is_uniform(n)) {
        return (n == ALL_DIRTY) == dirty ? from : NOT_FOUND;
    }
    if (level == 0) {
        return find_in_leaf(n, from, dirty);
    }
    shift = level_shift(level - 1);
    for (uint64_t i = from >> shift; i < FAN; i++) {
        uint64_t base = i << shift;
        uint64_t found = find(n->child[i], level - 1, MAX(from, base) - base,
                              dirty);

        if (found != NOT_FOUND) {
            return base + found;
        }
    }
    return NOT_FOUND;
}

uint64_t hbitmap_find_bit(const HBitmap *hb, uint64_t from, uint64_t end,
                          bool dirty)
{
    uint64_t found = from < end ? find(hb->root, hb->top, from, dirty) : end;

    return MIN(found, end);
}

const Node *hbitmap_leaf_of(const HBitmap *hb, uint64_t bit)
{
    const Node *n = hb->root;

    for (int level = hb->top; level > 0 && !is_uniform(n); level--) {
        n = n->child[(bit >> level_shift(level - 1)) & (FAN - 1)];
    }
    return n;
}

/* ---- Shape ---- */

bool hbitmap_granularity_is_valid(uint64_t granularity)
{
    return granularity >= HBITMAP_MIN_GRANULARITY &&
           granularity <= HBITMAP_MAX_GRANULARITY && is_power_of_2(granularity);
}

static int level_for(uint64_t bits)
{
    int level = 0;

    while (level_bits(level) < bits) {
        level++;
    }
    return level;
}

HBitmap *hbitmap_new(int64_t size, uint32_t granularity)
{
    HBitmap *hb = g_new0(HBitmap, 1);

    assert(size >= 0 && hbitmap_granularity_is_valid(granularity));
    hb->size = size;
    hb->shift = __builtin_ctz(granularity);
    hb->bits = bits_for(size, hb->shift);
    hb->top = level_for(hb->bits);
    return hb;
}

HBitmap *hbitmap_copy(const HBitmap *hb)
{
    HBitmap *copy = g_memdup2(hb, sizeof(*hb));

    copy->nodes = 0;
    copy->root = clone_node(copy, hb->root, hb->top);
    return copy;
}

void hbitmap_free(HBitmap *hb)
{
    if (hb) {
        drop(hb, hb->root, hb->top);
        g_free(hb);
    }
}

/* One level more: what was the root becomes the first child. */
static void grow_tree(HBitmap *hb)
{
    Node *old = hb->root;

    hb->top++;
    if (old) {
        hb->root = NULL;
        materialise(hb, &hb->root, hb->top);
        hb->root->child[0] = old;
        hb->root->count = node_count(old, hb->top - 1);
    }
}

/* One level less: there is nothing but the first child. */
static void shrink_tree(HBitmap *hb)
{
    Node *old = hb->root;

    hb->top--;
    if (old) {
        hb->root = old->child[0];
        g_free(old);
        hb->nodes--;
    }
}

void hbitmap_truncate(HBitmap *hb, int64_t size)
{
    uint64_t bits = bits_for(size, hb->shift);
    int top = level_for(bits);

    assert(size >= 0);
    hbitmap_fill_bits(hb, bits, hb->bits, false);
    hb->size = size;
    hb->bits = bits;
    while (hb->top < top) {
        grow_tree(hb);
    }
    while (hb->top > top) {
        shrink_tree(hb);
    }
}

int64_t hbitmap_size(const HBitmap *hb)
{
    return hb->size;
}

uint32_t hbitmap_granularity(const HBitmap *hb)
{
    return 1u << hb->shift;
}

int64_t hbitmap_count(const HBitmap *hb)
{
    /* Rounded up to a granule, a size may be too large for an int64_t. */
    return MIN(node_count(hb->root, hb->top) << hb->shift,
               (uint64_t)INT64_MAX);
}

size_t hbitmap_memory(const HBitmap *hb)
{
    return sizeof(*hb) + hb->nodes * sizeof(Node);
}

/* ---- Ranges of bytes ---- */

/* Cut [@offset, @offset + @bytes) to the bitmap; the end. */
static int64_t range_end(const HBitmap *hb, int64_t offset, int64_t bytes)
{
    assert(offset >= 0 && bytes >= 0);
    return offset >= hb->size ? offset :
           bytes > hb->size - offset ? hb->size : offset + bytes;
}

void hbitmap_set(HBitmap *hb, int64_t offset, int64_t bytes)
{
    int64_t end = range_end(hb, offset, bytes);

    if (end > offset) {
        hbitmap_fill_bits(hb, offset >> hb->shift, bits_for(end, hb->shift),
                          true);
    }
}

void hbitmap_reset(HBitmap *hb, int64_t offset, int64_t bytes)
{
    int64_t end = range_end(hb, offset, bytes);

    if (end > offset) {
        hbitmap_fill_bits(hb, bits_for(offset, hb->shift),
                  end == hb->size ? hb->bits : (uint64_t)end >> hb->shift,
                  false);
    }
}

void hbitmap_reset_all(HBitmap *hb)
{
    drop(hb, hb->root, hb->top);
    hb->root = NULL;
}

bool hbitmap_get(const HBitmap *hb, int64_t offset)
{
    uint64_t bit = offset >> hb->shift;
    const Node *leaf;

    assert(offset >= 0 && offset < hb->size);
    leaf = hbitmap_leaf_of(hb, bit);
    if (is_uniform(leaf)) {
        return leaf;
    }
    bit &= LEAF_BITS - 1;
    return leaf->words[bit / 64] >> bit % 64 & 1;
}

/* The first byte of [@offset, @end) that is @dirty; @end: there is none. */
static int64_t next_byte(const HBitmap *hb, int64_t offset, int64_t end,
                         bool dirty)
{
    uint64_t end_bit = bits_for(end, hb->shift);
    uint64_t bit;

    if (offset >= end) {
        return end;
    }
    bit = hbitmap_find_bit(hb, offset >> hb->shift, end_bit, dirty);
    /* The last granule may end beyond what an int64_t can say. */
    return bit == end_bit ? end : MAX(offset, (int64_t)(bit << hb->shift));
}

int64_t hbitmap_next_dirty(const HBitmap *hb, int64_t offset, int64_t bytes)
{
    int64_t end = range_end(hb, offset, bytes);
    int64_t found = next_byte(hb, offset, end, true);

    return found < end ? found : -1;
}

int64_t hbitmap_next_zero(const HBitmap *hb, int64_t offset, int64_t bytes)
{
    int64_t end = range_end(hb, offset, bytes);
    int64_t found = next_byte(hb, offset, end, false);

    return found < end ? found : -1;
}

bool hbitmap_next_dirty_area(const HBitmap *hb, int64_t offset, int64_t bytes,
                             int64_t max_bytes, int64_t *area_offset,
                             int64_t *area_bytes)
{
    int64_t end = range_end(hb, offset, bytes);
    int64_t start = next_byte(hb, offset, end, true);

    assert(max_bytes > 0);
    if (start == end) {
        return false;
    }
    end = MIN(end - start, max_bytes) + start;
    *area_offset = start;
    *area_bytes = next_byte(hb, start, end, false) - start;
    return true;
}

/* ---- Merging ---- */

static int64_t merge_node(HBitmap *hb, Node **slot, const Node *src, int level)
{
    int64_t change = 0;

    if (!src || *slot == ALL_DIRTY) {
        return 0;
    }
    if (src == ALL_DIRTY) {
        return fill(hb, slot, level, 0, level_bits(level) - 1, true);
    }
    if (!*slot) {
        *slot = clone_node(hb, src, level);
        return src->count;
    }
    for (uint64_t w = 0; level == 0 && w < LEAF_WORDS; w++) {
        uint64_t old = (*slot)->words[w];

        (*slot)->words[w] |= src->words[w];
        change += __builtin_popcountll(src->words[w] & ~old);
    }
    for (int i = 0; level > 0 && i < FAN; i++) {
        change += merge_node(hb, &(*slot)->child[i], src->child[i], level - 1);
    }
    (*slot)->count += change;
    collapse(hb, slot, level);
    return change;
}

void hbitmap_merge(HBitmap *hb, const HBitmap *src)
{
    int64_t offset = 0, bytes;

    assert(hb->size == src->size);
    if (hb->shift == src->shift) {
        merge_node(hb, &hb->root, src->root, hb->top);
        return;
    }
    while (hbitmap_next_dirty_area(src, offset, INT64_MAX, INT64_MAX, &offset,
                                   &bytes)) {
        hbitmap_set(hb, offset, bytes);
        offset += bytes;
    }
}
