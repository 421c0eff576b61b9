/*
 * What a disk holds, as sums of pieces: small enough to keep two of them and
 * compare.  How much is read is bounded, whatever the image says; status has to
 * make progress and stay within the disk.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <zlib.h>
#include "fuzz.h"

#define MAX_CHUNKS 512
#define MAX_READ (4 * MiB)
#define CHUNK (64 * KiB)

/* The status of what begins at c->offset, and how long it is. */
static void ask_status(BlockBackend *blk, int64_t size, FuzzChunk *c)
{
    int64_t left = size - c->offset, n, map = 0;
    BlockDriverState *file = NULL;
    int st = bdrv_block_status_above(blk_bs(blk), NULL, c->offset, left, &n,
                                     &map, &file);

    c->host = -1;
    c->bytes = MIN(left, CHUNK);
    if (st < 0) {
        return;
    }
    if (n <= 0 || n > left) {
        fuzz_fail("status of %" PRId64 " bytes at %" PRId64 ", of %" PRId64,
                  n, c->offset, size);
    }
    c->bytes = n;
    c->is_compressed = st & BDRV_BLOCK_COMPRESSED;
    if (st & BDRV_BLOCK_OFFSET_VALID) {
        c->host = map;
    }
}

static void read_chunk(BlockBackend *blk, FuzzChunk *c, int64_t *budget)
{
    int64_t n = MIN(c->bytes, MIN(*budget, CHUNK));
    g_autofree uint8_t *buf = g_malloc(n + 1);

    *budget -= n;
    c->ret = blk_pread(blk, c->offset, n, buf, 0);
    if (c->ret == 0) {
        c->sum = crc32(0, buf, n);
        /* The end of a long run as well. */
        c->ret = blk_pread(blk, c->offset + c->bytes - n, n, buf, 0);
        c->sum = crc32(c->sum, buf, n);
    }
}

GArray *fuzz_contents(BlockBackend *blk)
{
    GArray *chunks = g_array_new(FALSE, TRUE, sizeof(FuzzChunk));
    int64_t size = blk_getlength(blk), at = 0, budget = MAX_READ;

    while (at < size && budget > 0 && chunks->len < MAX_CHUNKS) {
        FuzzChunk c = { .offset = at };

        ask_status(blk, size, &c);
        read_chunk(blk, &c, &budget);
        g_array_append_val(chunks, c);
        at += c.bytes;
    }
    return chunks;
}
