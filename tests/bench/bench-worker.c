/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The worker thread of the load generator: see bench-worker.h.
 *
 * The clock is read once a batch, not once a request: completions that were
 * found together get the same time, as they would in a guest that takes one
 * interrupt for them.
 */
#include <linux/virtio_blk.h>

#include "bench-worker.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

#define SLOT_STRIDE 128 /* header, and the status byte in a line of its own */
#define STATUS_UNTOUCHED 0xee
#define WAIT_MS 30000

uint64_t bench_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

uint64_t bench_worker_memory(const BenchConfig *cfg)
{
    return cfg->depth * (SLOT_STRIDE + cfg->block_size) + 2 * 4096;
}

int bench_worker_init(BenchWorker *w, const BenchConfig *cfg, VufeFrontend *fe,
                      unsigned index, unsigned count, int64_t disk_size)
{
    int64_t blocks = disk_size / cfg->block_size / count;
    uint64_t control = vufe_mem_alloc(&fe->mem, 0, cfg->depth * SLOT_STRIDE,
                                      4096);
    uint64_t data = vufe_mem_alloc(&fe->mem, 0, cfg->depth * cfg->block_size,
                                   4096);
    unsigned i;

    if (control == VUFE_GPA_NONE || data == VUFE_GPA_NONE) {
        return -ENOMEM;
    }
    *w = (BenchWorker){ .cfg = cfg, .fe = fe, .ring = &fe->rings[index] };
    w->first = w->next = index * blocks * cfg->block_size;
    w->end = w->first + blocks * cfg->block_size;
    w->rng = cfg->seed * 0x9e3779b97f4a7c15 + index + 1;
    w->slots = g_new0(BenchSlot, cfg->depth);
    w->free_slots = g_new0(BenchSlot *, cfg->depth);
    for (i = 0; i < cfg->depth; i++) {
        BenchSlot *s = &w->slots[i];

        s->hdr_gpa = control + i * SLOT_STRIDE;
        s->status_gpa = s->hdr_gpa + SLOT_STRIDE / 2;
        s->data_gpa = data + i * cfg->block_size;
        s->hdr = vufe_mem_ptr(&fe->mem, s->hdr_gpa, sizeof(*s->hdr));
        s->status = vufe_mem_ptr(&fe->mem, s->status_gpa, 1);
        s->data = vufe_mem_ptr(&fe->mem, s->data_gpa, cfg->block_size);
        w->free_slots[w->num_free++] = s;
    }
    return 0;
}

void bench_worker_destroy(BenchWorker *w)
{
    g_free(w->slots);
    g_free(w->free_slots);
}

static uint64_t next_random(BenchWorker *w)
{
    /* xorshift64 */
    w->rng ^= w->rng << 13;
    w->rng ^= w->rng >> 7;
    w->rng ^= w->rng << 17;
    return w->rng;
}

/* A fraction of @n, without the division of "%". */
static uint64_t random_below(BenchWorker *w, uint64_t n)
{
    return ((unsigned __int128)next_random(w) * n) >> 64;
}

/* The place of the next request of a warm-up or measurement. */
static int64_t pick_offset(BenchWorker *w)
{
    const int64_t bs = w->cfg->block_size;
    int64_t offset;

    if (w->cfg->is_random) {
        return w->first + random_below(w, (w->end - w->first) / bs) * bs;
    }
    offset = w->next;
    w->next = offset + bs < w->end ? offset + bs : w->first;
    return offset;
}

/* Chooses what @s is to do.  False when there is nothing to do just now. */
static bool prepare_slot(BenchWorker *w, BenchSlot *s)
{
    const BenchConfig *cfg = w->cfg;

    if (w->phase == BENCH_SWEEP) {
        while (w->next < w->end &&
               !stamp_was_written(cfg->stamps, w->next, cfg->block_size)) {
            w->next += cfg->block_size;
        }
        if (w->next >= w->end) {
            w->quota = 0;
            return false;
        }
        s->offset = w->next;
        s->is_write = false;
        w->next += cfg->block_size;
        return true;
    }
    s->offset = pick_offset(w);
    s->is_write = cfg->read_percent < 100 &&
                  (int)random_below(w, 100) >= cfg->read_percent;
    if (cfg->stamps) {
        if (!stamp_claim(cfg->stamps, s->offset, cfg->block_size)) {
            return false;
        }
        if (s->is_write) {
            stamp_fill(cfg->stamps, s->offset, s->data, cfg->block_size);
        }
    }
    return true;
}

/* Adds the request in @s to the ring. */
static int submit_slot(BenchWorker *w, BenchSlot *s)
{
    const VufeBuf bufs[3] = {
        { s->hdr_gpa, sizeof(*s->hdr), false },
        { s->data_gpa, w->cfg->block_size, !s->is_write },
        { s->status_gpa, 1, true },
    };
    int ret;

    *s->hdr = (struct virtio_blk_outhdr){
        .type = s->is_write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
        .sector = s->offset / 512,
    };
    *s->status = STATUS_UNTOUCHED;
    ret = vufe_ring_add(w->ring, bufs, 3, true, s);
    return ret < 0 ? ret : 0;
}

/* Fills free slots while the phase has more to do, then kicks. */
static int refill(BenchWorker *w)
{
    uint64_t now = bench_now_ns();
    bool any = false;

    if (w->deadline_ns && now >= w->deadline_ns) {
        w->quota = 0;
    }
    while (w->num_free && w->quota) {
        BenchSlot *s = w->free_slots[w->num_free - 1];
        int ret;

        if (!prepare_slot(w, s)) {
            break;
        }
        s->start_ns = now;
        ret = submit_slot(w, s);
        if (ret < 0) {
            return ret;
        }
        w->num_free--;
        w->quota--;
        any = true;
    }
    if (any) {
        vufe_ring_kick(w->ring);
    }
    return 0;
}

static void finish_slot(BenchWorker *w, BenchSlot *s, uint64_t now)
{
    const BenchConfig *cfg = w->cfg;

    if (*s->status != VIRTIO_BLK_S_OK) {
        w->errors++;
    } else if (cfg->stamps && !s->is_write) {
        w->wrong += stamp_check(cfg->stamps, s->offset, s->data,
                                cfg->block_size, w->wrong > 0, &w->checked);
    }
    if (cfg->stamps && w->phase != BENCH_SWEEP) {
        stamp_release(cfg->stamps, s->offset, cfg->block_size);
    }
    if (w->phase == BENCH_MEASURE) {
        histogram_record(&w->latency, now - s->start_ns);
        w->reads += !s->is_write;
        w->writes += s->is_write;
    }
    w->free_slots[w->num_free++] = s;
}

static int wait_used(BenchWorker *w)
{
    uint64_t deadline;

    if (!w->cfg->is_polling) {
        return vufe_ring_wait(w->ring, WAIT_MS);
    }
    if (!w->cfg->is_sharing) {
        return vufe_ring_poll(w->ring, WAIT_MS);
    }
    deadline = bench_now_ns() + WAIT_MS * UINT64_C(1000000);
    while (!vufe_ring_has_used(w->ring)) {
        sched_yield();
        if (bench_now_ns() > deadline) {
            return -ETIMEDOUT;
        }
    }
    return 0;
}

/* Waits for completions and takes all that are there. */
static int collect(BenchWorker *w)
{
    void *token;
    uint32_t len;
    uint64_t now;
    int ret = wait_used(w);

    if (ret < 0) {
        return ret;
    }
    now = bench_now_ns();
    while ((ret = vufe_ring_get_used(w->ring, &token, &len)) > 0) {
        finish_slot(w, token, now);
    }
    return ret;
}

static int run_phase(BenchWorker *w, BenchPhase phase, double seconds,
                     uint64_t quota)
{
    int ret = 0;

    w->phase = phase;
    w->quota = quota;
    w->deadline_ns = seconds > 0 ? bench_now_ns() + (uint64_t)(seconds * 1e9)
                                 : 0;
    if (w->cfg->is_polling) {
        vufe_ring_set_call(w->ring, false);
    }
    while (ret == 0) {
        ret = refill(w);
        if (ret == 0 && w->num_free == w->cfg->depth) {
            break;
        }
        ret = ret < 0 ? ret : collect(w);
    }
    return ret;
}

void *bench_worker_run(void *opaque)
{
    BenchWorker *w = opaque;
    const BenchConfig *cfg = w->cfg;
    bool by_count = cfg->num_requests > 0;
    int ret = 0;

    if (cfg->warmup_s > 0) {
        ret = run_phase(w, BENCH_WARMUP, cfg->warmup_s, UINT64_MAX);
    }
    pthread_barrier_wait(cfg->barrier); /* main looks at the clocks */
    pthread_barrier_wait(cfg->barrier);
    if (ret == 0) {
        ret = run_phase(w, BENCH_MEASURE, by_count ? 0 : cfg->run_s,
                        by_count ? cfg->num_requests : UINT64_MAX);
    }
    pthread_barrier_wait(cfg->barrier); /* and again */
    if (ret == 0 && cfg->stamps) {
        w->next = w->first;
        ret = run_phase(w, BENCH_SWEEP, 0, UINT64_MAX);
    }
    w->failure = ret;
    return NULL;
}
