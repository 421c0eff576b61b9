/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A power cut, or a failing disk, while an overlay gets another backing file
 * (or none) by the safe way of "qemu-img rebase": qemu-img's own code.
 *
 * Only the overlay is written.  What is left of it is opened as its header
 * says, on the old backing file or the new one, and reads as before; it is
 * sound, as the checker says that shares nothing with the driver; and a second
 * rebase completes.  Of one that has ended well, nothing gets lost: the header
 * says the new one.
 */
#include "proof-int.h"
#include "overlays.h"
#include "block/block-driver.h"
#include "../../qemu-img/qemu-img.h"

typedef struct Backing {
    const char *driver;             /* NULL: none */
    const char *create;
    int64_t size;
} Backing;

typedef struct Variant {
    const char *name;
    const char *top;                /* options to create it */
    int64_t size;
    Backing old, new;
    bool compress;                  /* rebase -c */
    bool on_new;                    /* the old one is an overlay of the new */
} Variant;

#define RAW(size) { "raw", "{}", size }
#define QCOW2(cluster, size) \
    { "qcow2", "{'cluster_size':" #cluster "}", size }

static const Variant variants[] = {
    { "4k", "{'cluster_size':4096}", 512 * KiB,
      QCOW2(4096, 512 * KiB), QCOW2(4096, 512 * KiB) },
    { "to-none", "{'cluster_size':4096}", 512 * KiB,
      QCOW2(65536, 512 * KiB) },
    { "from-none", "{'cluster_size':4096}", 512 * KiB,
      .new = QCOW2(512, 300 * KiB) },
    { "compress", "{'cluster_size':4096}", 512 * KiB,
      QCOW2(4096, 300 * KiB), RAW(400 * KiB), .compress = true },
    { "compress-to-none", "{'cluster_size':16384,'lazy_refcounts':true}",
      512 * KiB, RAW(512 * KiB), .compress = true },
    { "coarse-top", "{'cluster_size':65536}", 768 * KiB,
      RAW(300 * KiB + 512), RAW(129 * KiB) },
    { "fine-top", "{'cluster_size':512}", 256 * KiB,
      QCOW2(65536, 200 * KiB), QCOW2(16384, 512 * KiB) },
    { "extended-l2", "{'cluster_size':65536,'extended_l2':true}", 768 * KiB,
      RAW(512 * KiB), QCOW2(4096, 700 * KiB) },
    { "compress-subclusters", "{'cluster_size':16384,'extended_l2':true}",
      512 * KiB, QCOW2(4096, 512 * KiB), RAW(300 * KiB), .compress = true },
    { "lazy", "{'cluster_size':4096,'lazy_refcounts':true}", 512 * KiB,
      QCOW2(4096, 512 * KiB), RAW(512 * KiB) },
    { "skip-one", "{'cluster_size':4096}", 512 * KiB,
      QCOW2(16384, 512 * KiB), RAW(300 * KiB), .on_new = true },
    { "version-2", "{'cluster_size':1024,'compat':'0.10'}", 256 * KiB,
      QCOW2(4096, 256 * KiB), RAW(200 * KiB) },
};

typedef struct Run {
    const Variant *v;
    uint32_t seed;
    WriteLogDisk *top, *old, *new;
    uint8_t *expected;              /* what the overlay holds */
    bool has_succeeded;             /* the rebase said so */
    GString *why;
} Run;

static unsigned n_images, n_on_new, n_fired;

/* ---- Opening and rebasing ---- */

/* As its header says, but for flags. */
static BlockBackend *open_image(const char *driver, const char *disk,
                                int flags, Error **errp)
{
    json_t *o = json_pack("{s:s, s:{s:s, s:s}}", "driver", driver, "file",
                          "driver", "write-log", "disk", disk);

    return blk_new_open(img_graph(), NULL, NULL, o, flags, errp);
}

static int rebase(const Variant *v, const char *disk)
{
    static const ImgCommand cmd = { "rebase", img_rebase, "" };
    g_autofree char *options =
        g_strdup_printf("driver=qcow2,file.driver=write-log,file.disk=%s",
                        disk);
    g_autoptr(GPtrArray) args = g_ptr_array_new();

    g_ptr_array_add(args, (char *)"rebase");
    g_ptr_array_add(args, (char *)(v->compress ? "-qc" : "-q"));
    g_ptr_array_add(args, (char *)"-b");
    g_ptr_array_add(args, (char *)(v->new.driver ? "write-log:new" : ""));
    if (v->new.driver) {
        g_ptr_array_add(args, (char *)"-F");
        g_ptr_array_add(args, (char *)v->new.driver);
    }
    g_ptr_array_add(args, (char *)"--image-opts");
    g_ptr_array_add(args, options);
    g_ptr_array_add(args, NULL);
    optind = 0;
    return img_rebase(&cmd, args->len - 1, (char **)args->pdata);
}

/* ---- Making them ---- */

static char *with_backing(const char *options, const char *backing,
                          const char *driver)
{
    json_t *o = options_from_json(options, &error_abort);
    char *text;

    if (driver) {
        json_object_set_new(o, "backing_file",
                            json_sprintf("write-log:%s", backing));
        json_object_set_new(o, "backing_fmt", json_string(driver));
    }
    text = json_dumps(o, 0);
    json_decref(o);
    return text;
}

static void fill(const char *driver, const char *disk, GRand *rand, int n,
                 int64_t compress_unit)
{
    BlockBackend *blk = open_image(driver, disk, BDRV_O_RDWR | BDRV_O_UNMAP,
                                   &error_abort);

    overlays_scribble(blk, rand, n, compress_unit);
    blk_unref(blk);
}

static void make_backing(const Backing *b, const char *disk, GRand *rand,
                         const char *below, const char *below_driver)
{
    g_autofree char *options = NULL;

    if (!b->driver) {
        return;
    }
    options = with_backing(b->create, below, below_driver);
    overlays_create(b->driver, disk, options, b->size);
    fill(b->driver, disk, rand, 15, 0);
}

static void run_begin(Run *r, const Variant *v, uint32_t seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autofree char *options = with_backing(v->top, "old", v->old.driver);
    BlockBackend *blk;

    *r = (Run){ .v = v, .seed = seed, .why = g_string_new(NULL) };
    r->top = write_log_disk_new("top", mem_image_new(0));
    r->old = write_log_disk_new("old", mem_image_new(0));
    r->new = write_log_disk_new("new", mem_image_new(0));
    make_backing(&v->new, "new", rand, NULL, NULL);
    make_backing(&v->old, "old", rand, "new",
                 v->on_new ? v->new.driver : NULL);
    overlays_create("qcow2", "top", options, v->size);
    fill("qcow2", "top", rand, 12, 64 * KiB);
    r->expected = g_malloc(v->size);
    blk = open_image("qcow2", "top", 0, &error_abort);
    g_assert_cmpint(blk_pread(blk, 0, v->size, r->expected, 0), ==, 0);
    blk_unref(blk);
    write_log_start(r->top);
}

static void run_end(Run *r)
{
    write_log_disk_free(r->top);
    write_log_disk_free(r->old);
    write_log_disk_free(r->new);
    g_free(r->expected);
    g_string_free(r->why, TRUE);
}

/* ---- What is left ---- */

static const char *backing_of(const Variant *v, bool new)
{
    return (new ? v->new : v->old).driver ? new ? "write-log:new" :
           "write-log:old" : "";
}

/* Of an open overlay.  Any other name is wrong. */
static bool says_new(Run *r, BlockBackend *blk, bool *is_new)
{
    const char *name = blk_bs(blk)->backing_file ?: "";

    *is_new = g_str_equal(name, backing_of(r->v, true));
    if (!*is_new && !g_str_equal(name, backing_of(r->v, false))) {
        g_string_append_printf(r->why, "the backing file is '%s'", name);
        return false;
    }
    return true;
}

static bool reads_as_before(Run *r, int flags, bool *is_new)
{
    Error *err = NULL;
    BlockBackend *blk = open_image("qcow2", "left", flags, &err);
    bool ok;

    if (!blk) {
        g_string_append(r->why, error_get_pretty(err));
        error_free(err);
        return false;
    }
    ok = says_new(r, blk, is_new) &&
         overlays_read_as(blk, r->expected, r->v->size,
                          *is_new ? "on the new backing file" :
                          "on the old backing file", r->why);
    blk_unref(blk);
    return ok;
}

/* @must_be_new: it had said so, and that was durable. */
static bool check_left(Run *r, const MemImage *img, bool must_be_new)
{
    g_autoptr(WriteLogDisk) d =
        write_log_disk_new("left", mem_image_clone(img));
    bool is_new = false;

    n_images++;
    if (!overlays_are_sound(d, true, r->why) ||
        !reads_as_before(r, 0, &is_new)) {
        return false;
    }
    n_on_new += is_new;
    if (must_be_new && !is_new) {
        g_string_append(r->why, "the new backing file is forgotten");
        return false;
    }
    if (rebase(r->v, "left") != 0) {
        g_string_append(r->why, "a second rebase fails");
        return false;
    }
    if (!reads_as_before(r, BDRV_O_RDWR, &is_new) || !is_new) {
        g_string_append(r->why, ", after a second rebase");
        return false;
    }
    return overlays_are_sound(d, true, r->why);
}

static bool check_cut(ReplayCut cut, MemImage *img, void *opaque)
{
    Run *r = opaque;
    g_autofree char *text = NULL;

    if (check_left(r, img, r->has_succeeded &&
                           cut.cut == r->top->log->len)) {
        return true;
    }
    proof_save(img);
    text = replay_cut_format(cut);
    g_string_append_printf(r->why, "\n  cut at %s of %u", text,
                           r->top->log->len);
    return false;
}

/* ---- Tests ---- */

static void report(const Run *r)
{
    g_test_message("%s: %s\n  --seed=%u", r->v->name, r->why->str, r->seed);
    g_test_fail();
}

static bool crash_one(const Variant *v, uint32_t seed)
{
    Run r;
    bool ok;

    run_begin(&r, v, seed);
    ok = r.has_succeeded = rebase(v, "top") == 0;
    if (!ok) {
        g_string_append(r.why, "the rebase fails");
    }
    ok = ok && replay_foreach(r.top, seed, 200 / proof_stride(),
                              60 / proof_stride(), check_cut, &r);
    if (!ok) {
        report(&r);
    }
    run_end(&r);
    return ok;
}

static void test_crash(const void *opaque)
{
    uint32_t seed = proof_seed();

    for (int i = 0; i < 2 * proof_scale(); i++) {
        if (!crash_one(opaque, seed + i)) {
            return;
        }
    }
}

/* Returns whether there is a next one.  A fault of the backing files is one of
 * reading. */
static bool fail_one(const void *v, uint32_t seed, int which,
                     WriteLogFault fault)
{
    Run r;
    bool ok, fired;

    run_begin(&r, v, seed);
    write_log_fail(which == 0 ? r.top : which == 1 ? r.old : r.new, fault);
    r.has_succeeded = rebase(v, "top") == 0;
    fired = write_log_fired(r.top) || write_log_fired(r.old) ||
            write_log_fired(r.new);
    write_log_fail(r.old, (WriteLogFault){ 0 });
    write_log_fail(r.new, (WriteLogFault){ 0 });
    ok = fired || r.has_succeeded;
    if (!ok) {
        g_string_append(r.why, "the rebase fails without a fault");
    }
    ok = ok && check_left(&r, r.top->img, r.has_succeeded) &&
         replay_foreach(r.top, seed, 4, 3, check_cut, &r);
    n_fired += fired;
    if (!ok) {
        g_string_append_printf(r.why, "\n  fault %d of mask %#x, of disk %d",
                               fault.nth, fault.mask, which);
        report(&r);
    }
    run_end(&r);
    return ok && fired;
}

static void test_fail_nth(const void *opaque)
{
    int stride = (proof_scale() > 1 ? 1 : 7) * proof_stride();
    uint32_t seed = proof_seed();

    for (int k = 0; k < PROOF_FAULTS && !g_test_failed(); k++) {
        proof_fail_each(fail_one, opaque, seed, 0, proof_faults[k], stride);
    }
    for (int which = 1; which < 3 && !g_test_failed(); which++) {
        proof_fail_each(fail_one, opaque, seed, which, proof_faults[0], stride);
    }
}

int main(int argc, char **argv)
{
    int ret;

    proof_main_init(&argc, &argv);
    ret = proof_run_tests("qcow2-rebase", test_crash, test_fail_nth, variants,
                          G_N_ELEMENTS(variants), sizeof(variants[0]));
    printf("# %u images, %u of them on the new backing file; %u faults\n",
           n_images, n_on_new, n_fired);
    block_graph_free(img_graph());
    return ret;
}
