/*
 * What tests turn to bring a thread pool into its rare states.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef THREAD_POOL_INTERNAL_H
#define THREAD_POOL_INTERNAL_H

#include "block/thread-pool.h"

/* Atomic.  How long a worker without work stays; ten seconds. */
extern int64_t thread_pool_idle_ns;

/* Atomic.  So many starts of a thread fail from now on, as if the system were
 * out of them. */
extern int thread_pool_failing_starts;

#endif
