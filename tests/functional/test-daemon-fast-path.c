/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which path requests take through the daemon, by its counters: a fast path
 * that nobody takes looks like a working one from the guest, and so does one
 * that is taken where it must not be.
 *
 *   inline   done by the thread that submits
 *   fast     by the kernel's asynchronous interface
 *   worker   by a thread of the pool
 *
 * usage: test-daemon-fast-path DAEMON
 */
#include "daemon-proc.h"
#include "vufe-blk.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/virtio_blk.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define WAIT_MS 10000
#define DISK_SIZE (4 << 20)
#define N 16                /* requests of each kind */
#define BLOCK 4096

static const char *program;

typedef enum Kind {
    READ, WRITE, WRITE_ZERO_DATA, WRITE_512, WRITE_ZEROES, DISCARD, FLUSH,
    KIND__MAX
} Kind;

static const char *const kind_names[KIND__MAX] = {
    "read", "write", "write of zero data", "write of 512 bytes",
    "write zeroes", "discard", "flush",
};

/*
 * What is expected of a kind, a letter each in the order of Kind:
 *   i f w   all of them inline, fast, or by workers
 *   a       without workers: inline or fast
 *   p       fast, but for some that the file system has to wait for (when it
 *           changes a time stamp, say) and would not let the caller wait
 *   m       inline or by workers, as the file system decides
 *   x       whatever
 *   -       not tried
 */
typedef struct Config {
    const char *name;
    const char *file;       /* options of the file node; NULL: a null node */
    const char *top;        /* a node on top of it, or NULL */
    const char *export;
    const char *paths;
} Config;

#define UNMAP ",discard=unmap"
#define DIRECT ",cache.direct=on"
#define URING ",aio=io_uring" UNMAP
#define RAW "driver=raw,node-name=top,file=file" UNMAP
#define BLKDEBUG "driver=blkdebug,node-name=top,image=file" UNMAP

static const Config configs[] = {
    { "null", NULL, NULL, "", "iiiiiii" },
    { "threads", ",aio=threads" UNMAP, NULL, "", "immmwww" },
    { "threads-direct", ",aio=threads" UNMAP DIRECT, NULL, "", "wwwwwww" },
    { "native-direct", ",aio=native" UNMAP DIRECT, NULL, "", "fpppwwf" },
    { "io_uring", URING, NULL, "", "iaaafff" },
    { "io_uring-direct", URING DIRECT, NULL, "", "fffffff" },
    { "auto-direct", UNMAP DIRECT, NULL, "", "fpppxxf" },
    { "raw", URING, RAW, "", "iaaafff" },
    { "raw-direct", URING DIRECT, RAW DIRECT, "", "fffffff" },
    { "raw-offset", URING DIRECT, RAW DIRECT ",offset=4096,size=2097152", "",
      "fffffff" },
    { "discard-ignore", ",aio=io_uring", NULL, "", "iaaafif" },
    { "no-flush", URING ",cache.no-flush=on", NULL, "", "iaaaffi" },
    { "detect-zeroes-on", URING, RAW ",detect-zeroes=on", "", "iwwwfff" },
    { "detect-zeroes-unmap", URING, RAW ",detect-zeroes=unmap", "",
      "iwwwfff" },
    { "blkdebug", URING, BLKDEBUG, "", "wwwwwww" },
    { "blkdebug-direct", URING DIRECT, BLKDEBUG DIRECT, "", "wwwwwww" },
    { "writethrough", URING, NULL, ",writethrough=on", "iwwwwff" },
    { "writethrough-direct", URING DIRECT, NULL, ",writethrough=on",
      "fwwwwff" },
    { "writethrough-native", ",aio=native" UNMAP DIRECT, NULL,
      ",writethrough=on", "fwwwwwf" },
    { "writethrough-threads", ",aio=threads" UNMAP, NULL,
      ",writethrough=on", "iwwwwww" },
};

/* ---- Requests ---- */

static int do_one(VufeFrontend *fe, Kind kind, unsigned i)
{
    int64_t offset = i * 65536;
    uint8_t data[BLOCK];

    memset(data, kind == WRITE_ZERO_DATA ? 0 : 0x80 + i, sizeof(data));
    switch (kind) {
    case READ:
        return vufe_blk_read(fe, 0, offset, data, BLOCK);
    case WRITE:
    case WRITE_ZERO_DATA:
        return vufe_blk_write(fe, 0, offset, data, BLOCK);
    case WRITE_512:
        return vufe_blk_write(fe, 0, offset + 512, data, 512);
    case WRITE_ZEROES:
        return vufe_blk_write_zeroes(fe, 0, offset, BLOCK, false);
    case DISCARD:
        return vufe_blk_discard(fe, 0, offset, BLOCK);
    default:
        return vufe_blk_flush(fe, 0);
    }
}

static bool path_is(char expected, const DaemonCounters *c)
{
    switch (expected) {
    case 'i':
        return !c->fast && !c->worker;
    case 'f':
        return !c->done_inline && !c->worker;
    case 'w':
        return !c->done_inline && !c->fast;
    case 'a':
        return !c->worker;
    case 'm':
        return !c->fast;
    case 'p':
        return !c->done_inline && c->fast;
    case 'x':
        return true;
    default:
        g_assert_not_reached();
    }
}

static void run_kind(DaemonProc *d, VufeFrontend *fe, Kind kind,
                     char expected)
{
    DaemonCounters c, before = daemon_proc_counters(d, "disk");

    for (unsigned i = 0; i < N; i++) {
        g_assert_cmpint(do_one(fe, kind, i), ==, 0);
    }
    c = daemon_proc_counters(d, "disk");
    c.done_inline -= before.done_inline;
    c.fast -= before.fast;
    c.worker -= before.worker;
    g_test_message("%s: inline %d, fast %d, worker %d", kind_names[kind],
                   (int)c.done_inline, (int)c.fast, (int)c.worker);
    g_assert_cmpint(c.done_inline + c.fast + c.worker, ==, N);
    if (!path_is(expected, &c)) {
        g_test_fail_printf("%s: inline %d, fast %d, worker %d, where '%c' "
                           "is expected", kind_names[kind],
                           (int)c.done_inline, (int)c.fast, (int)c.worker,
                           expected);
    }
}

/* ---- Configurations ---- */

static bool is_tmpfs(const char *path)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* An image with data everywhere: a write need not allocate, for which some file
 * systems would wait. */
static char *make_image(DaemonProc *d)
{
    char *path = daemon_proc_path(d, "image");
    g_autofree char *data = g_malloc(DISK_SIZE);
    int fd;

    memset(data, 0x55, DISK_SIZE);
    g_assert_true(g_file_set_contents(path, data, DISK_SIZE, NULL));
    fd = open(path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(fsync(fd), ==, 0);
    close(fd);
    return path;
}

/* Does the file system take requests of 512 bytes with O_DIRECT? */
static bool has_small_direct(const char *path)
{
    void *buf = aligned_alloc(4096, 4096);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    bool ok = fd >= 0 && pread(fd, buf, 512, 512) == 512;

    if (fd >= 0) {
        close(fd);
    }
    free(buf);
    return ok;
}

/* What the reads read is in the page cache: it was just written. */
static void run_daemon(DaemonProc *d, const char *paths)
{
    static const Kind order[] = { WRITE, READ, WRITE_512, FLUSH,
                                  WRITE_ZERO_DATA, WRITE_ZEROES, DISCARD };
    g_autofree char *sock = daemon_proc_path(d, "disk");
    VufeOptions opts = { .timeout_ms = WAIT_MS };
    g_autofree char *msg = NULL;
    VufeFrontend *fe;

    if (!daemon_proc_try_start(d)) {
        g_autofree char *said = daemon_proc_messages(d);

        g_test_skip(said);
        return;
    }
    fe = vufe_open(sock, &opts, &msg);
    if (!fe) {
        g_error("%s", msg);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(order); i++) {
        if (paths[order[i]] != '-') {
            run_kind(d, fe, order[i], paths[order[i]]);
        }
    }
    vufe_close(fe);
    daemon_proc_stop(d);
}

static void test_config(const void *opaque)
{
    const Config *c = opaque;
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    g_autofree char *image = make_image(d);

    if (c->file && is_tmpfs(image)) {
        g_test_skip("the temporary directory is in memory: set TMPDIR");
        return;
    }
    if (c->file && strstr(c->file, DIRECT) && !has_small_direct(image)) {
        g_test_skip("the temporary directory has no O_DIRECT of 512 bytes");
        return;
    }
    if (c->file) {
        daemon_proc_arg(d, "--blockdev", "driver=file,node-name=file,"
                        "filename=%s%s", image, c->file);
    } else {
        daemon_proc_arg(d, "--blockdev", "driver=null-co,node-name=file,"
                        "size=%d", DISK_SIZE);
    }
    if (c->top) {
        daemon_proc_arg(d, "--blockdev", "%s", c->top);
    }
    daemon_proc_export(d, "disk", c->top ? "top" : "file", c->export);
    run_daemon(d, c->paths);
}

/* ---- Registered memory ---- */

typedef struct Sharer {
    VufeFrontend *fe;
    int stop;               /* atomic */
    unsigned rounds;
} Sharer;

/* Share the same memory again and again, at another address of the daemon. */
static gpointer share_again(gpointer opaque)
{
    Sharer *s = opaque;

    while (!g_atomic_int_get(&s->stop)) {
        g_assert_cmpint(vufe_mem_send_table(&s->fe->conn, &s->fe->mem), ==, 0);
        s->rounds++;
    }
    return NULL;
}

static void check_block(VufeFrontend *fe, unsigned i)
{
    uint8_t out[BLOCK], in[BLOCK];

    memset(out, i * 7 + 1, sizeof(out));
    g_assert_cmpint(vufe_blk_write(fe, 0, i % 64 * BLOCK, out, BLOCK), ==, 0);
    g_assert_cmpint(vufe_blk_read(fe, 0, i % 64 * BLOCK, in, BLOCK), ==, 0);
    g_assert_cmpmem(in, sizeof(in), out, sizeof(out));
}

/* While nothing else happens all requests use it; and while memory changes
 * under them, they are right. */
static void run_registered(DaemonProc *d, VufeFrontend *fe)
{
    DaemonCounters c;
    Sharer s = { .fe = fe };
    GThread *thread;

    for (unsigned i = 0; i < N; i++) {
        check_block(fe, i);
    }
    c = daemon_proc_counters(d, "disk");
    if (geteuid() != 0 && c.registered == 0) {
        g_test_skip("no memory may be locked");
        return;
    }
    g_assert_cmpint(c.registered, ==, 2 * N);
    thread = g_thread_new("sharer", share_again, &s);
    for (unsigned i = 0; i < 20 * N; i++) {
        check_block(fe, i);
    }
    g_atomic_int_set(&s.stop, 1);
    g_thread_join(thread);
    g_test_message("memory was shared %u times", s.rounds);
    g_assert_cmpuint(s.rounds, >, 0);
    c = daemon_proc_counters(d, "disk");
    g_assert_cmpint(c.registered, ==, 42 * N);
    g_assert_cmpint(c.worker, ==, 0);
}

static void test_registered(const void *opaque)
{
    const char *export = opaque;
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    g_autofree char *image = make_image(d);
    g_autofree char *sock = daemon_proc_path(d, "disk");
    VufeOptions opts = { .timeout_ms = WAIT_MS, .region_size = 8 << 20 };
    g_autofree char *msg = NULL;
    VufeFrontend *fe;

    if (!has_small_direct(image)) {
        g_test_skip("the temporary directory has no O_DIRECT of 512 bytes");
        return;
    }
    daemon_proc_arg(d, "--blockdev", "driver=file,node-name=file,"
                    "filename=%s" URING DIRECT, image);
    daemon_proc_arg(d, "--blockdev", RAW DIRECT);
    daemon_proc_export(d, "disk", "top", export);
    if (!daemon_proc_try_start(d)) {
        g_autofree char *said = daemon_proc_messages(d);

        g_test_skip(said);
        return;
    }
    fe = vufe_open(sock, &opts, &msg);
    if (!fe) {
        g_error("%s", msg);
    }
    if (*export) {
        run_registered(d, fe);
    } else {
        check_block(fe, 0);
        g_assert_cmpint(daemon_proc_counters(d, "disk").registered, ==, 0);
    }
    vufe_close(fe);
    daemon_proc_stop(d);
}

/* ---- A device with larger blocks than the guest's ---- */

static bool run_losetup(const char *options, const char *arg, char **out)
{
    g_autofree char *cmd = g_strdup_printf("losetup %s %s", options, arg);
    int status;

    return g_spawn_command_line_sync(cmd, out, NULL, &status, NULL) &&
           g_spawn_check_wait_status(status, NULL);
}

static void run_loop(const char *export, const char *paths)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    g_autofree char *image = make_image(d);
    g_autofree char *loop = NULL;

    if (!run_losetup("--show -f -b 4096", image, &loop)) {
        g_test_skip("no loop devices are permitted");
        return;
    }
    g_strchomp(loop);
    daemon_proc_arg(d, "--blockdev", "driver=host_device,node-name=file,"
                    "filename=%s" URING DIRECT, loop);
    daemon_proc_export(d, "disk", "file", export);
    run_daemon(d, paths);
    g_assert_true(run_losetup("-d", loop, NULL));
}

/* Parts of blocks are read, changed and written, in which nobody may meddle:
 * all requests are tracked, by workers. */
static void test_small_blocks(void)
{
    run_loop("", "wwwwwww");
}

static void test_equal_blocks(void)
{
    run_loop(",logical-block-size=4096", "fff-wwf");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 2);
    program = argv[1];
    for (unsigned i = 0; i < G_N_ELEMENTS(configs); i++) {
        g_autofree char *path = g_strdup_printf("/daemon-fast-path/%s",
                                                configs[i].name);

        g_test_add_data_func(path, &configs[i], test_config);
    }
    g_test_add_data_func("/daemon-fast-path/registered-memory",
                         ",x-register-buffers=on", test_registered);
    g_test_add_data_func("/daemon-fast-path/unregistered-memory", "",
                         test_registered);
    g_test_add_func("/daemon-fast-path/blocks-of-512-on-4096",
                    test_small_blocks);
    g_test_add_func("/daemon-fast-path/blocks-of-4096", test_equal_blocks);
    return g_test_run();
}
