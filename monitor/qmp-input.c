/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Cutting a stream into JSON values: see qmp-input.h.
 */
#include "qmp-input.h"

void qmp_input_init(QmpInput *in)
{
    *in = (QmpInput){ .text = g_string_new(NULL) };
}

void qmp_input_destroy(QmpInput *in)
{
    g_string_free(in->text, TRUE);
}

static void end_value(QmpInput *in, const char *why, QmpInputFn *fn,
                      void *opaque)
{
    fn(opaque, in->text->str, in->text->len, why);
    g_string_truncate(in->text, 0);
    in->depth = 0;
    in->quote = 0;
    in->escaped = false;
}

/* Returns whether the value ends with @c. */
static bool in_string(QmpInput *in, char c)
{
    if (in->escaped) {
        in->escaped = false;
    } else if (c == '\\') {
        in->escaped = true;
    } else if (c == in->quote) {
        in->quote = 0;
        return in->depth == 0;
    }
    return false;
}

/* The same outside of strings. */
static bool in_structure(QmpInput *in, char c)
{
    switch (c) {
    case '"':
    case '\'':
        in->quote = c;
        return false;
    case '{':
    case '[':
        in->depth++;
        return false;
    case '}':
    case ']':
        return --in->depth <= 0;
    default:
        return false;
    }
}

static const char *objection(const QmpInput *in, char c)
{
    if (in->quote && (unsigned char)c < ' ') {
        return "control character in a string";
    }
    if (in->depth > QMP_INPUT_MAX_DEPTH) {
        return "nested too deeply";
    }
    return in->text->len >= QMP_INPUT_MAX_BYTES ? "value too long" : NULL;
}

/* Whether that was the end of a value. */
static bool feed_one(QmpInput *in, char c, QmpInputFn *fn, void *opaque)
{
    const char *why = objection(in, c);
    bool ends = why;

    if (!why && !in->quote && in->depth == 0 && g_ascii_isspace(c)) {
        /* Between values, or after a word that is none's beginning. */
        ends = in->text->len;
    } else if (!why) {
        g_string_append_c(in->text, c);
        ends = in->quote ? in_string(in, c) : in_structure(in, c);
    }
    if (ends) {
        end_value(in, why, fn, opaque);
    }
    return ends;
}

size_t qmp_input_feed(QmpInput *in, const char *buf, size_t len,
                      QmpInputFn *fn, void *opaque)
{
    for (size_t i = 0; i < len; i++) {
        if (feed_one(in, buf[i], fn, opaque)) {
            return i + 1;
        }
    }
    return len;
}
