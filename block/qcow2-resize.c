/*
 * Changing the length of a qcow2 image.
 *
 * Growing drops what is mapped beyond the end, makes room in the L1 table, maps
 * clusters if they are to be preallocated, and says so in the header when all
 * that is durable.  What the disk gains reads as zeroes: a backing file may be
 * longer than the disk was, and the last cluster may hold what was cut off
 * once; both are overwritten.
 *
 * Shrinking shortens the disk in the header first: if the mapping were dropped
 * before, a crash would leave a disk of the old length with the backing file's
 * data in what was being cut off.  Then it drops the mapping, table by table,
 * waits for those clusters to be free, and shortens the file.
 *
 * Whatever fails leaves an image of the old length, or the new one where only
 * the mapping is left to be dropped.  Clusters beyond the end, from that or
 * from somebody who keeps other things there, do no harm: the next resize drops
 * them.
 *
 * Control thread, drained: nothing else changes tables, so what was looked at
 * stays true while the lock is dropped.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qcow2-amend.h"
#include "qcow2-bitmap.h"
#include "qemu/atomic.h"

#define ZERO_CHUNK (1 * MiB)

/* ---- Zeroes that a guest will see ---- */

static int write_zero_data(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *zeroes = g_malloc0(MIN(bytes, ZERO_CHUNK));
    int ret = 0;

    while (bytes > 0 && ret == 0) {
        int64_t n = MIN(bytes, ZERO_CHUNK);
        QEMUIOVector qiov;

        qemu_iovec_init_buf(&qiov, zeroes, n);
        ret = qcow2_pwritev(bs, offset, n, &qiov, 0, 0);
        offset += n;
        bytes -= n;
    }
    return ret;
}

static int zero_guest(BlockDriverState *bs, int64_t offset, int64_t end)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t aligned = MIN(ROUND_UP(offset, s->subcluster_size), end);
    int ret = 0;

    if (aligned > offset) {
        ret = write_zero_data(bs, offset, aligned - offset);
    }
    if (ret == 0 && aligned < end) {
        /* As far as the disk goes it may end within a cluster. */
        ret = qcow2_pwrite_zeroes(bs, aligned, end - aligned, 0);
        if (ret == -ENOTSUP) {
            ret = write_zero_data(bs, aligned, end - aligned);
        }
    }
    return ret;
}

/* Does the cluster that the old end is in hold anything of its own behind it?
 * Each subcluster says so for itself. */
static int has_stale_tail(BlockDriverState *bs, int64_t old)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t end = QEMU_ALIGN_UP(old, s->cluster_size);
    Qcow2Extent extent;

    for (int64_t at = old; at < end; at += extent.bytes) {
        uintptr_t pin;
        int ret = qcow2_map(bs, at, end - at, &extent, &pin);

        if (ret < 0) {
            return ret;
        }
        qcow2_unpin(s, pin);
        if (extent.type == QCOW2_EXTENT_NORMAL ||
            extent.type == QCOW2_EXTENT_COMPRESSED) {
            return 1;
        }
    }
    return 0;
}

static int zero_gained(BlockDriverState *bs, int64_t old, int64_t new)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t end = old;
    int ret = has_stale_tail(bs, old);

    if (ret < 0) {
        return ret;
    }
    if (ret) {
        end = MIN(ROUND_UP(old, s->cluster_size), new);
    }
    if (bs->backing) {
        int64_t backing = bdrv_getlength(bs->backing->bs);

        if (backing < 0) {
            return backing;
        }
        end = MAX(end, MIN(backing, new));
    }
    return end > old ? zero_guest(bs, old, end) : 0;
}

/* ---- Preallocation ---- */

/* Make @bytes of the image file at @offset read as zeroes, allocated as @mode
 * asks for.  Without the lock. */
static int prepare_host(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        bool fresh, PreallocMode mode)
{
    int64_t length = bdrv_getlength(bs->file->bs);
    g_autofree uint8_t *zeroes = NULL;
    int ret = 0;

    if (length < 0) {
        return length;
    }
    if (mode == PREALLOC_MODE_METADATA && fresh) {
        if (length < offset + bytes &&
            !bdrv_truncate(bs->file, offset + bytes, false, PREALLOC_MODE_OFF,
                           0, NULL)) {
            return -EIO;
        }
        return 0;
    }
    if (mode != PREALLOC_MODE_FULL) {
        return bdrv_pwrite_zeroes(bs->file, offset, bytes,
                                  mode == PREALLOC_MODE_METADATA ?
                                  BDRV_REQ_MAY_UNMAP : 0);
    }
    zeroes = g_malloc0(MIN(bytes, ZERO_CHUNK));
    for (int64_t done = 0; done < bytes && ret == 0; done += ZERO_CHUNK) {
        ret = bdrv_pwrite(bs->file, offset + done,
                          MIN(bytes - done, ZERO_CHUNK), zeroes, 0);
    }
    return ret;
}

/* Host clusters for @n guest clusters from @offset on. */
static int64_t REQUIRES(driver_class)
host_clusters(BlockDriverState *bs, int64_t offset, int64_t n,
              PreallocMode mode)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t bytes = n << s->cluster_bits;
    bool fresh = false;
    int64_t host;
    int ret;

    if (s->has_data_file) {
        return offset;
    }
    host = qcow2_alloc_data(bs, bytes, &fresh);
    if (host < 0) {
        return host;
    }
    driver_unlock(&s->lock);
    ret = prepare_host(bs, host, bytes, fresh, mode);
    driver_lock(&s->lock);
    if (ret < 0) {
        qcow2_free_later(bs, host, bytes, QCOW2_DISCARD_ALWAYS);
        return ret;
    }
    return host;
}

/* Map @n clusters, all in one slice, that were beyond the end. */
static int REQUIRES(driver_class)
map_clusters(BlockDriverState *bs, int64_t offset, int64_t n,
             PreallocMode mode)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    unsigned index;
    /* The table first: in the file, it is to be before what it maps. */
    int ret = qcow2_l2_get_for_write(bs, offset, &t, &index);
    int64_t host = ret < 0 ? ret : host_clusters(bs, offset, n, mode);

    if (host < 0) {
        return host;
    }
    ret = qcow2_l2_get_for_write(bs, offset, &t, &index);
    if (ret < 0) {
        if (!s->has_data_file) {
            qcow2_free_later(bs, host, n << s->cluster_bits,
                             QCOW2_DISCARD_ALWAYS);
        }
        return ret;
    }
    for (int64_t i = 0; i < n; i++) {
        Qcow2Entry old = qcow2_entry_get(s, t, index + i);
        Qcow2Entry new = {
            .l2 = (host + (i << s->cluster_bits)) | QCOW2_OFLAG_COPIED,
            /* Otherwise subclusters are allocated one by one. */
            .bitmap = qcow2_file_is_disk(s) && s->l2_entry_words > 1 ?
                      UINT32_MAX : 0,
        };

        qcow2_entry_set(s, t, index + i, new);
        qcow2_free_entry_later(bs, old.l2, QCOW2_DISCARD_OTHER);
    }
    return 0;
}

static int preallocate(BlockDriverState *bs, int64_t old, int64_t new,
                       PreallocMode mode)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t slice = s->cluster_size << s->l2_slice_bits;
    int64_t offset = ROUND_UP(old, s->cluster_size);
    int ret = 0;

    driver_lock(&s->lock);
    while (offset < new && ret == 0) {
        int64_t end = MIN(ROUND_DOWN(offset, slice) + slice,
                          ROUND_UP(new, s->cluster_size));

        ret = map_clusters(bs, offset, (end - offset) >> s->cluster_bits,
                           mode);
        offset = end;
    }
    driver_unlock(&s->lock);
    return ret;
}

/* ---- Beyond the end ---- */

static bool REQUIRES(driver_class)
are_empty(const BDRVQcow2State *s, Qcow2Table *t, unsigned index, int64_t n)
{
    bool empty = true;

    for (int64_t i = 0; i < n && empty; i++) {
        Qcow2Entry e = qcow2_entry_get(s, t, index + i);

        empty = !e.l2 && !e.bitmap;
    }
    return empty;
}

/* Entries of one slice that are beyond the end, in the L2 table that the end is
 * in. */
static int REQUIRES(driver_class)
drop_entries(BlockDriverState *bs, int64_t offset, int64_t end)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    unsigned index;
    int ret = qcow2_l2_get(bs, offset, &t, &index);

    if (ret < 0 || !t ||
        are_empty(s, t, index, (end - offset) >> s->cluster_bits)) {
        return ret;
    }
    ret = qcow2_l2_get_for_write(bs, offset, &t, &index);
    if (ret < 0) {
        return ret;
    }
    for (; offset < end; offset += s->cluster_size, index++) {
        Qcow2Entry old = qcow2_entry_get(s, t, index);

        if (old.l2 || old.bitmap) {
            qcow2_entry_set(s, t, index, (Qcow2Entry){ 0 });
            qcow2_free_entry_later(bs, old.l2, QCOW2_DISCARD_ALWAYS);
        }
    }
    return 0;
}

/* The words of the L2 table at @table.  NULL with *ret: could not be read. */
static uint64_t *REQUIRES(driver_class)
read_l2_table(BlockDriverState *bs, int64_t table, int *ret)
{
    BDRVQcow2State *s = bs->opaque;
    size_t per_slice = (size_t)s->l2_entry_words << s->l2_slice_bits;
    size_t n = s->cluster_size / sizeof(uint64_t);
    g_autofree uint64_t *words = g_try_new(uint64_t, n);

    *ret = words ? 0 : -ENOMEM;
    for (size_t at = 0; at < n && *ret == 0; at += per_slice) {
        Qcow2Table *t;

        *ret = qcow2_cache_get(bs, s->l2_cache, table + at * sizeof(uint64_t),
                               &t);
        for (size_t i = 0; *ret == 0 && i < per_slice; i++) {
            words[at + i] = qcow2_table_get64(t, i);
        }
    }
    return *ret == 0 ? g_steal_pointer(&words) : NULL;
}

/* A whole L2 table, with all that it refers to. */
static int REQUIRES(driver_class)
drop_l2_table(BlockDriverState *bs, unsigned index)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t table = s->l1->entries[index] & QCOW2_L1_OFFSET_MASK;
    g_autofree uint64_t *words = NULL;
    int ret = 0;

    if (!table) {
        return 0;
    }
    if (!QEMU_IS_ALIGNED(table, s->cluster_size)) {
        qcow2_signal_corruption_locked(bs, true, -1, -1, "L2 table offset %#"
                                       PRIx64 " unaligned (L1 index: %#x)",
                                       table, index);
        return -EIO;
    }
    words = read_l2_table(bs, table, &ret);
    if (!words) {
        return ret;
    }
    qcow2_l1_set(s, index, 0);
    for (size_t i = 0; i < s->cluster_size / sizeof(uint64_t);
         i += s->l2_entry_words) {
        qcow2_free_entry_later(bs, words[i], QCOW2_DISCARD_ALWAYS);
    }
    qcow2_l2_unlist(s, table);
    qcow2_free_later(bs, table, s->cluster_size, QCOW2_DISCARD_OTHER);
    return 0;
}

/* All clusters from the end of the disk, @size, on. */
static int REQUIRES(driver_class)
drop_mapping(BlockDriverState *bs, int64_t size)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t coverage = qcow2_l1_coverage(s);
    int64_t slice = s->cluster_size << s->l2_slice_bits;
    int64_t offset = ROUND_UP(size, s->cluster_size);
    int64_t table_end = ROUND_UP(offset, coverage);
    int ret = 0;

    while (offset < table_end && ret == 0) {
        int64_t end = ROUND_DOWN(offset, slice) + slice;

        ret = drop_entries(bs, offset, end);
        offset = end;
    }
    for (uint32_t i = table_end / coverage; i < s->l1->size && ret == 0; i++) {
        ret = drop_l2_table(bs, i);
    }
    return ret;
}

/* ---- Growing ---- */

static bool grow_tables(BlockDriverState *bs, int64_t new, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t coverage = qcow2_l1_coverage(s);
    int64_t entries = new / coverage + (new % coverage != 0);
    int ret = -EFBIG;

    if (entries <= (int64_t)(QCOW2_MAX_L1_SIZE / sizeof(uint64_t))) {
        driver_lock(&s->lock);
        ret = qcow2_grow_l1(bs, entries);
        driver_unlock(&s->lock);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to grow the L1 table");
    }
    return ret == 0;
}

/* What is about to be mapped, of a file that is longer than the disk: after a
 * power cut what was to be cut off may still be there. */
static int zero_data_file(BlockDriverState *bs, int64_t old, int64_t new,
                          PreallocMode mode)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t length = bdrv_getlength(s->data_file->bs);

    return length <= old ? MIN(length, 0) :
           bdrv_pwrite_zeroes(s->data_file, old, MIN(length, new) - old,
                              mode == PREALLOC_MODE_METADATA ?
                              BDRV_REQ_MAY_UNMAP : 0);
}

static bool grow_data_file(BlockDriverState *bs, int64_t new,
                           PreallocMode mode, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (!s->has_data_file) {
        return true;
    }
    ret = mode == PREALLOC_MODE_OFF ? 0 :
          zero_data_file(bs, s->disk_size, new, mode);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not clear the end of the data "
                         "file");
        return false;
    }
    return bdrv_truncate(s->data_file, new, false,
                         mode == PREALLOC_MODE_METADATA ? PREALLOC_MODE_OFF :
                         mode, 0, errp);
}

/* All that changes, then the header, durably. */
static int REQUIRES(driver_class) write_size(BlockDriverState *bs)
{
    int ret = qcow2_flush_metadata(bs);

    return ret < 0 ? ret : qcow2_update_header(bs);
}

static bool grow(BlockDriverState *bs, int64_t new, PreallocMode mode,
                 Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t old = s->disk_size;
    int ret;

    /* The raw file must say what the tables say; what is encrypted would be
     * noise. */
    if (qcow2_file_is_disk(s) && mode == PREALLOC_MODE_OFF) {
        mode = PREALLOC_MODE_METADATA;
    }
    driver_lock(&s->lock);
    ret = drop_mapping(bs, old);
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to discard clusters beyond the "
                         "end of the disk");
        return false;
    }
    if (!grow_tables(bs, new, errp) || !grow_data_file(bs, new, mode, errp)) {
        return false;
    }
    s->disk_size = new;
    ret = mode == PREALLOC_MODE_OFF ? 0 : preallocate(bs, old, new, mode);
    if (ret == 0) {
        ret = zero_gained(bs, old, new);
    }
    driver_lock(&s->lock);
    if (ret == 0) {
        ret = write_size(bs);
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        s->disk_size = old;
        error_setg_errno(errp, -ret, "Failed to grow the image");
    }
    return ret == 0;
}

/* ---- Shrinking ---- */

static bool shrink(BlockDriverState *bs, int64_t new, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t old = s->disk_size;
    int ret;

    driver_lock(&s->lock);
    s->disk_size = new;
    ret = write_size(bs);
    if (ret < 0) {
        s->disk_size = old;
    }
    ret = ret < 0 ? ret : drop_mapping(bs, new);
    ret = ret < 0 ? ret : qcow2_settle(bs);
    if (ret == 0 && qcow2_shorten_file(bs) < 0) {
        warn_report("Failed to truncate the tail of the image");
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to discard cropped clusters");
        return false;
    }
    return !s->has_data_file ||
           bdrv_truncate(s->data_file, new, false, PREALLOC_MODE_OFF, 0, errp);
}

/* ---- All of it ---- */

bool qcow2_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                    PreallocMode prealloc, int flags, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (!QEMU_IS_ALIGNED(offset, BDRV_SECTOR_SIZE)) {
        error_setg(errp, "The new size must be a multiple of %d",
                   BDRV_SECTOR_SIZE);
        return false;
    }
    /* Which length the header says may not be known: the data file must not be
     * cut. */
    if (qatomic_read(&s->corrupt)) {
        error_setg(errp, "The image is corrupt and cannot be resized");
        return false;
    }
    if (s->nb_snapshots && s->qcow_version < 3) {
        error_setg(errp, "Can't resize a v2 image which has snapshots");
        return false;
    }
    if (!qcow2_bitmaps_may_resize(bs, errp)) {
        return false;
    }
    if (offset < s->disk_size && prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation can't be used for shrinking an image");
        return false;
    }
    return offset >= s->disk_size ? grow(bs, offset, prealloc, errp) :
           shrink(bs, offset, errp);
}

/* ---- Nothing but the length stays ---- */

bool qcow2_make_empty(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (s->data_file_raw) {
        error_setg(errp, "The mapping of a raw data file cannot be dropped");
        return false;
    }
    driver_lock(&s->lock);
    ret = drop_mapping(bs, 0);
    if (ret == 0) {
        ret = qcow2_settle(bs);
    }
    if (ret == 0 && qcow2_shorten_file(bs) < 0) {
        warn_report("Failed to truncate the tail of the image");
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to make the image empty");
    }
    return ret == 0;
}

/* ---- No zero clusters ---- */

/* Does the entry need a flag that version 2 does not have? */
static bool is_zero_entry(uint64_t l2)
{
    return !(l2 & QCOW2_OFLAG_COMPRESSED) && (l2 & QCOW2_OFLAG_ZERO);
}

/*
 * The clusters of a range.  Without a backing file a cluster that is not
 * there reads as zeroes, and beyond the end of the disk nobody reads;
 * otherwise data is written.
 */
static int expand_range(BlockDriverState *bs, int64_t offset, int64_t end)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    for (; offset < end && ret == 0; offset += s->cluster_size) {
        Qcow2Table *t;
        unsigned index;
        Qcow2Entry e = { 0 };
        bool needs_data = bs->backing && offset < s->disk_size;

        driver_lock(&s->lock);
        ret = qcow2_l2_get(bs, offset, &t, &index);
        if (ret == 0 && t) {
            e = qcow2_entry_get(s, t, index);
        }
        if (ret == 0 && is_zero_entry(e.l2) && !needs_data) {
            ret = qcow2_l2_get_for_write(bs, offset, &t, &index);
            if (ret == 0) {
                qcow2_entry_set(s, t, index, (Qcow2Entry){ 0 });
                qcow2_free_entry_later(bs, e.l2, QCOW2_DISCARD_OTHER);
            }
        }
        driver_unlock(&s->lock);
        if (ret == 0 && is_zero_entry(e.l2) && needs_data) {
            ret = write_zero_data(bs, offset, MIN(s->cluster_size,
                                                  s->disk_size - offset));
        }
    }
    return ret;
}

int qcow2_expand_zero_clusters(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t coverage = qcow2_l1_coverage(s);
    int ret = 0;

    /* All of them: whoever makes the disk longer may not drop what is there. */
    for (uint32_t i = 0; i < s->l1->size && ret == 0; i++) {
        if (qatomic_read(&s->l1->entries[i])) {
            ret = expand_range(bs, i * coverage, (i + 1) * coverage);
        }
    }
    return ret;
}
