/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inflight tracking: a device's side that vanishes between any two steps, and
 * the next one, which has only the ring and the inflight buffer.  Whatever
 * happens, each chain of the driver has to come back exactly once.
 */
#include "qemu/osdep.h"
#include "hw/virtio/vhost-user-inflight.h"
#include "vufe-ring.h"
#include <linux/virtio_config.h>
#include <sys/mman.h>

#define SIZE 16
#define MEM_SIZE (4 * MiB)

typedef struct Fixture {
    bool packed;
    VufeMem mem;
    VufeRing ring;
    GuestMemory *guest;
    uint64_t data;

    int fd;                     /* of the inflight buffer */
    uint8_t *view;              /* the test's own mapping of it */
    uint64_t size;

    /* The device's side, as long as it lives. */
    VirtQueue vq;
    VhostUserInflight *inflight;
    VirtQueueElement *popped[SIZE];
    int n_popped;
    struct iovec big[SIZE][VIRTQUEUE_MIN_CHAIN];
} Fixture;

static void device_start(Fixture *f, uint32_t base)
{
    uintptr_t host = (uintptr_t)f->mem.regions[0].host -
                     f->mem.regions[0].gpa;
    VirtQueueConfig config = {
        .mem = f->guest,
        .features = 1ULL << VIRTIO_F_VERSION_1 |
                    1ULL << VIRTIO_RING_F_INDIRECT_DESC |
                    1ULL << VIRTIO_RING_F_EVENT_IDX |
                    (uint64_t)f->packed << VIRTIO_F_RING_PACKED,
        .num = SIZE,
        .base = base,
        .addr = { host + f->ring.desc_gpa, host + f->ring.driver_gpa,
                  host + f->ring.device_gpa },
    };

    f->inflight = vhost_user_inflight_map(f->fd, 0, f->size, 1, SIZE,
                                          f->packed, &error_abort);
    config.inflight = vhost_user_inflight_queue(f->inflight, 0, f->packed,
                                                SIZE);
    g_assert_nonnull(config.inflight);
    g_assert_true(virtqueue_setup(&f->vq, &config, &error_abort));
    f->n_popped = 0;
}

/* What the process leaves behind is what is in shared memory now. */
static void device_crash(Fixture *f)
{
    for (int i = 0; i < f->n_popped; i++) {
        g_free(f->popped[i]);
    }
    f->n_popped = 0;
    virtqueue_teardown(&f->vq);
    vhost_user_inflight_free(f->inflight);
    memset(&f->vq, 0, sizeof(f->vq));
    f->vq.name = "test";
}

static void device_restart(Fixture *f)
{
    device_crash(f);
    device_start(f, vufe_ring_device_base(&f->ring));
}

static void fixture_setup(Fixture *f, const void *arg)
{
    VhostUserInflight *inflight;
    GuestRegionInfo info = { 0 };

    f->packed = GPOINTER_TO_INT(arg);
    f->vq.name = "test";
    g_assert_cmpint(vufe_mem_init(&f->mem, 1, MEM_SIZE, 0, 0), ==, 0);
    g_assert_cmpint(vufe_ring_init(&f->ring, &f->mem, 0, 0, SIZE, f->packed,
                                   true, true), ==, 0);
    info.gpa = f->mem.regions[0].gpa;
    info.size = f->mem.regions[0].size;
    info.uva = (uintptr_t)f->mem.regions[0].host;
    f->guest = guest_memory_add(NULL, &info, f->mem.regions[0].fd,
                                &error_abort);
    f->data = vufe_mem_alloc(&f->mem, 0, 64 * KiB, 4096);

    inflight = vhost_user_inflight_new(1, SIZE, f->packed, &error_abort);
    f->size = vhost_user_inflight_size(inflight);
    f->fd = vhost_user_inflight_take_fd(inflight);
    vhost_user_inflight_free(inflight);
    f->view = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd,
                   0);
    g_assert(f->view != MAP_FAILED);
    device_start(f, f->packed ? 0x80008000 : 0);
}

static void fixture_teardown(Fixture *f, const void *arg)
{
    device_crash(f);
    munmap(f->view, f->size);
    close(f->fd);
    guest_memory_free(f->guest);
    vufe_ring_destroy(&f->ring);
    vufe_mem_destroy(&f->mem);
}

/* Chain number @token: its length and second buffer tell which it is. */
static bool add(Fixture *f, intptr_t token)
{
    VufeBuf bufs[3] = {
        { f->data, 16, false },
        { f->data + token % 1000, 1 + token % 7, true },
        { f->data, 1, true },
    };
    int ret = vufe_ring_add(&f->ring, bufs, 2 + token % 2, token % 3 == 0,
                            (void *)token);

    vufe_ring_publish(&f->ring);
    g_assert_true(ret >= 0 || ret == -ENOSPC);
    return ret >= 0;
}

static bool pop(Fixture *f)
{
    VirtQueueElement *elem = g_new0(VirtQueueElement, 1);

    elem->big = f->big[f->n_popped];
    if (virtqueue_pop(&f->vq, elem) != 1) {
        g_assert_false(virtqueue_is_broken(&f->vq));
        g_free(elem);
        return false;
    }
    f->popped[f->n_popped++] = elem;
    return true;
}

/* Is the @i-th popped one chain number @token? */
static void expect(Fixture *f, int i, intptr_t token)
{
    VirtQueueElement *elem = f->popped[i];

    g_assert_cmpuint(elem->out_num, ==, 1);
    g_assert_cmpuint(elem->in_num, ==, 1 + token % 2);
    g_assert_cmpuint(elem->iov[1].iov_len, ==, 1 + token % 7);
    g_assert_cmpuint((char *)elem->iov[1].iov_base -
                     (char *)elem->iov[0].iov_base, ==, token % 1000);
}

static void push(Fixture *f, int i)
{
    virtqueue_push(&f->vq, f->popped[i], 1);
    g_free(f->popped[i]);
    f->popped[i] = f->popped[--f->n_popped];
}

static intptr_t take_used(Fixture *f)
{
    void *token;
    uint32_t len;
    int ret = vufe_ring_get_used(&f->ring, &token, &len);

    g_assert_cmpint(ret, >=, 0);
    return ret ? (intptr_t)token : 0;
}

static void add_and_pop(Fixture *f, int n)
{
    for (int i = 0; i < n; i++) {
        g_assert_true(add(f, i + 1));
        g_assert_true(pop(f));
        expect(f, i, i + 1);
    }
}

/* Pop all and give it back; the tokens that come, in order. */
static void finish_all(Fixture *f, const intptr_t *tokens, int n)
{
    while (f->n_popped < n) {
        g_assert_true(pop(f));
    }
    g_assert_false(pop(f));
    for (int i = 0; i < n; i++) {
        expect(f, i, tokens[i]);
    }
    for (int i = 0; i < n; i++) {
        virtqueue_push(&f->vq, f->popped[i], 1);
        g_free(f->popped[i]);
    }
    f->n_popped = 0;
    virtqueue_flush(&f->vq);
    for (int i = 0; i < n; i++) {
        g_assert_cmpint(take_used(f), ==, tokens[i]);
    }
    g_assert_cmpint(take_used(f), ==, 0);
}

/* ---- Crashes at one place ---- */

static void test_after_pop(Fixture *f, const void *arg)
{
    const intptr_t left[] = { 1, 2, 3, 4, 99 };

    add_and_pop(f, 4);
    add(f, 99);
    device_restart(f);
    finish_all(f, left, 5);
}

static void test_some_done(Fixture *f, const void *arg)
{
    const intptr_t left[] = { 1, 3, 99 };

    add_and_pop(f, 4);
    push(f, 3);
    push(f, 1);
    virtqueue_flush(&f->vq);
    add(f, 99);
    device_restart(f);
    g_assert_cmpint(take_used(f), ==, 4);
    g_assert_cmpint(take_used(f), ==, 2);
    finish_all(f, left, 3);
}

/* Pushed, but not published: they are done again. */
static void test_before_flush(Fixture *f, const void *arg)
{
    const intptr_t left[] = { 1, 2, 3, 4 };

    add_and_pop(f, 4);
    push(f, 3);
    push(f, 1);
    push(f, 0);
    device_restart(f);
    g_assert_cmpint(take_used(f), ==, 0);
    finish_all(f, left, 4);
}

/* Flush, and crash when it is published, but not yet noted in the buffer. */
static void crash_inside_flush(Fixture *f)
{
    g_autofree uint8_t *before = g_malloc(f->size);

    memcpy(before, f->view, f->size);
    virtqueue_flush(&f->vq);
    if (f->packed) {
        /* The used index and wrap counter are written first. */
        memcpy(before + 16, f->view + 16, 2);
        memcpy(before + 20, f->view + 20, 1);
    }
    memcpy(f->view, before, f->size);
    device_restart(f);
}

/* What was published is not done again. */
static void test_inside_flush(Fixture *f, const void *arg)
{
    const intptr_t left[] = { 1, 3 };

    add_and_pop(f, 4);
    push(f, 3);
    push(f, 1);
    crash_inside_flush(f);
    g_assert_cmpint(take_used(f), ==, 4);
    g_assert_cmpint(take_used(f), ==, 2);
    finish_all(f, left, 2);
}

/* Nor if it was all of the ring: the used index is then where it was. */
static void test_inside_full_flush(Fixture *f, const void *arg)
{
    const intptr_t left[] = { 1 };
    intptr_t n = 0;

    while (add(f, 3 * (n + 1))) {       /* indirect: one entry each */
        n++;
        g_assert_true(pop(f));
    }
    g_assert_cmpint(n, ==, SIZE);
    for (int i = 0; i < n; i++) {
        virtqueue_push(&f->vq, f->popped[i], 1);
    }
    crash_inside_flush(f);
    for (int i = 0; i < n; i++) {
        g_assert_cmpint(take_used(f), ==, 3 * (i + 1));
    }
    g_assert_true(add(f, 1));
    finish_all(f, left, 1);
}

/* While the first batch of resubmitted ones is under way. */
static void test_twice(Fixture *f, const void *arg)
{
    const intptr_t left[] = { 2, 3, 4 };

    add_and_pop(f, 4);
    device_restart(f);
    g_assert_true(pop(f));
    g_assert_true(pop(f));
    push(f, 0);
    virtqueue_flush(&f->vq);
    device_restart(f);
    g_assert_cmpint(take_used(f), ==, 1);
    finish_all(f, left, 3);
}

/* ---- Crashes anywhere ---- */

static void test_anywhere(Fixture *f, const void *arg)
{
    g_autoptr(GHashTable) open = g_hash_table_new(NULL, NULL);
    intptr_t next = 1, token;
    unsigned crashes = 0, done = 0;

    for (int step = 0; step < 100000; step++) {
        switch (g_test_rand_int_range(0, 12)) {
        case 0: case 1: case 2:
            if (add(f, next)) {
                g_hash_table_add(open, (void *)next);
                next++;
            }
            break;
        case 3: case 4: case 5:
            pop(f);
            break;
        case 6: case 7: case 8:
            if (f->n_popped) {
                push(f, g_test_rand_int_range(0, f->n_popped));
            }
            break;
        case 9:
            virtqueue_flush(&f->vq);
            break;
        case 10:
            while ((token = take_used(f))) {
                g_assert_true(g_hash_table_remove(open, (void *)token));
                done++;
            }
            break;
        default:
            if (g_test_rand_int_range(0, 4) == 0) {
                device_restart(f);
                crashes++;
            }
        }
    }
    do {
        while (f->n_popped) {
            push(f, 0);
        }
        virtqueue_flush(&f->vq);
        while ((token = take_used(f))) {
            g_assert_true(g_hash_table_remove(open, (void *)token));
            done++;
        }
    } while (pop(f));
    g_assert_cmpuint(g_hash_table_size(open), ==, 0);
    g_assert_cmpint(done, ==, next - 1);
    g_assert_cmpuint(crashes, >, 100);
    g_assert_cmpuint(done, >, 1000);
}

/* Stopped cleanly, the next start is from where the front end says. */
static void test_clean(Fixture *f, const void *arg)
{
    const intptr_t one[] = { 1 };
    VirtQueueInflight *q;

    g_assert_true(add(f, 1));
    finish_all(f, one, 1);
    q = vhost_user_inflight_queue(f->inflight, 0, f->packed, SIZE);
    vq_inflight_mark_clean(q);
    device_crash(f);

    vufe_ring_reset(&f->ring);      /* another driver, from the start */
    device_start(f, f->packed ? 0x80008000 : 0);
    g_assert_true(add(f, 1));
    finish_all(f, one, 1);
}

static void add_test(const char *name,
                     void (*fn)(Fixture *f, const void *arg))
{
    for (int packed = 0; packed < 2; packed++) {
        g_autofree char *path =
            g_strdup_printf("/vhost-user-inflight/%s/%s",
                            packed ? "packed" : "split", name);

        g_test_add(path, Fixture, GINT_TO_POINTER(packed), fixture_setup, fn,
                   fixture_teardown);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_test("crash/after-pop", test_after_pop);
    add_test("crash/some-done", test_some_done);
    add_test("crash/before-flush", test_before_flush);
    add_test("crash/inside-flush", test_inside_flush);
    add_test("crash/inside-full-flush", test_inside_full_flush);
    add_test("crash/twice", test_twice);
    add_test("crash/anywhere", test_anywhere);
    add_test("stop/clean", test_clean);
    return g_test_run();
}
