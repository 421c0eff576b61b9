/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is to be known of a node, as json objects with QAPI's names and as text
 * for people; for qemu-img info, qemu-io and the monitor.
 *
 * All of it runs on the control thread and may block.
 */
#ifndef BLOCK_QAPI_H
#define BLOCK_QAPI_H

#include "block/block.h"

/*
 * QAPI's ImageInfo of one node, children and backing image left out: a new
 * object, or NULL with @errp.
 */
json_t *bdrv_query_image_info(BlockDriverState *bs, Error **errp);

/*
 * QAPI's BlockGraphInfo: the same with "children", each a "name" and an
 * "info" of the same kind.  A backing file is not among them.
 */
json_t *bdrv_query_graph_info(BlockDriverState *bs, Error **errp);

/*
 * The text that qemu-img info prints of a BlockGraphInfo, its children
 * included; for g_free.
 */
char *bdrv_graph_info_to_text(const json_t *info);

/*
 * The part of that text below "Format specific information:", that line
 * included, "" if there is nothing; for g_free.  NULL with @errp.
 */
char *bdrv_specific_info_to_text(BlockDriverState *bs, Error **errp);

/* One extent of an image, as qemu-img map reports it. */
typedef struct MapEntry {
    int64_t start;             /* bytes */
    int64_t length;
    bool present;              /* some layer decides the contents */
    bool data;
    bool zero;
    bool compressed;
    int depth;                 /* layers below the top */
    bool has_offset;
    int64_t offset;            /* where it is in @filename */
    const char *filename;      /* NULL: not known; belongs to a node */
} MapEntry;

/*
 * The extent that starts at @offset, at most @bytes (which are within the
 * image) long.  0 or -errno.
 */
int bdrv_query_map_entry(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         MapEntry *e);

#endif
