/*
 * Dirty bitmaps of a node: what is marked on every way that a write can take,
 * that the ways stay the same, and that no write is lost to a thread that
 * clears and copies meanwhile.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "block/dirty-bitmap.h"
#include "test-driver.h"

#define SIZE (256 * KiB)
#define GRAN 4096

#define PLAIN  "{'driver':'test','disk':'d'}"
#define AIO    "{'driver':'test-aio','disk':'d'}"
#define FILTER "{'driver':'test-filter','file':" AIO "}"
#define FORMAT "{'driver':'test-format','file':" AIO "}"

typedef struct Fixture {
    TestEnv e;
    TestDisk *d;
    BlockBackend *blk;
    BlockDriverState *bs;
    BdrvDirtyBitmap *b;
} Fixture;

static void fixture_open(Fixture *f, const char *options)
{
    f->blk = test_open(f->e.graph, "%s", options);
    f->bs = blk_bs(f->blk);
    f->b = bdrv_create_dirty_bitmap(f->bs, GRAN, "b", &error_abort);
}

static void fixture_init(Fixture *f, const char *options)
{
    test_env_init(&f->e);
    f->d = test_disk_new("d", SIZE);
    if (options) {
        fixture_open(f, options);
    }
}

static void fixture_destroy(Fixture *f)
{
    blk_unref(f->blk);
    test_env_destroy(&f->e);
    test_disk_free(f->d);
}

/* This is dirty, to whole granules, and nothing else; it is cleared. */
static void assert_dirty(BdrvDirtyBitmap *b, int64_t offset, int64_t bytes)
{
    int64_t gran = bdrv_dirty_bitmap_granularity(b);
    int64_t end = QEMU_ALIGN_UP(offset + bytes, gran);

    offset = QEMU_ALIGN_DOWN(offset, gran);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, bytes ? end - offset : 0);
    if (bytes) {
        int64_t size = bdrv_dirty_bitmap_size(b);

        g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(b, 0, size), ==, offset);
        g_assert_cmpint(bdrv_dirty_bitmap_next_zero(b, offset, size - offset),
                        ==, end >= size ? -1 : end);
    }
    bdrv_clear_dirty_bitmap(b, NULL);
}

/* ---- Life and state ---- */

static void test_life(void)
{
    Fixture f = { 0 };
    Error *err = NULL;
    BdrvDirtyBitmap *anonymous, *second;
    g_autofree char *name = g_strnfill(BDRV_BITMAP_MAX_NAME_SIZE + 1, 'x');

    fixture_init(&f, PLAIN);
    g_assert_true(bdrv_find_dirty_bitmap(f.bs, "b") == f.b);
    g_assert_null(bdrv_find_dirty_bitmap(f.bs, "c"));
    g_assert_null(bdrv_create_dirty_bitmap(f.bs, GRAN, "b", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Bitmap already exists: b");
    g_clear_pointer(&err, error_free);
    g_assert_null(bdrv_create_dirty_bitmap(f.bs, GRAN, name, &err));
    g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                   "Bitmap name too long: x"));
    g_clear_pointer(&err, error_free);
    name[BDRV_BITMAP_MAX_NAME_SIZE] = '\0';
    second = bdrv_create_dirty_bitmap(f.bs, 512, name, &error_abort);
    anonymous = bdrv_create_dirty_bitmap(f.bs, 512, NULL, &error_abort);
    g_assert_true(bdrv_dirty_bitmap_next(f.bs, NULL) == anonymous);
    g_assert_true(bdrv_dirty_bitmap_next(f.bs, anonymous) == second);
    g_assert_true(bdrv_dirty_bitmap_next(f.bs, second) == f.b);
    g_assert_null(bdrv_dirty_bitmap_next(f.bs, f.b));
    bdrv_release_dirty_bitmap(anonymous);
    g_assert_true(bdrv_dirty_bitmap_next(f.bs, NULL) == second);
    bdrv_release_dirty_bitmap(NULL);
    fixture_destroy(&f);            /* what is left goes with the node */
}

static void assert_refused(BdrvDirtyBitmap *b, uint32_t flags,
                           const char *message, const char *hint)
{
    Error *err = NULL;

    g_assert_false(bdrv_dirty_bitmap_check(b, flags, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    g_assert_cmpstr(error_get_hint(err), ==, hint);
    error_free(err);
}

static void test_check(void)
{
    Fixture f = { 0 };

    fixture_init(&f, PLAIN);
    g_assert_true(bdrv_dirty_bitmap_check(f.b, BDRV_BITMAP_DEFAULT,
                                          &error_abort));
    bdrv_dirty_bitmap_set_inconsistent(f.b);
    g_assert_false(bdrv_dirty_bitmap_enabled(f.b));
    bdrv_enable_dirty_bitmap(f.b);
    g_assert_false(bdrv_dirty_bitmap_enabled(f.b));
    assert_refused(f.b, BDRV_BITMAP_ALLOW_RO,
                   "Bitmap 'b' is inconsistent and cannot be used",
                   "Try block-dirty-bitmap-remove to delete this bitmap from "
                   "disk\n");
    g_assert_false(bdrv_has_readonly_bitmaps(f.bs));
    bdrv_dirty_bitmap_set_readonly(f.b, true);
    g_assert_true(bdrv_has_readonly_bitmaps(f.bs));
    assert_refused(f.b, BDRV_BITMAP_DEFAULT,
                   "Bitmap 'b' is readonly and cannot be modified", "");
    bdrv_dirty_bitmap_set_busy(f.b, true);
    assert_refused(f.b, BDRV_BITMAP_DEFAULT,
                   "Bitmap 'b' is currently in use by another operation and "
                   "cannot be used", "");
    bdrv_dirty_bitmap_set_busy(f.b, false);
    fixture_destroy(&f);
}

static void test_query(void)
{
    Fixture f = { 0 };
    g_autoptr(json_t) list = NULL;
    g_autoptr(json_t) want = test_options(
        "{'l':[{'name':'c','count':512,'granularity':512,'recording':false,"
        "'busy':true,'persistent':true,'inconsistent':true},"
        "{'count':0,'granularity':512,'recording':true,'busy':false,"
        "'persistent':false},"
        "{'name':'b','count':8192,'granularity':4096,'recording':true,"
        "'busy':false,'persistent':false}]}");
    BdrvDirtyBitmap *c;

    fixture_init(&f, PLAIN);
    bdrv_set_dirty_bitmap(f.b, 4095, 2);
    bdrv_create_dirty_bitmap(f.bs, 512, NULL, &error_abort);
    c = bdrv_create_dirty_bitmap(f.bs, 512, "c", &error_abort);
    bdrv_set_dirty_bitmap(c, 0, 1);
    bdrv_dirty_bitmap_set_inconsistent(c);
    bdrv_dirty_bitmap_set_persistence(c, true);
    bdrv_dirty_bitmap_set_busy(c, true);
    list = bdrv_query_dirty_bitmaps(f.bs);
    g_assert_true(json_equal(list, json_object_get(want, "l")));
    bdrv_dirty_bitmap_set_busy(c, false);
    bdrv_release_dirty_bitmap(c);
    fixture_destroy(&f);
}

static void test_query_none(void)
{
    Fixture f = { 0 };

    fixture_init(&f, PLAIN);
    bdrv_release_dirty_bitmap(f.b);
    g_assert_null(bdrv_query_dirty_bitmaps(f.bs));
    fixture_destroy(&f);
}

/* ---- What is marked ---- */

static void test_blocking(void)
{
    Fixture f = { 0 };
    uint8_t buf[8192] = { 1 };

    fixture_init(&f, PLAIN);
    g_assert_cmpint(blk_pread(f.blk, 0, 8192, buf, 0), ==, 0);
    g_assert_cmpint(blk_flush(f.blk), ==, 0);
    assert_dirty(f.b, 0, 0);
    g_assert_cmpint(blk_pwrite(f.blk, 512, 512, buf, 0), ==, 0);
    assert_dirty(f.b, 512, 512);
    g_assert_cmpint(blk_pwrite(f.blk, 4000, 4200, buf, 0), ==, 0);
    assert_dirty(f.b, 4000, 4200);
    g_assert_cmpint(blk_pwrite(f.blk, SIZE - 1, 1, buf, 0), ==, 0);
    assert_dirty(f.b, SIZE - 1, 1);
    g_assert_cmpint(blk_pwrite_zeroes(f.blk, 8192, 30000, 0), ==, 0);
    assert_dirty(f.b, 8192, 30000);
    g_assert_cmpint(blk_pdiscard(f.blk, 16384, 4096), ==, 0);
    assert_dirty(f.b, 16384, 4096);
    fixture_destroy(&f);
}

/* Blocks that are read, modified and written back are marked whole. */
static void test_unaligned(void)
{
    Fixture f = { 0 };
    uint8_t buf[8192] = { 1 };
    BdrvDirtyBitmap *fine;

    fixture_init(&f, NULL);
    f.d->limits.request_alignment = 4096;
    f.d->limits.pdiscard_alignment = 8192;
    fixture_open(&f, PLAIN);
    fine = bdrv_create_dirty_bitmap(f.bs, 512, "fine", &error_abort);
    g_assert_cmpint(blk_pwrite(f.blk, 5000, 10, buf, 0), ==, 0);
    assert_dirty(fine, 4096, 4096);
    g_assert_cmpint(blk_pwrite_zeroes(f.blk, 5000, 4096, 0), ==, 0);
    assert_dirty(fine, 4096, 8192);
    /* Only whole units are discarded. */
    g_assert_cmpint(blk_pdiscard(f.blk, 4096, 16384), ==, 0);
    assert_dirty(fine, 8192, 8192);
    g_assert_cmpint(blk_pdiscard(f.blk, 4096, 4096), ==, 0);
    assert_dirty(fine, 0, 0);
    fixture_destroy(&f);
}

static void test_discard_ignored(void)
{
    Fixture f = { 0 };

    fixture_init(&f, "{'driver':'test-aio','disk':'d','discard':'ignore'}");
    g_assert_cmpint(blk_pdiscard(f.blk, 0, 4096), ==, 0);
    g_assert_cmpint(test_request_run(f.e.ctx, f.blk, BDRV_REQ_DISCARD, 0, 4096,
                                     NULL, 0), ==, 0);
    assert_dirty(f.b, 0, 0);
    fixture_destroy(&f);
}

static void test_failed(void)
{
    static const char *const graphs[] = { PLAIN, AIO };
    uint8_t buf[4096] = { 1 };

    for (size_t i = 0; i < ARRAY_SIZE(graphs); i++) {
        Fixture f = { 0 };

        fixture_init(&f, graphs[i]);
        test_disk_fail_all(f.d, TEST_IO, EIO);
        g_assert_cmpint(blk_pwrite(f.blk, 4096, 4096, buf, 0), ==, -EIO);
        assert_dirty(f.b, 4096, 4096);
        g_assert_cmpint(blk_pwrite_zeroes(f.blk, 4096, 4096, 0), ==, -EIO);
        assert_dirty(f.b, 4096, 4096);
        g_assert_cmpint(blk_pdiscard(f.blk, 4096, 4096), ==, -EIO);
        assert_dirty(f.b, 4096, 4096);
        g_assert_cmpint(test_request_run(f.e.ctx, f.blk, BDRV_REQ_WRITE, 8192,
                                         4096, buf, 0), ==, -EIO);
        assert_dirty(f.b, 8192, 4096);
        test_disk_fail_all(f.d, 0, 0);
        fixture_destroy(&f);
    }
}

/* The data is there though the flush for FUA fails. */
static void test_failed_fua(void)
{
    Fixture f = { 0 };
    uint8_t buf[4096] = { 1 };

    fixture_init(&f, PLAIN);
    test_disk_fail_all(f.d, 1u << TEST_FLUSH, EIO);
    g_assert_cmpint(blk_pwrite(f.blk, 0, 4096, buf, BDRV_REQ_FUA), ==, -EIO);
    assert_dirty(f.b, 0, 4096);
    g_assert_cmpint(blk_pwrite_zeroes(f.blk, 0, 4096, BDRV_REQ_FUA), ==, -EIO);
    assert_dirty(f.b, 0, 4096);
    test_disk_fail_all(f.d, 0, 0);
    fixture_destroy(&f);
}

static void test_every_granularity(void)
{
    Fixture f = { 0 };
    uint8_t buf[512] = { 1 };

    fixture_init(&f, PLAIN);
    for (int shift = 9; shift <= 31; shift++) {
        int64_t gran = INT64_C(1) << shift;
        BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(f.bs, gran, NULL,
                                                      &error_abort);

        g_assert_cmpint(blk_pwrite(f.blk, SIZE - 512, 512, buf, 0), ==, 0);
        assert_dirty(b, SIZE - 512, 512);
        bdrv_release_dirty_bitmap(b);
    }
    fixture_destroy(&f);
}

/* ---- The fast path ---- */

typedef enum Way { INLINE, SUBMITTED, WORKER } Way;

static BlkPathStats stats(BlockBackend *blk)
{
    BlkPathStats s;

    blk_get_path_stats(blk, &s);
    return s;
}

/* Run a request: it goes that way. */
static void goes(Fixture *f, BdrvRequestType type, int64_t offset,
                 int64_t bytes, Way way)
{
    g_autofree uint8_t *buf = g_malloc0(bytes);
    BlkPathStats before = stats(f->blk), after;

    buf[0] = 1;
    g_assert_cmpint(test_request_run(f->e.ctx, f->blk, type, offset, bytes,
                                     buf, 0), ==, 0);
    after = stats(f->blk);
    g_assert_cmpint(after.inline_done - before.inline_done, ==, way == INLINE);
    g_assert_cmpint(after.submitted - before.submitted, ==, way == SUBMITTED);
    g_assert_cmpint(after.worker - before.worker, ==, way == WORKER);
}

static void test_fast_path_is_kept(void)
{
    static const char *const graphs[] = { AIO, FILTER, FORMAT };

    for (size_t i = 0; i < ARRAY_SIZE(graphs); i++) {
        Fixture f = { 0 };
        Way zeroes = strstr(graphs[i], "format") ? WORKER : INLINE;

        fixture_init(&f, graphs[i]);
        goes(&f, BDRV_REQ_READ, 0, 4096, INLINE);
        assert_dirty(f.b, 0, 0);
        goes(&f, BDRV_REQ_WRITE, 4096, 512, INLINE);
        assert_dirty(f.b, 4096, 512);
        goes(&f, BDRV_REQ_WRITE_ZEROES, 8192, 8192, zeroes);
        assert_dirty(f.b, 8192, 8192);
        goes(&f, BDRV_REQ_DISCARD, 12288, 4096, INLINE);
        assert_dirty(f.b, 12288, 4096);
        /* And without. */
        bdrv_disable_dirty_bitmap(f.b);
        goes(&f, BDRV_REQ_WRITE, 4096, 512, INLINE);
        assert_dirty(f.b, 0, 0);
        bdrv_release_dirty_bitmap(f.b);
        goes(&f, BDRV_REQ_WRITE, 4096, 512, INLINE);
        fixture_destroy(&f);
    }
}

/* A bitmap further down, where the offset is another one. */
static void test_lower_node(void)
{
    Fixture f = { 0 };
    BdrvDirtyBitmap *lower;

    fixture_init(&f, FORMAT);
    lower = bdrv_create_dirty_bitmap(bdrv_primary_bs(f.bs), 512, NULL,
                                     &error_abort);
    bdrv_disable_dirty_bitmap(f.b);
    goes(&f, BDRV_REQ_WRITE, 1024, 512, INLINE);
    assert_dirty(lower, 4096 + 1024, 512);
    assert_dirty(f.b, 0, 0);
    /* Two that record on one way: a worker sees to both. */
    bdrv_enable_dirty_bitmap(f.b);
    goes(&f, BDRV_REQ_WRITE, 1024, 512, WORKER);
    assert_dirty(lower, 4096 + 1024, 512);
    assert_dirty(f.b, 1024, 512);
    goes(&f, BDRV_REQ_READ, 1024, 512, INLINE);
    fixture_destroy(&f);
}

/* Marked when it is done, not before; also what comes back to a worker. */
static void test_submitted(void)
{
    Fixture f = { 0 };
    TestRequest r;
    uint8_t buf[512] = { 1 };

    fixture_init(&f, AIO);
    test_disk_set_submit_mode(f.d, TEST_SUBMIT_LATER);
    test_request_init(&r, f.e.ctx, f.blk, BDRV_REQ_WRITE, 8192, 512, buf);
    test_request_submit(&r);
    test_disk_wait_held(f.d, 1);
    assert_dirty(f.b, 0, 0);
    test_disk_complete_held(f.d);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    assert_dirty(f.b, 8192, 512);
    /* Cancelled: who knows. */
    test_request_destroy(&r);
    test_request_init(&r, f.e.ctx, f.blk, BDRV_REQ_WRITE, 8192, 512, buf);
    test_request_submit(&r);
    test_disk_wait_held(f.d, 1);
    test_request_cancel(&r);
    g_assert_cmpint(test_request_wait(&r), ==, -ECANCELED);
    assert_dirty(f.b, 8192, 512);
    test_request_destroy(&r);
    test_disk_set_submit_mode(f.d, TEST_SUBMIT_REFUSE);
    goes(&f, BDRV_REQ_WRITE, 4096, 512, WORKER);
    assert_dirty(f.b, 4096, 512);
    test_disk_set_submit_mode(f.d, TEST_SUBMIT_WORKER);
    goes(&f, BDRV_REQ_WRITE, 4096, 512, WORKER);
    assert_dirty(f.b, 4096, 512);
    fixture_destroy(&f);
}

static void test_blocking_when_done(void)
{
    Fixture f = { 0 };
    TestRequest r;
    uint8_t buf[512] = { 1 };

    fixture_init(&f, PLAIN);
    test_disk_hold(f.d, 1u << TEST_WRITE);
    test_request_init(&r, f.e.ctx, f.blk, BDRV_REQ_WRITE, 8192, 512, buf);
    test_request_submit(&r);
    test_disk_wait_held(f.d, 1);
    assert_dirty(f.b, 0, 0);
    test_disk_hold(f.d, 0);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    assert_dirty(f.b, 8192, 512);
    test_request_destroy(&r);
    fixture_destroy(&f);
}

static void create_bitmap(void *opaque)
{
    Fixture *f = opaque;

    bdrv_create_dirty_bitmap(f->bs, 512, "new", &error_abort);
}

/* Until a request is parked, which says that the node is being drained. */
static void wait_for_drain(Fixture *f, TestRequest *r, uint8_t *buf)
{
    int64_t end = qemu_clock_ns() + TEST_TIMEOUT_NS;

    for (;;) {
        test_request_init(r, f->e.ctx, f->blk, BDRV_REQ_READ, 0, 512, buf);
        test_request_submit(r);
        if (stats(f->blk).parked > 0) {
            return;
        }
        g_assert_cmpint(test_request_wait(r), ==, 0);
        test_request_destroy(r);
        g_assert_cmpint(qemu_clock_ns(), <, end);
    }
}

/* What is under way when a bitmap is made completes first: it is drained. */
static void test_made_while_running(void)
{
    Fixture f = { 0 };
    TestRequest w, r;
    TestThread *t;
    uint8_t buf[512] = { 1 }, rbuf[512];

    fixture_init(&f, PLAIN);
    test_disk_hold(f.d, 1u << TEST_WRITE);
    test_request_init(&w, f.e.ctx, f.blk, BDRV_REQ_WRITE, 0, 512, buf);
    test_request_submit(&w);
    test_disk_wait_held(f.d, 1);
    /* Until it is joined, the other thread is the control thread. */
    t = test_thread_start(create_bitmap, &f);
    wait_for_drain(&f, &r, rbuf);
    test_disk_hold(f.d, 0);
    g_assert_cmpint(test_request_wait(&w), ==, 0);
    g_assert_cmpint(test_request_wait(&r), ==, 0);
    test_thread_join(t);
    assert_dirty(bdrv_find_dirty_bitmap(f.bs, "new"), 0, 0);
    test_request_destroy(&w);
    test_request_destroy(&r);
    fixture_destroy(&f);
}

/* ---- Size ---- */

static void test_truncate(void)
{
    Fixture f = { 0 };

    fixture_init(&f, PLAIN);
    bdrv_set_dirty_bitmap(f.b, SIZE - 8192, 8192);
    g_assert_true(blk_truncate(f.blk, SIZE - 4096, false, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(bdrv_dirty_bitmap_size(f.b), ==, SIZE - 4096);
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 4096);
    g_assert_true(blk_truncate(f.blk, SIZE, false, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    g_assert_cmpint(bdrv_dirty_bitmap_size(f.b), ==, SIZE);
    assert_dirty(f.b, SIZE - 8192, 4096);
    fixture_destroy(&f);
}

/* Writes past the end: enabled and disabled ones grow alike. */
static void test_growing_write(void)
{
    Fixture f = { 0 };
    BdrvDirtyBitmap *off;
    uint8_t buf[512] = { 1 };

    fixture_init(&f, NULL);
    f.d->growable = true;
    fixture_open(&f, PLAIN);
    blk_set_allow_write_beyond_eof(f.blk, true);
    off = bdrv_create_dirty_bitmap(f.bs, 512, "off", &error_abort);
    bdrv_disable_dirty_bitmap(off);
    g_assert_cmpint(blk_pwrite(f.blk, SIZE + 512, 512, buf, 0), ==, 0);
    g_assert_cmpint(bdrv_dirty_bitmap_size(f.b), ==, SIZE + 1024);
    g_assert_cmpint(bdrv_dirty_bitmap_size(off), ==, SIZE + 1024);
    assert_dirty(f.b, SIZE + 512, 512);
    assert_dirty(off, 0, 0);
    /* One that fails out there is nowhere. */
    test_disk_fail_all(f.d, 1u << TEST_WRITE, EIO);
    g_assert_cmpint(blk_pwrite(f.blk, 2 * SIZE, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(bdrv_dirty_bitmap_size(f.b), ==, SIZE + 1024);
    assert_dirty(f.b, 0, 0);
    fixture_destroy(&f);
}

/* ---- Bits ---- */

static void test_clear_and_restore(void)
{
    Fixture f = { 0 };
    HBitmap *backup;

    fixture_init(&f, PLAIN);
    bdrv_set_dirty_bitmap(f.b, 4096, 1);
    bdrv_clear_dirty_bitmap(f.b, &backup);
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 0);
    bdrv_set_dirty_bitmap(f.b, 0, 1);
    bdrv_restore_dirty_bitmap(f.b, backup);
    g_assert_false(bdrv_dirty_bitmap_get(f.b, 0));
    g_assert_true(bdrv_dirty_bitmap_get(f.b, 4096));
    g_assert_false(bdrv_dirty_bitmap_get(f.b, 2 * SIZE));
    bdrv_reset_dirty_bitmap(f.b, 4097, 4096);
    g_assert_true(bdrv_dirty_bitmap_get(f.b, 4096));
    bdrv_reset_dirty_bitmap(f.b, 4096, 4096);
    assert_dirty(f.b, 0, 0);
    fixture_destroy(&f);
}

static void test_take(void)
{
    Fixture f = { 0 };
    int64_t offset, bytes;

    fixture_init(&f, PLAIN);
    bdrv_set_dirty_bitmap(f.b, 8192, 5 * 4096);
    g_assert_true(bdrv_dirty_bitmap_take(f.b, 9000, 100, 4096, &offset,
                                         &bytes));
    g_assert_cmpint(offset, ==, 8192);
    g_assert_cmpint(bytes, ==, 4096);
    g_assert_true(bdrv_dirty_bitmap_take(f.b, 0, SIZE, 9000, &offset, &bytes));
    g_assert_cmpint(offset, ==, 12288);
    g_assert_cmpint(bytes, ==, 8192);
    g_assert_true(bdrv_dirty_bitmap_take(f.b, 0, INT64_MAX, INT64_MAX, &offset,
                                         &bytes));
    g_assert_cmpint(offset, ==, 20480);
    g_assert_cmpint(bytes, ==, 8192);
    g_assert_false(bdrv_dirty_bitmap_take(f.b, 0, SIZE, 4096, &offset,
                                          &bytes));
    g_assert_false(bdrv_dirty_bitmap_take(f.b, 2 * SIZE, 1, 4096, &offset,
                                          &bytes));
    fixture_destroy(&f);
}

static void test_merge(void)
{
    Fixture f = { 0 };
    g_autoptr(TestDisk) small G_GNUC_UNUSED = test_disk_new("s", 4096);
    BlockBackend *other;
    BdrvDirtyBitmap *fine, *wrong;
    HBitmap *backup;
    Error *err = NULL;

    fixture_init(&f, PLAIN);
    fine = bdrv_create_dirty_bitmap(f.bs, 512, "fine", &error_abort);
    bdrv_set_dirty_bitmap(fine, 4096 + 512, 512);
    bdrv_set_dirty_bitmap(f.b, 0, 1);
    g_assert_true(bdrv_merge_dirty_bitmap(f.b, fine, &backup, &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 8192);
    bdrv_restore_dirty_bitmap(f.b, backup);
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 4096);
    g_assert_true(bdrv_merge_dirty_bitmap(fine, f.b, NULL, &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(fine), ==, 4096 + 512);
    g_assert_true(bdrv_merge_dirty_bitmap(fine, fine, NULL, &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(fine), ==, 4096 + 512);

    other = test_open(f.e.graph, "{'driver':'test','disk':'s'}");
    wrong = bdrv_create_dirty_bitmap(blk_bs(other), 512, "w", &error_abort);
    g_assert_false(bdrv_merge_dirty_bitmap(f.b, wrong, &backup, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Bitmaps are of different sizes (destination size is "
                    "262144, source size is 4096) and can't be merged");
    error_free(err);
    bdrv_dirty_bitmap_set_readonly(f.b, true);
    g_assert_false(bdrv_merge_dirty_bitmap(f.b, fine, NULL, NULL));
    g_assert_true(bdrv_merge_dirty_bitmap(fine, f.b, NULL, &error_abort));
    blk_unref(other);
    fixture_destroy(&f);
}

static void test_successor(void)
{
    Fixture f = { 0 };
    uint8_t buf[512] = { 1 };

    fixture_init(&f, PLAIN);
    bdrv_set_dirty_bitmap(f.b, 0, 1);
    g_assert_true(bdrv_dirty_bitmap_create_successor(f.b, &error_abort));
    g_assert_true(bdrv_dirty_bitmap_busy(f.b));
    g_assert_true(bdrv_dirty_bitmap_has_successor(f.b));
    g_assert_false(bdrv_dirty_bitmap_create_successor(f.b, NULL));
    g_assert_cmpint(blk_pwrite(f.blk, 8192, 512, buf, 0), ==, 0);
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 4096);
    bdrv_reclaim_dirty_bitmap(f.b);
    g_assert_false(bdrv_dirty_bitmap_busy(f.b));
    g_assert_cmpint(bdrv_get_dirty_count(f.b), ==, 8192);

    g_assert_true(bdrv_dirty_bitmap_create_successor(f.b, &error_abort));
    g_assert_cmpint(blk_pwrite(f.blk, 16384, 512, buf, 0), ==, 0);
    g_assert_true(blk_truncate(f.blk, SIZE / 2, false, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    bdrv_dirty_bitmap_abdicate(f.b);
    g_assert_cmpint(bdrv_dirty_bitmap_size(f.b), ==, SIZE / 2);
    assert_dirty(f.b, 16384, 512);
    fixture_destroy(&f);
}

/* ---- Many threads ---- */

#define BLOCK   512
#define WRITES  3000
#define WRITERS 3

typedef struct Model {
    Fixture f;
    BlockBackend *target;
    int writing;                /* writers that go on; atomic */
    int next_seed;
    uint64_t next_value;        /* atomic */
} Model;

/* Each write has a value of its own; @async: on the fast path. */
static void write_block(Model *m, GRand *rand, bool async)
{
    uint64_t buf[BLOCK / 8] = { qatomic_fetch_inc(&m->next_value) };
    int64_t offset = g_rand_int_range(rand, 0, SIZE / BLOCK) * BLOCK;
    int ret = async ? test_request_run(m->f.e.ctx, m->f.blk, BDRV_REQ_WRITE,
                                       offset, BLOCK, buf, 0) :
                      blk_pwrite(m->f.blk, offset, BLOCK, buf, 0);

    g_assert_cmpint(ret, ==, 0);
}

static void writer(void *opaque)
{
    Model *m = opaque;
    int seed = qatomic_fetch_inc(&m->next_seed);
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

    for (int i = 0; i < WRITES; i++) {
        if (i % 50 == 0) {
            g_assert_cmpint(blk_pwrite_zeroes(m->f.blk, seed * 8192, 8192, 0),
                            ==, 0);
        }
        write_block(m, rand, seed == 0);
    }
    qatomic_dec(&m->writing);
}

/* Take what is dirty, and copy it; true if there was anything. */
static bool copy_some(Model *m)
{
    g_autofree uint8_t *buf = NULL;
    int64_t offset, bytes;

    if (!bdrv_dirty_bitmap_take(m->f.b, 0, SIZE, 4 * GRAN, &offset, &bytes)) {
        return false;
    }
    buf = g_malloc(bytes);
    g_assert_cmpint(blk_pread(m->f.blk, offset, bytes, buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(m->target, offset, bytes, buf, 0), ==, 0);
    return true;
}

static void run_model(const char *graph)
{
    Model m = { .writing = WRITERS, .next_value = 1 };
    g_autoptr(TestDisk) copy = test_disk_new("copy", SIZE);
    TestThread *threads[WRITERS];
    int64_t copies = 0;

    fixture_init(&m.f, graph);
    m.f.d->latency_ns = 10000;          /* of blocking calls: room for races */
    m.target = test_open(m.f.e.graph, "{'driver':'test','disk':'copy'}");
    for (int i = 0; i < WRITERS; i++) {
        threads[i] = test_thread_start(writer, &m);
    }
    while (qatomic_read(&m.writing) > 0) {
        copies += copy_some(&m);
    }
    for (int i = 0; i < WRITERS; i++) {
        test_thread_join(threads[i]);
    }
    while (copy_some(&m)) {
        copies++;
    }
    g_test_message("%" PRId64 " copies", copies);
    g_assert_cmpint(stats(m.f.blk).worker, ==, 0);
    g_assert_cmpmem(m.f.d->data, SIZE, copy->data, SIZE);
    blk_unref(m.target);
    fixture_destroy(&m.f);
}

static void test_no_write_is_lost(void)
{
    run_model(AIO);
}

static void test_no_write_is_lost_filter(void)
{
    run_model(FILTER);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_drivers_register();
    g_test_add_func("/dirty-bitmap/life", test_life);
    g_test_add_func("/dirty-bitmap/check", test_check);
    g_test_add_func("/dirty-bitmap/query/all", test_query);
    g_test_add_func("/dirty-bitmap/query/none", test_query_none);
    g_test_add_func("/dirty-bitmap/marks/blocking", test_blocking);
    g_test_add_func("/dirty-bitmap/marks/unaligned", test_unaligned);
    g_test_add_func("/dirty-bitmap/marks/discard-ignored",
                    test_discard_ignored);
    g_test_add_func("/dirty-bitmap/marks/failed", test_failed);
    g_test_add_func("/dirty-bitmap/marks/failed-fua", test_failed_fua);
    g_test_add_func("/dirty-bitmap/marks/when-done", test_blocking_when_done);
    g_test_add_func("/dirty-bitmap/marks/every-granularity",
                    test_every_granularity);
    g_test_add_func("/dirty-bitmap/fast-path/kept", test_fast_path_is_kept);
    g_test_add_func("/dirty-bitmap/fast-path/lower-node", test_lower_node);
    g_test_add_func("/dirty-bitmap/fast-path/submitted", test_submitted);
    g_test_add_func("/dirty-bitmap/made-while-running",
                    test_made_while_running);
    g_test_add_func("/dirty-bitmap/size/truncate", test_truncate);
    g_test_add_func("/dirty-bitmap/size/growing-write", test_growing_write);
    g_test_add_func("/dirty-bitmap/bits/clear-and-restore",
                    test_clear_and_restore);
    g_test_add_func("/dirty-bitmap/bits/take", test_take);
    g_test_add_func("/dirty-bitmap/bits/merge", test_merge);
    g_test_add_func("/dirty-bitmap/successor", test_successor);
    g_test_add_func("/dirty-bitmap/threads/no-write-is-lost",
                    test_no_write_is_lost);
    g_test_add_func("/dirty-bitmap/threads/no-write-is-lost-below-a-filter",
                    test_no_write_is_lost_filter);
    return g_test_run();
}
