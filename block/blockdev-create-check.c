/*
 * What a monitor's user may say to blockdev-create, by name and type.
 *
 * The drivers' parsers are for people, too: "64k" is a size there, and what is
 * absent or null has a default.  A program that says null for a size, or
 * forgets how to encrypt, must not get an image that it did not ask for: so
 * types are checked first, as QAPI has them, before there is a job.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

static bool check_all(const json_t *o, const BlockCreateParam *params,
                      const char *path, Error **errp);

static bool wrong_type(const char *path, const char *name,
                       const char *expected, Error **errp)
{
    error_setg(errp, "Invalid parameter type for '%s%s', expected: %s", path,
               name, expected);
    return false;
}

static bool check_enum(const BlockCreateParam *p, const json_t *v,
                       const char *path, Error **errp)
{
    if (!json_is_string(v)) {
        return wrong_type(path, p->name, "string", errp);
    }
    if (!g_strv_contains(p->values, json_string_value(v))) {
        error_setg(errp, "Parameter '%s' does not accept value '%s'", p->name,
                   json_string_value(v));
        return false;
    }
    return true;
}

/* An object whose "format" says which other members there are. */
static bool check_union(const BlockCreateParam *p, const json_t *v,
                        const char *path, Error **errp)
{
    const BlockCreateParam format = {
        .name = "format", .type = BLOCK_PARAM_ENUM, .values = p->values,
    };
    g_autofree char *inner = g_strdup_printf("%s%s.", path, p->name);
    const json_t *tag;
    int i = 0;

    if (!json_is_object(v)) {
        return wrong_type(path, p->name, "object", errp);
    }
    tag = json_object_get(v, "format");
    if (!tag) {
        error_setg(errp, "Parameter '%sformat' is missing", inner);
        return false;
    }
    if (!check_enum(&format, tag, inner, errp)) {
        return false;
    }
    while (!g_str_equal(p->values[i], json_string_value(tag))) {
        i++;
    }
    return check_all(v, p->variants[i], inner, errp);
}

/* An integer that jansson's type does not hold comes as its digits. */
static bool is_integer(const json_t *v)
{
    const char *digits = json_string_value(v);

    return json_is_integer(v) ||
           (digits && strlen(digits) >= strlen("9223372036854775808") &&
            strspn(digits, "0123456789") == strlen(digits));
}

/* Whether an integer is in its range is for the driver to say. */
static bool check_one(const BlockCreateParam *p, const json_t *v,
                      const char *path, Error **errp)
{
    switch (p->type) {
    case BLOCK_PARAM_STRING:
        return json_is_string(v) || wrong_type(path, p->name, "string", errp);
    case BLOCK_PARAM_BOOL:
        return json_is_boolean(v) || wrong_type(path, p->name, "boolean", errp);
    case BLOCK_PARAM_INT:
        return json_is_integer(v) || wrong_type(path, p->name, "integer", errp);
    case BLOCK_PARAM_SIZE:
        if (!is_integer(v)) {
            error_setg(errp, "Parameter '%s%s' expects uint64", path, p->name);
            return false;
        }
        return true;
    case BLOCK_PARAM_NODE:
        return json_is_string(v) || json_is_object(v) ||
               wrong_type("", p->name, "BlockdevRef", errp);
    case BLOCK_PARAM_ENUM:
        return check_enum(p, v, path, errp);
    case BLOCK_PARAM_UNION:
        return check_union(p, v, path, errp);
    }
    g_assert_not_reached();
}

static bool is_known(const BlockCreateParam *params, const char *key)
{
    for (; params->name; params++) {
        if (g_str_equal(params->name, key)) {
            return true;
        }
    }
    return false;
}

static bool check_all(const json_t *o, const BlockCreateParam *params,
                      const char *path, Error **errp)
{
    const char *key;
    json_t *value;

    for (const BlockCreateParam *p = params; p->name; p++) {
        value = json_object_get(o, p->name);
        if (!value && p->required) {
            error_setg(errp, "Parameter '%s%s' is missing", path, p->name);
            return false;
        }
        if (value && !check_one(p, value, path, errp)) {
            return false;
        }
    }
    json_object_foreach((json_t *)o, key, value) {
        if (!is_known(params, key)) {
            error_setg(errp, "Parameter '%s%s' is unexpected", path, key);
            return false;
        }
    }
    return true;
}

bool bdrv_create_check_params(const json_t *options,
                              const BlockCreateParam *params, Error **errp)
{
    return check_all(options, params, "options.", errp);
}
