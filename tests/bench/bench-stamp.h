/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stamped blocks: what the verify mode writes and expects.
 *
 * Every 4 KiB block says where it belongs, how many times it had been written,
 * and in which run; the rest is a sequence that follows from these three.  So a
 * block that is stale, misplaced, torn or zeroed is recognised.
 *
 * A StampMap remembers the generation of each block, and which blocks have a
 * request in flight: two requests on one block, of which one writes, have no
 * defined outcome, so the generator does not make them.  Threads use disjoint
 * ranges of a map, without a lock.
 */
#ifndef TESTS_BENCH_STAMP_H
#define TESTS_BENCH_STAMP_H

#include <stdbool.h>
#include <stdint.h>

#define STAMP_BLOCK 4096

typedef struct StampMap {
    uint64_t seed;
    int64_t num_blocks;
    uint32_t *generation; /* 0: never written, contents unknown */
    bool *is_busy;
} StampMap;

/* For a disk of @bytes.  Exits on lack of memory, as glib does. */
void stamp_map_init(StampMap *m, int64_t bytes, uint64_t seed);
void stamp_map_destroy(StampMap *m);

/* Claims [@offset, +@bytes), whole blocks.  False if any block is busy. */
bool stamp_claim(StampMap *m, int64_t offset, int64_t bytes);
void stamp_release(StampMap *m, int64_t offset, int64_t bytes);

/* Fills @buf for a claimed range, with a new generation. */
void stamp_fill(StampMap *m, int64_t offset, void *buf, int64_t bytes);

/* Was any block of the range ever written? */
bool stamp_was_written(const StampMap *m, int64_t offset, int64_t bytes);

/*
 * Checks @buf, read from @offset: returns the number of wrong blocks, and adds
 * those that could be checked to *@checked.  Unless @quiet the first wrong one
 * is described on stderr.
 */
uint64_t stamp_check(const StampMap *m, int64_t offset, const void *buf,
                     int64_t bytes, bool quiet, uint64_t *checked);

#endif
