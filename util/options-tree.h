/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between keyval.c and options-tree.c: nested dictionaries from dotted keys.
 */
#ifndef UTIL_OPTIONS_TREE_H
#define UTIL_OPTIONS_TREE_H

#include "qemu/options.h"

#define OPTIONS_MAX_DEPTH 1024

typedef enum TreeProblem {
    TREE_VALUE_AND_CONTAINER,   /* "a=1,a.b=2" */
    TREE_LIST_AND_OBJECT,       /* "a.0=1,a.b=2" */
    TREE_INDEX_MISSING,         /* "a.0=1,a.2=2" */
} TreeProblem;

/*
 * How a caller words a problem.  @path is the container's, without the dot
 * behind it; @missing, @seen and @largest are for TREE_INDEX_MISSING: the first
 * missing index, the number of elements, the largest index.
 */
typedef void TreeComplain(TreeProblem problem, const char *path,
                          size_t missing, size_t seen, const char *largest,
                          Error **errp);

/*
 * Set the value at @parts (a NULL-terminated path of @n parts) under @root; of
 * two for one path the last wins.  Takes ownership of @value, also on failure.
 */
bool tree_set(json_t *root, char **parts, json_t *value,
              TreeComplain *complain, Error **errp);

/* Turn each container below @root whose keys are all digits into an array. */
bool tree_make_lists(json_t *root, TreeComplain *complain, Error **errp);

#endif
