/*
 * The commands for zoned devices: zone_report, zone_open, zone_close,
 * zone_finish, zone_reset and zone_append.
 *
 * No driver here has zones, so what is asked for correctly ends with ENOTSUP,
 * as it does with QEMU on every disk that is not zoned.  Nothing is read or
 * written, and read-only images are no different.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

/* The two numbers that are the operands; false after a message. */
static bool parse_pair(char **argv, int64_t *first, int64_t *second)
{
    *first = io_parse_size(argv[1]);
    *second = *first < 0 ? -1 : io_parse_size(argv[2]);
    return *second >= 0;
}

static int cmd_zone_report(QemuIo *io, const IoCommand *cmd, int argc,
                           char **argv)
{
    int64_t offset, zones;

    if (!parse_pair(argv, &offset, &zones)) {
        return -EINVAL;
    }
    if (zones > UINT32_MAX) {
        printf("Number of zones must be less than 2^32\n");
        return -EINVAL;
    }
    return io_print_failure("zone report", -ENOTSUP);
}

/* A range that the image does not have is found before that there are no
 * zones. */
static int cmd_zone_manage(QemuIo *io, const IoCommand *cmd, int argc,
                           char **argv)
{
    g_autofree char *verb = g_strdup(cmd->name);
    int64_t offset, bytes, length = blk_getlength(io->blk);
    bool inside;

    if (!parse_pair(argv, &offset, &bytes)) {
        return -EINVAL;
    }
    verb[strlen("zone")] = ' ';
    inside = offset <= length && bytes <= length - offset;
    return io_print_failure(verb, inside ? -ENOTSUP : length < 0 ? length :
                                  -EIO);
}

static int cmd_zone_append(QemuIo *io, const IoCommand *cmd, int argc,
                           char **argv)
{
    QEMUIOVector qiov;
    uint8_t *buf;

    /* One option, -p, without a meaning.  Others are named in a message, no
     * more than that, and what follows the first is not looked for: so QEMU's
     * scripts may have it. */
    getopt(argc, argv, "p");
    if (optind >= argc) {
        return io_usage(cmd);
    }
    if (io_parse_size(argv[optind]) < 0) {
        return -EINVAL;
    }
    buf = io_make_vector(io, &qiov, argv + optind + 1, argc - optind - 1,
                         0xcd, false);
    if (!buf) {
        return -EINVAL;
    }
    io_free_buffer(io, buf, qiov.size, false);
    qemu_iovec_destroy(&qiov);
    return io_print_failure("zone append", -ENOTSUP);
}

static const IoCommand zone_report_command = {
    .name = "zone_report",
    .alias = "zrp",
    .run = cmd_zone_report,
    .min_args = 2,
    .max_args = 2,
    .needs_file = true,
    .args = "offset number",
    .oneline = "report zone information",
};

static const IoCommand zone_open_command = {
    .name = "zone_open",
    .alias = "zo",
    .run = cmd_zone_manage,
    .min_args = 2,
    .max_args = 2,
    .needs_file = true,
    .args = "offset len",
    .oneline = "explicit open a range of zones in zone block device",
};

static const IoCommand zone_close_command = {
    .name = "zone_close",
    .alias = "zc",
    .run = cmd_zone_manage,
    .min_args = 2,
    .max_args = 2,
    .needs_file = true,
    .args = "offset len",
    .oneline = "close a range of zones in zone block device",
};

static const IoCommand zone_finish_command = {
    .name = "zone_finish",
    .alias = "zf",
    .run = cmd_zone_manage,
    .min_args = 2,
    .max_args = 2,
    .needs_file = true,
    .args = "offset len",
    .oneline = "finish a range of zones in zone block device",
};

static const IoCommand zone_reset_command = {
    .name = "zone_reset",
    .alias = "zrs",
    .run = cmd_zone_manage,
    .min_args = 2,
    .max_args = 2,
    .needs_file = true,
    .args = "offset len",
    .oneline = "reset a zone write pointer in zone block device",
};

static const IoCommand zone_append_command = {
    .name = "zone_append",
    .alias = "zap",
    .run = cmd_zone_append,
    .min_args = 3,
    .max_args = 4,
    .needs_file = true,
    .args = "offset len [len..]",
    .oneline = "append write a number of bytes at a specified offset",
};

const IoCommand *const io_zone_commands[] = {
    &zone_report_command,
    &zone_open_command,
    &zone_close_command,
    &zone_finish_command,
    &zone_reset_command,
    &zone_append_command,
    NULL,
};
