/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The damage to the end of a file of qcow2-damage.h.
 *
 * Source: "Header", "Header extensions", "Snapshots", "Bitmaps" of the
 * specification.
 */
#include "qcow2-damage.h"

#define EXT_END 0
#define EXT_BITMAPS 0x23852875
#define HEAD 40                     /* of a snapshot's entry */

typedef struct Victim {
    MemImage *img;
    GRand *rand;
    Qcow2Lost *lost;
    uint64_t cluster_size;
} Victim;

static uint64_t get64(const Victim *v, uint64_t offset)
{
    return mem_image_get64(v->img, offset);
}

static uint32_t get32(const Victim *v, uint64_t offset)
{
    return mem_image_get32(v->img, offset);
}

static int dice(Victim *v, int sides)
{
    return g_rand_int_range(v->rand, 0, sides);
}

/*
 * The table whose offset stands at @where is at the end of the file, which ends
 * after @left bytes of it; or, if that is none, it may be somewhere behind.
 */
static void move(Victim *v, uint64_t where, uint64_t left)
{
    uint64_t end = QEMU_ALIGN_UP(mem_image_size(v->img), v->cluster_size);
    g_autofree uint8_t *buf = g_malloc(left);

    mem_image_read(v->img, get64(v, where), buf, left);
    mem_image_truncate(v->img, end);
    mem_image_write(v->img, end, buf, left);
    if (!left && dice(v, 2)) {
        end += dice(v, 2) ? dice(v, 40) * v->cluster_size :
               UINT64_C(1) << (30 + dice(v, 20));
    }
    mem_image_put64(v->img, where, end);
}

/* How much of it is left is returned. */
static uint64_t cut_off(Victim *v, uint64_t where, uint64_t bytes)
{
    uint64_t left = bytes && dice(v, 3) ? dice(v, bytes) : 0;

    left = dice(v, 2) ? left : QEMU_ALIGN_DOWN(left, 8);
    move(v, where, left);
    return left;
}

/* ---- Snapshots ---- */

static uint64_t entry_end(const Victim *v, uint64_t at)
{
    uint32_t lengths = get32(v, at + 12);

    at += HEAD + get32(v, at + 36) + (lengths >> 16) + (uint16_t)lengths;
    return (at + 7) & ~UINT64_C(7);
}

static uint64_t snapshot_entry(const Victim *v, uint32_t i)
{
    uint64_t at = get64(v, 64);

    while (i-- > 0) {
        at = entry_end(v, at);
    }
    return at;
}

/* Entries of zeroes, from the table's end on: a few, or some clusters. */
static uint32_t some_more(Victim *v)
{
    return dice(v, 3) == 0 ? 0 : dice(v, 3) == 0 ? 1 + dice(v, 20) :
           v->cluster_size / HEAD * (1 + dice(v, 3));
}

static void cut_snapshots(Victim *v)
{
    uint32_t n = get32(v, 60), more = some_more(v);
    uint64_t start = get64(v, 64), ends[32], left;

    g_assert_cmpuint(n, <, G_N_ELEMENTS(ends));
    for (uint32_t i = 0; i <= n; i++) {
        ends[i] = snapshot_entry(v, i) - start;
    }
    left = more && dice(v, 2) ? ends[n] : cut_off(v, 64, ends[n]);
    if (left == ends[n]) {
        move(v, 64, left);
    }
    mem_image_put32(v->img, 60, n + more);
    for (uint32_t i = 0; i < n; i++) {
        v->lost->snapshots |= (ends[i + 1] > left) << i;
    }
}

static void cut_snapshot_l1(Victim *v)
{
    uint32_t n = get32(v, 60);
    uint64_t at = n ? snapshot_entry(v, dice(v, n)) : 0;

    if (at) {
        cut_off(v, at, get32(v, at + 8) * UINT64_C(8));
    }
}

/* ---- */

static void cut_reftable(Victim *v)
{
    cut_off(v, 48, get32(v, 56) * v->cluster_size);
}

static uint64_t bitmaps_extension(const Victim *v)
{
    uint64_t at = get32(v, 4) >= 3 ? get32(v, 100) : 72;

    while (at < v->cluster_size && get32(v, at) != EXT_END) {
        if (get32(v, at) == EXT_BITMAPS) {
            return at + 8;
        }
        at += 8 + QEMU_ALIGN_UP(get32(v, at + 4), 8);
    }
    return 0;
}

static void cut_bitmaps(Victim *v)
{
    uint64_t ext = bitmaps_extension(v), directory, at;

    if (!ext) {
        return;
    }
    directory = get64(v, ext + 16);
    if (dice(v, 2)) {
        cut_off(v, ext + 16, get64(v, ext + 8));
        return;
    }
    at = directory;
    cut_off(v, at, get32(v, at + 8) * UINT64_C(8));
}

/* ---- */

static void init(Victim *v)
{
    *v->lost = (Qcow2Lost){ 0 };
    v->cluster_size = UINT64_C(1) << get32(v, 20);
}

void qcow2_damage_snapshots_end(MemImage *img, GRand *rand, Qcow2Lost *lost)
{
    Victim v = { .img = img, .rand = rand, .lost = lost };

    init(&v);
    cut_snapshots(&v);
}

void qcow2_damage_ends(MemImage *img, GRand *rand, Qcow2Lost *lost)
{
    static void (*const kinds[])(Victim *v) = {
        cut_snapshot_l1, cut_bitmaps, cut_reftable, cut_snapshots,
    };
    Victim v = { .img = img, .rand = rand, .lost = lost };
    int n = G_N_ELEMENTS(kinds), i = dice(&v, n);
    /* One, or a few; the last of them is where the file ends. */
    int end = dice(&v, 2) ? i + 1 : n;

    init(&v);
    for (; i < end; i++) {
        kinds[i](&v);
    }
}
