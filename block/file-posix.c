/*
 * The drivers "file", "host_device" and "host_cdrom": a file or device of the
 * host, by plain system calls.  Here are their tables, the fast path, and what
 * they say about a file; file-posix.h says where the rest is.
 *
 * The fast path (submit) first tries in the submitting thread what cannot
 * wait: buffered reads of cached pages, and writes where the file system can
 * say "it would block" (RWF_NOWAIT); all of it on tmpfs, which waits for no
 * device.  What remains goes to the engine of the file, or to a worker.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <libaio.h>
#include <liburing.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "file-posix.h"
#include "qemu/cutils.h"

static int system_fstat(int fd, struct stat *st)
{
    return fstat(fd, st);
}

const FilePosixOps file_posix_system_ops = {
    .preadv = preadv,
    .pwritev = pwritev,
    .preadv2 = preadv2,
    .pwritev2 = pwritev2,
    .fallocate = fallocate,
    .fdatasync = fdatasync,
    .ftruncate = ftruncate,
    .fstat = system_fstat,
    .lseek = lseek,
    .io_submit = io_submit,
    .uring_enter = io_uring_submit_and_get_events,
};

const FilePosixOps *file_posix_ops = &file_posix_system_ops;

static int file_flush(BlockDriverState *bs)
{
    return file_sync(bs->opaque);
}

/* ---- Block status ---- */

/*
 * Is there data at @offset?  1 or 0, with *@end where that stops; -ENXIO past
 * the end of the file; -ENOTSUP if nobody can tell; another -errno.
 */
static int find_extent(int fd, int64_t offset, int64_t align, int64_t *end)
{
    off_t data = file_posix_ops->lseek(fd, offset, SEEK_DATA);
    off_t hole;

    if (data < 0) {
        if (errno != ENXIO) {
            return errno == EINVAL ? -ENOTSUP : -errno;
        }
        /* A hole up to the end of the file, or the end is before. */
        *end = file_posix_ops->lseek(fd, 0, SEEK_END);
        return *end < 0 ? -errno : *end > offset ? 0 : -ENXIO;
    }
    if (data > offset) {
        /* Data that begins inside a unit makes all of the unit data. */
        *end = ROUND_DOWN((int64_t)data, align);
        if (*end > offset) {
            return 0;
        }
        *end = offset + align;
        return 1;
    }
    hole = file_posix_ops->lseek(fd, offset, SEEK_HOLE);
    if (hole <= offset) {
        /* Somebody changes it under us: as it is not known, it is data. */
        return -ENOTSUP;
    }
    *end = hole;
    return 1;
}

static int file_block_status(BlockDriverState *bs, bool want_zero,
                             int64_t offset, int64_t bytes, int64_t *pnum,
                             int64_t *map, BlockDriverState **file)
{
    FileState *s = bs->opaque;
    int64_t align = s->h.request_alignment;
    int64_t end = 0;
    int ret;

    *map = offset;
    *file = bs;
    *pnum = bytes;
    if (!want_zero || s->h.is_device) {
        return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    }
    while ((ret = find_extent(s->h.fd, offset, align, &end)) == -ENXIO) {
        /* In the tail that rounding the length up added, or else not there:
         * no more zeroes than they could be read. */
        ret = file_look_at_end(bs, offset);
        if (ret <= 0) {
            return ret < 0 ? ret : BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
        }
    }
    if (ret == -ENOTSUP) {
        return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    }
    if (ret < 0) {
        return ret;
    }
    /* Both kinds may end with the file, between two units. */
    *pnum = MIN(bytes, ROUND_UP(end, align) - offset);
    return (ret ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO) | BDRV_BLOCK_OFFSET_VALID;
}

/* ---- The fast path ---- */

static bool complete_inline(BdrvTrackedRequest *req, int ret)
{
    bdrv_request_is_inline(req);
    bdrv_request_complete(req, ret);
    return true;
}

/* Read what is in the page cache.  False: it is not, or not all. */
static bool inline_read(FileState *s, BdrvTrackedRequest *req)
{
    const struct iovec *iov;
    struct iovec one;
    int niov = file_request_iov(req, &iov, &one);
    ssize_t n;

    if (niov == 0) {
        return false;
    }
    if (s->h.in_memory) {
        n = file_posix_ops->preadv(s->h.fd, iov, niov, req->map_offset);
    } else if (file_lacks(s, FILE_NO_NOWAIT_READ)) {
        return false;
    } else {
        n = file_posix_ops->preadv2(s->h.fd, iov, niov, req->map_offset,
                                    RWF_NOWAIT);
        if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
            file_set_lacks(s, FILE_NO_NOWAIT_READ);
        }
    }
    /* Anything but success is for the blocking function to find out. */
    return n == req->bytes && complete_inline(req, 0);
}

/* Doing it again in a worker does no harm: nobody was told that it is done. */
static bool inline_write(FileState *s, BdrvTrackedRequest *req)
{
    bool fua = req->flags & BDRV_REQ_FUA;
    const struct iovec *iov;
    struct iovec one;
    int niov = file_request_iov(req, &iov, &one);
    ssize_t n;

    if (niov == 0 || (fua && (!s->h.in_memory || file_sync_error(s)))) {
        return false;
    }
    if (s->h.in_memory) {
        n = file_posix_ops->pwritev(s->h.fd, iov, niov, req->map_offset);
    } else if (file_lacks(s, FILE_NO_NOWAIT_WRITE)) {
        return false;
    } else {
        n = file_posix_ops->pwritev2(s->h.fd, iov, niov, req->map_offset,
                                     RWF_NOWAIT);
        if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
            file_set_lacks(s, FILE_NO_NOWAIT_WRITE);
        }
    }
    return n == req->bytes && complete_inline(req, fua ? file_sync(s) : 0);
}

static bool try_inline(FileState *s, BdrvTrackedRequest *req)
{
    switch (req->type) {
    case BDRV_REQ_READ:
        return inline_read(s, req);
    case BDRV_REQ_WRITE:
        return inline_write(s, req);
    case BDRV_REQ_FLUSH:
        /* tmpfs has nothing to write back to: the call does nothing. */
        return s->h.in_memory && complete_inline(req, file_sync(s));
    default:
        return false;
    }
}

static bool file_submit(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    FileState *s = bs->opaque;

    if (likely(s->h.inline_io) && try_inline(s, req)) {
        return true;
    }
    switch (s->h.engine) {
    case FILE_ENGINE_NATIVE:
        return laio_submit(s, req);
    case FILE_ENGINE_IO_URING:
        return uring_submit(s, req);
    case FILE_ENGINE_THREADS:
        break;
    }
    return false;
}

static void file_cancel(BlockDriverState *bs, BdrvTrackedRequest *req)
{
    FileState *s = bs->opaque;

    if ((s->h.engine == FILE_ENGINE_NATIVE && laio_cancel(req)) ||
        (s->h.engine == FILE_ENGINE_IO_URING && uring_cancel(req))) {
        bdrv_request_complete(req, -ECANCELED);
    }
}

/* ---- Information ---- */

static json_t *file_get_specific_info(BlockDriverState *bs, Error **errp)
{
    FileState *s = bs->opaque;
    json_t *data = json_object();
    struct fsxattr attr;

    if (!s->h.is_device && ioctl(s->h.fd, FS_IOC_FSGETXATTR, &attr) == 0 &&
        attr.fsx_extsize) {
        json_object_set_new(data, "extent-size-hint",
                            json_integer(attr.fsx_extsize));
    }
    if (s->has_io) {
        json_object_set_new(data, "engine",
                            json_string(file_engine_names[s->h.engine]));
    }
    return json_pack("{s:s, s:o}", "type", "file", "data", data);
}

static int host_device_probe_device(const char *filename)
{
    struct stat st;

    return stat(filename, &st) == 0 &&
           (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) ? 100 : 0;
}

/* There are no clusters, and nothing to be left dirty. */
static int file_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    return 0;
}

#define FILE_COMMON_FUNCTIONS                                                \
    .instance_size = sizeof(FileState),                                      \
    .supports_handover = true,                                               \
    .create_opts = file_create_opts,                                         \
    .close = file_close,                                                     \
    .reopen_prepare = file_reopen_prepare,                                   \
    .reopen_commit = file_reopen_commit,                                     \
    .reopen_abort = file_reopen_abort,                                       \
    .activate = file_activate,                                               \
    .refresh_limits = file_refresh_limits,                                   \
    .drop_behind = file_drop_behind,                                         \
    .check_perm = file_check_perm,                                           \
    .set_perm = file_set_perm,                                               \
    .abort_perm_update = file_abort_perm_update,                             \
    .preadv = file_preadv,                                                   \
    .pwritev = file_pwritev,                                                 \
    .pwrite_zeroes = file_pwrite_zeroes,                                     \
    .pdiscard = file_pdiscard,                                               \
    .flush = file_flush,                                                     \
    .block_status = file_block_status,                                       \
    .truncate = file_truncate,                                               \
    .getlength = file_getlength,                                             \
    .get_info = file_get_info,                                               \
    .get_allocated_file_size = file_get_allocated_file_size,                 \
    .get_specific_info = file_get_specific_info,                             \
    .supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_REGISTERED_BUF,         \
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,       \
    .submit = file_submit,                                                   \
    .cancel = file_cancel

/* Creating a file truncates it first. */
static bool file_has_zero_init(BlockDriverState *bs)
{
    return true;
}

BlockDriver bdrv_file = {
    .format_name = "file",
    .protocol_name = "file",
    .parse_filename = file_parse_filename,
    .open = file_open,
    .create = file_create,
    .delete_file = file_delete,
    .blockdev_create = file_blockdev_create,
    .blockdev_create_params = file_blockdev_create_params,
    FILE_COMMON_FUNCTIONS,
    .has_zero_init = file_has_zero_init,
};

BlockDriver bdrv_host_device = {
    .format_name = "host_device",
    .protocol_name = "host_device",
    .probe_device = host_device_probe_device,
    .parse_filename = host_device_parse_filename,
    .open = host_device_open,
    .create = host_device_create,
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
