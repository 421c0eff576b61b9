/*
 * The luks driver on real files and the real core.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/blkdebug.h"
#include "block/block-backend.h"
#include "block/block-driver.h"
#include "crypto/secret.h"
#include "qemu/thread.h"

#define SIZE (3 * MiB + 512)

static char *dir;
static BlockGraph *graph;

static bool create(const char *path, const char *more, Error **errp)
{
    g_autofree char *text = g_strdup_printf(
        "{'key-secret': 's', 'iter-time': '0', 'size': '%" PRId64 "' %s}",
        (int64_t)SIZE, more);

    return bdrv_create(graph, "luks", path,
                       options_from_json(text, &error_abort), errp);
}

static char *make_image(const char *name)
{
    char *path = g_build_filename(dir, name, NULL);

    g_assert_true(create(path, "", &error_abort));
    return path;
}

/* luks on blkdebug on file. */
static BlockBackend *open_with(const char *path, const char *secret,
                               Error **errp)
{
    json_t *o = json_pack("{s:s, s:s, s:{s:s, s:{s:s, s:s}}}",
                          "driver", "luks", "key-secret", secret,
                          "file", "driver", "blkdebug",
                          "image", "driver", "file", "filename", path);

    return blk_new_open(graph, NULL, NULL, o, BDRV_O_RDWR, errp);
}

static BlockBackend *open_image(const char *path, Error **errp)
{
    return open_with(path, "s", errp);
}

static void test_created_size(void)
{
    g_autofree char *path = make_image("size");
    BlockBackend *blk = open_image(path, &error_abort);
    BlockDriverInfo info;

    g_assert_cmpint(bdrv_get_info(blk_bs(blk), &info), ==, 0);
    g_assert_true(info.is_encrypted);
    g_assert_cmpint(blk_getlength(blk), ==, SIZE);
    g_assert_true(blk_truncate(blk, 2 * SIZE, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(blk_getlength(blk), ==, 2 * SIZE);
    blk_unref(blk);
}

/* Options that are wrong leave a file alone that is there. */
static void test_create_keeps_file(void)
{
    g_autofree char *path = g_build_filename(dir, "keep", NULL);
    g_autofree char *text = NULL;
    g_autoptr(Error) err = NULL;

    g_assert_true(g_file_set_contents(path, "precious", -1, NULL));
    g_assert_false(create(path, ", 'cipher-alg': 'foo'", &err));
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "precious");
}

/* ---- Requests against a model ---- */

typedef struct Range {
    BlockBackend *blk;
    uint8_t *model;
    int64_t start, end;
    GRand *rand;
} Range;

/* Reads and writes of odd sizes, in one piece or several. */
static void one_request(const Range *r)
{
    int64_t offset = g_rand_int_range(r->rand, r->start, r->end);
    int64_t max = g_rand_boolean(r->rand) ? 5000 : r->end - r->start;
    int64_t n = g_rand_int_range(r->rand, 1,
                                 MIN(max, r->end - offset) + 1);
    g_autofree uint8_t *buf = g_malloc(n);
    int64_t split = g_rand_int_range(r->rand, 0, n);
    struct iovec iov[] = {
        { .iov_base = buf, .iov_len = split },
        { .iov_base = buf + split, .iov_len = n - split },
    };
    QEMUIOVector qiov;

    qemu_iovec_init_external(&qiov, split ? iov : iov + 1, split ? 2 : 1);
    if (g_rand_boolean(r->rand)) {
        memset(buf, g_rand_int(r->rand), n);
        memcpy(r->model + offset, buf, n);
        g_assert_cmpint(blk_pwritev(r->blk, offset, n, &qiov, 0, 0), ==, 0);
        g_assert_cmpmem(buf, n, r->model + offset, n);  /* not encrypted */
    } else {
        g_assert_cmpint(blk_preadv(r->blk, offset, n, &qiov, 0, 0), ==, 0);
        g_assert_cmpmem(buf, n, r->model + offset, n);
    }
}

static void *many_requests(void *opaque)
{
    for (int i = 0; i < 150; i++) {
        one_request(opaque);
    }
    return NULL;
}

static void test_model(void)
{
    g_autofree char *path = make_image("model");
    BlockBackend *blk = open_image(path, &error_abort);
    g_autofree uint8_t *model = g_malloc0(SIZE);
    g_autofree uint8_t *back = g_malloc(SIZE);
    QemuThread threads[3];
    Range ranges[3];

    /* Ranges that touch in the middle of a sector. */
    g_assert_cmpint(blk_pwrite(blk, 0, SIZE, model, 0), ==, 0);
    for (int i = 0; i < 3; i++) {
        ranges[i] = (Range) {
            blk, model, i * (MiB + 100), MIN((i + 1) * (MiB + 100), SIZE),
            g_rand_new_with_seed(g_test_rand_int()),
        };
        g_assert_cmpint(qemu_thread_create(&threads[i], "model",
                                           many_requests, &ranges[i]), ==, 0);
    }
    for (int i = 0; i < 3; i++) {
        qemu_thread_join(&threads[i]);
        g_rand_free(ranges[i].rand);
    }
    blk_unref(blk);
    blk = open_image(path, &error_abort);
    g_assert_cmpint(blk_pread(blk, 0, SIZE, back, 0), ==, 0);
    g_assert_cmpmem(back, SIZE, model, SIZE);
    blk_unref(blk);
}

/* Nothing of the guest's data is in the file. */
static void test_file_has_no_plain_text(void)
{
    g_autofree char *path = make_image("cipher");
    BlockBackend *blk = open_image(path, &error_abort);
    g_autofree char *data = g_malloc(MiB), *file = NULL;
    gsize size;

    memset(data, 'x', MiB);
    g_assert_cmpint(blk_pwrite(blk, 0, MiB, data, 0), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, MiB, MiB, 0), ==, 0);
    blk_unref(blk);
    g_assert_true(g_file_get_contents(path, &file, &size, NULL));
    g_assert_null(memmem(file, size, "xxxxxxxx", 8));
    g_assert_null(memmem(file + 2068480, 2 * MiB, "\0\0\0\0\0\0\0\0", 8));
}

/* ---- The nth request of the file fails ---- */

static void test_reads_and_writes_fail(void)
{
    g_autofree char *path = make_image("fails");
    BlockBackend *blk = open_image(path, &error_abort);
    BlockDriverState *file = blk_bs(blk)->file->bs;
    g_autofree uint8_t *buf = g_malloc(SIZE);
    int n;

    memset(buf, 1, SIZE);
    for (n = 1; ; n++) {
        int ret;

        g_assert_cmpint(blkdebug_arm(file, n, EIO), ==, 0);
        ret = blk_pwrite(blk, 0, SIZE, buf, 0);
        if (ret == 0) {
            ret = blk_pread(blk, 0, SIZE, buf, 0);
        }
        if (!blkdebug_fired(file)) {
            g_assert_cmpint(ret, ==, 0);
            break;
        }
        g_assert_cmpint(ret, ==, -EIO);
    }
    g_assert_cmpint(n, ==, 9);      /* four pieces each way */
    g_assert_cmpint(blkdebug_arm(file, 0, 0), ==, 0);
    blk_unref(blk);
}

static void test_getlength_of_short_file(void)
{
    g_autofree char *path = make_image("short");
    g_autoptr(Error) err = NULL;

    g_assert_cmpint(truncate(path, 2000000), ==, 0);
    g_assert_null(open_image(path, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Could not refresh total "
                    "sector count: Input/output error");
}

/* A password more; the file fails at any point of adding it. */
static void test_amend(void)
{
    g_autofree char *path = make_image("amend");
    BlockBackend *blk = open_image(path, &error_abort);
    BlockDriverState *bs = blk_bs(blk), *file = bs->file->bs;
    bool ok = false;
    int n;

    for (n = 1; !ok; n++) {
        g_autoptr(json_t) o = options_from_json(
            "{'state': 'active', 'new-secret': 't', 'iter-time': '0'}",
            &error_abort);
        g_autoptr(Error) err = NULL;

        g_assert_cmpint(blkdebug_arm(file, n, EIO), ==, 0);
        ok = bs->drv->amend(bs, o, false, NULL, NULL, &err);
        g_assert_cmpint(ok, ==, !blkdebug_fired(file));
        g_assert_true(ok || strstr(error_get_pretty(err),
                                   "Input/output error"));
    }
    /* Read one slot, write one and the header, which is synced. */
    g_assert_cmpint(n, ==, 6);
    g_assert_cmpint(blkdebug_arm(file, 0, 0), ==, 0);
    blk_unref(blk);
    blk = open_with(path, "t", &error_abort);
    blk_unref(blk);
    blk = open_image(path, &error_abort);
    blk_unref(blk);
}

/* The header in a file of its own. */
static void test_detached(void)
{
    g_autofree char *path = make_image("whole");
    g_autofree char *header = g_build_filename(dir, "header", NULL);
    g_autofree char *payload = g_build_filename(dir, "payload", NULL);
    g_autofree char *data = NULL;
    char buf[512], back[512];
    BlockBackend *blk = open_image(path, &error_abort);
    json_t *o;
    gsize size;

    memset(buf, 7, sizeof(buf));
    g_assert_cmpint(blk_pwrite(blk, 1024, 512, buf, 0), ==, 0);
    blk_unref(blk);
    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    g_assert_true(g_file_set_contents(payload, data + 2068480,
                                      size - 2068480, NULL));
    memset(data + 104, 0, 4);       /* the payload's offset */
    g_assert_true(g_file_set_contents(header, data, 2068480, NULL));

    o = json_pack("{s:s, s:s, s:{s:s, s:s}, s:{s:s, s:s}}",
                  "driver", "luks", "key-secret", "s",
                  "file", "driver", "file", "filename", payload,
                  "header", "driver", "file", "filename", header);
    blk = blk_new_open(graph, NULL, NULL, o, BDRV_O_RDWR, &error_abort);
    g_assert_cmpint(blk_getlength(blk), ==, SIZE);
    g_assert_cmpint(blk_pread(blk, 1024, 512, back, 0), ==, 0);
    g_assert_cmpmem(back, 512, buf, 512);
    blk_unref(blk);
}

static void add_secret(const char *optarg)
{
    static const ObjectType *const types[] = { &secret_object_type, NULL };
    bool help;

    g_assert_true(user_creatable_add_from_str(types, optarg, &help,
                                              &error_abort));
}

static void remove_dir(void)
{
    GDir *d = g_dir_open(dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);

        g_unlink(path);
    }
    g_dir_close(d);
    g_rmdir(dir);
    g_free(dir);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("test-luks-XXXXXX", NULL);
    graph = block_graph_new();
    add_secret("secret,id=s,data=abc");
    add_secret("secret,id=t,data=another");
    g_test_add_func("/luks/create/size", test_created_size);
    g_test_add_func("/luks/create/bad-options-keep-file",
                    test_create_keeps_file);
    g_test_add_func("/luks/requests/against-model", test_model);
    g_test_add_func("/luks/requests/no-plain-text-in-file",
                    test_file_has_no_plain_text);
    g_test_add_func("/luks/requests/any-of-file-fails",
                    test_reads_and_writes_fail);
    g_test_add_func("/luks/open/file-ends-in-header",
                    test_getlength_of_short_file);
    g_test_add_func("/luks/amend/any-of-file-fails", test_amend);
    g_test_add_func("/luks/open/detached-header", test_detached);
    ret = g_test_run();
    block_graph_free(graph);
    remove_dir();
    return ret;
}
