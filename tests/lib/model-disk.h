/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a disk may hold: a model that knows, for every sector and moment, the
 * set of values that are legal.
 *
 * Every write puts a stamp into each of its sectors: the number of the write,
 * the sector, the seed, and a sequence that follows from these, so that old,
 * misplaced, torn and foreign contents are told apart.  Most stamps can be
 * compressed; every fourth write's cannot.  The model keeps the
 * versions of each sector with the times at which their writes began and ended
 * (any clock that starts at 1 and gives no two events the same time).
 *
 * A version is legal for an observer of the time between @from and @to if it
 * began before @to and was not replaced: no other write began after it had
 * ended and itself ended before @from.  Reads observe the time they take.  A
 * crash at time c observes from the start of the last flush that had completed,
 * to c.  A read that saw a write proves that it has happened; later reads may
 * not see less.
 *
 * Writes that failed, and discards where it is configured so, may have happened
 * or not.  Ranges are whole sectors.
 *
 * A read beside a write of the same sector returns the one or the other whole,
 * unless the disk is a file in the page cache: there the kernel copies without
 * a lock, and a sector may be part old, part new (model_disk_allow_tearing()).
 *
 * Any thread may call anything here; one leaf mutex protects it all.
 */
#ifndef TESTS_MODEL_DISK_H
#define TESTS_MODEL_DISK_H

#include "qemu/osdep.h"

#define MODEL_SECTOR 512
#define MODEL_NEVER  UINT64_MAX

typedef enum ModelOpType {
    MODEL_READ,
    MODEL_WRITE,
    MODEL_ZEROES,
    MODEL_DISCARD,
    MODEL_FLUSH,
    MODEL_RESIZE,               /* to offset; nothing else runs meanwhile */
    MODEL_OP__MAX,
} ModelOpType;

/* What a discarded sector holds. */
typedef enum ModelDiscard {
    MODEL_DISCARD_MAYBE,        /* zeroes, or what it held */
    MODEL_DISCARD_ZEROES,
} ModelDiscard;

typedef struct ModelDisk ModelDisk;
typedef struct ModelRecord ModelRecord;

/* One operation on the disk; its user fills in the first part. */
typedef struct ModelOp {
    ModelOpType type;
    int64_t offset;
    int64_t bytes;
    bool fua;                   /* write: durable when it has ended */
    /* The model's. */
    uint32_t id;
    uint64_t start;
    ModelRecord *record;
} ModelOp;

/* All zeroes; sizes up to @max_size can be resized to. */
ModelDisk *model_disk_new(int64_t size, int64_t max_size, uint32_t seed,
                          ModelDiscard discard);
void model_disk_free(ModelDisk *m);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ModelDisk, model_disk_free)

/* From now on a sector that is read while it is written may be a mixture. */
void model_disk_allow_tearing(ModelDisk *m);

int64_t model_disk_size(ModelDisk *m);

/*
 * @op begins, before anything of it reaches the disk, and has ended, after its
 * result is known.  For a write, @buf gets the stamps.  A read's result is
 * checked by model_check_read(), between the two.
 */
void model_op_begin(ModelDisk *m, ModelOp *op, uint64_t now, void *buf);
void model_op_end(ModelDisk *m, ModelOp *op, uint64_t now, bool ok);

/*
 * May @op, a read that ran until @now, have returned @buf?  If not, the first
 * wrong sector is explained in @why.
 */
bool model_check_read(ModelDisk *m, const ModelOp *op, uint64_t now,
                      const void *buf, GString *why);

/* What may survive a crash at time @cut (events at @cut and later have not
 * happened). */
bool model_check_crash(ModelDisk *m, uint64_t cut, int64_t offset,
                       int64_t bytes, const void *buf, GString *why);
/* The same where nothing that had ended may be lost, flushed or not. */
bool model_check_kill(ModelDisk *m, uint64_t cut, int64_t offset,
                      int64_t bytes, const void *buf, GString *why);
/* Is @size a legal length after a crash at @cut? */
bool model_check_crash_size(ModelDisk *m, uint64_t cut, int64_t size,
                            GString *why);

/*
 * Nothing is under way, and @buf, which model_check_read() has approved, is all
 * the disk: forget how it came to be.  Everything starts again at time 0.
 */
void model_disk_settle(ModelDisk *m, const void *buf);

/* ---- Stamps, for checkers of their own ---- */

typedef enum ModelValue {
    MODEL_VALUE_ZERO,
    MODEL_VALUE_STAMP,
    MODEL_VALUE_BAD,            /* torn, misplaced, or not ours */
} ModelValue;

void model_stamp(void *sector, int64_t number, uint32_t id, uint32_t seed);
ModelValue model_stamp_decode(const void *sector, int64_t number,
                              uint32_t seed, uint32_t *id);

/* ---- Random operations ---- */

typedef struct ModelMix {
    /* Relative weights; all 0: a usual mix. */
    unsigned weight[MODEL_OP__MAX];
    int64_t align;              /* of requests; 0: a sector */
    int64_t max_bytes;          /* 0: 64 KiB */
    int64_t unit;               /* some requests are whole units; 0: 64 KiB */
    int64_t hot_bytes;          /* half of them start below here; 0: all */
} ModelMix;

void model_random_op(ModelDisk *m, GRand *rand, const ModelMix *mix,
                     ModelOp *op);

#endif
