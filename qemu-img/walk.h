/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Going through an image extent by extent, in several threads.
 */
#ifndef QEMU_IMG_WALK_H
#define QEMU_IMG_WALK_H

#include "qemu-img.h"

typedef struct ImgWalk {
    int64_t length;            /* bytes to go through, from 0 */
    int64_t rate;              /* bytes a second; 0: no limit */
    int buffers;               /* of what work() gets, in pieces */
    int64_t piece;             /* the most that work() gets at a time, a power
                                * of two; 0: IMG_WALK_PIECE */
    int max_workers;           /* each has its buffers; 0: as many as help */
    void *opaque;
    /* What is at @offset: 0, nothing to do; > 0, a kind of work; or -errno.
     * *@bytes is what is left, and is made the length that this is true for.
     * One call at a time, in ascending order. */
    int (*classify)(void *opaque, int64_t offset, int64_t *bytes);
    /* Do it: 0 or -errno.  @buf: @buffers times the most that @bytes can be.
     * Several at once; a piece ends at a multiple of that or where its extent
     * does. */
    int (*work)(void *opaque, int64_t offset, int64_t bytes, int kind,
                uint8_t *buf);
} ImgWalk;

/* The most that work() gets at a time, unless @piece says less. */
#define IMG_WALK_PIECE (2 * MiB)

/* Blocks until all is done.  0, or -errno and where.  Progress is reported to
 * img_progress_set(). */
int img_walk(const ImgWalk *w, int64_t *error_at);

#endif
