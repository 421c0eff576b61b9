/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kinds of exports, for the table of them.
 */
#ifndef BLOCK_EXPORT_INTERNAL_H
#define BLOCK_EXPORT_INTERNAL_H

#include "block/export.h"

extern const BlockExportDriver block_export_vhost_user_blk;

#endif
