/*
 * The header of a qcow2 image as it was read: checked, but not yet acted on.
 *
 * Used by what opens, creates and changes images; the rest of the driver sees
 * the state in block/qcow2.h.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_HEADER_H
#define BLOCK_QCOW2_HEADER_H

#include "block/qcow2.h"

/* Fields as in "Header"; version 2 gets the values that version 3 would have
 * for the same image. */
typedef struct Qcow2Header {
    uint32_t version;
    uint64_t backing_file_offset;
    uint32_t backing_file_size;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t crypt_method;
    uint32_t l1_size;
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint32_t refcount_order;
    uint32_t header_length;
    uint8_t compression_type;

    /* header_length beyond QCOW2_HEADER_LENGTH: that many bytes, kept. */
    uint8_t *unknown_fields;

    /* "Header extensions"; NULL or false: there is none. */
    char *backing_file;
    char *backing_format;
    char *data_file;
    bool has_crypto;
    uint64_t crypto_offset, crypto_length;
    bool has_bitmaps;
    bool has_stale_bitmaps;             /* there are, but not to be used */
    uint32_t nb_bitmaps;
    uint64_t bitmap_directory_offset, bitmap_directory_size;
    GPtrArray *unknown_extensions;      /* Qcow2UnknownExtension */
} Qcow2Header;

/*
 * Read and check the header of the image in @file.  Sizes and offsets are
 * within the format's limits and the implementation's, aligned, and do not
 * overflow; whether the tables are inside of the file is not looked at.
 * @for_check: but what says where the snapshot table is may be anything, and
 * there may be no refcount table.  NULL with @errp.  Control thread; blocks.
 */
Qcow2Header *qcow2_header_read(BdrvChild *file, bool for_check, Error **errp);
void qcow2_header_free(Qcow2Header *h);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Qcow2Header, qcow2_header_free)

/*
 * The first cluster of an image with header @h into @buf, which has room for
 * all of it.  Where the extensions and the backing file's name are is decided
 * here: backing_file_offset and _size of @h are not used.  @atomic: in one
 * sector, if that is possible without names of features.  0, or -ENOSPC: it
 * does not fit.
 */
int qcow2_header_build(const Qcow2Header *h, uint8_t *buf, bool atomic);

/* Not corrupt, by its incompatible features?  (What is dirty is repaired.) */
bool qcow2_check_writable(uint64_t incompatible_features, Error **errp);

/* A table of @entries of @entry_size bytes at @offset: aligned to clusters,
 * and its end representable? */
bool qcow2_table_range_ok(uint64_t offset, uint64_t entries,
                          uint64_t entry_size, uint64_t cluster_size);

#endif
