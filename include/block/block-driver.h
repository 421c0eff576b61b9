/*
 * What a driver provides, and what it may call.
 *
 * A BlockDriver is a table of *blocking* functions.  Requests call them from
 * many threads at once: a driver protects its own state (rules: docs/devel/
 * locks).  A driver that wants speed adds map_nowait or submit.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include "block/block.h"
#include "qemu/options.h"

typedef struct BlockLimits {
    uint32_t request_alignment;    /* bytes, a power of two, at least 1 */
    uint32_t cut_alignment;        /* of this node and all below it the largest:
                                    * larger requests are cut at multiples */
    int64_t max_transfer;          /* bytes a read or write; 0: no limit */
    int64_t mapping_unit;          /* what lies inside of a multiple of it is
                                    * in one place; 0: all of the disk is */
    int64_t max_pdiscard;          /* 0: no limit */
    int64_t pdiscard_alignment;    /* what can be deallocated; 0: 1 */
    int64_t max_pwrite_zeroes;
    int64_t pwrite_zeroes_alignment;
    size_t min_mem_alignment;      /* buffers must be aligned so */
    size_t opt_mem_alignment;
    int max_iov;                   /* entries a request; 0: IOV_MAX */
    uint32_t logical_block_size;   /* of the host's device; 0: unknown */
    uint32_t physical_block_size;
} BlockLimits;

/*
 * No request ends beyond this: room to round an offset or a length up to any
 * alignment without overflow.  No disk is longer.
 */
#define BDRV_MAX_END (INT64_MAX / GiB * GiB)

/* What a child is to its parent; decides default permissions. */
typedef enum BdrvChildRole {
    BDRV_CHILD_DATA     = 1 << 0,
    BDRV_CHILD_METADATA = 1 << 1,
    BDRV_CHILD_FILTERED = 1 << 2,
    BDRV_CHILD_COW      = 1 << 3,
    BDRV_CHILD_PRIMARY  = 1 << 4,
    BDRV_CHILD_IMAGE    = BDRV_CHILD_DATA | BDRV_CHILD_METADATA,
} BdrvChildRole;

/* An edge of the graph.  Constant while undrained. */
struct BdrvChild {
    BlockDriverState *bs;
    char *name;                   /* "file", "backing" …; "root" of a backend */
    int role;
    BlockDriverState *parent_bs;   /* one of these two */
    BlockBackend *parent_blk;
    uint64_t perm;                /* atomic: changes while requests run */
    uint64_t shared_perm;         /* control thread */
    bool users_aligned;           /* what the parent's users write is aligned
                                   * as @bs asks; what the parent writes of
                                   * its own may not be */
    ListNode child_node;           /* parent_bs->children */
    ListNode parent_node;          /* bs->parents */
};

/* The answer of map_nowait. */
typedef enum BdrvMapResult {
    /* It would block, or needs more than passing it on: ask a worker. */
    BDRV_MAP_WORKER,
    /* The same request, at mapping->offset of mapping->child. */
    BDRV_MAP_CHILD,
    /* Nothing is left to do: mapping->ret is the result. */
    BDRV_MAP_DONE,
} BdrvMapResult;

typedef struct BdrvMapping {
    BdrvChild *child;
    int64_t offset;
    int ret;
    /*
     * The driver is the only one who writes to the child (or nobody does), and
     * no write that is unaligned for the child shares a block with this range:
     * the request need not be tracked for that.  What a format knows whose
     * metadata and data are in different clusters, if its users write aligned
     * (child->users_aligned).  A read may always say so, from that one writer:
     * what shares a block with a write is written as it is.
     */
    bool apart;
} BdrvMapping;

/* One option of "create -o help". */
typedef enum BlockOptType {
    BLOCK_OPT_STRING,
    BLOCK_OPT_BOOL,
    BLOCK_OPT_NUMBER,
    BLOCK_OPT_SIZE,
} BlockOptType;

/* What blockdev-create takes, in QAPI's names and types. */
typedef enum BlockParamType {
    BLOCK_PARAM_STRING,
    BLOCK_PARAM_BOOL,
    BLOCK_PARAM_INT,
    BLOCK_PARAM_SIZE,
    BLOCK_PARAM_NODE,           /* a name, or an object that describes one */
    BLOCK_PARAM_ENUM,           /* one of @values */
    BLOCK_PARAM_UNION,          /* an object with a "format" of @values */
} BlockParamType;

typedef struct BlockCreateParam {
    const char *name;
    BlockParamType type;
    bool required;
    const char *const *values;  /* NULL-terminated */
    /* The members of a union, "format" among them, by the index of its value;
     * each ends with one without a name. */
    const struct BlockCreateParam *const *variants;
} BlockCreateParam;

typedef struct BlockCreateOption {
    const char *name;
    BlockOptType type;
    const char *help;
    const char *def_value;         /* used if not given; NULL: none */
} BlockCreateOption;

/* "qemu-img check": what was found, what was repaired. */
typedef enum BdrvCheckMode {
    BDRV_FIX_LEAKS  = 1 << 0,
    BDRV_FIX_ERRORS = 1 << 1,
} BdrvCheckMode;

typedef struct BdrvCheckResult {
    int64_t corruptions, leaks, check_errors;
    int64_t corruptions_fixed, leaks_fixed;
    int64_t image_end_offset;      /* 0: not known */
    int64_t total_clusters, allocated_clusters;    /* total 0: not counted */
    int64_t fragmented_clusters, compressed_clusters;
} BdrvCheckResult;

typedef struct QEMUSnapshotInfo {
    char id_str[128];
    char name[256];
    uint64_t vm_state_size;        /* bytes */
    uint32_t date_sec;             /* since the epoch, UTC */
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t icount;               /* UINT64_MAX: none */
    int64_t disk_size;             /* bytes; -1: not recorded */
} QEMUSnapshotInfo;

/* @done of @total; same thread as the call. */
typedef void BdrvProgressFunc(void *opaque, int64_t done, int64_t total);

/* How much of an image probing looks at. */
#define BLOCK_PROBE_BUF_SIZE 512

struct BlockDriver {
    const char *format_name;
    /* "file" for file:…; NULL for formats and filters. */
    const char *protocol_name;
    size_t instance_size;
    bool is_filter;
    bool supports_backing;
    /* Length may change without a truncate (a device): ask each time. */
    bool has_variable_length;
    /*
     * Another process may write to the image while this node is inactive: it
     * keeps nothing of it in memory, or only what activate forgets and
     * inactivate writes.  Opened with BDRV_O_INACTIVE it writes nothing.
     */
    bool supports_handover;
    /* Its requests to children are aligned as the children ask, as it asks the
     * same of its users (filters do that by themselves).  A format that does
     * not say so takes what it can; its file reads, modifies and writes. */
    bool sends_aligned;
    const BlockCreateOption *create_opts;      /* ends with a NULL name */

    /* 0…100: how sure that @buf (the first @size bytes) is of this format. */
    int (*probe)(const uint8_t *buf, int size, const char *filename);
    int (*probe_device)(const char *filename);
    /* Turn what follows "protocol:" into @options; @filename is whole. */
    bool (*parse_filename)(const char *filename, json_t *options,
                           Error **errp);

    /*
     * Open: take from @options (nested, driver-specific; the core refuses what
     * is left over) and read what is needed.  bs->opaque is zeroed memory of
     * instance_size.  On failure, undo; close is not called.
     */
    bool (*open)(BlockDriverState *bs, json_t *options, int flags,
                 Error **errp);
    void (*close)(BlockDriverState *bs);
    /* Reopen, drained: prepare may fail; then commit or abort. @state carries
     * what prepare made. */
    bool (*reopen_prepare)(BlockDriverState *bs, json_t *options, int flags,
                           void **state, Error **errp);
    void (*reopen_commit)(BlockDriverState *bs, void *state);
    void (*reopen_abort)(BlockDriverState *bs, void *state);
    /* Set what bs->bl cannot inherit from the children.  After open, reopen. */
    void (*refresh_limits)(BlockDriverState *bs);
    /* bdrv_drop_behind() of this node alone. */
    void (*drop_behind)(BlockDriverState *bs, int64_t keep);
    /* What is needed of @child; NULL: by role (bdrv_default_perms()). */
    void (*child_perm)(BlockDriverState *bs, BdrvChild *child, int role,
                       uint64_t perm, uint64_t shared,
                       uint64_t *nperm, uint64_t *nshared);
    /* Permissions of the node as a whole: locks on the host.  check may fail;
     * then set or abort follows. */
    bool (*check_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                       Error **errp);
    void (*set_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared);
    void (*abort_perm_update)(BlockDriverState *bs);

    /* The node becomes active, its permissions are taken: forget what is known
     * of the image, which another process may have changed.  On failure it
     * stays inactive.  Drained, children first. */
    bool (*activate)(BlockDriverState *bs, Error **errp);
    /* The node becomes inactive: write what is only in memory, and from now on
     * nothing.  On failure it stays active, and the bitmaps that were stored
     * before are in use again.  Drained, parents first; then permissions are
     * given up. */
    bool (*inactivate)(BlockDriverState *bs, Error **errp);

    /* Create an image: @filename for protocols, formats create their file by
     * bdrv_create_file().  @options flat, all taken. */
    bool (*create)(BlockGraph *graph, const char *filename, json_t *options,
                   Error **errp);
    /* Remove what create() has made, if an image cannot be made in it. */
    bool (*delete_file)(const char *filename, Error **errp);
    /* blockdev-create: make an image in nodes, or a file.  @options nested, in
     * QAPI's spelling, all taken, and of the types of the parameters, which end
     * with one without a name. */
    bool (*blockdev_create)(BlockGraph *graph, json_t *options, Error **errp);
    const BlockCreateParam *blockdev_create_params;

    /* Hooks of single formats; control thread, drained.  NULL: cannot. */

    /* Look for damage, repair what @fix says.  0 with @res, or -errno if the
     * check could not be completed (@res says how far it got). */
    int (*check)(BlockDriverState *bs, BdrvCheckResult *res, BdrvCheckMode fix);
    /* Internal snapshots.  create fills in the id that it chose; goto, delete
     * and load_tmp take what find found. */
    bool (*snapshot_create)(BlockDriverState *bs, QEMUSnapshotInfo *sn,
                            Error **errp);
    bool (*snapshot_goto)(BlockDriverState *bs, const char *id, Error **errp);
    bool (*snapshot_delete)(BlockDriverState *bs, const char *id, Error **errp);
    /* *list: g_new'ed array, *n entries. */
    bool (*snapshot_list)(BlockDriverState *bs, QEMUSnapshotInfo **list,
                          size_t *n, Error **errp);
    /* From now on read the snapshot (a read-only node). */
    bool (*snapshot_load_tmp)(BlockDriverState *bs, const char *id,
                              Error **errp);
    /* The state of a machine, kept beside the disk: what was not written reads
     * as zeroes.  All of @qiov at @pos; 0 or -errno. */
    int (*save_vmstate)(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov);
    int (*load_vmstate)(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov);
    /* Change creation options of what exists; @options flat, all taken. */
    bool (*amend)(BlockDriverState *bs, json_t *options, bool force,
                  BdrvProgressFunc *progress, void *opaque, Error **errp);
    const BlockCreateOption *amend_opts;
    /* Record the backing file in the image; NULL: none. */
    bool (*change_backing_file)(BlockDriverState *bs, const char *file,
                                const char *format, Error **errp);
    /* Drop all data of this layer. */
    bool (*make_empty)(BlockDriverState *bs, Error **errp);

    /*
     * Requests.  Any thread, many at once, blocking.  0 or -errno.  Ranges are
     * within limits, aligned to request_alignment, inside the length (writes
     * may extend a growable protocol).  A short transfer is an error; there is
     * no partial success.
     */
    int (*preadv)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                  QEMUIOVector *qiov, size_t qiov_offset, int flags);
    int (*pwritev)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset, int flags);
    /*
     * The first half of a compressed write, for who wants to do it long before
     * the second (a write with BDRV_REQ_COMPRESSED_DATA): @dest and @src are of
     * get_info's cluster_size.  No I/O.  Bytes, fewer than that, or -ENOSPC: it
     * does not shrink, write it as it is.  Of the end of the disk, what is
     * missing of the cluster is zeroes.  NULL: there is no such thing.
     */
    ssize_t (*compress)(BlockDriverState *bs, void *dest, const void *src);
    /*
     * Advice: all of the range is about to be written, in any order, and is to
     * lie where it would if it were written now.  The caller, who keeps the
     * node open and undrained, cannot know what becomes of it.  Any thread;
     * blocks.  0; on -errno nothing is lost.  NULL: there is no such thing.
     */
    int (*place)(BlockDriverState *bs, int64_t offset, int64_t bytes);
    /* -ENOTSUP: the core writes zeroes. */
    int (*pwrite_zeroes)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         int flags);
    /* -ENOTSUP counts as done: discarding is advice. */
    int (*pdiscard)(BlockDriverState *bs, int64_t offset, int64_t bytes);
    /* Everything that completed before is on stable storage.  Of the driver's
     * own state, then (by the core) of its children; unless flushes_children
     * says that the driver does that, too. */
    int (*flush)(BlockDriverState *bs);
    bool flushes_children;
    /* BDRV_BLOCK_… for a prefix of the range, *@pnum > 0 its length; NULL:
     * all is data.  @want_zero: worth an effort to find zeroes. */
    int (*block_status)(BlockDriverState *bs, bool want_zero, int64_t offset,
                        int64_t bytes, int64_t *pnum, int64_t *map,
                        BlockDriverState **file);
    /* New length (control thread, nothing overlapping runs). */
    bool (*truncate)(BlockDriverState *bs, int64_t offset, bool exact,
                     PreallocMode prealloc, int flags, Error **errp);
    /* Bytes, or -errno.  The core rounds up to whole sectors: a read of the
     * last one gets zeroes for what is not there. */
    int64_t (*getlength)(BlockDriverState *bs);
    int64_t (*get_allocated_file_size)(BlockDriverState *bs);
    int (*get_info)(BlockDriverState *bs, BlockDriverInfo *info);
    /* A newly created image reads as zeroes; NULL: not known. */
    bool (*has_zero_init)(BlockDriverState *bs);
    json_t *(*get_specific_info)(BlockDriverState *bs, Error **errp);
    json_t *(*measure)(json_t *options, BlockDriverState *in_bs, Error **errp);

    /*
     * Dirty bitmaps that the image keeps.  Control thread, nothing of the node
     * runs; all may block.  NULL: the format keeps none.
     *
     * Can this image keep any?  NULL: yes, if the next one is there.
     */
    bool (*supports_persistent_dirty_bitmap)(BlockDriverState *bs);
    /* Could a new persistent bitmap of that name and granularity be stored? */
    bool (*can_store_new_dirty_bitmap)(BlockDriverState *bs, const char *name,
                                       uint32_t granularity, Error **errp);
    /* Forget @name in the image; that it is not there is no error. */
    bool (*remove_persistent_dirty_bitmap)(BlockDriverState *bs,
                                           const char *name, Error **errp);
    /*
     * Write the node's persistent bitmaps into the image, but those that are
     * inconsistent or to be skipped; with @release_stored, let go of those
     * that were.  What the image has besides stays: a second call finds
     * nothing to do.  Called before close of a writable node, and before it
     * is inactivated.
     */
    bool (*store_dirty_bitmaps)(BlockDriverState *bs, bool release_stored,
                                Error **errp);

    /* Which flags of a write or write_zeroes the driver honours itself; the
     * core emulates FUA by a flush. */
    int supported_write_flags;
    int supported_zero_flags;

    /*
     * Fast path, in the submitting thread: try-lock only, no I/O, no wait.
     * NULL: always a worker.  A mapping that points at something which could
     * go away sets req->pin and req->unpin.  A read of a node that has a
     * backing file is mapped to it, or else what is read is allocated here.
     */
    BdrvMapResult (*map_nowait)(BlockDriverState *bs, BdrvTrackedRequest *req,
                                BdrvMapping *mapping);
    /*
     * Start req (at req->map_offset of this node) and complete it later by
     * bdrv_request_complete().  Runs in the home context's thread, which
     * completes it, too, or any other thread.  False: not this one now, ask a
     * worker (nothing has been done).  An immediate result is also reported
     * by bdrv_request_complete(), after bdrv_request_is_inline().
     */
    bool (*submit)(BlockDriverState *bs, BdrvTrackedRequest *req);
    /* Best effort: make a submitted request complete soon. */
    void (*cancel)(BlockDriverState *bs, BdrvTrackedRequest *req);

    /* blkdebug's break points, and events that other drivers emit. */
    void (*debug_event)(BlockDriverState *bs, const char *event);
    int (*debug_breakpoint)(BlockDriverState *bs, const char *event,
                            const char *tag);
    int (*debug_remove_breakpoint)(BlockDriverState *bs, const char *tag);
    int (*debug_resume)(BlockDriverState *bs, const char *tag);
    bool (*debug_is_suspended)(BlockDriverState *bs, const char *tag);
};

/* A node of the graph. */
struct BlockDriverState {
    /* Constant while undrained (changed by open, reopen, graph changes). */
    BlockDriver *drv;
    void *opaque;
    BlockGraph *graph;
    int open_flags;
    bool read_only;
    bool detect_zeroes;
    bool detect_zeroes_unmap;
    bool probed;                   /* raw that nobody asked for by name */
    char *node_name;
    char *filename;                /* as given, or made up from the options */
    json_t *options;               /* as given, without driver state */
    BlockLimits bl;
    bool copy_on_read;             /* every read copies, to the end */
    int64_t copy_alignment;        /* copies are of such units; 0: none yet */
    BdrvChild *file;               /* the primary child, or NULL */
    BdrvChild *backing;
    /* What the image's header says of its backing file: set by open, NULL if
     * nothing.  The core opens it unless the options say otherwise. */
    char *backing_file;
    char *backing_format;

    /* Control thread. */
    int refcnt;
    int quiesce_counter;           /* drains of this node that are under way */
    bool tracking_for_alignment;   /* counts in "tracking", as does the next;
                                    * requests read them, they change drained */
    int tracking_for_copies;       /* of reads: who has asked for them */
    bool is_open;                  /* the driver's open succeeded */
    bool is_opening;               /* no parent may have it yet */
    List children;
    List parents;
    ListNode graph_node;

    /* Any thread, atomically. */
    int64_t total_bytes;           /* length; -1: ask the driver */
    int tracking;                  /* how many things need tracked requests;
                                    * changes drained */
    ReqsLock reqs_lock;
    List tracked_requests GUARDED_BY(reqs_class);
    List waiting_requests GUARDED_BY(reqs_class);  /* first come first served */
    int dirty_recording;           /* atomic: how many dirty bitmaps record
                                    * writes; grows drained */
    BitmapLock bitmap_lock;
    List dirty_bitmaps GUARDED_BY(bitmap_class);   /* the newest first */
};

/* ---- For open, on the control thread ---- */

/*
 * Open and attach the child that options["name"] describes: a string (node
 * name) or an object.  @allow_none: absent is no error (returns true, *child
 * NULL).  The key is taken out of @options.
 */
bool bdrv_open_child(BlockDriverState *parent, json_t *options,
                     const char *name, int role, bool allow_none,
                     BdrvChild **child, Error **errp);
/* The child "file", with the format's usual role, into bs->file. */
bool bdrv_open_file_child(BlockDriverState *bs, json_t *options, Error **errp);
/* Create "file" for a format; then open it read-write to be filled in. */
bool bdrv_create_file(BlockGraph *graph, const char *filename, json_t *options,
                      Error **errp);
/* A format failed to fill it in: remove it, if its protocol can; with a warning
 * if that fails.  It is closed. */
void bdrv_delete_created_file(const char *filename);
/*
 * For blockdev_create: take @key, which names a node or describes one, and open
 * it to be filled in, by nobody else; NULL with @errp.
 */
BlockBackend *bdrv_create_take_node(BlockGraph *graph, json_t *options,
                                    const char *key, Error **errp);
void bdrv_default_perms(BlockDriverState *bs, BdrvChild *c, int role,
                        uint64_t perm, uint64_t shared,
                        uint64_t *nperm, uint64_t *nshared);

/* ---- Blocking requests on a child; any thread that may block ---- */

int bdrv_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
               int flags);
int bdrv_pwrite(BdrvChild *child, int64_t offset, int64_t bytes,
                const void *buf, int flags);
int bdrv_preadv(BdrvChild *child, int64_t offset, int64_t bytes,
                QEMUIOVector *qiov, size_t qiov_offset, int flags);
int bdrv_pwritev(BdrvChild *child, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset, int flags);
int bdrv_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                       int flags);
int bdrv_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes);
int bdrv_flush(BlockDriverState *bs);
/* pwrite, then flush. */
int bdrv_pwrite_sync(BdrvChild *child, int64_t offset, int64_t bytes,
                     const void *buf, int flags);
int bdrv_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      int64_t *pnum, int64_t *map, BlockDriverState **file);
bool bdrv_truncate(BdrvChild *child, int64_t offset, bool exact,
                   PreallocMode prealloc, int flags, Error **errp);

/* ---- For submit ---- */

/*
 * The request is done.  From any thread, exactly once; the request is not to
 * be touched afterwards.
 */
void bdrv_request_complete(BdrvTrackedRequest *req, int ret);
/* Note, before completing from inside submit, that nothing had to wait. */
void bdrv_request_is_inline(BdrvTrackedRequest *req);
/* Home thread: count it as one that used registered memory. */
void bdrv_request_is_registered(BdrvTrackedRequest *req);
/* Instead of completing: let a worker run it after all (from its home
 * thread; the way out when an engine cannot serve it, -EAGAIN). */
void bdrv_request_to_worker(BdrvTrackedRequest *req);

/* blkdebug's hook: @event happens at @child's node.  Free without one. */
void bdrv_debug_event(BlockDriverState *bs, const char *event);

/* ---- Tracking (block/tracked-request.c) ---- */

/* Drained: from now on (until _end) requests of @bs are tracked. */
void bdrv_tracking_begin(BlockDriverState *bs);
void bdrv_tracking_end(BlockDriverState *bs);

/* Drained: from now on (until _end) reads of @bs with BDRV_REQ_COPY_ON_READ
 * copy what @bs has from its backing file. */
void bdrv_copy_on_read_begin(BlockDriverState *bs);
void bdrv_copy_on_read_end(BlockDriverState *bs);

/* block/drivers.c: the drivers that are built in; NULL-terminated.  To look one
 * up, use bdrv_all_drivers(). */
extern BlockDriver *const bdrv_drivers[];

/*
 * Add @drv (not copied) after all others: a module's driver, or a test's.  Main
 * thread, before the program's first block_graph_new().
 */
void bdrv_register_driver(BlockDriver *drv);

#endif
