/*
 * Block status: what a range of a node is (data, zeroes, not allocated here),
 * and where its contents come from.
 *
 * A driver answers for a prefix of the range.  It may answer "as my child at
 * this place is" (BDRV_BLOCK_RECURSE without DATA or ZERO: raw and filters), or
 * ask that its child be asked for holes, too (RECURSE with DATA).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

static int status(BlockDriverState *bs, bool want_zero, int64_t offset,
                  int64_t bytes, int64_t *pnum, int64_t *map,
                  BlockDriverState **file);

static BlockDriverState *pass_through_child(BlockDriverState *bs)
{
    return bs->drv->is_filter && bs->file ? bs->file->bs : NULL;
}

/* The driver's answer for an aligned range that covers the wanted one. */
static int driver_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                         int64_t bytes, int64_t *pnum, int64_t *map,
                         BlockDriverState **file)
{
    int64_t align = bs->bl.request_alignment;
    int64_t start = QEMU_ALIGN_DOWN(offset, align);
    int64_t end = QEMU_ALIGN_UP(offset + bytes, align);
    int ret;

    *map = 0;
    *file = NULL;
    if (!bs->drv->block_status) {
        *pnum = bytes;
        *map = offset;
        if (pass_through_child(bs)) {
            *file = pass_through_child(bs);
            return BDRV_BLOCK_RECURSE | BDRV_BLOCK_OFFSET_VALID;
        }
        if (bs->drv->protocol_name) {
            *file = bs;
            return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
        }
        return BDRV_BLOCK_DATA;
    }
    ret = bs->drv->block_status(bs, want_zero, start, end - start, pnum, map,
                                file);
    if (ret < 0) {
        return ret;
    }
    *pnum = MIN(*pnum - (offset - start), bytes);
    if (ret & BDRV_BLOCK_OFFSET_VALID) {
        *map += offset - start;
    }
    return *pnum > 0 ? ret : -EINVAL;
}

/* Look for holes below allocated data. */
static int recurse_for_zeroes(int ret, int64_t *pnum, int64_t map,
                              BlockDriverState *file)
{
    BlockDriverState *below;
    int64_t n, below_map;
    int ret2 = status(file, true, map, *pnum, &n, &below_map, &below);

    if (ret2 < 0) {
        return ret;                     /* only an optimisation */
    }
    if (n == 0 && (ret2 & BDRV_BLOCK_EOF)) {
        return ret | BDRV_BLOCK_ZERO;   /* past the end of the file */
    }
    *pnum = MIN(*pnum, n);
    return ret | (ret2 & BDRV_BLOCK_ZERO);
}

/* What is in no layer of a format that has layers reads as zeroes. */
static bool unallocated_is_zero(BlockDriverState *bs, int64_t offset,
                                int64_t *pnum)
{
    int64_t len;

    if (!bs->backing) {
        return true;
    }
    len = bdrv_getlength(bs->backing->bs);
    if (len < 0) {
        return false;
    }
    if (offset >= len) {
        return true;
    }
    *pnum = MIN(*pnum, len - offset);
    return false;
}

static int status(BlockDriverState *bs, bool want_zero, int64_t offset,
                  int64_t bytes, int64_t *pnum, int64_t *map,
                  BlockDriverState **file)
{
    int64_t total = bdrv_getlength(bs);
    int ret;

    *pnum = 0;
    *map = 0;
    *file = NULL;
    if (total < 0) {
        return total;
    }
    if (offset >= total) {
        return BDRV_BLOCK_EOF;
    }
    bytes = MIN(bytes, total - offset);
    if (bytes == 0) {
        return 0;
    }
    ret = driver_status(bs, want_zero, offset, bytes, pnum, map, file);
    if (ret < 0) {
        *pnum = 0;
        return ret;
    }
    if ((ret & BDRV_BLOCK_RECURSE) &&
        !(ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO))) {
        /* Exactly what the child says. */
        ret = status(*file, want_zero, *map, *pnum, pnum, map, file);
        if (ret >= 0 && *pnum == 0) {
            *pnum = bytes;              /* the child ends early */
            ret = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
        }
        ret &= ~(ret < 0 ? 0 : BDRV_BLOCK_EOF);
    } else if (ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
        ret |= BDRV_BLOCK_ALLOCATED;
    } else if (want_zero && bs->drv->supports_backing &&
               unallocated_is_zero(bs, offset, pnum)) {
        ret |= BDRV_BLOCK_ZERO;
    }
    if (ret < 0) {
        return ret;
    }
    if (want_zero && (ret & BDRV_BLOCK_RECURSE) && (ret & BDRV_BLOCK_DATA) &&
        (ret & BDRV_BLOCK_OFFSET_VALID) && !(ret & BDRV_BLOCK_ZERO)) {
        ret = recurse_for_zeroes(ret, pnum, *map, *file);
    }
    ret &= ~BDRV_BLOCK_RECURSE;
    return offset + *pnum == total ? ret | BDRV_BLOCK_EOF : ret;
}

int bdrv_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      int64_t *pnum, int64_t *map, BlockDriverState **file)
{
    int64_t dummy_map;
    BlockDriverState *dummy_file;

    return status(bs, true, offset, bytes, pnum, map ? map : &dummy_map,
                  file ? file : &dummy_file);
}

int bdrv_block_status_above(BlockDriverState *bs, BlockDriverState *base,
                            int64_t offset, int64_t bytes, int64_t *pnum,
                            int64_t *map, BlockDriverState **file)
{
    int64_t total = bdrv_getlength(bs);
    int64_t dummy_map;
    BlockDriverState *dummy_file;
    BlockDriverState *top = bs;
    int ret = 0;

    map = map ? map : &dummy_map;
    file = file ? file : &dummy_file;
    *pnum = 0;
    if (bs == base) {
        *pnum = bytes;
        return 0;
    }
    for (; bs && bs != base; bs = bdrv_filter_or_cow_bs(bs)) {
        int64_t n = 0;
        bool below_top = bs != top;

        ret = status(bs, true, offset, bytes, &n, map, file);
        if (ret < 0) {
            return ret;
        }
        if (below_top && n == 0) {
            /* A shorter layer: what is above it reads zeroes here. */
            *pnum = bytes;
            ret = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
            break;
        }
        *pnum = n;
        if (ret & BDRV_BLOCK_ALLOCATED || n == 0) {
            break;
        }
        bytes = n;
    }
    ret &= ~BDRV_BLOCK_EOF;
    return offset + *pnum == total ? ret | BDRV_BLOCK_EOF : ret;
}

int bdrv_is_allocated(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      int64_t *pnum)
{
    int64_t map;
    BlockDriverState *file;
    int ret = status(bs, false, offset, bytes, pnum, &map, &file);

    return ret < 0 ? ret : !!(ret & BDRV_BLOCK_ALLOCATED);
}

int bdrv_is_allocated_above(BlockDriverState *top, BlockDriverState *base,
                            bool include_base, int64_t offset, int64_t bytes,
                            int64_t *pnum)
{
    BlockDriverState *bs;
    int64_t n = bytes;

    *pnum = bytes;
    for (bs = top; bs && (include_base || bs != base);
         bs = bs == base ? NULL : bdrv_filter_or_cow_bs(bs)) {
        int ret = bdrv_is_allocated(bs, offset, *pnum, &n);

        if (ret < 0) {
            return ret;
        }
        if (n == 0 && bs != top) {
            return 1;       /* it ends above here: zeroes, of its making */
        }
        *pnum = n;
        if (ret || n == 0) {
            return ret;
        }
    }
    return 0;
}
