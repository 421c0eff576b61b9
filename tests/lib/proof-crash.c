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

static bool check_cut(ReplayCut cut, MemImage *img, void *opaque)
{
    ProofRunState *p = opaque;
    g_autofree char *text = NULL;

    if (proof_verify(p, img, (ProofVerify){
            .cut = cut.cut,
            .is_kill = cut.pick == REPLAY_ALL && p->fmt->survives_kill,
            .is_crashed = true,
            .seed = p->cfg.seed + cut.cut + cut.value })) {
        return true;
    }
    text = replay_cut_format(cut);
    proof_fail(p, "cut of %u log entries, see it again with --cut=%s",
               p->disk->log->len, text);
    return false;
}

static void check_one_cut(ProofRunState *p, const char *text)
{
    ReplayCut cut;
    MemImage *img;

    if (!replay_cut_parse(text, &cut) || cut.cut > p->disk->log->len) {
        g_string_append_printf(p->why, "no such cut: %s", text);
        proof_fail(p, "%u log entries", p->disk->log->len);
        return;
    }
    img = replay_image(p->disk, cut, p->cfg.seed);
    check_cut(cut, img, p);
    mem_image_free(img);
}

bool proof_run_crash(const ProofFormat *fmt, const ProofConfig *cfg,
                     ProofResult *result)
{
    ProofConfig c = *cfg;
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
    if (p.cfg.cut) {
        check_one_cut(&p, p.cfg.cut);
    } else {
        replay_foreach(p.disk, p.cfg.seed, p.cfg.max_systematic,
                       p.cfg.num_random, check_cut, &p);
    }
    return proof_end(&p);
}
