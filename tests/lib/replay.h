/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a write log can leave behind when it is cut short.
 *
 * A cut at K: entries 0 to K-1 have happened.  What the last flush among them
 * covers is on the disk.  Of the later changes, a killed process leaves all; a
 * power cut leaves some, whole or torn at 512 bytes, but for one sector never
 * an older one over a newer one.  Which, is the pick:
 *
 *   all       every one: the process was killed, the host goes on
 *   none      no unflushed change
 *   drop=I    all but entry I
 *   only=I    none but entry I
 *   rand=V    a random subset, randomly torn; V and K and the seed decide
 *
 * As text a cut is "K:pick", as in "123:drop=7"; it and the seed are all that
 * is needed to see the same image again.
 */
#ifndef TESTS_REPLAY_H
#define TESTS_REPLAY_H

#include "write-log.h"

typedef enum ReplayPick {
    REPLAY_ALL,
    REPLAY_NONE,
    REPLAY_DROP,
    REPLAY_ONLY,
    REPLAY_RANDOM,
} ReplayPick;

typedef struct ReplayCut {
    size_t cut;
    ReplayPick pick;
    size_t value;
} ReplayCut;

/* The log must not grow meanwhile. */

/* An image as @cut leaves it; the caller's. */
MemImage *replay_image(const WriteLogDisk *d, ReplayCut cut, uint32_t seed);
/* Entries below this one are durable at @cut. */
size_t replay_durable(const WriteLogDisk *d, size_t cut);

/* "K:pick"; the caller frees it. */
char *replay_cut_format(ReplayCut cut);
bool replay_cut_parse(const char *text, ReplayCut *cut);

/*
 * Call @fn for a good choice of cuts until it returns false: every prefix (one
 * after each change, and one after each mark that is not 0); at the end of each
 * epoch between flushes, nothing of it, all but one, only one; then
 * @num_random random ones.  Systematic ones beyond @max_systematic are drawn
 * from at random.  @return: fn has never returned false.
 */
typedef bool ReplayFn(ReplayCut cut, MemImage *image, void *opaque);
bool replay_foreach(const WriteLogDisk *d, uint32_t seed, int max_systematic,
                    int num_random, ReplayFn *fn, void *opaque);

/*
 * Two disks of one machine, which lose their power at one moment: each keeps
 * its own choice of what was not flushed.  Moments are after every change and
 * flush of either; @fn gets, for each, all and nothing of both and of one each;
 * then @num_random random ones of both.  The same rule for @max_systematic.
 */
typedef struct ReplayPair {
    const WriteLogDisk *disks[2];
    ReplayCut cuts[2];
} ReplayPair;

typedef bool ReplayPairFn(const ReplayPair *pair, MemImage *images[2],
                          void *opaque);
bool replay_foreach_pair(const WriteLogDisk *a, const WriteLogDisk *b,
                         uint32_t seed, int max_systematic, int num_random,
                         ReplayPairFn *fn, void *opaque);

#endif
