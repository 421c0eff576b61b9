/*
 * Tracked requests: who waits for whom, in which order, and that unaligned
 * writes do not lose each other's data.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "test-driver.h"

#define BLOCK 4096

/* ---- When it is on ---- */

static void test_on_and_off(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockBackend *blk, *other;
    BlockDriverState *bs;

    test_env_init(&e);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    bs = blk_bs(blk);
    g_assert_cmpint(bs->tracking, ==, 1);
    blk_set_user_block_size(blk, BLOCK);
    g_assert_cmpint(bs->tracking, ==, 0);
    blk_set_user_block_size(blk, 512);
    g_assert_cmpint(bs->tracking, ==, 1);
    blk_set_user_block_size(blk, BLOCK);

    other = blk_new(e.graph, 0, BLK_PERM_ALL);
    blk_insert_bs(other, bs, &error_abort);
    g_assert_cmpint(bs->tracking, ==, 1);
    blk_unref(other);
    g_assert_cmpint(bs->tracking, ==, 0);

    bdrv_drained_begin(bs);
    bdrv_tracking_begin(bs);
    bdrv_drained_end(bs);
    g_assert_cmpint(bs->tracking, ==, 1);
    bdrv_drained_begin(bs);
    bdrv_tracking_end(bs);
    bdrv_drained_end(bs);
    blk_unref(blk);
}

/* Only the parents that do not keep to the alignment matter. */
static void test_off_below_filter(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockBackend *blk;

    test_env_init(&e);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test-filter',"
                    "'file':{'driver':'test','disk':'d'}}");
    g_assert_cmpint(blk_bs(blk)->tracking, ==, 1);
    g_assert_cmpint(bdrv_primary_bs(blk_bs(blk))->tracking, ==, 0);
    blk_unref(blk);
}

typedef struct Attach {
    BlockBackend *blk;
    BlockDriverState *bs;
    QemuEvent drained;
    bool attached;              /* atomic */
} Attach;

static void note_drained(void *opaque)
{
    Attach *a = opaque;

    qemu_event_set(&a->drained);
}

static const BlockDevOps drained_ops = { .drained_begin = note_drained };

static void attach_main(void *opaque)
{
    Attach *a = opaque;

    blk_insert_bs(a->blk, a->bs, &error_abort);
    qatomic_set(&a->attached, true);
}

/*
 * Requests that run untracked when tracking begins would not be seen: an
 * unaligned write of the new user could undo them.
 */
static void test_turns_on_drained(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    g_autofree char *buf = g_malloc0(BLOCK);
    Attach a = { 0 };
    BlockBackend *blk;
    TestThread *t;
    TestRequest r;

    test_env_init(&e);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    blk_set_user_block_size(blk, BLOCK);
    test_disk_hold(d, 1u << TEST_WRITE);
    test_request_init(&r, e.ctx, blk, BDRV_REQ_WRITE, 0, BLOCK, buf);
    test_request_submit(&r);
    test_disk_wait_held(d, 1);

    qemu_event_init(&a.drained, false);
    blk_set_dev_ops(blk, &drained_ops, &a);
    a.bs = blk_bs(blk);
    a.blk = blk_new(e.graph, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    t = test_thread_start(attach_main, &a);
    g_assert_true(qemu_event_timedwait(&a.drained, TEST_TIMEOUT_NS / 20));
    g_assert_false(qatomic_read(&a.attached));
    test_disk_hold(d, 0);
    test_thread_join(t);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    blk_set_dev_ops(blk, NULL, NULL);
    qemu_event_destroy(&a.drained);
    test_request_destroy(&r);
    blk_unref(a.blk);
    blk_unref(blk);
}

/* ---- Who waits ---- */

typedef struct Range {
    BdrvRequestType type;
    int64_t offset, bytes;
    int flags;
} Range;

/* The first is held in the driver; does the second get there, too? */
static bool runs_beside(TestEnv *e, TestDisk *d, BlockBackend *blk, Range a,
                        Range b)
{
    g_autofree char *buf_a = g_malloc0(a.bytes + 1);
    g_autofree char *buf_b = g_malloc0(b.bytes + 1);
    TestRequest ra, rb;
    bool waits;

    test_disk_hold(d, TEST_IO);
    test_request_init(&ra, e->ctx, blk, a.type, a.offset, a.bytes, buf_a);
    test_request_init(&rb, e->ctx, blk, b.type, b.offset, b.bytes, buf_b);
    ra.req.flags = a.flags;
    rb.req.flags = b.flags;
    test_request_submit(&ra);
    test_disk_wait_held(d, 1);
    test_request_submit(&rb);
    waits = qatomic_read(&rb.req.state) == BDRV_REQ_STATE_PARKED;
    if (!waits) {
        test_disk_wait_held(d, 2);
    }
    test_disk_hold(d, 0);
    g_assert_cmpint(test_request_wait(&ra), ==, 0);
    g_assert_cmpint(test_request_wait(&rb), ==, 0);
    test_request_destroy(&ra);
    test_request_destroy(&rb);
    return !waits;
}

static void test_conflicts(void)
{
    static const struct {
        Range a, b;
        bool beside;
    } cases[] = {
        /* Two aligned ones never conflict, whatever they are. */
        { { BDRV_REQ_WRITE, 0, BLOCK }, { BDRV_REQ_WRITE, 0, BLOCK }, true },
        { { BDRV_REQ_READ, 0, 512 }, { BDRV_REQ_READ, 0, 512 }, true },
        { { BDRV_REQ_READ, 0, 512 }, { BDRV_REQ_WRITE, 0, BLOCK }, true },
        /* Parts of one block do, if one of them is a write. */
        { { BDRV_REQ_WRITE, 0, 512 }, { BDRV_REQ_WRITE, 3584, 512 }, false },
        { { BDRV_REQ_WRITE, 0, 512 }, { BDRV_REQ_READ, 3584, 512 }, false },
        { { BDRV_REQ_READ, 0, 512 }, { BDRV_REQ_WRITE, 512, 512 }, false },
        { { BDRV_REQ_WRITE, 0, BLOCK }, { BDRV_REQ_WRITE, 512, 512 }, false },
        { { BDRV_REQ_WRITE, 0, 512 }, { BDRV_REQ_DISCARD, 0, BLOCK }, false },
        { { BDRV_REQ_WRITE_ZEROES, 0, 512 }, { BDRV_REQ_WRITE, 512, 512 },
          false },
        /* Next to each other they do not. */
        { { BDRV_REQ_WRITE, 0, 512 }, { BDRV_REQ_WRITE, BLOCK, 512 }, true },
        { { BDRV_REQ_WRITE, 512, BLOCK }, { BDRV_REQ_READ, 2 * BLOCK, 512 },
          true },
        { { BDRV_REQ_WRITE, 512, BLOCK }, { BDRV_REQ_READ, 2 * BLOCK - 512,
          512 }, false },
        /* What asks to be alone is. */
        { { BDRV_REQ_WRITE, 0, BLOCK, BDRV_REQ_SERIALISING },
          { BDRV_REQ_READ, 0, BLOCK }, false },
        { { BDRV_REQ_READ, 0, BLOCK },
          { BDRV_REQ_WRITE, 0, BLOCK, BDRV_REQ_SERIALISING }, false },
        /* A flush waits for nobody, whatever its range says. */
        { { BDRV_REQ_WRITE, 0, 512 }, { BDRV_REQ_FLUSH, 0, 0 }, true },
        { { BDRV_REQ_WRITE, 0, 512 }, { BDRV_REQ_FLUSH, 100, 512 }, true },
    };
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_test_message("case %zu", i);
        g_assert_cmpint(runs_beside(&e, d, blk, cases[i].a, cases[i].b), ==,
                        cases[i].beside);
    }
    blk_unref(blk);
}

static void test_no_wait(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    char buf[2][512] = { { 0 } };
    TestRequest r;
    BlockBackend *blk;

    test_env_init(&e);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    test_disk_hold(d, 1u << TEST_WRITE);
    test_request_init(&r, e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf[0]);
    test_request_submit(&r);
    test_disk_wait_held(d, 1);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf[1], BDRV_REQ_NO_WAIT), ==,
                    -EBUSY);
    g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_READ, 0, 512, buf[1],
                                     BDRV_REQ_NO_WAIT), ==, -EBUSY);
    test_disk_hold(d, 0);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    g_assert_cmpint(test_request_run(e.ctx, blk, BDRV_REQ_READ, 0, 512, buf[1],
                                     BDRV_REQ_NO_WAIT), ==, 0);
    test_request_destroy(&r);
    blk_unref(blk);
}

/* ---- In which order ---- */

static bool is_parked(TestRequest *r)
{
    return qatomic_read(&r->req.state) == BDRV_REQ_STATE_PARKED;
}

/*
 * first [0, 512) runs; long [0, 2 blocks) waits for it; late in block 1 would
 * conflict with long only, and must not overtake it; free in block 2 may.
 */
static void first_come_first_served(bool cancel)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    g_autofree char *buf = g_malloc0(4 * BLOCK);
    TestRequest first, wide, late, beside;
    BlockBackend *blk;

    test_env_init(&e);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    test_disk_hold(d, 1u << TEST_WRITE);
    test_request_init(&first, e.ctx, blk, BDRV_REQ_WRITE, 0, 512, buf);
    test_request_init(&wide, e.ctx, blk, BDRV_REQ_WRITE, 512, BLOCK, buf);
    test_request_init(&late, e.ctx, blk, BDRV_REQ_WRITE, BLOCK + 1024, 512,
                      buf);
    test_request_init(&beside, e.ctx, blk, BDRV_REQ_WRITE, 2 * BLOCK, 512,
                      buf);
    test_request_submit(&first);
    test_disk_wait_held(d, 1);
    test_request_submit(&wide);
    test_request_submit(&late);
    test_request_submit(&beside);
    test_disk_wait_held(d, 2);
    g_assert_true(is_parked(&wide) && is_parked(&late));
    if (cancel) {
        test_request_cancel(&wide);
        test_disk_wait_held(d, 3);              /* first, beside, late */
        g_assert_cmpint(test_request_wait(&wide), ==, -ECANCELED);
        g_assert_false(is_parked(&late));
    }
    test_disk_hold(d, 0);
    g_assert_cmpint(test_request_wait(&first), ==, 0);
    g_assert_cmpint(test_request_wait(&wide), ==, cancel ? -ECANCELED : 0);
    g_assert_cmpint(test_request_wait(&late), ==, 0);
    g_assert_cmpint(test_request_wait(&beside), ==, 0);
    if (!cancel) {
        g_assert_cmpint(test_disk_call(d, TEST_WRITE, 2).bytes, ==, 2 * BLOCK);
        g_assert_cmpint(test_disk_call(d, TEST_WRITE, 3).offset, ==, BLOCK);
    }
    test_request_destroy(&first);
    test_request_destroy(&wide);
    test_request_destroy(&late);
    test_request_destroy(&beside);
    blk_unref(blk);
}

static void test_order(void)
{
    first_come_first_served(false);
}

static void test_cancel_lets_others_go(void)
{
    first_come_first_served(true);
}

/* ---- Read, modify, write ---- */

#define WRITERS 6
#define SECTORS 64
#define ROUNDS  150

typedef struct Writer {
    BlockBackend *blk;
    TestEnv *env;
    int index;
    uint8_t last[SECTORS];      /* what we wrote to our own sectors */
} Writer;

/* Sectors are owned by turns, so every block is everybody's. */
static void writer_main(void *opaque)
{
    Writer *w = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(w->index);
    uint8_t buf[512];
    int i;

    for (i = 0; i < ROUNDS; i++) {
        int sector = g_rand_int_range(rand, 0, SECTORS / WRITERS) * WRITERS +
                     w->index;
        uint8_t value = g_rand_int_range(rand, 0, 256);
        int ret;

        memset(buf, value, sizeof(buf));
        if (value < 32) {
            value = 0;
            ret = blk_pwrite_zeroes(w->blk, sector * 512, 512, 0);
        } else if (w->index % 2) {
            ret = test_request_run(w->env->ctx, w->blk, BDRV_REQ_WRITE,
                                   sector * 512, 512, buf, 0);
        } else {
            ret = blk_pwrite(w->blk, sector * 512, 512, buf, 0);
        }
        g_assert_cmpint(ret, ==, 0);
        w->last[sector] = value;
        g_assert_cmpint(blk_pread(w->blk, sector * 512, 512, buf, 0), ==, 0);
        g_assert_cmpint(buf[0], ==, value);
        g_assert_cmpint(buf[511], ==, value);
    }
}

static void write_from_all(int pool_size)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", SECTORS * 512);
    Writer w[WRITERS] = { { 0 } };
    TestThread *threads[WRITERS];
    BlockBackend *blk;
    int i, s;

    test_env_init(&e);
    aio_context_set_pool_limits(e.ctx, 0, pool_size);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    for (i = 0; i < WRITERS; i++) {
        w[i].blk = blk;
        w[i].env = &e;
        w[i].index = i;
        threads[i] = test_thread_start(writer_main, &w[i]);
    }
    for (i = 0; i < WRITERS; i++) {
        test_thread_join(threads[i]);
    }
    for (s = 0; s < SECTORS; s++) {
        g_assert_cmpint(d->data[s * 512], ==, w[s % WRITERS].last[s]);
        g_assert_cmpint(d->data[s * 512 + 511], ==, w[s % WRITERS].last[s]);
    }
    blk_unref(blk);
}

static void test_rmw(void)
{
    write_from_all(0);
}

static void test_rmw_one_worker(void)
{
    write_from_all(1);
}

/* Many that conflict, in a pool of one: each in its turn. */
static void test_pool_of_one(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    char buf[512] = { 0 };
    TestRequest r[40];
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    aio_context_set_pool_limits(e.ctx, 0, 1);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    test_disk_hold(d, TEST_IO);
    for (i = 0; i < ARRAY_SIZE(r); i++) {
        test_request_init(&r[i], e.ctx, blk, BDRV_REQ_WRITE, i % 8 * 512, 512,
                          buf);
        test_request_submit(&r[i]);
    }
    test_disk_wait_held(d, 1);
    test_disk_hold(d, 0);
    for (i = 0; i < ARRAY_SIZE(r); i++) {
        g_assert_cmpint(test_request_wait(&r[i]), ==, 0);
        test_request_destroy(&r[i]);
    }
    g_assert_cmpint(test_disk_count(d, TEST_WRITE), ==, 40);
    blk_unref(blk);
}

/* A nested request waits in its worker: the node below tracks. */
static void test_nested(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB + 512);
    char buf[512] = { 0 };
    TestRequest r[8];
    BlockBackend *blk;
    size_t i;

    test_env_init(&e);
    aio_context_set_pool_limits(e.ctx, 0, 1);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test-format','offset':512,"
                    "'file':{'driver':'test','disk':'d'}}");
    blk_set_user_block_size(blk, BLOCK);
    g_assert_cmpint(bdrv_primary_bs(blk_bs(blk))->tracking, ==, 1);
    test_disk_hold(d, TEST_IO);
    for (i = 0; i < ARRAY_SIZE(r); i++) {
        test_request_init(&r[i], e.ctx, blk, BDRV_REQ_WRITE, i % 2 * 512, 512,
                          buf);
        test_request_submit(&r[i]);
    }
    test_disk_wait_held(d, 1);
    test_disk_hold(d, 0);
    for (i = 0; i < ARRAY_SIZE(r); i++) {
        g_assert_cmpint(test_request_wait(&r[i]), ==, 0);
        test_request_destroy(&r[i]);
    }
    blk_unref(blk);
}

static void test_truncate(void)
{
    g_auto(TestEnv) e = { 0 };
    g_autoptr(TestDisk) d = test_disk_new("d", 64 * KiB);
    BlockBackend *blk;

    test_env_init(&e);
    d->limits.request_alignment = BLOCK;
    blk = test_open(e.graph, "{'driver':'test','disk':'d'}");
    g_assert_true(blk_truncate(blk, 128 * KiB, false, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(blk_getlength(blk), ==, 128 * KiB);
    g_assert_true(blk_truncate(blk, 0, false, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(blk_getlength(blk), ==, 0);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
#define T(name, fn) g_test_add_func("/block/tracked/" name, fn)
    T("on-while-somebody-needs-it", test_on_and_off);
    T("off-below-filter", test_off_below_filter);
    T("turned-on-while-drained", test_turns_on_drained);
    T("conflicts", test_conflicts);
    T("no-wait-fails-with-ebusy", test_no_wait);
    T("first-come-first-served", test_order);
    T("cancelled-one-holds-nobody-up", test_cancel_lets_others_go);
    T("rmw-loses-nothing", test_rmw);
    T("rmw-loses-nothing-one-worker", test_rmw_one_worker);
    T("conflicts-in-a-pool-of-one", test_pool_of_one);
    T("nested-requests-wait-in-a-pool-of-one", test_nested);
    T("truncate", test_truncate);
    return g_test_run();
}
