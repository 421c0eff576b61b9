/*
 * Copy-on-read: what is copied, that it never lands on top of a write, and the
 * filter that asks for it.
 *
 * Each test of requests runs twice: with a node that copies whatever reads it,
 * and with the filter above one that does not.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error.h"
#include "block/block-internal.h"
#include "block/dirty-bitmap.h"
#include "test-driver.h"

#define CLUSTER TEST_CLUSTER
#define SIZE    (16 * CLUSTER)

typedef struct Pair {
    TestEnv env;
    TestDisk *base;             /* its clusters are full of 'a', 'b' … */
    TestDisk *top;              /* nothing is allocated */
    BlockBackend *blk;          /* copies */
    BlockDriverState *overlay;
} Pair;

#define OVERLAY "'driver':'test-overlay','disk':'top','node-name':'top'," \
                "'backing':{'driver':'test-aio','disk':'base'," \
                "'node-name':'base'}"

static void fill_base(TestDisk *d)
{
    for (int64_t i = 0; i < d->size; i++) {
        d->data[i] = 'a' + i / CLUSTER;
    }
}

static void open_pair(Pair *t, bool by_filter)
{
    if (by_filter) {
        t->blk = test_open(t->env.graph,
                           "{'driver':'copy-on-read','file':{" OVERLAY "}}");
        t->overlay = bdrv_primary_bs(blk_bs(t->blk));
    } else {
        t->blk = test_open(t->env.graph, "{" OVERLAY "}");
        t->overlay = blk_bs(t->blk);
        g_assert_true(bdrv_enable_copy_on_read(t->overlay, &error_abort));
    }
    test_disk_clear_log(t->top);
    test_disk_clear_log(t->base);
}

static void setup(Pair *t, gconstpointer by_filter)
{
    test_env_init(&t->env);
    t->base = test_disk_new("base", SIZE);
    t->top = test_disk_new("top", SIZE);
    fill_base(t->base);
    open_pair(t, by_filter);
}

static void teardown(Pair *t, gconstpointer by_filter)
{
    blk_unref(t->blk);
    test_disk_free(t->top);
    test_disk_free(t->base);
    test_env_destroy(&t->env);
}

static void assert_reads(BlockBackend *blk, int64_t offset, int64_t bytes,
                         uint8_t value)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, ~value, bytes);
    g_assert_cmpint(blk_pread(blk, offset, bytes, buf, 0), ==, 0);
    for (int64_t i = 0; i < bytes; i++) {
        g_assert_cmpint(buf[i], ==, value);
    }
}

/* ---- What is copied ---- */

static void test_whole_clusters(Pair *t, gconstpointer by_filter)
{
    assert_reads(t->blk, 3 * CLUSTER + 100, 7, 'd');
    g_assert_cmpint(test_disk_count(t->top, TEST_WRITE), ==, 1);
    g_assert_cmpint(test_disk_call(t->top, TEST_WRITE, 0).offset, ==,
                    3 * CLUSTER);
    g_assert_cmpint(test_disk_call(t->top, TEST_WRITE, 0).bytes, ==, CLUSTER);
    /* The backing file is not needed any more. */
    test_disk_fail_all(t->base, 1u << TEST_READ, EIO);
    assert_reads(t->blk, 3 * CLUSTER, CLUSTER, 'd');
    g_assert_cmpint(test_disk_count(t->top, TEST_WRITE), ==, 1);
}

/* From an async request, too, which must not take the fast path. */
static void test_async(Pair *t, gconstpointer by_filter)
{
    uint8_t buf[CLUSTER];

    g_assert_cmpint(test_request_run(t->env.ctx, t->blk, BDRV_REQ_READ, CLUSTER,
                                     CLUSTER, buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, 'b');
    g_assert_cmpint(t->top->allocated[1], ==, 1);
    g_assert_cmpint(t->top->allocated[0], ==, 0);
}

static void test_only_what_is_missing(Pair *t, gconstpointer by_filter)
{
    uint8_t buf[4 * CLUSTER];

    memset(buf, 'X', sizeof(buf));
    g_assert_cmpint(blk_pwrite(t->blk, CLUSTER, CLUSTER, buf, 0), ==, 0);
    test_disk_clear_log(t->top);
    g_assert_cmpint(blk_pread(t->blk, 0, 4 * CLUSTER, buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, 'a');
    g_assert_cmpint(buf[CLUSTER], ==, 'X');
    g_assert_cmpint(buf[4 * CLUSTER - 1], ==, 'd');
    g_assert_cmpint(test_disk_count(t->top, TEST_WRITE), ==, 2);
    g_assert_cmpint(test_disk_call(t->top, TEST_WRITE, 0).bytes, ==, CLUSTER);
    g_assert_cmpint(test_disk_call(t->top, TEST_WRITE, 1).offset, ==,
                    2 * CLUSTER);
    g_assert_cmpint(test_disk_call(t->top, TEST_WRITE, 1).bytes, ==,
                    2 * CLUSTER);
}

/* As zeroes that stay allocated. */
static void test_zeroes(Pair *t, gconstpointer by_filter)
{
    memset(t->base->data + CLUSTER, 0, CLUSTER);
    assert_reads(t->blk, CLUSTER + 5, 5, 0);
    g_assert_cmpint(test_disk_count(t->top, TEST_WRITE), ==, 0);
    g_assert_cmpint(test_disk_count(t->top, TEST_ZEROES), ==, 1);
    g_assert_cmpint(test_disk_call(t->top, TEST_ZEROES, 0).flags, ==, 0);
    g_assert_cmpint(t->top->allocated[1], ==, 2);

    t->top->can_zero = false;
    memset(t->base->data + 2 * CLUSTER, 0, CLUSTER);
    assert_reads(t->blk, 2 * CLUSTER, 5, 0);
    g_assert_cmpint(t->top->allocated[2], ==, 1);
}

/* The last cluster is not all there; nor is all of the backing file. */
static void test_end(Pair *t, gconstpointer by_filter)
{
    blk_unref(t->blk);
    t->top->size = SIZE - 1024;
    t->base->size = SIZE - CLUSTER - 512;
    open_pair(t, by_filter);
    assert_reads(t->blk, SIZE - CLUSTER, CLUSTER - 1024, 0);
    assert_reads(t->blk, SIZE - 2 * CLUSTER, CLUSTER - 512, 'o');
    assert_reads(t->blk, SIZE - CLUSTER - 512, 512, 0);
    g_assert_cmpint(blk_getlength(t->blk), ==, SIZE - 1024);
    g_assert_cmpint(t->top->allocated[15], ==, 2);
    g_assert_cmpint(t->top->allocated[14], ==, 1);
}

static void test_bitmap(Pair *t, gconstpointer by_filter)
{
    BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(t->overlay, 512, "b",
                                                  &error_abort);

    assert_reads(t->blk, 0, SIZE / 16, 'a');
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, 0);
    bdrv_release_dirty_bitmap(b);
}

/* ---- Failures ---- */

static void test_copy_fails(Pair *t, gconstpointer by_filter)
{
    uint8_t buf[512];

    test_disk_fail(t->top, 1u << TEST_WRITE, 1, ENOSPC);
    g_assert_cmpint(blk_pread(t->blk, 0, 512, buf, 0), ==, -ENOSPC);
    assert_reads(t->blk, 0, 512, 'a');
    g_assert_cmpint(t->top->allocated[0], ==, 1);
}

static void test_read_fails(Pair *t, gconstpointer by_filter)
{
    uint8_t buf[512];

    test_disk_fail(t->base, 1u << TEST_READ, 1, EIO);
    g_assert_cmpint(blk_pread(t->blk, 0, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(test_disk_count(t->top, TEST_WRITE), ==, 0);
}

/* Then it reads as if nobody had asked for copies. */
static void test_status_fails(Pair *t, gconstpointer by_filter)
{
    test_disk_fail(t->top, 1u << TEST_STATUS, 1, EIO);
    assert_reads(t->blk, 0, 512, 'a');
    g_assert_cmpint(test_disk_count(t->top, TEST_WRITE), ==, 0);
}

/* ---- Without a worker ---- */

typedef enum Way { INLINE, WORKER } Way;

static void goes(Pair *t, int64_t offset, int64_t bytes, int flags,
                 uint8_t value, Way way)
{
    BlkPathStats before, after;
    uint8_t buf[4 * CLUSTER];

    memset(buf, ~value, sizeof(buf));
    blk_get_path_stats(t->blk, &before);
    g_assert_cmpint(test_request_run(t->env.ctx, t->blk, BDRV_REQ_READ, offset,
                                     bytes, buf, flags), ==, 0);
    blk_get_path_stats(t->blk, &after);
    g_assert_cmpint(buf[0], ==, value);
    g_assert_cmpint(after.inline_done - before.inline_done, ==, way == INLINE);
    g_assert_cmpint(after.worker - before.worker, ==, way == WORKER);
}

/* What has been copied, and what is zeroes; not with what is yet to be. */
static void test_fast(Pair *t, gconstpointer by_filter)
{
    memset(t->base->data + 2 * CLUSTER, 0, CLUSTER);
    goes(t, CLUSTER, 512, 0, 'b', WORKER);
    goes(t, CLUSTER + 512, 1024, 0, 'b', INLINE);
    goes(t, CLUSTER, 512, BDRV_REQ_SERIALISING, 'b', WORKER);
    goes(t, CLUSTER, 2 * CLUSTER, 0, 'b', WORKER);
    goes(t, 2 * CLUSTER, CLUSTER, 0, 0, INLINE);
    goes(t, CLUSTER, 2 * CLUSTER, 0, 'b', INLINE);
    g_assert_cmpint(t->top->allocated[2], ==, 2);
    g_assert_cmpint(test_disk_count(t->top, TEST_WRITE), ==, 1);

    g_assert_cmpint(blk_pdiscard(t->blk, CLUSTER, CLUSTER), ==, 0);
    goes(t, CLUSTER, 512, 0, 'b', WORKER);
    g_assert_cmpint(t->top->allocated[1], ==, 1);
}

/* As long as that is not known to be allocated. */
static void test_slow_without_backing(Pair *t, gconstpointer by_filter)
{
    goes(t, 0, 512, 0, 'a', WORKER);
    g_assert_true(bdrv_set_backing_hd(t->overlay, NULL, &error_abort));
    goes(t, 0, 512, 0, 'a', WORKER);
    goes(t, CLUSTER, 512, 0, 0, WORKER);
    g_assert_cmpint(t->top->allocated[1], ==, 2);
}

/* Somebody else has another reason. */
static void test_slow_if_tracked(Pair *t, gconstpointer by_filter)
{
    goes(t, 0, 512, 0, 'a', WORKER);
    bdrv_drained_begin(t->overlay);
    bdrv_tracking_begin(t->overlay);
    bdrv_drained_end(t->overlay);
    goes(t, 0, 512, 0, 'a', WORKER);
    bdrv_drained_begin(t->overlay);
    bdrv_tracking_end(t->overlay);
    bdrv_drained_end(t->overlay);
    goes(t, 0, 512, 0, 'a', INLINE);
}

/* ---- Races, step by step ---- */

static void start(Pair *t, TestStep *s, BlockBackend *blk, BdrvRequestType type,
                  int64_t offset, int64_t bytes)
{
    test_step_start(s, t->env.ctx, blk, type, offset, bytes);
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

/* Parked, or in a worker that waits. */
static void until_one_waits(Pair *t)
{
    int64_t end = g_get_monotonic_time() + TEST_TIMEOUT_NS / 1000;

    while (num_waiting(t->overlay) != 1) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_thread_yield();
    }
}

/* The driver has got so far with @s as to do what is held. */
static void start_held(Pair *t, unsigned held, TestStep *s,
                       BdrvRequestType type, int64_t offset, int64_t bytes)
{
    test_disk_hold(t->top, held);
    start(t, s, t->blk, type, offset, bytes);
    test_disk_wait_held(t->top, 1);
}

static void release(Pair *t, TestStep *a, TestStep *b)
{
    test_disk_hold(t->top, 0);
    test_step_finish(a);
    test_step_finish(b);
}

/*
 * The old data has been read and is about to be written when a guest's write
 * to another part of the cluster, or the same, comes.
 */
static void write_during_copy(Pair *t, BlockBackend *writer, int64_t offset)
{
    TestStep copy, write;

    start_held(t, 1u << TEST_WRITE, &copy, BDRV_REQ_READ, CLUSTER, 512);
    start(t, &write, writer, BDRV_REQ_WRITE, offset, 512);
    until_one_waits(t);
    g_assert_cmpint(test_disk_running(t->top), ==, 1);
    release(t, &copy, &write);
    g_assert_cmpint(copy.buf[0], ==, 'b');
    assert_reads(t->blk, offset, 512, 'X');
    assert_reads(t->blk, CLUSTER + 1024, 512, 'b');
}

static void test_write_during_copy(Pair *t, gconstpointer by_filter)
{
    write_during_copy(t, t->blk, CLUSTER);
}

static void test_write_beside_copy(Pair *t, gconstpointer by_filter)
{
    write_during_copy(t, t->blk, CLUSTER + 2048);
}

/* By who knows nothing of copying, and uses the node below the filter. */
static void test_write_from_beside(Pair *t, gconstpointer by_filter)
{
    BlockBackend *other = blk_new(t->env.graph, BLK_PERM_WRITE |
                                  BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);

    g_assert_true(blk_insert_bs(other, t->overlay, &error_abort));
    write_during_copy(t, other, CLUSTER + 512);
    blk_unref(other);
}

static void test_zeroes_during_copy(Pair *t, gconstpointer by_filter)
{
    TestStep copy, zeroes;

    start_held(t, 1u << TEST_WRITE, &copy, BDRV_REQ_READ, CLUSTER, 512);
    start(t, &zeroes, t->blk, BDRV_REQ_WRITE_ZEROES, CLUSTER, CLUSTER);
    until_one_waits(t);
    release(t, &copy, &zeroes);
    assert_reads(t->blk, CLUSTER, CLUSTER, 0);
}

static void test_discard_during_copy(Pair *t, gconstpointer by_filter)
{
    TestStep copy, discard;

    start_held(t, 1u << TEST_WRITE, &copy, BDRV_REQ_READ, CLUSTER, 512);
    start(t, &discard, t->blk, BDRV_REQ_DISCARD, CLUSTER, CLUSTER);
    until_one_waits(t);
    release(t, &copy, &discard);
    g_assert_cmpint(t->top->allocated[1], ==, 0);
}

/* A write is under way when the read comes: there is nothing to copy then. */
static void test_copy_during_write(Pair *t, gconstpointer by_filter)
{
    TestStep copy, write;

    start_held(t, 1u << TEST_WRITE, &write, BDRV_REQ_WRITE, CLUSTER, 512);
    start(t, &copy, t->blk, BDRV_REQ_READ, CLUSTER, CLUSTER);
    until_one_waits(t);
    g_assert_cmpint(test_disk_count(t->top, TEST_STATUS), ==, 0);
    release(t, &write, &copy);
    g_assert_cmpint(copy.buf[0], ==, 'X');
    g_assert_cmpint(copy.buf[512], ==, 'b');
    g_assert_cmpint(test_disk_count(t->top, TEST_WRITE), ==, 1);
}

static void test_copy_during_discard(Pair *t, gconstpointer by_filter)
{
    TestStep copy, discard;

    start_held(t, 1u << TEST_DISCARD, &discard, BDRV_REQ_DISCARD, CLUSTER,
               CLUSTER);
    start(t, &copy, t->blk, BDRV_REQ_READ, CLUSTER, CLUSTER);
    until_one_waits(t);
    release(t, &discard, &copy);
    g_assert_cmpint(t->top->allocated[1], ==, 1);
}

static void test_two_copies(Pair *t, gconstpointer by_filter)
{
    TestStep a, b;

    start_held(t, 1u << TEST_WRITE, &a, BDRV_REQ_READ, CLUSTER, 512);
    start(t, &b, t->blk, BDRV_REQ_READ, CLUSTER + 2048, 512);
    until_one_waits(t);
    release(t, &a, &b);
    g_assert_cmpint(b.buf[0], ==, 'b');
    g_assert_cmpint(test_disk_count(t->top, TEST_WRITE), ==, 1);
}

/* Nor does what has been copied for what is written to it. */
static void test_read_beside(Pair *t, gconstpointer by_filter)
{
    TestStep write;

    goes(t, CLUSTER, 512, 0, 'b', WORKER);
    start_held(t, 1u << TEST_WRITE, &write, BDRV_REQ_WRITE, CLUSTER, 512);
    goes(t, CLUSTER, 512, 0, 'b', INLINE);
    test_disk_hold(t->top, 0);
    test_step_finish(&write);
    goes(t, CLUSTER, 512, 0, 'X', INLINE);
}

/* Copies of different clusters do not wait for each other. */
static void test_copies_beside(Pair *t, gconstpointer by_filter)
{
    TestStep a, b;

    test_disk_hold(t->top, 1u << TEST_WRITE);
    start(t, &a, t->blk, BDRV_REQ_READ, CLUSTER, 512);
    start(t, &b, t->blk, BDRV_REQ_READ, 2 * CLUSTER, 512);
    test_disk_wait_held(t->top, 2);
    release(t, &a, &b);
}

/* The guest scribbles over its buffer before the copy has been written. */
static void test_buffer_changes(Pair *t, gconstpointer by_filter)
{
    TestStep copy;

    start_held(t, 1u << TEST_WRITE, &copy, BDRV_REQ_READ, CLUSTER, CLUSTER);
    memset(copy.buf, 'G', CLUSTER);
    test_disk_hold(t->top, 0);
    test_step_finish(&copy);
    g_assert_cmpint(copy.buf[0], ==, 'b');
    assert_reads(t->blk, CLUSTER, CLUSTER, 'b');
}

static void test_pool_of_one(Pair *t, gconstpointer by_filter)
{
    TestStep *s = g_new(TestStep, 40);

    aio_context_set_pool_limits(t->env.ctx, 0, 1);
    test_disk_hold(t->top, 1u << TEST_WRITE);
    for (int i = 0; i < 40; i++) {
        start(t, &s[i], t->blk, i % 3 ? BDRV_REQ_READ : BDRV_REQ_WRITE,
              i % 4 * 1024, 1024);
    }
    test_disk_wait_held(t->top, 1);
    test_disk_hold(t->top, 0);
    for (int i = 0; i < 40; i++) {
        test_step_finish(&s[i]);
    }
    assert_reads(t->blk, 0, CLUSTER, 'X');
    g_free(s);
}

/* ---- Many threads ---- */

#define THREADS 6
#define SECTORS (SIZE / 512)
#define ROUNDS  300

typedef struct Writer {
    Pair *pair;
    int index;
    uint8_t last[SECTORS];
} Writer;

static void change_sector(Writer *w, GRand *rand, int sector)
{
    uint8_t value = g_rand_int_range(rand, 0, 256);
    uint8_t buf[512];
    int ret;

    memset(buf, value, sizeof(buf));
    if (value < 40) {
        value = 0;
        ret = blk_pwrite_zeroes(w->pair->blk, sector * 512, 512, 0);
    } else if (w->index % 2) {
        ret = test_request_run(w->pair->env.ctx, w->pair->blk, BDRV_REQ_WRITE,
                               sector * 512, 512, buf, 0);
    } else {
        ret = blk_pwrite(w->pair->blk, sector * 512, 512, buf, 0);
    }
    g_assert_cmpint(ret, ==, 0);
    w->last[sector] = value;
}

/* Ours are as we left them, whatever is copied round them. */
static void read_sectors(Writer *w, GRand *rand)
{
    int first = g_rand_int_range(rand, 0, SECTORS);
    int n = g_rand_int_range(rand, 1, MIN(SECTORS - first, 20) + 1);
    g_autofree uint8_t *buf = g_malloc(n * 512);
    int ret = w->index % 2 ?
              test_request_run(w->pair->env.ctx, w->pair->blk, BDRV_REQ_READ,
                               first * 512, n * 512, buf, 0) :
              blk_pread(w->pair->blk, first * 512, n * 512, buf, 0);

    g_assert_cmpint(ret, ==, 0);
    for (int i = 0; i < n; i++) {
        if ((first + i) % THREADS == w->index) {
            g_assert_cmpint(buf[i * 512], ==, w->last[first + i]);
            g_assert_cmpint(buf[i * 512 + 511], ==, w->last[first + i]);
        }
    }
}

/* Sectors are owned by turns, so every cluster is everybody's. */
static void writer_main(void *opaque)
{
    Writer *w = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(w->index);

    for (int i = 0; i < ROUNDS; i++) {
        int sector = g_rand_int_range(rand, 0, SECTORS / THREADS) * THREADS +
                     w->index;

        if (i % 3 == 0) {
            change_sector(w, rand, sector);
        } else {
            read_sectors(w, rand);
        }
    }
}

static void stress(Pair *t, int pool_size)
{
    Writer *w = g_new0(Writer, THREADS);
    TestThread *threads[THREADS];

    aio_context_set_pool_limits(t->env.ctx, 0, pool_size);
    t->top->latency_ns = 20 * 1000;
    for (int i = 0; i < THREADS; i++) {
        w[i].pair = t;
        w[i].index = i;
        for (int s = 0; s < SECTORS; s++) {
            w[i].last[s] = 'a' + s * 512 / CLUSTER;
        }
        threads[i] = test_thread_start(writer_main, &w[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        test_thread_join(threads[i]);
    }
    for (int s = 0; s < SECTORS; s++) {
        assert_reads(t->blk, s * 512, 512, w[s % THREADS].last[s]);
    }
    g_free(w);
}

static void test_stress(Pair *t, gconstpointer by_filter)
{
    stress(t, 4);
}

static void test_stress_one_worker(Pair *t, gconstpointer by_filter)
{
    stress(t, 1);
}

/* ---- Who may copy ---- */

static void test_read_only(Pair *t, gconstpointer by_filter)
{
    json_t *options = test_options("{'read-only':true}");
    Error *err = NULL;

    g_assert_false(bdrv_reopen(t->overlay, options, &err));
    if (!by_filter) {
        g_assert_cmpstr(error_get_pretty(err), ==, "Can't set node 'top' to "
                        "r/o with copy-on-read enabled");
    }
    error_free(err);
    err = NULL;
    g_assert_false(bdrv_enable_copy_on_read(bdrv_backing_bs(t->overlay),
                                            &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Can't use copy-on-read on "
                    "read-only device");
    error_free(err);
    assert_reads(t->blk, 0, 512, 'a');
    g_assert_cmpint(t->top->allocated[0], ==, 1);
}

/* Another process writes to the image meanwhile. */
static void test_inactive(Pair *t, gconstpointer by_filter)
{
    g_assert_true(bdrv_set_backing_hd(t->overlay, NULL, &error_abort));
    g_assert_true(blk_set_perm(t->blk, 0, BLK_PERM_ALL, &error_abort));
    g_assert_true(bdrv_inactivate(blk_bs(t->blk), &error_abort));
    assert_reads(t->blk, 0, 512, 0);
    g_assert_cmpint(t->top->allocated[0], ==, 0);
    g_assert_true(bdrv_activate(blk_bs(t->blk), &error_abort));
    assert_reads(t->blk, 0, 512, 0);
    g_assert_cmpint(t->top->allocated[0], ==, 2);
}

/* ---- The filter ---- */

static void test_passes_on(Pair *t, gconstpointer by_filter)
{
    BlockDriverInfo info;

    g_assert_cmpint(blk_pwrite_zeroes(t->blk, 0, CLUSTER, BDRV_REQ_MAY_UNMAP),
                    ==, 0);
    g_assert_cmpint(test_disk_call(t->top, TEST_ZEROES, 0).flags, ==,
                    BDRV_REQ_MAY_UNMAP);
    g_assert_cmpint(blk_pdiscard(t->blk, 0, CLUSTER), ==, 0);
    g_assert_cmpint(test_disk_count(t->top, TEST_DISCARD), ==, 1);
    g_assert_cmpint(blk_flush(t->blk), ==, 0);
    g_assert_cmpint(test_disk_count(t->top, TEST_FLUSH), ==, 1);
    g_assert_cmpint(blk_getlength(t->blk), ==, SIZE);
    g_assert_cmpint(bdrv_get_info(blk_bs(t->blk), &info), ==, 0);
    g_assert_cmpint(info.cluster_size, ==, CLUSTER);
}

/* Who only reads needs the flush of what was copied, too. */
static void test_reader_flushes(Pair *t, gconstpointer by_filter)
{
    g_assert_true(blk_set_perm(t->blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                               &error_abort));
    assert_reads(t->blk, 0, 512, 'a');
    g_assert_cmpint(t->top->allocated[0], ==, 1);
    g_assert_cmpint(blk_flush(t->blk), ==, 0);
    g_assert_cmpint(test_disk_count(t->top, TEST_FLUSH), ==, 1);
}

/* Without it, the node is as it was. */
static void test_goes_away(Pair *t, gconstpointer by_filter)
{
    BlockDriverState *bs = t->overlay;

    g_assert_cmpint(bs->tracking, ==, 1);
    bdrv_ref(bs);
    blk_unref(t->blk);
    g_assert_cmpint(bs->tracking, ==, 0);
    t->blk = blk_new(t->env.graph, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    g_assert_true(blk_insert_bs(t->blk, bs, &error_abort));
    bdrv_unref(bs);
    assert_reads(t->blk, 0, 512, 'a');
    g_assert_cmpint(t->top->allocated[0], ==, 0);
}

static void expect_error(Pair *t, const char *options, const char *text)
{
    json_t *o = test_options("{'driver':'copy-on-read'%s}", options);
    Error *err = NULL;

    g_assert_null(bdrv_open(t->env.graph, NULL, NULL, o, BDRV_O_RDWR, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
    g_assert_cmpint(t->overlay->tracking, ==, 1);
}

static void test_refused(Pair *t, gconstpointer by_filter)
{
    expect_error(t, "", "A block device must be specified for \"file\"");
    expect_error(t, ",'file':'base'", "Block node is read-only");
    expect_error(t, ",'file':'top','bottom':'b'", "Bottom node 'b' not found");
    expect_error(t, ",'node-name':'b','file':'top','bottom':'b'",
                 "Bottom node 'b' is a filter");
    expect_error(t, ",'file':{'driver':'null-co','node-name':'n'},"
                 "'bottom':'base'", "Bottom node 'base' is not in the backing "
                 "chain of node 'n'");
    expect_error(t, ",'file':'top','foo':1", "Block format 'copy-on-read' "
                 "does not support the option 'foo'");
}

/* ---- With a bottom ---- */

/* base: 'a' …; middle: cluster 1 is 'm', 2 is zeroes; top: nothing. */
static void open_three(Pair *t, TestDisk *middle, const char *bottom)
{
    memset(middle->data + CLUSTER, 'm', CLUSTER);
    middle->allocated[1] = 1;
    middle->allocated[2] = 2;       /* there is room, if it ends before */
    blk_unref(t->blk);
    t->blk = test_open(t->env.graph, "{'driver':'copy-on-read','bottom':'%s',"
                       "'file':{'driver':'test-overlay','disk':'top',"
                       "'node-name':'top','backing':{'driver':'test-filter',"
                       "'file':{'driver':'test-overlay','disk':'middle',"
                       "'node-name':'middle','backing':{'driver':'test',"
                       "'disk':'base','node-name':'base'}}}}}", bottom);
}

static void read_four(Pair *t, const char *allocated)
{
    uint8_t buf[4 * CLUSTER];

    g_assert_cmpint(blk_pread(t->blk, 0, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, 'a');
    g_assert_cmpint(buf[CLUSTER], ==, 'm');
    g_assert_cmpint(buf[2 * CLUSTER], ==, 0);
    g_assert_cmpint(buf[3 * CLUSTER], ==, 'd');
    for (int i = 0; i < 4; i++) {
        g_assert_cmpint(t->top->allocated[i], ==, allocated[i] - '0');
    }
    blk_unref(t->blk);
    t->blk = NULL;
}

static void test_bottom(Pair *t, gconstpointer by_filter)
{
    g_autoptr(TestDisk) middle = test_disk_new("middle", SIZE);

    open_three(t, middle, "top");
    read_four(t, "0000");
    open_three(t, middle, "middle");
    read_four(t, "0120");
    memset(t->top->allocated, 0, 4);
    open_three(t, middle, "base");
    read_four(t, "1121");
}

/* Behind the end of the middle one there is nothing that it has. */
static void test_bottom_ends_early(Pair *t, gconstpointer by_filter)
{
    g_autoptr(TestDisk) middle = test_disk_new("middle", 2 * CLUSTER);

    open_three(t, middle, "middle");
    assert_reads(t->blk, CLUSTER, CLUSTER, 'm');
    assert_reads(t->blk, 2 * CLUSTER, 2 * CLUSTER, 0);
    g_assert_cmpint(t->top->allocated[1], ==, 1);
    g_assert_cmpint(t->top->allocated[2], ==, 0);
    blk_unref(t->blk);
    t->blk = NULL;
}

static void add(const char *name, void (*fn)(Pair *t, gconstpointer by_filter))
{
    g_autofree char *node = g_strdup_printf("/block/copy-on-read/node/%s",
                                            name);
    g_autofree char *filter = g_strdup_printf("/block/copy-on-read/filter/%s",
                                              name);

    g_test_add(node, Pair, NULL, setup, fn, teardown);
    g_test_add(filter, Pair, "", setup, fn, teardown);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
    add("copies-whole-clusters", test_whole_clusters);
    add("async-read-copies", test_async);
    add("copies-only-what-is-missing", test_only_what_is_missing);
    add("zeroes-are-stored-as-zeroes", test_zeroes);
    add("end-of-disk-and-backing-file", test_end);
    add("not-recorded-in-bitmaps", test_bitmap);
    add("failing-copy-fails-the-read", test_copy_fails);
    add("failing-read-copies-nothing", test_read_fails);
    add("failing-status-copies-nothing", test_status_fails);
    add("what-is-there-needs-no-worker", test_fast);
    add("worker-without-backing-file", test_slow_without_backing);
    add("worker-if-tracked-for-another", test_slow_if_tracked);
    add("write-during-copy-wins", test_write_during_copy);
    add("write-beside-copy-wins", test_write_beside_copy);
    add("write-of-another-user-wins", test_write_from_beside);
    add("zeroes-during-copy-win", test_zeroes_during_copy);
    add("discard-during-copy-wins", test_discard_during_copy);
    add("copy-waits-for-write", test_copy_during_write);
    add("copy-waits-for-discard", test_copy_during_discard);
    add("two-copies-write-once", test_two_copies);
    add("read-beside-a-write", test_read_beside);
    add("copies-of-two-clusters-run-beside", test_copies_beside);
    add("changed-buffer-is-not-written", test_buffer_changes);
    add("conflicts-in-a-pool-of-one", test_pool_of_one);
    add("stress", test_stress);
    add("stress-one-worker", test_stress_one_worker);
    add("read-only-is-refused", test_read_only);
    add("inactive-node-is-not-written", test_inactive);
    add("all-else-passes", test_passes_on);
    add("reader-flushes-copies", test_reader_flushes);
#define F(name, fn) g_test_add("/block/copy-on-read/filter/" name, Pair, "", \
                               setup, fn, teardown)
    F("closed-copies-no-more", test_goes_away);
    F("refuses", test_refused);
    F("bottom", test_bottom);
    F("bottom-ends-early", test_bottom_ends_early);
    return g_test_run();
}
