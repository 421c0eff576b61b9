/*
 * The disk of test-driver.h: what it holds, what it does with each call, and
 * the drivers that sit right on it.
 *
 * Each operation goes through enter(): logged, held if the test says so, failed
 * if it is its turn; then the operation itself under the disk's lock, which is
 * a leaf.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "test-driver-int.h"

static GHashTable *disks;           /* id -> TestDisk; control thread */

/* ---- Disks ---- */

TestDisk *test_disk_new(const char *id, int64_t size)
{
    TestDisk *d = g_new0(TestDisk, 1);

    d->id = g_strdup(id);
    d->size = size;
    d->data = g_malloc0(size + 1);
    d->allocated = g_malloc0(size / TEST_CLUSTER + 1);
    d->can_zero = d->can_discard = true;
    qemu_mutex_init(&d->lock);
    qemu_cond_init(&d->cond);
    d->held_reqs = g_ptr_array_new();
    d->log = g_array_new(FALSE, FALSE, sizeof(TestCall));
    if (!disks) {
        disks = g_hash_table_new(g_str_hash, g_str_equal);
    }
    g_assert_true(g_hash_table_insert(disks, d->id, d));
    return d;
}

void test_disk_free(TestDisk *d)
{
    g_assert_cmpint(d->open_nodes, ==, 0);
    g_assert_cmpint(qatomic_read(&d->pins), ==, 0);
    g_assert_cmpint(d->held, ==, 0);
    g_assert_cmpint(d->held_reqs->len, ==, 0);
    g_hash_table_remove(disks, d->id);
    if (g_hash_table_size(disks) == 0) {
        g_hash_table_destroy(disks);
        disks = NULL;
    }
    g_ptr_array_free(d->held_reqs, TRUE);
    g_array_free(d->log, TRUE);
    qemu_cond_destroy(&d->cond);
    qemu_mutex_destroy(&d->lock);
    g_free(d->data);
    g_free(d->allocated);
    g_free(d->id);
    g_free(d);
}

TestDisk *test_disk_find(const char *id)
{
    return disks && id ? g_hash_table_lookup(disks, id) : NULL;
}

/* ---- What the test asks ---- */

void test_disk_fail(TestDisk *d, unsigned mask, int nth, int err)
{
    qemu_mutex_lock(&d->lock);
    d->fail_mask = mask;
    d->fail_at = nth;
    d->fail_errno = err;
    d->fail_forever = d->failed = false;
    qemu_mutex_unlock(&d->lock);
}

void test_disk_fail_from(TestDisk *d, unsigned mask, int nth, int err)
{
    test_disk_fail(d, mask, nth, err);
    qemu_mutex_lock(&d->lock);
    d->fail_forever = true;
    qemu_mutex_unlock(&d->lock);
}

void test_disk_fail_all(TestDisk *d, unsigned mask, int err)
{
    test_disk_fail_from(d, mask, 1, err);
}

bool test_disk_failed(TestDisk *d)
{
    bool failed;

    qemu_mutex_lock(&d->lock);
    failed = d->failed;
    qemu_mutex_unlock(&d->lock);
    return failed;
}

void test_disk_hold(TestDisk *d, unsigned mask)
{
    qemu_mutex_lock(&d->lock);
    d->hold_mask = mask;
    qemu_cond_broadcast(&d->cond);
    qemu_mutex_unlock(&d->lock);
}

void test_disk_wait_held(TestDisk *d, int n)
{
    qemu_mutex_lock(&d->lock);
    while (d->held + (int)d->held_reqs->len != n) {
        g_assert_true(qemu_cond_timedwait(&d->cond, &d->lock,
                                          TEST_TIMEOUT_NS));
    }
    qemu_mutex_unlock(&d->lock);
}

void test_disk_set_submit_mode(TestDisk *d, TestSubmitMode mode)
{
    qemu_mutex_lock(&d->lock);
    d->submit_mode = mode;
    qemu_mutex_unlock(&d->lock);
}

int test_disk_running(TestDisk *d)
{
    int n;

    qemu_mutex_lock(&d->lock);
    n = d->running + d->held_reqs->len;
    qemu_mutex_unlock(&d->lock);
    return n;
}

int test_disk_count(TestDisk *d, TestOp op)
{
    int n = 0;
    guint i;

    qemu_mutex_lock(&d->lock);
    for (i = 0; i < d->log->len; i++) {
        n += g_array_index(d->log, TestCall, i).op == op;
    }
    qemu_mutex_unlock(&d->lock);
    return n;
}

TestCall test_disk_call(TestDisk *d, TestOp op, int n)
{
    TestCall call = { .op = TEST_OP__MAX };
    guint i;

    qemu_mutex_lock(&d->lock);
    for (i = 0; i < d->log->len; i++) {
        call = g_array_index(d->log, TestCall, i);
        if (call.op == op && n-- == 0) {
            break;
        }
    }
    qemu_mutex_unlock(&d->lock);
    g_assert_cmpint(n, ==, -1);
    return call;
}

void test_disk_clear_log(TestDisk *d)
{
    qemu_mutex_lock(&d->lock);
    g_array_set_size(d->log, 0);
    qemu_mutex_unlock(&d->lock);
}

/* ---- A call ---- */

static int fault_locked(TestDisk *d, TestOp op)
{
    if (!(d->fail_mask & 1u << op) || d->fail_at == 0 || --d->fail_at > 0) {
        return 0;
    }
    d->fail_at = d->fail_forever ? 1 : 0;
    d->failed = true;
    return -d->fail_errno;
}

/* Signals for others cut it short, which does not matter. */
static void be_slow_locked(TestDisk *d) REQUIRES(d->lock)
{
    if (d->latency_ns) {
        qemu_cond_timedwait(&d->cond, &d->lock, d->latency_ns);
    }
}

int test_disk_enter(TestDisk *d, const TestCall *call)
{
    int ret;

    qemu_mutex_lock(&d->lock);
    g_array_append_val(d->log, *call);
    d->running++;
    if (d->hold_mask & 1u << call->op) {
        d->held++;
        qemu_cond_broadcast(&d->cond);
        while (d->hold_mask & 1u << call->op) {
            g_assert_true(qemu_cond_timedwait(&d->cond, &d->lock,
                                              TEST_TIMEOUT_NS));
        }
        d->held--;
        qemu_cond_broadcast(&d->cond);
    }
    be_slow_locked(d);
    ret = fault_locked(d, call->op);
    d->running--;
    qemu_mutex_unlock(&d->lock);
    return ret;
}

static void grow_locked(TestDisk *d, int64_t size)
{
    if (size > d->size) {
        d->data = g_realloc(d->data, size + 1);
        memset(d->data + d->size, 0, size - d->size);
        d->allocated = g_realloc(d->allocated, size / TEST_CLUSTER + 1);
        memset(d->allocated + d->size / TEST_CLUSTER + 1, 0,
               size / TEST_CLUSTER - d->size / TEST_CLUSTER);
    }
    d->size = size;
}

/* The data part, after enter(). */
int test_disk_transfer(TestDisk *d, TestOp op, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset)
{
    int64_t inside;

    qemu_mutex_lock(&d->lock);
    if (op != TEST_READ && offset + bytes > d->size) {
        if (!d->growable) {
            qemu_mutex_unlock(&d->lock);
            return -ENOSPC;
        }
        grow_locked(d, offset + bytes);
    }
    inside = CLAMP(d->size - offset, 0, bytes);
    switch (op) {
    case TEST_READ:
        qemu_iovec_from_buf(qiov, qiov_offset, d->data + offset, inside);
        /* The rest of a last block that is not all there. */
        qemu_iovec_memset(qiov, qiov_offset + inside, 0, bytes - inside);
        break;
    case TEST_WRITE:
        qemu_iovec_to_buf(qiov, qiov_offset, d->data + offset, bytes);
        break;
    default:
        memset(d->data + offset, 0, bytes);
        break;
    }
    qemu_mutex_unlock(&d->lock);
    return 0;
}

/* Limits and alignment that the core promises to keep. */
static void check_call(BlockDriverState *bs, const TestCall *call)
{
    const BlockLimits *bl = &bs->bl;
    int64_t max = call->op == TEST_ZEROES ? bl->max_pwrite_zeroes :
                  call->op == TEST_DISCARD ? bl->max_pdiscard :
                  bl->max_transfer;

    g_assert_cmpint(call->offset % bl->request_alignment, ==, 0);
    g_assert_cmpint(call->bytes % bl->request_alignment, ==, 0);
    g_assert_cmpint(call->bytes, >, 0);
    g_assert_cmpint(call->offset, >=, 0);
    if (max) {
        g_assert_cmpint(call->bytes, <=, max);
    }
    g_assert_cmpint(call->niov, <=, bl->max_iov);
}

/* How many buffers of the vector hold the range? */
static int entries(const QEMUIOVector *qiov, size_t offset, int64_t bytes)
{
    int n = 0;
    int i;

    for (i = 0; qiov && i < qiov->niov && bytes > 0; i++) {
        size_t len = qiov->iov[i].iov_len;

        if (offset >= len) {
            offset -= len;
            continue;
        }
        bytes -= len - offset;
        offset = 0;
        n++;
    }
    return n;
}

static int run(BlockDriverState *bs, TestOp op, int64_t offset, int64_t bytes,
               QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    TestDisk *d = test_node_disk(bs);
    TestCall call = { op, offset, bytes, flags,
                      entries(qiov, qiov_offset, bytes) };
    int ret;

    check_call(bs, &call);
    ret = test_disk_enter(d, &call);
    return ret < 0 ? ret :
           test_disk_transfer(d, op, offset, bytes, qiov, qiov_offset);
}

/* ---- The drivers "test" and "test-fua" ---- */

static int test_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return run(bs, TEST_READ, offset, bytes, qiov, qiov_offset, flags);
}

static int test_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return run(bs, TEST_WRITE, offset, bytes, qiov, qiov_offset, flags);
}

static int test_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                              int64_t bytes, int flags)
{
    TestDisk *d = test_node_disk(bs);

    return d->can_zero ? run(bs, TEST_ZEROES, offset, bytes, NULL, 0, flags) :
           -ENOTSUP;
}

static int test_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    TestDisk *d = test_node_disk(bs);

    return d->can_discard ? run(bs, TEST_DISCARD, offset, bytes, NULL, 0, 0) :
           -ENOTSUP;
}

static int test_flush(BlockDriverState *bs)
{
    return test_disk_enter(test_node_disk(bs), &(TestCall){ TEST_FLUSH });
}

static int64_t test_getlength(BlockDriverState *bs)
{
    TestDisk *d = test_node_disk(bs);
    int ret = test_disk_enter(d, &(TestCall){ TEST_GETLENGTH });
    int64_t size;

    qemu_mutex_lock(&d->lock);
    size = d->size;
    qemu_mutex_unlock(&d->lock);
    return ret < 0 ? ret : size;
}

static bool test_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                          PreallocMode prealloc, int flags, Error **errp)
{
    TestDisk *d = test_node_disk(bs);
    int ret = test_disk_enter(d, &(TestCall){ TEST_TRUNCATE, offset });

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not resize the disk");
        return false;
    }
    qemu_mutex_lock(&d->lock);
    grow_locked(d, offset);
    qemu_mutex_unlock(&d->lock);
    return true;
}

static int test_block_status(BlockDriverState *bs, bool want_zero,
                             int64_t offset, int64_t bytes, int64_t *pnum,
                             int64_t *map, BlockDriverState **file)
{
    TestDisk *d = test_node_disk(bs);
    int ret = test_disk_enter(d, &(TestCall){ TEST_STATUS, offset, bytes });
    int64_t n = 0;
    bool zero;

    if (ret < 0) {
        return ret;
    }
    qemu_mutex_lock(&d->lock);
    zero = d->allocated[offset / TEST_CLUSTER] != 1;
    while (n < bytes &&
           (d->allocated[(offset + n) / TEST_CLUSTER] != 1) == zero) {
        n += MIN(TEST_CLUSTER - (offset + n) % TEST_CLUSTER, bytes - n);
    }
    qemu_mutex_unlock(&d->lock);
    *pnum = n;
    *map = offset;
    *file = bs;
    return BDRV_BLOCK_OFFSET_VALID | (zero ? BDRV_BLOCK_ZERO :
                                      BDRV_BLOCK_DATA);
}

/* ---- "test-aio" ---- */

static const TestOp op_of_type[] = {
    [BDRV_REQ_READ] = TEST_READ,
    [BDRV_REQ_WRITE] = TEST_WRITE,
    [BDRV_REQ_WRITE_ZEROES] = TEST_ZEROES,
    [BDRV_REQ_DISCARD] = TEST_DISCARD,
    [BDRV_REQ_FLUSH] = TEST_FLUSH,
};

static void complete_submitted(BdrvTrackedRequest *req)
{
    TestDisk *d = test_node_disk(req->bs);
    TestOp op = op_of_type[req->type];
    int ret;

    qemu_mutex_lock(&d->lock);
    ret = fault_locked(d, op);
    qemu_mutex_unlock(&d->lock);
    if (ret == 0 && op != TEST_FLUSH) {
        ret = test_disk_transfer(d, op, req->map_offset, req->bytes, req->qiov,
                                 req->qiov_offset);
    }
    bdrv_request_complete(req, ret);
}

static bool test_submit(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    TestDisk *d = test_node_disk(bs);
    TestOp op = op_of_type[req->type];
    TestCall call = { TEST_SUBMIT, req->map_offset, req->bytes, req->flags,
                      op == TEST_READ || op == TEST_WRITE ? req->qiov->niov :
                      0 };
    TestSubmitMode mode;

    qemu_mutex_lock(&d->lock);
    mode = d->submit_mode;
    if (mode == TEST_SUBMIT_INLINE || mode == TEST_SUBMIT_LATER) {
        g_array_append_val(d->log, call);
        call.op = op;
        g_array_append_val(d->log, call);
    }
    if (mode == TEST_SUBMIT_LATER) {
        g_ptr_array_add(d->held_reqs, req);
        qemu_cond_broadcast(&d->cond);
    }
    qemu_mutex_unlock(&d->lock);
    if (mode == TEST_SUBMIT_WORKER) {
        bdrv_request_to_worker(req);
    } else if (mode == TEST_SUBMIT_INLINE) {
        bdrv_request_is_inline(req);
        complete_submitted(req);
    }
    return mode != TEST_SUBMIT_REFUSE;
}

void test_disk_complete_held(TestDisk *d)
{
    for (;;) {
        BdrvTrackedRequest *req = NULL;

        qemu_mutex_lock(&d->lock);
        if (d->held_reqs->len) {
            req = g_ptr_array_remove_index(d->held_reqs,
                                           d->held_reqs->len - 1);
        }
        qemu_mutex_unlock(&d->lock);
        if (!req) {
            return;
        }
        complete_submitted(req);
    }
}

static void test_cancel(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    TestDisk *d = test_node_disk(bs);
    bool mine;

    qemu_mutex_lock(&d->lock);
    mine = g_ptr_array_remove(d->held_reqs, req);
    qemu_mutex_unlock(&d->lock);
    if (mine) {
        bdrv_request_complete(req, -ECANCELED);
    }
}

#define TEST_DISK_FUNCTIONS                                             \
    .instance_size = sizeof(TestNode),                                  \
    .open = test_node_open,                                             \
    .close = test_node_close,                                           \
    .refresh_limits = test_node_refresh_limits,                         \
    .reopen_prepare = test_node_reopen_prepare,                         \
    .reopen_commit = test_node_reopen_commit,                           \
    .reopen_abort = test_node_reopen_abort,                             \
    .check_perm = test_node_check_perm,                                 \
    .set_perm = test_node_set_perm,                                     \
    .abort_perm_update = test_node_abort_perm_update,                   \
    .preadv = test_preadv,                                              \
    .pwritev = test_pwritev,                                            \
    .pwrite_zeroes = test_pwrite_zeroes,                                \
    .pdiscard = test_pdiscard,                                          \
    .flush = test_flush,                                                \
    .getlength = test_getlength,                                        \
    .truncate = test_truncate,                                          \
    .block_status = test_block_status

static BlockDriver driver_test = {
    .format_name = "test",
    .protocol_name = "test",
    .parse_filename = test_node_parse_filename,
    TEST_DISK_FUNCTIONS,
};

static BlockDriver driver_test_fua = {
    .format_name = "test-fua",
    .protocol_name = "test-fua",
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP,
    TEST_DISK_FUNCTIONS,
};

static BlockDriver driver_test_aio = {
    .format_name = "test-aio",
    .protocol_name = "test-aio",
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP,
    .submit = test_submit,
    .cancel = test_cancel,
    TEST_DISK_FUNCTIONS,
};

void test_drivers_register(void)
{
    bdrv_register_driver(&driver_test);
    bdrv_register_driver(&driver_test_fua);
    bdrv_register_driver(&driver_test_aio);
    test_formats_register();
    test_overlay_register();
}
