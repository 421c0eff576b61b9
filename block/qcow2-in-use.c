/*
 * qcow2: what the tables in force say that a cluster is.
 *
 * The set of metadata (qcow2-overlap.c) may say too much: what it says of
 * tables that are no longer used is not always taken back at once.  That does
 * no harm where it keeps writes out.  But a free must tell: a cluster of a
 * table in force is freed only because an image lies, and then must not be
 * punched, while a table of the past is to be freed.  So where the set has
 * something, the tables themselves are looked at.
 *
 * L2 tables of snapshots are not looked at, as that would take I/O.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-snapshot.h"
#include "qemu/atomic.h"
#include "qemu/error.h"

/* ---- Frees ---- */

typedef struct Range {
    uint64_t offset, bytes;
} Range;

/* Do they share a cluster? */
static bool touches(const BDRVQcow2State *s, const Range *freed,
                    uint64_t offset, uint64_t bytes)
{
    return bytes && offset <= INT64_MAX && bytes <= INT64_MAX - offset &&
           QEMU_ALIGN_DOWN(offset, s->cluster_size) <
           freed->offset + freed->bytes &&
           offset + bytes > freed->offset;
}

static bool has_entry(const Range *freed, const uint64_t *table, uint32_t n,
                      uint64_t mask)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t offset = table[i] & mask;

        if (offset && offset - freed->offset < freed->bytes) {
            return true;
        }
    }
    return false;
}

static bool has_snapshot_l1(const BDRVQcow2State *s, const Range *freed)
{
    for (uint32_t i = 0; i < s->nb_snapshots && s->snapshots; i++) {
        if (touches(s, freed, s->snapshots[i].l1_table_offset,
                    s->snapshots[i].l1_size * sizeof(uint64_t))) {
            return true;
        }
    }
    return false;
}

static bool REQUIRES(driver_class)
is_in_use(const BDRVQcow2State *s, Qcow2MetadataKind kind, const Range *freed)
{
    switch (kind) {
    case QCOW2_OL_MAIN_HEADER:
        return true;                /* never of the past */
    case QCOW2_OL_ACTIVE_L1:
        return touches(s, freed, s->l1->offset,
                       s->l1->size * sizeof(uint64_t));
    case QCOW2_OL_ACTIVE_L2:
        return has_entry(freed, s->l1->entries, s->l1->size,
                         QCOW2_L1_OFFSET_MASK);
    case QCOW2_OL_REFCOUNT_BLOCK:
        return has_entry(freed, s->reftable, s->reftable_size,
                         QCOW2_REFTABLE_OFFSET_MASK);
    case QCOW2_OL_REFCOUNT_TABLE:
        return touches(s, freed, s->reftable_offset,
                       s->reftable_size * sizeof(uint64_t));
    case QCOW2_OL_SNAPSHOT_TABLE:
        return touches(s, freed, s->snapshots_offset, s->snapshots_size);
    case QCOW2_OL_INACTIVE_L1:
        return has_snapshot_l1(s, freed);
    case QCOW2_OL_BITMAP_DIRECTORY:
        return touches(s, freed, s->bitmap_directory_offset,
                       s->bitmap_directory_size);
    default:
        return false;
    }
}

int qcow2_kinds_in_use(BDRVQcow2State *s, int64_t offset, int64_t bytes)
{
    int kinds = qcow2_metadata_overlap(s, QCOW2_OL_ALL, offset, bytes);
    const Range freed = { offset, bytes };
    int found = 0;

    for (int kind = 1; kind <= kinds; kind <<= 1) {
        if ((kinds & kind) && is_in_use(s, kind, &freed)) {
            found |= kind;
        }
    }
    return found;
}

/* ---- L2 tables with more than one user ---- */

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a & QCOW2_L1_OFFSET_MASK;
    uint64_t y = *(const uint64_t *)b & QCOW2_L1_OFFSET_MASK;

    return x < y ? -1 : x > y;
}

/* @n L1 entries, sorted, which refer to one table.  Does one of them, or the
 * refcount, say that there are fewer? */
static bool REQUIRES(driver_class)
is_lie(BlockDriverState *bs, const uint64_t *entries, uint32_t n)
{
    const BDRVQcow2State *s = bs->opaque;
    uint64_t offset = entries[0] & QCOW2_L1_OFFSET_MASK;
    uint64_t refcount = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (entries[i] & QCOW2_OFLAG_COPIED) {
            return true;
        }
    }
    /* What cannot be read cannot be relied on either. */
    return qcow2_get_refcount(bs, offset >> s->cluster_bits, &refcount) < 0 ||
           refcount < n;
}

static void REQUIRES(driver_class)
find_lies(BlockDriverState *bs, const uint64_t *entries, uint32_t size)
{
    uint32_t n;

    for (uint32_t i = 0; i < size; i += n) {
        uint64_t offset = entries[i] & QCOW2_L1_OFFSET_MASK;

        n = 1;
        while (i + n < size &&
               (entries[i + n] & QCOW2_L1_OFFSET_MASK) == offset) {
            n++;
        }
        if (offset && n > 1 && is_lie(bs, entries + i, n)) {
            qcow2_signal_corruption_locked(bs, true, -1, -1,
                "L2 table at offset %#" PRIx64 " is used %u times", offset, n);
            return;
        }
    }
}

bool qcow2_check_shared_l2(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint32_t size = s->l1->size;
    g_autofree uint64_t *entries = NULL;
    bool shared;

    driver_lock(&s->lock);
    shared = s->l2_shared;
    driver_unlock(&s->lock);
    if (!shared) {
        return true;
    }
    entries = g_try_new(uint64_t, size);
    if (!entries) {
        error_setg_errno(errp, ENOMEM, "Could not look at the L1 table");
        return false;
    }
    for (uint32_t i = 0; i < size; i++) {
        entries[i] = qatomic_read(&s->l1->entries[i]);
    }
    qsort(entries, size, sizeof(*entries), compare_offsets);
    driver_lock(&s->lock);
    find_lies(bs, entries, size);
    driver_unlock(&s->lock);
    return true;
}
