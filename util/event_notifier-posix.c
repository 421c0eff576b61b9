/*
 * EventNotifier on POSIX: an eventfd, or a pipe where the system has none.
 *
 * Both ends are non-blocking.  A full pipe (or counter) means that the notifier
 * is raised, which is all that a setter wants.
 *
 * A descriptor that came from a peer shares its flags with the peer, who can
 * make it blocking between any two instructions of ours, fill the counter and
 * so stop a thread that serves others, too.  So nothing here relies on the
 * flags of such a file: reads, and writes to a pipe, say that they must not
 * wait (RWF_NOWAIT).  An eventfd has no such write.  But the kernel raises one
 * itself when something completes, and that never waits: a small io_uring of
 * its own, whose no-op completes at once, is the bell (0.2 us; a write takes
 * 0.12).  Where io_uring is not allowed, writing is all that is left.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/event_notifier.h"
#include "qemu/thread.h"

#include <sys/stat.h>
#ifdef __linux__
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#endif

/* Twice what a pipe holds. */
#define MAX_READS (2 * 65536 / 512)

static int init_pipe(EventNotifier *e)
{
    int fds[2];

    if (pipe(fds) < 0) {
        return -errno;
    }
    for (int i = 0; i < 2; i++) {
        if (fcntl(fds[i], F_SETFD, FD_CLOEXEC) < 0 ||
            fcntl(fds[i], F_SETFL, O_NONBLOCK) < 0) {
            int ret = -errno;

            close(fds[0]);
            close(fds[1]);
            return ret;
        }
    }
    e->rfd = fds[0];
    e->wfd = fds[1];
    return 0;
}

/* No notifier, of nobody. */
static void init_none(EventNotifier *e)
{
    *e = (EventNotifier){ .rfd = -1, .wfd = -1 };
}

static int init_fds(EventNotifier *e)
{
#ifdef __linux__
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd >= 0) {
        e->rfd = e->wfd = fd;
        return 0;
    }
    if (errno != ENOSYS) {
        return -errno;
    }
#endif
    return init_pipe(e);
}

int event_notifier_init_pipe(EventNotifier *e)
{
    init_none(e);
    return init_pipe(e);
}

int event_notifier_init(EventNotifier *e, bool active)
{
    int ret;

    init_none(e);
    ret = init_fds(e);
    if (ret == 0 && active) {
        ret = event_notifier_set(e);
        if (ret < 0) {
            event_notifier_cleanup(e);
        }
    }
    return ret;
}

/*
 * Is @fd what it should be?  Asks /proc, as any operation on the file of a
 * hostile peer's file system might never return.  Where there is no /proc, any
 * file that is none of a file system's will do.
 */
static bool is_notifier_fd(int fd)
{
    char path[40], target[32] = "";
    struct stat st;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (readlink(path, target, sizeof(target) - 1) >= 0) {
        return !strcmp(target, "anon_inode:[eventfd]") ||
               !strncmp(target, "pipe:[", 6);
    }
    return access("/proc/self/fd", F_OK) < 0 && fstat(fd, &st) == 0 &&
           (S_ISFIFO(st.st_mode) || !(st.st_mode & S_IFMT));
}

int event_notifier_init_fd(EventNotifier *e, int fd)
{
    int flags;

    init_none(e);
    if (!is_notifier_fd(fd)) {
        return -EINVAL;
    }
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        return -errno;
    }
    e->rfd = e->wfd = fd;
    e->foreign = true;
    return 0;
}

/* ---- Descriptors that a peer has, too ---- */

#ifdef __linux__

typedef struct EventBell {
    struct io_uring ring;
    bool has_ring;              /* else it is a pipe, or there is no ring */
} EventBell;

/*
 * Held while a ring comes or goes.  One may get the memory that another one had
 * in another thread; the kernel sees to the order, but ThreadSanitizer does not
 * see what liburing maps.
 */
static QemuMutex ring_lock = QEMU_MUTEX_INITIALIZER;

static void bell_exit_ring(EventBell *bell)
{
    qemu_mutex_lock(&ring_lock);
    io_uring_queue_exit(&bell->ring);
    bell->has_ring = false;
    qemu_mutex_unlock(&ring_lock);
}

static void bell_init_ring(EventBell *bell, int fd)
{
    int ret;

    qemu_mutex_lock(&ring_lock);
    ret = io_uring_queue_init(1, &bell->ring, 0);
    qemu_mutex_unlock(&ring_lock);
    bell->has_ring = ret == 0;
    if (bell->has_ring && io_uring_register_eventfd(&bell->ring, fd) < 0) {
        bell_exit_ring(bell);
    }
}

static void bell_free(EventNotifier *e)
{
    if (e->bell && e->bell->has_ring) {
        bell_exit_ring(e->bell);
    }
    free(e->bell);
    e->bell = NULL;
}

/* Made when it is first rung: most descriptors are only read. */
static EventBell *bell_get(EventNotifier *e)
{
    EventBell *bell = e->bell;

    if (bell) {
        return bell;
    }
    bell = e->bell = calloc(1, sizeof(*bell));
    if (bell) {
        bell_init_ring(bell, e->wfd);
    }
    return bell;
}

/* False: there is no way to do so without waiting. */
static bool bell_ring(EventNotifier *e)
{
    EventBell *bell = bell_get(e);
    struct io_uring_sqe *sqe;
    int ret;

    sqe = bell && bell->has_ring ? io_uring_get_sqe(&bell->ring) : NULL;
    if (!sqe) {
        return false;
    }
    io_uring_prep_nop(sqe);
    do {
        ret = io_uring_submit(&bell->ring);
    } while (ret == -EINTR);
    if (ret != 1) {
        /* Short of memory; the kernel did not take it, and never will. */
        bell_exit_ring(bell);
        return false;
    }
    io_uring_cq_advance(&bell->ring, io_uring_cq_ready(&bell->ring));
    return true;
}

/* As write() and read(); @supported: or else nothing was done. */
static ssize_t write_nowait(EventNotifier *e, const void *buf, size_t len,
                            bool *supported)
{
    struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
    ssize_t n = RETRY_ON_EINTR(pwritev2(e->wfd, &iov, 1, -1, RWF_NOWAIT));

    *supported = n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS);
    return n;
}

static ssize_t read_nowait(EventNotifier *e, void *buf, size_t len,
                           bool *supported)
{
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    ssize_t n = RETRY_ON_EINTR(preadv2(e->rfd, &iov, 1, -1, RWF_NOWAIT));

    *supported = n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS);
    return n;
}

#endif

void event_notifier_cleanup(EventNotifier *e)
{
    if (!event_notifier_is_valid(e)) {
        return;
    }
#ifdef __linux__
    bell_free(e);
#endif
    if (e->wfd != e->rfd) {
        close(e->wfd);
    }
    close(e->rfd);
    e->rfd = e->wfd = -1;
}

bool event_notifier_is_valid(const EventNotifier *e)
{
    return e->rfd >= 0;
}

int event_notifier_get_fd(const EventNotifier *e)
{
    return e->rfd;
}

static ssize_t notifier_write(EventNotifier *e)
{
    /* An eventfd wants eight bytes, a pipe takes any. */
    static const uint64_t one = 1;

#ifdef __linux__
    if (e->foreign) {
        bool supported = bell_ring(e);
        ssize_t n = supported ? (ssize_t)sizeof(one) :
                    write_nowait(e, &one, sizeof(one), &supported);

        if (supported) {
            return n;
        }
    }
#endif
    return RETRY_ON_EINTR(write(e->wfd, &one, sizeof(one)));
}

int event_notifier_set(EventNotifier *e)
{
    int saved_errno = errno;        /* of what a signal handler interrupted */
    ssize_t n = notifier_write(e);
    int ret = n < 0 && errno != EAGAIN ? -errno : 0;

    errno = saved_errno;
    return ret;
}

static ssize_t notifier_read(EventNotifier *e, void *buf, size_t len)
{
#ifdef __linux__
    if (e->foreign) {
        bool supported;
        ssize_t n = read_nowait(e, buf, len, &supported);

        if (supported) {
            return n;
        }
    }
#endif
    return RETRY_ON_EINTR(read(e->rfd, buf, len));
}

bool event_notifier_test_and_clear(EventNotifier *e)
{
    char buf[512];
    bool raised = false;
    int reads = MAX_READS;
    ssize_t n;

    /* An eventfd is lowered by one read; a pipe when it is empty, but a peer
     * may fill it as fast as we read. */
    do {
        n = notifier_read(e, buf, sizeof(buf));
        raised |= n > 0;
    } while (n == sizeof(buf) && --reads > 0);
    return raised;
}
