/*
 * Tests of the file driver: requests, faults of the system, options.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/stat.h>
#include <sys/wait.h>
#include "block/fdset.h"
#include "fake-block-core.h"

/* ---- Options and opening ---- */

static void check_open_error(const char *filename, const char *options,
                             int flags, const char *expected)
{
    g_autoptr(Error) err = NULL;

    g_assert_null(fake_open(filename, options, flags, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
}

static void test_bad_options(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "options", 512);

    check_open_error(path, "{'pr-manager':'x'}", 0,
                     "No persistent reservation manager with id 'x'");
    check_open_error("", NULL, 0,
                     "The 'file' block driver requires a file name");
    check_open_error("/dev/fdset/9", NULL, 0,
                     "Could not open '/dev/fdset/9': No such file or "
                     "directory");
}

static void test_wrong_type(void)
{
    g_autofree char *fifo = g_build_filename(fake_dir_on_disk(), "fifo", NULL);
    g_autofree char *expected = NULL;

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    expected = g_strdup_printf("'file' driver requires '%s' to be a regular "
                               "file", fifo);
    check_open_error(fifo, NULL, 0, expected);
    check_open_error(fifo, NULL, BDRV_O_RDWR, expected);
    check_open_error("/dev/null", NULL, 0, "'file' driver requires "
                     "'/dev/null' to be a regular file");
    check_open_error("/", NULL, 0,
                     "'file' driver requires '/' to be a regular file");
}

static int open_as_nobody(const char *path)
{
    BlockDriverState *bs;

    /* Permissions do not stop root. */
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0) {
        return 77;
    }
    if (fake_open(path, NULL, BDRV_O_RDWR, NULL)) {
        return 1;
    }
    bs = fake_open(path, NULL, BDRV_O_RDWR | BDRV_O_AUTO_RDONLY, NULL);
    return !bs || !bs->read_only || (bs->open_flags & BDRV_O_RDWR) ? 2 : 0;
}

static void test_auto_read_only(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "ro", 512);
    int status;
    pid_t pid;

    g_assert_cmpint(chmod(path, 0444), ==, 0);
    g_assert_cmpint(chmod(fake_dir_on_disk(), 0755), ==, 0);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        _exit(open_as_nobody(path));
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        g_test_skip("may not become an ordinary user");
        return;
    }
    g_assert_cmpint(status, ==, 0);
}

static void test_by_descriptor(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "by-fd", 512);
    g_autofree char *set = NULL;
    BlockDriverState *bs;
    char buf[512];

    fdset_add_named("disk", open(path, O_RDONLY | O_CLOEXEC));
    bs = fake_open("fd:disk", NULL, 0, &error_abort);
    g_assert_cmpint(bs->total_bytes, ==, 512);
    g_assert_cmpint(fake_pread(bs, 0, buf, 512), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 512));
    fake_close(bs);
    g_assert_null(fake_open("fd:disk", NULL, BDRV_O_RDWR, NULL));

    set = g_strdup_printf("/dev/fdset/%" PRId64,
                          fdset_add(-1, open(path, O_RDWR | O_CLOEXEC), NULL));
    bs = fake_open(set, NULL, BDRV_O_RDWR, &error_abort);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, 0), ==, 0);
    fake_close(bs);
    fdset_clear();
}

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
    g_test_add_func("/file/open/bad-options", test_bad_options);
    g_test_add_func("/file/open/wrong-type-is-refused-without-blocking",
                    test_wrong_type);
    g_test_add_func("/file/open/auto-read-only", test_auto_read_only);
    g_test_add_func("/file/open/by-descriptor", test_by_descriptor);
    return fake_finish();
}
