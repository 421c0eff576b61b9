/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhost-user: the messages that share memory: the guest's, the log of dirty
 * pages, the inflight buffer.
 *
 * What is new is mapped and checked first.  Then all rings pause, the old is
 * exchanged for the new, and they go on.
 */
#include "qemu/osdep.h"
#include "vhost-user-internal.h"

/* ---- Memory ---- */

typedef void MemoryFn(VirtIODevice *dev, void *host, size_t size);

/* Both tables are mapped, so what is at the same address is the same. */
static bool has_region(const GuestMemory *mem, const GuestRegion *r)
{
    for (int i = 0; mem && i < mem->n; i++) {
        if (mem->regions[i].host == r->host) {
            return true;
        }
    }
    return false;
}

/* Tell the device of the regions of @mem that are not in @other. */
static void tell_device(VhostUserSession *s, MemoryFn *fn,
                        const GuestMemory *mem, const GuestMemory *other)
{
    for (int i = 0; fn && mem && i < mem->n; i++) {
        const GuestRegion *r = &mem->regions[i];

        if (!has_region(other, r)) {
            fn(s->dev, r->host, r->size);
        }
    }
}

void vhost_user_change_memory(VhostUserSession *s, GuestMemory *mem)
{
    GuestMemory *old = s->mem;

    vhost_user_pause_all(s);
    tell_device(s, s->dev->ops->memory_del, old, mem);
    tell_device(s, s->dev->ops->memory_add, mem, old);
    s->mem = mem;
    guest_memory_free(old);
}

/* Have all rings use @mem from here on. */
static bool set_memory(VhostUserSession *s, GuestMemory *mem, Error **errp)
{
    vhost_user_change_memory(s, mem);
    return vhost_user_update_all(s, errp);
}

static GuestMemory *add_region(const GuestMemory *old,
                               const VhostUserMemRegion *r, int fd,
                               Error **errp)
{
    GuestRegionInfo info = {
        .gpa = r->guest_addr, .size = r->size, .uva = r->user_addr,
        .mmap_offset = r->mmap_offset,
    };

    return guest_memory_add(old, &info, fd, errp);
}

bool vhost_user_set_mem_table(VhostUserSession *s, VhostUserMsg *msg,
                              Error **errp)
{
    VhostUserMemTable *table = &msg->payload.table;
    GuestMemory *mem = NULL;

    if (msg->size < offsetof(VhostUserMemTable, regions) ||
        table->num == 0 || table->num > VHOST_USER_MAX_TABLE ||
        msg->size < offsetof(VhostUserMemTable, regions[table->num]) ||
        msg->n_fds != (int)table->num) {
        error_setg(errp, "Memory table of %" PRIu32 " regions with %d file "
                   "descriptors", table->num, msg->n_fds);
        return false;
    }
    for (uint32_t i = 0; i < table->num; i++) {
        GuestMemory *old = mem;

        mem = add_region(old, &table->regions[i], msg->fds[i], errp);
        guest_memory_free(old);
        if (!mem) {
            return false;
        }
    }
    return set_memory(s, mem, errp);
}

bool vhost_user_get_max_mem_slots(VhostUserSession *s, VhostUserMsg *msg,
                                  Error **errp)
{
    return vhost_user_reply_u64(msg, GUEST_MEMORY_MAX_REGIONS);
}

bool vhost_user_add_mem_reg(VhostUserSession *s, VhostUserMsg *msg,
                            Error **errp)
{
    GuestMemory *mem;

    if (msg->n_fds != 1) {
        error_setg(errp, "Memory region with %d file descriptors", msg->n_fds);
        return false;
    }
    mem = add_region(s->mem, &msg->payload.region.region, msg->fds[0], errp);
    return mem && set_memory(s, mem, errp);
}

bool vhost_user_rem_mem_reg(VhostUserSession *s, VhostUserMsg *msg,
                            Error **errp)
{
    VhostUserMemRegion *r = &msg->payload.region.region;
    GuestRegionInfo info = {
        .gpa = r->guest_addr, .size = r->size, .uva = r->user_addr,
    };
    GuestMemory *mem = guest_memory_remove(s->mem, &info, errp);

    return mem && set_memory(s, mem, errp);
}

/* ---- The dirty log ---- */

bool vhost_user_set_log_base(VhostUserSession *s, VhostUserMsg *msg,
                             Error **errp)
{
    VhostUserLogBase *base = &msg->payload.log;
    VhostUserLog *log;

    if (msg->n_fds != 1) {
        error_setg(errp, "Dirty log with %d file descriptors", msg->n_fds);
        return false;
    }
    log = vhost_user_log_new(msg->fds[0], base->offset, base->size, errp);
    if (!log) {
        return false;
    }
    vhost_user_pause_all(s);
    vhost_user_log_free(s->log);
    s->log = log;
    return vhost_user_update_all(s, errp) && vhost_user_reply_u64(msg, 0);
}

/* ---- Inflight tracking ---- */

/* Front ends send the structure with its padding at the end, or without. */
static bool check_inflight_size(VhostUserMsg *msg, Error **errp)
{
    const uint32_t min = offsetof(VhostUserInflightInfo, queue_size) + 2;

    if (msg->size < min || msg->size > sizeof(VhostUserInflightInfo)) {
        error_setg(errp, "Inflight description of %" PRIu32 " bytes",
                   msg->size);
        return false;
    }
    return true;
}

bool vhost_user_get_inflight_fd(VhostUserSession *s, VhostUserMsg *msg,
                                Error **errp)
{
    VhostUserInflightInfo *info = &msg->payload.inflight;
    bool packed = s->features & (1ULL << VIRTIO_F_RING_PACKED);
    VhostUserInflight *inflight;

    if (!check_inflight_size(msg, errp)) {
        return false;
    }
    if (info->num_queues == 0 || info->num_queues > s->dev->num_queues ||
        !virtqueue_check_num(info->queue_size, true, NULL)) {
        error_setg(errp, "Inflight buffer for %u queues of %u",
                   info->num_queues, info->queue_size);
        return false;
    }
    inflight = vhost_user_inflight_new(info->num_queues, info->queue_size,
                                       packed, errp);
    if (!inflight) {
        return false;
    }
    info->mmap_size = vhost_user_inflight_size(inflight);
    info->mmap_offset = 0;
    s->reply_fd = vhost_user_inflight_take_fd(inflight);
    vhost_user_inflight_free(inflight);
    return true;
}

bool vhost_user_set_inflight_fd(VhostUserSession *s, VhostUserMsg *msg,
                                Error **errp)
{
    VhostUserInflightInfo *info = &msg->payload.inflight;
    bool packed = s->features & (1ULL << VIRTIO_F_RING_PACKED);
    VhostUserInflight *inflight;

    if (!check_inflight_size(msg, errp)) {
        return false;
    }
    if (msg->n_fds != 1) {
        error_setg(errp, "Inflight buffer with %d file descriptors",
                   msg->n_fds);
        return false;
    }
    inflight = vhost_user_inflight_map(msg->fds[0], info->mmap_offset,
                                       info->mmap_size, info->num_queues,
                                       info->queue_size, packed, errp);
    if (!inflight) {
        return false;
    }
    vhost_user_pause_all(s);
    for (unsigned i = 0; i < s->dev->num_queues; i++) {
        s->vrings[i].inflight = NULL;       /* of the old buffer */
    }
    vhost_user_inflight_free(s->inflight);
    s->inflight = inflight;
    return vhost_user_update_all(s, errp);
}
