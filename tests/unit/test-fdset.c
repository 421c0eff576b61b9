/*
 * Tests of the registry of announced descriptors.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/fdset.h"
#include "qemu/options.h"
#include <glib/gstdio.h>
#include <sys/stat.h>

/* The name of a file that this test has made; its caller removes it. */
static char *make_file(void)
{
    char *path = NULL;
    int fd = g_file_open_tmp("fdset-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    return path;
}

static void test_open_by_set(void)
{
    g_autofree char *path = make_file();
    int64_t id = fdset_add(-1, open(path, O_RDONLY | O_CLOEXEC), "note");
    g_autofree char *name = g_strdup_printf("/dev/fdset/%" PRId64, id);
    g_autoptr(Error) err = NULL;
    struct stat a, b;
    int fd;

    g_assert_true(fdset_is_reference(name));
    fd = fdset_open(name, O_RDONLY, &error_abort);
    g_assert_cmpint(fstat(fd, &a), ==, 0);
    g_assert_cmpint(stat(path, &b), ==, 0);
    g_assert_cmpint(a.st_ino, ==, b.st_ino);
    close(fd);

    g_assert_cmpint(fdset_open(name, O_RDWR, &err), <, 0);
    g_assert_cmpint(errno, ==, EACCES);
    /* A second descriptor of the set has that mode. */
    fdset_add(id, open(path, O_RDWR | O_CLOEXEC), NULL);
    fd = fdset_open(name, O_RDWR, &error_abort);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    fdset_clear();
    g_remove(path);
}

static void test_unknown(void)
{
    static const char *const names[] = {
        "/dev/fdset/77", "/dev/fdset/x", "/dev/fdset/", "/dev/fdset/-1",
        "fd:0", "fd:none",
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        g_autoptr(Error) err = NULL;

        g_assert_cmpint(fdset_open(names[i], O_RDONLY, &err), ==, -1);
        g_assert_nonnull(err);
    }
    g_assert_false(fdset_is_reference("fdset"));
    g_assert_false(fdset_is_reference("/dev/null"));
}

static void test_named(void)
{
    g_autofree char *path = make_file();
    g_autoptr(Error) err = NULL;
    int fd;

    fdset_add_named("disk", open(path, O_RDONLY | O_CLOEXEC));
    fd = fdset_open("fd:disk", O_RDONLY, &error_abort);
    close(fd);
    /* The name goes to another descriptor; a writable one this time. */
    fdset_add_named("disk", open(path, O_RDWR | O_CLOEXEC));
    g_assert_cmpint(fdset_open("fd:disk", O_RDONLY, &err), <, 0);
    fd = fdset_open("fd:disk", O_RDWR, &error_abort);
    close(fd);
    fdset_clear();
    g_assert_cmpint(fdset_open("fd:disk", O_RDWR, NULL), <, 0);
    g_remove(path);
}

static void test_query_and_remove(void)
{
    g_autofree char *path = make_file();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    g_autoptr(json_t) sets = NULL;
    g_autoptr(Error) err = NULL;
    g_autoptr(json_t) expected = json_pack(
        "[{s:i, s:[{s:i, s:s}]}]", "fdset-id", 3, "fds", "fd", fd, "opaque",
        "mine");

    fdset_add(3, fd, "mine");
    sets = fdset_query();
    g_assert_true(json_equal(sets, expected));

    g_assert_false(fdset_remove(3, fd + 1, &err));
    g_assert_true(fdset_remove(3, fd, &error_abort));
    g_assert_cmpint(fcntl(fd, F_GETFD), <, 0);
    g_assert_false(fdset_remove(3, -1, NULL));
    g_remove(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fdset/open/finds-the-descriptor-of-the-mode",
                    test_open_by_set);
    g_test_add_func("/fdset/open/refuses-what-was-not-announced",
                    test_unknown);
    g_test_add_func("/fdset/open/by-name", test_named);
    g_test_add_func("/fdset/query/lists-and-remove-closes",
                    test_query_and_remove);
    return g_test_run();
}
