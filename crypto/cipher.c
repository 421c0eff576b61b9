/*
 * Block ciphers: nettle's primitives, and the modes around them.
 *
 * nettle chooses at run time between plain code and what the processor has
 * (AES-NI and its like), keeps round keys in contexts that encrypting only
 * reads, and takes the IV as an argument.  That is what makes a cipher
 * shareable: a handle of a library that remembers the IV would need a copy a
 * thread.
 *
 * State: three contexts, set up once.  Ciphers other than AES use the same
 * round keys both ways, and have them twice; a cipher is made once a disk.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <nettle/aes.h>
#include <nettle/cast128.h>
#include <nettle/cbc.h>
#include <nettle/ctr.h>
#include <nettle/nettle-meta.h>
#include <nettle/serpent.h>
#include <nettle/twofish.h>
#include "crypto/cipher.h"
#include "crypto/wipe.h"
#include "cipher-xts.h"

const char *const QCryptoCipherAlgo_names[] = {
    [QCRYPTO_CIPHER_ALGO_AES_128] = "aes-128",
    [QCRYPTO_CIPHER_ALGO_AES_192] = "aes-192",
    [QCRYPTO_CIPHER_ALGO_AES_256] = "aes-256",
    [QCRYPTO_CIPHER_ALGO_DES] = "des",
    [QCRYPTO_CIPHER_ALGO_3DES] = "3des",
    [QCRYPTO_CIPHER_ALGO_CAST5_128] = "cast5-128",
    [QCRYPTO_CIPHER_ALGO_SERPENT_128] = "serpent-128",
    [QCRYPTO_CIPHER_ALGO_SERPENT_192] = "serpent-192",
    [QCRYPTO_CIPHER_ALGO_SERPENT_256] = "serpent-256",
    [QCRYPTO_CIPHER_ALGO_TWOFISH_128] = "twofish-128",
    [QCRYPTO_CIPHER_ALGO_TWOFISH_192] = "twofish-192",
    [QCRYPTO_CIPHER_ALGO_TWOFISH_256] = "twofish-256",
    [QCRYPTO_CIPHER_ALGO_SM4] = "sm4",
    [QCRYPTO_CIPHER_ALGO__MAX] = NULL,
};

const char *const QCryptoCipherMode_names[] = {
    [QCRYPTO_CIPHER_MODE_ECB] = "ecb",
    [QCRYPTO_CIPHER_MODE_CBC] = "cbc",
    [QCRYPTO_CIPHER_MODE_XTS] = "xts",
    [QCRYPTO_CIPHER_MODE_CTR] = "ctr",
    [QCRYPTO_CIPHER_MODE__MAX] = NULL,
};

/* NULL: not implemented. */
static const struct nettle_cipher *const primitives[] = {
    [QCRYPTO_CIPHER_ALGO_AES_128] = &nettle_aes128,
    [QCRYPTO_CIPHER_ALGO_AES_192] = &nettle_aes192,
    [QCRYPTO_CIPHER_ALGO_AES_256] = &nettle_aes256,
    [QCRYPTO_CIPHER_ALGO_CAST5_128] = &nettle_cast128,
    [QCRYPTO_CIPHER_ALGO_SERPENT_128] = &nettle_serpent128,
    [QCRYPTO_CIPHER_ALGO_SERPENT_192] = &nettle_serpent192,
    [QCRYPTO_CIPHER_ALGO_SERPENT_256] = &nettle_serpent256,
    [QCRYPTO_CIPHER_ALGO_TWOFISH_128] = &nettle_twofish128,
    [QCRYPTO_CIPHER_ALGO_TWOFISH_192] = &nettle_twofish192,
    [QCRYPTO_CIPHER_ALGO_TWOFISH_256] = &nettle_twofish256,
    [QCRYPTO_CIPHER_ALGO__MAX] = NULL,
};

typedef union CipherContext {
    struct aes128_ctx aes128;
    struct aes192_ctx aes192;
    struct aes256_ctx aes256;
    struct cast128_ctx cast128;
    struct serpent_ctx serpent;
    struct twofish_ctx twofish;
} CipherContext;

struct QCryptoCipher {
    /* All constant from _new() to _free(). */
    const struct nettle_cipher *p;
    QCryptoCipherMode mode;
    CipherContext enc, dec;
    CipherContext tweak;            /* XTS: the second key, to encrypt */
};

size_t qcrypto_cipher_get_block_len(QCryptoCipherAlgo alg)
{
    return primitives[alg] ? primitives[alg]->block_size : 0;
}

size_t qcrypto_cipher_get_key_len(QCryptoCipherAlgo alg)
{
    return primitives[alg] ? primitives[alg]->key_size : 0;
}

size_t qcrypto_cipher_get_mode_key_len(QCryptoCipherAlgo alg,
                                       QCryptoCipherMode mode)
{
    size_t len = qcrypto_cipher_get_key_len(alg);

    return mode == QCRYPTO_CIPHER_MODE_XTS ? 2 * len : len;
}

size_t qcrypto_cipher_get_iv_len(QCryptoCipherAlgo alg,
                                 QCryptoCipherMode mode)
{
    return mode == QCRYPTO_CIPHER_MODE_ECB ? 0
        : qcrypto_cipher_get_block_len(alg);
}

bool qcrypto_cipher_supports(QCryptoCipherAlgo alg, QCryptoCipherMode mode)
{
    return primitives[alg] && (mode != QCRYPTO_CIPHER_MODE_XTS ||
                               primitives[alg]->block_size == 16);
}

static bool check_new(QCryptoCipherAlgo alg, QCryptoCipherMode mode,
                      size_t nkey, Error **errp)
{
    if (!primitives[alg]) {
        error_setg(errp, "Unsupported cipher algorithm %s with %s mode",
                   QCryptoCipherAlgo_names[alg],
                   QCryptoCipherMode_names[mode]);
        return false;
    }
    if (!qcrypto_cipher_supports(alg, mode)) {
        error_setg(errp, "Unsupported cipher mode %s",
                   QCryptoCipherMode_names[mode]);
        return false;
    }
    if (nkey != qcrypto_cipher_get_mode_key_len(alg, mode)) {
        error_setg(errp, "Cipher key length %zu should be %zu", nkey,
                   qcrypto_cipher_get_mode_key_len(alg, mode));
        return false;
    }
    return true;
}

QCryptoCipher *qcrypto_cipher_new(QCryptoCipherAlgo alg,
                                  QCryptoCipherMode mode,
                                  const uint8_t *key, size_t nkey,
                                  Error **errp)
{
    QCryptoCipher *c;

    if (!check_new(alg, mode, nkey, errp)) {
        return NULL;
    }
    c = g_new0(QCryptoCipher, 1);
    c->p = primitives[alg];
    c->mode = mode;
    g_assert(c->p->context_size <= sizeof(CipherContext));
    c->p->set_encrypt_key(&c->enc, key);
    c->p->set_decrypt_key(&c->dec, key);
    if (mode == QCRYPTO_CIPHER_MODE_XTS) {
        c->p->set_encrypt_key(&c->tweak, key + c->p->key_size);
    }
    return c;
}

void qcrypto_cipher_free(QCryptoCipher *c)
{
    if (c) {
        qcrypto_wipe(c, sizeof(*c));
        g_free(c);
    }
}

/* The tweaks of several units at once, for the sake of speed. */
static void crypt_xts(const QCryptoCipher *c, const void *ctx,
                      nettle_cipher_func *crypt, const uint8_t *ivs,
                      size_t unit, const uint8_t *in, uint8_t *out,
                      size_t len)
{
    uint8_t tweaks[16][16];

    while (len) {
        size_t n = MIN(len / unit, ARRAY_SIZE(tweaks));

        c->p->encrypt(&c->tweak, n * 16, tweaks[0], ivs);
        for (size_t i = 0; i < n; i++) {
            xts_crypt(ctx, crypt, tweaks[i], in + i * unit, out + i * unit,
                      unit);
        }
        ivs += n * 16;
        in += n * unit;
        out += n * unit;
        len -= n * unit;
    }
}

/* A unit of CBC or CTR; @iv is a copy that may change. */
static void crypt_unit(const QCryptoCipher *c, bool encrypt, uint8_t *iv,
                       const uint8_t *in, uint8_t *out, size_t len)
{
    size_t block = c->p->block_size;

    if (c->mode == QCRYPTO_CIPHER_MODE_CTR) {
        ctr_crypt(&c->enc, c->p->encrypt, block, iv, len, out, in);
    } else if (encrypt) {
        cbc_encrypt(&c->enc, c->p->encrypt, block, iv, len, out, in);
    } else {
        cbc_decrypt(&c->dec, c->p->decrypt, block, iv, len, out, in);
    }
}

static void crypt_units(const QCryptoCipher *c, bool encrypt,
                        const uint8_t *ivs, size_t unit, const uint8_t *in,
                        uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len / unit; i++) {
        uint8_t iv[QCRYPTO_CIPHER_MAX_BLOCK];

        memcpy(iv, ivs + i * c->p->block_size, c->p->block_size);
        crypt_unit(c, encrypt, iv, in + i * unit, out + i * unit, unit);
    }
}

static void cipher_crypt(const QCryptoCipher *c, bool encrypt,
                         const uint8_t *ivs, size_t unit, const void *in,
                         void *out, size_t len)
{
    const void *ctx = encrypt ? &c->enc : &c->dec;
    nettle_cipher_func *func = encrypt ? c->p->encrypt : c->p->decrypt;

    g_assert(unit && unit % c->p->block_size == 0 && len % unit == 0);
    switch (c->mode) {
    case QCRYPTO_CIPHER_MODE_ECB:
        func(ctx, len, out, in);
        break;
    case QCRYPTO_CIPHER_MODE_XTS:
        crypt_xts(c, ctx, func, ivs, unit, in, out, len);
        break;
    default:
        crypt_units(c, encrypt, ivs, unit, in, out, len);
        break;
    }
}

void qcrypto_cipher_encrypt(const QCryptoCipher *c, const uint8_t *ivs,
                            size_t unit, const void *in, void *out,
                            size_t len)
{
    cipher_crypt(c, true, ivs, unit, in, out, len);
}

void qcrypto_cipher_decrypt(const QCryptoCipher *c, const uint8_t *ivs,
                            size_t unit, const void *in, void *out,
                            size_t len)
{
    cipher_crypt(c, false, ivs, unit, in, out, len);
}
