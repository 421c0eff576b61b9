/*
 * Backing files: what headers name and what options say instead.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "test-driver.h"

typedef struct Disks {
    TestEnv env;
    TestDisk *base;             /* filled with 'b' */
    TestDisk *top;              /* of test-format, header to be set */
} Disks;

static void set_header(TestDisk *d, const char *backing)
{
    memset(d->data, 0, 4096);
    memcpy(d->data, "TFMT", 4);
    memcpy(d->data + 4, backing, strlen(backing));
}

static void setup(Disks *t, gconstpointer unused)
{
    test_env_init(&t->env);
    t->base = test_disk_new("base", 64 * KiB);
    t->top = test_disk_new("top", 64 * KiB);
    memset(t->base->data, 'b', 64 * KiB);
    set_header(t->top, "test:base");
}

static void teardown(Disks *t, gconstpointer unused)
{
    g_assert_null(bdrv_next_node(t->env.graph, NULL));
    test_disk_free(t->base);
    test_disk_free(t->top);
    test_env_destroy(&t->env);
}

static BlockDriverState *open_top(Disks *t, const char *backing, int flags,
                                  Error **errp)
{
    json_t *o = test_options("{'driver':'test-format','node-name':'top',"
                             "'file':{'driver':'test','disk':'top'}%s}",
                             backing);

    return bdrv_open(t->env.graph, NULL, NULL, o, flags, errp);
}

static void test_from_header(Disks *t, gconstpointer unused)
{
    BlockDriverState *bs = open_top(t, "", BDRV_O_RDWR, &error_abort);
    BlockDriverState *backing = bdrv_backing_bs(bs);

    g_assert_nonnull(backing);
    g_assert_true(bdrv_is_read_only(backing));
    g_assert_cmpstr(bdrv_get_filename(backing), ==, "test:base");
    bdrv_unref(bs);
}

static void test_left_closed(Disks *t, gconstpointer unused)
{
    static const char *const none[] = { ",'backing':null", ",'backing':''" };
    BlockDriverState *bs = open_top(t, "", BDRV_O_NO_BACKING, &error_abort);

    g_assert_null(bdrv_backing_bs(bs));
    bdrv_unref(bs);
    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        bs = open_top(t, none[i], 0, &error_abort);
        g_assert_null(bdrv_backing_bs(bs));
        bdrv_unref(bs);
    }
    g_assert_cmpint(test_disk_count(t->base, TEST_OPEN), ==, 0);
}

/* Options complete what the header says. */
static void test_option_object(Disks *t, gconstpointer unused)
{
    BlockDriverState *bs = open_top(t, ",'backing':{'driver':'raw',"
                                    "'node-name':'under'}", 0, &error_abort);

    g_assert_cmpstr(bdrv_get_node_name(bdrv_backing_bs(bs)), ==, "under");
    g_assert_cmpstr(bdrv_get_filename(bdrv_backing_bs(bs)), ==, "test:base");
    bdrv_unref(bs);
}

static void test_missing(Disks *t, gconstpointer unused)
{
    g_autoptr(Error) err = NULL;

    set_header(t->top, "test:gone");
    g_assert_null(open_top(t, "", 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not open backing file: No disk 'gone'");
}

static void test_relative_to_nothing(Disks *t, gconstpointer unused)
{
    g_autoptr(Error) err = NULL;

    set_header(t->top, "base");
    g_assert_null(open_top(t, "", 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not open backing file: Cannot use relative backing "
                    "file names for ''");
}

/* An image that is its own backing file ends in an error. */
static void test_loop(Disks *t, gconstpointer unused)
{
    g_autoptr(Error) err = NULL;
    const char *text;

    set_header(t->top, "test:top");
    g_assert_null(open_top(t, "", 0, &err));
    text = error_get_pretty(err);
    g_assert_nonnull(strstr(text, "Backing chain is longer than"));
}

static const struct {
    const char *image, *name, *full;
} names[] = {
    { "/d/top", "base", "/d/base" },
    { "top", "base", "base" },
    { "d/top", "../base", "d/../base" },
    { "d/top", "/base", "/base" },
    { "d/top", "nbd://h/x", "nbd://h/x" },
    { "nbd:d/top", "base", "nbd:d/base" },
    { "nbd:top", "base", "nbd:base" },
    { "d/top", "sub/a:b", "d/sub/a:b" },
};

static void test_full_names(Disks *t, gconstpointer unused)
{
    BlockDriverState *bs = open_top(t, "", BDRV_O_NO_BACKING, &error_abort);

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *full = NULL;

        g_free(bs->filename);
        g_free(bs->backing_file);
        bs->filename = g_strdup(names[i].image);
        bs->backing_file = g_strdup(names[i].name);
        full = bdrv_get_full_backing_filename(bs, &error_abort);
        g_assert_cmpstr(full, ==, names[i].full);
    }
    bdrv_unref(bs);
}

static void test_set_at_run_time(Disks *t, gconstpointer unused)
{
    BlockDriverState *bs = open_top(t, ",'backing':null", 0, &error_abort);
    BlockDriverState *base = bdrv_open(t->env.graph, "test:base", NULL, NULL,
                                       0, &error_abort);

    bdrv_set_backing_hd(bs, base, &error_abort);
    g_assert_true(bdrv_backing_bs(bs) == base);
    bdrv_set_backing_hd(bs, NULL, &error_abort);
    g_assert_null(bdrv_backing_bs(bs));
    bdrv_unref(base);
    bdrv_unref(bs);
}

/* One that cannot be had leaves the other where it is. */
static void test_set_fails(Disks *t, gconstpointer unused)
{
    BlockDriverState *bs = open_top(t, "", 0, &error_abort);
    BlockDriverState *old = bdrv_backing_bs(bs);
    BlockDriverState *other = bdrv_open(t->env.graph, "test:base", NULL, NULL,
                                        0, &error_abort);
    BlockBackend *top = blk_new(t->env.graph, BLK_PERM_CONSISTENT_READ,
                                BLK_PERM_ALL);
    BlockBackend *blk = blk_new(t->env.graph, BLK_PERM_CONSISTENT_READ, 0);
    g_autoptr(Error) err = NULL;

    g_assert_nonnull(old);
    g_assert_true(blk_insert_bs(top, bs, &error_abort));
    g_assert_true(blk_insert_bs(blk, other, &error_abort));
    g_assert_false(bdrv_set_backing_hd(bs, other, &err));
    g_assert_nonnull(err);
    g_assert_true(bdrv_backing_bs(bs) == old);
    blk_unref(blk);
    g_assert_true(bdrv_set_backing_hd(bs, other, &error_abort));
    g_assert_true(bdrv_backing_bs(bs) == other);
    blk_unref(top);
    bdrv_unref(other);
    bdrv_unref(bs);
}

static void add(const char *path, void (*fn)(Disks *, gconstpointer))
{
    g_test_add(path, Disks, NULL, setup, fn, teardown);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
    add("/block-backing/open/from-header", test_from_header);
    add("/block-backing/open/left-closed", test_left_closed);
    add("/block-backing/open/options-complete-header", test_option_object);
    add("/block-backing/open/missing", test_missing);
    add("/block-backing/open/relative-to-nothing", test_relative_to_nothing);
    add("/block-backing/open/loop-is-error", test_loop);
    add("/block-backing/names/full", test_full_names);
    add("/block-backing/set/at-run-time", test_set_at_run_time);
    add("/block-backing/set/failure-changes-nothing", test_set_fails);
    return g_test_run();
}
