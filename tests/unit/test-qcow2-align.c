/*
 * qcow2 on a file with blocks of 4 KiB: the disk need not end where a block
 * does, guests may have blocks of 512 bytes, and what is written beside what
 * another request writes, in the same block of the file, does not undo it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/snapshot.h"     /* bdrv_check() */
#include "test-driver.h"

#define BLOCK 4096
#define SIZE (1 * MiB + 512)

typedef struct Fixture {
    TestEnv e;
    TestDisk *d;
    BlockBackend *blk;
    uint8_t *model;
} Fixture;

/* ---- The image ---- */

/* An empty image, as bytes in the memory of a disk. */
static TestDisk *make_disk(BlockGraph *graph, const char *options)
{
    g_autofree char *dir = g_dir_make_tmp("qcow2-align-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "image", NULL);
    g_autofree char *data = NULL;
    json_t *o = qemu_opts_parse_legacy(options, NULL, false, NULL,
                                       &error_abort);
    TestDisk *d;
    gsize length;

    json_object_set_new(o, "size", json_sprintf("%" PRId64, (int64_t)SIZE));
    g_assert_true(bdrv_create(graph, "qcow2", path, o, &error_abort));
    g_assert_true(g_file_get_contents(path, &data, &length, NULL));
    d = test_disk_new("d", length);
    memcpy(d->data, data, length);
    d->growable = true;
    d->limits.request_alignment = BLOCK;
    g_unlink(path);
    g_rmdir(dir);
    return d;
}

static BlockBackend *open_disk(Fixture *f)
{
    return test_open(f->e.graph, "{'driver':'qcow2','file':"
                     "{'driver':'test-aio','disk':'d'}}");
}

static void set_up(Fixture *f, const char *options)
{
    test_env_init(&f->e);
    f->d = make_disk(f->e.graph, options);
    f->blk = open_disk(f);
    f->model = g_malloc0(SIZE);
}

static void check_contents(Fixture *f)
{
    g_autofree uint8_t *buf = g_malloc(SIZE);

    g_assert_cmpint(blk_pread(f->blk, 0, SIZE, buf, 0), ==, 0);
    for (int64_t i = 0; i < SIZE; i++) {
        if (buf[i] != f->model[i]) {
            g_error("%02x instead of %02x at %" PRId64, buf[i], f->model[i],
                    i);
        }
    }
}

static void tear_down(Fixture *f)
{
    BdrvCheckResult res = { 0 };

    check_contents(f);
    blk_unref(f->blk);
    f->blk = open_disk(f);
    check_contents(f);
    g_assert_cmpint(bdrv_check(blk_bs(f->blk), &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions + res.leaks + res.check_errors, ==, 0);
    blk_unref(f->blk);
    test_disk_free(f->d);
    test_env_destroy(&f->e);
    g_free(f->model);
}

static void do_write(Fixture *f, int64_t offset, int64_t bytes, uint8_t byte,
                     int flags)
{
    memset(f->model + offset, byte, bytes);
    g_assert_cmpint(blk_pwrite(f->blk, offset, bytes, f->model + offset,
                               flags), ==, 0);
}

/* ---- What is not aligned ---- */

/* A disk that ends in the middle of a block can be written, up to its end and
 * not beyond. */
static void test_odd_end(void)
{
    Fixture f;

    set_up(&f, "cluster_size=64k");
    g_assert_cmpint(blk_getlength(f.blk), ==, SIZE);
    g_assert_cmpint(blk_get_request_alignment(f.blk), ==, 1);
    do_write(&f, SIZE - 512, 512, 1, 0);
    do_write(&f, SIZE - 5000, 600, 2, 0);
    do_write(&f, 0, 64 * KiB, 3, BDRV_REQ_WRITE_COMPRESSED);
    memset(f.model + SIZE - 5000, 0, 512);
    g_assert_cmpint(blk_pwrite_zeroes(f.blk, SIZE - 5000, 512, 0), ==, 0);
    g_assert_cmpint(blk_getlength(f.blk), ==, SIZE);

    g_assert_true(blk_truncate(f.blk, SIZE - 1024, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_true(blk_truncate(f.blk, SIZE, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    memset(f.model + SIZE - 1024, 0, 1024);
    tear_down(&f);
}

/* Memory in so many pieces that the file takes them in several goes: what is
 * aligned is not cut inside of a block. */
static void test_fragments(void)
{
    Fixture f;
    QEMUIOVector qiov;

    set_up(&f, "cluster_size=64k");
    do_write(&f, 0, 64 * KiB, 1, 0);
    blk_unref(f.blk);
    f.d->limits.max_iov = 5;
    f.blk = open_disk(&f);
    memset(f.model, 2, 16 * KiB);
    qemu_iovec_init(&qiov, 16);
    for (int i = 0; i < 16; i++) {
        qemu_iovec_add(&qiov, f.model + i * KiB, 1 * KiB);
    }
    test_disk_clear_log(f.d);
    g_assert_cmpint(blk_pwritev(f.blk, 0, qiov.size, &qiov, 0, 0), ==, 0);
    g_assert_cmpint(test_disk_count(f.d, TEST_WRITE), ==, 4);
    g_assert_cmpint(test_disk_count(f.d, TEST_READ), <=, 1);
    qemu_iovec_destroy(&qiov);
    tear_down(&f);
}

/* ---- Which way requests go ---- */

static bool needs_worker(Fixture *f, BdrvRequestType type, int64_t offset,
                         int64_t bytes)
{
    BlkPathStats before, after;

    blk_get_path_stats(f->blk, &before);
    g_assert_cmpint(test_request_run(f->e.ctx, f->blk, type, offset, bytes,
                                     f->model + offset, 0), ==, 0);
    blk_get_path_stats(f->blk, &after);
    return after.worker != before.worker;
}

/* Writers that are aligned need no worker, unless there is one who is not. */
static void test_fast_path(void)
{
    Fixture f;
    BlockBackend *other;

    set_up(&f, "cluster_size=64k");
    do_write(&f, 0, 64 * KiB, 1, 0);
    g_assert_true(needs_worker(&f, BDRV_REQ_WRITE, BLOCK, BLOCK));
    g_assert_false(needs_worker(&f, BDRV_REQ_READ, BLOCK, BLOCK));
    blk_set_user_block_size(f.blk, 512);
    g_assert_true(needs_worker(&f, BDRV_REQ_WRITE, BLOCK, BLOCK));
    blk_set_user_block_size(f.blk, BLOCK);
    g_assert_false(needs_worker(&f, BDRV_REQ_WRITE, BLOCK, BLOCK));
    g_assert_false(needs_worker(&f, BDRV_REQ_READ, BLOCK, BLOCK));

    other = blk_new(f.e.graph, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    blk_insert_bs(other, blk_bs(f.blk), &error_abort);
    g_assert_true(needs_worker(&f, BDRV_REQ_WRITE, BLOCK, BLOCK));
    blk_unref(other);
    g_assert_false(needs_worker(&f, BDRV_REQ_WRITE, BLOCK, BLOCK));
    tear_down(&f);
}

/* The user is that of a filter, which passes on what it gets. */
static void test_below_filter(void)
{
    Fixture f;

    set_up(&f, "cluster_size=64k");
    do_write(&f, 0, 64 * KiB, 1, 0);
    blk_unref(f.blk);
    f.blk = test_open(f.e.graph, "{'driver':'test-filter','file':"
                      "{'driver':'qcow2','file':"
                      "{'driver':'test-aio','disk':'d'}}}");
    g_assert_cmpint(blk_get_request_alignment(f.blk), ==, 1);
    needs_worker(&f, BDRV_REQ_READ, 0, BLOCK);      /* fills the cache */
    g_assert_true(needs_worker(&f, BDRV_REQ_WRITE, BLOCK, BLOCK));
    blk_set_user_block_size(f.blk, BLOCK);
    g_assert_false(needs_worker(&f, BDRV_REQ_WRITE, BLOCK, BLOCK));
    blk_set_user_block_size(f.blk, 512);
    g_assert_true(needs_worker(&f, BDRV_REQ_WRITE, BLOCK, BLOCK));
    tear_down(&f);
}

/* Parts of subclusters are written unaligned, whatever the users do, if these
 * are smaller than the file's blocks. */
static void test_small_subclusters(void)
{
    Fixture f;

    set_up(&f, "cluster_size=16k,extended_l2=on");
    do_write(&f, 0, 64 * KiB, 1, 0);
    blk_set_user_block_size(f.blk, BLOCK);
    g_assert_false(needs_worker(&f, BDRV_REQ_READ, BLOCK, BLOCK));
    g_assert_true(needs_worker(&f, BDRV_REQ_WRITE, BLOCK, BLOCK));
    tear_down(&f);
}

/* ---- Neighbours ---- */

typedef struct PartWrite {
    Fixture *f;
    int64_t offset;
    uint8_t data[512];
} PartWrite;

static void part_write(void *opaque)
{
    PartWrite *w = opaque;

    g_assert_cmpint(blk_pwrite(w->f->blk, w->offset, 512, w->data, 0), ==, 0);
}

/*
 * A block has been read, to be written again with 512 new bytes.  Meanwhile
 * somebody writes all of it, and it is done: only those bytes may be other
 * ones.
 */
static void whole_beside_part(Fixture *f, BlockBackend *whole)
{
    g_autofree uint8_t *buf = g_malloc(BLOCK);
    PartWrite w = { .f = f, .offset = BLOCK + 1024 };
    TestThread *t;
    TestRequest r;

    memset(buf, 7, BLOCK);
    memset(w.data, 8, 512);
    test_disk_hold(f->d, 1u << TEST_WRITE);
    t = test_thread_start(part_write, &w);
    test_disk_wait_held(f->d, 1);
    test_request_init(&r, f->e.ctx, whole, BDRV_REQ_WRITE, BLOCK, BLOCK, buf);
    test_request_submit(&r);
    test_disk_hold(f->d, 0);
    test_thread_join(t);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    test_request_destroy(&r);

    memset(f->model + BLOCK, 7, BLOCK);
    g_assert_cmpint(blk_pread(f->blk, w.offset, 512, f->model + w.offset, 0),
                    ==, 0);
    g_assert_true(f->model[w.offset] == 7 || f->model[w.offset] == 8);
}

static void test_whole_beside_part(void)
{
    Fixture f;
    BlockBackend *other;

    set_up(&f, "cluster_size=64k");
    do_write(&f, 0, 64 * KiB, 1, 0);
    blk_set_user_block_size(f.blk, 512);
    whole_beside_part(&f, f.blk);

    /* Of two users, one is always aligned. */
    other = blk_new(f.e.graph, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                    BLK_PERM_ALL);
    blk_insert_bs(other, blk_bs(f.blk), &error_abort);
    blk_set_user_block_size(other, BLOCK);
    whole_beside_part(&f, other);
    blk_unref(other);
    tear_down(&f);
}

typedef struct Writer {
    Fixture *f;
    int number;
} Writer;

#define WRITERS 4

static void write_or_zero(Writer *w, GRand *rnd, int64_t offset, int64_t bytes,
                          int i)
{
    Fixture *f = w->f;
    int ret;

    if (g_rand_int_range(rnd, 0, 6) == 0) {
        memset(f->model + offset, 0, bytes);
        ret = blk_pwrite_zeroes(f->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    } else if (i % 2) {
        memset(f->model + offset, i, bytes);
        ret = blk_pwrite(f->blk, offset, bytes, f->model + offset, 0);
    } else {
        memset(f->model + offset, i, bytes);
        ret = test_request_run(f->e.ctx, f->blk, BDRV_REQ_WRITE, offset, bytes,
                               f->model + offset, 0);
    }
    g_assert_cmpint(ret, ==, 0);
}

/* Sectors are dealt out in turn: a block is every writer's. */
static void write_sectors(void *opaque)
{
    Writer *w = opaque;
    g_autoptr(GRand) rnd = g_rand_new_with_seed(w->number);
    int sectors = SIZE / 512 / WRITERS;

    for (int i = 1; i < 400; i++) {
        int64_t n = g_rand_int_range(rnd, 0, i % 2 ? sectors : 64);
        int64_t offset = (n * WRITERS + w->number) * 512;
        uint8_t buf[512];

        write_or_zero(w, rnd, offset, 512, i);
        g_assert_cmpint(blk_pread(w->f->blk, offset, 512, buf, 0), ==, 0);
        g_assert_true(!memcmp(buf, w->f->model + offset, 512));
    }
}

static void test_neighbours(const void *options)
{
    Writer writers[WRITERS];
    TestThread *t[WRITERS];
    Fixture f;

    set_up(&f, options);
    blk_set_user_block_size(f.blk, 512);
    f.d->latency_ns = 50000;
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (Writer){ &f, i };
        t[i] = test_thread_start(write_sectors, &writers[i]);
    }
    for (int i = 0; i < WRITERS; i++) {
        test_thread_join(t[i]);
    }
    f.d->latency_ns = 0;
    tear_down(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/qcow2/align/" name, fn)
    T("disk-ends-inside-a-block", test_odd_end);
    T("not-cut-inside-a-block", test_fragments);
    T("aligned-writers-are-fast", test_fast_path);
    T("aligned-writers-above-a-filter", test_below_filter);
    T("small-subclusters-need-workers", test_small_subclusters);
    T("block-written-beside-a-part-of-it", test_whole_beside_part);
#define N(name, options) \
    g_test_add_data_func("/qcow2/align/neighbours/" name, options, \
                         test_neighbours)
    N("64k", "cluster_size=64k");
    N("4k", "cluster_size=4k");
    N("512", "cluster_size=512");
    N("subclusters-of-512", "cluster_size=16k,extended_l2=on");
    return g_test_run();
}
