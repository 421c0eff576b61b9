/*
 * qcow2: copies of tables on their way to the disk.
 *
 * What a flush writes is what the tables were at one moment (qcow2-flush.c says
 * which), so it is copied under the lock, and written without it.  The copies
 * lie in the order of their offsets, one behind the other: neighbours on the
 * disk are neighbours in the buffer and take one request.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-copies.h"

Qcow2TableCopies *qcow2_copies_new(BlockDriverState *bs, size_t unit,
                                   unsigned room)
{
    Qcow2TableCopies *copies = g_new0(Qcow2TableCopies, 1);

    copies->unit = unit;
    copies->room = room;
    copies->items = g_try_new(Qcow2Copy, room);
    if (room <= SIZE_MAX / unit) {
        copies->buf = qemu_try_memalign(bs->file->bs->bl.opt_mem_alignment,
                                        room * unit);
    }
    if (!copies->items || !copies->buf) {
        qcow2_copies_free(copies);
        return NULL;
    }
    return copies;
}

void qcow2_copies_free(Qcow2TableCopies *copies)
{
    if (copies) {
        g_free(copies->items);
        qemu_vfree(copies->buf);
        g_free(copies);
    }
}

void qcow2_copies_add(Qcow2TableCopies *copies, int64_t offset,
                      const void *data)
{
    unsigned n = copies->n++;

    assert(n < copies->room);
    assert(n == 0 || copies->items[n - 1].offset < offset);
    copies->items[n] = (Qcow2Copy){ .offset = offset };
    memcpy(copies->buf + n * copies->unit, data, copies->unit);
}

/* How many from @from on are neighbours. */
static unsigned run_length(const Qcow2TableCopies *copies, unsigned from)
{
    const Qcow2Copy *first = &copies->items[from];
    unsigned n = 1;

    while (from + n < copies->n &&
           first[n].offset == first->offset + (int64_t)(n * copies->unit)) {
        n++;
    }
    return n;
}

static int write_run(BlockDriverState *bs, Qcow2TableCopies *copies, int own,
                     unsigned from, unsigned n)
{
    int64_t offset = copies->items[from].offset;
    int ret = qcow2_check_overlap(bs, own, offset, n * copies->unit);

    if (ret == 0) {
        ret = bdrv_pwrite(bs->file, offset, n * copies->unit,
                          copies->buf + from * copies->unit, 0);
    }
    for (unsigned i = 0; i < n && ret == 0; i++) {
        copies->items[from + i].written = true;
    }
    return ret;
}

int qcow2_copies_write(BlockDriverState *bs, Qcow2TableCopies *copies, int own)
{
    BDRVQcow2State *s = bs->opaque;
    int result = 0;
    unsigned n;

    driver_unlock(&s->lock);
    for (unsigned i = 0; i < copies->n; i += n) {
        int ret;

        n = run_length(copies, i);
        ret = write_run(bs, copies, own, i, n);
        result = result < 0 ? result : ret;
    }
    driver_lock(&s->lock);
    return result;
}
