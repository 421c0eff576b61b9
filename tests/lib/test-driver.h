/*
 * Drivers for tests of the block core: disks in memory that the test can see
 * into, limit, hold and make fail.
 *
 *   test          a protocol with blocking functions only
 *   test-fua      the same; honours FUA (and MAY_UNMAP) itself
 *   test-aio      has submit and cancel, too
 *   test-filter   passes all to "file"; map_nowait
 *   test-format   its data starts at option "offset" of "file"; map_nowait pins
 *   test-cow      clusters of 4 KiB on a disk of its own, or from "backing"
 *   test-overlay  the same, but whole: it can be written, too
 *
 * A disk is made first; option "disk" of the first three (and of the last two)
 * names it.  What the test may change while requests run is said so; the rest
 * is set before the image is opened.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TEST_DRIVER_H
#define TEST_DRIVER_H

#include "block/block-backend.h"
#include "block/block-driver.h"

/* All waits of the tests end after so long, with a failure. */
#define TEST_TIMEOUT_NS (INT64_C(60) * 1000 * 1000 * 1000)

#define TEST_CLUSTER 4096

typedef enum TestOp {
    TEST_OPEN,
    TEST_CLOSE,
    TEST_GETLENGTH,
    TEST_READ,
    TEST_WRITE,
    TEST_ZEROES,
    TEST_DISCARD,
    TEST_FLUSH,
    TEST_STATUS,
    TEST_TRUNCATE,
    TEST_CHECK_PERM,
    TEST_SET_PERM,
    TEST_ABORT_PERM,
    TEST_REOPEN_PREPARE,
    TEST_REOPEN_COMMIT,
    TEST_REOPEN_ABORT,
    TEST_SUBMIT,            /* logged beside the operation itself */
    TEST_OP__MAX,
} TestOp;

#define TEST_IO (1u << TEST_READ | 1u << TEST_WRITE | 1u << TEST_ZEROES | \
                 1u << TEST_DISCARD | 1u << TEST_FLUSH)

typedef struct TestCall {
    TestOp op;
    int64_t offset;
    int64_t bytes;
    int flags;
    int niov;               /* buffers that the range lies in */
} TestCall;

/* What test-aio's submit does. */
typedef enum TestSubmitMode {
    TEST_SUBMIT_INLINE,     /* all of it at once */
    TEST_SUBMIT_LATER,      /* held until test_disk_complete_held() */
    TEST_SUBMIT_REFUSE,     /* false: a worker is to do it */
    TEST_SUBMIT_WORKER,     /* taken, then given to a worker after all */
} TestSubmitMode;

typedef struct TestDisk {
    char *id;
    BlockLimits limits;         /* what is 0 is left alone */
    bool can_zero;              /* or -ENOTSUP */
    bool can_discard;
    bool growable;              /* writes may extend it */
    bool read_only;             /* opening read-write fails, or falls back */
    int64_t latency_ns;         /* of each call */
    bool takes_extra;           /* option "extra" can be set and reopened */

    QemuMutex lock;
    QemuCond cond;              /* a call is held or released */
    /* Under the lock. */
    uint8_t *data;
    uint8_t *allocated;         /* by cluster: 0 no, 1 data, 2 zeroes */
    int64_t size;
    TestSubmitMode submit_mode;
    unsigned hold_mask;
    int running;                /* calls inside the driver, held or not */
    int held;                   /* calls that wait in the driver now */
    GPtrArray *held_reqs;       /* submitted and not completed */
    unsigned fail_mask;         /* these count down … */
    int fail_at;                /* … and the one that gets to 0 fails */
    int fail_errno;
    bool fail_forever;          /* and so do all later ones */
    bool failed;
    GArray *log;                /* of TestCall */
    int open_nodes;
    int pins;                   /* of test-format's mappings, atomic */
    int extra;                  /* option "extra" as it is in force */
    uint64_t perm, shared;
} TestDisk;

/* Main thread, once: before the first graph. */
void test_drivers_register(void);

TestDisk *test_disk_new(const char *id, int64_t size);
/* Every node on it must be closed: asserted. */
void test_disk_free(TestDisk *d);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TestDisk, test_disk_free)

/* ---- Any thread ---- */

/* The @nth call from now of those in @mask (bits 1 << TestOp) fails. */
void test_disk_fail(TestDisk *d, unsigned mask, int nth, int err);
/* It, and all after it. */
void test_disk_fail_from(TestDisk *d, unsigned mask, int nth, int err);
void test_disk_fail_all(TestDisk *d, unsigned mask, int err);
bool test_disk_failed(TestDisk *d);
/* Blocking calls of @mask wait in the driver; 0 lets them go on. */
void test_disk_hold(TestDisk *d, unsigned mask);
/* Until @n calls are held (or submitted and not completed). */
void test_disk_wait_held(TestDisk *d, int n);
/* Complete what TEST_SUBMIT_LATER holds, the newest first. */
void test_disk_complete_held(TestDisk *d);
void test_disk_set_submit_mode(TestDisk *d, TestSubmitMode mode);
/* Calls that are inside the driver, requests that are submitted. */
int test_disk_running(TestDisk *d);
int test_disk_count(TestDisk *d, TestOp op);
/* The @n-th call of @op since the log was cleared. */
TestCall test_disk_call(TestDisk *d, TestOp op, int n);
void test_disk_clear_log(TestDisk *d);

/* ---- What most tests have: a graph, and a thread to submit from ---- */

typedef struct TestEnv {
    BlockGraph *graph;
    IOThread *io;
    AioContext *ctx;
} TestEnv;

void test_env_init(TestEnv *e);
/* All nodes must be closed. */
void test_env_destroy(TestEnv *e);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(TestEnv, test_env_destroy)

/* ---- Images (control thread) ---- */

/* Options of a node, in the dialect of json:{…}; aborts on nonsense. */
json_t *test_options(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* A backend on the node that @format describes, read-write; must succeed. */
BlockBackend *test_open(BlockGraph *graph, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/* ---- Asynchronous requests ---- */

typedef struct TestRequest {
    BdrvTrackedRequest req;
    QEMUIOVector qiov;
    AioContext *ctx;
    BlockBackend *blk;
    QemuEvent done;             /* set by each callback */
    int calls;                  /* of the callback; atomic */
} TestRequest;

/* A request whose home is @ctx, which some other thread runs. */
void test_request_init(TestRequest *r, AioContext *ctx, BlockBackend *blk,
                       BdrvRequestType type, int64_t offset, int64_t bytes,
                       void *buf);
/* Submit in the home thread; returns when submit has. */
void test_request_submit(TestRequest *r);
/* Ask for its end, in the home thread. */
void test_request_cancel(TestRequest *r);
/* Wait for the callback; the result. */
int test_request_wait(TestRequest *r);
bool test_request_is_done(TestRequest *r);
/* Between two uses, or at the end. */
void test_request_destroy(TestRequest *r);
/* One step of a race: a request of up to two clusters with a buffer, which is
 * full of 'X' when it starts, and which must succeed. */
typedef struct TestStep {
    TestRequest r;
    uint8_t buf[2 * TEST_CLUSTER];
} TestStep;

void test_step_start(TestStep *s, AioContext *ctx, BlockBackend *blk,
                     BdrvRequestType type, int64_t offset, int64_t bytes);
void test_step_finish(TestStep *s);
/* All of the above for one request. */
int test_request_run(AioContext *ctx, BlockBackend *blk, BdrvRequestType type,
                     int64_t offset, int64_t bytes, void *buf, int flags);

/* Run @fn(@opaque) in a new thread; join with test_thread_join(). */
typedef struct TestThread TestThread;
TestThread *test_thread_start(void (*fn)(void *opaque), void *opaque);
/* Fails the test if it takes too long. */
void test_thread_join(TestThread *t);

#endif
