/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qemu-system-x86_64: the emulator, with its virtio disks served by our
 * storage daemon.
 *
 * A launcher.  It takes the emulator's own command line, turns each virtio disk
 * into an export of qemu-storage-daemon and a vhost-user-blk device, and runs
 * the two programs.  Without a virtio disk it becomes the emulator (exec).
 *
 * Environment:
 *   QEMU_SYSTEM_BINARY          the emulator; default: the next on PATH
 *   QEMU_STORAGE_DAEMON_BINARY  the daemon; default: beside this program
 *   THREADBLOCK_DRY_RUN=1       print both command lines as JSON, run nothing
 *   THREADBLOCK_STATS=FILE      for the daemon: counters, written when it ends
 */
#include <glib-unix.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include "programs.h"

static int exec_emulator(const char *emulator, char **argv)
{
    argv[0] = (char *)emulator;
    execv(emulator, argv);
    error_report("Could not run '%s': %s", emulator, strerror(errno));
    return 1;
}

static json_t *args_to_json(const char *program, GPtrArray *args)
{
    json_t *list = json_array();

    json_array_append_new(list, json_string(program));
    for (int i = 0; i < args->len; i++) {
        json_array_append_new(list, json_string(g_ptr_array_index(args, i)));
    }
    return list;
}

static int print_plan(const Plan *plan, const char *daemon,
                      const char *emulator)
{
    json_t *daemon_list = args_to_json(daemon, plan->daemon_args);
    g_autoptr(json_t) both = json_object();

    for (int i = 0; i < plan->exports->len; i++) {
        g_autofree char *arg = plan_export_arg(plan, i, -1, false);

        json_array_append_new(daemon_list, json_string("--export"));
        json_array_append_new(daemon_list, json_string(arg));
    }
    json_object_set_new(both, "daemon", daemon_list);
    json_object_set_new(both, "emulator",
                        args_to_json(emulator, plan->emulator_args));
    json_dumpf(both, stdout, JSON_INDENT(2));
    putchar('\n');
    return fflush(stdout) == 0 ? 0 : 1;
}

/* End as the emulator did, by the same signal if it was one. */
static int mirror_status(int status)
{
    if (WIFSIGNALED(status)) {
        struct rlimit no_core = { 0, 0 };

        setrlimit(RLIMIT_CORE, &no_core);
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
        return 128 + WTERMSIG(status);
    }
    return WEXITSTATUS(status);
}

/* A new folder that only this user can enter, with room for a socket's name in
 * what a socket address can hold. */
static char *make_socket_dir(Error **errp)
{
    const char *base = g_get_tmp_dir();
    g_autofree char *dir = g_build_filename(strlen(base) < 60 ? base : "/tmp",
                                            "threadblock-XXXXXX", NULL);

    if (!g_mkdtemp(dir)) {
        error_setg_errno(errp, errno, "Could not create a folder '%s'", dir);
        return NULL;
    }
    return g_steal_pointer(&dir);
}

static int run_plan(const Plan *plan, const char *dir, const char *daemon,
                    const char *emulator, int ready_fd)
{
    Error *err = NULL;
    int status = supervise(plan, dir, daemon, emulator, ready_fd, &err);

    if (rmdir(dir) < 0) {
        warn_report("Could not remove '%s': %s", dir, strerror(errno));
    }
    if (status < 0) {
        error_report_err(err);
        return 1;
    }
    return mirror_status(status);
}

/*
 * -daemonize: a child stays as the supervisor, and this process ends when the
 * emulator's first one has, or with the child's status if that never happens.
 */
static int run_plan_in_background(const Plan *plan, const char *dir,
                                  const char *daemon, const char *emulator)
{
    int fds[2], status;
    char byte;
    pid_t pid;

    if (g_unix_open_pipe(fds, FD_CLOEXEC, NULL)) {
        pid = fork();
        if (pid == 0) {
            close(fds[0]);
            setsid();
            return run_plan(plan, dir, daemon, emulator, fds[1]);
        }
        close(fds[1]);
        if (pid > 0) {
            if (RETRY_ON_EINTR(read(fds[0], &byte, 1)) == 1) {
                return 0;
            }
            if (RETRY_ON_EINTR(waitpid(pid, &status, 0)) == pid) {
                return mirror_status(status);
            }
        }
    }
    error_report("Could not start a process: %s", strerror(errno));
    return 1;
}

static int make_and_run_plan(CmdLine *cmd, PlanHost *host, const char *daemon,
                             const char *emulator)
{
    g_autofree char *dir = make_socket_dir(&error_fatal);
    g_autoptr(Plan) plan = NULL;
    Error *err = NULL;

    host->socket_dir = dir;
    plan = plan_new(cmd, host, &err);
    if (!plan) {
        rmdir(dir);
        error_report_err(err);
        return 1;
    }
    if (plan->daemonize) {
        return run_plan_in_background(plan, dir, daemon, emulator);
    }
    return run_plan(plan, dir, daemon, emulator, -1);
}

static int dry_run(CmdLine *cmd, PlanHost *host, const char *daemon,
                   const char *emulator)
{
    g_autoptr(Plan) plan = NULL;

    host->socket_dir = "/tmp/threadblock";
    plan = plan_new(cmd, host, &error_fatal);
    return print_plan(plan, daemon, emulator);
}

int main(int argc, char **argv)
{
    g_autoptr(CmdLine) cmd = NULL;
    g_autofree char *emulator = NULL;
    g_autofree char *daemon = NULL;
    PlanHost host = { 0 };

    error_init(argv[0]);
    emulator = find_emulator(&error_fatal);
    cmd = cmdline_parse(argc, argv);
    if (cmd->wants_text || !cmdline_has_virtio_disk(cmd)) {
        return exec_emulator(emulator, argv);
    }
    daemon = find_daemon(&error_fatal);
    host.has_reconnect_ms = emulator_is_at_least(emulator, 9, 2);
    if (!g_strcmp0(g_getenv("THREADBLOCK_DRY_RUN"), "1")) {
        return dry_run(cmd, &host, daemon, emulator);
    }
    return make_and_run_plan(cmd, &host, daemon, emulator);
}
