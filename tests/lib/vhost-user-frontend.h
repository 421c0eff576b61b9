/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vhost-user-blk front end for tests: what a VMM is to a back end, as a C
 * library.
 *
 *   vufe-proto.h   the wire format
 *   vufe-msg.h     messages and descriptors over a socket, honest and not
 *   vufe-mem.h     guest memory
 *   vufe-ring.h    virtqueues, driver's side
 *   this file      a device: negotiation, set-up, stop, crash and reconnect
 *   vufe-blk.h     read, write and so on, one at a time
 *
 * vufe_open does everything up to running rings.  Every step of it is public
 * too, and the structs are open, so that a test can stop half-way, skip a step
 * or repeat one.
 *
 * Messages are for one thread at a time.  Rings may each be driven by a thread
 * of their own while the connection is left alone.
 */
#ifndef TESTS_VHOST_USER_FRONTEND_H
#define TESTS_VHOST_USER_FRONTEND_H

#include "vufe-ring.h"

#define VUFE_QUEUES_MAX 16

/* What the front end wants; zero means the default in brackets. */
typedef struct VufeOptions {
    unsigned num_queues;   /* [1], at most VUFE_QUEUES_MAX */
    unsigned queue_size;   /* [128] */
    bool packed;           /* these three: fail when not offered */
    bool indirect;
    bool event_idx;
    unsigned num_regions;  /* [1], at most VUFE_MAX_REGIONS */
    uint64_t region_size;  /* [64 MiB], memory is only used where touched */
    uint64_t region_gap;   /* [2 MiB]; VUFE_NO_GAP: regions that touch */
    uint64_t mmap_offset;  /* of each region within its memfd [0] */
    bool mem_slots;        /* ADD_MEM_REG instead of SET_MEM_TABLE */
    bool inflight;         /* use an inflight region; fail when not offered */
    bool backend_channel;  /* give the back end a channel, if it takes one */
    uint64_t features_off; /* device feature bits not to acknowledge */
    uint64_t protocol_off; /* protocol feature bits not to acknowledge */
    int timeout_ms;        /* of each message and connect [VUFE_TIMEOUT_MS] */
} VufeOptions;

#define VUFE_NO_GAP UINT64_MAX

typedef struct VufeInflight {
    int fd; /* -1: none */
    void *map;
    uint64_t size, offset;
} VufeInflight;

typedef struct VufeFrontend {
    VufeConn conn;
    char *path;
    VufeOptions opts;           /* with the defaults filled in */
    uint64_t features_offered;
    uint64_t features;          /* acknowledged, 0 before vufe_negotiate */
    uint64_t protocol_offered;
    uint64_t protocol;
    uint64_t max_queues;        /* 0: the back end has no MQ */
    VufeMem mem;
    VufeInflight inflight;
    int backend_fd;             /* our end of the back-end channel, or -1 */
    unsigned num_rings;
    VufeRing rings[VUFE_QUEUES_MAX];
    uint32_t base[VUFE_QUEUES_MAX];   /* where to start each ring */
    uint64_t bounce[VUFE_QUEUES_MAX]; /* buffers of vufe_blk_*, 0: none yet */
} VufeFrontend;

/*
 * Connects to @path, negotiates, shares memory and starts the rings.  @opts may
 * be NULL.  NULL on failure, with a sentence in *@errmsg (for g_free).
 */
VufeFrontend *vufe_open(const char *path, const VufeOptions *opts,
                        char **errmsg);

/* Hangs up without a word to the back end and frees everything. */
void vufe_close(VufeFrontend *fe);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VufeFrontend, vufe_close)

/* The last failure in words. */
const char *vufe_error(const VufeFrontend *fe);

/* The steps of vufe_open; each returns 0 or -errno. */

/* Makes a front end with memory and rings, connected to nothing: NULL only
 * when the host lacks memory or descriptors, or @opts is out of range. */
VufeFrontend *vufe_new(const char *path, const VufeOptions *opts);
int vufe_connect(VufeFrontend *fe);
/*
 * GET/SET_FEATURES, protocol features, SET_OWNER, the number of queues.
 * Acknowledges all that the library knows, less what the options turn off.
 * -ENOTSUP when something is missing that the options demand.
 */
int vufe_negotiate(VufeFrontend *fe);
int vufe_share_memory(VufeFrontend *fe);
int vufe_setup_inflight(VufeFrontend *fe);
int vufe_start_ring(VufeFrontend *fe, unsigned index);
int vufe_start_rings(VufeFrontend *fe);

/*
 * GET_VRING_BASE: the back end finishes what it has and stops.  The position is
 * kept in fe->base, so vufe_start_ring goes on from there.
 */
int vufe_stop_ring(VufeFrontend *fe, unsigned index);

/*
 * After the back end died or hung up: connects again (waiting for a new one to
 * listen, within the timeout), negotiates the same features, hands back memory
 * and inflight region, and starts the rings after what has been used.  Chains
 * that were in flight complete later, without being added again.
 */
int vufe_reconnect(VufeFrontend *fe);

/* Device configuration space; -EREMOTEIO when the back end refuses. */
int vufe_get_config(VufeFrontend *fe, uint32_t offset, void *buf,
                    uint32_t len);
int vufe_set_config(VufeFrontend *fe, uint32_t offset, const void *buf,
                    uint32_t len, uint32_t flags);

/* Virtio device status, where VUFE_P_STATUS was negotiated. */
int vufe_set_status(VufeFrontend *fe, uint8_t status);
int vufe_get_status(VufeFrontend *fe, uint8_t *status);

/* RESET_DEVICE: rings stop and lose their position, here too. */
int vufe_reset_device(VufeFrontend *fe);

/*
 * Gives the back end a dirty log of @size bytes in a new memfd and turns
 * logging on (VUFE_F_LOG_ALL, and the flag of each ring).  The log is mapped at
 * *@log for the caller to read and munmap.  -ENOTSUP without LOG_SHMFD.
 */
int vufe_start_log(VufeFrontend *fe, uint64_t size, uint8_t **log);
int vufe_stop_log(VufeFrontend *fe);

/* SET_VRING_ADDR for ring @index, with VufeVringAddr.flags @flags. */
int vufe_send_vring_addr(VufeFrontend *fe, unsigned index, uint32_t flags);

#endif
