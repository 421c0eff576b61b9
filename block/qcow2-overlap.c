/*
 * qcow2: which clusters of the image file hold metadata, so that no write of
 * data hits them, and what happens when one would, or when an image contradicts
 * itself in another way.
 *
 * The set is a hash table of clusters, each with the kinds of metadata in it.
 * Anyone may read it without a lock; changes are made under s->lock.  An entry
 * is one atomic word, so a reader sees it whole.  One that is removed keeps its
 * place, without kinds, as long as another that a reader looks for may be
 * behind it; so tables that come and go, as snapshots do, do not fill the set.
 * Tables that were replaced stay until the set is freed: a reader may be in
 * one.  They grow by doubling, so all old ones together are not larger than the
 * newest.
 *
 * What a reader relies on was added before: an L2 table is in the set before
 * the L1 table refers to it.  A cluster that is added or removed just now is
 * one that the reader's cluster cannot be, unless the image is corrupt.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2.h"
#include "qemu/atomic.h"
#include "qemu/error.h"

/* Kinds in the low bits; above, 1 + the cluster's number.  0: free. */
#define KIND_BITS 9
#define KIND_MASK ((UINT64_C(1) << KIND_BITS) - 1)
/* No image that is meant well has so much metadata: 256 MiB of entries. */
#define MAX_ENTRIES (UINT64_C(1) << 25)

typedef struct HashTable {
    struct HashTable *older;
    unsigned bits;
    uint64_t entries[];             /* atomic; 1 << bits */
} HashTable;

struct Qcow2MetadataSet {
    HashTable *table;               /* atomic pointer */
    uint64_t n_used;                /* under the lock: not free */
};

/* ---- The table ---- */

static HashTable *table_new(unsigned bits)
{
    HashTable *t = g_try_malloc0(sizeof(*t) + (sizeof(uint64_t) << bits));

    if (t) {
        t->bits = bits;
    }
    return t;
}

Qcow2MetadataSet *qcow2_metadata_new(void)
{
    Qcow2MetadataSet *set = g_new0(Qcow2MetadataSet, 1);

    set->table = table_new(8);
    if (!set->table) {
        qcow2_metadata_free(set);
        return NULL;
    }
    return set;
}

void qcow2_metadata_free(Qcow2MetadataSet *set)
{
    if (!set) {
        return;
    }
    while (set->table) {
        HashTable *older = set->table->older;

        g_free(set->table);
        set->table = older;
    }
    g_free(set);
}

/*
 * Where @key is, or the free entry where it would be.  There is always one.
 * @found is what was there: of @key, or 0.  A reader looks no second time, as
 * what was free may be another cluster's by then.
 */
static uint64_t *find(HashTable *t, uint64_t key, uint64_t *found)
{
    uint64_t mask = (UINT64_C(1) << t->bits) - 1;
    uint64_t i = (key * 0x9e3779b97f4a7c15u) >> (64 - t->bits);

    for (;; i = (i + 1) & mask) {
        *found = qatomic_load_acquire(&t->entries[i]);
        if (!*found || *found >> KIND_BITS == key) {
            return &t->entries[i];
        }
    }
}

/* At most half of a table is used. */
static int make_room(Qcow2MetadataSet *set)
{
    HashTable *old = set->table, *new;
    uint64_t n = UINT64_C(1) << old->bits;

    if (set->n_used < n / 2) {
        return 0;
    }
    new = 2 * n > MAX_ENTRIES ? NULL : table_new(old->bits + 1);
    if (!new) {
        return -ENOMEM;
    }
    set->n_used = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t entry = old->entries[i], none;

        if (entry & KIND_MASK) {
            *find(new, entry >> KIND_BITS, &none) = entry;
            set->n_used++;
        }
    }
    new->older = old;
    qatomic_store_release(&set->table, new);
    return 0;
}

static int add_cluster(Qcow2MetadataSet *set, uint64_t key, unsigned kind)
{
    uint64_t *entry, was;
    int ret = make_room(set);

    if (ret < 0) {
        return ret;
    }
    entry = find(set->table, key, &was);
    set->n_used += !was;
    qatomic_store_release(entry, key << KIND_BITS | (was & KIND_MASK) | kind);
    return 0;
}

/* ---- Ranges of the image file ---- */

/* The clusters that a range touches, as keys.  False: none. */
static bool key_range(const BDRVQcow2State *s, int64_t offset, int64_t bytes,
                      uint64_t *first, uint64_t *last)
{
    if (offset < 0 || bytes <= 0 || bytes > INT64_MAX - offset) {
        return false;
    }
    *first = 1 + (offset >> s->cluster_bits);
    *last = 1 + ((offset + bytes - 1) >> s->cluster_bits);
    return true;
}

int qcow2_metadata_add(BDRVQcow2State *s, int64_t offset, int64_t bytes,
                       Qcow2MetadataKind kind)
{
    uint64_t key, last;

    if (!key_range(s, offset, bytes, &key, &last)) {
        return 0;
    }
    for (; key <= last; key++) {
        int ret = add_cluster(s->metadata, key, kind);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Entries without kinds, from @entry on backwards, lead to nothing if what
 * follows them is free. */
static void free_unused(Qcow2MetadataSet *set, uint64_t *entry)
{
    HashTable *t = set->table;
    uint64_t mask = (UINT64_C(1) << t->bits) - 1;
    uint64_t i = entry - t->entries;

    if (t->entries[(i + 1) & mask]) {
        return;
    }
    while (t->entries[i] && !(t->entries[i] & KIND_MASK)) {
        qatomic_store_release(&t->entries[i], 0);
        set->n_used--;
        i = (i - 1) & mask;
    }
}

void qcow2_metadata_remove(BDRVQcow2State *s, int64_t offset, int64_t bytes,
                           int kinds)
{
    uint64_t gone = kinds & ~QCOW2_OL_MAIN_HEADER;
    uint64_t key, last;

    if (!key_range(s, offset, bytes, &key, &last)) {
        return;
    }
    for (; key <= last; key++) {
        uint64_t was, *entry = find(s->metadata->table, key, &was);

        if (was) {
            qatomic_store_release(entry, was & ~gone);
            free_unused(s->metadata, entry);
        }
    }
}

int qcow2_metadata_overlap(BDRVQcow2State *s, int kinds, int64_t offset,
                           int64_t bytes)
{
    HashTable *table = qatomic_load_acquire(&s->metadata->table);
    uint64_t key, last, entry, all = 0;

    if (!key_range(s, offset, bytes, &key, &last)) {
        return 0;
    }
    for (; key <= last; key++) {
        find(table, key, &entry);
        all |= entry;
    }
    return all & KIND_MASK & kinds;
}

/* Each entry of a table that refers to metadata. */
static int REQUIRES(driver_class)
add_entries(BDRVQcow2State *s, const uint64_t *table, uint32_t n, uint64_t mask,
            Qcow2MetadataKind kind)
{
    for (uint32_t i = 0; i < n; i++) {
        int64_t offset = table[i] & mask & INT64_MAX;
        int ret = 0;

        if (offset) {
            s->l2_shared |= kind == QCOW2_OL_ACTIVE_L2 &&
                            qcow2_metadata_overlap(s, kind, offset, 1);
            ret = qcow2_metadata_add(s, offset, s->cluster_size, kind);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int qcow2_metadata_add_active(BDRVQcow2State *s)
{
    const struct {
        int64_t offset;
        uint64_t bytes;
        Qcow2MetadataKind kind;
    } ranges[] = {
        { 0, s->cluster_size, QCOW2_OL_MAIN_HEADER },
        /* Who loses it loses all data: guarded as the header that has it. */
        { s->crypto_header_offset, s->crypto_header_length,
          QCOW2_OL_MAIN_HEADER },
        { s->l1->offset, s->l1->size * sizeof(uint64_t), QCOW2_OL_ACTIVE_L1 },
        { s->reftable_offset, s->reftable_size * sizeof(uint64_t),
          QCOW2_OL_REFCOUNT_TABLE },
        { s->snapshots_offset, s->snapshots_size, QCOW2_OL_SNAPSHOT_TABLE },
        { s->bitmap_directory_offset, s->bitmap_directory_size,
          QCOW2_OL_BITMAP_DIRECTORY },
    };
    int ret = 0;

    for (size_t i = 0; i < ARRAY_SIZE(ranges) && ret == 0; i++) {
        ret = qcow2_metadata_add(s, ranges[i].offset, ranges[i].bytes,
                                 ranges[i].kind);
    }
    if (ret == 0) {
        ret = add_entries(s, s->l1->entries, s->l1->size,
                          QCOW2_L1_OFFSET_MASK, QCOW2_OL_ACTIVE_L2);
    }
    if (ret == 0) {
        ret = add_entries(s, s->reftable, s->reftable_size,
                          QCOW2_REFTABLE_OFFSET_MASK, QCOW2_OL_REFCOUNT_BLOCK);
    }
    return ret;
}

/* ---- Signalling ---- */

/* True: it is to be marked in the image. */
static bool G_GNUC_PRINTF(3, 0)
report(BlockDriverState *bs, bool fatal, const char *fmt, va_list ap)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree char *message = NULL;

    fatal = fatal && s->writable;
    if (qatomic_read(&s->corrupt) ||
        (!fatal && qatomic_xchg(&s->corruption_reported, true)) ||
        (fatal && qatomic_xchg(&s->corrupt, true))) {
        return false;
    }
    message = g_strdup_vprintf(fmt, ap);
    if (fatal) {
        error_printf("qcow2: Marking image as corrupt: %s; further corruption "
                     "events will be suppressed\n", message);
    } else {
        error_printf("qcow2: Image is corrupt: %s; further non-fatal "
                     "corruption events will be suppressed\n", message);
    }
    return fatal;
}

/* What it writes to says no more than that it is corrupt: if that fails, the
 * image has been reported all the same, and is not written to any more. */
static void REQUIRES(driver_class) mark(BlockDriverState *bs)
{
    int ret = qcow2_mark_corrupt(bs);

    if (ret < 0) {
        error_report("qcow2: Could not mark the image as corrupt: %s",
                     g_strerror(-ret));
    }
}

void qcow2_signal_corruption(BlockDriverState *bs, bool fatal, int64_t offset,
                             int64_t bytes, const char *fmt, ...)
{
    BDRVQcow2State *s = bs->opaque;
    va_list ap;
    bool marks;

    va_start(ap, fmt);
    marks = report(bs, fatal, fmt, ap);
    va_end(ap);
    if (marks) {
        driver_lock(&s->lock);
        mark(bs);
        driver_unlock(&s->lock);
    }
}

void qcow2_signal_corruption_locked(BlockDriverState *bs, bool fatal,
                                    int64_t offset, int64_t bytes,
                                    const char *fmt, ...)
{
    va_list ap;
    bool marks;

    va_start(ap, fmt);
    marks = report(bs, fatal, fmt, ap);
    va_end(ap);
    if (marks) {
        mark(bs);
    }
}

/* ---- Before a write ---- */

static const char *kind_name(int kinds)
{
    static const char *const names[KIND_BITS] = {
        "qcow2_header", "active L1 table", "active L2 table",
        "refcount block", "refcount table", "snapshot table",
        "inactive L1 table", "inactive L2 table", "bitmap directory",
    };

    return names[ctz64(kinds)];
}

/* The range is in the image file: an external data file holds no metadata. */
static int forbidden_kinds(BlockDriverState *bs, int own, int64_t offset,
                           int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;

    return qcow2_metadata_overlap(s, s->overlap_check & ~own, offset, bytes);
}

int qcow2_check_overlap(BlockDriverState *bs, int own, int64_t offset,
                        int64_t bytes)
{
    int kinds = forbidden_kinds(bs, own, offset, bytes);

    if (unlikely(kinds)) {
        qcow2_signal_corruption(bs, true, offset, bytes, "Preventing invalid "
                                "write on metadata (overlaps with %s)",
                                kind_name(kinds));
        return -EIO;
    }
    return 0;
}

int qcow2_check_overlap_locked(BlockDriverState *bs, int own, int64_t offset,
                               int64_t bytes)
{
    int kinds = forbidden_kinds(bs, own, offset, bytes);

    if (unlikely(kinds)) {
        qcow2_signal_corruption_locked(bs, true, offset, bytes, "Preventing "
                                       "invalid write on metadata (overlaps "
                                       "with %s)", kind_name(kinds));
        return -EIO;
    }
    return 0;
}
