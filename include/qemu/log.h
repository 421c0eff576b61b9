/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where log and trace records go: stderr, or a file.
 *
 * A record is written with one write(2) to a descriptor opened for appending,
 * so records of several threads and processes do not mix.  Any thread may log.
 */
#ifndef QEMU_LOG_H
#define QEMU_LOG_H

#include "qemu/osdep.h"
#include "qemu/error.h"

/*
 * Send records to @filename, created if need be and appended to; "%d" in it
 * stands for the process id, NULL for stderr.  Only one thread at a time may
 * switch, but others may go on logging: none of their records is lost.
 */
bool qemu_log_set_file(const char *filename, Error **errp);

/* Write @len bytes as one record. */
void qemu_log_write(const char *record, size_t len);

/* Format and write a record; it should end in a newline. */
void qemu_log(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

#endif
