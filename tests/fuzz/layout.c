/*
 * Where the fields of a qcow2 image are: for whoever wants to change them, or
 * to know what lies on what.  It follows an image as far as it goes, believes
 * nothing, and shares nothing with the driver.
 *
 * Source: the specification; sections by their names.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "fuzz.h"
#include "qemu/bswap.h"

#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define COMPRESSED (UINT64_C(1) << 62)
#define EXT_BITMAPS 0x23852875

/* Of each kind of table; the fields of a group are as many at most. */
#define MAX_TABLES 64
#define MAX_FIELDS 20000

/* ---- Reading ---- */

static bool has(const FuzzLayout *l, uint64_t offset, uint64_t bytes)
{
    return offset <= l->size && bytes <= l->size - offset;
}

static uint32_t get32(const FuzzLayout *l, uint64_t offset)
{
    return has(l, offset, 4) ? ldl_be_p(l->data + offset) : 0;
}

static uint64_t get64(const FuzzLayout *l, uint64_t offset)
{
    return has(l, offset, 8) ? ldq_be_p(l->data + offset) : 0;
}

static uint32_t get16(const FuzzLayout *l, uint64_t offset)
{
    return has(l, offset, 2) ? lduw_be_p(l->data + offset) : 0;
}

/* ---- What there is ---- */

static void add_field(FuzzLayout *l, FuzzGroup group, uint64_t offset,
                      unsigned width)
{
    FuzzField f = { offset, width };

    if (has(l, offset, width) && l->fields[group]->len < MAX_FIELDS) {
        g_array_append_val(l->fields[group], f);
    }
}

/* Fields one behind the other; the widths as digits. */
static void add_fields(FuzzLayout *l, FuzzGroup group, uint64_t offset,
                       const char *widths)
{
    for (; *widths; widths++) {
        add_field(l, group, offset, *widths - '0');
        offset += *widths - '0';
    }
}

static void add_array(FuzzLayout *l, FuzzGroup group, uint64_t offset,
                      uint64_t n, unsigned width)
{
    n = MIN(n, l->size / width);
    for (uint64_t i = 0; i < n; i++) {
        add_field(l, group, offset + i * width, width);
    }
}

/* One that several refer to, as snapshots do, is one table. */
static void add_table(FuzzLayout *l, uint64_t offset, uint64_t bytes)
{
    FuzzTable t = { offset, bytes };

    for (guint i = 0; i < l->tables->len; i++) {
        const FuzzTable *old = &g_array_index(l->tables, FuzzTable, i);

        if (old->offset == offset && old->bytes == bytes) {
            return;
        }
    }
    if (bytes && l->tables->len < 8 * MAX_TABLES) {
        g_array_append_val(l->tables, t);
    }
}

/* ---- "Header", "Header extensions" ---- */

static void add_bitmaps(FuzzLayout *l, uint64_t ext);

static void add_extensions(FuzzLayout *l, uint64_t at)
{
    for (int i = 0; i < 16 && has(l, at, 8); i++) {
        uint32_t type = get32(l, at), length = get32(l, at + 4);

        add_fields(l, FUZZ_EXTENSION, at, "44");
        add_array(l, FUZZ_EXTENSION, at + 8, MIN(length, 256) / 4, 4);
        if (type == EXT_BITMAPS) {
            add_bitmaps(l, at + 8);
        }
        if (type == 0) {
            return;
        }
        at += 8 + ROUND_UP((uint64_t)length, 8);
    }
}

static void add_header(FuzzLayout *l)
{
    add_fields(l, FUZZ_HEADER, 0, "448448448848");
    if (get32(l, 4) >= 3) {
        add_fields(l, FUZZ_HEADER, 72, "888441");
        add_extensions(l, get32(l, 100));
    } else {
        add_extensions(l, 72);
    }
    add_table(l, 0, UINT64_C(1) << l->cluster_bits);
}

/* ---- "L1 table", "L2 table" ---- */

static unsigned l2_words(const FuzzLayout *l)
{
    return get32(l, 4) >= 3 && get64(l, 72) & 16 ? 2 : 1;
}

static void add_compressed(FuzzLayout *l, uint64_t entry)
{
    unsigned bits = 62 - (l->cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << bits) - 1);

    add_array(l, FUZZ_COMPRESSED, offset, 16, 1);
}

static void add_l2(FuzzLayout *l, uint64_t offset)
{
    uint64_t bytes = UINT64_C(1) << l->cluster_bits;

    add_table(l, offset, bytes);
    add_array(l, FUZZ_L2, offset, bytes / 8, 8);
    for (uint64_t at = 0; at < bytes; at += 8 * l2_words(l)) {
        uint64_t entry = get64(l, offset + at);

        if (entry & COMPRESSED) {
            add_compressed(l, entry);
        }
    }
}

static void add_l1(FuzzLayout *l, uint64_t offset, uint32_t entries)
{
    int tables = 0;

    add_table(l, offset, entries * UINT64_C(8));
    add_array(l, FUZZ_L1, offset, entries, 8);
    for (uint64_t i = 0; i < entries && has(l, offset, 8 * i + 8); i++) {
        uint64_t table = get64(l, offset + 8 * i) & OFFSET_MASK;

        if (table && tables++ < MAX_TABLES) {
            add_l2(l, table);
        }
    }
}

/* ---- "Refcount table", "Refcount block" ---- */

static void add_refcounts(FuzzLayout *l)
{
    uint64_t offset = get64(l, 48), cluster = UINT64_C(1) << l->cluster_bits;
    uint64_t bytes = (uint64_t)get32(l, 56) << l->cluster_bits;
    unsigned order = get32(l, 4) >= 3 ? get32(l, 96) : 4;
    unsigned width = order <= 3 ? 1 : order == 4 ? 2 : order == 5 ? 4 : 8;
    int tables = 0;

    add_table(l, offset, bytes);
    add_array(l, FUZZ_REFTABLE, offset, bytes / 8, 8);
    for (uint64_t at = 0; at < bytes && has(l, offset, at + 8); at += 8) {
        uint64_t block = get64(l, offset + at) & ~UINT64_C(0x1ff);

        if (block && tables++ < MAX_TABLES) {
            add_table(l, block, cluster);
            add_array(l, FUZZ_REFBLOCK, block, cluster / width, width);
        }
    }
}

/* ---- "Snapshots" ---- */

static void add_snapshots(FuzzLayout *l)
{
    uint64_t start = get64(l, 64), at = start;
    uint32_t n = get32(l, 60);

    for (uint32_t i = 0; i < MIN(n, 32) && has(l, at, 40); i++) {
        uint32_t extra = get32(l, at + 36);
        uint64_t bytes = 40 + (uint64_t)extra + get16(l, at + 12) +
                         get16(l, at + 14);

        add_fields(l, FUZZ_SNAPSHOT, at, "8422448" "44");
        add_array(l, FUZZ_SNAPSHOT, at + 40, MIN(extra, 64) / 8, 8);
        add_l1(l, get64(l, at), get32(l, at + 8));
        at += ROUND_UP(bytes, 8);
    }
    add_table(l, start, at - start);
}

/* ---- "Bitmaps extension" ---- */

static void add_bitmap(FuzzLayout *l, uint64_t at)
{
    uint64_t offset = get64(l, at), entries = get32(l, at + 8);

    add_fields(l, FUZZ_BITMAP_DIRECTORY, at, "8441124");
    add_table(l, offset, entries * 8);
    add_array(l, FUZZ_BITMAP_TABLE, offset, entries, 8);
    for (uint64_t i = 0; i < MIN(entries, MAX_TABLES); i++) {
        uint64_t data = get64(l, offset + 8 * i) & OFFSET_MASK;

        add_table(l, data, data ? UINT64_C(1) << l->cluster_bits : 0);
    }
}

static void add_bitmaps(FuzzLayout *l, uint64_t ext)
{
    uint32_t n = get32(l, ext);
    uint64_t start = get64(l, ext + 16), at = start;

    for (uint32_t i = 0; i < MIN(n, 32) && has(l, at, 24); i++) {
        uint64_t bytes = 24 + (uint64_t)get16(l, at + 18) + get32(l, at + 20);

        add_bitmap(l, at);
        at += ROUND_UP(bytes, 8);
    }
    add_table(l, start, at - start);
}

/* ---- All ---- */

FuzzLayout *fuzz_layout_new(const uint8_t *data, size_t size)
{
    FuzzLayout *l = g_new0(FuzzLayout, 1);
    uint32_t bits;

    l->data = data;
    l->size = size;
    for (int i = 0; i < FUZZ_GROUPS; i++) {
        l->fields[i] = g_array_new(FALSE, FALSE, sizeof(FuzzField));
    }
    l->tables = g_array_new(FALSE, FALSE, sizeof(FuzzTable));
    bits = get32(l, 20);
    l->cluster_bits = bits >= 9 && bits <= 21 ? bits : 16;
    add_header(l);
    add_refcounts(l);
    add_l1(l, get64(l, 40), get32(l, 36));
    add_snapshots(l);
    return l;
}

void fuzz_layout_free(FuzzLayout *l)
{
    for (int i = 0; i < FUZZ_GROUPS; i++) {
        g_array_free(l->fields[i], TRUE);
    }
    g_array_free(l->tables, TRUE);
    g_free(l);
}

/* ---- What lies on what ---- */

static bool touches(const FuzzLayout *l, const FuzzTable *t, uint64_t offset,
                    uint64_t bytes)
{
    unsigned bits = l->cluster_bits;

    /* The last one is lower than what could overflow. */
    return t->offset >> bits <= (offset + (bytes - 1)) >> bits &&
           offset >> bits <= (t->offset + (t->bytes - 1)) >> bits;
}

bool fuzz_layout_is_table(const FuzzLayout *l, uint64_t offset,
                          uint64_t bytes)
{
    for (guint i = 0; i < l->tables->len; i++) {
        if (touches(l, &g_array_index(l->tables, FuzzTable, i), offset,
                    bytes)) {
            return true;
        }
    }
    return false;
}

bool fuzz_layout_tables_overlap(const FuzzLayout *l)
{
    for (guint i = 1; i < l->tables->len; i++) {
        const FuzzTable *a = &g_array_index(l->tables, FuzzTable, i);

        for (guint k = 0; k < i; k++) {
            if (touches(l, &g_array_index(l->tables, FuzzTable, k), a->offset,
                        a->bytes)) {
                return true;
            }
        }
    }
    return false;
}
