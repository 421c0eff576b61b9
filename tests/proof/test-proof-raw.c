/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The proofs, on raw: nothing between the guest and the file.
 */
#include "proof.h"

static const ProofFormat raw = {
    .driver = "raw",
    .survives_kill = true,
};

static void test_crash(void)
{
    const ProofConfig cfg = {
        .ops = 200, .size = 256 * KiB,
        .mix.weight = {
            [MODEL_READ] = 10, [MODEL_WRITE] = 50, [MODEL_ZEROES] = 8,
            [MODEL_DISCARD] = 8, [MODEL_FLUSH] = 10, [MODEL_RESIZE] = 2,
        },
    };

    proof_assert(proof_run_crash, &raw, &cfg, 3);
}

static void test_crash_threads(void)
{
    const ProofConfig cfg = {
        .ops = 60, .size = 256 * KiB, .threads = 4, .jitter = 20,
    };

    proof_assert(proof_run_crash, &raw, &cfg, 3);
}

/* Neighbours in one block of the file: read, modify, write. */
static void test_crash_unaligned(void)
{
    const ProofConfig cfg = {
        .ops = 60, .size = 256 * KiB, .threads = 4, .jitter = 20,
        .file_alignment = 4096,
        .mix.hot_bytes = 64 * KiB,
    };

    proof_assert(proof_run_crash, &raw, &cfg, 3);
}

static void test_fail_nth(void)
{
    const ProofConfig cfg = {
        .ops = 30, .size = 256 * KiB, .num_random = 3,
    };

    proof_assert(proof_run_fail_nth, &raw, &cfg, 1);
}

static void test_stress(void)
{
    const ProofConfig cfg = {
        .ops = 300, .jitter = 10, .mix.hot_bytes = 64 * KiB,
    };

    proof_assert(proof_run_stress, &raw, &cfg, 3);
}

static void test_stress_unaligned(void)
{
    const ProofConfig cfg = {
        .ops = 300, .jitter = 10, .file_alignment = 4096,
        .mix = { .hot_bytes = 64 * KiB, .max_bytes = 16 * KiB },
    };

    proof_assert(proof_run_stress, &raw, &cfg, 2);
}

int main(int argc, char **argv)
{
    proof_init(&argc, &argv);
    g_test_init(&argc, &argv, NULL);
#define T(name, fn) g_test_add_func("/proof/raw/" name, fn)
    T("crash", test_crash);
    T("crash-threads", test_crash_threads);
    T("crash-unaligned", test_crash_unaligned);
    T("fail-nth", test_fail_nth);
    T("stress", test_stress);
    T("stress-unaligned", test_stress_unaligned);
    return g_test_run();
}
