/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON text as QEMU's tools print it, so that what parses or compares their
 * output sees no difference.
 */
#ifndef QEMU_QJSON_H
#define QEMU_QJSON_H

#include <jansson.h>
#include "qemu/osdep.h"

/*
 * @value as text, for g_free; no newline at the end.  @pretty puts every
 * member on a line of its own, indented by four spaces; otherwise all is on
 * one line, with a space after ',' and ':'.  Anything but ASCII is escaped.
 *
 * Members of an object come in the order of QEMU's hash table (see
 * qjson_sorted_keys), not in that of the json_t.  Any thread, never blocks.
 */
char *qobject_to_json(const json_t *value, bool pretty);

/*
 * The keys of @object in the order in which QEMU's tools print them; an array
 * that ends with NULL, for g_free.  The strings belong to @object.
 */
const char **qjson_sorted_keys(const json_t *object);

#endif
