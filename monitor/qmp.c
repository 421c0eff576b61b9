/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One client's QMP session: see qmp.h.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "qmp.h"
#include "qmp-input.h"
#include "qemu/options.h"
#include "qemu/qjson.h"
#include "qemu/thread.h"

/* With more than that to be written, nothing is read. */
#define MAX_PENDING (1 * MiB)
/* At the end, for a reader to take the rest. */
#define LAST_WAIT_MS 2000

struct QmpSession {
    AioContext *ctx;
    QEMUBH *next;               /* the next command, or the next read */
    int in, out;
    bool in_is_ready, out_is_ready;     /* always: files, /dev/null */
    bool pretty;
    bool negotiated;
    bool running;               /* a command: what it tells comes first */
    bool at_end;                /* it sends nothing more, but may still read */
    const QmpCommand *commands;
    void *opaque;
    void (*closed)(QmpSession *session, void *opaque);
    QmpInput input;
    GString *received;          /* commands that are not run yet */
    GString *pending;
};

static void on_readable(void *opaque);
static void on_next(void *opaque);
static void on_writable(void *opaque);

/* ---- Output ---- */

static void watch(QmpSession *s, bool read, bool write)
{
    static const AioHandlerOps reads = { .read = on_readable };
    static const AioHandlerOps writes = { .write = on_writable };
    static const AioHandlerOps both = { .read = on_readable,
                                        .write = on_writable };

    if (s->in == s->out) {
        aio_set_fd_handler(s->ctx, s->in, read && write ? &both :
                           write ? &writes : read ? &reads : NULL, s);
        return;
    }
    if (!s->in_is_ready) {
        aio_set_fd_handler(s->ctx, s->in, read ? &reads : NULL, s);
    }
    if (!s->out_is_ready) {
        aio_set_fd_handler(s->ctx, s->out, write ? &writes : NULL, s);
    }
}

static void update_handlers(QmpSession *s)
{
    bool has_room = s->pending->len < MAX_PENDING;
    bool read = has_room && !s->at_end && !s->received->len;

    if (has_room && !s->running &&
        (s->received->len || (read && s->in_is_ready))) {
        qemu_bh_schedule(s->next);
    }
    /* At the end also without anything to write: that closes the session. */
    watch(s, read, s->pending->len || s->at_end);
}

static void write_pending(QmpSession *s)
{
    while (s->pending->len) {
        ssize_t n = RETRY_ON_EINTR(write(s->out, s->pending->str,
                                         s->pending->len));

        if (n < 0) {
            if (errno != EAGAIN) {
                /* Its end of file will say so, too. */
                g_string_truncate(s->pending, 0);
            }
            return;
        }
        g_string_erase(s->pending, 0, n);
    }
}

/* After reading or writing: the session's last act, if there is no more. */
static void go_on(QmpSession *s)
{
    if (s->at_end && !s->pending->len) {
        s->closed(s, s->opaque);
    } else {
        update_handlers(s);
    }
}

static void on_writable(void *opaque)
{
    QmpSession *s = opaque;

    write_pending(s);
    go_on(s);
}

/* Uses @message up. */
static void send_message(QmpSession *s, json_t *message)
{
    g_autofree char *text = qobject_to_json(message, s->pretty);

    json_decref(message);
    g_string_append(s->pending, text);
    g_string_append(s->pending, "\r\n");
    write_pending(s);
}

static json_t *version(void)
{
    int major = 0, minor = 0, micro = 0;

    sscanf(PROGRAM_VERSION, "%d.%d.%d", &major, &minor, &micro);
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", major,
                     "minor", minor, "micro", micro, "package", "");
}

void qmp_session_event(QmpSession *s, const char *name, const json_t *data)
{
    int64_t now = g_get_real_time();

    if (s->negotiated) {
        send_message(s, json_pack("{s:{s:I, s:I}, s:s, s:O}", "timestamp",
                                  "seconds", (json_int_t)(now / G_USEC_PER_SEC),
                                  "microseconds",
                                  (json_int_t)(now % G_USEC_PER_SEC),
                                  "event", name, "data", data));
        update_handlers(s);
    }
}

/* ---- Commands ---- */

static json_t *negotiate(QmpSession *s, const json_t *args, Error **errp)
{
    static const char *const names[] = { "enable", NULL };
    const json_t *enable = json_object_get(args, "enable");

    if (s->negotiated) {
        error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND, "Capabilities "
                  "negotiation is already complete, command ignored");
        return NULL;
    }
    if (!opt_check_names(args, names, "", errp)) {
        return NULL;
    }
    if (json_array_size(enable)) {
        error_setg(errp, "This monitor has no capabilities to enable");
        return NULL;
    }
    s->negotiated = true;
    return json_object();
}

static json_t *list_commands(const QmpSession *s)
{
    json_t *list = json_array();

    for (const QmpCommand *c = s->commands; c->name; c++) {
        json_array_append_new(list, json_pack("{s:s}", "name", c->name));
    }
    for (const char *const *own = (const char *const[]){
             "qmp_capabilities", "query-commands", "query-version", NULL };
         *own; own++) {
        json_array_append_new(list, json_pack("{s:s}", "name", *own));
    }
    return list;
}

static json_t *run_program_command(QmpSession *s, const char *name,
                                   json_t *args, Error **errp)
{
    for (const QmpCommand *c = s->commands; c->name; c++) {
        if (g_str_equal(c->name, name)) {
            return !c->args || opt_check_names(args, c->args, "", errp) ?
                   c->run(s->opaque, args, errp) : NULL;
        }
    }
    error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
              "The command %s has not been found", name);
    return NULL;
}

static json_t *run_command(QmpSession *s, const char *name, json_t *args,
                           Error **errp)
{
    static const char *const none[] = { NULL };

    if (g_str_equal(name, "qmp_capabilities")) {
        return negotiate(s, args, errp);
    }
    if (!s->negotiated) {
        error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND, "Expecting capabilities "
                  "negotiation with 'qmp_capabilities'");
        return NULL;
    }
    if (g_str_equal(name, "query-version")) {
        return opt_check_names(args, none, "", errp) ? version() : NULL;
    }
    if (g_str_equal(name, "query-commands")) {
        return opt_check_names(args, none, "", errp) ? list_commands(s) : NULL;
    }
    return run_program_command(s, name, args, errp);
}

/* ---- Input ---- */

static bool check_message(const json_t *message, Error **errp)
{
    const json_t *args = json_object_get(message, "arguments");
    const char *key;
    json_t *value;

    if (!json_is_object(message)) {
        error_setg(errp, "QMP input must be a JSON object");
        return false;
    }
    json_object_foreach((json_t *)message, key, value) {
        if (!g_str_equal(key, "execute") && !g_str_equal(key, "arguments") &&
            !g_str_equal(key, "id")) {
            error_setg(errp, "QMP input member '%s' is unexpected", key);
            return false;
        }
    }
    if (!json_object_get(message, "execute")) {
        error_setg(errp, "QMP input lacks member 'execute'");
    } else if (!json_is_string(json_object_get(message, "execute"))) {
        error_setg(errp, "QMP input member 'execute' must be a string");
    } else if (args && !json_is_object(args)) {
        error_setg(errp, "QMP input member 'arguments' must be an object");
    } else {
        return true;
    }
    return false;
}

static json_t *execute(QmpSession *s, json_t *message, Error **errp)
{
    g_autoptr(json_t) args = NULL;

    if (!message || !check_message(message, errp)) {
        return NULL;
    }
    args = json_incref(json_object_get(message, "arguments")) ?:
           json_object();
    return run_command(s, json_string_value(json_object_get(message,
                                                            "execute")),
                       args, errp);
}

/* Uses @result and @err up. */
static json_t *answer(json_t *result, Error *err, json_t *id)
{
    static const char *const classes[] = {
        [ERROR_CLASS_GENERIC_ERROR] = "GenericError",
        [ERROR_CLASS_COMMAND_NOT_FOUND] = "CommandNotFound",
        [ERROR_CLASS_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
        [ERROR_CLASS_DEVICE_NOT_FOUND] = "DeviceNotFound",
        [ERROR_CLASS_KVM_MISSING_CAP] = "KVMMissingCap",
    };
    json_t *all = result ? json_pack("{s:o}", "return", result) :
                  json_pack("{s:{s:s, s:s}}", "error", "class",
                            classes[error_get_class(err)], "desc",
                            error_get_pretty(err));

    error_free(err);
    if (id) {
        json_object_set(all, "id", id);
    }
    return all;
}

static void on_value(void *opaque, const char *text, size_t len,
                     const char *why)
{
    g_autoptr(json_t) message = NULL;
    QmpSession *s = opaque;
    Error *err = NULL;
    json_t *result;

    if (why) {
        error_setg(&err, "JSON parse error, %s", why);
    } else {
        message = json_parse_qemu(text, len, &err);
    }
    result = execute(s, message, err ? NULL : &err);
    send_message(s, answer(result, err, json_object_get(message, "id")));
}

/*
 * One command, the others in the loop's next iterations: a job that it began
 * runs before them, as if they had been sent one by one.
 */
static void run_received(QmpSession *s)
{
    size_t n;

    s->running = true;
    n = qmp_input_feed(&s->input, s->received->str, s->received->len, on_value,
                       s);
    s->running = false;
    g_string_erase(s->received, 0, n);
}

static void on_readable(void *opaque)
{
    QmpSession *s = opaque;
    char buf[4096];
    ssize_t n = RETRY_ON_EINTR(read(s->in, buf, sizeof(buf)));

    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n > 0) {
        g_string_append_len(s->received, buf, n);
        run_received(s);
    } else {
        s->at_end = true;
    }
    go_on(s);
}

static void on_next(void *opaque)
{
    QmpSession *s = opaque;

    if (s->received->len) {
        run_received(s);
        go_on(s);
    } else if (s->in_is_ready) {
        on_readable(s);
    }
}

/* ---- Life ---- */

QmpSession *qmp_session_new(AioContext *ctx, int in, int out, bool pretty,
                            const QmpCommand *commands, void *opaque,
                            void (*closed)(QmpSession *session, void *opaque))
{
    QmpSession *s = g_new0(QmpSession, 1);

    *s = (QmpSession){
        .ctx = ctx, .in = in, .out = out, .pretty = pretty,
        .commands = commands, .opaque = opaque, .closed = closed,
        .received = g_string_new(NULL), .pending = g_string_new(NULL),
    };
    s->next = aio_bh_new(ctx, on_next, s, "qmp");
    s->in_is_ready = !aio_can_watch_fd(ctx, in);
    s->out_is_ready = !aio_can_watch_fd(ctx, out);
    qmp_input_init(&s->input);
    send_message(s, json_pack("{s:{s:o, s:[]}}", "QMP", "version", version(),
                              "capabilities"));
    update_handlers(s);
    return s;
}

/* Whoever reads gets it all, but nobody who does not, or as slowly as he can,
 * holds us up for long. */
static void write_last(QmpSession *s)
{
    int64_t end_ns = qemu_clock_ns() + LAST_WAIT_MS * INT64_C(1000000);
    int64_t left_ns = 1;

    write_pending(s);
    while (s->pending->len && left_ns > 0) {
        struct pollfd out = { .fd = s->out, .events = POLLOUT };

        left_ns = end_ns - qemu_clock_ns();
        (void)poll(&out, 1, CLAMP(left_ns, 0, end_ns) / 1000000);
        write_pending(s);
    }
}

void qmp_session_free(QmpSession *s)
{
    write_last(s);
    watch(s, false, false);
    qemu_bh_delete(s->next);
    close(s->in);
    if (s->out != s->in) {
        close(s->out);
    }
    qmp_input_destroy(&s->input);
    g_string_free(s->received, TRUE);
    g_string_free(s->pending, TRUE);
    g_free(s);
}
