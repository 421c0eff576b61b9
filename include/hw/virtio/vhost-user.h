/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The back end of vhost-user: a virtio device, served over a UNIX socket.
 *
 * A server has a thread of its own, which accepts a front end, serves it with
 * plain blocking calls until it leaves, and accepts the next.  So at any time
 * there is one front end; the next waits in the socket's queue.
 *
 * A front end is not trusted.  What it sends wrong is answered by an error,
 * where it asked for an answer, and by closing the connection, where not.
 */
#ifndef HW_VIRTIO_VHOST_USER_H
#define HW_VIRTIO_VHOST_USER_H

#include "qemu/error.h"
#include "hw/virtio/virtio-device.h"

typedef struct VhostUserServer VhostUserServer;

typedef struct VhostUserServerStats {
    uint64_t connections;           /* since it was made */
    uint64_t errors;                /* messages that were refused */
    bool connected;
} VhostUserServerStats;

/*
 * Serve @dev, which must outlive the server, on @listen_fd, a listening
 * socket, which becomes the server's.  Control thread.
 */
VhostUserServer *vhost_user_server_new(VirtIODevice *dev, int listen_fd,
                                       Error **errp);
/* Disconnect, wait for the device's requests and the thread.  Control
 * thread; not while the disk is drained. */
void vhost_user_server_free(VhostUserServer *server);

/* Any thread: tell the front end that the configuration space has changed. */
void vhost_user_server_config_changed(VhostUserServer *server);

/* Any thread. */
void vhost_user_server_get_stats(VhostUserServer *server,
                                 VhostUserServerStats *stats);

#endif
