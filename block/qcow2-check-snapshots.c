/*
 * qcow2 check: the snapshot table, and the snapshots that it has.
 *
 * The table is read once, before anything is counted, into a list.  It comes
 * from the file, so everything is bounded before it is allocated; what is past
 * the end of the file reads as zeroes.  A table that cannot be followed to its
 * end is no reason to call what it may refer to leaked: the check fails, and
 * repairs nothing.
 *
 * Source: "QEMU QCOW Image Format", section "Snapshots".
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-check.h"
#include "qcow2-snapshot.h"
#include "qemu/error.h"

/* ---- The table ---- */

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

static int too_big_table(uint32_t n)
{
    error_report("ERROR failed to read the snapshot table: Snapshot table is "
                 "too big");
    error_printf("You can force-remove all %" PRIu32 " overhanging snapshots "
                 "with qemu-img check -r all\n", n);
    return -EFBIG;
}

/* The entry at @offset of the file, its length in *@length. */
static int read_entry(const Qcow2Check *chk, int64_t offset, Qcow2Snapshot *sn,
                      Qcow2SnapshotHead *head, int64_t *length)
{
    uint8_t buf[QCOW2_SNAPSHOT_HEAD];
    g_autofree uint8_t *rest = NULL;
    int64_t rest_size;
    int ret = qcow2_check_read(chk, offset, sizeof(buf), buf);

    if (ret < 0) {
        return ret;
    }
    qcow2_snapshot_parse_head(buf, sn, head);
    if (head->extra_size > QCOW2_SNAPSHOT_MAX_EXTRA) {
        return -EFBIG;
    }
    rest_size = head->extra_size + head->id_size + head->name_size;
    *length = ROUND_UP(sizeof(buf) + rest_size, 8);
    rest = g_malloc(rest_size + 1);
    ret = qcow2_check_read(chk, offset + sizeof(buf), rest_size, rest);
    if (ret == 0) {
        qcow2_snapshot_parse_rest(chk->s, rest, head, sn);
    }
    return ret;
}

static int take_entry(Qcow2Check *chk, uint32_t i, int64_t *pos,
                      GString *incomplete)
{
    Qcow2SnapshotHead head = { 0 };
    int64_t length;
    int ret = read_entry(chk, chk->s->snapshots_offset + *pos,
                         &chk->snapshots[i], &head, &length);

    if (head.extra_size > QCOW2_SNAPSHOT_MAX_EXTRA) {
        return too_much_extra(i);
    }
    if (ret < 0) {
        error_report("ERROR failed to read the snapshot table: %s",
                     g_strerror(-ret));
        return ret;
    }
    if (*pos + length > QCOW2_MAX_SNAPSHOT_TABLE) {
        return too_big_table(chk->n_snapshots - i);
    }
    if (chk->s->qcow_version >= 3 &&
        head.extra_size < QCOW2_SNAPSHOT_V3_EXTRA) {
        g_string_append_printf(incomplete, "ERROR snapshot table entry %"
                               PRIu32 " is incomplete\n", i);
        chk->bad_snapshots++;
    }
    *pos += length;
    return 0;
}

int qcow2_check_snapshot_table(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    uint64_t offset = s->snapshots_offset;
    g_autoptr(GString) incomplete = g_string_new(NULL);
    int64_t pos = 0;
    int ret = 0;

    if (!s->nb_snapshots) {
        return 0;
    }
    if (s->nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        return too_many_snapshots(s->nb_snapshots);
    }
    if ((offset & (s->cluster_size - 1)) ||
        offset > INT64_MAX - 2 * QCOW2_MAX_SNAPSHOT_TABLE) {
        error_report("ERROR snapshot table offset invalid");
        return -EINVAL;
    }
    chk->n_snapshots = s->nb_snapshots;
    chk->snapshots = g_new0(Qcow2Snapshot, chk->n_snapshots);
    for (uint32_t i = 0; i < chk->n_snapshots && ret == 0; i++) {
        ret = take_entry(chk, i, &pos, incomplete);
    }
    chk->snapshot_table_bytes = pos;
    if (ret == 0 && incomplete->len) {
        qcow2_check_say("%s", incomplete->str);
    }
    return ret;
}

void qcow2_check_free_snapshots(Qcow2Check *chk)
{
    for (uint32_t i = 0; i < chk->n_snapshots; i++) {
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

int qcow2_check_count_snapshots(Qcow2Check *chk)
{
    int ret = 0;

    for (uint32_t i = 0; i < chk->n_snapshots && ret == 0; i++) {
        ret = count_snapshot(chk, &chk->snapshots[i]);
    }
    if (ret == 0) {
        qcow2_check_count(chk, chk->s->snapshots_offset,
                          chk->snapshot_table_bytes);
    }
    return ret;
}
