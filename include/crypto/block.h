/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encryption of disks: LUKS (version 1), and the legacy AES of qcow2.
 *
 * A QCryptoBlock is what a format driver holds for an image that is
 * encrypted.  It knows no block layer: it reaches its header by the functions
 * of a QCryptoBlockIO, and data is given to it in memory.
 *
 * Threads: qcrypto_block_encrypt and _decrypt may be called by any number of
 * threads at once, without a lock, also while one of the functions that look
 * at or change the header (get_info, amend) runs; of those, one at a time.
 * Making one (open, create, amend) computes for seconds by design, and calls
 * the I/O functions, which may block; they are called by the same thread.
 *
 * Passwords come from the secrets of --object secret, by id.  All copies that
 * are made of passwords and keys are wiped.
 *
 * Sources: LUKS On-Disk Format Specification 1.2.3; for the legacy format,
 * QEMU's docs/interop/qcow2.txt ("crypt_method").
 */
#ifndef CRYPTO_BLOCK_H
#define CRYPTO_BLOCK_H

#include "crypto/ivgen.h"
#include "qemu/options.h"

/* IVs are numbered by sectors of this size, whatever the format's units. */
#define QCRYPTO_BLOCK_SECTOR_SIZE 512

/* In the order of QCryptoBlockFormat_names. */
typedef enum QCryptoBlockFormat {
    QCRYPTO_BLOCK_FORMAT_QCOW,      /* "aes": AES-128-CBC, no header */
    QCRYPTO_BLOCK_FORMAT_LUKS,
} QCryptoBlockFormat;

/* "aes", "luks"; ends with NULL. */
extern const char *const QCryptoBlockFormat_names[];

/*
 * How to reach the header.  Offsets are from its start.  The functions return
 * false with an error if they cannot do it whole.
 */
typedef struct QCryptoBlockIO {
    bool (*read)(void *opaque, int64_t offset, void *buf, size_t bytes,
                 Error **errp);
    bool (*write)(void *opaque, int64_t offset, const void *buf,
                  size_t bytes, Error **errp);
    /* create only: make room for a header of @bytes, a multiple of 512. */
    bool (*init)(void *opaque, size_t bytes, Error **errp);
    void *opaque;
} QCryptoBlockIO;

enum {
    /* open: no password, to look at the header only. */
    QCRYPTO_BLOCK_OPEN_NO_IO = 1 << 0,
    /* open and create: the header stands alone, in a file of its own. */
    QCRYPTO_BLOCK_DETACHED = 1 << 1,
};

typedef struct QCryptoBlock QCryptoBlock;

/*
 * The data of an image whose first @size bytes are @buf: whether this looks
 * like LUKS, in the version that is known here.
 */
bool qcrypto_block_has_format(QCryptoBlockFormat format, const uint8_t *buf,
                              size_t size);

/*
 * Open: read and check the header and, unless NO_IO, unlock the key by the
 * secret that "key-secret" in @options names.  That key is taken from
 * @options, no other.  @prefix (NULL: none) is put before it in messages:
 * "encrypt.".  NULL with an error.
 *
 * @io is needed for LUKS (read only), and not kept.
 */
QCryptoBlock *qcrypto_block_open(QCryptoBlockFormat format, json_t *options,
                                 const char *prefix, const QCryptoBlockIO *io,
                                 int flags, Error **errp);

/*
 * Create: a header with one key slot, by the init and write functions of @io,
 * from what is taken of @options (a flat object): key-secret, and for LUKS
 * cipher-alg, cipher-mode, ivgen-alg, ivgen-hash-alg, hash-alg, iter-time.
 * The result can encrypt at once.  NULL with an error.
 */
QCryptoBlock *qcrypto_block_create(QCryptoBlockFormat format, json_t *options,
                                   const char *prefix,
                                   const QCryptoBlockIO *io, int flags,
                                   Error **errp);

/*
 * How large the header would be that create makes of the same @options, which
 * it takes: *@bytes, 0 without a header.  Computes nothing slow.
 */
bool qcrypto_block_calculate_payload_offset(QCryptoBlockFormat format,
                                            json_t *options,
                                            const char *prefix,
                                            int64_t *bytes, Error **errp);

/*
 * Change the key slots as @options say, of which is taken: state, keyslot,
 * old-secret, new-secret, iter-time, and secret, which unlocks the key (as
 * default, the one that opened @b).  @force: also what loses the data for
 * good.  Uses read and write of @io; the caller flushes.  If this fails while
 * it writes, the slots that it did not mean to change still are as they were.
 */
bool qcrypto_block_amend(QCryptoBlock *b, json_t *options,
                         const QCryptoBlockIO *io, bool force, Error **errp);

/* Wipe and free; NULL is fine.  Nobody may be using it. */
void qcrypto_block_free(QCryptoBlock *b);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QCryptoBlock, qcrypto_block_free)

/*
 * Encrypt or decrypt @len bytes of the disk at @offset, from @in to @out (the
 * same, or not overlapping).  Both are multiples of the sector size, and @b
 * was not opened with NO_IO: asserted.  What the offset counts from is the
 * format's affair.
 */
void qcrypto_block_encrypt(const QCryptoBlock *b, uint64_t offset,
                           const void *in, void *out, size_t len);
void qcrypto_block_decrypt(const QCryptoBlock *b, uint64_t offset,
                           const void *in, void *out, size_t len);

/* Where data starts, in bytes from the header's start; 0 without a header. */
int64_t qcrypto_block_get_payload_offset(const QCryptoBlock *b);

QCryptoBlockFormat qcrypto_block_get_format(const QCryptoBlock *b);

/*
 * A new object with what "qemu-img info" shows as format-specific.encrypt:
 * "format" and, for LUKS, all about the header but what is secret.
 */
json_t *qcrypto_block_get_info(const QCryptoBlock *b);

#endif
