/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between keyval.c and options-tree.c: nested dictionaries from dotted keys.
 */
#ifndef UTIL_OPTIONS_TREE_H
#define UTIL_OPTIONS_TREE_H

#include "qemu/options.h"

#define OPTIONS_MAX_DEPTH 1024

#endif
