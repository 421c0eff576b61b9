/*
 * qcow2: writing data.
 *
 * What the look-up says is ours alone (refcount 1, every subcluster there) is
 * written in place, under a pin, with no lock.  The rest is written a *chunk*
 * at a time: clusters in a row, of one L2 slice, that need the same:
 *
 *   new      clusters are allocated, in a row.  What the write does not cover
 *            of the first and last one is copied.
 *   reuse    the guest cluster has a host cluster of its own that does not
 *            count yet: it reads as zeroes, or misses some subclusters.
 *
 * Copying is by the guest's view: what a read would return there, wherever
 * that is.  Where nothing needs to be copied as it reads as zeroes, and the
 * host cluster lies where the file was never written, not even the zeroes are.
 *
 * The steps are those of docs/devel/qcow2.md, "Writing".  The L2 slice is
 * got for writing once before the data is written: what can fail, fails there.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-alloc.h"
#include "qemu/atomic.h"

/* Data that is encrypted on the way takes a buffer of this size at most. */
#define MAX_BOUNCE (2 * MiB)
/* What is in flight at once, unless a cluster is larger. */
#define MAX_CHUNK (32 * MiB)

typedef struct Chunk {
    Qcow2Inflight inflight;
    int64_t offset, bytes;          /* of the guest's data */
    int64_t start, length;          /* the clusters round it */
    int64_t host;                   /* of start, in the data file */
    bool is_new;                    /* host was allocated for this */
    bool fresh;                     /* host reads as zeroes, for certain */
    int64_t head, tail;             /* bytes round the data to fill, too … */
    bool head_zero, tail_zero;      /* … which read as zeroes */
} Chunk;

/* ---- Data to the host ---- */

static int write_host(BlockDriverState *bs, int64_t host, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    BDRVQcow2State *s = bs->opaque;

    bdrv_debug_event(bs->file->bs, "write_aio");
    return bdrv_pwritev(s->data_file, host, bytes, qiov, qiov_offset,
                        flags & BDRV_REQ_REGISTERED_BUF);
}

static int write_encrypted(BlockDriverState *bs, int64_t guest, int64_t host,
                           int64_t bytes, QEMUIOVector *qiov,
                           size_t qiov_offset)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t size = MIN(bytes, MAX_BOUNCE);
    void *buf = qemu_try_memalign(bs->bl.opt_mem_alignment, size);
    int ret = buf ? 0 : -ENOMEM;

    for (int64_t done = 0; ret == 0 && done < bytes; ) {
        int64_t n = MIN(size, bytes - done);
        QEMUIOVector bounce;

        qemu_iovec_init_buf(&bounce, buf, n);
        qemu_iovec_to_buf(qiov, qiov_offset + done, buf, n);
        ret = qcow2_encrypt(s, guest + done, host + done, buf, n);
        if (ret == 0) {
            ret = write_host(bs, host + done, n, &bounce, 0, 0);
        }
        done += n;
    }
    qemu_vfree(buf);
    return ret;
}

static int write_data(BlockDriverState *bs, int64_t guest, int64_t host,
                      int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset,
                      int flags)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = s->has_data_file ? 0 : qcow2_check_overlap(bs, 0, host, bytes);

    if (ret < 0) {
        return ret;
    }
    if (s->crypt_method == QCOW2_CRYPT_NONE) {
        return write_host(bs, host, bytes, qiov, qiov_offset, flags);
    }
    return write_encrypted(bs, guest, host, bytes, qiov, qiov_offset);
}

/* ---- A chunk: what has to be done ---- */

/* Its own host cluster, to be written in place?  An external data file holds
 * each cluster where the guest has it. */
static bool has_own_host(const BDRVQcow2State *s, const Qcow2Entry *e)
{
    return s->has_data_file ||
           (!(e->l2 & QCOW2_OFLAG_COMPRESSED) && e->l2 & QCOW2_OFLAG_COPIED &&
            e->l2 & QCOW2_L2_OFFSET_MASK);
}

static int64_t own_host(const BDRVQcow2State *s, const Qcow2Entry *e,
                        int64_t guest)
{
    return s->has_data_file ? guest :
           (int64_t)(e->l2 & QCOW2_L2_OFFSET_MASK);
}

/* Is there data elsewhere, of which nothing may be lost? */
static bool has_old_data(const BDRVQcow2State *s, const Qcow2Entry *e)
{
    return !has_own_host(s, e) &&
           e->l2 & (QCOW2_OFLAG_COMPRESSED | QCOW2_L2_OFFSET_MASK);
}

/* Does [from, to), inside of one cluster with entry @e, read as zeroes? */
static int reads_as_zero(BlockDriverState *bs, const Qcow2Entry *e,
                         int64_t from, int64_t to, bool *zero)
{
    BDRVQcow2State *s = bs->opaque;

    *zero = true;
    for (int64_t at = from; at < to && *zero; ) {
        Qcow2ExtentType type;
        unsigned sc = (at & (s->cluster_size - 1)) >> s->subcluster_bits;
        int ret = qcow2_entry_type(s, e->l2, e->bitmap, sc, &type);

        if (ret < 0) {
            return ret;
        }
        *zero = type == QCOW2_EXTENT_ZERO_PLAIN ||
                type == QCOW2_EXTENT_ZERO_ALLOC ||
                (!bs->backing && (type == QCOW2_EXTENT_UNALLOCATED ||
                                  type == QCOW2_EXTENT_UNALLOCATED_ALLOC));
        at = QEMU_ALIGN_DOWN(at, s->subcluster_size) + s->subcluster_size;
    }
    return 0;
}

/* How much round @at, between it and the end of its cluster (@up) or its start,
 * is to be filled beside the data? */
static int fill_length(BlockDriverState *bs, const Qcow2Entry *e, int64_t at,
                       bool up, int64_t *length, bool *zero)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t unit = has_old_data(s, e) ? s->cluster_size : s->subcluster_size;
    Qcow2ExtentType type;
    unsigned sc;
    int ret;

    *zero = true;
    *length = up ? QEMU_ALIGN_UP(at, unit) - at : at & (unit - 1);
    if (*length == 0) {
        return 0;
    }
    sc = ((up ? at - 1 : at) & (s->cluster_size - 1)) >> s->subcluster_bits;
    ret = qcow2_entry_type(s, e->l2, e->bitmap, sc, &type);
    if (ret == 0 && type == QCOW2_EXTENT_NORMAL && has_own_host(s, e)) {
        *length = 0;                    /* it is there already */
        return 0;
    }
    return ret < 0 ? ret :
           reads_as_zero(bs, e, up ? at : at - *length, up ? at + *length : at,
                         zero);
}

/* Is it what may be there, for the cluster at @guest? */
static int check_entry(const BDRVQcow2State *s, const Qcow2Entry *e,
                       int64_t guest)
{
    Qcow2ExtentType type;

    if (s->has_data_file && e->l2 & QCOW2_OFLAG_COPIED &&
        (int64_t)(e->l2 & QCOW2_L2_OFFSET_MASK) != guest) {
        return -EIO;
    }
    return qcow2_entry_type(s, e->l2, e->bitmap, 0, &type);
}

/* How many clusters of those in @c can be served alike? */
static int REQUIRES(driver_class)
count_alike(BlockDriverState *bs, Qcow2Table *t, unsigned index, Chunk *c,
            Qcow2Entry *first, Qcow2Entry *last)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t n;

    for (n = 0; n < c->length; n += s->cluster_size) {
        Qcow2Entry e = qcow2_entry_get(s, t, index + (n >> s->cluster_bits));
        int ret = check_entry(s, &e, c->start + n);

        if (ret < 0) {
            return ret;
        }
        if (n == 0) {
            *first = e;
            c->is_new = !has_own_host(s, &e);
            c->host = c->is_new ? 0 : own_host(s, &e, c->start);
        } else if (c->is_new == has_own_host(s, &e) ||
                   (!c->is_new &&
                    own_host(s, &e, c->start + n) != c->host + n)) {
            break;
        }
        *last = e;
    }
    c->length = n;
    c->bytes = MIN(c->bytes, c->start + c->length - c->offset);
    return 0;
}

/* Decide what @c is to be: its length, and what is to be filled. */
static int REQUIRES(driver_class)
chunk_plan(BlockDriverState *bs, Qcow2Table *t, unsigned index, Chunk *c)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Entry first, last;
    int ret = count_alike(bs, t, index, c, &first, &last);

    if (ret == 0) {
        ret = fill_length(bs, &first, c->offset, false, &c->head,
                          &c->head_zero);
    }
    if (ret == 0) {
        ret = fill_length(bs, &last, c->offset + c->bytes, true, &c->tail,
                          &c->tail_zero);
    }
    if (ret == 0 && s->has_data_file) {
        /* It is as long as the disk, and perhaps cannot be longer. */
        c->tail = CLAMP(s->disk_size - (c->offset + c->bytes), 0, c->tail);
    }
    if (ret == -EIO) {
        qcow2_signal_corruption_locked(bs, true, -1, -1,
            "Invalid L2 entry for guest offset %#" PRIx64,
            (uint64_t)c->start);
    }
    return ret;
}

/*
 * Register a prefix of the range, find out what is to be done, and allocate.
 * On failure nothing is left behind.
 */
static int REQUIRES(driver_class)
chunk_begin(BlockDriverState *bs, Chunk *c, int64_t offset, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    unsigned index;
    int ret;

    c->offset = offset;
    c->bytes = qcow2_slice_part(s, offset, MIN(bytes, MAX_CHUNK), &c->start,
                                &c->length);
    c->fresh = false;
    qcow2_inflight_begin(s, &c->inflight, c->start, c->length);
    ret = qcow2_l2_get_for_write(bs, c->start, &t, &index);
    if (ret == 0) {
        ret = chunk_plan(bs, t, index, c);
    }
    if (ret == 0) {
        qcow2_inflight_shrink(s, &c->inflight, c->length);
        if (c->is_new && !qcow2_place_take(s, c->start, c->length, &c->host,
                                           &c->fresh)) {
            c->host = qcow2_alloc_data(bs, c->length, &c->fresh);
            ret = MIN(c->host, 0);
        }
    }
    if (ret < 0) {
        qcow2_inflight_end(s, &c->inflight);
    }
    return ret;
}

/* ---- A chunk: its data ---- */

/* How much of a range is the disk's, or else all of it the machine's state.
 * What is between them is nothing. */
static int64_t meaningful(const BDRVQcow2State *s, int64_t offset,
                          int64_t bytes)
{
    return offset >= qcow2_vm_state_offset(s) ? bytes :
           CLAMP(s->disk_size - offset, 0, bytes);
}

/* The guest's view of a range, the end of which may lie behind the disk's. */
static int read_guest(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      uint8_t *buf, bool zero)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t inside = zero ? 0 : meaningful(s, offset, bytes);
    QEMUIOVector qiov;

    memset(buf + inside, 0, bytes - inside);
    if (inside == 0) {
        return 0;
    }
    bdrv_debug_event(bs->file->bs, "cow_read");
    qemu_iovec_init_buf(&qiov, buf, inside);
    return qcow2_preadv(bs, offset, inside, &qiov, 0, 0);
}

/* Head, data and tail in one go.  @head and @tail may be less than what the
 * chunk has: then the rest is known to be zero on the host. */
static int write_with_fill(BlockDriverState *bs, Chunk *c, QEMUIOVector *qiov,
                           size_t qiov_offset, int64_t head, int64_t tail)
{
    size_t align = bs->file->bs->bl.opt_mem_alignment;
    uint8_t *buf = qemu_try_memalign(align, head + tail);
    int64_t from = c->offset - head;
    QEMUIOVector whole;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    ret = head ? read_guest(bs, from, head, buf, c->head_zero) : 0;
    if (ret == 0 && tail) {
        ret = read_guest(bs, c->offset + c->bytes, tail, buf + head,
                         c->tail_zero);
    }
    if (ret == 0) {
        qemu_iovec_init(&whole, qiov->niov + 2);
        if (head) {
            qemu_iovec_add(&whole, buf, head);
        }
        qemu_iovec_concat(&whole, qiov, qiov_offset, c->bytes);
        if (tail) {
            qemu_iovec_add(&whole, buf + head, tail);
        }
        bdrv_debug_event(bs->file->bs, "cow_write");
        ret = write_data(bs, from, c->host + (from - c->start), whole.size,
                         &whole, 0, 0);
        qemu_iovec_destroy(&whole);
    }
    qemu_vfree(buf);
    return ret;
}

static int chunk_write(BlockDriverState *bs, Chunk *c, QEMUIOVector *qiov,
                       size_t qiov_offset, int flags)
{
    BDRVQcow2State *s = bs->opaque;
    /* Zeroes that are encrypted are not zeroes. */
    bool skip = c->fresh && s->crypt_method == QCOW2_CRYPT_NONE;
    int64_t head = skip && c->head_zero ? 0 : c->head;
    int64_t tail = skip && c->tail_zero ? 0 : c->tail;

    bdrv_debug_event(bs->file->bs, "cluster_alloc");
    if (head || tail) {
        return write_with_fill(bs, c, qiov, qiov_offset, head, tail);
    }
    return write_data(bs, c->offset, c->host + (c->offset - c->start),
                      c->bytes, qiov, qiov_offset, flags);
}

/* ---- A chunk: its entries ---- */

/* What the entry of the cluster at @guest becomes. */
static Qcow2Entry new_entry(BlockDriverState *bs, const Chunk *c,
                            int64_t guest, const Qcow2Entry *old)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Entry e = {
        .l2 = (uint64_t)(c->host + (guest - c->start)) | QCOW2_OFLAG_COPIED,
    };
    int64_t from = QEMU_ALIGN_DOWN(MAX(c->offset - c->head, guest) - guest,
                                   s->subcluster_size);
    int64_t to = MIN(c->offset + c->bytes + c->tail, guest + s->cluster_size) -
                 guest;
    uint64_t bits = 0;

    if (s->l2_entry_words == 1) {
        return e;
    }
    for (int64_t at = from; at < to; at += s->subcluster_size) {
        bits |= UINT64_C(1) << (at >> s->subcluster_bits);
    }
    /* Of a cluster that was compressed, or all of whose data was copied, every
     * subcluster is set; its old bits say something else. */
    if (!(old->l2 & QCOW2_OFLAG_COMPRESSED)) {
        e.bitmap = old->bitmap;
    }
    if (c->is_new) {
        e.bitmap &= ~(uint64_t)UINT32_MAX;
    }
    e.bitmap &= ~(bits << QCOW2_SUBCLUSTERS);
    e.bitmap |= bits;
    return e;
}

static int REQUIRES(driver_class)
chunk_link(BlockDriverState *bs, Chunk *c)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Table *t;
    unsigned index;
    int ret = qcow2_l2_get_for_write(bs, c->start, &t, &index);

    for (int64_t n = 0; ret == 0 && n < c->length; n += s->cluster_size) {
        unsigned i = index + (n >> s->cluster_bits);
        Qcow2Entry old = qcow2_entry_get(s, t, i);

        qcow2_entry_set(s, t, i, new_entry(bs, c, c->start + n, &old));
        if (c->is_new) {
            qcow2_free_entry_later(bs, old.l2, QCOW2_DISCARD_OTHER);
        }
    }
    if (ret == 0 && c->is_new) {
        s->data_end = MAX(s->data_end, c->host + c->length);
    }
    return ret;
}

/*
 * Write a prefix of the range where it needs clusters; *done: its length.  If
 * another request changes these clusters, wait for it and do nothing: most
 * often they are allocated then, and whoever waited writes in place, beside the
 * others.
 */
static int write_allocating(BlockDriverState *bs, int64_t offset,
                            int64_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset, int flags, int64_t *done)
{
    BDRVQcow2State *s = bs->opaque;
    Chunk c;
    int64_t start, length;
    int ret;

    qcow2_slice_part(s, offset, MIN(bytes, MAX_CHUNK), &start, &length);
    driver_lock(&s->lock);
    if (qcow2_inflight_wait(s, start, length)) {
        driver_unlock(&s->lock);
        *done = 0;
        return 0;
    }
    qcow2_frees_relieve(bs);
    ret = chunk_begin(bs, &c, offset, bytes);
    if (ret < 0) {
        driver_unlock(&s->lock);
        return ret;
    }
    driver_unlock(&s->lock);
    ret = chunk_write(bs, &c, qiov, qiov_offset, flags);
    bdrv_debug_event(bs->file->bs, "l2_update");
    driver_lock(&s->lock);
    if (ret == 0) {
        ret = chunk_link(bs, &c);
    }
    if (ret < 0 && c.is_new) {
        qcow2_free_later(bs, c.host, c.length, QCOW2_DISCARD_OTHER);
    }
    qcow2_inflight_end(s, &c.inflight);
    driver_unlock(&s->lock);
    *done = c.bytes;
    return ret;
}

/* ---- Requests ---- */

/* A prefix of the range. */
static int write_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset, int flags,
                      int64_t *done)
{
    Qcow2Extent extent;
    uintptr_t pin;
    int ret = qcow2_map(bs, offset, bytes, &extent, &pin);

    if (ret < 0) {
        return ret;
    }
    if (extent.type == QCOW2_EXTENT_NORMAL && extent.copied) {
        *done = extent.bytes;
        ret = write_data(bs, offset, extent.host_offset, extent.bytes, qiov,
                         qiov_offset, flags);
        qcow2_unpin(bs->opaque, pin);
        return ret;
    }
    /* Who holds a pin must not wait. */
    qcow2_unpin(bs->opaque, pin);
    return write_allocating(bs, offset, bytes, qiov, qiov_offset, flags, done);
}

int qcow2_write_normal(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        int64_t done = 0;

        ret = qatomic_read(&s->corrupt) ? -EIO :
              write_part(bs, offset, bytes, qiov, qiov_offset, flags, &done);
        offset += done;
        qiov_offset += done;
        bytes -= done;
    }
    return ret;
}

int qcow2_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                  QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    if (flags & BDRV_REQ_COMPRESSED_DATA) {
        return qcow2_write_compressed_data(bs, offset, bytes, qiov,
                                           qiov_offset);
    }
    if (flags & BDRV_REQ_WRITE_COMPRESSED) {
        return qcow2_write_compressed(bs, offset, bytes, qiov, qiov_offset);
    }
    return qcow2_write_normal(bs, offset, bytes, qiov, qiov_offset, flags);
}
