/*
 * qcow2: where the file ends.
 *
 * Shortening cuts the file behind the last cluster that is in use.  Completing
 * makes the last cluster whole, where its end was never written.
 *
 * Nobody writes meanwhile.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/error.h"

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

int qcow2_shorten_file(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t length = bdrv_getlength(bs->file->bs);
    int64_t last = DIV_ROUND_UP(MAX(length, 0), s->cluster_size);
    uint64_t refcount = 0;
    int ret = length < 0 ? length : 0;
    bool ok;

    while (ret == 0 && (last = skip_uncounted(s, last)) > 0) {
        ret = qcow2_get_refcount(bs, last - 1, &refcount);
        if (ret == 0 && refcount) {
            break;
        }
        last -= ret == 0;
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
