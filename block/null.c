/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * null-co and null-aio: a disk that stores nothing.
 *
 * Writes are accepted and forgotten.  Reads leave the buffer as it is, or, with
 * read-zeroes=on, fill it with zeroes.  What remains is the cost of the block
 * layer itself, which is what these drivers are for: benchmarks, and an example
 * of a driver (docs/devel/writing-a-driver.md walks through this file).
 *
 * With latency-ns=0, the default, nothing ever waits, and null_submit()
 * finishes each request in the thread that submitted it.  With a latency the
 * two drivers differ, as their names say: null-co sends the request to a
 * worker, which sleeps there; null-aio arms a timer in the request's home
 * context, so any number of requests wait at the same time without a thread.
 *
 * There is no lock: everything is constant after open.
 */
#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "block/block-driver.h"

#define DEFAULT_SIZE (1 * GiB)

/* Constant after open. */
typedef struct BDRVNullState {
    int64_t size;
    int64_t latency_ns;
    bool read_zeroes;
    bool has_timer;            /* null-aio */
} BDRVNullState;

/* ---- Open ---- */

/* "null-co://" is all that a file name can say. */
static bool null_check_filename(const char *wanted, const char *filename,
                                Error **errp)
{
    if (strcmp(filename, wanted)) {
        error_setg(errp, "The only allowed filename for this driver is '%s'",
                   wanted);
        return false;
    }
    return true;
}

static bool null_co_parse_filename(const char *filename, json_t *options,
                                   Error **errp)
{
    return null_check_filename("null-co://", filename, errp);
}

static bool null_aio_parse_filename(const char *filename, json_t *options,
                                    Error **errp)
{
    return null_check_filename("null-aio://", filename, errp);
}

static bool null_open(BlockDriverState *bs, json_t *options, Error **errp)
{
    BDRVNullState *s = bs->opaque;

    s->size = DEFAULT_SIZE;
    if (!opt_take_offset(options, "size", &s->size, errp) ||
        !opt_take_i64(options, "latency-ns", &s->latency_ns, errp) ||
        !opt_take_bool(options, "read-zeroes", &s->read_zeroes, errp)) {
        return false;
    }
    if (s->latency_ns < 0) {
        error_setg(errp, "latency-ns is invalid");
        return false;
    }
    return true;
}

static bool null_co_open(BlockDriverState *bs, json_t *options, int flags,
                         Error **errp)
{
    return null_open(bs, options, errp);
}

static bool null_aio_open(BlockDriverState *bs, json_t *options, int flags,
                          Error **errp)
{
    BDRVNullState *s = bs->opaque;

    s->has_timer = true;
    return null_open(bs, options, errp);
}

/* Whatever changes (read-only, cache mode) makes no difference here. */
static bool null_reopen_prepare(BlockDriverState *bs, json_t *options,
                                int flags, void **state, Error **errp)
{
    return true;
}

static int64_t null_getlength(BlockDriverState *bs)
{
    BDRVNullState *s = bs->opaque;

    return s->size;
}

static int64_t null_get_allocated_file_size(BlockDriverState *bs)
{
    return 0;
}

/* ---- Blocking requests: any thread, many at a time ---- */

/* A wait that may be long: let the pool use another thread meanwhile. */
static void null_sleep(const BDRVNullState *s)
{
    struct timespec left = {
        .tv_sec = s->latency_ns / 1000000000,
        .tv_nsec = s->latency_ns % 1000000000,
    };

    if (s->latency_ns == 0) {
        return;
    }
    thread_pool_block_begin();
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
        /* sleep for the rest */
    }
    thread_pool_block_end();
}

static int null_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    BDRVNullState *s = bs->opaque;

    null_sleep(s);
    if (s->read_zeroes) {
        qemu_iovec_memset(qiov, qiov_offset, 0, bytes);
    }
    return 0;
}

static int null_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    null_sleep(bs->opaque);
    return 0;
}

static int null_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                              int64_t bytes, int flags)
{
    null_sleep(bs->opaque);
    return 0;
}

static int null_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    null_sleep(bs->opaque);
    return 0;
}

static int null_flush(BlockDriverState *bs)
{
    null_sleep(bs->opaque);
    return 0;
}

static int null_block_status(BlockDriverState *bs, bool want_zero,
                             int64_t offset, int64_t bytes, int64_t *pnum,
                             int64_t *map, BlockDriverState **file)
{
    BDRVNullState *s = bs->opaque;

    *pnum = bytes;
    *map = offset;
    *file = bs;
    /* Otherwise reads return whatever the buffer held. */
    return s->read_zeroes ? BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ZERO : 0;
}

/* ---- The fast path ---- */

/* The timer lives in the request, in the words that are the engine's. */
static QEMUTimer *null_timer(BdrvTrackedRequest *req)
{
    G_STATIC_ASSERT(sizeof(QEMUTimer) <= sizeof(req->engine));
    return (QEMUTimer *)req->engine;
}

static void null_latency_over(void *opaque)
{
    bdrv_request_complete(opaque, 0);
}

/*
 * In the home context's thread.  A request that need not wait is complete
 * before this returns; the block layer still calls back later, from the loop.
 */
static bool null_submit(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    BDRVNullState *s = bs->opaque;

    if (s->latency_ns && !s->has_timer) {
        return false;
    }
    if (req->type == BDRV_REQ_READ && s->read_zeroes) {
        qemu_iovec_memset(req->qiov, req->qiov_offset, 0, req->bytes);
    }
    if (s->latency_ns) {
        timer_init_ns(null_timer(req), req->ctx, null_latency_over, req);
        timer_mod_ns(null_timer(req), qemu_clock_ns() + s->latency_ns);
        return true;
    }
    bdrv_request_is_inline(req);
    bdrv_request_complete(req, 0);
    return true;
}

/* ---- The tables ---- */

BlockDriver bdrv_null_co = {
    .format_name = "null-co",
    .supports_handover = true,
    .protocol_name = "null-co",
    .instance_size = sizeof(BDRVNullState),

    .parse_filename = null_co_parse_filename,
    .open = null_co_open,
    .reopen_prepare = null_reopen_prepare,
    .getlength = null_getlength,
    .get_allocated_file_size = null_get_allocated_file_size,

    .preadv = null_preadv,
    .pwritev = null_pwritev,
    .pwrite_zeroes = null_pwrite_zeroes,
    .pdiscard = null_pdiscard,
    .flush = null_flush,
    .block_status = null_block_status,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP |
                            BDRV_REQ_NO_FALLBACK,

    .submit = null_submit,
};

BlockDriver bdrv_null_aio = {
    .format_name = "null-aio",
    .supports_handover = true,
    .protocol_name = "null-aio",
    .instance_size = sizeof(BDRVNullState),

    .parse_filename = null_aio_parse_filename,
    .open = null_aio_open,
    .reopen_prepare = null_reopen_prepare,
    .getlength = null_getlength,
    .get_allocated_file_size = null_get_allocated_file_size,

    .preadv = null_preadv,
    .pwritev = null_pwritev,
    .pwrite_zeroes = null_pwrite_zeroes,
    .pdiscard = null_pdiscard,
    .flush = null_flush,
    .block_status = null_block_status,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP |
                            BDRV_REQ_NO_FALLBACK,

    .submit = null_submit,
};
