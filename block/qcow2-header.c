/*
 * Writing the header of a qcow2 image.
 *
 * Source: "QEMU QCOW Image Format", sections "Header", "Header extensions".
 *
 * The first cluster is made anew from the state each time: the fields, the
 * extensions that we know in a fixed order, then those that we do not, and the
 * backing file's name behind them.
 *
 * A power cut may leave one sector new and the next one old, and half a header
 * could say that the old backing file is in the new one's format.  So all of it
 * goes into the first sector if it can: the names of features, which are for
 * messages of other programs only, are left out as need be.  Then writing that
 * sector is the switch, and what it does not refer to any more is overwritten
 * behind it.  Only a header with much in it (a long name, unknown extensions),
 * before and after, is replaced in one go and may be torn.  A new image, with
 * which nothing can be lost yet, has all names.
 *
 * One writer at a time: s->header_busy, waited for on s->cond, because the lock
 * is dropped for the I/O.  Feature bits that tell others how far the image can
 * be trusted (dirty, corrupt) are written alone: a field of eight bytes cannot
 * be torn.  In memory a bit changes after it did on the disk, so whoever sees
 * it set may rely on it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-header.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/error.h"
#include "qemu/zero.h"

#define INCOMPATIBLE_FEATURES_OFFSET 72
/* Smaller clusters have no room for the names of features. */
#define MIN_CLUSTER_WITH_NAMES 8192
/* What a disk writes whole or not at all. */
#define ATOMIC_BYTES BDRV_SECTOR_SIZE

/* ---- Building ---- */

/* What is being written: @pos never passes @size; @full: it would have to. */
typedef struct Builder {
    uint8_t *buf;
    size_t size, pos;
    bool full;
} Builder;

static void put_extension(Builder *b, uint32_t type, const void *data,
                          size_t length)
{
    size_t padded = ROUND_UP(length, 8);
    size_t end_marker = type == QCOW2_EXT_END ? 0 : 8;  /* has to fit, too */

    if (b->full || 8 + padded + end_marker > b->size - b->pos) {
        b->full = true;
        return;
    }
    stl_be_p(b->buf + b->pos, type);
    stl_be_p(b->buf + b->pos + 4, length);
    if (length) {
        memcpy(b->buf + b->pos + 8, data, length);
    }
    b->pos += 8 + padded;
}

static void put_string(Builder *b, uint32_t type, const char *s)
{
    if (s) {
        put_extension(b, type, s, strlen(s));
    }
}

typedef struct FeatureName {
    uint8_t type;
    uint8_t bit;
    char name[46];
} FeatureName;

/* @all: also those of features that this image does not have. */
static void put_feature_names(Builder *b, const Qcow2Header *h, bool all)
{
    enum { INCOMPATIBLE, COMPATIBLE, AUTOCLEAR };
    static const FeatureName names[] = {
        { INCOMPATIBLE, 0, "dirty bit" },
        { INCOMPATIBLE, 1, "corrupt bit" },
        { INCOMPATIBLE, 2, "external data file" },
        { INCOMPATIBLE, 3, "compression type" },
        { INCOMPATIBLE, 4, "extended L2 entries" },
        { COMPATIBLE, 0, "lazy refcounts" },
        { AUTOCLEAR, 0, "bitmaps" },
        { AUTOCLEAR, 1, "raw external data" },
    };
    const uint64_t features[] = {
        h->incompatible_features, h->compatible_features,
        h->autoclear_features,
    };
    FeatureName wanted[ARRAY_SIZE(names)];
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (all || features[names[i].type] >> names[i].bit & 1) {
            wanted[n++] = names[i];
        }
    }
    if (n && b->size >= MIN_CLUSTER_WITH_NAMES) {
        put_extension(b, QCOW2_EXT_FEATURE_TABLE, wanted,
                      n * sizeof(wanted[0]));
    }
}

static void put_crypto(Builder *b, const Qcow2Header *h)
{
    uint8_t data[16];

    if (h->has_crypto) {
        stq_be_p(data, h->crypto_offset);
        stq_be_p(data + 8, h->crypto_length);
        put_extension(b, QCOW2_EXT_CRYPTO, data, sizeof(data));
    }
}

static void put_bitmaps(Builder *b, const Qcow2Header *h)
{
    uint8_t data[24] = { 0 };

    if (h->has_bitmaps) {
        stl_be_p(data, h->nb_bitmaps);
        stq_be_p(data + 8, h->bitmap_directory_size);
        stq_be_p(data + 16, h->bitmap_directory_offset);
        put_extension(b, QCOW2_EXT_BITMAPS, data, sizeof(data));
    }
}

static void put_extensions(Builder *b, const Qcow2Header *h, bool all_names)
{
    /* First, in the first sector in any case: switching bitmaps cannot be
     * torn. */
    put_bitmaps(b, h);
    put_string(b, QCOW2_EXT_BACKING_FORMAT, h->backing_format);
    put_string(b, QCOW2_EXT_DATA_FILE, h->data_file);
    put_crypto(b, h);
    if (h->version >= 3) {
        put_feature_names(b, h, all_names);
    }
    for (guint i = 0; h->unknown_extensions && i < h->unknown_extensions->len;
         i++) {
        const Qcow2UnknownExtension *ext = h->unknown_extensions->pdata[i];

        put_extension(b, ext->type, ext->data, ext->length);
    }
    put_extension(b, QCOW2_EXT_END, NULL, 0);
}

static void put_v2_fields(uint8_t *buf, const Qcow2Header *h)
{
    stl_be_p(buf, QCOW2_MAGIC);
    stl_be_p(buf + 4, h->version);
    stl_be_p(buf + 20, h->cluster_bits);
    stq_be_p(buf + 24, h->size);
    stl_be_p(buf + 32, h->crypt_method);
    stl_be_p(buf + 36, h->l1_size);
    stq_be_p(buf + 40, h->l1_table_offset);
    stq_be_p(buf + 48, h->refcount_table_offset);
    stl_be_p(buf + 56, h->refcount_table_clusters);
    stl_be_p(buf + 60, h->nb_snapshots);
    stq_be_p(buf + 64, h->snapshots_offset);
}

static void put_v3_fields(Builder *b, const Qcow2Header *h)
{
    uint8_t *buf = b->buf;
    uint32_t length = MAX(h->header_length, QCOW2_HEADER_LENGTH);

    stq_be_p(buf + INCOMPATIBLE_FEATURES_OFFSET, h->incompatible_features);
    stq_be_p(buf + 80, h->compatible_features);
    stq_be_p(buf + 88, h->autoclear_features);
    stl_be_p(buf + 96, h->refcount_order);
    stl_be_p(buf + 100, length);
    buf[104] = h->compression_type;
    if (h->unknown_fields) {
        memcpy(buf + QCOW2_HEADER_LENGTH, h->unknown_fields,
               length - QCOW2_HEADER_LENGTH);
    }
    b->pos = length;
}

static void put_backing_file(Builder *b, const Qcow2Header *h)
{
    size_t length = h->backing_file ? strlen(h->backing_file) : 0;

    if (length == 0) {
        return;
    }
    if (b->full || length > b->size - b->pos) {
        b->full = true;
        return;
    }
    stq_be_p(b->buf + 8, b->pos);
    stl_be_p(b->buf + 16, length);
    memcpy(b->buf + b->pos, h->backing_file, length);
    b->pos += length;
}

/* How much of @buf it takes, or -ENOSPC. */
static int64_t build(const Qcow2Header *h, uint8_t *buf, bool all_names)
{
    Builder b = { .buf = buf, .size = (size_t)1 << h->cluster_bits,
                  .pos = QCOW2_V2_HEADER_LENGTH };

    memset(buf, 0, b.size);
    put_v2_fields(buf, h);
    if (h->version >= 3) {
        put_v3_fields(&b, h);
    }
    put_extensions(&b, h, all_names);
    put_backing_file(&b, h);
    return b.full ? -ENOSPC : b.pos;
}

int qcow2_header_build(const Qcow2Header *h, uint8_t *buf, bool atomic)
{
    int64_t ret = build(h, buf, true);

    if (ret < 0 || (atomic && ret > ATOMIC_BYTES)) {
        ret = build(h, buf, false);
    }
    return MIN(ret, 0);
}

/* ---- Writing ---- */

/* The state as a header; strings and arrays still belong to the state. */
static void header_of_state(const BDRVQcow2State *s, Qcow2Header *h)
    REQUIRES(driver_class)
{
    *h = (Qcow2Header) {
        .version = s->qcow_version,
        .cluster_bits = s->cluster_bits,
        .size = s->disk_size,
        .crypt_method = s->crypt_method,
        .l1_size = s->l1->size,
        .l1_table_offset = s->l1->offset,
        .refcount_table_offset = s->reftable_offset,
        .refcount_table_clusters = s->reftable_size /
                                   (s->cluster_size / sizeof(uint64_t)),
        .nb_snapshots = s->nb_snapshots,
        .snapshots_offset = s->snapshots_offset,
        .incompatible_features = s->incompatible_features,
        .compatible_features = s->compatible_features,
        .autoclear_features = s->autoclear_features,
        .refcount_order = s->refcount_order,
        .header_length = s->header_length,
        .compression_type = s->compression_type,
        .unknown_fields = s->unknown_header_fields,
        .backing_file = s->image_backing_file,
        .backing_format = s->image_backing_format,
        .data_file = s->image_data_file,
        .has_crypto = s->crypt_method == QCOW2_CRYPT_LUKS,
        .crypto_offset = s->crypto_header_offset,
        .crypto_length = s->crypto_header_length,
        .has_bitmaps = s->nb_bitmaps != 0,
        .nb_bitmaps = s->nb_bitmaps,
        .bitmap_directory_offset = s->bitmap_directory_offset,
        .bitmap_directory_size = s->bitmap_directory_size,
        .unknown_extensions = s->unknown_extensions,
    };
}

static void header_begin(BDRVQcow2State *s) REQUIRES(driver_class)
{
    while (s->header_busy) {
        driver_wait(&s->cond, &s->lock);
    }
    s->header_busy = true;
}

static void header_end(BDRVQcow2State *s) REQUIRES(driver_class)
{
    s->header_busy = false;
    qemu_cond_broadcast(&s->cond);
}

/* What became of a header that was to be replaced, if that failed. */
typedef enum Undo {
    UNDO_DONE,
    UNDO_NOT_SYNCED,            /* it is back, but a power cut may undo that */
    UNDO_FAILED,
} Undo;

static int write_part(BlockDriverState *bs, const uint8_t *buf, int64_t from,
                      int64_t to)
{
    return bdrv_pwrite_sync(bs->file, from, to - from, buf + from, 0);
}

/* At any time one of the headers is in force, whole: whichever has nothing
 * behind the first sector does not mind what is there. */
static int write_in_order(BlockDriverState *bs, const uint8_t *buf,
                          const uint8_t *old)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t end = s->cluster_size, rest = end - ATOMIC_BYTES;
    int ret;

    if (memcmp(buf + ATOMIC_BYTES, old + ATOMIC_BYTES, rest) == 0) {
        return write_part(bs, buf, 0, ATOMIC_BYTES);
    }
    if (buffer_is_zero(buf + ATOMIC_BYTES, rest)) {
        ret = write_part(bs, buf, 0, ATOMIC_BYTES);
        return ret < 0 ? ret : write_part(bs, buf, ATOMIC_BYTES, end);
    }
    if (buffer_is_zero(old + ATOMIC_BYTES, rest)) {
        ret = write_part(bs, buf, ATOMIC_BYTES, end);
        return ret < 0 ? ret : write_part(bs, buf, 0, ATOMIC_BYTES);
    }
    return write_part(bs, buf, 0, end);
}

/*
 * @buf instead of @old, durably.  If that fails, half of it may be there, or
 * all of it but not for long, and it may point at tables that the caller will
 * now free: so @old is put back.
 */
static int write_header(BlockDriverState *bs, const uint8_t *buf,
                        const uint8_t *old, Undo *undo)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = write_in_order(bs, buf, old);

    *undo = UNDO_DONE;
    if (ret < 0) {
        *undo = bdrv_pwrite(bs->file, 0, s->cluster_size, old, 0) < 0 ?
                UNDO_FAILED :
                bdrv_flush(bs->file->bs) < 0 ? UNDO_NOT_SYNCED : UNDO_DONE;
    }
    return ret;
}

/* Whatever is written from now on, one of the headers would be wrong about it.
 * A file that only cannot be synced does not make its image corrupt. */
static void give_up(BlockDriverState *bs, Undo undo) REQUIRES(driver_class)
{
    BDRVQcow2State *s = bs->opaque;

    if (undo == UNDO_FAILED) {
        qcow2_signal_corruption_locked(bs, true, -1, -1,
            "It is not known which header is in force");
    } else if (undo == UNDO_NOT_SYNCED) {
        error_report("qcow2: '%s' cannot be written any more: its header could "
                     "not be synced", bdrv_get_filename(bs));
        qatomic_set(&s->corrupt, true);
    }
}

int qcow2_update_header(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_size);
    g_autofree uint8_t *old = g_try_malloc(s->cluster_size);
    Undo undo = UNDO_DONE;
    Qcow2Header h;
    int ret;

    if (!buf || !old) {
        return -ENOMEM;
    }
    header_begin(s);
    header_of_state(s, &h);
    ret = qcow2_header_build(&h, buf, true);
    if (ret == 0) {
        driver_unlock(&s->lock);
        ret = bdrv_pread(bs->file, 0, s->cluster_size, old, 0);
        if (ret == 0) {
            ret = write_header(bs, buf, old, &undo);
        }
        driver_lock(&s->lock);
    }
    header_end(s);
    give_up(bs, undo);
    return ret;
}

/* Set and clear bits, durably.  After a failure it is not known which of them
 * the disk has: who relies on the dirty bit has to set it again. */
static int change_features(BlockDriverState *bs, uint64_t set, uint64_t clear)
    REQUIRES(driver_class)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t features;
    uint8_t field[8];
    int ret = 0;

    header_begin(s);
    features = (s->incompatible_features | set) & ~clear;
    if (features != s->incompatible_features || s->features_unknown) {
        stq_be_p(field, features);
        driver_unlock(&s->lock);
        ret = bdrv_pwrite_sync(bs->file, INCOMPATIBLE_FEATURES_OFFSET,
                               sizeof(field), field, 0);
        driver_lock(&s->lock);
        if (ret == 0) {
            s->incompatible_features = features;
        } else {
            s->incompatible_features &= ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
        }
        s->features_unknown = ret < 0;
    }
    header_end(s);
    return ret;
}

int qcow2_mark_dirty(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    /* Version 2 has no place for it. */
    return s->qcow_version < 3 ? -ENOTSUP :
           change_features(bs, QCOW2_INCOMPAT_DIRTY, 0);
}

int qcow2_mark_clean(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    /* All of it, lazy refcounts too, and then a sync. */
    int ret = qcow2_write_back_metadata(bs);

    if (ret == 0) {
        ret = qcow2_flush_metadata(bs);
    }
    return ret < 0 || s->refcounts_suspect ? ret :
           change_features(bs, 0, QCOW2_INCOMPAT_DIRTY);
}

int qcow2_mark_corrupt(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    qatomic_set(&s->corrupt, true);
    return s->qcow_version < 3 ? -ENOTSUP :
           change_features(bs, QCOW2_INCOMPAT_CORRUPT, 0);
}

int qcow2_mark_consistent(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    /* It is believed that all is well, or nothing could be written. */
    qatomic_set(&s->corrupt, false);
    ret = qcow2_flush_metadata(bs);
    if (ret == 0) {
        ret = change_features(bs, 0, QCOW2_INCOMPAT_CORRUPT);
    }
    if (ret < 0) {
        qatomic_set(&s->corrupt, true);
    }
    return ret;
}
