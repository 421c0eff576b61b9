/*
 * "test-overlay": clusters of 4 KiB on a disk of its own, or from "backing".
 *
 * What is written into a part of a cluster takes the rest from the backing
 * file.  A discarded cluster is not allocated any more.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "test-driver-int.h"

static int64_t overlay_getlength(BlockDriverState *bs)
{
    return test_node_disk(bs)->size;
}

static int overlay_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    info->cluster_size = TEST_CLUSTER;
    return 0;
}

static int overlay_block_status(BlockDriverState *bs, bool want_zero,
                                int64_t offset, int64_t bytes, int64_t *pnum,
                                int64_t *map, BlockDriverState **file)
{
    TestDisk *d = test_node_disk(bs);
    int ret = test_disk_enter(d, &(TestCall){ TEST_STATUS, offset, bytes });
    uint8_t kind;

    if (ret < 0) {
        return ret;
    }
    qemu_mutex_lock(&d->lock);
    kind = d->allocated[offset / TEST_CLUSTER];
    for (*pnum = 0; *pnum < bytes; ) {
        int64_t at = offset + *pnum;

        if (d->allocated[at / TEST_CLUSTER] != kind) {
            break;
        }
        *pnum += MIN(TEST_CLUSTER - at % TEST_CLUSTER, bytes - *pnum);
    }
    qemu_mutex_unlock(&d->lock);
    return kind == 1 ? BDRV_BLOCK_DATA : kind == 2 ? BDRV_BLOCK_ZERO : 0;
}

/* What the backing file has of @bytes from @offset; zeroes behind its end. */
static int read_below(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      uint8_t *buf)
{
    memset(buf, 0, bytes);
    return bs->backing ? bdrv_pread(bs->backing, offset, bytes, buf, 0) : 0;
}

/* With the disk's lock: what is allocated, over what is below it. */
static void lay_over(const TestDisk *d, int64_t offset, int64_t bytes,
                     uint8_t *buf)
{
    int64_t end = offset + bytes;

    for (int64_t at = offset, n; at < end; at += n, buf += n) {
        n = MIN(TEST_CLUSTER - at % TEST_CLUSTER, end - at);
        if (d->allocated[at / TEST_CLUSTER] == 1) {
            memcpy(buf, d->data + at, n);
        } else if (d->allocated[at / TEST_CLUSTER] == 2) {
            memset(buf, 0, n);
        }
    }
}

/* With the disk's lock: are all clusters of the range allocated, or none? */
static bool are_all(const TestDisk *d, int64_t offset, int64_t bytes,
                    bool allocated)
{
    bool all = true;

    for (int64_t i = offset / TEST_CLUSTER;
         i * TEST_CLUSTER < offset + bytes; i++) {
        all &= (d->allocated[i] != 0) == allocated;
    }
    return all;
}

static bool is_all_allocated(TestDisk *d, int64_t offset, int64_t bytes)
{
    bool all;

    qemu_mutex_lock(&d->lock);
    all = are_all(d, offset, bytes, true);
    qemu_mutex_unlock(&d->lock);
    return all;
}

static int overlay_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    TestDisk *d = test_node_disk(bs);
    g_autofree uint8_t *buf = g_malloc0(bytes);
    int ret = test_disk_enter(d, &(TestCall){ TEST_READ, offset, bytes });

    if (ret == 0 && !is_all_allocated(d, offset, bytes)) {
        ret = read_below(bs, offset, bytes, buf);
    }
    if (ret < 0) {
        return ret;
    }
    qemu_mutex_lock(&d->lock);
    lay_over(d, offset, bytes, buf);
    qemu_mutex_unlock(&d->lock);
    qemu_iovec_from_buf(qiov, qiov_offset, buf, bytes);
    return 0;
}

/* Reads of nothing but our own clusters, or nothing but the backing file. */
static BdrvMapResult overlay_map_nowait(BlockDriverState *bs,
                                        BdrvTrackedRequest *req,
                                        BdrvMapping *m)
{
    TestDisk *d = test_node_disk(bs);
    g_autofree uint8_t *buf = g_malloc0(req->bytes);
    BdrvMapResult result = BDRV_MAP_WORKER;

    if (req->type != BDRV_REQ_READ) {
        return result;
    }
    qemu_mutex_lock(&d->lock);
    if (are_all(d, req->map_offset, req->bytes, true)) {
        lay_over(d, req->map_offset, req->bytes, buf);
        result = BDRV_MAP_DONE;
    } else if (bs->backing && are_all(d, req->map_offset, req->bytes, false)) {
        m->child = bs->backing;
        m->offset = req->map_offset;
        result = BDRV_MAP_CHILD;
    }
    qemu_mutex_unlock(&d->lock);
    if (result == BDRV_MAP_DONE) {
        qemu_iovec_from_buf(req->qiov, req->qiov_offset, buf, req->bytes);
        m->ret = 0;
    }
    return result;
}

/* @qiov: NULL for zeroes. */
static int write_clusters(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          QEMUIOVector *qiov, size_t qiov_offset)
{
    TestDisk *d = test_node_disk(bs);
    int64_t start = QEMU_ALIGN_DOWN(offset, TEST_CLUSTER);
    int64_t end = MIN(QEMU_ALIGN_UP(offset + bytes, TEST_CLUSTER), d->size);
    g_autofree uint8_t *buf = g_malloc(end - start);
    int ret = read_below(bs, start, end - start, buf);

    if (ret < 0) {
        return ret;
    }
    qemu_mutex_lock(&d->lock);
    lay_over(d, start, end - start, buf);
    if (qiov) {
        qemu_iovec_to_buf(qiov, qiov_offset, buf + (offset - start), bytes);
    } else {
        memset(buf + (offset - start), 0, bytes);
    }
    memcpy(d->data + start, buf, end - start);
    memset(d->allocated + start / TEST_CLUSTER, 1,
           DIV_ROUND_UP(end, TEST_CLUSTER) - start / TEST_CLUSTER);
    qemu_mutex_unlock(&d->lock);
    return 0;
}

static int overlay_pwritev(BlockDriverState *bs, int64_t offset,
                           int64_t bytes, QEMUIOVector *qiov,
                           size_t qiov_offset, int flags)
{
    int ret = test_disk_enter(test_node_disk(bs),
                              &(TestCall){ TEST_WRITE, offset, bytes, flags });

    return ret ?: write_clusters(bs, offset, bytes, qiov, qiov_offset);
}

static void set_kind(TestDisk *d, int64_t offset, int64_t bytes, uint8_t kind)
{
    qemu_mutex_lock(&d->lock);
    memset(d->allocated + offset / TEST_CLUSTER, kind,
           DIV_ROUND_UP(bytes, TEST_CLUSTER));
    qemu_mutex_unlock(&d->lock);
}

static int overlay_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, int flags)
{
    TestDisk *d = test_node_disk(bs);
    bool at_end = offset + bytes == d->size;
    int ret = test_disk_enter(d, &(TestCall){ TEST_ZEROES, offset, bytes,
                                              flags });

    if (ret == 0 && !d->can_zero) {
        return -ENOTSUP;
    }
    if (ret < 0 || offset % TEST_CLUSTER ||
        (bytes % TEST_CLUSTER && !at_end)) {
        return ret ?: write_clusters(bs, offset, bytes, NULL, 0);
    }
    set_kind(d, offset, bytes, 2);
    return 0;
}

static int overlay_pdiscard(BlockDriverState *bs, int64_t offset,
                            int64_t bytes)
{
    TestDisk *d = test_node_disk(bs);
    int ret = test_disk_enter(d, &(TestCall){ TEST_DISCARD, offset, bytes });

    if (ret == 0) {
        set_kind(d, offset, bytes, 0);
    }
    return ret;
}

static int overlay_flush(BlockDriverState *bs)
{
    return test_disk_enter(test_node_disk(bs), &(TestCall){ TEST_FLUSH });
}

static void overlay_refresh_limits(BlockDriverState *bs)
{
    test_node_refresh_limits(bs);
    bs->bl.pdiscard_alignment = TEST_CLUSTER;
}

static BlockDriver driver_overlay = {
    .format_name = "test-overlay",
    .instance_size = sizeof(TestNode),
    .supports_backing = true,
    .supports_handover = true,
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP,
    .open = test_node_open,
    .close = test_node_close,
    .refresh_limits = overlay_refresh_limits,
    .check_perm = test_node_check_perm,
    .set_perm = test_node_set_perm,
    .abort_perm_update = test_node_abort_perm_update,
    .getlength = overlay_getlength,
    .get_info = overlay_get_info,
    .block_status = overlay_block_status,
    .preadv = overlay_preadv,
    .pwritev = overlay_pwritev,
    .pwrite_zeroes = overlay_pwrite_zeroes,
    .pdiscard = overlay_pdiscard,
    .flush = overlay_flush,
    .map_nowait = overlay_map_nowait,
};

void test_overlay_register(void)
{
    bdrv_register_driver(&driver_overlay);
}
