/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk in memory that remembers, in order, all that changed it.
 *
 * The protocol "write-log" (file name write-log:ID, option "disk": ID) stands
 * below a format as its "file".  Any number of threads may use it.  Time is
 * the number of entries of the log so far; what the test says about itself
 * (a request begins, a flush has returned) goes into the same log as marks, so
 * everything has its place in one order.  Entries of several disks are in one
 * order, too, for what crashes together.
 *
 * Durability is that of a disk with a volatile cache: a flush covers what had
 * completed when it *began*, and its own entry stands where it ended.
 *
 * Single calls can fail, and can be slowed down a little at random so that
 * threads meet in more ways ("jitter").
 */
#ifndef TESTS_WRITE_LOG_H
#define TESTS_WRITE_LOG_H

#include "mem-image.h"
#include "qemu/thread.h"

typedef enum WriteLogOp {
    WLOG_WRITE,
    WLOG_ZEROES,
    WLOG_DISCARD,
    WLOG_TRUNCATE,
    WLOG_FLUSH,
    WLOG_MARK,
    WLOG_READ,                  /* for faults; never in the log */
} WriteLogOp;

#define WLOG_CHANGES (1u << WLOG_WRITE | 1u << WLOG_ZEROES | \
                      1u << WLOG_DISCARD | 1u << WLOG_TRUNCATE)
#define WLOG_ALL     (WLOG_CHANGES | 1u << WLOG_FLUSH | 1u << WLOG_READ)

typedef struct WriteLogEntry {
    WriteLogOp op;
    int64_t offset;             /* truncate: the new size; mark: its value */
    int64_t bytes;
    uint8_t *data;              /* write; owned */
    size_t covers;              /* flush: entries below this one are durable */
    uint64_t order;             /* among the entries of all disks */
    bool extends;               /* reaches past what was the end */
} WriteLogEntry;

typedef struct WriteLogFault {
    unsigned mask;              /* of 1 << WriteLogOp */
    int nth;                    /* from 1; 0: none */
    int error;                  /* positive */
    bool forever;               /* and all later ones */
    bool torn;                  /* a write that fails has done its first half */
} WriteLogFault;

typedef struct WriteLogDisk {
    /* Set before it is opened. */
    char *id;
    uint32_t request_alignment; /* 0: 1 */
    unsigned jitter;            /* percent of the calls that take a nap */
    uint8_t discard_value;      /* what a discarded byte reads as */

    QemuMutex lock;
    /* Under the lock. */
    MemImage *img;
    MemImage *base;             /* as it was when the log began; or NULL */
    GArray *log;                /* of WriteLogEntry */
    bool is_recording;
    uint64_t time;
    WriteLogFault fault;
    bool fired;
    unsigned calls;             /* that fault.mask could have hit */
    int open_nodes;
} WriteLogDisk;

/* Main thread, once, before the first graph. */
void write_log_register(void);

/* @img is the disk's from now on.  Disks: control thread. */
WriteLogDisk *write_log_disk_new(const char *id, MemImage *img);
/* Every node on it must be closed: asserted. */
void write_log_disk_free(WriteLogDisk *d);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(WriteLogDisk, write_log_disk_free)

/* From now on, record; what was is the base, and durable.  Time is 1: entry 0
 * is a mark. */
void write_log_start(WriteLogDisk *d);
/* Only count from now on: time goes on, the log does not grow. */
void write_log_stop(WriteLogDisk *d);

/* ---- Any thread ---- */

/*
 * The time now, and a mark with @value in the log.  No two calls get the same.
 */
uint64_t write_log_mark(WriteLogDisk *d, int64_t value);
/* Arms one fault, disarms the one before; { 0 } for none. */
void write_log_fail(WriteLogDisk *d, WriteLogFault fault);
/* Whether the fault that was armed last has struck. */
bool write_log_fired(WriteLogDisk *d);
/* Calls since arming that its mask could have hit. */
unsigned write_log_calls(WriteLogDisk *d);

#endif
