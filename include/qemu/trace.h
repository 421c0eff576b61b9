/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trace points.
 *
 *     TRACE_EVENT(pool_submit);                 // once, at the top of a file
 *     …
 *     trace(pool_submit, "pool %p item %p", pool, item);
 *
 * While the event is off, which it is unless --trace names it, that costs one
 * relaxed load and a branch not taken; the arguments are not evaluated, so
 * they must have no side effects.  With CONFIG_SDT it is also a USDT probe
 * (provider "qemu", named as the event; a nop instruction until somebody
 * attaches, but its arguments are always computed: keep them cheap).
 *
 * Arguments: at most ten, integers and pointers.  The format is checked.
 *
 * Events register themselves before main, by a constructor: one that sits in
 * an object nobody links cannot fire, so it is no loss that it is not listed,
 * and a module's events come in when the module is loaded.
 */
#ifndef QEMU_TRACE_H
#define QEMU_TRACE_H

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error.h"

#ifdef CONFIG_SDT
#include <sys/sdt.h>
#endif

typedef struct TraceEvent {
    const char *name;
    bool enabled;               /* atomic */
    struct TraceEvent *next;    /* constant once registered */
} TraceEvent;

/* Make the event @name_ known to this file. */
#define TRACE_EVENT(name_)                                                   \
    static TraceEvent trace_event_##name_ = { .name = #name_ };              \
    static void __attribute__((constructor)) trace_register_##name_(void)    \
    {                                                                        \
        trace_event_register(&trace_event_##name_);                          \
    }                                                                        \
    struct trace_event_##name_##_takes_a_semicolon

/* Whether @name_ is on, for work that only a record needs. */
#define trace_enabled(name_)                                                 \
    unlikely(qatomic_read(&trace_event_##name_.enabled))

#define trace(name_, ...) do {                                               \
    trace_probe_(name_, __VA_ARGS__);                                        \
    if (trace_enabled(name_)) {                                              \
        trace_record(&trace_event_##name_, __VA_ARGS__);                     \
    }                                                                        \
} while (0)

/* Called by TRACE_EVENT. */
void trace_event_register(TraceEvent *ev);

/*
 * Called by trace(): write "PID.TID@seconds.micros:name text", where the log
 * goes, cut off at 1 KiB.  Preserves errno.
 */
void trace_record(const TraceEvent *ev, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3);

/*
 * Turn events on or off: @pattern is a name or a glob with * and ?; a leading
 * "-" turns off.  Returns how many events matched.  Also applies to events
 * that register later.  Any thread.
 */
unsigned int trace_enable_pattern(const char *pattern);

/*
 * The argument of -T/--trace: [[enable=]PATTERN][,events=FILE][,file=FILE].
 * events= names a file with a pattern a line ("#" starts a comment); file=
 * sends the records there instead of stderr.  A name that matches nothing is
 * warned about.  PATTERN "help" lists the events and exits the program.
 * May be called several times.  Fails for bad options and files.
 */
bool trace_opt_parse(const char *optstr, Error **errp);

/* The names of all events, sorted, one a line, to stdout. */
void trace_list_events(void);

/* The help of -T/--trace for a tool's usage text, two lines. */
#define QEMU_TRACE_HELP                                                      \
    "  -T, --trace [[enable=]<pattern>][,events=<file>][,file=<file>]\n"     \
    "                       specify tracing options\n"

/* --- USDT ---------------------------------------------------------------- */

#ifdef CONFIG_SDT
#define trace_nargs_(...)                                                    \
    trace_nargs_pick_(__VA_ARGS__, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define trace_nargs_pick_(a, b, c, d, e, f, g, h, i, j, k, n, ...) n
#define trace_paste_(a, b)  trace_paste2_(a, b)
#define trace_paste2_(a, b) a##b
#define trace_probe_(name, ...)                                              \
    trace_paste_(trace_probe_, trace_nargs_(__VA_ARGS__))(name, __VA_ARGS__)
#define trace_probe_0(name, fmt)      DTRACE_PROBE(qemu, name)
#define trace_probe_1(name, fmt, ...) DTRACE_PROBE1(qemu, name, __VA_ARGS__)
#define trace_probe_2(name, fmt, ...) DTRACE_PROBE2(qemu, name, __VA_ARGS__)
#define trace_probe_3(name, fmt, ...) DTRACE_PROBE3(qemu, name, __VA_ARGS__)
#define trace_probe_4(name, fmt, ...) DTRACE_PROBE4(qemu, name, __VA_ARGS__)
#define trace_probe_5(name, fmt, ...) DTRACE_PROBE5(qemu, name, __VA_ARGS__)
#define trace_probe_6(name, fmt, ...) DTRACE_PROBE6(qemu, name, __VA_ARGS__)
#define trace_probe_7(name, fmt, ...) DTRACE_PROBE7(qemu, name, __VA_ARGS__)
#define trace_probe_8(name, fmt, ...) DTRACE_PROBE8(qemu, name, __VA_ARGS__)
#define trace_probe_9(name, fmt, ...) DTRACE_PROBE9(qemu, name, __VA_ARGS__)
#define trace_probe_10(name, fmt, ...) DTRACE_PROBE10(qemu, name, __VA_ARGS__)
#else
#define trace_probe_(name, ...) ((void)0)
#endif

#endif
