/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hashes, PBKDF2, random bytes, and LUKS's anti-forensic splitting.
 *
 * Everything here may be called by any thread and keeps no state; only
 * qcrypto_random_bytes can fail.  Time is that of the computation, which for
 * PBKDF2 is long on purpose.
 *
 * Sources: FIPS 180-4 (SHA), RFC 1321 (MD5), GB/T 32905 (SM3), RIPEMD-160;
 * RFC 8018 (PBKDF2); LUKS On-Disk Format Specification 1.2.3, section 2.4.
 */
#ifndef CRYPTO_HASH_H
#define CRYPTO_HASH_H

#include "qemu/osdep.h"
#include "qemu/error.h"

/* In the order of QCryptoHashAlgo_names, which are those of options. */
typedef enum QCryptoHashAlgo {
    QCRYPTO_HASH_ALGO_MD5,
    QCRYPTO_HASH_ALGO_SHA1,
    QCRYPTO_HASH_ALGO_SHA224,
    QCRYPTO_HASH_ALGO_SHA256,
    QCRYPTO_HASH_ALGO_SHA384,
    QCRYPTO_HASH_ALGO_SHA512,
    QCRYPTO_HASH_ALGO_RIPEMD160,
    QCRYPTO_HASH_ALGO_SM3,
    QCRYPTO_HASH_ALGO__MAX,
} QCryptoHashAlgo;

/* Ends with NULL. */
extern const char *const QCryptoHashAlgo_names[];

#define QCRYPTO_HASH_MAX_DIGEST 64

size_t qcrypto_hash_digest_len(QCryptoHashAlgo alg);

/* The digest of what @iov describes, into @digest (of that length). */
void qcrypto_hash_bytesv(QCryptoHashAlgo alg, const struct iovec *iov,
                         size_t niov, uint8_t *digest);
void qcrypto_hash_bytes(QCryptoHashAlgo alg, const void *data, size_t size,
                        uint8_t *digest);

/* --- PBKDF2 with HMAC -------------------------------------------------- */

/* Fill @out, of @nout bytes.  @iterations is at least 1. */
void qcrypto_pbkdf2(QCryptoHashAlgo alg, const void *key, size_t nkey,
                    const void *salt, size_t nsalt, uint32_t iterations,
                    uint8_t *out, size_t nout);

/*
 * How many iterations keep a thread of this machine busy for @ms milliseconds
 * of its CPU time, when @nout bytes are asked for.  At least 1; UINT64_MAX at
 * most.  Measures for some 50 ms.
 */
uint64_t qcrypto_pbkdf2_count_iters(QCryptoHashAlgo alg, size_t nout,
                                    uint64_t ms);

/* --- Random bytes ------------------------------------------------------- */

/* @size bytes from the system's generator, fit for keys.  May block at boot. */
bool qcrypto_random_bytes(void *buf, size_t size, Error **errp);

/* --- Anti-forensic splitting -------------------------------------------- */

/*
 * Spread @in, of @size bytes, over @stripes (at least 1) times as many at
 * @out, so that who lacks any of them has nothing; and back.
 */
bool qcrypto_afsplit_encode(QCryptoHashAlgo alg, size_t size,
                            uint32_t stripes, const uint8_t *in,
                            uint8_t *out, Error **errp);
void qcrypto_afsplit_decode(QCryptoHashAlgo alg, size_t size,
                            uint32_t stripes, const uint8_t *in,
                            uint8_t *out);

#endif
