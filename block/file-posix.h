/*
 * What the files of the "file" and "host_device" drivers share.
 *
 *   file-posix.c   the driver tables, the fast path, block status
 *   file-rw.c      blocking reads and writes
 *   file-zero.c    zeroes and discards
 *   file-open.c    options, open, reopen, close
 *   file-probe.c   size, alignment and limits, asked of the kernel
 *   file-locks.c   locks against other processes
 *   file-behind.c  dropping from the page cache what was used
 *   file-create.c  create, truncate, preallocation
 *   file-sync.c    stable storage, and what failed of it
 *   file-cache.c   forgetting what is cached, for migration
 *   linux-aio.c, io_uring.c   the submission engines
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_FILE_POSIX_H
#define BLOCK_FILE_POSIX_H

#include <sys/stat.h>
#include "block/block-driver.h"
#include "block/lock-order.h"
#include "qemu/atomic.h"
#include "qemu/iov.h"
#include "qemu/list.h"

struct io_context;
struct iocb;
struct io_uring;

/*
 * The system calls of the data path, so that a test can put itself between the
 * driver and the system.  They behave as the calls they are named after.
 */
typedef struct FilePosixOps {
    ssize_t (*preadv)(int fd, const struct iovec *iov, int niov, off_t offset);
    ssize_t (*pwritev)(int fd, const struct iovec *iov, int niov,
                       off_t offset);
    ssize_t (*preadv2)(int fd, const struct iovec *iov, int niov, off_t offset,
                       int flags);
    ssize_t (*pwritev2)(int fd, const struct iovec *iov, int niov,
                        off_t offset, int flags);
    int (*fallocate)(int fd, int mode, off_t offset, off_t len);
    int (*fdatasync)(int fd);
    int (*ftruncate)(int fd, off_t length);
    int (*fstat)(int fd, struct stat *st);
    off_t (*lseek)(int fd, off_t offset, int whence);
    /* Submission by the engines; these two return -errno. */
    int (*io_submit)(struct io_context *io, long n, struct iocb **iocbs);
    int (*uring_enter)(struct io_uring *ring);
} FilePosixOps;

/* Swapped by tests only, while no file is open. */
extern const FilePosixOps *file_posix_ops;
extern const FilePosixOps file_posix_system_ops;

/* How requests that have to wait for a device are run. */
typedef enum FileEngine {
    FILE_ENGINE_THREADS,      /* pool threads, with the blocking functions */
    FILE_ENGINE_NATIVE,       /* linux-aio */
    FILE_ENGINE_IO_URING,
} FileEngine;

/* The option "aio"; its absence is AUTO. */
typedef enum FileAio {
    FILE_AIO_THREADS,
    FILE_AIO_NATIVE,
    FILE_AIO_IO_URING,
    FILE_AIO_AUTO,
} FileAio;

/* Kinds of fallocate() and their like that a file turned out not to have. */
enum {
    FILE_NO_PUNCH_HOLE   = 1 << 0,
    FILE_NO_ZERO_RANGE   = 1 << 1,
    FILE_NO_FALLOCATE    = 1 << 2,
    FILE_NO_BLKDISCARD   = 1 << 3,
    FILE_NO_BLKZEROOUT   = 1 << 4,
    FILE_NO_NOWAIT_READ  = 1 << 5,
    FILE_NO_NOWAIT_WRITE = 1 << 6,
    FILE_NO_AIO_FSYNC    = 1 << 7,
    FILE_NO_FSYNC        = 1 << 8,
};

/* A descriptor and what was found out about it: replaced whole by a reopen. */
typedef struct FileHandle {
    int fd;
    int open_flags;             /* O_… */
    uint64_t serial;            /* of this open, unique in the process */
    bool is_device;             /* block or character device */
    bool is_blkdev;
    bool direct;                /* O_DIRECT is on */
    /* In memory (tmpfs): no request ever waits for a device. */
    bool in_memory;
    /* Try reads and writes in the submitting thread first. */
    bool inline_io;
    FileEngine engine;
    uint32_t request_alignment;
    uint32_t mem_alignment;
    uint32_t logical_block_size;
    uint32_t physical_block_size;
} FileHandle;

typedef struct FileBehind FileBehind;

typedef struct FileState {
    /* Constant while undrained. */
    FileHandle h;
    char *filename;
    FileAio aio;
    bool has_io;                /* data will be accessed: there is an engine */
    bool use_locks;
    bool drop_cache;            /* before the image becomes ours */
    bool check_cache_dropped;
    uint32_t max_batch;         /* aio-max-batch; 0: the engine's own */
    FileBehind *behind;         /* drop what was used; NULL: do not */

    /* Control thread: the locks on the host. */
    uint64_t locked_perm;       /* bytes 100 + n that we hold */
    uint64_t locked_unshared;   /* bytes 200 + n */
    uint64_t perm;              /* what set_perm() set last */
    uint64_t shared;
    FileHandle *reopen;         /* between prepare and commit or abort */

    /* Any thread, atomically. */
    unsigned missing;           /* FILE_NO_… */
    int sync_error;             /* of an fsync that failed: kept */

    LeafLock sync_lock;
    QemuCond sync_cond;         /* a waiting thread need not wait any more */
    List sync_running GUARDED_BY(leaf_class);       /* FileSync.node */
    List sync_waiting GUARDED_BY(leaf_class);
    uint64_t sync_seq GUARDED_BY(leaf_class);       /* of the last one */
} FileState;

/* A sync that is under way, or has ended and waits for others. */
typedef struct FileSync FileSync;

/* ---- file-posix.c ---- */

/* -errno of what an fsync said before, or 0.  Any thread. */
static inline int file_sync_error(FileState *s)
{
    return qatomic_read(&s->sync_error);
}

static inline bool file_lacks(FileState *s, unsigned what)
{
    return qatomic_read(&s->missing) & what;
}

static inline void file_set_lacks(FileState *s, unsigned what)
{
    qatomic_or(&s->missing, what);
}

/* ---- file-rw.c ---- */

/*
 * The vector of @req for one system call: the request's own, without a copy,
 * or @one when it is a part of one entry.  Returns the number of entries, 0 if
 * it takes more than that (the worker slices it).
 */
int file_request_iov(const BdrvTrackedRequest *req, const struct iovec **iov,
                     struct iovec *one);

/* Can these buffers go to the device as they are? */
bool file_iov_is_aligned(const FileHandle *h, const struct iovec *iov,
                         int niov);

/*
 * The file ended at @pos.  0: it may, in its last sector; -EIO: it has shrunk;
 * 1: it does not end there any more.  Who appended to it may have said so
 * (total_bytes) between the call that met the end and our look: that is no file
 * that has shrunk.
 */
int file_look_at_end(BlockDriverState *bs, int64_t pos);

/* See BlockDriver.  Any thread; block. */
int file_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                QEMUIOVector *qiov, size_t qiov_offset, int flags);
int file_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset, int flags);

/* ---- file-zero.c ---- */

/* See BlockDriver.  Any thread; block. */
int file_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       int flags);
int file_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);

/* ---- file-sync.c ---- */

/* Control thread; nothing is under way. */
void file_sync_init(FileState *s);
void file_sync_destroy(FileState *s);

/* An fsync failed with @ret: what was dirty may be lost.  Returns @ret.  Any
 * thread. */
int file_latch_sync_error(FileState *s, int ret);

/* Sync, or say what has failed before: 0 or -errno.  Any thread; blocks. */
int file_sync(FileState *s);
/* sync_file_range() of a part, with its flags: 0 or -errno, and what says that
 * data is lost is kept for the next sync.  Any thread; blocks. */
int file_sync_range(FileState *s, int64_t offset, int64_t bytes,
                    unsigned flags);

/*
 * A sync for @req is about to be given to the system.  @req's home thread, as
 * the other two.  One of them has to follow, and takes the FileSync.
 */
FileSync *file_sync_begin(FileState *s, BdrvTrackedRequest *req);
/* It is over, with 0 or -errno: complete the request, now or, by some thread,
 * when those that ran beside it are over, too. */
void file_sync_complete(FileSync *op, int ret);
/* The system has not done it; the request is the caller's again. */
void file_sync_forget(FileSync *op);

/* ---- file-cache.c ---- */

/* See BlockDriver.activate. */
bool file_activate(BlockDriverState *bs, Error **errp);

/* ---- file-behind.c ---- */

/* See BlockDriver.drop_behind. */
void file_drop_behind(BlockDriverState *bs, int64_t keep);
/* With s->behind: a blocking read or write of the range is done.  May block. */
void file_behind_passed(FileState *s, int64_t offset, int64_t bytes,
                        bool is_write);
void file_behind_free(FileBehind *b);

/* ---- file-open.c ---- */

extern const char *const file_aio_names[];      /* by FileAio */
extern const char *const file_engine_names[];   /* by FileEngine */

bool file_open(BlockDriverState *bs, json_t *options, int flags, Error **errp);
bool host_device_open(BlockDriverState *bs, json_t *options, int flags,
                      Error **errp);
void file_close(BlockDriverState *bs);
bool file_reopen_prepare(BlockDriverState *bs, json_t *options, int flags,
                         void **state, Error **errp);
void file_reopen_commit(BlockDriverState *bs, void *state);
void file_reopen_abort(BlockDriverState *bs, void *state);
bool file_parse_filename(const char *filename, json_t *options, Error **errp);
bool host_device_parse_filename(const char *filename, json_t *options,
                                Error **errp);

/* ---- file-probe.c ---- */

/* Fill in what @h->fd is and needs.  May block.  False with @errp. */
bool file_probe_handle(FileHandle *h, Error **errp);
/* Bytes of the file or device behind @fd, not rounded, or -errno. */
int64_t file_raw_length(int fd);
int64_t file_getlength(BlockDriverState *bs);
int64_t file_get_allocated_file_size(BlockDriverState *bs);
void file_refresh_limits(BlockDriverState *bs);

/* ---- file-locks.c: control thread ---- */

/* Can the system lock as we need it? */
bool file_locks_available(void);
bool file_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                     Error **errp);
void file_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared);
void file_abort_perm_update(BlockDriverState *bs);
/* Give @fd, another open of the same file, the locks that @s has. */
bool file_locks_copy(FileState *s, int fd, Error **errp);
/* Release all locks of @fd: somebody else may hold a duplicate of it. */
void file_locks_drop(int fd);
/*
 * On a bare @fd: take the locks of @perm and of what is not in @shared, and
 * check that nobody else's forbid it.  False with @errp; locks may be left.
 */
bool file_locks_take(int fd, const char *filename, uint64_t perm,
                     uint64_t shared, Error **errp);

/* ---- file-create.c ---- */

extern const BlockCreateOption file_create_opts[];
bool file_delete(const char *filename, Error **errp);
extern const BlockCreateParam file_blockdev_create_params[];
bool file_blockdev_create(BlockGraph *graph, json_t *options, Error **errp);
bool file_create(BlockGraph *graph, const char *filename, json_t *options,
                 Error **errp);
bool host_device_create(BlockGraph *graph, const char *filename,
                        json_t *options, Error **errp);
bool file_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                   PreallocMode prealloc, int flags, Error **errp);

/* ---- linux-aio.c ---- */

/* Does the system have it? */
bool laio_available(void);
/*
 * Home thread: queue @req, to go out at the end of the iteration.  False: not
 * possible, ask a worker.
 */
bool laio_submit(FileState *s, BdrvTrackedRequest *req);
/* Home thread: take @req back, if it has not gone to the kernel yet. */
bool laio_cancel(BdrvTrackedRequest *req);

/* Counters of a context's engine, for tests; zero without one. */
typedef struct FileEngineStats {
    uint64_t requests;          /* taken */
    uint64_t submits;           /* system calls that submitted some */
    uint64_t retried;           /* handed to a worker after all */
    unsigned max_in_flight;     /* most at a time, so far */
    unsigned capacity;          /* the limit */
    uint64_t fixed_file;        /* requests by a registered file … */
    uint64_t fixed_buf;         /* … and in a registered buffer */
} FileEngineStats;

/* Owner thread of @ctx. */
void laio_get_stats(AioContext *ctx, FileEngineStats *stats);

/* ---- io_uring.c ---- */

/* Does the system allow it?  Asked once. */
bool uring_available(void);
bool uring_submit(FileState *s, BdrvTrackedRequest *req);
/* As laio_cancel(); what is in the kernel is asked to end early. */
bool uring_cancel(BdrvTrackedRequest *req);
void uring_get_stats(AioContext *ctx, FileEngineStats *stats);
/* @h is about to be closed: let go of it, in every ring.  Drained. */
void uring_forget_file(const FileHandle *h);

#endif
