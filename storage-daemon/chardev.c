/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --chardev: what a monitor talks through.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include <sys/un.h>
#include "block/export/listen.h"
#include "daemon.h"
#include "qemu/options.h"

/* ---- stdio ---- */

static bool open_stdio(Daemon *d, Chardev *chr, Error **errp)
{
    if (d->background) {
        error_setg(errp, "cannot use stdio with --daemonize");
        return false;
    }
    chr->stdin_flags = fcntl(STDIN_FILENO, F_GETFL);
    chr->stdout_flags = fcntl(STDOUT_FILENO, F_GETFL);
    /* The session closes them; stdin and stdout stay what they are. */
    chr->in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    chr->out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    chr->is_stdio = true;
    if (chr->in < 0 || chr->out < 0) {
        error_setg_errno(errp, errno, "Could not use stdio");
        return false;
    }
    return true;
}

/* That they do not block is seen by all who share them: the shell, too. */
static void restore_stdio(const Chardev *chr)
{
    if (chr->stdin_flags >= 0) {
        fcntl(STDIN_FILENO, F_SETFL, chr->stdin_flags);
    }
    if (chr->stdout_flags >= 0) {
        fcntl(STDOUT_FILENO, F_SETFL, chr->stdout_flags);
    }
}

/* ---- socket ---- */

static bool connect_to(Chardev *chr, const char *path, Error **errp)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    if (strlen(path) >= sizeof(un.sun_path)) {
        error_setg(errp, "UNIX socket path '%s' is too long", path);
        return false;
    }
    strcpy(un.sun_path, path);
    chr->in = chr->out = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (chr->in < 0 ||
        RETRY_ON_EINTR(connect(chr->in, (struct sockaddr *)&un,
                               sizeof(un))) < 0) {
        error_setg_errno(errp, errno, "Failed to connect to '%s'", path);
        return false;
    }
    return true;
}

static bool wait_for_client(Chardev *chr, const char *path, Error **errp)
{
    info_report("waiting for connection on: %s", path);
    chr->in = chr->out = RETRY_ON_EINTR(accept4(chr->listen_fd, NULL, NULL,
                                                SOCK_CLOEXEC));
    if (chr->in < 0) {
        error_setg_errno(errp, errno, "Failed to accept a client");
        return false;
    }
    return true;
}

static bool open_socket(Chardev *chr, json_t *opts, Error **errp)
{
    g_autofree char *path = opt_take_str_required(opts, "path", errp);
    bool server = false, wait = true;
    g_autoptr(json_t) addr = json_object();

    if (!path || !opt_take_bool(opts, "server", &server, errp) ||
        !opt_take_bool(opts, "wait", &wait, errp) ||
        !opt_check_unused(opts, errp)) {
        return false;
    }
    if (!server) {
        return connect_to(chr, path, errp);
    }
    opt_set_str(addr, "type", "unix");
    opt_set_str(addr, "path", path);
    chr->listen_fd = export_listen(addr, &chr->path, errp);
    return chr->listen_fd >= 0 && (!wait || wait_for_client(chr, path, errp));
}

/* ---- All of them ---- */

static void free_chardev(Chardev *chr)
{
    if (chr->is_stdio) {
        restore_stdio(chr);
    }
    if (chr->in >= 0) {
        close(chr->in);
    }
    if (chr->out >= 0 && chr->out != chr->in) {
        close(chr->out);
    }
    if (chr->listen_fd >= 0) {
        close(chr->listen_fd);
    }
    if (chr->path) {
        unlink(chr->path);
    }
    g_free(chr->path);
    g_free(chr->id);
    g_free(chr);
}

static bool open_chardev(Daemon *d, Chardev *chr, json_t *opts, Error **errp)
{
    g_autofree char *backend = opt_take_str_required(opts, "backend", errp);

    chr->id = opt_take_str_required(opts, "id", errp);
    if (!backend || !chr->id) {
        return false;
    }
    for (guint i = 0; i < d->chardevs->len; i++) {
        if (g_str_equal(((Chardev *)g_ptr_array_index(d->chardevs, i))->id,
                        chr->id)) {
            error_setg(errp, "Chardev with id '%s' already exists", chr->id);
            return false;
        }
    }
    if (g_str_equal(backend, "stdio")) {
        return opt_check_unused(opts, errp) && open_stdio(d, chr, errp);
    }
    if (g_str_equal(backend, "socket")) {
        return open_socket(chr, opts, errp);
    }
    error_setg(errp, "'%s' is not a valid char driver name", backend);
    return false;
}

bool daemon_add_chardev(Daemon *d, const char *arg, Error **errp)
{
    g_autoptr(json_t) opts = qemu_opts_parse_legacy(arg, "backend", false,
                                                    NULL, errp);
    Chardev *chr;

    if (!opts) {
        return false;
    }
    chr = g_new0(Chardev, 1);
    chr->listen_fd = chr->in = chr->out = -1;
    if (!open_chardev(d, chr, opts, errp)) {
        free_chardev(chr);
        return false;
    }
    g_ptr_array_add(d->chardevs, chr);
    return true;
}

void daemon_free_chardevs(Daemon *d)
{
    for (guint i = 0; i < d->chardevs->len; i++) {
        free_chardev(g_ptr_array_index(d->chardevs, i));
    }
    g_ptr_array_unref(d->chardevs);
}
