/*
 * qcow2: the encryption of a new image.
 *
 * What is wrong with the options is found before a file is touched, and so is
 * how large the LUKS header will be, since the layout has a place for it.
 *
 * Control thread; blocks, and takes its time: a password is made hard to guess
 * by that ("iter-time").
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "crypto/block.h"
#include "qcow2-create.h"

#define PREFIX "encrypt."

/* Nothing but the secret: there is no header. */
static bool check_aes(json_t *encrypt, Error **errp)
{
    QCryptoBlock *b = qcrypto_block_create(QCRYPTO_BLOCK_FORMAT_QCOW, encrypt,
                                           PREFIX, NULL, 0, errp);

    qcrypto_block_free(b);
    return b;
}

static bool check_unused(const json_t *encrypt, Error **errp)
{
    const char *unused = opt_first_unused(encrypt);

    if (unused) {
        error_setg(errp, "Parameter '" PREFIX "%s' is unexpected", unused);
    }
    return !unused;
}

bool qcow2_create_crypto_check(const Qcow2CreateOptions *o, int64_t *bytes,
                               Error **errp)
{
    g_autoptr(json_t) encrypt = json_copy(o->encrypt);

    *bytes = 0;
    switch (o->crypt_method) {
    case QCOW2_CRYPT_AES:
        return check_aes(encrypt, errp) && check_unused(encrypt, errp);
    case QCOW2_CRYPT_LUKS:
        return qcrypto_block_calculate_payload_offset(
                   QCRYPTO_BLOCK_FORMAT_LUKS, encrypt, PREFIX, bytes, errp) &&
               check_unused(encrypt, errp);
    default:
        return true;
    }
}

/* ---- The LUKS header ---- */

typedef struct NewHeader {
    BlockBackend *blk;
    int64_t offset, clusters_bytes;
} NewHeader;

/* Whole clusters, and nothing of what a device held before. */
static bool header_init(void *opaque, size_t bytes, Error **errp)
{
    NewHeader *h = opaque;
    int ret = bytes <= (uint64_t)h->clusters_bytes ?
              blk_pwrite_zeroes(h->blk, h->offset, h->clusters_bytes, 0) :
              -EFBIG;

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write encryption header");
    }
    return ret >= 0;
}

static bool header_write(void *opaque, int64_t offset, const void *buf,
                         size_t bytes, Error **errp)
{
    NewHeader *h = opaque;
    int ret = blk_pwrite(h->blk, h->offset + offset, bytes, buf, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write encryption header");
    }
    return ret >= 0;
}

bool qcow2_create_crypto_header(BlockBackend *blk, const Qcow2CreateOptions *o,
                                int64_t offset, int64_t clusters_bytes,
                                Error **errp)
{
    g_autoptr(json_t) encrypt = json_copy(o->encrypt);
    NewHeader h = { blk, offset, clusters_bytes };
    QCryptoBlockIO io = {
        .init = header_init, .write = header_write, .opaque = &h,
    };
    QCryptoBlock *b;

    if (o->crypt_method != QCOW2_CRYPT_LUKS) {
        return true;
    }
    b = qcrypto_block_create(QCRYPTO_BLOCK_FORMAT_LUKS, encrypt, PREFIX, &io,
                             0, errp);
    qcrypto_block_free(b);
    return b;
}
