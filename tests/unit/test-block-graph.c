/*
 * The graph: nodes and their names, references, edges that come and go, what
 * a node says of itself and its children.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "test-driver.h"

static BlockDriverState *open_node(TestEnv *e, const char *options)
{
    return bdrv_open(e->graph, NULL, NULL, test_options("%s", options),
                     BDRV_O_RDWR, &error_abort);
}

static int count_nodes(BlockGraph *graph)
{
    BlockDriverState *bs = NULL;
    int n = 0;

    while ((bs = bdrv_next_node(graph, bs))) {
        n++;
    }
    return n;
}

static void test_names(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    BlockDriverState *named, *a, *b;

    test_env_init(&e);
    g_assert_null(bdrv_next_node(e.graph, NULL));
    named = open_node(&e, "{'driver':'test','disk':'d','node-name':'n'}");
    a = open_node(&e, "{'driver':'test','disk':'d'}");
    b = open_node(&e, "{'driver':'test','disk':'d'}");
    g_assert_true(bdrv_find_node(e.graph, "n") == named);
    g_assert_null(bdrv_find_node(e.graph, "m"));
    g_assert_true(g_str_has_prefix(bdrv_get_node_name(a), "#block"));
    g_assert_cmpstr(bdrv_get_node_name(a), !=, bdrv_get_node_name(b));
    g_assert_true(bdrv_find_node(e.graph, bdrv_get_node_name(b)) == b);
    /* In the order in which they came. */
    g_assert_true(bdrv_next_node(e.graph, NULL) == named);
    g_assert_true(bdrv_next_node(e.graph, named) == a);
    bdrv_unref(a);
    g_assert_true(bdrv_next_node(e.graph, named) == b);
    g_assert_null(bdrv_next_node(e.graph, b));
    bdrv_unref(b);
    bdrv_unref(named);
    g_assert_null(bdrv_find_node(e.graph, "n"));
}

/* Two graphs do not know each other. */
static void test_two_graphs(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    BlockGraph *other = block_graph_new();
    BlockDriverState *bs;

    test_env_init(&e);
    bs = open_node(&e, "{'driver':'test','disk':'d','node-name':'n'}");
    g_assert_null(bdrv_find_node(other, "n"));
    g_assert_null(bdrv_open(other, NULL, "n", NULL, 0, NULL));
    g_assert_true(bdrv_get_graph(bs) == e.graph);
    bdrv_unref(bs);
    block_graph_free(other);
}

static void test_close(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    g_autoptr(TestDisk) b = test_disk_new("b", 64 * KiB);
    BlockDriverState *bs, *backing;

    test_env_init(&e);
    bs = open_node(&e, "{'driver':'test-format','file':"
                   "{'driver':'test-filter','file':"
                   "{'driver':'test','disk':'d'}},"
                   "'backing':{'driver':'test','disk':'b'}}");
    g_assert_cmpint(count_nodes(e.graph), ==, 4);
    backing = bdrv_backing_bs(bs);
    g_assert_true(bdrv_filter_or_cow_bs(bs) == backing);
    g_assert_true(bdrv_filter_or_cow_bs(bdrv_primary_bs(bs)) ==
                  bdrv_primary_bs(bdrv_primary_bs(bs)));
    bdrv_ref(backing);
    bdrv_unref(bs);
    g_assert_cmpint(count_nodes(e.graph), ==, 1);
    g_assert_cmpint(d->open_nodes, ==, 0);
    g_assert_cmpint(b->open_nodes, ==, 1);
    g_assert_cmpint(b->perm, ==, 0);
    bdrv_unref(backing);
    g_assert_cmpint(count_nodes(e.graph), ==, 0);
}

/* Many layers: every walk of the graph gets to the bottom and back. */
static void test_deep(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockDriverState *bs;
    BlockBackend *blk;
    char buf[512];
    int i;

    test_env_init(&e);
    bs = open_node(&e, "{'driver':'test-aio','disk':'d','node-name':'n0'}");
    for (i = 1; i <= 300; i++) {
        g_autofree char *options =
            g_strdup_printf("{'driver':'test-filter','node-name':'n%d',"
                            "'file':'n%d'}", i, i - 1);
        BlockDriverState *top = open_node(&e, options);

        bdrv_unref(bs);
        bs = top;
    }
    blk = blk_new(e.graph, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                  BLK_PERM_ALL);
    blk_insert_bs(blk, bs, &error_abort);
    bdrv_unref(bs);
    g_assert_true(d->perm & BLK_PERM_WRITE);
    bdrv_drained_begin(bdrv_find_node(e.graph, "n0"));
    bdrv_drained_end(bdrv_find_node(e.graph, "n0"));
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);
    g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_READ, 0, 512, buf,
                                     0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);
    g_assert_cmpint(count_nodes(e.graph), ==, 0);
}

/* ---- Resizing ---- */

static void count_resize(void *opaque)
{
    ++*(int *)opaque;
}

static const BlockDevOps resize_ops = { .resize_cb = count_resize };

static void test_resize_is_told(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    BlockBackend *a, *b;
    int told_a = 0, told_b = 0;

    test_env_init(&e);
    a = test_open(e.graph, "{'driver':'test-filter','file':"
                  "{'driver':'test','disk':'d'}}");
    b = blk_new(e.graph, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    blk_insert_bs(b, blk_bs(a), &error_abort);
    blk_set_dev_ops(a, &resize_ops, &told_a);
    blk_set_dev_ops(b, &resize_ops, &told_b);
    g_assert_true(blk_truncate(a, 64 * KiB, false, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(told_a, ==, 0);
    g_assert_true(blk_truncate(a, 32 * KiB, false, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(told_a, ==, 1);
    g_assert_cmpint(told_b, ==, 1);
    g_assert_cmpint(blk_getlength(b), ==, 32 * KiB);
    blk_unref(a);
    blk_unref(b);
}

static void test_resize_refused(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    static const struct {
        const char *options;
        int64_t offset;
        const char *message;
    } cases[] = {
        { "{'driver':'test','disk':'d'}", -1,
          "Image size cannot be negative" },
        { "{'driver':'test','disk':'d','read-only':true}", 1 * MiB,
          "Image is read-only" },
        { "{'driver':'test-format','file':{'driver':'test','disk':'d'}}",
          1 * MiB, "Image format driver does not support resize" },
    };
    BlockBackend *blk;
    Error *err = NULL;
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        blk = test_open(e.graph, "%s", cases[i].options);
        g_assert_false(blk_truncate(blk, cases[i].offset, false,
                                    PREALLOC_MODE_OFF, 0, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i].message);
        error_free(err);
        err = NULL;
        blk_unref(blk);
    }
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    test_disk_fail(d, 1u << TEST_TRUNCATE, 1, ENOSPC);
    g_assert_false(blk_truncate(blk, 1 * MiB, false, PREALLOC_MODE_OFF, 0,
                                NULL));
    g_assert_cmpint(blk_getlength(blk), ==, 64 * KiB);
    /* The new length cannot be had: that is no success. */
    test_disk_fail(d, 1u << TEST_GETLENGTH, 1, EIO);
    g_assert_false(blk_truncate(blk, 128 * KiB, false, PREALLOC_MODE_OFF, 0,
                                &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Could not refresh total "
                    "sector count: Input/output error");
    error_free(err);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/graph/" name, fn)
    T("names", test_names);
    T("two-graphs", test_two_graphs);
    T("close-releases-children", test_close);
    T("deep", test_deep);
    T("resize-is-told", test_resize_is_told);
    T("resize-refused", test_resize_refused);
    return g_test_run();
}
