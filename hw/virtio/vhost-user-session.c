/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhost-user: one connection of a front end, from its first message to the
 * last.
 *
 * A table says for each message how long it is, how many descriptors it may
 * bring and whether it has an answer of its own.  A handler that fails leaves
 * things as they were, but for rings, which may have stopped.
 */
#include "qemu/osdep.h"
#include "vhost-user-internal.h"
#include "hw/virtio/guest-error.h"
#include <linux/virtio_config.h>
#include "qemu/trace.h"

TRACE_EVENT(vhost_user_connect);
TRACE_EVENT(vhost_user_disconnect);
TRACE_EVENT(vhost_user_message);
TRACE_EVENT(vhost_user_refused);

#define BIT(n) (UINT64_C(1) << (n))

enum {
    PROTOCOL_F_MQ = 0,
    PROTOCOL_F_LOG_SHMFD = 1,
    PROTOCOL_F_REPLY_ACK = 3,
    PROTOCOL_F_BACKEND_REQ = 5,
    PROTOCOL_F_CONFIG = 9,
    PROTOCOL_F_INFLIGHT_SHMFD = 12,
    PROTOCOL_F_RESET_DEVICE = 13,
    PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
    PROTOCOL_F_STATUS = 16,
};

#define PROTOCOL_FEATURES                                                   \
    (BIT(PROTOCOL_F_MQ) | BIT(PROTOCOL_F_LOG_SHMFD) |                       \
     BIT(PROTOCOL_F_REPLY_ACK) | BIT(PROTOCOL_F_BACKEND_REQ) |              \
     BIT(PROTOCOL_F_CONFIG) | BIT(PROTOCOL_F_INFLIGHT_SHMFD) |              \
     BIT(PROTOCOL_F_RESET_DEVICE) | BIT(PROTOCOL_F_CONFIGURE_MEM_SLOTS) |   \
     BIT(PROTOCOL_F_STATUS))

#define TRANSPORT_FEATURES \
    (BIT(VHOST_F_LOG_ALL) | BIT(VHOST_USER_F_PROTOCOL_FEATURES))

/* ---- Features ---- */

bool vhost_user_reply_u64(VhostUserMsg *msg, uint64_t value)
{
    msg->payload.u64 = value;
    msg->size = sizeof(value);
    return true;
}

static uint64_t offered_features(VhostUserSession *s)
{
    return s->dev->ops->get_features(s->dev) | TRANSPORT_FEATURES;
}

static bool get_features(VhostUserSession *s, VhostUserMsg *msg, Error **errp)
{
    return vhost_user_reply_u64(msg, offered_features(s));
}

/* Also used to switch the dirty log on and off under running rings. */
static bool set_features(VhostUserSession *s, VhostUserMsg *msg, Error **errp)
{
    uint64_t features = msg->payload.u64;
    uint64_t changed = features ^ s->features;

    if (features & ~offered_features(s)) {
        error_setg(errp, "Features %#" PRIx64 " were not offered",
                   features & ~offered_features(s));
        return false;
    }
    vhost_user_pause_all(s);
    if (changed & ~TRANSPORT_FEATURES) {
        s->dev->ops->set_features(s->dev, features & ~TRANSPORT_FEATURES);
    }
    s->features = features;
    if (!(features & BIT(VHOST_USER_F_PROTOCOL_FEATURES))) {
        for (unsigned i = 0; i < s->dev->num_queues; i++) {
            s->vrings[i].enabled = true;
        }
    }
    return vhost_user_update_all(s, errp);
}

static bool get_protocol_features(VhostUserSession *s, VhostUserMsg *msg,
                                  Error **errp)
{
    return vhost_user_reply_u64(msg, PROTOCOL_FEATURES);
}

static bool set_protocol_features(VhostUserSession *s, VhostUserMsg *msg,
                                  Error **errp)
{
    uint64_t features = msg->payload.u64;

    if (features & ~PROTOCOL_FEATURES) {
        error_setg(errp, "Protocol features %#" PRIx64 " were not offered",
                   (uint64_t)(features & ~PROTOCOL_FEATURES));
        return false;
    }
    s->protocol_features = features;
    return true;
}

static bool get_queue_num(VhostUserSession *s, VhostUserMsg *msg, Error **errp)
{
    return vhost_user_reply_u64(msg, s->dev->num_queues);
}

/* SET_OWNER says hello; RESET_OWNER is deprecated and best ignored. */
static bool do_nothing(VhostUserSession *s, VhostUserMsg *msg, Error **errp)
{
    return true;
}

/* ---- Configuration space ---- */

static bool get_config(VhostUserSession *s, VhostUserMsg *msg, Error **errp)
{
    VhostUserConfig *c = &msg->payload.config;
    uint8_t space[VIRTIO_DEVICE_CONFIG_MAX];

    if (msg->size < offsetof(VhostUserConfig, data) ||
        c->size > sizeof(space) || c->offset > sizeof(space) - c->size) {
        msg->size = 0;      /* how this answer says "error" */
        return true;
    }
    s->dev->ops->get_config(s->dev, space, sizeof(space));
    memcpy(c->data, space + c->offset, c->size);
    msg->size = offsetof(VhostUserConfig, data) + c->size;
    return true;
}

static bool set_config(VhostUserSession *s, VhostUserMsg *msg, Error **errp)
{
    VhostUserConfig *c = &msg->payload.config;
    int ret = -EINVAL;

    if (msg->size >= offsetof(VhostUserConfig, data) &&
        c->size <= sizeof(c->data) &&
        msg->size >= offsetof(VhostUserConfig, data) + c->size) {
        /* What it changes may be how requests are done: none is under way. */
        vhost_user_pause_all(s);
        ret = s->dev->ops->set_config(s->dev, c->offset, c->data, c->size);
        if (!vhost_user_update_all(s, errp)) {
            return false;
        }
    }
    if (ret < 0) {
        error_setg(errp, "Cannot write %" PRIu32 " bytes at %" PRIu32
                   " of the configuration space", c->size, c->offset);
        return false;
    }
    return true;
}

static bool set_backend_req_fd(VhostUserSession *s, VhostUserMsg *msg,
                               Error **errp)
{
    int fd = vhost_user_msg_take_fd(msg);

    if (fd < 0) {
        error_setg(errp, "No socket for messages of the back end");
        return false;
    }
    vhost_user_server_set_backend_fd(s->server, fd);
    return true;
}

/* ---- Reset and status ---- */

static bool reset_device(VhostUserSession *s, VhostUserMsg *msg, Error **errp)
{
    for (unsigned i = 0; i < s->dev->num_queues; i++) {
        vhost_user_vring_reset(&s->vrings[i]);
    }
    s->status = 0;
    return true;
}

static bool set_status(VhostUserSession *s, VhostUserMsg *msg, Error **errp)
{
    if (msg->payload.u64 == 0) {
        return reset_device(s, msg, errp);
    }
    s->status = msg->payload.u64;
    return true;
}

static bool get_status(VhostUserSession *s, VhostUserMsg *msg, Error **errp)
{
    uint8_t status = s->status;

    for (unsigned i = 0; i < s->dev->num_queues; i++) {
        if (s->vrings[i].running && virtqueue_is_broken(&s->vrings[i].vq)) {
            status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        }
    }
    return vhost_user_reply_u64(msg, status);
}

/* ---- Dispatch ---- */

typedef struct VhostUserHandler {
    bool (*fn)(VhostUserSession *s, VhostUserMsg *msg, Error **errp);
    uint32_t size;              /* of the payload, exactly; the handler checks
                                 * where it is VARIABLE */
    bool replies;
    bool fds;                   /* descriptors may come with it */
} VhostUserHandler;

#define VARIABLE UINT32_MAX

static const VhostUserHandler handlers[VHOST_USER_REQUEST__MAX] = {
    [VHOST_USER_GET_FEATURES] = { get_features, 0, .replies = true },
    [VHOST_USER_SET_FEATURES] = { set_features, 8 },
    [VHOST_USER_SET_OWNER] = { do_nothing, 0 },
    [VHOST_USER_RESET_OWNER] = { do_nothing, 0 },
    [VHOST_USER_SET_MEM_TABLE] = {
        vhost_user_set_mem_table, VARIABLE, .fds = true },
    [VHOST_USER_SET_LOG_BASE] = {
        vhost_user_set_log_base, sizeof(VhostUserLogBase),
        .replies = true, .fds = true },
    /* An offer to be told of changes; the front end looks by itself. */
    [VHOST_USER_SET_LOG_FD] = { do_nothing, VARIABLE, .fds = true },
    [VHOST_USER_SET_VRING_NUM] = { vhost_user_set_vring_num, 8 },
    [VHOST_USER_SET_VRING_ADDR] = {
        vhost_user_set_vring_addr, sizeof(VhostUserVringAddr) },
    [VHOST_USER_SET_VRING_BASE] = { vhost_user_set_vring_base, 8 },
    [VHOST_USER_GET_VRING_BASE] = {
        vhost_user_get_vring_base, 8, .replies = true },
    [VHOST_USER_SET_VRING_KICK] = { vhost_user_set_vring_kick, 8, .fds = true },
    [VHOST_USER_SET_VRING_CALL] = { vhost_user_set_vring_call, 8, .fds = true },
    [VHOST_USER_SET_VRING_ERR] = { vhost_user_set_vring_err, 8, .fds = true },
    [VHOST_USER_GET_PROTOCOL_FEATURES] = {
        get_protocol_features, 0, .replies = true },
    [VHOST_USER_SET_PROTOCOL_FEATURES] = { set_protocol_features, 8 },
    [VHOST_USER_GET_QUEUE_NUM] = { get_queue_num, 0, .replies = true },
    [VHOST_USER_SET_VRING_ENABLE] = { vhost_user_set_vring_enable, 8 },
    [VHOST_USER_SET_BACKEND_REQ_FD] = {
        set_backend_req_fd, VARIABLE, .fds = true },
    [VHOST_USER_GET_CONFIG] = { get_config, VARIABLE, .replies = true },
    [VHOST_USER_SET_CONFIG] = { set_config, VARIABLE },
    [VHOST_USER_GET_INFLIGHT_FD] = {
        vhost_user_get_inflight_fd, VARIABLE, .replies = true },
    [VHOST_USER_SET_INFLIGHT_FD] = {
        vhost_user_set_inflight_fd, VARIABLE, .fds = true },
    [VHOST_USER_RESET_DEVICE] = { reset_device, 0 },
    [VHOST_USER_GET_MAX_MEM_SLOTS] = {
        vhost_user_get_max_mem_slots, 0, .replies = true },
    [VHOST_USER_ADD_MEM_REG] = {
        vhost_user_add_mem_reg, sizeof(VhostUserSingleRegion), .fds = true },
    [VHOST_USER_REM_MEM_REG] = {
        vhost_user_rem_mem_reg, sizeof(VhostUserSingleRegion), .fds = true },
    [VHOST_USER_SET_STATUS] = { set_status, 8 },
    [VHOST_USER_GET_STATUS] = { get_status, 0, .replies = true },
};

static const VhostUserHandler *find_handler(const VhostUserMsg *msg,
                                            Error **errp)
{
    const VhostUserHandler *h = NULL;

    if (msg->request < G_N_ELEMENTS(handlers)) {
        h = &handlers[msg->request];
    }
    if (!h || !h->fn) {
        error_setg(errp, "Message %" PRIu32 " is not known", msg->request);
        return NULL;
    }
    if ((h->size != VARIABLE && msg->size != h->size) ||
        (msg->n_fds && !h->fds)) {
        error_setg(errp, "Message %" PRIu32 " of %" PRIu32 " bytes with %d "
                   "file descriptors", msg->request, msg->size, msg->n_fds);
        return NULL;
    }
    return h;
}

/* Answer @msg, if that is wanted; false if the connection is of no more use. */
static bool reply(VhostUserSession *s, VhostUserMsg *msg, bool replies,
                  bool ok)
{
    bool need_reply = msg->flags & VHOST_USER_NEED_REPLY_FLAG &&
                      s->protocol_features & BIT(PROTOCOL_F_REPLY_ACK);
    Error *local_err = NULL;
    bool sent;

    if (!ok && (replies || !need_reply)) {
        return false;       /* there is no other way to say so */
    }
    if (!replies && !need_reply) {
        return true;
    }
    if (!replies) {
        vhost_user_reply_u64(msg, !ok);
    }
    msg->flags = VHOST_USER_VERSION | VHOST_USER_REPLY_FLAG;
    sent = vhost_user_send(s->sock, msg, s->reply_fd, 0, &local_err);
    if (!sent) {
        error_free(local_err);      /* it has left */
    }
    if (s->reply_fd >= 0) {
        close(s->reply_fd);
        s->reply_fd = -1;
    }
    return sent;
}

/* Returns false when the connection is to be closed. */
static bool handle_message(VhostUserSession *s, VhostUserMsg *msg)
{
    Error *local_err = NULL;
    const VhostUserHandler *h;
    bool ok;

    trace(vhost_user_message, "%s: request %u size %u fds %d value %#" PRIx64,
          s->dev->name, msg->request, msg->size, msg->n_fds,
          msg->size >= 8 ? msg->payload.u64 : 0);
    h = find_handler(msg, &local_err);
    ok = h && h->fn(s, msg, &local_err);
    if (!ok) {
        trace(vhost_user_refused, "%s: request %u", s->dev->name,
              msg->request);
        guest_error(s->dev->name, "front end: %s",
                    error_get_pretty(local_err));
        error_free(local_err);
        vhost_user_server_count_error(s->server);
    }
    vhost_user_msg_close_fds(msg);
    return reply(s, msg, h && h->replies, ok);
}

void vhost_user_session_run(VhostUserServer *server, VirtIODevice *dev,
                            int sock)
{
    VhostUserSession s = {
        .dev = dev, .server = server, .sock = sock, .reply_fd = -1,
    };
    g_autofree VhostUserMsg *msg = g_new0(VhostUserMsg, 1);
    Error *local_err = NULL;
    int ret;

    trace(vhost_user_connect, "%s", dev->name);
    s.vrings = g_new0(VhostUserVring, dev->num_queues);
    for (unsigned i = 0; i < dev->num_queues; i++) {
        vhost_user_vring_init(&s, i);
    }
    while ((ret = vhost_user_recv(sock, msg, &local_err)) > 0 &&
           handle_message(&s, msg)) {
        /* the next one */
    }
    if (ret < 0) {
        guest_error(dev->name, "front end: %s", error_get_pretty(local_err));
        error_free(local_err);
        vhost_user_msg_close_fds(msg);
        vhost_user_server_count_error(server);
    }
    vhost_user_change_memory(&s, NULL);
    for (unsigned i = 0; i < dev->num_queues; i++) {
        vhost_user_vring_destroy(&s.vrings[i]);
    }
    g_free(s.vrings);
    vhost_user_log_free(s.log);
    vhost_user_inflight_free(s.inflight);
    vhost_user_server_set_backend_fd(server, -1);
    trace(vhost_user_disconnect, "%s", dev->name);
}
