/*
 * Handing over the image of an export.
 *
 * While it is inactive, the export has no permissions on its node, which is
 * inactive as well (block/activate.c), and so there are no locks on the host.
 * Of two processes on one image at most one is active, since the locks exclude
 * each other: the old one gives its permissions up when the front end has
 * stopped all rings for a migration, the new one takes them when a ring is to
 * run.  The old one may get it back in the same way, if the migration fails.
 *
 * Permissions belong to the control thread, and the front end's thread asks it
 * and waits.  As the control thread in turn waits for that thread when the
 * export is deleted, it first tells it to wait no longer.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "handover.h"
#include "block/lock-order.h"
#include "qemu/trace.h"

TRACE_EVENT(export_handover);

struct ExportHandover {
    BlockExport *exp;               /* constant, as bh */
    QEMUBH *bh;                     /* NULL: the control thread has no loop */

    LeafLock lock;
    QemuCond cond;                  /* not pending any more, or stopping */
    bool stopping GUARDED_BY(leaf_class);
    bool pending GUARDED_BY(leaf_class);
    bool wanted GUARDED_BY(leaf_class);     /* active, or not */
    bool active GUARDED_BY(leaf_class);
    Error *err GUARDED_BY(leaf_class);      /* of the last change */
};

/* ---- Control thread ---- */

static void give_up_perm(BlockExport *exp)
{
    Error *err = NULL;

    if (!blk_set_perm(exp->blk, 0, BLK_PERM_ALL, &err)) {
        warn_report_err(err);
    }
}

static bool take_image(BlockExport *exp, Error **errp)
{
    if (!blk_set_perm(exp->blk, block_export_perm(exp),
                      block_export_shared_perm(exp), errp)) {
        return false;
    }
    /* What is read now nobody else can change any more. */
    if (!bdrv_activate(blk_bs(exp->blk), errp)) {
        give_up_perm(exp);
        return false;
    }
    return true;
}

static bool give_image(BlockExport *exp, Error **errp)
{
    Error *err = NULL;

    /* Or else it could not be taken back. */
    if (!bdrv_can_hand_over(blk_bs(exp->blk), errp) ||
        !blk_set_perm(exp->blk, 0, BLK_PERM_ALL, errp)) {
        return false;
    }
    if (bdrv_inactivate(blk_bs(exp->blk), errp)) {
        return true;
    }
    if (!take_image(exp, &err)) {
        warn_report_err(err);
    }
    return false;
}

static void handover_bh(void *opaque)
{
    ExportHandover *h = opaque;
    Error *err = NULL;
    bool wanted, ok;

    leaf_lock(&h->lock);
    wanted = h->wanted;
    leaf_unlock(&h->lock);
    ok = wanted ? take_image(h->exp, &err) : give_image(h->exp, &err);
    trace(export_handover, "export '%s' active %d ok %d", h->exp->id, wanted,
          ok);
    leaf_lock(&h->lock);
    if (ok) {
        h->active = wanted;
    }
    h->err = err;
    h->pending = false;
    qemu_cond_broadcast(&h->cond);
    leaf_unlock(&h->lock);
}

ExportHandover *export_handover_new(BlockExport *exp)
{
    ExportHandover *h = g_new0(ExportHandover, 1);
    AioContext *ctx = aio_context_current();

    h->exp = exp;
    h->bh = ctx ? aio_bh_new(ctx, handover_bh, h, NULL) : NULL;
    leaf_init(&h->lock);
    qemu_cond_init(&h->cond);
    leaf_lock(&h->lock);
    h->active = !exp->incoming;
    leaf_unlock(&h->lock);
    return h;
}

void export_handover_stop(ExportHandover *h)
{
    leaf_lock(&h->lock);
    h->stopping = true;
    qemu_cond_broadcast(&h->cond);
    leaf_unlock(&h->lock);
}

void export_handover_free(ExportHandover *h) NO_TSA
{
    if (h->bh) {
        qemu_bh_delete(h->bh);
    }
    error_free(h->err);
    qemu_cond_destroy(&h->cond);
    leaf_destroy(&h->lock);
    g_free(h);
}

/* ---- The front end's thread ---- */

static bool handover_change(ExportHandover *h, bool active, Error **errp)
{
    bool ok;

    leaf_lock(&h->lock);
    ok = h->active == active;
    if (ok || !h->bh || h->stopping) {
        leaf_unlock(&h->lock);
        if (!ok) {
            error_setg(errp, "The export is not being served");
        }
        return ok;
    }
    h->wanted = active;
    h->pending = true;
    leaf_unlock(&h->lock);

    qemu_bh_schedule(h->bh);
    leaf_lock(&h->lock);
    while (h->pending && !h->stopping) {
        leaf_wait(&h->cond, &h->lock);
    }
    ok = !h->pending && h->active == active;
    if (h->pending) {
        error_setg(errp, "The export is being deleted");
    } else if (!ok) {
        error_propagate(errp, h->err);
        h->err = NULL;
    }
    leaf_unlock(&h->lock);
    return ok;
}

bool export_handover_activate(ExportHandover *h, Error **errp)
{
    return handover_change(h, true, errp);
}

static bool handover_is_active(ExportHandover *h)
{
    bool active;

    leaf_lock(&h->lock);
    active = h->active;
    leaf_unlock(&h->lock);
    return active;
}

void export_handover_inactivate(ExportHandover *h)
{
    Error *err = NULL;
    int ret;

    if (!handover_is_active(h)) {
        return;
    }
    ret = h->exp->writable ? blk_flush(h->exp->blk) : 0;
    if (ret < 0) {
        error_setg_errno(&err, -ret, "Could not flush");
    } else if (handover_change(h, false, &err)) {
        return;
    }
    error_prepend(&err, "%s: keeping the image after a migration: ",
                  h->exp->id);
    warn_report_err(err);
}
