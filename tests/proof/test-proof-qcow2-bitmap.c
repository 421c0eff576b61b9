/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A power cut, or a failing disk, while qcow2's bitmaps come, go, are stored
 * and are in use.
 *
 * A bitmap that an image says to be consistent has marked all that has data:
 * each is told, when it is made, what there is.  What else the image must be,
 * the checker of the proofs says, and now and then QEMU's qemu-img.
 */
#include "proof.h"
#include "qcow2-checker.h"
#include "block/dirty-bitmap.h"

#define QEMU_IMG "/usr/bin/qemu-img"
#define SECTOR 512

static int n_consistent, n_in_use;
static unsigned n_checked, qemu_stride;

/* ---- What is left ---- */

static bool is_zero(const uint8_t *buf, size_t n)
{
    return buf[0] == 0 && memcmp(buf, buf + 1, n - 1) == 0;
}

static bool covers(BdrvDirtyBitmap *b, const uint8_t *data, int64_t size,
                   GString *why)
{
    for (int64_t pos = 0; pos < size; pos += SECTOR) {
        if (!is_zero(data + pos, SECTOR) && !bdrv_dirty_bitmap_get(b, pos)) {
            g_string_append_printf(why, "bitmap '%s' has missed sector %d",
                                   bdrv_dirty_bitmap_name(b),
                                   (int)(pos / SECTOR));
            return false;
        }
    }
    return true;
}

static uint8_t *read_all(BlockBackend *blk, int64_t *size)
{
    uint8_t *data;

    *size = blk_getlength(blk);
    /* The workload may shrink the disk to nothing. */
    g_assert_cmpint(*size, >=, 0);
    data = g_malloc(MAX(*size, 1));
    if (blk_pread(blk, 0, *size, data, 0) < 0) {
        g_clear_pointer(&data, g_free);
    }
    return data;
}

static bool check_bitmaps(ProofCheck *c, BlockBackend *blk)
{
    int64_t size;
    g_autofree uint8_t *data = read_all(blk, &size);
    BdrvDirtyBitmap *b = NULL;

    g_assert_nonnull(data);
    while ((b = bdrv_dirty_bitmap_next(blk_bs(blk), b))) {
        if (bdrv_dirty_bitmap_inconsistent(b)) {
            n_in_use++;
            continue;
        }
        n_consistent++;
        if (!covers(b, data, size, c->why)) {
            return false;
        }
    }
    return true;
}

static bool check_with_qemu(ProofCheck *c)
{
    static const char *const strict[] = { QEMU_IMG, "check", "-q", NULL };
    static const char *const lax[] = { "/bin/sh", "-c", QEMU_IMG
        " check -q \"$0\"; s=$?; [ $s = 0 ] || [ $s = 3 ]", NULL };

    return proof_check_command(c, c->may_leak ? lax : strict);
}

/* By a reading of the specification of our own; each so many-th by QEMU's. */
static bool check_tables(ProofCheck *c)
{
    Qcow2CheckerResult r;

    if (!qcow2_checker_run(c->disk->img, &r, c->why)) {
        return false;
    }
    if (!c->may_leak && (r.leaks || r.is_dirty)) {
        g_string_append_printf(c->why, "%u clusters leaked", r.leaks);
        return false;
    }
    return ++n_checked % qemu_stride || check_with_qemu(c);
}

static bool check(ProofCheck *c)
{
    json_t *options = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2",
                                "file", "driver", "write-log",
                                "disk", c->disk->id);
    Error *err = NULL;
    BlockBackend *blk = blk_new_open(c->graph, NULL, NULL, options, 0, &err);
    bool ok;

    if (!blk) {
        g_string_append_printf(c->why, "the image does not open: %s",
                               error_get_pretty(err));
        error_free(err);
        return false;
    }
    ok = check_bitmaps(c, blk);
    blk_unref(blk);
    return ok && check_tables(c);
}

/* ---- What happens ---- */

static void add(BlockBackend *blk, const char *name, GRand *rand)
{
    static const uint32_t granularities[] = { 512, 4096, 65536 };
    BlockDriverState *bs = blk_bs(blk);
    int64_t size;
    g_autofree uint8_t *data = read_all(blk, &size);

    if (!data || !bdrv_dirty_bitmap_cmd_add(bs, name,
            granularities[g_rand_int_range(rand, 0, 3)], true, false, NULL)) {
        return;
    }
    for (int64_t pos = 0; pos < size; pos += SECTOR) {
        if (!is_zero(data + pos, SECTOR)) {
            bdrv_set_dirty_bitmap(bdrv_find_dirty_bitmap(bs, name), pos,
                                  SECTOR);
        }
    }
}

/* Stores, and is in use again; a disk that fails may keep it from either. */
static void reopen(BlockBackend *blk)
{
    if (!blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL)) {
        return;
    }
    bdrv_reopen(blk_bs(blk), json_pack("{s:b}", "read-only", true), NULL);
    bdrv_reopen(blk_bs(blk), json_pack("{s:b}", "read-only", false), NULL);
    blk_set_perm(blk, BLK_PERM_ALL, BLK_PERM_ALL, NULL);
}

static bool between(const ProofFormat *fmt, BlockBackend *blk, GRand *rand,
                    GString *why)
{
    g_autofree char *name = g_strdup_printf("b%d",
                                            g_rand_int_range(rand, 0, 4));

    switch (g_rand_int_range(rand, 0, 4)) {
    case 0:
        reopen(blk);
        break;
    case 1:
        bdrv_dirty_bitmap_cmd_remove(blk_bs(blk), name, NULL);
        break;
    default:
        add(blk, name, rand);
        break;
    }
    return true;
}

static const ProofConfig config = {
    .ops = 60, .size = 256 * KiB, .max_size = 512 * KiB, .between = 40,
    .max_systematic = 100, .num_random = 100,
    .mix.weight = {
        [MODEL_READ] = 5, [MODEL_WRITE] = 50, [MODEL_ZEROES] = 8,
        [MODEL_DISCARD] = 8, [MODEL_FLUSH] = 10, [MODEL_RESIZE] = 3,
    },
};

static bool can_run(void)
{
    if (!g_file_test(QEMU_IMG, G_FILE_TEST_IS_EXECUTABLE)) {
        g_test_skip("qemu-img is not installed");
        return false;
    }
    return true;
}

static const char *const geometries[] = {
    "{'cluster_size':512}", "{'cluster_size':4096,'refcount_bits':1}",
    "{'cluster_size':65536,'extended_l2':true}",
};

static void test_crash(const void *opaque)
{
    const ProofFormat fmt = {
        .driver = "qcow2", .create_options = opaque, .check = check,
        .between = between,
    };

    if (!can_run()) {
        return;
    }
    n_consistent = n_in_use = 0;
    qemu_stride = 1;
    proof_assert(proof_run_crash, &fmt, &config, 2);
    g_test_message("bitmaps: %d consistent, %d in use", n_consistent,
                   n_in_use);
    g_assert_cmpint(n_consistent, >, 0);
    g_assert_cmpint(n_in_use, >, 0);
}

static void test_fail_nth(const void *opaque)
{
    const ProofFormat fmt = {
        .driver = "qcow2", .create_options = opaque, .check = check,
        .between = between,
    };
    ProofConfig c = config;

    if (!can_run()) {
        return;
    }
    qemu_stride = 100;
    c.ops = 30;
    c.max_systematic = 4;
    c.num_random = 2;
    c.nth_stride = 11;
    n_consistent = n_in_use = 0;
    proof_assert(proof_run_fail_nth, &fmt, &c, 1);
    g_test_message("bitmaps: %d consistent, %d in use", n_consistent,
                   n_in_use);
}

int main(int argc, char **argv)
{
    proof_main_init(&argc, &argv);
    for (size_t i = 0; i < ARRAY_SIZE(geometries); i++) {
        g_autofree char *crash =
            g_strdup_printf("/proof/qcow2-bitmap/crash/%zu", i);
        g_autofree char *fail =
            g_strdup_printf("/proof/qcow2-bitmap/fail-nth/%zu", i);

        g_test_add_data_func(crash, geometries[i], test_crash);
        g_test_add_data_func(fail, geometries[i], test_fail_nth);
    }
    return g_test_run();
}
