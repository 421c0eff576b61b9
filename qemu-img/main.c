/*
 * qemu-img: work on disk images from the command line.
 *
 * A subcommand is a file with one function, entered in the table below; the
 * help lists what the table has.  Messages, output and exit statuses are those
 * of QEMU's qemu-img, which scripts rely on.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include <signal.h>
#include "block/block-driver.h"
#include "qemu/trace.h"

static const ImgCommand commands[] = {
    { "amend", img_amend,
      "Update format-specific options of the image" },
    { "bench", img_bench, "Run simple image benchmark" },
    { "bitmap", img_bitmap,
      "Perform modifications of the persistent bitmap in the image" },
    { "check", img_check, "Check basic image integrity" },
    { "commit", img_commit, "Commit image to its backing file" },
    { "compare", img_compare, "Check if two images have the same contents" },
    { "convert", img_convert,
      "Copy one image to another with optional format conversion" },
    { "create", img_create, "Create and format new image file" },
    { "dd", img_dd, "Copy input to output with optional format conversion" },
    { "info", img_info, "Display information about image" },
    { "map", img_map, "Dump image metadata" },
    { "measure", img_measure, "Calculate file size requred for a new image" },
    { "rebase", img_rebase, "Change backing file of the image" },
    { "resize", img_resize, "Resize the image to the new size" },
    { "snapshot", img_snapshot,
      "List or manipulate snapshots within image" },
    { NULL, NULL, NULL }
};

static void print_version(void)
{
    printf("qemu-img version " PROGRAM_VERSION "\n");
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names of all drivers, filled up to lines of 76 columns. */
static void print_formats(void)
{
    BlockDriver *const *all = bdrv_all_drivers();
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    int column = 1;

    for (; *all; all++) {
        g_ptr_array_add(names, (gpointer)(*all)->format_name);
    }
    qsort(names->pdata, names->len, sizeof(names->pdata[0]),
          compare_strings);
    printf("Supported image formats:\n\n ");
    for (guint i = 0; i < names->len; i++) {
        int len = strlen(names->pdata[i]);

        if (column + 1 + len > 77) {
            printf("\n ");
            column = 1;
        }
        column += printf(" %s", (const char *)names->pdata[i]);
    }
    printf("\n");
}

static void print_help(void)
{
    print_version();
    printf("QEMU disk image utility.  Usage:\n"
           "\n"
           "  qemu-img [standard options] COMMAND [--help | command options]\n"
           "\n"
           "Standard options:\n"
           "  -h, --help\n"
           "     display this help and exit\n"
           "  -V, --version\n"
           "     display version info and exit\n"
           "  -T,--trace TRACE\n"
           "     specify tracing options:\n"
           "        [[enable=]<pattern>][,events=<file>][,file=<file>]\n"
           "\n"
           "Recognized commands (run qemu-img COMMAND --help for "
           "command-specific help):\n"
           "\n");
    for (const ImgCommand *cmd = commands; cmd->name; cmd++) {
        printf("  %s - %s\n", cmd->name, cmd->description);
    }
    printf("\n");
    print_formats();
}

static const ImgCommand *find_command(const char *name)
{
    for (const ImgCommand *cmd = commands; cmd->name; cmd++) {
        if (g_str_equal(cmd->name, name)) {
            return cmd;
        }
    }
    return NULL;
}

/* What stands before the subcommand. */
static void parse_standard_options(int argc, char **argv)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { "trace", required_argument, NULL, 'T' },
        { NULL, 0, NULL, 0 }
    };
    Error *err = NULL;
    int c;

    while ((c = getopt_long(argc, argv, "+hVT:", long_options, NULL)) != -1) {
        switch (c) {
        case 'h':
            print_help();
            exit(EXIT_SUCCESS);
        case 'V':
            print_version();
            exit(EXIT_SUCCESS);
        case 'T':
            if (!trace_opt_parse(optarg, &err)) {
                error_report_err(err);
                exit(EXIT_FAILURE);
            }
            break;
        default:
            img_bad_option(argv[0]);
        }
    }
}

int main(int argc, char **argv)
{
    const ImgCommand *cmd;
    g_autofree char *full_name = NULL;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);       /* a write past the limit is EFBIG */
    /* Who asks for progress gets it where there is any; nobody dies of it. */
    signal(SIGUSR1, SIG_IGN);
#ifdef SIGINFO
    signal(SIGINFO, SIG_IGN);
#endif
    error_init(argv[0]);
    parse_standard_options(argc, argv);
    if (optind >= argc) {
        img_try_help(argv[0], "Not enough arguments");
    }
    cmd = find_command(argv[optind]);
    if (!cmd) {
        img_try_help(argv[0], "Command not found: %s", argv[optind]);
    }
    full_name = g_strdup_printf("%s %s", argv[0], argv[optind]);
    argv += optind;
    argc -= optind;
    argv[0] = full_name;
    optind = 0;       /* getopt starts over, with the new arguments */
    return cmd->run(cmd, argc, argv);
}
