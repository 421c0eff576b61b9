/*
 * Requests of two users, one above the other: those of the upper one wait for
 * the lower one's inside their workers, and must not wait for what is queued
 * behind them for the same workers.
 *
 * The upper user's is a copy-on-read filter, since whatever is read through it
 * is alone in its cluster of the node below.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error.h"
#include "block/block-internal.h"
#include "test-driver.h"

#define CLUSTER TEST_CLUSTER
#define SIZE    (16 * CLUSTER)

/* More than a pool of two has threads, those in place of blocked ones too. */
#define CROWD 100

typedef struct Stack {
    TestEnv env;
    TestDisk *base;             /* all 'b' */
    TestDisk *disk;             /* nothing is allocated */
    BlockBackend *upper;        /* the filter's */
    BlockBackend *lower;        /* of the node below it */
    BlockDriverState *bs;       /* that node */
} Stack;

static void setup(Stack *t, gconstpointer opaque)
{
    test_env_init(&t->env);
    aio_context_set_pool_limits(t->env.ctx, 0, GPOINTER_TO_INT(opaque));
    t->base = test_disk_new("base", SIZE);
    t->disk = test_disk_new("disk", SIZE);
    memset(t->base->data, 'b', SIZE);
    t->upper = test_open(t->env.graph, "{'driver':'copy-on-read',"
                         "'file':{'driver':'test-overlay','disk':'disk',"
                         "'backing':{'driver':'test','disk':'base'}}}");
    t->bs = bdrv_primary_bs(blk_bs(t->upper));
    t->lower = blk_new(t->env.graph, BLK_PERM_WRITE | BLK_PERM_CONSISTENT_READ,
                       BLK_PERM_ALL);
    g_assert_true(blk_insert_bs(t->lower, t->bs, &error_abort));
    test_disk_clear_log(t->disk);
}

static void teardown(Stack *t, gconstpointer opaque)
{
    blk_unref(t->lower);
    blk_unref(t->upper);
    test_disk_free(t->disk);
    test_disk_free(t->base);
    test_env_destroy(&t->env);
}

static void start(Stack *t, TestStep *s, BlockBackend *blk,
                  BdrvRequestType type, int64_t offset, int64_t bytes)
{
    test_step_start(s, t->env.ctx, blk, type, offset, bytes);
}

/* Reads through the filter, of one cluster: each is alone there. */
static void start_crowd(Stack *t, TestStep *s, int64_t offset)
{
    for (int i = 0; i < CROWD; i++) {
        start(t, &s[i], t->upper, BDRV_REQ_READ, offset, 512);
    }
}

static void finish_all(TestStep *s, int n)
{
    for (int i = 0; i < n; i++) {
        test_step_finish(&s[i]);
    }
}

/* Hold @n requests, each of its own cluster, so that no worker is left. */
static void occupy_pool(Stack *t, TestStep *s, int n)
{
    test_disk_hold(t->disk, 1u << TEST_WRITE);
    for (int i = 0; i < n; i++) {
        start(t, &s[i], t->upper, BDRV_REQ_READ, (8 + i) * CLUSTER, 512);
    }
    test_disk_wait_held(t->disk, n);
}

static void assert_lower_writes(Stack *t, TestStep *write)
{
    uint8_t byte;

    test_step_finish(write);
    g_assert_cmpint(blk_pread(t->lower, CLUSTER, 1, &byte, 0), ==, 0);
    g_assert_cmpint(byte, ==, 'X');
}

/* The write finds nobody in its way, and the last place in the queue. */
static void test_queued_behind(Stack *t, gconstpointer pool_size)
{
    g_autofree TestStep *first = g_new(TestStep, 2);
    g_autofree TestStep *crowd = g_new(TestStep, CROWD);
    g_autofree TestStep *write = g_new(TestStep, 1);

    occupy_pool(t, first, GPOINTER_TO_INT(pool_size));
    start_crowd(t, crowd, CLUSTER);
    start(t, write, t->lower, BDRV_REQ_WRITE, CLUSTER, 512);
    g_assert_cmpint(qatomic_read(&write->r.req.state), ==,
                    BDRV_REQ_STATE_QUEUED);
    test_disk_hold(t->disk, 0);
    finish_all(first, GPOINTER_TO_INT(pool_size));
    finish_all(crowd, CROWD);
    assert_lower_writes(t, write);
}

/* The write waits for the first read, and is queued when that has ended. */
static void test_parked_behind(Stack *t, gconstpointer pool_size)
{
    g_autofree TestStep *first = g_new(TestStep, 2);
    g_autofree TestStep *crowd = g_new(TestStep, CROWD);
    g_autofree TestStep *write = g_new(TestStep, 1);
    int n = GPOINTER_TO_INT(pool_size);

    occupy_pool(t, first, n);
    start(t, write, t->lower, BDRV_REQ_WRITE, 8 * CLUSTER, 512);
    g_assert_cmpint(qatomic_read(&write->r.req.state), ==,
                    BDRV_REQ_STATE_PARKED);
    start_crowd(t, crowd, 8 * CLUSTER);
    test_disk_hold(t->disk, 0);
    finish_all(first, n);
    finish_all(crowd, CROWD);
    test_step_finish(write);
}

static int num_waiting(BlockDriverState *bs)
{
    ListNode *node;
    int n = 0;

    reqs_lock(&bs->reqs_lock);
    for (node = bs->waiting_requests.head.next;
         node != &bs->waiting_requests.head; node = node->next) {
        n++;
    }
    reqs_unlock(&bs->reqs_lock);
    return n;
}

static void until_waiting(Stack *t, int n)
{
    int64_t end = g_get_monotonic_time() + TEST_TIMEOUT_NS / 1000;

    while (num_waiting(t->bs) != n) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_thread_yield();
    }
}

/*
 * Clusters 1 and 2 are written as soon as the copy of 1 is done.  A read of 2
 * comes first all the same, having a thread; the next one does not.
 */
static void test_overtaken_once(Stack *t, gconstpointer opaque)
{
    g_autofree TestStep *s = g_new(TestStep, 4);

    test_disk_hold(t->disk, 1u << TEST_WRITE);
    start(t, &s[0], t->upper, BDRV_REQ_READ, CLUSTER, 512);
    test_disk_wait_held(t->disk, 1);
    start(t, &s[1], t->lower, BDRV_REQ_WRITE, CLUSTER, 2 * CLUSTER);
    until_waiting(t, 1);
    start(t, &s[2], t->upper, BDRV_REQ_READ, 2 * CLUSTER, 512);
    test_disk_wait_held(t->disk, 2);
    until_waiting(t, 1);
    g_assert_cmpint(qatomic_read(&s[1].r.req.state), ==,
                    BDRV_REQ_STATE_RUNNING);
    start(t, &s[3], t->upper, BDRV_REQ_READ, 2 * CLUSTER, 512);
    until_waiting(t, 2);
    test_disk_hold(t->disk, 0);
    finish_all(s, 4);
    g_assert_cmpint(s[2].buf[0], ==, 'b');
    g_assert_cmpint(s[3].buf[0], ==, 'X');
}

/* ---- Many of both ---- */

#define ROUNDS  20
#define MANY    300
#define SECTORS (4 * CLUSTER / 512)

typedef struct Many {
    TestStep step[MANY];
    uint8_t model[SECTORS];         /* what each is full of */
} Many;

/* A write, in ten: to each sector once. */
static void start_random(Stack *t, Many *m, GRand *rand, int i)
{
    BlockBackend *blk = g_rand_boolean(rand) ? t->upper : t->lower;
    int sector = i / 10;
    TestStep *s = &m->step[i];

    if (i % 10) {
        start(t, s, blk, BDRV_REQ_READ, g_rand_int_range(rand, 0, 3) * CLUSTER,
              2 * CLUSTER);
        return;
    }
    m->model[sector] = g_rand_int_range(rand, 1, 256);
    memset(s->buf, m->model[sector], 512);
    test_request_init(&s->r, t->env.ctx, blk, BDRV_REQ_WRITE, sector * 512,
                      512, s->buf);
    test_request_submit(&s->r);
}

static void assert_model(Stack *t, Many *m)
{
    uint8_t buf[SECTORS * 512];

    g_assert_cmpint(blk_pread(t->lower, 0, sizeof(buf), buf, 0), ==, 0);
    for (int i = 0; i < SECTORS; i++) {
        g_assert_cmpint(buf[i * 512], ==, m->model[i]);
        g_assert_cmpint(buf[i * 512 + 511], ==, m->model[i]);
    }
}

static void test_many(Stack *t, gconstpointer opaque)
{
    g_autofree Many *m = g_new(Many, 1);
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);

    for (int round = 0; round < ROUNDS; round++) {
        /* Nothing is allocated, so that there is something to copy. */
        g_assert_cmpint(blk_pdiscard(t->lower, 0, SIZE), ==, 0);
        memset(m->model, 'b', sizeof(m->model));
        test_disk_hold(t->disk, 1u << TEST_WRITE);
        for (int i = 0; i < MANY; i++) {
            start_random(t, m, rand, i);
        }
        test_disk_hold(t->disk, 0);
        finish_all(m->step, MANY);
        assert_model(t, m);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, size, fn) g_test_add("/block/nested/" name, Stack, \
                                     GINT_TO_POINTER(size), setup, fn, teardown)
    T("pool-of-one/queued-behind-those-who-wait", 1, test_queued_behind);
    T("pool-of-two/queued-behind-those-who-wait", 2, test_queued_behind);
    T("pool-of-one/parked-before-those-who-wait", 1, test_parked_behind);
    T("pool-of-two/parked-before-those-who-wait", 2, test_parked_behind);
    T("overtaken-only-once", 8, test_overtaken_once);
    T("pool-of-one/many", 1, test_many);
    T("pool-of-two/many", 2, test_many);
    return g_test_run();
}
