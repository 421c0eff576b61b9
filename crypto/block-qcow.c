/*
 * The legacy encryption of qcow and qcow2: AES-128-CBC, the number of the
 * guest's sector as IV, and for a key the password itself, cut or filled with
 * zeroes to 16 bytes.  There is no header, so a wrong password cannot be told
 * from a right one.  It is weak; images that have it must be readable.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "block-internal.h"

#define KEY_SIZE 16

static bool qcow_set_password(QCryptoBlock *b, const SecretBuf *password,
                              Error **errp)
{
    uint8_t key[KEY_SIZE] = { 0 };
    bool ok;

    memcpy(key, password->data, MIN(password->size, KEY_SIZE));
    ok = qcrypto_block_set_key(b, QCRYPTO_CIPHER_ALGO_AES_128,
                               QCRYPTO_CIPHER_MODE_CBC,
                               QCRYPTO_IV_GEN_ALGO_PLAIN64, 0, key, KEY_SIZE,
                               errp);
    qcrypto_wipe(key, sizeof(key));
    return ok;
}

static bool qcow_open(QCryptoBlock *b, const SecretBuf *password,
                      const QCryptoBlockIO *io, Error **errp)
{
    return !password || qcow_set_password(b, password, errp);
}

static bool qcow_create(QCryptoBlock *b, const SecretBuf *password,
                        json_t *options, const QCryptoBlockIO *io,
                        Error **errp)
{
    return qcow_set_password(b, password, errp);
}

static bool qcow_measure(json_t *options, int64_t *bytes, Error **errp)
{
    *bytes = 0;
    return true;
}

const QCryptoBlockDriver qcrypto_block_qcow = {
    .open = qcow_open,
    .create = qcow_create,
    .measure = qcow_measure,
};
