/*
 * qcow2 images that lie about their tables.
 *
 * One image has a table of each kind.  Each pointer in it is made to point
 * at each table, the header included, and the disk is used in all ways.  What
 * fails may fail.  But nobody writes over the header, however often a pointer
 * says that it is something else; and it ends.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "block/snapshot.h"
#include "qemu/bswap.h"
#include "write-log.h"

#define CLUSTER 512
#define DISK (32 * KiB)

/* Clusters of the image, in their order. */
enum {
    HEADER, REFTABLE, REFBLOCK, L1, L2, DATA, SNAPSHOTS, SNAPSHOT_L1,
    BITMAPS, BITMAP_TABLE, BITMAP_DATA, CLUSTERS,
};

typedef struct Pointer {
    const char *name;
    int64_t at;                 /* of 8 bytes in the image */
    uint64_t flags;
} Pointer;

#define COPIED (UINT64_C(1) << 63)

static const Pointer pointers[] = {
    { "l1", 40, 0 },
    { "refcount-table", 48, 0 },
    { "snapshots", 64, 0 },
    { "bitmap-directory", 112 + 8 + 16, 0 },
    { "refcount-block", REFTABLE * CLUSTER, 0 },
    { "second-refcount-block", REFTABLE * CLUSTER + 8, 0 },
    { "l2", L1 * CLUSTER, COPIED },
    { "data", L2 * CLUSTER, COPIED },
    { "more-data", L2 * CLUSTER + 8, COPIED },
    { "snapshot-l1", SNAPSHOTS * CLUSTER, 0 },
    { "snapshot-l2", SNAPSHOT_L1 * CLUSTER, 0 },
    { "bitmap-table", BITMAPS * CLUSTER, 0 },
    { "bitmap-data", BITMAP_TABLE * CLUSTER, 0 },
};

static BlockGraph *graph;

/* ---- The image ---- */

static void put_header(uint8_t *b)
{
    memcpy(b, "QFI\xfb", 4);
    stl_be_p(b + 4, 3);
    stl_be_p(b + 20, 9);
    stq_be_p(b + 24, DISK);
    stl_be_p(b + 36, 1);
    stq_be_p(b + 40, L1 * CLUSTER);
    stq_be_p(b + 48, REFTABLE * CLUSTER);
    stl_be_p(b + 56, 1);
    stl_be_p(b + 60, 1);
    stq_be_p(b + 64, SNAPSHOTS * CLUSTER);
    stq_be_p(b + 88, 1);                    /* autoclear: bitmaps */
    stl_be_p(b + 96, 4);
    stl_be_p(b + 100, 112);
    stl_be_p(b + 112, 0x23852875);
    stl_be_p(b + 116, 24);
    stl_be_p(b + 120, 1);
    stq_be_p(b + 128, 32);
    stq_be_p(b + 136, BITMAPS * CLUSTER);
}

/* The snapshot has the L2 table of the disk. */
static void put_snapshot(uint8_t *b)
{
    uint8_t *entry = b + SNAPSHOTS * CLUSTER;

    stq_be_p(entry, SNAPSHOT_L1 * CLUSTER);
    stl_be_p(entry + 8, 1);
    stw_be_p(entry + 12, 1);
    stw_be_p(entry + 14, 1);
    stl_be_p(entry + 36, 16);
    stq_be_p(entry + 48, DISK);
    memcpy(entry + 56, "1s", 2);
    stq_be_p(b + SNAPSHOT_L1 * CLUSTER, L2 * CLUSTER);
}

static void put_bitmap(uint8_t *b)
{
    uint8_t *entry = b + BITMAPS * CLUSTER;

    stq_be_p(entry, BITMAP_TABLE * CLUSTER);
    stl_be_p(entry + 8, 1);
    stl_be_p(entry + 12, 2);                /* it is written to */
    entry[16] = 1;
    entry[17] = 9;
    stw_be_p(entry + 18, 1);
    entry[24] = 'b';
    stq_be_p(b + BITMAP_TABLE * CLUSTER, BITMAP_DATA * CLUSTER);
}

static void make_image(uint8_t *b)
{
    memset(b, 0, CLUSTERS * CLUSTER);
    put_header(b);
    stq_be_p(b + REFTABLE * CLUSTER, REFBLOCK * CLUSTER);
    for (int i = 0; i < CLUSTERS; i++) {
        stw_be_p(b + REFBLOCK * CLUSTER + 2 * i, i == L2 || i == DATA ? 2 : 1);
    }
    stq_be_p(b + L1 * CLUSTER, L2 * CLUSTER);
    stq_be_p(b + L2 * CLUSTER, DATA * CLUSTER);
    put_snapshot(b);
    put_bitmap(b);
}

/* ---- Using it ---- */

static BlockBackend *open_disk(WriteLogDisk *d, const char *overlap, int flags)
{
    json_t *o = json_pack("{s:s, s:s, s:{s:s, s:s}}", "driver", "qcow2",
                          "overlap-check", overlap, "file", "driver",
                          "write-log", "disk", d->id);

    return blk_new_open(graph, NULL, NULL, o, flags, NULL);
}

/* What fails is the image's fault, and no matter. */
static void use(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc0(DISK);
    QEMUSnapshotInfo sn = { .name = "new", .icount = UINT64_MAX };

    (void)blk_pread(blk, 0, DISK, buf, 0);
    memset(buf, 0x5a, DISK);
    (void)blk_pwrite(blk, 0, 3 * CLUSTER, buf, 0);
    (void)blk_pwrite_zeroes(blk, CLUSTER, CLUSTER, BDRV_REQ_MAY_UNMAP);
    (void)blk_flush(blk);
    (void)bdrv_snapshot_create(blk_bs(blk), &sn, NULL);
    (void)blk_pwrite(blk, 0, 2 * CLUSTER, buf, 0);
    (void)bdrv_snapshot_delete(blk_bs(blk), "s", NULL);
    (void)blk_pdiscard(blk, 0, 2 * CLUSTER);
    (void)blk_flush(blk);
    (void)blk_pwrite(blk, DISK / 2, DISK / 2, buf, 0);
}

static void repair(WriteLogDisk *d)
{
    BlockBackend *blk = open_disk(d, "cached", BDRV_O_RDWR | BDRV_O_CHECK);
    BdrvCheckResult res = { 0 };

    if (blk) {
        (void)bdrv_check(blk_bs(blk), &res, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);
        blk_unref(blk);
    }
}

/* Magic, version and size of clusters are what they were. */
static void assert_header(WriteLogDisk *d, const uint8_t *image)
{
    uint8_t now[36];

    mem_image_read(d->img, 0, now, sizeof(now));
    g_assert_cmpmem(now, 8, image, 8);
    g_assert_cmpmem(now + 20, 16, image + 20, 16);
}

static void try_image(const uint8_t *image, const char *overlap)
{
    MemImage *mem = mem_image_new(CLUSTERS * CLUSTER);
    g_autoptr(WriteLogDisk) d = NULL;
    BlockBackend *blk;

    mem_image_write(mem, 0, image, CLUSTERS * CLUSTER);
    d = write_log_disk_new("hostile", mem);
    blk = open_disk(d, overlap, BDRV_O_RDWR | BDRV_O_UNMAP);
    if (blk) {
        use(blk);
        blk_unref(blk);
    }
    assert_header(d, image);
    repair(d);
    assert_header(d, image);
}

static void test_pointer(const void *opaque)
{
    const Pointer *p = opaque;
    uint8_t image[CLUSTERS * CLUSTER];

    for (int target = 0; target < CLUSTERS; target++) {
        g_test_message("cluster %d", target);
        make_image(image);
        stq_be_p(image + p->at, target * CLUSTER | p->flags);
        try_image(image, "cached");
        try_image(image, "all");
    }
}

/* Untouched, it is in order: or the rest would prove nothing. */
static void test_intact(void)
{
    uint8_t image[CLUSTERS * CLUSTER];
    MemImage *mem = mem_image_new(CLUSTERS * CLUSTER);
    g_autoptr(WriteLogDisk) d = NULL;
    BdrvCheckResult res = { 0 };
    BlockBackend *blk;

    make_image(image);
    mem_image_write(mem, 0, image, CLUSTERS * CLUSTER);
    d = write_log_disk_new("hostile", mem);
    blk = open_disk(d, "all", BDRV_O_RDWR | BDRV_O_UNMAP);
    g_assert_nonnull(blk);
    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions + res.leaks + res.check_errors, ==, 0);
    use(blk);
    g_assert_cmpint(blk_pwrite(blk, 0, 5, "works", 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions + res.leaks + res.check_errors, ==, 0);
    blk_unref(blk);
}

/* ---- Tables that are freed as something else ---- */

/* The cluster at the disk's start is data by the L2 table, and is discarded. */
static void try_free(int target, const char *options)
{
    uint8_t image[CLUSTERS * CLUSTER], now[CLUSTER];
    MemImage *mem = mem_image_new(sizeof(image));
    g_autoptr(WriteLogDisk) d = NULL;
    json_t *o = json_loads(options, 0, NULL);
    BlockBackend *blk;

    make_image(image);
    stw_be_p(image + REFBLOCK * CLUSTER + 2 * L2, 1);
    stq_be_p(image + L1 * CLUSTER, L2 * CLUSTER | COPIED);
    stq_be_p(image + SNAPSHOT_L1 * CLUSTER, 0);
    stq_be_p(image + L2 * CLUSTER + 8, target * CLUSTER | COPIED);
    mem_image_write(mem, 0, image, sizeof(image));
    d = write_log_disk_new("hostile", mem);
    json_object_set_new(o, "driver", json_string("qcow2"));
    json_object_set_new(o, "file", json_pack("{s:s, s:s}", "driver",
                                             "write-log", "disk", d->id));
    blk = blk_new_open(graph, NULL, NULL, o, BDRV_O_RDWR | BDRV_O_UNMAP,
                       &error_abort);
    (void)blk_pdiscard(blk, CLUSTER, CLUSTER);
    /* By the second one, what the first made free is punched. */
    (void)blk_flush(blk);
    (void)blk_flush(blk);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, "x", 0), ==, -EIO);
    blk_unref(blk);

    /* The entry may have gone; a bitmap that is in use says so. */
    mem_image_read(d->img, target * CLUSTER, now, CLUSTER);
    if (target == L2 || target == BITMAPS) {
        g_assert_cmpint(now[7] | now[6], !=, 0);
    } else {
        g_assert_cmpmem(now, CLUSTER, image + target * CLUSTER, CLUSTER);
    }
}

static void test_freed_as_data(void)
{
    static const int targets[] = {
        REFTABLE, REFBLOCK, L1, L2, SNAPSHOTS, SNAPSHOT_L1, BITMAPS,
    };
    static const char *const options[] = {
        "{\"overlap-check\": \"all\"}", "{\"overlap-check\": \"none\"}",
        "{\"overlap-check\": \"all\", \"discard-no-unref\": true}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(targets) * ARRAY_SIZE(options); i++) {
        int target = targets[i % ARRAY_SIZE(targets)];
        const char *o = options[i / ARRAY_SIZE(targets)];

        g_test_message("cluster %d, %s", target, o);
        try_free(target, o);
    }
}

/* ---- An L2 table that two L1 entries refer to ---- */

#define TABLE_BYTES (CLUSTER / 8 * CLUSTER)     /* that it maps */

/* The disk has two tables' worth, and both are the same one.  @honest:
 * refcounts say so, as a check counts; @flag: in entries. */
static WriteLogDisk *shared_disk(bool honest, uint64_t flag)
{
    uint8_t image[CLUSTERS * CLUSTER];
    MemImage *mem = mem_image_new(sizeof(image));

    make_image(image);
    stq_be_p(image + 24, 2 * TABLE_BYTES);
    stl_be_p(image + 36, 2);
    stl_be_p(image + 60, 0);                /* no snapshots */
    stq_be_p(image + 64, 0);
    stq_be_p(image + 88, 0);                /* nor bitmaps */
    memset(image + 112, 0, 32);
    for (int i = SNAPSHOTS; i < CLUSTERS; i++) {
        stw_be_p(image + REFBLOCK * CLUSTER + 2 * i, 0);
    }
    for (int i = L2; i <= DATA; i++) {
        stw_be_p(image + REFBLOCK * CLUSTER + 2 * i, honest ? 2 : 1);
    }
    stq_be_p(image + L1 * CLUSTER, L2 * CLUSTER);
    stq_be_p(image + L1 * CLUSTER + 8, L2 * CLUSTER | flag);
    stq_be_p(image + L2 * CLUSTER, DATA * CLUSTER | flag);
    memset(image + DATA * CLUSTER, 0x77, CLUSTER);
    mem_image_write(mem, 0, image, sizeof(image));
    return write_log_disk_new("hostile", mem);
}

static void assert_filled(BlockBackend *blk, int64_t offset, uint8_t byte)
{
    uint8_t buf[CLUSTER], expected[CLUSTER];

    memset(expected, byte, CLUSTER);
    g_assert_cmpint(blk_pread(blk, offset, CLUSTER, buf, 0), ==, 0);
    g_assert_cmpmem(buf, CLUSTER, expected, CLUSTER);
}

static void check_clean(BlockBackend *blk)
{
    BdrvCheckResult res = { 0 };

    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions + res.leaks + res.check_errors, ==, 0);
}

/* Both halves are as they were, and each may change without the other. */
static void use_halves(BlockBackend *blk)
{
    uint8_t buf[CLUSTER];
    QEMUSnapshotInfo sn = { .name = "new", .icount = UINT64_MAX };

    check_clean(blk);
    assert_filled(blk, 0, 0x77);
    assert_filled(blk, TABLE_BYTES, 0x77);
    memset(buf, 0x11, CLUSTER);
    g_assert_cmpint(blk_pwrite(blk, 0, CLUSTER, buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, CLUSTER, CLUSTER, buf, 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    assert_filled(blk, TABLE_BYTES, 0x77);
    assert_filled(blk, TABLE_BYTES + CLUSTER, 0);
    g_assert_true(bdrv_snapshot_create(blk_bs(blk), &sn, &error_abort));
    g_assert_cmpint(blk_pdiscard(blk, 0, CLUSTER), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    assert_filled(blk, 0, 0);
    assert_filled(blk, TABLE_BYTES, 0x77);
    check_clean(blk);
    g_assert_true(bdrv_snapshot_goto(blk_bs(blk), "new", &error_abort));
    assert_filled(blk, 0, 0x11);
    assert_filled(blk, TABLE_BYTES, 0x77);
    g_assert_true(bdrv_snapshot_delete(blk_bs(blk), "new", &error_abort));
    g_assert_cmpint(blk_pdiscard(blk, 0, 2 * TABLE_BYTES), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    check_clean(blk);
}

static void test_shared_l2_counted(void)
{
    g_autoptr(WriteLogDisk) d = shared_disk(true, 0);
    BlockBackend *blk = open_disk(d, "all", BDRV_O_RDWR | BDRV_O_UNMAP);

    g_assert_nonnull(blk);
    use_halves(blk);
    blk_unref(blk);
}

/* With one reference, or a flag that says so, nothing is written; a repair
 * counts them, and then all is well. */
static void test_shared_l2_lie(void)
{
    for (int i = 0; i < 3; i++) {
        g_autoptr(WriteLogDisk) d = shared_disk(i == 1, i == 0 ? 0 : COPIED);
        BlockBackend *blk = open_disk(d, "none", 0);
        BdrvCheckResult res = { 0 };

        assert_filled(blk, TABLE_BYTES, 0x77);
        g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
        g_assert_cmpint(res.corruptions, >, 0);
        blk_unref(blk);

        blk = open_disk(d, "none", BDRV_O_RDWR | BDRV_O_UNMAP);
        g_assert_nonnull(blk);
        g_assert_cmpint(blk_pwrite(blk, 0, 1, "x", 0), ==, -EIO);
        g_assert_cmpint(blk_pdiscard(blk, 0, CLUSTER), ==, -EIO);
        assert_filled(blk, 0, 0x77);
        assert_filled(blk, TABLE_BYTES, 0x77);
        blk_unref(blk);

        repair(d);
        blk = open_disk(d, "none", BDRV_O_RDWR | BDRV_O_UNMAP);
        g_assert_nonnull(blk);
        use_halves(blk);
        blk_unref(blk);
    }
}

/* ---- Tables that are data ---- */

typedef struct FalseTable {
    const char *name;
    int64_t cluster;            /* the L1 entry refers to it */
    bool has_all;               /* there are a snapshot and a bitmap, too */
    int first;                  /* entry that is one to be repaired; 0: 1 */
    uint64_t reserved;          /* bits of the L2 entry of the data */
    uint64_t entry;             /* to be repaired; 0: FALSE_ENTRY */
    bool is_incomplete;         /* the snapshot is to be repaired, too */
} FalseTable;

static const FalseTable false_tables[] = {
    { "data", DATA },
    { "data-reserved-bits", DATA, .reserved = UINT64_C(1) << 56 | 2 },
    { "data-beside-snapshot", DATA, true, .is_incomplete = true,
      .entry = COPIED | REFTABLE * CLUSTER },
    { "bitmap", BITMAP_DATA, true },
    { "bitmap-table", BITMAP_TABLE, true },
    { "snapshot-table", SNAPSHOTS, true, 8 },
    { "snapshot-l1", SNAPSHOT_L1, true },
};

/* As a table, it is full of flags that are to be repaired. */
#define FALSE_ENTRY UINT64_C(0x809f9f9f9f9f9e00)

static WriteLogDisk *false_table_disk(const FalseTable *t)
{
    WriteLogDisk *d = shared_disk(true, 0);
    uint8_t image[CLUSTERS * CLUSTER];

    if (t->has_all) {
        make_image(image);
    } else {
        mem_image_read(d->img, 0, image, sizeof(image));
    }
    stq_be_p(image + L1 * CLUSTER + (t->has_all ? 0 : 8),
             t->cluster * CLUSTER);
    image[L2 * CLUSTER] |= t->reserved >> 56;
    image[L2 * CLUSTER + 7] |= t->reserved;
    for (int i = MAX(t->first, 1) * 8; i < CLUSTER; i += 8) {
        stq_be_p(image + t->cluster * CLUSTER + i, t->entry ?: FALSE_ENTRY);
    }
    if (t->is_incomplete) {
        stl_be_p(image + SNAPSHOTS * CLUSTER + 36, 0);  /* extra data */
    }
    mem_image_write(d->img, 0, image, sizeof(image));
    return d;
}

/* A repair leaves it alone. */
static void test_false_table(const void *opaque)
{
    const FalseTable *t = opaque;
    g_autoptr(WriteLogDisk) d = false_table_disk(t);
    uint8_t before[CLUSTER], now[CLUSTER];
    BlockBackend *blk = open_disk(d, "cached", BDRV_O_RDWR | BDRV_O_CHECK);
    BdrvCheckResult res = { 0 };

    mem_image_read(d->img, t->cluster * CLUSTER, before, CLUSTER);
    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, BDRV_FIX_LEAKS |
                               BDRV_FIX_ERRORS), ==, 0);
    g_assert_cmpint(res.corruptions, >, 0);
    blk_unref(blk);
    mem_image_read(d->img, t->cluster * CLUSTER, now, CLUSTER);
    g_assert_cmpmem(now, CLUSTER, before, CLUSTER);
}

/* ---- Snapshots that lie ---- */

typedef struct SnapshotLie {
    const char *name;
    int64_t at;
    int width;                  /* bytes */
    uint32_t value;
    bool opens;
    bool read_only;             /* only so: the table ends behind the file */
} SnapshotLie;

#define ENTRY (SNAPSHOTS * CLUSTER)

static const SnapshotLie snapshot_lies[] = {
    { "many", 60, 4, 65536, true, true },
    { "larger-l1", ENTRY + 8, 4, CLUSTER / 8, true, false },
    { "long-id", ENTRY + 12, 2, UINT16_MAX, true, true },
    { "long-name", ENTRY + 14, 2, UINT16_MAX, true, true },
    { "much-extra", ENTRY + 36, 4, 1025, false, false },
    { "endless-extra", ENTRY + 36, 4, UINT32_MAX, false, false },
};

static void test_snapshot_lie(const void *opaque)
{
    const SnapshotLie *lie = opaque;
    uint8_t image[CLUSTERS * CLUSTER], buf[DISK];
    MemImage *mem = mem_image_new(sizeof(image));
    g_autoptr(WriteLogDisk) d = NULL;
    BlockBackend *blk;

    make_image(image);
    image[DATA * CLUSTER] = 0x77;
    if (lie->width == 2) {
        stw_be_p(image + lie->at, lie->value);
    } else {
        stl_be_p(image + lie->at, lie->value);
    }
    mem_image_write(mem, 0, image, sizeof(image));
    d = write_log_disk_new("hostile", mem);
    g_assert_null(lie->opens && !lie->read_only ? NULL :
                  open_disk(d, "all", BDRV_O_RDWR));
    blk = open_disk(d, "all", 0);
    g_assert_true(!!blk == lie->opens);
    if (blk) {
        /* It may have more entries than its disk needs. */
        g_assert_true(lie->read_only ||
                      bdrv_snapshot_load_tmp(blk_bs(blk), NULL, "s",
                                             &error_abort));
        g_assert_cmpint(blk_pread(blk, 0, DISK, buf, 0), ==, 0);
        g_assert_cmpint(buf[0], ==, 0x77);
        blk_unref(blk);
    }
    assert_header(d, image);
}

/* ---- A table that thousands have ---- */

#define BIG 4096                /* a cluster of this image */
#define CROWD 20000

/* Clusters: header, refcount table and block, L1, L2, data, the table of the
 * crowd, what that refers to; then the list of the crowd, to the end. */
enum { CROWD_TABLE = 6, CROWD_L2, CROWD_LIST };

static void put_refcount(MemImage *mem, int cluster, uint16_t refcount)
{
    uint8_t be[2];

    stw_be_p(be, refcount);
    mem_image_write(mem, 2 * BIG + 2 * cluster, be, 2);
}

static void put_word(MemImage *mem, int64_t at, uint64_t word)
{
    uint8_t be[8];

    stq_be_p(be, word);
    mem_image_write(mem, at, be, 8);
}

static MemImage *crowd_image(int64_t list_bytes)
{
    int clusters = CROWD_LIST + DIV_ROUND_UP(list_bytes, BIG);
    MemImage *mem = mem_image_new((int64_t)clusters * BIG);
    uint8_t h[BIG] = { 0 };

    put_header(h);
    stl_be_p(h + 20, 12);
    stq_be_p(h + 40, 3 * BIG);
    stq_be_p(h + 48, BIG);
    stl_be_p(h + 60, 0);
    stq_be_p(h + 64, 0);
    memset(h + 88, 0, 8);
    memset(h + 112, 0, 32);
    mem_image_write(mem, 0, h, BIG);
    put_word(mem, BIG, 2 * BIG);
    put_word(mem, 3 * BIG, 4 * BIG | COPIED);
    put_word(mem, 4 * BIG, 5 * BIG | COPIED);
    put_word(mem, CROWD_TABLE * BIG, CROWD_L2 * BIG);
    for (int i = 0; i < clusters; i++) {
        put_refcount(mem, i, i == CROWD_TABLE || i == CROWD_L2 ? CROWD : 1);
    }
    return mem;
}

/* @step: from one L1 table to the next; 0: they are one. */
static MemImage *crowd_of_snapshots(uint32_t l1_size, int64_t step)
{
    MemImage *mem = crowd_image(CROWD * 64);
    uint8_t b[8];

    for (int i = 0; i < CROWD; i++) {
        uint8_t entry[64] = { 0 };

        stq_be_p(entry, CROWD_TABLE * BIG + i * step);
        stl_be_p(entry + 8, l1_size);
        stw_be_p(entry + 12, 1);
        stl_be_p(entry + 36, 16);
        stq_be_p(entry + 48, DISK);
        entry[56] = '1';
        mem_image_write(mem, CROWD_LIST * BIG + i * 64, entry, 64);
    }
    stl_be_p(b, CROWD);
    mem_image_write(mem, 60, b, 4);
    put_word(mem, 64, CROWD_LIST * BIG);
    return mem;
}

static MemImage *crowd_of_bitmaps(uint32_t table_size)
{
    MemImage *mem = crowd_image(CROWD * 32);
    uint8_t ext[32] = { 0 };

    for (int i = 0; i < CROWD; i++) {
        uint8_t entry[32] = { 0 };

        stq_be_p(entry, CROWD_TABLE * BIG);
        stl_be_p(entry + 8, table_size);
        entry[16] = 1;
        entry[17] = 16;
        stw_be_p(entry + 18, 5);
        g_snprintf((char *)entry + 24, 6, "%05d", i);
        mem_image_write(mem, CROWD_LIST * BIG + i * 32, entry, 32);
    }
    put_word(mem, 88, 1);
    stl_be_p(ext, 0x23852875);
    stl_be_p(ext + 4, 24);
    stl_be_p(ext + 8, CROWD);
    stq_be_p(ext + 16, CROWD * 32);
    stq_be_p(ext + 24, CROWD_LIST * BIG);
    mem_image_write(mem, 112, ext, 32);
    return mem;
}

/* Of an image that becomes the disk's. */
static int check_crowd(MemImage *mem, BdrvCheckResult *res)
{
    g_autoptr(WriteLogDisk) d = write_log_disk_new("hostile", mem);
    BlockBackend *blk = open_disk(d, "cached", BDRV_O_CHECK);
    int ret;

    g_assert_nonnull(blk);
    memset(res, 0, sizeof(*res));
    ret = bdrv_check(blk_bs(blk), res, 0);
    blk_unref(blk);
    return ret;
}

/* Each of them counts. */
static void test_crowd_counts(void)
{
    BdrvCheckResult res;

    for (int more = 0; more < 2; more++) {
        MemImage *snapshots = crowd_of_snapshots(BIG / 8, 0);
        MemImage *bitmaps = crowd_of_bitmaps(1);

        put_refcount(snapshots, CROWD_L2, CROWD + more);
        put_refcount(bitmaps, CROWD_L2, CROWD - more);
        g_assert_cmpint(check_crowd(snapshots, &res), ==, 0);
        g_assert_cmpint(res.leaks, ==, more);
        g_assert_cmpint(res.corruptions + res.check_errors, ==, 0);
        g_assert_cmpint(check_crowd(bitmaps, &res), ==, 0);
        g_assert_cmpint(res.corruptions, ==, more);
        g_assert_cmpint(res.leaks + res.check_errors, ==, 0);
    }
}

/* Without the table being gone through for each: it has 512 tables to look at,
 * or as many clusters, which for all of the crowd takes minutes. */
static void test_crowd_is_bounded(void)
{
    MemImage *snapshots = crowd_of_snapshots(BIG / 8, 0);
    MemImage *bitmaps = crowd_of_bitmaps(BIG / 8);
    BdrvCheckResult res;

    for (int i = 0; i < BIG / 8; i++) {
        put_word(snapshots, CROWD_TABLE * BIG + 8 * i, CROWD_L2 * BIG);
        put_word(bitmaps, CROWD_TABLE * BIG + 8 * i, CROWD_L2 * BIG);
    }
    g_test_timer_start();
    g_assert_cmpint(check_crowd(snapshots, &res), ==, 0);
    g_assert_cmpint(res.corruptions, >, 0);
    g_assert_cmpint(check_crowd(bitmaps, &res), ==, 0);
    g_assert_cmpint(res.corruptions, >, 0);
    g_assert_cmpfloat(g_test_timer_elapsed(), <, 30);
}

#define LONG_TABLE 8            /* clusters */

/* They have a table of so many clusters at the end of the file, and an L2 entry
 * of the disk has a flag that is wrong. */
static MemImage *crowd_to_repair(void)
{
    MemImage *mem = crowd_of_snapshots(LONG_TABLE * BIG / 8, 0);
    int first = mem_image_size(mem) / BIG;

    mem_image_truncate(mem, (int64_t)(first + LONG_TABLE) * BIG);
    for (int i = 0; i < LONG_TABLE; i++) {
        put_refcount(mem, first + i, CROWD);
    }
    for (int i = 0; i < CROWD; i++) {
        put_word(mem, CROWD_LIST * BIG + i * 64, (int64_t)first * BIG);
    }
    put_word(mem, 4 * BIG + 8, 5 * BIG | COPIED);
    return mem;
}

/* A repair looks for all users of a table before it writes to it, but not
 * through one table for each of the crowd. */
static void test_crowd_is_repaired(void)
{
    g_autoptr(WriteLogDisk) d = write_log_disk_new("hostile",
                                                   crowd_to_repair());
    uint8_t entry[8];

    write_log_fail(d, (WriteLogFault){ 1u << WLOG_READ, 0, EIO });
    repair(d);
    mem_image_read(d->img, 4 * BIG + 8, entry, 8);
    g_assert_cmphex(ldq_be_p(entry), ==, 5 * BIG);
    /* An entry of the list takes three: its head, extra data and names. */
    g_assert_cmpuint(write_log_calls(d), <, 4 * CROWD);
}

/* Nor are tables that overlap gone through … */
static void test_crowd_overlaps(void)
{
    BdrvCheckResult res;

    g_assert_cmpint(check_crowd(crowd_of_snapshots(BIG, BIG), &res), ==,
                    -EINVAL);
    g_assert_cmpint(res.check_errors, ==, 1);
}

/* … not even if each is an entry longer than the one before, and entries of the
 * disk are to be repaired before they are counted. */
static void test_crowd_grows(void)
{
    MemImage *mem = crowd_of_snapshots(1, 0);
    g_autoptr(WriteLogDisk) d = write_log_disk_new("hostile", mem);

    for (int i = 0; i < CROWD; i++) {
        uint8_t size[4];

        stl_be_p(size, 1 + i);
        mem_image_write(mem, CROWD_LIST * BIG + i * 64 + 8, size, 4);
    }
    for (int i = 1; i < 10; i++) {
        put_word(mem, 4 * BIG + 8 * i, (5 * BIG + CLUSTER) | 1);
    }
    write_log_fail(d, (WriteLogFault){ 1u << WLOG_READ, 0, EIO });
    repair(d);
    g_assert_cmpuint(write_log_calls(d), <, 4 * CROWD);
}

/* ---- An encryption header that lies ---- */

static void test_crypto_header(void)
{
    static const uint64_t places[][2] = {
        { 0, CLUSTER }, { CLUSTER + 8, CLUSTER }, { UINT64_MAX - 511, 512 },
        { UINT64_C(1) << 63, 512 }, { 4 * CLUSTER, INT64_MAX },
        { 4 * CLUSTER, 0 }, { L2 * CLUSTER, CLUSTER },
        { INT64_MAX - 511, CLUSTER },
    };
    const int flags[] = { BDRV_O_NO_IO, BDRV_O_CHECK, 0, BDRV_O_RDWR };

    for (size_t i = 0; i < ARRAY_SIZE(places) * ARRAY_SIZE(flags); i++) {
        uint8_t image[CLUSTERS * CLUSTER];
        MemImage *mem = mem_image_new(sizeof(image));
        g_autoptr(WriteLogDisk) d = NULL;
        BlockBackend *blk;

        make_image(image);
        stl_be_p(image + 32, 2);
        stl_be_p(image + 112, 0x0537be77);
        stl_be_p(image + 116, 16);
        stq_be_p(image + 120, places[i % ARRAY_SIZE(places)][0]);
        stq_be_p(image + 128, places[i % ARRAY_SIZE(places)][1]);
        memset(image + 136, 0, 8);
        mem_image_write(mem, 0, image, sizeof(image));
        d = write_log_disk_new("hostile", mem);
        blk = open_disk(d, "all", flags[i / ARRAY_SIZE(places)]);
        g_assert_null(blk);
        assert_header(d, image);
    }
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    write_log_register();
    graph = block_graph_new();
    g_test_add_func("/qcow2-hostile/intact", test_intact);
    for (size_t i = 0; i < ARRAY_SIZE(pointers); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2-hostile/pointer/%s",
                                                pointers[i].name);

        g_test_add_data_func(path, &pointers[i], test_pointer);
    }
    for (size_t i = 0; i < ARRAY_SIZE(snapshot_lies); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2-hostile/snapshot/%s",
                                                snapshot_lies[i].name);

        g_test_add_data_func(path, &snapshot_lies[i], test_snapshot_lie);
    }
    g_test_add_func("/qcow2-hostile/freed-as-data", test_freed_as_data);
    g_test_add_func("/qcow2-hostile/shared-l2/counted", test_shared_l2_counted);
    g_test_add_func("/qcow2-hostile/shared-l2/lie", test_shared_l2_lie);
    for (size_t i = 0; i < ARRAY_SIZE(false_tables); i++) {
        g_autofree char *path = g_strdup_printf(
            "/qcow2-hostile/false-table/%s", false_tables[i].name);

        g_test_add_data_func(path, &false_tables[i], test_false_table);
    }
    g_test_add_func("/qcow2-hostile/crowd/counts", test_crowd_counts);
    g_test_add_func("/qcow2-hostile/crowd/is-bounded", test_crowd_is_bounded);
    g_test_add_func("/qcow2-hostile/crowd/is-repaired", test_crowd_is_repaired);
    g_test_add_func("/qcow2-hostile/crowd/overlaps", test_crowd_overlaps);
    g_test_add_func("/qcow2-hostile/crowd/grows", test_crowd_grows);
    g_test_add_func("/qcow2-hostile/encryption-header", test_crypto_header);
    ret = g_test_run();
    block_graph_free(graph);
    return ret;
}
