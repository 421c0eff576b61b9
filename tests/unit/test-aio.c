/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioContext: file descriptor and notifier handlers, and the loop itself.
 */
#include "aio-test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* ---- File descriptor handlers ---- */

typedef struct Pipe {
    AioContext *ctx;
    int fds[2];
    int reads;
    int writes;
    struct Pipe *other;
} Pipe;

static void pipe_open(Pipe *p, AioContext *ctx)
{
    *p = (Pipe){ .ctx = ctx };
    g_assert_cmpint(pipe(p->fds), ==, 0);
}

static void pipe_close(Pipe *p)
{
    aio_set_fd_handler(p->ctx, p->fds[0], NULL, NULL);
    aio_set_fd_handler(p->ctx, p->fds[1], NULL, NULL);
    close(p->fds[0]);
    close(p->fds[1]);
}

static void pipe_put(Pipe *p)
{
    g_assert_cmpint(write(p->fds[1], "x", 1), ==, 1);
}

static void take_one(void *opaque)
{
    Pipe *p = opaque;
    char c;

    g_assert_cmpint(read(p->fds[0], &c, 1), ==, 1);
    p->reads++;
}

static void count_write(void *opaque)
{
    Pipe *p = opaque;

    p->writes++;
}

static const AioHandlerOps take_one_ops = { .read = take_one };
static const AioHandlerOps count_write_ops = { .write = count_write };

static void test_fd_level_triggered(void)
{
    AioContext *ctx = test_loop_new();
    Pipe p;

    pipe_open(&p, ctx);
    aio_set_fd_handler(ctx, p.fds[0], &take_one_ops, &p);
    g_assert_false(aio_poll(ctx, false));
    pipe_put(&p);
    pipe_put(&p);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(p.reads, ==, 1);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(p.reads, ==, 2);
    g_assert_false(aio_poll(ctx, false));
    pipe_close(&p);
    test_loop_free(ctx);
}

static void test_fd_write(void)
{
    AioContext *ctx = test_loop_new();
    Pipe p;

    pipe_open(&p, ctx);
    aio_set_fd_handler(ctx, p.fds[1], &count_write_ops, &p);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(p.writes, ==, 1);
    aio_set_fd_handler(ctx, p.fds[1], NULL, NULL);
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(p.writes, ==, 1);
    pipe_close(&p);
    test_loop_free(ctx);
}

static void read_end_of_file(void *opaque)
{
    Pipe *p = opaque;
    char c;

    g_assert_cmpint(read(p->fds[0], &c, 1), ==, 0);
    p->reads++;
}

static void test_fd_hang_up(void)
{
    static const AioHandlerOps ops = { .read = read_end_of_file };
    AioContext *ctx = test_loop_new();
    Pipe p;

    pipe_open(&p, ctx);
    aio_set_fd_handler(ctx, p.fds[0], &ops, &p);
    close(p.fds[1]);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(p.reads, ==, 1);
    aio_set_fd_handler(ctx, p.fds[0], NULL, NULL);
    close(p.fds[0]);
    test_loop_free(ctx);
}

static void remove_self(void *opaque)
{
    Pipe *p = opaque;

    p->reads++;
    aio_set_fd_handler(p->ctx, p->fds[0], NULL, NULL);
}

static void test_fd_remove_self(void)
{
    static const AioHandlerOps ops = { .read = remove_self };
    AioContext *ctx = test_loop_new();
    Pipe p;

    pipe_open(&p, ctx);
    aio_set_fd_handler(ctx, p.fds[0], &ops, &p);
    pipe_put(&p);
    g_assert_true(aio_poll(ctx, true));
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(p.reads, ==, 1);
    pipe_close(&p);
    test_loop_free(ctx);
}

static void remove_both(void *opaque)
{
    Pipe *p = opaque;

    p->reads++;
    aio_set_fd_handler(p->ctx, p->fds[0], NULL, NULL);
    pipe_close(p->other);
}

/* Both are in one batch of events: the second one must not be called. */
static void test_fd_remove_other(void)
{
    static const AioHandlerOps ops = { .read = remove_both };
    AioContext *ctx = test_loop_new();
    Pipe a, b;

    pipe_open(&a, ctx);
    pipe_open(&b, ctx);
    a.other = &b;
    b.other = &a;
    aio_set_fd_handler(ctx, a.fds[0], &ops, &a);
    aio_set_fd_handler(ctx, b.fds[0], &ops, &b);
    pipe_put(&a);
    pipe_put(&b);
    g_assert_true(aio_poll(ctx, true));
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(a.reads + b.reads, ==, 1);
    pipe_close(a.reads ? &a : &b);
    test_loop_free(ctx);
}

static void replace_self(void *opaque)
{
    Pipe *p = opaque;

    aio_set_fd_handler(p->ctx, p->fds[0], &take_one_ops, p);
    aio_set_fd_handler(p->ctx, p->other->fds[0], &take_one_ops, p->other);
}

static void test_fd_add_and_replace_in_handler(void)
{
    static const AioHandlerOps ops = { .read = replace_self };
    AioContext *ctx = test_loop_new();
    Pipe a, b;

    pipe_open(&a, ctx);
    pipe_open(&b, ctx);
    a.other = &b;
    aio_set_fd_handler(ctx, a.fds[0], &ops, &a);
    pipe_put(&a);
    pipe_put(&b);
    test_poll_until(ctx, &a.reads, 1);
    test_poll_until(ctx, &b.reads, 1);
    pipe_close(&a);
    pipe_close(&b);
    test_loop_free(ctx);
}

/* The kernel watches it for as long as somebody has it: here, a duplicate. */
static void test_fd_closed_first(void)
{
    AioContext *ctx;
    Pipe p;

    if (!g_test_subprocess()) {
        test_expect_abort("*closed before its handler was removed*");
        return;
    }
    ctx = test_loop_new();
    pipe_open(&p, ctx);
    g_assert_cmpint(dup(p.fds[0]), >=, 0);
    aio_set_fd_handler(ctx, p.fds[0], &take_one_ops, &p);
    close(p.fds[0]);
    aio_set_fd_handler(ctx, p.fds[0], NULL, NULL);
}

typedef struct HeapOps {
    AioHandlerOps ops;
    Pipe *pipe;
} HeapOps;

static void must_not_write(void *opaque)
{
    g_assert_not_reached();
}

static void free_ops(void *opaque)
{
    HeapOps *h = opaque;
    Pipe *p = h->pipe;

    p->reads++;
    aio_set_fd_handler(p->ctx, p->fds[0], NULL, NULL);
    h->ops.write = must_not_write;
    g_free(h);                          /* ASan looks out for us */
}

static void test_fd_ops_freed_by_handler(void)
{
    AioContext *ctx = test_loop_new();
    HeapOps *h = g_new0(HeapOps, 1);
    Pipe p;

    pipe_open(&p, ctx);
    *h = (HeapOps){ .ops.read = free_ops, .pipe = &p };
    aio_set_fd_handler(ctx, p.fds[0], &h->ops, h);
    pipe_put(&p);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(p.reads, ==, 1);
    pipe_close(&p);
    test_loop_free(ctx);
}

/* ---- Event notifiers ---- */

typedef struct Bell {
    EventNotifier e;
    int rings;
} Bell;

static void count_ring(void *opaque)
{
    Bell *bell = opaque;

    bell->rings++;
}

static const AioHandlerOps count_ring_ops = { .read = count_ring };

static void *ring_thrice(void *opaque)
{
    Bell *bell = opaque;

    for (int i = 0; i < 3; i++) {
        event_notifier_set(&bell->e);
    }
    return NULL;
}

static void test_notifier_cleared_by_loop(void)
{
    AioContext *ctx = test_loop_new();
    Bell bell = { .rings = 0 };

    g_assert_cmpint(event_notifier_init(&bell.e, false), ==, 0);
    aio_set_event_notifier(ctx, &bell.e, &count_ring_ops, &bell);
    test_in_thread(ring_thrice, &bell);
    test_poll_until(ctx, &bell.rings, 1);
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(bell.rings, ==, 1);
    aio_set_event_notifier(ctx, &bell.e, NULL, NULL);
    event_notifier_set(&bell.e);
    g_assert_false(aio_poll(ctx, false));
    event_notifier_cleanup(&bell.e);
    test_loop_free(ctx);
}

/* ---- The loop ---- */

static void poll_again(void *opaque)
{
    aio_poll(opaque, false);
}

static void test_poll_nested(void)
{
    if (!g_test_subprocess()) {
        test_expect_abort("*in_poll*");
        return;
    }
    AioContext *ctx = test_loop_new();

    aio_bh_schedule_oneshot(ctx, poll_again, ctx);
    aio_poll(ctx, true);
}

static void test_poll_by_stranger(void)
{
    if (!g_test_subprocess()) {
        test_expect_abort("*current_context*");
        return;
    }
    aio_poll(aio_context_new(&error_abort), false);
}

static void test_current(void)
{
    AioContext *ctx;

    g_assert_null(aio_context_current());
    ctx = test_loop_new();
    g_assert_true(aio_context_current() == ctx);
    test_loop_free(ctx);
    g_assert_null(aio_context_current());
}

static void *notify(void *opaque)
{
    aio_notify(opaque);
    return NULL;
}

static void test_notify_ends_sleep(void)
{
    AioContext *ctx = test_loop_new();
    QemuThread thread;

    for (int i = 0; i < 100; i++) {
        qemu_thread_create(&thread, "notify", notify, ctx);
        aio_poll(ctx, true);
        qemu_thread_join(&thread);
        aio_poll(ctx, false);
    }
    test_loop_free(ctx);
}

/* Make system call @nr fail with @error from here on. */
static void forbid(int nr, int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = { ARRAY_SIZE(code), code };

    g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), ==, 0);
}

static void set_flag(void *opaque)
{
    *(int *)opaque = 1;
}

/* Container sandboxes answer EPERM to system calls that they do not know. */
static void test_poll_without_pwait2(void)
{
    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_passed();
        return;
    }
    AioContext *ctx = test_loop_new();
    QEMUTimer timer;
    int fired = 0;

    forbid(SYS_epoll_pwait2, EPERM);
    timer_init_ns(&timer, ctx, set_flag, &fired);
    timer_mod_ns(&timer, qemu_clock_ns() + 3 * NS_PER_MS / 2);
    test_poll_until(ctx, &fired, 1);
    test_loop_free(ctx);
}

static void ignore_signal(int number)
{
}

static void *interrupt(void *opaque)
{
    pthread_t *sleeper = opaque;

    for (int i = 0; i < 50; i++) {
        pthread_kill(*sleeper, SIGUSR1);
        g_thread_yield();
    }
    return NULL;
}

static void test_poll_survives_signals(void)
{
    struct sigaction action = { .sa_handler = ignore_signal }, old;
    AioContext *ctx = test_loop_new();
    pthread_t self = pthread_self();
    QEMUTimer timer;
    QemuThread thread;
    int fired = 0;

    sigaction(SIGUSR1, &action, &old);
    timer_init_ns(&timer, ctx, set_flag, &fired);
    timer_mod_ns(&timer, qemu_clock_ns() + 5 * NS_PER_MS);
    qemu_thread_create(&thread, "interrupt", interrupt, &self);
    test_poll_until(ctx, &fired, 1);
    qemu_thread_join(&thread);
    sigaction(SIGUSR1, &old, NULL);
    test_loop_free(ctx);
}

static void count_destroy(void *object)
{
    ++*(int *)object;
}

static void test_slots(void)
{
    AioContext *ctx = test_loop_new();
    int destroyed = 0;

    g_assert_null(aio_context_get_slot(ctx, AIO_SLOT_IO_URING));
    aio_context_set_slot(ctx, AIO_SLOT_IO_URING, &destroyed, count_destroy);
    g_assert_true(aio_context_get_slot(ctx, AIO_SLOT_IO_URING) == &destroyed);
    g_assert_null(aio_context_get_slot(ctx, AIO_SLOT_LINUX_AIO));
    aio_context_ref(ctx);
    aio_context_unref(ctx);
    g_assert_cmpint(destroyed, ==, 0);
    test_loop_free(ctx);
    g_assert_cmpint(destroyed, ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/aio/fd/level-triggered", test_fd_level_triggered);
    g_test_add_func("/aio/fd/write", test_fd_write);
    g_test_add_func("/aio/fd/hang-up-reads", test_fd_hang_up);
    g_test_add_func("/aio/fd/remove-self", test_fd_remove_self);
    g_test_add_func("/aio/fd/remove-other", test_fd_remove_other);
    g_test_add_func("/aio/fd/add-and-replace-in-handler",
                    test_fd_add_and_replace_in_handler);
    g_test_add_func("/aio/fd/ops-freed-by-handler",
                    test_fd_ops_freed_by_handler);
    g_test_add_func("/aio/fd/closed-first-asserts", test_fd_closed_first);
    g_test_add_func("/aio/notifier/cleared-by-loop",
                    test_notifier_cleared_by_loop);
    g_test_add_func("/aio/poll/nested-asserts", test_poll_nested);
    g_test_add_func("/aio/poll/by-stranger-asserts", test_poll_by_stranger);
    g_test_add_func("/aio/poll/without-pwait2", test_poll_without_pwait2);
    g_test_add_func("/aio/poll/survives-signals", test_poll_survives_signals);
    g_test_add_func("/aio/context/current", test_current);
    g_test_add_func("/aio/notify/ends-sleep", test_notify_ends_sleep);
    g_test_add_func("/aio/slots/destroyed-with-context", test_slots);
    return g_test_run();
}
