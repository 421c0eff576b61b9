/*
 * Nodes on a test disk: opening, limits, permissions, reopening.
 *
 * Permissions and reopening count what is pending: check or prepare must be
 * followed by exactly one of its ends, which test_disk_free() relies on.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "test-driver-int.h"

bool test_node_parse_filename(const char *filename, json_t *options,
                              Error **errp)
{
    const char *id;

    if (!strstart(filename, "test:", &id)) {
        error_setg(errp, "Not the name of a test disk: '%s'", filename);
        return false;
    }
    opt_set_str(options, "disk", id);
    return true;
}

static bool may_write(BlockDriverState *bs, TestDisk *d, int flags,
                      Error **errp)
{
    if (!d->read_only || !(flags & BDRV_O_RDWR)) {
        return true;
    }
    if (flags & BDRV_O_AUTO_RDONLY) {
        bs->read_only = true;
        return true;
    }
    error_setg_errno(errp, EACCES, "Could not open '%s'", d->id);
    return false;
}

bool test_node_open(BlockDriverState *bs, json_t *options, int flags,
                    Error **errp)
{
    TestNode *s = bs->opaque;
    g_autofree char *id = opt_take_str_required(options, "disk", errp);
    uint64_t extra = 0;
    int ret;

    if (!id) {
        return false;
    }
    s->disk = test_disk_find(id);
    if (!s->disk) {
        error_setg(errp, "No disk '%s'", id);
        return false;
    }
    if (s->disk->takes_extra &&
        !opt_take_u64(options, "extra", &extra, errp)) {
        return false;
    }
    s->disk->extra = extra;
    ret = test_disk_enter(s->disk, &(TestCall){ TEST_OPEN });
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not open '%s'", id);
        return false;
    }
    if (!may_write(bs, s->disk, flags, errp)) {
        return false;
    }
    s->disk->open_nodes++;
    return true;
}

void test_node_close(BlockDriverState *bs)
{
    TestDisk *d = test_node_disk(bs);

    test_disk_enter(d, &(TestCall){ TEST_CLOSE });
    d->open_nodes--;
}

#define SET_LIMIT(bl, set, field) \
    ((bl)->field = (set)->field ? (set)->field : (bl)->field)

void test_node_refresh_limits(BlockDriverState *bs)
{
    const BlockLimits *set = &test_node_disk(bs)->limits;
    BlockLimits *bl = &bs->bl;

    SET_LIMIT(bl, set, request_alignment);
    SET_LIMIT(bl, set, max_transfer);
    SET_LIMIT(bl, set, mapping_unit);
    SET_LIMIT(bl, set, max_pdiscard);
    SET_LIMIT(bl, set, pdiscard_alignment);
    SET_LIMIT(bl, set, max_pwrite_zeroes);
    SET_LIMIT(bl, set, pwrite_zeroes_alignment);
    SET_LIMIT(bl, set, min_mem_alignment);
    SET_LIMIT(bl, set, opt_mem_alignment);
    SET_LIMIT(bl, set, max_iov);
    SET_LIMIT(bl, set, logical_block_size);
    SET_LIMIT(bl, set, physical_block_size);
}

/* ---- Reopening ---- */

bool test_node_reopen_prepare(BlockDriverState *bs, json_t *options, int flags,
                              void **state, Error **errp)
{
    TestDisk *d = test_node_disk(bs);
    uint64_t extra = d->extra;
    int ret = test_disk_enter(d, &(TestCall){ TEST_REOPEN_PREPARE,
                                              .flags = flags });

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not reopen '%s'", d->id);
        return false;
    }
    if (d->takes_extra && !opt_take_u64(options, "extra", &extra, errp)) {
        return false;
    }
    *state = g_memdup2(&extra, sizeof(extra));
    return true;
}

void test_node_reopen_commit(BlockDriverState *bs, void *state)
{
    TestDisk *d = test_node_disk(bs);

    test_disk_enter(d, &(TestCall){ TEST_REOPEN_COMMIT });
    d->extra = *(uint64_t *)state;
    g_free(state);
}

void test_node_reopen_abort(BlockDriverState *bs, void *state)
{
    test_disk_enter(test_node_disk(bs), &(TestCall){ TEST_REOPEN_ABORT });
    g_free(state);
}

/* ---- Permissions ---- */

bool test_node_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                          Error **errp)
{
    TestDisk *d = test_node_disk(bs);
    int ret = test_disk_enter(d, &(TestCall){ TEST_CHECK_PERM, perm, shared });

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to lock '%s'", d->id);
        return false;
    }
    return true;
}

void test_node_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    TestDisk *d = test_node_disk(bs);

    test_disk_enter(d, &(TestCall){ TEST_SET_PERM, perm, shared });
    d->perm = perm;
    d->shared = shared;
}

void test_node_abort_perm_update(BlockDriverState *bs)
{
    test_disk_enter(test_node_disk(bs), &(TestCall){ TEST_ABORT_PERM });
}
