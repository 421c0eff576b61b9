/*
 * The drivers "file", "host_device" and "host_cdrom": a file or device of the
 * host, by plain system calls.
 *
 * The blocking functions run in whatever thread calls them and share nothing
 * but the descriptor; they go on after EINTR and short transfers.  A read that
 * meets the end of the file where there should be data fails: the file has
 * shrunk.  Only the rest of a last, partial sector reads as zeroes, because
 * lengths are rounded up to sectors.
 *
 * An fsync that failed may have dropped dirty data, and the kernel says so
 * once.  So the error is kept, and every later flush and FUA write of this
 * open file fails with it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "file-posix.h"
#include "qemu/cutils.h"

/* Bounce buffers: of misaligned memory, for O_DIRECT. */
#define BOUNCE_MAX (1 * MiB)

static int system_fstat(int fd, struct stat *st)
{
    return fstat(fd, st);
}

const FilePosixOps file_posix_system_ops = {
    .preadv = preadv,
    .pwritev = pwritev,
    .pwritev2 = pwritev2,
    .fdatasync = fdatasync,
    .fstat = system_fstat,
    .lseek = lseek,
};

const FilePosixOps *file_posix_ops = &file_posix_system_ops;

/* ---- Vectors ---- */

static bool file_iov_is_aligned(const FileHandle *h, const struct iovec *iov,
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
 * The file ended at @pos, with @bytes of the request missing.  That is right
 * past the start of the last sector, if not all of it is there.
 */
static int read_at_end(BlockDriverState *bs, int64_t pos, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset)
{
    int64_t length = qatomic_read(&bs->total_bytes);

    if (length < 0) {
        length = file_getlength(bs);
        if (length < 0) {
            return length;
        }
    }
    if (pos / BDRV_SECTOR_SIZE < length / BDRV_SECTOR_SIZE) {
        return -EIO;
    }
    qemu_iovec_memset(qiov, qiov_offset, 0, bytes);
    return 0;
}

static ssize_t transfer_once(int fd, bool is_write, const struct iovec *iov,
                             int niov, int64_t offset, int rw_flags)
{
    niov = MIN(niov, IOV_MAX);
    if (is_write) {
        return rw_flags ?
            file_posix_ops->pwritev2(fd, iov, niov, offset, rw_flags) :
            file_posix_ops->pwritev(fd, iov, niov, offset);
    }
    return file_posix_ops->preadv(fd, iov, niov, offset);
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
                         int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset,
                         int rw_flags)
{
    FileState *s = bs->opaque;
    int64_t done = 0;

    while (done < bytes) {
        QEMUIOVector part;
        ssize_t n;
        int err;

        qemu_iovec_init_slice(&part, qiov, qiov_offset + done, bytes - done);
        n = transfer_once(s->h.fd, is_write, part.iov, part.niov,
                          offset + done, rw_flags);
        err = errno;
        qemu_iovec_destroy(&part);
        if (n < 0) {
            if (err == EINTR) {
                continue;
            }
            return -err;
        }
        if (n == 0) {
            return is_write ? -EIO :
                   read_at_end(bs, offset + done, bytes - done, qiov,
                               qiov_offset + done);
        }
        done += n;
        if (s->h.direct && done < bytes) {
            int64_t resume = direct_resume(&s->h, offset, done, done - n);

            if (!is_write && file_raw_length(s->h.fd) <= offset + done) {
                return read_at_end(bs, offset + done, bytes - done, qiov,
                                   qiov_offset + done);
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
                           size_t qiov_offset, int rw_flags)
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
        ret = file_transfer(bs, is_write, offset + done, size, &local, 0,
                            rw_flags);
        if (!is_write && ret == 0) {
            qemu_iovec_from_buf(qiov, qiov_offset + done, buf, size);
        }
    }
    free(buf);
    return ret;
}

static int file_rw(BlockDriverState *bs, bool is_write, int64_t offset,
                   int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset,
                   int rw_flags)
{
    FileState *s = bs->opaque;

    if (s->h.direct && !range_is_aligned(&s->h, qiov, qiov_offset, bytes)) {
        return bounce_transfer(bs, is_write, offset, bytes, qiov, qiov_offset,
                               rw_flags);
    }
    return file_transfer(bs, is_write, offset, bytes, qiov, qiov_offset,
                         rw_flags);
}

static int file_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return file_rw(bs, false, offset, bytes, qiov, qiov_offset, 0);
}

/* ---- Stable storage ---- */

int file_latch_sync_error(FileState *s, int ret)
{
    qatomic_cmpxchg(&s->sync_error, 0, ret);
    return ret;
}

static int file_sync(FileState *s)
{
    int ret = file_sync_error(s);

    if (ret < 0 || file_lacks(s, FILE_NO_FSYNC)) {
        return ret;
    }
    if (RETRY_ON_EINTR(file_posix_ops->fdatasync(s->h.fd)) == 0) {
        return 0;
    }
    if (errno == EINVAL && s->h.is_device && !s->h.is_blkdev) {
        /* A character device that keeps nothing has nothing to sync. */
        file_set_lacks(s, FILE_NO_FSYNC);
        return 0;
    }
    return file_latch_sync_error(s, -errno);
}

static int file_flush(BlockDriverState *bs)
{
    return file_sync(bs->opaque);
}

/*
 * With O_DIRECT, the kernel can write through to the medium what it writes
 * (RWF_DSYNC).  Buffered, a failure would not tell the write, after which all
 * can go on, from the sync, after which nothing can: two calls.
 */
static int file_pwritev_fua(BlockDriverState *bs, int64_t offset,
                            int64_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset)
{
    FileState *s = bs->opaque;
    int ret = file_sync_error(s);

    if (ret < 0) {
        return ret;
    }
    if (s->h.direct && !file_lacks(s, FILE_NO_DSYNC_WRITE)) {
        ret = file_rw(bs, true, offset, bytes, qiov, qiov_offset, RWF_DSYNC);
        if (ret == -EIO) {
            /* Was it the device's cache?  If so, a sync fails, too. */
            file_sync(s);
        }
        if (ret != -EOPNOTSUPP && ret != -ENOSYS) {
            return ret;
        }
        file_set_lacks(s, FILE_NO_DSYNC_WRITE);
    }
    ret = file_rw(bs, true, offset, bytes, qiov, qiov_offset, 0);
    return ret < 0 ? ret : file_sync(s);
}

static int file_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    if (flags & BDRV_REQ_FUA) {
        return file_pwritev_fua(bs, offset, bytes, qiov, qiov_offset);
    }
    return file_rw(bs, true, offset, bytes, qiov, qiov_offset, 0);
}

/* ---- Tables ---- */

static int host_device_probe_device(const char *filename)
{
    struct stat st;

    return stat(filename, &st) == 0 &&
           (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) ? 100 : 0;
}

#define FILE_COMMON_FUNCTIONS                                                \
    .instance_size = sizeof(FileState),                                      \
    .close = file_close,                                                     \
    .refresh_limits = file_refresh_limits,                                   \
    .preadv = file_preadv,                                                   \
    .pwritev = file_pwritev,                                                 \
    .flush = file_flush,                                                     \
    .getlength = file_getlength,                                             \
    .get_allocated_file_size = file_get_allocated_file_size,                 \
    .supported_write_flags = BDRV_REQ_FUA

BlockDriver bdrv_file = {
    .format_name = "file",
    .protocol_name = "file",
    .parse_filename = file_parse_filename,
    .open = file_open,
    FILE_COMMON_FUNCTIONS,
};

BlockDriver bdrv_host_device = {
    .format_name = "host_device",
    .protocol_name = "host_device",
    .probe_device = host_device_probe_device,
    .parse_filename = host_device_parse_filename,
    .open = host_device_open,
    FILE_COMMON_FUNCTIONS,
};

/* A device whose medium may change, and its length with it. */
BlockDriver bdrv_host_cdrom = {
    .format_name = "host_cdrom",
    .protocol_name = "host_cdrom",
    .has_variable_length = true,
    .parse_filename = host_device_parse_filename,
    .open = host_device_open,
    FILE_COMMON_FUNCTIONS,
};
