/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options, from text to typed values.
 *
 * An option dictionary is a JSON object (json_t *).  Text gets into one by
 *   - keyval_parse: --blockdev, --export, --object …: "driver=raw,file.x=y";
 *   - qemu_opts_parse_legacy: -o, -drive, --image-opts: flat keys, flags;
 *   - options_from_json: "{ … }" and json:{ … }.
 * In the first two, every value is a string; JSON has types.  The opt_take_*
 * accessors accept either form, and *remove* what they return, so that at the
 * end what nobody took is what nobody knows: opt_first_unused().
 *
 * A flat dictionary holds "file.driver": "x", a nested one "file": {"driver":
 * "x"}; options_flatten and options_crumple convert.  Drivers get nested ones.
 *
 * References: a returned json_t * is a new reference for the caller, a
 * parameter is borrowed, unless said otherwise.  A dictionary belongs to one
 * thread at a time.  Nothing here blocks.
 */
#ifndef QEMU_OPTIONS_H
#define QEMU_OPTIONS_H

#include <jansson.h>
#include "qemu/osdep.h"
#include "qemu/error.h"

/* g_autoptr(json_t) o = …; drops the reference at the end of the scope. */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_t, json_decref)

/* --- Text to dictionary ------------------------------------------------ */

/*
 * Parse "key=value,key=value…".  A comma in a value is doubled.  "a.b=v" makes
 * a nested object, "a.0=v,a.1=w" an array (indices without gaps).  With
 * @implied_key, a first element without "=" is that key's value.  A key given
 * twice keeps the last value.
 *
 * *@help says whether one of the elements was "help" or "?"; those do not get
 * into the dictionary.  With @help NULL they are an error.
 *
 * Returns a nested object, or NULL with an error.
 */
json_t *keyval_parse(const char *params, const char *implied_key,
                     bool *help, Error **errp);

/*
 * The older rules.  Keys stay as they are, dots and all.  A key without "="
 * is "on", and "nokey" is key=off (with @warn, a warning says that these are
 * deprecated); the last of several values for a key wins.  @implied_key as in
 * keyval_parse; so is @help, but with NULL "help" is a key like any other.
 *
 * Returns a flat object with string values, or NULL with an error: an "id"
 * that is no identifier.
 */
json_t *qemu_opts_parse_legacy(const char *params, const char *implied_key,
                               bool warn, bool *help, Error **errp);

/*
 * qemu_opts_parse_legacy into an existing flat object @o, for options that may
 * be given several times (-o a=1 -o b=2).  On failure @o is unchanged.
 */
bool qemu_opts_merge_legacy(json_t *o, const char *params,
                            const char *implied_key, bool warn, bool *help,
                            Error **errp);

/*
 * Parse a JSON object.  Strings may have single quotes as well as double ones
 * (QEMU's dialect, handy inside a shell's double quotes).  Refused: anything
 * but an object, a key twice, more than 1024 levels, invalid UTF-8.
 */
json_t *options_from_json(const char *text, Error **errp);

/* The same for any JSON value (QMP). */
json_t *json_parse_qemu(const char *text, size_t len, Error **errp);

/*
 * What --blockdev and its like take: JSON if @text starts with "{", else
 * keyval_parse.
 */
json_t *options_parse(const char *text, const char *implied_key, bool *help,
                      Error **errp);

/* --- Shapes -------------------------------------------------------------- */

/*
 * Nested to flat: scalars get dotted keys; empty containers stay.  Where two
 * give the same key ("a.b" and "a": {"b"}), the last one wins.
 */
json_t *options_flatten(const json_t *nested);

/*
 * Flat to nested, the inverse: "a.b" becomes an object in "a", digits array
 * indices.  Fails where a key is both a value and a container, where indices
 * mix with names or have gaps, and beyond 1024 levels.  A doubled dot in a key
 * is a literal one.  What is nested already is merged with what is flat.
 */
json_t *options_crumple(const json_t *flat, Error **errp);

/*
 * From the flat @o, take away all keys that start with @prefix (such as
 * "file."), and return them, without it, as a new flat object.
 */
json_t *options_extract_prefix(json_t *o, const char *prefix);

/*
 * JSON text on one line, keys in the order in which they came, for g_free.
 * Bytes that are not UTF-8 (in file names) come out as U+FFFD.
 */
char *options_to_json(const json_t *o);

/* Spell the keys of the top level with underscores (cluster_size) where they
 * have dashes, as QAPI's have. */
void options_underscore_keys(json_t *o);

/* --- Taking typed values ----------------------------------------------- */

/*
 * All of these remove @key from @o when it is there and return:
 *   true   absent (*val untouched) or taken (*val set);
 *   false  there, but not such a value; *val untouched; error set, in the
 *          words that users of QEMU know.  The key is removed all the same.
 * Each accepts the native JSON type and the string.  JSON null counts as
 * absent for all but opt_take_object.
 */
bool opt_take_bool(json_t *o, const char *key, bool *val, Error **errp);
bool opt_take_u64(json_t *o, const char *key, uint64_t *val, Error **errp);
bool opt_take_i64(json_t *o, const char *key, int64_t *val, Error **errp);

/* An unsigned number from @min to @max. */
bool opt_take_range(json_t *o, const char *key, uint64_t min, uint64_t max,
                    uint64_t *val, Error **errp);

/* A size in bytes; the string form may have a suffix (qemu_strtosz). */
bool opt_take_size(json_t *o, const char *key, uint64_t *val, Error **errp);

/* As opt_take_size, for what must fit an off_t: up to INT64_MAX. */
bool opt_take_offset(json_t *o, const char *key, int64_t *val, Error **errp);

/* One of @names (ended by NULL) into its index. */
bool opt_take_enum(json_t *o, const char *key, const char *const names[],
                   int *val, Error **errp);

/* "on", "off" or "auto" (or a boolean). */
typedef enum OnOffAuto {
    ON_OFF_AUTO_AUTO,
    ON_OFF_AUTO_ON,
    ON_OFF_AUTO_OFF,
} OnOffAuto;
bool opt_take_on_off_auto(json_t *o, const char *key, OnOffAuto *val,
                          Error **errp);

/*
 * A string, allocated, for g_free; a number or a boolean gives its text.  NULL
 * if absent.  An object or array is not taken: opt_first_unused finds it.
 */
char *opt_take_str(json_t *o, const char *key);

/* The same for a key that must be there: NULL with an error without it. */
char *opt_take_str_required(json_t *o, const char *key, Error **errp);

/* A string without taking it; belongs to @o.  NULL if there is none. */
const char *opt_peek_str(const json_t *o, const char *key);

/*
 * What is there, whatever its type (for children: an object, or the string
 * that names a node), as a new reference.  NULL if absent.
 */
json_t *opt_take_any(json_t *o, const char *key);

/* An object; NULL if absent or something else, which then stays. */
json_t *opt_take_object(json_t *o, const char *key);

/* An array; NULL if absent or something else, which then stays. */
json_t *opt_take_array(json_t *o, const char *key);

/* A key that nobody took; NULL if there is none.  Belongs to @o. */
const char *opt_first_unused(const json_t *o);

/* False and "Invalid parameter 'x'" if there is one. */
bool opt_check_unused(const json_t *o, Error **errp);

/*
 * Has it keys of these @names only?  @names ends with NULL; with "!" before a
 * name the key must be there.  False with "Parameter 'x' is unexpected" or
 * "… is missing", and @path before the name.
 */
bool opt_check_names(const json_t *o, const char *const *names,
                     const char *path, Error **errp);

/* --- Making them ------------------------------------------------------- */

/* Set @key to a copy of the string; remove it for NULL. */
void opt_set_str(json_t *o, const char *key, const char *value);
void opt_set_bool(json_t *o, const char *key, bool value);
void opt_set_u64(json_t *o, const char *key, uint64_t value);

/* Set @key unless it is there already. */
void opt_default_str(json_t *o, const char *key, const char *value);

#endif
