/*
 * What needs no image: help, quit, sleep, sigraise and abort.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"
#include <signal.h>

static int cmd_help(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    return io_print_help(argc > 1 ? argv[1] : NULL);
}

static int cmd_quit(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    io->quit = true;
    return 0;
}

static void timer_fired(void *opaque)
{
    *(bool *)opaque = true;
}

static int cmd_sleep(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    bool fired = false;
    QEMUTimer timer;
    uint64_t ms;

    if (parse_uint_full(argv[1], 10, &ms) < 0 || ms > INT32_MAX) {
        printf("%s is not a valid number\n", argv[1]);
        return -EINVAL;
    }
    timer_init_ns(&timer, io->ctx, timer_fired, &fired);
    timer_mod_ns(&timer, qemu_clock_ns() + (int64_t)ms * 1000000);
    while (!fired) {
        aio_poll(io->ctx, true);
    }
    return 0;
}

static int cmd_sigraise(QemuIo *io, const IoCommand *cmd, int argc,
                        char **argv)
{
    int64_t sig = io_parse_size(argv[1]);

    if (sig < 0) {
        return sig;
    }
    if (sig >= NSIG) {
        printf("signal argument '%s' is too large to be a valid signal\n",
               argv[1]);
        return -EINVAL;
    }
    /* It may be the end: nothing that was printed is to be lost. */
    fflush(stdout);
    raise(sig);
    return 0;
}

static int cmd_abort(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    abort();
}

static const IoCommand help_command = {
    .name = "help",
    .alias = "?",
    .run = cmd_help,
    .max_args = 1,
    .args = "[command]",
    .oneline = "help for one or all commands",
};

static const IoCommand quit_command = {
    .name = "quit",
    .alias = "q",
    .run = cmd_quit,
    .max_args = -1,
    .oneline = "exit the program",
};

static const IoCommand sleep_command = {
    .name = "sleep",
    .run = cmd_sleep,
    .min_args = 1,
    .max_args = 1,
    .oneline = "waits for the given value in milliseconds",
};

static const IoCommand sigraise_command = {
    .name = "sigraise",
    .run = cmd_sigraise,
    .min_args = 1,
    .max_args = 1,
    .args = "signal",
    .oneline = "raises a signal",
    .help =
"\n"
" raises the given signal\n"
"\n"
" Example:\n"
" 'sigraise 15' - raises SIGTERM\n"
"\n"
" Invokes raise(signal), where \"signal\" is the mandatory integer argument\n"
" given to sigraise.\n"
"\n",
};

static const IoCommand abort_command = {
    .name = "abort",
    .run = cmd_abort,
    .oneline = "simulate a program crash using abort(3)",
};

const IoCommand *const io_misc_commands[] = {
    &help_command,
    &quit_command,
    &sleep_command,
    &sigraise_command,
    &abort_command,
    NULL,
};
