/*
 * The linux-aio engine: O_DIRECT requests, submitted in batches.
 *
 * One engine a context, made when its thread first needs one, used by that
 * thread alone: so nothing locks.  A request waits in the batch until the loop
 * ends its iteration (or the batch is as large as the file wants it); then one
 * io_submit() takes them all.  There are never more in the kernel than the
 * completion ring holds, since events beyond it would be lost; what is too
 * much stays in the batch and goes out as completions make room.
 *
 * Completions are taken from the ring that the kernel shares with us, without
 * a system call.  The eventfd says when to look; so does the loop's busy
 * polling; and we look right after io_submit, as what needs no device (tmpfs)
 * is done by then.  The latter do without the eventfd, of which nobody would
 * learn anything.  Taking completions may call back into laio_submit(), which
 * only queues.
 *
 * io_submit can itself block (for a lock, for metadata).  RWF_NOWAIT makes it
 * say EAGAIN instead, and a worker runs the request; as it does in every case
 * that this file does not handle: short transfers, errors of io_submit, files
 * whose kernel code lacks something.  A worker's result is the right one, be it
 * an error.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <libaio.h>
#include "file-queue.h"

/* In the kernel at a time.  Enough for the largest virtqueue's deep half. */
#define LAIO_CAPACITY 256
/* Taken in one io_submit(), and completions handled at a time. */
#define LAIO_BATCH 128
/* Larger transfers are split by the kernel, which then always says EAGAIN. */
#define LAIO_NOWAIT_MAX (256 * KiB)

/* The head of the completion ring, as the kernel maps it (fs/aio.c's ABI). */
typedef struct LaioRing {
    unsigned id;
    unsigned nr;
    unsigned head;              /* ours */
    unsigned tail;              /* the kernel's */
    unsigned magic;
    unsigned compat_features;
    unsigned incompat_features;
    unsigned header_length;
    struct io_event events[];
} LaioRing;
#define LAIO_RING_MAGIC 0xa10a10a1u

typedef struct LaioRequest {
    FileQueueEntry entry;
    struct iocb iocb;
} LaioRequest;
_Static_assert(sizeof(LaioRequest) <= BDRV_REQ_ENGINE_WORDS * 8,
               "fits into the request");

typedef struct LinuxAio {
    AioContext *ctx;
    io_context_t io;
    LaioRing *ring;             /* NULL: not of a kind that we know */
    EventNotifier notifier;
    AioDeferred deferred;
    FileQueue queue;
    unsigned in_flight;
    unsigned quiet_in_flight;
    bool reaping;
    bool failed;                /* the system has no room for it */
    FileEngineStats stats;
} LinuxAio;

static LaioRequest *laio_request(BdrvTrackedRequest *req)
{
    return (LaioRequest *)req->engine;
}

/* ---- Completions ---- */

static void laio_to_worker(LinuxAio *l, BdrvTrackedRequest *req)
{
    if (req->type == BDRV_REQ_FLUSH) {
        file_sync_forget(file_queue_entry(req)->sync);
    }
    l->stats.retried++;
    bdrv_request_to_worker(req);
}

/* What an EOPNOTSUPP or EINVAL for @req was about is not to be tried again. */
static void laio_note_unsupported(BdrvTrackedRequest *req, int err)
{
    LaioRequest *lr = laio_request(req);
    FileState *s = lr->entry.s;

    if (req->type == BDRV_REQ_FLUSH) {
        file_set_lacks(s, FILE_NO_AIO_FSYNC);
    } else if (err == EOPNOTSUPP && (lr->iocb.aio_rw_flags & RWF_NOWAIT)) {
        file_set_lacks(s, req->type == BDRV_REQ_READ ? FILE_NO_NOWAIT_READ :
                       FILE_NO_NOWAIT_WRITE);
    }
}

static void laio_complete_flush(LinuxAio *l, BdrvTrackedRequest *req,
                                int64_t res)
{
    if (res == -EINVAL || res == -EOPNOTSUPP) {
        laio_note_unsupported(req, -res);
        laio_to_worker(l, req);
    } else if (res == -EINTR || res == -EAGAIN) {
        laio_to_worker(l, req);         /* it was not even tried */
    } else {
        file_sync_complete(file_queue_entry(req)->sync, MIN(res, 0));
    }
}

static void laio_complete(LinuxAio *l, BdrvTrackedRequest *req, int64_t res)
{
    if (req->type == BDRV_REQ_FLUSH) {
        laio_complete_flush(l, req, res);
        return;
    }
    if (res == req->bytes) {
        bdrv_request_complete(req, 0);
    } else if (res >= 0 || res == -EAGAIN || res == -EINTR ||
               res == -EINVAL || res == -EOPNOTSUPP) {
        if (res < 0) {
            laio_note_unsupported(req, -res);
        }
        laio_to_worker(l, req);
    } else {
        bdrv_request_complete(req, res);
    }
}

static bool laio_ring_has_events(const LaioRing *r)
{
    return r->head != qatomic_load_acquire(&r->tail);
}

/* Take up to LAIO_BATCH completions from the ring; how many. */
static int laio_take_events(LinuxAio *l, struct io_event *events)
{
    LaioRing *r = l->ring;
    unsigned head, tail;
    int n = 0;

    if (!r) {
        struct timespec now = {};

        n = io_getevents(l->io, 0, LAIO_BATCH, events, &now);
        return MAX(n, 0);
    }
    head = r->head;
    tail = qatomic_load_acquire(&r->tail);
    while (head != tail && n < LAIO_BATCH) {
        events[n++] = r->events[head];
        head = head + 1 == r->nr ? 0 : head + 1;
    }
    /* The kernel may write there again only when we have read it. */
    qatomic_store_release(&r->head, head);
    return n;
}

static void laio_reap(LinuxAio *l)
{
    struct io_event events[LAIO_BATCH];
    int n;

    if (l->reaping) {
        return;
    }
    l->reaping = true;
    while (l->in_flight && (n = laio_take_events(l, events)) > 0) {
        l->in_flight -= n;
        for (int i = 0; i < n; i++) {
            l->quiet_in_flight -= laio_request(events[i].data)->entry.is_quiet;
            laio_complete(l, events[i].data, (int64_t)events[i].res);
        }
    }
    l->reaping = false;
    /* Of the quiet, none should be left; if the kernel begs to differ, look
     * again until it is done. */
    if (l->queue.first || l->quiet_in_flight) {
        aio_defer(l->ctx, &l->deferred);
    }
}

/* ---- Submission ---- */

/*
 * io_submit() refused the first request of the batch with @err.  True: go on
 * with the next; false: try again when something has completed.
 */
static bool laio_submit_failed(LinuxAio *l, int err)
{
    BdrvTrackedRequest *req;

    if (err == EINTR) {
        return true;
    }
    if (err == EAGAIN && l->in_flight) {
        return false;
    }
    req = file_queue_pop(&l->queue);
    laio_note_unsupported(req, err);
    laio_to_worker(l, req);
    return true;
}

/* The first requests of the queue that there is room for; how many. */
static int laio_collect(LinuxAio *l, struct iocb **iocbs)
{
    unsigned max = MIN(LAIO_CAPACITY - l->in_flight, LAIO_BATCH);
    BdrvTrackedRequest *req = l->queue.first;
    unsigned n = 0;

    while (req && n < max) {
        iocbs[n++] = &laio_request(req)->iocb;
        req = file_queue_entry(req)->next;
    }
    return n;
}

static void laio_submit_batch(LinuxAio *l)
{
    struct iocb *iocbs[LAIO_BATCH];
    int n, ret;

    while ((n = laio_collect(l, iocbs)) > 0) {
        ret = file_posix_ops->io_submit(l->io, n, iocbs);
        l->stats.submits++;
        if (ret <= 0) {
            if (laio_submit_failed(l, ret < 0 ? -ret : EAGAIN)) {
                continue;
            }
            break;
        }
        /* What is in the kernel may be complete, but we have not looked. */
        for (int i = 0; i < ret; i++) {
            l->quiet_in_flight +=
                file_queue_entry(file_queue_pop(&l->queue))->is_quiet;
        }
        l->in_flight += ret;
        l->stats.max_in_flight = MAX(l->stats.max_in_flight, l->in_flight);
    }
}

static void laio_deferred(AioDeferred *d)
{
    LinuxAio *l = container_of(d, LinuxAio, deferred);

    laio_submit_batch(l);
    laio_reap(l);
}

static void laio_prep(FileState *s, BdrvTrackedRequest *req,
                      const struct iovec *iov, int niov)
{
    struct iocb *iocb = &laio_request(req)->iocb;
    bool is_read = req->type == BDRV_REQ_READ;
    unsigned nowait = is_read ? FILE_NO_NOWAIT_READ : FILE_NO_NOWAIT_WRITE;

    if (niov == 1) {
        (is_read ? io_prep_pread : io_prep_pwrite)(
            iocb, s->h.fd, iov->iov_base, iov->iov_len, req->map_offset);
    } else {
        (is_read ? io_prep_preadv : io_prep_pwritev)(
            iocb, s->h.fd, iov, niov, req->map_offset);
    }
    /* tmpfs waits for nothing, and would only refuse the flag. */
    if (req->bytes <= LAIO_NOWAIT_MAX && !s->h.in_memory &&
        !file_lacks(s, nowait)) {
        iocb->aio_rw_flags |= RWF_NOWAIT;
    }
}

/* Make an iocb of @req; false if this is for a worker. */
static bool laio_prepare(FileState *s, BdrvTrackedRequest *req)
{
    const struct iovec *iov;
    struct iovec one;
    int niov;

    if (req->type == BDRV_REQ_FLUSH) {
        if (file_lacks(s, FILE_NO_AIO_FSYNC) || file_sync_error(s)) {
            return false;
        }
        io_prep_fdsync(&laio_request(req)->iocb, s->h.fd);
        file_queue_entry(req)->sync = file_sync_begin(s, req);
        return true;
    }
    if (req->type != BDRV_REQ_READ && req->type != BDRV_REQ_WRITE) {
        return false;
    }
    if (req->type == BDRV_REQ_WRITE && (req->flags & BDRV_REQ_FUA)) {
        return false;                   /* two calls, one after the other */
    }
    niov = file_request_iov(req, &iov, &one);
    if (niov == 0 || !file_iov_is_aligned(&s->h, iov, niov)) {
        return false;
    }
    laio_prep(s, req, iov, niov);
    return true;
}

/* ---- The engine of a context ---- */

static void laio_event_read(void *opaque)
{
    laio_reap(opaque);
}

static bool laio_event_poll(void *opaque)
{
    LinuxAio *l = opaque;

    return l->ring && l->in_flight && laio_ring_has_events(l->ring);
}

/* Each iocb was told to notify when it was submitted: nothing to turn off. */
static void laio_event_poll_edge(void *opaque)
{
}

static const AioHandlerOps laio_event_ops = {
    .read = laio_event_read,
    .poll = laio_event_poll,
    .poll_begin = laio_event_poll_edge,
    .poll_end = laio_event_poll_edge,
};

static void laio_destroy(void *opaque)
{
    LinuxAio *l = opaque;

    if (!l->failed) {
        aio_defer_cancel(&l->deferred);
        aio_set_event_notifier(l->ctx, &l->notifier, NULL, NULL);
        io_destroy(l->io);
        event_notifier_cleanup(&l->notifier);
    }
    g_free(l);
}

static bool laio_setup(LinuxAio *l)
{
    LaioRing *ring;

    if (event_notifier_init(&l->notifier, false) < 0) {
        return false;
    }
    if (io_setup(LAIO_CAPACITY, &l->io) < 0) {
        event_notifier_cleanup(&l->notifier);
        return false;
    }
    ring = (LaioRing *)l->io;
    if (ring->magic == LAIO_RING_MAGIC && ring->incompat_features == 0 &&
        ring->header_length == sizeof(LaioRing)) {
        l->ring = ring;
    }
    return true;
}

/* Made once a context, also if it fails: then all is left to workers. */
static LinuxAio *laio_create(AioContext *ctx)
{
    LinuxAio *l = g_new0(LinuxAio, 1);

    l->ctx = ctx;
    l->failed = !laio_setup(l);
    if (!l->failed) {
        l->stats.capacity = LAIO_CAPACITY;
        aio_deferred_init(&l->deferred, laio_deferred);
        aio_set_event_notifier(ctx, &l->notifier, &laio_event_ops, l);
    }
    aio_context_set_slot(ctx, AIO_SLOT_LINUX_AIO, l, laio_destroy);
    return l;
}

bool laio_available(void)
{
    io_context_t io = NULL;

    if (io_setup(1, &io) < 0) {
        return false;
    }
    io_destroy(io);
    return true;
}

static void laio_set_notification(LinuxAio *l, LaioRequest *lr, bool is_quiet)
{
    lr->entry.is_quiet = is_quiet;
    if (!is_quiet) {
        io_set_eventfd(&lr->iocb, event_notifier_get_fd(&l->notifier));
    }
}

bool laio_submit(FileState *s, BdrvTrackedRequest *req)
{
    LinuxAio *l = aio_context_get_slot(req->ctx, AIO_SLOT_LINUX_AIO);
    unsigned max_batch = MIN_NON_ZERO(s->max_batch, LAIO_BATCH);

    if (!l) {
        l = laio_create(req->ctx);
    }
    if (l->failed || !laio_prepare(s, req)) {
        return false;
    }
    file_queue_entry(req)->s = s;
    laio_set_notification(l, laio_request(req),
                          s->h.in_memory && req->type != BDRV_REQ_FLUSH);
    laio_request(req)->iocb.data = req;
    file_queue_push(&l->queue, req);
    l->stats.requests++;
    if (l->queue.length >= max_batch) {
        laio_submit_batch(l);
    }
    /* Also with an empty queue: to look at the ring. */
    aio_defer(l->ctx, &l->deferred);
    return true;
}

bool laio_cancel(BdrvTrackedRequest *req)
{
    LinuxAio *l = aio_context_get_slot(req->ctx, AIO_SLOT_LINUX_AIO);

    if (!l || !file_queue_remove(&l->queue, req)) {
        return false;
    }
    if (req->type == BDRV_REQ_FLUSH) {
        file_sync_forget(file_queue_entry(req)->sync);
    }
    return true;
}

void laio_get_stats(AioContext *ctx, FileEngineStats *stats)
{
    LinuxAio *l = aio_context_get_slot(ctx, AIO_SLOT_LINUX_AIO);

    *stats = l ? l->stats : (FileEngineStats){};
}
