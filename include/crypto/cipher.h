/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block ciphers with a key.
 *
 * A QCryptoCipher does not change once it is made, so any number of threads
 * may use one at the same time, without a lock.  The initialisation vector is
 * an argument of each call.  Nothing here blocks, and once there is a cipher
 * nothing can fail.
 *
 * Sources: FIPS 197 (AES), the AES submissions of Serpent and Twofish, RFC
 * 2144 (CAST-128); NIST SP 800-38A (ECB, CBC, CTR), IEEE 1619-2007 (XTS).
 */
#ifndef CRYPTO_CIPHER_H
#define CRYPTO_CIPHER_H

#include "qemu/osdep.h"
#include "qemu/error.h"

/* In the order of QCryptoCipherAlgo_names, which are those of options. */
typedef enum QCryptoCipherAlgo {
    QCRYPTO_CIPHER_ALGO_AES_128,
    QCRYPTO_CIPHER_ALGO_AES_192,
    QCRYPTO_CIPHER_ALGO_AES_256,
    QCRYPTO_CIPHER_ALGO_DES,            /* a known name, not implemented */
    QCRYPTO_CIPHER_ALGO_3DES,           /* likewise */
    QCRYPTO_CIPHER_ALGO_CAST5_128,
    QCRYPTO_CIPHER_ALGO_SERPENT_128,
    QCRYPTO_CIPHER_ALGO_SERPENT_192,
    QCRYPTO_CIPHER_ALGO_SERPENT_256,
    QCRYPTO_CIPHER_ALGO_TWOFISH_128,
    QCRYPTO_CIPHER_ALGO_TWOFISH_192,
    QCRYPTO_CIPHER_ALGO_TWOFISH_256,
    QCRYPTO_CIPHER_ALGO_SM4,            /* likewise */
    QCRYPTO_CIPHER_ALGO__MAX,
} QCryptoCipherAlgo;

typedef enum QCryptoCipherMode {
    QCRYPTO_CIPHER_MODE_ECB,
    QCRYPTO_CIPHER_MODE_CBC,
    QCRYPTO_CIPHER_MODE_XTS,
    QCRYPTO_CIPHER_MODE_CTR,
    QCRYPTO_CIPHER_MODE__MAX,
} QCryptoCipherMode;

/* Both end with NULL. */
extern const char *const QCryptoCipherAlgo_names[];
extern const char *const QCryptoCipherMode_names[];

/* No block, and so no IV, is longer. */
#define QCRYPTO_CIPHER_MAX_BLOCK 16

typedef struct QCryptoCipher QCryptoCipher;

/* Whether @alg is implemented, and has blocks that @mode can use. */
bool qcrypto_cipher_supports(QCryptoCipherAlgo alg, QCryptoCipherMode mode);

/* Bytes; 0 if @alg is not implemented. */
size_t qcrypto_cipher_get_block_len(QCryptoCipherAlgo alg);
size_t qcrypto_cipher_get_key_len(QCryptoCipherAlgo alg);

/* Bytes of the whole key for @mode: XTS takes two of @alg's. */
size_t qcrypto_cipher_get_mode_key_len(QCryptoCipherAlgo alg,
                                       QCryptoCipherMode mode);

/* Bytes of the IV: those of a block; 0 for ECB. */
size_t qcrypto_cipher_get_iv_len(QCryptoCipherAlgo alg,
                                 QCryptoCipherMode mode);

/*
 * A cipher with the key @key, @nkey bytes, which is not needed afterwards.
 * NULL with an error if this is not supported or the key's length is wrong.
 */
QCryptoCipher *qcrypto_cipher_new(QCryptoCipherAlgo alg,
                                  QCryptoCipherMode mode,
                                  const uint8_t *key, size_t nkey,
                                  Error **errp);

/* Wipe and free; NULL is fine. */
void qcrypto_cipher_free(QCryptoCipher *c);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QCryptoCipher, qcrypto_cipher_free)

/*
 * Encrypt or decrypt @len bytes from @in to @out, which may be the same but
 * must not overlap otherwise.
 *
 * The data is made of units of @unit bytes, each with an IV of its own: @ivs
 * has them one after the other (NULL for ECB).  @unit is a multiple of the
 * block length and divides @len; both are asserted.
 */
void qcrypto_cipher_encrypt(const QCryptoCipher *c, const uint8_t *ivs,
                            size_t unit, const void *in, void *out,
                            size_t len);
void qcrypto_cipher_decrypt(const QCryptoCipher *c, const uint8_t *ivs,
                            size_t unit, const void *in, void *out,
                            size_t len);

#endif
