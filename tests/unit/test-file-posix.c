/*
 * Tests of the file driver: requests, faults of the system, options.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "block/fdset.h"
#include "fake-block-core.h"

/* ---- A system that misbehaves ---- */

/* What the replaced calls do, one after the other; then the real thing. */
typedef struct Fault {
    int err;                /* fail so … */
    size_t at_most;         /* … or else transfer no more than this */
} Fault;

static const Fault *fault_next;
static int fault_left;
static int fault_calls;

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

static ssize_t faulty_preadv(int fd, const struct iovec *iov, int niov,
                             off_t offset)
{
    size_t max = SIZE_MAX;
    struct iovec cut = iov[0];

    if (fault_take(&max)) {
        return -1;
    }
    if (max == SIZE_MAX) {
        return preadv(fd, iov, niov, offset);
    }
    cut.iov_len = MIN(cut.iov_len, max);
    return preadv(fd, &cut, 1, offset);
}

static ssize_t faulty_pwritev(int fd, const struct iovec *iov, int niov,
                              off_t offset)
{
    size_t max = SIZE_MAX;
    struct iovec cut = iov[0];

    if (fault_take(&max)) {
        return -1;
    }
    if (max == SIZE_MAX) {
        return pwritev(fd, iov, niov, offset);
    }
    cut.iov_len = MIN(cut.iov_len, max);
    return pwritev(fd, &cut, 1, offset);
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

static void faults_begin(const Fault *faults, int n)
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

static void faults_end(void)
{
    file_posix_ops = &file_posix_system_ops;
    g_assert_cmpint(fault_left, ==, 0);
}

static BlockDriverState *open_rw(const char *dir, const char *name,
                                 int64_t size)
{
    g_autofree char *path = fake_file(dir, name, size);

    return fake_open(path, NULL, BDRV_O_RDWR, &error_abort);
}

/* ---- Reads and writes ---- */

static void test_read_goes_on(void)
{
    static const Fault faults[] = {
        { .err = EINTR }, { .at_most = 100 }, { .err = EINTR },
        { .at_most = 1 },
    };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "goes-on", 4096);
    char buf[4096] = "";

    faults_begin(faults, ARRAY_SIZE(faults));
    g_assert_cmpint(fake_pread(bs, 0, buf, sizeof(buf)), ==, 0);
    g_assert_cmpint(fault_calls, ==, 5);
    faults_end();
    g_assert_true(fake_is_filled(buf, 0x5a, sizeof(buf)));
    fake_close(bs);
}

static void test_write_goes_on(void)
{
    static const Fault faults[] = {
        { .at_most = 7 }, { .err = EINTR }, { .at_most = 600 },
    };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "goes-on", 4096);
    g_autofree char *buf = g_malloc(4096), *back = g_malloc(4096);

    for (int i = 0; i < 4096; i++) {
        buf[i] = i * 7;
    }
    faults_begin(faults, ARRAY_SIZE(faults));
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 4096, 0), ==, 0);
    faults_end();
    g_assert_cmpint(fake_pread(bs, 0, back, 4096), ==, 0);
    g_assert_cmpmem(buf, 4096, back, 4096);
    fake_close(bs);
}

static void test_errors_come_through(void)
{
    static const int errors[] = { EIO, ENOSPC, EDQUOT, EFBIG };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "errors", 4096);
    char buf[512] = "";

    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        /* Half of it is written before it fails: no success. */
        const Fault faults[] = { { .at_most = 256 }, { .err = errors[i] } };

        faults_begin(faults, ARRAY_SIZE(faults));
        g_assert_cmpint(fake_pwrite(bs, 0, buf, sizeof(buf), 0), ==,
                        -errors[i]);
        faults_end();
        faults_begin(faults, ARRAY_SIZE(faults));
        g_assert_cmpint(fake_pread(bs, 0, buf, sizeof(buf)), ==, -errors[i]);
        faults_end();
    }
    fake_close(bs);
}

/* A vector of more entries than one call takes. */
static void test_long_vector(void)
{
    int n = IOV_MAX + 200;
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "long", 4 * n);
    g_autofree char *buf = g_malloc0(4 * n);
    QEMUIOVector qiov;

    qemu_iovec_init(&qiov, n);
    for (int i = 0; i < n; i++) {
        qemu_iovec_add(&qiov, buf + 4 * i, 4);
    }
    g_assert_cmpint(bs->drv->preadv(bs, 0, 4 * n, &qiov, 0, 0), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 4 * n));
    qemu_iovec_destroy(&qiov);
    fake_close(bs);
}

static void test_partial_sector_reads_as_zero(void)
{
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "tail", 700);
    char buf[1024];

    memset(buf, 1, sizeof(buf));
    g_assert_cmpint(fake_pread(bs, 0, buf, 1024), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 700));
    g_assert_true(fake_is_filled(buf + 700, 0, 324));
    fake_close(bs);
}

/* A read that ends where the file ended then; by now it is longer. */
static void test_grown_file(void)
{
    static const Fault faults[] = { { .at_most = 700 }, { .at_most = 0 } };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "grown", 4096);
    char buf[4096] = "";

    faults_begin(faults, ARRAY_SIZE(faults));
    g_assert_cmpint(fake_pread(bs, 0, buf, sizeof(buf)), ==, 0);
    g_assert_cmpint(fault_calls, ==, 3);
    faults_end();
    g_assert_true(fake_is_filled(buf, 0x5a, sizeof(buf)));
    fake_close(bs);
}

static void test_shrunk_file_fails(void)
{
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "shrink", 64 * KiB);
    g_autofree char *buf = g_malloc(64 * KiB);

    g_assert_cmpint(truncate(bs->filename, 4096), ==, 0);
    g_assert_cmpint(fake_pread(bs, 0, buf, 4096), ==, 0);
    g_assert_cmpint(fake_pread(bs, 0, buf, 4608), ==, -EIO);
    g_assert_cmpint(fake_pread(bs, 32 * KiB, buf, 512), ==, -EIO);
    fake_close(bs);
}

static void test_direct_bounce(void)
{
    g_autofree char *path = NULL, *back = NULL;
    char *buf, *mem;
    BlockDriverState *bs;
    int64_t size = 3 * MiB;

    if (fake_skip_without_direct(fake_dir_on_disk())) {
        return;
    }
    path = fake_file(fake_dir_on_disk(), "bounce", size);
    bs = fake_open(path, NULL, BDRV_O_RDWR | BDRV_O_NOCACHE, &error_abort);
    g_assert_cmpint(bs->bl.request_alignment, >=, 1);
    mem = fake_buf(size + 4096, 0);
    buf = mem + 1;
    g_assert_cmpint(fake_pread(bs, 0, buf, size), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, size));
    for (int64_t i = 0; i < size; i++) {
        buf[i] = i * 13 >> 4;
    }
    g_assert_cmpint(fake_pwrite(bs, 0, buf, size, 0), ==, 0);
    g_assert_true(g_file_get_contents(path, &back, NULL, NULL));
    g_assert_cmpmem(back, size, buf, size);
    free(mem);
    fake_close(bs);
}

static void test_direct_tail(void)
{
    g_autofree char *path = NULL;
    BlockDriverState *bs;
    char *buf;

    if (fake_skip_without_direct(fake_dir_on_disk())) {
        return;
    }
    path = fake_file(fake_dir_on_disk(), "direct-tail", 4096 + 700);
    bs = fake_open(path, NULL, BDRV_O_NOCACHE, &error_abort);
    buf = fake_buf(8192, 1);
    g_assert_cmpint(fake_pread(bs, 0, buf, 4096 + 1024), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 4096 + 700));
    g_assert_true(fake_is_filled(buf + 4096 + 700, 0, 324));

    g_assert_cmpint(truncate(path, 512), ==, 0);
    g_assert_cmpint(fake_pread(bs, 0, buf, 4096), ==, -EIO);
    free(buf);
    fake_close(bs);
}

/* ---- Stable storage ---- */

static void test_failed_sync_sticks(void)
{
    static const Fault faults[] = { { .err = EINTR }, { .err = EIO } };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "sync", 4096);
    char buf[512] = "";

    g_assert_cmpint(bs->drv->flush(bs), ==, 0);
    faults_begin(faults, ARRAY_SIZE(faults));
    g_assert_cmpint(bs->drv->flush(bs), ==, -EIO);
    faults_end();
    g_assert_cmpint(bs->drv->flush(bs), ==, -EIO);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, BDRV_REQ_FUA), ==, -EIO);
    /* What promises nothing goes on. */
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, 0), ==, 0);
    g_assert_cmpint(fake_pread(bs, 0, buf, 512), ==, 0);

    /* What was lost stays lost, however often it is opened again. */
    g_assert_true(fake_reopen(bs, 0, &error_abort));
    g_assert_true(fake_reopen(bs, BDRV_O_RDWR, &error_abort));
    g_assert_cmpint(bs->drv->flush(bs), ==, -EIO);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, BDRV_REQ_FUA), ==, -EIO);
    fake_close(bs);
}

static BlockDriverState *overtaken;

/* The first call succeeds, but only after another one has failed. */
static int overtaken_fdatasync(int fd)
{
    BlockDriverState *bs = overtaken;

    overtaken = NULL;
    if (bs) {
        g_assert_cmpint(bs->drv->flush(bs), ==, -EIO);
        return 0;
    }
    errno = EIO;
    return -1;
}

/* The kernel says only once that data is lost: to whichever call it is. */
static void test_sync_overtaken_by_failure(void)
{
    FilePosixOps ops = file_posix_system_ops;
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "overtaken", 4096);

    ops.fdatasync = overtaken_fdatasync;
    file_posix_ops = &ops;
    overtaken = bs;
    g_assert_cmpint(bs->drv->flush(bs), ==, -EIO);
    file_posix_ops = &file_posix_system_ops;
    g_assert_null(overtaken);
    fake_close(bs);
}

/* ---- Two threads sync ---- */

static QemuEvent first_entered, first_released;
static int sync_calls;          /* atomic */

/* The first call is told of a failure, but has yet to return. */
static int slow_failure_fdatasync(int fd)
{
    if (qatomic_fetch_inc(&sync_calls) > 0) {
        return 0;
    }
    qemu_event_set(&first_entered);
    qemu_event_wait(&first_released);
    errno = EIO;
    return -1;
}

typedef struct FlushThread {
    BlockDriverState *bs;
    QemuThread thread;
    int ret;
    bool done;                  /* atomic */
} FlushThread;

static void *flush_thread(void *opaque)
{
    FlushThread *t = opaque;

    t->ret = t->bs->drv->flush(t->bs);
    qatomic_store_release(&t->done, true);
    return NULL;
}

static void start_thread(FlushThread *t, BlockDriverState *bs,
                         void *(*fn)(void *))
{
    *t = (FlushThread){ .bs = bs };
    g_assert_cmpint(qemu_thread_create(&t->thread, "flush", fn, t), ==, 0);
}

/* @second runs while the sync of a flush fails; it must be told, too. */
static void beside_failure(BlockDriverState *bs, void *(*second_fn)(void *))
{
    FilePosixOps ops = file_posix_system_ops;
    FileState *s = fake_state(bs);
    FlushThread first, second;
    bool waits = false;

    ops.fdatasync = slow_failure_fdatasync;
    file_posix_ops = &ops;
    qatomic_set(&sync_calls, 0);
    qemu_event_init(&first_entered, false);
    qemu_event_init(&first_released, false);
    start_thread(&first, bs, flush_thread);
    qemu_event_wait(&first_entered);
    start_thread(&second, bs, second_fn);
    while (!waits && !qatomic_load_acquire(&second.done)) {
        leaf_lock(&s->sync_lock);
        waits = !list_is_empty(&s->sync_waiting);
        leaf_unlock(&s->sync_lock);
        g_usleep(100);
    }
    g_assert_true(waits);
    qemu_event_set(&first_released);
    qemu_thread_join(&first.thread);
    qemu_thread_join(&second.thread);
    g_assert_cmpint(first.ret, ==, -EIO);
    g_assert_cmpint(second.ret, ==, -EIO);
    file_posix_ops = &file_posix_system_ops;
    qemu_event_destroy(&first_entered);
    qemu_event_destroy(&first_released);
    fake_close(bs);
}

static void test_sync_beside_failure(void)
{
    beside_failure(open_rw(fake_dir_on_disk(), "beside", 4096), flush_thread);
}

static void *fua_thread(void *opaque)
{
    FlushThread *t = opaque;
    char *buf = fake_buf(4096, 1);

    t->ret = fake_pwrite(t->bs, 0, buf, 4096, BDRV_REQ_FUA);
    free(buf);
    qatomic_store_release(&t->done, true);
    return NULL;
}

/* The sync of a FUA write is one like any other, O_DIRECT or not. */
static void test_fua_beside_failure(void)
{
    g_autofree char *path = NULL;

    beside_failure(open_rw(fake_dir_on_disk(), "fua-beside", 4096), fua_thread);
    if (!fake_skip_without_direct(fake_dir_on_disk())) {
        path = fake_file(fake_dir_on_disk(), "direct-beside", 4096);
        beside_failure(fake_open(path, NULL, BDRV_O_RDWR | BDRV_O_NOCACHE,
                                 &error_abort), fua_thread);
    }
}

static void failed_fua_sticks(BlockDriverState *bs)
{
    static const Fault bad_sector[] = { { .err = EIO } };
    static const Fault sync_fails[] = { {.at_most = SIZE_MAX }, {.err = EIO} };
    char *buf = fake_buf(4096, 1);

    /* The write failed, nothing is lost but this. */
    faults_begin(bad_sector, 1);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 4096, BDRV_REQ_FUA), ==, -EIO);
    g_assert_cmpint(fault_calls, ==, 1);
    faults_end();
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 4096, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(bs->drv->flush(bs), ==, 0);
    /* The sync after it failed, and what a disk's cache held may be lost. */
    faults_begin(sync_fails, 2);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 4096, BDRV_REQ_FUA), ==, -EIO);
    faults_end();
    g_assert_cmpint(bs->drv->flush(bs), ==, -EIO);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 4096, BDRV_REQ_FUA), ==, -EIO);
    free(buf);
    fake_close(bs);
}

static void test_failed_fua_sticks(void)
{
    failed_fua_sticks(open_rw(fake_dir_on_disk(), "fua", 4096));
}

static void test_direct_fua(void)
{
    g_autofree char *path = NULL;

    if (!fake_skip_without_direct(fake_dir_on_disk())) {
        path = fake_file(fake_dir_on_disk(), "direct-fua", 4096);
        failed_fua_sticks(fake_open(path, NULL, BDRV_O_RDWR | BDRV_O_NOCACHE,
                                    &error_abort));
    }
}

/* ---- Zeroes, discard, block status ---- */

static int status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                  int64_t *pnum)
{
    BlockDriverState *file;
    int64_t map;
    int ret = bs->drv->block_status(bs, true, offset, bytes, pnum, &map,
                                    &file);

    g_assert_true(file == bs);
    g_assert_cmpint(map, ==, offset);
    g_assert_cmpint(ret & BDRV_BLOCK_OFFSET_VALID, !=, 0);
    return ret & ~BDRV_BLOCK_OFFSET_VALID;
}

static void check_holes(const char *dir)
{
    BlockDriverState *bs = open_rw(dir, "holes", 1 * MiB);
    g_autofree char *buf = g_malloc(64 * KiB);
    int64_t n;

    g_assert_cmpint(status(bs, 0, 1 * MiB, &n), ==, BDRV_BLOCK_DATA);
    g_assert_cmpint(n, ==, 1 * MiB);
    g_assert_cmpint(bs->drv->pdiscard(bs, 64 * KiB, 64 * KiB), ==, 0);
    g_assert_cmpint(bs->drv->pwrite_zeroes(bs, 128 * KiB, 64 * KiB,
                                           BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(status(bs, 0, 1 * MiB, &n), ==, BDRV_BLOCK_DATA);
    g_assert_cmpint(n, ==, 64 * KiB);
    g_assert_cmpint(status(bs, 64 * KiB, 1 * MiB - 64 * KiB, &n), ==,
                    BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 128 * KiB);
    /* Nobody asked for an effort. */
    g_assert_cmpint(bs->drv->block_status(bs, false, 64 * KiB, 512, &n,
                                          &(int64_t){ 0 },
                                          &(BlockDriverState *){ NULL }) &
                    BDRV_BLOCK_DATA, !=, 0);
    for (int64_t at = 64 * KiB; at < 192 * KiB; at += 64 * KiB) {
        g_assert_cmpint(fake_pread(bs, at, buf, 64 * KiB), ==, 0);
        g_assert_true(fake_is_filled(buf, 0, 64 * KiB));
    }
    fake_close(bs);
}

static void test_holes_on_disk(void)
{
    check_holes(fake_dir_on_disk());
}

static void test_holes_in_memory(void)
{
    if (!fake_dir_in_memory()) {
        g_test_skip("no tmpfs at /dev/shm");
        return;
    }
    check_holes(fake_dir_in_memory());
}

static void test_status_of_tail(void)
{
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "status-tail", 700);
    int64_t n;

    g_assert_cmpint(status(bs, 0, 1024, &n), ==, BDRV_BLOCK_DATA);
    g_assert_cmpint(n, ==, 700);
    g_assert_cmpint(status(bs, 700, 324, &n), ==, BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 324);
    g_assert_cmpint(truncate(bs->filename, 100000), ==, 0);
    bs->total_bytes = 100352;
    g_assert_cmpint(status(bs, 65536, 34816, &n), ==, BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 34464);
    g_assert_cmpint(status(bs, 100000, 352, &n), ==, BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 352);
    fake_close(bs);
}

/* What is not there any more is no hole: reading it fails, too. */
static void test_status_of_shrunk_file(void)
{
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "status-shrunk", 65536);
    BlockDriverState *file;
    int64_t n, map;

    g_assert_cmpint(truncate(bs->filename, 4096), ==, 0);
    g_assert_cmpint(status(bs, 0, 65536, &n), ==, BDRV_BLOCK_DATA);
    g_assert_cmpint(n, ==, 4096);
    g_assert_cmpint(bs->drv->block_status(bs, true, 4096, 61440, &n, &map,
                                          &file), ==, -EIO);
    fake_close(bs);
}

static int seek_calls;

/* The first two calls find the file as it was, of 4096 bytes. */
static off_t seek_in_short_file(int fd, off_t offset, int whence)
{
    if (seek_calls++ >= 2) {
        return lseek(fd, offset, whence);
    }
    if (whence == SEEK_END) {
        return 4096;
    }
    errno = ENXIO;
    return -1;
}

/* What somebody else has appended by now is there, and is no error. */
static void test_status_of_grown_file(void)
{
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "status-grown", 65536);
    FilePosixOps ops = file_posix_system_ops;
    int64_t n = 0;

    ops.lseek = seek_in_short_file;
    file_posix_ops = &ops;
    seek_calls = 0;
    g_assert_cmpint(status(bs, 4096, 61440, &n), ==, BDRV_BLOCK_DATA);
    file_posix_ops = &file_posix_system_ops;
    g_assert_cmpint(n, ==, 61440);
    g_assert_cmpint(seek_calls, >, 2);
    fake_close(bs);
}

/* Zeroing past the end makes the file longer, whichever way it is done. */
static void check_zero_extends(const char *dir, int flags)
{
    BlockDriverState *bs = open_rw(dir, "extend", 4096);
    char buf[4096];

    g_assert_cmpint(bs->drv->pwrite_zeroes(bs, 2048, 6144, flags), ==, 0);
    g_assert_cmpint(bs->drv->getlength(bs), ==, 8192);
    bs->total_bytes = 8192;
    g_assert_cmpint(fake_pread(bs, 4096, buf, 4096), ==, 0);
    g_assert_true(fake_is_filled(buf, 0, 4096));
    g_assert_cmpint(fake_pread(bs, 0, buf, 4096), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 2048));
    g_assert_true(fake_is_filled(buf + 2048, 0, 2048));
    fake_close(bs);
}

static void test_zero_extends(void)
{
    check_zero_extends(fake_dir_on_disk(), 0);
    check_zero_extends(fake_dir_on_disk(), BDRV_REQ_MAY_UNMAP);
    if (fake_dir_in_memory()) {
        check_zero_extends(fake_dir_in_memory(), 0);
        check_zero_extends(fake_dir_in_memory(), BDRV_REQ_MAY_UNMAP);
    }
}

static void test_lack_is_remembered(void)
{
    static const Fault none[] = {
        { .err = EOPNOTSUPP }, { .err = EOPNOTSUPP }, { .err = ENOSYS },
    };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "lacks", 1 * MiB);

    /* ZERO_RANGE, then PUNCH_HOLE; the third is for MAY_UNMAP's punch. */
    faults_begin(none, 2);
    g_assert_cmpint(bs->drv->pwrite_zeroes(bs, 0, 4096, 0), ==, -ENOTSUP);
    faults_end();
    faults_begin(none, 0);
    g_assert_cmpint(bs->drv->pwrite_zeroes(bs, 0, 4096, BDRV_REQ_MAY_UNMAP),
                    ==, -ENOTSUP);
    g_assert_cmpint(bs->drv->pdiscard(bs, 0, 4096), ==, -ENOTSUP);
    g_assert_cmpint(fault_calls, ==, 0);
    faults_end();
    /* Another opening may be of something that is mounted better now. */
    g_assert_true(fake_reopen(bs, BDRV_O_RDWR, &error_abort));
    g_assert_cmpint(bs->drv->pdiscard(bs, 0, 4096), ==, 0);
    fake_close(bs);
}

static void test_zero_errors_come_through(void)
{
    static const Fault no_space[] = { { .err = EINTR }, { .err = ENOSPC } };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "zero-err", 1 * MiB);

    faults_begin(no_space, 2);
    g_assert_cmpint(bs->drv->pwrite_zeroes(bs, 0, 4096, 0), ==, -ENOSPC);
    faults_end();
    fake_close(bs);
}

/* ---- The fast path ---- */

static AioContext *enter_context(void)
{
    AioContext *ctx = aio_context_new(&error_abort);

    aio_context_enter(ctx);
    return ctx;
}

static void leave_context(AioContext *ctx)
{
    aio_context_leave(ctx);
    aio_context_unref(ctx);
}

static void test_cached_read_is_inline(void)
{
    AioContext *ctx = enter_context();
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "cached", 64 * KiB);
    g_autofree char *buf = g_malloc0(64 * KiB);
    FakeRequest fr;

    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 4096, buf,
                             32 * KiB), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 32 * KiB));
    if (file_lacks(fake_state(bs), FILE_NO_NOWAIT_READ)) {
        g_assert_true(fr.was_worker);
    } else {
        g_assert_true(fr.was_inline);
        g_assert_false(fr.was_worker);
    }
    /* Past the end of data: a worker finds out what that means. */
    g_assert_cmpint(truncate(bs->filename, 8192), ==, 0);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 4096, buf,
                             32 * KiB), ==, -EIO);
    g_assert_true(fr.was_worker);
    fake_close(bs);
    leave_context(ctx);
}

static void test_memory_is_inline(void)
{
    AioContext *ctx;
    BlockDriverState *bs;
    char buf[4096] = "", back[4096] = "";
    FakeRequest fr;

    if (!fake_dir_in_memory()) {
        g_test_skip("no tmpfs at /dev/shm");
        return;
    }
    ctx = enter_context();
    bs = open_rw(fake_dir_in_memory(), "inline", 64 * KiB);
    memset(buf, 0x11, sizeof(buf));
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_WRITE, 0, 4096, buf,
                             sizeof(buf)), ==, 0);
    g_assert_true(fr.was_inline);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_READ, 0, 4096, back,
                             sizeof(back)), ==, 0);
    g_assert_true(fr.was_inline);
    g_assert_cmpmem(buf, sizeof(buf), back, sizeof(back));
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_FLUSH, 0, 0, NULL, 0),
                    ==, 0);
    g_assert_true(fr.was_inline);
    g_assert_cmpint(fake_run(bs, ctx, &fr, BDRV_REQ_WRITE, BDRV_REQ_FUA, 0,
                             buf, sizeof(buf)), ==, 0);
    g_assert_true(fr.was_inline);
    /* May take long: not in the loop's thread. */
    fake_submit(bs, ctx, &fr, BDRV_REQ_DISCARD, 0, 0, NULL, 4096);
    g_assert_cmpint(fake_wait(&fr), ==, 0);
    g_assert_true(fr.was_worker);
    fake_close(bs);
    leave_context(ctx);
}

static void test_part_of_vector(void)
{
    AioContext *ctx = enter_context();
    const char *dir = fake_dir_in_memory() ?: fake_dir_on_disk();
    BlockDriverState *bs = open_rw(dir, "part", 64 * KiB);
    char buf[3][1024];
    FakeRequest fr;

    for (size_t offset = 0; offset < 2048; offset += 512) {
        memset(buf, 0, sizeof(buf));
        qemu_iovec_init(&fr.qiov, 3);
        for (int i = 0; i < 3; i++) {
            qemu_iovec_add(&fr.qiov, buf[i], sizeof(buf[i]));
        }
        fr.req = (BdrvTrackedRequest){
            .type = BDRV_REQ_READ, .bytes = 1024, .qiov = &fr.qiov,
            .qiov_offset = offset, .ctx = ctx, .bs = bs,
        };
        {
            const struct iovec *iov;
            struct iovec one;
            int n = file_request_iov(&fr.req, &iov, &one);

            /* In one entry, or a worker's. */
            g_assert_cmpint(n, ==, offset % 1024 == 0 ? 1 : 0);
            if (n) {
                g_assert_true(iov->iov_base == (char *)buf + offset);
                g_assert_cmpint(iov->iov_len, ==, 1024);
            }
        }
        g_assert_cmpint(bs->drv->preadv(bs, 0, 1024, &fr.qiov, offset, 0), ==,
                        0);
        g_assert_true(fake_is_filled((char *)buf + offset, 0x5a, 1024));
        g_assert_true(fake_is_filled(buf, 0, offset));
        qemu_iovec_destroy(&fr.qiov);
    }
    fake_close(bs);
    leave_context(ctx);
}

/* ---- Options and opening ---- */

static void check_open_error(const char *filename, const char *options,
                             int flags, const char *expected)
{
    g_autoptr(Error) err = NULL;

    g_assert_null(fake_open(filename, options, flags, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
}

static void test_bad_options(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "options", 512);

    check_open_error(path, "{'aio':'native'}", 0,
                     "aio=native was specified, but it requires "
                     "cache.direct=on, which was not specified.");
    check_open_error(path, "{'pr-manager':'x'}", 0,
                     "No persistent reservation manager with id 'x'");
    check_open_error("", NULL, 0,
                     "The 'file' block driver requires a file name");
    check_open_error("/dev/fdset/9", NULL, 0,
                     "Could not open '/dev/fdset/9': No such file or "
                     "directory");
}

static void test_wrong_type(void)
{
    g_autofree char *fifo = g_build_filename(fake_dir_on_disk(), "fifo", NULL);
    g_autofree char *expected = NULL;

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    expected = g_strdup_printf("'file' driver requires '%s' to be a regular "
                               "file", fifo);
    check_open_error(fifo, NULL, 0, expected);
    check_open_error(fifo, NULL, BDRV_O_RDWR, expected);
    check_open_error("/dev/null", NULL, 0, "'file' driver requires "
                     "'/dev/null' to be a regular file");
    check_open_error("/", NULL, 0,
                     "'file' driver requires '/' to be a regular file");
}

static int open_as_nobody(const char *path)
{
    BlockDriverState *bs;

    /* Permissions do not stop root. */
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0) {
        return 77;
    }
    if (fake_open(path, NULL, BDRV_O_RDWR, NULL)) {
        return 1;
    }
    bs = fake_open(path, NULL, BDRV_O_RDWR | BDRV_O_AUTO_RDONLY, NULL);
    return !bs || !bs->read_only || (bs->open_flags & BDRV_O_RDWR) ? 2 : 0;
}

static void test_auto_read_only(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "ro", 512);
    int status;
    pid_t pid;

    g_assert_cmpint(chmod(path, 0444), ==, 0);
    g_assert_cmpint(chmod(fake_dir_on_disk(), 0755), ==, 0);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        _exit(open_as_nobody(path));
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        g_test_skip("may not become an ordinary user");
        return;
    }
    g_assert_cmpint(status, ==, 0);
}

static void test_by_descriptor(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "by-fd", 512);
    g_autofree char *set = NULL;
    BlockDriverState *bs;
    char buf[512];

    fdset_add_named("disk", open(path, O_RDONLY | O_CLOEXEC));
    bs = fake_open("fd:disk", NULL, 0, &error_abort);
    g_assert_cmpint(bs->total_bytes, ==, 512);
    g_assert_cmpint(fake_pread(bs, 0, buf, 512), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 512));
    fake_close(bs);
    g_assert_null(fake_open("fd:disk", NULL, BDRV_O_RDWR, NULL));

    set = g_strdup_printf("/dev/fdset/%" PRId64,
                          fdset_add(-1, open(path, O_RDWR | O_CLOEXEC), NULL));
    bs = fake_open(set, NULL, BDRV_O_RDWR, &error_abort);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, 0), ==, 0);
    fake_close(bs);
    fdset_clear();
}

static const char *engine_of(BlockDriverState *bs)
{
    g_autoptr(json_t) info = bs->drv->get_specific_info(bs, &error_abort);
    json_t *engine = json_object_get(json_object_get(info, "data"), "engine");

    return engine ? g_intern_string(json_string_value(engine)) : NULL;
}

static void test_engine_is_chosen(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "engine", 4096);
    BlockDriverState *bs;

    bs = fake_open(path, NULL, 0, &error_abort);
    g_assert_cmpstr(engine_of(bs), ==, uring_available() ? "io_uring" :
                    "threads");
    fake_close(bs);
    if (fake_dir_in_memory()) {
        g_autofree char *mem = fake_file(fake_dir_in_memory(), "engine", 512);

        bs = fake_open(mem, NULL, 0, &error_abort);
        g_assert_cmpstr(engine_of(bs), ==, "threads");
        fake_close(bs);
    }
    bs = fake_open(path, NULL, BDRV_O_NO_IO, &error_abort);
    g_assert_null(engine_of(bs));
    fake_close(bs);
    if (uring_available()) {
        bs = fake_open(path, "{'aio':'io_uring'}", 0, &error_abort);
        g_assert_cmpstr(engine_of(bs), ==, "io_uring");
        fake_close(bs);
    }
    if (fake_skip_without_direct(fake_dir_on_disk())) {
        return;
    }
    bs = fake_open(path, NULL, BDRV_O_NOCACHE, &error_abort);
    g_assert_cmpstr(engine_of(bs), ==, uring_available() ? "io_uring" :
                    laio_available() ? "native" : "threads");
    fake_close(bs);
    bs = fake_open(path, "{'aio':'threads'}", BDRV_O_NOCACHE, &error_abort);
    g_assert_cmpstr(engine_of(bs), ==, "threads");
    fake_close(bs);
}

static void test_reopen(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "reopen", 4096);
    g_autofree char *moved = g_strconcat(path, ".moved", NULL);
    BlockDriverState *bs = fake_open(path, NULL, BDRV_O_RDWR, &error_abort);
    char buf[512] = "";

    g_assert_true(fake_reopen(bs, 0, &error_abort));
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, 0), ==, -EBADF);
    /* Another file of this name is not what was opened. */
    g_assert_cmpint(rename(path, moved), ==, 0);
    g_free(fake_file(fake_dir_on_disk(), "reopen", 512));
    g_assert_true(fake_reopen(bs, BDRV_O_RDWR, &error_abort));
    g_assert_cmpint(bs->drv->getlength(bs), ==, 4096);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, 0), ==, 0);
    fake_close(bs);
}

/* ---- Length ---- */

static bool truncate_to(BlockDriverState *bs, int64_t length,
                        PreallocMode mode, Error **errp)
{
    return bs->drv->truncate(bs, length, true, mode, 0, errp);
}

static void test_truncate(void)
{
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "truncate", 4096);
    g_autoptr(Error) e1 = NULL, e2 = NULL;

    g_assert_true(truncate_to(bs, 1 * MiB, PREALLOC_MODE_OFF, &error_abort));
    g_assert_cmpint(bs->drv->getlength(bs), ==, 1 * MiB);
    g_assert_cmpint(bs->drv->get_allocated_file_size(bs), <=, 64 * KiB);
    g_assert_true(truncate_to(bs, 2 * MiB, PREALLOC_MODE_FALLOC,
                              &error_abort));
    g_assert_cmpint(bs->drv->get_allocated_file_size(bs), >=, 1 * MiB);
    g_assert_true(truncate_to(bs, 3 * MiB, PREALLOC_MODE_FULL, &error_abort));
    g_assert_cmpint(bs->drv->get_allocated_file_size(bs), >=, 2 * MiB);
    g_assert_cmpint(bs->drv->getlength(bs), ==, 3 * MiB);
    g_assert_true(truncate_to(bs, 512, PREALLOC_MODE_OFF, &error_abort));

    g_assert_false(truncate_to(bs, 0, PREALLOC_MODE_FULL, &e1));
    g_assert_cmpstr(error_get_pretty(e1), ==,
                    "Cannot use preallocation for shrinking files");
    g_assert_false(truncate_to(bs, 4096, PREALLOC_MODE_METADATA, &e2));
    g_assert_cmpstr(error_get_pretty(e2), ==,
                    "Unsupported preallocation mode: metadata");
    g_assert_cmpint(bs->drv->getlength(bs), ==, 512);
    fake_close(bs);
}

static void test_failed_preallocation_restores(void)
{
    static const Fault falloc[] = { { .err = ENOSPC } };
    static const Fault write[] = { { .at_most = 100 }, { .err = ENOSPC } };
    static const Fault sync[] = { { .at_most = SIZE_MAX }, { .err = EIO } };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "prealloc", 4096);
    g_autoptr(Error) e1 = NULL, e2 = NULL, e3 = NULL;

    faults_begin(falloc, 1);
    g_assert_false(truncate_to(bs, 65536, PREALLOC_MODE_FALLOC, &e1));
    faults_end();
    g_assert_cmpstr(error_get_pretty(e1), ==, "Could not preallocate new "
                    "data: No space left on device");
    faults_begin(write, 2);
    g_assert_false(truncate_to(bs, 65536, PREALLOC_MODE_FULL, &e2));
    faults_end();
    g_assert_cmpstr(error_get_pretty(e2), ==, "Could not write zeros for "
                    "preallocation: No space left on device");
    faults_begin(sync, 2);
    g_assert_false(truncate_to(bs, 65536, PREALLOC_MODE_FULL, &e3));
    faults_end();
    g_assert_cmpstr(error_get_pretty(e3), ==,
                    "Could not flush file to disk: Input/output error");
    g_assert_cmpint(bs->drv->getlength(bs), ==, 4096);
    /* Who knows whose data that sync lost. */
    g_assert_cmpint(bs->drv->flush(bs), ==, -EIO);
    fake_close(bs);
}

/* ---- Taking over from another host ---- */

static bool is_cached(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map = mmap(NULL, 64 * KiB, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char vec[16] = "";
    bool cached = false;

    g_assert_cmpint(mincore(map, 64 * KiB, vec), ==, 0);
    for (int i = 0; i < 16; i++) {
        cached |= vec[i] & 1;
    }
    munmap(map, 64 * KiB);
    close(fd);
    return cached;
}

static void test_activate(void)
{
    const char *dir = fake_dir_on_disk();
    g_autofree char *path = fake_file(dir, "activate", 64 * KiB);
    g_autoptr(Error) err = NULL;
    BlockDriverState *bs;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool in_memory;
    void *map;

    bs = fake_open(path, "{'drop-cache':false}", BDRV_O_RDWR, &error_abort);
    in_memory = fake_state(bs)->h.in_memory;
    g_assert_true(bs->drv->activate(bs, &error_abort));
    fake_close(bs);
    if (in_memory || !is_cached(path)) {
        g_test_skip("no page cache that could be dropped");
        close(fd);
        return;
    }
    bs = fake_open(path, "{'x-check-cache-dropped':true}", BDRV_O_RDWR,
                   &error_abort);
    g_assert_true(bs->drv->activate(bs, &error_abort));
    g_assert_false(is_cached(path));

    /* Somebody holds a page.  (Sanitizers make mlock() do nothing.) */
    map = mmap(NULL, 4 * KiB, PROT_READ, MAP_SHARED, fd, 0);
    g_assert_cmpint(syscall(SYS_mlock, map, 4 * KiB), ==, 0);
    g_assert_false(bs->drv->activate(bs, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "still in use"));
    munmap(map, 4 * KiB);
    close(fd);
    fake_close(bs);
}

static bool create(const char *path, const char *options, Error **errp)
{
    g_autoptr(json_t) o = options_from_json(options, &error_abort);

    return bdrv_file.create(NULL, path, o, errp);
}

static void test_create(void)
{
    g_autofree char *path = g_build_filename(fake_dir_on_disk(), "new", NULL);
    g_autofree char *nodir = g_build_filename(path, "x", NULL);
    g_autofree char *uri = g_strconcat("file:", path, NULL);
    g_autoptr(Error) e1 = NULL, e2 = NULL, e3 = NULL;
    struct stat st;

    g_assert_true(create(uri, "{'size':'700'}", &error_abort));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 1024);
    g_assert_true(create(path, "{'size':65536,'preallocation':'falloc',"
                         "'nocow':'on'}", &error_abort));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_blocks * 512, >=, 65536);

    g_assert_false(create(path, "{'size':512,'preallocation':'metadata'}",
                          &e1));
    g_assert_cmpstr(error_get_pretty(e1), ==,
                    "Unsupported preallocation mode: metadata");
    g_assert_false(create(path, "{'size':512,'extent_size_hint':'8G'}", &e2));
    g_assert_cmpstr(error_get_pretty(e2), ==,
                    "Extent size hint is too large");
    g_assert_false(create(nodir, "{'size':512}", &e3));
    g_assert_true(g_str_has_prefix(error_get_pretty(e3), "Could not create"));
}

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
    g_test_add_func("/file/read/goes-on-after-eintr-and-short",
                    test_read_goes_on);
    g_test_add_func("/file/write/goes-on-after-eintr-and-short",
                    test_write_goes_on);
    g_test_add_func("/file/rw/errors-come-through", test_errors_come_through);
    g_test_add_func("/file/read/vector-beyond-iov-max", test_long_vector);
    g_test_add_func("/file/read/partial-sector-is-zero-filled",
                    test_partial_sector_reads_as_zero);
    g_test_add_func("/file/read/grown-meanwhile-is-read-again",
                    test_grown_file);
    g_test_add_func("/file/read/shrunk-file-is-an-error",
                    test_shrunk_file_fails);
    g_test_add_func("/file/direct/bounces-misaligned-memory",
                    test_direct_bounce);
    g_test_add_func("/file/direct/tail-and-shrunk-file", test_direct_tail);
    g_test_add_func("/file/flush/failed-sync-sticks", test_failed_sync_sticks);
    g_test_add_func("/file/flush/overtaken-by-a-failure",
                    test_sync_overtaken_by_failure);
    g_test_add_func("/file/activate/drops-cache", test_activate);
    g_test_add_func("/file/flush/beside-one-that-fails",
                    test_sync_beside_failure);
    g_test_add_func("/file/flush/fua-beside-one-that-fails-fails",
                    test_fua_beside_failure);
    g_test_add_func("/file/flush/failed-fua-sticks-only-if-the-sync-failed",
                    test_failed_fua_sticks);
    g_test_add_func("/file/flush/failed-fua-on-o-direct", test_direct_fua);
    g_test_add_func("/file/zero/holes-show-on-disk", test_holes_on_disk);
    g_test_add_func("/file/zero/holes-show-in-memory", test_holes_in_memory);
    g_test_add_func("/file/status/tail-is-of-the-sector", test_status_of_tail);
    g_test_add_func("/file/status/shrunk-file-is-an-error",
                    test_status_of_shrunk_file);
    g_test_add_func("/file/status/grown-meanwhile-is-looked-at-again",
                    test_status_of_grown_file);
    g_test_add_func("/file/zero/past-the-end-extends", test_zero_extends);
    g_test_add_func("/file/zero/what-is-lacking-is-asked-once",
                    test_lack_is_remembered);
    g_test_add_func("/file/zero/errors-come-through",
                    test_zero_errors_come_through);
    g_test_add_func("/file/submit/cached-read-is-inline",
                    test_cached_read_is_inline);
    g_test_add_func("/file/submit/tmpfs-is-inline", test_memory_is_inline);
    g_test_add_func("/file/submit/part-of-a-vector", test_part_of_vector);
    g_test_add_func("/file/open/bad-options", test_bad_options);
    g_test_add_func("/file/open/wrong-type-is-refused-without-blocking",
                    test_wrong_type);
    g_test_add_func("/file/open/auto-read-only", test_auto_read_only);
    g_test_add_func("/file/open/by-descriptor", test_by_descriptor);
    g_test_add_func("/file/open/engine-is-chosen-and-shown",
                    test_engine_is_chosen);
    g_test_add_func("/file/reopen/is-of-the-same-inode", test_reopen);
    g_test_add_func("/file/truncate/modes", test_truncate);
    g_test_add_func("/file/truncate/failure-restores-the-length",
                    test_failed_preallocation_restores);
    g_test_add_func("/file/create/options", test_create);
    return fake_finish();
}
