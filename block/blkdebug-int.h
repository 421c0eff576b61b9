/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What blkdebug's parts share.
 */
#ifndef BLOCK_BLKDEBUG_INT_H
#define BLOCK_BLKDEBUG_INT_H

#include "block/blkdebug.h"

typedef enum BlkdebugAction {
    BLKDEBUG_INJECT_ERROR,
    BLKDEBUG_SET_STATE,
    BLKDEBUG_SUSPEND,
} BlkdebugAction;

/* As bits of a mask: 1 << BLKDEBUG_IO_READ. */
typedef enum BlkdebugIOType {
    BLKDEBUG_IO_READ,
    BLKDEBUG_IO_WRITE,
    BLKDEBUG_IO_WRITE_ZEROES,
    BLKDEBUG_IO_DISCARD,
    BLKDEBUG_IO_FLUSH,
    BLKDEBUG_IO_BLOCK_STATUS,
    BLKDEBUG_IO__MAX,
} BlkdebugIOType;

typedef struct BlkdebugRule {
    ListNode node;             /* its event's rules */
    ListNode active_node;      /* rules that fail requests now */
    BlkdebugAction action;
    int event;
    int state;                 /* only in this state; 0: in any */

    /* BLKDEBUG_INJECT_ERROR */
    int error;                 /* positive errno */
    int64_t offset;            /* only requests that cover it; -1: all */
    unsigned int iotypes;
    bool once;
    /* BLKDEBUG_SET_STATE */
    int new_state;
    /* BLKDEBUG_SUSPEND */
    char *tag;
} BlkdebugRule;

#define BLKDEBUG_EVENTS 48

/* NULL-terminated; a rule's event is an index. */
extern const char *const blkdebug_event_names[BLKDEBUG_EVENTS + 1];

/* Index of the event @name, or -1. */
int blkdebug_event_find(const char *name);

typedef struct BDRVBlkdebugState {
    /* Constant after open. */
    uint64_t align;
    uint64_t max_transfer;
    uint64_t opt_write_zero;
    uint64_t max_write_zero;
    uint64_t opt_discard;
    uint64_t max_discard;
    uint64_t take_perms;           /* BLK_PERM_… of the child, besides ours */
    uint64_t unshare_perms;

    ProtocolLock lock;
    int state GUARDED_BY(protocol_class);
    List rules[BLKDEBUG_EVENTS] GUARDED_BY(protocol_class);
    List active GUARDED_BY(protocol_class);      /* rules that inject errors */
    List suspended GUARDED_BY(protocol_class);   /* SuspendedTag */
    QemuCond suspended_cond;       /* one was added */
    int countdown GUARDED_BY(protocol_class);    /* to failing; 0: not armed */
    int armed_error GUARDED_BY(protocol_class);
    bool fired GUARDED_BY(protocol_class);
} BDRVBlkdebugState;

BlkdebugRule *blkdebug_rule_new(BlkdebugAction action, int event);
void blkdebug_rule_free(BlkdebugRule *rule);

/*
 * Read the rules of the file @filename (NULL: none), then those in @options
 * (taken out of it: "inject-error" and "set-state"), and append them to the
 * lists of their events.  On failure the lists hold what was read before.
 */
bool blkdebug_read_rules(List rules[BLKDEBUG_EVENTS], const char *filename,
                         json_t *options, Error **errp);

/* The first blkdebug at @bs or below by primary children; NULL: none. */
BlockDriverState *blkdebug_find_node(BlockDriverState *bs);

/* ---- blkdebug-break.c ---- */

/* The calling request has reached @event: sleep at its break points, without
 * the lock. */
void blkdebug_suspend_locked(BDRVBlkdebugState *s, int event)
    REQUIRES(protocol_class);
/* As those of blkdebug.h, for a blkdebug node. */
int blkdebug_node_break(BlockDriverState *bs, const char *event,
                        const char *tag);
int blkdebug_node_resume(BlockDriverState *bs, const char *tag);
int blkdebug_node_remove_break(BlockDriverState *bs, const char *tag);
bool blkdebug_node_is_suspended(BlockDriverState *bs, const char *tag);

#endif
