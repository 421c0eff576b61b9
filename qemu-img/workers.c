/*
 * Running one function in several threads.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "qemu/thread.h"

typedef struct Worker {
    QemuThread thread;
    void (*fn)(void *opaque);
    void *opaque;
} Worker;

static void *worker_thread(void *arg)
{
    Worker *w = arg;

    w->fn(w->opaque);
    return NULL;
}

void img_run_workers(int n, void (*fn)(void *opaque), void *opaque)
{
    g_autofree Worker *workers = g_new0(Worker, MAX(n, 1));
    int started = 0;

    /* With fewer threads than asked for, the work takes longer, no more. */
    while (started < n - 1) {
        Worker *w = &workers[started];

        w->fn = fn;
        w->opaque = opaque;
        if (qemu_thread_create(&w->thread, "img-worker", worker_thread,
                               w) < 0) {
            break;
        }
        started++;
    }
    fn(opaque);
    while (started > 0) {
        qemu_thread_join(&workers[--started].thread);
    }
}
