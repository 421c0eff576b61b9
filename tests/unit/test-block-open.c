/*
 * Opening images: names, options, drivers, children, what is inherited, and
 * what is left behind when any step fails (nothing).
 *
 * Messages are those of the 10.0 tools for the same options, with "raw" and
 * "file" in the place of the test drivers.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "test-driver.h"

/* Nothing is open any more. */
static void assert_empty(BlockGraph *graph, TestDisk *d)
{
    g_assert_null(bdrv_next_node(graph, NULL));
    g_assert_cmpint(d->open_nodes, ==, 0);
}

static BlockDriverState *open_json(TestEnv *e, const char *options, int flags,
                                   Error **errp)
{
    return bdrv_open(e->graph, NULL, NULL, test_options("%s", options), flags,
                     errp);
}

/* ---- Messages ---- */

static const struct {
    const char *options;
    const char *message;
} refused[] = {
    { "{}", "Must specify either driver or file" },
    { "{'driver':'wat'}", "Unknown driver 'wat'" },
    { "{'driver':'test-filter'}",
      "A block device must be specified for \"file\"" },
    { "{'driver':'test-filter','file':'zz'}",
      "Cannot find device='zz' nor node-name='zz'" },
    { "{'driver':'test-filter','node-name':'a','file':'a'}",
      "Cannot find device='a' nor node-name='a'" },
    { "{'driver':'test-format','node-name':'a','backing':'a',"
      "'file':{'driver':'test','disk':'d'}}",
      "Cannot find device='a' nor node-name='a'" },
    { "{'driver':'test-filter','nope':1,'file':{'driver':'test','disk':'d'}}",
      "Block format 'test-filter' does not support the option 'nope'" },
    { "{'driver':'test-filter','file':{'driver':'test','disk':'d','nope':1}}",
      "Block protocol 'test' doesn't support the option 'nope'" },
    { "{'driver':'test-filter','cache':{'x':1},"
      "'file':{'driver':'test','disk':'d'}}",
      "Block format 'test-filter' does not support the option 'cache.x'" },
    { "{'driver':'test-filter','cache':5,"
      "'file':{'driver':'test','disk':'d'}}",
      "Block format 'test-filter' does not support the option 'cache'" },
    { "{'driver':'test','disk':'d','read-only':'maybe'}",
      "Parameter 'read-only' expects 'on' or 'off'" },
    { "{'driver':'test','disk':'d','cache.direct':'maybe'}",
      "Parameter 'cache.direct' expects 'on' or 'off'" },
    { "{'driver':'test','disk':'d','discard':'x'}",
      "Invalid discard option" },
    { "{'driver':'test','disk':'d','detect-zeroes':'x'}",
      "invalid parameter value: x" },
    { "{'driver':'test','disk':'d','detect-zeroes':'unmap'}",
      "setting detect-zeroes to unmap is not allowed without setting discard "
      "operation to unmap" },
    { "{'driver':'test','disk':'d','node-name':'#a'}",
      "Invalid node-name: '#a'" },
    { "{'driver':'test','disk':'d','node-name':''}", "Invalid node-name: ''" },
    { "{'driver':'test','disk':'d',"
      "'node-name':'aaaaaaaaaabbbbbbbbbbccccccccccdd'}",
      "Node name too long" },
    { "{'driver':'test-filter','node-name':'a',"
      "'file':{'driver':'test','disk':'d','node-name':'a'}}",
      "Duplicate nodes with node-name='a'" },
    { "{'driver':'test-filter','file':5}",
      "A block device must be specified for \"file\"" },
};

static void test_messages(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(refused); i++) {
        g_autoptr(Error) err = NULL;

        g_test_message("%s", refused[i].options);
        g_assert_null(open_json(&e, refused[i].options, 0, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, refused[i].message);
        assert_empty(e.graph, d);
    }
}

static const struct {
    const char *filename;
    const char *message;
} refused_names[] = {
    { "wat:x", "Unknown protocol 'wat'" },
    { "json:{", "Could not parse the JSON options: JSON parse error, "
      "premature EOI" },
    { "json:[1]", "Invalid JSON object given" },
    { "json:{}", "Must specify either driver or file" },
    { "test:nothing", "No disk 'nothing'" },
};

static void test_names_refused(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(refused_names); i++) {
        g_autoptr(Error) err = NULL;

        g_assert_null(bdrv_open(e.graph, refused_names[i].filename, NULL, NULL,
                                0, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, refused_names[i].message);
        assert_empty(e.graph, d);
    }
}

/* ---- Names ---- */

static void test_names(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockDriverState *bs, *same;

    test_env_init(&e);
    memcpy(d->data, "TFMT", 4);

    /* The format is probed, and the file is a node of its own. */
    bs = bdrv_open(e.graph, "test:d", NULL, NULL, BDRV_O_RDWR, &error_abort);
    g_assert_cmpstr(bdrv_get_format_name(bs), ==, "test-format");
    g_assert_true(bs->probed);
    g_assert_cmpstr(bdrv_get_filename(bs), ==, "test:d");
    g_assert_cmpstr(bdrv_get_format_name(bdrv_primary_bs(bs)), ==, "test");
    bdrv_unref(bs);
    assert_empty(e.graph, d);

    bs = bdrv_open(e.graph, "test:d", NULL, NULL, BDRV_O_PROTOCOL,
                   &error_abort);
    g_assert_cmpstr(bdrv_get_format_name(bs), ==, "test");
    bdrv_unref(bs);

    /* Options go before those in the name. */
    bs = bdrv_open(e.graph, "json:{'driver':'test','node-name':'x',"
                   "\"disk\":\"d\"}", NULL,
                   test_options("{'node-name':'y'}"), 0, &error_abort);
    g_assert_cmpstr(bdrv_get_node_name(bs), ==, "y");
    g_assert_true(bdrv_find_node(e.graph, "y") == bs);
    g_assert_null(bdrv_find_node(e.graph, "x"));
    same = bdrv_open(e.graph, NULL, "y", NULL, 0, &error_abort);
    g_assert_true(same == bs);
    bdrv_unref(same);
    bdrv_unref(bs);
    assert_empty(e.graph, d);
}

/* A child by its name is shared, and outlives the first parent. */
static void test_child_by_name(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockDriverState *bottom, *one, *two;

    test_env_init(&e);
    bottom = open_json(&e, "{'driver':'test','disk':'d','node-name':'bottom'}",
                       BDRV_O_RDWR, &error_abort);
    one = open_json(&e, "{'driver':'test-filter','file':'bottom'}",
                    BDRV_O_RDWR, &error_abort);
    two = open_json(&e, "{'driver':'test-filter','file':'bottom'}",
                    BDRV_O_RDWR, &error_abort);
    g_assert_true(bdrv_primary_bs(one) == bottom);
    g_assert_cmpint(bottom->refcnt, ==, 3);
    bdrv_unref(bottom);
    bdrv_unref(one);
    g_assert_cmpint(d->open_nodes, ==, 1);
    bdrv_unref(two);
    assert_empty(e.graph, d);
}

/* ---- Options ---- */

static void test_flags(void)
{
    static const struct {
        const char *top, *file;     /* options */
        int top_flags, file_flags;  /* of those below */
    } cases[] = {
        { "", "", BDRV_O_RDWR, BDRV_O_RDWR | BDRV_O_UNMAP },
        { "'read-only':true,", "", 0, BDRV_O_UNMAP },
        { "'cache':{'direct':true},", "", BDRV_O_RDWR | BDRV_O_NOCACHE,
          BDRV_O_RDWR | BDRV_O_NOCACHE | BDRV_O_UNMAP },
        { "'cache.no-flush':'on',", "", BDRV_O_RDWR | BDRV_O_NO_FLUSH,
          BDRV_O_RDWR | BDRV_O_NO_FLUSH | BDRV_O_UNMAP },
        { "'cache':{'direct':true},", "'cache':{'direct':false},",
          BDRV_O_RDWR | BDRV_O_NOCACHE, BDRV_O_RDWR | BDRV_O_UNMAP },
        { "", "'discard':'ignore',", BDRV_O_RDWR, BDRV_O_RDWR },
        { "'discard':'unmap',", "", BDRV_O_RDWR | BDRV_O_UNMAP,
          BDRV_O_RDWR | BDRV_O_UNMAP },
    };
    const int mask = BDRV_O_RDWR | BDRV_O_NOCACHE | BDRV_O_NO_FLUSH |
                     BDRV_O_UNMAP;
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    size_t i;

    test_env_init(&e);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *options =
            g_strdup_printf("{%s'driver':'test-filter','file':{%s"
                            "'driver':'test','disk':'d'}}", cases[i].top,
                            cases[i].file);
        BlockDriverState *bs = open_json(&e, options, BDRV_O_RDWR,
                                         &error_abort);

        g_test_message("%s", options);
        g_assert_cmpint(bs->open_flags & mask, ==, cases[i].top_flags);
        g_assert_cmpint(bdrv_primary_bs(bs)->open_flags & mask, ==,
                        cases[i].file_flags);
        bdrv_unref(bs);
    }
}

static void test_auto_read_only(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockDriverState *bs;
    Error *err = NULL;

    test_env_init(&e);
    d->read_only = true;
    g_assert_null(open_json(&e, "{'driver':'test','disk':'d'}", BDRV_O_RDWR,
                            &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not open 'd': Permission denied");
    error_free(err);
    bs = open_json(&e, "{'driver':'test','disk':'d','auto-read-only':true}",
                   BDRV_O_RDWR, &error_abort);
    g_assert_true(bdrv_is_read_only(bs));
    bdrv_unref(bs);
}

static void test_options_kept(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    json_t *options = test_options("{'driver':'test','disk':'d'}");
    BlockDriverState *bs;
    json_t *shown;

    test_env_init(&e);
    json_incref(options);
    bs = bdrv_open(e.graph, NULL, NULL, options, 0, &error_abort);
    /* Used up, and not changed for whoever else holds them. */
    g_assert_cmpint(options->refcount, ==, 1);
    g_assert_cmpint(json_object_size(options), ==, 2);
    shown = bdrv_get_options(bs);
    g_assert_cmpstr(opt_peek_str(shown, "driver"), ==, "test");
    g_assert_cmpstr(opt_peek_str(shown, "disk"), ==, "d");
    json_decref(shown);
    bdrv_unref(bs);
    json_decref(options);
}

/* What one node takes out of its options, another one still finds. */
static void test_options_not_shared(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d G_GNUC_UNUSED = test_disk_new("d", 64 * KiB);
    json_t *options = test_options("{'driver':'test-filter',"
                                   "'cache':{'direct':true},'file':"
                                   "{'driver':'test-filter',"
                                   "'cache':{'direct':false}}}");
    g_autofree char *before = options_to_json(options);
    g_autofree char *after = NULL;
    BlockDriverState *bs;

    test_env_init(&e);
    json_object_del(json_object_get(options, "file"), "driver");
    bs = bdrv_open(e.graph, "test:d", NULL, json_deep_copy(options), 0,
                   &error_abort);
    g_assert_true(bs->open_flags & BDRV_O_NOCACHE);
    g_assert_false(bdrv_primary_bs(bs)->open_flags & BDRV_O_NOCACHE);
    bdrv_unref(bs);
    json_decref(options);

    options = test_options("%s", before);
    g_assert_null(bdrv_open(e.graph, NULL, NULL, json_incref(options), 0,
                            NULL));
    after = options_to_json(options);
    g_assert_cmpstr(before, ==, after);
    json_decref(options);
}

/* ---- Failures ---- */

#define WHOLE "{'driver':'test-format','node-name':'top',"               \
              "'file':{'driver':'test-filter',"                          \
              "'file':{'driver':'test','disk':'d','node-name':'file'}}," \
              "'backing':{'driver':'test-cow','disk':'b',"               \
              "'backing':{'driver':'test','disk':'b'}}}"

static void fail_nth(TestEnv *e, TestDisk *d, TestDisk *b, TestDisk *failing)
{
    json_t *options = test_options(WHOLE);
    int n;

    for (n = 1; ; n++) {
        g_autoptr(Error) err = NULL;
        BlockBackend *blk;

        test_disk_fail(failing, UINT_MAX & ~(1u << TEST_CLOSE), n, EIO);
        json_incref(options);
        blk = blk_new_open(e->graph, NULL, NULL, options, BDRV_O_RDWR, &err);
        g_assert_cmpint(options->refcount, ==, 1);
        if (!test_disk_failed(failing)) {
            g_assert_nonnull(blk);
            test_disk_fail(failing, 0, 0, 0);
            blk_unref(blk);
            break;
        }
        /* Nobody has to look at what set_perm and its like return. */
        if (blk) {
            test_disk_fail(failing, 0, 0, 0);
            blk_unref(blk);
        } else {
            g_assert_nonnull(err);
        }
        assert_empty(e->graph, d);
        g_assert_cmpint(b->open_nodes, ==, 0);
    }
    g_assert_cmpint(n, >, 3);
    json_decref(options);
}

static void test_nth_call_fails(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    g_autoptr(TestDisk) b = test_disk_new("b", 64 * KiB);

    test_env_init(&e);
    fail_nth(&e, d, b, d);
    fail_nth(&e, d, b, b);
    assert_empty(e.graph, d);
}

static void test_probe_fails(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    Error *err = NULL;

    test_env_init(&e);
    test_disk_fail_all(d, 1u << TEST_READ, EIO);
    g_assert_null(bdrv_open(e.graph, "test:d", NULL, NULL, 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Could not read image for "
                    "determining its format: Input/output error");
    error_free(err);
    assert_empty(e.graph, d);
}

static void test_close_flushes(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockDriverState *bs;

    test_env_init(&e);
    bs = open_json(&e, "{'driver':'test','disk':'d'}", BDRV_O_RDWR,
                   &error_abort);
    bdrv_unref(bs);
    g_assert_cmpint(test_disk_count(d, TEST_FLUSH), ==, 1);
    g_assert_cmpint(test_disk_count(d, TEST_CLOSE), ==, 1);
    bs = open_json(&e, "{'driver':'test','disk':'d'}", 0, &error_abort);
    bdrv_unref(bs);
    g_assert_cmpint(test_disk_count(d, TEST_FLUSH), ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/open/" name, fn)
    T("messages", test_messages);
    T("names-refused", test_names_refused);
    T("names", test_names);
    T("child-by-name", test_child_by_name);
    T("flags-are-inherited", test_flags);
    T("auto-read-only", test_auto_read_only);
    T("options-are-kept", test_options_kept);
    T("options-are-not-shared", test_options_not_shared);
    T("nth-call-fails", test_nth_call_fails);
    T("probe-fails", test_probe_fails);
    T("close-flushes", test_close_flushes);
    return g_test_run();
}
