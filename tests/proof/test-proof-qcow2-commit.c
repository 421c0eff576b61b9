/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A power cut, or a failing disk, while an overlay is committed to its backing
 * file: qemu-img's own code, on two disks that lose their power together.
 *
 * Whatever is left of the two, together they read as before; a second commit
 * completes, and then the backing file alone reads so.  Both are sound at any
 * time, as the checker says that shares nothing with the driver.
 */
#include "proof-int.h"
#include "overlays.h"
#include "block/block-driver.h"
#include "../../qemu-img/qemu-img.h"

typedef struct Variant {
    const char *name;
    const char *top, *base;         /* options to create them */
    const char *base_driver;
    int64_t top_size, base_size;
    bool compress;                  /* some of the overlay */
    bool chain;                     /* another image below the base */
} Variant;

static const Variant variants[] = {
    { "4k", "{'cluster_size':4096}", "{'cluster_size':4096}", "qcow2",
      512 * KiB, 512 * KiB, .compress = true },
    { "coarse-top", "{'cluster_size':65536}", "{'cluster_size':512}", "qcow2",
      512 * KiB, 512 * KiB, .chain = true },
    { "coarse-base", "{'cluster_size':512}",
      "{'cluster_size':65536,'extended_l2':true}", "qcow2", 256 * KiB,
      512 * KiB, .chain = true },
    { "lazy-base", "{'cluster_size':16384,'extended_l2':true}",
      "{'cluster_size':4096,'lazy_refcounts':true}", "qcow2", 512 * KiB,
      512 * KiB, .chain = true },
    { "base-grows", "{'cluster_size':4096}", "{'cluster_size':512}", "qcow2",
      768 * KiB, 129 * KiB },
    { "raw-base", "{'cluster_size':4096}", "{}", "raw", 512 * KiB, 300 * KiB },
    { "version-2", "{'cluster_size':4096,'compat':'0.10'}",
      "{'cluster_size':1024,'compat':'0.10'}", "qcow2", 256 * KiB, 256 * KiB,
      .compress = true },
};

typedef struct Run {
    const Variant *v;
    uint32_t seed;
    WriteLogDisk *top, *base, *bottom;
    uint8_t *expected;              /* top over base, top_size bytes */
    GString *why;
} Run;

static unsigned n_images, n_fired;

/* ---- Opening ---- */

static json_t *node(const char *driver, const char *disk)
{
    return json_pack("{s:s, s:{s:s, s:s}}", "driver", driver, "file", "driver",
                     "write-log", "disk", disk);
}

static BlockBackend *open_base(const Run *r, const char *base, int flags,
                               Error **errp)
{
    json_t *o = node(r->v->base_driver, base);

    if (r->v->chain) {
        json_object_set_new(o, "backing", node("raw", "bottom"));
    }
    return blk_new_open(img_graph(), NULL, NULL, o, flags, errp);
}

/* The options of the whole chain, as --image-opts takes them. */
static char *chain_options(const Run *r, const char *top, const char *base)
{
    return g_strdup_printf("driver=qcow2,file.driver=write-log,file.disk=%s,"
                           "backing.driver=%s,backing.file.driver=write-log,"
                           "backing.file.disk=%s%s", top, r->v->base_driver,
                           base, r->v->chain ? ",backing.backing.driver=raw,"
                           "backing.backing.file.driver=write-log,"
                           "backing.backing.file.disk=bottom" : "");
}

static BlockBackend *open_top(const Run *r, const char *top, const char *base,
                              int flags)
{
    g_autofree char *options = chain_options(r, top, base);
    const ImgOpen how = { .filename = options, .image_opts = true,
                          .flags = flags };

    return img_open(&how);
}

static int commit(const Run *r, const char *top, const char *base)
{
    static const ImgCommand cmd = { "commit", img_commit, "" };
    g_autofree char *options = chain_options(r, top, base);
    char *argv[] = { (char *)"commit", (char *)"-q", (char *)"--image-opts",
                     options, NULL };

    optind = 0;
    return img_commit(&cmd, ARRAY_SIZE(argv) - 1, argv);
}

/* ---- Making them ---- */

static void run_begin(Run *r, const Variant *v, uint32_t seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    BlockBackend *blk;

    *r = (Run){ .v = v, .seed = seed, .why = g_string_new(NULL) };
    r->top = write_log_disk_new("top", mem_image_new(0));
    r->base = write_log_disk_new("base", mem_image_new(0));
    r->bottom = write_log_disk_new("bottom", mem_image_new(400 * KiB));
    for (int64_t at = 0; at < 400 * KiB; at += 48 * KiB) {
        mem_image_fill(r->bottom->img, at, 0xb0, 40 * KiB);
    }
    overlays_create("qcow2", "top", v->top, v->top_size);
    overlays_create(v->base_driver, "base", v->base, v->base_size);
    blk = open_base(r, "base", BDRV_O_RDWR | BDRV_O_UNMAP, &error_abort);
    overlays_scribble(blk, rand, 15, 0);
    blk_unref(blk);
    blk = open_top(r, "top", "base", BDRV_O_RDWR | BDRV_O_UNMAP);
    overlays_scribble(blk, rand, 25, v->compress ? 4096 : 0);
    r->expected = g_malloc(v->top_size);
    g_assert_cmpint(blk_pread(blk, 0, v->top_size, r->expected, 0), ==, 0);
    blk_unref(blk);
    write_log_start(r->top);
    write_log_start(r->base);
}

static void run_end(Run *r)
{
    write_log_disk_free(r->top);
    write_log_disk_free(r->base);
    write_log_disk_free(r->bottom);
    g_free(r->expected);
    g_string_free(r->why, TRUE);
}

/* ---- What is left ---- */

static bool together(Run *r, int flags)
{
    BlockBackend *blk = open_top(r, "left-top", "left-base", flags);
    bool ok = overlays_read_as(blk, r->expected, r->v->top_size,
                               "both together", r->why);

    if (blk) {
        blk_unref(blk);
    }
    return ok;
}

static bool base_alone(Run *r)
{
    Error *err = NULL;
    BlockBackend *blk = open_base(r, "left-base", 0, &err);
    bool ok;

    if (!blk) {
        g_string_append(r->why, error_get_pretty(err));
        error_free(err);
        return false;
    }
    ok = overlays_read_as(blk, r->expected, r->v->top_size, "the backing file "
                          "after a second commit", r->why);
    blk_unref(blk);
    return ok;
}

static bool are_sound(Run *r, const WriteLogDisk *top, const WriteLogDisk *base)
{
    return overlays_are_sound(top, true, r->why) &&
           (!g_str_equal(r->v->base_driver, "qcow2") ||
            overlays_are_sound(base, true, r->why));
}

static bool check_disks(Run *r, WriteLogDisk *top, WriteLogDisk *base)
{
    if (!are_sound(r, top, base) || !together(r, 0)) {
        return false;
    }
    if (commit(r, "left-top", "left-base") != 0) {
        g_string_append(r->why, "a second commit fails");
        return false;
    }
    return base_alone(r) && together(r, BDRV_O_RDWR) &&
           are_sound(r, top, base);
}

static bool check_left(Run *r, const MemImage *top, const MemImage *base)
{
    g_autoptr(WriteLogDisk) t =
        write_log_disk_new("left-top", mem_image_clone(top));
    g_autoptr(WriteLogDisk) b =
        write_log_disk_new("left-base", mem_image_clone(base));

    n_images++;
    return check_disks(r, t, b);
}

static bool check_pair(const ReplayPair *pair, MemImage *images[2],
                       void *opaque)
{
    Run *r = opaque;
    g_autofree char *a = NULL, *b = NULL;

    if (check_left(r, images[0], images[1])) {
        return true;
    }
    a = replay_cut_format(pair->cuts[0]);
    b = replay_cut_format(pair->cuts[1]);
    g_string_append_printf(r->why, "\n  overlay cut at %s, backing file at %s",
                           a, b);
    return false;
}

/* ---- Tests ---- */

static void report(const Run *r)
{
    g_test_message("%s: %s\n  --seed=%u", r->v->name, r->why->str, r->seed);
    g_test_fail();
}

static void test_crash(const void *opaque)
{
    int n = proof_scale();

    for (int i = 0; i < n; i++) {
        Run r;
        bool ok;

        run_begin(&r, opaque, proof_seed() + i);
        ok = commit(&r, "top", "base") == 0;
        if (!ok) {
            g_string_append(r.why, "the commit fails");
        }
        ok = ok && replay_foreach_pair(r.top, r.base, r.seed,
                                       800 / proof_stride(),
                                       200 / proof_stride(), check_pair, &r);
        if (!ok) {
            report(&r);
        }
        run_end(&r);
        if (!ok) {
            return;
        }
    }
}

/* Returns whether there is a next one. */
static bool fail_one(const void *v, uint32_t seed, int of_base,
                     WriteLogFault fault)
{
    bool ok, fired;
    Run r;
    int status;

    run_begin(&r, v, seed);
    write_log_fail(of_base ? r.base : r.top, fault);
    status = commit(&r, "top", "base");
    fired = write_log_fired(of_base ? r.base : r.top);
    ok = fired || status == 0;
    if (!ok) {
        g_string_append(r.why, "the commit fails without a fault");
    }
    ok = ok && check_left(&r, r.top->img, r.base->img) &&
         replay_foreach_pair(r.top, r.base, seed, 8, 4, check_pair, &r);
    n_fired += fired;
    if (!ok) {
        g_string_append_printf(r.why, "\n  fault %d of mask %#x, of the %s",
                               fault.nth, fault.mask,
                               of_base ? "backing file" : "overlay");
        report(&r);
    }
    run_end(&r);
    return ok && fired;
}

static void test_fail_nth(const void *opaque)
{
    int stride = (proof_scale() > 1 ? 1 : 5) * proof_stride();
    uint32_t seed = proof_seed();

    for (int k = 0; k < 2 * PROOF_FAULTS && !g_test_failed(); k++) {
        proof_fail_each(fail_one, opaque, seed, k % 2, proof_faults[k / 2],
                        stride);
    }
}

int main(int argc, char **argv)
{
    int ret;

    proof_main_init(&argc, &argv);
    ret = proof_run_tests("qcow2-commit", test_crash, test_fail_nth, variants,
                          G_N_ELEMENTS(variants), sizeof(variants[0]));
    printf("# %u pairs of images, %u faults\n", n_images, n_fired);
    block_graph_free(img_graph());
    return ret;
}
