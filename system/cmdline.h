/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The emulator's command line as a list that can be edited.
 *
 * Everything in system/ belongs to one program with one thread; nothing here
 * is locked.
 */
#ifndef SYSTEM_CMDLINE_H
#define SYSTEM_CMDLINE_H

#include <jansson.h>
#include "qemu/osdep.h"
#include "qemu/error.h"
#include "qemu/options.h"

typedef struct CmdOption {
    char **args;             /* where it stands in argv (not owned) … */
    int n_args;              /* … and how many words it is: 1 or 2 */
    const char *name;        /* without dashes; NULL: a word on its own */
    const char *value;       /* NULL: none */
    /*
     * The value as a dictionary, for the options that matter here (flat for
     * -drive and -device, nested for the rest); NULL for others, and where the
     * value cannot be parsed, which is left to the emulator to complain about.
     */
    json_t *opts;
    bool is_json;            /* the value was JSON */
    /* How it reaches the emulator. */
    bool removed;
    char *new_value;         /* instead of value; NULL: unchanged */
} CmdOption;

typedef struct CmdLine {
    GPtrArray *options;      /* of CmdOption *, in order */
    bool wants_text;         /* -help or -version: nothing will run */
} CmdLine;

/* Parse @argv, which must outlive the result.  Cannot fail. */
CmdLine *cmdline_parse(int argc, char **argv);
void cmdline_free(CmdLine *cmd);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CmdLine, cmdline_free)

CmdOption *cmdline_option(const CmdLine *cmd, int i);
/* Whether @opt is option @name and its value was understood. */
bool cmd_option_is(const CmdOption *opt, const char *name);
/* Whether the option @name is given at all. */
bool cmdline_has(const CmdLine *cmd, const char *name);

/* Put "-name value: " in front of *@errp, as the emulator does. */
void cmd_option_prepend(const CmdOption *opt, Error **errp);

/* Append the words of what is left, with replacements, to @args (strings, one
 * g_strdup() each). */
void cmdline_append_args(const CmdLine *cmd, GPtrArray *args);

/* "k=v,k2.sub=v2": the inverse of keyval_parse(), and of the legacy parser for
 * flat dictionaries.  @first, if it is there, becomes the bare first element.
 * For g_free(). */
char *keyval_format(const json_t *opts, const char *first);

/* @s is on, off or a JSON boolean: the value; otherwise (or NULL) @def. */
bool json_is_on(const json_t *s, bool def);

#endif
