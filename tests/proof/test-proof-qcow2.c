/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The proofs, on qcow2.
 *
 * Checked is, by this file's own reading of the specification, what a crash
 * must not do: no cluster may have more references than its refcount says, two
 * owners without being counted twice, or a COPIED flag it does not deserve.
 * Leaks are allowed after a crash, and only then.
 */
#include "proof.h"
#include "qemu/bswap.h"

#define OFFSET_MASK 0x00fffffffffffe00ULL
#define COPIED (1ULL << 63)
#define COMPRESSED (1ULL << 62)

typedef struct Image {
    const MemImage *img;
    ProofCheck *c;
    int cluster_bits, refcount_order, l2_words;
    uint64_t n_clusters;
    uint32_t *refs;                 /* as found */
    uint64_t reftable, reftable_entries;
} Image;

static uint64_t read64(const Image *im, uint64_t offset)
{
    uint8_t b[8];

    mem_image_read(im->img, offset, b, 8);
    return ldq_be_p(b);
}

static uint32_t read32(const Image *im, uint64_t offset)
{
    uint8_t b[4];

    mem_image_read(im->img, offset, b, 4);
    return ldl_be_p(b);
}

static bool G_GNUC_PRINTF(2, 3) bad(Image *im, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_string_append_vprintf(im->c->why, format, ap);
    va_end(ap);
    return false;
}

static uint64_t refcount(const Image *im, uint64_t cluster)
{
    unsigned bits = 1u << im->refcount_order;
    uint64_t per = (UINT64_C(8) << im->cluster_bits) / bits;
    uint64_t index = cluster / per, i = cluster % per, block, value = 0;
    uint8_t byte;

    block = index < im->reftable_entries ?
            read64(im, im->reftable + index * 8) & ~511ULL : 0;
    if (!block) {
        return 0;
    }
    if (bits < 8) {
        mem_image_read(im->img, block + i * bits / 8, &byte, 1);
        return byte >> i * bits % 8 & ((1u << bits) - 1);
    }
    for (unsigned k = 0; k < bits / 8; k++) {
        mem_image_read(im->img, block + i * (bits / 8) + k, &byte, 1);
        value = value << 8 | byte;
    }
    return value;
}

static bool add(Image *im, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> im->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> im->cluster_bits;

    if (last >= im->n_clusters) {
        return bad(im, "%#" PRIx64 " is behind the end", offset);
    }
    for (uint64_t c = first; c <= last; c++) {
        im->refs[c]++;
    }
    return true;
}

static bool check_copied(Image *im, const char *what, uint64_t entry)
{
    uint64_t n = refcount(im, (entry & OFFSET_MASK) >> im->cluster_bits);

    return !(entry & COPIED) || n == 1 ? true :
           bad(im, "%s %#" PRIx64 " is COPIED, but its refcount is %" PRIu64,
               what, entry, n);
}

static bool walk_l2(Image *im, uint64_t table)
{
    uint64_t n = (UINT64_C(1) << im->cluster_bits) / 8 / im->l2_words;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t e = read64(im, table + i * im->l2_words * 8);

        if (e & COMPRESSED) {
            unsigned shift = 62 - (im->cluster_bits - 8);
            uint64_t host = e & ((UINT64_C(1) << shift) - 1);
            uint64_t sectors = (e & ~(3ULL << 62)) >> shift;

            if (!add(im, host, (sectors + 1) * 512 - host % 512)) {
                return false;
            }
        } else if ((e & OFFSET_MASK) &&
                   (!add(im, e & OFFSET_MASK, 1) ||
                    !check_copied(im, "L2 entry", e))) {
            return false;
        }
    }
    return true;
}

static bool walk_l1(Image *im, uint64_t l1, uint32_t size)
{
    if (!add(im, l1, size * 8)) {
        return false;
    }
    for (uint32_t i = 0; i < size; i++) {
        uint64_t e = read64(im, l1 + i * 8);

        if ((e & OFFSET_MASK) &&
            (!add(im, e & OFFSET_MASK, UINT64_C(1) << im->cluster_bits) ||
             !check_copied(im, "L1 entry", e) ||
             !walk_l2(im, e & OFFSET_MASK))) {
            return false;
        }
    }
    return true;
}

static bool walk_refcounts(Image *im)
{
    if (!add(im, im->reftable, im->reftable_entries * 8)) {
        return false;
    }
    for (uint64_t i = 0; i < im->reftable_entries; i++) {
        uint64_t block = read64(im, im->reftable + i * 8) & ~511ULL;

        if (block && !add(im, block, 1)) {
            return false;
        }
    }
    return true;
}

static bool compare(Image *im)
{
    for (uint64_t c = 0; c < im->n_clusters; c++) {
        uint64_t n = refcount(im, c);

        if (n < im->refs[c]) {
            return bad(im, "cluster %" PRIu64 " has refcount %" PRIu64
                       ", but %u references", c, n, im->refs[c]);
        }
        if (n > im->refs[c] && !im->c->may_leak) {
            return bad(im, "cluster %" PRIu64 " leaks", c);
        }
    }
    return true;
}

static bool check(ProofCheck *c)
{
    Image im = { .img = c->disk->img, .c = c };
    uint64_t cluster;
    bool ok;

    im.cluster_bits = read32(&im, 20);
    cluster = UINT64_C(1) << im.cluster_bits;
    im.refcount_order = read32(&im, 4) >= 3 ? read32(&im, 96) : 4;
    im.l2_words = read32(&im, 4) >= 3 && read64(&im, 72) & 16 ? 2 : 1;
    im.reftable = read64(&im, 48);
    im.reftable_entries = read32(&im, 56) * (cluster / 8);
    /* A cluster may reach past the end of the file. */
    im.n_clusters = (mem_image_size(im.img) + cluster - 1) / cluster + 64;
    im.refs = g_new0(uint32_t, im.n_clusters);
    ok = add(&im, 0, 1) && walk_refcounts(&im) &&
         walk_l1(&im, read64(&im, 40), read32(&im, 36)) && compare(&im);
    g_free(im.refs);
    return ok;
}

static const ProofFormat formats[] = {
    { .name = "4k", .create_options = "{'cluster_size':4096}" },
    { .name = "512",
      .create_options = "{'cluster_size':512,'refcount_bits':64}",
      .open_options = "{'l2-cache-size':512,'refcount-cache-size':512,"
                      "'l2-cache-entry-size':512}" },
    { .name = "extended-l2",
      .create_options = "{'cluster_size':16384,'extended_l2':true}" },
    { .name = "64k", .create_options = "{'cluster_size':65536}",
      .open_options = "{'pass-discard-other':true}" },
    { .name = "v2", .create_options = "{'compat':'0.10','cluster_size':1024}" },
};

static const ModelMix mix = {
    .weight = {
        [MODEL_READ] = 5, [MODEL_WRITE] = 50, [MODEL_ZEROES] = 10,
        [MODEL_DISCARD] = 20, [MODEL_FLUSH] = 10,
    },
};

static ProofFormat format_of(const void *opaque)
{
    ProofFormat f = *(const ProofFormat *)opaque;

    f.driver = "qcow2";
    f.check = check;
    return f;
}

static void test_crash(const void *opaque)
{
    const ProofFormat f = format_of(opaque);
    const ProofConfig cfg = { .ops = 120, .mix = mix };

    proof_assert(proof_run_crash, &f, &cfg, 1);
}

static void test_crash_threads(const void *opaque)
{
    const ProofFormat f = format_of(opaque);
    const ProofConfig cfg = { .ops = 40, .threads = 4, .jitter = 20,
                              .mix = mix };

    proof_assert(proof_run_crash, &f, &cfg, 1);
}

static void test_fail_nth(const void *opaque)
{
    const ProofFormat f = format_of(opaque);
    const ProofConfig cfg = { .ops = 15, .num_random = 1, .mix = mix };

    proof_assert(proof_run_fail_nth, &f, &cfg, 1);
}

static void test_stress(const void *opaque)
{
    const ProofFormat f = format_of(opaque);
    const ProofConfig cfg = { .ops = 200, .jitter = 10, .mix = mix };

    proof_assert(proof_run_stress, &f, &cfg, 1);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(const void *opaque);
    } tests[] = {
        { "crash", test_crash },
        { "crash-threads", test_crash_threads },
        { "fail-nth", test_fail_nth },
        { "stress", test_stress },
    };

    proof_init(&argc, &argv);
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        for (size_t k = 0; k < G_N_ELEMENTS(formats); k++) {
            g_autofree char *name = g_strdup_printf("/proof/qcow2/%s/%s",
                                                    tests[i].name,
                                                    formats[k].name);

            g_test_add_data_func(name, &formats[k], tests[i].fn);
        }
    }
    return g_test_run();
}
