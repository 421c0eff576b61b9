/*
 * Private to io_uring.c and io_uring-fixed.c: the engine of one context.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_IO_URING_H
#define BLOCK_IO_URING_H

#include <liburing.h>
#include "file-queue.h"

/* Registered files and buffers a ring; what is more goes unregistered. */
#define URING_FILES 64
#define URING_BUFS 64

typedef struct UringFile {
    uint64_t serial;            /* of the FileHandle; 0: free */
    bool dead;                  /* closed: to be taken out of the ring */
} UringFile;

/* All or a part of a region of memory that was announced. */
typedef struct UringBuf {
    struct iovec iov;           /* of no length: free */
    uint64_t region;
} UringBuf;

typedef struct Uring {
    /* Constant. */
    AioContext *ctx;
    QEMUBH *sync_bh;            /* runs uring_sync() */

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
    bool has_file_table;
    bool has_buf_table;
    uint64_t last_serial;       /* the file of the last request … */
    int last_slot;              /* … and where it is */
    uint64_t bufs_generation;   /* of the regions that are in bufs */
    UringBuf bufs[URING_BUFS];

    /* uring_registry_lock */
    UringFile files[URING_FILES] GUARDED_BY(leaf_class);
    bool uses_bufs GUARDED_BY(leaf_class);      /* or is about to */
    uint64_t sync_wanted GUARDED_BY(leaf_class);
    uint64_t sync_done GUARDED_BY(leaf_class);
    uint64_t id GUARDED_BY(leaf_class);
    ListNode node GUARDED_BY(leaf_class);
} Uring;

/* ---- io_uring-fixed.c; all but the last two in the ring's thread ---- */

/* A ring was made, or is about to go. */
void uring_fixed_init(Uring *u);
void uring_fixed_destroy(Uring *u);
/* The slot of @h's descriptor, registered if need be; -1: use @h->fd. */
int uring_file_slot(Uring *u, const FileHandle *h);
/* The registered buffer that holds all of @iov; -1: none does. */
int uring_buf_slot(Uring *u, const struct iovec *iov);

#endif
