/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhost-user messages on the wire: a header of twelve bytes, a payload, and
 * file descriptors.
 *
 * Descriptors may come with any byte that we read.  The room for them is as
 * much as the kernel passes at all, so that each is either handed on or closed,
 * and a front end cannot use ours up.
 */
#include "qemu/osdep.h"
#include "vhost-user-internal.h"
#include <sys/socket.h>

#define HEADER_SIZE 12

G_STATIC_ASSERT(offsetof(VhostUserMsg, payload) ==
                offsetof(VhostUserMsg, request) + HEADER_SIZE);

#define KERNEL_MAX_FDS 253

/* Keep what @hdr brought in @msg; false if that was too much. */
static bool vhost_user_collect_fds(struct msghdr *hdr, VhostUserMsg *msg)
{
    struct cmsghdr *c;
    bool ok = true;

    for (c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c)) {
        int fds[KERNEL_MAX_FDS];
        size_t n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        n = MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), KERNEL_MAX_FDS);
        memcpy(fds, CMSG_DATA(c), n * sizeof(int));
        for (size_t i = 0; i < n; i++) {
            if (msg->n_fds < VHOST_USER_MAX_FDS) {
                msg->fds[msg->n_fds++] = fds[i];
            } else {
                close(fds[i]);
                ok = false;
            }
        }
    }
    return ok && !(hdr->msg_flags & MSG_CTRUNC);
}

/* Read @len bytes: 1, 0 at the end of the stream, -1 for an error. */
static int vhost_user_recv_bytes(int sock, void *buf, size_t len,
                                 VhostUserMsg *msg, Error **errp)
{
    size_t done = 0;

    while (done < len) {
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(KERNEL_MAX_FDS * sizeof(int))];
        } control;
        struct iovec iov = { (char *)buf + done, len - done };
        struct msghdr hdr = {
            .msg_iov = &iov, .msg_iovlen = 1,
            .msg_control = &control, .msg_controllen = sizeof(control),
        };
        ssize_t n = RETRY_ON_EINTR(recvmsg(sock, &hdr, MSG_CMSG_CLOEXEC));

        if (n < 0) {
            error_setg_errno(errp, errno, "Could not receive a message");
            return errno == ECONNRESET ? 0 : -1;
        }
        if (!vhost_user_collect_fds(&hdr, msg)) {
            error_setg(errp, "A message with more than %d file descriptors",
                       VHOST_USER_MAX_FDS);
            return -1;
        }
        if (n == 0) {
            return 0;
        }
        done += n;
    }
    return 1;
}

int vhost_user_recv(int sock, VhostUserMsg *msg, Error **errp)
{
    Error *local_err = NULL;
    int ret;

    msg->n_fds = 0;
    memset(&msg->payload, 0, sizeof(msg->payload));
    ret = vhost_user_recv_bytes(sock, &msg->request, HEADER_SIZE, msg,
                                &local_err);
    if (ret > 0 && (msg->flags & VHOST_USER_VERSION_MASK) !=
                   VHOST_USER_VERSION) {
        error_setg(&local_err, "Message of version %u",
                   msg->flags & VHOST_USER_VERSION_MASK);
        ret = -1;
    }
    if (ret > 0 && msg->size > sizeof(msg->payload)) {
        error_setg(&local_err, "Message %u of %u bytes", msg->request,
                   msg->size);
        ret = -1;
    }
    if (ret > 0 && msg->size) {
        ret = vhost_user_recv_bytes(sock, &msg->payload, msg->size, msg,
                                    &local_err);
    }
    if (ret == 0) {
        error_free(local_err);
        vhost_user_msg_close_fds(msg);
    } else if (ret < 0) {
        error_propagate(errp, local_err);
    }
    return ret;
}

int vhost_user_msg_take_fd(VhostUserMsg *msg)
{
    int fd;

    if (msg->n_fds != 1) {
        return -1;
    }
    fd = msg->fds[0];
    msg->n_fds = 0;
    return fd;
}

void vhost_user_msg_close_fds(VhostUserMsg *msg)
{
    for (int i = 0; i < msg->n_fds; i++) {
        close(msg->fds[i]);
    }
    msg->n_fds = 0;
}

bool vhost_user_send(int sock, const VhostUserMsg *msg, int fd, int flags,
                     Error **errp)
{
    size_t len = HEADER_SIZE + msg->size, done = 0;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { 0 };

    while (done < len) {
        struct iovec iov = { (char *)&msg->request + done, len - done };
        struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;

        if (fd >= 0 && done == 0) {
            hdr.msg_control = &control;
            hdr.msg_controllen = sizeof(control);
            control.align.cmsg_level = SOL_SOCKET;
            control.align.cmsg_type = SCM_RIGHTS;
            control.align.cmsg_len = CMSG_LEN(sizeof(int));
            memcpy(CMSG_DATA(&control.align), &fd, sizeof(int));
        }
        n = RETRY_ON_EINTR(sendmsg(sock, &hdr, MSG_NOSIGNAL | flags));
        if (n < 0) {
            error_setg_errno(errp, errno, "Could not send a message");
            return false;
        }
        done += n;
    }
    return true;
}
