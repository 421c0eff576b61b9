/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many users of one node at once, and every read compared with what the model
 * allows for the time it took.
 *
 * Half of the users are threads that make blocking calls; the others are event
 * loops that keep several requests in flight.  They use the backends in turn.
 * A round ends when all are done; then the whole disk is read and compared,
 * the image is closed, checked by the format's checker and opened again.
 */
#include "proof-int.h"
#include "qemu/atomic.h"
#include "qemu/thread.h"

#define MAX_BACKENDS 8

typedef struct User User;

/* One of the requests that an event loop keeps in flight. */
typedef struct Slot {
    BdrvTrackedRequest req;
    QEMUIOVector qiov;
    User *user;
    ModelOp op;
    uint8_t *buf;
} Slot;

struct User {
    ProofRunState *p;
    BlockBackend *blk;
    GRand *rand;
    GString *why;
    bool ok;                    /* of its thread, until it is done */
    QemuThread thread;          /* blocking */
    IOThread *io;               /* event loop; NULL: blocking */
    Slot *slots;
    int left;                   /* requests to be started */
    int in_flight;
    QemuEvent done;
};

/* ---- Blocking ---- */

static void *user_main(void *opaque)
{
    User *u = opaque;

    for (; u->ok && u->left; u->left--) {
        u->ok = proof_random_request(u->p, u->blk, u->rand, u->why);
    }
    qemu_event_set(&u->done);
    return NULL;
}

/* ---- An event loop ---- */

static const BdrvRequestType request_types[] = {
    [MODEL_READ] = BDRV_REQ_READ,
    [MODEL_WRITE] = BDRV_REQ_WRITE,
    [MODEL_ZEROES] = BDRV_REQ_WRITE_ZEROES,
    [MODEL_DISCARD] = BDRV_REQ_DISCARD,
    [MODEL_FLUSH] = BDRV_REQ_FLUSH,
};

static void slot_start(Slot *s);

static void slot_check(Slot *s, uint64_t now)
{
    User *u = s->user;

    if (s->req.ret < 0) {
        g_string_append_printf(u->why, "request of type %d at %" PRId64 ", %"
                               PRId64 " bytes: %s", s->op.type, s->op.offset,
                               s->op.bytes, strerror(-s->req.ret));
        u->ok = false;
    } else if (s->op.type == MODEL_READ) {
        u->ok = u->ok && model_check_read(u->p->model, &s->op, now, s->buf,
                                          u->why);
    }
}

static void slot_done(BdrvTrackedRequest *req)
{
    Slot *s = container_of(req, Slot, req);
    User *u = s->user;
    uint64_t now = write_log_mark(u->p->disk, s->op.type == MODEL_FLUSH);

    slot_check(s, now);
    model_op_end(u->p->model, &s->op, now, req->ret == 0);
    g_clear_pointer(&s->buf, g_free);
    u->in_flight--;
    if (u->ok && u->left) {
        slot_start(s);
    } else if (u->in_flight == 0) {
        qemu_event_set(&u->done);
    }
}

static void slot_start(Slot *s)
{
    User *u = s->user;
    ProofRunState *p = u->p;

    model_random_op(p->model, u->rand, &p->cfg.mix, &s->op);
    s->buf = g_malloc0(s->op.bytes + 1);
    s->req = (BdrvTrackedRequest){
        .type = request_types[s->op.type],
        .offset = s->op.offset,
        .bytes = s->op.bytes,
        .cb = slot_done,
    };
    if (s->op.type == MODEL_READ || s->op.type == MODEL_WRITE) {
        qemu_iovec_init_buf(&s->qiov, s->buf, s->op.bytes);
        s->req.qiov = &s->qiov;
    }
    u->left--;
    u->in_flight++;
    model_op_begin(p->model, &s->op, write_log_mark(p->disk, 0), s->buf);
    s->req.flags = proof_request_flags(p, &s->op);
    blk_aio_submit(u->blk, &s->req);
}

static void start_loop(void *opaque)
{
    User *u = opaque;
    int i;

    for (i = 0; i < u->p->cfg.depth && u->left; i++) {
        u->slots[i].user = u;
        slot_start(&u->slots[i]);
    }
}

static void nothing(void *opaque)
{
}

/* ---- Users ---- */

static void user_start(User *u)
{
    qemu_event_init(&u->done, false);
    if (u->io) {
        aio_run_sync(iothread_get_aio_context(u->io), start_loop, u);
    } else {
        g_assert_cmpint(qemu_thread_create(&u->thread, "user", user_main, u),
                        ==, 0);
    }
}

/* A request that never comes back is a failure, too: the test's time-out says
 * so, since nothing can be torn down under it. */
static void user_join(User *u)
{
    qemu_event_wait(&u->done);
    if (u->io) {
        /* The last callback has returned. */
        aio_run_sync(iothread_get_aio_context(u->io), nothing, NULL);
    } else {
        qemu_thread_join(&u->thread);
    }
    qemu_event_destroy(&u->done);
}

static void users_init(ProofRunState *p, User *users)
{
    int i;

    for (i = 0; i < p->cfg.threads; i++) {
        const guint32 seeds[] = { p->cfg.seed, i };

        users[i] = (User){ p, NULL, g_rand_new_with_seed_array(seeds, 2),
                           g_string_new(NULL), .ok = true };
        if (i % 2) {
            users[i].io = iothread_new("stress", &error_abort);
            users[i].slots = g_new0(Slot, p->cfg.depth);
        }
    }
}

static void users_destroy(ProofRunState *p, User *users)
{
    int i;

    for (i = 0; i < p->cfg.threads; i++) {
        if (users[i].io) {
            iothread_free(users[i].io);
        }
        g_free(users[i].slots);
        g_rand_free(users[i].rand);
        g_string_free(users[i].why, TRUE);
    }
}

/* ---- A round ---- */

static bool run_users(ProofRunState *p, User *users, BlockBackend **blks)
{
    bool ok = true;
    int i;

    for (i = 0; i < p->cfg.threads; i++) {
        users[i].blk = blks[i % p->cfg.backends];
        users[i].left = p->cfg.ops;
        user_start(&users[i]);
    }
    for (i = 0; i < p->cfg.threads; i++) {
        user_join(&users[i]);
        if (ok && !users[i].ok) {
            g_string_append(p->why, users[i].why->str);
            ok = false;
        }
    }
    return ok;
}

/* Nobody is there: what is on the disk is what it holds. */
static bool compare_all(ProofRunState *p)
{
    int64_t size = model_disk_size(p->model);
    g_autofree uint8_t *buf = g_malloc(size + 1);
    ModelOp op = { .type = MODEL_READ, .bytes = size };
    int ret;

    model_op_begin(p->model, &op, write_log_mark(p->disk, 0), NULL);
    ret = blk_pread(p->blk, 0, size, buf, 0);
    if (ret < 0) {
        g_string_append_printf(p->why, "reading all of it: %s",
                               strerror(-ret));
        return false;
    }
    p->result->checks++;
    if (!model_check_read(p->model, &op, write_log_mark(p->disk, 0), buf,
                          p->why)) {
        return false;
    }
    model_disk_settle(p->model, buf);
    return true;
}

/* More backends on the node of p->blk. */
static void add_backends(ProofRunState *p, BlockBackend **blks)
{
    int i;

    blks[0] = p->blk;
    for (i = 1; i < p->cfg.backends; i++) {
        blks[i] = blk_new(p->graph, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                          BLK_PERM_ALL);
        blk_insert_bs(blks[i], blk_bs(p->blk), &error_abort);
    }
}

/* With more backends on the node of p->blk. */
static bool run_on_backends(ProofRunState *p, User *users)
{
    BlockBackend *blks[MAX_BACKENDS];
    bool ok;
    int i;

    add_backends(p, blks);
    ok = run_users(p, users, blks);
    for (i = 1; i < p->cfg.backends; i++) {
        blk_unref(blks[i]);
    }
    return ok;
}

bool proof_run_users(ProofRunState *p)
{
    g_autofree User *users = g_new0(User, p->cfg.threads);
    bool ok;

    users_init(p, users);
    ok = run_on_backends(p, users);
    users_destroy(p, users);
    return ok;
}

static bool run_round(ProofRunState *p, User *users)
{
    ProofCheck c = { p->fmt, p->graph, p->disk, p->data, .why = p->why };
    bool ok;

    if (!proof_open_image(p)) {
        return false;
    }
    ok = run_on_backends(p, users) && compare_all(p);
    proof_close_image(p);
    if (!ok || (p->fmt->check && !p->fmt->check(&c))) {
        return false;
    }
    if (!proof_open_image(p)) {
        return false;
    }
    ok = compare_all(p);
    proof_close_image(p);
    return ok;
}

bool proof_run_stress(const ProofFormat *fmt, const ProofConfig *cfg,
                      ProofResult *result)
{
    ProofConfig c = *cfg;
    g_autofree User *users = NULL;
    ProofRunState p;
    int round;

    c.threads = c.threads ?: 6;
    users = g_new0(User, c.threads);
    g_assert_cmpint(c.backends, <=, MAX_BACKENDS);
    if (!proof_begin(&p, fmt, &c, result)) {
        return proof_end(&p);
    }
    write_log_stop(p.disk);
    if (p.data) {
        write_log_stop(p.data);
    }
    users_init(&p, users);
    for (round = 0; round < p.cfg.rounds; round++) {
        if (!run_round(&p, users)) {
            proof_save(p.disk->img);
            proof_fail(&p, "round %d", round);
            break;
        }
    }
    users_destroy(&p, users);
    return proof_end(&p);
}
