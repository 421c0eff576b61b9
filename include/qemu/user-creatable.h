/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects that a user makes on the command line: --object secret,id=sec0,…
 *
 * A program passes the table of the types that it offers.  All of this belongs
 * to the thread that parses the command line, or handles the monitor.
 */
#ifndef QEMU_USER_CREATABLE_H
#define QEMU_USER_CREATABLE_H

#include <jansson.h>
#include "qemu/osdep.h"
#include "qemu/error.h"

/* A property as --object TYPE,help shows it; @type in QEMU's spelling. */
typedef struct ObjectProperty {
    const char *name;
    const char *type;
} ObjectProperty;

typedef struct ObjectType {
    const char *name;
    const ObjectProperty *props;     /* sorted; ends with a NULL name */
    /*
     * Make the object @id (not in use, well-formed) of @props, a nested
     * object without "qom-type" and "id"; take what is known from @props.
     */
    bool (*create)(const char *id, json_t *props, Error **errp);
} ObjectType;

/*
 * Make the object that @props ("qom-type", "id", …) describes, of one of
 * @types (sorted by name, ends with NULL).  Uses @props up.
 */
bool user_creatable_add(const ObjectType *const *types, json_t *props,
                        Error **errp);

/*
 * The same for the argument of --object: JSON or key=value.  *@help says that
 * it asked for help, which has been printed to stdout instead.
 */
bool user_creatable_add_from_str(const ObjectType *const *types,
                                 const char *optarg, bool *help,
                                 Error **errp);

#endif
