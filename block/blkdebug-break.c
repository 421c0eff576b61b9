/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug's break points.
 *
 * A break point is a rule; the request that reaches it takes the rule away and
 * sleeps, on a condition variable of its own, until somebody resumes the tag.
 * The sleep is bracketed, so that the pool can do without the worker; locks
 * that a caller of bdrv_debug_event() holds stay held, which is what a test of
 * that lock may want.
 */
#include "qemu/osdep.h"
#include "blkdebug-int.h"

/* A request that waits, on its stack: until all tags it stopped at are
 * resumed. */
typedef struct Suspension {
    int tags;
    QemuCond cond;
} Suspension;

typedef struct SuspendedTag {
    ListNode node;
    char *tag;
    Suspension *request;
} SuspendedTag;

/* ---- The request's side ---- */

/*
 * As qemu-io's users know it; but a test's output is for the test.  Written
 * under the lock, so that lines come in the order of events; stdout needs
 * nothing of ours.
 */
static void say(const char *what, const char *tag)
{
    if (!g_test_initialized()) {
        printf("blkdebug: %s request '%s'\n", what, tag);
        fflush(stdout);
    }
}

static void wait_resumed_locked(BDRVBlkdebugState *s, Suspension *request)
    REQUIRES(protocol_class)
{
    protocol_unlock(&s->lock);
    thread_pool_block_begin();
    protocol_lock(&s->lock);
    while (request->tags) {
        protocol_wait(&request->cond, &s->lock);
    }
    protocol_unlock(&s->lock);
    thread_pool_block_end();
    protocol_lock(&s->lock);
}

/* A break point holds one request: the rules become suspended tags. */
static void take_breaks_locked(BDRVBlkdebugState *s, int event,
                               Suspension *request)
    REQUIRES(protocol_class)
{
    BlkdebugRule *rule, *next;

    list_for_each_safe(rule, next, &s->rules[event], node) {
        SuspendedTag *t;

        if (rule->action != BLKDEBUG_SUSPEND) {
            continue;
        }
        t = g_new0(SuspendedTag, 1);
        t->tag = g_steal_pointer(&rule->tag);
        t->request = request;
        list_push_back(&s->suspended, &t->node);
        request->tags++;
        list_remove(&rule->node);
        blkdebug_rule_free(rule);
        say("Suspended", t->tag);
    }
}

void blkdebug_suspend_locked(BDRVBlkdebugState *s, int event)
{
    Suspension request = { 0 };

    take_breaks_locked(s, event, &request);
    if (request.tags) {
        qemu_cond_init(&request.cond);
        qemu_cond_broadcast(&s->suspended_cond);
        wait_resumed_locked(s, &request);
        qemu_cond_destroy(&request.cond);
    }
}

/* ---- The other side: one node ---- */

int blkdebug_node_break(BlockDriverState *bs, const char *event,
                        const char *tag)
{
    BDRVBlkdebugState *s = bs->opaque;
    int index = blkdebug_event_find(event);
    BlkdebugRule *rule;

    if (index < 0) {
        return -ENOENT;
    }
    rule = blkdebug_rule_new(BLKDEBUG_SUSPEND, index);
    rule->tag = g_strdup(tag);
    protocol_lock(&s->lock);
    list_push_back(&s->rules[index], &rule->node);
    protocol_unlock(&s->lock);
    return 0;
}

/* The oldest of those suspended as @tag; NULL: none. */
static SuspendedTag *find_suspended_locked(BDRVBlkdebugState *s,
                                           const char *tag)
    REQUIRES(protocol_class)
{
    SuspendedTag *t;

    list_for_each(t, &s->suspended, node) {
        if (!strcmp(t->tag, tag)) {
            return t;
        }
    }
    return NULL;
}

static bool resume_one_locked(BDRVBlkdebugState *s, const char *tag)
    REQUIRES(protocol_class)
{
    SuspendedTag *t = find_suspended_locked(s, tag);

    if (!t) {
        return false;
    }
    say("Resuming", t->tag);
    list_remove(&t->node);
    t->request->tags--;
    qemu_cond_signal(&t->request->cond);
    g_free(t->tag);
    g_free(t);
    return true;
}

int blkdebug_node_resume(BlockDriverState *bs, const char *tag)
{
    BDRVBlkdebugState *s = bs->opaque;
    bool found;

    protocol_lock(&s->lock);
    found = resume_one_locked(s, tag);
    protocol_unlock(&s->lock);
    return found ? 0 : -ENOENT;
}

static bool remove_breaks_locked(BDRVBlkdebugState *s, const char *tag)
    REQUIRES(protocol_class)
{
    bool found = false;
    BlkdebugRule *rule, *next;

    for (int i = 0; i < BLKDEBUG_EVENTS; i++) {
        list_for_each_safe(rule, next, &s->rules[i], node) {
            if (rule->action == BLKDEBUG_SUSPEND && !strcmp(rule->tag, tag)) {
                list_remove(&rule->node);
                blkdebug_rule_free(rule);
                found = true;
            }
        }
    }
    return found;
}

int blkdebug_node_remove_break(BlockDriverState *bs, const char *tag)
{
    BDRVBlkdebugState *s = bs->opaque;
    bool found;

    protocol_lock(&s->lock);
    found = remove_breaks_locked(s, tag);
    while (resume_one_locked(s, tag)) {
        found = true;
    }
    protocol_unlock(&s->lock);
    return found ? 0 : -ENOENT;
}

bool blkdebug_node_is_suspended(BlockDriverState *bs, const char *tag)
{
    BDRVBlkdebugState *s = bs->opaque;
    bool found;

    protocol_lock(&s->lock);
    found = find_suspended_locked(s, tag);
    protocol_unlock(&s->lock);
    return found;
}

/* ---- The other side: wherever blkdebug is ---- */

BlockDriverState *blkdebug_find_node(BlockDriverState *bs)
{
    while (bs && bs->drv->debug_resume != blkdebug_node_resume) {
        bs = bdrv_primary_bs(bs);
    }
    return bs;
}

int blkdebug_break(BlockDriverState *bs, const char *event, const char *tag)
{
    bs = blkdebug_find_node(bs);
    return bs ? blkdebug_node_break(bs, event, tag) : -ENOTSUP;
}

int blkdebug_resume(BlockDriverState *bs, const char *tag)
{
    bs = blkdebug_find_node(bs);
    return bs ? blkdebug_node_resume(bs, tag) : -ENOTSUP;
}

int blkdebug_remove_break(BlockDriverState *bs, const char *tag)
{
    bs = blkdebug_find_node(bs);
    return bs ? blkdebug_node_remove_break(bs, tag) : -ENOTSUP;
}

bool blkdebug_is_suspended(BlockDriverState *bs, const char *tag)
{
    bs = blkdebug_find_node(bs);
    return bs && blkdebug_node_is_suspended(bs, tag);
}

int blkdebug_wait_suspended(BlockDriverState *bs, const char *tag,
                            int64_t timeout_ns)
{
    int64_t end = qemu_clock_ns() + timeout_ns;
    BDRVBlkdebugState *s;
    int ret = 0;

    bs = blkdebug_find_node(bs);
    if (!bs) {
        return -ENOTSUP;
    }
    s = bs->opaque;
    protocol_lock(&s->lock);
    while (!ret && !find_suspended_locked(s, tag)) {
        int64_t left = end - qemu_clock_ns();

        if (timeout_ns < 0) {
            protocol_wait(&s->suspended_cond, &s->lock);
        } else if (left <= 0) {
            ret = -ETIMEDOUT;
        } else {
            protocol_timedwait(&s->suspended_cond, &s->lock, left);
        }
    }
    protocol_unlock(&s->lock);
    return ret;
}
