/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An encrypted image that the daemon serves: what a guest writes is on the
 * disk, for the next daemon that knows the password, and not to be read there
 * by anybody else.
 *
 * usage: test-daemon-encrypted DAEMON QEMU-IMG
 */
#include "daemon-proc.h"
#include "vufe-blk.h"

#include <string.h>

#define WAIT_MS 10000
#define BYTES 65536

static const char *program, *qemu_img;

static char *make_image(const DaemonProc *d, const char *options)
{
    char *path = daemon_proc_path(d, "image");
    g_autofree char *cmd = g_strdup_printf(
        "%s create -q -f qcow2 --object secret,id=s,data=pass -o "
        "%s,encrypt.key-secret=s %s 4M", qemu_img, options, path);
    g_autoptr(GError) err = NULL;
    int status;

    g_assert_true(g_spawn_command_line_sync(cmd, NULL, NULL, &status, &err));
    g_assert_true(g_spawn_check_wait_status(status, NULL));
    return path;
}

static void add_options(DaemonProc *d, const char *image, const char *password)
{
    daemon_proc_arg(d, "--object", "secret,id=s,data=%s", password);
    daemon_proc_arg(d, "--object", "iothread,id=io");
    daemon_proc_arg(d, "--blockdev", "driver=qcow2,node-name=disk,"
                    "encrypt.key-secret=s,file.driver=file,file.filename=%s",
                    image);
    daemon_proc_export(d, "e", "disk", ",iothread=io");
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

static void test_image(const void *options)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    g_autofree char *image = make_image(d, options);
    g_autofree char *data = g_malloc(BYTES), *back = g_malloc(BYTES);
    g_autofree char *file = NULL;
    VufeFrontend *fe;
    gsize size;

    memset(data, 'x', BYTES);
    add_options(d, image, "pass");
    daemon_proc_start(d);
    fe = connect_to(d);
    g_assert_cmpint(vufe_blk_write(fe, 0, 1536, data, BYTES), ==, 0);
    g_assert_cmpint(vufe_blk_read(fe, 0, 1536, back, BYTES), ==, 0);
    g_assert_cmpmem(back, BYTES, data, BYTES);
    vufe_close(fe);
    daemon_proc_stop(d);

    g_assert_true(g_file_get_contents(image, &file, &size, NULL));
    g_assert_null(memmem(file, size, "xxxxxxxx", 8));

    daemon_proc_start(d);
    fe = connect_to(d);
    memset(back, 0, BYTES);
    g_assert_cmpint(vufe_blk_read(fe, 0, 1536, back, BYTES), ==, 0);
    g_assert_cmpmem(back, BYTES, data, BYTES);
    vufe_close(fe);
    daemon_proc_stop(d);
}

static void test_wrong_password(void)
{
    g_autoptr(DaemonProc) d = daemon_proc_new(program);
    g_autofree char *image = make_image(d, "encrypt.format=luks,"
                                        "encrypt.iter-time=10");
    g_autofree char *said = NULL;

    add_options(d, image, "wrong");
    g_assert_false(daemon_proc_try_start(d));
    said = daemon_proc_messages(d);
    g_assert_nonnull(strstr(said, "Invalid password, cannot unlock any "
                            "keyslot"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    program = argv[1];
    qemu_img = argv[2];
    g_test_add_data_func("/daemon-encrypted/luks",
                         "encrypt.format=luks,encrypt.iter-time=10",
                         test_image);
    g_test_add_data_func("/daemon-encrypted/aes", "encrypt.format=aes",
                         test_image);
    g_test_add_func("/daemon-encrypted/wrong-password", test_wrong_password);
    return g_test_run();
}
