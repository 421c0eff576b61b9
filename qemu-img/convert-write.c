/*
 * The writing of qemu-img convert: what a thread does with a piece that it has
 * read.
 *
 * Three steps, because of who may have to wait for its turn.  Preparing finds
 * out which units are zeroes and compresses the others, if that is wanted;
 * threads do it at once.  Placing fixes where a piece without zeroes will lie,
 * so that its data can be written in any order; not every piece, nor every
 * target, can be placed.  Writing puts what there is where it belongs; what is
 * compressed is packed in the order of these calls.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "convert.h"
#include "block/block-driver.h"
#include "qemu/zero.h"

/* ---- Preparing ---- */

/* Compress the unit at @pos in place, zeroes appended at the end of the disk:
 * what comes out is smaller.  What does not shrink stays. */
static int compress_unit(const ConvertJob *job, ConvertPiece *p, int64_t pos)
{
    BlockDriverState *bs = blk_bs(job->target);
    int64_t unit = job->compress_unit;
    int64_t n = MIN(unit, p->bytes - pos);
    uint8_t *data = p->buf + pos;
    ssize_t size;

    if (job->sparse_size && buffer_is_zero(data, n)) {
        p->packed[pos / unit] = CONVERT_ZERO;
        return 0;
    }
    memset(data + n, 0, unit - n);
    size = bs->drv->compress(bs, p->scratch, data);
    if (size > 0) {
        memcpy(data, p->scratch, size);
    }
    p->packed[pos / unit] = size > 0 ? size : CONVERT_AS_IT_IS;
    return size == -ENOSPC ? 0 : MIN(size, 0);
}

static bool compresses_itself(const ConvertJob *job)
{
    return job->compress_unit && blk_bs(job->target)->drv->compress;
}

/*
 * How far from @pos what the piece holds is all zeroes, or all not (*@zero says
 * which), in grains that are aligned in the target.
 */
static int64_t run_length(const ConvertJob *job, const ConvertPiece *p,
                          int64_t start, bool *zero)
{
    int64_t grain = convert_grain(job);
    int64_t pos = start, n;

    *zero = false;
    if (!job->sparse_size) {
        return p->bytes - start;
    }
    for (; pos < p->bytes; pos += n) {
        bool is_zero;

        n = MIN(grain - (p->offset + pos) % grain, p->bytes - pos);
        is_zero = buffer_is_zero(p->buf + pos, n);
        if (pos == start) {
            *zero = is_zero;
        } else if (is_zero != *zero) {
            break;
        }
    }
    return pos - start;
}

int convert_prepare(const ConvertJob *job, ConvertPiece *p)
{
    int ret = 0;
    bool zero;

    p->dense = !job->compress_unit &&
               run_length(job, p, 0, &zero) == p->bytes && !zero;
    if (compresses_itself(job)) {
        for (int64_t pos = 0; ret == 0 && pos < p->bytes;
             pos += job->compress_unit) {
            ret = compress_unit(job, p, pos);
        }
    }
    return ret;
}

/* ---- Writing ---- */

/* Not for O_DIRECT: to file systems, writes that fill holes are dearer than
 * those that follow each other, by more than threads save. */
bool convert_place(const ConvertJob *job, const ConvertPiece *p)
{
    BlockDriverState *bs = blk_bs(job->target);

    return p->dense && bs->drv->place && !(bs->open_flags & BDRV_O_NOCACHE) &&
           bs->drv->place(bs, p->offset, p->bytes) == 0;
}

int convert_write_zeroes(const ConvertJob *job, int64_t offset, int64_t bytes)
{
    return job->target_is_zero ? 0 :
           blk_pwrite_zeroes(job->target, offset, bytes, BDRV_REQ_MAY_UNMAP);
}

static int write_unit(const ConvertJob *job, const ConvertPiece *p,
                      int64_t pos, int64_t n)
{
    int packed = p->packed[pos / job->compress_unit];
    QEMUIOVector qiov;

    if (packed == CONVERT_ZERO) {
        return convert_write_zeroes(job, p->offset + pos, n);
    }
    if (packed == CONVERT_AS_IT_IS) {
        return blk_pwrite(job->target, p->offset + pos, n, p->buf + pos, 0);
    }
    qemu_iovec_init_buf(&qiov, p->buf + pos, packed);
    return blk_pwritev(job->target, p->offset + pos, n, &qiov, 0,
                       BDRV_REQ_WRITE_COMPRESSED | BDRV_REQ_COMPRESSED_DATA);
}

static int write_units(const ConvertJob *job, const ConvertPiece *p)
{
    int64_t unit = job->compress_unit;
    int ret = 0;

    for (int64_t pos = 0; ret == 0 && pos < p->bytes; pos += unit) {
        ret = write_unit(job, p, pos, MIN(unit, p->bytes - pos));
    }
    return ret;
}

/* A format that compresses, but only on the way. */
static int write_compressed(const ConvertJob *job, int64_t offset,
                            const uint8_t *buf, int64_t bytes)
{
    int64_t pos, n;
    int ret = 0;

    for (pos = 0; ret >= 0 && pos < bytes; pos += n) {
        n = MIN(job->compress_unit, bytes - pos);
        ret = blk_pwrite(job->target, offset + pos, n, buf + pos,
                         BDRV_REQ_WRITE_COMPRESSED);
    }
    return ret;
}

int convert_write(const ConvertJob *job, const ConvertPiece *p)
{
    int64_t n;
    int ret = 0;

    if (compresses_itself(job)) {
        return write_units(job, p);
    }
    if (p->dense) {
        return blk_pwrite(job->target, p->offset, p->bytes, p->buf, 0);
    }
    for (int64_t pos = 0; ret >= 0 && pos < p->bytes; pos += n) {
        int64_t offset = p->offset + pos;
        bool zero;

        n = run_length(job, p, pos, &zero);
        ret = zero ? convert_write_zeroes(job, offset, n) :
              job->compress_unit ?
              write_compressed(job, offset, p->buf + pos, n) :
              blk_pwrite(job->target, offset, n, p->buf + pos, 0);
    }
    return ret;
}

/* ---- Buffers ---- */

int64_t convert_grain(const ConvertJob *job)
{
    int64_t grain = MAX(job->sparse_size, BDRV_SECTOR_SIZE);

    grain = MAX(grain, blk_get_request_alignment(job->target));
    return MAX(grain, job->compress_unit);
}

bool convert_piece_init(const ConvertJob *job, ConvertPiece *p, int64_t size)
{
    *p = (ConvertPiece){ .buf = blk_try_blockalign(job->target, size) };
    if (compresses_itself(job)) {
        p->scratch = g_try_malloc(job->compress_unit);
        p->packed = g_try_new(int, size / job->compress_unit);
    }
    return p->buf && (!compresses_itself(job) || (p->scratch && p->packed));
}

void convert_piece_destroy(ConvertPiece *p)
{
    qemu_vfree(p->buf);
    g_free(p->scratch);
    g_free(p->packed);
}
