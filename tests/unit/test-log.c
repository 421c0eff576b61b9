/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Log records: where they go, and that they stay whole. */
#include "qemu/osdep.h"
#include <pthread.h>
#include <glib/gstdio.h>
#include "qemu/log.h"

static char *tmp_dir, *log_path;

static void test_log_file_pid(void)
{
    g_autofree char *pattern = g_build_filename(tmp_dir, "p%d.log", NULL);
    g_autofree char *name = g_strdup_printf("%s/p%d.log", tmp_dir,
                                            (int)getpid());
    g_autofree char *text = NULL;

    g_assert_true(qemu_log_set_file(pattern, &error_abort));
    qemu_log("hello %d\n", 1);
    g_assert_true(qemu_log_set_file(log_path, &error_abort));
    g_assert_true(g_file_get_contents(name, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "hello 1\n");
    g_remove(name);
}

#define THREADS 4
#define RECORDS 300

static void *logger(void *opaque)
{
    for (int i = 0; i < RECORDS; i++) {
        qemu_log("thread %d %s\n", GPOINTER_TO_INT(opaque),
                 "abcdefghijklmnopqrstuvwxyz");
    }
    return NULL;
}

/* Whole records, all of them, while the destination changes. */
static void test_threads(void)
{
    g_autofree char *other = g_build_filename(tmp_dir, "other", NULL);
    g_autofree char *a = NULL;
    g_autofree char *b = NULL;
    g_autofree char *all = NULL;
    g_auto(GStrv) lines = NULL;
    pthread_t t[THREADS];
    int n = 0;

    for (int i = 0; i < THREADS; i++) {
        g_assert_cmpint(pthread_create(&t[i], NULL, logger,
                                       GINT_TO_POINTER(i)), ==, 0);
    }
    for (int i = 0; i < 50; i++) {
        qemu_log_set_file(other, &error_abort);
        qemu_log_set_file(log_path, &error_abort);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(t[i], NULL);
    }

    g_assert_true(g_file_get_contents(other, &b, NULL, NULL));
    g_assert_true(g_file_get_contents(log_path, &a, NULL, NULL));
    all = g_strconcat(a, b, NULL);
    lines = g_strsplit(all, "\n", -1);
    for (int i = 0; *lines[i]; i++) {
        g_assert_true(g_regex_match_simple(
            "^thread [0-3] abcdefghijklmnopqrstuvwxyz$",
            lines[i], 0, 0));
        n++;
    }
    g_assert_cmpint(n, ==, THREADS * RECORDS);
    g_remove(other);
}

static void test_open_fails(void)
{
    Error *err = NULL;

    g_assert_false(qemu_log_set_file("/nonexistent/x", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Error opening logfile "
                    "/nonexistent/x: No such file or directory");
    error_free(err);
}

/* To stderr from the start, back to it later, errno untouched. */
static void test_stderr(void)
{
    if (g_test_subprocess()) {
        qemu_log_set_file("/dev/null", &error_abort);
        qemu_log("lost\n");
        qemu_log_set_file(NULL, &error_abort);
        errno = EXDEV;
        qemu_log("to %s\n", "stderr");
        g_assert_cmpint(errno, ==, EXDEV);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("to stderr\n");
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    tmp_dir = g_dir_make_tmp("test-log-XXXXXX", NULL);
    log_path = g_build_filename(tmp_dir, "log", NULL);

    g_test_add_func("/log/stderr/and-back", test_stderr);
    g_test_add_func("/log/file/open-fails", test_open_fails);
    g_test_add_func("/log/file/pid-in-name", test_log_file_pid);
    g_test_add_func("/log/threads/whole-records", test_threads);
    ret = g_test_run();

    g_remove(log_path);
    g_rmdir(tmp_dir);
    g_free(log_path);
    g_free(tmp_dir);
    return ret;
}
