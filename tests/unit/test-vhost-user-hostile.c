/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vhost-user transport with front ends that lie.  After each of them the
 * server has to answer an honest one, and to hold as many file descriptors as
 * before.
 */
#include "qemu/osdep.h"
#include "fake-server.h"
#include <glib/gstdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define WAIT_MS 10000

static FakeServer *server;

static unsigned count_fds(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    unsigned n = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        n++;
    }
    g_dir_close(dir);
    return n;
}

/* Connected, but nothing said yet. */
static VufeFrontend *hello(void)
{
    VufeFrontend *fe = vufe_new(server->path, NULL);

    g_assert_nonnull(fe);
    g_assert_cmpint(vufe_connect(fe), ==, 0);
    return fe;
}

/* Negotiated, with memory, before the rings. */
static VufeFrontend *almost(void)
{
    VufeFrontend *fe = hello();

    g_assert_cmpint(vufe_negotiate(fe), ==, 0);
    g_assert_cmpint(vufe_share_memory(fe), ==, 0);
    return fe;
}

/* Each test runs in here. */
static void test_and_recover(const void *data)
{
    void (*const *fn)(void) = data;
    unsigned before, after;

    server = fake_server_new(true, 512);
    fake_server_check_alive(server);
    /* Connected once more, so that it has cleaned up after the first. */
    fake_server_check_alive(server);
    vufe_close(almost());
    fake_server_check_alive(server);
    before = count_fds();
    (*fn)();
    fake_server_check_alive(server);
    fake_server_check_alive(server);
    /* The last one's may just be being closed: a few more or less are due to
     * that, but not the dozens that the tests below send. */
    after = count_fds();
    g_assert_cmpuint(after, <=, before + 6);
    fake_server_free(server);
}

/* ---- Headers ---- */

static void hang_up_after(const void *bytes, size_t len)
{
    VufeFrontend *fe = hello();

    g_assert_cmpint(vufe_send_bytes(&fe->conn, bytes, len, NULL, 0), ==, 0);
    g_assert_cmpint(vufe_wait_hangup(&fe->conn, WAIT_MS), ==, 0);
    vufe_close(fe);
}

static void test_header(void)
{
    const uint32_t headers[][3] = {
        { 1, 0, 0 },                /* version 0 */
        { 1, 2, 0 },                /* version 2 */
        { 0, 1, 0 },                /* no such messages */
        { 19, 1, 0 },
        { 41, 1, 0 },
        { UINT32_MAX, 1, 0 },
        { 1, 1, UINT32_MAX },       /* sizes that lie */
        { 2, 1, 4096 },
        { 2, 1, 0 },
        { 8, 1, 0 },
        { 5, 1, 0 },
        { 11, 1, 0 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(headers); i++) {
        hang_up_after(headers[i], sizeof(headers[i]));
    }
}

/* ---- File descriptors ---- */

static int make_fds(int *fds, int n)
{
    for (int i = 0; i < n; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC);
        g_assert_cmpint(fds[i], >=, 0);
    }
    return n;
}

static void close_fds(const int *fds, int n)
{
    for (int i = 0; i < n; i++) {
        close(fds[i]);
    }
}

static void test_fd_counts(void)
{
    const uint32_t requests[] = {
        VUFE_GET_FEATURES, VUFE_SET_OWNER, VUFE_SET_VRING_KICK,
        VUFE_SET_VRING_CALL, VUFE_SET_VRING_ERR, VUFE_SET_LOG_BASE,
        VUFE_SET_BACKEND_REQ_FD, VUFE_SET_MEM_TABLE, VUFE_ADD_MEM_REG,
        VUFE_SET_INFLIGHT_FD, VUFE_SET_LOG_FD,
    };
    const int counts[] = { 0, 1, 2, 8, 9, 253 };

    for (unsigned i = 0; i < G_N_ELEMENTS(requests); i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(counts); j++) {
            VufeFrontend *fe = almost();
            VufeMsg msg = { .request = requests[i],
                            .flags = VUFE_FLAG_NEED_REPLY,
                            .size = requests[i] <= VUFE_SET_OWNER ? 0 : 8 };

            msg.num_fds = make_fds(msg.fds, counts[j]);
            g_assert_cmpint(vufe_send(&fe->conn, &msg), ==, 0);
            close_fds(msg.fds, msg.num_fds);
            /* an answer of whatever kind, or the end */
            vufe_recv(&fe->conn, &msg, WAIT_MS);
            vufe_close(fe);
        }
    }
}

/* Descriptors with every byte of a message. */
static void test_fds_trickle(void)
{
    VufeFrontend *fe = hello();
    const uint32_t message[] = { VUFE_SET_FEATURES, 1, 8, 0, 0 };
    int fds[1], ret = 0;

    make_fds(fds, 1);
    for (unsigned i = 0; i < sizeof(message) && ret == 0; i++) {
        ret = vufe_send_bytes(&fe->conn, (const char *)message + i, 1, fds, 1);
    }
    close_fds(fds, 1);
    g_assert_cmpint(vufe_wait_hangup(&fe->conn, WAIT_MS), ==, 0);
    vufe_close(fe);
}

/* A notifier that no loop can wait for. */
static void test_odd_notifier(void)
{
    VufeFrontend *fe = almost();
    int fd = memfd_create("odd", MFD_CLOEXEC);

    g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_KICK, 0, fd), ==,
                    -EREMOTEIO);
    g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_CALL, 0, fd), ==,
                    -EREMOTEIO);
    g_assert_cmpint(vufe_start_ring(fe, 0), ==, 0);
    close(fd);
    vufe_close(fe);
}

/* ---- Rings ---- */

static void test_ring_indices(void)
{
    const uint32_t indices[] = { FAKE_QUEUES, 255, 65535, UINT32_MAX };
    VufeFrontend *fe = almost();

    for (unsigned i = 0; i < G_N_ELEMENTS(indices); i++) {
        VufeMsg msg = { .request = VUFE_SET_VRING_ADDR,
                        .size = sizeof(VufeVringAddr) };

        msg.p.addr.index = indices[i];
        g_assert_cmpint(vufe_call(&fe->conn, &msg), ==, -EREMOTEIO);
        g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_NUM,
                                        indices[i], 128), ==, -EREMOTEIO);
        g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_BASE,
                                        indices[i], 0), ==, -EREMOTEIO);
        g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_ENABLE,
                                        indices[i], 1), ==, -EREMOTEIO);
        g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_KICK,
                                     indices[i], fe->rings[0].kick_fd), ==,
                        -EREMOTEIO);
    }
    /* This one has an answer of its own, so there is only hanging up. */
    g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_GET_VRING_BASE, 65535, 0),
                    <, 0);
    vufe_close(fe);
}

static void test_ring_sizes(void)
{
    const uint32_t sizes[] = { 0, 3, 100, 2048, 65536, UINT32_MAX };
    VufeFrontend *fe = almost();

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_NUM, 0,
                                        sizes[i]), ==, -EREMOTEIO);
    }
    g_assert_cmpint(vufe_start_ring(fe, 0), ==, 0);
    vufe_close(fe);
}

static void test_ring_addresses(void)
{
    VufeFrontend *fe = almost();
    const uint64_t bad[] = { 0, 1, 0x1000, UINT64_MAX, UINT64_MAX - 15 };

    g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_NUM, 0, 128), ==,
                    0);
    for (unsigned i = 0; i < 3 * G_N_ELEMENTS(bad); i++) {
        uint64_t good = (uintptr_t)fe->mem.regions[0].host;
        uint64_t at[3] = { good, good + 4096, good + 8192 };
        VufeMsg msg = { .request = VUFE_SET_VRING_ADDR,
                        .size = sizeof(VufeVringAddr) };

        at[i % 3] = bad[i / 3];
        msg.p.addr.desc = at[0];
        msg.p.addr.avail = at[1];
        msg.p.addr.used = at[2];
        g_assert_cmpint(vufe_call(&fe->conn, &msg), ==, -EREMOTEIO);
    }
    g_assert_cmpint(vufe_start_ring(fe, 0), ==, 0);
    vufe_close(fe);
}

static void test_kick_before_all(void)
{
    VufeFrontend *fe = hello();
    uint64_t one = 1;

    g_assert_cmpint(vufe_negotiate(fe), ==, 0);
    g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_KICK, 0,
                                 fe->rings[0].kick_fd), ==, 0);
    g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_ENABLE, 0, 1),
                    ==, 0);
    g_assert_cmpint(write(fe->rings[0].kick_fd, &one, 8), ==, 8);
    g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_NUM, 0, 128), ==,
                    0);
    /* no memory yet */
    g_assert_cmpint(vufe_send_vring_addr(fe, 0, 0), ==, -EREMOTEIO);
    vufe_close(fe);
}

#define TEST(name, fn)                                                      \
    do {                                                                    \
        static void (*const ptr)(void) = fn;                                \
        g_test_add_data_func("/vhost-user-hostile/" name, &ptr,             \
                             test_and_recover);                             \
    } while (0)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    TEST("message/headers-that-lie", test_header);
    TEST("fds/counts", test_fd_counts);
    TEST("fds/with-every-byte", test_fds_trickle);
    TEST("fds/odd-notifier", test_odd_notifier);
    TEST("ring/indices", test_ring_indices);
    TEST("ring/sizes", test_ring_sizes);
    TEST("ring/addresses", test_ring_addresses);
    TEST("ring/kick-before-all", test_kick_before_all);
    return g_test_run();
}

