/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhost-user: the server, a thread that accepts front ends and serves them one
 * after the other.
 *
 * It is stopped by shutting its sockets down, which ends whatever blocking
 * call it is in.  The lock makes sure that the descriptor is still that of the
 * socket then; it is never held across a call that blocks.
 */
#include "qemu/osdep.h"
#include "vhost-user-internal.h"
#include "hw/virtio/guest-error.h"
#include <sys/socket.h>

/* How long to wait when the system has no descriptors left. */
#define ACCEPT_RETRY_NS (100 * INT64_C(1000000))

struct VhostUserServer {
    VirtIODevice *dev;              /* constant, as the next two */
    int listen_fd;
    QemuThread thread;

    LeafLock lock;
    QemuCond stop_cond;             /* stopping has become true */
    bool stopping GUARDED_BY(leaf_class);
    int conn_fd GUARDED_BY(leaf_class);         /* -1: nobody is served */
    int backend_fd GUARDED_BY(leaf_class);      /* -1: no such channel */
    VhostUserServerStats stats GUARDED_BY(leaf_class);
};

void vhost_user_server_set_backend_fd(VhostUserServer *server, int fd)
{
    int old;

    leaf_lock(&server->lock);
    old = server->backend_fd;
    server->backend_fd = fd;
    leaf_unlock(&server->lock);
    if (old >= 0) {
        close(old);
    }
}

void vhost_user_server_config_changed(VhostUserServer *server)
{
    VhostUserMsg msg = {
        .request = VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
        .flags = VHOST_USER_VERSION,
    };
    Error *local_err = NULL;

    leaf_lock(&server->lock);
    if (server->backend_fd >= 0 &&
        !vhost_user_send(server->backend_fd, &msg, -1, MSG_DONTWAIT,
                         &local_err)) {
        guest_error(server->dev->name, "change of configuration: %s",
                    error_get_pretty(local_err));
        error_free(local_err);
    }
    leaf_unlock(&server->lock);
}

void vhost_user_server_count_error(VhostUserServer *server)
{
    leaf_lock(&server->lock);
    server->stats.errors++;
    leaf_unlock(&server->lock);
}

void vhost_user_server_get_stats(VhostUserServer *server,
                                 VhostUserServerStats *stats)
{
    leaf_lock(&server->lock);
    *stats = server->stats;
    stats->connected = server->conn_fd >= 0;
    leaf_unlock(&server->lock);
}

/* ---- The thread ---- */

/* From here on stopping shuts @fd down; false if we are being stopped. */
static bool server_set_conn(VhostUserServer *server, int fd)
{
    bool ok;

    leaf_lock(&server->lock);
    ok = !server->stopping;
    if (ok) {
        server->conn_fd = fd;
        server->stats.connections += fd >= 0;
    }
    leaf_unlock(&server->lock);
    return ok;
}

/* accept() has failed: true to try again, false to end. */
static bool server_accept_failed(VhostUserServer *server, int err)
{
    bool again;

    leaf_lock(&server->lock);
    if (!server->stopping && err != EINTR && err != ECONNABORTED) {
        leaf_timedwait(&server->stop_cond, &server->lock, ACCEPT_RETRY_NS);
    }
    again = !server->stopping;
    leaf_unlock(&server->lock);
    return again;
}

static void *server_thread(void *opaque)
{
    VhostUserServer *server = opaque;

    for (;;) {
        int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0) {
            if (!server_accept_failed(server, errno)) {
                return NULL;
            }
            continue;
        }
        if (server_set_conn(server, fd)) {
            vhost_user_session_run(server, server->dev, fd);
            leaf_lock(&server->lock);
            server->conn_fd = -1;
            leaf_unlock(&server->lock);
        }
        close(fd);
    }
}

/* ---- Life ---- */

VhostUserServer *vhost_user_server_new(VirtIODevice *dev, int listen_fd,
                                       Error **errp)
{
    VhostUserServer *server = g_new0(VhostUserServer, 1);
    int ret;

    server->dev = dev;
    server->listen_fd = listen_fd;
    leaf_init(&server->lock);
    qemu_cond_init(&server->stop_cond);
    leaf_lock(&server->lock);
    server->conn_fd = server->backend_fd = -1;
    leaf_unlock(&server->lock);
    ret = qemu_thread_create(&server->thread, "vhost-user", server_thread,
                             server);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not start a vhost-user thread");
        close(listen_fd);
        qemu_cond_destroy(&server->stop_cond);
        leaf_destroy(&server->lock);
        g_free(server);
        return NULL;
    }
    return server;
}

void vhost_user_server_free(VhostUserServer *server)
{
    leaf_lock(&server->lock);
    server->stopping = true;
    shutdown(server->listen_fd, SHUT_RDWR);
    if (server->conn_fd >= 0) {
        shutdown(server->conn_fd, SHUT_RDWR);
    }
    qemu_cond_signal(&server->stop_cond);
    leaf_unlock(&server->lock);

    qemu_thread_join(&server->thread);
    close(server->listen_fd);
    qemu_cond_destroy(&server->stop_cond);
    leaf_destroy(&server->lock);
    g_free(server);
}
