/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon with front ends that lie in the vhost-user protocol.
 *
 * A message that makes no sense is refused: with REPLY_ACK by an answer, else
 * by hanging up.  What it tried to change stays as it was.
 *
 * usage: test-daemon-frontend-lies DAEMON
 */
#include "two-devices.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *program;

/* ---- Being a front end ---- */

/* Connected, but nothing said yet. */
static VufeFrontend *hello(TwoDevices *t, const VufeOptions *opts)
{
    VufeFrontend *fe = vufe_new(t->a, opts);

    g_assert_nonnull(fe);
    g_assert_cmpint(vufe_connect(fe), ==, 0);
    return fe;
}

/* Negotiated, with memory, before the rings. */
static VufeFrontend *almost(TwoDevices *t)
{
    VufeFrontend *fe = hello(t, NULL);

    g_assert_cmpint(vufe_negotiate(fe), ==, 0);
    g_assert_cmpint(vufe_share_memory(fe), ==, 0);
    return fe;
}

static VufeFrontend *running(TwoDevices *t, const VufeOptions *opts)
{
    g_autofree char *msg = NULL;
    VufeFrontend *fe = vufe_open(t->a, opts, &msg);

    if (!fe) {
        g_error("%s", msg);
    }
    return fe;
}

/* ---- Messages ---- */

static void hang_up_after(TwoDevices *t, const void *bytes, size_t len)
{
    g_autoptr(VufeFrontend) fe = hello(t, NULL);

    g_assert_cmpint(vufe_send_bytes(&fe->conn, bytes, len, NULL, 0), ==, 0);
    g_assert_cmpint(vufe_wait_hangup(&fe->conn, WAIT_MS), ==, 0);
}

/* What was sent may have been right, or ignored: a message that does not exist
 * brings all of them to an end. */
static void hang_up(VufeFrontend *fe)
{
    VufeMsg msg = { .request = 0, .flags = VUFE_VERSION };

    vufe_send_lying(&fe->conn, &msg, 0);
    g_assert_cmpint(vufe_wait_hangup(&fe->conn, WAIT_MS), ==, 0);
}

static void test_unknown_messages(TwoDevices *t)
{
    const uint32_t requests[] = { 0, 19, 20, 22, 23, 26, 27, 28, 29, 30, 33,
                                  35, 41, 1000, 0x80000000, UINT32_MAX };

    for (unsigned i = 0; i < G_N_ELEMENTS(requests); i++) {
        uint32_t header[3] = { requests[i], VUFE_VERSION, 0 };

        hang_up_after(t, header, sizeof(header));
    }
}

static void test_versions(TwoDevices *t)
{
    for (uint32_t version = 0; version < 4; version++) {
        uint32_t header[3] = { VUFE_GET_FEATURES, version, 0 };

        if (version != VUFE_VERSION) {
            hang_up_after(t, header, sizeof(header));
        }
    }
}

/* Sizes other than the message's own; the payload comes, up to a page. */
static void test_sizes(TwoDevices *t)
{
    const uint32_t sizes[] = { 0, 1, 7, 9, 4096, 4097, 0x7fffffff,
                               UINT32_MAX };

    for (uint32_t request = 1; request <= VUFE_GET_STATUS; request++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
            g_autoptr(VufeFrontend) fe = hello(t, NULL);
            VufeMsg msg = { .request = request, .flags = VUFE_VERSION,
                            .size = sizes[i] };
            vufe_send_lying(&fe->conn, &msg, MIN(sizes[i], VUFE_PAYLOAD_MAX));
            hang_up(fe);
        }
    }
}

/* More is promised than comes. */
static void test_size_too_large(TwoDevices *t)
{
    for (uint32_t request = 1; request <= VUFE_GET_STATUS; request++) {
        g_autoptr(VufeFrontend) fe = hello(t, NULL);
        VufeMsg msg = { .request = request, .flags = VUFE_VERSION,
                        .size = 64 };

        g_assert_cmpint(vufe_send_lying(&fe->conn, &msg, 63), ==, 0);
    }
}

static void test_features(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = almost(t);
    const uint64_t not_offered = ~fe->features_offered;

    g_assert_cmpint(vufe_call_u64(&fe->conn, VUFE_SET_FEATURES, UINT64_MAX),
                    ==, REFUSED);
    for (unsigned bit = 0; bit < 64; bit++) {
        if (not_offered & VUFE_BIT(bit)) {
            g_assert_cmpint(vufe_call_u64(&fe->conn, VUFE_SET_FEATURES,
                                          fe->features | VUFE_BIT(bit)), ==,
                            REFUSED);
        }
        if (!(fe->protocol_offered & VUFE_BIT(bit))) {
            g_assert_cmpint(vufe_call_u64(&fe->conn,
                                          VUFE_SET_PROTOCOL_FEATURES,
                                          fe->protocol | VUFE_BIT(bit)), ==,
                            REFUSED);
        }
    }
    g_assert_cmpint(vufe_start_rings(fe), ==, 0);
    two_devices_check_io(t, fe);
}

static void test_config(TwoDevices *t)
{
    const uint32_t bad[][2] = {
        { 0, 257 }, { 256, 1 }, { UINT32_MAX, 1 }, { 1, UINT32_MAX },
        { UINT32_MAX, UINT32_MAX }, { 0, 0x80000000 },
    };
    g_autoptr(VufeFrontend) fe = almost(t);

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        VufeMsg msg = { .request = VUFE_GET_CONFIG, .size = VUFE_CONFIG_HDR };

        msg.p.config.offset = bad[i][0];
        msg.p.config.size = bad[i][1];
        g_assert_cmpint(vufe_query(&fe->conn, &msg, 0), ==, 0);
        g_assert_cmpuint(msg.size, ==, 0);
        msg = (VufeMsg){ .request = VUFE_SET_CONFIG,
                         .size = VUFE_CONFIG_HDR + 1 };
        msg.p.config.offset = bad[i][0];
        msg.p.config.size = bad[i][1];
        g_assert_cmpint(vufe_call(&fe->conn, &msg), ==, REFUSED);
    }
    g_assert_cmpint(vufe_start_rings(fe), ==, 0);
    two_devices_check_io(t, fe);
}

/* ---- File descriptors ---- */

/* Each message with @n descriptors; the connection need not survive. */
static void send_fds(TwoDevices *t, unsigned n)
{
    for (uint32_t request = 1; request <= VUFE_GET_STATUS; request++) {
        VufeFrontend *fe = almost(t);
        VufeMsg msg = { .request = request, .flags = VUFE_FLAG_NEED_REPLY,
                        .size = 8 };

        for (unsigned i = 0; i < n; i++) {
            msg.fds[i] = eventfd(0, EFD_CLOEXEC);
            g_assert_cmpint(msg.fds[i], >=, 0);
        }
        msg.num_fds = n;
        g_assert_cmpint(vufe_send(&fe->conn, &msg), ==, 0);
        vufe_msg_close_fds(&msg);
        hang_up(fe);
        vufe_close(fe);
    }
}

static void test_0_fds(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = almost(t);
    VufeMsg msg = { .request = VUFE_SET_MEM_TABLE,
                    .size = offsetof(VufeMemTable, regions[1]) };

    msg.p.mem_table.num = 1;
    msg.p.mem_table.regions[0] = vufe_region_msg(&fe->mem.regions[0]);
    g_assert_cmpint(vufe_call(&fe->conn, &msg), ==, REFUSED);
    g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_KICK, 0, -1), ==,
                    REFUSED);
    g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_CALL, 0, -1), ==,
                    REFUSED);
    g_assert_cmpint(vufe_start_rings(fe), ==, 0);
    two_devices_check_io(t, fe);
    vufe_close(g_steal_pointer(&fe));
    send_fds(t, 0);
}

static void test_1_fd(TwoDevices *t)
{
    send_fds(t, 1);
}

static void test_9_fds(TwoDevices *t)
{
    send_fds(t, 9);
}

static void test_253_fds(TwoDevices *t)
{
    send_fds(t, 253);
}

/* Eight for each byte of a message: more than any one may bring. */
static void test_fds_with_every_byte(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = hello(t, NULL);
    const uint32_t message[] = { VUFE_SET_MEM_TABLE, VUFE_VERSION, 8, 1, 0 };
    int fds[8], ret = 0;

    for (unsigned i = 0; i < 8; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC);
    }
    for (unsigned i = 0; i < sizeof(message) && ret == 0; i++) {
        ret = vufe_send_bytes(&fe->conn, (const char *)message + i, 1, fds, 8);
    }
    for (unsigned i = 0; i < 8; i++) {
        close(fds[i]);
    }
    g_assert_cmpint(vufe_wait_hangup(&fe->conn, WAIT_MS), ==, 0);
}

/* A notifier that takes no more must not stop the thread that rings it. */
static void test_full_call_fd(TwoDevices *t)
{
    VufeOptions opts = { .timeout_ms = 200 };
    g_autoptr(VufeFrontend) fe = running(t, &opts);
    const uint64_t full = UINT64_MAX - 1;
    char junk[4096] = { 0 };
    int fds[2];

    g_assert_cmpint(write(fe->rings[0].call_fd, &full, 8), ==, 8);
    g_assert_cmpint(vufe_blk_flush(fe, 0), ==, 0);

    g_assert_cmpint(pipe2(fds, O_CLOEXEC | O_NONBLOCK), ==, 0);
    while (write(fds[1], junk, sizeof(junk)) > 0) {
        /* until it is full */
    }
    g_assert_cmpint(fcntl(fds[1], F_SETFL, 0), ==, 0);
    g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_CALL, 0, fds[1]),
                    ==, 0);
    /* They are done, whether we hear of it in time or not. */
    for (unsigned i = 0; i < 3; i++) {
        int ret = vufe_blk_flush(fe, 0);

        g_assert_true(ret == 0 || ret == -ENOMSG);
        two_devices_check_b(t);
    }
    close(fds[0]);
    close(fds[1]);
}

/* Files that no loop can wait for, or that might block for ever. */
static void test_odd_notifiers(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = almost(t);
    int fds[] = {
        memfd_create("odd", MFD_CLOEXEC), open("/", O_RDONLY | O_CLOEXEC),
        open("/dev/zero", O_RDWR | O_CLOEXEC), open("/", O_PATH | O_CLOEXEC),
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++) {
        g_assert_cmpint(fds[i], >=, 0);
        g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_KICK, 0,
                                     fds[i]), ==, REFUSED);
        g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_CALL, 0,
                                     fds[i]), ==, REFUSED);
        g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_ERR, 0,
                                     fds[i]), ==, REFUSED);
        close(fds[i]);
    }
    g_assert_cmpint(vufe_start_rings(fe), ==, 0);
    two_devices_check_io(t, fe);
}

/* ---- Rings ---- */

static void test_ring_indices(TwoDevices *t)
{
    const uint32_t bad[] = { 2, 255, 256, 65535, 0x80000000, UINT32_MAX };
    g_autoptr(VufeFrontend) fe = running(t, NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        const VufeRequest states[] = { VUFE_SET_VRING_NUM, VUFE_SET_VRING_BASE,
                                       VUFE_SET_VRING_ENABLE };
        const VufeRequest fds[] = { VUFE_SET_VRING_KICK, VUFE_SET_VRING_CALL,
                                    VUFE_SET_VRING_ERR };
        VufeMsg msg = { .request = VUFE_SET_VRING_ADDR,
                        .size = sizeof(VufeVringAddr) };

        msg.p.addr.index = bad[i];
        g_assert_cmpint(vufe_call(&fe->conn, &msg), ==, REFUSED);
        for (unsigned j = 0; j < 3; j++) {
            g_assert_cmpint(vufe_call_state(&fe->conn, states[j], bad[i], 0),
                            ==, REFUSED);
            /* The index has eight bits there, another one says "no fd". */
            if ((bad[i] & 0xff) > 1) {
                g_assert_cmpint(vufe_call_fd(&fe->conn, fds[j], bad[i],
                                             fe->rings[0].kick_fd), ==,
                                REFUSED);
            }
        }
    }
    two_devices_check_io(t, fe);
    /* This one has an answer of its own, so there is only hanging up. */
    g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_GET_VRING_BASE, 65535, 0),
                    <, 0);
    g_assert_cmpint(vufe_wait_hangup(&fe->conn, WAIT_MS), ==, 0);
}

static void test_ring_sizes(TwoDevices *t)
{
    const uint32_t bad[] = { 0, 3, 100, 127, 129, 2048, 32769, 65536,
                             0x80000000, UINT32_MAX };
    g_autoptr(VufeFrontend) fe = running(t, NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_NUM, 0,
                                        bad[i]), ==, REFUSED);
    }
    two_devices_check_io(t, fe);
}

/* Each part of a ring somewhere that is not in memory, or not aligned. */
static void test_ring_addresses(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    const VufeRegion *m = &fe->mem.regions[0];
    const uint64_t good = (uintptr_t)m->host;
    const uint64_t bad[] = { 0, 1, 0x1000, UINT64_MAX, UINT64_MAX - 15,
                             good - 16, good + m->size, good + m->size - 16,
                             good + 1, m->gpa };

    for (unsigned i = 0; i < 3 * G_N_ELEMENTS(bad); i++) {
        uint64_t at[3] = { good, good + 8192, good + 16384 };
        VufeMsg msg = { .request = VUFE_SET_VRING_ADDR,
                        .size = sizeof(VufeVringAddr) };

        at[i % 3] = bad[i / 3];
        msg.p.addr.desc = at[0];
        msg.p.addr.avail = at[1];
        msg.p.addr.used = at[2];
        g_assert_cmpint(vufe_call(&fe->conn, &msg), ==, REFUSED);
    }
    two_devices_check_io(t, fe);
}

/* Positions that a packed ring does not have; a split one has all. */
static void test_ring_bases(TwoDevices *t)
{
    VufeOptions packed = { .packed = true };
    g_autoptr(VufeFrontend) fe = running(t, &packed);
    const uint32_t bad[] = { 128, 0x7fff, 0x80 << 16, 0x7fff7fff,
                             UINT32_MAX };

    g_assert_cmpint(vufe_stop_ring(fe, 0), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        uint32_t base = fe->base[0];

        fe->base[0] = bad[i];
        g_assert_cmpint(vufe_start_ring(fe, 0), ==, REFUSED);
        g_assert_cmpint(vufe_stop_ring(fe, 0), ==, 0);
        fe->base[0] = base;
    }
    g_assert_cmpint(vufe_start_ring(fe, 0), ==, 0);
    two_devices_check_io(t, fe);
}

/* ---- The frame ---- */

static const struct {
    const char *name;
    void (*fn)(TwoDevices *t);
} attacks[] = {
    { "message/unknown", test_unknown_messages },
    { "message/versions", test_versions },
    { "message/sizes", test_sizes },
    { "message/size-too-large", test_size_too_large },
    { "message/features", test_features },
    { "message/configuration", test_config },
    { "fds/0", test_0_fds },
    { "fds/1", test_1_fd },
    { "fds/9", test_9_fds },
    { "fds/253", test_253_fds },
    { "fds/with-every-byte", test_fds_with_every_byte },
    { "fds/full-call", test_full_call_fd },
    { "fds/odd-notifiers", test_odd_notifiers },
    { "ring/index-65535", test_ring_indices },
    { "ring/size-not-a-power-of-two", test_ring_sizes },
    { "ring/addresses", test_ring_addresses },
    { "ring/bases", test_ring_bases },
};

static void run_attack(const void *opaque)
{
    void (*const *fn)(TwoDevices *t) = opaque;
    TwoDevices *t = two_devices_new(program);

    (*fn)(t);
    two_devices_check(t);
    two_devices_free(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 2);
    program = argv[1];
    for (unsigned i = 0; i < G_N_ELEMENTS(attacks); i++) {
        g_autofree char *path = g_strdup_printf("/daemon-frontend-lies/%s",
                                                attacks[i].name);

        g_test_add_data_func(path, &attacks[i].fn, run_attack);
    }
    return g_test_run();
}
