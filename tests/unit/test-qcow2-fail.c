/*
 * qcow2 when its file fails: for every operation, the Nth request for every N.
 * The image stays whole, nothing that was there before is lost, what was said
 * to be done is done, and after the error everything works.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-image.h"
#include "block/snapshot.h"

typedef struct Op {
    const char *name;
    int (*fn)(Qcow2Image *img, int64_t offset, int64_t bytes);
    int64_t offset, bytes;          /* clusters, but for a 16th */
} Op;

static int op_write(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    return qcow2_image_write(img, offset, bytes, 77, 0);
}

static int op_compressed(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    return qcow2_image_write(img, offset, bytes, 78,
                             BDRV_REQ_WRITE_COMPRESSED);
}

static int op_zero(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    return qcow2_image_zero(img, offset, bytes, 0);
}

/* Whether it has a place or not, it can be written. */
static int op_place(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    BlockDriverState *bs = qcow2_image_bs(img);

    (void)bs->drv->place(bs, offset, bytes);
    return op_write(img, offset, bytes);
}

/* Beside the disk, where another L1 table is needed. */
static int op_vmstate(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    QEMUIOVector qiov;

    memset(buf, 79, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    return bdrv_save_vmstate(blk_bs(img->blk), offset, &qiov);
}

static int op_unmap(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    return qcow2_image_zero(img, offset, bytes, BDRV_REQ_MAY_UNMAP);
}

static int op_discard(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    return qcow2_image_discard(img, offset, bytes);
}

/*
 * Clusters 0 to 7 are data, 8 to 11 compressed, 12 zero, the rest is not
 * allocated.  A snapshot, if the test has one, shares them all; then 4 to 5 are
 * written once more.  Offsets are in units of a 16th of a cluster.
 */
static const Op ops[] = {
    { "write-in-place", op_write, 4 * 16, 32 },
    { "write-part", op_write, 2 * 16 + 3, 5 },
    { "write-compressed-target", op_write, 9 * 16 + 8, 4 },
    { "write-over-edges", op_write, 6 * 16 + 8, 80 },
    { "write-new", op_write, 20 * 16 + 1, 1 },
    { "write-many-new", op_write, 20 * 16 + 1, 40 * 16 },
    { "compress", op_compressed, 32 * 16, 5 * 16 },
    { "compress-over", op_compressed, 7 * 16, 3 * 16 },
    { "zero", op_zero, 16, 3 * 16 },
    { "zero-part", op_zero, 24, 4 },
    { "place", op_place, 24 * 16, 10 * 16 },
    { "unmap", op_unmap, 5 * 16, 6 * 16 },
    { "discard", op_discard, 16, 10 * 16 },
    { "vmstate", op_vmstate, 8 * 16 + 3, 40 * 16 },
};

typedef struct Case {
    const char *options;
    const char *open;
    bool backing, snapshot;
} Case;

static const Case cases[] = {
    { "cluster_size=4096" },
    { "cluster_size=4096", NULL, true, true },
    { "cluster_size=512", "{'l2-cache-size':512,'refcount-cache-size':512,"
      "'l2-cache-entry-size':512}", false, true },
    { "cluster_size=16384,extended_l2=on", NULL, true, true },
    { "cluster_size=4096,lazy_refcounts=on" },
    { "cluster_size=4096,refcount_bits=1" },
};

static Qcow2Image *make_template(const Case *c)
{
    Qcow2Image *img = qcow2_image_new(c->options, 1 * MiB, c->backing);
    int64_t cs = img->cluster_size;

    qcow2_image_open(img, NULL);
    qcow2_image_write(img, 0, 8 * cs, 1, 0);
    qcow2_image_write(img, 8 * cs, 4 * cs, 2, BDRV_REQ_WRITE_COMPRESSED);
    qcow2_image_zero(img, 12 * cs, cs, 0);
    qcow2_image_close(img);
    if (c->snapshot) {
        qcow2_image_snapshot(img);
        qcow2_image_open(img, NULL);
        qcow2_image_write(img, 4 * cs, 2 * cs, 3, 0);
        qcow2_image_close(img);
    }
    return img;
}

/* Every byte of the operation's range is the old or the new one; if it
 * succeeded, the new; all others are as they were. */
static void check_contents(Qcow2Image *img, const uint8_t *old, int64_t from,
                           int64_t to)
{
    g_autofree uint8_t *got = g_malloc(img->size);

    /* Our own reading: others' takes a process each time. */
    qcow2_image_open(img, NULL);
    g_assert_cmpint(blk_pread(img->blk, 0, img->size, got, 0), ==, 0);
    qcow2_image_close(img);
    for (int64_t i = 0; i < img->size; i++) {
        if (got[i] != img->model[i] &&
            (i < from || i >= to || got[i] != old[i])) {
            g_error("differs at %#" PRIx64 ": %#x, not %#x or %#x",
                    (uint64_t)i, got[i], img->model[i], old[i]);
        }
    }
}

/* What the model would be after success. */
static void model_success(Qcow2Image *img, const Op *op, int64_t offset,
                          int64_t bytes)
{
    if (op->fn == op_vmstate) {
        return;                     /* the disk is as it was */
    }
    if (op->fn == op_write || op->fn == op_place ||
        op->fn == op_compressed) {
        unsigned seed = op->fn == op_compressed ? 78 : 77;

        for (int64_t i = 0; i < bytes; i++) {
            img->model[offset + i] = qcow2_image_pattern(offset + i, seed);
        }
    } else {
        memset(img->model + offset, 0, bytes);
    }
}

/* False: the operation ended before its @n-th request. */
static bool fail_one(Qcow2Image *img, const Case *c, const Op *op, int n)
{
    g_autofree uint8_t *old = g_memdup2(img->model, img->size);
    int64_t offset = op->offset * img->cluster_size / 16;
    int64_t bytes = op->bytes * img->cluster_size / 16;
    bool fired;
    int ret, flush, status;

    qcow2_image_open(img, c->open);
    g_assert_cmpint(blkdebug_arm(qcow2_image_bs(img), n, EIO), ==, 0);
    ret = op->fn(img, offset, bytes);
    flush = blk_flush(img->blk);
    fired = blkdebug_fired(qcow2_image_bs(img));
    blkdebug_arm(qcow2_image_bs(img), 0, 0);
    if (!fired) {
        g_assert_cmpint(ret, ==, 0);
        g_assert_cmpint(flush, ==, 0);
    }
    /* It goes on working. */
    g_assert_cmpint(qcow2_image_write(img, 63 * img->cluster_size, 1, 5, 0),
                    ==, 0);
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
    qcow2_image_close(img);
    status = qcow2_image_check(img);
    g_assert_true(status == 0 || (status == 3 && fired));
    if (ret < 0) {
        model_success(img, op, offset, bytes);
        check_contents(img, old, offset, offset + bytes);
    } else {
        check_contents(img, img->model, 0, 0);
    }
    memcpy(img->model, old, img->size);
    return fired;
}

static void test_fail(const void *opaque)
{
    const Case *c = opaque;
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree char *template = NULL;
    gsize length;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = make_template(c);
    img->has_errors = true;
    g_assert_true(g_file_get_contents(img->path, &template, &length, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(ops); i++) {
        for (int n = 1; ; n++) {
            bool fired;

            g_test_message("%s, request %d", ops[i].name, n);
            g_assert_true(g_file_set_contents(img->path, template, length,
                                              NULL));
            fired = fail_one(img, c, &ops[i], n);
            if (!fired) {
                g_assert_cmpint(n, >, 1);
                break;
            }
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *name = g_strdup_printf("/qcow2-fail/%zu:%s%s%s", i,
            cases[i].options, cases[i].backing ? ",backing" : "",
            cases[i].snapshot ? ",snapshot" : "");

        g_test_add_data_func(name, &cases[i], test_fail);
    }
    return g_test_run();
}
