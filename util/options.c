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

/* As error_setg for a size that does not parse, with the suffixes' names. */
static void bad_size(const char *key, Error **errp)
{
    ERRP_GUARD();

    error_setg(errp, "Parameter '%s' expects a non-negative number below 2^64",
               key);
    error_append_hint(errp, "Optional suffix k, M, G, T, P or E means kilo-,"
                      " mega-, giga-, tera-, peta-\n"
                      "and exabytes, respectively.\n");
}

bool opt_take_size(json_t *o, const char *key, uint64_t *val, Error **errp)
{
    g_autoptr(json_t) v = take(o, key);
    uint64_t n;
    int ret;

    if (!v) {
        return true;
    }
    if (json_is_integer(v)) {
        return native_unsigned(v, key, val, errp);
    }
    if (!json_is_string(v)) {
        return wrong_type(key, "integer", errp);
    }
    ret = qemu_strtosz(json_string_value(v), NULL, &n);
    if (ret == -EINVAL) {
        bad_size(key, errp);
        return false;
    }
    if (!check_number(key, json_string_value(v), ret, errp)) {
        return false;
    }
    *val = n;
    return true;
}

bool opt_take_offset(json_t *o, const char *key, int64_t *val, Error **errp)
{
    bool there = is_there(o, key);
    uint64_t n = 0;

    if (!opt_take_size(o, key, &n, errp)) {
        return false;
    }
    if (!there) {
        return true;
    }
    if (n > INT64_MAX) {
        error_setg(errp, "Value '%" PRIu64 "' is out of range for parameter "
                   "'%s'", n, key);
        return false;
    }
    *val = n;
    return true;
}

bool opt_take_enum(json_t *o, const char *key, const char *const names[],
                   int *val, Error **errp)
{
    g_autoptr(json_t) v = take(o, key);

    if (!v) {
        return true;
    }
    if (!json_is_string(v)) {
        return wrong_type(key, "string", errp);
    }
    for (int i = 0; names[i]; i++) {
        if (g_str_equal(names[i], json_string_value(v))) {
            *val = i;
            return true;
        }
    }
    error_setg(errp, "Parameter '%s' does not accept value '%s'", key,
               json_string_value(v));
    return false;
}

bool opt_take_on_off_auto(json_t *o, const char *key, OnOffAuto *val,
                          Error **errp)
{
    json_t *v = json_object_get(o, key);
    bool on = false;

    if (json_is_string(v) && g_str_equal(json_string_value(v), "auto")) {
        json_object_del(o, key);
        *val = ON_OFF_AUTO_AUTO;
        return true;
    }
    if (!v || json_is_null(v)) {
        json_object_del(o, key);
        return true;
    }
    if (!opt_take_bool(o, key, &on, errp)) {
        return false;
    }
    *val = on ? ON_OFF_AUTO_ON : ON_OFF_AUTO_OFF;
    return true;
}

char *opt_take_str(json_t *o, const char *key)
{
    g_autoptr(json_t) v = NULL;

    if (json_is_object(json_object_get(o, key)) ||
        json_is_array(json_object_get(o, key))) {
        return NULL;
    }
    v = take(o, key);
    if (!v) {
        return NULL;
    }
    switch (json_typeof(v)) {
    case JSON_STRING:
        return g_strdup(json_string_value(v));
    case JSON_TRUE:
        return g_strdup("on");
    case JSON_FALSE:
        return g_strdup("off");
    default:
        return options_to_json(v);
    }
}

char *opt_take_str_required(json_t *o, const char *key, Error **errp)
{
    json_t *v = json_object_get(o, key);
    char *s;

    if (json_is_object(v) || json_is_array(v)) {
        wrong_type(key, "string", errp);
        return NULL;
    }
    s = opt_take_str(o, key);
    if (!s) {
        error_setg(errp, "Parameter '%s' is missing", key);
    }
    return s;
}

const char *opt_peek_str(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

json_t *opt_take_any(json_t *o, const char *key)
{
    return take(o, key);
}

json_t *opt_take_object(json_t *o, const char *key)
{
    return json_is_object(json_object_get(o, key)) ? take(o, key) : NULL;
}

json_t *opt_take_array(json_t *o, const char *key)
{
    return json_is_array(json_object_get(o, key)) ? take(o, key) : NULL;
}

const char *opt_first_unused(const json_t *o)
{
    return json_object_iter_key(json_object_iter((json_t *)o));
}

bool opt_check_unused(const json_t *o, Error **errp)
{
    const char *key = opt_first_unused(o);

    if (key) {
        error_setg(errp, "Invalid parameter '%s'", key);
    }
    return !key;
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
