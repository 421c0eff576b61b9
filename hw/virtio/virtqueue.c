/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Virtqueues: what split and packed rings have in common.
 *
 * Setting up translates the ring's addresses once, so the running queue only
 * uses host pointers.  A ring must lie in one memory region; a buffer may
 * cross from one region into the next if that begins at the very next guest
 * address.
 */
#include "qemu/osdep.h"
#include "virtqueue-internal.h"
#include "hw/virtio/guest-error.h"

/* ---- Setting up ---- */

bool virtqueue_check_num(uint32_t num, bool packed, Error **errp)
{
    if (num == 0 || num > VIRTQUEUE_MAX_SIZE ||
        (!packed && !is_power_of_2(num))) {
        error_setg(errp, "A queue of %" PRIu32 " entries is not possible",
                   num);
        return false;
    }
    return true;
}

/* Sizes of the three parts, in the order of VirtQueueAddr. */
static void virtqueue_part_sizes(uint16_t num, bool packed, uint64_t sizes[3])
{
    sizes[0] = 16 * (uint64_t)num;
    sizes[1] = packed ? 4 : 4 + 2 * (uint64_t)num + 2;
    sizes[2] = packed ? 4 : 4 + 8 * (uint64_t)num + 2;
}

static void *virtqueue_map_part(const GuestMemory *mem, uint64_t addr,
                                uint64_t size, unsigned align,
                                const char *what, Error **errp)
{
    void *host = NULL;

    if (mem && addr % align == 0) {
        host = guest_memory_from_user(mem, addr, size);
    }
    if (!host) {
        error_setg(errp, "The %s at %#" PRIx64 " is not in the guest's memory",
                   what, addr);
    }
    return host;
}

static bool virtqueue_map(const GuestMemory *mem, const VirtQueueAddr *addr,
                          uint16_t num, bool packed, void *parts[3],
                          Error **errp)
{
    uint64_t sizes[3];

    virtqueue_part_sizes(num, packed, sizes);
    parts[0] = virtqueue_map_part(mem, addr->desc, sizes[0], 16,
                                  "descriptor table", errp);
    if (!parts[0]) {
        return false;
    }
    parts[1] = virtqueue_map_part(mem, addr->avail, sizes[1], packed ? 4 : 2,
                                  packed ? "driver event area" : "avail ring",
                                  errp);
    if (!parts[1]) {
        return false;
    }
    parts[2] = virtqueue_map_part(mem, addr->used, sizes[2], 4,
                                  packed ? "device event area" : "used ring",
                                  errp);
    return parts[2] != NULL;
}

bool virtqueue_check_addr(const GuestMemory *mem, const VirtQueueAddr *addr,
                          uint16_t num, bool packed, Error **errp)
{
    void *parts[3];

    return virtqueue_map(mem, addr, num, packed, parts, errp);
}

bool virtqueue_setup(VirtQueue *vq, const VirtQueueConfig *config,
                     Error **errp)
{
    uint64_t features = config->features;
    bool packed = features & (1ULL << VIRTIO_F_RING_PACKED);
    void *parts[3];
    bool ok;

    if (!virtqueue_check_num(config->num, packed, errp) ||
        !virtqueue_map(config->mem, &config->addr, config->num, packed, parts,
                       errp)) {
        return false;
    }
    vq->mem = config->mem;
    vq->num = config->num;
    vq->packed = packed;
    vq->event_idx = features & (1ULL << VIRTIO_RING_F_EVENT_IDX);
    vq->indirect = features & (1ULL << VIRTIO_RING_F_INDIRECT_DESC);
    vq->desc = parts[0];
    vq->pdesc = parts[0];
    vq->avail = parts[1];
    vq->driver_event = parts[1];
    vq->used = parts[2];
    vq->device_event = parts[2];
    vq->hint = NULL;
    vq->pushed = vq->in_use = 0;
    vq->flushed_early = false;
    vq->inflight = config->inflight;
    vq->n_resubmit = vq->next_resubmit = vq->n_batch = 0;
    vq->resubmit = g_new0(VirtQueueResubmit, vq->num);
    vq->batch = g_new0(uint16_t, vq->num);
    vq->log = config->log;
    vq->log_used = config->addr.log_used;
    vq->log_guest = config->addr.log_guest;
    qatomic_set(&vq->broken, false);

    ok = packed ? vq_packed_setup(vq, config) : vq_split_setup(vq, config);
    if (!ok) {
        error_setg(errp, "Queue position %#" PRIx32 " is not possible",
                   config->base);
        virtqueue_teardown(vq);
        return false;
    }
    /* Not known: whoever stopped it may have asked for none.  Enabling them
     * then says so in the ring. */
    vq->notification = false;
    vq->started = true;
    return true;
}

uint32_t virtqueue_teardown(VirtQueue *vq)
{
    uint32_t base = vq->packed ? vq_packed_base(vq) : vq_split_base(vq);

    g_free(vq->resubmit);
    vq->resubmit = NULL;
    g_free(vq->batch);
    vq->batch = NULL;
    vq->started = false;
    return base;
}

bool virtqueue_is_idle(const VirtQueue *vq)
{
    return !vq->in_use && !virtqueue_is_broken(vq) &&
           vq->next_resubmit == vq->n_resubmit;
}

unsigned virtqueue_max_iov(const VirtQueue *vq)
{
    return MAX(vq->num, VIRTQUEUE_MIN_CHAIN);
}

/* ---- Breaking ---- */

void virtqueue_set_broken(VirtQueue *vq, const char *fmt, ...)
{
    g_autofree char *why = NULL;
    va_list ap;

    if (virtqueue_is_broken(vq)) {
        return;
    }
    va_start(ap, fmt);
    why = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    guest_error(vq->name ? vq->name : "virtqueue", "broken by the guest: %s",
                why);
    qatomic_set(&vq->broken, true);
    if (vq->err) {
        event_notifier_set(vq->err);
    }
}

/* ---- Elements ---- */

/* Make room for one more buffer. */
static bool vq_elem_grow(VirtQueue *vq, VirtQueueElement *elem, unsigned n)
{
    if (elem->iov == elem->small) {
        memcpy(elem->big, elem->small, sizeof(elem->small));
        elem->iov = elem->big;
        elem->max_iov = virtqueue_max_iov(vq);
    }
    if (n == elem->max_iov) {
        virtqueue_set_broken(vq, "a chain of more than %u buffers", n);
        return false;
    }
    return true;
}

/* A buffer that is wrong, lies in several regions, or does not fit. */
bool vq_elem_add_slow(VirtQueue *vq, VirtQueueElement *elem, uint64_t addr,
                      uint32_t len, bool in)
{
    uint64_t start = addr;
    uint32_t left = len;

    if (len == 0) {
        virtqueue_set_broken(vq, "a buffer of no bytes");
        return false;
    }
    if (!in && elem->in_num) {
        virtqueue_set_broken(vq, "a readable buffer after a writable one");
        return false;
    }
    while (left) {
        const GuestRegion *r = guest_memory_find(vq->mem, addr);
        unsigned n = elem->out_num + elem->in_num;
        uint64_t here;

        if (!r) {
            virtqueue_set_broken(vq, "%" PRIu32 " bytes at %#" PRIx64
                                 " are not in its memory", len, start);
            return false;
        }
        if (n == elem->max_iov && !vq_elem_grow(vq, elem, n)) {
            return false;
        }
        here = MIN(left, r->size - (addr - r->gpa));
        elem->iov[n].iov_base = r->host + (addr - r->gpa);
        elem->iov[n].iov_len = here;
        *(in ? &elem->in_num : &elem->out_num) += 1;
        *(in ? &elem->in_bytes : &elem->out_bytes) += here;
        left -= here;
        addr += here;
    }
    return true;
}

const void *vq_indirect_table(VirtQueue *vq, uint64_t addr, uint32_t len,
                              unsigned *n)
{
    const void *table;

    if (!vq->indirect) {
        virtqueue_set_broken(vq, "an indirect table was not negotiated");
        return NULL;
    }
    *n = len / 16;
    if (len == 0 || len % 16 || *n > virtqueue_max_iov(vq)) {
        virtqueue_set_broken(vq, "an indirect table of %" PRIu32 " bytes",
                             len);
        return NULL;
    }
    table = guest_memory_map(vq->mem, addr, len, &vq->hint);
    if (!table) {
        virtqueue_set_broken(vq, "the indirect table at %#" PRIx64
                             " is not in its memory", addr);
    }
    return table;
}

/* ---- Running ---- */

int virtqueue_pop(VirtQueue *vq, VirtQueueElement *elem)
{
    if (virtqueue_is_broken(vq)) {
        return -EIO;
    }
    if (unlikely(vq->inflight && vq->packed && vq->pushed)) {
        vq->flushed_early |= virtqueue_flush(vq);
    }
    if (unlikely(vq->next_resubmit < vq->n_resubmit)) {
        uint16_t index = vq->resubmit[vq->next_resubmit++].index;

        return vq->packed ? vq_packed_resubmit(vq, elem, index) :
                            vq_split_resubmit(vq, elem, index);
    }
    return vq->packed ? vq_packed_pop(vq, elem) : vq_split_pop(vq, elem);
}

bool virtqueue_has_work(VirtQueue *vq)
{
    if (virtqueue_is_broken(vq)) {
        return false;
    }
    return vq->next_resubmit < vq->n_resubmit ||
           (vq->packed ? vq_packed_has_work(vq) : vq_split_has_work(vq));
}

void virtqueue_push(VirtQueue *vq, const VirtQueueElement *elem, uint32_t len)
{
    if (unlikely(vq->log)) {
        vq_log_element(vq, elem);
    }
    if (vq->packed) {
        vq_packed_push(vq, elem, len);
    } else {
        vq_split_push(vq, elem, len);
    }
}

bool virtqueue_flush(VirtQueue *vq)
{
    bool early = vq->flushed_early;

    vq->flushed_early = false;
    if (vq->pushed == 0) {
        return early;
    }
    if (unlikely(guest_memory_is_broken(vq->mem))) {
        virtqueue_set_broken(vq, "its memory was truncated");
    }
    if (virtqueue_is_broken(vq)) {
        vq->pushed = 0;
        vq->n_batch = 0;
        return false;
    }
    return (vq->packed ? vq_packed_flush(vq) : vq_split_flush(vq)) || early;
}

void virtqueue_notify(VirtQueue *vq)
{
    if (vq->call) {
        event_notifier_set(vq->call);
    }
}

bool virtqueue_enable_notification(VirtQueue *vq)
{
    /* With an event index, say from which one on each time. */
    if (!vq->notification || vq->event_idx) {
        vq->notification = true;
        if (vq->packed) {
            vq_packed_set_notification(vq, true);
        } else {
            vq_split_set_notification(vq, true);
        }
    }
    smp_mb();   /* what we asked for is visible before we look */
    return virtqueue_has_work(vq);
}

void virtqueue_disable_notification(VirtQueue *vq)
{
    if (!vq->notification) {
        return;
    }
    vq->notification = false;
    if (vq->packed) {
        vq_packed_set_notification(vq, false);
    } else {
        vq_split_set_notification(vq, false);
    }
}

/* ---- The dirty log ---- */

void vq_log_element(VirtQueue *vq, const VirtQueueElement *elem)
{
    for (unsigned i = 0; i < elem->in_num; i++) {
        const struct iovec *iov = &elem->iov[elem->out_num + i];
        uint64_t gpa;

        if (guest_memory_to_guest(vq->mem, iov->iov_base, &gpa)) {
            vhost_user_log_write(vq->log, gpa, iov->iov_len);
        }
    }
}

void vq_log_used(VirtQueue *vq, uint64_t offset, uint64_t len)
{
    if (vq->log_used) {
        vhost_user_log_write(vq->log, vq->log_guest + offset, len);
    }
}
