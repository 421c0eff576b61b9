/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON in QEMU's dialect: strings may have single quotes.
 *
 * The text is rewritten to plain JSON by a scanner that knows no more than
 * where strings and numbers begin and end, and jansson does the rest: it
 * refuses duplicate keys, invalid UTF-8 and whatever is malformed, so the
 * scanner can be generous.  Two more things are done on the way.  Nesting is
 * limited, since the text may come from an image; and an integer that jansson's
 * signed 64 bits do not hold becomes a string, which opt_take_u64 reads.
 */
#include "qemu/osdep.h"
#include "options-tree.h"

/* The string that starts at @p, its quote, into @out; returns its end. */
static const char *copy_string(GString *out, const char *p, const char *end)
{
    char quote = *p++;

    g_string_append_c(out, '"');
    for (; p < end && *p != quote; p++) {
        if (*p == '\\' && p + 1 < end) {
            p++;
            if (*p != '\'') {
                g_string_append_c(out, '\\');
            }
        } else if (*p == '"') {
            g_string_append_c(out, '\\');
        }
        g_string_append_c(out, *p);
    }
    if (p == end) {
        return p;       /* unterminated, and so it stays */
    }
    g_string_append_c(out, '"');
    return p + 1;
}

/* The same for a number, or what begins like one. */
static const char *copy_number(GString *out, const char *p, const char *end)
{
    const char *start = p;
    g_autofree char *text = NULL;
    char *stop;
    bool big;

    while (p < end && (g_ascii_isalnum(*p) || *p == '+' || *p == '-' ||
                       *p == '.')) {
        p++;
    }
    text = g_strndup(start, p - start);
    errno = 0;
    g_ascii_strtoll(text, &stop, 10);
    big = errno == ERANGE && !*stop;
    g_string_append_printf(out, big ? "\"%s\"" : "%s", text);
    return p;
}

/* @text as plain JSON; NULL with an error if it is nested too deeply. */
static GString *requote(const char *text, size_t len, Error **errp)
{
    g_autoptr(GString) out = g_string_sized_new(len + 16);
    const char *p = text, *end = text + len;
    int depth = 0;

    while (p < end) {
        if (*p == '"' || *p == '\'') {
            p = copy_string(out, p, end);
            continue;
        }
        if (g_ascii_isdigit(*p) || *p == '-') {
            p = copy_number(out, p, end);
            continue;
        }
        if (*p == '{' || *p == '[') {
            depth++;
        } else if (*p == '}' || *p == ']') {
            depth--;
        }
        if (depth > OPTIONS_MAX_DEPTH) {
            error_setg(errp, "JSON nested deeper than %d levels",
                       OPTIONS_MAX_DEPTH);
            return NULL;
        }
        g_string_append_c(out, *p++);
    }
    return g_steal_pointer(&out);
}

static bool is_blank(const char *text, size_t len)
{
    while (len && g_ascii_isspace(*text)) {
        text++;
        len--;
    }
    return len == 0;
}

json_t *json_parse_qemu(const char *text, size_t len, Error **errp)
{
    g_autoptr(GString) plain = NULL;
    json_error_t e;
    json_t *v;

    if (is_blank(text, len)) {
        error_setg(errp, "Expecting a JSON value");
        return NULL;
    }
    if (memchr(text, 0, len)) {
        error_setg(errp, "JSON parse error, null byte in the text");
        return NULL;
    }
    plain = requote(text, len, errp);
    if (!plain) {
        return NULL;
    }
    v = json_loadb(plain->str, plain->len,
                   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (v) {
        return v;
    }
    switch (json_error_code(&e)) {
    case json_error_end_of_input_expected:
        error_setg(errp, "Expecting at most one JSON value");
        break;
    case json_error_premature_end_of_input:
        error_setg(errp, "JSON parse error, premature EOI");
        break;
    case json_error_duplicate_key:
        error_setg(errp, "JSON parse error, duplicate key");
        break;
    default:
        error_setg(errp, "JSON parse error, %s", e.text);
        break;
    }
    return NULL;
}

json_t *options_from_json(const char *text, Error **errp)
{
    json_t *v = json_parse_qemu(text, strlen(text), errp);

    if (v && !json_is_object(v)) {
        error_setg(errp, "Invalid JSON object given");
        json_decref(v);
        return NULL;
    }
    return v;
}
