/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Secrets: passwords and keys by id, given by --object secret,….
 */
#ifndef QEMU_SECRET_H
#define QEMU_SECRET_H

#include "qemu/user-creatable.h"

/* For a program's table of types. */
extern const ObjectType secret_object_type;

/*
 * The bytes of secret @id, *@size of them, owned by the secret; NULL with an
 * error if there is none.  Thread: as for making objects.
 */
const uint8_t *qcrypto_secret_lookup(const char *id, size_t *size,
                                     Error **errp);

#endif
