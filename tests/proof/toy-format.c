/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The toy format: a header, one table, clusters.
 *
 * Every write goes to a new cluster: the old one is read where the write does
 * not cover it all, the copy is written, then the table in memory points to it.
 * A flush makes the data durable, then writes the changed sectors of the table,
 * then makes those durable; only then are the clusters that they no longer name
 * free, unless somebody still reads them.
 *
 * One lock protects the state; no I/O under it.  Writers of one cluster take
 * turns (busy), and so do flushes.
 */
#include "toy-format.h"
#include "block/block-driver.h"
#include "qemu/options.h"

#define TOY_MAGIC   UINT64_C(0x31305946544f5954)
#define TOY_TABLE   4096            /* offset in the file */
#define TOY_SECTOR  512
#define TOY_PER_SECTOR (TOY_SECTOR / sizeof(uint32_t))
#define TOY_MAX     8192            /* clusters of the disk */
#define TOY_HOSTS   16384           /* and of the file; 0 is none */

typedef struct ToyHeader {
    uint64_t magic;
    uint64_t size;
    uint64_t capacity;              /* entries of the table */
    uint8_t padding[TOY_SECTOR - 24];
} ToyHeader;

typedef enum HostState {
    HOST_FREE,
    HOST_USED,
    HOST_DROPPED,                   /* by the table in memory */
    HOST_DROPPING,                  /* and by the table being written */
} HostState;

typedef struct ToyState {
    /* Constant after open. */
    int64_t capacity;
    unsigned bugs;

    DriverLock lock;
    QemuCond cond;
    int64_t size GUARDED_BY(driver_class);
    uint32_t *table GUARDED_BY(driver_class);
    bool *busy GUARDED_BY(driver_class);
    bool *dirty GUARDED_BY(driver_class);     /* sectors of the table */
    uint8_t *hosts GUARDED_BY(driver_class);  /* HostState */
    int *pins GUARDED_BY(driver_class);       /* readers of a cluster */
    uint32_t hint GUARDED_BY(driver_class);   /* none below it is free */
    bool is_flushing GUARDED_BY(driver_class);
} ToyState;

static int64_t table_bytes(int64_t capacity)
{
    return QEMU_ALIGN_UP(capacity * (int64_t)sizeof(uint32_t), TOY_CLUSTER);
}

static int64_t host_offset(int64_t capacity, uint32_t host)
{
    return TOY_TABLE + table_bytes(capacity) +
           (int64_t)(host - 1) * TOY_CLUSTER;
}

/* ---- Clusters of the file ---- */

static uint32_t alloc_locked(ToyState *s) REQUIRES(driver_class)
{
    for (; s->hint < TOY_HOSTS; s->hint++) {
        if (s->hosts[s->hint] == HOST_FREE) {
            s->hosts[s->hint] = HOST_USED;
            return s->hint++;
        }
    }
    return 0;
}

static void free_locked(ToyState *s, uint32_t host) REQUIRES(driver_class)
{
    s->hosts[host] = HOST_FREE;
    s->hint = MIN(s->hint, host);
}

static void drop_locked(ToyState *s, uint32_t host) REQUIRES(driver_class)
{
    if (!host) {
        return;
    }
    s->hosts[host] = HOST_DROPPED;
    if ((s->bugs & TOY_EARLY_REUSE) && !s->pins[host]) {
        free_locked(s, host);
    }
}

static void map_locked(ToyState *s, int64_t cluster, uint32_t host)
    REQUIRES(driver_class)
{
    s->table[cluster] = host;
    s->dirty[cluster / TOY_PER_SECTOR] = true;
}

static void claim_locked(ToyState *s, int64_t cluster) REQUIRES(driver_class)
{
    while (s->busy[cluster] && !(s->bugs & TOY_LOST_UPDATE)) {
        driver_wait(&s->cond, &s->lock);
    }
    s->busy[cluster] = true;
}

static void unclaim_locked(ToyState *s, int64_t cluster) REQUIRES(driver_class)
{
    s->busy[cluster] = false;
    qemu_cond_broadcast(&s->cond);
}

/* ---- Opening ---- */

static bool read_table(BlockDriverState *bs, Error **errp)
{
    ToyState *s = bs->opaque;
    uint32_t *table;
    ToyHeader h;
    int64_t i;
    int ret = bdrv_pread(bs->file, 0, sizeof(h), &h, 0);

    if (ret == 0 && (h.magic != TOY_MAGIC || h.capacity > TOY_MAX ||
                     h.size > h.capacity * TOY_CLUSTER)) {
        ret = -EINVAL;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the toy's header");
        return false;
    }
    s->capacity = h.capacity;
    table = g_malloc0(table_bytes(s->capacity) + 1);
    ret = bdrv_pread(bs->file, TOY_TABLE, table_bytes(s->capacity), table, 0);
    driver_lock(&s->lock);
    s->size = h.size;
    s->hint = 1;
    s->busy = g_new0(bool, s->capacity + 1);
    s->dirty = g_new0(bool, table_bytes(s->capacity) / TOY_SECTOR + 1);
    s->hosts = g_new0(uint8_t, TOY_HOSTS);
    s->pins = g_new0(int, TOY_HOSTS);
    s->table = table;
    for (i = 0; ret == 0 && i < s->capacity; i++) {
        if (s->table[i] >= TOY_HOSTS) {
            driver_unlock(&s->lock);
            error_setg(errp, "Entry %" PRId64 " of the toy's table is wrong",
                       i);
            return false;
        }
        if (s->table[i] && !((s->bugs & TOY_FREES_USED) && i % 8 == 7)) {
            s->hosts[s->table[i]] = HOST_USED;
        }
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the toy's table");
    }
    return ret == 0;
}

static void state_free(ToyState *s) NO_TSA
{
    g_free(s->table);
    g_free(s->busy);
    g_free(s->dirty);
    g_free(s->hosts);
    g_free(s->pins);
    qemu_cond_destroy(&s->cond);
    driver_destroy(&s->lock);
}

static bool toy_open(BlockDriverState *bs, json_t *options, int flags,
                     Error **errp)
{
    ToyState *s = bs->opaque;
    uint64_t bugs = 0;

    if (!opt_take_u64(options, "bugs", &bugs, errp) ||
        !bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    s->bugs = bugs;
    driver_init(&s->lock);
    qemu_cond_init(&s->cond);
    if (!read_table(bs, errp)) {
        state_free(s);
        return false;
    }
    return true;
}

static bool write_new(BlockBackend *blk, int64_t size, Error **errp)
{
    ToyHeader h = { .magic = TOY_MAGIC, .size = size, .capacity = TOY_MAX };
    int ret;

    /* Room to grow, but a table as small as most disks. */
    h.capacity = MAX(1024, 2 * size / TOY_CLUSTER);
    if (!blk_truncate(blk, host_offset(h.capacity, 1), true,
                      PREALLOC_MODE_OFF, 0, errp)) {
        return false;
    }
    ret = blk_pwrite(blk, 0, sizeof(h), &h, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the toy's header");
    }
    return ret == 0;
}

static bool toy_create(BlockGraph *graph, const char *filename,
                       json_t *options, Error **errp)
{
    g_autoptr(json_t) file_options = json_object();
    int64_t size = 0;
    BlockBackend *blk;
    bool ok;

    if (!opt_take_offset(options, "size", &size, errp)) {
        return false;
    }
    if (size % TOY_CLUSTER || size / TOY_CLUSTER > TOY_MAX / 2) {
        error_setg(errp, "No toy has this size");
        return false;
    }
    if (!bdrv_create_file(graph, filename, file_options, errp)) {
        return false;
    }
    blk = blk_new_open(graph, filename, NULL, NULL,
                       BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_PROTOCOL, errp);
    if (!blk) {
        return false;
    }
    ok = write_new(blk, size, errp);
    blk_unref(blk);
    return ok;
}

/* ---- Reading ---- */

static int read_cluster(BlockDriverState *bs, int64_t cluster, int64_t at,
                        int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset)
{
    ToyState *s = bs->opaque;
    bool is_pinning = !(s->bugs & TOY_STALE_READ);
    uint32_t host;
    int ret;

    driver_lock(&s->lock);
    host = s->table[cluster];
    if (host && is_pinning) {
        s->pins[host]++;
    }
    driver_unlock(&s->lock);
    if (!host) {
        qemu_iovec_memset(qiov, qiov_offset, 0, bytes);
        return 0;
    }
    ret = bdrv_preadv(bs->file, host_offset(s->capacity, host) + at, bytes,
                      qiov, qiov_offset, 0);
    if (is_pinning) {
        driver_lock(&s->lock);
        s->pins[host]--;
        driver_unlock(&s->lock);
    }
    return ret;
}

/* ---- Writing ---- */

/* What the cluster will hold, in @buf. */
static int merge(BlockDriverState *bs, uint32_t old, int64_t at, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset, uint8_t *buf)
{
    ToyState *s = bs->opaque;
    int ret = 0;

    if (bytes < TOY_CLUSTER && old) {
        ret = bdrv_pread(bs->file, host_offset(s->capacity, old), TOY_CLUSTER,
                         buf, 0);
    }
    if (qiov) {
        qemu_iovec_to_buf(qiov, qiov_offset, buf + at, bytes);
    } else {
        memset(buf + at, 0, bytes);
    }
    return ret;
}

static int write_copy(BlockDriverState *bs, int64_t cluster, uint32_t host,
                      const uint8_t *buf)
{
    ToyState *s = bs->opaque;
    int ret = 0;

    if (s->bugs & TOY_TABLE_FIRST) {
        ret = bdrv_pwrite(bs->file, TOY_TABLE + cluster * sizeof(host),
                          sizeof(host), &host, 0);
    }
    return ret < 0 ? ret :
           bdrv_pwrite(bs->file, host_offset(s->capacity, host), TOY_CLUSTER,
                       buf, 0);
}

/* @qiov NULL: zeroes. */
static int write_cluster(BlockDriverState *bs, int64_t cluster, int64_t at,
                         int64_t bytes, QEMUIOVector *qiov,
                         size_t qiov_offset)
{
    ToyState *s = bs->opaque;
    g_autofree uint8_t *buf = g_malloc0(TOY_CLUSTER);
    uint32_t old, host;
    int ret;

    driver_lock(&s->lock);
    claim_locked(s, cluster);
    old = s->table[cluster];
    host = alloc_locked(s);
    if (host && (s->bugs & TOY_EARLY_MAP)) {
        map_locked(s, cluster, host);
    }
    driver_unlock(&s->lock);

    ret = host ? merge(bs, old, at, bytes, qiov, qiov_offset, buf) : -ENOSPC;
    if (ret == 0) {
        ret = write_copy(bs, cluster, host, buf);
    }

    driver_lock(&s->lock);
    if (ret == 0) {
        map_locked(s, cluster, host);
        drop_locked(s, old);
    } else if (host && !(s->bugs & TOY_EARLY_MAP)) {
        free_locked(s, host);
    }
    unclaim_locked(s, cluster);
    driver_unlock(&s->lock);
    return ret;
}

static int drop_cluster(BlockDriverState *bs, int64_t cluster)
{
    ToyState *s = bs->opaque;

    driver_lock(&s->lock);
    claim_locked(s, cluster);
    drop_locked(s, s->table[cluster]);
    map_locked(s, cluster, 0);
    unclaim_locked(s, cluster);
    driver_unlock(&s->lock);
    return 0;
}

/* ---- Requests, cut into clusters ---- */

typedef enum ToyOp {
    TOY_READ,
    TOY_WRITE,
    TOY_ZERO,
    TOY_DISCARD,
} ToyOp;

static int run_piece(BlockDriverState *bs, ToyOp op, int64_t cluster,
                     int64_t at, int64_t bytes, QEMUIOVector *qiov,
                     size_t qiov_offset)
{
    switch (op) {
    case TOY_READ:
        return read_cluster(bs, cluster, at, bytes, qiov, qiov_offset);
    case TOY_WRITE:
        return write_cluster(bs, cluster, at, bytes, qiov, qiov_offset);
    case TOY_ZERO:
        return bytes == TOY_CLUSTER ? drop_cluster(bs, cluster) :
               write_cluster(bs, cluster, at, bytes, NULL, 0);
    case TOY_DISCARD:
        return bytes == TOY_CLUSTER ? drop_cluster(bs, cluster) : 0;
    }
    g_assert_not_reached();
}

static int run(BlockDriverState *bs, ToyOp op, int64_t offset, int64_t bytes,
               QEMUIOVector *qiov, size_t qiov_offset)
{
    while (bytes > 0) {
        int64_t at = offset % TOY_CLUSTER;
        int64_t n = MIN(bytes, TOY_CLUSTER - at);
        int ret = run_piece(bs, op, offset / TOY_CLUSTER, at, n, qiov,
                            qiov_offset);

        if (ret < 0) {
            return ret;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return 0;
}

static int toy_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return run(bs, TOY_READ, offset, bytes, qiov, qiov_offset);
}

static int toy_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return run(bs, TOY_WRITE, offset, bytes, qiov, qiov_offset);
}

static int toy_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                             int64_t bytes, int flags)
{
    return run(bs, TOY_ZERO, offset, bytes, NULL, 0);
}

static int toy_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return run(bs, TOY_DISCARD, offset, bytes, NULL, 0);
}

/* ---- Flushing ---- */

typedef struct Snapshot {
    uint32_t *table;
    bool *dirty;
    size_t sectors;
} Snapshot;

static void snapshot_take(ToyState *s, Snapshot *snap)
{
    uint32_t i;

    driver_lock(&s->lock);
    while (s->is_flushing) {
        driver_wait(&s->cond, &s->lock);
    }
    s->is_flushing = true;
    snap->sectors = table_bytes(s->capacity) / TOY_SECTOR;
    snap->table = g_memdup2(s->table, table_bytes(s->capacity));
    snap->dirty = g_memdup2(s->dirty, snap->sectors);
    memset(s->dirty, 0, snap->sectors);
    for (i = 1; i < TOY_HOSTS; i++) {
        if (s->hosts[i] == HOST_DROPPED) {
            s->hosts[i] = HOST_DROPPING;
        }
    }
    driver_unlock(&s->lock);
}

static int snapshot_write(BlockDriverState *bs, const Snapshot *snap)
{
    ToyState *s = bs->opaque;
    int ret = s->bugs & TOY_NO_BARRIER ? 0 : bdrv_flush(bs->file->bs);
    size_t i;

    for (i = 0; ret == 0 && i < snap->sectors; i++) {
        if (snap->dirty[i]) {
            ret = bdrv_pwrite(bs->file, TOY_TABLE + i * TOY_SECTOR, TOY_SECTOR,
                              snap->table + i * TOY_PER_SECTOR, 0);
        }
    }
    return ret < 0 ? ret : bdrv_flush(bs->file->bs);
}

static void snapshot_done(ToyState *s, Snapshot *snap, bool ok)
{
    uint32_t i;

    driver_lock(&s->lock);
    for (i = 1; i < TOY_HOSTS; i++) {
        if (s->hosts[i] == HOST_DROPPING) {
            s->hosts[i] = HOST_DROPPED;
            if (ok && !s->pins[i]) {
                free_locked(s, i);
            }
        }
    }
    for (i = 0; !ok && i < snap->sectors; i++) {
        s->dirty[i] |= snap->dirty[i];
    }
    s->is_flushing = false;
    qemu_cond_broadcast(&s->cond);
    driver_unlock(&s->lock);
    g_free(snap->table);
    g_free(snap->dirty);
}

static int write_back(BlockDriverState *bs)
{
    ToyState *s = bs->opaque;
    Snapshot snap;
    int ret;

    snapshot_take(s, &snap);
    ret = snapshot_write(bs, &snap);
    if (s->bugs & TOY_IGNORES_ERROR) {
        ret = 0;
    }
    snapshot_done(s, &snap, ret == 0);
    return ret;
}

static int toy_flush(BlockDriverState *bs)
{
    ToyState *s = bs->opaque;

    return s->bugs & TOY_FORGETS_TABLE ? 0 : write_back(bs);
}

static void toy_close(BlockDriverState *bs)
{
    /* Nobody to tell: what was to be kept has been flushed before. */
    write_back(bs);
    state_free(bs->opaque);
}

/* ---- Length ---- */

static int64_t toy_getlength(BlockDriverState *bs)
{
    ToyState *s = bs->opaque;
    int64_t size;

    driver_lock(&s->lock);
    size = s->size;
    driver_unlock(&s->lock);
    return size;
}

static int cut_off(BlockDriverState *bs, int64_t size)
{
    ToyState *s = bs->opaque;
    int64_t i;

    if (s->bugs & TOY_LEAVES_TAIL) {
        return 0;
    }
    for (i = size / TOY_CLUSTER; i < s->capacity; i++) {
        drop_cluster(bs, i);
    }
    return write_back(bs);
}

/* What is cut off is gone before it is out of sight. */
static bool toy_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                         PreallocMode prealloc, int flags, Error **errp)
{
    ToyState *s = bs->opaque;
    ToyHeader h = { .magic = TOY_MAGIC, .size = offset,
                    .capacity = s->capacity };
    int ret;

    if (offset % TOY_CLUSTER || offset > s->capacity * TOY_CLUSTER) {
        error_setg(errp, "No toy has this size");
        return false;
    }
    ret = offset < toy_getlength(bs) ? cut_off(bs, offset) : 0;
    if (ret == 0) {
        ret = bdrv_pwrite_sync(bs->file, 0, sizeof(h), &h, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not resize the toy");
        return false;
    }
    driver_lock(&s->lock);
    s->size = offset;
    driver_unlock(&s->lock);
    return true;
}

/* ---- Checking ---- */

/* No cluster twice, none outside of the file. */
static int toy_check(BlockDriverState *bs, BdrvCheckResult *res,
                     BdrvCheckMode fix)
{
    ToyState *s = bs->opaque;
    g_autofree uint32_t *table = g_malloc0(table_bytes(s->capacity) + 1);
    g_autofree bool *seen = g_new0(bool, TOY_HOSTS);
    int64_t length = bdrv_getlength(bs->file->bs);
    int64_t i;
    int ret = bdrv_pread(bs->file, TOY_TABLE, table_bytes(s->capacity), table,
                         0);

    if (ret < 0) {
        res->check_errors++;
        return ret;
    }
    for (i = 0; i < s->capacity; i++) {
        uint32_t host = table[i];

        if (host && (host >= TOY_HOSTS || seen[host] ||
                     host_offset(s->capacity, host + 1) > length)) {
            res->corruptions++;
        } else {
            seen[host] = host != 0;
        }
    }
    return 0;
}

static const BlockCreateOption toy_create_opts[] = {
    { "size", BLOCK_OPT_SIZE, "Virtual disk size", NULL },
    { NULL },
};

static BlockDriver driver_toy = {
    .format_name = "toy",
    .instance_size = sizeof(ToyState),
    .create_opts = toy_create_opts,
    .open = toy_open,
    .close = toy_close,
    .create = toy_create,
    .check = toy_check,
    .preadv = toy_preadv,
    .pwritev = toy_pwritev,
    .pwrite_zeroes = toy_pwrite_zeroes,
    .pdiscard = toy_pdiscard,
    .flush = toy_flush,
    .truncate = toy_truncate,
    .getlength = toy_getlength,
};

void toy_register(void)
{
    bdrv_register_driver(&driver_toy);
}
