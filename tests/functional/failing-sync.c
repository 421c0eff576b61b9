/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * To be preloaded: an fdatasync() that fails, and says that it was called.
 *
 *   $SYNC_LOG    a file that grows by a byte with each call
 *   $SYNC_FAILS  while this file exists, calls fail with EIO
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd)
{
    const char *log = getenv("SYNC_LOG");
    const char *fails = getenv("SYNC_FAILS");

    if (log) {
        int to = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

        if (to < 0 || write(to, ".", 1) != 1) {
            abort();
        }
        close(to);
    }
    if (fails && access(fails, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_fdatasync, fd);
}
