/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vhost-user transport with front ends that lie.  After each of them the
 * server has to answer an honest one, and to hold as many file descriptors as
 * before.
 */
#include "qemu/osdep.h"
#include "fake-server.h"
#include <glib/gstdio.h>
#include <linux/virtio_blk.h>
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

/* A call notifier on which a write would block must not stop the thread: it
 * serves ring 2 as well. */
static void test_blocking_call(void)
{
    const VufeOptions opts = { .num_queues = FAKE_QUEUES };
    g_autoptr(VufeFrontend) fe = fake_server_connect(server, &opts);
    VufeRing *r = &fe->rings[0];
    uint64_t gpa = vufe_mem_alloc(&fe->mem, 0, 64, 16);
    struct virtio_blk_outhdr *hdr = vufe_mem_ptr(&fe->mem, gpa, 64);
    VufeBuf bufs[] = {
        { gpa, sizeof(*hdr), false }, { gpa + sizeof(*hdr), 20, true },
        { gpa + sizeof(*hdr) + 20, 1, true },
    };
    uint64_t full = UINT64_MAX - 1;
    char buf[512] = "";

    /* Not before the device has set it up, with O_NONBLOCK. */
    g_assert_cmpint(vufe_blk_write(fe, 0, 0, buf, sizeof(buf)), ==, 0);
    g_assert_cmpint(fcntl(r->call_fd, F_SETFL, O_NONBLOCK), ==, 0);
    if (read(r->call_fd, &full, sizeof(full)) < 0) {
        g_assert_cmpint(errno, ==, EAGAIN);
    }
    full = UINT64_MAX - 1;
    g_assert_cmpint(write(r->call_fd, &full, sizeof(full)), ==, sizeof(full));
    g_assert_cmpint(fcntl(r->call_fd, F_SETFL, 0), ==, 0);
    *hdr = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_GET_ID };
    g_assert_cmpint(vufe_ring_add(r, bufs, 3, false, fe), >=, 0);
    vufe_ring_kick(r);
    while (!vufe_ring_has_used(r)) {
        g_usleep(100);
    }
    g_assert_cmpint(vufe_blk_write(fe, 2, 0, buf, sizeof(buf)), ==, 0);
    g_assert_cmpint(vufe_blk_write(fe, 2, 0, buf, sizeof(buf)), ==, 0);
    /* Or else leaving would hang, too. */
    g_assert_cmpint(read(r->call_fd, &full, sizeof(full)), ==, sizeof(full));
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

static void test_memory_tables(void)
{
    VufeFrontend *fe = almost();
    VufeMemRegionMsg good = vufe_region_msg(&fe->mem.regions[0]);
    VufeMemRegionMsg r[8] = { good };

    g_assert_cmpint(vufe_start_rings(fe), ==, 0);
    g_assert_cmpint(send_table(fe, 0, 0, r), ==, -EREMOTEIO);
    g_assert_cmpint(send_table(fe, 1, 0, r), ==, -EREMOTEIO);
    g_assert_cmpint(send_table(fe, 1, 2, r), ==, -EREMOTEIO);
    g_assert_cmpint(send_table(fe, 9, 8, r), ==, -EREMOTEIO);
    g_assert_cmpint(send_table(fe, UINT32_MAX, 8, r), ==, -EREMOTEIO);
    r[1] = good;                                    /* twice the same */
    g_assert_cmpint(send_table(fe, 2, 2, r), ==, -EREMOTEIO);
    r[1].gpa += good.size;                          /* user addresses do */
    g_assert_cmpint(send_table(fe, 2, 2, r), ==, -EREMOTEIO);
    r[0].size = 0;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, -EREMOTEIO);
    r[0] = good;
    r[0].size = UINT64_MAX - 4095;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, -EREMOTEIO);
    r[0] = good;
    r[0].mmap_offset = UINT64_MAX - 4095;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, -EREMOTEIO);
    r[0] = good;
    r[0].mmap_offset = 4096;                        /* past the end */
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, -EREMOTEIO);
    r[0] = good;
    g_assert_cmpint(send_table(fe, 1, 1, r), ==, 0);
    vufe_close(fe);
}

static void test_truncated_memory(void)
{
    VufeFrontend *fe = almost();
    VufeRing *r = &fe->rings[0];
    uint64_t at = fe->mem.regions[0].gpa + fe->mem.regions[0].size - 4096;
    VufeBuf bufs[] = { { at, 16, false }, { at + 512, 513, true } };

    g_assert_cmpint(vufe_start_rings(fe), ==, 0);
    g_assert_cmpint(vufe_ring_add(r, bufs, 2, false, fe), >=, 0);
    g_assert_cmpint(ftruncate(fe->mem.regions[0].fd,
                              fe->mem.regions[0].size - 4096), ==, 0);
    vufe_ring_kick(r);
    g_assert_cmpint(vufe_stop_ring(fe, 0), ==, 0);
    g_assert_false(vufe_ring_has_used(r));
    vufe_close(fe);
}

static void test_remove_unknown_region(void)
{
    VufeFrontend *fe = almost();
    VufeMsg msg = { .request = VUFE_REM_MEM_REG, .size = sizeof(VufeMemReg) };

    msg.p.mem_reg.region.gpa = 0x123000;
    msg.p.mem_reg.region.size = 4096;
    g_assert_cmpint(vufe_call(&fe->conn, &msg), ==, -EREMOTEIO);
    vufe_close(fe);
}

/* ---- Inflight buffer, log, configuration ---- */

static int send_inflight(VufeFrontend *fe, uint64_t size, uint64_t offset,
                         uint16_t queues, uint16_t queue_size, int fd)
{
    VufeMsg msg = { .request = VUFE_SET_INFLIGHT_FD,
                    .size = sizeof(VufeInflightMsg) };

    msg.p.inflight = (VufeInflightMsg) { size, offset, queues, queue_size };
    msg.fds[msg.num_fds++] = fd;
    return vufe_call(&fe->conn, &msg);
}

static void test_inflight_sizes(void)
{
    VufeFrontend *fe = almost();
    int fd = memfd_create("inflight", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, 65536), ==, 0);
    g_assert_cmpint(send_inflight(fe, 65536, 0, 0, 128, fd), ==, -EREMOTEIO);
    g_assert_cmpint(send_inflight(fe, 65536, 0, 1, 0, fd), ==, -EREMOTEIO);
    g_assert_cmpint(send_inflight(fe, 65536, 0, 65535, 65535, fd), ==,
                    -EREMOTEIO);
    g_assert_cmpint(send_inflight(fe, 16, 0, 1, 128, fd), ==, -EREMOTEIO);
    g_assert_cmpint(send_inflight(fe, UINT64_MAX, 65536, 1, 128, fd), ==,
                    -EREMOTEIO);
    g_assert_cmpint(send_inflight(fe, 65536, UINT64_MAX - 7, 1, 128, fd), ==,
                    -EREMOTEIO);
    g_assert_cmpint(send_inflight(fe, 65536, 1, 1, 128, fd), ==, -EREMOTEIO);
    g_assert_cmpint(send_inflight(fe, 65536, 0, 1, 128, fd), ==, 0);
    close(fd);
    vufe_close(fe);
}

/* Contents of the buffer that make no sense: no crash, and no request that
 * the guest did not make. */
static void test_inflight_contents(void)
{
    for (int packed = 0; packed < 2; packed++) {
        for (int fill = 0; fill < 4; fill++) {
            VufeOptions opts = { .packed = packed, .inflight = true };
            VufeFrontend *fe = vufe_new(server->path, &opts);
            uint16_t *version;

            g_assert_cmpint(vufe_connect(fe), ==, 0);
            g_assert_cmpint(vufe_negotiate(fe), ==, 0);
            g_assert_cmpint(vufe_share_memory(fe), ==, 0);
            g_assert_cmpint(vufe_setup_inflight(fe), ==, 0);
            memset(fe->inflight.map, fill == 1 ? 0xff : fill == 2 ? 0x01 :
                   fill == 3 ? 0x7f : 0, fe->inflight.size);
            version = (uint16_t *)((char *)fe->inflight.map + 8);
            version[0] = 1;
            version[1] = 128;
            if (vufe_start_rings(fe) == 0) {
                vufe_stop_ring(fe, 0);
            }
            vufe_close(fe);
            fake_server_check_alive(server);
        }
    }
}

static void test_config_sizes(void)
{
    const uint32_t sizes[][2] = {
        { 0, 257 }, { 256, 1 }, { UINT32_MAX, 1 }, { 1, UINT32_MAX },
    };
    VufeFrontend *fe = almost();

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        VufeMsg msg = { .request = VUFE_GET_CONFIG, .size = VUFE_CONFIG_HDR };

        msg.p.config.offset = sizes[i][0];
        msg.p.config.size = sizes[i][1];
        g_assert_cmpint(vufe_query(&fe->conn, &msg, 0), ==, 0);
        g_assert_cmpuint(msg.size, ==, 0);
        msg = (VufeMsg) { .request = VUFE_SET_CONFIG,
                          .size = VUFE_CONFIG_HDR + 1 };
        msg.p.config.offset = sizes[i][0];
        msg.p.config.size = sizes[i][1];
        g_assert_cmpint(vufe_call(&fe->conn, &msg), ==, -EREMOTEIO);
    }
    vufe_close(fe);
}

static void test_unknown_features(void)
{
    VufeFrontend *fe = hello();

    g_assert_cmpint(vufe_negotiate(fe), ==, 0);
    g_assert_cmpint(vufe_call_u64(&fe->conn, VUFE_SET_FEATURES, UINT64_MAX),
                    ==, -EREMOTEIO);
    g_assert_cmpint(vufe_call_u64(&fe->conn, VUFE_SET_PROTOCOL_FEATURES,
                                  UINT64_MAX), ==, -EREMOTEIO);
    vufe_close(fe);
}

/* ---- Leaving ---- */

/* A sensible session up to byte @n of its last message, then nothing. */
static void leave_after(size_t n)
{
    VufeFrontend *fe = hello();
    VufeMsg msg = { .request = VUFE_SET_MEM_TABLE,
                    .flags = VUFE_VERSION | VUFE_FLAG_NEED_REPLY };

    g_assert_cmpint(vufe_negotiate(fe), ==, 0);
    msg.size = offsetof(VufeMemTable, regions[1]);
    msg.p.mem_table.num = 1;
    msg.p.mem_table.regions[0] = vufe_region_msg(&fe->mem.regions[0]);
    g_assert_cmpint(vufe_send_bytes(&fe->conn, &msg, n,
                                    &fe->mem.regions[0].fd, 1), ==, 0);
    vufe_close(fe);
}

static void test_leave_at_every_byte(void)
{
    size_t len = VUFE_HDR_SIZE + offsetof(VufeMemTable, regions[1]);

    for (size_t n = 1; n <= len; n++) {
        leave_after(n);
    }
}

static void test_many_connections(void)
{
    for (int i = 0; i < 300; i++) {
        vufe_close(hello());
    }
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
    TEST("message/unknown-features", test_unknown_features);
    TEST("message/configuration-sizes", test_config_sizes);
    TEST("fds/counts", test_fd_counts);
    TEST("fds/with-every-byte", test_fds_trickle);
    TEST("fds/odd-notifier", test_odd_notifier);
    TEST("ring/indices", test_ring_indices);
    TEST("ring/sizes", test_ring_sizes);
    TEST("ring/addresses", test_ring_addresses);
    TEST("ring/kick-before-all", test_kick_before_all);
    TEST("ring/blocking-call", test_blocking_call);
    TEST("memory/tables", test_memory_tables);
    TEST("memory/truncated", test_truncated_memory);
    TEST("memory/unknown-region", test_remove_unknown_region);
    TEST("inflight/sizes", test_inflight_sizes);
    TEST("inflight/contents", test_inflight_contents);
    TEST("leave/at-every-byte", test_leave_at_every_byte);
    TEST("leave/many-times", test_many_connections);
    return g_test_run();
}
