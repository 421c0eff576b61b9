/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A checker of qcow2 images that shares nothing with the driver: it reads the
 * bytes of an image in memory as the specification says.
 *
 * Wrong is what a crash must never leave: a cluster with more references than
 * its refcount says, two users of a cluster of which one believes that it is
 * alone, a COPIED flag that its refcount does not bear out, reserved bits,
 * tables outside of the file, the corrupt bit.  Clusters that are counted too
 * often are leaks, and counted.  With the dirty bit, refcounts and COPIED are
 * nobody's promise; then only the references themselves are compared.
 */
#ifndef TESTS_QCOW2_CHECKER_H
#define TESTS_QCOW2_CHECKER_H

#include "mem-image.h"

typedef struct Qcow2CheckerResult {
    bool is_dirty;              /* the bit */
    unsigned clusters;          /* in use */
    unsigned leaks;             /* clusters; not with the dirty bit */
    unsigned leaks_behind;      /* of them, those behind the file's end */
    unsigned compressed;        /* L2 entries */
    unsigned snapshots;
    unsigned bitmaps;
    /* What is wrong is nothing that qemu-img check minds: a table where
     * something else is, a flag that nobody looks at. */
    bool overlaps, odd_flags;
    /* COPIED flags that the refcounts do not bear out, though it is safe to
     * believe them: version 2 has no dirty bit for while they change. */
    unsigned miscopied;
} Qcow2CheckerResult;

/* False: what is wrong goes to @why. */
bool qcow2_checker_run(const MemImage *img, Qcow2CheckerResult *result,
                       GString *why);

/*
 * Of an image whose refcounts, tables and COPIED flags may be anything (entries
 * that make no sense are passed over): the clusters that are in danger
 * (numbers, as pointers), because their refcount is lower than their references
 * or because they have several users of which one says COPIED.  The bits that
 * say dirty and corrupt do not count.  Behind @old_end, where the file once
 * ended, only refcount structures are looked for: who refers to what was not
 * there has nothing to lose.  NULL: tables cannot be followed, says @why.
 */
GHashTable *qcow2_checker_dangers(const MemImage *img, int64_t old_end,
                                  GString *why);

#endif
