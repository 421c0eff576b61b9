/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The virtio-blk device, with a front end on the other side of a socket and a
 * disk in memory below (tests/lib/fake-server).
 */
#include "qemu/osdep.h"
#include "fake-server.h"
#include <linux/virtio_blk.h>
#include <poll.h>

#define SECTORS (FAKE_DISK_SIZE / 512)
#define WAIT_MS 10000

typedef struct Fixture {
    FakeServer *server;
    VufeFrontend *fe;
} Fixture;

/* The test's argument: how the disk and the front end are made. */
typedef struct Variant {
    const char *name;
    VufeOptions opts;
    bool read_only;
    uint32_t block_size;
} Variant;

static const Variant split = {
    "split", { .num_queues = FAKE_QUEUES, .indirect = true,
               .event_idx = true, .backend_channel = true }, false, 512,
};
static const Variant packed = {
    "packed", { .num_queues = FAKE_QUEUES, .packed = true, .indirect = true,
                .event_idx = true, .backend_channel = true }, false, 512,
};
static const Variant plain = {
    "plain", { .num_queues = 2,
               .features_off = VUFE_BIT(VIRTIO_RING_F_EVENT_IDX) |
                               VUFE_BIT(VIRTIO_RING_F_INDIRECT_DESC) },
    false, 512,
};
static const Variant read_only = { "read-only", { 0 }, true, 512 };
static const Variant big_blocks = { "4k", { 0 }, false, 4096 };

static void fixture_setup(Fixture *f, const void *arg)
{
    const Variant *v = arg;

    f->server = fake_server_new(!v->read_only, v->block_size);
    f->fe = fake_server_connect(f->server, &v->opts);
}

static void fixture_teardown(Fixture *f, const void *arg)
{
    if (f->fe) {
        vufe_close(f->fe);
    }
    fake_server_free(f->server);
}

static void fill(void *buf, size_t len, uint32_t seed)
{
    uint8_t *p = buf;

    for (size_t i = 0; i < len; i++) {
        p[i] = (i * 7 + seed * 31 + (i >> 9)) & 0xff;
    }
}

static void expect_disk(Fixture *f, int64_t offset, const void *data,
                        size_t len)
{
    g_autofree char *disk = g_malloc(len);

    fake_blk_get(f->server->blk, offset, disk, len);
    g_assert_cmpmem(disk, len, data, len);
}

/* Fill the start of the disk with one byte. */
static void set_disk(Fixture *f, int byte, size_t len)
{
    g_autofree char *data = g_malloc(len);

    memset(data, byte, len);
    fake_blk_put(f->server->blk, 0, data, len);
}

static int disk_byte(Fixture *f, int64_t offset)
{
    uint8_t byte;

    fake_blk_get(f->server->blk, offset, &byte, 1);
    return byte;
}

/* ---- What a driver does ---- */

static void test_data(Fixture *f, const void *arg)
{
    enum { LEN = 64 * 1024 };
    g_autofree char *out = g_malloc(LEN), *in = g_malloc(LEN);

    for (unsigned q = 0; q < f->fe->num_rings; q++) {
        int64_t offset = q * LEN + 512;

        fill(out, LEN, q);
        g_assert_cmpint(vufe_blk_write(f->fe, q, offset, out, LEN), ==, 0);
        expect_disk(f, offset, out, LEN);
        g_assert_cmpint(vufe_blk_read(f->fe, q, offset, in, LEN), ==, 0);
        g_assert_cmpmem(in, LEN, out, LEN);
    }
}

/* Data in many pieces, in the ring and in indirect tables. */
static void test_segments(Fixture *f, const void *arg)
{
    enum { LEN = 64 * 1024 };
    const VufeBlkShape shapes[] = {
        { 2, false }, { 7, false }, { 126, false }, { 5, true }, { 126, true },
    };
    g_autofree char *out = g_malloc(LEN), *in = g_malloc(LEN);

    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        fill(out, LEN, i);
        g_assert_cmpint(vufe_blk_request(f->fe, 0, VIRTIO_BLK_T_OUT, 8, out,
                                         LEN, NULL, 0, &shapes[i]), ==, 0);
        g_assert_cmpint(vufe_blk_request(f->fe, 0, VIRTIO_BLK_T_IN, 8, NULL, 0,
                                         in, LEN, &shapes[i]), ==, 0);
        g_assert_cmpmem(in, LEN, out, LEN);
    }
}

/* Put @len bytes into guest memory; their guest address. */
static uint64_t put(Fixture *f, const void *data, size_t len)
{
    uint64_t gpa = vufe_mem_alloc(&f->fe->mem, 0, len, 16);

    g_assert_cmpuint(gpa, !=, VUFE_GPA_NONE);
    memcpy(vufe_mem_ptr(&f->fe->mem, gpa, len), data, len);
    return gpa;
}

/* Add a chain and wait for the answer; what the used ring says. */
static uint32_t run_chain(Fixture *f, const VufeBuf *bufs, unsigned n)
{
    VufeRing *r = &f->fe->rings[0];
    void *token;
    uint32_t len;

    g_assert_cmpint(vufe_ring_add(r, bufs, n, false, f), >=, 0);
    vufe_ring_kick(r);
    g_assert_cmpint(vufe_ring_wait(r, WAIT_MS), ==, 0);
    g_assert_cmpint(vufe_ring_get_used(r, &token, &len), ==, 1);
    return len;
}

/* Every byte of the header in a descriptor of its own; data and status in
 * one, and a read whose data is cut at an odd place. */
static void test_odd_layout(Fixture *f, const void *arg)
{
    struct virtio_blk_outhdr hdr = { .type = VIRTIO_BLK_T_IN, .sector = 3 };
    uint64_t at = put(f, &hdr, sizeof(hdr));
    uint64_t data = vufe_mem_alloc(&f->fe->mem, 0, 1025, 16);
    uint8_t *host = vufe_mem_ptr(&f->fe->mem, data, 1025);
    char disk[4096];
    VufeBuf bufs[18];

    fill(disk, sizeof(disk), 5);
    fake_blk_put(f->server->blk, 0, disk, sizeof(disk));
    for (int i = 0; i < 16; i++) {
        bufs[i] = (VufeBuf) { at + i, 1, false };
    }
    bufs[16] = (VufeBuf) { data, 333, true };
    bufs[17] = (VufeBuf) { data + 333, 1025 - 333, true };
    host[1024] = 0xff;
    g_assert_cmpuint(run_chain(f, bufs, 18), ==, 1025);
    g_assert_cmpuint(host[1024], ==, VIRTIO_BLK_S_OK);
    g_assert_cmpmem(host, 1024, disk + 1536, 1024);
}

/* A write whose header and data share a descriptor. */
static void test_header_with_data(Fixture *f, const void *arg)
{
    struct {
        struct virtio_blk_outhdr hdr;
        uint8_t data[512];
    } out = { .hdr = { .type = VIRTIO_BLK_T_OUT, .sector = 1 } };
    uint64_t at, status = put(f, "\xff", 1);
    VufeBuf bufs[2];

    fill(out.data, 512, 9);
    at = put(f, &out, sizeof(out));
    bufs[0] = (VufeBuf) { at, sizeof(out), false };
    bufs[1] = (VufeBuf) { status, 1, true };
    g_assert_cmpuint(run_chain(f, bufs, 2), ==, 1);
    expect_disk(f, 512, out.data, 512);
}

static void test_flush_and_id(Fixture *f, const void *arg)
{
    char id[VUFE_BLK_ID_LEN + 1];

    g_assert_cmpint(vufe_blk_flush(f->fe, 0), ==, 0);
    g_assert_cmpuint(fake_blk_count(f->server->blk, BDRV_REQ_FLUSH), ==, 1);
    g_assert_cmpint(vufe_blk_get_id(f->fe, 0, id), ==, 0);
    g_assert_cmpstr(id, ==, "serial-number-012345");
    g_assert_cmpuint(strlen(FAKE_SERIAL), >, VUFE_BLK_ID_LEN);
}

static void test_zero_and_discard(Fixture *f, const void *arg)
{
    set_disk(f, 1, 8192);
    g_assert_cmpint(vufe_blk_discard(f->fe, 0, 512, 1024), ==, 0);
    g_assert_cmpint(vufe_blk_write_zeroes(f->fe, 0, 4096, 512, false), ==, 0);
    g_assert_cmpint(fake_blk_last_flags(f->server->blk), ==, 0);
    g_assert_cmpint(vufe_blk_write_zeroes(f->fe, 0, 5120, 512, true), ==, 0);
    g_assert_cmpint(fake_blk_last_flags(f->server->blk), ==,
                    BDRV_REQ_MAY_UNMAP);
    for (int i = 0; i < 16; i++) {
        g_assert_cmpint(disk_byte(f, i * 512), ==,
                        i == 1 || i == 2 || i == 8 || i == 10 ? 0 : 1);
    }
}

static int ranges(Fixture *f, uint32_t type, unsigned n, uint64_t sector,
                  uint32_t num, uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes r[40];

    for (unsigned i = 0; i < n; i++) {
        r[i].sector = sector + i * 16;
        r[i].num_sectors = num;
        r[i].flags = flags;
    }
    return vufe_blk_request(f->fe, 0, type, 0, r, n * sizeof(r[0]), NULL, 0,
                            NULL);
}

static void test_many_ranges(Fixture *f, const void *arg)
{
    const VufeBlkShape pieces = { 5, false };
    struct virtio_blk_discard_write_zeroes r[2] = { { 0, 1, 0 }, { 8, 1, 0 } };

    set_disk(f, 1, 512 * 1024);
    g_assert_cmpint(ranges(f, VIRTIO_BLK_T_DISCARD, 32, 0, 8, 0), ==, 0);
    g_assert_cmpuint(fake_blk_count(f->server->blk, BDRV_REQ_DISCARD), ==, 32);
    for (int i = 0; i < 32; i++) {
        g_assert_cmpint(disk_byte(f, i * 8192), ==, 0);
        g_assert_cmpint(disk_byte(f, i * 8192 + 4096), ==, 1);
    }
    /* ranges cut anywhere */
    g_assert_cmpint(vufe_blk_request(f->fe, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, r,
                                     sizeof(r), NULL, 0, &pieces), ==, 0);
    g_assert_cmpint(ranges(f, VIRTIO_BLK_T_DISCARD, 1, 0, 0, 0), ==, 0);
}

static void test_config(Fixture *f, const void *arg)
{
    const Variant *v = arg;
    struct virtio_blk_config c;

    g_assert_cmpint(vufe_get_config(f->fe, 0, &c, sizeof(c)), ==, 0);
    g_assert_cmpuint(c.capacity, ==, SECTORS);
    g_assert_cmpuint(c.blk_size, ==, v->block_size);
    g_assert_cmpuint(c.physical_block_exp, ==, v->block_size == 512 ? 3 : 0);
    g_assert_cmpuint(c.num_queues, ==, FAKE_QUEUES);
    g_assert_cmpuint(c.seg_max, ==, 126);
    g_assert_cmpuint(c.discard_sector_alignment, ==, v->block_size / 512);
    g_assert_cmpuint(c.wce, ==, 1);
    g_assert_cmpuint(!!(f->fe->features_offered & VUFE_BIT(VIRTIO_BLK_F_RO)),
                     ==, v->read_only);
    g_assert_cmpuint(!!(f->fe->features_offered &
                        VUFE_BIT(VIRTIO_BLK_F_DISCARD)), ==, !v->read_only);
}

static void add_test(const char *name, const Variant *v,
                     void (*fn)(Fixture *f, const void *arg))
{
    g_autofree char *path = g_strdup_printf("/virtio-blk/%s/%s", v->name,
                                            name);

    g_test_add(path, Fixture, v, fixture_setup, fn, fixture_teardown);
}

int main(int argc, char **argv)
{
    const Variant *const rings[] = { &split, &packed, &plain };

    g_test_init(&argc, &argv, NULL);
    for (int i = 0; i < 3; i++) {
        add_test("request/data-on-all-queues", rings[i], test_data);
        add_test("request/segments", rings[i], test_segments);
        add_test("request/odd-layout", rings[i], test_odd_layout);
        add_test("request/header-with-data", rings[i], test_header_with_data);
        add_test("request/flush-and-id", rings[i], test_flush_and_id);
        add_test("request/zero-and-discard", rings[i], test_zero_and_discard);
        add_test("request/many-ranges", rings[i], test_many_ranges);
    }
    add_test("config/fields", &split, test_config);
    add_test("config/fields", &read_only, test_config);
    add_test("config/fields", &big_blocks, test_config);
    return g_test_run();
}

