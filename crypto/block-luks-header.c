/*
 * LUKS's header on the disk (specification 1.2.3, figures 1 and 2).
 *
 *   0 magic   6 version   8 cipher name   40 cipher mode   72 hash
 *   104 payload offset   108 key bytes   112 digest   132 its salt
 *   164 its iterations   168 uuid
 *   208 eight slots of 48: state, iterations, salt, key offset, stripes
 *
 * Numbers are big-endian, offsets count sectors of 512 bytes, text ends with a
 * NUL.  The mode is "MODE-IVGEN[:HASH]".
 *
 * Nothing of what is read is believed.  A name must be one that is known, and
 * the key's length one that the cipher takes, which bounds all that depends on
 * it (key material: 4000 times 64 bytes).  Slots must not touch the header, the
 * payload or each other.  Iterations have a limit, since a header could ask for
 * hours of computing; it is far above what "iter-time" leads to.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "block-luks-internal.h"

#define SECTOR QCRYPTO_BLOCK_SECTOR_SIZE
#define SLOT_ACTIVE 0x00ac71f3
#define SLOT_DISABLED 0x0000dead

/*
 * What trying all slots may cost: some ten minutes, where two seconds a slot
 * (the usual iter-time) on a fast machine is less than 1 % of it.
 */
#define MAX_TOTAL_ITERATIONS (UINT64_C(1) << 31)

static const uint8_t magic[6] = { 'L', 'U', 'K', 'S', 0xba, 0xbe };

typedef struct RawSlot {
    uint32_t state, iterations;
    uint8_t salt[LUKS_SALT_SIZE];
    uint32_t key_sector, stripes;
} RawSlot;

typedef struct RawHeader {
    uint8_t magic[6];
    uint16_t version;
    char cipher_name[LUKS_NAME_SIZE];
    char cipher_mode[LUKS_NAME_SIZE];
    char hash[LUKS_NAME_SIZE];
    uint32_t payload_sector, key_bytes;
    uint8_t digest[LUKS_DIGEST_SIZE], digest_salt[LUKS_SALT_SIZE];
    uint32_t digest_iterations;
    char uuid[LUKS_UUID_SIZE];
    RawSlot slots[LUKS_SLOTS];
} RawHeader;

_Static_assert(sizeof(RawHeader) == LUKS_HEADER_SIZE, "no padding");

/* LUKS's names of the families: options have the key's length in them. */
static const struct {
    const char *name;
    QCryptoCipherAlgo first, last;
} families[] = {
    { "aes", QCRYPTO_CIPHER_ALGO_AES_128, QCRYPTO_CIPHER_ALGO_AES_256 },
    { "cast5", QCRYPTO_CIPHER_ALGO_CAST5_128, QCRYPTO_CIPHER_ALGO_CAST5_128 },
    { "serpent", QCRYPTO_CIPHER_ALGO_SERPENT_128,
      QCRYPTO_CIPHER_ALGO_SERPENT_256 },
    { "twofish", QCRYPTO_CIPHER_ALGO_TWOFISH_128,
      QCRYPTO_CIPHER_ALGO_TWOFISH_256 },
};

size_t luks_material_bytes(const LUKSHeader *h)
{
    return ROUND_UP((size_t)h->key_bytes * LUKS_STRIPES, (size_t)SECTOR);
}

static int64_t slot_bytes(const LUKSHeader *h)
{
    return ROUND_UP((int64_t)luks_material_bytes(h), (int64_t)LUKS_ALIGN);
}

int64_t luks_header_bytes(const LUKSHeader *h)
{
    return LUKS_ALIGN + LUKS_SLOTS * slot_bytes(h);
}

bool luks_probe(const uint8_t *buf, size_t size)
{
    return size >= 8 && memcmp(buf, magic, sizeof(magic)) == 0 &&
           buf[6] == 0 && buf[7] == 1;
}

/* ---- Names ---- */

static int find_name(const char *const names[], const char *name)
{
    for (int i = 0; names[i]; i++) {
        if (g_str_equal(names[i], name)) {
            return i;
        }
    }
    return -1;
}

static bool parse_hash(const char *name, QCryptoHashAlgo *hash, Error **errp)
{
    int i = find_name(QCryptoHashAlgo_names, name);

    if (i < 0) {
        error_setg(errp, "Hash algorithm '%s' not supported", name);
        return false;
    }
    *hash = i;
    return true;
}

static bool parse_ivgen(LUKSHeader *h, char *text, Error **errp)
{
    char *hash = strchr(text, ':');
    int ivgen;

    if (hash) {
        *hash++ = 0;
        if (!parse_hash(hash, &h->ivgen_hash, errp)) {
            return false;
        }
        h->has_ivgen_hash = true;
    }
    ivgen = find_name(QCryptoIVGenAlgo_names, text);
    if (ivgen < 0) {
        error_setg(errp, "IV generator '%s' not supported", text);
        return false;
    }
    if (ivgen == QCRYPTO_IV_GEN_ALGO_ESSIV && !hash) {
        error_setg(errp, "Missing IV generator hash specification");
        return false;
    }
    h->ivgen = ivgen;
    return true;
}

/* "MODE-IVGEN[:HASH]", which is taken apart. */
static bool parse_mode(LUKSHeader *h, char *text, Error **errp)
{
    char *ivgen = strchr(text, '-');
    int mode;

    if (!ivgen) {
        error_setg(errp, "Unexpected cipher mode string format '%s'", text);
        return false;
    }
    *ivgen++ = 0;
    mode = find_name(QCryptoCipherMode_names, text);
    if (mode < 0) {
        error_setg(errp, "Cipher mode '%s' not supported", text);
        return false;
    }
    h->mode = mode;
    return parse_ivgen(h, ivgen, errp);
}

/* The cipher of the family @name that has keys of h->key_bytes. */
static bool parse_cipher(LUKSHeader *h, const char *name, Error **errp)
{
    bool xts = h->mode == QCRYPTO_CIPHER_MODE_XTS;

    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        for (int alg = families[i].first; g_str_equal(families[i].name, name)
             && alg <= (int)families[i].last; alg++) {
            if (qcrypto_cipher_get_mode_key_len(alg, h->mode) !=
                h->key_bytes) {
                continue;
            }
            if (!qcrypto_cipher_supports(alg, h->mode)) {
                error_setg(errp, "Unsupported cipher mode %s",
                           QCryptoCipherMode_names[h->mode]);
                return false;
            }
            h->cipher = alg;
            return true;
        }
    }
    error_setg(errp, "Algorithm '%s' with key size %" PRIu32 " bytes not "
               "supported", name, xts ? h->key_bytes / 2 : h->key_bytes);
    return false;
}

static const char *family_name(QCryptoCipherAlgo alg)
{
    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        if (alg >= families[i].first && alg <= families[i].last) {
            return families[i].name;
        }
    }
    return NULL;
}

/* ---- Checking ---- */

static bool check_text(const char *text, const char *what, Error **errp)
{
    if (!memchr(text, 0, LUKS_NAME_SIZE)) {
        error_setg(errp, "LUKS header %s is not NUL terminated", what);
        return false;
    }
    return true;
}

static bool check_raw(const RawHeader *raw, Error **errp)
{
    if (memcmp(raw->magic, magic, sizeof(magic)) != 0) {
        error_setg(errp, "Volume is not in LUKS format");
        return false;
    }
    if (GUINT16_FROM_BE(raw->version) != 1) {
        error_setg(errp, "LUKS version %d is not supported",
                   GUINT16_FROM_BE(raw->version));
        return false;
    }
    return check_text(raw->cipher_name, "cipher name", errp) &&
           check_text(raw->cipher_mode, "cipher mode", errp) &&
           check_text(raw->hash, "hash spec", errp);
}

bool luks_check_iterations(const LUKSHeader *h, Error **errp)
{
    uint64_t total = h->digest_iterations;

    if (h->digest_iterations == 0) {
        error_setg(errp, "LUKS key iteration count is zero");
        return false;
    }
    for (int i = 0; i < LUKS_SLOTS; i++) {
        if (!h->slots[i].active) {
            continue;
        }
        if (h->slots[i].iterations == 0) {
            error_setg(errp, "Keyslot %d iteration count is zero", i);
            return false;
        }
        total += (uint64_t)h->slots[i].iterations + h->digest_iterations;
    }
    if (total > MAX_TOTAL_ITERATIONS) {
        error_setg(errp, "LUKS iteration counts are too large: %" PRIu64
                   " in all, of at most %" PRIu64, total,
                   MAX_TOTAL_ITERATIONS);
        return false;
    }
    return true;
}

static bool check_slot(const LUKSHeader *h, int i, bool detached,
                       Error **errp)
{
    uint64_t sectors = luks_material_bytes(h) / SECTOR;
    uint64_t start = h->slots[i].key_sector;

    if (start < LUKS_ALIGN / SECTOR) {
        error_setg(errp, "Keyslot %d is overlapping with the LUKS header", i);
        return false;
    }
    if (!detached && start + sectors > h->payload_sector) {
        error_setg(errp, "Keyslot %d is overlapping with the encrypted "
                   "payload", i);
        return false;
    }
    for (int j = i + 1; j < LUKS_SLOTS; j++) {
        uint64_t other = h->slots[j].key_sector;

        if (start < other + sectors && other < start + sectors) {
            error_setg(errp, "Keyslots %d and %d are overlapping in the "
                       "header", i, j);
            return false;
        }
    }
    return true;
}

static bool check_places(const LUKSHeader *h, bool detached, Error **errp)
{
    if (!detached && h->payload_sector < LUKS_ALIGN / SECTOR) {
        error_setg(errp, "LUKS payload is overlapping with the header");
        return false;
    }
    for (int i = 0; i < LUKS_SLOTS; i++) {
        if (!check_slot(h, i, detached, errp)) {
            return false;
        }
    }
    return true;
}

/* ---- From and to the disk ---- */

static bool parse_slot(LUKSSlot *slot, const RawSlot *raw, int i,
                       Error **errp)
{
    uint32_t state = GUINT32_FROM_BE(raw->state);
    uint32_t stripes = GUINT32_FROM_BE(raw->stripes);

    if (stripes != LUKS_STRIPES) {
        error_setg(errp, "Keyslot %d is corrupted (stripes %" PRIu32
                   " != %d)", i, stripes, LUKS_STRIPES);
        return false;
    }
    if (state != SLOT_ACTIVE && state != SLOT_DISABLED) {
        error_setg(errp, "Keyslot %d state (active/disable) is corrupted", i);
        return false;
    }
    slot->active = state == SLOT_ACTIVE;
    slot->iterations = GUINT32_FROM_BE(raw->iterations);
    slot->key_sector = GUINT32_FROM_BE(raw->key_sector);
    memcpy(slot->salt, raw->salt, sizeof(slot->salt));
    return true;
}

static bool parse_header(LUKSHeader *h, RawHeader *raw, Error **errp)
{
    h->payload_sector = GUINT32_FROM_BE(raw->payload_sector);
    h->key_bytes = GUINT32_FROM_BE(raw->key_bytes);
    h->digest_iterations = GUINT32_FROM_BE(raw->digest_iterations);
    memcpy(h->digest, raw->digest, sizeof(h->digest));
    memcpy(h->digest_salt, raw->digest_salt, sizeof(h->digest_salt));
    memcpy(h->uuid, raw->uuid, sizeof(raw->uuid));
    for (int i = 0; i < LUKS_SLOTS; i++) {
        if (!parse_slot(&h->slots[i], &raw->slots[i], i, errp)) {
            return false;
        }
    }
    return parse_mode(h, raw->cipher_mode, errp) &&
           parse_hash(raw->hash, &h->hash, errp) &&
           parse_cipher(h, raw->cipher_name, errp);
}

bool luks_header_read(LUKSHeader *h, bool detached, const QCryptoBlockIO *io,
                      Error **errp)
{
    ERRP_GUARD();
    RawHeader raw;

    *h = (LUKSHeader) { 0 };
    if (!io->read(io->opaque, 0, &raw, sizeof(raw), errp)) {
        error_prepend(errp, "Unable to read LUKS header: ");
        return false;
    }
    return check_raw(&raw, errp) && parse_header(h, &raw, errp) &&
           check_places(h, detached, errp) && luks_check_iterations(h, errp);
}

bool luks_header_write(const LUKSHeader *h, const QCryptoBlockIO *io,
                       Error **errp)
{
    ERRP_GUARD();
    RawHeader raw = {
        .version = GUINT16_TO_BE(1),
        .payload_sector = GUINT32_TO_BE(h->payload_sector),
        .key_bytes = GUINT32_TO_BE(h->key_bytes),
        .digest_iterations = GUINT32_TO_BE(h->digest_iterations),
    };

    memcpy(raw.magic, magic, sizeof(magic));
    g_strlcpy(raw.cipher_name, family_name(h->cipher), LUKS_NAME_SIZE);
    g_snprintf(raw.cipher_mode, LUKS_NAME_SIZE, "%s-%s%s%s",
               QCryptoCipherMode_names[h->mode],
               QCryptoIVGenAlgo_names[h->ivgen],
               h->has_ivgen_hash ? ":" : "",
               h->has_ivgen_hash ? QCryptoHashAlgo_names[h->ivgen_hash] : "");
    g_strlcpy(raw.hash, QCryptoHashAlgo_names[h->hash], LUKS_NAME_SIZE);
    memcpy(raw.digest, h->digest, sizeof(raw.digest));
    memcpy(raw.digest_salt, h->digest_salt, sizeof(raw.digest_salt));
    memcpy(raw.uuid, h->uuid, sizeof(raw.uuid));
    for (int i = 0; i < LUKS_SLOTS; i++) {
        const LUKSSlot *slot = &h->slots[i];

        raw.slots[i] = (RawSlot) {
            .state = GUINT32_TO_BE(slot->active ? SLOT_ACTIVE
                                                : SLOT_DISABLED),
            .iterations = GUINT32_TO_BE(slot->iterations),
            .key_sector = GUINT32_TO_BE(slot->key_sector),
            .stripes = GUINT32_TO_BE(LUKS_STRIPES),
        };
        memcpy(raw.slots[i].salt, slot->salt, sizeof(slot->salt));
    }
    if (!io->write(io->opaque, 0, &raw, sizeof(raw), errp)) {
        error_prepend(errp, "Unable to write LUKS header: ");
        return false;
    }
    return true;
}

/* ---- From options ---- */

bool luks_header_from_options(LUKSHeader *h, json_t *options, Error **errp)
{
    int cipher = QCRYPTO_CIPHER_ALGO_AES_256, mode = QCRYPTO_CIPHER_MODE_XTS;
    int ivgen = QCRYPTO_IV_GEN_ALGO_PLAIN64, hash = QCRYPTO_HASH_ALGO_SHA256;
    int ivgen_hash = -1;

    if (!opt_take_enum(options, "cipher-alg", QCryptoCipherAlgo_names,
                       &cipher, errp) ||
        !opt_take_enum(options, "cipher-mode", QCryptoCipherMode_names,
                       &mode, errp) ||
        !opt_take_enum(options, "ivgen-alg", QCryptoIVGenAlgo_names, &ivgen,
                       errp) ||
        !opt_take_enum(options, "ivgen-hash-alg", QCryptoHashAlgo_names,
                       &ivgen_hash, errp) ||
        !opt_take_enum(options, "hash-alg", QCryptoHashAlgo_names, &hash,
                       errp)) {
        return false;
    }
    if (!family_name(cipher)) {
        error_setg(errp, "Algorithm '%s' not supported",
                   QCryptoCipherAlgo_names[cipher]);
        return false;
    }
    if (!qcrypto_cipher_supports(cipher, mode)) {
        error_setg(errp, "Unsupported cipher mode %s",
                   QCryptoCipherMode_names[mode]);
        return false;
    }
    if (ivgen_hash < 0 && ivgen == QCRYPTO_IV_GEN_ALGO_ESSIV) {
        ivgen_hash = QCRYPTO_HASH_ALGO_SHA256;
    }
    *h = (LUKSHeader) {
        .cipher = cipher, .mode = mode, .ivgen = ivgen, .hash = hash,
        .has_ivgen_hash = ivgen_hash >= 0,
        .ivgen_hash = MAX(ivgen_hash, 0),
        .key_bytes = qcrypto_cipher_get_mode_key_len(cipher, mode),
    };
    for (int i = 0; i < LUKS_SLOTS; i++) {
        h->slots[i].key_sector = (LUKS_ALIGN + i * slot_bytes(h)) / SECTOR;
    }
    h->payload_sector = luks_header_bytes(h) / SECTOR;
    return true;
}
