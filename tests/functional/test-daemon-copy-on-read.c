/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An export of a copy-on-read filter above a qcow2 overlay: what a front end
 * sees, and what the overlay has afterwards, asked of our qemu-img and of
 * QEMU 10.0's.
 *
 * usage: test-daemon-copy-on-read DAEMON QEMU-IMG QEMU10-SCRIPT
 */
#include "daemon-proc.h"
#include "vufe-blk.h"

#include <string.h>

#define WAIT_MS  10000
#define CLUSTER  65536
#define CLUSTERS 64
#define SIZE     (CLUSTERS * CLUSTER)

static const char *program, *qemu_img;
static char *stock_img;                 /* NULL: there is none */

/* ---- Images ---- */

/* A shell command in $D, the daemon's folder, in which $IMG is @img; what it
 * says, which the caller frees. */
static char *run_with(const DaemonProc *d, const char *img,
                      const char *command)
{
    const char *argv[] = { "/bin/sh", "-ec", command, NULL };
    g_autoptr(GError) err = NULL;
    g_auto(GStrv) env = g_get_environ();
    char *out = NULL;
    int status;

    env = g_environ_setenv(env, "IMG", img, true);
    g_spawn_sync(d->dir, (char **)argv, env, 0, NULL, NULL, &out, NULL,
                 &status, &err);
    g_assert_no_error(err);
    if (!g_spawn_check_wait_status(status, &err)) {
        g_error("%s: %s\n%s", command, err->message, out);
    }
    return out;
}

static void run(const DaemonProc *d, const char *command)
{
    g_free(run_with(d, qemu_img, command));
}

/* What the base is full of there; some of it is zeroes. */
static uint8_t base_at(int64_t offset)
{
    int cluster = offset / CLUSTER;

    return cluster % 8 == 5 ? 0 : cluster + 1;
}

/* "base", and nothing but a reference to it in "image". */
static void make_images(const DaemonProc *d)
{
    g_autofree char *path = daemon_proc_path(d, "raw");
    g_autofree char *data = g_malloc(SIZE);

    for (int i = 0; i < CLUSTERS; i++) {
        memset(data + i * CLUSTER, base_at(i * CLUSTER), CLUSTER);
    }
    g_assert_true(g_file_set_contents(path, data, SIZE, NULL));
    run(d, "$IMG convert -f raw -O qcow2 raw base; "
           "$IMG create -q -f qcow2 -b base -F qcow2 image");
}

/* By cluster: is it in "image" (depth 0), as the qemu-img @img says? */
static void get_map(const DaemonProc *d, const char *img,
                    bool in_image[CLUSTERS])
{
    g_autofree char *out = run_with(d, img, "$IMG map --output=json -f qcow2 "
                                    "image");
    json_t *map = json_loads(out, 0, NULL);
    json_t *entry;
    size_t i;

    g_assert_nonnull(map);
    memset(in_image, 0, CLUSTERS * sizeof(bool));
    json_array_foreach(map, i, entry) {
        int64_t start = json_integer_value(json_object_get(entry, "start"));
        int64_t length = json_integer_value(json_object_get(entry, "length"));
        bool here = json_integer_value(json_object_get(entry, "depth")) == 0;

        /* Zeroes inside a cluster have an entry of their own. */
        for (int64_t at = start / CLUSTER; at * CLUSTER < start + length;
             at++) {
            in_image[at] = here;
        }
    }
    json_decref(map);
}

/* QEMU's qemu-img finds the image in order, and the same clusters in it. */
static void compare_with_stock(const DaemonProc *d,
                               const bool in_image[CLUSTERS])
{
    bool theirs[CLUSTERS];

    if (!stock_img) {
        g_test_skip("QEMU 10.0's qemu-img (scripts/qemu10)");
        return;
    }
    g_free(run_with(d, stock_img, "$IMG check -q -f qcow2 image"));
    get_map(d, stock_img, theirs);
    g_assert_cmpmem(theirs, sizeof(theirs), in_image, CLUSTERS * sizeof(bool));
}

/* Exactly the clusters in @expected ('1') have been copied or written. */
static void expect_in_image(const DaemonProc *d, const char *expected)
{
    bool in_image[CLUSTERS];

    run(d, "$IMG check -q -f qcow2 image");
    get_map(d, qemu_img, in_image);
    for (int i = 0; i < CLUSTERS; i++) {
        if (in_image[i] != (expected[i] == '1')) {
            g_error("cluster %d, expected %s", i, expected);
        }
    }
    compare_with_stock(d, in_image);
}

/* ---- The daemon ---- */

static VufeFrontend *connect_to(const DaemonProc *d, int num_queues)
{
    g_autofree char *sock = daemon_proc_path(d, "e");
    VufeOptions opts = { .timeout_ms = WAIT_MS, .num_queues = num_queues };
    g_autofree char *msg = NULL;
    VufeFrontend *fe = vufe_open(sock, &opts, &msg);

    if (!fe) {
        g_error("%s", msg);
    }
    return fe;
}

static void configure_disk(DaemonProc *d, const char *options)
{
    daemon_proc_arg(d, "--blockdev", "driver=qcow2,node-name=disk,"
                    "file.driver=file,file.filename=%s/image%s", d->dir,
                    options);
}

static VufeFrontend *serve(DaemonProc *d, const char *filter_options,
                           const char *overlay_options, int num_queues)
{
    g_autofree char *queues = g_strdup_printf(",num-queues=%d", num_queues);

    configure_disk(d, overlay_options);
    daemon_proc_arg(d, "--blockdev", "driver=copy-on-read,node-name=copier,"
                    "file=disk%s", filter_options);
    daemon_proc_export(d, "e", "copier", queues);
    daemon_proc_start(d);
    return connect_to(d, num_queues);
}

static void end(DaemonProc *d, VufeFrontend *fe)
{
    vufe_close(fe);
    daemon_proc_stop(d);
}

static void expect_base(VufeFrontend *fe, unsigned queue, int64_t offset,
                        int64_t bytes)
{
    g_autofree uint8_t *data = g_malloc(bytes);

    memset(data, 0xff, bytes);
    g_assert_cmpint(vufe_blk_read(fe, queue, offset, data, bytes), ==, 0);
    for (int64_t i = 0; i < bytes; i++) {
        g_assert_cmphex(data[i], ==, base_at(offset + i));
    }
}

/* ---- Tests ---- */

/* Whole clusters of what is read, and of what is written. */
static void test_copies(void)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    uint8_t sector[512], again[512];
    VufeFrontend *fe;

    make_images(d);
    fe = serve(d, "", "", 1);
    expect_base(fe, 0, CLUSTER + 4096, 512);
    expect_base(fe, 0, 8 * CLUSTER - 512, 2 * CLUSTER);         /* 7, 8, 9 */
    expect_base(fe, 0, 13 * CLUSTER, 4096);                     /* zeroes */
    memset(sector, 0xee, sizeof(sector));
    g_assert_cmpint(vufe_blk_write(fe, 0, 16 * CLUSTER, sector, 512), ==, 0);
    g_assert_cmpint(vufe_blk_read(fe, 0, 16 * CLUSTER, again, 512), ==, 0);
    g_assert_cmpmem(sector, 512, again, 512);
    expect_base(fe, 0, 16 * CLUSTER + 512, 4096);
    expect_base(fe, 0, CLUSTER + 4096, 512);
    end(d, fe);
    expect_in_image(d, "0100000111000100" "1000000000000000"
                       "0000000000000000" "0000000000000000");
}

/* When all has been read, the backing file is not needed any more. */
static void test_completes(void)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    VufeFrontend *fe;

    make_images(d);
    fe = serve(d, "", "", 1);
    expect_base(fe, 0, 0, SIZE / 4);
    for (int64_t offset = SIZE / 4; offset < SIZE; offset += CLUSTER / 2) {
        expect_base(fe, 0, offset, 512);
    }
    end(d, fe);
    expect_in_image(d, "1111111111111111" "1111111111111111"
                       "1111111111111111" "1111111111111111");
    run(d, "rm base; $IMG rebase -u -f qcow2 -b '' image; "
           "$IMG compare -q -f raw -F qcow2 raw image");
}

/* Read once, then often: how many of those reads needed a worker? */
static int64_t count_workers(const DaemonProc *d, VufeFrontend *fe)
{
    int64_t before;

    expect_base(fe, 0, 8 * CLUSTER, 2 * CLUSTER);
    before = daemon_proc_counters(d, "e").worker;
    for (int i = 0; i < 32; i++) {
        expect_base(fe, 0, 8 * CLUSTER + i * 4096, 4096);
    }
    return daemon_proc_counters(d, "e").worker - before;
}

/* None, but for what the file system makes us wait for. */
static int64_t count_workers_without_filter(void)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    VufeFrontend *fe;
    int64_t n;

    make_images(d);
    run(d, "$IMG convert -f raw -O qcow2 raw image");
    configure_disk(d, "");
    daemon_proc_export(d, "e", "disk", "");
    daemon_proc_start(d);
    fe = connect_to(d, 1);
    n = count_workers(d, fe);
    end(d, fe);
    return n;
}

/* What has been copied takes the way that it takes without the filter. */
static void test_then_fast(void)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    VufeFrontend *fe;

    make_images(d);
    fe = serve(d, "", "", 1);
    g_assert_cmpint(count_workers(d, fe), ==, count_workers_without_filter());
    end(d, fe);
}

/* The middle one has cluster 1; what comes from below it is not copied. */
static void test_bottom(void)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    uint8_t data[2 * CLUSTER];
    VufeFrontend *fe;

    make_images(d);
    run(d, "head -c 64K /dev/zero | tr '\\0' '\\231' | "
           "dd of=raw bs=64K seek=1 conv=notrunc status=none; "
           "$IMG create -q -f qcow2 -b raw -F raw middle; "
           "$IMG rebase -f qcow2 -b base -F qcow2 middle; "
           "$IMG create -q -f qcow2 -b middle -F qcow2 image");
    daemon_proc_arg(d, "--blockdev", "driver=qcow2,node-name=middle,"
                    "file.driver=file,file.filename=%s/middle", d->dir);
    fe = serve(d, ",bottom=middle", ",backing=middle", 1);
    g_assert_cmpint(vufe_blk_read(fe, 0, CLUSTER, data, sizeof(data)), ==, 0);
    g_assert_cmphex(data[0], ==, 0x99);
    g_assert_cmphex(data[CLUSTER - 1], ==, 0x99);
    g_assert_cmphex(data[CLUSTER], ==, base_at(2 * CLUSTER));
    end(d, fe);
    expect_in_image(d, "0100000000000000" "0000000000000000"
                       "0000000000000000" "0000000000000000");
}

/* ---- Many at once ---- */

#define QUEUES 4
#define ROUNDS 400

typedef struct Guest {
    VufeFrontend *fe;
    int queue;
    uint8_t *mine;              /* by sector of the disk; 0: not written */
} Guest;

/* Every cluster has sectors of all guests. */
static void write_mine(Guest *g, GRand *rand)
{
    int sector = g_rand_int_range(rand, 0, SIZE / 512 / QUEUES) * QUEUES +
                 g->queue;
    uint8_t data[512];

    g->mine[sector] = 0x80 + g_rand_int_range(rand, 0, 0x80);
    memset(data, g->mine[sector], sizeof(data));
    g_assert_cmpint(vufe_blk_write(g->fe, g->queue, sector * 512, data,
                                   sizeof(data)), ==, 0);
}

static void read_some(Guest *g, GRand *rand)
{
    int first = g_rand_int_range(rand, 0, SIZE / 512 - 64);
    uint8_t data[64 * 512];

    g_assert_cmpint(vufe_blk_read(g->fe, g->queue, first * 512, data,
                                  sizeof(data)), ==, 0);
    for (int i = 0; i < 64; i++) {
        int sector = first + i;

        if (sector % QUEUES == g->queue) {
            g_assert_cmphex(data[i * 512 + 511], ==,
                            g->mine[sector] ?: base_at(sector * 512));
        }
    }
}

static void *guest_main(void *opaque)
{
    Guest *g = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(g->queue);

    for (int i = 0; i < ROUNDS; i++) {
        if (i % 4) {
            read_some(g, rand);
        } else {
            write_mine(g, rand);
        }
    }
    return NULL;
}

static void expect_all(const DaemonProc *d, Guest *guests)
{
    g_autofree char *path = daemon_proc_path(d, "after");
    g_autofree char *data = NULL;
    bool in_image[CLUSTERS];
    gsize len;

    run(d, "$IMG check -q -f qcow2 image; "
           "$IMG convert -f qcow2 -O raw image after");
    get_map(d, qemu_img, in_image);
    compare_with_stock(d, in_image);
    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    g_assert_cmpint(len, ==, SIZE);
    for (int sector = 0; sector < SIZE / 512; sector++) {
        g_assert_cmphex((uint8_t)data[sector * 512], ==,
                        guests[sector % QUEUES].mine[sector] ?:
                        base_at(sector * 512));
    }
}

/* Reads copy what others write to at the same time. */
static void test_many(const void *pool_size)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    GThread *threads[QUEUES];
    Guest guests[QUEUES];
    VufeFrontend *fe;

    make_images(d);
    if (pool_size) {
        daemon_proc_setenv(d, "THREADBLOCK_POOL_MAX", pool_size);
    }
    fe = serve(d, "", "", QUEUES);
    for (int i = 0; i < QUEUES; i++) {
        g_assert_cmpint(vufe_blk_prepare(fe, i), ==, 0);
        guests[i] = (Guest){ fe, i, g_malloc0(SIZE / 512) };
    }
    for (int i = 0; i < QUEUES; i++) {
        threads[i] = g_thread_new("guest", guest_main, &guests[i]);
    }
    for (int i = 0; i < QUEUES; i++) {
        g_thread_join(threads[i]);
    }
    end(d, fe);
    expect_all(d, guests);
    for (int i = 0; i < QUEUES; i++) {
        g_free(guests[i].mine);
    }
}

/* By QEMU10-SCRIPT, which says why there is none. */
static char *find_stock(const char *script)
{
    const char *bin = g_getenv("QEMU10_BIN");
    const char *argv[] = { script, NULL };
    g_autofree char *out = NULL;
    int status = 0;

    if (!bin) {
        g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out, NULL,
                     &status, NULL);
        bin = g_strstrip(out);
    }
    return status == 0 && *bin ? g_build_filename(bin, "qemu-img", NULL) : NULL;
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 4);
    program = argv[1];
    qemu_img = g_canonicalize_filename(argv[2], NULL);
    stock_img = find_stock(argv[3]);
    g_test_add_func("/daemon-copy-on-read/copies what is read", test_copies);
    g_test_add_func("/daemon-copy-on-read/completes the image",
                    test_completes);
    g_test_add_func("/daemon-copy-on-read/is fast where it copied",
                    test_then_fast);
    g_test_add_func("/daemon-copy-on-read/no further than the bottom",
                    test_bottom);
    g_test_add_data_func("/daemon-copy-on-read/many/as it comes", NULL,
                         test_many);
    g_test_add_data_func("/daemon-copy-on-read/many/a worker a queue", "1",
                         test_many);
    return g_test_run();
}
