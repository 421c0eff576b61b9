/*
 * write, writev and discard.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

#define WRITE_PATTERN 0xcd

typedef struct WriteArgs {
    IoReport report;
    bool vmstate;
    bool compress;
    bool zeroes;
    bool registered;
    int pattern;               /* -1: not given */
    const char *file;          /* NULL: not given */
    int flags;                 /* BDRV_REQ_… */
    int64_t offset;
    int64_t bytes;
} WriteArgs;

/* 0, or -errno after a message. */
static int parse_write_options(const IoCommand *cmd, int argc, char **argv,
                               const char *letters, WriteArgs *args)
{
    int c;

    args->pattern = -1;
    while ((c = getopt(argc, argv, letters)) != -1) {
        switch (c) {
        case 'b':
            args->vmstate = true;
            break;
        case 'c':
            args->compress = true;
            break;
        case 'C':
            args->report.machine = true;
            break;
        case 'f':
            args->flags |= BDRV_REQ_FUA;
            break;
        case 'n':
            args->flags |= BDRV_REQ_NO_FALLBACK;
            break;
        case 'p':
            break;
        case 'P':
            args->pattern = io_parse_pattern(optarg);
            if (args->pattern < 0) {
                return -EINVAL;
            }
            break;
        case 'q':
            args->report.quiet = true;
            break;
        case 'r':
            args->registered = true;
            break;
        case 's':
            args->file = optarg;
            break;
        case 'u':
            args->flags |= BDRV_REQ_MAY_UNMAP;
            break;
        case 'z':
            args->zeroes = true;
            break;
        default:
            return io_usage(cmd);
        }
    }
    return 0;
}

/* What is wrong with the options of write together, or NULL. */
static const char *check_write_options(const WriteArgs *args)
{
    if (args->vmstate && args->zeroes) {
        return "-b and -z cannot be specified at the same time";
    }
    if ((args->flags & BDRV_REQ_FUA) && (args->vmstate || args->compress)) {
        return "-f and -b or -c cannot be specified at the same time";
    }
    if ((args->flags & BDRV_REQ_NO_FALLBACK) && !args->zeroes) {
        return "-n requires -z to be specified";
    }
    if ((args->flags & BDRV_REQ_MAY_UNMAP) && !args->zeroes) {
        return "-u requires -z to be specified";
    }
    if (args->zeroes && args->registered) {
        return "cannot combine zero write with registered I/O buffer";
    }
    if (args->zeroes + (args->pattern >= 0) + (args->file != NULL) > 1) {
        return "Only one of -z, -P, and -s can be specified at the same time";
    }
    return NULL;
}

/* The two operands of write and discard; @suffix goes on the complaint. */
static int parse_range(char **argv, bool limited, const char *suffix,
                       int64_t *offset, int64_t *bytes)
{
    *offset = io_parse_size(argv[0]);
    if (*offset < 0) {
        return *offset;
    }
    *bytes = io_parse_size(argv[1]);
    if (*bytes < 0) {
        return *bytes;
    }
    if (limited && *bytes > IO_MAX_BYTES) {
        printf("length cannot exceed %" PRId64 "%s, given %s\n", IO_MAX_BYTES,
               suffix, argv[1]);
        return -EINVAL;
    }
    return 0;
}

/* Write from a buffer, which is made here. */
static int write_data(QemuIo *io, WriteArgs *args)
{
    uint8_t *buf;
    int64_t start_ns;
    int ret;

    buf = args->file ?
        io_alloc_buffer_from_file(io, args->bytes, args->file,
                                  args->registered) :
        io_alloc_buffer(io, args->bytes, args->pattern >= 0 ? args->pattern :
                        WRITE_PATTERN, args->registered);
    if (!buf) {
        return -EINVAL;
    }
    if (args->compress) {
        args->flags |= BDRV_REQ_WRITE_COMPRESSED;
    }
    if (args->registered) {
        args->flags |= BDRV_REQ_REGISTERED_BUF;
    }
    start_ns = qemu_clock_ns();
    /* No format here keeps the state of a machine. */
    ret = args->vmstate ? -ENOTSUP :
          blk_pwrite(io->blk, args->offset, args->bytes, buf, args->flags);
    if (ret < 0) {
        io_print_failure("write", ret);
    } else {
        io_print_report(&args->report, "wrote", start_ns, args->offset,
                        args->bytes, args->bytes);
    }
    io_free_buffer(io, buf, args->bytes, args->registered);
    return ret;
}

static int write_zeroes(QemuIo *io, const WriteArgs *args)
{
    int64_t start_ns = qemu_clock_ns();
    int ret = blk_pwrite_zeroes(io->blk, args->offset, args->bytes,
                                args->flags);

    if (ret < 0) {
        return io_print_failure("write", ret);
    }
    io_print_report(&args->report, "wrote", start_ns, args->offset,
                    args->bytes, args->bytes);
    return 0;
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
    ret = parse_range(argv + optind, !(args.flags & BDRV_REQ_NO_FALLBACK),
                      " without -n", &args.offset, &args.bytes);
    if (ret < 0) {
        return ret;
    }
    return args.zeroes ? write_zeroes(io, &args) : write_data(io, &args);
}

static int cmd_writev(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    WriteArgs args = { 0 };
    QEMUIOVector qiov;
    int64_t start_ns;
    uint8_t *buf;
    int ret;

    ret = parse_write_options(cmd, argc, argv, "CfP:qr", &args);
    if (ret < 0) {
        return ret;
    }
    if (optind > argc - 2) {
        return io_usage(cmd);
    }
    args.offset = io_parse_size(argv[optind]);
    if (args.offset < 0) {
        return args.offset;
    }
    buf = io_make_vector(io, &qiov, argv + optind + 1, argc - optind - 1,
                         args.pattern >= 0 ? args.pattern : WRITE_PATTERN,
                         args.registered);
    if (!buf) {
        return -EINVAL;
    }
    if (args.registered) {
        args.flags |= BDRV_REQ_REGISTERED_BUF;
    }
    start_ns = qemu_clock_ns();
    ret = blk_pwritev(io->blk, args.offset, qiov.size, &qiov, 0, args.flags);
    if (ret < 0) {
        io_print_failure("writev", ret);
    } else {
        io_print_report(&args.report, "wrote", start_ns, args.offset,
                        qiov.size, qiov.size);
    }
    io_free_buffer(io, buf, qiov.size, args.registered);
    qemu_iovec_destroy(&qiov);
    return ret;
}

static int cmd_discard(QemuIo *io, const IoCommand *cmd, int argc,
                       char **argv)
{
    WriteArgs args = { 0 };
    int64_t start_ns;
    int ret;

    ret = parse_write_options(cmd, argc, argv, "Cq", &args);
    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2) {
        return io_usage(cmd);
    }
    ret = parse_range(argv + optind, true, "", &args.offset, &args.bytes);
    if (ret < 0) {
        return ret;
    }
    start_ns = qemu_clock_ns();
    ret = blk_pdiscard(io->blk, args.offset, args.bytes);
    if (ret < 0) {
        return io_print_failure("discard", ret);
    }
    io_print_report(&args.report, "discard", start_ns, args.offset,
                    args.bytes, args.bytes);
    return 0;
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
