/*
 * qcow2: reading, in a thread that may block.
 *
 * A request is a sequence of extents.  Each is looked up, read under the pin
 * that the look-up took, and done with before the next: no state is kept, no
 * lock is held.  What is not allocated is the backing file's business, without
 * a pin: nothing of ours is used.
 *
 * Encrypted data is read into a buffer of our own and decrypted there: the
 * guest's memory never holds what it could change under the cipher, or see.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2.h"

/* Encrypted data is read in pieces of so much. */
#define MAX_BOUNCE (1 * MiB)

/* Part of a request. */
typedef struct Piece {
    BlockDriverState *bs;
    int64_t offset;                 /* guest */
    int64_t bytes;
    QEMUIOVector *qiov;
    size_t qiov_offset;
    int flags;
} Piece;

static int read_unallocated(const Piece *p)
{
    BDRVQcow2State *s = p->bs->opaque;
    BdrvChild *backing = p->bs->backing;

    /* Behind the disk is the state of a machine: ours alone. */
    if (!backing || p->offset >= s->disk_size) {
        qemu_iovec_memset(p->qiov, p->qiov_offset, 0, p->bytes);
        return 0;
    }
    /* Past its end, it reads as zeroes. */
    bdrv_debug_event(p->bs->file->bs, "read_backing_aio");
    return bdrv_preadv(backing, p->offset, p->bytes, p->qiov, p->qiov_offset,
                       p->flags);
}

static int read_decrypted(const Piece *p, int64_t host, void *buf,
                          int64_t done, int64_t n)
{
    BDRVQcow2State *s = p->bs->opaque;
    int ret = bdrv_pread(s->data_file, host + done, n, buf, 0);

    if (ret == 0) {
        ret = qcow2_decrypt(s, p->offset + done, host + done, buf, n);
    }
    if (ret == 0) {
        qemu_iovec_from_buf(p->qiov, p->qiov_offset + done, buf, n);
    }
    return ret;
}

static int read_encrypted(const Piece *p, int64_t host)
{
    BDRVQcow2State *s = p->bs->opaque;
    size_t size = MIN(p->bytes, MAX_BOUNCE);
    void *buf = qemu_try_memalign(s->data_file->bs->bl.opt_mem_alignment,
                                  size);
    int ret = buf ? 0 : -ENOMEM;

    for (int64_t done = 0; done < p->bytes && ret == 0; done += size) {
        ret = read_decrypted(p, host, buf, done, MIN(size, p->bytes - done));
    }
    qemu_vfree(buf);
    return ret;
}

static int read_normal(const Piece *p, int64_t host)
{
    BDRVQcow2State *s = p->bs->opaque;

    if (s->crypt_method != QCOW2_CRYPT_NONE) {
        return s->has_key ? read_encrypted(p, host) : -EACCES;
    }
    bdrv_debug_event(p->bs->file->bs, "read_aio");
    return bdrv_preadv(s->data_file, host, p->bytes, p->qiov, p->qiov_offset,
                       p->flags);
}

/* The cluster at @l2_entry, decompressed to @cluster. */
static int inflate_cluster(BlockDriverState *bs, uint64_t l2_entry,
                           void *cluster)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t host;
    int bytes, ret = -ENOMEM;
    void *raw;

    qcow2_parse_compressed(s, l2_entry, &host, &bytes);
    raw = qemu_try_memalign(bs->file->bs->bl.opt_mem_alignment, bytes);
    if (raw) {
        bdrv_debug_event(bs->file->bs, "read_compressed");
        ret = bdrv_pread(bs->file, host, bytes, raw, 0);
    }
    if (ret == 0) {
        ret = qcow2_decompress(s, cluster, raw, bytes);
    }
    qemu_vfree(raw);
    return ret;
}

/* What others read of the same cluster will be there already. */
static int read_inflated(const Piece *p, uint64_t l2_entry)
{
    BDRVQcow2State *s = p->bs->opaque;
    size_t in_cluster = p->offset & (s->cluster_size - 1);
    Qcow2InflatedCluster *e;
    bool fill;
    int ret = qcow2_inflated_get(s, l2_entry, &e, &fill);

    if (ret < 0) {
        return ret;
    }
    if (fill) {
        ret = inflate_cluster(p->bs, l2_entry, qcow2_inflated_data(e));
        qcow2_inflated_filled(s, e, ret);
    }
    if (ret == 0) {
        qemu_iovec_from_buf(p->qiov, p->qiov_offset,
                            qcow2_inflated_data(e) + in_cluster, p->bytes);
    }
    qcow2_inflated_put(s, e);
    return ret;
}

static int read_compressed(const Piece *p, uint64_t l2_entry)
{
    BDRVQcow2State *s = p->bs->opaque;
    void *dest = p->bytes == s->cluster_size ?
                 qemu_iovec_contiguous(p->qiov, p->qiov_offset, p->bytes) :
                 NULL;

    return dest ? inflate_cluster(p->bs, l2_entry, dest) :
                  read_inflated(p, l2_entry);
}

static int read_extent(const Piece *p, const Qcow2Extent *e)
{
    switch (e->type) {
    case QCOW2_EXTENT_ZERO_PLAIN:
    case QCOW2_EXTENT_ZERO_ALLOC:
        qemu_iovec_memset(p->qiov, p->qiov_offset, 0, p->bytes);
        return 0;
    case QCOW2_EXTENT_NORMAL:
        return read_normal(p, e->host_offset);
    case QCOW2_EXTENT_COMPRESSED:
        return read_compressed(p, e->l2_entry);
    case QCOW2_EXTENT_UNALLOCATED:
    case QCOW2_EXTENT_UNALLOCATED_ALLOC:
        break;                      /* by the caller, without the pin */
    }
    return -EIO;
}

/* The first extent of what is left; its length, or -errno. */
static int64_t read_next(Piece *p)
{
    BDRVQcow2State *s = p->bs->opaque;
    Qcow2Extent e;
    uintptr_t pin;
    int ret = qcow2_map(p->bs, p->offset, p->bytes, &e, &pin);

    if (ret < 0) {
        return ret;
    }
    p->bytes = e.bytes;
    if (e.type == QCOW2_EXTENT_UNALLOCATED ||
        e.type == QCOW2_EXTENT_UNALLOCATED_ALLOC) {
        qcow2_unpin(s, pin);
        ret = read_unallocated(p);
    } else {
        ret = read_extent(p, &e);
        qcow2_unpin(s, pin);
    }
    return ret < 0 ? ret : e.bytes;
}

int qcow2_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    for (int64_t done = 0, n; done < bytes; done += n) {
        Piece p = {
            .bs = bs,
            .offset = offset + done,
            .bytes = bytes - done,
            .qiov = qiov,
            .qiov_offset = qiov_offset + done,
            .flags = flags,
        };

        n = read_next(&p);
        if (n < 0) {
            return n;
        }
    }
    return 0;
}
