/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The packed virtqueue, driver's side (virtio 1.2, section 2.8).
 *
 * One ring of descriptors serves both directions.  A descriptor is available
 * when its AVAIL flag equals the driver's wrap counter and its USED flag does
 * not, and used when both equal the device's.  A chain takes consecutive slots
 * and carries one buffer id, in its last descriptor; the device gives back one
 * descriptor a chain, in the slot where it reads next, and both sides skip as
 * many slots as the chain had.
 *
 * The flags of the first head of a batch are withheld until publish: the device
 * takes slots in order, so it cannot see past them.
 */
#include "vufe-ring.h"

#include <errno.h>
#include <string.h>

#define F_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define F_USED (1u << VRING_PACKED_DESC_F_USED)

static int packed_layout(VufeRing *r, VufeMem *mem, unsigned region)
{
    const uint64_t size[3] = {
        sizeof(struct vring_packed_desc) * r->size,
        sizeof(struct vring_packed_desc_event),
        sizeof(struct vring_packed_desc_event),
    };
    const uint64_t align[3] = { 64, 64, 64 };
    void *ptr[3];
    int ret = vufe_ring_alloc_areas(r, mem, region, size, align, ptr);

    if (ret == 0) {
        r->packed.desc = ptr[0];
        r->packed.driver = ptr[1];
        r->packed.device = ptr[2];
    }
    return ret;
}

static void packed_reset(VufeRing *r)
{
    memset(r->packed.desc, 0, sizeof(struct vring_packed_desc) * r->size);
    memset(r->packed.driver, 0, sizeof(*r->packed.driver));
    memset(r->packed.device, 0, sizeof(*r->packed.device));
}

static uint16_t avail_flags(bool wrap)
{
    return wrap ? F_AVAIL : F_USED;
}

static void advance(const VufeRing *r, uint16_t *idx, bool *wrap, unsigned n)
{
    unsigned to = *idx + n;

    if (to >= r->size) {
        to -= r->size;
        *wrap = !*wrap;
    }
    *idx = to;
}

static int packed_add(VufeRing *r, const VufeBuf *bufs, unsigned num,
                      uint16_t extra_flags, void *token)
{
    uint16_t id = r->free_head;
    uint16_t slot = r->avail_idx;
    bool wrap = r->avail_wrap;
    uint16_t head_flags = 0;
    unsigned i;

    for (i = 0; i < num; i++) {
        struct vring_packed_desc *d = &r->packed.desc[slot];
        uint16_t flags = extra_flags | avail_flags(wrap) |
                         (bufs[i].device_writes ? VRING_DESC_F_WRITE : 0) |
                         (i + 1 < num ? VRING_DESC_F_NEXT : 0);

        d->addr = bufs[i].gpa;
        d->len = bufs[i].len;
        d->id = id;
        if (i == 0) {
            head_flags = flags;
        } else {
            d->flags = flags;
        }
        advance(r, &slot, &wrap, 1);
    }
    if (r->pub_idx == r->avail_idx && r->pub_wrap == r->avail_wrap) {
        r->first_flags = head_flags;
    } else {
        __atomic_store_n(&r->packed.desc[r->avail_idx].flags, head_flags,
                         __ATOMIC_RELEASE);
    }
    r->free_head = r->chains[id].next;
    r->chains[id].token = token;
    r->chains[id].num_slots = num;
    r->num_free -= num;
    r->num_unkicked += num;
    r->avail_idx = slot;
    r->avail_wrap = wrap;
    return id;
}

static void packed_publish(VufeRing *r)
{
    if (r->pub_idx == r->avail_idx && r->pub_wrap == r->avail_wrap) {
        return;
    }
    __atomic_store_n(&r->packed.desc[r->pub_idx].flags, r->first_flags,
                     __ATOMIC_RELEASE);
    r->pub_idx = r->avail_idx;
    r->pub_wrap = r->avail_wrap;
}

static bool packed_needs_kick(const VufeRing *r)
{
    uint16_t flags = __atomic_load_n(&r->packed.device->flags,
                                     __ATOMIC_ACQUIRE);
    uint16_t off_wrap = r->packed.device->off_wrap;
    uint16_t event = off_wrap & 0x7fff;

    if (flags == VRING_PACKED_EVENT_FLAG_DISABLE || r->num_unkicked == 0) {
        return false;
    }
    if (flags != VRING_PACKED_EVENT_FLAG_DESC || !r->has_event_idx) {
        return true;
    }
    if ((off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR) != r->pub_wrap) {
        event -= r->size;
    }
    return vring_need_event(event, r->pub_idx, r->pub_idx - r->num_unkicked);
}

/* Is slot @idx a used one, seen with wrap counter @wrap? */
static bool slot_is_used(const VufeRing *r, uint16_t idx, bool wrap)
{
    uint16_t flags = __atomic_load_n(&r->packed.desc[idx].flags,
                                     __ATOMIC_ACQUIRE);

    return !!(flags & F_AVAIL) == wrap && !!(flags & F_USED) == wrap;
}

static bool packed_has_used(const VufeRing *r)
{
    /* A slot that was withheld or never used still bears its old flags. */
    return r->num_free < r->size && slot_is_used(r, r->used_idx, r->used_wrap);
}

static int packed_get_used(VufeRing *r, void **token, uint32_t *len)
{
    struct vring_packed_desc *d = &r->packed.desc[r->used_idx];
    uint16_t id;
    VufeChain *c;

    if (!packed_has_used(r)) {
        return 0;
    }
    id = d->id;
    if (id >= r->size || r->chains[id].num_slots == 0) {
        return -EPROTO;
    }
    c = &r->chains[id];
    *token = c->token;
    *len = d->len;
    advance(r, &r->used_idx, &r->used_wrap, c->num_slots);
    r->num_free += c->num_slots;
    c->num_slots = 0;
    c->next = r->free_head;
    r->free_head = id;
    return 1;
}

static void packed_set_call(VufeRing *r, bool enable)
{
    struct vring_packed_desc_event *e = r->packed.driver;
    uint16_t flags = VRING_PACKED_EVENT_FLAG_DISABLE;

    if (enable) {
        flags = r->has_event_idx ? VRING_PACKED_EVENT_FLAG_DESC
                                 : VRING_PACKED_EVENT_FLAG_ENABLE;
        e->off_wrap = r->used_idx |
                      r->used_wrap << VRING_PACKED_EVENT_F_WRAP_CTR;
    }
    __atomic_store_n(&e->flags, flags, __ATOMIC_RELEASE);
}

static uint32_t packed_device_base(const VufeRing *r)
{
    uint16_t idx = r->used_idx;
    bool wrap = r->used_wrap;
    unsigned seen = 0;
    uint32_t half;

    while (seen < (unsigned)(r->size - r->num_free) &&
           slot_is_used(r, idx, wrap)) {
        uint16_t id = r->packed.desc[idx].id;

        if (id >= r->size || r->chains[id].num_slots == 0) {
            break;
        }
        seen += r->chains[id].num_slots;
        advance(r, &idx, &wrap, r->chains[id].num_slots);
    }
    half = idx | (uint32_t)wrap << 15;
    return half | half << 16;
}

const VufeRingOps vufe_packed_ops = {
    .layout = packed_layout,
    .reset = packed_reset,
    .add = packed_add,
    .publish = packed_publish,
    .needs_kick = packed_needs_kick,
    .has_used = packed_has_used,
    .get_used = packed_get_used,
    .set_call = packed_set_call,
    .device_base = packed_device_base,
};
