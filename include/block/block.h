/*
 * The node graph: opening, closing and reopening images, finding nodes.
 *
 * A BlockGraph is a set of nodes with names of their own: there is no global
 * one.  Everything here runs on the graph's *control thread* (the monitor, or
 * a tool's main thread) and may block.  The I/O path takes no graph lock: what
 * it follows changes only while it is drained.
 *
 * Options are JSON objects (jansson), nested as in blockdev-add; strings from a
 * command line are accepted wherever a number or boolean is meant.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <jansson.h>
#include "qemu/error.h"
#include "block/block-request.h"

typedef struct BlockGraph BlockGraph;
typedef struct BlockDriver BlockDriver;

#define BDRV_SECTOR_SIZE 512

/* How an image is opened. */
enum {
    BDRV_O_RDWR      = 1 << 0,
    BDRV_O_NOCACHE   = 1 << 1,   /* cache.direct: past the host's page cache */
    BDRV_O_NO_FLUSH  = 1 << 2,   /* cache.no-flush: drop flushes */
    BDRV_O_UNMAP     = 1 << 3,   /* discard=unmap: pass discards down */
    BDRV_O_AUTO_RDONLY = 1 << 4, /* read-only if writing is not allowed */
    BDRV_O_NO_BACKING = 1 << 5,  /* leave the backing chain closed */
    BDRV_O_NO_IO     = 1 << 6,   /* metadata only: data is never accessed */
    BDRV_O_PROTOCOL  = 1 << 7,   /* do not probe for a format above it */
    BDRV_O_CHECK     = 1 << 8,   /* opened to be checked: tolerate damage */
    BDRV_O_RESIZE    = 1 << 9,   /* the user will resize */
    BDRV_O_COPY_ON_READ = 1 << 10,
    BDRV_O_INACTIVE  = 1 << 11,  /* another process may write: activate.c */
    BDRV_O_FORCE_SHARE = 1 << 12, /* lock nothing on the host */
    BDRV_O_ONE_PASS  = 1 << 13,  /* gone through once, in order: keep little */
};

/* QEMU's permissions; file locks on the host follow them. */
enum {
    BLK_PERM_CONSISTENT_READ = 1 << 0,
    BLK_PERM_WRITE           = 1 << 1,
    BLK_PERM_WRITE_UNCHANGED = 1 << 2,
    BLK_PERM_RESIZE          = 1 << 3,
    BLK_PERM_ALL             = 0x0f,
};

typedef enum PreallocMode {
    PREALLOC_MODE_OFF,
    PREALLOC_MODE_METADATA,
    PREALLOC_MODE_FALLOC,
    PREALLOC_MODE_FULL,
} PreallocMode;

extern const char *const PreallocMode_names[];   /* NULL-terminated */

/* What bdrv_block_status() reports of a range. */
enum {
    BDRV_BLOCK_DATA         = 1 << 0,  /* data is in this layer's storage */
    BDRV_BLOCK_ZERO         = 1 << 1,  /* reads as zeroes */
    BDRV_BLOCK_OFFSET_VALID = 1 << 2,  /* *map is where it is in *file */
    BDRV_BLOCK_ALLOCATED    = 1 << 3,  /* this layer decides the contents */
    BDRV_BLOCK_EOF          = 1 << 4,  /* the range ends where the node ends */
    BDRV_BLOCK_RECURSE      = 1 << 5,  /* ask *file at *map for zeroes too */
    BDRV_BLOCK_COMPRESSED   = 1 << 6,
};

typedef struct BlockDriverInfo {
    int64_t cluster_size;             /* bytes; 0: no such unit */
    int64_t subcluster_size;
    int64_t vm_state_offset;          /* behind the disk; 0: no place for it */
    bool is_dirty;
    bool is_encrypted;                /* this layer encrypts what is written */
} BlockDriverInfo;

BlockGraph *block_graph_new(void);
/* Every node must have been released. */
void block_graph_free(BlockGraph *graph);

/*
 * Open an image.  @filename may be a path, "protocol:…" or "json:{…}", or NULL
 * when @options says it all; @reference names a node that exists already
 * (then the rest is NULL).  @options is used up (a reference is taken from the
 * caller), also on failure.  Without a "driver" the format is probed.  Returns
 * a node of which the caller owns a reference, or NULL with @errp.
 */
BlockDriverState *bdrv_open(BlockGraph *graph, const char *filename,
                            const char *reference, json_t *options, int flags,
                            Error **errp);
void bdrv_ref(BlockDriverState *bs);
/* Drop a reference; the last one closes the node and releases its children. */
void bdrv_unref(BlockDriverState *bs);

/*
 * Change what can be changed of an open image (read-only, cache.direct,
 * cache.no-flush, discard, and what its driver allows).  Drains.  All or
 * nothing: false with @errp leaves everything as it was.  Uses @options up.
 */
bool bdrv_reopen(BlockDriverState *bs, json_t *options, Error **errp);

/* Does another node, or a backend, use it? */
bool bdrv_has_parents(const BlockDriverState *bs);
BlockDriverState *bdrv_find_node(BlockGraph *graph, const char *node_name);
/* The next node after @bs in the order of creation, the first for NULL. */
BlockDriverState *bdrv_next_node(BlockGraph *graph, BlockDriverState *bs);

/* Names and properties: constant while a node is open. */
const char *bdrv_get_node_name(const BlockDriverState *bs);
const char *bdrv_get_format_name(const BlockDriverState *bs);
const char *bdrv_get_filename(const BlockDriverState *bs);
BlockGraph *bdrv_get_graph(const BlockDriverState *bs);
bool bdrv_is_read_only(const BlockDriverState *bs);
/* From now on, what a read gets from the backing file is written into @bs.
 * Control thread; drains.  There is no way back. */
bool bdrv_enable_copy_on_read(BlockDriverState *bs, Error **errp);
BlockDriverState *bdrv_filter_or_cow_bs(BlockDriverState *bs);
BlockDriverState *bdrv_primary_bs(BlockDriverState *bs);   /* "file" child */
BlockDriverState *bdrv_backing_bs(BlockDriverState *bs);

/* The name in the image's header, as one that can be opened from here: new
 * string.  NULL: none; or with @errp, one that is relative to no folder. */
char *bdrv_get_full_backing_filename(BlockDriverState *bs, Error **errp);
/* The same for a header of @image that says @name. */
char *bdrv_get_full_backing_filename_from_filename(const char *image,
                                                   const char *name,
                                                   Error **errp);
/* Put @backing (a new reference; NULL: nothing) below @bs.  Drains.  On failure
 * there is none. */
bool bdrv_set_backing_hd(BlockDriverState *bs, BlockDriverState *backing,
                         Error **errp);
/* Record the backing file in the image's header; NULL: none.  Drains. */
bool bdrv_change_backing_file(BlockDriverState *bs, const char *file,
                              const char *format, Error **errp);

/* Length in bytes, a multiple of 512, or -errno.  Any thread. */
int64_t bdrv_getlength(BlockDriverState *bs);
/* Bytes that the image takes on the host, or -errno. */
int64_t bdrv_get_allocated_file_size(BlockDriverState *bs);
int bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *info);
/* Whether @bs, if it has just been created, reads as zeroes.  False where that
 * is not known. */
bool bdrv_has_zero_init(BlockDriverState *bs);
/*
 * All of @bs and below will be read or written once, more or less in order:
 * files that go through the host's page cache are to stay there up to about
 * @keep bytes each, and leave nothing behind of what is more.  Advice, for
 * blocking requests, until they are closed.  Control thread, no requests yet.
 */
void bdrv_drop_behind(BlockDriverState *bs, int64_t keep);
/* Format-specific facts for "info", {"type":…,"data":…}; NULL: none.  New. */
json_t *bdrv_get_specific_info(BlockDriverState *bs, Error **errp);
/* How the node was opened, as a json object (new reference). */
json_t *bdrv_get_options(BlockDriverState *bs);

/* Create an image as "qemu-img create" does.  @options (flat, as after -o, of
 * the format's create options) is used up. */
bool bdrv_create(BlockGraph *graph, const char *format, const char *filename,
                 json_t *options, Error **errp);
/*
 * blockdev-create: make an image in nodes that are there.  @options as QAPI's
 * BlockdevCreateOptions, nested; used up.  The check finds what can be wrong
 * with their names before anything is done (it is part of creating, too).
 */
bool bdrv_blockdev_create_check(const json_t *options, Error **errp);
bool bdrv_blockdev_create(BlockGraph *graph, json_t *options, Error **errp);

BlockDriver *bdrv_find_format(const char *format_name);
BlockDriver *bdrv_find_protocol(const char *filename, Error **errp);
/* All drivers, in the order in which they are probed; NULL-terminated. */
BlockDriver *const *bdrv_all_drivers(void);

/*
 * Close the gates of all backends above @bs: their new requests park, and when
 * this returns no request is under way in @bs or its children.  Nests; control
 * thread only, never from a request, and not while that thread's own event loop
 * has requests of these backends to end (asserted in debug builds).  _end runs
 * what was parked.
 */
void bdrv_drained_begin(BlockDriverState *bs);
void bdrv_drained_end(BlockDriverState *bs);

/*
 * Live migration, on the control thread.  Can @bs, with all below it, be open
 * here while another process writes to the image?  That is while it has no
 * permissions.
 */
bool bdrv_can_hand_over(BlockDriverState *bs, Error **errp);
/*
 * From now on another process may write to the image, and we do not: all that
 * is only in memory has been written, and permissions are given up.  Of @bs and
 * what is below it, as far as no other user has permissions.  False: could not;
 * bdrv_activate() undoes what was done.  Blocks.
 */
bool bdrv_inactivate(BlockDriverState *bs, Error **errp);
/* It is ours again: take permissions, and forget what may have changed.  Does
 * nothing if it is active; false changes nothing.  Blocks. */
bool bdrv_activate(BlockDriverState *bs, Error **errp);

/* Parse "none", "writeback", "writethrough", "directsync", "unsafe". */
bool bdrv_parse_cache_mode(const char *mode, int *flags, bool *writethrough);
/* Parse "ignore"/"off", "unmap"/"on". */
bool bdrv_parse_discard_flags(const char *mode, int *flags);

#endif
