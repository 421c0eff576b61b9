/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trace events: the list of them, which are on, and their records.
 *
 * Events come in before main (constructors), or later with a module; patterns
 * come from the command line.  An event that comes later than a pattern must
 * obey it, and the two may even cross, so both are lists that only grow at the
 * front, by compare-and-swap.  Each side first adds its own and then goes
 * through the other's: in any interleaving at least one meets the other.  For
 * an event that looks through the patterns, the youngest that matches decides.
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/options.h"
#include "qemu/trace.h"

#ifdef __linux__
#include <sys/syscall.h>
#endif

/* Longest record; what is more is cut off. */
#define RECORD_MAX 1024

typedef struct TracePattern {
    char *glob;
    bool enable;
    struct TracePattern *next;
} TracePattern;

static TraceEvent *events;
static TracePattern *patterns;

/* --- Events and patterns ----------------------------------------------- */

/* Glob with * and ? only; [ and the like are ordinary. */
static bool glob_match(const char *glob, const char *name)
{
    const char *star = NULL, *retry = NULL;

    while (*name) {
        if (*glob == '*') {
            star = ++glob;
            retry = name;
        } else if (*glob == '?' || *glob == *name) {
            glob++;
            name++;
        } else if (star) {
            /* Let the last star swallow one more. */
            glob = star;
            name = ++retry;
        } else {
            return false;
        }
    }
    while (*glob == '*') {
        glob++;
    }
    return !*glob;
}

void trace_event_register(TraceEvent *ev)
{
    TraceEvent *head;

    do {
        head = qatomic_load_acquire(&events);
        ev->next = head;
    } while (qatomic_cmpxchg(&events, head, ev) != head);

    for (TracePattern *p = qatomic_load_sc(&patterns); p; p = p->next) {
        if (glob_match(p->glob, ev->name)) {
            qatomic_set(&ev->enabled, p->enable);
            return;
        }
    }
}

unsigned int trace_enable_pattern(const char *pattern)
{
    TracePattern *p = g_new0(TracePattern, 1), *head;
    unsigned int count = 0;

    p->enable = pattern[0] != '-';
    p->glob = g_strdup(pattern + !p->enable);
    do {
        head = qatomic_load_acquire(&patterns);
        p->next = head;
    } while (qatomic_cmpxchg(&patterns, head, p) != head);

    for (TraceEvent *ev = qatomic_load_sc(&events); ev; ev = ev->next) {
        if (glob_match(p->glob, ev->name)) {
            qatomic_set(&ev->enabled, p->enable);
            count++;
        }
    }
    return count;
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void trace_list_events(void)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    for (TraceEvent *ev = qatomic_load_acquire(&events); ev; ev = ev->next) {
        g_ptr_array_add(names, (char *)ev->name);
    }
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++) {
        /* Files that share an event have each registered it. */
        if (i == 0 || !g_str_equal(names->pdata[i], names->pdata[i - 1])) {
            printf("%s\n", (char *)names->pdata[i]);
        }
    }
}

/* --- Records ----------------------------------------------------------- */

/* The system's number of this thread, as top -H and gdb show it. */
static long thread_id(void)
{
    static _Thread_local long id;

    if (!id) {
#if defined(_WIN32)
        id = GetCurrentThreadId();
#elif defined(__linux__)
        id = syscall(SYS_gettid);
#else
        id = getpid();
#endif
    }
    return id;
}

void trace_record(const TraceEvent *ev, const char *fmt, ...)
{
    int saved_errno = errno;
    int64_t now = g_get_real_time();
    char rec[RECORD_MAX];
    size_t len;
    va_list ap;

    len = snprintf(rec, sizeof(rec) / 2, "%d.%ld@%" PRId64 ".%06d:%.256s ",
                   (int)getpid(), thread_id(), now / G_USEC_PER_SEC,
                   (int)(now % G_USEC_PER_SEC), ev->name);
    va_start(ap, fmt);
    len += vsnprintf(rec + len, sizeof(rec) - len, fmt, ap);
    va_end(ap);
    len = MIN(len, sizeof(rec) - 1);
    rec[len++] = '\n';
    qemu_log_write(rec, len);
    errno = saved_errno;
}

/* --- The option -------------------------------------------------------- */

/* Apply one pattern; @where ("" or "file:line: ") goes before a warning. */
static void apply(const char *pattern, const char *where)
{
    if (trace_enable_pattern(pattern) == 0 && !strpbrk(pattern, "*?")) {
        warn_report("%strace event '%s' does not exist", where,
                    pattern + (pattern[0] == '-'));
    }
}

static bool apply_file(const char *filename, Error **errp)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    FILE *f = fopen(filename, "r");
    GString *all;
    int c;

    if (!f) {
        error_setg_errno(errp, errno, "%s", filename);
        return false;
    }
    all = g_string_new(NULL);
    while ((c = getc(f)) != EOF) {
        g_string_append_c(all, c);
    }
    text = g_string_free(all, FALSE);
    if (ferror(f)) {
        error_setg_errno(errp, EIO, "%s", filename);
        fclose(f);
        return false;
    }
    fclose(f);

    lines = g_strsplit(text, "\n", -1);
    for (int i = 0; lines[i]; i++) {
        g_autofree char *where = g_strdup_printf("%s:%d: ", filename, i + 1);
        const char *line = g_strstrip(lines[i]);

        if (*line && *line != '#') {
            apply(line, where);
        }
    }
    return true;
}

bool trace_opt_parse(const char *optstr, Error **errp)
{
    g_autoptr(json_t) o = qemu_opts_parse_legacy(optstr, "enable", true, NULL,
                                                 errp);
    g_autofree char *enable = NULL;
    g_autofree char *from = NULL;
    g_autofree char *to = NULL;

    if (!o) {
        return false;
    }
    enable = opt_take_str(o, "enable");
    from = opt_take_str(o, "events");
    to = opt_take_str(o, "file");
    if (!opt_check_unused(o, errp)) {
        return false;
    }
    if (enable && (g_str_equal(enable, "help") || g_str_equal(enable, "?"))) {
        trace_list_events();
        exit(0);
    }
    if (to && !qemu_log_set_file(to, errp)) {
        return false;
    }
    if (from && !apply_file(from, errp)) {
        return false;
    }
    if (enable) {
        apply(enable, "");
    }
    return true;
}
