/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The programs that the launcher starts, and running them.
 */
#ifndef SYSTEM_PROGRAMS_H
#define SYSTEM_PROGRAMS_H

#include "translate.h"

/*
 * The stock emulator: $QEMU_SYSTEM_BINARY, or the first of our name on PATH
 * that is not this program.  For g_free(); NULL with an error.
 */
char *find_emulator(Error **errp);
/* Our storage daemon: $QEMU_STORAGE_DAEMON_BINARY, or the one beside this
 * program, or on PATH. */
char *find_daemon(Error **errp);

/* Whether @emulator is of version @major.@minor or later; runs it. */
bool emulator_is_at_least(const char *emulator, int major, int minor);

/*
 * Start the daemon, then the emulator; keep the daemon alive as long as the
 * emulator runs; stop the daemon.  @dir is where @plan's sockets are to be, and
 * is left empty.  With -daemonize, a byte goes to @ready_fd (else -1) when the
 * caller need not wait any longer, and what is written to stderr later is lost.
 * Returns the emulator's wait status, or -1 with an error if it was never
 * started.
 */
int supervise(const Plan *plan, const char *dir, const char *daemon,
              const char *emulator, int ready_fd, Error **errp);

#endif
