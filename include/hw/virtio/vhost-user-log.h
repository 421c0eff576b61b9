/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of dirty pages for migration: a bitmap in memory that the front end
 * shared, one bit for each 4 KiB of guest addresses (vhost-user, "Migration").
 */
#ifndef HW_VIRTIO_VHOST_USER_LOG_H
#define HW_VIRTIO_VHOST_USER_LOG_H

#include "qemu/osdep.h"
#include "qemu/error.h"

typedef struct VhostUserLog VhostUserLog;

/* Map @size bytes of @fd (the caller's) at @offset. */
VhostUserLog *vhost_user_log_new(int fd, uint64_t offset, uint64_t size,
                                 Error **errp);
void vhost_user_log_free(VhostUserLog *log);

/*
 * Any thread: the guest's memory [gpa, gpa + len) has changed.  What lies past
 * the end of the bitmap is left out.
 */
void vhost_user_log_write(VhostUserLog *log, uint64_t gpa, uint64_t len);

#endif
