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

/* A thread that waits for a range that is registered. */
typedef struct Waiter {
    ListNode node;                  /* Qcow2Inflight.waiters */
    QemuCond cond;
    bool woken;
} Waiter;

static Qcow2Inflight *REQUIRES(driver_class)
find_conflict(BDRVQcow2State *s, int64_t offset, int64_t bytes)
{
    Qcow2Inflight *f;

    list_for_each(f, &s->inflight, node) {
        if (f->offset < offset + bytes && offset < f->offset + f->bytes) {
            return f;
        }
    }
    return NULL;
}

/* @f may be gone when this returns. */
static void REQUIRES(driver_class)
wait_for(BDRVQcow2State *s, Qcow2Inflight *f)
{
    Waiter w = { .woken = false };

    qemu_cond_init(&w.cond);
    list_push_back(&f->waiters, &w.node);
    thread_pool_block_begin();
    while (!w.woken) {
        driver_wait(&w.cond, &s->lock);
    }
    thread_pool_block_end();
    qemu_cond_destroy(&w.cond);
}

/* Each on its own: most threads that wait do so for other clusters. */
static void REQUIRES(driver_class) wake_waiters(Qcow2Inflight *f)
{
    Waiter *w, *next;

    list_for_each_safe(w, next, &f->waiters, node) {
        list_remove(&w->node);
        w->woken = true;
        qemu_cond_signal(&w->cond);
    }
}

bool qcow2_inflight_wait(BDRVQcow2State *s, int64_t offset, int64_t bytes)
{
    Qcow2Inflight *f = find_conflict(s, offset, bytes);

    if (f) {
        wait_for(s, f);
    }
    return f;
}

void qcow2_inflight_begin(BDRVQcow2State *s, Qcow2Inflight *f, int64_t offset,
                          int64_t bytes)
{
    while (qcow2_inflight_wait(s, offset, bytes)) {
        /* There may be another one. */
    }
    f->offset = offset;
    f->bytes = bytes;
    list_node_init(&f->node);
    list_init(&f->waiters);
    list_push_back(&s->inflight, &f->node);
}

void qcow2_inflight_shrink(BDRVQcow2State *s, Qcow2Inflight *f, int64_t bytes)
{
    if (bytes < f->bytes) {
        f->bytes = bytes;
        wake_waiters(f);
    }
}

void qcow2_inflight_end(BDRVQcow2State *s, Qcow2Inflight *f)
{
    list_remove(&f->node);
    wake_waiters(f);
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
