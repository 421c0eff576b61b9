/*
 * qcow2: copies of tables, or of sectors of one, on their way to the disk.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_COPIES_H
#define BLOCK_QCOW2_COPIES_H

#include "qcow2.h"

typedef struct Qcow2Copy {
    int64_t offset;                 /* in the image file */
    bool written;
} Qcow2Copy;

struct Qcow2TableCopies {
    size_t unit;                    /* bytes of a copy */
    unsigned room;
    unsigned n;
    Qcow2Copy *items;               /* by offset */
    uint8_t *buf;                   /* of item i: at i * unit */
};

/* For @room copies of @unit bytes to bs->file; NULL: no memory. */
Qcow2TableCopies *qcow2_copies_new(BlockDriverState *bs, size_t unit,
                                   unsigned room);
void qcow2_copies_free(Qcow2TableCopies *copies);
/* Copy @data, which goes to @offset, above all offsets before. */
void qcow2_copies_add(Qcow2TableCopies *copies, int64_t offset,
                      const void *data);
/* Write them, neighbours in one go, unless they hit metadata of other kinds
 * than @own.  All are tried.  0, or the first -errno; each says if it was
 * written.  Drops the lock. */
int qcow2_copies_write(BlockDriverState *bs, Qcow2TableCopies *copies, int own)
    REQUIRES(driver_class);

#endif
