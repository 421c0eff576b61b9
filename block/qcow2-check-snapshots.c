/*
 * qcow2 check: the snapshot table, and the snapshots that it has.
 *
 * The table is read once, before anything is counted, into a list.  It comes
 * from the file, so everything is bounded before it is allocated; what is past
 * the end of the file reads as zeroes.  A table that cannot be followed to its
 * end is no reason to call what it may refer to leaked: the check fails, and
 * repairs nothing.
 *
 * Unless errors are to be repaired: then what is beyond the limits is left out
 * of the list.  That is no loss, as nobody opens an image with such a table.
 * If that is all, the header says so at once, and what those snapshots referred
 * to is leaked.  A table with other entries is written last, when refcounts are
 * right and clusters can be allocated as ever; the old one's clusters are in
 * use until then.  So a repair that is interrupted before finds the same table
 * again, and leaves out the same.
 *
 * Clusters of the table that are behind the end of the file are in use as well
 * as long as errors are repaired: the file may grow, and what the repair puts
 * there would be read as the table, by which the image might not even open.
 *
 * Source: "QEMU QCOW Image Format", section "Snapshots".
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-check.h"
#include "qcow2-header.h"
#include "qcow2-snapshot.h"
#include "qemu/atomic.h"
#include "qemu/error.h"

/* ---- The table ---- */

static bool fixes(const Qcow2Check *chk)
{
    return qcow2_check_fixes(chk, BDRV_FIX_ERRORS);
}

static int hint_at_repair(uint32_t n)
{
    error_printf("You can force-remove all %" PRIu32 " overhanging snapshots "
                 "with qemu-img check -r all\n", n);
    return -EFBIG;
}

/* More than there may be: the first ones are kept. */
static int limit_snapshots(Qcow2Check *chk)
{
    uint32_t n = chk->n_snapshots - QCOW2_MAX_SNAPSHOTS;

    if (!fixes(chk)) {
        error_report("ERROR snapshot table too large");
        return hint_at_repair(n);
    }
    qcow2_check_say("Discarding %" PRIu32 " overhanging snapshots\n", n);
    chk->lost_snapshots += n;
    chk->n_snapshots = QCOW2_MAX_SNAPSHOTS;
    return 0;
}

/* Entry @i is the first that ends too far from the table's start. */
static int limit_table(Qcow2Check *chk, uint32_t i)
{
    uint32_t n = chk->n_snapshots - i;

    if (!fixes(chk)) {
        error_report("ERROR failed to read the snapshot table: Snapshot table "
                     "is too big");
        return hint_at_repair(n);
    }
    qcow2_check_say("Discarding %" PRIu32 " overhanging snapshots (snapshot "
                    "table is too big)\n", n);
    chk->lost_snapshots += n;
    qcow2_snapshot_clear(&chk->snapshots[i]);
    chk->n_snapshots = i;
    return 0;
}

static int limit_extra(Qcow2Check *chk, uint32_t i, uint32_t size)
{
    if (!fixes(chk)) {
        error_report("ERROR failed to read the snapshot table: Too much extra "
                     "metadata in snapshot table entry %" PRIu32, i);
        error_printf("You can force-remove this extra metadata with qemu-img "
                     "check -r all\n");
        return -EFBIG;
    }
    qcow2_check_say("Discarding too much extra metadata in snapshot table "
                    "entry %" PRIu32 " (%" PRIu32 " > %d)\n", i, size,
                    QCOW2_SNAPSHOT_MAX_EXTRA);
    chk->bad_snapshots++;
    return 0;
}

/* What follows the head, without extra data that is too much. */
static int read_rest(const Qcow2Check *chk, int64_t offset,
                     const Qcow2SnapshotHead *head, Qcow2Snapshot *sn)
{
    Qcow2SnapshotHead kept = *head;
    int64_t text_size = head->id_size + head->name_size;
    g_autofree uint8_t *buf = NULL;
    int ret;

    kept.extra_size = MIN(head->extra_size, QCOW2_SNAPSHOT_MAX_EXTRA);
    buf = g_malloc(kept.extra_size + text_size + 1);
    ret = qcow2_check_read(chk, offset, kept.extra_size, buf);
    if (ret == 0) {
        ret = qcow2_check_read(chk, offset + head->extra_size, text_size,
                               buf + kept.extra_size);
    }
    if (ret == 0) {
        qcow2_snapshot_parse_rest(chk->s, buf, &kept, sn);
    }
    return ret;
}

/* Entry @i at @pos of the table; *@length is of all of it. */
static int read_entry(Qcow2Check *chk, uint32_t i, int64_t pos,
                      Qcow2SnapshotHead *head, int64_t *length)
{
    int64_t offset = chk->s->snapshots_offset + pos;
    uint8_t buf[QCOW2_SNAPSHOT_HEAD];
    int ret = qcow2_check_read(chk, offset, sizeof(buf), buf);

    if (ret == 0) {
        qcow2_snapshot_parse_head(buf, &chk->snapshots[i], head);
        if (head->extra_size > QCOW2_SNAPSHOT_MAX_EXTRA &&
            limit_extra(chk, i, head->extra_size) < 0) {
            return -EFBIG;
        }
        *length = (int64_t)sizeof(buf) + head->extra_size + head->id_size +
                  head->name_size;
        ret = read_rest(chk, offset + sizeof(buf), head, &chk->snapshots[i]);
    }
    if (ret < 0) {
        error_report("ERROR failed to read the snapshot table: %s",
                     g_strerror(-ret));
    }
    return ret;
}

/* Nobody opens an image for writing before all of its table is. */
static bool is_in_file(const Qcow2Check *chk, int64_t end)
{
    return chk->s->snapshots_offset + end <= chk->file_bytes;
}

static int take_entry(Qcow2Check *chk, uint32_t i, int64_t *pos,
                      GString *incomplete)
{
    Qcow2SnapshotHead head = { 0 };
    int64_t length = 0;
    int ret;

    *pos = ROUND_UP(*pos, 8);
    ret = read_entry(chk, i, *pos, &head, &length);
    if (ret < 0) {
        return ret;
    }
    if (*pos + length > QCOW2_MAX_SNAPSHOT_TABLE) {
        /* Its head says that this is the end: to be kept until a new table is
         * there. */
        *pos += chk->bad_snapshots ? QCOW2_SNAPSHOT_HEAD : 0;
        return limit_table(chk, i);
    }
    if (chk->s->qcow_version >= 3 &&
        head.extra_size < QCOW2_SNAPSHOT_V3_EXTRA) {
        g_string_append_printf(incomplete, "%s snapshot table entry %" PRIu32
                               " is incomplete\n",
                               fixes(chk) ? "Repairing" : "ERROR", i);
        chk->bad_snapshots++;
    } else if (!is_in_file(chk, *pos + length)) {
        g_string_append_printf(incomplete, "%s snapshot table entry %" PRIu32
                               " ends beyond the end of the file\n",
                               fixes(chk) ? "Repairing" : "ERROR", i);
        chk->bad_snapshots++;
    }
    *pos += length;
    return 0;
}

/* The entries that are left are as they were: fewer of them. */
static int shorten_table(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    uint32_t n = s->nb_snapshots;
    int ret;

    driver_lock(&s->lock);
    s->nb_snapshots = chk->n_snapshots;
    ret = qcow2_update_header(chk->bs);
    if (ret < 0) {
        s->nb_snapshots = n;
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        qcow2_check_say("ERROR failed to update the snapshot count in the "
                        "header: %s\n", g_strerror(-ret));
        return ret;
    }
    chk->res->corruptions_fixed += chk->lost_snapshots;
    chk->lost_snapshots = 0;
    return 0;
}

static int bad_offset(void)
{
    error_report("ERROR snapshot table offset invalid");
    return -EINVAL;
}

/* There are no snapshots, but the offset says where, and nobody opens the image
 * if it makes no sense.  It refers to nothing, so nothing is lost. */
static int check_no_table(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    uint64_t offset = s->snapshots_offset;
    int ret;

    if (qcow2_table_range_ok(offset, 0, 1, s->cluster_size)) {
        return 0;
    }
    if (!fixes(chk)) {
        return bad_offset();
    }
    qcow2_check_say("Repairing snapshot table offset 0x%" PRIx64 "\n", offset);
    driver_lock(&s->lock);
    s->snapshots_offset = 0;
    ret = qcow2_update_header(chk->bs);
    if (ret < 0) {
        s->snapshots_offset = offset;
    }
    driver_unlock(&s->lock);
    chk->res->corruptions_fixed += ret == 0;
    return ret;
}

int qcow2_check_snapshot_table(Qcow2Check *chk)
{
    uint64_t offset = chk->s->snapshots_offset;
    g_autoptr(GString) incomplete = g_string_new(NULL);
    int64_t pos = 0;
    int ret;

    chk->n_snapshots = chk->s->nb_snapshots;
    if (!chk->n_snapshots) {
        return check_no_table(chk);
    }
    ret = chk->n_snapshots > QCOW2_MAX_SNAPSHOTS ? limit_snapshots(chk) : 0;
    if (ret == 0 && ((offset & (chk->s->cluster_size - 1)) ||
                     offset > INT64_MAX - 2 * QCOW2_MAX_SNAPSHOT_TABLE)) {
        ret = bad_offset();
    }
    if (ret < 0) {
        chk->n_snapshots = 0;
        return ret;
    }
    chk->snapshots = g_new0(Qcow2Snapshot, chk->n_snapshots);
    for (uint32_t i = 0; i < chk->n_snapshots && ret == 0; i++) {
        ret = take_entry(chk, i, &pos, incomplete);
    }
    chk->snapshot_table_bytes = pos;
    if (ret == 0 && incomplete->len) {
        qcow2_check_say("%s", incomplete->str);
    }
    return ret == 0 && chk->lost_snapshots && !chk->bad_snapshots ?
           shorten_table(chk) : ret;
}

void qcow2_check_free_snapshots(Qcow2Check *chk)
{
    for (uint32_t i = 0; i < chk->n_snapshots && chk->snapshots; i++) {
        qcow2_snapshot_clear(&chk->snapshots[i]);
    }
    g_free(chk->snapshots);
    chk->snapshots = NULL;
    chk->n_snapshots = 0;
}

/* ---- What snapshots refer to ---- */

/* @what: a number of the entry, which is wrong in some way. */
static void say_bad_snapshot(Qcow2Check *chk, const Qcow2Snapshot *sn,
                             const char *what, uint64_t value,
                             const char *wrong)
{
    qcow2_check_say("ERROR snapshot %s (%s) %s=0x%" PRIx64 ": %s; snapshot "
                    "table entry corrupted\n", sn->id_str, sn->name, what,
                    value, wrong);
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

static int count_snapshot_l1(Qcow2Check *chk, const Qcow2Snapshot *sn)
{
    uint64_t offset = sn->l1_table_offset;
    uint64_t bytes = sn->l1_size * sizeof(uint64_t);
    g_autofree uint64_t *entries = g_try_malloc(MAX(bytes, 1));
    int ret = entries ? 0 : -ENOMEM;

    if (!qcow2_check_inside(chk, offset, bytes)) {
        qcow2_check_count(chk, offset, bytes);          /* complains */
        if (offset >= (uint64_t)chk->file_bytes) {
            return 0;
        }
        chk->res->corruptions--;
        bytes = ROUND_DOWN(chk->file_bytes - offset, 8);
    }
    if (ret == 0) {
        ret = qcow2_check_read(chk, offset, bytes, entries);
    }
    if (ret < 0) {
        qcow2_check_say("ERROR: I/O error in check_refcounts_l1\n");
        chk->res->check_errors++;
        return ret;
    }
    for (uint32_t i = 0; i < bytes / sizeof(uint64_t); i++) {
        entries[i] = GUINT64_FROM_BE(entries[i]);
    }
    ret = protect_l1(chk, offset, bytes);
    if (ret < 0) {
        return ret;
    }
    return qcow2_check_count_l1(chk, offset, entries,
                                bytes / sizeof(uint64_t), false);
}

static bool is_good_l1(const Qcow2Check *chk, const Qcow2Snapshot *sn)
{
    return !(sn->l1_table_offset & (chk->s->cluster_size - 1)) &&
           sn->l1_size <= QCOW2_MAX_L1_SIZE / sizeof(uint64_t);
}

static int count_snapshot(Qcow2Check *chk, const Qcow2Snapshot *sn)
{
    if (sn->l1_table_offset & (chk->s->cluster_size - 1)) {
        say_bad_snapshot(chk, sn, "l1_offset", sn->l1_table_offset,
                         "L1 table is not cluster aligned");
        return 0;
    }
    if (sn->l1_size > QCOW2_MAX_L1_SIZE / sizeof(uint64_t)) {
        say_bad_snapshot(chk, sn, "l1_size", sn->l1_size,
                         "L1 table is too large");
        return 0;
    }
    return count_snapshot_l1(chk, sn);
}

/* Of the table; what is past the end of the file cannot be in use. */
static uint64_t table_bytes_in_file(const Qcow2Check *chk)
{
    uint64_t offset = chk->s->snapshots_offset;

    return qcow2_check_inside(chk, offset, chk->snapshot_table_bytes) ?
           chk->snapshot_table_bytes : offset < (uint64_t)chk->file_bytes ?
           chk->file_bytes - offset : 0;
}

/* Unless there is going to be another table and the file could grow to there:
 * it does not by more than the clusters that have counts. */
static uint64_t table_bytes_in_use(const Qcow2Check *chk)
{
    uint64_t end = chk->s->snapshots_offset + chk->snapshot_table_bytes;

    return fixes(chk) && chk->bad_snapshots &&
           end <= (uint64_t)chk->room << chk->s->cluster_bits ?
           chk->snapshot_table_bytes : table_bytes_in_file(chk);
}

static void count_table(Qcow2Check *chk)
{
    unsigned shift = chk->s->cluster_bits;
    uint64_t offset = chk->s->snapshots_offset;
    uint64_t bytes = table_bytes_in_use(chk);

    if (table_bytes_in_file(chk) < chk->snapshot_table_bytes) {
        qcow2_check_count(chk, offset, chk->snapshot_table_bytes);
    }                                                   /* complains */
    if (bytes) {
        qcow2_check_count_clusters(chk, offset >> shift,
                                   (offset + bytes - 1) >> shift);
    }
}

int qcow2_check_count_snapshots(Qcow2Check *chk)
{
    GArray *tables = qcow2_check_tables_new();
    int ret;

    for (uint32_t i = 0; i < chk->n_snapshots; i++) {
        qcow2_check_tables_add(tables, chk->snapshots[i].l1_table_offset,
                               is_good_l1(chk, &chk->snapshots[i]) ?
                               chk->snapshots[i].l1_size * sizeof(uint64_t) :
                               0);
    }
    ret = qcow2_check_tables_share(chk, tables);
    for (uint32_t i = 0; i < tables->len && ret == 0; i++) {
        Qcow2SharedTable *t = &g_array_index(tables, Qcow2SharedTable, i);

        chk->users = t->bytes ? t->users : 1;
        ret = chk->users ? count_snapshot(chk, &chk->snapshots[i]) : 0;
    }
    chk->users = 0;
    g_array_free(tables, true);
    if (ret == 0) {
        count_table(chk);
    }
    return ret;
}

/* ---- A new table ---- */

/* The list of the check becomes that of the image, and the other way round. */
static void exchange_lists(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    Qcow2Snapshot *snapshots = s->snapshots;
    uint32_t n = s->nb_snapshots;

    s->snapshots = chk->snapshots;
    s->nb_snapshots = chk->n_snapshots;
    chk->snapshots = snapshots;
    chk->n_snapshots = n;
}

/* @may_flag: each table of the disk is one. */
static int write_list(BlockDriverState *bs, bool may_flag)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    driver_lock(&s->lock);
    ret = qcow2_write_snapshots(bs);
    if (ret == 0) {
        /* What lies in the old table has a reference less now.  Without its
         * flag it is copied when it is written, which harms nobody. */
        s->copied_stale = may_flag;
        ret = qcow2_settle(bs);
    }
    driver_unlock(&s->lock);
    return ret;
}

/*
 * Whoever opens an image to check it has no list of its snapshots, because it
 * could not have been read: nor is there to be one afterwards.
 */
static void drop_list(Qcow2Check *chk, bool had_list)
{
    BDRVQcow2State *s = chk->s;
    uint32_t n = s->nb_snapshots;

    if (!had_list) {
        qcow2_free_snapshots(s);
        s->nb_snapshots = n;
    }
}

/*
 * The new table may make the file longer, and nobody has looked at refcounts of
 * what is behind its end: they would be leaks then.  A rebuild has left none,
 * and where corruptions stay there may be damaged entries that these refcounts
 * guard.
 */
static int clear_behind(Qcow2Check *chk)
{
    return chk->need_rebuild || chk->res->corruptions ||
           !qcow2_check_fixes(chk, BDRV_FIX_LEAKS) ? 0 :
           qcow2_check_clear_behind(chk);
}

int qcow2_check_repair_snapshots(Qcow2Check *chk)
{
    BlockDriverState *bs = chk->bs;
    BDRVQcow2State *s = chk->s;
    bool had_list = s->snapshots, was_corrupt = qatomic_read(&s->corrupt);
    bool may_flag;
    int ret;

    if (!chk->bad_snapshots || !fixes(chk) || chk->res->check_errors) {
        return 0;
    }
    ret = qcow2_check_tables_are_sound(chk, &may_flag);
    ret = ret < 0 ? ret : clear_behind(chk);
    /* What the driver has in memory is from before the repair. */
    ret = ret < 0 ? ret : qcow2_repair_reload(bs);
    if (ret == 0) {
        s->snapshots_size = table_bytes_in_use(chk);
        qatomic_set(&s->corrupt, false);
        exchange_lists(chk);
        ret = write_list(bs, may_flag);
        if (ret < 0) {
            exchange_lists(chk);
        } else {
            drop_list(chk, had_list);
        }
        qatomic_set(&s->corrupt, was_corrupt);
    }
    if (ret < 0) {
        qcow2_check_say("ERROR failed to update snapshot table: %s\n",
                        g_strerror(-ret));
        return ret;
    }
    chk->res->corruptions_fixed += chk->bad_snapshots + chk->lost_snapshots;
    chk->bad_snapshots = chk->lost_snapshots = 0;
    return 0;
}
