/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon and the emulator as children of the launcher.
 *
 * The launcher itself listens on the vhost-user sockets and hands them to each
 * daemon that it starts.  So a device can connect before, and also while no
 * daemon runs: it waits in the socket's queue until the next one accepts.
 *
 *   start daemon ─▶ it writes its pid file: all disks are open
 *                ─▶ start emulator ─▶ emulator ends ─▶ SIGTERM, wait, done
 *                        │  ▲
 *            daemon dies ▼  │ start it again, after a growing delay if it
 *                      (wait) keeps dying
 *
 * One thread, one poll() on a signalfd.  The emulator shares the launcher's
 * process group, so it owns the terminal, and what the terminal sends it gets
 * itself; other signals are passed on.  The daemon has a group of its own:
 * Ctrl-C must not take the disk from under the guest.
 *
 * With -daemonize the emulator's first process ends when the machine is set
 * up; the one that runs on becomes our child, since we adopt orphans.
 */
#include <glib-unix.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include "programs.h"
#include "qemu/thread.h"

#define PID_FILE "pid"

/* A daemon that ran this long did not die of how it was started. */
#define GOOD_RUN_NS (10 * INT64_C(1000000000))
#define FIRST_DELAY_NS (100 * INT64_C(1000000))
#define MAX_DELAY_NS (5 * INT64_C(1000000000))

typedef struct Supervisor {
    const Plan *plan;
    const char *dir;
    const char *daemon_path;
    const char *emulator_path;
    char *pid_file;
    int *sockets;              /* one an export; -1: not open */
    int signal_fd;
    int ready_fd;              /* for -daemonize: the starter waits; or -1 */
    int log_fd[2];             /* with that, the daemon's stderr; or -1 */
    sigset_t old_mask;

    pid_t daemon;              /* 0: not running */
    pid_t emulator;
    int daemon_status;         /* of the last that ended */
    int emulator_status;
    bool stopping;             /* the daemon is to end */
    bool kill_it;              /* and somebody is tired of waiting */
    bool has_died;             /* a daemon that was needed */
    int64_t started_ns;
    int64_t delay_ns;          /* before the next start, if it dies soon */
    int64_t restart_ns;        /* when to start it; 0: not planned */
} Supervisor;

/* ---- Sockets ---- */

static int open_socket(const char *path, Error **errp)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(addr.sun_path)) {
        error_setg(errp, "Socket path '%s' is too long", path);
        return -1;
    }
    strcpy(addr.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        listen(fd, 1) < 0) {
        error_setg_errno(errp, errno, "Could not listen on '%s'", path);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

static bool open_sockets(Supervisor *s, Error **errp)
{
    for (int i = 0; i < s->plan->exports->len; i++) {
        PlanExport *export = g_ptr_array_index(s->plan->exports, i);

        s->sockets[i] = open_socket(export->socket_path, errp);
        if (s->sockets[i] < 0) {
            return false;
        }
    }
    return true;
}

static void close_sockets(Supervisor *s)
{
    for (int i = 0; i < s->plan->exports->len; i++) {
        PlanExport *export = g_ptr_array_index(s->plan->exports, i);

        if (s->sockets[i] >= 0) {
            close(s->sockets[i]);
            unlink(export->socket_path);
        }
    }
}

/* ---- Starting ---- */

static char **daemon_argv(const Supervisor *s)
{
    GPtrArray *args = g_ptr_array_new();

    g_ptr_array_add(args, g_strdup(s->daemon_path));
    for (int i = 0; i < s->plan->daemon_args->len; i++) {
        g_ptr_array_add(args,
                        g_strdup(g_ptr_array_index(s->plan->daemon_args, i)));
    }
    for (int i = 0; i < s->plan->exports->len; i++) {
        g_ptr_array_add(args, g_strdup("--export"));
        g_ptr_array_add(args, plan_export_arg(s->plan, i, s->sockets[i],
                                              s->has_died));
    }
    g_ptr_array_add(args, g_strdup("--pidfile"));
    g_ptr_array_add(args, g_strdup(s->pid_file));
    g_ptr_array_add(args, NULL);
    return (char **)g_ptr_array_free(args, FALSE);
}

static char **emulator_argv(const Supervisor *s)
{
    GPtrArray *args = g_ptr_array_new();

    g_ptr_array_add(args, g_strdup(s->emulator_path));
    for (int i = 0; i < s->plan->emulator_args->len; i++) {
        g_ptr_array_add(args,
                        g_strdup(g_ptr_array_index(s->plan->emulator_args, i)));
    }
    g_ptr_array_add(args, NULL);
    return (char **)g_ptr_array_free(args, FALSE);
}

static void write_error(const char *path)
{
    error_report("Could not run '%s': %s", path, strerror(errno));
}

/* In the child, to its end.  @death_signal: when the launcher dies. */
static void NORETURN run_child(const Supervisor *s, char **argv, pid_t parent,
                               int death_signal)
{
    prctl(PR_SET_PDEATHSIG, death_signal);
    if (getppid() == parent) {
        sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
        execv(argv[0], argv);
        write_error(argv[0]);
    }
    _exit(127);
}

static bool start_daemon(Supervisor *s)
{
    g_auto(GStrv) argv = daemon_argv(s);
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid == 0) {
        setpgid(0, 0);
        for (int i = 0; i < s->plan->exports->len; i++) {
            fcntl(s->sockets[i], F_SETFD, 0);
        }
        if (s->log_fd[1] >= 0) {
            dup2(s->log_fd[1], STDOUT_FILENO);
            dup2(s->log_fd[1], STDERR_FILENO);
        }
        run_child(s, argv, parent, SIGTERM);
    }
    if (pid < 0) {
        return false;
    }
    s->daemon = pid;
    s->started_ns = qemu_clock_ns();
    s->restart_ns = 0;
    return true;
}

static bool start_emulator(Supervisor *s, Error **errp)
{
    g_auto(GStrv) argv = emulator_argv(s);
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid == 0) {
        run_child(s, argv, parent, SIGKILL);
    }
    if (pid < 0) {
        error_setg_errno(errp, errno, "Could not start '%s'",
                         s->emulator_path);
        return false;
    }
    s->emulator = pid;
    return true;
}

/* ---- Events ---- */

/* It died while it was needed: start it again, soon. */
static void plan_restart(Supervisor *s)
{
    int64_t now = qemu_clock_ns();

    if (now - s->started_ns >= GOOD_RUN_NS) {
        s->delay_ns = 0;
    }
    if (WIFSIGNALED(s->daemon_status)) {
        warn_report("storage daemon was killed by signal %d; starting it again",
                    WTERMSIG(s->daemon_status));
    } else {
        warn_report("storage daemon ended with status %d; starting it again",
                    WEXITSTATUS(s->daemon_status));
    }
    s->has_died = true;
    s->restart_ns = now + s->delay_ns;
    s->delay_ns = MIN(MAX(2 * s->delay_ns, FIRST_DELAY_NS), MAX_DELAY_NS);
}

/* The child that runs on after -daemonize: one that is not the daemon. */
static pid_t adopted_child(const Supervisor *s)
{
    g_autofree char *path = g_strdup_printf("/proc/self/task/%d/children",
                                            (int)getpid());
    g_autofree char *text = NULL;
    g_auto(GStrv) pids = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    pids = g_strsplit_set(g_strstrip(text), " ", -1);
    for (int i = 0; pids[i]; i++) {
        pid_t pid = atoi(pids[i]);

        if (pid > 0 && pid != s->daemon) {
            return pid;
        }
    }
    return 0;
}

static void reap(Supervisor *s)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == s->daemon) {
            s->daemon = 0;
            s->daemon_status = status;
            if (s->emulator && !s->stopping) {
                plan_restart(s);
            }
        } else if (pid == s->emulator) {
            s->emulator = 0;
            s->emulator_status = status;
        }
    }
}

static void handle_signal(Supervisor *s, const struct signalfd_siginfo *info)
{
    if (info->ssi_signo == SIGCHLD) {
        reap(s);
    } else if (s->stopping) {
        s->kill_it = true;
    } else if (info->ssi_code != SI_KERNEL && s->emulator) {
        kill(s->emulator, info->ssi_signo);
    } else if (!s->emulator && s->daemon) {
        /* still starting up */
        s->stopping = true;
        kill(s->daemon, SIGTERM);
    }
}

/* What the daemon says, while somebody may be listening. */
static void relay_log(Supervisor *s)
{
    char text[4096];
    ssize_t n = s->log_fd[0] < 0 ? 0 : read(s->log_fd[0], text, sizeof(text));

    if (n > 0) {
        error_printf("%.*s", (int)n, text);
    }
}

/* Sleep until something happens, or a restart is due; handle it. */
static void wait_event(Supervisor *s, int extra_fd)
{
    struct pollfd fds[3] = {
        { .fd = s->signal_fd, .events = POLLIN },
        { .fd = extra_fd, .events = POLLIN },
        { .fd = s->log_fd[0], .events = POLLIN },
    };
    struct signalfd_siginfo info;
    int timeout = -1;

    if (s->restart_ns) {
        int64_t ns = s->restart_ns - qemu_clock_ns();

        timeout = ns > 0 ? DIV_ROUND_UP(ns, 1000000) : 0;
    }
    if (poll(fds, ARRAY_SIZE(fds), timeout) < 0) {
        return;
    }
    relay_log(s);
    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        handle_signal(s, &info);
    }
    if (s->restart_ns && qemu_clock_ns() >= s->restart_ns &&
        !start_daemon(s)) {
        s->restart_ns = qemu_clock_ns() + MAX_DELAY_NS;
    }
}

/* ---- Phases ---- */

/* Before the daemon starts, which may be ready in no time. */
static int watch_dir(Supervisor *s, Error **errp)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    if (fd < 0 || inotify_add_watch(fd, s->dir, IN_MODIFY) < 0) {
        error_setg_errno(errp, errno, "Could not watch '%s'", s->dir);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

/* Until something is written to its pid file.  False: it ended instead. */
static bool wait_daemon_ready(Supervisor *s, int watch_fd, Error **errp)
{
    char events[4096];
    bool ready = false;

    while (s->daemon && !ready) {
        wait_event(s, watch_fd);
        ready = read(watch_fd, events, sizeof(events)) > 0;
    }
    if (!ready || s->stopping) {
        /* the daemon has said why */
        error_setg(errp, "The storage daemon did not start");
        return false;
    }
    return true;
}

/* The starter may go; nobody sees what is written from now on. */
static void go_background(Supervisor *s)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        close(null);
    }
    if (RETRY_ON_EINTR(write(s->ready_fd, "", 1)) < 0) {
        /* it has gone already: then it is not waiting */
        errno = 0;
    }
    close(s->ready_fd);
    s->ready_fd = -1;
}

static bool is_adoption_due(const Supervisor *s)
{
    return !s->emulator && s->ready_fd >= 0 &&
           WIFEXITED(s->emulator_status) && !WEXITSTATUS(s->emulator_status);
}

/* Until the emulator has ended, both its processes with -daemonize. */
static void wait_emulator(Supervisor *s)
{
    while (s->emulator) {
        wait_event(s, -1);
        if (is_adoption_due(s)) {
            s->emulator = adopted_child(s);
            go_background(s);
            if (s->emulator && !s->daemon && !s->restart_ns) {
                plan_restart(s);
            }
        }
    }
}

static void stop_daemon(Supervisor *s)
{
    s->stopping = true;
    s->restart_ns = 0;
    if (s->daemon) {
        kill(s->daemon, SIGTERM);
    }
    while (s->daemon) {
        wait_event(s, -1);
        if (s->kill_it && s->daemon) {
            kill(s->daemon, SIGKILL);
        }
    }
}

static bool set_up_signals(Supervisor *s, Error **errp)
{
    static const int handled[] = {
        SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2
    };
    sigset_t mask;

    sigemptyset(&mask);
    for (size_t i = 0; i < ARRAY_SIZE(handled); i++) {
        sigaddset(&mask, handled[i]);
    }
    sigprocmask(SIG_BLOCK, &mask, &s->old_mask);
    s->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signal_fd < 0) {
        error_setg_errno(errp, errno, "Could not set up signals");
        return false;
    }
    return true;
}

/* Adopt what the emulator leaves behind, and keep the daemon off the starter's
 * stderr, whose reader may wait for its end. */
static bool set_up_background(Supervisor *s, Error **errp)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ||
        !g_unix_open_pipe(s->log_fd, FD_CLOEXEC, NULL) ||
        !g_unix_set_fd_nonblocking(s->log_fd[0], true, NULL)) {
        error_setg_errno(errp, errno, "Could not go into the background");
        return false;
    }
    return true;
}

static bool run(Supervisor *s, Error **errp)
{
    bool ready = false;
    int watch_fd;

    if (!open_sockets(s, errp)) {
        return false;
    }
    watch_fd = watch_dir(s, errp);
    if (watch_fd < 0) {
        return false;
    }
    if (!start_daemon(s)) {
        error_setg_errno(errp, errno, "Could not start '%s'", s->daemon_path);
    } else {
        ready = wait_daemon_ready(s, watch_fd, errp);
    }
    close(watch_fd);
    if (!ready || !start_emulator(s, errp)) {
        return false;
    }
    wait_emulator(s);
    return true;
}

int supervise(const Plan *plan, const char *dir, const char *daemon,
              const char *emulator, int ready_fd, Error **errp)
{
    g_autofree char *pid_file = g_build_filename(dir, PID_FILE, NULL);
    g_autofree int *sockets = g_new(int, plan->exports->len);
    Supervisor s = {
        .plan = plan,
        .dir = dir,
        .daemon_path = daemon,
        .emulator_path = emulator,
        .pid_file = pid_file,
        .sockets = sockets,
        .ready_fd = ready_fd,
        .log_fd = { -1, -1 },
    };
    bool ok;

    for (int i = 0; i < plan->exports->len; i++) {
        sockets[i] = -1;
    }
    if (!set_up_signals(&s, errp)) {
        return -1;
    }
    ok = (ready_fd < 0 || set_up_background(&s, errp)) && run(&s, errp);
    stop_daemon(&s);
    close_sockets(&s);
    unlink(pid_file);
    relay_log(&s);
    for (int i = 0; i < 2; i++) {
        if (s.log_fd[i] >= 0) {
            close(s.log_fd[i]);
        }
    }
    close(s.signal_fd);
    sigprocmask(SIG_SETMASK, &s.old_mask, NULL);
    return ok ? s.emulator_status : -1;
}
