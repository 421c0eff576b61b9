/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stream of JSON values, cut into values.
 *
 * Bytes come as the socket delivers them; a value is whole when its outermost
 * bracket closes.  What is in it is judged later, by the parser.  A control
 * character inside of a string, and too much of anything, drops what has come
 * so far, so that a client which sent nonsense is understood again after it.
 * One thread.
 */
#ifndef MONITOR_QMP_INPUT_H
#define MONITOR_QMP_INPUT_H

#include "qemu/osdep.h"

/* One value may not be longer, nor be nested deeper, than this. */
#define QMP_INPUT_MAX_BYTES (64 * MiB)
#define QMP_INPUT_MAX_DEPTH 1024

typedef struct QmpInput {
    GString *text;              /* of the value that has begun */
    int depth;
    char quote;                 /* the string's that we are in, or 0 */
    bool escaped;
} QmpInput;

/* A value of @len bytes; or with @why, what was dropped, and why. */
typedef void QmpInputFn(void *opaque, const char *text, size_t len,
                        const char *why);

void qmp_input_init(QmpInput *in);
void qmp_input_destroy(QmpInput *in);
/* Up to the end of a value, for which @fn is called; or all of @buf.  Returns
 * how much of @buf that was. */
size_t qmp_input_feed(QmpInput *in, const char *buf, size_t len,
                      QmpInputFn *fn, void *opaque);

#endif
