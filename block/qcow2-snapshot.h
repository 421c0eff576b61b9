/*
 * Internal snapshots of qcow2: what their files share.
 *
 * Everything here runs on the control thread with the node drained.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_SNAPSHOT_H
#define BLOCK_QCOW2_SNAPSHOT_H

#include "qcow2.h"

/* "Snapshots": one entry of the table. */
struct Qcow2Snapshot {
    uint64_t l1_table_offset;
    uint32_t l1_size;               /* entries */
    char *id_str;
    char *name;
    int64_t disk_size;              /* bytes */
    uint64_t vm_state_size;
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t icount;                /* UINT64_MAX: the entry does not say */
    uint8_t *unknown_extra;         /* extra data beyond what we know, kept */
    uint32_t unknown_extra_size;
};

/* ---- qcow2-snapshot-table.c ---- */

enum {
    QCOW2_SNAPSHOT_HEAD = 40,           /* bytes before the extra data */
    QCOW2_SNAPSHOT_V3_EXTRA = 16,       /* extra data that version 3 demands */
    QCOW2_SNAPSHOT_MAX_EXTRA = 1024,
};
#define QCOW2_MAX_SNAPSHOT_TABLE (INT64_C(1024) * QCOW2_MAX_SNAPSHOTS)

/* What an entry's first bytes say of what follows them. */
typedef struct Qcow2SnapshotHead {
    uint32_t extra_size;
    uint16_t id_size, name_size;
} Qcow2SnapshotHead;

/*
 * The first QCOW2_SNAPSHOT_HEAD bytes of an entry, and what follows (extra
 * data, id, name: the sizes in @head).  @sn was all zeroes.
 */
void qcow2_snapshot_parse_head(const uint8_t *p, Qcow2Snapshot *sn,
                               Qcow2SnapshotHead *head);
void qcow2_snapshot_parse_rest(const BDRVQcow2State *s, const uint8_t *p,
                               const Qcow2SnapshotHead *head,
                               Qcow2Snapshot *sn);

/* Read the table that the header names, at open. */
bool qcow2_read_snapshots(BlockDriverState *bs, Error **errp);
/* Is all of it there, so that the image may be written?  Known once it was
 * read. */
bool qcow2_snapshots_may_change(const BDRVQcow2State *s, Error **errp);
void qcow2_free_snapshots(BDRVQcow2State *s);
void qcow2_snapshot_clear(Qcow2Snapshot *sn);
/*
 * Make s->snapshots the table of the image: written to new clusters, then the
 * header is switched over, durably, then the old clusters are freed.  On
 * failure the header names the old table (or the image is corrupt), and the
 * caller puts the old list back.  Drops the lock.  0 or -errno.
 */
int qcow2_write_snapshots(BlockDriverState *bs) REQUIRES(driver_class);

/* ---- qcow2-snapshot.c: the driver's hooks ---- */

bool qcow2_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *info,
                           Error **errp);
bool qcow2_snapshot_delete(BlockDriverState *bs, const char *id, Error **errp);
bool qcow2_snapshot_goto(BlockDriverState *bs, const char *id, Error **errp);
bool qcow2_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **list,
                         size_t *n, Error **errp);
bool qcow2_snapshot_load_tmp(BlockDriverState *bs, const char *id,
                             Error **errp);

/* ---- qcow2-snapshot-refs.c ---- */

/* An L1 table in memory, host byte order. */
typedef struct Qcow2Tree {
    uint32_t size;
    uint64_t *entries;
} Qcow2Tree;

/* Read the L1 table at @offset; checked.  Free tree->entries. */
int qcow2_tree_read(BlockDriverState *bs, uint64_t offset, uint32_t size,
                    Qcow2Tree *tree);
/* At open for writing, after qcow2_read_snapshots(): add the tables of all
 * snapshots to the set of metadata. */
bool qcow2_list_snapshot_metadata(BlockDriverState *bs, Error **errp);
/* A copy of the active one. */
void qcow2_tree_of_active(BDRVQcow2State *s, Qcow2Tree *tree);
/*
 * A reference more (all or nothing), or less, to each L2 table of the tree and
 * to each cluster that these refer to.  Less: by qcow2_free_later().  May drop
 * the lock.  0 or -errno; after a failure to drop, what remains leaks.
 */
int qcow2_tree_ref(BlockDriverState *bs, const Qcow2Tree *tree)
    REQUIRES(driver_class);
int qcow2_tree_unref(BlockDriverState *bs, const Qcow2Tree *tree)
    REQUIRES(driver_class);

#endif
