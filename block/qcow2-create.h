/*
 * Options of "create -f qcow2", parsed and checked.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_CREATE_H
#define BLOCK_QCOW2_CREATE_H

#include "block/qcow2.h"

typedef struct Qcow2CreateOptions {
    int64_t size;                       /* whole sectors */
    int version;                        /* 2, 3 */
    int cluster_bits;
    int refcount_order;
    bool lazy_refcounts;
    bool extended_l2;
    bool data_file_raw;
    int compression_type;
    int preallocation;                  /* PreallocMode */
    char *backing_file, *backing_format;
    char *data_file;
    Qcow2CryptMethod crypt_method;
    json_t *encrypt;                    /* flat, without its prefix */
} Qcow2CreateOptions;

extern const BlockCreateOption qcow2_create_opts[];

/* Take them out of @options (flat).  False with @errp; *o is to be cleared in
 * either case. */
bool qcow2_create_options_take(json_t *options, Qcow2CreateOptions *o,
                               Error **errp);
void qcow2_create_options_clear(Qcow2CreateOptions *o);
/* What depends on several of them. */
bool qcow2_create_options_check(const Qcow2CreateOptions *o, Error **errp);

/* ---- qcow2-create-crypto.c ---- */

/* Can it be encrypted as @o says?  *bytes: of the header that this needs in the
 * image, or 0.  Computes nothing slow. */
bool qcow2_create_crypto_check(const Qcow2CreateOptions *o, int64_t *bytes,
                               Error **errp);
/* If there is to be one, write that header to @offset; @clusters_bytes is its
 * length in whole clusters. */
bool qcow2_create_crypto_header(BlockBackend *blk, const Qcow2CreateOptions *o,
                                int64_t offset, int64_t clusters_bytes,
                                Error **errp);

#endif
