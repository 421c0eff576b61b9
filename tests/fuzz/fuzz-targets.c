/*
 * The one table of fuzz targets.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "fuzz.h"

const FuzzTarget fuzz_targets[] = {
    { "open", fuzz_open },
    { "list", fuzz_list },
    { "read", fuzz_read },
    { "check", fuzz_check },
    { "write", fuzz_write },
    { NULL, NULL },
};
