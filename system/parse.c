/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The emulator's command line: words to options, and back.
 *
 * An option is -name or --name.  Nearly all take one argument, always in the
 * next word; those that take none are listed below, for the versions of QEMU
 * that this was tried with.  An option that a later version adds without
 * argument would swallow the word behind it, so an unknown name takes the next
 * word only if that does not look like an option.
 *
 * Words are never changed: what the launcher does not touch reaches the
 * emulator byte for byte.
 */
#include "cmdline.h"
#include "qemu/cutils.h"

/* Options without argument, up to QEMU 10.0. */
static const char *const flags[] = {
    "S", "audio-help", "daemonize", "enable-kvm", "enable-sync-profile",
    "full-screen", "h", "help", "jitdump", "mem-prealloc", "no-acpi",
    "no-fd-bootchk", "no-hpet", "no-reboot", "no-shutdown", "no-user-config",
    "nodefaults", "nographic", "only-migratable", "perfmap", "portrait",
    "preconfig", "s", "singlestep", "snapshot", "usb", "version",
    "win2k-hack", "xen-attach", "xen-domid-restrict", NULL
};

typedef enum ValueSyntax {
    SYNTAX_OPAQUE,       /* takes a value that does not matter here */
    SYNTAX_LEGACY,       /* flat, "flag" and "noflag" allowed */
    SYNTAX_KEYVAL,       /* nested */
} ValueSyntax;

typedef struct OptionSyntax {
    const char *name;
    ValueSyntax syntax;
    const char *implied_key;
    bool json;           /* the value may also be JSON */
} OptionSyntax;

static const OptionSyntax syntaxes[] = {
    { "M", SYNTAX_KEYVAL, "type" },
    { "blockdev", SYNTAX_KEYVAL, "driver", true },
    { "device", SYNTAX_LEGACY, "driver", true },
    { "drive", SYNTAX_LEGACY, NULL },
    { "global", SYNTAX_LEGACY, NULL },
    { "m", SYNTAX_LEGACY, "size" },
    { "machine", SYNTAX_KEYVAL, "type" },
    { "numa", SYNTAX_LEGACY, "type", true },
    { "object", SYNTAX_KEYVAL, "qom-type", true },
    { "set", SYNTAX_LEGACY, NULL },
    { "smp", SYNTAX_LEGACY, "cpus" },
};

/* Options with an opaque argument that may begin with a dash; for the rest of
 * the opaque ones the argument never does. */
static const char *const dashed_values[] = {
    "append", "bios", "cdrom", "fda", "fdb", "hda", "hdb", "hdc", "hdd",
    "incoming", "initrd", "kernel", "mem-path", "mtdblock", "name", "pflash",
    "pidfile", "sd", NULL
};

static const OptionSyntax *find_syntax(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(syntaxes); i++) {
        if (!strcmp(name, syntaxes[i].name)) {
            return &syntaxes[i];
        }
    }
    return NULL;
}

static json_t *parse_value(const OptionSyntax *syntax, const char *value)
{
    Error *err = NULL;
    bool help = false;
    json_t *opts;

    if (syntax->json && value[0] == '{') {
        opts = options_from_json(value, &err);
    } else if (syntax->syntax == SYNTAX_KEYVAL) {
        opts = keyval_parse(value, syntax->implied_key, &help, &err);
    } else {
        opts = qemu_opts_parse_legacy(value, syntax->implied_key, false, &help,
                                      &err);
    }
    error_free(err);
    if (help) {
        g_clear_pointer(&opts, json_decref);
    }
    return opts;
}

static bool takes_value(const char *name, const char *next)
{
    if (!next || g_strv_contains(flags, name)) {
        return false;
    }
    return next[0] != '-' || !next[1] || find_syntax(name) ||
           g_strv_contains(dashed_values, name);
}

static CmdOption *parse_option(char **args)
{
    CmdOption *opt = g_new0(CmdOption, 1);
    const char *word = args[0];
    const OptionSyntax *syntax;

    opt->args = args;
    opt->n_args = 1;
    if (word[0] != '-' || !word[1]) {
        return opt;
    }
    opt->name = word + (word[1] == '-' ? 2 : 1);
    if (!takes_value(opt->name, args[1])) {
        return opt;
    }
    opt->n_args = 2;
    opt->value = args[1];
    syntax = find_syntax(opt->name);
    if (syntax) {
        opt->opts = parse_value(syntax, opt->value);
        opt->is_json = syntax->json && opt->value[0] == '{';
    }
    return opt;
}

static void cmd_option_free(gpointer p)
{
    CmdOption *opt = p;

    json_decref(opt->opts);
    g_free(opt->new_value);
    g_free(opt);
}

CmdLine *cmdline_parse(int argc, char **argv)
{
    static const char *const text_options[] = {
        "h", "help", "version", "audio-help", NULL
    };
    CmdLine *cmd = g_new0(CmdLine, 1);

    cmd->options = g_ptr_array_new_with_free_func(cmd_option_free);
    for (int i = 1; i < argc; ) {
        CmdOption *opt = parse_option(argv + i);

        g_ptr_array_add(cmd->options, opt);
        if (opt->name && g_strv_contains(text_options, opt->name)) {
            cmd->wants_text = true;
        }
        i += opt->n_args;
    }
    return cmd;
}

void cmdline_free(CmdLine *cmd)
{
    if (cmd) {
        g_ptr_array_unref(cmd->options);
        g_free(cmd);
    }
}

CmdOption *cmdline_option(const CmdLine *cmd, int i)
{
    return g_ptr_array_index(cmd->options, i);
}

bool cmd_option_is(const CmdOption *opt, const char *name)
{
    return opt->name && opt->opts && !strcmp(opt->name, name);
}

bool cmdline_has(const CmdLine *cmd, const char *name)
{
    for (int i = 0; i < cmd->options->len; i++) {
        if (!g_strcmp0(cmdline_option(cmd, i)->name, name)) {
            return true;
        }
    }
    return false;
}

void cmd_option_prepend(const CmdOption *opt, Error **errp)
{
    error_prepend(errp, "-%s %s: ", opt->name, opt->value);
}

void cmdline_append_args(const CmdLine *cmd, GPtrArray *args)
{
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (opt->removed) {
            continue;
        }
        g_ptr_array_add(args, g_strdup(opt->args[0]));
        if (opt->n_args == 2) {
            g_ptr_array_add(args, g_strdup(opt->new_value ?: opt->args[1]));
        }
    }
}

static void append_doubling_commas(GString *s, const char *text)
{
    for (; *text; text++) {
        g_string_append_c(s, *text);
        if (*text == ',') {
            g_string_append_c(s, ',');
        }
    }
}

static void append_pair(GString *s, const char *key, const json_t *value)
{
    g_autofree char *number = NULL;
    const char *text;

    if (json_is_string(value)) {
        text = json_string_value(value);
    } else if (json_is_boolean(value)) {
        text = json_is_true(value) ? "on" : "off";
    } else {
        text = number = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    }
    if (s->len) {
        g_string_append_c(s, ',');
    }
    if (key) {
        g_string_append_printf(s, "%s=", key);
    }
    append_doubling_commas(s, text);
}

/* Then its keys are final, dots and all. */
static bool is_flat(const json_t *opts)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)opts, key, value) {
        if (json_is_object(value) || json_is_array(value)) {
            return false;
        }
    }
    return true;
}

char *keyval_format(const json_t *opts, const char *first)
{
    g_autoptr(json_t) flat = is_flat(opts) ? json_copy((json_t *)opts) :
                                             options_flatten(opts);
    GString *s = g_string_new(NULL);
    const char *key;
    json_t *value;

    if (first && json_object_get(flat, first)) {
        append_pair(s, NULL, json_object_get(flat, first));
    }
    json_object_foreach(flat, key, value) {
        if (g_strcmp0(key, first)) {
            append_pair(s, key, value);
        }
    }
    return g_string_free(s, FALSE);
}

bool json_is_on(const json_t *s, bool def)
{
    bool value = def;

    if (json_is_boolean(s)) {
        return json_is_true(s);
    }
    if (json_is_string(s)) {
        qapi_bool_parse("", json_string_value(s), &value, NULL);
    }
    return value;
}
