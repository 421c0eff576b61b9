/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A daemon process of a test: see the header.
 *
 * That it is up is told by its pid file, which it writes when it serves; that
 * it has ended, by a pidfd, which can be waited for with a bound.
 */
#include "daemon-proc.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define POLL_US 2000

DaemonProc *daemon_proc_new(const char *program)
{
    DaemonProc *d = g_new0(DaemonProc, 1);
    g_autofree char *pid_file = NULL, *stats = NULL;

    d->program = g_canonicalize_filename(program, NULL);
    d->dir = g_dir_make_tmp("daemon-XXXXXX", NULL);
    g_assert_nonnull(d->dir);
    d->args = g_ptr_array_new_with_free_func(g_free);
    d->env = g_get_environ();
    d->pidfd = -1;
    g_ptr_array_add(d->args, g_strdup(d->program));
    pid_file = daemon_proc_path(d, "pid");
    daemon_proc_arg(d, "--pidfile", "%s", pid_file);
    stats = daemon_proc_path(d, "counters");
    daemon_proc_setenv(d, "THREADBLOCK_STATS", stats);
    return d;
}

static void remove_dir(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        g_remove(file);
    }
    if (dir) {
        g_dir_close(dir);
    }
    g_rmdir(path);
}

void daemon_proc_free(DaemonProc *d)
{
    if (d->pid) {
        daemon_proc_kill(d);
    }
    remove_dir(d->dir);
    g_ptr_array_unref(d->args);
    g_strfreev(d->env);
    g_free(d->dir);
    g_free(d->program);
    g_free(d);
}

char *daemon_proc_path(const DaemonProc *d, const char *name)
{
    return g_build_filename(d->dir, name, NULL);
}

char *daemon_proc_file(const DaemonProc *d, const char *name, int64_t size)
{
    char *path = daemon_proc_path(d, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    close(fd);
    return path;
}

void daemon_proc_arg(DaemonProc *d, const char *option, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_ptr_array_add(d->args, g_strdup(option));
    g_ptr_array_add(d->args, g_strdup_vprintf(fmt, ap));
    va_end(ap);
}

void daemon_proc_export(DaemonProc *d, const char *id, const char *node,
                        const char *more)
{
    g_autofree char *path = daemon_proc_path(d, id);

    daemon_proc_arg(d, "--export", "type=vhost-user-blk,id=%s,node-name=%s,"
                    "writable=on,addr.type=unix,addr.path=%s%s", id, node,
                    path, more);
}

void daemon_proc_setenv(DaemonProc *d, const char *name, const char *value)
{
    d->env = g_environ_setenv(d->env, name, value, TRUE);
}

/* ---- Start ---- */

/* Between fork and exec: nothing but system calls. */
static G_NORETURN void run(DaemonProc *d, char **argv, const char *messages,
                           pid_t parent)
{
    int fd = open(messages, O_WRONLY | O_CREAT | O_APPEND, 0600);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* What our parents ignore (interpreters do) the daemon would, too. */
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0 ||
        dup2(fd, STDOUT_FILENO) < 0 || getppid() != parent) {
        _exit(126);
    }
    close(fd);
    execve(argv[0], argv, d->env);
    _exit(127);
}

/* True when it has ended (and is waited for). */
static bool has_ended(DaemonProc *d, int timeout_ms, int *status)
{
    struct pollfd pfd = { .fd = d->pidfd, .events = POLLIN };
    int ret;

    do {
        ret = poll(&pfd, 1, timeout_ms);
    } while (ret < 0 && errno == EINTR);
    if (ret <= 0) {
        return false;
    }
    g_assert_cmpint(waitpid(d->pid, status, 0), ==, d->pid);
    close(d->pidfd);
    d->pidfd = -1;
    d->pid = 0;
    return true;
}

static bool pid_file_is_written(const DaemonProc *d)
{
    g_autofree char *path = daemon_proc_path(d, "pid");
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) &&
           g_str_has_suffix(text, "\n") && atoi(text) == d->pid;
}

bool daemon_proc_try_start(DaemonProc *d)
{
    g_autofree char *messages = daemon_proc_path(d, "messages");
    g_autofree char **argv = g_new0(char *, d->args->len + 1);
    int64_t end = g_get_monotonic_time() + DAEMON_WAIT_MS * 1000;
    pid_t parent = getpid();
    int status;

    g_assert_cmpint(d->pid, ==, 0);
    memcpy(argv, d->args->pdata, d->args->len * sizeof(char *));
    d->pid = fork();
    g_assert_cmpint(d->pid, >=, 0);
    if (d->pid == 0) {
        run(d, argv, messages, parent);
    }
    d->pidfd = syscall(SYS_pidfd_open, d->pid, 0);
    g_assert_cmpint(d->pidfd, >=, 0);
    while (!pid_file_is_written(d)) {
        if (has_ended(d, 2, &status)) {
            return false;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    return true;
}

void daemon_proc_start(DaemonProc *d)
{
    if (!daemon_proc_try_start(d)) {
        g_autofree char *said = daemon_proc_messages(d);

        g_error("the daemon does not start: %s", said);
    }
}

char *daemon_proc_messages(const DaemonProc *d)
{
    g_autofree char *path = daemon_proc_path(d, "messages");
    char *text = NULL;

    g_file_get_contents(path, &text, NULL, NULL);
    return text ? text : g_strdup("");
}

/* ---- While it runs ---- */

static void check_messages(const DaemonProc *d)
{
    g_autofree char *said = daemon_proc_messages(d);

    if (strstr(said, "Sanitizer") || strstr(said, "runtime error") ||
        strstr(said, "Assertion") || strstr(said, "CRITICAL")) {
        g_error("the daemon says: %s", said);
    }
}

void daemon_proc_check_alive(DaemonProc *d)
{
    int status;

    if (has_ended(d, 0, &status)) {
        g_autofree char *said = daemon_proc_messages(d);

        g_error("the daemon has ended with status %#x: %s", status, said);
    }
    check_messages(d);
}

unsigned daemon_proc_count_fds(const DaemonProc *d)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", (int)d->pid);
    GDir *dir = g_dir_open(path, 0, NULL);
    unsigned n = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        n++;
    }
    g_dir_close(dir);
    return n;
}

void daemon_proc_wait_fds(const DaemonProc *d, unsigned n)
{
    int64_t end = g_get_monotonic_time() + DAEMON_WAIT_MS * 1000;

    while (daemon_proc_count_fds(d) != n) {
        if (g_get_monotonic_time() > end) {
            g_error("the daemon has %u file descriptors, not %u",
                    daemon_proc_count_fds(d), n);
        }
        g_usleep(POLL_US);
    }
}

/* ---- The end ---- */

void daemon_proc_kill(DaemonProc *d)
{
    int status;

    kill(d->pid, SIGKILL);
    g_assert_true(has_ended(d, DAEMON_WAIT_MS, &status));
}

void daemon_proc_stop(DaemonProc *d)
{
    int status;

    daemon_proc_check_alive(d);
    kill(d->pid, SIGTERM);
    if (!has_ended(d, DAEMON_WAIT_MS, &status)) {
        g_error("the daemon does not end");
    }
    check_messages(d);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 0);
}

/* ---- Counters ---- */

/* The last whole line of counters in the messages, and how many there are. */
static json_t *last_counters(const DaemonProc *d, unsigned *n)
{
    g_autofree char *said = daemon_proc_messages(d);
    char **lines = g_strsplit(said, "\n", -1);
    json_t *last = NULL;

    *n = 0;
    /* What follows the last line feed is not a whole line. */
    for (unsigned i = 0; lines[i] && lines[i + 1]; i++) {
        if (g_str_has_prefix(lines[i], "{\"exports\"")) {
            json_decref(last);
            last = json_loads(lines[i], 0, NULL);
            ++*n;
        }
    }
    g_strfreev(lines);
    return last;
}

/* Ask for them by SIGUSR1. */
static json_t *ask_for_counters(const DaemonProc *d)
{
    int64_t end = g_get_monotonic_time() + DAEMON_WAIT_MS * 1000;
    unsigned before, now;
    json_t *all;

    json_decref(last_counters(d, &before));
    kill(d->pid, SIGUSR1);
    while ((all = last_counters(d, &now)), now == before) {
        json_decref(all);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(POLL_US);
    }
    return all;
}

static int64_t take_counter(const json_t *exp, const char *name)
{
    json_t *counter = json_object_get(exp, name);

    g_assert_true(json_is_integer(counter));
    return json_integer_value(counter);
}

DaemonCounters daemon_proc_counters(const DaemonProc *d, const char *id)
{
    g_autofree char *path = daemon_proc_path(d, "counters");
    json_t *all = d->pid ? ask_for_counters(d) : json_load_file(path, 0, NULL);
    DaemonCounters c = { -1, -1, -1, -1, -1 };
    json_t *exp;
    size_t i;

    g_assert_nonnull(all);
    json_array_foreach(json_object_get(all, "exports"), i, exp) {
        if (!g_strcmp0(json_string_value(json_object_get(exp, "id")), id)) {
            c = (DaemonCounters){
                take_counter(exp, "inline"), take_counter(exp, "fast"),
                take_counter(exp, "worker"), take_counter(exp, "parked"),
                take_counter(exp, "registered"),
            };
        }
    }
    json_decref(all);
    g_assert_cmpint(c.fast, >=, 0);
    return c;
}
