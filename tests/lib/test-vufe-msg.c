/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The message layer over a socket pair, with the peer played by the same
 * thread: what the peer will answer is in the socket before the front end asks.
 */
#include "vhost-user-frontend.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIMEOUT_MS 5000

typedef struct Pair {
    VufeConn us, peer;
} Pair;

static void pair_init(Pair *p)
{
    int sv[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv),
                    ==, 0);
    vufe_conn_adopt(&p->us, sv[0], TIMEOUT_MS);
    vufe_conn_adopt(&p->peer, sv[1], TIMEOUT_MS);
}

static void pair_destroy(Pair *p)
{
    vufe_conn_close(&p->us);
    vufe_conn_close(&p->peer);
}

static void queue_u64(Pair *p, uint32_t request, uint32_t flags, uint64_t value)
{
    VufeMsg msg = { .request = request, .flags = flags, .size = 8 };

    msg.p.u64 = value;
    g_assert_cmpint(vufe_send(&p->peer, &msg), ==, 0);
}

/* Any number of descriptors travels, and they are the same files. */
static void test_fds(void)
{
    static const unsigned counts[] = { 0, 1, 8, 9, 253 };
    VufeMsg msg = { .request = VUFE_SET_MEM_TABLE, .size = 24 };
    int fd = memfd_create("vufe-test", MFD_CLOEXEC);
    struct stat a, b;
    size_t i;
    unsigned n;

    g_assert_cmpint(fstat(fd, &a), ==, 0);
    for (i = 0; i < G_N_ELEMENTS(counts); i++) {
        VufeMsg got;
        Pair p;

        pair_init(&p);
        for (n = 0; n < counts[i]; n++) {
            msg.fds[n] = fd;
        }
        msg.num_fds = counts[i];
        g_assert_cmpint(vufe_send(&p.us, &msg), ==, 0);
        g_assert_cmpint(vufe_recv(&p.peer, &got, -1), ==, 0);
        g_assert_cmpuint(got.num_fds, ==, counts[i]);
        for (n = 0; n < got.num_fds; n++) {
            g_assert_cmpint(fstat(got.fds[n], &b), ==, 0);
            g_assert_cmpuint(b.st_ino, ==, a.st_ino);
        }
        vufe_msg_close_fds(&got);
        pair_destroy(&p);
    }
    close(fd);
}

/* The header says what the caller wants it to say. */
static void test_lying(void)
{
    VufeMsg msg = { .request = 77, .flags = 0xfffffff0, .size = 0x7fffffff };
    uint32_t hdr[3], more;
    unsigned n = 0;
    Pair p;

    pair_init(&p);
    msg.p.u64 = 5;
    g_assert_cmpint(vufe_send_lying(&p.us, &msg, 3), ==, 0);
    g_assert_cmpint(vufe_recv_bytes(&p.peer, hdr, sizeof(hdr), NULL, &n, -1),
                    ==, 0);
    g_assert_cmphex(hdr[0], ==, 77);
    g_assert_cmphex(hdr[1], ==, 0xfffffff0);
    g_assert_cmphex(hdr[2], ==, 0x7fffffff);
    /* Three bytes of payload came, and not a fourth. */
    g_assert_cmpint(vufe_recv_bytes(&p.peer, &more, 3, NULL, &n, -1), ==, 0);
    g_assert_cmpint(vufe_recv_bytes(&p.peer, &more, 1, NULL, &n, 1), ==,
                    -ETIMEDOUT);
    pair_destroy(&p);
}

/* What arrives is checked: size, end of stream, silence. */
static void test_receive(void)
{
    const uint32_t huge[3] = { VUFE_GET_FEATURES, 5, VUFE_PAYLOAD_MAX + 1 };
    VufeMsg msg;
    Pair p;

    pair_init(&p);
    g_assert_cmpint(vufe_recv(&p.us, &msg, 1), ==, -ETIMEDOUT);
    g_assert_cmpint(vufe_wait_hangup(&p.us, 1), ==, -ETIMEDOUT);
    g_assert_cmpint(vufe_send_bytes(&p.peer, huge, sizeof(huge), NULL, 0), ==,
                    0);
    g_assert_cmpint(vufe_recv(&p.us, &msg, -1), ==, -EMSGSIZE);
    g_assert_cmpint(vufe_send_bytes(&p.peer, huge, 5, NULL, 0), ==, 0);
    vufe_conn_close(&p.peer);
    g_assert_cmpint(vufe_recv(&p.us, &msg, -1), ==, -ECONNRESET);
    g_assert_cmpint(vufe_wait_hangup(&p.us, -1), ==, 0);
    g_assert_cmpint(vufe_call_empty(&p.us, VUFE_SET_OWNER), ==, -EPIPE);
    g_assert_nonnull(strstr(p.us.err, "Broken pipe"));
    pair_destroy(&p);
}

static void test_reply_ack(void)
{
    const uint32_t good = VUFE_FLAG_REPLY;
    VufeMsg msg;
    Pair p;

    pair_init(&p);
    g_assert_cmpint(vufe_call_empty(&p.us, VUFE_SET_OWNER), ==, 0);
    g_assert_cmpint(vufe_recv(&p.peer, &msg, -1), ==, 0);
    g_assert_cmphex(msg.flags, ==, VUFE_VERSION);

    p.us.reply_ack = true;
    queue_u64(&p, VUFE_SET_OWNER, good, 0);
    g_assert_cmpint(vufe_call_empty(&p.us, VUFE_SET_OWNER), ==, 0);
    g_assert_cmpint(vufe_recv(&p.peer, &msg, -1), ==, 0);
    g_assert_cmphex(msg.flags, ==, VUFE_VERSION | VUFE_FLAG_NEED_REPLY);
    queue_u64(&p, VUFE_SET_OWNER, good, 1);
    g_assert_cmpint(vufe_call_empty(&p.us, VUFE_SET_OWNER), ==, -EREMOTEIO);
    queue_u64(&p, VUFE_SET_FEATURES, good, 0);
    g_assert_cmpint(vufe_call_empty(&p.us, VUFE_SET_OWNER), ==, -EPROTO);
    queue_u64(&p, VUFE_SET_OWNER, 0, 0);
    g_assert_cmpint(vufe_call_empty(&p.us, VUFE_SET_OWNER), ==, -EPROTO);
    pair_destroy(&p);
}

/* The inflight region of the back end is mapped, and handed back as it is. */
static void test_inflight(void)
{
    VufeMsg reply = { .request = VUFE_GET_INFLIGHT_FD,
                      .flags = VUFE_FLAG_REPLY,
                      .size = sizeof(VufeInflightMsg),
                      .num_fds = 1 };
    VufeMsg msg;
    Pair p;

    pair_init(&p);
    {
        const VufeOptions opts = { .num_queues = 2, .queue_size = 64 };
        g_autoptr(VufeFrontend) fe = vufe_new("unused", &opts);

        fe->conn = p.us;
        p.us.fd = -1; /* it is fe's now */
        reply.fds[0] = memfd_create("vufe-inflight", MFD_CLOEXEC);
        g_assert_cmpint(ftruncate(reply.fds[0], 8192), ==, 0);
        reply.p.inflight.mmap_size = 4096;
        reply.p.inflight.mmap_offset = 4096;
        g_assert_cmpint(vufe_send(&p.peer, &reply), ==, 0);
        close(reply.fds[0]);
        g_assert_cmpint(vufe_setup_inflight(fe), ==, 0);
        g_assert_cmpuint(fe->inflight.size, ==, 4096);
        memset(fe->inflight.map, 1, 4096);

        g_assert_cmpint(vufe_recv(&p.peer, &msg, -1), ==, 0);
        g_assert_cmpuint(msg.request, ==, VUFE_GET_INFLIGHT_FD);
        g_assert_cmpuint(msg.p.inflight.num_queues, ==, 2);
        g_assert_cmpuint(msg.p.inflight.queue_size, ==, 64);
        g_assert_cmpint(vufe_recv(&p.peer, &msg, -1), ==, 0);
        g_assert_cmpuint(msg.request, ==, VUFE_SET_INFLIGHT_FD);
        g_assert_cmpuint(msg.num_fds, ==, 1);
        g_assert_cmpuint(msg.p.inflight.mmap_offset, ==, 4096);
        vufe_msg_close_fds(&msg);
    }
    pair_destroy(&p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vufe/msg/any-number-of-descriptors", test_fds);
    g_test_add_func("/vufe/msg/lying-header", test_lying);
    g_test_add_func("/vufe/msg/receive-is-checked", test_receive);
    g_test_add_func("/vufe/msg/reply-ack", test_reply_ack);
    g_test_add_func("/vufe/inflight/mapped-and-handed-back", test_inflight);
    return g_test_run();
}
