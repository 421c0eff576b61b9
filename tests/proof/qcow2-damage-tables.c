/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The damage to tables of qcow2-damage.h.
 *
 * Source: "Header", "Cluster mapping", "Snapshots" of the specification.
 */
#include "qcow2-damage.h"
#include "qemu/bswap.h"

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define OFFSET UINT64_C(0x00fffffffffffe00)
#define ZERO 1
#define HEAD 40                     /* of a snapshot's entry */

typedef struct Victim {
    MemImage *img;
    const MemImage *sound;          /* as it was: to find tables */
    GRand *rand;
    Qcow2Lost *lost;
    unsigned cluster_bits, entry_bytes;
    uint64_t cluster_size, l1, reftable, snapshots;
    uint32_t l1_size, n_snapshots;
    int64_t n_clusters;
} Victim;

static uint64_t get64(const Victim *v, uint64_t offset)
{
    return mem_image_get64(v->sound, offset);
}

static uint32_t get32(const Victim *v, uint64_t offset)
{
    return mem_image_get32(v->sound, offset);
}

static int dice(Victim *v, int sides)
{
    return g_rand_int_range(v->rand, 0, sides);
}

/* @user: 0, the disk; number of the snapshot; or -1, all of them. */
static void lose(Victim *v, uint64_t offset, uint64_t bytes, int user)
{
    g_assert_cmpuint(v->lost->n, <, G_N_ELEMENTS(v->lost->ranges));
    v->lost->ranges[v->lost->n].offset = offset;
    v->lost->ranges[v->lost->n].user = user;
    v->lost->ranges[v->lost->n++].bytes = bytes;
}

/* ---- Entries ---- */

static uint64_t metadata(Victim *v)
{
    const uint64_t places[] = {
        v->l1, v->reftable, get64(v, v->reftable) & OFFSET,
        get64(v, v->l1 + dice(v, v->l1_size) * 8) & OFFSET,
        v->snapshots ? v->snapshots : v->l1,
    };

    return places[dice(v, G_N_ELEMENTS(places))];
}

/* Where something else is, or nothing. */
static uint64_t elsewhere(Victim *v)
{
    uint64_t somewhere = (uint64_t)dice(v, v->n_clusters) << v->cluster_bits;

    switch (dice(v, 7)) {
    case 0:
        return (v->n_clusters + 2 + dice(v, 100)) << v->cluster_bits;
    case 1:
        return UINT64_C(1) << (40 + dice(v, 15));
    case 2:
        return somewhere + v->cluster_size / 2;
    case 3: case 4:
        return metadata(v);
    default:
        return somewhere;
    }
}

static uint64_t any_entry(Victim *v)
{
    uint64_t entry = elsewhere(v);

    if (dice(v, 16) == 0) {
        return (uint64_t)g_rand_int(v->rand) << 32 | g_rand_int(v->rand);
    }
    entry |= dice(v, 2) ? COPIED : 0;
    entry |= dice(v, 8) ? 0 : COMPRESSED;
    entry |= dice(v, 6) ? 0 : ZERO;
    entry |= dice(v, 6) ? 0 : UINT64_C(1) << (56 + dice(v, 6));
    return entry;
}

static uint64_t snapshot_entry(const Victim *v, uint32_t i)
{
    uint64_t at = v->snapshots;

    for (; i > 0; i--) {
        uint32_t lengths = get32(v, at + 12);

        at += HEAD + get32(v, at + 36) + (lengths >> 16) + (uint16_t)lengths;
        at = (at + 7) & ~UINT64_C(7);
    }
    return at;
}

static int any_user(Victim *v)
{
    return v->n_snapshots && dice(v, 3) == 0 ? 1 + dice(v, v->n_snapshots) : 0;
}

static uint64_t l1_of(const Victim *v, int user)
{
    return user ? get64(v, snapshot_entry(v, user - 1)) : v->l1;
}

static void hurt_l1(Victim *v)
{
    uint64_t coverage = v->cluster_size / v->entry_bytes * v->cluster_size;
    int i = dice(v, v->l1_size), user = any_user(v);

    mem_image_put64(v->img, l1_of(v, user) + i * 8, any_entry(v));
    lose(v, i * coverage, coverage, user);
}

static void hurt_l2(Victim *v)
{
    uint64_t n = v->cluster_size / v->entry_bytes;
    int i = dice(v, v->l1_size), k = dice(v, MIN(n, 64));
    uint64_t l2 = get64(v, l1_of(v, any_user(v)) + i * 8) & OFFSET;

    if (!l2) {
        return;
    }
    mem_image_put64(v->img, l2 + k * v->entry_bytes, any_entry(v));
    if (v->entry_bytes > 8 && dice(v, 2)) {
        mem_image_put64(v->img, l2 + k * v->entry_bytes + 8,
                        (uint64_t)g_rand_int(v->rand) << 32 |
                        g_rand_int(v->rand));
    }
    lose(v, (i * n + k) * v->cluster_size, v->cluster_size, -1);
}

/* ---- Snapshots ---- */

static void hurt_snapshot(Victim *v)
{
    const uint32_t sizes[] = {
        0, v->l1_size + 1, v->l1_size + 9, UINT32_MAX, 1 << 23,
    };
    uint32_t i;
    uint64_t at;

    if (!v->n_snapshots) {
        return;
    }
    i = dice(v, v->n_snapshots);
    at = snapshot_entry(v, i);
    switch (dice(v, 4)) {
    case 0: case 1:
        mem_image_put64(v->img, at, elsewhere(v));
        break;
    case 2:
        mem_image_put32(v->img, at + 8, sizes[dice(v, G_N_ELEMENTS(sizes))]);
        break;
    default:
        /* Nobody knows where the next one begins. */
        mem_image_put32(v->img, at + (dice(v, 2) ? 12 : 36),
                        g_rand_int(v->rand));
        v->lost->snapshots = ~0u;
    }
    v->lost->snapshots |= 1u << i;
}

static void hurt_snapshot_table(Victim *v)
{
    if (!v->n_snapshots) {
        return;
    }
    if (dice(v, 2)) {
        mem_image_put64(v->img, 64, elsewhere(v));
    } else {
        mem_image_put32(v->img, 60, v->n_snapshots + 1 + dice(v, 20));
    }
    v->lost->snapshots = ~0u;
}

/* ---- */

void qcow2_damage_tables(MemImage *img, GRand *rand, Qcow2Lost *lost)
{
    g_autoptr(MemImage) sound = mem_image_clone(img);
    Victim v = { .img = img, .sound = sound, .rand = rand, .lost = lost };

    *lost = (Qcow2Lost){ 0 };
    v.cluster_bits = get32(&v, 20);
    v.cluster_size = UINT64_C(1) << v.cluster_bits;
    v.entry_bytes = get32(&v, 4) >= 3 && get64(&v, 72) & 16 ? 16 : 8;
    v.l1 = get64(&v, 40);
    v.l1_size = get32(&v, 36);
    v.reftable = get64(&v, 48);
    v.snapshots = get64(&v, 64);
    v.n_snapshots = get32(&v, 60);
    v.n_clusters = mem_image_size(img) >> v.cluster_bits;
    for (int n = 1 + dice(&v, 3); n > 0; n--) {
        switch (dice(&v, 8)) {
        case 0:
            hurt_snapshot(&v);
            break;
        case 1:
            (dice(&v, 4) ? hurt_snapshot : hurt_snapshot_table)(&v);
            break;
        case 2: case 3: case 4:
            hurt_l1(&v);
            break;
        default:
            hurt_l2(&v);
        }
    }
}
