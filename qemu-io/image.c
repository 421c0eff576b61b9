/*
 * What concerns the image as a whole: flush, truncate, length, info, map and
 * alloc.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"
#include "block/block-driver.h"
#include "block/qapi.h"

static int cmd_flush(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    int ret = blk_flush(io->blk);

    return ret < 0 ? io_print_failure("flush", ret) : 0;
}

/* The mode called @name, or -1 after a message. */
static int parse_prealloc(const char *name)
{
    for (int i = 0; PreallocMode_names[i]; i++) {
        if (g_str_equal(PreallocMode_names[i], name)) {
            return i;
        }
    }
    error_report("Invalid preallocation mode '%s'", name);
    return -1;
}

static int cmd_truncate(QemuIo *io, const IoCommand *cmd, int argc,
                        char **argv)
{
    int prealloc = PREALLOC_MODE_OFF;
    Error *err = NULL;
    int64_t offset;
    int c;

    while ((c = getopt(argc, argv, "m:")) != -1) {
        if (c != 'm') {
            return io_usage(cmd);
        }
        prealloc = parse_prealloc(optarg);
        if (prealloc < 0) {
            return -EINVAL;
        }
    }
    if (optind >= argc) {
        return io_usage(cmd);
    }
    offset = io_parse_size(argv[optind]);
    if (offset < 0) {
        return offset;
    }
    io_drain(io);
    if (!blk_truncate(io->blk, offset, false, prealloc, 0, &err)) {
        error_report_err(err);
        return -EIO;
    }
    return 0;
}

/* The length, or -errno after a message. */
static int64_t image_length(QemuIo *io)
{
    int64_t length = blk_getlength(io->blk);

    if (length < 0) {
        printf("getlength: %s\n", g_strerror(-length));
    }
    return length;
}

static int cmd_length(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    int64_t length = image_length(io);
    g_autofree char *text = NULL;

    if (length < 0) {
        return length;
    }
    text = io_size_text(length);
    printf("%s\n", text);
    return 0;
}

static int cmd_info(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    BlockDriverState *bs = blk_bs(io->blk);
    BlockDriverInfo info = { 0 };
    g_autofree char *cluster = NULL, *vm_state = NULL, *specific = NULL;
    Error *err = NULL;
    int ret;

    printf("format name: %s\n", bdrv_get_format_name(bs));
    ret = bdrv_get_info(bs, &info);
    if (ret < 0) {
        return ret;
    }
    cluster = io_size_text(info.cluster_size);
    vm_state = io_size_text(info.vm_state_offset);
    printf("cluster size: %s\n"
           "vm state offset: %s\n", cluster, vm_state);
    specific = bdrv_specific_info_to_text(bs, &err);
    if (!specific) {
        error_report_err(err);
        return -EIO;
    }
    printf("%s", specific);
    return 0;
}

/* As bdrv_is_allocated(), but for ranges of one kind as a whole. */
static int whole_range(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       int64_t *pnum)
{
    int first = -1;

    *pnum = 0;
    while (bytes > 0) {
        int64_t n = 0;
        int ret = bdrv_is_allocated(bs, offset, bytes, &n);

        if (ret < 0) {
            return ret;
        }
        if (n == 0 || (first >= 0 && ret != first)) {
            break;
        }
        first = ret;
        *pnum += n;
        offset += n;
        bytes -= n;
    }
    return MAX(first, 0);
}

static int cmd_map(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    int64_t length = image_length(io);
    int64_t offset = 0, n;

    if (length < 0) {
        return length;
    }
    while (offset < length) {
        g_autofree char *size = NULL, *where = NULL;
        int ret = whole_range(blk_bs(io->blk), offset, length - offset, &n);

        if (ret < 0) {
            error_report("Failed to get allocation status: %s",
                         g_strerror(-ret));
            return ret;
        }
        if (n == 0) {
            error_report("Unexpected end of image");
            return -EIO;
        }
        size = io_size_text(n);
        where = io_size_text(offset);
        printf("%s (0x%" PRIx64 ") bytes %s at offset %s (0x%" PRIx64 ")\n",
               size, (uint64_t)n, ret ? "    allocated" : "not allocated",
               where, (uint64_t)offset);
        offset += n;
    }
    return 0;
}

static int cmd_alloc(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    int64_t length, offset, count = BDRV_SECTOR_SIZE;
    int64_t remaining, allocated = 0, n;
    g_autofree char *where = NULL;

    offset = io_parse_size(argv[1]);
    if (offset < 0) {
        return offset;
    }
    if (argc == 3) {
        count = io_parse_size(argv[2]);
        if (count < 0) {
            return count;
        }
    }
    length = image_length(io);
    if (length < 0) {
        return length;
    }
    count = offset < length ? MIN(count, length - offset) : 0;
    for (remaining = count; remaining > 0; remaining -= n) {
        int ret = whole_range(blk_bs(io->blk), offset + count - remaining,
                              remaining, &n);

        if (ret < 0) {
            return io_print_failure("is_allocated", ret);
        }
        if (n == 0) {
            break;
        }
        if (ret) {
            allocated += n;
        }
    }
    where = io_size_text(offset);
    printf("%" PRId64 "/%" PRId64 " bytes allocated at offset %s\n",
           allocated, count, where);
    return 0;
}

static const IoCommand flush_command = {
    .name = "flush",
    .alias = "f",
    .run = cmd_flush,
    .needs_file = true,
    .oneline = "flush all in-core file state to disk",
};

static const IoCommand truncate_command = {
    .name = "truncate",
    .alias = "t",
    .run = cmd_truncate,
    .min_args = 1,
    .max_args = 3,
    .needs_file = true,
    .writes = true,
    .resizes = true,
    .args = "[-m prealloc_mode] off",
    .oneline = "truncates the current file at the given offset",
};

static const IoCommand length_command = {
    .name = "length",
    .alias = "l",
    .run = cmd_length,
    .needs_file = true,
    .oneline = "gets the length of the current file",
};

static const IoCommand info_command = {
    .name = "info",
    .alias = "i",
    .run = cmd_info,
    .needs_file = true,
    .oneline = "prints information about the current file",
};

static const IoCommand map_command = {
    .name = "map",
    .run = cmd_map,
    .needs_file = true,
    .args = "",
    .oneline = "prints the allocated areas of a file",
};

static const IoCommand alloc_command = {
    .name = "alloc",
    .alias = "a",
    .run = cmd_alloc,
    .min_args = 1,
    .max_args = 2,
    .needs_file = true,
    .args = "offset [count]",
    .oneline = "checks if offset is allocated in the file",
};

const IoCommand *const io_image_commands[] = {
    &flush_command,
    &truncate_command,
    &length_command,
    &info_command,
    &map_command,
    &alloc_command,
    NULL,
};
