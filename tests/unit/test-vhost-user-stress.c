/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything at once: two drivers, a front end that sends messages, and a
 * control thread that drains and resizes.  No request may be lost, and none
 * may see another's data.
 */
#include "qemu/osdep.h"
#include "fake-server.h"
#include "qemu/atomic.h"
#include "qemu/thread.h"
#include <linux/virtio_blk.h>

#define DRIVERS 2
#define REQUESTS 2000

typedef struct Driver {
    VufeFrontend *fe;
    unsigned queue;
    int64_t offset;             /* its own part of the disk */
    unsigned *running;          /* atomic: drivers that are not done */
} Driver;

static void *drive(void *opaque)
{
    Driver *d = opaque;
    char out[2048], in[2048];

    for (int i = 0; i < REQUESTS; i++) {
        int64_t offset = d->offset + i % 64 * sizeof(out);

        memset(out, i + d->queue, sizeof(out));
        g_assert_cmpint(vufe_blk_write(d->fe, d->queue, offset, out,
                                       sizeof(out)), ==, 0);
        g_assert_cmpint(vufe_blk_read(d->fe, d->queue, offset, in,
                                      sizeof(in)), ==, 0);
        g_assert_cmpmem(in, sizeof(in), out, sizeof(out));
    }
    qatomic_dec(d->running);
    return NULL;
}

typedef struct Talker {
    VufeFrontend *fe;
    unsigned *running;
    unsigned rounds;
} Talker;

/* Memory comes and goes, notifiers change, the third ring starts and stops. */
static void *talk(void *opaque)
{
    Talker *t = opaque;
    VufeConn *c = &t->fe->conn;
    VufeRing *r = &t->fe->rings[DRIVERS];
    VufeMem more = { 0 };

    g_assert_cmpint(vufe_mem_add(&more, UINT64_C(1) << 40, MiB, 0), ==, 0);
    while (qatomic_load_acquire(t->running)) {
        uint8_t config[60];

        g_assert_cmpint(vufe_mem_send_add(c, &more, 0), ==, 0);
        g_assert_cmpint(vufe_call_fd(c, VUFE_SET_VRING_CALL, DRIVERS,
                                     r->call_fd), ==, 0);
        g_assert_cmpint(vufe_stop_ring(t->fe, DRIVERS), ==, 0);
        g_assert_cmpint(vufe_mem_send_remove(c, &more, 0), ==, 0);
        g_assert_cmpint(vufe_start_ring(t->fe, DRIVERS), ==, 0);
        g_assert_cmpint(vufe_get_config(t->fe, 0, config, sizeof(config)), ==,
                        0);
        t->rounds++;
    }
    vufe_mem_destroy(&more);
    return NULL;
}

static void test_stress(const void *arg)
{
    int how = GPOINTER_TO_INT(arg);
    VufeOptions opts = { .num_queues = DRIVERS + 1, .mem_slots = true,
                         .packed = how & 1, .inflight = how & 2,
                         .indirect = true, .event_idx = true };
    FakeServer *s;
    VufeFrontend *fe;
    unsigned running = DRIVERS, drains = 0;
    QemuThread threads[DRIVERS], talker;
    Driver drivers[DRIVERS];
    Talker t;

    fake_server_registers = true;
    s = fake_server_new(true, 512);
    fake_server_set_polling(s, how & 4 ? 50 * 1000 : 0);
    fe = fake_server_connect(s, &opts);
    t = (Talker) { fe, &running, 0 };
    for (int i = 0; i < DRIVERS; i++) {
        drivers[i] = (Driver) { fe, i, i * MiB, &running };
        g_assert_cmpint(vufe_blk_prepare(fe, i), ==, 0);
        g_assert_cmpint(qemu_thread_create(&threads[i], "driver", drive,
                                           &drivers[i]), ==, 0);
    }
    g_assert_cmpint(qemu_thread_create(&talker, "talker", talk, &t), ==, 0);
    while (qatomic_load_acquire(&running)) {
        fake_blk_drain_begin(s->blk);
        fake_blk_resize(s->blk, drains % 2 ? FAKE_DISK_SIZE :
                                             FAKE_DISK_SIZE - 64 * KiB);
        fake_blk_drain_end(s->blk);
        drains++;
    }
    for (int i = 0; i < DRIVERS; i++) {
        qemu_thread_join(&threads[i]);
    }
    qemu_thread_join(&talker);
    g_test_message("%u drains, %u rounds of messages", drains, t.rounds);
    g_assert_cmpuint(drains, >, 10);
    g_assert_cmpuint(t.rounds, >, 10);
    g_assert_cmpint(fake_server_stat(s, "requests"), ==,
                    DRIVERS * REQUESTS * 2);
    g_assert_cmpint(fake_server_stat(s, "errors"), ==, 0);
    vufe_close(fe);
    fake_server_free(s);
    g_assert_cmpuint(fake_registered_bufs(), ==, 0);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {
        "split", "packed", "split-inflight", "packed-inflight",
        "split-polling", "packed-polling",
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_strdup_printf("/vhost-user-stress/%s",
                                                names[i]);

        g_test_add_data_func(path, GINT_TO_POINTER(i), test_stress);
    }
    return g_test_run();
}
