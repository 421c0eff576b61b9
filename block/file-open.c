/*
 * Opening, reopening and closing files and host devices.
 *
 * A reopen opens the same inode a second time (by /proc/self/fd, so that a
 * file that was renamed or removed meanwhile is still the same one), gives the
 * new descriptor the locks that the old one has, and only when everything else
 * is certain to succeed drops the old one.  Locks are thus never given up in
 * between.
 *
 * Control thread; blocks.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/fdset.h"
#include "file-posix.h"
#include "qemu/cutils.h"

const char *const file_aio_names[] = {
    [FILE_AIO_THREADS] = "threads",
    [FILE_AIO_NATIVE] = "native",
    [FILE_AIO_IO_URING] = "io_uring",
    NULL,
};

const char *const file_engine_names[] = {
    [FILE_ENGINE_THREADS] = "threads",
    [FILE_ENGINE_NATIVE] = "native",
    [FILE_ENGINE_IO_URING] = "io_uring",
    NULL,
};

/* The options of the driver, as given. */
typedef struct FileOptions {
    char *filename;
    int aio;                    /* FileAio */
    OnOffAuto locking;
    bool drop_cache;
    bool check_cache_dropped;
    uint64_t max_batch;
} FileOptions;

static void file_options_clear(FileOptions *o)
{
    g_free(o->filename);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(FileOptions, file_options_clear)

bool file_parse_filename(const char *filename, json_t *options, Error **errp)
{
    strstart(filename, "file:", &filename);
    opt_set_str(options, "filename", filename);
    return true;
}

bool host_device_parse_filename(const char *filename, json_t *options,
                                Error **errp)
{
    strstart(filename, "host_device:", &filename);
    opt_set_str(options, "filename", filename);
    return true;
}

static bool take_options(json_t *options, FileOptions *o, Error **errp)
{
    g_autofree char *pr_manager = NULL;

    *o = (FileOptions){ .aio = FILE_AIO_AUTO, .drop_cache = true };
    o->filename = opt_take_str(options, "filename");
    pr_manager = opt_take_str(options, "pr-manager");
    if (!opt_take_enum(options, "aio", file_aio_names, &o->aio, errp) ||
        !opt_take_on_off_auto(options, "locking", &o->locking, errp) ||
        !opt_take_range(options, "aio-max-batch", 0, UINT32_MAX,
                        &o->max_batch, errp)) {
        return false;
    }
    if (!opt_take_bool(options, "drop-cache", &o->drop_cache, errp) ||
        !opt_take_bool(options, "x-check-cache-dropped",
                       &o->check_cache_dropped, errp)) {
        return false;
    }
    if (pr_manager) {
        error_setg(errp, "No persistent reservation manager with id '%s'",
                   pr_manager);
        return false;
    }
    return true;
}

/* O_… of BDRV_O_…. */
static int system_open_flags(int flags)
{
    int o = O_CLOEXEC | ((flags & BDRV_O_RDWR) ? O_RDWR : O_RDONLY);

    return (flags & BDRV_O_NOCACHE) ? o | O_DIRECT : o;
}

static bool choose_engine(FileState *s, FileHandle *h, Error **errp)
{
    h->engine = FILE_ENGINE_THREADS;
    if (s->aio == FILE_AIO_NATIVE) {
        if (!h->direct) {
            error_setg(errp, "aio=native was specified, but it requires "
                       "cache.direct=on, which was not specified.");
            return false;
        }
        if (!laio_available()) {
            error_setg(errp, "aio=native was specified, but the system does "
                       "not support Linux AIO");
            return false;
        }
        h->engine = FILE_ENGINE_NATIVE;
    } else if (s->aio == FILE_AIO_IO_URING) {
        if (!uring_available()) {
            error_setg(errp, "aio=io_uring was specified, but the system does "
                       "not support or allow it");
            return false;
        }
        h->engine = FILE_ENGINE_IO_URING;
    } else if (s->aio == FILE_AIO_AUTO && s->has_io && !h->in_memory &&
               (!h->is_device || h->is_blkdev)) {
        /*
         * What never waits for a device is fastest in the calling thread.
         * For the rest, io_uring takes a fraction of a worker's time: also for
         * buffered reads that miss the page cache, and for buffered writes.
         */
        if (uring_available()) {
            h->engine = FILE_ENGINE_IO_URING;
        } else if (h->direct && laio_available()) {
            h->engine = FILE_ENGINE_NATIVE;
        }
    }
    /* O_DIRECT waits for its device even if asked not to wait. */
    h->inline_io = s->has_io && (!h->is_device || h->is_blkdev) &&
                   (!h->direct || (h->in_memory &&
                                   h->engine == FILE_ENGINE_THREADS));
    return true;
}

/*
 * io_uring does in the submitting thread what it knows not to wait there.  It
 * does not know that of tmpfs, and would hand each request to a kernel thread,
 * unless O_NONBLOCK tells it.  Reads and writes of regular files are otherwise
 * as they were; devices may heed the flag, and are to be without.  So are the
 * files of other file systems that do not know: there, a request might wait,
 * and is better off in a kernel thread than in the guest's (which is also why
 * aio=auto does not turn to linux-aio there).
 */
static void set_nonblock(const FileHandle *h)
{
    bool want = h->in_memory && h->engine == FILE_ENGINE_IO_URING;
    int flags = fcntl(h->fd, F_GETFL);

    if (flags >= 0 && want != !!(flags & O_NONBLOCK)) {
        fcntl(h->fd, F_SETFL, flags ^ O_NONBLOCK);
    }
}

/* Everything about h->fd, which is open. */
static bool setup_handle(FileState *s, FileHandle *h, Error **errp)
{
    static uint64_t last_serial;

    h->serial = qatomic_fetch_inc(&last_serial) + 1;
    if (!file_probe_handle(h, errp) || !choose_engine(s, h, errp)) {
        return false;
    }
    set_nonblock(h);
    return true;
}

static bool check_type(BlockDriverState *bs, const char *filename, int fd,
                       bool device, Error **errp)
{
    struct stat st;

    if (file_posix_ops->fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not stat file");
        return false;
    }
    if (!device && !S_ISREG(st.st_mode)) {
        error_setg(errp, "'%s' driver requires '%s' to be a regular file",
                   bs->drv->format_name, filename);
        return false;
    }
    if (device && !S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode)) {
        error_setg(errp, "'%s' driver requires '%s' to be either a character "
                   "or block device", bs->drv->format_name, filename);
        return false;
    }
    return true;
}

static int open_filename(const char *filename, int o_flags, Error **errp)
{
    int fd, err;

    if (fdset_is_reference(filename)) {
        fd = fdset_open(filename, o_flags, errp);
        if (fd >= 0 && (o_flags & O_DIRECT) &&
            fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT) < 0) {
            err = errno;
            error_setg_file_open(errp, err, filename);
            close(fd);
            errno = err;
            return -1;
        }
        return fd;
    }
    /* O_NONBLOCK: a FIFO would make the open wait for its other end. */
    fd = RETRY_ON_EINTR(open(filename, o_flags | O_NONBLOCK));
    if (fd >= 0) {
        return fd;
    }
    err = errno;
    if (err == EINVAL && (o_flags & O_DIRECT)) {
        error_setg(errp, "Could not open '%s': filesystem does not support "
                   "O_DIRECT", filename);
    } else {
        error_setg_file_open(errp, err, filename);
    }
    errno = err;
    return -1;
}

/*
 * Open @filename as @flags ask; with BDRV_O_AUTO_RDONLY, read-only when that
 * is all that is allowed (*@o_flags tells).  -1 with @errp.
 */
static int open_as_allowed(const char *filename, int flags, int *o_flags,
                           Error **errp)
{
    bool may_fall_back = (flags & BDRV_O_AUTO_RDONLY) &&
                         (flags & BDRV_O_RDWR);
    g_autoptr(Error) local = NULL;
    int fd;

    *o_flags = system_open_flags(flags);
    fd = open_filename(filename, *o_flags, &local);
    if (fd < 0 && may_fall_back &&
        (errno == EACCES || errno == EROFS || errno == EPERM)) {
        *o_flags = system_open_flags(flags & ~BDRV_O_RDWR);
        fd = open_filename(filename, *o_flags, NULL);
    }
    if (fd < 0) {
        error_propagate(errp, g_steal_pointer(&local));
    }
    return fd;
}

static bool choose_locking(FileState *s, OnOffAuto locking, Error **errp)
{
    s->use_locks = locking != ON_OFF_AUTO_OFF && file_locks_available();
    if (locking == ON_OFF_AUTO_ON && !s->use_locks) {
        error_setg(errp, "locking=on was specified, but the system does not "
                   "support open file description locks");
        return false;
    }
    return true;
}

/* All but the options: s->h from s->filename. */
static bool open_handle(BlockDriverState *bs, OnOffAuto locking, int flags,
                        bool device, Error **errp)
{
    FileState *s = bs->opaque;

    if (s->aio == FILE_AIO_NATIVE && !(flags & BDRV_O_NOCACHE)) {
        /* Before the file is touched: the message is about the options. */
        return choose_engine(s, &s->h, errp);
    }
    if (!choose_locking(s, locking, errp)) {
        return false;
    }
    s->h.fd = open_as_allowed(s->filename, flags, &s->h.open_flags, errp);
    if (s->h.fd < 0) {
        return false;
    }
    if (!check_type(bs, s->filename, s->h.fd, device, errp) ||
        !setup_handle(s, &s->h, errp)) {
        close(s->h.fd);
        return false;
    }
    if ((flags & BDRV_O_RDWR) && (s->h.open_flags & O_ACCMODE) == O_RDONLY) {
        bs->read_only = true;
        bs->open_flags &= ~BDRV_O_RDWR;
    }
    return true;
}

static bool open_common(BlockDriverState *bs, json_t *options, int flags,
                        bool device, Error **errp)
{
    FileState *s = bs->opaque;
    g_auto(FileOptions) o = {};

    if (!take_options(options, &o, errp)) {
        return false;
    }
    if (!o.filename || !*o.filename) {
        error_setg(errp, "The '%s' block driver requires a file name",
                   bs->drv->format_name);
        return false;
    }
    s->filename = g_steal_pointer(&o.filename);
    s->aio = o.aio;
    s->drop_cache = o.drop_cache;
    s->check_cache_dropped = o.check_cache_dropped;
    s->max_batch = o.max_batch;
    s->has_io = !(flags & BDRV_O_NO_IO);
    s->shared = BLK_PERM_ALL;
    file_sync_init(s);
    if (open_handle(bs, o.locking, flags, device, errp)) {
        return true;
    }
    file_sync_destroy(s);
    g_free(g_steal_pointer(&s->filename));
    return false;
}

bool file_open(BlockDriverState *bs, json_t *options, int flags, Error **errp)
{
    return open_common(bs, options, flags, false, errp);
}

bool host_device_open(BlockDriverState *bs, json_t *options, int flags,
                      Error **errp)
{
    return open_common(bs, options, flags, true, errp);
}

static int close_handle(FileHandle *h)
{
    if (h->engine == FILE_ENGINE_IO_URING) {
        uring_forget_file(h);
    }
    file_locks_drop(h->fd);
    return close(h->fd) < 0 ? -errno : 0;
}

void file_close(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    int ret = close_handle(&s->h);

    if (ret < 0) {
        error_report("Closing '%s': %s", s->filename, g_strerror(-ret));
    }
    file_sync_destroy(s);
    g_free(g_steal_pointer(&s->filename));
    file_behind_free(g_steal_pointer(&s->behind));
}

/* ---- Reopen ---- */

static bool reopen_check_unchanged(const FileState *s, const FileOptions *o,
                                   Error **errp)
{
    const char *changed =
        o->filename && !g_str_equal(o->filename, s->filename) ? "filename" :
        o->aio != FILE_AIO_AUTO && o->aio != (int)s->aio ? "aio" :
        o->locking != ON_OFF_AUTO_AUTO &&
        (o->locking == ON_OFF_AUTO_ON) != s->use_locks ? "locking" :
        o->max_batch && o->max_batch != s->max_batch ? "aio-max-batch" : NULL;

    if (changed) {
        error_setg(errp, "Cannot change the option '%s'", changed);
        return false;
    }
    return true;
}

static bool is_same_file(int fd1, int fd2)
{
    struct stat a, b;

    return fstat(fd1, &a) == 0 && fstat(fd2, &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino &&
           a.st_rdev == b.st_rdev;
}

/* Another descriptor of what @old is open on, or -1 with @errp. */
static int open_again(int old, const char *filename, int o_flags, Error **errp)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", old);
    int fd = -1;

    if (!fdset_is_reference(filename)) {
        fd = RETRY_ON_EINTR(open(link, o_flags));
    }
    if (fd < 0) {
        fd = open_filename(filename, o_flags, errp);
        if (fd >= 0 && !is_same_file(old, fd)) {
            error_setg(errp, "'%s' is not the file that was opened before",
                       filename);
            close(fd);
            fd = -1;
        }
    }
    return fd;
}

/*
 * One of two descriptors was given up.  If both are of one open file
 * description (of an fdset), their locks were the same, and are gone.
 */
static void relock(FileState *s)
{
    Error *err = NULL;

    if (fdset_is_reference(s->filename) &&
        !file_locks_copy(s, s->h.fd, &err)) {
        warn_report_err(err);
    }
}

bool file_reopen_prepare(BlockDriverState *bs, json_t *options, int flags,
                         void **state, Error **errp)
{
    FileState *s = bs->opaque;
    g_auto(FileOptions) o = {};
    g_autofree FileHandle *h = g_new0(FileHandle, 1);

    if (!take_options(options, &o, errp) ||
        !reopen_check_unchanged(s, &o, errp)) {
        return false;
    }
    h->open_flags = system_open_flags(flags);
    h->fd = open_again(s->h.fd, s->filename, h->open_flags, errp);
    if (h->fd < 0) {
        return false;
    }
    if (!setup_handle(s, h, errp) ||
        !file_locks_copy(s, h->fd, errp)) {
        close_handle(h);
        relock(s);
        return false;
    }
    s->reopen = h;
    *state = g_steal_pointer(&h);
    return true;
}

void file_reopen_commit(BlockDriverState *bs, void *state)
{
    FileState *s = bs->opaque;
    FileHandle old = s->h;
    int ret;

    s->h = *s->reopen;
    g_free(g_steal_pointer(&s->reopen));
    qatomic_set(&s->missing, 0);
    ret = close_handle(&old);
    relock(s);
    if (ret < 0) {
        /* A network file system says here what it could not write. */
        file_latch_sync_error(s, ret);
    }
}

void file_reopen_abort(BlockDriverState *bs, void *state)
{
    FileState *s = bs->opaque;

    close_handle(s->reopen);
    g_free(g_steal_pointer(&s->reopen));
    relock(s);
}
