/*
 * Fuzz target: write to the image, and do all else to it that changes it.
 *
 * What is done follows from the input.  Requests may fail, as the image likes;
 * but one that was sound has to be sound afterwards, and to hold what was just
 * written to it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <zlib.h>
#include "fuzz.h"

#define STEPS 16
#define MAX_BYTES (96 * KiB)

typedef struct Run {
    BlockBackend *blk;
    GRand *rand;
    bool is_sound;              /* it was, at the beginning */
    uint8_t *buf, *back;        /* of MAX_BYTES */
} Run;

/* A place within the disk, more often where something may be. */
static void pick_range(Run *r, int64_t *offset, int64_t *bytes)
{
    int64_t size = blk_getlength(r->blk);
    int64_t window = MIN(size, g_rand_boolean(r->rand) ? 64 * KiB : 8 * MiB);
    int64_t at = g_rand_int_range(r->rand, 0, MAX(window, 1));

    if (g_rand_int_range(r->rand, 0, 4) == 0) {
        at = size - window + at;
    }
    if (g_rand_boolean(r->rand)) {
        at = QEMU_ALIGN_DOWN(at, 512);
    }
    *offset = MIN(at, size);
    *bytes = MIN(size - *offset, g_rand_int_range(r->rand, 1, MAX_BYTES));
}

static void write_some(Run *r)
{
    int64_t offset, bytes;

    pick_range(r, &offset, &bytes);
    memset(r->buf, g_rand_int(r->rand), bytes);
    if (blk_pwrite(r->blk, offset, bytes, r->buf, 0) == 0 && r->is_sound) {
        if (blk_pread(r->blk, offset, bytes, r->back, 0) < 0 ||
            memcmp(r->buf, r->back, bytes)) {
            fuzz_fail("not what was written at %" PRId64, offset);
        }
    }
}

static void zero_some(Run *r)
{
    int64_t offset, bytes;
    int flags = g_rand_boolean(r->rand) ? BDRV_REQ_MAY_UNMAP : 0;

    pick_range(r, &offset, &bytes);
    memset(r->buf, 0, bytes);
    if (blk_pwrite_zeroes(r->blk, offset, bytes, flags) == 0 && r->is_sound) {
        if (blk_pread(r->blk, offset, bytes, r->back, 0) < 0 ||
            memcmp(r->buf, r->back, bytes)) {
            fuzz_fail("not zero at %" PRId64, offset);
        }
    }
}

static void discard_some(Run *r)
{
    int64_t offset, bytes;

    pick_range(r, &offset, &bytes);
    (void)blk_pdiscard(r->blk, offset, bytes);
}

static void flush(Run *r)
{
    (void)blk_flush(r->blk);
}

/* ---- The image as a whole ---- */

static void take_snapshot(Run *r)
{
    QEMUSnapshotInfo sn = { .icount = UINT64_MAX };

    g_snprintf(sn.name, sizeof(sn.name), "s%u", g_rand_int(r->rand) % 3);
    (void)bdrv_snapshot_create(blk_bs(r->blk), &sn, NULL);
}

/* Of those that there are; "": none. */
static void pick_snapshot(Run *r, char id[128])
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    size_t n = 0;

    *id = '\0';
    if (bdrv_snapshot_list(blk_bs(r->blk), &list, &n, NULL) && n > 0) {
        g_strlcpy(id, list[g_rand_int(r->rand) % n].id_str, 128);
    }
}

static void go_to_snapshot(Run *r)
{
    char id[128];

    pick_snapshot(r, id);
    (void)bdrv_snapshot_goto(blk_bs(r->blk), id, NULL);
}

static void delete_snapshot(Run *r)
{
    char id[128];

    pick_snapshot(r, id);
    (void)bdrv_snapshot_delete(blk_bs(r->blk), id, NULL);
}

static void resize(Run *r)
{
    int64_t size = blk_getlength(r->blk);
    int64_t change = 512 * g_rand_int_range(r->rand, -2048, 2048);

    (void)blk_truncate(r->blk, MAX(0, size + change), true, PREALLOC_MODE_OFF,
                       0, NULL);
}

static void amend(Run *r)
{
    static const char *const changes[][2] = {
        { "compat", "0.10" }, { "compat", "1.1" },
        { "lazy_refcounts", "on" }, { "lazy_refcounts", "off" },
        { "refcount_bits", "8" }, { "refcount_bits", "64" },
    };
    int i = g_rand_int_range(r->rand, 0, ARRAY_SIZE(changes));

    (void)bdrv_amend(blk_bs(r->blk), json_pack("{s:s}", changes[i][0],
                     changes[i][1]), false, NULL, NULL, NULL);
}

static void empty(Run *r)
{
    (void)bdrv_make_empty(blk_bs(r->blk), NULL);
}

static void run_steps(Run *r)
{
    static void (*const steps[])(Run *r) = {
        write_some, write_some, write_some, write_some, zero_some, zero_some,
        discard_some, discard_some, flush, take_snapshot, go_to_snapshot,
        delete_snapshot, resize, amend, empty,
    };

    for (int i = 0; i < STEPS; i++) {
        steps[g_rand_int_range(r->rand, 0, ARRAY_SIZE(steps))](r);
    }
}

/* ---- Sound before, sound after ---- */

static bool is_sound(FuzzImage *img, FuzzSoundness how, GString *why)
{
    BlockBackend *blk = fuzz_image_open(img, 0);
    BdrvCheckResult res = { 0 };
    int ret;

    if (!blk) {
        g_string_append(why, "cannot be opened");
        return false;
    }
    ret = bdrv_check(blk_bs(blk), &res, 0);
    blk_unref(blk);
    if (ret < 0 || res.corruptions || res.leaks || res.check_errors) {
        g_string_append_printf(why, "%d, %" PRId64 " corruptions, %" PRId64
                               " leaks", ret, res.corruptions, res.leaks);
        return false;
    }
    return fuzz_image_is_sound(img, how, why);
}

void fuzz_write(const uint8_t *data, size_t size)
{
    g_autoptr(FuzzImage) img = fuzz_image_new(data, size);
    g_autoptr(GString) why = g_string_new("");
    Run r = { .is_sound = is_sound(img, FUZZ_PRISTINE, why) };

    r.blk = fuzz_image_open(img, BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP);
    if (!r.blk) {
        return;
    }
    r.rand = g_rand_new_with_seed(crc32(0, data, size));
    r.buf = g_malloc(MAX_BYTES);
    r.back = g_malloc(MAX_BYTES);
    run_steps(&r);
    blk_unref(r.blk);
    fuzz_image_keep(img);
    g_string_truncate(why, 0);
    if (r.is_sound && !is_sound(img, FUZZ_CHANGED, why)) {
        fuzz_fail("sound before, but now: %s", why->str);
    }
    g_rand_free(r.rand);
    g_free(r.buf);
    g_free(r.back);
}
