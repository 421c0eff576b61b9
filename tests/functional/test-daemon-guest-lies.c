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

/* ---- Shapes of requests ---- */

static void test_readable_after_writable(Guest *g)
{
    struct vring_desc chain[] = {
        desc(g, HDR, 16, NEXT, 1), desc(g, STATUS, 1, NEXT | WRITE, 2),
        desc(g, DATA, 512, 0, 2),
    };

    break_with(g, chain, 3);
    break_with_table(g, chain, 3);
}

/* The data of a read, in a buffer that the device must not write to. */
static void test_read_into_readable(Guest *g)
{
    VufeBuf chain[] = {
        buf(g, HDR, 16, false), buf(g, DATA, 512, false),
        buf(g, STATUS, 1, true),
    };

    memset(g->host + DATA, 0x5a, 512);
    put_header(g, VIRTIO_BLK_T_IN, 0);
    send_bufs(g, chain, 3);
    expect_status(g, VIRTIO_BLK_S_IOERR);
    for (unsigned i = 0; i < 512; i++) {
        g_assert_cmphex(g->host[DATA + i], ==, 0x5a);
    }
}

static void test_write_from_writable(Guest *g)
{
    VufeBuf chain[] = {
        buf(g, HDR, 16, false), buf(g, DATA, 512, true),
        buf(g, STATUS, 1, true),
    };

    put_header(g, VIRTIO_BLK_T_OUT, 0);
    send_bufs(g, chain, 3);
    expect_status(g, VIRTIO_BLK_S_IOERR);
}

static void test_no_status(Guest *g)
{
    struct vring_desc hdr = desc(g, HDR, 16, 0, 0);
    struct vring_desc chain[] = {
        desc(g, HDR, 16, NEXT, 1), desc(g, DATA, 512, 0, 1),
    };

    break_with(g, &hdr, 1);
    break_with(g, chain, 2);
    break_with_table(g, chain, 2);
}

static void test_short_header(Guest *g)
{
    struct vring_desc chain[] = {
        desc(g, HDR, 15, NEXT, 1), desc(g, STATUS, 1, WRITE, 1),
    };
    struct vring_desc none = desc(g, STATUS, 513, WRITE, 0);

    break_with(g, chain, 2);
    break_with(g, &none, 1);
}

static void test_header_by_bytes(Guest *g)
{
    VufeBuf chain[16 + 2];

    for (unsigned i = 0; i < 16; i++) {
        chain[i] = buf(g, HDR + i, 1, false);
    }
    chain[16] = buf(g, DATA, 512, false);
    chain[17] = buf(g, STATUS, 1, true);
    memset(g->host + DATA, 0x77, 512);
    put_header(g, VIRTIO_BLK_T_OUT, 77);
    send_bufs(g, chain, 18);
    expect_status(g, VIRTIO_BLK_S_OK);

    memset(g->host + DATA, 0, 512);
    chain[16].device_writes = true;
    put_header(g, VIRTIO_BLK_T_IN, 77);
    send_bufs(g, chain, 18);
    expect_status(g, VIRTIO_BLK_S_OK);
    g_assert_cmphex(g->host[DATA], ==, 0x77);
    g_assert_cmphex(g->host[DATA + 511], ==, 0x77);
}

/* ---- Requests ---- */

static void test_lengths(Guest *g)
{
    const uint32_t lens[] = { 1, 511, 513, 1023 };

    for (unsigned i = 0; i < G_N_ELEMENTS(lens); i++) {
        VufeBuf chain[] = {
            buf(g, HDR, 16, false), buf(g, DATA, lens[i], true),
            buf(g, STATUS, 1, true),
        };

        put_header(g, VIRTIO_BLK_T_IN, 0);
        send_bufs(g, chain, 3);
        expect_status(g, VIRTIO_BLK_S_IOERR);
        chain[1].device_writes = false;
        put_header(g, VIRTIO_BLK_T_OUT, 0);
        send_bufs(g, chain, 3);
        expect_status(g, VIRTIO_BLK_S_IOERR);
    }
}

static void test_sectors(Guest *g)
{
    const uint64_t sectors[] = {
        DISK_SECTORS, DISK_SECTORS - 1, UINT64_C(1) << 54, UINT64_C(1) << 55,
        UINT64_MAX / 512, INT64_MAX, UINT64_MAX - 1, UINT64_MAX,
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(sectors); i++) {
        for (unsigned write = 0; write < 2; write++) {
            VufeBuf chain[] = {
                buf(g, HDR, 16, false), buf(g, DATA, 1024, !write),
                buf(g, STATUS, 1, true),
            };

            put_header(g, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
                       sectors[i]);
            send_bufs(g, chain, 3);
            expect_status(g, VIRTIO_BLK_S_IOERR);
        }
    }
}

static int ranges(Guest *g, uint32_t type, unsigned n, uint64_t sector,
                  uint32_t num, uint32_t flags)
{
    g_autofree struct virtio_blk_discard_write_zeroes *r =
        g_new(struct virtio_blk_discard_write_zeroes, n);

    for (unsigned i = 0; i < n; i++) {
        r[i] = (struct virtio_blk_discard_write_zeroes){
            .sector = sector, .num_sectors = num, .flags = flags
        };
    }
    return vufe_blk_request(g->fe, 0, type, 0, r, n * sizeof(*r), NULL, 0,
                            NULL);
}

static void test_ranges(Guest *g)
{
    const uint32_t types[] = { VIRTIO_BLK_T_DISCARD,
                               VIRTIO_BLK_T_WRITE_ZEROES };
    char odd[17] = { 0 };

    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        uint32_t t = types[i];

        g_assert_cmpint(ranges(g, t, 1, 0, UINT32_MAX, 0), ==, 1);
        g_assert_cmpint(ranges(g, t, 1, UINT64_MAX, UINT32_MAX, 0), ==, 1);
        g_assert_cmpint(ranges(g, t, 1, UINT64_MAX - 7, 8, 0), ==, 1);
        g_assert_cmpint(ranges(g, t, 1, DISK_SECTORS, 1, 0), ==, 1);
        g_assert_cmpint(ranges(g, t, 32, 0, UINT32_MAX, 0), ==, 1);
        g_assert_cmpint(ranges(g, t, 33, 0, 8, 0), ==, 1);
        g_assert_cmpint(ranges(g, t, 4096, 0, 8, 0), ==, 1);
        g_assert_cmpint(ranges(g, t, 32, 0, 8, 0), ==, 0);
        g_assert_cmpint(ranges(g, t, 1, 0, 8, 2), ==, 2);
        g_assert_cmpint(ranges(g, t, 1, 0, 8, 0x80000000), ==, 2);
        g_assert_cmpint(vufe_blk_request(g->fe, 0, t, 0, odd, sizeof(odd),
                                         NULL, 0, NULL), ==, 1);
        g_assert_cmpint(vufe_blk_request(g->fe, 0, t, 0, NULL, 0, NULL, 0,
                                         NULL), ==, 1);
    }
    /* To unmap is only for write zeroes to ask. */
    g_assert_cmpint(ranges(g, VIRTIO_BLK_T_DISCARD, 1, 0, 8, 1), ==, 2);
}

/* One bad range: none of the good ones is done, either. */
static void test_ranges_all_or_none(Guest *g)
{
    struct virtio_blk_discard_write_zeroes r[] = {
        { .sector = 0, .num_sectors = 8 },
        { .sector = DISK_SECTORS, .num_sectors = 8 },
    };
    char out[SECTOR], in[SECTOR];

    memset(out, 0x33, sizeof(out));
    g_assert_cmpint(vufe_blk_write(g->fe, 0, 0, out, SECTOR), ==, 0);
    g_assert_cmpint(vufe_blk_request(g->fe, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0,
                                     r, sizeof(r), NULL, 0, NULL), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(vufe_blk_read(g->fe, 0, 0, in, SECTOR), ==, 0);
    g_assert_cmpmem(in, SECTOR, out, SECTOR);
}

static void test_unknown_types(Guest *g)
{
    const uint32_t types[] = { 3, 5, 6, 7, 9, 10, 12, 14, 16, 26, 0xff,
                               0x80000000, 0x80000001, UINT32_MAX };
    char data[SECTOR] = { 0 };

    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        g_assert_cmpint(vufe_blk_request(g->fe, 0, types[i], 0, data, SECTOR,
                                         NULL, 0, NULL), ==,
                        VIRTIO_BLK_S_UNSUPP);
        g_assert_cmpint(vufe_blk_request(g->fe, 0, types[i], 0, NULL, 0, data,
                                         SECTOR, NULL), ==,
                        VIRTIO_BLK_S_UNSUPP);
    }
}

/* INQUIRY in the layout of old: command, data, sense, three lengths. */
static void test_scsi(Guest *g)
{
    const uint8_t inquiry[6] = { 0x12, 0, 0, 0, 96, 0 };
    uint8_t in[96 + 96 + 16];

    g_assert_cmpint(vufe_blk_request(g->fe, 0, 2, 0, inquiry, 6, in,
                                     sizeof(in), NULL), ==,
                    VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(vufe_blk_request(g->fe, 0, 2, 0, NULL, 0, in, 1, NULL),
                    ==, VIRTIO_BLK_S_UNSUPP);
}

static void test_get_id_lengths(Guest *g)
{
    uint8_t in[4096];

    for (unsigned len = 0; len <= 40; len++) {
        memset(in, 0x5a, sizeof(in));
        g_assert_cmpint(vufe_blk_request(g->fe, 0, VIRTIO_BLK_T_GET_ID, 0,
                                         NULL, 0, in, len, NULL), ==, 0);
    }
    g_assert_cmpint(vufe_blk_request(g->fe, 0, VIRTIO_BLK_T_GET_ID, 0, NULL, 0,
                                     in, sizeof(in), NULL), ==, 0);
}

/* ---- Memory that changes ---- */

typedef struct Flipper {
    volatile uint64_t *word;
    uint64_t values[2];
    int stop;
} Flipper;

static gpointer flip(gpointer opaque)
{
    Flipper *f = opaque;

    for (unsigned i = 0; !g_atomic_int_get(&f->stop); i++) {
        __atomic_store_n(f->word, f->values[i % 2], __ATOMIC_RELAXED);
    }
    return NULL;
}

/* No byte of the image but those of @sector was ever written. */
static void check_only_sector(Guest *g, unsigned sector)
{
    g_autofree char *image = NULL;
    size_t len;

    g_assert_true(g_file_get_contents(g->t->image_a, &image, &len, NULL));
    g_assert_cmpuint(len, ==, DISK_SIZE);
    for (size_t i = 0; i < (1 << 20); i++) {
        if (i / SECTOR != sector) {
            g_assert_cmphex(image[i], ==, 0);
        }
    }
}

/* Writes while somebody changes *@word; how many came before it broke. */
static unsigned write_and_flip(Guest *g, Flipper *f, const VufeBuf *bufs,
                               unsigned n_bufs, unsigned n)
{
    GThread *thread = g_thread_new("flip", flip, f);
    unsigned i;

    for (i = 0; i < n; i++) {
        void *token;
        uint32_t len;

        g->host[STATUS] = UNTOUCHED;
        send_bufs(g, bufs, n_bufs);
        while (!vufe_ring_has_used(g->r) && !is_broken(g, 0)) {
            vufe_ring_wait(g->r, 50);
        }
        if (is_broken(g, 0)) {
            break;
        }
        g_assert_cmpint(vufe_ring_get_used(g->r, &token, &len), ==, 1);
        g_assert_cmphex(g->host[STATUS] & ~VIRTIO_BLK_S_IOERR, ==, 0);
    }
    g_atomic_int_set(&f->stop, 1);
    g_thread_join(thread);
    return i;
}

#define FLIPS 500
#define GOOD_SECTOR 100

/* The sector is good when it is checked, or the request fails. */
static void test_header_changes(Guest *g)
{
    Flipper f = {
        .word = (uint64_t *)(g->host + HDR + 8),
        .values = { GOOD_SECTOR, DISK_SECTORS },
    };
    VufeBuf chain[] = {
        buf(g, HDR, 16, false), buf(g, DATA, 512, false),
        buf(g, STATUS, 1, true),
    };

    put_header(g, VIRTIO_BLK_T_OUT, GOOD_SECTOR);
    memset(g->host + DATA, 0x44, 512);
    g_assert_cmpuint(write_and_flip(g, &f, chain, 3, FLIPS), ==, FLIPS);
    check_only_sector(g, GOOD_SECTOR);
}

/* The same for the range of a discard. */
static void test_range_changes(Guest *g)
{
    Flipper f = {
        .word = (uint64_t *)(g->host + DATA),
        .values = { GOOD_SECTOR, DISK_SECTORS - 4 },
    };
    VufeBuf chain[] = {
        buf(g, HDR, 16, false), buf(g, DATA, 16, false),
        buf(g, STATUS, 1, true),
    };

    put_header(g, VIRTIO_BLK_T_WRITE_ZEROES, 0);
    memset(g->host + DATA, 0, 16);
    g->host[DATA + 8] = 8;
    g_assert_cmpuint(write_and_flip(g, &f, chain, 3, FLIPS), ==, FLIPS);
    check_only_sector(g, GOOD_SECTOR);
}

/* An address in a table changes to one that is nowhere. */
static void test_descriptor_changes(Guest *g)
{
    struct vring_desc chain[] = {
        desc(g, HDR, 16, NEXT, 1), desc(g, DATA, 512, NEXT, 2),
        desc(g, STATUS, 1, WRITE, 2),
    };
    Flipper f = {
        .word = (uint64_t *)(g->host + TABLE + 16),
        .values = { g->gpa + DATA, UINT64_MAX - 512 },
    };
    struct vring_desc head = desc(g, TABLE, 48, INDIRECT, 0);
    GThread *thread;

    for (unsigned i = 0; i < 20; i++) {
        put_table(g, 0, chain, 3);
        put_header(g, VIRTIO_BLK_T_OUT, GOOD_SECTOR);
        f.stop = 0;
        thread = g_thread_new("flip", flip, &f);
        send_raw(g, &head, 1);
        while (g->host[STATUS] == UNTOUCHED && !is_broken(g, 1)) {
            /* one of them happens */
        }
        g_atomic_int_set(&f.stop, 1);
        g_thread_join(thread);
        if (is_broken(g, 0)) {
            expect_broken(g);
        } else {
            g_assert_cmphex(g->host[STATUS], ==, VIRTIO_BLK_S_OK);
            g_assert_cmpint(vufe_reset_device(g->fe), ==, 0);
            g_assert_cmpint(vufe_start_rings(g->fe), ==, 0);
        }
    }
}

/* A disk is read into the ring itself: whatever comes of it, not a crash. */
static void test_read_into_ring(Guest *g)
{
    const uint64_t areas[] = { g->r->desc_gpa, g->r->driver_gpa & ~511ULL,
                               g->r->device_gpa & ~511ULL };
    uint8_t junk[4096];

    for (unsigned fill = 0; fill < 256; fill += 51) {
        memset(junk, fill, sizeof(junk));
        g_assert_cmpint(vufe_blk_write(g->fe, 0, 0, junk, sizeof(junk)), ==,
                        0);
        for (unsigned i = 0; i < G_N_ELEMENTS(areas); i++) {
            VufeBuf chain[] = {
                buf(g, HDR, 16, false), { areas[i], 512, true },
                buf(g, STATUS, 1, true),
            };

            put_header(g, VIRTIO_BLK_T_IN, 0);
            send_bufs(g, chain, 3);
            while (!vufe_ring_has_used(g->r) &&
                   g->host[STATUS] == UNTOUCHED && !is_broken(g, 1)) {
                /* one of them happens */
            }
            two_devices_check_b(g->t);
            if (is_broken(g, 0)) {
                uint64_t count;

                g_assert_cmpint(read(g->r->err_fd, &count, 8), ==, 8);
            }
            g_assert_cmpint(vufe_reset_device(g->fe), ==, 0);
            g_assert_cmpint(vufe_start_rings(g->fe), ==, 0);
        }
    }
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
    { "readable-after-writable", test_readable_after_writable },
    { "read-into-readable", test_read_into_readable },
    { "write-from-writable", test_write_from_writable },
    { "no-status-byte", test_no_status },
    { "header-too-short", test_short_header },
    { "header-byte-by-byte", test_header_by_bytes },
    { "lengths-not-of-sectors", test_lengths },
    { "sectors-outside", test_sectors },
    { "discard-ranges", test_ranges },
    { "discard-ranges-all-or-none", test_ranges_all_or_none },
    { "unknown-types", test_unknown_types },
    { "scsi-commands", test_scsi },
    { "id-lengths", test_get_id_lengths },
    { "header-changes-after-it-was-read", test_header_changes },
    { "range-changes-after-it-was-read", test_range_changes },
    { "descriptor-changes-after-it-was-read", test_descriptor_changes },
    { "read-into-the-ring", test_read_into_ring },
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
