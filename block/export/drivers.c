/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one table of all kinds of exports.
 */
#include "qemu/osdep.h"
#include "export-internal.h"

const BlockExportDriver *const block_export_drivers[] = {
    &block_export_vhost_user_blk,
    NULL,
};
