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
    char *key_secret;
} Qcow2CreateOptions;

extern const BlockCreateOption qcow2_create_opts[];

/* Take them out of @options (flat).  False with @errp; *o is to be cleared in
 * either case. */
bool qcow2_create_options_take(json_t *options, Qcow2CreateOptions *o,
                               Error **errp);
void qcow2_create_options_clear(Qcow2CreateOptions *o);
/* What depends on several of them. */
bool qcow2_create_options_check(const Qcow2CreateOptions *o, Error **errp);

#endif
