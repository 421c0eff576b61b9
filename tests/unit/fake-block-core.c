/*
 * See fake-block-core.h.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include "fake-block-core.h"

const char *const PreallocMode_names[] = {
    "off", "metadata", "falloc", "full", NULL,
};

/* Nothing here takes as long as this, on the slowest machine. */
#define RUN_SECONDS 100

/* ---- What drivers call ---- */

static void fake_completed(AioWork *work)
{
    BdrvTrackedRequest *req = container_of(work, BdrvTrackedRequest,
                                           completion);

    req->cb(req);
}

void bdrv_request_complete(BdrvTrackedRequest *req, int ret)
{
    g_assert_cmpint(req->state, !=, BDRV_REQ_STATE_COMPLETED);
    req->state = BDRV_REQ_STATE_COMPLETED;
    req->ret = ret;
    req->completion.fn = fake_completed;
    aio_schedule(req->ctx, &req->completion);
}

void bdrv_request_is_inline(BdrvTrackedRequest *req)
{
    container_of(req, FakeRequest, req)->was_inline = true;
}

/* The engine's own counter is what its tests look at. */
void bdrv_request_is_registered(BdrvTrackedRequest *req)
{
}

static int fake_run_blocking(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = req->bs;

    switch (req->type) {
    case BDRV_REQ_READ:
        return bs->drv->preadv(bs, req->map_offset, req->bytes, req->qiov,
                               req->qiov_offset, req->flags);
    case BDRV_REQ_WRITE:
        return bs->drv->pwritev(bs, req->map_offset, req->bytes, req->qiov,
                                req->qiov_offset, req->flags);
    case BDRV_REQ_WRITE_ZEROES:
        return bs->drv->pwrite_zeroes(bs, req->map_offset, req->bytes,
                                      req->flags);
    case BDRV_REQ_DISCARD:
        return bs->drv->pdiscard(bs, req->map_offset, req->bytes);
    default:
        return bs->drv->flush(bs);
    }
}

static void fake_work_run(ThreadPoolItem *item)
{
    BdrvTrackedRequest *req = container_of(item, BdrvTrackedRequest, work);

    req->ret = fake_run_blocking(req);
}

static void fake_work_done(ThreadPoolItem *item)
{
    BdrvTrackedRequest *req = container_of(item, BdrvTrackedRequest, work);

    bdrv_request_complete(req, req->ret);
}

void bdrv_request_to_worker(BdrvTrackedRequest *req)
{
    g_assert_true(aio_context_current() == req->ctx);
    container_of(req, FakeRequest, req)->was_worker = true;
    req->work.run = fake_work_run;
    req->work.done = fake_work_done;
    req->work.home = req->ctx;
    thread_pool_submit(aio_get_thread_pool(req->ctx), &req->work);
}

/* ---- Nodes ---- */

BlockDriverState *fake_open(const char *filename, const char *options,
                            int flags, Error **errp)
{
    BlockDriverState *bs = g_new0(BlockDriverState, 1);
    g_autoptr(json_t) o = options ? options_from_json(options, &error_abort)
                                  : json_object();

    opt_set_str(o, "filename", filename);
    bs->drv = &bdrv_file;
    bs->opaque = g_malloc0(bs->drv->instance_size);
    bs->open_flags = flags;
    bs->read_only = !(flags & BDRV_O_RDWR);
    bs->filename = g_strdup(filename);
    if (!bs->drv->open(bs, o, flags, errp)) {
        g_free(bs->opaque);
        g_free(bs->filename);
        g_free(bs);
        return NULL;
    }
    g_assert_null(opt_first_unused(o));
    bs->total_bytes = bs->drv->getlength(bs);
    bs->drv->refresh_limits(bs);
    return bs;
}

void fake_close(BlockDriverState *bs)
{
    bs->drv->close(bs);
    g_free(bs->opaque);
    g_free(bs->filename);
    g_free(bs);
}

bool fake_reopen(BlockDriverState *bs, int flags, Error **errp)
{
    g_autoptr(json_t) options = json_object();
    void *state = NULL;

    if (!bs->drv->reopen_prepare(bs, options, flags, &state, errp)) {
        return false;
    }
    bs->drv->reopen_commit(bs, state);
    bs->drv->refresh_limits(bs);
    return true;
}

/* ---- Requests ---- */

static void fake_done(BdrvTrackedRequest *req)
{
    container_of(req, FakeRequest, req)->done = true;
}

void fake_submit_qiov(BlockDriverState *bs, AioContext *ctx, FakeRequest *fr,
                      BdrvRequestType type, int flags, int64_t offset)
{
    BdrvTrackedRequest *req = &fr->req;

    *req = (BdrvTrackedRequest){
        .type = type, .flags = flags, .offset = offset,
        .bytes = fr->qiov.size, .qiov = &fr->qiov, .cb = fake_done,
        .state = BDRV_REQ_STATE_SUBMITTED, .ctx = ctx, .bs = bs,
        .map_offset = offset,
    };
    fr->done = fr->was_inline = fr->was_worker = false;
    if (!bs->drv->submit(bs, req)) {
        bdrv_request_to_worker(req);
    }
    /* Never from inside. */
    g_assert_false(fr->done);
}

void fake_submit(BlockDriverState *bs, AioContext *ctx, FakeRequest *fr,
                 BdrvRequestType type, int flags, int64_t offset, void *buf,
                 int64_t bytes)
{
    qemu_iovec_init_buf(&fr->qiov, buf, bytes);
    fake_submit_qiov(bs, ctx, fr, type, flags, offset);
}

int fake_wait(FakeRequest *fr)
{
    while (!fr->done) {
        aio_poll(fr->req.ctx, true);
    }
    return fr->req.ret;
}

int fake_run(BlockDriverState *bs, AioContext *ctx, FakeRequest *fr,
             BdrvRequestType type, int flags, int64_t offset, void *buf,
             int64_t bytes)
{
    fake_submit(bs, ctx, fr, type, flags, offset, buf, bytes);
    return fake_wait(fr);
}

int fake_pread(BlockDriverState *bs, int64_t offset, void *buf, int64_t bytes)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);

    return bs->drv->preadv(bs, offset, bytes, &qiov, 0, 0);
}

int fake_pwrite(BlockDriverState *bs, int64_t offset, const void *buf,
                int64_t bytes, int flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);

    return bs->drv->pwritev(bs, offset, bytes, &qiov, 0, flags);
}

/* ---- Files and memory ---- */

static char *dir_on_disk, *dir_in_memory;

static bool is_in_memory(const char *path)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* Many have /tmp in memory. */
static char *make_dir(void)
{
    if (is_in_memory(g_get_tmp_dir()) && access("/var/tmp", W_OK) == 0 &&
        !is_in_memory("/var/tmp")) {
        return g_mkdtemp(g_strdup("/var/tmp/file-test-XXXXXX"));
    }
    return g_dir_make_tmp("file-test-XXXXXX", NULL);
}

const char *fake_dir_on_disk(void)
{
    if (!dir_on_disk) {
        dir_on_disk = make_dir();
        g_assert_nonnull(dir_on_disk);
    }
    return dir_on_disk;
}

bool fake_skip_without_disk(void)
{
    if (is_in_memory(fake_dir_on_disk())) {
        g_test_skip("the temporary directory and /var/tmp are in memory");
        return true;
    }
    return false;
}

const char *fake_dir_in_memory(void)
{
    if (!dir_in_memory && is_in_memory("/dev/shm") &&
        access("/dev/shm", W_OK) == 0) {
        dir_in_memory = g_mkdtemp(g_strdup("/dev/shm/file-test-XXXXXX"));
    }
    return dir_in_memory;
}

static void remove_dir(char *dir)
{
    GDir *d = dir ? g_dir_open(dir, 0, NULL) : NULL;
    const char *name;

    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);

        g_remove(path);
    }
    if (d) {
        g_dir_close(d);
        g_rmdir(dir);
    }
    g_free(dir);
}

static char *make_file(const char *dir, const char *name, int64_t size,
                       bool uncached)
{
    char *path = g_build_filename(dir, name, NULL);
    g_autofree char *data = g_malloc(MAX(size, 1));
    int fd;

    memset(data, 0x5a, size);
    g_assert_true(g_file_set_contents(path, data, size, NULL));
    /* O_DIRECT would have to wait for what is dirty in the page cache. */
    fd = open(path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(fsync(fd), ==, 0);
    posix_fadvise(fd, 0, 0, uncached ? POSIX_FADV_DONTNEED
                                     : POSIX_FADV_NORMAL);
    close(fd);
    return path;
}

char *fake_file(const char *dir, const char *name, int64_t size)
{
    return make_file(dir, name, size, false);
}

char *fake_file_uncached(const char *dir, const char *name, int64_t size)
{
    return make_file(dir, name, size, true);
}

void *fake_buf(size_t size, int pattern)
{
    void *buf = NULL;

    g_assert_cmpint(posix_memalign(&buf, 4096, size), ==, 0);
    memset(buf, pattern, size);
    return buf;
}

bool fake_is_filled(const void *buf, int pattern, size_t size)
{
    const unsigned char *p = buf;

    for (size_t i = 0; i < size; i++) {
        if (p[i] != (unsigned char)pattern) {
            return false;
        }
    }
    return true;
}

bool fake_skip_without_direct(const char *dir)
{
    g_autofree char *path = fake_file(dir, "direct-probe", 4096);
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

    if (fd < 0) {
        g_test_skip("no O_DIRECT on this file system");
        return true;
    }
    close(fd);
    return false;
}

void fake_init(int *argc, char ***argv)
{
    g_test_init(argc, argv, NULL);
    alarm(RUN_SECONDS);
}

int fake_finish(void)
{
    int ret = g_test_run();

    remove_dir(g_steal_pointer(&dir_on_disk));
    remove_dir(g_steal_pointer(&dir_in_memory));
    return ret;
}
