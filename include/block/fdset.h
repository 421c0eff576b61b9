/*
 * Descriptors that somebody handed to this process, by number or by name.
 *
 * A file may be opened by reference to a descriptor that was announced here:
 * "/dev/fdset/N" is a descriptor of set N whose access mode fits (a set holds
 * the same file opened in several ways), "fd:NAME" the one called NAME.  What
 * was not announced cannot be reached, so that no image can name a descriptor
 * of the process.
 *
 * One registry a process, as descriptors are the process's.  Any thread.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_FDSET_H
#define BLOCK_FDSET_H

#include <jansson.h>
#include "qemu/osdep.h"
#include "qemu/error.h"

/*
 * Add @fd to set @id (a new one for a negative id); @opaque (copied, may be
 * NULL) is a note for whoever asks.  Takes @fd over.  Returns the set's id.
 */
int64_t fdset_add(int64_t id, int fd, const char *opaque);

/*
 * Close and forget @fd of set @id, or all of it for a negative @fd.  Files
 * opened from it stay open.  False if there is no such set or descriptor.
 */
bool fdset_remove(int64_t id, int fd, Error **errp);

/* Call @fd @name, in place of what was called so before.  Takes @fd over. */
void fdset_add_named(const char *name, int fd);

/* What is in the sets, as query-fdsets returns it. */
json_t *fdset_query(void);

/* Forget everything (at the end of a process or test). */
void fdset_clear(void);

/* Whether @filename refers to a descriptor, by either form. */
bool fdset_is_reference(const char *filename);

/*
 * A duplicate of the descriptor that @filename refers to, its access mode that
 * of @flags (O_…); shares its open file description.  -1 with errno (ENOENT:
 * no such set or name; EACCES: none of the set has this mode) and @errp.
 */
int fdset_open(const char *filename, int flags, Error **errp);

#endif
