/*
 * qcow2 check: bitmaps.
 *
 * The directory is a table of entries of any length, whose number and sizes
 * come from the file: it is read entry by entry, and everything is bounded
 * before it is allocated.  A directory that cannot be followed to its end is
 * no reason to call what it may refer to leaked: the check fails, and repairs
 * nothing.
 *
 * Source: "QEMU QCOW Image Format", section "Bitmaps".
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-bitmap.h"
#include "qcow2-check.h"
#include "qemu/bswap.h"
#include "qemu/error.h"

#define BITMAP_ENTRY_SIZE 24
#define BITMAP_TYPE_DIRTY 1
#define BITMAP_READ_ENTRIES 8192

static int broken_bitmaps(const char *what)
{
    error_report("%s", what);
    return -EINVAL;
}

/* What a bitmap's table refers to, a piece at a time. */
static int count_bitmap_table(Qcow2Check *chk, uint64_t offset, uint32_t n)
{
    g_autofree uint64_t *entries = g_new(uint64_t, BITMAP_READ_ENTRIES);
    uint64_t end = offset + n * sizeof(uint64_t);

    qcow2_check_count(chk, offset, n * sizeof(uint64_t));
    end = MIN(end, (uint64_t)chk->file_bytes);
    while (offset < end) {
        uint64_t bytes = MIN(end - offset,
                             BITMAP_READ_ENTRIES * sizeof(uint64_t));
        int ret = qcow2_check_read(chk, offset, bytes, entries);

        if (ret < 0) {
            chk->res->check_errors++;
            return ret;
        }
        for (uint64_t i = 0; i < bytes / sizeof(uint64_t); i++) {
            uint64_t data = GUINT64_FROM_BE(entries[i]) &
                            QCOW2_BITMAP_OFFSET_MASK;

            if (data) {
                qcow2_check_count(chk, data, chk->s->cluster_size);
            }
        }
        offset += bytes;
    }
    return 0;
}

/*
 * May the entry at @p be what it says?  The table need not fit the disk: one
 * that was in use when the disk's length changed, and then came a crash, fits
 * the length before.  Its clusters count all the same.
 */
static bool bitmap_is_valid(const BDRVQcow2State *s, const uint8_t *p)
{
    uint64_t offset = ldq_be_p(p);

    return offset && QEMU_IS_ALIGNED(offset, s->cluster_size) &&
           offset <= INT64_MAX / 2 &&
           ldl_be_p(p + 8) <= QCOW2_BITMAP_MAX_BYTES / s->cluster_size &&
           !(ldl_be_p(p + 12) & ~(uint32_t)QCOW2_BITMAP_FLAGS) &&
           p[16] == BITMAP_TYPE_DIRTY &&
           p[17] >= QCOW2_BITMAP_MIN_GRANULARITY_BITS &&
           p[17] <= QCOW2_BITMAP_MAX_GRANULARITY_BITS;
}

/* The entry of the directory at @pos of it: its table is one of @tables. */
static int take_bitmap(Qcow2Check *chk, uint64_t *pos, GArray *tables)
{
    BDRVQcow2State *s = chk->s;
    uint8_t buf[BITMAP_ENTRY_SIZE];
    uint64_t length;
    int ret;

    if (s->bitmap_directory_size - *pos < sizeof(buf)) {
        return broken_bitmaps("Broken bitmap directory");
    }
    ret = qcow2_check_read(chk, s->bitmap_directory_offset + *pos,
                           sizeof(buf), buf);
    if (ret < 0) {
        return ret;
    }
    length = ROUND_UP((uint64_t)BITMAP_ENTRY_SIZE + lduw_be_p(buf + 18) +
                      ldl_be_p(buf + 20), 8);
    if (length > s->bitmap_directory_size - *pos) {
        return broken_bitmaps("Broken bitmap directory");
    }
    if (!bitmap_is_valid(s, buf)) {
        return broken_bitmaps("Bitmap doesn't satisfy the constraints");
    }
    *pos += length;
    qcow2_check_tables_add(tables, ldq_be_p(buf),
                           ldl_be_p(buf + 8) * (uint64_t)sizeof(uint64_t));
    return 0;
}

static int count_tables(Qcow2Check *chk, GArray *tables)
{
    int ret = qcow2_check_tables_share(chk, tables);

    for (guint i = 0; i < tables->len && ret == 0; i++) {
        Qcow2SharedTable *t = &g_array_index(tables, Qcow2SharedTable, i);

        chk->users = t->users;
        ret = !t->users ? 0 :
              count_bitmap_table(chk, t->offset, t->bytes / sizeof(uint64_t));
    }
    chk->users = 0;
    return ret;
}

int qcow2_check_count_bitmaps(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    GArray *tables;
    uint64_t pos = 0;
    int ret = 0;

    if (!s->nb_bitmaps) {
        return 0;
    }
    tables = qcow2_check_tables_new();
    qcow2_check_count(chk, s->bitmap_directory_offset,
                      s->bitmap_directory_size);
    for (uint32_t i = 0; i < s->nb_bitmaps && ret == 0; i++) {
        ret = pos == s->bitmap_directory_size ?
              broken_bitmaps("Less bitmaps found than specified in header "
                             "extension") : take_bitmap(chk, &pos, tables);
    }
    if (ret == 0 && pos != s->bitmap_directory_size) {
        ret = broken_bitmaps("More bitmaps found than specified in header "
                             "extension");
    }
    ret = ret < 0 ? ret : count_tables(chk, tables);
    g_array_free(tables, true);
    return ret;
}
