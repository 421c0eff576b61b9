/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --object: iothreads.
 */
#include "qemu/osdep.h"
#include "daemon.h"
#include "qemu/cutils.h"
#include "qemu/options.h"

typedef struct DaemonObject {
    char *id;
    IOThread *iothread;
} DaemonObject;

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

/* ---- Help ---- */

static void NORETURN print_types(void)
{
    printf("List of user creatable objects:\n  iothread\n");
    exit(0);
}

static void NORETURN print_iothread_help(void)
{
    printf("iothread options:\n"
           "  aio-max-batch=<int>\n"
           "  poll-grow=<int>\n"
           "  poll-max-ns=<int>\n"
           "  poll-shrink=<int>\n"
           "  thread-pool-max=<int>\n"
           "  thread-pool-min=<int>\n");
    exit(0);
}

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

/* ---- All objects ---- */

static DaemonObject *find_object(Daemon *d, const char *id)
{
    for (int i = 0; i < d->objects->len; i++) {
        DaemonObject *object = g_ptr_array_index(d->objects, i);

        if (!strcmp(object->id, id)) {
            return object;
        }
    }
    return NULL;
}

static bool is_identifier(const char *id)
{
    return g_ascii_isalpha(id[0]) &&
           strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                  "0123456789-._") == strlen(id);
}

static bool check_id(Daemon *d, const char *id, Error **errp)
{
    ERRP_GUARD();

    if (!is_identifier(id)) {
        error_setg(errp, "Parameter 'id' expects an identifier");
        error_append_hint(errp, "Identifiers consist of letters, digits, "
                          "'-', '.', '_', starting with a letter.\n");
        return false;
    }
    if (find_object(d, id)) {
        error_setg(errp, "attempt to add duplicate property '%s' to object "
                   "(type 'container')", id);
        return false;
    }
    return true;
}

static bool add_iothread(Daemon *d, json_t *opts, Error **errp)
{
    g_autofree char *id = opt_take_str_required(opts, "id", errp);
    IOThreadProps props;
    IOThread *iothread;
    DaemonObject *object;
    const char *unused;

    if (!id || !take_props(opts, &props, errp)) {
        return false;
    }
    unused = opt_first_unused(opts);
    if (unused) {
        error_setg(errp, "Parameter '%s' is unexpected", unused);
        return false;
    }
    if (!check_id(d, id, errp)) {
        return false;
    }
    iothread = create_iothread(id, &props, errp);
    if (!iothread) {
        return false;
    }
    object = g_new0(DaemonObject, 1);
    object->id = g_steal_pointer(&id);
    object->iothread = iothread;
    g_ptr_array_add(d->objects, object);
    return true;
}

bool daemon_add_object(Daemon *d, const char *arg, Error **errp)
{
    bool help = false;
    g_autoptr(json_t) opts = options_parse(arg, "qom-type", &help, errp);
    g_autofree char *type = NULL;

    if (!opts) {
        return false;
    }
    if (help && g_strcmp0(opt_peek_str(opts, "qom-type"), "iothread")) {
        print_types();
    } else if (help) {
        print_iothread_help();
    }
    type = opt_take_str_required(opts, "qom-type", errp);
    if (!type) {
        return false;
    }
    if (strcmp(type, "iothread")) {
        error_setg(errp, "Parameter 'qom-type' does not accept value '%s'",
                   type);
        return false;
    }
    return add_iothread(d, opts, errp);
}

IOThread *daemon_find_iothread(void *opaque, const char *id)
{
    DaemonObject *object = find_object(opaque, id);

    return object ? object->iothread : NULL;
}

void daemon_free_objects(Daemon *d)
{
    for (int i = 0; i < d->objects->len; i++) {
        DaemonObject *object = g_ptr_array_index(d->objects, i);

        iothread_free(object->iothread);
        g_free(object->id);
        g_free(object);
    }
    g_ptr_array_unref(d->objects);
}
