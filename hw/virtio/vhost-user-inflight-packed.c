/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inflight tracking of packed rings.
 *
 * The layout is a pool of descriptor copies with a free list.  The list is also
 * kept in private memory (next[], last[]), which is what is followed while the
 * queue runs.  Entries that were pushed are on the free list at once, but may
 * be needed until the batch is published: nothing may be popped between
 * (virtqueue_pop() sees to that).
 */
#include "qemu/osdep.h"
#include "vhost-user-inflight-internal.h"

uint16_t vq_inflight_packed_pop(VirtQueueInflight *q,
                                const struct vring_packed_desc *d,
                                bool first, bool last)
{
    QueueRegionPacked *r = q->packed;
    uint16_t slot = q->free_head;
    DescStatePacked *e = &r->desc[slot];

    if (first) {
        q->chain_head = slot;
        q->chain_len = 0;
        qatomic_set(&e->num, (uint16_t)0);
        qatomic_set(&e->counter, q->counter++);
        qatomic_store_release(&e->inflight, (uint8_t)1);
    }
    e->addr = d->addr;
    e->len = d->len;
    e->flags = d->flags;
    e->id = d->id;
    qatomic_set(&r->desc[q->chain_head].num, ++q->chain_len);
    q->free_head = q->next[slot];
    qatomic_store_release(&r->free_head, q->free_head);
    if (last) {
        q->last[q->chain_head] = slot;
        qatomic_set(&r->desc[q->chain_head].last, slot);
        qatomic_store_release(&r->old_free_head, q->free_head);
    }
    return q->chain_head;
}

void vq_inflight_packed_push(VirtQueueInflight *q, uint16_t slot)
{
    QueueRegionPacked *r = q->packed;
    uint16_t last = q->last[slot];

    q->next[last] = q->free_head;
    qatomic_store_release(&r->desc[last].next, q->free_head);
    q->free_head = slot;
    qatomic_store_release(&r->free_head, slot);
}

void vq_inflight_packed_publish(VirtQueue *vq)
{
    QueueRegionPacked *r = vq->inflight->packed;

    qatomic_set(&r->used_wrap_counter, (uint8_t)vq->used_wrap);
    qatomic_store_release(&r->used_idx, vq->used_idx);
}

void vq_inflight_packed_published(VirtQueue *vq)
{
    VirtQueueInflight *q = vq->inflight;
    QueueRegionPacked *r = q->packed;

    for (unsigned i = 0; i < vq->n_batch; i++) {
        qatomic_store_release(&r->desc[vq->batch[i]].inflight, (uint8_t)0);
    }
    qatomic_store_release(&r->old_free_head, q->free_head);
    qatomic_set(&r->old_used_wrap_counter, (uint8_t)vq->used_wrap);
    qatomic_store_release(&r->old_used_idx, vq->used_idx);
}

static void inflight_packed_init(VirtQueue *vq)
{
    VirtQueueInflight *q = vq->inflight;
    QueueRegionPacked *r = q->packed;

    memset(r, 0, sizeof(*r) + q->num * sizeof(r->desc[0]));
    for (uint16_t i = 0; i < q->num; i++) {
        q->next[i] = i + 1;     /* the queue's size ends the list */
        r->desc[i].next = q->next[i];
    }
    q->free_head = 0;
    r->used_idx = r->old_used_idx = vq->used_idx;
    r->used_wrap_counter = r->old_used_wrap_counter = vq->used_wrap;
    r->desc_num = q->num;
    qatomic_store_release(&r->version, (uint16_t)INFLIGHT_VERSION);
}

/* Was the first descriptor of the last batch marked used? */
static bool inflight_packed_was_published(VirtQueue *vq, uint16_t index,
                                          bool wrap)
{
    const uint16_t both = 1 << VRING_PACKED_DESC_F_AVAIL |
                          1 << VRING_PACKED_DESC_F_USED;
    uint16_t flags = GUINT16_FROM_LE(qatomic_read(&vq->pdesc[index].flags));
    uint16_t avail = wrap ? 1 << VRING_PACKED_DESC_F_AVAIL :
                            1 << VRING_PACKED_DESC_F_USED;

    return (flags & both) != avail;
}

/* Decide on the last batch: it is done, or it never was. */
static bool inflight_packed_finish_batch(VirtQueue *vq)
{
    QueueRegionPacked *r = vq->inflight->packed;
    uint16_t old_used = qatomic_read(&r->old_used_idx);
    uint16_t used = qatomic_read(&r->used_idx);
    bool old_wrap = qatomic_read(&r->old_used_wrap_counter);
    bool wrap = qatomic_read(&r->used_wrap_counter);

    if (old_used >= vq->num || used >= vq->num) {
        return false;
    }
    /* A batch of the whole ring ends where it began, a lap later. */
    if ((used != old_used || wrap != old_wrap) &&
        inflight_packed_was_published(vq, old_used, old_wrap)) {
        r->old_free_head = r->free_head;
        r->old_used_wrap_counter = r->used_wrap_counter;
        r->old_used_idx = used;
    } else {
        r->free_head = r->old_free_head;
        r->used_wrap_counter = r->old_used_wrap_counter;
        r->used_idx = old_used;
    }
    vq->used_idx = qatomic_read(&r->used_idx);
    vq->used_wrap = qatomic_read(&r->used_wrap_counter);
    return vq->used_idx < vq->num;
}

/* Mark @n entries from @slot on as seen, none for the second time; the last
 * of them, or -1. */
static int inflight_packed_walk(VirtQueueInflight *q, uint16_t slot,
                                unsigned n, bool *seen)
{
    int last = -1;

    while (n--) {
        if (slot >= q->num || seen[slot]) {
            return -1;
        }
        seen[slot] = true;
        last = slot;
        slot = q->next[slot];
    }
    return last;
}

/*
 * Copy the lists.  An entry whose inflight flag is set, but which is free,
 * was given back in the last batch.  Returns the length of the free list.
 */
static unsigned inflight_packed_copy(VirtQueueInflight *q, bool *seen)
{
    QueueRegionPacked *r = q->packed;
    unsigned n_free = 0;
    uint16_t i;

    for (i = 0; i < q->num; i++) {
        q->next[i] = qatomic_read(&r->desc[i].next);
        q->last[i] = qatomic_read(&r->desc[i].last);
    }
    q->free_head = qatomic_read(&r->free_head);
    for (i = q->free_head; inflight_packed_walk(q, i, 1, seen) >= 0;
         i = q->next[i]) {
        qatomic_set(&r->desc[i].inflight, (uint8_t)0);
        n_free++;
    }
    return n_free;
}

/* Find the chains in flight; false unless they are all that is not free. */
static bool inflight_packed_collect(VirtQueue *vq, unsigned *slots)
{
    VirtQueueInflight *q = vq->inflight;
    QueueRegionPacked *r = q->packed;
    g_autofree bool *seen = g_new0(bool, q->num);
    unsigned n_free = inflight_packed_copy(q, seen);

    *slots = 0;
    for (uint16_t i = 0; i < q->num; i++) {
        uint16_t num = qatomic_read(&r->desc[i].num);

        if (!qatomic_read(&r->desc[i].inflight)) {
            continue;
        }
        if (num == 0 ||
            inflight_packed_walk(q, i, num, seen) != q->last[i]) {
            return false;
        }
        *slots += num;
        vq->resubmit[vq->n_resubmit++] = (VirtQueueResubmit) {
            .counter = qatomic_read(&r->desc[i].counter), .index = i,
        };
    }
    return n_free + *slots == q->num;
}

/*
 * Descriptors of a batch that was rolled back may already be marked used,
 * behind the first.  The driver must not take them for used when it gets
 * there: they belong to chains that are yet to be done.
 */
static void inflight_packed_unuse(VirtQueue *vq, unsigned n)
{
    uint16_t index = vq->used_idx;
    bool wrap = vq->used_wrap;

    while (n--) {
        uint16_t flags = wrap ? 1 << VRING_PACKED_DESC_F_AVAIL :
                                1 << VRING_PACKED_DESC_F_USED;

        qatomic_set(&vq->pdesc[index].flags, GUINT16_TO_LE(flags));
        if (++index == vq->num) {
            index = 0;
            wrap = !wrap;
        }
    }
    vq->last_avail = index;
    vq->avail_wrap = wrap;
}

bool vq_inflight_packed_recover(VirtQueue *vq)
{
    VirtQueueInflight *q = vq->inflight;
    QueueRegionPacked *r = q->packed;
    unsigned slots;

    if (qatomic_read(&r->version) != INFLIGHT_VERSION ||
        qatomic_read(&r->desc_num) != q->num) {
        inflight_packed_init(vq);
        return true;
    }
    if (!inflight_packed_finish_batch(vq) ||
        !inflight_packed_collect(vq, &slots)) {
        return false;
    }
    vq_inflight_sort(vq);
    inflight_packed_unuse(vq, slots);
    return true;
}

bool vq_inflight_packed_desc(VirtQueueInflight *q, uint16_t slot, unsigned n,
                             struct vring_packed_desc *d)
{
    const uint16_t last = q->last[slot];
    const DescStatePacked *e;

    /* Checked when it was recovered, and not to be read again from memory. */
    while (n--) {
        if (slot == last) {
            return false;
        }
        slot = q->next[slot];
    }
    e = &q->packed->desc[slot];
    d->addr = qatomic_read(&e->addr);
    d->len = qatomic_read(&e->len);
    d->flags = qatomic_read(&e->flags);
    d->id = qatomic_read(&e->id);
    return true;
}
