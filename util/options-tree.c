/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two shapes of an option dictionary.
 *
 * From flat to nested goes in two passes.  The first makes an object of every
 * container, arrays too, with indices as keys; so order does not matter and
 * "a.1=x,a.0=y" is fine.  The second turns objects that have only indices into
 * arrays.  In between, a leaf and a container are told apart by this: a leaf is
 * a scalar or empty, a container has members.
 */
#include "qemu/osdep.h"
#include "options-tree.h"

/* --- Nested to flat ---------------------------------------------------- */

static void flatten_into(json_t *flat, GString *path, json_t *value)
{
    size_t len = path->len, i;
    json_t *member;
    const char *key;

    if (json_is_object(value) && json_object_size(value)) {
        json_object_foreach(value, key, member) {
            g_string_append_printf(path, "%s%s", len ? "." : "", key);
            flatten_into(flat, path, member);
            g_string_truncate(path, len);
        }
    } else if (json_is_array(value) && json_array_size(value)) {
        json_array_foreach(value, i, member) {
            g_string_append_printf(path, "%s%zu", len ? "." : "", i);
            flatten_into(flat, path, member);
            g_string_truncate(path, len);
        }
    } else if (len) {
        json_object_set_nocheck(flat, path->str, value);
    }
}

json_t *options_flatten(const json_t *nested)
{
    g_autoptr(GString) path = g_string_new(NULL);
    json_t *flat = json_object();

    flatten_into(flat, path, (json_t *)nested);
    return flat;
}

json_t *options_extract_prefix(json_t *o, const char *prefix)
{
    size_t len = strlen(prefix);
    json_t *out = json_object(), *value;
    const char *key;
    void *next;

    json_object_foreach_safe(o, next, key, value) {
        if (g_str_has_prefix(key, prefix)) {
            json_object_set_nocheck(out, key + len, value);
            json_object_del(o, key);
        }
    }
    return out;
}

/* --- Flat to nested ---------------------------------------------------- */

static bool is_index(const char *part)
{
    return *part && !part[strspn(part, "0123456789")];
}

/* An index without superfluous zeros, so that 00 is 0; a name as it is. */
static const char *canonical(const char *part)
{
    if (is_index(part)) {
        while (part[0] == '0' && part[1]) {
            part++;
        }
    }
    return part;
}

static bool is_container(const json_t *v)
{
    return json_is_object(v) && json_object_size(v);
}

/* The first @n parts with dots between. */
static char *join(char **parts, unsigned int n)
{
    g_autoptr(GString) s = g_string_new(parts[0]);

    for (unsigned int i = 1; i < n; i++) {
        g_string_append_printf(s, ".%s", parts[i]);
    }
    return g_string_free(g_steal_pointer(&s), FALSE);
}

bool tree_set(json_t *root, char **parts, json_t *value,
              TreeComplain *complain, Error **errp)
{
    unsigned int n = g_strv_length(parts), i;
    json_t *at = root, *next = NULL;

    if (n > OPTIONS_MAX_DEPTH) {
        error_setg(errp, "Parameter '%.32s...' is nested too deeply",
                   parts[0]);
        json_decref(value);
        return false;
    }
    for (i = 0; i < n; i++) {
        const char *key = canonical(parts[i]);

        next = json_object_get(at, key);
        if (next && is_container(next) != (i + 1 < n)) {
            g_autofree char *path = join(parts, i + 1);

            complain(TREE_VALUE_AND_CONTAINER, path, 0, 0, NULL, errp);
            json_decref(value);
            return false;
        }
        if (i + 1 == n) {
            json_object_set_new_nocheck(at, key, value);
        } else if (!next) {
            next = json_object();
            json_object_set_new_nocheck(at, key, next);
        }
        at = next;
    }
    return true;
}

/* The array that the indices in @o make; NULL with an error for a gap. */
static json_t *list_of(json_t *o, const char *path, TreeComplain *complain,
                       Error **errp)
{
    size_t n = json_object_size(o);
    g_autoptr(json_t) list = json_array();
    const char *key, *largest = "";
    json_t *v;

    json_object_foreach(o, key, v) {
        size_t a = strlen(key), b = strlen(largest);

        if (a > b || (a == b && strcmp(key, largest) > 0)) {
            largest = key;
        }
    }
    for (size_t i = 0; i < n; i++) {
        char index[24];

        snprintf(index, sizeof(index), "%zu", i);
        v = json_object_get(o, index);
        if (!v) {
            complain(TREE_INDEX_MISSING, path, i, n, largest, errp);
            return NULL;
        }
        json_array_append(list, v);
    }
    return g_steal_pointer(&list);
}

/* How many keys of @o are indices. */
static size_t count_indices(json_t *o)
{
    const char *key;
    size_t n = 0;
    json_t *v;

    json_object_foreach(o, key, v) {
        n += is_index(key);
    }
    return n;
}

/*
 * The members of @o, innermost first.  @path is @o's own, with a dot behind it
 * unless it is the root's.
 */
static bool make_lists(json_t *o, GString *path, TreeComplain *complain,
                       Error **errp)
{
    size_t len = path->len;
    const char *key;
    json_t *v;

    json_object_foreach(o, key, v) {
        size_t indices;

        if (!is_container(v)) {
            continue;
        }
        g_string_append_printf(path, "%s.", key);
        if (!make_lists(v, path, complain, errp)) {
            return false;
        }
        g_string_truncate(path, path->len - 1);

        indices = count_indices(v);
        if (indices && indices != json_object_size(v)) {
            complain(TREE_LIST_AND_OBJECT, path->str, 0, 0, NULL, errp);
            return false;
        }
        if (indices) {
            json_t *list = list_of(v, path->str, complain, errp);

            if (!list) {
                return false;
            }
            json_object_set_new_nocheck(o, key, list);
        }
        g_string_truncate(path, len);
    }
    return true;
}

bool tree_make_lists(json_t *root, TreeComplain *complain, Error **errp)
{
    g_autoptr(GString) path = g_string_new(NULL);

    return make_lists(root, path, complain, errp);
}

/* --- Crumple ------------------------------------------------------------- */

static void crumple_complain(TreeProblem problem, const char *path,
                             size_t missing, size_t seen, const char *largest,
                             Error **errp)
{
    switch (problem) {
    case TREE_VALUE_AND_CONTAINER:
        error_setg(errp, "Cannot mix scalar and non-scalar keys");
        break;
    case TREE_LIST_AND_OBJECT:
        error_setg(errp, "Cannot mix list and non-list keys");
        break;
    case TREE_INDEX_MISSING:
        error_setg(errp, "List indices are not contiguous, saw %zu elements "
                   "but %s largest index", seen, largest);
        break;
    }
}

/* Split at single dots; a doubled one is a dot. */
static char **split_key(const char *key)
{
    g_autoptr(GPtrArray) parts = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) part = g_string_new(NULL);

    for (; *key; key++) {
        if (*key != '.') {
            g_string_append_c(part, *key);
        } else if (key[1] == '.') {
            g_string_append_c(part, *key++);
        } else {
            g_ptr_array_add(parts, g_strdup(part->str));
            g_string_truncate(part, 0);
        }
    }
    g_ptr_array_add(parts, g_strdup(part->str));
    g_ptr_array_add(parts, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&parts), FALSE);
}

json_t *options_crumple(const json_t *o, Error **errp)
{
    g_autoptr(json_t) flat = options_flatten(o);
    g_autoptr(json_t) root = json_object();
    const char *key;
    json_t *value;

    json_object_foreach(flat, key, value) {
        g_auto(GStrv) parts = split_key(key);

        if (!tree_set(root, parts, json_incref(value), crumple_complain,
                      errp)) {
            return NULL;
        }
    }
    if (!tree_make_lists(root, crumple_complain, errp)) {
        return NULL;
    }
    return g_steal_pointer(&root);
}

/* ---- Names ---- */

void options_underscore_keys(json_t *o)
{
    g_autoptr(json_t) renamed = json_object();
    const char *key;
    json_t *value;

    json_object_foreach(o, key, value) {
        g_autofree char *name = g_strdelimit(g_strdup(key), "-", '_');

        json_object_set(renamed, name, value);
    }
    json_object_clear(o);
    json_object_update(o, renamed);
}

bool opt_check_names(const json_t *o, const char *const *names,
                     const char *path, Error **errp)
{
    const char *key;
    json_t *value;

    for (const char *const *n = names; *n; n++) {
        if (**n == '!' && !json_object_get(o, *n + 1)) {
            error_setg(errp, "Parameter '%s%s' is missing", path, *n + 1);
            return false;
        }
    }
    json_object_foreach((json_t *)o, key, value) {
        g_autofree char *needed = g_strconcat("!", key, NULL);

        if (!g_strv_contains(names, key) && !g_strv_contains(names, needed)) {
            error_setg(errp, "Parameter '%s%s' is unexpected", path, key);
            return false;
        }
    }
    return true;
}
