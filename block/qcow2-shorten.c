/*
 * qcow2: where the file ends.
 *
 * Shortening cuts the file behind the last cluster that is in use.  What keeps
 * it long may be refcount blocks that count nothing, or nothing but themselves;
 * those at the end of the refcount table go first.  Their entries in the table
 * become 0, durably.  Then a block that counted itself is not counted any more,
 * and one that another counts is freed; after which that one may count nothing,
 * and so on.
 *
 * (Blocks for what is behind the end of the file would do no harm here, but
 * QEMU loses them, or worse, when it preallocates there.)
 *
 * Completing makes the last cluster whole, where its end was never written.
 *
 * Nobody writes meanwhile.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"
#include "qemu/error.h"

/* ---- Refcount blocks that count nothing ---- */

/* Preallocated images want two or three; one that lies would have us sync for
 * each block of a long chain. */
#define MAX_ROUNDS 4

/* Blocks that count themselves, and whose entries are 0 now. */
typedef struct DroppedBlock {
    uint64_t index;
    int64_t offset;
} DroppedBlock;

/* Does block @i count clusters that are not its own, and its own? */
static int REQUIRES(driver_class)
look_at_block(BlockDriverState *bs, uint64_t i, bool *others, bool *itself)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t first = i << s->refcount_block_bits;
    uint64_t end = qcow2_refblock_end(s, first);
    uint64_t own = (s->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK) >>
                   s->cluster_bits;
    Qcow2Table *t;
    int ret = qcow2_refblock_get(bs, first, &t);

    *others = *itself = false;
    for (uint64_t c = first; ret == 0 && c < end && !*others; c++) {
        uint64_t refcount = qcow2_refblock_read(s, t, c);

        if (refcount == 1 && c == own) {
            *itself = true;
        } else {
            *others = refcount;
        }
    }
    return ret;
}

/* From the end of the table, as far as they count nothing.  How many, or
 * -errno; those that count themselves are added to @own. */
static int REQUIRES(driver_class)
drop_blocks(BlockDriverState *bs, GArray *own)
{
    BDRVQcow2State *s = bs->opaque;
    int n = 0;

    for (uint64_t i = s->reftable_size; i-- > 0; ) {
        DroppedBlock d = { i, s->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK };
        bool others, itself;
        int ret = d.offset ? look_at_block(bs, i, &others, &itself) : 0;

        if (ret < 0) {
            return ret;
        }
        if (!d.offset) {
            continue;
        }
        if (others) {
            break;
        }
        qcow2_reftable_set(s, i, 0);
        if (itself) {
            g_array_append_val(own, d);
        } else {
            qcow2_free_later(bs, d.offset, s->cluster_size,
                             QCOW2_DISCARD_OTHER);
        }
        n++;
    }
    return n;
}

/* An image that lies has a block in two places. */
static bool REQUIRES(driver_class)
are_referred_to(const BDRVQcow2State *s, const GArray *own)
{
    g_autoptr(GHashTable) offsets = g_hash_table_new(g_int64_hash,
                                                     g_int64_equal);
    bool found = false;

    for (guint i = 0; i < own->len; i++) {
        g_hash_table_add(offsets,
                         &g_array_index(own, DroppedBlock, i).offset);
    }
    for (uint64_t i = 0; i < s->reftable_size && own->len && !found; i++) {
        int64_t offset = s->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;

        found = offset && g_hash_table_contains(offsets, &offset);
    }
    return found;
}

/* Their clusters are free now. */
static void REQUIRES(driver_class)
forget_blocks(BDRVQcow2State *s, const GArray *own)
{
    while (s->flush_running) {
        driver_wait(&s->cond, &s->lock);
    }
    for (guint i = 0; i < own->len; i++) {
        int64_t offset = g_array_index(own, DroppedBlock, i).offset;

        qcow2_cache_forget(s->refcount_cache, offset, s->cluster_size);
        qcow2_metadata_remove(s, offset, s->cluster_size,
                              QCOW2_OL_REFCOUNT_BLOCK);
    }
}

static void REQUIRES(driver_class)
put_back_blocks(BDRVQcow2State *s, const GArray *own)
{
    for (guint i = 0; i < own->len; i++) {
        DroppedBlock d = g_array_index(own, DroppedBlock, i);

        qcow2_reftable_set(s, d.index, d.offset);
    }
    qatomic_set(&s->metadata_dirty, true);
}

/* How many blocks were dropped, or -errno. */
static int REQUIRES(driver_class) drop_blocks_durably(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    GArray *own = g_array_new(false, false, sizeof(DroppedBlock));
    int n = drop_blocks(bs, own);
    int ret = n;

    if (n > 0) {
        ret = are_referred_to(s, own) ? -EIO : qcow2_settle(bs);
    }
    if (ret < 0) {
        put_back_blocks(s, own);
    } else {
        forget_blocks(s, own);
    }
    g_array_free(own, true);
    return ret < 0 ? ret : n;
}

/* ---- Shortening ---- */

/* Of the clusters below @last, the end of those that a refcount block can
 * count: a file may be far longer than that. */
static int64_t REQUIRES(driver_class)
skip_uncounted(const BDRVQcow2State *s, int64_t last)
{
    int64_t block = (last - 1) >> s->refcount_block_bits;

    block = MIN(block, (int64_t)s->reftable_size - 1);
    while (block >= 0 && !(s->reftable[block] & QCOW2_REFTABLE_OFFSET_MASK)) {
        block--;
    }
    return MIN(last, (block + 1) << s->refcount_block_bits);
}

/* Of the first *last clusters, the end of those that are in use. */
static int REQUIRES(driver_class)
find_last(BlockDriverState *bs, int64_t *last)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t refcount = 0;
    int ret = 0;

    while (ret == 0 && (*last = skip_uncounted(s, *last)) > 0) {
        ret = qcow2_get_refcount(bs, *last - 1, &refcount);
        if (ret == 0 && refcount) {
            break;
        }
        *last -= ret == 0;
    }
    return ret;
}

int qcow2_shorten_file(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t length, last;
    int ret = 1;
    bool ok;

    for (int i = 0; i < MAX_ROUNDS && ret > 0; i++) {
        ret = drop_blocks_durably(bs);
    }
    length = bdrv_getlength(bs->file->bs);
    last = DIV_ROUND_UP(MAX(length, 0), s->cluster_size);
    if (ret >= 0) {
        ret = length < 0 ? length : find_last(bs, &last);
    }
    if (ret < 0 || last << s->cluster_bits >= length) {
        return ret;
    }
    s->data_end = MIN(s->data_end, last << s->cluster_bits);
    driver_unlock(&s->lock);
    ok = bdrv_truncate(bs->file, last << s->cluster_bits, false,
                       PREALLOC_MODE_OFF, 0, NULL);
    driver_lock(&s->lock);
    return ok ? 0 : -EIO;
}

/* ---- Completing ---- */

/* Nobody writes just now, so nothing is cut off. */
void qcow2_complete_file(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t length = s->data_end ? bdrv_getlength(bs->file->bs) : 0;
    int64_t end = s->data_end;
    bool ok = length >= 0;

    /* The length that we are told is in whole sectors: if it is @end, there
     * may be nothing to do, and what has a fixed length may not do it. */
    if (ok && end && length <= end) {
        driver_unlock(&s->lock);
        ok = bdrv_truncate(bs->file, end, false, PREALLOC_MODE_OFF, 0, NULL) ||
             length == end;
        driver_lock(&s->lock);
    }
    if (!ok) {
        warn_report("Failed to complete the last cluster of the image");
    }
}
