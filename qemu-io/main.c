/*
 * qemu-io: exercise an image with commands, from -c options or typed in.
 *
 * Synchronous commands block the main thread; asynchronous ones run on its
 * AioContext, which runs between commands and while it waits for input.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"
#include <signal.h>
#include "crypto/secret.h"
#include "qemu/trace.h"

static const ObjectType *const object_types[] = {
    &secret_object_type,
    NULL,
};

enum {
    OPTION_OBJECT = 256,
    OPTION_IMAGE_OPTS,
};

typedef struct IoArgs {
    IoOpen how;
    const char *fmt;
    const char *aio;
    bool image_opts;
    bool misalign;
    GPtrArray *commands;
} IoArgs;

static void usage(void)
{
    printf("Usage: qemu-io [OPTIONS]... [-c STRING]... [file]\n"
"QEMU Disk exerciser\n"
"\n"
"  --object OBJECTDEF   define an object such as 'secret' for\n"
"                       passwords and/or encryption keys\n"
"  --image-opts         treat file as option string\n"
"  -c, --cmd STRING     execute command with its arguments\n"
"                       from the given string\n"
"  -f, --format FMT     specifies the block driver to use\n"
"  -r, --read-only      export read-only\n"
"  -s, --snapshot       use snapshot file\n"
"  -n, --nocache        disable host cache, short for -t none\n"
"  -C, --copy-on-read   enable copy-on-read\n"
"  -m, --misalign       misalign allocations for O_DIRECT\n"
"  -k, --native-aio     use kernel AIO implementation\n"
"                       (Linux only, prefer use of -i)\n"
"  -i, --aio=MODE       use AIO mode (threads, native or io_uring)\n"
"  -t, --cache=MODE     use the given cache mode for the image\n"
"  -d, --discard=MODE   use the given discard mode for the image\n"
QEMU_TRACE_HELP
"                       see qemu-img(1) man page for full description\n"
"  -U, --force-share    force shared permissions\n"
"  -h, --help           display this help and exit\n"
"  -V, --version        output version information and exit\n"
"\n"
"See 'qemu-io -c help' for information on available commands.\n");
}

static void process_object(const char *text)
{
    Error *err = NULL;
    bool help;

    if (!user_creatable_add_from_str(object_types, text, &help, &err)) {
        error_report_err(err);
        exit(EXIT_FAILURE);
    }
    if (help) {
        exit(EXIT_SUCCESS);
    }
}

/* Options about how to open; false if @c is none of them. */
static bool parse_open_option(IoArgs *args, int c)
{
    switch (c) {
    case 'f':
        args->fmt = optarg;
        return true;
    case 'r':
        args->how.flags &= ~BDRV_O_RDWR;
        return true;
    case 's':
        args->how.snapshot = true;
        return true;
    case 'n':
        args->how.flags |= BDRV_O_NOCACHE;
        args->how.writethrough = false;
        return true;
    case 'C':
        args->how.flags |= BDRV_O_COPY_ON_READ;
        return true;
    case 'k':
        args->aio = "native";
        return true;
    case 'i':
        args->aio = optarg;
        return true;
    case 't':
        if (!bdrv_parse_cache_mode(optarg, &args->how.flags,
                                   &args->how.writethrough)) {
            error_report("Invalid cache option: %s", optarg);
            exit(EXIT_FAILURE);
        }
        return true;
    case 'd':
        if (!bdrv_parse_discard_flags(optarg, &args->how.flags)) {
            error_report("Invalid discard option: %s", optarg);
            exit(EXIT_FAILURE);
        }
        return true;
    case 'U':
        args->how.force_share = true;
        return true;
    case OPTION_IMAGE_OPTS:
        args->image_opts = true;
        return true;
    default:
        return false;
    }
}

static void parse_args(IoArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        { "object", required_argument, NULL, OPTION_OBJECT },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "cmd", required_argument, NULL, 'c' },
        { "format", required_argument, NULL, 'f' },
        { "read-only", no_argument, NULL, 'r' },
        { "snapshot", no_argument, NULL, 's' },
        { "nocache", no_argument, NULL, 'n' },
        { "copy-on-read", no_argument, NULL, 'C' },
        { "misalign", no_argument, NULL, 'm' },
        { "native-aio", no_argument, NULL, 'k' },
        { "aio", required_argument, NULL, 'i' },
        { "cache", required_argument, NULL, 't' },
        { "discard", required_argument, NULL, 'd' },
        { "trace", required_argument, NULL, 'T' },
        { "force-share", no_argument, NULL, 'U' },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { NULL, 0, NULL, 0 }
    };
    Error *err = NULL;
    int c;

    while ((c = getopt_long(argc, argv, "hVc:f:rsnCmki:t:d:T:U", long_options,
                            NULL)) != -1) {
        if (parse_open_option(args, c)) {
            continue;
        }
        switch (c) {
        case 'c':
            g_ptr_array_add(args->commands, optarg);
            break;
        case 'm':
            args->misalign = true;
            break;
        case 'T':
            if (!trace_opt_parse(optarg, &err)) {
                error_report_err(err);
                exit(EXIT_FAILURE);
            }
            break;
        case OPTION_OBJECT:
            process_object(optarg);
            break;
        case 'V':
            printf("qemu-io version " PROGRAM_VERSION "\n");
            exit(EXIT_SUCCESS);
        case 'h':
            usage();
            exit(EXIT_SUCCESS);
        default:
            usage();
            exit(EXIT_FAILURE);
        }
    }
    if (argc - optind > 1) {
        usage();
        exit(EXIT_FAILURE);
    }
    args->how.filename = argv[optind];
}

/* Signals that QEMU's event loop takes: "sigraise" of one of them, and
 * another process that sends one, must not be the end.  Before any thread. */
static void block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaddset(&set, SIGBUS);        /* if sent: a fault is still the end */
    sigaddset(&set, SIGIO);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Open what the command line names; false after a message. */
static bool open_first_image(QemuIo *io, IoArgs *args)
{
    g_autoptr(json_t) options = json_object();
    Error *err = NULL;

    if (args->image_opts && args->fmt) {
        error_report("--image-opts and -f are mutually exclusive");
        return false;
    }
    if (args->image_opts) {
        if (!qemu_opts_merge_legacy(options, args->how.filename, NULL, true,
                                    NULL, &err)) {
            error_report_err(err);
            return false;
        }
        args->how.filename = NULL;
    } else {
        opt_set_str(options, "driver", args->fmt);
    }
    if (args->aio && !io_set_aio(options, args->aio)) {
        return false;
    }
    args->how.options = json_incref(options);
    return io_open_image(io, &args->how);
}

static int run_commands(QemuIo *io, const GPtrArray *commands)
{
    int status = EXIT_SUCCESS;

    for (guint i = 0; i < commands->len && !io->quit; i++) {
        if (io_run_command(io, commands->pdata[i]) < 0) {
            status = EXIT_FAILURE;
        }
    }
    return status;
}

int main(int argc, char **argv)
{
    g_autoptr(GPtrArray) commands = g_ptr_array_new();
    IoArgs args = {
        .how.flags = BDRV_O_RDWR | BDRV_O_UNMAP,
        .how.writethrough = true,
        .commands = commands,
    };
    QemuIo io = { 0 };
    Error *err = NULL;
    int status;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);       /* a write past the limit is EFBIG */
    block_signals();
    error_init(argv[0]);
    parse_args(&args, argc, argv);
    io.misalign = args.misalign;
    io.ctx = aio_context_new(&err);
    if (!io.ctx) {
        error_report_err(err);
        return EXIT_FAILURE;
    }
    aio_context_enter(io.ctx);
    io.graph = block_graph_new();
    if (args.how.filename && !open_first_image(&io, &args)) {
        status = EXIT_FAILURE;
    } else if (commands->len) {
        status = run_commands(&io, commands);
    } else {
        status = io_run_interactive(&io) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    io_close_image(&io);
    block_graph_free(io.graph);
    aio_context_leave(io.ctx);
    aio_context_unref(io.ctx);
    return status;
}
