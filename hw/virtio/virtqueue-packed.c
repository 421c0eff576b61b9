/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The packed ring (virtio 1.2, 2.8): one ring of descriptors that the driver
 * makes available and we overwrite when they are used.
 *
 * Two wrap counters say which lap each side is in; a descriptor is available
 * in our lap when its AVAIL flag equals our counter and its USED flag does not,
 * and used when both equal it.
 *
 * A batch of used descriptors is published as a whole by writing the flags of
 * the first one last, since the driver looks at them in order.
 */
#include "qemu/osdep.h"
#include "virtqueue-internal.h"

#define F_AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)
#define F_USED  (1 << VRING_PACKED_DESC_F_USED)
#define WRAP    (1 << VRING_PACKED_EVENT_F_WRAP_CTR)

/* ---- Setting up ---- */

/* The base holds the next avail index and its wrap counter in the lower half,
 * the next used ones in the upper half. */
bool vq_packed_setup(VirtQueue *vq, const VirtQueueConfig *config)
{
    vq->last_avail = config->base & (WRAP - 1);
    vq->avail_wrap = config->base & WRAP;
    vq->used_idx = config->base >> 16 & (WRAP - 1);
    vq->used_wrap = config->base >> 16 & WRAP;
    if (vq->last_avail >= vq->num || vq->used_idx >= vq->num) {
        return false;
    }
    return !vq->inflight || vq_inflight_packed_recover(vq);
}

uint32_t vq_packed_base(const VirtQueue *vq)
{
    uint32_t avail = vq->last_avail | (vq->avail_wrap ? WRAP : 0);
    uint32_t used = vq->used_idx | (vq->used_wrap ? WRAP : 0);

    return avail | used << 16;
}

static inline void vq_packed_advance(VirtQueue *vq, uint16_t *index,
                                     bool *wrap, unsigned n)
{
    unsigned next = *index + n;   /* n is not more than the queue's size */

    if (next >= vq->num) {
        next -= vq->num;
        *wrap = !*wrap;
    }
    *index = next;
}

/* ---- Taking ---- */

static inline bool vq_packed_is_avail(uint16_t flags, bool wrap)
{
    return !!(flags & F_AVAIL) == wrap && !!(flags & F_USED) != wrap;
}

static inline void vq_packed_read_desc(const struct vring_packed_desc *d,
                                       struct vring_packed_desc *copy)
{
    copy->addr = ring_read64(&d->addr);
    copy->len = ring_read32(&d->len);
    copy->id = ring_read16(&d->id);
    copy->flags = ring_read16(&d->flags);
}

static bool vq_packed_add_indirect(VirtQueue *vq, VirtQueueElement *elem,
                                   const struct vring_packed_desc *head)
{
    const struct vring_packed_desc *table;
    unsigned n;

    table = vq_indirect_table(vq, head->addr, head->len, &n);
    if (!table) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        struct vring_packed_desc d;

        vq_packed_read_desc(&table[i], &d);
        if (d.flags & VRING_DESC_F_INDIRECT) {
            virtqueue_set_broken(vq, "an indirect table inside another");
            return false;
        }
        if (!vq_elem_add(vq, elem, d.addr, d.len, d.flags)) {
            return false;
        }
    }
    return true;
}

/* Add descriptor @d, number @n of its chain. */
static bool vq_packed_add(VirtQueue *vq, VirtQueueElement *elem,
                          const struct vring_packed_desc *d, unsigned n)
{
    if (d->flags & VRING_DESC_F_INDIRECT) {
        if (n || d->flags & VRING_DESC_F_NEXT) {
            virtqueue_set_broken(vq, "an indirect descriptor inside a chain");
            return false;
        }
        return vq_packed_add_indirect(vq, elem, d);
    }
    return vq_elem_add(vq, elem, d->addr, d->len, d->flags);
}

/* The whole chain that begins with @d, at the current position. */
static bool vq_packed_walk(VirtQueue *vq, VirtQueueElement *elem,
                           struct vring_packed_desc *d)
{
    uint16_t index = vq->last_avail;

    for (unsigned n = 0; ; ) {
        bool more = d->flags & VRING_DESC_F_NEXT;

        if (!vq_packed_add(vq, elem, d, n)) {
            return false;
        }
        if (vq->inflight) {
            elem->track = vq_inflight_packed_pop(vq->inflight, d, n == 0,
                                                 !more);
        }
        n++;
        if (!more) {
            elem->id = d->id;   /* of the last one: 2.8.6 */
            elem->ndescs = n;
            return true;
        }
        if (n + vq_taken(vq) >= vq->num) {
            virtqueue_set_broken(vq, "a chain longer than the queue");
            return false;
        }
        index = index + 1 == vq->num ? 0 : index + 1;
        vq_packed_read_desc(&vq->pdesc[index], d);
    }
}

int vq_packed_pop(VirtQueue *vq, VirtQueueElement *elem)
{
    const struct vring_packed_desc *next = &vq->pdesc[vq->last_avail];
    struct vring_packed_desc d;

    if (vq_taken(vq) >= vq->num) {
        return 0;   /* what is there is our own, of the lap before */
    }
    d.flags = GUINT16_FROM_LE(qatomic_load_acquire(&next->flags));
    if (!vq_packed_is_avail(d.flags, vq->avail_wrap)) {
        return 0;
    }
    if (unlikely(guest_memory_is_broken(vq->mem))) {
        virtqueue_set_broken(vq, "its memory was truncated");
        return -EIO;
    }
    d.addr = ring_read64(&next->addr);
    d.len = ring_read32(&next->len);
    d.id = ring_read16(&next->id);
    vq_elem_reset(elem);
    if (!vq_packed_walk(vq, elem, &d)) {
        return -EIO;
    }
    vq_packed_advance(vq, &vq->last_avail, &vq->avail_wrap, elem->ndescs);
    vq->in_use += elem->ndescs;
    return 1;
}

int vq_packed_resubmit(VirtQueue *vq, VirtQueueElement *elem, uint16_t slot)
{
    struct vring_packed_desc d = { 0 };
    unsigned n = 0;

    vq_elem_reset(elem);
    while (vq_inflight_packed_desc(vq->inflight, slot, n, &d)) {
        if (!vq_packed_add(vq, elem, &d, n)) {
            return -EIO;
        }
        n++;
    }
    if (n == 0 || n + vq_taken(vq) > vq->num) {
        virtqueue_set_broken(vq, "its inflight buffer was changed");
        return -EIO;
    }
    elem->id = d.id;
    elem->ndescs = n;
    elem->track = slot;
    vq->in_use += n;
    return 1;
}

bool vq_packed_has_work(VirtQueue *vq)
{
    return vq_taken(vq) < vq->num &&
           vq_packed_is_avail(ring_read16(&vq->pdesc[vq->last_avail].flags),
                              vq->avail_wrap);
}

/* ---- Giving back ---- */

/* A packed ring is its own used ring: it is logged where it lies. */
static void vq_packed_log(VirtQueue *vq, const void *p, size_t len)
{
    uint64_t gpa;

    if (vq->log_used && guest_memory_to_guest(vq->mem, p, &gpa)) {
        vhost_user_log_write(vq->log, gpa, len);
    }
}

void vq_packed_push(VirtQueue *vq, const VirtQueueElement *elem, uint32_t len)
{
    struct vring_packed_desc *d = &vq->pdesc[vq->used_idx];
    uint16_t flags = (vq->used_wrap ? F_AVAIL | F_USED : 0) |
                     (elem->in_num ? VRING_DESC_F_WRITE : 0);

    ring_write16(&d->id, elem->id);
    ring_write32(&d->len, len);
    if (vq->pushed == 0) {
        vq->first_flags = flags;
        vq->first_index = vq->used_idx;
    } else {
        qatomic_store_release(&d->flags, GUINT16_TO_LE(flags));
    }
    if (unlikely(vq->log)) {
        vq_packed_log(vq, d, sizeof(*d));
    }
    vq_packed_advance(vq, &vq->used_idx, &vq->used_wrap, elem->ndescs);
    vq->pushed += elem->ndescs;
    vq->in_use -= elem->ndescs;
    if (vq->inflight) {
        vq_inflight_packed_push(vq->inflight, elem->track);
        vq->batch[vq->n_batch++] = elem->track;
    }
}

/* Whether the driver wants to know of the last @n ring entries. */
static bool vq_packed_should_notify(VirtQueue *vq, uint16_t n)
{
    uint16_t flags, off_wrap, event;

    smp_mb();   /* the driver sees the descriptors, or we its new wish */
    flags = ring_read16(&vq->driver_event->flags) & 3;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC || !vq->event_idx) {
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
    }
    off_wrap = ring_read16(&vq->driver_event->off_wrap);
    event = off_wrap & (WRAP - 1);
    if (!!(off_wrap & WRAP) != vq->used_wrap) {
        event -= vq->num;   /* of the lap before */
    }
    return vring_event_needed(event, vq->used_idx, vq->used_idx - n);
}

bool vq_packed_flush(VirtQueue *vq)
{
    struct vring_packed_desc *first = &vq->pdesc[vq->first_index];
    uint16_t n = vq->pushed;

    vq->pushed = 0;
    if (vq->inflight) {
        vq_inflight_packed_publish(vq);
    }
    qatomic_store_release(&first->flags, GUINT16_TO_LE(vq->first_flags));
    if (vq->inflight) {
        vq_inflight_packed_published(vq);
        vq->n_batch = 0;
    }
    if (unlikely(vq->log)) {
        vq_packed_log(vq, first, sizeof(*first));
    }
    return vq_packed_should_notify(vq, n);
}

/* ---- Notification ---- */

void vq_packed_set_notification(VirtQueue *vq, bool enable)
{
    uint16_t flags = VRING_PACKED_EVENT_FLAG_DISABLE;

    if (enable && vq->event_idx) {
        ring_write16(&vq->device_event->off_wrap,
                     vq->last_avail | (vq->avail_wrap ? WRAP : 0));
        flags = VRING_PACKED_EVENT_FLAG_DESC;
    } else if (enable) {
        flags = VRING_PACKED_EVENT_FLAG_ENABLE;
    }
    qatomic_store_release(&vq->device_event->flags, GUINT16_TO_LE(flags));
    if (unlikely(vq->log)) {
        vq_packed_log(vq, vq->device_event, sizeof(*vq->device_event));
    }
}
