/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A power cut, or a failing disk, while an image is repaired.
 *
 * An image with snapshots, with bitmaps or encrypted perhaps, is damaged at
 * random, in all that a repair can put right: refcounts, the refcount table,
 * COPIED flags, the dirty and the corrupt bit (qcow2-damage.h).  Then it is
 * repaired, by a check or, if it is dirty, by being opened (then bitmaps are in
 * use).  What an interruption leaves must not be worse than what there was: all
 * that could be read still can be; no cluster has come into danger of being
 * overwritten that was not; a second repair completes; then nothing is wrong
 * any more, by the driver's check and by the checker that shares nothing with
 * it, and writing damages nothing.
 *
 * Or entries of tables become any, which no repair can put right.  Then the
 * same is asked of all that can still be read as it was; a second repair leaves
 * an image that is as clean as after one that nobody interrupts; and only if
 * that is clean does it have to stand being written.  (Not if the snapshot
 * table is another: it may be where the repair writes.)  Or the file ends in a
 * table, or before it, and everything else that it has is in use.
 */
#include "proof-int.h"
#include "qcow2-checker.h"
#include "qcow2-damage.h"
#include "repair-contents.h"
#include "block/block-driver.h"
#include "block/dirty-bitmap.h"
#include "block/snapshot.h"
#include "crypto/secret.h"

#define FIX_ALL (BDRV_FIX_LEAKS | BDRV_FIX_ERRORS)

typedef void Damage(MemImage *img, GRand *rand, Qcow2Lost *lost);

typedef struct Variant {
    const char *name;
    const char *create;
    int64_t compress_unit;
    bool no_snapshots;
    const char *open;
    int bitmaps;
    Damage *hurt;                   /* what nobody can put right; or NULL */
    bool fill;                      /* the file has no room for repairs */
    bool has_data_file;             /* the disk "data" */
    int cost;                       /* look at every so many-th; 0: 1 */
} Variant;

/* A short key, as it takes time to open. */
#define LUKS "'encrypt.format':'luks','encrypt.key-secret':'s'," \
             "'encrypt.iter-time':'0','encrypt.cipher-alg':'aes-128'," \
             "'encrypt.cipher-mode':'cbc','encrypt.ivgen-alg':'plain64'"
#define KEY "{'encrypt.key-secret':'s'}"
#define DATA "'data_file':'write-log:data'"
#define OPEN "{'data-file':{'driver':'write-log','disk':'data'}}"

static const Variant variants[] = {
    { "512", "{'cluster_size':512}", 512 },
    { "512-refcount-64", "{'cluster_size':512,'refcount_bits':64}" },
    { "512-refcount-1", "{'cluster_size':512,'refcount_bits':1}", 0, true },
    { "4k", "{'cluster_size':4096}", 4096 },
    { "4k-refcount-4", "{'cluster_size':4096,'refcount_bits':4}" },
    { "extended-l2", "{'cluster_size':16384,'extended_l2':true}", 16384 },
    { "64k", "{'cluster_size':65536}", 65536 },
    { "version-2", "{'cluster_size':1024,'compat':'0.10'}", 1024 },
    { "bitmaps-512", "{'cluster_size':512}", .bitmaps = 3, .cost = 2 },
    { "bitmaps-64k", "{'cluster_size':65536}", .bitmaps = 2 },
    { "tables-512", "{'cluster_size':512}", 512, .hurt = qcow2_damage_tables },
    { "tables-refcount-1", "{'cluster_size':512,'refcount_bits':1}", 0, true,
      .hurt = qcow2_damage_tables },
    { "tables-4k", "{'cluster_size':4096}", 4096, .hurt = qcow2_damage_tables,
      .bitmaps = 2, .cost = 2 },
    { "tables-extended-l2", "{'cluster_size':16384,'extended_l2':true}",
      .hurt = qcow2_damage_tables, .cost = 3 },
    { "tables-64k", "{'cluster_size':65536}", 65536,
      .hurt = qcow2_damage_tables, .cost = 8 },
    { "data-file-512", "{'cluster_size':512," DATA "}", 0, true, .open = OPEN,
      .bitmaps = 2, .has_data_file = true },
    { "data-file-ends", "{'cluster_size':512,'refcount_bits':64," DATA "}", 0,
      true, .open = OPEN, .bitmaps = 2, .has_data_file = true,
      .hurt = qcow2_damage_ends },
    { "snapshots-end-512", "{'cluster_size':512}", .fill = true,
      .hurt = qcow2_damage_snapshots_end, .cost = 6 },
    { "snapshots-end-refcount-64", "{'cluster_size':512,'refcount_bits':64}",
      .fill = true, .hurt = qcow2_damage_snapshots_end, .cost = 6 },
    { "snapshots-end-version-2", "{'cluster_size':1024,'compat':'0.10'}",
      .fill = true, .hurt = qcow2_damage_snapshots_end, .cost = 6 },
    { "ends-512", "{'cluster_size':512}", .fill = true, .bitmaps = 2,
      .hurt = qcow2_damage_ends, .cost = 2 },
    { "ends-refcount-1", "{'cluster_size':512,'refcount_bits':1}", 0, true,
      .fill = true, .bitmaps = 2, .hurt = qcow2_damage_ends, .cost = 4 },
    { "ends-refcount-64", "{'cluster_size':512,'refcount_bits':64}",
      .fill = true, .hurt = qcow2_damage_ends, .cost = 4 },
    { "ends-extended-l2", "{'cluster_size':16384,'extended_l2':true}",
      .fill = true, .hurt = qcow2_damage_ends, .cost = 3 },
    { "ends-64k", "{'cluster_size':65536}", .fill = true,
      .hurt = qcow2_damage_ends, .cost = 8 },
    { "luks-4k", "{'cluster_size':4096," LUKS "}", .open = KEY, .cost = 12 },
    { "luks-64k", "{" LUKS "}", .open = KEY, .cost = 12 },
};

typedef struct Run {
    const Variant *v;
    uint32_t seed;
    int fix;                        /* of the repair that is interrupted … */
    bool by_open;                   /* … unless opening the image does it */
    WriteLogDisk *disk;             /* damaged */
    WriteLogDisk *data;             /* or NULL … */
    MemImage *sound_data;           /* … as no repair may change it */
    GHashTable *dangers;            /* in the beginning … */
    int64_t end;                    /* … when the file was so long */
    Contents before;
    BdrvCheckResult rest;           /* what nobody can repair … */
    int rest_ret;                   /* … and what a check then returns */
    /* What is read as the snapshot table may be what the repair changes, so
     * that nobody knows what is left. */
    bool is_unknown;
    GString *why;
} Run;

static unsigned n_kept, n_clean;
static unsigned n_images, n_dangerous, n_opened, n_fired;

/* ---- An image ---- */

static int check(Run *r, const char *id, int fix, BdrvCheckResult *res)
{
    BlockBackend *blk = contents_open(&r->before, id, BDRV_O_CHECK |
                                      (fix ? BDRV_O_RDWR : 0));
    BlockDriverState *bs = blk ? blk_bs(blk) : NULL;
    int ret;

    *res = (BdrvCheckResult){ 0 };
    if (!blk) {
        return -EINVAL;
    }
    bdrv_drained_begin(bs);
    ret = bs->drv->check(bs, res, fix);
    bdrv_drained_end(bs);
    blk_unref(blk);
    return ret;
}

static void scribble(BlockBackend *blk, GRand *rand, int n, int64_t unit)
{
    int64_t size = blk_getlength(blk);

    for (int i = 0; i < n; i++) {
        int64_t at = g_rand_int_range(rand, 0, size / 512) * 512;
        int64_t bytes = g_rand_int_range(rand, 1, 40) * 512;
        bool compress = unit && i % 4 == 0;
        g_autofree uint8_t *buf = NULL;

        at = compress ? QEMU_ALIGN_DOWN(at, unit) : at;
        bytes = compress ? unit : MIN(bytes, size - at);
        buf = g_malloc(bytes);
        memset(buf, g_rand_int_range(rand, 1, 256), bytes);
        g_assert_cmpint(i % 8 == 1 ? blk_pwrite_zeroes(blk, at, bytes, 0) :
                        i % 8 == 5 ? blk_pdiscard(blk, at, bytes) :
                        blk_pwrite(blk, at, bytes, buf, compress ?
                                   BDRV_REQ_WRITE_COMPRESSED : 0), ==, 0);
    }
}

/* Each has what is written between it and the next, and more. */
static void add_bitmaps(Run *r, BlockBackend *blk, GRand *rand)
{
    for (int i = 0; i < r->v->bitmaps; i++) {
        g_autofree char *name = g_strdup_printf("b%d", i);

        bdrv_dirty_bitmap_cmd_add(blk_bs(blk), name, BITMAP_GRANULARITY, true,
                                  false, &error_abort);
        scribble(blk, rand, 6, 0);
        if (i == 0) {
            bdrv_disable_dirty_bitmap(bdrv_find_dirty_bitmap(blk_bs(blk),
                                                             name));
        }
    }
    r->before.n_bitmaps = r->v->bitmaps;
}

/* What is free, after a flush, a cluster at a time: then there is room behind
 * the end of the file only. */
static void fill(Run *r, BlockBackend *blk)
{
    uint8_t buf[512];

    memset(buf, 99, sizeof(buf));
    g_assert_cmpint(blk_flush(blk), ==, 0);
    for (int64_t at = 0; at < r->before.size; at += sizeof(buf)) {
        g_assert_cmpint(blk_pwrite(blk, at, sizeof(buf), buf, 0), ==, 0);
    }
}

static void make_image(Run *r, GRand *rand)
{
    json_t *o = options_from_json(r->v->create, &error_abort);
    BlockBackend *blk;

    r->before.size = 256 * KiB;
    json_object_set_new(o, "size", json_integer(r->before.size));
    bdrv_create(r->before.graph, "qcow2", "write-log:hurt", o, &error_abort);
    blk = contents_open(&r->before, "hurt", BDRV_O_RDWR | BDRV_O_UNMAP);
    scribble(blk, rand, 20, r->v->compress_unit);
    add_bitmaps(r, blk, rand);
    r->before.n = 1;
    while (!r->v->no_snapshots && r->before.n <= MAX_SNAPSHOTS) {
        QEMUSnapshotInfo sn = { .date_sec = 1 };

        snprintf(sn.name, sizeof(sn.name), "s%d", r->before.n - 1);
        g_assert_true(bdrv_snapshot_create(blk_bs(blk), &sn, &error_abort));
        r->before.n++;
        scribble(blk, rand, 6, r->v->compress_unit);
    }
    if (r->v->fill) {
        fill(r, blk);
    }
    blk_unref(blk);
}

static bool is_only_dirty(const MemImage *img)
{
    uint8_t header[80];

    mem_image_read(img, 0, header, sizeof(header));
    return header[7] >= 3 && (header[79] & 3) == 1;
}

static int64_t wrong(const BdrvCheckResult *res)
{
    return res->corruptions + res->leaks + res->check_errors;
}

/* What can still be read has to stay, and what a repair that nobody interrupts
 * cannot put right, another need not. */
static void damage_tables(Run *r, GRand *rand)
{
    g_autoptr(WriteLogDisk) d = NULL;
    BdrvCheckResult res;
    Qcow2Lost lost;
    int left;

    r->v->hurt(r->disk->img, rand, &lost);
    left = contents_keep(&r->before, "hurt", &lost);
    n_kept += left > 0;
    r->is_unknown = lost.snapshots == ~0u;
    d = write_log_disk_new("rest", mem_image_clone(r->disk->img));
    check(r, "rest", FIX_ALL, &res);
    r->rest_ret = check(r, "rest", 0, &r->rest);
    n_clean += r->rest_ret == 0 && !wrong(&r->rest);
    g_string_truncate(r->why, 0);
}

static void run_begin(Run *r, const Variant *v, uint32_t seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

    *r = (Run){ .v = v, .seed = seed, .why = g_string_new(NULL) };
    r->before = (Contents){ .graph = block_graph_new(), .open = v->open,
                            .why = r->why };
    r->disk = write_log_disk_new("hurt", mem_image_new(0));
    r->data = v->has_data_file ? write_log_disk_new("data", mem_image_new(0)) :
              NULL;
    r->fix = g_rand_int_range(rand, 0, 4) ? FIX_ALL : BDRV_FIX_LEAKS;
    make_image(r, rand);
    r->sound_data = r->data ? mem_image_clone(r->data->img) : NULL;
    contents_take(&r->before, "hurt");
    if (!v->hurt || g_rand_int_range(rand, 0, 2)) {
        qcow2_damage(r->disk->img, rand);
    }
    if (v->hurt) {
        damage_tables(r, rand);
    }
    r->by_open = is_only_dirty(r->disk->img);
    n_opened += r->by_open;
    r->before.may_be_in_use = r->by_open;
    r->end = v->hurt ? mem_image_size(r->disk->img) : INT64_MAX;
    r->dangers = qcow2_checker_dangers(r->disk->img, r->end, r->why);
    g_assert_nonnull(r->dangers);
    n_dangerous += g_hash_table_size(r->dangers) > 0;
    write_log_start(r->disk);
}

static void run_end(Run *r)
{
    write_log_disk_free(r->disk);
    g_clear_pointer(&r->data, write_log_disk_free);
    g_clear_pointer(&r->sound_data, mem_image_free);
    block_graph_free(r->before.graph);
    contents_clear(&r->before);
    g_hash_table_destroy(r->dangers);
    g_string_free(r->why, TRUE);
}

/* ---- Repair ---- */

/* The one that is interrupted. */
static int repair(Run *r, BdrvCheckResult *res)
{
    BlockBackend *blk;

    if (!r->by_open) {
        return check(r, "hurt", r->fix, res);
    }
    *res = (BdrvCheckResult){ 0 };
    blk = contents_open(&r->before, "hurt", BDRV_O_RDWR);
    if (blk) {
        blk_unref(blk);
    }
    return blk ? 0 : -EIO;
}

/* No worse than what a repair that is not interrupted leaves.  (How many things
 * are wrong is not the same: a table may be where refcounts are.) */
static bool is_as_clean(Run *r, int ret, const BdrvCheckResult *res)
{
    if (r->rest_ret < 0 || r->is_unknown ||
        (ret >= 0 && (wrong(&r->rest) || !wrong(res)))) {
        return true;
    }
    g_string_append_printf(r->why, "a check returned %d with %" PRId64
                           " findings, now %d with %" PRId64, r->rest_ret,
                           wrong(&r->rest), ret, wrong(res));
    return false;
}

static bool is_clean(Run *r, int ret, const BdrvCheckResult *res)
{
    if (r->v->hurt) {
        return is_as_clean(r, ret, res);
    }
    if (ret < 0 || res->corruptions || res->leaks || res->check_errors) {
        g_string_append_printf(r->why, "check returns %d, %" PRId64
                               " corruptions, %" PRId64 " leaks, %" PRId64
                               " errors", ret, res->corruptions, res->leaks,
                               res->check_errors);
        return false;
    }
    return true;
}

static bool not_more_dangerous(Run *r, const MemImage *img)
{
    GHashTable *now = qcow2_checker_dangers(img, r->end, r->why);
    GHashTableIter iter;
    gpointer cluster;
    bool ok = now;

    if (ok) {
        g_hash_table_iter_init(&iter, now);
    }
    while (ok && g_hash_table_iter_next(&iter, &cluster, NULL)) {
        ok = g_hash_table_contains(r->dangers, cluster);
        if (!ok) {
            g_string_append_printf(r->why, "cluster %zu has come into danger",
                                   (size_t)(uintptr_t)cluster);
        }
    }
    g_clear_pointer(&now, g_hash_table_destroy);
    return ok;
}

static bool repairs(Run *r, WriteLogDisk *d)
{
    Qcow2CheckerResult own;
    BdrvCheckResult res;
    int ret = check(r, d->id, FIX_ALL, &res);

    if (!r->v->hurt && !is_clean(r, ret, &res)) {
        g_string_append(r->why, " (a second repair)");
        return false;
    }
    ret = check(r, d->id, 0, &res);
    if (r->v->hurt) {
        return is_clean(r, ret, &res) && not_more_dangerous(r, d->img) &&
               contents_are_in(&r->before, d->id);
    }
    if (!is_clean(r, ret, &res) || !qcow2_checker_run(d->img, &own, r->why)) {
        return false;
    }
    if (r->by_open && r->before.n_bitmaps) {
        /* Bitmaps that were to be stored at the end; nobody looks there. */
        own.leaks -= own.leaks_behind;
    }
    if (own.leaks || own.miscopied || own.is_dirty) {
        g_string_append_printf(r->why, "after a second repair %u leaks, %u "
                               "wrong COPIED flags, dirty %d", own.leaks,
                               own.miscopied, own.is_dirty);
        return false;
    }
    return true;
}

/* What was written to see whether that can be done. */
static void restore_data(Run *r)
{
    if (r->data) {
        mem_image_free(r->data->img);
        r->data->img = mem_image_clone(r->sound_data);
    }
}

static bool check_left(Run *r, const MemImage *img)
{
    g_autoptr(WriteLogDisk) d =
        write_log_disk_new("left", mem_image_clone(img));
    bool ok = not_more_dangerous(r, img) &&
              contents_are_in(&r->before, "left") && repairs(r, d) &&
              (r->rest_ret < 0 || r->rest.corruptions || r->is_unknown ||
               contents_can_be_written(&r->before, "left", r->seed));

    n_images++;
    if (!ok) {
        proof_save(img);
    }
    restore_data(r);
    return ok;
}

static bool check_cut(ReplayCut cut, MemImage *img, void *opaque)
{
    Run *r = opaque;
    g_autofree char *text = NULL;

    if (check_left(r, img)) {
        return true;
    }
    text = replay_cut_format(cut);
    g_string_append_printf(r->why, "\n  cut at %s of %u", text,
                           r->disk->log->len);
    return false;
}

/* ---- Tests ---- */

static bool report(const Run *r, bool ok)
{
    if (!ok) {
        g_test_message("%s: %s\n  --seed=%u", r->v->name, r->why->str,
                       r->seed);
        g_test_fail();
    }
    return ok;
}

static int stride_of(const Variant *v)
{
    return proof_stride() * MAX(v->cost, 1);
}

static bool crash_one(const Variant *v, uint32_t seed)
{
    BdrvCheckResult res;
    Run r;
    bool ok;
    int ret;

    run_begin(&r, v, seed);
    ret = repair(&r, &res);
    ok = (r.fix != FIX_ALL && !r.by_open) || v->hurt ||
         is_clean(&r, ret, &res);
    if (ok && r.by_open && !v->hurt) {
        /* Whoever was not interrupted has put bitmaps back. */
        r.before.may_be_in_use = false;
        ok = contents_are_in(&r.before, "hurt");
        r.before.may_be_in_use = true;
    }
    ok = ok && replay_foreach(r.disk, seed, 150 / stride_of(v),
                              50 / stride_of(v), check_cut, &r);
    report(&r, ok);
    run_end(&r);
    return ok;
}

/* Damaged tables meet in more ways than many runs have seen. */
static uint32_t seed_of(const Variant *v)
{
    return v->hurt ? proof_seed_or(g_str_hash(v->name)) : proof_seed();
}

static void test_crash(const void *opaque)
{
    uint32_t seed = seed_of(opaque);

    for (int i = 0; i < 6 * proof_scale() / stride_of(opaque) + 1; i++) {
        if (!crash_one(opaque, seed + i)) {
            return;
        }
    }
}

/* Returns whether there is a next one. */
static bool fail_one(const void *variant, uint32_t seed, int which,
                     WriteLogFault fault)
{
    const Variant *v = variant;
    BdrvCheckResult res;
    bool ok, fired;
    Run r;
    int ret;

    run_begin(&r, v, seed);
    write_log_fail(r.disk, fault);
    ret = repair(&r, &res);
    fired = write_log_fired(r.disk);
    g_string_truncate(r.why, 0);
    ok = fired || (r.fix != FIX_ALL && !r.by_open) || v->hurt ||
         is_clean(&r, ret, &res);
    ok = ok && check_left(&r, r.disk->img) &&
         replay_foreach(r.disk, seed, 6, 3, check_cut, &r);
    n_fired += fired;
    if (!ok) {
        g_string_append_printf(r.why, "\n  fault %d of mask %#x", fault.nth,
                               fault.mask);
    }
    report(&r, ok);
    run_end(&r);
    return ok && fired;
}

static void test_fail_nth(const void *opaque)
{
    const WriteLogFault no_reading = {
        1u << WLOG_READ, 0, EIO, .forever = true
    };
    int stride = (proof_scale() > 1 ? 1 : 4) * stride_of(opaque);
    uint32_t seed = seed_of(opaque);

    for (int k = 0; k < PROOF_FAULTS && !g_test_failed(); k++) {
        proof_fail_each(fail_one, opaque, seed, 0, proof_faults[k], stride);
    }
    if (!g_test_failed()) {
        proof_fail_each(fail_one, opaque, seed, 0, no_reading, stride);
    }
}

static void add_secret(void)
{
    static const ObjectType *const types[] = { &secret_object_type, NULL };
    bool help;

    user_creatable_add_from_str(types, "secret,id=s,data=abc", &help,
                                &error_abort);
}

int main(int argc, char **argv)
{
    int ret;

    proof_main_init(&argc, &argv);
    add_secret();
    ret = proof_run_tests("qcow2-repair", test_crash, test_fail_nth, variants,
                          G_N_ELEMENTS(variants), sizeof(variants[0]));
    printf("# %u images; %u times clusters were in danger; %u repaired when "
           "opened; %u faults\n# of images with damaged tables %u could be "
           "read, in part; %u could be repaired\n", n_images, n_dangerous,
           n_opened, n_fired, n_kept, n_clean);
    return ret;
}
