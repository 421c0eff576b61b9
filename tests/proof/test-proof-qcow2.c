/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The proofs, on qcow2: clusters, refcounts, versions, caches of all sizes.
 *
 * Each image is checked by a reading of the specification of our own
 * (qcow2-checker.h); some, because it takes long, by QEMU's qemu-img, too, if
 * there is one.  A crash may leak clusters: how many did, is said at the end.
 * What snapshots hold, with the state of a machine, is compared with what it
 * was when they were taken.
 */
#include "proof.h"
#include "qcow2-checker.h"
#include "block/snapshot.h"
#include "crypto/secret.h"
#include "qemu/user-creatable.h"

typedef struct Variant {
    const char *name;
    const char *create, *open;      /* JSON; NULL: none */
    ProofConfig cfg;                /* what differs from that of the test */
    bool no_snapshots;
    bool is_encrypted;              /* qemu-img has no key */
    ProofDataFile data_file;        /* qemu-img has none */
    bool starts_as_noise;
    bool copy_on_read;
} Variant;

#define TINY_CACHES "'l2-cache-size':512,'l2-cache-entry-size':512," \
                    "'refcount-cache-size':512"
#define BACKING "'backing':{'driver':'raw','file':" \
                "{'driver':'write-log','disk':'proof-backing'}}"
#define ENCRYPT(format) "'encrypt.format':'" format "'," \
                        "'encrypt.key-secret':'s'"
#define LUKS "'encrypt.iter-time':1," ENCRYPT("luks")
#define PUNCH "'pass-discard-request':true,'pass-discard-snapshot':true," \
              "'pass-discard-other':true"

static const Variant variants[] = {
    { "512", "{'cluster_size':512,'refcount_bits':64}",
      "{" TINY_CACHES "," PUNCH "}", { .discard_value = 0xdd } },
    { "512-refcount-1", "{'cluster_size':512,'refcount_bits':1}",
      "{" PUNCH "}", { .discard_value = 0xdd, .compress_unit = 512 },
      .no_snapshots = true },
    { "512-coarse-file", "{'cluster_size':512}", "{" PUNCH "}",
      { .discard_value = 0xdd, .file_alignment = 4096 } },
    { "4k", "{'cluster_size':4096}", "{" PUNCH "}",
      { .discard_value = 0xdd } },
    { "4k-tiny-caches", "{'cluster_size':4096}",
      "{'l2-cache-size':512,'l2-cache-entry-size':512,"
      "'refcount-cache-size':4096}", { .size = 4 * MiB } },
    { "4k-backing", "{'cluster_size':4096}", "{" PUNCH "," BACKING "}",
      { .discard_value = 0xdd, .backing_size = 700 * KiB,
        .compress_unit = 4096 } },
    { "4k-copy-on-read", "{'cluster_size':4096}", "{" PUNCH "," BACKING "}",
      { .discard_value = 0xdd, .backing_size = 1 * MiB },
      .copy_on_read = true },
    { "4k-no-unref", "{'cluster_size':4096}",
      "{" PUNCH ",'discard-no-unref':true}",
      { .discard_value = 0xdd, .compress_unit = 4096 } },
    { "compressed", "{'cluster_size':4096}", "{" PUNCH "}",
      { .discard_value = 0xdd, .compress_unit = 4096,
        .mix.unit = 4096, .mix.align = 2048 } },
    { "compressed-zstd", "{'cluster_size':16384,'compression_type':'zstd'}",
      NULL, { .compress_unit = 16384, .mix.unit = 16384 } },
    { "extended-l2", "{'cluster_size':16384,'extended_l2':true}",
      "{" PUNCH "}", { .discard_value = 0xdd } },
    { "extended-l2-backing", "{'cluster_size':16384,'extended_l2':true}",
      "{'l2-cache-size':512,'l2-cache-entry-size':512," PUNCH "," BACKING "}",
      { .discard_value = 0xdd, .backing_size = 1 * MiB,
        .compress_unit = 16384, .mix.unit = 16384 } },
    { "64k-preallocated",
      "{'cluster_size':65536,'preallocation':'metadata'}", "{" PUNCH "}",
      { .discard_value = 0xdd } },
    { "version-2", "{'compat':'0.10','cluster_size':1024}", "{" PUNCH "}",
      { .discard_value = 0xdd, .compress_unit = 1024 } },
    { "version-2-backing", "{'compat':'0.10','cluster_size':4096}",
      "{" PUNCH "," BACKING "}",
      { .discard_value = 0xdd, .backing_size = 1 * MiB } },
    { "lazy-refcounts", "{'cluster_size':4096,'lazy_refcounts':true}",
      "{" PUNCH "}", { .discard_value = 0xdd, .compress_unit = 4096 } },
    /* The IV is the guest's place, or the host's. */
    { "aes", "{'cluster_size':65536,'extended_l2':true," ENCRYPT("aes") "}",
      "{'encrypt.key-secret':'s',"
      "'l2-cache-size':512,'l2-cache-entry-size':512," PUNCH "}",
      { .discard_value = 0xdd }, .is_encrypted = true },
    { "luks-backing", "{'cluster_size':4096," LUKS "}",
      "{'encrypt.key-secret':'s'," PUNCH "," BACKING "}",
      { .discard_value = 0xdd, .backing_size = 700 * KiB },
      .is_encrypted = true },
    /* Zeroes in the file are noise to the guest. */
    { "luks-no-unref", "{'cluster_size':4096," LUKS "}",
      "{'encrypt.key-secret':'s','discard-no-unref':true," PUNCH "}",
      { .discard_value = 0xdd }, .no_snapshots = true, .is_encrypted = true },
    { "data-file", "{'cluster_size':4096}", "{" PUNCH "}",
      { .discard_value = 0xdd }, .no_snapshots = true,
      .data_file = PROOF_DATA_FILE },
    { "data-file-512", "{'cluster_size':512,'lazy_refcounts':true}",
      "{" TINY_CACHES "}", { .size = 512 * KiB }, .no_snapshots = true,
      .data_file = PROOF_DATA_FILE },
    { "data-file-backing", "{'cluster_size':65536,'extended_l2':true}",
      "{" PUNCH "," BACKING "}",
      { .discard_value = 0xdd, .backing_size = 700 * KiB },
      .no_snapshots = true, .data_file = PROOF_DATA_FILE },
    { "data-file-raw", "{'cluster_size':4096}", "{" PUNCH "}",
      { .discard_value = 0xdd }, .no_snapshots = true,
      .data_file = PROOF_DATA_FILE_RAW },
    { "data-file-raw-extended",
      "{'cluster_size':65536,'extended_l2':true}", "{" PUNCH "}",
      { .discard_value = 0xdd }, .no_snapshots = true,
      .data_file = PROOF_DATA_FILE_RAW },
    { "data-file-luks", "{'cluster_size':4096," LUKS "}",
      "{'encrypt.key-secret':'s'," PUNCH "}", { .discard_value = 0xdd },
      .no_snapshots = true, .is_encrypted = true,
      .data_file = PROOF_DATA_FILE },
    { "data-file-raw-luks", "{'cluster_size':4096," LUKS "}",
      "{'encrypt.key-secret':'s'," PUNCH "}", { .discard_value = 0xdd },
      .no_snapshots = true, .is_encrypted = true,
      .data_file = PROOF_DATA_FILE_RAW, .starts_as_noise = true },
};

static struct {
    unsigned images, dirty, leaky, leaks, compressed, snapshots, by_qemu;
} seen;
/* ---- Snapshots ---- */

/* Name -> hash of what it was taken of. */
static GHashTable *taken;

/* Behind the disk: so much of it is looked at. */
#define STATE_SIZE (64 * KiB)

static bool hash_disk(BlockBackend *blk, gint64 *hash, GString *why)
{
    int64_t length = blk_getlength(blk);
    g_autofree uint8_t *buf = g_malloc0(length + STATE_SIZE);
    int ret = blk_pread(blk, 0, length, buf, 0);
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf + length, STATE_SIZE);
    ret = ret < 0 ? ret : bdrv_load_vmstate(blk_bs(blk), 0, &qiov);
    if (ret < 0) {
        g_string_append_printf(why, "reading all: %s", strerror(-ret));
        return false;
    }
    *hash = 1;
    for (int64_t i = 0; i < length + STATE_SIZE; i += 8) {
        *hash = (*hash ^ *(gint64 *)(buf + i)) * 0x9e3779b97f4a7c15;
    }
    return true;
}

static bool create_snapshot(BlockBackend *blk, bool go, GString *why,
                            Error **errp)
{
    static unsigned number;
    QEMUSnapshotInfo sn = { .date_sec = 1 };
    g_autofree gint64 *hash = g_new(gint64, 1);

    snprintf(sn.name, sizeof(sn.name), "s%u", number++);
    if (!hash_disk(blk, hash, why)) {
        return false;
    }
    g_hash_table_insert(taken, g_strdup(sn.name), g_steal_pointer(&hash));
    seen.snapshots++;
    return bdrv_snapshot_create(blk_bs(blk), &sn, errp) &&
           (!go || bdrv_snapshot_goto(blk_bs(blk), sn.name, errp));
}

static bool save_state(BlockBackend *blk, GRand *rand, Error **errp)
{
    int64_t pos = g_rand_int_range(rand, 0, 96) * 512;
    int64_t bytes = g_rand_int_range(rand, 1, 32) * 512;
    g_autofree uint8_t *buf = g_malloc(bytes);
    QEMUIOVector qiov;
    int ret;

    memset(buf, g_rand_int_range(rand, 1, 256), bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    ret = bdrv_save_vmstate(blk_bs(blk), pos, &qiov);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "writing the state");
    }
    return ret == 0;
}

static bool do_snapshots(BlockBackend *blk, GRand *rand, GString *why,
                         Error **errp)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    int dice = g_rand_int_range(rand, 0, 3);
    size_t n;

    if (!bdrv_snapshot_list(blk_bs(blk), &list, &n, errp)) {
        return false;
    }
    if (n == 4 || (n && dice == 0)) {
        return bdrv_snapshot_delete(blk_bs(blk),
                                    list[g_rand_int_range(rand, 0, n)].name,
                                    errp);
    }
    return create_snapshot(blk, dice == 1, why, errp);
}

static bool between(const ProofFormat *fmt, BlockBackend *blk, GRand *rand,
                    GString *why)
{
    Error *err = NULL;
    bool ok = save_state(blk, rand, &err) &&
              do_snapshots(blk, rand, why, &err);

    if (err) {
        g_string_append_printf(why, "snapshots: %s", error_get_pretty(err));
        error_free(err);
    }
    return ok;
}

static bool check_snapshot(ProofCheck *c, const char *name)
{
    const gint64 *expected = g_hash_table_lookup(taken, name);
    BlockBackend *blk = proof_check_open(c, false);
    gint64 hash = 0;
    bool ok = blk && expected &&
              bdrv_snapshot_load_tmp(blk_bs(blk), NULL, name, NULL) &&
              hash_disk(blk, &hash, c->why) && hash == *expected;

    if (!ok) {
        g_string_append_printf(c->why, "snapshot %s is not what it was", name);
    }
    if (blk) {
        blk_unref(blk);
    }
    return ok;
}

static bool check_snapshots(ProofCheck *c)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    BlockBackend *blk = proof_check_open(c, false);
    size_t n = 0;
    bool ok;

    ok = blk && bdrv_snapshot_list(blk_bs(blk), &list, &n, NULL);
    if (blk) {
        blk_unref(blk);
    }
    for (size_t i = 0; ok && i < n; i++) {
        ok = check_snapshot(c, list[i].name);
    }
    return ok;
}

/* ---- Checks ---- */

/* One of so many. */
static int qemu_stride;

static bool check_with_qemu(ProofCheck *c)
{
    /* 3: leaks, which are judged elsewhere. */
    static const char *const argv[] = {
        "sh", "-c", "qemu-img check -f qcow2 \"$0\" || test $? = 3", NULL
    };

    seen.by_qemu++;
    return proof_check_command(c, argv);
}

static bool check(ProofCheck *c)
{
    const Variant *v = c->fmt->opaque;
    Qcow2CheckerResult r;

    if (!qcow2_checker_run(c->disk->img, &r, c->why)) {
        return false;
    }
    if (v->data_file == PROOF_DATA_FILE_RAW && !v->is_encrypted &&
        !proof_check_raw_file(c)) {
        return false;
    }
    seen.images++;
    seen.dirty += r.is_dirty;
    seen.leaky += r.leaks > 0;
    seen.leaks += r.leaks;
    seen.compressed += r.compressed > 0;
    if (r.leaks && !c->may_leak) {
        g_string_append_printf(c->why, "%u clusters leak", r.leaks);
        return false;
    }
    if (r.miscopied && !c->may_leak) {
        g_string_append_printf(c->why, "%u wrong COPIED flags", r.miscopied);
        return false;
    }
    if (r.is_dirty && !c->is_crashed) {
        g_string_append(c->why, "the dirty bit is set");
        return false;
    }
    if (r.snapshots && seen.images % 3 == 0 && !check_snapshots(c)) {
        return false;
    }
    /* What is dirty the driver repairs when it opens the image. */
    return !qemu_stride || r.is_dirty || r.miscopied || v->is_encrypted ||
           v->data_file || seen.images % qemu_stride || check_with_qemu(c);
}

/* ---- Tests ---- */

static const ModelMix usual_mix = {
    .weight = {
        [MODEL_READ] = 5, [MODEL_WRITE] = 50, [MODEL_ZEROES] = 10,
        [MODEL_DISCARD] = 20, [MODEL_FLUSH] = 10,
    },
};

static ProofFormat format_of(const Variant *v)
{
    return (ProofFormat){
        .name = v->name,
        .driver = "qcow2",
        .copy_on_read = v->copy_on_read,
        .create_options = v->create,
        .open_options = v->open,
        .check = check,
        .between = between,
        .data_file = v->data_file,
        .starts_as_noise = v->starts_as_noise,
        .opaque = (void *)v,
    };
}

static void run(ProofRun *proof, const Variant *v, ProofConfig test)
{
    const ProofFormat f = format_of(v);
    ProofConfig c = v->cfg;

    c.ops = test.ops;
    c.threads = test.threads;
    c.jitter = test.jitter;
    c.rounds = test.rounds;
    c.max_systematic = test.nth_stride ? 4 : 120;
    c.num_random = test.nth_stride ? 2 : 40;
    c.nth_stride = test.nth_stride;
    c.between = test.between;
    memcpy(c.mix.weight, usual_mix.weight, sizeof(c.mix.weight));
    if (test.max_size) {
        c.size = 256 * KiB;
        c.max_size = test.max_size;
        c.grow = true;
        c.mix.weight[MODEL_RESIZE] = 6;
        c.mix.unit = MAX(c.compress_unit, c.file_alignment) ?: 1536;
    }
    proof_assert(proof, &f, &c, 1);
}

static void test_crash(const void *opaque)
{
    run(proof_run_crash, opaque, (ProofConfig){ .ops = 120 });
}

static void test_crash_threads(const void *opaque)
{
    run(proof_run_crash, opaque, (ProofConfig){
            .ops = 40, .threads = 4, .jitter = 20 });
}

static void test_fail_nth(const void *opaque)
{
    run(proof_run_fail_nth, opaque, (ProofConfig){
            .ops = 20, .nth_stride = 11 });
}

static void test_stress(const void *opaque)
{
    run(proof_run_stress, opaque, (ProofConfig){
            .ops = 150, .jitter = 10, .rounds = 3 });
}

static void test_snapshots(const void *opaque)
{
    run(proof_run_crash, opaque, (ProofConfig){ .ops = 60, .between = 20 });
}

/* Many requests to the file each, so only some of the faults. */
static void test_snapshots_fail_nth(const void *opaque)
{
    run(proof_run_fail_nth, opaque, (ProofConfig){
            .ops = 20, .nth_stride = 397, .between = 20 });
}

static void test_resize(const void *opaque)
{
    run(proof_run_crash, opaque, (ProofConfig){
            .ops = 80, .max_size = 2 * MiB });
}

static void test_resize_fail_nth(const void *opaque)
{
    run(proof_run_fail_nth, opaque, (ProofConfig){
            .ops = 20, .nth_stride = 11, .max_size = 2 * MiB });
}

static void add_secret(void)
{
    static const ObjectType *const types[] = { &secret_object_type, NULL };
    bool help;

    user_creatable_add_from_str(types, "secret,id=s,data=abc", &help,
                                &error_abort);
}

static void say_what_was_seen(void)
{
    printf("# %u images: %u dirty, %u with %u leaks, %u with compressed "
           "clusters; %u snapshots; %u checked by qemu-img\n", seen.images,
           seen.dirty, seen.leaky, seen.leaks, seen.compressed, seen.snapshots,
           seen.by_qemu);
}

int main(int argc, char **argv)
{
    static const ProofTest tests[] = {
        { "crash", test_crash },
        { "crash-threads", test_crash_threads },
        { "fail-nth", test_fail_nth },
        { "stress", test_stress },
        { "resize", test_resize },
        { "resize-fail-nth", test_resize_fail_nth },
        { NULL }
    };
    static const ProofTest snapshot_tests[] = {
        { "snapshots", test_snapshots },
        { "snapshots-fail-nth", test_snapshots_fail_nth },
        { NULL }
    };
    g_autofree char *qemu_img = g_find_program_in_path("qemu-img");
    int ret;

    taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    proof_main_init(&argc, &argv);
    add_secret();
    if (qemu_img) {
        qemu_stride = proof_scale() > 1 ? 50 : 200;
    }
    for (size_t k = 0; k < G_N_ELEMENTS(variants); k++) {
        proof_add_tests(variants[k].data_file ? "qcow2-data-file" : "qcow2",
                        tests, &variants[k], 1, 0);
        if (!variants[k].no_snapshots) {
            proof_add_tests("qcow2", snapshot_tests, &variants[k], 1, 0);
        }
    }
    ret = g_test_run();
    say_what_was_seen();
    g_hash_table_destroy(taken);
    return ret;
}
