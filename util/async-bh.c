/*
 * Bottom halves, and running a function in another context's thread.
 *
 * A bottom half is a piece of work that can be scheduled many times and runs
 * once.  Its flags are one atomic word:
 *
 *   PENDING    it is on its context's list; whoever sets this puts it there
 *   SCHEDULED  the callback is wanted
 *   DELETED    free it when it comes off the list
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "block/aio.h"
#include "block/lock-order.h"

enum {
    BH_PENDING   = 1 << 0,
    BH_SCHEDULED = 1 << 1,
    BH_DELETED   = 1 << 2,
    BH_ONESHOT   = 1 << 3,
};

struct QEMUBH {
    AioWork work;
    AioContext *ctx;
    QEMUBHFunc *cb;
    void *opaque;
    const char *name;
    unsigned flags;             /* atomic */
};

static void bh_run(AioWork *work)
{
    QEMUBH *bh = container_of(work, QEMUBH, work);
    unsigned flags = qatomic_fetch_and(&bh->flags,
                                       ~(BH_PENDING | BH_SCHEDULED));
    QEMUBHFunc *cb = bh->cb;
    void *opaque = bh->opaque;

    if (flags & (BH_DELETED | BH_ONESHOT)) {
        g_free(bh);
    }
    /* The callback may delete it: not to be touched from here. */
    if ((flags & (BH_SCHEDULED | BH_DELETED)) == BH_SCHEDULED) {
        cb(opaque);
    }
}

QEMUBH *aio_bh_new(AioContext *ctx, QEMUBHFunc *cb, void *opaque,
                   const char *name)
{
    QEMUBH *bh = g_new0(QEMUBH, 1);

    bh->work.fn = bh_run;
    bh->ctx = ctx;
    bh->cb = cb;
    bh->opaque = opaque;
    bh->name = name;
    return bh;
}

static void bh_enqueue(QEMUBH *bh, unsigned new_flags)
{
    AioContext *ctx = bh->ctx;
    unsigned old = qatomic_fetch_or(&bh->flags, BH_PENDING | new_flags);

    if (!(old & BH_PENDING)) {
        aio_schedule(ctx, &bh->work);
    }
}

void qemu_bh_schedule(QEMUBH *bh)
{
    bh_enqueue(bh, BH_SCHEDULED);
}

void qemu_bh_cancel(QEMUBH *bh)
{
    qatomic_fetch_and(&bh->flags, ~BH_SCHEDULED);
}

void qemu_bh_delete(QEMUBH *bh)
{
    bh_enqueue(bh, BH_DELETED);
}

void aio_bh_schedule_oneshot(AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    bh_enqueue(aio_bh_new(ctx, cb, opaque, "oneshot"),
               BH_SCHEDULED | BH_ONESHOT);
}

typedef struct SyncRun {
    AioWork work;
    QEMUBHFunc *cb;
    void *opaque;
    QemuEvent done;
} SyncRun;

static void sync_run(AioWork *work)
{
    SyncRun *run = container_of(work, SyncRun, work);

    run->cb(run->opaque);
    qemu_event_set(&run->done);
}

void aio_run_sync(AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    SyncRun run = { .work.fn = sync_run, .cb = cb, .opaque = opaque };

    if (aio_context_current() == ctx) {
        cb(opaque);
        return;
    }
    lock_rank_assert_below(RANK_DRIVER);
    qemu_event_init(&run.done, false);
    aio_schedule(ctx, &run.work);
    qemu_event_wait(&run.done);
    qemu_event_destroy(&run.done);
}
