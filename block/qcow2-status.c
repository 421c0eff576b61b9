/*
 * qcow2: block status, for map, convert, compare and jobs.
 *
 * An answer is one extent, or several of the same kind in a row: where L2
 * entries change from one extent to the next without a difference that the
 * caller can see, or where tables have to be loaded in between.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2.h"
#include "qemu/atomic.h"

typedef struct Status {
    int flags;
    int64_t map;                    /* with OFFSET_VALID */
} Status;

/*
 * If the file is asked for holes, that may cut the answer short after a few
 * bytes, and what is behind them is looked up again.  So it is about a few
 * clusters at first, and about twice as many for as long as the next question
 * begins where the last answer ended: what is looked up in vain is never much
 * more than what was of use.  Threads that ask at the same time may get less.
 */
#define MIN_RECURSE_CLUSTERS 64
#define MAX_RECURSE_CLUSTERS 32768

/*
 * Clusters of an image that was preallocated hold nothing, and its file has
 * holes there: only then is it worth asking the file.  A little is missing in
 * most files.  Of a raw data file nobody else knows where zeroes were written.
 */
static bool file_may_have_holes(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int known = qcow2_file_is_disk(s) ? 1 : qatomic_read(&s->data_file_sparse);

    if (!known) {
        int64_t length = bdrv_getlength(s->data_file->bs);
        int64_t allocated = bdrv_get_allocated_file_size(s->data_file->bs);

        known = length >= 0 && allocated >= 0 &&
                allocated < length - length / 64 ? 1 : -1;
        qatomic_set(&s->data_file_sparse, known);
    }
    return known > 0;
}

static int flags_of_type(BlockDriverState *bs, Qcow2ExtentType type,
                         bool want_zero)
{
    BDRVQcow2State *s = bs->opaque;
    int where = s->crypt_method == QCOW2_CRYPT_NONE ? BDRV_BLOCK_OFFSET_VALID
                                                    : 0;

    switch (type) {
    case QCOW2_EXTENT_ZERO_PLAIN:
        return BDRV_BLOCK_ZERO;
    case QCOW2_EXTENT_ZERO_ALLOC:
        return BDRV_BLOCK_ZERO | where;
    case QCOW2_EXTENT_UNALLOCATED_ALLOC:
        return where;
    case QCOW2_EXTENT_NORMAL:
        if (where && want_zero && file_may_have_holes(bs)) {
            where |= BDRV_BLOCK_RECURSE;
        }
        return BDRV_BLOCK_DATA | where;
    case QCOW2_EXTENT_COMPRESSED:
        return BDRV_BLOCK_DATA | BDRV_BLOCK_COMPRESSED;
    default:
        return 0;
    }
}

static Status status_of(BlockDriverState *bs, const Qcow2Extent *e,
                        bool want_zero)
{
    Status st = { .flags = flags_of_type(bs, e->type, want_zero) };

    if (st.flags & BDRV_BLOCK_OFFSET_VALID) {
        st.map = e->host_offset;
    }
    return st;
}

/* Does @b, which begins @bytes after @a, go on as @a does? */
static bool continues(const Status *a, int64_t bytes, const Status *b)
{
    return a->flags == b->flags &&
           (!(a->flags & BDRV_BLOCK_OFFSET_VALID) || b->map == a->map + bytes);
}

/* Bytes to look up for an answer from @offset on that the file is asked about,
 * too. */
static int64_t recurse_bytes(BDRVQcow2State *s, int64_t offset)
{
    bool used_up = qatomic_read(&s->recursed_to) == offset;
    uint32_t clusters = used_up ? qatomic_read(&s->recurse_clusters) * 2 : 0;

    clusters = MIN(MAX(clusters, MIN_RECURSE_CLUSTERS), MAX_RECURSE_CLUSTERS);
    qatomic_set(&s->recurse_clusters, clusters);
    return clusters * s->cluster_size;
}

int qcow2_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                       int64_t bytes, int64_t *pnum, int64_t *map,
                       BlockDriverState **file)
{
    BDRVQcow2State *s = bs->opaque;
    bool recurses = want_zero && s->data_file && file_may_have_holes(bs);
    int64_t max = recurses ? MIN(bytes, recurse_bytes(s, offset)) : bytes;
    Status first = { 0 };
    int64_t done = 0;

    while (done < max) {
        Qcow2Extent e;
        Status st;
        uintptr_t pin;
        int ret = qcow2_map(bs, offset + done, max - done, &e, &pin);

        if (ret < 0) {
            if (done) {
                break;              /* it is for who asks about that */
            }
            return ret;
        }
        qcow2_unpin(s, pin);
        st = status_of(bs, &e, want_zero);
        if (!done) {
            first = st;
            max = st.flags & BDRV_BLOCK_RECURSE ? max : bytes;
        } else if (!continues(&first, done, &st)) {
            break;
        }
        done += e.bytes;
    }
    if (recurses) {
        qatomic_set(&s->recursed_to, offset + done);
    }
    *pnum = done;
    if (first.flags & BDRV_BLOCK_OFFSET_VALID) {
        *map = first.map;
        *file = s->data_file->bs;
    }
    return first.flags;
}
