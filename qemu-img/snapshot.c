/*
 * qemu-img snapshot: list, create, apply and delete internal snapshots.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include <sys/time.h>
#include "block/snapshot.h"

static const char synopsis[] =
    "[-f FMT | --image-opts] [-l | -a|-c|-d SNAPSHOT]\n"
    "        [-U] [--object OBJDEF] FILENAME";

static const char arguments[] =
    "  -q, --quiet\n"
    "      quiet operations\n"
    "  -f, --format FMT\n"
    "      specify FILENAME format explicitly\n"
    "  --image-opts\n"
    "      indicates that FILENAME is a complete image specification\n"
    "   instead of a file name (incompatible with --format)\n"
    "  -U, --force-share\n"
    "      open image in shared mode for concurrent access\n"
    "  --object OBJDEF\n"
    "      QEMU user-creatable object (eg encryption key)\n"
    "  Operation, one of:\n"
    "    -l, --list\n"
    "       list snapshots in FILENAME (the default)\n"
    "    -c, --create SNAPSHOT\n"
    "       create named snapshot\n"
    "    -a, --apply SNAPSHOT\n"
    "       apply named snapshot to the base\n"
    "    -d, --delete SNAPSHOT\n"
    "       delete named snapshot\n"
    "  FILENAME - image file name (or specification with --image-opts)\n";

typedef struct SnapshotArgs {
    ImgOpen image;
    int action;                 /* the option's letter; 0: not given */
    const char *name;
    bool quiet;
} SnapshotArgs;

static bool list(BlockDriverState *bs, const char *unused, Error **errp)
{
    g_autofree QEMUSnapshotInfo *sn = NULL;
    size_t n;

    if (!bdrv_snapshot_list(bs, &sn, &n, errp)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        g_autofree char *line = bdrv_snapshot_to_text(&sn[i]);

        if (i == 0) {
            g_autofree char *heading = bdrv_snapshot_to_text(NULL);

            printf("Snapshot list:\n%s\n", heading);
        }
        printf("%s\n", line);
    }
    return true;
}

static bool create(BlockDriverState *bs, const char *name, Error **errp)
{
    QEMUSnapshotInfo sn = { .disk_size = -1 };
    struct timeval now;

    gettimeofday(&now, NULL);
    g_strlcpy(sn.name, name, sizeof(sn.name));
    sn.date_sec = now.tv_sec;
    sn.date_nsec = now.tv_usec * 1000;
    return bdrv_snapshot_create(bs, &sn, errp);
}

static const struct {
    int action;
    bool writes;
    bool (*run)(BlockDriverState *bs, const char *name, Error **errp);
    const char *doing;          /* before the name; NULL: the error says it */
} actions[] = {
    { 'l', false, list, NULL },
    { 'c', true, create, NULL },
    { 'a', true, bdrv_snapshot_goto, "Could not apply snapshot" },
    { 'd', true, bdrv_snapshot_delete, "Could not delete snapshot" },
};

static void set_action(SnapshotArgs *args, const char *argv0, int action)
{
    if (args->action) {
        img_try_help(argv0, "Cannot mix '-l', '-a', '-c', '-d'");
    }
    args->action = action;
    args->name = optarg;
}

static void parse_args(const ImgCommand *cmd, int argc, char **argv,
                       SnapshotArgs *args)
{
    static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "quiet", no_argument, NULL, 'q' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { "list", no_argument, NULL, 'l' },
        { "create", required_argument, NULL, 'c' },
        { "apply", required_argument, NULL, 'a' },
        { "delete", required_argument, NULL, 'd' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { NULL, 0, NULL, 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "hqf:Ula:c:d:", long_options,
                            NULL)) != -1) {
        switch (c) {
        case 'h':
            img_cmd_help(cmd, synopsis, arguments);
        case 'l': case 'a': case 'c': case 'd':
            set_action(args, argv[0], c);
            break;
        default:
            img_take_option(argv[0], c, &args->image, &args->quiet);
        }
    }
    args->image.filename = img_take_filename(argc, argv);
}

int img_snapshot(const ImgCommand *cmd, int argc, char **argv)
{
    SnapshotArgs args = { 0 };
    BlockBackend *blk;
    Error *err = NULL;
    size_t i = 0;

    parse_args(cmd, argc, argv, &args);
    while (args.action && actions[i].action != args.action) {
        i++;
    }
    args.image.flags = actions[i].writes ? BDRV_O_RDWR : 0;
    blk = img_open(&args.image);
    if (!blk) {
        return EXIT_FAILURE;
    }
    if (!actions[i].run(blk_bs(blk), args.name, &err)) {
        if (actions[i].doing) {
            error_prepend(&err, "%s '%s': ", actions[i].doing, args.name);
        }
        error_report_err(err);
    }
    blk_unref(blk);
    return err ? EXIT_FAILURE : EXIT_SUCCESS;
}
