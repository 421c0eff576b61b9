/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon with guests that lie in their virtqueues.
 *
 * What makes no sense as a ring breaks the queue: the error notifier is
 * raised, the status says "needs reset", nothing is used, and a reset makes
 * all well again.  What is a request, but not a good one, gets the status that
 * the specification names.
 *
 * usage: test-daemon-guest-lies DAEMON
 */
#include "two-devices.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* Where things are in the guest's area. */
#define HDR 0
#define STATUS 64
#define DATA 4096
#define TABLE (64 * 1024)
#define AREA_SIZE (256 * 1024)

#define UNTOUCHED 0xee
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

static const char *program;

typedef struct Guest {
    TwoDevices *t;
    bool packed;
    VufeFrontend *fe;
    VufeRing *r;            /* ring 0 */
    uint64_t gpa;           /* of the area */
    uint8_t *host;
} Guest;

/* ---- Being a guest ---- */

static void guest_open(Guest *g, const VufeOptions *more)
{
    VufeOptions opts = *more;
    g_autofree char *msg = NULL;

    opts.packed = g->packed;
    g->fe = vufe_open(g->t->a, &opts, &msg);
    if (!g->fe) {
        g_error("%s", msg);
    }
    g->r = &g->fe->rings[0];
    g->gpa = vufe_mem_alloc(&g->fe->mem, 0, AREA_SIZE, 4096);
    g_assert_cmpuint(g->gpa, !=, VUFE_GPA_NONE);
    g->host = vufe_mem_ptr(&g->fe->mem, g->gpa, AREA_SIZE);
}

static void put_header(Guest *g, uint32_t type, uint64_t sector)
{
    *(struct virtio_blk_outhdr *)(g->host + HDR) =
        (struct virtio_blk_outhdr){ .type = type, .sector = sector };
    g->host[STATUS] = UNTOUCHED;
}

static VufeBuf buf(const Guest *g, uint64_t at, uint32_t len, bool write)
{
    return (VufeBuf){ g->gpa + at, len, write };
}

/* A descriptor; @next is the buffer id of a packed one. */
static struct vring_desc desc(const Guest *g, uint64_t at, uint32_t len,
                              uint16_t flags, uint16_t next)
{
    return (struct vring_desc){ g->gpa + at, len, flags, next };
}

static void put_packed(struct vring_packed_desc *p,
                       const struct vring_desc *d, uint16_t more_flags)
{
    p->addr = d->addr;
    p->len = d->len;
    p->id = d->next;
    __atomic_store_n(&p->flags, d->flags | more_flags, __ATOMIC_RELEASE);
}

/* Into the indirect table number @table. */
static void put_table(Guest *g, unsigned table, const struct vring_desc *d,
                      unsigned n)
{
    uint8_t *to = g->host + TABLE + table * 4096;

    for (unsigned i = 0; i < n; i++) {
        if (g->packed) {
            put_packed((struct vring_packed_desc *)to + i, &d[i], 0);
        } else {
            ((struct vring_desc *)to)[i] = d[i];
        }
    }
}

/* Make the @n descriptors the first of a fresh ring, and available. */
static void send_raw(Guest *g, const struct vring_desc *d, unsigned n)
{
    for (unsigned i = n; i-- > 0; ) {
        if (g->packed) {
            put_packed(&g->r->packed.desc[i], &d[i],
                       1 << VRING_PACKED_DESC_F_AVAIL);
        } else {
            g->r->split.desc[i] = d[i];
        }
    }
    if (!g->packed) {
        g->r->split.avail->ring[0] = 0;
        __atomic_store_n(&g->r->split.avail->idx, 1, __ATOMIC_RELEASE);
    }
    vufe_ring_kick_always(g->r);
}

static void send_bufs(Guest *g, const VufeBuf *bufs, unsigned n)
{
    g_assert_cmpint(vufe_ring_add(g->r, bufs, n, n > 16, g), >=, 0);
    vufe_ring_publish(g->r);
    vufe_ring_kick_always(g->r);
}

static void expect_status(Guest *g, uint8_t status)
{
    void *token;
    uint32_t len;

    g_assert_cmpint(vufe_ring_wait(g->r, WAIT_MS), ==, 0);
    g_assert_cmpint(vufe_ring_get_used(g->r, &token, &len), ==, 1);
    g_assert_cmphex(g->host[STATUS], ==, status);
}

static bool is_broken(Guest *g, int timeout_ms)
{
    struct pollfd pfd = { .fd = g->r->err_fd, .events = POLLIN };

    return poll(&pfd, 1, timeout_ms) == 1;
}

/* The queue has to be broken, B to be fine, and a reset to help. */
static void expect_broken(Guest *g)
{
    uint64_t count;
    uint8_t status;

    g_assert_true(is_broken(g, WAIT_MS));
    g_assert_cmpint(read(g->r->err_fd, &count, 8), ==, 8);
    g_assert_cmpint(vufe_get_status(g->fe, &status), ==, 0);
    g_assert_cmphex(status & VIRTIO_CONFIG_S_NEEDS_RESET, !=, 0);
    g_assert_false(vufe_ring_has_used(g->r));
    two_devices_check_b(g->t);

    g_assert_cmpint(vufe_reset_device(g->fe), ==, 0);
    g_assert_cmpint(vufe_start_rings(g->fe), ==, 0);
    two_devices_check_io(g->t, g->fe);
    /* So that the next attack finds a ring at its beginning. */
    g_assert_cmpint(vufe_reset_device(g->fe), ==, 0);
    g_assert_cmpint(vufe_start_rings(g->fe), ==, 0);
}

static void break_with(Guest *g, const struct vring_desc *d, unsigned n)
{
    put_header(g, VIRTIO_BLK_T_IN, 0);
    send_raw(g, d, n);
    expect_broken(g);
}

/* The same chain as an indirect table. */
static void break_with_table(Guest *g, const struct vring_desc *d, unsigned n)
{
    struct vring_desc head = desc(g, TABLE, n * 16, INDIRECT, 0);

    put_table(g, 0, d, n);
    break_with(g, &head, 1);
}

/* ---- Chains ---- */

static void test_loop(Guest *g)
{
    struct vring_desc self = desc(g, HDR, 16, NEXT, 0);
    struct vring_desc two[] = {
        desc(g, HDR, 16, NEXT, 1), desc(g, DATA, 512, NEXT, 0),
    };
    g_autofree struct vring_desc *all = g_new(struct vring_desc, g->r->size);

    if (!g->packed) {       /* a packed ring has no such links */
        break_with(g, &self, 1);
        break_with(g, two, 2);
        break_with_table(g, &self, 1);
        break_with_table(g, two, 2);
    }
    for (unsigned i = 0; i < g->r->size; i++) {
        all[i] = desc(g, HDR, 16, NEXT, (i + 1) % g->r->size);
    }
    break_with(g, all, g->r->size);
}

static void test_indirect_in_indirect(Guest *g)
{
    struct vring_desc inner = desc(g, HDR, 16, 0, 0);
    struct vring_desc other = desc(g, TABLE + 4096, 16, INDIRECT, 0);
    struct vring_desc self = desc(g, TABLE, 16, INDIRECT, 0);

    put_table(g, 1, &inner, 1);
    break_with_table(g, &other, 1);
    break_with_table(g, &self, 1);
}

static void test_indirect_in_chain(Guest *g)
{
    struct vring_desc in = desc(g, HDR, 16, 0, 0);
    struct vring_desc first[] = {
        desc(g, TABLE, 16, INDIRECT | NEXT, 1), desc(g, STATUS, 1, WRITE, 1),
    };
    struct vring_desc second[] = {
        desc(g, HDR, 16, NEXT, 1), desc(g, TABLE, 16, INDIRECT, 1),
    };

    put_table(g, 0, &in, 1);
    break_with(g, first, 2);
    break_with(g, second, 2);
}

static void test_indirect_not_negotiated(Guest *g)
{
    VufeOptions opts = { 0 };
    struct vring_desc in = desc(g, HDR, 16, 0, 0);

    vufe_close(g->fe);
    guest_open(g, &opts);
    break_with_table(g, &in, 1);
}

static void test_indirect_lengths(Guest *g)
{
    const uint32_t lens[] = { 0, 1, 15, 24, 257 * 16, 1025 * 16, 0xfffffff0,
                              UINT32_MAX };

    for (unsigned i = 0; i < G_N_ELEMENTS(lens); i++) {
        struct vring_desc head = desc(g, TABLE, lens[i], INDIRECT, 0);

        break_with(g, &head, 1);
    }
}

static void test_indirect_address(Guest *g)
{
    const uint64_t at[] = { 0, 0x1000, UINT64_MAX, UINT64_MAX - 15,
                            g->gpa + (UINT64_C(1) << 40) };

    for (unsigned i = 0; i < G_N_ELEMENTS(at); i++) {
        struct vring_desc head = { at[i], 32, INDIRECT, 0 };

        break_with(g, &head, 1);
    }
}

static void test_length_0(Guest *g)
{
    struct vring_desc chain[] = {
        desc(g, HDR, 16, NEXT, 1), desc(g, DATA, 0, NEXT | WRITE, 2),
        desc(g, STATUS, 1, WRITE, 2),
    };

    break_with(g, chain, 3);
    break_with_table(g, chain, 3);
}

/* Longer than the queue, and than what is allowed beyond that. */
static void test_chain_too_long(Guest *g)
{
    unsigned n = 2048;
    g_autofree struct vring_desc *chain = g_new(struct vring_desc, n);

    for (unsigned i = 0; i < n; i++) {
        chain[i] = desc(g, DATA, 1, NEXT, i + 1);
    }
    chain[n - 1].flags = 0;
    break_with_table(g, chain, n);
}

static void test_addresses(Guest *g)
{
    const VufeRegion *m = &g->fe->mem.regions[0];
    uint64_t end = m->gpa + m->size;
    const struct { uint64_t addr; uint32_t len; } bad[] = {
        { UINT64_MAX, 1 }, { UINT64_MAX - 511, 512 },
        { UINT64_MAX - 511, 1024 }, { 0, 512 },
        { m->gpa - 1, 512 }, { m->gpa - 512, 512 }, { end, 512 },
        { end - 511, 512 }, { m->gpa, UINT32_MAX },
        { (uintptr_t)g->host, 512 },    /* an address of this process */
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        struct vring_desc chain[] = {
            desc(g, HDR, 16, NEXT, 1),
            { bad[i].addr, bad[i].len, NEXT | WRITE, 2 },
            desc(g, STATUS, 1, WRITE, 2),
        };

        break_with(g, chain, 3);
        break_with_table(g, chain, 3);
    }
}

/* A buffer across two regions is right if they touch, else not. */
static void cross_regions(Guest *g, uint64_t gap)
{
    VufeOptions opts = { .num_regions = 2, .region_gap = gap,
                         .indirect = true };
    uint8_t *low, *high;
    uint64_t end;

    vufe_close(g->fe);
    guest_open(g, &opts);
    end = g->fe->mem.regions[0].gpa + g->fe->mem.regions[0].size;
    low = vufe_mem_ptr(&g->fe->mem, end - 512, 512);
    g_assert_nonnull(low);
    put_header(g, VIRTIO_BLK_T_OUT, 8);
    if (gap != VUFE_NO_GAP) {
        struct vring_desc chain[] = {
            desc(g, HDR, 16, NEXT, 1), { end - 512, 1024, NEXT, 2 },
            desc(g, STATUS, 1, WRITE, 2),
        };

        send_raw(g, chain, 3);
        expect_broken(g);
    } else {
        VufeBuf chain[] = {
            buf(g, HDR, 16, false), { end - 512, 1024, false },
            buf(g, STATUS, 1, true),
        };
        uint8_t in[1024];

        high = vufe_mem_ptr(&g->fe->mem, end, 512);
        g_assert_nonnull(high);
        memset(low, 0x11, 512);
        memset(high, 0x22, 512);
        send_bufs(g, chain, 3);
        expect_status(g, VIRTIO_BLK_S_OK);
        g_assert_cmpint(vufe_blk_read(g->fe, 0, 8 * SECTOR, in, 1024), ==, 0);
        g_assert_cmpmem(in, 512, low, 512);
        g_assert_cmpmem(in + 512, 512, high, 512);
    }
}

static void test_cross_gap(Guest *g)
{
    cross_regions(g, 2 << 20);
}

static void test_cross_touching(Guest *g)
{
    cross_regions(g, VUFE_NO_GAP);
}

static void test_descriptor_numbers(Guest *g)
{
    const uint16_t bad[] = { g->r->size, g->r->size + 1, 0x8000, UINT16_MAX };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        struct vring_desc chain = desc(g, HDR, 16, NEXT, bad[i]);

        break_with(g, &chain, 1);
        break_with_table(g, &chain, 1);
        g->r->split.avail->ring[0] = bad[i];
        __atomic_store_n(&g->r->split.avail->idx, 1, __ATOMIC_RELEASE);
        vufe_ring_kick_always(g->r);
        expect_broken(g);
    }
}

static void test_avail_jumps(Guest *g)
{
    const uint16_t bad[] = { g->r->size + 1, 0x8000, UINT16_MAX };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        __atomic_store_n(&g->r->split.avail->idx, bad[i], __ATOMIC_RELEASE);
        vufe_ring_kick_always(g->r);
        expect_broken(g);
    }
}

/* One chain made available a whole ring of times. */
static void test_one_chain_many_times(Guest *g)
{
    struct vring_desc chain[] = {
        desc(g, HDR, 16, NEXT, 1), desc(g, DATA, 512, NEXT | WRITE, 2),
        desc(g, STATUS, 1, WRITE, 0),
    };
    int64_t end = g_get_monotonic_time() + WAIT_MS * 1000;
    uint16_t n = g->r->size;

    put_header(g, VIRTIO_BLK_T_IN, 0);
    memcpy(g->r->split.desc, chain, sizeof(chain));
    memset(g->r->split.avail->ring, 0, n * 2);
    __atomic_store_n(&g->r->split.avail->idx, n, __ATOMIC_RELEASE);
    vufe_ring_kick_always(g->r);
    while (__atomic_load_n(&g->r->split.used->idx, __ATOMIC_ACQUIRE) != n) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_assert_false(is_broken(g, 1));
    }
    g_assert_cmphex(g->host[STATUS], ==, VIRTIO_BLK_S_OK);
}

/* ---- The frame ---- */

typedef struct Attack {
    const char *name;
    void (*fn)(Guest *g);
    bool split_only;
} Attack;

static const Attack attacks[] = {
    { "descriptor-loop", test_loop },
    { "indirect-inside-indirect", test_indirect_in_indirect },
    { "indirect-inside-chain", test_indirect_in_chain },
    { "indirect-not-negotiated", test_indirect_not_negotiated },
    { "indirect-lengths", test_indirect_lengths },
    { "indirect-addresses", test_indirect_address },
    { "length-0", test_length_0 },
    { "chain-longer-than-queue", test_chain_too_long },
    { "addresses-wrap-or-are-nowhere", test_addresses },
    { "buffer-across-a-gap", test_cross_gap },
    { "buffer-across-touching-regions", test_cross_touching },
    { "descriptor-numbers", test_descriptor_numbers, true },
    { "avail-index-jumps", test_avail_jumps, true },
    { "one-chain-many-times", test_one_chain_many_times, true },
};

static void run_attack(const Attack *a, bool packed)
{
    VufeOptions opts = { .indirect = true };
    Guest g = { .packed = packed };

    g.t = two_devices_new(program);
    guest_open(&g, &opts);
    a->fn(&g);
    two_devices_check_b(g.t);
    vufe_close(g.fe);
    two_devices_check(g.t);
    two_devices_free(g.t);
}

static void run_split(const void *attack)
{
    run_attack(attack, false);
}

static void run_packed(const void *attack)
{
    run_attack(attack, true);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 2);
    program = argv[1];
    for (unsigned i = 0; i < G_N_ELEMENTS(attacks); i++) {
        const Attack *a = &attacks[i];
        g_autofree char *split = g_strdup_printf(
            "/daemon-guest-lies/split/%s", a->name);
        g_autofree char *packed = g_strdup_printf(
            "/daemon-guest-lies/packed/%s", a->name);

        g_test_add_data_func(split, a, run_split);
        if (!a->split_only) {
            g_test_add_data_func(packed, a, run_packed);
        }
    }
    return g_test_run();
}
