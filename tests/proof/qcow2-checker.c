/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The checker of qcow2-checker.h.
 *
 * Source: "Header", "Header extensions", "Host cluster management", "Cluster
 * mapping", "Snapshots", "Bitmaps", "Full disk encryption header pointer" of
 * the specification.
 */
#include "qcow2-checker.h"
#include "qemu/bswap.h"

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define OFFSET UINT64_C(0x00fffffffffffe00)
#define L1_RESERVED UINT64_C(0x7f000000000001ff)
#define L2_RESERVED UINT64_C(0x3f000000000001fe)
#define INCOMPAT_DIRTY 1
#define INCOMPAT_CORRUPT 2
#define INCOMPAT_DATA_FILE 4
#define INCOMPAT_EXTL2 16
#define AUTOCLEAR_BITMAPS 1
#define EXT_END 0
#define EXT_BITMAPS 0x23852875
#define EXT_CRYPTO 0x0537be77
/* The last clusters may be allocated, but never written: then the file ends
 * before them. */
#define BEHIND_END 4096
/* Nobody looks at more. */
#define MAX_SNAPSHOTS 65536
#define MAX_SNAPSHOT_TABLE (64 * MiB)

typedef enum Use {
    USE_NONE,
    USE_SINGLE,                 /* header, tables: one user */
    USE_L2,                     /* shared by snapshots at most */
    USE_DATA,                   /* the same */
    USE_COMPRESSED,             /* by several L2 entries */
} Use;

typedef struct Cluster {
    uint32_t refs;
    uint8_t use;                /* Use */
    bool alone;                 /* somebody has set COPIED */
} Cluster;

typedef struct Image {
    const MemImage *img;
    Qcow2CheckerResult *result;
    GString *why;
    unsigned version, cluster_bits, refcount_order, l2_words;
    uint64_t cluster_size, features;
    uint64_t n_clusters;
    Cluster *clusters;
    uint64_t reftable, n_reftable;
    GHashTable *dangers;        /* collect them, and go on; or NULL */
    uint64_t end, old_end;      /* then: of what can be referred to */
} Image;

static bool G_GNUC_PRINTF(2, 3) bad(Image *im, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_string_append_vprintf(im->why, format, ap);
    va_end(ap);
    return false;
}

static uint64_t read64(const Image *im, uint64_t offset)
{
    uint8_t b[8];

    mem_image_read(im->img, offset, b, sizeof(b));
    return ldq_be_p(b);
}

static uint32_t read32(const Image *im, uint64_t offset)
{
    uint8_t b[4];

    mem_image_read(im->img, offset, b, sizeof(b));
    return ldl_be_p(b);
}

/* ---- Refcounts ---- */

static uint64_t entry_of_block(const Image *im, uint64_t block, uint64_t i)
{
    unsigned bits = 1u << im->refcount_order;
    uint64_t value = 0;
    uint8_t byte;

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

static bool is_block(const Image *im, uint64_t block)
{
    return block && block % im->cluster_size == 0 &&
           block >> im->cluster_bits < im->n_clusters;
}

static uint64_t refcount(const Image *im, uint64_t cluster)
{
    uint64_t per = im->cluster_size * 8 >> im->refcount_order;
    uint64_t index = cluster / per;
    uint64_t block = index < im->n_reftable ?
                     read64(im, im->reftable + index * 8) : 0;

    return is_block(im, block) ? entry_of_block(im, block, cluster % per) : 0;
}

/* ---- References ---- */

/* Several users, where there may be only one. */
static bool in_danger(Image *im, uint64_t c)
{
    return im->dangers &&
           (g_hash_table_add(im->dangers, (gpointer)(uintptr_t)c), true);
}

static bool add_one(Image *im, uint64_t c, Use use, bool alone)
{
    Cluster *cluster = &im->clusters[c];

    if (cluster->use != USE_NONE && cluster->use != use && !in_danger(im, c)) {
        im->result->overlaps = true;
        return bad(im, "cluster %" PRIu64 " is used as %d and as %d", c,
                   cluster->use, use);
    }
    if (use == USE_SINGLE && cluster->refs && !in_danger(im, c)) {
        im->result->overlaps = true;
        return bad(im, "cluster %" PRIu64 " of tables is used twice", c);
    }
    if (cluster->refs && (alone || cluster->alone) &&
        !(im->features & INCOMPAT_DIRTY && im->result->snapshots) &&
        !in_danger(im, c)) {
        return bad(im, "cluster %" PRIu64 " has several users, and one says "
                   "COPIED", c);
    }
    cluster->refs++;
    cluster->use = use;
    cluster->alone |= alone;
    return true;
}

/* Nobody uses what is not in the file, but for a part of its last cluster, nor
 * what does not begin with a cluster. */
static bool is_elsewhere(const Image *im, uint64_t offset, uint64_t bytes,
                         Use use)
{
    return (offset % im->cluster_size && use != USE_COMPRESSED) ||
           offset > INT64_MAX || bytes > INT64_MAX ||
           offset + bytes >= im->end + im->cluster_size;
}

static bool add(Image *im, uint64_t offset, uint64_t bytes, Use use,
                bool alone)
{
    uint64_t first = offset >> im->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> im->cluster_bits;

    if (im->dangers && is_elsewhere(im, offset, bytes, use)) {
        return true;
    }
    if (bytes && offset % im->cluster_size && use != USE_COMPRESSED) {
        return bad(im, "%#" PRIx64 " is no multiple of a cluster", offset);
    }
    for (uint64_t c = first; bytes && c <= last; c++) {
        if (c >= im->n_clusters) {
            return bad(im, "%#" PRIx64 " is far behind the end of the file",
                       offset);
        }
        if (!add_one(im, c, use, alone)) {
            return false;
        }
    }
    return true;
}

static bool check_copied(Image *im, const char *what, uint64_t entry)
{
    uint64_t n = refcount(im, (entry & OFFSET) >> im->cluster_bits);

    if (im->dangers || im->features & INCOMPAT_DIRTY ||
        !!(entry & COPIED) == (n == 1)) {
        return true;
    }
    im->result->miscopied++;
    return im->version < 3 || bad(im, "%s %#" PRIx64 ": its refcount is %"
                                  PRIu64, what, entry, n);
}

/* ---- Tables ---- */

static bool compressed_entry(Image *im, uint64_t entry)
{
    unsigned shift = 62 - (im->cluster_bits - 8);
    uint64_t host = entry & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = (entry & ~(COPIED | COMPRESSED)) >> shift;

    im->result->compressed++;
    if (entry & COPIED) {
        return bad(im, "compressed entry %#" PRIx64 " is COPIED", entry);
    }
    return add(im, host, (sectors + 1) * 512 - host % 512, USE_COMPRESSED,
               false);
}

/* In the external data file each cluster is where the guest has it, and
 * nothing is counted. */
static bool external_entry(Image *im, uint64_t entry, uint64_t guest)
{
    return (entry & COPIED ? (entry & OFFSET) == guest : !(entry & OFFSET)) ||
           bad(im, "L2 entry %#" PRIx64 " of the data file, for %#" PRIx64,
               entry, guest);
}

static bool l2_entry(Image *im, uint64_t entry, uint64_t bitmap,
                     uint64_t guest)
{
    bool is_zero = entry & 1;

    if (entry & COMPRESSED) {
        return (!bitmap || bad(im, "compressed, with bitmap %#" PRIx64,
                               bitmap)) && compressed_entry(im, entry);
    }
    if (entry & L2_RESERVED || (is_zero && im->version < 3) ||
        (is_zero && im->l2_words > 1)) {
        im->result->odd_flags = !(entry & L2_RESERVED);
        return bad(im, "L2 entry %#" PRIx64 " has reserved bits", entry);
    }
    if (bitmap & bitmap >> 32 & UINT32_MAX ||
        (bitmap & UINT32_MAX && !(entry & (OFFSET | COPIED)))) {
        return bad(im, "L2 entry %#" PRIx64 " with bitmap %#" PRIx64, entry,
                   bitmap);
    }
    if (im->features & INCOMPAT_DATA_FILE) {
        return im->dangers || external_entry(im, entry, guest);
    }
    if (!(entry & OFFSET)) {
        im->result->odd_flags = entry & COPIED;
        return !(entry & COPIED) || bad(im, "COPIED, but nothing is there");
    }
    return add(im, entry & OFFSET, im->cluster_size, USE_DATA,
               entry & COPIED) &&
           check_copied(im, "L2 entry", entry);
}

/* Whoever looks for dangers passes over what cannot be followed, and over bits
 * that make no sense, as who reads it may.  False: there is nothing left. */
static bool make_sense(const Image *im, uint64_t *entry, uint64_t *bitmap)
{
    if (*entry & COMPRESSED) {
        *entry &= ~COPIED;
        *bitmap = 0;
        return true;
    }
    *entry &= ~(L2_RESERVED | (im->l2_words > 1));
    return *entry & OFFSET && !(*entry & 1 && im->version < 3) &&
           !(*bitmap & *bitmap >> 32 & UINT32_MAX);
}

/* @guest: where on the disk it begins. */
static bool walk_l2(Image *im, uint64_t table, uint64_t guest, bool active)
{
    uint64_t n = im->cluster_size / 8 / im->l2_words;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = table + i * im->l2_words * 8;
        uint64_t entry = read64(im, at);
        uint64_t bitmap = im->l2_words > 1 ? read64(im, at + 8) : 0;

        if (im->dangers && !make_sense(im, &entry, &bitmap)) {
            continue;
        }
        /* Nobody reads the flags of inactive tables. */
        entry &= active || !(entry & (OFFSET | COMPRESSED)) ? ~UINT64_C(0)
                                                            : ~COPIED;
        if (!active && entry & OFFSET && !(entry & COMPRESSED)) {
            if (!add(im, entry & OFFSET, im->cluster_size, USE_DATA, false)) {
                return false;
            }
        } else if (!l2_entry(im, entry, bitmap, guest + i * im->cluster_size)) {
            return bad(im, ", in the L2 table at %#" PRIx64 ", entry %" PRIu64,
                       table, i);
        }
    }
    return true;
}

/* Is it a table that somebody may use?  Of so many entries. */
static bool is_followed(const Image *im, uint64_t table, uint32_t n)
{
    return table % im->cluster_size == 0 && table < im->end &&
           n * UINT64_C(8) <= im->end - table;
}

static bool walk_l1(Image *im, uint64_t l1, uint32_t size, bool active)
{
    uint64_t coverage = im->cluster_size / 8 / im->l2_words * im->cluster_size;

    if (im->dangers && !is_followed(im, l1, size)) {
        return true;
    }
    if (!add(im, l1, size * UINT64_C(8), USE_SINGLE, false)) {
        return bad(im, ": the L1 table");
    }
    for (uint32_t i = 0; i < size; i++) {
        uint64_t e = read64(im, l1 + i * 8);

        if (im->dangers && !is_followed(im, e & OFFSET, 1)) {
            continue;
        }
        if (e & L1_RESERVED && !im->dangers) {
            return bad(im, "L1 entry %#" PRIx64 " has reserved bits", e);
        }
        if ((e & OFFSET) &&
            (!add(im, e & OFFSET, im->cluster_size, USE_L2,
                  active && e & COPIED) ||
             (active && !check_copied(im, "L1 entry", e)) ||
             !walk_l2(im, e & OFFSET, i * coverage, active))) {
            return bad(im, ", by L1 entry %u of the table at %#" PRIx64, i,
                       l1);
        }
    }
    return true;
}

static bool walk_snapshots(Image *im)
{
    uint64_t start = read64(im, 64);
    uint64_t at = start;

    im->result->snapshots = read32(im, 60);
    if (im->dangers) {
        im->result->snapshots = start % im->cluster_size ? 0 :
                                MIN(im->result->snapshots, MAX_SNAPSHOTS);
    }
    for (unsigned i = 0; i < im->result->snapshots; i++) {
        uint32_t lengths = read32(im, at + 12);
        uint64_t end = at + 40 + (uint64_t)read32(im, at + 36) +
                       (lengths >> 16) + (uint16_t)lengths;

        if (im->dangers && (end - start > MAX_SNAPSHOT_TABLE ||
                            at >= im->end)) {
            break;
        }
        if (!walk_l1(im, read64(im, at), read32(im, at + 8), false)) {
            return bad(im, ", of snapshot %u", i);
        }
        at = (end + 7) & ~UINT64_C(7);
    }
    if (im->dangers) {
        at = MIN(at, MAX(start, im->end));
    }
    return add(im, start, at - start, USE_SINGLE, false) ||
           bad(im, ": the snapshot table");
}

/* ---- Header extensions ---- */

static bool walk_bitmap(Image *im, uint64_t entry)
{
    uint64_t table = read64(im, entry);
    uint32_t n = read32(im, entry + 8);

    im->result->bitmaps++;
    if (im->dangers && !is_followed(im, table, n)) {
        return true;
    }
    if (!add(im, table, n * UINT64_C(8), USE_SINGLE, false)) {
        return bad(im, ": the table of bitmap %u", im->result->bitmaps);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t data = read64(im, table + i * UINT64_C(8)) & OFFSET;

        if (data && !add(im, data, im->cluster_size, USE_SINGLE, false)) {
            return bad(im, ": data of bitmap %u", im->result->bitmaps);
        }
    }
    return true;
}

/* @ext: number of bitmaps, size and place of their directory. */
static bool walk_bitmaps(Image *im, uint64_t ext)
{
    uint32_t n = read32(im, ext);
    uint64_t size = read64(im, ext + 8), at = read64(im, ext + 16);
    uint64_t end = at + size;

    if (im->dangers && !is_followed(im, at, size / 8)) {
        return true;
    }
    if (!add(im, at, size, USE_SINGLE, false)) {
        return bad(im, ": the bitmap directory");
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t type_to_name = read32(im, at + 16);

        if (im->dangers && at + 24 > end) {
            return true;
        }
        if (at + 24 > end || !walk_bitmap(im, at)) {
            return bad(im, ", of the bitmap directory's entry %u", i);
        }
        at += 24 + (uint16_t)type_to_name + read32(im, at + 20);
        at = (at + 7) & ~UINT64_C(7);
    }
    return at == end || im->dangers ||
           bad(im, "the bitmap directory is longer");
}

static bool walk_extensions(Image *im)
{
    uint64_t at = im->version >= 3 ? read32(im, 100) : 72;
    bool has_bitmaps = im->version >= 3 &&
                       read64(im, 88) & AUTOCLEAR_BITMAPS;
    bool ok = true;

    while (ok && at + 8 <= im->cluster_size && read32(im, at) != EXT_END) {
        uint32_t type = read32(im, at);

        if (type == EXT_CRYPTO) {
            ok = add(im, read64(im, at + 8), read64(im, at + 16), USE_SINGLE,
                     false);
        } else if (type == EXT_BITMAPS && has_bitmaps) {
            ok = walk_bitmaps(im, at + 8);
        }
        at += 8 + ((read32(im, at + 4) + 7) & ~UINT32_C(7));
    }
    return ok;
}

static bool walk_refcounts(Image *im)
{
    if (!add(im, im->reftable, im->n_reftable * 8, USE_SINGLE, false)) {
        return bad(im, ": the refcount table");
    }
    for (uint64_t i = 0; i < im->n_reftable; i++) {
        uint64_t block = read64(im, im->reftable + i * 8);

        if (im->dangers && !is_block(im, block)) {
            continue;
        }
        if (block && !add(im, block, im->cluster_size, USE_SINGLE, false)) {
            return bad(im, ": refcount block %" PRIu64, i);
        }
    }
    return true;
}

/* ---- */

static bool compare(Image *im)
{
    uint64_t end = DIV_ROUND_UP((uint64_t)mem_image_size(im->img),
                                im->cluster_size);

    for (uint64_t c = 0; c < im->n_clusters; c++) {
        uint32_t refs = im->clusters[c].refs;
        uint64_t n = im->features & INCOMPAT_DIRTY ? refs : refcount(im, c);

        im->result->clusters += refs > 0;
        im->result->leaks += n > refs;
        im->result->leaks_behind += n > refs && c >= end;
        if (n < refs && !in_danger(im, c)) {
            return bad(im, "cluster %" PRIu64 " has refcount %" PRIu64
                       ", but %u references", c, n, refs);
        }
    }
    return true;
}

static bool read_header(Image *im)
{
    im->version = read32(im, 4);
    im->cluster_bits = read32(im, 20);
    if (read32(im, 0) != 0x514649fb || im->version < 2 || im->version > 3 ||
        im->cluster_bits < 9 || im->cluster_bits > 21) {
        return bad(im, "the header is none");
    }
    im->cluster_size = UINT64_C(1) << im->cluster_bits;
    im->features = im->version >= 3 ? read64(im, 72) : 0;
    im->refcount_order = im->version >= 3 ? read32(im, 96) : 4;
    im->l2_words = im->features & INCOMPAT_EXTL2 ? 2 : 1;
    im->reftable = read64(im, 48);
    im->n_reftable = read32(im, 56) * (im->cluster_size / 8);
    im->n_clusters = ((uint64_t)mem_image_size(im->img) >> im->cluster_bits) +
                     BEHIND_END;
    im->result->is_dirty = im->features & INCOMPAT_DIRTY;
    if (im->dangers) {
        im->features &= ~(uint64_t)(INCOMPAT_DIRTY | INCOMPAT_CORRUPT);
    }
    return !(im->features & INCOMPAT_CORRUPT) || bad(im, "the corrupt bit");
}

static bool run(Image *im)
{
    bool ok;

    *im->result = (Qcow2CheckerResult){ 0 };
    im->end = mem_image_size(im->img);
    if (!read_header(im)) {
        return false;
    }
    im->clusters = g_new0(Cluster, im->n_clusters);
    ok = add(im, 0, im->cluster_size, USE_SINGLE, false) &&
         walk_refcounts(im);
    im->end = MIN(im->end, im->old_end);
    ok = ok && walk_snapshots(im) && walk_extensions(im) &&
         walk_l1(im, read64(im, 40), read32(im, 36), true) && compare(im);
    g_free(im->clusters);
    return ok;
}

bool qcow2_checker_run(const MemImage *img, Qcow2CheckerResult *result,
                       GString *why)
{
    Image im = { .img = img, .result = result, .why = why };

    return run(&im);
}

GHashTable *qcow2_checker_dangers(const MemImage *img, int64_t old_end,
                                  GString *why)
{
    Qcow2CheckerResult result;
    Image im = { .img = img, .result = &result, .why = why,
                 .old_end = old_end, .dangers = g_hash_table_new(NULL, NULL) };

    if (!run(&im)) {
        g_clear_pointer(&im.dangers, g_hash_table_destroy);
    }
    return im.dangers;
}
