/*
 * Changing existing qcow2 images: entries of the driver's table, and what they
 * share.  Control thread, drained; all block.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_AMEND_H
#define BLOCK_QCOW2_AMEND_H

#include "block/qcow2.h"

extern const BlockCreateOption qcow2_amend_opts[];

/* See BlockDriver in block/block-driver.h. */
bool qcow2_amend(BlockDriverState *bs, json_t *options, bool force,
                 BdrvProgressFunc *progress, void *opaque, Error **errp);
bool qcow2_change_backing_file(BlockDriverState *bs, const char *file,
                               const char *format, Error **errp);
bool qcow2_make_empty(BlockDriverState *bs, Error **errp);

/* Version 2 has no zero clusters: turn those of the active L1 table into what
 * reads as zeroes without.  0 or -errno. */
int qcow2_expand_zero_clusters(BlockDriverState *bs) EXCLUDES(driver_class);

/* Refcounts of 1 << @order bits: false with @errp, and all is as it was, if one
 * does not fit.  Control thread, drained; blocks. */
bool qcow2_change_refcount_order(BlockDriverState *bs, int order, Error **errp);

#endif
