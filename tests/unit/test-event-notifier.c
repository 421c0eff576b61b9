/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Event notifiers, as an eventfd and as the pipe of systems without it.
 */
#include "qemu/osdep.h"
#include "qemu/event_notifier.h"
#include "qemu/thread.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* More than a pipe holds at eight bytes each. */
#define MANY 20000

typedef int InitFn(EventNotifier *e);

static int init_default(EventNotifier *e)
{
    return event_notifier_init(e, false);
}

static int init_peer_fd(EventNotifier *e)
{
    int fd = eventfd(0, EFD_CLOEXEC);       /* blocking, as peers send it */

    g_assert_cmpint(fd, >=, 0);
    return event_notifier_init_fd(e, fd);
}

typedef struct Kind {
    const char *name;
    InitFn *init;
} Kind;

static const Kind kinds[] = {
    { "eventfd", init_default },
    { "pipe", event_notifier_init_pipe },
    { "peer", init_peer_fd },
};
#define ALL ARRAY_SIZE(kinds)

static bool is_readable(EventNotifier *e)
{
    struct pollfd p = { .fd = event_notifier_get_fd(e), .events = POLLIN };

    return RETRY_ON_EINTR(poll(&p, 1, 0)) == 1;
}

static void test_starts_lowered(gconstpointer data)
{
    const Kind *kind = data;
    EventNotifier e;

    g_assert_cmpint(kind->init(&e), ==, 0);
    g_assert_true(event_notifier_is_valid(&e));
    g_assert_false(is_readable(&e));
    g_assert_false(event_notifier_test_and_clear(&e));
    event_notifier_cleanup(&e);
    g_assert_false(event_notifier_is_valid(&e));
    event_notifier_cleanup(&e);             /* harmless */
}

static void test_set_once_clear_once(gconstpointer data)
{
    const Kind *kind = data;
    EventNotifier e;

    g_assert_cmpint(kind->init(&e), ==, 0);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(event_notifier_set(&e), ==, 0);
        g_assert_true(is_readable(&e));
        g_assert_true(event_notifier_test_and_clear(&e));
        g_assert_false(is_readable(&e));
        g_assert_false(event_notifier_test_and_clear(&e));
    }
    event_notifier_cleanup(&e);
}

static void test_set_never_blocks(gconstpointer data)
{
    const Kind *kind = data;
    EventNotifier e;

    g_assert_cmpint(kind->init(&e), ==, 0);
    for (int i = 0; i < MANY; i++) {
        g_assert_cmpint(event_notifier_set(&e), ==, 0);
    }
    g_assert_true(event_notifier_test_and_clear(&e));
    g_assert_false(is_readable(&e));
    event_notifier_cleanup(&e);
}

/* It may be called in a signal handler: errno belongs to the interrupted. */
static void test_set_keeps_errno(gconstpointer data)
{
    const Kind *kind = data;
    EventNotifier e;

    g_assert_cmpint(kind->init(&e), ==, 0);
    for (int i = 0; i < MANY; i++) {
        errno = ENOTTY;
        event_notifier_set(&e);
        g_assert_cmpint(errno, ==, ENOTTY);
    }
    event_notifier_cleanup(&e);
}

static void *set_notifier(void *opaque)
{
    event_notifier_set(opaque);
    return NULL;
}

static void test_set_by_thread(gconstpointer data)
{
    const Kind *kind = data;
    EventNotifier e;
    QemuThread thread;
    struct pollfd p = { .events = POLLIN };

    g_assert_cmpint(kind->init(&e), ==, 0);
    p.fd = event_notifier_get_fd(&e);
    qemu_thread_create(&thread, "set", set_notifier, &e);
    g_assert_cmpint(RETRY_ON_EINTR(poll(&p, 1, 30000)), ==, 1);
    g_assert_true(event_notifier_test_and_clear(&e));
    qemu_thread_join(&thread);
    event_notifier_cleanup(&e);
}

/* What a hostile peer may send instead of an eventfd. */
static void test_refuses_other_files(void)
{
    static const char *const paths[] = { "/dev/null", "/dev/urandom", "/",
                                         "/proc/self/exe" };
    EventNotifier e;
    int fds[2];

    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        int fd = open(paths[i], O_RDONLY | O_CLOEXEC);

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(event_notifier_init_fd(&e, fd), ==, -EINVAL);
        g_assert_false(event_notifier_is_valid(&e));
        g_assert_cmpint(close(fd), ==, 0);          /* still ours */
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    g_assert_cmpint(event_notifier_init_fd(&e, fds[0]), ==, -EINVAL);
    close(fds[0]);
    close(fds[1]);
    g_assert_cmpint(event_notifier_init_fd(&e, -1), ==, -EINVAL);
    g_assert_false(event_notifier_is_valid(&e));
}

static void *flood(void *opaque)
{
    static const char buf[65536];
    int *fd = opaque;

    while (write(*fd, buf, sizeof(buf)) > 0) {
        /* until there is no reader */
    }
    return NULL;
}

/* A peer that writes all the time must not keep us inside of clear. */
static void test_clear_ends(void)
{
    EventNotifier e;
    QemuThread thread;
    int fds[2];

    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(event_notifier_init_fd(&e, fds[0]), ==, 0);
    qemu_thread_create(&thread, "flood", flood, &fds[1]);
    for (int i = 0; i < 100; i++) {
        event_notifier_test_and_clear(&e);
    }
    event_notifier_cleanup(&e);
    qemu_thread_join(&thread);
    close(fds[1]);
    alarm(0);
}

/* What a peer holds of our notifier, made such that a plain call blocks. */
static void test_peer_cannot_block(void)
{
    uint64_t full = UINT64_MAX - 1;
    EventNotifier e;
    int fd = eventfd(0, EFD_CLOEXEC);
    int peer = dup(fd);

    alarm(10);
    g_assert_cmpint(event_notifier_init_fd(&e, fd), ==, 0);
    g_assert_cmpint(fcntl(peer, F_SETFL, 0), ==, 0);
    g_assert_false(event_notifier_test_and_clear(&e));
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(event_notifier_set(&e), ==, 0);
    }
    g_assert_true(event_notifier_test_and_clear(&e));
    g_assert_cmpint(write(peer, &full, sizeof(full)), ==, sizeof(full));
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(event_notifier_set(&e), ==, 0);
    }
    g_assert_true(event_notifier_test_and_clear(&e));
    g_assert_false(event_notifier_test_and_clear(&e));
    event_notifier_cleanup(&e);
    close(peer);
    alarm(0);
}

static void test_peer_cannot_block_pipe(void)
{
    EventNotifier r, w;
    int fds[2], flags[2];

    alarm(10);
    g_assert_cmpint(pipe(fds), ==, 0);
    flags[0] = dup(fds[0]);
    flags[1] = dup(fds[1]);
    g_assert_cmpint(event_notifier_init_fd(&r, fds[0]), ==, 0);
    g_assert_cmpint(event_notifier_init_fd(&w, fds[1]), ==, 0);
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(fcntl(flags[i], F_SETFL, 0), ==, 0);
    }
    g_assert_false(event_notifier_test_and_clear(&r));
    for (int i = 0; i < MANY; i++) {
        g_assert_cmpint(event_notifier_set(&w), ==, 0);
    }
    g_assert_true(event_notifier_test_and_clear(&r));
    event_notifier_cleanup(&r);
    event_notifier_cleanup(&w);
    close(flags[0]);
    close(flags[1]);
    alarm(0);
}

static void test_starts_raised(void)
{
    EventNotifier e;

    g_assert_cmpint(event_notifier_init(&e, true), ==, 0);
    g_assert_true(event_notifier_test_and_clear(&e));
    g_assert_false(event_notifier_test_and_clear(&e));
    event_notifier_cleanup(&e);
}

static void test_not_inherited(gconstpointer data)
{
    const Kind *kind = data;
    EventNotifier e;

    g_assert_cmpint(kind->init(&e), ==, 0);
    g_assert_cmpint(fcntl(e.rfd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
    g_assert_cmpint(fcntl(e.wfd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
    event_notifier_cleanup(&e);
}

static void test_no_descriptors_left(void)
{
    struct rlimit old, none;
    EventNotifier e, p;

    memset(&e, 0, sizeof(e));
    memset(&p, 0, sizeof(p));
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
    none = (struct rlimit){ .rlim_cur = 0, .rlim_max = old.rlim_max };
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    int ret = event_notifier_init(&e, true);
    int ret_pipe = event_notifier_init_pipe(&p);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &old), ==, 0);

    g_assert_cmpint(ret, ==, -EMFILE);
    g_assert_cmpint(ret_pipe, ==, -EMFILE);
    g_assert_false(event_notifier_is_valid(&e));
    g_assert_false(event_notifier_is_valid(&p));
    event_notifier_cleanup(&e);             /* must not close descriptor 0 */
    event_notifier_cleanup(&p);
    g_assert_cmpint(fcntl(0, F_GETFD), >=, 0);
}

static void add_for_kinds(const char *what, GTestDataFunc fn, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        g_autofree char *path = g_strdup_printf("/event-notifier/%s/%s",
                                                kinds[i].name, what);

        g_test_add_data_func(path, &kinds[i], fn);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_for_kinds("starts-lowered", test_starts_lowered, ALL);
    add_for_kinds("set-once-clear-once", test_set_once_clear_once, ALL);
    add_for_kinds("set-never-blocks", test_set_never_blocks, ALL);
    add_for_kinds("set-keeps-errno", test_set_keeps_errno, ALL);
    add_for_kinds("set-by-thread", test_set_by_thread, ALL);
    /* A peer's descriptor is as the transport received it. */
    add_for_kinds("not-inherited", test_not_inherited, 2);
    g_test_add_func("/event-notifier/init/starts-raised", test_starts_raised);
    g_test_add_func("/event-notifier/peer/refuses-other-files",
                    test_refuses_other_files);
    g_test_add_func("/event-notifier/peer/clear-ends", test_clear_ends);
    g_test_add_func("/event-notifier/peer/cannot-block-eventfd",
                    test_peer_cannot_block);
    g_test_add_func("/event-notifier/peer/cannot-block-pipe",
                    test_peer_cannot_block_pipe);
    g_test_add_func("/event-notifier/init/no-descriptors-left",
                    test_no_descriptors_left);
    return g_test_run();
}
