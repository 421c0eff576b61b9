/*
 * read and readv.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

/* What a buffer holds that nothing was read into. */
#define UNREAD_PATTERN 0xab

typedef struct ReadArgs {
    IoTransfer t;
    bool dump;
    int64_t verify_offset;     /* within what is read */
    int64_t verify_bytes;      /* -1: to the end */
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

    args->t.pattern = -1;
    args->verify_bytes = -1;
    while ((c = getopt(argc, argv, letters)) != -1) {
        switch (c) {
        case 'l':
        case 's':
            ret = parse_verify_range(args, c);
            range = true;
            break;
        case 'v':
            ret = 0;
            args->dump = true;
            break;
        default:
            ret = io_parse_transfer_option(&args->t, cmd, c);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return range && args->t.pattern < 0 ? io_usage(cmd) : 0;
}

/* -l and -s, once it is known how much is read. */
static int check_verify_range(ReadArgs *args)
{
    if (args->verify_bytes < 0) {
        args->verify_bytes = args->t.bytes - args->verify_offset;
    }
    if (args->verify_bytes < 0 ||
        args->verify_offset > args->t.bytes - args->verify_bytes) {
        printf("pattern verification range exceeds end of read data\n");
        return -EINVAL;
    }
    return 0;
}

/* Verify, dump and report what was read into @buf. */
static int finish_read(const ReadArgs *args, const uint8_t *buf,
                       int64_t start_ns)
{
    const IoTransfer *t = &args->t;
    int ret = 0;

    if (t->pattern >= 0 &&
        !io_is_pattern(buf + args->verify_offset, args->verify_bytes,
                       t->pattern)) {
        printf("Pattern verification failed at offset %" PRId64 ", %" PRId64
               " bytes\n", t->offset + args->verify_offset,
               args->verify_bytes);
        ret = -EINVAL;
    }
    if (t->report.quiet) {
        return ret;
    }
    if (args->dump) {
        io_dump_buffer(buf, t->offset, t->bytes);
    }
    io_print_report(&t->report, "read", start_ns, t->offset, t->bytes,
                    t->bytes);
    return ret;
}

/* What read is to do; 0, or -errno after a message. */
static int parse_read(const IoCommand *cmd, int argc, char **argv,
                      ReadArgs *args)
{
    int ret = parse_read_options(cmd, argc, argv, "bCl:pP:qrs:v", args);

    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2) {
        return io_usage(cmd);
    }
    ret = io_parse_range(&args->t, argv + optind, true, "");
    ret = ret < 0 ? ret : check_verify_range(args);
    ret = ret < 0 || !args->t.vmstate ? ret : io_check_sectors(&args->t);
    if (ret == 0 && args->t.vmstate && io_is_registered(&args->t)) {
        printf("I/O buffer registration is not supported when reading from "
               "vmstate\n");
        return -EINVAL;
    }
    return ret;
}

static int cmd_read(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    ReadArgs args = { 0 };
    const IoTransfer *t = &args.t;
    int ret = parse_read(cmd, argc, argv, &args);
    int64_t start_ns;
    uint8_t *buf;

    if (ret < 0) {
        return ret;
    }
    buf = io_alloc_buffer(io, t->bytes, UNREAD_PATTERN, io_is_registered(t));
    if (!buf) {
        return -ENOMEM;
    }
    start_ns = qemu_clock_ns();
    ret = t->vmstate ? io_load_vmstate(io, t, buf) :
          blk_pread(io->blk, t->offset, t->bytes, buf, t->flags);
    ret = ret < 0 ? io_print_failure("read", ret) :
                    finish_read(&args, buf, start_ns);
    io_free_buffer(io, buf, t->bytes, io_is_registered(t));
    return ret;
}

static int cmd_readv(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    ReadArgs args = { 0 };
    IoTransfer *t = &args.t;
    QEMUIOVector qiov;
    int64_t start_ns;
    uint8_t *buf;
    int ret;

    ret = parse_read_options(cmd, argc, argv, "CP:qrv", &args);
    if (ret < 0) {
        return ret;
    }
    buf = io_parse_vector(io, cmd, t, argc, argv, UNREAD_PATTERN, &qiov);
    if (!buf) {
        return -EINVAL;
    }
    args.verify_bytes = t->bytes;
    start_ns = qemu_clock_ns();
    ret = blk_preadv(io->blk, t->offset, t->bytes, &qiov, 0, t->flags);
    ret = ret < 0 ? io_print_failure("readv", ret) :
                    finish_read(&args, buf, start_ns);
    io_free_buffer(io, buf, qiov.size, io_is_registered(t));
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
