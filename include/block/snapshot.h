/*
 * Internal snapshots of an image, and other work on a whole image that some
 * formats can do: checking, amending, emptying.
 *
 * Control thread; each call drains the node.  A filter passes on to its child.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_SNAPSHOT_H
#define BLOCK_SNAPSHOT_H

#include "block/block-driver.h"

/* *list is for g_free().  A format without snapshots has none: that is no
 * error. */
bool bdrv_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **list,
                        size_t *n, Error **errp);
/* Whose id (unless NULL) and name (unless NULL) are these; false: none. */
bool bdrv_snapshot_find(BlockDriverState *bs, const char *id,
                        const char *name, QEMUSnapshotInfo *sn);
/* Whose name, or else whose id, is @id_or_name. */
bool bdrv_snapshot_find_either(BlockDriverState *bs, const char *id_or_name,
                               QEMUSnapshotInfo *sn);
/* @sn says all but the id, which is filled in. */
bool bdrv_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn,
                          Error **errp);
bool bdrv_snapshot_goto(BlockDriverState *bs, const char *id_or_name,
                        Error **errp);
bool bdrv_snapshot_delete(BlockDriverState *bs, const char *name,
                          Error **errp);
/* From now on a read-only node reads what the snapshot holds. */
bool bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *id,
                            const char *name, Error **errp);

/*
 * The state of a machine, which a format with snapshots keeps beside the disk.
 * All of @qiov at @pos of it; 0 or -errno: -ENOTSUP where there is no place for
 * it, -EPERM if @bs is read-only, -EINVAL unless aligned as requests to @bs
 * are, -EFBIG or -EIO where none can be.  What was not written reads as zeroes,
 * and it is stable after a flush, as data is.  Resizing drops it.
 */
int bdrv_save_vmstate(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov);
int bdrv_load_vmstate(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov);

/* One line of "snapshot -l"; @sn NULL: the heading.  No newline; for g_free. */
char *bdrv_snapshot_to_text(const QEMUSnapshotInfo *sn);

/* As BlockDriver.check.  -ENOTSUP: the format has none. */
int bdrv_check(BlockDriverState *bs, BdrvCheckResult *res, BdrvCheckMode fix);
/* As BlockDriver.amend; @options is used up. */
bool bdrv_amend(BlockDriverState *bs, json_t *options, bool force,
                BdrvProgressFunc *progress, void *opaque, Error **errp);
/* Drop all data of this layer: the backing file shows. */
bool bdrv_make_empty(BlockDriverState *bs, Error **errp);

#endif
