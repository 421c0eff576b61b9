/*
 * Initialisation vectors of sectors.
 *
 * ESSIV's cipher is the data's with a key as long as the digest of the data's
 * key: aes-128 data with sha256 means AES-256 for the IVs.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "crypto/ivgen.h"
#include "crypto/wipe.h"

const char *const QCryptoIVGenAlgo_names[] = {
    [QCRYPTO_IV_GEN_ALGO_PLAIN] = "plain",
    [QCRYPTO_IV_GEN_ALGO_PLAIN64] = "plain64",
    [QCRYPTO_IV_GEN_ALGO_ESSIV] = "essiv",
    [QCRYPTO_IV_GEN_ALGO__MAX] = NULL,
};

struct QCryptoIVGen {
    QCryptoIVGenAlgo alg;
    QCryptoCipher *essiv;       /* ESSIV only */
};

/* The names of families, as messages spell them. */
static const struct {
    const char *name;
    QCryptoCipherAlgo first, last;
} essiv_families[] = {
    { "AES", QCRYPTO_CIPHER_ALGO_AES_128, QCRYPTO_CIPHER_ALGO_AES_256 },
    { "Serpent", QCRYPTO_CIPHER_ALGO_SERPENT_128,
      QCRYPTO_CIPHER_ALGO_SERPENT_256 },
    { "Twofish", QCRYPTO_CIPHER_ALGO_TWOFISH_128,
      QCRYPTO_CIPHER_ALGO_TWOFISH_256 },
};

/* The cipher of @data's family with keys of @nkey bytes; -1 with an error. */
static int essiv_cipher_alg(QCryptoCipherAlgo data, size_t nkey, Error **errp)
{
    for (size_t i = 0; i < ARRAY_SIZE(essiv_families); i++) {
        if (data < essiv_families[i].first || data > essiv_families[i].last) {
            continue;
        }
        for (int alg = essiv_families[i].first;
             alg <= (int)essiv_families[i].last; alg++) {
            if (qcrypto_cipher_get_key_len(alg) == nkey) {
                return alg;
            }
        }
        error_setg(errp, "No %s cipher with key size %zu available",
                   essiv_families[i].name, nkey);
        return -1;
    }
    error_setg(errp, "Cipher %s not supported with essiv",
               QCryptoCipherAlgo_names[data]);
    return -1;
}

static QCryptoCipher *essiv_new(QCryptoCipherAlgo data, QCryptoHashAlgo hash,
                                const uint8_t *key, size_t nkey, Error **errp)
{
    uint8_t digest[QCRYPTO_HASH_MAX_DIGEST];
    size_t ndigest = qcrypto_hash_digest_len(hash);
    int alg = essiv_cipher_alg(data, ndigest, errp);
    QCryptoCipher *c;

    if (alg < 0) {
        return NULL;
    }
    qcrypto_hash_bytes(hash, key, nkey, digest);
    c = qcrypto_cipher_new(alg, QCRYPTO_CIPHER_MODE_ECB, digest, ndigest,
                           errp);
    qcrypto_wipe(digest, sizeof(digest));
    return c;
}

QCryptoIVGen *qcrypto_ivgen_new(QCryptoIVGenAlgo alg,
                                QCryptoCipherAlgo cipher,
                                QCryptoHashAlgo hash, const uint8_t *key,
                                size_t nkey, Error **errp)
{
    QCryptoCipher *essiv = NULL;
    QCryptoIVGen *g;

    if (alg == QCRYPTO_IV_GEN_ALGO_ESSIV) {
        essiv = essiv_new(cipher, hash, key, nkey, errp);
        if (!essiv) {
            return NULL;
        }
    }
    g = g_new0(QCryptoIVGen, 1);
    g->alg = alg;
    g->essiv = essiv;
    return g;
}

void qcrypto_ivgen_free(QCryptoIVGen *g)
{
    if (g) {
        qcrypto_cipher_free(g->essiv);
        g_free(g);
    }
}

void qcrypto_ivgen_calculate(const QCryptoIVGen *g, uint64_t sector, size_t n,
                             uint8_t *ivs, size_t niv)
{
    memset(ivs, 0, n * niv);
    for (size_t i = 0; i < n; i++) {
        uint64_t number = sector + i;

        if (g->alg == QCRYPTO_IV_GEN_ALGO_PLAIN) {
            number = (uint32_t)number;
        }
        number = GUINT64_TO_LE(number);
        memcpy(ivs + i * niv, &number, sizeof(number));
    }
    if (g->essiv) {
        qcrypto_cipher_encrypt(g->essiv, NULL, niv, ivs, ivs, n * niv);
    }
}
