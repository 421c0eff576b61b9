/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The proofs proven: they pass what is right and catch what is wrong.
 */
#include "toy-format.h"

#define ATTEMPTS 20

#define UNCHECKED (1u << 31)

static ProofFormat toy_with(unsigned bugs, char **options)
{
    *options = g_strdup_printf("{'bugs': %u}", bugs & ~UNCHECKED);
    return (ProofFormat){
        .driver = "toy",
        .open_options = *options,
        .check = bugs & UNCHECKED ? NULL : proof_check_driver,
        .discard = MODEL_DISCARD_MAYBE,
    };
}

/* ---- What each of them looks for ---- */

static const ProofConfig crash_cfg = {
    .ops = 120,
    .size = 256 * KiB,
    .max_size = 512 * KiB,
    .mix = {
        .weight = {
            [MODEL_READ] = 10, [MODEL_WRITE] = 50, [MODEL_ZEROES] = 8,
            [MODEL_DISCARD] = 8, [MODEL_FLUSH] = 15, [MODEL_RESIZE] = 2,
        },
        .unit = TOY_CLUSTER, .max_bytes = 16 * KiB,
    },
};

static const ProofConfig crash_threads_cfg = {
    .ops = 60,
    .threads = 4,
    .size = 256 * KiB,
    .jitter = 30,
    .mix = {
        .weight = {
            [MODEL_WRITE] = 50, [MODEL_DISCARD] = 8, [MODEL_FLUSH] = 15,
        },
        .unit = TOY_CLUSTER, .max_bytes = 16 * KiB, .hot_bytes = 32 * KiB,
    },
};

static const ProofConfig fail_cfg = {
    .ops = 25,
    .size = 64 * KiB,
    .num_random = 3,
    .mix = {
        .weight = {
            [MODEL_READ] = 20, [MODEL_WRITE] = 50, [MODEL_ZEROES] = 8,
            [MODEL_DISCARD] = 8, [MODEL_FLUSH] = 15, [MODEL_RESIZE] = 2,
        },
        .unit = TOY_CLUSTER, .max_bytes = 8 * KiB,
    },
};

static const ProofConfig stress_cfg = {
    .ops = 400,
    .size = 256 * KiB,
    .jitter = 30,
    .rounds = 2,
    .mix = {
        .weight = {
            [MODEL_READ] = 40, [MODEL_WRITE] = 50, [MODEL_ZEROES] = 4,
            [MODEL_DISCARD] = 4, [MODEL_FLUSH] = 10,
        },
        .unit = TOY_CLUSTER, .max_bytes = 8 * KiB, .hot_bytes = 16 * KiB,
    },
};

static void test_right(void)
{
    g_autofree char *options = NULL;
    ProofFormat toy = toy_with(TOY_RIGHT, &options);

    proof_assert(proof_run_crash, &toy, &crash_cfg, 2);
    proof_assert(proof_run_crash, &toy, &crash_threads_cfg, 2);
    proof_assert(proof_run_fail_nth, &toy, &fail_cfg, 1);
    proof_assert(proof_run_stress, &toy, &stress_cfg, 2);
}

/* ---- Bugs ---- */

typedef struct Planted {
    unsigned bugs;
    ProofRun *run;
    const ProofConfig *cfg;
} Planted;

/* By some seed, soon. */
static void test_caught(gconstpointer opaque)
{
    const Planted *planted = opaque;
    g_autofree char *options = NULL;
    ProofFormat toy = toy_with(planted->bugs, &options);
    ProofConfig cfg = *planted->cfg;
    int i;

    for (i = 1; i <= ATTEMPTS; i++) {
        g_auto(ProofResult) result = { 0 };

        cfg.seed = i;
        if (!planted->run(&toy, &cfg, &result)) {
            g_test_message("attempt %d: %s", i, result.failure);
            return;
        }
    }
    g_test_fail();
}

/* The same seed and the cut that was printed show it again. */
static void test_seen_again(void)
{
    g_autofree char *options = NULL;
    ProofFormat toy = toy_with(TOY_NO_BARRIER, &options);
    g_auto(ProofResult) first = { 0 };
    g_auto(ProofResult) again = { 0 };
    g_auto(ProofResult) other = { 0 };
    g_autofree char *cut = NULL;
    ProofConfig cfg = crash_cfg;

    cfg.seed = 1;
    g_assert_false(proof_run_crash(&toy, &cfg, &first));
    cut = g_strdup(strstr(first.failure, "--cut=") + strlen("--cut="));
    *strpbrk(cut, " \n") = '\0';
    cfg.cut = cut;
    g_assert_false(proof_run_crash(&toy, &cfg, &again));
    g_assert_cmpuint(again.checks, ==, 1);
    g_assert_cmpstr(again.failure, ==, first.failure);
    cfg.cut = "1:all";
    g_assert_true(proof_run_crash(&toy, &cfg, &other));
    cfg.cut = "100000:all";
    g_assert_false(proof_run_crash(&toy, &cfg, &other));
}

#define B(name, bug, what) \
    { "/proof/machinery/catches/" name, \
      { bug, proof_run_##what, &what##_cfg } }
#define proof_run_crash_threads proof_run_crash
#define proof_run_fail proof_run_fail_nth

static const struct {
    const char *path;
    Planted planted;
} bugs[] = {
    B("missing-flush", TOY_NO_BARRIER, crash),
    B("missing-flush-threads", TOY_NO_BARRIER, crash_threads),
    B("missing-flush-without-checker", TOY_NO_BARRIER | UNCHECKED, crash),
    B("table-not-flushed", TOY_FORGETS_TABLE, crash),
    B("table-before-data", TOY_TABLE_FIRST, crash),
    B("early-reuse", TOY_EARLY_REUSE, crash),
    B("mapped-before-written", TOY_EARLY_MAP, crash_threads),
    B("shrink-leaves-tail", TOY_LEAVES_TAIL, crash),
    B("used-cluster-counted-free", TOY_FREES_USED, crash),
    B("lost-update", TOY_LOST_UPDATE, stress),
    B("lost-update-crash", TOY_LOST_UPDATE, crash_threads),
    B("stale-read", TOY_STALE_READ, stress),
    B("mapped-before-written-stress", TOY_EARLY_MAP, stress),
    B("mapped-before-failed-write", TOY_EARLY_MAP, fail),
    B("ignored-error", TOY_IGNORES_ERROR, fail),
};

int main(int argc, char **argv)
{
    size_t i;

    proof_init(&argc, &argv);
    toy_register();
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/proof/machinery/right-passes", test_right);
    for (i = 0; i < ARRAY_SIZE(bugs); i++) {
        g_test_add_data_func(bugs[i].path, &bugs[i].planted, test_caught);
    }
    g_test_add_func("/proof/machinery/seed-and-cut", test_seen_again);
    return g_test_run();
}
