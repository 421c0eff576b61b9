/*
 * LUKS's key slots (specification 1.2.3, section 4).
 *
 * The key that encrypts the disk is stored once a password: split so that it
 * fills 4000 times its size, then encrypted with what PBKDF2 makes of the
 * password and the slot's salt, in the disk's own cipher and mode, sectors
 * counted from the start of the slot.  A digest of the key in the header tells
 * whether what came out is right.
 *
 * Where the key's size makes that no whole number of sectors (aes-192), the
 * last sector is filled with zeroes, as cryptsetup does.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <nettle/memops.h>
#include "block-luks-internal.h"

/* Iterations for @nout bytes in @ms milliseconds, within the allowed range. */
static bool choose_iterations(QCryptoHashAlgo hash, size_t nout, uint64_t ms,
                              uint32_t *iterations, Error **errp)
{
    uint64_t n = qcrypto_pbkdf2_count_iters(hash, nout, ms);

    if (n > UINT32_MAX) {
        error_setg_errno(errp, ERANGE, "PBKDF iterations %" PRIu64
                         " larger than %u", n, UINT32_MAX);
        return false;
    }
    *iterations = MAX(n, LUKS_MIN_ITERATIONS);
    return true;
}

static void make_digest(const LUKSHeader *h, const SecretBuf *key,
                        uint8_t digest[LUKS_DIGEST_SIZE])
{
    qcrypto_pbkdf2(h->hash, key->data, key->size, h->digest_salt,
                   LUKS_SALT_SIZE, h->digest_iterations, digest,
                   LUKS_DIGEST_SIZE);
}

bool luks_set_digest(LUKSHeader *h, const SecretBuf *key,
                     uint64_t iter_time_ms, Error **errp)
{
    if (!qcrypto_random_bytes(h->digest_salt, LUKS_SALT_SIZE, errp) ||
        !choose_iterations(h->hash, LUKS_DIGEST_SIZE, iter_time_ms / 8,
                           &h->digest_iterations, errp) ||
        !luks_check_iterations(h, errp)) {
        return false;
    }
    make_digest(h, key, h->digest);
    return true;
}

/* Encrypt or decrypt the material of slot @i, in place. */
static bool crypt_material(const LUKSHeader *h, int i, bool encrypt,
                           const SecretBuf *password, SecretBuf *material,
                           Error **errp)
{
    g_auto(SecretBuf) key = secret_buf_new(h->key_bytes);
    g_autoptr(QCryptoCipher) c = NULL;
    g_autoptr(QCryptoIVGen) ivgen = NULL;

    qcrypto_pbkdf2(h->hash, password->data, password->size, h->slots[i].salt,
                   LUKS_SALT_SIZE, h->slots[i].iterations, key.data,
                   key.size);
    c = qcrypto_cipher_new(h->cipher, h->mode, key.data, key.size, errp);
    ivgen = c ? qcrypto_ivgen_new(h->ivgen, h->cipher, h->ivgen_hash,
                                  key.data, key.size, errp) : NULL;
    if (!ivgen) {
        return false;
    }
    qcrypto_block_crypt_sectors(c, ivgen,
                                qcrypto_cipher_get_iv_len(h->cipher, h->mode),
                                encrypt, 0, material->data, material->data,
                                material->size);
    return true;
}

static int64_t material_offset(const LUKSHeader *h, int i)
{
    return h->slots[i].key_sector * (int64_t)QCRYPTO_BLOCK_SECTOR_SIZE;
}

static bool write_material(const LUKSHeader *h, int i,
                           const SecretBuf *material,
                           const QCryptoBlockIO *io, Error **errp)
{
    ERRP_GUARD();

    if (!io->write(io->opaque, material_offset(h, i), material->data,
                   material->size, errp)) {
        error_prepend(errp, "Unable to write key material of keyslot %d: ",
                      i);
        return false;
    }
    return true;
}

bool luks_slot_store(LUKSHeader *h, int i, const SecretBuf *key,
                     const SecretBuf *password, uint64_t iter_time_ms,
                     const QCryptoBlockIO *io, Error **errp)
{
    g_auto(SecretBuf) material = secret_buf_new(luks_material_bytes(h));
    LUKSSlot *slot = &h->slots[i];

    slot->active = true;
    if (!qcrypto_random_bytes(slot->salt, sizeof(slot->salt), errp) ||
        !choose_iterations(h->hash, h->key_bytes, iter_time_ms,
                           &slot->iterations, errp) ||
        !luks_check_iterations(h, errp)) {
        return false;
    }
    return qcrypto_afsplit_encode(h->hash, key->size, LUKS_STRIPES, key->data,
                                  material.data, errp) &&
           crypt_material(h, i, true, password, &material, errp) &&
           write_material(h, i, &material, io, errp);
}

bool luks_slot_erase(LUKSHeader *h, int i, const QCryptoBlockIO *io,
                     Error **errp)
{
    g_auto(SecretBuf) noise = secret_buf_new(luks_material_bytes(h));
    LUKSSlot *slot = &h->slots[i];

    slot->active = false;
    slot->iterations = 0;
    memset(slot->salt, 0, sizeof(slot->salt));
    return qcrypto_random_bytes(noise.data, noise.size, errp) &&
           write_material(h, i, &noise, io, errp);
}

bool luks_slot_unlock(const LUKSHeader *h, int i, const SecretBuf *password,
                      const QCryptoBlockIO *io, SecretBuf *key, Error **errp)
{
    ERRP_GUARD();
    g_auto(SecretBuf) material = { 0 }, candidate = { 0 };
    uint8_t digest[LUKS_DIGEST_SIZE];

    if (!h->slots[i].active) {
        return true;
    }
    material = secret_buf_new(luks_material_bytes(h));
    if (!io->read(io->opaque, material_offset(h, i), material.data,
                  material.size, errp)) {
        error_prepend(errp, "Unable to read key material of keyslot %d: ", i);
        return false;
    }
    if (!crypt_material(h, i, false, password, &material, errp)) {
        return false;
    }
    candidate = secret_buf_new(h->key_bytes);
    qcrypto_afsplit_decode(h->hash, h->key_bytes, LUKS_STRIPES, material.data,
                           candidate.data);
    make_digest(h, &candidate, digest);
    if (memeql_sec(digest, h->digest, sizeof(digest))) {
        *key = candidate;
        candidate = (SecretBuf) { 0 };
    }
    return true;
}

bool luks_unlock(const LUKSHeader *h, const SecretBuf *password,
                 const QCryptoBlockIO *io, SecretBuf *key, Error **errp)
{
    for (int i = 0; i < LUKS_SLOTS && !key->data; i++) {
        if (!luks_slot_unlock(h, i, password, io, key, errp)) {
            return false;
        }
    }
    if (!key->data) {
        error_setg(errp, "Invalid password, cannot unlock any keyslot");
    }
    return key->data;
}
