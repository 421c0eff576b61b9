/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every .c file includes first: the feature macros, the standard headers
 * that everybody needs, glib, and our own small macros.
 */
#ifndef QEMU_OSDEP_H
#define QEMU_OSDEP_H

/* The build passes these; a file compiled on its own wants them too. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <glib.h>

#include "qemu/compiler.h"

#ifndef _WIN32
#include <sys/uio.h>
#else
#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <windows.h>

/* Windows has no scatter-gather vector of this shape; ours is POSIX's. */
struct iovec {
    void *iov_base;
    size_t iov_len;
};
#endif

#ifndef MIN
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#endif
#ifndef MAX
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#endif

/* Smaller of the two, where zero means "no limit". */
#define MIN_NON_ZERO(a, b) \
    ((a) == 0 ? (b) : (b) == 0 ? (a) : MIN(a, b))

#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif
#ifndef O_BINARY
#define O_BINARY 0
#endif

/* Repeat @expr while a signal interrupts it; its value otherwise. */
#define RETRY_ON_EINTR(expr) ({                                              \
    __typeof__(expr) retry_ret_;                                             \
    do {                                                                     \
        retry_ret_ = (expr);                                                 \
    } while (retry_ret_ == -1 && errno == EINTR);                            \
    retry_ret_; })

#endif
