/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages about what guests and front ends do wrong, so many a minute.
 */
#include "qemu/osdep.h"
#include "hw/virtio/guest-error.h"
#include "block/lock-order.h"
#include "qemu/log.h"

#define PER_MINUTE 20

static bool guest_error_may_log(bool *last)
{
    static QemuMutex lock = { PTHREAD_MUTEX_INITIALIZER };
    static int64_t window_start;
    static int count;
    int64_t now = qemu_clock_ns();
    bool ok;

    qemu_mutex_lock(&lock);
    if (count == 0 || now - window_start > 60 * INT64_C(1000000000)) {
        window_start = now;
        count = 0;
    }
    ok = count < PER_MINUTE;
    count += ok;
    *last = count == PER_MINUTE;
    qemu_mutex_unlock(&lock);
    return ok;
}

void guest_error(const char *who, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;
    bool last;

    if (!guest_error_may_log(&last)) {
        return;
    }
    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    qemu_log("%s: %s%s\n", who, text,
             last ? " (no more such messages for a while)" : "");
}
