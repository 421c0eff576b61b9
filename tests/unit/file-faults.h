/*
 * A system that misbehaves, for tests of the file driver: system calls that
 * fail, or transfer less than they are asked for.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TESTS_FILE_FAULTS_H
#define TESTS_FILE_FAULTS_H

#include "fake-block-core.h"

/* What the replaced calls do, one after the other; then the real thing. */
typedef struct Fault {
    int err;                /* fail so … */
    size_t at_most;         /* … or else transfer no more than this */
} Fault;

/* Calls of those that are replaced, since faults_begin(). */
extern int fault_calls;

/* Not nested; from one thread.  @faults stays the caller's. */
void faults_begin(const Fault *faults, int n);
/* All of them must have happened. */
void faults_end(void);

/* A new file of @size bytes in @dir, opened read-write; fake_close() it. */
BlockDriverState *open_rw(const char *dir, const char *name, int64_t size);

#endif
