/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug: rules from files and options, errors, states, break points, limits.
 *
 * The tests announce the events themselves, in the place of a format.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/thread.h"
#include "block/blkdebug.h"
#include "block/block-backend.h"

#define TIMEOUT_NS (10 * INT64_C(1000000000))

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

static char *write_config(const char *text)
{
    char *path = NULL;
    int fd = g_file_open_tmp("blkdebug-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    return path;
}

static BlockBackend *open_config(const char *text, Error **errp)
{
    g_autofree char *path = write_config(text);
    g_autofree char *options = g_strconcat(",config=", path, NULL);
    BlockBackend *blk = open_with(options, errp);

    unlink(path);
    return blk;
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

static void expect_config_error(const char *text, const char *message)
{
    Error *err = NULL;
    BlockBackend *blk = open_config(text, &err);

    expect_error(blk, err, message);
}

static int read_at(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    return blk_pread(blk, offset, bytes, buf, 0);
}

static int write_at(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    return blk_pwrite(blk, offset, bytes, buf, 0);
}

static void event(BlockBackend *blk, const char *name)
{
    bdrv_debug_event(blk_bs(blk), name);
}

/* ---- Errors ---- */

static void test_inject_by_event(void)
{
    BlockBackend *blk = open_config("[inject-error]\n"
                                    "event = \"read_aio\"\n"
                                    "\n"
                                    "# the disk is full\n"
                                    "[inject-error]\n"
                                    "event = \"write_aio\"\n"
                                    "errno = \"28\"\n", &error_abort);

    g_assert_cmpint(read_at(blk, 0, 512), ==, 0);
    event(blk, "read_aio");
    g_assert_cmpint(read_at(blk, 0, 512), ==, -EIO);
    g_assert_cmpint(write_at(blk, 0, 512), ==, -EIO);
    g_assert_cmpint(blk_flush(blk), ==, -EIO);
    event(blk, "cluster_alloc");                /* has no rule: no change */
    g_assert_cmpint(blk_pdiscard(blk, 0, 4096), ==, -EIO);
    event(blk, "write_aio");
    g_assert_cmpint(write_at(blk, 0, 512), ==, -ENOSPC);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 512, 0), ==, -ENOSPC);
    blk_unref(blk);
}

static void test_inject_at_once(void)
{
    BlockBackend *blk = open_with(",inject-error.0.event=none,"
                                  "inject-error.0.errno=28", &error_abort);

    g_assert_cmpint(read_at(blk, 0, 512), ==, -ENOSPC);
    blk_unref(blk);
}

/* The first rule that matches counts; each is used up by one request. */
static void test_inject_once(void)
{
    BlockBackend *blk = open_config("[inject-error]\n"
                                    "event = \"none\"\n"
                                    "errno = \"1\"\n"
                                    "once = \"on\"\n"
                                    "[inject-error]\n"
                                    "event = \"none\"\n"
                                    "errno = \"28\"\n"
                                    "once = \"on\"\n", &error_abort);

    g_assert_cmpint(read_at(blk, 0, 512), ==, -EPERM);
    g_assert_cmpint(write_at(blk, 0, 512), ==, -ENOSPC);
    g_assert_cmpint(write_at(blk, 0, 512), ==, 0);
    blk_unref(blk);
}

static void test_inject_at_sector(void)
{
    BlockBackend *blk = open_with(",inject-error.0.event=none,"
                                  "inject-error.0.sector=3", &error_abort);

    g_assert_cmpint(read_at(blk, 0, 1536), ==, 0);
    g_assert_cmpint(read_at(blk, 0, 1537), ==, -EIO);
    g_assert_cmpint(read_at(blk, 1536, 1), ==, -EIO);
    g_assert_cmpint(read_at(blk, 1537, 512), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);     /* covers no sector */
    blk_unref(blk);
}

static void test_inject_by_type(void)
{
    BlockBackend *blk = open_with(",inject-error.0.event=none,"
                                  "inject-error.0.iotype=flush",
                                  &error_abort);

    g_assert_cmpint(read_at(blk, 0, 512), ==, 0);
    g_assert_cmpint(write_at(blk, 0, 512), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, -EIO);
    blk_unref(blk);
}

/* Asking where data is fails only if a rule says so. */
static void test_inject_block_status(void)
{
    static const char *const options[] = {
        ",inject-error.0.event=none",
        ",inject-error.0.event=none,inject-error.0.iotype=block-status",
    };
    static const int results[] = { 0, -EIO };

    for (int i = 0; i < 2; i++) {
        BlockBackend *blk = open_with(options[i], &error_abort);
        BlockDriverState *file;
        int64_t pnum, map;
        int ret = bdrv_block_status(blk_bs(blk), 0, 512, &pnum, &map, &file);

        g_assert_cmpint(MIN(ret, 0), ==, results[i]);
        blk_unref(blk);
    }
}

/* A new state counts from the next event on. */
static void test_states(void)
{
    BlockBackend *blk = open_config("[set-state]\n"
                                    "event = \"read_aio\"\n"
                                    "state = \"1\"\n"
                                    "new_state = \"2\"\n"
                                    "[inject-error]\n"
                                    "event = \"read_aio\"\n"
                                    "state = \"2\"\n", &error_abort);

    event(blk, "read_aio");
    g_assert_cmpint(read_at(blk, 0, 512), ==, 0);
    event(blk, "read_aio");
    g_assert_cmpint(read_at(blk, 0, 512), ==, -EIO);
    blk_unref(blk);
}

/* ---- The nth request ---- */

static void test_arm_nth(void)
{
    BlockBackend *blk = open_with("", &error_abort);

    g_assert_false(blkdebug_fired(blk_bs(blk)));
    g_assert_cmpint(blkdebug_arm(blk_bs(blk), 3, EIO), ==, 0);
    g_assert_cmpint(read_at(blk, 0, 512), ==, 0);
    g_assert_cmpint(write_at(blk, 0, 512), ==, 0);
    g_assert_false(blkdebug_fired(blk_bs(blk)));
    g_assert_cmpint(blk_flush(blk), ==, -EIO);
    g_assert_true(blkdebug_fired(blk_bs(blk)));
    g_assert_cmpint(read_at(blk, 0, 512), ==, 0);
    g_assert_true(blkdebug_fired(blk_bs(blk)));

    blkdebug_arm(blk_bs(blk), 1, ENOSPC);
    g_assert_false(blkdebug_fired(blk_bs(blk)));
    blkdebug_arm(blk_bs(blk), 0, 0);
    g_assert_cmpint(write_at(blk, 0, 512), ==, 0);
    g_assert_false(blkdebug_fired(blk_bs(blk)));
    blk_unref(blk);
}

static void test_arm_without_blkdebug(void)
{
    json_t *o = json_pack("{s:s}", "driver", "null-co");
    BlockBackend *blk = blk_new_open(graph, NULL, NULL, o, BDRV_O_RDWR,
                                     &error_abort);

    g_assert_cmpint(blkdebug_arm(blk_bs(blk), 1, EIO), ==, -ENOTSUP);
    g_assert_false(blkdebug_fired(blk_bs(blk)));
    blk_unref(blk);
}

/* ---- Break points ---- */

typedef struct Requester {
    QemuThread thread;
    BlockBackend *blk;
    const char *event;
    int done;                  /* atomic */
} Requester;

static void *request(void *opaque)
{
    Requester *r = opaque;

    event(r->blk, r->event);
    qatomic_set(&r->done, 1);
    return NULL;
}

static void start_request(Requester *r, BlockBackend *blk, const char *name)
{
    *r = (Requester){ .blk = blk, .event = name };
    g_assert_cmpint(qemu_thread_create(&r->thread, "request", request, r), ==,
                    0);
}

static void test_break_and_resume(void)
{
    BlockBackend *blk = open_with("", &error_abort);
    BlockDriverState *bs = blk_bs(blk);
    Requester r;

    g_assert_cmpint(blkdebug_break(bs, "read_aio", "A"), ==, 0);
    g_assert_false(blkdebug_is_suspended(bs, "A"));
    start_request(&r, blk, "read_aio");
    g_assert_cmpint(blkdebug_wait_suspended(bs, "A", TIMEOUT_NS), ==, 0);
    g_assert_true(blkdebug_is_suspended(bs, "A"));
    g_assert_false(qatomic_read(&r.done));
    event(blk, "read_aio");                     /* a break point holds one */
    g_assert_cmpint(blkdebug_resume(bs, "B"), ==, -ENOENT);
    g_assert_cmpint(blkdebug_resume(bs, "A"), ==, 0);
    qemu_thread_join(&r.thread);
    g_assert_cmpint(blkdebug_resume(bs, "A"), ==, -ENOENT);
    blk_unref(blk);
}

/* A request that reaches two break points waits for both. */
static void test_break_twice(void)
{
    BlockBackend *blk = open_with("", &error_abort);
    BlockDriverState *bs = blk_bs(blk);
    Requester r;

    blkdebug_break(bs, "write_aio", "A");
    blkdebug_break(bs, "write_aio", "B");
    start_request(&r, blk, "write_aio");
    g_assert_cmpint(blkdebug_wait_suspended(bs, "B", TIMEOUT_NS), ==, 0);
    g_assert_cmpint(blkdebug_resume(bs, "A"), ==, 0);
    g_assert_true(blkdebug_is_suspended(bs, "B"));
    g_assert_false(qatomic_read(&r.done));
    g_assert_cmpint(blkdebug_resume(bs, "B"), ==, 0);
    qemu_thread_join(&r.thread);
    blk_unref(blk);
}

static void test_break_removed(void)
{
    BlockBackend *blk = open_with("", &error_abort);
    BlockDriverState *bs = blk_bs(blk);
    Requester r;

    g_assert_cmpint(blkdebug_break(bs, "nope", "A"), ==, -ENOENT);
    blkdebug_break(bs, "read_aio", "A");
    g_assert_cmpint(blkdebug_remove_break(bs, "A"), ==, 0);
    g_assert_cmpint(blkdebug_remove_break(bs, "A"), ==, -ENOENT);
    event(blk, "read_aio");                     /* nothing stops it */

    blkdebug_break(bs, "read_aio", "B");
    start_request(&r, blk, "read_aio");
    g_assert_cmpint(blkdebug_wait_suspended(bs, "B", TIMEOUT_NS), ==, 0);
    g_assert_cmpint(blkdebug_remove_break(bs, "B"), ==, 0);
    qemu_thread_join(&r.thread);
    blk_unref(blk);
}

static void test_break_wait_times_out(void)
{
    BlockBackend *blk = open_with("", &error_abort);

    blkdebug_break(blk_bs(blk), "read_aio", "A");
    g_assert_cmpint(blkdebug_wait_suspended(blk_bs(blk), "A", 1000000), ==,
                    -ETIMEDOUT);
    blk_unref(blk);
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

/* ---- Rules that make no sense ---- */

static void test_config_refused(void)
{
    static const char *const bad[][2] = {
        { "event = \"read_aio\"\n", "no group defined" },
        { "[foo]\n", "There is no option group 'foo'" },
        { "[inject-error]\nerrno = \"5\"\n", "Missing event name for rule" },
        { "[inject-error]\nevent = \"nope\"\n",
          "Parameter 'event' does not accept value 'nope'" },
        { "[inject-error]\nevent = \"read_aio\"\nfoo = \"1\"\n",
          "Invalid parameter 'foo'" },
        { "[inject-error]\nevent = \"read_aio\"\njunk\n",
          "Invalid parameter 'junk'" },
        { "[inject-error]\nevent = \"read_aio\"\nonce = \"x\"\n",
          "Parameter 'once' expects 'on' or 'off'" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        expect_config_error(bad[i][0], bad[i][1]);
    }
    expect_options_error(",config=/nonexistent/rules",
                         "Could not read blkdebug config file: "
                         "No such file or directory");
}

static void test_options_refused(void)
{
    expect_options_error(",inject-error.0.errno=5",
                         "Parameter 'inject-error.0.event' is missing");
    expect_options_error(",set-state.0.event=none",
                         "Parameter 'set-state.0.new_state' is missing");
    expect_options_error(",inject-error.0.event=foo",
                         "Parameter 'event' does not accept value 'foo'");
    expect_options_error(",inject-error.0.event=none,"
                         "inject-error.0.sector=36028797018963968",
                         "Parameter 'sector' is too large");
    expect_options_error(",take-child-perms.0=fly",
                         "Parameter 'take-child-perms' does not accept value "
                         "'fly'");
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
    g_autofree char *path = write_config("[inject-error]\n"
                                         "event = \"none\"\n");
    g_autofree char *name = g_strdup_printf("blkdebug:%s:null-co://", path);
    BlockBackend *blk = open_name(name, &error_abort);

    g_assert_cmpint(read_at(blk, 0, 512), ==, -EIO);
    blk_unref(blk);
    unlink(path);

    blk = open_name("blkdebug::null-co://", &error_abort);
    g_assert_cmpint(read_at(blk, 0, 512), ==, 0);
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
    g_test_add_func("/blkdebug/inject/by-event", test_inject_by_event);
    g_test_add_func("/blkdebug/inject/at-once", test_inject_at_once);
    g_test_add_func("/blkdebug/inject/once", test_inject_once);
    g_test_add_func("/blkdebug/inject/at-sector", test_inject_at_sector);
    g_test_add_func("/blkdebug/inject/by-type", test_inject_by_type);
    g_test_add_func("/blkdebug/inject/block-status", test_inject_block_status);
    g_test_add_func("/blkdebug/inject/by-state", test_states);
    g_test_add_func("/blkdebug/arm/nth", test_arm_nth);
    g_test_add_func("/blkdebug/arm/without-blkdebug",
                    test_arm_without_blkdebug);
    g_test_add_func("/blkdebug/break/resume", test_break_and_resume);
    g_test_add_func("/blkdebug/break/twice", test_break_twice);
    g_test_add_func("/blkdebug/break/removed", test_break_removed);
    g_test_add_func("/blkdebug/break/wait-times-out",
                    test_break_wait_times_out);
    g_test_add_func("/blkdebug/requests/never-fast", test_never_fast);
    g_test_add_func("/blkdebug/limits/set", test_limits);
    g_test_add_func("/blkdebug/limits/refused", test_limits_refused);
    g_test_add_func("/blkdebug/config/refused", test_config_refused);
    g_test_add_func("/blkdebug/options/refused", test_options_refused);
    g_test_add_func("/blkdebug/filename/whole", test_filename);
    g_test_add_func("/blkdebug/filename/refused", test_filename_refused);
    ret = g_test_run();
    block_graph_free(graph);
    return ret;
}
