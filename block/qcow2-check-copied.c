/*
 * qcow2 check: COPIED flags of the active tables.
 *
 * The flag says that the refcount is exactly one, so that the cluster may be
 * written in place.  The counts are settled by now: what the refcounts are, or
 * will be after the repair.  As for counting, threads look at the tables and
 * mark those in which a flag is wrong, and this thread goes through them in
 * order.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-check.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/error.h"

#define BATCH 32

typedef struct Flags {
    Qcow2Check *chk;
    const Qcow2L1 *l1;
    uint8_t *odd;                   /* of each L1 entry; one thread each */
    uint32_t next;                  /* atomic: the batch to take */
    bool no_memory;                 /* atomic */
    bool fix;
    bool set;                       /* the second time: missing ones only */
    bool missing;                   /* there are flags to be set */
} Flags;

static uint8_t *table_buffer(const Qcow2Check *chk)
{
    return qemu_try_memalign(MAX(chk->bs->file->bs->bl.opt_mem_alignment, 64),
                             chk->s->cluster_size);
}

/* ---- In threads ---- */

static bool is_right(const Qcow2Check *chk, uint64_t entry)
{
    int64_t cluster = (entry & QCOW2_L2_OFFSET_MASK) >> chk->s->cluster_bits;
    uint8_t refs;

    if (cluster >= chk->n_counted) {
        return false;
    }
    refs = qcow2_refs_byte(chk->refs, cluster);
    return refs == QCOW2_REFS_BYTE_LOST ||
           (refs == 1) == !!(entry & QCOW2_OFLAG_COPIED);
}

/* Is this an L2 entry of which the flag says something? */
static bool has_flag(uint64_t entry)
{
    return !(entry & QCOW2_OFLAG_COMPRESSED) && (entry & QCOW2_L2_OFFSET_MASK);
}

/* Clusters of an external data file have no refcount: it is as if all were
 * one. */
static bool is_right_data(const Qcow2Check *chk, uint64_t entry)
{
    return chk->s->has_data_file ? !!(entry & QCOW2_OFLAG_COPIED) :
           is_right(chk, entry);
}

static bool is_right_table(const Qcow2Check *chk, const uint64_t *words)
{
    int64_t n = chk->s->l2_entry_words << chk->s->l2_bits;

    for (int64_t i = 0; i < n; i += chk->s->l2_entry_words) {
        uint64_t entry = GUINT64_FROM_BE(words[i]);

        if (has_flag(entry) && !is_right_data(chk, entry)) {
            return false;
        }
    }
    return true;
}

/* Is the table of L1 entry @i known to be right, without reading it? */
static bool is_right_run(const Qcow2Check *chk, uint32_t i)
{
    const Qcow2TableRun *run = chk->runs ? &chk->runs[i] : NULL;

    return run && run->n && qcow2_refs_are_alike(chk->refs, run->first,
                                                 run->n) &&
           (qcow2_refs_byte(chk->refs, run->first) == 1) == run->copied;
}

/* Look at what L1 entry @i refers to. */
static bool is_odd(const Flags *f, uint32_t i, uint8_t *buf)
{
    uint64_t entry = f->l1->entries[i];
    uint64_t offset = entry & QCOW2_L1_OFFSET_MASK;

    if (!offset) {
        return false;
    }
    if (!is_right(f->chk, entry)) {
        return true;
    }
    if (is_right_run(f->chk, i)) {
        return false;
    }
    return qcow2_check_read(f->chk, offset, f->chk->s->cluster_size,
                            buf) < 0 ||
           !is_right_table(f->chk, (uint64_t *)buf);
}

static void look_in_thread(void *opaque, unsigned thread)
{
    Flags *f = opaque;
    uint8_t *buf = table_buffer(f->chk);
    uint32_t batches = DIV_ROUND_UP((uint64_t)f->l1->size, BATCH), batch;

    if (!buf) {
        qatomic_set(&f->no_memory, true);
        return;
    }
    while ((batch = qatomic_fetch_inc(&f->next)) < batches) {
        uint64_t end = MIN((uint64_t)batch * BATCH + BATCH, f->l1->size);

        for (uint64_t i = (uint64_t)batch * BATCH; i < end; i++) {
            f->odd[i] = is_odd(f, i, buf);
        }
    }
    qemu_vfree(buf);
}

/* ---- In this thread ---- */

/* As it is, or will be.  False: not known. */
static bool refcount_of(Qcow2Check *chk, uint64_t entry, uint64_t *refcount)
{
    int64_t cluster = (entry & QCOW2_L2_OFFSET_MASK) >> chk->s->cluster_bits;
    uint64_t refs = cluster < chk->n_counted ?
                    qcow2_refs_get(chk->refs, cluster) : QCOW2_REFS_AS_STORED;

    *refcount = refs;
    return refs == QCOW2_REFS_AS_STORED ?
           qcow2_check_stored(chk, cluster, refcount) :
           refs != QCOW2_REFS_UNKNOWN;
}

typedef enum Verdict {
    FLAG_RIGHT,
    FLAG_SURPLUS,
    FLAG_MISSING,
} Verdict;

static Verdict judge(Qcow2Check *chk, uint64_t entry, uint64_t *refcount)
{
    bool copied = entry & QCOW2_OFLAG_COPIED;

    if (!refcount_of(chk, entry, refcount) || (*refcount == 1) == copied) {
        return FLAG_RIGHT;
    }
    return copied ? FLAG_SURPLUS : FLAG_MISSING;
}

static Verdict judge_data(Qcow2Check *chk, uint64_t entry, uint64_t *refcount)
{
    if (!chk->s->has_data_file) {
        return judge(chk, entry, refcount);
    }
    *refcount = 1;
    return entry & QCOW2_OFLAG_COPIED ? FLAG_RIGHT : FLAG_MISSING;
}

/* Counts a finding; says if this is the time to change the flag. */
static bool note(Flags *f, Verdict v)
{
    if (f->set) {
        return v == FLAG_MISSING;
    }
    if (f->fix) {
        f->missing |= v == FLAG_MISSING;
        return v == FLAG_SURPLUS;
    }
    f->chk->res->corruptions++;
    return false;
}

static void count_fixed(Flags *f, int ret, unsigned n)
{
    if (ret < 0) {
        f->chk->res->corruptions += n;
    } else {
        f->chk->res->corruptions_fixed += n;
    }
}

static const char *prefix(const Flags *f)
{
    return f->fix ? "Repairing" : "ERROR";
}

/* What could not be written because something else is there is a corruption
 * that stays, and no reason to stop. */
static int written(int ret)
{
    return ret == -EPERM ? 0 : ret;
}

static int fix_l1_entry(Flags *f, uint32_t i)
{
    uint8_t buf[8];
    int ret;

    stq_be_p(buf, f->l1->entries[i] ^ QCOW2_OFLAG_COPIED);
    ret = qcow2_check_write(f->chk, QCOW2_OL_ACTIVE_L1, f->l1->offset +
                            i * sizeof(uint64_t), sizeof(buf), buf);
    count_fixed(f, ret, 1);
    return written(ret);
}

static int look_at_l1_entry(Flags *f, uint32_t i)
{
    uint64_t entry = f->l1->entries[i], refcount;
    Verdict v = judge(f->chk, entry, &refcount);

    if (v == FLAG_RIGHT) {
        return 0;
    }
    if (!f->set) {
        qcow2_check_say("%s OFLAG_COPIED L2 cluster: l1_index=%" PRIu32
                        " l1_entry=%" PRIx64 " refcount=%" PRIu64 "\n",
                        prefix(f), i, entry, refcount);
    }
    return note(f, v) ? fix_l1_entry(f, i) : 0;
}

/* Returns how many flags were changed in @words. */
static unsigned look_at_entries(Flags *f, uint64_t *words)
{
    const BDRVQcow2State *s = f->chk->s;
    int64_t n = s->l2_entry_words << s->l2_bits;
    unsigned changed = 0;

    for (int64_t i = 0; i < n; i += s->l2_entry_words) {
        uint64_t entry = GUINT64_FROM_BE(words[i]), refcount;
        Verdict v = has_flag(entry) ? judge_data(f->chk, entry, &refcount) :
                    FLAG_RIGHT;

        if (v == FLAG_RIGHT) {
            continue;
        }
        if (!f->set) {
            qcow2_check_say("%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64
                            " refcount=%" PRIu64 "\n", prefix(f), entry,
                            refcount);
        }
        if (note(f, v)) {
            words[i] = GUINT64_TO_BE(entry ^ QCOW2_OFLAG_COPIED);
            changed++;
        }
    }
    return changed;
}

static int look_at_table(Flags *f, uint64_t offset, uint8_t *buf)
{
    Qcow2Check *chk = f->chk;
    int64_t bytes = chk->s->cluster_size;
    int ret = qcow2_check_read(chk, offset, bytes, buf);
    unsigned changed;

    if (ret < 0) {
        qcow2_check_say("ERROR: I/O error in check_oflag_copied\n");
        chk->res->check_errors++;
        return ret;
    }
    changed = look_at_entries(f, (uint64_t *)buf);
    if (changed) {
        ret = qcow2_check_write_l2(chk, offset, offset, bytes, buf);
        count_fixed(f, ret, changed);
        ret = written(ret);
    }
    return ret;
}

static int look_at_odd(Flags *f)
{
    uint8_t *buf = table_buffer(f->chk);
    int ret = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < f->l1->size && ret == 0; i++) {
        if (!f->odd[i]) {
            continue;
        }
        ret = look_at_l1_entry(f, i);
        if (ret == 0) {
            ret = look_at_table(f, f->l1->entries[i] & QCOW2_L1_OFFSET_MASK,
                                buf);
        }
    }
    qemu_vfree(buf);
    return ret;
}

static int look(Flags *f)
{
    int ret;

    f->l1 = qatomic_load_acquire(&f->chk->s->l1);
    f->odd = g_try_malloc0(MAX(f->l1->size, 1));
    if (!f->odd) {
        return -ENOMEM;
    }
    qcow2_check_in_threads(look_in_thread, f,
                           f->l1->size > BATCH ? QCOW2_CHECK_MAX_THREADS : 1);
    ret = qatomic_read(&f->no_memory) ? -ENOMEM : look_at_odd(f);
    g_free(f->odd);
    return ret;
}

int qcow2_check_copied_clear(Qcow2Check *chk, bool fix, bool *missing)
{
    Flags f = { .chk = chk, .fix = fix };
    int ret = look(&f);

    *missing = f.missing;
    return ret;
}

int qcow2_check_copied_set(Qcow2Check *chk)
{
    Flags f = { .chk = chk, .fix = true, .set = true };

    return look(&f);
}
