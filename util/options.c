/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Option dictionaries: typed values into them and out of them.
 *
 * A value may come from a command line, where all is text, or from JSON, where
 * it has a type.  So each taker looks at the type first: a string is parsed,
 * and complained about in the words for command lines; the native type is
 * used; anything else is "Invalid parameter type".
 *
 * Taking removes.  A driver takes what it knows, its children take theirs, and
 * whoever opened it finds what is left over and names it.
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/options.h"

/*
 * Take @key out of @o: a new reference, NULL if it is absent or null.
 */
static json_t *take(json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);

    if (!v) {
        return NULL;
    }
    json_incref(v);
    json_object_del(o, key);
    if (json_is_null(v)) {
        json_decref(v);
        return NULL;
    }
    return v;
}

/* Whether take() would find something. */
static bool is_there(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return v && !json_is_null(v);
}

static bool wrong_type(const char *key, const char *expected, Error **errp)
{
    error_setg(errp, "Invalid parameter type for '%s', expected: %s",
               key, expected);
    return false;
}

bool opt_take_bool(json_t *o, const char *key, bool *val, Error **errp)
{
    g_autoptr(json_t) v = take(o, key);

    if (!v) {
        return true;
    }
    if (json_is_boolean(v)) {
        *val = json_is_true(v);
        return true;
    }
    if (json_is_string(v)) {
        return qapi_bool_parse(key, json_string_value(v), val, errp);
    }
    return wrong_type(key, "boolean", errp);
}

/* The end of each number taker: what qemu_strto* said about @text. */
static bool check_number(const char *key, const char *text, int ret,
                         Error **errp)
{
    if (ret == -ERANGE) {
        error_setg(errp, "Value '%s' is out of range for parameter '%s'",
                   text, key);
    } else if (ret < 0) {
        error_setg(errp, "Parameter '%s' expects a number", key);
    }
    return ret == 0;
}

bool opt_take_i64(json_t *o, const char *key, int64_t *val, Error **errp)
{
    g_autoptr(json_t) v = take(o, key);
    int64_t n;

    if (!v) {
        return true;
    }
    if (json_is_integer(v)) {
        *val = json_integer_value(v);
        return true;
    }
    if (!json_is_string(v)) {
        return wrong_type(key, "integer", errp);
    }
    if (!check_number(key, json_string_value(v),
                      qemu_strtoi64(json_string_value(v), NULL, 0, &n),
                      errp)) {
        return false;
    }
    *val = n;
    return true;
}

/* A JSON integer that must not be negative. */
static bool native_unsigned(const json_t *v, const char *key, uint64_t *val,
                            Error **errp)
{
    json_int_t n = json_integer_value(v);

    if (n < 0) {
        error_setg(errp, "Value '%" JSON_INTEGER_FORMAT
                   "' is out of range for parameter '%s'", n, key);
        return false;
    }
    *val = n;
    return true;
}

bool opt_take_u64(json_t *o, const char *key, uint64_t *val, Error **errp)
{
    g_autoptr(json_t) v = take(o, key);
    uint64_t n;

    if (!v) {
        return true;
    }
    if (json_is_integer(v)) {
        return native_unsigned(v, key, val, errp);
    }
    if (!json_is_string(v)) {
        return wrong_type(key, "integer", errp);
    }
    if (!check_number(key, json_string_value(v),
                      qemu_strtou64(json_string_value(v), NULL, 0, &n),
                      errp)) {
        return false;
    }
    *val = n;
    return true;
}

bool opt_take_range(json_t *o, const char *key, uint64_t min, uint64_t max,
                    uint64_t *val, Error **errp)
{
    bool there = is_there(o, key);
    uint64_t n = 0;

    if (!opt_take_u64(o, key, &n, errp)) {
        return false;
    }
    if (!there) {
        return true;
    }
    if (n < min || n > max) {
        error_setg(errp, "Parameter '%s' must be between %" PRIu64
                   " and %" PRIu64, key, min, max);
        return false;
    }
    *val = n;
    return true;
}

/* --- Making ------------------------------------------------------------ */

void opt_set_str(json_t *o, const char *key, const char *value)
{
    if (!value) {
        json_object_del(o, key);
    } else {
        /*
         * A file name need not be UTF-8; JSON text would have to be, but
         * the dictionary is not text.
         */
        json_object_set_new_nocheck(o, key, json_string_nocheck(value));
    }
}

void opt_set_bool(json_t *o, const char *key, bool value)
{
    json_object_set_new_nocheck(o, key, json_boolean(value));
}

void opt_set_u64(json_t *o, const char *key, uint64_t value)
{
    if (value <= INT64_MAX) {
        json_object_set_new_nocheck(o, key, json_integer(value));
    } else {
        g_autofree char *text = g_strdup_printf("%" PRIu64, value);

        opt_set_str(o, key, text);
    }
}

void opt_default_str(json_t *o, const char *key, const char *value)
{
    if (!json_object_get(o, key)) {
        opt_set_str(o, key, value);
    }
}

/* A copy of @v in which each string is valid UTF-8, a bad byte U+FFFD. */
static json_t *make_valid(json_t *v)
{
    json_t *copy, *member;
    const char *key;
    size_t i;

    if (json_is_object(v)) {
        copy = json_object();
        json_object_foreach(v, key, member) {
            g_autofree char *valid = g_utf8_make_valid(key, -1);

            json_object_set_new(copy, valid, make_valid(member));
        }
        return copy;
    }
    if (json_is_array(v)) {
        copy = json_array();
        json_array_foreach(v, i, member) {
            json_array_append_new(copy, make_valid(member));
        }
        return copy;
    }
    if (json_is_string(v)) {
        g_autofree char *valid = g_utf8_make_valid(json_string_value(v), -1);

        return json_string(valid);
    }
    return json_incref(v);
}

char *options_to_json(const json_t *o)
{
    char *text = json_dumps(o, JSON_ENCODE_ANY), *copy;

    if (!text) {
        /* A file name that is no UTF-8. */
        g_autoptr(json_t) valid = make_valid((json_t *)o);

        text = json_dumps(valid, JSON_ENCODE_ANY);
    }
    g_assert(text);
    copy = g_strdup(text);
    free(text);
    return copy;
}
