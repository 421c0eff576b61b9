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

#endif
