/*
 * Creating files, and changing their length.
 *
 * Preallocation "falloc" asks the file system for the space, "full" writes
 * zeroes and makes them stable, so that not even a file system that allocates
 * late can run out of space afterwards.  When either fails, the file gets its
 * old length back.
 *
 * Creating holds the locks of a writer that shares everything but resizing, as
 * QEMU does, so that a file in use by a guest is not cut to nothing.
 *
 * Control thread; blocks.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "block/fdset.h"
#include "file-posix.h"
#include "qemu/cutils.h"

/* Fewer, larger extents for files that grow in small steps (XFS). */
#define EXTENT_SIZE_HINT_DEFAULT (1 * MiB)

const BlockCreateOption file_create_opts[] = {
    { "size", BLOCK_OPT_SIZE, "Virtual disk size", NULL },
    { "nocow", BLOCK_OPT_BOOL,
      "Turn off copy-on-write (valid only on btrfs)", NULL },
    { "preallocation", BLOCK_OPT_STRING,
      "Preallocation mode (allowed values: off, falloc, full)", NULL },
    { "extent_size_hint", BLOCK_OPT_SIZE,
      "Extent size hint for the image file, 0 to disable", NULL },
    { NULL },
};

typedef struct FileCreateOptions {
    int64_t size;
    uint64_t extent_size_hint;
    bool has_extent_size_hint;
    bool nocow;
    int prealloc;
} FileCreateOptions;

/* Of a file that is being made, @s is NULL: nobody has data in it yet. */
static int sync_fd(FileState *s, int fd)
{
    if (s) {
        return file_sync(s);
    }
    return RETRY_ON_EINTR(file_posix_ops->fdatasync(fd)) < 0 ? -errno : 0;
}

/* Zeroes from @start to @end, stable when it returns.  0 or -errno. */
static int write_zeroes_stable(FileState *s, int fd, int64_t start,
                               int64_t end, Error **errp)
{
    int ret;
    size_t chunk = 64 * KiB;
    g_autofree char *zeroes = g_malloc0(chunk);

    while (start < end) {
        struct iovec iov = {
            .iov_base = zeroes, .iov_len = MIN((int64_t)chunk, end - start),
        };
        ssize_t n = RETRY_ON_EINTR(file_posix_ops->pwritev(fd, &iov, 1,
                                                           start));

        if (n <= 0) {
            int err = n < 0 ? errno : EIO;

            error_setg_errno(errp, err,
                             "Could not write zeros for preallocation");
            return -err;
        }
        start += n;
    }
    ret = sync_fd(s, fd);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush file to disk");
    }
    return ret;
}

/* O_DIRECT would ask for alignment that the old length may not have. */
static int preallocate_full(FileState *s, int fd, int64_t from, int64_t to,
                            Error **errp)
{
    int flags = fcntl(fd, F_GETFL);
    bool direct = flags >= 0 && (flags & O_DIRECT);
    int ret;

    if (RETRY_ON_EINTR(file_posix_ops->ftruncate(fd, to)) < 0) {
        error_setg_errno(errp, errno, "Could not resize file");
        return -errno;
    }
    if (direct && fcntl(fd, F_SETFL, flags & ~O_DIRECT) < 0) {
        error_setg_errno(errp, errno, "Could not turn off O_DIRECT");
        return -errno;
    }
    ret = write_zeroes_stable(s, fd, from, to, errp);
    if (direct && fcntl(fd, F_SETFL, flags) < 0 && ret == 0) {
        error_setg_errno(errp, errno, "Could not turn on O_DIRECT");
        ret = -errno;
    }
    return ret;
}

static int preallocate_falloc(int fd, int64_t from, int64_t to, Error **errp)
{
    int err = 0;

    if (RETRY_ON_EINTR(file_posix_ops->fallocate(fd, 0, from,
                                                 to - from)) < 0) {
        err = errno;
    }
    if (err == EOPNOTSUPP) {
        /* libc's emulation: touches every block. */
        do {
            err = posix_fallocate(fd, from, to - from);
        } while (err == EINTR);
    }
    if (err) {
        error_setg_errno(errp, err, "Could not preallocate new data");
    }
    return -err;
}

static int set_length(FileState *s, int fd, int64_t old, int64_t length,
                      PreallocMode prealloc, Error **errp)
{
    if (prealloc != PREALLOC_MODE_OFF && prealloc != PREALLOC_MODE_FALLOC &&
        prealloc != PREALLOC_MODE_FULL) {
        error_setg(errp, "Unsupported preallocation mode: %s",
                   PreallocMode_names[prealloc]);
        return -ENOTSUP;
    }
    if (prealloc != PREALLOC_MODE_OFF && length < old) {
        error_setg(errp, "Cannot use preallocation for shrinking files");
        return -ENOTSUP;
    }
    if (prealloc != PREALLOC_MODE_OFF && length > old) {
        return prealloc == PREALLOC_MODE_FULL ?
               preallocate_full(s, fd, old, length, errp) :
               preallocate_falloc(fd, old, length, errp);
    }
    if (RETRY_ON_EINTR(file_posix_ops->ftruncate(fd, length)) < 0) {
        error_setg_errno(errp, errno, "Could not resize file");
        return -errno;
    }
    return 0;
}

/* The same; on failure the file has its old length again. */
static bool resize_regular(FileState *s, int fd, int64_t length,
                           PreallocMode prealloc, Error **errp)
{
    int64_t old = file_raw_length(fd);

    if (old < 0) {
        error_setg_errno(errp, -old, "Could not stat file");
        return false;
    }
    if (set_length(s, fd, old, length, prealloc, errp) == 0) {
        return true;
    }
    if (file_raw_length(fd) != old &&
        RETRY_ON_EINTR(file_posix_ops->ftruncate(fd, old)) < 0) {
        warn_report("Failed to restore old file length: %s",
                    g_strerror(errno));
    }
    return false;
}

static bool truncate_device(int fd, int64_t offset, bool exact,
                            PreallocMode prealloc, Error **errp)
{
    int64_t cur = file_raw_length(fd);

    if (prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation mode '%s' unsupported for this "
                   "non-regular file", PreallocMode_names[prealloc]);
        return false;
    }
    if (cur < 0) {
        error_setg_errno(errp, -cur, "Could not determine device size");
        return false;
    }
    if (offset != cur && exact) {
        error_setg(errp, "Cannot resize device files");
        return false;
    }
    if (offset > cur) {
        error_setg(errp, "Cannot grow device files");
        return false;
    }
    return true;
}

bool file_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                   PreallocMode prealloc, int flags, Error **errp)
{
    FileState *s = bs->opaque;

    if (s->h.is_device) {
        return truncate_device(s->h.fd, offset, exact, prealloc, errp);
    }
    return resize_regular(s, s->h.fd, offset, prealloc, errp);
}

/* As QEMU says it; opt_take_enum() has other words. */
static bool take_preallocation(json_t *options, int *mode, Error **errp)
{
    g_autofree char *name = opt_take_str(options, "preallocation");

    for (int i = 0; name && PreallocMode_names[i]; i++) {
        if (g_str_equal(PreallocMode_names[i], name)) {
            *mode = i;
            return true;
        }
    }
    if (name) {
        error_setg(errp, "invalid parameter value: %s", name);
    }
    return !name;
}

static bool take_create_options(json_t *options, FileCreateOptions *o,
                                Error **errp)
{
    uint64_t size = 0;

    *o = (FileCreateOptions){ .extent_size_hint = EXTENT_SIZE_HINT_DEFAULT };
    o->has_extent_size_hint = json_object_get(options, "extent_size_hint");
    if (!opt_take_size(options, "size", &size, errp) ||
        !opt_take_size(options, "extent_size_hint", &o->extent_size_hint,
                       errp) ||
        !opt_take_bool(options, "nocow", &o->nocow, errp) ||
        !take_preallocation(options, &o->prealloc, errp)) {
        return false;
    }
    if (size > INT64_MAX - (BDRV_SECTOR_SIZE - 1)) {
        error_setg_errno(errp, EFBIG, "Image size is too large");
        return false;
    }
    if (o->extent_size_hint > UINT32_MAX) {
        error_setg(errp, "Extent size hint is too large");
        return false;
    }
    o->size = ROUND_UP((int64_t)size, BDRV_SECTOR_SIZE);
    return true;
}

/* Both are wishes: a file system that does not know them is no failure. */
static void set_nocow(int fd)
{
    int attr;

    if (ioctl(fd, FS_IOC_GETFLAGS, &attr) == 0) {
        attr |= FS_NOCOW_FL;
        if (ioctl(fd, FS_IOC_SETFLAGS, &attr) < 0) {
            return;
        }
    }
}

static void set_extent_size_hint(int fd, const FileCreateOptions *o)
{
    struct fsxattr attr;

    if (o->extent_size_hint == 0 ||
        ioctl(fd, FS_IOC_FSGETXATTR, &attr) < 0) {
        return;
    }
    attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
    attr.fsx_extsize = o->extent_size_hint;
    if (ioctl(fd, FS_IOC_FSSETXATTR, &attr) < 0 && o->has_extent_size_hint &&
        errno != EOPNOTSUPP && errno != ENOTTY) {
        warn_report("Failed to set extent size hint: %s", g_strerror(errno));
    }
}

/*
 * Allocate the first block: on some file systems O_DIRECT shows what alignment
 * it demands only where there is something to read.
 */
static bool allocate_first_block(int fd, int64_t size, Error **errp)
{
    static const char zeroes[4096];
    struct iovec iov = {
        .iov_base = (void *)zeroes,
        .iov_len = MIN(size, (int64_t)sizeof(zeroes)),
    };

    if (size > 0 &&
        RETRY_ON_EINTR(file_posix_ops->pwritev(fd, &iov, 1, 0)) < 0) {
        error_setg_errno(errp, errno, "Could not clear first block");
        return false;
    }
    return true;
}

static bool create_in_fd(int fd, const char *filename,
                         const FileCreateOptions *o, Error **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        error_setg(errp, "'file' driver requires '%s' to be a regular file",
                   filename);
        return false;
    }
    if (!file_locks_take(fd, filename, BLK_PERM_WRITE | BLK_PERM_RESIZE,
                         BLK_PERM_ALL & ~BLK_PERM_RESIZE, errp)) {
        return false;
    }
    if (RETRY_ON_EINTR(file_posix_ops->ftruncate(fd, 0)) < 0) {
        error_setg_errno(errp, errno, "Could not clear file");
        return false;
    }
    if (o->nocow) {
        set_nocow(fd);
    }
    set_extent_size_hint(fd, o);
    return resize_regular(NULL, fd, o->size, o->prealloc, errp) &&
           allocate_first_block(fd, o->size, errp);
}

const BlockCreateParam file_blockdev_create_params[] = {
    { "driver", BLOCK_PARAM_STRING },
    { "filename", BLOCK_PARAM_STRING, true },
    { "size", BLOCK_PARAM_SIZE, true },
    { "preallocation", BLOCK_PARAM_ENUM, .values = PreallocMode_names },
    { "nocow", BLOCK_PARAM_BOOL },
    { "extent-size-hint", BLOCK_PARAM_SIZE },
    { NULL }
};

bool file_blockdev_create(BlockGraph *graph, json_t *options, Error **errp)
{
    g_autofree char *filename = opt_take_str(options, "filename");

    options_underscore_keys(options);
    return file_create(graph, filename, options, errp);
}

bool file_create(BlockGraph *graph, const char *filename, json_t *options,
                 Error **errp)
{
    FileCreateOptions o;
    bool ok;
    int fd;

    strstart(filename, "file:", &filename);
    if (!take_create_options(options, &o, errp)) {
        return false;
    }
    if (fdset_is_reference(filename)) {
        fd = fdset_open(filename, O_RDWR, errp);
        if (fd < 0) {
            return false;
        }
    } else {
        fd = RETRY_ON_EINTR(open(filename, O_RDWR | O_CREAT | O_CLOEXEC |
                                 O_NONBLOCK, 0644));
        if (fd < 0) {
            error_setg_errno(errp, errno, "Could not create '%s'", filename);
            return false;
        }
    }
    ok = create_in_fd(fd, filename, &o, errp);
    file_locks_drop(fd);
    if (close(fd) < 0 && ok) {
        error_setg_errno(errp, errno, "Could not close the new file");
        ok = false;
    }
    return ok;
}

/* Not what a symbolic link, a descriptor or a device is for: those stay. */
bool file_delete(const char *filename, Error **errp)
{
    struct stat st;

    strstart(filename, "file:", &filename);
    if (fdset_is_reference(filename)) {
        return true;
    }
    if (lstat(filename, &st) == 0 && !S_ISREG(st.st_mode)) {
        return true;
    }
    if (unlink(filename) < 0 && errno != ENOENT) {
        error_setg_errno(errp, errno, "Could not remove '%s'", filename);
        return false;
    }
    return true;
}

/* A device is there already: it has to be large enough, and what a format left
 * in its first sector must not be taken for one. */
bool host_device_create(BlockGraph *graph, const char *filename,
                        json_t *options, Error **errp)
{
    FileCreateOptions o;
    int fd;
    bool ok;

    strstart(filename, "host_device:", &filename);
    if (!take_create_options(options, &o, errp)) {
        return false;
    }
    fd = RETRY_ON_EINTR(open(filename, O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (fd < 0) {
        error_setg_file_open(errp, errno, filename);
        return false;
    }
    ok = file_locks_take(fd, filename, BLK_PERM_WRITE | BLK_PERM_RESIZE,
                         BLK_PERM_ALL & ~BLK_PERM_RESIZE, errp) &&
         truncate_device(fd, o.size, false, o.prealloc, errp) &&
         write_zeroes_stable(NULL, fd, 0, MIN(o.size, BDRV_SECTOR_SIZE),
                             errp) == 0;
    file_locks_drop(fd);
    close(fd);
    return ok;
}
