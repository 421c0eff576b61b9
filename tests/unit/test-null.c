/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * null-co and null-aio, by blocking calls and through an AioContext.
 */
#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "block/block-backend.h"
#include "block/block-driver.h"

#define LATENCY_NS (20 * INT64_C(1000000))

static BlockGraph *graph;
static AioContext *ctx;

static BlockBackend *open_disk(const char *options, Error **errp)
{
    json_t *o = options_parse(options, "driver", NULL, errp);

    g_assert_nonnull(o);
    return blk_new_open(graph, NULL, NULL, o, BDRV_O_RDWR, errp);
}

static void expect_open_error(const char *options, const char *message)
{
    Error *err = NULL;

    g_assert_null(open_disk(options, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

/* ---- Blocking ---- */

static void test_open_size(void)
{
    static const struct {
        const char *options;
        int64_t size;
    } cases[] = {
        { "null-co", GiB },
        { "null-aio", GiB },
        { "null-co,size=1M", MiB },
        { "null-aio,size=4096", 4096 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        BlockBackend *blk = open_disk(cases[i].options, &error_abort);

        g_assert_cmpint(blk_getlength(blk), ==, cases[i].size);
        g_assert_cmpint(bdrv_get_allocated_file_size(blk_bs(blk)), ==, 0);
        blk_unref(blk);
    }
}

static void test_open_refused(void)
{
    expect_open_error("null-co,latency-ns=-1", "latency-ns is invalid");
    expect_open_error("null-co,frobnicate=1", "Block protocol 'null-co' "
                      "doesn't support the option 'frobnicate'");
}

static void test_open_filename(void)
{
    BlockBackend *blk = blk_new_open(graph, "null-co://", NULL,
                                     json_pack("{s:s}", "driver", "null-co"),
                                     BDRV_O_RDWR, &error_abort);
    Error *err = NULL;

    g_assert_cmpint(blk_getlength(blk), ==, GiB);
    blk_unref(blk);
    g_assert_null(blk_new_open(graph, "null-aio://x", NULL,
                               json_pack("{s:s}", "driver", "null-aio"),
                               BDRV_O_RDWR, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "The only allowed filename for this driver is "
                    "'null-aio://'");
    error_free(err);
}

/* Without read-zeroes the buffer keeps what was in it. */
static void test_read_leaves_buffer(void)
{
    BlockBackend *blk = open_disk("null-co", &error_abort);
    uint8_t buf[4096];

    memset(buf, 0x5a, sizeof(buf));
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    for (size_t i = 0; i < sizeof(buf); i++) {
        g_assert_cmphex(buf[i], ==, 0x5a);
    }
    blk_unref(blk);
}

static void test_read_zeroes(void)
{
    BlockBackend *blk = open_disk("null-co,read-zeroes=on", &error_abort);
    uint8_t buf[4096];

    memset(buf, 0x5a, sizeof(buf));
    g_assert_cmpint(blk_pread(blk, 512, 1024, buf, 0), ==, 0);
    for (size_t i = 0; i < sizeof(buf); i++) {
        g_assert_cmphex(buf[i], ==, i < 1024 ? 0 : 0x5a);
    }
    blk_unref(blk);
}

static void test_blocking_requests_succeed(void)
{
    BlockBackend *blk = open_disk("null-co,size=1M", &error_abort);
    uint8_t buf[512] = { 0 };

    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, MiB, 0), ==, 0);
    g_assert_cmpint(blk_pdiscard(blk, 0, MiB), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, MiB, 512, buf, 0), ==, -EIO);
    blk_unref(blk);
}

static void test_block_status(void)
{
    BlockBackend *blk = open_disk("null-co,read-zeroes=on", &error_abort);
    BlockDriverState *file;
    int64_t pnum, map;
    int ret = bdrv_block_status(blk_bs(blk), 512, MiB, &pnum, &map, &file);

    g_assert_cmpint(ret & (BDRV_BLOCK_ZERO | BDRV_BLOCK_DATA), ==,
                    BDRV_BLOCK_ZERO);
    g_assert_cmpint(pnum, ==, MiB);
    blk_unref(blk);
}

static void test_blocking_latency(void)
{
    BlockBackend *blk = open_disk("null-co,latency-ns=20000000", &error_abort);
    int64_t start = qemu_clock_ns();

    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(qemu_clock_ns() - start, >=, LATENCY_NS);
    blk_unref(blk);
}

/* ---- Through the loop ---- */

static int n_done;

static void count_done(BdrvTrackedRequest *req)
{
    g_assert_cmpint(req->ret, ==, 0);
    n_done++;
}

static void run_requests(BlockBackend *blk, BdrvRequestType type, int n)
{
    g_autofree BdrvTrackedRequest *reqs = g_new0(BdrvTrackedRequest, n);
    uint8_t buf[4096];
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    n_done = 0;
    for (int i = 0; i < n; i++) {
        reqs[i].type = type;
        reqs[i].qiov = &qiov;
        reqs[i].bytes = type == BDRV_REQ_FLUSH ? 0 : sizeof(buf);
        reqs[i].cb = count_done;
        blk_aio_submit(blk, &reqs[i]);
        g_assert_cmpint(n_done, ==, 0);
    }
    while (n_done < n) {
        aio_poll(ctx, true);
    }
}

static void test_aio_inline(void)
{
    static const char *const drivers[] = { "null-co", "null-aio" };

    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
        BlockBackend *blk = open_disk(drivers[i], &error_abort);
        BlkPathStats stats;

        run_requests(blk, BDRV_REQ_READ, 5);
        run_requests(blk, BDRV_REQ_WRITE, 5);
        run_requests(blk, BDRV_REQ_FLUSH, 5);
        blk_get_path_stats(blk, &stats);
        g_assert_cmpuint(stats.inline_done, ==, 15);
        g_assert_cmpuint(stats.submitted + stats.worker, ==, 0);
        blk_unref(blk);
    }
}

static void test_aio_read_zeroes(void)
{
    BlockBackend *blk = open_disk("null-aio,read-zeroes=on", &error_abort);
    BdrvTrackedRequest req = { .type = BDRV_REQ_READ, .bytes = 1024,
                               .qiov_offset = 512, .cb = count_done };
    uint8_t buf[4096];
    QEMUIOVector qiov;

    memset(buf, 0x5a, sizeof(buf));
    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    req.qiov = &qiov;
    n_done = 0;
    blk_aio_submit(blk, &req);
    while (!n_done) {
        aio_poll(ctx, true);
    }
    for (size_t i = 0; i < sizeof(buf); i++) {
        g_assert_cmphex(buf[i], ==, i >= 512 && i < 1536 ? 0 : 0x5a);
    }
    blk_unref(blk);
}

/* null-aio's requests wait together, and no thread waits with them. */
static void test_aio_latency_by_timer(void)
{
    BlockBackend *blk = open_disk("null-aio,latency-ns=20000000",
                                  &error_abort);
    int64_t start = qemu_clock_ns();
    BlkPathStats stats;

    run_requests(blk, BDRV_REQ_READ, 100);
    g_assert_cmpint(qemu_clock_ns() - start, >=, LATENCY_NS);
    blk_get_path_stats(blk, &stats);
    g_assert_cmpuint(stats.submitted, ==, 100);
    g_assert_cmpuint(stats.worker, ==, 0);
    blk_unref(blk);
}

/* null-co's sleep in workers. */
static void test_aio_latency_by_worker(void)
{
    BlockBackend *blk = open_disk("null-co,latency-ns=20000000", &error_abort);
    int64_t start = qemu_clock_ns();
    BlkPathStats stats;

    run_requests(blk, BDRV_REQ_READ, 4);
    g_assert_cmpint(qemu_clock_ns() - start, >=, LATENCY_NS);
    blk_get_path_stats(blk, &stats);
    g_assert_cmpuint(stats.worker, ==, 4);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    graph = block_graph_new();
    ctx = aio_context_new(&error_abort);
    aio_context_enter(ctx);
    g_test_add_func("/null/open/size", test_open_size);
    g_test_add_func("/null/open/refused", test_open_refused);
    g_test_add_func("/null/open/filename", test_open_filename);
    g_test_add_func("/null/read/leaves-buffer", test_read_leaves_buffer);
    g_test_add_func("/null/read/zeroes", test_read_zeroes);
    g_test_add_func("/null/blocking/succeed", test_blocking_requests_succeed);
    g_test_add_func("/null/blocking/status", test_block_status);
    g_test_add_func("/null/blocking/latency", test_blocking_latency);
    g_test_add_func("/null/aio/inline", test_aio_inline);
    g_test_add_func("/null/aio/read-zeroes", test_aio_read_zeroes);
    g_test_add_func("/null/aio/latency-by-timer", test_aio_latency_by_timer);
    g_test_add_func("/null/aio/latency-by-worker", test_aio_latency_by_worker);
    ret = g_test_run();
    aio_context_leave(ctx);
    aio_context_unref(ctx);
    block_graph_free(graph);
    return ret;
}
