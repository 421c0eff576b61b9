/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Errors: what is kept, who owns it, what a report looks like. */
#include "qemu/osdep.h"
#include "qemu/error.h"

static void test_set_message(void)
{
    Error *err = NULL;

    error_setg(&err, "cannot %s '%s'", "open", "x");
    g_assert_cmpstr(error_get_pretty(err), ==, "cannot open 'x'");
    g_assert_cmpstr(error_get_hint(err), ==, "");
    g_assert_cmpint(error_get_class(err), ==, ERROR_CLASS_GENERIC_ERROR);
    g_assert_cmpint(error_get_errno(err), ==, 0);
    error_free(err);
}

static void test_set_null_destination(void)
{
    errno = ENOSPC;
    error_setg(NULL, "nobody hears this");
    error_setg_errno(NULL, EIO, "nor this");
    g_assert_cmpint(errno, ==, ENOSPC);
}

static void test_set_errno(void)
{
    Error *a = NULL, *b = NULL, *c = NULL;

    errno = ENOSPC;
    error_setg_errno(&a, EIO, "read failed");
    g_assert_cmpint(errno, ==, ENOSPC);
    g_assert_cmpstr(error_get_pretty(a), ==, "read failed: Input/output error");
    g_assert_cmpint(error_get_errno(a), ==, EIO);

    error_setg_errno(&b, -EIO, "read failed");
    g_assert_cmpstr(error_get_pretty(b), ==, error_get_pretty(a));
    g_assert_cmpint(error_get_errno(b), ==, EIO);

    error_setg_file_open(&c, ENOENT, "/x");
    g_assert_cmpstr(error_get_pretty(c), ==,
                    "Could not open '/x': No such file or directory");
    error_free(a);
    error_free(b);
    error_free(c);
}

static void test_class_names(void)
{
    Error *err = NULL;

    error_set(&err, ERROR_CLASS_DEVICE_NOT_FOUND, "no %d", 7);
    g_assert_cmpint(error_get_class(err), ==, ERROR_CLASS_DEVICE_NOT_FOUND);
    g_assert_cmpstr(error_class_name(error_get_class(err)), ==,
                    "DeviceNotFound");
    for (int i = 0; i < ERROR_CLASS__MAX; i++) {
        g_assert_nonnull(error_class_name(i));
    }
    error_free(err);
}

static void test_propagate_first_wins(void)
{
    Error *dst = NULL, *first = NULL, *second = NULL;

    error_propagate(&dst, NULL);
    g_assert_null(dst);
    error_setg(&first, "first");
    error_propagate_prepend(&dst, first, "%s: ", "job");
    error_setg(&second, "second");
    error_propagate(&dst, second);
    g_assert_cmpstr(error_get_pretty(dst), ==, "job: first");

    error_propagate(NULL, dst);     /* frees: the leak checker knows */
}

static void test_prepend_and_hint(void)
{
    g_autoptr(Error) err = NULL;
    g_autoptr(Error) copy = NULL;

    error_prepend(&err, "nothing to prepend to");
    error_append_hint(&err, "nothing to hint at");
    g_assert_null(err);

    error_setg_errno(&err, EPERM, "open");
    error_prepend(&err, "%s: ", "a.img");
    error_append_hint(&err, "Try %s,\n", "this");
    error_append_hint(&err, "or that.\n");
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "a.img: open: Operation not permitted");
    g_assert_cmpstr(error_get_hint(err), ==, "Try this,\nor that.\n");

    copy = error_copy(err);
    error_append_hint(&err, "more");
    g_assert_cmpstr(error_get_hint(copy), ==, "Try this,\nor that.\n");
    g_assert_cmpstr(error_get_pretty(copy), ==, error_get_pretty(err));
    g_assert_cmpint(error_get_errno(copy), ==, EPERM);
    g_assert_null(error_copy(NULL));
}

static bool fail_with_guard(Error **errp)
{
    ERRP_GUARD();

    error_setg(errp, "inner");
    g_assert_nonnull(*errp);
    error_prepend(errp, "outer: ");
    return false;
}

static bool succeed_with_guard(Error **errp)
{
    ERRP_GUARD();
    return !*errp;
}

static void test_guard(void)
{
    Error *err = NULL;

    g_assert_false(fail_with_guard(NULL));
    g_assert_false(fail_with_guard(&err));
    g_assert_cmpstr(error_get_pretty(err), ==, "outer: inner");
    error_free(err);
    err = NULL;
    g_assert_true(succeed_with_guard(&err));
    g_assert_null(err);
    g_assert_true(succeed_with_guard(&error_abort));
}

static void test_report_format(void)
{
    if (g_test_subprocess()) {
        Error *err = NULL;

        error_init("/usr/bin/tool");
        error_setg(&err, "bad thing");
        error_append_hint(&err, "Do better.\n");
        error_reportf_err(err, "a.img: ");
        error_report("plain %d", 1);
        warn_report("careful %d", 2);
        info_report("well %d", 3);
        for (int i = 0; i < 3; i++) {
            warn_report_once("once");
        }
        err = NULL;
        error_setg(&err, "odd");
        warn_report_err(err);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("tool: a.img: bad thing\nDo better.\n"
                              "tool: plain 1\n"
                              "tool: warning: careful 2\n"
                              "tool: info: well 3\n"
                              "tool: warning: once\n"
                              "tool: warning: odd\n");
}

static void test_fatal_exits(void)
{
    if (g_test_subprocess()) {
        error_init("tool");
        fail_with_guard(&error_fatal);
        g_assert_not_reached();
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("tool: outer: inner\n");
}

static void test_abort_aborts(void)
{
    if (g_test_subprocess()) {
        error_init("tool");
        error_setg(&error_abort, "never happens");
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("Unexpected error in test_abort_aborts() at "
                              "*test-error.c:*:\ntool: never happens\n");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/error/set/keeps-message", test_set_message);
    g_test_add_func("/error/set/null-is-ignored", test_set_null_destination);
    g_test_add_func("/error/set/keeps-errno", test_set_errno);
    g_test_add_func("/error/class/has-names", test_class_names);
    g_test_add_func("/error/propagate/first-wins", test_propagate_first_wins);
    g_test_add_func("/error/prepend/and-hint", test_prepend_and_hint);
    g_test_add_func("/error/guard/gives-to-caller", test_guard);
    g_test_add_func("/error/report/format", test_report_format);
    g_test_add_func("/error/fatal/exits-1", test_fatal_exits);
    g_test_add_func("/error/abort/names-origin", test_abort_aborts);
    return g_test_run();
}
