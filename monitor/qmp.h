/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The QEMU Machine Protocol (QMP): one client's session.
 *
 * The greeting, then JSON commands and their answers in order, with events in
 * between.  What commands there are is the program's business: it passes a
 * table.  A command runs to its end before the next one, and so does what it
 * has scheduled in the loop.
 *
 * Everything here belongs to the control thread, and only commands block.  A
 * client that does not read its answers is not read from any more either, so
 * that it costs bounded memory (but for events).
 */
#ifndef MONITOR_QMP_H
#define MONITOR_QMP_H

#include <jansson.h>
#include "block/aio.h"
#include "qemu/error.h"

typedef struct QmpCommand {
    const char *name;
    /* As opt_check_names() takes them; NULL: it checks them itself. */
    const char *const *args;
    /* The answer (a new reference), or NULL with @errp.  @args is an object. */
    json_t *(*run)(void *opaque, json_t *args, Error **errp);
} QmpCommand;

typedef struct QmpSession QmpSession;

/*
 * Serve a client: read from @in, write to @out (which may be the same file
 * descriptor), both non-blocking and the session's from now on.  @commands ends
 * with a NULL name and has all but the protocol's own.  @closed is called, as
 * the session's last act, when the client has hung up; it frees the session.
 */
QmpSession *qmp_session_new(AioContext *ctx, int in, int out, bool pretty,
                            const QmpCommand *commands, void *opaque,
                            void (*closed)(QmpSession *session, void *opaque));
/* Writes what the client can take, and closes. */
void qmp_session_free(QmpSession *session);

/* Tell the client; @data is an object, which stays the caller's.  Nothing
 * before it has negotiated capabilities. */
void qmp_session_event(QmpSession *session, const char *name,
                       const json_t *data);

#endif
