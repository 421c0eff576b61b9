/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Signals, as file descriptor events of the main loop.
 */
#include "qemu/osdep.h"
#include <signal.h>
#include <sys/signalfd.h>
#include "daemon.h"
#include "qemu/options.h"

static int signal_fd = -1;

static void print_counters(Daemon *d)
{
    g_autoptr(json_t) counters = daemon_counters(d);
    g_autofree char *text = options_to_json(counters);

    error_printf("%s\n", text);
}

static void read_signals(void *opaque)
{
    struct signalfd_siginfo info;
    Daemon *d = opaque;

    while (read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGUSR1) {
            print_counters(d);
        } else {
            d->stop = true;
        }
    }
}

static const AioHandlerOps signal_ops = { .read = read_signals };

bool daemon_set_up_signals(Daemon *d, Error **errp)
{
    static const int handled[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
    sigset_t mask;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);       /* a write past the limit is EFBIG */
    sigemptyset(&mask);
    for (size_t i = 0; i < ARRAY_SIZE(handled); i++) {
        sigaddset(&mask, handled[i]);
    }
    sigprocmask(SIG_BLOCK, &mask, NULL);
    signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0) {
        error_setg_errno(errp, errno, "Could not set up signals");
        return false;
    }
    aio_set_fd_handler(d->ctx, signal_fd, &signal_ops, d);
    return true;
}

void daemon_clean_up_signals(Daemon *d)
{
    aio_set_fd_handler(d->ctx, signal_fd, NULL, NULL);
    close(signal_fd);
}
