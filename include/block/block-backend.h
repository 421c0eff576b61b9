/*
 * BlockBackend: what devices, exports, jobs and tools hold of a disk.
 *
 * Two ways in.  blk_aio_submit() starts a request and returns; the callback
 * comes in the submitting thread's AioContext.  The blocking calls below return
 * when they are done, and may be called by any thread that may block (a tool's
 * main thread, a job, a worker), as many at a time as like.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_BACKEND_H
#define BLOCK_BACKEND_H

#include "block/block.h"

/* What a device wants to know; called on the control thread. */
typedef struct BlockDevOps {
    /* Called when the gate closes (stop taking requests from the guest, if
     * that saves parking them) and when it opens again. */
    void (*drained_begin)(void *opaque);
    void (*drained_end)(void *opaque);
    /* The length has changed. */
    void (*resize_cb)(void *opaque);
} BlockDevOps;

/* How requests went through; since the backend was created.  Any thread. */
typedef struct BlkPathStats {
    uint64_t inline_done;   /* done in the submitting thread, nothing waited */
    uint64_t submitted;     /* AIO, submitted from the submitting thread */
    uint64_t worker;        /* run by a pool thread */
    uint64_t parked;        /* of all these, how many were parked before … */
    uint64_t registered;    /* … and were in registered memory */
    uint64_t blocking;      /* blocking calls: run by their caller */
} BlkPathStats;

/* ---- Life (control thread) ---- */

/*
 * A backend without a disk.  @perm is what its user does to the disk,
 * @shared_perm what others may do at the same time (BLK_PERM_…).
 */
BlockBackend *blk_new(BlockGraph *graph, uint64_t perm, uint64_t shared_perm);
/* bdrv_open() and attach.  Permissions follow from @flags, as in the tools. */
BlockBackend *blk_new_open(BlockGraph *graph, const char *filename,
                           const char *reference, json_t *options, int flags,
                           Error **errp);
void blk_ref(BlockBackend *blk);
/* The last reference: waits for requests that are inside.  None may be parked
 * or about to be submitted: its user has had all its callbacks. */
void blk_unref(BlockBackend *blk);
/* Attach @bs (a reference is taken); false if permissions conflict. */
bool blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp);
/* Drain and detach. */
void blk_remove_bs(BlockBackend *blk);
BlockDriverState *blk_bs(BlockBackend *blk);
bool blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared_perm,
                  Error **errp);
/* @ops NULL: none.  If the gate is closed now, drained_begin is called. */
void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque);
void blk_set_name(BlockBackend *blk, const char *name);
const char *blk_name(const BlockBackend *blk);

/*
 * The user promises that requests are multiples of @bytes (a power of two;
 * 1, the default, promises nothing).  Where the node's own alignment is
 * coarser, requests are tracked and unaligned ones read, modify and write.
 */
void blk_set_user_block_size(BlockBackend *blk, int bytes);
/* On: a write completes when it is in the cache, and a flush makes it stable.
 * Off (write-through): every write is stable when it completes.  Any thread. */
void blk_set_enable_write_cache(BlockBackend *blk, bool enable);
bool blk_enable_write_cache(const BlockBackend *blk);
/* Allow requests past the end (qemu-io does, to see the driver's error). */
void blk_set_allow_write_beyond_eof(BlockBackend *blk, bool allow);

/*
 * ---- Properties ----
 *
 * Any thread, but not while a node is inserted or removed: whoever removes one
 * has ended those first who might ask, as an export does with its front end.
 */

int64_t blk_getlength(BlockBackend *blk);
bool blk_is_writable(BlockBackend *blk);
uint32_t blk_get_request_alignment(BlockBackend *blk);
int64_t blk_get_max_transfer(BlockBackend *blk);
/* Requests that cross a multiple of it may take more than one; 0: none do. */
int64_t blk_get_mapping_unit(BlockBackend *blk);
int blk_get_max_iov(BlockBackend *blk);
/* Does it look for zeroes in what is written? */
bool blk_detects_zeroes(BlockBackend *blk);
size_t blk_get_opt_mem_alignment(BlockBackend *blk);
/* Block sizes for a guest, as the host's device has them; 0: not known. */
void blk_get_block_sizes(BlockBackend *blk, uint32_t *logical,
                         uint32_t *physical);
/* Granularity and limits of discard, in bytes; 0: not known, or no limit. */
int64_t blk_get_pdiscard_alignment(BlockBackend *blk);
void blk_get_path_stats(BlockBackend *blk, BlkPathStats *stats);
/* @size bytes of zeroed or unspecified memory fit for O_DIRECT on @blk; free
 * with qemu_vfree().  NULL if there is not enough. */
void *blk_try_blockalign(BlockBackend *blk, size_t size);

/* ---- Asynchronous requests (thread of an AioContext) ---- */

/*
 * Submit @req (type, flags, offset, bytes, qiov, qiov_offset and cb set; zeroed
 * before its first use).  The calling thread's AioContext becomes its home.
 * Never blocks, never calls back from inside.  Errors come by the callback:
 * -ENOMEDIUM, -EIO (range), -EACCES/-EPERM (read-only), what drivers return.
 * What is submitted in one iteration of the loop reaches the kernel together,
 * at the end of the iteration.
 */
void blk_aio_submit(BlockBackend *blk, BdrvTrackedRequest *req);

/*
 * Home thread: ask for @req to end early.  A parked or queued request completes
 * with -ECANCELED; one that runs, at a safe point or not at all.  The callback
 * comes in any case.
 */
void blk_aio_cancel(BdrvTrackedRequest *req);

/*
 * Any thread: memory that many requests with BDRV_REQ_REGISTERED_BUF will use
 * (a guest's).  It is known to all nodes, so that neither reopening one nor
 * changing the graph makes a difference; an engine registers it with the kernel
 * when a request first lies in it.  From then on its pages are pinned: whoever
 * announces it promises that none of them is taken out and replaced.
 *
 * Unregistering waits for the threads that may have to let go of it, so no lock
 * may be held, nor may any request use the memory, which may be unmapped then.
 * As often as it was registered.
 */
void bdrv_register_buf(void *host, size_t size);
void bdrv_unregister_buf(void *host, size_t size);

/* ---- Blocking requests (any thread that may block) ----
 * 0 or -errno.  They wait while the backend is drained. */

int blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
              int flags);
int blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
               const void *buf, int flags);
int blk_preadv(BlockBackend *blk, int64_t offset, int64_t bytes,
               QEMUIOVector *qiov, size_t qiov_offset, int flags);
int blk_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                QEMUIOVector *qiov, size_t qiov_offset, int flags);
int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                      int flags);
int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
int blk_flush(BlockBackend *blk);
/* Control thread. */
bool blk_truncate(BlockBackend *blk, int64_t offset, bool exact,
                  PreallocMode prealloc, int flags, Error **errp);

/*
 * Status of a range: BDRV_BLOCK_… or -errno; *@pnum > 0 is how many bytes
 * from @offset have it (0 only at the end).  _above looks through the chain
 * down to, not into, @base (NULL: all of it); *@file and *@map say where.
 */
int bdrv_block_status_above(BlockDriverState *bs, BlockDriverState *base,
                            int64_t offset, int64_t bytes, int64_t *pnum,
                            int64_t *map, BlockDriverState **file);
/* 1/0 or -errno: does this layer (or any above @base) decide the contents? */
int bdrv_is_allocated(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      int64_t *pnum);
int bdrv_is_allocated_above(BlockDriverState *top, BlockDriverState *base,
                            bool include_base, int64_t offset, int64_t bytes,
                            int64_t *pnum);

/* Control thread: see bdrv_drained_begin(). */
void blk_drain_begin(BlockBackend *blk);
void blk_drain_end(BlockBackend *blk);
/* Wait until no request is under way. */
void blk_drain(BlockBackend *blk);

/* Aligned memory of any size; NULL if there is not enough. */
void *qemu_try_memalign(size_t alignment, size_t size);
void qemu_vfree(void *p);

#endif
