/*
 * Stable storage: syncs of a file, and what remains of one that failed.
 *
 * An fsync that failed may have dropped dirty data, and the kernel says so
 * once: to the first sync of the open file that asks.  So the error is kept for
 * as long as the file is open (a reopen is of the same inode, and what was lost
 * stays lost), and every later flush and FUA write fails with it.
 *
 * Nor may a sync succeed that ran *beside* the one that was told.  The kernel
 * has then given the error away, but it may not be known here yet: the thread
 * has not returned, nobody has looked at the ring.  So syncs of a file are
 * counted in and out.  One that ends well while others are under way waits for
 * the end of these (not of those that begin later), and shares their failure.
 * A request waits on a list, and whoever ends the last of these completes it;
 * a thread waits on a condition variable.
 *
 * A thread does not wait for a sync that its own event loop would have to end:
 * it could wait for ever.  It will be told of that failure itself.
 *
 * A FUA write is a write and then such a sync, never a write with RWF_DSYNC,
 * which is a sync that says neither that it ran nor that it was what failed.
 * With O_DIRECT, too, there is data to lose: in the cache of the disk, and in
 * the host's where the file system does not write directly (ext4 that journals
 * data) or zeroes a part of a block.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <fcntl.h>
#include "file-posix.h"
#include "qemu/trace.h"

TRACE_EVENT(file_sync_failed);

struct FileSync {
    FileState *s;               /* constant, as the next two */
    BdrvTrackedRequest *req;    /* to complete; NULL: a thread runs it */
    AioContext *home;           /* whose thread ends it, or runs it */
    /* Under s->sync_lock. */
    uint64_t seq;               /* in order of the beginning; when waiting:
                                 * the last that is waited for */
    bool waiting;
    ListNode node;              /* s->sync_running, s->sync_waiting */
};

void file_sync_init(FileState *s) NO_TSA
{
    leaf_init(&s->sync_lock);
    qemu_cond_init(&s->sync_cond);
    list_init(&s->sync_running);
    list_init(&s->sync_waiting);
}

void file_sync_destroy(FileState *s) NO_TSA
{
    assert(list_is_empty(&s->sync_running));
    assert(list_is_empty(&s->sync_waiting));
    qemu_cond_destroy(&s->sync_cond);
    leaf_destroy(&s->sync_lock);
}

int file_latch_sync_error(FileState *s, int ret)
{
    trace(file_sync_failed, "file '%s' ret %d", s->filename, ret);
    qatomic_cmpxchg(&s->sync_error, 0, ret);
    return ret;
}

/* ---- Counting in and out ---- */

static void sync_begin(FileSync *op, FileState *s, BdrvTrackedRequest *req)
{
    op->s = s;
    op->req = req;
    op->home = req ? req->ctx : aio_context_current();
    op->waiting = false;
    list_node_init(&op->node);
    leaf_lock(&s->sync_lock);
    op->seq = ++s->sync_seq;
    list_push_back(&s->sync_running, &op->node);
    leaf_unlock(&s->sync_lock);
}

/* Is a sync under way that may know of a failure that @op has to share? */
static bool REQUIRES(leaf_class) sync_must_wait_locked(FileSync *op)
{
    FileSync *other;

    list_for_each(other, &op->s->sync_running, node) {
        if (other->seq <= op->seq &&
            (op->req || !other->req || other->home != op->home)) {
            return true;
        }
    }
    return false;
}

/* Move those that need not wait any more to @ready; wake threads. */
static void REQUIRES(leaf_class) sync_wake_locked(FileState *s, List *ready)
{
    FileSync *op, *next;

    list_for_each_safe(op, next, &s->sync_waiting, node) {
        if (sync_must_wait_locked(op)) {
            continue;
        }
        list_remove(&op->node);
        op->waiting = false;
        if (op->req) {
            list_push_back(ready, &op->node);
        } else {
            qemu_cond_broadcast(&s->sync_cond);
        }
    }
}

static void sync_complete_ready(List *ready)
{
    FileSync *op, *next;

    list_for_each_safe(op, next, ready, node) {
        BdrvTrackedRequest *req = op->req;
        int ret = file_sync_error(op->s);

        list_remove(&op->node);
        g_free(op);
        bdrv_request_complete(req, ret);
    }
}

/*
 * @op has ended with @ret, which is latched if it says that data is lost.
 * True: that is all.  False: others are under way, so @op is now on the list
 * of those that wait (a request may even be complete already).
 */
static bool sync_end(FileSync *op, int ret)
{
    FileState *s = op->s;
    List ready;
    bool wait;

    list_init(&ready);
    if (ret < 0 && ret != -EINTR && ret != -EAGAIN && ret != -ECANCELED) {
        file_latch_sync_error(s, ret);
    }
    leaf_lock(&s->sync_lock);
    list_remove(&op->node);
    op->seq = s->sync_seq;
    wait = ret == 0 && !file_sync_error(s) && sync_must_wait_locked(op);
    if (wait) {
        op->waiting = true;
        list_push_back(&s->sync_waiting, &op->node);
    }
    sync_wake_locked(s, &ready);
    leaf_unlock(&s->sync_lock);
    sync_complete_ready(&ready);
    return !wait;
}

/* ---- Requests ---- */

FileSync *file_sync_begin(FileState *s, BdrvTrackedRequest *req)
{
    FileSync *op = g_new(FileSync, 1);

    sync_begin(op, s, req);
    return op;
}

void file_sync_complete(FileSync *op, int ret)
{
    BdrvTrackedRequest *req = op->req;

    if (sync_end(op, ret)) {
        ret = ret < 0 ? ret : file_sync_error(op->s);
        g_free(op);
        bdrv_request_complete(req, ret);
    }
}

void file_sync_forget(FileSync *op)
{
    sync_end(op, -EAGAIN);
    g_free(op);
}

/* ---- Threads ---- */

int file_sync(FileState *s)
{
    int ret = file_sync_error(s);
    FileSync op;

    if (ret < 0 || file_lacks(s, FILE_NO_FSYNC)) {
        return ret;
    }
    sync_begin(&op, s, NULL);
    if (RETRY_ON_EINTR(file_posix_ops->fdatasync(s->h.fd)) < 0) {
        ret = -errno;
    }
    if (ret == -EINVAL && s->h.is_device && !s->h.is_blkdev) {
        /* A character device that keeps nothing has nothing to sync. */
        file_set_lacks(s, FILE_NO_FSYNC);
        ret = 0;
    }
    if (!sync_end(&op, ret)) {
        leaf_lock(&s->sync_lock);
        while (op.waiting) {
            leaf_wait(&s->sync_cond, &s->sync_lock);
        }
        leaf_unlock(&s->sync_lock);
    }
    return ret < 0 ? ret : file_sync_error(s);
}

/* Whoever asks for a part is told of a failure that a sync is not told then. */
int file_sync_range(FileState *s, int64_t offset, int64_t bytes,
                    unsigned flags)
{
    FileSync op;
    int ret;

    sync_begin(&op, s, NULL);
    ret = sync_file_range(s->h.fd, offset, bytes, flags) < 0 ? -errno : 0;
    /* Promising nothing, it need not wait for others. */
    sync_end(&op, ret == -EIO || ret == -ENOSPC || ret == -EDQUOT ? ret :
             -EAGAIN);
    return ret;
}
