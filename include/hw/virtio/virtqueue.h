/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A virtqueue, split or packed, from the device's side (virtio 1.2, 2.7 and
 * 2.8).
 *
 * The device pops elements (descriptor chains) in batches, works on them in
 * any order, pushes each back, and publishes a batch of pushed ones at once
 * with virtqueue_flush(), which says whether the driver wants an interrupt.
 *
 * One thread runs a queue; it is set up and taken down by another while it
 * does not run.  Nothing here blocks, allocates or makes a system call (but
 * virtqueue_notify and what follows an error).
 *
 * The driver is not trusted.  Whatever lies in the rings and tables is read
 * once into local variables and then checked; work is bounded by the size of
 * the queue.  What violates the specification *breaks* the queue: it is logged,
 * the front end's error notifier is raised, and nothing is popped or published
 * any more until the queue is set up anew.
 */
#ifndef HW_VIRTIO_VIRTQUEUE_H
#define HW_VIRTIO_VIRTQUEUE_H

#include "qemu/event_notifier.h"
#include "qemu/iov.h"
#include "hw/virtio/guest-memory.h"

#define VIRTQUEUE_MAX_SIZE 1024

/* An indirect table may be this long, even if the queue is shorter: Linux
 * sizes its requests by the segment limit that the device announces. */
#define VIRTQUEUE_MIN_CHAIN 256

typedef struct VirtQueue VirtQueue;
typedef struct VirtQueueInflight VirtQueueInflight;
typedef struct VhostUserLog VhostUserLog;

/* Buffers of an element that need no memory outside of it. */
#define VIRTQUEUE_SMALL_IOV 6

/*
 * One descriptor chain.  The device sets up @big (room for
 * virtqueue_max_iov() entries) once; virtqueue_pop() fills in the rest.
 */
typedef struct VirtQueueElement {
    struct iovec *iov;      /* what the driver wrote, then what it reads */
    unsigned max_iov;       /* iov is small, or big */
    unsigned out_num;       /* entries of iov for the device to read */
    unsigned in_num;        /* entries after these for the device to write */
    size_t out_bytes;
    size_t in_bytes;
    uint16_t id;            /* split: head descriptor; packed: buffer id */
    uint16_t ndescs;        /* packed: ring entries that the chain takes */
    uint16_t track;         /* packed: where inflight tracking has it */
    struct iovec *big;
    struct iovec small[VIRTQUEUE_SMALL_IOV];
} VirtQueueElement;

/* Addresses of the parts of a ring, by user address. */
typedef struct VirtQueueAddr {
    uint64_t desc;
    uint64_t avail;         /* packed: driver event suppression */
    uint64_t used;          /* packed: device event suppression */
    uint64_t log_guest;     /* guest address of the used ring, for the log */
    bool log_used;          /* writes of the used ring are logged */
} VirtQueueAddr;

/* An unfinished element that inflight tracking remembers. */
typedef struct VirtQueueResubmit {
    uint64_t counter;
    uint16_t index;
} VirtQueueResubmit;

struct VirtQueue {
    /* Set by virtqueue_setup(). */
    const GuestMemory *mem;
    const char *name;           /* for messages */
    uint16_t num;               /* entries */
    bool packed;
    bool event_idx;
    bool indirect;
    bool started;
    bool broken;                /* atomic; until the next setup */

    /* The ring, in guest memory. */
    struct vring_desc *desc;            /* split */
    struct vring_packed_desc *pdesc;    /* packed */
    struct vring_avail *avail;
    struct vring_used *used;
    struct vring_packed_desc_event *driver_event;
    struct vring_packed_desc_event *device_event;

    /* Owned by the thread that runs the queue. */
    const GuestRegion *hint;
    uint16_t last_avail;        /* next to pop; packed: without wrap bit */
    uint16_t shadow_avail;      /* split: the avail index as last read */
    uint16_t used_idx;          /* next to push */
    uint16_t pushed;            /* since the last flush, in ring entries */
    bool avail_wrap;            /* packed: the two wrap counters */
    bool used_wrap;
    bool notification;          /* the driver is asked to kick */
    bool flushed_early;         /* … by a pop, and an interrupt is due */
    uint16_t first_flags;       /* packed: of the first pushed, held back */
    uint16_t first_index;
    uint16_t in_use;            /* popped, not pushed; ring entries */

    /* Tracking, all optional. */
    VirtQueueInflight *inflight;
    VirtQueueResubmit *resubmit;        /* in order; to be popped first */
    unsigned n_resubmit;
    unsigned next_resubmit;
    uint16_t *batch;                    /* pushed, not published */
    unsigned n_batch;
    VhostUserLog *log;
    bool log_used;
    uint64_t log_guest;

    /* Each may be NULL; kept by whoever sets the queue up, and replaced only
     * while the queue does not run, or by its running thread. */
    EventNotifier *kick;
    EventNotifier *call;
    EventNotifier *err;
};

/* How a queue is to work: what was negotiated and what was configured. */
typedef struct VirtQueueConfig {
    const GuestMemory *mem;
    uint64_t features;
    uint16_t num;
    uint32_t base;              /* as vhost-user's vring state has it */
    VirtQueueAddr addr;
    VirtQueueInflight *inflight;
    VhostUserLog *log;
} VirtQueueConfig;

/*
 * Get the stopped queue @vq (zeroed before the first time, but for its name
 * and notifiers) ready to run from the position @config->base.  Fails for
 * addresses outside the guest's memory and impossible sizes.
 */
bool virtqueue_setup(VirtQueue *vq, const VirtQueueConfig *config,
                     Error **errp);
/*
 * The queue does not run any more and nothing of it is in use; returns the
 * position to go on from.
 */
uint32_t virtqueue_teardown(VirtQueue *vq);

/* Of a queue that was taken down: whether nothing in it was unfinished. */
bool virtqueue_is_idle(const VirtQueue *vq);

/* Whether @num entries are possible; @errp says what is wrong. */
bool virtqueue_check_num(uint32_t num, bool packed, Error **errp);
/* Whether the parts of the ring lie in @mem. */
bool virtqueue_check_addr(const GuestMemory *mem, const VirtQueueAddr *addr,
                          uint16_t num, bool packed, Error **errp);

/* How many iovec entries an element may need. */
unsigned virtqueue_max_iov(const VirtQueue *vq);

/*
 * Pop the next element: 1, 0 if there is none, or -EIO once the queue is
 * broken.  The element may be used until it is pushed.
 */
int virtqueue_pop(VirtQueue *vq, VirtQueueElement *elem);

/* Whether there is something to pop: no system call, no effect. */
bool virtqueue_has_work(VirtQueue *vq);

/* Give @elem back, @len bytes of it written.  Unseen until the flush. */
void virtqueue_push(VirtQueue *vq, const VirtQueueElement *elem,
                    uint32_t len);
/* Publish what was pushed; true if the driver is to be interrupted. */
bool virtqueue_flush(VirtQueue *vq);
/* Interrupt the driver: one system call. */
void virtqueue_notify(VirtQueue *vq);

/*
 * Ask the driver to kick, or not to bother.  After asking it to, look again
 * (the function has the barrier): true if there is something to pop already.
 */
bool virtqueue_enable_notification(VirtQueue *vq);
void virtqueue_disable_notification(VirtQueue *vq);

/* Break the queue for the reason given (see above).  Its running thread. */
void virtqueue_set_broken(VirtQueue *vq, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3);
static inline bool virtqueue_is_broken(const VirtQueue *vq)
{
    return unlikely(qatomic_read(&vq->broken));
}

#endif
