/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers, sizes and booleans.  The expectations for sizes are what the 10.0
 * tools make of the same text (qemu-img measure --size, qemu-io read).
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"

#define BAD   (-EINVAL)
#define RANGE (-ERANGE)

typedef struct SizeCase {
    const char *text;
    int ret;
    uint64_t value;
} SizeCase;

static const SizeCase sizes[] = {
    { "0", 0, 0 }, { "1", 0, 1 }, { "12345", 0, 12345 },
    { "+1", 0, 1 }, { " 1", 0, 1 }, { " +1k", 0, 1024 },
    { "010", 0, 10 }, { "08", 0, 8 }, { "0b", 0, 0 },
    { "1b", 0, 1 }, { "1B", 0, 1 }, { "1k", 0, 1024 }, { "1K", 0, 1024 },
    { "1M", 0, MiB }, { "1g", 0, GiB }, { "1T", 0, TiB },
    { "1p", 0, PiB }, { "1e", 0, EiB }, { "15E", 0, 15 * (uint64_t)EiB },
    { "0x10", 0, 16 }, { "0X1f", 0, 31 }, { "+0x10", 0, 16 },
    { "0x1b", 0, 27 }, { "0x1e", 0, 30 },
    { "1.5G", 0, 1610612736 }, { ".5G", 0, 536870912 }, { "1.k", 0, 1024 },
    { "1.", 0, 1 }, { "1.0", 0, 1 }, { "1.00b", 0, 1 },
    /* fractions: to the nearest byte */
    { "1.1k", 0, 1126 }, { "0.1M", 0, 104858 }, { "0.3M", 0, 314573 },
    { "1.0005k", 0, 1025 }, { "1.0015k", 0, 1026 },
    { "2.7G", 0, 2899102925 }, { "1.23456789g", 0, 1325607178 },
    { "0.0001k", 0, 0 }, { "1.9999k", 0, 2048 },
    { "0.00048828125k", 0, 1 }, { "0.00146484375k", 0, 2 },
    { "0.99999999999999999999k", 0, 1024 },
    { "7.5E", 0, UINT64_C(8646911284551352320) },
    { "18446744073709551615", 0, UINT64_MAX },
    { "18446744073709551616", RANGE, UINT64_MAX },
    { "99999999999999999999", RANGE, UINT64_MAX },
    { "99999999999999999999999999999999999999k", RANGE, UINT64_MAX },
    { "16E", RANGE, UINT64_MAX }, { "17179869184G", RANGE, UINT64_MAX },
    { "15.9999999999999999999E", RANGE, UINT64_MAX },
    { "-1", RANGE, 0 }, { "-0", RANGE, 0 },
    { "-1k", BAD, 0 }, { "-0.0", BAD, 0 }, { "-1.5", BAD, 0 },
    { "", BAD, 0 }, { " ", BAD, 0 }, { "k", BAD, 0 }, { ".", BAD, 0 },
    { ".k", BAD, 0 }, { "abc", BAD, 0 }, { "--1", BAD, 0 }, { "+ 1", BAD, 0 },
    { "1.5", BAD, 0 }, { "0.5b", BAD, 0 }, { "1kk", BAD, 0 },
    { "1KB", BAD, 0 }, { "1k ", BAD, 0 }, { "1,5", BAD, 0 },
    { "1e3", BAD, 0 }, { "1E3", BAD, 0 }, { "1e+1", BAD, 0 },
    { "1e-1", BAD, 0 }, { "1e+", BAD, 0 }, { "1.5e3k", BAD, 0 },
    { "0.1e1k", BAD, 0 }, { "0e1", BAD, 0 }, { "00x1", BAD, 0 },
    { "0x", BAD, 0 }, { "0xg", BAD, 0 }, { "0x-1", BAD, 0 },
    { "0x10k", BAD, 0 }, { "0x1.8k", BAD, 0 }, { "0x.1", BAD, 0 },
    { "0x1p3", BAD, 0 }, { "1..2", BAD, 0 }, { "1.-5k", BAD, 0 },
    { "1.5 k", BAD, 0 }, { "inf", BAD, 0 }, { "nan", BAD, 0 },
};

static void test_strtosz(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        uint64_t value = 42;
        int ret = qemu_strtosz(sizes[i].text, NULL, &value);

        g_test_message("'%s'", sizes[i].text);
        g_assert_cmpint(ret, ==, sizes[i].ret);
        g_assert_cmpuint(value, ==, sizes[i].value);
    }
}

static void test_strtosz_end(void)
{
    const char *s, *end;
    uint64_t v;

    s = "1.5k,rest";
    g_assert_cmpint(qemu_strtosz(s, &end, &v), ==, 0);
    g_assert_cmpuint(v, ==, 1536);
    g_assert_cmpstr(end, ==, ",rest");

    s = "1kk";
    g_assert_cmpint(qemu_strtosz(s, &end, &v), ==, 0);
    g_assert_cmpstr(end, ==, "k");

    s = " x";
    g_assert_cmpint(qemu_strtosz(s, &end, &v), ==, -EINVAL);
    g_assert_true(end == s);

    s = "99999999999999999999z";
    g_assert_cmpint(qemu_strtosz(s, &end, &v), ==, -ERANGE);
    g_assert_cmpstr(end, ==, "z");

    g_assert_cmpint(qemu_strtosz(NULL, &end, &v), ==, -EINVAL);
    g_assert_null(end);
}

static void test_strtosz_units(void)
{
    uint64_t v;

    g_assert_cmpint(qemu_strtosz_MiB("1", NULL, &v), ==, 0);
    g_assert_cmpuint(v, ==, MiB);
    g_assert_cmpint(qemu_strtosz_MiB("1.5", NULL, &v), ==, 0);
    g_assert_cmpuint(v, ==, 3 * MiB / 2);
    g_assert_cmpint(qemu_strtosz_MiB("10b", NULL, &v), ==, 0);
    g_assert_cmpuint(v, ==, 10);
    g_assert_cmpint(qemu_strtosz_metric("1.5k", NULL, &v), ==, 0);
    g_assert_cmpuint(v, ==, 1500);
    g_assert_cmpint(qemu_strtosz_metric("3g", NULL, &v), ==, 0);
    g_assert_cmpuint(v, ==, 3000000000);
}

static void test_strtoi(void)
{
    const char *end;
    int v;

    g_assert_cmpint(qemu_strtoi("-12", NULL, 10, &v), ==, 0);
    g_assert_cmpint(v, ==, -12);
    g_assert_cmpint(qemu_strtoi("0x1f", NULL, 0, &v), ==, 0);
    g_assert_cmpint(v, ==, 31);
    g_assert_cmpint(qemu_strtoi("2147483648", NULL, 10, &v), ==, -ERANGE);
    g_assert_cmpint(v, ==, INT_MAX);
    g_assert_cmpint(qemu_strtoi("-2147483649", NULL, 10, &v), ==, -ERANGE);
    g_assert_cmpint(v, ==, INT_MIN);
    g_assert_cmpint(qemu_strtoi("12x", NULL, 10, &v), ==, -EINVAL);
    g_assert_cmpint(v, ==, 0);
    g_assert_cmpint(qemu_strtoi("12x", &end, 10, &v), ==, 0);
    g_assert_cmpint(v, ==, 12);
    g_assert_cmpstr(end, ==, "x");
    g_assert_cmpint(qemu_strtoi("", NULL, 10, &v), ==, -EINVAL);
    g_assert_cmpint(qemu_strtoi(NULL, NULL, 10, &v), ==, -EINVAL);
    g_assert_cmpint(qemu_strtoi("99999999999999999999x", NULL, 10, &v), ==,
                    -EINVAL);
    g_assert_cmpint(v, ==, 0);
}

static void test_strtou(void)
{
    unsigned int u;
    uint64_t v;
    int64_t i;

    g_assert_cmpint(qemu_strtoui("4294967295", NULL, 10, &u), ==, 0);
    g_assert_cmpuint(u, ==, UINT_MAX);
    g_assert_cmpint(qemu_strtoui("4294967296", NULL, 10, &u), ==, -ERANGE);
    g_assert_cmpuint(u, ==, UINT_MAX);
    g_assert_cmpint(qemu_strtou64("18446744073709551615", NULL, 10, &v),
                    ==, 0);
    g_assert_cmpuint(v, ==, UINT64_MAX);
    g_assert_cmpint(qemu_strtou64("18446744073709551616", NULL, 10, &v),
                    ==, -ERANGE);
    g_assert_cmpuint(v, ==, UINT64_MAX);
    g_assert_cmpint(qemu_strtou64("-1", NULL, 10, &v), ==, -ERANGE);
    g_assert_cmpuint(v, ==, 0);
    g_assert_cmpint(qemu_strtou64("-0", NULL, 10, &v), ==, 0);
    g_assert_cmpint(qemu_strtoi64("-9223372036854775808", NULL, 10, &i),
                    ==, 0);
    g_assert_cmpint(i, ==, INT64_MIN);
    g_assert_cmpint(qemu_strtoi64("9223372036854775808", NULL, 10, &i),
                    ==, -ERANGE);
    g_assert_cmpint(i, ==, INT64_MAX);
}

static void test_parse_uint(void)
{
    const char *end;
    uint64_t v;

    g_assert_cmpint(parse_uint_full("7", 10, &v), ==, 0);
    g_assert_cmpuint(v, ==, 7);
    g_assert_cmpint(parse_uint_full("-0", 10, &v), ==, -EINVAL);
    g_assert_cmpint(parse_uint_full("7 ", 10, &v), ==, -EINVAL);
    g_assert_cmpint(parse_uint("7 ", &end, 10, &v), ==, 0);
    g_assert_cmpstr(end, ==, " ");
    g_assert_cmpint(parse_uint_full(NULL, 10, &v), ==, -EINVAL);
}

static void test_size_to_str(void)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        { 0, "0 B" }, { 512, "512 B" }, { 999, "999 B" },
        { 1000, "0.977 KiB" }, { 1024, "1 KiB" }, { 1536, "1.5 KiB" },
        { 102400, "100 KiB" }, { 1024000, "0.977 MiB" },
        { 1047552, "0.999 MiB" }, { MiB, "1 MiB" },
        { 1023488, "1e+03 KiB" },   /* sic: as the stock tools */
        { 1610612736, "1.5 GiB" }, { 999 * GiB, "999 GiB" },
        { 1000 * GiB, "0.977 TiB" }, { TiB, "1 TiB" }, { 5 * TiB, "5 TiB" },
        { UINT64_MAX, "16 EiB" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *s = size_to_str(cases[i].bytes);

        g_assert_cmpstr(s, ==, cases[i].text);
    }
}

static void test_bool_parse(void)
{
    static const char *const yes[] = { "on", "yes", "true", "y" };
    static const char *const no[] = { "off", "no", "false", "n" };
    static const char *const bad[] = { "", "1", "On", "YES", "maybe", "on " };
    Error *err = NULL;
    bool v;

    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        v = false;
        g_assert_true(qapi_bool_parse("x", yes[i], &v, &error_abort));
        g_assert_true(v);
        g_assert_true(qapi_bool_parse("x", no[i], &v, &error_abort));
        g_assert_false(v);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_false(qapi_bool_parse("x", bad[i], &v, &err));
        g_assert_cmpstr(error_get_pretty(err), ==,
                        "Parameter 'x' expects 'on' or 'off'");
        error_free(err);
        err = NULL;
    }
}

static void test_words(void)
{
    const char *rest;

    g_assert_true(id_wellformed("a"));
    g_assert_true(id_wellformed("drive-0.x_Y"));
    g_assert_false(id_wellformed(""));
    g_assert_false(id_wellformed("0a"));
    g_assert_false(id_wellformed("a b"));
    g_assert_false(id_wellformed("#block0"));

    g_assert_true(strstart("json:{}", "json:", &rest));
    g_assert_cmpstr(rest, ==, "{}");
    g_assert_false(strstart("jso", "json:", NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cutils/strtosz/values", test_strtosz);
    g_test_add_func("/cutils/strtosz/end", test_strtosz_end);
    g_test_add_func("/cutils/strtosz/units", test_strtosz_units);
    g_test_add_func("/cutils/strtoi/limits", test_strtoi);
    g_test_add_func("/cutils/strtou/limits", test_strtou);
    g_test_add_func("/cutils/parse_uint/no-minus", test_parse_uint);
    g_test_add_func("/cutils/size_to_str/three-digits", test_size_to_str);
    g_test_add_func("/cutils/bool_parse/words", test_bool_parse);
    g_test_add_func("/cutils/words/id-and-prefix", test_words);
    return g_test_run();
}
