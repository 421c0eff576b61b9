/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A back end that is killed with requests in flight, and the next, which gets
 * the inflight buffer and does them.  The server is a process of its own here
 * (forked while this one has no threads).
 */
#include "qemu/osdep.h"
#include "fake-server.h"
#include <glib/gstdio.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#define WAIT_MS 10000
#define SECTOR 512

typedef struct Fixture {
    char *dir;
    char *path;
    pid_t pid;
    int tell;                   /* a byte from the server: it listens; another
                                 * one: so many requests are held */
    VufeFrontend *fe;
    uint64_t headers;           /* guest addresses of arrays */
    uint64_t data;
    uint64_t status;
} Fixture;

/* ---- The server ---- */

/* Say when it listens, and, with @hold, when that many requests are held back,
 * each for itself.  The end is a signal in any case. */
static G_NORETURN void run_server(const char *path, unsigned hold, int tell)
{
    FakeServer *s;

    fake_server_merges = false;
    s = fake_server_new_at(path);
    fake_blk_hold(s->blk, hold > 0);
    g_assert_cmpint(write(tell, "", 1), ==, 1);
    if (hold) {
        fake_blk_wait_held(s->blk, hold);
        g_assert_cmpint(write(tell, "", 1), ==, 1);
    }
    for (;;) {
        pause();
    }
}

static void wait_for_server(Fixture *f)
{
    struct pollfd pfd = { .fd = f->tell, .events = POLLIN };
    char byte;

    g_assert_cmpint(poll(&pfd, 1, WAIT_MS), ==, 1);
    g_assert_cmpint(read(f->tell, &byte, 1), ==, 1);
}

static void start_server(Fixture *f, unsigned hold)
{
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    f->pid = fork();
    g_assert_cmpint(f->pid, >=, 0);
    if (f->pid == 0) {
        close(fds[0]);
        run_server(f->path, hold, fds[1]);
    }
    close(fds[1]);
    f->tell = fds[0];
    wait_for_server(f);
}

static void kill_server(Fixture *f)
{
    int status;

    kill(f->pid, SIGKILL);
    g_assert_cmpint(waitpid(f->pid, &status, 0), ==, f->pid);
    close(f->tell);
}

/* ---- The front end ---- */

static void fixture_setup(Fixture *f, const void *arg)
{
    VufeOptions opts = { .packed = GPOINTER_TO_INT(arg), .inflight = true,
                         .indirect = true, .event_idx = true };

    f->dir = g_dir_make_tmp("vhost-user-kill-XXXXXX", NULL);
    g_assert_nonnull(f->dir);
    f->path = g_build_filename(f->dir, "sock", NULL);
    f->fe = vufe_new(f->path, &opts);
    g_assert_nonnull(f->fe);
    f->headers = vufe_mem_alloc(&f->fe->mem, 0, 64 * 16, 64);
    f->data = vufe_mem_alloc(&f->fe->mem, 0, 64 * SECTOR, 64);
    f->status = vufe_mem_alloc(&f->fe->mem, 0, 64, 64);
}

static void fixture_teardown(Fixture *f, const void *arg)
{
    vufe_close(f->fe);
    kill_server(f);
    unlink(f->path);
    g_rmdir(f->dir);
    g_free(f->path);
    g_free(f->dir);
}

/* Write sector @n (1…63), with contents that say so. */
static void start_write(Fixture *f, int n)
{
    struct virtio_blk_outhdr *hdr =
        vufe_mem_ptr(&f->fe->mem, f->headers + n * 16, 16);
    VufeBuf bufs[] = {
        { f->headers + n * 16, 16, false },
        { f->data + n * SECTOR, SECTOR, false },
        { f->status + n, 1, true },
    };

    *hdr = (struct virtio_blk_outhdr) { .type = VIRTIO_BLK_T_OUT,
                                        .sector = n };
    memset(vufe_mem_ptr(&f->fe->mem, f->data + n * SECTOR, SECTOR), n, SECTOR);
    memset(vufe_mem_ptr(&f->fe->mem, f->status + n, 1), 0xff, 1);
    g_assert_cmpint(vufe_ring_add(&f->fe->rings[0], bufs, 3, n % 2,
                                  (void *)(intptr_t)n), >=, 0);
}

/* Each of the writes 1…@n has to come back once, and well. */
static void finish_writes(Fixture *f, int n)
{
    g_autofree bool *seen = g_new0(bool, n + 1);
    VufeRing *r = &f->fe->rings[0];

    for (int i = 0; i < n; i++) {
        void *token;
        uint32_t len;
        intptr_t got;

        g_assert_cmpint(vufe_ring_wait(r, WAIT_MS), ==, 0);
        g_assert_cmpint(vufe_ring_get_used(r, &token, &len), ==, 1);
        got = (intptr_t)token;
        g_assert_cmpint(got, >=, 1);
        g_assert_cmpint(got, <=, n);
        g_assert_false(seen[got]);
        seen[got] = true;
        g_assert_cmpint(*(char *)vufe_mem_ptr(&f->fe->mem, f->status + got, 1),
                        ==, VIRTIO_BLK_S_OK);
    }
    g_assert_false(vufe_ring_has_used(r));
}

static void connect_first(Fixture *f)
{
    g_assert_cmpint(vufe_connect(f->fe), ==, 0);
    g_assert_cmpint(vufe_negotiate(f->fe), ==, 0);
    g_assert_cmpint(vufe_share_memory(f->fe), ==, 0);
    g_assert_cmpint(vufe_setup_inflight(f->fe), ==, 0);
    g_assert_cmpint(vufe_start_rings(f->fe), ==, 0);
}

static void check_data(Fixture *f, int n)
{
    char buf[SECTOR];

    for (int i = 1; i <= n; i++) {
        g_assert_cmpint(vufe_blk_read(f->fe, 0, i * SECTOR, buf, SECTOR), ==,
                        0);
        g_assert_cmpint(buf[0], ==, i);
        g_assert_cmpint(buf[SECTOR - 1], ==, i);
    }
}

/* Killed with all of them in flight, some of them not even popped. */
static void test_kill(Fixture *f, const void *arg)
{
    start_server(f, 20);
    connect_first(f);
    for (int i = 1; i <= 20; i++) {
        start_write(f, i);
    }
    vufe_ring_kick(&f->fe->rings[0]);
    wait_for_server(f);    /* all are held */
    kill_server(f);
    for (int i = 21; i <= 30; i++) {
        start_write(f, i);
    }
    vufe_ring_publish(&f->fe->rings[0]);

    start_server(f, 0);
    g_assert_cmpint(vufe_reconnect(f->fe), ==, 0);
    finish_writes(f, 30);
    check_data(f, 30);
}

/* Killed again and again; the last one does it. */
static void test_kill_often(Fixture *f, const void *arg)
{
    start_server(f, 20);
    connect_first(f);
    for (int i = 1; i <= 20; i++) {
        start_write(f, i);
    }
    vufe_ring_kick(&f->fe->rings[0]);
    for (int i = 0; i < 5; i++) {
        wait_for_server(f);    /* all are held */
        kill_server(f);
        start_server(f, 20);
        g_assert_cmpint(vufe_reconnect(f->fe), ==, 0);
    }
    wait_for_server(f);    /* all are held */
    kill_server(f);
    start_server(f, 0);
    g_assert_cmpint(vufe_reconnect(f->fe), ==, 0);
    finish_writes(f, 20);
    check_data(f, 20);
}

/* Killed while idle: nothing is done twice. */
static void test_kill_idle(Fixture *f, const void *arg)
{
    start_server(f, 0);
    connect_first(f);
    for (int i = 0; i < 5; i++) {
        start_write(f, 1);
        vufe_ring_kick(&f->fe->rings[0]);
        finish_writes(f, 1);
        kill_server(f);
        start_server(f, 0);
        g_assert_cmpint(vufe_reconnect(f->fe), ==, 0);
    }
}

static void add_test(const char *name,
                     void (*fn)(Fixture *f, const void *arg))
{
    for (int packed = 0; packed < 2; packed++) {
        g_autofree char *path = g_strdup_printf("/vhost-user-kill/%s/%s",
                                                packed ? "packed" : "split",
                                                name);

        g_test_add(path, Fixture, GINT_TO_POINTER(packed), fixture_setup, fn,
                   fixture_teardown);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_test("in-flight", test_kill);
    add_test("again-and-again", test_kill_often);
    add_test("idle", test_kill_idle);
    return g_test_run();
}
