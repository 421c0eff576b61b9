/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What split and packed virtqueues have in common: memory, eventfds, indirect
 * tables, sleeping.  See vufe-ring.h.
 *
 * Memory ordering, for both layouts: entries are written before the index (or
 * the flags) that shows them, with a release store; the other side's index is
 * read with an acquire load; and where a side stores "I have published" and
 * then loads "does the other side want to hear of it", or stores "tell me" and
 * then loads "has something come", a full barrier stands between the two.  (By
 * the older builtin: gcc refuses the newer one under ThreadSanitizer.)
 */
#include "vufe-ring.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int vufe_ring_alloc_areas(VufeRing *r, VufeMem *mem, unsigned region,
                          const uint64_t size[3], const uint64_t align[3],
                          void *ptr[3])
{
    uint64_t gpa[3];
    int i;

    for (i = 0; i < 3; i++) {
        gpa[i] = vufe_mem_alloc(mem, region, size[i], align[i]);
        if (gpa[i] == VUFE_GPA_NONE) {
            return -ENOMEM;
        }
        ptr[i] = vufe_mem_ptr(mem, gpa[i], size[i]);
    }
    r->desc_gpa = gpa[0];
    r->driver_gpa = gpa[1];
    r->device_gpa = gpa[2];
    return 0;
}

static int alloc_indirect(VufeRing *r, VufeMem *mem, unsigned region)
{
    uint64_t bytes = (uint64_t)r->size * VUFE_INDIRECT_MAX *
                     sizeof(struct vring_desc);

    r->indirect_gpa = vufe_mem_alloc(mem, region, bytes, 16);
    if (r->indirect_gpa == VUFE_GPA_NONE) {
        return -ENOMEM;
    }
    r->indirect = vufe_mem_ptr(mem, r->indirect_gpa, bytes);
    return 0;
}

int vufe_ring_init(VufeRing *r, VufeMem *mem, unsigned region, unsigned index,
                   unsigned size, bool packed, bool indirect, bool event_idx)
{
    int ret;

    memset(r, 0, sizeof(*r));
    r->kick_fd = r->call_fd = r->err_fd = -1;
    if (size == 0 || size > VUFE_RING_MAX ||
        (!packed && (size & (size - 1)) != 0)) {
        return -EINVAL;
    }
    r->ops = packed ? &vufe_packed_ops : &vufe_split_ops;
    r->index = index;
    r->size = size;
    r->has_indirect = indirect;
    r->has_event_idx = event_idx;
    ret = r->ops->layout(r, mem, region);
    if (ret == 0 && indirect) {
        ret = alloc_indirect(r, mem, region);
    }
    if (ret < 0) {
        return ret;
    }
    r->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->kick_fd < 0 || r->call_fd < 0 || r->err_fd < 0) {
        ret = -errno;
        vufe_ring_destroy(r);
        return ret;
    }
    r->chains = g_new0(VufeChain, size);
    vufe_ring_reset(r);
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

void vufe_ring_destroy(VufeRing *r)
{
    close_fd(&r->kick_fd);
    close_fd(&r->call_fd);
    close_fd(&r->err_fd);
    g_clear_pointer(&r->chains, g_free);
}

/* Clears an eventfd; the other side may have made it a blocking one. */
static void drain_fd(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    uint64_t n;

    if (poll(&pfd, 1, 0) > 0 && read(fd, &n, sizeof(n)) < 0 &&
        errno != EAGAIN) {
        g_error("clearing an eventfd: %s", g_strerror(errno));
    }
}

void vufe_ring_reset(VufeRing *r)
{
    uint16_t i;

    r->avail_idx = r->pub_idx = r->kicked_idx = r->used_idx = 0;
    r->avail_wrap = r->pub_wrap = r->used_wrap = true;
    r->first_flags = r->num_unkicked = 0;
    r->num_free = r->size;
    r->free_head = 0;
    for (i = 0; i < r->size; i++) {
        r->chains[i] = (VufeChain){ .next = i + 1 };
    }
    /* Stale signals of an earlier life. */
    drain_fd(r->call_fd);
    drain_fd(r->kick_fd);
    r->ops->reset(r);
}

int vufe_ring_add(VufeRing *r, const VufeBuf *bufs, unsigned num,
                  bool indirect, void *token)
{
    uint64_t at = (uint64_t)r->free_head * VUFE_INDIRECT_MAX;
    VufeBuf table;
    unsigned i;

    g_assert(token && num > 0);
    if (!indirect || !r->has_indirect) {
        if (num > r->size) {
            return -E2BIG;
        }
        return num > r->num_free ? -ENOSPC
                                 : r->ops->add(r, bufs, num, 0, token);
    }
    if (num > VUFE_INDIRECT_MAX) {
        return -E2BIG;
    }
    if (r->num_free == 0) {
        return -ENOSPC;
    }
    for (i = 0; i < num; i++) {
        struct vring_desc *d = &r->indirect[at + i];
        uint16_t flags = bufs[i].device_writes ? VRING_DESC_F_WRITE : 0;

        /* A packed ring's table is read in order: no NEXT, and no "next". */
        if (r->ops == &vufe_split_ops && i + 1 < num) {
            flags |= VRING_DESC_F_NEXT;
        }
        if (r->ops == &vufe_split_ops) {
            *d = (struct vring_desc){ bufs[i].gpa, bufs[i].len, flags, i + 1 };
        } else {
            *(struct vring_packed_desc *)d = (struct vring_packed_desc){
                bufs[i].gpa, bufs[i].len, 0, flags
            };
        }
    }
    table.gpa = r->indirect_gpa + at * sizeof(struct vring_desc);
    table.len = num * sizeof(struct vring_desc);
    table.device_writes = false;
    return r->ops->add(r, &table, 1, VRING_DESC_F_INDIRECT, token);
}

void vufe_ring_publish(VufeRing *r)
{
    r->ops->publish(r);
}

void vufe_ring_kick_always(VufeRing *r)
{
    uint64_t one = 1;

    r->num_kicks++;
    /* EAGAIN: the counter is full, so the device has a signal waiting. */
    if (write(r->kick_fd, &one, sizeof(one)) < 0 && errno != EAGAIN) {
        g_error("kicking ring %u: %s", r->index, g_strerror(errno));
    }
}

bool vufe_ring_kick(VufeRing *r)
{
    bool needed;

    r->ops->publish(r);
    __sync_synchronize();
    needed = r->ops->needs_kick(r);
    r->kicked_idx = r->avail_idx;
    r->num_unkicked = 0;
    if (needed) {
        vufe_ring_kick_always(r);
    }
    return needed;
}

bool vufe_ring_has_used(const VufeRing *r)
{
    return r->ops->has_used(r);
}

int vufe_ring_get_used(VufeRing *r, void **token, uint32_t *len)
{
    return r->ops->get_used(r, token, len);
}

void vufe_ring_set_call(VufeRing *r, bool enable)
{
    r->ops->set_call(r, enable);
    __sync_synchronize();
}

int vufe_ring_wait(VufeRing *r, int timeout_ms)
{
    int64_t deadline = g_get_monotonic_time() + (int64_t)timeout_ms * 1000;

    for (;;) {
        struct pollfd pfd = { .fd = r->call_fd, .events = POLLIN };
        int64_t left;
        uint64_t n;
        int ready;

        vufe_ring_set_call(r, true);
        if (vufe_ring_has_used(r)) {
            return 0;
        }
        left = deadline - g_get_monotonic_time();
        ready = poll(&pfd, 1, left > 0 ? (int)((left + 999) / 1000) : 0);
        if (ready > 0) {
            r->num_calls++;
            if (read(r->call_fd, &n, sizeof(n)) < 0 && errno != EAGAIN) {
                return -errno;
            }
        } else if (ready < 0 && errno != EINTR) {
            return -errno;
        } else if (ready == 0 && left <= 0) {
            return vufe_ring_has_used(r) ? -ENOMSG : -ETIMEDOUT;
        }
    }
}

int vufe_ring_poll(VufeRing *r, int timeout_ms)
{
    int64_t deadline = 0;
    unsigned spins;

    for (spins = 1; !vufe_ring_has_used(r); spins++) {
        __builtin_ia32_pause();
        if (spins % 1024 == 0) {
            int64_t now = g_get_monotonic_time();

            deadline = deadline ? deadline : now + (int64_t)timeout_ms * 1000;
            if (now >= deadline) {
                return -ETIMEDOUT;
            }
        }
    }
    return 0;
}

uint32_t vufe_ring_device_base(const VufeRing *r)
{
    return r->ops->device_base(r);
}
