/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The damage of qcow2-damage.h.
 *
 * Source: "Header", "Host cluster management", "Cluster mapping" of the
 * specification.
 */
#include "qcow2-damage.h"
#include "qemu/bswap.h"

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define OFFSET UINT64_C(0x00fffffffffffe00)

typedef struct Victim {
    MemImage *img;
    GRand *rand;
    unsigned version, cluster_bits, refcount_order, entry_bytes;
    uint64_t cluster_size, l1, reftable;
    uint32_t l1_size;
    int64_t n_clusters;
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

/* ---- Refcounts ---- */

static void put_refcount(Victim *v, int64_t cluster, unsigned value)
{
    unsigned bits = 1u << v->refcount_order;
    uint64_t per = v->cluster_size * 8 / bits;
    uint64_t block = get64(v, v->reftable + cluster / per * 8);
    uint64_t at = block + cluster % per * bits / 8;
    uint8_t bytes[8] = { 0 };

    if (!block) {
        return;
    }
    if (bits < 8) {
        unsigned shift = cluster % per * bits % 8, mask = (1u << bits) - 1;

        mem_image_read(v->img, at, bytes, 1);
        bytes[0] = (bytes[0] & ~(mask << shift)) | (value & mask) << shift;
        mem_image_write(v->img, at, bytes, 1);
    } else {
        bytes[bits / 8 - 1] = value;
        mem_image_write(v->img, at, bytes, bits / 8);
    }
}

static void hurt_refcounts(Victim *v)
{
    for (int n = 1 + dice(v, 20); n > 0; n--) {
        put_refcount(v, dice(v, v->n_clusters), dice(v, 5));
    }
}

static void hurt_zero(Victim *v)
{
    int64_t first = dice(v, v->n_clusters);
    int64_t end = first + 1 + dice(v, 40);

    for (int64_t c = first; c < MIN(end, v->n_clusters); c++) {
        put_refcount(v, c, 0);
    }
}

/* Mostly leaks, and new ones: the file has grown. */
static void hurt_leak(Victim *v)
{
    int64_t first = v->n_clusters - dice(v, 3);
    int n = 4 + dice(v, 10);

    mem_image_truncate(v->img, (first + n) << v->cluster_bits);
    for (v->n_clusters = first + n; n > 0; n--) {
        put_refcount(v, first + n - 1, 1 + dice(v, 3));
    }
}

static void hurt_reftable(Victim *v)
{
    uint64_t first = get64(v, v->reftable);
    const uint64_t values[] = {
        0, first | 1, first + 512, UINT64_C(1) << 40, first + v->cluster_size,
        UINT64_C(1) << 62,
    };

    if (dice(v, 6) == 0) {
        mem_image_put64(v->img, v->reftable + 8, first);       /* twice */
    } else {
        mem_image_put64(v->img, v->reftable,
                        values[dice(v, ARRAY_SIZE(values))]);
    }
}

/* ---- Flags ---- */

static void hurt_l2_copied(Victim *v)
{
    uint64_t l2 = get64(v, v->l1 + dice(v, v->l1_size) * 8) & OFFSET;

    for (int n = 1 + dice(v, 60); l2 && n > 0; n--) {
        uint64_t at = l2 + dice(v, v->cluster_size / v->entry_bytes) *
                      v->entry_bytes;
        uint64_t entry = get64(v, at);

        if (entry & OFFSET && !(entry & COMPRESSED)) {
            mem_image_put64(v->img, at, entry ^ COPIED);
        }
    }
}

static void hurt_l1_copied(Victim *v)
{
    uint64_t at = v->l1 + dice(v, v->l1_size) * 8;
    uint64_t entry = get64(v, at);

    if (entry & OFFSET) {
        mem_image_put64(v->img, at, entry ^ COPIED);
    }
}

static void hurt_features(Victim *v)
{
    if (v->version >= 3) {
        mem_image_put64(v->img, 72, get64(v, 72) | (1 + dice(v, 3)));
    }
}

/* ---- */

void qcow2_damage(MemImage *img, GRand *rand)
{
    static void (*const kinds[])(Victim *v) = {
        hurt_leak, hurt_refcounts, hurt_zero, hurt_l2_copied, hurt_l1_copied,
        hurt_features, hurt_reftable,
    };
    Victim v = { .img = img, .rand = rand };
    bool any = false;

    v.version = get32(&v, 4);
    v.cluster_bits = get32(&v, 20);
    v.cluster_size = UINT64_C(1) << v.cluster_bits;
    v.refcount_order = v.version >= 3 ? get32(&v, 96) : 4;
    v.entry_bytes = v.version >= 3 && get64(&v, 72) & 16 ? 16 : 8;
    v.l1 = get64(&v, 40);
    v.l1_size = get32(&v, 36);
    v.reftable = get64(&v, 48);
    v.n_clusters = mem_image_size(img) >> v.cluster_bits;
    /* The table last: the others look for their blocks in it. */
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (dice(&v, 3) == 0 || (!any && i == ARRAY_SIZE(kinds) - 1)) {
            kinds[i](&v);
            any = true;
        }
    }
}
