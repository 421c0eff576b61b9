/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-blk: random requests, many of which follow each other, on two rings.
 *
 * Each batch has requests that do not depend on each other, cut into buffers at
 * random, of which some lie side by side; a place on the disk that fails what
 * touches it; and limits that the device is told.  Meanwhile a thread drains
 * the disk and holds requests back, and the rings are stopped and the front
 * end hangs up, at any time.
 *
 * Merged or not, each request must have the status that it would have had
 * alone, and the disk, what was read and the memory round it be as in a model.
 */
#include "qemu/osdep.h"
#include "fake-server.h"
#include "qemu/atomic.h"
#include <linux/virtio_blk.h>
#include <sys/socket.h>

#define WAIT_MS 20000
#define BATCHES (QEMU_TSAN ? 20 : 100)
#define RINGS 2
#define RING_SIZE 64
#define MAX_OPS 60
#define MAX_PIECES 9
#define SECTOR 512
#define SECTORS (FAKE_DISK_SIZE / SECTOR)
#define CANARY 0xca

typedef struct Piece {
    uint64_t gpa;
    uint32_t len;
} Piece;

typedef struct Op {
    unsigned ring;
    uint32_t type;
    int64_t offset;
    uint32_t bytes;
    Piece pieces[MAX_PIECES];
    unsigned n;
    bool joined;                    /* the status is next to the data */
    uint64_t status;
    uint8_t want;
    uint32_t written;               /* says the used ring */
    bool used;
} Op;

enum { UNTOUCHED, READ, WRITTEN };

typedef struct Stress {
    FakeServer *server;
    VufeFrontend *fe;
    uint8_t *disk;                  /* as it is to be */
    uint8_t touched[SECTORS];       /* in this batch */
    int64_t bad_offset, bad_bytes;
    Op ops[MAX_OPS];
    unsigned n_ops;
    int64_t next;                   /* where the last one ended … */
    uint32_t type;                  /* … what it was … */
    unsigned ring;                  /* … and where */
    uint64_t total, done;           /* requests, of all batches */
    bool stopping;                  /* atomic */
} Stress;

static int dice(int sides)
{
    return g_test_rand_int_range(0, sides);
}

/* ---- What is asked for ---- */

static bool is_rw(const Op *op)
{
    return op->type == VIRTIO_BLK_T_IN || op->type == VIRTIO_BLK_T_OUT;
}

/* Requests of one batch may end in any order: none may see that. */
static bool touch(Stress *s, const Op *op)
{
    bool writes = op->type == VIRTIO_BLK_T_OUT;
    int64_t first = op->offset / SECTOR;
    int64_t end = MIN(first + op->bytes / SECTOR, SECTORS);

    for (int64_t i = first; i < end; i++) {
        if (s->touched[i] == WRITTEN || (writes && s->touched[i])) {
            return false;
        }
    }
    for (int64_t i = first; i < end; i++) {
        s->touched[i] = writes ? WRITTEN : READ;
    }
    return true;
}

static void choose_place(Stress *s, Op *op)
{
    do {
        if (dice(10) == 0) {
            s->next = (int64_t)dice(SECTORS) * SECTOR;
        }
        if (dice(12) == 0) {
            s->type = dice(2) ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
        }
        op->type = s->type;
        op->offset = s->next;
        op->bytes = (1 + dice(dice(6) ? 16 : 160)) * SECTOR;
        s->next += op->bytes;
    } while (!touch(s, op));
}

static void choose_op(Stress *s, Op *op)
{
    s->ring = dice(16) ? s->ring : dice(RINGS);
    *op = (Op) { .ring = s->ring, .want = VIRTIO_BLK_S_OK };
    switch (dice(25)) {
    case 0:
        op->type = VIRTIO_BLK_T_FLUSH;
        break;
    case 1:
        op->type = 77;
        op->want = VIRTIO_BLK_S_UNSUPP;
        break;
    default:
        choose_place(s, op);
    }
}

/* What the request is to come to, alone. */
static void foretell(Stress *s, Op *op)
{
    if (is_rw(op) &&
        (op->offset + op->bytes > FAKE_DISK_SIZE ||
         (op->offset < s->bad_offset + s->bad_bytes &&
          s->bad_offset < op->offset + op->bytes))) {
        op->want = VIRTIO_BLK_S_IOERR;
    }
}

static void choose_batch(Stress *s)
{
    const Op *victim;

    memset(s->touched, UNTOUCHED, sizeof(s->touched));
    s->n_ops = 1 + dice(MAX_OPS);
    for (unsigned i = 0; i < s->n_ops; i++) {
        choose_op(s, &s->ops[i]);
    }
    victim = &s->ops[dice(s->n_ops)];
    s->bad_offset = victim->offset + dice(victim->bytes + 1);
    s->bad_bytes = dice(2) ? 0 : 1 + dice(dice(2) ? 1 : 64 * 1024);
    for (unsigned i = 0; i < s->n_ops; i++) {
        foretell(s, &s->ops[i]);
    }
}

static void choose_limits(Stress *s)
{
    static const int64_t transfers[] = { 0, 0, 8 * KiB, 64 * KiB };
    static const int64_t units[] = { 0, 512, 64 * KiB, 1 * MiB };
    static const int iovs[] = { IOV_MAX, IOV_MAX, 1, 7 };
    BlockBackend *blk = s->server->blk;

    fake_blk_set_bad(blk, s->bad_offset, s->bad_bytes);
    fake_blk_set_max_transfer(blk, transfers[dice(4)]);
    fake_blk_set_mapping_unit(blk, units[dice(4)]);
    fake_blk_set_max_iov(blk, iovs[dice(4)]);
    fake_blk_set_detects_zeroes(blk, dice(8) == 0);
}

/*
 * ---- Its buffers ----
 *
 * A region for the data of each ring and one for all else, as a sanitizer knows
 * nothing of an order that is due to memory which is mapped twice.
 */
enum { DATA, ELSE, REGIONS_PER_RING };

static void *host(Stress *s, uint64_t gpa, uint64_t len)
{
    return vufe_mem_ptr(&s->fe->mem, gpa, len);
}

static VufeRegion *region(Stress *s, unsigned ring, unsigned what)
{
    return &s->fe->mem.regions[ring * REGIONS_PER_RING + what];
}

static uint64_t place(Stress *s, const Op *op, unsigned what, uint64_t len)
{
    uint64_t gpa = vufe_mem_alloc(&s->fe->mem,
                                  op->ring * REGIONS_PER_RING + what, len, 1);

    g_assert_cmpuint(gpa, !=, VUFE_GPA_NONE);
    memset(host(s, gpa, len), CANARY, len);
    return gpa;
}

/* Some pieces are neighbours, also of those of the next request. */
static void place_data(Stress *s, Op *op)
{
    unsigned max = dice(3) ? 1 : MAX_PIECES;
    uint32_t left = op->bytes;

    while (left) {
        uint32_t len = op->n + 1 == max || dice(3) == 0 ? left :
                       1 + dice(left);

        if (dice(3) == 0) {
            place(s, op, DATA, 1 + dice(20));
        }
        op->joined = op->type == VIRTIO_BLK_T_IN && len == left &&
                     dice(3) == 0;
        op->pieces[op->n++] = (Piece) {
            place(s, op, DATA, len + op->joined), len,
        };
        left -= len;
    }
}

static void fill_data(Stress *s, const Op *op)
{
    for (unsigned i = 0; i < op->n; i++) {
        uint8_t *p = host(s, op->pieces[i].gpa, op->pieces[i].len);

        unsigned seed = dice(256);

        for (uint32_t k = 0; k < op->pieces[i].len; k++) {
            p[k] = seed ? seed + k * 7 + k / SECTOR : 0;
        }
    }
}

static unsigned add_header(Stress *s, const Op *op, VufeBuf *bufs)
{
    struct virtio_blk_outhdr hdr = {
        .type = GUINT32_TO_LE(op->type),
        .sector = GUINT64_TO_LE(op->offset / SECTOR),
    };
    uint64_t gpa = place(s, op, ELSE, sizeof(hdr));
    unsigned cut = dice(4) ? sizeof(hdr) : 1 + dice(sizeof(hdr) - 1);

    memcpy(host(s, gpa, sizeof(hdr)), &hdr, sizeof(hdr));
    bufs[0] = (VufeBuf) { gpa, cut, false };
    bufs[1] = (VufeBuf) { gpa + cut, sizeof(hdr) - cut, false };
    return cut < sizeof(hdr) ? 2 : 1;
}

static unsigned add_status(Stress *s, Op *op, VufeBuf *bufs, unsigned n)
{
    if (op->joined) {
        bufs[n - 1].len++;
        op->status = bufs[n - 1].gpa + bufs[n - 1].len - 1;
        return n;
    }
    op->status = place(s, op, ELSE, 1);
    bufs[n] = (VufeBuf) { op->status, 1, true };
    return n + 1;
}

static int add(Stress *s, Op *op)
{
    VufeBuf bufs[MAX_PIECES + 3];
    unsigned n = add_header(s, op, bufs);

    for (unsigned i = 0; i < op->n; i++) {
        bufs[n++] = (VufeBuf) { op->pieces[i].gpa, op->pieces[i].len,
                                op->type == VIRTIO_BLK_T_IN };
    }
    n = add_status(s, op, bufs, n);
    return vufe_ring_add(&s->fe->rings[op->ring], bufs, n, dice(4), op);
}

/* ---- What came of it ---- */

static void reap(Stress *s)
{
    uint32_t len;
    void *token;

    for (unsigned i = 0; i < RINGS; i++) {
        while (vufe_ring_get_used(&s->fe->rings[i], &token, &len) == 1) {
            Op *op = token;

            g_assert_false(op->used);
            op->used = true;
            op->written = len;
            s->done++;
        }
    }
}

/* The ring that has the first request that is not done: it must go on. */
static void wait_one(Stress *s)
{
    unsigned i = 0;

    while (s->fe->rings[i].num_free == RING_SIZE) {
        i++;
    }
    g_assert_cmpuint(i, <, RINGS);
    g_assert_cmpint(vufe_ring_wait(&s->fe->rings[i], WAIT_MS), ==, 0);
    reap(s);
}

static void check_data(Stress *s, const Op *op)
{
    const uint8_t *want = s->disk + op->offset;

    for (unsigned i = 0; i < op->n; i++) {
        const Piece *p = &op->pieces[i];

        g_assert_cmpmem(host(s, p->gpa, p->len), p->len, want, p->len);
        want += p->len;
    }
}

static void write_model(Stress *s, const Op *op)
{
    uint8_t *to = s->disk + op->offset;

    for (unsigned i = 0; i < op->n; i++) {
        const Piece *p = &op->pieces[i];

        memcpy(to, host(s, p->gpa, p->len), p->len);
        to += p->len;
    }
}

static void check_op(Stress *s, const Op *op)
{
    bool done = op->want == VIRTIO_BLK_S_OK;
    uint8_t status = *(uint8_t *)host(s, op->status, 1);

    g_assert_true(op->used);
    g_assert_cmpuint(status, ==, op->want);
    if (op->type == VIRTIO_BLK_T_IN && done) {
        g_assert_cmpuint(op->written, ==, op->bytes + 1);
        check_data(s, op);
    } else {
        g_assert_cmpuint(op->written, ==, 1);
    }
    if (op->type == VIRTIO_BLK_T_OUT && done) {
        write_model(s, op);
    }
}

/* What lies between the pieces nobody may have written. */
static void check_gaps(Stress *s, unsigned ring, uint64_t start)
{
    const VufeRegion *r = region(s, ring, DATA);
    g_autofree uint8_t *mine = g_malloc0(r->used + 1);

    for (unsigned i = 0; i < s->n_ops; i++) {
        const Op *op = &s->ops[i];

        for (unsigned k = 0; op->ring == ring && k < op->n; k++) {
            bool status = op->joined && k + 1 == op->n;

            memset(mine + op->pieces[k].gpa - r->gpa, 1,
                   op->pieces[k].len + status);
        }
    }
    for (uint64_t i = start; i < r->used; i++) {
        g_assert_true(mine[i] || r->host[i] == CANARY);
    }
}

static void check_disk(Stress *s)
{
    g_autofree uint8_t *disk = g_malloc(FAKE_DISK_SIZE);

    fake_blk_get(s->server->blk, 0, disk, FAKE_DISK_SIZE);
    g_assert_cmpmem(disk, FAKE_DISK_SIZE, s->disk, FAKE_DISK_SIZE);
}

/* ---- What happens meanwhile ---- */

static void *meddle(void *opaque)
{
    Stress *s = opaque;
    BlockBackend *blk = s->server->blk;

    while (!qatomic_read(&s->stopping)) {
        fake_blk_hold(blk, true);
        fake_blk_drain_begin(blk);
        fake_blk_drain_end(blk);
        fake_blk_hold(blk, false);
        fake_blk_drain_begin(blk);
        fake_blk_drain_end(blk);
        g_usleep(100);      /* or the rings would hardly run */
    }
    return NULL;
}

/* The next one is served when all of this one's requests are done; then the
 * used index says how far it came. */
static void hang_up(Stress *s)
{
    shutdown(s->fe->conn.fd, SHUT_RDWR);
    vufe_close(fake_server_connect(s->server, NULL));
    g_assert_cmpint(vufe_reconnect(s->fe), ==, 0);
}

static void disturb(Stress *s)
{
    unsigned ring = dice(RINGS);

    switch (dice(100)) {
    case 0:
    case 1:
        g_assert_cmpint(vufe_stop_ring(s->fe, ring), ==, 0);
        g_assert_cmpint(vufe_start_ring(s->fe, ring), ==, 0);
        break;
    case 2:
        hang_up(s);
        break;
    }
}

/* ---- A batch ---- */

static void kick_all(Stress *s)
{
    for (unsigned i = 0; i < RINGS; i++) {
        vufe_ring_kick(&s->fe->rings[i]);
    }
}

static void submit(Stress *s)
{
    for (unsigned i = 0; i < s->n_ops; i++) {
        while (add(s, &s->ops[i]) == -ENOSPC) {
            kick_all(s);
            wait_one(s);
        }
        s->total++;
        if (dice(20) == 0) {
            kick_all(s);
            disturb(s);
            reap(s);
        }
    }
    kick_all(s);
}

static void batch(Stress *s)
{
    VufeMem before = s->fe->mem;

    choose_batch(s);
    choose_limits(s);
    for (unsigned i = 0; i < s->n_ops; i++) {
        place_data(s, &s->ops[i]);
        if (s->ops[i].type == VIRTIO_BLK_T_OUT) {
            fill_data(s, &s->ops[i]);
        }
    }
    submit(s);
    while (s->done < s->total) {
        wait_one(s);
    }
    for (unsigned i = 0; i < s->n_ops; i++) {
        check_op(s, &s->ops[i]);
    }
    check_disk(s);
    for (unsigned i = 0; i < RINGS * REGIONS_PER_RING; i++) {
        if (i % REGIONS_PER_RING == DATA) {
            check_gaps(s, i / REGIONS_PER_RING, before.regions[i].used);
        }
        s->fe->mem.regions[i].used = before.regions[i].used;
    }
}

static void test_stress(const void *arg)
{
    int how = GPOINTER_TO_INT(arg);
    VufeOptions opts = {
        .num_queues = RINGS, .queue_size = RING_SIZE,
        .num_regions = RINGS * REGIONS_PER_RING,
        .packed = how & 1, .inflight = how & 2, .indirect = true,
        .event_idx = true,
    };
    g_autofree Stress *s = g_new0(Stress, 1);
    QemuThread meddler;

    s->server = fake_server_new(true, SECTOR);
    s->fe = fake_server_connect(s->server, &opts);
    s->disk = g_malloc0(FAKE_DISK_SIZE);
    g_assert_cmpint(qemu_thread_create(&meddler, "meddler", meddle, s), ==, 0);
    for (int i = 0; i < BATCHES; i++) {
        batch(s);
    }
    qatomic_set(&s->stopping, true);
    qemu_thread_join(&meddler);
    g_assert_cmpint(fake_server_stat(s->server, "requests"), ==, s->total);
    g_assert_cmpint(fake_server_stat(s->server, "errors"), >, BATCHES / 10);
    g_assert_cmpint(fake_server_stat(s->server, "merged"), >, BATCHES);
    vufe_close(s->fe);
    fake_server_free(s->server);
    g_free(s->disk);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {
        "split", "packed", "split-inflight", "packed-inflight",
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path =
            g_strdup_printf("/virtio-blk-merge-stress/%s", names[i]);

        g_test_add_data_func(path, GINT_TO_POINTER(i), test_stress);
    }
    return g_test_run();
}
