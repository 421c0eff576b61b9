/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image of a cut is the base with the durable entries, then the picked ones
 * of the rest, in the order of the log.  Applying them in that order and
 * leaving some out, per sector, makes every state that a disk may be in which
 * writes its cache back in any order: for one sector the last write that it
 * wrote back counts, and leaving out the newer ones makes an older one last.
 *
 * The file's size is kept by a file system, which has a journal: a change of
 * the size is there only with all that came before it, and data past the end,
 * because the change that made room for it is not there, is not there either.
 *
 * Going through many cuts, the durable part is kept as an image that moves on,
 * and each cut is a copy of it.
 */
#include "replay.h"
#include "qemu/cutils.h"

#define SECTOR 512

static const WriteLogEntry *entry(const WriteLogDisk *d, size_t i)
{
    return &g_array_index(d->log, WriteLogEntry, i);
}

static bool is_change(const WriteLogEntry *e)
{
    return WLOG_CHANGES & 1u << e->op;
}

/* ---- One image ---- */

static void apply_part(MemImage *img, const WriteLogDisk *d,
                       const WriteLogEntry *e, int64_t from, int64_t bytes)
{
    if (!e->extends) {
        bytes = MIN(bytes, mem_image_size(img) - e->offset - from);
    }
    if (bytes <= 0) {
        return;
    }
    if (e->op == WLOG_WRITE) {
        mem_image_write(img, e->offset + from, e->data + from, bytes);
    } else {
        mem_image_fill(img, e->offset + from,
                       e->op == WLOG_DISCARD ? d->discard_value : 0, bytes);
    }
}

static void apply(MemImage *img, const WriteLogDisk *d,
                  const WriteLogEntry *e)
{
    if (e->op == WLOG_TRUNCATE) {
        mem_image_truncate(img, e->offset);
    } else if (is_change(e)) {
        apply_part(img, d, e, 0, e->bytes);
    }
}

/* Each sector by the toss of a coin. */
static void apply_torn(MemImage *img, const WriteLogDisk *d,
                       const WriteLogEntry *e, GRand *rand)
{
    int64_t end = e->offset + e->bytes;
    int64_t at, next;

    if (e->op == WLOG_TRUNCATE) {
        apply(img, d, e);
        return;
    }
    for (at = e->offset; at < end; at = next) {
        next = MIN(QEMU_ALIGN_DOWN(at, SECTOR) + SECTOR, end);
        if (g_rand_boolean(rand)) {
            apply_part(img, d, e, at - e->offset, next - at);
        }
    }
}

size_t replay_durable(const WriteLogDisk *d, size_t cut)
{
    size_t covers = 0;
    size_t i;

    for (i = 0; i < cut; i++) {
        if (entry(d, i)->op == WLOG_FLUSH) {
            covers = MAX(covers, entry(d, i)->covers);
        }
    }
    return covers;
}

static GRand *rand_of_cut(ReplayCut cut, uint32_t seed)
{
    const guint32 seeds[] = { seed, cut.cut, cut.value };

    return g_rand_new_with_seed_array(seeds, G_N_ELEMENTS(seeds));
}

static bool is_picked(ReplayCut cut, size_t i, GRand *rand, int keep)
{
    switch (cut.pick) {
    case REPLAY_ALL:
        return true;
    case REPLAY_NONE:
        return false;
    case REPLAY_DROP:
        return i != cut.value;
    case REPLAY_ONLY:
        return i == cut.value;
    case REPLAY_RANDOM:
        return g_rand_int_range(rand, 0, 100) < keep;
    }
    g_assert_not_reached();
}

/* Add to @img, which holds what is durable, what else @cut picks. */
static void apply_pick(MemImage *img, const WriteLogDisk *d, size_t durable,
                       ReplayCut cut, uint32_t seed)
{
    g_autoptr(GRand) rand = rand_of_cut(cut, seed);
    int keep = g_rand_int_range(rand, 5, 100);
    int64_t shortest = INT64_MAX;       /* of the sizes that were left out */
    size_t i;

    for (i = durable; i < cut.cut; i++) {
        const WriteLogEntry *e = entry(d, i);

        if (!is_change(e)) {
            continue;
        }
        if (!is_picked(cut, i, rand, keep)) {
            shortest = e->op == WLOG_TRUNCATE ? MIN(shortest, e->offset) :
                       shortest;
            continue;
        }
        if (e->op == WLOG_TRUNCATE && shortest < mem_image_size(img)) {
            mem_image_truncate(img, shortest);
        }
        if (cut.pick == REPLAY_RANDOM && g_rand_int_range(rand, 0, 3) == 0) {
            apply_torn(img, d, e, rand);
        } else {
            apply(img, d, e);
        }
    }
}

MemImage *replay_image(const WriteLogDisk *d, ReplayCut cut, uint32_t seed)
{
    MemImage *img = mem_image_clone(d->base);
    size_t durable = replay_durable(d, cut.cut);
    size_t i;

    for (i = 0; i < durable; i++) {
        apply(img, d, entry(d, i));
    }
    apply_pick(img, d, durable, cut, seed);
    return img;
}

/* ---- Text ---- */

static const char *const pick_names[] = {
    [REPLAY_ALL] = "all", [REPLAY_NONE] = "none", [REPLAY_DROP] = "drop=",
    [REPLAY_ONLY] = "only=", [REPLAY_RANDOM] = "rand=",
};

char *replay_cut_format(ReplayCut cut)
{
    const char *name = pick_names[cut.pick];

    if (cut.pick < REPLAY_DROP) {
        return g_strdup_printf("%zu:%s", cut.cut, name);
    }
    return g_strdup_printf("%zu:%s%zu", cut.cut, name, cut.value);
}

bool replay_cut_parse(const char *text, ReplayCut *cut)
{
    uint64_t value = 0;
    const char *rest;
    size_t i;

    if (parse_uint(text, &rest, 10, &value) < 0 || *rest++ != ':') {
        return false;
    }
    *cut = (ReplayCut){ .cut = value };
    for (i = 0; i < ARRAY_SIZE(pick_names); i++) {
        const char *number;

        if (!strstart(rest, pick_names[i], &number)) {
            continue;
        }
        cut->pick = i;
        if (i < REPLAY_DROP) {
            return *number == '\0';
        }
        if (parse_uint_full(number, 10, &value) < 0) {
            return false;
        }
        cut->value = value;
        return true;
    }
    return false;
}

/* ---- Many images ---- */

typedef struct Walk {
    const WriteLogDisk *d;
    uint32_t seed;
    ReplayFn *fn;
    void *opaque;
    MemImage *durable_img;      /* entries below durable */
    size_t durable;
} Walk;

static bool visit(Walk *w, ReplayCut cut)
{
    g_autoptr(MemImage) img = mem_image_clone(w->durable_img);

    apply_pick(img, w->d, w->durable, cut, w->seed);
    return w->fn(cut, img, w->opaque);
}

/* Cuts only move on. */
static void advance(Walk *w, size_t durable)
{
    for (; w->durable < durable; w->durable++) {
        apply(w->durable_img, w->d, entry(w->d, w->durable));
    }
}

static void walk_init(Walk *w)
{
    w->durable_img = mem_image_clone(w->d->base);
    w->durable = 0;
}

static void walk_destroy(Walk *w)
{
    mem_image_free(w->durable_img);
}

/* The prefix is one image that grows: nothing to pick. */
static bool walk_prefixes(Walk *w, int percent, GRand *rand)
{
    const WriteLogDisk *d = w->d;
    size_t i;

    for (i = 0; i < d->log->len; i++) {
        const WriteLogEntry *e = entry(d, i);
        ReplayCut cut = { i + 1, REPLAY_ALL };

        advance(w, i + 1);
        if ((is_change(e) || (e->op == WLOG_MARK && e->offset)) &&
            g_rand_int_range(rand, 0, 100) < percent && !visit(w, cut)) {
            return false;
        }
    }
    return true;
}

/* At @cut, all of the epoch is in the disk's cache. */
static bool walk_epoch(Walk *w, size_t cut, int percent, GRand *rand)
{
    size_t i;

    if (!visit(w, (ReplayCut){ cut, REPLAY_NONE })) {
        return false;
    }
    for (i = w->durable; i < cut; i++) {
        if (!is_change(entry(w->d, i)) ||
            g_rand_int_range(rand, 0, 100) >= percent) {
            continue;
        }
        if (!visit(w, (ReplayCut){ cut, REPLAY_DROP, i }) ||
            !visit(w, (ReplayCut){ cut, REPLAY_ONLY, i })) {
            return false;
        }
    }
    return true;
}

static bool walk_epochs(Walk *w, int percent, GRand *rand)
{
    const WriteLogDisk *d = w->d;
    size_t i;

    for (i = 0; i <= d->log->len; i++) {
        bool is_end = i == d->log->len || entry(d, i)->op == WLOG_FLUSH;

        if (is_end && !walk_epoch(w, i, percent, rand)) {
            return false;
        }
        if (is_end && i < d->log->len) {
            advance(w, entry(d, i)->covers);
        }
    }
    return true;
}

/* In the order of their cuts, so that the durable part can move on. */
static bool walk_random(Walk *w, int n, GRand *rand)
{
    const WriteLogDisk *d = w->d;
    size_t at = 0;
    int i;

    for (i = 0; i < n; i++) {
        size_t cut = MIN(d->log->len, (size_t)((i + g_rand_double(rand)) *
                                               (d->log->len + 1) / n));

        for (; at < cut; at++) {
            if (entry(d, at)->op == WLOG_FLUSH) {
                advance(w, entry(d, at)->covers);
            }
        }
        if (!visit(w, (ReplayCut){ cut, REPLAY_RANDOM, i })) {
            return false;
        }
    }
    return true;
}

static int count_changes(const WriteLogDisk *d)
{
    int n = 0;
    size_t i;

    for (i = 0; i < d->log->len; i++) {
        const WriteLogEntry *e = entry(d, i);

        n += is_change(e) || (e->op == WLOG_MARK && e->offset);
    }
    return n;
}

bool replay_foreach(const WriteLogDisk *d, uint32_t seed, int max_systematic,
                    int num_random, ReplayFn *fn, void *opaque)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    Walk w = { d, seed, fn, opaque };
    int64_t wanted = 3 * (int64_t)count_changes(d);
    int percent = MIN(100, 100 * (int64_t)max_systematic / MAX(wanted, 1));
    bool ok;

    walk_init(&w);
    ok = walk_prefixes(&w, percent, rand);
    walk_destroy(&w);
    if (ok) {
        walk_init(&w);
        ok = walk_epochs(&w, percent, rand);
        walk_destroy(&w);
    }
    if (ok) {
        walk_init(&w);
        ok = walk_random(&w, num_random, rand);
        walk_destroy(&w);
    }
    return ok;
}
