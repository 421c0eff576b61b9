/*
 * What the types of qemu/thread.h are made of on Windows.  Needs nothing but
 * Windows' own headers.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef QEMU_THREAD_WIN32_H
#define QEMU_THREAD_WIN32_H

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <winsock2.h>
#include <windows.h>

struct CAPABILITY("mutex") QemuMutex {
    SRWLOCK m;
};

struct QemuCond {
    CONDITION_VARIABLE c;
};

struct QemuSemaphore {
    SRWLOCK m;
    CONDITION_VARIABLE c;
    unsigned count;
};

struct QemuEvent {
    SRWLOCK m;
    CONDITION_VARIABLE c;
    bool is_set;
};

struct QemuThread {
    HANDLE handle;
    struct QemuThreadStart *start;      /* freed by join */
};

#endif
