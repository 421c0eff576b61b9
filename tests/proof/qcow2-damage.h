/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random damage to a qcow2 image in memory, of the kinds that a repair can put
 * right: refcounts of any value, a refcount table that points elsewhere, COPIED
 * flags, the dirty and the corrupt bit.  What the L1 and L2 tables refer to
 * stays, so all that could be read still can be.
 */
#ifndef TESTS_QCOW2_DAMAGE_H
#define TESTS_QCOW2_DAMAGE_H

#include "mem-image.h"

/* @img is sound.  Several kinds at once. */
void qcow2_damage(MemImage *img, GRand *rand);

/* What nobody can put right. */
typedef struct Qcow2Lost {
    struct {
        uint64_t offset, bytes;
        int user;                   /* 0: of the disk; 1 …: of a snapshot; -1:
                                     * of all */
    } ranges[3];
    unsigned n;
    unsigned snapshots;             /* a bit each */
} Qcow2Lost;

/*
 * Entries of L1 and L2 tables, of the disk or of snapshots, and those of the
 * snapshot table, become any: they refer to what is not in the file, to
 * metadata, to what is another's, to the middle of a cluster.  After
 * qcow2_damage(), if at all; a few at once.
 */
void qcow2_damage_tables(MemImage *img, GRand *rand, Qcow2Lost *lost);

/* The file ends in the snapshot table, or before it.  After qcow2_damage(),
 * too. */
void qcow2_damage_snapshots_end(MemImage *img, GRand *rand, Qcow2Lost *lost);
/* The same for any of: it, the refcount table, L1 tables of snapshots, the
 * bitmap directory, a bitmap's table. */
void qcow2_damage_ends(MemImage *img, GRand *rand, Qcow2Lost *lost);

#endif
