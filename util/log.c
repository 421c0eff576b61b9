/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log records.
 *
 * A record is one write(2), so the kernel keeps records apart, between threads
 * and between processes, without a lock of ours.  The first log file gets a
 * descriptor number, which is kept: another destination is put behind the same
 * number by dup2, which is atomic.  So a thread that is just about to write
 * never finds the number closed, or used by something else.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/log.h"

#define STDERR 2

/* Where to write: stderr's number, or ours for ever after.  Atomic. */
static int log_fd = STDERR;

/* Make our descriptor, if there is one, refer to what @fd does. */
static bool redirect(int fd)
{
    int ours = qatomic_read(&log_fd);

#ifdef _WIN32
    return ours == STDERR || dup2(fd, ours) == 0;
#else
    return ours == STDERR || dup3(fd, ours, O_CLOEXEC) == ours;
#endif
}

/* @filename with its first "%d" replaced by the process id. */
static char *expand_pid(const char *filename)
{
    const char *at = strstr(filename, "%d");

    if (!at) {
        return g_strdup(filename);
    }
    return g_strdup_printf("%.*s%d%s", (int)(at - filename), filename,
                           (int)getpid(), at + 2);
}

bool qemu_log_set_file(const char *filename, Error **errp)
{
    g_autofree char *path = NULL;
    bool ok;
    int fd;

    if (!filename) {
        if (!redirect(STDERR)) {
            error_setg_errno(errp, errno, "Error redirecting log to stderr");
            return false;
        }
        return true;
    }
    path = expand_pid(filename);
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_BINARY,
              0666);
    if (fd < 0) {
        error_setg_errno(errp, errno, "Error opening logfile %s", path);
        return false;
    }
    if (qatomic_read(&log_fd) == STDERR) {
        qatomic_set(&log_fd, fd);
        return true;
    }
    ok = redirect(fd);
    if (!ok) {
        error_setg_errno(errp, errno, "Error opening logfile %s", path);
    }
    close(fd);
    return ok;
}

void qemu_log_write(const char *record, size_t len)
{
    int saved_errno = errno;
    int fd = qatomic_read(&log_fd);

    while (len) {
        ssize_t n = RETRY_ON_EINTR(write(fd, record, len));

        if (n <= 0) {
            /* Nobody is left to tell: this is where one would. */
            break;
        }
        record += n;
        len -= n;
    }
    errno = saved_errno;
}

void qemu_log(const char *fmt, ...)
{
    int saved_errno = errno;
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    qemu_log_write(text, strlen(text));
    errno = saved_errno;
}
