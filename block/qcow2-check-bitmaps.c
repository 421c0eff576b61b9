/*
 * qcow2 check: bitmaps.
 *
 * The directory is a table of entries of any length, whose number and sizes
 * come from the file: it is read entry by entry, and everything is bounded
 * before it is allocated.  A directory that cannot be followed to its end is
 * no reason to call what it may refer to leaked: the check fails, and repairs
 * nothing.
 *
 * What keeps bitmaps from being loaded, and so the image from being opened, is
 * a corruption at least.  No repair helps: which bits are right nobody knows.
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
#include "qemu/hbitmap.h"

#define BITMAP_ENTRY_SIZE 24
#define BITMAP_TYPE_DIRTY 1
#define BITMAP_READ_ENTRIES 8192

typedef struct Directory {
    Qcow2Check *chk;
    uint64_t pos;                   /* of the next entry */
    GHashTable *names;              /* of those before it */
    GArray *tables;                 /* theirs: Qcow2SharedTable */
} Directory;

static int broken_bitmaps(const char *what)
{
    error_report("%s", what);
    return -EINVAL;
}

/* One that refers to no cluster, or who knows which. */
static void count_bitmap_entry(Qcow2Check *chk, uint64_t entry)
{
    if (qcow2_bitmap_check_entry(chk->s, entry) < 0) {
        qcow2_check_say("ERROR invalid bitmap table entry: 0x%" PRIx64 "\n",
                        entry);
        chk->res->corruptions++;
    } else if (entry & QCOW2_BITMAP_OFFSET_MASK) {
        qcow2_check_count(chk, entry & QCOW2_BITMAP_OFFSET_MASK,
                          chk->s->cluster_size);
    }
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
            count_bitmap_entry(chk, GUINT64_FROM_BE(entries[i]));
        }
        offset += bytes;
    }
    return 0;
}

/* May the entry at @p be what it says? */
static bool bitmap_is_valid(const BDRVQcow2State *s, const uint8_t *p)
{
    uint64_t offset = ldq_be_p(p);
    uint32_t flags = ldl_be_p(p + 12);

    return offset && QEMU_IS_ALIGNED(offset, s->cluster_size) &&
           offset <= QCOW2_BITMAP_OFFSET_MASK && ldl_be_p(p + 8) &&
           ldl_be_p(p + 8) <= QCOW2_BITMAP_MAX_BYTES / s->cluster_size &&
           !(flags & ~(uint32_t)QCOW2_BITMAP_FLAGS) &&
           (!ldl_be_p(p + 20) || (flags & QCOW2_BITMAP_EXTRA_COMPAT)) &&
           p[16] == BITMAP_TYPE_DIRTY &&
           p[17] >= QCOW2_BITMAP_MIN_GRANULARITY_BITS &&
           p[17] <= QCOW2_BITMAP_MAX_GRANULARITY_BITS;
}

/*
 * The table has the bits of the disk.  Only one that was in use when the disk's
 * length changed, and then came a crash, fits the length before; nobody loads
 * it.  Either way its clusters count.
 */
static void check_length(Qcow2Check *chk, const uint8_t *p)
{
    int64_t bytes = hbitmap_data_size(chk->s->disk_size, 1u << p[17]);

    if (!(ldl_be_p(p + 12) & QCOW2_BITMAP_IN_USE) &&
        ldl_be_p(p + 8) != DIV_ROUND_UP(bytes, chk->s->cluster_size)) {
        qcow2_check_say("ERROR bitmap table of %" PRIu32 " entries does not "
                        "fit the disk\n", ldl_be_p(p + 8));
        chk->res->corruptions++;
    }
}

/* The name of @size bytes at @pos of the directory: there is one, without a NUL
 * inside, and no other bitmap has it. */
static int take_name(Directory *d, uint64_t pos, uint16_t size)
{
    g_autofree char *name = g_malloc0(size + 1);
    int ret = qcow2_check_read(d->chk, d->chk->s->bitmap_directory_offset + pos,
                               size, name);

    if (ret < 0) {
        return ret;
    }
    if (!size || size > BDRV_BITMAP_MAX_NAME_SIZE || strlen(name) != size) {
        return broken_bitmaps("Bitmap doesn't satisfy the constraints");
    }
    return g_hash_table_add(d->names, g_steal_pointer(&name)) ? 0 :
           broken_bitmaps("Bitmap already exists");
}

/* The next entry: its table is one of d->tables. */
static int take_bitmap(Directory *d)
{
    BDRVQcow2State *s = d->chk->s;
    uint64_t left = s->bitmap_directory_size - d->pos, length;
    uint8_t buf[BITMAP_ENTRY_SIZE];
    int ret;

    if (left < sizeof(buf)) {
        return broken_bitmaps("Broken bitmap directory");
    }
    ret = qcow2_check_read(d->chk, s->bitmap_directory_offset + d->pos,
                           sizeof(buf), buf);
    if (ret < 0) {
        return ret;
    }
    length = (uint64_t)BITMAP_ENTRY_SIZE + lduw_be_p(buf + 18) +
             ldl_be_p(buf + 20);
    if (ROUND_UP(length, 8) > left) {
        return broken_bitmaps("Broken bitmap directory");
    }
    if (!bitmap_is_valid(s, buf)) {
        return broken_bitmaps("Bitmap doesn't satisfy the constraints");
    }
    check_length(d->chk, buf);
    qcow2_check_tables_add(d->tables, ldq_be_p(buf),
                           ldl_be_p(buf + 8) * (uint64_t)sizeof(uint64_t));
    ret = take_name(d, d->pos + length - lduw_be_p(buf + 18),
                    lduw_be_p(buf + 18));
    d->pos += ROUND_UP(length, 8);
    return ret;
}

static int take_bitmaps(Directory *d)
{
    BDRVQcow2State *s = d->chk->s;
    int ret = 0;

    for (uint32_t i = 0; i < s->nb_bitmaps && ret == 0; i++) {
        ret = d->pos == s->bitmap_directory_size ?
              broken_bitmaps("Less bitmaps found than specified in header "
                             "extension") : take_bitmap(d);
    }
    if (ret == 0 && d->pos != s->bitmap_directory_size) {
        ret = broken_bitmaps("More bitmaps found than specified in header "
                             "extension");
    }
    return ret;
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
    Directory d = { .chk = chk };
    int ret;

    if (!s->nb_bitmaps) {
        return 0;
    }
    d.names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    d.tables = qcow2_check_tables_new();
    qcow2_check_count(chk, s->bitmap_directory_offset,
                      s->bitmap_directory_size);
    ret = take_bitmaps(&d);
    ret = ret < 0 ? ret : count_tables(chk, d.tables);
    g_array_free(d.tables, true);
    g_hash_table_destroy(d.names);
    return ret;
}
