/*
 * Reads and writes of the "file" and "host_device" drivers, by blocking calls.
 *
 * They run in whatever thread calls them and share nothing but the descriptor;
 * they go on after EINTR and short transfers.  A read that meets the end of the
 * file where there should be data fails: the file has shrunk.  Only the rest of
 * a last, partial sector reads as zeroes, because lengths are rounded up to
 * sectors.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "file-posix.h"

/* Bounce buffers: of misaligned memory, for O_DIRECT. */
#define BOUNCE_MAX (1 * MiB)

/* ---- Vectors ---- */

int file_request_iov(const BdrvTrackedRequest *req, const struct iovec **iov,
                     struct iovec *one)
{
    const QEMUIOVector *qiov = req->qiov;
    size_t skip = req->qiov_offset;
    int first = 0;

    if (skip == 0 && qiov->size == (size_t)req->bytes) {
        *iov = qiov->iov;
        return qiov->niov <= IOV_MAX ? qiov->niov : 0;
    }
    while (first < qiov->niov && skip >= qiov->iov[first].iov_len) {
        skip -= qiov->iov[first++].iov_len;
    }
    if (first == qiov->niov ||
        qiov->iov[first].iov_len - skip < (size_t)req->bytes) {
        return 0;
    }
    one->iov_base = (char *)qiov->iov[first].iov_base + skip;
    one->iov_len = req->bytes;
    *iov = one;
    return 1;
}

bool file_iov_is_aligned(const FileHandle *h, const struct iovec *iov,
                         int niov)
{
    uintptr_t bits = 0;

    for (int i = 0; i < niov; i++) {
        if (iov[i].iov_len & (h->request_alignment - 1)) {
            return false;
        }
        bits |= (uintptr_t)iov[i].iov_base;
    }
    return !(bits & (h->mem_alignment - 1));
}

/* ---- Reads and writes ---- */

/*
 * The file ends at @pos or before.  0 if that is right, as it is past the start
 * of the last sector, when not all of it is there; -EIO: the file has shrunk.
 */
static int check_end(BlockDriverState *bs, int64_t pos)
{
    int64_t length = qatomic_read(&bs->total_bytes);

    if (length < 0) {
        length = file_getlength(bs);
        if (length < 0) {
            return length;
        }
    }
    return pos <= QEMU_ALIGN_UP(length, BDRV_SECTOR_SIZE) - BDRV_SECTOR_SIZE ?
           -EIO : 0;
}

int file_look_at_end(BlockDriverState *bs, int64_t pos)
{
    FileState *s = bs->opaque;
    int ret = check_end(bs, pos);

    return ret == -EIO && file_raw_length(s->h.fd) > pos ? 1 : ret;
}

/* The same, with @bytes of the request missing: these are zeroes. */
static int read_at_end(BlockDriverState *bs, int64_t pos, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset)
{
    int ret = file_look_at_end(bs, pos);

    if (ret == 0) {
        qemu_iovec_memset(qiov, qiov_offset, 0, bytes);
    }
    return ret;
}

static ssize_t transfer_once(int fd, bool is_write, const struct iovec *iov,
                             int niov, int64_t offset)
{
    niov = MIN(niov, IOV_MAX);
    return is_write ? file_posix_ops->pwritev(fd, iov, niov, offset) :
                      file_posix_ops->preadv(fd, iov, niov, offset);
}

/*
 * O_DIRECT ended a transfer at @done, which may be between two sectors: where
 * to go on.  -1: no progress.
 */
static int64_t direct_resume(const FileHandle *h, int64_t offset, int64_t done,
                             int64_t before)
{
    done = ROUND_DOWN(offset + done, (int64_t)h->request_alignment) - offset;
    return done > before ? done : -1;
}

static int file_transfer(BlockDriverState *bs, bool is_write, int64_t offset,
                         int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset)
{
    FileState *s = bs->opaque;
    int64_t done = 0;

    while (done < bytes) {
        QEMUIOVector part;
        ssize_t n;
        int err, ret;

        qemu_iovec_init_slice(&part, qiov, qiov_offset + done, bytes - done);
        n = transfer_once(s->h.fd, is_write, part.iov, part.niov,
                          offset + done);
        err = errno;
        qemu_iovec_destroy(&part);
        if (n < 0) {
            if (err == EINTR) {
                continue;
            }
            return -err;
        }
        if (n == 0) {
            ret = is_write ? -EIO :
                  read_at_end(bs, offset + done, bytes - done, qiov,
                              qiov_offset + done);
            if (ret <= 0) {
                return ret;
            }
            continue;
        }
        done += n;
        if (s->h.direct && done < bytes) {
            int64_t resume = direct_resume(&s->h, offset, done, done - n);

            if (!is_write && file_raw_length(s->h.fd) <= offset + done) {
                ret = read_at_end(bs, offset + done, bytes - done, qiov,
                                  qiov_offset + done);
                if (ret <= 0) {
                    return ret;
                }
                resume = MAX(resume, done - n);
            }
            if (resume < 0) {
                return -EIO;
            }
            done = resume;
        }
    }
    return 0;
}

/* Is the range of @qiov fit for O_DIRECT? */
static bool range_is_aligned(const FileHandle *h, const QEMUIOVector *qiov,
                             size_t offset, size_t bytes)
{
    for (int i = 0; i < qiov->niov && bytes > 0; i++) {
        struct iovec part = qiov->iov[i];
        size_t skip = MIN(offset, part.iov_len);

        offset -= skip;
        part.iov_base = (char *)part.iov_base + skip;
        part.iov_len = MIN(part.iov_len - skip, bytes);
        bytes -= part.iov_len;
        if (part.iov_len && !file_iov_is_aligned(h, &part, 1)) {
            return false;
        }
    }
    return true;
}

static int bounce_transfer(BlockDriverState *bs, bool is_write,
                           int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                           size_t qiov_offset)
{
    FileState *s = bs->opaque;
    int64_t size = MIN(bytes, BOUNCE_MAX);
    void *buf;
    int ret = 0;

    if (posix_memalign(&buf, MAX(s->h.mem_alignment, sizeof(void *)), size)) {
        return -ENOMEM;
    }
    for (int64_t done = 0; done < bytes && ret == 0; done += size) {
        QEMUIOVector local;

        size = MIN(size, bytes - done);
        qemu_iovec_init_buf(&local, buf, size);
        if (is_write) {
            qemu_iovec_to_buf(qiov, qiov_offset + done, buf, size);
        }
        ret = file_transfer(bs, is_write, offset + done, size, &local, 0);
        if (!is_write && ret == 0) {
            qemu_iovec_from_buf(qiov, qiov_offset + done, buf, size);
        }
    }
    free(buf);
    return ret;
}

static int file_rw(BlockDriverState *bs, bool is_write, int64_t offset,
                   int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset)
{
    FileState *s = bs->opaque;
    int ret;

    if (s->h.direct && !range_is_aligned(&s->h, qiov, qiov_offset, bytes)) {
        return bounce_transfer(bs, is_write, offset, bytes, qiov, qiov_offset);
    }
    ret = file_transfer(bs, is_write, offset, bytes, qiov, qiov_offset);
    if (ret == 0 && s->behind) {
        file_behind_passed(s, offset, bytes, is_write);
    }
    return ret;
}

int file_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return file_rw(bs, false, offset, bytes, qiov, qiov_offset);
}

/*
 * A write and a sync, also where one call could do both (RWF_DSYNC): a failure
 * would not tell the write, after which all can go on, from the sync, after
 * which nothing can, and would be told to nobody else.
 */
static int file_pwritev_fua(BlockDriverState *bs, int64_t offset,
                            int64_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset)
{
    int ret = file_sync_error(bs->opaque);

    if (ret == 0) {
        ret = file_rw(bs, true, offset, bytes, qiov, qiov_offset);
    }
    return ret < 0 ? ret : file_sync(bs->opaque);
}

int file_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    if (flags & BDRV_REQ_FUA) {
        return file_pwritev_fua(bs, offset, bytes, qiov, qiov_offset);
    }
    return file_rw(bs, true, offset, bytes, qiov, qiov_offset);
}
