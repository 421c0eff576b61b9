/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers, sizes and booleans as people write them on a command line.
 *
 * The parsers below share one convention.  They return 0, -EINVAL (not a
 * number; *result is 0) or -ERANGE (outside the type; *result is the nearest
 * limit).  With @end, parsing stops at the first character that does not
 * belong and *end points at it (at the start of @s after -EINVAL); without,
 * anything left over makes it -EINVAL.  White space and a sign may come first.
 * A NULL @s is -EINVAL.  All may be called by any thread; none blocks.
 */
#ifndef QEMU_CUTILS_H
#define QEMU_CUTILS_H

#include "qemu/osdep.h"
#include "qemu/error.h"

/*
 * A size in bytes: digits, perhaps a fraction, perhaps one of the suffixes
 * b k m g t p e in either case (powers of 1024); or hexadecimal with 0x, and
 * then neither.  A fraction needs a unit above bytes, unless it is zero, and is
 * rounded to the nearest byte.  No exponents.  A negative number is -ERANGE
 * (its nearest limit is 0).
 *
 * Without suffix the number counts bytes; for _MiB, mebibytes; _metric counts
 * bytes and its suffixes are powers of 1000.
 */
int qemu_strtosz(const char *s, const char **end, uint64_t *result);
int qemu_strtosz_MiB(const char *s, const char **end, uint64_t *result);
int qemu_strtosz_metric(const char *s, const char **end, uint64_t *result);

/* Integers in @base (0: 0x and 0 prefixes decide). */
int qemu_strtoi(const char *s, const char **end, int base, int *result);
int qemu_strtoui(const char *s, const char **end, int base,
                 unsigned int *result);
int qemu_strtoi64(const char *s, const char **end, int base, int64_t *result);
int qemu_strtou64(const char *s, const char **end, int base,
                  uint64_t *result);

/* An unsigned number without any minus sign, which is -EINVAL here. */
int parse_uint(const char *s, const char **end, int base, uint64_t *result);
int parse_uint_full(const char *s, int base, uint64_t *result);

/*
 * A size for people, three significant digits: "1.5 GiB", "512 B".  To be
 * freed with g_free.
 */
char *size_to_str(uint64_t bytes);

/*
 * "on", "yes", "true", "y" and "off", "no", "false", "n" into *@value; else an
 * error that names the parameter @name.
 */
bool qapi_bool_parse(const char *name, const char *text, bool *value,
                     Error **errp);

/*
 * Whether @id may be the ID of a node, an object, an export: a letter, then
 * letters, digits and - . _ only.
 */
bool id_wellformed(const char *id);

/* What follows @prefix in @s into *@rest (may be NULL); false if not there. */
bool strstart(const char *s, const char *prefix, const char **rest);

#endif
