/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk of write-log.h and its driver.
 *
 * A call is: a nap perhaps, then under the disk's lock (a leaf) the fault, the
 * change of the image and the entry in the log, so that the log's order is the
 * image's.  Only a flush is not one moment: what it covers is decided when it
 * begins, and its entry is made when it ends, after another nap; writes that
 * complete between the two are not durable by it.
 */
#include "write-log.h"
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "block/block-driver.h"

static GHashTable *disks;       /* id -> WriteLogDisk; control thread */
static uint64_t next_order;     /* atomic */

typedef struct WriteLogNode {
    WriteLogDisk *disk;
} WriteLogNode;

/* ---- Disks ---- */

static void entry_clear(gpointer opaque)
{
    g_free(((WriteLogEntry *)opaque)->data);
}

WriteLogDisk *write_log_disk_new(const char *id, MemImage *img)
{
    WriteLogDisk *d = g_new0(WriteLogDisk, 1);

    d->id = g_strdup(id);
    d->img = img;
    d->log = g_array_new(FALSE, FALSE, sizeof(WriteLogEntry));
    g_array_set_clear_func(d->log, entry_clear);
    qemu_mutex_init(&d->lock);
    if (!disks) {
        disks = g_hash_table_new(g_str_hash, g_str_equal);
    }
    g_assert_true(g_hash_table_insert(disks, d->id, d));
    return d;
}

void write_log_disk_free(WriteLogDisk *d)
{
    g_assert_cmpint(d->open_nodes, ==, 0);
    g_hash_table_remove(disks, d->id);
    if (g_hash_table_size(disks) == 0) {
        g_clear_pointer(&disks, g_hash_table_destroy);
    }
    qemu_mutex_destroy(&d->lock);
    g_array_free(d->log, TRUE);
    mem_image_free(d->img);
    g_clear_pointer(&d->base, mem_image_free);
    g_free(d->id);
    g_free(d);
}

/* ---- The log ---- */

/* Takes @e.data. */
static uint64_t append_locked(WriteLogDisk *d, WriteLogEntry e)
{
    if (d->is_recording) {
        e.order = qatomic_fetch_inc(&next_order);
        g_array_append_val(d->log, e);
    } else {
        g_free(e.data);
    }
    return d->time++;
}

void write_log_start(WriteLogDisk *d)
{
    qemu_mutex_lock(&d->lock);
    g_clear_pointer(&d->base, mem_image_free);
    d->base = mem_image_clone(d->img);
    g_array_set_size(d->log, 0);
    d->time = 0;
    d->is_recording = true;
    append_locked(d, (WriteLogEntry){ WLOG_MARK });
    qemu_mutex_unlock(&d->lock);
}

void write_log_stop(WriteLogDisk *d)
{
    qemu_mutex_lock(&d->lock);
    d->is_recording = false;
    qemu_mutex_unlock(&d->lock);
}

uint64_t write_log_mark(WriteLogDisk *d, int64_t value)
{
    uint64_t time;

    qemu_mutex_lock(&d->lock);
    time = append_locked(d, (WriteLogEntry){ WLOG_MARK, value });
    qemu_mutex_unlock(&d->lock);
    return time;
}

/* ---- Faults and naps ---- */

void write_log_fail(WriteLogDisk *d, WriteLogFault fault)
{
    qemu_mutex_lock(&d->lock);
    d->fault = fault;
    d->fired = false;
    d->calls = 0;
    qemu_mutex_unlock(&d->lock);
}

bool write_log_fired(WriteLogDisk *d)
{
    bool fired;

    qemu_mutex_lock(&d->lock);
    fired = d->fired;
    qemu_mutex_unlock(&d->lock);
    return fired;
}

unsigned write_log_calls(WriteLogDisk *d)
{
    unsigned calls;

    qemu_mutex_lock(&d->lock);
    calls = d->calls;
    qemu_mutex_unlock(&d->lock);
    return calls;
}

static int fault_locked(WriteLogDisk *d, WriteLogOp op)
{
    WriteLogFault *f = &d->fault;

    if (!(f->mask & 1u << op)) {
        return 0;
    }
    d->calls++;
    if (f->nth == 0 || (f->forever ? d->calls < f->nth : d->calls != f->nth)) {
        return 0;
    }
    d->fired = true;
    return -f->error;
}

static void nap(WriteLogDisk *d)
{
    unsigned dice;

    if (!d->jitter) {
        return;
    }
    dice = g_random_int_range(0, 100);
    if (dice < d->jitter / 4) {
        g_usleep(dice * 4 + 1);
    } else if (dice < d->jitter) {
        g_thread_yield();
    }
}

/* ---- Requests ---- */

static WriteLogDisk *node_disk(BlockDriverState *bs)
{
    return ((WriteLogNode *)bs->opaque)->disk;
}

static int wlog_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    WriteLogDisk *d = node_disk(bs);
    g_autofree uint8_t *buf = g_malloc(bytes);
    int ret;

    nap(d);
    qemu_mutex_lock(&d->lock);
    ret = fault_locked(d, WLOG_READ);
    if (ret == 0) {
        mem_image_read(d->img, offset, buf, bytes);
    }
    qemu_mutex_unlock(&d->lock);
    nap(d);
    if (ret == 0) {
        qemu_iovec_from_buf(qiov, qiov_offset, buf, bytes);
    }
    return ret;
}

static int wlog_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    WriteLogDisk *d = node_disk(bs);
    g_autofree uint8_t *buf = g_malloc(bytes);
    int ret;

    qemu_iovec_to_buf(qiov, qiov_offset, buf, bytes);
    nap(d);
    qemu_mutex_lock(&d->lock);
    ret = fault_locked(d, WLOG_WRITE);
    if (ret < 0) {
        bytes = d->fault.torn ? QEMU_ALIGN_DOWN(bytes / 2, BDRV_SECTOR_SIZE)
                              : 0;
    }
    if (bytes > 0) {
        append_locked(d, (WriteLogEntry){
            WLOG_WRITE, offset, bytes, g_memdup2(buf, bytes),
            .extends = offset + bytes > mem_image_size(d->img) });
        mem_image_write(d->img, offset, buf, bytes);
    }
    qemu_mutex_unlock(&d->lock);
    nap(d);
    return ret;
}

static int fill(BlockDriverState *bs, WriteLogOp op, int64_t offset,
                int64_t bytes, uint8_t value)
{
    WriteLogDisk *d = node_disk(bs);
    int ret;

    nap(d);
    qemu_mutex_lock(&d->lock);
    ret = fault_locked(d, op);
    if (ret == 0) {
        append_locked(d, (WriteLogEntry){
            op, offset, bytes,
            .extends = offset + bytes > mem_image_size(d->img) });
        mem_image_fill(d->img, offset, value, bytes);
    }
    qemu_mutex_unlock(&d->lock);
    nap(d);
    return ret;
}

static int wlog_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                              int64_t bytes, int flags)
{
    return fill(bs, WLOG_ZEROES, offset, bytes, 0);
}

static int wlog_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return fill(bs, WLOG_DISCARD, offset, bytes, node_disk(bs)->discard_value);
}

static int wlog_flush(BlockDriverState *bs)
{
    WriteLogDisk *d = node_disk(bs);
    uint64_t covers;
    int ret;

    nap(d);
    qemu_mutex_lock(&d->lock);
    covers = d->time;
    ret = fault_locked(d, WLOG_FLUSH);
    qemu_mutex_unlock(&d->lock);
    if (ret < 0) {
        return ret;
    }
    nap(d);
    qemu_mutex_lock(&d->lock);
    append_locked(d, (WriteLogEntry){ WLOG_FLUSH, .covers = covers });
    qemu_mutex_unlock(&d->lock);
    return 0;
}

static int wlog_block_status(BlockDriverState *bs, bool want_zero,
                             int64_t offset, int64_t bytes, int64_t *pnum,
                             int64_t *map, BlockDriverState **file)
{
    WriteLogDisk *d = node_disk(bs);
    const int64_t unit = 16 * KiB;
    int64_t end = MIN(bytes, unit - offset % unit);
    bool is_hole;

    qemu_mutex_lock(&d->lock);
    is_hole = mem_image_is_hole(d->img, offset, end);
    while (end < bytes &&
           mem_image_is_hole(d->img, offset + end, 1) == is_hole) {
        end = MIN(bytes, end + unit);
    }
    qemu_mutex_unlock(&d->lock);
    *pnum = end;
    *map = offset;
    *file = bs;
    return BDRV_BLOCK_OFFSET_VALID |
           (is_hole ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA);
}

/* ---- Length ---- */

static int64_t wlog_getlength(BlockDriverState *bs)
{
    WriteLogDisk *d = node_disk(bs);
    int64_t size;

    qemu_mutex_lock(&d->lock);
    size = mem_image_size(d->img);
    qemu_mutex_unlock(&d->lock);
    return size;
}

static bool wlog_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                          PreallocMode prealloc, int flags, Error **errp)
{
    WriteLogDisk *d = node_disk(bs);
    int ret;

    qemu_mutex_lock(&d->lock);
    ret = fault_locked(d, WLOG_TRUNCATE);
    if (ret == 0) {
        mem_image_truncate(d->img, offset);
        append_locked(d, (WriteLogEntry){ WLOG_TRUNCATE, offset });
    }
    qemu_mutex_unlock(&d->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not resize '%s'", d->id);
        return false;
    }
    return true;
}

static bool wlog_has_zero_init(BlockDriverState *bs)
{
    return true;
}

/* ---- Open and create ---- */

static bool wlog_parse_filename(const char *filename, json_t *options,
                                Error **errp)
{
    const char *id;

    if (!strstart(filename, "write-log:", &id)) {
        error_setg(errp, "Not the name of a write log: '%s'", filename);
        return false;
    }
    opt_set_str(options, "disk", id);
    return true;
}

static WriteLogDisk *find_disk(const char *id, Error **errp)
{
    WriteLogDisk *d = disks ? g_hash_table_lookup(disks, id) : NULL;

    if (!d) {
        error_setg(errp, "No disk '%s'", id);
    }
    return d;
}

static bool wlog_open(BlockDriverState *bs, json_t *options, int flags,
                      Error **errp)
{
    WriteLogNode *s = bs->opaque;
    g_autofree char *id = opt_take_str_required(options, "disk", errp);

    s->disk = id ? find_disk(id, errp) : NULL;
    if (!s->disk) {
        return false;
    }
    s->disk->open_nodes++;
    return true;
}

static void wlog_close(BlockDriverState *bs)
{
    node_disk(bs)->open_nodes--;
}

static void wlog_refresh_limits(BlockDriverState *bs)
{
    bs->bl.request_alignment = node_disk(bs)->request_alignment ?: 1;
}

/* The disk is there already: make it new. */
static bool wlog_create(BlockGraph *graph, const char *filename,
                        json_t *options, Error **errp)
{
    int64_t size = 0;
    const char *id = filename;
    WriteLogDisk *d;

    strstart(filename, "write-log:", &id);
    d = find_disk(id, errp);
    if (!d || !opt_take_offset(options, "size", &size, errp)) {
        return false;
    }
    qemu_mutex_lock(&d->lock);
    mem_image_truncate(d->img, 0);
    mem_image_truncate(d->img, size);
    qemu_mutex_unlock(&d->lock);
    return true;
}

static const BlockCreateOption wlog_create_opts[] = {
    { "size", BLOCK_OPT_SIZE, "Virtual disk size", NULL },
    { NULL },
};

static BlockDriver driver_write_log = {
    .format_name = "write-log",
    .protocol_name = "write-log",
    .instance_size = sizeof(WriteLogNode),
    .create_opts = wlog_create_opts,
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,
    .parse_filename = wlog_parse_filename,
    .open = wlog_open,
    .close = wlog_close,
    .refresh_limits = wlog_refresh_limits,
    .create = wlog_create,
    .preadv = wlog_preadv,
    .pwritev = wlog_pwritev,
    .pwrite_zeroes = wlog_pwrite_zeroes,
    .pdiscard = wlog_pdiscard,
    .flush = wlog_flush,
    .block_status = wlog_block_status,
    .truncate = wlog_truncate,
    .getlength = wlog_getlength,
    .has_zero_init = wlog_has_zero_init,
};

void write_log_register(void)
{
    bdrv_register_driver(&driver_write_log);
}
