/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qemu-storage-daemon: block nodes and exports, without a machine.
 *
 * Options take effect in the order in which they are given, so that each may
 * use what earlier ones made; the first that fails ends the program.  Then the
 * main thread serves monitors and waits for a signal.  It goes back in the
 * opposite order: exports, nodes, iothreads.
 */
#include "qemu/osdep.h"
#include <getopt.h>
#include "daemon.h"
#include "qemu/trace.h"

typedef enum LongOption {
    OPT_BLOCKDEV = 256,
    OPT_CHARDEV,
    OPT_DAEMONIZE,
    OPT_EXPORT,
    OPT_MONITOR,
    OPT_NBD_SERVER,
    OPT_OBJECT,
    OPT_PIDFILE,
    OPT_X_DRIVE,
    OPT_X_INCOMING,
} LongOption;

static const struct option long_options[] = {
    { "blockdev", required_argument, NULL, OPT_BLOCKDEV },
    { "chardev", required_argument, NULL, OPT_CHARDEV },
    { "daemonize", no_argument, NULL, OPT_DAEMONIZE },
    { "export", required_argument, NULL, OPT_EXPORT },
    { "help", no_argument, NULL, 'h' },
    { "monitor", required_argument, NULL, OPT_MONITOR },
    { "nbd-server", required_argument, NULL, OPT_NBD_SERVER },
    { "object", required_argument, NULL, OPT_OBJECT },
    { "pidfile", required_argument, NULL, OPT_PIDFILE },
    { "trace", required_argument, NULL, 'T' },
    { "version", no_argument, NULL, 'V' },
    { "x-drive", required_argument, NULL, OPT_X_DRIVE },
    { "x-incoming", no_argument, NULL, OPT_X_INCOMING },
    { NULL }
};

/* "-": words that are no options come in their place, as option 1. */
static const char short_options[] = "-hT:V";

static void print_help(void)
{
    printf("Usage: %s [options]\n"
"QEMU storage daemon\n"
"\n"
"  -h, --help             display this help and exit\n"
QEMU_TRACE_HELP
"  -V, --version          output version information and exit\n"
"\n"
"  --blockdev [driver=]<driver>[,node-name=<N>][,discard=ignore|unmap]\n"
"             [,cache.direct=on|off][,cache.no-flush=on|off]\n"
"             [,read-only=on|off][,auto-read-only=on|off]\n"
"             [,force-share=on|off][,detect-zeroes=on|off|unmap]\n"
"             [,active=on|off]\n"
"             [,driver specific parameters...]\n"
"                         open a block node\n"
"\n"
"  --chardev stdio,id=<id>\n"
"  --chardev socket,id=<id>,path=<socket-path>[,server=on|off][,wait=on|off]\n"
"                         a way to talk to a monitor\n"
"\n"
"  --daemonize            go into the background once startup is complete\n"
"\n"
"  --export [type=]vhost-user-blk,id=<id>,node-name=<node-name>,\n"
"           addr.type=unix,addr.path=<socket-path>[,writable=on|off]\n"
"           [,logical-block-size=<block-size>][,num-queues=<num-queues>]\n"
"           [,queue-size=<queue-size>][,serial=<serial-number>]\n"
"           [,writethrough=on|off][,iothread=<id>]\n"
"                         serve a node as a vhost-user-blk device on a\n"
"                         UNIX domain socket (or addr.type=fd,addr.str=<fd>:\n"
"                         one that listens already)\n"
"\n"
"  --monitor [chardev=]<id>[,mode=control][,pretty=on|off]\n"
"                         serve the QMP monitor on a character device\n"
"\n"
"  --object help          list object types that can be added\n"
"  --object <type>,help   list properties for the given object type\n"
"  --object <type>[,<property>=<value>...]\n"
"                         create an object; 'id' must be set\n"
"\n"
"  --pidfile <path>       write process ID to a file after startup\n"
"\n"
"Signals: SIGTERM, SIGINT, SIGHUP end the daemon, SIGUSR1 prints counters.\n"
"$THREADBLOCK_STATS names a file to write the counters to at the end.\n",
           error_get_progname());
}

/* What is the same for all programs of one daemon's command line. */
typedef struct Settings {
    bool daemonize;
    const char *pid_file;
} Settings;

/* --daemonize has to come before everything, wherever it is written; what is
 * wrong with the others is reported when it is their turn. */
static void find_settings(int argc, char **argv, Settings *settings)
{
    int c;

    opterr = 0;
    while ((c = getopt_long(argc, argv, short_options, long_options,
                            NULL)) != -1) {
        if (c == OPT_DAEMONIZE) {
            settings->daemonize = true;
        } else if (c == OPT_PIDFILE) {
            settings->pid_file = optarg;
        }
    }
    opterr = 1;
    optind = 0;
}

static bool refuse_option(const char *what, Error **errp)
{
    error_setg(errp, "%s are not supported", what);
    return false;
}

/* One option, in its turn. */
static bool handle_option(Daemon *d, int c, const char *arg, Error **errp)
{
    switch (c) {
    case OPT_BLOCKDEV:
        return daemon_add_blockdev(d, arg, errp);
    case OPT_X_DRIVE:
        return daemon_add_drive(d, arg, errp);
    case OPT_X_INCOMING:
        /* Our launcher's: what is opened is another process's, until an export
         * with x-incoming takes it. */
        d->incoming = true;
        return true;
    case OPT_EXPORT:
        return daemon_add_export(d, arg, errp);
    case OPT_OBJECT:
        return daemon_add_object(arg, errp);
    case OPT_CHARDEV:
        return daemon_add_chardev(d, arg, errp);
    case OPT_MONITOR:
        return daemon_add_monitor(d, arg, errp);
    case OPT_NBD_SERVER:
        return refuse_option("NBD servers", errp);
    case 'T':
        return trace_opt_parse(arg, errp);
    default:
        return true;
    }
}

static const char *option_name(int c)
{
    for (int i = 0; long_options[i].name; i++) {
        if (long_options[i].val == c) {
            return long_options[i].name;
        }
    }
    g_assert_not_reached();
}

static bool handle_options(Daemon *d, int argc, char **argv, Error **errp)
{
    ERRP_GUARD();
    int c;

    while ((c = getopt_long(argc, argv, short_options, long_options,
                            NULL)) != -1) {
        if (c == 'h') {
            print_help();
            exit(0);
        } else if (c == 'V') {
            printf("qemu-storage-daemon version %s\n", PROGRAM_VERSION);
            exit(0);
        } else if (c == '?') {
            exit(1);
        } else if (c == 1) {
            error_setg(errp, "%s: Unexpected argument", optarg);
            return false;
        } else if (!handle_option(d, c, optarg, errp)) {
            error_prepend(errp, "--%s %s: ", option_name(c), optarg ?: "");
            return false;
        }
    }
    return true;
}

static void set_up(Daemon *d, const Settings *settings)
{
    if (settings->daemonize) {
        daemon_go_background(&error_fatal);
    }
    d->ctx = aio_context_new(&error_fatal);
    aio_context_enter(d->ctx);
    daemon_set_up_signals(d, &error_fatal);
    d->graph = block_graph_new();
    d->nodes = g_ptr_array_new();
    d->background = settings->daemonize;
    d->chardevs = g_ptr_array_new();
    d->monitors = g_ptr_array_new();
    d->jobs = g_ptr_array_new();
    d->exports = block_export_list_new(d->graph, daemon_find_iothread, d);
}

static void tear_down(Daemon *d)
{
    daemon_free_jobs(d);
    daemon_free_monitors(d);
    daemon_free_chardevs(d);
    daemon_write_counters(d);
    block_export_list_free(d->exports);
    daemon_free_nodes(d);
    block_graph_free(d->graph);
    daemon_free_iothreads();
    daemon_clean_up_signals(d);
    aio_context_leave(d->ctx);
    aio_context_unref(d->ctx);
    daemon_remove_pid_file();
}

int main(int argc, char **argv)
{
    Settings settings = { 0 };
    Daemon d = { 0 };
    Error *err = NULL;

    error_init(argv[0]);
    find_settings(argc, argv, &settings);
    set_up(&d, &settings);
    if (!handle_options(&d, argc, argv, &err) ||
        (settings.pid_file &&
         !daemon_write_pid_file(settings.pid_file, &err)) ||
        !daemon_started(&err)) {
        error_report_err(err);
        tear_down(&d);
        return 1;
    }
    while (!d.stop) {
        aio_poll(d.ctx, true);
    }
    tear_down(&d);
    return 0;
}
