/*
 * Objects that a user makes on the command line.
 *
 * Only their ids are kept here, since no two objects may share one; what an
 * object is, and where it is found again, is its type's affair.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/user-creatable.h"
#include "qemu/options.h"

/* Ids in use; made on first use, by the one thread that makes objects. */
static GHashTable *object_ids;

static const ObjectType *find_type(const ObjectType *const *types,
                                   const char *name)
{
    for (; *types; types++) {
        if (g_str_equal((*types)->name, name)) {
            return *types;
        }
    }
    return NULL;
}

static bool id_wellformed(const char *id)
{
    if (!g_ascii_isalpha(id[0])) {
        return false;
    }
    while (*id) {
        if (!g_ascii_isalnum(*id) && !strchr("-._", *id)) {
            return false;
        }
        id++;
    }
    return true;
}

static bool check_id(const char *id, Error **errp)
{
    ERRP_GUARD();

    if (!id_wellformed(id)) {
        error_setg(errp, "Parameter 'id' expects an identifier");
        error_append_hint(errp, "Identifiers consist of letters, digits, "
                          "'-', '.', '_', starting with a letter.\n");
        return false;
    }
    if (object_ids && g_hash_table_contains(object_ids, id)) {
        error_setg(errp, "attempt to add duplicate property '%s' to object "
                   "(type 'container')", id);
        return false;
    }
    return true;
}

/* Every key of @props is a property of @type. */
static bool check_known(const ObjectType *type, json_t *props, Error **errp)
{
    const ObjectProperty *p;
    const char *key;
    json_t *value;

    json_object_foreach(props, key, value) {
        for (p = type->props; p->name && !g_str_equal(p->name, key); p++) {
            continue;
        }
        if (!p->name) {
            error_setg(errp, "Parameter '%s' is unexpected", key);
            return false;
        }
    }
    return true;
}

bool user_creatable_add(const ObjectType *const *types, json_t *props_in,
                        Error **errp)
{
    g_autoptr(json_t) props = props_in;
    g_autofree char *type_name = opt_take_str_required(props, "qom-type",
                                                       errp);
    g_autofree char *id = NULL;
    const ObjectType *type;

    if (!type_name) {
        return false;
    }
    type = find_type(types, type_name);
    if (!type) {
        error_setg(errp, "Parameter 'qom-type' does not accept value '%s'",
                   type_name);
        return false;
    }
    id = opt_take_str_required(props, "id", errp);
    if (!id) {
        return false;
    }
    if (!check_known(type, props, errp)) {
        return false;
    }
    if (!check_id(id, errp) || !type->create(id, props, errp)) {
        return false;
    }
    if (!object_ids) {
        object_ids = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                           NULL);
    }
    g_hash_table_add(object_ids, g_steal_pointer(&id));
    return true;
}

static void print_help(const ObjectType *const *types, const char *type_name)
{
    const ObjectType *type = type_name ? find_type(types, type_name) : NULL;

    if (type) {
        printf("%s options:\n", type->name);
        for (const ObjectProperty *p = type->props; p->name; p++) {
            printf("  %s=<%s>\n", p->name, p->type);
        }
        return;
    }
    printf("List of user creatable objects:\n");
    for (; *types; types++) {
        printf("  %s\n", (*types)->name);
    }
}

bool user_creatable_add_from_str(const ObjectType *const *types,
                                 const char *optarg, bool *help,
                                 Error **errp)
{
    json_t *props;

    *help = false;
    props = options_parse(optarg, "qom-type", help, errp);
    if (!props) {
        return false;
    }
    if (*help) {
        print_help(types, opt_peek_str(props, "qom-type"));
        json_decref(props);
        return true;
    }
    return user_creatable_add(types, props, errp);
}
