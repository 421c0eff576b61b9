/*
 * Reading the header of a qcow2 image.
 *
 * Source: "QEMU QCOW Image Format", sections "Header" to "Full disk encryption
 * header pointer".
 *
 * All of it is input from strangers.  Nothing is computed from a field before
 * it was checked, and everything that a field makes us allocate is bounded: a
 * cluster is at most 2 MiB, and the extensions are inside of the first one.
 * Strings end at their first NUL, as for everybody else who reads them.
 *
 * An image of unknown features is refused by the features' names, which its
 * feature name table has; so that table is looked for first, and nothing else
 * of the extensions is believed then.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-header.h"
#include "qemu/bswap.h"

#define FEATURE_ENTRY_SIZE 48

static void free_unknown_extension(void *opaque)
{
    Qcow2UnknownExtension *ext = opaque;

    g_free(ext->data);
    g_free(ext);
}

void qcow2_header_free(Qcow2Header *h)
{
    g_free(h->unknown_fields);
    g_free(h->backing_file);
    g_free(h->backing_format);
    g_free(h->data_file);
    if (h->unknown_extensions) {
        g_ptr_array_unref(h->unknown_extensions);
    }
    g_free(h);
}

bool qcow2_table_range_ok(uint64_t offset, uint64_t entries,
                          uint64_t entry_size, uint64_t cluster_size)
{
    return entries <= INT64_MAX / entry_size &&
           offset <= INT64_MAX - entries * entry_size &&
           QEMU_IS_ALIGNED(offset, cluster_size);
}

/* ---- Fixed fields ---- */

static bool read_at(BdrvChild *file, int64_t offset, int64_t bytes, void *buf,
                    const char *what, Error **errp)
{
    int ret = bdrv_pread(file, offset, bytes, buf, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read %s", what);
    }
    return ret == 0;
}

static void parse_v2_fields(Qcow2Header *h, const uint8_t *buf)
{
    h->version = ldl_be_p(buf + 4);
    h->backing_file_offset = ldq_be_p(buf + 8);
    h->backing_file_size = ldl_be_p(buf + 16);
    h->cluster_bits = ldl_be_p(buf + 20);
    h->size = ldq_be_p(buf + 24);
    h->crypt_method = ldl_be_p(buf + 32);
    h->l1_size = ldl_be_p(buf + 36);
    h->l1_table_offset = ldq_be_p(buf + 40);
    h->refcount_table_offset = ldq_be_p(buf + 48);
    h->refcount_table_clusters = ldl_be_p(buf + 56);
    h->nb_snapshots = ldl_be_p(buf + 60);
    h->snapshots_offset = ldq_be_p(buf + 64);
    h->refcount_order = 4;
    h->header_length = QCOW2_V2_HEADER_LENGTH;
}

static void parse_v3_fields(Qcow2Header *h, const uint8_t *buf)
{
    h->incompatible_features = ldq_be_p(buf + 72);
    h->compatible_features = ldq_be_p(buf + 80);
    h->autoclear_features = ldq_be_p(buf + 88);
    h->refcount_order = ldl_be_p(buf + 96);
    h->header_length = ldl_be_p(buf + 100);
    if (h->header_length > QCOW2_V3_HEADER_LENGTH) {
        h->compression_type = buf[104];
    }
}

static bool check_version(const Qcow2Header *h, const uint8_t *buf,
                          Error **errp)
{
    if (ldl_be_p(buf) != QCOW2_MAGIC) {
        error_setg(errp, "Image is not in qcow2 format");
        return false;
    }
    if (h->version < 2 || h->version > 3) {
        error_setg(errp, "Unsupported qcow2 version %" PRIu32, h->version);
        return false;
    }
    return true;
}

/* What must hold before the extensions can be found. */
static bool check_layout(const Qcow2Header *h, Error **errp)
{
    if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS ||
        h->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        error_setg(errp, "Unsupported cluster size: 2^%" PRIu32,
                   h->cluster_bits);
        return false;
    }
    if (h->version >= 3 && h->header_length < QCOW2_V3_HEADER_LENGTH) {
        error_setg(errp, "qcow2 header too short");
        return false;
    }
    if (h->header_length > 1u << h->cluster_bits) {
        error_setg(errp, "qcow2 header exceeds cluster size");
        return false;
    }
    if (h->backing_file_offset > 1u << h->cluster_bits) {
        error_setg(errp, "Invalid backing file offset");
        return false;
    }
    return true;
}

static bool read_unknown_fields(Qcow2Header *h, BdrvChild *file, Error **errp)
{
    uint32_t bytes;

    if (h->header_length <= QCOW2_HEADER_LENGTH) {
        return true;
    }
    bytes = h->header_length - QCOW2_HEADER_LENGTH;
    h->unknown_fields = g_malloc(bytes);
    return read_at(file, QCOW2_HEADER_LENGTH, bytes, h->unknown_fields,
                   "unknown header fields", errp);
}

/* ---- Features that we do not know ---- */

/* The names in the table for bits of @*mask, which are then taken out of it. */
static void add_feature_names(GString *names, const uint8_t *table,
                              uint32_t bytes, uint64_t *mask)
{
    for (uint32_t i = 0; i + FEATURE_ENTRY_SIZE <= bytes;
         i += FEATURE_ENTRY_SIZE) {
        const uint8_t *entry = table + i;

        if (entry[0] == 0 && entry[1] < 64 && (*mask >> entry[1] & 1)) {
            g_string_append_printf(names, "%s%.46s", names->len ? ", " : "",
                                   (const char *)entry + 2);
            *mask &= ~(UINT64_C(1) << entry[1]);
        }
    }
}

/* Find the feature name table between @start and @end of the first cluster;
 * that there is none, or that it is broken, is no error. */
static void find_feature_names(GString *names, const uint8_t *buf,
                               uint32_t start, uint32_t end, uint64_t *mask)
{
    while (start <= end && end - start >= 8) {
        uint32_t type = ldl_be_p(buf + start);
        uint32_t length = ldl_be_p(buf + start + 4);

        start += 8;
        if (type == QCOW2_EXT_END || length > end - start) {
            return;
        }
        if (type == QCOW2_EXT_FEATURE_TABLE) {
            add_feature_names(names, buf + start, length, mask);
        }
        start += ROUND_UP(length, 8);
    }
}

static void refuse_features(const Qcow2Header *h, const uint8_t *buf,
                            uint32_t end, Error **errp)
{
    uint64_t mask = h->incompatible_features & ~(uint64_t)QCOW2_INCOMPAT_MASK;
    g_autoptr(GString) names = g_string_new(NULL);

    find_feature_names(names, buf, h->header_length, end, &mask);
    if (mask) {
        g_string_append_printf(names, "%sUnknown incompatible feature: %"
                               PRIx64, names->len ? ", " : "", mask);
    }
    error_setg(errp, "Unsupported qcow2 feature(s): %s", names->str);
}

/* ---- Extensions ---- */

static bool parse_backing_format(Qcow2Header *h, const uint8_t *data,
                                 uint32_t length, Error **errp)
{
    if (length >= 16) {
        error_setg(errp, "ERROR: ext_backing_format: len=%" PRIu32 " too large "
                   "(>=16)", length);
        return false;
    }
    g_free(h->backing_format);
    h->backing_format = g_strndup((const char *)data, length);
    return true;
}

static bool parse_data_file(Qcow2Header *h, const uint8_t *data,
                            uint32_t length, Error **errp)
{
    g_free(h->data_file);
    h->data_file = g_strndup((const char *)data, length);
    return true;
}

static bool parse_crypto(Qcow2Header *h, const uint8_t *data, uint32_t length,
                         Error **errp)
{
    if (h->crypt_method != QCOW2_CRYPT_LUKS) {
        error_setg(errp, "CRYPTO header extension only expected with LUKS "
                   "encryption method");
        return false;
    }
    if (length != 16) {
        error_setg(errp, "CRYPTO header extension size %" PRIu32 ", but "
                   "expected size 16", length);
        return false;
    }
    h->crypto_offset = ldq_be_p(data);
    h->crypto_length = ldq_be_p(data + 8);
    if (!QEMU_IS_ALIGNED(h->crypto_offset, 1u << h->cluster_bits)) {
        error_setg(errp, "Encryption header offset '%" PRIu64 "' is not a "
                   "multiple of cluster size '%u'", h->crypto_offset,
                   1u << h->cluster_bits);
        return false;
    }
    if (h->crypto_offset > INT64_MAX ||
        h->crypto_length > INT64_MAX - h->crypto_offset) {
        error_setg(errp, "Encryption header range invalid");
        return false;
    }
    h->has_crypto = true;
    return true;
}

/* The bitmaps are as they were left only if nobody who does not know them has
 * written to the image. */
static bool bitmaps_are_consistent(const Qcow2Header *h)
{
    if (h->autoclear_features & QCOW2_AUTOCLEAR_BITMAPS) {
        return true;
    }
    if (h->version < 3) {
        warn_report("This qcow2 v2 image contains bitmaps, but they may have "
                    "been modified by a program without persistent bitmap "
                    "support; so now they must all be considered "
                    "inconsistent");
    } else {
        warn_report("a program lacking bitmap support modified this file, so "
                    "all bitmaps are now considered inconsistent");
    }
    error_printf("Some clusters may be leaked, run 'qemu-img check -r' on the "
                 "image file to fix.");
    return false;
}

static bool check_bitmaps(const Qcow2Header *h, uint32_t reserved,
                          Error **errp)
{
    uint64_t max_size = UINT64_C(1024) * QCOW2_MAX_BITMAPS;

    if (h->nb_bitmaps == 0) {
        error_setg(errp, "found bitmaps extension with zero bitmaps");
    } else if (h->nb_bitmaps > QCOW2_MAX_BITMAPS) {
        error_setg(errp, "bitmaps_ext: Image has %" PRIu32 " bitmaps, "
                   "exceeding the QEMU supported maximum of %d",
                   h->nb_bitmaps, QCOW2_MAX_BITMAPS);
    } else if (reserved) {
        error_setg(errp, "bitmaps_ext: Reserved field is not zero");
    } else if (!QEMU_IS_ALIGNED(h->bitmap_directory_offset,
                                1u << h->cluster_bits)) {
        error_setg(errp, "bitmaps_ext: invalid bitmap directory offset");
    } else if (h->bitmap_directory_size > max_size) {
        error_setg(errp, "bitmaps_ext: bitmap directory size (%" PRIu64
                   ") exceeds the maximum supported size (%" PRIu64 ")",
                   h->bitmap_directory_size, max_size);
    } else if (h->bitmap_directory_offset == 0) {
        error_setg(errp, "Broken bitmap directory");
    } else if (h->bitmap_directory_size == 0) {
        error_setg(errp, "Requested bitmap directory size is zero");
    } else if (h->bitmap_directory_offset > INT64_MAX - max_size) {
        error_setg(errp, "Failed to read bitmap directory: %s",
                   g_strerror(EIO));
    } else {
        return true;
    }
    return false;
}

static bool parse_bitmaps(Qcow2Header *h, const uint8_t *data, uint32_t length,
                          Error **errp)
{
    if (length != 24) {
        error_setg(errp, "bitmaps_ext: Invalid extension length");
        return false;
    }
    if (!bitmaps_are_consistent(h)) {
        h->has_stale_bitmaps = true;
        return true;
    }
    h->nb_bitmaps = ldl_be_p(data);
    h->bitmap_directory_size = ldq_be_p(data + 8);
    h->bitmap_directory_offset = ldq_be_p(data + 16);
    if (!check_bitmaps(h, ldl_be_p(data + 4), errp)) {
        return false;
    }
    h->has_bitmaps = true;
    return true;
}

static void keep_unknown_extension(Qcow2Header *h, uint32_t type,
                                   const uint8_t *data, uint32_t length)
{
    Qcow2UnknownExtension *ext = g_new0(Qcow2UnknownExtension, 1);

    ext->type = type;
    ext->length = length;
    ext->data = g_memdup2(data, length);
    g_ptr_array_add(h->unknown_extensions, ext);
}

static bool parse_extension(Qcow2Header *h, uint32_t type, const uint8_t *data,
                            uint32_t length, Error **errp)
{
    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        return parse_backing_format(h, data, length, errp);
    case QCOW2_EXT_FEATURE_TABLE:
        return true;            /* we know the features that we accept */
    case QCOW2_EXT_DATA_FILE:
        return parse_data_file(h, data, length, errp);
    case QCOW2_EXT_CRYPTO:
        return parse_crypto(h, data, length, errp);
    case QCOW2_EXT_BITMAPS:
        return parse_bitmaps(h, data, length, errp);
    default:
        keep_unknown_extension(h, type, data, length);
        return true;
    }
}

static bool parse_extensions(Qcow2Header *h, const uint8_t *buf, uint32_t end,
                             Error **errp)
{
    uint32_t pos = h->header_length;

    while (pos <= end && end - pos >= 8) {
        uint32_t type = ldl_be_p(buf + pos);
        uint32_t length = ldl_be_p(buf + pos + 4);

        if (type == QCOW2_EXT_END) {
            break;
        }
        pos += 8;
        if (length > end - pos) {
            error_setg(errp, "Header extension too large");
            return false;
        }
        if (!parse_extension(h, type, buf + pos, length, errp)) {
            return false;
        }
        pos += ROUND_UP(length, 8);
    }
    return true;
}

/* ---- Checks of what is left ---- */

static bool check_crypt(const Qcow2Header *h, Error **errp)
{
    if (h->crypt_method > QCOW2_CRYPT_LUKS) {
        error_setg(errp, "Unsupported encryption method %" PRId32,
                   (int32_t)h->crypt_method);
        return false;
    }
    return true;
}

static bool check_compression(const Qcow2Header *h, Error **errp)
{
    bool bit = h->incompatible_features & QCOW2_INCOMPAT_COMPRESSION;

    if (h->compression_type > QCOW2_COMPRESSION_ZSTD) {
        error_setg(errp, "qcow2: unknown compression type: %u",
                   h->compression_type);
        return false;
    }
    if (bit != (h->compression_type != QCOW2_COMPRESSION_ZLIB)) {
        error_setg(errp, "qcow2: Compression type incompatible feature bit "
                   "must %sbe set", bit ? "not " : "");
        return false;
    }
    return true;
}

static bool check_refcounts(const Qcow2Header *h, bool for_check,
                            Error **errp)
{
    uint64_t cluster_size = UINT64_C(1) << h->cluster_bits;

    if (h->refcount_order > 6) {
        error_setg(errp, "Reference count entry width too large; may not "
                   "exceed 64 bits");
        return false;
    }
    if (h->refcount_table_clusters == 0 && !for_check) {
        error_setg(errp, "Image does not contain a reference count table");
        return false;
    }
    if (h->refcount_table_clusters > QCOW2_MAX_REFTABLE_SIZE / cluster_size) {
        error_setg(errp, "Reference count table too large");
        return false;
    }
    if (!qcow2_table_range_ok(h->refcount_table_offset,
                              h->refcount_table_clusters, cluster_size,
                              cluster_size)) {
        error_setg(errp, "Reference count table offset invalid");
        return false;
    }
    return true;
}

static bool check_subclusters(const Qcow2Header *h, Error **errp)
{
    uint32_t size = (1u << h->cluster_bits) / QCOW2_SUBCLUSTERS;

    if ((h->incompatible_features & QCOW2_INCOMPAT_EXTL2) &&
        size < BDRV_SECTOR_SIZE) {
        error_setg(errp, "Unsupported subcluster size: %" PRIu32, size);
        return false;
    }
    return true;
}

/* The L1 table must map the whole disk; it may map more. */
static bool check_l1(const Qcow2Header *h, Error **errp)
{
    bool extl2 = h->incompatible_features & QCOW2_INCOMPAT_EXTL2;
    int coverage_bits = h->cluster_bits + h->cluster_bits - (extl2 ? 4 : 3);
    uint64_t needed = h->size >> coverage_bits;

    if (h->l1_size > QCOW2_MAX_L1_SIZE / sizeof(uint64_t)) {
        error_setg(errp, "Active L1 table too large");
        return false;
    }
    if (!qcow2_table_range_ok(h->l1_table_offset, h->l1_size,
                              sizeof(uint64_t), 1u << h->cluster_bits)) {
        error_setg(errp, "Active L1 table offset invalid");
        return false;
    }
    needed += (h->size & ((UINT64_C(1) << coverage_bits) - 1)) != 0;
    if (needed > INT32_MAX || h->size > INT64_MAX) {
        error_setg(errp, "Image is too big");
        return false;
    }
    if (h->l1_size < needed) {
        error_setg(errp, "L1 table is too small");
        return false;
    }
    return true;
}

static bool check_snapshots(const Qcow2Header *h, Error **errp)
{
    /* Of the shortest possible entries; their lengths vary. */
    const uint64_t entry_size = 40;

    if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        error_setg(errp, "Snapshot table too large");
        return false;
    }
    if (!qcow2_table_range_ok(h->snapshots_offset, h->nb_snapshots,
                              entry_size, 1u << h->cluster_bits)) {
        error_setg(errp, "Snapshot table offset invalid");
        return false;
    }
    return true;
}

static bool read_backing_file(Qcow2Header *h, const uint8_t *buf, Error **errp)
{
    uint32_t room;

    if (h->backing_file_offset == 0) {
        return true;
    }
    room = (1u << h->cluster_bits) - h->backing_file_offset;
    if (h->backing_file_size > MIN(room, QCOW2_MAX_BACKING_NAME)) {
        error_setg(errp, "Backing file name too long");
        return false;
    }
    if (h->backing_file_size && buf[h->backing_file_offset]) {
        h->backing_file = g_strndup((const char *)buf + h->backing_file_offset,
                                    h->backing_file_size);
    }
    return true;
}

/* For a check: what it can find, and repair, is no reason not to open it. */
static bool check_rest(const Qcow2Header *h, bool for_check, Error **errp)
{
    if (h->crypt_method == QCOW2_CRYPT_LUKS && !h->has_crypto) {
        error_setg(errp, "Missing CRYPTO header for crypt method %" PRIu32,
                   h->crypt_method);
        return false;
    }
    return check_subclusters(h, errp) &&
           check_refcounts(h, for_check, errp) &&
           (for_check || check_snapshots(h, errp)) && check_l1(h, errp);
}

/* ---- All of it ---- */

static bool read_first_cluster(Qcow2Header *h, BdrvChild *file,
                               bool for_check, Error **errp)
{
    uint32_t cluster_size = 1u << h->cluster_bits;
    uint32_t end = h->backing_file_offset ? h->backing_file_offset :
                   cluster_size;
    g_autofree uint8_t *buf = g_malloc(cluster_size);

    if (!read_at(file, 0, cluster_size, buf, "qcow2 header", errp)) {
        return false;
    }
    if (h->incompatible_features & ~(uint64_t)QCOW2_INCOMPAT_MASK) {
        refuse_features(h, buf, end, errp);
        return false;
    }
    return check_crypt(h, errp) && check_compression(h, errp) &&
           parse_extensions(h, buf, end, errp) &&
           read_backing_file(h, buf, errp) && check_rest(h, for_check, errp);
}

Qcow2Header *qcow2_header_read(BdrvChild *file, bool for_check, Error **errp)
{
    g_autoptr(Qcow2Header) h = g_new0(Qcow2Header, 1);
    uint8_t buf[QCOW2_HEADER_LENGTH];

    h->unknown_extensions =
        g_ptr_array_new_with_free_func(free_unknown_extension);
    if (!read_at(file, 0, sizeof(buf), buf, "qcow2 header", errp)) {
        return NULL;
    }
    parse_v2_fields(h, buf);
    if (!check_version(h, buf, errp)) {
        return NULL;
    }
    if (h->version >= 3) {
        parse_v3_fields(h, buf);
    }
    if (!check_layout(h, errp) || !read_unknown_fields(h, file, errp) ||
        !read_first_cluster(h, file, for_check, errp)) {
        return NULL;
    }
    return g_steal_pointer(&h);
}
