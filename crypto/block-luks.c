/*
 * LUKS, version 1: opening, creating, and what "info" shows.
 *
 * On the disk, a header of eight key slots stands before the data; see
 * block-luks-header.c and block-luks-slot.c.  What this adds is order: create
 * writes the key slot first and the header last, so that what looks like LUKS
 * can be opened.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "block-luks-internal.h"

/* Take over the header *@h, and the key if there is one. */
static bool adopt(QCryptoBlock *b, const LUKSHeader *h, const SecretBuf *key,
                  Error **errp)
{
    b->luks = g_memdup2(h, sizeof(*h));
    b->payload_offset = h->payload_sector *
                        (int64_t)QCRYPTO_BLOCK_SECTOR_SIZE;
    return !key || qcrypto_block_set_key(b, h->cipher, h->mode, h->ivgen,
                                         h->ivgen_hash, key->data, key->size,
                                         errp);
}

static bool luks_open(QCryptoBlock *b, const SecretBuf *password,
                      const QCryptoBlockIO *io, Error **errp)
{
    g_auto(SecretBuf) key = { 0 };
    LUKSHeader h;

    if (!luks_header_read(&h, b->detached, io, errp)) {
        return false;
    }
    if (password && !luks_unlock(&h, password, io, &key, errp)) {
        return false;
    }
    return adopt(b, &h, password ? &key : NULL, errp);
}

/* A key, which only the caller of create will ever have in the clear. */
static bool make_key(const LUKSHeader *h, SecretBuf *key, Error **errp)
{
    *key = secret_buf_new(h->key_bytes);
    return qcrypto_random_bytes(key->data, key->size, errp);
}

static bool luks_create(QCryptoBlock *b, const SecretBuf *password,
                        json_t *options, const QCryptoBlockIO *io,
                        Error **errp)
{
    g_autofree char *uuid = g_uuid_string_random();
    g_auto(SecretBuf) key = { 0 };
    uint64_t iter_time = LUKS_DEFAULT_ITER_TIME_MS;
    LUKSHeader h;

    if (!luks_header_from_options(&h, options, errp) ||
        !opt_take_u64(options, "iter-time", &iter_time, errp)) {
        return false;
    }
    g_strlcpy(h.uuid, uuid, sizeof(h.uuid));
    if (b->detached) {
        h.payload_sector = 0;
    }
    /* adopt() before anything is written: it knows what ESSIV cannot do. */
    return make_key(&h, &key, errp) &&
           luks_set_digest(&h, &key, iter_time, errp) &&
           adopt(b, &h, &key, errp) &&
           io->init(io->opaque, luks_header_bytes(&h), errp) &&
           luks_slot_store(b->luks, 0, &key, password, iter_time, io, errp) &&
           luks_header_write(b->luks, io, errp);
}

static bool luks_measure(json_t *options, int64_t *bytes, Error **errp)
{
    uint64_t iter_time;
    LUKSHeader h;

    if (!luks_header_from_options(&h, options, errp) ||
        !opt_take_u64(options, "iter-time", &iter_time, errp)) {
        return false;
    }
    *bytes = luks_header_bytes(&h);
    return true;
}

static json_t *slot_info(const LUKSSlot *slot)
{
    json_t *info = json_object();

    opt_set_bool(info, "active", slot->active);
    if (slot->active) {
        opt_set_u64(info, "iters", slot->iterations);
        opt_set_u64(info, "stripes", LUKS_STRIPES);
    }
    opt_set_u64(info, "key-offset", slot->key_sector *
                (uint64_t)QCRYPTO_BLOCK_SECTOR_SIZE);
    return info;
}

static void luks_get_info(const QCryptoBlock *b, json_t *info)
{
    const LUKSHeader *h = b->luks;
    g_autofree char *uuid = g_utf8_make_valid(h->uuid, -1);
    json_t *slots = json_array();

    opt_set_str(info, "cipher-alg", QCryptoCipherAlgo_names[h->cipher]);
    opt_set_str(info, "cipher-mode", QCryptoCipherMode_names[h->mode]);
    opt_set_str(info, "ivgen-alg", QCryptoIVGenAlgo_names[h->ivgen]);
    if (h->ivgen == QCRYPTO_IV_GEN_ALGO_ESSIV) {
        opt_set_str(info, "ivgen-hash-alg",
                    QCryptoHashAlgo_names[h->ivgen_hash]);
    }
    opt_set_str(info, "hash-alg", QCryptoHashAlgo_names[h->hash]);
    opt_set_bool(info, "detached-header", b->detached);
    opt_set_u64(info, "payload-offset", b->payload_offset);
    opt_set_u64(info, "master-key-iters", h->digest_iterations);
    opt_set_str(info, "uuid", uuid);
    for (int i = 0; i < LUKS_SLOTS; i++) {
        json_array_append_new(slots, slot_info(&h->slots[i]));
    }
    json_object_set_new(info, "slots", slots);
}

const QCryptoBlockDriver qcrypto_block_luks = {
    .open = luks_open,
    .create = luks_create,
    .measure = luks_measure,
    .amend = luks_amend,
    .get_info = luks_get_info,
};
