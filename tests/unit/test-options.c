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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options/take/bool", test_bool);
    g_test_add_func("/options/take/integers", test_integers);
    g_test_add_func("/options/take/range", test_range);
    return g_test_run();
}
