/*
 * Checking and repairing qcow2 images: what the files of it share.
 *
 * All of it runs on the control thread with the node drained, and reads and
 * writes the file itself, past the caches (they are flushed before, and
 * forgotten after a repair).  Only the functions that say so are called by the
 * threads that a check starts.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_CHECK_H
#define BLOCK_QCOW2_CHECK_H

#include "block/qcow2.h"

/* ---- qcow2-check-refs.c: a count for each cluster ---- */

typedef struct Qcow2RefMap Qcow2RefMap;

/* What a set count may be instead of a number: nobody knows; or many, and the
 * refcount in the file is right (which takes no memory). */
#define QCOW2_REFS_UNKNOWN   UINT64_MAX
#define QCOW2_REFS_AS_STORED (UINT64_MAX - 1)

/* @clusters counts, all 0.  NULL: no memory, or too many. */
Qcow2RefMap *qcow2_refs_new(int64_t clusters);
void qcow2_refs_free(Qcow2RefMap *m);
/* Any thread: one more for each of @n clusters from @first on. */
void qcow2_refs_add(Qcow2RefMap *m, int64_t first, int64_t n);

/* The same, @times (at least 1). */
void qcow2_refs_add_times(Qcow2RefMap *m, int64_t first, int64_t n,
                          uint32_t times);

/* The rest: one thread, no other about. */

uint64_t qcow2_refs_get(const Qcow2RefMap *m, int64_t cluster);
void qcow2_refs_set(Qcow2RefMap *m, int64_t cluster, uint64_t refs);
/* The largest count that was ever reached, or less than 254. */
uint64_t qcow2_refs_max(const Qcow2RefMap *m);
/* A page of counts: bytes as below, or NULL if all of them are 0. */
#define QCOW2_REFS_PAGE 4096
const uint8_t *qcow2_refs_page(const Qcow2RefMap *m, int64_t page);
/*
 * Any thread, while no count changes: the count in one byte.  MANY: that or
 * more; LOST: not known.
 */
enum {
    QCOW2_REFS_BYTE_MANY = 254,
    QCOW2_REFS_BYTE_LOST = 255,
};
uint8_t qcow2_refs_byte(const Qcow2RefMap *m, int64_t cluster);
/* The same: have @n (at least 1) clusters one byte, that of the first? */
bool qcow2_refs_are_alike(const Qcow2RefMap *m, int64_t first, int64_t n);

/* ---- A check ---- */

/* What can be said of a refcount block. */
typedef enum Qcow2BlockState {
    QCOW2_BLOCK_NONE,               /* there is none: all 0 */
    QCOW2_BLOCK_GOOD,
    QCOW2_BLOCK_UNREADABLE,
} Qcow2BlockState;

/*
 * An L2 table all of whose entries are clusters one behind the other, with the
 * same flags, as in most tables of large disks.  Who knows that need not look
 * at it again.
 */
typedef struct Qcow2TableRun {
    uint64_t first  : 40;           /* cluster */
    uint64_t n      : 20;           /* 0: it is no such table, or not known */
    uint64_t copied : 1;
} Qcow2TableRun;

typedef struct Qcow2Check {
    BlockDriverState *bs;
    BDRVQcow2State *s;
    BdrvCheckResult *res;
    BdrvCheckMode fix;
    int64_t file_bytes;
    int64_t n_clusters;             /* of the file; the last may be partial */
    int64_t n_counted;              /* these have counts; one more at most */
    int64_t room;                   /* clusters that can have counts */
    Qcow2Snapshot *snapshots;       /* of the table, as it is or is to be */
    uint32_t n_snapshots;
    uint64_t snapshot_table_bytes;
    int64_t bad_snapshots;          /* of these; corruptions, at last … */
    int64_t lost_snapshots;         /* … and that are left out of the list */
    Qcow2RefMap *refs;
    Qcow2RefMap *not_tables;        /* qcow2-check-users.c; NULL: not yet … */
    int users_error;                /* … unless it has failed */
    /* Of each L1 entry of the active disk; NULL: not known, as in a repair,
     * which may change tables. */
    Qcow2TableRun *runs;
    uint32_t users;                 /* of the table that is gone through: each
                                     * reference counts so often; 0 is 1 */

    /* Copies of the state's. */
    int64_t reftable_offset;
    uint32_t reftable_size;         /* entries */
    uint64_t *reftable;
    uint8_t *block_state;           /* Qcow2BlockState of each entry */
    int64_t unrelated_corruptions;  /* found before those structures */
    bool need_rebuild;
    bool have_leaks;                /* refcounts are to be lowered */

    /* One refcount block, for looking single refcounts up. */
    uint8_t *block;
    int64_t block_index;            /* -1: none */
} Qcow2Check;

/* Is anything of this kind to be repaired? */
static inline bool qcow2_check_fixes(const Qcow2Check *chk, BdrvCheckMode what)
{
    return chk->fix & what;
}

/* Text to stderr, a line as others print it. */
#define qcow2_check_say(...) error_printf(__VA_ARGS__)

/* Any thread: read; what is past the end of the file reads as zeroes. */
int qcow2_check_read(const Qcow2Check *chk, int64_t offset, int64_t bytes,
                     void *buf);
/*
 * Write to a table of kind @own (Qcow2MetadataKind).  -EPERM, and nothing is
 * written, if metadata of other kinds is there, or it is not in the file.
 */
int qcow2_check_write(const Qcow2Check *chk, int own, int64_t offset,
                      int64_t bytes, const void *buf);
/*
 * A reference to these bytes of the file: count, or complain (and count
 * nothing) if they are not in it.
 */
void qcow2_check_count(Qcow2Check *chk, uint64_t offset, uint64_t bytes);
/* The same for clusters below chk->room, in the file or not. */
void qcow2_check_count_clusters(Qcow2Check *chk, int64_t first, int64_t last);
/* Any thread: is that so?  (At most a cluster may be partial.) */
bool qcow2_check_inside(const Qcow2Check *chk, uint64_t offset,
                        uint64_t bytes);

/*
 * qcow2-check-users.c: the same for @bytes at @offset, which are in the L2
 * table at @table.  -EPERM also if that is data or anything else, too.
 */
int qcow2_check_write_l2(Qcow2Check *chk, int64_t table, int64_t offset,
                         int64_t bytes, const void *buf);

/* The same file: is each L2 table of the disk nothing else, once the snapshot
 * table is elsewhere? */
int qcow2_check_tables_are_sound(Qcow2Check *chk, bool *sound);

/* qcow2-check-tables.c: count what an L1 table refers to.  @active: also the
 * statistics.  0 or -errno. */
int qcow2_check_count_l1(Qcow2Check *chk, int64_t offset,
                         const uint64_t *entries, uint32_t n, bool active);

/* ---- qcow2-check-shared.c: a table with several users counts once ---- */

typedef struct Qcow2SharedTable {
    uint64_t offset, bytes;
    uint32_t order;                 /* as they were added */
    uint32_t users;                 /* 0: an earlier one stands for it, too */
} Qcow2SharedTable;

/* Of Qcow2SharedTable. */
GArray *qcow2_check_tables_new(void);
void qcow2_check_tables_add(GArray *tables, uint64_t offset, uint64_t bytes);
/* Find out the users; the order stays.  -EINVAL, and a complaint: they take
 * more than the file has. */
int qcow2_check_tables_share(Qcow2Check *chk, GArray *tables);

/* qcow2-check-bitmaps.c */
int qcow2_check_count_bitmaps(Qcow2Check *chk);

/* ---- qcow2-check-snapshots.c ---- */

/* Reads the snapshot table and complains about it, before anything is
 * counted. */
int qcow2_check_snapshot_table(Qcow2Check *chk);
void qcow2_check_free_snapshots(Qcow2Check *chk);
int qcow2_check_count_snapshots(Qcow2Check *chk);
/*
 * If there is anything to repair in the table: write a new one.  Refcounts are
 * right.  Counts are no longer what they were.
 */
int qcow2_check_repair_snapshots(Qcow2Check *chk);

/* ---- qcow2-check-refcounts.c: counts against refcounts ---- */

/* Load the reftable; count it and its blocks. */
int qcow2_check_load_reftable(Qcow2Check *chk);
void qcow2_check_count_refblocks(Qcow2Check *chk);
/* As stored.  False: its block cannot be read. */
bool qcow2_check_stored(Qcow2Check *chk, int64_t cluster, uint64_t *refcount);
/*
 * Compare and say what differs.  @fix: refcounts that are too small become
 * right at once; those that are too large are only noted as repaired
 * (chk->have_leaks), for qcow2_check_lower().  @settle: the counts become what
 * the refcounts are, or will be when they have been lowered.
 */
int qcow2_check_compare(Qcow2Check *chk, BdrvCheckMode fix, bool quiet,
                        bool settle);
int qcow2_check_lower(Qcow2Check *chk);
/* Refcounts of what is behind all that was counted become 0: nobody may refer
 * to anything there. */
int qcow2_check_clear_behind(Qcow2Check *chk);

/* qcow2-check-copied.c: COPIED flags against settled counts.  clear: says what
 * is wrong, and clears flags; set: only sets those that are missing.  *missing:
 * there are such. */
int qcow2_check_copied_clear(Qcow2Check *chk, bool fix, bool *missing);
int qcow2_check_copied_set(Qcow2Check *chk);

/* qcow2-repair.c: make refcount structures anew, from the counts. */
int qcow2_repair_rebuild(Qcow2Check *chk);
/* After changes behind its back: load tables, forget caches. */
int qcow2_repair_reload(BlockDriverState *bs);

/* ---- Threads ---- */

/*
 * Call fn(opaque, thread's number) in up to @max threads (this one is the
 * first); returns when all have returned.
 */
#define QCOW2_CHECK_MAX_THREADS 4
void qcow2_check_in_threads(void (*fn)(void *opaque, unsigned thread),
                            void *opaque, unsigned max);

#endif
