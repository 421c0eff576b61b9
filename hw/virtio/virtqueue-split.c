/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The split ring (virtio 1.2, 2.7): a descriptor table, a ring of available
 * chains that the driver writes, a ring of used ones that we write.
 *
 * The avail index is read once a batch, with acquire: what the driver wrote
 * before it is then visible.  Used entries are written as elements are pushed,
 * and published together by storing the used index with release.
 */
#include "qemu/osdep.h"
#include "virtqueue-internal.h"

/* How many chains to fetch at a time: about as many as a core can await. */
#define VQ_PREFETCH_MAX 16

/* ---- Setting up ---- */

bool vq_split_setup(VirtQueue *vq, const VirtQueueConfig *config)
{
    if (config->base > UINT16_MAX) {
        return false;
    }
    vq->used_idx = ring_read16(&vq->used->idx);
    vq->last_avail = config->base;
    if (vq->inflight && !vq_inflight_split_recover(vq, vq->used_idx)) {
        return false;
    }
    vq->shadow_avail = vq->last_avail;
    return true;
}

uint32_t vq_split_base(const VirtQueue *vq)
{
    return vq->last_avail;
}

/* ---- Taking ---- */

static inline void vq_split_read_desc(const struct vring_desc *d,
                                      struct vring_desc *copy)
{
    copy->addr = ring_read64(&d->addr);
    copy->len = ring_read32(&d->len);
    copy->flags = ring_read16(&d->flags);
    copy->next = ring_read16(&d->next);
}

/* Follow a chain through @table of @n entries from the one in @d. */
static bool vq_split_walk(VirtQueue *vq, VirtQueueElement *elem,
                          const struct vring_desc *table, unsigned n,
                          struct vring_desc *d)
{
    for (unsigned left = n; ; left--) {
        if (unlikely(left == 0)) {
            virtqueue_set_broken(vq, "a chain of descriptors is a loop");
            return false;
        }
        if (unlikely(d->flags & VRING_DESC_F_INDIRECT)) {
            virtqueue_set_broken(vq, "an indirect descriptor inside a chain");
            return false;
        }
        if (!vq_elem_add(vq, elem, d->addr, d->len, d->flags)) {
            return false;
        }
        if (!(d->flags & VRING_DESC_F_NEXT)) {
            return true;
        }
        if (unlikely(d->next >= n)) {
            virtqueue_set_broken(vq, "descriptor %u of a table of %u", d->next,
                                 n);
            return false;
        }
        vq_split_read_desc(&table[d->next], d);
    }
}

static bool vq_split_parse(VirtQueue *vq, VirtQueueElement *elem,
                           uint16_t head)
{
    const struct vring_desc *table = vq->desc;
    unsigned n = vq->num;
    struct vring_desc d;

    vq_elem_reset(elem);
    elem->id = head;
    elem->ndescs = 1;
    vq_split_read_desc(&table[head], &d);
    if (d.flags & VRING_DESC_F_INDIRECT) {
        if (unlikely(d.flags & VRING_DESC_F_NEXT)) {
            virtqueue_set_broken(vq, "an indirect descriptor with a next one");
            return false;
        }
        table = vq_indirect_table(vq, d.addr, d.len, &n);
        if (!table) {
            return false;
        }
        vq_split_read_desc(&table[0], &d);
    }
    return vq_split_walk(vq, elem, table, n, &d);
}

/*
 * What the driver wrote last is in its processor's cache, and fetching it from
 * there takes longer than all that we do with it.  So ask for a batch's
 * descriptors at once, then for both ends of the tables that these point to:
 * the waits then overlap.  Nothing that is read here is believed: a prefetch of
 * a wrong address does nothing, and the pop checks all of it anew.
 */
static void vq_split_prefetch(VirtQueue *vq)
{
    unsigned n = MIN((uint16_t)(vq->shadow_avail - vq->last_avail),
                     VQ_PREFETCH_MAX);
    uint16_t mask = vq->num - 1;
    const struct vring_desc *d[VQ_PREFETCH_MAX];

    for (unsigned i = 0; i < n; i++) {
        d[i] = &vq->desc[ring_read16(
            &vq->avail->ring[(vq->last_avail + i) & mask]) & mask];
        __builtin_prefetch(d[i]);
    }
    for (unsigned i = 0; vq->indirect && i < n; i++) {
        uint32_t len = MAX(ring_read32(&d[i]->len), 1);
        const char *table = guest_memory_map(vq->mem, ring_read64(&d[i]->addr),
                                             len, &vq->hint);

        if (table) {
            __builtin_prefetch(table);
            __builtin_prefetch(table + len - 1);
        }
    }
}

/* Read the avail index; false if that breaks the queue. */
static bool vq_split_look(VirtQueue *vq)
{
    uint16_t avail = GUINT16_FROM_LE(qatomic_load_acquire(&vq->avail->idx));

    if (unlikely((uint16_t)(avail - vq->last_avail) > vq->num)) {
        virtqueue_set_broken(vq, "the avail index went from %u to %u",
                             vq->last_avail, avail);
        return false;
    }
    if (unlikely(guest_memory_is_broken(vq->mem))) {
        virtqueue_set_broken(vq, "its memory was truncated");
        return false;
    }
    vq->shadow_avail = avail;
    vq_split_prefetch(vq);
    return true;
}

static int vq_split_take(VirtQueue *vq, VirtQueueElement *elem, uint16_t head)
{
    if (unlikely(head >= vq->num)) {
        virtqueue_set_broken(vq, "descriptor %u of a queue of %u", head,
                             vq->num);
        return -EIO;
    }
    if (unlikely(vq_taken(vq) >= vq->num)) {
        virtqueue_set_broken(vq, "more chains than descriptors");
        return -EIO;
    }
    if (!vq_split_parse(vq, elem, head)) {
        return -EIO;
    }
    vq->in_use++;
    return 1;
}

int vq_split_pop(VirtQueue *vq, VirtQueueElement *elem)
{
    uint16_t mask = vq->num - 1;
    uint16_t head;
    int ret;

    if (vq->shadow_avail == vq->last_avail) {
        if (!vq_split_look(vq)) {
            return -EIO;
        }
        if (vq->shadow_avail == vq->last_avail) {
            return 0;
        }
    }
    head = ring_read16(&vq->avail->ring[vq->last_avail & mask]);
    ret = vq_split_take(vq, elem, head);
    if (ret < 0) {
        return ret;
    }
    if (vq->inflight) {
        vq_inflight_split_pop(vq->inflight, head);
    }
    vq->last_avail++;
    return 1;
}

int vq_split_resubmit(VirtQueue *vq, VirtQueueElement *elem, uint16_t head)
{
    return vq_split_take(vq, elem, head);
}

bool vq_split_has_work(VirtQueue *vq)
{
    return vq->shadow_avail != vq->last_avail ||
           ring_read16(&vq->avail->idx) != vq->last_avail;
}

/* ---- Giving back ---- */

void vq_split_push(VirtQueue *vq, const VirtQueueElement *elem, uint32_t len)
{
    uint16_t slot = (uint16_t)(vq->used_idx + vq->pushed) & (vq->num - 1);
    struct vring_used_elem *used = &vq->used->ring[slot];

    ring_write32(&used->id, elem->id);
    ring_write32(&used->len, len);
    vq->pushed++;
    vq->in_use--;
    if (vq->inflight) {
        vq_inflight_split_push(vq->inflight, elem->id);
        vq->batch[vq->n_batch++] = elem->id;
    }
    if (unlikely(vq->log)) {
        vq_log_used(vq, offsetof(struct vring_used, ring) +
                    slot * sizeof(*used), sizeof(*used));
    }
}

/* Whether the driver wants to know that the used index went on from @old. */
static bool vq_split_should_notify(VirtQueue *vq, uint16_t old)
{
    smp_mb();   /* the driver sees the index, or we its new wish */
    if (vq->event_idx) {
        uint16_t event = ring_read16(&vq->avail->ring[vq->num]);

        return vring_event_needed(event, vq->used_idx, old);
    }
    return !(ring_read16(&vq->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

bool vq_split_flush(VirtQueue *vq)
{
    uint16_t old = vq->used_idx;

    vq->used_idx += vq->pushed;
    vq->pushed = 0;
    qatomic_store_release(&vq->used->idx, GUINT16_TO_LE(vq->used_idx));
    if (vq->inflight) {
        vq_inflight_split_published(vq);
        vq->n_batch = 0;
    }
    if (unlikely(vq->log)) {
        vq_log_used(vq, offsetof(struct vring_used, idx), 2);
    }
    return vq_split_should_notify(vq, old);
}

/* ---- Notification ---- */

void vq_split_set_notification(VirtQueue *vq, bool enable)
{
    if (vq->event_idx) {
        /* An event index that is not moved on is as good as none. */
        if (enable) {
            ring_write16((__virtio16 *)&vq->used->ring[vq->num],
                         vq->last_avail);
        }
    } else {
        ring_write16(&vq->used->flags, enable ? 0 : VRING_USED_F_NO_NOTIFY);
    }
    if (unlikely(vq->log)) {
        vq_log_used(vq, 0, offsetof(struct vring_used, ring) +
                    vq->num * sizeof(struct vring_used_elem) + 2);
    }
}
