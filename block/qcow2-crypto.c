/*
 * qcow2: encrypted images, once they exist.
 *
 * Source: "QEMU QCOW Image Format", "crypt_method", "Full disk encryption
 * header pointer", "Data encryption".
 *
 * Data clusters are encrypted, sector by sector; tables are not, nor is what
 * only the tables say (zeroes).  What the number of a sector counts from
 * decides its IV:
 *
 *   AES    the guest's disk
 *   LUKS   the file that holds the data: a cluster that is copied is decrypted
 *          for its old place and encrypted for its new one
 *
 * The LUKS header is in clusters of its own in the image file.  Where they are
 * is what a stranger says, so nothing is read or written past the length that
 * he says with it, and nothing is written where tables are.
 *
 * The keys are constant while the image is open, and any number of threads use
 * them at once; the key slots change on the control thread.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "crypto/block.h"
#include "qcow2.h"

/* Eight slots of the largest key and the most stripes that anyone makes take
 * 2 MiB. */
#define MAX_HEADER (64 * MiB)

/* ---- The LUKS header ---- */

static bool check_range(const BDRVQcow2State *s, int64_t offset, size_t bytes,
                        Error **errp)
{
    if (offset < 0 || offset > s->crypto_header_length ||
        bytes > (uint64_t)(s->crypto_header_length - offset)) {
        error_setg(errp, "Request for data outside of extension header");
        return false;
    }
    return true;
}

static bool header_read(void *opaque, int64_t offset, void *buf, size_t bytes,
                        Error **errp)
{
    BlockDriverState *bs = opaque;
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (!check_range(s, offset, bytes, errp)) {
        return false;
    }
    ret = bdrv_pread(bs->file, s->crypto_header_offset + offset, bytes, buf,
                     0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to read encryption header");
    }
    return ret >= 0;
}

static bool header_write(void *opaque, int64_t offset, const void *buf,
                         size_t bytes, Error **errp)
{
    BlockDriverState *bs = opaque;
    BDRVQcow2State *s = bs->opaque;
    int64_t at = s->crypto_header_offset + offset;
    int ret;

    if (!check_range(s, offset, bytes, errp)) {
        return false;
    }
    ret = qcow2_check_overlap(bs, QCOW2_OL_MAIN_HEADER, at, bytes);
    if (ret == 0) {
        ret = bdrv_pwrite(bs->file, at, bytes, buf, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to write encryption header");
    }
    return ret >= 0;
}

static QCryptoBlockIO header_io(BlockDriverState *bs)
{
    return (QCryptoBlockIO) {
        .read = header_read,
        .write = header_write,
        .opaque = bs,
    };
}

static bool check_place(const BDRVQcow2State *s, Error **errp)
{
    if (s->crypt_method != QCOW2_CRYPT_LUKS) {
        return true;
    }
    if (s->crypto_header_offset < s->cluster_size) {
        error_setg(errp, "Encryption header overlaps with the qcow2 header");
        return false;
    }
    if (s->crypto_header_length > MAX_HEADER) {
        error_setg(errp, "Encryption header is too large");
        return false;
    }
    return true;
}

/* ---- Open and close ---- */

bool qcow2_open_crypto(BlockDriverState *bs, json_t *encrypt, int flags,
                       Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    bool no_io = flags & BDRV_O_NO_IO;
    QCryptoBlockIO io = header_io(bs);
    g_autoptr(json_t) none = json_object();
    const char *unused;

    if (s->crypt_method == QCOW2_CRYPT_NONE) {
        return true;
    }
    if (!check_place(s, errp)) {
        return false;
    }
    encrypt = encrypt ? encrypt : none;
    s->crypto = qcrypto_block_open(s->crypt_method == QCOW2_CRYPT_LUKS ?
                                   QCRYPTO_BLOCK_FORMAT_LUKS :
                                   QCRYPTO_BLOCK_FORMAT_QCOW, encrypt,
                                   "encrypt.", &io,
                                   no_io ? QCRYPTO_BLOCK_OPEN_NO_IO : 0, errp);
    unused = s->crypto ? opt_first_unused(encrypt) : NULL;
    if (unused) {
        error_setg(errp, "Parameter '%s' is unexpected", unused);
        return false;
    }
    s->has_key = s->crypto && !no_io;
    return s->crypto;
}

void qcow2_close_crypto(BDRVQcow2State *s)
{
    qcrypto_block_free(s->crypto);
    s->crypto = NULL;
    s->has_key = false;
}

/* ---- Data ---- */

int qcow2_encrypt(const BDRVQcow2State *s, int64_t guest, int64_t host,
                  void *buf, size_t bytes)
{
    if (!s->has_key) {
        return -EACCES;
    }
    qcrypto_block_encrypt(s->crypto, s->crypt_method == QCOW2_CRYPT_LUKS ?
                          host : guest, buf, buf, bytes);
    return 0;
}

int qcow2_decrypt(const BDRVQcow2State *s, int64_t guest, int64_t host,
                  void *buf, size_t bytes)
{
    if (!s->has_key) {
        return -EACCES;
    }
    qcrypto_block_decrypt(s->crypto, s->crypt_method == QCOW2_CRYPT_LUKS ?
                          host : guest, buf, buf, bytes);
    return 0;
}

/* ---- Key slots ---- */

bool qcow2_amend_crypto(BlockDriverState *bs, json_t *options, bool force,
                        Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(json_t) encrypt = options_extract_prefix(options, "encrypt.");
    QCryptoBlockIO io = header_io(bs);
    int ret;

    if (json_object_size(encrypt) == 0) {
        return true;
    }
    if (!s->crypto) {
        error_setg(errp, "Can't amend encryption options - encryption not "
                   "present");
        return false;
    }
    if (!qcrypto_block_amend(s->crypto, encrypt, &io, force, errp) ||
        !opt_check_unused(encrypt, errp)) {
        return false;
    }
    ret = bdrv_flush(bs->file->bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush the encryption header");
    }
    return ret >= 0;
}
