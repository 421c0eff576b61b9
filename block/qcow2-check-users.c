/*
 * qcow2 check: is a table that is to be repaired anything else?
 *
 * A damaged L1 entry may refer to a cluster of data.  As a table that is full
 * of entries to be repaired; to write what they should be would destroy what
 * can still be read.  The number of references does not tell, as snapshots
 * share tables.  So before a repair writes to an L2 table it asks here.  The
 * first time, which is rare, all tables are gone through once more: what an L2
 * entry, a snapshot, a bitmap or the encryption header says that it has is
 * theirs, and so is the snapshot table, which the set of metadata does not know
 * while an image is only checked.  Entries that nobody can follow say nothing;
 * whoever reads ignores reserved bits.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-check.h"
#include "qcow2-snapshot.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"

typedef struct Users {
    Qcow2Check *chk;
    Qcow2RefMap *map;               /* clusters that are no tables */
    GHashTable *seen;               /* L2 tables, by their cluster */
    GHashTable *seen_l1;            /* of snapshots: cluster -> entries */
    uint64_t l1_bytes;              /* of these */
    uint64_t *words;                /* one L2 table */
} Users;

static bool can_be_followed(const Qcow2Check *chk, uint64_t offset)
{
    return offset && !(offset & (chk->s->cluster_size - 1)) &&
           qcow2_check_inside(chk, offset, chk->s->cluster_size);
}

/* As much of it as there is. */
static void note_range(Users *u, uint64_t offset, uint64_t bytes)
{
    uint64_t end = u->chk->file_bytes;
    unsigned shift = u->chk->s->cluster_bits;

    if (bytes && offset < end) {
        end = offset + MIN(bytes, end - offset);
        qcow2_refs_add(u->map, offset >> shift,
                       ((end - 1) >> shift) - (offset >> shift) + 1);
    }
}

static void note_entry(Users *u, uint64_t entry)
{
    const BDRVQcow2State *s = u->chk->s;
    int64_t offset = entry & QCOW2_L2_OFFSET_MASK, first;
    int bytes = s->cluster_size;

    if (entry & QCOW2_OFLAG_COMPRESSED) {
        qcow2_parse_compressed(s, entry, &offset, &bytes);
        if (!qcow2_check_inside(u->chk, offset, bytes)) {
            return;
        }
    } else if (s->has_data_file || !can_be_followed(u->chk, offset)) {
        return;
    }
    first = offset >> s->cluster_bits;
    qcow2_refs_add(u->map, first,
                   ((offset + bytes - 1) >> s->cluster_bits) - first + 1);
}

static int note_table(Users *u, uint64_t l1_entry)
{
    const BDRVQcow2State *s = u->chk->s;
    uint64_t offset = l1_entry & QCOW2_L1_OFFSET_MASK;
    int64_t n = s->l2_entry_words << s->l2_bits;
    int ret;

    if (!can_be_followed(u->chk, offset) ||
        !g_hash_table_add(u->seen, (gpointer)(uintptr_t)(offset >>
                                                         s->cluster_bits))) {
        return 0;
    }
    ret = qcow2_check_read(u->chk, offset, s->cluster_size, u->words);
    for (int64_t i = 0; i < n && ret == 0; i += s->l2_entry_words) {
        note_entry(u, GUINT64_FROM_BE(u->words[i]));
    }
    return ret;
}

/* Thousands of snapshots may say that they have one table: is it, or a longer
 * one from there on, not done yet? */
static bool is_new_l1(Users *u, const Qcow2Snapshot *sn)
{
    gpointer key = (gpointer)(uintptr_t)(sn->l1_table_offset >>
                                         u->chk->s->cluster_bits);

    if ((uintptr_t)g_hash_table_lookup(u->seen_l1, key) >= sn->l1_size) {
        return false;
    }
    g_hash_table_insert(u->seen_l1, key, (gpointer)(uintptr_t)sn->l1_size);
    return true;
}

/* A snapshot's, as much of it as there is. */
static int note_l1(Users *u, const Qcow2Snapshot *sn)
{
    uint64_t offset = sn->l1_table_offset, end = u->chk->file_bytes;
    uint64_t entries[512], n;
    int ret = 0;

    if (offset & (u->chk->s->cluster_size - 1) || offset >= end ||
        sn->l1_size > QCOW2_MAX_L1_SIZE / sizeof(uint64_t) ||
        !is_new_l1(u, sn)) {
        return 0;
    }
    end = MIN(end, offset + sn->l1_size * (uint64_t)sizeof(uint64_t));
    u->l1_bytes += end - offset;
    if (u->l1_bytes > u->chk->file_bytes) {
        return -EINVAL;             /* they overlap: counting refuses it, too */
    }
    note_range(u, offset, end - offset);
    for (; offset < end && ret == 0; offset += n * sizeof(uint64_t)) {
        n = MIN((end - offset) / sizeof(uint64_t), G_N_ELEMENTS(entries));
        if (n == 0) {
            break;
        }
        ret = qcow2_check_read(u->chk, offset, n * sizeof(uint64_t), entries);
        for (uint64_t i = 0; i < n && ret == 0; i++) {
            ret = note_table(u, GUINT64_FROM_BE(entries[i]));
        }
    }
    return ret;
}

/* They are counted as ever, but here. */
static int note_the_rest(Users *u)
{
    Qcow2Check *chk = u->chk;
    BdrvCheckResult res = *chk->res;
    Qcow2RefMap *refs = chk->refs;
    uint32_t users = chk->users;
    int ret;

    note_range(u, chk->s->snapshots_offset, chk->snapshot_table_bytes);
    chk->refs = u->map;
    if (chk->s->crypt_method == QCOW2_CRYPT_LUKS) {
        qcow2_check_count(chk, chk->s->crypto_header_offset,
                          chk->s->crypto_header_length);
    }
    ret = qcow2_check_count_bitmaps(chk);
    chk->refs = refs;
    chk->users = users;
    *chk->res = res;
    return ret;
}

static int note_all(Users *u)
{
    const Qcow2L1 *l1 = qatomic_load_acquire(&u->chk->s->l1);
    int ret = note_the_rest(u);

    for (uint32_t i = 0; i < l1->size && ret == 0; i++) {
        ret = note_table(u, l1->entries[i]);
    }
    for (uint32_t i = 0; i < u->chk->n_snapshots && ret == 0; i++) {
        ret = note_l1(u, &u->chk->snapshots[i]);
    }
    return ret;
}

/* Once: it takes long, and what has failed will fail again. */
static int find_users(Qcow2Check *chk)
{
    Users u = { .chk = chk };
    int ret = -ENOMEM;

    if (chk->not_tables || chk->users_error) {
        return chk->users_error;
    }
    u.map = qcow2_refs_new(chk->room);
    u.words = g_try_malloc(chk->s->cluster_size);
    u.seen = g_hash_table_new(NULL, NULL);
    u.seen_l1 = g_hash_table_new(NULL, NULL);
    if (u.map && u.words) {
        ret = note_all(&u);
    }
    g_hash_table_destroy(u.seen);
    g_hash_table_destroy(u.seen_l1);
    g_free(u.words);
    if (ret < 0) {
        qcow2_refs_free(u.map);
        chk->users_error = ret;
        return ret;
    }
    chk->not_tables = u.map;
    return 0;
}

/* By what find_users() has found.  @users: others that do not matter. */
static bool is_only_table(const Qcow2Check *chk, int64_t table, unsigned users)
{
    int64_t cluster = table >> chk->s->cluster_bits;

    return !(table & (chk->s->cluster_size - 1)) && cluster < chk->room &&
           qcow2_refs_get(chk->not_tables, cluster) <= users;
}

/* 1 or 0: is it in the snapshot table? */
static unsigned snapshot_table_uses(const Qcow2Check *chk, uint64_t offset)
{
    uint64_t start = chk->s->snapshots_offset;
    uint64_t bytes = QEMU_ALIGN_UP(chk->snapshot_table_bytes,
                                   (uint64_t)chk->s->cluster_size);

    return offset >= start && offset - start < bytes;
}

int qcow2_check_write_l2(Qcow2Check *chk, int64_t table, int64_t offset,
                         int64_t bytes, const void *buf)
{
    int ret = find_users(chk);

    if (ret == 0 && !is_only_table(chk, table, 0)) {
        ret = -EPERM;
    }
    return ret < 0 ? ret : qcow2_check_write(chk, QCOW2_OL_SHARED_L2, offset,
                                             bytes, buf);
}

int qcow2_check_tables_are_sound(Qcow2Check *chk, bool *sound)
{
    const Qcow2L1 *l1 = qatomic_load_acquire(&chk->s->l1);
    int ret = find_users(chk);

    *sound = ret == 0;
    for (uint32_t i = 0; i < l1->size && *sound; i++) {
        int64_t table = l1->entries[i] & QCOW2_L1_OFFSET_MASK;

        *sound = !table ||
                 (is_only_table(chk, table, snapshot_table_uses(chk, table)) &&
                  !qcow2_metadata_overlap(chk->s, QCOW2_OL_ALL &
                                          ~QCOW2_OL_SHARED_L2, table, 1));
    }
    return ret;
}
