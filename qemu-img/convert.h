/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of qemu-img convert.
 */
#ifndef QEMU_IMG_CONVERT_H
#define QEMU_IMG_CONVERT_H

#include "qemu-img.h"

/* ---- Copying (convert-copy.c) ---- */

typedef struct ConvertSource {
    BlockBackend *blk;
    int64_t start;                 /* where its first byte goes */
    int64_t length;
} ConvertSource;

typedef struct ConvertJob {
    ConvertSource *sources;        /* in the order of the target */
    int num_sources;
    BlockBackend *target;
    int64_t total;                 /* bytes of all sources */
    int num_workers;
    /* Zeroes of at least this length, so aligned, are not written as data; 0:
     * all is written as data. */
    int64_t sparse_size;
    bool target_is_zero;           /* what is not written reads as zeroes */
    bool out_of_order;
    bool salvage;                  /* what cannot be read becomes zeroes */
    bool quiet;
    int64_t rate;                  /* bytes a second; 0: no limit */
} ConvertJob;

/*
 * Copy all; blocks until it is done.  0, or -errno after a message.  Progress
 * is reported to img_progress_set().
 */
int convert_copy(const ConvertJob *job);

#endif
