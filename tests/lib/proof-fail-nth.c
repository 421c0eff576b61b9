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
static bool use_failing_image(ProofRunState *p, WriteLogFault fault)
{
    bool ok;

    write_log_fail(p->disk, fault);
    if (!proof_open_image(p)) {
        if (!write_log_fired(p->disk)) {
            return false;
        }
        g_string_truncate(p->why, 0);
        return true;
    }
    ok = run_workload(p);
    proof_close_image(p);
    return ok;
}

static bool check_cut(ReplayCut cut, MemImage *img, void *opaque)
{
    ProofRunState *p = opaque;
    g_autofree char *text = replay_cut_format(cut);

    if (proof_verify(p, img, (ProofVerify){ .cut = cut.cut,
                                            .is_crashed = true,
                                            .seed = cut.cut + cut.value })) {
        return true;
    }
    g_string_append_printf(p->why, "\n  after a power cut, %s", text);
    return false;
}

static bool check_after(ProofRunState *p)
{
    ProofVerify v = {
        .cut = write_log_mark(p->disk, 0),
        /* Errors may keep it from closing in good order. */
        .is_crashed = write_log_fired(p->disk),
        .seed = p->cfg.seed,
    };

    return proof_verify(p, p->disk->img, v) &&
           replay_foreach(p->disk, p->cfg.seed, p->cfg.max_systematic,
                          p->cfg.num_random, check_cut, p);
}

/* Returns whether the fault fired: whether there is a next one. */
static bool fail_one(const ProofFormat *fmt, const ProofConfig *cfg, size_t k,
                     int nth, ProofResult *result)
{
    WriteLogFault fault = kinds[k].fault;
    ProofResult one = { 0 };
    ProofRunState p;
    bool fired = false;

    fault.nth = nth;
    if (proof_begin(&p, fmt, cfg, &one)) {
        bool ok = use_failing_image(&p, fault);

        fired = write_log_fired(p.disk);
        if (!ok || !check_after(&p)) {
            proof_fail(&p, "fault %d, %s", nth, kinds[k].name);
        }
    }
    proof_end(&p);
    result->checks += one.checks;
    result->entries = one.entries;
    result->failure = one.failure;
    return fired && !one.failure;
}

bool proof_run_fail_nth(const ProofFormat *fmt, const ProofConfig *cfg,
                        ProofResult *result)
{
    ProofConfig c = *cfg;
    size_t k;
    int nth, stride;

    proof_result_clear(result);
    result->seed = c.seed = c.seed ?: proof_seed();
    c.threads = 1;
    c.ops = c.ops ?: 30;
    stride = MAX(c.nth_stride, 1) * proof_stride();
    for (k = 0; k < ARRAY_SIZE(kinds) && !result->failure; k++) {
        for (nth = 1 + c.seed % stride; !c.max_nth || nth <= c.max_nth;
             nth += stride) {
            if (!fail_one(fmt, &c, k, nth, result)) {
                break;
            }
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
