/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A qcow2 image for tests: created and checked by the installed qemu-img,
 * written by our driver, and compared with a model of what the guest sees.
 *
 * Control thread, but for the requests: those may come from any thread, as long
 * as threads do not touch the same bytes of the model.
 */
#ifndef TESTS_QCOW2_IMAGE_H
#define TESTS_QCOW2_IMAGE_H

#include "block/blkdebug.h"
#include "block/block-backend.h"

typedef struct Qcow2Image {
    BlockGraph *graph;
    BlockBackend *blk;          /* NULL: closed */
    char *dir, *path, *backing, *data_file;
    int64_t size;
    int64_t cluster_size;
    bool is_v2, is_raw, has_backing;
    uint8_t *model;             /* what the guest sees */
    uint8_t *snapshot;          /* what it saw; NULL: there is none */
    bool has_errors;            /* requests may fail: they do not assert */
} Qcow2Image;

/* False: qemu-img is not installed (then the test is marked as skipped). */
bool qcow2_image_can_run(void);

/* @options: as after -o of "create".  With a backing file, every second 3000
 * bytes of it are data. */
Qcow2Image *qcow2_image_new(const char *options, int64_t size, bool backing);
/* Close it, remove its files. */
void qcow2_image_free(Qcow2Image *img);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Qcow2Image, qcow2_image_free)

/* On blkdebug; @more: further options of the format in JSON, NULL for none. */
void qcow2_image_open(Qcow2Image *img, const char *more);
void qcow2_image_close(Qcow2Image *img);
BlockDriverState *qcow2_image_bs(Qcow2Image *img);

/* ---- Requests, of our driver and of the model; 0 or -errno ---- */

/* What write writes: bytes that say where they are, and when (@seed). */
uint8_t qcow2_image_pattern(int64_t offset, unsigned seed);
int qcow2_image_write(Qcow2Image *img, int64_t offset, int64_t bytes,
                      unsigned seed, int flags);
int qcow2_image_zero(Qcow2Image *img, int64_t offset, int64_t bytes,
                     int flags);
int qcow2_image_discard(Qcow2Image *img, int64_t offset, int64_t bytes);
/* Read and compare. */
void qcow2_image_verify(Qcow2Image *img, int64_t offset, int64_t bytes);

/* ---- Closed: what the installed tools say ---- */

/* Status of "qemu-img check": 0, 2 corrupt, 3 leaks.  Says what it found if it
 * is not @expected or less. */
int qcow2_image_check(Qcow2Image *img);
/* All of the disk, as "qemu-img convert" sees it; the caller frees it. */
uint8_t *qcow2_image_contents(Qcow2Image *img);
/* Internal snapshot "s" of the disk, by the installed qemu-img. */
void qcow2_image_snapshot(Qcow2Image *img);
/* Clean, without leaks, and the same as the model; the snapshot and a raw data
 * file, too. */
void qcow2_image_assert_good(Qcow2Image *img);

#endif
