/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Exports: their options, in the words that users know, and an export of a
 * real node from a front end's side.
 */
#include "qemu/osdep.h"
#include "block/export.h"
#include "qemu/options.h"
#include "vufe-blk.h"
#include <glib/gstdio.h>
#include <linux/virtio_blk.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define DISK_SIZE (8 * MiB)

typedef struct Fixture {
    BlockGraph *graph;
    BlockDriverState *disk;         /* "disk" */
    BlockDriverState *read_only;    /* "ro" */
    IOThread *iothread;             /* "io" */
    BlockExportList *list;
    char *dir;
    char *path;
} Fixture;

static IOThread *find_iothread(void *opaque, const char *id)
{
    Fixture *f = opaque;

    return strcmp(id, "io") ? NULL : f->iothread;
}

static void fixture_setup(Fixture *f, const void *arg)
{
    f->graph = block_graph_new();
    f->disk = bdrv_open(f->graph, NULL, NULL,
                        json_pack("{s:s, s:s, s:I, s:b}", "driver", "null-co",
                                  "node-name", "disk",
                                  "size", (json_int_t)DISK_SIZE,
                                  "read-zeroes", 1),
                        BDRV_O_RDWR, &error_abort);
    f->read_only = bdrv_open(f->graph, NULL, NULL,
                             json_pack("{s:s, s:s}", "driver", "null-co",
                                       "node-name", "ro"), 0, &error_abort);
    f->iothread = iothread_new("io", &error_abort);
    f->list = block_export_list_new(f->graph, find_iothread, f);
    f->dir = g_dir_make_tmp("block-export-XXXXXX", NULL);
    g_assert_nonnull(f->dir);
    f->path = g_build_filename(f->dir, "sock", NULL);
}

static void fixture_teardown(Fixture *f, const void *arg)
{
    block_export_list_free(f->list);
    iothread_free(f->iothread);
    bdrv_unref(f->disk);
    bdrv_unref(f->read_only);
    block_graph_free(f->graph);
    /* Every export has taken its socket away. */
    g_assert_cmpint(g_rmdir(f->dir), ==, 0);
    g_free(f->path);
    g_free(f->dir);
}

static char *good_options(Fixture *f, const char *id, const char *more)
{
    return g_strdup_printf("type=vhost-user-blk,id=%s,node-name=disk,"
                           "addr.type=unix,addr.path=%s%s", id, f->path, more);
}

/* The options of a good export, and then @more. */
static BlockExport *add(Fixture *f, const char *id, const char *more,
                        Error **errp)
{
    g_autofree char *text = good_options(f, id, more);

    return block_export_add(f->list,
                            keyval_parse(text, NULL, NULL, &error_abort),
                            errp);
}

static void expect_error(Fixture *f, const char *text, const char *message)
{
    Error *err = NULL;

    g_assert_null(block_export_add(f->list,
                                   keyval_parse(text, NULL, NULL,
                                                &error_abort), &err));
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

/* A virtual machine's own disk is nobody else's to write. */
static void test_exclusive(Fixture *f, const void *arg)
{
    g_autofree char *second = good_options(f, "e2", "2,writable=on");
    BlockExport *exp = add(f, "e1", ",writable=on,x-share-rw=off",
                           &error_abort);

    expect_error(f, second, "Permission conflict on node 'disk': permissions "
                 "'write' are both required by block device 'e2' (uses node "
                 "'disk' as 'root' child) and unshared by block device 'e1' "
                 "(uses node 'disk' as 'root' child).");
    g_assert_nonnull(add(f, "e3", "3", &error_abort));
    block_export_del(exp);
    g_assert_nonnull(add(f, "e1", ",writable=on", &error_abort));
    g_assert_nonnull(add(f, "e2", "2,writable=on", &error_abort));
}

#define GOOD "type=vhost-user-blk,id=e,node-name=disk"
#define ADDR ",addr.type=unix,addr.path=/nonexistent/s"

static void test_errors(Fixture *f, const void *arg)
{
    static const char *const cases[][2] = {
        { "id=e,node-name=disk" ADDR, "Parameter 'type' is missing" },
        { "type=zz,id=e", "Parameter 'type' does not accept value 'zz'" },
        { "type=vhost-user-blk,node-name=disk" ADDR,
          "Parameter 'id' is missing" },
        { "type=vhost-user-blk,id=e" ADDR, "Parameter 'node-name' is missing" },
        { "type=vhost-user-blk,id=1e,node-name=disk" ADDR,
          "Invalid block export id" },
        { "type=vhost-user-blk,id=a/b,node-name=disk" ADDR,
          "Invalid block export id" },
        { "type=vhost-user-blk,id=e,node-name=zz" ADDR,
          "Cannot find device='' nor node-name='zz'" },
        { "type=vhost-user-blk,id=e,node-name=ro,writable=on" ADDR,
          "Cannot export read-only node as writable" },
        { GOOD ",iothread=zz" ADDR, "iothread \"zz\" not found" },
        { GOOD ",iothread.0=io,iothread.1=zz" ADDR,
          "iothread \"zz\" not found" },
        { GOOD ",num-queues=0" ADDR, "num-queues must be greater than 0" },
        { GOOD ",num-queues=257" ADDR,
          "num-queues must not be greater than 256" },
        { GOOD ",queue-size=100" ADDR,
          "queue-size must be a power of 2 between 4 and 1024" },
        { GOOD ",logical-block-size=1000" ADDR,
          "parameter logical-block-size must be a power of 2 between 512 and "
          "2097152" },
        { GOOD, "Parameter 'addr' is missing" },
        { GOOD ",addr.type=unix", "Parameter 'addr.path' is missing" },
        { GOOD ",addr.type=inet,addr.host=x",
          "Only socket address types 'unix' and 'fd' are supported" },
        { GOOD ADDR, "Failed to bind socket to /nonexistent/s: "
          "No such file or directory" },
        { GOOD ",addr.type=fd,addr.str=0x", "File descriptor '0x' is not a "
          "socket" },
        { GOOD ",addr.type=fd,addr.str=7654",
          "File descriptor '7654' is not a socket" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        expect_error(f, cases[i][0], cases[i][1]);
    }
}

static void test_unknown_keys(Fixture *f, const void *arg)
{
    Error *err = NULL;

    g_assert_null(add(f, "e", ",foo=1", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Parameter 'foo' is unexpected");
    error_free(err);
    err = NULL;
    g_assert_null(add(f, "e", ",addr.foo=1", &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Parameter 'addr.foo' is unexpected");
    error_free(err);
    g_assert_null(block_export_find(f->list, "e"));
    g_assert_false(g_file_test(f->path, G_FILE_TEST_EXISTS));
}

static void test_long_path(Fixture *f, const void *arg)
{
    g_autofree char *path = g_strnfill(200, 'x');
    g_autofree char *text = g_strdup_printf(GOOD ",addr.type=unix,"
                                            "addr.path=%s", path);
    g_autofree char *message = g_strdup_printf("UNIX socket path '%s' is too "
                                               "long", path);

    expect_error(f, text, message);
}

/* ---- Serving ---- */

static VufeFrontend *connect_to(Fixture *f, unsigned queues)
{
    VufeOptions opts = { .num_queues = queues };
    g_autofree char *msg = NULL;
    VufeFrontend *fe = vufe_open(f->path, &opts, &msg);

    if (!fe) {
        g_error("%s", msg);
    }
    return fe;
}

static int64_t stat_of(Fixture *f, const char *name)
{
    json_t *all = block_export_query_all(f->list);
    json_t *stats = json_object_get(json_array_get(all, 0), "stats");
    int64_t value;

    g_assert_nonnull(json_object_get(stats, name));
    value = json_integer_value(json_object_get(stats, name));
    json_decref(all);
    return value;
}

/* And it goes the fast way: not one request needs a worker. */
static void test_serves(Fixture *f, const void *arg)
{
    BlockExport *exp = add(f, "e", ",writable=on,num-queues=2,serial=abc,"
                           "iothread.0=io", &error_abort);
    VufeFrontend *fe = connect_to(f, 2);
    char buf[4096], id[VUFE_BLK_ID_LEN + 1];
    int64_t size;

    g_assert_nonnull(exp);
    g_assert_true(block_export_find(f->list, "e") == exp);
    g_assert_cmpint(vufe_blk_get_size(fe, &size), ==, 0);
    g_assert_cmpint(size, ==, DISK_SIZE);
    for (int i = 0; i < 10; i++) {
        memset(buf, 1, sizeof(buf));
        g_assert_cmpint(vufe_blk_write(fe, i % 2, 0, buf, 4096), ==, 0);
        g_assert_cmpint(vufe_blk_read(fe, i % 2, 0, buf, 4096), ==, 0);
        g_assert_cmpint(buf[4095], ==, 0);
        g_assert_cmpint(vufe_blk_flush(fe, i % 2), ==, 0);
    }
    g_assert_cmpint(vufe_blk_get_id(fe, 0, id), ==, 0);
    g_assert_cmpstr(id, ==, "abc");
    g_assert_cmpint(stat_of(f, "requests"), ==, 31);
    g_assert_cmpint(stat_of(f, "inline"), ==, 30);
    g_assert_cmpint(stat_of(f, "worker"), ==, 0);
    g_assert_cmpint(stat_of(f, "connections"), ==, 1);
    vufe_close(fe);
}

static void test_duplicate(Fixture *f, const void *arg)
{
    Error *err = NULL;

    g_assert_nonnull(add(f, "e", "", &error_abort));
    g_assert_null(add(f, "e", "", &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Block export id 'e' is already in use");
    error_free(err);
}

/* Deleted under a connected front end, and made anew in its place. */
static void test_delete(Fixture *f, const void *arg)
{
    for (int i = 0; i < 5; i++) {
        BlockExport *exp = add(f, "e", ",writable=on", &error_abort);
        VufeFrontend *fe = connect_to(f, 1);
        char buf[512] = "";

        g_assert_cmpint(vufe_blk_write(fe, 0, 0, buf, 512), ==, 0);
        block_export_del(exp);
        g_assert_null(block_export_find(f->list, "e"));
        g_assert_false(g_file_test(f->path, G_FILE_TEST_EXISTS));
        g_assert_cmpint(vufe_wait_hangup(&fe->conn, 10000), ==, 0);
        vufe_close(fe);
    }
}

/* What a killed process has left at the path is no obstacle, a file is. */
static void test_old_socket(Fixture *f, const void *arg)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    BlockExport *exp;

    memcpy(un.sun_path, f->path, strlen(f->path));
    g_assert_cmpint(bind(fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    close(fd);
    exp = add(f, "e", "", &error_abort);
    g_assert_nonnull(exp);
    block_export_del(exp);

    g_assert_true(g_file_set_contents(f->path, "precious", -1, NULL));
    g_assert_null(add(f, "e", "", NULL));
    g_assert_true(g_file_test(f->path, G_FILE_TEST_IS_REGULAR));
    g_assert_cmpint(unlink(f->path), ==, 0);
}

/* A socket that somebody else has made. */
static void test_fd(Fixture *f, const void *arg)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    g_autofree char *text = g_strdup_printf(GOOD ",addr.type=fd,addr.str=%d",
                                            fd);
    VufeFrontend *fe;
    char buf[512];

    memcpy(un.sun_path, f->path, strlen(f->path));
    g_assert_cmpint(bind(fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    g_assert_null(block_export_add(f->list, keyval_parse(text, NULL, NULL,
                                                         &error_abort), NULL));
    g_assert_cmpint(listen(fd, 1), ==, 0);
    g_assert_nonnull(block_export_add(f->list,
                                      keyval_parse(text, NULL, NULL,
                                                   &error_abort),
                                      &error_abort));
    fe = connect_to(f, 1);
    g_assert_cmpint(vufe_blk_read(fe, 0, 0, buf, 512), ==, 0);
    vufe_close(fe);
    g_assert_cmpint(unlink(f->path), ==, 0);
}

/* Drained and undrained while requests keep coming: none is lost. */
static void test_drain(Fixture *f, const void *arg)
{
    VufeFrontend *fe;
    char buf[512];

    g_assert_nonnull(add(f, "e", ",writable=on", &error_abort));
    fe = connect_to(f, 1);
    for (int i = 0; i < 20; i++) {
        bdrv_drained_begin(f->disk);
        bdrv_drained_end(f->disk);
        g_assert_cmpint(vufe_blk_read(fe, 0, 0, buf, 512), ==, 0);
    }
    vufe_close(fe);
}

static void test_write_cache(Fixture *f, const void *arg)
{
    const char *const modes[] = { "", ",writethrough=off", ",writethrough=on" };
    const uint32_t wce = offsetof(struct virtio_blk_config, wce);

    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        BlockExport *exp = add(f, "e", modes[i], &error_abort);
        VufeFrontend *fe = connect_to(f, 1);
        uint8_t byte = 9;

        g_assert_cmpint(vufe_get_config(fe, wce, &byte, 1), ==, 0);
        g_assert_cmpint(byte, ==, i < 2);
        vufe_close(fe);
        block_export_del(exp);
    }
}

static void add_test(const char *path, void (*fn)(Fixture *f, const void *arg))
{
    g_test_add(path, Fixture, NULL, fixture_setup, fn, fixture_teardown);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_test("/block-export/options/errors", test_errors);
    add_test("/block-export/options/exclusive", test_exclusive);
    add_test("/block-export/options/unknown-keys", test_unknown_keys);
    add_test("/block-export/options/long-path", test_long_path);
    add_test("/block-export/options/write-cache", test_write_cache);
    add_test("/block-export/serve/on-the-fast-path", test_serves);
    add_test("/block-export/serve/duplicate-id", test_duplicate);
    add_test("/block-export/serve/delete-under-front-end", test_delete);
    add_test("/block-export/serve/old-socket", test_old_socket);
    add_test("/block-export/serve/inherited-socket", test_fd);
    add_test("/block-export/serve/drain", test_drain);
    return g_test_run();
}
