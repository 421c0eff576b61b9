/*
 * qcow2, whole: what the files of the driver share.
 *
 * Source: "QEMU QCOW Image Format", docs/interop/qcow2 of QEMU (the
 * specification); section names below are its.
 *
 * How the parts fit, and every rule about threads, is in docs/devel/qcow2.md:
 * read that first.  In short:
 *
 *   - Look-ups are lock-free: the L1 table and the cached L2 slices are read
 *     by atomic loads, slices under a sequence count.  A miss takes the lock.
 *   - One lock an image, s->lock, guards all else.  No I/O runs under it: what
 *     needs I/O drops it and takes it again, and says so where it is declared
 *     ("may drop the lock": look again at whatever you knew).
 *   - A request that uses a mapping holds a pin from before the look-up until
 *     its data I/O is done.  A cluster that is freed is neither reused nor
 *     punched before all pins of that time are gone and the tables that no
 *     longer refer to it are durable (qcow2-free.c).
 *   - Tables are written back in one place and one order (qcow2-flush.c).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include "qemu/osdep.h"
#include "block/block-driver.h"
#include "block/lock-order.h"

/* ---- On disk (big-endian) ---- */

#define QCOW2_MAGIC 0x514649fbu             /* "QFI\xfb" */

#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_REFTABLE_SIZE (8 * MiB)
#define QCOW2_MAX_L1_SIZE (32 * MiB)
#define QCOW2_MAX_SNAPSHOTS 65536
#define QCOW2_MAX_BACKING_NAME 1023
#define QCOW2_MAX_BITMAPS 65535

/* "Header": byte offsets of its fields, and its lengths. */
enum {
    QCOW2_V2_HEADER_LENGTH = 72,
    QCOW2_V3_HEADER_LENGTH = 104,           /* the least of version 3 */
    QCOW2_HEADER_LENGTH = 112,              /* what is written */
};

enum {
    QCOW2_INCOMPAT_DIRTY       = 1 << 0,
    QCOW2_INCOMPAT_CORRUPT     = 1 << 1,
    QCOW2_INCOMPAT_DATA_FILE   = 1 << 2,
    QCOW2_INCOMPAT_COMPRESSION = 1 << 3,
    QCOW2_INCOMPAT_EXTL2       = 1 << 4,
    QCOW2_INCOMPAT_MASK        = 0x1f,

    QCOW2_COMPAT_LAZY_REFCOUNTS = 1 << 0,
    QCOW2_COMPAT_MASK           = 1 << 0,

    QCOW2_AUTOCLEAR_BITMAPS       = 1 << 0,
    QCOW2_AUTOCLEAR_DATA_FILE_RAW = 1 << 1,
    QCOW2_AUTOCLEAR_MASK          = 0x3,
};

typedef enum Qcow2CryptMethod {
    QCOW2_CRYPT_NONE,
    QCOW2_CRYPT_AES,
    QCOW2_CRYPT_LUKS,
} Qcow2CryptMethod;

typedef enum Qcow2CompressionType {
    QCOW2_COMPRESSION_ZLIB,
    QCOW2_COMPRESSION_ZSTD,
} Qcow2CompressionType;

/* "Header extensions" */
enum {
    QCOW2_EXT_END            = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792aca,
    QCOW2_EXT_FEATURE_TABLE  = 0x6803f857,
    QCOW2_EXT_BITMAPS        = 0x23852875,
    QCOW2_EXT_CRYPTO         = 0x0537be77,
    QCOW2_EXT_DATA_FILE      = 0x44415441,
};

/* "L1 table entry", "L2 table entry", "Standard Cluster Descriptor" */
#define QCOW2_OFLAG_COPIED      (1ULL << 63)
#define QCOW2_OFLAG_COMPRESSED  (1ULL << 62)
#define QCOW2_OFLAG_ZERO        (1ULL << 0)
#define QCOW2_L1_OFFSET_MASK    0x00fffffffffffe00ULL
#define QCOW2_L2_OFFSET_MASK    0x00fffffffffffe00ULL
#define QCOW2_L1_RESERVED_MASK  0x7f000000000001ffULL
#define QCOW2_L2_STD_RESERVED_MASK 0x3f000000000001feULL
#define QCOW2_REFTABLE_OFFSET_MASK 0xfffffffffffffe00ULL
#define QCOW2_SUBCLUSTERS 32                /* of an extended L2 entry */

/* ---- In memory ---- */

typedef struct Qcow2Cache Qcow2Cache;
typedef struct Qcow2Table Qcow2Table;
typedef struct Qcow2MetadataSet Qcow2MetadataSet;
typedef struct Qcow2Pins Qcow2Pins;
typedef struct Qcow2Frees Qcow2Frees;
typedef struct Qcow2Snapshot Qcow2Snapshot;
typedef struct Qcow2TableCopies Qcow2TableCopies;
typedef struct Qcow2Cleaner Qcow2Cleaner;
typedef struct Qcow2Inflated Qcow2Inflated;
typedef struct Qcow2InflatedCluster Qcow2InflatedCluster;

/* A header extension that we do not know; kept when the header is rewritten. */
typedef struct Qcow2UnknownExtension {
    uint32_t type;
    uint32_t length;
    uint8_t *data;
} Qcow2UnknownExtension;

/*
 * The active L1 table.  Entries are in host byte order and change by atomic
 * stores (release) under the lock; growing publishes a new object and frees the
 * old one once no pin can have seen it.
 */
typedef struct Qcow2L1 {
    int64_t offset;                 /* of the table in the file */
    uint32_t size;                  /* entries */
    uint64_t entries[];
} Qcow2L1;

/* Why a cluster is freed: decides whether the file is told. */
typedef enum Qcow2DiscardType {
    QCOW2_DISCARD_NEVER,
    QCOW2_DISCARD_ALWAYS,
    QCOW2_DISCARD_REQUEST,          /* pass-discard-request */
    QCOW2_DISCARD_SNAPSHOT,         /* pass-discard-snapshot */
    QCOW2_DISCARD_OTHER,            /* pass-discard-other */
    QCOW2_DISCARD_MAX,
} Qcow2DiscardType;

/* "overlap-check": kinds of metadata that a write must not hit. */
typedef enum Qcow2MetadataKind {
    QCOW2_OL_MAIN_HEADER      = 1 << 0,
    QCOW2_OL_ACTIVE_L1        = 1 << 1,
    QCOW2_OL_ACTIVE_L2        = 1 << 2,
    QCOW2_OL_REFCOUNT_BLOCK   = 1 << 3,
    QCOW2_OL_REFCOUNT_TABLE   = 1 << 4,
    QCOW2_OL_SNAPSHOT_TABLE   = 1 << 5,
    QCOW2_OL_INACTIVE_L1      = 1 << 6,
    QCOW2_OL_INACTIVE_L2      = 1 << 7,
    QCOW2_OL_BITMAP_DIRECTORY = 1 << 8,

    /* What an active L2 table may be at the same time. */
    QCOW2_OL_SHARED_L2 = QCOW2_OL_ACTIVE_L2 | QCOW2_OL_INACTIVE_L2,
    QCOW2_OL_CONSTANT = QCOW2_OL_MAIN_HEADER | QCOW2_OL_ACTIVE_L1 |
                        QCOW2_OL_REFCOUNT_TABLE | QCOW2_OL_SNAPSHOT_TABLE |
                        QCOW2_OL_BITMAP_DIRECTORY,
    QCOW2_OL_CACHED   = QCOW2_OL_CONSTANT | QCOW2_OL_ACTIVE_L2 |
                        QCOW2_OL_REFCOUNT_BLOCK | QCOW2_OL_INACTIVE_L1,
    QCOW2_OL_ALL      = QCOW2_OL_CACHED | QCOW2_OL_INACTIVE_L2,
} Qcow2MetadataKind;

/* An allocating write that is under way (qcow2-inflight.c). */
typedef struct Qcow2Inflight {
    int64_t offset, bytes;          /* guest; whole clusters */
    ListNode node;                  /* s->inflight */
    List waiters;                   /* for its end, or that it gets shorter */
} Qcow2Inflight;

typedef struct BDRVQcow2State {
    /* Constant while undrained: geometry … */
    int qcow_version;
    int cluster_bits;
    int64_t cluster_size;
    int subcluster_bits;            /* cluster_bits without extended L2 */
    int64_t subcluster_size;
    int subclusters_per_cluster;    /* 1 or 32 */
    int l2_entry_words;             /* 1; 2 with extended L2 entries */
    int l2_bits;                    /* log2 of entries a table */
    int l2_slice_bits;              /* log2 of entries a slice */
    int refcount_order;
    int refcount_bits;
    int refcount_block_bits;        /* log2 of refcounts a block */
    uint64_t refcount_max;
    int csize_shift;                /* "Compressed Clusters Descriptor" */
    uint64_t csize_mask;
    uint64_t cluster_offset_mask;
    Qcow2CompressionType compression_type;
    Qcow2CryptMethod crypt_method;
    struct QCryptoBlock *crypto;    /* NULL: not encrypted */
    bool has_key;                   /* … and data can be read and written */
    int64_t crypto_header_offset, crypto_header_length;
    BdrvChild *data_file;           /* == bs->file without an external one */
    bool has_data_file;             /* an external one (opened or not) … */
    bool data_file_raw;             /* … that is the disk as a raw image */
    char *image_data_file;          /* its name in the header; may be NULL */
    char *image_backing_file, *image_backing_format;   /* as in the header */
    bool writable;                  /* opened so: tables may change */
    bool refcounts_suspect;         /* dirty when it was opened, and not yet
                                     * repaired: the dirty bit has to stay */
    int64_t disk_size;              /* virtual, bytes; whole sectors */

    /* … and options. */
    bool use_lazy_refcounts;
    int overlap_check;              /* Qcow2MetadataKind */
    bool discard_passthrough[QCOW2_DISCARD_MAX];
    bool discard_no_unref;
    uint64_t cache_clean_interval_s;
    Qcow2Cleaner *cleaner;          /* NULL: no interval (qcow2-clean.c) */

    /* Read by anyone, lock-free; see the files named. */
    Qcow2L1 *l1;                    /* atomic pointer: qcow2-l2.c */
    Qcow2Cache *l2_cache;           /* slices: qcow2-cache.c */
    Qcow2MetadataSet *metadata;     /* qcow2-overlap.c */
    Qcow2Pins *pins;                /* qcow2-pin.c */
    Qcow2Inflated *inflated;        /* qcow2-inflated.c: a lock of its own */
    bool metadata_dirty;            /* atomic: a flush has tables to write */
    bool corrupt;                   /* atomic: writes fail with -EIO */
    bool corruption_reported;       /* atomic: one that is not fatal */
    int data_file_sparse;           /* atomic; 0: not known yet, -1: no */
    /* Of block status: how much was looked up last, and where that ended. */
    uint32_t recurse_clusters;      /* atomic */
    int64_t recursed_to;            /* atomic */

    DriverLock lock;

    /* Header (qcow2-header.c). */
    uint64_t incompatible_features GUARDED_BY(driver_class);
    uint64_t compatible_features GUARDED_BY(driver_class);
    uint64_t autoclear_features GUARDED_BY(driver_class);
    uint32_t header_length GUARDED_BY(driver_class);
    uint8_t *unknown_header_fields GUARDED_BY(driver_class);
    GPtrArray *unknown_extensions GUARDED_BY(driver_class);
    bool header_busy GUARDED_BY(driver_class);
    bool features_unknown GUARDED_BY(driver_class); /* incompatible ones: what
                                                     * the disk has */

    /* Refcounts and allocation (qcow2-refcount.c, qcow2-alloc.c). */
    int64_t reftable_offset GUARDED_BY(driver_class);
    uint32_t reftable_size GUARDED_BY(driver_class);        /* entries */
    uint64_t *reftable GUARDED_BY(driver_class);            /* host order */
    uint8_t *reftable_dirty GUARDED_BY(driver_class);       /* a bit a sector */
    bool reftable_busy GUARDED_BY(driver_class);            /* being grown */
    Qcow2Cache *refcount_cache GUARDED_BY(driver_class);    /* whole blocks */
    int64_t free_cluster_index GUARDED_BY(driver_class);
    int64_t free_run_index GUARDED_BY(driver_class);
    uint64_t freed_count GUARDED_BY(driver_class);          /* wraps */
    uint64_t high_cluster GUARDED_BY(driver_class);  /* never used from here;
                                                      * 0: not yet known */
    int64_t data_end GUARDED_BY(driver_class);  /* of clusters with data that
                                                 * we have allocated */
    int64_t free_byte_offset GUARDED_BY(driver_class);      /* compressed */

    /* The active L1 table (qcow2-l2.c). */
    uint64_t *l1_dirty GUARDED_BY(driver_class);            /* a bit a sector */
    bool l2_alloc_busy GUARDED_BY(driver_class);  /* a new L2 table is made */
    bool l2_shared GUARDED_BY(driver_class);    /* two entries may refer to one
                                                 * table */

    /* Requests that change tables (qcow2-inflight.c). */
    List inflight GUARDED_BY(driver_class);
    /* Clusters that are set aside (qcow2-place.c). */
    List places GUARDED_BY(driver_class);
    Qcow2Frees *frees GUARDED_BY(driver_class);             /* qcow2-free.c */

    /* Write-back (qcow2-flush.c): one flush at a time, for all who wait. */
    uint64_t flush_number GUARDED_BY(driver_class);     /* begun last */
    bool flush_running GUARDED_BY(driver_class);
    List flush_waiters GUARDED_BY(driver_class);

    /* Whatever a thread may wait for, it waits for here, with a predicate (but
     * for what is in flight). */
    QemuCond cond;

    /* Refcounts of clusters in use were changed, and flags not yet after them:
     * qcow2_update_copied_flags() is due before the dirty bit goes. */
    bool copied_stale GUARDED_BY(driver_class);

    /* Snapshots, bitmaps: change only while drained. */
    int64_t snapshots_offset, snapshots_size;
    uint32_t nb_snapshots;
    bool snapshots_cut_off;         /* the table ends behind the file */
    bool shows_snapshot;            /* l1 and disk_size are those of one: the
                                     * image must not become writable */
    Qcow2Snapshot *snapshots;
    uint32_t nb_bitmaps;
    uint64_t bitmap_directory_offset, bitmap_directory_size;
} BDRVQcow2State;

/* Does the data file alone hold what the guest sees?  Not if it is encrypted:
 * zeroes there are noise to the guest. */
static inline bool qcow2_file_is_disk(const BDRVQcow2State *s)
{
    return s->data_file_raw && s->crypt_method == QCOW2_CRYPT_NONE;
}

/* ---- qcow2-pin.c: requests that use mappings ---- */

/*
 * Pin: from now on nothing that the caller looks up is reused or punched, until
 * the pin is dropped.  Lock-free, cheap, any thread; nests.  The returned word
 * is for unpin, which any thread may call; never 0.  What is freed while a pin
 * is held waits for it, so a holder must not wait for a flush or for space.
 */
uintptr_t qcow2_pin(BDRVQcow2State *s);
void qcow2_unpin(BDRVQcow2State *s, uintptr_t pin);
/* The same for the word as a pointer, by who does not know the state. */
void qcow2_unpin_request_pin(void *pin);

/*
 * Has every pin that existed when @grace was started been dropped?  Start it
 * after the table changed.  Never blocks; under the lock; once true it stays
 * so.
 */
#define QCOW2_PIN_SHARDS 16
typedef struct Qcow2Grace {
    uint16_t waiting[2];            /* a bit a shard: not seen at zero yet */
} Qcow2Grace;
void qcow2_grace_start(BDRVQcow2State *s, Qcow2Grace *grace);
bool qcow2_grace_over(BDRVQcow2State *s, Qcow2Grace *grace)
    REQUIRES(driver_class);
/* NULL: no memory. */
Qcow2Pins *qcow2_pins_new(void);
void qcow2_pins_free(Qcow2Pins *pins);

/* ---- qcow2-cache.c: tables in memory ---- */

/* @n_tables (at least 1) of @table_size bytes.  NULL: no memory. */
Qcow2Cache *qcow2_cache_new(size_t table_size, unsigned n_tables);
/* Nothing in it may be dirty unless the image is given up. */
void qcow2_cache_free(Qcow2Cache *c);

/*
 * Lock-free: copy @n words (host byte order) of the table at @offset from word
 * @index on, as they were at one moment.  False: not cached (or being changed
 * too often).
 */
bool qcow2_cache_peek(Qcow2Cache *c, int64_t offset, unsigned index,
                      unsigned n, uint64_t *words);

/* Words in host order.  Set marks the table dirty. */
uint64_t qcow2_table_get64(const Qcow2Table *t, unsigned index)
    REQUIRES(driver_class);
void qcow2_table_set64(BDRVQcow2State *s, Qcow2Table *t, unsigned index,
                       uint64_t value) REQUIRES(driver_class);
/* Two words at once, for extended L2 entries: no reader sees one without the
 * other. */
void qcow2_table_set_pair(BDRVQcow2State *s, Qcow2Table *t, unsigned index,
                          uint64_t first, uint64_t second)
    REQUIRES(driver_class);
/* The bytes as on disk, for refcount blocks: change them, then mark dirty. */
uint8_t *qcow2_table_bytes(Qcow2Table *t) REQUIRES(driver_class);
void qcow2_table_mark_dirty(BDRVQcow2State *s, Qcow2Table *t)
    REQUIRES(driver_class);

/* ---- qcow2-cache-load.c ---- */

/*
 * The table at @offset, read from the file if need be: may drop the lock.  *t
 * is valid only while the lock is held on; nobody holds two tables.  get_empty:
 * a new one, zeroed and dirty, for an area that was just allocated; what the
 * file holds there does not matter.  0 or -errno.
 */
int qcow2_cache_get(BlockDriverState *bs, Qcow2Cache *c, int64_t offset,
                    Qcow2Table **t) REQUIRES(driver_class);
int qcow2_cache_get_empty(BlockDriverState *bs, Qcow2Cache *c, int64_t offset,
                          Qcow2Table **t) REQUIRES(driver_class);

/* ---- qcow2-cache-slots.c ---- */

/* Forget what is cached of an area that is freed or rewritten behind the
 * cache, dirty or not. */
void qcow2_cache_forget(Qcow2Cache *c, int64_t offset, int64_t bytes)
    REQUIRES(driver_class);
/* Drop clean tables that were not used since the last call. */
void qcow2_cache_clean_unused(Qcow2Cache *c) REQUIRES(driver_class);

/* ---- qcow2-cache-write.c ---- */

bool qcow2_cache_is_dirty(Qcow2Cache *c) REQUIRES(driver_class);
/*
 * Write-back in two halves, because a table must reach the disk as it was
 * before something else was synced.  _copy_dirty copies all that is dirty at
 * one moment; it may drop the lock before that moment, not after it.
 * _write_copies writes the copies (drops the lock) and frees them; what failed
 * is dirty again.  Between the two the tables may change, which makes them
 * dirty anew, but do not leave the cache.  *copies is NULL if nothing was
 * dirty.  Only qcow2-flush.c calls these, one flush at a time; every successful
 * _copy_dirty wants a _write_copies or a _drop_copies (nothing is written, all
 * is dirty again).  0 or -errno.
 */
int qcow2_cache_copy_dirty(BlockDriverState *bs, Qcow2Cache *c,
                           Qcow2TableCopies **copies) REQUIRES(driver_class);
int qcow2_cache_write_copies(BlockDriverState *bs, Qcow2Cache *c,
                             Qcow2TableCopies *copies) REQUIRES(driver_class);
void qcow2_cache_drop_copies(Qcow2Cache *c, Qcow2TableCopies *copies)
    REQUIRES(driver_class);
/* Both at once, for what may be newer than planned (refcounts). */
int qcow2_cache_write_back(BlockDriverState *bs, Qcow2Cache *c)
    REQUIRES(driver_class);

/* ---- qcow2-l2.c: from guest offsets to host clusters ---- */

typedef enum Qcow2ExtentType {
    QCOW2_EXTENT_UNALLOCATED,       /* reads from the backing file, or zero */
    QCOW2_EXTENT_ZERO_PLAIN,        /* reads as zeroes, no cluster */
    QCOW2_EXTENT_ZERO_ALLOC,        /* reads as zeroes, has a cluster */
    QCOW2_EXTENT_UNALLOCATED_ALLOC, /* subclusters not allocated, but with
                                     * a cluster for them */
    QCOW2_EXTENT_NORMAL,
    QCOW2_EXTENT_COMPRESSED,        /* one cluster at a time */
} Qcow2ExtentType;

/* A run of one type that is contiguous on the host. */
typedef struct Qcow2Extent {
    Qcow2ExtentType type;
    int64_t bytes;                  /* from the offset asked for; > 0 */
    int64_t host_offset;            /* NORMAL, …_ALLOC: of that offset, in
                                     * the data file */
    uint64_t l2_entry;              /* COMPRESSED: the descriptor */
    bool copied;                    /* refcount 1: may be written in place */
} Qcow2Extent;

/*
 * Look up the run at @offset, at most @bytes, within the disk.  _nowait: any
 * thread, lock-free, no I/O; the caller holds a pin for as long as it uses what
 * it got; -EAGAIN if a table is missing, -EIO for an entry that is invalid.
 *
 * The other loads tables; takes the lock for that, so do not hold it, nor a
 * pin.  On success *pin is one that protects what was found; the caller drops
 * it.  -EIO also marks the image corrupt, if that can be.
 */
int qcow2_map_nowait(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     Qcow2Extent *extent);
int qcow2_map(BlockDriverState *bs, int64_t offset, int64_t bytes,
              Qcow2Extent *extent, uintptr_t *pin) EXCLUDES(driver_class);
/* The same for the words of one L2 entry: what it says of subcluster @sc.
 * -EIO: it breaks the specification. */
int qcow2_entry_type(const BDRVQcow2State *s, uint64_t l2_entry,
                     uint64_t l2_bitmap, unsigned sc, Qcow2ExtentType *type);

/* "Compressed Clusters Descriptor": where its bytes are, how many may be. */
void qcow2_parse_compressed(const BDRVQcow2State *s, uint64_t l2_entry,
                            int64_t *host_offset, int *bytes);

/*
 * The slice that maps @offset, to be changed: the L2 table is allocated, or
 * copied if it is shared.  *index is that of the entry in the slice (words:
 * times l2_entry_words).  May drop the lock; *t as from qcow2_cache_get().
 */
int qcow2_l2_get_for_write(BlockDriverState *bs, int64_t offset,
                           Qcow2Table **t, unsigned *index)
    REQUIRES(driver_class);
/* The slice for reading, *t NULL if there is no table.  May drop the lock. */
int qcow2_l2_get(BlockDriverState *bs, int64_t offset, Qcow2Table **t,
                 unsigned *index) REQUIRES(driver_class);
int64_t qcow2_l1_coverage(const BDRVQcow2State *s);   /* bytes an L1 entry */
/* Where the state of a machine begins: behind all that the disk can have. */
static inline int64_t qcow2_vm_state_offset(const BDRVQcow2State *s)
{
    return ROUND_UP(s->disk_size, qcow2_l1_coverage(s));
}
/* Make room for @entries: a new table on disk, the header changed.  Control
 * thread, drained.  May drop. */
int qcow2_grow_l1(BlockDriverState *bs, uint32_t entries)
    REQUIRES(driver_class);
/* Make @l1, which is on the disk, the active table, in memory and in the
 * header.  The old one is the caller's to free; on failure @l1 is, and which of
 * the two the header names is not known.  Drained; nothing is dirty.  May
 * drop. */
int qcow2_l1_switch(BlockDriverState *bs, Qcow2L1 *l1)
    REQUIRES(driver_class);
void qcow2_l1_set(BDRVQcow2State *s, unsigned index, uint64_t entry)
    REQUIRES(driver_class);
/* The table at @offset has one reference less from the active L1 table: if that
 * was the last, it is an active table no more. */
void qcow2_l2_unlist(BDRVQcow2State *s, int64_t offset) REQUIRES(driver_class);
/* Write-back of what qcow2_l1_set() changed; as those of caches. */
bool qcow2_l1_is_dirty(BDRVQcow2State *s) REQUIRES(driver_class);
int qcow2_l1_copy_dirty(BlockDriverState *bs, Qcow2TableCopies **copies)
    REQUIRES(driver_class);
int qcow2_l1_write_copies(BlockDriverState *bs, Qcow2TableCopies *copies)
    REQUIRES(driver_class);
void qcow2_l1_drop_copies(BDRVQcow2State *s, Qcow2TableCopies *copies)
    REQUIRES(driver_class);

/* ---- qcow2-refcount.c, qcow2-alloc.c ---- */

int qcow2_get_refcount(BlockDriverState *bs, int64_t cluster_index,
                       uint64_t *refcount) REQUIRES(driver_class);
/* Add @delta to the refcounts of the clusters that @offset, @bytes touch; all
 * or nothing.  -EIO (and corrupt) below 0, -EINVAL above the maximum.  May
 * drop the lock.  A cluster that reaches 0 can be allocated at once: freeing
 * goes through qcow2_free_later(), not here. */
int qcow2_update_refcount(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          int64_t delta) REQUIRES(driver_class);
/* Contiguous clusters, refcount 1, in the image file; the offset, or -errno.
 * May drop the lock. */
int64_t qcow2_alloc_clusters(BlockDriverState *bs, int64_t bytes)
    REQUIRES(driver_class);
/* As many clusters as are free from @offset on, up to @bytes; the bytes got. */
int64_t qcow2_alloc_clusters_at(BlockDriverState *bs, int64_t offset,
                                int64_t bytes) REQUIRES(driver_class);
/* @bytes < cluster_size for compressed data, packed with other such. */
int64_t qcow2_alloc_bytes(BlockDriverState *bs, int bytes)
    REQUIRES(driver_class);
/* "refcount block entry" n of a block as on disk. */
uint64_t qcow2_refcount_read(const uint8_t *block, int order, uint64_t index);
void qcow2_refcount_write(uint8_t *block, int order, uint64_t index,
                          uint64_t value);
/* Drop references and the cluster's contents once that is safe; does not
 * block, cannot fail.  @bytes of any length: whole clusters that they touch. */
void qcow2_free_later(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      Qcow2DiscardType type) REQUIRES(driver_class);
/* What an L2 entry refers to, by type. */
void qcow2_free_entry_later(BlockDriverState *bs, uint64_t l2_entry,
                            Qcow2DiscardType type) REQUIRES(driver_class);
/* Do all that can be done of the frees that are safe now.  With nothing pinned
 * and all flushed: all.  May drop the lock. */
int qcow2_process_frees(BlockDriverState *bs) REQUIRES(driver_class);

/* ---- qcow2-flush.c ---- */

/* Every table change made before is durable when this returns 0.  Joins a
 * flush under way, or runs one for all who wait.  May drop the lock. */
int qcow2_flush_metadata(BlockDriverState *bs) REQUIRES(driver_class);
/* Write the tables in their order, without a last flush of the file: what
 * eviction needs. May drop the lock. */
int qcow2_write_back_metadata(BlockDriverState *bs) REQUIRES(driver_class);
/* At the end, drained: everything is written and freed, and the dirty bit is
 * cleared.  May drop the lock. */
int qcow2_settle(BlockDriverState *bs) REQUIRES(driver_class);
/* Before the state goes away, settled or not. */
void qcow2_frees_destroy(BDRVQcow2State *s) REQUIRES(driver_class);

/* ---- qcow2-place.c ---- */

/* Free, later, what is set aside for qcow2_place()'s callers. */
void qcow2_places_drop(BlockDriverState *bs) REQUIRES(driver_class);

/* ---- qcow2-tables.c: at open and close, control thread ---- */

/* Caches of so many tables, pins, an empty set of metadata clusters.  _free
 * also frees what was made before a failure. */
bool qcow2_make_caches(BlockDriverState *bs, size_t l2_slice_size,
                       unsigned l2_tables, unsigned refcount_tables,
                       Error **errp) EXCLUDES(driver_class);
void qcow2_free_caches(BlockDriverState *bs) EXCLUDES(driver_class);
/* Fill the set in, anew, from the L1 and refcount tables: for writing. */
bool qcow2_list_metadata(BlockDriverState *bs, Error **errp)
    EXCLUDES(driver_class);

/* ---- qcow2-snapshot-refs.c ---- */

/* Make all COPIED flags of the active tables say whether the refcount is 1.
 * Control thread, drained.  May drop the lock. */
int qcow2_update_copied_flags(BlockDriverState *bs) REQUIRES(driver_class);

/* ---- qcow2-clean.c ---- */

/* From now on drop what the caches do not need, every
 * s->cache_clean_interval_s seconds, if that is not 0; or not any more (waits
 * for what is being done).  Control thread; either may be called twice. */
void qcow2_clean_start(BDRVQcow2State *s) EXCLUDES(driver_class);
void qcow2_clean_stop(BDRVQcow2State *s) EXCLUDES(driver_class);

/* ---- qcow2-header.c ---- */

/* Rewrite the first cluster from the state, durably; on failure it is what it
 * was, or nothing can be written any more.  May drop the lock. */
int qcow2_update_header(BlockDriverState *bs) REQUIRES(driver_class);
/* Set or clear the dirty bit, durably.  clean: flushes first. May drop. */
int qcow2_mark_dirty(BlockDriverState *bs) REQUIRES(driver_class);
int qcow2_mark_clean(BlockDriverState *bs) REQUIRES(driver_class);
int qcow2_mark_corrupt(BlockDriverState *bs) REQUIRES(driver_class);
int qcow2_mark_consistent(BlockDriverState *bs) REQUIRES(driver_class);

/* ---- qcow2-overlap.c ---- */

/* NULL: no memory. */
Qcow2MetadataSet *qcow2_metadata_new(void);
void qcow2_metadata_free(Qcow2MetadataSet *set);
/* At open: add the header, the L1 and refcount tables and all that they refer
 * to, the snapshot table and the bitmap directory, from the state.  Inactive
 * tables are added by who loads snapshots.  0 or -ENOMEM. */
int qcow2_metadata_add_active(BDRVQcow2State *s) REQUIRES(driver_class);
int qcow2_metadata_add(BDRVQcow2State *s, int64_t offset, int64_t bytes,
                       Qcow2MetadataKind kind) REQUIRES(driver_class);
/* No tables of @kinds are there any more; others, which only an image that lies
 * has in the same place, and the header stay. */
void qcow2_metadata_remove(BDRVQcow2State *s, int64_t offset, int64_t bytes,
                           int kinds) REQUIRES(driver_class);
/* Lock-free: the kinds, of those in @kinds, that the range of the image file
 * hits. */
int qcow2_metadata_overlap(BDRVQcow2State *s, int kinds, int64_t offset,
                           int64_t bytes);
/*
 * Before a write to the image file: -EIO, and the image is marked corrupt, if
 * it would hit metadata of kinds that "overlap-check" names, but for those in
 * @own.  Any thread; may do I/O (only if it is bad news); the _locked one may
 * drop the lock then.
 */
int qcow2_check_overlap(BlockDriverState *bs, int own, int64_t offset,
                        int64_t bytes) EXCLUDES(driver_class);
int qcow2_check_overlap_locked(BlockDriverState *bs, int own, int64_t offset,
                               int64_t bytes) REQUIRES(driver_class);
/* Any thread.  Says so once, sets the corrupt bit if @fatal and possible; from
 * then on writes fail with -EIO.  Do not hold the lock; the _locked one may
 * drop it. */
void qcow2_signal_corruption(BlockDriverState *bs, bool fatal, int64_t offset,
                             int64_t bytes, const char *fmt, ...)
    G_GNUC_PRINTF(5, 6) EXCLUDES(driver_class);
void qcow2_signal_corruption_locked(BlockDriverState *bs, bool fatal,
                                    int64_t offset, int64_t bytes,
                                    const char *fmt, ...)
    G_GNUC_PRINTF(5, 6) REQUIRES(driver_class);

/* ---- qcow2-in-use.c ---- */

/* The kinds of metadata in the range of the image file, by the tables that are
 * in force now: exact, but for L2 tables of snapshots.  Takes its time. */
int qcow2_kinds_in_use(BDRVQcow2State *s, int64_t offset, int64_t bytes)
    REQUIRES(driver_class);
/*
 * Two entries of the active L1 table may refer to one L2 table, as those of a
 * disk and its snapshot do: if its refcount says so.  If not, a write would
 * show in two places, and the image is marked as corrupt.  At open, when it is
 * writable and the set is filled.  False: no memory.
 */
bool qcow2_check_shared_l2(BlockDriverState *bs, Error **errp);

/* ---- qcow2-check.c, qcow2-repair.c: control thread, drained ---- */

/* BlockDriver.check: counts and repairs; text about it goes to stderr. */
int qcow2_check(BlockDriverState *bs, BdrvCheckResult *res, BdrvCheckMode fix);
/* An image becomes writable that was not closed properly: repair all.  0, or
 * -errno with @errp if something is left to be repaired. */
int qcow2_repair_dirty(BlockDriverState *bs, Error **errp);

/* ---- qcow2-crypto.c ---- */

/* At open, after the header was read: the key, by @encrypt (what is left of
 * that option; may be NULL), unless @flags have BDRV_O_NO_IO.  Nothing to do if
 * the image is not encrypted.  Control thread; blocks. */
bool qcow2_open_crypto(BlockDriverState *bs, json_t *encrypt, int flags,
                       Error **errp) EXCLUDES(driver_class);
void qcow2_close_crypto(BDRVQcow2State *s);
/* Whole sectors in place, at @guest of the disk, @host of the file with the
 * data.  Any thread.  0; -EACCES: there is no key. */
int qcow2_encrypt(const BDRVQcow2State *s, int64_t guest, int64_t host,
                  void *buf, size_t bytes);
int qcow2_decrypt(const BDRVQcow2State *s, int64_t guest, int64_t host,
                  void *buf, size_t bytes);
/*
 * Change the key slots as those of @options (flat) say that begin with
 * "encrypt.", which are taken.  Without any, nothing is done.  Durable when it
 * returns.  Control thread, drained.
 */
bool qcow2_amend_crypto(BlockDriverState *bs, json_t *options, bool force,
                        Error **errp) EXCLUDES(driver_class);

/* ---- qcow2-compress.c ---- */

/* @dest of cluster_size bytes; exactly that much must come out.  0, -EIO. */
int qcow2_decompress(const BDRVQcow2State *s, void *dest, const void *src,
                     size_t src_size);
/* Bytes written to @dest (less than cluster_size), -ENOSPC: does not shrink. */
ssize_t qcow2_compress(const BDRVQcow2State *s, void *dest, size_t dest_size,
                       const void *src);

/* ---- qcow2-inflated.c: compressed clusters that were read in part ---- */

Qcow2Inflated *qcow2_inflated_new(int64_t cluster_size);
/* Nobody uses any. */
void qcow2_inflated_free(Qcow2Inflated *c);
/*
 * The cluster of the descriptor, which the caller looked up under a pin that it
 * holds until _put.  0 and an entry: either its data is there; or *fill, and
 * the caller fills it, and then must say so.  May wait for who fills it.  Or
 * -errno.
 */
int qcow2_inflated_get(BDRVQcow2State *s, uint64_t l2_entry,
                       Qcow2InflatedCluster **entry, bool *fill)
    EXCLUDES(leaf_class);
/* The same where one must not wait: true if there is data. */
bool qcow2_inflated_peek(BDRVQcow2State *s, uint64_t l2_entry,
                         Qcow2InflatedCluster **entry) EXCLUDES(leaf_class);
/* Of cluster_size bytes. */
uint8_t *qcow2_inflated_data(Qcow2InflatedCluster *e);
/* 0; or -errno: there is no data, and those who wait get this, too. */
void qcow2_inflated_filled(BDRVQcow2State *s, Qcow2InflatedCluster *e, int ret)
    EXCLUDES(leaf_class);
void qcow2_inflated_put(BDRVQcow2State *s, Qcow2InflatedCluster *e)
    EXCLUDES(leaf_class);
/* The area of the file may become something else: no pin is left of those under
 * which what is there was read. */
void qcow2_inflated_forget(BDRVQcow2State *s, int64_t offset, int64_t bytes)
    EXCLUDES(leaf_class);

/* ---- qcow2-shorten.c: drained; may drop the lock ---- */

/* Cut off what is behind the last cluster in use, and refcount blocks that
 * count nothing.  0 or -errno, which does no harm. */
int qcow2_shorten_file(BlockDriverState *bs) REQUIRES(driver_class);
/* Make the file as long as the clusters with data that were allocated, the last
 * of which may not be written to its end.  Others take the file's length at its
 * word.  What fails is said; it does no harm. */
void qcow2_complete_file(BlockDriverState *bs) REQUIRES(driver_class);

/* ---- Entry points of the table in qcow2.c ---- */

int qcow2_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset, int flags);
int qcow2_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                  QEMUIOVector *qiov, size_t qiov_offset, int flags);
ssize_t qcow2_compress_cluster(BlockDriverState *bs, void *dest,
                               const void *src);
int qcow2_place(BlockDriverState *bs, int64_t offset, int64_t bytes);
int qcow2_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        int flags);
int qcow2_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int qcow2_flush(BlockDriverState *bs);
int qcow2_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                       int64_t bytes, int64_t *pnum, int64_t *map,
                       BlockDriverState **file);
BdrvMapResult qcow2_map_request(BlockDriverState *bs, BdrvTrackedRequest *req,
                                BdrvMapping *mapping);
int qcow2_save_vmstate(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov);
int qcow2_load_vmstate(BlockDriverState *bs, int64_t pos, QEMUIOVector *qiov);
bool qcow2_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                    PreallocMode prealloc, int flags, Error **errp);
extern const BlockCreateParam qcow2_blockdev_create_params[];
bool qcow2_blockdev_create(BlockGraph *graph, json_t *options, Error **errp);
bool qcow2_create(BlockGraph *graph, const char *filename, json_t *options,
                  Error **errp);
json_t *qcow2_measure(json_t *options, BlockDriverState *in_bs, Error **errp);
json_t *qcow2_get_specific_info(BlockDriverState *bs, Error **errp);

#endif
