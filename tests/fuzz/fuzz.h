/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzing qcow2: an input is an image, a target is what is done with it.
 *
 * Whatever an image says, a target ends, without a crash, and without memory or
 * requests beyond measure; some targets also know what must be true afterwards.
 * A target calls fuzz_fail() if it is not.
 *
 * The image is a disk in memory (tests/lib/write-log.h) below a node of the
 * format, and so is its data file, if it says that there is one; backing files
 * are not opened.  So no input chooses files of this machine's.
 *
 * The same targets are driven by libFuzzer and AFL++ (engine.c), and by
 * replay.c, which is the bounded test.  Control thread, all of it.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include "block/block-backend.h"
#include "block/snapshot.h"
#include "write-log.h"

/* Larger inputs are passed over: what they could say, smaller ones can. */
#define FUZZ_MAX_INPUT (512 * KiB)

typedef struct FuzzTarget {
    const char *name;
    void (*run)(const uint8_t *data, size_t size);
} FuzzTarget;

/* All of them; the last has no name. */
extern const FuzzTarget fuzz_targets[];

void fuzz_open(const uint8_t *data, size_t size);
void fuzz_list(const uint8_t *data, size_t size);
void fuzz_read(const uint8_t *data, size_t size);
void fuzz_check(const uint8_t *data, size_t size);
void fuzz_write(const uint8_t *data, size_t size);

/* Once, first thing: reports of the block layer go nowhere from now on. */
void fuzz_init(void);
/* Says what is wrong with the program, and aborts. */
void fuzz_fail(const char *format, ...) G_GNUC_PRINTF(1, 2) G_GNUC_NORETURN;

/* ---- fuzz-memory.c ---- */

/* For one allocation; for all of a target at a moment. */
#define FUZZ_MAX_ALLOCATION (40 * MiB)
#define FUZZ_MAX_MEMORY (128 * MiB)

/* Once, by fuzz_init(). */
void fuzz_memory_init(void);
/* From begin to end it is a failure to take more. */
void fuzz_memory_begin(void);
void fuzz_memory_end(void);

/* ---- fuzz-image.c: an image in memory ---- */

typedef struct FuzzImage {
    WriteLogDisk *disk;
    WriteLogDisk *data;         /* the data file; or NULL */
} FuzzImage;

FuzzImage *fuzz_image_new(const uint8_t *data, size_t size);
/* A copy, as it is now. */
FuzzImage *fuzz_image_clone(const FuzzImage *img);
/* Everything that was opened is closed.  Fails if it took too many requests. */
void fuzz_image_free(FuzzImage *img);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FuzzImage, fuzz_image_free)

/* By qcow2, with small caches, and @flags (BDRV_O_…), without its backing
 * file, with the password "pass".  NULL: refused. */
BlockBackend *fuzz_image_open(FuzzImage *img, int flags);
/* If FUZZ_KEEP names a file: write the image there, as it is now. */
void fuzz_image_keep(const FuzzImage *img);
/* What its header says. */
bool fuzz_image_has_snapshots(const FuzzImage *img);
bool fuzz_image_is_encrypted(const FuzzImage *img);
/* With LUKS: a key takes 250 KiB of an image, so that no input has one.  It is
 * opened with BDRV_O_NO_IO only. */
bool fuzz_image_is_locked(const FuzzImage *img);
/* Make the file as long as a refcount block can tell, so that refcounts of what
 * was behind its end are looked at. */
void fuzz_image_lengthen(FuzzImage *img);
/* How often anything was written since the image was made. */
unsigned fuzz_image_changes(const FuzzImage *img);
/* Fails if anything was. */
void fuzz_image_assert_unchanged(const FuzzImage *img);
/* How much may be wrong with an image that is sound. */
typedef enum FuzzSoundness {
    FUZZ_PRISTINE,              /* nothing at all, and its header can grow */
    FUZZ_CHANGED,               /* flags that nobody looks at */
    FUZZ_REPAIRED,              /* also what our check does not look for:
                                 * refcounts of what is behind the end, two
                                 * tables in one cluster that say so */
} FuzzSoundness;

/* By a checker that shares nothing with the driver. */
bool fuzz_image_is_sound(const FuzzImage *img, FuzzSoundness how,
                         GString *why);

/* ---- fuzz-contents.c: what a disk holds ---- */

typedef struct FuzzChunk {
    int64_t offset, bytes;      /* guest */
    int64_t host;               /* in the image, -1: nowhere, or not known */
    bool is_compressed;
    int ret;                    /* of the read */
    uint32_t sum;
} FuzzChunk;

/* All of it up to some MiB: GArray of FuzzChunk. */
GArray *fuzz_contents(BlockBackend *blk);

/* ---- layout.c: where an image says that its tables are ---- */

typedef enum FuzzGroup {
    FUZZ_HEADER,
    FUZZ_EXTENSION,
    FUZZ_L1,
    FUZZ_L2,
    FUZZ_REFTABLE,
    FUZZ_REFBLOCK,
    FUZZ_SNAPSHOT,
    FUZZ_BITMAP_DIRECTORY,
    FUZZ_BITMAP_TABLE,
    FUZZ_COMPRESSED,            /* data */
    FUZZ_GROUPS,
} FuzzGroup;

typedef struct FuzzField {
    uint64_t offset;
    uint8_t width;              /* bytes: 1, 2, 4, 8 */
} FuzzField;

typedef struct FuzzTable {
    uint64_t offset, bytes;
} FuzzTable;

typedef struct FuzzLayout {
    const uint8_t *data;
    size_t size;
    uint32_t cluster_bits;      /* 16 if the header is wrong */
    GArray *fields[FUZZ_GROUPS];    /* of FuzzField, all within the image */
    GArray *tables;                 /* of FuzzTable: what is no data */
} FuzzLayout;

/* Believes nothing.  @data must outlive it. */
FuzzLayout *fuzz_layout_new(const uint8_t *data, size_t size);
void fuzz_layout_free(FuzzLayout *l);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FuzzLayout, fuzz_layout_free)
/* Does a table lie, with any of its clusters, where another is? */
bool fuzz_layout_tables_overlap(const FuzzLayout *l);
/* Is any of these bytes in a cluster of a table? */
bool fuzz_layout_is_table(const FuzzLayout *l, uint64_t offset,
                          uint64_t bytes);

/* ---- mutate.c: images that lie, by seed ---- */

/* Change a few fields of the image in @data; it may become longer, up to
 * @max_size.  The new size. */
size_t fuzz_mutate(uint8_t *data, size_t size, size_t max_size, uint32_t seed);
/* Put tables of @other into the image in @data, where it has tables.  @size. */
size_t fuzz_mix(uint8_t *data, size_t size, const uint8_t *other,
                size_t other_size, uint32_t seed);

#endif
