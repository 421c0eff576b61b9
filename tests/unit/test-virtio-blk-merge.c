/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-blk: which requests of a kick become one, and what the driver sees of
 * it, which is nothing.  The queue is drained while a test fills it, so that
 * the device sees all of it at once.
 */
#include "qemu/osdep.h"
#include "fake-server.h"
#include <linux/virtio_blk.h>

#define WAIT_MS 10000
#define IN VIRTIO_BLK_T_IN
#define OUT VIRTIO_BLK_T_OUT
#define MAX_OPS 32

/* A read or write, and where its parts are in the guest's memory. */
typedef struct Op {
    uint32_t type;
    int64_t offset;
    uint32_t bytes;
    unsigned segments;              /* of the data; 0: one */
    uint8_t *data;
    uint64_t status;
    uint32_t written;               /* says the used ring */
} Op;

typedef struct Fixture {
    FakeServer *server;
    VufeFrontend *fe;
} Fixture;

static void connect_ring(Fixture *f, const void *packed)
{
    const VufeOptions opts = {
        .num_queues = FAKE_QUEUES, .indirect = true, .event_idx = true,
        .packed = packed,
    };

    f->fe = fake_server_connect(f->server, &opts);
}

static void fixture_setup(Fixture *f, const void *packed)
{
    f->server = fake_server_new(true, 512);
    connect_ring(f, packed);
}

static void fixture_teardown(Fixture *f, const void *packed)
{
    vufe_close(f->fe);
    fake_server_free(f->server);
}

/* ---- The driver ---- */

static uint64_t alloc(Fixture *f, size_t len)
{
    uint64_t gpa = vufe_mem_alloc(&f->fe->mem, 0, len, 16);

    g_assert_cmpuint(gpa, !=, VUFE_GPA_NONE);
    return gpa;
}

/* What the block at @offset has, if @seed wrote it. */
static void fill(uint8_t *p, int64_t offset, uint32_t bytes, unsigned seed)
{
    for (uint32_t i = 0; i < bytes; i++) {
        p[i] = (offset + i) / 512 * 31 + i * 7 + seed;
    }
}

/* Reads have the status byte in the buffer of their last piece of data. */
static void add(Fixture *f, Op *op)
{
    struct virtio_blk_outhdr hdr = { .type = op->type,
                                     .sector = op->offset / 512 };
    unsigned n = op->bytes ? MAX(op->segments, 1) : 0, k = 1;
    uint64_t header = alloc(f, sizeof(hdr)), data = alloc(f, op->bytes + 1);
    VufeBuf bufs[VUFE_INDIRECT_MAX];

    memcpy(vufe_mem_ptr(&f->fe->mem, header, sizeof(hdr)), &hdr, sizeof(hdr));
    bufs[0] = (VufeBuf) { header, sizeof(hdr), false };
    for (unsigned i = 0; i < n; i++, k++) {
        bufs[k] = (VufeBuf) { data + op->bytes / n * i, op->bytes / n,
                              op->type == IN };
    }
    op->data = vufe_mem_ptr(&f->fe->mem, data, op->bytes + 1);
    op->status = data + op->bytes;
    if (op->type == IN) {
        bufs[k - 1].len++;
    } else {
        bufs[k++] = (VufeBuf) { op->status, 1, true };
        fill(op->data, op->offset, op->bytes, 1);
    }
    op->data[op->bytes] = 0xff;
    g_assert_cmpint(vufe_ring_add(&f->fe->rings[0], bufs, k, true, op), >=, 0);
}

static void start(Fixture *f, Op *ops, unsigned n)
{
    fake_blk_drain_begin(f->server->blk);
    for (unsigned i = 0; i < n; i++) {
        add(f, &ops[i]);
    }
    vufe_ring_kick(&f->fe->rings[0]);
    fake_blk_drain_end(f->server->blk);
}

static void finish(Fixture *f, unsigned n)
{
    VufeRing *r = &f->fe->rings[0];
    uint32_t len;
    void *token;

    while (n > 0) {
        g_assert_cmpint(vufe_ring_wait(r, WAIT_MS), ==, 0);
        while (vufe_ring_get_used(r, &token, &len) == 1) {
            ((Op *)token)->written = len;
            n--;
        }
    }
}

/* As the disk was, if nobody wrote it. */
static void set_disk(Fixture *f)
{
    g_autofree uint8_t *disk = g_malloc(FAKE_DISK_SIZE);

    fill(disk, 0, FAKE_DISK_SIZE, 0);
    fake_blk_put(f->server->blk, 0, disk, FAKE_DISK_SIZE);
}

static void check_op(Fixture *f, const Op *op, uint8_t status)
{
    g_autofree uint8_t *want = g_malloc(op->bytes);
    g_autofree uint8_t *disk = g_malloc(op->bytes);
    bool done = status == VIRTIO_BLK_S_OK;

    g_assert_cmpuint(op->data[op->bytes], ==, status);
    g_assert_cmpuint(op->written, ==, op->type == IN && done ? op->bytes + 1
                                                             : 1);
    fill(want, op->offset, op->bytes, op->type == OUT && done);
    fake_blk_get(f->server->blk, op->offset, disk, op->bytes);
    g_assert_cmpmem(disk, op->bytes, want, op->bytes);
    if (done) {
        g_assert_cmpmem(op->data, op->bytes, want, op->bytes);
    }
}

static unsigned submitted(Fixture *f)
{
    return fake_blk_count(f->server->blk, BDRV_REQ_READ) +
           fake_blk_count(f->server->blk, BDRV_REQ_WRITE);
}

/* All in one kick; they are to become so many requests of the disk. */
static void expect_requests(Fixture *f, Op *ops, unsigned n, unsigned requests)
{
    unsigned before = submitted(f);
    int64_t merged = fake_server_stat(f->server, "merged");

    set_disk(f);
    start(f, ops, n);
    finish(f, n);
    for (unsigned i = 0; i < n; i++) {
        check_op(f, &ops[i], VIRTIO_BLK_S_OK);
    }
    g_assert_cmpuint(submitted(f) - before, ==, requests);
    g_assert_cmpint(fake_server_stat(f->server, "merged") - merged, ==,
                    n - requests);
}

static void stream(Op *ops, unsigned n, uint32_t type, int64_t offset,
                   uint32_t bytes)
{
    for (unsigned i = 0; i < n; i++) {
        ops[i] = (Op) { .type = type, .offset = offset + i * bytes,
                        .bytes = bytes };
    }
}

/* ---- What is merged ---- */

static void test_streams(Fixture *f, const void *packed)
{
    Op ops[MAX_OPS];

    for (int type = IN; type <= OUT; type++) {
        stream(ops, MAX_OPS, type, 4096, 4096);
        expect_requests(f, ops, MAX_OPS, 1);
        stream(ops, 2, type, 512, 512);
        expect_requests(f, ops, 2, 1);
        stream(ops, 1, type, 0, 4096);
        expect_requests(f, ops, 1, 1);
    }
}

static void test_not_neighbours(Fixture *f, const void *packed)
{
    Op gap[] = { { OUT, 0, 512 }, { OUT, 1024, 512 } };
    Op backwards[] = { { OUT, 512, 512 }, { OUT, 0, 512 } };
    Op twice[] = { { OUT, 0, 512 }, { OUT, 0, 512 } };
    Op overlap[] = { { IN, 0, 1024 }, { IN, 512, 1024 } };
    Op kinds[] = { { IN, 0, 512 }, { OUT, 512, 512 } };
    Op between[] = { { IN, 0, 512 }, { IN, 8192, 512 }, { IN, 512, 512 } };

    expect_requests(f, gap, 2, 2);
    expect_requests(f, backwards, 2, 2);
    expect_requests(f, twice, 2, 2);
    expect_requests(f, overlap, 2, 2);
    expect_requests(f, kinds, 2, 2);
    expect_requests(f, between, 3, 3);
}

/* Two streams, one after the other. */
static void test_several(Fixture *f, const void *packed)
{
    Op ops[12];

    stream(ops, 4, OUT, 0, 4096);
    stream(ops + 4, 4, IN, 1 * MiB, 4096);
    stream(ops + 8, 4, OUT, 2 * MiB, 4096);
    expect_requests(f, ops, 12, 3);
}

static void test_bytes(Fixture *f, const void *packed)
{
    Op ops[5];

    stream(ops, 5, OUT, 0, 64 * 1024);
    expect_requests(f, ops, 5, 2);
    stream(ops, 2, IN, 0, 256 * 1024);
    expect_requests(f, ops, 2, 2);
    fake_blk_set_max_transfer(f->server->blk, 8192);
    stream(ops, 5, OUT, 0, 4096);
    expect_requests(f, ops, 5, 3);
}

/* Not across clusters, unless these are small. */
static void test_clusters(Fixture *f, const void *packed)
{
    Op ops[20];

    fake_blk_set_mapping_unit(f->server->blk, 128 * 1024);
    stream(ops, 20, OUT, 96 * 1024, 8192);
    expect_requests(f, ops, 20, 2);
    fake_blk_set_mapping_unit(f->server->blk, 512);
    expect_requests(f, ops, 20, 3);
}

static void test_buffers(Fixture *f, const void *packed)
{
    Op ops[3] = {
        { OUT, 0, 4096, 1 }, { OUT, 4096, 4096, 8 }, { OUT, 8192, 4096, 8 },
    };
    Op long_first[2] = { { IN, 0, 4096, 8 }, { IN, 4096, 4096, 1 } };

    expect_requests(f, ops, 3, 1);
    /* Its list is where the merged one would be. */
    expect_requests(f, long_first, 2, 2);
    fake_blk_set_max_iov(f->server->blk, 1);
    expect_requests(f, ops, 2, 2);
}

/* Zeroes beside data could not be told from it. */
static void test_detecting_zeroes(Fixture *f, const void *packed)
{
    Op ops[2];

    fake_blk_set_detects_zeroes(f->server->blk, true);
    stream(ops, 2, OUT, 0, 4096);
    expect_requests(f, ops, 2, 2);
    stream(ops, 2, IN, 0, 4096);
    expect_requests(f, ops, 2, 1);
}

/* A request of another kind begins after those before it. */
static void test_flush_between(Fixture *f, const void *packed)
{
    Op ops[3] = { { OUT, 0, 512 },
                  { VIRTIO_BLK_T_FLUSH, 0, 0 },
                  { OUT, 512, 512 } };

    fake_blk_hold(f->server->blk, true);
    start(f, ops, 3);
    fake_blk_wait_held(f->server->blk, 3);
    g_assert_cmpint(fake_blk_held_type(f->server->blk, 0), ==, BDRV_REQ_WRITE);
    g_assert_cmpint(fake_blk_held_type(f->server->blk, 1), ==, BDRV_REQ_FLUSH);
    fake_blk_hold(f->server->blk, false);
    finish(f, 3);
    check_op(f, &ops[0], VIRTIO_BLK_S_OK);
    check_op(f, &ops[2], VIRTIO_BLK_S_OK);
}

static void test_turned_off(Fixture *f, const void *packed)
{
    Op ops[4];

    vufe_close(f->fe);
    fake_server_merges = false;
    fake_server_restart(f->server);
    fake_server_merges = true;
    connect_ring(f, packed);
    stream(ops, 4, OUT, 0, 4096);
    expect_requests(f, ops, 4, 4);
}

/* ---- What goes wrong ---- */

/* A bad place fails those that touch it, first, last or between. */
static void test_one_fails(Fixture *f, const void *packed)
{
    Op ops[4];

    for (int type = IN; type <= OUT; type++) {
        for (int bad = 0; bad < 4; bad++) {
            set_disk(f);
            fake_blk_set_bad(f->server->blk, bad * 4096 + 512, 1);
            stream(ops, 4, type, 0, 4096);
            start(f, ops, 4);
            finish(f, 4);
            for (int i = 0; i < 4; i++) {
                check_op(f, &ops[i], i == bad ? VIRTIO_BLK_S_IOERR
                                              : VIRTIO_BLK_S_OK);
            }
        }
    }
    g_assert_cmpint(fake_server_stat(f->server, "errors"), ==, 8);
}

/* One that is out of range has its own answer, and ends the row. */
static void test_out_of_range(Fixture *f, const void *packed)
{
    Op ops[3];

    set_disk(f);
    stream(ops, 3, IN, FAKE_DISK_SIZE - 1024, 512);
    start(f, ops, 3);
    finish(f, 3);
    check_op(f, &ops[0], VIRTIO_BLK_S_OK);
    check_op(f, &ops[1], VIRTIO_BLK_S_OK);
    g_assert_cmpuint(ops[2].data[512], ==, VIRTIO_BLK_S_IOERR);
}

/* A chain that cannot be answered breaks the ring; those before it are done,
 * and the ring can be stopped. */
static void test_broken_ring(Fixture *f, const void *packed)
{
    const VufeBuf nowhere[] = { { 0xdead0000, 16, false },
                                { 0xdead0000, 1, true } };
    g_autofree uint8_t *disk = g_malloc(8192), *want = g_malloc(8192);
    Op ops[2];

    stream(ops, 2, OUT, 0, 4096);
    fake_blk_drain_begin(f->server->blk);
    add(f, &ops[0]);
    add(f, &ops[1]);
    g_assert_cmpint(vufe_ring_add(&f->fe->rings[0], nowhere, 2, true, f), >=,
                    0);
    vufe_ring_kick(&f->fe->rings[0]);
    fake_blk_drain_end(f->server->blk);
    g_assert_cmpint(vufe_stop_ring(f->fe, 0), ==, 0);
    fill(want, 0, 8192, 1);
    fake_blk_get(f->server->blk, 0, disk, 8192);
    g_assert_cmpmem(disk, 8192, want, 8192);
    vufe_ring_reset(&f->fe->rings[0]);
    f->fe->base[0] = packed ? 0x80008000 : 0;
    g_assert_cmpint(vufe_start_ring(f->fe, 0), ==, 0);
    stream(ops, 2, OUT, 0, 4096);
    expect_requests(f, ops, 2, 1);
}

static void *release(void *opaque)
{
    g_usleep(10 * 1000);
    fake_blk_hold(opaque, false);
    return NULL;
}

/* A ring is stopped when all of a merged request has been answered, also if
 * its parts have to be done again. */
static void test_stop(Fixture *f, const void *packed)
{
    QemuThread thread;
    Op ops[4];

    for (int bad = 0; bad < 2; bad++) {
        set_disk(f);
        fake_blk_set_bad(f->server->blk, 0, bad);
        fake_blk_hold(f->server->blk, true);
        stream(ops, 4, OUT, 0, 4096);
        start(f, ops, 4);
        fake_blk_wait_held(f->server->blk, 1);
        qemu_thread_create(&thread, "release", release, f->server->blk);
        g_assert_cmpint(vufe_stop_ring(f->fe, 0), ==, 0);
        qemu_thread_join(&thread);
        finish(f, 4);
        for (int i = 0; i < 4; i++) {
            check_op(f, &ops[i], bad && i == 0 ? VIRTIO_BLK_S_IOERR
                                               : VIRTIO_BLK_S_OK);
        }
        g_assert_cmpint(vufe_start_ring(f->fe, 0), ==, 0);
    }
}

static void add_test(const char *name,
                     void (*fn)(Fixture *f, const void *packed))
{
    const char *const rings[] = { "split", "packed" };

    for (int i = 0; i < 2; i++) {
        g_autofree char *path = g_strdup_printf("/virtio-blk-merge/%s/%s",
                                                rings[i], name);

        g_test_add(path, Fixture, i ? rings[i] : NULL, fixture_setup, fn,
                   fixture_teardown);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_test("streams", test_streams);
    add_test("not-neighbours", test_not_neighbours);
    add_test("several-streams", test_several);
    add_test("bytes-are-bounded", test_bytes);
    add_test("clusters-are-kept-apart", test_clusters);
    add_test("buffers-are-bounded", test_buffers);
    add_test("detecting-zeroes", test_detecting_zeroes);
    add_test("flush-keeps-its-place", test_flush_between);
    add_test("turned-off", test_turned_off);
    add_test("one-fails", test_one_fails);
    add_test("out-of-range", test_out_of_range);
    add_test("broken-ring", test_broken_ring);
    add_test("stop-waits-for-all", test_stop);
    return g_test_run();
}
