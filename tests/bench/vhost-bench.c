/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhost-bench: a load generator for vhost-user-blk servers.
 *
 * It is a front end (tests/lib) that makes reads and writes on one or more
 * queues, a thread each, and says in JSON how fast they were and - with
 * --server-pid - what they cost the server in processor time, which is the
 * figure that tells implementations apart: with generator and server on a core
 * each, throughput says as much about the scheduler.
 *
 * --verify stamps every 4 KiB block it writes, checks what it reads, and at
 * the end reads back everything that it wrote; the exit status is 1 if
 * anything was wrong, or if the server failed a request.
 *
 * How it waits matters.  With --wait=poll the generator spins and never asks
 * for an interrupt, so the server's figure is the work of serving requests.
 * With --wait=call both sides sleep and wake each other, as a guest does; on a
 * virtual machine one such wake-up costs as much as dozens of requests.
 */
#include <linux/virtio_blk.h>

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench-worker.h"
#include "vufe-blk.h"

typedef struct Options {
    char *socket;
    char *rw;
    char *wait;
    int queues, depth, queue_size;
    int server_pid;
    gint64 span;
    gboolean verify, packed, no_indirect, no_event_idx;
} Options;

typedef struct Clocks {
    uint64_t wall_ns, server_ns, own_ns;
} Clocks;

static int parse_rw(const char *arg, BenchConfig *cfg)
{
    g_auto(GStrv) part = g_strsplit(arg, ":", 2);

    cfg->is_random = g_str_has_prefix(part[0], "rand");
    if (!strcmp(part[0], "read") || !strcmp(part[0], "randread")) {
        cfg->read_percent = 100;
    } else if (!strcmp(part[0], "write") || !strcmp(part[0], "randwrite")) {
        cfg->read_percent = 0;
    } else if (!strcmp(part[0], "rw") || !strcmp(part[0], "randrw")) {
        cfg->read_percent = part[1] ? atoi(part[1]) : 50;
    } else {
        return -EINVAL;
    }
    return 0;
}

static int parse_options(int *argc, char ***argv, Options *o, BenchConfig *c)
{
    gint64 requests = 0, block_size = 4096, seed = 1;
    const GOptionEntry entries[] = {
        { "socket", 's', 0, G_OPTION_ARG_FILENAME, &o->socket,
          "of the server", "PATH" },
        { "queues", 'q', 0, G_OPTION_ARG_INT, &o->queues,
          "a thread each [1]", "N" },
        { "depth", 'd', 0, G_OPTION_ARG_INT, &o->depth,
          "requests in flight, per queue [1]", "N" },
        { "queue-size", 0, 0, G_OPTION_ARG_INT, &o->queue_size,
          "entries of a ring [128]", "N" },
        { "bs", 'b', 0, G_OPTION_ARG_INT64, &block_size,
          "bytes of a request [4096]", "BYTES" },
        { "rw", 'r', 0, G_OPTION_ARG_STRING, &o->rw,
          "[rand]read, [rand]write, [rand]rw[:READ-PERCENT] [randread]",
          "PATTERN" },
        { "time", 't', 0, G_OPTION_ARG_DOUBLE, &c->run_s,
          "seconds to measure [2]", "S" },
        { "requests", 'n', 0, G_OPTION_ARG_INT64, &requests,
          "measure so many per queue instead", "N" },
        { "warmup", 0, 0, G_OPTION_ARG_DOUBLE, &c->warmup_s,
          "seconds before [0.2]", "S" },
        { "span", 0, 0, G_OPTION_ARG_INT64, &o->span,
          "use only the start of the disk", "BYTES" },
        { "verify", 0, 0, G_OPTION_ARG_NONE, &o->verify,
          "stamp and check data", NULL },
        { "packed", 0, 0, G_OPTION_ARG_NONE, &o->packed, "ring layout", NULL },
        { "no-indirect", 0, 0, G_OPTION_ARG_NONE, &o->no_indirect,
          "three descriptors a request", NULL },
        { "no-event-idx", 0, 0, G_OPTION_ARG_NONE, &o->no_event_idx,
          "flags instead of the event index", NULL },
        { "wait", 'w', 0, G_OPTION_ARG_STRING, &o->wait,
          "for completions: call (sleep) or poll (spin) [call]", "HOW" },
        { "server-pid", 'p', 0, G_OPTION_ARG_INT, &o->server_pid,
          "measure the processor time of this process", "PID" },
        { "seed", 0, 0, G_OPTION_ARG_INT64, &seed, "of random offsets [1]",
          "N" },
        { NULL }
    };
    g_autoptr(GOptionContext) ctx = g_option_context_new(NULL);
    g_autoptr(GError) err = NULL;
    const char *bad = NULL;

    g_option_context_add_main_entries(ctx, entries, NULL);
    if (!g_option_context_parse(ctx, argc, argv, &err)) {
        bad = err->message;
    } else if (!o->socket) {
        bad = "--socket is missing";
    } else if (parse_rw(o->rw ? o->rw : "randread", c) < 0) {
        bad = "unknown --rw";
    } else if (o->wait && strcmp(o->wait, "poll") && strcmp(o->wait, "call")) {
        bad = "--wait is call or poll";
    } else if (o->queues < 1 || o->queues > VUFE_QUEUES_MAX || o->depth < 1 ||
               o->depth * (o->no_indirect ? 3 : 1) > o->queue_size) {
        bad = "queues or depth out of range";
    } else if (block_size < 512 || block_size % 512 ||
               block_size > 1 << 24 ||
               (o->verify && block_size % STAMP_BLOCK)) {
        bad = "block size out of range (512; 4096 with --verify)";
    } else if (requests < 0 || (requests == 0 && c->run_s <= 0)) {
        bad = "nothing to do";
    }
    if (bad) {
        fprintf(stderr, "vhost-bench: %s\n", bad);
        return -EINVAL;
    }
    c->depth = o->depth;
    c->block_size = block_size;
    c->num_requests = requests;
    c->seed = seed;
    c->is_polling = o->wait && !strcmp(o->wait, "poll");
    c->is_sharing = o->queues > 1;
    return 0;
}

static VufeFrontend *open_device(const Options *o, const BenchConfig *cfg)
{
    uint64_t memory = o->queues * (bench_worker_memory(cfg) +
                                   o->queue_size * 2304) + (1 << 20);
    const VufeOptions vo = {
        .num_queues = o->queues,
        .queue_size = o->queue_size,
        .packed = o->packed,
        .indirect = !o->no_indirect,
        .event_idx = !o->no_event_idx,
        .region_size = (memory + 4095) & ~UINT64_C(4095),
    };
    char *msg = NULL;
    VufeFrontend *fe = vufe_open(o->socket, &vo, &msg);

    if (!fe) {
        fprintf(stderr, "vhost-bench: %s\n", msg);
        g_free(msg);
    }
    return fe;
}

static uint64_t cpu_time_ns(clockid_t clock)
{
    struct timespec ts;

    if (clock_gettime(clock, &ts) < 0) {
        return 0;
    }
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

/* The processor clock of a process counts threads that have ended, too. */
static Clocks read_clocks(int server_pid)
{
    Clocks c = { .wall_ns = bench_now_ns(),
                 .own_ns = cpu_time_ns(CLOCK_PROCESS_CPUTIME_ID) };
    clockid_t clock;

    if (server_pid && clock_getcpuclockid(server_pid, &clock) == 0) {
        c.server_ns = cpu_time_ns(clock);
    }
    return c;
}

static json_t *latency_json(const Histogram *h)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f}",
                     "mean", h->count ? h->sum / 1e3 / h->count : 0.0,
                     "p50", histogram_percentile(h, 0.5) / 1e3,
                     "p99", histogram_percentile(h, 0.99) / 1e3,
                     "p99.9", histogram_percentile(h, 0.999) / 1e3,
                     "max", h->max / 1e3);
}

/* Prints the result; the exit status. */
static int report(const Options *o, const BenchConfig *cfg,
                  const BenchWorker *workers, Clocks a, Clocks b)
{
    g_autofree Histogram *all = g_new0(Histogram, 1);
    uint64_t reads = 0, writes = 0, errors = 0, checked = 0, wrong = 0;
    uint64_t kicks = 0, calls = 0, n;
    double seconds = (b.wall_ns - a.wall_ns) / 1e9;
    json_t *out;
    int i;

    for (i = 0; i < o->queues; i++) {
        const BenchWorker *w = &workers[i];

        histogram_merge(all, &w->latency);
        reads += w->reads;
        writes += w->writes;
        errors += w->errors;
        checked += w->checked;
        wrong += w->wrong;
        kicks += w->ring->num_kicks;
        calls += w->ring->num_calls;
    }
    n = reads + writes;
    out = json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:I, s:I, s:f}",
                    "requests", n, "reads", reads, "writes", writes,
                    "seconds", seconds, "iops", n / seconds,
                    "bytes_per_second", n / seconds * cfg->block_size,
                    "latency_us", latency_json(all),
                    "kicks", kicks, "calls", calls,
                    "generator_cpu_s_per_million",
                    n ? (b.own_ns - a.own_ns) / 1e3 / n : 0.0);
    json_object_set_new(out, "errors", json_integer(errors));
    if (o->server_pid) {
        json_object_set_new(out, "server_cpu_s_per_million",
                            json_real(n ? (b.server_ns - a.server_ns) / 1e3 / n
                                        : 0));
        json_object_set_new(out, "server_cpu_fraction",
                            json_real((b.server_ns - a.server_ns) / 1e9 /
                                      seconds));
    }
    if (o->verify) {
        json_object_set_new(out, "checked_blocks", json_integer(checked));
        json_object_set_new(out, "wrong_blocks", json_integer(wrong));
    }
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
    return errors || wrong ? 1 : 0;
}

/* Runs the workers through their phases; 0, or 1 after a message. */
static int run(const Options *o, const BenchConfig *cfg, VufeFrontend *fe,
               BenchWorker *workers)
{
    Clocks before, after;
    int i;

    for (i = 0; i < o->queues; i++) {
        if (pthread_create(&workers[i].thread, NULL, bench_worker_run,
                           &workers[i]) != 0) {
            /* Started workers wait at the barrier for ever: leave at once. */
            fprintf(stderr, "vhost-bench: no thread for queue %d\n", i);
            exit(1);
        }
    }
    pthread_barrier_wait(cfg->barrier);
    before = read_clocks(o->server_pid);
    pthread_barrier_wait(cfg->barrier);
    pthread_barrier_wait(cfg->barrier);
    after = read_clocks(o->server_pid);
    for (i = 0; i < o->queues; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    for (i = 0; i < o->queues; i++) {
        if (workers[i].failure < 0) {
            fprintf(stderr, "vhost-bench: queue %d: %s\n", i,
                    g_strerror(-workers[i].failure));
            return 1;
        }
    }
    if (o->server_pid && after.server_ns == 0) {
        fprintf(stderr, "vhost-bench: no such process: %d\n", o->server_pid);
        return 1;
    }
    return report(o, cfg, workers, before, after);
}

int main(int argc, char **argv)
{
    Options o = { .queues = 1, .depth = 1, .queue_size = 128 };
    pthread_barrier_t barrier;
    BenchConfig cfg = { .warmup_s = 0.2, .run_s = 2, .barrier = &barrier };
    BenchWorker workers[VUFE_QUEUES_MAX];
    g_autoptr(VufeFrontend) fe = NULL;
    StampMap stamps;
    int64_t size;
    int i, ret;

    if (parse_options(&argc, &argv, &o, &cfg) < 0) {
        return 2;
    }
    fe = open_device(&o, &cfg);
    if (!fe) {
        return 1;
    }
    if (vufe_blk_get_size(fe, &size) < 0) {
        fprintf(stderr, "vhost-bench: %s\n", vufe_error(fe));
        return 1;
    }
    size = o.span > 0 && o.span < size ? o.span : size;
    if (size / o.queues < cfg.block_size) {
        fprintf(stderr, "vhost-bench: the disk is too small\n");
        return 1;
    }
    if (o.verify) {
        stamp_map_init(&stamps, size, bench_now_ns());
        cfg.stamps = &stamps;
    }
    pthread_barrier_init(&barrier, NULL, o.queues + 1);
    for (i = 0; i < o.queues; i++) {
        ret = bench_worker_init(&workers[i], &cfg, fe, i, o.queues, size);
        g_assert(ret == 0); /* open_device has counted the memory */
    }
    ret = run(&o, &cfg, fe, workers);
    for (i = 0; i < o.queues; i++) {
        bench_worker_destroy(&workers[i]);
    }
    if (o.verify) {
        stamp_map_destroy(&stamps);
    }
    pthread_barrier_destroy(&barrier);
    g_free(o.socket);
    g_free(o.rw);
    g_free(o.wait);
    return ret;
}
