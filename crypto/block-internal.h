/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What block.c and the formats share.
 */
#ifndef CRYPTO_BLOCK_INTERNAL_H
#define CRYPTO_BLOCK_INTERNAL_H

#include "crypto/block.h"
#include "crypto/secret.h"

struct LUKSHeader;

struct QCryptoBlock {
    /* Constant from open or create to free. */
    QCryptoBlockFormat format;
    bool detached;
    QCryptoCipher *cipher;          /* NULL: opened with NO_IO */
    QCryptoIVGen *ivgen;            /* NULL: likewise */
    size_t niv;                     /* 0 in ECB mode */
    int64_t payload_offset;
    char *key_secret;               /* what opened it; NULL: NO_IO */

    /* LUKS: amend changes it; the users of b take turns. */
    struct LUKSHeader *luks;
};

/* What a format is. */
typedef struct QCryptoBlockDriver {
    bool (*open)(QCryptoBlock *b, const SecretBuf *password,
                 const QCryptoBlockIO *io, Error **errp);
    bool (*create)(QCryptoBlock *b, const SecretBuf *password,
                   json_t *options, const QCryptoBlockIO *io, Error **errp);
    bool (*measure)(json_t *options, int64_t *bytes, Error **errp);
    /* NULL: there is nothing to amend. */
    bool (*amend)(QCryptoBlock *b, json_t *options, const QCryptoBlockIO *io,
                  bool force, Error **errp);
    void (*get_info)(const QCryptoBlock *b, json_t *info);
} QCryptoBlockDriver;

extern const QCryptoBlockDriver qcrypto_block_qcow;
extern const QCryptoBlockDriver qcrypto_block_luks;

/* Give @b what it encrypts with: @key, of @nkey bytes, which is not kept. */
bool qcrypto_block_set_key(QCryptoBlock *b, QCryptoCipherAlgo alg,
                           QCryptoCipherMode mode, QCryptoIVGenAlgo ivalg,
                           QCryptoHashAlgo ivhash, const uint8_t *key,
                           size_t nkey, Error **errp);

/*
 * Encrypt or decrypt @len bytes from the sector @sector on, with any cipher.
 * @niv is 0 in ECB mode.
 */
void qcrypto_block_crypt_sectors(const QCryptoCipher *c,
                                 const QCryptoIVGen *ivgen, size_t niv,
                                 bool encrypt, uint64_t sector,
                                 const uint8_t *in, uint8_t *out, size_t len);

#endif
