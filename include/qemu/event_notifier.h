/*
 * EventNotifier: the way into an AioContext from other threads, other
 * processes and the system.  An eventfd on Linux (a pipe where there is none),
 * an event object on Windows.
 *
 * Nothing outside the *-posix.c and *-win32.c files of util/ looks inside; what
 * a transport receives from its peer goes in by the functions at the end.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef QEMU_EVENT_NOTIFIER_H
#define QEMU_EVENT_NOTIFIER_H

#include "qemu/compiler.h"
#include <stdbool.h>
#ifdef _WIN32
#include <windows.h>
#endif

typedef struct EventNotifier {
#ifdef _WIN32
    HANDLE event;
#else
    int rfd;
    int wfd;
    bool foreign;               /* a peer has it, too */
    struct EventBell *bell;     /* how to raise one of a peer; NULL: not yet */
#endif
} EventNotifier;

/*
 * Make a notifier, raised already if @active.  Returns 0 or -errno (-EMFILE …);
 * pair with event_notifier_cleanup().
 */
int event_notifier_init(EventNotifier *e, bool active);

/* Release it; nobody may be using it.  Harmless on a cleaned-up notifier. */
void event_notifier_cleanup(EventNotifier *e);

/*
 * Raise it.  Any thread, any number of times, also in a signal handler; never
 * blocks.  Returns 0 or -errno; raising a raised notifier is no error.
 */
int event_notifier_set(EventNotifier *e);

/* Lower it; true if it was raised.  Never blocks. */
bool event_notifier_test_and_clear(EventNotifier *e);

/* True between a successful init and cleanup. */
bool event_notifier_is_valid(const EventNotifier *e);

#ifndef _WIN32
/*
 * Take over @fd, an eventfd (or a pipe's end) that a peer sent; cleanup closes
 * it.  Returns 0; or -EINVAL for anything else, on which the loop could hang
 * or die: @e is invalid then and @fd remains the caller's.
 *
 * The peer shares the flags of the file and may clear O_NONBLOCK at any time.
 * Raising and lowering do not block for all that, but such a notifier is to be
 * raised by one thread at a time, and not in signal handlers.
 */
int event_notifier_init_fd(EventNotifier *e, int fd)
    __attribute__((warn_unused_result));
/* A pipe, as on systems without eventfd.  Returns 0 or -errno. */
int event_notifier_init_pipe(EventNotifier *e);
/* For AioContext implementations only. */
int event_notifier_get_fd(const EventNotifier *e);
#endif

#endif
