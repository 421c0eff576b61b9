/*
 * Anti-forensic splitting (LUKS specification, section 2.4).
 *
 * The stripes s_1 … s_(n-1) are random.  Going over them, d = H(d ^ s_k), and
 * the last stripe is what makes d ^ s_n the secret.  H ("diffusion") replaces
 * each digest-sized piece of d by the hash of its index and itself; of the last
 * piece, which may be shorter, it takes as much of the hash.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "crypto/hash.h"
#include "crypto/wipe.h"

static void xor_bytes(uint8_t *d, const uint8_t *s, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        d[i] ^= s[i];
    }
}

static void diffuse(QCryptoHashAlgo alg, uint8_t *d, size_t size)
{
    size_t step = qcrypto_hash_digest_len(alg);
    uint8_t digest[QCRYPTO_HASH_MAX_DIGEST];

    for (size_t at = 0; at < size; at += step) {
        size_t n = MIN(step, size - at);
        uint32_t index = GUINT32_TO_BE(at / step);
        struct iovec iov[] = {
            { .iov_base = &index, .iov_len = sizeof(index) },
            { .iov_base = d + at, .iov_len = n },
        };

        qcrypto_hash_bytesv(alg, iov, ARRAY_SIZE(iov), digest);
        memcpy(d + at, digest, n);
    }
    qcrypto_wipe(digest, sizeof(digest));
}

/* All but the last stripe into @d. */
static void mix(QCryptoHashAlgo alg, size_t size, uint32_t stripes,
                const uint8_t *in, uint8_t *d)
{
    memset(d, 0, size);
    for (uint32_t k = 0; k + 1 < stripes; k++) {
        xor_bytes(d, in + k * size, size);
        diffuse(alg, d, size);
    }
}

bool qcrypto_afsplit_encode(QCryptoHashAlgo alg, size_t size,
                            uint32_t stripes, const uint8_t *in,
                            uint8_t *out, Error **errp)
{
    uint8_t *last = out + (size_t)(stripes - 1) * size;

    if (!qcrypto_random_bytes(out, last - out, errp)) {
        return false;
    }
    mix(alg, size, stripes, out, last);
    xor_bytes(last, in, size);
    return true;
}

void qcrypto_afsplit_decode(QCryptoHashAlgo alg, size_t size,
                            uint32_t stripes, const uint8_t *in,
                            uint8_t *out)
{
    mix(alg, size, stripes, in, out);
    xor_bytes(out, in + (size_t)(stripes - 1) * size, size);
}
