/*
 * qcow2: writing zeroes and discarding, which change entries only.
 *
 * A part of one L2 slice at a time.  Its guest clusters are registered as in
 * flight, so what allocates there comes before or after; then entries change
 * at one moment.  Clusters that are not needed any more are freed later.
 *
 * Two things happen to the file's data at once, while the range is registered,
 * not later: zeroes in a raw external data file, which must hold what the guest
 * sees; and punches of clusters that stay where they are (in an external data
 * file, or with discard-no-unref).  Both are of clusters whose old contents the
 * guest has given up, whether the table that says so is durable or not: until
 * it is, they read as they did, or as zeroes.  And nobody can put new data
 * there before we are done.  Of an encrypted image neither is done: zeroes in
 * its file are noise to the guest, for as long as a table refers to them.
 *
 * Version 2 has no flag for zeroes: only what already reads as zeroes can be
 * "written" so.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"

typedef enum ZeroMode {
    MODE_ZERO,                      /* reads as zeroes, clusters are kept */
    MODE_ZERO_UNMAP,                /* … and may go */
    MODE_DISCARD,
} ZeroMode;

/* What is done at once. */
typedef struct Part {
    Qcow2Inflight inflight;
    ZeroMode mode;
    int64_t offset, bytes;          /* as asked for */
    int64_t start, length;          /* the clusters round it */
    GArray *punch;                  /* of PunchRange */
} Part;

typedef struct PunchRange {
    int64_t offset, bytes;          /* of the data file */
} PunchRange;

/* ---- Entries ---- */

static bool has_host(const BDRVQcow2State *s, const Qcow2Entry *e)
{
    return !(e->l2 & QCOW2_OFLAG_COMPRESSED) &&
           (s->has_data_file ? e->l2 & QCOW2_OFLAG_COPIED :
            e->l2 & QCOW2_L2_OFFSET_MASK);
}

/* Is its cluster to be kept? */
static bool REQUIRES(driver_class)
keeps_host(BlockDriverState *bs, const Qcow2Entry *e, ZeroMode mode)
{
    BDRVQcow2State *s = bs->opaque;

    if (!has_host(s, e) || s->qcow_version < 3) {
        return false;
    }
    return mode == MODE_ZERO || s->data_file_raw ||
           (s->discard_no_unref && e->l2 & QCOW2_OFLAG_COPIED);
}

static Qcow2Entry REQUIRES(driver_class)
zero_entry(BlockDriverState *bs, const Qcow2Entry *old, ZeroMode mode)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Entry e = { 0 };

    if (keeps_host(bs, old, mode)) {
        e.l2 = old->l2 & (QCOW2_L2_OFFSET_MASK | QCOW2_OFLAG_COPIED);
    }
    if (s->l2_entry_words > 1) {
        e.bitmap = (uint64_t)UINT32_MAX << QCOW2_SUBCLUSTERS;
    } else if (s->qcow_version >= 3) {
        e.l2 |= QCOW2_OFLAG_ZERO;
    }
    return e;
}

/* Do the subclusters that [from, to) touches read as zeroes? */
static int is_zero(BlockDriverState *bs, const Qcow2Entry *e, int64_t from,
                   int64_t to, bool *zero)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t at = QEMU_ALIGN_DOWN(from, s->subcluster_size);

    for (*zero = true; at < to; at += s->subcluster_size) {
        Qcow2ExtentType type;
        int ret = qcow2_entry_type(s, e->l2, e->bitmap,
                                   at >> s->subcluster_bits, &type);

        if (ret < 0) {
            return ret;
        }
        *zero &= type == QCOW2_EXTENT_ZERO_PLAIN ||
                 type == QCOW2_EXTENT_ZERO_ALLOC ||
                 (!bs->backing && (type == QCOW2_EXTENT_UNALLOCATED ||
                                   type == QCOW2_EXTENT_UNALLOCATED_ALLOC));
    }
    return 0;
}

/*
 * Make [*from, *to) whole subclusters.  -ENOTSUP where this would lose what is
 * beside it.
 */
static int widen(BlockDriverState *bs, const Qcow2Entry *e, int64_t *from,
                 int64_t *to)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t down = QEMU_ALIGN_DOWN(*from, s->subcluster_size);
    int64_t up = QEMU_ALIGN_UP(*to, s->subcluster_size);
    bool head_zero = true, tail_zero = true;
    int ret = 0;

    if (down < *from) {
        ret = is_zero(bs, e, *from, *from + 1, &head_zero);
    }
    if (ret == 0 && *to < up) {
        ret = is_zero(bs, e, *to, *to + 1, &tail_zero);
    }
    *from = down;
    *to = up;
    return ret < 0 ? ret : head_zero && tail_zero ? 0 : -ENOTSUP;
}

static int REQUIRES(driver_class)
whole_entry(BlockDriverState *bs, const Qcow2Entry *old, ZeroMode mode,
            Qcow2Entry *e)
{
    BDRVQcow2State *s = bs->opaque;
    bool zero;
    int ret = is_zero(bs, old, 0, s->cluster_size, &zero);

    if (ret < 0) {
        return ret;
    }
    /* Nothing is won by a discard of nothing. */
    *e = mode == MODE_DISCARD && zero && !has_host(s, old) ? *old :
         zero_entry(bs, old, mode);
    return 0;
}

/*
 * What a raw data file holds is what the guest sees, and it will hold zeroes:
 * nothing need change.  If the table said so, too, writes beside or after it
 * would change one of the two first, and a power cut, or the other of two
 * requests that overlap, would leave them disagreeing.
 */
static int raw_file_says_it(const BDRVQcow2State *s, const Qcow2Entry *e,
                            int64_t from, int64_t to, bool *says)
{
    int64_t at = QEMU_ALIGN_DOWN(from, s->subcluster_size);

    for (*says = qcow2_file_is_disk(s); *says && at < to;
         at += s->subcluster_size) {
        Qcow2ExtentType type;
        int ret = qcow2_entry_type(s, e->l2, e->bitmap,
                                   at >> s->subcluster_bits, &type);

        if (ret < 0) {
            return ret;
        }
        *says = type == QCOW2_EXTENT_NORMAL;
    }
    return 0;
}

/* What becomes of @old, the entry of the cluster at @guest.  -ENOTSUP: data
 * has to be written. */
static int REQUIRES(driver_class)
new_entry(BlockDriverState *bs, const Part *p, int64_t guest,
          const Qcow2Entry *old, Qcow2Entry *e)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t from = MAX(p->offset - guest, 0);
    int64_t to = MIN(p->offset + p->bytes - guest, s->cluster_size);
    uint64_t bits = 0;
    bool stays;
    int ret = raw_file_says_it(s, old, from, to, &stays);

    if (ret < 0 || stays) {
        *e = *old;
        return ret;
    }
    if (guest + to >= s->disk_size) {
        to = s->cluster_size;           /* nobody sees what is behind */
    }
    if ((from | to) & (s->subcluster_size - 1)) {
        ret = widen(bs, old, &from, &to);
    }
    if (ret < 0) {
        return ret;
    }
    if (from == 0 && to == s->cluster_size) {
        return whole_entry(bs, old, p->mode, e);
    }
    if (old->l2 & QCOW2_OFLAG_COMPRESSED) {
        return -ENOTSUP;
    }
    for (int64_t at = from; at < to; at += s->subcluster_size) {
        bits |= UINT64_C(1) << (at >> s->subcluster_bits);
    }
    *e = (Qcow2Entry){
        .l2 = old->l2,
        .bitmap = (old->bitmap & ~bits) | bits << QCOW2_SUBCLUSTERS,
    };
    return 0;
}

/* ---- Parts ---- */

/* The guest has given up what is in the cluster at @guest, which stays. */
static void REQUIRES(driver_class)
note_punch(BlockDriverState *bs, Part *p, int64_t guest, const Qcow2Entry *old)
{
    BDRVQcow2State *s = bs->opaque;
    PunchRange r = { guest, s->cluster_size };
    PunchRange *last = p->punch->len ?
        &g_array_index(p->punch, PunchRange, p->punch->len - 1) : NULL;

    if (!s->has_data_file) {
        r.offset = old->l2 & QCOW2_L2_OFFSET_MASK;
    }
    if (last && last->offset + last->bytes == r.offset) {
        last->bytes += r.bytes;
    } else {
        g_array_append_val(p->punch, r);
    }
}

static void REQUIRES(driver_class)
replace(BlockDriverState *bs, Part *p, Qcow2Table *t, unsigned index,
        int64_t guest, const Qcow2Entry *old, const Qcow2Entry *e)
{
    BDRVQcow2State *s = bs->opaque;
    bool goes = has_host(s, old) && !has_host(s, e);

    if (old->l2 == e->l2 && old->bitmap == e->bitmap) {
        return;
    }
    qcow2_entry_set(s, t, index, *e);
    if (goes || old->l2 & QCOW2_OFLAG_COMPRESSED) {
        qcow2_free_entry_later(bs, old->l2, QCOW2_DISCARD_REQUEST);
    }
    if (p->mode != MODE_ZERO && !s->data_file_raw &&
        (goes ? s->has_data_file :
         has_host(s, old) && p->offset <= guest &&
         p->offset + p->bytes >= guest + s->cluster_size)) {
        note_punch(bs, p, guest, old);
    }
}

/* All of them, or (@dry) just find out whether that can be. */
static int REQUIRES(driver_class)
change_entries(BlockDriverState *bs, Part *p, Qcow2Table *t, unsigned index,
               bool dry)
{
    BDRVQcow2State *s = bs->opaque;

    for (int64_t n = 0; n < p->length; n += s->cluster_size) {
        unsigned i = index + (n >> s->cluster_bits);
        Qcow2Entry old = qcow2_entry_get(s, t, i);
        Qcow2Entry e;
        int ret = new_entry(bs, p, p->start + n, &old, &e);

        if (ret < 0) {
            return ret;
        }
        if (!dry) {
            replace(bs, p, t, i, p->start + n, &old, &e);
        }
    }
    return 0;
}

/* While @p is registered, so nobody else can put data there. */
static int REQUIRES(driver_class)
zero_raw_file(BlockDriverState *bs, const Part *p)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    driver_unlock(&s->lock);
    ret = bdrv_pwrite_zeroes(s->data_file, p->offset, p->bytes,
                             p->mode == MODE_ZERO ? 0 : BDRV_REQ_MAY_UNMAP);
    driver_lock(&s->lock);
    return ret;
}

/* Not by a discard, after which the file may hold anything: the disk would show
 * that if the table did not get to the disk. */
static void REQUIRES(driver_class) punch_kept(BlockDriverState *bs, Part *p)
{
    BDRVQcow2State *s = bs->opaque;

    if (p->punch->len == 0 || !s->discard_passthrough[QCOW2_DISCARD_REQUEST] ||
        !(s->data_file->bs->open_flags & BDRV_O_UNMAP) ||
        s->crypt_method != QCOW2_CRYPT_NONE) {
        return;
    }
    driver_unlock(&s->lock);
    for (guint i = 0; i < p->punch->len; i++) {
        PunchRange *r = &g_array_index(p->punch, PunchRange, i);

        /* Advice; but that a table takes metadata for data is not. */
        if (!s->has_data_file &&
            qcow2_check_overlap(bs, 0, r->offset, r->bytes) < 0) {
            break;
        }
        (void)bdrv_pwrite_zeroes(s->data_file, r->offset, r->bytes,
                                 BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK);
    }
    driver_lock(&s->lock);
}

/* The slice, or NULL if there is no table and none is needed. */
static int REQUIRES(driver_class)
get_slice(BlockDriverState *bs, const Part *p, Qcow2Table **t, unsigned *index)
{
    BDRVQcow2State *s = bs->opaque;

    if (!bs->backing && (p->mode == MODE_DISCARD || s->qcow_version < 3)) {
        int ret = qcow2_l2_get(bs, p->start, t, index);

        if (ret < 0 || !*t) {
            return ret;
        }
    }
    return qcow2_l2_get_for_write(bs, p->start, t, index);
}

static int REQUIRES(driver_class) do_part(BlockDriverState *bs, Part *p)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    unsigned index;
    int ret = get_slice(bs, p, &t, &index);

    if (ret < 0 || !t) {
        return ret;
    }
    ret = change_entries(bs, p, t, index, true);
    if (ret == -EIO) {
        qcow2_signal_corruption_locked(bs, true, -1, -1,
            "Invalid cluster entry found for guest offset %#" PRIx64,
            (uint64_t)p->start);
    }
    if (ret == 0 && qcow2_file_is_disk(s)) {
        ret = zero_raw_file(bs, p);
        if (ret == 0) {
            ret = qcow2_l2_get_for_write(bs, p->start, &t, &index);
        }
    }
    if (ret == 0) {
        ret = change_entries(bs, p, t, index, false);
        punch_kept(bs, p);
    }
    return ret;
}

static int zero_range(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      ZeroMode mode)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        Part p = { .mode = mode, .offset = offset };

        p.bytes = qcow2_slice_part(s, offset, bytes, &p.start, &p.length);
        p.punch = g_array_new(false, false, sizeof(PunchRange));
        driver_lock(&s->lock);
        qcow2_frees_relieve(bs);
        qcow2_inflight_begin(s, &p.inflight, p.start, p.length);
        ret = qatomic_read(&s->corrupt) ? -EIO : do_part(bs, &p);
        qcow2_inflight_end(s, &p.inflight);
        driver_unlock(&s->lock);
        g_array_free(p.punch, true);
        offset += p.bytes;
        bytes -= p.bytes;
    }
    return ret;
}

/* ---- Requests ---- */

int qcow2_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        int flags)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->qcow_version < 3 && bs->backing) {
        return -ENOTSUP;
    }
    return zero_range(bs, offset, bytes,
                      flags & BDRV_REQ_MAY_UNMAP || s->qcow_version < 3 ?
                      MODE_ZERO_UNMAP : MODE_ZERO);
}

int qcow2_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t end = offset + bytes;

    /* Without a flag for zeroes the backing file's data would come back. */
    if (s->qcow_version < 3 && bs->backing) {
        return -ENOTSUP;
    }
    offset = QEMU_ALIGN_UP(offset, s->cluster_size);
    if (end < s->disk_size) {
        end = QEMU_ALIGN_DOWN(end, s->cluster_size);
    }
    return offset < end ? zero_range(bs, offset, end - offset, MODE_DISCARD) :
           0;
}
