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
    return g_test_run();
}

