/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Option strings in both dialects, JSON in QEMU's, and the two shapes of a
 * dictionary.  Messages are those of the 10.0 tools for the same text.
 */
#include "qemu/osdep.h"
#include "qemu/options.h"

/* What a dictionary looks like, or "error: message". */
static char *show(json_t *o, Error *err)
{
    char *s;

    g_assert_true(!o == !!err);
    if (err) {
        s = g_strdup_printf("error: %s", error_get_pretty(err));
        error_free(err);
    } else {
        s = options_to_json(o);
        json_decref(o);
    }
    return s;
}

typedef struct Case {
    const char *text;
    const char *expected;
} Case;

#define LONG32  "abcdefghijklmnopqrstuvwxyzabcdef"
#define LONG128 LONG32 LONG32 LONG32 LONG32
#define LONG127 LONG32 LONG32 LONG32 "abcdefghijklmnopqrstuvwxyzabcde"

static const Case keyval_cases[] = {
    { "", "{}" },
    { "driver=raw", "{\"driver\": \"raw\"}" },
    { "driver=raw,", "{\"driver\": \"raw\"}" },
    { "raw", "{\"driver\": \"raw\"}" },
    { "raw,a=b", "{\"driver\": \"raw\", \"a\": \"b\"}" },
    { "a=b,,c,d=,,", "{\"a\": \"b,c\", \"d\": \",\"}" },
    { "a=", "{\"a\": \"\"}" },
    { "a=1=2", "{\"a\": \"1=2\"}" },
    { "a=1,a=2", "{\"a\": \"2\"}" },
    { "a.b=1,a.c.d=2",
      "{\"a\": {\"b\": \"1\", \"c\": {\"d\": \"2\"}}}" },
    { "a.1=y,a.0=x", "{\"a\": [\"x\", \"y\"]}" },
    { "a.01=y,a.00=x", "{\"a\": [\"x\", \"y\"]}" },
    { "a.0=x,a.00=y", "{\"a\": [\"y\"]}" },
    { "a.0.b=1,a.1.b=2",
      "{\"a\": [{\"b\": \"1\"}, {\"b\": \"2\"}]}" },
    { "a.0.0=x,a.0.1=y,a.1.0=z",
      "{\"a\": [[\"x\", \"y\"], [\"z\"]]}" },
    { "__com.foo_x.a=1", "{\"__com.foo_x\": {\"a\": \"1\"}}" },
    { "__x_y=1,a_b-c2=2", "{\"__x_y\": \"1\", \"a_b-c2\": \"2\"}" },
    { "help=1", "{\"help\": \"1\"}" },
    { LONG127 "=1", "{\"" LONG127 "\": \"1\"}" },
    { ",", "error: Invalid parameter ''" },
    { "=x", "error: Invalid parameter ''" },
    { "null,,co", "error: Invalid parameter ''" },
    { "a=1,,,b=2", "{\"a\": \"1,\", \"b\": \"2\"}" },
    { "x=y,driver", "error: Expected '=' after parameter 'driver'" },
    { "x=y,a.b,c=1", "error: Expected '=' after parameter 'a.b'" },
    { "a..b=1", "error: Invalid parameter 'a..b'" },
    { ".a=1", "error: Invalid parameter '.a'" },
    { "a.=1", "error: Invalid parameter 'a.'" },
    { "1a=3", "error: Invalid parameter '1a'" },
    { "0=1", "error: Invalid parameter '0'" },
    { "a b=3", "error: Invalid parameter 'a b'" },
    { "-a=1", "error: Invalid parameter '-a'" },
    { "_a=1", "error: Invalid parameter '_a'" },
    { "a/b=1", "error: Invalid parameter 'a/b'" },
    { "a.0x=1", "error: Invalid parameter 'a.0x'" },
    { "a.-1=1", "error: Invalid parameter 'a.-1'" },
    { "__com.foo=1", "error: Invalid parameter '__com.foo'" },
    { "__x.y_=1", "error: Invalid parameter '__x.y_'" },
    { "___a=1", "error: Invalid parameter '___a'" },
    { "a.b=1,a=2", "error: Parameters 'a.*' used inconsistently" },
    { "a=2,a.b=1", "error: Parameters 'a.*' used inconsistently" },
    { "a.0=1,a.b=2", "error: Parameters 'a.*' used inconsistently" },
    { "a.0=1,a.2=2", "error: Parameter 'a.1' missing" },
    { "a.0.1=1", "error: Parameter 'a.0.0' missing" },
    { "a.99999999999999999999=1", "error: Parameter 'a.0' missing" },
    { LONG128 "=1", "error: Parameter '" LONG128 "' is too long" },
    { "x." LONG128 "=1",
      "error: Parameter fragment '" LONG128 "' is too long" },
};

static void test_keyval(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(keyval_cases); i++) {
        const Case *c = &keyval_cases[i];
        g_autofree char *got = NULL;
        Error *err = NULL;
        bool help = true;
        json_t *o = keyval_parse(c->text, "driver", &help, &err);

        got = show(o, err);
        g_assert_cmpstr(got, ==, c->expected);
        g_assert_false(help);
    }
}

static void test_keyval_help(void)
{
    static const char *const with[] = {
        "help", "?", "a=b,help", "help,a=b", "a=b,?,c=d",
    };
    Error *err = NULL;
    bool help;

    for (size_t i = 0; i < ARRAY_SIZE(with); i++) {
        json_decref(keyval_parse(with[i], "driver", &help, &error_abort));
        g_assert_true(help);
        g_assert_null(keyval_parse(with[i], "driver", NULL, &err));
        g_assert_cmpstr(error_get_pretty(err), ==,
                        "Help is not available for this option");
        error_free(err);
        err = NULL;
    }
    g_assert_null(keyval_parse("helper", NULL, &help, NULL));
}

static void test_keyval_depth(void)
{
    g_autoptr(GString) s = g_string_new("a");
    Error *err = NULL;

    for (int i = 0; i < 100000; i++) {
        g_string_append(s, ".a");
    }
    g_string_append(s, "=1");
    g_assert_null(keyval_parse(s->str, NULL, NULL, &err));
    error_free(err);
    s->str[2 * 1000 - 1] = '=';
    json_decref(keyval_parse(s->str, NULL, NULL, &error_abort));
}

static const Case legacy_cases[] = {
    { "", "{}" },
    { "x.img", "{\"file\": \"x.img\"}" },
    { "a,,b,c=d", "{\"file\": \"a,b\", \"c\": \"d\"}" },
    { ",a=b", "{\"file\": \"\", \"a\": \"b\"}" },
    { "driver=raw,file.filename=x,,y",
      "{\"driver\": \"raw\", \"file.filename\": \"x,y\"}" },
    { "a=1,b", "{\"a\": \"1\", \"b\": \"on\"}" },
    { "a=1,nob", "{\"a\": \"1\", \"b\": \"off\"}" },
    { "a=1,no", "{\"a\": \"1\", \"\": \"off\"}" },
    { "a=1,a=2,", "{\"a\": \"2\"}" },
    { "=1", "{\"\": \"1\"}" },
    { "a.0=1,a.2=2", "{\"a.0\": \"1\", \"a.2\": \"2\"}" },
    { "id=d0,a=1", "{\"id\": \"d0\", \"a\": \"1\"}" },
    { "id=0,a=1", "error: Parameter 'id' expects an identifier" },
};

static void test_legacy(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(legacy_cases); i++) {
        const Case *c = &legacy_cases[i];
        g_autofree char *got = NULL;
        Error *err = NULL;
        bool help = true;
        json_t *o = qemu_opts_parse_legacy(c->text, "file", false, &help,
                                           &err);

        got = show(o, err);
        g_assert_cmpstr(got, ==, c->expected);
        g_assert_false(help);
    }
}

static void test_legacy_help(void)
{
    g_autofree char *got = NULL;
    bool help;

    json_decref(qemu_opts_parse_legacy("size=1M,help", NULL, true, &help,
                                       &error_abort));
    g_assert_true(help);
    /* Without a place for the answer, it is an ordinary word. */
    got = show(qemu_opts_parse_legacy("help", "file", true, NULL,
                                      &error_abort), NULL);
    g_assert_cmpstr(got, ==, "{\"file\": \"help\"}");
}

static void test_legacy_warns(void)
{
    if (g_test_subprocess()) {
        error_init("tool");
        json_decref(qemu_opts_parse_legacy("a=1,read-only,nob", NULL, true,
                                           NULL, &error_abort));
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr(
        "tool: warning: short-form boolean option 'read-only' deprecated\n"
        "Please use read-only=on instead\n"
        "tool: warning: short-form boolean option 'nob' deprecated\n"
        "Please use b=off instead\n");
}

static void test_legacy_merge(void)
{
    g_autofree char *got = NULL;
    g_autoptr(json_t) o = json_object();
    Error *err = NULL;

    qemu_opts_merge_legacy(o, "a=1,b=2", NULL, false, NULL, &error_abort);
    qemu_opts_merge_legacy(o, "b=3,c=4", NULL, false, NULL, &error_abort);
    g_assert_false(qemu_opts_merge_legacy(o, "c=5,id=0", NULL, false, NULL,
                                          &err));
    error_free(err);
    got = options_to_json(o);
    g_assert_cmpstr(got, ==, "{\"a\": \"1\", \"b\": \"3\", \"c\": \"4\"}");
}

static const Case json_cases[] = {
    { "{}", "{}" },
    { " {\"a\":1} \n", "{\"a\": 1}" },
    { "{'a':'b','c':[1,-2,true,null,1.5]}",
      "{\"a\": \"b\", \"c\": [1, -2, true, null, 1.5]}" },
    { "{'a':'x\"y'}", "{\"a\": \"x\\\"y\"}" },
    { "{'a':'x\\'y'}", "{\"a\": \"x'y\"}" },
    { "{\"a\":\"x\\'y\"}", "{\"a\": \"x'y\"}" },
    { "{\"a\":\"it's\"}", "{\"a\": \"it's\"}" },
    { "{'a':'\\\\','b':\"\\\\\"}", "{\"a\": \"\\\\\", \"b\": \"\\\\\"}" },
    { "{'a':'\\u00e4 {[123'}", "{\"a\": \"\xc3\xa4 {[123\"}" },
    { "{'a':9223372036854775807}", "{\"a\": 9223372036854775807}" },
    { "{'a':18446744073709551615}", "{\"a\": \"18446744073709551615\"}" },
    { "", "error: Expecting a JSON value" },
    { " ", "error: Expecting a JSON value" },
    { "{", "error: JSON parse error, premature EOI" },
    { "{'a'", "error: JSON parse error, premature EOI" },
    { "{} {}", "error: Expecting at most one JSON value" },
    { "{}x", "error: Expecting at most one JSON value" },
    { "{'a':1,'a':2}", "error: JSON parse error, duplicate key" },
    { "{'a':1,\"a\":2}", "error: JSON parse error, duplicate key" },
    { "[]", "error: Invalid JSON object given" },
    { "5", "error: Invalid JSON object given" },
    { "'x'", "error: Invalid JSON object given" },
};

static const char *const json_bad[] = {
    "{'a'}", "{'a':}", "{'a':tru}", "{'a':1,}", "{a:1}", "{'a':01}",
    "{'a':1e}", "{'a':'x}", "{'a':\"x'}", "{'a':'\\x'}", "{'a':'\\u12'}",
    "{'a':'\xff'}", "{'a':'\\u0000'}", "{'a':'\\ud800'}", "{'a':'\n'}",
    "{'a':- 1}", "{'a':'\\", "{'a':1-1}", "}", "x", "'", "\"",
};

static void test_json(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(json_cases); i++) {
        Error *err = NULL;
        json_t *o = options_from_json(json_cases[i].text, &err);
        g_autofree char *got = show(o, err);

        g_assert_cmpstr(got, ==, json_cases[i].expected);
    }
    for (size_t i = 0; i < ARRAY_SIZE(json_bad); i++) {
        g_autofree char *escaped = g_strescape(json_bad[i], NULL);
        Error *err = NULL;

        g_test_message("%s", escaped);
        g_assert_null(options_from_json(json_bad[i], &err));
        g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                       "JSON parse error, "));
        error_free(err);
    }
}

static void test_json_length(void)
{
    static const char nul_inside[] = "1\0 ";
    Error *err = NULL;
    json_t *v = json_parse_qemu("123", 2, &error_abort);

    g_assert_cmpint(json_integer_value(v), ==, 12);
    json_decref(v);
    g_assert_null(json_parse_qemu(nul_inside, 3, &err));
    error_free(err);
}

static void test_json_depth(void)
{
    g_autoptr(GString) s = g_string_new(NULL);
    Error *err = NULL;

    for (int i = 0; i < 100000; i++) {
        g_string_append(s, "{'a':");
    }
    g_assert_null(options_from_json(s->str, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "JSON nested deeper than 1024 levels");
    error_free(err);
}

static void test_parse_either(void)
{
    g_autofree char *a = NULL;
    g_autofree char *b = NULL;
    bool help = true;

    a = show(options_parse("{'driver':'raw'}", "driver", &help,
                           &error_abort), NULL);
    g_assert_false(help);
    b = show(options_parse("raw", "driver", &help, &error_abort), NULL);
    g_assert_cmpstr(a, ==, b);
}

/* Text before and after crumpling, then flattened again. */
static const char *const shapes[][3] = {
    { "{'a.b':1,'a.c':2,'d':'x'}",
      "{\"a\": {\"b\": 1, \"c\": 2}, \"d\": \"x\"}",
      "{\"a.b\": 1, \"a.c\": 2, \"d\": \"x\"}" },
    { "{'l.1':true,'l.0.x':null}",
      "{\"l\": [{\"x\": null}, true]}",
      "{\"l.0.x\": null, \"l.1\": true}" },
    { "{'file':{'driver':'file'},'file.filename':'x'}",
      "{\"file\": {\"driver\": \"file\", \"filename\": \"x\"}}",
      "{\"file.driver\": \"file\", \"file.filename\": \"x\"}" },
    { "{'e':{},'f':[]}", "{\"e\": {}, \"f\": []}", "{\"e\": {}, \"f\": []}" },
    { "{'a..b.c':1}", "{\"a.b\": {\"c\": 1}}", "{\"a.b.c\": 1}" },
};

static void test_shapes(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        g_autoptr(json_t) in = options_from_json(shapes[i][0], &error_abort);
        g_autoptr(json_t) nested = options_crumple(in, &error_abort);
        g_autoptr(json_t) flat = options_flatten(nested);
        g_autofree char *n = options_to_json(nested);
        g_autofree char *f = options_to_json(flat);

        g_assert_cmpstr(n, ==, shapes[i][1]);
        g_assert_cmpstr(f, ==, shapes[i][2]);
    }
}

static void test_crumple_errors(void)
{
    static const Case cases[] = {
        { "{'a':1,'a.b':2}", "error: Cannot mix scalar and non-scalar keys" },
        { "{'a':{},'a.b':2}", "error: Cannot mix scalar and non-scalar keys" },
        { "{'a.b':2,'a':1}", "error: Cannot mix scalar and non-scalar keys" },
        { "{'a.0':1,'a.b':2}", "error: Cannot mix list and non-list keys" },
        { "{'a.0':1,'a.2':2}", "error: List indices are not contiguous, "
          "saw 2 elements but 2 largest index" },
        { "{'a.9':1,'a.10':2}", "error: List indices are not contiguous, "
          "saw 2 elements but 10 largest index" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autoptr(json_t) in = options_from_json(cases[i].text, &error_abort);
        Error *err = NULL;
        json_t *o = options_crumple(in, &err);
        g_autofree char *got = show(o, err);

        g_assert_cmpstr(got, ==, cases[i].expected);
    }
}

static void test_extract_prefix(void)
{
    g_autoptr(json_t) o = options_from_json(
        "{'file.a':1,'x':2,'file.b.c':3,'filex':4}", &error_abort);
    g_autoptr(json_t) file = options_extract_prefix(o, "file.");
    g_autofree char *left = options_to_json(o);
    g_autofree char *taken = options_to_json(file);

    g_assert_cmpstr(left, ==, "{\"x\": 2, \"filex\": 4}");
    g_assert_cmpstr(taken, ==, "{\"a\": 1, \"b.c\": 3}");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/keyval/parse/as-stock", test_keyval);
    g_test_add_func("/keyval/parse/help", test_keyval_help);
    g_test_add_func("/keyval/parse/depth-limited", test_keyval_depth);
    g_test_add_func("/keyval/legacy/as-stock", test_legacy);
    g_test_add_func("/keyval/legacy/help", test_legacy_help);
    g_test_add_func("/keyval/legacy/warns", test_legacy_warns);
    g_test_add_func("/keyval/legacy/merges", test_legacy_merge);
    g_test_add_func("/keyval/json/both-quotes", test_json);
    g_test_add_func("/keyval/json/length", test_json_length);
    g_test_add_func("/keyval/json/depth-limited", test_json_depth);
    g_test_add_func("/keyval/options_parse/either", test_parse_either);
    g_test_add_func("/keyval/shapes/there-and-back", test_shapes);
    g_test_add_func("/keyval/crumple/errors", test_crumple_errors);
    g_test_add_func("/keyval/extract_prefix/splits", test_extract_prefix);
    return g_test_run();
}
