/*
 * Exports: a node, served to somebody outside.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_EXPORT_H
#define BLOCK_EXPORT_H

#include "block/block-backend.h"

typedef struct BlockExport BlockExport;
typedef struct BlockExportList BlockExportList;

typedef struct BlockExportDriver {
    const char *type;              /* "vhost-user-blk" */
    size_t instance_size;         /* of a struct that begins with BlockExport */
    /* Control thread: start serving exp->blk; takes its own keys from
     * @options (the core refuses what is left). */
    bool (*create)(BlockExport *exp, json_t *options, Error **errp);
    /* Control thread: stop; no client is served when it returns. */
    void (*delete)(BlockExport *exp);
    /* Control thread: facts and counters, a new json object. */
    json_t *(*query)(BlockExport *exp);
} BlockExportDriver;

/* Looks up the IOThread called @id; NULL if there is none. */
typedef IOThread *BlockExportFindIOThread(void *opaque, const char *id);

/* Common part; constant after creation. */
struct BlockExport {
    const BlockExportDriver *drv;
    BlockExportList *list;
    char *id;
    char *node_name;
    BlockBackend *blk;
    bool writable;
    bool writethrough;
    bool share_rw;                  /* others may write to the node, too */
    bool incoming;                  /* begins without permissions */
    /* The IOThreads to serve it: given ones, or one of its own. */
    IOThread **iothreads;
    int n_iothreads;
    bool own_iothread;
    ListNode node;
};

/* The exports of one process (or test): @find resolves "iothread" names. */
BlockExportList *block_export_list_new(BlockGraph *graph,
                                       BlockExportFindIOThread *find,
                                       void *opaque);
/* Delete all exports, then the list. */
void block_export_list_free(BlockExportList *list);
/*
 * block-export-add: type, id, node-name, writable, writethrough, iothread (a
 * name, or a list of names: one a queue, round robin), fixed-iothread, and what
 * the type takes.  Also x-share-rw: off for a disk that nobody else may write,
 * as a virtual machine's own devices have it; on, like other servers' exports,
 * unless given; and x-incoming: on for the disk of a machine that is migrated
 * to this host, which is another process's until a front end runs a queue.
 * Uses @options up.
 */
BlockExport *block_export_add(BlockExportList *list, json_t *options,
                              Error **errp);
BlockExport *block_export_find(BlockExportList *list, const char *id);
void block_export_del(BlockExport *exp);
/* An array as query-block-exports returns, with "stats" of each added. */
json_t *block_export_query_all(BlockExportList *list);

/* What an export that is active needs of its node, and shares. */
uint64_t block_export_perm(const BlockExport *exp);
uint64_t block_export_shared_perm(const BlockExport *exp);

extern const BlockExportDriver *const block_export_drivers[];

#endif
