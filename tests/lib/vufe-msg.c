/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The message layer of the vhost-user front end: see vufe-msg.h.
 *
 * The socket is non-blocking and each wait is a poll() against a deadline, so
 * that a back end which stops reading, or stops answering in the middle of a
 * message, costs a test its timeout and not its life.  Nothing that arrives is
 * trusted: sizes are checked before they are used, and descriptors that nobody
 * asked for are closed.
 */
#include "vufe-msg.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Rings have threads of their own, and a dying peer fails all at once.  (Not
 * GMutex: ThreadSanitizer cannot see into glib.) */
static pthread_mutex_t err_lock = PTHREAD_MUTEX_INITIALIZER;

int vufe_fail(VufeConn *conn, int ret, const char *fmt, ...)
{
    va_list ap;
    int n;

    pthread_mutex_lock(&err_lock);
    va_start(ap, fmt);
    n = vsnprintf(conn->err, sizeof(conn->err), fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof(conn->err)) {
        snprintf(conn->err + n, sizeof(conn->err) - n, ": %s",
                 g_strerror(-ret));
    }
    pthread_mutex_unlock(&err_lock);
    return ret;
}

/* Waits for @events until the monotonic time @deadline (in microseconds). */
static int wait_fd(int fd, short events, int64_t deadline)
{
    struct pollfd pfd = { .fd = fd, .events = events };

    for (;;) {
        int64_t left = deadline - g_get_monotonic_time();
        int n = poll(&pfd, 1, left > 0 ? (int)((left + 999) / 1000) : 0);

        if (n > 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0 && left <= 0) {
            return -ETIMEDOUT;
        }
    }
}

static int64_t deadline_of(const VufeConn *conn, int timeout_ms)
{
    int ms = timeout_ms < 0 ? conn->timeout_ms : timeout_ms;

    return g_get_monotonic_time() + (int64_t)ms * 1000;
}

void vufe_conn_adopt(VufeConn *conn, int fd, int timeout_ms)
{
    memset(conn, 0, sizeof(*conn));
    conn->fd = fd;
    conn->timeout_ms = timeout_ms;
    if (fd >= 0) {
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    }
}

static int try_connect(const struct sockaddr_un *sun)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

int vufe_conn_open(VufeConn *conn, const char *path, int timeout_ms)
{
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    int64_t deadline;
    int fd;

    vufe_conn_adopt(conn, -1, timeout_ms);
    if (strlen(path) >= sizeof(sun.sun_path)) {
        return vufe_fail(conn, -ENAMETOOLONG, "socket '%s'", path);
    }
    strcpy(sun.sun_path, path);
    deadline = deadline_of(conn, timeout_ms);
    for (;;) {
        fd = try_connect(&sun);
        if (fd >= 0) {
            vufe_conn_adopt(conn, fd, timeout_ms);
            return 0;
        }
        if ((fd != -ENOENT && fd != -ECONNREFUSED && fd != -EAGAIN &&
             fd != -EINTR) ||
            g_get_monotonic_time() >= deadline) {
            return vufe_fail(conn, fd, "connecting to '%s'", path);
        }
        /* Nothing to poll on until the server has made its socket. */
        poll(NULL, 0, 2);
    }
}

void vufe_conn_close(VufeConn *conn)
{
    if (conn->fd >= 0) {
        close(conn->fd);
    }
    conn->fd = -1;
    conn->reply_ack = false;
}

int vufe_send_bytes(VufeConn *conn, const void *buf, size_t len,
                    const int *fds, unsigned num_fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * VUFE_MAX_FDS)];
    } control;
    int64_t deadline = deadline_of(conn, -1);
    size_t done = 0;

    if (num_fds > VUFE_MAX_FDS) {
        return vufe_fail(conn, -EINVAL, "%u descriptors", num_fds);
    }
    while (done < len) {
        struct iovec iov = { (char *)buf + done, len - done };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;
        int ret;

        if (num_fds && !done) {
            struct cmsghdr *cm = &control.align;

            memset(&control, 0, sizeof(control));
            mh.msg_control = &control;
            mh.msg_controllen = CMSG_SPACE(sizeof(int) * num_fds);
            cm->cmsg_level = SOL_SOCKET;
            cm->cmsg_type = SCM_RIGHTS;
            cm->cmsg_len = CMSG_LEN(sizeof(int) * num_fds);
            memcpy(CMSG_DATA(cm), fds, sizeof(int) * num_fds);
        }
        n = sendmsg(conn->fd, &mh, MSG_NOSIGNAL);
        if (n >= 0) {
            done += n;
            continue;
        }
        ret = -errno;
        if (ret == -EAGAIN) {
            ret = wait_fd(conn->fd, POLLOUT, deadline);
        }
        if (ret < 0 && ret != -EINTR) {
            return vufe_fail(conn, ret, "sending %zu bytes", len);
        }
    }
    return 0;
}

/* Moves the descriptors of a received control message to @fds, or closes. */
static void take_fds(struct msghdr *mh, int *fds, unsigned *num_fds)
{
    struct cmsghdr *cm;

    for (cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
        size_t n, i;

        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
            if (fds && *num_fds < VUFE_MAX_FDS) {
                fds[(*num_fds)++] = fd;
            } else {
                close(fd);
            }
        }
    }
}

int vufe_recv_bytes(VufeConn *conn, void *buf, size_t len, int *fds,
                    unsigned *num_fds, int timeout_ms)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * VUFE_MAX_FDS)];
    } control;
    int64_t deadline = deadline_of(conn, timeout_ms);
    size_t done = 0;

    while (done < len) {
        struct iovec iov = { (char *)buf + done, len - done };
        struct msghdr mh = { .msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control) };
        ssize_t n = recvmsg(conn->fd, &mh, MSG_CMSG_CLOEXEC);
        int ret;

        if (n > 0) {
            take_fds(&mh, fds, num_fds);
            done += n;
            continue;
        }
        ret = n == 0 ? -ECONNRESET : -errno;
        if (ret == -EAGAIN) {
            ret = wait_fd(conn->fd, POLLIN, deadline);
        }
        if (ret < 0 && ret != -EINTR) {
            return vufe_fail(conn, ret, "receiving byte %zu of %zu", done,
                             len);
        }
    }
    return 0;
}

int vufe_send_lying(VufeConn *conn, const VufeMsg *msg, size_t payload_len)
{
    if (payload_len > sizeof(msg->p)) {
        return vufe_fail(conn, -EINVAL, "a payload of %zu bytes", payload_len);
    }
    /* The struct starts with the header and the payload as they travel. */
    return vufe_send_bytes(conn, msg, VUFE_HDR_SIZE + payload_len, msg->fds,
                           msg->num_fds);
}

int vufe_send(VufeConn *conn, const VufeMsg *msg)
{
    VufeMsg copy = *msg;

    copy.flags |= VUFE_VERSION;
    return vufe_send_lying(conn, &copy, copy.size);
}

int vufe_recv(VufeConn *conn, VufeMsg *msg, int timeout_ms)
{
    int ret;

    memset(msg, 0, sizeof(*msg));
    ret = vufe_recv_bytes(conn, msg, VUFE_HDR_SIZE, msg->fds, &msg->num_fds,
                          timeout_ms);
    if (ret == 0 && msg->size > sizeof(msg->p)) {
        ret = vufe_fail(conn, -EMSGSIZE, "message %u claims %u bytes",
                        msg->request, msg->size);
    }
    if (ret == 0) {
        ret = vufe_recv_bytes(conn, &msg->p, msg->size, msg->fds,
                              &msg->num_fds, timeout_ms);
    }
    if (ret < 0) {
        vufe_msg_close_fds(msg);
    }
    return ret;
}

void vufe_msg_close_fds(VufeMsg *msg)
{
    while (msg->num_fds) {
        close(msg->fds[--msg->num_fds]);
    }
}

int vufe_wait_hangup(VufeConn *conn, int timeout_ms)
{
    int64_t deadline = deadline_of(conn, timeout_ms);

    for (;;) {
        char junk[512];
        ssize_t n = recv(conn->fd, junk, sizeof(junk), 0);
        int ret;

        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            return 0;
        }
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return vufe_fail(conn, -errno, "waiting for the peer to hang up");
        }
        ret = n > 0 ? 0 : wait_fd(conn->fd, POLLIN, deadline);
        if (ret < 0) {
            return vufe_fail(conn, ret, "waiting for the peer to hang up");
        }
    }
}

/* Receives the reply to @request into @msg and checks what it claims to be. */
static int recv_reply(VufeConn *conn, VufeMsg *msg, uint32_t request,
                      uint32_t min_size)
{
    int ret = vufe_recv(conn, msg, -1);

    if (ret < 0) {
        return ret;
    }
    if (msg->request != request || !(msg->flags & VUFE_FLAG_REPLY) ||
        (msg->flags & VUFE_VERSION_MASK) != VUFE_VERSION ||
        msg->size < min_size) {
        vufe_msg_close_fds(msg);
        return vufe_fail(conn, -EPROTO,
                         "reply to %u is %u with flags 0x%x and %u bytes",
                         request, msg->request, msg->flags, msg->size);
    }
    return 0;
}

int vufe_call(VufeConn *conn, const VufeMsg *msg)
{
    VufeMsg copy = *msg;
    int ret;

    if (conn->reply_ack) {
        copy.flags |= VUFE_FLAG_NEED_REPLY;
    }
    ret = vufe_send(conn, &copy);
    if (ret < 0 || !conn->reply_ack) {
        return ret;
    }
    ret = recv_reply(conn, &copy, msg->request, sizeof(uint64_t));
    if (ret < 0) {
        return ret;
    }
    vufe_msg_close_fds(&copy);
    if (copy.p.u64 != 0) {
        return vufe_fail(conn, -EREMOTEIO, "request %u refused (%" PRIu64 ")",
                         msg->request, copy.p.u64);
    }
    return 0;
}

int vufe_call_empty(VufeConn *conn, VufeRequest request)
{
    VufeMsg msg = { .request = request };

    return vufe_call(conn, &msg);
}

int vufe_call_u64(VufeConn *conn, VufeRequest request, uint64_t value)
{
    return vufe_call_fd(conn, request, value, -1);
}

int vufe_call_state(VufeConn *conn, VufeRequest request, uint32_t index,
                    uint32_t num)
{
    VufeMsg msg = { .request = request, .size = sizeof(VufeVringState) };

    msg.p.state = (VufeVringState){ index, num };
    return vufe_call(conn, &msg);
}

int vufe_call_fd(VufeConn *conn, VufeRequest request, uint64_t value, int fd)
{
    VufeMsg msg = { .request = request, .size = sizeof(value) };

    msg.p.u64 = value;
    if (fd >= 0) {
        msg.fds[msg.num_fds++] = fd;
    }
    return vufe_call(conn, &msg);
}

int vufe_query(VufeConn *conn, VufeMsg *msg, uint32_t min_size)
{
    uint32_t request = msg->request;
    int ret = vufe_send(conn, msg);

    return ret < 0 ? ret : recv_reply(conn, msg, request, min_size);
}

int vufe_query_u64(VufeConn *conn, VufeRequest request, uint64_t *value)
{
    VufeMsg msg = { .request = request };
    int ret = vufe_query(conn, &msg, sizeof(*value));

    if (ret == 0) {
        *value = msg.p.u64;
        vufe_msg_close_fds(&msg);
    }
    return ret;
}
