/*
 * The table cache, on a disk in memory: the block layer's functions that it
 * calls are this file's.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "block/qcow2.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"

#define TABLE 512
#define WORDS (TABLE / 8)
#define N_TABLES 32                 /* on the disk; the first is not used */
#define TIMEOUT_NS (INT64_C(30) * 1000 * 1000 * 1000)

typedef struct Env {
    BlockDriverState bs, file_bs;
    BdrvChild file;
    BDRVQcow2State *s;
    Qcow2Cache *c;

    QemuMutex lock;
    QemuCond cond;
    uint8_t disk[N_TABLES * TABLE];
    int reads, writes, write_backs;
    int fail_read, fail_write;      /* count down to the one that fails */
    bool hold;                      /* reads wait … */
    int held;                       /* … so many */
} Env;

static Env *env_of_file(BdrvChild *child)
{
    return container_of(child, Env, file);
}

/* ---- What the cache calls ---- */

static bool no_memory;

void *qemu_try_memalign(size_t alignment, size_t size)
{
    void *p;

    return no_memory || posix_memalign(&p, alignment, size) ? NULL : p;
}

void qemu_vfree(void *p)
{
    free(p);
}

static bool fails(int *countdown)
{
    return *countdown && --*countdown == 0;
}

int bdrv_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
               int flags)
{
    Env *e = env_of_file(child);
    int ret = 0;

    lock_rank_assert_below(RANK_DRIVER);
    qemu_mutex_lock(&e->lock);
    e->reads++;
    e->held++;
    qemu_cond_broadcast(&e->cond);
    while (e->hold) {
        qemu_cond_wait(&e->cond, &e->lock);
    }
    e->held--;
    if (fails(&e->fail_read)) {
        ret = -EIO;
    } else {
        g_assert_cmpint(offset + bytes, <=, sizeof(e->disk));
        memcpy(buf, e->disk + offset, bytes);
    }
    qemu_mutex_unlock(&e->lock);
    return ret;
}

int bdrv_pwrite(BdrvChild *child, int64_t offset, int64_t bytes,
                const void *buf, int flags)
{
    Env *e = env_of_file(child);
    int ret = 0;

    lock_rank_assert_below(RANK_DRIVER);
    qemu_mutex_lock(&e->lock);
    e->writes++;
    if (fails(&e->fail_write)) {
        ret = -ENOSPC;
    } else {
        g_assert_cmpint(offset + bytes, <=, sizeof(e->disk));
        memcpy(e->disk + offset, buf, bytes);
    }
    qemu_mutex_unlock(&e->lock);
    return ret;
}

int qcow2_check_overlap(BlockDriverState *bs, int own, int64_t offset,
                        int64_t bytes)
{
    g_assert_cmpint(own, ==, QCOW2_OL_SHARED_L2);
    return 0;
}

/* One at a time, and who comes meanwhile does it again. */
int qcow2_write_back_metadata(BlockDriverState *bs)
{
    Env *e = container_of(bs, Env, bs);
    BDRVQcow2State *s = e->s;
    int ret;

    while (s->flush_running) {
        driver_wait(&s->cond, &s->lock);
    }
    s->flush_running = true;
    e->write_backs++;
    ret = qcow2_cache_write_back(bs, e->c);
    s->flush_running = false;
    qemu_cond_broadcast(&s->cond);
    return ret;
}

/* ---- Environment ---- */

static Env *env_new(unsigned n_tables)
{
    Env *e = g_new0(Env, 1);

    e->s = g_new0(BDRVQcow2State, 1);
    driver_init(&e->s->lock);
    qemu_cond_init(&e->s->cond);
    qemu_mutex_init(&e->lock);
    qemu_cond_init(&e->cond);
    e->file_bs.bl.opt_mem_alignment = 4096;
    e->file.bs = &e->file_bs;
    e->bs.file = &e->file;
    e->bs.opaque = e->s;
    e->c = qcow2_cache_new(TABLE, n_tables);
    g_assert_nonnull(e->c);
    /* What is read ahead ends with a cluster. */
    e->s->cluster_size = 8 * TABLE;
    e->s->l2_cache = e->c;
    return e;
}

static void env_free(Env *e)
{
    qcow2_cache_free(e->c);
    driver_destroy(&e->s->lock);
    qemu_cond_destroy(&e->s->cond);
    qemu_mutex_destroy(&e->lock);
    qemu_cond_destroy(&e->cond);
    g_free(e->s);
    g_free(e);
}

static uint64_t disk_word(Env *e, int table, int index)
{
    return ldq_be_p(e->disk + table * TABLE + index * 8);
}

/* Table @n's word @index is n << 32 | index. */
static void number_disk(Env *e)
{
    for (int n = 0; n < N_TABLES; n++) {
        for (int i = 0; i < WORDS; i++) {
            stq_be_p(e->disk + n * TABLE + i * 8, (uint64_t)n << 32 | i);
        }
    }
}

static uint64_t get(Env *e, int table, int index)
{
    Qcow2Table *t;
    uint64_t v;

    driver_lock(&e->s->lock);
    g_assert_cmpint(qcow2_cache_get(&e->bs, e->c, table * TABLE, &t), ==, 0);
    v = qcow2_table_get64(t, index);
    driver_unlock(&e->s->lock);
    return v;
}

static int try_set(Env *e, int table, int index, uint64_t v)
{
    Qcow2Table *t;
    int ret;

    driver_lock(&e->s->lock);
    ret = qcow2_cache_get(&e->bs, e->c, table * TABLE, &t);
    if (ret == 0) {
        qcow2_table_set64(e->s, t, index, v);
    }
    driver_unlock(&e->s->lock);
    return ret;
}

static void set(Env *e, int table, int index, uint64_t v)
{
    g_assert_cmpint(try_set(e, table, index, v), ==, 0);
}

static void get_empty(Env *e, int table)
{
    Qcow2Table *t;

    driver_lock(&e->s->lock);
    g_assert_cmpint(qcow2_cache_get_empty(&e->bs, e->c, table * TABLE, &t), ==,
                    0);
    driver_unlock(&e->s->lock);
}

static void forget(Env *e, int table, int n)
{
    driver_lock(&e->s->lock);
    qcow2_cache_forget(e->c, table * TABLE, n * TABLE);
    driver_unlock(&e->s->lock);
}

static int write_back(Env *e)
{
    int ret;

    driver_lock(&e->s->lock);
    ret = qcow2_cache_write_back(&e->bs, e->c);
    driver_unlock(&e->s->lock);
    return ret;
}

static bool is_dirty(Env *e)
{
    bool ret;

    driver_lock(&e->s->lock);
    ret = qcow2_cache_is_dirty(e->c);
    driver_unlock(&e->s->lock);
    return ret;
}

static void clean_unused(Env *e)
{
    driver_lock(&e->s->lock);
    qcow2_cache_clean_unused(e->c);
    driver_unlock(&e->s->lock);
}

static bool is_cached(Env *e, int table)
{
    uint64_t w;

    return qcow2_cache_peek(e->c, table * TABLE, 0, 1, &w);
}

static void wait_held(Env *e, int n)
{
    int64_t deadline = qemu_clock_ns() + TIMEOUT_NS;

    qemu_mutex_lock(&e->lock);
    while (e->held < n) {
        g_assert_true(qemu_cond_timedwait(&e->cond, &e->lock,
                                          deadline - qemu_clock_ns()));
    }
    qemu_mutex_unlock(&e->lock);
}

static void set_hold(Env *e, bool hold)
{
    qemu_mutex_lock(&e->lock);
    e->hold = hold;
    qemu_cond_broadcast(&e->cond);
    qemu_mutex_unlock(&e->lock);
}

/* ---- One thread ---- */

static void test_read(void)
{
    Env *e = env_new(4);
    uint64_t words[64];

    number_disk(e);
    g_assert_false(is_cached(e, 1));
    g_assert_cmphex(get(e, 1, 5), ==, UINT64_C(1) << 32 | 5);
    g_assert_cmpint(e->reads, ==, 1);
    g_assert_true(qcow2_cache_peek(e->c, TABLE, 0, 64, words));
    for (int i = 0; i < 64; i++) {
        g_assert_cmphex(words[i], ==, UINT64_C(1) << 32 | i);
    }
    g_assert_cmphex(get(e, 1, 6), ==, UINT64_C(1) << 32 | 6);
    g_assert_cmpint(e->reads, ==, 1);
    g_assert_false(is_dirty(e));
    env_free(e);
}

static void test_bad_offset(void)
{
    static const int64_t bad[] = { 0, 1, TABLE + 8, -TABLE, INT64_MAX - 511,
                                   INT64_MIN };
    Env *e = env_new(1);
    Qcow2Table *t;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        driver_lock(&e->s->lock);
        g_assert_cmpint(qcow2_cache_get(&e->bs, e->c, bad[i], &t), ==, -EIO);
        g_assert_cmpint(qcow2_cache_get_empty(&e->bs, e->c, bad[i], &t), ==,
                        -EIO);
        driver_unlock(&e->s->lock);
    }
    g_assert_cmpint(e->reads, ==, 0);
    env_free(e);
}

static void test_no_memory(void)
{
    Env *e = env_new(4);
    Qcow2TableCopies *copies;

    set(e, 1, 0, 7);
    no_memory = true;
    driver_lock(&e->s->lock);
    g_assert_cmpint(qcow2_cache_copy_dirty(&e->bs, e->c, &copies), ==,
                    -ENOMEM);
    driver_unlock(&e->s->lock);
    g_assert_null(copies);
    no_memory = false;
    g_assert_true(is_dirty(e));
    g_assert_cmpint(write_back(e), ==, 0);
    g_assert_cmphex(disk_word(e, 1, 0), ==, 7);
    env_free(e);
}

/* Random operations against plain arrays, with so many slots. */
static void test_model(const void *opaque)
{
    Env *e = env_new(GPOINTER_TO_INT(opaque));
    uint64_t model[N_TABLES][WORDS];
    uint64_t w[2];

    number_disk(e);
    for (int n = 0; n < N_TABLES; n++) {
        for (int i = 0; i < WORDS; i++) {
            model[n][i] = disk_word(e, n, i);
        }
    }
    for (int step = 0; step < 20000; step++) {
        int n = g_test_rand_int_range(1, N_TABLES);
        int i = g_test_rand_int_range(0, WORDS);

        switch (g_test_rand_int_range(0, 100)) {
        case 0:
            get_empty(e, n);
            memset(model[n], 0, TABLE);
            break;
        case 1:
            g_assert_cmpint(write_back(e), ==, 0);
            g_assert_false(is_dirty(e));
            g_assert_cmphex(disk_word(e, n, i), ==, model[n][i]);
            break;
        case 2:
            g_assert_cmpint(write_back(e), ==, 0);
            forget(e, n, N_TABLES - n);
            g_assert_false(is_cached(e, n));
            break;
        case 3:
            clean_unused(e);
            break;
        case 4 ... 30:
            model[n][i] = (uint64_t)g_test_rand_int() << 32 | step;
            set(e, n, i, model[n][i]);
            g_assert_true(is_dirty(e));
            break;
        case 31 ... 60:
            i &= ~1;
            if (qcow2_cache_peek(e->c, n * TABLE, i, 2, w)) {
                g_assert_cmphex(w[0], ==, model[n][i]);
                g_assert_cmphex(w[1], ==, model[n][i + 1]);
            }
            break;
        default:
            g_assert_cmphex(get(e, n, i), ==, model[n][i]);
            break;
        }
    }
    g_assert_cmpint(write_back(e), ==, 0);
    for (int n = 1; n < N_TABLES; n++) {
        for (int i = 0; i < WORDS; i++) {
            g_assert_cmphex(disk_word(e, n, i), ==, model[n][i]);
        }
    }
    env_free(e);
}

/* A table that is looked at stays, one that is not goes. */
static void test_clock(void)
{
    Env *e = env_new(4);

    for (int n = 1; n < N_TABLES; n++) {
        get(e, n, 0);
        if (n > 1) {
            g_assert_true(is_cached(e, 1));
        }
    }
    g_assert_cmpint(e->reads, ==, N_TABLES - 1);
    g_assert_false(is_cached(e, 2));
    env_free(e);
}

static void test_clean_unused(void)
{
    Env *e = env_new(8);

    get(e, 1, 0);
    get(e, 2, 0);
    set(e, 3, 0, 7);
    clean_unused(e);                    /* they were used before this one */
    g_assert_true(is_cached(e, 1));
    clean_unused(e);
    clean_unused(e);
    g_assert_false(is_cached(e, 1));
    g_assert_false(is_cached(e, 2));
    g_assert_true(is_cached(e, 3));     /* dirty */
    g_assert_cmphex(get(e, 3, 0), ==, 7);
    env_free(e);
}

static void test_neighbours(void)
{
    Env *e = env_new(16);

    for (int n = 15; n >= 10; n--) {
        set(e, n, 0, n);
    }
    set(e, 3, 0, 3);
    g_assert_cmpint(write_back(e), ==, 0);
    g_assert_cmpint(e->writes, ==, 2);
    g_assert_cmphex(disk_word(e, 12, 0), ==, 12);
    g_assert_cmphex(disk_word(e, 3, 0), ==, 3);
    g_assert_cmpint(write_back(e), ==, 0);
    g_assert_cmpint(e->writes, ==, 2);
    env_free(e);
}

/* ---- Copies ---- */

static void test_copies(void)
{
    Env *e = env_new(1);
    Qcow2TableCopies *copies;
    Qcow2Table *t;

    driver_lock(&e->s->lock);
    g_assert_cmpint(qcow2_cache_copy_dirty(&e->bs, e->c, &copies), ==, 0);
    g_assert_null(copies);
    driver_unlock(&e->s->lock);
    set(e, 1, 0, 11);

    driver_lock(&e->s->lock);
    e->s->flush_running = true;
    g_assert_cmpint(qcow2_cache_copy_dirty(&e->bs, e->c, &copies), ==, 0);
    g_assert_nonnull(copies);
    g_assert_true(qcow2_cache_is_dirty(e->c));
    g_assert_cmpint(qcow2_cache_get(&e->bs, e->c, TABLE, &t), ==, 0);
    qcow2_table_set64(e->s, t, 0, 12);
    g_assert_cmpint(qcow2_cache_write_copies(&e->bs, e->c, copies), ==, 0);
    g_assert_cmphex(disk_word(e, 1, 0), ==, 11);
    g_assert_true(qcow2_cache_is_dirty(e->c));
    g_assert_cmpint(qcow2_cache_copy_dirty(&e->bs, e->c, &copies), ==, 0);
    qcow2_cache_drop_copies(e->c, copies);
    g_assert_true(qcow2_cache_is_dirty(e->c));
    e->s->flush_running = false;
    driver_unlock(&e->s->lock);

    g_assert_cmpint(write_back(e), ==, 0);
    g_assert_cmphex(disk_word(e, 1, 0), ==, 12);
    env_free(e);
}

static void *get_2(void *opaque)
{
    g_assert_cmphex(get(opaque, 2, 0), ==, UINT64_C(2) << 32);
    return NULL;
}

/* What is copied and not written must not leave, or the old would be read. */
static void test_copy_stays(void)
{
    Env *e = env_new(1);
    Qcow2TableCopies *copies;
    QemuThread t;

    number_disk(e);
    set(e, 1, 0, 11);
    driver_lock(&e->s->lock);
    e->s->flush_running = true;
    g_assert_cmpint(qcow2_cache_copy_dirty(&e->bs, e->c, &copies), ==, 0);
    driver_unlock(&e->s->lock);
    g_assert_cmpint(qemu_thread_create(&t, "get", get_2, e), ==, 0);
    for (int i = 0; i < 100; i++) {
        g_assert_cmphex(get(e, 1, 0), ==, 11);
        g_usleep(100);
    }
    g_assert_cmpint(e->reads, ==, 1);
    driver_lock(&e->s->lock);
    g_assert_cmpint(qcow2_cache_write_copies(&e->bs, e->c, copies), ==, 0);
    e->s->flush_running = false;
    qemu_cond_broadcast(&e->s->cond);
    driver_unlock(&e->s->lock);
    qemu_thread_join(&t);
    g_assert_cmphex(get(e, 1, 0), ==, 11);
    env_free(e);
}

/* Forgotten while its copy is written, and cached anew: the end of that write
 * says nothing about the new table. */
static void test_copy_forgotten(void)
{
    Env *e = env_new(2);
    Qcow2TableCopies *copies;

    set(e, 1, 0, 11);
    driver_lock(&e->s->lock);
    g_assert_cmpint(qcow2_cache_copy_dirty(&e->bs, e->c, &copies), ==, 0);
    qcow2_cache_forget(e->c, TABLE, TABLE);
    g_assert_false(qcow2_cache_is_dirty(e->c));
    driver_unlock(&e->s->lock);
    g_assert_cmphex(get(e, 1, 0), ==, 0);
    e->fail_write = 1;
    driver_lock(&e->s->lock);
    g_assert_cmpint(qcow2_cache_write_copies(&e->bs, e->c, copies), ==,
                    -ENOSPC);
    g_assert_false(qcow2_cache_is_dirty(e->c));
    driver_unlock(&e->s->lock);
    env_free(e);
}

/* ---- Errors ---- */

static void test_load_error(void)
{
    Env *e = env_new(1);
    Qcow2Table *t;

    number_disk(e);
    e->fail_read = 1;
    driver_lock(&e->s->lock);
    g_assert_cmpint(qcow2_cache_get(&e->bs, e->c, TABLE, &t), ==, -EIO);
    driver_unlock(&e->s->lock);
    g_assert_false(is_cached(e, 1));
    g_assert_cmphex(get(e, 1, 3), ==, UINT64_C(1) << 32 | 3);
    env_free(e);
}

static void test_write_error(void)
{
    Env *e = env_new(3);

    set(e, 1, 0, 11);
    set(e, 2, 0, 12);
    set(e, 9, 0, 19);
    e->fail_write = 1;
    g_assert_cmpint(write_back(e), ==, -ENOSPC);
    g_assert_true(is_dirty(e));
    g_assert_cmphex(disk_word(e, 1, 0), ==, 0);
    g_assert_cmphex(disk_word(e, 9, 0), ==, 19);
    g_assert_cmpint(write_back(e), ==, 0);
    g_assert_cmphex(disk_word(e, 1, 0), ==, 11);
    g_assert_cmphex(disk_word(e, 2, 0), ==, 12);
    g_assert_cmpint(e->writes, ==, 3);

    /* Eviction that needs it fails with it, and loses nothing. */
    set(e, 1, 0, 21);
    set(e, 2, 0, 22);
    set(e, 9, 0, 29);
    e->fail_write = 1;
    e->writes = 0;
    g_assert_cmpint(try_set(e, 5, 0, 1), ==, -ENOSPC);
    g_assert_cmphex(get(e, 1, 0), ==, 21);
    g_assert_cmphex(get(e, 2, 0), ==, 22);
    set(e, 5, 0, 25);
    g_assert_cmphex(get(e, 1, 0), ==, 21);
    g_assert_cmphex(get(e, 9, 0), ==, 29);
    g_assert_cmphex(get(e, 5, 0), ==, 25);
    env_free(e);
}

/* ---- Several threads ---- */

static void *get_1(void *opaque)
{
    g_assert_cmphex(get(opaque, 1, 0), ==, UINT64_C(1) << 32);
    return NULL;
}

/* While a table is read the lock is free, and it is read once. */
static void test_loading(void)
{
    Env *e = env_new(2);
    QemuThread t[3];

    number_disk(e);
    get(e, 3, 0);
    set_hold(e, true);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(qemu_thread_create(&t[i], "get", get_1, e), ==, 0);
    }
    wait_held(e, 1);
    g_assert_cmphex(get(e, 3, 1), ==, UINT64_C(3) << 32 | 1);
    g_assert_false(is_cached(e, 1));
    set_hold(e, false);
    for (int i = 0; i < 3; i++) {
        qemu_thread_join(&t[i]);
    }
    g_assert_cmpint(e->reads, ==, 2);
    env_free(e);
}

static void *get_1_new(void *opaque)
{
    g_assert_cmphex(get(opaque, 1, 0), ==, 77);
    return NULL;
}

/* Forgotten while it is read: what was read may be old. */
static void test_forget_loading(void)
{
    Env *e = env_new(2);
    QemuThread t;

    set_hold(e, true);
    g_assert_cmpint(qemu_thread_create(&t, "get", get_1_new, e), ==, 0);
    wait_held(e, 1);
    forget(e, 1, 1);
    qemu_mutex_lock(&e->lock);
    stq_be_p(e->disk + TABLE, 77);
    qemu_mutex_unlock(&e->lock);
    set_hold(e, false);
    qemu_thread_join(&t);
    g_assert_cmpint(e->reads, ==, 2);
    env_free(e);
}

/* ---- Reading ahead ---- */

#define TABLES_A_CLUSTER 8          /* see env_new() */

static void assert_cached(Env *e, int first, int end)
{
    for (int i = 1; i < N_TABLES; i++) {
        g_assert_cmpint(is_cached(e, i), ==, i >= first && i < end);
    }
}

/* What comes next is there, as far as the cluster goes. */
static void test_ahead(void)
{
    Env *e = env_new(64);

    number_disk(e);
    get(e, 1, 0);
    assert_cached(e, 1, 2);
    get(e, 2, 0);
    assert_cached(e, 1, TABLES_A_CLUSTER);
    g_assert_cmpint(e->reads, ==, 2);
    for (int i = 3; i < N_TABLES; i++) {
        g_assert_cmphex(get(e, i, 5), ==, (uint64_t)i << 32 | 5);
        assert_cached(e, 1, ROUND_UP(i + 1, TABLES_A_CLUSTER));
    }
    g_assert_cmpint(e->reads, ==, 5);
    env_free(e);
}

/* Who goes backwards, or anywhere, gets what he asks for. */
static void test_not_ahead(void)
{
    static const int order[] = { 20, 19, 18, 4, 10, 2, 12, 8, 6 };
    Env *e = env_new(64);

    number_disk(e);
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        g_assert_cmphex(get(e, order[i], 1), ==,
                        (uint64_t)order[i] << 32 | 1);
        g_assert_cmpint(e->reads, ==, i + 1);
    }
    g_assert_false(is_cached(e, 3));
    g_assert_false(is_cached(e, 21));
    env_free(e);
}

/* A quarter of the cache at a time, so that it does not push out itself. */
static void test_ahead_limit(void)
{
    Env *e = env_new(12);

    number_disk(e);
    get(e, 1, 0);
    get(e, 2, 0);
    assert_cached(e, 1, 5);
    env_free(e);
}

/* What is cached stays as it is. */
static void test_ahead_of_dirty(void)
{
    Env *e = env_new(64);

    number_disk(e);
    set(e, 4, 0, 99);
    get(e, 1, 0);
    get(e, 2, 0);
    g_assert_true(is_cached(e, 3));
    g_assert_false(is_cached(e, 5));
    g_assert_cmphex(get(e, 4, 0), ==, 99);
    g_assert_true(is_dirty(e));
    env_free(e);
}

/* If not all can be read, what is asked for is. */
static void test_ahead_error(void)
{
    Env *e = env_new(64);

    number_disk(e);
    get(e, 1, 0);
    e->fail_read = 1;
    g_assert_cmphex(get(e, 2, 0), ==, UINT64_C(2) << 32);
    g_assert_cmpint(e->reads, ==, 3);
    assert_cached(e, 1, 3);
    g_assert_cmphex(get(e, 3, 0), ==, UINT64_C(3) << 32);
    g_assert_cmpint(e->reads, ==, 4);
    env_free(e);
}

static void *read_2(void *opaque)
{
    g_assert_cmphex(get(opaque, 2, 0), ==, UINT64_C(2) << 32);
    return NULL;
}

static void *read_5(void *opaque)
{
    g_assert_cmphex(get(opaque, 5, 0), ==, UINT64_C(5) << 32);
    return NULL;
}

/* Who wants what is being read ahead waits for it; what is forgotten meanwhile
 * does not come back. */
static void test_ahead_loading(void)
{
    Env *e = env_new(64);
    QemuThread t[2];

    number_disk(e);
    get(e, 1, 0);
    set_hold(e, true);
    g_assert_cmpint(qemu_thread_create(&t[0], "get", read_2, e), ==, 0);
    wait_held(e, 1);
    g_assert_cmpint(qemu_thread_create(&t[1], "get", read_5, e), ==, 0);
    forget(e, 4, 1);
    set_hold(e, false);
    for (int i = 0; i < 2; i++) {
        qemu_thread_join(&t[i]);
    }
    g_assert_cmpint(e->reads, ==, 2);
    g_assert_true(is_cached(e, 3));
    g_assert_false(is_cached(e, 4));
    g_assert_true(is_cached(e, 7));
    env_free(e);
}

/*
 * Pairs of words: the second is the complement of the first, which is the
 * table's number and a count that only grows.  Writers change pairs, which
 * makes tables come and go; readers see whole pairs, of the right table, that
 * never go back.
 */
#define STRESS_TABLES 12

typedef struct Stress {
    Env *e;
    bool stop;                      /* atomic */
    int64_t hits;                   /* atomic */
} Stress;

static void check_pairs(const uint64_t *w, int n, int table, int pair,
                        uint64_t (*seen)[WORDS / 2])
{
    for (int i = 0; i < n; i++) {
        g_assert_cmphex(w[2 * i], ==, ~w[2 * i + 1]);
        g_assert_cmpint(w[2 * i] >> 32, ==, table);
        g_assert_cmpint(w[2 * i], >=, seen[table][pair + i]);
        seen[table][pair + i] = w[2 * i];
    }
}

static void *peeker(void *opaque)
{
    Stress *st = opaque;
    uint64_t (*seen)[WORDS / 2] = g_malloc0(N_TABLES * TABLE / 2);
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    uint64_t w[16];

    while (!qatomic_read(&st->stop)) {
        int table = g_rand_int_range(rand, 1, STRESS_TABLES);
        int pair = g_rand_int_range(rand, 0, WORDS / 2 - 8);

        if (qcow2_cache_peek(st->e->c, table * TABLE, 2 * pair, 16, w)) {
            check_pairs(w, 8, table, pair, seen);
            qatomic_inc(&st->hits);
        }
    }
    g_free(seen);
    return NULL;
}

static void bump(Env *e, int table, int pair)
{
    Qcow2Table *t;
    uint64_t v;

    driver_lock(&e->s->lock);
    g_assert_cmpint(qcow2_cache_get(&e->bs, e->c, table * TABLE, &t), ==, 0);
    v = qcow2_table_get64(t, 2 * pair);
    g_assert_cmphex(v, ==, ~qcow2_table_get64(t, 2 * pair + 1));
    qcow2_table_set_pair(e->s, t, 2 * pair, v + 1, ~(v + 1));
    driver_unlock(&e->s->lock);
}

static void *changer(void *opaque)
{
    Stress *st = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(2);

    for (int n = 0; n < 20000; n++) {
        bump(st->e, g_rand_int_range(rand, 1, STRESS_TABLES),
             g_rand_int_range(rand, 0, WORDS / 2));
        if (n % 64 == 0) {
            driver_lock(&st->e->s->lock);
            qcow2_cache_clean_unused(st->e->c);
            driver_unlock(&st->e->s->lock);
        }
    }
    return NULL;
}

static void test_stress(const void *opaque)
{
    Stress st = { .e = env_new(GPOINTER_TO_INT(opaque)) };
    QemuThread readers[2], writers[2];
    uint64_t total = 0;

    for (int n = 0; n < N_TABLES; n++) {
        for (int i = 0; i < WORDS; i += 2) {
            stq_be_p(st.e->disk + n * TABLE + i * 8, (uint64_t)n << 32);
            stq_be_p(st.e->disk + n * TABLE + i * 8 + 8, ~((uint64_t)n << 32));
        }
    }
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(qemu_thread_create(&readers[i], "r", peeker, &st), ==,
                        0);
        g_assert_cmpint(qemu_thread_create(&writers[i], "w", changer, &st), ==,
                        0);
    }
    for (int i = 0; i < 2; i++) {
        qemu_thread_join(&writers[i]);
    }
    while (!qatomic_read(&st.hits)) {
        bump(st.e, 1, 0);               /* see that readers get something */
        total--;
    }
    qatomic_set(&st.stop, true);
    for (int i = 0; i < 2; i++) {
        qemu_thread_join(&readers[i]);
    }
    g_assert_cmpint(write_back(st.e), ==, 0);
    for (int n = 1; n < STRESS_TABLES; n++) {
        for (int i = 0; i < WORDS; i += 2) {
            total += disk_word(st.e, n, i) & UINT32_MAX;
        }
    }
    g_assert_cmpint(total, ==, 40000);
    env_free(st.e);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-cache/get/reads a table once", test_read);
    g_test_add_func("/qcow2-cache/get/refuses bad offsets", test_bad_offset);
    for (int n = 1; n <= 4; n++) {
        g_autofree char *path = g_strdup_printf(
            "/qcow2-cache/model/agrees with %d tables", n);

        g_test_add_data_func(path, GINT_TO_POINTER(n), test_model);
    }
    g_test_add_data_func("/qcow2-cache/model/agrees with 40 tables",
                         GINT_TO_POINTER(40), test_model);
    g_test_add_func("/qcow2-cache/evict/keeps what is used", test_clock);
    g_test_add_func("/qcow2-cache/clean-unused/keeps used and dirty",
                    test_clean_unused);
    g_test_add_func("/qcow2-cache/write-back/joins neighbours",
                    test_neighbours);
    g_test_add_func("/qcow2-cache/copies/are of one moment", test_copies);
    g_test_add_func("/qcow2-cache/copies/keep their table", test_copy_stays);
    g_test_add_func("/qcow2-cache/copies/of what is forgotten",
                    test_copy_forgotten);
    g_test_add_func("/qcow2-cache/error/load", test_load_error);
    g_test_add_func("/qcow2-cache/error/write-back", test_write_error);
    g_test_add_func("/qcow2-cache/error/no-memory", test_no_memory);
    g_test_add_func("/qcow2-cache/loading/without the lock, once",
                    test_loading);
    g_test_add_func("/qcow2-cache/loading/starts again if forgotten",
                    test_forget_loading);
    g_test_add_func("/qcow2-cache/ahead/to the end of the cluster",
                    test_ahead);
    g_test_add_func("/qcow2-cache/ahead/only in order", test_not_ahead);
    g_test_add_func("/qcow2-cache/ahead/a quarter of the cache",
                    test_ahead_limit);
    g_test_add_func("/qcow2-cache/ahead/stops before what is cached",
                    test_ahead_of_dirty);
    g_test_add_func("/qcow2-cache/ahead/error", test_ahead_error);
    g_test_add_func("/qcow2-cache/ahead/loading", test_ahead_loading);
    g_test_add_data_func("/qcow2-cache/stress/whole pairs, 3 tables",
                         GINT_TO_POINTER(3), test_stress);
    g_test_add_data_func("/qcow2-cache/stress/whole pairs, all tables",
                         GINT_TO_POINTER(16), test_stress);
    return g_test_run();
}
