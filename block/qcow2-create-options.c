/*
 * Options of "create -f qcow2": which there are, and what they allow together.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-create.h"

#define NEEDS_V3 "with compatibility level 1.1 and above (use version=v3 or " \
                 "greater)"

const BlockCreateOption qcow2_create_opts[] = {
    { "encryption", BLOCK_OPT_BOOL, "Encrypt the image with format 'aes'. "
      "(Deprecated in favor of encrypt.format=aes)", NULL },
    { "encrypt.format", BLOCK_OPT_STRING,
      "Encrypt the image, format choices: 'aes', 'luks'", NULL },
    { "encrypt.key-secret", BLOCK_OPT_STRING,
      "ID of secret providing qcow AES key or LUKS passphrase", NULL },
    { "encrypt.cipher-alg", BLOCK_OPT_STRING,
      "Name of encryption cipher algorithm", NULL },
    { "encrypt.cipher-mode", BLOCK_OPT_STRING,
      "Name of encryption cipher mode", NULL },
    { "encrypt.ivgen-alg", BLOCK_OPT_STRING, "Name of IV generator algorithm",
      NULL },
    { "encrypt.ivgen-hash-alg", BLOCK_OPT_STRING,
      "Name of IV generator hash algorithm", NULL },
    { "encrypt.hash-alg", BLOCK_OPT_STRING,
      "Name of encryption hash algorithm", NULL },
    { "encrypt.iter-time", BLOCK_OPT_NUMBER,
      "Time to spend in PBKDF in milliseconds", NULL },
    { "cluster_size", BLOCK_OPT_SIZE, "qcow2 cluster size", "65536" },
    { "extended_l2", BLOCK_OPT_BOOL, "Extended L2 tables", "off" },
    { "preallocation", BLOCK_OPT_STRING,
      "Preallocation mode (allowed values: off, metadata, falloc, full)",
      NULL },
    { "compression_type", BLOCK_OPT_STRING,
      "Compression method used for image cluster compression", "zlib" },
    { "size", BLOCK_OPT_SIZE, "Virtual disk size", NULL },
    { "compat", BLOCK_OPT_STRING,
      "Compatibility level (v2 [0.10] or v3 [1.1])", NULL },
    { "backing_file", BLOCK_OPT_STRING, "File name of a base image", NULL },
    { "backing_fmt", BLOCK_OPT_STRING, "Image format of the base image",
      NULL },
    { "data_file", BLOCK_OPT_STRING, "File name of an external data file",
      NULL },
    { "data_file_raw", BLOCK_OPT_BOOL,
      "The external data file must stay valid as a raw image", NULL },
    { "lazy_refcounts", BLOCK_OPT_BOOL, "Postpone refcount updates", "off" },
    { "refcount_bits", BLOCK_OPT_NUMBER,
      "Width of a reference count entry in bits", "16" },
    { NULL },
};

void qcow2_create_options_clear(Qcow2CreateOptions *o)
{
    g_free(o->backing_file);
    g_free(o->backing_format);
    g_free(o->data_file);
    json_decref(o->encrypt);
    *o = (Qcow2CreateOptions){ 0 };
}

/* ---- One by one ---- */

/* One of @names (ended by NULL), which is called @qapi_name in messages. */
static bool take_name(json_t *options, const char *key, const char *qapi_name,
                      const char *const names[], int *value, Error **errp)
{
    g_autofree char *given = opt_take_str(options, key);

    for (int i = 0; given && names[i]; i++) {
        if (g_str_equal(names[i], given)) {
            *value = i;
            return true;
        }
    }
    if (given) {
        error_setg(errp, "Parameter '%s' does not accept value '%s'",
                   qapi_name, given);
    }
    return !given;
}

static bool take_version(json_t *options, int *version, Error **errp)
{
    static const char *const names[] = { "v2", "0.10", "v3", "1.1", NULL };
    int n = 2;

    if (!take_name(options, "compat", "version", names, &n, errp)) {
        return false;
    }
    *version = n < 2 ? 2 : 3;
    return true;
}

static bool take_cluster_size(json_t *options, int *cluster_bits, Error **errp)
{
    uint64_t size = 65536;

    if (!opt_take_size(options, "cluster_size", &size, errp)) {
        return false;
    }
    if (!is_power_of_2(size) || size < 1u << QCOW2_MIN_CLUSTER_BITS ||
        size > 1u << QCOW2_MAX_CLUSTER_BITS) {
        error_setg(errp, "Cluster size must be a power of two between %d and "
                   "%dk", 1 << QCOW2_MIN_CLUSTER_BITS,
                   1 << (QCOW2_MAX_CLUSTER_BITS - 10));
        return false;
    }
    *cluster_bits = ctz64(size);
    return true;
}

static bool take_refcount_bits(json_t *options, int *order, Error **errp)
{
    uint64_t bits = 16;

    if (!opt_take_u64(options, "refcount_bits", &bits, errp)) {
        return false;
    }
    if (!is_power_of_2(bits) || bits > 64) {
        error_setg(errp, "Refcount width must be a power of two and may not "
                   "exceed 64 bits");
        return false;
    }
    *order = ctz64(bits);
    return true;
}

static bool take_size(json_t *options, int64_t *size, Error **errp)
{
    uint64_t n = 0;

    if (!opt_take_size(options, "size", &n, errp)) {
        return false;
    }
    /* In the words of the resizing that this is for others. */
    if (n > INT64_MAX - (BDRV_SECTOR_SIZE - 1)) {
        error_setg(errp, "Could not resize image: Image size cannot be "
                   "negative");
        return false;
    }
    *size = ROUND_UP((int64_t)n, BDRV_SECTOR_SIZE);
    if (*size > BDRV_MAX_END) {
        error_setg(errp, "Could not resize image: offset(%" PRId64 ") exceeds "
                   "maximum(%" PRId64 ")", *size, (int64_t)BDRV_MAX_END);
        return false;
    }
    return true;
}

static bool take_crypt_format(json_t *encrypt, bool alias,
                              Qcow2CreateOptions *o, Error **errp)
{
    static const char *const names[] = { "none", "aes", "luks", NULL };
    bool given = json_object_get(encrypt, "format");
    int format = QCOW2_CRYPT_NONE;

    if (alias && given) {
        error_setg(errp, "'encrypt.format' and its alias 'encryption' can't be "
                   "used at the same time");
        return false;
    }
    if (!alias && !given && json_object_size(encrypt)) {
        error_setg(errp, "Parameter 'encrypt.format' is missing");
        return false;
    }
    if (!take_name(encrypt, "format", "format", names + 1, &format, errp)) {
        return false;
    }
    o->crypt_method = given ? format + 1 :
                      alias ? QCOW2_CRYPT_AES : QCOW2_CRYPT_NONE;
    return true;
}

static bool take_encrypt(json_t *options, Qcow2CreateOptions *o, Error **errp)
{
    bool alias = false;

    o->encrypt = options_extract_prefix(options, "encrypt.");
    return opt_take_bool(options, "encryption", &alias, errp) &&
           take_crypt_format(o->encrypt, alias, o, errp);
}

bool qcow2_create_options_take(json_t *options, Qcow2CreateOptions *o,
                               Error **errp)
{
    static const char *const compression[] = { "zlib", "zstd", NULL };

    *o = (Qcow2CreateOptions){ .version = 3 };
    if (!take_encrypt(options, o, errp) ||
        !take_version(options, &o->version, errp) ||
        !take_name(options, "preallocation", "preallocation",
                   PreallocMode_names, &o->preallocation, errp) ||
        !take_name(options, "compression_type", "compression-type",
                   compression, &o->compression_type, errp) ||
        !opt_take_bool(options, "extended_l2", &o->extended_l2, errp) ||
        !opt_take_bool(options, "data_file_raw", &o->data_file_raw, errp) ||
        !opt_take_bool(options, "lazy_refcounts", &o->lazy_refcounts, errp)) {
        return false;
    }
    o->backing_file = opt_take_str(options, "backing_file");
    o->backing_format = opt_take_str(options, "backing_fmt");
    o->data_file = opt_take_str(options, "data_file");
    return take_cluster_size(options, &o->cluster_bits, errp) &&
           take_refcount_bits(options, &o->refcount_order, errp) &&
           take_size(options, &o->size, errp);
}

/* ---- Together ---- */

static bool check_version(const Qcow2CreateOptions *o, Error **errp)
{
    if (o->version >= 3) {
        return true;
    }
    if (o->extended_l2) {
        error_setg(errp, "Extended L2 entries are only supported " NEEDS_V3);
    } else if (o->lazy_refcounts) {
        error_setg(errp, "Lazy refcounts only supported " NEEDS_V3);
    } else if (o->refcount_order != 4) {
        error_setg(errp, "Different refcount widths than 16 bits require "
                   "compatibility level 1.1 or above (use version=v3 or "
                   "greater)");
    } else if (o->data_file) {
        error_setg(errp, "External data files are only supported " NEEDS_V3);
    } else if (o->compression_type != QCOW2_COMPRESSION_ZLIB) {
        error_setg(errp, "Non-zlib compression type is only supported "
                   NEEDS_V3);
    } else {
        return true;
    }
    return false;
}

static bool check_files(const Qcow2CreateOptions *o, Error **errp)
{
    if (o->data_file_raw && !o->data_file) {
        error_setg(errp, "data-file-raw requires data-file");
    } else if (o->data_file_raw && o->backing_file) {
        error_setg(errp, "Backing file and data-file-raw cannot be used at the "
                   "same time");
    } else if (o->backing_format && !o->backing_file) {
        error_setg(errp, "Backing format cannot be used without backing file");
    } else if (o->backing_file && o->preallocation != PREALLOC_MODE_OFF &&
               !o->extended_l2) {
        error_setg(errp, "Backing file and preallocation can only be used at "
                   "the same time if extended_l2 is on");
    } else {
        return true;
    }
    return false;
}

bool qcow2_create_options_check(const Qcow2CreateOptions *o, Error **errp)
{
    if (o->extended_l2 && o->version >= 3 && o->cluster_bits < 14) {
        error_setg(errp, "Extended L2 entries are only supported with cluster "
                   "sizes of at least %d bytes", 1 << 14);
        return false;
    }
    return check_version(o, errp) && check_files(o, errp);
}
