/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The workload's requests, and what is asked of an image after a crash.
 *
 * Reading an image back proves little about its reference counts: what is in
 * use but counted as free reads well, until somebody else gets it.  So the
 * check also writes, and then everything else must be as it was.  Where it
 * is asked to, it grows the disk, which must not bring back anything.
 */
#include "proof-int.h"
#include "block/block-driver.h"
#include "qemu/zero.h"

#define OVERWRITES 8
#define CHUNK (64 * KiB)

/* ---- The workload ---- */

int proof_request_flags(const ProofRunState *p, const ModelOp *op)
{
    int64_t unit = p->cfg.compress_unit;
    int flags = op->fua ? BDRV_REQ_FUA : 0;

    if (op->type == MODEL_ZEROES) {
        return op->id % 2 ? BDRV_REQ_MAY_UNMAP : 0;
    }
    if (op->type == MODEL_WRITE && unit && op->id % 2 &&
        QEMU_IS_ALIGNED(op->offset | op->bytes, unit)) {
        flags |= BDRV_REQ_WRITE_COMPRESSED;
    }
    return flags;
}

static int do_request(const ProofRunState *p, BlockBackend *blk,
                      const ModelOp *op, void *buf)
{
    int flags = proof_request_flags(p, op);
    Error *err = NULL;

    switch (op->type) {
    case MODEL_READ:
        return blk_pread(blk, op->offset, op->bytes, buf, 0);
    case MODEL_WRITE:
        return blk_pwrite(blk, op->offset, op->bytes, buf, flags);
    case MODEL_ZEROES:
        return blk_pwrite_zeroes(blk, op->offset, op->bytes, flags);
    case MODEL_DISCARD:
        return blk_pdiscard(blk, op->offset, op->bytes);
    case MODEL_FLUSH:
        return blk_flush(blk);
    case MODEL_RESIZE:
        if (blk_truncate(blk, op->offset, true, PREALLOC_MODE_OFF, 0, &err)) {
            return 0;
        }
        error_free(err);
        return -EIO;
    case MODEL_OP__MAX:
        break;
    }
    g_assert_not_reached();
}

bool proof_random_request(ProofRunState *p, BlockBackend *blk, GRand *rand,
                          GString *why)
{
    g_autofree uint8_t *buf = NULL;
    uint64_t now;
    ModelOp op;
    bool ok = true;
    int ret;

    model_random_op(p->model, rand, &p->cfg.mix, &op);
    op.fua = op.type == MODEL_WRITE && g_rand_int_range(rand, 0, 16) == 0;
    buf = g_malloc0(op.bytes + 1);
    model_op_begin(p->model, &op, write_log_mark(p->disk, 0), buf);
    ret = do_request(p, blk, &op, buf);
    now = write_log_mark(p->disk, op.type == MODEL_FLUSH || op.fua);
    if (op.type == MODEL_READ && ret == 0) {
        ok = model_check_read(p->model, &op, now, buf, why);
    } else if (ret < 0 && !proof_fired(p)) {
        g_string_append_printf(why, "request of type %d at %" PRId64 ", %"
                               PRId64 " bytes: %s", op.type, op.offset,
                               op.bytes, strerror(-ret));
        ok = false;
    }
    model_op_end(p->model, &op, now, ret == 0);
    return ok;
}

bool proof_between(ProofRunState *p, GRand *rand, GString *why)
{
    return !p->fmt->between || p->cfg.threads > 1 ||
           g_rand_int_range(rand, 0, 100) >= p->cfg.between ||
           p->fmt->between(p->fmt, p->blk, rand, why) ||
           proof_fired(p);
}

/* ---- Reading back ---- */

typedef struct Verify {
    ProofRunState *p;
    ProofVerify v;
    ProofCheck c;
    BlockBackend *blk;
    int64_t size;
    uint8_t *whole;             /* what the disk holds */
} Verify;

static bool io_ok(Verify *s, int ret, const char *what, int64_t offset)
{
    if (ret < 0) {
        g_string_append_printf(s->p->why, "%s at %" PRId64 " fails: %s", what,
                               offset, strerror(-ret));
    }
    return ret >= 0;
}

static bool read_all(Verify *s, uint8_t *to)
{
    int64_t at;

    for (at = 0; at < s->size; at += CHUNK) {
        int64_t n = MIN(CHUNK, s->size - at);

        if (!io_ok(s, blk_pread(s->blk, at, n, to + at, 0), "reading", at)) {
            return false;
        }
    }
    return true;
}

static bool check_contents(Verify *s)
{
    ModelDisk *m = s->p->model;
    GString *why = s->p->why;

    s->size = blk_getlength(s->blk);
    if (!model_check_crash_size(m, s->v.cut, s->size, why)) {
        return false;
    }
    s->whole = g_malloc(s->size + 1);
    if (!read_all(s, s->whole)) {
        return false;
    }
    return s->v.is_kill ?
           model_check_kill(m, s->v.cut, 0, s->size, s->whole, why) :
           model_check_crash(m, s->v.cut, 0, s->size, s->whole, why);
}

/* ---- Writing on ---- */

static bool overwrite_some(Verify *s, GRand *rand)
{
    int64_t sectors = s->size / MODEL_SECTOR;
    int i;

    for (i = 0; i < OVERWRITES && sectors; i++) {
        int64_t offset = g_rand_int_range(rand, 0, sectors) * MODEL_SECTOR;
        int64_t max = MIN(CHUNK, s->size - offset) / MODEL_SECTOR;
        int64_t n = g_rand_int_range(rand, 1, max + 1) * MODEL_SECTOR;

        memset(s->whole + offset, 1 + i, n);
        if (!io_ok(s, blk_pwrite(s->blk, offset, n, s->whole + offset, 0),
                   "writing to the recovered image", offset)) {
            return false;
        }
    }
    return io_ok(s, blk_flush(s->blk), "flushing", 0);
}

static bool check_overwriting(Verify *s)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(s->v.seed);
    g_autofree uint8_t *again = g_malloc(s->size + 1);
    int64_t i;

    if (!overwrite_some(s, rand) || !read_all(s, again)) {
        return false;
    }
    for (i = 0; i < s->size; i += MODEL_SECTOR) {
        if (memcmp(again + i, s->whole + i, MODEL_SECTOR)) {
            g_string_append_printf(s->p->why, "writing to the recovered image"
                                   " damages sector %" PRId64 ", which holds "
                                   "%02x%02x… now, not %02x%02x…",
                                   i / MODEL_SECTOR, again[i], again[i + 1],
                                   s->whole[i], s->whole[i + 1]);
            return false;
        }
    }
    return true;
}

/* ---- Growing ---- */

/* To a multiple of it. */
#define GROWN_UNIT (128 * KiB)

/* What the disk gains reads as zeroes, whatever was there once. */
static bool check_growing(Verify *s)
{
    int64_t old = s->size;
    int64_t new = MIN(ROUND_UP(old + 1, GROWN_UNIT) + GROWN_UNIT,
                      s->p->cfg.max_size);
    g_autofree uint8_t *all = g_malloc(new + 1);
    Error *err = NULL;
    bool ok;

    if (!blk_truncate(s->blk, new, true, PREALLOC_MODE_OFF, 0, &err)) {
        g_string_append_printf(s->p->why, "growing the recovered image: %s",
                               error_get_pretty(err));
        error_free(err);
        return false;
    }
    s->size = new;
    ok = read_all(s, all);
    if (ok && (memcmp(all, s->whole, old) ||
               !buffer_is_zero(all + old, new - old))) {
        g_string_append(s->p->why, "growing the recovered image brings "
                        "something else than zeroes");
        return false;
    }
    return ok;
}

/* ---- All of it ---- */

static bool run_checker(Verify *s, bool is_crashed)
{
    const ProofFormat *fmt = s->p->fmt;

    s->c.is_crashed = is_crashed;
    if (!fmt->check || fmt->check(&s->c)) {
        return true;
    }
    g_string_prepend(s->p->why, is_crashed ?
                     "the checker, before the image was opened: " :
                     "the checker, after the image was used again: ");
    return false;
}

static bool open_and_check(Verify *s)
{
    bool ok;

    s->blk = proof_check_open(&s->c, true);
    if (!s->blk) {
        return false;
    }
    ok = check_contents(s) && check_overwriting(s) &&
         (!s->p->cfg.grow || check_growing(s));
    blk_unref(s->blk);
    g_free(s->whole);
    return ok;
}

static bool verify_disks(ProofRunState *p, WriteLogDisk *disk,
                         WriteLogDisk *data, ProofVerify v)
{
    Verify s = { p, v, { p->fmt, p->graph, disk, data, true, true, p->why } };

    p->result->checks++;
    return run_checker(&s, v.is_crashed) && open_and_check(&s) &&
           run_checker(&s, false);
}

static WriteLogDisk *disk_of(ProofRunState *p, const char *id,
                             const MemImage *img)
{
    WriteLogDisk *d = write_log_disk_new(id, mem_image_clone(img));

    d->request_alignment = p->cfg.file_alignment;
    d->discard_value = p->cfg.discard_value;
    return d;
}

bool proof_verify(ProofRunState *p, const MemImage *img, const MemImage *data,
                  ProofVerify v)
{
    g_autoptr(WriteLogDisk) disk = disk_of(p, "proof-verify", img);
    g_autoptr(WriteLogDisk) data_disk =
        data ? disk_of(p, "proof-verify-data", data) : NULL;
    bool ok = verify_disks(p, disk, data_disk, v);

    if (!ok) {
        proof_save(img);
    }
    return ok;
}

/* ---- For checkers ---- */

BlockBackend *proof_check_open(ProofCheck *c, bool writable)
{
    Error *err = NULL;
    BlockBackend *blk = proof_open(c->fmt, c->graph, c->disk,
                                   writable ? BDRV_O_RDWR | BDRV_O_RESIZE |
                                   BDRV_O_UNMAP : 0,
                                   &err);

    if (!blk) {
        g_string_append_printf(c->why, "the image does not open: %s",
                               error_get_pretty(err));
        error_free(err);
    }
    return blk;
}

static bool is_raw(ProofCheck *c, BlockBackend *blk)
{
    const MemImage *raw = c->data->img;
    int64_t size = blk_getlength(blk);
    g_autofree uint8_t *disk = g_malloc(size + 1);
    g_autofree uint8_t *file = g_malloc(size + 1);
    int ret = blk_pread(blk, 0, size, disk, 0);
    int64_t i = 0;

    mem_image_read(raw, 0, file, size);
    while (i < size && disk[i] == file[i]) {
        i++;
    }
    if (ret < 0 || i < size || mem_image_size(raw) < size) {
        g_string_append_printf(c->why, "the raw file, %" PRId64 " bytes, is "
                               "not the disk, %" PRId64 " bytes: at %" PRId64
                               " %02x, not %02x (%d)", mem_image_size(raw),
                               size, i, file[i], disk[i], ret);
        return false;
    }
    return true;
}

bool proof_check_raw_file(ProofCheck *c)
{
    BlockBackend *blk = proof_check_open(c, false);
    bool ok = blk && is_raw(c, blk);

    if (blk) {
        blk_unref(blk);
    }
    return ok;
}

static bool driver_finds_nothing(ProofCheck *c, BlockDriverState *bs)
{
    BdrvCheckResult res = { 0 };
    int ret;

    bdrv_drained_begin(bs);
    ret = bs->drv->check ? bs->drv->check(bs, &res, 0) : -ENOTSUP;
    bdrv_drained_end(bs);
    if (ret < 0 || res.corruptions || res.check_errors ||
        (res.leaks && !c->may_leak)) {
        g_string_append_printf(c->why, "check returns %d: %" PRId64
                               " corruptions, %" PRId64 " leaks, %" PRId64
                               " errors", ret, res.corruptions, res.leaks,
                               res.check_errors);
        return false;
    }
    return true;
}

bool proof_check_driver(ProofCheck *c)
{
    Error *err = NULL;
    BlockBackend *blk = proof_open(c->fmt, c->graph, c->disk, BDRV_O_CHECK,
                                   &err);
    bool ok;

    if (!blk) {
        g_string_append_printf(c->why, "the image cannot be checked: %s",
                               error_get_pretty(err));
        error_free(err);
        return false;
    }
    ok = driver_finds_nothing(c, blk_bs(blk));
    blk_unref(blk);
    return ok;
}

static bool run_command(ProofCheck *c, const char *const *argv,
                        const char *path)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    g_autofree char *out = NULL;
    g_autofree char *err_out = NULL;
    g_autoptr(GError) err = NULL;
    int status = 0;

    for (; *argv; argv++) {
        g_ptr_array_add(args, (char *)*argv);
    }
    g_ptr_array_add(args, (char *)path);
    g_ptr_array_add(args, NULL);
    if (!g_spawn_sync(NULL, (char **)args->pdata, NULL, G_SPAWN_SEARCH_PATH,
                      NULL, NULL, &out, &err_out, &status, &err)) {
        g_string_append(c->why, err->message);
        return false;
    }
    if (status != 0) {
        g_string_append_printf(c->why, "%s: wait status %d\n%s%s",
                               (char *)args->pdata[0], status, out, err_out);
    }
    return status == 0;
}

bool proof_check_command(ProofCheck *c, const char *const *argv)
{
    const char *dir = access("/dev/shm", W_OK) == 0 ? "/dev/shm" :
                      g_get_tmp_dir();
    g_autofree char *path = g_build_filename(dir, "proof-XXXXXX", NULL);
    int fd = g_mkstemp(path);
    bool ok = false;
    int ret;

    if (fd < 0) {
        g_string_append_printf(c->why, "no file %s: %s", path,
                               strerror(errno));
        return false;
    }
    close(fd);
    ret = mem_image_save(c->disk->img, path);
    if (ret < 0) {
        g_string_append_printf(c->why, "%s: %s", path, strerror(-ret));
    } else {
        ok = run_command(c, argv, path);
    }
    unlink(path);
    return ok;
}
