/*
 * The driver "test-bitmaps": see test-bitmaps.h.
 *
 * As qcow2 does, it loads all bitmaps when it is opened and marks them in use
 * if it may write; one that is found in use is inconsistent.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-driver.h"
#include "test-bitmaps.h"

static GHashTable *stores;      /* by id */

typedef struct BDRVTestBitmaps {
    TestBitmaps *store;
} BDRVTestBitmaps;

/* ---- The store ---- */

static void stored_free(gpointer p)
{
    TestStoredBitmap *sb = p;

    g_free(sb->name);
    g_array_unref(sb->kinds);
    g_byte_array_unref(sb->data);
    g_free(sb);
}

TestBitmaps *test_bitmaps_new(const char *id)
{
    TestBitmaps *t = g_new0(TestBitmaps, 1);

    t->id = g_strdup(id);
    t->max = 3;
    t->stored = g_ptr_array_new_with_free_func(stored_free);
    if (!stores) {
        stores = g_hash_table_new(g_str_hash, g_str_equal);
    }
    g_assert_true(g_hash_table_insert(stores, t->id, t));
    return t;
}

void test_bitmaps_free(TestBitmaps *t)
{
    g_hash_table_remove(stores, t->id);
    g_ptr_array_unref(t->stored);
    g_free(t->id);
    g_free(t);
}

TestStoredBitmap *test_bitmaps_find(TestBitmaps *t, const char *name)
{
    for (guint i = 0; i < t->stored->len; i++) {
        TestStoredBitmap *sb = t->stored->pdata[i];

        if (g_str_equal(sb->name, name)) {
            return sb;
        }
    }
    return NULL;
}

static TestBitmaps *store_of(BlockDriverState *bs)
{
    return ((BDRVTestBitmaps *)bs->opaque)->store;
}

/* ---- Loading ---- */

static void load_bits(BdrvDirtyBitmap *b, const TestStoredBitmap *sb)
{
    for (guint i = 0; i < sb->kinds->len; i++) {
        int64_t pos = (int64_t)i * TEST_BITMAPS_PIECE;

        bdrv_dirty_bitmap_deserialize(b, g_array_index(sb->kinds, HBitmapPiece,
                                                       i),
                                      pos, TEST_BITMAPS_PIECE,
                                      sb->data->data + pos);
    }
}

static bool load(BlockDriverState *bs, TestStoredBitmap *sb, Error **errp)
{
    BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(bs, sb->granularity,
                                                  sb->name, errp);

    if (!b) {
        return false;
    }
    bdrv_dirty_bitmap_set_persistence(b, true);
    bdrv_dirty_bitmap_set_readonly(b, bs->read_only);
    if (!sb->is_auto) {
        bdrv_disable_dirty_bitmap(b);
    }
    if (sb->in_use) {
        bdrv_dirty_bitmap_set_inconsistent(b);
    } else {
        load_bits(b, sb);
        sb->in_use = !bs->read_only;
    }
    return true;
}

static bool bitmaps_open(BlockDriverState *bs, json_t *options, int flags,
                         Error **errp)
{
    BDRVTestBitmaps *s = bs->opaque;
    g_autofree char *id = opt_take_str_required(options, "store", errp);

    if (!id || !bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    s->store = g_hash_table_lookup(stores, id);
    for (guint i = 0; i < s->store->stored->len; i++) {
        if (!load(bs, s->store->stored->pdata[i], errp)) {
            return false;
        }
    }
    return true;
}

/* ---- Storing ---- */

static bool bitmaps_can_store(BlockDriverState *bs, const char *name,
                              uint32_t granularity, Error **errp)
{
    if ((int)store_of(bs)->stored->len >= store_of(bs)->max) {
        error_setg(errp, "Can't make bitmap '%s' persistent in '%s': full",
                   name, bdrv_get_node_name(bs));
        return false;
    }
    return true;
}

static bool bitmaps_remove(BlockDriverState *bs, const char *name,
                           Error **errp)
{
    TestBitmaps *t = store_of(bs);
    TestStoredBitmap *sb = test_bitmaps_find(t, name);

    if (t->fail_remove) {
        error_setg(errp, "Cannot forget '%s'", name);
        return false;
    }
    if (sb) {
        g_ptr_array_remove(t->stored, sb);
    }
    return true;
}

static TestStoredBitmap *new_stored(TestBitmaps *t, BdrvDirtyBitmap *b)
{
    TestStoredBitmap *sb = g_new0(TestStoredBitmap, 1);

    sb->name = g_strdup(bdrv_dirty_bitmap_name(b));
    sb->granularity = bdrv_dirty_bitmap_granularity(b);
    sb->kinds = g_array_new(FALSE, FALSE, sizeof(HBitmapPiece));
    sb->data = g_byte_array_new();
    g_ptr_array_add(t->stored, sb);
    return sb;
}

static void store(TestBitmaps *t, BdrvDirtyBitmap *b)
{
    TestStoredBitmap *sb = test_bitmaps_find(t, bdrv_dirty_bitmap_name(b));
    int64_t size = bdrv_dirty_bitmap_data_size(b);

    sb = sb ? sb : new_stored(t, b);
    sb->is_auto = bdrv_dirty_bitmap_enabled(b);
    sb->size = bdrv_dirty_bitmap_size(b);
    sb->in_use = false;
    g_array_set_size(sb->kinds, 0);
    g_byte_array_set_size(sb->data, 0);
    for (int64_t pos = 0; pos < size; pos += TEST_BITMAPS_PIECE) {
        uint8_t buf[TEST_BITMAPS_PIECE] = { 0 };
        HBitmapPiece kind = bdrv_dirty_bitmap_serialize(b, pos, sizeof(buf),
                                                        buf);

        g_array_append_val(sb->kinds, kind);
        g_byte_array_append(sb->data, buf, sizeof(buf));
    }
}

static bool bitmaps_store(BlockDriverState *bs, bool release_stored,
                          Error **errp)
{
    TestBitmaps *t = store_of(bs);
    BdrvDirtyBitmap *b, *next;

    t->stores++;
    if (t->fail_store) {
        error_setg(errp, "Failed to write bitmaps");
        return false;
    }
    for (b = bdrv_dirty_bitmap_next(bs, NULL); b; b = next) {
        next = bdrv_dirty_bitmap_next(bs, b);
        if (bdrv_dirty_bitmap_get_persistence(b) &&
            !bdrv_dirty_bitmap_inconsistent(b) &&
            !bdrv_dirty_bitmap_skip_store(b)) {
            store(t, b);
            if (release_stored) {
                bdrv_release_dirty_bitmap(b);
            }
        }
    }
    return true;
}

/* ---- Requests ---- */

static int bitmaps_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return bdrv_preadv(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int bitmaps_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                           QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    return bdrv_pwritev(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int bitmaps_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    info->cluster_size = 8192;
    return 0;
}

static BlockDriver driver_bitmaps = {
    .format_name = "test-bitmaps",
    .instance_size = sizeof(BDRVTestBitmaps),
    .open = bitmaps_open,
    .preadv = bitmaps_preadv,
    .pwritev = bitmaps_pwritev,
    .get_info = bitmaps_get_info,
    .can_store_new_dirty_bitmap = bitmaps_can_store,
    .remove_persistent_dirty_bitmap = bitmaps_remove,
    .store_dirty_bitmaps = bitmaps_store,
};

void test_bitmaps_register(void)
{
    bdrv_register_driver(&driver_bitmaps);
}
