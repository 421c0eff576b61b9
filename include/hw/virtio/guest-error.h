/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages about what guests and front ends do wrong.
 */
#ifndef HW_VIRTIO_GUEST_ERROR_H
#define HW_VIRTIO_GUEST_ERROR_H

#include "qemu/osdep.h"

/*
 * Any thread: log "@who: message".  A guest can err as often as it likes, and
 * must not be able to fill the host's log with it: after so many messages a
 * minute, of all of them together, the rest of that minute is left out.
 */
void guest_error(const char *who, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

#endif
