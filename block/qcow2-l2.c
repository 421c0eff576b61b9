/*
 * qcow2: from guest offsets to host clusters: L1 and L2 tables, looked up.
 *
 * Source: "Cluster mapping", "L1 table entry", "L2 table entry", "Extended L2
 * Entries" of the specification.
 *
 * A look-up goes over L2 entries one by one and joins what is of one type and
 * contiguous on the host to an extent.  Where the words of the entries come
 * from is a function: from the cache, lock-free; or from a table that is
 * loaded and then looked at under the lock.  The second takes its pin before
 * it lets go of the lock: a thread that loads a table may have to write others
 * back first, and holders of pins do not wait for that.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2.h"
#include "qemu/atomic.h"

/* Words that are copied out of a slice at a time: all of one, by default. */
#define MAX_WORDS 512
/* Entries that are copied first: extents may be short. */
#define FEW_ENTRIES 16

/* ---- Entries ---- */

/*
 * "The offset may only be 0 with bit 63 set when an external data file is
 * used": otherwise 0 says that there is no cluster.
 */
static bool has_cluster(const BDRVQcow2State *s, uint64_t entry)
{
    return (entry & QCOW2_L2_OFFSET_MASK) ||
           (s->has_data_file && (entry & QCOW2_OFLAG_COPIED));
}

static Qcow2ExtentType unallocated(bool cluster)
{
    return cluster ? QCOW2_EXTENT_UNALLOCATED_ALLOC : QCOW2_EXTENT_UNALLOCATED;
}

static Qcow2ExtentType zero(bool cluster)
{
    return cluster ? QCOW2_EXTENT_ZERO_ALLOC : QCOW2_EXTENT_ZERO_PLAIN;
}

/* "Extended L2 Entries": bits of allocation status below, of zeroes above. */
static int subcluster_type(uint64_t bitmap, unsigned sc, bool cluster,
                           Qcow2ExtentType *type)
{
    bool is_alloc = bitmap >> sc & 1;
    bool is_zero = bitmap >> (sc + QCOW2_SUBCLUSTERS) & 1;

    if (is_alloc && (is_zero || !cluster)) {
        return -EIO;
    }
    *type = is_alloc ? QCOW2_EXTENT_NORMAL :
            is_zero ? zero(cluster) : unallocated(cluster);
    return 0;
}

int qcow2_entry_type(const BDRVQcow2State *s, uint64_t l2_entry,
                     uint64_t l2_bitmap, unsigned sc, Qcow2ExtentType *type)
{
    bool cluster = has_cluster(s, l2_entry);

    if (l2_entry & QCOW2_OFLAG_COMPRESSED) {
        *type = QCOW2_EXTENT_COMPRESSED;
        return s->has_data_file ? -EIO : 0;
    }
    if ((l2_entry & QCOW2_L2_OFFSET_MASK) & (s->cluster_size - 1)) {
        return -EIO;
    }
    if (s->l2_entry_words == 2) {
        return subcluster_type(l2_bitmap, sc, cluster, type);
    }
    if (l2_entry & QCOW2_OFLAG_ZERO) {
        *type = zero(cluster);
        return s->qcow_version < 3 ? -EIO : 0;
    }
    *type = cluster ? QCOW2_EXTENT_NORMAL : QCOW2_EXTENT_UNALLOCATED;
    return 0;
}

void qcow2_parse_compressed(const BDRVQcow2State *s, uint64_t l2_entry,
                            int64_t *host_offset, int *bytes)
{
    int64_t sectors = ((l2_entry >> s->csize_shift) & s->csize_mask) + 1;

    *host_offset = l2_entry & s->cluster_offset_mask;
    *bytes = sectors * 512 - (*host_offset & 511);
}

static bool type_has_host(Qcow2ExtentType type)
{
    return type == QCOW2_EXTENT_NORMAL || type == QCOW2_EXTENT_ZERO_ALLOC ||
           type == QCOW2_EXTENT_UNALLOCATED_ALLOC;
}

/* ---- Where things are ---- */

int64_t qcow2_l1_coverage(const BDRVQcow2State *s)
{
    return INT64_C(1) << (s->cluster_bits + s->l2_bits);
}

static unsigned slice_entries(const BDRVQcow2State *s)
{
    return 1u << s->l2_slice_bits;
}

static int64_t slice_size(const BDRVQcow2State *s)
{
    return (int64_t)slice_entries(s) * s->l2_entry_words * sizeof(uint64_t);
}

/* Of the entry in its slice. */
static unsigned slice_index(const BDRVQcow2State *s, int64_t offset)
{
    return (offset >> s->cluster_bits) & (slice_entries(s) - 1);
}

/* In the file, of the slice for @offset of the L2 table at @l2_offset. */
static int64_t slice_offset(const BDRVQcow2State *s, int64_t l2_offset,
                            int64_t offset)
{
    int64_t index = (offset >> s->cluster_bits) &
                    ((INT64_C(1) << s->l2_bits) - 1);

    return l2_offset + (index >> s->l2_slice_bits) * slice_size(s);
}

/* Entries beyond the table are empty. */
static uint64_t l1_entry(const BDRVQcow2State *s, int64_t offset)
{
    const Qcow2L1 *l1 = qatomic_load_acquire(&s->l1);
    uint64_t index = offset >> (s->cluster_bits + s->l2_bits);

    return index < l1->size ? qatomic_load_acquire(&l1->entries[index]) : 0;
}

/* Of the L2 table; 0: none. -EIO: the entry is no multiple of a cluster. */
static int64_t l2_table_offset(const BDRVQcow2State *s, uint64_t entry)
{
    int64_t offset = entry & QCOW2_L1_OFFSET_MASK;

    return offset & (s->cluster_size - 1) ? -EIO : offset;
}

/* ---- A look-up ---- */

/* Words of L2 entries. */
typedef struct Words {
    uint64_t w[MAX_WORDS];
} Words;

/* @n words for @offset, lock-free.  1; 0: there is no table; or -errno. */
static int cached_words(BDRVQcow2State *s, int64_t offset, unsigned n,
                        Words *ws)
{
    int64_t l2_offset = l2_table_offset(s, l1_entry(s, offset));

    if (l2_offset <= 0) {
        return l2_offset;
    }
    return qcow2_cache_peek(s->l2_cache, slice_offset(s, l2_offset, offset),
                            slice_index(s, offset) * s->l2_entry_words, n,
                            ws->w) ? 1 : -EAGAIN;
}

/* An extent that is being put together. */
typedef struct Run {
    int64_t offset;                 /* guest */
    int64_t max;                    /* bytes */
    Qcow2Extent *e;
} Run;

static Qcow2Extent piece_of(const BDRVQcow2State *s, uint64_t entry,
                            Qcow2ExtentType type, int64_t in_cluster,
                            int64_t bytes)
{
    Qcow2Extent p = { .type = type, .bytes = bytes };

    if (type_has_host(type)) {
        p.host_offset = (entry & QCOW2_L2_OFFSET_MASK) + in_cluster;
        p.copied = entry & QCOW2_OFLAG_COPIED;
    } else if (type == QCOW2_EXTENT_COMPRESSED) {
        p.l2_entry = entry;
    }
    return p;
}

/* Join @p to what is there.  False: it does not go with it. */
static bool join(Run *run, const Qcow2Extent *p)
{
    Qcow2Extent *e = run->e;

    if (e->bytes == 0) {
        *e = *p;
    } else if (e->type != p->type || p->type == QCOW2_EXTENT_COMPRESSED ||
               (type_has_host(p->type) &&
                (p->host_offset != e->host_offset + e->bytes ||
                 p->copied != e->copied))) {
        return false;
    } else {
        e->bytes += p->bytes;
    }
    e->bytes = MIN(e->bytes, run->max);
    return e->bytes < run->max;
}

/* How many sub-clusters from @sc on are of the type of the first. */
static unsigned count_same(const BDRVQcow2State *s, uint64_t bitmap,
                           unsigned sc)
{
    uint32_t alloc = bitmap, zeroes = bitmap >> QCOW2_SUBCLUSTERS;
    uint32_t differ = (alloc >> sc & 1 ? ~alloc : alloc) |
                      (zeroes >> sc & 1 ? ~zeroes : zeroes);

    return ctz64(differ >> sc | UINT64_C(1) << (QCOW2_SUBCLUSTERS - sc));
}

/* "The offset must match the guest offset" in an external data file. */
static bool is_misplaced(const BDRVQcow2State *s, const Run *run,
                         const Qcow2Extent *p)
{
    return s->has_data_file && type_has_host(p->type) &&
           p->host_offset != run->offset + run->e->bytes;
}

/*
 * Add what one entry says from @in_cluster on.  1: all of the cluster has been
 * added and there may be more; 0: the extent is complete; -EIO: invalid.
 */
static int add_entry(const BDRVQcow2State *s, Run *run, const uint64_t *words,
                     int64_t in_cluster)
{
    uint64_t bitmap = s->l2_entry_words == 2 ? words[1] : 0;

    while (in_cluster < s->cluster_size) {
        unsigned sc = in_cluster >> s->subcluster_bits;
        int64_t end = s->cluster_size;
        Qcow2ExtentType type;
        Qcow2Extent p;

        if (qcow2_entry_type(s, words[0], bitmap, sc, &type) < 0) {
            /* What comes before it is good. */
            return run->e->bytes ? 0 : -EIO;
        }
        if (s->l2_entry_words == 2 && type != QCOW2_EXTENT_COMPRESSED) {
            end = (int64_t)(sc + count_same(s, bitmap, sc)) *
                  s->subcluster_size;
        }
        p = piece_of(s, words[0], type, in_cluster, end - in_cluster);
        if (is_misplaced(s, run, &p)) {
            return run->e->bytes ? 0 : -EIO;
        }
        if (!join(run, &p)) {
            return 0;
        }
        in_cluster = end;
    }
    return 1;
}

/*
 * How many of the @n entries at @w just go on as the first one, which is the
 * last that was added to @run, does: most often all of them, so they are not
 * taken apart.  For what is not sure this is 1.
 */
static unsigned count_alike(const BDRVQcow2State *s, const Run *run,
                            const uint64_t *w, unsigned n)
{
    Qcow2ExtentType type = run->e->type;
    uint64_t step = type_has_host(type) ? s->cluster_size : 0;
    uint64_t next = w[0] + step;
    unsigned i = 1;

    if (s->l2_entry_words != 1 || type == QCOW2_EXTENT_COMPRESSED ||
        (w[0] & QCOW2_L2_OFFSET_MASK) + n * step > QCOW2_L2_OFFSET_MASK) {
        return 1;
    }
    while (i < n && w[i] == next) {
        next += step;
        i++;
    }
    return i;
}

/* The entries of @ws, @n of them, from @offset on.  As add_entry(). */
static int add_entries(const BDRVQcow2State *s, Run *run, const Words *ws,
                       unsigned n, int64_t offset)
{
    int64_t in_cluster = offset & (s->cluster_size - 1);

    for (unsigned i = 0, alike; i < n; i += alike) {
        const uint64_t *w = &ws->w[i * s->l2_entry_words];
        Qcow2Extent *e = run->e;
        int ret = add_entry(s, run, w, in_cluster);

        if (ret <= 0) {
            return ret;
        }
        alike = count_alike(s, run, w, n - i);
        e->bytes = MIN(e->bytes + (alike - 1) * s->cluster_size, run->max);
        if (e->bytes == run->max) {
            return 0;
        }
        in_cluster = 0;
    }
    return 1;
}

/* How many entries to look at next: what is asked for, in this slice. */
static unsigned next_entries(const BDRVQcow2State *s, int64_t offset,
                             int64_t bytes)
{
    int64_t n = (((offset & (s->cluster_size - 1)) + bytes - 1) >>
                 s->cluster_bits) + 1;

    n = MIN(n, slice_entries(s) - slice_index(s, offset));
    return MIN(n, MAX_WORDS / s->l2_entry_words);
}

/* No L2 table: all that its entry in the L1 table covers is unallocated. */
static int add_hole(const BDRVQcow2State *s, Run *run, int64_t offset)
{
    int64_t coverage = qcow2_l1_coverage(s);
    Qcow2Extent p = {
        .type = QCOW2_EXTENT_UNALLOCATED,
        .bytes = coverage - (offset & (coverage - 1)),
    };

    return join(run, &p);
}

/* From what is cached.  0, or -errno if that is nothing. */
static int extend(BDRVQcow2State *s, Run *run)
{
    unsigned most = FEW_ENTRIES;
    Words ws;
    int ret;

    do {
        int64_t at = run->offset + run->e->bytes;
        unsigned n = next_entries(s, at, run->max - run->e->bytes);

        n = MIN(n, most);
        most = MIN(most * 4, MAX_WORDS);
        ret = cached_words(s, at, n * s->l2_entry_words, &ws);
        if (ret > 0) {
            ret = add_entries(s, run, &ws, n, at);
        } else if (ret == 0) {
            ret = add_hole(s, run, at);
        }
    } while (ret > 0);
    return run->e->bytes ? 0 : ret;
}

int qcow2_map_nowait(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     Qcow2Extent *extent)
{
    Run run = { .offset = offset, .max = bytes, .e = extent };

    extent->bytes = 0;
    return extend(bs->opaque, &run);
}

/* ---- The same with I/O ---- */

/* The words of the entries for @offset.  Takes *pin.  1; 0: there is no table;
 * or -errno. */
static int load_words(BlockDriverState *bs, int64_t offset, unsigned n,
                      Words *ws, uintptr_t *pin)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned index;
    Qcow2Table *t;
    int ret;

    driver_lock(&s->lock);
    ret = qcow2_l2_get(bs, offset, &t, &index);
    if (ret == 0) {
        for (unsigned i = 0; t && i < n; i++) {
            ws->w[i] = qcow2_table_get64(t, index * s->l2_entry_words + i);
        }
        *pin = qcow2_pin(s);
        ret = t ? 1 : 0;
    }
    driver_unlock(&s->lock);
    return ret;
}

/* The entry for @offset is invalid, or not where it must be: say why. */
static void signal_bad_entry(BlockDriverState *bs, const Run *run,
                             const uint64_t *words)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t l2_offset = l2_table_offset(s, l1_entry(s, run->offset));
    int64_t l2 = slice_offset(s, l2_offset, run->offset);
    unsigned index = slice_index(s, run->offset);
    int64_t host = words[0] & QCOW2_L2_OFFSET_MASK;

    if (words[0] & QCOW2_OFLAG_COMPRESSED) {
        qcow2_signal_corruption(bs, true, -1, -1, "Compressed cluster entry "
                                "found in image with external data file (L2 "
                                "offset: %#" PRIx64 ", L2 index: %#x)", l2,
                                index);
    } else if (host & (s->cluster_size - 1)) {
        qcow2_signal_corruption(bs, true, -1, -1, "Cluster allocation offset "
                                "%#" PRIx64 " unaligned (L2 offset: %#" PRIx64
                                ", L2 index: %#x)", host, l2, index);
    } else if (s->l2_entry_words == 1 && (words[0] & QCOW2_OFLAG_ZERO) &&
               s->qcow_version < 3) {
        qcow2_signal_corruption(bs, true, -1, -1, "Zero cluster entry found "
                                "in pre-v3 image (L2 offset: %#" PRIx64
                                ", L2 index: %#x)", l2, index);
    } else if (s->data_file_raw) {
        qcow2_signal_corruption(bs, true, -1, -1, "External data file host "
                                "cluster offset %#" PRIx64 " does not match "
                                "guest cluster offset: %#" PRIx64
                                ", L2 index: %#x)", host,
                                run->offset & -s->cluster_size, index);
    } else {
        qcow2_signal_corruption(bs, true, -1, -1, "Invalid cluster entry "
                                "found  (L2 offset: %#" PRIx64 ", L2 index: "
                                "%#x)", l2, index);
    }
}

/* Look at the first slice with the lock, at what follows without. */
static int map_loaded(BlockDriverState *bs, Run *run, uintptr_t *pin)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned n = next_entries(s, run->offset, run->max);
    Words ws;
    int ret = load_words(bs, run->offset, n * s->l2_entry_words, &ws, pin);

    if (ret < 0) {
        return ret;
    }
    ret = ret ? add_entries(s, run, &ws, n, run->offset) :
                add_hole(s, run, run->offset);
    if (ret < 0) {
        qcow2_unpin(s, *pin);
        signal_bad_entry(bs, run, ws.w);
        return ret;
    }
    return ret ? extend(s, run) : 0;
}

int qcow2_map(BlockDriverState *bs, int64_t offset, int64_t bytes,
              Qcow2Extent *extent, uintptr_t *pin)
{
    BDRVQcow2State *s = bs->opaque;
    Run run = { .offset = offset, .max = bytes, .e = extent };

    extent->bytes = 0;
    *pin = qcow2_pin(s);
    if (extend(s, &run) == 0) {
        return 0;
    }
    qcow2_unpin(s, *pin);
    *pin = 0;
    return map_loaded(bs, &run, pin);
}

int qcow2_l2_get(BlockDriverState *bs, int64_t offset, Qcow2Table **t,
                 unsigned *index)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t entry;

    *t = NULL;
    *index = slice_index(s, offset);
    do {
        int64_t l2_offset;
        int ret;

        entry = l1_entry(s, offset);
        l2_offset = l2_table_offset(s, entry);
        if (l2_offset < 0) {
            qcow2_signal_corruption_locked(
                bs, true, -1, -1, "L2 table offset %#" PRIx64 " unaligned (L1 "
                "index: %#" PRIx64 ")", (uint64_t)(entry &
                QCOW2_L1_OFFSET_MASK), offset / qcow2_l1_coverage(s));
            return -EIO;
        }
        if (l2_offset == 0) {
            *t = NULL;
            return 0;
        }
        ret = qcow2_cache_get(bs, s->l2_cache,
                              slice_offset(s, l2_offset, offset), t);
        if (ret < 0) {
            return ret;
        }
        /* Meanwhile the table may have been copied. */
    } while (l1_entry(s, offset) != entry);
    return 0;
}
