/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small copy-on-write format, right or wrong on request.
 *
 * It exists so that the proofs can be proven: each bug is one that a real
 * format could have, and the right version shows what it takes to have none.
 */
#ifndef TESTS_TOY_FORMAT_H
#define TESTS_TOY_FORMAT_H

#include "proof.h"

#define TOY_CLUSTER 4096

typedef enum ToyBug {
    TOY_RIGHT           = 0,
    TOY_NO_BARRIER      = 1 << 0,   /* no flush between data and table */
    TOY_FORGETS_TABLE   = 1 << 1,   /* a flush leaves the table in memory */
    TOY_TABLE_FIRST     = 1 << 2,   /* the table is written before the data */
    TOY_EARLY_REUSE     = 1 << 3,   /* before the table that frees is durable */
    TOY_LOST_UPDATE     = 1 << 4,   /* two copies of one cluster at once */
    TOY_STALE_READ      = 1 << 5,   /* a cluster is reused while it is read */
    TOY_EARLY_MAP       = 1 << 6,   /* mapped before the data is written */
    TOY_IGNORES_ERROR   = 1 << 7,   /* of writing the table */
    TOY_LEAVES_TAIL     = 1 << 8,   /* shrinking keeps what is cut off */
    TOY_FREES_USED      = 1 << 9,   /* opening counts one cluster as free */
} ToyBug;

void toy_register(void);

#endif
