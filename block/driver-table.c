/*
 * All drivers: the table of those that are built in (block/drivers.c), and
 * those that a program adds before it opens its first image.
 *
 * There is no lock: adding is over before there is a graph, which is asserted.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block-internal.h"

static BlockDriver **extended;      /* NULL: only what is built in */
static bool in_use;                 /* atomic: there has been a graph */

BlockDriver *const *bdrv_all_drivers(void)
{
    return extended ? extended : bdrv_drivers;
}

void bdrv_drivers_in_use(void)
{
    qatomic_set(&in_use, true);
}

void bdrv_register_driver(BlockDriver *drv)
{
    BlockDriver *const *old = bdrv_all_drivers();
    BlockDriver **longer;
    size_t n = 0;

    assert(!qatomic_read(&in_use));
    assert(!bdrv_find_format(drv->format_name));
    while (old[n]) {
        n++;
    }
    longer = g_new0(BlockDriver *, n + 2);
    memcpy(longer, old, n * sizeof(*longer));
    longer[n] = drv;
    g_free(extended);
    extended = longer;
}
