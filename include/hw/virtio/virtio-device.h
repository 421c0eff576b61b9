/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a transport knows of a virtio device, and all it knows.
 *
 * The transport negotiates, sets up the queues (it owns the VirtQueues) and
 * tells the device which of them run.  The device runs each queue in a thread
 * of its choice.
 *
 * Every function below is called by one thread of the transport at a time, and
 * may block.
 */
#ifndef HW_VIRTIO_VIRTIO_DEVICE_H
#define HW_VIRTIO_VIRTIO_DEVICE_H

#include "hw/virtio/virtqueue.h"

#define VIRTIO_DEVICE_CONFIG_MAX 256

typedef struct VirtIODevice VirtIODevice;

typedef struct VirtIODeviceOps {
    /* Feature bits of the device and of its queues (not of the transport). */
    uint64_t (*get_features)(VirtIODevice *dev);
    /* No queue runs.  A subset of the above. */
    void (*set_features)(VirtIODevice *dev, uint64_t features);
    /* Fill in all @len bytes; what the device does not have is zero. */
    void (*get_config)(VirtIODevice *dev, uint8_t *config, size_t len);
    /* No queue runs.  Write [offset, offset + len); -EINVAL if the driver may
     * not, -errno if that takes I/O (for which it may block) and this fails. */
    int (*set_config)(VirtIODevice *dev, size_t offset, const uint8_t *data,
                      size_t len);

    /* Run @vq, which is set up, as queue @index.  False: out of memory. */
    bool (*queue_start)(VirtIODevice *dev, unsigned index, VirtQueue *vq);
    /* Stop, and wait until nothing popped is unfinished.  Then no thread
     * touches the VirtQueue.  Harmless on a queue that does not run. */
    void (*queue_stop)(VirtIODevice *dev, unsigned index);
    /* Call @fn(@opaque) in the thread that runs queue @index, and wait. */
    void (*queue_run)(VirtIODevice *dev, unsigned index,
                      void (*fn)(void *opaque), void *opaque);

    /* Both may be NULL.  No queue runs.  The guest's memory has a region at
     * @host from now on; or no longer, and it is about to be unmapped. */
    void (*memory_add)(VirtIODevice *dev, void *host, size_t size);
    void (*memory_del)(VirtIODevice *dev, void *host, size_t size);
} VirtIODeviceOps;

/*
 * Whoever the device works for, and who may have to give its disk away, and to
 * take it: live migration.
 */
typedef struct VirtIODeviceOwner {
    /* A queue is about to run; it will not, if this fails.  May be called when
     * it has been done already. */
    bool (*activate)(void *opaque, Error **errp);
    /* All queues were stopped while memory was being migrated: from the answer
     * on, another machine may run. */
    void (*inactivate)(void *opaque);
} VirtIODeviceOwner;

struct VirtIODevice {
    const VirtIODeviceOps *ops;     /* constant, as the rest */
    const char *name;               /* for messages */
    unsigned num_queues;
    uint16_t max_queue_size;
    const VirtIODeviceOwner *owner; /* NULL: nobody who wants to know */
    void *owner_opaque;
};

#endif
