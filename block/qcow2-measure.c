/*
 * How large the file of a new qcow2 image would be.
 *
 * Source: QAPI's BlockMeasureInfo.  "fully-allocated" is an image with every
 * cluster mapped; "required" has the same tables, and only those clusters that
 * the source has data for.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/qapi.h"
#include "qcow2-bitmap.h"
#include "qcow2-create.h"
#include "qcow2-layout.h"

/* Names, where measuring has other words than creating. */
static bool check_names(json_t *options, Error **errp)
{
    static const char *const versions[] = { "0.10", "v2", "1.1", "v3", NULL };
    const char *compat = opt_peek_str(options, "compat");
    const char *mode = opt_peek_str(options, "preallocation");

    if (compat && !g_strv_contains(versions, compat)) {
        error_setg(errp, "Invalid compatibility level: '%s'", compat);
        return false;
    }
    if (mode && !g_strv_contains(PreallocMode_names, mode)) {
        error_setg(errp, "invalid parameter value: %s", mode);
        return false;
    }
    return true;
}

/* What does not change the size is not looked at: how data is compressed, and
 * how it is encrypted unless a header is needed for that. */
static bool take_options(json_t *options, Qcow2CreateOptions *o, Error **errp)
{
    const char *format = opt_peek_str(options, "encrypt.format");
    bool luks = format && g_str_equal(format, "luks");

    if (!check_names(options, errp)) {
        return false;
    }
    json_object_del(options, "compression_type");
    json_object_del(options, "encryption");
    if (!luks) {
        json_decref(options_extract_prefix(options, "encrypt."));
    }
    if (!qcow2_create_options_take(options, o, errp)) {
        return false;
    }
    if (o->extended_l2 && o->cluster_bits < 14) {
        error_setg(errp, "Extended L2 entries are only supported with cluster "
                   "sizes of at least %d bytes", 1 << 14);
        return false;
    }
    if (o->version < 3 && o->refcount_order != 4) {
        error_setg(errp, "Different refcount widths than 16 bits require "
                   "compatibility level 1.1 or above (use compat=1.1 or "
                   "greater)");
        return false;
    }
    return true;
}

/* Bytes of clusters of which @bs has data. */
static int64_t count_data(BlockDriverState *bs, int64_t size,
                          int64_t cluster_size)
{
    int64_t offset = 0, total = 0;

    while (offset < size) {
        MapEntry e;
        int ret = bdrv_query_map_entry(bs, offset, size - offset, &e);
        int64_t end;

        if (ret < 0) {
            return ret;
        }
        end = offset + e.length;
        if (e.data && !e.zero) {
            end = MIN(ROUND_UP(end, cluster_size), size);
            total += ROUND_UP(end, cluster_size) -
                     ROUND_DOWN(offset, cluster_size);
        }
        offset = end;
    }
    return total;
}

static bool measured_size(const Qcow2CreateOptions *o, BlockDriverState *in_bs,
                          int64_t *size, Error **errp)
{
    *size = in_bs ? bdrv_getlength(in_bs) : o->size;
    if (*size < 0) {
        error_setg_errno(errp, -*size, "Unable to get image virtual_size");
        return false;
    }
    if (*size > INT64_MAX - (1 << o->cluster_bits)) {
        error_setg(errp, "The image size is too large (try using a larger "
                   "cluster size)");
        return false;
    }
    return true;
}

static json_t *measure(const Qcow2CreateOptions *o, BlockDriverState *in_bs,
                       Error **errp)
{
    int64_t cluster_size = INT64_C(1) << o->cluster_bits;
    Qcow2Layout l = { .cluster_bits = o->cluster_bits,
                      .refcount_order = o->refcount_order,
                      .extended_l2 = o->extended_l2, .allocated = true };
    int64_t size, crypto_bytes, data = 0;
    json_t *result;

    if (!qcow2_create_crypto_check(o, &crypto_bytes, errp) ||
        !measured_size(o, in_bs, &size, errp)) {
        return NULL;
    }
    l.disk_size = ROUND_UP(size, cluster_size);
    if (!qcow2_layout(&l, DIV_ROUND_UP(crypto_bytes, cluster_size))) {
        error_setg(errp, "The image size is too large (try using a larger "
                   "cluster size)");
        return NULL;
    }
    if (o->preallocation == PREALLOC_MODE_FALLOC ||
        o->preallocation == PREALLOC_MODE_FULL ||
        (in_bs && o->backing_file)) {
        /* Zeroes above a backing file take clusters, too. */
        data = l.disk_size;
    } else if (in_bs) {
        data = count_data(in_bs, size, cluster_size);
    }
    if (data < 0) {
        error_setg_errno(errp, -data, "Unable to get block status");
        return NULL;
    }
    result = json_pack("{s:I, s:I}",
                       "required", (json_int_t)(l.data_offset + data),
                       "fully-allocated", (json_int_t)l.end);
    if (in_bs && o->version >= 3 &&
        bdrv_supports_persistent_dirty_bitmap(in_bs)) {
        json_object_set_new(result, "bitmaps",
                            json_integer(qcow2_measure_bitmaps(in_bs,
                                                               cluster_size)));
    }
    return result;
}

json_t *qcow2_measure(json_t *options, BlockDriverState *in_bs, Error **errp)
{
    Qcow2CreateOptions o = { 0 };
    json_t *result = take_options(options, &o, errp) ?
                     measure(&o, in_bs, errp) : NULL;

    qcow2_create_options_clear(&o);
    return result;
}
