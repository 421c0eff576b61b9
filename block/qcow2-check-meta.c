/*
 * qcow2 check: snapshots and bitmaps.
 *
 * Both are tables of entries of any length, whose number and sizes come from
 * the file: they are read entry by entry, and everything is bounded before it
 * is allocated.  A table that cannot be followed to its end is no reason to
 * call what it may refer to leaked: the check fails, and repairs nothing.
 *
 * Source: "QEMU QCOW Image Format", sections "Snapshots", "Bitmaps".
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-bitmap.h"
#include "qcow2-check.h"
#include "qemu/bswap.h"
#include "qemu/error.h"

#define SNAPSHOT_ENTRY_SIZE 40
#define SNAPSHOT_V3_EXTRA 16
#define SNAPSHOT_MAX_EXTRA 1024
#define SNAPSHOT_MAX_TABLE (UINT64_C(1024) * QCOW2_MAX_SNAPSHOTS)

/* ---- Snapshots ---- */

typedef struct SnapshotEntry {
    uint64_t l1_offset;
    uint32_t l1_size;
    uint16_t id_size, name_size;
    uint32_t extra_size;
    uint64_t length;                /* of the entry, with padding */
} SnapshotEntry;

static int read_snapshot(const Qcow2Check *chk, int64_t offset,
                         SnapshotEntry *e)
{
    uint8_t buf[SNAPSHOT_ENTRY_SIZE];
    int ret = qcow2_check_read(chk, offset, sizeof(buf), buf);

    if (ret < 0) {
        return ret;
    }
    *e = (SnapshotEntry) {
        .l1_offset = ldq_be_p(buf),
        .l1_size = ldl_be_p(buf + 8),
        .id_size = lduw_be_p(buf + 12),
        .name_size = lduw_be_p(buf + 14),
        .extra_size = ldl_be_p(buf + 36),
    };
    e->length = ROUND_UP((uint64_t)SNAPSHOT_ENTRY_SIZE + e->extra_size +
                         e->id_size + e->name_size, 8);
    return 0;
}

static int too_many_snapshots(uint32_t n)
{
    error_report("ERROR snapshot table too large");
    error_printf("You can force-remove all %" PRIu32 " overhanging snapshots "
                 "with qemu-img check -r all\n", n - QCOW2_MAX_SNAPSHOTS);
    return -EFBIG;
}

static int too_much_extra(uint32_t i)
{
    error_report("ERROR failed to read the snapshot table: Too much extra "
                 "metadata in snapshot table entry %" PRIu32, i);
    error_printf("You can force-remove this extra metadata with qemu-img "
                 "check -r all\n");
    return -EFBIG;
}

static int check_snapshot_entry(Qcow2Check *chk, uint32_t i, uint64_t *pos,
                                GString *incomplete)
{
    SnapshotEntry e;
    int ret = read_snapshot(chk, chk->s->snapshots_offset + *pos, &e);

    if (ret < 0) {
        error_report("ERROR failed to read the snapshot table: %s",
                     g_strerror(-ret));
        return ret;
    }
    if (e.extra_size > SNAPSHOT_MAX_EXTRA) {
        return too_much_extra(i);
    }
    if (chk->s->qcow_version >= 3 && e.extra_size < SNAPSHOT_V3_EXTRA) {
        g_string_append_printf(incomplete, "ERROR snapshot table entry %"
                               PRIu32 " is incomplete\n", i);
        chk->bad_snapshots++;
    }
    *pos += e.length;
    if (*pos > SNAPSHOT_MAX_TABLE) {
        error_report("ERROR failed to read the snapshot table: snapshot table "
                     "is too big");
        return -EFBIG;
    }
    return 0;
}

int qcow2_check_snapshot_table(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    uint64_t offset = s->snapshots_offset, pos = 0;
    g_autoptr(GString) incomplete = g_string_new(NULL);
    int ret = 0;

    if (!s->nb_snapshots) {
        return 0;
    }
    if (s->nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        return too_many_snapshots(s->nb_snapshots);
    }
    if ((offset & (s->cluster_size - 1)) ||
        offset > INT64_MAX - 2 * SNAPSHOT_MAX_TABLE) {
        error_report("ERROR snapshot table offset invalid");
        return -EINVAL;
    }
    for (uint32_t i = 0; i < s->nb_snapshots && ret == 0; i++) {
        ret = check_snapshot_entry(chk, i, &pos, incomplete);
    }
    chk->snapshot_table_bytes = pos;
    if (ret == 0 && incomplete->len) {
        qcow2_check_say("%s", incomplete->str);
    }
    return ret;
}

static char *snapshot_string(const Qcow2Check *chk, int64_t offset,
                             uint16_t size)
{
    char *text = g_malloc0(size + 1);

    if (qcow2_check_read(chk, offset, size, text) < 0) {
        text[0] = '\0';
    }
    return text;
}

/* @what: a number of the entry, which is wrong in some way. */
static void say_bad_snapshot(Qcow2Check *chk, int64_t offset,
                             const SnapshotEntry *e, const char *what,
                             uint64_t value, const char *wrong)
{
    int64_t pos = offset + SNAPSHOT_ENTRY_SIZE + e->extra_size;
    g_autofree char *id = snapshot_string(chk, pos, e->id_size);
    g_autofree char *name = snapshot_string(chk, pos + e->id_size,
                                            e->name_size);

    qcow2_check_say("ERROR snapshot %s (%s) %s=0x%" PRIx64 ": %s; snapshot "
                    "table entry corrupted\n", id, name, what, value, wrong);
    chk->res->corruptions++;
}

/* No repair of something else may write here. */
static int protect_l1(Qcow2Check *chk, int64_t offset, int64_t bytes)
{
    int ret = 0;

    if (chk->fix && bytes) {
        driver_lock(&chk->s->lock);
        ret = qcow2_metadata_add(chk->s, offset, bytes, QCOW2_OL_INACTIVE_L1);
        driver_unlock(&chk->s->lock);
    }
    return ret;
}

static int count_snapshot_l1(Qcow2Check *chk, const SnapshotEntry *e)
{
    uint64_t bytes = e->l1_size * sizeof(uint64_t);
    g_autofree uint64_t *entries = g_try_malloc(MAX(bytes, 1));
    int ret = entries ? 0 : -ENOMEM;

    if (!qcow2_check_inside(chk, e->l1_offset, bytes)) {
        qcow2_check_count(chk, e->l1_offset, bytes);    /* complains */
        if (e->l1_offset >= (uint64_t)chk->file_bytes) {
            return 0;
        }
        chk->res->corruptions--;
        bytes = ROUND_DOWN(chk->file_bytes - e->l1_offset, 8);
    }
    if (ret == 0) {
        ret = qcow2_check_read(chk, e->l1_offset, bytes, entries);
    }
    if (ret < 0) {
        qcow2_check_say("ERROR: I/O error in check_refcounts_l1\n");
        chk->res->check_errors++;
        return ret;
    }
    for (uint32_t i = 0; i < bytes / sizeof(uint64_t); i++) {
        entries[i] = GUINT64_FROM_BE(entries[i]);
    }
    ret = protect_l1(chk, e->l1_offset, bytes);
    if (ret < 0) {
        return ret;
    }
    return qcow2_check_count_l1(chk, e->l1_offset, entries,
                                bytes / sizeof(uint64_t), false);
}

static int count_snapshot(Qcow2Check *chk, int64_t offset,
                          const SnapshotEntry *e)
{
    if (e->l1_offset & (chk->s->cluster_size - 1)) {
        say_bad_snapshot(chk, offset, e, "l1_offset", e->l1_offset,
                         "L1 table is not cluster aligned");
        return 0;
    }
    if (e->l1_size > QCOW2_MAX_L1_SIZE / sizeof(uint64_t)) {
        say_bad_snapshot(chk, offset, e, "l1_size", e->l1_size,
                         "L1 table is too large");
        return 0;
    }
    return count_snapshot_l1(chk, e);
}

int qcow2_check_count_snapshots(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    int64_t offset = s->snapshots_offset;
    int ret = 0;

    for (uint32_t i = 0; i < s->nb_snapshots && ret == 0; i++) {
        SnapshotEntry e;

        ret = read_snapshot(chk, offset, &e);
        if (ret == 0) {
            ret = count_snapshot(chk, offset, &e);
            offset += e.length;
        }
    }
    if (ret == 0) {
        qcow2_check_count(chk, s->snapshots_offset,
                          chk->snapshot_table_bytes);
    }
    return ret;
}

/* ---- Bitmaps ---- */

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

/* The entry of the directory at @pos of it. */
static int count_bitmap(Qcow2Check *chk, uint64_t *pos)
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
    return count_bitmap_table(chk, ldq_be_p(buf), ldl_be_p(buf + 8));
}

int qcow2_check_count_bitmaps(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    uint64_t pos = 0;
    int ret = 0;

    if (!s->nb_bitmaps) {
        return 0;
    }
    qcow2_check_count(chk, s->bitmap_directory_offset,
                      s->bitmap_directory_size);
    for (uint32_t i = 0; i < s->nb_bitmaps && ret == 0; i++) {
        ret = pos == s->bitmap_directory_size ?
              broken_bitmaps("Less bitmaps found than specified in header "
                             "extension") : count_bitmap(chk, &pos);
    }
    if (ret == 0 && pos != s->bitmap_directory_size) {
        ret = broken_bitmaps("More bitmaps found than specified in header "
                             "extension");
    }
    return ret;
}
