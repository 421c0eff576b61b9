/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SIGKILL of a real daemon under load, again and again on one image.
 *
 * Each round: start the daemon, let a front end with a thread per queue read
 * and write at random, kill the daemon at a random moment, run the command that
 * checks the image, start the daemon again and read the disk.  The model says
 * what may be there: everything that was flushed, and with --loses-nothing (the
 * default for raw) everything that had completed.
 *
 * usage: test-proof-kill [option…] DAEMON
 *   --format=F        driver of the disk [raw]
 *   --options=O       more options of its node, ",key=value…"
 *   --create=COMMAND  a shell command that makes $IMAGE [truncate]
 *   --check=COMMAND   a shell command that says whether $IMAGE is right
 *   --size=BYTES, --queues=N, --rounds=N, --seed=N, --loses-nothing
 */
#include "daemon-proc.h"
#include "model-disk.h"
#include "proof.h"
#include "qemu/atomic.h"
#include "qemu/thread.h"
#include "vufe-blk.h"

#include <sys/wait.h>

#define CHUNK (1 << 20)
/* A front end notices a dead daemon by waiting so long. */
#define TIMEOUT_MS 2000
#define MAX_QUEUES 8
#define MAX_DELAY_US 700000

static char *format, *node_options, *create_command, *check_command;
static gint64 disk_size = 16 << 20;
static int num_queues = 3, num_rounds;
static gboolean loses_nothing;
static const char *program;

typedef struct Run {
    DaemonProc *d;
    char *image;
    char *socket;
    ModelDisk *model;
    uint64_t clock;             /* atomic */
    uint32_t seed;
} Run;

typedef struct Queue {
    Run *r;
    VufeFrontend *fe;
    unsigned index;
    GRand *rand;
    GString *why;
    bool ok;
    int completed;
    QemuThread thread;
} Queue;

static uint64_t tick(Run *r)
{
    return qatomic_fetch_inc(&r->clock) + 1;
}

/* ---- Load ---- */

static int do_request(Queue *q, const ModelOp *op, void *buf)
{
    switch (op->type) {
    case MODEL_READ:
        return vufe_blk_read(q->fe, q->index, op->offset, buf, op->bytes);
    case MODEL_WRITE:
        return vufe_blk_write(q->fe, q->index, op->offset, buf, op->bytes);
    case MODEL_ZEROES:
        return vufe_blk_write_zeroes(q->fe, q->index, op->offset, op->bytes,
                                     op->id % 2);
    case MODEL_DISCARD:
        return vufe_blk_discard(q->fe, q->index, op->offset, op->bytes);
    case MODEL_FLUSH:
        return vufe_blk_flush(q->fe, q->index);
    default:
        g_assert_not_reached();
    }
}

/* False: no answer any more, or a wrong one. */
static bool run_request(Queue *q)
{
    static const ModelMix mix = { .hot_bytes = 1 << 20 };
    g_autofree uint8_t *buf = NULL;
    uint64_t now;
    ModelOp op;
    int ret;

    model_random_op(q->r->model, q->rand, &mix, &op);
    buf = g_malloc0(op.bytes + 1);
    model_op_begin(q->r->model, &op, tick(q->r), buf);
    ret = do_request(q, &op, buf);
    if (ret < 0) {
        /* It may have happened or not: for the model it never ends. */
        return false;
    }
    now = tick(q->r);
    if (ret > 0) {
        g_string_append_printf(q->why, "request of type %d at %" PRId64
                               ": status %d", op.type, op.offset, ret);
        q->ok = false;
    } else if (op.type == MODEL_READ) {
        q->ok = model_check_read(q->r->model, &op, now, buf, q->why);
    }
    model_op_end(q->r->model, &op, now, ret == 0);
    q->completed++;
    return q->ok;
}

static void *queue_main(void *opaque)
{
    Queue *q = opaque;

    while (run_request(q)) {
        /* until it dies */
    }
    return NULL;
}

/* ---- The daemon ---- */

static VufeFrontend *connect_to(Run *r)
{
    VufeOptions opts = { .num_queues = num_queues, .indirect = true,
                         .timeout_ms = TIMEOUT_MS };
    g_autofree char *msg = NULL;
    VufeFrontend *fe = vufe_open(r->socket, &opts, &msg);

    if (!fe) {
        g_error("%s: %s", r->socket, msg);
    }
    return fe;
}

static void start_queue(Run *r, Queue *q, VufeFrontend *fe, int round, int i)
{
    const guint32 seeds[] = { r->seed, round, i };

    *q = (Queue){ r, fe, i, g_rand_new_with_seed_array(seeds, 3),
                  g_string_new(NULL), true };
    g_assert_cmpint(vufe_blk_prepare(fe, i), ==, 0);
    g_assert_cmpint(qemu_thread_create(&q->thread, "queue", queue_main, q), ==,
                    0);
}

/* Returns the requests that were answered. */
static int run_until_killed(Run *r, int round, GRand *rand)
{
    VufeFrontend *fe;
    Queue queues[MAX_QUEUES];
    int completed = 0;
    int i;

    daemon_proc_start(r->d);
    fe = connect_to(r);
    for (i = 0; i < num_queues; i++) {
        start_queue(r, &queues[i], fe, round, i);
    }
    g_usleep(g_rand_int_range(rand, 1000, MAX_DELAY_US));
    daemon_proc_kill(r->d);
    for (i = 0; i < num_queues; i++) {
        Queue *q = &queues[i];

        qemu_thread_join(&q->thread);
        if (!q->ok) {
            g_test_message("queue %d: %s", i, q->why->str);
            g_test_fail();
        }
        completed += q->completed;
        g_string_free(q->why, TRUE);
        g_rand_free(q->rand);
    }
    vufe_close(fe);
    return completed;
}

/* ---- Afterwards ---- */

static void run_shell(const char *command)
{
    const char *const argv[] = { "sh", "-c", command, NULL };
    g_autofree char *out = NULL;
    g_autofree char *err = NULL;
    int status = -1;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH,
                               NULL, NULL, &out, &err, &status, NULL));
    if (status != 0) {
        g_test_message("%s: wait status %d\n%s%s", command, status, out, err);
        g_test_fail();
    }
}

static uint8_t *read_disk(Run *r)
{
    VufeFrontend *fe;
    uint8_t *disk = g_malloc(disk_size);
    int64_t at;

    daemon_proc_start(r->d);
    fe = connect_to(r);
    for (at = 0; at < disk_size; at += CHUNK) {
        g_assert_cmpint(vufe_blk_read(fe, 0, at, disk + at,
                                      MIN(CHUNK, disk_size - at)), ==, 0);
    }
    vufe_close(fe);
    daemon_proc_stop(r->d);
    return disk;
}

static void check_disk(Run *r)
{
    g_autofree uint8_t *disk = NULL;
    g_autoptr(GString) why = g_string_new(NULL);
    bool ok;

    if (check_command) {
        run_shell(check_command);
    }
    disk = read_disk(r);
    ok = loses_nothing ?
         model_check_kill(r->model, tick(r), 0, disk_size, disk, why) :
         model_check_crash(r->model, tick(r), 0, disk_size, disk, why);
    if (!ok) {
        g_test_message("%s --seed=%u", why->str, r->seed);
        g_test_fail();
    }
    model_disk_settle(r->model, disk);
}

/* ---- All of it ---- */

static void make_image(Run *r)
{
    g_autofree char *queues = g_strdup_printf(",num-queues=%d", num_queues);

    r->image = daemon_proc_file(r->d, "image", create_command ? 0 : disk_size);
    g_setenv("IMAGE", r->image, TRUE);
    if (create_command) {
        run_shell(create_command);
    }
    daemon_proc_arg(r->d, "--blockdev", "driver=file,node-name=file0,"
                    "discard=unmap,filename=%s", r->image);
    daemon_proc_arg(r->d, "--blockdev", "driver=%s,node-name=disk0,file=file0,"
                    "discard=unmap%s", format, node_options ?: "");
    daemon_proc_export(r->d, "exp0", "disk0", queues);
    r->socket = daemon_proc_path(r->d, "exp0");
}

static void test_kill(void)
{
    Run r = { .d = daemon_proc_new(program), .seed = proof_seed() };
    g_autoptr(GRand) rand = g_rand_new_with_seed(r.seed);
    int completed = 0;
    int i;

    r.model = model_disk_new(disk_size, 0, r.seed, MODEL_DISCARD_MAYBE);
    model_disk_allow_tearing(r.model);
    make_image(&r);
    for (i = 0; i < num_rounds && !g_test_failed(); i++) {
        completed += run_until_killed(&r, i, rand);
        check_disk(&r);
    }
    g_test_message("seed %u: killed %d times, %d requests were answered",
                   r.seed, i, completed);
    g_assert_cmpint(completed, >, 0);
    model_disk_free(r.model);
    daemon_proc_free(r.d);
    g_free(r.image);
    g_free(r.socket);
}

static void parse_options(int *argc, char ***argv)
{
    const GOptionEntry entries[] = {
        { "format", 0, 0, G_OPTION_ARG_STRING, &format, "", "" },
        { "options", 0, 0, G_OPTION_ARG_STRING, &node_options, "", "" },
        { "create", 0, 0, G_OPTION_ARG_STRING, &create_command, "", "" },
        { "check", 0, 0, G_OPTION_ARG_STRING, &check_command, "", "" },
        { "size", 0, 0, G_OPTION_ARG_INT64, &disk_size, "", "" },
        { "queues", 0, 0, G_OPTION_ARG_INT, &num_queues, "", "" },
        { "rounds", 0, 0, G_OPTION_ARG_INT, &num_rounds, "", "" },
        { "loses-nothing", 0, 0, G_OPTION_ARG_NONE, &loses_nothing, "", "" },
        { NULL }
    };
    g_autoptr(GOptionContext) ctx = g_option_context_new("DAEMON");
    g_autoptr(GError) err = NULL;

    g_option_context_add_main_entries(ctx, entries, NULL);
    if (!g_option_context_parse(ctx, argc, argv, &err) || *argc != 2 ||
        num_queues < 1 || num_queues > MAX_QUEUES || disk_size < CHUNK ||
        disk_size % CHUNK) {
        fprintf(stderr, "test-proof-kill: %s\n",
                err ? err->message : "bad usage: see its source");
        exit(2);
    }
    program = (*argv)[1];
    num_rounds = num_rounds ?: 3 * proof_scale();
    if (!format) {
        format = g_strdup("raw");
        loses_nothing = true;
    }
}

int main(int argc, char **argv)
{
    proof_init(&argc, &argv);
    g_test_init(&argc, &argv, NULL);
    parse_options(&argc, &argv);
    g_test_add_func("/proof/kill-daemon", test_kill);
    return g_test_run();
}
