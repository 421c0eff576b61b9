/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Secrets: passwords and keys by id, given by --object secret,….
 */
#ifndef CRYPTO_SECRET_H
#define CRYPTO_SECRET_H

#include "crypto/wipe.h"
#include "qemu/user-creatable.h"

/* For a program's table of types. */
extern const ObjectType secret_object_type;

/*
 * A copy of the bytes of secret @id into the empty *@secret, for the caller to
 * clear; false with an error if there is none.  There may be 0 bytes, and data
 * is not NULL then.  Any thread; does not block.
 */
bool qcrypto_secret_lookup(const char *id, SecretBuf *secret, Error **errp);

#endif
