/*
 * qcow2: what a check finds, that a repair repairs it, and that a repair which
 * stops at any of its requests has made nothing worse.
 *
 * Images are damaged while they are closed; afterwards the installed qemu-img
 * has to find nothing, and the guest has to see what it saw.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-image.h"
#include "test-driver.h"
#include "qemu/bswap.h"
#include "qemu/thread.h"
#include "block/qcow2-check.h"
#include "block/snapshot.h"

/* ---- Counts ---- */

static void test_refs_many(void)
{
    Qcow2RefMap *m = qcow2_refs_new(10000);

    for (int i = 0; i < 500; i++) {
        qcow2_refs_add(m, 3, 5000);
    }
    for (int64_t c = 0; c < 10000; c++) {
        uint64_t expected = c >= 3 && c < 5003 ? 500 : 0;

        g_assert_cmpuint(qcow2_refs_get(m, c), ==, expected);
    }
    g_assert_cmpuint(qcow2_refs_max(m), ==, 500);
    qcow2_refs_free(m);
}

typedef struct Counting {
    Qcow2RefMap *m;
    uint64_t calls;                     /* atomic */
} Counting;

static void count_in_thread(void *opaque, unsigned thread)
{
    Counting *c = opaque;

    for (int i = 0; i < 200; i++) {
        qcow2_refs_add(c->m, 1 + thread, 600);
        __atomic_fetch_add(&c->calls, 1, __ATOMIC_SEQ_CST);
    }
}

static void test_refs_concurrent(void)
{
    Counting c = { .m = qcow2_refs_new(1000) };

    qcow2_check_in_threads(count_in_thread, &c, QCOW2_CHECK_MAX_THREADS);
    /* All threads have counted these. */
    g_assert_cmpuint(qcow2_refs_get(c.m, 300), ==, c.calls);
    g_assert_cmpuint(qcow2_refs_get(c.m, 0), ==, 0);
    g_assert_cmpuint(qcow2_refs_get(c.m, 700), ==, 0);
    qcow2_refs_free(c.m);
}

static void test_refs_alike(void)
{
    Qcow2RefMap *m = qcow2_refs_new(10000);

    qcow2_refs_add(m, 10, 5000);
    g_assert_true(qcow2_refs_are_alike(m, 10, 5000));
    g_assert_true(qcow2_refs_are_alike(m, 9, 1));
    g_assert_false(qcow2_refs_are_alike(m, 9, 2));
    g_assert_false(qcow2_refs_are_alike(m, 10, 5001));
    qcow2_refs_add(m, 2000, 1);
    g_assert_false(qcow2_refs_are_alike(m, 10, 5000));
    g_assert_true(qcow2_refs_are_alike(m, 10, 1990));
    qcow2_refs_free(m);
}

static void test_refs_sparse(void)
{
    Qcow2RefMap *m = qcow2_refs_new(INT64_C(1) << 36);

    g_assert_nonnull(m);
    qcow2_refs_add(m, (INT64_C(1) << 36) - 1, 1);
    g_assert_null(qcow2_refs_page(m, 0));
    g_assert_nonnull(qcow2_refs_page(m, (INT64_C(1) << 24) - 1));
    qcow2_refs_free(m);
    g_assert_null(qcow2_refs_new(INT64_C(1) << 50));
}

/* ---- Damage ---- */

typedef struct Damage {
    const char *name;
    void (*hurt)(uint8_t *d);
    int check_ret;                      /* of a check that repairs nothing */
    bool loses_snapshot;                /* there is no way to repair that */
} Damage;

static uint64_t l1_of(const uint8_t *d)
{
    return ldq_be_p(d + 40);
}

static uint64_t reftable_of(const uint8_t *d)
{
    return ldq_be_p(d + 48);
}

static uint8_t *l2_of(uint8_t *d)
{
    return d + (ldq_be_p(d + l1_of(d)) & QCOW2_L1_OFFSET_MASK);
}

static uint8_t *block_of(uint8_t *d)
{
    return d + ldq_be_p(d + reftable_of(d));
}

static void flip(uint8_t *p, uint64_t bits)
{
    stq_be_p(p, ldq_be_p(p) ^ bits);
}

static void hurt_l2_copied(uint8_t *d)
{
    flip(l2_of(d), QCOW2_OFLAG_COPIED);
    flip(l2_of(d) + 16, QCOW2_OFLAG_COPIED);
}

static void hurt_l1_copied(uint8_t *d)
{
    flip(d + l1_of(d), QCOW2_OFLAG_COPIED);
}

static void hurt_refcounts(uint8_t *d)
{
    for (int i = 3; i < 20; i++) {
        stw_be_p(block_of(d) + 2 * i, 1 + i % 4);
    }
}

static void hurt_refcounts_zero(uint8_t *d)
{
    memset(block_of(d), 0, 64);
}

static void hurt_leak(uint8_t *d)
{
    for (int i = 3; i < 10; i++) {
        stw_be_p(block_of(d) + 2 * i, 300);
    }
}

static void hurt_reftable_entry(uint8_t *d)
{
    flip(d + reftable_of(d), 0x200);
}

static void hurt_reftable_bits(uint8_t *d)
{
    flip(d + reftable_of(d), 1);
}

static void hurt_reftable_twice(uint8_t *d)
{
    stq_be_p(d + reftable_of(d) + 8, ldq_be_p(d + reftable_of(d)));
}

static void hurt_reftable_past_end(uint8_t *d)
{
    stq_be_p(d + reftable_of(d), UINT64_C(1) << 40);
}

/* A place that is no place, and further bits: what is read must not be. */
static void hurt_reftable_nowhere(uint8_t *d)
{
    stq_be_p(d + reftable_of(d), (UINT64_C(1) << 63) | 4096 | 1);
}

static void hurt_reftable_zero(uint8_t *d)
{
    stq_be_p(d + reftable_of(d), 0);
}

/* Make the extra data of the only snapshot @bytes long, of which those that
 * are new are 0x77. */
static void set_extra(uint8_t *d, size_t bytes)
{
    uint8_t *entry = d + ldq_be_p(d + 64);
    size_t old = ldl_be_p(entry + 36), rest = lduw_be_p(entry + 12) +
                                              lduw_be_p(entry + 14);

    memmove(entry + 40 + bytes, entry + 40 + old, rest);
    if (bytes > old) {
        memset(entry + 40 + old, 0x77, bytes - old);
    }
    stl_be_p(entry + 36, bytes);
}

static void hurt_no_reftable(uint8_t *d)
{
    stl_be_p(d + 56, 0);
}

/* Over the header, which is then overlapped by refcount blocks, too. */
static void hurt_reftable_at_0(uint8_t *d)
{
    stq_be_p(d + 48, 0);
}

static void hurt_snapshot_short(uint8_t *d)
{
    set_extra(d, 8);
}

static void hurt_snapshot_extra(uint8_t *d)
{
    set_extra(d, 2000);
}

static void hurt_snapshot_endless(uint8_t *d)
{
    stl_be_p(d + ldq_be_p(d + 64) + 36, UINT32_MAX);
}

/* Over clusters that are in use. */
static void hurt_snapshot_over(uint8_t *d)
{
    stl_be_p(d + ldq_be_p(d + 64) + 36, 5 * 4096);
}

static void hurt_snapshot_past_end(uint8_t *d)
{
    stq_be_p(d + 64, UINT64_C(1) << 40);
}

/* What is behind the file's end is counted: a new table must not make the file
 * longer by what is leaked then. */
static void hurt_snapshot_leaks(uint8_t *d)
{
    hurt_snapshot_short(d);
    for (int i = 0; i < 2048; i++) {
        uint8_t *refcount = block_of(d) + 2 * i;

        stw_be_p(refcount, MAX(lduw_be_p(refcount), 1));
    }
}

/* None, at a place where none can be. */
static void hurt_snapshot_none(uint8_t *d)
{
    stl_be_p(d + 60, 0);
    stq_be_p(d + 64, 8);
}

/* With all refcounts lost, a new table needs the new ones. */
static void hurt_snapshot_all(uint8_t *d)
{
    hurt_snapshot_short(d);
    hurt_refcounts_zero(d);
    hurt_l1_copied(d);
    d[79] |= QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
}

static void hurt_all(uint8_t *d)
{
    hurt_l2_copied(d);
    hurt_l1_copied(d);
    hurt_refcounts(d);
    hurt_reftable_bits(d);
    d[79] |= QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
}

static const Damage damages[] = {
    { "l2-copied", hurt_l2_copied },
    { "l1-copied", hurt_l1_copied },
    { "refcounts", hurt_refcounts },
    { "refcounts-zero", hurt_refcounts_zero },
    { "leak", hurt_leak },
    { "reftable-entry", hurt_reftable_entry },
    { "reftable-bits", hurt_reftable_bits },
    { "reftable-twice", hurt_reftable_twice },
    { "reftable-past-end", hurt_reftable_past_end },
    { "reftable-nowhere", hurt_reftable_nowhere },
    { "reftable-zero", hurt_reftable_zero },
    { "no-reftable", hurt_no_reftable },
    { "reftable-at-0", hurt_reftable_at_0 },
    { "all", hurt_all },
    { "snapshot-short", hurt_snapshot_short },
    { "snapshot-extra", hurt_snapshot_extra, -EFBIG },
    { "snapshot-endless", hurt_snapshot_endless, -EFBIG, true },
    { "snapshot-over", hurt_snapshot_over, -EFBIG, true },
    { "snapshot-past-end", hurt_snapshot_past_end, 0, true },
    { "snapshot-leaks-behind", hurt_snapshot_leaks },
    { "snapshot-none", hurt_snapshot_none, -EINVAL, true },
    { "snapshot-all", hurt_snapshot_all },
};

/* ---- An image, damaged and repaired ---- */

static void load(const Qcow2Image *img, char **data, gsize *size)
{
    g_assert_true(g_file_get_contents(img->path, data, size, NULL));
}

static void store(const Qcow2Image *img, const char *data, gsize size)
{
    g_assert_true(g_file_set_contents(img->path, data, size, NULL));
}

static Qcow2Image *new_image(const Damage *damage, char **hurt, gsize *size)
{
    Qcow2Image *img = qcow2_image_new("cluster_size=4096", 1 * MiB, false);

    qcow2_image_open(img, NULL);
    for (int i = 0; i < 30; i++) {
        qcow2_image_write(img, i * 4096, 4096, i, 0);
    }
    qcow2_image_close(img);
    qcow2_image_snapshot(img);
    qcow2_image_open(img, NULL);
    for (int i = 0; i < 30; i += 3) {
        qcow2_image_write(img, i * 4096, 4096, 100 + i, 0);
    }
    qcow2_image_close(img);
    load(img, hurt, size);
    damage->hurt((uint8_t *)*hurt);
    store(img, *hurt, *size);
    if (damage->loses_snapshot) {
        g_clear_pointer(&img->snapshot, g_free);
    }
    return img;
}

static void open_for_check(Qcow2Image *img)
{
    json_t *o = json_pack("{s:s, s:{s:s, s:{s:s, s:s}}}", "driver", "qcow2",
                          "file", "driver", "blkdebug", "image",
                          "driver", "file", "filename", img->path);

    img->blk = blk_new_open(img->graph, NULL, NULL, o,
                            BDRV_O_RDWR | BDRV_O_CHECK, &error_abort);
}

static int check(Qcow2Image *img, BdrvCheckResult *res, BdrvCheckMode fix)
{
    BlockDriverState *bs = qcow2_image_bs(img);

    *res = (BdrvCheckResult) { 0 };
    return bs->drv->check(bs, res, fix);
}

static void repair_whole(Qcow2Image *img)
{
    BdrvCheckResult res;

    open_for_check(img);
    g_assert_cmpint(check(img, &res, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS), ==, 0);
    g_assert_cmpint(check(img, &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions, ==, 0);
    g_assert_cmpint(res.leaks, ==, 0);
    g_assert_cmpint(res.check_errors, ==, 0);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

static void test_found(gconstpointer opaque)
{
    const Damage *damage = opaque;
    g_autofree char *hurt = NULL, *after = NULL;
    Qcow2Image *img;
    BdrvCheckResult res;
    gsize size, size_after;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = new_image(damage, &hurt, &size);
    open_for_check(img);
    g_assert_cmpint(check(img, &res, 0), ==, damage->check_ret);
    if (damage->check_ret == 0) {
        g_assert_cmpint(res.leaks + res.corruptions, >, 0);
    }
    qcow2_image_close(img);
    /* And nothing was written. */
    load(img, &after, &size_after);
    g_assert_cmpmem(hurt, size, after, size_after);
    repair_whole(img);
    qcow2_image_free(img);
}

/* The repair ends at its nth request, for every n. */
static void test_interrupted(gconstpointer opaque)
{
    const Damage *damage = opaque;
    g_autofree char *hurt = NULL;
    BdrvCheckResult res;
    Qcow2Image *img;
    bool fired = true;
    gsize size;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = new_image(damage, &hurt, &size);
    for (int n = 1; fired; n++) {
        BlockDriverState *file;
        int ret;

        store(img, hurt, size);
        open_for_check(img);
        file = qcow2_image_bs(img)->file->bs;
        g_assert_cmpint(blkdebug_arm(file, n, EIO), ==, 0);
        ret = check(img, &res, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);
        fired = blkdebug_fired(file);
        blkdebug_arm(file, 0, 0);
        if (ret == 0 && !res.check_errors && !res.corruptions) {
            /* A read of tables ahead failed, and was done again. */
            g_assert_cmpint(check(img, &res, 0), ==, 0);
            g_assert_cmpint(res.corruptions + res.leaks, ==, 0);
        }
        qcow2_image_close(img);
        repair_whole(img);
    }
    qcow2_image_free(img);
}

/* ---- Tables that are one run ---- */

/* Eight tables of 64 clusters that lie one behind the other. */
#define RUN_CLUSTER 512
#define RUN_ENTRIES 64
#define RUN_TABLES 8

typedef struct RunCase {
    const char *name;
    void (*hurt)(uint8_t *d, gsize size);
    int64_t corruptions, leaks;
    int64_t missing;                    /* clusters that are not allocated */
    int64_t fragmented;
} RunCase;

static uint8_t *table_of(uint8_t *d, int i)
{
    return d + (ldq_be_p(d + l1_of(d) + 8 * i) & QCOW2_L1_OFFSET_MASK);
}

/* Of the cluster that an L2 entry is about. */
static uint8_t *refcount_of(uint8_t *d, const uint8_t *entry)
{
    uint64_t cluster = (ldq_be_p(entry) & QCOW2_L2_OFFSET_MASK) / RUN_CLUSTER;
    uint64_t per_block = RUN_CLUSTER / 2;

    return d + ldq_be_p(d + reftable_of(d) + 8 * (cluster / per_block)) +
           2 * (cluster % per_block);
}

static void hurt_nothing(uint8_t *d, gsize size)
{
}

static void hurt_flag_of_run(uint8_t *d, gsize size)
{
    for (int i = 0; i < RUN_ENTRIES; i++) {
        flip(table_of(d, 3) + 8 * i, QCOW2_OFLAG_COPIED);
    }
}

static void hurt_one_flag(uint8_t *d, gsize size)
{
    flip(table_of(d, 3) + 8 * 40, QCOW2_OFLAG_COPIED);
}

static void hurt_one_refcount(uint8_t *d, gsize size)
{
    stw_be_p(refcount_of(d, table_of(d, 3) + 8 * 40), 2);
}

static void hurt_refcounts_of_run(uint8_t *d, gsize size)
{
    for (int i = 0; i < RUN_ENTRIES; i++) {
        stw_be_p(refcount_of(d, table_of(d, 3) + 8 * i), 300);
    }
}

static void hurt_one_entry(uint8_t *d, gsize size)
{
    stq_be_p(table_of(d, 3) + 8 * 40, 0);
}

static void hurt_last_entry(uint8_t *d, gsize size)
{
    stq_be_p(table_of(d, 3) + 8 * 63, 0);
}

/* Clusters 40 and 41 change places. */
static void hurt_order(uint8_t *d, gsize size)
{
    uint8_t *entries = table_of(d, 3) + 8 * 40;
    uint64_t first = ldq_be_p(entries);

    stq_be_p(entries, ldq_be_p(entries + 8));
    stq_be_p(entries + 8, first);
}

/* A run whose last cluster is the first behind the end of the file. */
static void hurt_past_end(uint8_t *d, gsize size)
{
    for (int i = 0; i < RUN_ENTRIES; i++) {
        stq_be_p(table_of(d, 3) + 8 * i, QCOW2_OFLAG_COPIED |
                 (size - (RUN_ENTRIES - 1 - i) * RUN_CLUSTER));
    }
}

/* The same table twice, and another never. */
static void hurt_table_twice(uint8_t *d, gsize size)
{
    stq_be_p(d + l1_of(d) + 8 * 4, ldq_be_p(d + l1_of(d) + 8 * 3));
}

/* As if there were a snapshot, but in the flags. */
static void hurt_all_flags(uint8_t *d, gsize size)
{
    for (int i = 0; i < RUN_TABLES; i++) {
        for (int k = 0; k < RUN_ENTRIES; k++) {
            flip(table_of(d, i) + 8 * k, QCOW2_OFLAG_COPIED);
        }
    }
}

static const RunCase run_cases[] = {
    { "sound", hurt_nothing },
    { "flag-of-all", hurt_flag_of_run, RUN_ENTRIES },
    { "flag-of-one", hurt_one_flag, 1 },
    { "flags-of-all-tables", hurt_all_flags, RUN_TABLES * RUN_ENTRIES },
    { "refcount-of-one", hurt_one_refcount, 1, 1 },
    { "refcounts-of-all", hurt_refcounts_of_run, RUN_ENTRIES, RUN_ENTRIES },
    { "hole", hurt_one_entry, 0, 1, 1, 1 },
    { "end", hurt_last_entry, 0, 1, 1 },
    { "order", hurt_order, 0, 0, 0, 3 },
    { "past-end", hurt_past_end, 66, 64 },
    { "table-twice", hurt_table_twice, RUN_ENTRIES + 1, RUN_ENTRIES + 1 },
};

static void test_run(gconstpointer opaque)
{
    const RunCase *c = opaque;
    g_autofree char *data = NULL;
    BdrvCheckResult res;
    Qcow2Image *img;
    gsize size;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=512,preallocation=metadata",
                          RUN_TABLES * RUN_ENTRIES * RUN_CLUSTER, false);
    load(img, &data, &size);
    c->hurt((uint8_t *)data, size);
    store(img, data, size);
    open_for_check(img);
    g_assert_cmpint(check(img, &res, 0), ==, 0);
    g_assert_cmpint(res.check_errors, ==, 0);
    g_assert_cmpint(res.corruptions, ==, c->corruptions);
    g_assert_cmpint(res.leaks, ==, c->leaks);
    g_assert_cmpint(res.allocated_clusters, ==,
                    RUN_TABLES * RUN_ENTRIES - c->missing);
    g_assert_cmpint(res.fragmented_clusters, ==, c->fragmented);
    qcow2_image_close(img);
    qcow2_image_free(img);
}

static void test_leaks_only(void)
{
    g_autofree char *hurt = NULL;
    const Damage damage = { "refcounts", hurt_refcounts };
    BdrvCheckResult res, before;
    Qcow2Image *img;
    gsize size;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = new_image(&damage, &hurt, &size);
    open_for_check(img);
    g_assert_cmpint(check(img, &before, 0), ==, 0);
    g_assert_cmpint(check(img, &res, BDRV_FIX_LEAKS), ==, 0);
    g_assert_cmpint(res.leaks_fixed, ==, before.leaks);
    g_assert_cmpint(res.corruptions_fixed, ==, 0);
    g_assert_cmpint(res.corruptions, >, 0);
    g_assert_cmpint(check(img, &res, 0), ==, 0);
    g_assert_cmpint(res.leaks, ==, 0);
    g_assert_cmpint(res.corruptions, >, 0);
    qcow2_image_close(img);
    qcow2_image_free(img);
}

/* Counts one bit wide do not get to two. */
static void test_block_twice_narrow(void)
{
    g_autofree char *data = NULL;
    Qcow2Image *img;
    gsize size;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=512,refcount_bits=1", 3 * MiB, false);
    qcow2_image_open(img, NULL);
    qcow2_image_write(img, 0, 3 * MiB, 5, 0);
    qcow2_image_close(img);
    load(img, &data, &size);
    hurt_reftable_twice((uint8_t *)data);
    store(img, data, size);
    repair_whole(img);
    qcow2_image_free(img);
}

static void hurt_dirty(uint8_t *d)
{
    hurt_snapshot_short(d);
    hurt_refcounts_zero(d);
    d[79] |= QCOW2_INCOMPAT_DIRTY;
}

static void test_dirty_open(void)
{
    g_autofree char *hurt = NULL;
    const Damage damage = { "dirty", hurt_dirty };
    Qcow2Image *img;
    gsize size;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = new_image(&damage, &hurt, &size);
    qcow2_image_open(img, NULL);
    qcow2_image_write(img, 500 * KiB, 64 * KiB, 7, 0);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
    qcow2_image_free(img);
}

/* It has a snapshot, which a check reads for itself: none is to be listed. */
static void test_list_while_checking(void)
{
    g_autofree char *hurt = NULL;
    g_autofree QEMUSnapshotInfo *list = NULL;
    const Damage damage = { "leak", hurt_leak };
    Qcow2Image *img;
    gsize size;
    size_t n = 7;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = new_image(&damage, &hurt, &size);
    open_for_check(img);
    g_assert_true(bdrv_snapshot_list(qcow2_image_bs(img), &list, &n,
                                     &error_abort));
    g_assert_cmpuint(n, ==, 0);
    qcow2_image_close(img);
    qcow2_image_free(img);
}

static void leave(uint8_t *d)
{
}

/* The table becomes the end of the file, which has not all of a long name. */
static void cut_name(Qcow2Image *img, const char *data, gsize size)
{
    g_autoptr(GByteArray) all = g_byte_array_new();
    uint64_t table = ldq_be_p(data + 64);
    const char *entry = data + table;
    guint table_at = QEMU_ALIGN_UP(size, 4096);

    g_byte_array_append(all, (const uint8_t *)data, size);
    g_byte_array_set_size(all, table_at);
    stq_be_p(all->data + 64, table_at);
    g_byte_array_append(all, (const uint8_t *)entry, 512);
    stw_be_p(all->data + table_at + 14, 600);
    store(img, (const char *)all->data, all->len);
}

/* Nobody may write it before; a repair makes that right. */
static void test_snapshot_name_cut_off(void)
{
    g_autofree char *hurt = NULL;
    const Damage damage = { "nothing", leave, .loses_snapshot = true };
    BdrvCheckResult res;
    Qcow2Image *img;
    gsize size;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = new_image(&damage, &hurt, &size);
    cut_name(img, hurt, size);
    open_for_check(img);
    g_assert_cmpint(check(img, &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions, ==, 2);    /* and its refcount is 0 */
    qcow2_image_close(img);
    repair_whole(img);
    qcow2_image_open(img, NULL);
    qcow2_image_write(img, 500 * KiB, 64 * KiB, 7, 0);
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
    qcow2_image_free(img);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-check/refs/many", test_refs_many);
    g_test_add_func("/qcow2-check/refs/concurrent", test_refs_concurrent);
    g_test_add_func("/qcow2-check/refs/alike", test_refs_alike);
    g_test_add_func("/qcow2-check/refs/sparse", test_refs_sparse);
    for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
        g_autofree char *found = g_strdup_printf("/qcow2-check/found/%s",
                                                 damages[i].name);
        g_autofree char *cut = g_strdup_printf("/qcow2-check/interrupted/%s",
                                               damages[i].name);

        g_test_add_data_func(found, &damages[i], test_found);
        g_test_add_data_func(cut, &damages[i], test_interrupted);
    }
    for (size_t i = 0; i < ARRAY_SIZE(run_cases); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2-check/run/%s",
                                                run_cases[i].name);

        g_test_add_data_func(path, &run_cases[i], test_run);
    }
    g_test_add_func("/qcow2-check/leaks-only", test_leaks_only);
    g_test_add_func("/qcow2-check/block-twice-narrow",
                    test_block_twice_narrow);
    g_test_add_func("/qcow2-check/dirty/open", test_dirty_open);
    g_test_add_func("/qcow2-check/snapshot-name-cut-off",
                    test_snapshot_name_cut_off);
    g_test_add_func("/qcow2-check/snapshots-are-not-listed",
                    test_list_while_checking);
    return g_test_run();
}
