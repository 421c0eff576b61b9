/*
 * The io_uring engine: one ring a context, used by the context's thread alone.
 *
 * Requests wait in a batch until the loop ends its iteration; then one
 * io_uring_enter() submits them and lets the kernel finish what is complete
 * (DEFER_TASKRUN: completions are worked off there and then, not whenever the
 * kernel pleases).  There are never more in flight than the completion queue
 * holds, so it cannot overflow.  An eventfd in the loop says when to look (the
 * ring's own descriptor does not become readable by deferred task work, as of
 * Linux 6.18); busy polling turns that off and reads the ring's memory.
 *
 * Everything that is not plain success or a plain error is left to a worker,
 * which does the request again from the start: short transfers, EAGAIN, calls
 * that the file does not have.  So is everything if the kernel gives us no ring
 * or stops taking requests.
 *
 * A ring obeys the thread that made it (SINGLE_ISSUER).  A context that has
 * changed hands gets a new ring, once nothing is in flight in the old one.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <linux/falloc.h>
#include "io_uring.h"

/* In flight at a time; the completion queue has twice as many entries. */
#define URING_CAPACITY 256
/* A length in a submission entry has 32 bits, and no call transfers 2 GiB. */
#define URING_MAX_BYTES (1 * GiB)

typedef struct UringRequest {
    FileQueueEntry entry;
    const struct iovec *iov;    /* read and write */
    struct iovec one;
    int niov;
} UringRequest;
_Static_assert(sizeof(UringRequest) <= BDRV_REQ_ENGINE_WORDS * 8,
               "fits into the request");

static UringRequest *uring_request(BdrvTrackedRequest *req)
{
    return (UringRequest *)req->engine;
}

/* ---- Making rings ---- */

static int uring_try_setup(struct io_uring *ring, unsigned entries,
                           unsigned flags)
{
    struct io_uring_params params = { .flags = flags };

    return io_uring_queue_init_params(entries, ring, &params);
}

/* The best that this kernel has; 0 or -errno. */
static int uring_setup_ring(struct io_uring *ring, unsigned entries)
{
    static const unsigned ways[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
        IORING_SETUP_SUBMIT_ALL,
        0,
    };
    static int first_way;       /* atomic: those before do not work here */
    int ret = -EINVAL;

    for (int i = qatomic_read(&first_way); i < (int)ARRAY_SIZE(ways); i++) {
        ret = uring_try_setup(ring, entries, ways[i]);
        if (ret != -EINVAL) {
            qatomic_set(&first_way, i);
            break;
        }
    }
    return ret;
}

bool uring_available(void)
{
    enum { UNKNOWN, NO, YES };
    static int known;           /* atomic */
    struct io_uring ring;

    if (qatomic_read(&known) == UNKNOWN) {
        int ret = uring_setup_ring(&ring, 4);

        if (ret == 0) {
            io_uring_queue_exit(&ring);
        }
        qatomic_set(&known, ret == 0 ? YES : NO);
    }
    return qatomic_read(&known) == YES;
}

/* ---- Completions ---- */

static void uring_to_worker(Uring *u, BdrvTrackedRequest *req)
{
    if (req->type == BDRV_REQ_FLUSH) {
        file_sync_forget(file_queue_entry(req)->sync);
    }
    u->stats.retried++;
    bdrv_request_to_worker(req);
}

static bool is_for_worker(int res)
{
    return res == -EAGAIN || res == -EINTR || res == -EINVAL ||
           res == -EOPNOTSUPP || res == -EFAULT;
}

static void uring_complete(Uring *u, BdrvTrackedRequest *req, int res)
{
    bool is_rw = req->type == BDRV_REQ_READ || req->type == BDRV_REQ_WRITE;

    if (is_for_worker(res) || (is_rw && res >= 0 && res != req->bytes)) {
        uring_to_worker(u, req);
    } else if (req->type == BDRV_REQ_FLUSH) {
        file_sync_complete(file_queue_entry(req)->sync, MIN(res, 0));
    } else {
        bdrv_request_complete(req, MIN(res, 0));
    }
}

static bool uring_has_events(Uring *u)
{
    return io_uring_cq_ready(&u->ring) ||
           (__atomic_load_n(u->ring.sq.kflags, __ATOMIC_ACQUIRE) &
            IORING_SQ_TASKRUN);
}

/* Handle what is in the completion queue.  Callbacks may submit: that only
 * queues. */
static void uring_reap(Uring *u)
{
    struct io_uring_cqe *cqe;
    bool reaped = false;

    if (u->reaping) {
        return;
    }
    u->reaping = true;
    while (io_uring_cq_ready(&u->ring) &&
           io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        BdrvTrackedRequest *req = io_uring_cqe_get_data(cqe);
        int res = cqe->res;

        io_uring_cqe_seen(&u->ring, cqe);
        u->in_flight--;
        reaped = true;
        if (req) {
            uring_complete(u, req, res);
        }
    }
    u->reaping = false;
    /*
     * The kernel may have taken only a part, and what it took be complete:
     * then no completion to come would bring us back for the rest.
     */
    if (u->queue.first || (reaped && io_uring_sq_ready(&u->ring))) {
        aio_defer(u->ctx, &u->deferred);
    }
}

/* ---- Submission ---- */

static void prep_rw(Uring *u, BdrvTrackedRequest *req, struct io_uring_sqe *sqe)
{
    const UringRequest *ur = uring_request(req);
    bool is_read = req->type == BDRV_REQ_READ;
    int fd = ur->entry.s->h.fd;
    int buf = -1;

    if (ur->niov != 1) {
        (is_read ? io_uring_prep_readv : io_uring_prep_writev)(
            sqe, fd, ur->iov, ur->niov, req->map_offset);
    } else {
        if (req->flags & BDRV_REQ_REGISTERED_BUF) {
            buf = uring_buf_slot(u, ur->iov);
        }
        io_uring_prep_rw(buf < 0 ? is_read ? IORING_OP_READ : IORING_OP_WRITE
                         : is_read ? IORING_OP_READ_FIXED
                                   : IORING_OP_WRITE_FIXED,
                         sqe, fd, ur->iov->iov_base, ur->iov->iov_len,
                         req->map_offset);
        if (buf >= 0) {
            sqe->buf_index = buf;
            u->stats.fixed_buf++;
            bdrv_request_is_registered(req);
        }
    }
}

static void uring_prep(Uring *u, BdrvTrackedRequest *req,
                       struct io_uring_sqe *sqe)
{
    FileState *s = file_queue_entry(req)->s;
    int slot;

    switch (req->type) {
    case BDRV_REQ_FLUSH:
        io_uring_prep_fsync(sqe, s->h.fd, IORING_FSYNC_DATASYNC);
        break;
    case BDRV_REQ_WRITE_ZEROES:
        io_uring_prep_fallocate(sqe, s->h.fd, FALLOC_FL_ZERO_RANGE,
                                req->map_offset, req->bytes);
        break;
    case BDRV_REQ_DISCARD:
        io_uring_prep_fallocate(sqe, s->h.fd, FALLOC_FL_PUNCH_HOLE |
                                FALLOC_FL_KEEP_SIZE, req->map_offset,
                                req->bytes);
        break;
    default:
        prep_rw(u, req, sqe);
        break;
    }
    slot = uring_file_slot(u, &s->h);
    if (slot >= 0) {
        sqe->fd = slot;
        sqe->flags |= IOSQE_FIXED_FILE;
        u->stats.fixed_file++;
    }
    io_uring_sqe_set_data(sqe, req);
}

static void uring_fill(Uring *u)
{
    struct io_uring_sqe *sqe;

    while (u->queue.first && u->in_flight < URING_CAPACITY &&
           (sqe = io_uring_get_sqe(&u->ring))) {
        uring_prep(u, file_queue_pop(&u->queue), sqe);
        u->in_flight++;
    }
    u->stats.max_in_flight = MAX(u->stats.max_in_flight, u->in_flight);
}

/*
 * The kernel does not take what is in the submission queue: hand it to workers.
 * Its entries cannot be taken back; they become no-ops, to complete (for
 * nobody) when the kernel does take them.
 */
static void uring_unload(Uring *u)
{
    struct io_uring_sq *sq = &u->ring.sq;
    unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);

    for (; head != sq->sqe_tail; head++) {
        struct io_uring_sqe *sqe = &sq->sqes[head & sq->ring_mask];
        BdrvTrackedRequest *req = (void *)(uintptr_t)sqe->user_data;

        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data(sqe, NULL);
        if (req) {
            uring_to_worker(u, req);
        }
    }
}

/* It never will: everything is for workers, from now on. */
static void uring_give_up(Uring *u)
{
    u->failed = true;
    u->in_flight -= io_uring_sq_ready(&u->ring);
    uring_unload(u);
    while (u->queue.first) {
        uring_to_worker(u, file_queue_pop(&u->queue));
    }
}

/* Submit what is queued and have the kernel finish what it can. */
static void uring_enter(Uring *u)
{
    unsigned pending;
    int ret;

    uring_fill(u);
    pending = io_uring_sq_ready(&u->ring);
    if (pending == 0 && !uring_has_events(u)) {
        return;
    }
    do {
        ret = file_posix_ops->uring_enter(&u->ring);
    } while (ret == -EINTR);
    u->stats.submits += pending > 0;
    if (ret != -EAGAIN && ret != -EBUSY) {
        if (ret < 0) {
            uring_give_up(u);
        }
    } else if (u->in_flight <= pending) {
        /* Short of memory, and no completion to come would bring us back. */
        uring_unload(u);
    }
}

static void uring_deferred(AioDeferred *d)
{
    Uring *u = container_of(d, Uring, deferred);

    if (!u->failed) {
        uring_enter(u);
    } else if (u->in_flight) {
        io_uring_get_events(&u->ring);
    }
    uring_reap(u);
}

/* Can the ring do it?  Fills in the request's part of the engine area. */
static bool uring_prepare(FileState *s, BdrvTrackedRequest *req)
{
    UringRequest *ur = uring_request(req);

    switch (req->type) {
    case BDRV_REQ_READ:
    case BDRV_REQ_WRITE:
        if (req->type == BDRV_REQ_WRITE && (req->flags & BDRV_REQ_FUA)) {
            return false;               /* two calls, one after the other */
        }
        ur->niov = file_request_iov(req, &ur->iov, &ur->one);
        return ur->niov > 0 && req->bytes <= URING_MAX_BYTES &&
               (!s->h.direct ||
               file_iov_is_aligned(&s->h, ur->iov, ur->niov));
    case BDRV_REQ_FLUSH:
        if (file_sync_error(s) || file_lacks(s, FILE_NO_FSYNC)) {
            return false;
        }
        file_queue_entry(req)->sync = file_sync_begin(s, req);
        return true;
    case BDRV_REQ_WRITE_ZEROES:
        return !s->h.is_device && !(req->flags & BDRV_REQ_MAY_UNMAP) &&
               !file_lacks(s, FILE_NO_ZERO_RANGE);
    case BDRV_REQ_DISCARD:
        return !s->h.is_device && !file_lacks(s, FILE_NO_PUNCH_HOLE);
    default:
        return false;
    }
}

/* ---- The engine of a context ---- */

/* Entering is left to the end of the iteration, to be done once for both. */
static void uring_event_read(void *opaque)
{
    Uring *u = opaque;

    aio_defer(u->ctx, &u->deferred);
}

static bool uring_event_poll(void *opaque)
{
    Uring *u = opaque;

    return u->in_flight && uring_has_events(u);
}

static void uring_event_poll_begin(void *opaque)
{
    Uring *u = opaque;

    io_uring_cq_eventfd_toggle(&u->ring, false);
}

static void uring_event_poll_end(void *opaque)
{
    Uring *u = opaque;

    io_uring_cq_eventfd_toggle(&u->ring, true);
}

static const AioHandlerOps uring_event_ops = {
    .read = uring_event_read,
    .poll = uring_event_poll,
    .poll_begin = uring_event_poll_begin,
    .poll_end = uring_event_poll_end,
};

static bool uring_open_ring(Uring *u)
{
    u->submitter = pthread_self();
    if (event_notifier_init(&u->notifier, false) < 0) {
        return false;
    }
    if (uring_setup_ring(&u->ring, URING_CAPACITY) < 0) {
        event_notifier_cleanup(&u->notifier);
        return false;
    }
    if (io_uring_register_eventfd(&u->ring,
                                  event_notifier_get_fd(&u->notifier)) < 0) {
        io_uring_queue_exit(&u->ring);
        event_notifier_cleanup(&u->notifier);
        return false;
    }
    u->stats.capacity = URING_CAPACITY;
    uring_fixed_init(u);
    aio_set_event_notifier(u->ctx, &u->notifier, &uring_event_ops, u);
    return true;
}

static void uring_close_ring(Uring *u)
{
    if (u->stats.capacity) {
        aio_set_event_notifier(u->ctx, &u->notifier, NULL, NULL);
        uring_fixed_destroy(u);
        io_uring_queue_exit(&u->ring);
        event_notifier_cleanup(&u->notifier);
        u->stats.capacity = 0;
    }
}

static void uring_destroy(void *opaque)
{
    Uring *u = opaque;

    aio_defer_cancel(&u->deferred);
    uring_close_ring(u);
    g_free(u);
}

/* The context's engine, fit for this thread; NULL: there is none now. */
static Uring *uring_get(AioContext *ctx)
{
    Uring *u = aio_context_get_slot(ctx, AIO_SLOT_IO_URING);

    if (unlikely(!u)) {
        u = g_new0(Uring, 1);
        u->ctx = ctx;
        aio_deferred_init(&u->deferred, uring_deferred);
        u->failed = !uring_open_ring(u);
        aio_context_set_slot(ctx, AIO_SLOT_IO_URING, u, uring_destroy);
    } else if (unlikely(!pthread_equal(u->submitter, pthread_self()))) {
        if (u->in_flight || u->queue.first) {
            return NULL;
        }
        uring_close_ring(u);
        u->failed = !uring_open_ring(u);
    }
    return u->failed ? NULL : u;
}

bool uring_submit(FileState *s, BdrvTrackedRequest *req)
{
    Uring *u = uring_get(req->ctx);

    if (!u || !uring_prepare(s, req)) {
        return false;
    }
    file_queue_entry(req)->s = s;
    file_queue_push(&u->queue, req);
    u->stats.requests++;
    if (s->max_batch && u->queue.length >= s->max_batch) {
        uring_enter(u);
    }
    aio_defer(u->ctx, &u->deferred);
    return true;
}

bool uring_cancel(BdrvTrackedRequest *req)
{
    Uring *u = uring_get(req->ctx);
    struct io_uring_sqe *sqe;

    if (!u) {
        return false;
    }
    if (file_queue_remove(&u->queue, req)) {
        if (req->type == BDRV_REQ_FLUSH) {
            file_sync_forget(file_queue_entry(req)->sync);
        }
        return true;
    }
    /* Its own completion counts against the capacity like any other. */
    if (u->in_flight < URING_CAPACITY &&
        (sqe = io_uring_get_sqe(&u->ring))) {
        io_uring_prep_cancel(sqe, req, 0);
        io_uring_sqe_set_data(sqe, NULL);
        u->in_flight++;
        aio_defer(u->ctx, &u->deferred);
    }
    return false;
}

void uring_get_stats(AioContext *ctx, FileEngineStats *stats)
{
    Uring *u = aio_context_get_slot(ctx, AIO_SLOT_IO_URING);

    *stats = u ? u->stats : (FileEngineStats){};
}
