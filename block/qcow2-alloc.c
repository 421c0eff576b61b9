/*
 * qcow2: allocation of host clusters.
 *
 * First fit.  The search *claims* as it goes: a run of free clusters that ends
 * with its refcount block is claimed before the next block is loaded, because
 * that may drop the lock; if the run cannot go on there, the claim is given
 * back.  So two searches never get the same cluster, and none has to look
 * twice.
 *
 * Where to begin: no cluster below free_cluster_index is free; runs of several
 * are not looked for below free_run_index, which leaves behind the holes that
 * were too small once.  Single clusters fill these.
 *
 * What was claimed must not be metadata.  That its refcount was 0 should be
 * enough, but an image may lie.
 *
 * Compressed data is packed: free_byte_offset is where the last of it ended,
 * and what follows in that cluster is added to its refcount, as long as that
 * has room.  Nothing is added to a cluster that is being freed: who begins to
 * free it, and who sees its refcount become 0, resets free_byte_offset.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"

/* ---- Runs ---- */

/* Clusters that the caller's search has made its own. */
typedef struct Claim {
    uint64_t first, n;
} Claim;

/* What cannot be given back is a leak, no more. */
static void REQUIRES(driver_class)
claim_release(BlockDriverState *bs, Claim *claim)
{
    BDRVQcow2State *s = bs->opaque;

    if (claim->n && !qatomic_read(&s->corrupt)) {
        (void)qcow2_update_refcount(bs, claim->first << s->cluster_bits,
                                    claim->n << s->cluster_bits, -1);
    }
    claim->n = 0;
}

/* The next cluster of [c, end) whose refcount is 0 (or not), end if none. */
static uint64_t REQUIRES(driver_class)
find_in_block(const BDRVQcow2State *s, Qcow2Table *t, uint64_t c, uint64_t end,
              bool is_free)
{
    while (c < end && (qcow2_refblock_read(s, t, c) == 0) != is_free) {
        c++;
    }
    return c;
}

/*
 * Go on in block @t from *@c until the run is complete or the block ends.
 * False: the run cannot go on at *c, give it back first.
 */
static bool REQUIRES(driver_class)
claim_in_block(BDRVQcow2State *s, Qcow2Table *t, uint64_t *c, uint64_t want,
               Claim *claim)
{
    uint64_t end = qcow2_refblock_end(s, *c);

    while (*c < end) {
        uint64_t start = find_in_block(s, t, *c, end, true);
        uint64_t stop = find_in_block(s, t, start,
                                      MIN(end, start + want - claim->n), false);

        if (claim->n && start != *c) {
            return false;
        }
        if (stop == end || stop - start == want - claim->n) {
            if (stop > start) {
                qcow2_refblock_fill(s, t, start, stop - start, 1);
                claim->first = claim->n ? claim->first : start;
                claim->n += stop - start;
            }
            *c = stop;
            return true;
        }
        *c = stop;
    }
    return true;
}

/* Claim @want clusters in a row, the first such at @from or behind it. */
static int REQUIRES(driver_class)
claim_run(BlockDriverState *bs, uint64_t from, uint64_t want, Claim *claim)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t c = from;

    *claim = (Claim){ 0 };
    while (claim->n < want) {
        Qcow2Table *t;
        int ret;

        ret = c >= qcow2_max_clusters(s) ? -EFBIG :
              qcow2_refblock_get(bs, c, &t);
        if (ret == 0 && !t) {
            ret = qcow2_refblock_make(bs, c, want - claim->n, want);
        } else if (ret == 0 &&
                   !claim_in_block(s, t, &c, want, claim)) {
            claim_release(bs, claim);
        }
        if (ret < 0) {
            claim_release(bs, claim);
            return ret;
        }
    }
    return 0;
}

/* Metadata whose refcount was 0?  Then it is not to be touched any more. */
static int REQUIRES(driver_class)
check_claim(BlockDriverState *bs, const Claim *claim)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset = claim->first << s->cluster_bits;
    int64_t bytes = claim->n << s->cluster_bits;

    if (claim->first > 0 &&
        !qcow2_metadata_overlap(s, s->overlap_check, offset, bytes)) {
        return 0;
    }
    qcow2_signal_corruption_locked(bs, true, offset, bytes,
        "Preventing invalid allocation of %s at offset %#" PRIx64,
        "clusters that hold metadata", (uint64_t)offset);
    return -EIO;
}

/* Before anything: refcounts on the disk may be behind from now on. */
static int REQUIRES(driver_class) prepare(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    if (qatomic_read(&s->corrupt)) {
        return -EIO;
    }
    /* What it cannot free now, it will be asked to free again. */
    (void)qcow2_process_frees(bs);
    if (s->use_lazy_refcounts &&
        !(s->incompatible_features & QCOW2_INCOMPAT_DIRTY)) {
        return qcow2_mark_dirty(bs);
    }
    return 0;
}

/* What lies behind all that was ever in the file or allocated reads as zeroes
 * as soon as the file is so long. */
bool qcow2_note_used(BlockDriverState *bs, uint64_t first, uint64_t n)
{
    BDRVQcow2State *s = bs->opaque;
    bool fresh;

    if (s->high_cluster == 0) {
        /* A crash may have left data behind what refcounts know of. */
        int64_t length = bdrv_getlength(bs->file->bs);

        s->high_cluster = length < 0 ? INT64_MAX :
                          DIV_ROUND_UP(length, s->cluster_size);
    }
    fresh = first >= s->high_cluster;
    s->high_cluster = MAX(s->high_cluster, first + n);
    return fresh;
}

static int REQUIRES(driver_class)
search(BlockDriverState *bs, uint64_t want, Claim *claim)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t *hint = want > 1 ? &s->free_run_index : &s->free_cluster_index;
    int64_t from = MAX(*hint, s->free_cluster_index);
    uint64_t before = s->freed_count;
    int ret = claim_run(bs, from, want, claim);

    /* Unless something below may have become free meanwhile. */
    if (ret == 0 && s->freed_count == before) {
        *hint = claim->first + claim->n;
    }
    return ret;
}

int64_t qcow2_alloc_data(BlockDriverState *bs, int64_t bytes, bool *fresh)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t want = DIV_ROUND_UP(bytes, s->cluster_size);
    Claim claim;
    int ret = prepare(bs);

    if (ret == 0) {
        ret = search(bs, want, &claim);
    }
    if (ret == -EFBIG && qcow2_frees_pending(s)) {
        ret = qcow2_flush_metadata(bs);
        ret = ret < 0 ? ret : qcow2_process_frees(bs);
        ret = ret < 0 ? ret : search(bs, want, &claim);
    }
    if (ret == 0) {
        ret = check_claim(bs, &claim);
    }
    if (ret < 0) {
        return ret;
    }
    *fresh = qcow2_note_used(bs, claim.first, claim.n);
    return claim.first << s->cluster_bits;
}

int64_t qcow2_alloc_clusters(BlockDriverState *bs, int64_t bytes)
{
    bool fresh;

    return qcow2_alloc_data(bs, bytes, &fresh);
}

int64_t qcow2_alloc_clusters_at(BlockDriverState *bs, int64_t offset,
                                int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t want = DIV_ROUND_UP(bytes, s->cluster_size);
    Claim claim = { .first = offset >> s->cluster_bits };
    int ret = prepare(bs);

    while (ret == 0 && claim.n < want &&
           claim.first + claim.n < qcow2_max_clusters(s)) {
        uint64_t c = claim.first + claim.n;
        Qcow2Table *t;

        ret = qcow2_refblock_get(bs, c, &t);
        if (ret == 0 && !t) {
            ret = qcow2_refblock_make(bs, c, want - claim.n, want - claim.n);
        } else if (ret == 0) {
            uint64_t end = MIN(qcow2_refblock_end(s, c),
                               claim.first + want);
            uint64_t stop = find_in_block(s, t, c, end, false);

            if (stop > c) {
                qcow2_refblock_fill(s, t, c, stop - c, 1);
                claim.n += stop - c;
            }
            if (stop < end) {
                break;
            }
        }
    }
    if (ret == 0 && claim.n) {
        ret = check_claim(bs, &claim);
    }
    if (ret < 0) {
        claim_release(bs, &claim);
        return ret;
    }
    if (claim.n) {
        qcow2_note_used(bs, claim.first, claim.n);
    }
    return claim.n << s->cluster_bits;
}

/* ---- Compressed data ---- */

static int64_t compressed_offset_end(const BDRVQcow2State *s)
{
    return (int64_t)s->cluster_offset_mask + 1;
}

/*
 * One more reference to the cluster that was begun, and it is ours to fill: *at
 * is where.  0 if there is no such cluster any more, or it is full.
 */
static int REQUIRES(driver_class)
take_begun(BlockDriverState *bs, int64_t *at)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t begun;
    uint64_t cluster, refcount = 0;
    Qcow2Table *t;
    int ret;

    do {
        begun = s->free_byte_offset;
        *at = 0;
        if (!(begun & (s->cluster_size - 1))) {
            return 0;
        }
        cluster = begun >> s->cluster_bits;
        ret = qcow2_refblock_get(bs, cluster, &t);
        if (ret < 0) {
            return ret;
        }
    } while (s->free_byte_offset != begun);
    s->free_byte_offset = 0;
    if (t) {
        refcount = qcow2_refblock_read(s, t, cluster);
    }
    if (refcount > 0 && refcount < s->refcount_max) {
        qcow2_refblock_fill(s, t, cluster, 1, refcount + 1);
        *at = begun;
    }
    return 0;
}

/* Without regard to what was begun.  Sets where the next one can go. */
static int64_t REQUIRES(driver_class)
begin_cluster(BlockDriverState *bs, int bytes)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset = qcow2_alloc_clusters(bs, bytes);

    if (offset < 0) {
        return offset;
    }
    if (offset + bytes > compressed_offset_end(s)) {
        qcow2_free_later(bs, offset, bytes, QCOW2_DISCARD_NEVER);
        return -EFBIG;
    }
    s->free_byte_offset = offset + bytes;
    return offset;
}

int64_t qcow2_alloc_bytes(BlockDriverState *bs, int bytes)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t at, end;
    int ret = prepare(bs);

    if (ret == 0) {
        ret = take_begun(bs, &at);
    }
    if (ret < 0) {
        return ret;
    }
    if (!at) {
        return begin_cluster(bs, bytes);
    }
    end = QEMU_ALIGN_UP(at, s->cluster_size);
    if (at + bytes > end) {
        int64_t got = at + bytes > compressed_offset_end(s) ? 0 :
                      qcow2_alloc_clusters_at(bs, end, at + bytes - end);

        if (got <= 0) {
            qcow2_free_later(bs, at, 1, QCOW2_DISCARD_NEVER);
            return got < 0 ? got : begin_cluster(bs, bytes);
        }
    }
    s->free_byte_offset = at + bytes;
    return at;
}
