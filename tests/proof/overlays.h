/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images on disks in memory over one another, in qemu-img's graph, for proofs
 * about what qemu-img does with several of them.  Control thread.
 */
#ifndef TESTS_OVERLAYS_H
#define TESTS_OVERLAYS_H

#include "proof.h"

/* @options: JSON object, without size.  The disk is there already. */
void overlays_create(const char *driver, const char *disk, const char *options,
                     int64_t size);

/* @n random requests: data, zeroes and, unless @compress_unit is 0, compressed
 * clusters, so many bytes at a time. */
void overlays_scribble(BlockBackend *blk, GRand *rand, int n,
                       int64_t compress_unit);

/* What the checker says that shares nothing with the driver. */
bool overlays_are_sound(const WriteLogDisk *d, bool may_leak, GString *why);

/* Does @blk hold the @size bytes @expected?  @what: who it is, for @why. */
bool overlays_read_as(BlockBackend *blk, const uint8_t *expected, int64_t size,
                      const char *what, GString *why);

#endif
