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

/* ---- Memory ---- */

static int send_table(VufeFrontend *fe, uint32_t num, int n_fds,
                      const VufeMemRegionMsg *regions)
{
    VufeMsg msg = { .request = VUFE_SET_MEM_TABLE,
                    .size = sizeof(VufeMemTable) };

    msg.p.mem_table.num = num;
    memcpy(msg.p.mem_table.regions, regions, 8 * sizeof(*regions));
    for (int i = 0; i < n_fds; i++) {
        msg.fds[msg.num_fds++] = fe->mem.regions[0].fd;
    }
    return vufe_call(&fe->conn, &msg);
}

static void test_tables(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    VufeMemRegionMsg good = vufe_region_msg(&fe->mem.regions[0]);
    VufeMemRegionMsg r[8] = { good };

    g_assert_cmpint(send_table(fe, 0, 0, r), ==, REFUSED);
    g_assert_cmpint(send_table(fe, 1, 2, r), ==, REFUSED);
    g_assert_cmpint(send_table(fe, 9, 8, r), ==, REFUSED);
    g_assert_cmpint(send_table(fe, 65535, 8, r), ==, REFUSED);
    g_assert_cmpint(send_table(fe, UINT32_MAX, 8, r), ==, REFUSED);
    r[0].size = 0;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, REFUSED);
    r[0].size = UINT64_MAX;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, REFUSED);
    r[0].size = good.size + 4096;                   /* past the end */
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, REFUSED);
    r[0] = good;
    r[0].mmap_offset = UINT64_MAX - 4095;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, REFUSED);
    r[0] = good;
    r[0].gpa = UINT64_MAX - 4095;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, REFUSED);
    two_devices_check_io(t, fe);
}

static void test_overlapping_regions(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    VufeMemRegionMsg good = vufe_region_msg(&fe->mem.regions[0]);
    VufeMemRegionMsg r[8] = { good, good };

    g_assert_cmpint(send_table(fe, 2, 2, r), ==, REFUSED);
    r[1].gpa += good.size;                          /* user addresses do */
    g_assert_cmpint(send_table(fe, 2, 2, r), ==, REFUSED);
    r[1] = good;
    r[1].user_addr += good.size;                    /* guest addresses do */
    g_assert_cmpint(send_table(fe, 2, 2, r), ==, REFUSED);
    r[1].gpa += good.size - 1;                      /* by one byte */
    g_assert_cmpint(send_table(fe, 2, 2, r), ==, REFUSED);
    two_devices_check_io(t, fe);
}

/* The same memory again and again, while requests are on their way. */
static void test_table_while_running(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    VufeMemRegionMsg r[8] = { vufe_region_msg(&fe->mem.regions[0]) };

    for (unsigned i = 0; i < 50; i++) {
        VufeBuf bufs[] = {
            { vufe_mem_alloc(&fe->mem, 0, 16, 16), 16, false },
            { vufe_mem_alloc(&fe->mem, 0, 65536, 4096), 65536, true },
            { vufe_mem_alloc(&fe->mem, 0, 1, 1), 1, true },
        };
        void *token;
        uint32_t len;

        g_assert_cmpint(vufe_ring_add(&fe->rings[0], bufs, 3, false, fe), >=,
                        0);
        vufe_ring_kick(&fe->rings[0]);
        g_assert_cmpint(send_table(fe, 1, 1, r), ==, 0);
        g_assert_cmpint(vufe_ring_wait(&fe->rings[0], WAIT_MS), ==, 0);
        g_assert_cmpint(vufe_ring_get_used(&fe->rings[0], &token, &len), ==,
                        1);
        g_assert_cmpuint(len, ==, 65537);
    }
    two_devices_check_io(t, fe);
}

/* Memory without the rings in it, while they run. */
static void test_table_without_rings(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    VufeMemRegionMsg good = vufe_region_msg(&fe->mem.regions[0]);
    VufeMemRegionMsg r[8] = { good };

    r[0].user_addr += UINT64_C(1) << 40;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, REFUSED);
    two_devices_check_b(t);
    r[0] = good;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, 0);
    two_devices_check_io(t, fe);
}

static void test_memory_slots(TwoDevices *t)
{
    VufeOptions opts = { .mem_slots = true, .region_size = 2 << 20 };
    g_autoptr(VufeFrontend) fe = running(t, &opts);
    uint64_t gpa = UINT64_C(1) << 40, max;
    VufeMsg msg = { .request = VUFE_REM_MEM_REG, .size = sizeof(VufeMemReg) };
    int ret = 0;

    g_assert_cmpint(vufe_query_u64(&fe->conn, VUFE_GET_MAX_MEM_SLOTS, &max),
                    ==, 0);
    g_assert_cmpuint(max, <, 1024);
    for (uint64_t i = 1; i <= max && ret == 0; i++) {
        msg = (VufeMsg){ .request = VUFE_ADD_MEM_REG,
                         .size = sizeof(VufeMemReg), .num_fds = 1 };
        msg.fds[0] = fe->mem.regions[0].fd;
        msg.p.mem_reg.region = (VufeMemRegionMsg){
            .gpa = gpa, .size = 4096, .user_addr = gpa
        };
        gpa += 4096;
        ret = vufe_call(&fe->conn, &msg);
        g_assert_cmpint(ret, ==, i == max ? REFUSED : 0);
    }
    msg = (VufeMsg){ .request = VUFE_REM_MEM_REG,
                     .size = sizeof(VufeMemReg) };
    msg.p.mem_reg.region.gpa = 0x123000;
    msg.p.mem_reg.region.size = 4096;
    g_assert_cmpint(vufe_call(&fe->conn, &msg), ==, REFUSED);
    two_devices_check_io(t, fe);
}

static void expect_broken(TwoDevices *t, VufeFrontend *fe)
{
    struct pollfd pfd = { .fd = fe->rings[0].err_fd, .events = POLLIN };
    uint8_t status;

    g_assert_cmpint(poll(&pfd, 1, WAIT_MS), ==, 1);
    g_assert_cmpint(vufe_get_status(fe, &status), ==, 0);
    g_assert_cmphex(status & VIRTIO_CONFIG_S_NEEDS_RESET, !=, 0);
    two_devices_check_b(t);
}

/* The file behind a buffer shrinks: SIGBUS for whoever touches it. */
static void test_truncated_buffer(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    VufeRing *r = &fe->rings[0];
    uint64_t at = fe->mem.regions[0].gpa + fe->mem.regions[0].size - 4096;
    VufeBuf bufs[] = { { at, 16, false }, { at + 512, 513, true } };

    g_assert_cmpint(vufe_ring_add(r, bufs, 2, false, fe), >=, 0);
    g_assert_cmpint(ftruncate(fe->mem.regions[0].fd,
                              fe->mem.regions[0].size - 4096), ==, 0);
    vufe_ring_kick(r);
    expect_broken(t, fe);
}

/* The data of a write is what only the kernel touches. */
static void test_truncated_data(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    VufeRing *r = &fe->rings[0];
    uint64_t at = fe->mem.regions[0].gpa + fe->mem.regions[0].size - 4096;
    uint64_t hdr = vufe_mem_alloc(&fe->mem, 0, 64, 64);
    uint8_t *host = vufe_mem_ptr(&fe->mem, hdr, 64);
    VufeBuf bufs[] = { { hdr, 16, false }, { at, 4096, false },
                       { hdr + 16, 1, true } };
    void *token;
    uint32_t len;

    host[0] = 1;            /* OUT */
    host[16] = 0xee;
    g_assert_cmpint(vufe_ring_add(r, bufs, 3, false, fe), >=, 0);
    g_assert_cmpint(ftruncate(fe->mem.regions[0].fd,
                              fe->mem.regions[0].size - 4096), ==, 0);
    vufe_ring_kick(r);
    g_assert_cmpint(vufe_ring_wait(r, WAIT_MS), ==, 0);
    g_assert_cmpint(vufe_ring_get_used(r, &token, &len), ==, 1);
    g_assert_cmphex(host[16], ==, 1);   /* IOERR */
    two_devices_check_b(t);
}

/* The rings themselves are gone. */
static void test_truncated_rings(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    int fd = fe->mem.regions[0].fd;
    int kick = fe->rings[0].kick_fd;
    uint64_t one = 1;

    g_assert_cmpint(ftruncate(fd, 0), ==, 0);
    g_assert_cmpint(write(kick, &one, 8), ==, 8);
    expect_broken(t, fe);
    /* Nothing that touches our own mapping, from here on. */
}

/* ---- The inflight buffer ---- */

static int send_inflight(VufeFrontend *fe, uint64_t size, uint64_t offset,
                         uint16_t queues, uint16_t queue_size, int fd)
{
    VufeMsg msg = { .request = VUFE_SET_INFLIGHT_FD,
                    .size = sizeof(VufeInflightMsg) };

    msg.p.inflight = (VufeInflightMsg){ size, offset, queues, queue_size, 0 };
    msg.fds[msg.num_fds++] = fd;
    return vufe_call(&fe->conn, &msg);
}

static void test_inflight_sizes(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = almost(t);
    int fd = memfd_create("inflight", MFD_CLOEXEC);
    const struct {
        uint64_t size, offset;
        uint16_t queues, queue_size;
    } bad[] = {
        { 65536, 0, 0, 128 }, { 65536, 0, 1, 0 },
        { 65536, 0, 65535, 65535 }, { 16, 0, 1, 128 }, { 0, 0, 1, 128 },
        { UINT64_MAX, 65536, 1, 128 }, { 65536, UINT64_MAX - 7, 1, 128 },
        { 65536, 1, 1, 128 }, { 65536, 65536, 1, 128 },
    };

    g_assert_cmpint(ftruncate(fd, 65536), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(send_inflight(fe, bad[i].size, bad[i].offset,
                                      bad[i].queues, bad[i].queue_size, fd),
                        ==, REFUSED);
    }
    /* More than there is, which only matters as far as it is needed. */
    g_assert_cmpint(send_inflight(fe, UINT64_MAX, 0, 1, 128, fd), ==, 0);
    close(fd);
    g_assert_cmpint(vufe_start_rings(fe), ==, 0);
    two_devices_check_io(t, fe);
}

/* How large a buffer do you want, for too many queues? */
static void test_inflight_questions(TwoDevices *t)
{
    const uint16_t bad[][2] = { { 0, 128 }, { 1, 0 }, { 65535, 65535 },
                                { 1, 65535 }, { 65535, 1 } };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(VufeFrontend) fe = almost(t);
        VufeMsg msg = { .request = VUFE_GET_INFLIGHT_FD,
                        .size = sizeof(VufeInflightMsg) };

        msg.p.inflight.num_queues = bad[i][0];
        msg.p.inflight.queue_size = bad[i][1];
        if (vufe_query(&fe->conn, &msg, 0) == 0) {
            g_assert_cmpuint(msg.p.inflight.mmap_size, <, 64 << 20);
            vufe_msg_close_fds(&msg);
        }
    }
}

/* Contents that make no sense: no crash, whatever is done. */
static void test_inflight_contents(TwoDevices *t)
{
    for (unsigned i = 0; i < 16; i++) {
        VufeOptions opts = { .packed = i & 1, .inflight = true };
        g_autoptr(VufeFrontend) fe = hello(t, &opts);
        const uint8_t fill[] = { 0x00, 0x01, 0x7f, 0xff };
        uint16_t *version;

        g_assert_cmpint(vufe_negotiate(fe), ==, 0);
        g_assert_cmpint(vufe_share_memory(fe), ==, 0);
        g_assert_cmpint(vufe_setup_inflight(fe), ==, 0);
        memset(fe->inflight.map, fill[i / 2 % 4], fe->inflight.size);
        version = (uint16_t *)((char *)fe->inflight.map + 8);
        version[0] = 1;
        version[1] = i < 8 ? 128 : 64;
        if (vufe_start_rings(fe) == 0) {
            vufe_stop_ring(fe, 0);
        }
        two_devices_check_b(t);
    }
}

static void test_truncated_inflight(TwoDevices *t)
{
    VufeOptions opts = { .inflight = true };
    g_autoptr(VufeFrontend) fe = running(t, &opts);

    two_devices_check_io(t, fe);
    if (ftruncate(fe->inflight.fd, 0) < 0) {
        g_assert_cmpint(errno, ==, EPERM);      /* it is sealed */
        two_devices_check_io(t, fe);
    } else {
        vufe_blk_flush(fe, 0);
        vufe_stop_ring(fe, 0);
    }
}

/* The dirty log: bad sizes, then one that shrinks. */
static void test_log(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    VufeMsg msg = { .request = VUFE_SET_LOG_BASE, .size = sizeof(VufeLogMsg),
                    .num_fds = 1 };
    int fd = memfd_create("log", MFD_CLOEXEC);
    uint8_t *log;

    g_assert_cmpint(vufe_start_log(fe, 1 << 20, &log), ==, 0);
    two_devices_check_io(t, fe);
    munmap(log, 1 << 20);
    /* Too small for this memory: what does not fit is not written. */
    g_assert_cmpint(vufe_start_log(fe, 1, &log), ==, 0);
    two_devices_check_io(t, fe);
    munmap(log, 1);
    g_assert_cmpint(fd, >=, 0);
    msg.fds[0] = fd;
    msg.p.log.mmap_size = UINT64_MAX;
    g_assert_cmpint(vufe_query(&fe->conn, &msg, 0), <, 0);
    close(fd);
    g_assert_cmpint(vufe_wait_hangup(&fe->conn, WAIT_MS), ==, 0);
}

static void test_truncated_log(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    VufeMsg msg = { .request = VUFE_SET_LOG_BASE, .size = sizeof(VufeLogMsg),
                    .num_fds = 1 };
    int fd = memfd_create("log", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, 1 << 20), ==, 0);
    msg.fds[0] = fd;
    msg.p.log.mmap_size = 1 << 20;
    g_assert_cmpint(vufe_query(&fe->conn, &msg, 0), ==, 0);
    g_assert_cmpint(vufe_call_u64(&fe->conn, VUFE_SET_FEATURES, fe->features |
                                  VUFE_BIT(VUFE_F_LOG_ALL)), ==, 0);
    g_assert_cmpint(vufe_send_vring_addr(fe, 0, 1), ==, 0);
    g_assert_cmpint(ftruncate(fd, 0), ==, 0);
    vufe_blk_flush(fe, 0);
    vufe_stop_ring(fe, 0);
    close(fd);
}

/* ---- Leaving, and not ---- */

/* A whole start-up as bytes, with what has to come after how many of them. */
static GByteArray *start_up(VufeFrontend *fe)
{
    GByteArray *all = g_byte_array_new();
    VufeMsg msgs[] = {
        { .request = VUFE_GET_FEATURES },
        { .request = VUFE_SET_FEATURES, .size = 8 },
        { .request = VUFE_SET_OWNER },
        { .request = VUFE_SET_MEM_TABLE,
          .size = offsetof(VufeMemTable, regions[1]) },
        { .request = VUFE_SET_VRING_NUM, .size = 8 },
        { .request = VUFE_SET_VRING_BASE, .size = 8 },
        { .request = VUFE_GET_VRING_BASE, .size = 8 },
    };

    msgs[1].p.u64 = VUFE_BIT(VIRTIO_F_VERSION_1);
    msgs[3].p.mem_table.num = 1;
    msgs[3].p.mem_table.regions[0] = vufe_region_msg(&fe->mem.regions[0]);
    msgs[4].p.state.num = 128;
    for (unsigned i = 0; i < G_N_ELEMENTS(msgs); i++) {
        msgs[i].flags = VUFE_VERSION;
        g_byte_array_append(all, (guint8 *)&msgs[i],
                            VUFE_HDR_SIZE + msgs[i].size);
    }
    return all;
}

/* The memory's descriptor goes with the first byte: with the wrong message
 * for most lengths, which must not be a leak either. */
static void test_leave_at_every_byte(TwoDevices *t)
{
    g_autoptr(VufeFrontend) first = vufe_new(t->a, NULL);
    g_autoptr(GByteArray) all = start_up(first);

    for (unsigned n = 1; n <= all->len; n++) {
        g_autoptr(VufeFrontend) fe = hello(t, NULL);
        bool with_fd = n % 2;

        g_assert_cmpint(vufe_send_bytes(&fe->conn, all->data, n,
                                        &first->mem.regions[0].fd, with_fd),
                        ==, 0);
    }
}

static void test_leave_many_times(TwoDevices *t)
{
    for (unsigned i = 0; i < 300; i++) {
        vufe_close(hello(t, NULL));
    }
}

/* With requests on their way, and without a word. */
static void test_leave_while_busy(TwoDevices *t)
{
    for (unsigned i = 0; i < 20; i++) {
        g_autoptr(VufeFrontend) fe = running(t, NULL);
        uint64_t hdr = vufe_mem_alloc(&fe->mem, 0, 16, 16);
        uint64_t data = vufe_mem_alloc(&fe->mem, 0, 128 << 10, 4096);

        for (unsigned n = 0; n < 30; n++) {
            VufeBuf bufs[] = { { hdr, 16, false },
                               { data + n * 4096, 4097, true } };

            g_assert_cmpint(vufe_ring_add(&fe->rings[0], bufs, 2, false, fe),
                            >=, 0);
        }
        vufe_ring_kick(&fe->rings[0]);
    }
}

/* It asks and never listens: only its own connection gets stuck. */
static void test_never_reads(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = hello(t, NULL);
    const uint32_t ask[3] = { VUFE_GET_FEATURES, VUFE_VERSION, 0 };
    ssize_t n;

    g_assert_cmpint(fcntl(fe->conn.fd, F_SETFL, O_NONBLOCK), ==, 0);
    do {
        n = write(fe->conn.fd, ask, sizeof(ask));
    } while (n == sizeof(ask));
    two_devices_check_b(t);
}

/* In the middle of a message it falls silent. */
static void test_stall(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = running(t, NULL);
    const uint32_t ask[3] = { VUFE_GET_FEATURES, VUFE_VERSION, 0 };

    g_assert_cmpint(vufe_send_bytes(&fe->conn, ask, 7, NULL, 0), ==, 0);
    two_devices_check_b(t);
    two_devices_check_io(t, fe);    /* the rings do not care */
}

/* The daemon's end does not wait for one that has fallen silent. */
static void test_stall_at_the_end(TwoDevices *t)
{
    const uint32_t ask[3] = { VUFE_GET_FEATURES, VUFE_VERSION, 0 };
    VufeFrontend *fe = running(t, NULL);

    g_assert_cmpint(vufe_send_bytes(&fe->conn, ask, 7, NULL, 0), ==, 0);
    daemon_proc_stop(t->d);
    vufe_close(fe);
    daemon_proc_start(t->d);
    g_assert_cmpint(vufe_reconnect(t->fe_b), ==, 0);
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
    { "memory/tables", test_tables },
    { "memory/overlapping-regions", test_overlapping_regions },
    { "memory/table-while-running", test_table_while_running },
    { "memory/table-without-the-rings", test_table_without_rings },
    { "memory/slots", test_memory_slots },
    { "memory/truncated-buffer", test_truncated_buffer },
    { "memory/truncated-data", test_truncated_data },
    { "memory/truncated-rings", test_truncated_rings },
    { "inflight/sizes", test_inflight_sizes },
    { "inflight/questions", test_inflight_questions },
    { "inflight/contents", test_inflight_contents },
    { "inflight/truncated", test_truncated_inflight },
    { "log/sizes", test_log },
    { "log/truncated", test_truncated_log },
    { "leave/at-every-byte", test_leave_at_every_byte },
    { "leave/many-times", test_leave_many_times },
    { "leave/while-busy", test_leave_while_busy },
    { "stay/never-reads", test_never_reads },
    { "stay/stalls", test_stall },
    { "stay/stalls-at-the-end", test_stall_at_the_end },
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
