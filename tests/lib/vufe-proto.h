/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vhost-user wire format, as far as a block device has a use for it.
 *
 * Written from "Vhost-user Protocol" (the specification that is published with
 * the QEMU documentation) with its names shortened to VUFE_*.  Everything is in
 * the byte order of the host, and every struct here is laid out exactly as it
 * travels; there are no pointers and no implicit padding.  The virtqueue
 * layouts themselves come from <linux/virtio_ring.h>.
 */
#ifndef TESTS_VUFE_PROTO_H
#define TESTS_VUFE_PROTO_H

#include <glib.h>
#include <stdint.h>

/* virtio 1 is little-endian; so are the machines that these tests run on. */
G_STATIC_ASSERT(G_BYTE_ORDER == G_LITTLE_ENDIAN);

#define VUFE_VERSION 0x1u
#define VUFE_VERSION_MASK 0x3u
#define VUFE_FLAG_REPLY (1u << 2)
#define VUFE_FLAG_NEED_REPLY (1u << 3)

#define VUFE_HDR_SIZE 12
#define VUFE_PAYLOAD_MAX 4096
#define VUFE_MAX_FDS 253     /* what one SCM_RIGHTS message can carry */
#define VUFE_MAX_REGIONS 8   /* what one SET_MEM_TABLE can carry */
#define VUFE_CONFIG_MAX 256  /* bytes of device configuration space */

/* Offset bit of SET_VRING_{KICK,CALL,ERR}: "no descriptor is attached". */
#define VUFE_VRING_NOFD (1u << 8)

/* Device feature bit that vhost-user adds to virtio's. */
#define VUFE_F_PROTOCOL_FEATURES 30
#define VUFE_F_LOG_ALL 26

/* Requests of the front end ("Front-end message types"). */
typedef enum VufeRequest {
    VUFE_GET_FEATURES = 1,
    VUFE_SET_FEATURES = 2,
    VUFE_SET_OWNER = 3,
    VUFE_RESET_OWNER = 4,
    VUFE_SET_MEM_TABLE = 5,
    VUFE_SET_LOG_BASE = 6,
    VUFE_SET_LOG_FD = 7,
    VUFE_SET_VRING_NUM = 8,
    VUFE_SET_VRING_ADDR = 9,
    VUFE_SET_VRING_BASE = 10,
    VUFE_GET_VRING_BASE = 11,
    VUFE_SET_VRING_KICK = 12,
    VUFE_SET_VRING_CALL = 13,
    VUFE_SET_VRING_ERR = 14,
    VUFE_GET_PROTOCOL_FEATURES = 15,
    VUFE_SET_PROTOCOL_FEATURES = 16,
    VUFE_GET_QUEUE_NUM = 17,
    VUFE_SET_VRING_ENABLE = 18,
    VUFE_SEND_RARP = 19,
    VUFE_NET_SET_MTU = 20,
    VUFE_SET_BACKEND_REQ_FD = 21,
    VUFE_IOTLB_MSG = 22,
    VUFE_SET_VRING_ENDIAN = 23,
    VUFE_GET_CONFIG = 24,
    VUFE_SET_CONFIG = 25,
    VUFE_CREATE_CRYPTO_SESSION = 26,
    VUFE_CLOSE_CRYPTO_SESSION = 27,
    VUFE_POSTCOPY_ADVISE = 28,
    VUFE_POSTCOPY_LISTEN = 29,
    VUFE_POSTCOPY_END = 30,
    VUFE_GET_INFLIGHT_FD = 31,
    VUFE_SET_INFLIGHT_FD = 32,
    VUFE_GPU_SET_SOCKET = 33,
    VUFE_RESET_DEVICE = 34,
    VUFE_VRING_KICK = 35,
    VUFE_GET_MAX_MEM_SLOTS = 36,
    VUFE_ADD_MEM_REG = 37,
    VUFE_REM_MEM_REG = 38,
    VUFE_SET_STATUS = 39,
    VUFE_GET_STATUS = 40,
} VufeRequest;

/* Protocol feature bits. */
typedef enum VufeProtocolBit {
    VUFE_P_MQ = 0,
    VUFE_P_LOG_SHMFD = 1,
    VUFE_P_RARP = 2,
    VUFE_P_REPLY_ACK = 3,
    VUFE_P_MTU = 4,
    VUFE_P_BACKEND_REQ = 5,
    VUFE_P_CROSS_ENDIAN = 6,
    VUFE_P_CRYPTO_SESSION = 7,
    VUFE_P_PAGEFAULT = 8,
    VUFE_P_CONFIG = 9,
    VUFE_P_BACKEND_SEND_FD = 10,
    VUFE_P_HOST_NOTIFIER = 11,
    VUFE_P_INFLIGHT_SHMFD = 12,
    VUFE_P_RESET_DEVICE = 13,
    VUFE_P_INBAND_NOTIFICATIONS = 14,
    VUFE_P_CONFIGURE_MEM_SLOTS = 15,
    VUFE_P_STATUS = 16,
} VufeProtocolBit;

#define VUFE_BIT(n) (UINT64_C(1) << (n))

/* SET_VRING_NUM, _BASE, _ENABLE, GET_VRING_BASE. */
typedef struct VufeVringState {
    uint32_t index;
    uint32_t num;
} VufeVringState;

/* SET_VRING_ADDR.  The addresses are the front end's own virtual ones. */
typedef struct VufeVringAddr {
    uint32_t index;
    uint32_t flags; /* bit 0: log writes to the used ring */
    uint64_t desc;
    uint64_t used;
    uint64_t avail;
    uint64_t log;
} VufeVringAddr;

typedef struct VufeMemRegionMsg {
    uint64_t gpa;
    uint64_t size;
    uint64_t user_addr;
    uint64_t mmap_offset;
} VufeMemRegionMsg;

/* SET_MEM_TABLE. */
typedef struct VufeMemTable {
    uint32_t num;
    uint32_t padding;
    VufeMemRegionMsg regions[VUFE_MAX_REGIONS];
} VufeMemTable;

/* ADD_MEM_REG, REM_MEM_REG. */
typedef struct VufeMemReg {
    uint64_t padding;
    VufeMemRegionMsg region;
} VufeMemReg;

/* GET_CONFIG, SET_CONFIG. */
typedef struct VufeConfig {
    uint32_t offset;
    uint32_t size;
    uint32_t flags; /* SET_CONFIG: 0 writable fields, 1 live migration */
    uint8_t data[VUFE_CONFIG_MAX];
} VufeConfig;
#define VUFE_CONFIG_HDR 12

/*
 * GET_INFLIGHT_FD, SET_INFLIGHT_FD.  The fields add up to 20 bytes, which a C
 * compiler rounds up to 24.  We send 24 and take either.
 */
typedef struct VufeInflightMsg {
    uint64_t mmap_size;
    uint64_t mmap_offset;
    uint16_t num_queues;
    uint16_t queue_size;
    uint32_t padding;
} VufeInflightMsg;

/* SET_LOG_BASE. */
typedef struct VufeLogMsg {
    uint64_t mmap_size;
    uint64_t mmap_offset;
} VufeLogMsg;

typedef union __attribute__((packed)) VufePayload {
    uint64_t u64;
    VufeVringState state;
    VufeVringAddr addr;
    VufeMemTable mem_table;
    VufeMemReg mem_reg;
    VufeConfig config;
    VufeInflightMsg inflight;
    VufeLogMsg log;
    uint8_t bytes[VUFE_PAYLOAD_MAX];
} VufePayload;

/* A message as the library handles it; fds do not travel in the byte stream. */
typedef struct VufeMsg {
    uint32_t request;
    uint32_t flags;
    uint32_t size; /* of the payload */
    VufePayload p;
    int fds[VUFE_MAX_FDS];
    unsigned num_fds;
} VufeMsg;

G_STATIC_ASSERT(offsetof(VufeMsg, p) == VUFE_HDR_SIZE);

#endif
