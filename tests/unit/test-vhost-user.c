/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vhost-user transport with a well-behaved front end: the messages that
 * change things under running rings, migration's log, reset, and coming back.
 */
#include "qemu/osdep.h"
#include "fake-server.h"
#include <poll.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <sys/mman.h>

#define WAIT_MS 10000

static void check_io(VufeFrontend *fe, unsigned queue, int seed)
{
    char out[4096], in[4096];

    memset(out, seed, sizeof(out));
    g_assert_cmpint(vufe_blk_write(fe, queue, 4096, out, sizeof(out)), ==, 0);
    g_assert_cmpint(vufe_blk_read(fe, queue, 4096, in, sizeof(in)), ==, 0);
    g_assert_cmpmem(out, sizeof(out), in, sizeof(in));
}

static void test_negotiation(void)
{
    FakeServer *s = fake_server_new(true, 512);
    g_autoptr(VufeFrontend) fe = fake_server_connect(s, NULL);

    g_assert_cmphex(fe->features_offered, ==,
                    VUFE_BIT(VIRTIO_BLK_F_SEG_MAX) |
                    VUFE_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                    VUFE_BIT(VIRTIO_BLK_F_FLUSH) |
                    VUFE_BIT(VIRTIO_BLK_F_TOPOLOGY) |
                    VUFE_BIT(VIRTIO_BLK_F_CONFIG_WCE) |
                    VUFE_BIT(VIRTIO_BLK_F_MQ) |
                    VUFE_BIT(VIRTIO_BLK_F_DISCARD) |
                    VUFE_BIT(VIRTIO_BLK_F_WRITE_ZEROES) |
                    VUFE_BIT(VIRTIO_F_ANY_LAYOUT) |
                    VUFE_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
                    VUFE_BIT(VIRTIO_RING_F_EVENT_IDX) |
                    VUFE_BIT(VIRTIO_F_VERSION_1) |
                    VUFE_BIT(VIRTIO_F_RING_PACKED) |
                    VUFE_BIT(VUFE_F_LOG_ALL) |
                    VUFE_BIT(VUFE_F_PROTOCOL_FEATURES));
    g_assert_cmphex(fe->protocol_offered, ==,
                    VUFE_BIT(VUFE_P_MQ) | VUFE_BIT(VUFE_P_LOG_SHMFD) |
                    VUFE_BIT(VUFE_P_REPLY_ACK) | VUFE_BIT(VUFE_P_BACKEND_REQ) |
                    VUFE_BIT(VUFE_P_CONFIG) |
                    VUFE_BIT(VUFE_P_INFLIGHT_SHMFD) |
                    VUFE_BIT(VUFE_P_RESET_DEVICE) |
                    VUFE_BIT(VUFE_P_CONFIGURE_MEM_SLOTS) |
                    VUFE_BIT(VUFE_P_STATUS));
    g_assert_cmpuint(fe->max_queues, ==, FAKE_QUEUES);
    fake_server_free(s);
}

/* Without protocol features a ring is enabled from the start. */
static void test_no_protocol_features(void)
{
    FakeServer *s = fake_server_new(true, 512);
    VufeOptions opts = {
        .features_off = VUFE_BIT(VUFE_F_PROTOCOL_FEATURES),
    };
    VufeFrontend *fe = fake_server_connect(s, &opts);

    check_io(fe, 0, 1);
    vufe_close(fe);
    fake_server_free(s);
}

static void test_regions(void)
{
    FakeServer *s = fake_server_new(true, 512);
    const VufeOptions variants[] = {
        { .num_regions = 8, .region_size = 16 * MiB },
        { .num_regions = 8, .region_size = 16 * MiB, .mem_slots = true },
        { .num_regions = 2, .region_size = 16 * MiB, .mmap_offset = 8192 },
        { .num_regions = 3, .region_size = 16 * MiB,
          .region_gap = VUFE_NO_GAP },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(variants); i++) {
        VufeFrontend *fe = fake_server_connect(s, &variants[i]);

        check_io(fe, 0, i);
        vufe_close(fe);
    }
    fake_server_free(s);
}

/* Memory comes and goes while requests are on their way. */
static void test_memory_under_load(void)
{
    FakeServer *s = fake_server_new(true, 512);
    VufeOptions opts = { .num_queues = 2, .region_size = 16 * MiB,
                         .mem_slots = true };
    VufeFrontend *fe = fake_server_connect(s, &opts);
    uint64_t slots, gpa = fe->mem.regions[0].gpa + 64 * MiB;

    g_assert_cmpint(vufe_query_u64(&fe->conn, VUFE_GET_MAX_MEM_SLOTS, &slots),
                    ==, 0);
    g_assert_cmpuint(slots, >=, 8);
    /* so that their buffers lie in the region that stays */
    check_io(fe, 0, 1);
    check_io(fe, 1, 1);
    for (int i = 0; i < 5; i++) {
        int n = vufe_mem_add(&fe->mem, gpa + i * 16 * MiB, MiB, 0);

        g_assert_cmpint(n, >, 0);
        g_assert_cmpint(vufe_mem_send_add(&fe->conn, &fe->mem, n), ==, 0);
        check_io(fe, i % 2, i);
        g_assert_cmpint(vufe_mem_send_remove(&fe->conn, &fe->mem, n), ==, 0);
        check_io(fe, i % 2, i);
        g_assert_cmpint(vufe_mem_send_table(&fe->conn, &fe->mem), ==, 0);
        check_io(fe, i % 2, i);
    }
    vufe_close(fe);
    fake_server_free(s);
}

/* Memory is registered for as long as it is there. */
static void test_memory_registered(void)
{
    VufeOptions opts = { .num_regions = 2, .region_size = 16 * MiB,
                         .mem_slots = true };
    VufeFrontend *fe;
    FakeServer *s;

    fake_server_registers = true;
    s = fake_server_new(true, 512);
    fake_server_registers = false;
    for (int i = 0; i < 3; i++) {
        fe = fake_server_connect(s, &opts);
        check_io(fe, 0, 1);
        g_assert_cmpuint(fake_registered_bufs(), ==, 2);
        g_assert_true(fake_blk_last_flags(s->blk) & BDRV_REQ_REGISTERED_BUF);
        g_assert_cmpint(vufe_mem_send_remove(&fe->conn, &fe->mem, 1), ==, 0);
        check_io(fe, 0, 2);
        g_assert_cmpuint(fake_registered_bufs(), ==, 1);
        g_assert_cmpint(vufe_mem_send_add(&fe->conn, &fe->mem, 1), ==, 0);
        check_io(fe, 0, 3);
        g_assert_cmpuint(fake_registered_bufs(), ==, 2);
        g_assert_cmpint(vufe_mem_send_table(&fe->conn, &fe->mem), ==, 0);
        check_io(fe, 0, 4);
        g_assert_cmpuint(fake_registered_bufs(), ==, 2);
        if (i < 2) {
            vufe_close(fe);
        }
    }
    /* The server ends under the last one. */
    fake_server_free(s);
    g_assert_cmpuint(fake_registered_bufs(), ==, 0);
    vufe_close(fe);
}

/* By those who did not ask for it, nothing is. */
static void test_memory_not_registered(void)
{
    FakeServer *s = fake_server_new(true, 512);
    g_autoptr(VufeFrontend) fe = fake_server_connect(s, NULL);

    check_io(fe, 0, 1);
    g_assert_cmpuint(fake_registered_bufs(), ==, 0);
    g_assert_false(fake_blk_last_flags(s->blk) & BDRV_REQ_REGISTERED_BUF);
    fake_server_free(s);
}

/* The memory that a ring lies in goes: refused, and the ring does not run;
 * nor does anything else break. */
static void test_memory_of_ring_goes(void)
{
    FakeServer *s = fake_server_new(true, 512);
    VufeOptions opts = { .mem_slots = true, .region_size = 16 * MiB };
    VufeFrontend *fe = fake_server_connect(s, &opts);

    check_io(fe, 0, 1);
    g_assert_cmpint(vufe_mem_send_remove(&fe->conn, &fe->mem, 0), ==,
                    -EREMOTEIO);
    vufe_close(fe);
    fake_server_check_alive(s);
    fake_server_free(s);
}

/* ---- Stopping and starting rings ---- */

static void test_stop_and_start(void)
{
    FakeServer *s = fake_server_new(true, 512);

    for (int packed = 0; packed < 2; packed++) {
        VufeOptions opts = { .num_queues = 2, .packed = packed,
                             .inflight = true };
        VufeFrontend *fe = fake_server_connect(s, &opts);

        for (int i = 0; i < 20; i++) {
            check_io(fe, i % 2, i);
            g_assert_cmpint(vufe_stop_ring(fe, i % 2), ==, 0);
            g_assert_cmpint(vufe_start_ring(fe, i % 2), ==, 0);
        }
        vufe_close(fe);
    }
    fake_server_free(s);
}

static void test_disabled_ring(void)
{
    FakeServer *s = fake_server_new(true, 512);
    VufeOptions opts = { .num_queues = 2 };
    VufeFrontend *fe = fake_server_connect(s, &opts);
    VufeBuf bufs[2];
    void *token;
    uint32_t len;

    g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_ENABLE, 0, 0),
                    ==, 0);
    bufs[0] = (VufeBuf) { vufe_mem_alloc(&fe->mem, 0, 16, 16), 16, false };
    bufs[1] = (VufeBuf) { vufe_mem_alloc(&fe->mem, 0, 513, 16), 513, true };
    g_assert_cmpint(vufe_ring_add(&fe->rings[0], bufs, 2, false, s), >=, 0);
    vufe_ring_publish(&fe->rings[0]);
    vufe_ring_kick_always(&fe->rings[0]);
    check_io(fe, 1, 3);
    g_assert_false(vufe_ring_has_used(&fe->rings[0]));
    g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_ENABLE, 0, 1),
                    ==, 0);
    g_assert_cmpint(vufe_ring_wait(&fe->rings[0], WAIT_MS), ==, 0);
    g_assert_cmpint(vufe_ring_get_used(&fe->rings[0], &token, &len), ==, 1);
    vufe_close(fe);
    fake_server_free(s);
}

/* A ring without a kick is looked at every now and then. */
static void test_no_kick(void)
{
    FakeServer *s = fake_server_new(true, 512);
    VufeFrontend *fe = fake_server_connect(s, NULL);

    g_assert_cmpint(vufe_call_u64(&fe->conn, VUFE_SET_VRING_KICK,
                                  VUFE_VRING_NOFD), ==, 0);
    check_io(fe, 0, 1);
    check_io(fe, 0, 2);
    vufe_close(fe);
    fake_server_free(s);
}

/* The call notifier is exchanged under a running ring. */
static void test_call_changes(void)
{
    FakeServer *s = fake_server_new(true, 512);
    VufeFrontend *fe = fake_server_connect(s, NULL);
    VufeRing *r = &fe->rings[0];

    for (int i = 0; i < 50; i++) {
        g_assert_cmpint(vufe_call_u64(&fe->conn, VUFE_SET_VRING_CALL,
                                      VUFE_VRING_NOFD), ==, 0);
        g_assert_cmpint(vufe_call_fd(&fe->conn, VUFE_SET_VRING_CALL, 0,
                                     r->call_fd), ==, 0);
        check_io(fe, 0, i);
    }
    vufe_close(fe);
    fake_server_free(s);
}

/* ---- Reset and status ---- */

static void start_over(VufeFrontend *fe)
{
    g_assert_cmpint(vufe_call_u64(&fe->conn, VUFE_SET_FEATURES, fe->features),
                    ==, 0);
    vufe_ring_reset(&fe->rings[0]);
    fe->base[0] = 0;
    g_assert_cmpint(vufe_start_ring(fe, 0), ==, 0);
    check_io(fe, 0, 4);
}

static void test_reset(void)
{
    FakeServer *s = fake_server_new(true, 512);
    VufeFrontend *fe = fake_server_connect(s, NULL);
    uint8_t status = 0;

    g_assert_cmpint(vufe_set_status(fe, 0xf), ==, 0);
    g_assert_cmpint(vufe_get_status(fe, &status), ==, 0);
    g_assert_cmpint(status, ==, 0xf);
    check_io(fe, 0, 1);
    g_assert_cmpint(vufe_reset_device(fe), ==, 0);
    g_assert_cmpint(vufe_get_status(fe, &status), ==, 0);
    g_assert_cmpint(status, ==, 0);
    start_over(fe);
    g_assert_cmpint(vufe_set_status(fe, 0), ==, 0);
    /* Only now it wants to know the position (as QEMU 7.2 does). */
    g_assert_cmpint(vufe_stop_ring(fe, 0), ==, 0);
    g_assert_cmpuint(fe->base[0], ==, 2);
    start_over(fe);
    vufe_close(fe);
    fake_server_free(s);
}

/* ---- Migration ---- */

static bool is_dirty(const uint8_t *log, uint64_t gpa)
{
    return log[gpa / 4096 / 8] >> (gpa / 4096 % 8) & 1;
}

static void test_log(void)
{
    FakeServer *s = fake_server_new(true, 512);

    for (int packed = 0; packed < 2; packed++) {
        VufeOptions opts = { .packed = packed };
        VufeFrontend *fe = fake_server_connect(s, &opts);
        const VufeRegion *region = &fe->mem.regions[0];
        uint64_t size = (region->gpa + region->size) / 4096 / 8 + 8;
        uint8_t *log;
        char buf[4096];

        check_io(fe, 0, 1);
        g_assert_cmpint(vufe_start_log(fe, size, &log), ==, 0);
        g_assert_cmpint(vufe_blk_write(fe, 0, 0, buf, 512), ==, 0);
        g_assert_true(is_dirty(log, packed ? fe->rings[0].desc_gpa :
                                             fe->rings[0].device_gpa));
        memset(log, 0, size);
        /* of a read also the data */
        g_assert_cmpint(vufe_blk_read(fe, 0, 0, buf, 4096), ==, 0);
        g_assert_true(is_dirty(log, fe->bounce[0] + 4096) ||
                      is_dirty(log, fe->bounce[0]));
        g_assert_cmpint(vufe_stop_log(fe), ==, 0);
        memset(log, 0, size);
        check_io(fe, 0, 2);
        for (uint64_t i = 0; i < size; i++) {
            g_assert_cmpint(log[i], ==, 0);
        }
        munmap(log, size);
        vufe_close(fe);
    }
    fake_server_free(s);
}

/* ---- Coming back ---- */

static void test_reconnect(void)
{
    FakeServer *s = fake_server_new(true, 512);

    for (int packed = 0; packed < 2; packed++) {
        VufeOptions opts = { .packed = packed, .inflight = true };
        VufeFrontend *fe = fake_server_connect(s, &opts);

        for (int i = 0; i < 5; i++) {
            check_io(fe, 0, i);
            fake_server_restart(s);
            g_assert_cmpint(vufe_reconnect(fe), ==, 0);
            check_io(fe, 0, i + 1);
        }
        vufe_close(fe);
    }
    fake_server_free(s);
}

static void start_from_zero(VufeFrontend *fe)
{
    vufe_ring_reset(&fe->rings[0]);
    fe->base[0] = fe->opts.packed ? 0x80008000 : 0;
    g_assert_cmpint(vufe_start_ring(fe, 0), ==, 0);
    check_io(fe, 0, 7);
}

/* Once a front end knows where a ring stopped, it alone says where to go on,
 * even if the ring did not run when it was stopped. */
static void test_disabled_then_stopped(void)
{
    FakeServer *s = fake_server_new(true, 512);

    for (int packed = 0; packed < 2; packed++) {
        VufeOptions opts = { .packed = packed, .inflight = true };
        VufeFrontend *fe = fake_server_connect(s, &opts);

        check_io(fe, 0, 1);
        g_assert_cmpint(vufe_call_state(&fe->conn, VUFE_SET_VRING_ENABLE, 0,
                                        0), ==, 0);
        g_assert_cmpint(vufe_stop_ring(fe, 0), ==, 0);
        start_from_zero(fe);
        vufe_close(fe);
    }
    fake_server_free(s);
}

/* A request that was never answered, as nobody could, ends with a reset. */
static void test_reset_forgets_inflight(void)
{
    FakeServer *s = fake_server_new(true, 512);

    for (int packed = 0; packed < 2; packed++) {
        VufeOptions opts = { .packed = packed, .inflight = true };
        VufeFrontend *fe = fake_server_connect(s, &opts);
        struct pollfd pfd = { .fd = fe->rings[0].err_fd, .events = POLLIN };
        VufeBuf bad = { 0xdead0000, 16, false };

        check_io(fe, 0, 1);
        g_assert_cmpint(vufe_ring_add(&fe->rings[0], &bad, 1, false, fe), >=,
                        0);
        vufe_ring_kick(&fe->rings[0]);
        g_assert_cmpint(poll(&pfd, 1, WAIT_MS), ==, 1);
        g_assert_cmpint(vufe_reset_device(fe), ==, 0);
        g_assert_cmpint(vufe_call_u64(&fe->conn, VUFE_SET_FEATURES,
                                      fe->features), ==, 0);
        start_from_zero(fe);
        vufe_close(fe);
    }
    fake_server_free(s);
}

/* The next front end waits until the one before has left. */
static void test_one_at_a_time(void)
{
    FakeServer *s = fake_server_new(true, 512);
    VufeFrontend *first = fake_server_connect(s, NULL);
    VufeFrontend *second = vufe_new(s->path, NULL);
    VhostUserServerStats stats;

    g_assert_cmpint(vufe_connect(second), ==, 0);
    check_io(first, 0, 1);
    vhost_user_server_get_stats(s->server, &stats);
    g_assert_true(stats.connected);
    g_assert_cmpuint(stats.connections, ==, 1);
    vufe_close(first);
    g_assert_cmpint(vufe_negotiate(second), ==, 0);
    g_assert_cmpint(vufe_share_memory(second), ==, 0);
    g_assert_cmpint(vufe_start_rings(second), ==, 0);
    check_io(second, 0, 1);
    vufe_close(second);
    fake_server_free(s);
}

/* The server ends under a connected front end, idle or half-way. */
static void test_server_ends(void)
{
    for (int i = 0; i < 3; i++) {
        FakeServer *s = fake_server_new(true, 512);
        VufeFrontend *fe = vufe_new(s->path, NULL);

        g_assert_cmpint(vufe_connect(fe), ==, 0);
        if (i > 0) {
            g_assert_cmpint(vufe_negotiate(fe), ==, 0);
        }
        if (i > 1) {
            g_assert_cmpint(vufe_send_bytes(&fe->conn, "\1\0\0", 3, NULL, 0),
                            ==, 0);
        }
        fake_server_free(s);
        g_assert_cmpint(vufe_wait_hangup(&fe->conn, WAIT_MS), ==, 0);
        vufe_close(fe);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vhost-user/negotiate/offers", test_negotiation);
    g_test_add_func("/vhost-user/negotiate/no-protocol-features",
                    test_no_protocol_features);
    g_test_add_func("/vhost-user/memory/regions", test_regions);
    g_test_add_func("/vhost-user/memory/changes-under-load",
                    test_memory_under_load);
    g_test_add_func("/vhost-user/memory/registered-while-it-is-there",
                    test_memory_registered);
    g_test_add_func("/vhost-user/memory/not-registered-unasked",
                    test_memory_not_registered);
    g_test_add_func("/vhost-user/memory/of-a-ring-goes",
                    test_memory_of_ring_goes);
    g_test_add_func("/vhost-user/ring/stop-and-start", test_stop_and_start);
    g_test_add_func("/vhost-user/ring/disabled-is-left-alone",
                    test_disabled_ring);
    g_test_add_func("/vhost-user/ring/without-kick", test_no_kick);
    g_test_add_func("/vhost-user/ring/call-changes", test_call_changes);
    g_test_add_func("/vhost-user/reset/starts-over", test_reset);
    g_test_add_func("/vhost-user/log/marks-what-changed", test_log);
    g_test_add_func("/vhost-user/connect/again-after-restart",
                    test_reconnect);
    g_test_add_func("/vhost-user/inflight/disabled-then-stopped",
                    test_disabled_then_stopped);
    g_test_add_func("/vhost-user/inflight/reset-forgets",
                    test_reset_forgets_inflight);
    g_test_add_func("/vhost-user/connect/one-at-a-time", test_one_at_a_time);
    g_test_add_func("/vhost-user/connect/server-ends", test_server_ends);
    return g_test_run();
}
