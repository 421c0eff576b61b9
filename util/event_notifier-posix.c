/*
 * EventNotifier on POSIX: an eventfd, or a pipe where the system has none.
 *
 * Both ends are non-blocking.  A full pipe (or counter) means that the notifier
 * is raised, which is all that a setter wants.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/event_notifier.h"

#include <sys/stat.h>
#ifdef __linux__
#include <sys/eventfd.h>
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
    e->rfd = e->wfd = -1;
    return init_pipe(e);
}

int event_notifier_init(EventNotifier *e, bool active)
{
    int ret;

    e->rfd = e->wfd = -1;
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

    e->rfd = e->wfd = -1;
    if (!is_notifier_fd(fd)) {
        return -EINVAL;
    }
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        return -errno;
    }
    e->rfd = e->wfd = fd;
    return 0;
}

void event_notifier_cleanup(EventNotifier *e)
{
    if (!event_notifier_is_valid(e)) {
        return;
    }
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

int event_notifier_set(EventNotifier *e)
{
    /* An eventfd wants eight bytes, a pipe takes any. */
    static const uint64_t one = 1;
    int saved_errno = errno;        /* of what a signal handler interrupted */
    ssize_t n = RETRY_ON_EINTR(write(e->wfd, &one, sizeof(one)));
    int ret = n < 0 && errno != EAGAIN ? -errno : 0;

    errno = saved_errno;
    return ret;
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
        n = RETRY_ON_EINTR(read(e->rfd, buf, sizeof(buf)));
        raised |= n > 0;
    } while (n == sizeof(buf) && --reads > 0);
    return raised;
}
