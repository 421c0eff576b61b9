/*
 * Tests of the raw format, on real files and the real core.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include "block/block-backend.h"
#include "block/block-driver.h"

#define QCOW2_MAGIC "QFI\xfb\0\0\0\3"

static char *dir;
static BlockGraph *graph;

static char *make_file(const char *name, int64_t size)
{
    char *path = g_build_filename(dir, name, NULL);
    g_autofree char *data = g_malloc(size);

    for (int64_t i = 0; i < size; i++) {
        data[i] = i / 512;
    }
    g_assert_true(g_file_set_contents(path, data, size, NULL));
    return path;
}

/* Open raw on @path, with more options in JSON (may be NULL). */
static BlockBackend *open_raw(const char *path, const char *more, int flags,
                              Error **errp)
{
    json_t *o = more ? options_from_json(more, &error_abort) : json_object();

    json_object_set_new(o, "driver", json_string("raw"));
    json_object_set_new(o, "file", json_pack("{s:s, s:s}", "driver", "file",
                                             "filename", path));
    return blk_new_open(graph, NULL, NULL, o, flags, errp);
}

static void check_open_error(const char *path, const char *more,
                             const char *expected)
{
    g_autoptr(Error) err = NULL;

    g_assert_null(open_raw(path, more, 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
}

static void test_whole_file(void)
{
    g_autofree char *path = make_file("whole", 65536);
    BlockBackend *blk = open_raw(path, NULL, BDRV_O_RDWR, &error_abort);
    char buf[1024], back[1024];

    g_assert_cmpint(blk_getlength(blk), ==, 65536);
    g_assert_cmpint(blk_pread(blk, 512, 1024, buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, 1);
    g_assert_cmpint(buf[1023], ==, 2);
    memset(buf, 0x33, sizeof(buf));
    g_assert_cmpint(blk_pwrite(blk, 3000, 1024, buf, 0), ==, 0);
    g_assert_cmpint(blk_pread(blk, 3000, 1024, back, 0), ==, 0);
    g_assert_cmpmem(buf, 1024, back, 1024);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_pread(blk, 65536, 1, buf, 0), <, 0);
    blk_unref(blk);
}

static void test_window(void)
{
    g_autofree char *path = make_file("window", 65536);
    BlockBackend *blk = open_raw(path, "{'offset':'4k','size':8192}",
                                 BDRV_O_RDWR, &error_abort);
    g_autofree char *file = NULL;
    g_autoptr(Error) err = NULL;
    char buf[512];

    g_assert_cmpint(blk_getlength(blk), ==, 8192);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, 8);
    memset(buf, 0x77, sizeof(buf));
    g_assert_cmpint(blk_pwrite(blk, 8192 - 512, 512, buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 8192, 512, buf, 0), <, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 512, 0), ==, 0);
    g_assert_false(blk_truncate(blk, 4096, true, PREALLOC_MODE_OFF, 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Cannot resize fixed-size raw disks");
    blk_unref(blk);

    g_assert_true(g_file_get_contents(path, &file, NULL, NULL));
    g_assert_cmpint(file[4095], ==, 7);
    g_assert_cmpint(file[4096], ==, 0);
    g_assert_cmpint(file[4096 + 8191], ==, 0x77);
    g_assert_cmpint(file[4096 + 8192], ==, 24);
}

enum { AFTER = 1048576 };

/* A new qcow2 image in a window of @window bytes, with others' data after. */
static BlockBackend *open_format(const char *path, int window)
{
    g_autofree char *file = NULL;
    g_autofree char *all = g_malloc0(window + AFTER);
    json_t *o = json_object();
    gsize size;

    opt_set_u64(o, "size", 64 * 1048576);
    g_assert_true(bdrv_create(graph, "qcow2", path, o, &error_abort));
    g_assert_true(g_file_get_contents(path, &file, &size, NULL));
    g_assert_cmpint(size, <, window);
    memcpy(all, file, size);
    memset(all + window, 0x99, AFTER);
    g_assert_true(g_file_set_contents(path, all, window + AFTER, NULL));
    o = json_pack("{s:s, s:{s:s, s:i, s:{s:s, s:s}}}", "driver", "qcow2",
                  "file", "driver", "raw", "size", window,
                  "file", "driver", "file", "filename", path);
    return blk_new_open(graph, NULL, NULL, o, BDRV_O_RDWR, &error_abort);
}

static void check_after(const char *path, int window)
{
    g_autofree char *file = NULL;
    gsize size;

    g_assert_true(g_file_get_contents(path, &file, &size, NULL));
    g_assert_cmpint(size, ==, window + AFTER);
    for (int i = 0; i < AFTER; i++) {
        g_assert_cmphex((uint8_t)file[window + i], ==, 0x99);
    }
}

/* A format in a window that has become too small for it: by any way through,
 * what follows in the file is left alone. */
static void test_format_in_window(void)
{
    g_autofree char *path = g_build_filename(dir, "format", NULL);
    g_autofree char *buf = g_malloc0(65536);
    BlockBackend *blk = open_format(path, 5 * 65536);

    g_assert_cmpint(blk_pwrite(blk, 0, 4096, buf, 0), ==, -ENOSPC);
    g_assert_cmpint(blk_pwrite(blk, 131072, 65536, buf, 0), ==, -ENOSPC);
    blk_unref(blk);
    check_after(path, 5 * 65536);
}

/* One that fills its window is complete: there is nothing to complain of. */
static void test_format_fills_window(void)
{
    g_autofree char *path = g_build_filename(dir, "fills", NULL);
    char byte = 0x11;
    BlockBackend *blk;

    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_passed();
        g_test_trap_assert_stderr("");
        return;
    }
    blk = open_format(path, 6 * 65536);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
    blk_unref(blk);
    check_after(path, 6 * 65536);
}

/* An offset that O_DIRECT cannot read from: the core rounds and cuts. */
static void test_misaligned_window(void)
{
    g_autofree char *path = make_file("misaligned", 65536);
    BlockBackend *blk = open_raw(path, "{'offset':100,'size':1024}",
                                 BDRV_O_RDWR | BDRV_O_NOCACHE, NULL);
    g_autofree char *file = NULL;
    char buf[1024];

    if (!blk) {
        g_test_skip("no O_DIRECT on this file system");
        return;
    }
    g_assert_cmpint(blk_pread(blk, 0, 1024, buf, 0), ==, 0);
    g_assert_cmpint(buf[411], ==, 0);
    g_assert_cmpint(buf[412], ==, 1);
    memset(buf, 0x44, sizeof(buf));
    g_assert_cmpint(blk_pwrite(blk, 0, 1024, buf, 0), ==, 0);
    blk_unref(blk);
    g_assert_true(g_file_get_contents(path, &file, NULL, NULL));
    g_assert_cmpint(file[99], ==, 0);
    g_assert_cmpint(file[100], ==, 0x44);
    g_assert_cmpint(file[1123], ==, 0x44);
    g_assert_cmpint(file[1124], ==, 2);
}

static void test_bad_windows(void)
{
    g_autofree char *path = make_file("bad", 1048576);

    check_open_error(path, "{'offset':'2M'}",
                     "Offset (2097152) cannot be greater than size of the "
                     "containing file (1048576)");
    check_open_error(path, "{'size':'100'}",
                     "Specified size is not multiple of 512");
    check_open_error(path, "{'size':'2M'}",
                     "The sum of offset (0) and size (2097152) has to be "
                     "smaller or equal to the  actual size of the containing "
                     "file (1048576)");
    check_open_error(path, "{'size':'512k','offset':'768k'}",
                     "The sum of offset (786432) and size (524288) has to be "
                     "smaller or equal to the  actual size of the containing "
                     "file (1048576)");
    check_open_error(path, "{'offset':9223372036854775807}",
                     "Offset (9223372036854775807) cannot be greater than "
                     "size of the containing file (1048576)");
}

static void test_resize(void)
{
    g_autofree char *path = make_file("resize", 65536);
    BlockBackend *blk = open_raw(path, "{'offset':4096}",
                                 BDRV_O_RDWR | BDRV_O_RESIZE, &error_abort);
    g_autoptr(Error) err = NULL;
    GStatBuf st;

    g_assert_true(blk_truncate(blk, 131072, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(blk_getlength(blk), ==, 131072);
    g_assert_cmpint(g_stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 131072 + 4096);
    g_assert_false(blk_truncate(blk, INT64_MAX - 511, true, PREALLOC_MODE_OFF,
                                0, &err));
    g_assert_cmpint(blk_getlength(blk), ==, 131072);
    blk_unref(blk);
}

static void test_status(void)
{
    g_autofree char *path = make_file("status", 65536);
    BlockBackend *blk;
    BlockDriverState *file;
    int64_t n, map;
    int ret;

    g_assert_cmpint(truncate(path, 1048576), ==, 0);
    blk = open_raw(path, "{'offset':4096}", 0, &error_abort);
    ret = bdrv_block_status_above(blk_bs(blk), NULL, 0, 1048576 - 4096, &n,
                                  &map, &file);
    g_assert_cmpint(ret & BDRV_BLOCK_DATA, !=, 0);
    g_assert_cmpint(n, ==, 65536 - 4096);
    g_assert_cmpint(map, ==, 4096);
    ret = bdrv_block_status_above(blk_bs(blk), NULL, 65536, 4096, &n, &map,
                                  &file);
    g_assert_cmpint(ret & BDRV_BLOCK_ZERO, !=, 0);
    blk_unref(blk);
}

/* ---- Probed images ---- */

/*
 * A format that is known by its magic, to stand for any; the table of drivers
 * has such ones as the tree grows.
 */
static bool some_format_claims(const char *sector)
{
    BlockDriver *const *drv;

    for (drv = bdrv_all_drivers(); *drv; drv++) {
        if ((*drv)->probe &&
            (*drv)->probe((const uint8_t *)sector, 512, "") > 1) {
            return true;
        }
    }
    return false;
}

static int probe_magic(const uint8_t *buf, int size, const char *filename)
{
    return size >= 8 && !memcmp(buf, QCOW2_MAGIC, 8) ? 100 : 0;
}

static void test_probed(void)
{
    g_autofree char *path = make_file("probed", 65536);
    BlockDriver *raw = bdrv_find_format("raw");
    BlockDriver *victim = bdrv_find_format("host_device");
    int (*saved)(const uint8_t *, int, const char *) = victim->probe;
    g_autofree char *buf = g_malloc0(65536), *back = g_malloc0(65536);
    BlockBackend *blk;

    blk = blk_new_open(graph, path, NULL, json_object(), BDRV_O_RDWR,
                       &error_abort);
    g_assert_true(blk_bs(blk)->drv == raw);
    g_assert_true(blk_bs(blk)->probed);
    /* Whether or not this program knows the format. */
    memcpy(buf, QCOW2_MAGIC, 8);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, -EPERM);
    memcpy(buf, "OURFORMT", 8);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);
    if (!some_format_claims(QCOW2_MAGIC)) {
        victim->probe = probe_magic;
    }
    memcpy(buf, QCOW2_MAGIC, 8);
    g_assert_cmpint(blk_pwrite(blk, 0, 65536, buf, 0), ==, -EPERM);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, -EPERM);
    /* Piece by piece, too. */
    g_assert_cmpint(blk_pwrite(blk, 0, 2, buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 2, 2, buf + 2, 0), ==, -EPERM);
    g_assert_cmpint(blk_pwrite(blk, 512, 512, buf, 0), ==, 0);
    memset(buf, 0x51, 65536);
    g_assert_cmpint(blk_pwrite(blk, 0, 65536, buf, 0), ==, 0);
    g_assert_cmpint(blk_pread(blk, 0, 65536, back, 0), ==, 0);
    g_assert_cmpmem(buf, 65536, back, 65536);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 512, 0), ==, 0);
    blk_unref(blk);

    /* Whoever says that it is raw may write what he likes. */
    blk = open_raw(path, NULL, BDRV_O_RDWR, &error_abort);
    memcpy(buf, QCOW2_MAGIC, 8);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);
    blk_unref(blk);
    victim->probe = saved;
}

/* The guest changes its buffer while it is looked at. */
static char *changing;

static int probe_and_change(const uint8_t *buf, int size, const char *filename)
{
    memcpy(changing, QCOW2_MAGIC, 8);
    return probe_magic(buf, size, filename);
}

static void test_probed_buffer_changes(void)
{
    g_autofree char *path = make_file("changes", 65536);
    BlockDriver *victim = bdrv_find_format("host_device");
    int (*saved)(const uint8_t *, int, const char *) = victim->probe;
    g_autofree char *back = g_malloc(4096);
    BlockBackend *blk;

    changing = g_malloc0(4096);
    changing[4095] = 1;
    blk = blk_new_open(graph, path, NULL, json_object(), BDRV_O_RDWR,
                       &error_abort);
    victim->probe = probe_and_change;
    g_assert_cmpint(blk_pwrite(blk, 0, 4096, changing, 0), ==, 0);
    g_assert_cmpmem(changing, 8, QCOW2_MAGIC, 8);
    g_assert_cmpint(blk_pread(blk, 0, 4096, back, 0), ==, 0);
    g_assert_cmpint(back[0], ==, 0);
    g_assert_cmpint(back[4095], ==, 1);
    victim->probe = saved;
    blk_unref(blk);
    g_free(g_steal_pointer(&changing));
}

/* ---- The fast path ---- */

typedef struct TestRequest {
    BdrvTrackedRequest req;
    QEMUIOVector qiov;
    bool done;
} TestRequest;

static void request_done(BdrvTrackedRequest *req)
{
    container_of(req, TestRequest, req)->done = true;
}

static int run_request(BlockBackend *blk, BdrvRequestType type, int64_t offset,
                       void *buf, int64_t bytes)
{
    TestRequest r = { .req = { .type = type, .offset = offset,
                               .bytes = bytes, .cb = request_done } };

    qemu_iovec_init_buf(&r.qiov, buf, bytes);
    r.req.qiov = &r.qiov;
    blk_aio_submit(blk, &r.req);
    g_assert_false(r.done);
    while (!r.done) {
        aio_poll(aio_context_current(), true);
    }
    return r.req.ret;
}

/* Then nothing waits, and all is done inline. */
static bool is_in_memory(const char *path)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* Else, what is cached, where the kernel can say that it is. */
static bool can_read_inline(const char *path)
{
    char buf[4096];
    struct iovec iov = { buf, sizeof(buf) };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool can = is_in_memory(path) ||
               preadv2(fd, &iov, 1, 0, RWF_NOWAIT) == sizeof(buf);

    close(fd);
    return can;
}

static void test_cached_reads_are_inline(void)
{
    g_autofree char *path = make_file("inline", 65536);
    AioContext *ctx = aio_context_new(&error_abort);
    BlockBackend *blk = open_raw(path, "{'offset':512}", BDRV_O_RDWR,
                                 &error_abort);
    bool can = can_read_inline(path);
    BlkPathStats stats;
    char buf[4096];

    aio_context_enter(ctx);
    for (int i = 0; i < 10; i++) {
        g_assert_cmpint(run_request(blk, BDRV_REQ_READ, 512 * i, buf, 4096),
                        ==, 0);
        g_assert_cmpint(buf[0], ==, i + 1);
    }
    blk_get_path_stats(blk, &stats);
    g_assert_cmpint(stats.inline_done, ==, can ? 10 : 0);
    g_assert_cmpint(stats.worker, ==, can ? 0 : 10);
    g_assert_cmpint(stats.submitted, ==, 0);
    g_assert_cmpint(run_request(blk, BDRV_REQ_FLUSH, 0, NULL, 0), ==, 0);
    aio_context_leave(ctx);
    blk_unref(blk);
    aio_context_unref(ctx);
}

/* A request on O_DIRECT is submitted, if there is an engine for the file, and
 * no worker sees it. */
static void test_direct_is_submitted(void)
{
    g_autofree char *path = make_file("direct", 65536);
    AioContext *ctx;
    BlockBackend *blk = open_raw(path, NULL, BDRV_O_RDWR | BDRV_O_NOCACHE,
                                 NULL);
    g_autoptr(json_t) info = NULL;
    const char *engine;
    BlkPathStats stats;
    void *buf;

    if (!blk) {
        g_test_skip("no O_DIRECT on this file system");
        return;
    }
    info = bdrv_get_specific_info(blk_bs(blk)->file->bs, &error_abort);
    engine = json_string_value(json_object_get(json_object_get(info, "data"),
                                               "engine"));
    /* Else, requests might be misaligned, and would be tracked. */
    blk_set_user_block_size(blk, 4096);
    ctx = aio_context_new(&error_abort);
    aio_context_enter(ctx);
    buf = blk_try_blockalign(blk, 4096);
    for (int i = 0; i < 10; i++) {
        g_assert_cmpint(run_request(blk, BDRV_REQ_READ, 4096 * i, buf, 4096),
                        ==, 0);
        g_assert_cmpint(((char *)buf)[512], ==, 8 * i + 1);
    }
    blk_get_path_stats(blk, &stats);
    if (g_str_equal(engine, "threads") && is_in_memory(path)) {
        g_assert_cmpint(stats.inline_done, ==, 10);
    } else if (g_str_equal(engine, "threads")) {
        g_assert_cmpint(stats.worker, ==, 10);
    } else {
        g_assert_cmpint(stats.submitted, ==, 10);
        g_assert_cmpint(stats.worker, ==, 0);
    }
    qemu_vfree(buf);
    aio_context_leave(ctx);
    blk_unref(blk);
    aio_context_unref(ctx);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("raw-test-XXXXXX", NULL);
    graph = block_graph_new();
    g_test_add_func("/raw/rw/whole-file", test_whole_file);
    g_test_add_func("/raw/window/offset-and-size", test_window);
    g_test_add_func("/raw/window/format-does-not-leave-it",
                    test_format_in_window);
    g_test_add_func("/raw/window/format-may-fill-it",
                    test_format_fills_window);
    g_test_add_func("/raw/window/misaligned-on-o-direct",
                    test_misaligned_window);
    g_test_add_func("/raw/window/bad-ones", test_bad_windows);
    g_test_add_func("/raw/truncate/with-offset", test_resize);
    g_test_add_func("/raw/status/is-that-of-the-file", test_status);
    g_test_add_func("/raw/probed/first-sector-stays-raw", test_probed);
    g_test_add_func("/raw/probed/what-was-checked-is-written",
                    test_probed_buffer_changes);
    g_test_add_func("/raw/submit/cached-reads-are-inline",
                    test_cached_reads_are_inline);
    g_test_add_func("/raw/submit/direct-reads-are-submitted",
                    test_direct_is_submitted);
    ret = g_test_run();
    block_graph_free(graph);
    if (ret == 0) {
        g_autofree char *cmd = g_strdup_printf("rm -rf '%s'", dir);

        ret = system(cmd);
    }
    g_free(dir);
    return ret;
}
