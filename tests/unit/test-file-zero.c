/*
 * Tests of the file driver: zeroes, discard, block status.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "file-faults.h"

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

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
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
    return fake_finish();
}
