/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the emulator's command line to two: the storage daemon's and the
 * emulator's without disks of its own.
 */
#ifndef SYSTEM_TRANSLATE_H
#define SYSTEM_TRANSLATE_H

#include "drives.h"

/* One vhost-user socket. */
typedef struct PlanExport {
    char *id;
    char *socket_path;
    json_t *opts;            /* of --export, all but the address */
} PlanExport;

typedef struct Plan {
    GPtrArray *daemon_args;  /* of char *: without the exports, see below */
    GPtrArray *exports;      /* of PlanExport * */
    GPtrArray *emulator_args;      /* of char * */
    bool daemonize;          /* -daemonize was given */
} Plan;

/* What the translation has to know of its surroundings. */
typedef struct PlanHost {
    const char *socket_dir;  /* where the sockets will be */
    bool has_reconnect_ms;   /* the emulator is QEMU 9.2 or later */
} PlanHost;

/*
 * Edits @cmd.  An option that would be lost is an error that names it.  The
 * result has no exports, and is of no use, if there is no virtio disk.
 */
Plan *plan_new(CmdLine *cmd, const PlanHost *host, Error **errp);
void plan_free(Plan *plan);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Plan, plan_free)

/*
 * The argument of --export number @i: at its socket's path (@fd -1), or with
 * @fd, a socket that listens there.  @again: for a daemon that takes over from
 * one that died.  The guest may have turned the write cache off since it was
 * started, and nobody tells the new daemon, so that one writes through.  For
 * g_free().
 */
char *plan_export_arg(const Plan *plan, int i, int fd, bool again);

/* ---- Parts (one file each) ---- */

/* What a -drive says of its device, apart from the image (drive-options.c). */
typedef struct DriveFacts {
    char *blockdev;          /* the value of an option for the daemon … */
    const char *option;      /* … "--blockdev" or "--x-drive" */
    char *serial;            /* NULL: none */
    bool read_only;
    bool writethrough;
} DriveFacts;

bool drive_to_blockdev(const json_t *drive_opts, const char *node_name,
                       DriveFacts *facts, Error **errp);
void drive_facts_clear(DriveFacts *facts);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(DriveFacts, drive_facts_clear)

/*
 * Turn a virtio-blk device's properties (used up from @props) into those of a
 * vhost-user-blk device, in place, and options of the export (device.c).
 */
bool device_to_export(const CmdLine *cmd, json_t *props, json_t *export_opts,
                      Error **errp);

/* All guest memory must be shared: add options to @args, or fail with the name
 * of what cannot be (memory.c). */
bool memory_make_shared(CmdLine *cmd, GPtrArray *args, Error **errp);

/* Virtual CPUs at start, as -smp says (memory.c knows -machine's side). */
unsigned cmdline_cpus(const CmdLine *cmd);

#endif
