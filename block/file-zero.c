/*
 * Zeroes and discards of the "file" and "host_device" drivers: what the kernel
 * can do to a range without data being written.
 *
 * What a file cannot do (FILE_NO_…) is found out by trying and remembered in
 * one atomic word; a lost race costs one more try.  What nothing here can do is
 * -ENOTSUP, and the request path writes zeroes instead.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "file-posix.h"

/* -ENOTSUP for all the ways in which the kernel says that it cannot. */
static int not_supported(int err)
{
    switch (err) {
    case EOPNOTSUPP:
    case ENOSYS:
    case ENOTTY:
    case ENODEV:
        return -ENOTSUP;
    default:
        return -err;
    }
}

/* fallocate() in @mode, unless the file lacks it; finds that out, too. */
static int try_fallocate(FileState *s, unsigned lacks, int mode,
                         int64_t offset, int64_t bytes)
{
    int ret;

    if (file_lacks(s, lacks)) {
        return -ENOTSUP;
    }
    if (RETRY_ON_EINTR(file_posix_ops->fallocate(s->h.fd, mode, offset,
                                                 bytes)) == 0) {
        return 0;
    }
    ret = not_supported(errno);
    if (ret == -ENOTSUP) {
        file_set_lacks(s, lacks);
    }
    return ret;
}

static int punch_hole(FileState *s, int64_t offset, int64_t bytes)
{
    return try_fallocate(s, FILE_NO_PUNCH_HOLE,
                         FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         offset, bytes);
}

static int device_ioctl_range(FileState *s, unsigned lacks,
                              unsigned long request, int64_t offset,
                              int64_t bytes)
{
    uint64_t range[2] = { offset, bytes };
    int ret;

    if (file_lacks(s, lacks)) {
        return -ENOTSUP;
    }
    if (RETRY_ON_EINTR(ioctl(s->h.fd, request, range)) == 0) {
        return 0;
    }
    ret = not_supported(errno);
    if (ret == -ENOTSUP) {
        file_set_lacks(s, lacks);
    }
    return ret;
}

static int device_write_zeroes(FileState *s, int64_t offset, int64_t bytes,
                               int flags)
{
    int ret;

    if (!s->h.is_blkdev) {
        return -ENOTSUP;
    }
    if (flags & BDRV_REQ_MAY_UNMAP) {
        ret = punch_hole(s, offset, bytes);
        if (ret != -ENOTSUP && ret != -EINVAL) {
            return ret;
        }
    }
    if (flags & BDRV_REQ_NO_FALLBACK) {
        /* Only if the device does it; BLKZEROOUT also writes zeroes. */
        return try_fallocate(s, FILE_NO_ZERO_RANGE,
                             FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                             offset, bytes);
    }
    return device_ioctl_range(s, FILE_NO_BLKZEROOUT, BLKZEROOUT, offset,
                              bytes);
}

/*
 * Without ZERO_RANGE (tmpfs, NFS): a hole, then allocation, which leaves the
 * range zero and as if written.  Past the end, allocating alone does.
 */
static int zero_by_hole(FileState *s, int64_t offset, int64_t bytes,
                        int64_t length)
{
    int ret;

    if (file_lacks(s, FILE_NO_FALLOCATE)) {
        return -ENOTSUP;
    }
    if (offset < length) {
        ret = punch_hole(s, offset, bytes);
        if (ret < 0) {
            return ret;
        }
    }
    return try_fallocate(s, FILE_NO_FALLOCATE, 0, offset, bytes);
}

static int regular_write_zeroes(FileState *s, int64_t offset, int64_t bytes,
                                int flags)
{
    int64_t length = file_raw_length(s->h.fd);
    int ret;

    if (length < 0) {
        return length;
    }
    /* A hole does not make a file longer. */
    if ((flags & BDRV_REQ_MAY_UNMAP) && offset + bytes <= length) {
        ret = punch_hole(s, offset, bytes);
        if (ret != -ENOTSUP && ret != -EINVAL) {
            return ret;
        }
    }
    ret = try_fallocate(s, FILE_NO_ZERO_RANGE, FALLOC_FL_ZERO_RANGE, offset,
                        bytes);
    /* -EINVAL: not for a range that is aligned like this one. */
    if (ret == -ENOTSUP || ret == -EINVAL) {
        ret = zero_by_hole(s, offset, bytes, length);
    }
    return ret == -EINVAL ? -ENOTSUP : ret;
}

int file_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       int flags)
{
    FileState *s = bs->opaque;

    return s->h.is_device ? device_write_zeroes(s, offset, bytes, flags)
                          : regular_write_zeroes(s, offset, bytes, flags);
}

int file_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    FileState *s = bs->opaque;

    if (s->h.is_blkdev) {
        return device_ioctl_range(s, FILE_NO_BLKDISCARD, BLKDISCARD, offset,
                                  bytes);
    }
    return s->h.is_device ? -ENOTSUP : punch_hole(s, offset, bytes);
}
