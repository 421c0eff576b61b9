/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of qemu-img convert.
 */
#ifndef QEMU_IMG_CONVERT_H
#define QEMU_IMG_CONVERT_H

#include "qemu-img.h"

/* ---- Copying (convert-copy.c) ---- */

typedef struct ConvertSource {
    BlockBackend *blk;
    int64_t start;                 /* where its first byte goes */
    int64_t length;
} ConvertSource;

typedef struct ConvertJob {
    ConvertSource *sources;        /* in the order of the target */
    int num_sources;
    BlockBackend *target;
    int64_t total;                 /* bytes of all sources */
    int num_workers;
    /* Zeroes of at least this length, so aligned, are not written as data; 0:
     * all is written as data. */
    int64_t sparse_size;
    bool target_is_zero;           /* what is not written reads as zeroes */
    /* The target has a backing file that holds what its source's does: what is
     * not in the source's own layer is left out. */
    bool target_has_backing;
    int64_t compress_unit;         /* bytes compressed as one; 0: do not */
    bool out_of_order;
    bool salvage;                  /* what cannot be read becomes zeroes */
    bool quiet;
    int64_t rate;                  /* bytes a second; 0: no limit */
} ConvertJob;

/*
 * Copy all; blocks until it is done.  0, or -errno after a message.  Progress
 * is reported to img_progress_set().
 */
int convert_copy(const ConvertJob *job);

/* ---- Command line (convert-args.c) ---- */

/* What the command line says; strings are argv's, but for options. */
typedef struct ConvertArgs {
    ImgOpen src;                   /* but for the name */
    const char *src_cache;
    const char *snapshot;
    char **src_names;
    int num_src;
    const char *target;
    const char *target_fmt;        /* NULL: raw */
    const char *target_cache;
    bool target_image_opts;
    bool target_is_zero;
    char *options;
    const char *backing;
    const char *backing_fmt;
    int64_t sparse_size;
    bool sparse_given;
    int64_t rate;
    int num_workers;
    bool quiet;
    bool progress;
    bool compress;
    bool skip_create;
    bool copy_range;
    bool bitmaps;
    bool skip_broken_bitmaps;
    bool salvage;
    bool out_of_order;
} ConvertArgs;

/*
 * Parse @argv; exits if it is wrong or asks for help.  Free @args->options.
 */
void convert_parse_args(const ImgCommand *cmd, int argc, char **argv,
                        ConvertArgs *args);

#endif
