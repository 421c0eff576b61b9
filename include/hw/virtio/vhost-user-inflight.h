/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inflight tracking: which elements of each queue were popped and not yet
 * given back, kept in memory that the front end holds on to, so that a back
 * end that was killed can be started again and do them (vhost-user, "Inflight
 * I/O tracking", which also gives the layout).
 *
 * The memory is shared with a front end that may be mad.  It is written for
 * the next incarnation; while a queue runs nothing is read from it that
 * matters, and what is read at its start is checked.
 */
#ifndef HW_VIRTIO_VHOST_USER_INFLIGHT_H
#define HW_VIRTIO_VHOST_USER_INFLIGHT_H

#include "hw/virtio/virtqueue.h"
#include "qemu/error.h"
#include <linux/virtio_ring.h>

typedef struct VhostUserInflight VhostUserInflight;

/* The whole buffer, for @num_queues queues of up to @queue_size entries. */
VhostUserInflight *vhost_user_inflight_new(uint16_t num_queues,
                                           uint16_t queue_size, bool packed,
                                           Error **errp);
/* One that a front end sent; @fd remains the caller's. */
VhostUserInflight *vhost_user_inflight_map(int fd, uint64_t offset,
                                           uint64_t size, uint16_t num_queues,
                                           uint16_t queue_size, bool packed,
                                           Error **errp);
void vhost_user_inflight_free(VhostUserInflight *inflight);
/* The file of a buffer from _new, which becomes the caller's. */
int vhost_user_inflight_take_fd(VhostUserInflight *inflight);
uint64_t vhost_user_inflight_size(const VhostUserInflight *inflight);
/* The part of queue @index for rings of @packed layout and @num entries, or
 * NULL if the buffer has none that fits. */
VirtQueueInflight *vhost_user_inflight_queue(VhostUserInflight *inflight,
                                             unsigned index, bool packed,
                                             uint16_t num);

/* ---- For virtqueues ---- */

/*
 * What @vq is to do again, into vq->resubmit, oldest first, and the position
 * from there, where it is known better than from the front end.  False if the
 * contents make no sense.
 */
bool vq_inflight_split_recover(VirtQueue *vq, uint16_t ring_used);
bool vq_inflight_packed_recover(VirtQueue *vq);
/* Nothing is in flight, and the position is with the front end. */
void vq_inflight_mark_clean(VirtQueueInflight *inflight);

void vq_inflight_split_pop(VirtQueueInflight *inflight, uint16_t head);
void vq_inflight_split_push(VirtQueueInflight *inflight, uint16_t head);
/* After the used index was published. */
void vq_inflight_split_published(VirtQueue *vq);

/* Each descriptor of a chain as it is popped; the first returns its place. */
uint16_t vq_inflight_packed_pop(VirtQueueInflight *inflight,
                                const struct vring_packed_desc *d,
                                bool first, bool last);
/* A chain that turned out to be bad after its first descriptor. */
void vq_inflight_packed_push(VirtQueueInflight *inflight, uint16_t slot);
/* Before and after the first descriptor of a batch is marked used. */
void vq_inflight_packed_publish(VirtQueue *vq);
void vq_inflight_packed_published(VirtQueue *vq);
/* Descriptor @n of the chain at @slot; false if there is none. */
bool vq_inflight_packed_desc(VirtQueueInflight *inflight, uint16_t slot,
                             unsigned n, struct vring_packed_desc *d);

#endif
