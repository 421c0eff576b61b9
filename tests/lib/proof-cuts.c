/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking at what power cuts leave of a proof's disk, or of its two: with an
 * external data file the time of the model is that of the image's log, and
 * "K:pick" becomes "K:pick+K:pick".
 *
 * A cut of two is of one moment: the cut of the image's log says when.
 */
#include "proof-int.h"

typedef struct Cuts {
    ProofRunState *p;
    ProofVerify v;
} Cuts;

static bool check(const Cuts *c, ReplayCut cut, const MemImage *img,
                  const ReplayCut *data_cut, const MemImage *data)
{
    ProofVerify v = c->v;
    g_autofree char *text = NULL, *data_text = NULL;

    v.cut = cut.cut;
    v.is_kill &= cut.pick == REPLAY_ALL;
    v.seed += cut.cut + cut.value;
    if (proof_verify(c->p, img, data, v)) {
        return true;
    }
    text = replay_cut_format(cut);
    data_text = data ? replay_cut_format(*data_cut) : g_strdup("");
    g_string_append_printf(c->p->why, "\n  see it again with --cut=%s%s%s",
                           text, data ? "+" : "", data_text);
    return false;
}

static bool check_one(ReplayCut cut, MemImage *img, void *opaque)
{
    return check(opaque, cut, img, NULL, NULL);
}

static bool check_pair(const ReplayPair *pair, MemImage *images[2],
                       void *opaque)
{
    return check(opaque, pair->cuts[0], images[0], &pair->cuts[1], images[1]);
}

bool proof_verify_cuts(ProofRunState *p, ProofVerify v)
{
    const ProofConfig *c = &p->cfg;
    Cuts cuts = { p, v };

    return p->data ?
        replay_foreach_pair(p->disk, p->data, c->seed, c->max_systematic,
                            c->num_random, check_pair, &cuts) :
        replay_foreach(p->disk, c->seed, c->max_systematic, c->num_random,
                       check_one, &cuts);
}

static bool parse(const WriteLogDisk *d, const char *text, ReplayCut *cut)
{
    return text && replay_cut_parse(text, cut) && cut->cut <= d->log->len;
}

bool proof_verify_cut(ProofRunState *p, const char *text, ProofVerify v)
{
    g_auto(GStrv) parts = g_strsplit(text, "+", 2);
    g_autoptr(MemImage) img = NULL, data = NULL;
    const Cuts cuts = { p, v };
    ReplayCut cut, data_cut;

    if (!parse(p->disk, parts[0], &cut) ||
        (p->data && !parse(p->data, parts[1], &data_cut))) {
        g_string_append_printf(p->why, "no such cut: %s", text);
        return false;
    }
    img = replay_image(p->disk, cut, p->cfg.seed);
    data = p->data ? replay_image(p->data, data_cut, p->cfg.seed) : NULL;
    return check(&cuts, cut, img, &data_cut, data);
}
