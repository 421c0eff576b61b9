/*
 * write, writev and discard.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

#define WRITE_PATTERN 0xcd

typedef struct WriteArgs {
    IoTransfer t;
    bool compress;
    bool zeroes;
    const char *file;          /* NULL: not given */
} WriteArgs;

/* 0, or -errno after a message. */
static int parse_write_option(const IoCommand *cmd, int c, WriteArgs *args)
{
    switch (c) {
    case 'c':
        args->compress = true;
        return 0;
    case 'f':
        args->t.flags |= BDRV_REQ_FUA;
        return 0;
    case 'n':
        args->t.flags |= BDRV_REQ_NO_FALLBACK;
        return 0;
    case 's':
        args->file = optarg;
        return 0;
    case 'u':
        args->t.flags |= BDRV_REQ_MAY_UNMAP;
        return 0;
    case 'z':
        args->zeroes = true;
        return 0;
    default:
        return io_parse_transfer_option(&args->t, cmd, c);
    }
}

/* 0, or -errno after a message. */
static int parse_write_options(const IoCommand *cmd, int argc, char **argv,
                               const char *letters, WriteArgs *args)
{
    int c, ret = 0;

    args->t.pattern = -1;
    while (ret == 0 && (c = getopt(argc, argv, letters)) != -1) {
        ret = parse_write_option(cmd, c, args);
    }
    return ret;
}

/* What is wrong with the options of write together, or NULL. */
static const char *check_write_options(const WriteArgs *args)
{
    const IoTransfer *t = &args->t;

    if (t->vmstate && args->zeroes) {
        return "-b and -z cannot be specified at the same time";
    }
    if ((t->flags & BDRV_REQ_FUA) && (t->vmstate || args->compress)) {
        return "-f and -b or -c cannot be specified at the same time";
    }
    if ((t->flags & BDRV_REQ_NO_FALLBACK) && !args->zeroes) {
        return "-n requires -z to be specified";
    }
    if ((t->flags & BDRV_REQ_MAY_UNMAP) && !args->zeroes) {
        return "-u requires -z to be specified";
    }
    if (args->zeroes && io_is_registered(t)) {
        return "cannot combine zero write with registered I/O buffer";
    }
    if (args->zeroes + (t->pattern >= 0) + (args->file != NULL) > 1) {
        return "Only one of -z, -P, and -s can be specified at the same time";
    }
    return NULL;
}

/* What write writes, if it is no pattern of its own. */
static int pattern_of(const WriteArgs *args)
{
    return args->t.pattern >= 0 ? args->t.pattern : WRITE_PATTERN;
}

/* What write and discard say of how it went; returns @ret. */
static int finish_write(const IoTransfer *t, const char *verb,
                        const char *done, int64_t start_ns, int ret)
{
    if (ret < 0) {
        return io_print_failure(verb, ret);
    }
    io_print_report(&t->report, done, start_ns, t->offset, t->bytes, t->bytes);
    return 0;
}

/* Write from a buffer, which is made here. */
static int write_data(QemuIo *io, const WriteArgs *args)
{
    const IoTransfer *t = &args->t;
    bool registered = io_is_registered(t);
    uint8_t *buf;
    int64_t start_ns;
    int ret;

    buf = args->file ?
        io_alloc_buffer_from_file(io, t->bytes, args->file, registered) :
        io_alloc_buffer(io, t->bytes, pattern_of(args), registered);
    if (!buf) {
        return -EINVAL;
    }
    start_ns = qemu_clock_ns();
    ret = t->vmstate ? io_save_vmstate(io, t, buf) :
          blk_pwrite(io->blk, t->offset, t->bytes, buf, t->flags |
                     (args->compress ? BDRV_REQ_WRITE_COMPRESSED : 0));
    ret = finish_write(t, "write", "wrote", start_ns, ret);
    io_free_buffer(io, buf, t->bytes, registered);
    return ret;
}

static int write_zeroes(QemuIo *io, const WriteArgs *args)
{
    const IoTransfer *t = &args->t;
    int64_t start_ns = qemu_clock_ns();
    int ret = blk_pwrite_zeroes(io->blk, t->offset, t->bytes, t->flags);

    return finish_write(t, "write", "wrote", start_ns, ret);
}

static int cmd_write(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    WriteArgs args = { 0 };
    const char *problem;
    int ret;

    ret = parse_write_options(cmd, argc, argv, "bcCfnpP:qrs:uz", &args);
    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2) {
        return io_usage(cmd);
    }
    problem = check_write_options(&args);
    if (problem) {
        printf("%s\n", problem);
        return -EINVAL;
    }
    ret = io_parse_range(&args.t, argv + optind,
                         !(args.t.flags & BDRV_REQ_NO_FALLBACK),
                         " without -n");
    if (ret == 0 && (args.t.vmstate || args.compress)) {
        ret = io_check_sectors(&args.t);
    }
    if (ret < 0) {
        return ret;
    }
    return args.zeroes ? write_zeroes(io, &args) : write_data(io, &args);
}

static int cmd_writev(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    WriteArgs args = { 0 };
    IoTransfer *t = &args.t;
    QEMUIOVector qiov;
    int64_t start_ns;
    uint8_t *buf;
    int ret;

    ret = parse_write_options(cmd, argc, argv, "CfP:qr", &args);
    if (ret < 0) {
        return ret;
    }
    buf = io_parse_vector(io, cmd, t, argc, argv, pattern_of(&args), &qiov);
    if (!buf) {
        return -EINVAL;
    }
    start_ns = qemu_clock_ns();
    ret = blk_pwritev(io->blk, t->offset, t->bytes, &qiov, 0, t->flags);
    ret = finish_write(t, "writev", "wrote", start_ns, ret);
    io_free_buffer(io, buf, qiov.size, io_is_registered(t));
    qemu_iovec_destroy(&qiov);
    return ret;
}

static int cmd_discard(QemuIo *io, const IoCommand *cmd, int argc,
                       char **argv)
{
    WriteArgs args = { 0 };
    const IoTransfer *t = &args.t;
    int64_t start_ns;
    int ret;

    ret = parse_write_options(cmd, argc, argv, "Cq", &args);
    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2) {
        return io_usage(cmd);
    }
    ret = io_parse_range(&args.t, argv + optind, true, "");
    if (ret < 0) {
        return ret;
    }
    start_ns = qemu_clock_ns();
    ret = blk_pdiscard(io->blk, t->offset, t->bytes);
    return finish_write(t, "discard", "discard", start_ns, ret);
}

static const IoCommand write_command = {
    .name = "write",
    .alias = "w",
    .run = cmd_write,
    .min_args = 2,
    .max_args = -1,
    .needs_file = true,
    .writes = true,
    .args = "[-bcCfnqruz] [-P pattern | -s source_file] off len",
    .oneline = "writes a number of bytes at a specified offset",
    .help =
"\n"
" writes a range of bytes from the given offset\n"
"\n"
" Example:\n"
" 'write 512 1k' - writes 1 kilobyte at 512 bytes into the open file\n"
"\n"
" Writes into a segment of the currently open file, using a buffer\n"
" filled with a set pattern (0xcdcdcdcd).\n"
" -b, -- write to the VM state rather than the virtual disk\n"
" -c, -- write compressed data with blk_write_compressed\n"
" -C, -- report statistics in a machine parsable format\n"
" -f, -- use Force Unit Access semantics\n"
" -n, -- with -z, don't allow slow fallback\n"
" -p, -- ignored for backwards compatibility\n"
" -P, -- use different pattern to fill file\n"
" -q, -- quiet mode, do not show I/O statistics\n"
" -r, -- register I/O buffer\n"
" -s, -- use a pattern file to fill the write buffer\n"
" -u, -- with -z, allow unmapping\n"
" -z, -- write zeroes using blk_pwrite_zeroes\n"
"\n",
};

static const IoCommand writev_command = {
    .name = "writev",
    .run = cmd_writev,
    .min_args = 2,
    .max_args = -1,
    .needs_file = true,
    .writes = true,
    .args = "[-Cfqr] [-P pattern] off len [len..]",
    .oneline = "writes a number of bytes at a specified offset",
    .help =
"\n"
" writes a range of bytes from the given offset source from multiple buffers\n"
"\n"
" Example:\n"
" 'writev 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file\n"
"\n"
" Writes into a segment of the currently open file, using a buffer\n"
" filled with a set pattern (0xcdcdcdcd).\n"
" -C, -- report statistics in a machine parsable format\n"
" -f, -- use Force Unit Access semantics\n"
" -P, -- use different pattern to fill file\n"
" -q, -- quiet mode, do not show I/O statistics\n"
" -r, -- register I/O buffer\n"
"\n",
};

static const IoCommand discard_command = {
    .name = "discard",
    .alias = "d",
    .run = cmd_discard,
    .min_args = 2,
    .max_args = -1,
    .needs_file = true,
    .writes = true,
    .args = "[-Cq] off len",
    .oneline = "discards a number of bytes at a specified offset",
    .help =
"\n"
" discards a range of bytes from the given offset\n"
"\n"
" Example:\n"
" 'discard 512 1k' - discards 1 kilobyte from 512 bytes into the file\n"
"\n"
" Discards a segment of the currently open file.\n"
" -C, -- report statistics in a machine parsable format\n"
" -q, -- quiet mode, do not show I/O statistics\n"
"\n",
};

const IoCommand *const io_write_commands[] = {
    &write_command,
    &writev_command,
    &discard_command,
    NULL,
};
