/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread of the load generator, which drives one queue.
 *
 * A worker keeps up to `depth` requests in flight: it takes all that have
 * completed, fills their slots again, kicks once if the device wants to hear of
 * it, and waits.  It goes through phases - warm-up, measurement, and in verify
 * mode a sweep that reads back all that was written - and is idle, with nothing
 * in flight, between them.  The barrier is where main takes the time.
 */
#ifndef TESTS_BENCH_WORKER_H
#define TESTS_BENCH_WORKER_H

#include <pthread.h>

#include "bench-stamp.h"
#include "histogram.h"
#include "vhost-user-frontend.h"

typedef struct BenchConfig {
    unsigned depth;
    int64_t block_size;
    int read_percent;     /* of the requests; the others write */
    bool is_random;
    bool is_polling;      /* spin on the used ring; else sleep on call */
    bool is_sharing;      /* polling workers share a core, and must yield */
    double warmup_s;
    double run_s;         /* of the measurement, if num_requests is 0 */
    uint64_t num_requests; /* of each worker */
    uint64_t seed;
    StampMap *stamps;     /* NULL without verify mode */
    pthread_barrier_t *barrier;
} BenchConfig;

typedef struct BenchSlot {
    struct virtio_blk_outhdr *hdr;
    uint8_t *status;
    uint8_t *data;
    uint64_t hdr_gpa, status_gpa, data_gpa;
    int64_t offset;
    uint64_t start_ns;
    bool is_write;
} BenchSlot;

typedef enum BenchPhase {
    BENCH_WARMUP,
    BENCH_MEASURE,
    BENCH_SWEEP,
} BenchPhase;

typedef struct BenchWorker {
    const BenchConfig *cfg;
    VufeFrontend *fe;
    VufeRing *ring;
    pthread_t thread;
    int64_t first, end; /* its part of the disk, in bytes */
    BenchSlot *slots;
    BenchSlot **free_slots;
    unsigned num_free;
    uint64_t rng;
    int64_t next; /* offset of the next sequential request */

    /* Of the phase. */
    BenchPhase phase;
    uint64_t deadline_ns; /* 0: none */
    uint64_t quota;       /* requests left to make */

    /* Results, of the measurement but for the last three. */
    Histogram latency;
    uint64_t reads, writes;
    uint64_t errors; /* status bytes other than OK */
    uint64_t checked, wrong;
    int failure;     /* -errno when it had to give up */
} BenchWorker;

/*
 * Prepares worker number @index of @count on ring @index of @fe, with slots in
 * guest memory.  0 or -ENOMEM.
 */
int bench_worker_init(BenchWorker *w, const BenchConfig *cfg, VufeFrontend *fe,
                      unsigned index, unsigned count, int64_t disk_size);
void bench_worker_destroy(BenchWorker *w);

/* Guest memory that one worker takes. */
uint64_t bench_worker_memory(const BenchConfig *cfg);

/*
 * Body of the thread.  Always meets cfg->barrier three times: before the
 * measurement twice, so that main can look at the clocks in between, and after.
 */
void *bench_worker_run(void *opaque);

/* Monotonic clock. */
uint64_t bench_now_ns(void);

#endif
