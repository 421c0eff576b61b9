/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --daemonize and --pidfile.
 *
 * The parent holds the read end of a pipe until the daemon has opened all that
 * its command line names, so that whoever started it learns by the exit status
 * whether that worked.  Messages until then go to the starter's stderr.
 */
#include "qemu/osdep.h"
#include <glib-unix.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "daemon.h"

static int started_fd = -1;      /* write end; -1: nobody waits */
static char *pid_path;
static int pid_fd = -1;

/* Without a byte, the child has ended: with an error, or after --help. */
static void NORETURN wait_for_child(pid_t pid, int fd)
{
    int status;
    char byte;

    if (RETRY_ON_EINTR(read(fd, &byte, 1)) == 1) {
        _exit(0);
    }
    if (RETRY_ON_EINTR(waitpid(pid, &status, 0)) == pid && WIFEXITED(status)) {
        _exit(WEXITSTATUS(status));
    }
    _exit(1);
}

bool daemon_go_background(Error **errp)
{
    int fds[2];
    pid_t pid;

    if (!g_unix_open_pipe(fds, FD_CLOEXEC, NULL)) {
        error_setg_errno(errp, errno, "Could not create a pipe");
        return false;
    }
    pid = fork();
    if (pid < 0) {
        error_setg_errno(errp, errno, "Could not start a process");
        return false;
    }
    if (pid > 0) {
        close(fds[1]);
        wait_for_child(pid, fds[0]);
    }
    close(fds[0]);
    started_fd = fds[1];
    setsid();
    return true;
}

bool daemon_started(Error **errp)
{
    int null;

    if (started_fd < 0) {
        return true;
    }
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || chdir("/") < 0) {
        error_setg_errno(errp, errno, "Could not go into the background");
        return false;
    }
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    close(null);
    if (RETRY_ON_EINTR(write(started_fd, "", 1)) != 1) {
        /* The parent was killed; that is no reason to stop serving. */
        errno = 0;
    }
    close(started_fd);
    started_fd = -1;
    return true;
}

/* ---- The pid file ---- */

/* Locked, and still what @path names: another daemon may remove it between
 * our opening and our locking it. */
static bool lock_pid_file(int fd, const char *path, bool *again, Error **errp)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    struct stat opened, named;

    if (fcntl(fd, F_SETLK, &lock) < 0) {
        error_setg_errno(errp, errno, "Could not lock '%s'", path);
        return false;
    }
    *again = fstat(fd, &opened) < 0 || stat(path, &named) < 0 ||
             opened.st_ino != named.st_ino || opened.st_dev != named.st_dev;
    return true;
}

static int open_pid_file(const char *path, Error **errp)
{
    bool again = true;
    int fd = -1;

    while (again) {
        if (fd >= 0) {
            close(fd);
        }
        fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
        if (fd < 0) {
            error_setg_errno(errp, errno, "Could not create '%s'", path);
            return -1;
        }
        if (!lock_pid_file(fd, path, &again, errp)) {
            close(fd);
            return -1;
        }
    }
    return fd;
}

bool daemon_write_pid_file(const char *path, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());
    size_t len = strlen(text);

    pid_fd = open_pid_file(path, errp);
    if (pid_fd >= 0 && (ftruncate(pid_fd, 0) < 0 ||
                        RETRY_ON_EINTR(write(pid_fd, text, len)) != len)) {
        error_setg_errno(errp, errno, "Could not write '%s'", path);
        unlink(path);
        close(pid_fd);
        pid_fd = -1;
    }
    if (pid_fd < 0) {
        error_prepend(errp, "cannot create PID file: ");
        return false;
    }
    /* --daemonize leaves the folder that a relative name starts from. */
    pid_path = g_canonicalize_filename(path, NULL);
    return true;
}

void daemon_remove_pid_file(void)
{
    if (pid_fd >= 0) {
        unlink(pid_path);
        close(pid_fd);
        pid_fd = -1;
        g_clear_pointer(&pid_path, g_free);
    }
}
