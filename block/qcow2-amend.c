/*
 * Changing what a qcow2 image was created with.
 *
 * Each change is one rewrite of the header, after all that must hold before:
 * nobody is to find a version 2 image with a feature that it cannot have.  The
 * order is such that every state in between is a valid image: up to version 3
 * first, then features, then the size, down to version 2 last.
 *
 * Control thread, drained.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-amend.h"
#include "qcow2-snapshot.h"
#include "qemu/atomic.h"

const BlockCreateOption qcow2_amend_opts[] = {
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
    { "lazy_refcounts", BLOCK_OPT_BOOL, "Postpone refcount updates", NULL },
    { "refcount_bits", BLOCK_OPT_NUMBER,
      "Width of a reference count entry in bits", NULL },
    { "encrypt.state", BLOCK_OPT_STRING,
      "Select new state of affected keyslots (active/inactive)", NULL },
    { "encrypt.keyslot", BLOCK_OPT_NUMBER,
      "Select a single keyslot to modify explicitly", NULL },
    { "encrypt.old-secret", BLOCK_OPT_STRING,
      "Select all keyslots that match this password", NULL },
    { "encrypt.new-secret", BLOCK_OPT_STRING, "New secret to set in the "
      "matching keyslots. Empty string to erase", NULL },
    { "encrypt.iter-time", BLOCK_OPT_NUMBER,
      "Time to spend in PBKDF in milliseconds", NULL },
    { NULL },
};

typedef struct Amend {
    int version;
    uint64_t refcount_bits;
    bool lazy_refcounts, lazy_given;
    bool data_file_raw;
    bool has_data_file;
    char *data_file;                /* NULL: without a name */
    int64_t size;                   /* 0: as it is */
} Amend;

/* ---- Options ---- */

static bool take_version(json_t *options, int *version, Error **errp)
{
    g_autofree char *compat = opt_take_str(options, "compat");

    if (!compat || !*compat) {
        return true;
    }
    if (g_str_equal(compat, "0.10") || g_str_equal(compat, "v2")) {
        *version = 2;
    } else if (g_str_equal(compat, "1.1") || g_str_equal(compat, "v3")) {
        *version = 3;
    } else {
        error_setg(errp, "Unknown compatibility level %s", compat);
        return false;
    }
    return true;
}

/* Whoever gives all options may say what is so already, file and format. */
static bool keeps_backing_file(BlockDriverState *bs, json_t *options)
{
    g_autofree char *file = opt_take_str(options, "backing_file");
    g_autofree char *format = opt_take_str(options, "backing_fmt");

    return (!file && !format) ||
           (g_strcmp0(file, bs->backing_file) == 0 &&
            g_strcmp0(format, bs->backing_format) == 0);
}

static bool take_options(BlockDriverState *bs, json_t *options, Amend *a,
                         Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t size = 0;

    *a = (Amend) { .version = s->qcow_version,
                   .refcount_bits = s->refcount_bits,
                   .data_file_raw = s->data_file_raw,
                   .lazy_given = json_object_get(options, "lazy_refcounts") };
    driver_lock(&s->lock);
    a->lazy_refcounts = s->compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS;
    driver_unlock(&s->lock);
    if (!keeps_backing_file(bs, options)) {
        error_setg(errp, "Cannot amend the backing file");
        error_append_hint(errp, "You can use 'qemu-img rebase' instead.\n");
        return false;
    }
    a->data_file = opt_take_str(options, "data_file");
    a->has_data_file = a->data_file;
    if (a->data_file && !*a->data_file) {
        g_clear_pointer(&a->data_file, g_free);     /* from now on, no name */
    }
    if (!take_version(options, &a->version, errp) ||
        !opt_take_size(options, "size", &size, errp) ||
        !opt_take_bool(options, "lazy_refcounts", &a->lazy_refcounts, errp) ||
        !opt_take_bool(options, "data_file_raw", &a->data_file_raw, errp) ||
        !opt_take_u64(options, "refcount_bits", &a->refcount_bits, errp)) {
        return false;
    }
    if (size > INT64_MAX) {
        error_setg_errno(errp, EFBIG, "Image size is too large");
        return false;
    }
    a->size = size;
    return true;
}

static bool check_options(BDRVQcow2State *s, const Amend *a, Error **errp)
{
    if (!is_power_of_2(a->refcount_bits) || a->refcount_bits > 64) {
        error_setg(errp, "Refcount width must be a power of two and may not "
                   "exceed 64 bits");
    } else if (a->has_data_file && !s->has_data_file) {
        error_setg(errp, "data-file can only be set for images that use an "
                   "external data file");
    } else if (a->data_file_raw && !s->data_file_raw) {
        error_setg(errp, "data-file-raw cannot be set on existing images");
    } else if (a->version < 3 && s->qcow_version >= 3 &&
               a->refcount_bits != 16) {
        error_setg(errp, "compat=0.10 requires refcount_bits=16");
    } else if (a->version < 3 && a->refcount_bits != 16) {
        error_setg(errp, "Refcount widths other than 16 bits require "
                   "compatibility level 1.1 or above (use compat=1.1 or "
                   "greater)");
    } else if (a->version < 3 && a->lazy_refcounts && a->lazy_given) {
        error_setg(errp, "Lazy refcounts only supported with compatibility "
                   "level 1.1 and above (use compat=1.1 or greater)");
    } else {
        return true;
    }
    return false;
}

/* ---- Header ---- */

static bool upgrade(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    driver_lock(&s->lock);
    if (s->nb_snapshots) {
        /* Entries say more in version 3 than in 2, where they may. */
        ret = qcow2_write_snapshots(bs);
    }
    s->qcow_version = 3;
    s->header_length = QCOW2_HEADER_LENGTH;
    ret = ret < 0 ? ret : qcow2_update_header(bs);
    if (ret < 0) {
        s->qcow_version = 2;
        s->header_length = QCOW2_V2_HEADER_LENGTH;
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to upgrade the image");
    }
    return ret == 0;
}

static void swap_data_file(BDRVQcow2State *s, Amend *a)
{
    char *old = s->image_data_file;

    s->image_data_file = a->data_file;
    a->data_file = old;
}

static bool change_features(BlockDriverState *bs, Amend *a, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t compatible, autoclear;
    int ret = 0;

    driver_lock(&s->lock);
    compatible = s->compatible_features;
    autoclear = s->autoclear_features;
    s->compatible_features &= ~(uint64_t)QCOW2_COMPAT_LAZY_REFCOUNTS;
    s->compatible_features |= a->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS :
                              0;
    if (!a->data_file_raw) {
        s->autoclear_features &= ~(uint64_t)QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    }
    if (a->has_data_file) {
        swap_data_file(s, a);
    }
    if (!a->lazy_refcounts) {
        ret = qcow2_settle(bs);         /* refcounts, and the dirty bit */
    }
    if (ret == 0) {
        ret = qcow2_update_header(bs);
    }
    if (ret < 0) {
        s->compatible_features = compatible;
        s->autoclear_features = autoclear;
        if (a->has_data_file) {
            swap_data_file(s, a);
        }
    } else {
        s->use_lazy_refcounts = a->lazy_refcounts;
        s->data_file_raw = a->data_file_raw;
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to update the image header");
    }
    return ret == 0;
}

/* ---- Down to version 2 ---- */

/* Does the L2 table at @offset need what version 2 has not?  1, 0 or -errno. */
static int l2_has_zeroes(BlockDriverState *bs, int64_t offset, uint64_t *table)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = bdrv_pread(bs->file, offset, s->cluster_size, table, 0);

    for (size_t i = 0; ret == 0 && i < s->cluster_size / sizeof(*table); i++) {
        uint64_t l2 = GUINT64_FROM_BE(table[i]);

        ret = !(l2 & QCOW2_OFLAG_COMPRESSED) && (l2 & QCOW2_OFLAG_ZERO);
    }
    return ret;
}

static int snapshot_has_zeroes(BlockDriverState *bs, const Qcow2Snapshot *sn)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *table = g_malloc(s->cluster_size);
    Qcow2Tree tree;
    int ret = qcow2_tree_read(bs, sn->l1_table_offset, sn->l1_size, &tree);

    for (uint32_t i = 0; ret == 0 && i < tree.size; i++) {
        int64_t offset = tree.entries[i] & QCOW2_L1_OFFSET_MASK;

        ret = offset ? l2_has_zeroes(bs, offset, table) : 0;
    }
    g_free(tree.entries);
    return ret;
}

/*
 * Version 2 takes all snapshots to be as large as the disk.  What is zero in
 * one would have to become data with the refcount of its table: that is not
 * done.
 */
static bool snapshots_allow(BlockDriverState *bs, int64_t disk_size,
                            Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    /* The tables are read from the file. */
    driver_lock(&s->lock);
    ret = s->nb_snapshots ? qcow2_settle(bs) : 0;
    driver_unlock(&s->lock);
    for (uint32_t i = 0; ret == 0 && i < s->nb_snapshots; i++) {
        if (s->snapshots[i].disk_size != disk_size ||
            s->snapshots[i].vm_state_size > UINT32_MAX) {
            error_setg(errp, "Internal snapshots prevent downgrade of image");
            return false;
        }
        ret = snapshot_has_zeroes(bs, &s->snapshots[i]);
    }
    if (ret > 0) {
        error_setg(errp, "Cannot downgrade an image with zero clusters in "
                   "snapshots");
    } else if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not look through the snapshots");
    }
    return ret == 0;
}

static bool can_downgrade(BlockDriverState *bs, const Amend *a, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t features;

    driver_lock(&s->lock);
    features = s->incompatible_features & ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
    driver_unlock(&s->lock);
    if (features) {
        error_setg(errp, "Cannot downgrade an image with incompatible "
                   "features 0x%" PRIx64 " set", features);
        return false;
    }
    if (s->nb_bitmaps) {
        error_setg(errp, "Cannot downgrade an image with bitmaps");
        return false;
    }
    return snapshots_allow(bs, a->size ? a->size : s->disk_size, errp);
}

static bool downgrade(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t compatible, autoclear;
    int ret = qcow2_expand_zero_clusters(bs);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to turn zero into data clusters");
        return false;
    }
    driver_lock(&s->lock);
    ret = qcow2_settle(bs);
    compatible = s->compatible_features;
    autoclear = s->autoclear_features;
    if (ret == 0) {
        s->qcow_version = 2;
        s->compatible_features = 0;
        s->autoclear_features = 0;
        ret = qcow2_update_header(bs);
    }
    if (ret < 0) {
        s->qcow_version = 3;
        s->compatible_features = compatible;
        s->autoclear_features = autoclear;
    } else {
        s->header_length = QCOW2_V2_HEADER_LENGTH;
        g_clear_pointer(&s->unknown_header_fields, g_free);
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to downgrade the image");
    }
    return ret == 0;
}

/* ---- All of it ---- */

static bool amend(BlockDriverState *bs, Amend *a, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    bool down = a->version < 3 && s->qcow_version >= 3;

    if (down) {
        a->lazy_refcounts = false;
    }
    if (down && !can_downgrade(bs, a, errp)) {
        return false;
    }
    if (a->version >= 3 && s->qcow_version < 3 && !upgrade(bs, errp)) {
        return false;
    }
    if (s->qcow_version >= 3 && !change_features(bs, a, errp)) {
        return false;
    }
    if (a->refcount_bits != (uint64_t)s->refcount_bits &&
        !qcow2_change_refcount_order(bs, ctz64(a->refcount_bits), errp)) {
        return false;
    }
    if (a->size && !qcow2_truncate(bs, a->size, false, PREALLOC_MODE_OFF, 0,
                                   errp)) {
        return false;
    }
    return !down || downgrade(bs, errp);
}

bool qcow2_amend(BlockDriverState *bs, json_t *options, bool force,
                 BdrvProgressFunc *progress, void *opaque, Error **errp)
{
    ERRP_GUARD();
    Amend a;
    bool ok = take_options(bs, options, &a, errp) &&
              check_options(bs->opaque, &a, errp) &&
              qcow2_amend_crypto(bs, options, force, errp) &&
              amend(bs, &a, errp);

    g_free(a.data_file);
    if (ok && progress) {
        progress(opaque, 1, 1);
    }
    return ok;
}

/* ---- Backing file ---- */

bool qcow2_change_backing_file(BlockDriverState *bs, const char *file,
                               const char *format, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    char *old_file = s->image_backing_file;
    char *old_format = s->image_backing_format;
    int ret = -EINVAL;

    if (file && *file && s->data_file_raw) {
        error_setg(errp, "Cannot set a backing file on images with "
                   "data-file-raw");
        return false;
    }
    if ((!file || strlen(file) <= QCOW2_MAX_BACKING_NAME) &&
        (!format || strlen(format) < 16)) {
        driver_lock(&s->lock);
        s->image_backing_file = file && *file ? g_strdup(file) : NULL;
        s->image_backing_format = file && *file ? g_strdup(format) : NULL;
        ret = qcow2_update_header(bs);
        if (ret < 0) {
            g_free(s->image_backing_file);
            g_free(s->image_backing_format);
            s->image_backing_file = old_file;
            s->image_backing_format = old_format;
        }
        driver_unlock(&s->lock);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not change the backing file to "
                         "'%s'", file ? file : "");
        return false;
    }
    g_free(old_file);
    g_free(old_format);
    return true;
}
