/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug's programming interface, for tests.
 *
 * Each function takes any node and looks for the first blkdebug at it or below,
 * by primary children.  Where there is none, those that return an int return
 * -ENOTSUP, the others false.  Control thread.
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

#endif
