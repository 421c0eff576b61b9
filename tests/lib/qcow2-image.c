/*
 * A qcow2 image for tests: see qcow2-image.h.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qcow2-image.h"

#define QEMU_IMG "/usr/bin/qemu-img"

static int G_GNUC_PRINTF(1, 2) run(const char *format, ...)
{
    g_autofree char *command = NULL, *out = NULL, *err = NULL;
    g_autoptr(GError) error = NULL;
    va_list ap;
    int status;

    va_start(ap, format);
    command = g_strdup_vprintf(format, ap);
    va_end(ap);
    if (!g_spawn_command_line_sync(command, &out, &err, &status, &error)) {
        g_error("%s: %s", command, error->message);
    }
    if (status) {
        g_test_message("%s: %s%s", command, out, err);
    }
    g_assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

bool qcow2_image_can_run(void)
{
    if (!g_file_test(QEMU_IMG, G_FILE_TEST_IS_EXECUTABLE)) {
        g_test_skip("qemu-img is not installed");
        return false;
    }
    return true;
}

/* Create what the disk is on top of. */
static void make_backing(Qcow2Image *img)
{
    g_autofree char *raw = g_build_filename(img->dir, "backing.raw", NULL);

    for (int64_t i = 0; i < img->size; i++) {
        img->model[i] = i / 3000 & 1 ? 0x80 | (i / 3000 % 100) : 0;
    }
    g_assert_true(g_file_set_contents(raw, (char *)img->model, img->size,
                                      NULL));
    img->backing = g_build_filename(img->dir, "backing.qcow2", NULL);
    g_assert_cmpint(run(QEMU_IMG " convert -f raw -O qcow2 %s %s", raw,
                        img->backing), ==, 0);
    g_unlink(raw);
}

static int64_t cluster_size_of(const char *options)
{
    const char *p = strstr(options, "cluster_size=");

    return p ? g_ascii_strtoll(p + 13, NULL, 10) : 64 * KiB;
}

Qcow2Image *qcow2_image_new(const char *options, int64_t size, bool backing)
{
    Qcow2Image *img = g_new0(Qcow2Image, 1);
    g_autofree char *b = NULL;

    img->size = size;
    img->has_backing = backing;
    img->cluster_size = cluster_size_of(options);
    img->is_raw = strstr(options, "data_file_raw=on");
    img->is_v2 = strstr(options, "compat=0.10");
    img->dir = g_dir_make_tmp("qcow2-XXXXXX", NULL);
    g_assert_nonnull(img->dir);
    img->path = g_build_filename(img->dir, "image.qcow2", NULL);
    if (strstr(options, "data_file")) {
        img->data_file = g_build_filename(img->dir, "data.raw", NULL);
    }
    img->model = g_malloc0(size);
    if (backing) {
        make_backing(img);
        b = g_strdup_printf("-b %s -F qcow2", img->backing);
    }
    g_assert_cmpint(run(QEMU_IMG " create -q -f qcow2 -o %s%s%s %s %s %" PRId64,
                        options, img->data_file ? "=" : "",
                        img->data_file ?: "", b ?: "", img->path, size),
                    ==, 0);
    img->graph = block_graph_new();
    return img;
}

void qcow2_image_free(Qcow2Image *img)
{
    qcow2_image_close(img);
    block_graph_free(img->graph);
    g_unlink(img->path);
    if (img->backing) {
        g_unlink(img->backing);
    }
    if (img->data_file) {
        g_unlink(img->data_file);
    }
    g_rmdir(img->dir);
    g_free(img->dir);
    g_free(img->path);
    g_free(img->backing);
    g_free(img->data_file);
    g_free(img->model);
    g_free(img->snapshot);
    g_free(img);
}

void qcow2_image_open(Qcow2Image *img, const char *more)
{
    json_t *o = more ? options_from_json(more, &error_abort) : json_object();

    json_object_set_new(o, "driver", json_string("qcow2"));
    json_object_set_new(o, "discard", json_string("unmap"));
    json_object_set_new(o, "file",
        json_pack("{s:s, s:s, s:{s:s, s:s, s:s}}", "driver", "blkdebug",
                  "discard", "unmap", "image", "driver", "file", "filename",
                  img->path, "discard", "unmap"));
    img->blk = blk_new_open(img->graph, NULL, NULL, o,
                            BDRV_O_RDWR | BDRV_O_UNMAP, &error_abort);
}

void qcow2_image_close(Qcow2Image *img)
{
    if (img->blk) {
        blk_unref(img->blk);
        img->blk = NULL;
    }
}

BlockDriverState *qcow2_image_bs(Qcow2Image *img)
{
    return blk_bs(img->blk);
}

/* ---- Requests ---- */

static int result(Qcow2Image *img, int ret)
{
    if (!img->has_errors) {
        g_assert_cmpint(ret, ==, 0);
    }
    return ret;
}

uint8_t qcow2_image_pattern(int64_t offset, unsigned seed)
{
    return 1 + (seed * 37 + offset / 7 + offset / 512) % 251;
}

static void pattern(uint8_t *buf, int64_t offset, int64_t bytes, unsigned seed)
{
    for (int64_t i = 0; i < bytes; i++) {
        buf[i] = qcow2_image_pattern(offset + i, seed);
    }
}

int qcow2_image_write(Qcow2Image *img, int64_t offset, int64_t bytes,
                      unsigned seed, int flags)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    int ret;

    pattern(buf, offset, bytes, seed);
    ret = result(img, blk_pwrite(img->blk, offset, bytes, buf, flags));
    if (ret == 0) {
        memcpy(img->model + offset, buf, bytes);
    }
    return ret;
}

int qcow2_image_zero(Qcow2Image *img, int64_t offset, int64_t bytes, int flags)
{
    int ret = result(img, blk_pwrite_zeroes(img->blk, offset, bytes, flags));

    if (ret == 0) {
        memset(img->model + offset, 0, bytes);
    }
    return ret;
}

int qcow2_image_discard(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    int ret = result(img, blk_pdiscard(img->blk, offset, bytes));
    int64_t start = QEMU_ALIGN_UP(offset, img->cluster_size);
    int64_t end = QEMU_ALIGN_DOWN(offset + bytes, img->cluster_size);

    /* Without a flag for zeroes the backing file would show through. */
    if (ret == 0 && start < end && !(img->is_v2 && img->has_backing)) {
        memset(img->model + start, 0, end - start);
    }
    return ret;
}

static void compare(const uint8_t *got, const uint8_t *want, int64_t offset,
                    int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++) {
        if (got[i] != want[i]) {
            g_error("differs at %#" PRIx64 ": %#x, not %#x",
                    (uint64_t)(offset + i), got[i], want[i]);
        }
    }
}

void qcow2_image_verify(Qcow2Image *img, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    g_assert_cmpint(blk_pread(img->blk, offset, bytes, buf, 0), ==, 0);
    compare(buf, img->model + offset, offset, bytes);
}

/* ---- The installed tools ---- */

int qcow2_image_check(Qcow2Image *img)
{
    return run(QEMU_IMG " check -q -f qcow2 %s", img->path);
}

static uint8_t *contents(Qcow2Image *img, const char *which)
{
    g_autofree char *raw = g_build_filename(img->dir, "out.raw", NULL);
    char *data;
    gsize length;

    g_assert_cmpint(run(QEMU_IMG " convert -f qcow2 -O raw %s %s %s", which,
                        img->path, raw), ==, 0);
    g_assert_true(g_file_get_contents(raw, &data, &length, NULL));
    g_assert_cmpint(length, ==, img->size);
    g_unlink(raw);
    return (uint8_t *)data;
}

uint8_t *qcow2_image_contents(Qcow2Image *img)
{
    return contents(img, "");
}

void qcow2_image_snapshot(Qcow2Image *img)
{
    g_assert_cmpint(run(QEMU_IMG " snapshot -c s %s", img->path), ==, 0);
    img->snapshot = g_memdup2(img->model, img->size);
}

void qcow2_image_assert_good(Qcow2Image *img)
{
    g_autofree uint8_t *data = NULL, *snapshot = NULL, *raw = NULL;
    gsize length;

    g_assert_cmpint(qcow2_image_check(img), ==, 0);
    data = contents(img, "");
    compare(data, img->model, 0, img->size);
    if (img->snapshot) {
        snapshot = contents(img, "-l s");
        compare(snapshot, img->snapshot, 0, img->size);
    }
    if (img->is_raw) {
        g_assert_true(g_file_get_contents(img->data_file, (char **)&raw,
                                          &length, NULL));
        g_assert_cmpint(length, ==, img->size);
        compare(raw, img->model, 0, img->size);
    }
}
