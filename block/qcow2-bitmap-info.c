/*
 * qcow2: what there is to know about the bitmaps of an image.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-bitmap.h"

static json_t *flags_of(const Qcow2Bitmap *b)
{
    json_t *flags = json_array();

    if (b->flags & QCOW2_BITMAP_IN_USE) {
        json_array_append_new(flags, json_string("in-use"));
    }
    if (b->flags & QCOW2_BITMAP_AUTO) {
        json_array_append_new(flags, json_string("auto"));
    }
    return flags;
}

json_t *qcow2_query_bitmaps(BlockDriverState *bs, Error **errp)
{
    g_autoptr(GPtrArray) bitmaps = qcow2_bitmaps_read(bs, errp);
    json_t *list = NULL;

    for (guint i = 0; bitmaps && i < bitmaps->len; i++) {
        const Qcow2Bitmap *b = bitmaps->pdata[i];
        g_autofree char *name = g_utf8_make_valid(b->name, -1);
        json_int_t granularity = INT64_C(1) << b->granularity_bits;

        list = list ? list : json_array();
        json_array_append_new(list, json_pack("{s:o, s:s, s:I}",
                                              "flags", flags_of(b),
                                              "name", name,
                                              "granularity", granularity));
    }
    return list;
}

/* Every piece may have to be written, whatever it is now. */
int64_t qcow2_measure_bitmaps(BlockDriverState *bs, int64_t cluster_size)
{
    BdrvDirtyBitmap *b = NULL;
    int64_t bytes = 0, entries = 0;

    while ((b = bdrv_dirty_bitmap_next(bs, b))) {
        int64_t n;

        if (!bdrv_dirty_bitmap_get_persistence(b)) {
            continue;
        }
        n = DIV_ROUND_UP(bdrv_dirty_bitmap_data_size(b), cluster_size);
        bytes += n * cluster_size +
                 ROUND_UP(n * (int64_t)sizeof(uint64_t), cluster_size);
        entries += qcow2_bitmap_entry_size(bdrv_dirty_bitmap_name(b), 0);
    }
    return bytes + ROUND_UP(entries, cluster_size);
}
