/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The Nth I/O fails: for each kind of fault and every N, a fresh image, the
 * same workload (which opens the image, too), then the image without faults.
 *
 * What failed may have happened or not, and what did not fail has.  After the
 * fault the workload goes on: reads that succeed are still compared, and a
 * flush that succeeds still has to mean it.  Failing for good is the driver's
 * right; lying is not.
 */
#include "proof-int.h"

static const struct {
    const char *name;
    WriteLogFault fault;
} kinds[] = {
    { "EIO, once", { WLOG_ALL, 0, EIO } },
    { "EIO of a write, torn", { 1u << WLOG_WRITE, 0, EIO, .torn = true } },
    { "ENOSPC from then on",
      { WLOG_CHANGES, 0, ENOSPC, .forever = true } },
    { "EIO of a read", { 1u << WLOG_READ, 0, EIO } },
    { "EIO of a flush", { 1u << WLOG_FLUSH, 0, EIO } },
    { "EIO of all from then on", { WLOG_ALL, 0, EIO, .forever = true } },
};

static bool run_workload(ProofRunState *p)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(p->cfg.seed);
    bool ok = true;
    int i;

    for (i = 0; ok && i < p->cfg.ops; i++) {
        ok = proof_random_request(p, p->blk, rand, p->why) &&
             proof_between(p, rand, p->why);
    }
    return ok;
}

/* False: something was wrong that the fault does not excuse. */
static bool use_failing_image(ProofRunState *p, bool of_data,
                              WriteLogFault fault)
{
    bool ok;

    write_log_fail(of_data ? p->data : p->disk, fault);
    if (!proof_open_image(p)) {
        if (!proof_fired(p)) {
            return false;
        }
        g_string_truncate(p->why, 0);
        return true;
    }
    ok = run_workload(p);
    proof_close_image(p);
    return ok;
}

static bool check_after(ProofRunState *p)
{
    ProofVerify v = {
        .cut = write_log_mark(p->disk, 0),
        /* Errors may keep it from closing in good order. */
        .is_crashed = proof_fired(p),
        .seed = p->cfg.seed,
    };

    return proof_verify(p, p->disk->img, p->data ? p->data->img : NULL, v) &&
           proof_verify_cuts(p, (ProofVerify){ .is_crashed = true });
}

/* Returns whether the fault fired: whether there is a next one. */
static bool fail_one(const ProofFormat *fmt, const ProofConfig *cfg, size_t k,
                     bool of_data, int nth, ProofResult *result)
{
    WriteLogFault fault = kinds[k].fault;
    ProofResult one = { 0 };
    ProofRunState p;
    bool fired = false;

    fault.nth = nth;
    if (proof_begin(&p, fmt, cfg, &one)) {
        bool ok = use_failing_image(&p, of_data, fault);

        fired = proof_fired(&p);
        if (!ok || !check_after(&p)) {
            proof_fail(&p, "fault %d, %s%s", nth, kinds[k].name,
                       of_data ? ", of the data file" : "");
        }
    }
    proof_end(&p);
    result->checks += one.checks;
    result->entries = one.entries;
    result->failure = one.failure;
    return fired && !one.failure;
}

static void fail_each(const ProofFormat *fmt, const ProofConfig *c, size_t k,
                      bool of_data, ProofResult *result)
{
    int stride = MAX(c->nth_stride, 1) * proof_stride();

    for (int nth = 1 + c->seed % stride; !c->max_nth || nth <= c->max_nth;
         nth += stride) {
        if (!fail_one(fmt, c, k, of_data, nth, result)) {
            break;
        }
    }
}

bool proof_run_fail_nth(const ProofFormat *fmt, const ProofConfig *cfg,
                        ProofResult *result)
{
    ProofConfig c = *cfg;
    size_t k;

    proof_result_clear(result);
    result->seed = c.seed = c.seed ?: proof_seed();
    c.threads = 1;
    c.ops = c.ops ?: 30;
    for (k = 0; k < ARRAY_SIZE(kinds) && !result->failure; k++) {
        fail_each(fmt, &c, k, false, result);
        if (fmt->data_file && !result->failure) {
            fail_each(fmt, &c, k, true, result);
        }
    }
    return !result->failure;
}

/* ---- Tests that do it themselves ---- */

const WriteLogFault proof_faults[PROOF_FAULTS] = {
    { WLOG_ALL, 0, EIO },
    { 1u << WLOG_WRITE, 0, EIO, .torn = true },
    { WLOG_CHANGES, 0, ENOSPC, .forever = true },
    { 1u << WLOG_FLUSH, 0, EIO },
};

void proof_fail_each(ProofFail *fail, const void *variant, uint32_t seed,
                     int which, WriteLogFault fault, int stride)
{
    fault.nth = 1 + seed % stride;
    while (fail(variant, seed, which, fault)) {
        fault.nth += stride;
    }
}
