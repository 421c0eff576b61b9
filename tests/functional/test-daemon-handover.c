/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Live migration, from the daemons' side: one image, two daemons, and never
 * both with the right to write.
 *
 * A front end stops its rings with the dirty log on, and the old daemon lets
 * go of the image; a front end of the new one starts a ring, and that daemon
 * takes it.  Whoever is too early is refused, and may try again.
 *
 * usage: test-daemon-handover DAEMON
 */
#include "daemon-proc.h"
#include "vufe-blk.h"

#include <string.h>
#include <sys/mman.h>

#define WAIT_MS 10000
#define DISK_SIZE (4 << 20)

static const char *program;

typedef struct Side {
    DaemonProc *d;
    char *sock;
    VufeFrontend *fe;
} Side;

static void side_init(Side *s, const char *image, const char *node_options,
                      const char *more)
{
    *s = (Side){ .d = daemon_proc_new(program) };
    daemon_proc_arg(s->d, "--blockdev", "driver=file,node-name=file,"
                    "filename=%s%s", image, node_options);
    daemon_proc_arg(s->d, "--blockdev",
                    "driver=raw,node-name=raw,file=file");
    daemon_proc_export(s->d, "disk", "raw", more);
    s->sock = daemon_proc_path(s->d, "disk");
}

static void side_end(Side *s)
{
    if (s->fe) {
        vufe_close(s->fe);
    }
    daemon_proc_check_alive(s->d);
    daemon_proc_stop(s->d);
    daemon_proc_free(s->d);
    g_free(s->sock);
}

/* With two rings; false if they may not run. */
static bool try_connect(Side *s)
{
    VufeOptions opts = { .num_queues = 2 };
    g_autofree char *msg = NULL;

    s->fe = vufe_open(s->sock, &opts, &msg);
    return s->fe != NULL;
}

static void check_write(Side *s, int fill)
{
    uint8_t out[4096], in[4096];

    memset(out, fill, sizeof(out));
    g_assert_cmpint(vufe_blk_write(s->fe, 0, 0, out, sizeof(out)), ==, 0);
    g_assert_cmpint(vufe_blk_read(s->fe, 1, 0, in, sizeof(in)), ==, 0);
    g_assert_cmpmem(in, sizeof(in), out, sizeof(out));
}

/* What a front end does at the end of a migration. */
static void stop_for_migration(Side *s)
{
    uint8_t *log;

    g_assert_cmpint(vufe_start_log(s->fe, 1 << 20, &log), ==, 0);
    munmap(log, 1 << 20);
    g_assert_cmpint(vufe_stop_ring(s->fe, 0), ==, 0);
    g_assert_cmpint(vufe_stop_ring(s->fe, 1), ==, 0);
}

static void test_hand_over(const void *node_options)
{
    DaemonProc *place = daemon_proc_new(program);
    g_autofree char *image = daemon_proc_file(place, "image", DISK_SIZE);
    Side a, b;

    side_init(&a, image, node_options,
              ",writable=on,num-queues=2,x-share-rw=off");
    daemon_proc_start(a.d);
    g_assert_true(try_connect(&a));
    check_write(&a, 1);
    side_init(&b, image, node_options,
              ",writable=on,num-queues=2,x-share-rw=off,x-incoming=on");
    daemon_proc_start(b.d);

    /* Too early. */
    g_assert_false(try_connect(&b));
    check_write(&a, 2);
    stop_for_migration(&a);
    g_assert_true(try_connect(&b));
    check_write(&b, 3);
    /* Now it is the other's. */
    g_assert_cmpint(vufe_start_ring(a.fe, 0), !=, 0);
    check_write(&b, 4);

    /* And back again. */
    vufe_close(a.fe);
    stop_for_migration(&b);
    g_assert_true(try_connect(&a));
    check_write(&a, 5);
    g_assert_cmpint(vufe_start_ring(b.fe, 0), !=, 0);
    side_end(&a);
    side_end(&b);
    daemon_proc_free(place);
}

/* A ring that stops for another reason keeps the image: a guest that boots
 * again must find its disk. */
static void test_keep_without_log(const void *arg)
{
    DaemonProc *place = daemon_proc_new(program);
    g_autofree char *image = daemon_proc_file(place, "image", DISK_SIZE);
    Side a, b;

    side_init(&a, image, "", ",writable=on,num-queues=2,x-share-rw=off");
    daemon_proc_start(a.d);
    g_assert_true(try_connect(&a));
    side_init(&b, image, "",
              ",writable=on,num-queues=2,x-share-rw=off,x-incoming=on");
    daemon_proc_start(b.d);
    g_assert_cmpint(vufe_stop_ring(a.fe, 0), ==, 0);
    g_assert_cmpint(vufe_stop_ring(a.fe, 1), ==, 0);
    g_assert_false(try_connect(&b));
    g_assert_cmpint(vufe_start_rings(a.fe), ==, 0);
    check_write(&a, 1);
    side_end(&a);
    side_end(&b);
    daemon_proc_free(place);
}

/* One that is never activated does not keep its daemon from ending. */
static void test_end_while_inactive(const void *arg)
{
    DaemonProc *place = daemon_proc_new(program);
    g_autofree char *image = daemon_proc_file(place, "image", DISK_SIZE);
    Side b;

    side_init(&b, image, "", ",writable=on,num-queues=2,x-incoming=on");
    daemon_proc_start(b.d);
    side_end(&b);
    daemon_proc_free(place);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 2);
    program = argv[1];
    g_test_add_data_func("/daemon-handover/there-and-back/cached", "",
                         test_hand_over);
    g_test_add_data_func("/daemon-handover/there-and-back/cache-not-dropped",
                         ",drop-cache=off", test_hand_over);
    g_test_add_data_func("/daemon-handover/there-and-back/direct",
                         ",cache.direct=on", test_hand_over);
    g_test_add_data_func("/daemon-handover/keeps-without-log", NULL,
                         test_keep_without_log);
    g_test_add_data_func("/daemon-handover/ends-while-inactive", NULL,
                         test_end_while_inactive);
    return g_test_run();
}
