/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The split virtqueue, driver's side (virtio 1.2, section 2.7).
 *
 * Descriptors are chained by "next"; the avail ring holds the heads that the
 * driver offers, the used ring those that the device gives back, and both
 * indices run freely modulo 65536.  Which descriptors are free, and which
 * belong together, is kept in VufeRing.chains and never read back from guest
 * memory.
 */
#include "vufe-ring.h"

#include <errno.h>
#include <string.h>

static int split_layout(VufeRing *r, VufeMem *mem, unsigned region)
{
    const uint64_t size[3] = {
        sizeof(struct vring_desc) * r->size,
        sizeof(uint16_t) * (3 + r->size),
        sizeof(uint16_t) * 3 + sizeof(struct vring_used_elem) * r->size,
    };
    /* Cache lines of their own, beyond the 16, 2 and 4 that are required. */
    const uint64_t align[3] = { 64, 64, 64 };
    void *ptr[3];
    int ret = vufe_ring_alloc_areas(r, mem, region, size, align, ptr);

    if (ret == 0) {
        r->split.desc = ptr[0];
        r->split.avail = ptr[1];
        r->split.used = ptr[2];
    }
    return ret;
}

static void split_reset(VufeRing *r)
{
    memset(r->split.desc, 0, sizeof(struct vring_desc) * r->size);
    memset(r->split.avail, 0, sizeof(uint16_t) * (3 + r->size));
    memset(r->split.used, 0,
           sizeof(uint16_t) * 3 + sizeof(struct vring_used_elem) * r->size);
}

static int split_add(VufeRing *r, const VufeBuf *bufs, unsigned num,
                     uint16_t extra_flags, void *token)
{
    uint16_t head = r->free_head;
    uint16_t at = head;
    uint16_t last = head;
    unsigned i;

    for (i = 0; i < num; i++) {
        struct vring_desc *d = &r->split.desc[at];

        last = at;
        at = r->chains[at].next;
        d->addr = bufs[i].gpa;
        d->len = bufs[i].len;
        d->flags = extra_flags |
                   (bufs[i].device_writes ? VRING_DESC_F_WRITE : 0) |
                   (i + 1 < num ? VRING_DESC_F_NEXT : 0);
        d->next = i + 1 < num ? at : 0;
    }
    r->chains[head].token = token;
    r->chains[head].num_slots = num;
    r->chains[head].last = last;
    r->free_head = at;
    r->num_free -= num;
    r->split.avail->ring[r->avail_idx & (r->size - 1)] = head;
    r->avail_idx++;
    return head;
}

static void split_publish(VufeRing *r)
{
    r->pub_idx = r->avail_idx;
    __atomic_store_n(&r->split.avail->idx, r->pub_idx, __ATOMIC_RELEASE);
}

static bool split_needs_kick(const VufeRing *r)
{
    if (r->has_event_idx) {
        uint16_t event = __atomic_load_n(vufe_split_avail_event(r),
                                         __ATOMIC_RELAXED);

        return vring_need_event(event, r->pub_idx, r->kicked_idx);
    }
    return r->pub_idx != r->kicked_idx &&
           !(__atomic_load_n(&r->split.used->flags, __ATOMIC_RELAXED) &
             VRING_USED_F_NO_NOTIFY);
}

static bool split_has_used(const VufeRing *r)
{
    return __atomic_load_n(&r->split.used->idx, __ATOMIC_ACQUIRE) !=
           r->used_idx;
}

static int split_get_used(VufeRing *r, void **token, uint32_t *len)
{
    struct vring_used_elem elem;
    VufeChain *c;

    if (!split_has_used(r)) {
        return 0;
    }
    elem = r->split.used->ring[r->used_idx & (r->size - 1)];
    if (elem.id >= r->size || r->chains[elem.id].num_slots == 0) {
        return -EPROTO;
    }
    c = &r->chains[elem.id];
    *token = c->token;
    *len = elem.len;
    r->used_idx++;
    r->num_free += c->num_slots;
    r->chains[c->last].next = r->free_head;
    r->free_head = elem.id;
    c->num_slots = 0;
    return 1;
}

static void split_set_call(VufeRing *r, bool enable)
{
    if (r->has_event_idx) {
        /* "Not": an index that is as far away as can be. */
        __atomic_store_n(vufe_split_used_event(r),
                         (uint16_t)(enable ? r->used_idx : r->used_idx - 1),
                         __ATOMIC_RELAXED);
    } else {
        __atomic_store_n(&r->split.avail->flags,
                         enable ? 0 : VRING_AVAIL_F_NO_INTERRUPT,
                         __ATOMIC_RELAXED);
    }
}

static uint32_t split_device_base(const VufeRing *r)
{
    return __atomic_load_n(&r->split.used->idx, __ATOMIC_ACQUIRE);
}

const VufeRingOps vufe_split_ops = {
    .layout = split_layout,
    .reset = split_reset,
    .add = split_add,
    .publish = split_publish,
    .needs_kick = split_needs_kick,
    .has_used = split_has_used,
    .get_used = split_get_used,
    .set_call = split_set_call,
    .device_base = split_device_base,
};
