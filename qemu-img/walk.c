/*
 * Going through an image extent by extent, in several threads.
 *
 * One thread at a time classifies the next extent, under a lock: that is a
 * question to the tables of the image.  What is to be worked on is cut into
 * pieces, and each thread works on one, with a buffer of its own, outside of
 * the lock.  The error with the lowest offset counts; nobody takes another
 * piece after one.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "walk.h"
#include "block/lock-order.h"

#define MAX_WORKERS 8

typedef struct Walk {
    const ImgWalk *w;
    int64_t piece;
    int64_t start_ns;

    JobLock lock;
    QemuCond failed;
    int64_t next GUARDED_BY(job_class);
    int64_t extent_end GUARDED_BY(job_class);
    int kind GUARDED_BY(job_class);
    int64_t done GUARDED_BY(job_class);
    int ret GUARDED_BY(job_class);
    int64_t error_at GUARDED_BY(job_class);
} Walk;

static void REQUIRES(job_class) fail_locked(Walk *k, int64_t offset, int ret)
{
    if (!k->ret || offset < k->error_at) {
        k->ret = ret;
        k->error_at = offset;
    }
    qemu_cond_broadcast(&k->failed);
}

static void REQUIRES(job_class) finished_locked(Walk *k, int64_t bytes)
{
    k->done += bytes;
    img_progress_set((double)k->done / k->w->length);
}

static void REQUIRES(job_class) keep_rate_locked(Walk *k)
{
    double due_ns = k->w->rate ? (double)k->done / k->w->rate * 1e9 : 0;
    int64_t delay;

    while (!k->ret && (delay = k->start_ns + due_ns - qemu_clock_ns()) > 0) {
        job_timedwait(&k->failed, &k->lock, delay);
    }
}

/* Go to the next extent that needs work; false: none is left. */
static bool REQUIRES(job_class) find_extent_locked(Walk *k)
{
    while (!k->ret && k->next == k->extent_end && k->next < k->w->length) {
        int64_t bytes = k->w->length - k->next;

        k->kind = k->w->classify(k->w->opaque, k->next, &bytes);
        if (k->kind < 0) {
            fail_locked(k, k->next, k->kind);
        } else {
            k->extent_end += bytes;
            if (k->kind == 0) {
                k->next = k->extent_end;
                finished_locked(k, bytes);
            }
        }
    }
    return !k->ret && k->next < k->extent_end;
}

static bool take_piece(Walk *k, int64_t *offset, int64_t *bytes, int *kind)
{
    bool found;

    job_lock(&k->lock);
    keep_rate_locked(k);
    found = find_extent_locked(k);
    if (found) {
        *offset = k->next;
        *bytes = MIN(k->extent_end, QEMU_ALIGN_DOWN(k->next + k->piece,
                                                    k->piece)) - k->next;
        *kind = k->kind;
        k->next += *bytes;
    }
    job_unlock(&k->lock);
    return found;
}

static void finish_piece(Walk *k, int64_t offset, int64_t bytes, int ret)
{
    job_lock(&k->lock);
    if (ret < 0) {
        fail_locked(k, offset, ret);
    } else {
        finished_locked(k, bytes);
    }
    job_unlock(&k->lock);
}

static void walk_worker(void *opaque)
{
    Walk *k = opaque;
    uint8_t *buf = qemu_try_memalign(4096, k->w->buffers * k->piece);
    int64_t offset, bytes;
    int kind;

    if (!buf) {
        finish_piece(k, 0, 0, -ENOMEM);
        return;
    }
    while (take_piece(k, &offset, &bytes, &kind)) {
        finish_piece(k, offset, bytes, k->w->work(k->w->opaque, offset, bytes,
                                                  kind, buf));
    }
    qemu_vfree(buf);
}

int img_walk(const ImgWalk *w, int64_t *error_at)
{
    Walk k = {
        .w = w,
        .piece = w->piece ? w->piece : IMG_WALK_PIECE,
        .start_ns = qemu_clock_ns(),
    };
    int max_workers = w->max_workers ? w->max_workers : MAX_WORKERS;
    int ret;

    job_init(&k.lock);
    qemu_cond_init(&k.failed);
    img_run_workers(MIN(max_workers, w->length / k.piece + 1), walk_worker,
                    &k);
    job_lock(&k.lock);
    ret = k.ret;
    *error_at = k.error_at;
    job_unlock(&k.lock);
    qemu_cond_destroy(&k.failed);
    job_destroy(&k.lock);
    return ret;
}
