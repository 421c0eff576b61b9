/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of qemu-storage-daemon.
 *
 * All of them run in the main thread, which is the graph's control thread and
 * runs an AioContext of its own; the guests' requests run in iothreads.
 */
#ifndef STORAGE_DAEMON_H
#define STORAGE_DAEMON_H

#include "block/export.h"
#include "qmp.h"

typedef struct Daemon {
    AioContext *ctx;             /* of the main thread */
    BlockGraph *graph;
    GPtrArray *nodes;            /* of BlockDriverState *, a reference each */
    GPtrArray *chardevs;         /* of Chardev * */
    GPtrArray *monitors;         /* of Monitor * */
    GPtrArray *jobs;             /* of Job *, in order */
    bool background;             /* --daemonize */
    bool incoming;               /* nodes are opened inactive */
    BlockExportList *exports;
    bool stop;                   /* leave the main loop */
} Daemon;

/* ---- objects.c: --object ---- */

/* Create the object that @arg describes, or print the help it asks for and
 * exit. */
bool daemon_add_object(const char *arg, Error **errp);
/* A BlockExportFindIOThread; @opaque is not used. */
IOThread *daemon_find_iothread(void *opaque, const char *id);
/* Nothing uses them any more. */
void daemon_free_iothreads(void);
/* object-add: uses @props up. */
bool daemon_object_add(json_t *props, Error **errp);

/* ---- nodes.c: --blockdev and --x-drive ---- */

bool daemon_add_blockdev(Daemon *d, const char *arg, Error **errp);
/*
 * Our launcher's: as --blockdev, but @arg may have a "filename", which may be
 * in any syntax that a tool takes, and need not have a "driver".
 */
bool daemon_add_drive(Daemon *d, const char *arg, Error **errp);
/* blockdev-add (uses @opts up) and blockdev-del. */
bool daemon_blockdev_add(Daemon *d, json_t *opts, Error **errp);
bool daemon_blockdev_del(Daemon *d, const char *node_name, Error **errp);
/* The latest first, since later nodes stand on earlier ones. */
void daemon_free_nodes(Daemon *d);

/* ---- exports.c: --export, and counters ---- */

bool daemon_add_export(Daemon *d, const char *arg, Error **errp);
/* {"exports": [{"id", "fast", "inline", "worker", …}]}, a new object. */
json_t *daemon_counters(Daemon *d);
/* Write the counters to the file that $THREADBLOCK_STATS names, if it does. */
void daemon_write_counters(Daemon *d);

/* ---- chardev.c, monitor.c: --chardev and --monitor ---- */

/*
 * What a monitor talks through: a listening UNIX socket with one client at a
 * time, a connected one, or stdin and stdout.
 */
typedef struct Chardev {
    char *id;
    int listen_fd;               /* -1: none */
    char *path;                  /* of the socket, to be removed; or NULL */
    int in, out;                 /* of the first client; -1: none yet */
    bool is_stdio;
    int stdin_flags, stdout_flags;  /* as they were */
    bool used;                   /* by a monitor */
} Chardev;

bool daemon_add_chardev(Daemon *d, const char *arg, Error **errp);
void daemon_free_chardevs(Daemon *d);
bool daemon_add_monitor(Daemon *d, const char *arg, Error **errp);
void daemon_free_monitors(Daemon *d);
/* To every client that listens.  Uses @data up. */
void daemon_event(Daemon *d, const char *name, json_t *data);

/* ---- qmp-commands.c ---- */

extern const QmpCommand daemon_qmp_commands[];

/* ---- jobs.c ---- */

/*
 * Begin to create the image that @options describe (blockdev-create).  The job
 * runs when the command has been answered, in the control thread, to its end;
 * guests are served meanwhile, monitors are not.
 */
bool daemon_create_job(Daemon *d, const char *id, json_t *options,
                       Error **errp);
/* query-jobs */
json_t *daemon_query_jobs(Daemon *d);
bool daemon_dismiss_job(Daemon *d, const char *id, Error **errp);
void daemon_free_jobs(Daemon *d);

/* ---- signals.c ---- */

/*
 * From now on SIGTERM, SIGINT and SIGHUP set @d->stop, and SIGUSR1 prints the
 * counters on stderr.  Call before any thread starts, so that they all have
 * these signals blocked.
 */
bool daemon_set_up_signals(Daemon *d, Error **errp);
void daemon_clean_up_signals(Daemon *d);

/* ---- background.c: --daemonize and --pidfile ---- */

/*
 * Fork.  Returns in the child; the parent waits for daemon_started(), and exits
 * with 0 then, or as the child does if that ends before.  Call before any
 * thread starts.
 */
bool daemon_go_background(Error **errp);
/* Everything is set up: let a waiting parent go, leave its terminal. */
bool daemon_started(Error **errp);
/* Create @path, locked against a second daemon, with our process id in it. */
bool daemon_write_pid_file(const char *path, Error **errp);
void daemon_remove_pid_file(void);

#endif
