/*
 * qcow2: how what is dirty in a cache of tables reaches the disk.
 *
 * qcow2-flush.c says when.  What is written are copies, which are made under
 * the lock at one moment; a slot whose copy is not written yet is "writing" and
 * stays in the cache, so that nobody reads the old table from the disk.  It may
 * change meanwhile, and is dirty again then, as it is if the copy could not be
 * written.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-cache-int.h"
#include "qcow2-copies.h"

bool qcow2_cache_is_dirty(Qcow2Cache *c)
{
    return c->n_dirty > 0 || c->n_writing > 0;
}

/* ---- Copying ---- */

static int compare_offsets(const void *a, const void *b)
{
    const Qcow2Table *x = *(Qcow2Table *const *)a;
    const Qcow2Table *y = *(Qcow2Table *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Room for all that is dirty; drops the lock to make it. */
static int REQUIRES(driver_class)
make_copies(BlockDriverState *bs, Qcow2Cache *c, Qcow2TableCopies **copies,
            Qcow2Table ***order)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned room = 0;

    *copies = NULL;
    *order = NULL;
    while (c->n_dirty > room) {
        room = c->n_dirty + c->n_dirty / 8 + 8;
        driver_unlock(&s->lock);
        qcow2_copies_free(*copies);
        g_free(*order);
        *copies = qcow2_copies_new(bs, c->table_size, room);
        *order = g_try_new(Qcow2Table *, room);
        driver_lock(&s->lock);
        if (!*copies || !*order) {
            qcow2_copies_free(*copies);
            g_free(*order);
            *copies = NULL;
            *order = NULL;
            return -ENOMEM;
        }
    }
    return 0;
}

int qcow2_cache_copy_dirty(BlockDriverState *bs, Qcow2Cache *c,
                           Qcow2TableCopies **copies)
{
    g_autofree Qcow2Table **order = NULL;
    unsigned n = 0;
    ListNode *node;
    int ret = make_copies(bs, c, copies, &order);

    if (ret < 0) {
        return ret;
    }
    if (!c->n_dirty) {
        qcow2_copies_free(*copies);
        *copies = NULL;
        return 0;
    }
    while ((node = c->dirty.head.next) != &c->dirty.head) {
        order[n] = list_entry(node, Qcow2Table, dirty_node);
        qcow2_table_set_dirty(order[n], false);
        qcow2_table_set_writing(order[n++], true);
    }
    qsort(order, n, sizeof(*order), compare_offsets);
    for (unsigned i = 0; i < n; i++) {
        qcow2_copies_add(*copies, order[i]->offset, order[i]->words);
    }
    return 0;
}

/* ---- Writing ---- */

/* The copy of the table at @offset is written, or has failed to be. */
static void end_write(Qcow2Cache *c, int64_t offset, bool failed)
{
    Qcow2Table *t = qcow2_cache_find(c, offset, INT_MAX);

    if (t && t->writing) {
        qcow2_table_set_writing(t, false);
        if (failed) {
            qcow2_table_set_dirty(t, true);
        }
    }
}

static void end_copies(Qcow2Cache *c, Qcow2TableCopies *copies)
{
    for (unsigned i = 0; i < copies->n; i++) {
        end_write(c, copies->items[i].offset, !copies->items[i].written);
    }
    qcow2_copies_free(copies);
}

int qcow2_cache_write_copies(BlockDriverState *bs, Qcow2Cache *c,
                             Qcow2TableCopies *copies)
{
    BDRVQcow2State *s = bs->opaque;
    /* Tables that snapshots share are written, too: their COPIED flags. */
    int own = c == s->l2_cache ? QCOW2_OL_SHARED_L2 : QCOW2_OL_REFCOUNT_BLOCK;
    int ret = qcow2_copies_write(bs, copies, own);

    end_copies(c, copies);
    qemu_cond_broadcast(&s->cond);
    return ret;
}

void qcow2_cache_drop_copies(Qcow2Cache *c, Qcow2TableCopies *copies)
{
    end_copies(c, copies);
}

int qcow2_cache_write_back(BlockDriverState *bs, Qcow2Cache *c)
{
    Qcow2TableCopies *copies;
    int ret = qcow2_cache_copy_dirty(bs, c, &copies);

    return ret < 0 || !copies ? ret : qcow2_cache_write_copies(bs, c, copies);
}
