/*
 * qcow2 under threads: parallel writers of the same clusters, and the races in
 * which others have lost data, acted out step by step.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-image.h"
#include "qemu/atomic.h"
#include "block/snapshot.h"
#include "test-driver.h"

#define CLUSTER (64 * KiB)
#define N_THREADS 4

/* ---- Parallel requests ---- */

typedef struct Worker {
    Qcow2Image *img;
    int number;
    guint32 seed;
    int64_t block;                  /* unit that belongs to one thread */
    bool clusters;                  /* whole clusters: may be discarded */
    int n;
} Worker;

/* Blocks are dealt out in turn, so threads meet in clusters. */
static void worker_request(Worker *w, GRand *rnd, int i)
{
    int64_t blocks = w->img->size / w->block / N_THREADS;
    int64_t offset = (g_rand_int_range(rnd, 0, blocks) * N_THREADS +
                      w->number) * w->block;
    int64_t from = g_rand_int_range(rnd, 0, w->block);
    int64_t bytes = g_rand_int_range(rnd, 1, w->block - from + 1);

    switch (g_rand_int_range(rnd, 0, w->clusters ? 8 : 5)) {
    case 0:
        qcow2_image_verify(w->img, offset, w->block);
        break;
    case 1:
        if (i % 8 == 0) {
            g_assert_cmpint(blk_flush(w->img->blk), ==, 0);
        }
        break;
    case 5:
        qcow2_image_zero(w->img, offset, w->block, BDRV_REQ_MAY_UNMAP);
        break;
    case 6:
        qcow2_image_discard(w->img, offset, w->block);
        break;
    case 7:
        qcow2_image_write(w->img, offset, w->block, i,
                          BDRV_REQ_WRITE_COMPRESSED);
        break;
    default:
        qcow2_image_write(w->img, offset + from, bytes, i, 0);
        break;
    }
}

static void worker_run(void *opaque)
{
    Worker *w = opaque;
    GRand *rnd = g_rand_new_with_seed(w->seed);

    for (int i = 0; i < w->n; i++) {
        worker_request(w, rnd, i);
    }
    g_rand_free(rnd);
}

typedef struct Parallel {
    const char *options;
    int64_t size;
    const char *open;
    int64_t block;                  /* 0: a cluster */
    bool backing;
} Parallel;

static void test_parallel(const void *opaque)
{
    const Parallel *p = opaque;
    g_autoptr(Qcow2Image) img = NULL;
    TestThread *threads[N_THREADS];
    Worker workers[N_THREADS];

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new(p->options, p->size, p->backing);
    for (int round = 0; round < (g_test_slow() ? 40 : 4); round++) {
        qcow2_image_open(img, p->open);
        for (int i = 0; i < N_THREADS; i++) {
            workers[i] = (Worker){
                .img = img, .number = i, .seed = g_test_rand_int(),
                .block = p->block ?: img->cluster_size,
                .clusters = !p->block, .n = 100,
            };
            threads[i] = test_thread_start(worker_run, &workers[i]);
        }
        for (int i = 0; i < N_THREADS; i++) {
            test_thread_join(threads[i]);
        }
        qcow2_image_verify(img, 0, img->size);
        qcow2_image_close(img);
        qcow2_image_assert_good(img);
        if (round == 1 && p->size == 2 * MiB) {
            qcow2_image_snapshot(img);
        }
    }
}

/* One L2 slice and one refcount block: every step loads a table. */
#define ONE_TABLE "{'l2-cache-size':512,'refcount-cache-size':512," \
                  "'l2-cache-entry-size':512}"

static const Parallel parallels[] = {
    { "cluster_size=65536", 8 * MiB, NULL, 4096 },
    { "cluster_size=65536", 8 * MiB, NULL, 4096, true },
    { "cluster_size=65536", 8 * MiB },
    { "cluster_size=4096", 4 * MiB, NULL, 512 },
    { "cluster_size=4096", 2 * MiB, NULL, 0, true },
    { "cluster_size=512", 1 * MiB, ONE_TABLE, 256 },
    { "cluster_size=512", 1 * MiB, ONE_TABLE },
    { "cluster_size=512,refcount_bits=64", 2 * MiB, ONE_TABLE },
    { "cluster_size=65536,extended_l2=on", 8 * MiB, NULL, 1024, true },
    { "cluster_size=16384,extended_l2=on,lazy_refcounts=on", 4 * MiB },
};

/* ---- Parallel requests, some of which fail ---- */

/* What a request that failed has left is one of two things: write it again,
 * until that goes well. */
static void settle_block(Worker *w, int64_t offset, int ret, int i)
{
    for (int tries = 0; ret < 0; tries++) {
        g_assert_cmpint(tries, <, 1000);
        ret = qcow2_image_write(w->img, offset, w->block, i, 0);
    }
}

static void failing_request(Worker *w, GRand *rnd, int i)
{
    int64_t blocks = w->img->size / w->block / N_THREADS;
    int64_t offset = (g_rand_int_range(rnd, 0, blocks) * N_THREADS +
                      w->number) * w->block;
    int64_t from = g_rand_int_range(rnd, 0, w->block);
    int64_t bytes = g_rand_int_range(rnd, 1, w->block - from + 1);
    int ret = 0;

    switch (g_rand_int_range(rnd, 0, w->clusters ? 8 : 5)) {
    case 0:
        /* May fail; who is served gets what is there: seen at the end. */
        blk_flush(w->img->blk);
        break;
    case 5:
        ret = qcow2_image_zero(w->img, offset, w->block, BDRV_REQ_MAY_UNMAP);
        break;
    case 6:
        ret = qcow2_image_discard(w->img, offset, w->block);
        break;
    case 7:
        ret = qcow2_image_write(w->img, offset, w->block, i,
                                BDRV_REQ_WRITE_COMPRESSED);
        break;
    default:
        ret = qcow2_image_write(w->img, offset + from, bytes, i, 0);
        break;
    }
    settle_block(w, offset, ret, i);
}

static void failing_run(void *opaque)
{
    Worker *w = opaque;
    GRand *rnd = g_rand_new_with_seed(w->seed);

    for (int i = 0; i < w->n; i++) {
        failing_request(w, rnd, i);
    }
    g_rand_free(rnd);
}

typedef struct Saboteur {
    Qcow2Image *img;
    guint32 seed;
    bool stop;                      /* atomic */
    int fired;
} Saboteur;

static void sabotage(void *opaque)
{
    static const int errors[] = { EIO, ENOSPC };
    Saboteur *sab = opaque;
    BlockDriverState *bs = qcow2_image_bs(sab->img);
    GRand *rnd = g_rand_new_with_seed(sab->seed);

    while (!qatomic_read(&sab->stop)) {
        blkdebug_arm(bs, g_rand_int_range(rnd, 1, 30),
                     errors[g_rand_int_range(rnd, 0, 2)]);
        for (int i = 0; i < 20 && !blkdebug_fired(bs); i++) {
            g_usleep(50);
        }
        sab->fired += blkdebug_fired(bs);
    }
    blkdebug_arm(bs, 0, 0);
    g_rand_free(rnd);
}

/* One round of it; how many requests to the file have failed. */
static int failing_round(Qcow2Image *img, const Parallel *p)
{
    Saboteur sab = { .img = img, .seed = g_test_rand_int() };
    TestThread *threads[N_THREADS], *saboteur;
    Worker workers[N_THREADS];

    qcow2_image_open(img, p->open);
    saboteur = test_thread_start(sabotage, &sab);
    for (int i = 0; i < N_THREADS; i++) {
        workers[i] = (Worker){
            .img = img, .number = i, .seed = g_test_rand_int(),
            .block = p->block ?: img->cluster_size,
            .clusters = !p->block, .n = 100,
        };
        threads[i] = test_thread_start(failing_run, &workers[i]);
    }
    for (int i = 0; i < N_THREADS; i++) {
        test_thread_join(threads[i]);
    }
    qatomic_set(&sab.stop, true);
    test_thread_join(saboteur);
    qcow2_image_verify(img, 0, img->size);
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
    qcow2_image_close(img);
    return sab.fired;
}

/* Nobody's failure is another's: what went well is there, and no cluster is
 * lost to two, whoever allocated, freed or wrote tables beside it. */
static void test_failing(const void *opaque)
{
    const Parallel *p = opaque;
    g_autoptr(Qcow2Image) img = NULL;
    int fired = 0;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new(p->options, p->size, p->backing);
    img->has_errors = true;
    for (int round = 0; round < (g_test_slow() ? 40 : 4); round++) {
        g_autofree uint8_t *contents = NULL;
        int status;

        fired += failing_round(img, p);
        status = qcow2_image_check(img);
        g_assert_true(status == 0 || status == 3);
        contents = qcow2_image_contents(img);
        g_assert_cmpmem(contents, img->size, img->model, img->size);
        if (round == 1 && p->size == 2 * MiB) {
            qcow2_image_snapshot(img);
        }
    }
    g_assert_cmpint(fired, >, 0);
}

/* ---- Beside what changes the whole image ---- */

typedef struct Snapshots {
    char name[8][16];
    int n, taken;
} Snapshots;

static void take_snapshot(Qcow2Image *img, Snapshots *sns)
{
    QEMUSnapshotInfo sn = { .disk_size = -1 };

    g_snprintf(sns->name[sns->n], sizeof(sns->name[0]), "s%d", sns->taken++);
    g_strlcpy(sn.name, sns->name[sns->n++], sizeof(sn.name));
    g_assert_true(bdrv_snapshot_create(qcow2_image_bs(img), &sn,
                                       &error_abort));
}

static void drop_snapshot(Qcow2Image *img, Snapshots *sns, int i)
{
    g_assert_true(bdrv_snapshot_delete(qcow2_image_bs(img), sns->name[i],
                                       &error_abort));
    memcpy(sns->name[i], sns->name[--sns->n], sizeof(sns->name[0]));
}

static void resize(Qcow2Image *img, int64_t size)
{
    g_assert_true(blk_truncate(img->blk, size, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
}

/* Grow, write there, and shrink; @more: how far. */
static void resize_and_back(Qcow2Image *img, int64_t more)
{
    g_autofree uint8_t *buf = g_malloc(img->cluster_size);

    memset(buf, 0xee, img->cluster_size);
    resize(img, img->size + more);
    g_assert_cmpint(blk_pwrite(img->blk, img->size + more - img->cluster_size,
                               img->cluster_size, buf, 0), ==, 0);
    resize(img, img->size);
}

static void control_request(Qcow2Image *img, Snapshots *sns, GRand *rnd)
{
    BlockDriverState *bs = qcow2_image_bs(img);

    switch (g_rand_int_range(rnd, 0, 5)) {
    case 0:
    case 1:
        if (sns->n < 3) {
            take_snapshot(img, sns);
        }
        break;
    case 2:
        if (sns->n) {
            drop_snapshot(img, sns, g_rand_int_range(rnd, 0, sns->n));
        }
        break;
    case 3:
        resize_and_back(img, g_rand_int_range(rnd, 1, 2000) *
                             img->cluster_size);
        break;
    default:
        g_assert_true(bdrv_reopen(bs, json_pack("{s:b}", "lazy-refcounts",
                                                g_rand_boolean(rnd)),
                                  &error_abort));
        break;
    }
}

static void test_control(const void *opaque)
{
    const Parallel *p = opaque;
    g_autoptr(Qcow2Image) img = NULL;
    TestThread *threads[N_THREADS];
    Worker workers[N_THREADS];
    Snapshots sns = { .n = 0 };
    GRand *rnd = g_rand_new_with_seed(g_test_rand_int());

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new(p->options, p->size, p->backing);
    qcow2_image_open(img, p->open);
    for (int i = 0; i < N_THREADS; i++) {
        workers[i] = (Worker){
            .img = img, .number = i, .seed = g_test_rand_int(),
            .block = p->block ?: img->cluster_size,
            .clusters = !p->block, .n = g_test_slow() ? 4000 : 200,
        };
        threads[i] = test_thread_start(worker_run, &workers[i]);
    }
    for (int i = 0; i < (g_test_slow() ? 400 : 20); i++) {
        control_request(img, &sns, rnd);
        g_usleep(g_rand_int_range(rnd, 0, 1000));
    }
    for (int i = 0; i < N_THREADS; i++) {
        test_thread_join(threads[i]);
    }
    while (sns.n) {
        drop_snapshot(img, &sns, 0);
    }
    qcow2_image_verify(img, 0, img->size);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
    g_rand_free(rnd);
}

/* ---- Step by step ---- */

typedef struct Async {
    Qcow2Image *img;
    int64_t offset, bytes;
    uint8_t *buf;
    int ret;
    TestThread *thread;
} Async;

static void run_flush(void *opaque)
{
    Async *a = opaque;

    a->ret = blk_flush(a->img->blk);
}

static void run_read(void *opaque)
{
    Async *a = opaque;

    a->ret = blk_pread(a->img->blk, a->offset, a->bytes, a->buf, 0);
}

static void run_write(void *opaque)
{
    Async *a = opaque;

    a->ret = blk_pwrite(a->img->blk, a->offset, a->bytes, a->buf, 0);
}

/* Start @fn and wait until it is suspended at @event. */
static void start_suspended(Async *a, void (*fn)(void *opaque),
                            const char *event)
{
    BlockDriverState *bs = qcow2_image_bs(a->img);

    g_assert_cmpint(blkdebug_break(bs, event, event), ==, 0);
    a->thread = test_thread_start(fn, a);
    g_assert_cmpint(blkdebug_wait_suspended(bs, event, TEST_TIMEOUT_NS), ==, 0);
}

static void finish(Async *a, const char *event)
{
    g_assert_cmpint(blkdebug_resume(qcow2_image_bs(a->img), event), ==, 0);
    test_thread_join(a->thread);
    g_assert_cmpint(a->ret, ==, 0);
}

/* Where the guest's byte is in the file; -1: nowhere. */
static int64_t host_of(Qcow2Image *img, int64_t offset)
{
    BlockDriverState *file;
    int64_t pnum, map;
    int ret = bdrv_block_status(qcow2_image_bs(img), offset, 1, &pnum, &map,
                                &file);

    g_assert_cmpint(ret, >=, 0);
    return ret & BDRV_BLOCK_OFFSET_VALID ? map : -1;
}

static Qcow2Image *open_new(const char *more)
{
    Qcow2Image *img = qcow2_image_new("cluster_size=65536", 8 * MiB, false);

    qcow2_image_open(img, more);
    return img;
}

static void close_and_check(Qcow2Image *img)
{
    qcow2_image_verify(img, 0, img->size);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

/* A punch that comes late must not hit what was allocated meanwhile. */
static void test_late_punch(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    Async flush;
    int64_t host;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new(NULL);
    flush = (Async){ .img = img };
    qcow2_image_write(img, 0, CLUSTER, 1, 0);
    host = host_of(img, 0);
    qcow2_image_discard(img, 0, CLUSTER);
    start_suspended(&flush, run_flush, "cluster_free");
    for (int i = 1; i < 20; i++) {
        qcow2_image_write(img, i * CLUSTER, CLUSTER, i, 0);
        g_assert_cmpint(host_of(img, i * CLUSTER), !=, host);
    }
    finish(&flush, "cluster_free");
    /* Now it may be used again, and is. */
    qcow2_image_write(img, 20 * CLUSTER, CLUSTER, 20, 0);
    g_assert_cmpint(host_of(img, 20 * CLUSTER), ==, host);
    close_and_check(img);
}

/* Before the table that dropped it is durable, a cluster is not used again. */
static void test_not_before_flush(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    int64_t host;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new(NULL);
    qcow2_image_write(img, 0, CLUSTER, 1, 0);
    host = host_of(img, 0);
    qcow2_image_discard(img, 0, CLUSTER);
    for (int i = 1; i < 20; i++) {
        qcow2_image_write(img, i * CLUSTER, CLUSTER, i, 0);
        g_assert_cmpint(host_of(img, i * CLUSTER), !=, host);
    }
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
    qcow2_image_write(img, 20 * CLUSTER, CLUSTER, 20, 0);
    g_assert_cmpint(host_of(img, 20 * CLUSTER), ==, host);
    close_and_check(img);
}

/* Nor while the flush is under way that makes it so. */
static void test_not_during_flush(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    Async flush;
    int64_t host;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new(NULL);
    flush = (Async){ .img = img };
    qcow2_image_write(img, 0, CLUSTER, 1, 0);
    host = host_of(img, 0);
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
    qcow2_image_discard(img, 0, CLUSTER);
    start_suspended(&flush, run_flush, "flush_to_disk");
    for (int i = 1; i < 20; i++) {
        qcow2_image_write(img, i * CLUSTER, CLUSTER, i, 0);
        g_assert_cmpint(host_of(img, i * CLUSTER), !=, host);
    }
    finish(&flush, "flush_to_disk");
    qcow2_image_write(img, 20 * CLUSTER, CLUSTER, 20, 0);
    g_assert_cmpint(host_of(img, 20 * CLUSTER), ==, host);
    close_and_check(img);
}

/* A reader that has looked up a cluster, and then takes long. */
static void test_slow_reader(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree uint8_t *old = NULL, *got = g_malloc(CLUSTER);
    Async read;
    int64_t host;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new(NULL);
    read = (Async){ .img = img, .bytes = CLUSTER, .buf = got };
    qcow2_image_write(img, 0, CLUSTER, 1, 0);
    old = g_memdup2(img->model, CLUSTER);
    host = host_of(img, 0);
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
    start_suspended(&read, run_read, "read_aio");
    qcow2_image_discard(img, 0, CLUSTER);
    for (int i = 1; i < 20; i++) {
        g_assert_cmpint(blk_flush(img->blk), ==, 0);
        qcow2_image_write(img, i * CLUSTER, CLUSTER, i, 0);
        g_assert_cmpint(host_of(img, i * CLUSTER), !=, host);
    }
    finish(&read, "read_aio");
    g_assert_cmpmem(got, CLUSTER, old, CLUSTER);
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
    qcow2_image_write(img, 20 * CLUSTER, CLUSTER, 20, 0);
    g_assert_cmpint(host_of(img, 20 * CLUSTER), ==, host);
    close_and_check(img);
}

/* A writer in place that takes long: its data must not land in what another
 * guest cluster has become. */
static void test_slow_writer(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree uint8_t *data = g_malloc(CLUSTER);
    Async write;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new(NULL);
    memset(data, 0xee, CLUSTER);
    write = (Async){ .img = img, .bytes = CLUSTER, .buf = data };
    qcow2_image_write(img, 0, CLUSTER, 1, 0);
    start_suspended(&write, run_write, "write_aio");
    qcow2_image_discard(img, 0, CLUSTER);
    for (int i = 1; i < 20; i++) {
        g_assert_cmpint(blk_flush(img->blk), ==, 0);
        qcow2_image_write(img, i * CLUSTER, CLUSTER, i, 0);
    }
    finish(&write, "write_aio");
    /* Discarded while it was written: it reads as zeroes, as it happens. */
    close_and_check(img);
}

/* Two that allocate the same cluster: the second keeps what the first wrote. */
static void test_same_cluster(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    uint8_t a[4096], b[4096];
    Async first, second;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new(NULL);
    memset(a, 0xaa, sizeof(a));
    memset(b, 0xbb, sizeof(b));
    first = (Async){ .img = img, .bytes = 4096, .buf = a };
    second = (Async){ .img = img, .offset = 8192, .bytes = 4096, .buf = b };
    start_suspended(&first, run_write, "write_aio");
    second.thread = test_thread_start(run_write, &second);
    /* Readers do not wait. */
    qcow2_image_verify(img, 0, CLUSTER);
    finish(&first, "write_aio");
    test_thread_join(second.thread);
    g_assert_cmpint(second.ret, ==, 0);
    memcpy(img->model, a, 4096);
    memcpy(img->model + 8192, b, 4096);
    close_and_check(img);
}

/* An entry that is set while a flush is at its sync must wait for the next
 * one: that sync does not cover its data. */
static void test_flush_is_of_one_moment(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree char *copy = NULL;
    Async flush;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new(NULL);
    flush = (Async){ .img = img };
    qcow2_image_write(img, 0, CLUSTER, 1, 0);
    start_suspended(&flush, run_flush, "flush_to_disk");
    qcow2_image_write(img, CLUSTER, CLUSTER, 2, 0);
    finish(&flush, "flush_to_disk");
    /* What a second opener would see now. */
    copy = g_strdup_printf("%s/copy.qcow2", img->dir);
    {
        g_autofree char *cmd =
            g_strdup_printf("/usr/bin/qemu-img convert -U -f qcow2 -O raw "
                            "%s %s", img->path, copy);
        g_autofree char *data = NULL;
        gsize length;
        int status;

        g_assert_true(g_spawn_command_line_sync(cmd, NULL, NULL, &status,
                                                NULL));
        g_assert_cmpint(status, ==, 0);
        g_assert_true(g_file_get_contents(copy, &data, &length, NULL));
        g_assert_cmpmem(data, CLUSTER, img->model, CLUSTER);
        for (int i = 0; i < CLUSTER; i++) {
            g_assert_cmpint(data[CLUSTER + i], ==, 0);
        }
        remove(copy);
    }
    close_and_check(img);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(parallels); i++) {
        g_autofree char *name =
            g_strdup_printf("/qcow2-race/parallel/%zu:%s", i,
                            parallels[i].options);
        g_autofree char *failing =
            g_strdup_printf("/qcow2-race/failing/%zu:%s", i,
                            parallels[i].options);

        g_autofree char *control =
            g_strdup_printf("/qcow2-race/control/%zu:%s", i,
                            parallels[i].options);

        g_test_add_data_func(name, &parallels[i], test_parallel);
        g_test_add_data_func(control, &parallels[i], test_control);
        g_test_add_data_func(failing, &parallels[i], test_failing);
    }
    g_test_add_func("/qcow2-race/free/late-punch-hits-nothing",
                    test_late_punch);
    g_test_add_func("/qcow2-race/free/not-reused-before-flush",
                    test_not_before_flush);
    g_test_add_func("/qcow2-race/free/not-reused-during-flush",
                    test_not_during_flush);
    g_test_add_func("/qcow2-race/free/waits-for-reader", test_slow_reader);
    g_test_add_func("/qcow2-race/free/waits-for-writer", test_slow_writer);
    g_test_add_func("/qcow2-race/write/same-cluster", test_same_cluster);
    g_test_add_func("/qcow2-race/flush/is-of-one-moment",
                    test_flush_is_of_one_moment);
    return g_test_run();
}
