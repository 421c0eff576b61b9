/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors and reports.
 *
 * An Error is allocated whole when it is set and never shared, so it needs no
 * lock.  Its place of origin is kept only for &error_abort, which prints it.
 * A report is put together in memory and handed to stderr in one call, so that
 * reports of several threads do not mix within a line.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error.h"

struct Error {
    char *msg;
    GString *hint;          /* NULL: none */
    const char *file, *func;
    int line;
    ErrorClass cls;
    int os_errno;           /* positive, 0: none */
};

Error *error_abort;
Error *error_fatal;

void error_init(const char *argv0)
{
    g_autofree char *base = g_path_get_basename(argv0);

    g_set_prgname(base);
}

const char *error_get_progname(void)
{
    const char *name = g_get_prgname();

    return name ? name : "";
}

/* One report: "[PROGNAME: ][kind: ]text\n" and the hint. */
static void report(const char *kind, const char *text, const char *hint)
{
    const char *name = error_get_progname();
    g_autofree char *all = g_strconcat(name, *name ? ": " : "", kind, text,
                                       "\n", hint, NULL);

    fflush(stdout);
    fputs(all, stderr);
}

/* Act on the two special destinations; otherwise return. */
static void die_if_asked(Error **errp, Error *err)
{
    if (errp == &error_abort) {
        fprintf(stderr, "Unexpected error in %s() at %s:%d:\n",
                err->func, err->file, err->line);
        error_report_err(err);
        abort();
    }
    if (errp == &error_fatal) {
        error_report_err(err);
        exit(1);
    }
}

void error_set_internal(Error **errp, const char *file, int line,
                        const char *func, ErrorClass cls, int os_errno,
                        const char *fmt, ...)
{
    int saved_errno = errno;
    Error *err;
    va_list ap;

    if (!errp) {
        return;
    }
    /* error_abort and error_fatal stay NULL: nothing is ever stored there. */
    g_assert(!*errp);

    err = g_new0(Error, 1);
    va_start(ap, fmt);
    err->msg = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    err->file = file;
    err->line = line;
    err->func = func;
    err->cls = cls;
    err->os_errno = os_errno < 0 ? -os_errno : os_errno;
    if (err->os_errno) {
        char *old = err->msg;

        err->msg = g_strconcat(old, ": ", g_strerror(err->os_errno), NULL);
        g_free(old);
    }

    die_if_asked(errp, err);
    *errp = err;
    errno = saved_errno;
}

void error_propagate(Error **dst, Error *local)
{
    if (!local) {
        return;
    }
    die_if_asked(dst, local);
    if (dst && !*dst) {
        *dst = local;
    } else {
        error_free(local);
    }
}

static void G_GNUC_PRINTF(2, 0)
error_vprepend(Error *err, const char *fmt, va_list ap)
{
    g_autofree char *front = g_strdup_vprintf(fmt, ap);
    char *old = err->msg;

    err->msg = g_strconcat(front, old, NULL);
    g_free(old);
}

void error_propagate_prepend(Error **dst, Error *local, const char *fmt, ...)
{
    va_list ap;

    if (local) {
        va_start(ap, fmt);
        error_vprepend(local, fmt, ap);
        va_end(ap);
    }
    error_propagate(dst, local);
}

void error_prepend(Error **errp, const char *fmt, ...)
{
    va_list ap;

    if (errp && *errp) {
        va_start(ap, fmt);
        error_vprepend(*errp, fmt, ap);
        va_end(ap);
    }
}

void error_append_hint(Error **errp, const char *fmt, ...)
{
    int saved_errno = errno;
    va_list ap;

    if (errp && *errp) {
        Error *err = *errp;

        if (!err->hint) {
            err->hint = g_string_new(NULL);
        }
        va_start(ap, fmt);
        g_string_append_vprintf(err->hint, fmt, ap);
        va_end(ap);
    }
    errno = saved_errno;
}

const char *error_get_pretty(const Error *err)
{
    return err->msg;
}

const char *error_get_hint(const Error *err)
{
    return err->hint ? err->hint->str : "";
}

ErrorClass error_get_class(const Error *err)
{
    return err->cls;
}

const char *error_class_name(ErrorClass cls)
{
    static const char *const names[ERROR_CLASS__MAX] = {
        [ERROR_CLASS_GENERIC_ERROR] = "GenericError",
        [ERROR_CLASS_COMMAND_NOT_FOUND] = "CommandNotFound",
        [ERROR_CLASS_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
        [ERROR_CLASS_DEVICE_NOT_FOUND] = "DeviceNotFound",
        [ERROR_CLASS_KVM_MISSING_CAP] = "KVMMissingCap",
    };

    g_assert((unsigned int)cls < ERROR_CLASS__MAX);
    return names[cls];
}

int error_get_errno(const Error *err)
{
    return err->os_errno;
}

Error *error_copy(const Error *err)
{
    Error *copy;

    if (!err) {
        return NULL;
    }
    copy = g_new(Error, 1);
    *copy = *err;
    copy->msg = g_strdup(err->msg);
    copy->hint = err->hint ? g_string_new(err->hint->str) : NULL;
    return copy;
}

void error_free(Error *err)
{
    if (err) {
        g_free(err->msg);
        if (err->hint) {
            g_string_free(err->hint, TRUE);
        }
        g_free(err);
    }
}

void error_report_err(Error *err)
{
    report("", err->msg, error_get_hint(err));
    error_free(err);
}

void warn_report_err(Error *err)
{
    report("warning: ", err->msg, error_get_hint(err));
    error_free(err);
}

void error_reportf_err(Error *err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_vprepend(err, fmt, ap);
    va_end(ap);
    error_report_err(err);
}

static void G_GNUC_PRINTF(2, 0)
vreport(const char *kind, const char *fmt, va_list ap)
{
    g_autofree char *text = g_strdup_vprintf(fmt, ap);

    report(kind, text, "");
}

void error_vreport(const char *fmt, va_list ap)
{
    vreport("", fmt, ap);
}

void error_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vreport("", fmt, ap);
    va_end(ap);
}

void warn_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vreport("warning: ", fmt, ap);
    va_end(ap);
}

void info_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vreport("info: ", fmt, ap);
    va_end(ap);
}

bool warn_report_once_cond(bool *printed, const char *fmt, ...)
{
    va_list ap;

    if (qatomic_xchg(printed, true)) {
        return false;
    }
    va_start(ap, fmt);
    vreport("warning: ", fmt, ap);
    va_end(ap);
    return true;
}

void error_printf(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
}

void error_guard_end(ErrorGuard *g)
{
    error_propagate(g->caller, g->local);
}
