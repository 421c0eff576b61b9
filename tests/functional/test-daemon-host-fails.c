/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon on a host that fails: files that shrink, no space, limits, errors
 * of the medium, an fsync that fails, and SIGKILL.
 *
 * What fails reaches the guest as an error, what succeeded is there, and the
 * device goes on.
 *
 * usage: test-daemon-host-fails DAEMON FAILING-SYNC
 */
#include "daemon-proc.h"
#include "vufe-blk.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/virtio_blk.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define WAIT_MS 10000
#define SECTOR 512
#define MiB (1 << 20)
#define DISK_SIZE (4 * MiB)

static const char *program, *failing_sync;

typedef struct Disk {
    DaemonProc *d;
    char *image;
    char *sock;
    VufeFrontend *fe;
} Disk;

/* A daemon with one image in @dir (NULL: its own directory) and @options of
 * the file node; @filter goes on top of that. */
static void disk_init(Disk *k, const char *dir, const char *options,
                      const char *filter, const char *more)
{
    k->d = daemon_proc_new(program);
    k->image = daemon_proc_file(k->d, "image", DISK_SIZE);
    if (dir) {
        g_unlink(k->image);
        g_free(k->image);
        k->image = g_build_filename(dir, "image", NULL);
        g_assert_true(g_file_set_contents(k->image, "", 0, NULL));
        g_assert_cmpint(truncate(k->image, DISK_SIZE), ==, 0);
    }
    daemon_proc_arg(k->d, "--blockdev", "driver=file,node-name=file,"
                    "discard=unmap,filename=%s%s", k->image, options);
    if (filter) {
        daemon_proc_arg(k->d, "--blockdev", "%s", filter);
    }
    daemon_proc_export(k->d, "disk", filter ? "filter" : "file", more);
    k->sock = daemon_proc_path(k->d, "disk");
}

static void disk_connect(Disk *k, const VufeOptions *more)
{
    VufeOptions opts = more ? *more : (VufeOptions){ .indirect = true };
    g_autofree char *msg = NULL;

    k->fe = vufe_open(k->sock, &opts, &msg);
    if (!k->fe) {
        g_error("%s", msg);
    }
}

/* Started and connected to; false if the daemon does not take the options. */
static bool disk_start(Disk *k)
{
    if (!daemon_proc_try_start(k->d)) {
        g_autofree char *said = daemon_proc_messages(k->d);

        g_test_skip(said);
        return false;
    }
    disk_connect(k, NULL);
    return true;
}

static void disk_end(Disk *k)
{
    if (k->fe) {
        vufe_close(k->fe);
    }
    if (k->d->pid) {
        daemon_proc_stop(k->d);
    }
    daemon_proc_free(k->d);
    g_free(k->image);
    g_free(k->sock);
}

static int write_fill(Disk *k, int64_t offset, int fill, uint32_t bytes)
{
    g_autofree uint8_t *data = g_malloc(bytes);

    memset(data, fill, bytes);
    return vufe_blk_write(k->fe, 0, offset, data, bytes);
}

/* Read, and see that all bytes are @fill. */
static void check_fill(Disk *k, int64_t offset, int fill, uint32_t bytes)
{
    g_autofree uint8_t *data = g_malloc(bytes);

    g_assert_cmpint(vufe_blk_read(k->fe, 0, offset, data, bytes), ==, 0);
    for (uint32_t i = 0; i < bytes; i++) {
        g_assert_cmphex(data[i], ==, fill);
    }
}

/* The ways to do I/O; "native" is for O_DIRECT only. */
static const char *const engines[] = {
    ",aio=threads", ",aio=threads,cache.direct=on",
    ",aio=native,cache.direct=on", ",aio=io_uring",
    ",aio=io_uring,cache.direct=on",
};

/* ---- A file that shrinks ---- */

static void test_shrink(const void *options)
{
    Disk k = { 0 };
    uint8_t buf[65536];

    disk_init(&k, NULL, options, NULL, "");
    if (disk_start(&k)) {
        g_assert_cmpint(write_fill(&k, 0, 0x11, DISK_SIZE / 4), ==, 0);
        g_assert_cmpint(write_fill(&k, 3 * MiB, 0x22, MiB), ==, 0);
        g_assert_cmpint(truncate(k.image, 2 * MiB), ==, 0);
        g_assert_cmpint(vufe_blk_read(k.fe, 0, 3 * MiB, buf, sizeof(buf)), ==,
                        VIRTIO_BLK_S_IOERR);
        g_assert_cmpint(vufe_blk_read(k.fe, 0, 2 * MiB - 4096, buf, 8192), ==,
                        VIRTIO_BLK_S_IOERR);
        g_assert_cmpint(vufe_blk_read(k.fe, 0, DISK_SIZE - 512, buf, 512), ==,
                        VIRTIO_BLK_S_IOERR);
        check_fill(&k, 0, 0x11, MiB);
        /* Writing makes it as long as it was. */
        g_assert_cmpint(write_fill(&k, DISK_SIZE - 4096, 0x33, 4096), ==, 0);
        check_fill(&k, DISK_SIZE - 4096, 0x33, 4096);
        check_fill(&k, 3 * MiB, 0, 65536);
    }
    disk_end(&k);
}

/* ---- No space ---- */

/* A small file system of our own at @dir; false, with the test skipped. */
static bool mount_small(const char *dir)
{
    static bool own;

    if (!own) {
        if (unshare(CLONE_NEWNS) < 0 ||
            mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
            g_test_skip("no mounts of our own are permitted");
            return false;
        }
        own = true;
    }
    if (mount("small", dir, "tmpfs", MS_NODEV, "size=1m") < 0) {
        g_test_skip("mounting a tmpfs is not permitted");
        return false;
    }
    return true;
}

static void test_no_space(const void *options)
{
    g_autofree char *dir = g_dir_make_tmp("small-XXXXXX", NULL);
    unsigned good = 0;
    Disk k = { 0 };
    int ret;

    if (!mount_small(dir)) {
        g_rmdir(dir);
        return;
    }
    disk_init(&k, dir, options, NULL, "");
    if (disk_start(&k)) {
        while ((ret = write_fill(&k, good * 48 * 1024, good + 1,
                                 48 * 1024)) == 0) {
            good++;
            g_assert_cmpuint(good, <, 22);
        }
        g_assert_cmpint(ret, ==, VIRTIO_BLK_S_IOERR);
        g_assert_cmpuint(good, >, 10);
        g_assert_cmpint(write_fill(&k, 3 * MiB, 9, 65536), ==,
                        VIRTIO_BLK_S_IOERR);
        g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, 0);
        for (unsigned i = 0; i < good; i++) {
            check_fill(&k, i * 48 * 1024, i + 1, 48 * 1024);
        }
        /* What is given back can be used. */
        g_assert_cmpint(vufe_blk_discard(k.fe, 0, 0, 96 * 1024), ==, 0);
        g_assert_cmpint(write_fill(&k, 3 * MiB, 9, 65536), ==, 0);
        check_fill(&k, 3 * MiB, 9, 65536);
    }
    g_unlink(k.image);
    disk_end(&k);
    umount2(dir, MNT_DETACH);
    g_rmdir(dir);
}

/* ---- A limit: short transfers, then EFBIG (and a signal) ---- */

static void test_limit(const void *options)
{
    struct rlimit limit = { MiB + 8192, MiB + 8192 };
    Disk k = { 0 };

    disk_init(&k, NULL, options, NULL, "");
    if (disk_start(&k)) {
        g_assert_cmpint(write_fill(&k, 0, 0x44, 65536), ==, 0);
        g_assert_cmpint(prlimit(k.d->pid, RLIMIT_FSIZE, &limit, NULL), ==, 0);
        g_assert_cmpint(write_fill(&k, 3 * MiB, 0x55, 65536), ==,
                        VIRTIO_BLK_S_IOERR);
        daemon_proc_check_alive(k.d);
        /* Across the limit: a part of it can be written. */
        g_assert_cmpint(write_fill(&k, MiB, 0x66, 65536), ==,
                        VIRTIO_BLK_S_IOERR);
        check_fill(&k, 0, 0x44, 65536);
        g_assert_cmpint(write_fill(&k, MiB, 0x77, 8192), ==, 0);
        check_fill(&k, MiB, 0x77, 8192);
    }
    disk_end(&k);
}

/* ---- Errors of the medium ---- */

static void test_injected(const void *unused)
{
    static const struct {
        const char *iotype;
        bool fails[5];      /* read, write, flush, discard, write zeroes */
    } table[] = {
        { "read", { true } },
        { "write", { false, true } },
        { "flush", { false, false, true } },
        { "discard", { false, false, false, true } },
        { "write-zeroes", { false, false, false, false, true } },
    };
    uint8_t buf[4096];

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autofree char *filter = g_strdup_printf(
            "driver=blkdebug,node-name=filter,image=file,discard=unmap,"
            "inject-error.0.event=none,inject-error.0.iotype=%s,"
            "inject-error.0.errno=5", table[i].iotype);
        const bool *fails = table[i].fails;
        Disk k = { 0 };

        disk_init(&k, NULL, "", filter, "");
        g_assert_true(disk_start(&k));
        for (unsigned again = 0; again < 2; again++) {
            g_assert_cmpint(vufe_blk_read(k.fe, 0, 0, buf, 4096), ==,
                            fails[0]);
            g_assert_cmpint(write_fill(&k, 4096, 1, 4096), ==, fails[1]);
            g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, fails[2]);
            g_assert_cmpint(vufe_blk_discard(k.fe, 0, 0, 65536), ==,
                            fails[3]);
            g_assert_cmpint(vufe_blk_write_zeroes(k.fe, 0, 0, 65536, false),
                            ==, fails[4]);
        }
        disk_end(&k);
    }
}

/* One of many sectors is bad: a large request fails, its neighbours do not. */
static void test_bad_sector(const void *unused)
{
    Disk k = { 0 };
    uint8_t buf[65536];

    disk_init(&k, NULL, "", "driver=blkdebug,node-name=filter,image=file,"
              "inject-error.0.event=none,inject-error.0.sector=100,"
              "inject-error.0.errno=5", "");
    g_assert_true(disk_start(&k));
    g_assert_cmpint(vufe_blk_read(k.fe, 0, 0, buf, sizeof(buf)), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(vufe_blk_read(k.fe, 0, 100 * SECTOR, buf, SECTOR), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(write_fill(&k, 99 * SECTOR, 7, SECTOR), ==, 0);
    g_assert_cmpint(write_fill(&k, 101 * SECTOR, 7, SECTOR), ==, 0);
    check_fill(&k, 101 * SECTOR, 7, SECTOR);
    disk_end(&k);
}

/* ---- An fsync that fails ---- */

static char *preload_failing_sync(Disk *k)
{
    char *fails = daemon_proc_path(k->d, "sync-fails");
    g_autofree char *log = daemon_proc_path(k->d, "sync-log");

    daemon_proc_setenv(k->d, "LD_PRELOAD", failing_sync);
    daemon_proc_setenv(k->d, "ASAN_OPTIONS", "verify_asan_link_order=0");
    daemon_proc_setenv(k->d, "SYNC_LOG", log);
    daemon_proc_setenv(k->d, "SYNC_FAILS", fails);
    return fails;
}

static int64_t count_syncs(Disk *k)
{
    g_autofree char *log = daemon_proc_path(k->d, "sync-log");
    struct stat st;

    return stat(log, &st) == 0 ? st.st_size : 0;
}

/* The kernel may have dropped the data: no flush of this file succeeds. */
static void test_failed_sync(const void *options)
{
    g_autofree char *fails = NULL;
    Disk k = { 0 };

    disk_init(&k, NULL, options, NULL, "");
    fails = preload_failing_sync(&k);
    g_assert_true(disk_start(&k));
    g_assert_cmpint(write_fill(&k, 0, 1, 4096), ==, 0);
    g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, 0);
    g_assert_cmpint(count_syncs(&k), ==, 1);

    g_assert_cmpint(write_fill(&k, 0, 2, 4096), ==, 0);
    g_assert_true(g_file_set_contents(fails, "", 0, NULL));
    g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, VIRTIO_BLK_S_IOERR);
    g_unlink(fails);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, VIRTIO_BLK_S_IOERR);
    }
    g_assert_cmpint(write_fill(&k, 8192, 3, 4096), ==, 0);
    g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, VIRTIO_BLK_S_IOERR);
    /* Nor after the guest has started anew. */
    vufe_close(k.fe);
    disk_connect(&k, NULL);
    g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, VIRTIO_BLK_S_IOERR);
    /* A new open file is a new start. */
    vufe_close(g_steal_pointer(&k.fe));
    daemon_proc_stop(k.d);
    g_assert_true(disk_start(&k));
    g_assert_cmpint(write_fill(&k, 0, 4, 4096), ==, 0);
    g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, 0);
    disk_end(&k);
}

/* Written through: each write is a sync of its own. */
static void test_failed_sync_writethrough(const void *options)
{
    VufeOptions no_flush = {
        .features_off = VUFE_BIT(VIRTIO_BLK_F_FLUSH) |
                        VUFE_BIT(VIRTIO_BLK_F_CONFIG_WCE)
    };
    g_autofree char *fails = NULL;
    Disk k = { 0 };

    disk_init(&k, NULL, options, NULL, ",writethrough=on");
    fails = preload_failing_sync(&k);
    daemon_proc_start(k.d);
    disk_connect(&k, &no_flush);
    g_assert_cmpint(write_fill(&k, 0, 1, 4096), ==, 0);
    g_assert_cmpint(count_syncs(&k), ==, 1);
    g_assert_true(g_file_set_contents(fails, "", 0, NULL));
    g_assert_cmpint(write_fill(&k, 0, 2, 4096), ==, VIRTIO_BLK_S_IOERR);
    g_unlink(fails);
    g_assert_cmpint(write_fill(&k, 0, 3, 4096), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(write_fill(&k, 8192, 3, 4096), ==, VIRTIO_BLK_S_IOERR);
    disk_end(&k);
}

/* A flush that failed above the file has flushed nothing: the next one must
 * not be left out as if it had. */
static void test_flush_after_failed_one(const void *unused)
{
    g_autofree char *fails = NULL;
    Disk k = { 0 };

    disk_init(&k, NULL, ",aio=threads", "driver=blkdebug,node-name=filter,"
              "image=file,inject-error.0.event=none,inject-error.0.once=on,"
              "inject-error.0.iotype=flush,inject-error.0.errno=5", "");
    fails = preload_failing_sync(&k);
    g_assert_true(disk_start(&k));
    g_assert_cmpint(write_fill(&k, 0, 1, 4096), ==, 0);
    g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(count_syncs(&k), ==, 0);
    g_assert_cmpint(vufe_blk_flush(k.fe, 0), ==, 0);
    g_assert_cmpint(count_syncs(&k), ==, 1);
    disk_end(&k);
}

/* ---- SIGKILL under load ---- */

#define SLOTS 32
#define KILLS 8

/*
 * Each slot is a sector that is written again and again, with the number of
 * the time; or it only flushes.  A flush takes longer than a write, so requests
 * complete in another order than they were sent in: what the ring alone says is
 * not enough to find those that are lost.
 */
static bool slot_flushes(unsigned n)
{
    return n % 8 == 0;
}

typedef struct Load {
    Disk k;
    uint64_t hdr, data, status;
    uint32_t sent[SLOTS], acked[SLOTS];
} Load;

static void load_send(Load *l, unsigned n)
{
    VufeFrontend *fe = l->k.fe;
    struct virtio_blk_outhdr *hdr = vufe_mem_ptr(&fe->mem, l->hdr + n * 16,
                                                 16);
    uint32_t *data = vufe_mem_ptr(&fe->mem, l->data + n * SECTOR, SECTOR);
    VufeBuf bufs[] = {
        { l->hdr + n * 16, 16, false },
        { l->data + n * SECTOR, SECTOR, false },
        { l->status + n, 1, true },
    };

    l->sent[n]++;
    *hdr = (struct virtio_blk_outhdr){
        .type = slot_flushes(n) ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_OUT,
        .sector = slot_flushes(n) ? 0 : n,
    };
    for (unsigned i = 0; i < SECTOR / 4; i++) {
        data[i] = l->sent[n];
    }
    *(uint8_t *)vufe_mem_ptr(&fe->mem, l->status + n, 1) = 0xee;
    g_assert_cmpint(vufe_ring_add(&fe->rings[0], bufs, 3, n % 2,
                                  &l->sent[n]), >=, 0);
}

/* Take what is done, at least one; send it again if @again. */
static unsigned load_reap(Load *l, bool again)
{
    VufeRing *r = &l->k.fe->rings[0];
    unsigned n = 0;
    void *token;
    uint32_t len;
    int ret;

    g_assert_cmpint(vufe_ring_wait(r, WAIT_MS), ==, 0);
    while ((ret = vufe_ring_get_used(r, &token, &len)) == 1) {
        unsigned slot = (uint32_t *)token - l->sent;

        g_assert_cmphex(*(uint8_t *)vufe_mem_ptr(&l->k.fe->mem,
                                                 l->status + slot, 1), ==, 0);
        g_assert_cmpuint(l->acked[slot], ==, l->sent[slot] - 1);
        l->acked[slot] = l->sent[slot];
        if (again) {
            load_send(l, slot);
        }
        n++;
    }
    g_assert_cmpint(ret, ==, 0);
    vufe_ring_kick(r);
    return n;
}

/* What the image holds was acknowledged, or is on its way. */
static void load_check_image(Load *l)
{
    g_autofree char *image = NULL;

    g_assert_true(g_file_get_contents(l->k.image, &image, NULL, NULL));
    for (unsigned n = 0; n < SLOTS; n++) {
        const uint32_t *data = (const uint32_t *)(image + n * SECTOR);

        for (unsigned i = 0; i < SECTOR / 4 && !slot_flushes(n); i++) {
            g_assert_cmpuint(data[i], >=, l->acked[n]);
            g_assert_cmpuint(data[i], <=, l->sent[n]);
        }
    }
}

static void load_start(Load *l, bool packed, const char *options)
{
    VufeOptions opts = { .packed = packed, .inflight = true, .indirect = true,
                         .event_idx = packed };

    disk_init(&l->k, NULL, options, NULL, "");
    daemon_proc_start(l->k.d);
    disk_connect(&l->k, &opts);
    l->hdr = vufe_mem_alloc(&l->k.fe->mem, 0, SLOTS * 16, 64);
    l->data = vufe_mem_alloc(&l->k.fe->mem, 0, SLOTS * SECTOR, 4096);
    l->status = vufe_mem_alloc(&l->k.fe->mem, 0, SLOTS, 64);
    for (unsigned n = 0; n < SLOTS; n++) {
        load_send(l, n);
    }
    vufe_ring_kick(&l->k.fe->rings[0]);
}

static void run_kills(bool packed, const char *options)
{
    Load l = { 0 };

    load_start(&l, packed, options);
    for (unsigned i = 0; i < KILLS; i++) {
        int left = g_test_rand_int_range(1, 2000);

        while (left > 0) {
            left -= load_reap(&l, true);
        }
        daemon_proc_kill(l.k.d);
        load_check_image(&l);
        daemon_proc_start(l.k.d);
        g_assert_cmpint(vufe_reconnect(l.k.fe), ==, 0);
    }
    for (unsigned done = 0; done < SLOTS; ) {
        done += load_reap(&l, false);
    }
    g_assert_false(vufe_ring_has_used(&l.k.fe->rings[0]));
    load_check_image(&l);
    disk_end(&l.k);
}

static void test_kill_split(const void *options)
{
    run_kills(false, options);
}

static void test_kill_packed(const void *options)
{
    run_kills(true, options);
}

/* ---- Main ---- */

static void add_for_engines(const char *name, unsigned first, unsigned step,
                            void (*fn)(const void *options))
{
    for (unsigned i = first; i < G_N_ELEMENTS(engines); i += step) {
        g_autofree char *path = g_strdup_printf(
            "/daemon-host-fails/%s/%s", name, engines[i] + 1);

        g_test_add_data_func(path, engines[i], fn);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 3);
    program = argv[1];
    failing_sync = argv[2];
    add_for_engines("shrinks", 0, 1, test_shrink);
    add_for_engines("no-space", 0, 1, test_no_space);
    add_for_engines("limit", 0, 1, test_limit);
    g_test_add_data_func("/daemon-host-fails/errors/each-type", NULL,
                         test_injected);
    g_test_add_data_func("/daemon-host-fails/errors/bad-sector", NULL,
                         test_bad_sector);
    for (unsigned i = 0; i < 2; i++) {      /* both of "threads" */
        g_autofree char *sync = g_strdup_printf(
            "/daemon-host-fails/sync/failed/%s", engines[i] + 1);

        g_test_add_data_func(sync, engines[i], test_failed_sync);
    }
    g_test_add_data_func("/daemon-host-fails/sync/failed-writethrough",
                         engines[0], test_failed_sync_writethrough);
    g_test_add_data_func("/daemon-host-fails/sync/flush-after-failed-one",
                         NULL, test_flush_after_failed_one);
    add_for_engines("kill/split", 0, 1, test_kill_split);
    add_for_engines("kill/packed", 0, 1, test_kill_packed);
    return g_test_run();
}
