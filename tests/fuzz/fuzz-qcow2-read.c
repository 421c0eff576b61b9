/*
 * libFuzzer: the input is a qcow2 image.  Open it, ask for its status, and read
 * it: the first bytes, and some of what the status says there is.  Nothing that
 * it says may crash us, hang us, or make us allocate without measure.
 *
 * The image is a file in memory.  Its backing and data files are not opened: an
 * input must not choose files of this machine's.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "block/block-backend.h"
#include "block/block-driver.h"

#define MAX_STEPS 256
#define MAX_READ (4 * MiB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static BlockBackend *open_image(BlockGraph *graph, int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    json_t *o = json_pack("{s:s, s:{s:s, s:s, s:s}}", "driver", "qcow2",
                          "file", "driver", "file", "filename", path,
                          "locking", "off");

    json_object_set_new(o, "l2-cache-size", json_integer(16384));
    return blk_new_open(graph, NULL, NULL, o, BDRV_O_NO_BACKING, NULL);
}

/* What goes wrong is the image's fault, and no matter. */
static void read_some(BlockBackend *blk, int64_t offset, int64_t bytes,
                      int64_t *budget)
{
    int64_t n = MIN(bytes, MIN(*budget, 128 * KiB));
    g_autofree void *buf = g_malloc(n + 1);

    *budget -= n;
    (void)blk_pread(blk, offset, n, buf, 0);
    (void)blk_pread(blk, offset + bytes - n, n, buf, 0);
}

static void read_image(BlockBackend *blk)
{
    int64_t size = blk_getlength(blk), at = 0, budget = MAX_READ;

    read_some(blk, 0, MIN(size, 64 * KiB), &budget);
    for (int i = 0; i < MAX_STEPS && at < size && budget > 0; i++) {
        BlockDriverState *file;
        int64_t n, map;
        int st = bdrv_block_status_above(blk_bs(blk), NULL, at, size - at, &n,
                                         &map, &file);

        if (st < 0) {
            n = MIN(64 * KiB, size - at);
        } else if (n <= 0 || n > size - at) {
            abort();
        }
        if (st < 0 || (st & BDRV_BLOCK_DATA)) {
            read_some(blk, at, n, &budget);
        }
        at += n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static BlockGraph *graph;
    int fd = memfd_create("image", MFD_CLOEXEC);
    BlockBackend *blk;

    if (!graph) {
        graph = block_graph_new();
    }
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    blk = open_image(graph, fd);
    if (blk) {
        read_image(blk);
        blk_unref(blk);
    }
    close(fd);
    return 0;
}
