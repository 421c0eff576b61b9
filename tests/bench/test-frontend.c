/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The front-end library against the limit server: each shape of ring that both
 * can do moves real data to a file and back.  What the library then reports of
 * other servers can be believed.
 *
 * LIMIT_SERVER names the binary.  Every test starts a server of its own on a
 * file of its own, in a temporary folder, and kills it by its pid.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/virtio_blk.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vufe-blk.h"

#define DISK_SIZE (8 << 20)

typedef struct Server {
    char *dir, *socket, *disk;
    GPid pid;
} Server;

static void server_spawn(Server *s, bool null, int queues)
{
    g_autofree char *nq = g_strdup_printf("%d", queues);
    const char *argv[] = { g_getenv("LIMIT_SERVER"), "--socket", s->socket,
                           "--queues", nq, null ? NULL : "--file",
                           s->disk, NULL };
    g_autoptr(GError) err = NULL;

    g_spawn_async(NULL, (char **)argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL,
                  NULL, &s->pid, &err);
    g_assert_no_error(err);
}

static void server_start(Server *s, bool null, int queues)
{
    int fd;

    s->dir = g_dir_make_tmp("vufe-XXXXXX", NULL);
    g_assert_nonnull(s->dir);
    s->socket = g_build_filename(s->dir, "s", NULL);
    s->disk = g_build_filename(s->dir, "d", NULL);
    fd = g_open(s->disk, O_RDWR | O_CREAT | O_EXCL, 0600);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, DISK_SIZE), ==, 0);
    close(fd);
    server_spawn(s, null, queues);
}

static void server_kill(Server *s)
{
    int status;

    kill(s->pid, SIGKILL);
    g_assert_cmpint(waitpid(s->pid, &status, 0), ==, s->pid);
    g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void server_stop(Server *s)
{
    server_kill(s);
    g_unlink(s->socket);
    g_unlink(s->disk);
    g_rmdir(s->dir);
    g_free(s->socket);
    g_free(s->disk);
    g_free(s->dir);
}

static VufeFrontend *open_or_die(Server *s, const VufeOptions *opts)
{
    char *msg = NULL;
    VufeFrontend *fe = vufe_open(s->socket, opts, &msg);

    if (!fe) {
        g_error("%s", msg);
    }
    return fe;
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    size_t i;

    for (i = 0; i < len; i++) {
        buf[i] = (i * 31 + seed * 131 + (i >> 9)) & 0xff;
    }
}

/* Writes and reads back through ring @queue, and compares with the file. */
static void roundtrip(Server *s, VufeFrontend *fe, unsigned queue, int n)
{
    enum { LEN = 24 << 10 };
    uint8_t out[LEN], in[LEN], disk[LEN];
    int64_t offset = (int64_t)(n * 7 + queue) % 200 * 32768;
    int fd;

    fill(out, LEN, n);
    g_assert_cmpint(vufe_blk_write(fe, queue, offset, out, LEN), ==, 0);
    g_assert_cmpint(vufe_blk_read(fe, queue, offset, in, LEN), ==, 0);
    g_assert_cmpmem(in, LEN, out, LEN);
    fd = g_open(s->disk, O_RDONLY, 0);
    g_assert_cmpint(pread(fd, disk, LEN, offset), ==, LEN);
    close(fd);
    g_assert_cmpmem(disk, LEN, out, LEN);
}

static void test_shape(gconstpointer opaque)
{
    const VufeOptions *opts = opaque;
    unsigned queues = opts->num_queues ? opts->num_queues : 1;
    unsigned q;
    Server s;
    int n;

    server_start(&s, false, queues);
    {
        g_autoptr(VufeFrontend) fe = open_or_die(&s, opts);

        /* More rounds than the ring has entries: indices and slots wrap. */
        for (n = 0; n < 200; n++) {
            for (q = 0; q < queues; q++) {
                roundtrip(&s, fe, q, n);
            }
        }
        g_assert_cmpint(vufe_blk_flush(fe, 0), ==, VIRTIO_BLK_S_OK);
    }
    server_stop(&s);
}

/* Data cut into many descriptors arrives in one piece. */
static void test_segments(void)
{
    const VufeOptions opts = { .indirect = true, .event_idx = true };
    uint8_t out[16384], in[16384];
    unsigned segments;
    Server s;

    server_start(&s, false, 1);
    {
        g_autoptr(VufeFrontend) fe = open_or_die(&s, &opts);

        for (segments = 1; segments <= 126; segments += 5) {
            VufeBlkShape direct = { segments, true };
            VufeBlkShape table = { segments, false };

            fill(out, sizeof(out), segments);
            g_assert_cmpint(vufe_blk_request(fe, 0, VIRTIO_BLK_T_OUT, 8, out,
                                             sizeof(out), NULL, 0, &direct),
                            ==, 0);
            g_assert_cmpint(vufe_blk_request(fe, 0, VIRTIO_BLK_T_IN, 8, NULL,
                                             0, in, sizeof(in), &table),
                            ==, 0);
            g_assert_cmpmem(in, sizeof(in), out, sizeof(out));
        }
    }
    server_stop(&s);
}

/* A full ring refuses; what was in it all comes back, with one call. */
static void test_batch(void)
{
    const VufeOptions opts = { .event_idx = true, .queue_size = 64 };
    static char tokens[64];
    int n = 0, got = 0;
    Server s;

    server_start(&s, true, 1);
    {
        g_autoptr(VufeFrontend) fe = open_or_die(&s, &opts);
        VufeRing *r = &fe->rings[0];
        uint64_t gpa = vufe_mem_alloc(&fe->mem, 0, 4096, 4096);
        VufeBuf bufs[2] = { { gpa, 16, false }, { gpa + 64, 1, true } };
        uint32_t len;
        void *token;

        while (vufe_ring_add(r, bufs, 2, false, &tokens[n]) >= 0) {
            n++;
        }
        g_assert_cmpint(n, ==, 32);
        g_assert_cmpint(vufe_ring_add(r, bufs, 2, false, tokens), ==,
                        -ENOSPC);
        g_assert_true(vufe_ring_kick(r));
        while (got < n) {
            g_assert_cmpint(vufe_ring_wait(r, 10000), ==, 0);
            while (vufe_ring_get_used(r, &token, &len) == 1) {
                g_assert_true(token == &tokens[got]);
                got++;
            }
        }
        g_assert_cmpint(r->num_kicks, ==, 1);
        g_assert_cmpint(r->num_free, ==, 64);
    }
    server_stop(&s);
}

/* GET_VRING_BASE stops a ring, and it goes on from there. */
static void test_stop_start(void)
{
    const VufeOptions opts = { .event_idx = true };
    Server s;
    int n;

    server_start(&s, false, 1);
    {
        g_autoptr(VufeFrontend) fe = open_or_die(&s, &opts);

        for (n = 0; n < 5; n++) {
            roundtrip(&s, fe, 0, n);
            g_assert_cmpint(vufe_stop_ring(fe, 0), ==, 0);
            g_assert_cmpint(fe->base[0], ==, 2 * (n + 1));
            g_assert_cmpint(vufe_start_ring(fe, 0), ==, 0);
        }
    }
    server_stop(&s);
}

/* A killed server is noticed; a new one gets the same memory and goes on. */
static void test_reconnect(void)
{
    const VufeOptions opts = { .event_idx = true, .num_queues = 2 };
    Server s;

    server_start(&s, false, 2);
    {
        g_autoptr(VufeFrontend) fe = open_or_die(&s, &opts);

        roundtrip(&s, fe, 0, 1);
        roundtrip(&s, fe, 1, 2);
        server_kill(&s);
        g_assert_cmpint(vufe_wait_hangup(&fe->conn, 10000), ==, 0);
        server_spawn(&s, false, 2);
        g_assert_cmpint(vufe_reconnect(fe), ==, 0);
        roundtrip(&s, fe, 0, 3);
        roundtrip(&s, fe, 1, 4);
    }
    server_stop(&s);
}

/* Size, queue count and the options that a server cannot meet. */
static void test_offers(void)
{
    const VufeOptions packed = { .packed = true };
    const VufeOptions many = { .num_queues = 4 };
    char *msg = NULL;
    int64_t size = 0;
    Server s;

    server_start(&s, false, 2);
    g_assert_null(vufe_open(s.socket, &packed, &msg));
    g_assert_cmpstr(msg, ==, "back end lacks packed rings: Operation not "
                             "supported");
    g_clear_pointer(&msg, g_free);
    g_assert_null(vufe_open(s.socket, &many, &msg));
    g_assert_nonnull(strstr(msg, "back end has 2 queues, not 4"));
    g_clear_pointer(&msg, g_free);
    {
        g_autoptr(VufeFrontend) fe = open_or_die(&s, NULL);

        g_assert_cmpint(vufe_blk_get_size(fe, &size), ==, 0);
        g_assert_cmpint(size, ==, DISK_SIZE);
        g_assert_cmpint(vufe_call_empty(&fe->conn, 99), ==, -EREMOTEIO);
        g_assert_cmpint(vufe_blk_discard(fe, 0, 0, 4096), ==,
                        VIRTIO_BLK_S_UNSUPP);
        g_assert_cmpint(vufe_blk_get_size(fe, &size), ==, 0);
    }
    server_stop(&s);
}

int main(int argc, char **argv)
{
    static const VufeOptions plain = { 0 };
    static const VufeOptions event = { .event_idx = true };
    static const VufeOptions table = { .indirect = true, .event_idx = true };
    static const VufeOptions queues = { .num_queues = 3, .event_idx = true,
                                        .queue_size = 16 };
    static const VufeOptions regions = { .num_regions = 8, .num_queues = 8,
                                         .region_size = 4 << 20,
                                         .mmap_offset = 8192,
                                         .event_idx = true };

    g_test_init(&argc, &argv, NULL);
    if (!g_getenv("LIMIT_SERVER")) {
        g_printerr("LIMIT_SERVER is not set\n");
        return 77;
    }
    g_test_add_data_func("/vufe/split/plain", &plain, test_shape);
    g_test_add_data_func("/vufe/split/event-idx", &event, test_shape);
    g_test_add_data_func("/vufe/split/indirect", &table, test_shape);
    g_test_add_data_func("/vufe/queues/independent", &queues, test_shape);
    g_test_add_data_func("/vufe/memory/eight-regions", &regions, test_shape);
    g_test_add_func("/vufe/segments/any-number", test_segments);
    g_test_add_func("/vufe/ring/full-then-drained", test_batch);
    g_test_add_func("/vufe/ring/stop-and-start", test_stop_start);
    g_test_add_func("/vufe/reconnect/goes-on", test_reconnect);
    g_test_add_func("/vufe/negotiate/names-what-is-missing", test_offers);
    return g_test_run();
}
