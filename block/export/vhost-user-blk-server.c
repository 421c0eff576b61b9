/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vhost-user-blk export: a virtio-blk device (hw/block) on the export's
 * backend, served by the vhost-user transport (hw/virtio) at a socket.
 *
 * This file only reads the options and puts the two together.
 */
#include "qemu/osdep.h"
#include "export-internal.h"
#include "handover.h"
#include "listen.h"
#include "hw/virtio/vhost-user.h"
#include "hw/virtio/virtio-blk.h"
#include "qemu/options.h"

/* The transport numbers rings with a byte. */
#define MAX_QUEUES 256
#define MAX_BLOCK_SIZE (2 * MiB)

typedef struct VuBlkExport {
    BlockExport common;
    VirtIOBlock *device;
    VhostUserServer *server;        /* NULL while it is being made */
    ExportHandover *handover;
    char *path;                     /* of the socket; NULL: none of ours */
} VuBlkExport;

/*
 * How long an export's own thread looks for work before it sleeps, at most, as
 * the emulator's iothreads do.  A busy guest then need not wake it for each
 * batch, which costs more than serving it; the time adapts, so an idle disk
 * uses no CPU.
 */
#define DEFAULT_POLL_MAX_NS 32768
#define POLL_NOT_GIVEN UINT64_MAX

/*
 * x-register-buffers=on has io_uring know the guest's memory, so that it need
 * not find and pin the pages of each request.  All of the guest's memory is
 * then in use and locked from its first request on, which waits for that; and
 * it has to be what the guest sees: whatever takes pages from a guest and gives
 * it others (a balloon, free page reporting, virtio-mem, postcopy) would have
 * the disk write to pages that are the guest's no longer.  Only who starts the
 * guest knows, so it is off unless asked for.
 */
typedef struct VuBlkOptions {
    uint64_t num_queues;
    uint64_t queue_size;            /* 0: not given */
    uint64_t logical_block_size;
    uint64_t poll_max_ns;           /* POLL_NOT_GIVEN: not given */
    bool register_buffers;
    bool request_merging;
    char *serial;
} VuBlkOptions;

static bool check_options(const VuBlkOptions *o, Error **errp)
{
    if (o->num_queues == 0) {
        error_setg(errp, "num-queues must be greater than 0");
        return false;
    }
    if (o->num_queues > MAX_QUEUES) {
        error_setg(errp, "num-queues must not be greater than %d", MAX_QUEUES);
        return false;
    }
    if (!is_power_of_2(o->logical_block_size) ||
        o->logical_block_size < BDRV_SECTOR_SIZE ||
        o->logical_block_size > MAX_BLOCK_SIZE) {
        error_setg(errp, "parameter logical-block-size must be a power of 2 "
                   "between %d and %" PRId64, BDRV_SECTOR_SIZE,
                   MAX_BLOCK_SIZE);
        return false;
    }
    if (o->queue_size &&
        (!is_power_of_2(o->queue_size) || o->queue_size < 4 ||
         o->queue_size > VIRTQUEUE_MAX_SIZE)) {
        error_setg(errp, "queue-size must be a power of 2 between 4 and %d",
                   VIRTQUEUE_MAX_SIZE);
        return false;
    }
    return true;
}

static bool take_options(VuBlkOptions *o, json_t *options, Error **errp)
{
    if (!opt_take_range(options, "num-queues", 0, UINT16_MAX, &o->num_queues,
                        errp) ||
        !opt_take_range(options, "queue-size", 0, UINT16_MAX, &o->queue_size,
                        errp) ||
        !opt_take_size(options, "logical-block-size", &o->logical_block_size,
                       errp) ||
        !opt_take_range(options, "x-poll-max-ns", 0, INT64_MAX,
                        &o->poll_max_ns, errp) ||
        !opt_take_bool(options, "x-register-buffers", &o->register_buffers,
                       errp) ||
        !opt_take_bool(options, "x-request-merging", &o->request_merging,
                       errp)) {
        return false;
    }
    o->serial = opt_take_str(options, "serial");
    return check_options(o, errp);
}

static int take_listener(VuBlkExport *vexp, json_t *options, Error **errp)
{
    g_autoptr(json_t) addr = opt_take_object(options, "addr");
    const char *unused;
    int fd;

    if (!addr) {
        error_setg(errp, "Parameter 'addr' is missing");
        return -1;
    }
    fd = export_listen(addr, &vexp->path, errp);
    unused = opt_first_unused(addr);
    if (fd >= 0 && unused) {
        error_setg(errp, "Parameter 'addr.%s' is unexpected", unused);
        close(fd);
        return -1;
    }
    return fd;
}

static void resized(void *opaque)
{
    VuBlkExport *vexp = opaque;

    if (vexp->server) {
        vhost_user_server_config_changed(vexp->server);
    }
}

static bool activate(void *opaque, Error **errp)
{
    VuBlkExport *vexp = opaque;

    return export_handover_activate(vexp->handover, errp);
}

static void inactivate(void *opaque)
{
    VuBlkExport *vexp = opaque;

    export_handover_inactivate(vexp->handover);
}

static const VirtIODeviceOwner vu_blk_owner = {
    .activate = activate,
    .inactivate = inactivate,
};

static void make_device(VuBlkExport *vexp, const VuBlkOptions *o)
{
    BlockExport *exp = &vexp->common;
    g_autofree AioContext **contexts = g_new(AioContext *, exp->n_iothreads);
    VirtIOBlockConf conf = {
        .blk = exp->blk,
        .name = exp->id,
        .serial = o->serial,
        .writable = exp->writable,
        .num_queues = o->num_queues,
        .queue_size = o->queue_size,
        .logical_block_size = o->logical_block_size,
        .register_buffers = o->register_buffers,
        .request_merging = o->request_merging,
        .contexts = contexts,
        .n_contexts = exp->n_iothreads,
    };

    for (int i = 0; i < exp->n_iothreads; i++) {
        contexts[i] = iothread_get_aio_context(exp->iothreads[i]);
        if (o->poll_max_ns != POLL_NOT_GIVEN) {
            aio_context_set_poll_params(contexts[i], o->poll_max_ns, 0, 0);
        } else if (exp->own_iothread) {
            aio_context_set_poll_params(contexts[i], DEFAULT_POLL_MAX_NS, 0, 0);
        }
    }
    vexp->device = virtio_blk_new(&conf, resized, vexp);
    vexp->handover = export_handover_new(exp);
    virtio_blk_device(vexp->device)->owner = &vu_blk_owner;
    virtio_blk_device(vexp->device)->owner_opaque = vexp;
}

static void free_device(VuBlkExport *vexp)
{
    virtio_blk_free(vexp->device);
    export_handover_free(vexp->handover);
}

static void close_path(VuBlkExport *vexp)
{
    if (vexp->path) {
        unlink(vexp->path);
        g_free(vexp->path);
        vexp->path = NULL;
    }
}

static bool vu_blk_create(BlockExport *exp, json_t *options, Error **errp)
{
    VuBlkExport *vexp = container_of(exp, VuBlkExport, common);
    VuBlkOptions o = { .num_queues = 1,
                       .logical_block_size = BDRV_SECTOR_SIZE,
                       .poll_max_ns = POLL_NOT_GIVEN,
                       .request_merging = true };
    bool ok = take_options(&o, options, errp);
    int fd = ok ? take_listener(vexp, options, errp) : -1;

    if (fd >= 0) {
        make_device(vexp, &o);
        vexp->server = vhost_user_server_new(virtio_blk_device(vexp->device),
                                             fd, errp);
        if (!vexp->server) {
            free_device(vexp);
        }
    }
    if (!vexp->server) {
        close_path(vexp);
    }
    g_free(o.serial);
    return vexp->server != NULL;
}

static void vu_blk_delete(BlockExport *exp)
{
    VuBlkExport *vexp = container_of(exp, VuBlkExport, common);

    export_handover_stop(vexp->handover);
    vhost_user_server_free(vexp->server);
    free_device(vexp);
    close_path(vexp);
}

static json_t *vu_blk_query(BlockExport *exp)
{
    VuBlkExport *vexp = container_of(exp, VuBlkExport, common);
    json_t *stats = virtio_blk_query_stats(vexp->device);
    VhostUserServerStats server;

    vhost_user_server_get_stats(vexp->server, &server);
    json_object_set_new(stats, "connected", json_boolean(server.connected));
    json_object_set_new(stats, "connections",
                        json_integer(server.connections));
    json_object_set_new(stats, "protocol-errors",
                        json_integer(server.errors));
    return stats;
}

const BlockExportDriver block_export_vhost_user_blk = {
    .type = "vhost-user-blk",
    .instance_size = sizeof(VuBlkExport),
    .create = vu_blk_create,
    .delete = vu_blk_delete,
    .query = vu_blk_query,
};
