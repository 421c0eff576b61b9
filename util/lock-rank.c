/*
 * The run-time half of the lock order: a per-thread stack of ranks.
 *
 * Clang checks the order of lock classes that it can see in one function; this
 * catches the rest, behind function pointers and across files, in the first run
 * that takes two locks the wrong way round, whether or not it deadlocks.  Only
 * built with CONFIG_LOCK_DEBUG.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/lock-order.h"

#ifdef CONFIG_LOCK_DEBUG

#define MAX_HELD 16

static const char *const rank_names[] = {
    [RANK_NONE] = "none",         [RANK_MONITOR] = "monitor",
    [RANK_GRAPH] = "graph",       [RANK_JOB] = "job",
    [RANK_GATE] = "gate",         [RANK_DRIVER] = "driver",
    [RANK_PROTOCOL] = "protocol", [RANK_REQS] = "reqs",
    [RANK_THROTTLE] = "throttle", [RANK_POOL] = "pool",
    [RANK_CONTEXT] = "context",   [RANK_TIMER] = "timer",
    [RANK_BITMAP] = "bitmap",     [RANK_LEAF] = "leaf",
};

static __thread LockRank held[MAX_HELD];
static __thread int n_held;

/* Locks are mostly, not always, released in reverse order: find the top. */
static LockRank highest_held(void)
{
    LockRank highest = RANK_NONE;
    int i;

    for (i = 0; i < n_held; i++) {
        highest = MAX(highest, held[i]);
    }
    return highest;
}

void lock_rank_assert_below(LockRank rank)
{
    LockRank highest = highest_held();

    if (highest >= rank) {
        fprintf(stderr, "lock order: \"%s\" wanted while \"%s\" is held\n",
                rank_names[rank], rank_names[highest]);
        abort();
    }
}

void lock_rank_push(LockRank rank)
{
    lock_rank_assert_below(rank);
    assert(n_held < MAX_HELD);
    held[n_held++] = rank;
}

void lock_rank_pop(LockRank rank)
{
    int i;

    for (i = n_held - 1; i >= 0; i--) {
        if (held[i] == rank) {
            memmove(&held[i], &held[i + 1],
                    (n_held - i - 1) * sizeof(held[0]));
            n_held--;
            return;
        }
    }
    fprintf(stderr, "lock order: \"%s\" released but not held\n",
            rank_names[rank]);
    abort();
}

#endif
