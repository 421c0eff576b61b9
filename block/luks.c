/*
 * The format "luks": a disk encrypted as dm-crypt does it, behind a LUKS
 * header (version 1), or with the header in a node of its own ("header").
 *
 * What LUKS is, include/crypto/block.h knows; this lends it the file, and puts
 * data through it.  The state is constant after open, and a QCryptoBlock may be
 * used by any thread, so requests need no lock: each encrypts or decrypts in
 * the worker that runs it, on as many processors as there are requests.  There
 * is no fast path, as that would do it in the device's thread.
 *
 * Data is encrypted into, and decrypted from, a buffer of our own, at most
 * MAX_BOUNCE at a time.  A guest must not see its write change under it, nor
 * get at the cipher text, which it could swap before it is decrypted.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "block/block-driver.h"
#include "crypto/block.h"

#define MAX_BOUNCE (1 * MiB)

typedef struct LuksState {
    QCryptoBlock *block;            /* amend changes its header: control */
    BdrvChild *header;              /* NULL: the header is in bs->file */
    int64_t payload_offset;
} LuksState;

static int luks_probe(const uint8_t *buf, int size, const char *filename)
{
    return qcrypto_block_has_format(QCRYPTO_BLOCK_FORMAT_LUKS, buf, size)
        ? 100 : 0;
}

/* ---- The header's I/O ---- */

static bool child_read(void *opaque, int64_t offset, void *buf, size_t bytes,
                       Error **errp)
{
    int ret = bdrv_pread(opaque, offset, bytes, buf, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to read encryption header");
    }
    return ret >= 0;
}

static bool child_write(void *opaque, int64_t offset, const void *buf,
                        size_t bytes, Error **errp)
{
    int ret = bdrv_pwrite(opaque, offset, bytes, buf, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to write encryption header");
    }
    return ret >= 0;
}

static QCryptoBlockIO child_io(BlockDriverState *bs)
{
    LuksState *s = bs->opaque;

    return (QCryptoBlockIO) {
        .read = child_read,
        .write = child_write,
        .opaque = s->header ? s->header : bs->file,
    };
}

/* ---- Open and close ---- */

static bool luks_open(BlockDriverState *bs, json_t *options, int flags,
                      Error **errp)
{
    LuksState *s = bs->opaque;
    int crypto_flags = 0;
    QCryptoBlockIO io;

    if (!bdrv_open_file_child(bs, options, errp) ||
        !bdrv_open_child(bs, options, "header", BDRV_CHILD_METADATA, true,
                         &s->header, errp)) {
        return false;
    }
    if (flags & BDRV_O_NO_IO) {
        crypto_flags |= QCRYPTO_BLOCK_OPEN_NO_IO;
    }
    if (s->header) {
        crypto_flags |= QCRYPTO_BLOCK_DETACHED;
    }
    io = child_io(bs);
    s->block = qcrypto_block_open(QCRYPTO_BLOCK_FORMAT_LUKS, options, NULL,
                                  &io, crypto_flags, errp);
    if (!s->block) {
        return false;
    }
    s->payload_offset = qcrypto_block_get_payload_offset(s->block);
    return true;
}

static void luks_close(BlockDriverState *bs)
{
    LuksState *s = bs->opaque;

    qcrypto_block_free(s->block);
}

static void luks_refresh_limits(BlockDriverState *bs)
{
    bs->bl.request_alignment = QCRYPTO_BLOCK_SECTOR_SIZE;
}

/* ---- Requests ---- */

static int luks_read_piece(BlockDriverState *bs, int64_t offset, size_t bytes,
                           QEMUIOVector *qiov, size_t qiov_offset, void *bounce)
{
    LuksState *s = bs->opaque;
    void *dest = qemu_iovec_contiguous(qiov, qiov_offset, bytes);
    int ret = bdrv_pread(bs->file, s->payload_offset + offset, bytes, bounce,
                         0);

    if (ret < 0) {
        return ret;
    }
    qcrypto_block_decrypt(s->block, offset, bounce, dest ? dest : bounce,
                          bytes);
    if (!dest) {
        qemu_iovec_from_buf(qiov, qiov_offset, bounce, bytes);
    }
    return 0;
}

static int luks_write_piece(BlockDriverState *bs, int64_t offset,
                            size_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset, void *bounce, int flags)
{
    LuksState *s = bs->opaque;
    const void *source = qemu_iovec_contiguous(qiov, qiov_offset, bytes);

    if (!source) {
        qemu_iovec_to_buf(qiov, qiov_offset, bounce, bytes);
        source = bounce;
    }
    qcrypto_block_encrypt(s->block, offset, source, bounce, bytes);
    return bdrv_pwrite(bs->file, s->payload_offset + offset, bytes, bounce,
                       flags);
}

static int luks_rw(BlockDriverState *bs, bool is_write, int64_t offset,
                   int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset,
                   int flags)
{
    size_t align = MAX(bs->file->bs->bl.opt_mem_alignment, 512);
    void *bounce = qemu_try_memalign(align, MIN(bytes, MAX_BOUNCE));
    int ret = bounce ? 0 : -ENOMEM;

    while (bytes && ret >= 0) {
        size_t n = MIN(bytes, MAX_BOUNCE);

        ret = is_write
            ? luks_write_piece(bs, offset, n, qiov, qiov_offset, bounce,
                               flags)
            : luks_read_piece(bs, offset, n, qiov, qiov_offset, bounce);
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    qemu_vfree(bounce);
    return MIN(ret, 0);
}

static int luks_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return luks_rw(bs, false, offset, bytes, qiov, qiov_offset, 0);
}

static int luks_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return luks_rw(bs, true, offset, bytes, qiov, qiov_offset,
                   flags & BDRV_REQ_FUA);
}

/* ---- Length ---- */

static int64_t luks_getlength(BlockDriverState *bs)
{
    LuksState *s = bs->opaque;
    int64_t length = bdrv_getlength(bs->file->bs);

    if (length < 0) {
        return length;
    }
    return length < s->payload_offset ? -EIO : length - s->payload_offset;
}

static bool luks_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                          PreallocMode prealloc, int flags, Error **errp)
{
    LuksState *s = bs->opaque;

    if (offset > INT64_MAX - s->payload_offset) {
        error_setg(errp, "The requested file size is too large");
        return false;
    }
    return bdrv_truncate(bs->file, offset + s->payload_offset, exact,
                         prealloc, 0, errp);
}

/* ---- Information and changes ---- */

static int luks_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    *info = (BlockDriverInfo) { .is_encrypted = true };
    return 0;
}

static json_t *luks_get_specific_info(BlockDriverState *bs, Error **errp)
{
    LuksState *s = bs->opaque;
    json_t *data = qcrypto_block_get_info(s->block);

    json_object_del(data, "format");        /* "type" says it */
    return json_pack("{s:s, s:o}", "type", "luks", "data", data);
}

static bool luks_amend(BlockDriverState *bs, json_t *options, bool force,
                       BdrvProgressFunc *progress, void *opaque, Error **errp)
{
    LuksState *s = bs->opaque;
    QCryptoBlockIO io = child_io(bs);
    int ret;

    if (!qcrypto_block_amend(s->block, options, &io, force, errp)) {
        return false;
    }
    /* A password that was withdrawn must not come back. */
    ret = bdrv_flush(((BdrvChild *)io.opaque)->bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush the encryption header");
    }
    return ret >= 0;
}

/* ---- Create and measure ---- */

static const char *const luks_crypto_options[] = {
    "cipher-alg", "cipher-mode", "hash-alg", "iter-time", "ivgen-alg",
    "ivgen-hash-alg", "key-secret", NULL,
};

/* What concerns the encryption, taken out of @options. */
static json_t *take_crypto_options(json_t *options)
{
    json_t *crypto = json_object();

    for (int i = 0; luks_crypto_options[i]; i++) {
        json_t *v = opt_take_any(options, luks_crypto_options[i]);

        if (v) {
            json_object_set_new(crypto, luks_crypto_options[i], v);
        }
    }
    return crypto;
}

/* Whether @crypto is fit for create; *@file_size with a disk of @size. */
static bool check_crypto_options(const json_t *crypto, int64_t size,
                                 int64_t *file_size, Error **errp)
{
    g_autoptr(json_t) copy = json_copy((json_t *)crypto);
    int64_t header = 0;

    if (!qcrypto_block_calculate_payload_offset(QCRYPTO_BLOCK_FORMAT_LUKS,
                                                copy, NULL, &header, errp)) {
        return false;
    }
    if (size > INT64_MAX - header) {
        error_setg(errp, "The requested file size is too large");
        return false;
    }
    *file_size = size + header;
    return true;
}

typedef struct LuksCreate {
    BlockBackend *blk;
    int64_t file_size;
    PreallocMode prealloc;
} LuksCreate;

static bool create_init(void *opaque, size_t bytes, Error **errp)
{
    LuksCreate *c = opaque;

    return blk_truncate(c->blk, c->file_size, false, c->prealloc, 0, errp);
}

static bool create_write(void *opaque, int64_t offset, const void *buf,
                         size_t bytes, Error **errp)
{
    LuksCreate *c = opaque;
    int ret = blk_pwrite(c->blk, offset, bytes, buf, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to write encryption header");
    }
    return ret >= 0;
}

static bool create_header(LuksCreate *c, json_t *crypto, Error **errp)
{
    QCryptoBlockIO io = {
        .init = create_init, .write = create_write, .opaque = c,
    };
    QCryptoBlock *b = qcrypto_block_create(QCRYPTO_BLOCK_FORMAT_LUKS, crypto,
                                           NULL, &io, 0, errp);
    int ret = b ? blk_flush(c->blk) : 0;

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush the new image");
    }
    qcrypto_block_free(b);
    return b && ret >= 0;
}

static bool luks_create(BlockGraph *graph, const char *filename,
                        json_t *options, Error **errp)
{
    g_autoptr(json_t) crypto = take_crypto_options(options);
    LuksCreate c = { 0 };
    int64_t size = 0;
    bool ok;

    /* All that can be wrong with options, before a file is touched. */
    if (!opt_take_offset(options, "size", &size, errp) ||
        !check_crypto_options(crypto, size, &c.file_size, errp) ||
        !bdrv_create_file(graph, filename, options, errp)) {
        return false;
    }
    c.blk = blk_new_open(graph, filename, NULL, NULL,
                         BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_PROTOCOL, errp);
    if (!c.blk) {
        return false;
    }
    ok = create_header(&c, crypto, errp);
    blk_unref(c.blk);
    if (!ok) {
        bdrv_delete_created_file(filename);
    }
    return ok;
}

static const BlockCreateParam luks_blockdev_create_params[] = {
    { "driver", BLOCK_PARAM_STRING },
    { "file", BLOCK_PARAM_NODE, true },
    { "size", BLOCK_PARAM_SIZE, true },
    { "preallocation", BLOCK_PARAM_ENUM, .values = PreallocMode_names },
    { "cipher-alg", BLOCK_PARAM_STRING },
    { "cipher-mode", BLOCK_PARAM_STRING },
    { "hash-alg", BLOCK_PARAM_STRING },
    { "iter-time", BLOCK_PARAM_INT },
    { "ivgen-alg", BLOCK_PARAM_STRING },
    { "ivgen-hash-alg", BLOCK_PARAM_STRING },
    { "key-secret", BLOCK_PARAM_STRING },
    { NULL }
};

static bool luks_blockdev_create(BlockGraph *graph, json_t *options,
                                 Error **errp)
{
    g_autoptr(json_t) crypto = take_crypto_options(options);
    LuksCreate c = { 0 };
    int prealloc = PREALLOC_MODE_OFF;
    int64_t size = 0;
    bool ok;

    if (!opt_take_offset(options, "size", &size, errp) ||
        !opt_take_enum(options, "preallocation", PreallocMode_names, &prealloc,
                       errp) ||
        !check_crypto_options(crypto, size, &c.file_size, errp)) {
        return false;
    }
    c.prealloc = prealloc;
    c.blk = bdrv_create_take_node(graph, options, "file", errp);
    if (!c.blk) {
        return false;
    }
    ok = create_header(&c, crypto, errp);
    blk_unref(c.blk);
    return ok;
}

static json_t *luks_measure(json_t *options, BlockDriverState *in_bs,
                            Error **errp)
{
    g_autoptr(json_t) crypto = take_crypto_options(options);
    int64_t size = 0, file_size = 0;

    if (!opt_take_offset(options, "size", &size, errp)) {
        return NULL;
    }
    if (in_bs) {
        size = bdrv_getlength(in_bs);
        if (size < 0) {
            error_setg_errno(errp, -size, "Unable to get image size");
            return NULL;
        }
    }
    if (!check_crypto_options(crypto, size, &file_size, errp)) {
        return NULL;
    }
    return json_pack("{s:I, s:I}", "required", (json_int_t)file_size,
                     "fully-allocated", (json_int_t)file_size);
}

static const BlockCreateOption luks_create_opts[] = {
    { "size", BLOCK_OPT_SIZE, "Virtual disk size", NULL },
    { "key-secret", BLOCK_OPT_STRING,
      "ID of the secret that provides the keyslot passphrase", NULL },
    { "cipher-alg", BLOCK_OPT_STRING, "Name of encryption cipher algorithm",
      NULL },
    { "cipher-mode", BLOCK_OPT_STRING, "Name of encryption cipher mode",
      NULL },
    { "ivgen-alg", BLOCK_OPT_STRING, "Name of IV generator algorithm", NULL },
    { "ivgen-hash-alg", BLOCK_OPT_STRING,
      "Name of IV generator hash algorithm", NULL },
    { "hash-alg", BLOCK_OPT_STRING, "Name of encryption hash algorithm",
      NULL },
    { "iter-time", BLOCK_OPT_NUMBER,
      "Time to spend in PBKDF in milliseconds", NULL },
    { NULL },
};

static const BlockCreateOption luks_amend_opts[] = {
    { "state", BLOCK_OPT_STRING,
      "Select new state of affected keyslots (active/inactive)", NULL },
    { "keyslot", BLOCK_OPT_NUMBER,
      "Select a single keyslot to modify explicitly", NULL },
    { "old-secret", BLOCK_OPT_STRING,
      "Select all keyslots that match this password", NULL },
    { "new-secret", BLOCK_OPT_STRING, "New secret to set in the matching "
      "keyslots. Empty string to erase", NULL },
    { "iter-time", BLOCK_OPT_NUMBER,
      "Time to spend in PBKDF in milliseconds", NULL },
    { NULL },
};

BlockDriver bdrv_luks = {
    .format_name = "luks",
    .instance_size = sizeof(LuksState),
    .create_opts = luks_create_opts,
    .amend_opts = luks_amend_opts,
    .probe = luks_probe,
    .open = luks_open,
    .close = luks_close,
    .refresh_limits = luks_refresh_limits,
    .create = luks_create,
    .blockdev_create = luks_blockdev_create,
    .blockdev_create_params = luks_blockdev_create_params,
    .preadv = luks_preadv,
    .pwritev = luks_pwritev,
    .truncate = luks_truncate,
    .getlength = luks_getlength,
    .get_info = luks_get_info,
    .get_specific_info = luks_get_specific_info,
    .measure = luks_measure,
    .amend = luks_amend,
    .supported_write_flags = BDRV_REQ_FUA,
};
