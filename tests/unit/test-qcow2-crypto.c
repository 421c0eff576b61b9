/*
 * Encrypted qcow2 images on real files and the real core.  That others read
 * them is tests/interop/qcow2-crypt-images's affair.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/blkdebug.h"
#include "block/block-backend.h"
#include "block/qcow2.h"
#include "crypto/secret.h"
#include "qemu/thread.h"

#define SIZE (3 * MiB + 512)

static char *dir;
static BlockGraph *graph;

static bool create(const char *path, const char *options, Error **errp)
{
    g_autofree char *text = g_strdup_printf("{'size': '%" PRId64 "'%s}",
                                            (int64_t)SIZE, options);

    return bdrv_create(graph, "qcow2", path,
                       options_from_json(text, &error_abort), errp);
}

#define LUKS ", 'encrypt.format': 'luks', 'encrypt.key-secret': 's'," \
             "'encrypt.iter-time': '0'"
#define AES ", 'encrypt.format': 'aes', 'encrypt.key-secret': 's'"

static char *make_image(const char *options)
{
    char *path = g_build_filename(dir, "image", NULL);

    g_assert_true(create(path, options, &error_abort));
    return path;
}

/* qcow2 on blkdebug on file; @secret may be NULL. */
static BlockBackend *open_with(const char *path, const char *secret, int flags,
                               Error **errp)
{
    json_t *o = json_pack("{s:s, s:{s:s, s:{s:s, s:s}}}", "driver", "qcow2",
                          "file", "driver", "blkdebug",
                          "image", "driver", "file", "filename", path);

    if (secret) {
        json_object_set_new(o, "encrypt", json_pack("{s:s}", "key-secret",
                                                    secret));
    }
    return blk_new_open(graph, NULL, NULL, o, flags, errp);
}

static BlockBackend *open_image(const char *path)
{
    return open_with(path, "s", BDRV_O_RDWR, &error_abort);
}

/* Options that are wrong leave a file alone that is there. */
static void test_create_keeps_file(void)
{
    static const char *const wrong[] = {
        LUKS ", 'encrypt.cipher-alg': 'foo'",
        ", 'encrypt.format': 'luks', 'encrypt.key-secret': 'nobody'",
        ", 'encrypt.format': 'aes', 'encrypt.key-secret': 'nobody'",
        ", 'encrypt.format': 'luks'",
        AES ", 'encrypt.iter-time': '1'",
    };
    g_autofree char *path = g_build_filename(dir, "keep", NULL);

    g_assert_true(g_file_set_contents(path, "precious", -1, NULL));
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_autofree char *text = NULL;
        g_autoptr(Error) err = NULL;

        g_assert_false(create(path, wrong[i], &err));
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        g_assert_cmpstr(text, ==, "precious");
    }
}

/* ---- Data ---- */

/* Of what the guest wrote, and of what was copied round it, nothing. */
static void test_no_plain_text(gconstpointer options)
{
    g_autofree char *path = make_image(options);
    BlockBackend *blk = open_image(path);
    g_autofree char *data = g_malloc(MiB), *file = NULL;
    BlockDriverInfo info;
    gsize size;

    g_assert_cmpint(bdrv_get_info(blk_bs(blk), &info), ==, 0);
    g_assert_true(info.is_encrypted);
    memset(data, 'x', MiB);
    g_assert_cmpint(blk_pwrite(blk, 1000, MiB, data, 0), ==, 0);
    g_assert_cmpmem(data, 1, "x", 1);       /* nor in the guest's memory */
    g_assert_cmpint(blk_pread(blk, 1000, MiB, data, 0), ==, 0);
    for (int i = 0; i < MiB; i++) {
        g_assert_cmpint(data[i], ==, 'x');
    }
    g_assert_cmpint(blk_pread(blk, 0, 1000, data, 0), ==, 0);
    g_assert_true(!data[0] && !memcmp(data, data + 1, 999));
    blk_unref(blk);
    g_assert_true(g_file_get_contents(path, &file, &size, NULL));
    g_assert_null(memmem(file, size, "xxxxxxxx", 8));
}

typedef struct Range {
    BlockBackend *blk;
    uint8_t *model;
    int64_t start, end;
    GRand *rand;
} Range;

static void one_request(const Range *r)
{
    int64_t offset = g_rand_int_range(r->rand, r->start, r->end);
    int64_t max = g_rand_boolean(r->rand) ? 5000 : r->end - r->start;
    int64_t n = g_rand_int_range(r->rand, 1, MIN(max, r->end - offset) + 1);
    g_autofree uint8_t *buf = g_malloc(n);

    switch (g_rand_int_range(r->rand, 0, 5)) {
    case 0:
        memset(r->model + offset, 0, n);
        g_assert_cmpint(blk_pwrite_zeroes(r->blk, offset, n, 0), ==, 0);
        break;
    case 1:
    case 2:
        memset(buf, g_rand_int(r->rand), n);
        memcpy(r->model + offset, buf, n);
        g_assert_cmpint(blk_pwrite(r->blk, offset, n, buf, 0), ==, 0);
        break;
    default:
        g_assert_cmpint(blk_pread(r->blk, offset, n, buf, 0), ==, 0);
        g_assert_cmpmem(buf, n, r->model + offset, n);
    }
}

static void *many_requests(void *opaque)
{
    for (int i = 0; i < 100; i++) {
        one_request(opaque);
    }
    return NULL;
}

/* Threads whose ranges touch inside of a sector, in a cluster. */
static void test_model(gconstpointer options)
{
    g_autofree char *path = make_image(options);
    BlockBackend *blk = open_image(path);
    g_autofree uint8_t *model = g_malloc0(SIZE), *back = g_malloc(SIZE);
    QemuThread threads[3];
    Range ranges[3];

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
    blk = open_image(path);
    g_assert_cmpint(blk_pread(blk, 0, SIZE, back, 0), ==, 0);
    g_assert_cmpmem(back, SIZE, model, SIZE);
    blk_unref(blk);
}

/* ---- Opening ---- */

static void test_without_key(gconstpointer options)
{
    g_autofree char *path = make_image(options);
    g_autoptr(Error) err = NULL;
    char buf[512] = { 0 };
    QEMUIOVector qiov;
    BlockBackend *blk = open_image(path);

    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);
    blk_unref(blk);
    g_assert_null(open_with(path, NULL, BDRV_O_RDWR, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Parameter "
                    "'encrypt.key-secret' is required for cipher");
    blk = open_with(path, NULL, BDRV_O_NO_IO, &error_abort);
    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    g_assert_cmpint(qcow2_preadv(blk_bs(blk), 0, sizeof(buf), &qiov, 0, 0),
                    ==, -EACCES);
    blk_unref(blk);
}

static void test_unknown_option(void)
{
    g_autofree char *path = make_image(LUKS);
    g_autoptr(Error) err = NULL;
    json_t *o = json_pack("{s:s, s:{s:s, s:s}, s:{s:s, s:s}}",
                          "driver", "qcow2",
                          "encrypt", "key-secret", "s", "foo", "1",
                          "file", "driver", "file", "filename", path);

    g_assert_null(blk_new_open(graph, NULL, NULL, o, 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Parameter 'foo' is unexpected");
}

/* ---- Key slots ---- */

static bool amend(BlockBackend *blk, const char *options, Error **errp)
{
    g_autoptr(json_t) o = options_from_json(options, &error_abort);

    return qcow2_amend_crypto(blk_bs(blk), o, false, errp);
}

#define ADD_T "{'encrypt.state': 'active', 'encrypt.new-secret': 't'," \
              "'encrypt.iter-time': '0'}"

/* A password more; the file fails at any point of adding it. */
static void test_amend(void)
{
    g_autofree char *path = make_image(LUKS);
    BlockBackend *blk = open_image(path);
    BlockDriverState *file = blk_bs(blk)->file->bs;
    bool ok = false;
    int n;

    for (n = 1; !ok; n++) {
        g_autoptr(Error) err = NULL;

        g_assert_cmpint(blkdebug_arm(file, n, EIO), ==, 0);
        ok = amend(blk, ADD_T, &err);
        g_assert_cmpint(ok, ==, !blkdebug_fired(file));
        g_assert_true(ok || strstr(error_get_pretty(err),
                                   "Input/output error"));
    }
    g_assert_cmpint(n, >, 4);   /* read one slot, write one and the header */
    g_assert_cmpint(blkdebug_arm(file, 0, 0), ==, 0);
    blk_unref(blk);
    blk = open_with(path, "t", BDRV_O_RDWR, &error_abort);
    g_assert_true(amend(blk, "{'encrypt.state': 'inactive',"
                        "'encrypt.old-secret': 's'}", &error_abort));
    blk_unref(blk);
    g_assert_null(open_with(path, "s", BDRV_O_RDWR, NULL));
}

static void check_refused(const char *image, const char *secret,
                          const char *options, const char *message)
{
    g_autofree char *path = make_image(image);
    BlockBackend *blk = open_with(path, secret, BDRV_O_RDWR, &error_abort);
    g_autoptr(Error) err = NULL;

    g_assert_true(amend(blk, "{'size': '1G'}", &error_abort));
    g_assert_false(amend(blk, options, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    blk_unref(blk);
}

static void test_amend_refused(void)
{
    check_refused("", NULL, ADD_T, "Can't amend encryption options - "
                  "encryption not present");
    check_refused(AES, "s", ADD_T, "Only LUKS encryption options can be "
                  "amended");
    check_refused(LUKS, "s", "{'encrypt.keyslot': '1'}",
                  "Parameter 'state' is missing");
}

/* An image whose LUKS header is where its L2 table is, too. */
static void test_amend_over_metadata(void)
{
    g_autofree char *path = make_image(LUKS ", 'compat': '0.10',"
                                       "'preallocation': 'metadata'");
    BlockBackend *blk = open_image(path);
    BDRVQcow2State *s = blk_bs(blk)->opaque;
    g_autoptr(Error) err = NULL;

    driver_lock(&s->lock);
    g_assert_cmpint(qcow2_metadata_add(s, s->crypto_header_offset,
                                       s->crypto_header_length,
                                       QCOW2_OL_ACTIVE_L2), ==, 0);
    driver_unlock(&s->lock);
    g_assert_false(amend(blk, ADD_T, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "Input/output error"));
    blk_unref(blk);
    blk = open_image(path);         /* as it was */
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
    static const struct {
        const char *name, *options;
    } kinds[] = {
        { "luks", LUKS },
        { "luks-small-clusters", LUKS ", 'cluster_size': '512'" },
        { "luks-subclusters", LUKS ", 'extended_l2': 'on'" },
        { "aes", AES },
    };
    int ret;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("test-qcow2-crypto-XXXXXX", NULL);
    graph = block_graph_new();
    add_secret("secret,id=s,data=abc");
    add_secret("secret,id=t,data=another");
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        g_autofree char *plain = g_strdup_printf(
            "/qcow2-crypto/%s/no-plain-text", kinds[i].name);
        g_autofree char *model = g_strdup_printf(
            "/qcow2-crypto/%s/against-model", kinds[i].name);
        g_autofree char *no_key = g_strdup_printf(
            "/qcow2-crypto/%s/without-key", kinds[i].name);

        g_test_add_data_func(plain, kinds[i].options, test_no_plain_text);
        g_test_add_data_func(model, kinds[i].options, test_model);
        g_test_add_data_func(no_key, kinds[i].options, test_without_key);
    }
    g_test_add_func("/qcow2-crypto/create/bad-options-keep-file",
                    test_create_keeps_file);
    g_test_add_func("/qcow2-crypto/open/unknown-option", test_unknown_option);
    g_test_add_func("/qcow2-crypto/amend/any-of-file-fails", test_amend);
    g_test_add_func("/qcow2-crypto/amend/refused", test_amend_refused);
    g_test_add_func("/qcow2-crypto/amend/over-metadata",
                    test_amend_over_metadata);
    ret = g_test_run();
    block_graph_free(graph);
    remove_dir();
    return ret;
}
