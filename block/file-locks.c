/*
 * Locks on the host, so that no two programs write one image.
 *
 * QEMU's convention, on bytes of the file that no data is at stake for (locks
 * are advisory and know nothing of contents): for permission number n of
 * BLK_PERM_*, byte 100 + n says "I use it", byte 200 + n "I do not share it".
 * All are read locks, so that nobody is kept from saying so; whether somebody
 * else's word forbids ours is asked with F_OFD_GETLK *after* giving ours.  Two
 * that come at the same moment may thus both be refused, never both let in.
 *
 * The locks belong to the open file description (OFD): closing some other
 * descriptor of the same file does not drop them, as it would POSIX locks.
 *
 * Control thread only; lock calls on a network file system may block.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/sysmacros.h>
#include "file-posix.h"
#include "qemu/trace.h"

TRACE_EVENT(file_lock_conflict);
TRACE_EVENT(file_set_perm);

#define LOCK_PERM_BASE   100
#define LOCK_SHARED_BASE 200
#define LOCK_PERM_COUNT  4

static const char *const lock_perm_names[LOCK_PERM_COUNT] = {
    "consistent read", "write", "write unchanged", "resize",
};

static int lock_fcntl(int fd, int cmd, int type, off_t start,
                      struct flock *fl)
{
    *fl = (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1,
    };
    return RETRY_ON_EINTR(fcntl(fd, cmd, fl)) < 0 ? -errno : 0;
}

static int lock_byte(int fd, off_t byte)
{
    struct flock fl;

    return lock_fcntl(fd, F_OFD_SETLK, F_RDLCK, byte, &fl);
}

static void unlock_byte(int fd, off_t byte)
{
    struct flock fl;

    lock_fcntl(fd, F_OFD_SETLK, F_UNLCK, byte, &fl);
}

/* 1: somebody else holds it, 0: nobody does, or -errno. */
static int test_byte(int fd, off_t byte)
{
    struct flock fl;
    int ret = lock_fcntl(fd, F_OFD_GETLK, F_WRLCK, byte, &fl);

    return ret < 0 ? ret : fl.l_type != F_UNLCK;
}

bool file_locks_available(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct flock fl;
    bool ok;

    if (fd < 0) {
        return false;
    }
    ok = lock_fcntl(fd, F_OFD_GETLK, F_WRLCK, 0, &fl) == 0;
    close(fd);
    return ok;
}

/*
 * Does the text of /proc/PID/fdinfo/FD name a lock on @byte of file @st?  Lines
 * are "lock: 1: OFDLCK ADVISORY READ -1 08:02:1234 100 101".
 */
static bool fdinfo_has_lock(const char *text, const struct stat *st, off_t byte)
{
    const char *line = text;

    while ((line = strstr(line, "lock:"))) {
        unsigned maj, min;
        uint64_t ino;
        int64_t first, last;
        char end[24];

        if (sscanf(line, "lock: %*s OFDLCK %*s %*s %*d %x:%x:%" SCNu64
                   " %" SCNd64 " %23s", &maj, &min, &ino, &first, end) == 5) {
            last = g_str_equal(end, "EOF") ? INT64_MAX
                                           : g_ascii_strtoll(end, NULL, 10);
            if (makedev(maj, min) == st->st_dev && ino == st->st_ino &&
                first <= byte && byte <= last) {
                return true;
            }
        }
        line += strlen("lock:");
    }
    return false;
}

/* Does a process (its directory in /proc) hold @byte? */
static bool process_has_lock(const char *pid, const struct stat *st,
                             off_t byte)
{
    g_autofree char *dir = g_strdup_printf("/proc/%s/fdinfo", pid);
    GDir *d = g_dir_open(dir, 0, NULL);
    const char *name;
    bool found = false;

    while (d && !found && (name = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        g_autofree char *text = NULL;

        found = g_file_get_contents(path, &text, NULL, NULL) &&
                fdinfo_has_lock(text, st, byte);
    }
    if (d) {
        g_dir_close(d);
    }
    return found;
}

/*
 * The process that holds @byte, as text, or NULL if we may not see it.  An OFD
 * lock has no process of its own (F_OFD_GETLK and /proc/locks say -1), so look
 * through the descriptors of all that we may look into.  Error path only.
 */
static char *lock_holder(int fd, off_t byte)
{
    GDir *proc = g_dir_open("/proc", 0, NULL);
    char *holder = NULL;
    const char *pid;
    struct stat st;

    if (proc && fstat(fd, &st) == 0) {
        while (!holder && (pid = g_dir_read_name(proc))) {
            g_autofree char *path = NULL, *comm = NULL;

            if (!g_ascii_isdigit(pid[0]) ||
                !process_has_lock(pid, &st, byte)) {
                continue;
            }
            path = g_build_filename("/proc", pid, "comm", NULL);
            if (g_file_get_contents(path, &comm, NULL, NULL)) {
                holder = g_strdup_printf("%s (%s)", pid, g_strchomp(comm));
            } else {
                holder = g_strdup(pid);
            }
        }
    }
    if (proc) {
        g_dir_close(proc);
    }
    return holder;
}

static void lock_conflict(int fd, off_t byte, const char *filename,
                          const char *what, int perm, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *holder = lock_holder(fd, byte);

    trace(file_lock_conflict, "file '%s' byte %d holder '%s'", filename,
          (int)byte, holder ?: "");
    error_setg(errp, "Failed to get %s\"%s\" lock", what,
               lock_perm_names[perm]);
    error_append_hint(errp, "Is another process using the image [%s]?\n",
                      filename);
    if (holder) {
        error_append_hint(errp, "The lock is held by process %s.\n", holder);
    }
}

/* Lock those bytes from @base up that are in @want and not in @have. */
static bool lock_bytes(int fd, off_t base, uint64_t want, uint64_t have,
                       Error **errp)
{
    for (int n = 0; n < LOCK_PERM_COUNT; n++) {
        if (want & ~have & (UINT64_C(1) << n)) {
            int ret = lock_byte(fd, base + n);

            if (ret < 0) {
                error_setg_errno(errp, -ret, "Failed to lock byte %d",
                                 (int)(base + n));
                return false;
            }
        }
    }
    return true;
}

static void unlock_bytes(int fd, off_t base, uint64_t which)
{
    for (int n = 0; n < LOCK_PERM_COUNT; n++) {
        if (which & (UINT64_C(1) << n)) {
            unlock_byte(fd, base + n);
        }
    }
}

/* Is @which free of others' locks at @base? */
static bool test_bytes(int fd, off_t base, uint64_t which,
                       const char *filename, const char *what, Error **errp)
{
    for (int n = 0; n < LOCK_PERM_COUNT; n++) {
        int ret;

        if (!(which & (UINT64_C(1) << n))) {
            continue;
        }
        ret = test_byte(fd, base + n);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Failed to check byte %d",
                             (int)(base + n));
            return false;
        }
        if (ret) {
            lock_conflict(fd, base + n, filename, what, n, errp);
            return false;
        }
    }
    return true;
}

static bool locks_test(int fd, const char *filename, uint64_t perm,
                       uint64_t unshared, Error **errp)
{
    return test_bytes(fd, LOCK_SHARED_BASE, perm, filename, "", errp) &&
           test_bytes(fd, LOCK_PERM_BASE, unshared, filename, "shared ", errp);
}

bool file_locks_take(int fd, const char *filename, uint64_t perm,
                     uint64_t shared, Error **errp)
{
    uint64_t unshared = BLK_PERM_ALL & ~shared;

    return lock_bytes(fd, LOCK_PERM_BASE, perm, 0, errp) &&
           lock_bytes(fd, LOCK_SHARED_BASE, unshared, 0, errp) &&
           locks_test(fd, filename, perm, unshared, errp);
}

void file_locks_drop(int fd)
{
    unlock_bytes(fd, LOCK_PERM_BASE, BLK_PERM_ALL);
    unlock_bytes(fd, LOCK_SHARED_BASE, BLK_PERM_ALL);
}

bool file_locks_copy(FileState *s, int fd, Error **errp)
{
    return lock_bytes(fd, LOCK_PERM_BASE, s->locked_perm, 0, errp) &&
           lock_bytes(fd, LOCK_SHARED_BASE, s->locked_unshared, 0, errp);
}

/* Give up what is held beyond @perm and @unshared. */
static void locks_reduce(FileState *s, uint64_t perm, uint64_t unshared)
{
    unlock_bytes(s->h.fd, LOCK_PERM_BASE, s->locked_perm & ~perm);
    unlock_bytes(s->h.fd, LOCK_SHARED_BASE, s->locked_unshared & ~unshared);
    if (s->reopen) {
        unlock_bytes(s->reopen->fd, LOCK_PERM_BASE, s->locked_perm & ~perm);
        unlock_bytes(s->reopen->fd, LOCK_SHARED_BASE,
                     s->locked_unshared & ~unshared);
    }
    s->locked_perm &= perm;
    s->locked_unshared &= unshared;
}

/*
 * A prepared reopen holds the same locks by a descriptor of its own, which to
 * the kernel is somebody else.  Take those off while asking; the old ones hold
 * the place meanwhile.
 */
static bool locks_test_alone(BlockDriverState *bs, uint64_t perm,
                             uint64_t unshared, Error **errp)
{
    FileState *s = bs->opaque;
    bool ok;

    if (s->reopen) {
        file_locks_drop(s->reopen->fd);
    }
    ok = locks_test(s->h.fd, s->filename, perm, unshared, errp);
    if (s->reopen && !file_locks_copy(s, s->reopen->fd, ok ? errp : NULL)) {
        ok = false;
    }
    return ok;
}

bool file_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                     Error **errp)
{
    FileState *s = bs->opaque;
    uint64_t unshared = BLK_PERM_ALL & ~shared;
    uint64_t old_perm = s->locked_perm, old_unshared = s->locked_unshared;

    if (!s->use_locks) {
        return true;
    }
    perm &= BLK_PERM_ALL;
    s->locked_perm |= perm;
    s->locked_unshared |= unshared;
    if (lock_bytes(s->h.fd, LOCK_PERM_BASE, perm, old_perm, errp) &&
        lock_bytes(s->h.fd, LOCK_SHARED_BASE, unshared, old_unshared, errp) &&
        locks_test_alone(bs, perm, unshared, errp)) {
        return true;
    }
    locks_reduce(s, old_perm, old_unshared);
    return false;
}

void file_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    FileState *s = bs->opaque;

    s->perm = perm & BLK_PERM_ALL;
    s->shared = shared & BLK_PERM_ALL;
    trace(file_set_perm, "file '%s' perm %#x shared %#x", s->filename,
          (unsigned)s->perm, (unsigned)s->shared);
    if (s->use_locks) {
        locks_reduce(s, s->perm, BLK_PERM_ALL & ~s->shared);
    }
}

void file_abort_perm_update(BlockDriverState *bs)
{
    FileState *s = bs->opaque;

    if (s->use_locks) {
        locks_reduce(s, s->perm, BLK_PERM_ALL & ~s->shared);
    }
}
