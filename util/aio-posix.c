/*
 * Waiting for file descriptors and event notifiers with epoll.
 *
 * A handler is known to the kernel by its address (epoll's data pointer).  One
 * that is removed while handlers are being called, perhaps its own, is only
 * marked: its address may still stand in the array that epoll_wait filled, and
 * somebody is walking the list.  When nobody is, it is freed.
 *
 * Busy polling asks the handlers that can tell cheaply (poll) whether there is
 * work.  Between poll_begin and poll_end the other side need not notify; the
 * loop stays in that mode from one iteration to the next as long as it finds
 * work, and leaves it before it sleeps: poll_end, then poll all of them once
 * more.  An iteration that does not sleep polls, too: epoll knows nothing of
 * what was not notified.
 *
 * All of it runs in the owner thread, so nothing here locks.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error.h"
#include "aio-internal.h"

#include <sys/epoll.h>
#include <sys/syscall.h>

#define MAX_EVENTS 64
#define NS_PER_MS INT64_C(1000000)

typedef struct AioHandler {
    int fd;
    EventNotifier *notifier;    /* NULL: a plain file descriptor */
    const AioHandlerOps *ops;
    void *opaque;
    bool polling;               /* between poll_begin and poll_end */
    bool deleted;               /* to be freed when nobody is walking */
    ListNode node;
} AioHandler;

struct AioWaiter {
    int epfd;
    int walking;                /* calls in progress that use handlers */
    bool any_deleted;
    bool poll_mode;             /* pollable handlers are polling */
    bool no_pwait2;             /* there is no epoll_pwait2 for us */
    int n_pollable;
    List handlers;
};

static void own_notifier_read(void *opaque)
{
    /* Cleared already; what it announced is in the inbox. */
}

static const AioHandlerOps own_notifier_ops = { .read = own_notifier_read };

static AioHandler *find_handler(AioWaiter *w, int fd)
{
    AioHandler *h;

    list_for_each(h, &w->handlers, node) {
        if (h->fd == fd && !h->deleted) {
            return h;
        }
    }
    return NULL;
}

static void walk_begin(AioWaiter *w)
{
    w->walking++;
}

static void walk_end(AioWaiter *w)
{
    AioHandler *h, *next;

    if (--w->walking > 0 || !w->any_deleted) {
        return;
    }
    w->any_deleted = false;
    list_for_each_safe(h, next, &w->handlers, node) {
        if (h->deleted) {
            list_remove(&h->node);
            g_free(h);
        }
    }
}

static void begin_polling(AioHandler *h)
{
    if (h->ops->poll && !h->polling && !h->deleted) {
        h->polling = true;
        h->ops->poll_begin(h->opaque);
    }
}

static void end_polling(AioHandler *h)
{
    if (h->polling) {
        h->polling = false;
        h->ops->poll_end(h->opaque);
    }
}

static void remove_handler(AioWaiter *w, AioHandler *h)
{
    /* A descriptor that was closed first, but lives on in another process,
     * would go on reporting events for memory that is freed. */
    if (epoll_ctl(w->epfd, EPOLL_CTL_DEL, h->fd, NULL) < 0) {
        error_report("file descriptor %d closed before its handler was "
                     "removed: %s", h->fd, strerror(errno));
        abort();
    }
    walk_begin(w);
    w->n_pollable -= h->ops->poll != NULL;
    h->deleted = true;
    w->any_deleted = true;
    end_polling(h);
    walk_end(w);
}

static void add_handler(AioWaiter *w, int fd, EventNotifier *notifier,
                        const AioHandlerOps *ops, void *opaque)
{
    AioHandler *h = g_new0(AioHandler, 1);
    struct epoll_event ev = {
        .events = (ops->read ? EPOLLIN : 0) | (ops->write ? EPOLLOUT : 0),
        .data.ptr = h,
    };

    h->fd = fd;
    h->notifier = notifier;
    h->ops = ops;
    h->opaque = opaque;
    list_push_back(&w->handlers, &h->node);
    if (epoll_ctl(w->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        /* The caller's mistake (or a file that is always ready), or the
         * system is out of memory: nothing will ever be handled. */
        error_report("cannot watch file descriptor %d: %s", fd,
                     strerror(errno));
        abort();
    }
    if (ops->poll) {
        w->n_pollable++;
        if (w->poll_mode) {
            walk_begin(w);
            begin_polling(h);
            walk_end(w);
        }
    }
}

static void set_handler(AioContext *ctx, int fd, EventNotifier *notifier,
                        const AioHandlerOps *ops, void *opaque)
{
    AioWaiter *w = ctx->waiter;
    AioHandler *old = find_handler(w, fd);

    if (old) {
        remove_handler(w, old);
    }
    if (ops) {
        add_handler(w, fd, notifier, ops, opaque);
    }
}

void aio_set_fd_handler(AioContext *ctx, int fd, const AioHandlerOps *ops,
                        void *opaque)
{
    set_handler(ctx, fd, NULL, ops, opaque);
}

void aio_set_event_notifier(AioContext *ctx, EventNotifier *e,
                            const AioHandlerOps *ops, void *opaque)
{
    set_handler(ctx, event_notifier_get_fd(e), e, ops, opaque);
}

bool aio_can_watch_fd(AioContext *ctx, int fd)
{
    struct epoll_event ev = { 0 };
    bool ok = epoll_ctl(ctx->waiter->epfd, EPOLL_CTL_ADD, fd, &ev) == 0;

    if (ok) {
        epoll_ctl(ctx->waiter->epfd, EPOLL_CTL_DEL, fd, NULL);
    }
    return ok || errno != EPERM;
}

AioWaiter *aio_waiter_new(AioContext *ctx, Error **errp)
{
    AioWaiter *w;
    int epfd = epoll_create1(EPOLL_CLOEXEC);

    if (epfd < 0) {
        error_setg_errno(errp, errno, "Could not create an epoll instance");
        return NULL;
    }
    w = g_new0(AioWaiter, 1);
    w->epfd = epfd;
    list_init(&w->handlers);
    add_handler(w, event_notifier_get_fd(&ctx->notifier), &ctx->notifier,
                &own_notifier_ops, NULL);
    return w;
}

void aio_waiter_free(AioWaiter *w)
{
    AioHandler *h;

    while ((h = list_first(&w->handlers, AioHandler, node))) {
        remove_handler(w, h);
    }
    close(w->epfd);
    g_free(w);
}

/* ---- Dispatch ---- */

static bool call_handler(AioHandler *h, uint32_t events)
{
    const uint32_t failed = EPOLLHUP | EPOLLERR;
    const AioHandlerOps *ops = h->ops;

    if (h->deleted) {
        return false;
    }
    if (ops->read && (events & (EPOLLIN | failed))) {
        if (h->notifier) {
            event_notifier_test_and_clear(h->notifier);
        }
        ops->read(h->opaque);
    }
    /* It may have removed itself, and its ops may be gone. */
    if (!h->deleted && ops->write && (events & (EPOLLOUT | failed))) {
        ops->write(h->opaque);
    }
    return true;
}

static bool dispatch(AioWaiter *w, const struct epoll_event *events, int n)
{
    bool progress = false;
    int i;

    walk_begin(w);
    for (i = 0; i < n; i++) {
        progress |= call_handler(events[i].data.ptr, events[i].events);
    }
    walk_end(w);
    return progress;
}

static int wait_ms(AioWaiter *w, struct epoll_event *events, int64_t timeout_ns)
{
    int64_t ms = timeout_ns < 0 ? -1 :
                 DIV_ROUND_UP(timeout_ns, NS_PER_MS);

    return epoll_wait(w->epfd, events, MAX_EVENTS, MIN(ms, INT_MAX));
}

static int wait_events(AioWaiter *w, struct epoll_event *events,
                       int64_t timeout_ns)
{
#ifdef SYS_epoll_pwait2
    if (timeout_ns > 0 && !w->no_pwait2) {
        /* Always 64 bits to the kernel, unlike libc's timespec. */
        struct { int64_t s, ns; } ts = { timeout_ns / (1000 * NS_PER_MS),
                                         timeout_ns % (1000 * NS_PER_MS) };
        int n = syscall(SYS_epoll_pwait2, w->epfd, events, MAX_EVENTS, &ts,
                        NULL, 0);

        if (n >= 0 || errno == EINTR) {
            return n;
        }
        w->no_pwait2 = true;            /* ENOSYS; EPERM of old sandboxes */
    }
#endif
    return wait_ms(w, events, timeout_ns);
}

/* ---- Busy polling ---- */

static void enter_poll_mode(AioWaiter *w)
{
    AioHandler *h;

    w->poll_mode = true;
    walk_begin(w);
    list_for_each(h, &w->handlers, node) {
        begin_polling(h);
    }
    walk_end(w);
}

/* Call the handlers that say there is something for them. */
static bool poll_handlers(AioWaiter *w)
{
    AioHandler *h;
    bool progress = false;

    walk_begin(w);
    list_for_each(h, &w->handlers, node) {
        if (!h->deleted && h->ops->poll && h->ops->poll(h->opaque)) {
            progress = true;
            h->ops->read(h->opaque);
        }
    }
    walk_end(w);
    return progress;
}

bool aio_waiter_end_polling(AioContext *ctx)
{
    AioWaiter *w = ctx->waiter;
    AioHandler *h;

    if (!w->poll_mode) {
        return false;
    }
    w->poll_mode = false;
    walk_begin(w);
    list_for_each(h, &w->handlers, node) {
        end_polling(h);
    }
    walk_end(w);
    return poll_handlers(w);
}

bool aio_waiter_busy_poll(AioContext *ctx, int64_t ns)
{
    AioWaiter *w = ctx->waiter;
    int64_t end;

    if (!w->n_pollable) {
        return false;
    }
    if (!w->poll_mode) {
        enter_poll_mode(w);
    }
    end = qemu_clock_ns() + ns;
    do {
        if (poll_handlers(w) || aio_has_pending_work(ctx) ||
            qatomic_read(&ctx->notified) || !aio_timer_timeout_ns(ctx)) {
            return true;
        }
        cpu_relax();
    } while (qemu_clock_ns() < end);
    return false;
}

bool aio_waiter_wait(AioContext *ctx, int64_t timeout_ns)
{
    AioWaiter *w = ctx->waiter;
    struct epoll_event events[MAX_EVENTS];
    bool progress = w->poll_mode && poll_handlers(w);
    int n;

    assert(!timeout_ns || !w->poll_mode);
    n = wait_events(w, events, timeout_ns);
    /* Awake: whoever schedules work from here on need not ring. */
    qatomic_set(&ctx->notify_me, 0);
    if (n < 0) {
        assert(errno == EINTR);
        return progress;
    }
    return dispatch(w, events, n) || progress;
}
