/*
 * qcow2's snapshot table: reading it at open, and replacing it.
 *
 * A table is never changed in place.  A new one is written to new clusters;
 * then one write of the header's sector makes it the image's, so that a crash
 * leaves the old one or the new one.
 *
 * Source: "QEMU QCOW Image Format", "Snapshots".
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-snapshot.h"
#include "qemu/bswap.h"

#define ENTRY_EXTRA 24                  /* extra data that we know */

/* ---- Entries ---- */

void qcow2_snapshot_clear(Qcow2Snapshot *sn)
{
    g_free(sn->id_str);
    g_free(sn->name);
    g_free(sn->unknown_extra);
    memset(sn, 0, sizeof(*sn));
}

void qcow2_free_snapshots(BDRVQcow2State *s)
{
    for (uint32_t i = 0; i < s->nb_snapshots && s->snapshots; i++) {
        qcow2_snapshot_clear(&s->snapshots[i]);
    }
    g_free(s->snapshots);
    s->snapshots = NULL;
    s->nb_snapshots = 0;
    s->snapshots_size = 0;
}

void qcow2_snapshot_parse_head(const uint8_t *p, Qcow2Snapshot *sn,
                               Qcow2SnapshotHead *head)
{
    sn->l1_table_offset = ldq_be_p(p);
    sn->l1_size = ldl_be_p(p + 8);
    head->id_size = lduw_be_p(p + 12);
    head->name_size = lduw_be_p(p + 14);
    sn->date_sec = ldl_be_p(p + 16);
    sn->date_nsec = ldl_be_p(p + 20);
    sn->vm_clock_nsec = ldq_be_p(p + 24);
    sn->vm_state_size = ldl_be_p(p + 32);
    head->extra_size = ldl_be_p(p + 36);
}

void qcow2_snapshot_parse_rest(const BDRVQcow2State *s, const uint8_t *p,
                               const Qcow2SnapshotHead *head,
                               Qcow2Snapshot *sn)
{
    /* Version 2, where a disk with snapshots cannot be resized.  Later, and in
     * what we write, it can. */
    sn->disk_size = s->disk_size;
    sn->icount = UINT64_MAX;
    if (head->extra_size >= 8) {
        sn->vm_state_size = ldq_be_p(p);
    }
    if (head->extra_size >= QCOW2_SNAPSHOT_V3_EXTRA) {
        sn->disk_size = ldq_be_p(p + 8);
    }
    if (head->extra_size >= 24) {
        sn->icount = ldq_be_p(p + 16);
    }
    if (head->extra_size > ENTRY_EXTRA) {
        sn->unknown_extra_size = head->extra_size - ENTRY_EXTRA;
        sn->unknown_extra = g_memdup2(p + ENTRY_EXTRA,
                                      sn->unknown_extra_size);
    }
    p += head->extra_size;
    sn->id_str = g_strndup((const char *)p, head->id_size);
    sn->name = g_strndup((const char *)p + head->id_size, head->name_size);
}

bool qcow2_snapshots_may_change(const BDRVQcow2State *s, Error **errp)
{
    if (s->snapshots_cut_off) {
        error_setg(errp, "The snapshot table lies beyond the end of the file");
        error_append_hint(errp, "You can open the image read-only, or replace "
                          "the table with qemu-img check -r all\n");
    }
    return !s->snapshots_cut_off;
}

/*
 * What is past the end of the file reads as zeroes.  But nobody is to write
 * there: the next cluster that is allocated could become part of the table.
 */
static bool read_bytes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       void *buf, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t length = bdrv_getlength(bs->file->bs);
    int64_t inside = CLAMP(length - offset, 0, bytes);
    /* 8: entries begin at multiples of it. */
    int ret = length < 0 ? length :
              offset > INT64_MAX - 8 - bytes ? -EINVAL : 0;

    if (ret == 0 && inside < bytes) {
        s->snapshots_cut_off = true;
        memset((uint8_t *)buf + inside, 0, bytes - inside);
    }
    if (ret == 0 && inside) {
        ret = bdrv_pread(bs->file, offset, inside, buf, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to read snapshot table");
        return false;
    }
    return !s->writable || qcow2_snapshots_may_change(s, errp);
}

/* Read entry @i at *@offset, which moves on to the next. */
static bool read_entry(BlockDriverState *bs, uint32_t i, int64_t *offset,
                       Qcow2Snapshot *sn, Error **errp)
{
    const BDRVQcow2State *s = bs->opaque;
    uint8_t fixed[QCOW2_SNAPSHOT_HEAD];
    g_autofree uint8_t *rest = NULL;
    Qcow2SnapshotHead head;
    size_t rest_size;

    if (!read_bytes(bs, *offset, sizeof(fixed), fixed, errp)) {
        return false;
    }
    qcow2_snapshot_parse_head(fixed, sn, &head);
    if (head.extra_size > QCOW2_SNAPSHOT_MAX_EXTRA) {
        error_setg(errp, "Too much extra metadata in snapshot table entry %u",
                   i);
        error_append_hint(errp, "You can force-remove this extra metadata "
                          "with qemu-img check -r all\n");
        return false;
    }
    rest_size = head.extra_size + head.id_size + head.name_size;
    rest = g_malloc(rest_size + 1);
    if (!read_bytes(bs, *offset + QCOW2_SNAPSHOT_HEAD, rest_size, rest, errp)) {
        return false;
    }
    qcow2_snapshot_parse_rest(s, rest, &head, sn);
    *offset += ROUND_UP(QCOW2_SNAPSHOT_HEAD + rest_size, 8);
    return true;
}

bool qcow2_read_snapshots(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset = s->snapshots_offset;
    uint32_t n = s->nb_snapshots;

    s->snapshots_cut_off = false;
    if (!n) {
        s->snapshots_offset = 0;
        return true;
    }
    /* The number was checked with the header. */
    s->nb_snapshots = 0;
    s->snapshots = g_new0(Qcow2Snapshot, n);
    for (uint32_t i = 0; i < n; i++) {
        s->nb_snapshots++;
        if (!read_entry(bs, i, &offset, &s->snapshots[i], errp)) {
            qcow2_free_snapshots(s);
            return false;
        }
    }
    s->snapshots_size = offset - s->snapshots_offset;
    return true;
}

/* ---- Writing ---- */

static void append_entry(GByteArray *out, const Qcow2Snapshot *sn)
{
    static const uint8_t zeroes[8];
    uint8_t head[QCOW2_SNAPSHOT_HEAD + ENTRY_EXTRA] = { 0 };
    size_t id_size = MIN(strlen(sn->id_str), UINT16_MAX);
    size_t name_size = MIN(strlen(sn->name), UINT16_MAX);

    stq_be_p(head, sn->l1_table_offset);
    stl_be_p(head + 8, sn->l1_size);
    stw_be_p(head + 12, id_size);
    stw_be_p(head + 14, name_size);
    stl_be_p(head + 16, sn->date_sec);
    stl_be_p(head + 20, sn->date_nsec);
    stq_be_p(head + 24, sn->vm_clock_nsec);
    stl_be_p(head + 32, MIN(sn->vm_state_size, UINT32_MAX));
    stl_be_p(head + 36, ENTRY_EXTRA + sn->unknown_extra_size);
    stq_be_p(head + 40, sn->vm_state_size);
    stq_be_p(head + 48, sn->disk_size);
    stq_be_p(head + 56, sn->icount);
    g_byte_array_append(out, head, sizeof(head));
    g_byte_array_append(out, sn->unknown_extra, sn->unknown_extra_size);
    g_byte_array_append(out, (const uint8_t *)sn->id_str, id_size);
    g_byte_array_append(out, (const uint8_t *)sn->name, name_size);
    g_byte_array_append(out, zeroes, ROUND_UP(out->len, 8) - out->len);
}

static GByteArray *serialise(const BDRVQcow2State *s)
{
    GByteArray *out = g_byte_array_new();

    for (uint32_t i = 0; i < s->nb_snapshots; i++) {
        append_entry(out, &s->snapshots[i]);
    }
    return out;
}

/* Durably, so that the header may point there. */
static int write_table(BlockDriverState *bs, int64_t offset,
                       const GByteArray *table)
    EXCLUDES(driver_class)
{
    int ret = qcow2_check_overlap(bs, 0, offset, table->len);

    return ret < 0 ? ret : bdrv_pwrite_sync(bs->file, offset, table->len,
                                            table->data, 0);
}

/* Clusters with the table in them: the offset (0: an empty one) or -errno. */
static int64_t REQUIRES(driver_class) new_table(BlockDriverState *bs,
                                                const GByteArray *table)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset;
    int ret;

    if (!table->len) {
        return 0;
    }
    offset = qcow2_alloc_clusters(bs, table->len);
    if (offset < 0) {
        return offset;
    }
    driver_unlock(&s->lock);
    ret = write_table(bs, offset, table);
    driver_lock(&s->lock);
    /* Its refcounts, too, are to be there before the header refers to it. */
    if (ret >= 0) {
        ret = qcow2_flush_metadata(bs);
    }
    if (ret >= 0) {
        ret = qcow2_metadata_add(s, offset, table->len,
                                 QCOW2_OL_SNAPSHOT_TABLE);
    }
    if (ret < 0) {
        qcow2_free_later(bs, offset, table->len, QCOW2_DISCARD_ALWAYS);
        return ret;
    }
    return offset;
}

static void REQUIRES(driver_class) drop_table(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes)
{
    if (bytes) {
        qcow2_metadata_remove(bs->opaque, offset, bytes,
                              QCOW2_OL_SNAPSHOT_TABLE);
        qcow2_free_later(bs, offset, bytes, QCOW2_DISCARD_SNAPSHOT);
    }
}

int qcow2_write_snapshots(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t old_offset = s->snapshots_offset, old_size = s->snapshots_size;
    g_autoptr(GByteArray) table = serialise(s);
    int64_t offset = new_table(bs, table);
    int ret;

    if (offset < 0) {
        return offset;
    }
    s->snapshots_offset = offset;
    s->snapshots_size = table->len;
    ret = qcow2_update_header(bs);
    if (ret < 0) {
        drop_table(bs, offset, table->len);
        s->snapshots_offset = old_offset;
        s->snapshots_size = old_size;
        return ret;
    }
    drop_table(bs, old_offset, old_size);
    return 0;
}
