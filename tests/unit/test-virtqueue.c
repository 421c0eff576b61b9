/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Virtqueues: an honest driver and a hostile one (tests/lib/vufe-ring), in the
 * same process and thread as the device's side.
 *
 * Each test runs with the split and with the packed ring, where that makes
 * sense; the test's argument says which.
 */
#include "qemu/osdep.h"
#include "hw/virtio/virtqueue.h"
#include "vufe-ring.h"
#include <linux/virtio_config.h>

#define SIZE 8
#define MEM_SIZE (4 * MiB)

typedef struct Fixture {
    VufeMem mem;
    VufeRing ring;
    GuestMemory *guest;
    VirtQueue vq;
    EventNotifier call, err;
    struct iovec big[VIRTQUEUE_MIN_CHAIN];
    uint64_t data;              /* guest address of some memory */
} Fixture;

/* What the test's argument may say. */
enum { SPLIT = 0, PACKED = 1, NO_EVENT_IDX = 2, TOUCHING = 4 };

static VirtQueueConfig make_config(Fixture *f)
{
    bool packed = f->ring.ops == &vufe_packed_ops;
    const VufeRegion *r = &f->mem.regions[0];
    VirtQueueConfig config = {
        .mem = f->guest,
        .features = 1ULL << VIRTIO_F_VERSION_1 |
                    1ULL << VIRTIO_RING_F_INDIRECT_DESC |
                    (uint64_t)f->ring.has_event_idx << VIRTIO_RING_F_EVENT_IDX |
                    (uint64_t)packed << VIRTIO_F_RING_PACKED,
        .num = f->ring.size,
        .base = packed ? 0x80008000 : 0,
        .addr = {
            .desc = f->ring.desc_gpa - r->gpa + (uintptr_t)r->host,
            .avail = f->ring.driver_gpa - r->gpa + (uintptr_t)r->host,
            .used = f->ring.device_gpa - r->gpa + (uintptr_t)r->host,
        },
    };

    return config;
}

static void start(Fixture *f)
{
    VirtQueueConfig config = make_config(f);

    g_assert_true(virtqueue_setup(&f->vq, &config, &error_abort));
}

static void fixture_setup(Fixture *f, const void *arg)
{
    int how = GPOINTER_TO_INT(arg);
    bool two = how & TOUCHING;

    g_assert_cmpint(vufe_mem_init(&f->mem, two ? 2 : 1, MEM_SIZE, 0, 0), ==,
                    0);
    g_assert_cmpint(vufe_ring_init(&f->ring, &f->mem, 0, 0, SIZE,
                                   how & PACKED, true,
                                   !(how & NO_EVENT_IDX)), ==, 0);
    for (unsigned i = 0; i < f->mem.num; i++) {
        VufeRegion *r = &f->mem.regions[i];
        GuestRegionInfo info = { r->gpa, r->size, (uintptr_t)r->host,
                                 r->mmap_offset };
        GuestMemory *old = f->guest;

        f->guest = guest_memory_add(old, &info, r->fd, &error_abort);
        guest_memory_free(old);
    }
    g_assert_cmpint(event_notifier_init(&f->call, false), ==, 0);
    g_assert_cmpint(event_notifier_init(&f->err, false), ==, 0);
    f->vq.name = "test";
    f->vq.call = &f->call;
    f->vq.err = &f->err;
    f->data = vufe_mem_alloc(&f->mem, 0, 64 * KiB, 4096);
    start(f);
}

static void fixture_teardown(Fixture *f, const void *arg)
{
    if (f->vq.started) {
        virtqueue_teardown(&f->vq);
    }
    event_notifier_cleanup(&f->call);
    event_notifier_cleanup(&f->err);
    guest_memory_free(f->guest);
    vufe_ring_destroy(&f->ring);
    vufe_mem_destroy(&f->mem);
}

static VirtQueueElement *new_elem(Fixture *f)
{
    VirtQueueElement *elem = g_new0(VirtQueueElement, 1);

    elem->big = f->big;
    return elem;
}

/* Make a chain of @out readable and @in writable buffers of 512 bytes. */
static void add_chain(Fixture *f, unsigned out, unsigned in, bool indirect,
                      intptr_t token)
{
    VufeBuf bufs[VUFE_INDIRECT_MAX];

    for (unsigned i = 0; i < out + in; i++) {
        bufs[i] = (VufeBuf) { f->data + i * 512, 512, i >= out };
    }
    g_assert_cmpint(vufe_ring_add(&f->ring, bufs, out + in, indirect,
                                  (void *)token), >=, 0);
}

static void expect_used(Fixture *f, intptr_t token, uint32_t len)
{
    void *got_token;
    uint32_t got_len;

    g_assert_cmpint(vufe_ring_get_used(&f->ring, &got_token, &got_len), ==, 1);
    g_assert_cmpint((intptr_t)got_token, ==, token);
    g_assert_cmpuint(got_len, ==, len);
}

static void expect_broken(Fixture *f)
{
    g_autofree VirtQueueElement *elem = new_elem(f);

    g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, -EIO);
    g_assert_true(virtqueue_is_broken(&f->vq));
    g_assert_true(event_notifier_test_and_clear(&f->err));
    g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, -EIO);
    g_assert_false(virtqueue_has_work(&f->vq));
    g_assert_false(event_notifier_test_and_clear(&f->err));
}

/* ---- Honest ---- */

/* Many laps, chains of all lengths, given back out of order. */
static void test_laps(Fixture *f, const void *arg)
{
    for (intptr_t lap = 1; lap < 3000; lap++) {
        bool indirect = lap % 3 == 0;
        unsigned out = 1 + lap % 3, in = 1 + lap % 2;
        g_autofree VirtQueueElement *a = new_elem(f);
        g_autofree VirtQueueElement *b = new_elem(f);

        add_chain(f, out, in, indirect, 2 * lap);
        add_chain(f, 1, 1, true, 2 * lap + 1);
        g_assert_false(virtqueue_has_work(&f->vq));
        vufe_ring_publish(&f->ring);
        g_assert_true(virtqueue_has_work(&f->vq));
        g_assert_cmpint(virtqueue_pop(&f->vq, a), ==, 1);
        g_assert_cmpint(virtqueue_pop(&f->vq, b), ==, 1);
        g_assert_cmpuint(a->out_num, ==, out);
        g_assert_cmpuint(a->in_num, ==, in);
        g_assert_cmpuint(a->in_bytes, ==, in * 512);
        g_assert_true(a->iov[0].iov_base !=
                      vufe_mem_ptr(&f->mem, f->data, 512));
        g_assert_cmpuint(a->iov[out].iov_len, ==, 512);
        virtqueue_push(&f->vq, b, 11);
        virtqueue_push(&f->vq, a, 22);
        g_assert_false(vufe_ring_has_used(&f->ring));
        virtqueue_flush(&f->vq);
        expect_used(f, 2 * lap + 1, 11);
        expect_used(f, 2 * lap, 22);
        g_assert_false(vufe_ring_has_used(&f->ring));
    }
}

/* All in flight at once; the same memory both sides. */
static void test_full(Fixture *f, const void *arg)
{
    VirtQueueElement *elems[SIZE];
    g_autofree VirtQueueElement *more = new_elem(f);

    for (int i = 0; i < SIZE; i++) {
        elems[i] = new_elem(f);
        add_chain(f, 0, 1, false, i + 1);
    }
    vufe_ring_publish(&f->ring);
    for (int i = 0; i < SIZE; i++) {
        g_assert_cmpint(virtqueue_pop(&f->vq, elems[i]), ==, 1);
    }
    g_assert_cmpint(virtqueue_pop(&f->vq, more), ==, 0);
    g_assert_false(virtqueue_has_work(&f->vq));
    for (int i = SIZE; i-- > 0; ) {
        memset(elems[i]->iov[0].iov_base, i, 512);
        virtqueue_push(&f->vq, elems[i], 512);
    }
    virtqueue_flush(&f->vq);
    for (int i = SIZE; i-- > 0; ) {
        expect_used(f, i + 1, 512);
        g_free(elems[i]);
    }
    g_assert_cmpint(*(char *)vufe_mem_ptr(&f->mem, f->data, 1), ==, 0);
}

/* The longest chain that Linux makes on a short queue. */
static void test_long_indirect(Fixture *f, const void *arg)
{
    g_autofree VirtQueueElement *elem = new_elem(f);

    add_chain(f, 1, 127, true, 1);
    vufe_ring_publish(&f->ring);
    g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 1);
    g_assert_cmpuint(elem->in_num, ==, 127);
    g_assert_true(elem->iov == f->big);
    g_assert_cmpuint(elem->in_bytes, ==, 127 * 512);
    g_assert_true((char *)elem->iov[127].iov_base ==
                  (char *)elem->iov[0].iov_base + 127 * 512);
}

static void test_two_regions(Fixture *f, const void *arg)
{
    uint64_t border = f->mem.regions[1].gpa;
    VufeBuf crossing = { border - 100, 300, true };
    VufeBuf past = { f->mem.regions[1].gpa + MEM_SIZE - 1, 2, true };
    g_autofree VirtQueueElement *elem = new_elem(f);

    g_assert_cmpint(vufe_ring_add(&f->ring, &crossing, 1, false, f), >=, 0);
    vufe_ring_publish(&f->ring);
    g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 1);
    g_assert_cmpuint(elem->in_num, ==, 2);
    g_assert_cmpuint(elem->iov[0].iov_len, ==, 100);
    g_assert_cmpuint(elem->iov[1].iov_len, ==, 200);
    g_assert_cmpuint(elem->in_bytes, ==, 300);
    *(char *)elem->iov[1].iov_base = 42;
    g_assert_cmpint(*(char *)f->mem.regions[1].host, ==, 42);

    g_assert_cmpint(vufe_ring_add(&f->ring, &past, 1, false, f), >=, 0);
    vufe_ring_publish(&f->ring);
    expect_broken(f);
}

/* Kicks and interrupts: both only when they were asked for. */
static void test_notification(Fixture *f, const void *arg)
{
    g_autofree VirtQueueElement *elem = new_elem(f);

    for (intptr_t lap = 1; lap < 200; lap++) {
        bool quiet = lap % 2;

        vufe_ring_set_call(&f->ring, !quiet);
        g_assert_false(virtqueue_enable_notification(&f->vq));
        add_chain(f, 1, 1, false, lap);
        g_assert_true(vufe_ring_kick(&f->ring));
        virtqueue_disable_notification(&f->vq);
        g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 1);
        virtqueue_push(&f->vq, elem, 0);
        if (!quiet) {
            g_assert_true(virtqueue_flush(&f->vq));
        } else if (!f->ring.has_event_idx || f->vq.packed) {
            g_assert_false(virtqueue_flush(&f->vq));
        } else {
            virtqueue_flush(&f->vq);    /* a hint only, says the library */
        }
        expect_used(f, lap, 0);

        add_chain(f, 1, 1, false, lap);
        g_assert_false(vufe_ring_kick(&f->ring));
        /* Not kicked, so asking for kicks has to say that it is there. */
        g_assert_true(virtqueue_enable_notification(&f->vq));
        g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 1);
        virtqueue_push(&f->vq, elem, 0);
        virtqueue_flush(&f->vq);
        expect_used(f, lap, 0);
    }
}

static void test_stop_and_go_on(Fixture *f, const void *arg)
{
    VirtQueueConfig config = make_config(f);
    g_autofree VirtQueueElement *elem = new_elem(f);

    for (intptr_t lap = 1; lap < 100; lap++) {
        add_chain(f, 1, lap % 4, false, lap);
        vufe_ring_publish(&f->ring);
        g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 1);
        virtqueue_push(&f->vq, elem, 0);
        virtqueue_flush(&f->vq);
        expect_used(f, lap, 0);
        config.base = virtqueue_teardown(&f->vq);
        g_assert_true(virtqueue_is_idle(&f->vq));
        g_assert_cmpuint(config.base, ==, vufe_ring_device_base(&f->ring));
        g_assert_true(virtqueue_setup(&f->vq, &config, &error_abort));
    }
}

/* ---- Setting up ---- */

static void test_setup_refused(Fixture *f, const void *arg)
{
    VirtQueueConfig good = make_config(f), config;

    virtqueue_teardown(&f->vq);
#define REFUSED(field, value)                                               \
    config = good;                                                          \
    config.field = value;                                                   \
    g_assert_false(virtqueue_setup(&f->vq, &config, NULL));                 \
    g_assert_false(f->vq.started)
    REFUSED(num, 0);
    REFUSED(num, VIRTQUEUE_MAX_SIZE + 1);
    REFUSED(mem, NULL);
    REFUSED(addr.desc, 0x10);
    REFUSED(addr.desc, good.addr.desc + 1);
    REFUSED(addr.avail, UINT64_MAX - 1);
    REFUSED(addr.used, 0);
    REFUSED(addr.used, (uintptr_t)f->mem.regions[0].host + MEM_SIZE - 4 + 4);
    REFUSED(base, GPOINTER_TO_INT(arg) & PACKED ? SIZE : 0x10000);
    if (!(GPOINTER_TO_INT(arg) & PACKED)) {
        REFUSED(num, 7);
    }
    g_assert_true(virtqueue_setup(&f->vq, &good, &error_abort));
}

/* ---- Hostile, both rings ---- */

static void bad_buffer(Fixture *f, uint64_t gpa, uint32_t len, bool in)
{
    VufeBuf bufs[] = { { f->data, 16, false }, { gpa, len, in } };

    g_assert_cmpint(vufe_ring_add(&f->ring, bufs, 2, false, f), >=, 0);
    vufe_ring_publish(&f->ring);
    expect_broken(f);
}

static void test_zero_length(Fixture *f, const void *arg)
{
    bad_buffer(f, f->data, 0, true);
}

static void test_outside(Fixture *f, const void *arg)
{
    bad_buffer(f, 0x10, 16, true);
}

static void test_past_end(Fixture *f, const void *arg)
{
    bad_buffer(f, f->mem.regions[0].gpa + MEM_SIZE - 511, 512, true);
}

static void test_wraps(Fixture *f, const void *arg)
{
    bad_buffer(f, UINT64_MAX - 100, 0xffffffff, false);
}

static void test_out_after_in(Fixture *f, const void *arg)
{
    add_chain(f, 2, 2, false, 1);
    if (f->vq.packed) {
        f->ring.packed.desc[1].flags |= VRING_DESC_F_WRITE;
        f->ring.packed.desc[2].flags &= ~VRING_DESC_F_WRITE;
    } else {
        uint16_t head = f->ring.split.avail->ring[0];
        uint16_t second = f->ring.split.desc[head].next;
        uint16_t third = f->ring.split.desc[second].next;

        f->ring.split.desc[second].flags |= VRING_DESC_F_WRITE;
        f->ring.split.desc[third].flags &= ~VRING_DESC_F_WRITE;
    }
    vufe_ring_publish(&f->ring);
    expect_broken(f);
}

/* Make the one descriptor that was added an indirect one of @len bytes. */
static void test_indirect_in_indirect(Fixture *f, const void *arg)
{
    add_chain(f, 1, 1, true, 1);
    if (f->vq.packed) {
        struct vring_packed_desc *table =
            vufe_mem_ptr(&f->mem, f->ring.packed.desc[0].addr, 32);

        table[1].flags |= VRING_DESC_F_INDIRECT;
    } else {
        uint16_t head = f->ring.split.avail->ring[0];
        struct vring_desc *table =
            vufe_mem_ptr(&f->mem, f->ring.split.desc[head].addr, 32);

        table[1].flags |= VRING_DESC_F_INDIRECT;
    }
    vufe_ring_publish(&f->ring);
    expect_broken(f);
}

static void bad_table(Fixture *f, uint64_t addr, uint32_t len)
{
    add_chain(f, 1, 1, true, 1);
    if (f->vq.packed) {
        f->ring.packed.desc[0].addr = addr;
        f->ring.packed.desc[0].len = len;
    } else {
        uint16_t head = f->ring.split.avail->ring[0];

        f->ring.split.desc[head].addr = addr;
        f->ring.split.desc[head].len = len;
    }
    vufe_ring_publish(&f->ring);
    expect_broken(f);
}

static void test_table_outside(Fixture *f, const void *arg)
{
    bad_table(f, 0x1000, 32);
}

static void test_table_odd_length(Fixture *f, const void *arg)
{
    bad_table(f, f->data, 33);
}

static void test_table_empty(Fixture *f, const void *arg)
{
    bad_table(f, f->data, 0);
}

static void test_table_huge(Fixture *f, const void *arg)
{
    bad_table(f, f->data, 0x100000);
}

/* A file that shrinks breaks the queue, and nothing is published after. */
static void test_truncated(Fixture *f, const void *arg)
{
    g_autofree VirtQueueElement *elem = new_elem(f);
    uint64_t end = f->mem.regions[0].gpa + MEM_SIZE - 4096;
    VufeBuf buf = { end, 512, true };

    g_assert_cmpint(vufe_ring_add(&f->ring, &buf, 1, false, f), >=, 0);
    vufe_ring_publish(&f->ring);
    g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 1);
    g_assert_cmpint(ftruncate(f->mem.regions[0].fd, MEM_SIZE - 4096), ==, 0);
    *(volatile char *)elem->iov[0].iov_base = 1;
    virtqueue_push(&f->vq, elem, 1);
    g_assert_false(virtqueue_flush(&f->vq));
    g_assert_true(virtqueue_is_broken(&f->vq));
    g_assert_false(vufe_ring_has_used(&f->ring));
}

/* The ring changes after a pop: what was popped does not. */
static void test_fetched_once(Fixture *f, const void *arg)
{
    g_autofree VirtQueueElement *elem = new_elem(f);
    void *first;

    add_chain(f, 1, 1, false, 5);
    vufe_ring_publish(&f->ring);
    g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 1);
    first = elem->iov[1].iov_base;
    if (f->vq.packed) {
        memset(&f->ring.packed.desc[0], 0xff, 2 * 16);
    } else {
        memset(f->ring.split.desc, 0xff, SIZE * 16);
        memset(f->ring.split.avail->ring, 0xff, SIZE * 2);
    }
    g_assert_true(elem->iov[1].iov_base == first);
    g_assert_cmpuint(elem->iov[1].iov_len, ==, 512);
    virtqueue_push(&f->vq, elem, 0);
    virtqueue_flush(&f->vq);
    expect_used(f, 5, 0);
}

/* Make the only chain in the ring available once more. */
static void add_again(Fixture *f, unsigned lap)
{
    if (f->vq.packed) {
        unsigned wrap = lap / SIZE % 2 == 0;

        f->ring.packed.desc[lap % SIZE] = (struct vring_packed_desc) {
            .addr = f->data, .len = 512,
            .flags = VRING_DESC_F_WRITE |
                     (wrap ? 1 << VRING_PACKED_DESC_F_AVAIL
                           : 1 << VRING_PACKED_DESC_F_USED),
        };
    } else {
        f->ring.split.desc[0] = (struct vring_desc) { f->data, 512,
                                                      VRING_DESC_F_WRITE, 0 };
        f->ring.split.avail->ring[lap % SIZE] = 0;
        f->ring.split.avail->idx = lap + 1;
    }
}

/* A driver that takes for used what was pushed, but not published, makes the
 * device have no more than the ring holds, however fast it is. */
static void test_not_waiting_for_used(Fixture *f, const void *arg)
{
    g_autofree VirtQueueElement *elem = new_elem(f);

    for (unsigned i = 0; i < SIZE; i++) {
        add_again(f, i);
        g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 1);
        virtqueue_push(&f->vq, elem, 0);
    }
    add_again(f, SIZE);
    if (f->vq.packed) {
        g_assert_false(virtqueue_has_work(&f->vq));
        g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 0);
        virtqueue_flush(&f->vq);
        add_again(f, SIZE);
        g_assert_cmpint(virtqueue_pop(&f->vq, elem), ==, 1);
    } else {
        expect_broken(f);
    }
}

/* ---- Hostile, split ---- */

static void test_split_loop(Fixture *f, const void *arg)
{
    uint16_t head, second;

    add_chain(f, 1, 1, false, 1);
    head = f->ring.split.avail->ring[0];
    second = f->ring.split.desc[head].next;
    f->ring.split.desc[head].flags |= VRING_DESC_F_WRITE;
    f->ring.split.desc[second].flags |= VRING_DESC_F_NEXT;
    f->ring.split.desc[second].next = head;
    vufe_ring_publish(&f->ring);
    expect_broken(f);
}

static void test_split_next_outside(Fixture *f, const void *arg)
{
    add_chain(f, 1, 1, false, 1);
    f->ring.split.desc[f->ring.split.avail->ring[0]].next = SIZE;
    vufe_ring_publish(&f->ring);
    expect_broken(f);
}

static void test_split_head_outside(Fixture *f, const void *arg)
{
    add_chain(f, 1, 1, false, 1);
    f->ring.split.avail->ring[0] = SIZE;
    vufe_ring_publish(&f->ring);
    expect_broken(f);
}

static void test_split_avail_jump(Fixture *f, const void *arg)
{
    f->ring.split.avail->idx = SIZE + 1;
    expect_broken(f);
}

/* One chain, available over and over, but never used. */
static void test_split_same_head(Fixture *f, const void *arg)
{
    VirtQueueElement *elems[SIZE];

    add_chain(f, 1, 1, false, 1);
    for (int i = 0; i < SIZE; i++) {
        f->ring.split.avail->ring[i] = f->ring.split.avail->ring[0];
        elems[i] = new_elem(f);
    }
    f->ring.split.avail->idx = SIZE;
    for (int i = 0; i < SIZE; i++) {
        g_assert_cmpint(virtqueue_pop(&f->vq, elems[i]), ==, 1);
    }
    f->ring.split.avail->idx = SIZE + 1;
    expect_broken(f);
    for (int i = 0; i < SIZE; i++) {
        g_free(elems[i]);
    }
}

/* ---- Hostile, packed ---- */

static void test_packed_endless_chain(Fixture *f, const void *arg)
{
    for (int i = 0; i < SIZE; i++) {
        f->ring.packed.desc[i] = (struct vring_packed_desc) {
            .addr = f->data, .len = 16,
            .flags = 1 << VRING_PACKED_DESC_F_AVAIL | VRING_DESC_F_NEXT,
        };
    }
    expect_broken(f);
}

static void test_packed_indirect_next(Fixture *f, const void *arg)
{
    add_chain(f, 1, 1, true, 1);
    vufe_ring_publish(&f->ring);
    f->ring.packed.desc[0].flags |= VRING_DESC_F_NEXT;
    expect_broken(f);
}

static void add_test(const char *name, int how,
                     void (*fn)(Fixture *f, const void *arg))
{
    g_autofree char *path = g_strdup_printf("/virtqueue/%s%s/%s",
                                how & PACKED ? "packed" : "split",
                                how & NO_EVENT_IDX ? "-flags" : "", name);

    g_test_add(path, Fixture, GINT_TO_POINTER(how), fixture_setup, fn,
               fixture_teardown);
}

static void add_both(const char *name, void (*fn)(Fixture *f, const void *arg))
{
    add_test(name, SPLIT, fn);
    add_test(name, PACKED, fn);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (int how = 0; how < 4; how++) {
        add_test("run/laps", how, test_laps);
        add_test("notify/only-when-asked", how, test_notification);
    }
    add_both("run/full-ring", test_full);
    add_both("run/long-indirect", test_long_indirect);
    add_both("run/stop-and-go-on", test_stop_and_go_on);
    add_test("run/buffer-in-two-regions", SPLIT | TOUCHING, test_two_regions);
    add_test("run/buffer-in-two-regions", PACKED | TOUCHING,
             test_two_regions);
    add_both("setup/refuses-nonsense", test_setup_refused);
    add_both("hostile/zero-length", test_zero_length);
    add_both("hostile/outside-memory", test_outside);
    add_both("hostile/past-end-of-memory", test_past_end);
    add_both("hostile/address-wraps", test_wraps);
    add_both("hostile/readable-after-writable", test_out_after_in);
    add_both("hostile/indirect-in-indirect", test_indirect_in_indirect);
    add_both("hostile/table-outside-memory", test_table_outside);
    add_both("hostile/table-of-odd-length", test_table_odd_length);
    add_both("hostile/table-empty", test_table_empty);
    add_both("hostile/table-huge", test_table_huge);
    add_both("hostile/fetched-once", test_fetched_once);
    add_both("hostile/truncated-memory", test_truncated);
    add_both("hostile/not-waiting-for-used", test_not_waiting_for_used);
    add_test("hostile/loop", SPLIT, test_split_loop);
    add_test("hostile/next-outside-table", SPLIT, test_split_next_outside);
    add_test("hostile/head-outside-table", SPLIT, test_split_head_outside);
    add_test("hostile/avail-index-jumps", SPLIT, test_split_avail_jump);
    add_test("hostile/same-head-again", SPLIT, test_split_same_head);
    add_test("hostile/endless-chain", PACKED, test_packed_endless_chain);
    add_test("hostile/indirect-with-next", PACKED, test_packed_indirect_next);
    return g_test_run();
}
