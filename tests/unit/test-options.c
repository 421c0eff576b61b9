/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Typed values out of dictionaries: each taker with the native type, the
 * string, nothing, and what it must refuse.
 */
#include "qemu/osdep.h"
#include "qemu/options.h"

static json_t *from(const char *text)
{
    return options_from_json(text, &error_abort);
}

/* @err must say @text; frees it. */
static void expect_error(Error **err, const char *text)
{
    g_assert_nonnull(*err);
    g_assert_cmpstr(error_get_pretty(*err), ==, text);
    error_free(*err);
    *err = NULL;
}

static void test_bool(void)
{
    g_autoptr(json_t) o = from("{'a':true,'b':'off','c':null,'d':1,'e':'x'}");
    bool v = false;
    Error *err = NULL;

    g_assert_true(opt_take_bool(o, "a", &v, &error_abort));
    g_assert_true(v);
    g_assert_true(opt_take_bool(o, "b", &v, &error_abort));
    g_assert_false(v);
    v = true;
    g_assert_true(opt_take_bool(o, "c", &v, &error_abort));
    g_assert_true(opt_take_bool(o, "absent", &v, &error_abort));
    g_assert_true(v);
    g_assert_false(opt_take_bool(o, "d", &v, &err));
    expect_error(&err, "Invalid parameter type for 'd', expected: boolean");
    g_assert_false(opt_take_bool(o, "e", &v, &err));
    expect_error(&err, "Parameter 'e' expects 'on' or 'off'");
    g_assert_true(v);
    g_assert_cmpuint(json_object_size(o), ==, 0);
}

static void test_integers(void)
{
    g_autoptr(json_t) o = from("{'a':-5,'b':'0x10','c':'x','d':1.5,"
                               "'e':18446744073709551615,'f':-1,'g':'-1',"
                               "'h':99999999999999999999,'i':'7 '}");
    int64_t i = 0;
    uint64_t u = 0;
    Error *err = NULL;

    g_assert_true(opt_take_i64(o, "a", &i, &error_abort));
    g_assert_cmpint(i, ==, -5);
    g_assert_true(opt_take_u64(o, "b", &u, &error_abort));
    g_assert_cmpuint(u, ==, 16);
    g_assert_false(opt_take_i64(o, "c", &i, &err));
    expect_error(&err, "Parameter 'c' expects a number");
    g_assert_false(opt_take_i64(o, "d", &i, &err));
    expect_error(&err, "Invalid parameter type for 'd', expected: integer");
    g_assert_true(opt_take_u64(o, "e", &u, &error_abort));
    g_assert_cmpuint(u, ==, UINT64_MAX);
    g_assert_false(opt_take_u64(o, "f", &u, &err));
    expect_error(&err, "Value '-1' is out of range for parameter 'f'");
    g_assert_false(opt_take_u64(o, "g", &u, &err));
    expect_error(&err, "Value '-1' is out of range for parameter 'g'");
    g_assert_false(opt_take_u64(o, "h", &u, &err));
    expect_error(&err, "Value '99999999999999999999' is out of range for "
                 "parameter 'h'");
    g_assert_false(opt_take_u64(o, "i", &u, &err));
    expect_error(&err, "Parameter 'i' expects a number");
    g_assert_cmpint(i, ==, -5);
    g_assert_cmpuint(u, ==, UINT64_MAX);
}

static void test_range(void)
{
    g_autoptr(json_t) o = from("{'a':5,'b':'11','c':0,'d':null}");
    uint64_t u = 77;    /* a default may lie outside */
    Error *err = NULL;

    g_assert_true(opt_take_range(o, "absent", 1, 10, &u, &error_abort));
    g_assert_true(opt_take_range(o, "d", 1, 10, &u, &error_abort));
    g_assert_cmpuint(u, ==, 77);
    g_assert_true(opt_take_range(o, "a", 1, 10, &u, &error_abort));
    g_assert_cmpuint(u, ==, 5);
    g_assert_false(opt_take_range(o, "b", 1, 10, &u, &err));
    expect_error(&err, "Parameter 'b' must be between 1 and 10");
    g_assert_false(opt_take_range(o, "c", 1, 10, &u, &err));
    expect_error(&err, "Parameter 'c' must be between 1 and 10");
    g_assert_cmpuint(u, ==, 5);
}

static void test_size(void)
{
    g_autoptr(json_t) o = from("{'a':'1.5k','b':4096,'c':'x','d':'-1',"
                               "'e':'16E','f':true,'g':'8E','h':'1G'}");
    uint64_t u = 0;
    int64_t off = -1;
    Error *err = NULL;

    g_assert_true(opt_take_size(o, "a", &u, &error_abort));
    g_assert_cmpuint(u, ==, 1536);
    g_assert_true(opt_take_size(o, "b", &u, &error_abort));
    g_assert_cmpuint(u, ==, 4096);
    g_assert_false(opt_take_size(o, "c", &u, &err));
    g_assert_cmpstr(error_get_hint(err), ==,
                    "Optional suffix k, M, G, T, P or E means kilo-, mega-, "
                    "giga-, tera-, peta-\nand exabytes, respectively.\n");
    expect_error(&err, "Parameter 'c' expects a non-negative number below "
                 "2^64");
    g_assert_false(opt_take_size(o, "d", &u, &err));
    expect_error(&err, "Value '-1' is out of range for parameter 'd'");
    g_assert_false(opt_take_size(o, "e", &u, &err));
    expect_error(&err, "Value '16E' is out of range for parameter 'e'");
    g_assert_false(opt_take_size(o, "f", &u, &err));
    expect_error(&err, "Invalid parameter type for 'f', expected: integer");
    g_assert_cmpuint(u, ==, 4096);

    g_assert_true(opt_take_offset(o, "absent", &off, &error_abort));
    g_assert_cmpint(off, ==, -1);
    g_assert_false(opt_take_offset(o, "g", &off, &err));
    expect_error(&err, "Value '9223372036854775808' is out of range for "
                 "parameter 'g'");
    g_assert_true(opt_take_offset(o, "h", &off, &error_abort));
    g_assert_cmpint(off, ==, GiB);
}

static void test_enum(void)
{
    static const char *const names[] = { "off", "falloc", "full", NULL };
    g_autoptr(json_t) o = from("{'a':'full','b':'x','c':1,'d':'auto',"
                               "'e':'on','f':false,'g':'x'}");
    int v = 0;
    OnOffAuto ooa = ON_OFF_AUTO_OFF;
    Error *err = NULL;

    g_assert_true(opt_take_enum(o, "absent", names, &v, &error_abort));
    g_assert_cmpint(v, ==, 0);
    g_assert_true(opt_take_enum(o, "a", names, &v, &error_abort));
    g_assert_cmpint(v, ==, 2);
    g_assert_false(opt_take_enum(o, "b", names, &v, &err));
    expect_error(&err, "Parameter 'b' does not accept value 'x'");
    g_assert_false(opt_take_enum(o, "c", names, &v, &err));
    expect_error(&err, "Invalid parameter type for 'c', expected: string");

    g_assert_true(opt_take_on_off_auto(o, "absent", &ooa, &error_abort));
    g_assert_cmpint(ooa, ==, ON_OFF_AUTO_OFF);
    g_assert_true(opt_take_on_off_auto(o, "d", &ooa, &error_abort));
    g_assert_cmpint(ooa, ==, ON_OFF_AUTO_AUTO);
    g_assert_true(opt_take_on_off_auto(o, "e", &ooa, &error_abort));
    g_assert_cmpint(ooa, ==, ON_OFF_AUTO_ON);
    g_assert_true(opt_take_on_off_auto(o, "f", &ooa, &error_abort));
    g_assert_cmpint(ooa, ==, ON_OFF_AUTO_OFF);
    g_assert_false(opt_take_on_off_auto(o, "g", &ooa, &err));
    expect_error(&err, "Parameter 'g' expects 'on' or 'off'");
    g_assert_cmpuint(json_object_size(o), ==, 0);
}

static void test_str(void)
{
    g_autoptr(json_t) o = from("{'a':'x','b':5,'c':true,'d':{},'e':null}");
    g_autofree char *a = NULL;
    g_autofree char *b = NULL;
    g_autofree char *c = NULL;
    Error *err = NULL;

    g_assert_cmpstr(opt_peek_str(o, "a"), ==, "x");
    g_assert_null(opt_peek_str(o, "b"));
    a = opt_take_str_required(o, "a", &error_abort);
    b = opt_take_str(o, "b");
    c = opt_take_str(o, "c");
    g_assert_cmpstr(a, ==, "x");
    g_assert_cmpstr(b, ==, "5");
    g_assert_cmpstr(c, ==, "on");
    g_assert_null(opt_take_str(o, "d"));
    g_assert_null(opt_take_str(o, "e"));
    g_assert_null(opt_take_str_required(o, "a", &err));
    expect_error(&err, "Parameter 'a' is missing");
    g_assert_null(opt_take_str_required(o, "d", &err));
    expect_error(&err, "Invalid parameter type for 'd', expected: string");
    g_assert_cmpstr(opt_first_unused(o), ==, "d");
}

static void test_containers_and_unused(void)
{
    g_autoptr(json_t) o = from("{'o':{'x':1},'l':[1,2],'s':'str','z':1}");
    g_autoptr(json_t) obj = opt_take_object(o, "o");
    g_autoptr(json_t) list = opt_take_array(o, "l");
    g_autoptr(json_t) any = NULL;
    Error *err = NULL;

    g_assert_cmpuint(json_object_size(obj), ==, 1);
    g_assert_cmpuint(json_array_size(list), ==, 2);
    g_assert_null(opt_take_object(o, "s"));
    g_assert_null(opt_take_array(o, "s"));
    any = opt_take_any(o, "s");
    g_assert_cmpstr(json_string_value(any), ==, "str");
    g_assert_cmpstr(opt_first_unused(o), ==, "z");
    g_assert_false(opt_check_unused(o, &err));
    expect_error(&err, "Invalid parameter 'z'");
    json_object_del(o, "z");
    g_assert_null(opt_first_unused(o));
    g_assert_true(opt_check_unused(o, &error_abort));
}

static void test_make(void)
{
    g_autoptr(json_t) o = json_object();
    g_autofree char *text = NULL;
    g_autofree char *bad = NULL;
    g_autofree char *name = NULL;
    uint64_t u = 0;

    opt_set_str(o, "s", "x");
    opt_set_bool(o, "b", true);
    opt_set_u64(o, "u", 5);
    opt_set_u64(o, "big", UINT64_MAX);
    opt_default_str(o, "s", "y");
    opt_default_str(o, "t", "z");
    opt_set_str(o, "b2", NULL);
    text = options_to_json(o);
    g_assert_cmpstr(text, ==, "{\"s\": \"x\", \"b\": true, \"u\": 5, "
                    "\"big\": \"18446744073709551615\", \"t\": \"z\"}");
    g_assert_true(opt_take_u64(o, "big", &u, &error_abort));
    g_assert_cmpuint(u, ==, UINT64_MAX);
    opt_set_str(o, "t", NULL);
    g_assert_null(opt_peek_str(o, "t"));

    /* A file name may be any bytes, and comes back as it was. */
    json_object_clear(o);
    opt_set_str(o, "f", "a\xff" "b");
    bad = options_to_json(o);
    g_assert_cmpstr(bad, ==, "{\"f\": \"a\xef\xbf\xbd" "b\"}");
    name = opt_take_str(o, "f");
    g_assert_cmpstr(name, ==, "a\xff" "b");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options/take/bool", test_bool);
    g_test_add_func("/options/take/integers", test_integers);
    g_test_add_func("/options/take/range", test_range);
    g_test_add_func("/options/take/size", test_size);
    g_test_add_func("/options/take/enum", test_enum);
    g_test_add_func("/options/take/str", test_str);
    g_test_add_func("/options/take/rest", test_containers_and_unused);
    g_test_add_func("/options/set/and-print", test_make);
    return g_test_run();
}
