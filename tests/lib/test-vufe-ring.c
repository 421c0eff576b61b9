/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver's side of virtqueues against a device in the same thread.
 *
 * The device is written here from the specification's device sections, apart
 * from the library, and lives in guest memory only.  It takes chains in order,
 * completes them in any order, and asks for kicks or not; after thousands of
 * random steps every chain must have arrived as it was added, and come back
 * once, with its own token.
 */
#include "vufe-ring.h"

#include <errno.h>
#include <string.h>

#define BUFS_MAX 6

typedef struct Chain {
    VufeBuf bufs[BUFS_MAX];
    unsigned num;
    uint32_t len;
    bool is_done; /* the device has returned it */
} Chain;

/* A chain as the device found it. */
typedef struct Elem {
    uint16_t id, slots;
    VufeBuf bufs[BUFS_MAX];
    unsigned num;
} Elem;

typedef struct Device {
    VufeMem mem;
    VufeRing ring;
    bool packed;
    uint16_t avail, used; /* split: free running; packed: slots */
    bool avail_wrap, used_wrap;
} Device;

typedef struct Shape {
    unsigned size;
    bool packed, indirect, event_idx;
} Shape;

static void device_init(Device *d, const Shape *s)
{
    memset(d, 0, sizeof(*d));
    g_assert_cmpint(vufe_mem_init(&d->mem, 1, 4 << 20, 0, 0), ==, 0);
    g_assert_cmpint(vufe_ring_init(&d->ring, &d->mem, 0, 0, s->size, s->packed,
                                   s->indirect, s->event_idx),
                    ==, 0);
    d->packed = s->packed;
    d->avail_wrap = d->used_wrap = true;
}

static void device_destroy(Device *d)
{
    vufe_ring_destroy(&d->ring);
    vufe_mem_destroy(&d->mem);
}

static void elem_add(Elem *e, uint64_t gpa, uint32_t len, uint16_t flags)
{
    g_assert_cmpuint(e->num, <, BUFS_MAX);
    e->bufs[e->num++] = (VufeBuf){ gpa, len, flags & VRING_DESC_F_WRITE };
}

static bool split_pop(Device *d, Elem *e)
{
    const struct vring_desc *table = d->ring.split.desc;
    const struct vring_desc *desc;

    if (d->avail == d->ring.split.avail->idx) {
        return false;
    }
    e->id = d->ring.split.avail->ring[d->avail++ % d->ring.size];
    desc = &table[e->id];
    if (desc->flags & VRING_DESC_F_INDIRECT) {
        g_assert_false(desc->flags & VRING_DESC_F_NEXT);
        table = desc = vufe_mem_ptr(&d->mem, desc->addr, desc->len);
    }
    for (;; desc = &table[desc->next]) {
        elem_add(e, desc->addr, desc->len, desc->flags);
        if (!(desc->flags & VRING_DESC_F_NEXT)) {
            return true;
        }
    }
}

static void step(Device *d, uint16_t *idx, bool *wrap, unsigned n)
{
    *idx += n;
    if (*idx >= d->ring.size) {
        *idx -= d->ring.size;
        *wrap = !*wrap;
    }
}

static bool packed_pop(Device *d, Elem *e)
{
    for (;;) {
        const struct vring_packed_desc *desc =
            &d->ring.packed.desc[d->avail];
        bool avail = desc->flags >> VRING_PACKED_DESC_F_AVAIL & 1;
        bool used = desc->flags >> VRING_PACKED_DESC_F_USED & 1;

        if (avail != d->avail_wrap || used == d->avail_wrap) {
            /* Only a whole chain may be visible. */
            g_assert_cmpuint(e->slots, ==, 0);
            return false;
        }
        e->slots++;
        e->id = desc->id;
        step(d, &d->avail, &d->avail_wrap, 1);
        if (desc->flags & VRING_DESC_F_INDIRECT) {
            const struct vring_packed_desc *table =
                vufe_mem_ptr(&d->mem, desc->addr, desc->len);
            unsigned i;

            for (i = 0; i < desc->len / sizeof(*table); i++) {
                g_assert_false(table[i].flags & ~VRING_DESC_F_WRITE);
                elem_add(e, table[i].addr, table[i].len, table[i].flags);
            }
            return true;
        }
        elem_add(e, desc->addr, desc->len, desc->flags);
        if (!(desc->flags & VRING_DESC_F_NEXT)) {
            return true;
        }
    }
}

/* Takes the next chain, if there is one. */
static bool device_pop(Device *d, Elem *e)
{
    memset(e, 0, sizeof(*e));
    return d->packed ? packed_pop(d, e) : split_pop(d, e);
}

/* Returns a chain. */
static void device_push(Device *d, const Elem *e, uint32_t len)
{
    if (d->packed) {
        struct vring_packed_desc *desc = &d->ring.packed.desc[d->used];

        desc->id = e->id;
        desc->len = len;
        desc->flags = d->used_wrap ? 1 << VRING_PACKED_DESC_F_AVAIL |
                                     1 << VRING_PACKED_DESC_F_USED
                                   : 0;
        step(d, &d->used, &d->used_wrap, e->slots);
    } else {
        d->ring.split.used->ring[d->used % d->ring.size] =
            (struct vring_used_elem){ e->id, len };
        d->ring.split.used->idx = ++d->used;
    }
}

/* Asks to be kicked for the next chain, or not to be kicked at all. */
static void device_ask(Device *d, bool kick)
{
    VufeRing *r = &d->ring;

    if (d->packed) {
        r->packed.device->flags = VRING_PACKED_EVENT_FLAG_DISABLE;
        if (kick) {
            r->packed.device->off_wrap =
                d->avail | d->avail_wrap << VRING_PACKED_EVENT_F_WRAP_CTR;
            r->packed.device->flags = r->has_event_idx
                                          ? VRING_PACKED_EVENT_FLAG_DESC
                                          : VRING_PACKED_EVENT_FLAG_ENABLE;
        }
    } else if (r->has_event_idx) {
        *vufe_split_avail_event(r) = kick ? d->avail : d->avail - 1;
    } else {
        r->split.used->flags = kick ? 0 : VRING_USED_F_NO_NOTIFY;
    }
}

/* Has the driver asked for a signal about the entry at d->used? */
static bool device_is_asked(const Device *d)
{
    const VufeRing *r = &d->ring;

    if (d->packed) {
        const struct vring_packed_desc_event *e = r->packed.driver;

        return e->flags == VRING_PACKED_EVENT_FLAG_ENABLE ||
               (e->flags == VRING_PACKED_EVENT_FLAG_DESC &&
                e->off_wrap == (d->used | d->used_wrap << 15));
    }
    return r->has_event_idx ? *vufe_split_used_event(r) == d->used
                            : !r->split.avail->flags;
}

static Chain *chain_new(void)
{
    Chain *c = g_new0(Chain, 1);
    unsigned i;

    c->num = g_test_rand_int_range(1, BUFS_MAX);
    for (i = 0; i < c->num; i++) {
        c->bufs[i] = (VufeBuf){ VUFE_GPA_BASE + g_test_rand_int_range(0, 4096),
                                g_test_rand_int_range(1, 512),
                                i > c->num / 2 };
    }
    return c;
}

/* Takes all that is used; the number of chains. */
static unsigned driver_drain(VufeRing *r)
{
    unsigned n = 0;
    uint32_t len;
    void *token;
    int ret;

    while ((ret = vufe_ring_get_used(r, &token, &len)) == 1) {
        Chain *c = token;

        g_assert_true(c->is_done);
        g_assert_cmpuint(c->len, ==, len);
        g_free(c);
        n++;
    }
    g_assert_cmpint(ret, ==, 0);
    return n;
}

/* What the device holds: elements with the chains that they must be. */
typedef struct Held {
    Elem elem;
    Chain *chain;
} Held;

static void device_take(Device *d, GQueue *sent, GPtrArray *held)
{
    Elem e;

    while (device_pop(d, &e)) {
        Held *h = g_new(Held, 1);

        h->elem = e;
        h->chain = g_queue_pop_head(sent);
        g_assert_nonnull(h->chain);
        g_assert_cmpuint(h->chain->num, ==, e.num);
        g_assert_cmpmem(h->chain->bufs, sizeof(VufeBuf) * e.num, e.bufs,
                        sizeof(VufeBuf) * e.num);
        g_ptr_array_add(held, h);
    }
}

static void device_complete_one(Device *d, GPtrArray *held)
{
    guint i = g_test_rand_int_range(0, held->len);
    Held *h = held->pdata[i];

    h->chain->len = g_test_rand_int_range(0, 1 << 20);
    h->chain->is_done = true;
    device_push(d, &h->elem, h->chain->len);
    g_ptr_array_remove_index_fast(held, i);
    g_free(h);
}

static void test_random(gconstpointer opaque)
{
    const Shape *s = opaque;
    g_autoptr(GPtrArray) held = g_ptr_array_new();
    GQueue sent = G_QUEUE_INIT; /* added, not yet seen by the device */
    unsigned added = 0, back = 0, hidden = 0;
    Device d;
    int n;

    device_init(&d, s);
    for (n = 0; n < 100000; n++) {
        switch (g_test_rand_int_range(0, 5)) {
        case 0:
        case 1: {
            Chain *c = chain_new();
            int ret = vufe_ring_add(&d.ring, c->bufs, c->num,
                                    g_test_rand_int() & 1, c);

            if (ret < 0) {
                g_assert_cmpint(ret, ==, -ENOSPC);
                g_free(c);
                break;
            }
            g_queue_push_tail(&sent, c);
            added++;
            hidden++;
            break;
        }
        case 2: {
            bool ask = g_test_rand_int() & 1;

            device_take(&d, &sent, held);
            g_assert_cmpuint(sent.length, ==, hidden);
            device_ask(&d, ask);
            g_assert_cmpint(vufe_ring_kick(&d.ring), ==, ask && hidden);
            hidden = 0;
            break;
        }
        case 3:
            if (held->len) {
                device_complete_one(&d, held);
            }
            break;
        case 4:
            back += driver_drain(&d.ring);
            vufe_ring_set_call(&d.ring, n & 1);
            g_assert_cmpint(device_is_asked(&d), ==, n & 1);
            break;
        }
    }
    vufe_ring_publish(&d.ring);
    device_take(&d, &sent, held);
    while (held->len) {
        device_complete_one(&d, held);
    }
    back += driver_drain(&d.ring);
    g_assert_cmpuint(added, >, 10000);
    g_assert_cmpuint(back, ==, added);
    g_assert_cmpuint(d.ring.num_free, ==, s->size);
    device_destroy(&d);
}

/* The position after a crash: what is used, whether taken or not. */
static void test_base(gconstpointer opaque)
{
    const Shape *s = opaque;
    static Chain chain = { .bufs = { { VUFE_GPA_BASE, 16, false },
                                     { VUFE_GPA_BASE, 16, true } },
                           .num = 2 };
    Device d;
    int i;

    device_init(&d, s);
    for (i = 0; i < 40; i++) {
        uint32_t half = d.used | (uint32_t)d.used_wrap << 15;
        uint32_t len;
        void *token;
        Elem e;

        g_assert_cmphex(vufe_ring_device_base(&d.ring), ==,
                        s->packed ? half | half << 16 : d.used);
        g_assert_cmpint(vufe_ring_add(&d.ring, chain.bufs, 2, false, &chain),
                        >=, 0);
        vufe_ring_publish(&d.ring);
        g_assert_true(device_pop(&d, &e));
        device_push(&d, &e, 1);
        half = d.used | (uint32_t)d.used_wrap << 15;
        g_assert_cmphex(vufe_ring_device_base(&d.ring), ==,
                        s->packed ? half | half << 16 : d.used);
        g_assert_cmpint(vufe_ring_get_used(&d.ring, &token, &len), ==, 1);
    }
    device_destroy(&d);
}

/* Used entries that the driver never offered are refused, not followed. */
static void test_lies(gconstpointer opaque)
{
    static const uint16_t ids[] = { 1, 9, 5000, 65535 };
    const Shape *s = opaque;
    size_t i;

    for (i = 0; i < G_N_ELEMENTS(ids); i++) {
        const VufeBuf buf = { VUFE_GPA_BASE, 16, false };
        uint32_t len;
        void *token;
        Device d;
        Elem e;

        device_init(&d, s);
        g_assert_cmpint(vufe_ring_add(&d.ring, &buf, 1, false, &d), ==, 0);
        vufe_ring_publish(&d.ring);
        g_assert_true(device_pop(&d, &e));
        e.id = ids[i];
        device_push(&d, &e, 0);
        g_assert_cmpint(vufe_ring_get_used(&d.ring, &token, &len), ==,
                        -EPROTO);
        device_destroy(&d);
    }
}

/* Sleeping: a completion without a signal is told from no completion. */
static void test_wait(gconstpointer opaque)
{
    const VufeBuf buf = { VUFE_GPA_BASE, 16, false };
    Device d;
    Elem e;

    device_init(&d, opaque);
    g_assert_cmpint(vufe_ring_add(&d.ring, &buf, 1, false, &d), ==, 0);
    vufe_ring_publish(&d.ring);
    g_assert_cmpint(vufe_ring_wait(&d.ring, 1), ==, -ETIMEDOUT);
    g_assert_cmpint(vufe_ring_poll(&d.ring, 1), ==, -ETIMEDOUT);
    g_assert_true(device_pop(&d, &e));
    device_push(&d, &e, 0);
    g_assert_cmpint(vufe_ring_wait(&d.ring, 1), ==, 0);
    g_assert_cmpint(vufe_ring_poll(&d.ring, 1), ==, 0);
    device_destroy(&d);
}

/* Sizes and chains that no ring takes. */
static void test_limits(void)
{
    const Shape s = { 4, true, true, true };
    VufeBuf bufs[VUFE_INDIRECT_MAX + 1] = { { VUFE_GPA_BASE, 1, false } };
    VufeRing r;
    Device d;

    device_init(&d, &s);
    g_assert_cmpint(vufe_ring_init(&r, &d.mem, 0, 0, 0, false, false, false),
                    ==, -EINVAL);
    g_assert_cmpint(vufe_ring_init(&r, &d.mem, 0, 0, 12, false, false, false),
                    ==, -EINVAL);
    g_assert_cmpint(vufe_ring_init(&r, &d.mem, 5, 0, 16, false, true, false),
                    ==, -ENOMEM);
    g_assert_cmpint(vufe_ring_add(&d.ring, bufs, 5, false, &d), ==, -E2BIG);
    g_assert_cmpint(vufe_ring_add(&d.ring, bufs, VUFE_INDIRECT_MAX + 1, true,
                                  &d),
                    ==, -E2BIG);
    g_assert_cmpint(vufe_ring_add(&d.ring, bufs, 5, true, &d), ==, 0);
    device_destroy(&d);
}

int main(int argc, char **argv)
{
    static const Shape shapes[] = {
        { 16, false, false, false }, { 16, false, true, false },
        { 16, false, false, true },  { 8, false, true, true },
        { 16, true, false, false },  { 13, true, true, false },
        { 7, true, false, true },    { 13, true, true, true },
    };
    size_t i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < G_N_ELEMENTS(shapes); i++) {
        const Shape *s = &shapes[i];
        g_autofree char *name = g_strdup_printf(
            "%s%s%s", s->packed ? "packed" : "split",
            s->indirect ? "+indirect" : "", s->event_idx ? "+event-idx" : "");
        g_autofree char *random = g_strdup_printf("/vufe/ring/random/%s",
                                                  name);
        g_autofree char *base = g_strdup_printf("/vufe/ring/base/%s", name);
        g_autofree char *lies = g_strdup_printf("/vufe/ring/lies/%s", name);
        g_autofree char *wait = g_strdup_printf("/vufe/ring/wait/%s", name);

        g_test_add_data_func(random, s, test_random);
        g_test_add_data_func(base, s, test_base);
        g_test_add_data_func(lies, s, test_lies);
        g_test_add_data_func(wait, s, test_wait);
    }
    g_test_add_func("/vufe/ring/limits", test_limits);
    return g_test_run();
}
