/*
 * What the files of the block core share, and nobody else sees.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_INTERNAL_H
#define BLOCK_INTERNAL_H

#include "block/block-backend.h"
#include "block/block-driver.h"
#include "qemu/atomic.h"

struct BlockGraph {
    GraphLock lock;
    List nodes GUARDED_BY(graph_class);
    uint64_t next_auto_name GUARDED_BY(graph_class);
    int backing_depth;          /* control thread: images being opened */
};

/* Counters of threads that hardly ever share one; summed when asked for. */
#define BLK_STATS_SHARDS 8

typedef struct BlkStatsShard {
    BlkPathStats s;             /* atomic */
} __attribute__((aligned(64))) BlkStatsShard;

struct BlockBackend {
    /* Control thread. */
    BlockGraph *graph;
    char *name;
    int refcnt;
    uint64_t perm;
    uint64_t shared_perm;
    const BlockDevOps *dev_ops;
    void *dev_opaque;

    /* Changes drained; read by requests. */
    BdrvChild *root;
    int user_block_size;
    bool allow_write_beyond_eof;

    bool enable_write_cache;    /* atomic */

    /*
     * The gate (block/drain.c).  state counts requests that are inside and
     * has BLK_GATE_CLOSED while drained, in one word.
     */
    unsigned gate_state;        /* atomic */
    GateLock gate;
    QemuCond gate_cond;         /* nobody is inside, or the gate is open */
    int quiesce_counter GUARDED_BY(gate_class);
    List parked GUARDED_BY(gate_class);

    BlkStatsShard stats[BLK_STATS_SHARDS];
};

/* ---- block/blockdev-create-check.c ---- */

/* What blockdev-create was given, "driver" included, is as @params say. */
bool bdrv_create_check_params(const json_t *options,
                              const BlockCreateParam *params, Error **errp);

/* ---- block/drain.c ---- */

void blk_gate_init(BlockBackend *blk);
void blk_gate_destroy(BlockBackend *blk);
/* Count a request in; false: the gate is closed, nothing was counted. */
bool blk_gate_try_enter(BlockBackend *blk);
void blk_gate_leave(BlockBackend *blk);
/* Home thread: @n more requests of @blk are to end here. */
#ifdef CONFIG_LOCK_DEBUG
void blk_debug_count_home(BlockBackend *blk, int n);
#else
static inline void blk_debug_count_home(BlockBackend *blk, int n)
{
}
#endif
/* In a thread that may block: wait for the gate to open, then enter. */
void blk_gate_enter_wait(BlockBackend *blk);
/* Park @req unless the gate has opened meanwhile (then false). */
bool blk_gate_park(BlockBackend *blk, BdrvTrackedRequest *req);
/* Take a parked request out; false if it is not parked any more. */
bool blk_gate_unpark(BlockBackend *blk, BdrvTrackedRequest *req);
/* Close and open, nesting; _wait returns when nobody is inside. */
void blk_gate_close(BlockBackend *blk);
void blk_gate_wait(BlockBackend *blk);
void blk_gate_open(BlockBackend *blk);
/* Drains of @bs that apply to a parent that is being attached or detached. */
void bdrv_drain_attach(BdrvChild *child);
void bdrv_drain_detach(BdrvChild *child);

/* ---- block/request.c ---- */

/* Parked requests go on from here, in their home context. */
void bdrv_request_resume(BdrvTrackedRequest *req);
void bdrv_request_cancelled(BdrvTrackedRequest *req);
void blk_count_blocking(BlockBackend *blk);

/* ---- block/tracked-request.c ---- */

static inline bool bdrv_is_tracking(BlockDriverState *bs)
{
    return qatomic_read(&bs->tracking) > 0;
}

void bdrv_tracked_init_node(BlockDriverState *bs);
void bdrv_tracked_destroy_node(BlockDriverState *bs);
/* Fill in what @req conflicts on, from its type, offset, bytes and flags. */
void bdrv_tracked_prepare(BlockDriverState *bs, BdrvTrackedRequest *req);
/* Admit @req, for a worker to _run: 1; or put it on the waiting list to be
 * resumed: 0; or -EBUSY with NO_WAIT. */
int bdrv_tracked_admit(BlockDriverState *bs, BdrvTrackedRequest *req);
/* The calling thread runs @req, until _leave, and may have to wait for that.
 * 0, or -EBUSY with NO_WAIT. */
int bdrv_tracked_begin(BlockDriverState *bs, BdrvTrackedRequest *req);
/* The same, for one that has been admitted without a thread. */
void bdrv_tracked_run(BdrvTrackedRequest *req);
void bdrv_tracked_leave(BdrvTrackedRequest *req);
void bdrv_tracked_end(BdrvTrackedRequest *req);
/* Take a waiting request out; false if it does not wait any more. */
bool bdrv_tracked_cancel(BdrvTrackedRequest *req);
/* Control thread: does @bs need tracking for its alignment, and who writes
 * aligned (users_aligned of the edges)?  When its users, its alignment or its
 * parents have changed; drains to change anything. */
void bdrv_update_alignment_tracking(BlockDriverState *bs);

/* ---- block/dirty-bitmap.c ---- */

void bdrv_dirty_bitmap_init_node(BlockDriverState *bs);
/* Forgets what has not been stored. */
void bdrv_dirty_bitmap_destroy_node(BlockDriverState *bs);
/* The length of @bs has been changed. */
void bdrv_dirty_bitmaps_truncate(BlockDriverState *bs);

/* Is there a bitmap that records? */
static inline bool bdrv_is_recording(BlockDriverState *bs)
{
    return qatomic_read(&bs->dirty_recording) > 0;
}

void bdrv_mark_dirty(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     int ret);

/* The driver has written (zeroes), or discarded, these aligned bytes; if @ret
 * is < 0, perhaps a part of them.  Before the request completes. */
static inline void bdrv_note_written(BlockDriverState *bs, int64_t offset,
                                     int64_t bytes, int ret)
{
    if (unlikely(bdrv_is_recording(bs))) {
        bdrv_mark_dirty(bs, offset, bytes, ret);
    }
}

/* ---- block/io.c, block/io-zero.c: after admission, in a thread that may
 * block ---- */

int bdrv_do_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset, int flags);
int bdrv_do_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset, int flags);
int bdrv_do_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          int flags);
int bdrv_do_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
/* Run @req by its type. */
int bdrv_do_request(BlockDriverState *bs, BdrvTrackedRequest *req);
/* As above, admitted and ended here: any thread that may block. */
int bdrv_run_request(BlockDriverState *bs, BdrvTrackedRequest *req);
/* Writes end here: the node may have grown. */
void bdrv_note_extent(BlockDriverState *bs, int64_t end);
void bdrv_refresh_total_bytes(BlockDriverState *bs);
/* Flush for a FUA that the driver did not take care of. */
int bdrv_finish_fua(BlockDriverState *bs, int flags, int supported);

/*
 * Write what the range reads as anyway, aligned; no dirty bitmap records it.
 * The caller's request is serialising.
 */
int bdrv_pwrite_unchanged(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          QEMUIOVector *qiov);
int bdrv_zero_unchanged(BlockDriverState *bs, int64_t offset, int64_t bytes);

/* ---- block/io-copy-on-read.c ---- */

/* Is @req, if it is tracked at @bs, to copy what it reads? */
bool bdrv_copies_on_read(const BlockDriverState *bs,
                         const BdrvTrackedRequest *req);
/* What copies are rounded out to, and so what they conflict on. */
int64_t bdrv_copy_alignment(const BlockDriverState *bs);
/* bdrv_do_preadv(), inside a request that is tracked as one that copies. */
int bdrv_do_copy_on_read(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset, int flags);

/* ---- block/limits.c ---- */

void bdrv_refresh_limits(BlockDriverState *bs);

/* ---- block/perms.c ---- */

/* Recompute and apply the permissions of @bs and what is below it. */
bool bdrv_refresh_perms(BlockDriverState *bs, Error **errp);
/* Change an edge's permissions, all or nothing. */
bool bdrv_child_set_perm(BdrvChild *child, uint64_t perm, uint64_t shared_perm,
                         Error **errp);

/* ---- block.c ---- */

BlockDriverState *bdrv_new_node(BlockGraph *graph, const char *node_name,
                                Error **errp);
/* Attach @bs below a parent; takes over the caller's reference.  NULL: the
 * permissions conflict (the reference is dropped as well). */
BdrvChild *bdrv_attach_child(BlockDriverState *parent_bs,
                             BlockBackend *parent_blk, BlockDriverState *bs,
                             const char *name, int role, uint64_t perm,
                             uint64_t shared_perm, Error **errp);
void bdrv_detach_child(BdrvChild *child);
/* The length has changed: tell every backend above. */
void bdrv_parents_resized(BlockDriverState *bs);

/* ---- block/driver-table.c ---- */

/* There is a graph: no driver can be added any more. */
void bdrv_drivers_in_use(void);

/* ---- block/open.c, block/reopen.c ---- */

typedef struct BdrvCommonOptions {
    int flags;
    bool detect_zeroes;
    bool detect_zeroes_unmap;
} BdrvCommonOptions;

/* @options nested, sharing nothing with them: opening takes them apart. */
json_t *bdrv_crumple_copy(const json_t *options, Error **errp);
/* Take the options that every node has; start from @common->flags. */
bool bdrv_take_common_options(json_t *options, BdrvCommonOptions *common,
                              Error **errp);

/* Length of "protocol" in front of a colon; 0: a plain path. */
size_t bdrv_protocol_length(const char *filename);
/* How a backing file is opened, from how its overlay is. */
int bdrv_backing_flags(int flags);

/* ---- block/backing.c ---- */

/* After the driver's open: the backing file that the option @value ("backing",
 * NULL if not given) or the header asks for. */
bool bdrv_open_backing(BlockDriverState *bs, const json_t *value,
                       Error **errp);

/* Does the option @value ask for no backing file?  Every driver can do that. */
bool bdrv_is_no_backing(const json_t *value);

/* ---- block/block-backend.c ---- */

int blk_check_request(BlockBackend *blk, BdrvRequestType type, int64_t offset,
                      int64_t bytes);
void blk_notify_drained(BlockBackend *blk, bool begin);

#endif
