/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An export of a qcow2 image, with the options of its node: what they do is
 * seen by a front end, and in the image afterwards.
 *
 * usage: test-daemon-qcow2 DAEMON QEMU-IMG
 */
#include "daemon-proc.h"
#include "vufe-blk.h"

#include <string.h>
#include <sys/stat.h>

#define WAIT_MS 10000
#define CLUSTER 65536

static const char *program, *qemu_img;

/* A shell command in which $IMG is our qemu-img and $D the daemon's folder;
 * what it says, which the caller frees. */
static char *run(const DaemonProc *d, const char *command)
{
    const char *argv[] = { "/bin/sh", "-ec", command, NULL };
    g_autoptr(GError) err = NULL;
    g_auto(GStrv) env = g_get_environ();
    char *out = NULL;
    int status;

    env = g_environ_setenv(env, "IMG", qemu_img, true);
    env = g_environ_setenv(env, "D", d->dir, true);
    g_spawn_sync(NULL, (char **)argv, env, 0, NULL, NULL, &out, NULL, &status,
                 &err);
    g_assert_no_error(err);
    if (!g_spawn_check_wait_status(status, &err)) {
        g_error("%s: %s\n%s", command, err->message, out);
    }
    return out;
}

static VufeFrontend *connect_to(const DaemonProc *d)
{
    g_autofree char *sock = daemon_proc_path(d, "e");
    VufeOptions opts = { .timeout_ms = WAIT_MS };
    g_autofree char *msg = NULL;
    VufeFrontend *fe = vufe_open(sock, &opts, &msg);

    if (!fe) {
        g_error("%s", msg);
    }
    return fe;
}

/* Serve the image "image" with @options of its node. */
static VufeFrontend *serve(DaemonProc *d, const char *options)
{
    daemon_proc_arg(d, "--blockdev", "driver=qcow2,node-name=disk,"
                    "file.driver=file,file.filename=%s/image%s", d->dir,
                    options);
    daemon_proc_export(d, "e", "disk", ",writable=on");
    daemon_proc_start(d);
    return connect_to(d);
}

/* The image is in order afterwards. */
static void end(DaemonProc *d, VufeFrontend *fe)
{
    vufe_close(fe);
    daemon_proc_stop(d);
    g_free(run(d, "$IMG check -q -f qcow2 $D/image"));
}

static void write_fill(VufeFrontend *fe, int64_t offset, int fill)
{
    g_autofree uint8_t *data = g_malloc(CLUSTER);

    memset(data, fill, CLUSTER);
    g_assert_cmpint(vufe_blk_write(fe, 0, offset, data, CLUSTER), ==, 0);
}

static void expect_fill(VufeFrontend *fe, int64_t offset, int fill)
{
    g_autofree uint8_t *data = g_malloc(CLUSTER);

    memset(data, fill ^ 0xff, CLUSTER);
    g_assert_cmpint(vufe_blk_read(fe, 0, offset, data, CLUSTER), ==, 0);
    for (int i = 0; i < CLUSTER; i++) {
        g_assert_cmphex(data[i], ==, fill);
    }
}

/* Everything that can be said of caches and the like: the disk is the same. */
static void test_tuning(const void *options)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    VufeFrontend *fe;

    g_free(run(d, "$IMG create -q -f qcow2 -o cluster_size=512 $D/image 16M"));
    fe = serve(d, options);
    for (int i = 0; i < 64; i++) {
        write_fill(fe, i * 3 * CLUSTER, i);
    }
    for (int i = 0; i < 64; i++) {
        expect_fill(fe, i * 3 * CLUSTER, i);
        expect_fill(fe, i * 3 * CLUSTER + CLUSTER, 0);
    }
    g_assert_cmpint(vufe_blk_flush(fe, 0), ==, 0);
    end(d, fe);
}

/* The image says "base"; what the options say is read instead. */
static void test_backing(void)
{
    static const struct {
        const char *options;
        int fill;
    } cases[] = {
        { "", 1 },
        { ",backing.driver=qcow2,backing.file.driver=file,"
          "backing.file.filename=%s/other", 2 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(DaemonProc) d = daemon_proc_new(program);
        g_auto(GStrv) parts = g_strsplit(cases[i].options, "%s", 2);
        g_autofree char *options = g_strjoinv(d->dir, parts);
        VufeFrontend *fe;

        g_free(run(d, "cd $D; head -c 1M /dev/zero | tr '\\0' '\\1' > raw; "
                      "$IMG convert -f raw -O qcow2 raw base; "
                      "tr '\\1' '\\2' < raw > raw2; "
                      "$IMG convert -f raw -O qcow2 raw2 other; "
                      "$IMG create -q -f qcow2 -b base -F qcow2 image"));
        fe = serve(d, options);
        expect_fill(fe, 0, cases[i].fill);
        write_fill(fe, CLUSTER, 9);
        expect_fill(fe, CLUSTER, 9);
        expect_fill(fe, 2 * CLUSTER, cases[i].fill);
        end(d, fe);
    }
}

static int64_t blocks_of(const DaemonProc *d)
{
    g_autofree char *path = daemon_proc_path(d, "image");
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_blocks * INT64_C(512);
}

/* 4 MiB are written, and then given back in the way that @zeroes says. */
static void give_back(DaemonProc *d, const char *options, bool zeroes,
                      bool expect_less)
{
    VufeFrontend *fe;
    int64_t before;

    g_free(run(d, "$IMG create -q -f qcow2 $D/image 16M"));
    fe = serve(d, options);
    for (int i = 0; i < 64; i++) {
        write_fill(fe, i * CLUSTER, 5);
    }
    g_assert_cmpint(vufe_blk_flush(fe, 0), ==, 0);
    before = blocks_of(d);
    for (int i = 0; i < 64; i++) {
        if (zeroes) {
            write_fill(fe, i * CLUSTER, 0);
        } else {
            g_assert_cmpint(vufe_blk_discard(fe, 0, i * CLUSTER, CLUSTER), ==,
                            0);
        }
    }
    g_assert_cmpint(vufe_blk_flush(fe, 0), ==, 0);
    if (zeroes || expect_less) {
        expect_fill(fe, 7 * CLUSTER, 0);
    }
    end(d, fe);
    if (expect_less) {
        g_assert_cmpint(blocks_of(d), <, before / 2);
    } else {
        g_assert_cmpint(blocks_of(d), >=, before);
    }
}

static void test_discard(void)
{
    g_autoptr(DaemonProc) a = daemon_proc_new(program);
    g_autoptr(DaemonProc) b = daemon_proc_new(program);

    give_back(a, ",discard=unmap", false, true);
    give_back(b, ",discard=ignore", false, false);
}

static void test_detect_zeroes(void)
{
    g_autoptr(DaemonProc) a = daemon_proc_new(program);
    g_autoptr(DaemonProc) b = daemon_proc_new(program);

    give_back(a, ",discard=unmap,detect-zeroes=unmap", true, true);
    give_back(b, "", true, false);
}

/* What the launcher uses: the format is found out. */
static void test_probing(void)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    VufeFrontend *fe;

    g_free(run(d, "cd $D; head -c 1M /dev/zero | tr '\\0' '\\3' > raw; "
                  "$IMG convert -f raw -O qcow2 raw image"));
    daemon_proc_arg(d, "--x-drive", "node-name=disk,l2-cache-size=1M,"
                    "filename=%s/image", d->dir);
    daemon_proc_export(d, "e", "disk", ",writable=on");
    daemon_proc_start(d);
    fe = connect_to(d);
    expect_fill(fe, 3 * CLUSTER, 3);
    end(d, fe);
}

static void refused(const char *options, const char *message)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    g_autofree char *said = NULL;

    g_free(run(d, "$IMG create -q -f qcow2 $D/image 16M"));
    daemon_proc_arg(d, "--blockdev", "driver=qcow2,node-name=disk,"
                    "file.driver=file,file.filename=%s/image%s", d->dir,
                    options);
    g_assert_false(daemon_proc_try_start(d));
    said = daemon_proc_messages(d);
    if (!strstr(said, message)) {
        g_error("'%s' is not in '%s'", message, said);
    }
}

static void test_refused(void)
{
    refused(",l2-cache-size=2M,cache-size=1M",
            "l2-cache-size may not exceed cache-size");
    refused(",l2-cache-entry-size=1000", "power of two");
    refused(",no-such-option=1", "no-such-option");
    refused(",backing.file.driver=file", "backing.driver");
    refused(",detect-zeroes=unmap", "without setting discard");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 3);
    program = argv[1];
    qemu_img = g_canonicalize_filename(argv[2], NULL);
    g_test_add_data_func("/daemon-qcow2/tuning/none", "", test_tuning);
    g_test_add_data_func("/daemon-qcow2/tuning/smallest",
                         ",l2-cache-size=512,l2-cache-entry-size=512,"
                         "refcount-cache-size=2k", test_tuning);
    g_test_add_data_func("/daemon-qcow2/tuning/lazy-checked",
                         ",lazy-refcounts=on,overlap-check=all,"
                         "cache-clean-interval=1", test_tuning);
    g_test_add_data_func("/daemon-qcow2/tuning/direct",
                         ",cache.direct=on,cache-size=1M", test_tuning);
    g_test_add_func("/daemon-qcow2/backing/can be another", test_backing);
    g_test_add_func("/daemon-qcow2/discard/gives back", test_discard);
    g_test_add_func("/daemon-qcow2/detect-zeroes/gives back",
                    test_detect_zeroes);
    g_test_add_func("/daemon-qcow2/probing/finds it", test_probing);
    g_test_add_func("/daemon-qcow2/options/are refused", test_refused);
    return g_test_run();
}
