/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two devices of one daemon: see the header.
 *
 * A device serves one connection after the other.  So when a new one has got
 * an answer, all descriptors of the one before have been closed, and those of
 * the daemon can be counted.
 */
#include "two-devices.h"

#include <errno.h>
#include <string.h>

#define CHECK_AT (1 << 20)
#define CHECK_BYTES 8192

static void add_device(TwoDevices *t, const char *id, char **sock)
{
    g_autofree char *name = g_strdup_printf("%s.raw", id);
    g_autofree char *image = daemon_proc_file(t->d, name, DISK_SIZE);

    daemon_proc_arg(t->d, "--blockdev", "driver=raw,node-name=%s,"
                    "discard=unmap,file.driver=file,file.filename=%s", id,
                    image);
    daemon_proc_export(t->d, id, id, ",num-queues=2,iothread=io");
    *sock = daemon_proc_path(t->d, id);
}

static VufeFrontend *connect_to(const char *path)
{
    VufeOptions opts = { .num_queues = 2, .indirect = true,
                         .timeout_ms = WAIT_MS };
    g_autofree char *msg = NULL;
    VufeFrontend *fe = vufe_open(path, &opts, &msg);

    if (!fe) {
        g_error("%s: %s", path, msg);
    }
    return fe;
}

/* How many descriptors the daemon has while A is only connected to. */
static VufeFrontend *bare_connection(TwoDevices *t)
{
    VufeFrontend *fe = vufe_new(t->a, NULL);
    uint64_t features;

    g_assert_nonnull(fe);
    g_assert_cmpint(vufe_connect(fe), ==, 0);
    g_assert_cmpint(vufe_query_u64(&fe->conn, VUFE_GET_FEATURES, &features),
                    ==, 0);
    return fe;
}

static void check_a(TwoDevices *t)
{
    g_autoptr(VufeFrontend) fe = connect_to(t->a);

    two_devices_check_io(t, fe);
}

TwoDevices *two_devices_new(const char *program)
{
    TwoDevices *t = g_new0(TwoDevices, 1);
    VufeFrontend *fe;

    t->d = daemon_proc_new(program);
    daemon_proc_arg(t->d, "--object", "iothread,id=io");
    add_device(t, "a", &t->a);
    add_device(t, "b", &t->b);
    t->image_a = daemon_proc_path(t->d, "a.raw");
    daemon_proc_start(t->d);
    t->fe_b = connect_to(t->b);
    two_devices_check_b(t);
    check_a(t);
    fe = bare_connection(t);
    t->fds = daemon_proc_count_fds(t->d);
    vufe_close(fe);
    return t;
}

void two_devices_free(TwoDevices *t)
{
    vufe_close(t->fe_b);
    daemon_proc_stop(t->d);
    daemon_proc_free(t->d);
    g_free(t->image_a);
    g_free(t->a);
    g_free(t->b);
    g_free(t);
}

void two_devices_check_io(TwoDevices *t, VufeFrontend *fe)
{
    uint8_t out[CHECK_BYTES], in[CHECK_BYTES];

    t->round++;
    for (unsigned i = 0; i < sizeof(out); i++) {
        out[i] = t->round + i / SECTOR * 7 + i;
    }
    for (unsigned q = 0; q < fe->num_rings; q++) {
        int64_t at = CHECK_AT + q * CHECK_BYTES;

        memset(in, 0, sizeof(in));
        g_assert_cmpint(vufe_blk_write(fe, q, at, out, sizeof(out)), ==, 0);
        g_assert_cmpint(vufe_blk_flush(fe, q), ==, 0);
        g_assert_cmpint(vufe_blk_read(fe, q, at, in, sizeof(in)), ==, 0);
        g_assert_cmpmem(out, sizeof(out), in, sizeof(in));
    }
}

void two_devices_check_b(TwoDevices *t)
{
    daemon_proc_check_alive(t->d);
    two_devices_check_io(t, t->fe_b);
}

void two_devices_check(TwoDevices *t)
{
    VufeFrontend *fe;

    two_devices_check_b(t);
    check_a(t);
    fe = bare_connection(t);
    daemon_proc_wait_fds(t->d, t->fds);
    vufe_close(fe);
    daemon_proc_check_alive(t->d);
}
