/*
 * The batch of a submission engine: requests that wait for the end of the
 * loop's iteration, or for room in the kernel's ring.  First in, first out,
 * linked through the requests' engine area.  Owner thread of the context.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_FILE_QUEUE_H
#define BLOCK_FILE_QUEUE_H

#include "file-posix.h"

/* The beginning of what either engine keeps in a request. */
typedef struct FileQueueEntry {
    BdrvTrackedRequest *next;
    FileState *s;               /* the file it is for */
    FileSync *sync;             /* of a flush */
    bool queued;                /* here, not in the kernel */
    bool is_quiet;              /* linux-aio: will not raise the notifier */
} FileQueueEntry;

typedef struct FileQueue {
    BdrvTrackedRequest *first;
    BdrvTrackedRequest *last;
    unsigned length;
} FileQueue;

static inline FileQueueEntry *file_queue_entry(BdrvTrackedRequest *req)
{
    return (FileQueueEntry *)req->engine;
}

static inline void file_queue_push(FileQueue *q, BdrvTrackedRequest *req)
{
    file_queue_entry(req)->next = NULL;
    file_queue_entry(req)->queued = true;
    if (q->first) {
        file_queue_entry(q->last)->next = req;
    } else {
        q->first = req;
    }
    q->last = req;
    q->length++;
}

static inline BdrvTrackedRequest *file_queue_pop(FileQueue *q)
{
    BdrvTrackedRequest *req = q->first;

    if (req) {
        q->first = file_queue_entry(req)->next;
        file_queue_entry(req)->queued = false;
        q->length--;
    }
    return req;
}

/* Take @req out, wherever it is.  False if it is not there. */
static inline bool file_queue_remove(FileQueue *q, BdrvTrackedRequest *req)
{
    BdrvTrackedRequest *prev = NULL, *r = q->first;

    while (r && r != req) {
        prev = r;
        r = file_queue_entry(r)->next;
    }
    if (!r) {
        return false;
    }
    if (prev) {
        file_queue_entry(prev)->next = file_queue_entry(req)->next;
    } else {
        q->first = file_queue_entry(req)->next;
    }
    if (q->last == req) {
        q->last = prev;
    }
    file_queue_entry(req)->queued = false;
    q->length--;
    return true;
}

#endif
