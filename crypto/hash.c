/*
 * Hashes: nettle's, by QEMU's names.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "hash-internal.h"
#include "crypto/wipe.h"

const char *const QCryptoHashAlgo_names[] = {
    [QCRYPTO_HASH_ALGO_MD5] = "md5",
    [QCRYPTO_HASH_ALGO_SHA1] = "sha1",
    [QCRYPTO_HASH_ALGO_SHA224] = "sha224",
    [QCRYPTO_HASH_ALGO_SHA256] = "sha256",
    [QCRYPTO_HASH_ALGO_SHA384] = "sha384",
    [QCRYPTO_HASH_ALGO_SHA512] = "sha512",
    [QCRYPTO_HASH_ALGO_RIPEMD160] = "ripemd160",
    [QCRYPTO_HASH_ALGO_SM3] = "sm3",
    [QCRYPTO_HASH_ALGO__MAX] = NULL,
};

const struct nettle_hash *hash_primitive(QCryptoHashAlgo alg)
{
    static const struct nettle_hash *const primitives[] = {
        [QCRYPTO_HASH_ALGO_MD5] = &nettle_md5,
        [QCRYPTO_HASH_ALGO_SHA1] = &nettle_sha1,
        [QCRYPTO_HASH_ALGO_SHA224] = &nettle_sha224,
        [QCRYPTO_HASH_ALGO_SHA256] = &nettle_sha256,
        [QCRYPTO_HASH_ALGO_SHA384] = &nettle_sha384,
        [QCRYPTO_HASH_ALGO_SHA512] = &nettle_sha512,
        [QCRYPTO_HASH_ALGO_RIPEMD160] = &nettle_ripemd160,
        [QCRYPTO_HASH_ALGO_SM3] = &nettle_sm3,
    };
    const struct nettle_hash *h = primitives[alg];

    g_assert(h->context_size <= sizeof(HashContext) &&
             h->digest_size <= QCRYPTO_HASH_MAX_DIGEST);
    return h;
}

size_t qcrypto_hash_digest_len(QCryptoHashAlgo alg)
{
    return hash_primitive(alg)->digest_size;
}

void qcrypto_hash_bytesv(QCryptoHashAlgo alg, const struct iovec *iov,
                         size_t niov, uint8_t *digest)
{
    const struct nettle_hash *h = hash_primitive(alg);
    HashContext ctx;

    h->init(&ctx);
    for (size_t i = 0; i < niov; i++) {
        h->update(&ctx, iov[i].iov_len, iov[i].iov_base);
    }
    h->digest(&ctx, h->digest_size, digest);
    qcrypto_wipe(&ctx, sizeof(ctx));
}

void qcrypto_hash_bytes(QCryptoHashAlgo alg, const void *data, size_t size,
                        uint8_t *digest)
{
    struct iovec iov = { .iov_base = (void *)data, .iov_len = size };

    qcrypto_hash_bytesv(alg, &iov, 1, digest);
}
