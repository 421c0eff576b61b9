/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Surviving SIGBUS in memory that somebody else can truncate.
 *
 * A shared file that shrinks makes accesses past its new end raise SIGBUS,
 * which would end the process and with it the devices of other guests.  A
 * guarded range gets zero pages in that place instead, and a flag that the
 * access was not what it seemed.  SIGBUS elsewhere has the effect it had
 * before the first guard was made.
 */
#ifndef HW_VIRTIO_FAULT_GUARD_H
#define HW_VIRTIO_FAULT_GUARD_H

#include "qemu/osdep.h"
#include "qemu/atomic.h"

typedef struct FaultGuard FaultGuard;

/*
 * Guard the mapping [start, start + len), made of pages of @page_size bytes.
 * Any thread.  *@broken must live until fault_guard_del(); it is set, from the
 * signal handler of whichever thread faults, with an atomic store.
 */
FaultGuard *fault_guard_add(void *start, size_t len, size_t page_size,
                            bool *broken);
/* Whether any guard of the process ever caught something: cheap to ask. */
extern bool fault_guard_fired;
static inline bool fault_guard_has_fired(void)
{
    return unlikely(qatomic_read(&fault_guard_fired));
}

/* Any thread; nobody accesses the range any more.  Before it is unmapped. */
void fault_guard_del(FaultGuard *guard);

#endif
