/*
 * Reopening: what it changes, below what, and that it is all or nothing.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "test-driver.h"

#define FLAGS (BDRV_O_RDWR | BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_UNMAP)

static bool reopen(BlockBackend *blk, const char *options, Error **errp)
{
    return bdrv_reopen(blk_bs(blk), test_options("%s", options), errp);
}

static void assert_refused(BlockBackend *blk, const char *options,
                           const char *message)
{
    g_autoptr(Error) err = NULL;

    g_test_message("%s", options);
    g_assert_false(reopen(blk, options, &err));
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
}

static BlockBackend *open_two(TestEnv *e)
{
    return test_open(e->graph, "{'driver':'test-filter','file':"
                     "{'driver':'test','disk':'d','cache':{'direct':true}}}");
}

/* ---- What changes ---- */

static void test_flags(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockDriverState *top, *file;
    BlockBackend *blk;

    test_env_init(&e);
    blk = open_two(&e);
    top = blk_bs(blk);
    file = bdrv_primary_bs(top);
    g_assert_cmpint(top->open_flags & FLAGS, ==, BDRV_O_RDWR | BDRV_O_UNMAP);

    /* The file follows, but in what does not change it keeps its own. */
    g_assert_true(reopen(blk, "{'cache':{'no-flush':true}}", &error_abort));
    g_assert_cmpint(top->open_flags & FLAGS, ==,
                    BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_NO_FLUSH);
    g_assert_cmpint(file->open_flags & FLAGS, ==, BDRV_O_RDWR | BDRV_O_UNMAP |
                    BDRV_O_NO_FLUSH | BDRV_O_NOCACHE);
    g_assert_cmpint(test_disk_count(d, TEST_REOPEN_COMMIT), ==, 1);
    g_assert_cmpint(test_disk_call(d, TEST_REOPEN_PREPARE, 0).flags & FLAGS,
                    ==, file->open_flags & FLAGS);

    /* The file's own options. */
    g_assert_true(reopen(blk, "{'file.cache.direct':'off','discard':'ignore',"
                         "'detect-zeroes':'on'}", &error_abort));
    g_assert_cmpint(top->open_flags & FLAGS, ==, BDRV_O_RDWR |
                    BDRV_O_NO_FLUSH);
    g_assert_true(top->detect_zeroes);
    g_assert_cmpint(file->open_flags & FLAGS, ==,
                    BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_NO_FLUSH);
    blk_unref(blk);
}

static void test_read_only(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    g_autofree char *message = NULL;
    BlockBackend *blk;
    char buf[512] = { 0 };

    test_env_init(&e);
    blk = open_two(&e);
    message = g_strdup_printf("Read-only block node '%s' cannot support "
                              "read-write users",
                              bdrv_get_node_name(blk_bs(blk)));
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);
    assert_refused(blk, "{'read-only':true}", message);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);

    blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    g_assert_true(reopen(blk, "{'read-only':true}", &error_abort));
    g_assert_true(bdrv_is_read_only(blk_bs(blk)));
    g_assert_true(bdrv_is_read_only(bdrv_primary_bs(blk_bs(blk))));
    g_assert_false(d->perm & BLK_PERM_WRITE);
    g_assert_false(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, NULL));

    g_assert_true(reopen(blk, "{'read-only':false}", &error_abort));
    g_assert_true(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL,
                               &error_abort));
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);
    blk_unref(blk);
}

/* What was opened read-only because nothing else was allowed stays so. */
static void test_auto_read_only(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockBackend *blk;

    test_env_init(&e);
    d->read_only = true;
    blk = test_open(e.graph, "{'driver':'test','disk':'d',"
                    "'auto-read-only':true}");
    g_assert_true(bdrv_is_read_only(blk_bs(blk)));
    g_assert_true(reopen(blk, "{'cache.direct':true}", &error_abort));
    g_assert_true(bdrv_is_read_only(blk_bs(blk)));
    blk_unref(blk);
}

static void test_driver_options(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    json_t *options = test_options("{'extra':7,'cache':{'direct':true}}");
    BlockBackend *blk;

    test_env_init(&e);
    d->takes_extra = true;
    blk = test_open(e.graph, "{'driver':'test','disk':'d','extra':5,"
                    "'node-name':'n'}");
    g_assert_cmpint(d->extra, ==, 5);
    json_incref(options);
    g_assert_true(bdrv_reopen(blk_bs(blk), options, &error_abort));
    g_assert_cmpint(d->extra, ==, 7);
    g_assert_cmpint(options->refcount, ==, 1);
    g_assert_cmpint(json_object_size(json_object_get(options, "cache")), ==,
                    1);
    json_decref(options);
    options = bdrv_get_options(blk_bs(blk));
    g_assert_cmpint(json_integer_value(json_object_get(options, "extra")), ==,
                    7);
    json_decref(options);

    /* What cannot change may be said again. */
    g_assert_true(reopen(blk, "{'driver':'test','disk':'d','node-name':'n'}",
                         &error_abort));
    assert_refused(blk, "{'disk':'x'}", "Cannot change the option 'disk'");
    assert_refused(blk, "{'driver':'x'}", "Cannot change the option 'driver'");
    assert_refused(blk, "{'nope':1}", "Cannot change the option 'nope'");
    assert_refused(blk, "{'force-share':true}",
                   "Cannot change the option 'force-share'");
    g_assert_cmpint(d->extra, ==, 7);
    blk_unref(blk);
}

/* ---- All or nothing ---- */

static void test_refused(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockDriverState *top, *file;
    BlockBackend *blk;
    int top_flags, file_flags;

    test_env_init(&e);
    blk = open_two(&e);
    top = blk_bs(blk);
    file = bdrv_primary_bs(top);
    top_flags = top->open_flags;
    file_flags = file->open_flags;

    /* The file has agreed when the filter finds what it does not know. */
    assert_refused(blk, "{'cache.no-flush':true,'nope':1}",
                   "Cannot change the option 'nope'");
    assert_refused(blk, "{'cache.no-flush':true,'file':{'nope':1}}",
                   "Cannot change the option 'nope'");
    assert_refused(blk, "{'cache.no-flush':true,'discard':'x'}",
                   "Invalid discard option");
    test_disk_fail(d, 1u << TEST_REOPEN_PREPARE, 1, EACCES);
    assert_refused(blk, "{'cache.no-flush':true}",
                   "Could not reopen 'd': Permission denied");
    /* The host's locks are asked for before anything is final. */
    test_disk_fail(d, 1u << TEST_CHECK_PERM, 1, EAGAIN);
    assert_refused(blk, "{'cache.no-flush':true}",
                   "Failed to lock 'd': Resource temporarily unavailable");
    test_disk_fail(d, 1u << TEST_FLUSH, 1, EIO);
    assert_refused(blk, "{'cache.no-flush':true}",
                   "Error flushing drive: Input/output error");

    g_assert_cmpint(top->open_flags, ==, top_flags);
    g_assert_cmpint(file->open_flags, ==, file_flags);
    g_assert_cmpint(test_disk_count(d, TEST_REOPEN_COMMIT), ==, 0);
    /* One end for each beginning. */
    g_assert_cmpint(test_disk_count(d, TEST_REOPEN_ABORT) + 1, ==,
                    test_disk_count(d, TEST_REOPEN_PREPARE));
    blk_unref(blk);
}

/* Requests wait meanwhile, and go on after a failure, too. */
static void test_requests_wait(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    TestRequest r[16];
    BlockBackend *blk;
    char buf[512];
    size_t i;

    test_env_init(&e);
    blk = open_two(&e);
    for (i = 0; i < ARRAY_SIZE(r); i++) {
        test_request_init(&r[i], e.ctx, blk, BDRV_REQ_READ, 0, 512, buf);
        test_request_submit(&r[i]);
        g_assert_true(reopen(blk, i % 2 ? "{'cache.direct':true}" :
                             "{'cache.direct':false}", &error_abort));
        g_assert_false(reopen(blk, "{'nope':1}", NULL));
    }
    for (i = 0; i < ARRAY_SIZE(r); i++) {
        g_assert_cmpint(test_request_wait(&r[i]), ==, 0);
        test_request_destroy(&r[i]);
    }
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/reopen/" name, fn)
    T("flags", test_flags);
    T("read-only", test_read_only);
    T("auto-read-only-stays", test_auto_read_only);
    T("driver-options", test_driver_options);
    T("all-or-nothing", test_refused);
    T("requests-wait", test_requests_wait);
    return g_test_run();
}
