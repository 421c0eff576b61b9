/*
 * qcow2: tables that nobody uses leave the caches ("cache-clean-interval").
 *
 * Every so many seconds what was not used since the last time is dropped, and
 * its memory given back.  One thread does that for all images of the process;
 * it is there as long as one is open that wants it.
 *
 * The list of images is behind clean_lock.  The thread lets go of it while it
 * cleans an image, which is marked as busy: who wants to remove that one waits.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2.h"
#include "qemu/thread.h"

struct Qcow2Cleaner {
    BDRVQcow2State *s;
    int64_t interval_us, due_us;    /* monotonic */
    bool busy;
    ListNode node;                  /* cleaners */
};

/* Who starts or ends the thread: of the control threads of several graphs, one
 * at a time.  Nothing else is taken before it, so it has no rank. */
static QemuMutex control_mutex = QEMU_MUTEX_INITIALIZER;
static LeafLock clean_lock = { .mutex = QEMU_MUTEX_INITIALIZER };
static List cleaners = LIST_INITIALIZER(cleaners);
/* Under control_mutex: whether the next two exist. */
static bool has_thread;
static QemuThread clean_thread;
static QemuCond clean_cond;

/* The one whose turn is first; NULL: there is none, so the thread ends. */
static Qcow2Cleaner *REQUIRES(leaf_class) next_cleaner(void)
{
    Qcow2Cleaner *c, *first = NULL;

    list_for_each(c, &cleaners, node) {
        if (!first || c->due_us < first->due_us) {
            first = c;
        }
    }
    return first;
}

static void clean(BDRVQcow2State *s)
{
    driver_lock(&s->lock);
    qcow2_cache_clean_unused(s->l2_cache);
    qcow2_cache_clean_unused(s->refcount_cache);
    driver_unlock(&s->lock);
}

static void *clean_main(void *opaque)
{
    Qcow2Cleaner *c;

    leaf_lock(&clean_lock);
    while ((c = next_cleaner())) {
        int64_t left_us = c->due_us - g_get_monotonic_time();

        if (left_us > 0) {
            leaf_timedwait(&clean_cond, &clean_lock, left_us * 1000);
            continue;
        }
        c->busy = true;
        leaf_unlock(&clean_lock);
        clean(c->s);
        leaf_lock(&clean_lock);
        c->busy = false;
        c->due_us = g_get_monotonic_time() + c->interval_us;
        qemu_cond_broadcast(&clean_cond);
    }
    leaf_unlock(&clean_lock);
    return NULL;
}

static bool start_thread(void)
{
    int ret;

    if (has_thread) {
        return true;
    }
    qemu_cond_init(&clean_cond);
    ret = qemu_thread_create(&clean_thread, "qcow2-clean", clean_main, NULL);
    if (ret < 0) {
        /* All works without it; it only takes more memory. */
        qemu_cond_destroy(&clean_cond);
        warn_report("qcow2: tables that are not used stay in memory: %s",
                    g_strerror(-ret));
    }
    has_thread = ret == 0;
    return has_thread;
}

static void stop(BDRVQcow2State *s)
{
    Qcow2Cleaner *c = g_steal_pointer(&s->cleaner);
    bool last;

    if (!c) {
        return;
    }
    leaf_lock(&clean_lock);
    while (c->busy) {
        leaf_wait(&clean_cond, &clean_lock);
    }
    list_remove(&c->node);
    last = list_is_empty(&cleaners) && has_thread;
    if (has_thread) {
        qemu_cond_broadcast(&clean_cond);
    }
    leaf_unlock(&clean_lock);
    g_free(c);
    if (last) {
        qemu_thread_join(&clean_thread);
        qemu_cond_destroy(&clean_cond);
        has_thread = false;
    }
}

static void start(BDRVQcow2State *s)
{
    /* As far as an int64_t goes; the option is bounded by it in seconds. */
    int64_t interval_us = MIN(s->cache_clean_interval_s,
                              (uint64_t)INT64_MAX / 4 / 1000000000) * 1000000;
    Qcow2Cleaner *c;

    if (!interval_us || s->cleaner) {
        return;
    }
    c = g_new0(Qcow2Cleaner, 1);
    c->s = s;
    c->interval_us = interval_us;
    c->due_us = g_get_monotonic_time() + interval_us;
    leaf_lock(&clean_lock);
    list_push_back(&cleaners, &c->node);
    if (has_thread) {
        qemu_cond_broadcast(&clean_cond);
    }
    leaf_unlock(&clean_lock);
    s->cleaner = c;
    if (!start_thread()) {
        stop(s);
    }
}

void qcow2_clean_start(BDRVQcow2State *s)
{
    qemu_mutex_lock(&control_mutex);
    start(s);
    qemu_mutex_unlock(&control_mutex);
}

void qcow2_clean_stop(BDRVQcow2State *s)
{
    qemu_mutex_lock(&control_mutex);
    stop(s);
    qemu_mutex_unlock(&control_mutex);
}
