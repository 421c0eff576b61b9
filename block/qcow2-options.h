/*
 * Runtime options of a qcow2 node.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_OPTIONS_H
#define BLOCK_QCOW2_OPTIONS_H

#include "block/qcow2.h"

typedef struct Qcow2Options {
    bool use_lazy_refcounts;
    int overlap_check;              /* Qcow2MetadataKind */
    bool discard_passthrough[QCOW2_DISCARD_MAX];
    bool discard_no_unref;
    uint64_t cache_clean_interval_s;

    /* The caches: tables of how many bytes, and how many of them. */
    size_t l2_slice_size;
    unsigned l2_tables;
    unsigned refcount_tables;

    json_t *encrypt;                /* what is left of "encrypt"; or NULL */
} Qcow2Options;

/*
 * Take what concerns us out of @options, and check it against the image, whose
 * geometry and features are in the state.  @flags: how the node is opened.
 * False with @errp; *o can be cleared either way.  Control thread.
 */
bool qcow2_options_take(BlockDriverState *bs, json_t *options, int flags,
                        Qcow2Options *o, Error **errp);
void qcow2_options_clear(Qcow2Options *o);

/* Copy from @from to @to, unless it is there, all that concerns us. */
void qcow2_options_inherit(json_t *to, const json_t *from);

/* Let the state follow what can change while it is open (drained). */
void qcow2_options_apply(BDRVQcow2State *s, const Qcow2Options *o);

/* ---- qcow2-reopen.c: entries of the driver's table ---- */

bool qcow2_reopen_prepare(BlockDriverState *bs, json_t *options, int flags,
                          void **state, Error **errp);
void qcow2_reopen_commit(BlockDriverState *bs, void *state);
void qcow2_reopen_abort(BlockDriverState *bs, void *state);

#endif
