/*
 * What the types of qemu/thread.h are made of on POSIX systems.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef QEMU_THREAD_POSIX_H
#define QEMU_THREAD_POSIX_H

#include <pthread.h>

struct CAPABILITY("mutex") QemuMutex {
    pthread_mutex_t m;
};

/* For static ones: no qemu_mutex_init() needed. */
#define QEMU_MUTEX_INITIALIZER { .m = PTHREAD_MUTEX_INITIALIZER }

struct QemuCond {
    pthread_cond_t c;
};

struct QemuSemaphore {
    pthread_mutex_t m;
    pthread_cond_t c;
    unsigned count;
};

struct QemuEvent {
    pthread_mutex_t m;
    pthread_cond_t c;
    bool is_set;
};

struct QemuThread {
    pthread_t t;
};

#endif
