/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Listening where an "addr" option says.
 */
#ifndef BLOCK_EXPORT_LISTEN_H
#define BLOCK_EXPORT_LISTEN_H

#include <jansson.h>
#include "qemu/error.h"

/*
 * A listening socket for @addr: { type: unix, path, abstract, tight } or
 * { type: fd, str }.  Takes the keys it knows.  Returns the descriptor, and in
 * *@path a copy of the path to be unlinked in the end (NULL: none), or -1 with
 * @errp.  Control thread.
 */
int export_listen(json_t *addr, char **path, Error **errp);

#endif
