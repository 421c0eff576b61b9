/*
 * qcow2: writing compressed clusters.
 *
 * A cluster at a time, compressed by the calling thread with no lock: several
 * threads write several clusters at once.  Data that does not get smaller is
 * written as it is.  The end of the disk, if that is not the end of a cluster,
 * is filled up with zeroes.  Who wants the clusters to be packed in a certain
 * order compresses them first, in any, and writes what came out.
 *
 * What the cluster was before does not matter: it is freed.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"

/* "Compressed Clusters Descriptor" */
static uint64_t descriptor(const BDRVQcow2State *s, int64_t host, int bytes)
{
    uint64_t sectors = (host + bytes - 1) / BDRV_SECTOR_SIZE -
                       host / BDRV_SECTOR_SIZE;

    return QCOW2_OFLAG_COMPRESSED | (uint64_t)host |
           sectors << s->csize_shift;
}

/* With the guest's cluster registered: a place for the data, and that it can be
 * linked later. */
static int64_t REQUIRES(driver_class)
get_place(BlockDriverState *bs, int64_t offset, int bytes)
{
    Qcow2Table *t;
    unsigned index;
    int ret = qcow2_l2_get_for_write(bs, offset, &t, &index);

    return ret < 0 ? ret : qcow2_alloc_bytes(bs, bytes);
}

static int REQUIRES(driver_class)
link_compressed(BlockDriverState *bs, int64_t offset, int64_t host, int bytes)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Entry old, e = { .l2 = descriptor(s, host, bytes) };
    Qcow2Table *t;
    unsigned index;
    int ret = qcow2_l2_get_for_write(bs, offset, &t, &index);

    if (ret == 0) {
        old = qcow2_entry_get(s, t, index);
        qcow2_entry_set(s, t, index, e);
        qcow2_free_entry_later(bs, old.l2, QCOW2_DISCARD_OTHER);
    }
    return ret;
}

/* -ENOSPC, -EFBIG: it is to be written as it is. */
static int write_data(BlockDriverState *bs, int64_t offset, void *data,
                      int bytes)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Inflight inflight;
    int64_t host;
    int ret;

    driver_lock(&s->lock);
    qcow2_frees_relieve(bs);
    qcow2_inflight_begin(s, &inflight, offset, s->cluster_size);
    host = get_place(bs, offset, bytes);
    if (host >= 0) {
        driver_unlock(&s->lock);
        bdrv_debug_event(bs->file->bs, "write_compressed");
        ret = bdrv_pwrite(bs->file, host, bytes, data, 0);
        driver_lock(&s->lock);
        if (ret == 0) {
            ret = link_compressed(bs, offset, host, bytes);
        }
        if (ret < 0) {
            qcow2_free_later(bs, host, bytes, QCOW2_DISCARD_OTHER);
        }
    } else {
        ret = host;
    }
    qcow2_inflight_end(s, &inflight);
    driver_unlock(&s->lock);
    return ret;
}

/* @in is a whole cluster, of which @bytes are the disk's; @out is scratch. */
static int write_cluster(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         uint8_t *in, uint8_t *out)
{
    BDRVQcow2State *s = bs->opaque;
    ssize_t size = qcow2_compress(s, out, s->cluster_size - 1, in);
    int ret = size;

    if (size > 0) {
        ret = write_data(bs, offset, out, size);
    }
    if (size == -ENOSPC || ret == -EFBIG) {
        QEMUIOVector qiov;

        qemu_iovec_init_buf(&qiov, in, bytes);
        ret = qcow2_write_normal(bs, offset, bytes, &qiov, 0, 0);
    }
    return MIN(ret, 0);
}

static bool is_whole(const BDRVQcow2State *s, int64_t offset, int64_t bytes)
{
    return !(offset & (s->cluster_size - 1)) &&
           (!(bytes & (s->cluster_size - 1)) ||
            offset + bytes == s->disk_size);
}

static int check_request(const BDRVQcow2State *s, int64_t offset,
                         int64_t bytes)
{
    if (s->has_data_file || s->crypt_method != QCOW2_CRYPT_NONE) {
        return -ENOTSUP;
    }
    return is_whole(s, offset, bytes) ? 0 : -EINVAL;
}

ssize_t qcow2_compress_cluster(BlockDriverState *bs, void *dest,
                               const void *src)
{
    BDRVQcow2State *s = bs->opaque;

    return qcow2_compress(s, dest, s->cluster_size - 1, src);
}

/* One cluster, the data of which was compressed before.  -EFBIG: so far behind
 * in the file no compressed data can be. */
int qcow2_write_compressed_data(BlockDriverState *bs, int64_t offset,
                                int64_t bytes, QEMUIOVector *qiov,
                                size_t qiov_offset)
{
    BDRVQcow2State *s = bs->opaque;
    size_t size = qiov->size - qiov_offset;
    int ret = check_request(s, offset, bytes);
    void *data = NULL;

    if (ret == 0 && (bytes > s->cluster_size || size == 0 ||
                     size >= (size_t)s->cluster_size)) {
        ret = -EINVAL;
    }
    if (ret == 0 && qatomic_read(&s->corrupt)) {
        ret = -EIO;
    }
    if (ret == 0) {
        data = qemu_iovec_contiguous(qiov, qiov_offset, size);
        ret = data ? write_data(bs, offset, data, size) : -EINVAL;
    }
    return ret;
}

int qcow2_write_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                           QEMUIOVector *qiov, size_t qiov_offset)
{
    BDRVQcow2State *s = bs->opaque;
    uint8_t *buf;
    int ret = check_request(s, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    buf = qemu_try_memalign(bs->file->bs->bl.opt_mem_alignment,
                            2 * s->cluster_size);
    if (!buf) {
        return -ENOMEM;
    }
    while (ret == 0 && bytes > 0) {
        int64_t n = MIN(bytes, s->cluster_size);

        qemu_iovec_to_buf(qiov, qiov_offset, buf, n);
        memset(buf + n, 0, s->cluster_size - n);
        ret = qatomic_read(&s->corrupt) ? -EIO :
              write_cluster(bs, offset, n, buf, buf + s->cluster_size);
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    qemu_vfree(buf);
    return ret;
}
