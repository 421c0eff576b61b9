/*
 * qcow2 check: count what L1 and L2 tables refer to.
 *
 * In two steps, so that several threads can work and what is said comes in the
 * order of the tables all the same.  First threads read the L2 tables; a table
 * in which every entry is in order is counted at once, runs of contiguous
 * clusters as a whole.  Any other table is left alone and only marked.  Then
 * this thread goes through the marked ones in their order, and counts and says
 * what is wrong entry by entry.
 *
 * "In order" depends on the entry alone, except that a count may exceed what a
 * refcount can hold, which has to be said where it happens.  That is noticed
 * after the first step: its counts are taken back, and every table is marked.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-check.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/error.h"

/* How much is read at once, where tables are neighbours. */
#define READ_BYTES (512 * KiB)
/* L1 entries that a thread takes at a time. */
#define BATCH 32

typedef struct Stats {
    int64_t allocated, fragmented, compressed;
} Stats;

typedef struct Walk {
    Qcow2Check *chk;
    const uint64_t *l1;
    uint32_t n;
    bool active;
    bool take_back;
    uint8_t *odd;                   /* of each L1 entry; one thread each */
    Qcow2TableRun *runs;            /* the same; or NULL */
    uint32_t next;                  /* atomic: the batch to take */
    bool no_memory;                 /* atomic */
    Stats stats[QCOW2_CHECK_MAX_THREADS];
} Walk;

static int64_t n_entries(const BDRVQcow2State *s)
{
    return INT64_C(1) << s->l2_bits;
}

/* In an external data file 0 is an offset as good as others. */
static bool has_cluster(const BDRVQcow2State *s, uint64_t entry)
{
    return (entry & QCOW2_L2_OFFSET_MASK) ||
           (s->has_data_file && (entry & QCOW2_OFLAG_COPIED));
}

static bool is_aligned(const BDRVQcow2State *s, uint64_t offset)
{
    return (offset & (s->cluster_size - 1)) == 0;
}

/* ---- Statistics ---- */

/* @next: where the next cluster is if it is contiguous; 0: not known. */
static void note_cluster(const BDRVQcow2State *s, Stats *st, uint64_t *next,
                         uint64_t offset)
{
    st->allocated++;
    st->fragmented += *next && *next != offset;
    *next = offset + s->cluster_size;
}

static void note_compressed(Stats *st)
{
    st->allocated++;
    st->compressed++;
    st->fragmented++;
}

/* ---- In threads: tables that are in order ---- */

static bool is_simple_compressed(const Qcow2Check *chk, uint64_t entry,
                                 uint64_t bitmap)
{
    int64_t offset;
    int bytes;

    if ((entry & QCOW2_OFLAG_COPIED) || bitmap || chk->s->has_data_file) {
        return false;
    }
    qcow2_parse_compressed(chk->s, entry, &offset, &bytes);
    return offset + bytes <= chk->n_clusters << chk->s->cluster_bits;
}

static bool is_simple_entry(const Qcow2Check *chk, const uint64_t *words)
{
    const BDRVQcow2State *s = chk->s;
    uint64_t entry = GUINT64_FROM_BE(words[0]);
    uint64_t bitmap = s->l2_entry_words == 2 ? GUINT64_FROM_BE(words[1]) : 0;
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;

    if (entry & QCOW2_OFLAG_COMPRESSED) {
        return is_simple_compressed(chk, entry, bitmap);
    }
    if ((entry & QCOW2_L2_STD_RESERVED_MASK) || !is_aligned(s, offset) ||
        (bitmap >> 32 & bitmap & UINT32_MAX)) {
        return false;
    }
    return has_cluster(s, entry) ?
           s->has_data_file ||
           qcow2_check_inside(chk, offset, s->cluster_size) :
           (uint32_t)bitmap == 0;
}

/* The common case, eight entries or more at a time. */
static bool are_plain(const Qcow2Check *chk, const uint64_t *words, size_t n)
{
    const BDRVQcow2State *s = chk->s;
    uint64_t reserved = QCOW2_OFLAG_COMPRESSED | QCOW2_L2_STD_RESERVED_MASK |
                        ((s->cluster_size - 1) & QCOW2_L2_OFFSET_MASK);
    uint64_t limit = (uint64_t)MAX(0, chk->file_bytes - s->cluster_size);
    uint64_t bad = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t entry = GUINT64_FROM_BE(words[i]);

        bad |= (entry & reserved) |
               ((entry & QCOW2_L2_OFFSET_MASK) > limit);
    }
    return bad == 0;
}

static bool is_simple_table(const Qcow2Check *chk, const uint64_t *words)
{
    const BDRVQcow2State *s = chk->s;
    int64_t n = n_entries(s) * s->l2_entry_words;

    if (s->l2_entry_words == 1 && are_plain(chk, words, n)) {
        return true;
    }
    for (int64_t i = 0; i < n; i += s->l2_entry_words) {
        if (!is_simple_entry(chk, words + i)) {
            return false;
        }
    }
    return true;
}

static void add_refs(Walk *w, int64_t first, int64_t n)
{
    uint32_t times = MAX(w->chk->users, 1);

    if (!w->take_back) {
        qcow2_refs_add_times(w->chk->refs, first, n, times);
        return;
    }
    for (int64_t c = first; c < first + n; c++) {
        qcow2_refs_set(w->chk->refs, c,
                       qcow2_refs_get(w->chk->refs, c) - times);
    }
}

static void count_simple_compressed(Walk *w, uint64_t entry, Stats *st)
{
    const BDRVQcow2State *s = w->chk->s;
    int64_t offset, first;
    int bytes;

    qcow2_parse_compressed(s, entry, &offset, &bytes);
    first = offset >> s->cluster_bits;
    add_refs(w, first, ((offset + bytes - 1) >> s->cluster_bits) - first + 1);
    note_compressed(st);
}

typedef struct Run {
    uint64_t first, n;              /* clusters */
} Run;

static void end_run(Walk *w, Run *run)
{
    if (run->n) {
        add_refs(w, run->first, run->n);
        run->n = 0;
    }
}

static void count_simple_table(Walk *w, const uint64_t *words, Stats *st)
{
    const BDRVQcow2State *s = w->chk->s;
    int64_t n = n_entries(s) * s->l2_entry_words;
    uint64_t next = 0;
    Run run = { 0 };

    for (int64_t i = 0; i < n; i += s->l2_entry_words) {
        uint64_t entry = GUINT64_FROM_BE(words[i]);
        uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
        uint64_t cluster = offset >> s->cluster_bits;

        if (entry & QCOW2_OFLAG_COMPRESSED) {
            count_simple_compressed(w, entry, st);
            continue;
        }
        if (!has_cluster(s, entry)) {
            continue;
        }
        note_cluster(s, st, &next, offset);
        if (s->has_data_file) {
            continue;
        }
        if (!run.n || run.first + run.n != cluster) {
            end_run(w, &run);
            run.first = cluster;
        }
        run.n++;
    }
    end_run(w, &run);
}

/* All entries go on as the first one does.  If the first and the last are
 * simple, so are those between. */
static bool is_run(const Qcow2Check *chk, const uint64_t *words)
{
    const BDRVQcow2State *s = chk->s;
    uint64_t next = GUINT64_FROM_BE(words[0]);
    int64_t n = n_entries(s), i;

    if (s->l2_entry_words != 1 || s->has_data_file ||
        (next & QCOW2_OFLAG_COMPRESSED) || !(next & QCOW2_L2_OFFSET_MASK) ||
        !is_simple_entry(chk, words) || !is_simple_entry(chk, words + n - 1)) {
        return false;
    }
    for (i = 1; i < n; i++) {
        next += s->cluster_size;
        if (GUINT64_FROM_BE(words[i]) != next) {
            return false;
        }
    }
    return true;
}

/* Of L1 entry @i, which is a run. */
static void count_run(Walk *w, uint32_t i, const uint64_t *words, Stats *st)
{
    const BDRVQcow2State *s = w->chk->s;
    uint64_t entry = GUINT64_FROM_BE(words[0]);
    uint64_t first = (entry & QCOW2_L2_OFFSET_MASK) >> s->cluster_bits;
    int64_t n = n_entries(s);

    add_refs(w, first, n);
    st->allocated += n;
    if (w->runs) {
        w->runs[i] = (Qcow2TableRun){
            .first = first, .n = n, .copied = !!(entry & QCOW2_OFLAG_COPIED),
        };
    }
}

/* Is the table there, so that it can be looked at? */
static bool is_simple_l1_entry(const Qcow2Check *chk, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_L1_OFFSET_MASK;

    return !(entry & QCOW2_L1_RESERVED_MASK) && is_aligned(chk->s, offset) &&
           qcow2_check_inside(chk, offset, chk->s->cluster_size);
}

/* How many tables from @i on lie one behind the other? */
static uint32_t neighbours(const Walk *w, uint32_t i, uint32_t end)
{
    const BDRVQcow2State *s = w->chk->s;
    uint64_t offset = w->l1[i] & QCOW2_L1_OFFSET_MASK;
    uint32_t n = 1;

    while (i + n < end && (n + 1) * s->cluster_size <= READ_BYTES &&
           is_simple_l1_entry(w->chk, w->l1[i + n]) &&
           (w->l1[i + n] & QCOW2_L1_OFFSET_MASK) ==
           offset + n * s->cluster_size) {
        n++;
    }
    return n;
}

/* What the table of L1 entry @i refers to, if all of it is simple. */
static bool count_table(Walk *w, uint32_t i, const uint64_t *words, Stats *st)
{
    if (is_run(w->chk, words)) {
        count_run(w, i, words, st);
        return true;
    }
    if (is_simple_table(w->chk, words)) {
        count_simple_table(w, words, st);
        return true;
    }
    return false;
}

static void count_tables(Walk *w, uint32_t i, uint32_t n, uint8_t *buf,
                         Stats *st)
{
    const BDRVQcow2State *s = w->chk->s;
    uint64_t offset = w->l1[i] & QCOW2_L1_OFFSET_MASK;
    int ret = qcow2_check_read(w->chk, offset, n * s->cluster_size, buf);

    for (uint32_t k = 0; k < n; k++) {
        const uint64_t *words = (uint64_t *)(buf + k * s->cluster_size);

        if (w->take_back && w->odd[i + k]) {
            continue;
        }
        w->odd[i + k] = ret < 0 || !count_table(w, i + k, words, st);
        if (!w->odd[i + k]) {
            add_refs(w, (offset >> s->cluster_bits) + k, 1);
        }
    }
}

static void count_batch(Walk *w, uint32_t first, uint8_t *buf, Stats *st)
{
    uint32_t end = MIN((uint64_t)w->n, (uint64_t)first + BATCH);
    uint32_t n;

    for (uint32_t i = first; i < end; i += n) {
        n = 1;
        if (!(w->l1[i] & ~QCOW2_OFLAG_COPIED)) {
            continue;
        }
        if (!(w->l1[i] & QCOW2_L1_OFFSET_MASK) ||
            !is_simple_l1_entry(w->chk, w->l1[i])) {
            w->odd[i] = true;
            continue;
        }
        n = neighbours(w, i, end);
        count_tables(w, i, n, buf, st);
    }
}

/* For @n tables, if so many are read at once. */
static uint8_t *table_buffer(const Qcow2Check *chk, uint32_t n)
{
    int64_t bytes = MIN(READ_BYTES, n * chk->s->cluster_size);

    return qemu_try_memalign(MAX(chk->bs->file->bs->bl.opt_mem_alignment, 64),
                             MAX(bytes, chk->s->cluster_size));
}

static void count_in_thread(void *opaque, unsigned thread)
{
    Walk *w = opaque;
    uint8_t *buf = table_buffer(w->chk, w->n);
    uint32_t batches = DIV_ROUND_UP((uint64_t)w->n, BATCH), batch;

    if (!buf) {
        qatomic_set(&w->no_memory, true);
        return;
    }
    while ((batch = qatomic_fetch_inc(&w->next)) < batches) {
        count_batch(w, batch * BATCH, buf, &w->stats[thread]);
    }
    qemu_vfree(buf);
}

static bool is_overflow(const Qcow2Check *chk)
{
    return qcow2_refs_max(chk->refs) > chk->s->refcount_max;
}

/* Returns false if nothing was counted: all tables are odd. */
static bool count_ahead(Walk *w)
{
    /* Of the narrowest refcounts the bytes do not tell when they overflow. */
    if (w->chk->s->refcount_order < 3 || is_overflow(w->chk)) {
        return false;
    }
    qcow2_check_in_threads(count_in_thread, w,
                           w->n > BATCH ? QCOW2_CHECK_MAX_THREADS : 1);
    if (!is_overflow(w->chk)) {
        return true;
    }
    w->take_back = true;
    w->next = 0;
    count_in_thread(w, 0);
    return false;
}

/* ---- In this thread: the others ---- */

typedef struct Table {
    Walk *walk;
    uint64_t offset;                /* of the L2 table */
    int64_t index;                  /* of the entry */
    uint64_t entry, bitmap;
    uint64_t next;
    Stats *stats;
} Table;

/* The entry is a cluster without data in it, in a place where none can be: only
 * say that it reads as it does now. */
static int drop_preallocated(Qcow2Check *chk, Table *t)
{
    const BDRVQcow2State *s = chk->s;
    uint64_t words[2] = { GUINT64_TO_BE(s->l2_entry_words == 2 ? 0 :
                                        QCOW2_OFLAG_ZERO),
                          GUINT64_TO_BE(t->bitmap) };
    int bytes = s->l2_entry_words * sizeof(uint64_t);
    int ret = qcow2_check_write_l2(chk, t->offset,
                                   t->offset + t->index * bytes, bytes, words);

    if (ret == 0) {
        chk->res->corruptions_fixed++;
        t->entry = GUINT64_FROM_BE(words[0]);
    }
    return ret;
}

/* Returns true if the entry has been repaired: it refers to nothing now. */
static bool odd_alignment(Qcow2Check *chk, Table *t, uint64_t offset)
{
    const BDRVQcow2State *s = chk->s;
    bool data = s->l2_entry_words == 2 ? (uint32_t)t->bitmap != 0 :
                !(t->entry & QCOW2_OFLAG_ZERO);
    bool fix = !data && qcow2_check_fixes(chk, BDRV_FIX_ERRORS);

    qcow2_check_say("%s offset=%" PRIx64 ": %s cluster is not properly "
                    "aligned; L2 entry corrupted.\n",
                    fix ? "Repairing" : "ERROR", offset,
                    data ? "Data" : "Preallocated");
    if (fix && drop_preallocated(chk, t) == 0) {
        return true;
    }
    chk->res->corruptions++;
    return false;
}

static void count_odd_compressed(Qcow2Check *chk, Table *t)
{
    int64_t offset;
    int bytes;

    if (t->entry & QCOW2_OFLAG_COPIED) {
        qcow2_check_say("ERROR: coffset=0x%" PRIx64 ": copied flag must never "
                        "be set for compressed clusters\n",
                        t->entry & chk->s->cluster_offset_mask);
        t->entry &= ~QCOW2_OFLAG_COPIED;
        chk->res->corruptions++;
    }
    if (chk->s->has_data_file) {
        qcow2_check_say("ERROR compressed cluster %" PRId64 " with data file, "
                        "entry=0x%" PRIx64 "\n", t->index, t->entry);
        chk->res->corruptions++;
        return;
    }
    if (t->bitmap) {
        qcow2_check_say("ERROR compressed cluster %" PRId64 " with non-zero "
                        "subcluster allocation bitmap, entry=0x%" PRIx64 "\n",
                        t->index, t->entry);
        chk->res->corruptions++;
        return;
    }
    qcow2_parse_compressed(chk->s, t->entry, &offset, &bytes);
    note_compressed(t->stats);
    qcow2_check_count(chk, offset, bytes);
}

static void count_odd_standard(Qcow2Check *chk, Table *t)
{
    const BDRVQcow2State *s = chk->s;
    uint64_t offset = t->entry & QCOW2_L2_OFFSET_MASK;

    if (!has_cluster(s, t->entry)) {
        if ((uint32_t)t->bitmap) {
            qcow2_check_say("ERROR: Unallocated cluster has non-zero "
                            "subcluster allocation map\n");
            chk->res->corruptions++;
        }
        return;
    }
    if (t->bitmap >> 32 & t->bitmap & UINT32_MAX) {
        qcow2_check_say("ERROR offset=%" PRIx64 ": Allocated cluster has "
                        "corrupted subcluster allocation bitmap\n", offset);
        chk->res->corruptions++;
    }
    if (!is_aligned(s, offset) && odd_alignment(chk, t, offset)) {
        return;
    }
    note_cluster(s, t->stats, &t->next, offset);
    if (!s->has_data_file) {
        qcow2_check_count(chk, offset, s->cluster_size);
    }
}

static void count_odd_entry(Qcow2Check *chk, Table *t, const uint64_t *words)
{
    t->entry = GUINT64_FROM_BE(words[0]);
    t->bitmap = chk->s->l2_entry_words == 2 ? GUINT64_FROM_BE(words[1]) : 0;
    if (t->entry & QCOW2_OFLAG_COMPRESSED) {
        count_odd_compressed(chk, t);
        return;
    }
    if (t->entry & QCOW2_L2_STD_RESERVED_MASK) {
        qcow2_check_say("ERROR found l2 entry with reserved bits set: %"
                        PRIx64 "\n", t->entry);
        chk->res->corruptions++;
    }
    count_odd_standard(chk, t);
}

static int count_odd_table(Walk *w, uint64_t offset, uint8_t *buf)
{
    Qcow2Check *chk = w->chk;
    BDRVQcow2State *s = chk->s;
    Table t = { .walk = w, .offset = offset, .stats = &w->stats[0] };
    int ret = qcow2_check_read(chk, offset, s->cluster_size, buf);

    if (ret < 0) {
        qcow2_check_say("ERROR: I/O error in check_refcounts_l2\n");
        chk->res->check_errors++;
        return ret;
    }
    for (t.index = 0; t.index < n_entries(s); t.index++) {
        count_odd_entry(chk, &t,
                        (uint64_t *)buf + t.index * s->l2_entry_words);
    }
    return 0;
}

static int count_odd_l1_entry(Walk *w, uint64_t entry, uint8_t *buf)
{
    Qcow2Check *chk = w->chk;
    uint64_t offset = entry & QCOW2_L1_OFFSET_MASK;

    if (entry & QCOW2_L1_RESERVED_MASK) {
        qcow2_check_say("ERROR found L1 entry with reserved bits set: %" PRIx64
                        "\n", entry);
        chk->res->corruptions++;
    }
    if (!offset) {
        return 0;
    }
    qcow2_check_count(chk, offset, chk->s->cluster_size);
    if (!is_aligned(chk->s, offset)) {
        qcow2_check_say("ERROR l2_offset=%" PRIx64 ": Table is not cluster "
                        "aligned; L1 entry corrupted\n", offset);
        chk->res->corruptions++;
    }
    return count_odd_table(w, offset, buf);
}

static int count_odd(Walk *w, bool all)
{
    uint8_t *buf = table_buffer(w->chk, 1);
    int ret = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < w->n && ret == 0; i++) {
        if ((w->l1[i] & ~QCOW2_OFLAG_COPIED) && (all || w->odd[i])) {
            ret = count_odd_l1_entry(w, w->l1[i], buf);
        }
    }
    qemu_vfree(buf);
    return ret;
}

static void add_stats(const Walk *w)
{
    for (int i = 0; i < QCOW2_CHECK_MAX_THREADS; i++) {
        w->chk->res->allocated_clusters += w->stats[i].allocated;
        w->chk->res->fragmented_clusters += w->stats[i].fragmented;
        w->chk->res->compressed_clusters += w->stats[i].compressed;
    }
}

int qcow2_check_count_l1(Qcow2Check *chk, int64_t offset,
                         const uint64_t *entries, uint32_t n, bool active)
{
    Walk w = { .chk = chk, .l1 = entries, .n = n, .active = active };
    bool ahead;
    int ret;

    if (active && !chk->fix) {
        /* Without memory for it tables are read twice. */
        w.runs = chk->runs = g_try_new0(Qcow2TableRun, n);
    }
    qcow2_check_count(chk, offset, n * sizeof(uint64_t));
    w.odd = g_try_malloc0(MAX(n, 1));
    if (!w.odd) {
        return -ENOMEM;
    }
    ahead = count_ahead(&w);
    if (!ahead) {
        memset(w.stats, 0, sizeof(w.stats));
    }
    ret = qatomic_read(&w.no_memory) ? -ENOMEM : count_odd(&w, !ahead);
    if (active) {
        add_stats(&w);
    }
    g_free(w.odd);
    return ret;
}
