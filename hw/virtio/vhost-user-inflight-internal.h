/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inflight buffer in memory, as the protocol lays it out (vhost-user,
 * "Inflight I/O tracking"), and what is kept of a queue besides.
 */
#ifndef HW_VIRTIO_VHOST_USER_INFLIGHT_INTERNAL_H
#define HW_VIRTIO_VHOST_USER_INFLIGHT_INTERNAL_H

#include "hw/virtio/vhost-user-inflight.h"

#define INFLIGHT_VERSION 1

typedef struct DescStateSplit {
    uint8_t inflight;
    uint8_t padding[5];
    uint16_t next;
    uint64_t counter;
} DescStateSplit;

typedef struct QueueRegionSplit {
    uint64_t features;
    uint16_t version;
    uint16_t desc_num;
    uint16_t last_batch_head;
    uint16_t used_idx;
    DescStateSplit desc[];
} QueueRegionSplit;

typedef struct DescStatePacked {
    uint8_t inflight;
    uint8_t padding;
    uint16_t next;
    uint16_t last;
    uint16_t num;
    uint64_t counter;
    uint16_t id;
    uint16_t flags;
    uint32_t len;
    uint64_t addr;
} DescStatePacked;

typedef struct QueueRegionPacked {
    uint64_t features;
    uint16_t version;
    uint16_t desc_num;
    uint16_t free_head;
    uint16_t old_free_head;
    uint16_t used_idx;
    uint16_t old_used_idx;
    uint8_t used_wrap_counter;
    uint8_t old_used_wrap_counter;
    uint8_t padding[7];
    DescStatePacked desc[];
} QueueRegionPacked;

G_STATIC_ASSERT(sizeof(DescStateSplit) == 16);
G_STATIC_ASSERT(sizeof(QueueRegionSplit) == 16);
G_STATIC_ASSERT(sizeof(DescStatePacked) == 32);
G_STATIC_ASSERT(sizeof(QueueRegionPacked) == 32);

struct VirtQueueInflight {
    QueueRegionSplit *split;        /* one of the two */
    QueueRegionPacked *packed;
    uint16_t num;
    uint64_t counter;               /* of the next element */
    /* Packed: private copies of the list, and where it begins. */
    uint16_t *next;
    uint16_t *last;
    uint16_t free_head;
    uint16_t chain_head;            /* of the chain that is being popped */
    uint16_t chain_len;
};

/* Bring vq->resubmit into the order in which it was popped. */
void vq_inflight_sort(VirtQueue *vq);

#endif
