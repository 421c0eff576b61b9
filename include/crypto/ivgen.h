/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Initialisation vectors of sectors.
 *
 * A generator does not change once it is made: any number of threads may use
 * one at the same time.  Nothing blocks.
 *
 * Source: the kernel's dm-crypt documentation, "IV generators".
 */
#ifndef CRYPTO_IVGEN_H
#define CRYPTO_IVGEN_H

#include "crypto/cipher.h"
#include "crypto/hash.h"

/* In the order of QCryptoIVGenAlgo_names, which are those of options. */
typedef enum QCryptoIVGenAlgo {
    QCRYPTO_IV_GEN_ALGO_PLAIN,      /* the sector, 32 bits little-endian */
    QCRYPTO_IV_GEN_ALGO_PLAIN64,    /* 64 bits */
    QCRYPTO_IV_GEN_ALGO_ESSIV,      /* those encrypted with a hash of the key */
    QCRYPTO_IV_GEN_ALGO__MAX,
} QCryptoIVGenAlgo;

/* Ends with NULL. */
extern const char *const QCryptoIVGenAlgo_names[];

typedef struct QCryptoIVGen QCryptoIVGen;

/*
 * A generator for data that is encrypted by @cipher with the key @key, of
 * @nkey bytes.  @hash is used by ESSIV, which needs that cipher to take keys
 * as long as a digest; NULL with an error if it does not.
 */
QCryptoIVGen *qcrypto_ivgen_new(QCryptoIVGenAlgo alg,
                                QCryptoCipherAlgo cipher,
                                QCryptoHashAlgo hash, const uint8_t *key,
                                size_t nkey, Error **errp);

/* Wipe and free; NULL is fine. */
void qcrypto_ivgen_free(QCryptoIVGen *g);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QCryptoIVGen, qcrypto_ivgen_free)

/*
 * The IVs of @n sectors from @sector on, one after the other, of @niv bytes
 * each (8 or 16; for ESSIV, the cipher's block length).
 */
void qcrypto_ivgen_calculate(const QCryptoIVGen *g, uint64_t sector, size_t n,
                             uint8_t *ivs, size_t niv);

#endif
