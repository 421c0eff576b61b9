/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver's side of one virtqueue, split or packed (virtio 1.2, sections
 * 2.7 and 2.8).
 *
 * Honest use:   vufe_ring_add (any number of chains) - vufe_ring_kick -
 *               vufe_ring_wait - vufe_ring_get_used until it returns 0.
 * Hostile use:  write through the pointers of the struct (split.desc,
 *               packed.desc and so on) and ring the bell with
 *               vufe_ring_kick_always.
 *
 * What has been added is invisible to the device until vufe_ring_publish, which
 * vufe_ring_kick does first.  So a batch costs one index update and at most one
 * system call.
 *
 * What the driver believes (free descriptors, positions) is kept outside guest
 * memory; raw writes cannot confuse the library, and what the device returns
 * is checked against it.  A ring belongs to one thread at a time; different
 * rings are independent.  All functions but vufe_ring_wait return at once.
 */
#ifndef TESTS_VUFE_RING_H
#define TESTS_VUFE_RING_H

#include <linux/virtio_ring.h>

#include "vufe-mem.h"

#define VUFE_RING_MAX 1024      /* descriptors a ring may have */
#define VUFE_INDIRECT_MAX 130   /* entries of an indirect table */

/* One buffer of a chain. */
typedef struct VufeBuf {
    uint64_t gpa;
    uint32_t len;
    bool device_writes;
} VufeBuf;

/* What the driver remembers of a chain that the device has. */
typedef struct VufeChain {
    void *token;
    uint16_t num_slots; /* ring descriptors it occupies; 0: not in use */
    uint16_t last;      /* split: its last descriptor */
    uint16_t next;      /* split: next descriptor; packed: next free id */
} VufeChain;

typedef struct VufeRing VufeRing;

/* The two layouts, each in a file of its own. */
typedef struct VufeRingOps {
    int (*layout)(VufeRing *r, VufeMem *mem, unsigned region);
    void (*reset)(VufeRing *r);
    int (*add)(VufeRing *r, const VufeBuf *bufs, unsigned num,
               uint16_t extra_flags, void *token);
    void (*publish)(VufeRing *r);
    bool (*needs_kick)(const VufeRing *r);
    bool (*has_used)(const VufeRing *r);
    int (*get_used)(VufeRing *r, void **token, uint32_t *len);
    void (*set_call)(VufeRing *r, bool enable);
    uint32_t (*device_base)(const VufeRing *r);
} VufeRingOps;

struct VufeRing {
    /* Constant once laid out. */
    const VufeRingOps *ops;
    uint16_t index;
    uint16_t size;
    bool has_event_idx;
    bool has_indirect;
    int kick_fd, call_fd, err_fd;
    uint64_t desc_gpa, driver_gpa, device_gpa; /* the three areas */
    uint64_t indirect_gpa; /* a table of VUFE_INDIRECT_MAX per descriptor */
    struct vring_desc *indirect;
    union {
        struct {
            struct vring_desc *desc;
            struct vring_avail *avail;
            struct vring_used *used;
        } split;
        struct {
            struct vring_packed_desc *desc;
            struct vring_packed_desc_event *driver;
            struct vring_packed_desc_event *device;
        } packed;
    };

    /* The driver's position; packed rings count slots and wrap. */
    uint16_t avail_idx;  /* after all chains that have been added */
    uint16_t pub_idx;    /* after the chains that the device can see */
    uint16_t kicked_idx; /* avail_idx when the last kick was decided */
    uint16_t used_idx;   /* next used entry to take */
    bool avail_wrap, pub_wrap, used_wrap;
    uint16_t first_flags; /* packed: withheld flags of slot pub_idx */
    uint16_t num_unkicked; /* packed: slots published since that decision */
    uint16_t num_free;
    uint16_t free_head;
    VufeChain *chains; /* by descriptor (split) or buffer id (packed) */

    /* Counters, for tests and benchmarks. */
    uint64_t num_kicks; /* system calls spent on kicking */
    uint64_t num_calls; /* wake-ups through call_fd */
};

/* Address of the event indices that trail the two split rings. */
static inline uint16_t *vufe_split_used_event(const VufeRing *r)
{
    return &r->split.avail->ring[r->size];
}

static inline uint16_t *vufe_split_avail_event(const VufeRing *r)
{
    return (uint16_t *)&r->split.used->ring[r->size];
}

/*
 * Makes ring @index of @size descriptors (split: a power of two) in @region of
 * @mem, with its three eventfds.  -ENOMEM when the region is full, -EINVAL for
 * a size out of range.
 */
int vufe_ring_init(VufeRing *r, VufeMem *mem, unsigned region, unsigned index,
                   unsigned size, bool packed, bool indirect, bool event_idx);

/* Closes the eventfds and forgets the chains; guest memory stays. */
void vufe_ring_destroy(VufeRing *r);

/* Back to the state after vufe_ring_init: all empty, positions 0. */
void vufe_ring_reset(VufeRing *r);

/*
 * Adds a chain of @num buffers; those that the device reads come first.  With
 * @indirect (and the feature) it takes one ring descriptor and a table.  @token
 * (not NULL) comes back with the used buffer.  Returns the head descriptor
 * (split) or the buffer id (packed); -ENOSPC when the ring is full, -E2BIG when
 * it could never fit.
 */
int vufe_ring_add(VufeRing *r, const VufeBuf *bufs, unsigned num,
                  bool indirect, void *token);

/* Lets the device see everything that has been added. */
void vufe_ring_publish(VufeRing *r);

/*
 * Publishes, and kicks if the device asked to be told.  True if it did kick.
 */
bool vufe_ring_kick(VufeRing *r);

/* Rings the bell, whatever the device asked for. */
void vufe_ring_kick_always(VufeRing *r);

/* Is there a used buffer to take?  (A pure look at memory.) */
bool vufe_ring_has_used(const VufeRing *r);

/*
 * Takes one used buffer: 1 with its token and the bytes that the device says it
 * wrote, 0 when there is none, -EPROTO when the device returned something that
 * it was not given.
 */
int vufe_ring_get_used(VufeRing *r, void **token, uint32_t *len);

/*
 * Asks the device to signal, or not to signal, call_fd for the next used
 * buffer.  After enabling it look at vufe_ring_has_used once more before going
 * to sleep.  "Not" is only a hint to the device.
 */
void vufe_ring_set_call(VufeRing *r, bool enable);

/*
 * Sleeps on call_fd until there is a used buffer: 0, or -ETIMEDOUT after
 * @timeout_ms.  -ENOMSG if after that time there is a used buffer of which the
 * device has not told: an interrupt was lost.
 */
int vufe_ring_wait(VufeRing *r, int timeout_ms);

/* As above, with the processor instead of an interrupt. */
int vufe_ring_poll(VufeRing *r, int timeout_ms);

/*
 * The position for SET_VRING_BASE after a back end vanished: just after what it
 * has marked as used, from guest memory and the driver's own records.  Chains
 * that it had taken but not completed are for the inflight region to bring
 * back.
 */
uint32_t vufe_ring_device_base(const VufeRing *r);

/* The layouts. */
extern const VufeRingOps vufe_split_ops, vufe_packed_ops;

/*
 * For the layouts: lays out the areas with the given sizes and alignments in
 * the descriptor, driver and device order.
 */
int vufe_ring_alloc_areas(VufeRing *r, VufeMem *mem, unsigned region,
                          const uint64_t size[3], const uint64_t align[3],
                          void *ptr[3]);

#endif
