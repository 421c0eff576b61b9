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
