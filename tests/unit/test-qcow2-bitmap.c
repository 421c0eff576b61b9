/*
 * qcow2: dirty bitmaps that the image keeps: written and read by us and by the
 * installed tools, in images that lie, on files that fail.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/dirty-bitmap.h"
#include "block/snapshot.h"
#include "qcow2-image.h"
#include "qemu/bswap.h"

#define QEMU_IMG "/usr/bin/qemu-img"
#define BITMAPS_EXTENSION 0x23852875u

/* ---- What others say ---- */

/* The output of a command, which succeeds. */
static char *G_GNUC_PRINTF(1, 2) output_of(const char *format, ...)
{
    g_autofree char *command = NULL;
    char *out = NULL;
    va_list ap;
    int status;

    va_start(ap, format);
    command = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_assert_true(g_spawn_command_line_sync(command, &out, NULL, &status,
                                            NULL));
    g_assert_cmpint(status, ==, 0);
    return out;
}

/* "name:granularity[:flag …]", a space between two, of what stock finds. */
static char *stock_bitmaps(Qcow2Image *img)
{
    g_autofree char *text = output_of(QEMU_IMG " info --output=json %s",
                                      img->path);
    g_autoptr(json_t) info = options_from_json(text, &error_abort);
    json_t *data = json_object_get(json_object_get(info, "format-specific"),
                                   "data");
    g_autoptr(GString) s = g_string_new(NULL);
    json_t *b, *flag;
    size_t i, j;

    json_array_foreach(json_object_get(data, "bitmaps"), i, b) {
        g_string_append_printf(s, "%s%s:%d", i ? " " : "",
            json_string_value(json_object_get(b, "name")),
            (int)json_integer_value(json_object_get(b, "granularity")));
        json_array_foreach(json_object_get(b, "flags"), j, flag) {
            g_string_append_printf(s, ":%s", json_string_value(flag));
        }
    }
    return g_string_free(g_steal_pointer(&s), FALSE);
}

static void assert_stock_bitmaps(Qcow2Image *img, const char *expected)
{
    g_autofree char *is = stock_bitmaps(img);

    g_assert_cmpstr(is, ==, expected);
}

/* ---- Ours ---- */

static BdrvDirtyBitmap *find(Qcow2Image *img, const char *name)
{
    BdrvDirtyBitmap *b = bdrv_find_dirty_bitmap(qcow2_image_bs(img), name);

    g_assert_nonnull(b);
    return b;
}

static void add(Qcow2Image *img, const char *name, uint64_t granularity)
{
    bdrv_dirty_bitmap_cmd_add(qcow2_image_bs(img), name, granularity, true,
                              false, &error_abort);
}

/* Where it is dirty, as "start-end …" in granules. */
static char *dirty_ranges(BdrvDirtyBitmap *b)
{
    int64_t size = bdrv_dirty_bitmap_size(b);
    int64_t g = bdrv_dirty_bitmap_granularity(b);
    g_autoptr(GString) s = g_string_new(NULL);
    int64_t start, bytes, pos = 0;

    while (bdrv_dirty_bitmap_next_dirty_area(b, pos, size - pos, INT64_MAX,
                                             &start, &bytes)) {
        g_string_append_printf(s, "%s%d-%d", s->len ? " " : "",
                               (int)(start / g),
                               (int)DIV_ROUND_UP(start + bytes, g));
        pos = start + bytes;
    }
    return g_string_free(g_steal_pointer(&s), FALSE);
}

static void assert_dirty(Qcow2Image *img, const char *name, const char *ranges)
{
    g_autofree char *is = dirty_ranges(find(img, name));

    g_assert_cmpstr(is, ==, ranges);
}

/* Random, but the same each time. */
static void dirty_randomly(BdrvDirtyBitmap *b, unsigned seed)
{
    GRand *rnd = g_rand_new_with_seed(seed);
    int64_t size = bdrv_dirty_bitmap_size(b);

    for (int i = 0; i < 40; i++) {
        bdrv_set_dirty_bitmap(b, g_rand_double(rnd) * size,
                              g_rand_double(rnd) * size / 60);
    }
    /* And a part that takes no clusters. */
    bdrv_set_dirty_bitmap(b, size / 2, size / 4);
    g_rand_free(rnd);
}

static const char *const geometries[] = {
    "cluster_size=512", "cluster_size=4096", "cluster_size=65536",
    "cluster_size=2097152", "cluster_size=16384,extended_l2=on",
    "cluster_size=4096,refcount_bits=1", "cluster_size=4096,lazy_refcounts=on",
};

static void test_stays(const void *opaque)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree char *one = NULL, *two = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new(opaque, 64 * MiB + 512, false);
    qcow2_image_open(img, NULL);
    add(img, "one", 512);
    add(img, "two", 1 * MiB);
    dirty_randomly(find(img, "one"), 1);
    dirty_randomly(find(img, "two"), 2);
    bdrv_disable_dirty_bitmap(find(img, "two"));
    one = dirty_ranges(find(img, "one"));
    two = dirty_ranges(find(img, "two"));
    qcow2_image_close(img);
    for (int i = 0; i < 2; i++) {
        assert_stock_bitmaps(img, "two:1048576 one:512:auto");
        g_assert_cmpint(qcow2_image_check(img), ==, 0);
        qcow2_image_open(img, NULL);
        assert_dirty(img, "one", one);
        assert_dirty(img, "two", two);
        g_assert_true(bdrv_dirty_bitmap_enabled(find(img, "one")));
        g_assert_false(bdrv_dirty_bitmap_enabled(find(img, "two")));
        qcow2_image_close(img);
    }
    /* Stock changes what we wrote, and writes it anew. */
    g_free(output_of(QEMU_IMG " bitmap --merge one --enable %s two",
                     img->path));
    g_free(output_of(QEMU_IMG " bitmap --clear --disable %s one", img->path));
    assert_stock_bitmaps(img, "two:1048576:auto one:512");
    qcow2_image_open(img, NULL);
    assert_dirty(img, "one", "");
    g_assert_cmpint(bdrv_dirty_bitmap_get(find(img, "two"), 40 * MiB), ==, 1);
    qcow2_image_close(img);
    g_assert_cmpint(qcow2_image_check(img), ==, 0);
}

static void test_records(void)
{
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=4096", 1 * MiB, false);
    g_free(output_of(QEMU_IMG " bitmap --add -g 4096 %s b", img->path));
    for (int i = 0; i < 3; i++) {
        qcow2_image_open(img, NULL);
        qcow2_image_write(img, i * 64 * KiB, 5000, i, 0);
        qcow2_image_close(img);
    }
    qcow2_image_open(img, NULL);
    assert_dirty(img, "b", "0-2 16-18 32-34");
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

/* A length that changes, and a bitmap that must not be forgotten. */
static void test_resize(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    Error *err = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=512", 1 * MiB, false);
    qcow2_image_open(img, NULL);
    add(img, "b", 512);
    bdrv_set_dirty_bitmap(find(img, "b"), 0, 512);
    bdrv_set_dirty_bitmap(find(img, "b"), 1 * MiB - 512, 512);
    g_assert_true(blk_truncate(img->blk, 16 * MiB, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    qcow2_image_close(img);
    g_assert_cmpint(qcow2_image_check(img), ==, 0);
    assert_stock_bitmaps(img, "b:512:auto");
    qcow2_image_open(img, NULL);
    assert_dirty(img, "b", "0-1 2047-2048");
    g_assert_true(blk_truncate(img->blk, 512 * KiB, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    qcow2_image_close(img);
    g_assert_cmpint(qcow2_image_check(img), ==, 0);
    qcow2_image_open(img, NULL);
    assert_dirty(img, "b", "0-1");
    bdrv_dirty_bitmap_set_inconsistent(find(img, "b"));
    g_assert_false(blk_truncate(img->blk, 1 * MiB, true, PREALLOC_MODE_OFF, 0,
                                &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Bitmap 'b' is inconsistent and cannot be used");
    error_free(err);
}

/* ---- In use ---- */

static char *slurp(Qcow2Image *img, gsize *length)
{
    char *data;

    g_assert_true(g_file_get_contents(img->path, &data, length, NULL));
    return data;
}

/* What a crash now would leave, in place of the image. */
static void crash(Qcow2Image *img)
{
    gsize length;
    g_autofree char *data = slurp(img, &length);

    qcow2_image_close(img);
    g_assert_true(g_file_set_contents(img->path, data, length, NULL));
}

static void test_crash(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    BdrvDirtyBitmap *b;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=4096", 1 * MiB, false);
    qcow2_image_open(img, NULL);
    add(img, "old", 0);
    qcow2_image_close(img);
    qcow2_image_open(img, NULL);
    add(img, "new", 0);
    qcow2_image_write(img, 0, 4096, 1, 0);
    crash(img);
    assert_stock_bitmaps(img, "old:4096:in-use:auto");
    qcow2_image_open(img, NULL);
    b = find(img, "old");
    g_assert_true(bdrv_dirty_bitmap_inconsistent(b));
    g_assert_true(bdrv_dirty_bitmap_get_persistence(b));
    g_assert_false(bdrv_dirty_bitmap_enabled(b));
    /* It stays so, until it is removed. */
    qcow2_image_close(img);
    assert_stock_bitmaps(img, "old:4096:in-use:auto");
    qcow2_image_open(img, NULL);
    bdrv_dirty_bitmap_cmd_remove(qcow2_image_bs(img), "old", &error_abort);
    qcow2_image_close(img);
    assert_stock_bitmaps(img, "");
    g_assert_cmpint(qcow2_image_check(img), <=, 3);
}

/* A table in use that is too long for the disk now: the image can be checked,
 * and repaired when it is opened. */
static void test_crash_after_shrinking(void)
{
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=512,lazy_refcounts=on", 64 * MiB,
                          false);
    qcow2_image_open(img, NULL);
    add(img, "b", 512);
    dirty_randomly(find(img, "b"), 1);
    qcow2_image_close(img);
    qcow2_image_open(img, NULL);
    g_assert_true(blk_truncate(img->blk, 1 * MiB, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    img->size = 1 * MiB;
    qcow2_image_write(img, 64 * KiB, 4096, 1, 0);
    g_assert_cmpint(blk_flush(img->blk), ==, 0);
    crash(img);
    qcow2_image_open(img, NULL);
    qcow2_image_verify(img, 0, img->size);
    g_assert_true(bdrv_dirty_bitmap_inconsistent(find(img, "b")));
    qcow2_image_close(img);
    qcow2_image_assert_good(img);
}

static void reopen(Qcow2Image *img, bool read_only)
{
    bdrv_reopen(qcow2_image_bs(img),
                json_pack("{s:b}", "read-only", read_only), &error_abort);
}

static void test_reopen(void)
{
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=4096", 1 * MiB, false);
    qcow2_image_open(img, NULL);
    blk_set_perm(img->blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                 &error_abort);
    add(img, "b", 4096);
    bdrv_set_dirty_bitmap(find(img, "b"), 8192, 1);
    reopen(img, true);
    g_assert_true(bdrv_dirty_bitmap_readonly(find(img, "b")));
    assert_dirty(img, "b", "2-3");
    {
        g_autofree char *text = output_of(QEMU_IMG " info -U %s", img->path);

        g_assert_nonnull(strstr(text, "[0]: auto"));
        g_assert_null(strstr(text, "in-use"));
    }
    reopen(img, false);
    g_assert_false(bdrv_dirty_bitmap_readonly(find(img, "b")));
    {
        g_autofree char *text = output_of(QEMU_IMG " info -U %s", img->path);

        g_assert_nonnull(strstr(text, "in-use"));
    }
    qcow2_image_close(img);
    assert_stock_bitmaps(img, "b:4096:auto");
    g_assert_cmpint(qcow2_image_check(img), ==, 0);
}

/*
 * Whether the image, as a crash now would leave it, says the truth about the
 * cluster at @offset, which was written: a bitmap that is not in use has it.
 */
static void assert_not_forgotten(Qcow2Image *img, int64_t offset)
{
    BdrvDirtyBitmap *b;

    crash(img);
    qcow2_image_open(img, NULL);
    b = find(img, "b");
    g_assert_true(bdrv_dirty_bitmap_inconsistent(b) ||
                  bdrv_dirty_bitmap_get(b, offset));
    qcow2_image_close(img);
}

static Qcow2Image *image_with_bitmap(void)
{
    Qcow2Image *img = qcow2_image_new("cluster_size=4096,lazy_refcounts=on",
                                      1 * MiB, false);

    g_free(output_of(QEMU_IMG " bitmap --add -g 4096 %s b", img->path));
    qcow2_image_open(img, NULL);
    qcow2_image_write(img, 0, 4096, 1, 0);
    return img;
}

static bool make_read_only(BlockDriverState *bs)
{
    return bdrv_reopen(bs, json_pack("{s:b}", "read-only", true), NULL);
}

static bool hand_over(BlockDriverState *bs)
{
    return bdrv_inactivate(bs, NULL);
}

/* No dirty bit; clusters may leak, where a table could not be read. */
static void assert_closed_well(Qcow2Image *img)
{
    g_autofree char *data = NULL;
    gsize length;

    qcow2_image_close(img);
    data = slurp(img, &length);
    g_assert_cmphex(ldq_be_p(data + 72), ==, 0);
    g_assert_cmpint(qcow2_image_check(img), !=, 2);
}

/* It is written on after an attempt to give it up, which failed when the bitmap
 * was stored, perhaps.  False: nothing failed. */
static bool give_up_with_failure(bool (*give_up)(BlockDriverState *), int n)
{
    g_autoptr(Qcow2Image) img = image_with_bitmap();
    BlockDriverState *bs = qcow2_image_bs(img);
    bool ok, fired, writes;

    blk_set_perm(img->blk, 0, BLK_PERM_ALL, &error_abort);
    g_assert_cmpint(blkdebug_arm(bs, n, EIO), ==, 0);
    ok = give_up(bs);
    fired = blkdebug_fired(bs);
    blkdebug_arm(bs, 0, 0);
    if (ok) {
        return fired;
    }
    writes = blk_set_perm(img->blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                          BLK_PERM_ALL, NULL) && bdrv_activate(bs, NULL);
    img->has_errors = true;
    if (writes && qcow2_image_write(img, 512 * KiB, 4096, 2, 0) == 0) {
        qcow2_image_discard(img, 0, 4096);
        if (n % 2) {
            assert_not_forgotten(img, 512 * KiB);
        } else {
            assert_closed_well(img);
        }
    }
    return fired;
}

static void give_up_failing(bool (*give_up)(BlockDriverState *))
{
    int n = 1;

    while (qcow2_image_can_run() && give_up_with_failure(give_up, n)) {
        n++;
    }
    g_assert_cmpint(n, >, 5);
}

static void test_reopen_fails(void)
{
    give_up_failing(make_read_only);
}

static void test_handover_fails(void)
{
    give_up_failing(hand_over);
}

/* ---- What cannot be stored ---- */

static void cannot_store(Qcow2Image *img, const char *name, uint64_t g,
                         const char *why)
{
    Error *err = NULL;

    g_assert_false(bdrv_dirty_bitmap_cmd_add(qcow2_image_bs(img), name, g,
                                             true, false, &err));
    g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                   "Can't make bitmap 'x' persistent in '"));
    g_assert_true(g_str_has_suffix(error_get_pretty(err), why));
    error_free(err);
}

static void test_limits(void)
{
    g_autoptr(Qcow2Image) v2 = NULL, large = NULL, empty = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    v2 = qcow2_image_new("compat=0.10", 1 * MiB, false);
    qcow2_image_open(v2, NULL);
    cannot_store(v2, "x", 0, ": Cannot store dirty bitmaps in qcow2 v2 files");
    large = qcow2_image_new("cluster_size=2M", 1 * MiB, false);
    qcow2_image_open(large, NULL);
    g_assert_true(blk_truncate(large->blk, 4 * TiB, true, PREALLOC_MODE_OFF, 0,
                               &error_abort));
    cannot_store(large, "x", 512, ": Too much space will be occupied by the "
                 "bitmap. Use larger granularity");
    add(large, "x", 1024);
    empty = qcow2_image_new("cluster_size=4096", 0, false);
    qcow2_image_open(empty, NULL);
    cannot_store(empty, "x", 0, ": An image of no length has no room for "
                 "bitmaps");
}

/* ---- Images that lie ---- */

typedef struct Lie {
    const char *name;
    int64_t where;                  /* of the entry; header: -1 - offset of
                                     * the extension's data; table: 1000 + */
    int bytes;
    uint64_t value;
    const char *why;                /* NULL: it opens */
} Lie;

#define TABLE 1000

static const Lie lies[] = {
    { "flags", 12, 4, 8, "Bitmap 'b' doesn't satisfy the constraints" },
    { "type", 16, 1, 0, "Bitmap 'b' doesn't satisfy the constraints" },
    { "granularity-8", 17, 1, 8, "Bitmap 'b' doesn't satisfy the constraints" },
    { "granularity-32", 17, 1, 32,
      "Bitmap 'b' doesn't satisfy the constraints" },
    { "granularity-255", 17, 1, 255,
      "Bitmap 'b' doesn't satisfy the constraints" },
    { "table-unaligned", 0, 8, 0x50200,
      "Bitmap 'b' doesn't satisfy the constraints" },
    { "table-0", 0, 8, 0, "Bitmap 'b' doesn't satisfy the constraints" },
    { "table-huge", 0, 8, UINT64_C(1) << 63,
      "Bitmap 'b' doesn't satisfy the constraints" },
    { "entries-0", 8, 4, 0, "Bitmap 'b' doesn't satisfy the constraints" },
    { "entries-huge", 8, 4, UINT32_MAX,
      "Bitmap 'b' doesn't satisfy the constraints" },
    { "entries-2", 8, 4, 2,
      "Could not read bitmap 'b' from image: Invalid argument" },
    { "name-0", 18, 2, 0, "Bitmap '' doesn't satisfy the constraints" },
    { "name-long", 18, 2, 65535, "Broken bitmap directory" },
    { "name-nul", 24, 1, 0, "Bitmap '' doesn't satisfy the constraints" },
    { "extra", 20, 4, 8, "Bitmap extra data is not supported" },
    { "extra-huge", 20, 4, UINT32_MAX, "Broken bitmap directory" },
    { "twice", 32 + 24, 1, 'b', "Bitmap already exists: b" },
    { "entry-reserved", TABLE, 8, 2, "Could not read bitmap_table table from "
      "image for bitmap 'b': Invalid argument" },
    { "entry-reserved-high", TABLE, 8, UINT64_C(1) << 56, "Could not read "
      "bitmap_table table from image for bitmap 'b': Invalid argument" },
    { "entry-unaligned", TABLE, 8, 0x10200, "Could not read bitmap_table table "
      "from image for bitmap 'b': Invalid argument" },
    { "entry-ones-somewhere", TABLE, 8, 0x10001, "Could not read bitmap_table "
      "table from image for bitmap 'b': Invalid argument" },
    { "entry-ones", TABLE, 8, 1, NULL },
    { "in-use", 12, 4, 3, NULL },
    { "fewer", -1, 4, 1, "More bitmaps found than specified in header "
      "extension" },
    { "more", -1, 4, 3, "Less bitmaps found than specified in header "
      "extension" },
    { "many", -1, 4, UINT32_MAX, "bitmaps_ext: Image has 4294967295 bitmaps, "
      "exceeding the QEMU supported maximum of 65535" },
    { "directory-longer", -9, 8, 72, "Broken bitmap directory" },
    { "directory-shorter", -9, 8, 63, "Broken bitmap directory" },
    { "directory-unaligned", -17, 8, 512,
      "bitmaps_ext: invalid bitmap directory offset" },
};

/* Where the extension's data is. */
static size_t find_extension(const uint8_t *data)
{
    size_t pos = ldl_be_p(data + 100);

    while (ldl_be_p(data + pos) != BITMAPS_EXTENSION) {
        g_assert_cmphex(ldl_be_p(data + pos), !=, 0);
        pos += 8 + ROUND_UP(ldl_be_p(data + pos + 4), 8);
    }
    return pos + 8;
}

static size_t place_of(const uint8_t *data, int64_t where)
{
    size_t ext = find_extension(data);
    uint64_t directory = ldq_be_p(data + ext + 16);

    if (where < 0) {
        return ext - 1 - where;
    }
    return where < TABLE ? directory + where :
           ldq_be_p(data + directory) + where - TABLE;
}

static void put(uint8_t *p, int bytes, uint64_t value)
{
    for (int i = bytes - 1; i >= 0; i--, value >>= 8) {
        p[i] = value;
    }
}

static void tell_lie(Qcow2Image *img, int64_t where, int bytes, uint64_t value)
{
    gsize length;
    g_autofree char *data = slurp(img, &length);

    put((uint8_t *)data + place_of((uint8_t *)data, where), bytes, value);
    g_assert_true(g_file_set_contents(img->path, data, length, NULL));
}

static BlockBackend *open_flags(Qcow2Image *img, int flags, Error **errp)
{
    return blk_new_open(img->graph, img->path, NULL,
                        json_pack("{s:s}", "driver", "qcow2"), flags, errp);
}

static Qcow2Image *image_with_two(void)
{
    Qcow2Image *img = qcow2_image_new("cluster_size=4096", 1 * MiB, false);

    qcow2_image_open(img, NULL);
    /* The newest comes first. */
    add(img, "c", 4096);
    add(img, "b", 4096);
    bdrv_set_dirty_bitmap(find(img, "b"), 0, 4096);
    qcow2_image_close(img);
    return img;
}

static void test_lie(const void *opaque)
{
    const Lie *lie = opaque;
    g_autoptr(Qcow2Image) img = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = image_with_two();
    tell_lie(img, lie->where, lie->bytes, lie->value);
    for (int flags = 0; flags <= BDRV_O_RDWR; flags += BDRV_O_RDWR) {
        Error *err = NULL;
        BlockBackend *blk = open_flags(img, flags, &err);

        g_assert_cmpstr(err ? error_get_pretty(err) : NULL, ==, lie->why);
        error_free(err);
        if (blk) {
            blk_unref(blk);
        }
    }
}

/* A check does not call an image sound that does not open. */
static void test_lie_found(const void *opaque)
{
    const Lie *lie = opaque;
    g_autoptr(Qcow2Image) img = NULL;
    BdrvCheckResult res = { 0 };
    BlockBackend *blk;
    int ret;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = image_with_two();
    tell_lie(img, lie->where, lie->bytes, lie->value);
    blk = open_flags(img, BDRV_O_CHECK, NULL);
    if (blk) {
        ret = bdrv_check(blk_bs(blk), &res, 0);
        g_assert_cmpint(ret < 0 || res.corruptions > 0, ==, lie->why != NULL);
        blk_unref(blk);
    }
}

/* What breaks bitmaps does not keep anybody from looking or repairing. */
static void test_lie_checked(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    BlockBackend *blk;
    gsize before, after;
    g_autofree char *was = NULL, *is = NULL;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = image_with_two();
    tell_lie(img, TABLE, 8, 2);
    was = slurp(img, &before);
    blk = open_flags(img, BDRV_O_NO_IO, &error_abort);
    json_decref(bdrv_get_specific_info(blk_bs(blk), &error_abort));
    blk_unref(blk);
    blk = open_flags(img, BDRV_O_RDWR | BDRV_O_CHECK, &error_abort);
    blk_unref(blk);
    is = slurp(img, &after);
    g_assert_cmpmem(was, before, is, after);
}

/* Bits that are many times the file. */
static void test_lie_amplified(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree char *data = NULL;
    Error *err = NULL;
    gsize length;
    size_t table;
    uint64_t first;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=4096", 1 * GiB, false);
    qcow2_image_open(img, NULL);
    add(img, "b", 512);
    bdrv_set_dirty_bitmap(find(img, "b"), 0, 512);
    qcow2_image_close(img);
    data = slurp(img, &length);
    table = place_of((uint8_t *)data, TABLE);
    first = ldq_be_p(data + table);
    for (int i = 0; i < 64; i++) {
        stq_be_p(data + table + i * 8, first);
    }
    g_assert_true(g_file_set_contents(img->path, data, length, NULL));
    g_assert_null(open_flags(img, 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not read bitmap 'b' from image: Invalid argument");
    error_free(err);
}

/* Nobody who does not know bitmaps keeps them right. */
static void test_autoclear(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree char *data = NULL;
    gsize length;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = image_with_two();
    data = slurp(img, &length);
    put((uint8_t *)data + 88, 8, 0);
    g_assert_true(g_file_set_contents(img->path, data, length, NULL));
    qcow2_image_open(img, NULL);
    g_assert_null(bdrv_find_dirty_bitmap(qcow2_image_bs(img), "b"));
    add(img, "b", 8192);
    qcow2_image_close(img);
    assert_stock_bitmaps(img, "b:8192:auto");
    g_assert_cmpint(qcow2_image_check(img), ==, 3);     /* those of before */
}

/* Extra data that is said to be compatible stays as it is. */
static void test_extra_data(void)
{
    g_autoptr(Qcow2Image) img = NULL;
    g_autofree char *data = NULL, *after = NULL;
    gsize length;
    uint8_t *p;

    if (!qcow2_image_can_run()) {
        return;
    }
    img = qcow2_image_new("cluster_size=4096", 1 * MiB, false);
    qcow2_image_open(img, NULL);
    add(img, "12345678long", 4096);
    qcow2_image_close(img);
    data = slurp(img, &length);
    p = (uint8_t *)data + place_of((uint8_t *)data, 0);
    put(p + 12, 4, 2 | 4);
    put(p + 18, 2, 4);
    put(p + 20, 4, 8);
    g_assert_true(g_file_set_contents(img->path, data, length, NULL));
    qcow2_image_open(img, NULL);
    bdrv_set_dirty_bitmap(find(img, "long"), 0, 4096);
    qcow2_image_close(img);
    after = slurp(img, &length);
    p = (uint8_t *)after + place_of((uint8_t *)after, 0);
    g_assert_cmpmem(p + 24, 12, "12345678long", 12);
    g_assert_cmphex(ldl_be_p(p + 12), ==, 6);
    qcow2_image_open(img, NULL);
    assert_dirty(img, "long", "0-1");
}

/* ---- Files that fail ---- */

static void fail_store(Qcow2Image *img, int *fired, int n)
{
    BdrvDirtyBitmap *b = find(img, "b");
    Error *err = NULL;
    bool ok;

    bdrv_set_dirty_bitmap(b, 64 * KiB, 4096);
    blkdebug_arm(qcow2_image_bs(img)->file->bs, n, EIO);
    ok = bdrv_store_dirty_bitmaps(qcow2_image_bs(img), true, &err);
    *fired = blkdebug_fired(qcow2_image_bs(img)->file->bs);
    blkdebug_arm(qcow2_image_bs(img)->file->bs, 0, 0);
    g_assert_true(ok || *fired);
    g_assert_true(ok == !err);
    error_free(err);
}

static void test_fail_nth(void)
{
    int fired = 1;

    if (!qcow2_image_can_run()) {
        return;
    }
    for (int n = 1; fired; n++) {
        g_autoptr(Qcow2Image) img = image_with_two();

        g_assert_cmpint(n, <, 100);
        qcow2_image_open(img, NULL);
        fail_store(img, &fired, n);
        /* What could not be stored is stored at last. */
        qcow2_image_close(img);
        assert_stock_bitmaps(img, "b:4096:auto c:4096:auto");
        g_assert_cmpint(qcow2_image_check(img), !=, 2);
        qcow2_image_open(img, NULL);
        assert_dirty(img, "b", "0-1 16-17");
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define T(name, fn) g_test_add_func("/qcow2-bitmap/" name, fn)
    for (size_t i = 0; i < ARRAY_SIZE(geometries); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2-bitmap/stays/%s",
                                                geometries[i]);

        g_test_add_data_func(path, geometries[i], test_stays);
    }
    T("records-writes", test_records);
    T("resize", test_resize);
    T("crash/is-inconsistent", test_crash);
    T("crash/after-shrinking", test_crash_after_shrinking);
    T("reopen", test_reopen);
    T("fail-nth/reopen", test_reopen_fails);
    T("fail-nth/hand-over", test_handover_fails);
    T("limits", test_limits);
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2-bitmap/lie/%s",
                                                lies[i].name);
        g_autofree char *found = g_strdup_printf("/qcow2-bitmap/lie-found/%s",
                                                 lies[i].name);

        g_test_add_data_func(path, &lies[i], test_lie);
        g_test_add_data_func(found, &lies[i], test_lie_found);
    }
    T("lie/can-be-looked-at", test_lie_checked);
    T("lie/amplified", test_lie_amplified);
    T("autoclear", test_autoclear);
    T("extra-data-stays", test_extra_data);
    T("fail-nth/store", test_fail_nth);
    return g_test_run();
}
