/*
 * BlockBackend: a user's hold of a disk, and its blocking requests.
 *
 * The asynchronous entry is in block/request.c, the gate in block/drain.c.
 * A blocking call is a request of its calling thread: it goes through the gate
 * (and waits there if it must), and runs block/io.c right here.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error.h"
#include "block-internal.h"

/* ---- Life ---- */

BlockBackend *blk_new(BlockGraph *graph, uint64_t perm, uint64_t shared_perm)
{
    BlockBackend *blk = qemu_try_memalign(64, sizeof(*blk));

    g_assert(blk);
    memset(blk, 0, sizeof(*blk));
    blk->graph = graph;
    blk->name = g_strdup("");
    blk->refcnt = 1;
    blk->perm = perm;
    blk->shared_perm = shared_perm;
    blk->user_block_size = 1;
    blk->enable_write_cache = true;
    blk_gate_init(blk);
    return blk;
}

BlockBackend *blk_new_open(BlockGraph *graph, const char *filename,
                           const char *reference, json_t *options, int flags,
                           Error **errp)
{
    uint64_t perm = 0;
    BlockDriverState *bs;
    BlockBackend *blk;

    bs = bdrv_open(graph, filename, reference, options, flags, errp);
    if (!bs) {
        return NULL;
    }
    if (!(flags & BDRV_O_NO_IO)) {
        perm |= BLK_PERM_CONSISTENT_READ;
    }
    if ((flags & BDRV_O_RDWR) && !bs->read_only) {
        perm |= BLK_PERM_WRITE;
    }
    if (flags & BDRV_O_RESIZE) {
        perm |= BLK_PERM_RESIZE;
    }
    blk = blk_new(graph, perm, BLK_PERM_ALL);
    if (!blk_insert_bs(blk, bs, errp)) {
        blk_unref(blk);
        blk = NULL;
    }
    bdrv_unref(bs);
    return blk;
}

void blk_ref(BlockBackend *blk)
{
    blk->refcnt++;
}

void blk_unref(BlockBackend *blk)
{
    if (!blk || --blk->refcnt > 0) {
        return;
    }
    blk_remove_bs(blk);
    blk_gate_destroy(blk);
    g_free(blk->name);
    qemu_vfree(blk);
}

bool blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp)
{
    assert(!blk->root);
    bdrv_ref(bs);
    blk->root = bdrv_attach_child(NULL, blk, bs, "root",
                                  BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY,
                                  blk->perm, blk->shared_perm, errp);
    return blk->root;
}

void blk_remove_bs(BlockBackend *blk)
{
    BdrvChild *root = blk->root;

    if (!root) {
        return;
    }
    blk_drain_begin(blk);
    blk->root = NULL;
    bdrv_detach_child(root);
    blk_drain_end(blk);
}

BlockDriverState *blk_bs(BlockBackend *blk)
{
    return blk->root ? blk->root->bs : NULL;
}

bool blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared_perm,
                  Error **errp)
{
    if (blk->root && !bdrv_child_set_perm(blk->root, perm, shared_perm, errp)) {
        return false;
    }
    blk->perm = perm;
    blk->shared_perm = shared_perm;
    return true;
}

void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque)
{
    bool drained;

    blk->dev_ops = ops;
    blk->dev_opaque = opaque;
    gate_lock(&blk->gate);
    drained = blk->quiesce_counter > 0;
    gate_unlock(&blk->gate);
    if (drained) {
        blk_notify_drained(blk, true);      /* its end will be told */
    }
}

void blk_notify_drained(BlockBackend *blk, bool begin)
{
    const BlockDevOps *ops = blk->dev_ops;

    if (ops && begin && ops->drained_begin) {
        ops->drained_begin(blk->dev_opaque);
    } else if (ops && !begin && ops->drained_end) {
        ops->drained_end(blk->dev_opaque);
    }
}

void blk_set_name(BlockBackend *blk, const char *name)
{
    g_free(blk->name);
    blk->name = g_strdup(name);
}

const char *blk_name(const BlockBackend *blk)
{
    return blk->name;
}

void blk_set_user_block_size(BlockBackend *blk, int bytes)
{
    blk_drain_begin(blk);
    blk->user_block_size = bytes;
    if (blk->root) {
        bdrv_update_alignment_tracking(blk->root->bs);
    }
    blk_drain_end(blk);
}

void blk_set_enable_write_cache(BlockBackend *blk, bool enable)
{
    qatomic_set(&blk->enable_write_cache, enable);
}

bool blk_enable_write_cache(const BlockBackend *blk)
{
    return qatomic_read(&blk->enable_write_cache);
}

void blk_set_allow_write_beyond_eof(BlockBackend *blk, bool allow)
{
    blk->allow_write_beyond_eof = allow;
}

/* ---- Properties ---- */

int64_t blk_getlength(BlockBackend *blk)
{
    return blk->root ? bdrv_getlength(blk->root->bs) : -ENOMEDIUM;
}

bool blk_is_writable(BlockBackend *blk)
{
    return blk->root && (qatomic_read(&blk->root->perm) & BLK_PERM_WRITE);
}

uint32_t blk_get_request_alignment(BlockBackend *blk)
{
    return blk->root ? blk->root->bs->bl.request_alignment : BDRV_SECTOR_SIZE;
}

int64_t blk_get_max_transfer(BlockBackend *blk)
{
    return blk->root ? blk->root->bs->bl.max_transfer : 0;
}

int64_t blk_get_mapping_unit(BlockBackend *blk)
{
    return blk->root ? blk->root->bs->bl.mapping_unit : 0;
}

int blk_get_max_iov(BlockBackend *blk)
{
    return blk->root ? blk->root->bs->bl.max_iov : IOV_MAX;
}

bool blk_detects_zeroes(BlockBackend *blk)
{
    return blk->root && blk->root->bs->detect_zeroes;
}

size_t blk_get_opt_mem_alignment(BlockBackend *blk)
{
    return blk->root ? blk->root->bs->bl.opt_mem_alignment : 4096;
}

void blk_get_block_sizes(BlockBackend *blk, uint32_t *logical,
                         uint32_t *physical)
{
    *logical = blk->root ? blk->root->bs->bl.logical_block_size : 0;
    *physical = blk->root ? blk->root->bs->bl.physical_block_size : 0;
}

int64_t blk_get_pdiscard_alignment(BlockBackend *blk)
{
    return blk->root ? blk->root->bs->bl.pdiscard_alignment : 0;
}

void *qemu_try_memalign(size_t alignment, size_t size)
{
    void *p;

    alignment = MAX(alignment, sizeof(void *));
    return posix_memalign(&p, alignment, MAX(size, 1)) ? NULL : p;
}

void qemu_vfree(void *p)
{
    free(p);
}

void *blk_try_blockalign(BlockBackend *blk, size_t size)
{
    return qemu_try_memalign(blk_get_opt_mem_alignment(blk), size);
}

/* ---- What is allowed ---- */

int blk_check_request(BlockBackend *blk, BdrvRequestType type, int64_t offset,
                      int64_t bytes)
{
    BlockDriverState *bs = blk_bs(blk);
    int64_t len;

    if (!bs) {
        return -ENOMEDIUM;
    }
    if (type == BDRV_REQ_FLUSH) {
        return 0;
    }
    if (type != BDRV_REQ_READ &&
        (bs->read_only || !blk_is_writable(blk))) {
        return -EPERM;
    }
    if (offset < 0 || bytes < 0) {
        return -EIO;
    }
    if (blk->allow_write_beyond_eof) {
        len = BDRV_MAX_END;
    } else {
        len = bdrv_getlength(bs);
    }
    if (len < 0) {
        return len;
    }
    return offset > len || bytes > len - offset ? -EIO : 0;
}

/* ---- Blocking requests ---- */

static int blocking_flags(BlockBackend *blk, BdrvRequestType type, int flags)
{
    bool writes = type == BDRV_REQ_WRITE || type == BDRV_REQ_WRITE_ZEROES;

    return writes && !blk_enable_write_cache(blk) ? flags | BDRV_REQ_FUA :
           flags;
}

static int blocking_request(BlockBackend *blk, BdrvRequestType type,
                            int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset, int flags)
{
    BdrvTrackedRequest req = {
        .type = type,
        .flags = blocking_flags(blk, type, flags),
        .offset = offset,
        .bytes = bytes,
        .qiov = qiov,
        .qiov_offset = qiov_offset,
    };
    int ret;

    blk_gate_enter_wait(blk);
    blk_count_blocking(blk);
    ret = blk_check_request(blk, type, offset, bytes);
    if (ret == 0 && (bytes > 0 || type == BDRV_REQ_FLUSH)) {
        ret = bdrv_run_request(blk_bs(blk), &req);
    }
    blk_gate_leave(blk);
    return ret;
}

int blk_preadv(BlockBackend *blk, int64_t offset, int64_t bytes,
               QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return blocking_request(blk, BDRV_REQ_READ, offset, bytes, qiov,
                            qiov_offset, flags);
}

int blk_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return blocking_request(blk, BDRV_REQ_WRITE, offset, bytes, qiov,
                            qiov_offset, flags);
}

int blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
              int flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    return blk_preadv(blk, offset, bytes, &qiov, 0, flags);
}

int blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
               const void *buf, int flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, (void *)buf, bytes);
    return blk_pwritev(blk, offset, bytes, &qiov, 0, flags);
}

int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                      int flags)
{
    return blocking_request(blk, BDRV_REQ_WRITE_ZEROES, offset, bytes, NULL, 0,
                            flags);
}

int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    return blocking_request(blk, BDRV_REQ_DISCARD, offset, bytes, NULL, 0, 0);
}

int blk_flush(BlockBackend *blk)
{
    return blocking_request(blk, BDRV_REQ_FLUSH, 0, 0, NULL, 0, 0);
}

bool blk_truncate(BlockBackend *blk, int64_t offset, bool exact,
                  PreallocMode prealloc, int flags, Error **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    int64_t before;
    bool ok;

    if (!bs) {
        error_setg(errp, "No medium inserted");
        return false;
    }
    bdrv_drained_begin(bs);
    before = bdrv_getlength(bs);
    ok = bdrv_truncate(blk->root, offset, exact, prealloc, flags, errp);
    if (bdrv_getlength(bs) != before) {
        bdrv_parents_resized(bs);
    }
    bdrv_drained_end(bs);
    return ok;
}
