/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the vhost-user transport, for each other.
 *
 * All state of a session belongs to the connection's thread, except for what
 * VhostUserServer says is under its lock.
 */
#ifndef HW_VIRTIO_VHOST_USER_INTERNAL_H
#define HW_VIRTIO_VHOST_USER_INTERNAL_H

#include "block/lock-order.h"
#include "hw/virtio/vhost-user.h"
#include "hw/virtio/vhost-user-inflight.h"
#include "hw/virtio/vhost-user-log.h"
#include "hw/virtio/virtio-device.h"
#include <linux/virtio_config.h>

/* ---- Messages (vhost-user-msg.c) ---- */

typedef enum VhostUserRequest {
    VHOST_USER_GET_FEATURES = 1,
    VHOST_USER_SET_FEATURES,
    VHOST_USER_SET_OWNER,
    VHOST_USER_RESET_OWNER,
    VHOST_USER_SET_MEM_TABLE,
    VHOST_USER_SET_LOG_BASE,
    VHOST_USER_SET_LOG_FD,
    VHOST_USER_SET_VRING_NUM,
    VHOST_USER_SET_VRING_ADDR,
    VHOST_USER_SET_VRING_BASE,
    VHOST_USER_GET_VRING_BASE,
    VHOST_USER_SET_VRING_KICK,
    VHOST_USER_SET_VRING_CALL,
    VHOST_USER_SET_VRING_ERR,
    VHOST_USER_GET_PROTOCOL_FEATURES,
    VHOST_USER_SET_PROTOCOL_FEATURES,
    VHOST_USER_GET_QUEUE_NUM,
    VHOST_USER_SET_VRING_ENABLE,
    VHOST_USER_SET_BACKEND_REQ_FD = 21,
    VHOST_USER_GET_CONFIG = 24,
    VHOST_USER_SET_CONFIG,
    VHOST_USER_GET_INFLIGHT_FD = 31,
    VHOST_USER_SET_INFLIGHT_FD,
    VHOST_USER_RESET_DEVICE = 34,
    VHOST_USER_GET_MAX_MEM_SLOTS = 36,
    VHOST_USER_ADD_MEM_REG,
    VHOST_USER_REM_MEM_REG,
    VHOST_USER_SET_STATUS,
    VHOST_USER_GET_STATUS,
    VHOST_USER_REQUEST__MAX,
} VhostUserRequest;

/* Feature bits of the transport, among those of the device. */
#define VHOST_F_LOG_ALL                 26
#define VHOST_USER_F_PROTOCOL_FEATURES  30

#define VHOST_USER_BACKEND_CONFIG_CHANGE_MSG 2

#define VHOST_USER_VERSION          1
#define VHOST_USER_VERSION_MASK     3
#define VHOST_USER_REPLY_FLAG       (1 << 2)
#define VHOST_USER_NEED_REPLY_FLAG  (1 << 3)

#define VHOST_USER_MAX_FDS          8
#define VHOST_USER_MAX_TABLE        8   /* regions in SET_MEM_TABLE */
#define VHOST_USER_VRING_INDEX_MASK 0xff
#define VHOST_USER_VRING_NOFD       (1 << 8)

typedef struct VhostUserVringState {
    uint32_t index;
    uint32_t num;
} VhostUserVringState;

typedef struct VhostUserVringAddr {
    uint32_t index;
    uint32_t flags;
    uint64_t desc;
    uint64_t used;
    uint64_t avail;
    uint64_t log;
} VhostUserVringAddr;

typedef struct VhostUserMemRegion {
    uint64_t guest_addr;
    uint64_t size;
    uint64_t user_addr;
    uint64_t mmap_offset;
} VhostUserMemRegion;

typedef struct VhostUserMemTable {
    uint32_t num;
    uint32_t padding;
    VhostUserMemRegion regions[VHOST_USER_MAX_TABLE];
} VhostUserMemTable;

typedef struct VhostUserSingleRegion {
    uint64_t padding;
    VhostUserMemRegion region;
} VhostUserSingleRegion;

typedef struct VhostUserLogBase {
    uint64_t size;
    uint64_t offset;
} VhostUserLogBase;

typedef struct VhostUserConfig {
    uint32_t offset;
    uint32_t size;
    uint32_t flags;
    uint8_t data[VIRTIO_DEVICE_CONFIG_MAX];
} VhostUserConfig;

typedef struct VhostUserInflightInfo {
    uint64_t mmap_size;
    uint64_t mmap_offset;
    uint16_t num_queues;
    uint16_t queue_size;
} VhostUserInflightInfo;

typedef struct VhostUserMsg {
    uint32_t unused;            /* the wire begins after it: no padding then */
    uint32_t request;
    uint32_t flags;
    uint32_t size;
    union {
        uint64_t u64;
        VhostUserVringState state;
        VhostUserVringAddr addr;
        VhostUserMemTable table;
        VhostUserSingleRegion region;
        VhostUserLogBase log;
        VhostUserConfig config;
        VhostUserInflightInfo inflight;
        uint8_t bytes[512];
    } payload;
    /* What came with it; a handler takes those it keeps. */
    int fds[VHOST_USER_MAX_FDS];
    int n_fds;
} VhostUserMsg;

/*
 * Receive a message: 1, 0 at the end of the connection, or -1 with @errp for
 * what is no message.  Its descriptors are the caller's in each case but 0.
 */
int vhost_user_recv(int sock, VhostUserMsg *msg, Error **errp);
/* Take the one descriptor of @msg, or -1. */
int vhost_user_msg_take_fd(VhostUserMsg *msg);
/* Close what was not taken. */
void vhost_user_msg_close_fds(VhostUserMsg *msg);
/* Send @msg, and @fd with it unless it is -1, as it stands (the whole of it,
 * or nothing with MSG_DONTWAIT in @flags). */
bool vhost_user_send(int sock, const VhostUserMsg *msg, int fd, int flags,
                     Error **errp);

/* ---- Sessions: one connection of a front end ---- */

typedef struct VhostUserSession VhostUserSession;

typedef struct VhostUserVring {
    VhostUserSession *session;      /* constant, as index */
    unsigned index;
    char *name;
    uint32_t num;                   /* 0: not set */
    uint32_t base;
    bool has_addr;
    VirtQueueAddr addr;
    bool enabled;
    bool started;                   /* from SET_VRING_KICK to GET_VRING_BASE */
    bool running;                   /* the device runs it */
    VirtQueueInflight *inflight;    /* from when it runs until it stops */
    VirtQueue vq;
} VhostUserVring;

struct VhostUserSession {
    VirtIODevice *dev;              /* constant, as the next two */
    VhostUserServer *server;
    int sock;
    int reply_fd;                   /* to go with the answer; -1: none */
    uint64_t features;
    uint64_t protocol_features;
    uint8_t status;
    GuestMemory *mem;
    VhostUserLog *log;
    VhostUserInflight *inflight;
    VhostUserVring *vrings;         /* dev->num_queues of them */
};

/* Make @msg an answer with a number; true. */
bool vhost_user_reply_u64(VhostUserMsg *msg, uint64_t value);

/* Serve the front end at @sock, which remains the caller's, until it leaves
 * or has to. */
void vhost_user_session_run(VhostUserServer *server, VirtIODevice *dev,
                            int sock);

/* ---- Rings (vhost-user-vring.c) ---- */

void vhost_user_vring_init(VhostUserSession *s, unsigned index);
void vhost_user_vring_destroy(VhostUserVring *v);
/* Run @v if it has all it needs, is started and is enabled. */
bool vhost_user_vring_update(VhostUserVring *v, Error **errp);
/* Stop running @v, for a change (and then vhost_user_vring_update()). */
void vhost_user_vring_pause(VhostUserVring *v);
/* Stop for good, and forget all but notifiers and position. */
void vhost_user_vring_reset(VhostUserVring *v);
/* The same for all rings. */
void vhost_user_pause_all(VhostUserSession *s);
bool vhost_user_update_all(VhostUserSession *s, Error **errp);

/* Handlers of the messages about rings. */
bool vhost_user_set_vring_num(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_set_vring_addr(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_set_vring_base(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_get_vring_base(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_set_vring_kick(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_set_vring_call(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_set_vring_err(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_set_vring_enable(VhostUserSession *s, VhostUserMsg *m,
                                 Error **e);

/* ---- Memory (vhost-user-memory.c) ---- */

/* Pause all rings, and have @mem (NULL: none) instead of the memory so far. */
void vhost_user_change_memory(VhostUserSession *s, GuestMemory *mem);
bool vhost_user_set_mem_table(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_get_max_mem_slots(VhostUserSession *s, VhostUserMsg *m,
                                  Error **e);
bool vhost_user_add_mem_reg(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_rem_mem_reg(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_set_log_base(VhostUserSession *s, VhostUserMsg *m, Error **e);
bool vhost_user_get_inflight_fd(VhostUserSession *s, VhostUserMsg *m,
                                Error **e);
bool vhost_user_set_inflight_fd(VhostUserSession *s, VhostUserMsg *m,
                                Error **e);

/* ---- The server (vhost-user.c) ---- */

/* The channel for our own messages; -1: none.  Takes @fd over. */
void vhost_user_server_set_backend_fd(VhostUserServer *server, int fd);
void vhost_user_server_count_error(VhostUserServer *server);

#endif
