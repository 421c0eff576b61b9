/*
 * Compressed clusters that are read in parts: inflated once, never out of date.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-image.h"
#include "qemu/atomic.h"
#include "test-driver.h"

#define CLUSTER (64 * KiB)
#define PART (4 * KiB)
#define N_CLUSTERS 24               /* more than are kept */
#define N_READERS 4

static Qcow2Image *open_new(void)
{
    Qcow2Image *img = qcow2_image_new("cluster_size=65536",
                                      N_CLUSTERS * CLUSTER, false);

    qcow2_image_open(img, NULL);
    return img;
}

/* All of a cluster is @value: what comes out of it is always as long. */
static int fill(Qcow2Image *img, int cluster, uint8_t value)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTER);

    memset(buf, value, CLUSTER);
    return blk_pwrite(img->blk, cluster * CLUSTER, CLUSTER, buf,
                      BDRV_REQ_WRITE_COMPRESSED);
}

/* 0 and *value, which all of it is; or -errno. */
static int read_part(Qcow2Image *img, int cluster, int part, uint8_t *value)
{
    uint8_t buf[PART];
    int ret = blk_pread(img->blk, cluster * CLUSTER + part * PART, PART, buf,
                        0);

    *value = buf[0];
    g_assert_true(ret < 0 || !memcmp(buf, buf + 1, PART - 1));
    return ret;
}

static void assert_part(Qcow2Image *img, int cluster, int part, uint8_t value)
{
    uint8_t got;

    g_assert_cmpint(read_part(img, cluster, part, &got), ==, 0);
    g_assert_cmpuint(got, ==, value);
}

/* ---- One at a time ---- */

static void test_once(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    BlockDriverState *bs;
    uint8_t value;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new();
    bs = qcow2_image_bs(img);
    fill(img, 0, 1);
    fill(img, 1, 2);
    assert_part(img, 0, 0, 1);
    g_assert_cmpint(blkdebug_arm(bs, 1, EIO), ==, 0);
    for (int i = 0; i < CLUSTER / PART; i++) {
        assert_part(img, 0, i, 1);
    }
    g_assert_false(blkdebug_fired(bs));
    /* What failed is not kept. */
    g_assert_cmpint(read_part(img, 1, 3, &value), ==, -EIO);
    g_assert_true(blkdebug_fired(bs));
    assert_part(img, 1, 3, 2);
    assert_part(img, 0, 3, 1);
}

/* However many there are. */
static void test_many(void)
{
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new();
    for (int i = 0; i < N_CLUSTERS; i++) {
        fill(img, i, i + 1);
    }
    for (int i = 0; i < 5 * N_CLUSTERS; i++) {
        int cluster = i * 7 % N_CLUSTERS;

        assert_part(img, cluster, i % 16, cluster + 1);
        assert_part(img, i % N_CLUSTERS, i % 16, i % N_CLUSTERS + 1);
    }
}

/* The place of a cluster that is freed becomes that of another one, with a
 * descriptor that is the same. */
static void test_rewritten(void)
{
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new();
    for (int i = 1; i < 10; i++) {
        g_assert_cmpint(fill(img, 3, i), ==, 0);
        assert_part(img, 3, 5, i);
        g_assert_cmpint(blk_pdiscard(img->blk, 3 * CLUSTER, CLUSTER), ==, 0);
        assert_part(img, 3, 5, 0);
        g_assert_cmpint(blk_flush(img->blk), ==, 0);
    }
    /* In place of what is not compressed any more. */
    g_assert_cmpint(fill(img, 3, 10), ==, 0);
    assert_part(img, 3, 5, 10);
    qcow2_image_write(img, 3 * CLUSTER, CLUSTER, 1, 0);
    qcow2_image_verify(img, 3 * CLUSTER + PART, PART);
}

/* ---- Threads ---- */

typedef struct Reader {
    Qcow2Image *img;
    int number;
    uint8_t got;
    int ret;
} Reader;

static void run_part(void *opaque)
{
    Reader *r = opaque;

    r->ret = read_part(r->img, 0, r->number, &r->got);
}

/* Who comes while it is being read waits for that. */
static void test_wait(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    TestThread *threads[2];
    Reader r[2];
    BlockDriverState *bs;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = open_new();
    bs = qcow2_image_bs(img);
    fill(img, 0, 1);
    for (int i = 0; i < 2; i++) {
        const char *tag = i ? "second" : "first";

        r[i] = (Reader){ .img = img, .number = i };
        g_assert_cmpint(blkdebug_break(bs, "read_compressed", tag), ==, 0);
        threads[i] = test_thread_start(run_part, &r[i]);
        if (i == 0) {
            g_assert_cmpint(blkdebug_wait_suspended(bs, tag, TEST_TIMEOUT_NS),
                            ==, 0);
        }
    }
    g_assert_cmpint(blkdebug_resume(bs, "first"), ==, 0);
    for (int i = 0; i < 2; i++) {
        test_thread_join(threads[i]);
        g_assert_cmpint(r[i].ret, ==, 0);
        g_assert_cmpint(r[i].got, ==, 1);
    }
    g_assert_false(blkdebug_is_suspended(bs, "second"));
    g_assert_cmpint(blkdebug_remove_break(bs, "second"), ==, 0);
}

/* Few enough for all to be kept, while places are used again and again. */
#define N_COUNTERS 5

/* Clusters count up, while they are read. */
typedef struct Count {
    Qcow2Image *img;
    int begun[N_COUNTERS];          /* atomic: being written, or more … */
    int done[N_COUNTERS];           /* … and what is there at least */
    bool stop;                      /* atomic */
    int reads;                      /* atomic */
} Count;

static void run_reader(void *opaque)
{
    Count *c = opaque;
    GRand *rnd = g_rand_new_with_seed(17);

    while (!qatomic_read(&c->stop)) {
        int cluster = g_rand_int_range(rnd, 0, N_COUNTERS);

        /* A few parts, as one does who reads in order. */
        for (int i = 0; i < 4; i++) {
            int least = qatomic_load_acquire(&c->done[cluster]);
            uint8_t value;

            g_assert_cmpint(read_part(c->img, cluster, i, &value), ==, 0);
            g_assert_cmpint(value, >=, least);
            g_assert_cmpint(value, <=,
                            qatomic_load_acquire(&c->begun[cluster]));
        }
        qatomic_inc(&c->reads);
    }
    g_rand_free(rnd);
}

static void test_count(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree Count *c = g_new0(Count, 1);
    TestThread *threads[N_READERS];

    if (!qcow2_image_can_run()) {
        return;
    }
    img = c->img = open_new();
    for (int i = 0; i < N_READERS; i++) {
        threads[i] = test_thread_start(run_reader, c);
    }
    for (int value = 1; value <= 100; value++) {
        for (int i = 0; i < N_COUNTERS; i++) {
            qatomic_store_release(&c->begun[i], value);
            g_assert_cmpint(fill(img, i, value), ==, 0);
            qatomic_store_release(&c->done[i], value);
            /* What was freed can be used again from now on. */
            g_assert_cmpint(blk_flush(img->blk), ==, 0);
        }
    }
    while (!qatomic_read(&c->reads)) {
        g_thread_yield();
    }
    qatomic_set(&c->stop, true);
    for (int i = 0; i < N_READERS; i++) {
        test_thread_join(threads[i]);
    }
    qcow2_image_close(img);
    g_assert_cmpint(qcow2_image_check(img), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-inflated/parts/inflates once", test_once);
    g_test_add_func("/qcow2-inflated/parts/more than are kept", test_many);
    g_test_add_func("/qcow2-inflated/parts/forgets what is freed",
                    test_rewritten);
    g_test_add_func("/qcow2-inflated/threads/second waits for first",
                    test_wait);
    g_test_add_func("/qcow2-inflated/threads/never out of date", test_count);
    return g_test_run();
}
