/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "key=value,key=value" in its two dialects.
 *
 * Both end an element at a comma and take a doubled comma in a value for one.
 * keyval, the younger, is strict: keys are made of names and indices, and nest
 * at the dots.  The older one takes any text for a key, and an element without
 * "=" for a switch.
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "options-tree.h"

/* Longest name within a key of the strict dialect. */
#define KEYVAL_MAX_NAME 127

/*
 * The value at @p, up to a comma that is not doubled.  *@end points behind
 * that comma, or at the end of the text.
 */
static char *parse_value(const char *p, const char **end)
{
    g_autoptr(GString) value = g_string_new(NULL);

    for (; *p; p++) {
        if (*p == ',') {
            p++;
            if (*p != ',') {
                break;
            }
        }
        g_string_append_c(value, *p);
    }
    *end = p;
    return g_string_free(g_steal_pointer(&value), FALSE);
}

static bool is_help(const char *p, size_t len)
{
    return (len == 4 && strncmp(p, "help", 4) == 0) || (len == 1 && *p == '?');
}

/* --- The strict dialect ------------------------------------------------ */

/*
 * Length of the name at @p: a letter, then letters, digits, - and _.  It may
 * have a prefix for extensions of others, "__" + reversed domain + "_".  0 if
 * there is no name.
 */
static size_t name_length(const char *p)
{
    const char *start = p;

    if (p[0] == '_' && p[1] == '_') {
        p += 2;
        while (g_ascii_isalnum(*p) || *p == '-' || *p == '.') {
            p++;
        }
        if (p == start + 2 || *p++ != '_') {
            return 0;
        }
    }
    if (!g_ascii_isalpha(*p)) {
        return 0;
    }
    while (g_ascii_isalnum(*p) || *p == '-' || *p == '_') {
        p++;
    }
    return p - start;
}

/* Split @key, @len bytes, at its dots and check the parts. */
static char **parse_key(const char *key, size_t len, Error **errp)
{
    g_autoptr(GPtrArray) parts = g_ptr_array_new_with_free_func(g_free);
    const char *p = key, *end = key + len;

    for (;;) {
        size_t n = name_length(p);

        if (n == 0 && p > key) {
            n = strspn(p, "0123456789");
        }
        if (n == 0 || p + n > end || (p + n < end && p[n] != '.')) {
            error_setg(errp, "Invalid parameter '%.*s'", (int)len, key);
            return NULL;
        }
        if (n > KEYVAL_MAX_NAME) {
            error_setg(errp, "Parameter%s '%.*s' is too long",
                       p != key || p + n != end ? " fragment" : "",
                       (int)n, p);
            return NULL;
        }
        g_ptr_array_add(parts, g_strndup(p, n));
        p += n;
        if (p == end) {
            break;
        }
        p++;
    }
    g_ptr_array_add(parts, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&parts), FALSE);
}

static void keyval_complain(TreeProblem problem, const char *path,
                            size_t missing, size_t seen, const char *largest,
                            Error **errp)
{
    if (problem == TREE_INDEX_MISSING) {
        error_setg(errp, "Parameter '%s.%zu' missing", path, missing);
    } else {
        error_setg(errp, "Parameters '%s.*' used inconsistently", path);
    }
}

/*
 * Parse the element at @p into @root.  @implied_key is NULL but for the first.
 * Returns where the next one starts, NULL with an error.
 */
static const char *keyval_element(json_t *root, const char *p,
                                  const char *implied_key, bool *help,
                                  Error **errp)
{
    size_t len = strcspn(p, "=,");
    g_auto(GStrv) parts = NULL;
    g_autofree char *value = NULL;
    const char *next;

    if (p[len] != '=' && is_help(p, len)) {
        if (!help) {
            error_setg(errp, "Help is not available for this option");
            return NULL;
        }
        *help = true;
        return p + len + (p[len] == ',');
    }

    if (implied_key && len && p[len] != '=') {
        parts = parse_key(implied_key, strlen(implied_key), errp);
        value = g_strndup(p, len);
        next = p + len + (p[len] == ',');
    } else {
        parts = parse_key(p, len, errp);
        if (parts && p[len] != '=') {
            error_setg(errp, "Expected '=' after parameter '%.*s'",
                       (int)len, p);
            return NULL;
        }
        value = parts ? parse_value(p + len + 1, &next) : NULL;
    }
    if (!parts || !tree_set(root, parts, json_string_nocheck(value),
                            keyval_complain, errp)) {
        return NULL;
    }
    return next;
}

json_t *keyval_parse(const char *params, const char *implied_key,
                     bool *help, Error **errp)
{
    g_autoptr(json_t) root = json_object();
    const char *p = params;

    if (help) {
        *help = false;
    }
    while (*p) {
        p = keyval_element(root, p, p == params ? implied_key : NULL, help,
                           errp);
        if (!p) {
            return NULL;
        }
    }
    if (!tree_make_lists(root, keyval_complain, errp)) {
        return NULL;
    }
    return g_steal_pointer(&root);
}

json_t *options_parse(const char *text, const char *implied_key, bool *help,
                      Error **errp)
{
    if (text[0] == '{') {
        if (help) {
            *help = false;
        }
        return options_from_json(text, errp);
    }
    return keyval_parse(text, implied_key, help, errp);
}

/* --- The older dialect ------------------------------------------------- */

/* A switch: @name is on, "no" + name is off. */
static void set_switch(json_t *o, const char *name, bool warn)
{
    bool off = strstart(name, "no", NULL);
    const char *key = off ? name + 2 : name;
    const char *value = off ? "off" : "on";

    if (warn) {
        warn_report("short-form boolean option '%s' deprecated", name);
        error_printf("Please use %s=%s instead\n", key, value);
    }
    opt_set_str(o, key, value);
}

/* Parse the element at @p into @o; returns where the next one starts. */
static const char *legacy_element(json_t *o, const char *p,
                                  const char *implied_key, bool warn,
                                  bool *help)
{
    size_t len = strcspn(p, "=,");
    g_autofree char *key = NULL;
    g_autofree char *value = NULL;

    if (p[len] == '=') {
        key = g_strndup(p, len);
        value = parse_value(p + len + 1, &p);
        opt_set_str(o, key, value);
    } else if (help && is_help(p, len)) {
        *help = true;
        p += len + (p[len] == ',');
    } else if (implied_key) {
        value = parse_value(p, &p);
        opt_set_str(o, implied_key, value);
    } else {
        key = g_strndup(p, len);
        set_switch(o, key, warn);
        p += len + (p[len] == ',');
    }
    return p;
}

static void bad_id(Error **errp)
{
    ERRP_GUARD();

    error_setg(errp, "Parameter 'id' expects an identifier");
    error_append_hint(errp, "Identifiers consist of letters, digits, '-', "
                      "'.', '_', starting with a letter.\n");
}

bool qemu_opts_merge_legacy(json_t *o, const char *params,
                            const char *implied_key, bool warn, bool *help,
                            Error **errp)
{
    g_autoptr(json_t) mine = json_object();
    const char *p = params, *id;

    if (help) {
        *help = false;
    }
    while (*p) {
        p = legacy_element(mine, p, p == params ? implied_key : NULL, warn,
                           help);
    }

    id = opt_peek_str(mine, "id");
    if (id && !id_wellformed(id)) {
        bad_id(errp);
        return false;
    }
    json_object_update(o, mine);
    return true;
}

json_t *qemu_opts_parse_legacy(const char *params, const char *implied_key,
                               bool warn, bool *help, Error **errp)
{
    g_autoptr(json_t) o = json_object();

    if (!qemu_opts_merge_legacy(o, params, implied_key, warn, help, errp)) {
        return NULL;
    }
    return g_steal_pointer(&o);
}
