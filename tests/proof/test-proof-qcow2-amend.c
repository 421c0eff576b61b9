/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A power cut, or a failing disk, while qcow2 images are amended: refcounts
 * become wider and narrower, the version goes up and down, lazy refcounts come
 * and go, and keys are changed.
 *
 * Who changes the only key adds the new one before the old one goes: at any
 * moment one of the two opens the image.
 */
#include "proof.h"
#include "block/block-driver.h"
#include "crypto/secret.h"
#include "qcow2-checker.h"

static unsigned n_other;        /* times that only the other key fitted */

static bool check(ProofCheck *c)
{
    Qcow2CheckerResult r;

    if (!qcow2_checker_run(c->disk->img, &r, c->why)) {
        return false;
    }
    if (!c->may_leak && (r.leaks || r.is_dirty)) {
        g_string_append_printf(c->why, "%u clusters leaked, dirty %d",
                               r.leaks, r.is_dirty);
        return false;
    }
    return true;
}

static bool amend(BlockBackend *blk, json_t *new_options, GString *why)
{
    BlockDriverState *bs = blk_bs(blk);
    g_autoptr(json_t) options = new_options;
    Error *err = NULL;
    bool ok;

    bdrv_drained_begin(bs);
    ok = bs->drv->amend(bs, options, false, NULL, NULL, &err);
    bdrv_drained_end(bs);
    if (!ok) {
        g_string_append(why, error_get_pretty(err));
        error_free(err);
    }
    return ok;
}

static bool refcount_bits(const ProofFormat *fmt, BlockBackend *blk,
                          GRand *rand, GString *why)
{
    return amend(blk, json_pack("{s:i}", "refcount_bits",
                                1 << g_rand_int_range(rand, 0, 7)), why);
}

/* Also to what it is already. */
static bool version(const ProofFormat *fmt, BlockBackend *blk, GRand *rand,
                    GString *why)
{
    switch (g_rand_int_range(rand, 0, 4)) {
    case 0:
        return amend(blk, json_pack("{s:s}", "compat", "0.10"), why);
    case 1:
        return amend(blk, json_pack("{s:s, s:b}", "compat", "1.1",
                                    "lazy_refcounts", true), why);
    case 2:
        return amend(blk, json_pack("{s:s, s:b}", "compat", "1.1",
                                    "lazy_refcounts", false), why);
    default:
        return amend(blk, json_pack("{s:s}", "compat", "1.1"), why);
    }
}

/* ---- Keys ---- */

static bool add_key(BlockBackend *blk, const char *old, const char *new,
                    GString *why)
{
    return amend(blk, json_pack("{s:s, s:s, s:s, s:s}", "encrypt.state",
                                "active", "encrypt.new-secret", new,
                                "encrypt.secret", old, "encrypt.iter-time",
                                "0"), why);
}

static bool remove_key(BlockBackend *blk, const char *secret, GString *why)
{
    return amend(blk, json_pack("{s:s, s:s}", "encrypt.state", "inactive",
                                "encrypt.old-secret", secret), why);
}

/* There and back again: in between only the other one opens the image. */
static bool keys(const ProofFormat *fmt, BlockBackend *blk, GRand *rand,
                 GString *why)
{
    return add_key(blk, "s", "t", why) && remove_key(blk, "s", why) &&
           add_key(blk, "t", "s", why) && remove_key(blk, "t", why);
}

#define OPEN_WITH(secret) "{'encrypt':{'key-secret':'" secret "'}}"

/* With the usual key; else, with the other one, the usual one comes back. */
static bool check_keys(ProofCheck *c)
{
    static const ProofFormat other = {
        .driver = "qcow2", .open_options = OPEN_WITH("t"),
    };
    ProofCheck with_other = *c;
    g_autoptr(GString) unused = g_string_new(NULL);
    BlockBackend *blk;
    bool ok;

    if (!check(c)) {
        return false;
    }
    with_other.why = unused;
    blk = proof_check_open(&with_other, false);
    if (blk) {
        blk_unref(blk);
        return true;
    }
    with_other.why = c->why;
    with_other.fmt = &other;
    n_other++;
    blk = proof_check_open(&with_other, true);
    ok = blk && add_key(blk, "t", "s", c->why);
    if (blk) {
        blk_unref(blk);
    }
    return ok;
}

/* ---- Tests ---- */

typedef struct Variant {
    const char *name;
    ProofFormat fmt;
    int64_t size;               /* 0: grows from 256 KiB to 512 KiB */
    int64_t backing_size;
} Variant;

#define FORMAT(create_, between_) { .driver = "qcow2", \
        .create_options = create_, .check = check, .between = between_ }
#define ENCRYPTED(create_) { .driver = "qcow2", \
        .create_options = "{" create_ "'encrypt.format':'luks'," \
                          "'encrypt.key-secret':'s'," \
                          "'encrypt.iter-time':'0'}", \
        .open_options = OPEN_WITH("s"), .check = check_keys, .between = keys }

static const Variant variants[] = {
    { "refcounts-512", FORMAT("{'cluster_size':512}", refcount_bits) },
    { "refcounts-4k", FORMAT("{'cluster_size':4096}", refcount_bits) },
    { "refcounts-64k", FORMAT("{'cluster_size':65536}", refcount_bits) },
    { "version-512", FORMAT("{'cluster_size':512}", version) },
    { "version-4k", FORMAT("{'cluster_size':4096,'compat':'0.10'}", version) },
    { "version-4k-backing",
      { .driver = "qcow2", .create_options = "{'cluster_size':4096}",
        .open_options = "{'backing':{'driver':'raw','file':"
                        "{'driver':'write-log','disk':'proof-backing'}}}",
        .check = check, .between = version },
      .size = 512 * KiB, .backing_size = 300 * KiB },
    { "keys-4k", ENCRYPTED("'cluster_size':4096,"), .size = 128 * KiB },
    { "keys-64k", ENCRYPTED(""), .size = 256 * KiB },
};

static ProofConfig config_of(const Variant *v)
{
    return (ProofConfig){
        .size = v->size ?: 256 * KiB, .max_size = v->size ? 0 : 512 * KiB,
        .backing_size = v->backing_size, .between = 20,
    };
}

static void test_crash(const void *opaque)
{
    const Variant *v = opaque;
    ProofConfig config = config_of(v);
    bool slow = v->fmt.between == keys;

    config.ops = slow ? 15 : 60;
    config.max_systematic = slow ? 60 : 600;
    config.num_random = slow ? 20 : 200;
    proof_assert(proof_run_crash, &v->fmt, &config, slow ? 1 : 2);
}

static void test_fail_nth(const void *opaque)
{
    const Variant *v = opaque;
    ProofConfig config = config_of(v);

    config.ops = v->fmt.between == keys ? 6 : 20;
    config.between = 40;
    config.max_systematic = 4;
    config.num_random = 2;
    config.nth_stride = v->fmt.between == keys ? 37 : 11;
    proof_assert(proof_run_fail_nth, &v->fmt, &config, 1);
}

static void add_secret(const char *optarg)
{
    static const ObjectType *const types[] = { &secret_object_type, NULL };
    bool help;

    g_assert_true(user_creatable_add_from_str(types, optarg, &help,
                                              &error_abort));
}

int main(int argc, char **argv)
{
    int ret;

    proof_main_init(&argc, &argv);
    add_secret("secret,id=s,data=abc");
    add_secret("secret,id=t,data=another");
    ret = proof_run_tests("qcow2-amend", test_crash, test_fail_nth, variants,
                          G_N_ELEMENTS(variants), sizeof(variants[0]));
    printf("# %u images were opened by the other key only\n", n_other);
    return ret;
}
