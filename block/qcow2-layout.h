/*
 * How a new qcow2 image is laid out: pure arithmetic.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_LAYOUT_H
#define BLOCK_QCOW2_LAYOUT_H

#include "block/qcow2.h"

typedef struct Qcow2Layout {
    /* What was asked for. */
    int64_t disk_size;              /* whole sectors */
    int cluster_bits;
    int refcount_order;
    bool extended_l2;
    bool allocated;                 /* all clusters are mapped */
    bool external_data;             /* … in a data file … */
    bool raw_data;                  /* … that is what the guest sees */

    /* Clusters of each kind. */
    int64_t reftable_clusters, refcount_blocks, l1_clusters, l2_tables;
    int64_t data_clusters;          /* in the image file */

    /* Where they are, bytes; in this order, without gaps. */
    int64_t reftable_offset, refcount_offset, l1_offset, l2_offset;
    int64_t extra_offset, data_offset, end;
    int64_t l1_entries;
    bool reftable_fits;             /* not too large for an implementation */
} Qcow2Layout;

/*
 * Fill in the rest of @l.  @extra: clusters that are used besides, at the end
 * of the metadata.  False: no such image can be, the L1 table would be too
 * large.
 */
bool qcow2_layout(Qcow2Layout *l, int64_t extra);

#endif
