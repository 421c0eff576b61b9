/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images over one another: making, filling, judging them.
 */
#include "overlays.h"
#include "qcow2-checker.h"
#include "../../qemu-img/qemu-img.h"

void overlays_create(const char *driver, const char *disk, const char *options,
                     int64_t size)
{
    g_autofree char *name = g_strdup_printf("write-log:%s", disk);
    json_t *o = options_from_json(options, &error_abort);

    json_object_set_new(o, "size", json_integer(size));
    g_assert_true(bdrv_create(img_graph(), driver, name, o, &error_abort));
}

static int write_something(BlockBackend *blk, GRand *rand, int64_t at,
                           int64_t bytes, int flags)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    for (int64_t i = 0; i < bytes; i++) {
        buf[i] = i % 512 ? buf[i - 1] : g_rand_int_range(rand, 1, 256);
    }
    return blk_pwrite(blk, at, bytes, buf, flags);
}

void overlays_scribble(BlockBackend *blk, GRand *rand, int n,
                       int64_t compress_unit)
{
    int64_t sectors = blk_getlength(blk) / 512;

    for (int i = 0; i < n; i++) {
        int64_t at = g_rand_int_range(rand, 0, sectors);
        int64_t bytes = g_rand_int_range(rand, 1, 64);
        int dice = g_rand_int_range(rand, 0, 6), ret;

        bytes = MIN(bytes, sectors - at) * 512;
        at *= 512;
        if (dice == 0) {
            ret = blk_pwrite_zeroes(blk, at, bytes, 0);
        } else if (dice == 1) {
            ret = blk_pwrite_zeroes(blk, at, bytes, BDRV_REQ_MAY_UNMAP);
        } else if (dice == 2 && compress_unit) {
            ret = write_something(blk, rand, QEMU_ALIGN_DOWN(at, compress_unit),
                                  compress_unit, BDRV_REQ_WRITE_COMPRESSED);
        } else {
            ret = write_something(blk, rand, at, bytes, 0);
        }
        g_assert_cmpint(ret, ==, 0);
    }
}

bool overlays_are_sound(const WriteLogDisk *d, bool may_leak, GString *why)
{
    Qcow2CheckerResult res;

    if (!qcow2_checker_run(d->img, &res, why) ||
        (!may_leak && (res.leaks || res.is_dirty))) {
        g_string_append_printf(why, ", %s: %u leaks", d->id, res.leaks);
        return false;
    }
    return true;
}

bool overlays_read_as(BlockBackend *blk, const uint8_t *expected, int64_t size,
                      const char *what, GString *why)
{
    g_autofree uint8_t *buf = g_malloc(size);
    int ret = blk ? blk_pread(blk, 0, size, buf, 0) : -ENOENT;
    int64_t i = 0;

    if (ret < 0) {
        g_string_append_printf(why, "%s: %s", what, strerror(-ret));
        return false;
    }
    while (i < size && buf[i] == expected[i]) {
        i++;
    }
    if (i < size) {
        g_string_append_printf(why, "%s: %#x at %" PRId64 ", not %#x", what,
                               buf[i], i, expected[i]);
    }
    return i == size;
}
