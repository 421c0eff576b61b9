/*
 * EventNotifier on Windows: a manual-reset event object.
 *
 * Needs nothing but Windows' own headers, so that it compiles wherever mingw
 * does, and a caller that reaches for a file descriptor is found at once.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/event_notifier.h"

#include <errno.h>

int event_notifier_init(EventNotifier *e, bool active)
{
    e->event = CreateEvent(NULL, TRUE, active, NULL);
    return e->event ? 0 : -EMFILE;
}

void event_notifier_cleanup(EventNotifier *e)
{
    if (e->event) {
        CloseHandle(e->event);
        e->event = NULL;
    }
}

bool event_notifier_is_valid(const EventNotifier *e)
{
    return e->event;
}

int event_notifier_set(EventNotifier *e)
{
    return SetEvent(e->event) ? 0 : -EINVAL;
}

bool event_notifier_test_and_clear(EventNotifier *e)
{
    if (WaitForSingleObject(e->event, 0) != WAIT_OBJECT_0) {
        return false;
    }
    ResetEvent(e->event);
    return true;
}
