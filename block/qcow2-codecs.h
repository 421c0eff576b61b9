/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The libraries of compressed clusters.  They are loaded when the first cluster
 * needs them, not when the program starts: to map and relocate them takes a
 * tenth of a millisecond, of the one or two that looking at an image takes.
 *
 * Each is a struct of its functions, under their own names.
 */
#ifndef BLOCK_QCOW2_CODECS_H
#define BLOCK_QCOW2_CODECS_H

#ifdef CONFIG_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef CONFIG_LIBISAL
#include <isa-l/igzip_lib.h>
#endif
#ifdef CONFIG_LIBZSTD
#include <zstd.h>
#include <zstd_errors.h>
#endif

#define CODEC_FUNCTION(name) typeof(name) *name;

/*
 * For each: NULL if it cannot be loaded, for which a message gives the reason
 * once.  Any thread; the first call may block.
 */

#ifdef CONFIG_LIBDEFLATE
#define LIBDEFLATE_FUNCTIONS(X)                                              \
    X(libdeflate_alloc_decompressor)                                         \
    X(libdeflate_deflate_decompress_ex)                                      \
    X(libdeflate_free_decompressor)

typedef struct LibDeflate {
    LIBDEFLATE_FUNCTIONS(CODEC_FUNCTION)
} LibDeflate;

const LibDeflate *qcow2_libdeflate(void);
#endif

#ifdef CONFIG_LIBISAL
#define LIBISAL_FUNCTIONS(X)                                                 \
    X(isal_deflate)                                                          \
    X(isal_deflate_init)

typedef struct LibIsal {
    LIBISAL_FUNCTIONS(CODEC_FUNCTION)
} LibIsal;

const LibIsal *qcow2_libisal(void);
#endif

#ifdef CONFIG_LIBZSTD
#define LIBZSTD_FUNCTIONS(X)                                                 \
    X(ZSTD_compressCCtx)                                                     \
    X(ZSTD_createCCtx)                                                       \
    X(ZSTD_createDCtx)                                                       \
    X(ZSTD_decompressDCtx)                                                   \
    X(ZSTD_findFrameCompressedSize)                                          \
    X(ZSTD_freeCCtx)                                                         \
    X(ZSTD_freeDCtx)                                                         \
    X(ZSTD_getErrorCode)                                                     \
    X(ZSTD_isError)

typedef struct LibZstd {
    LIBZSTD_FUNCTIONS(CODEC_FUNCTION)
} LibZstd;

const LibZstd *qcow2_libzstd(void);
#endif

#endif
