/*
 * What a file is and what it needs, asked of the kernel.
 *
 * Size and block sizes come from stat and the block device ioctls.  What
 * O_DIRECT wants of offsets and of memory is asked in this order, and the
 * first answer counts: statx() (STATX_DIOALIGN; Linux 6.1), the device's
 * logical block size, XFS's own ioctl, and at last trying: read with ever
 * coarser alignment until the kernel does not say EINVAL.
 *
 * All of it runs at open and reopen, on the control thread, and may block.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include "file-posix.h"

/* Alignment that is always enough: a page, and no sector is larger today. */
#define SAFE_ALIGNMENT 4096

/* The few fields of the kernel's struct statx (include/uapi/linux/stat.h) that
 * libc of this age has no names for; and its flag. */
#define STATX_DIOALIGN_FLAG 0x2000u
typedef struct KernelStatx {
    uint32_t stx_mask;
    uint8_t other[148];
    uint32_t stx_dio_mem_align;      /* offset 0x98 */
    uint32_t stx_dio_offset_align;
    uint8_t spare[96];
} KernelStatx;
_Static_assert(sizeof(KernelStatx) == 256, "as the kernel's");
_Static_assert(offsetof(KernelStatx, stx_dio_mem_align) == 0x98,
               "as the kernel's");

/* XFS_IOC_DIOINFO and its argument, from the documentation of xfsctl(3). */
typedef struct XfsDioAttr {
    uint32_t mem;
    uint32_t min_io;
    uint32_t max_io;
} XfsDioAttr;
#define XFS_DIOINFO _IOR('X', 30, XfsDioAttr)

/* File systems that live in memory (statfs(2)). */
#define FS_MAGIC_TMPFS 0x01021994
#define FS_MAGIC_RAMFS 0x858458f6

static bool probe_statx(FileHandle *h)
{
#ifdef SYS_statx
    KernelStatx stx = {};

    if (syscall(SYS_statx, h->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN_FLAG,
                &stx) < 0 ||
        !(stx.stx_mask & STATX_DIOALIGN_FLAG) ||
        !is_power_of_2(stx.stx_dio_offset_align) ||
        !is_power_of_2(stx.stx_dio_mem_align)) {
        return false;
    }
    h->request_alignment = stx.stx_dio_offset_align;
    h->mem_alignment = stx.stx_dio_mem_align;
    return true;
#else
    return false;
#endif
}

static bool probe_xfs(FileHandle *h)
{
    XfsDioAttr attr = {};

    if (ioctl(h->fd, XFS_DIOINFO, &attr) < 0 ||
        !is_power_of_2(attr.min_io) || !is_power_of_2(attr.mem)) {
        return false;
    }
    h->request_alignment = attr.min_io;
    h->mem_alignment = attr.mem;
    return true;
}

/* Does a read of @bytes into @buf get past the alignment checks? */
static bool probe_try_read(int fd, void *buf, size_t bytes)
{
    return RETRY_ON_EINTR(pread(fd, buf, bytes, 0)) >= 0 || errno != EINVAL;
}

/*
 * Read at ever coarser alignment.  A file without data cannot tell: reading at
 * its end succeeds however it is asked, so it gets what is always enough.
 */
static void probe_by_trying(FileHandle *h)
{
    g_autofree char *mem = g_malloc(3 * SAFE_ALIGNMENT);
    char *buf = QEMU_ALIGN_PTR_UP(mem, SAFE_ALIGNMENT);
    uint32_t align;

    h->mem_alignment = SAFE_ALIGNMENT;
    h->request_alignment = SAFE_ALIGNMENT;
    if (file_raw_length(h->fd) < SAFE_ALIGNMENT) {
        return;
    }
    for (align = 1; align < SAFE_ALIGNMENT; align = MAX(align * 2, 512)) {
        if (probe_try_read(h->fd, buf, align)) {
            h->request_alignment = align;
            break;
        }
    }
    for (align = 1; align < SAFE_ALIGNMENT; align = MAX(align * 2, 512)) {
        if (probe_try_read(h->fd, buf + align, SAFE_ALIGNMENT)) {
            h->mem_alignment = align;
            break;
        }
    }
}

static void probe_alignment(FileHandle *h)
{
    if (!h->direct) {
        h->request_alignment = 1;
        h->mem_alignment = 1;
        return;
    }
    if (probe_statx(h)) {
        return;
    }
    if (h->logical_block_size) {
        h->request_alignment = h->logical_block_size;
        h->mem_alignment = h->logical_block_size;
        return;
    }
    if (!probe_xfs(h)) {
        probe_by_trying(h);
    }
}

static void probe_block_sizes(FileHandle *h)
{
    unsigned int physical = 0;
    int logical = 0;

    h->logical_block_size = 0;
    h->physical_block_size = 0;
    if (!h->is_blkdev) {
        return;
    }
    if (ioctl(h->fd, BLKSSZGET, &logical) == 0 && is_power_of_2(logical)) {
        h->logical_block_size = logical;
    }
    if (ioctl(h->fd, BLKPBSZGET, &physical) == 0 && is_power_of_2(physical)) {
        h->physical_block_size = physical;
    }
}

bool file_probe_handle(FileHandle *h, Error **errp)
{
    struct stat st;
    struct statfs fs;

    if (file_posix_ops->fstat(h->fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not stat file");
        return false;
    }
    h->is_blkdev = S_ISBLK(st.st_mode);
    h->is_device = h->is_blkdev || S_ISCHR(st.st_mode);
    h->direct = h->open_flags & O_DIRECT;
    h->in_memory = S_ISREG(st.st_mode) && fstatfs(h->fd, &fs) == 0 &&
                   ((unsigned)fs.f_type == FS_MAGIC_TMPFS ||
                    (unsigned)fs.f_type == FS_MAGIC_RAMFS);
    probe_block_sizes(h);
    probe_alignment(h);
    return true;
}

int64_t file_raw_length(int fd)
{
    struct stat st;
    uint64_t bytes;
    off_t end;

    if (file_posix_ops->fstat(fd, &st) < 0) {
        return -errno;
    }
    if (S_ISREG(st.st_mode)) {
        return st.st_size;
    }
    if (S_ISBLK(st.st_mode)) {
        if (ioctl(fd, BLKGETSIZE64, &bytes) < 0) {
            return -errno;
        }
        return bytes <= INT64_MAX ? (int64_t)bytes : -EFBIG;
    }
    end = file_posix_ops->lseek(fd, 0, SEEK_END);
    return end < 0 ? -errno : end;
}

int64_t file_getlength(BlockDriverState *bs)
{
    FileState *s = bs->opaque;

    return file_raw_length(s->h.fd);
}

int64_t file_get_allocated_file_size(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    struct stat st;

    if (file_posix_ops->fstat(s->h.fd, &st) < 0) {
        return -errno;
    }
    return (int64_t)st.st_blocks * 512;
}

/* A number from the "queue" directory of the device in sysfs; 0: not there. */
static int64_t device_queue_limit(int fd, const char *name)
{
    /* A partition has none of its own: the whole disk's is one level up. */
    static const char *const dirs[] = { "queue", "../queue" };
    struct stat st;

    if (file_posix_ops->fstat(fd, &st) < 0) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        g_autofree char *path = g_strdup_printf(
            "/sys/dev/block/%u:%u/%s/%s", major(st.st_rdev),
            minor(st.st_rdev), dirs[i], name);
        g_autofree char *text = NULL;

        if (g_file_get_contents(path, &text, NULL, NULL)) {
            return g_ascii_strtoll(text, NULL, 10);
        }
    }
    return 0;
}

void file_refresh_limits(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    const FileHandle *h = &s->h;
    int64_t granularity;

    bs->bl.request_alignment = h->request_alignment;
    bs->bl.min_mem_alignment = h->mem_alignment;
    bs->bl.opt_mem_alignment = MAX(h->mem_alignment,
                                   (uint32_t)sysconf(_SC_PAGESIZE));
    bs->bl.logical_block_size = h->logical_block_size;
    bs->bl.physical_block_size = h->physical_block_size;
    bs->bl.max_iov = IOV_MAX;
    if (h->is_blkdev) {
        granularity = device_queue_limit(h->fd, "discard_granularity");
        if (granularity > 0 && granularity <= 1 * GiB) {
            bs->bl.pdiscard_alignment = granularity;
        }
    }
}
