/*
 * What the files of the test drivers share.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TEST_DRIVER_INT_H
#define TEST_DRIVER_INT_H

#include "test-driver.h"

/* The state of a node that sits on a disk. */
typedef struct TestNode {
    TestDisk *disk;
} TestNode;

static inline TestDisk *test_node_disk(BlockDriverState *bs)
{
    return ((TestNode *)bs->opaque)->disk;
}

/* NULL: there is none of that name. */
TestDisk *test_disk_find(const char *id);
/* Log, hold, fail: what every call begins with.  0 or -errno. */
int test_disk_enter(TestDisk *d, const TestCall *call);
int test_disk_transfer(TestDisk *d, TestOp op, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset);

/* ---- test-node.c: functions of a BlockDriver for nodes on a disk ---- */

bool test_node_parse_filename(const char *filename, json_t *options,
                              Error **errp);
bool test_node_open(BlockDriverState *bs, json_t *options, int flags,
                    Error **errp);
void test_node_close(BlockDriverState *bs);
void test_node_refresh_limits(BlockDriverState *bs);
bool test_node_reopen_prepare(BlockDriverState *bs, json_t *options, int flags,
                              void **state, Error **errp);
void test_node_reopen_commit(BlockDriverState *bs, void *state);
void test_node_reopen_abort(BlockDriverState *bs, void *state);
bool test_node_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                          Error **errp);
void test_node_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared);
void test_node_abort_perm_update(BlockDriverState *bs);

/* ---- test-format.c ---- */

void test_formats_register(void);

/* ---- test-overlay.c ---- */

void test_overlay_register(void);

#endif
