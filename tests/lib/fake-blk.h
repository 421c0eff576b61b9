/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A BlockBackend for tests of what stands above it: a disk in memory, without
 * any block layer.  A test can hold requests back, fail them and count them.
 */
#ifndef TESTS_FAKE_BLK_H
#define TESTS_FAKE_BLK_H

#include "block/block-backend.h"

BlockBackend *fake_blk_new(int64_t length);
void fake_blk_free(BlockBackend *blk);
/* The contents, past the device.  (Under a lock: what the ring orders, a race
 * detector cannot see, since each side maps it at an address of its own.) */
void fake_blk_get(BlockBackend *blk, int64_t offset, void *buf, size_t len);
void fake_blk_put(BlockBackend *blk, int64_t offset, const void *buf,
                  size_t len);

/* All later requests fail with @error (a negative errno; 0: none do). */
void fake_blk_set_error(BlockBackend *blk, int error);
/* Those that touch this range do (no bytes: none). */
void fake_blk_set_bad(BlockBackend *blk, int64_t offset, int64_t bytes);
/* Limits that the device is told. */
void fake_blk_set_max_transfer(BlockBackend *blk, int64_t bytes);
void fake_blk_set_mapping_unit(BlockBackend *blk, int64_t bytes);
void fake_blk_set_max_iov(BlockBackend *blk, int entries);
void fake_blk_set_detects_zeroes(BlockBackend *blk, bool detects);
/* Hold requests back from now on, or complete those that are held. */
void fake_blk_hold(BlockBackend *blk, bool hold);
/* Wait until @n requests are held. */
void fake_blk_wait_held(BlockBackend *blk, unsigned n);
/* What the request is that was held as number @n, from 0. */
BdrvRequestType fake_blk_held_type(BlockBackend *blk, unsigned n);
/* Call the device's drain callbacks. */
void fake_blk_drain_begin(BlockBackend *blk);
void fake_blk_drain_end(BlockBackend *blk);
/* Change the length, and tell the device. */
void fake_blk_resize(BlockBackend *blk, int64_t length);
/* Requests so far, of one type. */
unsigned fake_blk_count(BlockBackend *blk, BdrvRequestType type);
/* Flags of the last request. */
int fake_blk_last_flags(BlockBackend *blk);

/* Buffers that are registered now; the test fails if one that is registered
 * or unregistered is not mapped just then. */
unsigned fake_registered_bufs(void);

#endif
