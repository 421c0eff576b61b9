/*
 * Runtime options of a qcow2 node: what they are, their defaults, and what the
 * image allows.
 *
 * Sizes of caches are wishes: the L2 cache needs no more than what maps the
 * whole disk, or what is looked at at a time if that is done in one pass
 * (BDRV_O_ONE_PASS), and neither can do with less than a few tables.
 * "cache-size" is the sum; what of it is not said otherwise goes to the L2
 * cache as far as that is of use, because every request needs it, and refcounts
 * are needed only to allocate.
 *
 * Options that are said once more when a node is reopened win; those that are
 * not stay.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-options.h"

#define DEFAULT_L2_CACHE_SIZE (32 * MiB)
/* So little stays in the processor's cache. */
#define ONE_PASS_L2_CACHE_SIZE (512 * KiB)
#define MAX_DEFAULT_SLICE (64 * KiB)
#define MIN_L2_TABLES 2
#define MIN_REFCOUNT_TABLES 4
#define DEFAULT_CLEAN_INTERVAL_S 600

static const char *const option_names[] = {
    "lazy-refcounts", "pass-discard-request", "pass-discard-snapshot",
    "pass-discard-other", "discard-no-unref", "overlap-check", "cache-size",
    "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size",
    "cache-clean-interval", "encrypt",
};

void qcow2_options_inherit(json_t *to, const json_t *from)
{
    for (size_t i = 0; i < ARRAY_SIZE(option_names); i++) {
        json_t *value = json_object_get(from, option_names[i]);

        if (value && !json_object_get(to, option_names[i])) {
            json_object_set_new(to, option_names[i], json_deep_copy(value));
        }
    }
}

void qcow2_options_clear(Qcow2Options *o)
{
    json_decref(o->encrypt);
    o->encrypt = NULL;
}

void qcow2_options_apply(BDRVQcow2State *s, const Qcow2Options *o)
{
    s->use_lazy_refcounts = o->use_lazy_refcounts;
    s->overlap_check = o->overlap_check;
    memcpy(s->discard_passthrough, o->discard_passthrough,
           sizeof(s->discard_passthrough));
    s->discard_no_unref = o->discard_no_unref;
    s->cache_clean_interval_s = o->cache_clean_interval_s;
}

/* ---- Caches ---- */

typedef struct CacheSizes {
    bool has_total, has_l2, has_refcount;
    uint64_t total, l2, refcount;
    uint64_t entry;
} CacheSizes;

/* Bytes of L2 tables that map the whole disk. */
static uint64_t whole_disk(const BDRVQcow2State *s)
{
    uint64_t clusters = DIV_ROUND_UP(s->disk_size, s->cluster_size);
    uint64_t table_entries = UINT64_C(1) << s->l2_bits;

    return ROUND_UP(clusters, table_entries) * s->l2_entry_words *
           sizeof(uint64_t);
}

static bool take_cache_sizes(json_t *options, CacheSizes *c, Error **errp)
{
    c->has_total = json_object_get(options, "cache-size");
    c->has_l2 = json_object_get(options, "l2-cache-size");
    c->has_refcount = json_object_get(options, "refcount-cache-size");
    if (!opt_take_size(options, "cache-size", &c->total, errp) ||
        !opt_take_size(options, "l2-cache-size", &c->l2, errp) ||
        !opt_take_size(options, "refcount-cache-size", &c->refcount, errp) ||
        !opt_take_size(options, "l2-cache-entry-size", &c->entry, errp)) {
        return false;
    }
    if (c->has_total && c->has_l2 && c->has_refcount) {
        error_setg(errp, "cache-size, l2-cache-size and refcount-cache-size "
                   "may not be set at the same time");
    } else if (c->has_total && c->has_l2 && c->l2 > c->total) {
        error_setg(errp, "l2-cache-size may not exceed cache-size");
    } else if (c->has_total && c->has_refcount && c->refcount > c->total) {
        error_setg(errp, "refcount-cache-size may not exceed cache-size");
    } else {
        return true;
    }
    return false;
}

/* Fill in those of the two that are not given. */
static void share_cache(const BDRVQcow2State *s, int flags, CacheSizes *c)
{
    uint64_t min_refcount = MIN_REFCOUNT_TABLES * s->cluster_size;

    if (c->has_total && c->has_l2) {
        c->refcount = c->total - c->l2;
    } else if (c->has_total && c->has_refcount) {
        c->l2 = c->total - c->refcount;
    } else if (c->has_total) {
        c->l2 = c->total > min_refcount ? c->total - min_refcount : 0;
        c->l2 = MIN(c->l2, whole_disk(s));
        c->refcount = c->total - c->l2;
    } else if (!c->has_l2) {
        c->l2 = flags & BDRV_O_ONE_PASS ? ONE_PASS_L2_CACHE_SIZE :
                DEFAULT_L2_CACHE_SIZE;
    }
}

static bool set_cache_sizes(const BDRVQcow2State *s, json_t *options,
                            int flags, Qcow2Options *o, Error **errp)
{
    CacheSizes c = { .entry = MIN(s->cluster_size, MAX_DEFAULT_SLICE) };
    uint64_t l2_tables, refcount_tables;

    if (!take_cache_sizes(options, &c, errp)) {
        return false;
    }
    if (c.entry < (1u << QCOW2_MIN_CLUSTER_BITS) ||
        c.entry > (uint64_t)s->cluster_size || !is_power_of_2(c.entry)) {
        error_setg(errp, "L2 cache entry size must be a power of two between "
                   "%d and the cluster size (%" PRId64 ")",
                   1 << QCOW2_MIN_CLUSTER_BITS, s->cluster_size);
        return false;
    }
    share_cache(s, flags, &c);
    l2_tables = DIV_ROUND_UP(MIN(c.l2, whole_disk(s)), c.entry);
    refcount_tables = c.refcount / s->cluster_size;
    if (l2_tables > INT_MAX) {
        error_setg(errp, "L2 cache size too big");
        return false;
    }
    if (refcount_tables > INT_MAX) {
        error_setg(errp, "Refcount cache size too big");
        return false;
    }
    o->l2_slice_size = c.entry;
    o->l2_tables = MAX(l2_tables, MIN_L2_TABLES);
    o->refcount_tables = MAX(refcount_tables, MIN_REFCOUNT_TABLES);
    return true;
}

/* ---- "overlap-check" ---- */

static const struct {
    const char *name;
    int kinds;
} templates[] = {
    { "none", 0 },
    { "constant", QCOW2_OL_CONSTANT },
    { "cached", QCOW2_OL_CACHED },
    { "all", QCOW2_OL_ALL },
};

static const struct {
    const char *name;
    Qcow2MetadataKind kind;
} overlap_kinds[] = {
    { "main-header", QCOW2_OL_MAIN_HEADER },
    { "active-l1", QCOW2_OL_ACTIVE_L1 },
    { "active-l2", QCOW2_OL_ACTIVE_L2 },
    { "refcount-block", QCOW2_OL_REFCOUNT_BLOCK },
    { "refcount-table", QCOW2_OL_REFCOUNT_TABLE },
    { "snapshot-table", QCOW2_OL_SNAPSHOT_TABLE },
    { "inactive-l1", QCOW2_OL_INACTIVE_L1 },
    { "inactive-l2", QCOW2_OL_INACTIVE_L2 },
    { "bitmap-directory", QCOW2_OL_BITMAP_DIRECTORY },
};

static bool parse_template(const char *name, int *kinds, Error **errp)
{
    for (size_t i = 0; i < ARRAY_SIZE(templates); i++) {
        if (g_str_equal(templates[i].name, name)) {
            *kinds = templates[i].kinds;
            return true;
        }
    }
    error_setg(errp, "Unsupported value '%s' for qcow2 option "
               "'overlap-check'. Allowed are any of the following: none, "
               "constant, cached, all", name);
    return false;
}

/* The object form, its keys under their full names, for the messages. */
static bool take_overlap_flags(json_t *flat, int *kinds, Error **errp)
{
    g_autofree char *template = opt_take_str(flat, "overlap-check.template");

    if (template && !parse_template(template, kinds, errp)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_SIZE(overlap_kinds); i++) {
        g_autofree char *key = g_strdup_printf("overlap-check.%s",
                                               overlap_kinds[i].name);
        bool on = *kinds & overlap_kinds[i].kind;

        if (!opt_take_bool(flat, key, &on, errp)) {
            return false;
        }
        *kinds &= ~overlap_kinds[i].kind;
        *kinds |= on ? overlap_kinds[i].kind : 0;
    }
    return true;
}

static bool take_overlap_check(json_t *options, int *kinds, Error **errp)
{
    g_autoptr(json_t) object = opt_take_object(options, "overlap-check");
    g_autofree char *name = NULL;
    const char *key;
    json_t *value;

    *kinds = QCOW2_OL_CACHED;
    if (!object) {
        name = opt_take_str(options, "overlap-check");
        return !name || parse_template(name, kinds, errp);
    }
    json_object_foreach(object, key, value) {
        g_autofree char *dotted = g_strdup_printf("overlap-check.%s", key);

        json_object_set(options, dotted, value);
    }
    return take_overlap_flags(options, kinds, errp);
}

/* ---- The others ---- */

static bool take_discard(json_t *options, int flags, Qcow2Options *o,
                         Error **errp)
{
    bool *pass = o->discard_passthrough;

    pass[QCOW2_DISCARD_NEVER] = false;
    pass[QCOW2_DISCARD_ALWAYS] = true;
    pass[QCOW2_DISCARD_REQUEST] = flags & BDRV_O_UNMAP;
    pass[QCOW2_DISCARD_SNAPSHOT] = true;
    pass[QCOW2_DISCARD_OTHER] = false;
    return opt_take_bool(options, "pass-discard-request",
                         &pass[QCOW2_DISCARD_REQUEST], errp) &&
           opt_take_bool(options, "pass-discard-snapshot",
                         &pass[QCOW2_DISCARD_SNAPSHOT], errp) &&
           opt_take_bool(options, "pass-discard-other",
                         &pass[QCOW2_DISCARD_OTHER], errp) &&
           opt_take_bool(options, "discard-no-unref", &o->discard_no_unref,
                         errp);
}

static bool check_version(const BDRVQcow2State *s, const Qcow2Options *o,
                          Error **errp)
{
    if (s->qcow_version >= 3) {
        return true;
    }
    if (o->use_lazy_refcounts) {
        error_setg(errp, "Lazy refcounts require a qcow2 image with at least "
                   "qemu 1.1 compatibility level");
        return false;
    }
    if (o->discard_no_unref) {
        error_setg(errp, "discard-no-unref is only supported since qcow2 "
                   "version 3");
        return false;
    }
    return true;
}

static bool take_clean_interval(json_t *options, uint64_t *interval_s,
                                Error **errp)
{
    *interval_s = DEFAULT_CLEAN_INTERVAL_S;
    if (!opt_take_u64(options, "cache-clean-interval", interval_s, errp)) {
        return false;
    }
    if (*interval_s > UINT32_MAX) {
        error_setg(errp, "Cache clean interval too big");
        return false;
    }
    return true;
}

static bool take_encrypt(const BDRVQcow2State *s, json_t *options,
                         Qcow2Options *o, Error **errp)
{
    static const char *const formats[] = {
        [QCOW2_CRYPT_NONE] = NULL,
        [QCOW2_CRYPT_AES] = "aes",
        [QCOW2_CRYPT_LUKS] = "luks",
    };
    const char *image = formats[s->crypt_method];
    g_autofree char *given = NULL;

    o->encrypt = opt_take_object(options, "encrypt");
    given = o->encrypt ? opt_take_str(o->encrypt, "format") : NULL;
    if (given && !image) {
        error_setg(errp, "No encryption in image header, but options "
                   "specified format '%s'", given);
        return false;
    }
    if (given && !g_str_equal(given, image)) {
        error_setg(errp, "Header reported '%s' encryption format but options "
                   "specify '%s'", image, given);
        return false;
    }
    return true;
}

bool qcow2_options_take(BlockDriverState *bs, json_t *options, int flags,
                        Qcow2Options *o, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    *o = (Qcow2Options){ 0 };
    driver_lock(&s->lock);
    o->use_lazy_refcounts = s->compatible_features &
                            QCOW2_COMPAT_LAZY_REFCOUNTS;
    driver_unlock(&s->lock);
    return set_cache_sizes(s, options, flags, o, errp) &&
           take_clean_interval(options, &o->cache_clean_interval_s, errp) &&
           opt_take_bool(options, "lazy-refcounts", &o->use_lazy_refcounts,
                         errp) &&
           take_overlap_check(options, &o->overlap_check, errp) &&
           take_discard(options, flags, o, errp) &&
           take_encrypt(s, options, o, errp) && check_version(s, o, errp);
}
