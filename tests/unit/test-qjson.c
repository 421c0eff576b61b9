/*
 * JSON text as QEMU prints it.  The expected texts are what its tools print.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/qjson.h"
#include "qemu/options.h"

static void check(const char *json, bool pretty, const char *expected)
{
    g_autoptr(json_t) v = json_loads(json, JSON_DECODE_ANY, NULL);
    g_autofree char *text = NULL;

    g_assert_nonnull(v);
    text = qobject_to_json(v, pretty);
    g_assert_cmpstr(text, ==, expected);
}

static void test_keys_in_hash_order(void)
{
    check("{\"driver\": \"raw\", \"file\": {\"filename\": \"a.img\","
          " \"driver\": \"file\"}, \"size\": 1024, \"offset\": 512}", false,
          "{\"offset\": 512, \"driver\": \"raw\", \"size\": 1024, \"file\":"
          " {\"driver\": \"file\", \"filename\": \"a.img\"}}");
    check("{\"compat\": 1, \"corrupt\": 2, \"extended-l2\": 3,"
          " \"refcount-bits\": 4, \"lazy-refcounts\": 5,"
          " \"compression-type\": 6}", false,
          "{\"compat\": 1, \"compression-type\": 6, \"lazy-refcounts\": 5,"
          " \"refcount-bits\": 4, \"corrupt\": 2, \"extended-l2\": 3}");
}

static void test_pretty(void)
{
    check("{\"children\": [], \"format-specific\": {\"data\": {},"
          " \"type\": \"file\"}, \"dirty-flag\": false}", true,
          "{\n"
          "    \"children\": [\n"
          "    ],\n"
          "    \"format-specific\": {\n"
          "        \"type\": \"file\",\n"
          "        \"data\": {\n"
          "        }\n"
          "    },\n"
          "    \"dirty-flag\": false\n"
          "}");
    check("[1, [true, null]]", true,
          "[\n    1,\n    [\n        true,\n        null\n    ]\n]");
}

static void test_scalars(void)
{
    check("[]", false, "[]");
    check("{}", false, "{}");
    check("[-5, 9223372036854775807, 0.5, true, false, null]", false,
          "[-5, 9223372036854775807, 0.5, true, false, null]");
}

static void test_escapes(void)
{
    check("\"a\\\"b\\\\c\\/\\b\\f\\n\\r\\t\\u0001\\u007f\"", false,
          "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0001\\u007F\"");
    check("\"\\u00e9\\u20ac\\ud83d\\ude00\"", false,
          "\"\\u00E9\\u20AC\\uD83D\\uDE00\"");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qjson/object/keys-in-hash-order",
                    test_keys_in_hash_order);
    g_test_add_func("/qjson/pretty/indents-and-breaks-empty", test_pretty);
    g_test_add_func("/qjson/scalars", test_scalars);
    g_test_add_func("/qjson/string/escapes", test_escapes);
    return g_test_run();
}
