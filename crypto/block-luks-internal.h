/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of LUKS: header (block-luks-header.c), key slots
 * (block-luks-slot.c), their changes (block-luks-amend.c).
 */
#ifndef CRYPTO_BLOCK_LUKS_INTERNAL_H
#define CRYPTO_BLOCK_LUKS_INTERNAL_H

#include "block-internal.h"

#define LUKS_SLOTS 8
#define LUKS_STRIPES 4000
#define LUKS_DIGEST_SIZE 20
#define LUKS_SALT_SIZE 32
#define LUKS_NAME_SIZE 32
#define LUKS_UUID_SIZE 40
#define LUKS_HEADER_SIZE 592
/* The header's share of the disk; key slots are aligned to it. */
#define LUKS_ALIGN 4096

#define LUKS_MIN_ITERATIONS 1000
#define LUKS_DEFAULT_ITER_TIME_MS 2000

typedef struct LUKSSlot {
    bool active;
    uint32_t iterations;
    uint8_t salt[LUKS_SALT_SIZE];
    uint32_t key_sector;            /* where the key material starts */
} LUKSSlot;

/* The header, checked and in our own terms. */
typedef struct LUKSHeader {
    QCryptoCipherAlgo cipher;
    QCryptoCipherMode mode;
    QCryptoIVGenAlgo ivgen;
    bool has_ivgen_hash;
    QCryptoHashAlgo ivgen_hash;
    QCryptoHashAlgo hash;
    uint32_t payload_sector;
    uint32_t key_bytes;             /* of the master key: 16 … 64 */
    uint8_t digest[LUKS_DIGEST_SIZE], digest_salt[LUKS_SALT_SIZE];
    uint32_t digest_iterations;
    char uuid[LUKS_UUID_SIZE + 1];
    LUKSSlot slots[LUKS_SLOTS];
} LUKSHeader;

/* ---- Header ---- */

bool luks_probe(const uint8_t *buf, size_t size);

/* Read and check; *@h is valid if this succeeds. */
bool luks_header_read(LUKSHeader *h, bool detached, const QCryptoBlockIO *io,
                      Error **errp);
bool luks_header_write(const LUKSHeader *h, const QCryptoBlockIO *io,
                       Error **errp);

/* From the options of create (taken): the cipher and where things are. */
bool luks_header_from_options(LUKSHeader *h, json_t *options, Error **errp);

/* Whether all that an attempt to unlock would compute is bounded. */
bool luks_check_iterations(const LUKSHeader *h, Error **errp);

/* Bytes of the header with all slots, as luks_header_from_options lays out. */
int64_t luks_header_bytes(const LUKSHeader *h);

/* Bytes of one slot's key material, whole sectors. */
size_t luks_material_bytes(const LUKSHeader *h);

/* ---- Key slots ---- */

/* Choose digest_salt and digest_iterations, and make the digest of @key. */
bool luks_set_digest(LUKSHeader *h, const SecretBuf *key,
                     uint64_t iter_time_ms, Error **errp);

/*
 * Put @key into slot @i for @password: into *@h, and the key material onto
 * the disk.  The header is not written.
 */
bool luks_slot_store(LUKSHeader *h, int i, const SecretBuf *key,
                     const SecretBuf *password, uint64_t iter_time_ms,
                     const QCryptoBlockIO *io, Error **errp);

/* Destroy the key material of slot @i on the disk, and its entry in *@h. */
bool luks_slot_erase(LUKSHeader *h, int i, const QCryptoBlockIO *io,
                     Error **errp);

/* Whether @password opens slot @i: into *@key, which is empty, if so. */
bool luks_slot_unlock(const LUKSHeader *h, int i, const SecretBuf *password,
                      const QCryptoBlockIO *io, SecretBuf *key, Error **errp);

/* The same for any slot; an error if none opens. */
bool luks_unlock(const LUKSHeader *h, const SecretBuf *password,
                 const QCryptoBlockIO *io, SecretBuf *key, Error **errp);

/* ---- Changes ---- */

bool luks_amend(QCryptoBlock *b, json_t *options, const QCryptoBlockIO *io,
                bool force, Error **errp);

#endif
