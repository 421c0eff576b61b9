/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A power cut while qcow2's refcounts become wider and narrower.
 */
#include "proof.h"
#include "block/block-driver.h"
#include "qcow2-checker.h"

static bool check(ProofCheck *c)
{
    Qcow2CheckerResult r;

    if (!qcow2_checker_run(c->disk->img, &r, c->why)) {
        return false;
    }
    if (r.leaks && !c->may_leak) {
        g_string_append_printf(c->why, "%u clusters leaked", r.leaks);
        return false;
    }
    return true;
}

static bool between(const ProofFormat *fmt, BlockBackend *blk, GRand *rand,
                    GString *why)
{
    BlockDriverState *bs = blk_bs(blk);
    g_autoptr(json_t) options = json_pack("{s:i}", "refcount_bits",
                                          1 << g_rand_int_range(rand, 0, 7));
    Error *err = NULL;
    bool ok;

    bdrv_drained_begin(bs);
    ok = bs->drv->amend(bs, options, false, NULL, NULL, &err);
    bdrv_drained_end(bs);
    if (!ok) {
        g_string_append(why, error_get_pretty(err));
        error_free(err);
    }
    return ok;
}

static const char *const geometries[] = {
    "{'cluster_size':512}", "{'cluster_size':4096}", "{'cluster_size':65536}",
};

static void test_crash(const void *opaque)
{
    const ProofFormat fmt = {
        .driver = "qcow2", .create_options = opaque, .check = check,
        .between = between,
    };
    const ProofConfig config = {
        .ops = 60, .size = 256 * KiB, .max_size = 512 * KiB, .between = 20,
        .max_systematic = 600, .num_random = 200,
    };

    proof_assert(proof_run_crash, &fmt, &config, 2);
}

int main(int argc, char **argv)
{
    proof_init(&argc, &argv);
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(geometries); i++) {
        g_autofree char *path = g_strdup_printf("/proof/qcow2-amend/crash/%zu",
                                                i);

        g_test_add_data_func(path, geometries[i], test_crash);
    }
    return g_test_run();
}
