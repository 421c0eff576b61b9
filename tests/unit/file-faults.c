/*
 * A system that misbehaves, for tests of the file driver.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "file-faults.h"

static const Fault *fault_next;
static int fault_left;
int fault_calls;

static bool fault_take(size_t *max)
{
    fault_calls++;
    if (fault_left == 0) {
        return false;
    }
    fault_left--;
    errno = fault_next->err;
    *max = fault_next->at_most;
    return (fault_next++)->err != 0;
}

typedef ssize_t TransferFn(int fd, const struct iovec *iov, int niov,
                           off_t offset);

static ssize_t transfer(TransferFn *fn, int fd, const struct iovec *iov,
                        int niov, off_t offset)
{
    size_t max = SIZE_MAX;
    struct iovec cut = iov[0];

    if (fault_take(&max)) {
        return -1;
    }
    if (max == SIZE_MAX) {
        return fn(fd, iov, niov, offset);
    }
    cut.iov_len = MIN(cut.iov_len, max);
    return fn(fd, &cut, 1, offset);
}

static ssize_t faulty_preadv(int fd, const struct iovec *iov, int niov,
                             off_t offset)
{
    return transfer(preadv, fd, iov, niov, offset);
}

static ssize_t faulty_pwritev(int fd, const struct iovec *iov, int niov,
                              off_t offset)
{
    return transfer(pwritev, fd, iov, niov, offset);
}

static ssize_t faulty_pwritev2(int fd, const struct iovec *iov, int niov,
                               off_t offset, int flags)
{
    size_t max;

    return fault_take(&max) ? -1 : pwritev2(fd, iov, niov, offset, flags);
}

static int faulty_fallocate(int fd, int mode, off_t offset, off_t len)
{
    size_t max;

    return fault_take(&max) ? -1 : fallocate(fd, mode, offset, len);
}

static int faulty_fdatasync(int fd)
{
    size_t max;

    return fault_take(&max) ? -1 : fdatasync(fd);
}

static FilePosixOps faulty_ops;

void faults_begin(const Fault *faults, int n)
{
    faulty_ops = file_posix_system_ops;
    faulty_ops.preadv = faulty_preadv;
    faulty_ops.pwritev = faulty_pwritev;
    faulty_ops.pwritev2 = faulty_pwritev2;
    faulty_ops.fallocate = faulty_fallocate;
    faulty_ops.fdatasync = faulty_fdatasync;
    fault_next = faults;
    fault_left = n;
    fault_calls = 0;
    file_posix_ops = &faulty_ops;
}

void faults_end(void)
{
    file_posix_ops = &file_posix_system_ops;
    g_assert_cmpint(fault_left, ==, 0);
}

BlockDriverState *open_rw(const char *dir, const char *name,
                                 int64_t size)
{
    g_autofree char *path = fake_file(dir, name, size);

    return fake_open(path, NULL, BDRV_O_RDWR, &error_abort);
}
