/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proofs about image formats: crash consistency, threads, failing I/O.
 *
 * A ProofFormat says how an image is made, opened and checked; a ProofConfig,
 * what happens to it.  Each proof makes images on disks in memory
 * (write-log.h), runs a random workload against a model (model-disk.h), and
 * says whether all that was seen was legal:
 *
 *   proof_run_crash     cut the power, or kill the process, at any moment
 *   proof_run_fail_nth  let the Nth I/O fail, for every N
 *   proof_run_stress    many threads, several backends, event loops
 *
 * After each crash or failure the image must be found consistent by the
 * format's checker, open, hold what the model wants, take new writes without
 * touching anything else, and be found consistent again.
 *
 * All of this is for the main thread, which is the control thread.  Nothing is
 * asserted about the format: a proof that fails returns false, and
 * result->failure says what is wrong and how to see it again.
 */
#ifndef TESTS_PROOF_H
#define TESTS_PROOF_H

#include "model-disk.h"
#include "replay.h"
#include "block/block-backend.h"

typedef struct ProofFormat ProofFormat;

/* What a checker looks at. */
typedef struct ProofCheck {
    const ProofFormat *fmt;
    BlockGraph *graph;
    WriteLogDisk *disk;         /* the image; nobody has it open */
    WriteLogDisk *data;         /* its external data file, or NULL */
    bool is_crashed;            /* false: closed in good order */
    bool may_leak;              /* it has once crashed, or failed */
    GString *why;               /* what is wrong with it goes here */
} ProofCheck;

typedef enum ProofDataFile {
    PROOF_DATA_INSIDE,
    PROOF_DATA_FILE,
    PROOF_DATA_FILE_RAW,
} ProofDataFile;

struct ProofFormat {
    const char *name;           /* for messages; NULL: driver */
    const char *driver;
    const char *create_options; /* JSON object, without size; NULL: none */
    const char *open_options;   /* JSON object, without driver and file */
    /* Is the image consistent in itself?  proof_check_driver(), one that runs
     * proof_check_command(), or both; NULL: cannot tell. */
    bool (*check)(ProofCheck *c);
    /* Called now and then between two requests of a proof with one thread:
     * snapshots, bitmaps, whatever must not change the contents.  May fail if
     * I/O does. */
    bool (*between)(const ProofFormat *fmt, BlockBackend *blk, GRand *rand,
                    GString *why);
    ModelDiscard discard;
    /*
     * The guest's data is on a disk of its own, the option "data-file"; the two
     * lose their power at one moment, and either may fail.  In the beginning it
     * holds garbage, unless it is raw.
     */
    ProofDataFile data_file;
    /* A new image holds anything, and is zeroed first. */
    bool starts_as_noise;
    bool copy_on_read;          /* whenever it is open read-write */
    /* Whatever has completed is in the file, so that a killed process loses
     * nothing (raw does this; a cache of tables does not). */
    bool survives_kill;
    void *opaque;
};

typedef struct ProofConfig {
    uint32_t seed;              /* 0: of the command line, or random */
    int64_t size;               /* 0: 1 MiB */
    int64_t max_size;           /* for resizing; 0: size */
    int threads;                /* 0: 1 */
    int ops;                    /* of each thread (and round); 0: a few */
    unsigned jitter;            /* percent of the file's calls that nap */
    uint32_t file_alignment;    /* request_alignment of the file */
    uint8_t discard_value;      /* what the file reads where it was discarded */
    ModelMix mix;
    /* Half of the writes of whole ones are compressed; 0: none are. */
    int64_t compress_unit;
    /* The disk "proof-backing" has so much data, that the image begins with if
     * open_options make it the backing file; 0: there is no such disk. */
    int64_t backing_size;
    int between;                /* percent of requests followed by it */
    bool grow;                  /* what a crash left, towards max_size */

    /* crash; fail-nth, of each failure (there 0 is none) */
    int max_systematic;         /* 0: 1500 */
    int num_random;             /* 0: 300 */
    const char *cut;            /* only this one; NULL: of the command line */

    /* stress */
    int rounds;                 /* 0: 4 */
    int backends;               /* on the same node; 0: 2 */
    int depth;                  /* of each event loop; 0: 8 */

    /* fail-nth */
    int max_nth;                /* 0: until none fires */
    int nth_stride;             /* only every so many-th; 0: each */
} ProofConfig;

typedef struct ProofResult {
    unsigned checks;            /* images looked at, reads compared */
    unsigned entries;           /* of the (last) log */
    uint32_t seed;
    char *failure;              /* NULL: none */
} ProofResult;

void proof_result_clear(ProofResult *r);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ProofResult, proof_result_clear)

/*
 * First thing in main(): registers the drivers, and takes --seed=N,
 * --cut=K:pick (with a data file, K:pick+K:pick) and --save=FILE (the first bad
 * image) out of the arguments.
 */
void proof_init(int *argc, char ***argv);

typedef struct ProofTest {
    const char *name;
    void (*fn)(const void *variant);
} ProofTest;

/*
 * main() for a driver in many variants.  First proof_init() and g_test_init(),
 * and what images that fail make the driver say on stderr is dropped: it is not
 * news.  Then, for each of @tests (ends with a NULL name) and of the @n
 * @variants, which are structs of @size bytes that begin with their name:
 * "/proof/@what/test/variant".
 */
void proof_main_init(int *argc, char ***argv);
void proof_add_tests(const char *what, const ProofTest *tests,
                     const void *variants, size_t n, size_t size);
/* The same for "crash" and "fail-nth", which are then run: the exit status. */
int proof_run_tests(const char *what, void (*crash)(const void *variant),
                    void (*fail_nth)(const void *variant),
                    const void *variants, size_t n, size_t size);

/* How many times as long to go on: THREADBLOCK_LONG, or 1. */
int proof_scale(void);
uint32_t proof_seed(void);
/*
 * The same, but in a short run @usual unless it was asked for another.  For
 * what has so many ways to meet that who finds a new one is not to be whoever
 * changes something else.
 */
uint32_t proof_seed_or(uint32_t usual);

/* False: result->failure says why.  @result is cleared first. */
bool proof_run_crash(const ProofFormat *fmt, const ProofConfig *cfg,
                     ProofResult *result);
bool proof_run_fail_nth(const ProofFormat *fmt, const ProofConfig *cfg,
                        ProofResult *result);
bool proof_run_stress(const ProofFormat *fmt, const ProofConfig *cfg,
                      ProofResult *result);

typedef bool ProofRun(const ProofFormat *fmt, const ProofConfig *cfg,
                      ProofResult *result);
/* @n times (proof_scale() as often) with other seeds; fails the test. */
void proof_assert(ProofRun *run, const ProofFormat *fmt,
                  const ProofConfig *cfg, int n);

/*
 * For tests of their own whose Nth request fails: what disks do, and @fail with
 * every @stride-th N, until it returns false, as there is none or the test has
 * failed.  @which: of several disks, as @fail likes.
 */
#define PROOF_FAULTS 4
extern const WriteLogFault proof_faults[PROOF_FAULTS];

typedef bool ProofFail(const void *variant, uint32_t seed, int which,
                       WriteLogFault fault);
void proof_fail_each(ProofFail *fail, const void *variant, uint32_t seed,
                     int which, WriteLogFault fault, int stride);

/* ---- For checkers ---- */

/* The driver's own check finds nothing, or leaks where there may be some. */
bool proof_check_driver(ProofCheck *c);
/* The raw data file alone holds what the disk does. */
bool proof_check_raw_file(ProofCheck *c);
/* Open the image; NULL: c->why says why not. */
BlockBackend *proof_check_open(ProofCheck *c, bool writable);
/*
 * Run a program on the image as a file: the last of @argv (NULL-terminated) is
 * followed by the file's name.  True if its status is 0; else its output is
 * in c->why.
 */
bool proof_check_command(ProofCheck *c, const char *const *argv);

#endif
