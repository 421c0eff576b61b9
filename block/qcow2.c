/*
 * qcow2: opening and closing an image, and the driver's table.
 *
 * Source: "QEMU QCOW Image Format", docs/interop/qcow2 of QEMU.
 *
 * Opening reads the header (qcow2-parse.c), makes the state of it, loads the
 * two tables that stay in memory (the active L1 table and the refcount table),
 * and for writing sees to it that the image may be written at all: not if it is
 * marked corrupt, and not before its refcounts are right.
 *
 * Everything here runs on the control thread while no request is in the driver.
 * The lock is taken all the same where fields are guarded by it, but never
 * while there is I/O.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-amend.h"
#include "qcow2-bitmap.h"
#include "qcow2-create.h"
#include "qcow2-header.h"
#include "qcow2-options.h"
#include "qcow2-snapshot.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"

static int qcow2_probe(const uint8_t *buf, int size, const char *filename)
{
    return size >= 8 && ldl_be_p(buf) == QCOW2_MAGIC &&
           ldl_be_p(buf + 4) >= 2 ? 100 : 0;
}

/* ---- From the header to the state ---- */

static void set_geometry(BDRVQcow2State *s, const Qcow2Header *h)
{
    bool extl2 = h->incompatible_features & QCOW2_INCOMPAT_EXTL2;

    s->qcow_version = h->version;
    s->cluster_bits = h->cluster_bits;
    s->cluster_size = INT64_C(1) << h->cluster_bits;
    s->subclusters_per_cluster = extl2 ? QCOW2_SUBCLUSTERS : 1;
    s->subcluster_bits = h->cluster_bits - (extl2 ? 5 : 0);
    s->subcluster_size = INT64_C(1) << s->subcluster_bits;
    s->l2_entry_words = extl2 ? 2 : 1;
    s->l2_bits = h->cluster_bits - (extl2 ? 4 : 3);
    s->refcount_order = h->refcount_order;
    s->refcount_bits = 1 << h->refcount_order;
    s->refcount_block_bits = h->cluster_bits + 3 - h->refcount_order;
    s->refcount_max = UINT64_MAX >> (64 - s->refcount_bits);
    s->csize_shift = 62 - (h->cluster_bits - 8);
    s->csize_mask = (UINT64_C(1) << (h->cluster_bits - 8)) - 1;
    s->cluster_offset_mask = (UINT64_C(1) << s->csize_shift) - 1;
    s->compression_type = h->compression_type;
    s->has_data_file = h->incompatible_features & QCOW2_INCOMPAT_DATA_FILE;
    s->data_file_raw = s->has_data_file &&
                       (h->autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW);
    s->crypt_method = h->crypt_method;
    s->crypto_header_offset = h->crypto_offset;
    s->crypto_header_length = h->crypto_length;
    s->disk_size = QEMU_ALIGN_DOWN(h->size, BDRV_SECTOR_SIZE);
}

static void set_extensions(BDRVQcow2State *s, Qcow2Header *h)
{
    s->image_backing_file = g_steal_pointer(&h->backing_file);
    s->image_backing_format = g_steal_pointer(&h->backing_format);
    s->image_data_file = g_steal_pointer(&h->data_file);
    s->nb_snapshots = h->nb_snapshots;
    s->snapshots_offset = h->snapshots_offset;
    s->nb_bitmaps = h->nb_bitmaps;
    s->bitmap_directory_offset = h->bitmap_directory_offset;
    s->bitmap_directory_size = h->bitmap_directory_size;
}

static void set_header(BDRVQcow2State *s, Qcow2Header *h)
{
    set_geometry(s, h);
    set_extensions(s, h);
    s->corrupt = h->incompatible_features & QCOW2_INCOMPAT_CORRUPT;
    driver_lock(&s->lock);
    s->incompatible_features = h->incompatible_features;
    s->compatible_features = h->compatible_features;
    s->autoclear_features = h->autoclear_features;
    s->header_length = h->header_length;
    s->unknown_header_fields = g_steal_pointer(&h->unknown_fields);
    s->unknown_extensions = g_steal_pointer(&h->unknown_extensions);
    driver_unlock(&s->lock);
}

static void init_state(BDRVQcow2State *s)
{
    driver_init(&s->lock);
    qemu_cond_init(&s->cond);
    driver_lock(&s->lock);
    list_init(&s->inflight);
    list_init(&s->places);
    list_init(&s->flush_waiters);
    driver_unlock(&s->lock);
}

static void destroy_state(BDRVQcow2State *s)
{
    driver_lock(&s->lock);
    g_free(s->reftable);
    g_free(s->reftable_dirty);
    g_free(s->l1_dirty);
    g_free(s->unknown_header_fields);
    if (s->unknown_extensions) {
        g_ptr_array_unref(s->unknown_extensions);
    }
    driver_unlock(&s->lock);
    qcow2_close_crypto(s);
    g_free(s->l1);
    qcow2_free_snapshots(s);
    g_free(s->image_data_file);
    g_free(s->image_backing_file);
    g_free(s->image_backing_format);
    qemu_cond_destroy(&s->cond);
    driver_destroy(&s->lock);
}

/* ---- Tables that stay in memory ---- */

/* @entries numbers at @offset into @table, in host byte order. */
static bool read_table(BdrvChild *file, int64_t offset, uint64_t *table,
                       uint32_t entries, const char *what, Error **errp)
{
    int ret = bdrv_pread(file, offset, entries * sizeof(uint64_t), table, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read %s", what);
        return false;
    }
    for (uint32_t i = 0; i < entries; i++) {
        table[i] = GUINT64_FROM_BE(table[i]);
    }
    return true;
}

static bool load_l1(BlockDriverState *bs, const Qcow2Header *h, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2L1 *l1 = g_try_malloc(sizeof(*l1) + h->l1_size * sizeof(uint64_t));

    if (!l1) {
        error_setg(errp, "Could not allocate L1 table");
        return false;
    }
    l1->offset = h->l1_table_offset;
    l1->size = h->l1_size;
    s->l1 = l1;
    bdrv_debug_event(bs->file->bs, "l1_load");
    return read_table(bs->file, l1->offset, l1->entries, l1->size, "L1 table",
                      errp);
}

/* Bytes of a bitmap with a bit for each sector of @table_bytes. */
static size_t dirty_map_bytes(uint64_t table_bytes)
{
    return ROUND_UP(DIV_ROUND_UP(table_bytes, BDRV_SECTOR_SIZE), 64) / 8;
}

static bool load_reftable(BlockDriverState *bs, const Qcow2Header *h,
                          Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint32_t entries = h->refcount_table_clusters *
                       (s->cluster_size / sizeof(uint64_t));
    uint64_t *table = g_try_new(uint64_t, MAX(entries, 1));
    bool ok = false;

    if (table) {
        bdrv_debug_event(bs->file->bs, "reftable_load");
        ok = read_table(bs->file, h->refcount_table_offset, table, entries,
                        "reference count table", errp);
    } else {
        error_setg(errp, "Could not allocate reference count table");
    }
    driver_lock(&s->lock);
    s->reftable = table;
    s->reftable_offset = h->refcount_table_offset;
    s->reftable_size = entries;
    s->reftable_dirty = g_malloc0(dirty_map_bytes(entries * sizeof(uint64_t)));
    s->l1_dirty = g_malloc0(dirty_map_bytes(h->l1_size * sizeof(uint64_t)));
    driver_unlock(&s->lock);
    return ok;
}

/* ---- Open ---- */

bool qcow2_check_writable(uint64_t incompatible_features, Error **errp)
{
    if (incompatible_features & QCOW2_INCOMPAT_CORRUPT) {
        error_setg(errp, "qcow2: Image is corrupt; cannot be opened "
                   "read/write");
        return false;
    }
    return true;
}

/*
 * The external data file: the one that the options describe, or the one that
 * the header names.  That name is a stranger's, so it is a file's and nothing
 * else ("json:…" and "nbd:…" are odd file names), and whoever only wants to
 * know about the image (BDRV_O_NO_IO) does not touch the file at all.
 */
static bool open_data_file(BlockDriverState *bs, json_t *options, int flags,
                           Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (flags & BDRV_O_NO_IO) {
        json_object_del(options, "data-file");
        s->data_file = NULL;
        return true;
    }
    if (!json_object_get(options, "data-file") && s->image_data_file) {
        json_object_set_new(options, "data-file",
                            json_pack("{s:s%}", "filename", s->image_data_file,
                                      strlen(s->image_data_file)));
    }
    if (!bdrv_open_child(bs, options, "data-file", BDRV_CHILD_DATA, true,
                         &s->data_file, errp)) {
        return false;
    }
    if (!s->data_file) {
        error_setg(errp, "'data-file' is required for this image");
        return false;
    }
    bs->file->role &= ~BDRV_CHILD_DATA;
    return true;
}

static bool set_data_file(BlockDriverState *bs, const Qcow2Header *h,
                          json_t *options, int flags, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->data_file) {
        return true;                    /* of a node that was open already */
    }
    if (h->incompatible_features & QCOW2_INCOMPAT_DATA_FILE) {
        return open_data_file(bs, options, flags, errp);
    }
    if (json_object_get(options, "data-file")) {
        error_setg(errp, "'data-file' can only be set for images with an "
                   "external data file");
        return false;
    }
    if ((h->autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW) &&
        !(flags & BDRV_O_NO_IO)) {
        error_setg(errp, "data-file-raw requires a data file");
        return false;
    }
    s->data_file = bs->file;
    return true;
}

static bool set_options(BlockDriverState *bs, json_t *options, int flags,
                        Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Options o;
    bool ok = qcow2_options_take(bs, options, flags, &o, errp) &&
              qcow2_open_crypto(bs, o.encrypt, flags, errp);

    if (ok) {
        qcow2_options_apply(s, &o);
        s->l2_slice_bits = ctz64(o.l2_slice_size) -
                           ctz64(s->l2_entry_words * sizeof(uint64_t));
        ok = qcow2_make_caches(bs, o.l2_slice_size, o.l2_tables,
                               o.refcount_tables, errp);
    }
    qcow2_options_clear(&o);
    return ok;
}

/* What says how others left things that we do not know or cannot trust: it is
 * about to become wrong. */
static bool drop_stale_features(BlockDriverState *bs, const Qcow2Header *h,
                                Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    bool stale = h->has_stale_bitmaps ||
                 (h->autoclear_features & ~(uint64_t)QCOW2_AUTOCLEAR_MASK);
    int ret = 0;

    if (stale) {
        driver_lock(&s->lock);
        s->autoclear_features &= QCOW2_AUTOCLEAR_MASK;
        ret = qcow2_update_header(bs);
        driver_unlock(&s->lock);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not update qcow2 header");
    }
    return ret == 0;
}

static bool list_all_metadata(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    return qcow2_list_metadata(bs, errp) &&
           (!s->snapshots || qcow2_list_snapshot_metadata(bs, errp));
}

/* It was not closed properly: its refcounts must be right before anything is
 * allocated. */
static bool repair_if_dirty(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    return !s->refcounts_suspect || qcow2_repair_dirty(bs, errp) == 0;
}

static bool open_image(BlockDriverState *bs, json_t *options, int flags,
                       Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(Qcow2Header) h = qcow2_header_read(bs->file,
                                                 flags & BDRV_O_CHECK, errp);

    s->writable = (flags & BDRV_O_RDWR) && !(flags & BDRV_O_INACTIVE);
    if (!h || (s->writable && !(flags & BDRV_O_CHECK) &&
               !qcow2_check_writable(h->incompatible_features, errp))) {
        return false;
    }
    s->refcounts_suspect = s->writable && (h->incompatible_features &
                                           QCOW2_INCOMPAT_DIRTY);
    set_header(s, h);
    if (!set_options(bs, options, flags, errp) ||
        !set_data_file(bs, h, options, flags, errp) ||
        !load_l1(bs, h, errp) || !load_reftable(bs, h, errp)) {
        return false;
    }
    /* A check reads snapshots itself: what is wrong with them is a finding. */
    if (!(flags & BDRV_O_CHECK) && !qcow2_read_snapshots(bs, errp)) {
        return false;
    }
    if (s->writable && !list_all_metadata(bs, errp)) {
        return false;
    }
    if (s->writable && !(flags & BDRV_O_CHECK) &&
        !(drop_stale_features(bs, h, errp) && repair_if_dirty(bs, errp) &&
          qcow2_check_shared_l2(bs, errp))) {
        return false;
    }
    /* Damage is repaired, and headers are looked at, without the bits; whoever
     * had the image before it becomes ours may still change them. */
    return (flags & (BDRV_O_CHECK | BDRV_O_INACTIVE)) ||
           ((flags & BDRV_O_NO_IO) && !s->writable) ||
           qcow2_load_bitmaps(bs, errp);
}

static bool qcow2_open(BlockDriverState *bs, json_t *options, int flags,
                       Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (!bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    init_state(s);
    if (!open_image(bs, options, flags, errp)) {
        qcow2_free_caches(bs);
        destroy_state(s);
        return false;
    }
    if (s->image_backing_file) {
        bs->backing_file = g_strdup(s->image_backing_file);
        bs->backing_format = g_strdup(s->image_backing_format);
    }
    /* Who only looks at the header leaves no tables in the caches. */
    if (!(flags & BDRV_O_NO_IO)) {
        qcow2_clean_start(s);
    }
    return true;
}

static void qcow2_close(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    qcow2_clean_stop(s);
    driver_lock(&s->lock);
    if (s->writable && !qatomic_read(&s->corrupt)) {
        ret = qcow2_settle(bs);
        qcow2_complete_file(bs);
    }
    qcow2_places_drop(bs);
    qcow2_frees_destroy(s);
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_report("qcow2: Could not write all metadata of '%s': %s",
                     bdrv_get_filename(bs), strerror(-ret));
    }
    qcow2_free_caches(bs);
    destroy_state(bs->opaque);
}

/* ---- Live migration ---- */

/* Of two states of one image, do they agree on what the graph is made for? */
static bool same_files(const BDRVQcow2State *a, const BDRVQcow2State *b,
                       Error **errp)
{
    if (a->has_data_file != b->has_data_file ||
        a->crypt_method != b->crypt_method ||
        g_strcmp0(a->image_data_file, b->image_data_file) ||
        g_strcmp0(a->image_backing_file, b->image_backing_file)) {
        error_setg(errp, "qcow2: The image's backing file, data file or "
                   "encryption was changed while it was inactive");
        return false;
    }
    return true;
}

static void free_state(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    qcow2_clean_stop(s);
    driver_lock(&s->lock);
    qcow2_frees_destroy(s);
    driver_unlock(&s->lock);
    qcow2_free_caches(bs);
    destroy_state(s);
    g_free(s);
}

/*
 * Nothing that we know of the image has to be true any more.  So it is opened
 * once more, into a new state; only the children stay.  The old one had nothing
 * to write, and is there still if that fails.
 */
static bool qcow2_activate(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *old = bs->opaque;
    BDRVQcow2State *s = g_new0(BDRVQcow2State, 1);
    g_autoptr(json_t) options = json_object();
    bool ok;

    qcow2_options_inherit(options, bs->options);
    init_state(s);
    s->data_file = old->data_file;
    bs->opaque = s;
    ok = open_image(bs, options, bs->open_flags, errp) &&
         same_files(old, s, errp);
    if (ok) {
        bs->opaque = old;
    }
    free_state(bs);
    bs->opaque = ok ? s : old;
    if (ok) {
        qcow2_clean_start(s);
    }
    return ok;
}

static bool qcow2_inactivate(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    driver_lock(&s->lock);
    if (s->writable && !qatomic_read(&s->corrupt)) {
        ret = qcow2_settle(bs);
        qcow2_complete_file(bs);
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to write the image's metadata");
        /* They have been stored, and we go on. */
        qcow2_use_bitmaps(bs);
        return false;
    }
    s->writable = false;
    return true;
}

static void qcow2_refresh_limits(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->crypt_method != QCOW2_CRYPT_NONE) {
        bs->bl.request_alignment = BDRV_SECTOR_SIZE;
    }
    bs->bl.mapping_unit = s->cluster_size;
    bs->bl.pwrite_zeroes_alignment = s->subcluster_size;
    bs->bl.pdiscard_alignment = s->cluster_size;
}

/* ---- What there is to know ---- */

static int64_t qcow2_getlength(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    return s->disk_size;
}

static int qcow2_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    BDRVQcow2State *s = bs->opaque;

    info->cluster_size = s->cluster_size;
    info->subcluster_size = s->subcluster_size;
    info->vm_state_offset = qcow2_vm_state_offset(s);
    info->is_encrypted = s->crypto;
    driver_lock(&s->lock);
    info->is_dirty = s->incompatible_features & QCOW2_INCOMPAT_DIRTY;
    driver_unlock(&s->lock);
    return 0;
}

static int64_t qcow2_get_allocated_file_size(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t own = bdrv_get_allocated_file_size(bs->file->bs);
    int64_t data;

    if (own < 0 || s->data_file == bs->file || !s->data_file) {
        return own;
    }
    data = bdrv_get_allocated_file_size(s->data_file->bs);
    return data < 0 ? data : own + data;
}

/* Clusters that a new image has already are as the data file made them. */
static bool qcow2_has_zero_init(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    const Qcow2L1 *l1 = qatomic_load_acquire(&s->l1);

    if (l1->size == 0 || qatomic_read(&l1->entries[0]) == 0) {
        return true;
    }
    return s->crypt_method == QCOW2_CRYPT_NONE && s->data_file &&
           bdrv_has_zero_init(s->data_file->bs);
}

BlockDriver bdrv_qcow2 = {
    .format_name = "qcow2",
    .instance_size = sizeof(BDRVQcow2State),
    .supports_backing = true,
    .supports_handover = true,
    .create_opts = qcow2_create_opts,
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .reopen_prepare = qcow2_reopen_prepare,
    .reopen_commit = qcow2_reopen_commit,
    .reopen_abort = qcow2_reopen_abort,
    .activate = qcow2_activate,
    .inactivate = qcow2_inactivate,
    .refresh_limits = qcow2_refresh_limits,
    .getlength = qcow2_getlength,
    .get_info = qcow2_get_info,
    .get_allocated_file_size = qcow2_get_allocated_file_size,
    .has_zero_init = qcow2_has_zero_init,
    .supports_persistent_dirty_bitmap = qcow2_supports_persistent_dirty_bitmap,
    .can_store_new_dirty_bitmap = qcow2_can_store_new_dirty_bitmap,
    .remove_persistent_dirty_bitmap = qcow2_remove_persistent_dirty_bitmap,
    .store_dirty_bitmaps = qcow2_store_dirty_bitmaps,
    .create = qcow2_create,
    .blockdev_create = qcow2_blockdev_create,
    .blockdev_create_params = qcow2_blockdev_create_params,
    .amend = qcow2_amend,
    .amend_opts = qcow2_amend_opts,
    .change_backing_file = qcow2_change_backing_file,
    .make_empty = qcow2_make_empty,
    .truncate = qcow2_truncate,
    .measure = qcow2_measure,
    .get_specific_info = qcow2_get_specific_info,
    .preadv = qcow2_preadv,
    .compress = qcow2_compress_cluster,
    .place = qcow2_place,
    .pwritev = qcow2_pwritev,
    .pwrite_zeroes = qcow2_pwrite_zeroes,
    .pdiscard = qcow2_pdiscard,
    .flush = qcow2_flush,
    .flushes_children = true,
    .supported_write_flags = BDRV_REQ_WRITE_COMPRESSED |
                             BDRV_REQ_COMPRESSED_DATA,
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP,
    .check = qcow2_check,
    .block_status = qcow2_block_status,
    .snapshot_create = qcow2_snapshot_create,
    .snapshot_goto = qcow2_snapshot_goto,
    .snapshot_delete = qcow2_snapshot_delete,
    .snapshot_list = qcow2_snapshot_list,
    .snapshot_load_tmp = qcow2_snapshot_load_tmp,
    .save_vmstate = qcow2_save_vmstate,
    .load_vmstate = qcow2_load_vmstate,
    .map_nowait = qcow2_map_request,
};
