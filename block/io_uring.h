/*
 * Private to io_uring.c: the engine of one context.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_IO_URING_H
#define BLOCK_IO_URING_H

#include <liburing.h>
#include "file-queue.h"

typedef struct Uring {
    /* Constant. */
    AioContext *ctx;

    /* Owner thread of ctx. */
    struct io_uring ring;
    EventNotifier notifier;     /* raised when there is something to reap */
    bool failed;                /* the system has no ring for us */
    pthread_t submitter;        /* who made the ring: the only one it obeys */
    AioDeferred deferred;
    FileQueue queue;
    unsigned in_flight;         /* completions to come */
    bool reaping;
    FileEngineStats stats;
} Uring;

#endif
