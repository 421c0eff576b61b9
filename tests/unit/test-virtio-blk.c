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
    int64_t poll_max_ns;
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
static const Variant polling = {
    "polling", { .num_queues = FAKE_QUEUES, .indirect = true,
                 .event_idx = true }, false, 512, 500 * 1000,
};
static const Variant read_only = { "read-only", { 0 }, true, 512 };
static const Variant big_blocks = { "4k", { 0 }, false, 4096 };

static void fixture_setup(Fixture *f, const void *arg)
{
    const Variant *v = arg;

    f->server = fake_server_new(!v->read_only, v->block_size);
    fake_server_set_polling(f->server, v->poll_max_ns);
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

static void test_write_cache(Fixture *f, const void *arg)
{
    const uint32_t wce = offsetof(struct virtio_blk_config, wce);
    uint8_t off = 0, got = 9;

    g_assert_cmpint(vufe_set_config(f->fe, wce, &off, 1, 0), ==, 0);
    g_assert_false(blk_enable_write_cache(f->server->blk));
    g_assert_cmpint(vufe_get_config(f->fe, wce, &got, 1), ==, 0);
    g_assert_cmpuint(got, ==, 0);
    /* nothing else can be written */
    g_assert_cmpint(vufe_set_config(f->fe, 0, &off, 1, 0), !=, 0);
    g_assert_cmpint(vufe_set_config(f->fe, wce - 1, &off, 1, 0), !=, 0);
}

/* What was written before the cache is off must not stay in it. */
static void test_write_cache_off_flushes(Fixture *f, const void *arg)
{
    const uint32_t wce = offsetof(struct virtio_blk_config, wce);
    BlockBackend *blk = f->server->blk;
    uint8_t off = 0;

    fake_blk_set_error(blk, -EIO);
    g_assert_cmpint(vufe_set_config(f->fe, wce, &off, 1, 0), !=, 0);
    g_assert_cmpuint(fake_blk_count(blk, BDRV_REQ_FLUSH), ==, 1);
    g_assert_true(blk_enable_write_cache(blk));

    fake_blk_set_error(blk, 0);
    g_assert_cmpint(vufe_set_config(f->fe, wce, &off, 1, 0), ==, 0);
    g_assert_cmpuint(fake_blk_count(blk, BDRV_REQ_FLUSH), ==, 2);
    g_assert_false(blk_enable_write_cache(blk));
    /* It is off: nothing is in it. */
    g_assert_cmpint(vufe_set_config(f->fe, wce, &off, 1, 0), ==, 0);
    g_assert_cmpuint(fake_blk_count(blk, BDRV_REQ_FLUSH), ==, 2);
}

/* A driver that turned it off does not flush, also after a reconnect. */
static void test_write_cache_reconnect(Fixture *f, const void *arg)
{
    const uint32_t wce = offsetof(struct virtio_blk_config, wce);
    uint8_t off = 0, on = 1;

    g_assert_cmpint(vufe_set_config(f->fe, wce, &off, 1, 0), ==, 0);
    vufe_close(f->fe);
    f->fe = fake_server_connect(f->server, &(VufeOptions){ 0 });
    g_assert_false(blk_enable_write_cache(f->server->blk));
    g_assert_cmpint(vufe_set_config(f->fe, wce, &on, 1, 0), ==, 0);
    vufe_close(f->fe);
    f->fe = fake_server_connect(f->server, &(VufeOptions){ 0 });
    g_assert_true(blk_enable_write_cache(f->server->blk));
}

/* A driver that cannot flush gets write-through. */
static void test_no_flush(Fixture *f, const void *arg)
{
    VufeOptions opts = { .features_off = VUFE_BIT(VIRTIO_BLK_F_FLUSH) };

    g_assert_true(blk_enable_write_cache(f->server->blk));
    vufe_close(f->fe);
    f->fe = fake_server_connect(f->server, &opts);
    g_assert_false(blk_enable_write_cache(f->server->blk));
}

static void test_resize(Fixture *f, const void *arg)
{
    struct pollfd pfd = { .fd = f->fe->backend_fd, .events = POLLIN };
    uint32_t header[3];
    int64_t size;

    fake_blk_resize(f->server->blk, FAKE_DISK_SIZE / 2);
    g_assert_cmpint(poll(&pfd, 1, WAIT_MS), ==, 1);
    g_assert_cmpint(read(pfd.fd, header, sizeof(header)), ==, sizeof(header));
    g_assert_cmpuint(header[0], ==, 2);     /* CONFIG_CHANGE_MSG */
    g_assert_cmpuint(header[2], ==, 0);
    g_assert_cmpint(vufe_blk_get_size(f->fe, &size), ==, 0);
    g_assert_cmpint(size, ==, FAKE_DISK_SIZE / 2);
}

/* ---- What a driver gets wrong, and has an answer ---- */

static int rw(Fixture *f, uint32_t type, uint64_t sector, uint32_t len)
{
    static char buf[64 * 1024];
    bool in = type == VIRTIO_BLK_T_IN;

    return vufe_blk_request(f->fe, 0, type, sector, in ? NULL : buf,
                            in ? 0 : len, in ? buf : NULL, in ? len : 0, NULL);
}

static void test_range_errors(Fixture *f, const void *arg)
{
    const uint32_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT };

    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(rw(f, types[i], SECTORS - 1, 512), ==, 0);
        g_assert_cmpint(rw(f, types[i], SECTORS, 512), ==, 1);
        g_assert_cmpint(rw(f, types[i], SECTORS - 1, 1024), ==, 1);
        g_assert_cmpint(rw(f, types[i], UINT64_MAX, 512), ==, 1);
        g_assert_cmpint(rw(f, types[i], UINT64_MAX / 512 + 1, 512), ==, 1);
        g_assert_cmpint(rw(f, types[i], 1ULL << 54, 512), ==, 1);
        g_assert_cmpint(rw(f, types[i], 0, 513), ==, 1);
        g_assert_cmpint(rw(f, types[i], 0, 0), ==, 1);
    }
    g_assert_cmpint(fake_server_stat(f->server, "errors"), ==, 14);
}

static void test_range_list_errors(Fixture *f, const void *arg)
{
    const uint32_t discard = VIRTIO_BLK_T_DISCARD;
    const uint32_t zeroes = VIRTIO_BLK_T_WRITE_ZEROES;

    g_assert_cmpint(ranges(f, discard, 33, 0, 1, 0), ==, 1);
    g_assert_cmpint(ranges(f, discard, 1, 0, UINT32_MAX, 0), ==, 1);
    g_assert_cmpint(ranges(f, zeroes, 1, 0, UINT32_MAX, 0), ==, 1);
    g_assert_cmpint(ranges(f, discard, 2, SECTORS - 16, 1, 0), ==, 1);
    g_assert_cmpint(ranges(f, discard, 1, UINT64_MAX, 1, 0), ==, 1);
    g_assert_cmpint(ranges(f, discard, 0, 0, 1, 0), ==, 1);
    /* flags: UNSUPP */
    g_assert_cmpint(ranges(f, discard, 1, 0, 1, 1), ==, 2);
    g_assert_cmpint(ranges(f, zeroes, 1, 0, 1, 2), ==, 2);
    /* half a range */
    g_assert_cmpint(vufe_blk_request(f->fe, 0, discard, 0, "12345678", 8, NULL,
                                     0, NULL), ==, 1);
    g_assert_cmpuint(fake_blk_count(f->server->blk, BDRV_REQ_DISCARD), ==, 0);
}

static void test_unknown_type(Fixture *f, const void *arg)
{
    const uint32_t types[] = {
        VIRTIO_BLK_T_SCSI_CMD, VIRTIO_BLK_T_SCSI_CMD | 1, 3, 5,
        VIRTIO_BLK_T_SECURE_ERASE, 0x80000000, UINT32_MAX,
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        g_assert_cmpint(rw(f, types[i], 0, 512), ==, 2);
    }
    g_assert_cmpint(rw(f, VIRTIO_BLK_T_IN, 0, 512), ==, 0);
}

static void test_failing_disk(Fixture *f, const void *arg)
{
    const int errors[] = { -EIO, -ENOSPC, -EFAULT, -ECANCELED, -ENOMEDIUM };

    for (unsigned i = 0; i < G_N_ELEMENTS(errors); i++) {
        fake_blk_set_error(f->server->blk, errors[i]);
        g_assert_cmpint(rw(f, VIRTIO_BLK_T_IN, 0, 512), ==, 1);
        g_assert_cmpint(rw(f, VIRTIO_BLK_T_OUT, 0, 512), ==, 1);
        g_assert_cmpint(vufe_blk_flush(f->fe, 0), ==, 1);
        g_assert_cmpint(vufe_blk_discard(f->fe, 0, 0, 512), ==, 1);
    }
    fake_blk_set_error(f->server->blk, -ENOTSUP);
    g_assert_cmpint(vufe_blk_discard(f->fe, 0, 0, 512), ==, 2);
    g_assert_cmpint(vufe_blk_flush(f->fe, 0), ==, 1);
    fake_blk_set_error(f->server->blk, 0);
    g_assert_cmpint(rw(f, VIRTIO_BLK_T_OUT, 0, 512), ==, 0);
}

static void test_read_only(Fixture *f, const void *arg)
{
    g_assert_cmpint(rw(f, VIRTIO_BLK_T_IN, 0, 512), ==, 0);
    g_assert_cmpint(rw(f, VIRTIO_BLK_T_OUT, 0, 512), ==, 1);
    g_assert_cmpint(vufe_blk_discard(f->fe, 0, 0, 512), ==, 1);
    g_assert_cmpint(vufe_blk_write_zeroes(f->fe, 0, 0, 512, true), ==, 1);
    g_assert_cmpuint(fake_blk_count(f->server->blk, BDRV_REQ_WRITE), ==, 0);
}

static void test_big_blocks(Fixture *f, const void *arg)
{
    g_assert_cmpint(rw(f, VIRTIO_BLK_T_OUT, 8, 4096), ==, 0);
    g_assert_cmpint(rw(f, VIRTIO_BLK_T_OUT, 1, 4096), ==, 1);
    g_assert_cmpint(rw(f, VIRTIO_BLK_T_OUT, 0, 512), ==, 1);
    g_assert_cmpint(ranges(f, VIRTIO_BLK_T_DISCARD, 1, 4, 8, 0), ==, 1);
}

/* ---- What a driver gets wrong, and there is no way to answer ---- */

static void expect_queue_dead(Fixture *f, const VufeBuf *bufs, unsigned n)
{
    VufeRing *r = &f->fe->rings[0];
    struct pollfd pfd = { .fd = r->err_fd, .events = POLLIN };
    char buf[512];
    uint8_t status;

    g_assert_cmpint(vufe_ring_add(r, bufs, n, false, f), >=, 0);
    vufe_ring_kick(r);
    g_assert_cmpint(poll(&pfd, 1, WAIT_MS), ==, 1);
    g_assert_false(vufe_ring_has_used(r));
    if (f->fe->protocol & VUFE_BIT(VUFE_P_STATUS)) {
        g_assert_cmpint(vufe_get_status(f->fe, &status), ==, 0);
        g_assert_cmphex(status & 0x40, ==, 0x40);   /* NEEDS_RESET */
    }
    /* other queues go on */
    g_assert_cmpint(vufe_blk_read(f->fe, 1, 0, buf, 512), ==, 0);
    /* and this one does, when it was set up again */
    g_assert_cmpint(vufe_stop_ring(f->fe, 0), ==, 0);
    vufe_ring_reset(r);
    f->fe->base[0] = f->fe->opts.packed ? 0x80008000 : 0;
    g_assert_cmpint(vufe_start_ring(f->fe, 0), ==, 0);
    g_assert_cmpint(vufe_blk_read(f->fe, 0, 0, buf, 512), ==, 0);
}

static void test_no_status(Fixture *f, const void *arg)
{
    struct virtio_blk_outhdr hdr = { .type = VIRTIO_BLK_T_FLUSH };
    VufeBuf buf = { put(f, &hdr, sizeof(hdr)), sizeof(hdr), false };

    expect_queue_dead(f, &buf, 1);
}

static void test_short_header(Fixture *f, const void *arg)
{
    uint64_t at = put(f, "0123456789abcdef", 16);
    VufeBuf bufs[] = { { at, 15, false }, { at, 16, true } };

    expect_queue_dead(f, bufs, 2);
}

static void test_bad_address(Fixture *f, const void *arg)
{
    VufeBuf bufs[] = { { 0xdead0000, 16, false }, { 0xdead0000, 1, true } };

    expect_queue_dead(f, bufs, 2);
}

/* What was read once is not read again: the driver changes header and ranges
 * while the first of them is under way. */
static void test_fetched_once(Fixture *f, const void *arg)
{
    struct virtio_blk_outhdr hdr = { .type = VIRTIO_BLK_T_WRITE_ZEROES };
    struct virtio_blk_discard_write_zeroes r[2] = { { 0, 1, 0 }, { 8, 1, 0 } };
    uint64_t at = put(f, &hdr, sizeof(hdr)), list = put(f, r, sizeof(r));
    uint64_t status = put(f, "\xff", 1);
    VufeRing *ring = &f->fe->rings[0];
    VufeBuf bufs[] = {
        { at, sizeof(hdr), false }, { list, sizeof(r), false },
        { status, 1, true },
    };
    void *token;
    uint32_t len;

    set_disk(f, 1, 64 * 1024);
    fake_blk_hold(f->server->blk, true);
    g_assert_cmpint(vufe_ring_add(ring, bufs, 3, false, f), >=, 0);
    vufe_ring_kick(ring);
    fake_blk_wait_held(f->server->blk, 1);
    memset(vufe_mem_ptr(&f->fe->mem, at, sizeof(hdr)), 0xff, sizeof(hdr));
    memset(vufe_mem_ptr(&f->fe->mem, list, sizeof(r)), 0xff, sizeof(r));
    fake_blk_hold(f->server->blk, false);
    g_assert_cmpint(vufe_ring_wait(ring, WAIT_MS), ==, 0);
    g_assert_cmpint(vufe_ring_get_used(ring, &token, &len), ==, 1);
    g_assert_cmpint(*(char *)vufe_mem_ptr(&f->fe->mem, status, 1), ==, 0);
    g_assert_cmpint(disk_byte(f, 0), ==, 0);
    g_assert_cmpint(disk_byte(f, 512), ==, 1);
    g_assert_cmpint(disk_byte(f, 4096), ==, 0);
}

/* ---- Draining and stopping ---- */

static void start_read(Fixture *f, unsigned ring)
{
    struct virtio_blk_outhdr hdr = { .type = VIRTIO_BLK_T_IN };
    uint64_t at = put(f, &hdr, sizeof(hdr));
    uint64_t data = vufe_mem_alloc(&f->fe->mem, 0, 513, 16);
    VufeBuf bufs[] = { { at, 16, false }, { data, 513, true } };

    g_assert_cmpint(vufe_ring_add(&f->fe->rings[ring], bufs, 2, false, f), >=,
                    0);
    vufe_ring_kick(&f->fe->rings[ring]);
}

static void take_one(Fixture *f, unsigned ring)
{
    VufeRing *r = &f->fe->rings[ring];
    void *token;
    uint32_t len;

    g_assert_cmpint(vufe_ring_wait(r, WAIT_MS), ==, 0);
    g_assert_cmpint(vufe_ring_get_used(r, &token, &len), ==, 1);
}

/* What is kicked during a drain is done after it, and not before. */
static void test_drain(Fixture *f, const void *arg)
{
    unsigned before;

    start_read(f, 0);
    take_one(f, 0);
    before = fake_blk_count(f->server->blk, BDRV_REQ_READ);
    fake_blk_drain_begin(f->server->blk);
    fake_blk_drain_begin(f->server->blk);
    start_read(f, 0);
    start_read(f, 1);
    fake_blk_drain_end(f->server->blk);
    /* a ring that starts while drained does not run either */
    g_assert_cmpint(vufe_stop_ring(f->fe, 1), ==, 0);
    g_assert_cmpint(vufe_start_ring(f->fe, 1), ==, 0);
    g_assert_cmpuint(fake_blk_count(f->server->blk, BDRV_REQ_READ), ==,
                     before);
    fake_blk_drain_end(f->server->blk);
    take_one(f, 0);
    take_one(f, 1);
    g_assert_cmpuint(fake_blk_count(f->server->blk, BDRV_REQ_READ), ==,
                     before + 2);
}

static void *release_later(void *opaque)
{
    FakeServer *server = opaque;

    fake_blk_wait_held(server->blk, 3);
    fake_blk_hold(server->blk, false);
    return NULL;
}

/* GET_VRING_BASE is answered when all that was popped is done. */
static void test_stop_waits(Fixture *f, const void *arg)
{
    QemuThread thread;

    fake_blk_hold(f->server->blk, true);
    start_read(f, 0);
    start_read(f, 0);
    fake_blk_wait_held(f->server->blk, 2);
    start_read(f, 1);
    qemu_thread_create(&thread, "release", release_later, f->server);
    g_assert_cmpint(vufe_stop_ring(f->fe, 0), ==, 0);
    g_assert_true(vufe_ring_has_used(&f->fe->rings[0]));
    qemu_thread_join(&thread);
    take_one(f, 0);
    take_one(f, 0);
    take_one(f, 1);
}

/* A front end that leaves with requests under way takes nothing with it. */
static void test_leave_while_busy(Fixture *f, const void *arg)
{
    fake_blk_hold(f->server->blk, true);
    for (int i = 0; i < 3; i++) {
        start_read(f, i % 2);
    }
    /* A kick that nobody has looked at yet goes with the front end. */
    fake_blk_wait_held(f->server->blk, 3);
    vufe_close(f->fe);
    f->fe = NULL;
    fake_blk_hold(f->server->blk, false);
    fake_server_check_alive(f->server);
}

/* The ring is published, and can be seen, before its interrupt is counted. */
static void wait_interrupts(Fixture *f, int64_t count)
{
    for (int i = 0; i < 10000; i++) {
        if (fake_server_stat(f->server, "interrupts") >= count) {
            break;
        }
        g_usleep(1000);
    }
    g_assert_cmpint(fake_server_stat(f->server, "interrupts"), ==, count);
}

/* Kick to interrupt: one of each for a batch. */
static void test_batch(Fixture *f, const void *arg)
{
    int64_t requests = fake_server_stat(f->server, "requests");
    int64_t interrupts = fake_server_stat(f->server, "interrupts");
    VufeRing *r = &f->fe->rings[0];

    fake_blk_drain_begin(f->server->blk);
    for (int i = 0; i < 16; i++) {
        start_read(f, 0);
    }
    fake_blk_drain_end(f->server->blk);
    for (int i = 0; i < 16; i++) {
        take_one(f, 0);
    }
    g_assert_cmpint(fake_server_stat(f->server, "requests"), ==,
                    requests + 16);
    wait_interrupts(f, interrupts + 1);
    g_assert_cmpuint(r->num_kicks, <=, 16);
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
    const Variant *const rings[] = { &split, &packed, &plain, &polling };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(rings); i++) {
        add_test("request/data-on-all-queues", rings[i], test_data);
        add_test("request/segments", rings[i], test_segments);
        add_test("request/odd-layout", rings[i], test_odd_layout);
        add_test("request/header-with-data", rings[i], test_header_with_data);
        add_test("request/flush-and-id", rings[i], test_flush_and_id);
        add_test("request/zero-and-discard", rings[i], test_zero_and_discard);
        add_test("request/many-ranges", rings[i], test_many_ranges);
        add_test("hostile/no-status-byte", rings[i], test_no_status);
        add_test("hostile/short-header", rings[i], test_short_header);
        add_test("hostile/bad-address", rings[i], test_bad_address);
        add_test("hostile/fetched-once", rings[i], test_fetched_once);
        add_test("drain/waits-for-end", rings[i], test_drain);
        add_test("stop/waits-for-requests", rings[i], test_stop_waits);
        add_test("stop/leaving-front-end", rings[i], test_leave_while_busy);
        add_test("notify/once-a-batch", rings[i], test_batch);
    }
    add_test("config/fields", &split, test_config);
    add_test("config/fields", &read_only, test_config);
    add_test("config/fields", &big_blocks, test_config);
    add_test("config/write-cache", &split, test_write_cache);
    add_test("config/write-cache-off-flushes", &split,
             test_write_cache_off_flushes);
    add_test("config/write-cache-reconnect", &split,
             test_write_cache_reconnect);
    add_test("config/no-flush-is-write-through", &split, test_no_flush);
    add_test("config/resize-is-told", &split, test_resize);
    add_test("error/ranges", &split, test_range_errors);
    add_test("error/lists-of-ranges", &split, test_range_list_errors);
    add_test("error/unknown-type", &split, test_unknown_type);
    add_test("error/failing-disk", &split, test_failing_disk);
    add_test("error/read-only", &read_only, test_read_only);
    add_test("error/not-whole-blocks", &big_blocks, test_big_blocks);
    return g_test_run();
}
