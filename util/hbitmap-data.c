/*
 * HBitmap to and from the bits of an image: see "Bitmap data" in hbitmap.h.
 *
 * A leaf's words are the data, but for the byte order of the host.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "hbitmap-internal.h"

int64_t hbitmap_data_size(int64_t size, uint32_t granularity)
{
    return (bits_for(size, __builtin_ctz(granularity)) + 7) / 8;
}

/* Bits of a piece, cut to those that exist. */
static void piece_bits(const HBitmap *hb, int64_t pos, int64_t len,
                       uint64_t *first, uint64_t *end)
{
    assert(pos >= 0 && len >= 0 && (pos | len) % 8 == 0);
    /* More bytes than there are bits: certainly past the end. */
    *first = (uint64_t)pos >= hb->bits ? hb->bits :
             MIN((uint64_t)pos * 8, hb->bits);
    *end = (uint64_t)len >= hb->bits ? hb->bits :
           MIN(*first + (uint64_t)len * 8, hb->bits);
}

HBitmapPiece hbitmap_piece(const HBitmap *hb, int64_t pos, int64_t len)
{
    uint64_t first, end;

    piece_bits(hb, pos, len, &first, &end);
    if (hbitmap_find_bit(hb, first, end, true) == end) {
        return HBITMAP_PIECE_ZEROES;
    }
    return hbitmap_find_bit(hb, first, end, false) == end ?
           HBITMAP_PIECE_ONES : HBITMAP_PIECE_MIXED;
}

static void serialize_leaf(const Node *leaf, uint64_t word, int64_t len,
                           uint8_t *buf)
{
    if (is_uniform(leaf)) {
        memset(buf, leaf ? 0xff : 0, len);
        return;
    }
    for (int64_t i = 0; i < len / 8; i++) {
        uint64_t le = GUINT64_TO_LE(leaf->words[word + i]);

        memcpy(buf + i * 8, &le, 8);
    }
}

void hbitmap_serialize(const HBitmap *hb, int64_t pos, int64_t len,
                       uint8_t *buf)
{
    uint64_t bit, end;

    piece_bits(hb, pos, len, &bit, &end);
    while (bit < end) {
        /* To the end of a leaf, or of the piece's last word. */
        uint64_t stop = MIN(QEMU_ALIGN_DOWN(bit, LEAF_BITS) + LEAF_BITS,
                            QEMU_ALIGN_UP(end, 64));
        int64_t n = (stop - bit) / 8;

        serialize_leaf(hbitmap_leaf_of(hb, bit), bit % LEAF_BITS / 64, n, buf);
        bit = stop;
        buf += n;
        len -= n;
    }
    memset(buf, 0, len);
}

void hbitmap_deserialize(HBitmap *hb, int64_t pos, int64_t len,
                         const uint8_t *buf)
{
    uint64_t bit, end;

    piece_bits(hb, pos, len, &bit, &end);
    while (bit < end) {
        uint64_t n = MIN(end - bit, LEAF_BITS - bit % LEAF_BITS);

        hbitmap_put_bits(hb, bit, n, buf);
        bit += n;
        buf += n / 8;
    }
}

void hbitmap_deserialize_zeroes(HBitmap *hb, int64_t pos, int64_t len)
{
    uint64_t first, end;

    piece_bits(hb, pos, len, &first, &end);
    hbitmap_fill_bits(hb, first, end, false);
}

void hbitmap_deserialize_ones(HBitmap *hb, int64_t pos, int64_t len)
{
    uint64_t first, end;

    piece_bits(hb, pos, len, &first, &end);
    hbitmap_fill_bits(hb, first, end, true);
}
