/*
 * qcow2: guest clusters whose mapping a request is about to change.
 *
 * Who allocates, zeroes or discards registers the guest clusters first, and
 * waits until nobody else has registered any of them.  From then on only the
 * holder changes their L2 entries, although it drops the lock for its I/O.  A
 * request has one range registered at a time and waits holding none (and no
 * pin): nobody waits in a circle.
 *
 * The list is short (as long as requests are under way), so it is searched from
 * one end to the other.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"

static bool REQUIRES(driver_class)
conflicts(BDRVQcow2State *s, const Qcow2Inflight *f)
{
    Qcow2Inflight *other;

    list_for_each(other, &s->inflight, node) {
        if (other->offset < f->offset + f->bytes &&
            f->offset < other->offset + other->bytes) {
            return true;
        }
    }
    return false;
}

void qcow2_inflight_begin(BDRVQcow2State *s, Qcow2Inflight *f, int64_t offset,
                          int64_t bytes)
{
    f->offset = offset;
    f->bytes = bytes;
    list_node_init(&f->node);
    if (conflicts(s, f)) {
        thread_pool_block_begin();
        do {
            driver_wait(&s->cond, &s->lock);
        } while (conflicts(s, f));
        thread_pool_block_end();
    }
    list_push_back(&s->inflight, &f->node);
}

void qcow2_inflight_shrink(BDRVQcow2State *s, Qcow2Inflight *f, int64_t bytes)
{
    if (bytes < f->bytes) {
        f->bytes = bytes;
        qemu_cond_broadcast(&s->cond);
    }
}

void qcow2_inflight_end(BDRVQcow2State *s, Qcow2Inflight *f)
{
    list_remove(&f->node);
    qemu_cond_broadcast(&s->cond);
}

int64_t qcow2_slice_part(const BDRVQcow2State *s, int64_t offset, int64_t bytes,
                         int64_t *start, int64_t *length)
{
    int64_t slice = INT64_C(1) << (s->l2_slice_bits + s->cluster_bits);
    int64_t n = MIN(bytes, slice - (offset & (slice - 1)));

    *start = QEMU_ALIGN_DOWN(offset, s->cluster_size);
    *length = QEMU_ALIGN_UP(offset + n, s->cluster_size) - *start;
    return n;
}
