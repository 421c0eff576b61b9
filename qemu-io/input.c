/*
 * Commands that are typed in, or come through a pipe.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

static void stdin_readable(void *opaque)
{
    *(bool *)opaque = true;
}

/* Run the loop until stdin has something. */
static void wait_for_stdin(QemuIo *io)
{
    static const AioHandlerOps ops = { .read = stdin_readable };
    bool readable = false;

    /* What is no pipe or terminal is always ready. */
    if (!io->in_flight || (lseek(STDIN_FILENO, 0, SEEK_CUR) != -1)) {
        return;
    }
    aio_set_fd_handler(io->ctx, STDIN_FILENO, &ops, &readable);
    while (!readable) {
        aio_poll(io->ctx, true);
        fflush(stdout);
    }
    aio_set_fd_handler(io->ctx, STDIN_FILENO, NULL, NULL);
}

/* The next line of stdin, without its newline, into @line, which also keeps
 * what was read beyond it in @pending; false at the end. */
static bool read_line(QemuIo *io, GString *pending, GString *line)
{
    char buf[4096], *newline;
    ssize_t n;

    g_string_truncate(line, 0);
    while (!(newline = memchr(pending->str, '\n', pending->len))) {
        wait_for_stdin(io);
        n = RETRY_ON_EINTR(read(STDIN_FILENO, buf, sizeof(buf)));
        if (n <= 0) {
            g_string_append_len(line, pending->str, pending->len);
            g_string_truncate(pending, 0);
            return line->len > 0;
        }
        g_string_append_len(pending, buf, n);
    }
    g_string_append_len(line, pending->str, newline - pending->str);
    g_string_erase(pending, 0, newline - pending->str + 1);
    return true;
}

int io_run_interactive(QemuIo *io)
{
    GString *pending = g_string_new(NULL);
    GString *line = g_string_new(NULL);
    int ret = 0;

    while (!io->quit) {
        printf("qemu-io> ");
        fflush(stdout);
        if (!read_line(io, pending, line)) {
            break;
        }
        if (io_run_command(io, line->str) < 0) {
            ret = -EINVAL;
        }
    }
    g_string_free(pending, TRUE);
    g_string_free(line, TRUE);
    return ret;
}
