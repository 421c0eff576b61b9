/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Life of a vhost-user device as its front end sees it: see
 * vhost-user-frontend.h.
 *
 * Order of a start, as the specification wants it: features, protocol
 * features, owner; memory; inflight region; then per ring its size, base,
 * addresses, call and err descriptors, and last the kick descriptor, with which
 * the ring is started, and its enabling.
 *
 * A reconnect is the same with the old memory, the same features and, in place
 * of GET_INFLIGHT_FD, SET_INFLIGHT_FD.
 */
#include "vhost-user-frontend.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* Everything that this library knows how to live with. */
#define KNOWN_FEATURES                                                         \
    (VUFE_BIT(VIRTIO_F_VERSION_1) | VUFE_BIT(VUFE_F_PROTOCOL_FEATURES) |       \
     VUFE_BIT(VIRTIO_RING_F_INDIRECT_DESC) |                                   \
     VUFE_BIT(VIRTIO_RING_F_EVENT_IDX) | VUFE_BIT(VIRTIO_F_RING_PACKED) |      \
     VUFE_BIT(VIRTIO_BLK_F_SIZE_MAX) | VUFE_BIT(VIRTIO_BLK_F_SEG_MAX) |        \
     VUFE_BIT(VIRTIO_BLK_F_GEOMETRY) | VUFE_BIT(VIRTIO_BLK_F_RO) |             \
     VUFE_BIT(VIRTIO_BLK_F_BLK_SIZE) | VUFE_BIT(VIRTIO_BLK_F_FLUSH) |          \
     VUFE_BIT(VIRTIO_BLK_F_TOPOLOGY) | VUFE_BIT(VIRTIO_BLK_F_CONFIG_WCE) |     \
     VUFE_BIT(VIRTIO_BLK_F_MQ) | VUFE_BIT(VIRTIO_BLK_F_DISCARD) |              \
     VUFE_BIT(VIRTIO_BLK_F_WRITE_ZEROES))

#define KNOWN_PROTOCOL                                                         \
    (VUFE_BIT(VUFE_P_MQ) | VUFE_BIT(VUFE_P_LOG_SHMFD) |                        \
     VUFE_BIT(VUFE_P_REPLY_ACK) | VUFE_BIT(VUFE_P_CONFIG) |                    \
     VUFE_BIT(VUFE_P_INFLIGHT_SHMFD) | VUFE_BIT(VUFE_P_RESET_DEVICE) |         \
     VUFE_BIT(VUFE_P_CONFIGURE_MEM_SLOTS) | VUFE_BIT(VUFE_P_STATUS))

static VufeOptions fill_options(const VufeOptions *given)
{
    VufeOptions o = given ? *given : (VufeOptions){ 0 };

    o.num_queues = o.num_queues ? o.num_queues : 1;
    o.queue_size = o.queue_size ? o.queue_size : 128;
    o.num_regions = o.num_regions ? o.num_regions : 1;
    o.region_size = o.region_size ? o.region_size : 64 << 20;
    o.region_gap = o.region_gap ? o.region_gap : 2 << 20;
    if (o.region_gap == VUFE_NO_GAP) {
        o.region_gap = 0;
    }
    o.timeout_ms = o.timeout_ms ? o.timeout_ms : VUFE_TIMEOUT_MS;
    return o;
}

VufeFrontend *vufe_new(const char *path, const VufeOptions *opts)
{
    VufeFrontend *fe = g_new0(VufeFrontend, 1);
    VufeOptions *o = &fe->opts;

    *o = fill_options(opts);
    vufe_conn_adopt(&fe->conn, -1, o->timeout_ms);
    fe->path = g_strdup(path);
    fe->inflight.fd = -1;
    fe->backend_fd = -1;
    if (o->num_queues > VUFE_QUEUES_MAX ||
        vufe_mem_init(&fe->mem, o->num_regions, o->region_size, o->region_gap,
                      o->mmap_offset) < 0) {
        vufe_close(fe);
        return NULL;
    }
    while (fe->num_rings < o->num_queues) {
        unsigned i = fe->num_rings;

        if (vufe_ring_init(&fe->rings[i], &fe->mem, i % fe->mem.num, i,
                           o->queue_size, o->packed, o->indirect,
                           o->event_idx) < 0) {
            vufe_close(fe);
            return NULL;
        }
        /* A packed ring starts with both wrap counters set. */
        fe->base[i] = o->packed ? 0x80008000u : 0;
        fe->num_rings++;
    }
    return fe;
}

static void drop_inflight(VufeFrontend *fe)
{
    if (fe->inflight.fd >= 0) {
        munmap(fe->inflight.map, fe->inflight.size);
        close(fe->inflight.fd);
        fe->inflight.fd = -1;
    }
}

static void drop_connection(VufeFrontend *fe)
{
    vufe_conn_close(&fe->conn);
    if (fe->backend_fd >= 0) {
        close(fe->backend_fd);
        fe->backend_fd = -1;
    }
}

void vufe_close(VufeFrontend *fe)
{
    if (!fe) {
        return;
    }
    drop_connection(fe);
    drop_inflight(fe);
    while (fe->num_rings) {
        vufe_ring_destroy(&fe->rings[--fe->num_rings]);
    }
    vufe_mem_destroy(&fe->mem);
    g_free(fe->path);
    g_free(fe);
}

const char *vufe_error(const VufeFrontend *fe)
{
    return fe->conn.err;
}

int vufe_connect(VufeFrontend *fe)
{
    return vufe_conn_open(&fe->conn, fe->path, fe->opts.timeout_ms);
}

static uint64_t wanted_features(const VufeFrontend *fe)
{
    uint64_t off = fe->opts.features_off;

    off |= fe->opts.packed ? 0 : VUFE_BIT(VIRTIO_F_RING_PACKED);
    off |= fe->opts.event_idx ? 0 : VUFE_BIT(VIRTIO_RING_F_EVENT_IDX);
    off |= fe->opts.indirect ? 0 : VUFE_BIT(VIRTIO_RING_F_INDIRECT_DESC);
    return KNOWN_FEATURES & ~off;
}

/* -ENOTSUP when the options demand what the back end did not offer. */
static int check_offer(VufeFrontend *fe)
{
    const struct {
        bool wanted;
        uint64_t got;
        const char *name;
    } demands[] = {
        { true, fe->features & VUFE_BIT(VIRTIO_F_VERSION_1), "virtio 1" },
        { fe->opts.packed, fe->features & VUFE_BIT(VIRTIO_F_RING_PACKED),
          "packed rings" },
        { fe->opts.event_idx, fe->features & VUFE_BIT(VIRTIO_RING_F_EVENT_IDX),
          "the event index" },
        { fe->opts.indirect,
          fe->features & VUFE_BIT(VIRTIO_RING_F_INDIRECT_DESC),
          "indirect descriptors" },
        { fe->opts.num_queues > 1, fe->protocol & VUFE_BIT(VUFE_P_MQ),
          "several queues" },
        { fe->opts.inflight, fe->protocol & VUFE_BIT(VUFE_P_INFLIGHT_SHMFD),
          "an inflight region" },
        { fe->opts.mem_slots,
          fe->protocol & VUFE_BIT(VUFE_P_CONFIGURE_MEM_SLOTS),
          "memory slots" },
    };
    size_t i;

    for (i = 0; i < G_N_ELEMENTS(demands); i++) {
        if (demands[i].wanted && !demands[i].got) {
            return vufe_fail(&fe->conn, -ENOTSUP, "back end lacks %s",
                             demands[i].name);
        }
    }
    return 0;
}

static int negotiate_protocol(VufeFrontend *fe)
{
    uint64_t off = fe->opts.protocol_off;
    int ret;

    fe->protocol = 0;
    if (!(fe->features & VUFE_BIT(VUFE_F_PROTOCOL_FEATURES))) {
        return 0;
    }
    ret = vufe_query_u64(&fe->conn, VUFE_GET_PROTOCOL_FEATURES,
                         &fe->protocol_offered);
    if (ret < 0) {
        return ret;
    }
    fe->protocol = fe->protocol_offered & ~off &
                   (KNOWN_PROTOCOL | (fe->opts.backend_channel
                                          ? VUFE_BIT(VUFE_P_BACKEND_REQ)
                                          : 0));
    ret = vufe_call_u64(&fe->conn, VUFE_SET_PROTOCOL_FEATURES, fe->protocol);
    fe->conn.reply_ack =
        ret == 0 && (fe->protocol & VUFE_BIT(VUFE_P_REPLY_ACK));
    return ret;
}

static int send_backend_channel(VufeFrontend *fe)
{
    int sv[2];
    int ret;

    if (!(fe->protocol & VUFE_BIT(VUFE_P_BACKEND_REQ))) {
        return 0;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
        return vufe_fail(&fe->conn, -errno, "back-end channel");
    }
    ret = vufe_call_fd(&fe->conn, VUFE_SET_BACKEND_REQ_FD, 0, sv[1]);
    close(sv[1]);
    fe->backend_fd = sv[0];
    return ret;
}

int vufe_negotiate(VufeFrontend *fe)
{
    VufeConn *conn = &fe->conn;
    int ret = vufe_query_u64(conn, VUFE_GET_FEATURES, &fe->features_offered);

    if (ret < 0) {
        return ret;
    }
    fe->features = fe->features_offered & wanted_features(fe);
    ret = negotiate_protocol(fe);
    if (ret == 0) {
        ret = check_offer(fe);
    }
    if (ret == 0) {
        ret = vufe_call_empty(conn, VUFE_SET_OWNER);
    }
    if (ret == 0) {
        ret = send_backend_channel(fe);
    }
    if (ret == 0 && (fe->protocol & VUFE_BIT(VUFE_P_MQ))) {
        ret = vufe_query_u64(conn, VUFE_GET_QUEUE_NUM, &fe->max_queues);
        if (ret == 0 && fe->max_queues < fe->opts.num_queues) {
            ret = vufe_fail(conn, -ENOTSUP,
                            "back end has %" PRIu64 " queues, not %u",
                            fe->max_queues, fe->opts.num_queues);
        }
    }
    return ret < 0 ? ret
                   : vufe_call_u64(conn, VUFE_SET_FEATURES, fe->features);
}

int vufe_share_memory(VufeFrontend *fe)
{
    unsigned i;
    int ret = 0;

    if (!fe->opts.mem_slots) {
        return vufe_mem_send_table(&fe->conn, &fe->mem);
    }
    for (i = 0; i < fe->mem.num && ret == 0; i++) {
        ret = vufe_mem_send_add(&fe->conn, &fe->mem, i);
    }
    return ret;
}

static int get_inflight(VufeFrontend *fe)
{
    VufeMsg msg = { .request = VUFE_GET_INFLIGHT_FD,
                    .size = sizeof(VufeInflightMsg) };
    VufeInflight *f = &fe->inflight;
    int ret;

    msg.p.inflight.num_queues = fe->opts.num_queues;
    msg.p.inflight.queue_size = fe->opts.queue_size;
    ret = vufe_query(&fe->conn, &msg, offsetof(VufeInflightMsg, padding));
    if (ret < 0) {
        return ret;
    }
    if (msg.num_fds != 1 || msg.p.inflight.mmap_size == 0) {
        vufe_msg_close_fds(&msg);
        return vufe_fail(&fe->conn, -EPROTO,
                         "inflight region of %" PRIu64 " bytes with %u fds",
                         msg.p.inflight.mmap_size, msg.num_fds);
    }
    f->size = msg.p.inflight.mmap_size;
    f->offset = msg.p.inflight.mmap_offset;
    f->map = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_SHARED,
                  msg.fds[0], f->offset);
    if (f->map == MAP_FAILED) {
        ret = vufe_fail(&fe->conn, -errno, "mapping the inflight region");
        vufe_msg_close_fds(&msg);
        return ret;
    }
    f->fd = msg.fds[0];
    return 0;
}

int vufe_setup_inflight(VufeFrontend *fe)
{
    VufeMsg msg = { .request = VUFE_SET_INFLIGHT_FD,
                    .size = sizeof(VufeInflightMsg),
                    .num_fds = 1 };

    if (fe->inflight.fd < 0) {
        int ret = get_inflight(fe);

        if (ret < 0) {
            return ret;
        }
    }
    msg.fds[0] = fe->inflight.fd;
    msg.p.inflight = (VufeInflightMsg){
        .mmap_size = fe->inflight.size,
        .mmap_offset = fe->inflight.offset,
        .num_queues = fe->opts.num_queues,
        .queue_size = fe->opts.queue_size,
    };
    return vufe_call(&fe->conn, &msg);
}

/* Where guest-physical @gpa is in this process, which is what rings go by. */
static uint64_t user_addr(const VufeFrontend *fe, uint64_t gpa)
{
    return (uintptr_t)vufe_mem_ptr(&fe->mem, gpa, 1);
}

int vufe_send_vring_addr(VufeFrontend *fe, unsigned index, uint32_t flags)
{
    const VufeRing *r = &fe->rings[index];
    VufeMsg msg = { .request = VUFE_SET_VRING_ADDR,
                    .size = sizeof(VufeVringAddr) };

    msg.p.addr = (VufeVringAddr){
        .index = index,
        .flags = flags,
        .desc = user_addr(fe, r->desc_gpa),
        .avail = user_addr(fe, r->driver_gpa),
        .used = user_addr(fe, r->device_gpa),
        .log = r->device_gpa,
    };
    return vufe_call(&fe->conn, &msg);
}

int vufe_start_ring(VufeFrontend *fe, unsigned index)
{
    VufeConn *c = &fe->conn;
    VufeRing *r = &fe->rings[index];
    int ret;

    if ((ret = vufe_call_state(c, VUFE_SET_VRING_NUM, index, r->size)) < 0 ||
        (ret = vufe_call_state(c, VUFE_SET_VRING_BASE, index,
                               fe->base[index])) < 0 ||
        (ret = vufe_send_vring_addr(fe, index, 0)) < 0 ||
        (ret = vufe_call_fd(c, VUFE_SET_VRING_CALL, index, r->call_fd)) < 0 ||
        (ret = vufe_call_fd(c, VUFE_SET_VRING_ERR, index, r->err_fd)) < 0 ||
        (ret = vufe_call_fd(c, VUFE_SET_VRING_KICK, index, r->kick_fd)) < 0) {
        return ret;
    }
    /* Without the protocol features a ring starts enabled. */
    if (fe->features & VUFE_BIT(VUFE_F_PROTOCOL_FEATURES)) {
        ret = vufe_call_state(c, VUFE_SET_VRING_ENABLE, index, 1);
    }
    return ret;
}

int vufe_start_rings(VufeFrontend *fe)
{
    unsigned i;
    int ret = 0;

    for (i = 0; i < fe->num_rings && ret == 0; i++) {
        ret = vufe_start_ring(fe, i);
    }
    return ret;
}

/* Everything after vufe_connect. */
static int bring_up(VufeFrontend *fe)
{
    int ret = vufe_negotiate(fe);

    if (ret == 0) {
        ret = vufe_share_memory(fe);
    }
    if (ret == 0 && fe->opts.inflight) {
        ret = vufe_setup_inflight(fe);
    }
    return ret < 0 ? ret : vufe_start_rings(fe);
}

VufeFrontend *vufe_open(const char *path, const VufeOptions *opts,
                        char **errmsg)
{
    VufeFrontend *fe = vufe_new(path, opts);

    if (!fe) {
        *errmsg = g_strdup("no memory, or options out of range");
        return NULL;
    }
    if (vufe_connect(fe) < 0 || bring_up(fe) < 0) {
        *errmsg = g_strdup(vufe_error(fe));
        vufe_close(fe);
        return NULL;
    }
    return fe;
}

int vufe_stop_ring(VufeFrontend *fe, unsigned index)
{
    VufeMsg msg = { .request = VUFE_GET_VRING_BASE,
                    .size = sizeof(VufeVringState) };
    int ret;

    msg.p.state.index = index;
    ret = vufe_query(&fe->conn, &msg, sizeof(VufeVringState));
    if (ret < 0) {
        return ret;
    }
    vufe_msg_close_fds(&msg);
    if (msg.p.state.index != index) {
        return vufe_fail(&fe->conn, -EPROTO, "base of ring %u, not %u",
                         msg.p.state.index, index);
    }
    fe->base[index] = msg.p.state.num;
    return 0;
}

int vufe_reconnect(VufeFrontend *fe)
{
    uint64_t features = fe->features;
    unsigned i;
    int ret;

    drop_connection(fe);
    for (i = 0; i < fe->num_rings; i++) {
        fe->base[i] = vufe_ring_device_base(&fe->rings[i]);
    }
    ret = vufe_connect(fe);
    if (ret == 0) {
        ret = bring_up(fe);
    }
    if (ret == 0 && fe->features != features) {
        ret = vufe_fail(&fe->conn, -EPROTO,
                        "features changed from 0x%" PRIx64 " to 0x%" PRIx64,
                        features, fe->features);
    }
    for (i = 0; i < fe->num_rings && ret == 0; i++) {
        /* A kick that the old back end took with it would never be repeated. */
        vufe_ring_kick_always(&fe->rings[i]);
    }
    return ret;
}
