/*
 * What qcow2 says about an image, in QAPI's words (ImageInfoSpecificQCow2).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "crypto/block.h"
#include "qcow2-bitmap.h"

/* File names are bytes; JSON wants UTF-8. */
static json_t *string_of_bytes(const char *s)
{
    g_autofree char *valid = g_utf8_make_valid(s, -1);

    return json_string(valid);
}

/* What version 2 cannot have, it does not mention. */
static void add_v3_info(BDRVQcow2State *s, json_t *data)
{
    uint64_t incompatible, compatible, autoclear;

    driver_lock(&s->lock);
    incompatible = s->incompatible_features;
    compatible = s->compatible_features;
    autoclear = s->autoclear_features;
    driver_unlock(&s->lock);

    json_object_set_new(data, "lazy-refcounts",
                        json_boolean(compatible &
                                     QCOW2_COMPAT_LAZY_REFCOUNTS));
    json_object_set_new(data, "corrupt",
                        json_boolean(incompatible & QCOW2_INCOMPAT_CORRUPT));
    json_object_set_new(data, "extended-l2",
                        json_boolean(incompatible & QCOW2_INCOMPAT_EXTL2));
    if (s->image_data_file) {
        json_object_set_new(data, "data-file",
                            string_of_bytes(s->image_data_file));
    }
    if (incompatible & QCOW2_INCOMPAT_DATA_FILE) {
        json_object_set_new(data, "data-file-raw",
                            json_boolean(autoclear &
                                         QCOW2_AUTOCLEAR_DATA_FILE_RAW));
    }
}

json_t *qcow2_get_specific_info(BlockDriverState *bs, Error **errp)
{
    static const char *const compression[] = {
        [QCOW2_COMPRESSION_ZLIB] = "zlib",
        [QCOW2_COMPRESSION_ZSTD] = "zstd",
    };
    BDRVQcow2State *s = bs->opaque;
    Error *err = NULL;
    json_t *bitmaps = qcow2_query_bitmaps(bs, &err);
    json_t *data;

    if (err) {
        error_propagate(errp, err);
        return NULL;
    }
    data = json_object();
    if (bitmaps) {
        json_object_set_new(data, "bitmaps", bitmaps);
    }
    json_object_set_new(data, "compat",
                        json_string(s->qcow_version < 3 ? "0.10" : "1.1"));
    json_object_set_new(data, "refcount-bits",
                        json_integer(s->refcount_bits));
    json_object_set_new(data, "compression-type",
                        json_string(compression[s->compression_type]));
    if (s->qcow_version >= 3) {
        add_v3_info(s, data);
    }
    if (s->crypt_method != QCOW2_CRYPT_NONE) {
        json_object_set_new(data, "encrypt",
                            qcrypto_block_get_info(s->crypto));
    }
    return json_pack("{s:s, s:o}", "type", "qcow2", "data", data);
}
