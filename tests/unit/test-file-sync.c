/*
 * Tests of the file driver: what is on stable storage, and syncs that fail.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "file-faults.h"

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

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
    g_test_add_func("/file/flush/failed-sync-sticks", test_failed_sync_sticks);
    g_test_add_func("/file/flush/overtaken-by-a-failure",
                    test_sync_overtaken_by_failure);
    g_test_add_func("/file/flush/beside-one-that-fails",
                    test_sync_beside_failure);
    g_test_add_func("/file/flush/fua-beside-one-that-fails-fails",
                    test_fua_beside_failure);
    g_test_add_func("/file/flush/failed-fua-sticks-only-if-the-sync-failed",
                    test_failed_fua_sticks);
    g_test_add_func("/file/flush/failed-fua-on-o-direct", test_direct_fua);
    return fake_finish();
}
