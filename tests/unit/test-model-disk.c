/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the model of a disk calls legal.
 */
#include "model-disk.h"

static ModelDisk *model;
static uint64_t now;

#define BUF (8 * MODEL_SECTOR)

static void setup(ModelDiscard discard)
{
    model = model_disk_new(BUF, 2 * BUF, 5, discard);
    now = 0;
}

static void teardown(void)
{
    g_clear_pointer(&model, model_disk_free);
}

/* Of sector @from, @n of them. */
static ModelOp begin(ModelOpType type, int64_t from, int64_t n)
{
    ModelOp op = { type, from * MODEL_SECTOR, n * MODEL_SECTOR };
    uint8_t buf[BUF];

    model_op_begin(model, &op, ++now, buf);
    return op;
}

static void end(ModelOp *op, bool ok)
{
    model_op_end(model, op, ++now, ok);
}

static ModelOp whole(ModelOpType type, int64_t from, int64_t n)
{
    ModelOp op = begin(type, from, n);

    end(&op, true);
    return op;
}

/* A read of one sector, begun before, ends and finds write @id (0: zeroes). */
static bool read_ends(const ModelOp *op, uint32_t id)
{
    g_autoptr(GString) why = g_string_new(NULL);
    uint8_t buf[MODEL_SECTOR] = { 0 };
    bool ok;

    if (id) {
        model_stamp(buf, op->offset / MODEL_SECTOR, id, 5);
    }
    ok = model_check_read(model, op, ++now, buf, why);
    g_assert_cmpint(ok, ==, why->len == 0);
    return ok;
}

static bool reads(int64_t sector, uint32_t id)
{
    ModelOp op = begin(MODEL_READ, sector, 1);

    return read_ends(&op, id);
}

static bool survives(uint64_t cut, int64_t sector, uint32_t id)
{
    g_autoptr(GString) why = g_string_new(NULL);
    uint8_t buf[MODEL_SECTOR] = { 0 };

    if (id) {
        model_stamp(buf, sector, id, 5);
    }
    return model_check_crash(model, cut, sector * MODEL_SECTOR, MODEL_SECTOR,
                             buf, why);
}

static void test_stamps(void)
{
    uint8_t buf[MODEL_SECTOR] = { 0 };
    uint32_t id;
    int i;

    g_assert_cmpint(model_stamp_decode(buf, 3, 5, &id), ==, MODEL_VALUE_ZERO);
    model_stamp(buf, 3, 17, 5);
    g_assert_cmpint(model_stamp_decode(buf, 3, 5, &id), ==,
                    MODEL_VALUE_STAMP);
    g_assert_cmpuint(id, ==, 17);
    g_assert_cmpint(model_stamp_decode(buf, 4, 5, &id), ==, MODEL_VALUE_BAD);
    g_assert_cmpint(model_stamp_decode(buf, 3, 6, &id), ==, MODEL_VALUE_BAD);
    for (i = 0; i < MODEL_SECTOR; i++) {
        buf[i] ^= 1;
        g_assert_cmpint(model_stamp_decode(buf, 3, 5, &id), ==,
                        MODEL_VALUE_BAD);
        buf[i] ^= 1;
    }
}

static void test_one_after_the_other(void)
{
    ModelOp a, b;

    setup(MODEL_DISCARD_ZEROES);
    g_assert_true(reads(0, 0));
    a = whole(MODEL_WRITE, 0, 2);
    g_assert_false(reads(0, 0));
    g_assert_true(reads(0, a.id));
    g_assert_true(reads(1, a.id));
    g_assert_true(reads(2, 0));
    b = whole(MODEL_WRITE, 1, 1);
    g_assert_true(reads(0, a.id));
    g_assert_true(reads(1, b.id));
    g_assert_false(reads(1, a.id));
    g_assert_false(reads(1, b.id + 1));
    whole(MODEL_ZEROES, 1, 1);
    g_assert_true(reads(1, 0));
    g_assert_false(reads(1, b.id));
    teardown();
}

static void test_overlapping(void)
{
    ModelOp a, b, r;

    setup(MODEL_DISCARD_ZEROES);
    a = begin(MODEL_WRITE, 0, 1);
    b = begin(MODEL_WRITE, 0, 1);
    r = begin(MODEL_READ, 0, 1);
    g_assert_true(read_ends(&r, 0));
    end(&a, true);
    g_assert_false(reads(0, 0));
    g_assert_true(reads(0, b.id));
    /* b has been seen, but a may still have come after it. */
    g_assert_true(reads(0, a.id));
    end(&b, true);
    g_assert_true(reads(0, a.id));
    g_assert_true(reads(0, b.id));
    teardown();
}

/* A read that began before a write ended may miss it; a later one may not. */
/* A read of sector 0, begun before, ends and finds the start of write @first
 * (0: zeroes) and the rest of write @second. */
static bool read_ends_torn(const ModelOp *op, uint32_t first, uint32_t second)
{
    g_autoptr(GString) why = g_string_new(NULL);
    uint8_t head[MODEL_SECTOR] = { 0 };
    uint8_t buf[MODEL_SECTOR];

    if (first) {
        model_stamp(head, 0, first, 5);
    }
    model_stamp(buf, 0, second, 5);
    memcpy(buf, head, 100);
    return model_check_read(model, op, ++now, buf, why);
}

static void test_torn(void)
{
    ModelOp a, b, c, beside, late;

    setup(MODEL_DISCARD_ZEROES);
    a = whole(MODEL_WRITE, 0, 1);
    b = whole(MODEL_WRITE, 0, 1);
    beside = begin(MODEL_READ, 0, 1);
    c = whole(MODEL_WRITE, 0, 1);
    late = begin(MODEL_READ, 0, 1);
    g_assert_false(read_ends_torn(&beside, b.id, c.id));
    model_disk_allow_tearing(model);
    g_assert_true(read_ends_torn(&beside, b.id, c.id));
    g_assert_true(read_ends_torn(&beside, c.id, b.id));
    /* Of what is long gone, of what never was, and when nothing is written. */
    g_assert_false(read_ends_torn(&beside, a.id, c.id));
    g_assert_false(read_ends_torn(&beside, b.id, 99));
    g_assert_false(read_ends_torn(&beside, 0, c.id));
    g_assert_false(read_ends_torn(&late, b.id, c.id));
    teardown();
}

static void test_seen_is_seen(void)
{
    ModelOp a, b, r;

    setup(MODEL_DISCARD_ZEROES);
    a = whole(MODEL_WRITE, 0, 1);
    b = begin(MODEL_WRITE, 0, 1);
    r = begin(MODEL_READ, 0, 1);
    g_assert_true(reads(0, b.id));
    g_assert_false(reads(0, a.id));
    g_assert_true(read_ends(&r, a.id));
    end(&b, true);
    teardown();
}

static void test_failed(void)
{
    ModelOp a, b;

    setup(MODEL_DISCARD_ZEROES);
    a = whole(MODEL_WRITE, 0, 1);
    b = begin(MODEL_WRITE, 0, 1);
    end(&b, false);
    g_assert_true(reads(0, a.id));
    g_assert_true(reads(0, b.id));
    /* Now it has happened. */
    g_assert_false(reads(0, a.id));
    whole(MODEL_WRITE, 0, 1);
    g_assert_false(reads(0, b.id));
    teardown();
}

static void test_discard(void)
{
    ModelOp a;

    setup(MODEL_DISCARD_MAYBE);
    a = whole(MODEL_WRITE, 0, 1);
    whole(MODEL_DISCARD, 0, 1);
    g_assert_true(reads(0, 0));
    g_assert_true(reads(0, a.id));
    teardown();
    setup(MODEL_DISCARD_ZEROES);
    a = whole(MODEL_WRITE, 0, 1);
    whole(MODEL_DISCARD, 0, 1);
    g_assert_true(reads(0, 0));
    g_assert_false(reads(0, a.id));
    teardown();
}

static void test_crash(void)
{
    ModelOp a, b, c, f;

    setup(MODEL_DISCARD_ZEROES);
    a = whole(MODEL_WRITE, 0, 1);
    b = begin(MODEL_WRITE, 0, 1);
    g_assert_true(survives(++now, 0, 0));
    g_assert_true(survives(now, 0, a.id));
    g_assert_true(survives(now, 0, b.id));
    f = begin(MODEL_FLUSH, 0, 0);
    end(&b, true);
    /* The flush has not ended; a later write is not there before it began. */
    g_assert_true(survives(++now, 0, 0));
    end(&f, true);
    g_assert_true(survives(now, 0, 0));
    c = begin(MODEL_WRITE, 0, 1);
    g_assert_false(survives(c.start, 0, c.id));
    g_assert_true(survives(c.start + 1, 0, c.id));
    g_assert_false(survives(c.start + 1, 0, 0));
    /* b ended after the flush began: it may be lost. */
    g_assert_true(survives(c.start + 1, 0, a.id));
    end(&c, true);
    whole(MODEL_FLUSH, 0, 0);
    g_assert_false(survives(++now, 0, a.id));
    g_assert_false(survives(now, 0, b.id));
    g_assert_true(survives(now, 0, c.id));
    /* In the past, it was otherwise. */
    g_assert_true(survives(b.start + 1, 0, 0));
    teardown();
}

/* That a read saw it does not make it durable; FUA does. */
static void test_crash_fua(void)
{
    ModelOp a, b = { MODEL_WRITE, 0, MODEL_SECTOR, .fua = true };
    uint8_t buf[MODEL_SECTOR];

    setup(MODEL_DISCARD_ZEROES);
    a = whole(MODEL_WRITE, 0, 1);
    g_assert_true(reads(0, a.id));
    g_assert_true(survives(++now, 0, 0));
    model_op_begin(model, &b, ++now, buf);
    g_assert_true(survives(++now, 0, 0));
    end(&b, true);
    g_assert_false(survives(++now, 0, 0));
    g_assert_true(survives(now, 0, b.id));
    teardown();
}

static bool killed(uint32_t id)
{
    g_autoptr(GString) why = g_string_new(NULL);
    uint8_t buf[MODEL_SECTOR] = { 0 };

    if (id) {
        model_stamp(buf, 0, id, 5);
    }
    return model_check_kill(model, now + 1, 0, MODEL_SECTOR, buf, why);
}

static void test_kill(void)
{
    ModelOp a, b;

    setup(MODEL_DISCARD_ZEROES);
    a = whole(MODEL_WRITE, 0, 1);
    b = begin(MODEL_WRITE, 0, 1);
    g_assert_false(killed(0));
    g_assert_true(killed(a.id));
    g_assert_true(killed(b.id));
    teardown();
}

static bool has_size(int64_t sectors)
{
    g_autoptr(GString) why = g_string_new(NULL);

    return model_check_crash_size(model, now + 1, sectors * MODEL_SECTOR, why);
}

static void test_resize(void)
{
    ModelOp a, r;

    setup(MODEL_DISCARD_ZEROES);
    a = whole(MODEL_WRITE, 6, 1);
    r = begin(MODEL_RESIZE, 4, 0);
    g_assert_true(has_size(4));
    g_assert_true(has_size(8));
    end(&r, true);
    g_assert_true(has_size(8));
    whole(MODEL_FLUSH, 0, 0);
    g_assert_false(has_size(8));
    g_assert_true(has_size(4));
    g_assert_cmpint(model_disk_size(model), ==, 4 * MODEL_SECTOR);
    whole(MODEL_RESIZE, 16, 0);
    g_assert_false(reads(6, a.id));
    g_assert_true(reads(6, 0));
    r = begin(MODEL_RESIZE, 2, 0);
    end(&r, false);
    g_assert_cmpint(model_disk_size(model), ==, 16 * MODEL_SECTOR);
    g_assert_true(has_size(2));
    g_assert_true(has_size(16));
    teardown();
}

static void test_settle(void)
{
    uint8_t buf[BUF] = { 0 };
    ModelOp a, b;

    setup(MODEL_DISCARD_ZEROES);
    a = begin(MODEL_WRITE, 0, 1);
    b = begin(MODEL_WRITE, 0, 1);
    end(&a, true);
    end(&b, true);
    model_stamp(buf, 0, a.id, 5);
    model_disk_settle(model, buf);
    g_assert_true(reads(0, a.id));
    g_assert_false(reads(0, b.id));
    g_assert_true(reads(1, 0));
    g_assert_true(survives(++now, 0, a.id));
    teardown();
}

/* All of what is configured comes, within the disk and the limits. */
static void test_random(void)
{
    const ModelMix mix = {
        .weight = { 1, 1, 1, 1, 1, 1 }, .align = 1024, .max_bytes = 3072,
        .unit = 2048,
    };
    g_autoptr(GRand) rand = g_rand_new_with_seed(3);
    unsigned count[MODEL_OP__MAX] = { 0 };
    int i;

    setup(MODEL_DISCARD_ZEROES);
    for (i = 0; i < 5000; i++) {
        ModelOp op;

        model_random_op(model, rand, &mix, &op);
        count[op.type]++;
        g_assert_cmpint(op.offset % 1024, ==, 0);
        g_assert_cmpint(op.bytes % 1024, ==, 0);
        g_assert_cmpint(op.bytes, <=, 3072);
        if (op.type == MODEL_RESIZE) {
            g_assert_cmpint(op.offset, <=, 2 * BUF);
        } else {
            g_assert_cmpint(op.offset + op.bytes, <=, BUF);
        }
        g_assert_true(op.bytes || op.type >= MODEL_FLUSH);
    }
    for (i = 0; i < MODEL_OP__MAX; i++) {
        g_assert_cmpuint(count[i], >, 100);
    }
    teardown();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define T(name, fn) g_test_add_func("/model-disk/" name, fn)
    T("stamps", test_stamps);
    T("read/one-after-the-other", test_one_after_the_other);
    T("read/overlapping-writes", test_overlapping);
    T("read/torn", test_torn);
    T("read/what-was-seen-has-happened", test_seen_is_seen);
    T("read/failed-write-maybe", test_failed);
    T("read/discard", test_discard);
    T("crash/flushed-is-there", test_crash);
    T("crash/fua", test_crash_fua);
    T("crash/kill-loses-nothing", test_kill);
    T("crash/size", test_resize);
    T("settle", test_settle);
    T("random", test_random);
    return g_test_run();
}
