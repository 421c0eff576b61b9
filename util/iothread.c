/*
 * IOThread: a thread that does nothing but run an AioContext.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error.h"
#include "qemu/thread.h"
#include "block/aio.h"

struct IOThread {
    char *id;
    AioContext *ctx;
    QemuThread thread;
    bool stopping;              /* the thread itself */
};

static void *iothread_run(void *opaque)
{
    IOThread *iothread = opaque;

    aio_context_enter(iothread->ctx);
    while (!iothread->stopping) {
        aio_poll(iothread->ctx, true);
    }
    aio_context_leave(iothread->ctx);
    return NULL;
}

static void iothread_stop_bh(void *opaque)
{
    IOThread *iothread = opaque;

    iothread->stopping = true;
}

IOThread *iothread_new(const char *name, Error **errp)
{
    IOThread *iothread = g_new0(IOThread, 1);
    int ret;

    iothread->ctx = aio_context_new(errp);
    if (!iothread->ctx) {
        g_free(iothread);
        return NULL;
    }
    iothread->id = g_strdup(name);
    ret = qemu_thread_create(&iothread->thread, name, iothread_run, iothread);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not start iothread '%s'", name);
        aio_context_unref(iothread->ctx);
        g_free(iothread->id);
        g_free(iothread);
        return NULL;
    }
    return iothread;
}

AioContext *iothread_get_aio_context(IOThread *iothread)
{
    return iothread->ctx;
}

const char *iothread_get_id(const IOThread *iothread)
{
    return iothread->id;
}

void iothread_free(IOThread *iothread)
{
    aio_bh_schedule_oneshot(iothread->ctx, iothread_stop_bh, iothread);
    qemu_thread_join(&iothread->thread);
    aio_context_unref(iothread->ctx);
    g_free(iothread->id);
    g_free(iothread);
}
