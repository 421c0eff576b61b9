/*
 * JSON text as QEMU's tools print it.
 *
 * jansson prints JSON, too, but not this way: QEMU starts a new line also
 * inside an empty array, escapes everything beyond ASCII, and above all it
 * lists an object's members in the order of its hash table.  That order is no
 * promise, yet scripts compare whole outputs, so it is kept: the table has 512
 * buckets and hashes keys as the TDB library does (a sum of the bytes, each
 * shifted, then one step of a linear congruential generator).  Keys that share
 * a bucket come last in, first out.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/qjson.h"

#define HASH_BUCKETS 512

typedef struct SortKey {
    const char *key;
    unsigned bucket;
    size_t index;
} SortKey;

static unsigned key_bucket(const char *key)
{
    uint32_t sum = UINT32_C(0x238f13af) * (uint32_t)strlen(key);

    for (size_t i = 0; key[i]; i++) {
        sum += (uint32_t)(unsigned char)key[i] << (i * 5 % 24);
    }
    return (UINT32_C(1103515243) * sum + 12345) % HASH_BUCKETS;
}

static int compare_keys(const void *pa, const void *pb)
{
    const SortKey *a = pa, *b = pb;

    if (a->bucket != b->bucket) {
        return a->bucket < b->bucket ? -1 : 1;
    }
    return a->index > b->index ? -1 : 1;
}

const char **qjson_sorted_keys(const json_t *object)
{
    size_t n = json_object_size(object), i = 0;
    g_autofree SortKey *sort = g_new(SortKey, n + 1);
    const char **keys = g_new0(const char *, n + 1);
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value) {
        sort[i] = (SortKey) { .key = key, .bucket = key_bucket(key),
                              .index = i };
        i++;
    }
    qsort(sort, n, sizeof(sort[0]), compare_keys);
    for (i = 0; i < n; i++) {
        keys[i] = sort[i].key;
    }
    return keys;
}

static void put_unicode(GString *out, gunichar c)
{
    if (c >= 0x10000) {
        g_string_append_printf(out, "\\u%04X\\u%04X",
                               0xd800 + ((c - 0x10000) >> 10),
                               0xdc00 + ((c - 0x10000) & 0x3ff));
    } else {
        g_string_append_printf(out, "\\u%04X", c);
    }
}

/* jansson's strings are valid UTF-8 without NUL bytes. */
static void put_string(GString *out, const char *s)
{
    static const char plain[] = "\"\\\b\f\n\r\t", escaped[] = "\"\\bfnrt";

    g_string_append_c(out, '"');
    for (; *s; s = g_utf8_next_char(s)) {
        gunichar c = g_utf8_get_char(s);
        const char *special = c < 0x80 ? strchr(plain, (int)c) : NULL;

        if (special) {
            g_string_append_c(out, '\\');
            g_string_append_c(out, escaped[special - plain]);
        } else if (c < 0x20 || c >= 0x7f) {
            put_unicode(out, c);
        } else {
            g_string_append_c(out, (char)c);
        }
    }
    g_string_append_c(out, '"');
}

static void new_line(GString *out, bool pretty, unsigned depth)
{
    if (pretty) {
        g_string_append_printf(out, "\n%*s", (int)depth * 4, "");
    }
}

/* Between members: a new line, or a space after the comma. */
static void next_member(GString *out, bool pretty, unsigned depth, bool first)
{
    if (!first) {
        g_string_append(out, pretty ? "," : ", ");
    }
    new_line(out, pretty, depth);
}

static void put_value(GString *out, const json_t *v, bool pretty,
                      unsigned depth);

static void put_object(GString *out, const json_t *v, bool pretty,
                       unsigned depth)
{
    g_autofree const char **keys = qjson_sorted_keys(v);

    g_string_append_c(out, '{');
    for (size_t i = 0; keys[i]; i++) {
        next_member(out, pretty, depth + 1, i == 0);
        put_string(out, keys[i]);
        g_string_append(out, ": ");
        put_value(out, json_object_get(v, keys[i]), pretty, depth + 1);
    }
    new_line(out, pretty, depth);
    g_string_append_c(out, '}');
}

static void put_array(GString *out, const json_t *v, bool pretty,
                      unsigned depth)
{
    g_string_append_c(out, '[');
    for (size_t i = 0; i < json_array_size(v); i++) {
        next_member(out, pretty, depth + 1, i == 0);
        put_value(out, json_array_get(v, i), pretty, depth + 1);
    }
    new_line(out, pretty, depth);
    g_string_append_c(out, ']');
}

static void put_value(GString *out, const json_t *v, bool pretty,
                      unsigned depth)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];

    switch (json_typeof(v)) {
    case JSON_OBJECT:
        put_object(out, v, pretty, depth);
        break;
    case JSON_ARRAY:
        put_array(out, v, pretty, depth);
        break;
    case JSON_STRING:
        put_string(out, json_string_value(v));
        break;
    case JSON_INTEGER:
        g_string_append_printf(out, "%" JSON_INTEGER_FORMAT,
                               json_integer_value(v));
        break;
    case JSON_REAL:
        g_string_append(out, g_ascii_dtostr(number, sizeof(number),
                                            json_real_value(v)));
        break;
    case JSON_TRUE:
        g_string_append(out, "true");
        break;
    case JSON_FALSE:
        g_string_append(out, "false");
        break;
    case JSON_NULL:
        g_string_append(out, "null");
        break;
    }
}

char *qobject_to_json(const json_t *value, bool pretty)
{
    GString *out = g_string_new(NULL);

    put_value(out, value, pretty, 0);
    return g_string_free(out, FALSE);
}
