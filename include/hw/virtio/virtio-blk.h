/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The virtio-blk device (virtio 1.2, 5.2): a disk, served from virtqueues.
 */
#ifndef HW_VIRTIO_VIRTIO_BLK_H
#define HW_VIRTIO_VIRTIO_BLK_H

#include <jansson.h>
#include "block/block-backend.h"
#include "hw/virtio/virtio-device.h"

typedef struct VirtIOBlock VirtIOBlock;

typedef struct VirtIOBlockConf {
    BlockBackend *blk;              /* outlives the device */
    const char *name;               /* for messages; copied, as serial */
    const char *serial;             /* up to 20 bytes count */
    bool writable;
    unsigned num_queues;
    uint16_t queue_size;            /* 0: as large as is possible */
    uint32_t logical_block_size;    /* a power of two, from 512 */
    bool request_merging;           /* make one of reads or writes in a row */
    bool register_buffers;          /* bdrv_register_buf() the guest's memory */
    AioContext **contexts;          /* queue n is run in n % n_contexts */
    unsigned n_contexts;
} VirtIOBlockConf;

/*
 * Control thread: a device without running queues.  It takes the backend's
 * device callbacks for itself, and one tells when the length has changed.
 */
VirtIOBlock *virtio_blk_new(const VirtIOBlockConf *conf,
                            void (*resized)(void *opaque), void *opaque);
/* Control thread: all queues are stopped, no transport knows it any more. */
void virtio_blk_free(VirtIOBlock *s);

/* What a transport works with. */
VirtIODevice *virtio_blk_device(VirtIOBlock *s);

/* Any thread: counters since it was made, a new object. */
json_t *virtio_blk_query_stats(VirtIOBlock *s);

#endif
