/*
 * Limits of a node: the strictest of its children's, then what its driver says.
 *
 * Not the alignment of a format's file.  Where the data of a block of the disk
 * lies in the file is the format's business: it may be smaller than a block of
 * the file, and the disk need not end where one does.  What it writes there
 * unaligned is read, modified and written by the file, which is why that tracks
 * the format's requests (tracked-request.c).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

static void merge(BlockLimits *bl, const BlockLimits *child)
{
    bl->cut_alignment = MAX(bl->cut_alignment, child->cut_alignment);
    bl->max_transfer = MIN_NON_ZERO(bl->max_transfer, child->max_transfer);
    bl->mapping_unit = MAX(bl->mapping_unit, child->mapping_unit);
    bl->min_mem_alignment = MAX(bl->min_mem_alignment,
                                child->min_mem_alignment);
    bl->opt_mem_alignment = MAX(bl->opt_mem_alignment,
                                child->opt_mem_alignment);
    bl->max_iov = MIN_NON_ZERO(bl->max_iov, child->max_iov);
}

static bool aligns_as_child(const BlockDriverState *bs)
{
    return bs->drv->is_filter || bs->drv->sends_aligned;
}

/* A filter also shares what its child says of zeroes and discards. */
static void inherit(BlockLimits *bl, const BlockLimits *child)
{
    bl->max_pdiscard = child->max_pdiscard;
    bl->pdiscard_alignment = child->pdiscard_alignment;
    bl->max_pwrite_zeroes = child->max_pwrite_zeroes;
    bl->pwrite_zeroes_alignment = child->pwrite_zeroes_alignment;
    bl->logical_block_size = child->logical_block_size;
    bl->physical_block_size = child->physical_block_size;
}

static int64_t round_limit(const BlockLimits *bl, int64_t max)
{
    int64_t align = bl->cut_alignment;

    return max ? MAX(QEMU_ALIGN_DOWN(max, align), align) : 0;
}

void bdrv_refresh_limits(BlockDriverState *bs)
{
    BdrvChild *c;

    bs->bl = (BlockLimits){ .request_alignment = 1, .cut_alignment = 1 };
    list_for_each(c, &bs->children, child_node) {
        if (c->role & (BDRV_CHILD_DATA | BDRV_CHILD_FILTERED |
                       BDRV_CHILD_COW)) {
            merge(&bs->bl, &c->bs->bl);
        }
    }
    if (bs->file && aligns_as_child(bs)) {
        bs->bl.request_alignment = bs->file->bs->bl.request_alignment;
    }
    if (bs->file && bs->drv->is_filter) {
        inherit(&bs->bl, &bs->file->bs->bl);
    }
    if (bs->drv->refresh_limits) {
        bs->drv->refresh_limits(bs);
    }
    bs->bl.cut_alignment = MAX(bs->bl.cut_alignment,
                               bs->bl.request_alignment);
    /* Pieces of the largest size are to be whole blocks. */
    bs->bl.max_transfer = round_limit(&bs->bl, bs->bl.max_transfer);
    bs->bl.max_iov = MIN_NON_ZERO(bs->bl.max_iov, IOV_MAX);
    bs->bl.min_mem_alignment = MAX(bs->bl.min_mem_alignment, 1);
    bs->bl.opt_mem_alignment = MAX(bs->bl.opt_mem_alignment, 4096);
    bdrv_update_alignment_tracking(bs);
    list_for_each(c, &bs->children, child_node) {
        bdrv_update_alignment_tracking(c->bs);
    }
}
