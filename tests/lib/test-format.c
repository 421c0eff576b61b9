/*
 * The test drivers that have children: test-filter, test-format, test-cow.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "test-driver-int.h"

/* ---- "test-filter" ---- */

static bool filter_open(BlockDriverState *bs, json_t *options, int flags,
                        Error **errp)
{
    return bdrv_open_file_child(bs, options, errp);
}

static int filter_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return bdrv_preadv(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int filter_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return bdrv_pwritev(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int filter_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                int64_t bytes, int flags)
{
    return bdrv_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int filter_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return bdrv_pdiscard(bs->file, offset, bytes);
}

static BdrvMapResult filter_map_nowait(BlockDriverState *bs,
                                       BdrvTrackedRequest *req,
                                       BdrvMapping *m)
{
    m->child = bs->file;
    m->offset = req->map_offset;
    return BDRV_MAP_CHILD;
}

static BlockDriver driver_filter = {
    .format_name = "test-filter",
    .is_filter = true,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP,
    .open = filter_open,
    .preadv = filter_preadv,
    .pwritev = filter_pwritev,
    .pwrite_zeroes = filter_pwrite_zeroes,
    .pdiscard = filter_pdiscard,
    .map_nowait = filter_map_nowait,
};

/* ---- "test-format" ---- */

typedef struct TestFormat {
    int64_t offset;
} TestFormat;

static int format_probe(const uint8_t *buf, int size, const char *filename)
{
    return size >= 4 && memcmp(buf, "TFMT", 4) == 0 ? 100 : 0;
}

static bool format_open(BlockDriverState *bs, json_t *options, int flags,
                        Error **errp)
{
    TestFormat *s = bs->opaque;
    char header[64];
    int ret;

    s->offset = 4096;
    if (!opt_take_offset(options, "offset", &s->offset, errp) ||
        !bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    ret = bdrv_pread(bs->file, 0, sizeof(header), header, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the header");
        return false;
    }
    /* After the magic, the backing file's name. */
    bs->backing_file = g_strndup(header + 4, sizeof(header) - 4);
    return true;
}

static int format_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    TestFormat *s = bs->opaque;

    return bdrv_preadv(bs->file, s->offset + offset, bytes, qiov, qiov_offset,
                       flags);
}

static int format_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    TestFormat *s = bs->opaque;

    return bdrv_pwritev(bs->file, s->offset + offset, bytes, qiov, qiov_offset,
                        flags);
}

static int format_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    TestFormat *s = bs->opaque;

    return bdrv_pdiscard(bs->file, s->offset + offset, bytes);
}

static int64_t format_getlength(BlockDriverState *bs)
{
    TestFormat *s = bs->opaque;
    int64_t len = bdrv_getlength(bs->file->bs);

    return len < 0 ? len : MAX(len - s->offset, 0);
}

static void format_unpin(BdrvTrackedRequest *req)
{
    qatomic_dec((int *)req->pin);
}

/* Pins a counter of the disk below, if there is one. */
static BdrvMapResult format_map_nowait(BlockDriverState *bs,
                                       BdrvTrackedRequest *req, BdrvMapping *m)
{
    TestFormat *s = bs->opaque;
    BlockDriverState *below = bs->file->bs;

    if (req->type == BDRV_REQ_WRITE_ZEROES) {
        return BDRV_MAP_WORKER;
    }
    if (below->drv->protocol_name) {
        req->pin = &test_node_disk(below)->pins;
        req->unpin = format_unpin;
        qatomic_inc((int *)req->pin);
    }
    m->child = bs->file;
    m->offset = s->offset + req->map_offset;
    return BDRV_MAP_CHILD;
}

static BlockDriver driver_format = {
    .format_name = "test-format",
    .instance_size = sizeof(TestFormat),
    .supports_backing = true,
    .supported_write_flags = BDRV_REQ_FUA,
    .probe = format_probe,
    .open = format_open,
    .preadv = format_preadv,
    .pwritev = format_pwritev,
    .pdiscard = format_pdiscard,
    .getlength = format_getlength,
    .map_nowait = format_map_nowait,
};

/* ---- "test-cow" ---- */

static int64_t cow_getlength(BlockDriverState *bs)
{
    return test_node_disk(bs)->size;
}

static int cow_block_status(BlockDriverState *bs, bool want_zero,
                            int64_t offset, int64_t bytes, int64_t *pnum,
                            int64_t *map, BlockDriverState **file)
{
    TestDisk *d = test_node_disk(bs);
    int ret = test_disk_enter(d, &(TestCall){ TEST_STATUS, offset, bytes });
    uint8_t kind;
    int64_t n = 0;

    if (ret < 0) {
        return ret;
    }
    qemu_mutex_lock(&d->lock);
    kind = d->allocated[offset / TEST_CLUSTER];
    while (n < bytes && d->allocated[(offset + n) / TEST_CLUSTER] == kind) {
        n += MIN(TEST_CLUSTER - (offset + n) % TEST_CLUSTER, bytes - n);
    }
    qemu_mutex_unlock(&d->lock);
    *pnum = n;
    return kind == 1 ? BDRV_BLOCK_DATA : kind == 2 ? BDRV_BLOCK_ZERO : 0;
}

/* Only what status tests need: reads see this layer. */
static int cow_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return test_disk_transfer(test_node_disk(bs), TEST_READ, offset, bytes,
                              qiov, qiov_offset);
}

static BlockDriver driver_cow = {
    .format_name = "test-cow",
    .instance_size = sizeof(TestNode),
    .supports_backing = true,
    .open = test_node_open,
    .close = test_node_close,
    .getlength = cow_getlength,
    .block_status = cow_block_status,
    .preadv = cow_preadv,
};

void test_formats_register(void)
{
    bdrv_register_driver(&driver_filter);
    bdrv_register_driver(&driver_format);
    bdrv_register_driver(&driver_cow);
}
