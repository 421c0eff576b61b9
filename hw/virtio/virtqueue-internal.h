/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the split and the packed ring share.
 */
#ifndef HW_VIRTIO_VIRTQUEUE_INTERNAL_H
#define HW_VIRTIO_VIRTQUEUE_INTERNAL_H

#include "hw/virtio/virtqueue.h"
#include "hw/virtio/vhost-user-inflight.h"
#include "hw/virtio/vhost-user-log.h"
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

/* Guest memory is little-endian, and read and written once, untorn. */
#define ring_read16(p)      GUINT16_FROM_LE(qatomic_read(p))
#define ring_read32(p)      GUINT32_FROM_LE(qatomic_read(p))
#define ring_read64(p)      GUINT64_FROM_LE(qatomic_read(p))
#define ring_write16(p, v)  qatomic_set(p, GUINT16_TO_LE((uint16_t)(v)))
#define ring_write32(p, v)  qatomic_set(p, GUINT32_TO_LE((uint32_t)(v)))

/* Whether the driver asked to be told when an index in (old, new] passes
 * @event (virtio 1.2, 2.7.7). */
static inline bool vring_event_needed(uint16_t event, uint16_t new,
                                      uint16_t old)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

/* Ring entries that are not the driver's: it has not been told of what was
 * pushed, so it may not have used these for anything else yet. */
static inline unsigned vq_taken(const VirtQueue *vq)
{
    return vq->in_use + vq->pushed;
}

/* Start @elem; then add its buffers in order. */
static inline void vq_elem_reset(VirtQueueElement *elem)
{
    elem->iov = elem->small;
    elem->max_iov = VIRTQUEUE_SMALL_IOV;
    elem->out_num = elem->in_num = 0;
    elem->out_bytes = elem->in_bytes = 0;
}

bool vq_elem_add_slow(VirtQueue *vq, VirtQueueElement *elem, uint64_t addr,
                      uint32_t len, bool in);

/* Add one buffer of @flags; false (and broken) if it is not possible. */
static inline bool vq_elem_add(VirtQueue *vq, VirtQueueElement *elem,
                               uint64_t addr, uint32_t len, uint16_t flags)
{
    bool in = flags & VRING_DESC_F_WRITE;
    unsigned n = elem->out_num + elem->in_num;
    void *host = NULL;

    if (likely(len && n < elem->max_iov && (in || !elem->in_num))) {
        host = guest_memory_map(vq->mem, addr, len, &vq->hint);
    }
    if (unlikely(!host)) {
        return vq_elem_add_slow(vq, elem, addr, len, in);
    }
    elem->iov[n].iov_base = host;
    elem->iov[n].iov_len = len;
    if (in) {
        elem->in_num++;
        elem->in_bytes += len;
    } else {
        elem->out_num++;
        elem->out_bytes += len;
    }
    return true;
}

/* The indirect table at [addr, addr + len) and its length; NULL: broken. */
const void *vq_indirect_table(VirtQueue *vq, uint64_t addr, uint32_t len,
                              unsigned *n);

/* Log what the driver will read of @elem. */
void vq_log_element(VirtQueue *vq, const VirtQueueElement *elem);
/* Log @len bytes of the used ring (packed: the ring) from @offset. */
void vq_log_used(VirtQueue *vq, uint64_t offset, uint64_t len);

bool vq_split_setup(VirtQueue *vq, const VirtQueueConfig *config);
uint32_t vq_split_base(const VirtQueue *vq);
int vq_split_pop(VirtQueue *vq, VirtQueueElement *elem);
int vq_split_resubmit(VirtQueue *vq, VirtQueueElement *elem, uint16_t head);
bool vq_split_has_work(VirtQueue *vq);
void vq_split_push(VirtQueue *vq, const VirtQueueElement *elem, uint32_t len);
bool vq_split_flush(VirtQueue *vq);
void vq_split_set_notification(VirtQueue *vq, bool enable);

bool vq_packed_setup(VirtQueue *vq, const VirtQueueConfig *config);
uint32_t vq_packed_base(const VirtQueue *vq);
int vq_packed_pop(VirtQueue *vq, VirtQueueElement *elem);
int vq_packed_resubmit(VirtQueue *vq, VirtQueueElement *elem, uint16_t slot);
bool vq_packed_has_work(VirtQueue *vq);
void vq_packed_push(VirtQueue *vq, const VirtQueueElement *elem,
                    uint32_t len);
bool vq_packed_flush(VirtQueue *vq);
void vq_packed_set_notification(VirtQueue *vq, bool enable);

#endif
