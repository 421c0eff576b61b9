/*
 * A client's QMP session: what is left of it when the client is gone.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include <glib-unix.h>
#include "qemu/thread.h"
#include "qmp.h"

#define N_COMMANDS 300

static const QmpCommand no_commands[] = { { NULL } };

typedef struct Peer {
    AioContext *ctx;
    QmpSession *session;        /* NULL: it has closed itself */
    int fd;                     /* the client's end */
} Peer;

static void on_closed(QmpSession *session, void *opaque)
{
    Peer *p = opaque;

    g_assert_true(session == p->session);
    qmp_session_free(session);
    p->session = NULL;
}

static void peer_begin(Peer *p)
{
    int fds[2], small = 1;

    p->ctx = aio_context_new(&error_abort);
    aio_context_enter(p->ctx);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==,
                    0);
    /* Answers soon have to wait for the client. */
    g_assert_cmpint(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small,
                               sizeof(small)), ==, 0);
    g_assert_true(g_unix_set_fd_nonblocking(fds[0], TRUE, NULL));
    p->fd = fds[1];
    p->session = qmp_session_new(p->ctx, fds[0], fds[0], false, no_commands, p,
                                 on_closed);
}

static void peer_end(Peer *p)
{
    g_assert_null(p->session);
    aio_context_leave(p->ctx);
    aio_context_unref(p->ctx);
}

/* All that can be handled now is: a command takes an iteration. */
static void handle_all(Peer *p)
{
    for (int i = 0; i < 3 * N_COMMANDS && p->session; i++) {
        aio_poll(p->ctx, false);
    }
}

static void ask(Peer *p, const char *command)
{
    g_autofree char *text = g_strdup_printf("{'execute':'%s'}", command);
    ssize_t len = strlen(text);

    g_assert_cmpint(write(p->fd, text, len), ==, len);
}

/* It asks for a lot, hangs up its sending side, and reads nothing. */
static void ask_and_hang_up(Peer *p)
{
    ask(p, "qmp_capabilities");
    for (int i = 0; i < N_COMMANDS; i++) {
        ask(p, "query-commands");
        aio_poll(p->ctx, false);
    }
    g_assert_cmpint(shutdown(p->fd, SHUT_WR), ==, 0);
    handle_all(p);
    /* There are answers yet for it. */
    g_assert_nonnull(p->session);
}

static void test_dies_before_answers(void)
{
    Peer p;

    peer_begin(&p);
    ask_and_hang_up(&p);
    close(p.fd);
    handle_all(&p);
    peer_end(&p);
}

/* The event meets the failure first; the loop has nothing to say then. */
static void test_dies_while_event_is_written(void)
{
    json_t *data = json_object();
    Peer p;

    peer_begin(&p);
    ask_and_hang_up(&p);
    close(p.fd);
    qmp_session_event(p.session, "EVENT", data);
    json_decref(data);
    handle_all(&p);
    peer_end(&p);
}

static void test_reads_to_the_end(void)
{
    char buf[4096];
    size_t lines = 0;
    ssize_t n;
    Peer p;

    peer_begin(&p);
    ask_and_hang_up(&p);
    do {
        n = recv(p.fd, buf, sizeof(buf), MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++) {
            lines += buf[i] == '\n';
        }
        handle_all(&p);
    } while (n > 0);
    g_assert_cmpint(n, ==, 0);
    /* The greeting and an answer each. */
    g_assert_cmpint(lines, ==, 1 + 1 + N_COMMANDS);
    close(p.fd);
    peer_end(&p);
}

/* ---- The daemon ends the session ---- */

/* Answers wait, and the client is still there. */
static void answers_wait(Peer *p)
{
    ask(p, "qmp_capabilities");
    for (int i = 0; i < N_COMMANDS; i++) {
        ask(p, "query-commands");
        aio_poll(p->ctx, false);
    }
    handle_all(p);
}

static void *reader_main(void *opaque)
{
    Peer *p = opaque;
    char buf[4096];
    size_t lines = 0;
    ssize_t n;

    while ((n = read(p->fd, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            lines += buf[i] == '\n';
        }
    }
    return (void *)lines;
}

static void test_rest_is_read(void)
{
    QemuThread reader;
    Peer p;

    peer_begin(&p);
    answers_wait(&p);
    g_assert_cmpint(qemu_thread_create(&reader, "reader", reader_main, &p), ==,
                    0);
    qmp_session_free(g_steal_pointer(&p.session));
    g_assert_cmpuint((size_t)qemu_thread_join(&reader), ==,
                     1 + 1 + N_COMMANDS);
    close(p.fd);
    peer_end(&p);
}

/* Returns; the meson test's own limit is the check. */
static void test_rest_is_not_read(void)
{
    Peer p;

    peer_begin(&p);
    answers_wait(&p);
    qmp_session_free(g_steal_pointer(&p.session));
    close(p.fd);
    peer_end(&p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    g_test_add_func("/qmp/client/dies-before-its-answers",
                    test_dies_before_answers);
    g_test_add_func("/qmp/client/dies-while-an-event-is-written",
                    test_dies_while_event_is_written);
    g_test_add_func("/qmp/client/reads-to-the-end-after-hanging-up",
                    test_reads_to_the_end);
    g_test_add_func("/qmp/end/rest-is-read", test_rest_is_read);
    g_test_add_func("/qmp/end/rest-is-not-read", test_rest_is_not_read);
    return g_test_run();
}
