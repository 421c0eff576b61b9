/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The crash proof: run a workload on a logging disk, then look at every image
 * that a crash could have left.
 *
 * With one thread everything follows from the seed, and a failure is seen again
 * with its seed and cut.  With several it is not; then the image is what to
 * look at (--save).
 */
#include "proof-int.h"

/* One thread, in which everything follows from the seed. */
static bool run_guest(ProofRunState *p)
{
    const guint32 seeds[] = { p->cfg.seed, 0 };
    g_autoptr(GRand) rand = g_rand_new_with_seed_array(seeds, 2);
    bool ok = true;
    int i;

    for (i = 0; ok && i < p->cfg.ops; i++) {
        ok = proof_random_request(p, p->blk, rand, p->why) &&
             proof_between(p, rand, p->why);
    }
    return ok;
}

bool proof_run_crash(const ProofFormat *fmt, const ProofConfig *cfg,
                     ProofResult *result)
{
    ProofConfig c = *cfg;
    ProofVerify v = { .is_crashed = true };
    ProofRunState p;

    c.max_systematic = c.max_systematic ?: 1500;
    c.num_random = c.num_random ?: 300;
    if (!proof_begin(&p, fmt, &c, result)) {
        return proof_end(&p);
    }
    if (!proof_open_image(&p) ||
        !(p.cfg.threads > 1 ? proof_run_users(&p) : run_guest(&p))) {
        proof_fail(&p, "in the workload");
        return proof_end(&p);
    }
    proof_close_image(&p);
    v.seed = p.cfg.seed;
    v.is_kill = fmt->survives_kill;
    if (p.cfg.cut ? !proof_verify_cut(&p, p.cfg.cut, v)
                  : !proof_verify_cuts(&p, v)) {
        proof_fail(&p, "of %u log entries", p.disk->log->len);
    }
    return proof_end(&p);
}
