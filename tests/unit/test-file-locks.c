/*
 * Tests of image locking.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/wait.h>
#include "fake-block-core.h"

#define WRITER (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE)
#define SHARE_ALL BLK_PERM_ALL
#define SHARE_READS BLK_PERM_CONSISTENT_READ

/* Which of QEMU's bytes somebody other than a fresh descriptor holds. */
static char *locked_bytes(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    GString *s = g_string_new("");

    for (int i = 0; i < 300; i++) {
        struct flock fl = {
            .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = i, .l_len = 1,
        };

        g_assert_cmpint(fcntl(fd, F_OFD_GETLK, &fl), ==, 0);
        if (fl.l_type != F_UNLCK) {
            g_string_append_printf(s, "%d ", i);
        }
    }
    close(fd);
    return g_string_free(s, FALSE);
}

static void check_bytes(const char *path, const char *expected)
{
    g_autofree char *bytes = locked_bytes(path);

    g_assert_cmpstr(bytes, ==, expected);
}

static bool set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                     Error **errp)
{
    if (!bs->drv->check_perm(bs, perm, shared, errp)) {
        return false;
    }
    bs->drv->set_perm(bs, perm, shared);
    return true;
}

static BlockDriverState *open_with(const char *path, const char *options,
                                   uint64_t perm, uint64_t shared)
{
    BlockDriverState *bs = fake_open(path, options, BDRV_O_RDWR, &error_abort);

    g_assert_true(set_perm(bs, perm, shared, &error_abort));
    return bs;
}

static void test_bytes(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "bytes", 512);
    BlockDriverState *bs = open_with(path, NULL, WRITER, SHARE_READS);

    check_bytes(path, "100 101 201 202 203 ");
    g_assert_true(set_perm(bs, BLK_PERM_CONSISTENT_READ, SHARE_ALL,
                           &error_abort));
    check_bytes(path, "100 ");
    /* A check that is not followed up leaves nothing. */
    g_assert_true(bs->drv->check_perm(bs, BLK_PERM_ALL, 0, &error_abort));
    check_bytes(path, "100 101 102 103 200 201 202 203 ");
    bs->drv->abort_perm_update(bs);
    check_bytes(path, "100 ");
    fake_close(bs);
    check_bytes(path, "");
}

static void test_conflict(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "conflict", 512);
    BlockDriverState *a = open_with(path, NULL, WRITER, SHARE_READS);
    BlockDriverState *b = fake_open(path, NULL, BDRV_O_RDWR, &error_abort);
    g_autoptr(Error) e1 = NULL, e2 = NULL;
    g_autofree char *hint = NULL;

    /* It uses what the other does not share. */
    g_assert_false(set_perm(b, WRITER, SHARE_ALL, &e1));
    g_assert_cmpstr(error_get_pretty(e1), ==, "Failed to get \"write\" lock");
    hint = g_strdup_printf("Is another process using the image [%s]?\n"
                           "The lock is held by process %d (test-file-locks)"
                           ".\n", path, getpid());
    g_assert_cmpstr(error_get_hint(e1), ==, hint);
    /* It does not share what the other uses. */
    g_assert_false(set_perm(b, BLK_PERM_CONSISTENT_READ,
                            BLK_PERM_ALL & ~BLK_PERM_WRITE, &e2));
    g_assert_cmpstr(error_get_pretty(e2), ==,
                    "Failed to get shared \"write\" lock");
    /* Having failed, it holds nothing. */
    check_bytes(path, "100 101 201 202 203 ");

    g_assert_true(set_perm(b, BLK_PERM_CONSISTENT_READ, SHARE_ALL,
                           &error_abort));
    fake_close(a);
    g_assert_true(set_perm(b, WRITER, SHARE_READS, &error_abort));
    fake_close(b);
}

static void test_off(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "off", 512);
    BlockDriverState *a = open_with(path, NULL, WRITER, SHARE_READS);
    BlockDriverState *b = open_with(path, "{'locking':'off'}", WRITER,
                                    SHARE_READS);

    check_bytes(path, "100 101 201 202 203 ");
    fake_close(b);
    check_bytes(path, "100 101 201 202 203 ");
    fake_close(a);
}

static void test_reopen_keeps(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "reopen", 512);
    BlockDriverState *bs = open_with(path, NULL, WRITER, SHARE_READS);
    g_autoptr(json_t) options = json_object();
    void *state;

    g_assert_true(bs->drv->reopen_prepare(bs, options, 0, &state,
                                          &error_abort));
    /* Permissions change in between; our own new descriptor is no conflict. */
    g_assert_true(bs->drv->check_perm(bs, BLK_PERM_CONSISTENT_READ |
                                      BLK_PERM_WRITE, SHARE_READS,
                                      &error_abort));
    bs->drv->set_perm(bs, BLK_PERM_CONSISTENT_READ, SHARE_READS);
    check_bytes(path, "100 201 202 203 ");
    bs->drv->reopen_commit(bs, state);
    check_bytes(path, "100 201 202 203 ");

    g_assert_true(bs->drv->reopen_prepare(bs, options, BDRV_O_RDWR, &state,
                                          &error_abort));
    bs->drv->reopen_abort(bs, state);
    check_bytes(path, "100 201 202 203 ");
    g_assert_true(set_perm(bs, BLK_PERM_CONSISTENT_READ, SHARE_ALL,
                           &error_abort));
    check_bytes(path, "100 ");
    fake_close(bs);
}

/* Create cuts a file to nothing: not while somebody writes it. */
static void test_create(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "create", 512);
    BlockDriverState *bs = open_with(path, NULL, WRITER, SHARE_READS);
    g_autoptr(json_t) options = json_pack("{s:i}", "size", 1024);
    g_autoptr(Error) err = NULL;

    g_assert_false(bdrv_file.create(NULL, path, options, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Failed to get \"write\" lock");
    g_assert_cmpint(bs->drv->getlength(bs), ==, 512);
    fake_close(bs);
}

/* Another process: its locks count, and end with it. */
static void test_other_process(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "process", 512);
    BlockDriverState *bs = fake_open(path, NULL, BDRV_O_RDWR, &error_abort);
    g_autoptr(Error) err = NULL;
    g_autofree char *who = NULL;
    int fds[2];
    char c;
    pid_t pid;

    g_assert_cmpint(pipe(fds), ==, 0);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        int fd = open(path, O_RDWR);
        bool ok = file_locks_take(fd, path, WRITER, SHARE_READS, NULL);

        if (write(fds[1], ok ? "y" : "n", 1) == 1) {
            pause();
        }
        _exit(1);
    }
    g_assert_cmpint(read(fds[0], &c, 1), ==, 1);
    g_assert_cmpint(c, ==, 'y');
    g_assert_false(set_perm(bs, WRITER, SHARE_ALL, &err));
    who = g_strdup_printf("held by process %d (", pid);
    g_assert_nonnull(strstr(error_get_hint(err), who));

    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    g_assert_true(set_perm(bs, WRITER, SHARE_ALL, &error_abort));
    close(fds[0]);
    close(fds[1]);
    fake_close(bs);
}

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
    if (!file_locks_available()) {
        g_print("1..0 # SKIP no open file description locks\n");
        return 0;
    }
    g_test_add_func("/file-locks/set/qemu-s-bytes", test_bytes);
    g_test_add_func("/file-locks/check/conflict-names-the-holder",
                    test_conflict);
    g_test_add_func("/file-locks/option/off-takes-none", test_off);
    g_test_add_func("/file-locks/reopen/are-kept", test_reopen_keeps);
    g_test_add_func("/file-locks/create/respects-a-writer", test_create);
    g_test_add_func("/file-locks/check/other-process", test_other_process);
    return fake_finish();
}
