/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A qemu-storage-daemon of its own for a test: in a directory of its own, with
 * its messages in a file, watched by process id.
 *
 * The daemon dies with the test's thread that started it.  All functions are
 * for one thread; those that wait do so for at most DAEMON_WAIT_MS, and then
 * the test fails.
 */
#ifndef TESTS_DAEMON_PROC_H
#define TESTS_DAEMON_PROC_H

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#define DAEMON_WAIT_MS 20000

typedef struct DaemonProc {
    char *program;
    char *dir;          /* for images and sockets; removed in the end */
    GPtrArray *args;
    char **env;
    pid_t pid;          /* 0: not running */
    int pidfd;
} DaemonProc;

/* @program is the daemon's path.  Not started yet. */
DaemonProc *daemon_proc_new(const char *program);
/* Kill it, if it runs, and remove the directory with all the files in it. */
void daemon_proc_free(DaemonProc *d);

/* The path of @name in the directory; the caller frees it. */
char *daemon_proc_path(const DaemonProc *d, const char *name);
/* Make a file of @size zero bytes there; its path, which the caller frees. */
char *daemon_proc_file(const DaemonProc *d, const char *name, int64_t size);

/* One more option with its value, as in ("--blockdev", "driver=%s", …). */
void daemon_proc_arg(DaemonProc *d, const char *option, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);
/* --export of @node at the socket @id, with @more options (",k=v" or ""). */
void daemon_proc_export(DaemonProc *d, const char *id, const char *node,
                        const char *more);
void daemon_proc_setenv(DaemonProc *d, const char *name, const char *value);

/* Start it and wait until it serves; the test fails if it does not. */
void daemon_proc_start(DaemonProc *d);
/* The same; false when it ended instead.  Its messages say why. */
bool daemon_proc_try_start(DaemonProc *d);
/* What it has said so far; the caller frees it. */
char *daemon_proc_messages(const DaemonProc *d);

/* Fail the test unless it runs, and no sanitizer has anything to say. */
void daemon_proc_check_alive(DaemonProc *d);
unsigned daemon_proc_count_fds(const DaemonProc *d);
/* Wait until it has @n file descriptors open. */
void daemon_proc_wait_fds(const DaemonProc *d, unsigned n);

/* SIGKILL, and wait. */
void daemon_proc_kill(DaemonProc *d);
/* SIGTERM; it has to end with status 0 and without a sanitizer's report. */
void daemon_proc_stop(DaemonProc *d);

/* Requests of an export by the path that they took. */
typedef struct DaemonCounters {
    int64_t done_inline, fast, worker, parked, registered;
} DaemonCounters;

/* Those of export @id, so far or of the daemon that was stopped. */
DaemonCounters daemon_proc_counters(const DaemonProc *d, const char *id);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(DaemonProc, daemon_proc_free)

#endif
