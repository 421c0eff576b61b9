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
#include "qemu/thread.h"

typedef struct Guest {
    ProofRunState *p;
    GRand *rand;
    GString *why;
    QemuThread thread;
    bool ok;
} Guest;

static bool maybe_between(Guest *g)
{
    ProofRunState *p = g->p;

    return !p->fmt->between || p->cfg.threads > 1 ||
           g_rand_int_range(g->rand, 0, 100) >= p->cfg.between ||
           p->fmt->between(p->fmt, p->blk, g->rand, g->why);
}

static void *guest_main(void *opaque)
{
    Guest *g = opaque;
    int i;

    for (i = 0; g->ok && i < g->p->cfg.ops; i++) {
        g->ok = proof_random_request(g->p, g->p->blk, g->rand, g->why) &&
                maybe_between(g);
    }
    return NULL;
}

static bool run_guests(ProofRunState *p)
{
    g_autofree Guest *guests = g_new0(Guest, p->cfg.threads);
    bool ok = true;
    int i;

    for (i = 0; i < p->cfg.threads; i++) {
        const guint32 seeds[] = { p->cfg.seed, i };

        guests[i] = (Guest){ p, g_rand_new_with_seed_array(seeds, 2),
                             g_string_new(NULL), .ok = true };
    }
    if (p->cfg.threads == 1) {
        guest_main(guests);
    } else {
        for (i = 0; i < p->cfg.threads; i++) {
            g_assert_cmpint(qemu_thread_create(&guests[i].thread, "guest",
                                               guest_main, &guests[i]), ==, 0);
        }
        for (i = 0; i < p->cfg.threads; i++) {
            qemu_thread_join(&guests[i].thread);
        }
    }
    for (i = 0; i < p->cfg.threads; i++) {
        if (ok && !guests[i].ok) {
            g_string_append(p->why, guests[i].why->str);
            ok = false;
        }
        g_string_free(guests[i].why, TRUE);
        g_rand_free(guests[i].rand);
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
    if (!proof_open_image(&p) || !run_guests(&p)) {
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
