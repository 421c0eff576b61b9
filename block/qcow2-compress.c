/*
 * qcow2: compressed clusters.
 *
 * Source: "Compressed Clusters Descriptor", "Compression type" of the
 * specification: raw deflate, whose window readers may take to be 4 KiB (12
 * bits), or zstd.  How long the data is, is known only in sectors: what follows
 * it is not part of it.
 *
 * libdeflate inflates a whole buffer at once and is several times faster than
 * zlib; ISA-L deflates with the small window and is faster still.  Without
 * them, zlib does; a program that was built with them and cannot load them says
 * -ELIBACC.  Each thread keeps its contexts.  What comes out is never more than
 * a cluster, whatever the input says, and less is an error.
 *
 * The same data shall give the same image.  That decides ISA-L's level: what
 * levels 1 and 2 find in the last bytes of a buffer depends on where their
 * context is in memory, and on what it held.  Level 3 has no such whims.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <zlib.h>
#include "qcow2.h"
#include "qcow2-codecs.h"

/* "zlib": window of 12 bits, no header. */
#define WINDOW_BITS 12

/* A thread's contexts, made when first needed. */
typedef struct Codec {
#ifdef CONFIG_LIBDEFLATE
    struct libdeflate_decompressor *inflater;
#endif
#ifdef CONFIG_LIBISAL
    struct isal_zstream *deflater;
    uint8_t *level_buf;
    size_t level_buf_size;
#endif
#ifdef CONFIG_LIBZSTD
    ZSTD_DCtx *unzstd;
    ZSTD_CCtx *zstd;
#endif
} Codec;

static void codec_free(void *opaque)
{
    Codec *c = opaque;

#ifdef CONFIG_LIBDEFLATE
    if (c->inflater) {
        qcow2_libdeflate()->libdeflate_free_decompressor(c->inflater);
    }
#endif
#ifdef CONFIG_LIBISAL
    g_free(c->deflater);
    g_free(c->level_buf);
#endif
#ifdef CONFIG_LIBZSTD
    if (c->unzstd) {
        qcow2_libzstd()->ZSTD_freeDCtx(c->unzstd);
    }
    if (c->zstd) {
        qcow2_libzstd()->ZSTD_freeCCtx(c->zstd);
    }
#endif
    g_free(c);
}

static Codec *my_codec(void)
{
    static GPrivate key = G_PRIVATE_INIT(codec_free);
    Codec *c = g_private_get(&key);

    if (!c) {
        c = g_new0(Codec, 1);
        g_private_set(&key, c);
    }
    return c;
}

/* ---- deflate ---- */

#ifdef CONFIG_LIBDEFLATE
static int zlib_decompress(void *dest, size_t dest_size, const void *src,
                           size_t src_size)
{
    const LibDeflate *lib = qcow2_libdeflate();
    Codec *c = my_codec();
    size_t used, got;

    if (!lib) {
        return -ELIBACC;
    }
    if (!c->inflater) {
        c->inflater = lib->libdeflate_alloc_decompressor();
    }
    if (!c->inflater) {
        return -ENOMEM;
    }
    if (lib->libdeflate_deflate_decompress_ex(c->inflater, src, src_size, dest,
                                              dest_size, &used, &got) !=
        LIBDEFLATE_SUCCESS) {
        return -EIO;
    }
    return got == dest_size ? 0 : -EIO;
}
#else
static int zlib_decompress(void *dest, size_t dest_size, const void *src,
                           size_t src_size)
{
    z_stream z = {
        .next_in = (void *)src,
        .avail_in = src_size,
        .next_out = dest,
        .avail_out = dest_size,
    };
    int ret = inflateInit2(&z, -WINDOW_BITS);

    if (ret != Z_OK) {
        return ret == Z_MEM_ERROR ? -ENOMEM : -EIO;
    }
    ret = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return ret == Z_STREAM_END && z.avail_out == 0 ? 0 : -EIO;
}
#endif

#ifdef CONFIG_LIBISAL
/* Room for as many tokens as a cluster has bytes: more would be touched, and
 * paid for, with each cluster. */
static size_t level_buf_size(size_t cluster_size)
{
    return cluster_size <= 1 * KiB ? ISAL_DEF_LVL3_MIN :
           cluster_size <= 16 * KiB ? ISAL_DEF_LVL3_SMALL :
           ISAL_DEF_LVL3_LARGE;
}

static bool make_deflater(Codec *c, size_t cluster_size)
{
    size_t size = level_buf_size(cluster_size);

    if (!c->deflater) {
        c->deflater = g_try_new0(struct isal_zstream, 1);
    }
    if (c->level_buf_size < size) {
        g_free(c->level_buf);
        c->level_buf = g_try_malloc(size);
        c->level_buf_size = c->level_buf ? size : 0;
    }
    return c->deflater && c->level_buf;
}

static ssize_t zlib_compress(void *dest, size_t dest_size, const void *src,
                             size_t src_size)
{
    const LibIsal *lib = qcow2_libisal();
    Codec *c = my_codec();
    struct isal_zstream *z;

    if (!lib) {
        return -ELIBACC;
    }
    if (!make_deflater(c, src_size)) {
        return -ENOMEM;
    }
    z = c->deflater;
    lib->isal_deflate_init(z);
    z->level = 3;
    z->level_buf = c->level_buf;
    z->level_buf_size = level_buf_size(src_size);
    z->hist_bits = WINDOW_BITS;
    z->gzip_flag = IGZIP_DEFLATE;
    z->end_of_stream = 1;
    z->flush = NO_FLUSH;
    z->next_in = (uint8_t *)src;
    z->avail_in = src_size;
    z->next_out = dest;
    z->avail_out = dest_size;
    if (lib->isal_deflate(z) != COMP_OK) {
        return -EIO;
    }
    if (z->internal_state.state != ZSTATE_END || z->avail_in) {
        return -ENOSPC;
    }
    return z->total_out;
}
#else
static ssize_t zlib_compress(void *dest, size_t dest_size, const void *src,
                             size_t src_size)
{
    z_stream z = { 0 };
    int ret = deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW_BITS,
                           9, Z_DEFAULT_STRATEGY);

    if (ret != Z_OK) {
        return ret == Z_MEM_ERROR ? -ENOMEM : -EIO;
    }
    z.next_in = (void *)src;
    z.avail_in = src_size;
    z.next_out = dest;
    z.avail_out = dest_size;
    ret = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    if (ret == Z_STREAM_END) {
        return dest_size - z.avail_out;
    }
    return ret == Z_OK || ret == Z_BUF_ERROR ? -ENOSPC : -EIO;
}
#endif

/* ---- zstd ---- */

#ifdef CONFIG_LIBZSTD
/* Frames, one after the other, until the cluster is full.  Each is decoded into
 * its place, so that no window that an image asks for is allocated. */
static int zstd_decompress(void *dest, size_t dest_size, const void *src,
                           size_t src_size)
{
    const LibZstd *lib = qcow2_libzstd();
    Codec *c = my_codec();

    if (!lib) {
        return -ELIBACC;
    }
    if (!c->unzstd) {
        c->unzstd = lib->ZSTD_createDCtx();
    }
    if (!c->unzstd) {
        return -ENOMEM;
    }
    while (dest_size > 0) {
        size_t frame = lib->ZSTD_findFrameCompressedSize(src, src_size);
        size_t got;

        if (lib->ZSTD_isError(frame) || frame == 0) {
            return -EIO;
        }
        got = lib->ZSTD_decompressDCtx(c->unzstd, dest, dest_size, src, frame);
        if (lib->ZSTD_isError(got)) {
            return -EIO;
        }
        dest = (char *)dest + got;
        dest_size -= got;
        src = (const char *)src + frame;
        src_size -= frame;
    }
    return 0;
}

static ssize_t zstd_compress(void *dest, size_t dest_size, const void *src,
                             size_t src_size)
{
    const LibZstd *lib = qcow2_libzstd();
    Codec *c = my_codec();
    size_t ret;

    if (!lib) {
        return -ELIBACC;
    }
    if (!c->zstd) {
        c->zstd = lib->ZSTD_createCCtx();
    }
    if (!c->zstd) {
        return -ENOMEM;
    }
    ret = lib->ZSTD_compressCCtx(c->zstd, dest, dest_size, src, src_size,
                                 ZSTD_CLEVEL_DEFAULT);
    if (!lib->ZSTD_isError(ret)) {
        return ret;
    }
    return lib->ZSTD_getErrorCode(ret) == ZSTD_error_dstSize_tooSmall ?
           -ENOSPC : -EIO;
}
#else
static int zstd_decompress(void *dest, size_t dest_size, const void *src,
                           size_t src_size)
{
    return -ENOTSUP;
}

static ssize_t zstd_compress(void *dest, size_t dest_size, const void *src,
                             size_t src_size)
{
    return -ENOTSUP;
}
#endif

/* ---- By the image's type ---- */

int qcow2_decompress(const BDRVQcow2State *s, void *dest, const void *src,
                     size_t src_size)
{
    switch (s->compression_type) {
    case QCOW2_COMPRESSION_ZLIB:
        return zlib_decompress(dest, s->cluster_size, src, src_size);
    case QCOW2_COMPRESSION_ZSTD:
        return zstd_decompress(dest, s->cluster_size, src, src_size);
    }
    return -ENOTSUP;
}

ssize_t qcow2_compress(const BDRVQcow2State *s, void *dest, size_t dest_size,
                       const void *src)
{
    ssize_t ret = -ENOTSUP;

    /* What does not get smaller is stored as it is. */
    dest_size = MIN(dest_size, s->cluster_size - 1);
    switch (s->compression_type) {
    case QCOW2_COMPRESSION_ZLIB:
        ret = zlib_compress(dest, dest_size, src, s->cluster_size);
        break;
    case QCOW2_COMPRESSION_ZSTD:
        ret = zstd_compress(dest, dest_size, src, s->cluster_size);
        break;
    }
    return ret;
}
