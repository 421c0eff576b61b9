/*
 * qcow2 check: the refcount structures, and how they compare with the counts.
 *
 * Blocks are read one after the other and compared a page of counts at a time:
 * what agrees (nearly everything) is found by a loop over 16-bit refcounts and
 * bytes, and where there is neither a block nor a count there is nothing to do.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-check.h"
#include "qemu/bswap.h"
#include "qemu/error.h"

/* Above this many clusters, those that nothing refers to are not mentioned
 * when their refcount cannot be read. */
#define MAX_UNREADABLE (INT64_C(1) << 22)

/* ---- The table and its blocks ---- */

int qcow2_check_load_reftable(Qcow2Check *chk)
{
    BDRVQcow2State *s = chk->s;
    uint32_t size;

    g_free(chk->reftable);
    g_free(chk->block_state);
    driver_lock(&s->lock);
    size = s->reftable_size;
    chk->reftable = g_try_new(uint64_t, MAX(size, 1));
    chk->reftable_offset = s->reftable_offset;
    chk->reftable_size = size;
    if (chk->reftable) {
        memcpy(chk->reftable, s->reftable, size * sizeof(uint64_t));
    }
    driver_unlock(&s->lock);
    chk->block_state = g_try_malloc0(MAX(size, 1));
    chk->block_index = -1;
    if (!chk->reftable || !chk->block_state) {
        return -ENOMEM;
    }
    /* Until they are counted, which is when they are looked at. */
    for (uint32_t i = 0; i < size; i++) {
        chk->block_state[i] = chk->reftable[i] ? QCOW2_BLOCK_GOOD :
                              QCOW2_BLOCK_NONE;
    }
    return 0;
}

static uint64_t block_offset(const Qcow2Check *chk, uint32_t i)
{
    return chk->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;
}

/* Where no block can be read from, whatever the file's length. */
static bool is_nowhere(const Qcow2Check *chk, uint64_t offset)
{
    return (offset & (chk->s->cluster_size - 1)) ||
           offset > (uint64_t)INT64_MAX - chk->s->cluster_size;
}

static void count_outside(Qcow2Check *chk, uint32_t i)
{
    bool fix = qcow2_check_fixes(chk, BDRV_FIX_ERRORS);

    qcow2_check_say("%s refcount block %" PRIu32 " is outside image\n",
                    fix ? "Repairing" : "ERROR", i);
    chk->res->corruptions++;
    chk->need_rebuild |= fix;
    chk->block_state[i] = is_nowhere(chk, block_offset(chk, i)) ?
                          QCOW2_BLOCK_UNREADABLE : QCOW2_BLOCK_NONE;
}

static void count_refblock(Qcow2Check *chk, uint32_t i)
{
    BDRVQcow2State *s = chk->s;
    uint64_t offset = block_offset(chk, i), refs;

    chk->block_state[i] = offset ? QCOW2_BLOCK_GOOD : QCOW2_BLOCK_NONE;
    if (chk->reftable[i] & ~QCOW2_REFTABLE_OFFSET_MASK) {
        qcow2_check_say("ERROR refcount table entry %" PRIu32 " has reserved "
                        "bits set\n", i);
        chk->res->corruptions++;
        chk->need_rebuild = true;
        if (is_nowhere(chk, offset)) {
            chk->block_state[i] = QCOW2_BLOCK_UNREADABLE;
        }
        return;
    }
    if (offset & (s->cluster_size - 1)) {
        qcow2_check_say("ERROR refcount block %" PRIu32 " is not cluster "
                        "aligned; refcount table entry corrupted\n", i);
        chk->res->corruptions++;
        chk->need_rebuild = true;
        chk->block_state[i] = QCOW2_BLOCK_UNREADABLE;
        return;
    }
    if (offset >> s->cluster_bits >= (uint64_t)chk->n_clusters) {
        count_outside(chk, i);
        return;
    }
    /* Of width 1, counts do not show that there are two. */
    chk->need_rebuild |= qcow2_refs_get(chk->refs,
                                        offset >> s->cluster_bits) != 0;
    qcow2_check_count(chk, offset, s->cluster_size);
    refs = qcow2_refs_get(chk->refs, offset >> s->cluster_bits);
    if (refs != 1) {
        qcow2_check_say("ERROR refcount block %" PRIu32 " refcount=%" PRIu64
                        "\n", i, refs);
        chk->res->corruptions++;
        chk->need_rebuild = true;
    }
}

void qcow2_check_count_refblocks(Qcow2Check *chk)
{
    for (uint32_t i = 0; i < chk->reftable_size; i++) {
        if (chk->reftable[i]) {
            count_refblock(chk, i);
        }
    }
}

/* Make chk->block block @i.  An error makes it unreadable. */
static Qcow2BlockState load_block(Qcow2Check *chk, int64_t i)
{
    if (i >= chk->reftable_size) {
        return QCOW2_BLOCK_NONE;
    }
    if (chk->block_state[i] == QCOW2_BLOCK_GOOD && chk->block_index != i) {
        chk->block_index = -1;
        if (qcow2_check_read(chk, block_offset(chk, i), chk->s->cluster_size,
                             chk->block) < 0) {
            chk->block_state[i] = QCOW2_BLOCK_UNREADABLE;
        } else {
            chk->block_index = i;
        }
    }
    return chk->block_state[i];
}

static uint64_t refcount_in_block(const Qcow2Check *chk, int64_t cluster)
{
    uint64_t mask = (UINT64_C(1) << chk->s->refcount_block_bits) - 1;

    return qcow2_refcount_read(chk->block, chk->s->refcount_order,
                               cluster & mask);
}

bool qcow2_check_stored(Qcow2Check *chk, int64_t cluster, uint64_t *refcount)
{
    Qcow2BlockState state =
        load_block(chk, cluster >> chk->s->refcount_block_bits);

    *refcount = state == QCOW2_BLOCK_GOOD ? refcount_in_block(chk, cluster) :
                0;
    return state != QCOW2_BLOCK_UNREADABLE;
}

/* ---- Comparing ---- */

typedef struct Compare {
    Qcow2Check *chk;
    BdrvCheckMode fix;
    bool quiet, settle;
    bool block_changed;
    int64_t highest;                /* cluster in use; the header is */
} Compare;

static void report(const Compare *cmp, const char *what, int64_t cluster,
                   uint64_t stored, uint64_t refs)
{
    if (!cmp->quiet) {
        qcow2_check_say("%s cluster %" PRId64 " refcount=%" PRIu64
                        " reference=%" PRIu64 "\n", what, cluster, stored,
                        refs);
    }
}

static void settle_at(Compare *cmp, int64_t cluster, uint64_t refcount)
{
    if (cmp->settle) {
        qcow2_refs_set(cmp->chk->refs, cluster, refcount);
    }
}

static void settle_stored(Compare *cmp, int64_t cluster, uint64_t stored)
{
    settle_at(cmp, cluster, stored < QCOW2_REFS_BYTE_MANY ? stored :
              QCOW2_REFS_AS_STORED);
}

static void compare_leak(Compare *cmp, int64_t cluster, uint64_t stored,
                         uint64_t refs)
{
    BdrvCheckResult *res = cmp->chk->res;

    if (cmp->fix & BDRV_FIX_LEAKS) {
        report(cmp, "Repairing", cluster, stored, refs);
        res->leaks_fixed++;
        cmp->chk->have_leaks = true;
        settle_at(cmp, cluster, refs);
        return;
    }
    report(cmp, "Leaked", cluster, stored, refs);
    res->leaks += !cmp->quiet;
    settle_stored(cmp, cluster, stored);
}

static void compare_error(Compare *cmp, int64_t cluster, uint64_t stored,
                          uint64_t refs)
{
    Qcow2Check *chk = cmp->chk;
    uint64_t mask = (UINT64_C(1) << chk->s->refcount_block_bits) - 1;

    if ((cmp->fix & BDRV_FIX_ERRORS) && chk->block_index ==
        cluster >> chk->s->refcount_block_bits) {
        report(cmp, "Repairing", cluster, stored, refs);
        qcow2_refcount_write(chk->block, chk->s->refcount_order,
                             cluster & mask, refs);
        cmp->block_changed = true;
        chk->res->corruptions_fixed++;
        settle_at(cmp, cluster, refs);
        return;
    }
    report(cmp, "ERROR", cluster, stored, refs);
    chk->res->corruptions += !cmp->quiet;
    chk->need_rebuild |= stored == 0;
    settle_stored(cmp, cluster, stored);
}

static void compare_cluster(Compare *cmp, int64_t cluster, bool has_block)
{
    uint64_t refs = qcow2_refs_get(cmp->chk->refs, cluster);
    uint64_t stored = has_block ? refcount_in_block(cmp->chk, cluster) : 0;

    if (refs == QCOW2_REFS_AS_STORED) {
        refs = stored;
    }
    if (refs || stored) {
        cmp->highest = cluster;
    }
    if (stored > refs) {
        compare_leak(cmp, cluster, stored, refs);
    } else if (stored < refs) {
        compare_error(cmp, cluster, stored, refs);
    }
}

static void unreadable_cluster(Compare *cmp, int64_t cluster)
{
    if (cmp->chk->n_clusters > MAX_UNREADABLE &&
        !qcow2_refs_get(cmp->chk->refs, cluster)) {
        return;
    }
    if (!cmp->quiet) {
        qcow2_check_say("Can't get refcount for cluster %" PRId64 ": %s\n",
                        cluster, g_strerror(EIO));
        cmp->chk->res->check_errors++;
    }
    settle_at(cmp, cluster, QCOW2_REFS_UNKNOWN);
}

/* Is each as the one before it, and the first refcount the first count? */
static bool agree16_alike(const uint8_t *stored, const uint8_t *refs, int64_t n)
{
    return refs[0] < QCOW2_REFS_BYTE_MANY && lduw_be_p(stored) == refs[0] &&
           !memcmp(refs, refs + 1, n - 1) &&
           !memcmp(stored, stored + 2, 2 * (n - 1));
}

/* The common case: 16 bits wide, and all of these refcounts are the counts. */
static bool agree16(const uint8_t *stored, const uint8_t *refs, int64_t n)
{
    const uint16_t *words = (const uint16_t *)stored;
    unsigned differ = 0, big = 0;

    if (agree16_alike(stored, refs, n)) {
        return true;
    }
    for (int64_t i = 0; i < n; i++) {
        differ |= GUINT16_FROM_BE(words[i]) ^ refs[i];
        big |= refs[i] >= QCOW2_REFS_BYTE_MANY;
    }
    return !(differ | big);
}

static bool agree(Compare *cmp, int64_t first, int64_t n, const uint8_t *refs)
{
    const Qcow2Check *chk = cmp->chk;
    uint64_t mask = (UINT64_C(1) << chk->s->refcount_block_bits) - 1;
    static const uint8_t zeroes[QCOW2_REFS_PAGE];
    int64_t i = n;

    if (chk->s->refcount_order != 4) {
        return false;
    }
    refs = refs ? refs + first % QCOW2_REFS_PAGE : zeroes;
    if (!agree16(chk->block + (first & mask) * 2, refs, n)) {
        return false;
    }
    while (i > 0 && !refs[i - 1]) {
        i--;
    }
    if (i > 0) {
        cmp->highest = first + i - 1;
    }
    return true;
}

/* Clusters of one page of counts and of one block. */
static void compare_piece(Compare *cmp, int64_t first, int64_t n,
                          Qcow2BlockState state)
{
    const uint8_t *refs = qcow2_refs_page(cmp->chk->refs,
                                          first / QCOW2_REFS_PAGE);

    if (state == QCOW2_BLOCK_NONE && !refs) {
        return;
    }
    if (state == QCOW2_BLOCK_GOOD && agree(cmp, first, n, refs)) {
        return;
    }
    if (state == QCOW2_BLOCK_UNREADABLE && !refs &&
        cmp->chk->n_clusters > MAX_UNREADABLE) {
        return;
    }
    for (int64_t c = first; c < first + n; c++) {
        if (state == QCOW2_BLOCK_UNREADABLE) {
            unreadable_cluster(cmp, c);
        } else {
            compare_cluster(cmp, c, state == QCOW2_BLOCK_GOOD);
        }
    }
}

static int write_block(Qcow2Check *chk)
{
    return qcow2_check_write(chk, QCOW2_OL_REFCOUNT_BLOCK,
                             block_offset(chk, chk->block_index),
                             chk->s->cluster_size, chk->block);
}

/* @i: a block, or past all of them; up to cluster @end. */
static int compare_block(Compare *cmp, int64_t i, int64_t end)
{
    Qcow2Check *chk = cmp->chk;
    Qcow2BlockState state = load_block(chk, i);
    int64_t n;

    cmp->block_changed = false;
    for (int64_t c = i << chk->s->refcount_block_bits; c < end; c += n) {
        n = MIN(end - c, QCOW2_REFS_PAGE - c % QCOW2_REFS_PAGE);
        compare_piece(cmp, c, n, state);
    }
    return cmp->block_changed ? write_block(chk) : 0;
}

int qcow2_check_compare(Qcow2Check *chk, BdrvCheckMode fix, bool quiet,
                        bool settle)
{
    Compare cmp = { .chk = chk, .fix = fix, .quiet = quiet, .settle = settle,
                    .highest = 0 };
    int64_t per_block = INT64_C(1) << chk->s->refcount_block_bits;
    int64_t end;
    int ret = 0;

    for (int64_t c = 0; c < chk->n_counted && ret == 0; c = end) {
        end = c / per_block < chk->reftable_size ?
              MIN(c + per_block, chk->n_counted) : chk->n_counted;
        ret = compare_block(&cmp, c / per_block, end);
    }
    chk->res->image_end_offset = (cmp.highest + 1) << chk->s->cluster_bits;
    return ret;
}

/* ---- Lowering ---- */

static bool lower_cluster(Qcow2Check *chk, int64_t cluster)
{
    uint64_t refs = qcow2_refs_get(chk->refs, cluster);
    uint64_t mask = (UINT64_C(1) << chk->s->refcount_block_bits) - 1;

    /* The two values that are no counts are larger than any refcount that
     * could have been lowered. */
    if (refs >= QCOW2_REFS_AS_STORED ||
        refcount_in_block(chk, cluster) <= refs) {
        return false;
    }
    qcow2_refcount_write(chk->block, chk->s->refcount_order, cluster & mask,
                         refs);
    return true;
}

static int lower_block(Qcow2Check *chk, int64_t i)
{
    int64_t first = i << chk->s->refcount_block_bits;
    int64_t end = MIN(first + (INT64_C(1) << chk->s->refcount_block_bits),
                      chk->n_counted);
    bool changed = false;

    if (load_block(chk, i) != QCOW2_BLOCK_GOOD) {
        return 0;
    }
    for (int64_t c = first; c < end; c++) {
        changed |= lower_cluster(chk, c);
    }
    return changed ? write_block(chk) : 0;
}

int qcow2_check_lower(Qcow2Check *chk)
{
    int64_t blocks = MIN((int64_t)chk->reftable_size,
                         (int64_t)DIV_ROUND_UP((uint64_t)chk->n_counted,
                             UINT64_C(1) << chk->s->refcount_block_bits));
    int ret = 0;

    for (int64_t i = 0; i < blocks && ret == 0; i++) {
        ret = lower_block(chk, i);
    }
    return ret;
}

/* Block @i: from cluster @first on. */
static int clear_block(Qcow2Check *chk, int64_t i, int64_t first)
{
    int64_t n = INT64_C(1) << chk->s->refcount_block_bits;
    bool changed = false;

    if (load_block(chk, i) != QCOW2_BLOCK_GOOD) {
        return 0;
    }
    for (int64_t k = MAX(first - i * n, 0); k < n; k++) {
        if (qcow2_refcount_read(chk->block, chk->s->refcount_order, k)) {
            qcow2_refcount_write(chk->block, chk->s->refcount_order, k, 0);
            changed = true;
        }
    }
    return changed ? write_block(chk) : 0;
}

int qcow2_check_clear_behind(Qcow2Check *chk)
{
    int ret = 0;

    for (int64_t i = chk->n_counted >> chk->s->refcount_block_bits;
         i < chk->reftable_size && ret == 0; i++) {
        ret = clear_block(chk, i, chk->n_counted);
    }
    return ret < 0 ? ret : bdrv_flush(chk->bs->file->bs);
}
