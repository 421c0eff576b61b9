/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's memory as a back end sees it: a sorted table of regions, each a
 * piece of a file that the front end shared.
 *
 * A table is immutable once it is in use.  A change makes a new table (which
 * shares the mappings of the regions that stay) and swaps it in while no queue
 * of the device runs; so whoever runs a queue reads it without a lock.
 *
 * Three kinds of address:
 *   guest   what descriptors hold ("guest physical")
 *   user    an address in the front end's process: what vring addresses are
 *   host    a pointer of ours
 *
 * Nothing here trusts the numbers it is given: an address or length that a
 * guest or front end made up gives an error, never an access outside a region.
 */
#ifndef HW_VIRTIO_GUEST_MEMORY_H
#define HW_VIRTIO_GUEST_MEMORY_H

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error.h"

/* As many as the front ends in use can send. */
#define GUEST_MEMORY_MAX_REGIONS 509

/* A mapped piece of a file; shared by the tables that contain it. */
typedef struct GuestMapping GuestMapping;

typedef struct GuestRegion {
    uint64_t gpa;           /* guest address; regions are sorted by it */
    uint64_t size;          /* bytes, not 0; gpa + size - 1 does not overflow */
    uint64_t uva;           /* user address */
    uint8_t *host;
    GuestMapping *mapping;
} GuestRegion;

typedef struct GuestMemory {
    int n;
    GuestRegion regions[];
} GuestMemory;

/* What a front end says of a region. */
typedef struct GuestRegionInfo {
    uint64_t gpa;
    uint64_t size;
    uint64_t uva;
    uint64_t mmap_offset;   /* where in the file the region starts */
} GuestRegionInfo;

/*
 * A new table: the regions of @old (NULL: none) and one more, mapped from @fd,
 * which stays the caller's.  Fails for a region that overlaps another, wraps
 * or reaches past the end of the file.  The thread that owns @old.
 */
GuestMemory *guest_memory_add(const GuestMemory *old,
                              const GuestRegionInfo *info, int fd,
                              Error **errp);
/* A new table without the region that has this gpa, uva and size. */
GuestMemory *guest_memory_remove(const GuestMemory *old,
                                 const GuestRegionInfo *info, Error **errp);
/* Free the table, and unmap what no other table maps.  NULL is fine. */
void guest_memory_free(GuestMemory *mem);

/*
 * Whether an access found that the file behind a region has shrunk (see
 * fault-guard.h).  The data that was read since is not the guest's.
 */
bool guest_memory_is_broken(const GuestMemory *mem);

/* The region that holds guest address @gpa, or NULL. */
const GuestRegion *guest_memory_find(const GuestMemory *mem, uint64_t gpa);

/* The host address of [uva, uva + len), if one region holds it, or NULL. */
void *guest_memory_from_user(const GuestMemory *mem, uint64_t uva,
                             uint64_t len);

/* The guest address of host pointer @host; false if it is in no region. */
bool guest_memory_to_guest(const GuestMemory *mem, const void *host,
                           uint64_t *gpa);

/* Whether [gpa, gpa + len) lies in @r; @len is not 0. */
static inline bool guest_region_holds(const GuestRegion *r, uint64_t gpa,
                                      uint64_t len)
{
    uint64_t offset = gpa - r->gpa;   /* wraps to a huge one when below */

    return offset < r->size && len <= r->size - offset;
}

/*
 * The host address of [gpa, gpa + len), if one region holds all of it, or
 * NULL.  *@hint, the region of the last success, is tried first: descriptors
 * of one queue mostly lie in one region.
 */
static inline void *guest_memory_map(const GuestMemory *mem, uint64_t gpa,
                                     uint64_t len, const GuestRegion **hint)
{
    const GuestRegion *r = *hint;

    if (unlikely(!r || !guest_region_holds(r, gpa, len))) {
        r = guest_memory_find(mem, gpa);
        if (!r || !guest_region_holds(r, gpa, len)) {
            return NULL;
        }
        *hint = r;
    }
    return r->host + (gpa - r->gpa);
}

#endif
