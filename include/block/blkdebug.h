/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug's programming interface, for tests and for qemu-io.
 *
 * Each function takes any node and looks for the first blkdebug at it or below,
 * by primary children.  Where there is none, those that return an int return
 * -ENOTSUP, the others false.  Control thread; that thread may block only in
 * blkdebug_wait_suspended().
 */
#ifndef BLOCK_BLKDEBUG_H
#define BLOCK_BLKDEBUG_H

#include "block/block-driver.h"

/* ---- Fail the nth request ---- */

/*
 * From now on, count reads, writes, zero writes, discards and flushes that
 * reach the node, and let number @n (from 1) fail with @error (positive),
 * and no other.  Arming again starts over; @n 0 disarms.
 */
int blkdebug_arm(BlockDriverState *bs, int n, int error);
/* Whether the request has failed that was armed last. */
bool blkdebug_fired(BlockDriverState *bs);

/* ---- Break points ---- */

/*
 * Suspend the next request that reaches @event, once; @tag names it from then
 * on.  0, or -ENOENT for an unknown event.
 */
int blkdebug_break(BlockDriverState *bs, const char *event, const char *tag);
/* Let one suspended request go on; -ENOENT if there is none called @tag. */
int blkdebug_resume(BlockDriverState *bs, const char *tag);
/* Forget break points called @tag that nothing has reached, and let all
 * requests go on that are suspended by it; -ENOENT if there is neither. */
int blkdebug_remove_break(BlockDriverState *bs, const char *tag);
bool blkdebug_is_suspended(BlockDriverState *bs, const char *tag);
/*
 * Sleep until a request is suspended as @tag, at most @timeout_ns nanoseconds
 * (negative: for as long as it takes).  0, or -ETIMEDOUT.
 */
int blkdebug_wait_suspended(BlockDriverState *bs, const char *tag,
                            int64_t timeout_ns);

#endif
