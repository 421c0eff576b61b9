/*
 * Images that lie: a few fields of a good image take values that a field of
 * that kind should not have, or should have elsewhere.  The same seed makes the
 * same image.
 *
 * A group of fields is picked first, so that a header of twenty fields is
 * changed as often as tables of thousands of entries.  Some changes are of a
 * table as a whole: it is emptied, filled, overwritten by another, or moved
 * with whoever refers to it.  Images can be mixed, too.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "fuzz.h"
#include "qemu/bswap.h"

#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)

typedef struct Mutation {
    uint8_t *data;
    size_t size, max_size;
    FuzzLayout *l;
    GRand *rand;
} Mutation;

static uint32_t below(Mutation *m, uint32_t n)
{
    return g_rand_int(m->rand) % n;
}

static uint64_t random64(Mutation *m)
{
    return (uint64_t)g_rand_int(m->rand) << 32 | g_rand_int(m->rand);
}

/* ---- Fields ---- */

static uint64_t load(const Mutation *m, const FuzzField *f)
{
    const uint8_t *p = m->data + f->offset;

    return f->width == 1 ? *p : f->width == 2 ? lduw_be_p(p) :
           f->width == 4 ? ldl_be_p(p) : ldq_be_p(p);
}

static void store(Mutation *m, const FuzzField *f, uint64_t value)
{
    for (int i = 0; i < f->width; i++) {
        m->data[f->offset + i] = value >> 8 * (f->width - 1 - i);
    }
}

/* NULL: the image has none of that kind. */
static const FuzzField *pick_field(Mutation *m, const GArray *fields)
{
    const FuzzField *f = NULL;

    /* Most entries of tables are zero; those are seldom of interest. */
    for (int i = 0; i < 8 && fields->len > 0; i++) {
        f = &g_array_index(fields, FuzzField, below(m, fields->len));
        if (load(m, f)) {
            break;
        }
    }
    return f;
}

static const GArray *pick_group(Mutation *m)
{
    const GArray *group;

    do {
        group = m->l->fields[below(m, FUZZ_GROUPS)];
    } while (group->len == 0);
    return group;
}

/* ---- Values ---- */

static uint64_t with_offset(uint64_t value, uint64_t offset)
{
    return (value & ~OFFSET_MASK) | (offset & OFFSET_MASK);
}

static uint64_t some_table(Mutation *m)
{
    const GArray *t = m->l->tables;

    return t->len == 0 ? 0 :
           g_array_index(t, FuzzTable, below(m, t->len)).offset;
}

static uint64_t behind_end(Mutation *m)
{
    return ROUND_UP((uint64_t)m->size, UINT64_C(1) << m->l->cluster_bits) +
           ((uint64_t)below(m, 3) << m->l->cluster_bits);
}

static uint64_t extreme(Mutation *m, unsigned width)
{
    const uint64_t top = UINT64_C(1) << (8 * width - 1);
    const uint64_t values[] = { 0, 1, UINT64_MAX, top, top - 1, top >> 1, 2, 7,
                                8, 9, 22, 63, 64, 255, 65535, 0x10000,
                                0x2000000, UINT64_C(1) << 40,
                                UINT64_C(1) << 56, UINT64_C(1) << 62 };

    return values[below(m, ARRAY_SIZE(values))];
}

static uint64_t near(Mutation *m, uint64_t value)
{
    const uint64_t steps[] = { 1, 2, 8, 256, 512, 4096,
                               UINT64_C(1) << m->l->cluster_bits };
    uint64_t step = steps[below(m, ARRAY_SIZE(steps))];

    return below(m, 2) ? value + step : value - step;
}

static uint64_t new_value(Mutation *m, const GArray *group, const FuzzField *f)
{
    uint64_t old = load(m, f);

    switch (below(m, 9)) {
    case 0:
        return old ^ UINT64_C(1) << below(m, 8 * f->width);
    case 1:
        /* Flags: COPIED, COMPRESSED, zero. */
        return f->width == 8 ? old ^ (uint64_t)below(m, 4) << 62 ^ below(m, 2)
                             : old ^ 1u << below(m, 8 * f->width);
    case 2:
        return extreme(m, f->width);
    case 3:
        return near(m, old);
    case 4:
        return load(m, pick_field(m, group));
    case 5:
        return with_offset(old, some_table(m));
    case 6:
        return with_offset(old, behind_end(m));
    case 7:
        return with_offset(old, (uint64_t)below(m, (m->size >>
                           m->l->cluster_bits) + 1) << m->l->cluster_bits);
    default:
        return random64(m) >> below(m, 64);
    }
}

/* ---- Changes ---- */

static void change_field(Mutation *m)
{
    const GArray *group = pick_group(m);
    const FuzzField *f = pick_field(m, group);

    store(m, f, new_value(m, group, f));
}

/* The file ends early, or not with a cluster, or goes on. */
static void change_size(Mutation *m)
{
    size_t step = below(m, 2) ? below(m, 600)
                              : (size_t)below(m, 4) << m->l->cluster_bits;
    size_t size = below(m, 2) ? m->size - MIN(m->size, step)
                              : MIN(m->max_size, m->size + step);

    if (size > m->size) {
        memset(m->data + m->size, below(m, 3), size - m->size);
    }
    m->size = MAX(size, 1);
}

static void change_byte(Mutation *m)
{
    m->data[below(m, m->size)] = g_rand_int(m->rand);
}

/* ---- Tables ---- */

/* What of a table is in the image; its bytes may be 0. */
static FuzzTable pick_table(Mutation *m, const FuzzLayout *l)
{
    FuzzTable t = { 0 };

    if (l->tables->len > 0) {
        t = g_array_index(l->tables, FuzzTable, below(m, l->tables->len));
    }
    t.offset = MIN(t.offset, l->size);
    t.bytes = MIN(t.bytes, l->size - t.offset);
    return t;
}

/* All of @t, or some of its words. */
static FuzzTable pick_part(Mutation *m, FuzzTable t)
{
    uint32_t words = t.bytes / 8, first = words ? below(m, words) : 0;

    if (words == 0 || below(m, 2)) {
        return t;
    }
    return (FuzzTable){ t.offset + first * 8,
                        (1 + below(m, words - first)) * UINT64_C(8) };
}

/* Of @l, another image perhaps, over one of ours. */
static void copy_table(Mutation *m, const FuzzLayout *l)
{
    FuzzTable from = pick_table(m, l), to = pick_table(m, m->l);

    from = pick_part(m, from);
    memmove(m->data + to.offset, l->data + from.offset,
            MIN(from.bytes, m->size - to.offset));
}

static void fill_table(Mutation *m)
{
    FuzzTable t = pick_part(m, pick_table(m, m->l));
    static const uint8_t values[] = { 0, 0, 0, 1, 0x80, 0xff };

    memset(m->data + t.offset, values[below(m, ARRAY_SIZE(values))], t.bytes);
}

/* Each entry becomes that of its neighbour. */
static void shift_table(Mutation *m)
{
    FuzzTable t = pick_part(m, pick_table(m, m->l));
    uint64_t step = below(m, 2) ? 8 : 2;

    if (t.bytes > step) {
        memmove(m->data + t.offset + step, m->data + t.offset, t.bytes - step);
    }
}

static void point_to(Mutation *m, uint64_t from, uint64_t to)
{
    for (int i = 0; i < FUZZ_GROUPS; i++) {
        const GArray *fields = m->l->fields[i];

        for (guint k = 0; k < fields->len; k++) {
            const FuzzField *f = &g_array_index(fields, FuzzField, k);

            if (f->width == 8 && (load(m, f) & OFFSET_MASK) == from) {
                store(m, f, with_offset(load(m, f), to));
            }
        }
    }
}

/* To the end, or behind it, and who referred to it does still.  What it was
 * stays, to be leaked or taken for data. */
static void move_table(Mutation *m)
{
    FuzzTable t = pick_table(m, m->l);
    uint64_t to = behind_end(m), end = to + t.bytes;

    if (t.offset == 0 || t.bytes == 0 || end > m->max_size) {
        return;
    }
    memset(m->data + m->size, 0, end - m->size);
    memcpy(m->data + to, m->data + t.offset, t.bytes);
    m->size = end;
    point_to(m, t.offset, to);
}

static void change_table(Mutation *m)
{
    switch (below(m, 4)) {
    case 0:
        copy_table(m, m->l);
        break;
    case 1:
        fill_table(m);
        break;
    case 2:
        shift_table(m);
        break;
    default:
        move_table(m);
    }
}

/* ---- All ---- */

size_t fuzz_mutate(uint8_t *data, size_t size, size_t max_size, uint32_t seed)
{
    Mutation m = { .data = data, .size = size, .max_size = max_size };

    if (size < 104) {
        return size;
    }
    m.rand = g_rand_new_with_seed(seed);
    for (uint32_t n = 1 + below(&m, 4); n > 0 && m.size >= 104; n--) {
        uint32_t what = below(&m, 20);

        m.l = fuzz_layout_new(data, m.size);
        if (what == 0) {
            change_size(&m);
        } else if (what == 1) {
            change_byte(&m);
        } else if (what < 6) {
            change_table(&m);
        } else {
            change_field(&m);
        }
        fuzz_layout_free(m.l);
    }
    g_rand_free(m.rand);
    return m.size;
}

size_t fuzz_mix(uint8_t *data, size_t size, const uint8_t *other,
                size_t other_size, uint32_t seed)
{
    g_autoptr(FuzzLayout) l = fuzz_layout_new(other, other_size);
    Mutation m = { .data = data, .size = size, .max_size = size };

    m.rand = g_rand_new_with_seed(seed);
    for (uint32_t n = 1 + below(&m, 3); n > 0; n--) {
        m.l = fuzz_layout_new(data, size);
        copy_table(&m, l);
        fuzz_layout_free(m.l);
    }
    g_rand_free(m.rand);
    return size;
}
