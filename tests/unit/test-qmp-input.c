/*
 * Cutting a stream into JSON values, wherever the stream is cut.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qmp-input.h"

/* What came out: values in brackets, or the reason in parentheses. */
static void collect(void *opaque, const char *text, size_t len, const char *why)
{
    GString *seen = opaque;

    if (why) {
        g_string_append_printf(seen, "(%s)", why);
    } else {
        g_string_append_printf(seen, "<%.*s>", (int)len, text);
    }
}

/* In pieces of @piece bytes. */
static void check_pieces(const char *stream, size_t piece, const char *expected)
{
    g_autoptr(GString) seen = g_string_new(NULL);
    size_t len = strlen(stream);
    QmpInput in;

    qmp_input_init(&in);
    for (size_t i = 0; i < len; i += piece) {
        size_t n = MIN(piece, len - i);

        for (size_t done = 0; done < n; ) {
            size_t got = qmp_input_feed(&in, stream + i + done, n - done,
                                        collect, seen);

            g_assert_cmpint(got, >, 0);
            done += got;
        }
    }
    g_assert_cmpstr(seen->str, ==, expected);
    qmp_input_destroy(&in);
}

static void check(const char *stream, const char *expected)
{
    for (size_t piece = 1; piece <= strlen(stream); piece++) {
        check_pieces(stream, piece, expected);
    }
}

static void test_values(void)
{
    check("{\"a\": [1, {}]}\r\n{'b':2}[3]", "<{\"a\": [1, {}]}><{'b':2}><[3]>");
    /* Nothing yet. */
    check(" \n{\"a\":", "");
    check("\"text\" 12 ", "<\"text\"><12>");
}

static void test_brackets_in_strings(void)
{
    check("{\"a\": \"}\"} {'b': ']}\\'}'} {\"c\\\\\": '\"'}",
          "<{\"a\": \"}\"}><{'b': ']}\\'}'}><{\"c\\\\\": '\"'}>");
}

static void test_understood_again(void)
{
    check("{\"exec\n{\"a\":1}", "(control character in a string)<{\"a\":1}>");
    check("}{\"a\":1}", "<}><{\"a\":1}>");
    check("nonsense {\"a\":1}", "<nonsense><{\"a\":1}>");
}

static void test_bounds(void)
{
    g_autofree char *deep = g_strnfill(QMP_INPUT_MAX_DEPTH + 2, '[');
    g_autofree char *exact = g_strnfill(QMP_INPUT_MAX_DEPTH, '[');
    g_autofree char *text = g_malloc(1 * MiB);
    g_autoptr(GString) seen = g_string_new(NULL);
    QmpInput in;

    check_pieces(deep, 4096, "(nested too deeply)");
    check_pieces(exact, 4096, "");
    memset(text, 'x', 1 * MiB);
    qmp_input_init(&in);
    qmp_input_feed(&in, "[\"", 2, collect, seen);
    for (int i = 0; i < QMP_INPUT_MAX_BYTES / MiB; i++) {
        g_assert_cmpint(in.text->len, <=, QMP_INPUT_MAX_BYTES);
        qmp_input_feed(&in, text, 1 * MiB, collect, seen);
    }
    g_assert_true(g_str_has_prefix(seen->str, "(value too long)"));
    qmp_input_destroy(&in);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp-input/values", test_values);
    g_test_add_func("/qmp-input/brackets-in-strings",
                    test_brackets_in_strings);
    g_test_add_func("/qmp-input/understood-again", test_understood_again);
    g_test_add_func("/qmp-input/bounds", test_bounds);
    return g_test_run();
}
