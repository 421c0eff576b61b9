/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk of the proofs.
 */
#include "block/block-backend.h"
#include "write-log.h"

static BlockGraph *graph;

static BlockBackend *open_disk(const char *id)
{
    json_t *o = json_pack("{s:s, s:s}", "driver", "write-log", "disk", id);

    return blk_new_open(graph, NULL, NULL, o, BDRV_O_RDWR | BDRV_O_UNMAP |
                        BDRV_O_RESIZE, &error_abort);
}

static void put(BlockBackend *blk, int64_t sector, int64_t sectors,
                uint8_t value)
{
    g_autofree uint8_t *buf = g_malloc(sectors * 512);

    memset(buf, value, sectors * 512);
    g_assert_cmpint(blk_pwrite(blk, sector * 512, sectors * 512, buf, 0), ==,
                    0);
}

/* The first byte of each sector, as text. */
static char *sectors_of(const MemImage *img)
{
    GString *s = g_string_new(NULL);
    int64_t i;

    for (i = 0; i < mem_image_size(img) / 512; i++) {
        uint8_t first, last;

        mem_image_read(img, i * 512, &first, 1);
        mem_image_read(img, i * 512 + 511, &last, 1);
        g_assert_cmpint(first, ==, last);
        g_string_append_c(s, first ?: '.');
    }
    return g_string_free(s, FALSE);
}

/* ---- Faults ---- */

static void test_faults(void)
{
    g_autoptr(WriteLogDisk) d = write_log_disk_new("d", mem_image_new(2048));
    BlockBackend *blk = open_disk("d");
    g_autofree char *got = NULL;
    char buf[2048];

    memset(buf, 'x', sizeof(buf));
    write_log_fail(d, (WriteLogFault){ 1u << WLOG_WRITE, 2, EIO,
                                       .torn = true });
    put(blk, 0, 1, 'a');
    g_assert_false(write_log_fired(d));
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 0, 2048, buf, 0), ==, -EIO);
    g_assert_true(write_log_fired(d));
    put(blk, 3, 1, 'b');
    g_assert_cmpuint(write_log_calls(d), ==, 3);
    got = sectors_of(d->img);
    g_assert_cmpstr(got, ==, "xx.b");

    write_log_fail(d, (WriteLogFault){ WLOG_ALL, 1, ENOSPC, .forever = true });
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, -ENOSPC);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, -ENOSPC);
    g_assert_cmpint(blk_flush(blk), ==, -ENOSPC);
    write_log_fail(d, (WriteLogFault){ 0 });
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    int ret;

    write_log_register();
    g_test_init(&argc, &argv, NULL);
    graph = block_graph_new();
#define T(name, fn) g_test_add_func("/write-log/" name, fn)
    T("faults", test_faults);
    ret = g_test_run();
    block_graph_free(graph);
    return ret;
}
