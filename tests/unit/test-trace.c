/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Trace events: which fire, what is recorded, the -T option. */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qemu/log.h"
#include "qemu/trace.h"

TRACE_EVENT(unit_alpha);
TRACE_EVENT(unit_beta);
TRACE_EVENT(unit_ten);

static char *tmp_dir, *log_path;

/* The log so far, and start afresh. */
static char *take_log(void)
{
    char *text = NULL;

    g_assert_true(g_file_get_contents(log_path, &text, NULL, NULL));
    g_assert_cmpint(truncate(log_path, 0), ==, 0);
    return text;
}

static void fire(void)
{
    trace(unit_alpha, "value %d %s", 5, "five");
    trace(unit_beta, "nothing");
    trace(unit_ten, "%d%d%d%d%d%d%d%d%d%d", 1, 2, 3, 4, 5, 6, 7, 8, 9, 0);
}

static void test_off(void)
{
    g_autofree char *log = NULL;

    trace_enable_pattern("-*");
    fire();
    g_assert_false(trace_enabled(unit_alpha));
    log = take_log();
    g_assert_cmpstr(log, ==, "");
}

static void test_record(void)
{
    g_autofree char *log = NULL;
    g_autofree char *expected = NULL;

    g_assert_cmpuint(trace_enable_pattern("unit_alpha"), ==, 1);
    errno = EXDEV;
    fire();
    g_assert_cmpint(errno, ==, EXDEV);
    log = take_log();
    expected = g_strdup_printf("^%d\\.[0-9]+@[0-9]+\\.[0-9]{6}:"
                               "unit_alpha value 5 five\n$", (int)getpid());
    g_assert_true(g_regex_match_simple(expected, log, 0, 0));
    trace_enable_pattern("-unit_alpha");
}

static void test_long_record(void)
{
    g_autofree char *text = g_strnfill(5000, 'x');
    g_autofree char *log = NULL;

    trace_enable_pattern("unit_beta");
    trace(unit_beta, "%s", text);
    trace(unit_beta, "%s", "next");
    log = take_log();
    g_assert_true(g_str_has_suffix(log, ":unit_beta next\n"));
    g_assert_nonnull(strstr(log, "xxx\n"));
    g_assert_cmpuint(strlen(log), <, 1200);
    trace_enable_pattern("-unit_beta");
}

static void test_patterns(void)
{
    static const struct {
        const char *pattern;
        bool alpha, beta;
    } cases[] = {
        { "unit_*", true, true }, { "unit_?lpha", true, false },
        { "*", true, true }, { "*ha", true, false }, { "u*t_*a", true, true },
        { "unit_alph", false, false }, { "unit_alpha?", false, false },
        { "unit_alpha*", true, false }, { "", false, false },
        { "unit_[ab]*", false, false }, { "*unit_*b*e*a*", false, true },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        trace_enable_pattern("-*");
        g_test_message("'%s'", cases[i].pattern);
        trace_enable_pattern(cases[i].pattern);
        g_assert_cmpint(trace_event_unit_alpha.enabled, ==, cases[i].alpha);
        g_assert_cmpint(trace_event_unit_beta.enabled, ==, cases[i].beta);
    }
    trace_enable_pattern("-*");
    g_assert_cmpuint(trace_enable_pattern("-unit_*"), ==, 3);
}

static void test_late_event(void)
{
    static TraceEvent on = { .name = "late_on" };
    static TraceEvent off = { .name = "late_off" };

    trace_enable_pattern("late_*");
    trace_enable_pattern("-late_off");
    trace_event_register(&on);
    trace_event_register(&off);
    g_assert_true(on.enabled);
    g_assert_false(off.enabled);
    trace_enable_pattern("-*");
    g_assert_false(on.enabled);
}

static void test_option(void)
{
    g_autofree char *events = g_build_filename(tmp_dir, "events", NULL);
    g_autofree char *with = g_strdup_printf("events=%s", events);
    Error *err = NULL;

    g_assert_true(trace_opt_parse("unit_alpha", &error_abort));
    g_assert_true(trace_event_unit_alpha.enabled);
    g_assert_true(trace_opt_parse("enable=-unit_al*", &error_abort));
    g_assert_false(trace_event_unit_alpha.enabled);
    g_assert_true(trace_opt_parse("", &error_abort));

    g_file_set_contents(events, "# comment\n\n unit_*\n-unit_beta\n", -1,
                        NULL);
    g_assert_true(trace_opt_parse(with, &error_abort));
    g_assert_true(trace_event_unit_alpha.enabled);
    g_assert_false(trace_event_unit_beta.enabled);
    trace_enable_pattern("-*");
    g_remove(events);

    g_assert_false(trace_opt_parse("unit_alpha,foo=1", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Invalid parameter 'foo'");
    g_assert_false(trace_event_unit_alpha.enabled);
    error_free(err);
    err = NULL;
    g_assert_false(trace_opt_parse(with, &err));
    g_assert_cmpint(error_get_errno(err), ==, ENOENT);
    error_free(err);
    err = NULL;
    g_assert_false(trace_opt_parse("file=/nonexistent/x", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Error opening logfile "
                    "/nonexistent/x: No such file or directory");
    error_free(err);
}

static void test_option_messages(void)
{
    if (g_test_subprocess()) {
        error_init("tool");
        trace_opt_parse("nosuch", &error_abort);
        trace_opt_parse("nosuch*", &error_abort);
        trace_opt_parse("help", &error_abort);
        g_assert_not_reached();
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr(
        "tool: warning: trace event 'nosuch' does not exist\n");
    g_test_trap_assert_stdout("*unit_alpha\nunit_beta\nunit_ten\n*");
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    tmp_dir = g_dir_make_tmp("test-trace-XXXXXX", NULL);
    log_path = g_build_filename(tmp_dir, "log", NULL);
    qemu_log_set_file(log_path, &error_abort);

    g_test_add_func("/trace/off/writes-nothing", test_off);
    g_test_add_func("/trace/record/format", test_record);
    g_test_add_func("/trace/record/cut-off", test_long_record);
    g_test_add_func("/trace/pattern/globs", test_patterns);
    g_test_add_func("/trace/register/obeys-earlier-pattern", test_late_event);
    g_test_add_func("/trace/option/parses", test_option);
    g_test_add_func("/trace/option/messages", test_option_messages);
    ret = g_test_run();

    g_remove(log_path);
    g_rmdir(tmp_dir);
    g_free(log_path);
    g_free(tmp_dir);
    return ret;
}
