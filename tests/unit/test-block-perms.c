/*
 * Permissions: who may be beside whom, what follows for the nodes below, and
 * that a refusal leaves everything as it was.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "test-driver.h"

#define READ   BLK_PERM_CONSISTENT_READ
#define WRITE  BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define WRITE_UNCHANGED BLK_PERM_WRITE_UNCHANGED
#define ALL    BLK_PERM_ALL

static void test_two_users(void)
{
    static const struct {
        uint64_t perm_a, shared_a, perm_b, shared_b;
        bool ok;
    } cases[] = {
        { READ, ALL, READ, ALL, true },
        { READ | WRITE, ALL, READ | WRITE, ALL, true },
        { READ | WRITE, READ, READ, ALL, true },
        { READ | WRITE, READ, READ | WRITE, ALL, false },
        { READ, ALL, READ, READ, true },
        { READ | WRITE, ALL, READ, READ, false },
        { READ, 0, READ, ALL, false },
        { READ, 0, 0, ALL, true },
        { READ | RESIZE, ALL, READ, ALL & ~RESIZE, false },
    };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockDriverState *bs;
    size_t i;

    test_env_init(&e);
    bs = bdrv_open(e.graph, NULL, NULL,
                   test_options("{'driver':'test','disk':'d'}"), BDRV_O_RDWR,
                   &error_abort);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        BlockBackend *a = blk_new(e.graph, cases[i].perm_a, cases[i].shared_a);
        BlockBackend *b = blk_new(e.graph, cases[i].perm_b, cases[i].shared_b);
        g_autoptr(Error) err = NULL;

        g_test_message("case %zu", i);
        g_assert_true(blk_insert_bs(a, bs, &error_abort));
        g_assert_cmpint(blk_insert_bs(b, bs, &err), ==, cases[i].ok);
        g_assert_cmpint(!err, ==, cases[i].ok);
        g_assert_cmpint(d->perm, ==, cases[i].perm_a |
                        (cases[i].ok ? cases[i].perm_b : 0));
        g_assert_cmpint(d->shared, ==, cases[i].shared_a &
                        (cases[i].ok ? cases[i].shared_b : ALL));
        g_assert_cmpint(bs->refcnt, ==, cases[i].ok ? 3 : 2);
        blk_unref(a);
        blk_unref(b);
        g_assert_cmpint(d->perm, ==, 0);
        g_assert_cmpint(d->shared, ==, ALL);
    }
    bdrv_unref(bs);
}

static void test_message(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    g_autoptr(Error) err = NULL;
    BlockBackend *a, *b;

    test_env_init(&e);
    a = test_open(e.graph, "{'driver':'test','disk':'d','node-name':'n'}");
    b = blk_new(e.graph, READ, READ);
    blk_set_name(b, "dev");
    g_assert_false(blk_insert_bs(b, blk_bs(a), &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Permission conflict on node 'n': permissions 'write' are "
                    "both required by an unnamed block device (uses node 'n' "
                    "as 'root' child) and unshared by block device 'dev' "
                    "(uses node 'n' as 'root' child).");
    blk_unref(b);
    blk_unref(a);
}

static void test_set_perm(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockBackend *a, *b;

    test_env_init(&e);
    a = test_open(e.graph, "{'driver':'test-filter','file':"
                  "{'driver':'test','disk':'d'}}");
    g_assert_cmpint(d->perm, ==, READ | WRITE);
    b = blk_new(e.graph, READ, ALL);
    g_assert_true(blk_insert_bs(b, blk_bs(a), &error_abort));

    /* Refused by the other user; refused by the host. */
    g_assert_false(blk_set_perm(b, READ, READ, NULL));
    g_assert_cmpint(d->shared, ==, ALL);
    test_disk_fail(d, 1u << TEST_CHECK_PERM, 1, EAGAIN);
    g_assert_false(blk_set_perm(a, READ | WRITE | RESIZE, ALL, NULL));
    g_assert_cmpint(d->perm, ==, READ | WRITE);
    g_assert_true(blk_is_writable(a));

    g_assert_true(blk_set_perm(a, READ, ALL, &error_abort));
    g_assert_cmpint(d->perm, ==, READ);
    g_assert_false(blk_is_writable(a));
    g_assert_true(blk_set_perm(b, READ, READ, &error_abort));
    g_assert_false(blk_set_perm(a, READ | WRITE, ALL, NULL));
    g_assert_false(blk_is_writable(a));
    blk_unref(b);
    g_assert_true(blk_set_perm(a, READ | WRITE, ALL, &error_abort));
    blk_unref(a);
}

/* A format keeps writers away from its file, and writes it itself. */
static void test_format(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    g_autoptr(TestDisk) b = test_disk_new("b", 64 * KiB);
    BlockBackend *blk, *other;
    BlockDriverState *file;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-format','file':"
                    "{'driver':'test','disk':'d'},'backing':"
                    "{'driver':'test','disk':'b'}}");
    file = bdrv_primary_bs(blk_bs(blk));
    g_assert_cmpint(d->perm & (READ | WRITE | RESIZE), ==,
                    READ | WRITE | RESIZE);
    g_assert_false(d->shared & WRITE);
    g_assert_false(b->perm & WRITE);
    g_assert_false(b->shared & WRITE);
    g_assert_true(bdrv_is_read_only(bdrv_backing_bs(blk_bs(blk))));

    other = blk_new(e.graph, READ | WRITE, ALL);
    g_assert_false(blk_insert_bs(other, file, NULL));
    g_assert_true(blk_set_perm(other, READ, ALL, &error_abort));
    g_assert_true(blk_insert_bs(other, file, &error_abort));
    blk_unref(other);
    blk_unref(blk);
}

/* Two ways down to one disk: it is asked once, when both are known. */
static void test_diamond(void)
{
    const char *const diamond = "{'driver':'test-format',"
                                "'file':{'driver':'test-filter','file':'n'},"
                                "'backing':{'driver':'test-filter',"
                                "'file':'n'}}";
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockBackend *blk, *top;
    BlockDriverState *bs;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test','disk':'d','node-name':'n'}");
    blk_set_perm(blk, 0, ALL, &error_abort);

    /* To write a file that is its own backing file: refused. */
    g_assert_null(blk_new_open(e.graph, NULL, NULL, test_options("%s", diamond),
                               BDRV_O_RDWR, NULL));
    g_assert_cmpint(d->perm, ==, 0);
    g_assert_cmpint(d->shared, ==, ALL);

    bs = bdrv_open(e.graph, NULL, NULL, test_options("%s", diamond), 0,
                   &error_abort);
    top = blk_new(e.graph, READ, READ);
    test_disk_clear_log(d);
    g_assert_true(blk_insert_bs(top, bs, &error_abort));
    g_assert_cmpint(test_disk_count(d, TEST_CHECK_PERM), ==, 1);
    g_assert_cmpint(test_disk_count(d, TEST_SET_PERM), ==, 1);
    g_assert_cmpint(d->perm, ==, READ);
    g_assert_false(d->shared & WRITE);
    test_disk_fail(d, 1u << TEST_CHECK_PERM, 1, EAGAIN);
    g_assert_false(blk_set_perm(top, READ, ALL, NULL));
    g_assert_false(d->shared & WRITE);
    blk_unref(top);
    bdrv_unref(bs);
    blk_unref(blk);
}

static void test_read_only_node(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    g_autoptr(Error) err = NULL;
    BlockBackend *blk, *writer;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test','disk':'d','read-only':true}");
    writer = blk_new(e.graph, READ | WRITE, ALL);
    g_assert_false(blk_insert_bs(writer, blk_bs(blk), &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Block node is read-only");
    g_assert_null(blk_bs(writer));
    blk_unref(writer);
    blk_unref(blk);
}

/*
 * A block is written whole.  If the last one is not all there, writing it
 * resizes the disk.
 */
static void test_unaligned_length(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 1536);
    g_autoptr(Error) err = NULL;
    BlockBackend *blk;
    const char *const options = "{'driver':'test','disk':'d'}";

    test_env_init(&e);
    d->limits.request_alignment = 4096;
    d->growable = true;
    g_assert_null(blk_new_open(e.graph, NULL, NULL, test_options("%s", options),
                               BDRV_O_RDWR, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Cannot get 'write' permission "
                    "without 'resize': Image size is not a multiple of request "
                    "alignment");
    blk = blk_new_open(e.graph, NULL, NULL, test_options("%s", options), 0,
                       &error_abort);
    blk_unref(blk);
    blk = blk_new_open(e.graph, NULL, NULL, test_options("%s", options),
                       BDRV_O_RDWR | BDRV_O_RESIZE, &error_abort);
    blk_unref(blk);
}

/*
 * A node that copies what is read writes to itself, though nothing that anybody
 * could see, and whatever its users do.
 */
static void test_copy_on_read(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    g_autoptr(TestDisk) b = test_disk_new("b", 64 * KiB);
    BlockBackend *blk;

    test_env_init(&e);
    blk = test_open(e.graph, "{'driver':'test-overlay','disk':'d','backing':"
                    "{'driver':'test','disk':'b'}}");
    blk_set_perm(blk, READ, ALL, &error_abort);
    g_assert_cmpint(d->perm, ==, READ);

    /* Another process does not allow it. */
    test_disk_fail(d, 1u << TEST_CHECK_PERM, 1, EAGAIN);
    g_assert_false(bdrv_enable_copy_on_read(blk_bs(blk), NULL));
    g_assert_cmpint(d->perm, ==, READ);
    g_assert_cmpint(blk_bs(blk)->tracking, ==, 0);

    g_assert_true(bdrv_enable_copy_on_read(blk_bs(blk), &error_abort));
    g_assert_cmpint(d->perm, ==, READ | WRITE_UNCHANGED);
    g_assert_cmpint(d->shared, ==, ALL);
    g_assert_cmpint(b->perm, ==, READ);

    /* While another process has the image, it does not write to it. */
    g_assert_true(bdrv_set_backing_hd(blk_bs(blk), NULL, &error_abort));
    blk_set_perm(blk, 0, ALL, &error_abort);
    g_assert_cmpint(d->perm, ==, WRITE_UNCHANGED);
    g_assert_true(bdrv_inactivate(blk_bs(blk), &error_abort));
    g_assert_cmpint(d->perm, ==, 0);
    g_assert_true(bdrv_activate(blk_bs(blk), &error_abort));
    g_assert_cmpint(d->perm, ==, WRITE_UNCHANGED);
    blk_unref(blk);
}

/* ---- While requests run ---- */

typedef struct Load {
    BlockBackend *blk;
    bool stop;                  /* atomic */
} Load;

static void load_main(void *opaque)
{
    Load *l = opaque;
    char buf[512] = { 0 };

    while (!qatomic_read(&l->stop)) {
        g_assert_cmpint(blk_pwrite(l->blk, 0, 512, buf, 0), ==, 0);
        g_assert_cmpint(blk_flush(l->blk), ==, 0);
    }
}

/* Users come and go beside one who works: nothing of that touches him. */
static void test_under_load(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    Load l = { 0 };
    TestThread *t;
    int i;

    test_env_init(&e);
    l.blk = test_open(e.graph, "{'driver':'test-filter','file':"
                      "{'driver':'test','disk':'d'}}");
    t = test_thread_start(load_main, &l);
    for (i = 0; i < 300; i++) {
        BlockBackend *other = blk_new(e.graph, i % 2 ? READ | WRITE : READ,
                                      i % 5 ? ALL : READ);

        g_assert_cmpint(blk_insert_bs(other, blk_bs(l.blk), NULL), ==,
                        i % 5 != 0);
        g_assert_true(blk_set_perm(l.blk, READ | WRITE | (i % 3 ? RESIZE : 0),
                                   ALL, &error_abort));
        blk_unref(other);
    }
    qatomic_set(&l.stop, true);
    test_thread_join(t);
    g_assert_cmpint(test_disk_count(d, TEST_WRITE), <=,
                    test_disk_count(d, TEST_FLUSH) + 1);
    blk_unref(l.blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/perms/" name, fn)
    T("two-users", test_two_users);
    T("message", test_message);
    T("change", test_set_perm);
    T("format-and-its-file", test_format);
    T("file-twice", test_diamond);
    T("read-only-node", test_read_only_node);
    T("unaligned-length-needs-resize", test_unaligned_length);
    T("copy-on-read-asks-to-write", test_copy_on_read);
    T("change-under-load", test_under_load);
    return g_test_run();
}
