/*
 * What read, write and discard have in common: options, and operands.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"
#include "block/snapshot.h"

int io_parse_transfer_option(IoTransfer *t, const IoCommand *cmd, int c)
{
    switch (c) {
    case 'b':
        t->vmstate = true;
        return 0;
    case 'C':
        t->report.machine = true;
        return 0;
    case 'p':
        return 0;
    case 'P':
        t->pattern = io_parse_pattern(optarg);
        return t->pattern < 0 ? -EINVAL : 0;
    case 'q':
        t->report.quiet = true;
        return 0;
    case 'r':
        t->flags |= BDRV_REQ_REGISTERED_BUF;
        return 0;
    default:
        return io_usage(cmd);
    }
}

int io_parse_range(IoTransfer *t, char **argv, bool limited,
                   const char *suffix)
{
    t->offset = io_parse_size(argv[0]);
    if (t->offset < 0) {
        return t->offset;
    }
    t->bytes = io_parse_size(argv[1]);
    if (t->bytes < 0) {
        return t->bytes;
    }
    if (limited && t->bytes > IO_MAX_BYTES) {
        printf("length cannot exceed %" PRId64 "%s, given %s\n", IO_MAX_BYTES,
               suffix, argv[1]);
        return -EINVAL;
    }
    return 0;
}

uint8_t *io_parse_vector(QemuIo *io, const IoCommand *cmd, IoTransfer *t,
                         int argc, char **argv, int pattern,
                         QEMUIOVector *qiov)
{
    uint8_t *buf;

    if (optind > argc - 2) {
        io_usage(cmd);
        return NULL;
    }
    t->offset = io_parse_size(argv[optind]);
    if (t->offset < 0) {
        return NULL;
    }
    buf = io_make_vector(io, qiov, argv + optind + 1, argc - optind - 1,
                         pattern, io_is_registered(t));
    if (buf) {
        t->bytes = qiov->size;
    }
    return buf;
}

int io_check_sectors(const IoTransfer *t)
{
    if (!QEMU_IS_ALIGNED(t->offset, BDRV_SECTOR_SIZE)) {
        printf("%" PRId64 " is not a sector-aligned value for 'offset'\n",
               t->offset);
        return -EINVAL;
    }
    if (!QEMU_IS_ALIGNED(t->bytes, BDRV_SECTOR_SIZE)) {
        printf("%" PRId64 " is not a sector-aligned value for 'count'\n",
               t->bytes);
        return -EINVAL;
    }
    return 0;
}

int io_load_vmstate(QemuIo *io, const IoTransfer *t, void *buf)
{
    QEMUIOVector qiov;

    io_drain(io);
    qemu_iovec_init_buf(&qiov, buf, t->bytes);
    return bdrv_load_vmstate(blk_bs(io->blk), t->offset, &qiov);
}

int io_save_vmstate(QemuIo *io, const IoTransfer *t, void *buf)
{
    QEMUIOVector qiov;
    int ret;

    io_drain(io);
    qemu_iovec_init_buf(&qiov, buf, t->bytes);
    ret = bdrv_save_vmstate(blk_bs(io->blk), t->offset, &qiov);
    if (ret == 0 && !blk_enable_write_cache(io->blk)) {
        ret = blk_flush(io->blk);
    }
    return ret;
}
