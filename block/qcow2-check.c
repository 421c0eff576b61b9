/*
 * qcow2: look for damage, and repair it.
 *
 * A check counts for every cluster of the file how often something refers to it
 * (qcow2-check-tables.c, -snapshots.c, -bitmaps.c), compares the counts with
 * the refcounts (qcow2-check-refcounts.c), and then the COPIED flags with those
 * (qcow2-check-copied.c).  What is found is said, in one order that depends on
 * the image only: threads look at tables ahead and count what is in order,
 * and this thread goes through the rest, table by table.
 *
 * A repair may be interrupted at any write, and must not have made anything
 * worse: refcounts that are too small go up first; then COPIED flags that are
 * wrong go away; then refcounts that are too large go down; then missing
 * COPIED flags are set; with a sync between each two.  A snapshot table that is
 * to be another is written after all that.  Where refcounts cannot be corrected
 * in place, all refcount structures are made anew
 * (qcow2-repair.c).
 * Nothing is repaired if counting failed, and nothing is written to a table
 * that is also something else (qcow2-check-users.c).
 *
 * Messages, counts and what is repaired in which mode are those of QEMU's
 * qemu-img check; docs/interop/qcow2.md says where we do more.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block.h"
#include "qcow2-check.h"
#include "qcow2-snapshot.h"
#include "qemu/atomic.h"
#include "qemu/error.h"
#include "qemu/thread.h"

/* ---- Threads ---- */

typedef struct Helper {
    QemuThread thread;
    void (*fn)(void *opaque, unsigned thread);
    void *opaque;
    unsigned number;
} Helper;

static void *helper_main(void *opaque)
{
    Helper *h = opaque;

    h->fn(h->opaque, h->number);
    return NULL;
}

void qcow2_check_in_threads(void (*fn)(void *opaque, unsigned thread),
                            void *opaque, unsigned max)
{
    Helper helpers[QCOW2_CHECK_MAX_THREADS];
    /* To ask how many there are takes a file to be read. */
    unsigned n = 1, want = max > 1 ? MIN(g_get_num_processors(), max) : 1;

    want = MIN(want, QCOW2_CHECK_MAX_THREADS);
    while (n < want) {
        helpers[n] = (Helper){ .fn = fn, .opaque = opaque, .number = n };
        if (qemu_thread_create(&helpers[n].thread, "qcow2-check", helper_main,
                               &helpers[n]) < 0) {
            break;              /* fewer do it, too */
        }
        n++;
    }
    fn(opaque, 0);
    while (n > 1) {
        n--;
        qemu_thread_join(&helpers[n].thread);
    }
}

/* ---- The file ---- */

int qcow2_check_read(const Qcow2Check *chk, int64_t offset, int64_t bytes,
                     void *buf)
{
    int64_t inside = offset >= chk->file_bytes ? 0 :
                     MIN(bytes, chk->file_bytes - offset);

    memset((uint8_t *)buf + inside, 0, bytes - inside);
    return inside ? bdrv_pread(chk->bs->file, offset, inside, buf, 0) : 0;
}

int qcow2_check_write(const Qcow2Check *chk, int own, int64_t offset,
                      int64_t bytes, const void *buf)
{
    if (!qcow2_check_inside(chk, offset, bytes) ||
        qcow2_metadata_overlap(chk->s, QCOW2_OL_ALL & ~own, offset, bytes)) {
        return -EPERM;
    }
    return bdrv_pwrite(chk->bs->file, offset, bytes, buf, 0);
}

bool qcow2_check_inside(const Qcow2Check *chk, uint64_t offset, uint64_t bytes)
{
    int64_t end;

    if (offset > INT64_MAX || bytes > INT64_MAX - offset) {
        return false;
    }
    end = offset + bytes;
    return end <= chk->file_bytes ||
           end - chk->file_bytes < chk->s->cluster_size;
}

void qcow2_check_count_clusters(Qcow2Check *chk, int64_t first, int64_t last)
{
    uint32_t users = MAX(chk->users, 1);

    chk->n_counted = MAX(chk->n_counted, last + 1);
    for (int64_t c = first; c <= last; c++) {
        uint64_t refs = qcow2_refs_get(chk->refs, c);
        uint32_t times = refs >= chk->s->refcount_max ? 0 :
                         MIN(users, chk->s->refcount_max - refs);

        if (times) {
            qcow2_refs_add_times(chk->refs, c, 1, times);
        }
        if (times == users) {
            continue;
        }
        qcow2_check_say("ERROR: overflow cluster offset=0x%" PRIx64 "\n"
                        "Use qemu-img amend to increase the refcount entry "
                        "width or qemu-img convert to create a clean copy if "
                        "the image cannot be opened for writing\n",
                        c << chk->s->cluster_bits);
        chk->res->corruptions++;
    }
}

void qcow2_check_count(Qcow2Check *chk, uint64_t offset, uint64_t bytes)
{
    int64_t first, last;

    if (bytes == 0) {
        return;
    }
    if (!qcow2_check_inside(chk, offset, bytes)) {
        qcow2_check_say("ERROR: counting reference for region exceeding the "
                        "end of the file by one cluster or more: offset 0x%"
                        PRIx64 " size 0x%" PRIx64 "\n", offset, bytes);
        chk->res->corruptions++;
        return;
    }
    first = offset >> chk->s->cluster_bits;
    last = (offset + bytes - 1) >> chk->s->cluster_bits;
    qcow2_check_count_clusters(chk, first, last);
}

/* ---- The check ---- */

static int count_all(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    const Qcow2L1 *l1 = qatomic_load_acquire(&s->l1);
    int ret;

    qcow2_check_count(chk, 0, s->cluster_size);
    ret = qcow2_check_count_l1(chk, l1->offset, l1->entries, l1->size, true);
    if (ret == 0) {
        ret = qcow2_check_count_snapshots(chk);
    }
    if (ret == 0 && s->crypt_method == QCOW2_CRYPT_LUKS) {
        qcow2_check_count(chk, s->crypto_header_offset,
                          s->crypto_header_length);
    }
    if (ret == 0) {
        ret = qcow2_check_count_bitmaps(chk);
    }
    chk->unrelated_corruptions = chk->res->corruptions;
    if (ret == 0) {
        qcow2_check_count(chk, chk->reftable_offset,
                          chk->reftable_size * sizeof(uint64_t));
        qcow2_check_count_refblocks(chk);
    }
    return ret;
}

/* After the counts differ: repair in place. */
static int repair_refcounts(Qcow2Check *chk, const BdrvCheckResult *before)
{
    chk->res->corruptions = before->corruptions;
    chk->res->leaks = before->leaks;
    chk->res->check_errors = before->check_errors;
    return qcow2_check_compare(chk, chk->fix, false, true);
}

/* New structures; the old ones are leaks then, which are repaired. */
static int rebuild_refcounts(Qcow2Check *chk)
{
    int64_t corruptions = chk->unrelated_corruptions;
    int64_t fixed = chk->res->corruptions - corruptions;
    int64_t leaks = chk->res->leaks;
    BdrvCheckResult old;
    int ret;

    qcow2_check_say("Rebuilding refcount structure\n");
    ret = qcow2_repair_rebuild(chk);
    if (ret < 0) {
        return ret;
    }
    chk->res->corruptions_fixed += fixed;
    chk->res->corruptions = corruptions;
    chk->res->leaks_fixed += leaks;
    chk->res->leaks = 0;
    chk->res->check_errors = 0;
    /* What has not been repaired is said again, but counts once. */
    old = *chk->res;
    ret = count_all(chk);
    if (ret == 0) {
        ret = qcow2_check_compare(chk, BDRV_FIX_LEAKS, false, true);
    }
    old.image_end_offset = chk->res->image_end_offset;
    old.check_errors = chk->res->check_errors;
    *chk->res = old;
    return ret;
}

static int check_refcounts(Qcow2Check *chk)
{
    BdrvCheckResult before = *chk->res;
    int ret = qcow2_check_compare(chk, 0, false, false);
    bool differ = chk->res->corruptions != before.corruptions ||
                  chk->res->leaks != before.leaks ||
                  chk->res->check_errors != before.check_errors;

    if (ret < 0) {
        return ret;
    }
    if (chk->need_rebuild && qcow2_check_fixes(chk, BDRV_FIX_ERRORS)) {
        return rebuild_refcounts(chk);
    }
    if (chk->need_rebuild && chk->fix) {
        qcow2_check_say("ERROR need to rebuild refcount structures\n");
        return -EIO;
    }
    if (chk->fix && differ) {
        return repair_refcounts(chk, &before);
    }
    return differ ? qcow2_check_compare(chk, 0, true, true) : 0;
}

static int sync_file(Qcow2Check *chk)
{
    return chk->fix ? bdrv_flush(chk->bs->file->bs) : 0;
}

static int check_copied(Qcow2Check *chk)
{
    BdrvCheckResult *res = chk->res;
    bool fix = qcow2_check_fixes(chk, BDRV_FIX_ERRORS) ||
               (qcow2_check_fixes(chk, BDRV_FIX_LEAKS) &&
                !res->corruptions && !res->check_errors);
    bool missing = false;
    int ret = sync_file(chk);

    if (ret == 0) {
        ret = qcow2_check_copied_clear(chk, fix, &missing);
    }
    if (ret == 0) {
        ret = sync_file(chk);
    }
    if (ret == 0 && chk->have_leaks) {
        ret = qcow2_check_lower(chk);
        ret = ret < 0 ? ret : sync_file(chk);
    }
    if (ret == 0 && fix && missing) {
        ret = qcow2_check_copied_set(chk);
        ret = ret < 0 ? ret : sync_file(chk);
    }
    return ret;
}

static int check_image(Qcow2Check *chk)
{
    int ret = qcow2_check_snapshot_table(chk);

    if (ret == 0) {
        ret = qcow2_check_load_reftable(chk);
    }
    if (ret < 0) {
        return ret;
    }
    chk->res->total_clusters = DIV_ROUND_UP(chk->s->disk_size,
                                            chk->s->cluster_size);
    ret = count_all(chk);
    if (ret == 0) {
        ret = check_refcounts(chk);
    }
    if (ret == 0) {
        ret = check_copied(chk);
    }
    if (ret == 0) {
        ret = qcow2_check_repair_snapshots(chk);
    }
    chk->res->corruptions += chk->bad_snapshots + chk->lost_snapshots;
    return ret;
}

/* Clusters that new refcount structures take at most, and some; and as many as
 * the longest snapshot table has, which it may say are behind the end. */
static int64_t room_for_rebuild(const Qcow2Check *chk)
{
    int64_t blocks = chk->n_clusters >> chk->s->refcount_block_bits;

    return 2 * blocks + 4 * (QCOW2_MAX_REFTABLE_SIZE >> chk->s->cluster_bits) +
           (QCOW2_MAX_SNAPSHOT_TABLE >> chk->s->cluster_bits) + 64;
}

static int check_init(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;

    chk->file_bytes = bdrv_getlength(chk->bs->file->bs);
    if (chk->file_bytes < 0) {
        return chk->file_bytes;
    }
    chk->n_clusters = DIV_ROUND_UP((uint64_t)chk->file_bytes,
                                   (uint64_t)s->cluster_size);
    chk->n_counted = chk->n_clusters;
    chk->block_index = -1;
    chk->block = g_try_malloc(s->cluster_size);
    chk->room = chk->n_clusters + 2 + room_for_rebuild(chk);
    chk->refs = qcow2_refs_new(chk->room);
    return chk->block && chk->refs ? 0 : -ENOMEM;
}

static void check_destroy(Qcow2Check *chk)
{
    qcow2_refs_free(chk->refs);
    qcow2_refs_free(chk->not_tables);
    qcow2_check_free_snapshots(chk);
    g_free(chk->runs);
    g_free(chk->reftable);
    g_free(chk->block_state);
    g_free(chk->block);
}

/* The tables in the file are what is in memory. */
static int settle(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    driver_lock(&s->lock);
    if (s->writable && !qatomic_read(&s->corrupt)) {
        ret = qcow2_settle(bs);
    }
    driver_unlock(&s->lock);
    return ret;
}

/* Nothing is wrong any more: say so in the header. */
static int mark_repaired(BlockDriverState *bs, const BdrvCheckResult *res)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (res->corruptions || res->check_errors) {
        return 0;
    }
    driver_lock(&s->lock);
    s->refcounts_suspect = false;
    ret = qcow2_mark_consistent(bs);
    if (ret == 0) {
        ret = qcow2_mark_clean(bs);
    }
    driver_unlock(&s->lock);
    return ret;
}

int qcow2_check(BlockDriverState *bs, BdrvCheckResult *res, BdrvCheckMode fix)
{
    Qcow2Check chk = { .bs = bs, .s = bs->opaque, .res = res, .fix = fix };
    int ret = settle(bs);
    int reloaded;

    if (ret == 0) {
        ret = check_init(&chk);
    }
    if (ret == 0) {
        ret = check_image(&chk);
    }
    check_destroy(&chk);
    if (!fix) {
        return ret;
    }
    reloaded = qcow2_repair_reload(bs);
    if (ret == 0 && reloaded == 0) {
        ret = mark_repaired(bs, res);
    }
    return ret < 0 ? ret : reloaded;
}
