/*
 * qcow2: the directory of bitmaps.
 *
 * Source: "QEMU QCOW Image Format", "Bitmaps extension", "Bitmap directory".
 *
 * It is read from the file whenever it is needed: that is rare, and so there
 * is nothing in memory that could be stale.  All in it is a stranger's.  An
 * entry that breaks a rule makes the image unusable, as with everybody else who
 * knows bitmaps, but not its damage to be repaired (nothing is read then).
 *
 * To change it, everything that changes is written into new clusters.  They,
 * and their refcounts, are synced; then one write of the header switches from
 * the old directory to the new one, is synced, and what was replaced is freed.
 * The extension is near the start of the header, in the same sector as the bit
 * that says it is valid: so that write cannot be torn.  (Flags alone change in
 * place: each of them means something for itself.)
 *
 * If the switch fails the old header is put back.  Should that fail, too, the
 * disk may have the new one, with bitmaps that are said to be valid: nothing is
 * written any more, or they would miss it.  Either way both directories stay as
 * they are: clusters leak, but nothing is lost.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-bitmap.h"
#include "qemu/bswap.h"

#define ENTRY_SIZE 24               /* without extra data and name */
#define TYPE_DIRTY_TRACKING 1

/* ---- Entries ---- */

static void bitmap_free(void *opaque)
{
    Qcow2Bitmap *b = opaque;

    g_free(b->name);
    g_free(b->extra);
    g_free(b);
}

static GPtrArray *bitmaps_new(void)
{
    return g_ptr_array_new_with_free_func(bitmap_free);
}

Qcow2Bitmap *qcow2_bitmaps_add(GPtrArray *bitmaps, const char *name)
{
    Qcow2Bitmap *b = g_new0(Qcow2Bitmap, 1);

    b->name = g_strdup(name);
    g_ptr_array_add(bitmaps, b);
    return b;
}

Qcow2Bitmap *qcow2_bitmaps_find(const GPtrArray *bitmaps, const char *name)
{
    for (guint i = 0; i < bitmaps->len; i++) {
        Qcow2Bitmap *b = bitmaps->pdata[i];

        if (g_str_equal(b->name, name)) {
            return b;
        }
    }
    return NULL;
}

uint64_t qcow2_bitmap_entry_size(const char *name, uint32_t extra_size)
{
    return ROUND_UP(ENTRY_SIZE + extra_size + (uint64_t)strlen(name), 8);
}

static uint64_t entry_size(const Qcow2Bitmap *b)
{
    return qcow2_bitmap_entry_size(b->name, b->extra_size);
}

uint64_t qcow2_bitmaps_size(const GPtrArray *bitmaps)
{
    uint64_t size = 0;

    for (guint i = 0; i < bitmaps->len; i++) {
        size += entry_size(bitmaps->pdata[i]);
    }
    return size;
}

/* ---- Reading ---- */

/* Which bits there are, and where. */
static bool entry_is_valid(const BDRVQcow2State *s, const uint8_t *p,
                           const Qcow2Bitmap *b, uint32_t name_size)
{
    return !(b->flags & ~(uint32_t)QCOW2_BITMAP_FLAGS) &&
           p[16] == TYPE_DIRTY_TRACKING &&
           b->granularity_bits >= QCOW2_BITMAP_MIN_GRANULARITY_BITS &&
           b->granularity_bits <= QCOW2_BITMAP_MAX_GRANULARITY_BITS &&
           name_size > 0 && name_size <= BDRV_BITMAP_MAX_NAME_SIZE &&
           strlen(b->name) == name_size && b->table_offset &&
           QEMU_IS_ALIGNED(b->table_offset, s->cluster_size) &&
           b->table_offset <= QCOW2_BITMAP_OFFSET_MASK && b->table_size &&
           b->table_size <= QCOW2_BITMAP_MAX_BYTES / s->cluster_size;
}

/* The entry at @p, of which there are @left bytes; returns its length, or 0
 * with @errp. */
static uint64_t parse_entry(const BDRVQcow2State *s, GPtrArray *bitmaps,
                            const uint8_t *p, uint64_t left, Error **errp)
{
    uint64_t size, name_size, extra_size;
    g_autofree char *name = NULL;
    Qcow2Bitmap *b;

    if (left < ENTRY_SIZE) {
        error_setg(errp, "Broken bitmap directory");
        return 0;
    }
    name_size = lduw_be_p(p + 18);
    extra_size = ldl_be_p(p + 20);
    size = ROUND_UP(ENTRY_SIZE + extra_size + name_size, 8);
    if (size > left) {
        error_setg(errp, "Broken bitmap directory");
        return 0;
    }
    name = g_strndup((const char *)p + ENTRY_SIZE + extra_size, name_size);
    b = qcow2_bitmaps_add(bitmaps, name);
    b->table_offset = ldq_be_p(p);
    b->table_size = ldl_be_p(p + 8);
    b->flags = ldl_be_p(p + 12);
    b->granularity_bits = p[17];
    if (extra_size && !(b->flags & QCOW2_BITMAP_EXTRA_COMPAT)) {
        /* It must not be used, and then not be kept up to date, either. */
        error_setg(errp, "Bitmap extra data is not supported");
        return 0;
    }
    b->extra_size = extra_size;
    b->extra = g_memdup2(p + ENTRY_SIZE, extra_size);
    if (!entry_is_valid(s, p, b, name_size)) {
        g_autofree char *valid = g_utf8_make_valid(name, -1);

        error_setg(errp, "Bitmap '%s' doesn't satisfy the constraints", valid);
        return 0;
    }
    return size;
}

static bool parse(const BDRVQcow2State *s, GPtrArray *bitmaps,
                  const uint8_t *buf, Error **errp)
{
    uint64_t left = s->bitmap_directory_size;

    while (left) {
        uint64_t size;

        if (bitmaps->len == s->nb_bitmaps && left >= ENTRY_SIZE) {
            error_setg(errp, "More bitmaps found than specified in header "
                       "extension");
            return false;
        }
        size = parse_entry(s, bitmaps, buf, left, errp);
        if (size == 0) {
            return false;
        }
        buf += size;
        left -= size;
    }
    if (bitmaps->len < s->nb_bitmaps) {
        error_setg(errp, "Less bitmaps found than specified in header "
                   "extension");
        return false;
    }
    return true;
}

GPtrArray *qcow2_bitmaps_read(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(GPtrArray) bitmaps = bitmaps_new();
    g_autofree uint8_t *buf = NULL;
    int ret = -ENOMEM;

    if (s->nb_bitmaps == 0) {
        return g_steal_pointer(&bitmaps);
    }
    buf = g_try_malloc(s->bitmap_directory_size);
    if (buf) {
        ret = bdrv_pread(bs->file, s->bitmap_directory_offset,
                         s->bitmap_directory_size, buf, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to read bitmap directory");
        return NULL;
    }
    return parse(s, bitmaps, buf, errp) ? g_steal_pointer(&bitmaps) : NULL;
}

/* ---- Writing ---- */

static uint8_t *build_entry(uint8_t *p, const Qcow2Bitmap *b)
{
    size_t name_size = strlen(b->name);

    stq_be_p(p, b->table_offset);
    stl_be_p(p + 8, b->table_size);
    stl_be_p(p + 12, b->flags);
    p[16] = TYPE_DIRTY_TRACKING;
    p[17] = b->granularity_bits;
    stw_be_p(p + 18, name_size);
    stl_be_p(p + 20, b->extra_size);
    if (b->extra_size) {
        memcpy(p + ENTRY_SIZE, b->extra, b->extra_size);
    }
    memcpy(p + ENTRY_SIZE + b->extra_size, b->name, name_size);
    return p + entry_size(b);
}

/* The directory in whole clusters; NULL: no memory. */
static uint8_t *build(const BDRVQcow2State *s, const GPtrArray *bitmaps)
{
    uint64_t size = ROUND_UP(qcow2_bitmaps_size(bitmaps), s->cluster_size);
    uint8_t *buf = g_try_malloc0(size), *p = buf;

    for (guint i = 0; buf && i < bitmaps->len; i++) {
        p = build_entry(p, bitmaps->pdata[i]);
    }
    return buf;
}

int qcow2_bitmaps_write_flags(BlockDriverState *bs, const GPtrArray *bitmaps)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint8_t *buf = build(s, bitmaps);
    int ret = buf ? 0 : -ENOMEM;

    if (ret == 0) {
        ret = qcow2_check_overlap(bs, QCOW2_OL_BITMAP_DIRECTORY,
                                  s->bitmap_directory_offset,
                                  s->bitmap_directory_size);
    }
    if (ret == 0) {
        ret = bdrv_pwrite_sync(bs->file, s->bitmap_directory_offset,
                               s->bitmap_directory_size, buf, 0);
    }
    return ret;
}

/* ---- Changing ---- */

typedef struct Range {
    int64_t offset, bytes;
} Range;

bool qcow2_bitmap_update_begin(BlockDriverState *bs, Qcow2BitmapUpdate *u,
                               Error **errp)
{
    *u = (Qcow2BitmapUpdate) { .bitmaps = qcow2_bitmaps_read(bs, errp) };
    if (!u->bitmaps) {
        return false;
    }
    u->added = g_array_new(FALSE, FALSE, sizeof(Range));
    u->dropped = g_array_new(FALSE, FALSE, sizeof(Range));
    return true;
}

static void update_end(Qcow2BitmapUpdate *u)
{
    g_ptr_array_unref(u->bitmaps);
    g_array_unref(u->added);
    g_array_unref(u->dropped);
}

/* Neighbours become one. */
static void note_range(GArray *ranges, int64_t offset, int64_t bytes)
{
    Range new = { offset, bytes };

    if (ranges->len) {
        Range *last = &g_array_index(ranges, Range, ranges->len - 1);

        if (last->offset + last->bytes == offset) {
            last->bytes += bytes;
            return;
        }
    }
    g_array_append_val(ranges, new);
}

int64_t qcow2_bitmap_update_write(BlockDriverState *bs, Qcow2BitmapUpdate *u,
                                  const void *buf, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset;
    int ret;

    bytes = ROUND_UP(bytes, s->cluster_size);
    driver_lock(&s->lock);
    offset = qcow2_alloc_clusters(bs, bytes);
    driver_unlock(&s->lock);
    if (offset < 0) {
        return offset;
    }
    note_range(u->added, offset, bytes);
    ret = qcow2_check_overlap(bs, 0, offset, bytes);
    if (ret == 0) {
        ret = bdrv_pwrite(bs->file, offset, bytes, buf, 0);
    }
    return ret < 0 ? ret : offset;
}

/* The clusters that a part of a table refers to. */
static void drop_entries(BDRVQcow2State *s, Qcow2BitmapUpdate *u,
                         const uint64_t *table, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t offset = GUINT64_FROM_BE(table[i]) & QCOW2_BITMAP_OFFSET_MASK;

        if (offset && QEMU_IS_ALIGNED(offset, s->cluster_size)) {
            note_range(u->dropped, offset, s->cluster_size);
        }
    }
}

void qcow2_bitmap_update_drop(BlockDriverState *bs, Qcow2BitmapUpdate *u,
                              const Qcow2Bitmap *b)
{
    BDRVQcow2State *s = bs->opaque;
    uint32_t per_cluster = s->cluster_size / sizeof(uint64_t);
    g_autofree uint64_t *table = g_malloc(s->cluster_size);
    int ret = 0;

    for (uint32_t i = 0; i < b->table_size && ret == 0; i += per_cluster) {
        uint32_t n = MIN(b->table_size - i, per_cluster);

        ret = bdrv_pread(bs->file, b->table_offset + i * sizeof(uint64_t),
                         n * sizeof(uint64_t), table, 0);
        if (ret == 0) {
            drop_entries(s, u, table, n);
        }
    }
    if (ret < 0) {
        warn_report("Clusters of bitmap '%s' are leaked, since its table "
                    "cannot be read: %s", b->name, g_strerror(-ret));
    }
    note_range(u->dropped, b->table_offset,
               ROUND_UP(b->table_size * sizeof(uint64_t), s->cluster_size));
}

/* What is free already (the image has lied) stays so. */
static void REQUIRES(driver_class)
free_ranges(BlockDriverState *bs, const GArray *ranges)
{
    BDRVQcow2State *s = bs->opaque;

    for (guint i = 0; i < ranges->len; i++) {
        const Range *r = &g_array_index(ranges, Range, i);

        for (int64_t done = 0; done < r->bytes; done += s->cluster_size) {
            int64_t offset = r->offset + done;
            uint64_t refcount;

            if (qcow2_get_refcount(bs, offset >> s->cluster_bits,
                                   &refcount) == 0 && refcount) {
                qcow2_free_later(bs, offset, s->cluster_size,
                                 QCOW2_DISCARD_OTHER);
            }
        }
    }
}

void qcow2_bitmap_update_abort(BlockDriverState *bs, Qcow2BitmapUpdate *u)
{
    BDRVQcow2State *s = bs->opaque;

    driver_lock(&s->lock);
    free_ranges(bs, u->added);
    driver_unlock(&s->lock);
    update_end(u);
}

/* Where the directory is, by the state. */
typedef struct Directory {
    uint32_t n;
    uint64_t offset, size;
} Directory;

static Directory REQUIRES(driver_class)
set_directory(BDRVQcow2State *s, Directory new)
{
    Directory old = { s->nb_bitmaps, s->bitmap_directory_offset,
                      s->bitmap_directory_size };

    s->nb_bitmaps = new.n;
    s->bitmap_directory_offset = new.offset;
    s->bitmap_directory_size = new.size;
    if (new.n) {
        s->autoclear_features |= QCOW2_AUTOCLEAR_BITMAPS;
    } else {
        s->autoclear_features &= ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS;
    }
    return old;
}

static int REQUIRES(driver_class)
switch_header(BlockDriverState *bs, Directory new, Directory *old)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    *old = set_directory(s, new);
    ret = qcow2_update_header(bs);
    if (ret < 0) {
        set_directory(s, *old);
    }
    return ret;
}

/* The new directory is written; before the header may refer to it … */
static int REQUIRES(driver_class)
prepare_switch(BlockDriverState *bs, const Directory *new)
{
    int ret = qcow2_metadata_add(bs->opaque, new->offset, new->size,
                                 QCOW2_OL_BITMAP_DIRECTORY);

    return ret < 0 ? ret : qcow2_flush_metadata(bs);
}

int qcow2_bitmap_update_commit(BlockDriverState *bs, Qcow2BitmapUpdate *u)
{
    BDRVQcow2State *s = bs->opaque;
    Directory new = { u->bitmaps->len }, old;
    int ret = 0;

    if (new.n) {
        g_autofree uint8_t *buf = build(s, u->bitmaps);
        int64_t offset;

        new.size = qcow2_bitmaps_size(u->bitmaps);
        offset = buf ? qcow2_bitmap_update_write(bs, u, buf, new.size) :
                 -ENOMEM;
        new.offset = offset;
        ret = MIN(offset, 0);
    }
    driver_lock(&s->lock);
    if (ret == 0) {
        ret = prepare_switch(bs, &new);
    }
    if (ret < 0) {
        free_ranges(bs, u->added);
    } else {
        ret = switch_header(bs, new, &old);
    }
    if (ret == 0) {
        note_range(u->dropped, old.offset,
                   ROUND_UP(old.size, s->cluster_size));
        free_ranges(bs, u->dropped);
    }
    driver_unlock(&s->lock);
    update_end(u);
    return ret;
}
