/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stamped blocks: see bench-stamp.h.
 *
 * Layout: offset, generation, seed, then 509 words of a Weyl sequence whose
 * start and step come from the three.
 */
#include "bench-stamp.h"

#include <glib.h>
#include <inttypes.h>
#include <stdio.h>

#define WORDS (STAMP_BLOCK / sizeof(uint64_t))

void stamp_map_init(StampMap *m, int64_t bytes, uint64_t seed)
{
    m->seed = seed;
    m->num_blocks = bytes / STAMP_BLOCK;
    m->generation = g_new0(uint32_t, m->num_blocks);
    m->is_busy = g_new0(bool, m->num_blocks);
}

void stamp_map_destroy(StampMap *m)
{
    g_free(m->generation);
    g_free(m->is_busy);
}

bool stamp_claim(StampMap *m, int64_t offset, int64_t bytes)
{
    int64_t first = offset / STAMP_BLOCK;
    int64_t end = first + bytes / STAMP_BLOCK;
    int64_t i;

    for (i = first; i < end; i++) {
        if (m->is_busy[i]) {
            return false;
        }
    }
    for (i = first; i < end; i++) {
        m->is_busy[i] = true;
    }
    return true;
}

void stamp_release(StampMap *m, int64_t offset, int64_t bytes)
{
    int64_t i;

    for (i = 0; i < bytes / STAMP_BLOCK; i++) {
        m->is_busy[offset / STAMP_BLOCK + i] = false;
    }
}

static uint64_t word_of(uint64_t offset, uint64_t generation, uint64_t seed,
                        unsigned i)
{
    uint64_t start = seed ^ (offset << 13) ^ (generation * 0x9e3779b97f4a7c15);

    return start + i * ((start | 1) * 0xbf58476d1ce4e5b9);
}

void stamp_fill(StampMap *m, int64_t offset, void *buf, int64_t bytes)
{
    uint64_t *w = buf;

    for (; bytes > 0; bytes -= STAMP_BLOCK, offset += STAMP_BLOCK, w += WORDS) {
        uint64_t generation = ++m->generation[offset / STAMP_BLOCK];
        unsigned i;

        w[0] = offset;
        w[1] = generation;
        w[2] = m->seed;
        for (i = 3; i < WORDS; i++) {
            w[i] = word_of(offset, generation, m->seed, i);
        }
    }
}

bool stamp_was_written(const StampMap *m, int64_t offset, int64_t bytes)
{
    int64_t i;

    for (i = 0; i < bytes / STAMP_BLOCK; i++) {
        if (m->generation[offset / STAMP_BLOCK + i]) {
            return true;
        }
    }
    return false;
}

static bool block_is_right(const StampMap *m, uint64_t offset,
                           uint64_t generation, const uint64_t *w)
{
    bool ok = w[0] == offset && w[1] == generation && w[2] == m->seed;
    unsigned i;

    for (i = 3; i < WORDS && ok; i++) {
        ok = w[i] == word_of(offset, generation, m->seed, i);
    }
    return ok;
}

uint64_t stamp_check(const StampMap *m, int64_t offset, const void *buf,
                     int64_t bytes, bool quiet, uint64_t *checked)
{
    const uint64_t *w = buf;
    uint64_t wrong = 0;

    for (; bytes > 0; bytes -= STAMP_BLOCK, offset += STAMP_BLOCK, w += WORDS) {
        uint32_t generation = m->generation[offset / STAMP_BLOCK];

        if (generation == 0) {
            continue;
        }
        (*checked)++;
        if (!block_is_right(m, offset, generation, w) && wrong++ == 0 &&
            !quiet) {
            fprintf(stderr,
                    "block at %" PRId64 ", write %u of run %" PRIx64
                    ": found offset %" PRIu64 ", write %" PRIu64
                    " of run %" PRIx64 "\n",
                    offset, generation, m->seed, w[0], w[1], w[2]);
        }
    }
    return wrong;
}
