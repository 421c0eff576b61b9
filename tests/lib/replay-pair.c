/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What two write logs can leave behind that are cut at one moment.
 *
 * A moment is a place in the order of all entries; in each log it is the cut
 * before which the entries of earlier places stand.  The logs are short, so
 * every image is made from the beginning.
 */
#include "replay.h"

typedef struct PairWalk {
    const WriteLogDisk *disks[2];
    uint32_t seed;
    ReplayPairFn *fn;
    void *opaque;
} PairWalk;

static const WriteLogEntry *entry(const WriteLogDisk *d, size_t i)
{
    return &g_array_index(d->log, WriteLogEntry, i);
}

static bool visit(const PairWalk *w, ReplayCut a, ReplayCut b)
{
    const ReplayPair pair = { { w->disks[0], w->disks[1] }, { a, b } };
    MemImage *images[2];
    bool ok;

    for (int i = 0; i < 2; i++) {
        images[i] = replay_image(w->disks[i], pair.cuts[i], w->seed);
    }
    ok = w->fn(&pair, images, w->opaque);
    mem_image_free(images[0]);
    mem_image_free(images[1]);
    return ok;
}

/* Move @cuts past the entry that is next in the order; NULL: there is none. */
static const WriteLogEntry *step(const PairWalk *w, size_t cuts[2])
{
    const WriteLogEntry *next[2];
    int first;

    for (int i = 0; i < 2; i++) {
        next[i] = cuts[i] < w->disks[i]->log->len ?
                  entry(w->disks[i], cuts[i]) : NULL;
    }
    first = !next[0] || (next[1] && next[1]->order < next[0]->order);
    cuts[first] += next[first] != NULL;
    return next[first];
}

static bool visit_all_and_none(const PairWalk *w, const size_t cuts[2])
{
    static const ReplayPick picks[][2] = {
        { REPLAY_ALL, REPLAY_ALL }, { REPLAY_NONE, REPLAY_NONE },
        { REPLAY_ALL, REPLAY_NONE }, { REPLAY_NONE, REPLAY_ALL },
    };

    for (size_t i = 0; i < ARRAY_SIZE(picks); i++) {
        if (!visit(w, (ReplayCut){ cuts[0], picks[i][0] },
                   (ReplayCut){ cuts[1], picks[i][1] })) {
            return false;
        }
    }
    return true;
}

static bool walk_moments(const PairWalk *w, int percent, GRand *rand)
{
    const WriteLogEntry *e;
    size_t cuts[2] = { 0, 0 };

    while ((e = step(w, cuts))) {
        if (e->op != WLOG_MARK && g_rand_int_range(rand, 0, 100) < percent &&
            !visit_all_and_none(w, cuts)) {
            return false;
        }
    }
    return true;
}

static bool walk_random(const PairWalk *w, int n, GRand *rand)
{
    size_t total = w->disks[0]->log->len + w->disks[1]->log->len;

    for (int i = 0; i < n; i++) {
        size_t cuts[2] = { 0, 0 };
        size_t steps = g_rand_double(rand) * (total + 1);

        while (steps--) {
            step(w, cuts);
        }
        if (!visit(w, (ReplayCut){ cuts[0], REPLAY_RANDOM, i },
                   (ReplayCut){ cuts[1], REPLAY_RANDOM, i })) {
            return false;
        }
    }
    return true;
}

bool replay_foreach_pair(const WriteLogDisk *a, const WriteLogDisk *b,
                         uint32_t seed, int max_systematic, int num_random,
                         ReplayPairFn *fn, void *opaque)
{
    const PairWalk w = { { a, b }, seed, fn, opaque };
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    int64_t wanted = 4 * (int64_t)(a->log->len + b->log->len);
    int percent = MIN(100, 100 * (int64_t)max_systematic / MAX(wanted, 1));

    return walk_moments(&w, MAX(percent, 1), rand) &&
           walk_random(&w, num_random, rand);
}
