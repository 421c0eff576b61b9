/*
 * qcow2 check: tables of which an image says that several have them.
 *
 * Snapshots with one L1 table, and bitmaps with one table, are a lie, but one
 * that can be told: their entries count as often as there are users.  To go
 * through the table for each of them would take a small image with thousands of
 * them hours.  So it is gone through once, and every reference in it counts
 * for all users; what is wrong in it is said once.
 *
 * Tables that are not the same but overlap cost as much.  They are refused: all
 * tables together are no larger than the file.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2-check.h"
#include "qemu/error.h"

static gint compare_places(gconstpointer a, gconstpointer b)
{
    const Qcow2SharedTable *x = a, *y = b;

    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    if (x->bytes != y->bytes) {
        return x->bytes < y->bytes ? -1 : 1;
    }
    return x->order < y->order ? -1 : x->order > y->order;
}

static gint compare_order(gconstpointer a, gconstpointer b)
{
    const Qcow2SharedTable *x = a, *y = b;

    return x->order < y->order ? -1 : x->order > y->order;
}

GArray *qcow2_check_tables_new(void)
{
    return g_array_new(false, true, sizeof(Qcow2SharedTable));
}

void qcow2_check_tables_add(GArray *tables, uint64_t offset, uint64_t bytes)
{
    Qcow2SharedTable t = { .offset = offset, .bytes = bytes,
                           .order = tables->len };

    g_array_append_val(tables, t);
}

int qcow2_check_tables_share(Qcow2Check *chk, GArray *tables)
{
    Qcow2SharedTable *first = NULL;
    uint64_t bytes = 0;

    g_array_sort(tables, compare_places);
    for (guint i = 0; i < tables->len; i++) {
        Qcow2SharedTable *t = &g_array_index(tables, Qcow2SharedTable, i);

        if (first && first->offset == t->offset && first->bytes == t->bytes) {
            first->users++;
            continue;
        }
        first = t;
        t->users = 1;
        /* What is not in the file is not gone through. */
        if (t->offset < (uint64_t)chk->file_bytes) {
            bytes += MIN(t->bytes, chk->file_bytes - t->offset);
        }
    }
    g_array_sort(tables, compare_order);
    if (bytes > (uint64_t)chk->file_bytes) {
        error_report("ERROR tables of snapshots or bitmaps overlap");
        chk->res->check_errors++;
        return -EINVAL;
    }
    return 0;
}
