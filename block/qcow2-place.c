/*
 * qcow2: clusters for data that is about to come.
 *
 * Who copies an image wants clusters in the order of the guest, and data that
 * several threads write in any order.  So he asks, in order, for the place of
 * each piece, and writes it when he likes: the write finds the clusters that
 * were set aside for it, if it needs just these.
 *
 * That is all in memory: clusters that are set aside are allocated (and would
 * be leaked by a crash), but no table refers to them.  It is advice, and
 * nothing relies on it: whatever flushes the image frees what nobody came for,
 * so there is none while refcounts are looked at as a whole, and none is left
 * at the end.  Who comes too late allocates as always.
 *
 * The list is short, as threads that copy are few.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"

typedef struct Place {
    ListNode node;                  /* s->places */
    int64_t start, length;          /* guest */
    int64_t host;
    bool fresh;                     /* as of qcow2_alloc_data() */
} Place;

/* ---- Taking what was set aside ---- */

static void remove_place(Place *p)
{
    list_remove(&p->node);
    g_free(p);
}

bool qcow2_place_take(BDRVQcow2State *s, int64_t start, int64_t length,
                      int64_t *host, bool *fresh)
{
    Place *p;

    list_for_each(p, &s->places, node) {
        if (p->start == start && p->length == length) {
            *host = p->host;
            *fresh = p->fresh;
            remove_place(p);
            return true;
        }
    }
    return false;
}

void qcow2_places_drop(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Place *p, *next;

    list_for_each_safe(p, next, &s->places, node) {
        qcow2_free_later(bs, p->host, p->length, QCOW2_DISCARD_OTHER);
        remove_place(p);
    }
}

/* ---- Setting aside ---- */

static bool is_possible(const BDRVQcow2State *s, int64_t offset,
                        int64_t bytes)
{
    int64_t end = offset + bytes;

    return s->writable && !s->has_data_file &&
           !(offset & (s->cluster_size - 1)) &&
           (!(end & (s->cluster_size - 1)) || end == s->disk_size);
}

/* Would a write there allocate all the clusters?  Not where there is something,
 * and not twice. */
static bool REQUIRES(driver_class)
is_vacant(const BDRVQcow2State *s, Qcow2Table *t, unsigned index,
          int64_t start, int64_t length)
{
    const Place *p;

    for (uint64_t i = 0; i < (uint64_t)length >> s->cluster_bits; i++) {
        Qcow2Entry e = qcow2_entry_get(s, t, index + i);

        if (e.l2 & (QCOW2_OFLAG_COMPRESSED | QCOW2_L2_OFFSET_MASK)) {
            return false;
        }
    }
    list_for_each(p, &s->places, node) {
        if (p->start < start + length && start < p->start + p->length) {
            return false;
        }
    }
    return true;
}

/* Of one L2 slice; in flight. */
static int REQUIRES(driver_class)
place_part(BlockDriverState *bs, int64_t start, int64_t length)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    unsigned index;
    bool fresh;
    int64_t host;
    Place *p;
    /* A new L2 table comes before the data as well. */
    int ret = qcow2_l2_get_for_write(bs, start, &t, &index);

    if (ret < 0) {
        return ret;
    }
    if (!is_vacant(s, t, index, start, length)) {
        return -ENOTSUP;
    }
    host = qcow2_alloc_data(bs, length, &fresh);
    if (host < 0) {
        return host;
    }
    p = g_new(Place, 1);
    *p = (Place){
        .start = start, .length = length, .host = host, .fresh = fresh,
    };
    list_push_back(&s->places, &p->node);
    return 0;
}

int qcow2_place(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = is_possible(s, offset, bytes) ? 0 : -ENOTSUP;

    while (ret == 0 && bytes > 0) {
        Qcow2Inflight inflight;
        int64_t start, length;
        int64_t n = qcow2_slice_part(s, offset, bytes, &start, &length);

        driver_lock(&s->lock);
        qcow2_frees_relieve(bs);
        qcow2_inflight_begin(s, &inflight, start, length);
        ret = qatomic_read(&s->corrupt) ? -EIO : place_part(bs, start, length);
        qcow2_inflight_end(s, &inflight);
        driver_unlock(&s->lock);
        offset += n;
        bytes -= n;
    }
    return ret;
}
