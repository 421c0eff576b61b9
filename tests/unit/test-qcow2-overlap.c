/*
 * The set of metadata clusters, and what is said when a write would hit one.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/qcow2.h"
#include "qemu/atomic.h"
#include "qemu/thread.h"

#define CLUSTER 512

typedef struct Env {
    BlockDriverState bs;
    BDRVQcow2State s;
    int marked;
} Env;

/* ---- What the set calls ---- */

int qcow2_mark_corrupt(BlockDriverState *bs)
{
    container_of(bs, Env, bs)->marked++;
    return 0;
}

/* ---- Environment ---- */

static Env *env_new(void)
{
    Env *e = g_new0(Env, 1);

    driver_init(&e->s.lock);
    e->s.cluster_bits = 9;
    e->s.cluster_size = CLUSTER;
    e->s.writable = true;
    e->s.overlap_check = QCOW2_OL_CACHED;
    e->s.metadata = qcow2_metadata_new();
    g_assert_nonnull(e->s.metadata);
    e->bs.opaque = &e->s;
    return e;
}

static void env_free(Env *e)
{
    qcow2_metadata_free(e->s.metadata);
    driver_destroy(&e->s.lock);
    g_free(e);
}

static void add(Env *e, int64_t offset, int64_t bytes, int kind)
{
    driver_lock(&e->s.lock);
    g_assert_cmpint(qcow2_metadata_add(&e->s, offset, bytes, kind), ==, 0);
    driver_unlock(&e->s.lock);
}

static void del(Env *e, int64_t offset, int64_t bytes, int kinds)
{
    driver_lock(&e->s.lock);
    qcow2_metadata_remove(&e->s, offset, bytes, kinds);
    driver_unlock(&e->s.lock);
}

static int hits(Env *e, int64_t offset, int64_t bytes)
{
    return qcow2_metadata_overlap(&e->s, QCOW2_OL_ALL, offset, bytes);
}

/* ---- The set ---- */

/* Tables that come and go for years: more than there is room for at once. */
static void test_churn(void)
{
    enum { AT_ONCE = 16, N = (1 << 25) + AT_ONCE };
    Env *e = env_new();

    driver_lock(&e->s.lock);
    for (int64_t i = 0; i < N; i++) {
        g_assert_cmpint(qcow2_metadata_add(&e->s, i * CLUSTER, CLUSTER,
                                           QCOW2_OL_ACTIVE_L2), ==, 0);
        qcow2_metadata_remove(&e->s, (i - AT_ONCE) * CLUSTER, CLUSTER,
                              QCOW2_OL_ACTIVE_L2);
    }
    driver_unlock(&e->s.lock);
    g_assert_cmphex(hits(e, 0, (int64_t)(N - AT_ONCE) * CLUSTER), ==, 0);
    for (int64_t i = N - AT_ONCE; i < N; i++) {
        g_assert_cmphex(hits(e, i * CLUSTER, 1), ==, QCOW2_OL_ACTIVE_L2);
    }
    env_free(e);
}

static void test_ranges(void)
{
    Env *e = env_new();

    g_assert_cmphex(hits(e, 0, 1 * TiB >> 20), ==, 0);
    add(e, 0, 1, QCOW2_OL_MAIN_HEADER);
    add(e, 4 * CLUSTER + 8, CLUSTER, QCOW2_OL_ACTIVE_L1);   /* two of them */
    add(e, 5 * CLUSTER, CLUSTER, QCOW2_OL_INACTIVE_L2);
    g_assert_cmphex(hits(e, CLUSTER - 1, 1), ==, QCOW2_OL_MAIN_HEADER);
    g_assert_cmphex(hits(e, CLUSTER, 3 * CLUSTER), ==, 0);
    g_assert_cmphex(hits(e, CLUSTER, 3 * CLUSTER + 1), ==, QCOW2_OL_ACTIVE_L1);
    g_assert_cmphex(hits(e, 6 * CLUSTER - 1, 1), ==,
                    QCOW2_OL_ACTIVE_L1 | QCOW2_OL_INACTIVE_L2);
    g_assert_cmphex(hits(e, 6 * CLUSTER, 100 * CLUSTER), ==, 0);
    g_assert_cmphex(hits(e, 0, 100 * CLUSTER), ==, QCOW2_OL_MAIN_HEADER |
                    QCOW2_OL_ACTIVE_L1 | QCOW2_OL_INACTIVE_L2);
    g_assert_cmphex(qcow2_metadata_overlap(&e->s, QCOW2_OL_INACTIVE_L2, 0,
                                           5 * CLUSTER), ==, 0);
    del(e, 4 * CLUSTER, 1, QCOW2_OL_ALL & ~QCOW2_OL_ACTIVE_L1);
    g_assert_cmphex(hits(e, 4 * CLUSTER, CLUSTER), ==, QCOW2_OL_ACTIVE_L1);
    del(e, 4 * CLUSTER, 1, QCOW2_OL_ACTIVE_L1);
    g_assert_cmphex(hits(e, 4 * CLUSTER, CLUSTER), ==, 0);
    g_assert_cmphex(hits(e, 5 * CLUSTER, CLUSTER), !=, 0);
    del(e, 7 * CLUSTER, CLUSTER, QCOW2_OL_ALL); /* was not there */
    add(e, 4 * CLUSTER, 1, QCOW2_OL_REFCOUNT_BLOCK);
    g_assert_cmphex(hits(e, 4 * CLUSTER, 1), ==, QCOW2_OL_REFCOUNT_BLOCK);
    /* What images may say. */
    g_assert_cmphex(hits(e, -CLUSTER, CLUSTER), ==, 0);
    g_assert_cmphex(hits(e, INT64_MAX - 1, CLUSTER), ==, 0);
    g_assert_cmphex(hits(e, 0, 0), ==, 0);
    env_free(e);
}

static void test_model(void)
{
    Env *e = env_new();
    enum { N = 5000 };
    uint8_t *model = g_malloc0(N);

    for (int step = 0; step < 100000; step++) {
        int i = g_test_rand_int_range(0, N);
        int kind = 1 << g_test_rand_int_range(0, 8);

        switch (g_test_rand_int_range(0, 4)) {
        case 0:
            add(e, (int64_t)i * CLUSTER, CLUSTER, kind);
            model[i] |= kind;
            break;
        case 1:
            del(e, (int64_t)i * CLUSTER, CLUSTER, kind);
            model[i] &= ~kind | QCOW2_OL_MAIN_HEADER;   /* stays one */
            break;
        default:
            g_assert_cmphex(hits(e, (int64_t)i * CLUSTER, 1), ==, model[i]);
            break;
        }
    }
    for (int i = 0; i < N; i++) {
        g_assert_cmphex(hits(e, (int64_t)i * CLUSTER, CLUSTER), ==, model[i]);
    }
    g_free(model);
    env_free(e);
}

typedef struct Reader {
    Env *e;
    bool stop;                      /* atomic */
    int64_t n;                      /* atomic: added so far, in order */
} Reader;

/* What was added before is there, what never is added is not. */
static void *reader(void *opaque)
{
    Reader *r = opaque;

    while (!qatomic_read(&r->stop)) {
        int64_t n = qatomic_load_acquire(&r->n);

        for (int64_t i = MAX(0, n - 100); i < n; i++) {
            g_assert_cmphex(hits(r->e, 2 * i * CLUSTER, 1), ==,
                            QCOW2_OL_ACTIVE_L2);
            g_assert_cmphex(hits(r->e, (2 * i + 1) * CLUSTER, 1), ==, 0);
        }
    }
    return NULL;
}

static void test_readers(void)
{
    Reader r = { .e = env_new() };
    QemuThread t[2];

    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(qemu_thread_create(&t[i], "r", reader, &r), ==, 0);
    }
    for (int64_t n = 0; n < 100000; n++) {
        add(r.e, 2 * n * CLUSTER, CLUSTER, QCOW2_OL_ACTIVE_L2);
        qatomic_store_release(&r.n, n + 1);
    }
    qatomic_set(&r.stop, true);
    for (int i = 0; i < 2; i++) {
        qemu_thread_join(&t[i]);
    }
    env_free(r.e);
}

/* Clusters whose entries, in the smallest set, begin at the same place. */
static int64_t same_place_as_first(void)
{
    const uint64_t golden = 0x9e3779b97f4a7c15u;
    uint64_t n = 1;

    while ((golden * (1 + n)) >> 56 != golden >> 56) {
        n++;
    }
    return n * CLUSTER;
}

static void *come_and_go(void *opaque)
{
    Reader *r = opaque;

    while (!qatomic_read(&r->stop)) {
        add(r->e, 0, CLUSTER, QCOW2_OL_ACTIVE_L2);
        del(r->e, 0, CLUSTER, QCOW2_OL_ALL);
    }
    return NULL;
}

/* The place where it would be becomes another's while a reader looks. */
static void test_neighbour(void)
{
    Reader r = { .e = env_new() };
    int64_t never = same_place_as_first();
    int64_t end = qemu_clock_ns() + 300 * INT64_C(1000000);
    QemuThread t;

    g_assert_cmpint(qemu_thread_create(&t, "w", come_and_go, &r), ==, 0);
    while (qemu_clock_ns() < end) {
        for (int i = 0; i < 10000; i++) {
            g_assert_cmphex(hits(r.e, never, 1), ==, 0);
        }
    }
    qatomic_set(&r.stop, true);
    qemu_thread_join(&t);
    env_free(r.e);
}

/* All that the tables in memory refer to. */
static void test_active(void)
{
    Env *e = env_new();
    Qcow2L1 *l1 = g_malloc0(sizeof(*l1) + 100 * sizeof(uint64_t));
    uint64_t reftable[64] = { [63] = 30 * CLUSTER };

    l1->offset = 10 * CLUSTER;
    l1->size = 100;                             /* two clusters */
    l1->entries[0] = QCOW2_OFLAG_COPIED | 20 * CLUSTER;
    l1->entries[99] = 21 * CLUSTER;
    l1->entries[98] = UINT64_MAX;               /* a lie: no harm */
    e->s.l1 = l1;
    driver_lock(&e->s.lock);
    e->s.reftable = reftable;
    e->s.reftable_offset = 14 * CLUSTER;
    e->s.reftable_size = 64;
    e->s.bitmap_directory_offset = 40 * CLUSTER;
    e->s.bitmap_directory_size = 24;
    g_assert_cmpint(qcow2_metadata_add_active(&e->s), ==, 0);
    driver_unlock(&e->s.lock);
    for (int i = 0; i < 50; i++) {
        int want = i == 0 ? QCOW2_OL_MAIN_HEADER :
                   i == 10 || i == 11 ? QCOW2_OL_ACTIVE_L1 :
                   i == 14 ? QCOW2_OL_REFCOUNT_TABLE :
                   i == 20 || i == 21 ? QCOW2_OL_ACTIVE_L2 :
                   i == 30 ? QCOW2_OL_REFCOUNT_BLOCK :
                   i == 40 ? QCOW2_OL_BITMAP_DIRECTORY : 0;

        g_assert_cmphex(hits(e, i * CLUSTER, CLUSTER), ==, want);
    }
    g_free(l1);
    env_free(e);
}

/* ---- Signals ---- */

static void test_check(void)
{
    Env *e = env_new();

    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_passed();
        g_test_trap_assert_stderr(
            "qcow2: Marking image as corrupt: Preventing invalid write on "
            "metadata (overlaps with active L2 table); further corruption "
            "events will be suppressed\n");
        env_free(e);
        return;
    }
    add(e, 8 * CLUSTER, CLUSTER, QCOW2_OL_ACTIVE_L2);
    add(e, 9 * CLUSTER, CLUSTER, QCOW2_OL_INACTIVE_L2);
    g_assert_cmpint(qcow2_check_overlap(&e->bs, 0, 0, 8 * CLUSTER), ==, 0);
    g_assert_cmpint(qcow2_check_overlap(&e->bs, QCOW2_OL_ACTIVE_L2,
                                        8 * CLUSTER, CLUSTER), ==, 0);
    g_assert_cmpint(qcow2_check_overlap(&e->bs, 0, 9 * CLUSTER, CLUSTER), ==,
                    0);                         /* not asked for */
    g_assert_false(e->s.corrupt);
    g_assert_cmpint(qcow2_check_overlap(&e->bs, 0, 0, 9 * CLUSTER), ==, -EIO);
    g_assert_true(e->s.corrupt);
    g_assert_cmpint(e->marked, ==, 1);
    driver_lock(&e->s.lock);
    g_assert_cmpint(qcow2_check_overlap_locked(&e->bs, 0, 8 * CLUSTER, 1), ==,
                    -EIO);
    driver_unlock(&e->s.lock);
    g_assert_cmpint(e->marked, ==, 1);
    env_free(e);
}

static void test_not_fatal(void)
{
    Env *e = env_new();

    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_passed();
        g_test_trap_assert_stderr(
            "qcow2: Image is corrupt: first 1; further non-fatal corruption "
            "events will be suppressed\n"
            "qcow2: Marking image as corrupt: third 3; further corruption "
            "events will be suppressed\n");
        env_free(e);
        return;
    }
    e->s.writable = false;
    qcow2_signal_corruption(&e->bs, true, -1, -1, "first %d", 1);
    g_assert_false(e->s.corrupt);
    qcow2_signal_corruption(&e->bs, false, -1, -1, "second %d", 2);
    e->s.writable = true;
    g_assert_cmpint(e->marked, ==, 0);
    qcow2_signal_corruption(&e->bs, true, -1, -1, "third %d", 3);
    qcow2_signal_corruption(&e->bs, false, -1, -1, "fourth %d", 4);
    g_assert_cmpint(e->marked, ==, 1);
    env_free(e);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-overlap/set/has what ranges touch", test_ranges);
    g_test_add_func("/qcow2-overlap/set/agrees with a model", test_model);
    g_test_add_func("/qcow2-overlap/set/grows under readers", test_readers);
    g_test_add_func("/qcow2-overlap/set/a place that changes hands",
                    test_neighbour);
    g_test_add_func("/qcow2-overlap/set/has room for what comes and goes",
                    test_churn);
    g_test_add_func("/qcow2-overlap/set/of the tables in memory", test_active);
    g_test_add_func("/qcow2-overlap/check/marks and says so once", test_check);
    g_test_add_func("/qcow2-overlap/signal/cannot mark read-only",
                    test_not_fatal);
    return g_test_run();
}
