/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors of the control path: a message for a person, a class for QMP, an
 * errno for callers that need one, and hints.
 *
 * A function that can fail takes "Error **errp" last and returns something
 * that says whether it failed (false, NULL, a negative int), so that nobody
 * has to look at *errp.  The caller passes
 *   - NULL, if it does not want to know more;
 *   - the address of an Error * that is NULL, and owns what appears there;
 *   - its own errp, to let its caller have it;
 *   - &error_fatal: report and exit(1);  &error_abort: report and abort().
 * An errp is set at most once: setting it twice is a bug, and asserted.
 *
 * Messages: one sentence without a full stop or newline.  Whoever reports adds
 * what it was doing (error_prepend).  Hints are whole lines, with newline.
 *
 * An Error belongs to one thread at a time.  The reporting functions may be
 * called by any thread; each report is one write to stderr.
 */
#ifndef QEMU_ERROR_H
#define QEMU_ERROR_H

#include "qemu/osdep.h"

typedef enum ErrorClass {
    ERROR_CLASS_GENERIC_ERROR,
    ERROR_CLASS_COMMAND_NOT_FOUND,
    ERROR_CLASS_DEVICE_NOT_ACTIVE,
    ERROR_CLASS_DEVICE_NOT_FOUND,
    ERROR_CLASS_KVM_MISSING_CAP,
    ERROR_CLASS__MAX,
} ErrorClass;

typedef struct Error Error;

/* Never read: only their addresses mean something (see above). */
extern Error *error_abort;
extern Error *error_fatal;

/*
 * The program's name in front of reports is @argv0's last component.  Call
 * first thing in main; a report before that has g_get_prgname() or nothing.
 */
void error_init(const char *argv0);

/* The name set by error_init, or "". */
const char *error_get_progname(void);

/* --- Setting ---------------------------------------------------------- */

/* Set *@errp, unless @errp is NULL, to an error with a formatted message. */
#define error_setg(errp, ...)                                                \
    error_set_internal((errp), __FILE__, __LINE__, __func__,                 \
                       ERROR_CLASS_GENERIC_ERROR, 0, __VA_ARGS__)

/*
 * The same, of class @cls.
 */
#define error_set(errp, cls, ...)                                            \
    error_set_internal((errp), __FILE__, __LINE__, __func__,                 \
                       (cls), 0, __VA_ARGS__)

/*
 * The same, generic, for a failed system call: @os_errno (an errno value, the
 * sign does not matter) is kept, and ": " and its text end the message unless
 * it is 0.  errno itself is preserved.
 */
#define error_setg_errno(errp, os_errno, ...)                                \
    error_set_internal((errp), __FILE__, __LINE__, __func__,                 \
                       ERROR_CLASS_GENERIC_ERROR, (os_errno), __VA_ARGS__)

/* For opening a file: "Could not open 'x'" with the errno's text. */
#define error_setg_file_open(errp, os_errno, filename)                       \
    error_setg_errno((errp), (os_errno), "Could not open '%s'", (filename))

void error_set_internal(Error **errp, const char *file, int line,
                        const char *func, ErrorClass cls, int os_errno,
                        const char *fmt, ...) G_GNUC_PRINTF(7, 8);

/*
 * Give @local to the caller: store it in *@dst, or free it if @dst is NULL or
 * holds an error already (the first error wins), or act as error_fatal and
 * error_abort ask.  @local may be NULL.  Takes ownership.
 */
void error_propagate(Error **dst, Error *local);

/* The same with text in front of the message. */
void error_propagate_prepend(Error **dst, Error *local,
                             const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/*
 * Put text in front of the message of *@errp; nothing if there is none.  With
 * an errp of the caller's, the function needs ERRP_GUARD() first.
 */
void error_prepend(Error **errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* Append to the hint of *@errp, as error_prepend. */
void error_append_hint(Error **errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* --- Looking ---------------------------------------------------------- */

/* The message, without hint; belongs to @err. */
const char *error_get_pretty(const Error *err);

/* The hint, "" without one; belongs to @err. */
const char *error_get_hint(const Error *err);

ErrorClass error_get_class(const Error *err);

/* The class's QMP name: "GenericError" and so on. */
const char *error_class_name(ErrorClass cls);

/* Positive errno of the cause; 0 if there is none. */
int error_get_errno(const Error *err);

/* A copy for the caller to free; NULL of NULL. */
Error *error_copy(const Error *err);

/* Free @err; NULL is fine. */
void error_free(Error *err);

/* --- Reporting to stderr ---------------------------------------------- */

/* "PROGNAME: message", then the hint; frees @err. */
void error_report_err(Error *err);

/* "PROGNAME: warning: message", then the hint; frees @err. */
void warn_report_err(Error *err);

/* error_report_err with text in front of the message; frees @err. */
void error_reportf_err(Error *err, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* "PROGNAME: message", "PROGNAME: warning: ...", "PROGNAME: info: ...". */
void error_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void warn_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void info_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void error_vreport(const char *fmt, va_list ap) G_GNUC_PRINTF(1, 0);

/* warn_report, but only the first time that this *@printed is seen. */
bool warn_report_once_cond(bool *printed,
                           const char *fmt, ...) G_GNUC_PRINTF(2, 3);
#define warn_report_once(...) ({                                             \
    static bool warned_;                                                     \
    warn_report_once_cond(&warned_, __VA_ARGS__); })

/* Text to stderr as it is, to go on after a report. */
void error_printf(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* --- Guards ----------------------------------------------------------- */

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Error, error_free)

typedef struct ErrorGuard {
    Error **caller;
    Error *local;
} ErrorGuard;

void error_guard_end(ErrorGuard *g);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ErrorGuard, error_guard_end)

/*
 * First statement of a function with a parameter "errp" that reads *errp, or
 * that prepends or hints to it: after it errp is never NULL nor &error_fatal,
 * and what it holds goes to the caller when the function returns.
 */
#define ERRP_GUARD()                                                         \
    g_auto(ErrorGuard) errp_guard_ = { .caller = errp };                     \
    do {                                                                     \
        if (!errp || errp == &error_fatal) {                                 \
            errp = &errp_guard_.local;                                       \
        }                                                                    \
    } while (0)

#endif
