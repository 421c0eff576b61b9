/*
 * read and readv.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

/* What a buffer holds that nothing was read into. */
#define UNREAD_PATTERN 0xab

typedef struct ReadArgs {
    IoReport report;
    bool dump;
    bool vmstate;
    bool registered;
    int pattern;               /* -1: do not verify */
    int64_t verify_offset;     /* within what is read */
    int64_t verify_bytes;      /* -1: to the end */
    int64_t offset;
    int64_t bytes;
} ReadArgs;

/* -l or -s: 0, or -errno after a message. */
static int parse_verify_range(ReadArgs *args, int c)
{
    int64_t n = io_parse_size(optarg);

    if (n < 0) {
        return n;
    }
    *(c == 'l' ? &args->verify_bytes : &args->verify_offset) = n;
    return 0;
}

/* 0, or -errno after a message. */
static int parse_read_options(const IoCommand *cmd, int argc, char **argv,
                              const char *letters, ReadArgs *args)
{
    bool range = false;
    int c, ret;

    args->pattern = -1;
    args->verify_bytes = -1;
    while ((c = getopt(argc, argv, letters)) != -1) {
        switch (c) {
        case 'b':
            args->vmstate = true;
            break;
        case 'C':
            args->report.machine = true;
            break;
        case 'l':
        case 's':
            ret = parse_verify_range(args, c);
            if (ret < 0) {
                return ret;
            }
            range = true;
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
        case 'v':
            args->dump = true;
            break;
        default:
            return io_usage(cmd);
        }
    }
    return range && args->pattern < 0 ? io_usage(cmd) : 0;
}

static int parse_range(ReadArgs *args, char **argv)
{
    args->offset = io_parse_size(argv[0]);
    if (args->offset < 0) {
        return args->offset;
    }
    args->bytes = io_parse_size(argv[1]);
    if (args->bytes < 0) {
        return args->bytes;
    }
    if (args->bytes > IO_MAX_BYTES) {
        printf("length cannot exceed %" PRId64 ", given %s\n", IO_MAX_BYTES,
               argv[1]);
        return -EINVAL;
    }
    if (args->verify_bytes < 0) {
        args->verify_bytes = args->bytes - args->verify_offset;
    }
    if (args->verify_bytes < 0 ||
        args->verify_offset > args->bytes - args->verify_bytes) {
        printf("pattern verification range exceeds end of read data\n");
        return -EINVAL;
    }
    return 0;
}

/* Verify, dump and report what was read into @buf. */
static int finish_read(const ReadArgs *args, const uint8_t *buf,
                       int64_t start_ns)
{
    int ret = 0;

    if (args->pattern >= 0 &&
        !io_is_pattern(buf + args->verify_offset, args->verify_bytes,
                       args->pattern)) {
        printf("Pattern verification failed at offset %" PRId64 ", %" PRId64
               " bytes\n", args->offset + args->verify_offset,
               args->verify_bytes);
        ret = -EINVAL;
    }
    if (args->report.quiet) {
        return ret;
    }
    if (args->dump) {
        io_dump_buffer(buf, args->offset, args->bytes);
    }
    io_print_report(&args->report, "read", start_ns, args->offset,
                    args->bytes, args->bytes);
    return ret;
}

static int cmd_read(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    ReadArgs args = { 0 };
    int64_t start_ns;
    uint8_t *buf;
    int ret;

    ret = parse_read_options(cmd, argc, argv, "bCl:pP:qrs:v", &args);
    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2) {
        return io_usage(cmd);
    }
    ret = parse_range(&args, argv + optind);
    if (ret < 0) {
        return ret;
    }
    buf = io_alloc_buffer(io, args.bytes, UNREAD_PATTERN, args.registered);
    if (!buf) {
        return -ENOMEM;
    }
    start_ns = qemu_clock_ns();
    /* No format here keeps the state of a machine. */
    ret = args.vmstate ? -ENOTSUP :
          blk_pread(io->blk, args.offset, args.bytes, buf,
                    args.registered ? BDRV_REQ_REGISTERED_BUF : 0);
    ret = ret < 0 ? io_print_failure("read", ret) :
                    finish_read(&args, buf, start_ns);
    io_free_buffer(io, buf, args.bytes, args.registered);
    return ret;
}

static int cmd_readv(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    ReadArgs args = { 0 };
    QEMUIOVector qiov;
    int64_t start_ns;
    uint8_t *buf;
    int ret;

    ret = parse_read_options(cmd, argc, argv, "CP:qrv", &args);
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
                         UNREAD_PATTERN, args.registered);
    if (!buf) {
        return -EINVAL;
    }
    args.bytes = args.verify_bytes = qiov.size;
    start_ns = qemu_clock_ns();
    ret = blk_preadv(io->blk, args.offset, args.bytes, &qiov, 0,
                     args.registered ? BDRV_REQ_REGISTERED_BUF : 0);
    ret = ret < 0 ? io_print_failure("readv", ret) :
                    finish_read(&args, buf, start_ns);
    io_free_buffer(io, buf, qiov.size, args.registered);
    qemu_iovec_destroy(&qiov);
    return ret;
}

static const IoCommand read_command = {
    .name = "read",
    .alias = "r",
    .run = cmd_read,
    .min_args = 2,
    .max_args = -1,
    .needs_file = true,
    .args = "[-abCqrv] [-P pattern [-s off] [-l len]] off len",
    .oneline = "reads a number of bytes at a specified offset",
    .help =
"\n"
" reads a range of bytes from the given offset\n"
"\n"
" Example:\n"
" 'read -v 512 1k' - dumps 1 kilobyte read from 512 bytes into the file\n"
"\n"
" Reads a segment of the currently open file, optionally dumping it to the\n"
" standard output stream (with -v option) for subsequent inspection.\n"
" -b, -- read from the VM state rather than the virtual disk\n"
" -C, -- report statistics in a machine parsable format\n"
" -l, -- length for pattern verification (only with -P)\n"
" -p, -- ignored for backwards compatibility\n"
" -P, -- use a pattern to verify read data\n"
" -q, -- quiet mode, do not show I/O statistics\n"
" -r, -- register I/O buffer\n"
" -s, -- start offset for pattern verification (only with -P)\n"
" -v, -- dump buffer to standard output\n"
"\n",
};

static const IoCommand readv_command = {
    .name = "readv",
    .run = cmd_readv,
    .min_args = 2,
    .max_args = -1,
    .needs_file = true,
    .args = "[-Cqrv] [-P pattern] off len [len..]",
    .oneline = "reads a number of bytes at a specified offset",
    .help =
"\n"
" reads a range of bytes from the given offset into multiple buffers\n"
"\n"
" Example:\n"
" 'readv -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the "
"file\n"
"\n"
" Reads a segment of the currently open file, optionally dumping it to the\n"
" standard output stream (with -v option) for subsequent inspection.\n"
" Uses multiple iovec buffers if more than one byte range is specified.\n"
" -C, -- report statistics in a machine parsable format\n"
" -P, -- use a pattern to verify read data\n"
" -q, -- quiet mode, do not show I/O statistics\n"
" -r, -- register I/O buffer\n"
" -v, -- dump buffer to standard output\n"
"\n",
};

const IoCommand *const io_read_commands[] = {
    &read_command,
    &readv_command,
    NULL,
};
