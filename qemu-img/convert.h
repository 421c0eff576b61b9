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

/* ---- Writing (convert-write.c) ---- */

/* What ConvertPiece.packed says of a unit that was not compressed. */
enum {
    CONVERT_ZERO = 0,
    CONVERT_AS_IT_IS = -1,
};

/* A part of the target in memory.  A thread has one, over and over. */
typedef struct ConvertPiece {
    int64_t offset;                /* in the target; the user sets these … */
    int64_t bytes;
    uint8_t *buf;                  /* … and fills this */
    bool dense;                    /* all data, to be written as it is */
    /* When compressing: how many bytes of a unit's part of buf what came out
     * takes, or one of the above; a buffer for one unit. */
    int *packed;
    uint8_t *scratch;
} ConvertPiece;

/* Of at most @size bytes, whole grains.  False: no memory.  Destroy either. */
bool convert_piece_init(const ConvertJob *job, ConvertPiece *p, int64_t size);
void convert_piece_destroy(ConvertPiece *p);
/* Zeroes are looked for in units of so many bytes, aligned in the target. */
int64_t convert_grain(const ConvertJob *job);
/*
 * What can be done before it is the piece's turn to be written: any thread, no
 * I/O.  Then all but zeroes is written; blocks.  0 or -errno.  If placing comes
 * between, and succeeds, it may be written when others have had their turn.
 */
int convert_prepare(const ConvertJob *job, ConvertPiece *p);
bool convert_place(const ConvertJob *job, const ConvertPiece *p);
int convert_write(const ConvertJob *job, const ConvertPiece *p);
int convert_write_zeroes(const ConvertJob *job, int64_t offset, int64_t bytes);

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
