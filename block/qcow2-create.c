/*
 * Creating qcow2 images, in new files (qemu-img create) or in nodes
 * (blockdev-create).
 *
 * A new image is written as bytes, without opening it as qcow2: where
 * everything is follows from the options (qcow2-layout.c).  The header comes
 * last, when all that it points at is durable; until then the file is not a
 * qcow2 image, and a crash leaves nothing that could be taken for one.
 *
 * Preallocation: "metadata" maps every cluster, and the file has their length
 * but not their blocks; "falloc" and "full" also reserve or write those.  A raw
 * external data file needs its mapping from the start.
 *
 * Control thread; blocks.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-create.h"
#include "qcow2-header.h"
#include "qcow2-layout.h"
#include "qemu/bswap.h"

/* Tables are written that much at a time. */
#define CHUNK (2 * MiB)

static bool write_all(BlockBackend *blk, int64_t offset, int64_t bytes,
                      const void *buf, const char *what, Error **errp)
{
    int ret = bytes ? blk_pwrite(blk, offset, bytes, buf, 0) : 0;

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write %s", what);
    }
    return ret == 0;
}

static bool flush(BlockBackend *blk, Error **errp)
{
    int ret = blk_flush(blk);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush the new image");
    }
    return ret == 0;
}

/* ---- Tables ---- */

/* The value of entry @i of a table. */
typedef uint64_t EntryFunc(const Qcow2Layout *l, int64_t i);

static bool write_table(BlockBackend *blk, const Qcow2Layout *l,
                        int64_t offset, int64_t bytes, EntryFunc *entry,
                        const char *what, Error **errp)
{
    g_autofree uint8_t *buf = g_malloc(MIN(bytes, CHUNK));

    for (int64_t done = 0; done < bytes; done += CHUNK) {
        int64_t n = MIN(bytes - done, CHUNK);

        for (int64_t i = 0; i < n; i += sizeof(uint64_t)) {
            stq_be_p(buf + i, entry(l, (done + i) / sizeof(uint64_t)));
        }
        if (!write_all(blk, offset + done, n, buf, what, errp)) {
            return false;
        }
    }
    return true;
}

static uint64_t reftable_entry(const Qcow2Layout *l, int64_t i)
{
    return i < l->refcount_blocks ?
           l->refcount_offset + ((uint64_t)i << l->cluster_bits) : 0;
}

static uint64_t l1_entry(const Qcow2Layout *l, int64_t i)
{
    return i < l->l2_tables ?
           (l->l2_offset + ((uint64_t)i << l->cluster_bits)) |
           QCOW2_OFLAG_COPIED : 0;
}

/* A word of the L2 tables, one after the other.  With extended entries, every
 * other one says that no subcluster is allocated; or all, if the data file is
 * what the guest sees, so that this never changes. */
static uint64_t l2_word(const Qcow2Layout *l, int64_t i)
{
    int64_t cluster = l->extended_l2 ? i / 2 : i;
    uint64_t host = (uint64_t)cluster << l->cluster_bits;

    if (host >= (uint64_t)l->disk_size) {
        return 0;
    }
    if (l->extended_l2 && i % 2) {
        return l->raw_data ? UINT32_MAX : 0;
    }
    return (host + (l->external_data ? 0 : l->data_offset)) |
           QCOW2_OFLAG_COPIED;
}

/* 64 bits of the refcount blocks: 1 for each cluster before the end.  Widths
 * below 8 bits start at the least significant bit of a byte. */
static uint64_t refcount_word(const Qcow2Layout *l, int64_t i)
{
    int bits = 1 << l->refcount_order;
    int64_t used = l->end >> l->cluster_bits;
    int64_t first = i * (64 / bits);
    uint8_t bytes[8] = { 0 };

    for (int n = 0; n < 64 / bits && first + n < used; n++) {
        /* The last byte of an entry has its least significant bits. */
        int at = bits < 8 ? n * bits / 8 : (n + 1) * bits / 8 - 1;

        bytes[at] |= bits < 8 ? 1 << (n * bits % 8) : 1;
    }
    return ldq_be_p(bytes);
}

static bool write_tables(BlockBackend *blk, const Qcow2Layout *l, Error **errp)
{
    int bits = l->cluster_bits;

    return write_table(blk, l, l->refcount_offset, l->refcount_blocks << bits,
                       refcount_word, "refcount blocks", errp) &&
           write_table(blk, l, l->reftable_offset, l->reftable_clusters << bits,
                       reftable_entry, "refcount table", errp) &&
           write_table(blk, l, l->l2_offset, l->l2_tables << bits, l2_word,
                       "L2 tables", errp) &&
           write_table(blk, l, l->l1_offset, l->l1_entries * sizeof(uint64_t),
                       l1_entry, "L1 table", errp);
}

/* ---- Header ---- */

static uint64_t incompatible_features(const Qcow2CreateOptions *o)
{
    return (o->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
           (o->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0) |
           (o->compression_type != QCOW2_COMPRESSION_ZLIB ?
            QCOW2_INCOMPAT_COMPRESSION : 0);
}

static Qcow2Header header_of(const Qcow2CreateOptions *o, const Qcow2Layout *l,
                             int64_t crypto_bytes)
{
    return (Qcow2Header) {
        .version = o->version,
        .cluster_bits = o->cluster_bits,
        .size = o->size,
        .crypt_method = o->crypt_method,
        .l1_size = l->l1_entries,
        .l1_table_offset = l->l1_entries ? l->l1_offset : 0,
        .refcount_table_offset = l->reftable_offset,
        .refcount_table_clusters = l->reftable_clusters,
        .incompatible_features = incompatible_features(o),
        .compatible_features = o->lazy_refcounts ?
                               QCOW2_COMPAT_LAZY_REFCOUNTS : 0,
        .autoclear_features = o->data_file_raw ?
                              QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0,
        .refcount_order = o->refcount_order,
        .header_length = QCOW2_HEADER_LENGTH,
        .compression_type = o->compression_type,
        .backing_file = o->backing_file,
        .backing_format = o->backing_format,
        .data_file = o->data_file,
        .has_crypto = crypto_bytes,
        .crypto_offset = l->extra_offset,
        .crypto_length = crypto_bytes,
    };
}

/* In @buf; checked before anything is written. */
static bool build_header(const Qcow2CreateOptions *o, const Qcow2Layout *l,
                         int64_t crypto_bytes, uint8_t *buf, Error **errp)
{
    Qcow2Header h = header_of(o, l, crypto_bytes);
    int ret = 0;

    if (o->backing_file && strlen(o->backing_file) > QCOW2_MAX_BACKING_NAME) {
        ret = -EINVAL;
    } else {
        ret = qcow2_header_build(&h, buf, false);
    }
    if (ret < 0 && o->backing_file) {
        error_setg_errno(errp, -ret, "Could not assign backing file '%s' with "
                         "format '%s'", o->backing_file,
                         o->backing_format ? o->backing_format : "");
    } else if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write qcow2 header");
    }
    return ret == 0;
}

/* ---- Files ---- */

/*
 * Where the image goes: @file and @data_file are nodes, or else files of these
 * names are made, by what the options of the protocol say.
 */
typedef struct Target {
    BlockGraph *graph;
    BlockBackend *file, *data_file;
    const char *filename;
    json_t *options;
} Target;

static bool set_length(BlockBackend *blk, int64_t length, PreallocMode mode,
                       Error **errp)
{
    mode = mode == PREALLOC_MODE_METADATA ? PREALLOC_MODE_OFF : mode;
    return blk_truncate(blk, length, false, mode, 0, errp);
}

/* The node, or a new file.  The caller owns a reference. */
static BlockBackend *open_file(const Target *t, BlockBackend *node,
                               const char *filename, json_t *options,
                               Error **errp)
{
    if (node) {
        blk_ref(node);
        return node;
    }
    if (!bdrv_create_file(t->graph, filename, options, errp)) {
        return NULL;
    }
    return blk_new_open(t->graph, filename, NULL, NULL,
                        BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_PROTOCOL, errp);
}

/* The data file as large as the disk, and what of it is wanted allocated. */
static bool create_data_file(const Target *t, const Qcow2CreateOptions *o,
                             Error **errp)
{
    g_autoptr(json_t) options = json_object();
    BlockBackend *blk = open_file(t, t->data_file, o->data_file, options, errp);
    bool ok;

    if (!blk) {
        return false;
    }
    ok = set_length(blk, o->size, o->preallocation, errp);
    blk_unref(blk);
    return ok;
}

static bool fill_image(BlockBackend *blk, const Qcow2CreateOptions *o,
                       const Qcow2Layout *l, const uint8_t *header,
                       Error **errp)
{
    PreallocMode mode = o->data_file ? PREALLOC_MODE_OFF : o->preallocation;

    if (l->data_clusters && !set_length(blk, l->end, mode, errp)) {
        return false;
    }
    return write_tables(blk, l, errp) &&
           qcow2_create_crypto_header(blk, o, l->extra_offset,
                                      l->data_offset - l->extra_offset,
                                      errp) &&
           flush(blk, errp) &&
           write_all(blk, 0, INT64_C(1) << o->cluster_bits, header,
                     "qcow2 header", errp) &&
           flush(blk, errp);
}

static bool create_files(const Target *t, const Qcow2CreateOptions *o,
                         const Qcow2Layout *l, const uint8_t *header,
                         Error **errp)
{
    /* What is left of the options is the protocol's. */
    BlockBackend *blk = open_file(t, t->file, t->filename, t->options, errp);
    bool ok;

    if (!blk) {
        return false;
    }
    blk_set_allow_write_beyond_eof(blk, true);
    /* While the image is open, so that it cannot be its own data file. */
    ok = (!o->data_file || create_data_file(t, o, errp)) &&
         fill_image(blk, o, l, header, errp);
    blk_unref(blk);
    if (!ok && !t->file) {
        bdrv_delete_created_file(t->filename);
    }
    return ok;
}

static bool lay_out(const Qcow2CreateOptions *o, int64_t crypto_bytes,
                    Qcow2Layout *l, Error **errp)
{
    *l = (Qcow2Layout) {
        .disk_size = o->size,
        .cluster_bits = o->cluster_bits,
        .refcount_order = o->refcount_order,
        .extended_l2 = o->extended_l2,
        .allocated = o->preallocation != PREALLOC_MODE_OFF || o->data_file_raw,
        .external_data = o->data_file,
        .raw_data = o->data_file_raw &&
                    o->crypt_method == QCOW2_CRYPT_NONE,
    };
    if (!qcow2_layout(l, DIV_ROUND_UP(crypto_bytes,
                                      INT64_C(1) << o->cluster_bits)) ||
        !l->reftable_fits) {
        error_setg_errno(errp, EFBIG, "Image size is too large");
        return false;
    }
    return true;
}

static bool create(const Target *t, Error **errp)
{
    Qcow2CreateOptions o;
    Qcow2Layout l;
    g_autofree uint8_t *header = NULL;
    int64_t crypto_bytes;
    bool ok = qcow2_create_options_take(t->options, &o, errp) &&
              qcow2_create_options_check(&o, errp) &&
              qcow2_create_crypto_check(&o, &crypto_bytes, errp) &&
              lay_out(&o, crypto_bytes, &l, errp);

    if (ok) {
        header = g_malloc(INT64_C(1) << o.cluster_bits);
        ok = build_header(&o, &l, crypto_bytes, header, errp) &&
             create_files(t, &o, &l, header, errp);
    }
    qcow2_create_options_clear(&o);
    return ok;
}

bool qcow2_create(BlockGraph *graph, const char *filename, json_t *options,
                  Error **errp)
{
    Target t = { .graph = graph, .filename = filename, .options = options };

    return create(&t, errp);
}

/* ---- blockdev-create ---- */

static const char *const versions[] = { "v2", "v3", NULL };
static const char *const compressions[] = { "zlib", "zstd", NULL };
/* QAPI calls legacy AES by the format that had it first. */
static const char *const encryptions[] = { "qcow", "luks", NULL };

static const BlockCreateParam aes_params[] = {
    { "format", BLOCK_PARAM_STRING },
    { "key-secret", BLOCK_PARAM_STRING },
    { NULL }
};

static const BlockCreateParam luks_params[] = {
    { "format", BLOCK_PARAM_STRING },
    { "key-secret", BLOCK_PARAM_STRING },
    { "cipher-alg", BLOCK_PARAM_STRING },
    { "cipher-mode", BLOCK_PARAM_STRING },
    { "ivgen-alg", BLOCK_PARAM_STRING },
    { "ivgen-hash-alg", BLOCK_PARAM_STRING },
    { "hash-alg", BLOCK_PARAM_STRING },
    { "iter-time", BLOCK_PARAM_INT },
    { NULL }
};

static const BlockCreateParam *const encrypt_params[] = {
    aes_params, luks_params
};

const BlockCreateParam qcow2_blockdev_create_params[] = {
    { "driver", BLOCK_PARAM_STRING },
    { "file", BLOCK_PARAM_NODE, true },
    { "data-file", BLOCK_PARAM_NODE },
    { "data-file-raw", BLOCK_PARAM_BOOL },
    { "extended-l2", BLOCK_PARAM_BOOL },
    { "size", BLOCK_PARAM_SIZE, true },
    { "version", BLOCK_PARAM_ENUM, .values = versions },
    { "backing-file", BLOCK_PARAM_STRING },
    { "backing-fmt", BLOCK_PARAM_STRING },
    { "encrypt", BLOCK_PARAM_UNION, .values = encryptions,
      .variants = encrypt_params },
    { "cluster-size", BLOCK_PARAM_SIZE },
    { "preallocation", BLOCK_PARAM_ENUM, .values = PreallocMode_names },
    { "lazy-refcounts", BLOCK_PARAM_BOOL },
    { "refcount-bits", BLOCK_PARAM_INT },
    { "compression-type", BLOCK_PARAM_ENUM, .values = compressions },
    { NULL }
};

/* From QAPI's names to those of create. */
static void rename_options(json_t *options)
{
    g_autoptr(json_t) encrypt = opt_take_object(options, "encrypt");
    g_autoptr(json_t) version = opt_take_any(options, "version");
    const char *key;
    json_t *value;

    options_underscore_keys(options);
    if (g_strcmp0(opt_peek_str(encrypt, "format"), "qcow") == 0) {
        opt_set_str(encrypt, "format", "aes");
    }
    json_object_foreach(encrypt, key, value) {
        g_autofree char *name = g_strconcat("encrypt.", key, NULL);

        json_object_set(options, name, value);
    }
    if (version) {
        json_object_set(options, "compat", version);
    }
}

/* The image is to be opened with the same data file, by its name. */
static bool take_data_file(Target *t, Error **errp)
{
    if (!json_object_get(t->options, "data-file")) {
        return true;
    }
    t->data_file = bdrv_create_take_node(t->graph, t->options, "data-file",
                                         errp);
    if (t->data_file) {
        opt_set_str(t->options, "data_file",
                    bdrv_get_filename(blk_bs(t->data_file)));
    }
    return t->data_file;
}

/* qemu-img rounds up what a person says; a program is told. */
static bool check_size(const json_t *options, Error **errp)
{
    if (json_integer_value(json_object_get(options, "size")) %
        BDRV_SECTOR_SIZE) {
        error_setg(errp, "Image size must be a multiple of %d bytes",
                   (int)BDRV_SECTOR_SIZE);
        return false;
    }
    return true;
}

bool qcow2_blockdev_create(BlockGraph *graph, json_t *options, Error **errp)
{
    Target t = { .graph = graph, .options = options };
    bool ok;

    ok = check_size(options, errp);
    if (ok) {
        t.file = bdrv_create_take_node(graph, options, "file", errp);
        ok = t.file && take_data_file(&t, errp);
    }
    if (ok) {
        rename_options(options);
        ok = create(&t, errp);
    }
    if (t.data_file) {
        blk_unref(t.data_file);
    }
    if (t.file) {
        blk_unref(t.file);
    }
    return ok;
}
