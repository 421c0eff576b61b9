/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What users read of a qcow2 image, that a repair must not change: the disk,
 * its snapshots, and its persistent bitmaps.
 */
#ifndef TESTS_REPAIR_CONTENTS_H
#define TESTS_REPAIR_CONTENTS_H

#include "block/block-backend.h"
#include "qcow2-damage.h"

#define MAX_SNAPSHOTS 3
#define MAX_BITMAPS 3
#define BITMAP_GRANULARITY 512

typedef struct Contents {
    /* Who uses it says it. */
    BlockGraph *graph;
    const char *open;               /* options, as JSON; NULL: none */
    GString *why;                   /* what is wrong goes here */
    int64_t size;
    int n;                          /* the disk, and the snapshots s0, s1 … */
    int n_bitmaps;                  /* b0, b1 …; b0 does not record */
    /* A bitmap that was in use at that moment says so, and is worth nothing. */
    bool may_be_in_use;
    bool may_not_open;              /* nor did it before */

    char *list;                     /* of snapshots; NULL: not known */
    uint8_t *data[1 + MAX_SNAPSHOTS];
    uint8_t *known[1 + MAX_SNAPSHOTS];  /* a byte of each sector; NULL: all */
    uint8_t *bits[MAX_BITMAPS];     /* a byte of each granule; NULL: lost */
} Contents;

/* The image on the write-log disk @id; NULL, and why. */
BlockBackend *contents_open(Contents *c, const char *id, int flags);
/* Remember what it has. */
void contents_take(Contents *c, const char *id);
/* Forget what is @lost, and all that cannot be read any more or reads as
 * something else.  Returns how many sectors are left. */
int contents_keep(Contents *c, const char *id, const Qcow2Lost *lost);
bool contents_are_in(Contents *c, const char *id);
/*
 * Write to the disk: the rest of it, and the snapshots, stay what they are, and
 * bitmaps record it.  Where something is lost it may fail, and so may opening.
 */
bool contents_can_be_written(Contents *c, const char *id, uint32_t seed);
void contents_clear(Contents *c);

#endif
