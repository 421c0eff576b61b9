/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk of the proofs, and what its log replays to.
 */
#include "block/block-backend.h"
#include "replay.h"

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

static void expect_cut(WriteLogDisk *d, const char *text, const char *sectors)
{
    g_autofree char *got = NULL;
    g_autofree char *again = NULL;
    g_autoptr(MemImage) img = NULL;
    ReplayCut cut;

    g_assert_true(replay_cut_parse(text, &cut));
    again = replay_cut_format(cut);
    g_assert_cmpstr(again, ==, text);
    img = replay_image(d, cut, 1);
    got = sectors_of(img);
    g_assert_cmpstr(got, ==, sectors);
}

/* ---- The log ---- */

/*
 * 1 grow to 4, 2 a at 2, 3 shrink to 1, 4 b at 0-3 extends, 5 grow to 6: what
 * makes room and is not there takes along what lies in it.
 */
static void test_sizes(void)
{
    g_autoptr(WriteLogDisk) d = write_log_disk_new("d", mem_image_new(1024));
    BlockBackend *blk = open_disk("d");

    write_log_start(d);
    g_assert_true(blk_truncate(blk, 2048, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    put(blk, 2, 1, 'a');
    g_assert_true(blk_truncate(blk, 512, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    blk_set_allow_write_beyond_eof(blk, true);
    put(blk, 0, 4, 'b');
    g_assert_true(blk_truncate(blk, 3072, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    blk_unref(blk);
    expect_cut(d, "3:all", "..a.");
    expect_cut(d, "3:drop=1", "..");
    expect_cut(d, "6:all", "bbbb..");
    expect_cut(d, "5:drop=3", "bbbb");
    expect_cut(d, "5:only=4", "bbbb");
    expect_cut(d, "5:drop=4", ".");
    /* The shrinking comes with the growing after it. */
    expect_cut(d, "6:drop=3", "b.....");
    expect_cut(d, "6:only=5", "......");
}

/*
 * 1 a at 0-2, 2 b at 1, 3 flush (covers 3), 4 c at 2-3, 5 d at 2, 6 zero at 0,
 * 7 truncate to 6
 */
static void fill_log(BlockBackend *blk)
{
    put(blk, 0, 3, 'a');
    put(blk, 1, 1, 'b');
    g_assert_cmpint(blk_flush(blk), ==, 0);
    put(blk, 2, 2, 'c');
    put(blk, 2, 1, 'd');
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 512, 0), ==, 0);
    g_assert_true(blk_truncate(blk, 6 * 512, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
}

static void test_cuts(void)
{
    g_autoptr(WriteLogDisk) d = write_log_disk_new("d", mem_image_new(2048));
    BlockBackend *blk = open_disk("d");

    write_log_start(d);
    fill_log(blk);
    blk_unref(blk);
    expect_cut(d, "1:all", "....");
    expect_cut(d, "3:all", "aba.");
    expect_cut(d, "3:none", "....");
    expect_cut(d, "3:only=2", ".b..");
    expect_cut(d, "4:none", "aba.");
    expect_cut(d, "8:all", ".bdc..");
    expect_cut(d, "8:none", "aba.");
    expect_cut(d, "8:drop=4", ".bd...");
    expect_cut(d, "8:drop=5", ".bcc..");
    expect_cut(d, "8:drop=7", ".bdc");
    expect_cut(d, "8:only=7", "aba...");
    expect_cut(d, "8:only=4", "abcc");
    /* What is durable cannot be dropped. */
    expect_cut(d, "8:drop=1", ".bdc..");
}

static void test_cut_text(void)
{
    static const char *const bad[] = {
        "", "5", "5:", ":all", "5:some", "5:all=1", "5:drop=", "5:drop",
        "5:drop=x", "-1:all",
    };
    ReplayCut cut;
    size_t i;

    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_false(replay_cut_parse(bad[i], &cut));
    }
}

/* A write that completes while a flush runs is not covered by it. */
static void test_flush_covers_earlier(void)
{
    g_autoptr(WriteLogDisk) d = write_log_disk_new("d", mem_image_new(2048));
    WriteLogEntry flush = { .op = WLOG_FLUSH, .covers = 2 };
    BlockBackend *blk = open_disk("d");

    write_log_start(d);
    put(blk, 0, 1, 'a');
    put(blk, 1, 1, 'b');
    g_array_append_val(d->log, flush);
    blk_unref(blk);
    g_assert_cmpuint(replay_durable(d, 3), ==, 0);
    g_assert_cmpuint(replay_durable(d, 4), ==, 2);
    expect_cut(d, "4:none", "a...");
    expect_cut(d, "4:only=2", "ab..");
}

typedef struct Seen {
    GHashTable *images;         /* text -> itself */
    WriteLogDisk *d;
    int calls;
    int stop_at;
} Seen;

static bool note_image(ReplayCut cut, MemImage *img, void *opaque)
{
    Seen *seen = opaque;
    g_autoptr(MemImage) other = replay_image(seen->d, cut, 1);
    g_autofree char *text = sectors_of(other);
    char *this_one = sectors_of(img);

    g_assert_cmpstr(this_one, ==, text);
    g_hash_table_add(seen->images, this_one);
    return ++seen->calls != seen->stop_at;
}

/* The walk makes the images that single cuts make, and all that can be. */
static void test_walk(void)
{
    g_autoptr(WriteLogDisk) d = write_log_disk_new("d", mem_image_new(2048));
    g_autoptr(GHashTable) images =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    Seen seen = { images, d };
    BlockBackend *blk = open_disk("d");

    write_log_start(d);
    fill_log(blk);
    blk_unref(blk);
    g_assert_true(replay_foreach(d, 1, 1000, 3000, note_image, &seen));
    /* Before the flush: sector 0 two ways, 1 three, 2 two. */
    g_assert_true(g_hash_table_contains(images, "..a."));
    g_assert_true(g_hash_table_contains(images, "a..."));
    g_assert_true(g_hash_table_contains(images, "aaa."));
    g_assert_true(g_hash_table_contains(images, ".ba."));
    /* After it: 0 two ways, 2 three, 3 two, and two lengths. */
    g_assert_true(g_hash_table_contains(images, "abac.."));
    g_assert_true(g_hash_table_contains(images, ".bcc.."));
    g_assert_true(g_hash_table_contains(images, "abd."));
    /* "aba." and ".ba." are of both. */
    g_assert_cmpuint(g_hash_table_size(images), ==, 12 + 24 - 2);
    seen.calls = 0;
    seen.stop_at = 5;
    g_assert_false(replay_foreach(d, 1, 1000, 3000, note_image, &seen));
    g_assert_cmpint(seen.calls, ==, 5);
}

/* ---- Two disks ---- */

static bool note_pair(const ReplayPair *pair, MemImage *images[2],
                      void *opaque)
{
    g_autofree char *a = sectors_of(images[0]);
    g_autofree char *b = sectors_of(images[1]);

    g_hash_table_add(opaque, g_strdup_printf("%s %s", a, b));
    return true;
}

/* a to the one, flushed; b to the other; c to the one, b flushed. */
static void test_pair(void)
{
    static const char *const possible[] = {
        ".. ..", "a. ..", "a. b.", "ac ..", "ac b.",
    };
    g_autoptr(WriteLogDisk) d = write_log_disk_new("d", mem_image_new(1024));
    g_autoptr(WriteLogDisk) e = write_log_disk_new("e", mem_image_new(1024));
    g_autoptr(GHashTable) images =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    BlockBackend *one = open_disk("d"), *other = open_disk("e");

    write_log_start(d);
    write_log_start(e);
    put(one, 0, 1, 'a');
    g_assert_cmpint(blk_flush(one), ==, 0);
    put(other, 0, 1, 'b');
    put(one, 1, 1, 'c');
    g_assert_cmpint(blk_flush(other), ==, 0);
    blk_unref(one);
    blk_unref(other);
    g_assert_true(replay_foreach_pair(d, e, 1, 1000, 300, note_pair, images));
    for (size_t i = 0; i < ARRAY_SIZE(possible); i++) {
        g_assert_true(g_hash_table_contains(images, possible[i]));
    }
    g_assert_cmpuint(g_hash_table_size(images), ==, ARRAY_SIZE(possible));
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
    T("replay/cuts", test_cuts);
    T("replay/sizes", test_sizes);
    T("replay/bad-text", test_cut_text);
    T("replay/flush-covers-what-was-before-it", test_flush_covers_earlier);
    T("replay/walk-sees-all", test_walk);
    T("replay/two-disks-in-one-order", test_pair);
    T("faults", test_faults);
    ret = g_test_run();
    block_graph_free(graph);
    return ret;
}
