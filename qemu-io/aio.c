/*
 * aio_read, aio_write and aio_flush: requests that are under way while other
 * commands run.  Their results are printed when the loop runs: between
 * commands, while waiting for input, and in aio_flush.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

#define UNREAD_PATTERN 0xab
#define WRITE_PATTERN 0xcd

/* Lives from its submission to its callback. */
typedef struct AioTransfer {
    BdrvTrackedRequest req;
    QemuIo *io;
    IoReport report;
    QEMUIOVector qiov;         /* unused for zeroes */
    uint8_t *buf;              /* NULL for zeroes */
    bool zeroes;
    bool dump;
    bool registered;
    bool invalid;
    int pattern;               /* -1: not given */
    int64_t start_ns;
} AioTransfer;

static void free_transfer(AioTransfer *t)
{
    if (t->buf) {
        io_free_buffer(t->io, t->buf, t->qiov.size, t->registered);
        qemu_iovec_destroy(&t->qiov);
    }
    g_free(t);
}

static void finish_transfer(AioTransfer *t)
{
    t->io->in_flight--;
    free_transfer(t);
}

static void read_done(BdrvTrackedRequest *req)
{
    AioTransfer *t = container_of(req, AioTransfer, req);

    if (req->ret < 0) {
        io_print_failure("readv", req->ret);
        finish_transfer(t);
        return;
    }
    if (t->pattern >= 0 && !io_is_pattern(t->buf, t->qiov.size, t->pattern)) {
        printf("Pattern verification failed at offset %" PRId64 ", %zu "
               "bytes\n", req->offset, t->qiov.size);
    }
    if (!t->report.quiet) {
        if (t->dump) {
            io_dump_buffer(t->buf, req->offset, t->qiov.size);
        }
        io_print_report(&t->report, "read", t->start_ns, req->offset,
                        req->bytes, req->bytes);
    }
    finish_transfer(t);
}

static void write_done(BdrvTrackedRequest *req)
{
    AioTransfer *t = container_of(req, AioTransfer, req);

    if (req->ret < 0) {
        io_print_failure("aio_write", req->ret);
    } else {
        io_print_report(&t->report, "wrote", t->start_ns, req->offset,
                        req->bytes, req->bytes);
    }
    finish_transfer(t);
}

static void submit(AioTransfer *t, BdrvRequestType type,
                   BdrvRequestCallback *cb)
{
    t->req.type = type;
    t->req.cb = cb;
    if (t->buf) {
        t->req.bytes = t->qiov.size;
        t->req.qiov = &t->qiov;
        if (t->registered) {
            t->req.flags |= BDRV_REQ_REGISTERED_BUF;
        }
    }
    t->io->in_flight++;
    t->start_ns = qemu_clock_ns();
    blk_aio_submit(t->io->blk, &t->req);
}

static int parse_options(const IoCommand *cmd, int argc, char **argv,
                         const char *letters, AioTransfer *t)
{
    int c;

    t->pattern = -1;
    while ((c = getopt(argc, argv, letters)) != -1) {
        switch (c) {
        case 'C':
            t->report.machine = true;
            break;
        case 'f':
            t->req.flags |= BDRV_REQ_FUA;
            break;
        case 'i':
            t->invalid = true;
            break;
        case 'P':
            t->pattern = io_parse_pattern(optarg);
            if (t->pattern < 0) {
                return -EINVAL;
            }
            break;
        case 'q':
            t->report.quiet = true;
            break;
        case 'r':
            t->registered = true;
            break;
        case 'u':
            t->req.flags |= BDRV_REQ_MAY_UNMAP;
            break;
        case 'v':
            t->dump = true;
            break;
        case 'z':
            t->zeroes = true;
            break;
        default:
            return io_usage(cmd);
        }
    }
    if (optind > argc - 2) {
        return io_usage(cmd);
    }
    return 0;
}

/* The offset, and the lengths into a vector. */
static int parse_vector(AioTransfer *t, int argc, char **argv, int pattern)
{
    t->req.offset = io_parse_size(argv[optind]);
    if (t->req.offset < 0) {
        return t->req.offset;
    }
    t->buf = io_make_vector(t->io, &t->qiov, argv + optind + 1,
                            argc - optind - 1, pattern, t->registered);
    return t->buf ? 0 : -EINVAL;
}

static int start_read(AioTransfer *t, const IoCommand *cmd, int argc,
                      char **argv)
{
    int ret = parse_options(cmd, argc, argv, "CP:iqrv", t);

    if (ret < 0) {
        return ret;
    }
    if (t->invalid) {
        printf("injecting invalid read request\n");
        return -ECANCELED;
    }
    ret = parse_vector(t, argc, argv, UNREAD_PATTERN);
    if (ret == 0) {
        submit(t, BDRV_REQ_READ, read_done);
    }
    return ret;
}

/* -z: one length, no buffer. */
static int parse_zeroes(AioTransfer *t, int argc, char **argv)
{
    if (optind != argc - 2) {
        printf("-z supports only a single length parameter\n");
        return -EINVAL;
    }
    t->req.offset = io_parse_size(argv[optind]);
    if (t->req.offset < 0) {
        return t->req.offset;
    }
    t->req.bytes = io_parse_size(argv[optind + 1]);
    return t->req.bytes < 0 ? t->req.bytes : 0;
}

static int start_write(AioTransfer *t, const IoCommand *cmd, int argc,
                       char **argv)
{
    int ret = parse_options(cmd, argc, argv, "CfiP:qruz", t);

    if (ret < 0) {
        return ret;
    }
    if ((t->req.flags & BDRV_REQ_MAY_UNMAP) && !t->zeroes) {
        printf("-u requires -z to be specified\n");
        return -EINVAL;
    }
    if (t->zeroes && t->registered) {
        printf("cannot combine zero write with registered I/O buffer\n");
        return -EINVAL;
    }
    if (t->invalid) {
        printf("injecting invalid write request\n");
        return -ECANCELED;
    }
    ret = t->zeroes ? parse_zeroes(t, argc, argv) :
          parse_vector(t, argc, argv, t->pattern >= 0 ? t->pattern :
                       WRITE_PATTERN);
    if (ret == 0) {
        submit(t, t->zeroes ? BDRV_REQ_WRITE_ZEROES : BDRV_REQ_WRITE,
               write_done);
    }
    return ret;
}

/* Run @start on a new transfer, which it keeps if it returns 0. */
static int start_transfer(QemuIo *io, const IoCommand *cmd, int argc,
                          char **argv,
                          int (*start)(AioTransfer *t, const IoCommand *cmd,
                                       int argc, char **argv))
{
    AioTransfer *t = g_new0(AioTransfer, 1);
    int ret;

    t->io = io;
    ret = start(t, cmd, argc, argv);
    if (ret < 0) {
        free_transfer(t);
    }
    /* -ECANCELED: there was nothing to start, as asked. */
    return ret == -ECANCELED ? 0 : ret;
}

static int cmd_aio_read(QemuIo *io, const IoCommand *cmd, int argc,
                        char **argv)
{
    return start_transfer(io, cmd, argc, argv, start_read);
}

static int cmd_aio_write(QemuIo *io, const IoCommand *cmd, int argc,
                         char **argv)
{
    return start_transfer(io, cmd, argc, argv, start_write);
}

void io_drain(QemuIo *io)
{
    while (io->in_flight > 0) {
        aio_poll(io->ctx, true);
    }
}

static int cmd_aio_flush(QemuIo *io, const IoCommand *cmd, int argc,
                         char **argv)
{
    io_drain(io);
    return 0;
}

static const IoCommand aio_read_command = {
    .name = "aio_read",
    .run = cmd_aio_read,
    .min_args = 2,
    .max_args = -1,
    .needs_file = true,
    .args = "[-Ciqrv] [-P pattern] off len [len..]",
    .oneline = "asynchronously reads a number of bytes",
    .help =
"\n"
" asynchronously reads a range of bytes from the given offset\n"
"\n"
" Example:\n"
" 'aio_read -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the "
"file\n"
"\n"
" Reads a segment of the currently open file, optionally dumping it to the\n"
" standard output stream (with -v option) for subsequent inspection.\n"
" The read is performed asynchronously and the aio_flush command must be\n"
" used to ensure all outstanding aio requests have been completed.\n"
" Note that due to its asynchronous nature, this command will be\n"
" considered successful once the request is submitted, independently\n"
" of potential I/O errors or pattern mismatches.\n"
" -C, -- report statistics in a machine parsable format\n"
" -i, -- treat request as invalid, for exercising stats\n"
" -P, -- use a pattern to verify read data\n"
" -q, -- quiet mode, do not show I/O statistics\n"
" -r, -- register I/O buffer\n"
" -v, -- dump buffer to standard output\n"
"\n",
};

static const IoCommand aio_write_command = {
    .name = "aio_write",
    .run = cmd_aio_write,
    .min_args = 2,
    .max_args = -1,
    .needs_file = true,
    .writes = true,
    .args = "[-Cfiqruz] [-P pattern] off len [len..]",
    .oneline = "asynchronously writes a number of bytes",
    .help =
"\n"
" asynchronously writes a range of bytes from the given offset source\n"
" from multiple buffers\n"
"\n"
" Example:\n"
" 'aio_write 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file\n"
"\n"
" Writes into a segment of the currently open file, using a buffer\n"
" filled with a set pattern (0xcdcdcdcd).\n"
" The write is performed asynchronously and the aio_flush command must be\n"
" used to ensure all outstanding aio requests have been completed.\n"
" Note that due to its asynchronous nature, this command will be\n"
" considered successful once the request is submitted, independently\n"
" of potential I/O errors or pattern mismatches.\n"
" -C, -- report statistics in a machine parsable format\n"
" -f, -- use Force Unit Access semantics\n"
" -i, -- treat request as invalid, for exercising stats\n"
" -P, -- use different pattern to fill file\n"
" -q, -- quiet mode, do not show I/O statistics\n"
" -r, -- register I/O buffer\n"
" -u, -- with -z, allow unmapping\n"
" -z, -- write zeroes using blk_aio_pwrite_zeroes\n"
"\n",
};

static const IoCommand aio_flush_command = {
    .name = "aio_flush",
    .run = cmd_aio_flush,
    .needs_file = true,
    .oneline = "completes all outstanding aio requests",
};

const IoCommand *const io_aio_commands[] = {
    &aio_read_command,
    &aio_write_command,
    &aio_flush_command,
    NULL,
};
