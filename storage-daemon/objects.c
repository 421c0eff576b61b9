/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --object: iothreads, and secrets for encrypted images.
 */
#include "qemu/osdep.h"
#include "crypto/secret.h"
#include "daemon.h"
#include "qemu/cutils.h"
#include "qemu/options.h"

typedef struct DaemonIOThread {
    char *id;
    IOThread *iothread;
} DaemonIOThread;

/* In order.  The main thread's, as all objects are the process's. */
static GPtrArray *iothreads;

typedef struct IOThreadProps {
    int64_t poll_max_ns;
    int64_t poll_grow;
    int64_t poll_shrink;
    int64_t aio_max_batch;
    int64_t thread_pool_min;
    int64_t thread_pool_max;
} IOThreadProps;

#define DEFAULT_POOL_MAX 64
#define DEFAULT_POLL_MAX_NS 32768   /* as the emulator's iothreads */

/* ---- iothread ---- */

static bool take_prop(json_t *opts, const char *key, int64_t *value,
                      Error **errp)
{
    g_autofree char *text = opt_take_str(opts, key);

    if (!text) {
        return true;
    }
    if (qemu_strtoi64(text, NULL, 0, value) < 0) {
        error_setg(errp, "Parameter '%s' expects integer", key);
        return false;
    }
    if (*value < 0) {
        error_setg(errp, "%s value must be in range [0, %" PRId64 "]", key,
                   INT64_MAX);
        return false;
    }
    return true;
}

static bool take_props(json_t *opts, IOThreadProps *p, Error **errp)
{
    *p = (IOThreadProps){ .thread_pool_max = DEFAULT_POOL_MAX,
                          .poll_max_ns = DEFAULT_POLL_MAX_NS };
    if (!take_prop(opts, "poll-max-ns", &p->poll_max_ns, errp) ||
        !take_prop(opts, "poll-grow", &p->poll_grow, errp) ||
        !take_prop(opts, "poll-shrink", &p->poll_shrink, errp) ||
        !take_prop(opts, "aio-max-batch", &p->aio_max_batch, errp) ||
        !take_prop(opts, "thread-pool-min", &p->thread_pool_min, errp) ||
        !take_prop(opts, "thread-pool-max", &p->thread_pool_max, errp)) {
        return false;
    }
    if (p->thread_pool_max == 0 || p->thread_pool_max > INT_MAX ||
        p->thread_pool_min > p->thread_pool_max) {
        error_setg(errp, "bad thread-pool-min/thread-pool-max values");
        return false;
    }
    return true;
}

typedef struct PollParams {
    AioContext *ctx;
    const IOThreadProps *props;
} PollParams;

/* In the iothread, which owns these parameters. */
static void set_poll_params(void *opaque)
{
    PollParams *p = opaque;

    aio_context_set_poll_params(p->ctx, p->props->poll_max_ns,
                                p->props->poll_grow, p->props->poll_shrink);
}

static IOThread *create_iothread(const char *id, const IOThreadProps *props,
                                 Error **errp)
{
    IOThread *iothread = iothread_new(id, errp);
    PollParams params;

    if (!iothread) {
        return NULL;
    }
    params.ctx = iothread_get_aio_context(iothread);
    params.props = props;
    aio_run_sync(params.ctx, set_poll_params, &params);
    aio_context_set_pool_limits(params.ctx, props->thread_pool_min,
                                props->thread_pool_max);
    if (props->aio_max_batch) {
        warn_report("aio-max-batch has no effect: a batch is what one "
                    "iteration of the loop submits");
    }
    return iothread;
}

static bool iothread_create(const char *id, json_t *opts, Error **errp)
{
    IOThreadProps props;
    IOThread *iothread;
    DaemonIOThread *entry;

    if (!take_props(opts, &props, errp)) {
        return false;
    }
    iothread = create_iothread(id, &props, errp);
    if (!iothread) {
        return false;
    }
    entry = g_new0(DaemonIOThread, 1);
    entry->id = g_strdup(id);
    entry->iothread = iothread;
    if (!iothreads) {
        iothreads = g_ptr_array_new();
    }
    g_ptr_array_add(iothreads, entry);
    return true;
}

static const ObjectProperty iothread_props[] = {
    { "aio-max-batch", "int" },
    { "poll-grow", "int" },
    { "poll-max-ns", "int" },
    { "poll-shrink", "int" },
    { "thread-pool-max", "int" },
    { "thread-pool-min", "int" },
    { NULL }
};

static const ObjectType iothread_object_type = {
    .name = "iothread",
    .props = iothread_props,
    .create = iothread_create,
};

/* ---- All objects ---- */

static const ObjectType *const object_types[] = {
    &iothread_object_type,
    &secret_object_type,
    NULL,
};

bool daemon_object_add(json_t *props, Error **errp)
{
    return user_creatable_add(object_types, props, errp);
}

bool daemon_add_object(const char *arg, Error **errp)
{
    bool help;

    if (!user_creatable_add_from_str(object_types, arg, &help, errp)) {
        return false;
    }
    if (help) {
        exit(0);
    }
    return true;
}

IOThread *daemon_find_iothread(void *opaque, const char *id)
{
    for (guint i = 0; iothreads && i < iothreads->len; i++) {
        DaemonIOThread *entry = g_ptr_array_index(iothreads, i);

        if (!strcmp(entry->id, id)) {
            return entry->iothread;
        }
    }
    return NULL;
}

void daemon_free_iothreads(void)
{
    for (guint i = 0; iothreads && i < iothreads->len; i++) {
        DaemonIOThread *entry = g_ptr_array_index(iothreads, i);

        iothread_free(entry->iothread);
        g_free(entry->id);
        g_free(entry);
    }
    g_clear_pointer(&iothreads, g_ptr_array_unref);
}
