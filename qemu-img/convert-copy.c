/*
 * The copying of qemu-img convert.
 *
 * Several threads, each with a buffer, take the next extent in turn: what the
 * source's block status calls zeroes is not read; data is read, searched for
 * zeroes, compressed if that is wanted (convert-write.c) and written, outside
 * of the lock.
 *
 * A target lays out its clusters in the order in which it is asked for them,
 * and that is to be the order of offsets.  So a thread that has read waits
 * until all before it, and what it read, has its place: one thread at a time
 * sees to that, for all.  Then each writes its own data, beside the others.
 * What cannot be placed without its data (half a cluster, compressed, or the
 * format does not know how) is written there and then.
 *
 * A target without clusters of its own (a raw file) looks the same in any
 * order, so there nobody waits; threads are at most a buffer each apart.
 *
 * The kernel lets one thread write a file at a time, so most of them sleep if
 * it is not reading that takes long, nor what comes before the write.
 *
 * The first error, by offset, ends it: nobody takes another extent, those
 * under way are finished.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "convert.h"
#include "block/block-driver.h"
#include "block/lock-order.h"

/* What a thread takes at a time, and what it reads and writes at a time:
 * small enough to stay in a processor's cache between the two. */
#define CHUNK_SIZE (2 * MiB)
#define PIECE_SIZE (256 * KiB)

/* Threads that keep a file busy which one writes at a time: that one, one that
 * is next, one that reads. */
#define ENOUGH_BUSY 3

typedef enum ChunkKind {
    CHUNK_DATA,
    CHUNK_ZERO,                    /* need not be read */
    CHUNK_BACKING,                 /* nor written: the backing file has it */
} ChunkKind;

typedef struct Chunk {
    const ConvertSource *src;
    int64_t offset;                /* in the target */
    int64_t bytes;
    ChunkKind kind;
} Chunk;

/* What a thread wants to be placed or written when all before it is: it waits
 * for it. */
typedef struct Turn {
    /* Constant. */
    const Chunk *chunk;
    const ConvertPiece *piece;     /* NULL: all of a chunk that is no data */
    int64_t offset, end;
    /* Under the lock. */
    ListNode node;                 /* c->turns */
    bool busy;                     /* being written, by whoever does that */
    bool done;
    bool placed;                   /* done, but for the writing */
    QemuCond cond;
} Turn;

typedef struct Convert {
    /* Constant while workers run. */
    const ConvertJob *job;
    int64_t chunk_size;
    int64_t piece_size;
    bool in_order;
    bool one_writes;               /* at a time: others wait in the kernel */
    int64_t start_ns;              /* for the rate limit */

    JobLock lock;
    QemuCond failed;               /* ret has changed */
    QemuCond nobody_writes;        /* or there is nothing more to take */
    int busy GUARDED_BY(job_class);             /* threads with a chunk */
    int writers GUARDED_BY(job_class);          /* one_writes: of these */
    int cur GUARDED_BY(job_class);              /* source of next */
    int64_t next GUARDED_BY(job_class);
    /* The status of next, asked for once for several chunks. */
    int64_t status_end GUARDED_BY(job_class);
    ChunkKind status_kind GUARDED_BY(job_class);
    int64_t written_to GUARDED_BY(job_class);   /* in_order: all below is */
    List turns GUARDED_BY(job_class);
    bool writing GUARDED_BY(job_class);         /* in_order: somebody is */
    int64_t done GUARDED_BY(job_class);
    int ret GUARDED_BY(job_class);
    int64_t error_at GUARDED_BY(job_class);
    const char *error_doing GUARDED_BY(job_class);
} Convert;

static void REQUIRES(job_class) fail_locked(Convert *c, int64_t offset,
                                            const char *doing, int ret)
{
    Turn *t;

    if (!c->ret || offset < c->error_at) {
        c->ret = ret;
        c->error_at = offset;
        c->error_doing = doing;
    }
    qemu_cond_broadcast(&c->failed);
    qemu_cond_broadcast(&c->nobody_writes);
    list_for_each(t, &c->turns, node) {
        qemu_cond_signal(&t->cond);
    }
}

static void fail(Convert *c, int64_t offset, const char *doing, int ret)
{
    job_lock(&c->lock);
    fail_locked(c, offset, doing, ret);
    job_unlock(&c->lock);
}

/* ---- Taking an extent ---- */

static ChunkKind kind_of_status(const Convert *c, int status)
{
    return status & BDRV_BLOCK_ZERO ? CHUNK_ZERO :
           status & BDRV_BLOCK_DATA ? CHUNK_DATA :
           c->job->target_has_backing ? CHUNK_BACKING : CHUNK_ZERO;
}

/*
 * What is compressed is compressed as a whole: an extent ends at a multiple of
 * the unit; what is of several kinds in one unit is data.
 */
static void REQUIRES(job_class) round_status_locked(Convert *c)
{
    int64_t unit = c->job->compress_unit;

    if (!unit || c->status_end >= c->job->total ||
        QEMU_IS_ALIGNED(c->status_end, unit)) {
        return;
    }
    if (c->status_end - c->next >= unit) {
        c->status_end = QEMU_ALIGN_DOWN(c->status_end, unit);
    } else {
        c->status_end = MIN(c->next + unit, c->job->total);
        c->status_kind = CHUNK_DATA;
    }
}

/* Learn about the extent at c->next; false after an error. */
static bool REQUIRES(job_class) refresh_status_locked(Convert *c,
                                                      const ConvertSource *src)
{
    int64_t offset = c->next - src->start;
    int64_t bytes = src->length - offset, pnum = bytes;
    BlockDriverState *bs = blk_bs(src->blk);
    BlockDriverState *base = c->job->target_has_backing ?
                             bdrv_backing_bs(bs) : NULL;
    int ret = bdrv_block_status_above(bs, base, offset, bytes, &pnum, NULL,
                                      NULL);

    if (ret < 0 && c->job->salvage) {
        if (!c->job->quiet) {
            warn_report("error while reading block status at offset %" PRId64
                        ": %s", offset, g_strerror(-ret));
        }
        /* Reading decides, a little at a time. */
        ret = BDRV_BLOCK_DATA;
        pnum = MIN(bytes, BDRV_SECTOR_SIZE);
    }
    if (ret < 0) {
        fail_locked(c, offset, "reading block status at offset", ret);
        return false;
    }
    c->status_kind = kind_of_status(c, ret);
    c->status_end = c->next + pnum;
    round_status_locked(c);
    return true;
}

/* How long to wait before the next extent so that the rate is kept. */
static int64_t REQUIRES(job_class) delay_locked(Convert *c)
{
    double due_ns;

    if (!c->job->rate) {
        return 0;
    }
    due_ns = (double)c->next / c->job->rate * 1e9;
    return c->start_ns + due_ns - qemu_clock_ns();
}

/* With -S 0, zeroes are data as well. */
static bool is_written_as_data(const Convert *c, const Chunk *chunk)
{
    return chunk->kind == CHUNK_DATA ||
           (chunk->kind == CHUNK_ZERO && !c->job->sparse_size);
}

static bool REQUIRES(job_class) take_chunk_locked(Convert *c, Chunk *chunk)
{
    int64_t delay;

    while (!c->ret && (delay = delay_locked(c)) > 0) {
        job_timedwait(&c->failed, &c->lock, delay);
    }
    if (c->ret || c->next >= c->job->total) {
        return false;
    }
    while (c->next >= c->job->sources[c->cur].start +
                      c->job->sources[c->cur].length) {
        c->cur++;
    }
    chunk->src = &c->job->sources[c->cur];
    if (c->next >= c->status_end && !refresh_status_locked(c, chunk->src)) {
        return false;
    }
    chunk->offset = c->next;
    chunk->bytes = c->status_end - c->next;
    chunk->kind = c->status_kind;
    if (is_written_as_data(c, chunk)) {
        chunk->bytes = MIN(chunk->bytes, c->chunk_size);
    }
    c->next += chunk->bytes;
    return true;
}

/*
 * While one thread writes and another has what comes next, more than enough
 * would only take processor time and cache from them.  When nobody writes it is
 * reading that takes long, and one more helps.
 */
static void REQUIRES(job_class) wait_while_enough_locked(Convert *c)
{
    while (c->busy >= ENOUGH_BUSY && c->writers >= 2 && !c->ret &&
           c->next < c->job->total) {
        job_wait(&c->nobody_writes, &c->lock);
    }
}

static bool take_chunk(Convert *c, Chunk *chunk)
{
    bool ok;

    job_lock(&c->lock);
    wait_while_enough_locked(c);
    ok = take_chunk_locked(c, chunk);
    c->busy += ok;
    if (c->next >= c->job->total) {
        qemu_cond_broadcast(&c->nobody_writes);
    }
    job_unlock(&c->lock);
    return ok;
}

/* ---- Reading ---- */

/* Sector by sector, with zeroes for those that fail. */
static void salvage_read(Convert *c, const ConvertSource *src, int64_t offset,
                         uint8_t *buf, int64_t bytes)
{
    int64_t pos, n;

    for (pos = 0; pos < bytes; pos += n) {
        int64_t at = offset + pos - src->start;
        int ret;

        n = MIN(bytes - pos, BDRV_SECTOR_SIZE);
        ret = blk_pread(src->blk, at, n, buf + pos, 0);
        if (ret < 0) {
            if (!c->job->quiet) {
                warn_report("error while reading offset %" PRId64 ": %s", at,
                            g_strerror(-ret));
            }
            memset(buf + pos, 0, n);
        }
    }
}

static int read_source(Convert *c, const ConvertSource *src, int64_t offset,
                       uint8_t *buf, int64_t bytes)
{
    int ret = blk_pread(src->blk, offset - src->start, bytes, buf, 0);

    if (ret < 0 && c->job->salvage) {
        salvage_read(c, src, offset, buf, bytes);
        ret = 0;
    }
    return ret;
}

/* A piece may reach into the next source, if it is compressed as one. */
static bool read_piece(Convert *c, const Chunk *chunk, int64_t offset,
                       uint8_t *buf, int64_t bytes)
{
    const ConvertSource *src = chunk->src;
    int64_t pos, n;

    if (chunk->kind == CHUNK_ZERO) {
        memset(buf, 0, bytes);
        return true;
    }
    for (pos = 0; pos < bytes; pos += n) {
        int ret;

        while (offset + pos >= src->start + src->length) {
            src++;
        }
        n = MIN(bytes - pos, src->start + src->length - (offset + pos));
        ret = read_source(c, src, offset + pos, buf + pos, n);
        if (ret < 0) {
            fail(c, chunk->offset, "reading at byte", ret);
            return false;
        }
    }
    return true;
}

/* ---- Writing ---- */

static bool check(Convert *c, const Chunk *chunk, int ret)
{
    if (ret < 0) {
        fail(c, chunk->offset, "writing at byte", ret);
    }
    return ret >= 0;
}

static void count_writer(Convert *c, int n)
{
    if (c->one_writes) {
        job_lock(&c->lock);
        c->writers += n;
        if (c->writers == 0) {
            qemu_cond_signal(&c->nobody_writes);
        }
        job_unlock(&c->lock);
    }
}

static int write_piece(Convert *c, const ConvertPiece *p)
{
    int ret;

    count_writer(c, 1);
    ret = convert_write(c->job, p);
    count_writer(c, -1);
    return ret;
}

/* What the piece holds; without one, what the chunk is. */
static bool write_out(Convert *c, const Chunk *chunk, const ConvertPiece *p)
{
    int ret = p ? write_piece(c, p) :
              chunk->kind == CHUNK_BACKING ? 0 :
              convert_write_zeroes(c->job, chunk->offset, chunk->bytes);

    return check(c, chunk, ret);
}

/* The one that can be written, if there is one that nobody writes. */
static Turn *REQUIRES(job_class) next_turn_locked(Convert *c)
{
    Turn *t;

    if (c->ret || c->writing) {
        return NULL;
    }
    list_for_each(t, &c->turns, node) {
        if (t->offset == c->written_to) {
            return t;
        }
    }
    return NULL;
}

/* What has to be done in order: find a place, or else write. */
static bool place_or_write(Convert *c, const Turn *t, bool *placed)
{
    *placed = t->piece && convert_place(c->job, t->piece);
    return *placed || write_out(c, t->chunk, t->piece);
}

/* Drops the lock. */
static void REQUIRES(job_class) write_turn_locked(Convert *c, Turn *t)
{
    bool ok, placed;

    c->writing = true;
    t->busy = true;
    job_unlock(&c->lock);
    ok = place_or_write(c, t, &placed);
    job_lock(&c->lock);
    t->placed = placed;
    c->writing = false;
    c->written_to = ok ? t->end : c->written_to;
    t->busy = false;
    t->done = ok;
    qemu_cond_signal(&t->cond);
}

/*
 * Wait until all before @t is placed or written, and it, too; false if that
 * will never be.  One thread at a time does it, what is there, for all: nobody
 * has to wake up before it can go on.
 */
static bool take_turn(Convert *c, Turn *t)
{
    Turn *next;

    qemu_cond_init(&t->cond);
    job_lock(&c->lock);
    list_push_back(&c->turns, &t->node);
    while ((next = next_turn_locked(c)) || t->busy || (!t->done && !c->ret)) {
        if (next) {
            write_turn_locked(c, next);
        } else {
            job_wait(&t->cond, &c->lock);
        }
    }
    list_remove(&t->node);
    job_unlock(&c->lock);
    qemu_cond_destroy(&t->cond);
    return t->done;
}

static bool write_chunk(Convert *c, const Chunk *chunk, const ConvertPiece *p)
{
    Turn t = {
        .chunk = chunk,
        .piece = p,
        .offset = p ? p->offset : chunk->offset,
        .end = p ? p->offset + p->bytes : chunk->offset + chunk->bytes,
    };

    if (c->in_order) {
        return take_turn(c, &t) && (!t.placed || write_out(c, chunk, p));
    }
    return write_out(c, chunk, p);
}

/* ---- A thread ---- */

static bool copy_chunk(Convert *c, const Chunk *chunk, ConvertPiece *p)
{
    int64_t end = chunk->offset + chunk->bytes;

    if (!is_written_as_data(c, chunk)) {
        return write_chunk(c, chunk, NULL);
    }
    for (p->offset = chunk->offset; p->offset < end; p->offset += p->bytes) {
        /* Pieces end on grains, so that none is split. */
        p->bytes = MIN(c->piece_size - p->offset % c->piece_size,
                       end - p->offset);
        if (!read_piece(c, chunk, p->offset, p->buf, p->bytes) ||
            !check(c, chunk, convert_prepare(c->job, p)) ||
            !write_chunk(c, chunk, p)) {
            return false;
        }
    }
    return true;
}

static void chunk_done(Convert *c, const Chunk *chunk)
{
    double fraction;

    job_lock(&c->lock);
    c->busy--;
    c->done += chunk->bytes;
    fraction = (double)c->done / c->job->total;
    job_unlock(&c->lock);
    img_progress_set(fraction);
}

static void convert_worker(void *opaque)
{
    Convert *c = opaque;
    ConvertPiece piece;
    Chunk chunk;

    if (convert_piece_init(c->job, &piece, c->piece_size)) {
        while (take_chunk(c, &chunk)) {
            if (!copy_chunk(c, &chunk, &piece)) {
                break;
            }
            chunk_done(c, &chunk);
        }
    } else {
        fail(c, 0, "allocating buffers at byte", -ENOMEM);
    }
    convert_piece_destroy(&piece);
}

/* Whether what the target looks like depends on the order of writes. */
static bool allocates_in_order(BlockBackend *target)
{
    BlockDriverInfo info = { 0 };

    return bdrv_get_info(blk_bs(target), &info) < 0 || info.cluster_size;
}

/* A write to a file's page cache is a copy, with the file's lock held.  It must
 * be all that takes long, so not where data is encrypted first. */
static bool writes_one_at_a_time(BlockBackend *target)
{
    BlockDriverState *bs = blk_bs(target);
    BlockDriverInfo info = { 0 };

    while (bdrv_get_info(bs, &info) == 0 && !info.is_encrypted &&
           bdrv_primary_bs(bs)) {
        bs = bdrv_primary_bs(bs);
    }
    return g_str_equal(bs->drv->format_name, "file") &&
           !(bs->open_flags & BDRV_O_NOCACHE) && blk_enable_write_cache(target);
}

int convert_copy(const ConvertJob *job)
{
    Convert c = {
        .job = job,
        .start_ns = qemu_clock_ns(),
    };
    int64_t grain = convert_grain(job);
    int ret;

    c.in_order = !job->out_of_order && allocates_in_order(job->target);
    c.one_writes = writes_one_at_a_time(job->target);
    c.piece_size = QEMU_ALIGN_UP(PIECE_SIZE, grain);
    /* Whoever waits for a turn has all that it will write in its buffer. */
    c.chunk_size = c.in_order ? c.piece_size :
                   MAX(QEMU_ALIGN_UP(CHUNK_SIZE, grain), c.piece_size);
    list_init(&c.turns);
    job_init(&c.lock);
    qemu_cond_init(&c.failed);
    qemu_cond_init(&c.nobody_writes);
    img_run_workers(MIN(job->num_workers, job->total / c.chunk_size + 1),
                    convert_worker, &c);

    job_lock(&c.lock);
    ret = c.ret;
    if (ret < 0) {
        error_report("error while %s %" PRId64 ": %s", c.error_doing,
                     c.error_at, g_strerror(-ret));
    }
    job_unlock(&c.lock);
    qemu_cond_destroy(&c.nobody_writes);
    qemu_cond_destroy(&c.failed);
    job_destroy(&c.lock);
    return ret;
}
