/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the proofs share.
 */
#ifndef TESTS_PROOF_INT_H
#define TESTS_PROOF_INT_H

#include "proof.h"
#include "qemu/options.h"

/* One proof under way: an image, open, and its model. */
typedef struct ProofRunState {
    const ProofFormat *fmt;
    ProofConfig cfg;            /* with the defaults filled in */
    ProofResult *result;
    BlockGraph *graph;
    WriteLogDisk *disk;
    WriteLogDisk *data;         /* or NULL */
    WriteLogDisk *backing;      /* or NULL */
    BlockBackend *blk;          /* NULL: closed */
    ModelDisk *model;
    GString *why;
} ProofRunState;

/* Also clears @result.  Makes an image; false (as of all): a failure. */
bool proof_begin(ProofRunState *p, const ProofFormat *fmt,
                 const ProofConfig *cfg, ProofResult *result);
/* Closes; returns whether there was no failure. */
bool proof_end(ProofRunState *p);
BlockBackend *proof_open(const ProofFormat *fmt, BlockGraph *graph,
                         const WriteLogDisk *disk, int flags, Error **errp);
/* Has a fault of either disk struck? */
bool proof_fired(const ProofRunState *p);
/* Look at every so many-th thing only, where everything takes long. */
int proof_stride(void);
/* p->blk. */
bool proof_open_image(ProofRunState *p);
void proof_close_image(ProofRunState *p);
/* p->why is the failure; @how says how to see it again. */
void proof_fail(ProofRunState *p, const char *how, ...) G_GNUC_PRINTF(2, 3);
/* The first bad image, where the command line wants it. */
void proof_save(const MemImage *img);
const char *proof_cut_option(void);

/*
 * One random request of the workload, in the calling thread.  Errors of the
 * disk are no failure once a fault has struck.
 */
bool proof_random_request(ProofRunState *p, BlockBackend *blk, GRand *rand,
                          GString *why);

/* The BdrvRequestFlags that @op is sent with, once it has begun. */
int proof_request_flags(const ProofRunState *p, const ModelOp *op);

/* Perhaps, if there is only one thread: what the format does in between. */
bool proof_between(ProofRunState *p, GRand *rand, GString *why);

/* cfg.threads users at once, threads and event loops in turn, who make cfg.ops
 * requests each on cfg.backends backends. */
bool proof_run_users(ProofRunState *p);

/* After a crash or failure. */
typedef struct ProofVerify {
    uint64_t cut;               /* of the model's time */
    bool is_kill;               /* nothing that had ended may be lost … */
    bool is_crashed;            /* … */
    uint32_t seed;              /* of what is written into it */
} ProofVerify;

/* @img, and @data (NULL: there is no data file), are not changed. */
bool proof_verify(ProofRunState *p, const MemImage *img, const MemImage *data,
                  ProofVerify v);
/* All that a power cut can leave, of one disk or two, as replay_foreach()
 * does.  v.cut is not used, v.is_kill only where all is there, and v.seed is
 * added to the cut's. */
bool proof_verify_cuts(ProofRunState *p, ProofVerify v);
/* Only one of them, as text. */
bool proof_verify_cut(ProofRunState *p, const char *text, ProofVerify v);

#endif
