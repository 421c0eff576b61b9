/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --monitor: QMP on a character device.
 *
 * A monitor has a session while it has a client.  On a listening socket the
 * next client is waited for when one has hung up; a second one at the same time
 * stays in the socket's queue.
 */
#include "qemu/osdep.h"
#include <glib-unix.h>
#include <sys/socket.h>
#include "daemon.h"
#include "qemu/options.h"
#include "qmp.h"

typedef struct Monitor {
    Daemon *d;
    Chardev *chr;
    bool pretty;
    QmpSession *session;
} Monitor;

static void on_client(void *opaque);

static void listen_for_client(Monitor *mon)
{
    static const AioHandlerOps ops = { .read = on_client };

    if (mon->chr->listen_fd >= 0) {
        aio_set_fd_handler(mon->d->ctx, mon->chr->listen_fd,
                           mon->session ? NULL : &ops, mon);
    }
}

/* The daemon, as commands get it, does not say which monitor it was. */
static Monitor *find_monitor(Daemon *d, const QmpSession *session)
{
    for (guint i = 0; i < d->monitors->len; i++) {
        Monitor *mon = g_ptr_array_index(d->monitors, i);

        if (mon->session == session) {
            return mon;
        }
    }
    g_assert_not_reached();
}

static void on_closed(QmpSession *session, void *opaque)
{
    Monitor *mon = find_monitor(opaque, session);

    qmp_session_free(session);
    mon->session = NULL;
    listen_for_client(mon);
}

static void start_session(Monitor *mon, int in, int out)
{
    g_unix_set_fd_nonblocking(in, TRUE, NULL);
    g_unix_set_fd_nonblocking(out, TRUE, NULL);
    mon->session = qmp_session_new(mon->d->ctx, in, out, mon->pretty,
                                   daemon_qmp_commands, mon->d, on_closed);
    listen_for_client(mon);
}

static void on_client(void *opaque)
{
    Monitor *mon = opaque;
    int fd = accept4(mon->chr->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0) {
        start_session(mon, fd, fd);
    }
}

static Chardev *find_chardev(Daemon *d, const char *id, Error **errp)
{
    for (guint i = 0; i < d->chardevs->len; i++) {
        Chardev *chr = g_ptr_array_index(d->chardevs, i);

        if (g_str_equal(chr->id, id)) {
            if (chr->used) {
                error_setg(errp, "Device '%s' is in use", id);
                return NULL;
            }
            return chr;
        }
    }
    error_setg(errp, "chardev \"%s\" not found", id);
    return NULL;
}

static bool take_mode(json_t *opts, Error **errp)
{
    static const char *const names[] = { "control", NULL };
    int mode;

    return opt_take_enum(opts, "mode", names, &mode, errp);
}

bool daemon_add_monitor(Daemon *d, const char *arg, Error **errp)
{
    bool help = false, pretty = false;
    g_autoptr(json_t) opts = options_parse(arg, "chardev", &help, errp);
    g_autofree char *id = NULL, *name = NULL;
    Chardev *chr = NULL;
    Monitor *mon;

    if (!opts) {
        return false;
    }
    name = opt_take_str(opts, "id");
    id = opt_take_str_required(opts, "chardev", errp);
    if (!id || !take_mode(opts, errp) ||
        !opt_take_bool(opts, "pretty", &pretty, errp) ||
        !opt_check_unused(opts, errp)) {
        return false;
    }
    chr = find_chardev(d, id, errp);
    if (!chr) {
        return false;
    }
    chr->used = true;
    mon = g_new0(Monitor, 1);
    *mon = (Monitor){ .d = d, .chr = chr, .pretty = pretty };
    g_ptr_array_add(d->monitors, mon);
    if (chr->in >= 0) {
        start_session(mon, chr->in, chr->out);
        chr->in = chr->out = -1;
    } else {
        g_unix_set_fd_nonblocking(chr->listen_fd, TRUE, NULL);
        listen_for_client(mon);
    }
    return true;
}

void daemon_event(Daemon *d, const char *name, json_t *data)
{
    for (guint i = 0; i < d->monitors->len; i++) {
        Monitor *mon = g_ptr_array_index(d->monitors, i);

        if (mon->session) {
            qmp_session_event(mon->session, name, data);
        }
    }
    json_decref(data);
}

void daemon_free_monitors(Daemon *d)
{
    for (guint i = 0; i < d->monitors->len; i++) {
        Monitor *mon = g_ptr_array_index(d->monitors, i);

        if (mon->session) {
            qmp_session_free(mon->session);
        } else if (mon->chr->listen_fd >= 0) {
            aio_set_fd_handler(d->ctx, mon->chr->listen_fd, NULL, NULL);
        }
        g_free(mon);
    }
    g_ptr_array_unref(d->monitors);
}
