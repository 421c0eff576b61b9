/*
 * Encryption of disks: what the formats have in common.
 *
 * Opening and creating look up the password, let the format do its part, and
 * take back what was half made.  Data goes through in batches of sectors, as
 * many as there is room for their IVs on the stack; nothing in a QCryptoBlock
 * is written on the way.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "block-internal.h"
#include "block-luks-internal.h"

#define IV_BATCH 64     /* sectors */

const char *const QCryptoBlockFormat_names[] = {
    [QCRYPTO_BLOCK_FORMAT_QCOW] = "aes",
    [QCRYPTO_BLOCK_FORMAT_LUKS] = "luks",
    NULL,
};

static const QCryptoBlockDriver *driver_of(QCryptoBlockFormat format)
{
    return format == QCRYPTO_BLOCK_FORMAT_LUKS ? &qcrypto_block_luks
        : &qcrypto_block_qcow;
}

bool qcrypto_block_has_format(QCryptoBlockFormat format, const uint8_t *buf,
                              size_t size)
{
    return format == QCRYPTO_BLOCK_FORMAT_LUKS && luks_probe(buf, size);
}

/* ---- Opening and creating ---- */

/* The password and its id, which the caller frees. */
static char *take_password(json_t *options, const char *prefix,
                           SecretBuf *password, Error **errp)
{
    g_autofree char *id = opt_take_str(options, "key-secret");

    if (!id) {
        error_setg(errp, "Parameter '%skey-secret' is required for cipher",
                   prefix ? prefix : "");
        return NULL;
    }
    if (!qcrypto_secret_lookup(id, password, errp)) {
        return NULL;
    }
    return g_steal_pointer(&id);
}

static QCryptoBlock *block_new(QCryptoBlockFormat format, int flags)
{
    QCryptoBlock *b = g_new0(QCryptoBlock, 1);

    b->format = format;
    b->detached = flags & QCRYPTO_BLOCK_DETACHED;
    return b;
}

QCryptoBlock *qcrypto_block_open(QCryptoBlockFormat format, json_t *options,
                                 const char *prefix, const QCryptoBlockIO *io,
                                 int flags, Error **errp)
{
    g_autoptr(QCryptoBlock) b = block_new(format, flags);
    g_auto(SecretBuf) password = { 0 };

    if (flags & QCRYPTO_BLOCK_OPEN_NO_IO) {
        g_free(opt_take_str(options, "key-secret"));
    } else {
        b->key_secret = take_password(options, prefix, &password, errp);
        if (!b->key_secret) {
            return NULL;
        }
    }
    if (!driver_of(format)->open(b, b->key_secret ? &password : NULL, io,
                                 errp)) {
        return NULL;
    }
    return g_steal_pointer(&b);
}

QCryptoBlock *qcrypto_block_create(QCryptoBlockFormat format, json_t *options,
                                   const char *prefix,
                                   const QCryptoBlockIO *io, int flags,
                                   Error **errp)
{
    g_autoptr(QCryptoBlock) b = block_new(format, flags);
    g_auto(SecretBuf) password = { 0 };

    b->key_secret = take_password(options, prefix, &password, errp);
    if (!b->key_secret ||
        !driver_of(format)->create(b, &password, options, io, errp)) {
        return NULL;
    }
    return g_steal_pointer(&b);
}

bool qcrypto_block_calculate_payload_offset(QCryptoBlockFormat format,
                                            json_t *options,
                                            const char *prefix,
                                            int64_t *bytes, Error **errp)
{
    g_auto(SecretBuf) password = { 0 };

    /* The password is not used, but who creates will have to have it. */
    if (format == QCRYPTO_BLOCK_FORMAT_LUKS) {
        g_autofree char *id = take_password(options, prefix, &password, errp);

        if (!id) {
            return false;
        }
    } else {
        g_free(opt_take_str(options, "key-secret"));
    }
    return driver_of(format)->measure(options, bytes, errp);
}

bool qcrypto_block_amend(QCryptoBlock *b, json_t *options,
                         const QCryptoBlockIO *io, bool force, Error **errp)
{
    const QCryptoBlockDriver *drv = driver_of(b->format);

    if (!drv->amend) {
        error_setg(errp, "Only LUKS encryption options can be amended");
        return false;
    }
    return drv->amend(b, options, io, force, errp);
}

void qcrypto_block_free(QCryptoBlock *b)
{
    if (b) {
        qcrypto_cipher_free(b->cipher);
        qcrypto_ivgen_free(b->ivgen);
        g_free(b->key_secret);
        g_free(b->luks);
        g_free(b);
    }
}

bool qcrypto_block_set_key(QCryptoBlock *b, QCryptoCipherAlgo alg,
                           QCryptoCipherMode mode, QCryptoIVGenAlgo ivalg,
                           QCryptoHashAlgo ivhash, const uint8_t *key,
                           size_t nkey, Error **errp)
{
    b->cipher = qcrypto_cipher_new(alg, mode, key, nkey, errp);
    if (!b->cipher) {
        return false;
    }
    b->ivgen = qcrypto_ivgen_new(ivalg, alg, ivhash, key, nkey, errp);
    b->niv = qcrypto_cipher_get_iv_len(alg, mode);
    return b->ivgen;
}

/* ---- Data ---- */

void qcrypto_block_crypt_sectors(const QCryptoCipher *c,
                                 const QCryptoIVGen *ivgen, size_t niv,
                                 bool encrypt, uint64_t sector,
                                 const uint8_t *in, uint8_t *out, size_t len)
{
    uint8_t ivs[IV_BATCH * QCRYPTO_CIPHER_MAX_BLOCK];

    while (len) {
        size_t n = MIN(len / QCRYPTO_BLOCK_SECTOR_SIZE, IV_BATCH);
        size_t bytes = n * QCRYPTO_BLOCK_SECTOR_SIZE;

        if (niv) {
            qcrypto_ivgen_calculate(ivgen, sector, n, ivs, niv);
        }
        if (encrypt) {
            qcrypto_cipher_encrypt(c, ivs, QCRYPTO_BLOCK_SECTOR_SIZE, in,
                                   out, bytes);
        } else {
            qcrypto_cipher_decrypt(c, ivs, QCRYPTO_BLOCK_SECTOR_SIZE, in,
                                   out, bytes);
        }
        sector += n;
        in += bytes;
        out += bytes;
        len -= bytes;
    }
}

static void crypt_data(const QCryptoBlock *b, bool encrypt, uint64_t offset,
                       const void *in, void *out, size_t len)
{
    g_assert(b->cipher && offset % QCRYPTO_BLOCK_SECTOR_SIZE == 0 &&
             len % QCRYPTO_BLOCK_SECTOR_SIZE == 0);
    qcrypto_block_crypt_sectors(b->cipher, b->ivgen, b->niv, encrypt,
                                offset / QCRYPTO_BLOCK_SECTOR_SIZE, in, out,
                                len);
}

void qcrypto_block_encrypt(const QCryptoBlock *b, uint64_t offset,
                           const void *in, void *out, size_t len)
{
    crypt_data(b, true, offset, in, out, len);
}

void qcrypto_block_decrypt(const QCryptoBlock *b, uint64_t offset,
                           const void *in, void *out, size_t len)
{
    crypt_data(b, false, offset, in, out, len);
}

/* ---- Looking ---- */

int64_t qcrypto_block_get_payload_offset(const QCryptoBlock *b)
{
    return b->payload_offset;
}

QCryptoBlockFormat qcrypto_block_get_format(const QCryptoBlock *b)
{
    return b->format;
}

json_t *qcrypto_block_get_info(const QCryptoBlock *b)
{
    json_t *info = json_object();

    opt_set_str(info, "format", QCryptoBlockFormat_names[b->format]);
    if (driver_of(b->format)->get_info) {
        driver_of(b->format)->get_info(b, info);
    }
    return info;
}
