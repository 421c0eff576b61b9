/*
 * XTS: block i of a unit is E(P ^ T_i) ^ T_i, and T_i is T_(i-1) times x in
 * GF(2^128), which is a shift by one bit to the left and, if a bit falls out,
 * an exclusive or with 0x87.
 *
 * Ciphers are several times as fast when they are given many blocks at once.
 * So the tweaks of a run of blocks are written to the stack first, and the
 * three steps (xor, cipher, xor) go over the run as a whole.  A run is 32
 * blocks: a sector of 512 bytes.
 *
 * The tweaks would be a chain in which each waits for the one before.  Here
 * there are four chains beside each other: T_(i+4) is T_i times x^4, a shift by
 * four bits, and what falls out (four bits) times 0x87.
 *
 * Ciphertext stealing, for units that are no multiple of 16 bytes, is left out:
 * sectors are.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "cipher-xts.h"

#define RUN_BLOCKS 32
#define LANES 4

/* Little-endian: lo has the bits that are sent first. */
typedef struct Tweak {
    uint64_t lo, hi;
} Tweak;

/* A block, as the processor's vector registers hold it. */
typedef uint64_t Block __attribute__((vector_size(16)));

_Static_assert(sizeof(Tweak) == 16, "a block");
_Static_assert(RUN_BLOCKS % LANES == 0, "whole rounds");

static inline Tweak to_or_from_le(Tweak t)
{
    return (Tweak) { GUINT64_TO_LE(t.lo), GUINT64_TO_LE(t.hi) };
}

static inline Tweak times_x(Tweak t)
{
    uint64_t out = t.hi >> 63;

    return (Tweak) { t.lo << 1 ^ out * 0x87, t.hi << 1 | t.lo >> 63 };
}

/* 0x87 is x^7 + x^2 + x + 1: the product of @out with it, without carries. */
static inline Tweak times_x4(Tweak t)
{
    uint64_t out = t.hi >> 60;

    return (Tweak) { t.lo << 4 ^ out ^ out << 1 ^ out << 2 ^ out << 7,
                     t.hi << 4 | t.lo >> 60 };
}

/* The next @n tweaks (rounded up to LANES) into @run; @lane moves on. */
static void next_tweaks(Tweak lane[LANES], Tweak *run, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            run[i + j] = to_or_from_le(lane[j]);
            lane[j] = times_x4(lane[j]);
        }
    }
}

static void xor_blocks(uint8_t *out, const uint8_t *in, const Tweak *run,
                       size_t n)
{
    for (size_t i = 0; i < n; i++) {
        Block b, t;

        memcpy(&b, in + i * sizeof(b), sizeof(b));
        memcpy(&t, &run[i], sizeof(t));
        b ^= t;
        memcpy(out + i * sizeof(b), &b, sizeof(b));
    }
}

void xts_crypt(const void *ctx, nettle_cipher_func *crypt,
               const uint8_t tweak[16], const uint8_t *in, uint8_t *out,
               size_t len)
{
    Tweak lane[LANES], run[RUN_BLOCKS];
    size_t blocks = len / sizeof(Tweak);

    memcpy(&lane[0], tweak, sizeof(lane[0]));
    lane[0] = to_or_from_le(lane[0]);
    for (int j = 1; j < LANES; j++) {
        lane[j] = times_x(lane[j - 1]);
    }
    while (blocks) {
        size_t n = MIN(blocks, RUN_BLOCKS);

        next_tweaks(lane, run, n);
        xor_blocks(out, in, run, n);
        crypt(ctx, n * sizeof(Tweak), out, out);
        xor_blocks(out, out, run, n);
        in += n * sizeof(Tweak);
        out += n * sizeof(Tweak);
        blocks -= n;
    }
}
