/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug: limits and file names.
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "block/block-driver.h"

static BlockGraph *graph;
static uint8_t buf[4096];

static BlockBackend *open_with(const char *options, Error **errp)
{
    g_autofree char *all = g_strconcat(
        "blkdebug,image.driver=null-co,image.size=1M", options, NULL);
    json_t *o = options_parse(all, "driver", NULL, errp);

    g_assert_nonnull(o);
    return blk_new_open(graph, NULL, NULL, o, BDRV_O_RDWR | BDRV_O_UNMAP,
                        errp);
}

static void expect_error(BlockBackend *blk, Error *err, const char *message)
{
    g_assert_null(blk);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void expect_options_error(const char *options, const char *message)
{
    Error *err = NULL;
    BlockBackend *blk = open_with(options, &err);

    expect_error(blk, err, message);
}

static int write_at(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    return blk_pwrite(blk, offset, bytes, buf, 0);
}

/* ---- Requests always go to a worker ---- */

static int n_done;

static void count_done(BdrvTrackedRequest *req)
{
    n_done++;
}

static void test_never_fast(void)
{
    AioContext *ctx = aio_context_new(&error_abort);
    BlockBackend *blk = open_with("", &error_abort);
    BdrvTrackedRequest req = { .type = BDRV_REQ_READ, .bytes = 512,
                               .cb = count_done };
    QEMUIOVector qiov;
    BlkPathStats stats;

    aio_context_enter(ctx);
    qemu_iovec_init_buf(&qiov, buf, 512);
    req.qiov = &qiov;
    blk_aio_submit(blk, &req);
    while (!n_done) {
        aio_poll(ctx, true);
    }
    blk_get_path_stats(blk, &stats);
    g_assert_cmpuint(stats.worker, ==, 1);
    g_assert_cmpuint(stats.inline_done + stats.submitted, ==, 0);
    blk_unref(blk);
    aio_context_leave(ctx);
    aio_context_unref(ctx);
}

/* ---- Limits ---- */

static void test_limits(void)
{
    BlockBackend *blk = open_with(",align=4096,max-transfer=64k,"
                                  "opt-write-zero=8k,max-write-zero=32k,"
                                  "opt-discard=16k,max-discard=48k",
                                  &error_abort);
    const BlockLimits *bl = &blk_bs(blk)->bl;

    g_assert_cmpuint(bl->request_alignment, ==, 4096);
    g_assert_cmpint(bl->max_transfer, ==, 65536);
    g_assert_cmpint(bl->pwrite_zeroes_alignment, ==, 8192);
    g_assert_cmpint(bl->max_pwrite_zeroes, ==, 32768);
    g_assert_cmpint(bl->pdiscard_alignment, ==, 16384);
    g_assert_cmpint(bl->max_pdiscard, ==, 49152);
    g_assert_cmpint(write_at(blk, 1, 100), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 1000, 100000, 0), ==, 0);
    g_assert_cmpint(blk_pdiscard(blk, 1000, 100000), ==, 0);
    blk_unref(blk);
}

static void test_limits_refused(void)
{
    static const char *const bad[][3] = {
        { ",align=3", "align", "3" },
        { ",align=2147483648", "align", "2147483648" },
        { ",align=512,max-transfer=1000", "max-transfer", "1000" },
        { ",align=512,opt-write-zero=1000", "opt-write-zero", "1000" },
        { ",align=512,max-write-zero=1000", "max-write-zero", "1000" },
        { ",opt-write-zero=4096,max-write-zero=1024", "max-write-zero",
          "1024" },
        { ",align=512,opt-discard=1000", "opt-discard", "1000" },
        { ",opt-discard=4096,max-discard=1024", "max-discard", "1024" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree char *message = g_strdup_printf(
            "Cannot meet constraints with %s %s", bad[i][1], bad[i][2]);

        expect_options_error(bad[i][0], message);
    }
}

/* ---- File names ---- */

static BlockBackend *open_name(const char *name, Error **errp)
{
    return blk_new_open(graph, name, NULL,
                        json_pack("{s:s}", "driver", "blkdebug"),
                        BDRV_O_RDWR, errp);
}

static void test_filename(void)
{
    BlockBackend *blk = open_name("blkdebug::null-co://", &error_abort);

    g_assert_cmpint(write_at(blk, 0, 512), ==, 0);
    blk_unref(blk);
}

static void test_filename_refused(void)
{
    Error *err = NULL;
    BlockBackend *blk = open_name("blkdebug:null-co", &err);

    expect_error(blk, err, "blkdebug requires both config file and image path");
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    graph = block_graph_new();
    g_test_add_func("/blkdebug/requests/never-fast", test_never_fast);
    g_test_add_func("/blkdebug/limits/set", test_limits);
    g_test_add_func("/blkdebug/limits/refused", test_limits_refused);
    g_test_add_func("/blkdebug/filename/whole", test_filename);
    g_test_add_func("/blkdebug/filename/refused", test_filename_refused);
    ret = g_test_run();
    block_graph_free(graph);
    return ret;
}
