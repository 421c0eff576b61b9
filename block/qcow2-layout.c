/*
 * How a new qcow2 image is laid out:
 *
 *   header | refcount table | refcount blocks | L1 table | L2 tables |
 *   LUKS header | data
 *
 * The refcount blocks count themselves, so how many there are is found by
 * trying until the number holds; each try can only need more.
 *
 * Creating and measuring share this, so that what is promised is what is made.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-layout.h"

/* L1 and L2 tables; false: the L1 table would be too large. */
static bool count_tables(Qcow2Layout *l)
{
    int l2_bits = l->cluster_bits - (l->extended_l2 ? 4 : 3);
    int64_t coverage = INT64_C(1) << (l->cluster_bits + l2_bits);
    int64_t cluster_size = INT64_C(1) << l->cluster_bits;

    l->l1_entries = l->disk_size / coverage + (l->disk_size % coverage != 0);
    if (l->l1_entries > (int64_t)(QCOW2_MAX_L1_SIZE / sizeof(uint64_t))) {
        return false;
    }
    l->l1_clusters = DIV_ROUND_UP(l->l1_entries * sizeof(uint64_t),
                                  cluster_size);
    l->l2_tables = l->allocated ? l->l1_entries : 0;
    l->data_clusters = l->allocated && !l->external_data ?
                       l->disk_size / cluster_size +
                       (l->disk_size % cluster_size != 0) : 0;
    return true;
}

static void count_refcounts(Qcow2Layout *l, int64_t extra)
{
    int64_t cluster_size = INT64_C(1) << l->cluster_bits;
    int64_t block_entries = INT64_C(1) << (l->cluster_bits + 3 -
                                           l->refcount_order);
    int64_t others = 1 + l->l1_clusters + l->l2_tables + l->data_clusters +
                     extra;
    int64_t blocks = 0, table = 0;

    do {
        l->refcount_blocks = blocks;
        l->reftable_clusters = table;
        blocks = DIV_ROUND_UP(others + blocks + table, block_entries);
        table = DIV_ROUND_UP(blocks * sizeof(uint64_t), cluster_size);
    } while (blocks != l->refcount_blocks || table != l->reftable_clusters);
}

bool qcow2_layout(Qcow2Layout *l, int64_t extra)
{
    int bits = l->cluster_bits;

    if (!count_tables(l)) {
        return false;
    }
    count_refcounts(l, extra);
    l->reftable_offset = INT64_C(1) << bits;
    l->refcount_offset = l->reftable_offset + (l->reftable_clusters << bits);
    l->l1_offset = l->refcount_offset + (l->refcount_blocks << bits);
    l->l2_offset = l->l1_offset + (l->l1_clusters << bits);
    l->extra_offset = l->l2_offset + (l->l2_tables << bits);
    l->data_offset = l->extra_offset + (extra << bits);
    l->end = l->data_offset + (l->data_clusters << bits);
    l->reftable_fits = l->reftable_clusters << bits <= QCOW2_MAX_REFTABLE_SIZE;
    return true;
}
